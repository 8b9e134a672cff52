//! Virtual addresses by the Configuration payload (RFC 7296 §3.15), asked for and assigned, and which
//! names are asked inside (RFC 8598).

use std::borrow::Cow;
use std::net::IpAddr;

use cygnet_wire::cp::{CfgAttribute, CfgAttributeType, CfgType, CpPayload};

use crate::io::{Lease, WantedAddress};

/// Most attributes of a peer that are looked at.
const MOST: usize = 16;

/// The prefix length of an assigned IPv6 address: the address alone, as a selector has it.
const HOST_PREFIX: u8 = 128;

/// The longest name that DNS has (RFC 1035 §2.3.4).
const NAME_MAX: usize = 253;

/// CFG_REQUEST for the wanted addresses, the resolvers of their families, and what they are to be asked.
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
    // RFC 8598 §3.1: an empty one asks for all domains.
    attributes.push(CfgAttribute::DnsDomain(Cow::Borrowed(&[])));
    attributes.push(speedtest(Cow::Borrowed(&[])));
    CpPayload::new(CfgType::CFG_REQUEST, attributes)
}

/// What is asked for where `lent` is to be kept: that, and whatever else is wanted but was not lent then.
pub fn again(wanted: &[WantedAddress], lent: &[IpAddr]) -> Vec<WantedAddress> {
    let (v4, v6) = (
        lent.iter().find_map(|lent| match lent {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        }),
        lent.iter().find_map(|lent| match lent {
            IpAddr::V6(v6) => Some(*v6),
            IpAddr::V4(_) => None,
        }),
    );
    let keep = |wanted: &WantedAddress| match *wanted {
        WantedAddress::V4(address) => WantedAddress::V4(v4.or(address)),
        WantedAddress::V6(address) => WantedAddress::V6(v6.or(address)),
    };
    wanted.iter().map(keep).collect()
}

fn speedtest(value: Cow<'static, [u8]>) -> CfgAttribute<'static> {
    let ty = CfgAttributeType::CYGNET_SPEEDTEST;
    CfgAttribute::Unknown { ty, value }
}

/// Whether a CFG_REQUEST asks where speed is measured, as another Cygnet does.
pub fn wants_speedtest(payload: &CpPayload<'_>) -> bool {
    let asks = |a: &CfgAttribute<'_>| a.ty() == CfgAttributeType::CYGNET_SPEEDTEST;
    payload.ty == CfgType::CFG_REQUEST && payload.attributes.iter().any(asks)
}

/// Whether a CFG_REQUEST asks which names are to be asked inside (RFC 8598 §3.1).
pub fn wants_domains(payload: &CpPayload<'_>) -> bool {
    let is_domain = |attribute: &CfgAttribute<'_>| matches!(attribute, CfgAttribute::DnsDomain(_));
    payload.ty == CfgType::CFG_REQUEST && payload.attributes.iter().any(is_domain)
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
    let domains = (lease.domains.iter())
        .map(|domain| CfgAttribute::DnsDomain(domain.clone().into_bytes().into()));
    let speedtests = lease.speedtest.iter().map(|address| {
        speedtest(match address {
            IpAddr::V4(v4) => v4.octets().to_vec().into(),
            IpAddr::V6(v6) => v6.octets().to_vec().into(),
        })
    });
    let attributes = addresses.chain(dns).chain(domains).chain(speedtests);
    CpPayload::new(CfgType::CFG_REPLY, attributes.collect())
}

/// What a CFG_REPLY assigns: the first address of each family that was asked for. Addresses that
/// no host can have are passed over, and names that DNS does not have.
pub fn assigned(payload: &CpPayload<'_>, asked: &[WantedAddress]) -> Lease {
    let mut lease = Lease::default();
    if payload.ty != CfgType::CFG_REPLY {
        return lease;
    }
    let asked_v4 = asked.iter().any(|w| matches!(w, WantedAddress::V4(_)));
    let asked_v6 = asked.iter().any(|w| matches!(w, WantedAddress::V6(_)));
    for attribute in &payload.attributes {
        if let CfgAttribute::DnsDomain(name) = attribute {
            if let Some(name) = domain(name)
                && !lease.domains.contains(&name)
                && lease.domains.len() < MOST
            {
                lease.domains.push(name);
            }
            continue;
        }
        let (address, list) = match *attribute {
            CfgAttribute::Ip4Address(Some(v4)) if asked_v4 => {
                (IpAddr::V4(v4), &mut lease.addresses)
            }
            CfgAttribute::Ip6Address(Some((v6, _))) if asked_v6 => {
                (IpAddr::V6(v6), &mut lease.addresses)
            }
            CfgAttribute::Ip4Dns(Some(v4)) => (IpAddr::V4(v4), &mut lease.dns),
            CfgAttribute::Ip6Dns(Some(v6)) => (IpAddr::V6(v6), &mut lease.dns),
            CfgAttribute::Unknown {
                ty: CfgAttributeType::CYGNET_SPEEDTEST,
                ref value,
            } => match host(value) {
                Some(address) => (address, &mut lease.speedtest),
                None => continue,
            },
            _ => continue,
        };
        if is_host(address) && !list.contains(&address) && list.len() < MOST {
            list.push(address);
        }
    }
    // RFC 8598 §3.2: without a resolver there is nobody to ask.
    if lease.dns.is_empty() {
        lease.domains.clear();
    }
    for of_v6 in [false, true] {
        let mut seen = false;
        lease
            .addresses
            .retain(|a| a.is_ipv6() != of_v6 || !std::mem::replace(&mut seen, true));
    }
    lease
}

/// A name in the presentation format of DNS, in ASCII (RFC 8598 §4.1); `None`: something else.
fn domain(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    let name = name.strip_suffix('.').unwrap_or(name);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain);
    (name.len() <= NAME_MAX && name.split('.').all(label)).then(|| name.to_ascii_lowercase())
}

/// An address of either family.
fn host(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        return Some(v4.into());
    }
    let v6 = <[u8; 16]>::try_from(octets).ok()?;
    Some(v6.into())
}

fn is_host(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cygnet_wire::payload::{ChainBuilder, Payload, parse_chain};

    fn over_the_wire(payload: CpPayload<'_>) -> CpPayload<'static> {
        let mut chain = ChainBuilder::new();
        chain.push(payload);
        let chain = chain.finish().unwrap();
        match parse_chain(chain.first, &chain.bytes).unwrap().remove(0) {
            Payload::Cp(payload) => payload.into_owned(),
            other => panic!("{other:?}"),
        }
    }

    fn lease(addresses: &[&str], dns: &[&str]) -> Lease {
        let parse = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect();
        Lease {
            addresses: parse(addresses),
            dns: parse(dns),
            ..Lease::default()
        }
    }

    #[test]
    fn wishes_and_leases_survive_the_wire() {
        let wishes = [
            WantedAddress::V4(Some("10.99.0.7".parse().unwrap())),
            WantedAddress::V6(None),
        ];
        assert_eq!(wanted(&over_the_wire(request(&wishes))), wishes);
        let lent = lease(&["10.99.0.7", "fd99::7"], &["10.99.0.1", "fd99::1"]);
        assert_eq!(assigned(&over_the_wire(reply(&lent)), &wishes), lent);
    }

    #[test]
    fn what_was_lent_is_asked_for_again_and_the_rest_as_ever() {
        let wishes = [WantedAddress::V4(None), WantedAddress::V6(None)];
        let v4 = "10.99.0.7".parse().unwrap();
        assert_eq!(
            again(&wishes, &[IpAddr::V4(v4)]),
            [WantedAddress::V4(Some(v4)), WantedAddress::V6(None)]
        );
        assert_eq!(again(&wishes, &[]), wishes);
        assert_eq!(again(&[], &[IpAddr::V4(v4)]), []);
    }

    #[test]
    fn an_unspecified_wish_is_none_in_particular() {
        let payload = CpPayload::new(
            CfgType::CFG_REQUEST,
            vec![
                CfgAttribute::Ip4Address(Some("0.0.0.0".parse().unwrap())),
                CfgAttribute::Ip4Address(Some("10.0.0.1".parse().unwrap())),
                CfgAttribute::Ip6Address(Some(("::".parse().unwrap(), 64))),
            ],
        );
        assert_eq!(
            wanted(&payload),
            [WantedAddress::V4(None), WantedAddress::V6(None)]
        );
    }

    #[test]
    fn a_request_is_no_reply_and_the_reverse() {
        let wishes = [WantedAddress::V4(None)];
        assert_eq!(assigned(&request(&wishes), &wishes), Lease::default());
        let lent = lease(&["10.99.0.7"], &[]);
        assert_eq!(wanted(&reply(&lent)), []);
    }

    #[test]
    fn only_what_was_asked_for_and_can_be_an_address_is_taken() {
        let lent = lease(
            &[
                "224.0.0.1",
                "127.0.0.1",
                "10.99.0.7",
                "10.99.0.8",
                "fd99::7",
            ],
            &["0.0.0.0", "10.99.0.1", "10.99.0.1"],
        );
        assert_eq!(
            assigned(&reply(&lent), &[WantedAddress::V4(None)]),
            lease(&["10.99.0.7"], &["10.99.0.1"])
        );
    }

    #[test]
    fn a_flood_of_resolvers_is_cut_off() {
        let many = Lease {
            addresses: Vec::new(),
            dns: (0..100).map(|i| IpAddr::from([10, 0, 0, i + 1])).collect(),
            domains: (0..100).map(|i| format!("d{i}.example")).collect(),
            speedtest: (0..100).map(|i| IpAddr::from([10, 1, 0, i + 1])).collect(),
        };
        let taken = assigned(&reply(&many), &[]);
        let counts = [taken.dns.len(), taken.domains.len(), taken.speedtest.len()];
        assert_eq!(counts, [MOST; 3]);
    }

    #[test]
    fn domains_go_to_those_who_ask_and_come_with_resolvers() {
        let wishes = [WantedAddress::V4(None)];
        assert!(wants_domains(&over_the_wire(request(&wishes))));
        let silent = CpPayload::new(CfgType::CFG_REQUEST, vec![CfgAttribute::Ip4Dns(None)]);
        assert!(!wants_domains(&silent));
        let mut lent = lease(&["10.99.0.7"], &["10.99.0.1"]);
        lent.domains = vec!["corp.example".to_owned(), "lab.example".to_owned()];
        let reply = reply(&lent);
        assert!(!wants_domains(&reply), "that is an answer");
        assert_eq!(assigned(&over_the_wire(reply), &wishes), lent);
        lent.dns.clear();
        let without = assigned(&super::reply(&lent), &wishes);
        assert_eq!(without, lease(&["10.99.0.7"], &[]));
    }

    #[test]
    fn where_speed_is_measured_goes_to_those_who_ask() {
        let wishes = [WantedAddress::V4(None)];
        assert!(wants_speedtest(&over_the_wire(request(&wishes))));
        let silent = CpPayload::new(CfgType::CFG_REQUEST, vec![CfgAttribute::Ip4Dns(None)]);
        assert!(!wants_speedtest(&silent));
        let mut lent = lease(&["10.99.0.7"], &[]);
        lent.speedtest = vec!["10.99.0.1".parse().unwrap(), "fd99::1".parse().unwrap()];
        let reply = over_the_wire(reply(&lent));
        assert!(!wants_speedtest(&reply), "that is an answer");
        assert_eq!(assigned(&reply, &wishes), lent);
    }

    #[test]
    fn what_is_no_address_is_no_place_to_measure() {
        let values: [&[u8]; 6] = [
            b"",
            b"\x0a\x63\x00",
            b"\x0a\x63\x00\x01\x00",
            &[0; 4],
            &[0; 16],
            &[127, 0, 0, 1],
        ];
        let attributes = values.map(|value| speedtest(value.to_vec().into()));
        let payload = CpPayload::new(CfgType::CFG_REPLY, attributes.to_vec());
        assert_eq!(assigned(&payload, &[]).speedtest, [] as [IpAddr; 0]);
    }

    #[test]
    fn what_is_no_domain_is_passed_over() {
        let domains: [&[u8]; 8] = [
            b"Corp.Example.",
            b"",
            b".",
            b"a..b",
            b"a b",
            b"caf\xc3\xa9.example",
            b"new\nline",
            &[b'a'; 300],
        ];
        let mut attributes = vec![CfgAttribute::Ip4Dns(Some("10.0.0.1".parse().unwrap()))];
        attributes.extend(domains.map(|name| CfgAttribute::DnsDomain(name.into())));
        let payload = CpPayload::new(CfgType::CFG_REPLY, attributes);
        assert_eq!(assigned(&payload, &[]).domains, ["corp.example"]);
    }
}
