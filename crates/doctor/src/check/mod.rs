//! From facts to verdicts. Nothing here asks anybody: each check is a function of [`Facts`].

mod clock;
mod lan;
mod leak;
mod load;
mod machine;
mod path;
mod program;
mod routing;

use crate::facts::Facts;
use crate::report::Check;

pub(crate) use path::framing_of;

/// Every check, in the order of a report. The names are documented and stay what they are.
pub const NAMES: [&str; 25] = [
    "configuration",
    "program",
    "units",
    "clock",
    "certificates",
    "tunnel",
    "name",
    "route",
    "server",
    "mtu",
    "lan",
    "guard",
    "devices",
    "own-traffic",
    "firewall",
    "forwarding",
    "redirects",
    "reverse-path",
    "egress",
    "dns",
    "ipv6",
    "cpu",
    "kernel",
    "drops",
    "warnings",
];

/// The verdicts of all checks.
pub(crate) fn all(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![
        program::configuration(facts),
        program::program(facts),
        program::units(facts),
        clock::clock(facts),
    ];
    checks.extend(clock::certificates(facts));
    checks.extend(program::tunnels(facts));
    checks.extend(path::servers(facts));
    checks.extend(lan::legs(facts));
    checks.extend(routing::guard(facts));
    checks.extend(routing::devices(facts));
    checks.extend(routing::on_failure(facts));
    checks.extend(routing::own_traffic(facts));
    checks.extend(routing::firewalls(facts));
    checks.extend(routing::forwarding(facts));
    checks.extend(routing::redirects(facts));
    checks.extend(routing::reverse_path(facts));
    checks.extend(leak::egress(facts));
    checks.extend(leak::dns(facts));
    checks.extend(leak::ipv6(facts));
    checks.extend(machine::cpu(facts));
    checks.extend(machine::kernel(facts));
    checks.extend(load::drops(facts));
    let warnings = program::warnings(facts, &checks);
    checks.extend(warnings);
    checks
}

#[cfg(test)]
pub(crate) mod testing {
    use crate::facts::{Facts, healthy};
    use crate::report::{Check, State};

    /// What is not good after `change`, of a gateway with nothing wrong: state, name, subject, text and remedy in a line.
    pub(crate) fn found(change: impl FnOnce(&mut Facts)) -> Vec<String> {
        let mut facts = healthy();
        change(&mut facts);
        let bad = |check: Check| match check.state {
            State::Good => None,
            state => Some(format!(
                "{state:?} {} {}: {} -> {}",
                check.name,
                check.subject.unwrap_or_default(),
                check.says,
                check.remedy.unwrap_or_default()
            )),
        };
        super::all(&facts).into_iter().filter_map(bad).collect()
    }

    /// Fails unless `change` brings what begins and goes on like this, and nothing else.
    pub(crate) fn expect(change: impl FnOnce(&mut Facts), begins: &str, parts: &[&str]) {
        let found = found(change);
        assert_eq!(found.len(), 1, "{begins}: {found:#?}");
        assert!(found[0].starts_with(begins), "{found:#?}");
        for part in parts {
            assert!(found[0].contains(part), "{part}: {found:#?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::healthy;
    use crate::report::State;

    #[test]
    fn a_healthy_gateway_is_all_good() {
        let checks = all(&healthy());
        assert!(checks.iter().all(|c| c.state == State::Good), "{checks:#?}");
        // Of the rest there is nothing to say: no URL was given, and nothing warns.
        let absent = ["egress", "warnings"];
        for name in NAMES.iter().filter(|name| !absent.contains(name)) {
            assert!(checks.iter().any(|c| c.name == *name), "{name}");
        }
    }

    #[test]
    fn each_name_is_documented() {
        let documented = include_str!("../../../../docs/doctor.md");
        for name in NAMES {
            assert!(documented.contains(&format!("\n| `{name}` |")), "{name}");
        }
    }

    #[test]
    fn what_is_wrong_has_a_remedy_and_a_known_name_whatever_the_facts() {
        let mut facts = healthy();
        facts.configuration.read = Err("no such file".into());
        facts.status = Err("cannot reach it".into());
        facts.clock.date = Err("not set".into());
        facts.tunnels[0].hosts[0].servers = Err("no answer".into());
        facts.network.guard = Some(Err("nft is missing".into()));
        facts.network.firewalls = Err("nft is missing".into());
        facts.network.settings.clear();
        facts.leaks.resolvers = Err("no such file".into());
        facts.leaks.announced = Err("no netlink".into());
        facts.machine.aes = false;
        for check in all(&facts) {
            assert!(NAMES.contains(&check.name), "{check:?}");
            let told = check.state != State::Wrong || check.remedy.is_some();
            assert!(told && !check.says.is_empty(), "{check:?}");
        }
    }
}
