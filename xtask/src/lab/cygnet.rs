//! Cygnet on a host of the lab, as an operator runs it: a configuration file, `cygnet run`, and the
//! control commands.

use super::Lab;
use super::failure::{Context, Failure, Result};
use super::namespace::Namespace;
use super::pki::Credential;
use super::process::{Exec, Finished, Process, last_lines, wait_for};
use crate::project;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A configuration with the files it names, relative to it.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// cygnet.toml, from the first section after `[daemon]` on.
    pub config: String,
    /// Further settings of the section `[daemon]`; `run_dir` and `state_dir` are set already.
    pub daemon: String,
    /// Names and contents; readable by root alone.
    pub files: Vec<(String, String)>,
}

impl Setup {
    /// A configuration without files.
    pub fn new(config: impl Into<String>) -> Self {
        Self {
            config: config.into(),
            ..Self::default()
        }
    }

    /// Adds a file.
    #[must_use]
    pub fn file(mut self, name: &str, text: impl Into<String>) -> Self {
        self.files.push((name.to_owned(), text.into()));
        self
    }

    /// Adds `NAME.crt` (with its intermediates) and `NAME.key`.
    #[must_use]
    pub fn credential(self, name: &str, credential: &Credential) -> Self {
        self.file(&format!("{name}.crt"), credential.chain())
            .file(&format!("{name}.key"), credential.key.clone())
    }
}

/// A Cygnet; ended by SIGTERM when dropped.
#[derive(Debug)]
pub struct Cygnet {
    namespace: Namespace,
    directory: PathBuf,
    /// The logs of runs that are over.
    past: String,
    process: Option<Process>,
}

impl Cygnet {
    /// Starts `cygnet run` on `namespace`; returns when it answers on its control socket. It has to be
    /// built, see [`project::build_cygnet`].
    pub fn start(lab: &Lab, namespace: &Namespace, setup: &Setup) -> Result<Self> {
        let mut cygnet = Self::prepare(lab, namespace, setup)?;
        cygnet.restart()?;
        Ok(cygnet)
    }

    /// Writes the configuration without starting anything.
    pub fn prepare(lab: &Lab, namespace: &Namespace, setup: &Setup) -> Result<Self> {
        let cygnet = Self {
            namespace: namespace.clone(),
            directory: lab.subdirectory(&format!("cygnet-{}", namespace.name()))?,
            past: String::new(),
            process: None,
        };
        cygnet.write(setup)?;
        Ok(cygnet)
    }

    /// Writes another configuration, for [`Cygnet::reload`] or the next start.
    pub fn write(&self, setup: &Setup) -> Result<()> {
        for (name, text) in &setup.files {
            let path = self.directory.join(name);
            fs::write(&path, text).context(format!("cannot write {}", path.display()))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        }
        let (run, state) = (self.directory.join("run"), self.directory.join("state"));
        // Those of the internet are nobody's to ask from here.
        let nobody = match setup.daemon.contains("time_servers") {
            true => "",
            false => "time_servers = []\n",
        };
        let config = format!(
            "[daemon]\nrun_dir = \"{}\"\nstate_dir = \"{}\"\n{nobody}{}\n\n{}",
            run.display(),
            state.display(),
            setup.daemon,
            setup.config
        );
        fs::write(self.config_path(), config)?;
        Ok(())
    }

    /// Starts it (again) and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        self.retire();
        let config = self.config_path();
        let program = project::cygnet();
        let command = Exec::new([
            &program.to_string_lossy(),
            "run",
            "--config",
            &config.to_string_lossy(),
        ]);
        let mut process = self.namespace.spawn_exec(command)?;
        wait_for("cygnet answers", Duration::from_secs(10), || {
            if !process.is_running() {
                return Err(Failure::new(format!(
                    "cygnet ended: {}",
                    process.last_words()
                )));
            }
            Ok((self.socket().exists() && self.control(&["status"])?.success()).then_some(()))
        })
        .map_err(|failure| {
            let words = last_lines(&process.log(), 12);
            failure.while_doing(format!(
                "starting cygnet on {}:\n{words}\n",
                self.namespace.name()
            ))
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Runs `cygnet run` with the configuration as it is and expects it to end by itself: for what it
    /// has to refuse.
    pub fn run_to_its_end(&self) -> Result<Finished> {
        let (program, config) = (project::cygnet(), self.config_path());
        let (program, config) = (program.to_string_lossy(), config.to_string_lossy());
        let command = Exec::new([&*program, "run", "--config", &*config]);
        self.namespace
            .place(command.patience(Duration::from_secs(10)))
            .finish()
    }

    /// Runs a command that works on its configuration, such as `["check"]`; gives what became of it.
    pub fn configured(&self, arguments: &[&str]) -> Result<Finished> {
        let (program, config) = (project::cygnet(), self.config_path());
        let (program, config) = (program.to_string_lossy(), config.to_string_lossy());
        let argv = [&*program]
            .into_iter()
            .chain(arguments.iter().copied())
            .chain(["--config", &*config]);
        self.namespace.finish(argv)
    }

    /// Runs a control command such as `["down", "home"]`; gives what became of it.
    pub fn control(&self, arguments: &[&str]) -> Result<Finished> {
        let (program, socket) = (project::cygnet(), self.socket());
        let (program, socket) = (program.to_string_lossy(), socket.to_string_lossy());
        let argv = [&*program]
            .into_iter()
            .chain(arguments.iter().copied())
            .chain(["--socket", &*socket]);
        self.namespace.finish(argv)
    }

    /// Runs a control command and fails unless it ended with 0.
    pub fn command(&self, arguments: &[&str]) -> Result<String> {
        let finished = self.control(arguments)?;
        if finished.success() {
            return Ok(finished.stdout);
        }
        let said = format!("{}{}", finished.stdout, finished.stderr);
        Err(Failure::new(format!(
            "cygnet {}: {}",
            arguments.join(" "),
            said.trim()
        )))
    }

    /// `cygnet up NAME`: returns when the tunnel is up, or fails with the reason.
    pub fn up(&self, tunnel: &str) -> Result<()> {
        self.command(&["up", tunnel]).map(drop)
    }

    /// `cygnet down NAME`.
    pub fn down(&self, tunnel: &str) -> Result<()> {
        self.command(&["down", tunnel]).map(drop)
    }

    /// Asks its control API to do something with a connection: `rekey`, `reauthenticate`, `down`; of
    /// one of its children when one is named.
    pub fn request(&self, connection: &str, verb: &str, child: Option<&str>) -> Result<()> {
        let socket = self.socket();
        let mut argv = vec!["curl", "-sS", "--fail-with-body", "--unix-socket"];
        let socket = socket.to_string_lossy();
        argv.extend([&*socket, "--max-time", "10", "-X", "POST"]);
        let body = child.map(|child| serde_json::json!({ "child": child }).to_string());
        if let Some(body) = &body {
            argv.extend(["-H", "content-type: application/json", "-d", body]);
        }
        let url = format!("http://cygnet/v1/connections/{connection}/{verb}");
        argv.push(&url);
        Exec::new(argv).run().map(drop)
    }

    /// `cygnet reload`.
    pub fn reload(&self) -> Result<()> {
        self.command(&["reload"]).map(drop)
    }

    /// `cygnet status --json`, as far as scenarios look at it.
    pub fn status(&self) -> Result<Status> {
        Ok(serde_json::from_value(self.whole_status()?)?)
    }

    /// All of `cygnet status --json`, see docs/api.md.
    pub fn whole_status(&self) -> Result<serde_json::Value> {
        let text = self.command(&["status", "--json"])?;
        serde_json::from_str(&text).context(format!("cygnet status --json said {text}"))
    }

    /// One connection of [`Cygnet::status`]; the server's is called `server`.
    pub fn connection(&self, name: &str) -> Result<Connection> {
        let engine = self.status()?.engine.unwrap_or_default();
        let known = engine
            .connections
            .into_iter()
            .find(|connection| connection.name == name);
        known.ok_or_else(|| Failure::new(format!("cygnet status knows no connection {name}")))
    }

    /// All Child SAs of a connection that are up, oldest first.
    pub fn children(&self, connection: &str) -> Result<Vec<ChildSa>> {
        let all = self
            .connection(connection)?
            .ike_sas
            .into_iter()
            .flat_map(|sa| sa.children);
        Ok(all.filter(|child| child.state == "up").collect())
    }

    /// What its data path has dropped so far; what no tunnel is for (`no-policy`), and the kernel's own
    /// `multicast`, is not counted.
    pub fn drops(&self) -> Result<u64> {
        let drops = self.status()?.engine.unwrap_or_default().drops;
        let of_tunnels = drops
            .iter()
            .filter(|drop| !["no-policy", "multicast"].contains(&drop.name.as_str()));
        Ok(of_tunnels.map(|drop| drop.count).sum())
    }

    /// How many of these it has dropped.
    pub fn drops_by(&self, reason: &str) -> Result<u64> {
        let drops = self.status()?.engine.unwrap_or_default().drops;
        let known = drops.into_iter().find(|drop| drop.name == reason);
        Ok(known.map_or(0, |drop| drop.count))
    }

    /// Ends it by SIGTERM; fails when it had ended before, or does not follow.
    pub fn stop(&mut self) -> Result<()> {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        if !process.is_running() {
            return Err(Failure::new(format!(
                "cygnet had ended: {}",
                process.last_words()
            )));
        }
        let gently = process.stop();
        self.retire();
        if !gently {
            return Err(Failure::new(
                "cygnet did not end within five seconds of SIGTERM",
            ));
        }
        Ok(())
    }

    /// SIGKILL to the supervisor.
    pub fn kill_supervisor(&mut self) -> Result<()> {
        if let Some(process) = &mut self.process {
            process.signal(Signal::KILL)?;
            process.wait(Duration::from_secs(5))?;
        }
        self.retire();
        Ok(())
    }

    /// SIGKILL to the engine.
    pub fn kill_engine(&self) -> Result<()> {
        let engine = self.status()?.processes.engine;
        let pid = engine.and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.ok_or_else(|| Failure::new("cygnet has no engine at this moment"))?;
        Ok(kill_process(pid, Signal::KILL)?)
    }

    /// The process id of the supervisor, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// The host it runs on.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Where its configuration and its files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.directory.join("cygnet.toml")
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("run/control.sock")
    }

    /// Everything it has logged, over restarts.
    pub fn log(&self) -> String {
        let present = self.process.as_ref().map_or_else(String::new, Process::log);
        format!("{}{present}", self.past)
    }

    /// Waits until a line of the log contains `text`; gives the last such line.
    pub fn wait_for_log(&self, text: &str, patience: Duration) -> Result<String> {
        let what = format!("cygnet on {} logs \"{text}\"", self.namespace.name());
        wait_for(&what, patience, || {
            Ok(self
                .log()
                .lines()
                .rev()
                .find(|line| line.contains(text))
                .map(str::to_owned))
        })
        .map_err(|failure| {
            Failure::new(format!(
                "{failure}; its last words:\n{}",
                last_lines(&self.log(), 15)
            ))
        })
    }

    /// Waits until `status` has a warning that contains `text`; gives it.
    pub fn wait_for_warning(&self, text: &str, patience: Duration) -> Result<String> {
        wait_for(&format!("`status` warns: {text}"), patience, || {
            let warnings = self.status()?.warnings;
            Ok(warnings.into_iter().find(|warning| warning.contains(text)))
        })
    }

    fn retire(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop();
            self.past.push_str(&process.log());
        }
    }
}

/// Whether the program has been built.
pub fn is_built() -> bool {
    project::cygnet().exists()
}

/// The part of `cygnet status --json` that scenarios look at; docs/api.md has all of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Its processes.
    pub processes: Processes,
    /// What hinders it, each with what to do.
    pub warnings: Vec<String>,
    /// How often the engine was started again.
    pub engine_restarts: u32,
    /// Nothing while the engine is being started again.
    pub engine: Option<Engine>,
    /// What happened to each tunnel.
    pub history: Vec<History>,
}

impl Status {
    /// What happened to a tunnel, oldest first.
    pub fn history_of(self, tunnel: &str) -> Vec<Change> {
        let of = self.history.into_iter().find(|of| of.name == tunnel);
        of.map_or_else(Vec::new, |of| of.changes)
    }
}

/// What happened to a tunnel.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct History {
    /// Its name.
    pub name: String,
    /// Oldest first.
    pub changes: Vec<Change>,
}

/// One thing that happened.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Change {
    /// When, in seconds since 1970.
    pub at: Option<i64>,
    /// `up`, `down`, `failed`, `moved`.
    pub what: String,
    /// By which addresses, or why.
    pub text: String,
}

/// Process ids.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Processes {
    /// The supervisor.
    pub supervisor: u32,
    /// The engine, while it runs.
    pub engine: Option<u32>,
}

/// What the engine knows.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Engine {
    /// Every configured connection, up or not.
    pub connections: Vec<Connection>,
    /// Packets that the data path dropped, by reason.
    pub drops: Vec<Count>,
}

/// A counter with a name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Count {
    /// What is counted.
    pub name: String,
    /// How many.
    pub count: u64,
}

/// A connection of the configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Connection {
    /// Its name.
    pub name: String,
    /// `up`, `connecting`, `waiting`, `idle`, `down`, `listening`.
    pub state: String,
    /// Why it is not up.
    pub reason: Option<String>,
    /// Its IKE SAs.
    pub ike_sas: Vec<IkeSa>,
}

/// An IKE SA.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct IkeSa {
    /// Hexadecimal.
    pub initiator_spi: String,
    /// Hexadecimal.
    pub responder_spi: String,
    /// `connecting`, `up`, `rekeyed`, `deleting`.
    pub state: String,
    /// Who the peer proved to be.
    pub peer: Option<String>,
    /// Our address and port.
    pub local: String,
    /// Address and port of the peer.
    pub remote: String,
    /// The suite, in strongSwan's keywords.
    pub suite: Option<String>,
    /// A NAT is seen before this end.
    pub nat_local: bool,
    /// A NAT is seen before the peer.
    pub nat_remote: bool,
    /// Virtual addresses that it brought.
    pub virtual_addresses: Vec<String>,
    /// Resolvers that came with them.
    pub dns: Vec<String>,
    /// Its children.
    pub children: Vec<ChildSa>,
}

/// A Child SA.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ChildSa {
    /// Its name in the configuration.
    pub name: String,
    /// `up`, `rekeyed`, `deleting`.
    pub state: String,
    /// Hexadecimal.
    pub spi_in: String,
    /// Hexadecimal.
    pub spi_out: String,
    /// The suite, in strongSwan's keywords.
    pub suite: String,
    /// Packets received.
    pub packets_in: u64,
    /// Inner bytes received.
    pub bytes_in: u64,
    /// Packets sent.
    pub packets_out: u64,
    /// Inner bytes sent.
    pub bytes_out: u64,
    /// Largest IP packet to the peer.
    pub path_mtu: Option<u32>,
    /// Selectors of this end.
    pub local: Vec<String>,
    /// Selectors of the peer.
    pub remote: Vec<String>,
}

impl ChildSa {
    /// Whether packets went both ways.
    pub fn has_carried(&self) -> bool {
        self.packets_in > 0 && self.packets_out > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_as_far_as_it_is_needed() {
        let text = r#"{"version":"0.1.0","processes":{"supervisor":10,"engine":11},"uptime_s":3,
            "guard":"on","warnings":["w"],"leases":[],"engine":{"connections":[{"name":"home","state":"up",
            "reason":null,"ike_sas":[{"id":1,"state":"up","peer":"vpn.lab","virtual_addresses":["10.99.0.1"],
            "children":[{"id":1,"name":"home","state":"up","packets_in":2,"packets_out":3}]}]}],"drops":[]}}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        assert_eq!(status.processes.engine, Some(11));
        let connection = &status.engine.unwrap().connections[0];
        assert_eq!(connection.ike_sas[0].peer.as_deref(), Some("vpn.lab"));
        assert!(connection.ike_sas[0].children[0].has_carried());
    }
}
