//! The two gateways of a run: Cygnet at both, or strongSwan at one. They give their Child SA new keys
//! all the time.

use super::super::pair::{Pair, SOON};
use super::super::plan::{ESP, IKE, Inner, OFFICE, Plan, Role};
use crate::lab::cygnet::Cygnet;
use crate::lab::offices::Offices;
use crate::lab::process::last_lines;
use crate::lab::strongswan::StrongSwan;
use crate::lab::{Failure, Lab, Namespace, Result, wait_for};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What strongSwan's sockets hold.
const SOCKET: usize = 2 << 20;
/// What Cygnet logs of new keys.
const RENEWED: &str = "net: keys renewed";

/// Who is at the gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// Cygnet at both.
    Cygnet,
    /// strongSwan at one; Cygnet has this role.
    StrongSwan(Role),
}

/// Both, connected.
pub(super) enum Ends {
    Cygnet(Box<Both>),
    StrongSwan(Box<Pair>),
}

/// Cygnet at both gateways.
pub(super) struct Both {
    a: Cygnet,
    b: Cygnet,
    offices: Offices,
}

impl Ends {
    /// Starts both and connects them; whoever can begins with new keys at this age of a Child SA.
    pub(super) fn connected(lab: &Lab, who: Who, lifetime: Duration) -> Result<Self> {
        let seconds = lifetime.as_secs_f64();
        let plan = |role| {
            let mut plan = Plan::shared_key(role)
                .suite(IKE, ESP)
                .cygnet_line(&format!("child_lifetime = \"{seconds}s\""));
            plan.inner = Inner::Both;
            plan
        };
        match who {
            Who::Cygnet => {
                let caller = plan(Role::Initiator);
                let mut called = plan(Role::Responder);
                (called.cygnet, called.swan) = (called.swan, called.cygnet);
                let mut offices = Offices::build(lab, caller.nat)?;
                offices.block_all_but_tunnel()?;
                let setup = called.cygnet_setup(&offices);
                let b = Cygnet::start(lab, &offices.b.gateway, &setup)?;
                let setup = caller.cygnet_setup(&offices);
                let a = Cygnet::start(lab, &offices.a.gateway, &setup)?;
                let both = Both { a, b, offices };
                both.connect()?;
                Ok(Self::Cygnet(Box::new(both)))
            }
            Who::StrongSwan(role) => {
                // Whole seconds are all it knows.
                let theirs = format!("{}s", seconds.ceil());
                let hard = format!("{}s", seconds.ceil() + 60.0);
                let plan = plan(role)
                    .swan_child("rekey_time", &theirs)
                    .swan_child("life_time", &hard)
                    .swan_child("rand_time", "0s")
                    .swan_daemon("filelog { log { esp = 2 } }");
                let pair = Pair::connected(lab, plan)?;
                pair.swan.widen_sockets(SOCKET)?;
                Ok(Self::StrongSwan(Box::new(pair)))
            }
        }
    }

    pub(super) fn offices(&self) -> &Offices {
        match self {
            Self::Cygnet(both) => &both.offices,
            Self::StrongSwan(pair) => &pair.offices,
        }
    }

    pub(super) fn cygnets(&self) -> Vec<&Cygnet> {
        match self {
            Self::Cygnet(both) => vec![&both.a, &both.b],
            Self::StrongSwan(pair) => vec![&pair.cygnet],
        }
    }

    pub(super) fn strongswan(&self) -> Option<&StrongSwan> {
        match self {
            Self::Cygnet(_) => None,
            Self::StrongSwan(pair) => Some(&pair.swan),
        }
    }

    /// Everybody whom a packet passes.
    pub(super) fn hosts(&self) -> Vec<&Namespace> {
        let offices = self.offices();
        let (a, b) = (&offices.a, &offices.b);
        let links = offices.links.iter().map(|link| link.namespace());
        [&a.host, &a.gateway]
            .into_iter()
            .chain(links)
            .chain([&b.gateway, &b.host])
            .collect()
    }

    /// When the Child SA got new keys, from this moment on, as one Cygnet has logged it.
    pub(super) fn rekeys_since(&self, begun: OffsetDateTime) -> Vec<Duration> {
        let log = self
            .cygnets()
            .first()
            .map_or_else(String::new, |one| one.log());
        log.lines()
            .filter(|line| line.contains(RENEWED))
            .filter_map(|line| OffsetDateTime::parse(line.split(' ').next()?, &Rfc3339).ok())
            .filter_map(|at| Duration::try_from(at - begun).ok())
            .collect()
    }

    /// A failure with the last words of both ends.
    pub(super) fn with_log(&self, failure: Failure) -> Failure {
        match self {
            Self::StrongSwan(pair) => pair.with_log(failure),
            Self::Cygnet(both) => both.with_log(failure),
        }
    }
}

impl Both {
    fn connect(&self) -> Result<()> {
        let called = self.a.command(&["up", OFFICE, "--wait", "10"]);
        let called = called.and_then(|_| {
            wait_for("the child is up at the responder", SOON, || {
                Ok((!self.b.children(OFFICE)?.is_empty()).then_some(()))
            })
        });
        called.map_err(|failure| self.with_log(failure))
    }

    fn with_log(&self, failure: Failure) -> Failure {
        let (a, b) = (last_lines(&self.a.log(), 14), last_lines(&self.b.log(), 14));
        Failure::new(format!("{failure}\n gwa:\n{a}\n gwb:\n{b}"))
    }
}
