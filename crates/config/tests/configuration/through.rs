//! `[gateway.through.NAME]` and `on_failure`.

use super::{mistakes, parse};
use cygnet_config::GuardSections;
use cygnet_gateway::Way;

const TUNNELS: &str = "[tunnel.home]\nremote = \"a\"\npsk = \"k\"\nvirtual_address = true\n\
                       [tunnel.work]\nremote = \"b\"\npsk = \"k\"\nvirtual_address = true\ninterface = \"work0\"\n\
                       remote_networks = [\"10.0.0.0/8\", \"198.51.100.0/24\"]\n\
                       [tunnel.office]\nremote = \"c\"\npsk = \"k\"\n\
                       local_networks = [\"192.168.1.0/24\"]\nremote_networks = [\"10.30.0.0/16\"]\n\
                       [gateway]\ntunnel = \"home\"\nlan = \"eth0\"\n";

const GOOD: &str = "blocked = \"192.168.1.9\"\non_failure = \"direct\"\ndirect_networks = [\"10.0.0.0/12\"]\n\
                    [gateway.devices]\nlaptop = \"02:00:00:00:00:01\"\n\
                    [gateway.through.work]\ndevices = [\"laptop\", \"192.168.1.7\"]\nnetworks = \"10.20.0.0/16\"\n";

#[test]
fn devices_and_networks_are_given_another_tunnel() {
    let text = format!("{TUNNELS}{GOOD}");
    let config = parse(&text).unwrap();
    let gateway = config.gateway.as_ref().unwrap();
    let devices = &gateway.devices;
    let way = |mac: &str, source: &str| {
        let mac = mac.parse().ok();
        format!("{:?}", devices.policies.way(mac, source.parse().unwrap()))
    };
    assert_eq!(
        way("02:00:00:00:00:01", "192.168.1.9"),
        format!("{:?}", Way::Through("work"))
    );
    assert_eq!(
        way("", "192.168.1.7"),
        format!("{:?}", Way::Through("work"))
    );
    assert_eq!(way("", "192.168.1.9"), format!("{:?}", Way::Blocked));
    assert_eq!(way("", "192.168.1.8"), format!("{:?}", Way::Tunnelled));
    let work = &devices.through["work"];
    assert_eq!(work.interface, "work0");
    assert_eq!(work.networks, ["10.20.0.0/16".parse().unwrap()]);
    assert!(devices.direct_on_failure && devices.lets_out());
    // The guard reads the same without the rest, and lets nobody into that tunnel who was not given it.
    let (read, whole) = GuardSections::read(&text);
    assert!(whole);
    assert_eq!(read.gateway.unwrap().devices, *devices);
    assert!(!read.ways_out.contains(&"work0".to_owned()));
    assert_eq!(read.inside, ["cyg-office"]);
    // A section that gives it to nobody lets it be given by command.
    let empty = parse(&format!("{TUNNELS}[gateway.through.work]\n")).unwrap();
    assert!(
        empty.gateway.unwrap().devices.through["work"]
            .networks
            .is_empty()
    );
    let plain = parse(TUNNELS).unwrap().gateway.unwrap();
    assert!(plain.devices.through.is_empty() && !plain.devices.direct_on_failure);
}

#[test]
fn what_cannot_be_given_is_told_with_what_was_expected() {
    for (section, told) in [
        (
            "[gateway.through.wrok]\n",
            "there is no tunnel `wrok`; expected one of: work",
        ),
        (
            "[gateway.through.server]\n",
            "there is no tunnel `server`; expected one of: work",
        ),
        (
            "[gateway.through.home]\n",
            "`home` is the gateway's tunnel already",
        ),
        (
            "[gateway.through.office]\n",
            "tunnel `office` is one between two networks",
        ),
        (
            "[gateway.through.work]\ndevice = \"192.168.1.7\"\n",
            "unknown key `device`",
        ),
        (
            "[gateway.through.work]\ndevices = \"laptop\"\n",
            "no device is called `laptop`",
        ),
        (
            "direct = \"192.168.1.7\"\n[gateway.through.work]\ndevices = \"192.168.1.7\"\n",
            "`192.168.1.7` is in [gateway.through.work], and in `direct` already; a device has one policy",
        ),
        (
            "tunnelled = \"192.168.1.7\"\n[gateway.through.work]\ndevices = \"192.168.1.7\"\n",
            "`192.168.1.7` is in [gateway.through.work], and in `tunnelled` already",
        ),
        (
            "[gateway.through.other]\ndevices = \"192.168.1.7\"\n[gateway.through.work]\ndevices = \"192.168.1.7\"\n\
             [tunnel.other]\nremote = \"d\"\npsk = \"k\"\nvirtual_address = true\n",
            "`192.168.1.7` is in [gateway.through.work], and in [gateway.through.other] already",
        ),
        (
            "[gateway.through.other]\nnetworks = \"10.1.0.0/16\"\n[gateway.through.work]\nnetworks = \"10.1.0.0/16\"\n\
             [tunnel.other]\nremote = \"d\"\npsk = \"k\"\nvirtual_address = true\n",
            "10.1.0.0/16 is in [gateway.through.other] already",
        ),
        (
            "direct_networks = [\"10.1.2.0/24\"]\n[gateway.through.work]\nnetworks = \"10.1.0.0/16\"\n",
            "`10.1.2.0/24` cannot go direct: it is within 10.1.0.0/16, which goes through `work`",
        ),
        (
            "[gateway.through.work]\nnetworks = \"203.0.113.0/24\"\n",
            "203.0.113.0/24 is not behind tunnel `work`, which reaches 10.0.0.0/8, 198.51.100.0/24",
        ),
        (
            "[gateway.through.work]\nnetworks = \"10.30.0.0/16\"\n",
            "10.30.0.0/16 is behind tunnel `office` already",
        ),
        (
            "[gateway.through.work]\nnetworks = \"0.0.0.0/0\"\n",
            "`0.0.0.0/0` is everything",
        ),
        (
            "[gateway.through.work]\nnetworks = \"10.1.2.3\"\n",
            "has no prefix length",
        ),
        (
            "on_failure = \"open\"\n",
            "`open` says nothing about a tunnel that is down: expected \"blocked\"",
        ),
    ] {
        let seen = mistakes(&format!("{TUNNELS}{section}"));
        assert!(
            seen.len() == 1 && seen[0].contains(told),
            "{section}: {seen:?}"
        );
    }
    let waits = TUNNELS.replacen(
        "virtual_address = true\n",
        "virtual_address = true\nstart = \"traffic\"\n",
        1,
    );
    let seen = mistakes(&format!("{waits}on_failure = \"direct\"\n"));
    assert!(
        seen[0].contains("needs a tunnel that starts by itself: `home` waits for traffic"),
        "{seen:?}"
    );
    assert!(parse(&waits).is_ok());
}

#[test]
fn by_no_mistake_elsewhere_is_a_device_let_into_the_gateways_tunnel_or_out() {
    let device = "02:00:00:00:00:01".parse().unwrap();
    for (broken, through) in [
        // In a key of the section, in another of its devices, and where that is no TOML at all.
        (
            format!("{TUNNELS}{GOOD}").replace("direct_networks", "direct_network"),
            true,
        ),
        (
            format!("{TUNNELS}{GOOD}").replace("192.168.1.9", "192.168.1"),
            true,
        ),
        (format!("{TUNNELS}{GOOD}[gateway.dns"), true),
        (
            format!("{TUNNELS}{GOOD}").replace("through.work", "through.wrok"),
            true,
        ),
    ] {
        let (read, _) = GuardSections::read(&broken);
        let devices = read.gateway.unwrap().devices;
        assert_eq!(
            devices.policies.through(Some(&device)).is_some(),
            through,
            "{broken}"
        );
        let unreadable = broken.contains("wrok");
        assert!(unreadable || !devices.lets_out(), "{broken}");
        assert_eq!(devices.through.len(), 1, "{broken}");
    }
}
