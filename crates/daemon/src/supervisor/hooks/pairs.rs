//! Which pairs of traffic selectors of a tunnel are up, and which of them its hook was told of.
//!
//! What is to be told is the difference of the two, so nothing is queued: while a hook is slow, what came and went
//! again is left out, and whatever it was told to do it is told to undo, once.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::environment::{Variables, Verb};
use super::process::Program;
use crate::ipc::Selector;

/// Pairs of a tunnel that are told of: more than a server of this kind has clients.
pub(super) const PAIRS_MAX: usize = 4096;

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
    /// They are told of anew in this order.
    turn: u64,
    variables: Variables,
    /// It has been down since; a pair that is up under this key is another one.
    over: bool,
    /// Who was told; `None`: a run of this program that left without a word.
    #[serde(skip)]
    program: Option<Arc<Program>>,
}

/// What is to be told next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Telling {
    pub(super) verb: Verb,
    pub(super) variables: Variables,
    pub(super) program: Arc<Program>,
}

/// Of one tunnel.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// What each IKE SA carries.
    up: BTreeMap<u64, Vec<(Key, Variables)>>,
    told: BTreeMap<Key, Told>,
    /// It is being told that this one is down.
    undoing: Option<Told>,
    turn: u64,
}

impl Pairs {
    /// What an earlier run of this program has told, and left.
    pub(super) fn recall(&mut self, told: Told) {
        self.turn = self.turn.max(told.turn);
        let left = Told { over: true, ..told };
        self.told.insert(left.key.clone(), left);
    }

    /// An IKE SA carries these now, and nothing else; `false`: they are too many, and not all are told of.
    pub(super) fn note(&mut self, ike_sa: u64, mut pairs: Vec<(Key, Variables)>) -> bool {
        self.up.remove(&ike_sa);
        let others: usize = self.up.values().map(Vec::len).sum();
        let room = PAIRS_MAX.saturating_sub(others);
        let fits = pairs.len() <= room;
        pairs.truncate(room);
        if !pairs.is_empty() {
            self.up.insert(ike_sa, pairs);
        }
        let up = present(&self.up);
        for (key, told) in &mut self.told {
            told.over |= !up.contains_key(key);
        }
        fits
    }

    /// Whether this IKE SA carries something.
    pub(super) fn knows(&self, ike_sa: u64) -> bool {
        self.up.contains_key(&ike_sa)
    }

    /// No IKE SA is left.
    pub(super) fn all_down(&mut self) {
        self.up.clear();
        self.told.values_mut().for_each(|told| told.over = true);
    }

    /// Whether it need not be kept in mind.
    pub(super) fn is_empty(&self) -> bool {
        self.up.is_empty() && self.told.is_empty() && self.undoing.is_none()
    }

    /// What is to be told next, which from now on counts as told; `program` is the hook as it is configured. What is
    /// down comes first, oldest first: what was set up by it is gone before the same is set up anew.
    pub(super) fn next(&mut self, program: Option<&Arc<Program>>) -> Option<Telling> {
        while let Some(mut told) = self.stale(program).and_then(|key| self.told.remove(&key)) {
            // Else nobody is left to be told.
            if let Some(by) = told.program.take().or_else(|| program.cloned()) {
                let variables = told.variables.clone();
                self.undoing = Some(told);
                return Some(Telling {
                    verb: Verb::Down,
                    variables,
                    program: by,
                });
            }
        }
        let program = Arc::clone(program?);
        let mut new = self.up.values().flatten().map(|(key, _)| key);
        let key = new.find(|key| !self.told.contains_key(*key))?.clone();
        let variables = present(&self.up).get(&key).map(|now| (*now).clone())?;
        self.turn += 1;
        let told = Told {
            key: key.clone(),
            turn: self.turn,
            variables: variables.clone(),
            over: false,
            program: Some(Arc::clone(&program)),
        };
        self.told.insert(key, told);
        Some(Telling {
            verb: Verb::Up,
            variables,
            program,
        })
    }

    /// The hook has ended that was told last.
    pub(super) fn undone(&mut self) {
        self.undoing = None;
    }

    /// What the next run of this program has to know if this one ends without a word.
    pub(super) fn told(&self) -> impl Iterator<Item = &Told> {
        self.told.values().chain(&self.undoing)
    }

    /// What was told and is so no more, the oldest of it.
    fn stale(&self, program: Option<&Arc<Program>>) -> Option<Key> {
        let up = present(&self.up);
        let is_stale = |told: &&Told| {
            let same = |now: &&Variables| now.says_the_same(&told.variables);
            told.over || told.program.as_ref() != program || !up.get(&told.key).is_some_and(same)
        };
        let oldest = self
            .told
            .values()
            .filter(is_stale)
            .min_by_key(|told| told.turn);
        oldest.map(|told| told.key.clone())
    }
}

/// What is up. Of two IKE SAs that carry the same for a while, the newer one has the addresses.
fn present(up: &BTreeMap<u64, Vec<(Key, Variables)>>) -> BTreeMap<&Key, &Variables> {
    let all = up.values().flatten();
    all.map(|(key, variables)| (key, variables)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cygnet_config::Hook;

    use super::super::environment::Place;
    use super::super::environment::tests::{carried, selector};
    use super::*;

    fn program(path: &str) -> Arc<Program> {
        Arc::new(Program {
            hook: Hook {
                program: path.to_owned(),
                arguments: Vec::new(),
                timeout: Duration::from_secs(10),
                user: None,
            },
            user: None,
        })
    }

    /// A pair with this network of the peer's, where the peer is at this address.
    fn pair(network: &str, peer: &str) -> (Key, Variables) {
        let mut carried = carried();
        carried.remote.set_ip(peer.parse().unwrap());
        let any = (0, u16::MAX);
        let local = selector("10.1.0.0", "10.1.0.255", 0, any);
        let remote = selector(network, network, 0, any);
        let place = Place {
            tunnel: "home",
            child: "net",
            connection: "home",
            interface: "cyg-home",
            host_access: false,
        };
        let variables = Variables::new(place, &carried, (&local, &remote), (1, 1));
        let key = Key {
            child: "net".to_owned(),
            peer: "peer".to_owned(),
            local,
            remote,
        };
        (key, variables)
    }

    /// All that is to be told: `up 10.2.0.1 at 203.0.113.5`.
    fn all(pairs: &mut Pairs, program: Option<&Arc<Program>>) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(telling) = pairs.next(program) {
            let value = |name: &str| {
                let mut all = telling.variables.environment(telling.verb);
                all.find(|(known, _)| *known == name).unwrap().1
            };
            let (client, peer) = (value("PLUTO_PEER_CLIENT"), value("PLUTO_PEER"));
            let verb = telling.verb.name();
            told.push(format!(
                "{verb} {} at {peer}",
                client.trim_end_matches("/32")
            ));
            pairs.undone();
        }
        told
    }

    const PEER: &str = "203.0.113.5";

    #[test]
    fn up_and_down_are_told_once_in_the_order_of_the_selectors() {
        let (mut pairs, hook) = (Pairs::default(), program("/hook"));
        assert!(pairs.note(1, vec![pair("10.2.0.9", PEER), pair("10.2.0.1", PEER)]));
        let up = ["up 10.2.0.9 at 203.0.113.5", "up 10.2.0.1 at 203.0.113.5"];
        assert_eq!(all(&mut pairs, Some(&hook)), up);
        assert!(all(&mut pairs, Some(&hook)).is_empty());
        pairs.note(1, Vec::new());
        let down = [
            "down 10.2.0.9 at 203.0.113.5",
            "down 10.2.0.1 at 203.0.113.5",
        ];
        assert_eq!(all(&mut pairs, Some(&hook)), down);
        assert!(pairs.is_empty());
    }

    #[test]
    fn new_keys_tell_nothing_and_another_address_both() {
        let (mut pairs, hook) = (Pairs::default(), program("/hook"));
        pairs.note(1, vec![pair("10.2.0.1", PEER)]);
        all(&mut pairs, Some(&hook));
        // The IKE SA is another one, which was there before the old one went.
        pairs.note(2, vec![pair("10.2.0.1", PEER)]);
        pairs.note(1, Vec::new());
        assert!(all(&mut pairs, Some(&hook)).is_empty());
        pairs.note(2, vec![pair("10.2.0.1", "203.0.113.6")]);
        let moved = ["down 10.2.0.1 at 203.0.113.5", "up 10.2.0.1 at 203.0.113.6"];
        assert_eq!(all(&mut pairs, Some(&hook)), moved);
        // Of two the newer one counts, until it goes.
        pairs.note(3, vec![pair("10.2.0.1", "203.0.113.7")]);
        let moved = ["down 10.2.0.1 at 203.0.113.6", "up 10.2.0.1 at 203.0.113.7"];
        assert_eq!(all(&mut pairs, Some(&hook)), moved);
        pairs.note(3, Vec::new());
        let back = ["down 10.2.0.1 at 203.0.113.7", "up 10.2.0.1 at 203.0.113.6"];
        assert_eq!(all(&mut pairs, Some(&hook)), back);
    }

    #[test]
    fn what_went_and_came_while_a_hook_was_slow_is_told_in_order_and_within_bounds() {
        let (mut pairs, hook) = (Pairs::default(), program("/hook"));
        pairs.note(1, vec![pair("10.2.0.1", PEER)]);
        let first = pairs.next(Some(&hook));
        assert_eq!(first.map(|telling| telling.verb), Some(Verb::Up));
        for ike_sa in 2..1000 {
            pairs.all_down();
            pairs.note(ike_sa, vec![pair("10.2.0.1", PEER)]);
        }
        pairs.note(2000, vec![pair("10.2.0.2", PEER)]);
        pairs.note(2000, Vec::new());
        pairs.undone();
        let told = ["down 10.2.0.1 at 203.0.113.5", "up 10.2.0.1 at 203.0.113.5"];
        assert_eq!(all(&mut pairs, Some(&hook)), told);
    }

    #[test]
    fn who_was_told_of_the_beginning_is_told_of_the_end() {
        let (mut pairs, first, second) = (Pairs::default(), program("/first"), program("/second"));
        pairs.note(1, vec![pair("10.2.0.1", PEER)]);
        all(&mut pairs, Some(&first));
        let mut told = Vec::new();
        for hook in [Some(&second), None] {
            while let Some(telling) = pairs.next(hook) {
                told.push((telling.verb.name(), telling.program.hook.program.clone()));
                pairs.undone();
            }
        }
        let expected = [("down", "/first"), ("up", "/second"), ("down", "/second")];
        assert_eq!(told, expected.map(|(verb, path)| (verb, path.to_owned())));
        assert!(!pairs.is_empty(), "the tunnel is up");
    }

    #[test]
    fn what_a_run_that_was_killed_has_told_is_undone_by_the_next() {
        let (mut pairs, hook) = (Pairs::default(), program("/hook"));
        pairs.note(1, vec![pair("10.2.0.1", PEER), pair("10.2.0.2", PEER)]);
        all(&mut pairs, Some(&hook));
        pairs.note(1, vec![pair("10.2.0.1", PEER)]);
        // Killed while the hook undoes the second.
        assert!(pairs.next(Some(&hook)).is_some());
        let left = serde_json::to_vec(&pairs.told().collect::<Vec<_>>()).unwrap();
        let left: Vec<Told> = serde_json::from_slice(&left).unwrap();
        let mut pairs = Pairs::default();
        left.iter().cloned().for_each(|told| pairs.recall(told));
        pairs.note(1, vec![pair("10.2.0.1", PEER)]);
        let told = [
            "down 10.2.0.1 at 203.0.113.5",
            "down 10.2.0.2 at 203.0.113.5",
            "up 10.2.0.1 at 203.0.113.5",
        ];
        assert_eq!(all(&mut pairs, Some(&hook)), told);
        // Without a hook there is nobody to tell, and nothing to keep in mind.
        let mut pairs = Pairs::default();
        left.into_iter().for_each(|told| pairs.recall(told));
        assert_eq!(pairs.next(None), None);
        assert!(pairs.is_empty());
    }

    #[test]
    fn an_engine_that_was_taken_over_does_not_fill_the_memory() {
        let mut pairs = Pairs::default();
        let (key, variables) = pair("10.2.0.1", PEER);
        let many = |count: u16| {
            let each = |port| {
                let mut key = key.clone();
                key.remote.ports = (port, port);
                (key, variables.clone())
            };
            (0..count).map(each).collect::<Vec<_>>()
        };
        assert!(pairs.note(1, many(4000)));
        assert!(!pairs.note(2, many(4000)));
        assert_eq!(pairs.up.values().map(Vec::len).sum::<usize>(), PAIRS_MAX);
        assert!(!pairs.note(3, many(1)));
        assert!(pairs.note(1, Vec::new()) && pairs.note(3, many(1)));
    }
}
