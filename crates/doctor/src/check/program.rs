//! The configuration, the program that obeys it, what starts that, and how its tunnels are.

use cygnet_daemon::api::{ConnectionStatus, Status, What};
use cygnet_daemon::survey;

use crate::facts::{Facts, Units};
use crate::report::{Check, State};
use crate::words::minute;

/// In seconds.
const DAY: i64 = 86_400;
/// So many times a day a tunnel does not go down by somebody's doing, or by a provider's nightly one.
const OFTEN: usize = 5;

pub(super) fn configuration(facts: &Facts) -> Check {
    let path = &facts.configuration.path;
    match &facts.configuration.read {
        Ok(summary) => Check::good("configuration", format!("{path} is good: {summary}")),
        Err(_) if !facts.configuration.exists => Check::wrong(
            "configuration",
            format!("there is no {path} yet: this machine is set up for nothing"),
            "with what a provider or a server's operator gave you, `cygnet import FILE`; to make this machine a server, `cygnet server init`; both write it. A configuration elsewhere is named with --config",
        ),
        Err(error) => Check::wrong(
            "configuration",
            error,
            "mend it; `cygnet check` says whether it is good, and what depends on it is not judged here until it is",
        ),
    }
}

pub(super) fn program(facts: &Facts) -> Check {
    let name = "program";
    let status = match &facts.status {
        Ok(status) => status,
        Err(error) => {
            return Check::wrong(
                name,
                format!("cygnet does not run, or does not answer: {error}"),
                "start it with `systemctl start cygnet`, and if it does not stay, `journalctl -u cygnet` says why",
            );
        }
    };
    let path = &facts.configuration.path;
    let obeys = status.config.display().to_string();
    let own = env!("CARGO_PKG_VERSION");
    if status.version != own {
        Check::wrong(
            name,
            format!("version {} runs, and {own} is installed", status.version),
            "`systemctl restart cygnet`",
        )
    } else if obeys != *path {
        Check::wrong(
            name,
            format!("it obeys {obeys}, and {path} was looked at here"),
            format!("`cygnet doctor --config {obeys}`"),
        )
    } else if status.engine.is_none() {
        Check::wrong(
            name,
            "its engine is being started again",
            "look once more in some seconds; `journalctl -u cygnet` says why it ended",
        )
    } else if status.engine_restarts > 0 {
        Check::wrong(
            name,
            format!(
                "its engine ended {} times and was started again",
                status.engine_restarts
            ),
            "`journalctl -u cygnet` says why; that is worth a report of its own",
        )
    } else {
        let hours = status.uptime_s / 3600;
        let minutes = status.uptime_s / 60 % 60;
        Check::good(
            name,
            format!("cygnet {own} has run for {hours} h {minutes} min"),
        )
    }
}

pub(super) fn units(facts: &Facts) -> Check {
    let name = "units";
    let units = match &facts.units {
        Units::NoSystemd => {
            return Check::unknown(name, "systemd does not run here").try_this(
                "whatever starts this machine's programs has to do `cygnet gateway on` before the network is up, and `cygnet run`",
            );
        }
        Units::OtherConfiguration => {
            return Check::unknown(
                name,
                format!(
                    "systemd's units start cygnet with another file than {}",
                    facts.configuration.path
                ),
            );
        }
        Units::Are(units) => units,
    };
    let missing = units.iter().filter(|(_, enabled)| !enabled);
    let missing: Vec<&str> = missing.map(|(unit, _)| *unit).collect();
    if missing.is_empty() {
        let all: Vec<&str> = units.iter().map(|(unit, _)| *unit).collect();
        return Check::good(
            name,
            format!("systemd starts {} at boot", all.join(" and ")),
        );
    }
    let missing = missing.join(" ");
    Check::wrong(
        name,
        format!("systemd does not start {missing} at boot"),
        format!("`systemctl enable --now {missing}`"),
    )
}

/// How each connection is, as the program says.
pub(super) fn tunnels(facts: &Facts) -> Vec<Check> {
    let engine = facts.status.as_ref().ok().and_then(|s| s.engine.as_ref());
    let connections = engine.into_iter().flat_map(|engine| &engine.connections);
    connections
        .map(|connection| tunnel(facts, connection).of(&connection.name))
        .collect()
}

fn tunnel(facts: &Facts, connection: &ConnectionStatus) -> Check {
    let check = "tunnel";
    let name = &connection.name;
    match connection.state.as_str() {
        "up" => {
            let sas = connection.ike_sas.iter().filter(|sa| sa.state == "up");
            let peers: Vec<Option<&str>> = sas.map(|sa| sa.peer.as_deref()).collect();
            let up = match peers.as_slice() {
                [] | [None] => "up with its peer".to_owned(),
                [Some(peer)] => format!("up with {peer}"),
                more => format!("up with {} peers", more.len()),
            };
            let falls = falls(facts, name);
            match falls.last() {
                Some((at, why)) if falls.len() >= OFTEN => Check::wrong(
                    check,
                    format!(
                        "{up}, and was down {} times within a day, lately at {}: {why}",
                        falls.len(),
                        minute(*at)
                    ),
                    "is the uplink steady, and the server? `cygnet status --history` has when and why, and the server's log its side",
                ),
                _ => Check::good(check, up),
            }
        }
        "listening" => Check::good(check, "listens; nobody is in"),
        "idle" => Check::good(check, "comes up when it is wanted"),
        "down" => Check::wrong(
            check,
            "it was taken down by hand",
            format!("`cygnet up {name}`"),
        ),
        state => {
            let reason = connection.reason.as_deref();
            let reason = reason.unwrap_or("no answer yet");
            Check::wrong(
                check,
                format!("{state}: {reason}"),
                "see what is said below of the way to its server, and the server's own log",
            )
        }
    }
}

/// When a tunnel went down within the last day, and why.
fn falls<'a>(facts: &'a Facts, name: &str) -> Vec<(i64, &'a str)> {
    let (Ok(status), Some(now)) = (&facts.status, facts.clock.known()) else {
        return Vec::new();
    };
    let history = status.history.iter().filter(|history| history.name == name);
    let changes = history.flat_map(|history| &history.changes);
    let downs = changes.filter(|change| change.what == What::Down);
    let lately = downs.filter_map(|change| {
        // Some were noted by another clock: what is to come has not been.
        let at = change
            .at
            .filter(|at| (0..=DAY).contains(&now.saturating_sub(*at)))?;
        Some((at, change.text.as_str()))
    });
    lately.collect()
}

/// What the program warns of, unless another check has said it.
pub(super) fn warnings(facts: &Facts, checks: &[Check]) -> Vec<Check> {
    let Ok(Status { warnings, .. }) = &facts.status else {
        return Vec::new();
    };
    let told = |name: &str| {
        let mut of = checks.iter().filter(|check| check.name == name);
        of.any(|check| check.state != State::Good)
    };
    let said = |warning: &&String| {
        checks.iter().any(|check| check.says == **warning)
            || (**warning == survey::GUARD_OFF && facts.network.guard.is_some())
            || (warning.contains("(on_failure = ") && told("on_failure"))
    };
    warnings
        .iter()
        .filter(|warning| !said(warning))
        .map(|warning| Check::wrong("warnings", warning, in_the_sentence(warning)))
        .collect()
}

/// What to do of a warning: most say it themselves, a command between backquotes as a rule.
fn in_the_sentence(warning: &str) -> &'static str {
    match warning.contains('`') {
        true => "what to do is in the sentence",
        false => "`journalctl -u cygnet` has what came before it",
    }
}

#[cfg(test)]
mod tests {
    use cygnet_daemon::api::{Change, TunnelHistory};

    use super::super::all;
    use super::super::testing::{expect, found};
    use super::*;
    use crate::facts::healthy;

    fn status(facts: &mut Facts) -> &mut Status {
        facts.status.as_mut().unwrap()
    }

    fn connection(facts: &mut Facts) -> &mut ConnectionStatus {
        &mut status(facts).engine.as_mut().unwrap().connections[0]
    }

    #[test]
    fn a_configuration_that_is_refused() {
        let refused =
            |f: &mut Facts| f.configuration.read = Err("cygnet.toml:3:1: no such key".into());
        expect(
            refused,
            "Wrong configuration : cygnet.toml:3:1: no such key",
            &["`cygnet check`"],
        );
        expect(
            |f| {
                f.configuration.exists = false;
                refused(f);
            },
            "Wrong configuration : there is no /etc/cygnet/cygnet.toml yet",
            &["`cygnet import FILE`", "`cygnet server init`"],
        );
        // Nothing is said of what nobody knows.
        let mut facts = healthy();
        refused(&mut facts);
        facts.certificates.clear();
        facts.network.firewalls = Err("no configuration".into());
        let judged = all(&facts);
        let mut of_it = judged.iter();
        assert!(
            !of_it.any(|c| ["certificates", "firewall"].contains(&c.name)),
            "{judged:#?}"
        );
    }

    #[test]
    fn a_program_that_is_not_as_it_should_be() {
        let program = "Wrong program ";
        expect(
            |f| status(f).version = "0.0.9".into(),
            program,
            &["version 0.0.9 runs", "systemctl restart"],
        );
        expect(
            |f| status(f).config = "/srv/other.toml".into(),
            program,
            &["--config /srv/other.toml"],
        );
        expect(
            |f| status(f).engine_restarts = 2,
            program,
            &["ended 2 times"],
        );
    }

    #[test]
    fn units_that_do_not_start_it() {
        let disabled = Units::Are(vec![
            ("cygnet.service", true),
            ("cygnet-guard.service", false),
        ]);
        expect(
            |f| f.units = disabled,
            "Wrong units ",
            &["`systemctl enable --now cygnet-guard.service`"],
        );
        expect(
            |f| f.units = Units::NoSystemd,
            "Unknown units ",
            &["gateway on"],
        );
        expect(
            |f| f.units = Units::OtherConfiguration,
            "Unknown units ",
            &["/etc/cygnet/cygnet.toml"],
        );
    }

    #[test]
    fn tunnels_that_are_not_up() {
        for (state, parts) in [
            ("down", ["by hand", "`cygnet up home`"]),
            (
                "waiting",
                ["waiting: no answer from it", "the server's own log"],
            ),
        ] {
            let change = |f: &mut Facts| {
                connection(f).state = state.into();
                connection(f).reason = Some("no answer from it".into());
            };
            expect(change, "Wrong tunnel home: ", &parts);
        }
    }

    #[test]
    fn a_tunnel_that_falls_again_and_again() {
        let fell = |count: i64, before: i64| {
            move |f: &mut Facts| {
                let change = |n: i64| Change {
                    ago_s: None,
                    at: Some(1_795_651_200 - before - n * 60),
                    what: What::Down,
                    text: "no answer from it for 8 s".into(),
                };
                let mut changes: Vec<Change> = (0..count).rev().map(change).collect();
                changes.push(Change {
                    at: None,
                    ..change(0)
                });
                let name = "home".to_owned();
                status(f).history = vec![TunnelHistory { name, changes }];
            }
        };
        expect(
            fell(5, 3600),
            "Wrong tunnel home: up with vpn.example.org, and was down 5 times within a day, lately at 2026-11-25 23:00 UTC: no answer from it for 8 s",
            &["`cygnet status --history`"],
        );
        assert!(found(fell(4, 3600)).is_empty());
        assert!(found(fell(20, 86_400 + 60)).is_empty());
        assert!(found(fell(20, -86_400)).is_empty());
    }

    #[test]
    fn a_warning_is_said_once() {
        expect(
            |f| status(f).warnings = vec!["two devices have the same address".into()],
            "Wrong warnings : two",
            &["`journalctl -u cygnet`"],
        );
        expect(
            |f| status(f).warnings = vec!["the list is old; `cygnet reload` reads it".into()],
            "Wrong warnings : the list",
            &["in the sentence"],
        );
        let waits = "no time synchronisation keeps this machine's clock right, which says x: certificates wait";
        expect(
            |f| {
                status(f).warnings = vec![waits.into()];
                f.clock.synchronised = false;
            },
            "Wrong clock : no time synchronisation keeps this machine's clock right",
            &["`timedatectl set-ntp true`"],
        );
        expect(
            |f| {
                status(f).warnings = vec![survey::GUARD_OFF.into()];
                f.network.guard = Some(Ok(cygnet_linux::GuardState {
                    routing: false,
                    filter: false,
                    absent: true,
                }));
            },
            "Wrong guard : it is off",
            &[],
        );
        let open = found(|f| {
            status(f).warnings =
                vec!["tunnel home is down: devices go direct (on_failure = \"direct\")".into()];
            status(f).let_out = true;
            f.network.lan.as_mut().unwrap().on_failure =
                cygnet_gateway::OnFailure::Direct { open: true };
        });
        assert_eq!(open.len(), 1, "{open:#?}");
        assert!(open[0].starts_with("Wrong on_failure "), "{open:#?}");
        expect(
            |f| {
                let told = "Docker drops our packets; let them through with `x`";
                status(f).warnings = vec![told.into()];
                f.network.firewalls = Ok(vec![told.into()]);
            },
            "Wrong firewall ",
            &["`x`"],
        );
    }
}
