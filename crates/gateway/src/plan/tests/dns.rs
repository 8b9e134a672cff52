//! Questions for names.

use super::*;
use crate::Through;
use crate::inputs::{Dns, OnFailure};

fn devices(default: DevicePolicy, named: &[(&str, DevicePolicy)]) -> Devices {
    let named = named
        .iter()
        .map(|(device, policy)| (device.parse().unwrap(), *policy));
    Devices {
        default,
        named: named.collect(),
        ..Devices::default()
    }
}

fn answering(devices: Devices, refuse_dot: bool) -> Inputs {
    let mut inputs = gateway();
    let direct = devices.any(DevicePolicy::Direct);
    inputs.lan = Some(Lan {
        interfaces: vec![name("eth0"), name("eth1")],
        networks: vec![net("192.168.1.0/24"), net("fd00::/64")],
        devices,
        ..Lan::default()
    });
    inputs.dns = Some(Dns {
        addresses: [
            ("eth0", "192.168.1.2"),
            ("eth0", "192.168.1.3"),
            ("eth0", "fd00::2"),
            ("eth1", "192.168.1.130"),
        ]
        .map(|(interface, address)| (name(interface), address.parse().unwrap()))
        .to_vec(),
        direct,
        refuse_dot,
    });
    inputs
}

/// The rules of a chain, without its hook.
fn chain(inputs: &Inputs, name: &str) -> Vec<String> {
    let text = NetworkPlan::new(inputs).unwrap().nft;
    let (_, rest) = text
        .split_once(&format!("\tchain {name} {{\n"))
        .unwrap_or_default();
    let (rules, _) = rest.split_once("\t}\n").unwrap_or_default();
    let rules = rules.lines().map(|line| line.trim().to_owned());
    rules.filter(|rule| !rule.starts_with("type ")).collect()
}

#[test]
fn a_resolver_in_a_network_that_has_a_tunnel_of_its_own_is_asked_there() {
    let mut inputs = answering(Devices::default(), false);
    let turned = chain(&inputs, "question_tunnelled");
    inputs.lan.as_mut().unwrap().through = vec![Through {
        tunnel: "work".to_owned(),
        interface: name("cyg-work"),
        networks: vec![net("10.20.0.0/16"), net("fd20::/32")],
    }];
    inputs.tunnels.push(Tunnel {
        interface: name("cyg-site"),
        client: false,
        own_traffic: true,
        virtual_addresses: Vec::new(),
        remote: vec![net("10.30.0.0/24"), net("::/0")],
        ..tunnel()
    });
    let mut expected = vec![
        "ip daddr { 10.20.0.0/16, 10.30.0.0/24 } ip daddr != { 192.168.1.0/24 } \
         fib daddr type != local return"
            .to_owned(),
        "ip6 daddr { fd20::/32 } ip6 daddr != { fd00::/64 } fib daddr type != local return"
            .to_owned(),
    ];
    expected.extend(turned);
    assert_eq!(chain(&inputs, "question_tunnelled"), expected);
}

#[test]
fn whomever_a_device_asks_we_answer_on_the_interface_it_asks_by() {
    let inputs = answering(Devices::default(), false);
    assert_eq!(
        chain(&inputs, "questions"),
        [
            "iifname \"eth0\" meta nfproto ipv4 meta l4proto { tcp, udp } th dport 53 jump question",
            "iifname \"eth0\" meta nfproto ipv6 meta l4proto { tcp, udp } th dport 53 jump question",
            "iifname \"eth1\" meta nfproto ipv4 meta l4proto { tcp, udp } th dport 53 jump question",
        ]
    );
    assert_eq!(chain(&inputs, "question"), ["goto question_tunnelled"]);
    assert_eq!(
        chain(&inputs, "question_tunnelled"),
        [
            "iifname \"eth0\" meta nfproto ipv4 dnat ip to 192.168.1.2",
            "iifname \"eth0\" meta nfproto ipv6 dnat ip6 to fd00::2",
            "iifname \"eth1\" meta nfproto ipv4 dnat ip to 192.168.1.130",
        ]
    );
    assert!(chain(&inputs, "question_direct").is_empty());
    // Nobody goes direct, but somebody may have: what was turned then is not answered any more.
    assert_eq!(chain(&inputs, "asking"), ["goto asking_tunnelled"]);
}

#[test]
fn the_tunnel_being_down_changes_nothing_about_it() {
    let up = answering(Devices::default(), false);
    let mut down = up.clone();
    down.tunnels[0].virtual_addresses.clear();
    down.tunnels[0].reached.clear();
    for name in ["questions", "question", "question_tunnelled"] {
        assert_eq!(chain(&up, name), chain(&down, name));
    }
}

#[test]
fn each_device_asks_as_its_policy_says() {
    use DevicePolicy::{Blocked, Direct, Tunnelled};
    let mixed = devices(
        Tunnelled,
        &[
            ("02:00:00:00:00:01", Direct),
            ("02:00:00:00:00:02", Blocked),
            ("192.168.1.9", Direct),
        ],
    );
    let inputs = answering(mixed, false);
    let question = chain(&inputs, "question");
    assert_eq!(
        question,
        [
            "ether saddr { 02:00:00:00:00:01 } goto question_direct",
            "ether saddr { 02:00:00:00:00:02 } return",
            "ip saddr { 192.168.1.9/32 } goto question_direct",
            "goto question_tunnelled",
        ]
    );
    // Whoever goes direct asks whom it likes, and us at another port.
    assert_eq!(
        chain(&inputs, "question_direct"),
        [
            "iifname \"eth0\" meta nfproto ipv4 ip daddr { 192.168.1.2/32, 192.168.1.3/32, 192.168.1.130/32 } \
             meta l4proto { tcp, udp } dnat ip to 192.168.1.2:985",
            "iifname \"eth0\" meta nfproto ipv6 ip6 daddr { fd00::2/128 } \
             meta l4proto { tcp, udp } dnat ip6 to [fd00::2]:985",
            "iifname \"eth1\" meta nfproto ipv4 ip daddr { 192.168.1.2/32, 192.168.1.3/32, 192.168.1.130/32 } \
             meta l4proto { tcp, udp } dnat ip to 192.168.1.130:985",
        ]
    );
    let asked = chain(&inputs, "asked");
    assert_eq!(asked.len(), 5);
    assert_eq!(
        asked[2],
        "iifname { \"eth0\", \"eth1\" } meta l4proto { tcp, udp } th dport 53 jump asking"
    );
    assert_eq!(
        chain(&inputs, "asking"),
        [
            "ether saddr { 02:00:00:00:00:01 } return",
            "ether saddr { 02:00:00:00:00:02 } counter reject",
            "ip saddr { 192.168.1.9/32 } return",
            "goto asking_tunnelled",
        ]
    );
    assert_eq!(
        chain(&inputs, "asking_tunnelled"),
        ["meta l4proto { tcp, udp } th dport 985 counter drop"]
    );
    // A port that could not be had is not led to.
    let mut taken = inputs;
    taken.dns.as_mut().unwrap().direct = false;
    assert_eq!(
        chain(&taken, "question")[0],
        "ether saddr { 02:00:00:00:00:01 } return"
    );
    assert!(chain(&taken, "question_direct").is_empty());
    assert_eq!(chain(&taken, "asked"), asked);
}

#[test]
fn dns_over_tls_is_refused_where_that_is_wanted_alone() {
    let mac = "02:00:00:00:00:01";
    let direct = devices(DevicePolicy::Tunnelled, &[(mac, DevicePolicy::Direct)]);
    let refusals = |refuse| {
        let rules = chain(&answering(direct.clone(), refuse), "forward");
        rules
            .into_iter()
            .filter(|rule| rule.contains("dport 853"))
            .collect::<Vec<_>>()
    };
    assert!(refusals(false).is_empty());
    let rules = refusals(true);
    assert_eq!(rules.len(), 3, "{rules:?}");
    assert_eq!(
        rules[0],
        "iifname \"eth0\" meta nfproto ipv4 meta l4proto { tcp, udp } th dport 853 jump encrypted"
    );
    let inputs = answering(direct, true);
    assert_eq!(
        chain(&inputs, "encrypted"),
        [
            format!("ether saddr {{ {mac} }} return"),
            "goto encrypted_tunnelled".to_owned()
        ]
    );
    assert_eq!(
        chain(&inputs, "encrypted_tunnelled"),
        [
            "meta l4proto tcp counter reject with tcp reset",
            "counter reject"
        ]
    );
    // Who is let out may do as one who goes direct.
    let mut inputs = inputs;
    if let Some(lan) = &mut inputs.lan {
        lan.on_failure = OnFailure::Direct { open: false };
    }
    assert_eq!(
        chain(&inputs, "encrypted_tunnelled")[0],
        "meta nfproto @failure return"
    );
}

#[test]
fn without_a_resolver_here_no_question_is_turned() {
    let blocked = devices(
        DevicePolicy::Tunnelled,
        &[("192.168.1.9", DevicePolicy::Blocked)],
    );
    let mut inputs = answering(blocked, true);
    inputs.dns = None;
    let text = NetworkPlan::new(&inputs).unwrap().nft;
    assert!(
        !text.contains("dport 53 ") && !text.contains("853"),
        "{text}"
    );
    // Where no address could be had, nothing is sent to one.
    inputs.dns = Some(Dns {
        addresses: Vec::new(),
        direct: false,
        refuse_dot: true,
    });
    let text = NetworkPlan::new(&inputs).unwrap().nft;
    assert!(!text.contains("dnat") && !text.contains("853"), "{text}");
}

#[test]
fn from_elsewhere_nobody_asks_us_as_whomever() {
    for direct in [DevicePolicy::Tunnelled, DevicePolicy::Direct] {
        let inputs = answering(devices(direct, &[]), false);
        let asked = chain(&inputs, "asked");
        let elsewhere = "iifname != { \"eth0\", \"eth1\", \"lo\" }";
        let port = "meta l4proto { tcp, udp } th dport { 53, 985 } counter drop";
        assert_eq!(
            asked[..2],
            [
                format!(
                    "{elsewhere} ip daddr {{ 192.168.1.2/32, 192.168.1.3/32, 192.168.1.130/32 }} {port}"
                ),
                format!("{elsewhere} ip6 daddr {{ fd00::2/128 }} {port}"),
            ]
        );
        assert!(asked[2].contains("jump asking"), "{asked:?}");
    }
}
