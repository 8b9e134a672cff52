//! Cygnet and strongSwan at the two gateways, and what is asserted about both at once.

use super::flow::{Flow, Tally};
use super::plan::{CLIENTS, OFFICE, Plan, Role, SERVER};
use crate::ensure;
use crate::lab::cygnet::{self, Cygnet};
use crate::lab::offices::{Office, Offices};
use crate::lab::process::last_lines;
use crate::lab::strongswan::{self, StrongSwan};
use crate::lab::{Failure, Lab, Namespace, Result, wait_for};
use std::time::Duration;

/// How long anything may take that happens by itself.
pub(super) const SOON: Duration = Duration::from_secs(10);
/// Echo requests of a proof, in each direction.
const PINGS: u64 = 3;
/// A ping's IPv4 packet; the IPv6 header is 20 octets longer.
const PING_LENGTH: u64 = 84;

/// Both ends, running, on links that drop all but the tunnel.
pub(super) struct Pair {
    pub(super) plan: Plan,
    pub(super) cygnet: Cygnet,
    pub(super) swan: StrongSwan,
    pub(super) offices: Offices,
}

/// Two hosts that are to reach each other: Cygnet's with its address, strongSwan's with its.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) near: Namespace,
    pub(super) near_address: String,
    pub(super) far: Namespace,
    pub(super) far_address: String,
}

impl Way {
    pub(super) fn new(near: (&Namespace, &str), far: (&Namespace, &str)) -> Self {
        Self {
            near: near.0.clone(),
            near_address: near.1.to_owned(),
            far: far.0.clone(),
            far_address: far.1.to_owned(),
        }
    }
}

/// Packets and bytes in the SAs of both ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    cygnet_out: (u64, u64),
    cygnet_in: (u64, u64),
    swan_out: (u64, u64),
    swan_in: (u64, u64),
}

impl Pair {
    /// Builds the network and starts both; who is called first.
    pub(super) fn start(lab: &Lab, plan: Plan) -> Result<Self> {
        let offices = Offices::build(lab, plan.nat)?;
        Self::start_in(lab, plan, offices)
    }

    /// The same in a network that is there.
    pub(super) fn start_in(lab: &Lab, plan: Plan, mut offices: Offices) -> Result<Self> {
        offices.block_all_but_tunnel()?;
        let setup = plan.cygnet_setup(&offices);
        Self::start_with(lab, plan, offices, &setup)
    }

    /// The same with another configuration of Cygnet.
    pub(super) fn start_with(
        lab: &Lab,
        plan: Plan,
        offices: Offices,
        setup: &cygnet::Setup,
    ) -> Result<Self> {
        let swan_setup = plan.swan_setup(&offices);
        Self::start_as(lab, plan, offices, setup, &swan_setup)
    }

    /// The same with other configurations of both.
    pub(super) fn start_as(
        lab: &Lab,
        plan: Plan,
        offices: Offices,
        setup: &cygnet::Setup,
        swan_setup: &strongswan::Setup,
    ) -> Result<Self> {
        let (own, other) = plan.offices(&offices);
        let swan = StrongSwan::start(lab, &other.gateway, swan_setup)?;
        let mut setup = setup.clone();
        setup.daemon.push_str("log = \"debug\"\n");
        let cygnet = Cygnet::start(lab, &own.gateway, &setup)?;
        Ok(Self {
            cygnet,
            swan,
            plan,
            offices,
        })
    }

    /// Both, connected.
    pub(super) fn connected(lab: &Lab, plan: Plan) -> Result<Self> {
        let pair = Self::start(lab, plan)?;
        pair.connect()?;
        Ok(pair)
    }

    /// Cygnet's side.
    pub(super) fn near(&self) -> &Office {
        self.plan.offices(&self.offices).0
    }

    /// strongSwan's side.
    pub(super) fn far(&self) -> &Office {
        self.plan.offices(&self.offices).1
    }

    /// The initiator calls; returns when all children are up at both ends.
    pub(super) fn connect(&self) -> Result<()> {
        let children = self.plan.children(&self.offices);
        match self.plan.role {
            Role::Initiator => self.up()?,
            Role::Responder => {
                for child in &children {
                    self.swan
                        .initiate(&child.name)
                        .map_err(|failure| self.with_log(failure))?;
                }
            }
        }
        for child in &children {
            self.wait_for_child(&child.name)?;
        }
        Ok(())
    }

    /// `cygnet up`.
    pub(super) fn up(&self) -> Result<()> {
        self.cygnet
            .command(&["up", OFFICE, "--wait", "10"])
            .map(drop)
            .map_err(|failure| self.with_log(failure))
    }

    /// Waits until each end has the child once; gives Cygnet's. The one of a server's clients has a
    /// name of its own.
    pub(super) fn wait_for_child(&self, name: &str) -> Result<cygnet::ChildSa> {
        let own_name = match self.plan.connection {
            SERVER => CLIENTS,
            _ => name,
        };
        let found = wait_for(
            &format!("child {name} is up at both ends, once"),
            SOON,
            || {
                let mut own = self.children(own_name)?;
                let theirs = self.swan.installed_children(name)?;
                Ok(match (own.pop(), own.len(), theirs.as_slice()) {
                    (Some(own), 0, [theirs]) if same(&own.spi_in, &theirs.spi_out) => Some(own),
                    _ => None,
                })
            },
        );
        found.map_err(|failure| {
            let own = self
                .cygnet
                .connection(self.plan.connection)
                .map(|c| format!("{c:?}"));
            let theirs = self.swan.sas().map(|sas| format!("{sas:?}"));
            let seen = Failure::new(format!(
                "{failure}\n cygnet has {}\n strongSwan has {}",
                own.unwrap_or_default(),
                theirs.unwrap_or_default()
            ));
            self.with_log(seen)
        })
    }

    /// Cygnet's Child SAs of this name that are up.
    pub(super) fn children(&self, name: &str) -> Result<Vec<cygnet::ChildSa>> {
        let mut all = self.cygnet.children(self.plan.connection)?;
        all.retain(|child| child.name == name);
        Ok(all)
    }

    /// Waits until the IKE SA is another than `old`, at both ends.
    pub(super) fn wait_for_new_ike_sa(&self, old: &cygnet::IkeSa) -> Result<()> {
        wait_for("the IKE SA has new keys", SOON, || {
            let new = self.ike_sa()?.0;
            Ok((!same(&new.initiator_spi, &old.initiator_spi)).then_some(()))
        })
    }

    /// The one IKE SA that is up at both ends, as each sees it; waits until there is just one.
    pub(super) fn ike_sa(&self) -> Result<(cygnet::IkeSa, strongswan::IkeSa)> {
        let mut seen = String::new();
        wait_for("one IKE SA at both ends, the same", SOON, || {
            let mut own = self.cygnet.connection(self.plan.connection)?.ike_sas;
            let mut theirs = self.swan.sas()?;
            seen = format!("cygnet has {own:?}; strongSwan has {theirs:?}");
            Ok(match (own.pop(), own.len(), theirs.pop(), theirs.len()) {
                (Some(own), 0, Some(theirs), 0)
                    if own.state == "up"
                        && theirs.state == "ESTABLISHED"
                        && same(&own.initiator_spi, &theirs.spis.0)
                        && same(&own.responder_spi, &theirs.spis.1) =>
                {
                    Some((own, theirs))
                }
                _ => None,
            })
        })
        .map_err(|failure| self.with_log(Failure::new(format!("{failure}: {seen}"))))
    }

    /// The ways between the first host of each side, in the families of the plan.
    pub(super) fn ways(&self) -> Vec<Way> {
        let (near, far) = (self.near(), self.far());
        let v4 = Way::new((&near.host, near.host4), (&far.host, far.host4));
        let v6 = Way::new((&near.host, near.host6), (&far.host, far.host6));
        match self.plan.inner {
            super::plan::Inner::V4 => vec![v4],
            super::plan::Inner::V6 => vec![v6],
            super::plan::Inner::Both => vec![v4, v6],
        }
    }

    /// Pings both ways on each way and asserts that the counters of the SAs at both ends moved by
    /// exactly that, and that the links saw nothing but the tunnel.
    pub(super) fn carry(&self) -> Result<String> {
        self.carry_on(&self.ways())
    }

    /// The same on these ways.
    pub(super) fn carry_on(&self, ways: &[Way]) -> Result<String> {
        let before = self.counts()?;
        self.offices.reset_counters()?;
        for way in ways {
            for (from, to) in [(&way.near, &way.far_address), (&way.far, &way.near_address)] {
                self.ping(from, to)?;
            }
        }
        let packets = ways.len() as u64 * PINGS * 2;
        let bytes = ways.iter().map(|way| {
            let longer = if way.far_address.contains(':') { 20 } else { 0 };
            PINGS * 2 * (PING_LENGTH + longer)
        });
        let moved = (packets, bytes.sum::<u64>());
        let expected = before.all_moved_by(moved);
        let mut seen = before;
        wait_for("the counters of the SAs", Duration::from_secs(2), || {
            seen = self.counts()?;
            Ok((seen == expected).then_some(()))
        })
        .map_err(|_| {
            self.with_log(Failure::new(format!(
                "{packets} packets went each way: the SAs should count {expected:?}, not {seen:?}"
            )))
        })?;
        let passed = self.offices.counters()?;
        ensure!(
            passed.leaked == 0,
            "something beside the tunnel on the links: {passed:?}"
        );
        ensure!(
            // Packets that leave at once are counted as one.
            passed.tunnel >= packets,
            "{packets} packets went each way, but on the links {passed:?}"
        );
        Ok(format!("{packets} packets each way, counted at both ends"))
    }

    fn ping(&self, from: &Namespace, to: &str) -> Result<()> {
        let mut said = String::new();
        // One at a time: with several, ping(8) waits for the last for two round trips only.
        for _ in 0..PINGS {
            let finished = from.finish(["ping", "-n", "-q", "-c1", "-W5", to])?;
            if !finished.success() {
                said = finished.stdout;
                break;
            }
        }
        if said.is_empty() {
            return Ok(());
        }
        let status = self.cygnet.command(&["status", "--json"])?;
        let counts = self.counts()?;
        Err(self.with_log(Failure::new(format!(
            "{} pings {to} in vain: {}; the SAs count {counts:?}; {status}",
            from.name(),
            said.trim()
        ))))
    }

    fn counts(&self) -> Result<Counts> {
        let mut counts = Counts::default();
        for child in self.cygnet.children(self.plan.connection)? {
            add(&mut counts.cygnet_out, child.packets_out, child.bytes_out);
            add(&mut counts.cygnet_in, child.packets_in, child.bytes_in);
        }
        for child in self.swan.sas()?.into_iter().flat_map(|sa| sa.children) {
            if child.state == "INSTALLED" {
                add(&mut counts.swan_out, child.packets_out, child.bytes_out);
                add(&mut counts.swan_in, child.packets_in, child.bytes_in);
            }
        }
        Ok(counts)
    }

    /// Does something under 10 Mbit/s of UDP in each direction, and asserts that not one datagram was
    /// lost or doubled. A run in which the peer's own socket overflowed (the machine was busy) proves
    /// nothing and is made again.
    pub(super) fn loss_free(&self, what: impl FnMut() -> Result<()>) -> Result<String> {
        let far = self.far().gateway.clone();
        let mut before = overflows(&far)?;
        self.loss_free_but(what, |_| {
            let now = overflows(&far)?;
            Ok(std::mem::replace(&mut before, now) < now)
        })
    }

    /// The same where runs with losses are made again, three times at most, as long as `peer` says
    /// that the peer has lost them.
    pub(super) fn loss_free_but(
        &self,
        mut what: impl FnMut() -> Result<()>,
        mut peer: impl FnMut(&Tally) -> Result<bool>,
    ) -> Result<String> {
        let (near, far) = (self.near(), self.far());
        for _ in 0..3 {
            let tally = self.flow(&mut what, near, far)?;
            if tally.lost == [0, 0] || !peer(&tally)? {
                return self.judge(tally);
            }
        }
        self.judge(self.flow(&mut what, near, far)?)
    }

    fn flow(
        &self,
        what: &mut impl FnMut() -> Result<()>,
        near: &Office,
        far: &Office,
    ) -> Result<Tally> {
        let flow = Flow::start((&near.host, near.host4), (&far.host, far.host4), 10)?;
        flow.go_on(200)?;
        what()?;
        flow.go_on(400)?;
        flow.finish()
    }

    fn judge(&self, tally: Tally) -> Result<String> {
        if tally.lost == [0, 0] && tally.repeated == 0 {
            return Ok(format!("{} datagrams, none lost", tally.sent));
        }
        let status = self.cygnet.command(&["status", "--json"])?;
        Err(self.with_log(Failure::new(format!("{tally:?}; status {status}"))))
    }

    /// Expects that the call fails and that Cygnet says `why`; then that nothing is installed.
    pub(super) fn refuses(&self, why: &str) -> Result<String> {
        let before = kernel_state(self.cygnet.namespace())?;
        match self.plan.role {
            Role::Initiator => drop(self.cygnet.control(&["up", OFFICE, "--wait", "0"])?),
            Role::Responder => {
                let told = self
                    .swan
                    .initiate(&self.plan.children(&self.offices)[0].name);
                ensure!(told.is_err(), "strongSwan says that it succeeded");
            }
        }
        let line = self
            .cygnet
            .wait_for_log(why, Duration::from_secs(5))
            .map_err(|failure| {
                let theirs = last_lines(&self.swan.log(), 12);
                Failure::new(format!("{failure}\n strongSwan:\n{theirs}"))
            })?;
        if self.plan.role == Role::Initiator {
            let mut reason = None;
            wait_for("status gives the reason", SOON, || {
                reason = self.cygnet.connection(self.plan.connection)?.reason;
                let told = reason.as_ref().is_some_and(|reason| reason.contains(why));
                Ok(told.then_some(()))
            })
            .map_err(|failure| {
                self.with_log(Failure::new(format!("{failure}: it gives {reason:?}")))
            })?;
            self.cygnet.down(OFFICE)?;
        }
        self.nothing_is_left(&before)?;
        Ok(line.trim().to_owned())
    }

    /// Neither end has an SA, and the kernel at Cygnet's is as `before`.
    pub(super) fn nothing_is_left(&self, before: &str) -> Result<()> {
        let mut seen = String::new();
        wait_for("no SA at either end", SOON, || {
            let (own, theirs) = (
                self.cygnet.connection(self.plan.connection)?,
                self.swan.sas()?,
            );
            seen = format!("cygnet has {:?}, strongSwan has {theirs:?}", own.ike_sas);
            Ok((own.ike_sas.is_empty() && theirs.is_empty()).then_some(()))
        })
        .map_err(|failure| self.with_log(Failure::new(format!("{failure}: {seen}"))))?;
        let mut difference = String::new();
        wait_for("the kernel is as before", Duration::from_secs(2), || {
            difference = changes(before, &kernel_state(self.cygnet.namespace())?);
            Ok(difference.is_empty().then_some(()))
        })
        .map_err(|failure| Failure::new(format!("{failure}:\n{difference}")))
    }

    /// A failure with the last words of both ends.
    pub(super) fn with_log(&self, failure: Failure) -> Failure {
        Failure::new(format!(
            "{failure}\n cygnet:\n{}\n strongSwan:\n{}",
            last_lines(&self.cygnet.log(), 14),
            last_lines(&self.swan.log(), 14)
        ))
    }
}

impl Counts {
    fn all_moved_by(self, by: (u64, u64)) -> Self {
        let moved = |(packets, bytes): (u64, u64)| (packets + by.0, bytes + by.1);
        Self {
            cygnet_out: moved(self.cygnet_out),
            cygnet_in: moved(self.cygnet_in),
            swan_out: moved(self.swan_out),
            swan_in: moved(self.swan_in),
        }
    }
}

fn add(sum: &mut (u64, u64), packets: u64, bytes: u64) {
    sum.0 += packets;
    sum.1 += bytes;
}

/// Whether two SPIs are one, however many zeros each end writes.
pub(super) fn same(one: &str, other: &str) -> bool {
    let plain = |text: &str| text.trim_start_matches('0').to_ascii_lowercase();
    plain(one) == plain(other)
}

/// Datagrams that found a socket's buffer full, on this host.
fn overflows(host: &Namespace) -> Result<u64> {
    let text = host.shell("cat /proc/net/snmp /proc/net/snmp6")?;
    let v6 = text
        .lines()
        .find_map(|line| line.strip_prefix("Udp6RcvbufErrors"));
    let mut v4 = text.lines().filter(|line| line.starts_with("Udp:"));
    let at = v4
        .next()
        .and_then(|names| names.split(' ').position(|name| name == "RcvbufErrors"));
    let v4 = v4
        .next()
        .zip(at)
        .and_then(|(row, at)| row.split(' ').nth(at));
    let number = |text: Option<&str>| text.and_then(|text| text.trim().parse::<u64>().ok());
    Ok(number(v4).unwrap_or_default() + number(v6).unwrap_or_default())
}

/// Addresses, routes, rules and firewall of a host, a line each.
pub(super) fn kernel_state(host: &Namespace) -> Result<String> {
    host.shell(
        // Link-local addresses come by themselves, some time after their interface.
        "{ ip -o addr show | sed 's/ *valid_lft.*//'; ip rule; ip -6 rule; ip route show table all; \
         ip -6 route show table all; nft -s list ruleset; } | grep -v fe80:",
    )
}

/// The lines that only one of two states has.
pub(super) fn changes(before: &str, after: &str) -> String {
    let only = |one: &str, other: &str, mark: char| {
        let lines = one
            .lines()
            .filter(|&line| !other.lines().any(|known| known == line));
        lines
            .map(|line| format!("{mark}{line}\n"))
            .collect::<String>()
    };
    only(before, after, '-') + &only(after, before, '+')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spis_are_compared_as_numbers() {
        assert!(same("00C3a1", "c3a1") && !same("c3a1", "c3a10"));
    }

    #[test]
    fn changes_are_told_by_line() {
        assert_eq!(changes("a\nb\n", "b\nc\n"), "-a\n+c\n");
        assert_eq!(changes("a\nb\n", "b\na\n"), "");
    }
}
