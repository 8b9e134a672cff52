//! `[gateway.advertise]`.

use std::net::{IpAddr, Ipv6Addr};

use toml::Spanned;

use super::Builder;
use crate::advertise::Advertise;
use crate::raw::{RawAdvertise, RawGateway};
use crate::units;

impl Builder<'_> {
    /// `lan`: of the section around it.
    pub(super) fn advertise(
        &mut self,
        gateway: &RawGateway,
        spanned: &Spanned<RawAdvertise>,
        lan: &[String],
    ) -> Option<Advertise> {
        if gateway.dhcp.is_some() {
            self.mistake_with_help(
                spanned.span(),
                "with [gateway.dhcp] this machine is advertised already",
                "leave [gateway.advertise] out; whether it is advertised says `router_advertisements` in [gateway.dhcp]",
            );
            return None;
        }
        let raw = spanned.get_ref();
        let dns = raw
            .dns
            .as_ref()
            .map(|list| self.told_resolvers(list, ipv6_address));
        let interface = self.one_of_the_lan(
            raw.interface.as_ref(),
            spanned.span(),
            lan,
            "this machine is advertised",
        );
        Some(Advertise {
            interface: interface?,
            dns,
        })
    }
}

fn ipv6_address(text: &str) -> Result<Ipv6Addr, String> {
    match units::address(text)? {
        IpAddr::V6(address) => Ok(address),
        IpAddr::V4(_) => Err(format!(
            "`{text}` is an IPv4 address, and router advertisements name IPv6 resolvers alone: expected one such as \
             \"2620:fe::fe\""
        )),
    }
}
