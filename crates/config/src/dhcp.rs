//! `[gateway.dhcp]`: what the LAN is lent, and whether that fits the LAN.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use cygnet_dhcp::ADDRESSES_MAX;
use cygnet_gateway::Mac;
use ipnet::Ipv4Net;
use toml::Spanned;

use crate::{ConfigError, Mistake};

/// `[gateway.dhcp]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dhcp {
    /// Which interface of the LAN.
    pub interface: String,
    /// Addresses for whoever comes.
    pub range: Spanned<AddressRange>,
    /// For how long.
    pub lease_time: Duration,
    /// Resolvers that devices are told; `None`: this machine.
    pub dns: Option<Vec<IpAddr>>,
    /// Whether this machine advertises itself as router for IPv6.
    pub router_advertisements: bool,
    /// Devices with an address of their own.
    pub reservations: BTreeMap<Mac, Spanned<Ipv4Addr>>,
}

/// Addresses from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    /// The first one.
    pub first: Ipv4Addr,
    /// The last one, not before the first, and no more than [`ADDRESSES_MAX`] with it.
    pub last: Ipv4Addr,
}

impl AddressRange {
    /// Whether it holds the address.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// `192.168.1.100-192.168.1.199`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('-').and_then(|(first, last)| {
            let first = first.trim().parse().ok()?;
            Some(Self {
                first,
                last: last.trim().parse().ok()?,
            })
        });
        let range = parsed.ok_or_else(|| {
            format!(
                "`{text}` is no range of addresses: expected the first and the last one, such as \
                 \"192.168.1.100-192.168.1.199\""
            )
        })?;
        let (first, last) = (range.first.to_bits(), range.last.to_bits());
        if first > last {
            return Err(format!(
                "`{text}` ends before it begins; did you mean `{}-{}`?",
                range.last, range.first
            ));
        }
        if last - first >= ADDRESSES_MAX {
            return Err(format!(
                "`{text}` has {} addresses: expected {ADDRESSES_MAX} at most",
                u64::from(last - first) + 1
            ));
        }
        Ok(range)
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl Dhcp {
    /// That of `ours`, this machine's addresses on the interface with their prefixes, which the range is beside.
    ///
    /// # Errors
    /// Everything that does not fit, each with its place in `text`, which is called `name`.
    pub fn fit(
        &self,
        name: &str,
        text: &str,
        ours: &[Ipv4Net],
        routers: &[Ipv4Addr],
    ) -> Result<Ipv4Net, ConfigError> {
        let mistakes = match self.beside(ours) {
            Ok(own) => {
                let mistakes = self.misfits(own, routers);
                if mistakes.is_empty() {
                    return Ok(own);
                }
                mistakes
            }
            Err(mistake) => vec![mistake],
        };
        Err(ConfigError::new(name, text, mistakes))
    }

    fn beside(&self, ours: &[Ipv4Net]) -> Result<Ipv4Net, Mistake> {
        let (range, interface) = (self.range.get_ref(), &self.interface);
        let own = ours.iter().find(|own| own.contains(&range.first));
        own.copied().ok_or_else(|| {
            let networks: Vec<String> = ours.iter().map(|own| own.trunc().to_string()).collect();
            let (message, help) = match networks.as_slice() {
                [] => (
                    format!(
                        "{interface} has no IPv4 address, so the range {range} is in no network of it"
                    ),
                    "give this machine a fixed address in the LAN",
                ),
                _ => (
                    format!(
                        "the range {range} is outside of {interface}'s network {}",
                        networks.join(" and ")
                    ),
                    "expected addresses of the LAN",
                ),
            };
            Mistake {
                span: self.range.span(),
                message,
                help: Some(help.to_owned()),
            }
        })
    }

    fn misfits(&self, own: Ipv4Net, routers: &[Ipv4Addr]) -> Vec<Mistake> {
        let range = self.range.get_ref();
        let (network, first, last) = (own.trunc(), own.network(), own.broadcast());
        let mut mistakes = Vec::new();
        let mut mistake = |span, message: String, help: String| {
            mistakes.push(Mistake {
                span,
                message,
                help: Some(help),
            });
        };
        let around = |address: Ipv4Addr| {
            let next = Ipv4Addr::from_bits(address.to_bits().saturating_add(1));
            let before = Ipv4Addr::from_bits(address.to_bits().saturating_sub(1));
            let rest = match next <= range.last {
                true => (next, range.last),
                false => (range.first, before),
            };
            format!("choose one without it, such as \"{}-{}\"", rest.0, rest.1)
        };
        if !network.contains(&range.last) {
            mistake(
                self.range.span(),
                format!("the range {range} ends outside of the LAN's network {network}"),
                "expected addresses of the LAN".to_owned(),
            );
        } else if range.contains(own.addr()) {
            let address = own.addr();
            mistake(
                self.range.span(),
                format!("the range {range} holds {address}, which is this machine's own"),
                around(address),
            );
        } else if let Some(router) = routers.iter().find(|router| range.contains(**router)) {
            mistake(
                self.range.span(),
                format!("the range {range} holds {router}, which is the router's"),
                around(*router),
            );
        } else if let Some(nobodys) = [first, last].into_iter().find(|a| range.contains(*a)) {
            mistake(
                self.range.span(),
                format!(
                    "the range {range} holds {nobodys}, which in the network {network} no device can have"
                ),
                around(nobodys),
            );
        }
        for (mac, reserved) in &self.reservations {
            let address = *reserved.get_ref();
            let why = if !network.contains(&address) {
                format!("is outside of the LAN's network {network}")
            } else if address == own.addr() {
                "is this machine's own".to_owned()
            } else if routers.contains(&address) {
                "is the router's".to_owned()
            } else if address == first || address == last {
                format!("is one that no device can have in the network {network}")
            } else {
                continue;
            };
            mistake(
                reserved.span(),
                format!("{address}, reserved for {mac}, {why}"),
                "expected another address of the LAN".to_owned(),
            );
        }
        mistakes
    }
}
