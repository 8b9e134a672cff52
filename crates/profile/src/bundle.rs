//! Cygnet's own form of a profile: one JSON file, `cygnet import` on the other machine and done.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The version this program writes, and the highest it reads.
pub const VERSION: u32 = 1;

/// All that a gateway or a Linux machine needs to join a server. Holds a private key: mode 0600.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// Which version of this form it is.
    pub cygnet: u32,
    /// Becomes the tunnel's name, if none is given.
    pub name: String,
    /// Name or address to call.
    pub remote: String,
    /// Who the server proves to be.
    pub remote_identity: String,
    /// Who we are; stands in the certificate.
    pub identity: String,
    /// Certificates of authorities that vouch for the server, PEM.
    pub ca: String,
    /// Our certificate, PEM.
    pub certificate: String,
    /// Our private key, PKCS#8 PEM; absent where it never left the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What is reached through it; empty: everything.
    #[serde(default)]
    pub networks: Vec<IpNet>,
    /// Resolvers.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
}

/// All that the other office needs of a tunnel between two. Holds the shared secret, or a private key: mode 0600.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteBundle {
    /// Which version of this form it is.
    pub cygnet: u32,
    /// Becomes the tunnel's name, if none is given.
    pub site: String,
    /// Name or address to call; `any`: it calls us.
    pub remote: String,
    /// Who the other end proves to be.
    pub remote_identity: String,
    /// Who we are.
    pub identity: String,
    /// What both know; absent with certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub psk: Option<String>,
    /// Certificates of authorities that vouch for the other end, PEM; absent with a secret, like the next two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Our certificate, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Our private key, PKCS#8 PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Our side.
    pub local_networks: Vec<IpNet>,
    /// Our side as the other one knows it; empty: as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub local_map: Vec<IpNet>,
    /// The other side.
    pub remote_networks: Vec<IpNet>,
    /// Up when a packet wants it; otherwise always.
    #[serde(default)]
    pub on_demand: bool,
}
