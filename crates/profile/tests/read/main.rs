//! The files that VPN servers hand out, made by openssl and Python, as tunnels.

mod algo;
mod hostile;
mod lab;
mod others;
mod ours;
#[path = "../write/sample.rs"]
#[allow(dead_code, reason = "shared with the tests of what is written")]
mod sample;
