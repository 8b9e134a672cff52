//! What keeps packets in the tunnel, and what lets them through: guard, firewalls, settings of the kernel.

use cygnet_gateway::{DevicePolicy, Lan};

use crate::facts::Facts;
use crate::report::Check;

pub(super) fn guard(facts: &Facts) -> Option<Check> {
    let name = "guard";
    let gateway = facts.configuration.gateway.as_ref()?;
    let Some(state) = &facts.network.guard else {
        return Some(Check::unknown(
            name,
            "the configuration wants none (`guard = false`): devices of the LAN may pass in clear while the tunnel is down",
        ));
    };
    let on = "`cygnet gateway on` puts it in place, and cygnet-guard.service does so at every boot";
    Some(match state {
        Err(error) => Check::wrong(name, format!("it cannot be seen: {error}"), on),
        Ok(state) if state.is_whole() => {
            let lets_out = facts.network.lan.as_ref().is_some_and(Lan::lets_out);
            let but = match lets_out {
                true => ", but for what is to go direct",
                false => "",
            };
            Check::good(
                name,
                format!(
                    "both layers are in place: devices leave through {gateway} or not at all{but}"
                ),
            )
        }
        Ok(state) if state.absent => {
            Check::wrong(name, "it is off: devices of the LAN may pass in clear", on)
        }
        Ok(state) => {
            let (layer, left) = match state.filter {
                false if state.routing => {
                    ("its nftables table is not", "its routing table still holds")
                }
                true => ("its routing is not", "its nftables table still holds"),
                false => (
                    "neither of its layers is",
                    "devices of the LAN may pass in clear",
                ),
            };
            Check::wrong(
                name,
                format!("{layer} as the configuration wants it; {left}"),
                "`cygnet reload` if the configuration was changed; else something removed it, and `cygnet gateway on` puts it back",
            )
        }
    })
}

/// Who of the LAN goes where. To go direct is no fault, and to be told.
pub(super) fn devices(facts: &Facts) -> Option<Check> {
    let name = "devices";
    let lan = facts.network.lan.as_ref()?;
    if let Err(problem) = &facts.network.policies {
        return Some(Check::wrong(name, problem, "what to do is in the sentence"));
    }
    let of = |policy: DevicePolicy| {
        let named = lan.devices.named.values();
        let count = named.filter(|named| **named == policy).count();
        (count > 0).then(|| format!("{policy} {count}"))
    };
    let named: Vec<String> = DevicePolicy::ALL.into_iter().filter_map(of).collect();
    let mut says = match named.is_empty() {
        true => format!("all are {}", lan.devices.default),
        false => format!(
            "named are {}; all others are {}",
            named.join(", "),
            lan.devices.default
        ),
    };
    match lan.direct_networks.len() {
        0 => {}
        1 => says.push_str("; one network is reached past the tunnel"),
        count => says.push_str(&format!("; {count} networks are reached past the tunnel")),
    }
    if lan.direct_names.listed {
        says.push_str("; some domains are reached past the tunnel");
    }
    let others = lan.through.iter().map(|through| through.tunnel.as_str());
    let others: Vec<&str> = others.collect();
    if !others.is_empty() {
        says.push_str(&format!("; some may go through {}", others.join(", ")));
    }
    let known = |tunnel: &String| lan.through.iter().any(|through| through.tunnel == *tunnel);
    let lost = lan
        .devices
        .through
        .iter()
        .find(|(_, tunnel)| !known(tunnel));
    if let Some((device, tunnel)) = lost {
        return Some(Check::wrong(
            name,
            format!(
                "{device} is to go through tunnel {tunnel}, which the configuration gives to no device: it goes nowhere"
            ),
            format!(
                "`cygnet device forget {device}`, or write a section [gateway.through.{tunnel}]"
            ),
        ));
    }
    Some(Check::good(name, says))
}

/// To be let out is what somebody asked for, and no state to stay in.
pub(super) fn on_failure(facts: &Facts) -> Option<Check> {
    let name = "on_failure";
    let lan = facts.network.lan.as_ref()?;
    let gateway = facts.configuration.gateway.as_ref()?;
    if !lan.on_failure.is_direct() {
        return None;
    }
    let let_out = facts.status.as_ref().is_ok_and(|status| status.let_out);
    Some(match let_out {
        true => Check::wrong(
            name,
            format!(
                "tunnel {gateway} is down, and tunnelled devices go direct, in clear, as `on_failure = \"direct\"` asks for"
            ),
            "why the tunnel is down is told above; to have them offline instead, take `on_failure` out of [gateway] and `cygnet reload`",
        ),
        false => Check::good(
            name,
            format!(
                "while tunnel {gateway} is down, tunnelled devices go direct, in clear; at this moment they do not"
            ),
        ),
    })
}

/// What the machine of a gateway itself sends outside: why `apt` may fail on it.
pub(super) fn own_traffic(facts: &Facts) -> Option<Check> {
    let gateway = facts.configuration.gateway.as_ref()?;
    let lan = facts.network.lan.as_ref()?;
    if matches!(&facts.network.guard, Some(Ok(state)) if state.absent) {
        return None;
    }
    let let_out = facts.status.as_ref().is_ok_and(|status| status.let_out);
    let says = match &lan.own {
        None => "the box itself sends whatever it likes outside, in clear".to_owned(),
        Some(_) if facts.is_up(gateway) => format!(
            "the box itself: IKE, DHCP, NTP and DNS leave beside the tunnel; all else, such as apt, goes through {gateway}"
        ),
        Some(_) if let_out => {
            format!("the box itself goes direct, in clear, as devices do while {gateway} is down")
        }
        Some(_) => {
            let first = match &facts.status {
                Ok(_) => format!("`cygnet up {gateway}`"),
                Err(_) => "start cygnet".to_owned(),
            };
            format!(
                "the box itself: IKE, DHCP, NTP and DNS leave; all else, such as apt, is refused while {gateway} is down: \
                 {first} first, or own_traffic = \"all\" in [gateway], which lets it out in clear"
            )
        }
    };
    Some(Check::good("own-traffic", says))
}

pub(super) fn firewalls(facts: &Facts) -> Vec<Check> {
    let name = "firewall";
    // What is ours, and may be in somebody's way, is not known then.
    if facts.configuration.read.is_err() {
        return Vec::new();
    }
    match &facts.network.firewalls {
        Err(error) => vec![Check::unknown(
            name,
            format!("other firewalls cannot be seen: {error}"),
        )],
        Ok(found) if found.is_empty() => vec![Check::good(
            name,
            "no firewall of another program on this machine is in the way",
        )],
        Ok(found) => {
            let wrong =
                |told: &String| Check::wrong(name, told, "the commands are in the sentence");
            found.iter().map(wrong).collect()
        }
    }
}

/// The rest is set by the running program, and taken back when it ends.
fn while_it_runs(facts: &Facts, name: &'static str) -> Option<Check> {
    let not_now = || {
        Check::unknown(
            name,
            "cygnet sets this while it runs, and takes it back when it ends",
        )
    };
    facts.status.is_err().then(not_now)
}

fn setting<'a>(facts: &'a Facts, path: &str) -> Option<&'a str> {
    facts.network.settings.get(path).map(String::as_str)
}

/// What `sysctl` calls a path.
fn key(path: &str) -> String {
    // An interface's name may have a dot, which is a slash there.
    let parts = path.split('/').map(|part| part.replace('.', "/"));
    parts.collect::<Vec<_>>().join(".")
}

fn set(paths: &[String], value: &str) -> String {
    let all: Vec<String> = paths
        .iter()
        .map(|path| format!("{}={value}", key(path)))
        .collect();
    format!(
        "`sysctl -w {}`; what sets it otherwise is in /etc/sysctl.d, or another program's",
        all.join(" ")
    )
}

pub(super) fn forwarding(facts: &Facts) -> Option<Check> {
    let name = "forwarding";
    if !facts.configuration.is_router() {
        return None;
    }
    if let Some(check) = while_it_runs(facts, name) {
        return Some(check);
    }
    let interfaces =
        || std::iter::once("all").chain(facts.configuration.lan.iter().map(String::as_str));
    let paths = ["ipv4", "ipv6"].into_iter().flat_map(|family| {
        interfaces().map(move |interface| format!("net/{family}/conf/{interface}/forwarding"))
    });
    let off: Vec<String> = paths
        .filter(|path| setting(facts, path) == Some("0"))
        .collect();
    Some(if off.is_empty() {
        Check::good(name, "packets are forwarded")
    } else {
        Check::wrong(
            name,
            format!("packets are not forwarded: {} = 0", off.join(", ")),
            set(&off, "1"),
        )
    })
}

pub(super) fn redirects(facts: &Facts) -> Vec<Check> {
    let name = "redirects";
    let lan = &facts.configuration.lan;
    if lan.is_empty() {
        return Vec::new();
    }
    if let Some(check) = while_it_runs(facts, name) {
        return vec![check];
    }
    let is_on = |interface: &str, what: &str| {
        let path = format!("net/ipv4/conf/{interface}/{what}");
        (setting(facts, &path) == Some("1")).then_some(path)
    };
    let mut checks = Vec::new();
    for interface in lan {
        // One of the two suffices for these.
        let sent = ["all", interface.as_str()].map(|of| is_on(of, "send_redirects"));
        let sent: Vec<String> = sent.into_iter().flatten().collect();
        if !sent.is_empty() {
            let check = Check::wrong(
                name,
                "ICMP redirects are on: devices may be told to go straight to the router, past the tunnel",
                set(&sent, "0"),
            );
            checks.push(check.of(interface));
        }
        let path = format!("net/ipv6/conf/{interface}/accept_redirects");
        if setting(facts, &path) == Some("1") {
            let check = Check::wrong(
                name,
                "this machine lets anybody in the LAN redirect its IPv6 (accept_redirects)",
                set(&[path], "0"),
            );
            checks.push(check.of(interface));
        }
        // And both are needed for these, on a machine that forwards.
        let taken = ["all", interface.as_str()].map(|of| is_on(of, "accept_redirects"));
        if let [Some(all), Some(one)] = taken {
            let check = Check::wrong(
                name,
                "this machine lets anybody in the LAN redirect it (accept_redirects)",
                set(&[all, one], "0"),
            );
            checks.push(check.of(interface));
        }
    }
    if checks.is_empty() {
        checks.push(Check::good(
            name,
            "no device is told of a way past this machine",
        ));
    }
    checks
}

pub(super) fn reverse_path(facts: &Facts) -> Vec<Check> {
    let name = "reverse-path";
    let interfaces = &facts.configuration.interfaces;
    if interfaces.is_empty() {
        return Vec::new();
    }
    if let Some(check) = while_it_runs(facts, name) {
        return vec![check];
    }
    // The higher of the two counts: 1 is strict, 2 is loose.
    let value = |interface: &str| {
        let of = |of: &str| setting(facts, &format!("net/ipv4/conf/{of}/rp_filter"));
        of(interface).max(of("all"))
    };
    let strict = |interface: &&String| value(interface) == Some("1");
    let checks: Vec<Check> = interfaces
        .iter()
        .filter(strict)
        .map(|interface| {
            let path = format!("net/ipv4/conf/{interface}/rp_filter");
            Check::wrong(
                name,
                "a strict reverse-path filter drops what comes out of the tunnel and whose way back is another",
                set(&[path], "2"),
            )
            .of(interface)
        })
        .collect();
    match checks.is_empty() {
        false => checks,
        true => vec![Check::good(name, "no filter is too strict for a tunnel")],
    }
}

#[cfg(test)]
mod tests {
    use cygnet_gateway::OwnNeeds;
    use cygnet_linux::GuardState;

    use super::super::testing::{expect, found};
    use super::*;
    use crate::facts::healthy;
    use crate::report::State;

    fn put(path: &'static str, value: &'static str) -> impl FnOnce(&mut Facts) {
        move |f| {
            f.network.settings.insert(path.into(), value.into());
        }
    }

    #[test]
    fn each_layer_of_the_guard_is_missed() {
        for (routing, filter, told) in [
            (
                true,
                false,
                "its nftables table is not as the configuration wants it; its routing table still holds",
            ),
            (
                false,
                true,
                "its routing is not as the configuration wants it; its nftables table still holds",
            ),
            (
                false,
                false,
                "neither of its layers is as the configuration wants it; devices of the LAN may pass in clear",
            ),
        ] {
            let state = GuardState {
                routing,
                filter,
                absent: false,
            };
            let change = |f: &mut Facts| f.network.guard = Some(Ok(state));
            expect(
                change,
                &format!("Wrong guard : {told}"),
                &["`cygnet reload`", "`cygnet gateway on`"],
            );
        }
        let absent = GuardState {
            routing: false,
            filter: false,
            absent: true,
        };
        let off = |f: &mut Facts| f.network.guard = Some(Ok(absent));
        expect(off, "Wrong guard : it is off", &[]);
        expect(
            |f| f.network.guard = None,
            "Unknown guard ",
            &["guard = false"],
        );
        let unseen = |f: &mut Facts| f.network.guard = Some(Err("nft is missing".into()));
        expect(
            unseen,
            "Wrong guard : it cannot be seen: nft is missing",
            &[],
        );
    }

    #[test]
    fn devices_that_go_direct_are_told_and_no_fault() {
        let told = |change: fn(&mut Lan)| {
            let mut facts = healthy();
            change(facts.network.lan.as_mut().unwrap());
            [devices(&facts), guard(&facts)].map(|check| {
                let check = check.unwrap();
                assert_eq!(check.state, State::Good, "{check:?}");
                check.says
            })
        };
        let but = ", but for what is to go direct";
        let [all, guard] = told(|_| {});
        assert_eq!(all, "all are tunnelled");
        assert!(guard.ends_with("through home or not at all"), "{guard}");
        let [sorted, guard] = told(|lan| {
            let named = [
                ("192.168.1.9", DevicePolicy::Direct),
                ("aa:bb:cc:dd:ee:01", DevicePolicy::Direct),
                ("192.168.1.64/26", DevicePolicy::Blocked),
            ];
            let named = named.map(|(device, policy)| (device.parse().unwrap(), policy));
            lan.devices.named = named.into();
        });
        assert_eq!(
            sorted,
            "named are direct 2, blocked 1; all others are tunnelled"
        );
        assert!(guard.ends_with(but), "{guard}");
        let [around, guard] =
            told(|lan| lan.direct_networks = vec!["198.51.100.0/24".parse().unwrap()]);
        assert!(around.ends_with("one network is reached past the tunnel"));
        assert!(guard.ends_with(but), "{guard}");
    }

    #[test]
    fn why_the_box_itself_is_refused_is_told_and_no_fault() {
        let told = |change: &dyn Fn(&mut Facts)| {
            let mut facts = healthy();
            facts.network.lan.as_mut().unwrap().own = Some(OwnNeeds::default());
            change(&mut facts);
            own_traffic(&facts).map(|check| {
                assert_eq!(check.state, State::Good);
                check.says
            })
        };
        let down = |facts: &mut Facts| facts.status = Err("it does not run".to_owned());
        type Case<'c> = (&'c dyn Fn(&mut Facts), &'c str);
        let cases: [Case<'_>; 5] = [
            (&|_| {}, "all else, such as apt, goes through home"),
            (&down, "is refused while home is down: start cygnet first"),
            (
                &|facts| facts.status.as_mut().unwrap().engine = None,
                "is refused while home is down: `cygnet up home` first",
            ),
            (
                &|facts| {
                    let status = facts.status.as_mut().unwrap();
                    (status.engine, status.let_out) = (None, true);
                },
                "goes direct, in clear, as devices do while home is down",
            ),
            (
                &|facts| facts.network.lan.as_mut().unwrap().own = None,
                "whatever it likes",
            ),
        ];
        for (change, part) in cases {
            let says = told(change).unwrap();
            assert!(says.contains(part), "{says}");
        }
        let absent = GuardState {
            routing: false,
            filter: false,
            absent: true,
        };
        let off = |facts: &mut Facts| facts.network.guard = Some(Ok(absent));
        assert_eq!(told(&off), None, "the guard's check says so");
    }

    #[test]
    fn policies_that_are_not_known() {
        let told = "/var/lib/cygnet/devices.json: version 2; remove it, then `cygnet reload`";
        let change = |f: &mut Facts| {
            f.network.policies = Err(told.into());
            // The running program says the same, which is not said twice.
            f.status.as_mut().unwrap().warnings = vec![told.into()];
        };
        expect(change, &format!("Wrong devices : {told}"), &[]);
    }

    #[test]
    fn a_foreign_firewall_brings_its_own_remedy() {
        let told = "ufw drops our packets in inet x; let them through with `ufw allow 500/udp`";
        let change = |f: &mut Facts| f.network.firewalls = Ok(vec![told.into()]);
        expect(change, &format!("Wrong firewall : {told}"), &[]);
    }

    #[test]
    fn settings_and_what_makes_them_good() {
        for (path, value, begins, told) in [
            (
                "net/ipv4/conf/all/forwarding",
                "0",
                "Wrong forwarding : ",
                "`sysctl -w net.ipv4.conf.all.forwarding=1`",
            ),
            (
                "net/ipv6/conf/eth0/forwarding",
                "0",
                "Wrong forwarding : ",
                "net.ipv6.conf.eth0.forwarding=1",
            ),
            (
                "net/ipv4/conf/eth0/send_redirects",
                "1",
                "Wrong redirects eth0: ICMP redirects are on",
                "`sysctl -w net.ipv4.conf.eth0.send_redirects=0`",
            ),
            (
                "net/ipv4/conf/all/send_redirects",
                "1",
                "Wrong redirects eth0: ",
                "net.ipv4.conf.all.send_redirects=0",
            ),
            (
                "net/ipv4/conf/all/accept_redirects",
                "1",
                "Wrong redirects eth0: this machine lets anybody",
                "net.ipv4.conf.eth0.accept_redirects=0",
            ),
            (
                "net/ipv6/conf/eth0/accept_redirects",
                "1",
                "Wrong redirects eth0: this machine lets anybody in the LAN redirect its IPv6",
                "`sysctl -w net.ipv6.conf.eth0.accept_redirects=0`",
            ),
            (
                "net/ipv4/conf/cyg-home/rp_filter",
                "0",
                "Wrong reverse-path cyg-home: ",
                "`sysctl -w net.ipv4.conf.cyg-home.rp_filter=2`",
            ),
        ] {
            expect(put(path, value), begins, &[told]);
        }
        assert_eq!(
            key("net/ipv4/conf/br.10/rp_filter"),
            "net.ipv4.conf.br/10.rp_filter"
        );
    }

    #[test]
    fn of_a_program_that_does_not_run_its_settings_are_not_missed() {
        let found = found(|f| {
            f.status = Err("it does not run".into());
            f.network.settings.clear();
        });
        let unknown = found.iter().filter(|told| told.starts_with("Unknown "));
        // And the program's own counts.
        assert_eq!(unknown.count(), 4, "{found:#?}");
        assert!(found[0].starts_with("Wrong program "));
    }

    #[test]
    fn a_client_forwards_nothing_and_is_asked_for_nothing() {
        let found = found(|f| {
            f.configuration.gateway = None;
            f.configuration.lan.clear();
            f.network.guard = None;
            f.network.lan = None;
            f.network.settings.clear();
        });
        assert!(found.is_empty(), "{found:#?}");
    }
}
