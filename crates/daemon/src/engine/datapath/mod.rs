//! ESP in user space: some workers seal what the TUN queues hold, some open what each UDP socket
//! receives, and the core's thread tells them what there is by publishing [`tables`]. What they have to
//! say goes into the core's inbox.

mod burst;
mod device;
mod drops;
mod inbound;
mod lead;
mod outbound;
mod parking;
mod reach;
mod road;
mod sad;
mod send;
mod strangers;
mod tables;
#[cfg(test)]
mod testing;
mod turn;
mod wait;

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cygnet_crypto::SystemRandom;
use cygnet_esp::JoinConfig;
use cygnet_ike::io::{Answer, AskId, ChildSaId, DataCommand, DataEvent, Path, Transmit};
use cygnet_linux::{Offloads, PathErrorKind, RouteProbe, SendError, Tun, UdpSocket};

use self::device::{Device, Queue};
use self::drops::Drops;
use self::inbound::{Inbound, Lane};
use self::outbound::Outbound;
use self::parking::Parking;
use self::reach::Reach;
use self::road::{Road, Socket, Sockets, source_of};
use self::sad::Sad;
pub(super) use self::sad::{Room, Traffic};
use self::tables::Published;
use self::wait::{Key, Pool};
use super::{Inbox, Input};
use crate::ipc::{SocketRole, ToSupervisor, TunRole};
use crate::world::{WORLD_V4, WORLD_V6};

/// What tells an IKE message from ESP on the NAT-T port (RFC 3948 §2.2).
const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// The datagram that keeps a NAT mapping (RFC 3948 §2.3).
const KEEPALIVE: [u8; 1] = [0xff];
/// How long a worker sleeps where nothing happens; then it lets go of keys that are gone.
const IDLE_MS: u32 = 1000;
/// RFC 791's reassembly timeout: first fragments are remembered for one to two of these.
const FRAGMENT_TICK: Duration = Duration::from_secs(15);
/// ICMP errors read at once.
const ERRORS: usize = 64;
/// How often what came early for a Child SA is opened before workers know of it. One that always finds more is of a peer
/// that sends faster than this.
const EARLY_ROUNDS: usize = 8;
/// What was ordered is in force after so long, however much comes meanwhile; tables of a thousand tunnels are made in
/// about as much.
const OVERDUE: Duration = Duration::from_millis(5);

/// The data path, as the core's thread sees it.
pub(super) struct Datapath {
    shared: Arc<Shared>,
    sockets: Sockets,
    sad: Sad,
    reach: Reach,
    /// Workers in each direction.
    workers: usize,
    /// What each of those that seal waits for.
    pools: Vec<Arc<Pool>>,
    /// Since when workers do not know all that was ordered.
    unpublished: Option<Instant>,
    /// Among that is what sends no more.
    unpublished_stop: bool,
    /// IKE messages that have not left.
    messages: Vec<Transmit>,
    /// Whether [`Self::reach_changes`] has anything to compare.
    changed: bool,
}

/// What workers and the core's thread have in common.
struct Shared {
    inbox: Inbox,
    published: Published,
    drops: Drops,
    parking: Parking,
    roads: Mutex<Roads>,
    /// A road's MTU has changed.
    mtu_changed: AtomicBool,
    started: Instant,
}

/// Paths in use.
type Roads = BTreeMap<Path, Arc<Road>>;

impl Datapath {
    /// Takes over sockets and TUN queues: for each socket its descriptor and that of a
    /// [`RouteProbe`], then one for each queue.
    pub(super) fn new(
        inbox: Inbox,
        workers: usize,
        sockets: Vec<SocketRole>,
        tuns: Vec<TunRole>,
        fds: Vec<OwnedFd>,
    ) -> Result<Self, String> {
        let mut fds = fds.into_iter();
        let mut taken = Vec::new();
        for role in sockets {
            let mut next = || {
                fds.next().ok_or_else(|| {
                    format!("no descriptor came for UDP {}:{}", role.address, role.port)
                })
            };
            let udp = UdpSocket::from_fd(next()?).map_err(|e| e.to_string())?;
            let routes = RouteProbe::from_fd(next()?);
            taken.push(Arc::new(Socket { role, udp, routes }));
        }
        let mut datapath = Self::with_sockets(inbox, workers, Sockets(taken))?;
        datapath.add_tuns(tuns, fds.collect())?;
        Ok(datapath)
    }

    fn with_sockets(inbox: Inbox, workers: usize, sockets: Sockets) -> Result<Self, String> {
        let pools: io::Result<Vec<Arc<Pool>>> =
            (0..workers).map(|_| Pool::new().map(Arc::new)).collect();
        Ok(Self {
            shared: Arc::new(Shared {
                inbox,
                published: Published::default(),
                drops: Drops::default(),
                parking: Parking::default(),
                roads: Mutex::new(Roads::default()),
                mtu_changed: AtomicBool::new(false),
                started: Instant::now(),
            }),
            sockets,
            sad: Sad::new(workers),
            reach: Reach::default(),
            workers,
            pools: pools.map_err(|e| format!("cannot make an epoll descriptor: {e}"))?,
            unpublished: None,
            unpublished_stop: false,
            messages: Vec::new(),
            changed: false,
        })
    }

    /// Starts the workers.
    pub(super) fn start(&self) -> Result<(), String> {
        for socket in &self.sockets.0 {
            // IKE alone is no work for many.
            let workers = if socket.role.natt { self.workers } else { 1 };
            let lane = Arc::new(Lane::new(Arc::clone(socket), workers));
            for number in 0..workers {
                let worker = Inbound::new(Arc::clone(&self.shared), Arc::clone(&lane), number);
                let name = format!("in-{}-{number}", socket.role.port);
                spawn(name, move || worker.run())?;
            }
        }
        for (number, pool) in self.pools.iter().enumerate() {
            let worker = Outbound::new(Arc::clone(&self.shared));
            let pool = Arc::clone(pool);
            spawn(format!("out-{number}"), move || worker.run(&pool))?;
        }
        Ok(())
    }

    /// Takes over further devices, or others for connections that had one. A device that was deleted
    /// ends its workers by itself.
    pub(super) fn add_tuns(&mut self, tuns: Vec<TunRole>, fds: Vec<OwnedFd>) -> Result<(), String> {
        let mut fds = fds.into_iter();
        for role in tuns {
            let offloads = Offloads {
                uso: role.udp_segmentation,
                ..Offloads::ALL
            };
            let mut queues: Vec<Arc<dyn Queue>> = Vec::new();
            for _ in 0..role.queues {
                let fd = fds.next().ok_or_else(|| {
                    format!("no descriptor came for interface {}", role.interface)
                })?;
                let tun = Tun::from_fd(fd, offloads).map_err(|e| e.to_string())?;
                if !tun.has_vnet_header() {
                    return Err(format!(
                        "interface {} was opened without IFF_VNET_HDR",
                        role.interface
                    ));
                }
                queues.push(Arc::new(tun));
            }
            let join = JoinConfig {
                tcp: true,
                udp: role.udp_segmentation,
            };
            let mut device = Device::new(role.connection, role.interface, queues, join);
            if role.has_writer {
                device.last_queue_writes();
            }
            self.add_device(device)?;
        }
        Ok(())
    }

    fn add_device(&mut self, device: Device) -> Result<(), String> {
        let device = Arc::new(device);
        let (place, old) = self.sad.add_device(Arc::clone(&device));
        // Known before the first packet of it is read.
        self.unpublished = Some(Instant::now());
        self.publish();
        for port in old.iter().flat_map(|old| old.queues()) {
            // Whoever else has the queue open would keep it in the pool.
            self.pools.iter().for_each(|p| p.remove(port.descriptor()));
        }
        let pools = self.pools.iter().cycle().skip(place % self.workers.max(1));
        for ((queue, port), pool) in device.queues().iter().enumerate().zip(pools) {
            pool.add(Key { place, queue }, port.descriptor())
                .map_err(|e| format!("{}: cannot wait for packets: {e}", device.name))?;
        }
        Ok(())
    }

    /// Carries out a command of the core; the answer, where it wants one. A Child SA that was installed receives when this
    /// returns; the rest is in force once it is [published](Self::publish), as one change, however much was ordered:
    /// making tables takes time that one peer could have us waste for all others.
    pub(super) fn order(&mut self, command: DataCommand) -> Option<(AskId, Answer)> {
        let answer = match command {
            DataCommand::AllocSpi { id } => {
                let spi = self.sad.alloc_spi(&mut SystemRandom);
                self.shared.parking.reserve(spi);
                return Some((id, Answer::Spi(Ok(spi))));
            }
            DataCommand::FreeSpi { spi } => {
                self.sad.free_spi(spi);
                self.shared.parking.free(spi);
                return None;
            }
            DataCommand::InstallIn { id, child, keys } => {
                let spi = child.spi_in;
                let road = self.road(child.path);
                let done = road.and_then(|road| self.sad.install_in(child, &keys, road));
                if done.is_err() {
                    // No Child SA will ever give it back.
                    self.sad.free_spi(spi);
                    self.shared.parking.free(spi);
                } else {
                    self.admit(spi);
                }
                return Some((id, Answer::Installed(done)));
            }
            DataCommand::SwitchOut { id, child, keys } => {
                let done = self.sad.switch_out(&child, &keys);
                Some((id, Answer::Installed(done)))
            }
            DataCommand::UpdatePath { child, path } => {
                match self.road(path) {
                    Ok(road) => self.sad.update_path(child, road),
                    Err(error) => tracing::warn!("a Child SA stays on its path: {error}"),
                }
                None
            }
            DataCommand::PathMtu { path, mtu } => {
                self.shared.measured(path, mtu.into());
                return None;
            }
            DataCommand::RemoveOut { child } => {
                self.sad.remove_out(child);
                self.unpublished_stop = true;
                None
            }
            DataCommand::RemoveIn { child } => {
                if let Some(spi) = self.sad.remove_in(child) {
                    self.shared.parking.free(spi);
                }
                None
            }
            DataCommand::InstallTrap { connection, child } => {
                self.sad.install_trap(&connection, &child);
                None
            }
            DataCommand::RemoveTrap { connection, child } => {
                self.sad.remove_trap(&connection, &child);
                None
            }
            // The supervisor's, and of those who log in.
            DataCommand::SetVirtual { .. }
            | DataCommand::ReleaseLease { .. }
            | DataCommand::EndLogIn { .. } => return None,
        };
        self.unpublished.get_or_insert_with(Instant::now);
        answer
    }

    /// As above, in force at once.
    #[cfg(test)]
    fn obey(&mut self, command: DataCommand) -> Option<(AskId, Answer)> {
        let answer = self.order(command);
        self.publish();
        answer
    }

    /// Puts in force what was ordered.
    pub(super) fn publish(&mut self) {
        self.unpublished_stop = false;
        if self.unpublished.take().is_some() {
            self.shared.published.publish(self.sad.tables());
            self.changed = true;
        }
    }

    /// Whether something that was ordered is waited for: key exchanges between take up to a tenth of a second each.
    pub(super) fn is_overdue(&self) -> bool {
        self.unpublished
            .is_some_and(|since| since.elapsed() >= OVERDUE)
    }

    /// Has a Child SA receive. What came for it early is opened before workers know it: what they open then came later,
    /// and a small replay window would take what came early for too old.
    fn admit(&mut self, spi: u32) {
        let (tables, shared) = (self.sad.receiving(), &self.shared);
        for round in 1..=EARLY_ROUNDS {
            let publish = || shared.published.publish(tables.clone());
            let waited = (shared.parking).install(spi, round == EARLY_ROUNDS, publish);
            if waited.is_empty() {
                break;
            }
            inbound::readmit(shared, &tables, waited);
        }
    }

    fn road(&self, path: Path) -> Result<Arc<Road>, String> {
        let mut roads = self.shared.roads();
        if let Some(road) = roads.get(&path) {
            return Ok(Arc::clone(road));
        }
        let socket = self
            .sockets
            .of(path.local)
            .ok_or_else(|| format!("no socket of ours sends from {}", path.local))?;
        let road = Arc::new(Road::new(path, Arc::clone(socket)));
        roads.insert(path, Arc::clone(&road));
        Ok(road)
    }

    /// An IKE message, or a keepalive, to be sent by [`Self::send_messages`].
    pub(super) fn transmit(&mut self, message: Transmit) {
        self.messages.push(message);
    }

    /// Sends what is to be sent. What a message tells of may be ordered behind it: a peer that is told that a Child SA
    /// sends no more may forget what it received on.
    pub(super) fn send_messages(&mut self) {
        let messages = std::mem::take(&mut self.messages);
        if self.unpublished_stop && !messages.is_empty() {
            self.publish();
        }
        for message in messages {
            self.send_message(&message);
        }
    }

    fn send_message(&self, transmit: &Transmit) {
        let path = &transmit.path;
        let Some(socket) = self.sockets.of(path.local) else {
            tracing::debug!("{path}: no socket of ours sends from {}", path.local);
            return;
        };
        let marked = socket.role.natt && transmit.datagram != KEEPALIVE;
        let marker: &[u8] = if marked { &NON_ESP_MARKER } else { &[] };
        let both = [IoSlice::new(marker), IoSlice::new(&transmit.datagram)];
        let out = cygnet_linux::Transmit {
            destination: path.remote,
            source: source_of(path.local.ip()),
            interface: path.interface,
            tos: 0,
            segment: None,
            parts: both.get(usize::from(!marked)..).unwrap_or_default(),
        };
        let sent = match transmit.whole {
            true => socket.udp.send_whole(&out),
            false => socket.udp.send(&out),
        };
        let result = match sent {
            Err(SendError::TooBig) if transmit.whole => return self.shared.name_mtu(path, socket),
            // RFC 7383 keeps messages small where the peer can; else the IP layer has to cut them.
            Err(SendError::TooBig) => socket.udp.send_fragmenting(&out),
            sent => sent,
        };
        if let Err(error) = result {
            // It is repeated, like one the network lost.
            tracing::debug!("{path}: cannot send: {error}");
        }
    }

    /// Where a call to `remote` comes from: the address that routing chooses, or `wanted`.
    pub(super) fn local_for(
        &self,
        remote: SocketAddr,
        wanted: Option<IpAddr>,
    ) -> Result<SocketAddr, String> {
        let socket = self
            .sockets
            .to_call(remote)
            .ok_or_else(|| format!("{remote} is {0}, and no {0} socket is open", family(remote)))?;
        local_of(socket, remote, wanted)
    }

    /// The same from a certain port, where there is a way.
    pub(super) fn local_on(
        &self,
        port: u16,
        remote: SocketAddr,
        wanted: Option<IpAddr>,
    ) -> Option<SocketAddr> {
        let mut sockets = self.sockets.on(port, remote.is_ipv4());
        sockets.find_map(|socket| local_of(socket, remote, wanted).ok())
    }

    /// Where others reach this machine: the addresses that it listens on, and where that is all of a
    /// family, the one that it calls the world from.
    pub(super) fn own_addresses(&self) -> Vec<IpAddr> {
        let mut own = Vec::new();
        for socket in self.sockets.0.iter().filter(|socket| socket.role.natt) {
            let address = match socket.role.address {
                IpAddr::V4(Ipv4Addr::UNSPECIFIED) => {
                    socket.routes.source((WORLD_V4, 500).into()).ok()
                }
                IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
                    socket.routes.source((WORLD_V6, 500).into()).ok()
                }
                bound => Some(bound),
            };
            own.extend(address.filter(|address| !address.is_loopback()));
        }
        own
    }

    /// What the supervisor has to know about routes, if it has changed.
    pub(super) fn reach_changes(&mut self) -> Vec<ToSupervisor> {
        let narrowed = self.shared.mtu_changed.swap(false, Ordering::Relaxed);
        if !std::mem::take(&mut self.changed) && !narrowed {
            return Vec::new();
        }
        self.reach.changes(&self.sad)
    }

    /// What happened since the last call; to be called every second.
    pub(super) fn activity(&mut self) -> Vec<DataEvent> {
        let now = self.shared.now_ms();
        let mut roads = self.shared.roads();
        // One reference is the map's own.
        roads.retain(|_, road| Arc::strong_count(road) > 1);
        for road in roads.values() {
            if road.age(now) {
                self.shared.mtu_changed.store(true, Ordering::Relaxed);
            }
        }
        drop(roads);
        let (received, sent) = self.sad.active();
        let received = received
            .into_iter()
            .map(|child| DataEvent::LastInbound { child });
        let sent = sent
            .into_iter()
            .map(|child| DataEvent::LastOutbound { child });
        received.chain(sent).collect()
    }

    /// What a Child SA carried.
    pub(super) fn traffic(&self, child: ChildSaId) -> Option<Traffic> {
        self.sad.traffic(child)
    }

    /// What each connection carried since the start, by Child SAs that are gone, too.
    pub(super) fn carried(&self) -> BTreeMap<String, Traffic> {
        self.sad.carried()
    }

    /// How large packets may be on a Child SA that sends.
    pub(super) fn room(&self, child: ChildSaId) -> Option<Room> {
        self.sad.room(child)
    }

    /// Packets dropped, by reason.
    pub(super) fn drops(&self) -> Vec<(String, u64)> {
        let own = self.shared.drops.occurred();
        let own = own.map(|(name, count)| (name.to_owned(), count));
        let of_sas = self.sad.drops();
        let of_sas = of_sas
            .into_iter()
            .map(|(reason, count)| (format!("esp-{}", reason.name()), count));
        own.chain(of_sas).collect()
    }
}

impl Shared {
    /// Milliseconds since the start; never goes back.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn report(&self, event: DataEvent) {
        self.inbox.send(Input::Data(event));
    }

    fn roads(&self) -> MutexGuard<'_, Roads> {
        self.roads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what ICMP said about earlier datagrams.
    fn drain_errors(&self, socket: &Socket) {
        for _ in 0..ERRORS {
            match socket.udp.poll_error() {
                Ok(Some(error)) => {
                    if let PathErrorKind::TooBig { mtu } = error.kind {
                        self.narrow(error.destination, mtu);
                    }
                }
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// The way to `destination` is narrower.
    fn narrow(&self, destination: SocketAddr, mtu: u32) {
        let now = self.now_ms();
        for road in self.roads().values() {
            if road.path.remote.ip() == destination.ip() && road.narrow(mtu, now) {
                tracing::info!("{}: path MTU {}", road.path, road.mtu());
                self.mtu_changed.store(true, Ordering::Relaxed);
                self.report(DataEvent::PathMtu {
                    path: road.path,
                    mtu: road.mtu(),
                });
            }
        }
    }

    /// No larger packet arrives by `path`, as the core has seen.
    fn measured(&self, path: Path, mtu: u32) {
        if let Some(road) = self.roads().get(&path)
            && road.measured(mtu)
        {
            tracing::info!("{path}: path MTU {mtu}, measured");
            self.mtu_changed.store(true, Ordering::Relaxed);
        }
    }

    /// The kernel has not sent what was to leave whole: it knows a smaller MTU.
    fn name_mtu(&self, path: &Path, socket: &Socket) {
        self.drain_errors(socket);
        if let Ok(mtu) = socket.routes.path_mtu(path.remote) {
            self.narrow(path.remote, mtu);
            // That is no news to a road that knows it.
            self.report(DataEvent::PathMtu { path: *path, mtu });
        }
    }

    /// A datagram of this length did not fit; whether the MTU is known now, so that another cut helps.
    fn learn_mtu(&self, road: &Road, datagram: usize) -> bool {
        let fits = || road.packet_len(datagram) <= road.mtu() as usize;
        // The kernel tells through the error queue, which another worker may have emptied.
        self.drain_errors(&road.socket);
        if fits()
            && let Ok(mtu) = road.socket.routes.path_mtu(road.path.remote)
        {
            self.narrow(road.path.remote, mtu);
        }
        !fits()
    }
}

/// An address of ours that packets from this socket to `remote` can have: the one that routing chooses, or
/// `wanted`.
fn local_of(
    socket: &Socket,
    remote: SocketAddr,
    wanted: Option<IpAddr>,
) -> Result<SocketAddr, String> {
    let bound = socket.role.address;
    let wanted = match wanted {
        Some(wanted) if wanted.is_ipv4() != remote.is_ipv4() => {
            return Err(format!(
                "the peer's address {} is {}, and the configured local address {wanted} is not",
                remote.ip(),
                family(remote)
            ));
        }
        None if !bound.is_unspecified() => Some(bound),
        wanted => wanted,
    };
    let routed = socket
        .routes
        .source(remote)
        .map_err(|e| format!("no route to {}: {e}", remote.ip()))?;
    let from = wanted.unwrap_or(routed);
    std::net::UdpSocket::bind((from, 0))
        .map_err(|e| format!("cannot send from {from}: {e}; `ip address` shows what there is"))?;
    Ok(SocketAddr::new(from, socket.role.port))
}

fn family(address: SocketAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let work = move || {
        let _bomb = AbortOnPanic;
        work();
    };
    std::thread::Builder::new()
        .name(name)
        .spawn(work)
        .map(drop)
        .map_err(|e| format!("cannot start a thread: {e}"))
}

/// Others may wait for the turn of a worker that panics: the engine ends, and the supervisor starts
/// another.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod fallback_tests;
#[cfg(test)]
mod late_tests;
#[cfg(test)]
mod namespace_tests;
#[cfg(test)]
mod order_tests;
#[cfg(test)]
mod parallel_tests;
#[cfg(test)]
mod tests;
