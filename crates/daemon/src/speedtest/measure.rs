//! `cygnet speedtest-measure`: measures on one way, and tells what happens as it happens.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use cygnet_speedtest::{TICK, WARM_UP};
use tokio::time::MissedTickBehavior;

use super::client::{Kept, Way};
use super::direction::Streams;
use super::{Errand, Event, Phase};
use crate::fetch::Place;
use crate::helper;

/// How long round trips are measured while nothing else is to do.
const IDLE: Duration = Duration::from_secs(3);
/// From one small request to the next, if the answer comes sooner.
const PING_EVERY: Duration = Duration::from_millis(50);
/// Small requests that fail in a row before none is sent any more.
const PINGS_LOST_MAX: u32 = 3;
/// Between two directions: queues on the way empty.
const PAUSE: Duration = Duration::from_secs(1);
/// Octets of an errand.
const ERRAND_MAX: u64 = 64 << 10;
/// Memory of the process.
const MEMORY_MAX: u64 = 256 << 20;

/// The process itself; what it is to use is in its errand, the argument is for whoever lists processes.
pub(super) fn run(_interface: &str) -> u8 {
    let done = helper::confine(MEMORY_MAX, None).and_then(|()| {
        helper::end_with_parent()?;
        let mut errand = Vec::new();
        io::stdin().take(ERRAND_MAX).read_to_end(&mut errand)?;
        let errand: Errand = postcard::from_bytes(&errand).map_err(io::Error::other)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()?;
        let local = tokio::task::LocalSet::new();
        let told = local.block_on(&runtime, measure(&errand, &say));
        // A resolver that does not answer is not waited for.
        runtime.shutdown_background();
        match told {
            Ok(()) => Ok(()),
            Err(Ended::Unreachable(why)) => say(&Event::Failed(why)),
            Err(Ended::Unheard(error)) => Err(error),
        }
    });
    if let Err(error) = &done {
        // Where it is that nobody listens, that is not heard either.
        let _ = say(&Event::Failed(format!("it cannot run: {error}")));
    }
    u8::from(done.is_err())
}

fn say(event: &Event) -> io::Result<()> {
    let mut line = serde_json::to_vec(event).map_err(io::Error::other)?;
    line.push(b'\n');
    io::stdout().write_all(&line)
}

/// Why nothing more is measured.
#[derive(Debug)]
pub(super) enum Ended {
    /// Nobody is there.
    Unreachable(String),
    /// Nobody listens.
    Unheard(io::Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Unheard(error)
    }
}

/// Who is told.
pub(super) type Say<'a> = &'a dyn Fn(&Event) -> io::Result<()>;

pub(super) async fn measure(errand: &Errand, say: Say<'_>) -> Result<(), Ended> {
    let way = Way {
        interface: errand.interface.clone(),
        sources: errand.sources.clone(),
    };
    let reached = async {
        let ping = Place::parse(&errand.ping)?;
        let (to, stream) = way.reach(&way.resolve(&ping).await?).await?;
        let load = errand.load.as_deref().map(Place::parse).transpose()?;
        let kept = Kept::new(way.clone(), to, stream).await?;
        let mut watch = Watch {
            kept,
            ping,
            load,
            say,
        };
        watch.check().await?;
        Ok::<_, String>(watch)
    };
    let mut watch = reached.await.map_err(Ended::Unreachable)?;

    say(&Event::Begun(Phase::Idle))?;
    say(&Event::Counting)?;
    watch.until(Duration::ZERO, IDLE).await?;
    say(&Event::Counted)?;
    say(&Event::Over)?;
    for (phase, url) in [(Phase::Down, &errand.down), (Phase::Up, &errand.up)] {
        let Some(url) = url else { continue };
        tokio::time::sleep(PAUSE).await;
        say(&Event::Begun(phase))?;
        match streams(&way, errand.streams, phase, url).await {
            Ok(streams) => {
                let counted = Duration::from_secs(errand.seconds.into());
                direction(streams, counted, &mut watch, say).await?;
            }
            Err(why) => say(&Event::Failed(why))?,
        }
        say(&Event::Over)?;
    }
    Ok(())
}

async fn streams(way: &Way, count: u8, phase: Phase, url: &str) -> Result<Streams, String> {
    let place = Place::parse(url)?;
    let (to, _) = way.reach(&way.resolve(&place).await?).await?;
    Ok(match phase {
        Phase::Up => Streams::up(way, to, &place, count),
        Phase::Idle | Phase::Down => Streams::down(way, to, &place, count),
    })
}

/// Looks on while streams do their work.
async fn direction(
    mut streams: Streams,
    counted: Duration,
    watch: &mut Watch<'_>,
    say: Say<'_>,
) -> io::Result<()> {
    let end = WARM_UP + counted;
    let begun = Instant::now();
    let looked = async {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut counting = false;
        loop {
            tick.tick().await;
            let at = begun.elapsed();
            if let Some(why) = streams.ended() {
                return Ok::<_, io::Error>(Some(why));
            }
            let octets = streams.octets();
            let at_us = u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
            say(&Event::Moved { at_us, octets })?;
            if !counting && at >= WARM_UP {
                counting = true;
                say(&Event::Counting)?;
            }
            if at >= end {
                say(&Event::Counted)?;
                let nothing = || "nothing moved, and nobody says why".to_owned();
                return Ok((octets == 0).then(nothing));
            }
        }
    };
    let round_trips = watch.until(WARM_UP, end);
    tokio::pin!(looked, round_trips);
    // Streams go on until the last round trip beside them is over; without streams none is waited for.
    let mut answered = false;
    let failed = loop {
        tokio::select! {
            failed = &mut looked => break failed?,
            done = &mut round_trips, if !answered => {
                done?;
                answered = true;
            }
        }
    };
    match failed {
        Some(why) => say(&Event::Failed(why))?,
        None if !answered => round_trips.await?,
        None => {}
    }
    Ok(())
}

/// Measures round trips, and asks how busy the server is, on one connection.
struct Watch<'a> {
    kept: Kept,
    ping: Place,
    load: Option<Place>,
    say: Say<'a>,
}

impl Watch<'_> {
    /// Whether there is who is expected. The first answer counts for nothing: a path may have to be found first.
    async fn check(&mut self) -> Result<(), String> {
        self.kept.round_trip(&self.ping).await?;
        match &self.load {
            Some(place) => self.kept.read(place).await.map(drop),
            None => Ok(()),
        }
    }

    /// From then to then; what is counted lies between.
    async fn until(&mut self, from: Duration, to: Duration) -> io::Result<()> {
        let begun = Instant::now();
        let left = |until: Duration| until.saturating_sub(begun.elapsed());
        tokio::time::sleep(left(from)).await;
        self.tell_load().await?;
        let mut lost = 0;
        while lost < PINGS_LOST_MAX && begun.elapsed() < to {
            let sent = Instant::now();
            match self.kept.round_trip(&self.ping).await {
                Ok(time) => {
                    lost = 0;
                    let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
                    (self.say)(&Event::Answered(us))?;
                }
                Err(_) => lost += 1,
            }
            let pause = PING_EVERY.saturating_sub(sent.elapsed());
            tokio::time::sleep(pause.min(left(to))).await;
        }
        tokio::time::sleep(left(to)).await;
        self.tell_load().await
    }

    async fn tell_load(&mut self) -> io::Result<()> {
        let Some(place) = &self.load else {
            return Ok(());
        };
        // One that is not told is not known.
        let told = self.kept.read(place).await.ok();
        match told.and_then(|load| serde_json::from_slice(&load).ok()) {
            Some(load) => (self.say)(&Event::Load(load)),
            None => Ok(()),
        }
    }
}
