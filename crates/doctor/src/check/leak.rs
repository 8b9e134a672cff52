//! What may go past a tunnel: seen at a web host, by the resolvers, by IPv6 of somebody else.

use std::net::IpAddr;

use cygnet_gateway::DevicePolicy;
use cygnet_linux::foreign;

use crate::facts::{Egress, Facts, Lends, Resolver};
use crate::report::Check;

pub(super) fn egress(facts: &Facts) -> Vec<Check> {
    facts.leaks.egress.iter().map(seen).collect()
}

fn seen(egress: &Egress) -> Check {
    let name = "egress";
    let family = if egress.ipv6 { "IPv6" } else { "IPv4" };
    let subject = format!("{} ({family})", egress.tunnel);
    let through = match &egress.through {
        Ok(seen) => seen,
        Err(error) => {
            let check = Check::wrong(
                name,
                format!("through the tunnel a web host does not answer: {error}"),
                "is the tunnel up, and does its server translate and forward? on the server: `cygnet doctor`",
            );
            return check.of(subject);
        }
    };
    let around = egress.around.as_ref().ok().and_then(|seen| seen.address);
    let check = match (through.address, around) {
        (None, _) => Check::unknown(name, "the web host answers, and not with an address"),
        (Some(through), Some(around)) if through == around => Check::wrong(
            name,
            format!("through the tunnel and around it a web host sees the same address, {through}"),
            "does the tunnel's server stand behind the same connection? if not, what is sent into the tunnel comes out here: `ip rule`, `ip route show table all`",
        ),
        (Some(through), Some(around)) => Check::good(
            name,
            format!("a web host sees {through} through the tunnel, and {around} around it"),
        ),
        (Some(through), None) => Check::good(
            name,
            format!("a web host sees {through} through the tunnel, and nothing of us around it"),
        ),
    };
    check.of(subject)
}

pub(super) fn dns(facts: &Facts) -> Vec<Check> {
    let name = "dns";
    if let Some(check) = answered_nowhere(facts) {
        return vec![check];
    }
    let judge: fn(&Facts, &Resolver) -> Option<Check> = match who(facts) {
        Who::Nobody => return Vec::new(),
        Who::Itself(Err(down)) => return vec![Check::unknown(name, down)],
        Who::Lan => match &facts.configuration.lends {
            Some(lends) => return vec![told_with_an_address(facts, lends)],
            None => asked_in_the_lan,
        },
        Who::Itself(Ok(())) => asked_past_the_tunnel,
    };
    let resolvers = match &facts.leaks.resolvers {
        Ok(resolvers) => resolvers,
        Err(error) => return vec![Check::unknown(name, error)],
    };
    let is_ours =
        |resolver: &&Resolver| is_own(facts, &resolver.address) || resolver.address.is_loopback();
    let others = resolvers.iter().filter(|resolver| !is_ours(resolver));
    let checks: Vec<Check> = others.filter_map(|other| judge(facts, other)).collect();
    if !checks.is_empty() {
        return checks;
    }
    if facts.configuration.answers {
        return vec![Check::good(
            name,
            "tunnelled devices are answered by this machine, through the tunnel, whomever they ask",
        )];
    }
    let all = listed(resolvers.iter().map(|resolver| &resolver.address));
    vec![match resolvers.iter().any(|resolver| is_ours(&resolver)) {
        true => Check::unknown(
            name,
            format!(
                "this machine asks a resolver of its own ({all}): whom that one asks is not seen here"
            ),
        ),
        false => Check::good(name, format!("resolvers ({all}) are beyond the tunnel")),
    }]
}

/// What keeps this machine from answering any device, if it is to.
fn answered_nowhere(facts: &Facts) -> Option<Check> {
    let name = "dns";
    let status = facts.status.as_ref().ok()?;
    let dns = status
        .dns
        .as_ref()
        .filter(|_| facts.configuration.answers)?;
    if dns.addresses.is_empty() {
        let mut warnings = status.warnings.iter();
        let trouble = warnings.find(|warning| warning.starts_with("[gateway.dns] cannot answer"));
        return Some(match trouble {
            Some(trouble) => Check::wrong(name, trouble, "what to do is in the sentence"),
            None => Check::wrong(
                name,
                "devices are answered nowhere: this machine has no address on the LAN",
                "what the interface of the LAN lacks is in the line `lan`",
            ),
        });
    }
    let mut firewalls = facts.network.firewalls.iter().flatten();
    let dropped = firewalls.any(|told| told.contains(foreign::QUESTIONS));
    dropped.then(|| {
        Check::wrong(
            name,
            "what devices ask this machine does not reach it: a firewall here drops it",
            "the command is in the line `firewall`",
        )
    })
}

/// Whose traffic is to stay in a tunnel.
enum Who {
    /// Nobody's: nothing of this is a leak.
    Nobody,
    /// That of devices of the LAN.
    Lan,
    /// This machine's own; the error is why it is not in the tunnel now.
    Itself(Result<(), String>),
}

fn who(facts: &Facts) -> Who {
    if facts.configuration.gateway.is_some() {
        let lan = facts.network.lan.as_ref();
        // Those that go direct, and those that are blocked, leak nothing.
        let tunnelled = lan.is_none_or(|lan| lan.devices.any(DevicePolicy::Tunnelled));
        return if tunnelled { Who::Lan } else { Who::Nobody };
    }
    let own = &facts.leaks.own;
    if own.is_empty() {
        return Who::Nobody;
    }
    Who::Itself(match own.iter().any(|own| facts.is_up(&own.tunnel)) {
        true => Ok(()),
        false => Err(
            "while the tunnel is down this machine's own traffic goes past it, names included"
                .to_owned(),
        ),
    })
}

fn listed<'a>(addresses: impl Iterator<Item = &'a IpAddr>) -> String {
    let all: Vec<String> = addresses.map(ToString::to_string).collect();
    all.join(", ")
}

fn is_own(facts: &Facts, address: &IpAddr) -> bool {
    let mut local = facts.leaks.local.iter();
    local.any(|net| net.addr() == *address)
}

fn is_in_the_lan(facts: &Facts, address: &IpAddr) -> bool {
    let link_local = cygnet_gateway::is_link_local(*address);
    let mut networks = facts.network.lan.iter().flat_map(|lan| &lan.networks);
    link_local || networks.any(|net| net.contains(address))
}

/// Devices that are lent an address ask whom they are told to.
fn told_with_an_address(facts: &Facts, lends: &Lends) -> Check {
    let name = "dns";
    let answers = facts.configuration.answers;
    let told = lends.resolvers.iter().flatten();
    let (own, others): (Vec<&IpAddr>, Vec<&IpAddr>) = told.partition(|it| is_own(facts, it));
    if let Some(near) = others.iter().find(|it| is_in_the_lan(facts, it)) {
        return Check::wrong(
            name,
            format!(
                "devices are told to ask {near}, which is in the LAN: tunnelled ones ask it past the tunnel, and it asks on in clear"
            ),
            match answers {
                true => {
                    "take it out of `dns` in [gateway.dhcp]; without `dns` devices are told this machine, which answers".to_owned()
                }
                false => format!("name {} in `dns` of [gateway.dhcp] in its place", better(facts)),
            },
        );
    }
    let this_machine = lends.resolvers.is_none() || !own.is_empty();
    if !this_machine && others.is_empty() {
        return Check::unknown(
            name,
            "devices are told no resolver, as `dns = []` in [gateway.dhcp] says: whom they ask is not seen here",
        );
    }
    match this_machine {
        true if answers => Check::good(
            name,
            "devices are told to ask this machine, which asks through the tunnel for them",
        ),
        true if facts.leaks.answerer => Check::unknown(
            name,
            "devices are told to ask this machine, where another program answers: whom that one asks is not seen here",
        ),
        true => Check::wrong(
            name,
            "devices are told to ask this machine for names, and nothing answers there",
            format!(
                "add a section [gateway.dns], or `dns = [\"{}\"]` in [gateway.dhcp], and `cygnet reload`",
                better(facts)
            ),
        ),
        false => Check::good(
            name,
            format!(
                "devices are told to ask {}, beyond the tunnel",
                listed(others.into_iter())
            ),
        ),
    }
}

/// A device of the LAN that asks the same resolver asks it directly.
fn asked_in_the_lan(facts: &Facts, Resolver { address, .. }: &Resolver) -> Option<Check> {
    if !is_in_the_lan(facts, address) {
        return None;
    }
    if facts.configuration.answers {
        let unknown = Check::unknown(
            "dns",
            format!(
                "this machine answers tunnelled devices through the tunnel, but not those that ask {address}, which is in the LAN: whether they were told to is not seen here"
            ),
        );
        return Some(unknown.try_this(
            "name this machine, and nobody else, as resolver in the router's DHCP settings, or on each device",
        ));
    }
    let better = better(facts);
    Some(Check::wrong(
        "dns",
        format!(
            "this machine was told to ask {address}, which is in the LAN: a tunnelled device that was told the same asks it past the tunnel, and it asks on in clear"
        ),
        format!(
            "name {better} as resolver in the router's DHCP settings, or on each device, and here in /etc/resolv.conf"
        ),
    ))
}

/// What this machine itself asks is to go into its tunnel.
fn asked_past_the_tunnel(facts: &Facts, resolver: &Resolver) -> Option<Check> {
    let Resolver { address, leaves } = resolver;
    let leaves = leaves.as_ref()?;
    let own = &facts.leaks.own;
    if own.iter().any(|own| own.interface == *leaves) {
        return None;
    }
    let better = better(facts);
    let interface = own.first().map_or("INTERFACE", |own| &own.interface);
    Some(Check::wrong(
        "dns",
        format!("this machine asks {address} by {leaves}: its queries go past the tunnel"),
        format!("name {better} in /etc/resolv.conf, or `resolvectl dns {interface} {better}`"),
    ))
}

/// A resolver that is reached through the tunnel: what its server handed out, if it did.
fn better(facts: &Facts) -> String {
    let wanted = facts.configuration.gateway.as_ref();
    let mut sas = facts
        .connections()
        .filter(|c| wanted.is_none_or(|name| c.name == *name))
        .flat_map(|c| &c.ike_sas);
    let dns = sas.find_map(|sa| sa.dns.first());
    dns.map_or_else(|| "9.9.9.9".to_owned(), ToString::to_string)
}

pub(super) fn ipv6(facts: &Facts) -> Vec<Check> {
    let name = "ipv6";
    match who(facts) {
        Who::Nobody => Vec::new(),
        Who::Itself(Err(down)) => vec![Check::unknown(name, down)],
        Who::Itself(Ok(())) => vec![own_ipv6(facts)],
        Who::Lan => ipv6_of_the_lan(facts),
    }
}

fn own_ipv6(facts: &Facts) -> Check {
    let name = "ipv6";
    let own = &facts.leaks.own;
    match &facts.leaks.ipv6 {
        None => Check::good(name, "none of this machine's IPv6 leaves it"),
        Some(leaves) if own.iter().any(|own| own.interface == *leaves) => {
            Check::good(name, format!("this machine's IPv6 leaves by {leaves}"))
        }
        Some(leaves) => {
            let tunnel = own.first().map_or("NAME", |own| &own.tunnel);
            Check::wrong(
                name,
                format!("this machine's IPv6 leaves by {leaves}, past the tunnel"),
                format!(
                    "add \"::/0\" to `remote_networks` in [tunnel.{tunnel}]: then it goes into the tunnel, or nowhere where the server lends no IPv6 address"
                ),
            )
        }
    }
}

fn ipv6_of_the_lan(facts: &Facts) -> Vec<Check> {
    let name = "ipv6";
    let announced = match &facts.leaks.announced {
        Ok(announced) => announced,
        Err(error) => return vec![Check::unknown(name, error)],
    };
    let advertises = facts.configuration.advertises;
    let says = match advertises {
        true => {
            "a router announces IPv6 in the LAN beside this machine: tunnelled devices that heed no preference, and all while this machine is off, have a way to the internet that goes past it"
        }
        false => {
            "a router announces IPv6 in the LAN: tunnelled devices have a way to the internet that goes past this machine"
        }
    };
    let lan = facts.configuration.lan.iter();
    let checks: Vec<Check> = lan
        .filter(|interface| announced.contains(interface))
        .map(|interface| {
            Check::wrong(
                name,
                says,
                match advertises {
                    true => "switch IPv6 off for the LAN in that router (router advertisements), or on each device",
                    false => "switch IPv6 off for the LAN in that router (router advertisements), or on each device; or let this machine be advertised as the router to prefer: a section [gateway.advertise], and `cygnet reload`",
                },
            )
            .of(interface)
        })
        .collect();
    match checks.is_empty() {
        false => checks,
        true => vec![Check::good(
            name,
            match advertises {
                true => "no router announces IPv6 in the LAN but this machine",
                false => "no router announces IPv6 in the LAN",
            },
        )],
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{expect, found};
    use super::*;
    use crate::facts::Own;
    use crate::probe::web::Seen;

    fn egress(through: Result<&str, &str>, around: Result<&str, &str>) -> Egress {
        let seen = |told: Result<&str, &str>| {
            let seen = |address: &str| Seen {
                address: address.parse().ok(),
                date: None,
            };
            told.map(seen).map_err(str::to_owned)
        };
        Egress {
            tunnel: "home".into(),
            ipv6: false,
            through: seen(through),
            around: seen(around),
        }
    }

    #[test]
    fn where_the_tunnel_comes_out() {
        let put = |egress: Egress| move |f: &mut Facts| f.leaks.egress = vec![egress];
        let (here, there) = (Ok("198.51.100.7"), Ok("203.0.113.5"));
        assert!(found(put(egress(there, here))).is_empty());
        assert!(found(put(egress(there, Err("it cannot be reached")))).is_empty());
        expect(
            put(egress(here, here)),
            "Wrong egress home (IPv4): ",
            &["the same address, 198.51.100.7", "`ip rule`"],
        );
        expect(
            put(egress(Err("nothing came within 5 s"), here)),
            "Wrong egress home (IPv4): ",
            &["does not answer: nothing came"],
        );
        expect(put(egress(Ok("hello"), here)), "Unknown egress ", &[]);
    }

    fn asks(resolver: &'static str, by: &'static str) -> impl FnOnce(&mut Facts) {
        move |f| {
            f.leaks.resolvers = Ok(vec![Resolver {
                address: resolver.parse().unwrap(),
                leaves: Some(by.to_owned()),
            }]);
        }
    }

    #[test]
    fn resolvers_of_a_gateway() {
        for resolver in ["192.168.1.1", "fe80::1"] {
            expect(
                asks(resolver, "eth0"),
                &format!("Wrong dns : this machine was told to ask {resolver}"),
                &["in the LAN", "name 9.9.9.9"],
            );
        }
        for own in ["127.0.0.53", "192.168.1.2"] {
            expect(asks(own, "lo"), "Unknown dns : ", &[own]);
        }
        assert!(found(asks("10.99.0.1", "eth0")).is_empty());
        expect(
            |f| f.leaks.resolvers = Err("no such file".into()),
            "Unknown dns : no such file",
            &[],
        );
    }

    #[test]
    fn a_gateway_that_answers_is_not_judged_by_whom_it_asks_itself() {
        let answers = |change: fn(&mut Facts)| {
            move |f: &mut Facts| {
                f.configuration.answers = true;
                change(f);
            }
        };
        for resolver in ["127.0.0.53", "10.99.0.1"] {
            let asks = asks(resolver, "eth0");
            let told = found(|f| {
                f.configuration.answers = true;
                asks(f);
            });
            assert!(told.is_empty(), "{told:#?}");
        }
        expect(
            answers(|f| asks("192.168.1.1", "eth0")(f)),
            "Unknown dns : ",
            &["not those that ask 192.168.1.1", "name this machine"],
        );
    }

    #[test]
    fn a_gateway_that_answers_nobody_is_named() {
        let answers = |addresses: &'static [&'static str], change: fn(&mut Facts)| {
            move |f: &mut Facts| {
                f.configuration.answers = true;
                let dns = serde_json::json!({
                    "addresses": addresses, "resolvers": ["9.9.9.9"], "tls": null, "reason": null, "process": 3,
                    "restarts": 0, "blocked_names": 0, "queries": 0, "cache_hits": 0, "blocked": 0, "direct": 0,
                    "failures": 0, "dropped": 0,
                });
                f.status.as_mut().unwrap().dns = Some(serde_json::from_value(dns).unwrap());
                change(f);
            }
        };
        assert!(found(answers(&["192.168.1.2"], |_| ())).is_empty());
        expect(
            answers(&[], |_| ()),
            "Wrong dns : devices are answered nowhere",
            &["`lan`"],
        );
        expect(
            answers(&[], |f| {
                let taken =
                    "[gateway.dns] cannot answer at 192.168.1.2: another program has port 53";
                f.status.as_mut().unwrap().warnings = vec![taken.to_owned()];
            }),
            "Wrong dns : [gateway.dns] cannot answer at 192.168.1.2",
            &[],
        );
        let dropped = found(answers(&["192.168.1.2"], |f| {
            let told = format!("ufw drops our packets ({})", foreign::QUESTIONS);
            f.network.firewalls = Ok(vec![told]);
        }));
        assert_eq!(dropped.len(), 2, "{dropped:#?}");
        assert!(
            dropped[1].starts_with("Wrong dns : what devices ask"),
            "{dropped:#?}"
        );
    }

    fn lends(resolvers: Option<&[&str]>) -> impl FnOnce(&mut Facts) {
        let resolvers = resolvers.map(|all| all.iter().map(|it| it.parse().unwrap()).collect());
        move |f| {
            // What this machine asks itself is told to nobody.
            asks("192.168.1.1", "eth0")(f);
            f.configuration.lends = Some(Lends { resolvers });
        }
    }

    #[test]
    fn resolvers_that_devices_are_told_with_their_addresses() {
        assert!(found(lends(Some(&["9.9.9.9", "2620:fe::fe"]))).is_empty());
        for this_machine in [None, Some(&["192.168.1.2"][..])] {
            expect(
                lends(this_machine),
                "Wrong dns : devices are told to ask this machine for names, and nothing answers",
                &["[gateway.dns]", "`dns = [\"9.9.9.9\"]`"],
            );
            let another = found(|f| {
                lends(this_machine)(f);
                f.leaks.answerer = true;
            });
            assert!(another[0].starts_with("Unknown dns : "), "{another:#?}");
            let told = found(|f| {
                lends(this_machine)(f);
                f.configuration.answers = true;
            });
            assert!(told.is_empty(), "{told:#?}");
        }
        let router = || lends(Some(&["9.9.9.9", "192.168.1.1"]));
        expect(
            router(),
            "Wrong dns : devices are told to ask 192.168.1.1",
            &["name 9.9.9.9 in `dns`"],
        );
        let answering = |f: &mut Facts| {
            router()(f);
            f.configuration.answers = true;
        };
        expect(answering, "Wrong dns : ", &["take it out of `dns`"]);
    }

    #[test]
    fn another_router_beside_this_machine_is_one_still() {
        let beside = |f: &mut Facts| {
            f.configuration.advertises = true;
            f.leaks.announced = Ok(vec!["eth0".to_owned()]);
        };
        expect(
            beside,
            "Wrong ipv6 eth0: ",
            &["heed no preference", "switch IPv6 off"],
        );
        expect(
            |f| f.leaks.announced = Ok(vec!["eth0".to_owned()]),
            "Wrong ipv6 eth0: a router announces IPv6 in the LAN: tunnelled devices have a way",
            &["past this machine", "[gateway.advertise]"],
        );
    }

    #[test]
    fn where_nobody_is_tunnelled_nothing_leaks() {
        let all_are = |policy, named: &[(&str, DevicePolicy)]| {
            let named = named.iter();
            let named = named.map(|(device, policy)| (device.parse().unwrap(), *policy));
            let named = named.collect();
            move |f: &mut Facts| {
                let lan = f.network.lan.as_mut().unwrap();
                lan.devices.default = policy;
                lan.devices.named = named;
                f.leaks.announced = Ok(vec!["eth0".to_owned()]);
                asks("192.168.1.1", "eth0")(f);
            }
        };
        assert!(found(all_are(DevicePolicy::Direct, &[])).is_empty());
        let blocked = [("192.168.1.9", DevicePolicy::Blocked)];
        assert!(found(all_are(DevicePolicy::Direct, &blocked)).is_empty());
        let tunnelled = [("192.168.1.9", DevicePolicy::Tunnelled)];
        let told = found(all_are(DevicePolicy::Direct, &tunnelled));
        assert!(told[0].starts_with("Wrong dns : "), "{told:#?}");
        assert!(told[1].starts_with("Wrong ipv6 eth0: "), "{told:#?}");
    }

    /// No gateway; its own traffic is in these tunnels' interfaces.
    fn client(
        own: &'static [&'static str],
        change: impl FnOnce(&mut Facts),
    ) -> impl FnOnce(&mut Facts) {
        move |f: &mut Facts| {
            f.configuration.gateway = None;
            f.configuration.lan.clear();
            f.network.lan = None;
            let own = own.iter().map(|&interface| Own {
                tunnel: "home".into(),
                interface: interface.into(),
            });
            f.leaks.own = own.collect();
            f.leaks.ipv6 = Some("cyg-home".into());
            change(f);
        }
    }

    #[test]
    fn resolvers_of_a_client_and_of_a_server() {
        let own = &["cyg-home"];
        expect(
            client(own, asks("192.168.1.1", "eth0")),
            "Wrong dns : this machine asks 192.168.1.1 by eth0",
            &["`resolvectl dns cyg-home 9.9.9.9`"],
        );
        assert!(found(client(own, asks("10.99.0.1", "cyg-home"))).is_empty());
        assert!(found(client(&[], asks("192.168.1.1", "eth0"))).is_empty());
        let down = found(client(own, |f| {
            let engine = f.status.as_mut().unwrap().engine.as_mut().unwrap();
            engine.connections[0].state = "down".into();
            asks("192.168.1.1", "eth0")(f);
        }));
        assert!(down[0].starts_with("Wrong tunnel home"), "{down:#?}");
        assert!(down[1].starts_with("Unknown dns : while the tunnel is down"));
        assert!(down[2].starts_with("Unknown ipv6 : while the tunnel is down"));
        assert_eq!(down.len(), 3);
    }

    #[test]
    fn ipv6_of_a_client() {
        let leaves = |by: Option<&'static str>| {
            client(&["cyg-home"], move |f: &mut Facts| {
                f.leaks.ipv6 = by.map(str::to_owned);
                asks("10.99.0.1", "cyg-home")(f);
            })
        };
        expect(
            leaves(Some("wlan0")),
            "Wrong ipv6 : this machine's IPv6 leaves by wlan0, past the tunnel",
            &["\"::/0\" to `remote_networks` in [tunnel.home]"],
        );
        assert!(found(leaves(Some("cyg-home"))).is_empty());
        assert!(found(leaves(None)).is_empty());
    }

    #[test]
    fn another_router_in_the_lan() {
        let announced =
            |on: &'static str| move |f: &mut Facts| f.leaks.announced = Ok(vec![on.to_owned()]);
        expect(
            announced("eth0"),
            "Wrong ipv6 eth0: a router announces",
            &["switch IPv6 off"],
        );
        assert!(found(announced("wan0")).is_empty());
    }
}
