//! The box before anybody set it up: a tunnel is configured, nothing runs. And what is compared of it.
//!
//! No lab is booted by systemd. So a `systemctl` stands before the real one that has what the setup asks of it: it keeps
//! which units are enabled, starts and ends the program, and writes down each call. That the units themselves are what
//! systemd takes is shown by `systemd-units`.

use super::super::super::resilience::home::{
    GATEWAY6, QUICK, SOON, TUNNEL, add_ipv6, server_setup,
};
use super::super::super::resilience::state::State;
use crate::lab::cygnet::{Cygnet, Setup};
use crate::lab::world::{SERVER, World};
use crate::lab::{End, Exec, Failure, Finished, Lab, Namespace, Result, wait_for, wire};
use crate::{ensure, project};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long it takes at most until something is taken back that nobody confirmed.
pub(super) const TAKEN_BACK: Duration = Duration::from_secs(120);

const SYSTEMCTL: &str = r#"#!/bin/sh
# What `cygnet gateway setup` asks of systemd.
S=@STATE@
echo "$*" >> $S/calls
runs() { [ -e $S/pid ] && grep -qs '^State:.[^ZX]' /proc/$(cat $S/pid)/status; }
stop() {
    runs && kill $(cat $S/pid)
    while runs; do sleep 0.05; done
    rm -f $S/pid
}
start() {
    runs && return 0
    setsid @CYGNET@ run --config @CONFIG@ >> $S/log 2>&1 < /dev/null &
    echo $! > $S/pid
    until @CYGNET@ status --socket @SOCKET@ > /dev/null 2>&1; do
        runs || return 1
        sleep 0.05
    done
}
verb=$1; shift
[ "$1" = --no-block ] && shift
case "$verb $1" in
    "is-system-running ") echo running ;;
    "daemon-reload ") ;;
    "cat "*) echo "ExecStart=@CYGNET@ run --config @CONFIG@" ;;
    "is-enabled "*) [ -e $S/enabled.$1 ] ;;
    "enable cygnet-guard.service")
        grep -q '^\[gateway\]' @CONFIG@ && echo "the configuration was first" >> $S/calls
        touch $S/enabled.$1 ;;
    "enable "*) touch $S/enabled.$1 ;;
    "disable "*) rm -f $S/enabled.$1 ;;
    "is-active cygnet.service") runs ;;
    "start cygnet.service") start ;;
    "restart cygnet.service") stop; start ;;
    "stop cygnet.service") stop ;;
    "is-active "*) [ -e $S/active.$1 ] ;;
    "start cygnet-guard.service") @CYGNET@ gateway on --config @CONFIG@ >> $S/log 2>&1 && touch $S/active.$1 ;;
    "stop cygnet-guard.service") rm -f $S/active.$1 ;;
    *) echo "no such order" >&2; exit 1 ;;
esac
"#;

const SYSTEMD_RUN: &str = r#"#!/bin/sh
# A unit of its own for a command.
echo "run $*" >> @STATE@/calls
while [ "$1" != -- ]; do shift; done
shift
setsid "$@" < /dev/null > /dev/null 2>&1 &
"#;

/// The box, in the demo's world with a server at the other end.
pub(super) struct Machine {
    pub(super) world: World,
    pub(super) cygnet: Cygnet,
    pub(super) server: Cygnet,
    pub(super) lab: PathBuf,
    /// `PATH` of whoever sets up.
    pub(super) path: String,
    /// Where the `systemctl` keeps what it knows.
    pub(super) systemd: PathBuf,
    before: Known,
    inside: Option<Namespace>,
}

/// Everything that a setup may change, and should not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    kernel: State,
    settings: String,
    /// Of the directories of configuration and state: each with mode, owner, content.
    files: String,
    units: String,
}

/// The configuration, with comments wherever comments can be.
fn setup() -> Setup {
    Setup::new(format!(
        "# The way out.
[tunnel.{TUNNEL}] # by Algo
remote = \"{SERVER}\"   # rented
remote_identity = \"vpn.lab\"
identity = \"box.lab\"
psk = \"psk\"
virtual_address = true
{QUICK}
# The end.
"
    ))
    .file("psk", "correct horse battery staple\n")
}

impl Machine {
    /// One leg, and systemd.
    pub(super) fn new(lab: &Lab) -> Result<Self> {
        Self::build(lab, true, false, &server_setup())
    }

    /// The same, with this server at the other end.
    pub(super) fn with_server(lab: &Lab, server: &Setup) -> Result<Self> {
        Self::build(lab, true, false, server)
    }

    /// One leg, and nothing that starts the program.
    pub(super) fn without_systemd(lab: &Lab) -> Result<Self> {
        Self::build(lab, false, false, &server_setup())
    }

    /// A second leg, `eth1`, with a host in the LAN there.
    pub(super) fn with_two_legs(lab: &Lab) -> Result<Self> {
        Self::build(lab, true, true, &server_setup())
    }

    fn build(lab: &Lab, systemd: bool, two_legs: bool, server: &Setup) -> Result<Self> {
        let world = World::build(lab)?;
        add_ipv6(&world)?;
        world.route_through_gateway()?;
        for device in [&world.laptop, &world.phone] {
            device.default_route(GATEWAY6)?;
        }
        let mut inside = None;
        if two_legs {
            let host = lab.host("inside")?;
            let (own, other) = (["10.7.0.1/24", "fd07::1/64"], ["10.7.0.2/24", "fd07::2/64"]);
            wire(
                &End::new(&world.gateway, "eth1", &own),
                &End::new(&host, "eth0", &other),
            )?;
            host.default_route("10.7.0.1")?;
            host.default_route("fd07::1")?;
            inside = Some(host);
        }
        let server = Cygnet::start(lab, &world.server, server)?;
        let cygnet = Cygnet::prepare(lab, &world.gateway, &setup())?;
        fs::set_permissions(cygnet.config_path(), fs::Permissions::from_mode(0o640))?;
        let (bin, state) = (lab.subdirectory("bin")?, lab.subdirectory("systemd")?);
        if systemd {
            for (name, text) in [("systemctl", SYSTEMCTL), ("systemd-run", SYSTEMD_RUN)] {
                let text = text
                    .replace("@STATE@", &state.to_string_lossy())
                    .replace("@CYGNET@", &project::cygnet().to_string_lossy())
                    .replace("@CONFIG@", &cygnet.config_path().to_string_lossy())
                    .replace("@SOCKET@", &cygnet.socket().to_string_lossy());
                let path = bin.join(name);
                fs::write(&path, text)?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
            }
        } else {
            // As on a machine that something else has booted, whatever this one was.
            let path = bin.join("systemctl");
            fs::write(&path, "#!/bin/sh\necho offline\nexit 1\n")?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        // What the kernel has from its first look at a rule or a table on.
        let box_ = &world.gateway;
        box_.shell("nft list ruleset; ip rule; ip -6 rule")?;
        Ok(Self {
            path: format!(
                "{}:{}",
                bin.display(),
                std::env::var("PATH").unwrap_or_default()
            ),
            lab: lab.directory().to_owned(),
            before: Known::of(&world.gateway, &cygnet, &state)?,
            systemd: state,
            world,
            server,
            cygnet,
            inside,
        })
    }

    /// The host behind the second leg.
    pub(super) fn inside(&self) -> Result<&Namespace> {
        self.inside
            .as_ref()
            .ok_or_else(|| Failure::new("there is one leg"))
    }

    /// It is to be like this again.
    pub(super) fn remember(&mut self) -> Result<()> {
        self.before = self.known()?;
        Ok(())
    }

    pub(super) fn known(&self) -> Result<Known> {
        Known::of(&self.world.gateway, &self.cygnet, &self.systemd)
    }

    /// Fails unless all is as it was remembered.
    pub(super) fn is_as_before(&self, when: &str) -> Result<()> {
        self.before.expect_same(&self.known()?, when)
    }

    /// Waits until nothing waits for a confirmation any more, and all is as it was.
    pub(super) fn is_taken_back(&self, when: &str) -> Result<()> {
        let record = self.record();
        wait_for(&format!("{when}: it is taken back"), TAKEN_BACK, || {
            Ok((!record.exists()).then_some(()))
        })
        .map_err(|failure| Failure::new(format!("{failure}\n{}", self.log())))?;
        self.watcher_has_ended()?;
        self.is_as_before(when)
    }

    /// What a setup keeps of itself.
    pub(super) fn record(&self) -> PathBuf {
        self.cygnet.directory().join("state/gateway-setup.json")
    }

    pub(super) fn watcher_has_ended(&self) -> Result<()> {
        wait_for("nobody watches any more", SOON, || {
            Ok(self
                .pids_of("watch-gateway-setup")?
                .is_empty()
                .then_some(()))
        })
    }

    /// Waits until a process watches the trial.
    pub(super) fn watcher(&self) -> Result<u32> {
        wait_for("somebody watches", SOON, || {
            Ok(self.pids_of("watch-gateway-setup")?.first().copied())
        })
    }

    /// The process that sets up.
    pub(super) fn setup(&self) -> Result<u32> {
        wait_for("somebody sets up", SOON, || {
            Ok(self.pids_of("gateway\0setup")?.first().copied())
        })
    }

    /// Processes of the program on the box whose arguments begin like this.
    fn pids_of(&self, arguments: &str) -> Result<Vec<u32>> {
        let program = project::cygnet();
        let of_it = |pid: &u32| {
            let read = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&read).into_owned();
            let (first, rest) = line.split_once('\0').unwrap_or_default();
            let ours = Path::new(first).file_name() == program.file_name();
            ours && rest.starts_with(arguments)
        };
        let pids = self.world.gateway.pids()?;
        Ok(pids.into_iter().filter(of_it).collect())
    }

    /// SIGKILL.
    pub(super) fn kill(&self, pid: u32) -> Result<()> {
        let pid = Pid::from_raw(pid.cast_signed()).ok_or_else(|| Failure::new("no process"))?;
        Ok(kill_process(pid, Signal::KILL)?)
    }

    /// SIGKILL to the program that systemd runs.
    pub(super) fn kill_run(&self) -> Result<()> {
        let pid = fs::read_to_string(self.systemd.join("pid"))?;
        let pid = pid.trim().parse().map_err(|_| Failure::new("no pid"))?;
        self.kill(pid)
    }

    /// A command with its configuration, from another terminal.
    pub(super) fn gateway(&self, arguments: &[&str]) -> Result<Finished> {
        self.world.gateway.place(self.order(arguments)).finish()
    }

    /// That command.
    pub(super) fn order(&self, arguments: &[&str]) -> Exec {
        let (program, config) = (project::cygnet(), self.cygnet.config_path());
        let (program, config) = (program.to_string_lossy(), config.to_string_lossy());
        let mut argv = vec![&*program, "gateway"];
        argv.extend(arguments);
        argv.extend(["--config", &*config]);
        Exec::new(argv)
            .env("PATH", &self.path)
            .patience(Duration::from_secs(180))
    }

    /// What a start of the machine takes away: the program, with what it set, and the guard.
    pub(super) fn restart_machine(&self) -> Result<()> {
        let guard = self.cygnet.directory().join("state/guard.json");
        let kept = fs::read(&guard)?;
        self.systemctl(&["stop", "cygnet.service"])?;
        self.expect(&["off", "--guard-only"], 0, "the guard is off")?;
        fs::write(&guard, kept)?;
        fs::remove_file(self.systemd.join("active.cygnet-guard.service"))?;
        Ok(())
    }

    /// `systemctl …`, as a person types it.
    pub(super) fn systemctl(&self, arguments: &[&str]) -> Result<()> {
        let order = [&["systemctl"], arguments].concat();
        let order = Exec::new(order).env("PATH", &self.path);
        self.world.gateway.place(order).run().map(drop)
    }

    /// `cygnet reload`
    pub(super) fn reload(&self) -> Result<()> {
        let (program, socket) = (project::cygnet(), self.cygnet.socket());
        let (program, socket) = (program.to_string_lossy(), socket.to_string_lossy());
        let order = Exec::new([&*program, "reload", "--socket", &*socket]);
        self.world.gateway.place(order).run().map(drop)
    }

    /// The same, which has to end so.
    pub(super) fn expect(&self, arguments: &[&str], code: i32, words: &str) -> Result<String> {
        let finished = self.gateway(arguments)?;
        let said = format!("{}{}", finished.stdout, finished.stderr);
        ensure!(
            finished.status.code() == Some(code) && said.contains(words),
            "cygnet gateway {}: expected {code} and \"{words}\", it ended with {:?} and said:\n{said}\n{}",
            arguments.join(" "),
            finished.status.code(),
            self.log()
        );
        Ok(said)
    }

    /// What was asked of systemd.
    pub(super) fn calls(&self) -> String {
        fs::read_to_string(self.systemd.join("calls")).unwrap_or_default()
    }

    /// What the program that it started has logged.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.systemd.join("log")).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.kill_run();
    }
}

impl Known {
    /// Fails with the difference, unless both are the same.
    pub(super) fn expect_same(&self, now: &Self, when: &str) -> Result<()> {
        self.kernel.expect_same(&now.kernel, when)?;
        for (what, before, now) in [
            ("settings", &self.settings, &now.settings),
            ("files", &self.files, &now.files),
            ("units", &self.units, &now.units),
        ] {
            let differ = |a: &str, b: &str| -> Vec<String> {
                let lines = a.lines().filter(|line| !b.lines().any(|it| it == *line));
                lines.map(str::to_owned).collect()
            };
            ensure!(
                before == now,
                "{when}: {what} differ:\n- {:#?}\n+ {:#?}",
                differ(before, now),
                differ(now, before)
            );
        }
        Ok(())
    }

    fn of(host: &Namespace, cygnet: &Cygnet, systemd: &Path) -> Result<Self> {
        let directory = cygnet.directory().display();
        // Not what changes by itself; of the history that a program goes on writing, that it is there.
        let settings = host.shell(
            "sysctl -a 2>/dev/null | grep '^net\\.' | grep -v -e nf_conntrack -e stable_secret -e nf_log | sort",
        )?;
        let files = host.shell(&format!(
            "cd {directory}; find . -path ./run -prune -o -printf '%p %y %m %u %g\\n' | sort; \
             find . -path ./run -prune -o -type f ! -name history.json ! -name clock -exec sha256sum {{}} + | sort"
        ))?;
        let units = host.shell(&format!(
            "cd {} 2>/dev/null || exit 0; ls | grep -v -e calls -e log || true",
            systemd.display()
        ))?;
        Ok(Self {
            kernel: State::of(host)?,
            settings,
            files,
            units,
        })
    }
}
