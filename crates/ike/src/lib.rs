//! IKEv2 (RFC 7296) as a pure state machine: no sockets, no clock, no randomness of its own.

mod admission;
pub mod auth;
pub mod backoff;
pub mod config_payload;
mod context;
pub mod cookie;
mod duplicates;
mod endpoint;
pub mod event;
mod examination;
pub mod fragment;
mod half_open;
pub mod identity;
pub mod io;
mod keeper;
pub mod keys;
pub mod lifetime;
mod local_change;
mod narrowing;
pub mod nat;
mod pmtu;
pub mod policy;
pub mod proposal;
pub mod protect;
mod refusal;
pub mod refused;
mod sa;
pub mod selector;
pub mod status;
pub mod time;
pub mod window;

pub use endpoint::Endpoint;

#[cfg(test)]
mod test_random;
