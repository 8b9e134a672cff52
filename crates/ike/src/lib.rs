//! IKEv2 (RFC 7296) as a pure state machine: no sockets, no clock, no randomness of its own.

pub mod auth;
pub mod backoff;
pub mod config_payload;
pub mod cookie;
pub mod event;
pub mod fragment;
pub mod identity;
pub mod io;
pub mod keys;
pub mod lifetime;
pub mod nat;
pub mod policy;
pub mod proposal;
pub mod protect;
pub mod selector;
pub mod time;
pub mod window;

#[cfg(test)]
mod test_random;
