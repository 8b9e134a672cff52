//! Packets that were dropped because something was too slow, too small, or in the way.

use cygnet_daemon::api::EngineStatus;

use crate::facts::Facts;
use crate::report::Check;

/// So few say nothing, whatever the share.
const FEW: u64 = 20;
/// One in so many is no trouble: TCP loses about as many by its own doing.
const SHARE: u64 = 1000;

/// Reasons that something can be done about; the others are a matter of course (what came while the tunnel was down,
/// say), or a matter of another check.
const REASONS: [(&str, &str, &str); 11] = [
    (
        "queue-delay",
        "waited too long to be opened",
        "this machine opens packets more slowly than they come: a suite that its processor is fast with (see `cpu`), or more `workers` in [daemon] where it has processors to spare; `cygnet speedtest` says what the limit is",
    ),
    (
        "send-queue-full",
        "found the queue of the interface full",
        "the uplink is slower than what is sent; a smaller rate, or a queue discipline (`tc qdisc`) that is fair; `cygnet speedtest` says what the limit is",
    ),
    (
        "ike-queue-full",
        "were of IKE, and too many waited",
        "somebody calls very often: the server's log names who, and a firewall can keep them away",
    ),
    (
        "tun-refused",
        "were not taken by the tunnel's interface",
        "is it up? `ip link`; and does a firewall of this machine drop what comes out of it?",
    ),
    (
        "send-forbidden",
        "were forbidden by a firewall of this machine",
        "let UDP 500 and 4500 out: `nft list ruleset` shows the rule",
    ),
    (
        "no-route",
        "had no way to the peer",
        "is the uplink steady? `ip route`, `journalctl -k`",
    ),
    (
        "send-failed",
        "could not be sent",
        "`journalctl -u cygnet -k` may say why",
    ),
    (
        "too-big",
        "were longer than the way takes, and must not be cut",
        "does ICMP reach the devices? see `mtu`",
    ),
    (
        "esp-replayed",
        "had come before",
        "none of them was let in. Where a link is doubled (bonding, a mirrored port), let it carry each packet once; else somebody on the way sends what they recorded: `tcpdump -n udp port 4500` shows from where",
    ),
    (
        "esp-too-old",
        "came so late that nobody can tell whether they had come before",
        "something on the way, such as two uplinks that share the load, changes their order: send a tunnel by one of them, or write a larger `replay_window`",
    ),
    (
        "truncated",
        "were longer than a datagram can be read",
        "who sends them is no peer of ours: `tcpdump -n udp port 4500`",
    ),
];

pub(super) fn drops(facts: &Facts) -> Vec<Check> {
    let name = "drops";
    let Some(engine) = facts.status.as_ref().ok().and_then(|s| s.engine.as_ref()) else {
        return vec![Check::unknown(name, "only a running cygnet counts them")];
    };
    let carried = carried(engine).max(facts.machine.passed);
    let is_many = |count: u64| count >= FEW && count.saturating_mul(SHARE) >= carried;
    let mut checks = Vec::new();
    for (reason, what, remedy) in REASONS {
        let counter = engine.drops.iter().find(|drop| drop.name == reason);
        let count = counter.map_or(0, |counter| counter.count);
        if is_many(count) {
            let says = format!("{count} packets {what}, of {carried} that were carried");
            checks.push(Check::wrong(name, says, remedy).of(reason));
        }
    }
    for (port, count) in &facts.machine.overflows {
        if is_many(*count) {
            checks.push(
                Check::wrong(
                    name,
                    format!("{count} datagrams found no room in the socket, of {carried} packets that were carried"),
                    "the program was not given the processor in time: what else runs here? `top`",
                )
                .of(format!("UDP {port}")),
            );
        }
    }
    if checks.is_empty() {
        checks.push(Check::good(
            name,
            format!("none that matter, beside {carried} packets that were carried"),
        ));
    }
    checks
}

/// Packets of the Child SAs that there are. Those before them are no longer told, and drops are of all of them: on a
/// machine that has run for long, what its interfaces have passed is more.
fn carried(engine: &EngineStatus) -> u64 {
    let sas = engine.connections.iter().flat_map(|c| &c.ike_sas);
    let children = sas.flat_map(|sa| &sa.children);
    children
        .map(|child| child.packets_in.saturating_add(child.packets_out))
        .fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use cygnet_daemon::api::Count;

    use super::super::testing::{expect, found};
    use super::*;

    fn dropped(reason: &'static str, count: u64) -> impl FnOnce(&mut Facts) {
        move |f| {
            let engine = f.status.as_mut().unwrap().engine.as_mut().unwrap();
            engine.drops = vec![Count {
                name: reason.to_owned(),
                count,
            }];
        }
    }

    #[test]
    fn many_drops_of_a_kind_that_can_be_helped() {
        for (reason, what, _) in REASONS {
            // Of a million.
            expect(
                dropped(reason, 1000),
                &format!("Wrong drops {reason}: 1000 packets "),
                &[what],
            );
            assert!(found(dropped(reason, 999)).is_empty());
            let for_years = |f: &mut Facts| {
                dropped(reason, 1000)(f);
                f.machine.passed = 1_000_001;
            };
            assert!(found(for_years).is_empty());
        }
        assert!(found(dropped("no-sa", u64::MAX)).is_empty());
    }

    #[test]
    fn a_handful_is_nothing_even_beside_little() {
        let quiet = |count| {
            move |f: &mut Facts| {
                dropped("no-route", count)(f);
                let engine = f.status.as_mut().unwrap().engine.as_mut().unwrap();
                engine.connections[0].ike_sas[0].children.clear();
            }
        };
        assert!(found(quiet(19)).is_empty());
        expect(
            quiet(20),
            "Wrong drops no-route: 20 packets",
            &["of 0 that"],
        );
    }

    #[test]
    fn a_socket_that_overflowed() {
        let full = |f: &mut Facts| f.machine.overflows = vec![(500, 3), (4500, 2000)];
        expect(full, "Wrong drops UDP 4500: 2000 datagrams", &["`top`"]);
    }
}
