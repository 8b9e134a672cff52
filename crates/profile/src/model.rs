//! What a device needs to know to connect.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// One device's way into one server.
pub struct Profile {
    /// What people see in their settings: `Cygnet vpn.example.org`. One line, up to 200 octets.
    pub title: String,
    /// Stable over renewals and changes of address, so that a new profile takes the place of the old: UUIDs are
    /// derived from it (RFC 4122 version 5). The authority's and the device's own.
    pub stable_id: String,
    /// Name or address the device calls.
    pub remote: String,
    /// Who the server proves to be; one of the names in its certificate.
    pub remote_identity: String,
    /// Whose device it is: up to 32 of `a-z`, digits and `-`. For logins by password it is what the person types.
    pub user: String,
    /// Which of them, likewise. Files are called `USER.DEVICE`.
    pub device: String,
    /// Who vouches for the server.
    pub authority: Authority,
    /// How the device proves itself.
    pub login: Login,
    /// What is reached through the tunnel; empty: everything.
    pub networks: Vec<IpNet>,
    /// Resolvers, where a device does not take those it is handed.
    pub dns: Vec<IpAddr>,
    /// Domains for these resolvers alone; empty: all.
    pub domains: Vec<String>,
    /// When Apple's devices connect by themselves.
    pub on_demand: OnDemand,
    /// Proposals for IKE, as strongSwan writes them, best first; the server accepts each of them. A system that takes
    /// one alone is told what is best on it; RouterOS has none but AES-CBC (`aes256-sha256-ecp384`).
    pub ike: Vec<String>,
    /// Proposals for ESP, likewise.
    pub esp: Vec<String>,
    /// The server's lifetime of an IKE SA; what is written stays below it. Apple's devices need a quarter of an hour.
    pub ike_lifetime: Duration,
    /// The server's lifetime of a Child SA, likewise.
    pub child_lifetime: Duration,
}

/// The server's certificate authority.
pub struct Authority {
    /// Common name of its subject.
    pub common_name: String,
    /// DER.
    pub certificate: Vec<u8>,
}

/// How a device proves itself.
pub enum Login {
    /// By a certificate of its own.
    Certificate {
        /// The identity it says: an e-mail address that stands in the certificate.
        identity: String,
        /// DER.
        certificate: Vec<u8>,
        /// PKCS#8, DER; `None`: it never left the device.
        key: Option<Zeroizing<Vec<u8>>>,
        /// Opens the `.p12` files; stands in none of them. It alone protects the key in those with the old encryption:
        /// long and random, not of the person's choice.
        p12_password: Zeroizing<String>,
    },
    /// By user name and password (EAP-MSCHAPv2), which the person types.
    Password,
}

/// When an Apple device connects by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OnDemand {
    /// On mobile networks.
    pub cellular: bool,
    /// On Wi-Fi.
    pub wifi: bool,
    /// Wi-Fi networks where it does not.
    pub trusted_ssids: Vec<String>,
}
