//! What the box itself sends, and how it is led into the tunnel.

use super::*;
use crate::{GuardInputs, GuardPlan, OWN_MARK, OnFailure, OwnNeeds, Through};

fn held() -> Inputs {
    let mut inputs = gateway();
    lan_of(&mut inputs).own = Some(OwnNeeds::default());
    inputs
}

fn lan_of(inputs: &mut Inputs) -> &mut Lan {
    inputs.lan.as_mut().unwrap()
}

fn families(plan: &NetworkPlan) -> Vec<Family> {
    let own = plan.rules.iter().filter(|r| r.fwmark == Some(OWN_MARK));
    own.map(|rule| {
        assert_eq!(
            (rule.priority, rule.action),
            (156, RuleAction::Lookup(GUARD_TABLE))
        );
        rule.family
    })
    .collect()
}

/// In which families it is led, and where to.
fn led(inputs: &Inputs) -> (Vec<Family>, Vec<String>) {
    let plan = NetworkPlan::new(inputs).unwrap();
    let lines = plan.nft.lines().map(str::trim);
    let marks = lines.filter_map(|line| line.strip_suffix(" meta mark set 0x0063796f"));
    let marks = marks.map(|line| line.replace(" ct mark set 0x0063796f", ""));
    (families(&plan), marks.collect())
}

#[test]
fn it_takes_the_tunnel_in_families_that_are_lent_while_anything_is_reached() {
    let everything = vec!["meta nfproto ipv4".to_owned()];
    assert_eq!(led(&held()), (vec![Family::V4], everything.clone()));
    let mut some = held();
    some.tunnels[0].reached = vec![net("10.0.0.0/9"), net("10.128.0.0/9"), net("fd00::/8")];
    let expected = vec!["ip daddr { 10.0.0.0/8 }".to_owned()];
    assert_eq!(led(&some), (vec![Family::V4], expected));
    let nothing = (Vec::new(), Vec::new());
    let mut down = held();
    down.tunnels[0].reached.clear();
    assert_eq!(led(&down), nothing);
    assert_eq!(led(&gateway()), nothing, "it may send what it likes");
    // One that is called by what enters it leads on before it lends an address, of whichever family.
    down.tunnels[0].on_demand = true;
    assert_eq!(led(&down), (vec![Family::V4], everything));
    down.tunnels[0].virtual_addresses.clear();
    assert_eq!(led(&down).0, Family::BOTH);
}

#[test]
fn what_was_given_a_tunnel_takes_that_one_or_none() {
    let mut inputs = held();
    inputs.tunnels.push(Tunnel {
        interface: name("cyg-work"),
        virtual_addresses: vec!["10.98.0.2".parse().unwrap()],
        carries_lan: false,
        ..tunnel()
    });
    lan_of(&mut inputs).through = vec![Through {
        tunnel: "work".to_owned(),
        interface: name("cyg-work"),
        networks: vec![net("10.20.0.0/16")],
    }];
    let given = "ip daddr { 10.20.0.0/16 }";
    let marks = led(&inputs).1;
    assert_eq!(marks, [given, "meta nfproto ipv4"]);
    let nft = NetworkPlan::new(&inputs).unwrap().nft;
    let mark = "ct mark set 0x0063796f meta mark set 0x0063796f";
    // Before what is needed, too: its host for the time is asked through it.
    let given_first = format!("\t\t{given} {mark}\n\t\t{given} return\n\t\tudp dport 123 return\n");
    assert!(nft.contains(&given_first), "{nft}");
    assert!(
        nft.contains(&format!("\t\tmeta nfproto ipv4 {mark}\n\t}}\n")),
        "{nft}"
    );
    // Each for itself.
    inputs.tunnels[1].reached.clear();
    assert_eq!(led(&inputs).1, ["meta nfproto ipv4"]);
    inputs.tunnels[1].reached = tunnel().reached;
    inputs.tunnels[0].reached.clear();
    assert_eq!(led(&inputs), (vec![Family::V4], vec![given.to_owned()]));
}

#[test]
fn a_site_that_is_the_lans_way_out_knows_it_by_the_address_of_its_own_network() {
    let mut inputs = held();
    let site = Tunnel {
        client: false,
        virtual_addresses: Vec::new(),
        source: vec!["192.168.1.2".parse().unwrap()],
        ..tunnel()
    };
    inputs.tunnels = vec![site.clone()];
    let nft = NetworkPlan::new(&inputs).unwrap().nft;
    let translated =
        "meta mark 0x0063796f oifname \"cyg0\" ip saddr != 192.168.1.2 snat ip to 192.168.1.2\n";
    assert!(nft.contains(translated), "{nft}");
    inputs.tunnels = vec![Tunnel {
        source: Vec::new(),
        ..site
    }];
    assert_eq!(led(&inputs), (Vec::new(), Vec::new()), "by none");
}

fn guard(needs: Option<OwnNeeds>, change: impl FnOnce(&mut Lan)) -> String {
    let mut lan = gateway().lan.unwrap();
    lan.own = needs;
    change(&mut lan);
    let inputs = GuardInputs {
        lan,
        tunnels: vec![name("cyg0")],
        inside: Vec::new(),
        closed: vec![name("cyg1")],
        sites: Vec::new(),
        local: Vec::new(),
        uplink: None,
    };
    GuardPlan::new(&inputs).nft
}

#[test]
fn the_guard_refuses_what_is_not_needed() {
    let needs = OwnNeeds {
        resolvers: Some(vec!["9.9.9.9".parse().unwrap()]),
        user: Some(990),
        beside: vec![(name("docker0"), net("172.17.0.0/16"))],
        lan_unknown: false,
    };
    let nft = guard(Some(needs), |lan| {
        lan.direct_networks = vec![net("198.51.0.0/16")];
    });
    for part in [
        "\t\tmeta mark != 0x00637967 jump own\n",
        "\t\toifname { \"cyg0\", \"cyg1\", \"lo\" } return\n\t\tmeta mark 0x0063796f return\n\
         \t\tct direction original ct mark 0x0063796f goto refused\n\
         \t\tct direction reply meta l4proto != udp return\n\
         \t\tct direction reply udp dport != { 53, 853 } return\n\
         \t\tct direction reply udp sport { 53, 853 } return\n\
         \t\ttcp sport 1-511 tcp flags & (syn | ack) != syn return\n\
         \t\tct state invalid tcp flags & (rst | ack) == rst return\n",
        "\t\toifname { \"eth0\" } ip daddr { 192.168.1.0/24 } return\n",
        "\t\toifname \"docker0\" ip daddr 172.17.0.0/16 return\n",
        "\t\tip daddr @resolvers4 meta l4proto { tcp, udp } th dport { 53, 853 } return\n",
        "\tset resolvers4 {\n\t\ttype ipv4_addr\n\t\telements = { 9.9.9.9 }\n\t}\n\tset resolvers6 {\n\
         \t\ttype ipv6_addr\n\t}\n",
        "\t\tmeta skuid 990 return\n\t\tip daddr { 198.51.0.0/16 } return\n\t\tgoto refused\n",
        "\t\tmeta l4proto tcp counter reject with tcp reset\n\
         \t\tcounter reject with icmpx admin-prohibited\n\t}\n",
        LED_ELSEWHERE,
    ] {
        assert!(nft.contains(part), "{part}\nnot in\n{nft}");
    }
    let free = guard(None, |_| {});
    assert!(
        !free.contains("reject") && !free.contains("chain own") && !free.contains("resolvers"),
        "{free}"
    );
    // What began in the tunnel before has an address that is known there alone.
    assert!(free.contains(LED_ELSEWHERE), "{free}");
}

const LED_ELSEWHERE: &str = "\t\toifname != \"lo\" meta mark 0x0063796f oifname != { \"cyg0\" } counter drop\n\
    \t\toifname != \"lo\" ct direction original ct mark 0x0063796f oifname != { \"cyg0\" } counter drop\n";

/// `nft list` tells a guard by this.
fn signature(guard: &str) -> &str {
    let (_, signed) = guard.split_once(" comment \"").unwrap();
    signed.split_once('"').unwrap().0
}

#[test]
fn resolvers_come_and_go_and_the_guard_stays_the_same() {
    let asks = |resolvers: Option<&[&str]>| {
        let resolvers = resolvers.map(|all| all.iter().map(|r| r.parse().unwrap()).collect());
        let needs = OwnNeeds {
            resolvers,
            ..OwnNeeds::default()
        };
        guard(Some(needs), |_| {})
    };
    let (one, other) = (asks(Some(&["9.9.9.9"])), asks(Some(&["2001:db8::53"])));
    assert_ne!(one, other);
    assert_eq!(signature(&one), signature(&other));
    assert_ne!(signature(&one), signature(&asks(None)));
}

#[test]
fn a_resolver_of_its_own_asks_through_the_tunnel_while_it_carries() {
    const NAMES: &str = "meta l4proto { tcp, udp } th dport { 53, 853 } return\n";
    let led = |inputs: &Inputs| NetworkPlan::new(inputs).unwrap().nft;
    let mut inputs = held();
    assert!(guard(Some(OwnNeeds::default()), |_| {}).contains(NAMES));
    assert!(!led(&inputs).contains(NAMES));
    // One that is called by a packet has to be found first.
    inputs.tunnels[0].on_demand = true;
    assert!(!led(&inputs).contains(NAMES));
    let reached = std::mem::take(&mut inputs.tunnels[0].reached);
    assert!(led(&inputs).contains(NAMES));
    assert!(!led(&inputs).contains("own_elsewhere"), "it goes on");
    inputs.tunnels[0].reached = reached;
    lan_of(&mut inputs).own = Some(OwnNeeds {
        resolvers: Some(vec!["9.9.9.9".parse().unwrap()]),
        ..OwnNeeds::default()
    });
    let named = format!("ip daddr @resolvers4 {NAMES}");
    assert!(led(&inputs).contains(&named), "it finds the server");
    assert!(!led(&inputs).contains("own_elsewhere"), "and goes on to");
}

#[test]
fn what_it_asked_in_clear_does_not_go_on_so_while_the_tunnel_carries() {
    let mut inputs = held();
    lan_of(&mut inputs).direct_networks = vec![net("198.51.0.0/16")];
    lan_of(&mut inputs).through = vec![Through {
        tunnel: "work".to_owned(),
        interface: name("cyg-work"),
        networks: vec![net("10.20.0.0/16")],
    }];
    let nft = NetworkPlan::new(&inputs).unwrap().nft;
    for part in [
        "\t\tct status & (confirmed | snat) == confirmed ct mark != 0x0063796f goto own_elsewhere\n",
        // What does not take the tunnel goes on.
        "\tchain own_elsewhere {\n\t\tip daddr { 10.20.0.0/16 } return\n\t\tudp dport 123 return\n\
         \t\ttcp dport 4460 return\n\t\tip daddr { 198.51.0.0/16 } return\n\
         \t\tmeta nfproto ipv4 meta l4proto { tcp, udp } th dport { 53, 853 } goto own_refused\n\t}\n",
        "\tchain own_refused {\n\t\tmeta l4proto tcp counter reject with tcp reset\n\
         \t\tcounter reject with icmpx admin-prohibited\n\t}\n",
    ] {
        assert!(nft.contains(part), "{part}\nnot in\n{nft}");
    }
    inputs.tunnels[0].reached.clear();
    let down = NetworkPlan::new(&inputs).unwrap().nft;
    assert!(!down.contains("own_elsewhere"), "{down}");
}

#[test]
fn while_nobody_knows_which_network_the_lan_is_it_may_be_any_private_one() {
    let at_boot = |lan_unknown| {
        let needs = OwnNeeds {
            lan_unknown,
            ..OwnNeeds::default()
        };
        guard(Some(needs), |lan| {
            lan.networks.clear();
            lan.through = vec![Through {
                tunnel: "work".to_owned(),
                interface: name("cyg-work"),
                networks: vec![net("10.20.0.0/16")],
            }];
        })
    };
    let any = "\t\tip daddr { 10.20.0.0/16 } goto refused\n\
               \t\toifname { \"eth0\" } ip daddr { 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, ";
    assert!(at_boot(true).contains(any), "{}", at_boot(true));
    let rest = "\t\toifname { \"eth0\" } ip6 daddr { fc00::/7, fe80::/10 } return\n";
    assert!(at_boot(true).contains(rest));
    // One that is lent, and claimed by a tunnel, is none either.
    let lent = at_boot(false);
    assert!(
        !lent.contains("172.16.0.0/12") && !lent.contains(rest),
        "{lent}"
    );
}

#[test]
fn on_each_leg_only_its_own_addresses_are_answered_for() {
    let mut inputs = held();
    inputs.uplink = Some(name("wan0"));
    let plan = NetworkPlan::new(&inputs).unwrap();
    let of = |setting: &str| -> Vec<(&str, &str)> {
        let all = plan.sysctls.iter();
        let all = all.filter(|s| s.path.ends_with(setting) && s.only_if.as_deref() == Some("0"));
        all.map(|s| (s.path.as_str(), s.value.as_str())).collect()
    };
    for (setting, value) in [("arp_ignore", "1"), ("arp_announce", "2")] {
        let legs = ["eth0", "wan0"].map(|leg| format!("net/ipv4/conf/{leg}/{setting}"));
        let expected: Vec<_> = legs.iter().map(|path| (path.as_str(), value)).collect();
        assert_eq!(of(setting), expected);
    }
}

#[test]
fn while_devices_are_let_out_it_is_as_well_but_for_what_was_given_a_tunnel() {
    let nft = guard(Some(OwnNeeds::default()), |lan| {
        lan.on_failure = OnFailure::Direct { open: false };
        lan.through = vec![Through {
            tunnel: "work".to_owned(),
            interface: name("cyg-work"),
            networks: vec![net("10.20.0.0/16")],
        }];
        lan.direct_networks = vec![net("10.0.0.0/8")];
    });
    for part in [
        "\t\tip daddr { 10.20.0.0/16 } goto refused\n\t\tudp dport 123 return\n",
        "\t\tip daddr { 10.0.0.0/8 } return\n\t\tmeta nfproto @failure return\n\t\tgoto refused\n",
        "\"lo\" meta mark 0x0063796f oifname != { \"cyg0\", \"cyg-work\" } counter drop",
    ] {
        assert!(nft.contains(part), "{part}\nnot in\n{nft}");
    }
}
