//! `cargo xtask integrity`: mixed traffic through a tunnel whose keys change all the time. Every
//! datagram has to arrive exactly once, in order and intact, and every stream with the same hash.
//!
//! The load is half of what the slower direction carries of TCP, which is measured first, both
//! directions together. It is counted at the hosts behind the gateways alone: nft and interface
//! counters count a GSO batch as one packet. When something is missing, all that count what they throw
//! away say where it may have gone.

mod content;
mod datagrams;
mod ends;
mod losses;
mod streams;

use super::plan::Role;
use super::runner::{self, Outcome};
use super::{Options as Runner, Scenario};
use crate::lab::offices::Office;
use crate::lab::traffic::{Direction, throughput};
use crate::lab::{Context, Failure, Lab, Namespace, Result, interrupt, wait_for};
use crate::{bail, ensure, project, setup};
use ends::{Ends, Who};
use losses::Losses;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use time::OffsetDateTime;

/// What was asked for on the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The runs to make, all when none is named: `integrity-cygnet`, `integrity-strongswan-*`
    pub names: Vec<String>,
    /// Print the names of all runs
    #[arg(long)]
    pub list: bool,
    /// Length of the load
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u32).range(2..=3600))]
    pub seconds: u32,
    /// How often the Child SA gets new keys, in seconds
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = lifetime)]
    pub rekey: f64,
    /// Percent of the load that are datagrams, by octets
    #[arg(long, value_name = "P", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..100))]
    pub datagrams: u32,
    /// Carry no more than this, where half of what was measured is more
    #[arg(long, value_name = "MBIT/S", default_value_t = f64::INFINITY, value_parser = rate)]
    pub at_most: f64,
    /// Use the `cygnet` that was built last
    #[arg(long)]
    pub no_build: bool,
    /// Copy the files and logs of failed runs to this directory
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

fn lifetime(text: &str) -> std::result::Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    match (1.0..=3600.0).contains(&seconds) {
        true => Ok(seconds),
        false => Err("expected 1 to 3600 seconds".to_owned()),
    }
}

fn rate(text: &str) -> std::result::Result<f64, String> {
    let mbit_s: f64 = text.parse().map_err(|error| format!("{error}"))?;
    match mbit_s >= 1.0 {
        true => Ok(mbit_s),
        false => Err("expected 1 Mbit/s or more".to_owned()),
    }
}

/// How far the load stands back.
const NICE: i32 = 10;

/// What has to be carried of the load that was meant; TCP and a busy machine take their time.
const LEAST: f64 = 0.6;

/// What a run is like.
#[derive(Debug, Clone, Copy)]
struct Shape {
    length: Duration,
    /// Seconds of each of the measurements before.
    measuring: u32,
    /// Of a Child SA.
    lifetime: Duration,
    /// The datagrams' part of all octets.
    datagrams: f64,
    /// Mbit/s.
    at_most: f64,
}

/// Makes the runs one after the other; true when all were good.
pub fn run(options: &Options) -> Result<bool> {
    let shape = Shape {
        length: Duration::from_secs(options.seconds.into()),
        measuring: 4,
        lifetime: Duration::from_secs_f64(options.rekey),
        datagrams: f64::from(options.datagrams) / 100.0,
        at_most: options.at_most,
    };
    let all = scenarios(shape);
    if options.list {
        runner::print_names(&all);
        return Ok(true);
    }
    let chosen = runner::choose(&options.names, all)?;
    setup::ensure()?;
    if !options.no_build {
        eprintln!("building cygnet");
        project::build_cygnet()?;
    }
    let outcomes = play_all(chosen, options.keep.clone())?;
    Ok(outcomes.iter().all(|outcome| outcome.result.is_ok()))
}

/// Short runs for `cargo xtask test`: Cygnet at both ends, and strongSwan at one.
pub fn smoke() -> Result<Vec<Outcome>> {
    let shape = Shape {
        length: Duration::from_secs(4),
        measuring: 1,
        lifetime: Duration::from_secs(1),
        datagrams: 0.15,
        at_most: 400.0,
    };
    let names = ["integrity-cygnet", "integrity-strongswan-initiator"].map(str::to_owned);
    play_all(runner::choose(&names, scenarios(shape))?, None)
}

/// Alone: others would take what was measured.
fn play_all(chosen: Vec<Scenario>, keep: Option<PathBuf>) -> Result<Vec<Outcome>> {
    let options = Runner {
        jobs: 1,
        keep,
        ..Runner::default()
    };
    runner::run_scenarios(chosen, &options)
}

fn scenarios(shape: Shape) -> Vec<Scenario> {
    let mut all = vec![Scenario::new(
        "integrity-cygnet",
        "mixed traffic between two Cygnets arrives whole while keys change",
        move |lab| play(lab, Who::Cygnet, shape),
    )];
    for role in Role::BOTH {
        all.push(Scenario::new(
            format!("integrity-strongswan-{}", role.name()),
            "mixed traffic between Cygnet and strongSwan arrives whole while keys change",
            move |lab| play(lab, Who::StrongSwan(role), shape),
        ));
    }
    all
}

/// A host behind a gateway, with its addresses.
#[derive(Debug, Clone)]
struct Site {
    host: Namespace,
    v4: IpAddr,
    v6: IpAddr,
}

impl Site {
    fn of(office: &Office) -> Result<Self> {
        Self::new(&office.host, office.host4, office.host6)
    }

    fn new(host: &Namespace, v4: &str, v6: &str) -> Result<Self> {
        Ok(Self {
            host: host.clone(),
            v4: v4.parse().context(v4)?,
            v6: v6.parse().context(v6)?,
        })
    }

    fn address(&self, v6: bool) -> IpAddr {
        if v6 { self.v6 } else { self.v4 }
    }
}

fn play(lab: &Lab, who: Who, shape: Shape) -> Result<String> {
    let ends = Ends::connected(lab, who, shape.lifetime)?;
    let offices = ends.offices();
    let (a, b) = (Site::of(&offices.a)?, Site::of(&offices.b)?);
    learn_path_mtu(&a, &b)?;
    let (slower, capacity) = capacity(&a, &b, shape.measuring)?;
    offices.reset_counters()?;
    let load = (capacity / 2.0).min(shape.at_most);
    let before = Losses::now(&ends.hosts(), Some(&ends))?;
    let (begun, clock) = (Instant::now(), OffsetDateTime::now_utc());
    let running = Load::start(&a, &b, load, shape.datagrams)?;
    // Nothing is asked meanwhile: that would take processors from those who are measured.
    wait_for_end(begun, shape.length)?;
    let elapsed = begun.elapsed();
    let rekeys = ends.rekeys_since(clock);
    let tally = running.finish()?;
    let after = Losses::now(&ends.hosts(), Some(&ends))?;
    let keys = told(&rekeys);
    let carried = tally.octets as f64 * 8.0 / 1e6 / elapsed.as_secs_f64();
    let summary = format!(
        "{capacity:.0} Mbit/s {slower}; {carried:.0} of {load:.0} Mbit/s carried in {:.0} s: {} datagrams and {} MB of streams, {} rekeys",
        elapsed.as_secs_f64(),
        tally.datagrams,
        tally.stream_octets / 1_000_000,
        rekeys.len(),
    );
    let thrown_away = after.since(&before);
    if !tally.faults.is_empty() {
        let thrown_away = thrown_away.join("\n  ");
        let faults = tally.faults.join("\n  ");
        return Err(ends.with_log(Failure::new(format!(
            "{summary}\n  {faults}\n keys changed at {keys}\n what was thrown away meanwhile, and by whom:\n  {thrown_away}"
        ))));
    }
    let due = elapsed.as_secs_f64() / shape.lifetime.as_secs_f64();
    let least = ((due * 2.0 / 3.0) as usize).max(1);
    ensure!(
        rekeys.len() >= least,
        "{summary}; at least {least} rekeys were due, and keys changed at {keys}"
    );
    if carried < load * LEAST {
        bail!("{summary}; so little of it proves nothing");
    }
    let leaked = offices.counters()?.leaked;
    ensure!(
        leaked == 0,
        "{summary}; {leaked} packets beside the tunnel were on the link"
    );
    // Of streams, which do not mind.
    Ok(match thrown_away.is_empty() {
        true => summary,
        false => format!("{summary}; counted meanwhile: {}", thrown_away.join(", ")),
    })
}

/// Lets hosts and routers learn the path's MTU: what is too big at first is lost by right.
fn learn_path_mtu(a: &Site, b: &Site) -> Result<()> {
    for (from, to) in [(a, b), (b, a)] {
        for (to, length) in [(to.v4, "1472"), (to.v6, "1452")] {
            let to = to.to_string();
            let what = format!("{} learns the path's MTU to {to}", from.host.name());
            wait_for(&what, Duration::from_secs(10), || {
                let pinged = from.host.finish([
                    "ping", "-n", "-q", "-c1", "-W1", "-M", "want", "-s", length, &to,
                ])?;
                Ok(pinged.success().then_some(()))
            })?;
        }
    }
    Ok(())
}

/// What the slower direction carries of TCP, in Mbit/s, and which one it is.
fn capacity(a: &Site, b: &Site, seconds: u32) -> Result<(String, f64)> {
    let measure = |direction| {
        throughput(&a.host, &b.host, &b.v4.to_string(), seconds, direction)
            .context("measuring what the tunnel carries")
    };
    let (up, down) = (measure(Direction::Upload)?, measure(Direction::Download)?);
    let (a, b) = (a.host.name(), b.host.name());
    Ok(match up <= down {
        true => (format!("from {a} to {b}"), up),
        false => (format!("from {b} to {a}"), down),
    })
}

/// A thread of the load. The gateways go first: hosts of their own would not take their processors.
fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> JoinHandle<Result<T>> {
    thread::spawn(move || {
        // Of this thread alone, as Linux has it.
        rustix::process::nice(NICE)?;
        work()
    })
}

/// Waits for the end of the load.
fn wait_for_end(begun: Instant, length: Duration) -> Result<()> {
    while let Some(left) = length.checked_sub(begun.elapsed()) {
        interrupt::check()?;
        thread::sleep(left.min(Duration::from_millis(100)));
    }
    Ok(())
}

fn told(moments: &[Duration]) -> String {
    let each = moments.iter().map(|at| format!("{:.1}", at.as_secs_f64()));
    format!("{} s", each.collect::<Vec<_>>().join(", "))
}

/// All traffic between two hosts, in both directions, until [`Load::finish`].
struct Load {
    stop: Arc<AtomicBool>,
    streams: Vec<streams::OneWay>,
    datagrams: Vec<datagrams::OneWay>,
}

/// What became of it.
#[derive(Debug, Default)]
struct Tally {
    datagrams: u64,
    stream_octets: u64,
    /// Payload of both.
    octets: u64,
    faults: Vec<String>,
}

impl Load {
    /// `mbit_s` of payload, both directions together; which part of it are datagrams.
    fn start(a: &Site, b: &Site, mbit_s: f64, datagrams: f64) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let octets_s = mbit_s * 1e6 / 8.0 / 2.0;
        let mut load = Self {
            stop,
            streams: Vec::new(),
            datagrams: Vec::new(),
        };
        for (way, seed) in [((a, b), 1), ((b, a), 2)] {
            let streams =
                streams::OneWay::start(way, octets_s * (1.0 - datagrams), seed, &load.stop)?;
            load.streams.push(streams);
            let datagrams = datagrams::OneWay::start(way, octets_s * datagrams, seed, &load.stop)?;
            load.datagrams.push(datagrams);
        }
        Ok(load)
    }

    /// Stops sending, waits for what is on its way, and judges.
    fn finish(mut self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for one_way in self.datagrams.drain(..) {
            let tally = one_way.finish()?;
            all.datagrams += tally.datagrams;
            all.octets += tally.octets;
            all.faults.extend(tally.faults);
        }
        for one_way in self.streams.drain(..) {
            let tally = one_way.finish()?;
            all.stream_octets += tally.octets;
            all.octets += tally.octets;
            all.faults.extend(tally.faults);
        }
        Ok(all)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Link;

    #[test]
    fn what_a_link_loses_is_told_and_nothing_else() {
        let lab = Lab::new().unwrap();
        let addresses: [&[&str]; 2] = [
            &["192.0.2.1/24", "2001:db8::1/64"],
            &["192.0.2.2/24", "2001:db8::2/64"],
        ];
        let (a, b, mut link) = Link::between_two(&lab, addresses, [&[], &[]]).unwrap();
        let a = Site::new(&a, "192.0.2.1", "2001:db8::1").unwrap();
        let b = Site::new(&b, "192.0.2.2", "2001:db8::2").unwrap();
        learn_path_mtu(&a, &b).unwrap();

        let load = Load::start(&a, &b, 40.0, 0.3).unwrap();
        thread::sleep(Duration::from_secs(1));
        let tally = load.finish().unwrap();
        assert!(tally.faults.is_empty(), "{tally:?}");
        assert!(
            tally.datagrams > 500 && tally.stream_octets > 1_000_000,
            "{tally:?}"
        );

        let load = Load::start(&a, &b, 40.0, 0.3).unwrap();
        link.lose(2).unwrap();
        thread::sleep(Duration::from_secs(1));
        link.lose(0).unwrap();
        let tally = load.finish().unwrap();
        let lost = |fault: &String| fault.contains(" lost (numbers ");
        assert!(
            tally.faults.len() > 4 && tally.faults.iter().all(lost),
            "{tally:?}"
        );
    }
}
