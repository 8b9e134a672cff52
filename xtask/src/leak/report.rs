//! What the rounds showed: a line for each, one for each packet that leaked, and the sum.

use super::round::{Leak, Plan, Played};
use crate::lab::Result;
use serde::Serialize;
use std::time::Duration;
use time::OffsetDateTime;
use time::macros::format_description;

/// A round, played with the guard and without.
pub(super) struct Round {
    pub(super) plan: Plan,
    pub(super) guarded: Result<Played>,
    /// Without: what has to leak.
    pub(super) control: Result<Played>,
    pub(super) elapsed: Duration,
}

impl Round {
    /// How it is called.
    pub(super) fn name(&self) -> String {
        format!("round {}", self.plan.number)
    }

    /// Why it is not good.
    pub(super) fn fault(&self) -> Option<String> {
        let guarded = match &self.guarded {
            Ok(played) => played,
            Err(failure) => return Some(failure.to_string()),
        };
        if let Some(first) = guarded.leaks.first() {
            let count = guarded.leaks.len();
            return Some(format!("{count} packets leaked, first {}", told(first)));
        }
        if let Err(failure) = &guarded.back {
            return Some(failure.to_string());
        }
        if guarded.tunnelled == 0 {
            return Some("nothing was seen in the tunnel".to_owned());
        }
        match &self.control {
            Err(failure) => Some(format!("control: {failure}")),
            Ok(control) => match &control.back {
                Err(failure) => Some(format!("control: {failure}")),
                Ok(_) if control.leaked_in_events() == 0 => Some(
                    "control: nothing leaked without a guard, so the round proves nothing"
                        .to_owned(),
                ),
                Ok(_) => None,
            },
        }
    }

    /// Prints it as it ends.
    pub(super) fn print(&self) {
        let fault = self.fault();
        let mark = if fault.is_none() { "ok  " } else { "FAIL" };
        let Plan {
            number,
            server,
            legs,
            answers,
            policies,
            own,
            steps,
        } = &self.plan;
        let extra = match (answers, policies) {
            (true, _) => "names",
            (_, true) => "policies",
            _ => "",
        };
        let own = if *own { "own" } else { "" };
        let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
        println!(
            "{mark} {number:>3}  {:<10} {:<8} {extra:<8} {own:<3} {:>5.1} s  {}; {}",
            server.name(),
            legs.name(),
            self.elapsed.as_secs_f64(),
            self.counts(),
            steps.join(", ")
        );
        if let Some(fault) = fault {
            println!("     {fault}");
        }
        for leak in self.leaks() {
            println!("     leaked {}", told(leak));
        }
    }

    fn leaks(&self) -> &[Leak] {
        self.guarded.as_ref().map_or(&[], |played| &played.leaks)
    }

    fn counts(&self) -> String {
        let guarded = match &self.guarded {
            Ok(played) => {
                let back = match &played.back {
                    Ok(back) => format!("back in {:.1} s", back.as_secs_f64()),
                    Err(_) => "not back".to_owned(),
                };
                format!(
                    "{} leaked, {} in the tunnel, {back}",
                    played.leaks.len(),
                    played.tunnelled
                )
            }
            Err(_) => "not played".to_owned(),
        };
        let control = self.control.as_ref().map_or(0, |played| played.leaks.len());
        format!("{guarded}; control {control} leaked")
    }
}

fn told(leak: &Leak) -> String {
    let format = format_description!("[hour]:[minute]:[second].[subsecond digits:6]");
    let at = OffsetDateTime::from(leak.at).format(format);
    format!(
        "at {} UTC, {:.3} s after \"{}\": {}",
        at.unwrap_or_default(),
        leak.since.as_secs_f64(),
        leak.after,
        leak.what
    )
}

/// The line for a program, in the order of its keys.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Summary {
    rounds: usize,
    leaked_packets: usize,
    control_leaked: usize,
    /// Rounds in which the control leaked.
    control_rounds: usize,
    /// Rounds that were not good, for whatever reason.
    failed_rounds: usize,
    seed: u64,
    events: usize,
    /// What the devices sent with the guard in place.
    canaries: u64,
    tunnel_packets: u64,
    /// From the end of a round's last event to traffic through the tunnel.
    slowest_return_s: f64,
}

impl Summary {
    pub(super) fn of(rounds: &[Round], seed: u64) -> Self {
        let played = || {
            rounds
                .iter()
                .filter_map(|round| round.guarded.as_ref().ok())
        };
        let controls = || {
            rounds
                .iter()
                .filter_map(|round| round.control.as_ref().ok())
        };
        let returns = played().filter_map(|played| played.back.as_ref().ok());
        let slowest = returns.max().copied().unwrap_or_default();
        Self {
            rounds: rounds.len(),
            leaked_packets: played().map(|played| played.leaks.len()).sum(),
            control_leaked: controls().map(|played| played.leaks.len()).sum(),
            control_rounds: controls().filter(|one| one.leaked_in_events() > 0).count(),
            failed_rounds: rounds
                .iter()
                .filter(|round| round.fault().is_some())
                .count(),
            seed,
            events: rounds.iter().map(|round| round.plan.steps.len()).sum(),
            canaries: played().map(|played| played.sent).sum(),
            tunnel_packets: played().map(|played| played.tunnelled).sum(),
            slowest_return_s: (slowest.as_secs_f64() * 10.0).round() / 10.0,
        }
    }

    /// Whether all is as it should be.
    pub(super) fn ok(&self) -> bool {
        self.rounds > 0 && self.failed_rounds == 0
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    }

    pub(super) fn to_text(&self) -> String {
        format!(
            "{} rounds, {} failed: {} packets leaked of {} sent in {} events; without the guard {} in {} rounds",
            self.rounds,
            self.failed_rounds,
            self.leaked_packets,
            self.canaries,
            self.events,
            self.control_leaked,
            self.control_rounds
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::ends::Program;
    use super::super::world::Legs;
    use super::*;
    use crate::lab::Failure;
    use std::time::SystemTime;

    fn played(leaks: usize, in_events: bool) -> Played {
        let leak = || Leak {
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(3_723_004),
            after: "reboot, on again".to_owned(),
            since: Duration::from_millis(12),
            in_events,
            what: "192.168.1.20 > 198.51.100.53 UDP 40000 > 53".to_owned(),
        };
        Played {
            leaks: (0..leaks).map(|_| leak()).collect(),
            tunnelled: 90,
            sent: 1000,
            back: Ok(Duration::from_millis(1234)),
        }
    }

    fn round(guarded: Result<Played>, control: Result<Played>) -> Round {
        Round {
            plan: Plan {
                number: 7,
                server: Program::Cygnet,
                legs: Legs::One,
                answers: false,
                policies: false,
                own: false,
                steps: Vec::new(),
            },
            guarded,
            control,
            elapsed: Duration::ZERO,
        }
    }

    #[test]
    fn the_line_has_the_agreed_form() {
        let rounds = [round(Ok(played(0, false)), Ok(played(5, true)))];
        let summary = Summary::of(&rounds, 42);
        assert!(summary.ok());
        assert_eq!(
            summary.to_json(),
            r#"{"rounds":1,"leaked_packets":0,"control_leaked":5,"control_rounds":1,"failed_rounds":0,"seed":42,"events":0,"canaries":1000,"tunnel_packets":90,"slowest_return_s":1.2}"#
        );
        assert!(!Summary::of(&[], 42).ok());
    }

    #[test]
    fn a_round_is_good_only_if_its_control_leaks() {
        let fault = |guarded, control| round(guarded, control).fault().unwrap_or_default();
        assert_eq!(fault(Ok(played(0, true)), Ok(played(1, true))), "");
        let silent = fault(Ok(played(0, true)), Ok(played(3, false)));
        assert!(silent.contains("proves nothing"), "{silent}");
        let leaked = fault(Ok(played(2, true)), Ok(played(1, true)));
        assert_eq!(
            leaked,
            "2 packets leaked, first at 01:02:03.004000 UTC, 0.012 s after \"reboot, on again\": \
             192.168.1.20 > 198.51.100.53 UDP 40000 > 53"
        );
        let mut gone = played(0, true);
        gone.back = Err(Failure::new("traffic passes the tunnel: not within 20s"));
        assert!(fault(Ok(gone), Ok(played(1, true))).contains("not within 20s"));
        let broken = fault(Ok(played(0, true)), Err(Failure::new("no such file")));
        assert_eq!(broken, "control: no such file");
        let mut empty = played(0, true);
        empty.tunnelled = 0;
        assert!(fault(Ok(empty), Ok(played(1, true))).contains("in the tunnel"));
    }
}
