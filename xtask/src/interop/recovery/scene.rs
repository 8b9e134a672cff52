//! The world that an event befalls: the demo's, with certificates, and its events step by step.

use super::super::resilience::home::{
    GATEWAY6, Home, ROUTER6, SERVER6, TUNNEL, flush_kernel, forwarding_world, guard, start_behind,
};
use super::asker::Asker;
use super::events::Event;
use super::report::Round;
use crate::ensure;
use crate::lab::cygnet::{Cygnet, Setup};
use crate::lab::pki::{Authority, Credential, KeyKind, Request, Validity};
use crate::lab::process::last_lines;
use crate::lab::world::{GATEWAY, ROUTER, SERVER};
use crate::lab::{Failure, Lab, Process, Result, interrupt, wait_for};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long anything may take that happens by itself; who is not back then needs a hand.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a server may be gone before it counts as that: `liveness` and the repetitions of the question after it,
/// sixty-one seconds. It is called long before.
const MISSED: Duration = Duration::from_secs(90);
/// What systemd waits before it starts the service again, see packaging/systemd.
const RESTART_SEC: Duration = Duration::from_secs(1);
/// How long a cable is out.
const UNPLUGGED: Duration = Duration::from_secs(5);
/// How long a box sleeps.
const ASLEEP: Duration = Duration::from_secs(15);
/// How long the clock goes on being behind.
const CLOCK_BEHIND: i64 = 20;
/// How long a server stays away once it is missed: until its client calls as seldom as it will in the first minutes.
const AWAY: Duration = Duration::from_secs(8);
/// Each round it stays away a little longer: at another moment between two calls.
const LONGER: Duration = Duration::from_millis(1300);
/// Later it calls less often.
const AWAY_LONG: Duration = Duration::from_secs(660);
const AWAY_HOUR: Duration = Duration::from_secs(3600);

const BOX_NAME: &str = "box.lab";
const SERVER_NAME: &str = "vpn.lab";
/// What resolves to the server where its address changes.
const NAME: &str = "moving.example.org";
/// The addresses that box, home and server have in turn.
const BOX: [&str; 2] = [GATEWAY, "192.168.1.3"];
const HOME: [[&str; 2]; 2] = [
    ["203.0.113.2/30", "203.0.113.1"],
    ["203.0.113.6/30", "203.0.113.5"],
];
const SERVERS: [&str; 2] = [SERVER, "192.0.2.19"];

/// All of it, while everybody is online.
pub(super) struct Scene {
    home: Home,
    asker: Asker,
    event: Event,
    authority: Authority,
    /// Which of the addresses is in use.
    turn: usize,
    /// Rounds that were played.
    rounds: u32,
    /// The box's program where it does not run as it usually does.
    behind: Option<Process>,
}

/// When an event was over.
struct Over {
    /// It is counted from here.
    from: Instant,
    /// What is asked from here on is answered by what came back alone.
    since: Instant,
}

impl Over {
    fn now() -> Self {
        let now = Instant::now();
        Self {
            from: now,
            since: now,
        }
    }
}

impl Scene {
    /// Builds it; laptop and box are online.
    pub(super) fn start(lab: &Lab, event: Event) -> Result<Self> {
        let authority = Authority::root(KeyKind::EcP256, "recovery")?;
        let mut world = forwarding_world(lab)?;
        world
            .provider
            .add_ends(&["203.0.113.6", GATEWAY6], &["192.0.2.19", SERVER6])?;
        world.internet.ip("addr add 203.0.113.5/30 dev home")?;
        // Nor does a router send back to the provider what came from there for an address that it has no more: here the
        // provider would return it, round and round, as packets from the home.
        world.router.nft(
            "table inet no_way_back {\nchain forward {\ntype filter hook forward priority 0; policy accept;\n\
             iifname \"wan\" oifname \"wan\" drop\n}\n}\n",
        )?;
        for (host, interface) in [
            (&world.gateway, "eth0"),
            (&world.router, "wan"),
            (&world.server, "eth0"),
        ] {
            host.sysctl(
                &format!("net.ipv4.conf.{interface}.promote_secondaries"),
                "1",
            )?;
        }
        let issue = |name| issue(&authority, name, Validity::Now);
        let server = Cygnet::start(
            lab,
            &world.server,
            &server_setup(&authority, &issue(SERVER_NAME)?),
        )?;
        let own = issue(BOX_NAME)?;
        let gateway = Cygnet::prepare(lab, &world.gateway, &box_setup(&authority, &own, event))?;
        let mut home = Home {
            world,
            server,
            gateway,
        };
        let behind = first_start(&mut home, event)?;
        home.online(&home.world.laptop)?;
        // Not before: flows that began in clear are none of the tunnel's.
        let asker = Asker::start(&home.world.laptop, &home.world.web)?;
        Ok(Self {
            home,
            asker,
            event,
            authority,
            turn: 0,
            rounds: 0,
            behind,
        })
    }

    /// The event befalls it once, and it comes back.
    pub(super) fn round(&mut self) -> Result<Round> {
        self.home.world.provider.reset()?;
        self.asker.forget();
        let before = self.seen_as()?;
        self.asker
            .answered_since(Instant::now(), before, PATIENCE)
            .map_err(|failure| failure.while_doing("before anything has happened"))?;
        let over = self
            .befall()
            .map_err(|failure| failure.while_doing(self.event))?;
        let after = self.seen_as()?;
        let came = self.asker.answered_since(over.since, after, PATIENCE)?;
        // Connections that begin now, too, and no second tunnel is left of the first.
        self.home
            .online_as(&self.home.world.laptop, &after[0].to_string())?;
        wait_for("the server has one tunnel with the box", PATIENCE, || {
            let sas = self.home.server.connection("server")?.ike_sas;
            Ok((sas.len() == 1).then_some(()))
        })?;
        self.rounds += 1;
        // What somebody says to the home of a server that is gone is no packet of the home's.
        let leaked = self.home.world.provider.leaked_near()?;
        Ok(Round {
            took: came.saturating_duration_since(over.from),
            leaked,
            leaks: match leaked {
                0 => String::new(),
                _ => self.home.world.provider.leaks()?,
            },
        })
    }

    /// Whom the host of the internet sees.
    fn seen_as(&self) -> Result<[IpAddr; 2]> {
        let server = match self.event {
            Event::NameMoved => SERVERS[self.turn],
            _ => SERVER,
        };
        Ok([server.parse()?, SERVER6.parse()?])
    }

    fn befall(&mut self) -> Result<Over> {
        match self.event {
            Event::EngineKilled => self.engine_killed(),
            Event::SupervisorKilled => {
                self.home.gateway.kill_supervisor()?;
                interrupt::pause(RESTART_SEC)?;
                let over = Over::now();
                self.home.gateway.restart()?;
                Ok(over)
            }
            Event::PowerCut => {
                self.home.gateway.kill_engine()?;
                self.home.gateway.kill_supervisor()?;
                self.boots()
            }
            Event::Reboot => {
                self.home.gateway.stop()?;
                self.boots()
            }
            Event::NoClock => self.no_clock(),
            Event::Lid => self.sleeps(),
            Event::BoxCable => {
                self.home.world.plug_box(false)?;
                interrupt::pause(UNPLUGGED)?;
                self.home.world.plug_box(true)?;
                Ok(Over::now())
            }
            Event::ProviderCable => {
                self.home.world.provider.cut(true)?;
                interrupt::pause(UNPLUGGED)?;
                self.home.world.provider.cut(false)?;
                Ok(Over::now())
            }
            Event::NewLease => self.new_lease(),
            Event::ProviderAddress => self.provider_address(),
            Event::ServerRestart => {
                self.home.server.kill_supervisor()?;
                self.home.server.restart()?;
                Ok(Over::now())
            }
            Event::ServerGone => self.server_gone(self.away()),
            Event::ServerGoneLong => self.server_gone(AWAY_LONG),
            Event::ServerGoneHour => self.server_gone(AWAY_HOUR),
            Event::NameMoved => self.name_moved(),
        }
    }

    fn engine_killed(&self) -> Result<Over> {
        let engine = self.home.gateway.status()?.processes.engine;
        let engine = engine.ok_or_else(|| Failure::new("there is no engine"))?;
        let from = Instant::now();
        self.home.gateway.kill_engine()?;
        let process = format!("/proc/{engine}");
        wait_for("the engine is gone", PATIENCE, || {
            Ok((!Path::new(&process).exists()).then_some(()))
        })?;
        let since = Instant::now();
        Ok(Over { from, since })
    }

    /// Nothing runs. A kernel that knows nothing but to forward, then what systemd starts: the guard, the network, cygnet.
    fn boots(&mut self) -> Result<Over> {
        let host = self.home.world.gateway.clone();
        host.ip("link set eth0 down")?;
        flush_kernel(&host)?;
        let run = self.home.gateway.directory().join("run");
        if run.exists() {
            fs::remove_dir_all(run)?;
        }
        let over = Over::now();
        guard(&self.home.gateway, "on")?;
        host.ip("link set eth0 up")?;
        host.ip(&format!("-6 addr replace {GATEWAY6}/64 dev eth0"))?;
        host.default_route(ROUTER)?;
        host.default_route(ROUTER6)?;
        self.home.gateway.restart()?;
        Ok(over)
    }

    /// By its own certificate it is later than the clock says, until the clock says so, too.
    fn no_clock(&mut self) -> Result<Over> {
        let gateway = &mut self.home.gateway;
        gateway.stop()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let right = now.map_or(0, |now| now.as_secs().cast_signed()) + CLOCK_BEHIND;
        let own = issue(&self.authority, BOX_NAME, Validity::From(right))?;
        gateway.write(&box_setup(&self.authority, &own, self.event))?;
        gateway.restart()?;
        gateway.wait_for_warning("clock is not set", PATIENCE)?;
        let state = gateway.connection(TUNNEL)?.state;
        ensure!(state != "up", "it is up although the clock cannot be right");
        let right = UNIX_EPOCH + Duration::from_secs(right.unsigned_abs());
        let wait = right.duration_since(SystemTime::now());
        let wait = wait.map_err(|_| Failure::new("the clock was right before it was missed"))?;
        interrupt::pause(wait)?;
        Ok(Over::now())
    }

    /// All that runs on the box stands still; what began or ended while it was stopped is no matter.
    fn sleeps(&self) -> Result<Over> {
        let host = &self.home.world.gateway;
        let mut stopped = BTreeSet::new();
        loop {
            let pids = BTreeSet::from_iter(host.pids()?);
            let new: Vec<u32> = pids.difference(&stopped).copied().collect();
            if new.is_empty() {
                ensure!(pids.len() > 1, "only {pids:?} run on the box");
                break;
            }
            signal_each(&new, Signal::STOP)?;
            stopped.extend(new);
        }
        let slept = interrupt::pause(ASLEEP);
        let over = Over::now();
        signal_each(&Vec::from_iter(stopped), Signal::CONT)?;
        slept?;
        Ok(over)
    }

    fn new_lease(&mut self) -> Result<Over> {
        let (old, new) = self.next(&BOX);
        let world = &self.home.world;
        world.gateway.ip(&format!("addr add {new}/24 dev eth0"))?;
        world.gateway.ip(&format!("addr del {old}/24 dev eth0"))?;
        world.gateway.default_route(ROUTER)?;
        let from = Instant::now();
        for device in [&world.laptop, &world.phone] {
            device.default_route(new)?;
        }
        let since = Instant::now();
        Ok(Over { from, since })
    }

    fn provider_address(&mut self) -> Result<Over> {
        let ([old, _], [new, via]) = self.next(&HOME);
        let router = &self.home.world.router;
        router.ip(&format!("addr add {new} dev wan"))?;
        router.ip(&format!("addr del {old} dev wan"))?;
        router.default_route(via)?;
        Ok(Over::now())
    }

    fn server_gone(&mut self, away: Duration) -> Result<Over> {
        self.home.server.kill_supervisor()?;
        self.missed()?;
        interrupt::pause(away)?;
        self.home.server.restart()?;
        Ok(Over::now())
    }

    fn name_moved(&mut self) -> Result<Over> {
        let (old, new) = self.next(&SERVERS);
        let server = &self.home.world.server;
        server.ip(&format!("addr add {new}/28 dev eth0"))?;
        server.ip(&format!("addr del {old}/28 dev eth0"))?;
        server.default_route("192.0.2.17")?;
        self.missed()?;
        interrupt::pause(self.away())?;
        name_leads_to(&self.home, new)?;
        Ok(Over::now())
    }

    fn away(&self) -> Duration {
        AWAY + LONGER * self.rounds
    }

    /// The box has found out that its server is gone.
    fn missed(&self) -> Result<()> {
        wait_for("the box misses its server", MISSED, || {
            let state = self.home.gateway.connection(TUNNEL)?.state;
            Ok((state != "up").then_some(()))
        })
    }

    /// The one of two that was used until now, and the one that is from now on.
    fn next<T: Copy>(&mut self, of: &[T; 2]) -> (T, T) {
        let old = self.turn;
        self.turn = 1 - old;
        (of[old], of[self.turn])
    }

    /// With what the box said last.
    pub(super) fn with_log(&self, failure: Failure) -> Failure {
        let behind = self.behind.as_ref().map(Process::log);
        let log = behind.unwrap_or_else(|| self.home.gateway.log());
        Failure::new(format!(
            "{failure}\nthe box's last words:\n{}\nthe server's:\n{}",
            last_lines(&log, 14),
            last_lines(&self.home.server.log(), 8)
        ))
    }
}

/// The box's program, where it does not run as it usually does.
fn first_start(home: &mut Home, event: Event) -> Result<Option<Process>> {
    if event != Event::NameMoved {
        return home.gateway.restart().map(|()| None);
    }
    // By IPv6 the tunnel would move to the server's other address by itself.
    home.world.gateway.ip("-6 route del default")?;
    name_leads_to(home, SERVER)?;
    let mount = format!(
        "mount --bind {} /etc/hosts; exec \"$@\"",
        hosts(home).display()
    );
    start_behind(&mount, &home.gateway).map(Some)
}

fn hosts(home: &Home) -> PathBuf {
    home.gateway.directory().join("hosts")
}

/// Of processes that may have ended.
fn signal_each(pids: &[u32], signal: Signal) -> Result<()> {
    for pid in pids
        .iter()
        .filter_map(|pid| Pid::from_raw(pid.cast_signed()))
    {
        match kill_process(pid, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The mount is of the file, so it has to stay the same one.
fn name_leads_to(home: &Home, address: &str) -> Result<()> {
    let text = format!("127.0.0.1 localhost\n{address} {NAME}\n");
    Ok(fs::write(hosts(home), text)?)
}

fn issue(authority: &Authority, name: &str, validity: Validity) -> Result<Credential> {
    let request = Request::new(KeyKind::EcP256, name).name(name);
    authority.issue(&request.validity(validity))
}

fn server_setup(authority: &Authority, own: &Credential) -> Setup {
    Setup::new(format!(
        "[server]
identity = \"{SERVER_NAME}\"
certificate = \"own.crt\"
key = \"own.key\"
ca = \"ca.crt\"
pools = [\"10.99.0.0/24\", \"fd99::/112\"]
"
    ))
    .credential("own", own)
    .file("ca.crt", authority.certificate.clone())
}

/// Without any timing: what is measured is what a user gets.
fn box_setup(authority: &Authority, own: &Credential, event: Event) -> Setup {
    let remote = match event {
        Event::NameMoved => NAME,
        _ => SERVER,
    };
    Setup::new(format!(
        "[tunnel.{TUNNEL}]
remote = \"{remote}\"
remote_identity = \"{SERVER_NAME}\"
identity = \"{BOX_NAME}\"
certificate = \"own.crt\"
key = \"own.key\"
ca = \"ca.crt\"
virtual_address = true

[gateway]
tunnel = \"{TUNNEL}\"
lan = \"eth0\"
"
    ))
    .credential("own", own)
    .file("ca.crt", authority.certificate.clone())
}
