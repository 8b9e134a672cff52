//! What is looked at again and again, and follows: this machine's addresses and routes, what other programs took away.

use std::time::Duration;

use cygnet_config::Config;
use cygnet_gateway::{GuardPlan, PLAN_TABLE};
use cygnet_linux::nft;
use tokio::time::Instant;

use super::{Held, Worker, inputs, interfaces};
use crate::api::Guard;
use crate::supervisor::Done;
use crate::supervisor::network::machine::{self, Machine};
use crate::supervisor::network::ways::{self, Change, Present};

/// How long `cygnet gateway off` may take from its first to its last step.
const OFF_MAX: Duration = Duration::from_millis(300);

/// The engine hears at most this often of other ways to the peers.
const SELDOM: Duration = Duration::from_secs(1);

/// How long a warning is new: somebody may be setting right what it is about, and is to see at once when he has.
const NEW: Duration = Duration::from_secs(120);

/// What a look at the kernel found.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Seen {
    /// This machine's addresses or routes changed.
    changed: bool,
    /// A TUN of ours is not there.
    tuns_missing: bool,
}

impl Worker {
    pub(super) async fn watch(&mut self) {
        let Some(config) = self.config.clone() else {
            return;
        };
        self.follow_due();
        let trouble = self.listeners.trouble.clone();
        let seen = self.follow().await;
        // What somebody has to set right is to be seen at once when he has; later on, when he asks.
        let news = self.warned.is_some_and(|at| at.elapsed() < NEW);
        let told = !self.warnings.is_empty() && news || self.listeners.trouble != trouble;
        let as_it_was = !seen.changed && !told && !self.heard.is_doubtful();
        let nothing = as_it_was && self.has_routing(&config).await;
        if !nothing && !seen.changed {
            self.mend_guard(&config).await;
            if !seen.tuns_missing {
                self.mend_plan(&config).await;
            }
        }
        // Behind what was mended: it is said in the tables that are there.
        self.follow_failure();
        self.watch_devices().await;
        if !nothing {
            self.look().await;
        }
    }

    /// Whether the routes and rules of the plan are in place, and those of the guard as they were at the last look: one
    /// that the operator took away is away for good.
    async fn has_routing(&self, config: &Config) -> bool {
        // What goes direct by its name is in the tables alone.
        let guard = match inputs::guard(&config.into(), &self.machine) {
            Ok(Some(inputs)) => {
                let on = self.guard == Guard::On;
                let guard = GuardPlan::new(&inputs);
                let has = self.network.has_guard_routing(&guard).await;
                has.is_ok_and(|has| has == on)
            }
            _ => true,
        };
        let plan = match self.present_plan(config, &Held::default()) {
            Ok((plan, _)) => self.network.has_routing(&plan).await.unwrap_or(false),
            Err(_) => true,
        };
        guard && plan
    }

    /// Makes routes, rules and guard fit this machine's addresses.
    pub(super) async fn follow(&mut self) -> Seen {
        let mut seen = Seen::default();
        let Some(config) = self.config.clone() else {
            return seen;
        };
        let ours: Vec<&str> = interfaces(&config).collect();
        let machine::Look {
            machine,
            tuns_missing,
        } = match Machine::look(self.network.netlink(), &ours).await {
            Ok(look) => look,
            Err(error) => {
                tracing::warn!("cannot read this machine's addresses: {error}");
                return seen;
            }
        };
        if tuns_missing {
            // The plan names each of them, and follows when they are there again. The guard does not wait.
            seen.tuns_missing = true;
            let _ = self.done.send(Done::TunsMissing);
        }
        seen.changed = machine != self.machine;
        if seen.changed {
            tracing::debug!("this machine's addresses or routes changed: ours follow");
            self.machine = machine;
            self.renew_guard(&config).await;
        }
        let listens = self.listen(&config);
        if (seen.changed || listens) && !seen.tuns_missing {
            self.apply().await;
        }
        self.end_in_clear();
        self.follow_ways().await;
        seen
    }

    /// Answers at all of this machine's addresses on the LAN that can be had; whether there are others than before.
    pub(super) fn listen(&mut self, config: &Config) -> bool {
        let before = self.listeners.plan(config);
        // What cannot be had is told by the next look, and tried again by the next watch.
        let followed = self.listeners.follow(config, &self.machine, Duration::ZERO);
        if followed.is_ok() {
            self.listeners.let_go(config, &self.machine);
        }
        self.listeners.plan(config) != before
    }

    /// Tells the engine when packets to a peer have to leave otherwise than before. With no way out there
    /// is nothing to try, and who is patient may find all as it was.
    pub(super) async fn follow_ways(&mut self) {
        let Some(config) = &self.config else { return };
        let targets = ways::targets(config, &self.live);
        let present = match Present::read(self.network.netlink(), targets).await {
            Ok(present) => present,
            Err(error) => {
                tracing::warn!("cannot see which way packets to the peers leave: {error}");
                return;
            }
        };
        let any_up = config
            .tunnels
            .keys()
            .any(|name| self.live.get(name).is_some_and(|live| live.up));
        if let Some(Change { gone, egress }) = self.ways.change(&present, any_up) {
            let now = Instant::now();
            if let Some(at) = self.told.map(|at| at + SELDOM).filter(|at| *at > now) {
                self.heard.look_at(at);
                return;
            }
            self.told = Some(now);
            tracing::info!("the way to a peer changed: looking whether it is still within reach");
            let _ = self.done.send(Done::LocalChange { gone, egress });
        }
        self.ways.learn(&present);
    }

    /// Puts back what another program removed of the guard, by a `flush ruleset` for example.
    async fn mend_guard(&mut self, config: &Config) {
        if self.guard_is_partial(config).await {
            // `cygnet gateway off` takes it away piece by piece, and means it.
            tokio::time::sleep(OFF_MAX).await;
            if self.guard_is_partial(config).await {
                tracing::warn!("another program changed the guard: putting it back");
                self.doubt_connections();
                self.renew_guard(config).await;
            }
        }
    }

    /// Puts back what another program removed of the plan: a network manager that does not know our rules.
    async fn mend_plan(&mut self, config: &Config) {
        let Ok((plan, _)) = self.present_plan(config, &self.held) else {
            return;
        };
        let routing = self.network.has_routing(&plan).await;
        let table = nft::ruleset_json().map(|ruleset| nft::has_table(&ruleset, PLAN_TABLE));
        if let (Ok(routing), Ok(table)) = (routing, table)
            && !(routing && table)
        {
            tracing::warn!("another program removed rules or routes of ours: putting them back");
            self.doubt_connections();
            self.apply().await;
        }
    }

    async fn guard_is_partial(&self, config: &Config) -> bool {
        let Ok(Some(guard)) = self.guard_plan(config, &self.machine) else {
            return false;
        };
        let state = self.network.guard_state(&guard).await;
        state.is_ok_and(|state| !state.is_whole() && !state.absent)
    }

    /// Makes the guard fit this machine's addresses, unless the operator has taken it away.
    async fn renew_guard(&mut self, config: &Config) {
        self.judge_held(config);
        let machine = self.machine.clone();
        let renewed = match self.guard_present().await {
            Ok(true) => self.apply_guard(config, &machine).await,
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = renewed {
            self.heard.doubt();
            tracing::error!("cannot renew the guard: {error}");
        }
    }
}
