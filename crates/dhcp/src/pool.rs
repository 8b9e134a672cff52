//! Which addresses of the range are there for whoever comes, kept in order: a question costs no look at all of them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Addresses that are nobody's by reservation and that a device can have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool {
    /// Those that nobody has or had.
    new: BTreeSet<Ipv4Addr>,
    /// Those that somebody has or had, by when that is over.
    by_end: BTreeSet<(Duration, Ipv4Addr)>,
}

impl Pool {
    pub(crate) fn of(all: BTreeSet<Ipv4Addr>) -> Self {
        Self {
            new: all,
            by_end: BTreeSet::new(),
        }
    }

    /// Addresses that nobody had, beginning with the one at this place or behind it.
    pub(crate) fn new_from(&self, first: Ipv4Addr) -> impl Iterator<Item = Ipv4Addr> {
        self.new
            .range(first..)
            .chain(self.new.range(..first))
            .copied()
    }

    /// Addresses whose lease is over, the one that is over for the longest time first.
    pub(crate) fn over(&self, now: Duration) -> impl Iterator<Item = Ipv4Addr> {
        let by_end = self.by_end.iter();
        by_end
            .take_while(move |(until, _)| *until <= now)
            .map(|(_, address)| *address)
    }

    /// The lease of an address ends then, and did at `before`; `None`: there is none.
    pub(crate) fn lease(
        &mut self,
        address: Ipv4Addr,
        before: Option<Duration>,
        until: Option<Duration>,
    ) {
        let is_ours = match before {
            Some(before) => self.by_end.remove(&(before, address)),
            None => self.new.remove(&address),
        };
        match until {
            _ if !is_ours => {}
            Some(until) => {
                self.by_end.insert((until, address));
            }
            None => {
                self.new.insert(address);
            }
        }
    }
}
