//! The demo's world with IPv6 everywhere, Cygnet as the LAN's gateway and as the server, and the
//! questions that the scenarios ask of it.

use super::state::State;
use crate::lab::cygnet::{Cygnet, Setup};
use crate::lab::process::last_lines;
use crate::lab::world::{GATEWAY, HOME_PUBLIC, SERVER, WEB, World};
use crate::lab::{Exec, Failure, Finished, Lab, Namespace, Process, Result, wait_for};
use crate::{ensure, project};
use rustix::process::{Pid, Signal, kill_process};
use std::time::Duration;

/// How long anything may take that happens by itself.
pub(in crate::interop) const SOON: Duration = Duration::from_secs(15);
/// The web host.
pub(in crate::interop) const WEB6: &str = "2001:db8:80::80";
/// The gateway box.
pub(in crate::interop) const GATEWAY6: &str = "fd00:192:168:1::2";
/// The home router.
pub(in crate::interop) const ROUTER6: &str = "fd00:192:168:1::1";
/// The VPN server.
pub(in crate::interop) const SERVER6: &str = "2001:db8:18::18";
/// The tunnel of the gateway.
pub(in crate::interop) const TUNNEL: &str = "home";

/// A peer that is gone is noticed within a second or two.
pub(in crate::interop) const QUICK: &str = "liveness = \"1s\"\nretransmit = { first = \"0.2s\", factor = 1.3, most = \"0.5s\", tries = 4 }\n";

/// A line of shell that deletes the rules that Cygnet sets, whoever set them.
pub(in crate::interop) const FLUSH_RULES: &str = "for f in -4 -6; do for p in 100 101 102 103; do \
    while ip $f rule del pref $p 2>/dev/null; do :; done; done; done";

/// Takes away all that Cygnet has set in the kernel of a host: how it is found at the next start of the machine.
pub(in crate::interop) fn flush_kernel(host: &Namespace) -> Result<()> {
    let routes = "for f in -4 -6; do ip $f route flush table all proto 202 2>/dev/null || :; \
                  ip $f route flush table all proto 201 2>/dev/null || :; done";
    host.shell(&format!("nft flush ruleset; {FLUSH_RULES}; {routes}"))
        .map(drop)
}

/// Gives the whole world IPv6, with routes back to the home: what leaves in clear arrives.
pub(in crate::interop) fn add_ipv6(world: &World) -> Result<()> {
    let addresses = [
        (&world.router, "2001:db8:1::2/64", "wan"),
        (&world.internet, "2001:db8:1::1/64", "home"),
        (&world.internet, "2001:db8:80::1/64", "web"),
        (&world.web, "2001:db8:80::80/64", "eth0"),
        (&world.internet, "2001:db8:2::1/64", "rented"),
        (&world.server_router, "2001:db8:2::2/64", "outside"),
        (&world.server_router, "2001:db8:18::1/64", "inside"),
        (&world.server, "2001:db8:18::18/64", "eth0"),
    ];
    for (host, address, interface) in addresses {
        host.ip(&format!("addr add {address} dev {interface} nodad"))?;
    }
    world.gateway.default_route(ROUTER6)?;
    world.router.default_route("2001:db8:1::1")?;
    world
        .internet
        .ip("route add fd00:192:168:1::/64 via 2001:db8:1::2")?;
    world
        .internet
        .ip("route add 2001:db8:18::/64 via 2001:db8:2::2")?;
    world.server_router.default_route("2001:db8:2::1")?;
    world.server.default_route("2001:db8:18::1")?;
    world.web.default_route("2001:db8:80::1")
}

/// The world in which laptop and phone send everything to the box, and the box forwards: from the
/// beginning to the end, whatever Cygnet does.
pub(in crate::interop) fn forwarding_world(lab: &Lab) -> Result<World> {
    let world = World::build(lab)?;
    add_ipv6(&world)?;
    world.gateway.forward_packets()?;
    world.route_through_gateway()?;
    for device in [&world.laptop, &world.phone] {
        device.default_route(GATEWAY6)?;
    }
    Ok(world)
}

/// The server: gives out addresses of both families.
pub(in crate::interop) fn server_setup() -> Setup {
    Setup::new(
        "[server]
identity = \"vpn.lab\"
psk = \"psk\"
pools = [\"10.99.0.0/24\", \"fd99::/112\"]
",
    )
    .file("psk", "correct horse battery staple\n")
}

/// The gateway: `tunnel` are more lines of its tunnel, `gateway` of its section.
pub(in crate::interop) fn gateway_setup(tunnel: &str, gateway: &str) -> Setup {
    Setup::new(format!(
        "[tunnel.{TUNNEL}]
remote = \"{SERVER}\"
remote_identity = \"vpn.lab\"
identity = \"box.lab\"
psk = \"psk\"
virtual_address = true
{tunnel}
[gateway]
tunnel = \"{TUNNEL}\"
lan = \"eth0\"
{gateway}"
    ))
    .file("psk", "correct horse battery staple\n")
}

/// Everything, running.
pub(in crate::interop) struct Home {
    pub(in crate::interop) world: World,
    pub(in crate::interop) server: Cygnet,
    pub(in crate::interop) gateway: Cygnet,
}

impl Home {
    /// Starts both ends and waits until laptop and phone are online through the tunnel.
    pub(in crate::interop) fn start(lab: &Lab, setup: &Setup) -> Result<Self> {
        let mut home = Self::prepare(lab, setup)?;
        home.gateway.restart()?;
        home.online(&home.world.laptop)?;
        Ok(home)
    }

    /// Starts the server alone.
    pub(in crate::interop) fn prepare(lab: &Lab, setup: &Setup) -> Result<Self> {
        let mut world = forwarding_world(lab)?;
        // MOBIKE: what gets no answer by IPv4 goes by IPv6 as well.
        world.provider.add_ends(&[GATEWAY6], &[SERVER6])?;
        let server = Cygnet::start(lab, &world.server, &server_setup())?;
        let gateway = Cygnet::prepare(lab, &world.gateway, setup)?;
        Ok(Self {
            world,
            server,
            gateway,
        })
    }

    /// Waits until `device` reaches the web host over IPv4 and IPv6, as the server.
    pub(in crate::interop) fn online(&self, device: &Namespace) -> Result<()> {
        self.online_as(device, SERVER)
    }

    /// The same, for a server whose address changed.
    pub(in crate::interop) fn online_as(&self, device: &Namespace, seen_as: &str) -> Result<()> {
        let mut last = [String::new(), String::new()];
        let what = format!("{} is online through the tunnel", device.name());
        wait_for(&what, SOON, || {
            last = [seen_by(device, WEB)?, seen_by(device, WEB6)?];
            Ok((last[0].ends_with(seen_as) && last[1] == SERVER6).then_some(()))
        })
        .map_err(|failure| {
            let said = last_lines(&self.gateway.log(), 12);
            let server = last_lines(&self.server.log(), 8);
            failure.while_doing(format!(
                "the web host sees {last:?}; the gateway's last words:\n{said}\nthe server's:\n{server}\n"
            ))
        })?;
        // Packets pass before all is in place that follows: when it answers, it is.
        self.gateway.status().map(drop)
    }

    /// The same where no guard keeps `device` in: a page asked for before the tunnel is up goes
    /// past it, and the web host, which then never hears the end of it, repeats itself in clear.
    pub(in crate::interop) fn up_before_online(&self, device: &Namespace) -> Result<()> {
        wait_for("the tunnel is up", SOON, || {
            let state = self.gateway.connection(TUNNEL)?.state;
            Ok((state == "up").then_some(()))
        })?;
        self.online(device)
    }

    /// What has left the home (or came to it) and is not the tunnel's own; ICMP errors between the
    /// two ends about the tunnel's packets are counted apart.
    pub(in crate::interop) fn leaked(&self) -> Result<u64> {
        Ok(self.world.provider.counters()?.leaked)
    }

    /// Fails if anything left in clear since the last [`crate::lab::Link::reset`].
    pub(in crate::interop) fn nothing_leaked(&self, when: &str) -> Result<()> {
        let counted = self.world.provider.counters()?;
        ensure!(
            counted.leaked == 0,
            "{when}: {} packets left the home in clear ({}), {} in the tunnel",
            counted.leaked,
            self.world.provider.leaks()?,
            counted.tunnel
        );
        Ok(())
    }

    /// Waits until the web host has nothing more to say to the home in clear: what it repeats there, and what the box answers
    /// to that, is of connections that were let out.
    pub(in crate::interop) fn web_is_done(&self) -> Result<()> {
        let connected = ["ss", "-Htn", "state", "connected", "exclude", "time-wait"];
        wait_for("the web host is done with what was in clear", SOON, || {
            let open = self.world.web.exec(connected)?;
            let in_clear = [HOME_PUBLIC, GATEWAY6]
                .iter()
                .any(|home| open.contains(home));
            Ok((!in_clear).then_some(()))
        })
    }

    /// Counts anew what leaves in clear, after some was allowed to.
    pub(in crate::interop) fn count_anew(&self) -> Result<()> {
        self.web_is_done()?;
        self.world.provider.reset()
    }

    /// The same of what the home sent: nobody has told the web host that a connection is over.
    pub(in crate::interop) fn nothing_left(&self, when: &str) -> Result<()> {
        let left = self.world.provider.leaked_near()?;
        ensure!(
            left == 0,
            "{when}: {left} packets left the home in clear ({})",
            self.world.provider.leaks()?
        );
        Ok(())
    }

    /// The gateway's kernel, as far as Cygnet touches it.
    pub(in crate::interop) fn state(&self) -> Result<State> {
        State::of(&self.world.gateway)
    }
}

/// The address that the web host sees, or why there is none.
pub(in crate::interop) fn seen_by(device: &Namespace, host: &str) -> Result<String> {
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let url = format!("http://{host}/");
    let argv = ["curl", "-sS", "-g", "--fail", "--max-time", "1", &url];
    let finished = device.finish(argv)?;
    let said = if finished.success() {
        finished.stdout
    } else {
        finished.stderr
    };
    Ok(said.trim().to_owned())
}

/// Whether `device` reaches the web host over any family.
pub(in crate::interop) fn reaches_web(device: &Namespace) -> Result<bool> {
    let url = |host: &str| format!("http://{host}/");
    for url in [url(WEB), url(&format!("[{WEB6}]"))] {
        let command = ["curl", "-s", "-g", "--fail", "--max-time", "1", &url];
        if device.finish(command)?.success() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `cygnet gateway on|off` with the configuration of `cygnet`.
pub(in crate::interop) fn guard(cygnet: &Cygnet, onoff: &str) -> Result<String> {
    let finished = cygnet.configured(&["gateway", onoff])?;
    ensure!(
        finished.success(),
        "cygnet gateway {onoff}: {}",
        finished.stderr.trim()
    );
    Ok(finished.stdout)
}

/// `cygnet check` with the configuration of `cygnet`.
pub(in crate::interop) fn check(cygnet: &Cygnet) -> Result<Finished> {
    cygnet.configured(&["check"])
}

/// `cygnet run` behind a line of shell that prepares its surroundings (a mount, another user) and
/// ends in `"$@"`.
pub(super) fn behind(line: &str, cygnet: &Cygnet) -> Exec {
    let (program, config) = (project::cygnet(), cygnet.config_path());
    Exec::new(["sh", "-ec", line, "sh"])
        .arg(program.to_string_lossy())
        .arg("run")
        .arg("--config")
        .arg(config.to_string_lossy())
}

/// Starts [`behind`] and waits until it answers; what [`Cygnet`] says about its process does not
/// hold for it.
pub(in crate::interop) fn start_behind(line: &str, cygnet: &Cygnet) -> Result<Process> {
    start_prepared(behind(line, cygnet), cygnet)
}

/// Starts a prepared `cygnet run` and waits until it answers.
pub(super) fn start_prepared(command: Exec, cygnet: &Cygnet) -> Result<Process> {
    let mut process = cygnet.namespace().spawn_exec(command)?;
    wait_for("cygnet answers", SOON, || {
        if !process.is_running() {
            return Err(Failure::new(format!(
                "cygnet ended: {}",
                process.last_words()
            )));
        }
        Ok(cygnet.control(&["status"])?.success().then_some(()))
    })?;
    Ok(process)
}

/// Waits until a connection is in this state.
pub(in crate::interop) fn wait_for_state(
    cygnet: &Cygnet,
    connection: &str,
    state: &str,
) -> Result<()> {
    let mut seen = String::new();
    let what = format!("{connection} is {state}");
    wait_for(&what, SOON, || {
        let is = cygnet.connection(connection).ok();
        seen = format!("{:?}", is.as_ref().map(|is| (&is.state, &is.reason)));
        Ok(is.is_some_and(|is| is.state == state).then_some(()))
    })
    .map_err(|failure| {
        Failure::new(format!(
            "{failure}, it is {seen}; last words:\n{}",
            last_lines(&cygnet.log(), 12)
        ))
    })
}

/// Sends a signal to the supervisor.
pub(super) fn signal(cygnet: &Cygnet, signal: Signal) -> Result<()> {
    let pid = cygnet
        .pid()
        .and_then(|pid| Pid::from_raw(pid.cast_signed()));
    let pid = pid.ok_or_else(|| Failure::new("cygnet does not run"))?;
    Ok(kill_process(pid, signal)?)
}

/// The box's address in the LAN, for error messages and rules.
pub(super) const BOX: &str = GATEWAY;
