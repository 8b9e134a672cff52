//! The LAN: which networks are its own.
//!
//! Where the configuration does not name them they are those of its interfaces, so whoever lends this machine an address
//! (a DHCP server, a router advertisement) has a say. What was given a tunnel, or lies behind one between sites, he
//! cannot make the LAN's: of a network of the LAN and one of a tunnel the narrower decides, and of one that is only
//! lent the tunnel's, always.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cygnet_config::{Config, Gateway, GuardSections};
use cygnet_gateway::{DirectNames, Lan, OnFailure, OwnNeeds, Through, is_private};
use ipnet::IpNet;

use super::inputs::interface;
use super::machine::Machine;
use crate::supervisor::start;

/// The LAN of a configuration, if it has one.
pub(super) fn of(config: &Config, machine: &Machine) -> Option<Result<Lan, String>> {
    let gateway = config.gateway.as_ref()?;
    Some(lan(gateway, &config.into(), machine))
}

/// The LAN of this gateway, in a configuration of these sections.
pub(super) fn lan(
    gateway: &Gateway,
    sections: &GuardSections,
    machine: &Machine,
) -> Result<Lan, String> {
    let interfaces = gateway
        .lan
        .iter()
        .map(|i| interface(i))
        .collect::<Result<Vec<_>, _>>()?;
    let claimed = claimed(gateway, sections);
    let networks = match &gateway.networks {
        Some(networks) => networks.clone(),
        None => {
            let is_its_own = |net: &IpNet| claim(net, &claimed, sections).is_none();
            lent(gateway, machine)
                .map(|(_, net)| net)
                .filter(is_its_own)
                .collect()
        }
    };
    let mut networks: Vec<IpNet> = networks
        .into_iter()
        .flat_map(|net| without(net, &claimed))
        .collect();
    networks.sort();
    networks.dedup();
    let through = gateway.devices.through.iter();
    let through = through.map(|(tunnel, through)| {
        Ok(Through {
            tunnel: tunnel.clone(),
            interface: interface(&through.interface)?,
            networks: through.networks.clone(),
        })
    });
    Ok(Lan {
        through: through.collect::<Result<Vec<_>, String>>()?,
        // Whether they are let out by whoever knows whether the tunnel is down.
        on_failure: match gateway.devices.direct_on_failure {
            true => OnFailure::Direct { open: false },
            false => OnFailure::Blocked,
        },
        interfaces,
        networks,
        devices: gateway.devices.policies.clone(),
        direct_networks: gateway.devices.direct_networks.clone(),
        // The addresses by whoever knows them.
        direct_names: DirectNames {
            listed: !gateway.devices.direct_domains.is_empty(),
            ..DirectNames::default()
        },
        own: gateway
            .holds_own_traffic()
            .then(|| own_needs(gateway, sections, machine)),
    })
}

/// What this machine itself may send outside, besides what every gateway needs.
fn own_needs(gateway: &Gateway, sections: &GuardSections, machine: &Machine) -> OwnNeeds {
    let own = |address: &IpAddr| {
        let mut addresses = machine.addresses.iter();
        address.is_loopback()
            || address.is_unspecified()
            || addresses.any(|(_, net)| net.addr() == *address)
    };
    // resolv.conf(5): where nobody is named, this machine is meant.
    let asks_itself = machine.resolvers.is_empty() || machine.resolvers.iter().any(own);
    // Without a route to the internet nothing tells where it is not; behind a bridge are containers.
    let beside = machine.addresses.iter().filter(|(interface, net)| {
        let is_way_out = machine.ways_out.contains(interface)
            || machine.routers.iter().any(|router| net.contains(router));
        let is_known = !machine.ways_out.is_empty() || machine.bridges.contains(interface);
        is_known && !is_way_out && !gateway.lan.contains(interface) && is_private(&net.trunc())
    });
    let beside = beside.filter_map(|(name, net)| Some((interface(name).ok()?, net.trunc())));
    let beside: BTreeSet<_> = beside.collect();
    let user = start::engine_user(sections.engine_user.as_deref());
    let mut interfaces = machine.addresses.iter().map(|(interface, _)| interface);
    OwnNeeds {
        lan_unknown: gateway.networks.is_none()
            && !interfaces.any(|interface| gateway.lan.contains(interface)),
        resolvers: (!asks_itself).then(|| machine.resolvers.clone()),
        // Who is not known needs nothing: the program does not start then.
        user: user.ok().map(|(user, _)| user),
        beside: beside.into_iter().collect(),
    }
}

/// Networks on the LAN's interfaces that may be its own.
fn lent<'m>(gateway: &'m Gateway, machine: &'m Machine) -> impl Iterator<Item = (&'m str, IpNet)> {
    let addresses = machine.addresses.iter();
    let of_lan = addresses.filter(|(interface, _)| gateway.lan.contains(interface));
    of_lan
        .map(|(interface, net)| (interface.as_str(), net.trunc()))
        .filter(|(_, net)| may_be_a_lan(net))
}

/// Networks that were given a tunnel, or lie behind one between sites. Of one that is everything nothing is told from
/// the internet.
fn claimed(gateway: &Gateway, sections: &GuardSections) -> Vec<IpNet> {
    let given = gateway.devices.through.values();
    let given = given.flat_map(|through| &through.networks);
    let all = given.chain(&sections.between).map(IpNet::trunc);
    all.filter(|net| net.prefix_len() > 0).collect()
}

/// What a tunnel has of which this network, which was lent, is a part, unless the configuration calls a narrower one
/// around it local.
fn claim(net: &IpNet, claimed: &[IpNet], sections: &GuardSections) -> Option<IpNet> {
    let around = claimed.iter().filter(|claim| claim.contains(net));
    let claim = around.max_by_key(|claim| claim.prefix_len())?;
    let mut named = sections.local.iter();
    let is_named =
        named.any(|local| local.prefix_len() > claim.prefix_len() && local.contains(net));
    (!is_named).then_some(*claim)
}

/// A network without those of tunnels that are narrower, in as few pieces as it takes.
fn without(net: IpNet, claimed: &[IpNet]) -> Vec<IpNet> {
    let within: Vec<IpNet> = (claimed.iter().copied())
        .filter(|claim| net.contains(claim) && *claim != net)
        .collect();
    let halves = match within.as_slice() {
        [] => return vec![net],
        _ => net.subnets(net.prefix_len() + 1),
    };
    let rest = |half: IpNet| match within.contains(&half) {
        true => Vec::new(),
        false => without(half, &within),
    };
    halves.into_iter().flatten().flat_map(rest).collect()
}

/// Networks on the LAN's interfaces that a tunnel has instead, or has a part of: a sentence each.
pub(super) fn claimed_by_tunnels(config: &Config, machine: &Machine) -> Vec<String> {
    let Some(gateway) = config.gateway.as_ref().filter(|g| g.networks.is_none()) else {
        return Vec::new();
    };
    let sections = GuardSections::from(config);
    let claimed = claimed(gateway, &sections);
    let told = |(interface, net): (&str, IpNet)| {
        let (claim, how) = match claim(&net, &claimed, &sections) {
            Some(claim) => (claim, "lies in"),
            None => {
                let mut within = claimed.iter();
                let within = within.find(|claim| net.contains(*claim) && **claim != net)?;
                (*within, "holds")
            }
        };
        Some(format!(
            "{net}, the network of {interface}, {how} {claim}, which a tunnel has: what devices send to {claim} goes by that \
             tunnel or nowhere; if it is the LAN's all the same, name the narrower network in `networks` of [gateway]"
        ))
    };
    lent(gateway, machine).filter_map(told).collect()
}

/// Whether a network is believed to be the LAN's because an interface has it: the LAN's DHCP server says
/// so, and might as well say `128.0.0.0/1` to have half of the internet pass the tunnel.
fn may_be_a_lan(net: &IpNet) -> bool {
    match net {
        IpNet::V4(_) => is_private(net),
        // A prefix of the provider's is usual, and no longer than an interface's.
        IpNet::V6(net) => net.prefix_len() >= 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_internet_is_no_lan_because_dhcp_says_so() {
        for (net, believed) in [
            ("192.168.1.0/24", true),
            ("10.0.0.0/8", true),
            ("100.64.0.0/24", true),
            ("2001:db8:1::/64", true),
            ("128.0.0.0/1", false),
            ("192.0.0.0/8", false),
            ("203.0.113.0/24", false),
            ("2000::/3", false),
        ] {
            assert_eq!(may_be_a_lan(&net.parse().unwrap()), believed, "{net}");
        }
    }

    const CONFIG: &str = "[tunnel.home]\nremote = \"203.0.113.5\"\npsk = \"k\"\nvirtual_address = true\n\
        [tunnel.work]\nremote = \"203.0.113.6\"\npsk = \"k\"\nvirtual_address = true\n\
        [tunnel.b]\nremote = \"203.0.113.7\"\npsk = \"k\"\nlocal_networks = [\"10.30.7.0/24\"]\n\
        remote_networks = [\"10.30.0.0/16\"]\n\
        [gateway]\ntunnel = \"home\"\nlan = \"eth0\"\n";
    const THROUGH: &str =
        "[gateway.through.work]\nnetworks = [\"10.20.0.0/16\", \"2606:4700:4700::/48\"]\n";

    fn networks(named: &str, lent: &[&str]) -> (Vec<String>, usize) {
        let text = format!("{CONFIG}{named}{THROUGH}");
        let config = Config::parse("t", &text, &mut |p| Err(format!("no {p}"))).unwrap();
        let lent = lent
            .iter()
            .map(|net| ("eth0".to_owned(), net.parse().unwrap()));
        let machine = Machine {
            addresses: lent.collect(),
            ..Machine::default()
        };
        let lan = of(&config, &machine).unwrap().unwrap();
        let told = claimed_by_tunnels(&config, &machine).len();
        (lan.networks.iter().map(IpNet::to_string).collect(), told)
    }

    #[test]
    fn what_the_box_needs_is_told_from_what_is_around_it() {
        let own = |lines: &str, resolvers: &[&str], uplink: Option<&str>| {
            let text = format!("{CONFIG}{lines}");
            let text = text.replace(
                "[tunnel.home]",
                "[daemon]\nengine_user = \"4711\"\n[tunnel.home]",
            );
            let config = Config::parse("t", &text, &mut |p| Err(format!("no {p}"))).unwrap();
            let on =
                |(interface, net): &(&str, &str)| (interface.to_string(), net.parse().unwrap());
            let machine = Machine {
                addresses: [
                    ("eth0", "192.168.1.2/24"),
                    ("wan0", "10.0.0.2/24"),
                    ("docker0", "172.17.0.1/16"),
                    ("dmz0", "203.0.113.1/28"),
                ]
                .iter()
                .map(on)
                .collect(),
                ways_out: uplink.into_iter().map(str::to_owned).collect(),
                bridges: ["docker0".to_owned()].into(),
                resolvers: resolvers.iter().map(|r| r.parse().unwrap()).collect(),
                ..Machine::default()
            };
            of(&config, &machine).unwrap().unwrap().own
        };
        let needs = own("", &["9.9.9.9"], Some("wan0")).unwrap();
        assert_eq!(needs.user, Some(4711));
        assert_eq!(needs.resolvers.unwrap().len(), 1);
        let beside = needs.beside.iter().map(|(interface, _)| interface.as_str());
        assert_eq!(beside.collect::<Vec<_>>(), ["docker0"]);
        assert!(!needs.lan_unknown);
        // Who asks on for this machine asks anybody.
        for itself in [
            &["127.0.0.53"][..],
            &["0.0.0.0"],
            &["9.9.9.9", "192.168.1.2"],
            &[],
        ] {
            let needs = own("", itself, None).unwrap();
            assert_eq!(needs.resolvers, None, "{itself:?}");
            let beside: Vec<&str> = needs.beside.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(beside, ["docker0"], "nothing tells where the internet is");
        }
        for free in ["own_traffic = \"all\"\n", "guard = false\n"] {
            assert_eq!(own(free, &["9.9.9.9"], None), None);
        }
    }

    #[test]
    fn what_a_tunnel_has_is_not_the_lans_because_an_interface_has_it() {
        for (lent, expected, told) in [
            ("192.168.1.2/24", &["192.168.1.0/24"][..], 0),
            // Given a tunnel: a part of it, and all of it.
            ("10.20.5.2/24", &[], 1),
            ("10.20.0.2/16", &[], 1),
            ("2606:4700:4700::2/64", &[], 1),
            // A site's, but for what is called local.
            ("10.30.5.2/24", &[], 1),
            ("10.30.7.2/24", &["10.30.7.0/24"], 0),
            ("2001:db8:1::2/64", &["2001:db8:1::/64"], 0),
        ] {
            let expected = expected.iter().map(|net| (*net).to_owned()).collect();
            assert_eq!(networks("", &[lent]), (expected, told), "{lent}");
        }
    }

    #[test]
    fn a_wide_network_is_the_lans_but_for_what_a_tunnel_has_of_it() {
        let (pieces, told) = networks("", &["10.20.0.2/14"]);
        assert_eq!(pieces, ["10.21.0.0/16", "10.22.0.0/15"]);
        assert_eq!(told, 1);
        let (pieces, _) = networks("", &["10.1.2.3/8"]);
        assert!(pieces.contains(&"10.128.0.0/9".to_owned()), "{pieces:?}");
        let holds = |address: &str| {
            let address: IpAddr = address.parse().unwrap();
            let mut pieces = pieces.iter();
            pieces.any(|net| net.parse::<IpNet>().unwrap().contains(&address))
        };
        assert!(holds("10.19.255.255") && holds("10.21.0.0") && holds("10.29.0.1"));
        assert!(!holds("10.20.0.0") && !holds("10.20.255.255") && !holds("10.30.1.1"));
    }

    #[test]
    fn what_is_named_as_the_lans_stays_so_where_it_is_narrower() {
        let named = |nets: &str| networks(&format!("networks = [{nets}]\n"), &["10.1.2.3/8"]);
        let narrower = (vec!["10.20.5.0/24".to_owned()], 0);
        assert_eq!(named("\"10.20.5.0/24\""), narrower);
        let (wider, _) = named("\"10.20.0.0/15\"");
        assert_eq!(wider, ["10.21.0.0/16"]);
    }
}
