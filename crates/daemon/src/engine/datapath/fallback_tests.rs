//! What is done where a kernel lacks something, or a path turns out narrow: real TUNs in two network
//! namespaces, a TCP connection and datagrams each way through the data path. Everything has to arrive
//! whole, and the log tells once.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket as StdUdp};
use std::os::fd::AsFd;
use std::process::{Child, Command};
use std::sync::mpsc::channel;

use cygnet_linux::UdpOptions;
use cygnet_linux::inject::{Call, before, inject, seen};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::parallel_tests::install;
use super::testing::{child, connection, path};
use super::*;
use crate::alone::alone;
use crate::supervisor::network::open_tun;

const ALWAYS: std::ops::Range<usize> = 0..usize::MAX;
const QUEUES: usize = 2;
const BYTES: usize = 1_000_000;
const DATAGRAMS: u32 = 300;

/// A namespace beside this process's own, as long as its only process lives.
struct Far(Child);

impl Far {
    fn new() -> Self {
        let far = Self(
            Command::new("unshare")
                .args(["-n", "sleep", "60"])
                .spawn()
                .unwrap(),
        );
        let name = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).unwrap();
        while name(&far.0.id().to_string()) == name("self") {
            std::thread::sleep(Duration::from_millis(1));
        }
        far
    }

    fn sh(&self, command: &str) {
        sh(&format!("nsenter -t {} -n sh -ec '{command}'", self.0.id()));
    }

    fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.0.id())).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(namespace.as_fd(), kind).unwrap();
                inside()
            });
            thread.join().unwrap()
        })
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sh(command: &str) {
    let status = Command::new("sh").args(["-ec", command]).status().unwrap();
    assert!(status.success(), "{command}");
}

/// What was logged at INFO and above.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn begin() -> Self {
        let log = Self::default();
        let writer = log.clone();
        tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .init();
        log
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn count(&self, phrase: &str) -> usize {
        self.text().matches(phrase).count()
    }

    #[track_caller]
    fn tells(&self, times: usize, phrase: &str) {
        let log = self.text();
        assert_eq!(self.count(phrase), times, "{phrase:?} in\n{log}");
    }
}

/// One gateway, opened in the namespace of the moment as the supervisor does.
fn open(name: &str, address: &str) -> (Datapath, TunRole) {
    let (role, fds) = open_tun("tunnel", name, 1400, QUEUES).unwrap();
    let local: SocketAddr = format!("{address}:4500").parse().unwrap();
    let socket = Socket {
        role: SocketRole {
            address: local.ip(),
            port: local.port(),
            natt: true,
        },
        // Without waiting times: nothing is dropped because the machine is busy.
        udp: UdpSocket::bind(&UdpOptions {
            timestamps: false,
            ..UdpOptions::new(local)
        })
        .unwrap(),
        routes: RouteProbe::open(false, None).unwrap(),
    };
    let inbox = Inbox {
        sender: channel().0,
        waiting: Arc::default(),
    };
    let sockets = Sockets(vec![Arc::new(socket)]);
    let mut datapath = Datapath::with_sockets(inbox, QUEUES, sockets).unwrap();
    datapath.add_tuns(vec![role.clone()], fds).unwrap();
    datapath.start().unwrap();
    (datapath, role)
}

/// Two gateways with a Child SA, each its own host.
struct World {
    log: Log,
    far: Far,
    left: Datapath,
    right: Datapath,
    roles: [TunRole; 2],
}

impl World {
    fn new() -> Self {
        let (log, far) = (Log::begin(), Far::new());
        let pid = far.0.id();
        sh(&format!(
            "ip link add v0 type veth peer name v0 netns {pid}"
        ));
        let up = |number: u8| {
            format!(
                "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; \
                 ip address add 192.0.2.{number}/24 dev v0; ip link set lo up; ip link set v0 up"
            )
        };
        sh(&up(1));
        far.sh(&up(2));
        let (mut left, left_role) = open("left0", "192.0.2.1");
        let (mut right, right_role) = far.run(|| open("right0", "192.0.2.2"));
        let up = |name: &str, from: u8, to: u8| {
            format!(
                "ip address add 10.{from}.0.1/24 dev {name}; ip link set {name} mtu 1400 up; \
                 ip route add 10.{to}.0.0/24 dev {name}"
            )
        };
        sh(&up("left0", 1, 2));
        far.sh(&up("right0", 2, 1));
        let [near, remote] = ["192.0.2.1:4500", "192.0.2.2:4500"].map(|at| at.parse().unwrap());
        let there = connection("tunnel", "10.1.0.0/24", "10.2.0.0/24");
        let back = connection("tunnel", "10.2.0.0/24", "10.1.0.0/24");
        install(
            &mut right,
            child(1, &back, 0x2222, 0x1111, path(remote, near)),
            2,
            1,
        );
        install(
            &mut left,
            child(1, &there, 0x1111, 0x2222, path(near, remote)),
            1,
            2,
        );
        Self {
            log,
            far,
            left,
            right,
            roles: [left_role, right_role],
        }
    }

    /// A connection on which each side sends a megabyte, then datagrams there and back.
    fn traffic(&self) {
        let bytes: Vec<u8> = (0..BYTES as u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let listener = self.far.run(|| TcpListener::bind("10.2.0.1:80").unwrap());
        let echo = self.far.run(|| StdUdp::bind("10.2.0.1:81").unwrap());
        let patience = Some(Duration::from_secs(20));
        std::thread::scope(|scope| {
            let bytes = &bytes;
            scope.spawn(move || exchange(listener.accept().unwrap().0, bytes));
            exchange(TcpStream::connect("10.2.0.1:80").unwrap(), bytes);
            scope.spawn(move || {
                echo.set_read_timeout(patience).unwrap();
                let mut buffer = [0; 2000];
                for _ in 0..DATAGRAMS {
                    let (len, from) = echo.recv_from(&mut buffer).unwrap();
                    echo.send_to(&buffer[..len], from).unwrap();
                }
            });
            let socket = StdUdp::bind("10.1.0.1:0").unwrap();
            socket.set_read_timeout(patience).unwrap();
            socket.connect("10.2.0.1:81").unwrap();
            let datagram = |n: u32| [&n.to_be_bytes()[..], &[n as u8; 1000]].concat();
            let mut buffer = [0; 2000];
            for first in (0..DATAGRAMS).step_by(20) {
                let burst = first..first + 20;
                burst.clone().for_each(|n| {
                    socket.send(&datagram(n)).unwrap();
                });
                for n in burst {
                    let len = socket.recv(&mut buffer).unwrap();
                    assert!(buffer[..len] == datagram(n), "datagram {n}");
                }
            }
        });
    }

    /// Nothing was dropped on the way, and nothing came twice.
    #[track_caller]
    fn nothing_is_lost(&self) {
        assert_eq!((self.left.drops(), self.right.drops()), (vec![], vec![]));
        let [left, right] = [&self.left, &self.right].map(|end| end.traffic(ChildSaId(1)).unwrap());
        assert_eq!(
            (left.packets_in, left.packets_out),
            (right.packets_out, right.packets_in)
        );
    }
}

fn exchange(mut stream: TcpStream, bytes: &[u8]) {
    let limit = Some(Duration::from_secs(20));
    stream.set_read_timeout(limit).unwrap();
    stream.set_write_timeout(limit).unwrap();
    let mut writer = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            writer.write_all(bytes).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        assert!(received == bytes, "{} bytes differ", received.len());
    });
}

macro_rules! alone_in_a_world {
    ($($(#[$doc:meta])* $name:ident $inside:expr;)*) => {$(
        $(#[$doc])*
        #[test]
        fn $name() {
            let name = concat!("engine::datapath::fallback_tests::", stringify!($name));
            alone(name, ":", $inside);
        }
    )*};
}

alone_in_a_world! {
    no_udp_super_packets_from_the_tun || {
        inject(Call::UdpOffload, ALWAYS, Errno::INVAL.raw_os_error());
        let world = World::new();
        assert!(world.roles.iter().all(|role| !role.udp_segmentation));
        for _ in 0..2 {
            world.traffic();
        }
        world.nothing_is_lost();
        for name in ["left0", "right0"] {
            world.log.tells(1, &format!("{name}: this kernel has no super-packets of UDP"));
        }
    };

    no_receive_offload || {
        inject(Call::ReceiveOffload, ALWAYS, Errno::NOPROTOOPT.raw_os_error());
        let world = World::new();
        for _ in 0..2 {
            world.traffic();
        }
        world.nothing_is_lost();
        assert_eq!(seen(Call::ReceiveOffload), 2);
        world.log.tells(1, "this kernel has no UDP receive offload");
    };

    no_segmentation_offload_einval || no_segmentation_offload(Errno::INVAL);
    no_segmentation_offload_eio || no_segmentation_offload(Errno::IO);

    /// ICMP ("protocol unreachable") of anybody's making, which a socket hands to its next call whatever that sends: batches
    /// may be lost, which TCP repeats, and others follow.
    an_error_of_icmp_is_no_lack_of_an_offload || {
        inject(Call::SendBatch, 4..20, Errno::NOPROTOOPT.raw_os_error());
        let world = World::new();
        for _ in 0..2 {
            world.traffic();
        }
        assert!(seen(Call::SendBatch) > 20, "nothing was sent in batches");
        world.log.tells(0, "no UDP segmentation offload on this path");
    };

    /// The link becomes narrower while a connection is under way.
    a_path_becomes_narrow || {
        let world = World::new();
        world.traffic();
        // The tenth batch may be either end's, and with that its thread of either namespace.
        let ends = [std::process::id(), world.far.0.id()];
        let narrow = ends.map(|end| format!("nsenter -t {end} -n ip link set v0 mtu 1300")).join("; ");
        before(Call::SendBatch, 10, move || sh(&narrow));
        for _ in 0..2 {
            world.traffic();
        }
        assert!(seen(Call::SendBatch) > 10);
        // An end says so once, if it sends anything too long before TCP has learned of it.
        let told = world.log.count("path MTU 1300");
        assert!((1..=2).contains(&told), "said {told} times");
        // Senders were told. What was under way while the link changed, a veth refuses as a full queue does.
        let drops = [world.left.drops(), world.right.drops()].concat();
        let expected = ["too-big", "send-queue-full"];
        let unexpected = drops.iter().find(|(reason, _)| !expected.contains(&reason.as_str()));
        assert_eq!(unexpected, None);
        assert!(drops.iter().any(|(reason, _)| reason == "too-big"));
    };

    /// Datagrams do not fit, and nobody says what does: they leave in fragments.
    a_path_does_not_tell_its_mtu || {
        let world = World::new();
        inject(Call::SendBatch, 10..20, Errno::MSGSIZE.raw_os_error());
        for _ in 0..2 {
            world.traffic();
        }
        assert!(seen(Call::SendBatch) > 20);
        world.nothing_is_lost();
        world.log.tells(0, "path MTU");
    };

    /// As some kernels do for super-packets that they took a moment before.
    a_tun_refuses_super_packets || {
        inject(Call::MergedWrite, 5..usize::MAX, Errno::INVAL.raw_os_error());
        let world = World::new();
        for _ in 0..2 {
            world.traffic();
        }
        assert!(seen(Call::MergedWrite) > 5, "nothing was joined");
        world.nothing_is_lost();
        world.log.tells(1, "right0: this kernel refuses merged packets");
    };

    no_multi_queue || {
        inject(Call::MultiQueue, ALWAYS, Errno::INVAL.raw_os_error());
        let world = World::new();
        assert!(world.roles.iter().all(|role| role.queues == 1 && !role.has_writer));
        for _ in 0..2 {
            world.traffic();
        }
        world.nothing_is_lost();
        for name in ["left0", "right0"] {
            world.log.tells(1, &format!("{name}: no multi-queue TUN here"));
        }
    };
}

fn no_segmentation_offload(errno: Errno) {
    inject(Call::SendBatch, ALWAYS, errno.raw_os_error());
    let world = World::new();
    for _ in 0..2 {
        world.traffic();
    }
    assert!(seen(Call::SendBatch) > 0, "nothing was sent in batches");
    world.nothing_is_lost();
    // Once for each end's path.
    world
        .log
        .tells(2, "no UDP segmentation offload on this path");
}
