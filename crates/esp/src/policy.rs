//! The outbound security policy database (RFC 4301 §4.4.1): which Child SA a packet leaves by.
//!
//! An [`Spd`] is built once and never changes; the control side swaps a new one in (`Arc`), so workers
//! read it without a lock. There is one for each TUN.

use std::sync::Arc;

use cygnet_wire::ip::IpPacket;
use cygnet_wire::ts::AddrRange;

use crate::flow::Flow;
use crate::fragments::FragmentTable;
use crate::sa::OutboundSa;
use crate::selectors::Selectors;

/// The caller's name of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId(pub u32);

/// One entry: packets, and what happens to them.
///
/// A server whose clients have an address each has an entry for each client, found through the
/// index; the SAs within one entry are gone through in order, which is meant for a few generations.
pub struct Policy<P> {
    /// Its name in [`Verdict`].
    pub id: PolicyId,
    /// The packets.
    pub selectors: Selectors,
    /// What happens to them.
    pub action: Action<P>,
}

/// What happens to the packets of a policy.
pub enum Action<P> {
    /// They leave by the first of these SAs that is usable and whose own selectors contain them: the
    /// newest comes first. Where there is none, one has to be negotiated.
    Protect(Vec<Outlet<P>>),
    /// They are dropped.
    Discard,
}

/// An SA, and the path its datagrams take.
pub struct Outlet<P> {
    /// The SA.
    pub sa: Arc<OutboundSa>,
    /// The caller's name of the path, with whatever it wants to find there (its MTU).
    pub path: P,
}

/// What happens to one packet.
pub enum Verdict<'s, P> {
    /// It is sealed.
    Seal(&'s Outlet<P>),
    /// A Child SA has to be negotiated first, for a packet of these selectors.
    Acquire(PolicyId, Flow),
    /// The policy says so.
    Discard(PolicyId),
    /// No policy has it: it is dropped (RFC 4301 §5.1 step 3).
    NoPolicy,
    /// A later fragment that only its ports could tell where to go, whose first fragment has not been
    /// seen: it is dropped (RFC 4301 §7.2).
    UnknownFragment,
}

/// Policies, first match wins.
pub struct Spd<P> {
    policies: Vec<Policy<P>>,
    v4: Index<u32>,
    v6: Index<u128>,
    needs_ports: bool,
}

impl<P> Spd<P> {
    /// A database of these policies, in order of precedence.
    pub fn new(policies: Vec<Policy<P>>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (rank, policy) in policies.iter().enumerate() {
            for selector in policy.selectors.remote() {
                match selector.addrs {
                    AddrRange::V4(lo, hi) => v4.push(Span::new(lo.to_bits(), hi.to_bits(), rank)),
                    AddrRange::V6(lo, hi) => v6.push(Span::new(lo.to_bits(), hi.to_bits(), rank)),
                }
            }
        }
        let needs_ports = policies.iter().any(|policy| {
            policy.selectors.needs_ports()
                || match &policy.action {
                    Action::Protect(outlets) => outlets
                        .iter()
                        .any(|outlet| outlet.sa.selectors().needs_ports()),
                    Action::Discard => false,
                }
        });
        Self {
            policies,
            v4: Index::new(v4),
            v6: Index::new(v6),
            needs_ports,
        }
    }

    /// The policies, in order of precedence.
    pub fn policies(&self) -> &[Policy<P>] {
        &self.policies
    }

    /// What happens to a packet with these headers. `fragments` is the worker's own, for outbound
    /// packets alone.
    pub fn lookup(
        &self,
        packet: &IpPacket,
        flow: &Flow,
        fragments: &mut FragmentTable,
    ) -> Verdict<'_, P> {
        if !self.needs_ports || packet.fragment.is_none() {
            return self.lookup_flow(flow);
        }
        match fragments.resolve(packet, *flow) {
            Some(flow) => self.lookup_flow(&flow),
            // Selectors that do not care for ports take it as it is.
            None => match self.lookup_flow(flow) {
                Verdict::Acquire(..) | Verdict::NoPolicy => Verdict::UnknownFragment,
                verdict => verdict,
            },
        }
    }

    /// What happens to packets of a flow.
    pub fn lookup_flow(&self, flow: &Flow) -> Verdict<'_, P> {
        let matches = |rank: usize| {
            self.policies
                .get(rank)
                .is_some_and(|policy| policy.selectors.match_outbound(flow))
        };
        let rank = match flow.dst {
            std::net::IpAddr::V4(dst) => self.v4.first(dst.to_bits(), matches),
            std::net::IpAddr::V6(dst) => self.v6.first(dst.to_bits(), matches),
        };
        let Some(policy) = rank.and_then(|rank| self.policies.get(rank)) else {
            return Verdict::NoPolicy;
        };
        match &policy.action {
            Action::Discard => Verdict::Discard(policy.id),
            Action::Protect(outlets) => outlets
                .iter()
                .find(|outlet| outlet.sa.is_usable() && outlet.sa.selectors().match_outbound(flow))
                .map_or(Verdict::Acquire(policy.id, *flow), Verdict::Seal),
        }
    }
}

/// Ranges of addresses with the rank of their policy, found by an address that they contain.
///
/// An interval tree without pointers: spans sorted by their lower end, seen as a balanced tree whose
/// root is the middle one; each knows the highest end in its subtree. A lookup visits the spans that
/// contain the address and a logarithm of the others.
struct Index<K> {
    spans: Vec<Span<K>>,
}

struct Span<K> {
    lo: K,
    hi: K,
    /// The highest `hi` of the subtree this span is the root of.
    max_hi: K,
    rank: usize,
}

impl<K: Copy> Span<K> {
    fn new(lo: K, hi: K, rank: usize) -> Self {
        Self {
            lo,
            hi,
            max_hi: hi,
            rank,
        }
    }
}

impl<K: Copy + Ord> Index<K> {
    fn new(mut spans: Vec<Span<K>>) -> Self {
        spans.sort_by_key(|span| (span.lo, span.rank));
        Self::raise(&mut spans);
        Self { spans }
    }

    fn raise(spans: &mut [Span<K>]) -> Option<K> {
        let middle = spans.len() / 2;
        let (left, rest) = spans.split_at_mut(middle);
        let (root, right) = rest.split_first_mut()?;
        root.max_hi = root.hi.max(Self::raise(left).unwrap_or(root.hi));
        root.max_hi = root.max_hi.max(Self::raise(right).unwrap_or(root.hi));
        Some(root.max_hi)
    }

    /// The lowest rank among the spans that contain `key` and pass `matches`.
    fn first(&self, key: K, matches: impl Fn(usize) -> bool) -> Option<usize> {
        let mut best = None;
        Self::search(&self.spans, key, &matches, &mut best);
        best
    }

    fn search(
        spans: &[Span<K>],
        key: K,
        matches: &impl Fn(usize) -> bool,
        best: &mut Option<usize>,
    ) {
        let (left, rest) = spans.split_at(spans.len() / 2);
        let Some((root, right)) = rest.split_first() else {
            return;
        };
        if root.max_hi < key {
            return;
        }
        Self::search(left, key, matches, best);
        if root.lo <= key {
            let better = best.is_none_or(|best| root.rank < best);
            if better && key <= root.hi && matches(root.rank) {
                *best = Some(root.rank);
            }
            Self::search(right, key, matches, best);
        }
    }
}

#[cfg(test)]
mod tests;
