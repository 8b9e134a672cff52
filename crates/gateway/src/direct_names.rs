//! What goes direct by its name: the addresses that names of the listed domains have at this moment.
//!
//! Both tables hold them in sets whose elements end by themselves, so that nothing goes on going direct when nobody is
//! left to look after it. What a device sends by a connection that began so keeps its address in.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::nft;
use crate::plan::is_private;

/// What of the LAN's traffic goes direct by its name, unless its device is blocked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirectNames {
    /// There are such domains: the tables have sets for their addresses.
    pub listed: bool,
    /// The addresses, each with how long it is held if nothing is sent there.
    pub addresses: BTreeMap<IpAddr, Duration>,
}

impl DirectNames {
    /// How long an address is held after its name was last answered, or something was last sent there by a
    /// connection that began while it was. Longer than a device keeps an answer, and than most connections are idle.
    pub const HELD: Duration = Duration::from_secs(3600);
    /// The sets for IPv4 and IPv6 in either table.
    pub const SETS: [&str; 2] = ["direct4", "direct6"];

    /// Text for `nft -f -` that makes `table` hold the addresses `held` for [`Self::HELD`] from now on, and those `gone`
    /// no more. Empty where there is nothing to change.
    #[must_use]
    pub fn change(table: &str, held: &[IpAddr], gone: &[IpAddr]) -> String {
        nft::direct_names::change(table, held, gone)
    }
}

/// Networks in which nobody is whom the internet's names may lead to, besides private ones.
const NOBODYS: [&str; 3] = ["224.0.0.0/4", "fe80::/10", "ff00::/8"];

/// Whether an address is one that a name of the internet may have: no private, loopback, link-local, multicast or
/// reserved one. (Those for documentation are left to the provider.)
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    let within = |net: &&str| net.parse::<IpNet>().is_ok_and(|net| net.contains(&address));
    let mut not_public = nft::NOT_PUBLIC.iter().chain(&NOBODYS);
    !is_private(&IpNet::from(address)) && !not_public.any(within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_nobody_on_the_internet_are_not_public() {
        for address in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:9.9.9.9",
            "fd00::1",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in ["9.9.9.9", "198.51.100.80", "2001:db8:80::80", "2620:fe::fe"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_change_ends_what_is_left_of_an_address_and_begins_anew() {
        let of = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let held = of(&["198.51.100.7", "2001:db8::7"]);
        let gone = of(&["198.51.100.8"]);
        assert_eq!(
            DirectNames::change("cygnet", &held, &gone),
            "add element inet cygnet direct4 { 198.51.100.7, 198.51.100.8 }\n\
             delete element inet cygnet direct4 { 198.51.100.7, 198.51.100.8 }\n\
             add element inet cygnet direct4 { 198.51.100.7 }\n\
             add element inet cygnet direct6 { 2001:db8::7 }\n\
             delete element inet cygnet direct6 { 2001:db8::7 }\n\
             add element inet cygnet direct6 { 2001:db8::7 }\n"
        );
        assert_eq!(DirectNames::change("cygnet", &[], &[]), "");
        let only_gone = DirectNames::change("cygnet", &[], &gone);
        assert_eq!(only_gone.lines().count(), 2, "{only_gone}");
    }
}
