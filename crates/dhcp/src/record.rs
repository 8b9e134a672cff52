//! A lease as it is kept across restarts, and told to whoever wants to know the LAN's devices.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::Mac;

/// One address and whose it is, or was last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The address.
    pub address: Ipv4Addr,
    /// The device's hardware address.
    pub mac: Mac,
    /// The client identifier (option 61) it is known by, where it is not just its hardware address.
    pub client: Option<Vec<u8>>,
    /// What the device calls itself: letters, digits, `-`, `_` and `.`, 63 at most.
    pub name: Option<String>,
    /// Seconds that it is lent for from now on; 0: it is over, and the client gets it again if it can.
    pub remaining_s: u64,
}

impl Record {
    /// Octets of a client identifier that is kept; RFC 2132 §9.14 wants two at least.
    pub(crate) const CLIENT: std::ops::RangeInclusive<usize> = 2..=64;

    /// Whether a server of this program can have written it: what the bounds of [`Record`]'s fields are.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        let name = self.name.as_deref().is_none_or(is_name);
        let client = self.client.as_deref();
        name && client.is_none_or(|id| Self::CLIENT.contains(&id.len()))
    }
}

/// Whether a device may be called so: nothing that steers a terminal or a file.
pub(crate) fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=63).contains(&text.len()) && text.bytes().all(plain)
}
