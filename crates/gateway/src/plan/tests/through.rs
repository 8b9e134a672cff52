//! Devices and destinations that were given another tunnel than the gateway's, and those that are let out when that is
//! down.

use super::*;
use crate::{GuardInputs, GuardPlan, OnFailure, THROUGH_MARK, THROUGH_TABLE, Through};

/// A box with the tunnels `home`, which is the gateway's, `us` and `work`, and one to a site.
fn several() -> Inputs {
    let mut inputs = gateway();
    let client = |interface: &str, address: &str| Tunnel {
        interface: name(interface),
        carries_lan: false,
        virtual_addresses: vec![address.parse().unwrap()],
        ..tunnel()
    };
    let site = Tunnel {
        interface: name("cyg-site"),
        client: false,
        own_traffic: true,
        virtual_addresses: Vec::new(),
        remote: vec![net("10.20.5.0/24")],
        ..tunnel()
    };
    inputs.tunnels.extend([
        site,
        client("cyg-us", "10.97.0.2"),
        client("cyg-work", "10.98.0.2"),
    ]);
    if let Some(lan) = &mut inputs.lan {
        lan.through = [("us", &[][..]), ("work", &["10.20.0.0/16", "fd20::/32"])]
            .map(|(tunnel, networks)| Through {
                tunnel: tunnel.to_owned(),
                interface: name(&format!("cyg-{tunnel}")),
                networks: networks.iter().map(|n| net(n)).collect(),
            })
            .to_vec();
    }
    inputs
}

fn lan_of(inputs: &mut Inputs) -> &mut Lan {
    inputs.lan.as_mut().unwrap()
}

fn guard_of(inputs: &Inputs) -> GuardPlan {
    let site = || vec![name("cyg-site")];
    GuardPlan::new(&GuardInputs {
        lan: inputs.lan.clone().unwrap(),
        tunnels: [vec![name("cyg0")], site()].concat(),
        inside: site(),
        closed: Vec::new(),
        sites: vec![net("10.20.5.0/24")],
        local: Vec::new(),
        uplink: None,
    })
}

fn give(inputs: &mut Inputs, device: &str, tunnel: &str) {
    let devices = &mut lan_of(inputs).devices;
    let device = device.parse().unwrap();
    devices.give(device, DevicePolicy::Tunnelled, Some(tunnel.to_owned()));
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part}\nnot in\n{text}");
    }
}

#[test]
fn a_destination_has_its_way_in_every_table_and_the_gateways_tunnel_is_none() {
    let mut inputs = several();
    // The peer of the gateway's tunnel has the very network, and a part of it.
    inputs.tunnels[0]
        .remote
        .extend([net("10.20.0.0/16"), net("10.20.7.0/24")]);
    let plan = NetworkPlan::new(&inputs).unwrap();
    for table in [GUARD_TABLE, THROUGH_TABLE, THROUGH_TABLE + 1] {
        let routes = in_table(&plan, table);
        let given: Vec<&String> = routes.iter().filter(|r| r.contains("10.20.")).collect();
        assert_eq!(given.len(), 2, "{routes:?}");
        assert!(
            given
                .iter()
                .any(|r| r.contains("10.20.0.0/16") && r.contains("cyg-work"))
        );
        assert!(
            given
                .iter()
                .any(|r| r.contains("10.20.5.0/24") && r.contains("cyg-site"))
        );
        let all = routes.iter().filter(|r| r.contains("0.0.0.0/0"));
        let by = ["cyg0", "cyg-us", "cyg-work"][match table {
            GUARD_TABLE => 0,
            table => (table - THROUGH_TABLE + 1) as usize,
        }];
        assert!(
            all.clone().count() == 1 && all.clone().all(|r| r.contains(by)),
            "{routes:?}"
        );
    }
    // No family but those that the peer lent an address of.
    let v6 = plan
        .routes
        .iter()
        .filter(|r| r.destination == net("fd20::/32"));
    assert_eq!(v6.count(), 0);
    let ends = guard_of(&inputs).routes;
    for table in [GUARD_TABLE, THROUGH_TABLE, THROUGH_TABLE + 1] {
        for net in ["0.0.0.0/0", "::/0", "10.20.0.0/16", "fd20::/32"].map(net) {
            let mut here = ends
                .iter()
                .filter(|r| r.table == table && r.destination == net);
            let end = here.next().map(|r| (&r.kind, r.metric));
            assert_eq!(
                end,
                Some((&RouteKind::Unreachable, u32::MAX)),
                "{net} in {table}"
            );
            assert!(here.next().is_none());
        }
    }
}

#[test]
fn a_device_is_led_by_its_mark_and_nobody_by_none() {
    let mut inputs = several();
    let rules = |inputs: &Inputs| -> Vec<(u32, Option<u32>, RuleAction)> {
        let rules = guard_of(inputs).rules.into_iter();
        let rules = rules.filter(|r| r.family == Family::V6 && r.to.is_none());
        rules.map(|r| (r.priority, r.fwmark, r.action)).collect()
    };
    let lookup = RuleAction::Lookup;
    let others = [
        (101, Some(THROUGH_MARK), lookup(THROUGH_TABLE)),
        (101, Some(THROUGH_MARK + 1), lookup(THROUGH_TABLE + 1)),
    ];
    let unmarked = [(102, None, lookup(GUARD_TABLE))];
    assert_eq!(rules(&inputs), [&others[..], &unmarked].concat());
    give(&mut inputs, "02:00:00:00:00:01", "work");
    let marked = [
        (102, Some(crate::TUNNELLED_MARK), lookup(GUARD_TABLE)),
        (103, None, RuleAction::Unreachable),
    ];
    assert_eq!(rules(&inputs), [&others[..], &marked].concat());
}

#[test]
fn the_filter_asks_by_which_tunnel_each_leaves() {
    let mut inputs = several();
    give(&mut inputs, "02:00:00:00:00:01", "work");
    give(&mut inputs, "192.168.1.9", "us");
    give(&mut inputs, "192.168.1.10", "gone");
    let devices = &mut lan_of(&mut inputs).devices;
    devices.give("192.168.1.11".parse().unwrap(), DevicePolicy::Direct, None);
    let nft = guard_of(&inputs).nft;
    has(
        &nft,
        &[
            "\t\tjump sites\n\
             \t\tether saddr { 02:00:00:00:00:01 } goto through_1\n\
             \t\tip saddr { 192.168.1.10/32 } counter drop\n\
             \t\tip saddr { 192.168.1.9/32 } goto through_0\n\
             \t\tip saddr { 192.168.1.11/32 } goto direct\n\
             \t\tgoto tunnelled\n",
            "\tchain tunnelled {\n\
             \t\toifname { \"cyg0\", \"cyg-site\" } return\n\
             \t\toifname \"cyg-work\" ip daddr { 10.20.0.0/16 } return\n\
             \t\toifname \"cyg-work\" ip6 daddr { fd20::/32 } return\n\
             \t\tcounter drop\n",
            "\tchain through_0 {\n\
             \t\toifname { \"cyg-us\", \"cyg-site\" } return\n\
             \t\toifname \"cyg-work\" ip daddr { 10.20.0.0/16 } return\n\
             \t\toifname \"cyg-work\" ip6 daddr { fd20::/32 } return\n\
             \t\tcounter drop\n",
            "\tchain direct {\n\
             \t\toifname \"cyg-work\" ip daddr { 10.20.0.0/16 } return\n\
             \t\toifname \"cyg-work\" ip6 daddr { fd20::/32 } return\n\
             \t\toifname { \"cyg-us\", \"cyg-work\" } counter drop\n\
             \t}\n",
            "\tchain sites {\n\
             \t\tip6 daddr { fd20::/32 } oifname != \"cyg-work\" counter drop\n\
             \t\tip6 daddr { fd20::/32 } return\n\
             \t\tip daddr { 10.20.5.0/24 } oifname != { \"cyg0\", \"cyg-site\" } counter drop\n\
             \t\tip daddr { 10.20.5.0/24 } return\n\
             \t\tip daddr { 10.20.0.0/16 } oifname != \"cyg-work\" counter drop\n\
             \t\tip daddr { 10.20.0.0/16 } return\n\
             \t}\n",
            // Each is marked for its table, and what comes back as what it answers.
            "\t\tiifname { \"cyg0\", \"cyg-site\" } meta mark set 0x00637974\n\
             \t\tiifname \"cyg-us\" meta mark set 0x00637a00\n\
             \t\tiifname \"cyg-work\" meta mark set 0x00637a01\n",
            "\t\tether saddr { 02:00:00:00:00:01 } goto mark_through_1\n\
             \t\tip saddr { 192.168.1.10/32 } return\n",
            "\tchain mark_through_1 {\n\
             \t\tip daddr { 10.20.0.0/16 } goto mark_given\n\
             \t\tip6 daddr { fd20::/32 } goto mark_given\n\
             \t\tct mark 0x00637964 ct mark set 0x00000000\n\
             \t\tmeta mark set 0x00637a01\n",
            "\tchain mark_direct {\n\
             \t\tip daddr { 10.20.0.0/16 } goto mark_given\n",
        ],
    );
    let plan = NetworkPlan::new(&inputs).unwrap().nft;
    has(
        &plan,
        &[
            "oifname \"cyg-work\" ip saddr != { 10.98.0.2 } snat ip to 10.98.0.2",
            "iifname \"cyg-work\" meta mark set 0x00637a01",
            "oifname \"cyg-us\" meta nfproto ipv4 tcp flags & (syn | rst) == syn tcp option maxseg size set",
        ],
    );
}

#[test]
fn who_is_let_out_when_the_tunnel_is_down_is_in_a_set_and_nobody_else_is_asked_for_it() {
    let mut inputs = several();
    give(&mut inputs, "192.168.1.9", "us");
    let closed = guard_of(&inputs);
    assert!(!closed.nft.contains("failure") && !closed.nft.contains("masquerade"));
    lan_of(&mut inputs).on_failure = OnFailure::Direct { open: false };
    let direct = guard_of(&inputs);
    has(
        &direct.nft,
        &[
            "\tset failure {\n\t\ttype nf_proto\n\t\tflags timeout\n\t\ttimeout 30s\n\t}\n",
            "\t\toifname \"cyg-work\" ip6 daddr { fd20::/32 } return\n\
             \t\tmeta nfproto @failure return\n\
             \t\tcounter drop\n",
            "\t\tct status & confirmed == 0 meta nfproto @failure goto mark_direct\n\
             \t\tct mark 0x00637964 meta nfproto @failure goto mark_direct\n\
             \t\tct mark 0x00637964 ct mark set 0x00000000\n\
             \t\tmeta mark set 0x00637974\n",
        ],
    );
    // In one chain of each kind: that of those who go through the gateway's tunnel.
    assert_eq!(direct.nft.matches("@failure return").count(), 1);
    assert_eq!(direct.nft.matches("@failure goto").count(), 2);
    assert!(
        direct
            .rules
            .iter()
            .any(|r| r.priority == 101 && r.fwmark == Some(crate::DIRECT_MARK))
    );
    // Whether they are let out at this moment is no part of what the guard is known by.
    let signature = |plan: &GuardPlan| {
        let signed = plan.nft.split('"').find(|part| part.len() == 16);
        signed.map(str::to_owned)
    };
    lan_of(&mut inputs).on_failure = OnFailure::Direct { open: true };
    let open = guard_of(&inputs);
    assert_eq!(signature(&open), signature(&direct));
    assert!(open.nft.contains("\t\telements = { ipv4, ipv6 }\n"));
}
