//! What the demo asks of either end of the VPN, and what both ends share.

use crate::lab::algo::Year;
use crate::lab::pki::{Authority, Credential, KeyKind, Request};
use crate::lab::{Lab, Result};
use clap::ValueEnum;

/// The identity of the server; its certificate carries it.
pub(super) const SERVER_NAME: &str = "vpn.lab";
/// The identity of the gateway.
pub(super) const GATEWAY_NAME: &str = "home.lab";
/// Where the server's clients get their addresses from.
pub(super) const POOL: &str = "10.99.0.0/24";

/// Which program runs at an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Program {
    /// This project's.
    Cygnet,
    /// Debian's strongSwan, configured by hand.
    Strongswan,
    /// A server as Algo set it up in 2017; the gateway imports its files.
    #[value(name = "algo-2017")]
    Algo2017,
    /// A server as Algo sets it up today; the gateway imports its files.
    #[value(name = "algo-2026")]
    Algo2026,
}

impl Program {
    /// How it is written.
    pub fn title(self) -> &'static str {
        match self {
            Self::Cygnet => "Cygnet",
            Self::Strongswan => "strongSwan",
            Self::Algo2017 => "Algo 2017",
            Self::Algo2026 => "Algo 2026",
        }
    }

    /// Which Algo it is, if it is one.
    pub(super) fn algo(self) -> Option<Year> {
        match self {
            Self::Algo2017 => Some(Year::Y2017),
            Self::Algo2026 => Some(Year::Y2026),
            Self::Cygnet | Self::Strongswan => None,
        }
    }
}

/// One end of the VPN: the gateway or the server.
pub trait VpnEnd {
    /// Makes it ready: the server then answers; the gateway is closed and waits for [`VpnEnd::up`].
    fn start(&mut self, lab: &Lab) -> Result<()>;

    /// Brings the tunnel up; returns when it is, or when it is on its way.
    fn up(&mut self) -> Result<()>;

    /// Ends it in good order; a gateway stays closed.
    fn stop(&mut self) -> Result<()>;

    /// The processes it consists of.
    fn pids(&self) -> Vec<u32>;

    /// Commands that let the tunnel's packets through a firewall that is not its own and drops them.
    fn firewall_advice(&self) -> Result<Vec<String>>;

    /// What it has to say when something went wrong.
    fn last_words(&self) -> String;
}

/// What lets the packets of this interface through the lab's foreign firewall.
pub(super) fn accept_rules(interface: &str) -> Vec<String> {
    let rule = |direction: &str| {
        format!("nft insert rule inet foreign forward {direction} \"{interface}\" accept")
    };
    vec![rule("iifname"), rule("oifname")]
}

/// The certificates of the demo.
#[derive(Debug)]
pub(super) struct Certificates {
    pub(super) authority: String,
    pub(super) server: Credential,
    pub(super) gateway: Credential,
}

impl Certificates {
    pub(super) fn issue() -> Result<Self> {
        let authority = Authority::root(KeyKind::EcP256, "lab CA")?;
        let issue = |name| authority.issue(&Request::new(KeyKind::EcP256, name).name(name));
        Ok(Self {
            server: issue(SERVER_NAME)?,
            gateway: issue(GATEWAY_NAME)?,
            authority: authority.certificate,
        })
    }
}
