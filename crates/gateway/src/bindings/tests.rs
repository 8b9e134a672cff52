use super::*;
use crate::{DevicePolicy, Devices, DirectNames, OnFailure, OwnNeeds, Server, Through};

const LAPTOP: &str = "192.168.1.20";
const BOX: &str = "192.168.1.2";
const WEB: &str = "198.51.100.80";
const HOME: &str = "10.99.0.2";
const WORK: &str = "10.77.0.2";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn tunnel(name: &str, lent: &[&str]) -> Tunnel {
    let all = nets(&["0.0.0.0/0"]);
    Tunnel {
        interface: format!("cyg-{name}").parse().unwrap(),
        mtu: 1400,
        whole: 1400,
        client: true,
        on_demand: false,
        virtual_addresses: lent.iter().map(|text| ip(text)).collect(),
        remote: all.clone(),
        reached: if lent.is_empty() { Vec::new() } else { all },
        source: Vec::new(),
        maps: Vec::new(),
        endpoints: vec![ip("203.0.113.5")],
        own_traffic: false,
        carries_lan: name == "home",
    }
}

fn site(networks: &[&str]) -> Tunnel {
    Tunnel {
        client: false,
        remote: nets(networks),
        reached: nets(networks),
        own_traffic: true,
        carries_lan: true,
        ..tunnel("branch", &[])
    }
}

/// The gateway, with a tunnel for the LAN that is up.
fn gateway() -> Inputs {
    Inputs {
        tunnels: vec![tunnel("home", &[HOME])],
        lan: Some(Lan {
            interfaces: vec!["eth0".parse().unwrap()],
            networks: nets(&["192.168.1.0/24"]),
            own: Some(OwnNeeds {
                resolvers: Some(vec![ip("203.0.113.53")]),
                ..OwnNeeds::default()
            }),
            ..Lan::default()
        }),
        local_networks: nets(&["192.168.1.2/24"]),
        ports: vec![500, 4500],
        ..Inputs::default()
    }
}

fn with(change: impl FnOnce(&mut Inputs)) -> Inputs {
    let mut inputs = gateway();
    change(&mut inputs);
    inputs
}

fn lan(inputs: &mut Inputs) -> &mut Lan {
    inputs.lan.as_mut().unwrap()
}

/// `192.168.1.20 198.51.100.80 10.99.0.2`: who, whom, by which address.
fn flow(text: &str) -> Connection {
    let mut addresses = text.split(' ').map(ip);
    let mut next = || addresses.next().unwrap();
    let (source, destination, answered) = (next(), next(), next());
    Connection {
        source,
        destination,
        answered,
        answers: destination,
        mark: 0,
        is_tcp: false,
        source_port: Some(40_000),
        port: Some(443),
        answering_port: Some(443),
    }
}

fn led(text: &str) -> Connection {
    Connection {
        mark: OWN_MARK,
        ..flow(text)
    }
}

fn direct(text: &str) -> Connection {
    Connection {
        mark: DIRECT_MARK,
        ..flow(text)
    }
}

fn to_port(port: u16, connection: Connection) -> Connection {
    Connection {
        port: Some(port),
        answering_port: Some(port),
        ..connection
    }
}

fn known(last: u8) -> Sender {
    Sender::Known(Mac::new([2, 0, 0, 0, 0, last]).unwrap())
}

fn judge(inputs: &Inputs, connection: Connection) -> Verdict {
    Bindings::new(inputs).judge(&connection, known(1), false)
}

#[track_caller]
fn all(inputs: &Inputs, verdict: Verdict, connections: &[Connection]) {
    for connection in connections {
        assert_eq!(judge(inputs, *connection), verdict, "{connection:?}");
    }
}

use Verdict::{InClear, Kept, Stale};

#[test]
fn what_is_tunnelled_has_an_address_of_its_tunnel() {
    let untranslated = flow(&format!("{LAPTOP} {WEB} {LAPTOP}"));
    let by = |address: &str| flow(&format!("{LAPTOP} {WEB} {address}"));
    let plain = gateway();
    all(&plain, Kept, &[by(HOME)]);
    // Untranslated while the tables were gone; of another time; by another tunnel; in clear.
    all(
        &plain,
        Stale,
        &[untranslated, by("10.99.0.3"), by(WORK), by(BOX)],
    );
    // While it is down nobody knows which it will have, but that it is none of these.
    let down = with(|inputs| inputs.tunnels = vec![tunnel("home", &[]), tunnel("work", &[WORK])]);
    all(&down, Kept, &[untranslated, by(HOME)]);
    all(&down, Stale, &[by(WORK), by(BOX)]);
    // A question that was turned to us, who calls, and what stays in the LAN.
    let turned = Connection {
        answers: ip(BOX),
        ..untranslated
    };
    let stays = [
        turned,
        flow(&format!("{LAPTOP} 192.168.1.21 {LAPTOP}")),
        flow(&format!("{LAPTOP} {BOX} {LAPTOP}")),
        flow(&format!("{LAPTOP} 239.255.255.250 {LAPTOP}")),
        flow(&format!("{WEB} {BOX} {WEB}")),
    ];
    all(&plain, Kept, &stays);
    all(
        &plain,
        Stale,
        &[flow(&format!("{LAPTOP} 192.168.1.21 {HOME}"))],
    );
}

#[test]
fn another_tunnel_of_the_gateways_or_of_a_device_has_other_addresses() {
    let by = |address: &str| flow(&format!("{LAPTOP} {WEB} {address}"));
    let given = |tunnel_name: &str| {
        with(|inputs| {
            inputs.tunnels.push(tunnel("work", &[WORK]));
            let lan = lan(inputs);
            lan.through = vec![Through {
                tunnel: "work".to_owned(),
                interface: "cyg-work".parse().unwrap(),
                networks: nets(&["10.20.0.0/16"]),
            }];
            let device = LAPTOP.parse().unwrap();
            lan.devices.give(
                device,
                DevicePolicy::Tunnelled,
                Some(tunnel_name.to_owned()),
            );
        })
    };
    all(&given("work"), Kept, &[by(WORK)]);
    all(&given("work"), Stale, &[by(HOME)]);
    all(&given("gone"), Stale, &[by(WORK), by(HOME)]);
    let to_given = |address: &str| flow(&format!("192.168.1.21 10.20.0.1 {address}"));
    all(&given("work"), Kept, &[to_given(WORK)]);
    all(&given("work"), Stale, &[to_given(HOME)]);
    let own = |address: &str| led(&format!("{BOX} 10.20.0.1 {address}"));
    all(&given("work"), Kept, &[own(WORK)]);
    all(&given("work"), Stale, &[own(HOME)]);
}

#[test]
fn a_site_is_reached_untranslated_and_what_is_none_is_not() {
    let untranslated = flow(&format!("{LAPTOP} 10.2.0.1 {LAPTOP}"));
    let by_home = flow(&format!("{LAPTOP} 10.2.0.1 {HOME}"));
    let in_clear = direct(&format!("{LAPTOP} 10.2.0.1 {BOX}"));
    let by_the_operator = flow(&format!("{LAPTOP} 10.2.0.1 {BOX}"));
    let there = with(|inputs| inputs.tunnels.push(site(&["10.2.0.0/16"])));
    all(&there, Kept, &[untranslated, by_the_operator]);
    all(&there, Stale, &[by_home, in_clear]);
    all(&there, Kept, &[flow(&format!("{LAPTOP} {WEB} {HOME}"))]);
    let gone = gateway();
    all(&gone, Kept, &[by_home]);
    all(&gone, Stale, &[untranslated]);
    let pool = with(|inputs| {
        inputs.server = Some(Server {
            interface: "cyg-server".parse().unwrap(),
            mtu: 1400,
            pools: nets(&["10.2.0.0/24"]),
            addresses: Vec::new(),
            masquerade: Vec::new(),
            client_to_client: false,
            block_private: false,
            inside: Vec::new(),
            host_access: false,
            speedtest: None,
        });
    });
    all(&pool, Kept, &[untranslated]);
    all(&pool, Stale, &[by_home]);
    // Of the machine itself: neither is begun in clear.
    let own = flow(&format!("{BOX} 10.2.0.1 {BOX}"));
    let was_led = led(&format!("{BOX} 10.2.0.1 {HOME}"));
    for inputs in [&there, &pool] {
        all(inputs, Kept, &[own]);
        all(inputs, Stale, &[was_led]);
    }
    all(&gone, InClear, &[own]);
    // A network of the machine's own lies within, and nobody knows.
    let within = with(|inputs| {
        inputs.tunnels.push(site(&["10.2.0.0/16"]));
        inputs.local_networks.extend(nets(&["10.2.0.9/24"]));
    });
    all(&within, Kept, &[by_home, untranslated]);
    // Of one that is everything nothing is told from the internet.
    let everything = with(|inputs| inputs.tunnels.push(site(&["0.0.0.0/0"])));
    all(&everything, Stale, &[untranslated]);
    let of_lan = with(|inputs| {
        let all = site(&["0.0.0.0/0"]);
        inputs.tunnels = vec![Tunnel {
            own_traffic: false,
            ..all
        }];
    });
    all(&of_lan, Kept, &[untranslated]);
    all(&of_lan, Stale, &[by_home]);
}

#[test]
fn a_network_that_is_shown_otherwise_has_those_addresses_and_no_others() {
    let mapped = |shown: &str| Tunnel {
        maps: vec![Mapping::new(nets(&["192.168.1.0/24"])[0], nets(&[shown])[0]).unwrap()],
        ..site(&["10.2.0.0/16"])
    };
    let there = with(|inputs| inputs.tunnels.push(mapped("10.201.1.0/24")));
    let by = |address: &str| flow(&format!("{LAPTOP} 10.2.0.1 {address}"));
    let from = |answers: &str| Connection {
        answers: ip(answers),
        ..flow("10.2.0.1 10.201.1.20 10.2.0.1")
    };
    let unmapped = flow(&format!("10.2.0.1 {LAPTOP} 10.2.0.1"));
    // A box between two networks need be no gateway.
    for inputs in [
        there.clone(),
        Inputs {
            lan: None,
            ..there.clone()
        },
    ] {
        all(&inputs, Kept, &[by("10.201.1.20"), from(LAPTOP)]);
        let stale = [by(LAPTOP), by("10.202.1.20"), from("10.201.1.20"), unmapped];
        all(&inputs, Stale, &stale);
    }
    let before = Bindings::new(&there);
    let now = with(|inputs| inputs.tunnels.push(mapped("10.202.1.0/24")));
    let retired = Bindings::new(&now).retired(&before, &Retired::default());
    assert!(retired.concern(&from(LAPTOP)) && retired.concern(&by("10.201.1.20")));
    assert!(!retired.concern(&by("10.202.1.20")));
}

#[test]
fn what_goes_direct_has_an_address_of_this_machine() {
    let by = |address: &str| flow(&format!("{LAPTOP} {WEB} {address}"));
    let device = |policy| {
        with(|inputs| {
            let devices = &mut lan(inputs).devices;
            devices.give("02:00:00:00:00:01".parse().unwrap(), policy, None);
        })
    };
    let networks = with(|inputs| lan(inputs).direct_networks = nets(&["198.51.100.0/24"]));
    let open = with(|inputs| lan(inputs).on_failure = OnFailure::Direct { open: true });
    for inputs in [device(DevicePolicy::Direct), networks, open] {
        all(
            &inputs,
            Kept,
            &[by(BOX), direct(&format!("{LAPTOP} {WEB} 203.0.113.2"))],
        );
        all(&inputs, Stale, &[by(HOME), by(LAPTOP)]);
    }
    all(&device(DevicePolicy::Blocked), Stale, &[by(HOME), by(BOX)]);
    // By its name both are right: what began in the tunnel stays there.
    let listed = with(|inputs| {
        lan(inputs).direct_names = DirectNames {
            listed: true,
            ..DirectNames::default()
        };
    });
    let bindings = Bindings::new(&listed);
    for (address, verdict) in [(HOME, Kept), (BOX, Kept), (WORK, Stale)] {
        assert_eq!(
            bindings.judge(&by(address), Sender::Unknown, true),
            verdict,
            "{address}"
        );
    }
    assert_eq!(bindings.judge(&by(BOX), Sender::Unknown, false), Stale);
}

#[test]
fn whose_mac_address_is_not_known_loses_nothing_or_keeps_what_may_be_right() {
    let inputs = with(|inputs| {
        lan(inputs).devices = Devices {
            named: [("02:00:00:00:00:01".parse().unwrap(), DevicePolicy::Direct)].into(),
            ..Devices::default()
        };
    });
    let bindings = Bindings::new(&inputs);
    let judge = |source: &str, address: &str, sender| {
        bindings.judge(&flow(&format!("{source} {WEB} {address}")), sender, false)
    };
    let behind = "192.168.7.7";
    for (source, address, sender, verdict) in [
        (LAPTOP, HOME, known(2), Kept),
        (LAPTOP, HOME, Sender::PerhapsChanged, Stale),
        (LAPTOP, HOME, Sender::Unknown, Kept),
        (LAPTOP, "10.99.0.3", Sender::Unknown, Stale),
        // Beyond the LAN's networks: a device that is known there, or anybody.
        (behind, "10.99.0.3", known(2), Stale),
        (behind, "10.99.0.3", Sender::PerhapsChanged, Kept),
        (behind, behind, Sender::Unknown, Kept),
    ] {
        let told = judge(source, address, sender);
        assert_eq!(told, verdict, "{source} {address} {sender:?}");
    }
}

#[test]
fn an_address_is_gone_when_its_tunnel_has_another_or_is_none_of_the_lans() {
    let lent = |name: &str, addresses: &[&str]| {
        let inputs = with(|inputs| inputs.tunnels = vec![tunnel(name, addresses)]);
        Bindings::new(&inputs)
    };
    let up = lent("home", &[HOME]);
    let by_home = flow(&format!("{LAPTOP} {WEB} {HOME}"));
    let after = |now: &Bindings, before: &Bindings, retired: &Retired| {
        now.gone(now.retired(before, retired))
    };
    // The server that comes back may lend it again, or another one.
    let down = lent("home", &[]);
    let (gone, waiting) = after(&down, &up, &Retired::default());
    assert!(gone.is_empty() && waiting.concern(&by_home));
    let (gone, waiting_on) = after(&up, &down, &waiting);
    assert!(gone.is_empty() && waiting_on.is_empty());
    let other = lent("home", &["10.99.0.3"]);
    let (gone, waiting) = after(&other, &down, &waiting);
    assert!(gone.concern(&by_home) && waiting.is_empty());
    // A tunnel that is no more, or carries nothing of the LAN's.
    for now in [lent("work", &[]), Bindings::new(&Inputs::default())] {
        let (gone, waiting) = after(&now, &up, &Retired::default());
        assert!(gone.concern(&by_home) && waiting.is_empty());
    }
}

#[test]
fn the_machines_own_is_led_where_it_may_not_send_what_it_likes() {
    let plain = gateway();
    let to = |to: &str| flow(&format!("{BOX} {to} {BOX}"));
    all(&plain, Kept, &[led(&format!("{BOX} {WEB} {HOME}"))]);
    all(&plain, Stale, &[led(&format!("{BOX} {WEB} {BOX}"))]);
    all(&plain, InClear, &[to(WEB)]);
    // Refused by its next packet.
    let tcp = Connection {
        is_tcp: true,
        ..to(WEB)
    };
    all(&plain, Kept, &[tcp]);
    // What it needs, whom it talks to, and who calls.
    let needed = [
        led(&format!("{BOX} 203.0.113.5 {HOME}")),
        to("203.0.113.5"),
        to("192.168.1.21"),
        to_port(123, to(WEB)),
        to_port(53, to("203.0.113.53")),
        Connection {
            source_port: Some(4500),
            ..to(WEB)
        },
        flow(&format!("{WEB} {BOX} {WEB}")),
        flow(&format!("{HOME} {WEB} {HOME}")),
    ];
    all(&plain, Kept, &needed);
    let called = with(|inputs| inputs.tunnels = vec![tunnel("home", &[])]);
    all(&called, Kept, &[led(&format!("{BOX} {WEB} {BOX}"))]);
    // "all", after a restart as after a reload.
    let free = with(|inputs| lan(inputs).own = None);
    all(&free, Stale, &[led(&format!("{BOX} {WEB} {HOME}"))]);
    all(&free, Kept, &[to(WEB)]);
    // Networks that are its own from now on.
    let beside = with(|inputs| {
        let own = lan(inputs).own.as_mut().unwrap();
        own.beside = vec![("docker0".parse().unwrap(), nets(&["172.17.0.0/16"])[0])];
    });
    all(&beside, Stale, &[led(&format!("{BOX} 172.17.0.2 {HOME}"))]);
    all(&beside, Kept, &[to("172.17.0.2")]);
    for inputs in [
        with(|inputs| lan(inputs).direct_networks = nets(&["198.51.100.0/24"])),
        with(|inputs| lan(inputs).on_failure = OnFailure::Direct { open: true }),
    ] {
        all(&inputs, Stale, &[led(&format!("{BOX} {WEB} {HOME}"))]);
        all(&inputs, Kept, &[to(WEB)]);
    }
}

#[test]
fn a_resolver_of_the_machine_itself_asks_through_the_tunnel_while_that_carries() {
    let asks_on = |carries: bool| {
        with(|inputs| {
            lan(inputs).own.as_mut().unwrap().resolvers = None;
            if !carries {
                inputs.tunnels[0].reached.clear();
            }
        })
    };
    let asked = |port| to_port(port, flow(&format!("{BOX} {WEB} {BOX}")));
    let led = |port| to_port(port, led(&format!("{BOX} {WEB} {HOME}")));
    for port in [53, 853] {
        all(&asks_on(true), Kept, &[led(port)]);
        all(&asks_on(true), InClear, &[asked(port)]);
        all(&asks_on(false), Stale, &[led(port)]);
        all(&asks_on(false), Kept, &[asked(port)]);
    }
    // What is no question waits in the tunnel.
    all(&asks_on(false), Kept, &[led(22)]);
    // Also whom the tunnel leads to.
    let server = to_port(53, flow(&format!("{BOX} 203.0.113.5 {BOX}")));
    all(&asks_on(true), InClear, &[server]);
    // Where it does not lead, one is asked in clear.
    let some = with(|inputs| {
        lan(inputs).own.as_mut().unwrap().resolvers = None;
        inputs.tunnels[0].reached = nets(&["10.0.0.0/8", "fd00::/8"]);
    });
    all(&some, Kept, &[asked(53)]);
    all(
        &some,
        InClear,
        &[to_port(53, flow(&format!("{BOX} 10.1.1.1 {BOX}")))],
    );
    let v6 = with(|inputs| {
        lan(inputs).own.as_mut().unwrap().resolvers = None;
        inputs.local_networks.extend(nets(&["2001:db8:1::2/64"]));
        inputs.tunnels[0].reached = nets(&["0.0.0.0/0", "::/0"]);
    });
    let by_v6 = to_port(53, flow("2001:db8:1::2 2001:db8:80::80 2001:db8:1::2"));
    all(&v6, Kept, &[by_v6]);
    all(&v6, InClear, &[asked(53)]);
    // One outside is asked in clear.
    let outside = to_port(
        53,
        Connection {
            mark: OWN_MARK,
            ..flow(&format!("{BOX} 203.0.113.53 {HOME}"))
        },
    );
    all(&gateway(), Stale, &[outside]);
}

#[test]
fn an_answer_that_began_a_connection_is_where_its_question_is() {
    let asks_on = with(|inputs| lan(inputs).own.as_mut().unwrap().resolvers = None);
    let late = |from: &str| Connection {
        source_port: Some(53),
        port: Some(40_000),
        answering_port: Some(40_000),
        ..flow(&format!("{from} {BOX} {from}"))
    };
    all(&asks_on, InClear, &[late(WEB)]);
    all(&asks_on, Kept, &[late("192.168.1.21")]);
    // Its resolver's.
    all(&gateway(), Kept, &[late("203.0.113.53")]);
    // A resolver calls the machine's own server, and what is TCP began with a call.
    let calls = to_port(53, late(WEB));
    let tcp = Connection {
        is_tcp: true,
        ..late(WEB)
    };
    // One that is passed on to a device is the device's.
    let forwarded = Connection {
        answers: ip(LAPTOP),
        ..late(WEB)
    };
    all(&asks_on, Kept, &[calls, tcp, forwarded]);
}

#[test]
fn a_tunnel_of_the_machines_own_is_its_first_way() {
    let work = |networks: &[&str]| Tunnel {
        own_traffic: true,
        reached: nets(networks),
        ..tunnel("work", &[WORK])
    };
    let up = with(|inputs| inputs.tunnels.push(work(&["198.51.100.0/24"])));
    let by_home = led(&format!("{BOX} {WEB} {HOME}"));
    all(&gateway(), Kept, &[by_home]);
    all(&up, Stale, &[by_home]);
    all(&up, InClear, &[flow(&format!("{BOX} {WEB} {BOX}"))]);
    all(&up, Kept, &[flow(&format!("{BOX} {WEB} {WORK}"))]);
    // What it does not reach, and devices, go as before.
    all(
        &up,
        Kept,
        &[
            led(&format!("{BOX} 198.51.101.1 {HOME}")),
            flow(&format!("{LAPTOP} {WEB} {HOME}")),
        ],
    );
    let before = Bindings::new(&up);
    let retired = Bindings::new(&gateway()).retired(&before, &Retired::default());
    assert!(retired.concern(&flow(&format!("{BOX} {WEB} {WORK}"))) && !retired.concern(&by_home));
    // Until it is there again.
    assert!(
        before
            .retired(&Bindings::new(&gateway()), &retired)
            .is_empty()
    );
}

#[test]
fn questions_are_answered_where_their_devices_are_answered_now() {
    let turned = |to: &str, port| Connection {
        answers: ip(BOX),
        port: Some(53),
        answering_port: Some(port),
        ..flow(&format!("{LAPTOP} {to} {LAPTOP}"))
    };
    let dns = |policy| {
        with(|inputs| {
            inputs.dns = Some(Dns {
                addresses: vec![("eth0".parse().unwrap(), ip(BOX))],
                direct: true,
                refuse_dot: false,
            });
            lan(inputs).devices.default = policy;
        })
    };
    let tunnelled = dns(DevicePolicy::Tunnelled);
    all(&tunnelled, Kept, &[turned(WEB, 53), turned(BOX, 53)]);
    all(&tunnelled, Stale, &[turned(BOX, Dns::DIRECT_PORT)]);
    let direct = dns(DevicePolicy::Direct);
    all(&direct, Kept, &[turned(BOX, Dns::DIRECT_PORT)]);
    all(&direct, Stale, &[turned(WEB, 53), turned(BOX, 53)]);
    let blocked = dns(DevicePolicy::Blocked);
    all(
        &blocked,
        Stale,
        &[turned(WEB, 53), turned(BOX, Dns::DIRECT_PORT)],
    );
    // A network that has a tunnel of its own is asked there.
    let mut with_site = tunnelled.clone();
    with_site.tunnels.push(site(&["10.2.0.0/16"]));
    all(&with_site, Stale, &[turned("10.2.0.1", 53)]);
    // Nobody answers any more, or at another address.
    let retired =
        |now: &Inputs| Bindings::new(now).retired(&Bindings::new(&tunnelled), &Retired::default());
    assert!(retired(&gateway()).concern(&turned(WEB, 53)));
    assert!(!retired(&direct).concern(&turned(WEB, 53)));
    assert!(!retired(&gateway()).concern(&flow(&format!("{LAPTOP} {BOX} {LAPTOP}"))));
}
