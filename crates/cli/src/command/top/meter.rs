//! How much in a second: differences of counters between two answers, by the time between them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cygnet_daemon::api::{ConnectionStatus, EngineStatus, Status};

/// Per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rate {
    /// Bits received.
    pub(super) received: f64,
    /// Bits sent.
    pub(super) sent: f64,
}

/// Of what lies between two answers.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Rates {
    /// By name.
    pub(super) connections: BTreeMap<String, Rate>,
    /// By number.
    pub(super) ike_sas: BTreeMap<u64, Rate>,
    /// Packets, by reason.
    pub(super) drops: BTreeMap<String, f64>,
    /// Devices' questions for names.
    pub(super) questions: Option<f64>,
}

/// Keeps what the last answer counted.
#[derive(Default)]
pub(super) struct Meter {
    last: Option<Counted>,
}

/// Octets in and out.
type Octets = (u64, u64);

struct Counted {
    at: Instant,
    run: Run,
    connections: BTreeMap<String, Octets>,
    children: BTreeMap<u64, Octets>,
    drops: BTreeMap<String, u64>,
    questions: Option<u64>,
}

/// The processes that count: others begin anew.
#[derive(PartialEq, Eq)]
struct Run {
    supervisor: u32,
    engine: Option<u32>,
    engine_restarts: u32,
}

impl Meter {
    /// What the next answer counts is compared with none before.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    /// The rates since the last answer, as far as there was one of the same run.
    pub(super) fn measure(&mut self, at: Instant, status: &Status) -> Rates {
        let now = Counted::of(at, status);
        let before = self.last.take();
        let rates = match (before, &status.engine) {
            (Some(before), Some(engine)) if before.run == now.run => now.since(&before, engine),
            _ => Rates::default(),
        };
        self.last = status.engine.is_some().then_some(now);
        rates
    }
}

impl Counted {
    fn of(at: Instant, status: &Status) -> Self {
        let engine = status.engine.as_ref();
        let connections = engine.map_or(&[][..], |engine| &engine.connections);
        let children = connections
            .iter()
            .flat_map(|connection| &connection.ike_sas)
            .flat_map(|sa| &sa.children);
        let drops = engine.map_or(&[][..], |engine| &engine.drops);
        Self {
            at,
            run: Run {
                supervisor: status.processes.supervisor,
                engine: status.processes.engine,
                engine_restarts: status.engine_restarts,
            },
            connections: connections
                .iter()
                .map(|of: &ConnectionStatus| (of.name.clone(), (of.bytes_in, of.bytes_out)))
                .collect(),
            children: children
                .map(|child| (child.id, (child.bytes_in, child.bytes_out)))
                .collect(),
            drops: drops
                .iter()
                .map(|drop| (drop.name.clone(), drop.count))
                .collect(),
            questions: status.dns.as_ref().map(|dns| dns.queries),
        }
    }

    fn since(&self, before: &Self, engine: &EngineStatus) -> Rates {
        let elapsed = self.at.saturating_duration_since(before.at);
        let rate = |now: Octets, before: Octets| {
            Some(Rate {
                received: 8.0 * per_second(before.0, now.0, elapsed)?,
                sent: 8.0 * per_second(before.1, now.1, elapsed)?,
            })
        };
        let connections = self.connections.iter().filter_map(|(name, now)| {
            let before = before.connections.get(name)?;
            Some((name.clone(), rate(*now, *before)?))
        });
        let ike_sas = engine
            .connections
            .iter()
            .flat_map(|of| &of.ike_sas)
            .map(|sa| {
                let of_children = sa.children.iter().filter_map(|child| {
                    // What was not there before has carried all it counts since.
                    let before = before.children.get(&child.id).copied().unwrap_or_default();
                    rate((child.bytes_in, child.bytes_out), before)
                });
                let sum = of_children.fold(Rate::default(), |sum, one| Rate {
                    received: sum.received + one.received,
                    sent: sum.sent + one.sent,
                });
                (sa.id, sum)
            });
        let drops = self.drops.iter().filter_map(|(name, now)| {
            // What has not occurred is not told.
            let before = before.drops.get(name).copied().unwrap_or_default();
            Some((name.clone(), per_second(before, *now, elapsed)?))
        });
        let questions = self.questions.zip(before.questions);
        Rates {
            connections: connections.collect(),
            ike_sas: ike_sas.collect(),
            drops: drops.collect(),
            questions: questions.and_then(|(now, before)| per_second(before, now, elapsed)),
        }
    }
}

/// `None` where the counter began anew, or no time has passed.
fn per_second(before: u64, now: u64, elapsed: Duration) -> Option<f64> {
    let more = now.checked_sub(before)?;
    (elapsed >= Duration::from_millis(1)).then(|| more as f64 / elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn rates_are_differences_by_the_time_between() {
        let mut meter = Meter::default();
        let start = Instant::now();
        let mut status = testing::status(&["home"]);
        assert_eq!(meter.measure(start, &status), Rates::default());
        testing::carry(&mut status, 0, 1_000_000, 250_000);
        testing::drop(&mut status, "esp-replayed", 6);
        let rates = meter.measure(start + Duration::from_secs(2), &status);
        let expected = Rate {
            received: 4_000_000.0,
            sent: 1_000_000.0,
        };
        assert_eq!(rates.connections["home"], expected);
        assert_eq!(rates.ike_sas[&1], expected);
        assert_eq!(rates.drops["esp-replayed"], 3.0);
        assert_eq!(rates.questions, None);
    }

    #[test]
    fn a_new_child_sa_counts_from_nothing_and_one_that_went_is_not_negative() {
        let mut meter = Meter::default();
        let start = Instant::now();
        let mut status = testing::status(&["home"]);
        testing::carry(&mut status, 0, 1_000_000, 1_000_000);
        meter.measure(start, &status);
        let connection = &mut status.engine.as_mut().unwrap().connections[0];
        let child = &mut connection.ike_sas[0].children[0];
        (child.id, child.bytes_in, child.bytes_out) = (77, 500, 250);
        connection.bytes_in += 1000;
        connection.bytes_out += 250;
        let rates = meter.measure(start + Duration::from_secs(1), &status);
        assert_eq!(rates.connections["home"].received, 8000.0);
        assert_eq!(rates.ike_sas[&1].received, 4000.0);
        assert_eq!(rates.ike_sas[&1].sent, 2000.0);
    }

    #[test]
    fn counters_that_begin_anew_have_no_rate() {
        let mut meter = Meter::default();
        let start = Instant::now();
        let mut status = testing::status(&["home"]);
        testing::carry(&mut status, 0, 5_000_000, 5_000_000);
        meter.measure(start, &status);
        // The same process ids, as in a container that was started again.
        let mut anew = testing::status(&["home"]);
        let rates = meter.measure(start + Duration::from_secs(1), &anew);
        assert_eq!(rates.connections.get("home"), None);
        // Another engine that has counted more than the last one.
        testing::carry(&mut anew, 0, 9_000_000, 9_000_000);
        anew.processes.engine = Some(99);
        anew.engine_restarts += 1;
        let rates = meter.measure(start + Duration::from_secs(2), &anew);
        assert_eq!(rates, Rates::default());
        // Without an engine nothing is counted, and nothing compared afterwards.
        let engine = anew.engine.take();
        meter.measure(start + Duration::from_secs(3), &anew);
        anew.engine = engine;
        testing::carry(&mut anew, 0, 1, 1);
        let rates = meter.measure(start + Duration::from_secs(4), &anew);
        assert_eq!(rates, Rates::default());
        // Two answers at once say nothing.
        let rates = meter.measure(start + Duration::from_secs(4), &anew);
        assert_eq!(rates.connections.get("home"), None);
    }
}
