//! `cygnet serve-dhcp`: lends addresses on the LAN, and advertises this machine as its router for IPv6; either alone, too.
//!
//! Messages of devices are bytes from a network: a process of its own reads them, which has no files and no
//! privileges. The supervisor opens its sockets, says what to lend, and keeps what is lent.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use cygnet_crypto::{Random, SystemRandom};
use cygnet_dhcp::{
    Advertiser, CLIENT_PORT, Event, Lookout, Message, Record, SERVER_PORT, Server, Settings,
    Standing,
};
use cygnet_gateway::Mac;
use cygnet_linux::clock::boottime;
use cygnet_wire::ip::ndp::is_router_solicitation;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, recvfrom, sendto};
use serde::{Deserialize, Serialize};

use crate::helper;
use crate::ipc::Channel;

/// Datagrams of one socket that are read before the others have their turn.
const BURST: usize = 16;
/// So many messages are read in such a time, and then none until it is over: a LAN of thousands of devices has fewer,
/// and a flood costs no processor.
const MESSAGES_MAX: usize = 80;
const WINDOW: Duration = Duration::from_millis(100);
/// The supervisor hears at most this often of leases.
const REPORT_EACH: Duration = Duration::from_secs(2);
/// How long it is told that there were too few addresses.
const FULL_FOR: Duration = Duration::from_secs(600);
/// DHCP's messages, and solicitations, are no longer; the rest of a longer one is lost, and it is refused.
const DATAGRAM_MAX: usize = 1500;
/// Octets of memory: every lease and its report, many times over.
const MEMORY: u64 = 256 << 20;
/// Where all nodes listen (RFC 4291 §2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Supervisor to this process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToDhcp {
    /// First message. Descriptors come with it: with `lends` UDP 67 and UDP 68, with `router` raw ICMPv6.
    Setup(Box<Setup>),
    /// Resolvers that are advertised from now on, with a `router` alone.
    Resolvers(Vec<Ipv6Addr>),
    /// The last message: what is lent is said once more, and the process ends.
    End {
        /// This machine is to be a router no more, and devices are told.
        farewell: bool,
    },
}

/// All that it works with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// For IPv4.
    pub(crate) lends: Option<Lends>,
    /// For IPv6.
    pub(crate) router: Option<Router>,
}

/// What is lent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lends {
    /// To whom what.
    pub(crate) settings: Settings,
    /// Leases of earlier runs.
    pub(crate) kept: Vec<Record>,
}

/// What is advertised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Router {
    /// Number of the interface.
    pub(crate) interface: u32,
    /// Its address.
    pub(crate) mac: Mac,
    /// Resolvers.
    pub(crate) dns: Vec<Ipv6Addr>,
}

/// This process to the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromDhcp {
    /// How it stands, each time that changes.
    State(State),
    /// Every lease, some time after one changed.
    Leases(Vec<Record>),
}

/// How it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Whether it lends, or why not.
    pub(crate) standing: Standing,
    /// Other servers that answer, as they call themselves.
    pub(crate) others: Vec<Ipv4Addr>,
    /// Somebody found no address lately.
    pub(crate) full: bool,
}

/// Runs on the socket that is inherited from the supervisor. Returns the exit code.
pub(crate) fn run() -> u8 {
    // What goes wrong shows in the exit code; the supervisor logs that.
    let done = Process::start().and_then(Process::serve);
    u8::from(done.is_err())
}

struct Process {
    channel: Channel,
    lending: Option<Lending>,
    /// Of ICMPv6, with the number of its interface.
    router: Option<(OwnedFd, u32, Advertiser)>,
    pace: Pace,
}

struct Lending {
    /// Of UDP port 67.
    server_socket: OwnedFd,
    /// Of UDP port 68.
    client_socket: OwnedFd,
    server: Server,
    lookout: Lookout,
    said: Option<State>,
    full: Option<Duration>,
    changed: bool,
    reported: Option<Duration>,
}

impl Process {
    fn start() -> io::Result<Self> {
        helper::confine(MEMORY, None)?;
        let channel = Channel::inherited()?;
        let (setup, fds) = match channel.receive::<ToDhcp>()? {
            Some((ToDhcp::Setup(setup), fds)) => (*setup, fds),
            _ => return Err(io::Error::other("the first message is no set-up")),
        };
        let missing = || io::Error::other("a descriptor is missing");
        let mut fds = fds.into_iter();
        let now = boottime();
        let lending = match setup.lends {
            None => None,
            Some(Lends { settings, kept }) => Some(Lending {
                server_socket: fds.next().ok_or_else(missing)?,
                client_socket: fds.next().ok_or_else(missing)?,
                lookout: Lookout::new(settings.server, settings.mac, now),
                server: Server::new(settings, &kept, now),
                said: None,
                full: None,
                changed: false,
                reported: None,
            }),
        };
        let router = match setup.router {
            None => None,
            Some(router) => {
                let socket = fds.next().ok_or_else(missing)?;
                let advertiser = Advertiser::new(router.mac, router.dns, now);
                Some((socket, router.interface, advertiser))
            }
        };
        Ok(Self {
            channel,
            lending,
            router,
            pace: Pace::default(),
        })
    }

    /// Until the supervisor ends, or says so.
    fn serve(mut self) -> io::Result<()> {
        loop {
            let now = boottime();
            self.timeouts(now);
            if let Some(lending) = &mut self.lending {
                lending.report(now, &self.channel)?;
            }
            let ready = self.wait(now)?;
            if ready.supervisor {
                match self.channel.receive::<ToDhcp>()? {
                    Some((ToDhcp::End { farewell }, _)) => return self.end(farewell),
                    Some((ToDhcp::Resolvers(dns), _)) => self.advertise(dns),
                    Some((ToDhcp::Setup(_), _)) => {
                        return Err(io::Error::other("a second set-up"));
                    }
                    None => return Ok(()),
                }
            }
            let now = boottime();
            let mut read = self.solicitations(now)?;
            if let Some(lending) = &mut self.lending {
                read += lending.questions(now)? + lending.answers(now)?;
            }
            let pause = self.pace.pause(now, read);
            if !pause.is_zero() {
                std::thread::sleep(pause);
            }
        }
    }

    fn advertise(&mut self, dns: Vec<Ipv6Addr>) {
        if let Some((_, _, advertiser)) = &mut self.router {
            advertiser.handle_resolvers(dns, boottime(), random());
        }
    }

    fn end(&self, farewell: bool) -> io::Result<()> {
        if farewell && let Some((socket, interface, advertiser)) = &self.router {
            advertise(socket, *interface, &advertiser.farewell());
        }
        let Some(lending) = &self.lending else {
            return Ok(());
        };
        let records = lending.server.records(boottime());
        self.channel.send(&FromDhcp::Leases(records), &[])
    }

    fn timeouts(&mut self, now: Duration) {
        if let Some(lending) = &mut self.lending
            && let Some(discover) = lending.lookout.handle_timeout(now, random())
        {
            // Broadcast: whatever the routing tables say, it leaves by the socket's interface.
            let everybody = SocketAddrV4::new(Ipv4Addr::BROADCAST, SERVER_PORT);
            send(&lending.client_socket, &discover, everybody.into());
        }
        if let Some((socket, interface, advertiser)) = &mut self.router
            && let Some(advertisement) = advertiser.handle_timeout(now, random())
        {
            advertise(&*socket, *interface, &advertisement);
        }
    }

    /// Waits until there is something to do.
    fn wait(&self, now: Duration) -> io::Result<Ready> {
        let mut due = self.lending.as_ref().map(Lending::poll_timeout);
        if let Some((_, _, advertiser)) = &self.router {
            let at = advertiser.poll_timeout();
            due = Some(due.map_or(at, |due| due.min(at)));
        }
        // Rounded up: woken too early it would do nothing, and wait for nothing again.
        let wait = due.map(|due| {
            let wait = due.saturating_sub(now);
            Timespec::try_from(wait.saturating_add(Duration::from_millis(1)))
        });
        let timeout = wait.transpose().map_err(io::Error::other)?;
        let mut all = vec![PollFd::new(&self.channel, PollFlags::IN)];
        if let Some(lending) = &self.lending {
            all.push(PollFd::new(&lending.server_socket, PollFlags::IN));
            all.push(PollFd::new(&lending.client_socket, PollFlags::IN));
        }
        if let Some((socket, ..)) = &self.router {
            all.push(PollFd::new(socket, PollFlags::IN));
        }
        match poll(&mut all, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let supervisor = all.first().map(PollFd::revents);
        Ok(Ready {
            supervisor: supervisor.is_some_and(|events| !events.is_empty()),
        })
    }

    /// Devices that look for a router. How many there were.
    fn solicitations(&mut self, now: Duration) -> io::Result<usize> {
        let Some((socket, _, advertiser)) = &mut self.router else {
            return Ok(0);
        };
        let mut buffer = [0; DATAGRAM_MAX];
        for read in 0..BURST {
            let Some((bytes, from)) = receive(&*socket, &mut buffer)? else {
                return Ok(read);
            };
            // RFC 4861 §6.1.1: of a neighbour. The answer goes to all in any case.
            let near = match from {
                Some(SocketAddr::V6(from)) => {
                    from.ip().is_unicast_link_local() || from.ip().is_unspecified()
                }
                _ => false,
            };
            if near && is_router_solicitation(bytes) {
                advertiser.handle_solicitation(now, random());
            }
        }
        Ok(BURST)
    }
}

impl Lending {
    fn poll_timeout(&self) -> Duration {
        let mut due = self.lookout.poll_timeout();
        if self.changed {
            due = due.min(self.report_due());
        }
        if let Some(since) = self.full {
            due = due.min(since.saturating_add(FULL_FOR));
        }
        due
    }

    fn report(&mut self, now: Duration, channel: &Channel) -> io::Result<()> {
        self.full = self
            .full
            .filter(|since| now < since.saturating_add(FULL_FOR));
        let state = State {
            standing: self.lookout.standing(),
            others: self.lookout.others().collect(),
            full: self.full.is_some(),
        };
        if self.said.as_ref() != Some(&state) {
            channel.send(&FromDhcp::State(state.clone()), &[])?;
            self.said = Some(state);
        }
        if self.changed && now >= self.report_due() {
            let records = self.server.records(now);
            channel.send(&FromDhcp::Leases(records), &[])?;
            self.changed = false;
            self.reported = Some(now);
        }
        Ok(())
    }

    fn report_due(&self) -> Duration {
        let reported = self.reported;
        reported.map_or(Duration::ZERO, |at| at.saturating_add(REPORT_EACH))
    }

    /// What devices want of a server. How many there were.
    fn questions(&mut self, now: Duration) -> io::Result<usize> {
        let mut buffer = [0; DATAGRAM_MAX];
        for read in 0..BURST {
            let Some((bytes, _)) = receive(&self.server_socket, &mut buffer)? else {
                return Ok(read);
            };
            let Ok(message) = Message::parse(bytes) else {
                continue;
            };
            if self.lookout.standing() != Standing::Alone {
                continue;
            }
            let handled = self.server.handle_message(now, &message);
            if let Some(reply) = handled.reply {
                let to = SocketAddrV4::new(reply.destination, CLIENT_PORT);
                send(&self.server_socket, &reply.message.emit(), to.into());
            }
            match handled.event {
                Some(Event::Changed) => self.changed = true,
                Some(Event::Full) => self.full = Some(now),
                Some(Event::Elsewhere { .. }) => self.lookout.handle_hint(now),
                None => {}
            }
        }
        Ok(BURST)
    }

    /// What other servers answer, to us or to everybody. How many there were.
    fn answers(&mut self, now: Duration) -> io::Result<usize> {
        let mut buffer = [0; DATAGRAM_MAX];
        for read in 0..BURST {
            let Some((bytes, _)) = receive(&self.client_socket, &mut buffer)? else {
                return Ok(read);
            };
            if let Ok(message) = Message::parse(bytes) {
                self.lookout.handle_message(now, &message);
            }
        }
        Ok(BURST)
    }
}

/// How much was read lately.
#[derive(Debug, Default)]
struct Pace {
    begun: Duration,
    read: usize,
}

impl Pace {
    /// How long nothing is to be read after so many messages more.
    fn pause(&mut self, now: Duration, read: usize) -> Duration {
        let over = self.begun.saturating_add(WINDOW);
        if now >= over {
            *self = Self {
                begun: now,
                read: 0,
            };
        }
        self.read += read;
        match self.read >= MESSAGES_MAX {
            true => self.begun.saturating_add(WINDOW).saturating_sub(now),
            false => Duration::ZERO,
        }
    }
}

/// What [`Process::wait`] found; the sockets are looked at in any case.
struct Ready {
    supervisor: bool,
}

/// A datagram and its sender, if one waits.
fn receive<'b>(
    socket: &impl AsFd,
    buffer: &'b mut [u8; DATAGRAM_MAX],
) -> io::Result<Option<(&'b [u8], Option<SocketAddr>)>> {
    use rustix::io::Errno;
    match recvfrom(socket, &mut buffer[..], RecvFlags::empty()) {
        Ok((read, _, from)) => {
            let from = from.and_then(|from| SocketAddr::try_from(from).ok());
            Ok(Some((buffer.get(..read).unwrap_or_default(), from)))
        }
        // The interface is down, or an ICMP error came for something that was sent.
        Err(
            Errno::AGAIN
            | Errno::INTR
            | Errno::NETDOWN
            | Errno::CONNREFUSED
            | Errno::HOSTUNREACH
            | Errno::NETUNREACH,
        ) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sends a datagram. What does not leave (the cable is out, say) is asked for again.
fn send(socket: &impl AsFd, bytes: &[u8], to: SocketAddr) {
    let _ = sendto(socket, bytes, SendFlags::NOSIGNAL, &to);
}

fn advertise(socket: &impl AsFd, interface: u32, bytes: &[u8]) {
    send(
        socket,
        bytes,
        SocketAddrV6::new(ALL_NODES, 0, 0, interface).into(),
    );
}

fn random() -> u32 {
    let mut octets = [0; 4];
    SystemRandom.fill(&mut octets);
    u32::from_ne_bytes(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_read_slowly() {
        let mut pace = Pace::default();
        let ms = Duration::from_millis;
        let mut now = Duration::from_secs(1);
        let mut read = 0;
        while now < Duration::from_secs(11) {
            // However few there are each time.
            now += pace.pause(now, 3) + Duration::from_micros(50);
            read += 3;
        }
        assert!((7_500..=8_500).contains(&read), "{read}");
        // What a LAN sends is not held up.
        let mut quiet = Pace::default();
        for n in 0..1000 {
            assert_eq!(quiet.pause(ms(20 * n), BURST - 1), Duration::ZERO);
        }
    }

    #[test]
    fn what_it_says_and_hears_survives_the_socketpair() {
        let state = State {
            standing: Standing::Silent,
            others: vec![Ipv4Addr::new(192, 168, 1, 1)],
            full: true,
        };
        let bytes = postcard::to_allocvec(&FromDhcp::State(state.clone())).unwrap();
        let read = postcard::from_bytes(&bytes).unwrap();
        assert!(matches!(read, FromDhcp::State(read) if read == state));
        let mac = Mac::new([2, 0, 0, 0, 0, 2]).unwrap();
        let lends = Lends {
            settings: Settings {
                server: Ipv4Addr::new(192, 168, 1, 2),
                mac,
                network: "192.168.1.0/24".parse().unwrap(),
                first: Ipv4Addr::new(192, 168, 1, 100),
                last: Ipv4Addr::new(192, 168, 1, 199),
                lease_time: Duration::from_secs(3600),
                dns: vec![Ipv4Addr::new(9, 9, 9, 9)],
                reservations: Default::default(),
                excluded: [Ipv4Addr::new(192, 168, 1, 1)].into(),
            },
            kept: Vec::new(),
        };
        for lends in [Some(lends), None] {
            let router = Router {
                interface: 2,
                mac,
                dns: vec![Ipv6Addr::LOCALHOST],
            };
            let setup = Setup {
                lends,
                router: Some(router),
            };
            let bytes = postcard::to_allocvec(&ToDhcp::Setup(Box::new(setup.clone()))).unwrap();
            let read = postcard::from_bytes(&bytes).unwrap();
            assert!(matches!(read, ToDhcp::Setup(read) if *read == setup));
        }
    }
}
