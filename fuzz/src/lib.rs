//! What the fuzz targets call. Each function takes any bytes at all; what it asserts holds for all
//! of them. The same functions replay the committed corpora without a fuzzer.

mod chain;
mod config;
mod dhcp;
mod dns;
mod eap;
mod endpoint;
mod input;
mod ipc;
mod packets;
mod peer;
pub mod reach;
pub mod seeds;
mod wire;

pub use chain::{chain, chain_holds};
pub use config::config;
pub use dhcp::dhcp;
pub use dns::{dns, dns_tells};
pub use eap::eap;
pub use endpoint::{endpoint_auth, endpoint_established, endpoint_init, establishes};
pub use ipc::ipc;
pub use packets::{esp_open, inner_packets};
pub use wire::{wire_chain, wire_message};

/// Name and function of a target.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 13] = [
    ("wire_message", wire_message),
    ("wire_chain", wire_chain),
    ("endpoint_init", endpoint_init),
    ("endpoint_auth", endpoint_auth),
    ("endpoint_established", endpoint_established),
    ("esp_open", esp_open),
    ("inner_packets", inner_packets),
    ("config", config),
    ("chain", chain),
    ("ipc", ipc),
    ("eap", eap),
    ("dhcp", dhcp),
    ("dns", dns),
];
