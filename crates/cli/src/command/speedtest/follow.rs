//! Follows a measurement to its end, and makes figures of it.

use std::time::Duration;

use cygnet_daemon::speedtest::{Errand, Event, Measuring, Phase};
use cygnet_profile::read::printable;
use cygnet_speedtest::{CpuUse, Direction, Latency, Load, Meter, Path, Way};

use super::machine::{Machine, Reading};
use crate::output::to_stderr;

/// Round trips of one phase; one every 50 ms for a minute are 1200.
const ROUND_TRIPS_MAX: usize = 10_000;
/// The line of progress is written anew after so many readings.
const EVERY: usize = 5;
/// Its width: what was there before is overwritten.
const WIDTH: usize = 60;

/// What a person sees meanwhile, on standard error.
pub(super) struct Progress {
    /// It is a terminal: one line is written again and again.
    pub(super) live: bool,
    /// Nothing is shown.
    pub(super) silent: bool,
}

impl Progress {
    pub(super) fn note(&self, line: &str) {
        if !self.silent {
            eprintln!("{line}");
        }
    }

    fn begin(&self, what: &str) {
        if !self.live {
            self.note(what);
        }
    }

    fn line(&self, text: &str) {
        if self.live && !self.silent {
            to_stderr(format_args!("\r{text:<WIDTH$}"));
        }
    }

    fn end(&self) {
        if self.live && !self.silent {
            to_stderr(format_args!("\r{:<WIDTH$}\r", ""));
        }
    }
}

/// What was sampled of a phase.
struct Phased {
    phase: Phase,
    meter: Meter,
    readings: usize,
    round_trips: Vec<Duration>,
    loads: Vec<Load>,
    counting: Option<Reading>,
    busy: (Option<CpuUse>, Option<f64>),
    failed: Option<String>,
}

impl Phased {
    fn new(phase: Phase, seconds: u16) -> Self {
        Self {
            phase,
            meter: Meter::new(Duration::from_secs(seconds.into())),
            readings: 0,
            round_trips: Vec::new(),
            loads: Vec::new(),
            counting: None,
            busy: (None, None),
            failed: None,
        }
    }

    fn latency(&self) -> Option<Latency> {
        Latency::of(&self.round_trips)
    }

    /// The figures of a direction; else why there are none.
    fn direction(&self) -> Result<Direction, String> {
        if let Some(why) = &self.failed {
            return Err(why.clone());
        }
        let rate = self.meter.rate();
        let rate = rate.ok_or("it ended before anything was counted")?;
        let server_cpu = match self.loads.as_slice() {
            [before, after] => after.cpu.since(&before.cpu),
            _ => None,
        };
        Ok(Direction {
            mbit_s: (rate / 1e3).round() / 1e3,
            latency: self.latency(),
            cpu: self.busy.0,
            thread: self.busy.1,
            server_cpu,
            limit: None,
            curve: self.meter.curve(),
        })
    }
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Idle => "idle",
        Phase::Down => "down",
        Phase::Up => "up",
    }
}

/// Measures one way. A direction that cannot be measured is told of, and left out.
///
/// # Errors
/// One sentence: nothing can be measured on this way.
pub(super) async fn follow(
    errand: &Errand,
    user: (u32, u32),
    (way, target): (Way, &str),
    machine: &Machine,
    progress: &Progress,
) -> Result<Path, String> {
    let mut measuring = Measuring::start(errand, user).await?;
    let mut path = Path {
        way,
        target: target.to_owned(),
        idle: None,
        down: None,
        up: None,
    };
    let mut phased = None;
    while let Some(event) = measuring.next().await? {
        take(
            event,
            errand.seconds,
            &mut phased,
            &mut path,
            machine,
            progress,
        )?;
    }
    Ok(path)
}

fn take(
    event: Event,
    seconds: u16,
    phased: &mut Option<Phased>,
    path: &mut Path,
    machine: &Machine,
    progress: &Progress,
) -> Result<(), String> {
    let way = path.way.name();
    if let Event::Begun(phase) = event {
        progress.begin(&format!("measuring {way}, {}", name(phase)));
        progress.line(&format!("{way}, {}", name(phase)));
        *phased = Some(Phased::new(phase, seconds));
        return Ok(());
    }
    let Some(now) = phased else {
        return match event {
            // The words of another end may be in it.
            Event::Failed(why) => Err(format!("{way}: {}", printable(&why))),
            _ => Err("the process that measures is not understood".to_owned()),
        };
    };
    match event {
        Event::Begun(_) => {}
        Event::Moved { at_us, octets } => {
            now.meter.record(Duration::from_micros(at_us), octets);
            now.readings += 1;
            if now.readings % EVERY == 0 {
                progress.line(&format!(
                    "{way}, {}: {:>4.1} of {} s, {:.1} Mbit/s",
                    name(now.phase),
                    Duration::from_micros(at_us).as_secs_f32(),
                    now.meter.end().as_secs(),
                    now.meter.present() / 1e6
                ));
            }
        }
        Event::Counting => now.counting = Some(machine.read()),
        Event::Counted => {
            let before = now.counting.take();
            if let Some(before) = before {
                now.busy = machine.read().since(&before);
            }
        }
        Event::Answered(us) if now.round_trips.len() < ROUND_TRIPS_MAX => {
            now.round_trips.push(Duration::from_micros(us));
        }
        Event::Answered(_) => {}
        Event::Load(load) if now.loads.len() < 2 => now.loads.push(load),
        Event::Load(_) => {}
        Event::Failed(why) => now.failed = Some(printable(&why.replace('\n', " "))),
        Event::Over => {
            progress.end();
            let direction = match now.phase {
                Phase::Idle => {
                    path.idle = now.latency();
                    None
                }
                Phase::Down => Some(&mut path.down),
                Phase::Up => Some(&mut path.up),
            };
            if let Some(direction) = direction {
                match now.direction() {
                    Ok(measured) => *direction = Some(measured),
                    Err(why) => eprintln!("cygnet: {way}, {}: {why}", name(now.phase)),
                }
            }
            *phased = None;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cygnet_daemon::api::Processes;
    use cygnet_speedtest::CpuTimes;

    use super::*;

    const SILENT: Progress = Progress {
        live: false,
        silent: true,
    };

    fn followed(events: impl IntoIterator<Item = Event>) -> Result<Path, String> {
        let machine = Machine::new(&Processes {
            supervisor: std::process::id(),
            engine: None,
        });
        let mut path = Path {
            way: Way::Tunnel,
            target: "10.99.0.1".to_owned(),
            idle: None,
            down: None,
            up: None,
        };
        let mut phased = None;
        for event in events {
            take(event, 4, &mut phased, &mut path, &machine, &SILENT)?;
        }
        Ok(path)
    }

    /// 10 Mbit/s for six seconds, with two readings of the server's.
    fn down() -> Vec<Event> {
        let cpu = |busy: u64| CpuTimes::parse(&format!("cpu0 {busy} 0 0 {} 0 0 0 0\n", 100 - busy));
        let load = |busy| {
            Event::Load(Load {
                cpu: cpu(busy),
                connections: 5,
            })
        };
        let moved = (1..=60).map(|n| Event::Moved {
            at_us: n * 100_000,
            octets: n * 125_000,
        });
        let mut events = vec![Event::Begun(Phase::Down)];
        events.extend(moved);
        events.insert(21, Event::Counting);
        events.insert(22, load(0));
        let load_after = Load {
            cpu: CpuTimes::parse("cpu0 150 0 0 150 0 0 0 0\n"),
            connections: 5,
        };
        events.extend([
            Event::Answered(30_000),
            Event::Counted,
            Event::Load(load_after),
            Event::Over,
        ]);
        events
    }

    #[test]
    fn events_become_figures() {
        let idle = [
            Event::Begun(Phase::Idle),
            Event::Counting,
            Event::Answered(12_000),
            Event::Answered(14_000),
            Event::Counted,
            Event::Over,
        ];
        let path = followed(idle.into_iter().chain(down())).unwrap();
        let idle = path.idle.unwrap();
        assert_eq!((idle.p50_ms, idle.p99_ms), (12.0, 14.0));
        let down = path.down.unwrap();
        assert_eq!(down.mbit_s, 10.0);
        assert_eq!(down.latency.map(|l| l.p50_ms), Some(30.0));
        assert_eq!(down.server_cpu.map(|cpu| cpu.busiest), Some(0.75));
        assert_eq!(down.curve.len(), 12);
        assert!(path.up.is_none());
    }

    #[test]
    fn a_direction_that_failed_is_left_out_and_the_other_is_not() {
        let up = [
            Event::Begun(Phase::Up),
            Event::Failed("http://h/ says\n`404`".to_owned()),
            Event::Over,
        ];
        let path = followed(down().into_iter().chain(up)).unwrap();
        assert!(path.down.is_some() && path.up.is_none());
        let short = [Event::Begun(Phase::Up), Event::Over];
        assert!(followed(short).unwrap().up.is_none());
    }

    #[test]
    fn nobody_there_is_an_error_that_steers_no_terminal() {
        let told = followed([Event::Failed("no\u{1b}[2J answer".to_owned())]).unwrap_err();
        assert_eq!(told, "tunnel: no\u{fffd}[2J answer");
        assert!(followed([Event::Over]).is_err());
    }
}
