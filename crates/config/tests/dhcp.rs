//! `[gateway.dhcp]`: what is understood, and every mistake with its line.

use std::net::Ipv4Addr;
use std::time::Duration;

use cygnet_config::{Advertise, Config, Dhcp};
use ipnet::Ipv4Net;

const HEAD: &str = "[tunnel.home]\nremote = \"203.0.113.5\"\npsk = \"k\"\nvirtual_address = true\n";

/// A gateway with these lines in its section, and these in that of DHCP, which begins in line 8.
fn text(gateway: &str, dhcp: &str) -> String {
    format!("{HEAD}[gateway]\ntunnel = \"home\"\n{gateway}\n[gateway.dhcp]\n{dhcp}\n")
}

fn parse(text: &str) -> Result<Config, Vec<String>> {
    Config::parse("t", text, &mut |path| Err(format!("no {path}")))
        .map_err(|error| error.to_string().lines().map(str::to_owned).collect())
}

fn dhcp(text: &str) -> Dhcp {
    let gateway = parse(text).unwrap().gateway.unwrap();
    gateway.dhcp.unwrap()
}

#[test]
fn a_range_is_enough() {
    let dhcp = dhcp(&text(
        "lan = \"eth0\"",
        "range = \"192.168.1.100-192.168.1.199\"",
    ));
    assert_eq!(dhcp.interface, "eth0");
    assert_eq!(dhcp.range.get_ref().first, Ipv4Addr::new(192, 168, 1, 100));
    assert_eq!(dhcp.range.get_ref().last, Ipv4Addr::new(192, 168, 1, 199));
    assert_eq!(dhcp.lease_time, Duration::from_secs(3600));
    assert_eq!(dhcp.dns, None);
    assert!(dhcp.router_advertisements);
    assert!(dhcp.reservations.is_empty());
    let without = parse(&format!(
        "{HEAD}[gateway]\ntunnel = \"home\"\nlan = \"eth0\"\n"
    ));
    assert_eq!(without.unwrap().gateway.unwrap().dhcp, None);
}

#[test]
fn all_keys_are_read() {
    let dhcp = dhcp(&text(
        "lan = [\"eth0\", \"eth1\"]\nnetworks = [\"10.1.0.0/16\"]",
        "interface = \"eth1\"\nrange = \"10.1.0.10 - 10.1.0.20\"\nlease_time = \"12h\"\n\
         dns = [\"9.9.9.9\", \"2620:fe::fe\"]\nrouter_advertisements = false\n\
         [gateway.dhcp.reservations]\n\"3c:22:fb:01:02:03\" = \"10.1.7.7\"\n",
    ));
    assert_eq!(dhcp.interface, "eth1");
    assert_eq!(dhcp.range.get_ref().to_string(), "10.1.0.10-10.1.0.20");
    assert_eq!(dhcp.lease_time, Duration::from_secs(43_200));
    assert_eq!(dhcp.dns.unwrap().len(), 2);
    assert!(!dhcp.router_advertisements);
    let reservation = dhcp.reservations.iter().next().unwrap();
    assert_eq!(reservation.0.to_string(), "3c:22:fb:01:02:03");
    assert_eq!(*reservation.1.get_ref(), Ipv4Addr::new(10, 1, 7, 7));
}

#[test]
fn it_is_advertised_without_lending() {
    let advertise = |lan: &str, lines: &str| {
        let text =
            format!("{HEAD}[gateway]\ntunnel = \"home\"\n{lan}\n[gateway.advertise]\n{lines}");
        parse(&text).map(|config| config.gateway.unwrap().advertise.unwrap())
    };
    let alone = Advertise {
        interface: "eth0".to_owned(),
        dns: None,
    };
    assert_eq!(advertise("lan = \"eth0\"", ""), Ok(alone));
    let two = "lan = [\"eth0\", \"eth1\"]";
    let full = "interface = \"eth1\"\ndns = [\"2620:fe::fe\"]\n";
    let full = advertise(two, full).unwrap();
    assert_eq!(
        (full.interface.as_str(), full.dns.unwrap().len()),
        ("eth1", 1)
    );
    for (lan, lines, line, expected) in [
        (two, "", 8, "several interfaces: eth0, eth1"),
        (
            two,
            "interface = \"eth2\"",
            9,
            "`eth2` is no interface of the LAN",
        ),
        (
            "lan = \"eth0\"",
            "dns = [\"9.9.9.9\"]",
            9,
            "an IPv4 address",
        ),
        (
            "lan = \"eth0\"",
            "range = \"10.0.0.5-10.0.0.9\"",
            9,
            "range",
        ),
        (
            "lan = \"eth0\"",
            "[gateway.dhcp]\nrange = \"10.0.0.5-10.0.0.9\"",
            8,
            "with [gateway.dhcp] this machine is advertised already",
        ),
    ] {
        let told = advertise(lan, lines).unwrap_err();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with(&format!("t:{line}:")), "{told:?}");
        assert!(told[0].contains(expected), "{told:?}");
    }
}

#[test]
fn every_mistake_is_told_with_its_line() {
    for (gateway, dhcp, line, expected) in [
        ("lan = \"eth0\"", "", 8, "lacks `range`"),
        (
            "lan = \"eth0\"",
            "range = \"192.168.1.0/24\"",
            9,
            "no range of addresses",
        ),
        (
            "lan = \"eth0\"",
            "range = \"192.168.1.9-192.168.1.5\"",
            9,
            "did you mean `192.168.1.5-192.168.1.9`?",
        ),
        (
            "lan = \"eth0\"",
            "range = \"10.0.0.1-10.0.255.1\"",
            9,
            "4096 at most",
        ),
        (
            "lan = \"eth0\"",
            "range = \"10.0.0.5-10.0.0.9\"\nlease_time = \"1m\"",
            10,
            "expected 2m to 7d",
        ),
        (
            "lan = \"eth0\"",
            "range = \"10.0.0.5-10.0.0.9\"\ninterface = \"eth1\"",
            10,
            "`eth1` is no interface of the LAN",
        ),
        (
            "lan = [\"eth0\", \"eth1\"]",
            "range = \"10.0.0.5-10.0.0.9\"",
            8,
            "several interfaces: eth0, eth1",
        ),
        (
            "lan = \"eth0\"",
            "range = \"10.0.0.5-10.0.0.9\"\nreservations = { \"3c:22\" = \"10.0.0.5\" }",
            10,
            "no MAC address",
        ),
        (
            "lan = \"eth0\"",
            "range = \"10.0.0.5-10.0.0.9\"\nreservations = { \"ff:ff:ff:ff:ff:ff\" = \"10.0.0.5\" }",
            10,
            "the MAC address of no device",
        ),
        (
            "lan = \"eth0\"",
            "range = \"10.0.0.5-10.0.0.9\"\n[gateway.dhcp.reservations]\n\"3c:22:fb:01:02:03\" = \"10.0.0.5\"\n\
             \"3c:22:fb:01:02:04\" = \"10.0.0.5\"",
            12,
            "10.0.0.5 is reserved twice, for 3c:22:fb:01:02:03 and for 3c:22:fb:01:02:04; keep one",
        ),
        (
            "lan = \"eth0\"",
            "range = \"10.0.0.5-10.0.0.9\"\n[gateway.dhcp.reservations]\n\"3c:22:fb:01:02:03\" = \"10.0.0.5\"\n\
             \"3C-22-FB-01-02-03\" = \"10.0.0.6\"",
            11,
            "3c:22:fb:01:02:03 has two reservations; keep one",
        ),
    ] {
        let text = text(gateway, dhcp);
        let told = parse(&text).unwrap_err();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].starts_with(&format!("t:{line}:")),
            "{told:?}\n{text}"
        );
        assert!(told[0].contains(expected), "{told:?}");
    }
}

#[test]
fn what_is_outside_of_the_networks_that_are_written_down_is_found_at_once() {
    let gateway = "lan = \"eth0\"\nnetworks = [\"192.168.1.0/24\"]";
    for (dhcp, line) in [
        ("range = \"192.168.2.5-192.168.2.9\"", 10),
        ("range = \"192.168.1.5-192.168.2.9\"", 10),
        (
            "range = \"192.168.1.5-192.168.1.9\"\nreservations = { \"3c:22:fb:01:02:03\" = \"10.0.0.5\" }",
            11,
        ),
    ] {
        let told = parse(&text(gateway, dhcp)).unwrap_err();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with(&format!("t:{line}:")), "{told:?}");
        assert!(
            told[0].contains("none of the LAN's networks: 192.168.1.0/24"),
            "{told:?}"
        );
    }
}

#[test]
fn what_does_not_fit_the_machine_is_told_with_its_line() {
    let routers = [Ipv4Addr::new(192, 168, 1, 1)];
    let told = |dhcp: &str, ours: &[&str]| -> Vec<String> {
        let text = text("lan = \"eth0\"", dhcp);
        let ours: Vec<Ipv4Net> = ours.iter().map(|net| net.parse().unwrap()).collect();
        match self::dhcp(&text).fit("t", &text, &ours, &routers) {
            Ok(own) => vec![own.to_string()],
            Err(error) => error.to_string().lines().map(str::to_owned).collect(),
        }
    };
    let range = |range: &str| format!("range = \"{range}\"");
    let ours = ["10.7.0.1/16", "192.168.1.2/24"];
    let good = range("192.168.1.100-192.168.1.199");
    assert_eq!(told(&good, &ours), ["192.168.1.2/24"]);
    for (line, expected) in [
        (
            "172.16.0.5-172.16.0.9",
            "outside of eth0's network 10.7.0.0/16 and 192.168.1.0/24",
        ),
        (
            "192.168.1.250-192.168.2.9",
            "ends outside of the LAN's network 192.168.1.0/24",
        ),
        (
            "192.168.1.2-192.168.1.9",
            "holds 192.168.1.2, which is this machine's own",
        ),
        (
            "10.7.0.0-10.7.0.9",
            "holds 10.7.0.1, which is this machine's own",
        ),
        (
            "192.168.1.200-192.168.1.255",
            "holds 192.168.1.255, which in the network",
        ),
    ] {
        let told = told(&range(line), &ours);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("t:9:9: "), "{told:?}");
        assert!(told[0].contains(expected), "{told:?}");
    }
    let router = told(&range("192.168.1.1-192.168.1.1"), &ours);
    assert!(router[0].contains("which is the router's"), "{router:?}");
    let advised = told(&range("192.168.1.1-192.168.1.99"), &["192.168.1.200/24"]);
    assert!(
        advised[0].contains("choose one without it, such as \"192.168.1.2-192.168.1.99\""),
        "{advised:?}"
    );
    let none = told(&good, &[]);
    assert!(none[0].contains("eth0 has no IPv4 address"), "{none:?}");
    let reservations = "[gateway.dhcp.reservations]\n\"3c:22:fb:01:02:01\" = \"192.168.1.1\"\n\
                        \"3c:22:fb:01:02:02\" = \"192.168.1.2\"\n\"3c:22:fb:01:02:03\" = \"10.0.0.1\"\n\
                        \"3c:22:fb:01:02:04\" = \"192.168.1.0\"\n\"3c:22:fb:01:02:05\" = \"192.168.1.5\"";
    let told = told(&format!("{good}\n{reservations}"), &ours);
    for (at, expected) in ["the router's", "own", "outside", "no device"]
        .iter()
        .enumerate()
    {
        assert!(told[at].starts_with(&format!("t:{}:", 11 + at)), "{told:?}");
        assert!(told[at].contains(expected), "{told:?}");
    }
    assert_eq!(told.len(), 4);
}
