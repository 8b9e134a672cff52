//! A plan becomes the kernel's state, and is taken back.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use cygnet_gateway::{
    DirectNames, GUARD_NFT_TABLE, GuardPlan, LinkPlan, NetworkPlan, PLAN_TABLE, Route, Rule,
};

use crate::netlink::{Netlink, Owner, as_shown};
use crate::sysctl::Journal;
use crate::{Result, nft};

/// Applies plans to the network namespace of the thread that made it, and knows what to undo.
///
/// What is ours is found in the kernel by its marks (protocol number, table name), not in memory:
/// [`Network::open`] after a crash sees what the run before left.
#[derive(Debug)]
pub struct Network {
    netlink: Netlink,
    journal: Journal,
}

/// An address with less time left may be gone from its set already.
const ENDING: Duration = Duration::from_secs(5);

/// How often rules are looked at again after some were removed, while somebody else sets his.
const RULE_ROUNDS: usize = 4;

/// What of a guard is in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardState {
    /// The routing layer is complete.
    pub routing: bool,
    /// The nftables layer is complete.
    pub filter: bool,
    /// Nothing of any guard is there: it was never put in place, or taken away by its own command.
    pub absent: bool,
}

impl GuardState {
    /// What of this guard is in place: its routes and rules and no others, and its table with every hook, every
    /// drop, every way to one and every mark, and no more of them, and its addresses that go direct. Changes nothing.
    ///
    /// # Errors
    /// [`crate::Error::Netlink`], [`crate::Error::Nft`].
    pub async fn of(netlink: &Netlink, guard: &GuardPlan) -> Result<Self> {
        let (routes, rules) = guard_routes(netlink).await?;
        let table = nft::list_table(GUARD_NFT_TABLE)?;
        let absent = routes.is_empty() && rules.is_empty() && table.is_none();
        Ok(Self {
            absent,
            routing: is_in(guard, &routes, &rules),
            filter: table.is_some_and(|listed| {
                filter_is_whole(&listed, &guard.nft) && has_its_addresses(&listed, guard)
            }),
        })
    }

    /// Both layers.
    #[must_use]
    pub fn is_whole(self) -> bool {
        self.routing && self.filter
    }
}

impl Network {
    /// Opens. `run_directory` holds the journal of settings: /run/cygnet as a rule.
    ///
    /// # Errors
    /// [`crate::Error::Io`], [`crate::Error::Journal`].
    pub fn open(run_directory: &Path) -> Result<Self> {
        Ok(Self {
            netlink: Netlink::connect()?,
            journal: Journal::open(run_directory)?,
        })
    }

    /// The connection to the kernel's routing.
    #[must_use]
    pub fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// Makes the kernel's state what the plan says: what is missing is added first, what is ours
    /// and not in the plan is removed then. Applying the same plan again changes nothing.
    ///
    /// The TUNs exist already. If a step fails where nothing of ours was before, all is taken
    /// back; otherwise the earlier state stays as far as it was not changed yet.
    ///
    /// # Errors
    /// The step that failed.
    pub async fn apply(&mut self, plan: &NetworkPlan) -> Result<()> {
        let fresh = self.journal.is_empty()
            && self.netlink.rules(Owner::Plan).await?.is_empty()
            && self.netlink.routes(Owner::Plan).await?.is_empty();
        let result = self.apply_steps(plan).await;
        if let (true, Err(_)) = (fresh, &result)
            && let Err(error) = self.remove().await
        {
            tracing::warn!("taking back a plan that failed: {error}");
        }
        result
    }

    async fn apply_steps(&mut self, plan: &NetworkPlan) -> Result<()> {
        // Translation before the routes that lead to it: no packet leaves with a LAN address.
        nft::apply(&plan.nft)?;
        self.journal.apply(&plan.sysctls)?;
        for link in &plan.links {
            self.configure(link).await?;
        }
        self.replace_routes(&plan.routes, Owner::Plan).await?;
        self.replace_rules(&plan.rules, Owner::Plan).await?;
        self.drop_other_routes(&plan.routes, Owner::Plan).await
    }

    async fn configure(&self, plan: &LinkPlan) -> Result<()> {
        let link = self.netlink.link(plan.interface.as_str()).await?;
        if !link.up || link.mtu != u32::from(plan.mtu) {
            self.netlink
                .set_link_up(link.index, plan.mtu.into())
                .await?;
        }
        let present: Vec<_> = self
            .netlink
            .addresses()
            .await?
            .into_iter()
            .filter(|a| a.index == link.index)
            .map(|a| a.net)
            .collect();
        for net in plan.addresses.iter().filter(|net| !present.contains(net)) {
            self.netlink.add_address(link.index, *net).await?;
        }
        for net in present.iter().filter(|net| !plan.addresses.contains(net)) {
            let link_local = matches!(net, ipnet::IpNet::V6(n) if n.addr().is_unicast_link_local());
            if !link_local {
                self.netlink.remove_address(link.index, *net).await?;
            }
        }
        Ok(())
    }

    async fn replace_routes(&self, wanted: &[Route], owner: Owner) -> Result<()> {
        let present = self.netlink.routes(owner).await?;
        for route in wanted.iter().filter(|r| !present.contains(&as_shown(r))) {
            self.netlink.replace_route(route, owner).await?;
        }
        Ok(())
    }

    /// Adds before it removes, so that no packet meets a moment with neither. Of several rules of one priority the kernel
    /// removes the first that has what is asked for, also one that has more: what it took wrongly is added again.
    async fn replace_rules(&self, wanted: &[Rule], owner: Owner) -> Result<()> {
        for _ in 0..RULE_ROUNDS {
            let present = self.netlink.rules(owner).await?;
            for rule in wanted.iter().filter(|r| !present.contains(r)) {
                self.netlink.add_rule(rule, owner).await?;
            }
            let mut surplus = present.iter().filter(|r| !wanted.contains(r)).peekable();
            if surplus.peek().is_none() {
                break;
            }
            for rule in surplus {
                self.netlink.remove_rule(rule, owner).await?;
            }
        }
        Ok(())
    }

    async fn drop_other_routes(&self, wanted: &[Route], owner: Owner) -> Result<()> {
        let wanted: Vec<Route> = wanted.iter().map(as_shown).collect();
        for route in self.netlink.routes(owner).await? {
            if !wanted.contains(&route) {
                self.netlink.remove_route(&route, owner).await?;
            }
        }
        Ok(())
    }

    /// Whether every route and rule of the plan is there; others' programs remove what they do not
    /// know (systemd-networkd does when it is restarted).
    ///
    /// # Errors
    /// [`crate::Error::Netlink`].
    pub async fn has_routing(&self, plan: &NetworkPlan) -> Result<bool> {
        let routes = self.netlink.routes(Owner::Plan).await?;
        let rules = self.netlink.rules(Owner::Plan).await?;
        Ok(plan.routes.iter().all(|r| routes.contains(&as_shown(r)))
            && plan.rules.iter().all(|r| rules.contains(r)))
    }

    /// Takes back everything of the plan, that of a run that crashed as well. The guard stays.
    ///
    /// Every step is tried; the first error is returned.
    ///
    /// # Errors
    /// The first step that failed.
    pub async fn remove(&mut self) -> Result<()> {
        // Routes first: tunnelled devices meet the guard before their translation is gone.
        let routes = self.drop_other_routes(&[], Owner::Plan).await;
        let rules = self.replace_rules(&[], Owner::Plan).await;
        let settings = self.journal.undo();
        let table = nft::delete_table(PLAN_TABLE);
        routes.and(rules).and(settings).and(table)
    }

    /// Puts the guard in place, or replaces the one that is. There is no moment without: the
    /// nftables table is replaced in one transaction, routes and rules are added before others are
    /// removed, and either layer suffices by itself.
    ///
    /// # Errors
    /// The first layer that failed; the other is in place nevertheless, if it could be.
    pub async fn apply_guard(&mut self, guard: &GuardPlan) -> Result<()> {
        let filter = nft::apply(&guard.nft);
        let routing = self.guard_routing(guard).await;
        routing.and(filter)
    }

    async fn guard_routing(&self, guard: &GuardPlan) -> Result<()> {
        self.replace_routes(&guard.routes, Owner::Guard).await?;
        self.replace_rules(&guard.rules, Owner::Guard).await?;
        self.drop_other_routes(&guard.routes, Owner::Guard).await
    }

    /// Removes the guard: `cygnet gateway off`, and nothing else, calls this.
    ///
    /// # Errors
    /// The first step that failed.
    pub async fn remove_guard(&mut self) -> Result<()> {
        let rules = self.replace_rules(&[], Owner::Guard).await;
        let routes = self.drop_other_routes(&[], Owner::Guard).await;
        let table = nft::delete_table(GUARD_NFT_TABLE);
        rules.and(routes).and(table)
    }

    /// Whether the routes and rules of this guard are in place, and no others; its table is not looked at, which costs a process.
    ///
    /// # Errors
    /// [`crate::Error::Netlink`].
    pub async fn has_guard_routing(&self, guard: &GuardPlan) -> Result<bool> {
        let (routes, rules) = guard_routes(&self.netlink).await?;
        Ok(is_in(guard, &routes, &rules))
    }

    /// What of this guard is in place, as [`GuardState::of`] has it.
    ///
    /// # Errors
    /// [`crate::Error::Netlink`], [`crate::Error::Nft`].
    pub async fn guard_state(&self, guard: &GuardPlan) -> Result<GuardState> {
        GuardState::of(&self.netlink, guard).await
    }
}

async fn guard_routes(netlink: &Netlink) -> Result<(Vec<Route>, Vec<Rule>)> {
    Ok((
        netlink.routes(Owner::Guard).await?,
        netlink.rules(Owner::Guard).await?,
    ))
}

/// One too many may let somebody out.
fn is_in(guard: &GuardPlan, routes: &[Route], rules: &[Rule]) -> bool {
    let wanted: Vec<Route> = guard.routes.iter().map(as_shown).collect();
    wanted.iter().all(|r| routes.contains(r))
        && routes.iter().all(|r| wanted.contains(r))
        && guard.rules.iter().all(|r| rules.contains(r))
        && rules.iter().all(|r| guard.rules.contains(r))
}

/// Whether the sets of what goes direct by its name hold nothing else, and what is to be in them for some time yet.
fn has_its_addresses(listed: &str, guard: &GuardPlan) -> bool {
    let Some(wanted) = &guard.direct_addresses else {
        return true;
    };
    let listed = DirectNames::SETS
        .map(|set| nft::elements(listed, set))
        .concat();
    let listed: BTreeSet<IpAddr> = listed.into_iter().map(|(address, _)| address).collect();
    let ending = |address: &IpAddr| wanted.get(address).is_some_and(|left| *left < ENDING);
    let mut missing = wanted.keys().filter(|address| !listed.contains(address));
    listed.iter().all(|address| wanted.contains_key(address)) && missing.all(ending)
}

/// Whether a table as nft lists it was made from this text, and still has its hooks, drops, jumps and marks, and no more.
/// nft words much of a rule anew, but a rule ends in its verdict, on a line with it, and its comment stays.
fn filter_is_whole(listed: &str, wanted: &str) -> bool {
    let mut hooks = wanted.lines().filter_map(|line| {
        let (_, hook) = line.split_once(" hook ")?;
        hook.split_whitespace().next()
    });
    let count = |text: &str, verdict: &str| text.lines().filter(|l| l.contains(verdict)).count();
    let signature = |text: &str| {
        let (_, signed) = text.split_once(" comment \"")?;
        let (signature, _) = signed.split_once('"')?;
        Some(signature.to_owned())
    };
    const VERDICTS: [&str; 8] = [
        "drop",
        "reject",
        "jump ",
        "goto ",
        "return",
        "accept",
        "mark set ",
        "masquerade",
    ];
    hooks.all(|hook| listed.contains(&format!(" hook {hook} ")))
        && signature(listed) == signature(wanted)
        && (VERDICTS.iter()).all(|verdict| count(listed, verdict) == count(wanted, verdict))
}
