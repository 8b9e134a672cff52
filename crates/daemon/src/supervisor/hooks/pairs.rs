//! Which pairs of traffic selectors of a tunnel are up, and which of them its hook was told of.
//!
//! What is to be told is the difference of the two, so nothing is queued: while a hook is slow, what came and went
//! again is left out, and whatever it was told to do it is told to undo, once. An IKE SA of which something is heard
//! costs what it carries, and a run of the hook nothing that grows with what the others carry.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::environment::{Variables, Verb};
use super::process::Program;
use crate::ipc::Selector;

/// Pairs of a tunnel that a hook is told of at once: more than a server of this kind has clients. The others wait.
pub(super) const PAIRS_MAX: usize = 4096;
/// Pairs that are kept in mind, with those that wait.
const KEPT_MAX: usize = 2 * PAIRS_MAX;

/// Which pair it is. Two clients of a server may have the same selectors.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) child: String,
    pub(super) peer: String,
    pub(super) local: Selector,
    pub(super) remote: Selector,
}

/// A pair that the hook was told is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    key: Key,
    /// They are undone in this order.
    pub(super) turn: u64,
    variables: Variables,
    /// It has been down since; a pair that is up under this key is another one.
    over: bool,
    /// Who was told.
    program: Program,
}

/// What is to be told next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Telling {
    pub(super) verb: Verb,
    pub(super) told: Told,
}

impl Telling {
    pub(super) fn program(&self) -> &Program {
        &self.told.program
    }

    pub(super) fn environment(&self) -> impl Iterator<Item = (&str, String)> {
        self.told.variables.environment(self.verb)
    }
}

/// A pair that is up.
#[derive(Debug, Default)]
struct Up {
    /// By the IKE SAs that carry it. Of two that do for a while, the newer one has the addresses.
    by: BTreeMap<u64, Variables>,
    /// Its place among those the hook is to be told of.
    waits: Option<u64>,
}

impl Up {
    fn now(&self) -> Option<&Variables> {
        self.by.values().next_back()
    }
}

/// Of one tunnel.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// The hook as it is configured.
    program: Option<Program>,
    /// What each IKE SA carries.
    carried: BTreeMap<u64, Vec<Key>>,
    /// How much that is, of each peer and of all.
    of_peers: BTreeMap<String, usize>,
    of_all: usize,
    up: BTreeMap<Key, Up>,
    told: BTreeMap<Key, Told>,
    /// What was told and is so no more, by its turn.
    stale: BTreeMap<u64, Key>,
    /// What is up and was not told, by its place.
    waiting: BTreeMap<u64, Key>,
    /// It is being told that this one is down.
    undoing: Option<Told>,
    turn: u64,
    place: u64,
}

impl Pairs {
    /// What an earlier run of this program has told, and left.
    pub(super) fn recall(&mut self, told: Told) {
        self.turn = self.turn.max(told.turn);
        self.stale.insert(told.turn, told.key.clone());
        let left = Told { over: true, ..told };
        self.told.insert(left.key.clone(), left);
    }

    /// Who is to be told from now on. What is up by what it was told itself stays so.
    pub(super) fn configure(&mut self, program: Option<Program>) {
        self.program = program;
        let keys: Vec<Key> = self.told.keys().cloned().collect();
        keys.iter().for_each(|key| self.review(key));
    }

    pub(super) fn program(&self) -> Option<&Program> {
        self.program.as_ref()
    }

    /// An IKE SA carries these now, and nothing else; those of one peer may be `share` together. `false`: they are too
    /// many, and not all are told of.
    pub(super) fn note(&mut self, ike_sa: u64, pairs: Vec<(Key, Variables)>, share: usize) -> bool {
        let before = self.carried.remove(&ike_sa).unwrap_or_default();
        for key in &before {
            self.of_all -= 1;
            if let Some(count) = self.of_peers.get_mut(&key.peer) {
                *count -= 1;
                if *count == 0 {
                    self.of_peers.remove(&key.peer);
                }
            }
        }
        let (mut now, mut fit) = (BTreeMap::new(), true);
        let mut order = Vec::new();
        for (key, variables) in pairs {
            if now.contains_key(&key) {
                continue;
            }
            let of_peer = self.of_peers.get(&key.peer).copied().unwrap_or(0);
            if self.of_all >= KEPT_MAX || of_peer >= share {
                fit = false;
                break;
            }
            self.of_all += 1;
            *self.of_peers.entry(key.peer.clone()).or_default() += 1;
            order.push(key.clone());
            now.insert(key, variables);
        }
        for key in before.iter().filter(|key| !now.contains_key(*key)) {
            self.end(ike_sa, key);
        }
        for key in &order {
            let up = self.up.entry(key.clone()).or_default();
            up.by.extend(now.remove(key).map(|now| (ike_sa, now)));
            self.review(key);
        }
        if !order.is_empty() {
            self.carried.insert(ike_sa, order);
        }
        fit
    }

    /// This IKE SA carries it no more.
    fn end(&mut self, ike_sa: u64, key: &Key) {
        let Some(up) = self.up.get_mut(key) else {
            return;
        };
        up.by.remove(&ike_sa);
        if up.by.is_empty() {
            if let Some(place) = up.waits {
                self.waiting.remove(&place);
            }
            self.up.remove(key);
        }
        self.review(key);
    }

    /// Whether this IKE SA carries something.
    pub(super) fn knows(&self, ike_sa: u64) -> bool {
        self.carried.contains_key(&ike_sa)
    }

    /// No IKE SA is left.
    pub(super) fn all_down(&mut self) {
        self.carried.clear();
        self.of_peers.clear();
        self.of_all = 0;
        self.up.clear();
        self.waiting.clear();
        for (key, told) in &mut self.told {
            told.over = true;
            self.stale.insert(told.turn, key.clone());
        }
    }

    /// Whether it need not be kept in mind.
    pub(super) fn is_empty(&self) -> bool {
        self.up.is_empty() && self.told.is_empty() && self.undoing.is_none()
    }

    /// What is to be told next, which from now on counts as told. What is down comes first, oldest first: what was set
    /// up by it is gone before the same is set up anew.
    pub(super) fn next(&mut self) -> Option<Telling> {
        while let Some((_, key)) = self.stale.pop_first() {
            let Some(mut told) = self.told.remove(&key) else {
                continue;
            };
            if let Some(program) = self.program.as_ref().filter(|p| p.is(&told.program)) {
                told.program = program.clone();
            }
            self.undoing = Some(told.clone());
            self.review(&key);
            let verb = Verb::Down;
            return Some(Telling { verb, told });
        }
        let program = self.program.clone()?;
        if self.told.len() >= PAIRS_MAX {
            return None;
        }
        let (_, key) = self.waiting.pop_first()?;
        let up = self.up.get_mut(&key)?;
        up.waits = None;
        let variables = up.now()?.clone();
        self.turn += 1;
        let told = Told {
            key: key.clone(),
            turn: self.turn,
            variables,
            over: false,
            program,
        };
        self.told.insert(key, told.clone());
        let verb = Verb::Up;
        Some(Telling { verb, told })
    }

    /// The hook has ended that was told last; the turn that it has undone.
    pub(super) fn undone(&mut self) -> Option<u64> {
        self.undoing.take().map(|told| told.turn)
    }

    /// What the next run of this program has to know if this one ends without a word.
    pub(super) fn told(&self) -> impl Iterator<Item = &Told> + Clone {
        self.told.values().chain(&self.undoing)
    }

    /// Something may be otherwise than it was with this one.
    fn review(&mut self, key: &Key) {
        let up = self.up.get_mut(key);
        if let Some(told) = self.told.get_mut(key) {
            told.over |= up.is_none();
            let now = up.as_ref().and_then(|up| up.now());
            let is_so = now.is_some_and(|now| now.says_the_same(&told.variables));
            let by_it = self.program.as_ref().is_some_and(|p| p.is(&told.program));
            if told.over || !is_so || !by_it {
                self.stale.insert(told.turn, key.clone());
            } else {
                self.stale.remove(&told.turn);
            }
        } else if let Some(up) = up.filter(|up| up.waits.is_none()) {
            self.place += 1;
            up.waits = Some(self.place);
            self.waiting.insert(self.place, key.clone());
        }
    }
}

#[cfg(test)]
mod tests;
