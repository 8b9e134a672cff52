//! The engine: no capabilities, no files, a user of its own. It holds the sockets and TUN queues
//! it was handed, runs the IKE core, and seals and opens packets.
//!
//! One thread runs the core, in [`Engine::serve`]; whatever else happens reaches it as an
//! [`Input`]. Packets are sealed and opened by threads of the [`datapath`], which take no lock for a
//! packet that none of them waits for.

mod ask;
mod carried;
mod changes;
mod clock;
mod datapath;
mod eap;
mod renewals;
mod status;
mod virtuals;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use cygnet_config::Config;
use cygnet_crypto::SystemRandom;
use cygnet_ike::Endpoint;
use cygnet_ike::event::{Event, EventKind};
use cygnet_ike::io::{Answer, AskId, Command, DataCommand, DataEvent, Output, Path};
use cygnet_ike::policy::CredentialId;
use cygnet_ike::time::{Instant, Now};

use crate::ipc::{Bundle, Channel, Control, Setup, ToEngine, ToSupervisor, TunRole};
use crate::said::Said;
use ask::{Asker, Trusted};
use carried::Touched;
use changes::Changes;
use clock::Clock;
use datapath::Datapath;
use renewals::Renewals;
use virtuals::Virtuals;

/// Octets of IKE datagrams that wait for the core; more are dropped, as a full socket buffer would. Anybody may send
/// datagrams of 64 KiB.
const WAITING_MAX: usize = 2 << 20;
/// A datagram counts as so many octets at least: 512 of them may wait.
const WAITING_LEAST: usize = 4096;
/// Inputs handled before outputs that wait for nothing are looked at again.
const BURST: usize = 64;
/// How often the data path is asked what it did, and the supervisor hears that we live.
const TICK: Duration = Duration::from_secs(1);

/// What reaches the core's thread.
pub(crate) enum Input {
    /// From the supervisor, with the descriptors that came along.
    Supervisor(Box<ToEngine>, Vec<OwnedFd>),
    /// The supervisor has ended; so do we.
    SupervisorGone,
    /// An IKE message, without the non-ESP marker.
    Ike(Path, Vec<u8>),
    /// From the data path.
    Data(DataEvent),
    /// An answer that was worked out beside the core.
    Answer(AskId, Answer),
}

/// The way to the core's thread, for all who have something for it.
#[derive(Clone)]
pub(crate) struct Inbox {
    sender: Sender<Input>,
    /// Octets of IKE messages.
    waiting: Arc<AtomicUsize>,
}

impl Inbox {
    pub(crate) fn send(&self, input: Input) {
        // The receiver ends with the process.
        let _ = self.sender.send(input);
    }

    /// An IKE message; `false` when too many wait already.
    pub(crate) fn send_ike(&self, path: Path, datagram: &[u8]) -> bool {
        let weight = weight(datagram);
        if self.waiting.fetch_add(weight, Ordering::Relaxed) + weight > WAITING_MAX {
            self.waiting.fetch_sub(weight, Ordering::Relaxed);
            return false;
        }
        self.send(Input::Ike(path, datagram.to_vec()));
        true
    }
}

/// What a datagram counts as while it waits.
fn weight(datagram: &[u8]) -> usize {
    datagram.len().max(WAITING_LEAST)
}

/// Runs the engine on the inherited socket. Returns the exit code.
pub(crate) fn run() -> u8 {
    let channel = match Channel::inherited() {
        Ok(channel) => Arc::new(channel),
        Err(error) => return fail(&format!("started without a supervisor: {error}")),
    };
    let (setup, fds) = match channel.receive::<ToEngine>() {
        Ok(Some((ToEngine::Setup(setup), fds))) => (setup, fds),
        Ok(_) => return fail("the supervisor's first message is not a set-up"),
        Err(error) => return fail(&format!("cannot read from the supervisor: {error}")),
    };
    match Engine::start(channel, *setup, fds) {
        Ok(engine) => engine.serve(),
        Err(message) => fail(&message),
    }
}

#[expect(clippy::print_stderr, reason = "the log may not be set up yet")]
fn fail(message: &str) -> u8 {
    eprintln!("cygnet engine: {message}");
    1
}

struct Engine {
    channel: Arc<Channel>,
    inbox: Receiver<Input>,
    waiting: Arc<AtomicUsize>,
    clock: Arc<Clock>,
    config: Config,
    endpoint: Endpoint,
    datapath: Datapath,
    asker: Asker,
    virtuals: Virtuals,
    /// Answers that were there at once; the core takes them after its outputs are drained.
    answers: VecDeque<(AskId, Answer)>,
    last_tick: Instant,
    /// What the log said lately.
    said: Said,
    /// What hooks are to be told of.
    touched: Touched,
    changes: Changes,
    renewals: Renewals,
    shutting_down: bool,
}

impl Engine {
    fn start(channel: Arc<Channel>, setup: Setup, fds: Vec<OwnedFd>) -> Result<Self, String> {
        let config = setup.bundle.parse().map_err(|e| e.to_string())?;
        crate::log::init(config.daemon.log);
        let (sender, inbox) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let sender = Inbox {
            sender,
            waiting: Arc::clone(&waiting),
        };
        let workers = crate::workers(&config.daemon);
        let datapath = Datapath::new(sender.clone(), workers, setup.sockets, setup.tuns, fds)?;
        confine().map_err(|e| format!("cannot give up rights: {e}"))?;
        let clock = Arc::new(Clock::new(setup.date));
        datapath.start()?;
        let reader = Arc::clone(&channel);
        let from_supervisor = sender.clone();
        std::thread::Builder::new()
            .name("supervisor".into())
            .spawn(move || {
                while let Ok(Some((message, fds))) = reader.receive::<ToEngine>() {
                    from_supervisor.send(Input::Supervisor(Box::new(message), fds));
                }
                from_supervisor.send(Input::SupervisorGone);
            })
            .map_err(|e| format!("cannot start a thread: {e}"))?;
        let asker = Asker::new(
            Arc::clone(&channel),
            sender,
            Trusted::of(&config, &setup.bundle),
            Arc::clone(&clock),
        )?;
        let mut changes = Changes::default();
        changes.configure(config.tunnels.keys());
        let mut endpoint = Endpoint::new(Box::new(SystemRandom), Arc::clone(&config.policy));
        let now = clock.now();
        endpoint.handle_policy(now, Arc::clone(&config.policy));
        channel
            .send(&ToSupervisor::Ready, &[])
            .map_err(|e| format!("cannot talk to the supervisor: {e}"))?;
        Ok(Self {
            channel,
            inbox,
            waiting,
            clock,
            config,
            endpoint,
            datapath,
            asker,
            virtuals: Virtuals::default(),
            answers: VecDeque::new(),
            last_tick: now.boot,
            said: Said::default(),
            touched: Touched::default(),
            changes,
            renewals: Renewals::default(),
            shutting_down: false,
        })
    }

    /// The loop. Returns the exit code.
    fn serve(mut self) -> u8 {
        self.tell_addresses(self.clock.now());
        loop {
            let drained = self.drain();
            self.settle();
            if drained {
                self.tell(&ToSupervisor::Drained);
                return 0;
            }
            let input = self.inbox.recv_timeout(self.patience());
            match input {
                Ok(input) => {
                    if !self.handle(input) {
                        return 0;
                    }
                    for _ in 0..BURST {
                        let Ok(input) = self.inbox.try_recv() else {
                            break;
                        };
                        // Order matters: what the last input caused comes before the next.
                        if self.drain() {
                            self.settle();
                            self.tell(&ToSupervisor::Drained);
                            return 0;
                        }
                        if self.datapath.is_overdue() {
                            self.settle();
                        }
                        if !self.handle(input) {
                            return 0;
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return 1,
            }
            let now = self.clock.now();
            if self
                .endpoint
                .poll_timeout()
                .is_some_and(|at| at <= now.boot)
            {
                self.endpoint.handle_timeout(now);
            }
            if now.boot.since(self.last_tick) >= TICK {
                self.last_tick = now.boot;
                self.tick(now);
            }
        }
    }

    fn patience(&self) -> Duration {
        let now = self.clock.now().boot;
        let tick = TICK.saturating_sub(now.since(self.last_tick));
        self.endpoint
            .poll_timeout()
            .map_or(tick, |at| at.since(now).min(tick))
    }

    /// `false`: end.
    fn handle(&mut self, input: Input) -> bool {
        let now = self.clock.now();
        match input {
            Input::Ike(path, datagram) => {
                self.waiting.fetch_sub(weight(&datagram), Ordering::Relaxed);
                self.endpoint.handle_datagram(now, path, &datagram);
            }
            Input::Data(event) => self.endpoint.handle_data(now, event),
            Input::Answer(id, answer) => self.endpoint.handle_answer(now, id, answer),
            Input::Supervisor(message, fds) => self.supervisor(now, *message, fds),
            Input::SupervisorGone => return false,
        }
        true
    }

    fn supervisor(&mut self, now: Now, message: ToEngine, fds: Vec<OwnedFd>) {
        match message {
            ToEngine::Answer { id, answer } => {
                if let Some((id, answer)) = self.asker.answered(id, answer, &self.datapath) {
                    self.endpoint.handle_answer(now, id, answer);
                }
            }
            ToEngine::LocalChange { gone, egress } => {
                let change = DataEvent::LocalChange { gone, egress };
                self.endpoint.handle_data(now, change);
            }
            ToEngine::Date(told) => {
                let news = self.clock.tell(told);
                let now = self.clock.now();
                if news.is_known {
                    // Whoever waits to be called again for want of a date is called now.
                    let change = DataEvent::LocalChange {
                        gone: Vec::new(),
                        egress: true,
                    };
                    self.endpoint.handle_data(now, change);
                }
                if news.is_other {
                    // A certificate may have expired by this date, or a revocation list.
                    self.endpoint.handle_command(now, Command::ExaminePeers);
                }
            }
            ToEngine::Control(control) => self.endpoint.handle_command(now, command(control)),
            ToEngine::Status { request } => {
                let status = self.endpoint.status(now);
                let status = status::report(&status, now.boot, &self.datapath, &self.renewals);
                self.tell(&ToSupervisor::Status { request, status });
            }
            ToEngine::Tuns { tuns } => self.add_tuns(tuns, fds),
            ToEngine::Reload {
                bundle,
                tuns,
                replaced,
            } => {
                self.reload(now, &bundle, tuns, fds);
                let secrets = replaced.into_iter().map(CredentialId).collect();
                let command = Command::SecretsReplaced { secrets };
                self.endpoint.handle_command(now, command);
            }
            ToEngine::Shutdown => {
                self.shutting_down = true;
                self.endpoint.handle_command(now, Command::Shutdown);
            }
            // Only ever the first.
            ToEngine::Setup(_) => tracing::error!("a second set-up came: ignored"),
        }
    }

    fn reload(&mut self, now: Now, bundle: &Bundle, tuns: Vec<TunRole>, fds: Vec<OwnedFd>) {
        // The supervisor has parsed the same text; a difference would be a bug.
        let config = match bundle.parse() {
            Ok(config) => config,
            Err(error) => {
                tracing::error!("cannot apply the new configuration: {error}");
                return;
            }
        };
        self.add_tuns(tuns, fds);
        self.asker.configure(Trusted::of(&config, bundle));
        self.endpoint.handle_policy(now, Arc::clone(&config.policy));
        // A CRL or an authority may have changed.
        self.endpoint.handle_command(now, Command::ExaminePeers);
        self.changes.configure(config.tunnels.keys());
        self.touched
            .note_all(&self.endpoint.status(now).ike_sas, &config);
        self.config = config;
    }

    fn add_tuns(&mut self, tuns: Vec<TunRole>, fds: Vec<OwnedFd>) {
        if let Err(error) = self.datapath.add_tuns(tuns, fds) {
            tracing::error!("cannot take over the new TUN devices: {error}");
        }
    }

    /// Carries out all the core has to say. `true`: every SA is deleted, and that was asked for.
    fn drain(&mut self) -> bool {
        let mut drained = false;
        loop {
            while let Some(output) = self.endpoint.poll_output() {
                match output {
                    Output::Ask(id, ask) => {
                        if let Some(answer) = self.asker.ask(id, ask, &self.datapath) {
                            self.answers.push_back((id, answer));
                        }
                    }
                    Output::Data(command) => self.data(command),
                    Output::Transmit(transmit) => self.datapath.transmit(transmit),
                    Output::Event(event) => {
                        self.said.log(&event, self.clock.now().boot);
                        self.note(&event);
                        drained |= self.shutting_down && event.kind == EventKind::Drained;
                    }
                }
            }
            self.datapath.send_messages();
            let Some((id, answer)) = self.answers.pop_front() else {
                break;
            };
            self.endpoint.handle_answer(self.clock.now(), id, answer);
        }
        drained
    }

    /// Has workers and the supervisor know what was changed: once for all inputs that were there together, as this costs
    /// the more the more tunnels there are.
    fn settle(&mut self) {
        self.datapath.publish();
        for reach in self.datapath.reach_changes() {
            self.tell(&reach);
        }
        // Behind its routes, and an heir before who left it what it carries.
        let touched = self.touched.take(self.clock.now().boot);
        for ike_sa in touched.into_iter().rev() {
            let sa = self.endpoint.ike_sa(self.clock.now(), ike_sa);
            let carried = sa.and_then(|sa| carried::carried(&sa, &self.config));
            let carried = carried.map(Box::new);
            let ike_sa = ike_sa.0;
            self.tell(&ToSupervisor::Carried { ike_sa, carried });
        }
    }

    /// What others than the log make of an event.
    fn note(&mut self, event: &Event) {
        self.touched.note(event, &self.config);
        let Some(tunnel) = &event.connection else {
            return;
        };
        self.renewals.note(tunnel, event);
        if let Some(change) = self.changes.of(tunnel, event) {
            self.tell(&ToSupervisor::Changed {
                connection: tunnel.clone(),
                change,
            });
        }
    }

    fn data(&mut self, command: DataCommand) {
        match command {
            DataCommand::SetVirtual {
                connection,
                ike_sa,
                lease,
            } => {
                if let Some(lease) = self.virtuals.set(&connection.name, ike_sa, lease) {
                    self.tell(&ToSupervisor::SetVirtual {
                        connection: connection.name.clone(),
                        addresses: lease.addresses,
                        dns: lease.dns,
                    });
                }
            }
            DataCommand::ReleaseLease { ike_sa } => {
                self.tell(&ToSupervisor::ReleaseLease { ike_sa: ike_sa.0 });
            }
            DataCommand::EndLogIn { ike_sa } => self.asker.end_log_in(ike_sa),
            other => {
                if let Some(answer) = self.datapath.order(other) {
                    self.answers.push_back(answer);
                }
            }
        }
    }

    fn tick(&mut self, now: Now) {
        for event in self.datapath.activity() {
            self.endpoint.handle_data(now, event);
        }
        self.tell_addresses(now);
        self.tell(&ToSupervisor::Heartbeat);
    }

    /// The core compares them with what it knows.
    fn tell_addresses(&mut self, now: Now) {
        let addresses = self.datapath.own_addresses();
        let event = DataEvent::OwnAddresses { addresses };
        self.endpoint.handle_data(now, event);
    }

    fn tell(&self, message: &ToSupervisor) {
        if let Err(error) = self.channel.send(message, &[]) {
            // Its end arrives as an input of its own.
            tracing::debug!("cannot tell the supervisor: {error}");
        }
    }
}

/// The supervisor started us as an unprivileged user already; this keeps it so, keeps keys out of
/// core files, and ends us when the supervisor ends.
fn confine() -> std::io::Result<()> {
    use rustix::process::{
        DumpableBehavior, Resource, Rlimit, Signal, getppid, set_dumpable_behavior,
        set_parent_process_death_signal, setrlimit,
    };
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != parent {
        return Err(std::io::Error::other("the supervisor ended meanwhile"));
    }
    rustix::thread::set_no_new_privs(true)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    if rustix::process::geteuid().is_root() {
        return Err(std::io::Error::other("still root"));
    }
    Ok(())
}

fn command(control: Control) -> Command {
    match control {
        Control::Up { connection, child } => Command::Up { connection, child },
        Control::Down { connection, child } => Command::Down { connection, child },
        Control::RekeyIke { connection } => Command::RekeyIke { connection },
        Control::RekeyChild { connection, child } => Command::RekeyChild { connection, child },
        Control::Reauthenticate { connection } => Command::Reauthenticate { connection },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cygnet_ike::io::Transport;

    #[test]
    fn so_many_octets_wait_for_the_core() {
        let path = Path {
            transport: Transport::Udp,
            local: "192.0.2.1:500".parse().unwrap(),
            remote: "198.51.100.2:500".parse().unwrap(),
            interface: 0,
        };
        let longest = vec![0; 65_507];
        for (datagram, expected) in [(&[0; 300][..], 512), (&longest, 32)] {
            let (sender, _receiver) = mpsc::channel();
            let waiting = Arc::new(AtomicUsize::new(0));
            let inbox = Inbox {
                sender,
                waiting: Arc::clone(&waiting),
            };
            let taken = (0..1000).take_while(|_| inbox.send_ike(path, datagram));
            assert_eq!(taken.count(), expected);
            // One that was handled makes room for one.
            waiting.fetch_sub(weight(datagram), Ordering::Relaxed);
            assert!(inbox.send_ike(path, datagram));
            assert!(!inbox.send_ike(path, datagram));
        }
    }
}
