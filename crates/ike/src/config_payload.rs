//! Virtual addresses by the Configuration payload (RFC 7296 §3.15), asked for and assigned.

use std::net::IpAddr;

use cygnet_wire::cp::{CfgAttribute, CfgType, CpPayload};

use crate::io::{Lease, WantedAddress};

/// Most attributes of a peer that are looked at.
const MOST: usize = 16;

/// The prefix length of an assigned IPv6 address: the address alone, as a selector has it.
const HOST_PREFIX: u8 = 128;

/// CFG_REQUEST for the wanted addresses and the resolvers of their families.
pub fn request(wanted: &[WantedAddress]) -> CpPayload<'static> {
    let mut attributes = Vec::new();
    for wanted in wanted {
        match *wanted {
            WantedAddress::V4(address) => {
                attributes.push(CfgAttribute::Ip4Address(address));
                attributes.push(CfgAttribute::Ip4Dns(None));
            }
            WantedAddress::V6(address) => {
                attributes.push(CfgAttribute::Ip6Address(address.map(|a| (a, HOST_PREFIX))));
                attributes.push(CfgAttribute::Ip6Dns(None));
            }
        }
    }
    CpPayload::new(CfgType::CFG_REQUEST, attributes)
}

/// The addresses a CFG_REQUEST wants, at most one of each family; empty for other payloads. An
/// unspecified address (Windows sends 0.0.0.0) is none in particular.
pub fn wanted(payload: &CpPayload<'_>) -> Vec<WantedAddress> {
    let (mut v4, mut v6) = (None, None);
    if payload.ty == CfgType::CFG_REQUEST {
        for attribute in &payload.attributes {
            match attribute {
                CfgAttribute::Ip4Address(address) => {
                    let address = address.filter(|a| !a.is_unspecified());
                    v4.get_or_insert(WantedAddress::V4(address));
                }
                CfgAttribute::Ip6Address(address) => {
                    let address = address.map(|(a, _)| a).filter(|a| !a.is_unspecified());
                    v6.get_or_insert(WantedAddress::V6(address));
                }
                _ => {}
            }
        }
    }
    v4.into_iter().chain(v6).collect()
}

/// CFG_REPLY that assigns `lease`. Resolvers of both families are named, whatever was asked for:
/// a client of one family may well reach a resolver of it only.
pub fn reply(lease: &Lease) -> CpPayload<'static> {
    let addresses = lease.addresses.iter().map(|address| match *address {
        IpAddr::V4(v4) => CfgAttribute::Ip4Address(Some(v4)),
        IpAddr::V6(v6) => CfgAttribute::Ip6Address(Some((v6, HOST_PREFIX))),
    });
    let dns = lease.dns.iter().map(|address| match *address {
        IpAddr::V4(v4) => CfgAttribute::Ip4Dns(Some(v4)),
        IpAddr::V6(v6) => CfgAttribute::Ip6Dns(Some(v6)),
    });
    CpPayload::new(CfgType::CFG_REPLY, addresses.chain(dns).collect())
}

/// What a CFG_REPLY assigns: the first address of each family that was asked for. Addresses that
/// no host can have are passed over.
pub fn assigned(payload: &CpPayload<'_>, asked: &[WantedAddress]) -> Lease {
    let mut lease = Lease::default();
    if payload.ty != CfgType::CFG_REPLY {
        return lease;
    }
    let asked_v4 = asked.iter().any(|w| matches!(w, WantedAddress::V4(_)));
    let asked_v6 = asked.iter().any(|w| matches!(w, WantedAddress::V6(_)));
    for attribute in &payload.attributes {
        let (address, list) = match *attribute {
            CfgAttribute::Ip4Address(Some(v4)) if asked_v4 => {
                (IpAddr::V4(v4), &mut lease.addresses)
            }
            CfgAttribute::Ip6Address(Some((v6, _))) if asked_v6 => {
                (IpAddr::V6(v6), &mut lease.addresses)
            }
            CfgAttribute::Ip4Dns(Some(v4)) => (IpAddr::V4(v4), &mut lease.dns),
            CfgAttribute::Ip6Dns(Some(v6)) => (IpAddr::V6(v6), &mut lease.dns),
            _ => continue,
        };
        if is_host(address) && !list.contains(&address) && list.len() < MOST {
            list.push(address);
        }
    }
    for of_v6 in [false, true] {
        let mut seen = false;
        lease
            .addresses
            .retain(|a| a.is_ipv6() != of_v6 || !std::mem::replace(&mut seen, true));
    }
    lease
}

fn is_host(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast)
}
