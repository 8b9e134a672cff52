//! The supervisor's hands on the kernel: sockets, TUN devices, plan and guard.
//!
//! Sockets and TUNs belong to the supervisor's loop, which hands them to each new engine. All
//! else is done by one thread with a queue, so that a slow change never delays a signature; since
//! the queue is one, a status report that goes through it tells of nothing that is not done yet.

mod again;
mod direct_names;
pub(super) mod dns;
mod firewalls;
pub(crate) mod guard;
mod heard;
mod inputs;
mod lan;
mod machine;
mod neighbourhood;
mod policies;
pub(crate) mod survey;
mod ways;
mod worker;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cygnet_config::Config;
use cygnet_gateway::{Mac, NetworkPlan, OUTER_MARK};
use cygnet_linux::{Netlink, Offloads, RouteProbe, Tun, TunOptions, UdpOptions, UdpSocket, nft};
use tokio::sync::{mpsc, oneshot};

use crate::api::{DeviceChanged, DevicesStatus, Status};
use crate::dns::messages::LetOut;
use crate::error::StartError;
use crate::ipc::{SocketRole, ToSupervisor, TunRole};
use crate::supervisor::Done;
use crate::supervisor::control::{DeviceOrder, Refusal};
use again::Again;
use worker::{Job, Worker};

/// How long a port or a TUN may be in use before that is an error.
const LETTING_GO: Duration = Duration::from_secs(1);

/// What the supervisor's loop holds.
pub(super) struct Network {
    /// Each with what asks for its routes.
    sockets: Vec<(SocketRole, OwnedFd, OwnedFd)>,
    tuns: BTreeMap<String, TunDevice>,
    /// When a deleted TUN that could not be made anew is tried again.
    again: Again,
    jobs: mpsc::UnboundedSender<Job>,
}

/// A TUN of a connection; it lives as long as its queues are open.
struct TunDevice {
    role: TunRole,
    queues: Vec<OwnedFd>,
}

impl TunDevice {
    /// Whether the queues still belong to an interface of that name.
    fn is_there(&self) -> bool {
        let queue = self.queues.first().and_then(|fd| fd.try_clone().ok());
        let tun = queue.and_then(|fd| Tun::from_fd(fd, Offloads::NONE).ok());
        tun.is_some_and(|tun| tun.name() == self.role.interface)
    }

    /// Adds what an engine needs of it; on an error nothing.
    fn hand(&self, handed: &mut TunsHanded) -> Result<(), String> {
        let fds: Result<Vec<OwnedFd>, String> = self.queues.iter().map(duplicate).collect();
        handed.1.append(&mut fds?);
        handed.0.push(self.role.clone());
        Ok(())
    }
}

/// TUN devices for an engine, and a descriptor for each of their queues, in the same order.
type TunsHanded = (Vec<TunRole>, Vec<OwnedFd>);

/// All an engine works on; descriptors of the sockets come first.
pub(super) struct HandOver {
    pub(super) sockets: Vec<SocketRole>,
    pub(super) tuns: Vec<TunRole>,
    pub(super) fds: Vec<OwnedFd>,
}

impl Network {
    /// Sockets, TUNs, guard, plan, in this order. An error leaves nothing changed.
    pub(super) async fn set_up(
        config: &Config,
        run_dir: &Path,
        done: mpsc::UnboundedSender<Done>,
    ) -> Result<Self, StartError> {
        nft::available().map_err(StartError::refused)?;
        let sockets = sockets(config)?;
        let tuns = tuns(config, &BTreeMap::new())?;
        let jobs = Worker::spawn(run_dir, done)
            .await
            .map_err(StartError::Refused)?;
        let mut network = Self {
            sockets,
            tuns,
            again: Again::default(),
            jobs,
        };
        network.obey(config).await.map_err(StartError::Refused)?;
        Ok(network)
    }

    /// Descriptors for an engine: the same every time, so that a new engine goes on where the
    /// one before ended.
    pub(super) fn hand_over(&self) -> Result<HandOver, String> {
        let mut fds = Vec::new();
        for (_, socket, routes) in &self.sockets {
            fds.push(duplicate(socket)?);
            fds.push(duplicate(routes)?);
        }
        let mut tuns = Vec::new();
        for tun in self.tuns.values() {
            tuns.push(tun.role.clone());
            for fd in &tun.queues {
                fds.push(duplicate(fd)?);
            }
        }
        let sockets = self.sockets.iter().map(|(role, ..)| *role).collect();
        Ok(HandOver { sockets, tuns, fds })
    }

    /// Makes the kernel obey a changed configuration. The TUNs that are new, for the engine.
    pub(super) async fn reconfigure(&mut self, config: &Config) -> Result<TunsHanded, String> {
        let mut added = tuns(config, &self.tuns).map_err(|e| e.to_string())?;
        let mut handed = (Vec::new(), Vec::new());
        for tun in added.values() {
            tun.hand(&mut handed)?;
        }
        // The plan names every interface: new ones exist by now, old ones until it is applied.
        self.obey(config).await?;
        self.tuns
            .retain(|name, tun| config.interface_of(name) == Some(&tun.role.interface));
        self.tuns.append(&mut added);
        Ok(handed)
    }

    /// Makes those TUNs anew that somebody deleted. The new ones, for the engine; they are configured when
    /// [`Self::obey`] is done. One that cannot be made is tried again when this is called after a while.
    pub(super) fn restore_tuns(&mut self, config: &Config) -> TunsHanded {
        let mut handed = (Vec::new(), Vec::new());
        if !self.again.is_due(Instant::now()) {
            return handed;
        }
        let first = self.again.is_first();
        self.tuns.retain(|name, tun| {
            let there = tun.is_there();
            if !there && first {
                let interface = &tun.role.interface;
                tracing::warn!(
                    "{name}: somebody deleted the interface {interface}: making it anew"
                );
            }
            there
        });
        let mut failed = None;
        for tun in missing_tuns(config, &self.tuns) {
            let made = tun.open().map_err(|e| e.to_string());
            match made.and_then(|made| made.hand(&mut handed).map(|()| made)) {
                Ok(made) => {
                    self.tuns.insert(tun.connection.to_owned(), made);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match failed {
            None => self.again.done(),
            Some(error) => {
                if let Some(pause) = self.again.failed(Instant::now(), &error) {
                    tracing::error!(
                        "cannot make a deleted interface anew: {error}; trying again in {} s, then less often",
                        pause.as_secs()
                    );
                }
            }
        }
        handed
    }

    /// Makes the kernel obey this configuration, whose TUNs are there.
    pub(super) async fn obey(&mut self, config: &Config) -> Result<(), String> {
        let (reply, done) = oneshot::channel();
        self.job(Job::Configure(Arc::new(config.clone()), reply));
        done.await
            .unwrap_or_else(|_| Err("the network's thread has ended".to_owned()))
    }

    /// What the engine tells about a tunnel.
    pub(super) fn tell(&self, message: ToSupervisor) {
        self.job(Job::Live(message));
    }

    /// The engine is gone, and every SA with it.
    pub(super) fn engine_gone(&self) {
        self.job(Job::AllDown);
    }

    /// Looks whether the guard is still there, and what else hinders.
    pub(super) fn watch(&self) {
        self.job(Job::Watch);
    }

    /// Sends the report when everything asked for before is done.
    pub(super) fn report(&self, status: Status, reply: oneshot::Sender<Status>) {
        self.job(Job::Report(Box::new(status), reply));
    }

    /// Tells which devices there are in the LAN. `host_names`: what they call themselves.
    pub(super) fn devices(
        &self,
        host_names: BTreeMap<Mac, String>,
        reply: oneshot::Sender<Result<DevicesStatus, Refusal>>,
    ) {
        self.job(Job::Devices(host_names, reply));
    }

    /// Gives a device another policy.
    pub(super) fn order(
        &self,
        order: DeviceOrder,
        reply: oneshot::Sender<Result<DeviceChanged, Refusal>>,
    ) {
        self.job(Job::Order(order, reply));
    }

    /// Lets out what these names have for addresses, and says whether that is done.
    pub(super) fn let_out(&self, asked: Vec<LetOut>, reply: oneshot::Sender<bool>) {
        self.job(Job::LetOut(asked, reply));
    }

    /// Waits until everything asked for before is done.
    pub(super) fn settled(&self) -> impl Future<Output = ()> + use<> {
        let (reply, done) = oneshot::channel();
        self.job(Job::Settled(reply));
        async move {
            let _ = done.await;
        }
    }

    /// Takes back everything but the guard.
    pub(super) async fn take_back(&mut self) {
        let (reply, done) = oneshot::channel();
        self.job(Job::TakeBack(reply));
        let _ = done.await;
    }

    fn job(&self, job: Job) {
        if self.jobs.send(job).is_err() {
            tracing::error!("the network's thread has ended: restart cygnet");
        }
    }
}

/// What of the LAN is not there, each interface with a sentence; nothing where the kernel does not tell.
pub(crate) async fn lan_missing(config: &Config) -> BTreeMap<String, String> {
    match Netlink::connect() {
        Ok(netlink) => worker::look::lan_missing(config, &netlink).await,
        Err(_) => BTreeMap::new(),
    }
}

/// Whether this configuration contradicts what this machine is: for `cygnet check`. What overlaps is refused
/// here; a daemon that finds it so does what can be done.
pub(crate) fn check(config: &Config) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let looked = runtime.map_err(|e| e.to_string()).and_then(|runtime| {
        runtime.block_on(async {
            let netlink = Netlink::connect().map_err(|e| e.to_string())?;
            let ours: Vec<&str> = worker::interfaces(config).collect();
            machine::Machine::look(&netlink, &ours).await
        })
    });
    // Without a look there is nothing to contradict.
    let Ok(look) = looked else { return Ok(()) };
    let inputs = inputs::inputs(config, &BTreeMap::new(), &look.machine);
    let plan = NetworkPlan::new(&inputs.map_err(StartError::Refused)?);
    plan.map(drop).map_err(StartError::refused)
}

/// The directory of socket and journal, for root alone.
pub(super) fn make_run_dir(path: &Path) -> Result<(), StartError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| StartError::refused(format_args!("cannot make {}: {e}", path.display())))
}

fn duplicate(fd: &OwnedFd) -> Result<OwnedFd, String> {
    fd.try_clone()
        .map_err(|e| format!("cannot duplicate a descriptor: {e}"))
}

/// After a crash the engine of the run before may need a moment to let go of what it held.
fn patiently<T>(
    mut attempt: impl FnMut() -> Result<T, cygnet_linux::Error>,
) -> Result<T, cygnet_linux::Error> {
    use cygnet_linux::Error;
    let begun = Instant::now();
    loop {
        match attempt() {
            Err(Error::PortInUse(_) | Error::TunBusy { .. }) if begun.elapsed() < LETTING_GO => {
                std::thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

/// For each listening address, the IKE port and the NAT-T port.
fn sockets(config: &Config) -> Result<Vec<(SocketRole, OwnedFd, OwnedFd)>, StartError> {
    let mut all = Vec::new();
    for address in &config.daemon.listen {
        for (port, natt) in [
            (config.daemon.ike_port, false),
            (config.daemon.natt_port, true),
        ] {
            let mut options = UdpOptions::new(SocketAddr::new(*address, port));
            options.mark = Some(OUTER_MARK);
            options.gro = natt;
            let socket = match patiently(|| UdpSocket::bind(&options)) {
                Ok(socket) => socket,
                // IPv6 may be switched off; nobody asked for it by name.
                Err(cygnet_linux::Error::Io { .. } | cygnet_linux::Error::NoSuchAddress(_))
                    if address.is_ipv6() && address.is_unspecified() =>
                {
                    tracing::warn!("no IPv6 on this machine: listening on IPv4 only");
                    continue;
                }
                Err(error) => return Err(StartError::refused(error)),
            };
            let role = SocketRole {
                address: *address,
                port,
                natt,
            };
            let routes = RouteProbe::open(address.is_ipv6(), options.mark);
            let routes = routes.map_err(StartError::refused)?;
            all.push((role, socket.into_fd(), routes.into_fd()));
        }
    }
    Ok(all)
}

/// So many tunnels or fewer get a queue for each worker; of more, each gets one.
const FEW: usize = 16;

/// A TUN that a configuration asks for.
struct WantedTun<'a> {
    connection: &'a str,
    interface: &'a str,
    mtu: Option<u16>,
    queues: usize,
}

impl WantedTun<'_> {
    fn open(&self) -> Result<TunDevice, StartError> {
        let mtu = self.mtu.unwrap_or_else(|| inputs::default_mtu(false));
        let (role, queues) = open_tun(self.connection, self.interface, mtu, self.queues)?;
        Ok(TunDevice { role, queues })
    }
}

/// Opens a TUN with so many queues, and with a further one that is written to if it has several.
pub(crate) fn open_tun(
    connection: &str,
    interface: &str,
    mtu: u16,
    queues: usize,
) -> Result<(TunRole, Vec<OwnedFd>), StartError> {
    let mut options = TunOptions::new(interface);
    options.queues = queues;
    let queues = patiently(|| Tun::open(&options)).map_err(StartError::refused)?;
    let udp_segmentation = queues.first().is_some_and(|q| q.offloads().uso);
    let mut writer = None;
    if let Some(queue) = queues.first().filter(|_| queues.len() > 1) {
        let opened = Tun::open_writer(&options, queue.name());
        writer = Some(opened.map_err(StartError::refused)?);
    }
    let has_writer = writer.is_some();
    let queues: Vec<OwnedFd> = queues.into_iter().chain(writer).map(Tun::into_fd).collect();
    let role = TunRole {
        connection: connection.to_owned(),
        interface: interface.to_owned(),
        mtu: mtu.into(),
        queues: u16::try_from(queues.len()).unwrap_or(u16::MAX),
        has_writer,
        udp_segmentation,
    };
    Ok((role, queues))
}

/// The TUNs of a configuration that are not in `have` under the same interface name.
fn missing_tuns<'a>(config: &'a Config, have: &BTreeMap<String, TunDevice>) -> Vec<WantedTun<'a>> {
    let tunnels = config
        .tunnels
        .iter()
        .map(|(name, t)| (name.as_str(), t.interface.as_str(), t.mtu));
    let server = config
        .server
        .iter()
        .map(|s| (cygnet_config::SERVER, s.interface.as_str(), s.mtu));
    let count = config.tunnels.len() + usize::from(config.server.is_some());
    let queues = if count > FEW {
        1
    } else {
        crate::workers(&config.daemon)
    };
    let all = tunnels
        .chain(server)
        .map(|(connection, interface, mtu)| WantedTun {
            connection,
            interface,
            mtu,
            queues,
        });
    all.filter(|wanted| {
        have.get(wanted.connection)
            .is_none_or(|tun| tun.role.interface != wanted.interface)
    })
    .collect()
}

/// Opens the TUNs of a configuration that are not in `have`; all of them or none.
fn tuns(
    config: &Config,
    have: &BTreeMap<String, TunDevice>,
) -> Result<BTreeMap<String, TunDevice>, StartError> {
    missing_tuns(config, have)
        .iter()
        .map(|wanted| Ok((wanted.connection.to_owned(), wanted.open()?)))
        .collect()
}

#[cfg(test)]
mod tests;
