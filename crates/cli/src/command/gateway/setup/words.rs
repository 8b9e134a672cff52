//! What was found, and what will change, in words.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use cygnet_gateway::DevicePolicy;

use super::facts::{Facts, Leg};
use super::wish::Wish;

/// What is to be told beside the wish itself.
pub(super) struct Told<'a> {
    pub(super) config: &'a Path,
    pub(super) facts: &'a Facts,
    pub(super) wish: &'a Wish,
    /// There is a section already, which is changed.
    pub(super) edits: bool,
    /// What differs in the configuration, `-` and `+` lines.
    pub(super) difference: String,
    /// The configuration names a resolver for devices that it did not name.
    pub(super) names_resolver: bool,
    /// DHCP servers that answer on the LAN, or why it is not known.
    pub(super) dhcp_servers: &'a Result<Vec<Ipv4Addr>, String>,
    /// Whether systemd starts it at every boot, or nothing does.
    pub(super) systemd: bool,
    /// The program runs already.
    pub(super) running: bool,
    pub(super) within: Duration,
    /// By the configuration this machine itself sends outside what it needs alone.
    pub(super) own_is_held: bool,
}

/// Interfaces to choose from.
pub(super) fn legs(facts: &Facts) -> String {
    let mut text = "Networks of this machine:\n".to_owned();
    for leg in facts.lans() {
        let addresses: Vec<String> = leg.v4.iter().map(ToString::to_string).collect();
        let uplink = facts.uplink.as_ref();
        let router = match uplink.filter(|uplink| uplink.interface == leg.name) {
            Some(uplink) => match uplink.router {
                Some(router) => format!(", leads to the router {router}"),
                None => ", leads to the internet".to_owned(),
            },
            None => String::new(),
        };
        let cable = if leg.carrier { "" } else { ", no cable" };
        text.push_str(&format!(
            "  {:<10} {}{router}{cable}\n",
            leg.name,
            addresses.join(", ")
        ));
    }
    text
}

/// Devices that were heard of.
pub(super) fn seen(facts: &Facts, lan: &[String]) -> String {
    let legs = lan.iter().filter_map(|name| facts.leg(name));
    let lines: Vec<String> = legs
        .flat_map(|leg| &leg.seen)
        .map(|(mac, address)| format!("  {mac}  {address}\n"))
        .collect();
    match lines.is_empty() {
        true => String::new(),
        false => format!(
            "Devices that this machine has heard of:\n{}",
            lines.concat()
        ),
    }
}

/// `a`, `a and b`, `a, b and c`; nothing is `none`.
pub(super) fn list(items: &[String]) -> String {
    match items {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [before @ .., last] => format!("{} and {last}", before.join(", ")),
    }
}

/// Lines that differ, without what is the same before and behind them.
pub(super) fn difference(before: &str, after: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let same = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let most = a.len().min(b.len()) - same;
    let behind = (a.iter().rev().zip(b.iter().rev()))
        .take(most)
        .take_while(|(a, b)| a == b)
        .count();
    let part = |lines: &[&str], mark: &str| -> String {
        let lines = lines.get(same..lines.len() - behind).unwrap_or_default();
        lines
            .iter()
            .map(|line| format!("      {mark} {line}\n"))
            .collect()
    };
    format!("{}{}", part(&a, "-"), part(&b, "+"))
}

/// All of it.
pub(super) fn plan(told: &Told<'_>) -> String {
    let (wish, facts) = (told.wish, told.facts);
    let legs: Vec<&Leg> = wish.lan.iter().filter_map(|name| facts.leg(name)).collect();
    let networks: Vec<String> = legs
        .iter()
        .flat_map(|leg| leg.networks())
        .map(|net| net.to_string())
        .collect();
    let addresses: Vec<String> = legs
        .iter()
        .filter_map(|leg| leg.v4.first())
        .map(|net| net.addr().to_string())
        .collect();
    let mut text = format!(
        "\nThe LAN: {} with {}; {}.\n{}\nThis is what will change:\n",
        list(&wish.lan),
        list(&networks),
        facts.position(&wish.lan),
        no_internet(wish, facts)
    );
    let mut point = |title: &str, what: &str| text.push_str(&format!("  {title:<14} {what}\n"));
    let config = told.config.display();
    let file = match (told.difference.is_empty(), told.edits) {
        (true, _) => format!("{config} stays as it is"),
        (false, true) => format!("{config}: in [gateway]\n{}", told.difference.trim_end()),
        (false, false) => format!(
            "{config}: a section is added\n{}",
            told.difference.trim_end()
        ),
    };
    point("Configuration", &file);
    point(
        "Devices",
        &format!(
            "what a device sends to this machine{} for elsewhere {}",
            match addresses.is_empty() {
                true => String::new(),
                false => format!(" ({})", list(&addresses)),
            },
            policies(wish)
        ),
    );
    point(
        "Guard",
        "rules that let nothing else out: from now on, while the tunnel is down, while cygnet does not run",
    );
    if told.own_is_held {
        point(
            "This machine",
            "sends IKE, DHCP, NTP and DNS itself, and answers; all else it sends, updates too, goes through the tunnel or is refused",
        );
    }
    point(
        "Forwarding",
        "IPv4 and IPv6 packets are forwarded while cygnet runs",
    );
    if wish.dns {
        point(
            "Names",
            "questions of tunnelled devices are answered here, through the tunnel",
        );
    }
    if let Some(range) = &wish.dhcp {
        point(
            "Addresses",
            &format!("{range} are lent to the LAN, with this machine as router"),
        );
        let resolver = cygnet_daemon::survey::SOME_RESOLVER;
        // A resolver that stands there already is somebody's own choice.
        if told.names_resolver {
            point(
                "",
                &format!(
                    "devices are told the resolver {resolver}, as nobody answers on this machine"
                ),
            );
        }
    }
    if wish.advertise {
        point(
            "IPv6",
            "this machine is advertised to all devices of the LAN as the router to prefer",
        );
    }
    let start = match told.running {
        true => "cygnet reads its configuration again",
        false => "cygnet is started",
    };
    match told.systemd {
        true => point(
            "At boot",
            &format!(
                "{start}; systemd starts cygnet-guard before the network is up, and cygnet behind it, at every boot"
            ),
        ),
        false => point(
            "At boot",
            &format!(
                "there is no systemd here, so nothing is started by itself: let what is here run\n      \
                 `cygnet gateway on --config {config}` before the network is up, and `cygnet run --config {config}`"
            ),
        ),
    }
    text.push_str("\nWhat stays as it is:\n");
    text.push_str(&beside(told, &legs));
    text.push_str(&format!(
        "\nWhen it is in place you are asked whether to keep it. Without a yes within {} s all of it is taken back, also if \
         this\nterminal is lost meanwhile. `cygnet gateway off` takes back what was kept.\n",
        told.within.as_secs()
    ));
    text
}

/// Of a tunnel that is to take devices and does not lead to the internet: a line.
fn no_internet(wish: &Wish, facts: &Facts) -> String {
    let takes_any = wish.default == DevicePolicy::Tunnelled || !wish.tunnelled.is_empty();
    match facts.apart.get(&wish.tunnel).filter(|_| takes_any) {
        Some(reached) => {
            let reached: Vec<String> = reached.iter().map(ToString::to_string).collect();
            format!(
                "\nWARNING: tunnel {} reaches {} alone; devices have no internet through it.\n",
                wish.tunnel,
                list(&reached)
            )
        }
        None => String::new(),
    }
}

fn policies(wish: &Wish) -> String {
    let mut parts = vec![match wish.default {
        DevicePolicy::Tunnelled => format!("goes through the tunnel {}, or nowhere", wish.tunnel),
        DevicePolicy::Direct => "goes beside the tunnel, in clear".to_owned(),
        DevicePolicy::Blocked => "goes nowhere".to_owned(),
    }];
    for (devices, what) in [
        (&wish.tunnelled, "through the tunnel, or nowhere"),
        (&wish.direct, "beside it, in clear"),
        (&wish.blocked, "nowhere"),
    ] {
        if !devices.is_empty() {
            parts.push(format!("that of {} {what}", list(devices)));
        }
    }
    parts.join("; ")
}

fn beside(told: &Told<'_>, legs: &[&Leg]) -> String {
    let mut lines = Vec::new();
    lines.push(match told.dhcp_servers {
        Ok(servers) if servers.is_empty() => {
            "No DHCP server answers on the LAN.".to_owned()
        }
        Ok(servers) => {
            let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
            let verb = if servers.len() == 1 { "lends" } else { "lend" };
            match told.wish.dhcp {
                Some(_) => format!(
                    "The DHCP server {} {verb} addresses: beside it this machine lends none. Switch it off.",
                    list(&servers)
                ),
                None => format!("The DHCP server {} {verb} addresses.", list(&servers)),
            }
        }
        Err(why) => format!("Whether a DHCP server answers on the LAN is not known: {why}."),
    });
    let announced: Vec<String> = (told.facts.announced.iter())
        .filter(|name| told.wish.lan.contains(name))
        .cloned()
        .collect();
    let preferred = told.wish.advertise || told.wish.dhcp.is_some();
    if !announced.is_empty() {
        let router = format!("router announces itself on {} for IPv6", list(&announced));
        lines.push(match preferred {
            true => format!(
                "Another {router}: devices that heed no preference, and all while this machine is off, send it their IPv6, past \
                 this machine, until it stops."
            ),
            false => format!(
                "WARNING: a {router}, and IPv6 DOES NOT GO THROUGH THE TUNNEL: devices send it to that router, past this machine \
                 and its guard. Switch IPv6 off in that router, or have this machine advertised (--advertise yes)."
            ),
        });
    } else if !preferred && legs.iter().any(|leg| told.facts.has_ipv6(leg)) {
        lines.push(
            "If a router announces itself on the LAN for IPv6, devices send it their IPv6, PAST THIS MACHINE: switch that off \
             there, or have this machine advertised (--advertise yes)."
                .to_owned(),
        );
    }
    for leg in legs.iter().filter(|leg| leg.lent) {
        let todo = match told.wish.dhcp {
            Some(_) => {
                "set a fixed one on this machine first, as the router's DHCP server has to be off"
            }
            None => "give it a fixed one, or reserve it in the router",
        };
        lines.push(format!(
            "This machine's address on {} is lent to it: {todo}.",
            leg.name
        ));
    }
    if told.wish.dhcp.is_none() {
        lines.push(
            "Devices use the router they have been told of, until they are told of this one: `cygnet gateway guide`.".to_owned(),
        );
    }
    lines.iter().map(|line| format!("  {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::facts::tests::{facts, leg};
    use super::*;

    fn wish() -> Wish {
        Wish {
            tunnel: "home".into(),
            lan: vec!["eth0".into()],
            default: DevicePolicy::Tunnelled,
            tunnelled: Vec::new(),
            direct: vec!["192.168.1.9".into()],
            blocked: Vec::new(),
            dns: false,
            dhcp: None,
            advertise: false,
        }
    }

    fn words(wish: &Wish, servers: &Result<Vec<Ipv4Addr>, String>, systemd: bool) -> String {
        let mut facts = facts(vec![leg("eth0", "192.168.1.2/24")]);
        facts.announced = vec!["eth0".into()];
        let reached = ["10.2.0.0/24", "10.3.0.0/24"].iter();
        let reached = reached.map(|net| net.parse().unwrap()).collect();
        facts.apart.insert("branch".into(), reached);
        plan(&Told {
            config: Path::new("/etc/cygnet/cygnet.toml"),
            facts: &facts,
            wish,
            edits: false,
            difference: difference("a\nb\n", "a\nb\n[gateway]\nlan = \"eth0\"\n"),
            names_resolver: wish.dhcp.is_some() && !wish.dns,
            dhcp_servers: servers,
            systemd,
            running: false,
            within: Duration::from_secs(60),
            own_is_held: true,
        })
    }

    #[test]
    fn everything_that_changes_is_told() {
        let text = words(&wish(), &Ok(vec![[192, 168, 1, 1].into()]), true);
        for part in [
            "The LAN: eth0 with 192.168.1.0/24; one leg: eth0 leads to the router 192.168.1.1 as well.",
            "cygnet.toml: a section is added\n      + [gateway]\n      + lan = \"eth0\"\n",
            "through the tunnel home, or nowhere; that of 192.168.1.9 beside it, in clear",
            "cygnet is started; systemd starts cygnet-guard before the network is up",
            "The DHCP server 192.168.1.1 lends addresses.",
            "WARNING: a router announces itself on eth0 for IPv6, and IPv6 DOES NOT GO THROUGH THE TUNNEL",
            "within 60 s",
            "updates too, goes through the tunnel or is refused",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        let advertised = Wish {
            advertise: true,
            ..wish()
        };
        let text = words(&advertised, &Ok(Vec::new()), true);
        for part in [
            "is advertised to all devices of the LAN as the router to prefer",
            "Another router announces itself on eth0 for IPv6: devices that heed no preference",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        assert!(!text.contains("WARNING"), "{text}");
        let lending = Wish {
            dhcp: Some("192.168.1.100-192.168.1.199".into()),
            dns: true,
            ..wish()
        };
        let text = words(&lending, &Err("port 68 is in use".into()), false);
        for part in [
            "are lent to the LAN",
            "is not known: port 68 is in use.",
            "there is no systemd here",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        assert!(!text.contains("until they are told"), "{text}");
        let told = "devices are told the resolver 9.9.9.9, as nobody answers on this machine";
        assert!(!text.contains(told), "{text}");
        let unanswered = Wish {
            dns: false,
            ..lending
        };
        let text = words(&unanswered, &Ok(Vec::new()), true);
        assert!(text.contains(told), "{text}");
    }

    #[test]
    fn a_tunnel_without_internet_is_warned_of() {
        let told = |wish: &Wish| words(wish, &Ok(Vec::new()), true);
        let warning = "\nWARNING: tunnel branch reaches 10.2.0.0/24 and 10.3.0.0/24 alone; \
                       devices have no internet through it.\n";
        let branch = Wish {
            tunnel: "branch".into(),
            ..wish()
        };
        assert!(told(&branch).contains(warning), "{}", told(&branch));
        assert!(!told(&wish()).contains("no internet"), "{}", told(&wish()));
        let nobody = Wish {
            default: DevicePolicy::Direct,
            ..branch
        };
        assert!(!told(&nobody).contains(warning), "{}", told(&nobody));
    }

    #[test]
    fn only_what_differs_is_shown() {
        assert_eq!(
            difference("a\nb\nc\n", "a\nx\ny\nc\n"),
            "      - b\n      + x\n      + y\n"
        );
        assert_eq!(difference("a\na\n", "a\na\na\n"), "      + a\n");
        assert_eq!(difference("a\n", "a\n"), "");
        assert_eq!(difference("", "a\n"), "      + a\n");
    }

    #[test]
    fn a_list_reads_as_one() {
        let items = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(list(&items), "a, b and c");
        assert_eq!(list(&items[..2]), "a and b");
        assert_eq!(list(&[]), "none");
    }
}
