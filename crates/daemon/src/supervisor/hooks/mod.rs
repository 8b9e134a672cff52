//! Hooks: programs of the operator's that are told when a tunnel goes up or down, or has other addresses.
//!
//! What is up is told by the engine, IKE SA by IKE SA, once its routes are there. [`pairs`] makes of it what is to be
//! told next, [`environment`] what is said, [`process`] runs the program. The runs of a tunnel are one after the other;
//! whatever becomes of them, nothing waits for them, and nothing else of this program depends on them.

mod environment;
mod pairs;
mod process;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cygnet_config::{Config, Hook, SERVER};
use cygnet_linux::replace_file;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{Done, Supervisor, start};
use crate::error::StartError;
use crate::ipc::{Carried, CarriedChild};
use environment::{Place, Variables, Verb};
use pairs::{Key, PAIRS_MAX, Pairs, Telling, Told};
use process::Program;

/// Hooks that run at once; those of one tunnel never do.
const RUNS_MAX: usize = 8;
/// Octets of an identity, as people write it; none that IKE lets in is longer.
const IDENTITY_MAX: usize = 4096;

/// How long hooks may take when this program ends, all together.
pub(super) const ENDING_MAX: Duration = Duration::from_secs(8);

/// The hooks of all tunnels.
pub(super) struct Hooks {
    tunnels: BTreeMap<String, Tunnel>,
    /// Of what was told, for the next run of this program, if this one ends without a word.
    journal: PathBuf,
    /// Counts the runs.
    runs: u64,
    /// Numbers for `PLUTO_REQID`.
    numbers: u32,
}

#[derive(Default)]
struct Tunnel {
    program: Option<Arc<Program>>,
    pairs: Pairs,
    running: bool,
    /// When it ran last, by [`Hooks::runs`].
    ran: u64,
    /// That it has too many pairs was told.
    crowded: bool,
}

/// A run that is to be made.
pub(super) struct Run {
    pub(super) tunnel: String,
    telling: Telling,
}

impl Run {
    /// Makes it, to its end, whatever that is.
    pub(super) async fn make(&self) {
        process::tell(&self.tunnel, &self.telling).await;
    }
}

/// A line of the journal.
#[derive(Serialize)]
struct Kept<'a> {
    tunnel: &'a str,
    told: &'a Told,
}

/// The same when it is read.
#[derive(Deserialize)]
struct Recalled {
    tunnel: String,
    told: Told,
}

/// Whether every hook that is configured may be run.
pub(super) fn check(config: &Config) -> Result<(), StartError> {
    let connections = config.policy.connections.iter();
    let hooks = connections.filter_map(|c| Some((c.name.as_str(), config.hook_of(&c.name)?)));
    for (name, hook) in hooks {
        let refuse = |error: &dyn std::fmt::Display| {
            StartError::refused(format_args!("{}: {error}", section(name)))
        };
        process::trusted(&hook.program)
            .map_err(|error| refuse(&format_args!("the hook {} {error}", hook.program)))?;
        user(hook).map_err(|error| refuse(&error))?;
    }
    Ok(())
}

fn section(connection: &str) -> String {
    match connection {
        SERVER => format!("[{SERVER}]"),
        tunnel => format!("[tunnel.{tunnel}]"),
    }
}

/// Whom a hook runs as; `None`: root.
fn user(hook: &Hook) -> Result<Option<(u32, u32)>, String> {
    match hook.user.as_deref() {
        None | Some("root" | "0") => Ok(None),
        Some(name) => {
            let found = start::user(name)?;
            found.map(Some).ok_or_else(|| {
                format!(
                    "hook_user = \"{name}\": there is no such user; make one with `useradd --system {name}`, or write \
                     \"nobody\""
                )
            })
        }
    }
}

impl Hooks {
    /// Those of a configuration, with what an earlier run of this program has left to be undone.
    pub(super) fn new(config: &Config, run_dir: &Path) -> Self {
        let mut hooks = Self {
            tunnels: BTreeMap::new(),
            journal: run_dir.join("hooks.json"),
            runs: 0,
            numbers: 0,
        };
        let text = std::fs::read(&hooks.journal).unwrap_or_else(|_| b"[]".to_vec());
        match serde_json::from_slice::<Vec<Recalled>>(&text) {
            Ok(left) => {
                for Recalled { tunnel, told } in left {
                    hooks.tunnels.entry(tunnel).or_default().pairs.recall(told);
                }
            }
            Err(error) => tracing::warn!(
                "{}: what hooks were told before cannot be read, and is not undone: {error}",
                hooks.journal.display()
            ),
        }
        hooks.configure(config);
        hooks
    }

    /// Another configuration: a hook that is no more is told that everything is down.
    pub(super) fn configure(&mut self, config: &Config) {
        for connection in &config.policy.connections {
            if config.hook_of(&connection.name).is_some() {
                self.tunnels.entry(connection.name.clone()).or_default();
            }
        }
        for (name, tunnel) in &mut self.tunnels {
            let hook = config.hook_of(name).cloned();
            tunnel.program = hook.and_then(|hook| match user(&hook) {
                Ok(user) => Some(Arc::new(Program { hook, user })),
                // It was found when this was checked.
                Err(error) => {
                    tracing::error!("{name}: the hook is not run: {error}");
                    None
                }
            });
            if tunnel.program.is_none() {
                tunnel.pairs.all_down();
            }
        }
        self.tidy();
    }

    /// What an IKE SA carries now; `None`: nothing any more. The engine may have been taken over: only tunnels and
    /// children of the configuration count.
    pub(super) fn note(&mut self, config: &Config, ike_sa: u64, carried: Option<&Carried>) {
        let connection = carried.map(|carried| carried.connection.as_str());
        for (name, tunnel) in &mut self.tunnels {
            if connection != Some(name.as_str()) && tunnel.pairs.knows(ike_sa) {
                tunnel.pairs.note(ike_sa, Vec::new());
            }
        }
        let Some(carried) = carried else {
            self.tidy();
            return;
        };
        let Some(tunnel) = self.tunnels.get_mut(&carried.connection) else {
            return;
        };
        if tunnel.program.is_none() {
            return;
        }
        self.numbers = self.numbers.wrapping_add(1).max(1);
        let pairs = pairs_of(config, carried, (ike_sa, self.numbers));
        if !tunnel.pairs.note(ike_sa, pairs) && !std::mem::replace(&mut tunnel.crowded, true) {
            tracing::warn!(
                "{}: more than {PAIRS_MAX} pairs of networks are up: the hook is not told of all",
                carried.connection
            );
        }
    }

    /// Every IKE SA is gone.
    pub(super) fn all_down(&mut self) {
        self.tunnels
            .values_mut()
            .for_each(|tunnel| tunnel.pairs.all_down());
    }

    /// What is to be run now; [`Self::ran`] is called when it has ended.
    pub(super) fn due(&mut self) -> Vec<Run> {
        let running = self
            .tunnels
            .values()
            .filter(|tunnel| tunnel.running)
            .count();
        let mut idle: Vec<(&String, &mut Tunnel)> = self
            .tunnels
            .iter_mut()
            .filter(|(_, tunnel)| !tunnel.running)
            .collect();
        // Whoever waits longest is first.
        idle.sort_by_key(|(_, tunnel)| tunnel.ran);
        let mut due = Vec::new();
        for (name, tunnel) in idle {
            if running + due.len() >= RUNS_MAX {
                break;
            }
            if let Some(telling) = tunnel.pairs.next(tunnel.program.as_ref()) {
                self.runs += 1;
                (tunnel.running, tunnel.ran) = (true, self.runs);
                let tunnel = name.clone();
                due.push(Run { tunnel, telling });
            }
        }
        if due.iter().any(|run| run.telling.verb == Verb::Up) {
            self.keep();
        }
        due
    }

    /// The run of this tunnel has ended.
    pub(super) fn ran(&mut self, tunnel: &str) {
        if let Some(tunnel) = self.tunnels.get_mut(tunnel) {
            tunnel.running = false;
            tunnel.pairs.undone();
        }
        self.keep();
        self.tidy();
    }

    /// Whether a hook runs.
    pub(super) fn is_running(&self) -> bool {
        self.tunnels.values().any(|tunnel| tunnel.running)
    }

    /// Writes the journal.
    fn keep(&self) {
        let tunnels = self.tunnels.iter();
        let all: Vec<Kept<'_>> = tunnels
            .flat_map(|(tunnel, of)| of.pairs.told().map(move |told| Kept { tunnel, told }))
            .collect();
        let kept = if all.is_empty() {
            std::fs::remove_file(&self.journal)
        } else {
            let bytes = serde_json::to_vec(&all).map_err(std::io::Error::other);
            bytes.and_then(|bytes| replace_file(&self.journal, &bytes))
        };
        match kept {
            // There was nothing to forget.
            Err(error) if all.is_empty() && error.kind() == ErrorKind::NotFound => {}
            Err(error) => tracing::warn!("cannot write {}: {error}", self.journal.display()),
            Ok(()) => {}
        }
    }

    /// Forgets tunnels that are not configured any more and have nothing left to be undone.
    fn tidy(&mut self) {
        self.tunnels.retain(|_, tunnel| {
            tunnel.program.is_some() || tunnel.running || !tunnel.pairs.is_empty()
        });
    }
}

impl Supervisor {
    /// Starts what hooks are to be told, once the kernel has what it is about.
    pub(super) fn run_hooks(&mut self) {
        for run in self.hooks.due() {
            let settled = self.network.settled();
            let done = self.done.clone();
            tokio::task::spawn_local(async move {
                settled.await;
                run.make().await;
                let tunnel = run.tunnel;
                let _ = done.send(Done::Hook { tunnel });
            });
        }
    }

    /// Tells hooks that everything is down, and waits for them and for whoever writes the history. Hooks that take
    /// longer are ended with this program.
    pub(super) async fn end_hooks(&mut self, done: &mut mpsc::UnboundedReceiver<Done>) {
        self.hooks.all_down();
        self.run_hooks();
        let all = async {
            while self.hooks.is_running() || self.history.is_being_written() {
                match done.recv().await {
                    Some(Done::Hook { tunnel }) => {
                        self.hooks.ran(&tunnel);
                        self.run_hooks();
                    }
                    Some(Done::History { kept }) => self.history.written(kept),
                    Some(_) => {}
                    None => break,
                }
            }
        };
        if tokio::time::timeout(ENDING_MAX, all).await.is_err() {
            let most = ENDING_MAX.as_secs();
            tracing::warn!("hooks have not ended within {most} s: ending them");
        }
    }
}

/// The pairs of an IKE SA in the order in which strongSwan tells of them: by our side first.
fn pairs_of(config: &Config, carried: &Carried, numbers: (u64, u32)) -> Vec<(Key, Variables)> {
    let connection = &carried.connection;
    if carried.remote_identity.len() > IDENTITY_MAX {
        return Vec::new();
    }
    let (Some(policy), Some(interface)) = (
        config.policy.connection(connection),
        config.interface_of(connection),
    ) else {
        return Vec::new();
    };
    let several = policy.children.len() > 1;
    let is_server = connection == SERVER;
    let host_access = is_server
        && config
            .server
            .as_ref()
            .is_some_and(|server| server.host_access);
    let known = |child: &&CarriedChild| policy.children.iter().any(|c| c.name == child.name);
    let children = carried.children.iter().filter(known);
    let pairs = children.flat_map(|child| {
        let place = Place {
            tunnel: connection,
            child: &child.name,
            connection: if several { &child.name } else { connection },
            interface,
            host_access,
        };
        let local = child.local.iter();
        let both =
            local.flat_map(move |local| child.remote.iter().map(move |remote| (local, remote)));
        let fit = both.filter(|(local, remote)| {
            let protocols = (local.protocol, remote.protocol);
            local.first.is_ipv4() == remote.first.is_ipv4()
                && (protocols.0 == 0 || protocols.1 == 0 || protocols.0 == protocols.1)
        });
        fit.map(move |(local, remote)| {
            let key = Key {
                child: child.name.clone(),
                peer: carried.remote_identity.clone(),
                local: *local,
                remote: *remote,
            };
            (
                key,
                Variables::new(place, carried, (local, remote), numbers),
            )
        })
    });
    // One more, to know that they are too many.
    pairs.take(PAIRS_MAX + 1).collect()
}

#[cfg(test)]
mod tests;
