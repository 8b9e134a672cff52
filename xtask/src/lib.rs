//! What a person or CI runs: `cargo xtask demo | test | interop | integrity | leak | recovery | sim | fuzz | bench | setup`.
//!
//! [`lab`] is the library underneath: hosts in network namespaces, wires, routers with NAT, packet
//! watches, a certificate authority for tests, and real strongSwan peers.

#![allow(clippy::print_stdout, clippy::print_stderr)]

pub mod bench;
pub mod demo;
pub mod fuzz;
pub mod interop;
pub mod lab;
pub mod leak;
pub mod project;
pub mod setup;
pub mod sim;
pub mod steps;
pub mod webhost;
