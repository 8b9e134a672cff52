//! How much one IKE SA may hold: Child SAs, and networks that their selectors name. Packets are compared with the
//! selectors one by one, and each network of the peer's side becomes a route: without a bound one peer could make
//! the traffic of all others slow.

use cygnet_wire::ts::TrafficSelector;

use crate::event::Reason;
use crate::io::ChildSaId;
use crate::policy::{Connection, SelectorTemplate};
use crate::sa::child::ChildSa;
use crate::sa::established::Established;
use crate::sa::negotiate::Sides;

/// What may be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Child SAs; more are refused with NO_ADDITIONAL_SAS. Predecessors that the peer does not delete may double it.
    pub(crate) children: usize,
    /// Networks that their selectors name on both sides; a range of addresses counts as the prefixes that it is
    /// made of. While Child SAs are rekeyed there may be twice as many.
    networks: usize,
}

impl Room {
    /// A device that is lent an address has one Child SA, or one for each family, processor core (RFC 9611) or pair of
    /// networks. The 128 selectors of each side fit in twice.
    const CLIENT: Self = Self {
        children: 64,
        networks: 512,
    };
    /// Another site may have a Child SA for each pair of networks.
    const SITE: Self = Self {
        children: 256,
        networks: 2048,
    };

    pub(crate) fn of(connection: &Connection) -> Self {
        let least = match connection.pool {
            Some(_) => Self::CLIENT,
            None => Self::SITE,
        };
        // What is configured fits in, and as much again.
        let policies = connection.children.iter();
        let named = policies.flat_map(|policy| policy.local.iter().chain(&policy.remote));
        let named: usize = named
            .map(|template| match template {
                SelectorTemplate::Fixed(selector) => selector.prefixes().count(),
                SelectorTemplate::Dynamic => 1,
            })
            .sum();
        Self {
            children: least.children.max(2 * connection.children.len()),
            networks: least.networks.max(2 * named),
        }
    }

    pub(crate) fn no_more_children(self) -> Reason {
        let most = self.children;
        Reason::Local(format!("an IKE SA holds {most} Child SAs at most"))
    }

    /// Whether Child SAs of these selectors fit in beside what is `held`, `times` over.
    fn take(self, held: usize, (local, remote): &Sides, times: usize) -> Result<(), Reason> {
        let (more, most) = (networks(local, remote), times * self.networks);
        match held + more <= most {
            true => Ok(()),
            false => Err(Reason::Local(format!(
                "the selectors of a Child SA name {more} networks and those of others {held}, expected {most} at most in \
                 one IKE SA; name fewer and larger ones"
            ))),
        }
    }

    /// Whether the first Child SA fits in.
    pub(crate) fn take_first(self, sides: &Sides) -> Result<(), Reason> {
        self.take(0, sides, 1)
    }
}

impl Established {
    pub(crate) fn room(&self) -> Room {
        Room::of(&self.peering.connection)
    }

    /// Whether a Child SA of these selectors fits in, in the place of another or beside all others.
    pub(crate) fn take_in(&self, replaces: Option<ChildSaId>, sides: &Sides) -> Result<(), Reason> {
        let times = if replaces.is_some() { 2 } else { 1 };
        let held = self.children.values().map(held_by).sum();
        self.room().take(held, sides, times)
    }
}

fn held_by(child: &ChildSa) -> usize {
    networks(&child.params.local_ts, &child.params.remote_ts)
}

fn networks(local: &[TrafficSelector], remote: &[TrafficSelector]) -> usize {
    let both = local.iter().chain(remote);
    both.map(|selector| selector.prefixes().count()).sum()
}
