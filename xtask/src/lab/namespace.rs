//! Hosts (network namespaces), the wires between them, and switches.

use super::failure::{Context, Failure, Result};
use super::interrupt;
use super::process::{Exec, Finished, Process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

/// A host. Cheap to clone; the namespace is removed, with everybody inside, when the last clone goes.
#[derive(Debug, Clone)]
pub struct Namespace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    full: String,
    short: String,
    logs: PathBuf,
    spawned: AtomicU32,
}

impl Drop for Inner {
    fn drop(&mut self) {
        interrupt::remove_namespace(&self.full);
    }
}

impl Namespace {
    pub(super) fn create(full: &str, short: &str, logs: PathBuf) -> Result<Self> {
        Exec::new(["ip", "netns", "add", full]).run()?;
        let namespace = Self(Arc::new(Inner {
            full: full.to_owned(),
            short: short.to_owned(),
            logs,
            spawned: AtomicU32::new(0),
        }));
        namespace.ip("link set lo up")?;
        // The reverse-path filter is strict only where a scenario says so. Without duplicate address
        // detection IPv6 can be used at once; a router asks for neighbours by its link-local address.
        namespace.exec([
            "sysctl",
            "-qw",
            "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.default.rp_filter=0",
            "net.ipv6.conf.all.accept_dad=0",
            "net.ipv6.conf.default.accept_dad=0",
            "net.ipv6.conf.default.dad_transmits=0",
        ])?;
        Ok(namespace)
    }

    /// The name within the lab, such as `gwa`.
    pub fn name(&self) -> &str {
        &self.0.short
    }

    /// The name as `ip netns` knows it.
    pub fn full_name(&self) -> &str {
        &self.0.full
    }

    /// Makes `command` run on this host.
    #[must_use]
    pub fn place(&self, command: Exec) -> Exec {
        command.through(&["ip", "netns", "exec", &self.0.full])
    }

    /// Runs a program to its end; gives what it printed, fails unless it ended with 0.
    pub fn exec<I, S>(&self, argv: I) -> Result<String>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.place(Exec::new(argv)).run().context(self.name())
    }

    /// Runs a program to its end, whatever its status.
    pub fn finish<I, S>(&self, argv: I) -> Result<Finished>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.place(Exec::new(argv)).finish().context(self.name())
    }

    /// Runs a line of shell.
    pub fn shell(&self, line: &str) -> Result<String> {
        self.place(Exec::shell(line)).run().context(self.name())
    }

    /// `ip …` on this host; the arguments are separated by blanks.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        let mut argv = vec!["ip", "-n", &self.0.full];
        argv.extend(arguments.split_whitespace());
        Exec::new(argv).run()
    }

    /// Applies rules with `nft -f -`.
    pub fn nft(&self, rules: &str) -> Result<()> {
        let command = Exec::new(["nft", "-f", "-"]).stdin(rules);
        self.place(command)
            .run()
            .context(format!("{}, applying\n{rules}", self.name()))?;
        Ok(())
    }

    /// Sets a kernel parameter of this host.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.exec(["sysctl", "-qw", &format!("{key}={value}")])?;
        Ok(())
    }

    /// Lets the host forward packets.
    pub fn forward_packets(&self) -> Result<()> {
        self.sysctl("net.ipv4.ip_forward", "1")?;
        self.sysctl("net.ipv6.conf.all.forwarding", "1")
    }

    /// Turns the strict reverse-path filter on, for the interfaces there are and those to come.
    pub fn filter_reverse_path(&self) -> Result<()> {
        self.shell("for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 > $f; done")?;
        Ok(())
    }

    /// Starts a program that runs until the [`Process`] is dropped.
    pub fn spawn<I, S>(&self, argv: I) -> Result<Process>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        let argv: Vec<String> = argv.into_iter().map(Into::into).collect();
        self.spawn_exec(Exec::new(argv))
    }

    /// Starts a prepared command that runs until the [`Process`] is dropped.
    pub fn spawn_exec(&self, command: Exec) -> Result<Process> {
        let number = self.0.spawned.fetch_add(1, Ordering::Relaxed);
        let log = self.0.logs.join(format!("{}.{number}.log", self.name()));
        self.place(command).spawn(self.name(), &log)
    }

    /// The ids of all processes that run on this host.
    pub fn pids(&self) -> Result<Vec<u32>> {
        let listed = Exec::new(["ip", "netns", "pids", &self.0.full]).run()?;
        Ok(listed
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect())
    }

    /// The hardware address of its `eth0`.
    pub fn mac(&self) -> Result<String> {
        let mac = self.shell("cat /sys/class/net/eth0/address")?;
        Ok(mac.trim().to_owned())
    }

    /// Whether a program of its listens at this TCP port.
    pub fn listens_tcp(&self, port: u16) -> Result<bool> {
        self.has_socket("-Hltn", port)
    }

    /// Whether a program of its has this UDP port.
    pub fn listens_udp(&self, port: u16) -> Result<bool> {
        self.has_socket("-Hlun", port)
    }

    fn has_socket(&self, kind: &str, port: u16) -> Result<bool> {
        let listed = self.exec(["ss", kind, &format!("sport = :{port}")])?;
        Ok(!listed.trim().is_empty())
    }

    /// Removes a default route if there is one, and sets a new one.
    pub fn default_route(&self, via: &str) -> Result<()> {
        let family = if via.contains(':') { "-6" } else { "-4" };
        self.ip(&format!("{family} route replace default via {via}"))?;
        Ok(())
    }
}

/// Runs `work` on a host, in a thread of its own.
pub fn on_host<T: Send + 'static>(
    host: &Namespace,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> JoinHandle<Result<T>> {
    let path = format!("/run/netns/{}", host.full_name());
    thread::spawn(move || {
        let namespace = File::open(&path).context(format!("cannot open {path}"))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    })
}

/// The result of a thread of [`on_host`].
pub fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|_| Err(Failure::new("a thread on a host panicked")))
}

/// One end of a wire: which host, what its interface is called, which addresses it gets.
#[derive(Debug, Clone)]
pub struct End<'a> {
    namespace: &'a Namespace,
    interface: &'a str,
    mac: Option<[u8; 6]>,
    addresses: Vec<String>,
}

impl<'a> End<'a> {
    /// `addresses` with their prefix lengths, IPv4 or IPv6: `10.1.0.1/24`.
    pub fn new(namespace: &'a Namespace, interface: &'a str, addresses: &[&str]) -> Self {
        Self {
            namespace,
            interface,
            mac: None,
            addresses: addresses
                .iter()
                .map(|&address| address.to_owned())
                .collect(),
        }
    }

    /// With this hardware address, and not with one that the kernel draws.
    #[must_use]
    pub fn mac(mut self, mac: [u8; 6]) -> Self {
        self.mac = Some(mac);
        self
    }

    fn bring_up(&self) -> Result<()> {
        if let Some(mac) = self.mac {
            let mac = mac_text(mac);
            self.namespace
                .ip(&format!("link set {} address {mac}", self.interface))?;
        }
        for address in &self.addresses {
            self.namespace
                .ip(&format!("addr add {address} dev {}", self.interface))?;
        }
        self.namespace
            .ip(&format!("link set {} up", self.interface))?;
        Ok(())
    }
}

/// A hardware address as `ip` writes it.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

/// Joins two hosts by a wire (a veth pair).
pub fn wire(one: &End<'_>, other: &End<'_>) -> Result<()> {
    one.namespace.ip(&format!(
        "link add {} type veth peer name {} netns {}",
        one.interface,
        other.interface,
        other.namespace.full_name()
    ))?;
    one.bring_up()?;
    other.bring_up()
}

/// A switch: a host of its own with a bridge, so that no host is privileged.
#[derive(Debug, Clone)]
pub struct Switch {
    namespace: Namespace,
    ports: Arc<AtomicU32>,
}

impl Switch {
    /// Turns a fresh host into a switch.
    pub fn on(namespace: Namespace) -> Result<Self> {
        namespace.ip("link add bridge type bridge forward_delay 0 mcast_snooping 0")?;
        namespace.ip("link set bridge up")?;
        plain_bridge(&namespace)?;
        Ok(Self {
            namespace,
            ports: Arc::new(AtomicU32::new(0)),
        })
    }

    /// The host that plays the switch.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Plugs a host in; gives the name of the switch's port.
    pub fn plug(&self, end: &End<'_>) -> Result<String> {
        let number = self.ports.fetch_add(1, Ordering::Relaxed);
        let port = format!("port{number}");
        self.plug_as(end, &port)?;
        Ok(port)
    }

    /// Pulls the cable of a port, and takes the interface at its other end away with it.
    pub fn unplug(&self, port: &str) -> Result<()> {
        self.namespace.ip(&format!("link del {port}"))?;
        Ok(())
    }

    pub(super) fn plug_as(&self, end: &End<'_>, port: &str) -> Result<()> {
        wire(end, &End::new(&self.namespace, port, &[]))?;
        self.namespace
            .ip(&format!("link set {port} master bridge"))?;
        Ok(())
    }
}

/// A switch must not show bridged packets to its own firewall; where the bridge module is new enough
/// these are settings of each namespace, elsewhere they are missing.
fn plain_bridge(namespace: &Namespace) -> Result<()> {
    namespace.shell(
        "for f in /proc/sys/net/bridge/bridge-nf-call-*; do if [ -w $f ]; then echo 0 > $f; fi; done; \
         sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1",
    )?;
    Ok(())
}
