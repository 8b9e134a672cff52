//! The thread that changes the kernel.

mod connections;
mod devices;
mod direct_names;
mod failure;
pub(super) mod look;
mod no_device;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cygnet_config::Config;
use cygnet_gateway::{GuardPlan, Inputs, Lan, Mac, NetworkPlan, PlanError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::LETTING_GO;
use super::direct_names::Held;
use super::dns::Listeners;
use super::guard;
use super::heard::{Heard, Look};
use super::inputs::{self, Live};
use super::lan;
use super::machine::Machine;
use super::neighbourhood::Neighbourhood;
use super::policies::Policies;
use super::ways::Ways;
use crate::api::{DeviceChanged, DevicesStatus, Guard, Status};
use crate::dns::messages::LetOut;
use crate::ipc::ToSupervisor;
use crate::supervisor::Done;
use crate::supervisor::control::{DeviceOrder, Refusal};
use crate::supervisor::dns::Event;
use connections::Tracked;
use failure::Failure;

/// What is asked of the thread; done in order.
pub(super) enum Job {
    /// Make the kernel obey this configuration; an error leaves the one before in force.
    Configure(Arc<Config>, oneshot::Sender<Result<(), String>>),
    /// A tunnel changed.
    Live(ToSupervisor),
    /// Every tunnel is down.
    AllDown,
    /// Look whether the guard is there, whether addresses changed, what hinders.
    Watch,
    /// Look whether addresses changed.
    Follow,
    /// Tell which devices there are; these call themselves so.
    Devices(
        BTreeMap<Mac, String>,
        oneshot::Sender<Result<DevicesStatus, Refusal>>,
    ),
    /// Give a device another policy.
    Order(DeviceOrder, oneshot::Sender<Result<DeviceChanged, Refusal>>),
    /// Let out what these names have for addresses, and say whether that is done.
    LetOut(Vec<LetOut>, oneshot::Sender<bool>),
    /// Complete a report and send it.
    Report(Box<Status>, oneshot::Sender<Status>),
    /// Say that everything asked for before is done.
    Settled(oneshot::Sender<()>),
    /// Take back all but the guard; the last job.
    TakeBack(oneshot::Sender<()>),
}

pub(super) struct Worker {
    network: cygnet_linux::Network,
    heard: Heard,
    /// The supervisor's loop.
    done: mpsc::UnboundedSender<Done>,
    /// What is obeyed: the configuration with the policies that were given by command.
    config: Option<Arc<Config>>,
    /// The configuration alone.
    written: Option<Arc<Config>>,
    policies: Policies,
    seen: Neighbourhood,
    /// The LAN that the kernel was last told of.
    arranged: Option<Lan>,
    tracked: Tracked,
    live: BTreeMap<String, Live>,
    machine: Machine,
    /// Where devices are answered that ask for names.
    listeners: Listeners,
    /// What goes direct by its name.
    held: Held,
    /// What goes direct because the tunnel is down.
    failure: Failure,
    /// What the plan that was last made does not do as one may expect, because of networks that this machine
    /// has itself.
    clashes: Vec<String>,
    ways: Ways,
    /// When the engine last heard of other ways.
    told: Option<Instant>,
    guard: Guard,
    warnings: Vec<String>,
    /// When one of the warnings was new.
    warned: Option<Instant>,
}

impl Worker {
    /// Starts the thread.
    pub(super) async fn spawn(
        run_dir: &Path,
        done: mpsc::UnboundedSender<Done>,
    ) -> Result<mpsc::UnboundedSender<Job>, String> {
        let (jobs, inbox) = mpsc::unbounded_channel();
        let (ready, started) = oneshot::channel();
        let run_dir: PathBuf = run_dir.to_owned();
        std::thread::Builder::new()
            .name("network".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let runtime = match runtime {
                    Ok(runtime) => runtime,
                    Err(error) => {
                        let _ = ready.send(Err(error.to_string()));
                        return;
                    }
                };
                runtime.block_on(async {
                    let opened = cygnet_linux::Network::open(&run_dir)
                        .and_then(|network| Ok((network, Heard::listen()?)));
                    match opened {
                        Ok((network, heard)) => {
                            let _ = ready.send(Ok(()));
                            Self::new(network, heard, done).serve(inbox).await;
                        }
                        Err(error) => {
                            let _ = ready.send(Err(error.to_string()));
                        }
                    }
                });
            })
            .map_err(|e| format!("cannot start a thread: {e}"))?;
        started
            .await
            .unwrap_or_else(|_| Err("the network's thread ended at once".to_owned()))?;
        Ok(jobs)
    }

    fn new(
        network: cygnet_linux::Network,
        heard: Heard,
        done: mpsc::UnboundedSender<Done>,
    ) -> Self {
        Self {
            network,
            heard,
            done,
            config: None,
            written: None,
            policies: Policies::default(),
            seen: Neighbourhood::default(),
            arranged: None,
            tracked: Tracked::default(),
            live: BTreeMap::new(),
            machine: Machine::default(),
            listeners: Listeners::default(),
            held: Held::default(),
            failure: Failure::default(),
            clashes: Vec::new(),
            ways: Ways::default(),
            told: None,
            guard: Guard::NotConfigured,
            warnings: Vec::new(),
            warned: None,
        }
    }

    async fn serve(mut self, mut inbox: mpsc::UnboundedReceiver<Job>) {
        let mut next = None;
        loop {
            let job = match next.take() {
                Some(job) => job,
                None => match self.next_job(&mut inbox).await {
                    Some(job) => job,
                    None => return,
                },
            };
            match job {
                Job::Configure(config, reply) => {
                    let _ = reply.send(self.configure(config).await);
                }
                Job::Live(message) => {
                    self.note(message);
                    // The kernel is told once of what came meanwhile.
                    while let Ok(job) = inbox.try_recv() {
                        match job {
                            Job::Live(message) => self.note(message),
                            other => {
                                next = Some(other);
                                break;
                            }
                        }
                    }
                    self.follow_failure();
                    self.apply().await;
                    self.follow_ways().await;
                }
                Job::AllDown => {
                    for live in self.live.values_mut() {
                        live.up = false;
                        live.reached.clear();
                    }
                    // Else the next look would take the difference for the work of another program.
                    self.apply().await;
                }
                Job::Watch => self.watch().await,
                Job::Follow => {
                    self.follow().await;
                }
                Job::Devices(host_names, reply) => {
                    let _ = reply.send(self.devices(&host_names).await);
                }
                Job::Order(order, reply) => {
                    let _ = reply.send(self.order(&order).await);
                }
                Job::LetOut(asked, reply) => {
                    let _ = reply.send(self.let_out(&asked));
                }
                Job::Report(mut status, reply) => {
                    self.look_again().await;
                    status.direct_domains = self.direct_domains();
                    status.guard = self.guard;
                    status.lets_out = self.lets_out();
                    status.let_out = self.failure.is_open();
                    status.warnings.extend(self.failure.warning());
                    status.warnings.extend(self.warnings.iter().cloned());
                    let _ = reply.send(*status);
                }
                Job::Settled(reply) => {
                    let _ = reply.send(());
                }
                Job::TakeBack(reply) => {
                    if self.failure.is_open() {
                        self.close_in();
                    }
                    if let Err(error) = self.network.remove().await {
                        tracing::error!("cannot take back everything: {error}");
                    }
                    let _ = reply.send(());
                    return;
                }
            }
            self.tell_around();
        }
    }

    /// The next thing to do: what is asked for, or what the kernel tells of.
    async fn next_job(&mut self, inbox: &mut mpsc::UnboundedReceiver<Job>) -> Option<Job> {
        tokio::select! {
            job = inbox.recv() => job,
            look = self.heard.next() => Some(match look {
                Look::Addresses => Job::Follow,
                Look::Firewalls => Job::Watch,
            }),
        }
    }

    async fn configure(&mut self, written: Arc<Config>) -> Result<(), String> {
        let configured = self.try_configure(written).await;
        if configured.is_err()
            && let Some(old) = self.config.clone()
        {
            self.listen(&old);
        }
        configured
    }

    async fn try_configure(&mut self, written: Arc<Config>) -> Result<(), String> {
        let policies = Policies::read(&written.daemon.state_dir);
        let config = devices::effective(&written, &policies);
        let ours: Vec<&str> = interfaces(&config).collect();
        let machine = Machine::look(self.network.netlink(), &ours).await?.machine;
        let guarded_before = self.guard_present().await.unwrap_or(true);
        self.listeners.follow(&config, &machine, LETTING_GO)?;
        self.follow_held();
        let kept = direct_names::kept(&self.held, &config, &self.live, &machine)?;
        let mut closed = self.held.without(&kept);
        let around = (&machine, &self.listeners, &self.failure);
        let (plan, clashes) = plan(&config, &self.live, around, &kept)?;
        if self.written.is_none() {
            closed.extend(direct_names::left_over());
        }
        let before = std::mem::replace(&mut self.held, kept);
        // The guard first: forwarding is switched on by the plan.
        let applied = match self.apply_guard(&config, &machine).await {
            Ok(()) => self.network.apply(&plan).await.map_err(|e| e.to_string()),
            Err(error) => Err(error),
        };
        if let Err(error) = applied {
            self.held = before;
            self.restore(guarded_before, &machine).await;
            return Err(error);
        }
        self.end_connections_to(&closed);
        if written
            .gateway
            .as_ref()
            .is_some_and(|gateway| gateway.guard)
        {
            guard::remember_of(&written);
        }
        if let Some(old) = self.config.clone() {
            self.remove_links(&old, &config).await;
        }
        self.live
            .retain(|name, _| config.interface_of(name).is_some());
        self.listeners.let_go(&config, &machine);
        self.machine = machine;
        self.clashes = clashes;
        self.config = Some(config);
        self.written = Some(written);
        self.policies = policies;
        self.follow_failure();
        self.arranged = self.lan();
        // Of those that cannot be ended it warns, and tries again.
        let _ = self.end_stale().await;
        self.follow_ways().await;
        self.look().await;
        Ok(())
    }

    /// Guard and plan as they were before a configuration that could not be obeyed.
    async fn restore(&mut self, guarded: bool, machine: &Machine) {
        self.doubt_connections();
        let old = self.config.clone();
        let restored = match (&old, guarded) {
            (_, false) => self.network.remove_guard().await.map_err(|e| e.to_string()),
            (Some(old), true) => self.apply_guard(old, machine).await,
            (None, true) => Ok(()),
        };
        if let Err(error) = restored {
            tracing::error!("cannot restore the earlier guard: {error}");
        }
        let Some(old) = old else { return };
        self.listen(&old);
        let around = (machine, &self.listeners, &self.failure);
        if let Ok((plan, _)) = plan(&old, &self.live, around, &self.held)
            && let Err(error) = self.network.apply(&plan).await
        {
            tracing::error!("cannot restore the earlier state: {error}");
        }
    }

    /// TUNs of tunnels that are no more. Closing them is not enough: the engine holds them as well.
    async fn remove_links(&self, old: &Config, new: &Config) {
        let kept: Vec<&str> = interfaces(new).collect();
        for name in interfaces(old).filter(|name| !kept.contains(name)) {
            let netlink = self.network.netlink();
            if let Ok(link) = netlink.link(name).await
                && let Err(error) = netlink.remove_link(link.index).await
            {
                tracing::error!("{error}");
            }
        }
    }

    /// Whether anything of a guard is there. An error is no sign that the operator took it away.
    async fn guard_present(&self) -> Result<bool, String> {
        let empty = GuardPlan {
            routes: Vec::new(),
            rules: Vec::new(),
            nft: String::new(),
            direct_addresses: None,
        };
        let state = self.network.guard_state(&empty).await;
        let state = state.map_err(|e| format!("cannot see whether the guard is there: {e}"))?;
        Ok(!state.absent)
    }

    async fn apply_guard(&mut self, config: &Config, machine: &Machine) -> Result<(), String> {
        if let Some(guard) = self.guard_plan(config, machine)? {
            let applied = self.network.apply_guard(&guard).await;
            applied.map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Remembers what the engine tells of a tunnel. The engine may have been taken over, and a
    /// server may lend nonsense: only tunnels of the configuration count, and only addresses that
    /// can be ours.
    fn note(&mut self, message: ToSupervisor) {
        let Some(config) = &self.config else { return };
        match message {
            ToSupervisor::SetVirtual {
                connection,
                addresses,
                dns,
            } => {
                let wanted = config
                    .tunnels
                    .get(&connection)
                    .is_some_and(|t| t.virtual_address);
                if !wanted {
                    return;
                }
                let lan = lan::of(config, &self.machine).and_then(Result::ok);
                let lan = lan.map(|lan| lan.networks).unwrap_or_default();
                let (taken, why_not) = self.machine.take_lent(&addresses, &lan);
                let not_taken = why_not.map(|why| format!("{connection}: {why}"));
                if let Some(not_taken) = &not_taken {
                    tracing::warn!("{not_taken}");
                }
                let live = self.live.entry(connection).or_default();
                live.addresses = taken;
                live.not_taken = not_taken;
                live.dns = dns;
            }
            ToSupervisor::Reach {
                connection,
                remote,
                mtu,
                endpoint,
            } if config.interface_of(&connection).is_some() => {
                let live = self.live.entry(connection).or_default();
                live.up = !remote.is_empty();
                live.reached = remote;
                live.endpoint = endpoint;
                if live.up {
                    live.mtu = u16::try_from(mtu).ok();
                }
            }
            _ => {}
        }
    }

    /// The plan for what is up at this moment, and what of it is not as one may expect.
    fn present_plan(
        &self,
        config: &Config,
        held: &Held,
    ) -> Result<(NetworkPlan, Vec<String>), String> {
        let around = (&self.machine, &self.listeners, &self.failure);
        plan(config, &self.live, around, held)
    }

    /// Makes the kernel obey it.
    async fn apply(&mut self) {
        self.heard.doubt();
        let Some(config) = self.config.clone() else {
            return;
        };
        self.judge_held(&config);
        let applied = match self.present_plan(&config, &self.held) {
            Ok((plan, clashes)) => {
                self.clashes = clashes;
                self.network.apply(&plan).await.map_err(|e| e.to_string())
            }
            Err(error) => Err(error),
        };
        match applied {
            // Of those that cannot be ended it warns, and the next look tries again.
            Ok(()) => drop(self.end_stale().await),
            Err(error) => {
                tracing::error!("cannot set routes and addresses: {error}");
                // What begins until they can be begins otherwise.
                self.doubt_connections();
            }
        }
    }

    /// Tells the supervisor's loop what the process that answers devices has to know.
    fn tell_around(&mut self) {
        let Some(config) = &self.config else { return };
        if let Some(around) = self.listeners.news(config, &self.live, &self.machine) {
            let _ = self.done.send(Done::Dns(Event::Around(around)));
        }
    }
}

/// Our TUNs.
pub(super) fn interfaces(config: &Config) -> impl Iterator<Item = &str> {
    let connections = config.policy.connections.iter();
    connections.filter_map(|c| config.interface_of(&c.name))
}

/// What the plan is made from, but for what goes direct by its name.
fn inputs_of(
    config: &Config,
    live: &BTreeMap<String, Live>,
    (machine, listeners, failure): (&Machine, &Listeners, &Failure),
) -> Result<Inputs, String> {
    let mut inputs = Inputs {
        dns: listeners.plan(config),
        ..inputs::inputs(config, live, machine)?
    };
    if let Some(lan) = &mut inputs.lan {
        failure.applied(config, lan);
    }
    Ok(inputs)
}

/// The plan, and what of it is not as one may expect.
fn plan(
    config: &Config,
    live: &BTreeMap<String, Live>,
    around: (&Machine, &Listeners, &Failure),
    held: &Held,
) -> Result<(NetworkPlan, Vec<String>), String> {
    let mut inputs = inputs_of(config, live, around)?;
    if let Some(lan) = &mut inputs.lan {
        lan.direct_names.addresses = held.left(Instant::now());
    }
    let (inputs, left_out) = inputs.without_overlaps();
    let plan = NetworkPlan::new(&inputs).map_err(|e| e.to_string())?;
    let left_out = left_out.into_iter().map(|clash| match clash {
        PlanError::Overlap { .. } => {
            format!("{clash}; until then nothing is sent there but answers to who calls from there")
        }
        _ => format!("{clash}; until then it is left out"),
    });
    let not_around = inputs.not_around();
    let not_around = not_around.iter().map(ToString::to_string);
    let (machine, ..) = around;
    let not_the_lans = lan::claimed_by_tunnels(config, machine);
    let told = left_out.chain(not_around).chain(not_the_lans);
    Ok((plan, told.collect()))
}
