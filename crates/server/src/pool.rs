//! Which addresses are lent to clients: checked against what this machine can reach already.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cygnet_crypto::Random;
use cygnet_gateway::overlap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::error::{Error, Result, refused};

/// Where a default is looked for, in this order; a network of 1022 clients is taken from each.
const CANDIDATES: [[u8; 2]; 10] = [
    [10, 99],
    [10, 98],
    [10, 97],
    [10, 119],
    [10, 147],
    [10, 203],
    [172, 29],
    [172, 27],
    [192, 168],
    [100, 99],
];

/// Judges the pools that were asked for; `known` is what this machine's addresses and routes cover.
pub fn check(pools: &[IpNet], known: &[IpNet]) -> Result<()> {
    for (at, pool) in pools.iter().enumerate() {
        if pool.trunc() != *pool {
            return refused(format!(
                "the pool {pool} has bits behind its prefix: write {}",
                pool.trunc()
            ));
        }
        let most = if pool.addr().is_ipv4() { 30 } else { 126 };
        if pool.prefix_len() > most {
            return refused(format!(
                "the pool {pool} is too small: expected /{most} or a shorter prefix, for the server and a client"
            ));
        }
        if !is_private(pool) {
            return refused(format!(
                "the pool {pool} is not private: expected a network in 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, \
                 100.64.0.0/10 or fd00::/8"
            ));
        }
        if let Some(other) = pools[..at].iter().find(|other| overlap(other, pool)) {
            return refused(format!("the pools {other} and {pool} overlap"));
        }
        if let Some(network) = in_the_way(pool, known) {
            return refused(format!(
                "the pool {pool} overlaps {network}, which this machine reaches already; take another one, \
                 or leave out --pool and a free one is taken"
            ));
        }
    }
    Ok(())
}

/// Pools that overlap nothing known: one IPv4, and one IPv6 from a random prefix (RFC 4193 §3.2).
pub fn choose(known: &[IpNet], random: &mut dyn Random) -> Result<Vec<IpNet>> {
    let v4 = CANDIDATES
        .iter()
        .filter_map(|[a, b]| Ipv4Net::new(Ipv4Addr::new(*a, *b, 64, 0), 22).ok())
        .map(IpNet::from)
        .find(|pool| in_the_way(pool, known).is_none())
        .ok_or_else(|| {
            Error::Refused(
                "no free private network was found for clients; name one with --pool".into(),
            )
        })?;
    loop {
        let mut octets = [0; 16];
        random.fill(&mut octets[1..6]);
        octets[0] = 0xfd;
        let v6 = Ipv6Net::new(Ipv6Addr::from(octets), 112).map(IpNet::from);
        if let Some(v6) = v6.ok().filter(|pool| in_the_way(pool, known).is_none()) {
            return Ok(vec![v4, v6]);
        }
    }
}

fn in_the_way<'k>(pool: &IpNet, known: &'k [IpNet]) -> Option<&'k IpNet> {
    known
        .iter()
        // A route to all of a private block and more is a default route by another name.
        .filter(|network| network.prefix_len() >= 8)
        .find(|network| overlap(network, pool))
}

/// Whether all of it is private.
pub(crate) fn is_private(network: &IpNet) -> bool {
    PRIVATE.iter().any(|block| block.contains(network))
}

/// RFC 1918, RFC 6598, RFC 4193.
const PRIVATE: [IpNet; 5] = [
    v4([10, 0, 0, 0], 8),
    v4([172, 16, 0, 0], 12),
    v4([192, 168, 0, 0], 16),
    v4([100, 64, 0, 0], 10),
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0),
        8,
    )),
];

const fn v4(octets: [u8; 4], length: u8) -> IpNet {
    let [a, b, c, d] = octets;
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

/// Whether a resolver's address can be one.
pub fn check_dns(dns: &[IpAddr]) -> Result<()> {
    match dns.iter().find(|a| a.is_unspecified() || a.is_multicast()) {
        Some(bad) => refused(format!("{bad} is no address of a resolver")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestRandom;

    fn nets(of: &[&str]) -> Vec<IpNet> {
        of.iter().map(|it| it.parse().expect(it)).collect()
    }

    #[test]
    fn a_pool_is_private_and_free() {
        let known = nets(&["0.0.0.0/0", "128.0.0.0/1", "10.5.0.0/16", "fd00:1::/32"]);
        assert!(check(&nets(&["10.99.0.0/24", "fd99::/112"]), &known).is_ok());
        for (pool, told) in [
            ("10.5.7.0/24", "overlaps 10.5.0.0/16"),
            ("10.0.0.0/8", "overlaps 10.5.0.0/16"),
            ("fd00:1:2::/64", "overlaps fd00:1::/32"),
            ("203.0.113.0/24", "is not private"),
            ("2001:db8::/64", "is not private"),
            // The half that RFC 4193 §3.1 keeps for another use.
            ("fc00::/64", "is not private"),
            ("10.1.0.1/24", "write 10.1.0.0/24"),
            ("10.1.0.0/31", "too small"),
        ] {
            let error = check(&nets(&[pool]), &known).expect_err(pool).to_string();
            assert!(error.contains(told), "{error}");
        }
        let error = check(&nets(&["10.1.0.0/16", "10.1.2.0/24"]), &[]).expect_err("overlap");
        assert!(error.to_string().contains("overlap"), "{error}");
    }

    #[test]
    fn a_default_avoids_what_is_there() {
        let mut random = TestRandom::new(1);
        let free = choose(&[], &mut random).expect("free");
        assert_eq!(free[0].to_string(), "10.99.64.0/22");
        assert!(free[1].to_string().starts_with("fd"), "{}", free[1]);
        check(&free, &[]).expect("good by its own rules");
        let other = choose(&nets(&["10.0.0.0/8", "172.29.64.0/30"]), &mut random).expect("free");
        assert_eq!(other[0].to_string(), "172.27.64.0/22");
        assert_ne!(other[1], free[1]);
        let all = nets(&[
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
        ]);
        assert!(choose(&all, &mut random).is_err());
    }
}
