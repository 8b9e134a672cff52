//! Hooks: programs of the operator's that are told when a tunnel goes up or down, or has other addresses.
//!
//! What is up is told by the engine, IKE SA by IKE SA, once its routes are there. [`pairs`] makes of it what is to be
//! told next, [`environment`] what is said, [`process`] runs the program. The runs of a tunnel are one after the other;
//! whatever becomes of them, nothing waits for them, and nothing else of this program depends on them.

mod environment;
mod journal;
mod pairs;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cygnet_config::{Config, Hook, SERVER};
use cygnet_ike::policy::{ChildPolicy, Connection, SelectorTemplate};
use tokio::sync::mpsc;

use super::{Done, Supervisor, start};
use crate::error::StartError;
use crate::ipc::{Carried, CarriedChild};
use environment::{Place, Variables, Verb};
use journal::{Journal, Line};
use pairs::{Key, PAIRS_MAX, Pairs, Telling};
use process::Program;
pub(super) use process::visible;

/// Hooks that run at once; those of one tunnel never do.
const RUNS_MAX: usize = 8;
/// Pairs of a peer, whatever number of IKE SAs it has: a sixteenth of all that are told of. Where the configuration has
/// more networks, as many as they make.
const SHARE: usize = 256;
/// Pairs of an IKE SA of a server's client, where the configuration has not networks for more: it may ask for each
/// network, protocol and port by itself.
const CLIENT_MAX: usize = 16;
/// Pairs of selectors of an IKE SA that are looked at.
const LOOKED_AT_MAX: usize = 4096;
/// Octets of an identity, as people write it; none that IKE lets in is longer.
const IDENTITY_MAX: usize = 4096;

/// How long hooks may take when this program ends, all together.
pub(super) const ENDING_MAX: Duration = Duration::from_secs(8);

/// The hooks of all tunnels.
pub(super) struct Hooks {
    tunnels: BTreeMap<String, Tunnel>,
    journal: Journal,
    /// Counts the runs.
    runs: u64,
    /// Numbers for `PLUTO_REQID`.
    numbers: u32,
}

#[derive(Default)]
struct Tunnel {
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

/// Whether every hook that is configured may be run.
pub(super) fn check(config: &Config) -> Result<(), StartError> {
    let connections = config.policy.connections.iter();
    let hooks = connections.filter_map(|c| Some((c.name.as_str(), config.hook_of(&c.name)?)));
    for (name, hook) in hooks {
        let refuse = |error: &dyn std::fmt::Display| {
            StartError::refused(format_args!("{}: {error}", section(name)))
        };
        let of_file = |error| refuse(&format_args!("the hook {} {error}", hook.program));
        let file = process::trusted(&hook.program).map_err(of_file)?;
        if let Some(user) = user(hook).map_err(|error| refuse(&error))? {
            process::usable(&hook.program, &file, user).map_err(of_file)?;
        }
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
        let (journal, left) = Journal::open(run_dir.join("hooks.jsonl"));
        let mut hooks = Self {
            tunnels: BTreeMap::new(),
            journal,
            runs: 0,
            numbers: 0,
        };
        for (tunnel, told) in left {
            hooks.tunnels.entry(tunnel).or_default().pairs.recall(told);
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
            let program = hook.and_then(|hook| match user(&hook) {
                Ok(user) => Some(Program {
                    file: hook.program,
                    arguments: hook.arguments,
                    user,
                    timeout: hook.timeout,
                }),
                // It was found when this was checked.
                Err(error) => {
                    tracing::error!("{name}: the hook is not run: {error}");
                    None
                }
            });
            if program.is_none() {
                tunnel.pairs.all_down();
            }
            tunnel.pairs.configure(program);
        }
        self.tidy();
    }

    /// What an IKE SA carries now; `None`: nothing any more. The engine may have been taken over: only tunnels and
    /// children of the configuration count.
    pub(super) fn note(&mut self, config: &Config, ike_sa: u64, carried: Option<&Carried>) {
        let connection = carried.map(|carried| carried.connection.as_str());
        for (name, tunnel) in &mut self.tunnels {
            if connection != Some(name.as_str()) && tunnel.pairs.knows(ike_sa) {
                tunnel.pairs.note(ike_sa, Vec::new(), SHARE);
            }
        }
        let Some(carried) = carried else {
            self.tidy();
            return;
        };
        let Some(tunnel) = self.tunnels.get_mut(&carried.connection) else {
            return;
        };
        let policy = config.policy.connection(&carried.connection);
        let (Some(_), Some(policy)) = (tunnel.pairs.program(), policy) else {
            return;
        };
        self.numbers = self.numbers.wrapping_add(1).max(1);
        let configured = configured(policy);
        let share = configured.max(SHARE);
        let most = match carried.connection == SERVER {
            true => configured.max(CLIENT_MAX),
            false => share,
        };
        let mut pairs = pairs_of(config, carried, (ike_sa, self.numbers), most + 1);
        let fit = pairs.len() <= most;
        pairs.truncate(most);
        let fit = tunnel.pairs.note(ike_sa, pairs, share) && fit;
        if !fit && !std::mem::replace(&mut tunnel.crowded, true) {
            tracing::warn!(
                "{}: a peer has more pairs of networks than {most} by one IKE SA, or than {share} by all of its own, or \
                 all peers have more than {}: the hook is not told of the others",
                carried.connection,
                2 * PAIRS_MAX
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
            if let Some(telling) = tunnel.pairs.next() {
                self.runs += 1;
                (tunnel.running, tunnel.ran) = (true, self.runs);
                let tunnel = name.clone();
                due.push(Run { tunnel, telling });
            }
        }
        for Run { tunnel, telling } in &due {
            if telling.verb == Verb::Up {
                let line = Line::Told(tunnel, &telling.told);
                self.journal.add(line, told(&self.tunnels));
            }
        }
        due
    }

    /// The run of this tunnel has ended.
    pub(super) fn ran(&mut self, tunnel: &str) {
        if let Some(of) = self.tunnels.get_mut(tunnel) {
            of.running = false;
            if let Some(turn) = of.pairs.undone() {
                let line = Line::Undone(tunnel, turn);
                self.journal.add(line, told(&self.tunnels));
            }
        }
        self.tidy();
    }

    /// Whether a hook runs.
    pub(super) fn is_running(&self) -> bool {
        self.tunnels.values().any(|tunnel| tunnel.running)
    }

    /// Forgets tunnels that are not configured any more and have nothing left to be undone.
    fn tidy(&mut self) {
        self.tunnels.retain(|_, tunnel| {
            tunnel.pairs.program().is_some() || tunnel.running || !tunnel.pairs.is_empty()
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

/// All that hooks were told is up.
fn told(tunnels: &BTreeMap<String, Tunnel>) -> impl Iterator<Item = Line<'_>> + Clone {
    tunnels.iter().flat_map(|(tunnel, of)| {
        let told = of.pairs.told();
        told.map(move |told| Line::Told(tunnel, told))
    })
}

/// Pairs that the configuration has networks for, addresses that are lent being two.
fn configured(policy: &Connection) -> usize {
    let count = |side: &[SelectorTemplate]| {
        let each = side.iter().map(|template| match template {
            SelectorTemplate::Fixed(_) => 1,
            SelectorTemplate::Dynamic => 2,
        });
        each.sum::<usize>()
    };
    let pairs = |child: &Arc<ChildPolicy>| count(&child.local) * count(&child.remote);
    policy.children.iter().map(pairs).sum()
}

/// The pairs of an IKE SA, `most` of them, in the order in which strongSwan tells of them: by our side first. Child SAs
/// may have the same for a while.
fn pairs_of(
    config: &Config,
    carried: &Carried,
    numbers: (u64, u32),
    most: usize,
) -> Vec<(Key, Variables)> {
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
        both.map(move |both| (child, place, both))
    });
    let fit = pairs.take(LOOKED_AT_MAX).filter(|(_, _, (local, remote))| {
        let protocols = (local.protocol, remote.protocol);
        local.first.is_ipv4() == remote.first.is_ipv4()
            && (protocols.0 == 0 || protocols.1 == 0 || protocols.0 == protocols.1)
    });
    let mut known = BTreeSet::new();
    let pairs = fit.filter_map(|(child, place, (local, remote))| {
        let key = Key {
            child: child.name.clone(),
            peer: carried.remote_identity.clone(),
            local: *local,
            remote: *remote,
        };
        let is_new = known.insert(key.clone());
        is_new.then(|| {
            let variables = Variables::new(place, carried, (local, remote), numbers);
            (key, variables)
        })
    });
    pairs.take(most).collect()
}

#[cfg(test)]
mod tests;
