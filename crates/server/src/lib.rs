//! A VPN server of one's own: its authority, its users and their devices.
//!
//! Run by root from the command line, never by a daemon: the authority's key is touched here alone. What the daemon
//! needs is published as files it reads on a reload: certificates, the revocation list, hashes of passwords, and the
//! list of devices, each replaced whole.
//!
//! Time and randomness are arguments ([`Circumstances`]).
//!
//! - [`server`]: setting up, renewing, removing; how a change is made.
//! - [`user`]: users, devices, their certificates.
//! - [`store`]: the SQLite file behind both.
//! - [`published`]: what the daemon reads.
//! - [`configuration`]: the `[server]` section.
//! - [`pool`]: addresses lent to clients.
//! - [`profile`]: what is handed to devices.
//! - [`demand`]: when Apple's devices connect by themselves.
//! - [`backup`]: the state in one encrypted file.

mod age;
pub mod backup;
pub mod configuration;
pub mod demand;
mod error;
mod file;
mod issue;
pub mod name;
pub mod password;
pub mod pool;
pub mod profile;
pub mod published;
mod reason;
pub mod server;
pub mod store;
#[cfg(test)]
mod testing;
pub mod time;
pub mod user;

pub use configuration::{Check, Configuration};
pub use cygnet_profile::OnDemand;
pub use error::{Error, Result};
pub use name::{Address, Name};
pub use server::{Circumstances, Key, Place, Server, Settings, Summary, Unit};
pub use user::{NewUser, Renewal, User};

/// Two hexadecimal digits an octet.
fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0');
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        out.push(digit(byte >> 4));
        out.push(digit(byte & 0xf));
    }
    out
}
