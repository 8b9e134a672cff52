//! A small world: a LAN with a laptop, a phone, the gateway (one leg) and the router, whose
//! loopback plays the internet.

use std::future::Future;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Whether the test can run; outside CI a missing privilege only skips it.
#[allow(
    clippy::print_stderr,
    reason = "the person who runs the test has to see this"
)]
pub(crate) fn root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        let message = "this test needs root: it makes network namespaces (sudo -E cargo test)";
        assert!(std::env::var_os("CI").is_none(), "{message}");
        eprintln!("skipped: {message}");
    }
    is_root
}

/// A network namespace, deleted on drop.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn new(world: &str, host: &str) -> Self {
        let name = format!("cyglx-{}-{world}-{host}", std::process::id());
        sh(&format!("ip netns add {name}"));
        let namespace = Self { name };
        // Addresses are usable at once: nobody else is there to detect.
        namespace.sh("echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad; \
             echo 0 > /proc/sys/net/ipv6/conf/default/dad_transmits; ip link set lo up");
        namespace
    }

    /// Runs a shell command inside and returns what it printed.
    pub(crate) fn sh(&self, command: &str) -> String {
        sh(&format!("ip netns exec {} sh -ec '{command}'", self.name))
    }

    /// Runs a closure on a thread that lives inside.
    pub(crate) fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        let file = std::fs::File::open(Path::new("/run/netns").join(&self.name)).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                use std::os::fd::AsFd;
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                inside()
            });
            match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs a future on a current-thread runtime inside.
    pub(crate) fn block_on<T: Send, F: Future<Output = T>>(
        &self,
        inside: impl FnOnce() -> F + Send,
    ) -> T {
        self.run(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(async { inside().await })
        })
    }

    /// Everything a plan may touch, as text to compare.
    pub(crate) fn state(&self) -> String {
        self.sh(
            "ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; nft -s list ruleset; \
             grep -H . /proc/sys/net/ipv[46]/conf/*/forwarding /proc/sys/net/ipv[46]/conf/*/accept_redirects \
             /proc/sys/net/ipv4/conf/*/send_redirects /proc/sys/net/ipv6/conf/*/accept_ra \
             /proc/sys/net/ipv4/conf/*/rp_filter",
        )
    }

    /// A UDP socket inside.
    pub(crate) fn udp(&self, local: &str) -> UdpSocket {
        let local: SocketAddr = local.parse().unwrap();
        let socket = self.run(|| bind(local));
        socket
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        socket
    }
}

/// A process that another test starts holds what is open here until its exec, a port that was closed too.
fn bind(local: SocketAddr) -> UdpSocket {
    for _ in 0..100 {
        match UdpSocket::bind(local) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                std::thread::sleep(Duration::from_millis(20));
            }
            bound => return bound.unwrap(),
        }
    }
    panic!("{local} stays in use");
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

pub(crate) fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-ec", command]).output().unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The hosts. Everyone's LAN interface is `eth0`.
pub(crate) struct World {
    pub(crate) laptop: Namespace,
    pub(crate) phone: Namespace,
    pub(crate) gateway: Namespace,
    pub(crate) router: Namespace,
    _switch: Namespace,
    directory: PathBuf,
}

/// Web host on the internet.
pub(crate) const WEB: [&str; 2] = ["203.0.113.10", "2001:db8::10"];
/// The VPN server on the internet.
pub(crate) const SERVER: &str = "203.0.113.20";

impl World {
    /// `world` is short: it is part of names.
    pub(crate) fn new(world: &str) -> Self {
        let switch = Namespace::new(world, "switch");
        switch.sh(
            "for f in arp ip ip6; do p=/proc/sys/net/bridge/bridge-nf-call-${f}tables; \
             [ ! -e $p ] || echo 0 > $p; done; ip link add br0 type bridge; ip link set br0 up",
        );
        let host = |name: &str, number: u8| {
            let host = Namespace::new(world, name);
            switch.sh(&format!(
                "ip link add p{number} type veth peer name eth0 netns {}; \
                 ip link set p{number} master br0 up",
                host.name
            ));
            host.sh(&format!(
                "ip address add 192.168.50.{number}/24 dev eth0; \
                 ip address add fd00:50::{number}/64 dev eth0 nodad; ip link set eth0 up"
            ));
            host
        };
        let this = Self {
            laptop: host("laptop", 10),
            phone: host("phone", 11),
            gateway: host("gateway", 2),
            router: host("router", 1),
            _switch: switch,
            directory: std::env::temp_dir().join(format!("cyglx-{}-{world}", std::process::id())),
        };
        this.router.sh(
            "ip address add 203.0.113.10/32 dev lo; ip address add 203.0.113.20/32 dev lo; \
             ip address add 2001:db8::10/128 dev lo nodad",
        );
        // Whatever reaches the router for the canaries' port has leaked.
        this.router
            .sh("nft add table inet watch; nft add chain inet watch in \
             \"{ type filter hook prerouting priority -300; }\"; \
             nft add rule inet watch in ip daddr 203.0.113.10 udp dport 7 counter; \
             nft add rule inet watch in ip6 daddr 2001:db8::10 udp dport 7 counter");
        for (who, via) in [
            (&this.laptop, "2"),
            (&this.phone, "2"),
            (&this.gateway, "1"),
        ] {
            who.sh(&format!(
                "ip route add default via 192.168.50.{via}; \
                 ip -6 route add default via fd00:50::{via}"
            ));
        }
        this
    }

    /// Gives the gateway a way out of its own, `wan0`: two legs.
    pub(crate) fn second_leg(&self) {
        self.gateway.sh(&format!(
            "ip link add wan0 type veth peer name wan0 netns {}; \
             ip address add 192.0.2.2/24 dev wan0; ip address add fd00:99::2/64 dev wan0 nodad; \
             ip link set wan0 up; ip route replace default via 192.0.2.1; \
             ip -6 route replace default via fd00:99::1",
            self.router.name
        ));
        self.router.sh(
            "ip address add 192.0.2.1/24 dev wan0; ip address add fd00:99::1/64 dev wan0 nodad; \
             ip link set wan0 up",
        );
    }

    /// Where the journal goes.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Sends canaries from the laptop to the internet, both families, and returns how many of each
    /// the router has seen of these.
    pub(crate) fn canaries(&self) -> [u64; 2] {
        let before = self.seen();
        self.laptop.run(|| {
            for (local, web) in [("0.0.0.0:0", WEB[0]), ("[::]:0", WEB[1])] {
                let socket = UdpSocket::bind(local).unwrap();
                let web = SocketAddr::new(web.parse().unwrap(), 7);
                for _ in 0..10 {
                    // An ICMP unreachable for one is an error for the next.
                    let _ = socket.send_to(b"canary", web);
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        });
        std::thread::sleep(Duration::from_millis(100));
        let after = self.seen();
        [after[0] - before[0], after[1] - before[1]]
    }

    /// Canaries of each family that the router has seen.
    pub(crate) fn seen(&self) -> [u64; 2] {
        let list = self.router.sh("nft list table inet watch");
        let mut counts = list.lines().filter_map(|l| {
            let after = l.split("counter packets ").nth(1)?;
            after.split(' ').next()?.parse::<u64>().ok()
        });
        [counts.next().unwrap(), counts.next().unwrap()]
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
