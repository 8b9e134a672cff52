//! Which traffic a Child SA carries: templates made concrete, and narrowing (RFC 7296 §2.9).

use std::net::IpAddr;

use cygnet_wire::ts::{AddrRange, OPAQUE_PORT, TrafficSelector};
use thiserror::Error;

use crate::io::WantedAddress;
use crate::policy::SelectorTemplate;

/// Most selectors of one side that are worked with. One octet counts them on the wire; a peer that
/// needs more than this has them narrowed away.
pub const MAX_SELECTORS: usize = 128;

/// What [`SelectorTemplate::Dynamic`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dynamic<'a> {
    /// Addresses asked for and not yet assigned: everything of those families is offered, and the
    /// responder narrows it to what it assigns.
    Wanted(&'a [WantedAddress]),
    /// The virtual addresses of that side; empty: none, it has its outer address alone.
    Virtual(&'a [IpAddr], IpAddr),
    /// The addresses lent to that side; empty: it may use none.
    Lent(&'a [IpAddr]),
}

/// The two sides of a Child SA, as the one sees them who narrows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Narrowed {
    /// TSi.
    pub initiator: Vec<TrafficSelector>,
    /// TSr.
    pub responder: Vec<TrafficSelector>,
    /// How much of the offer that is.
    pub fit: Fit,
}

/// How well a child's policy fits an offer, the best last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// Some of it, without the packet that the first selectors describe.
    Part,
    /// Some of it, with the first selectors.
    WithFirst,
    /// All of it.
    Whole,
}

/// No selectors in common.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no traffic selectors in common: peer offers {offered}; this side allows {allowed}")]
pub struct NoSelectors {
    /// "TSi === TSr" of the offer.
    pub offered: String,
    /// "TSi === TSr" of the policy, from the same point of view.
    pub allowed: String,
}

/// An answer that is no subset of the offer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AnswerError {
    /// One side is empty.
    #[error("the peer's answer has no traffic selectors in {payload}")]
    Empty {
        /// "TSi" or "TSr".
        payload: &'static str,
    },
    /// More than was offered.
    #[error("the peer's {payload} {got} is not within what was offered, {offered}")]
    NotOffered {
        /// "TSi" or "TSr".
        payload: &'static str,
        /// The selector.
        got: String,
        /// What was offered.
        offered: String,
    },
}

/// The selectors that `templates` stand for.
pub fn expand(templates: &[SelectorTemplate], dynamic: Dynamic<'_>) -> Vec<TrafficSelector> {
    let mut expanded = Vec::new();
    for template in templates {
        match (template, dynamic) {
            (SelectorTemplate::Fixed(selector), _) => add(&mut expanded, selector.clone()),
            (SelectorTemplate::Dynamic, Dynamic::Wanted(wanted)) => {
                for wanted in wanted {
                    let any = match wanted {
                        WantedAddress::V4(_) => TrafficSelector::any_v4(),
                        WantedAddress::V6(_) => TrafficSelector::any_v6(),
                    };
                    add(&mut expanded, any);
                }
            }
            (SelectorTemplate::Dynamic, Dynamic::Virtual([], outer)) => {
                add(&mut expanded, host(outer));
            }
            (
                SelectorTemplate::Dynamic,
                Dynamic::Virtual(addresses, _) | Dynamic::Lent(addresses),
            ) => {
                for address in addresses {
                    add(&mut expanded, host(*address));
                }
            }
        }
    }
    expanded
}

/// Puts the selectors of the packet that asks for a Child SA in front of an offer (RFC 7296 §2.9).
pub fn with_packet(
    packet: Option<&TrafficSelector>,
    offer: Vec<TrafficSelector>,
) -> Vec<TrafficSelector> {
    match packet {
        // A packet outside of the offer is not what the child is for.
        Some(packet) if covers(&offer, packet) && offer.first() != Some(packet) => {
            std::iter::once(packet.clone()).chain(offer).collect()
        }
        _ => offer,
    }
}

/// As responder: what of the peer's offer (TSi, TSr) our policy allows, which is given in the same
/// order (the initiator's side first). Everything that both allow is kept, so the first selectors
/// are within it whenever they can be (RFC 7296 §2.9, rules 3 and 4). Families of which only one
/// side has an address are left out.
pub fn narrow(
    offered: (&[TrafficSelector], &[TrafficSelector]),
    allowed: (&[TrafficSelector], &[TrafficSelector]),
) -> Result<Narrowed, NoSelectors> {
    let mut initiator = intersect(offered.0, allowed.0);
    let mut responder = intersect(offered.1, allowed.1);
    let (other_i, other_r) = (initiator.clone(), responder.clone());
    initiator.retain(|ts| other_r.iter().any(|other| same_family(ts, other)));
    responder.retain(|ts| other_i.iter().any(|other| same_family(ts, other)));
    if initiator.is_empty() || responder.is_empty() {
        return Err(NoSelectors {
            offered: pair(offered.0, offered.1),
            allowed: pair(allowed.0, allowed.1),
        });
    }
    let whole = |kept: &[_], offered: &[_]| offered.iter().all(|ts| covers(kept, ts));
    let first = |kept: &[_], offered: &[_]| offered.first().is_some_and(|ts| covers(kept, ts));
    let fit = if whole(&initiator, offered.0) && whole(&responder, offered.1) {
        Fit::Whole
    } else if first(&initiator, offered.0) && first(&responder, offered.1) {
        Fit::WithFirst
    } else {
        Fit::Part
    };
    Ok(Narrowed {
        initiator,
        responder,
        fit,
    })
}

/// As initiator: whether the answer (TSi, TSr) is a subset of what we offered.
pub fn check_answer(
    offered: (&[TrafficSelector], &[TrafficSelector]),
    answer: (&[TrafficSelector], &[TrafficSelector]),
) -> Result<(), AnswerError> {
    for (payload, offered, answer) in [("TSi", offered.0, answer.0), ("TSr", offered.1, answer.1)] {
        if answer.is_empty() {
            return Err(AnswerError::Empty { payload });
        }
        if let Some(alien) = answer.iter().find(|ts| !covers(offered, ts)) {
            return Err(AnswerError::NotOffered {
                payload,
                got: alien.to_string(),
                offered: list(offered),
            });
        }
    }
    Ok(())
}

/// All that is in one of `a` and in one of `b`, without those that another one includes.
pub fn intersect(a: &[TrafficSelector], b: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let mut common = Vec::new();
    for a in a.iter().take(MAX_SELECTORS) {
        for b in b.iter().take(MAX_SELECTORS) {
            if let Some(both) = a.intersect(b) {
                add(&mut common, both);
            }
        }
    }
    common
}

/// Whether `selectors` together select everything that `ts` does. (Rekeying may not narrow,
/// RFC 7296 §2.8.)
///
/// Ranges of addresses are joined for this; protocols and ports have to be covered by each.
pub fn covers(selectors: &[TrafficSelector], ts: &TrafficSelector) -> bool {
    let mut ranges: Vec<_> = selectors
        .iter()
        .filter(|wide| same_family(wide, ts))
        .filter(|wide| wide.protocol == 0 || wide.protocol == ts.protocol)
        .filter(|wide| {
            wide.ports == ts.ports
                || (ts.ports != OPAQUE_PORT
                    && wide.ports.contains(ts.ports.start())
                    && wide.ports.contains(ts.ports.end()))
                || wide.ports == cygnet_wire::ts::ANY_PORT
        })
        .map(|wide| bounds(&wide.addrs))
        .collect();
    ranges.sort_unstable();
    let (mut from, to) = bounds(&ts.addrs);
    for (lo, hi) in ranges {
        if lo > from {
            return false;
        }
        if hi >= to {
            return true;
        }
        // hi < to, so there is a next address.
        from = from.max(hi + 1);
    }
    false
}

/// Selectors for people: "10.1.0.0/24, 10.2.0.0/24".
pub fn list(selectors: &[TrafficSelector]) -> String {
    if selectors.is_empty() {
        return "none".into();
    }
    let selectors: Vec<_> = selectors.iter().map(ToString::to_string).collect();
    selectors.join(", ")
}

/// Both sides for people: "10.1.0.0/24 === 10.2.0.0/24".
pub fn pair(one: &[TrafficSelector], other: &[TrafficSelector]) -> String {
    format!("{} === {}", list(one), list(other))
}

/// The same text for the same selectors, in whatever order, repeated or included in each other.
pub fn canonical(local: &[TrafficSelector], remote: &[TrafficSelector]) -> String {
    let side = |selectors: &[TrafficSelector]| {
        let mut reduced = Vec::new();
        for selector in selectors {
            add(&mut reduced, selector.clone());
        }
        let mut texts: Vec<_> = reduced.iter().map(ToString::to_string).collect();
        texts.sort_unstable();
        texts.join(" ")
    };
    format!("{} === {}", side(local), side(remote))
}

/// Adds a selector unless it is included already; what it includes goes.
fn add(selectors: &mut Vec<TrafficSelector>, ts: TrafficSelector) {
    if selectors.iter().any(|wide| ts.is_subset(wide)) {
        return;
    }
    selectors.retain(|narrow| !narrow.is_subset(&ts));
    if selectors.len() < MAX_SELECTORS {
        selectors.push(ts);
    }
}

fn host(address: IpAddr) -> TrafficSelector {
    TrafficSelector::from_range(AddrRange::single(address))
}

fn same_family(a: &TrafficSelector, b: &TrafficSelector) -> bool {
    matches!(
        (a.addrs, b.addrs),
        (AddrRange::V4(..), AddrRange::V4(..)) | (AddrRange::V6(..), AddrRange::V6(..))
    )
}

fn bounds(addrs: &AddrRange) -> (u128, u128) {
    match addrs {
        AddrRange::V4(lo, hi) => (u128::from(lo.to_bits()), u128::from(hi.to_bits())),
        AddrRange::V6(lo, hi) => (lo.to_bits(), hi.to_bits()),
    }
}

#[cfg(test)]
mod tests;
