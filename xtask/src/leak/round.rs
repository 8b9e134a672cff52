//! One round: a world of its own, from before the box is there to traffic that passes the tunnel after all that
//! befell it.

use super::capture::Capture;
use super::ends::{Certificates, Extras, Program, Server, TUNNEL, Variant, box_setup};
use super::events::{Event, Step};
use super::traffic::Traffic;
use super::verdict::{Judge, Verdict};
use super::world::{DIRECT, Legs, Machine, Network, SERVERS, box_addresses};
use crate::ensure;
use crate::lab::cygnet::{Cygnet, Setup};
use crate::lab::process::last_lines;
use crate::lab::{Failure, Lab, Result, interrupt, wait_for};
use std::fs;
use std::time::{Duration, SystemTime};

/// How long anything may take that happens by itself.
const SOON: Duration = Duration::from_secs(20);
/// How long devices try before the first start.
const BEFORE_START: Duration = Duration::from_millis(300);

/// What a round is like.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// From 1 on.
    pub(super) number: u32,
    pub(super) server: Program,
    pub(super) legs: Legs,
    /// The box answers the devices' questions for names.
    pub(super) answers: bool,
    /// There are devices with other policies, too.
    pub(super) policies: bool,
    /// The box itself sends as well: where nobody flushes nftables, which alone holds it.
    pub(super) own: bool,
    pub(super) steps: Vec<Step>,
}

/// What was seen in a round.
pub(super) struct Played {
    pub(super) leaks: Vec<Leak>,
    /// Packets of IKE and ESP from the box to the server.
    pub(super) tunnelled: u64,
    /// What the devices sent.
    pub(super) sent: u64,
    /// From the end of the last event to traffic of all devices through the tunnel, or why there was none.
    pub(super) back: Result<Duration>,
}

impl Played {
    /// Leaks from the first event on.
    pub(super) fn leaked_in_events(&self) -> usize {
        self.leaks.iter().filter(|leak| leak.in_events).count()
    }
}

/// A packet that was not to leave the home.
pub(super) struct Leak {
    pub(super) at: SystemTime,
    /// What had happened last, and how long before.
    pub(super) after: String,
    pub(super) since: Duration,
    /// The first event had happened.
    pub(super) in_events: bool,
    pub(super) what: String,
}

/// Plays it, with a guard or without. An error is one of the lab; what is wrong with the box is in [`Played`].
pub(super) fn play(
    lab: &Lab,
    plan: &Plan,
    certificates: &Certificates,
    guarded: bool,
) -> Result<Played> {
    let network = Network::build(lab, plan.legs, plan.policies)?;
    if !guarded {
        network.refuse_redirects()?;
    }
    let server = Server::start(lab, &network.server, certificates, plan.server)?;
    let capture = Capture::start(lab, &network.router)?;
    let traffic = Traffic::start(&network)?;
    let mut scene = Scene {
        lab,
        certificates,
        answers: plan.answers,
        // Without a guard it sends what it likes, and would hide a control of which no device's packets leak.
        own: plan.own && guarded,
        guarded,
        network,
        server,
        traffic,
        running: None,
        configured: Variant::Good,
        diary: Diary::default(),
    };
    let back = scene.play(&plan.steps);
    interrupt::check()?;
    let back = back.map_err(|failure| scene.with_log(failure));
    let sent = scene.traffic.sent();
    let Scene {
        traffic,
        diary,
        running,
        ..
    } = scene;
    drop(traffic);
    let running = running.map(|running| (running.machine, running.gateway));
    let judge = Judge {
        direct: plan.policies.then_some(DIRECT),
        boxes: box_addresses()?,
        servers: SERVERS
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, _>>()?,
    };
    let (mut leaks, mut tunnelled, mut direct) = (Vec::new(), 0, 0);
    capture.finish(|at, frame| match judge.judge(frame) {
        Verdict::Tunnel => tunnelled += 1,
        Verdict::Direct => direct += 1,
        Verdict::Error | Verdict::Neighbours | Verdict::Elsewhere => {}
        Verdict::Leak(what) => leaks.push(diary.leak(at, what)),
    })?;
    drop(running);
    ensure!(
        !plan.policies || direct > 0,
        "nothing came of the device that goes direct"
    );
    Ok(Played {
        leaks,
        tunnelled,
        sent,
        back,
    })
}

/// What happened when.
#[derive(Default)]
struct Diary {
    entries: Vec<(SystemTime, String)>,
    /// The entry of the first event.
    first_event: Option<usize>,
}

impl Diary {
    fn note(&mut self, what: impl Into<String>) {
        self.entries.push((SystemTime::now(), what.into()));
    }

    /// What is noted last goes on.
    fn go_on(&mut self, how: &str) {
        let last = self.entries.last().map_or("", |(_, what)| what.as_str());
        let what = last.split(", ").next().unwrap_or_default();
        self.note(format!("{what}, {how}"));
    }

    fn leak(&self, at: SystemTime, what: String) -> Leak {
        let before = self.entries.iter().rposition(|(moment, _)| *moment <= at);
        let entry = before.and_then(|place| self.entries.get(place));
        let since = entry.and_then(|(moment, _)| at.duration_since(*moment).ok());
        Leak {
            at,
            after: entry
                .map_or("the beginning", |(_, what)| what.as_str())
                .to_owned(),
            since: since.unwrap_or_default(),
            in_events: self.first_event.is_some() && before >= self.first_event,
            what,
        }
    }
}

/// The box while it is switched on.
struct Running {
    /// What it sends itself; ends with it.
    own: Option<Traffic>,
    machine: Machine,
    gateway: Cygnet,
}

/// Everything of a round.
struct Scene<'a> {
    lab: &'a Lab,
    certificates: &'a Certificates,
    answers: bool,
    own: bool,
    guarded: bool,
    network: Network,
    server: Server,
    traffic: Traffic,
    running: Option<Running>,
    configured: Variant,
    diary: Diary,
}

impl Scene<'_> {
    fn play(&mut self, steps: &[Step]) -> Result<Duration> {
        self.diary.note("the first boot");
        self.boot(BEFORE_START)?;
        self.traffic.passes_the_tunnel(SOON)?;
        self.diary.first_event = Some(self.diary.entries.len());
        for step in steps {
            self.diary.note(step.to_string());
            self.step(step)
                .map_err(|failure| failure.while_doing(step))?;
            interrupt::pause(step.pause)?;
        }
        let back = self.traffic.passes_the_tunnel(SOON)?;
        if let Some(own) = &self.running()?.own {
            own.passes_the_tunnel(SOON)?;
        }
        Ok(back)
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        match step.event {
            Event::KillEngine => self.kill_engine(),
            Event::KillSupervisor => {
                self.running()?.gateway.kill_supervisor()?;
                self.start_again(step)
            }
            Event::KillBoth => {
                self.kill_engine()?;
                self.running()?.gateway.kill_supervisor()?;
                self.start_again(step)
            }
            Event::Terminate => {
                self.running()?.gateway.stop()?;
                self.start_again(step)
            }
            Event::DownUp => {
                self.command(&["down", TUNNEL])?;
                self.while_down(step)?;
                self.diary.go_on("up");
                // Whether it comes up is seen in the end.
                self.command(&["up", TUNNEL, "--wait", "0"])
            }
            Event::Reload => {
                self.configure(match self.configured {
                    Variant::Good => Variant::Changed,
                    _ => Variant::Good,
                })?;
                self.command(&["reload"])
            }
            Event::Rekey => self.rekey(),
            Event::Reboot => {
                self.power_off()?;
                interrupt::pause(step.lasts)?;
                self.diary.go_on("on again");
                self.boot(step.lasts)
            }
            Event::ChangeAddress => {
                let running = self.running.as_mut().ok_or_else(is_off)?;
                running.machine.change_address(&self.network)
            }
            Event::KillServer => {
                self.server.kill()?;
                interrupt::pause(step.lasts)?;
                self.diary.go_on("started again");
                self.server.restart()
            }
            Event::BreakConfiguration(how) => self.break_configuration(step, Variant::Broken(how)),
            Event::FlushRuleset => self.flush(),
            Event::WrongClock => self.wrong_clock(step),
        }
    }

    /// As systemd does it: the guard before there is a network, cygnet after it.
    fn boot(&mut self, without_cygnet: Duration) -> Result<()> {
        let mut machine = Machine::switched_on(self.lab)?;
        let mut gateway = Cygnet::prepare(self.lab, &machine.namespace, &self.setup())?;
        if self.guarded {
            guard_on(&gateway, &[0])?;
        }
        let legs = self.network.legs;
        let own = (self.own.then(|| Traffic::of_box(&machine.namespace, legs))).transpose()?;
        machine.plug(&self.network)?;
        interrupt::pause(without_cygnet)?;
        self.diary.go_on("cygnet started");
        gateway.restart()?;
        self.running = Some(Running {
            own,
            machine,
            gateway,
        });
        Ok(())
    }

    fn power_off(&mut self) -> Result<()> {
        let Some(mut running) = self.running.take() else {
            return Err(is_off());
        };
        running.machine.power_off()?;
        running.gateway.kill_supervisor()?;
        // What is on its disk stays.
        let run = running.gateway.directory().join("run");
        drop(running);
        match fs::remove_dir_all(run) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn kill_engine(&mut self) -> Result<()> {
        let gateway = &self.running()?.gateway;
        // It may have been killed a moment before.
        wait_for("there is an engine", SOON, || {
            Ok(gateway.kill_engine().ok())
        })
    }

    /// Asks for new keys of the Child SA, and waits for them. The tunnel may be down at this moment, or on its way down:
    /// then it is asked for again.
    fn rekey(&mut self) -> Result<()> {
        let gateway = &self.running()?.gateway;
        let mut asked: Option<(String, String)> = None;
        wait_for("the Child SA has new keys", SOON, || {
            // There may be no engine yet.
            let sas = gateway.connection(TUNNEL).unwrap_or_default().ike_sas;
            let up = sas.into_iter().find(|sa| sa.state == "up");
            let Some(sa) = up.filter(|sa| sa.children.len() == 1) else {
                return Ok(None);
            };
            let child = &sa.children[0];
            let now = (sa.initiator_spi.clone(), child.spi_in.clone());
            match &asked {
                Some((sa, child)) if *sa == now.0 => Ok((*child != now.1).then_some(())),
                _ => {
                    if gateway.request(TUNNEL, "rekey", Some(&child.name)).is_ok() {
                        asked = Some(now);
                    }
                    Ok(None)
                }
            }
        })
    }

    fn start_again(&mut self, step: &Step) -> Result<()> {
        self.while_down(step)?;
        self.diary.go_on("started again");
        self.running()?.gateway.restart()
    }

    fn while_down(&mut self, step: &Step) -> Result<()> {
        interrupt::pause(step.lasts / 2)?;
        if step.flush {
            self.flush()?;
        }
        interrupt::pause(step.lasts / 2)
    }

    fn flush(&mut self) -> Result<()> {
        let host = &self.running()?.machine.namespace;
        host.exec(["nft", "flush", "ruleset"]).map(drop)
    }

    /// Reloaded, then started with, as after a power cut: the guard is put in place again, cygnet refuses.
    fn break_configuration(&mut self, step: &Step, broken: Variant) -> Result<()> {
        self.configure(broken)?;
        let guarded = self.guarded;
        let gateway = &mut self.running()?.gateway;
        let reloaded = gateway.control(&["reload"])?;
        ensure!(
            !reloaded.success(),
            "`cygnet reload` takes it: {}",
            reloaded.stdout
        );
        gateway.stop()?;
        if guarded {
            // 1: it is what was last in place.
            guard_on(gateway, &[0, 1])?;
        }
        let run = gateway.run_to_its_end()?;
        ensure!(!run.success(), "`cygnet run` ends as if all were well");
        self.while_down(step)?;
        self.configure(Variant::Good)?;
        self.diary.go_on("mended");
        self.running()?.gateway.restart()
    }

    fn wrong_clock(&mut self, step: &Step) -> Result<()> {
        self.running()?.gateway.stop()?;
        self.configure(Variant::ClockBehind)?;
        let gateway = &mut self.running()?.gateway;
        gateway.restart()?;
        gateway.wait_for_warning("clock is not set", SOON)?;
        self.while_down(step)?;
        let state = self.running()?.gateway.connection(TUNNEL)?.state;
        ensure!(
            state != "up",
            "the tunnel is up although the clock cannot be right"
        );
        self.configure(Variant::Good)?;
        self.diary.go_on("set");
        self.command(&["reload"])
    }

    fn setup(&self) -> Setup {
        box_setup(
            self.certificates,
            self.network.legs,
            Extras {
                answers: self.answers,
                policies: self.network.others.is_some(),
            },
            self.guarded,
            self.configured,
        )
    }

    fn configure(&mut self, variant: Variant) -> Result<()> {
        self.configured = variant;
        let setup = self.setup();
        self.running()?.gateway.write(&setup)
    }

    /// A control command, until it is taken: the engine may be on its way.
    fn command(&mut self, arguments: &[&str]) -> Result<()> {
        let gateway = &self.running()?.gateway;
        let mut said = String::new();
        let what = format!("`cygnet {}`", arguments.join(" "));
        wait_for(&what, SOON, || {
            let finished = gateway.control(arguments)?;
            let good = finished.success();
            said = finished.stdout + &finished.stderr;
            Ok(good.then_some(()))
        })
        .map_err(|failure| Failure::new(format!("{failure}: {}", said.trim())))
    }

    fn running(&mut self) -> Result<&mut Running> {
        self.running.as_mut().ok_or_else(is_off)
    }

    fn with_log(&self, failure: Failure) -> Failure {
        let log = self.running.as_ref().map(|running| running.gateway.log());
        Failure::new(format!(
            "{failure}\nthe box's last words:\n{}\nthe server's:\n{}",
            last_lines(&log.unwrap_or_default(), 14),
            self.server.last_words()
        ))
    }
}

fn is_off() -> Failure {
    Failure::new("the box is switched off")
}

/// `cygnet gateway on`, with one of these exit codes.
fn guard_on(gateway: &Cygnet, codes: &[i32]) -> Result<()> {
    let finished = gateway.configured(&["gateway", "on"])?;
    let code = finished.status.code();
    ensure!(
        code.is_some_and(|code| codes.contains(&code)),
        "`cygnet gateway on` ended with {code:?}: {}",
        finished.stderr.trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_is_told_after_what_came_before_it() {
        let mut diary = Diary::default();
        let begun = SystemTime::now();
        diary.note("the first boot");
        diary.go_on("cygnet started");
        diary.first_event = Some(diary.entries.len());
        diary.note("SIGTERM + nft flush ruleset");
        diary.go_on("started again");
        let after = |at: SystemTime| {
            let leak = diary.leak(at, String::new());
            (leak.after, leak.in_events)
        };
        let moment = |entry: usize| diary.entries[entry].0;
        assert_eq!(
            after(begun - Duration::from_secs(1)),
            ("the beginning".to_owned(), false)
        );
        assert_eq!(
            after(moment(1)),
            ("the first boot, cygnet started".to_owned(), false)
        );
        let late = diary.leak(moment(3) + Duration::from_millis(5), String::new());
        assert_eq!(late.after, "SIGTERM + nft flush ruleset, started again");
        assert!(late.in_events && late.since == Duration::from_millis(5));
        assert!(after(moment(2)).1);
    }
}
