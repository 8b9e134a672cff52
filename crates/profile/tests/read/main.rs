//! The files that VPN servers hand out, made by openssl and Python, as tunnels.

mod algo;
mod hostile;
mod lab;
mod others;
