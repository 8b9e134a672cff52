//! `[gateway.dhcp]`, as far as the file alone tells whether it is good.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::time::Duration;

use cygnet_gateway::Mac;
use ipnet::IpNet;
use toml::Spanned;

use super::Builder;
use crate::dhcp::{AddressRange, Dhcp};
use crate::raw::RawDhcp;
use crate::units;

const LEASE_TIME: Duration = Duration::from_secs(3600);
/// Shorter ones have every device ask all the time; with longer ones none comes back within a day or two when another
/// server is to take over again.
const LEAST: Duration = Duration::from_secs(120);
const MOST: Duration = Duration::from_secs(7 * 86_400);
/// Resolvers that a device is told; more are not asked.
const DNS_MAX: usize = 8;
/// As many as the range has addresses at most.
const RESERVATIONS_MAX: usize = cygnet_dhcp::ADDRESSES_MAX as usize;

impl Builder<'_> {
    /// `lan` and `networks`: of the section around it.
    pub(super) fn dhcp(
        &mut self,
        spanned: &Spanned<RawDhcp>,
        lan: &[String],
        networks: Option<&[IpNet]>,
    ) -> Option<Dhcp> {
        let raw = spanned.get_ref();
        let range = self.value(&raw.range, AddressRange::parse);
        let range = range.map(|range| Spanned::new(raw.range.span(), range));
        let lease_time = self.value_or(raw.lease_time.as_ref(), LEASE_TIME, |text| {
            let time = units::duration(text)?;
            match (LEAST..=MOST).contains(&time) {
                true => Ok(time),
                false => Err(format!("`{text}` is out of range: expected 2m to 7d")),
            }
        });
        let dns = raw
            .dns
            .as_ref()
            .map(|list| self.told_resolvers(list, units::address));
        let reservations = self.reservations(raw);
        let interface = self.one_of_the_lan(
            raw.interface.as_ref(),
            spanned.span(),
            lan,
            "addresses are lent",
        );
        let dhcp = Dhcp {
            interface: interface?,
            range: range?,
            lease_time,
            dns,
            router_advertisements: raw.router_advertisements.unwrap_or(true),
            reservations,
        };
        self.in_networks(&dhcp, networks);
        Some(dhcp)
    }

    /// Resolvers that devices are told.
    pub(super) fn told_resolvers<T>(
        &mut self,
        list: &[Spanned<String>],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        if let Some(more) = list.get(DNS_MAX) {
            self.mistake(
                more.span(),
                format!("dns: expected {DNS_MAX} resolvers at most"),
            );
        }
        self.values(list, parse)
    }

    /// The interface that a section is about: the one that is named, or the only one. `what` is done there.
    pub(super) fn one_of_the_lan(
        &mut self,
        named: Option<&Spanned<String>>,
        section: Range<usize>,
        lan: &[String],
        what: &str,
    ) -> Option<String> {
        match (named, lan) {
            (Some(named), _) if lan.contains(named.get_ref()) => Some(named.get_ref().clone()),
            (Some(named), _) => {
                let message = format!(
                    "`{}` is no interface of the LAN; [gateway] lan has: {}",
                    named.get_ref(),
                    lan.join(", ")
                );
                self.mistake(named.span(), message);
                None
            }
            (None, [one]) => Some(one.clone()),
            // Of none there is a mistake already.
            (None, []) => None,
            (None, several) => {
                self.mistake_with_help(
                    section,
                    format!("the LAN has several interfaces: {}", several.join(", ")),
                    format!("say with `interface` on which of them {what}"),
                );
                None
            }
        }
    }

    fn reservations(&mut self, raw: &RawDhcp) -> BTreeMap<Mac, Spanned<Ipv4Addr>> {
        let mut all: BTreeMap<Mac, Spanned<Ipv4Addr>> = BTreeMap::new();
        let mut whose: BTreeMap<Ipv4Addr, Mac> = BTreeMap::new();
        for (written, address) in &raw.reservations {
            let mac = self.value(written, |text| {
                text.parse::<Mac>().map_err(|error| error.to_string())
            });
            let parsed = self.value(address, |text| {
                text.parse::<Ipv4Addr>().map_err(|_| {
                    format!("`{text}` is no IPv4 address: expected one such as \"192.168.1.10\"")
                })
            });
            let (Some(mac), Some(parsed)) = (mac, parsed) else {
                continue;
            };
            if let Some(other) = whose.insert(parsed, mac) {
                self.mistake_with_help(
                    address.span(),
                    format!("{parsed} is reserved twice, for {other} and for {mac}"),
                    "keep one",
                );
            }
            let before = all.insert(mac, Spanned::new(address.span(), parsed));
            if before.is_some() {
                self.mistake_with_help(
                    written.span(),
                    format!("{mac} has two reservations"),
                    "keep one",
                );
            }
        }
        if let Some((written, _)) = raw.reservations.iter().nth(RESERVATIONS_MAX) {
            self.mistake(
                written.span(),
                format!("reservations: expected {RESERVATIONS_MAX} at most"),
            );
        }
        all
    }

    /// Where the LAN's networks are written down, what is outside of them is found before the machine is looked at.
    fn in_networks(&mut self, dhcp: &Dhcp, networks: Option<&[IpNet]>) {
        let Some(networks) = networks else { return };
        let of = |address: Ipv4Addr| {
            networks
                .iter()
                .find(|net| net.contains(&IpAddr::V4(address)))
        };
        let range = dhcp.range.get_ref();
        let networks = || {
            let all: Vec<String> = networks.iter().map(IpNet::to_string).collect();
            all.join(", ")
        };
        if of(range.first).is_none() || of(range.first) != of(range.last) {
            self.mistake_with_help(
                dhcp.range.span(),
                format!(
                    "the range {range} is in none of the LAN's networks: {}",
                    networks()
                ),
                "expected addresses of one of [gateway] networks",
            );
        }
        for (mac, reserved) in &dhcp.reservations {
            let address = *reserved.get_ref();
            if of(address).is_none() {
                self.mistake_with_help(
                    reserved.span(),
                    format!(
                        "{address}, reserved for {mac}, is in none of the LAN's networks: {}",
                        networks()
                    ),
                    "expected an address of one of [gateway] networks",
                );
            }
        }
    }
}
