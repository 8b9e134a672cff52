//! The supervisor: root, small, parses nothing that came from a network.
//!
//! It reads the configuration and the keys, makes TUN devices, sockets, routes and rules, starts
//! the engine and hands it what it needs, answers its questions, serves the control socket, and
//! starts the engine again when it dies. One loop; whatever may take long runs beside it.

mod admission;
mod companion;
pub(crate) mod control;
mod crls;
mod devices;
pub(crate) mod dhcp;
pub(crate) mod dns;
mod engine;
pub(crate) mod expiry;
mod guesses;
mod history;
mod hooks;
mod leases;
pub(crate) mod network;
mod orders;
mod passwords;
mod questions;
mod secrets;
mod speedtest;
pub(crate) mod start;
mod time_servers;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::api::Status;
use crate::ask_time::Answer;
use crate::clock::{Clock, LastKnown, Told, Whose};
use crate::error::StartError;
use crate::fetch_crl::Found;
use crate::ipc::{SupervisorAnswer, ToEngine};
use control::ControlRequest;
use crls::Crls;
use dhcp::{Dhcp, DhcpEvent};
use dns::Dns;
use engine::{Engine, EngineEvent, RESTART_FIRST};
use guesses::{Admission, Guesses};
use history::History;
use hooks::Hooks;
use leases::Leases;
use network::Network;
use questions::Guess;
use speedtest::Endpoint;
use start::{Loaded, Secrets};
use time_servers::TimeServers;

/// The engine says at least this often that it lives.
const HEARTBEAT_MAX: Duration = Duration::from_secs(15);
/// How long DELETEs may take at the end.
const DRAIN_MAX: Duration = Duration::from_secs(4);
/// How often the clock is looked at while it is not set: tunnels wait for it.
const CLOCK_LOOKED_AT: Duration = Duration::from_millis(500);
/// How often the log tells what expires soon.
const DAILY: Duration = Duration::from_secs(86_400);
/// Messages of the engine that wait; then it waits.
const EVENTS_MAX: usize = 64;
/// The same for the process that lends addresses.
const DHCP_EVENTS_MAX: usize = 8;

/// Why tunnels are down when this program was told to end.
const ENDED: &str = "cygnet was stopped";

/// Runs until told to end. Returns the exit code.
pub(crate) fn run(config: &Path) -> u8 {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&StartError::refused(format_args!("cannot start: {error}"))),
    };
    let local = tokio::task::LocalSet::new();
    let code = local.block_on(&runtime, async {
        match Supervisor::start(config).await {
            Ok(supervisor) => supervisor.serve().await,
            Err(error) => refuse(&error),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

#[expect(
    clippy::print_stderr,
    reason = "before the log is set up, and for whoever typed the command"
)]
fn refuse(error: &StartError) -> u8 {
    for line in error.to_string().lines() {
        eprintln!("cygnet: {line}");
    }
    2
}

/// What the loop waits for beside the engine and the control socket.
enum Done {
    /// An attempt to log in with a password has waited.
    Guess {
        generation: u64,
        id: u64,
        attempt: Box<Guess>,
        admitted: Admission,
    },
    /// A question of the engine is answered.
    Answer {
        generation: u64,
        id: u64,
        answer: SupervisorAnswer,
    },
    /// Time to start the engine again.
    Restart { generation: u64 },
    /// The engine did not report its status in time.
    StatusLate { request: u64 },
    /// Packets to peers leave otherwise than before: from other addresses than those `gone`; with
    /// `egress`, by another next hop.
    LocalChange { gone: Vec<IpAddr>, egress: bool },
    /// Somebody deleted a TUN.
    TunsMissing,
    /// What came of fetching a revocation list.
    Crl {
        url: String,
        found: Result<Found, String>,
    },
    /// Because this tunnel is down, what is tunnelled through it goes direct, or does no more.
    OnFailure { tunnel: String, open: bool },
    /// What came of asking time servers, each with its answer.
    Time {
        found: Result<Vec<(String, Answer)>, String>,
    },
    /// The hook of a tunnel has ended.
    Hook { tunnel: String },
    /// The history is written, or cannot be.
    History { kept: Result<(), String> },
    /// Something about the process that answers devices.
    Dns(dns::Event),
    /// What the machine says to what is to be lent by this section.
    Dhcp(Box<(dhcp::Section, Result<dhcp::Wanted, String>)>),
}

/// Everything the supervisor owns.
struct Supervisor {
    path: PathBuf,
    loaded: Loaded,
    secrets: Rc<Secrets>,
    user: (u32, u32),
    network: Network,
    leases: Leases,
    guesses: Guesses,
    crls: Crls,
    hooks: Hooks,
    history: History,
    speedtest: Endpoint,
    dns: Dns,
    dhcp: Dhcp,
    dhcp_events: mpsc::Sender<DhcpEvent>,
    clock: Clock,
    last_known: LastKnown,
    time_servers: TimeServers,
    /// What the engine knows of the date.
    told: Told,
    /// Whose date counted when that was last looked at.
    whose_date: Whose,
    engine: Option<Engine>,
    engine_events: mpsc::Sender<EngineEvent>,
    done: mpsc::UnboundedSender<Done>,
    generation: u64,
    restarts: u32,
    restart_wait: Duration,
    started: Instant,
    next_status: u64,
    waiting_status: BTreeMap<u64, oneshot::Sender<Status>>,
    questions: usize,
    ending: bool,
    /// What a loop of its own hands to [`Supervisor::serve`].
    inbox: Option<Inbox>,
    /// Of the run_dir.
    _lock: File,
}

struct Inbox {
    engine: mpsc::Receiver<EngineEvent>,
    done: mpsc::UnboundedReceiver<Done>,
    control: mpsc::Receiver<ControlRequest>,
    dhcp: mpsc::Receiver<DhcpEvent>,
}

impl Supervisor {
    /// Reads and checks everything, then changes the kernel, then starts the engine. An error
    /// leaves nothing changed.
    async fn start(path: &Path) -> Result<Self, StartError> {
        let mut loaded = start::load(path)?;
        crate::log::init(loaded.config.daemon.log);
        let user = start::engine_user(loaded.config.daemon.engine_user.as_deref())?;
        let run_dir = PathBuf::from(&loaded.config.daemon.run_dir);
        network::make_run_dir(&run_dir)?;
        let lock = control::lock(&run_dir).map_err(StartError::Refused)?;
        let socket = run_dir.join("control.sock");
        let listener = control::bind(&socket).map_err(StartError::Refused)?;
        let (done, done_inbox) = mpsc::unbounded_channel();
        let network = Network::set_up(&loaded.config, &run_dir, done.clone()).await;
        let network = network.inspect_err(|_| remove_socket(&socket))?;
        let secrets = Rc::new(std::mem::take(&mut loaded.secrets));
        let mut leases = Leases::default();
        leases.configure(pools(&loaded));
        let last_known = LastKnown::read(&loaded.config.daemon.state_dir);
        let mut clock = Clock::new(&loaded.config, last_known.kept());
        let crls = Crls::read(&loaded.config, Instant::now());
        crls.fill(&mut loaded.bundle);
        let hooks = Hooks::new(&loaded.config, &run_dir);
        let history = History::read(
            &loaded.config.daemon.state_dir,
            loaded.config.tunnels.keys(),
            clock.date().ok(),
            Instant::now(),
        );
        let date = clock.date().ok().map(|date| date.0);
        let dhcp = Dhcp::read(&loaded.config.daemon.state_dir, date);
        let time_servers = loaded.config.daemon.time_servers.clone();
        clock.doubt(!time_servers.is_empty() && expiry::needs_a_date(&loaded.config));
        let (dhcp_events, dhcp_inbox) = mpsc::channel(DHCP_EVENTS_MAX);
        let (control_sender, control) = mpsc::channel(32);
        let (engine_events, engine_inbox) = mpsc::channel(EVENTS_MAX);
        tokio::task::spawn_local(control::serve(listener, control_sender));
        let mut supervisor = Self {
            path: path.to_owned(),
            loaded,
            secrets,
            user,
            network,
            leases,
            guesses: Guesses::default(),
            crls,
            hooks,
            history,
            speedtest: Endpoint::default(),
            dns: Dns::default(),
            dhcp,
            dhcp_events,
            time_servers: TimeServers::new(time_servers, Instant::now()),
            told: clock.told(),
            whose_date: clock.whose(),
            clock,
            last_known,
            engine: None,
            engine_events,
            done,
            generation: 0,
            restarts: 0,
            restart_wait: RESTART_FIRST,
            started: Instant::now(),
            next_status: 0,
            waiting_status: BTreeMap::new(),
            questions: 0,
            ending: false,
            _lock: lock,
            inbox: Some(Inbox {
                engine: engine_inbox,
                done: done_inbox,
                control,
                dhcp: dhcp_inbox,
            }),
        };
        if let Err(message) = supervisor.start_engine() {
            supervisor.network.take_back().await;
            remove_socket(&socket);
            return Err(StartError::Refused(message));
        }
        let config = &supervisor.loaded.config;
        supervisor.speedtest.configure(config, supervisor.user);
        Ok(supervisor)
    }

    /// The loop. Returns the exit code.
    async fn serve(mut self) -> u8 {
        let Some(mut inbox) = self.inbox.take() else {
            return 1;
        };
        let signals = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
            signal(SignalKind::hangup()),
        );
        let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = signals else {
            tracing::error!("cannot receive signals");
            return 1;
        };
        // What an earlier run left to be undone.
        self.run_hooks();
        let mut watchdog = tokio::time::interval(Duration::from_secs(3));
        let mut clock = tokio::time::interval(CLOCK_LOOKED_AT);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut daily = tokio::time::interval(DAILY);
        let mut drained_by: Option<tokio::time::Instant> = None;
        loop {
            let drain = async {
                match drained_by {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = terminate.recv() => drained_by = drained_by.or(Some(self.end())),
                _ = interrupt.recv() => drained_by = drained_by.or(Some(self.end())),
                () = drain => break,
                Some(done) = inbox.done.recv() => self.done(done).await,
                Some(request) = inbox.control.recv() => self.control(request).await,
                _ = hangup.recv() => {
                    if let Err(refusal) = self.reload().await {
                        tracing::error!("reload refused, the old configuration stays: {}", refusal.error);
                    }
                }
                _ = watchdog.tick() => self.watch(),
                _ = clock.tick(), if self.whose_date != Whose::Machines => self.watch_clock(),
                _ = daily.tick() => self.tell_expiry(),
                Some(event) = inbox.dhcp.recv() => self.dhcp_event(event),
                // Last: an engine that talks without end must not drown the operator.
                Some(event) = inbox.engine.recv() => {
                    if self.engine_event(event) {
                        break;
                    }
                }
            }
        }
        if let Some(engine) = self.engine.take() {
            engine.kill();
        }
        self.dns.end();
        self.end_dhcp(&mut inbox.dhcp).await;
        self.keep_date(true);
        self.history.all_closed(ENDED, self.clock.date().ok());
        self.history.all_down(ENDED, self.clock.date().ok());
        self.end_hooks(&mut inbox.done).await;
        if let Some(page) = self.history.last_page() {
            self.history.written(page.write());
        }
        self.network.take_back().await;
        let run_dir = Path::new(&self.loaded.config.daemon.run_dir);
        remove_socket(&run_dir.join("control.sock"));
        tracing::info!("ended");
        0
    }

    /// Asks the engine to delete every SA; the moment at which it is not waited for any more.
    fn end(&mut self) -> tokio::time::Instant {
        tracing::info!("ending: deleting every SA");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        self.ending = true;
        let alive = self.tell(&ToEngine::Shutdown);
        tokio::time::Instant::now() + if alive { DRAIN_MAX } else { Duration::ZERO }
    }

    async fn done(&mut self, done: Done) {
        match done {
            Done::Answer {
                generation,
                id,
                answer,
            } => {
                if generation == self.generation {
                    self.questions = self.questions.saturating_sub(1);
                    self.tell(&ToEngine::Answer { id, answer });
                }
            }
            Done::Guess {
                generation,
                id,
                attempt,
                admitted,
            } => {
                self.guesses.waited(admitted);
                if generation == self.generation {
                    self.verify(id, &attempt, admitted);
                }
            }
            Done::Restart { generation } => {
                if generation == self.generation
                    && self.engine.is_none()
                    && !self.ending
                    && let Err(error) = self.start_engine()
                {
                    tracing::error!("cannot start the engine: {error}");
                    self.restart_in(self.restart_wait);
                }
            }
            Done::LocalChange { gone, egress } => {
                if egress {
                    self.time_servers.hurry(Instant::now());
                }
                self.tell(&ToEngine::LocalChange { gone, egress });
            }
            Done::TunsMissing => self.restore_tuns().await,
            Done::Crl { url, found } => self.crl(&url, found),
            Done::OnFailure { tunnel, open } => {
                self.history.let_out(&tunnel, open, self.clock.date().ok());
                self.keep_history();
            }
            Done::Time { found } => self.time(found),
            Done::Hook { tunnel } => {
                self.hooks.ran(&tunnel);
                self.run_hooks();
            }
            Done::History { kept } => {
                self.history.written(kept);
                self.keep_history();
            }
            Done::Dns(event) => self.dns_event(event),
            Done::Dhcp(looked) => {
                let (section, wanted) = *looked;
                self.dhcp_looked(&section, wanted);
            }
            Done::StatusLate { request } => {
                if let Some(reply) = self.waiting_status.remove(&request) {
                    self.network.report(self.status(None), reply);
                }
            }
        }
    }

    /// The tunnels go on over the new devices; without an engine the next one gets them.
    async fn restore_tuns(&mut self) {
        let (tuns, fds) = self.network.restore_tuns(&self.loaded.config);
        if tuns.is_empty() {
            return;
        }
        self.tell_with(&ToEngine::Tuns { tuns }, &fds);
        if let Err(error) = self.network.obey(&self.loaded.config).await {
            // The devices stay: the plan follows with the next that can be applied.
            tracing::error!("a deleted interface is there again, but not its routes: {error}");
        }
        self.speedtest.begin_again(self.user);
    }

    fn watch(&mut self) {
        let late = self
            .engine
            .as_ref()
            .is_some_and(|e| e.last_heard.elapsed() > HEARTBEAT_MAX);
        if late && let Some(engine) = &self.engine {
            tracing::error!(
                "the engine said nothing for {} s: ending it",
                HEARTBEAT_MAX.as_secs()
            );
            engine.kill();
        }
        self.network.watch();
        self.watch_clock();
        self.fetch_crls();
        self.keep_history();
        self.speedtest.watch(self.user);
        self.watch_dns();
        self.watch_dhcp();
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
    }
}

impl Supervisor {
    /// What `status` warns of all the time, now and then in the log.
    fn tell_expiry(&self) {
        for warning in expiry::warnings(&self.loaded.config, self.clock.date()) {
            tracing::warn!("{warning}");
        }
    }
}

fn remove_socket(path: &Path) {
    // What stays is replaced by the next start.
    let _ = std::fs::remove_file(path);
}

fn pools(loaded: &Loaded) -> BTreeMap<String, cygnet_config::Pool> {
    loaded
        .config
        .pools
        .iter()
        .map(|(id, pool)| (id.0.clone(), pool.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_waits_until_everything_is_taken_back() {
        let unit = include_str!("../../../../packaging/systemd/cygnet.service");
        let line = unit.lines().find_map(|l| l.strip_prefix("TimeoutStopSec="));
        let patience = Duration::from_secs(line.unwrap().parse().unwrap());
        let told = DRAIN_MAX + hooks::ENDING_MAX;
        assert!(
            patience >= 2 * told,
            "{told:?} and what is to be taken back"
        );
        let said = format!(
            "# Peers are told within {} s, hooks within {} s,",
            DRAIN_MAX.as_secs(),
            hooks::ENDING_MAX.as_secs()
        );
        assert!(unit.contains(&said), "{said}");
    }
}
