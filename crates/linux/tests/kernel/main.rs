//! What the kernel really does with what this crate asks of it, in network namespaces of our own.
//!
//! Needs root, `ip` and `nft`. Without root each test says so and passes, except in CI.

mod guard;
mod lent;
mod map;
mod own;
mod plan;
mod sources;
mod tun;
mod udp;
mod world;
