//! Reassembly of fragmented messages (RFC 7383 §2.6), within bounds.

use std::collections::BTreeMap;
use std::time::Duration;

use cygnet_wire::header::{IkeHeader, MessageId};
use cygnet_wire::sk::Fragment;

use crate::protect::{Authenticated, Content, MAX_FRAGMENTS, Part};
use crate::time::Instant;

/// Most octets of one message inside its fragments.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// How long the parts of a message wait for the others.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// The parts of one message, of the requests or of the responses of a peer.
///
/// Only authenticated parts come in here, so what a stranger sends displaces nothing.
#[derive(Default)]
pub struct Reassembly {
    partial: Option<Partial>,
}

struct Partial {
    id: MessageId,
    total: u16,
    parts: BTreeMap<u16, Authenticated<Part>>,
    octets: usize,
    deadline: Instant,
}

impl Reassembly {
    /// Whether a fragment is worth being decrypted: it is neither here already, nor of an older
    /// fragmentation of the same message, nor of a message longer than anyone's.
    pub fn wants(&self, header: &IkeHeader, fragment: Fragment) -> bool {
        fragment.total <= MAX_FRAGMENTS
            && match &self.partial {
                Some(partial) if partial.id == header.message_id => {
                    fragment.total > partial.total
                        || (fragment.total == partial.total
                            && !partial.parts.contains_key(&fragment.number))
                }
                _ => true,
            }
    }

    /// Keeps a part; returns the message when it was the last that was missing.
    ///
    /// A message with another id than the parts kept so far takes their place: the window has
    /// decided that it is the one to be expected.
    pub fn handle_part(
        &mut self,
        now: Instant,
        part: Authenticated<Part>,
    ) -> Option<Authenticated<Content>> {
        let Fragment { number, total } = part.fragment;
        if !self.wants(&part.header, part.fragment) {
            return None;
        }
        let id = part.header.message_id;
        // RFC 7383 §2.6: a larger Total Fragments is a new fragmentation of the same message, for
        // a smaller path; what was kept of the old one goes.
        self.partial
            .take_if(|partial| partial.id != id || partial.total != total);
        let partial = self.partial.get_or_insert_with(|| Partial {
            id,
            total,
            parts: BTreeMap::new(),
            octets: 0,
            deadline: now + TIMEOUT,
        });
        partial.octets += part.plaintext_len();
        if partial.octets > MAX_MESSAGE {
            self.partial = None;
            return None;
        }
        partial.parts.insert(number, part);
        if partial.parts.len() < usize::from(total) {
            return None;
        }
        let parts = self.partial.take()?.parts;
        Authenticated::join(parts.into_values())
    }

    /// When the parts kept are to be forgotten.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.partial.as_ref().map(|partial| partial.deadline)
    }

    /// Forgets parts that have waited too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.partial.take_if(|partial| partial.deadline <= now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protect::tests::{again, chain, gcm, header, part};
    use crate::protect::{max_datagram, seal};
    use crate::test_random::TestRandom;
    use cygnet_wire::payload::Chain;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_boot(Duration::from_secs(seconds))
    }

    /// `chain` in fragments of `most` octets, opened.
    fn parts(id: u32, chain: &Chain, most: usize) -> Vec<Authenticated<Part>> {
        let (mut sealer, opener) = gcm();
        let mut random = TestRandom::new(u64::from(id));
        seal(&mut sealer, &mut random, header(id), chain, Some(most))
            .unwrap()
            .iter()
            .map(|datagram| part(&opener, datagram))
            .collect()
    }

    fn handle_all(
        reassembly: &mut Reassembly,
        parts: impl IntoIterator<Item = Authenticated<Part>>,
    ) -> Vec<Authenticated<Content>> {
        parts
            .into_iter()
            .filter_map(|part| reassembly.handle_part(at(0), part))
            .collect()
    }

    #[test]
    fn a_message_is_whole_with_its_last_part_whatever_the_order() {
        let chain = chain(3000);
        let mut reassembly = Reassembly::default();
        let mut backwards = parts(1, &chain, 600);
        assert!(backwards.len() > 4);
        backwards.reverse();
        let first = backwards.pop().unwrap();
        assert!(handle_all(&mut reassembly, backwards).is_empty());
        assert_eq!(reassembly.poll_timeout(), Some(at(30)));
        let whole = reassembly.handle_part(at(1), first).unwrap();
        assert_eq!(again(&whole), chain);
        assert_eq!(whole.header, header(1));
        assert_eq!(reassembly.poll_timeout(), None);
    }

    #[test]
    fn duplicates_are_not_wanted() {
        let chain = chain(1500);
        let mut reassembly = Reassembly::default();
        let mut fragments = parts(1, &chain, 600).into_iter();
        let first = fragments.next().unwrap();
        let (head, fragment) = (first.header, first.fragment);
        assert!(reassembly.wants(&head, fragment));
        assert!(reassembly.handle_part(at(0), first).is_none());
        assert!(!reassembly.wants(&head, fragment));
        let twice = parts(1, &chain, 600).remove(0);
        assert!(reassembly.handle_part(at(0), twice).is_none());
        let whole = handle_all(&mut reassembly, fragments);
        assert_eq!(again(&whole[0]), chain);
    }

    /// RFC 7383 §2.6: a fragmentation into more parts takes the place of an earlier one, one into
    /// fewer does not.
    #[test]
    fn a_finer_fragmentation_starts_over() {
        let chain = chain(3000);
        let mut reassembly = Reassembly::default();
        let mut coarse = parts(1, &chain, 1200);
        let mut fine = parts(1, &chain, 600);
        assert!(coarse.len() < fine.len());
        let late_coarse = coarse.pop().unwrap();
        assert!(handle_all(&mut reassembly, coarse).is_empty());
        let last_fine = fine.pop().unwrap();
        assert!(handle_all(&mut reassembly, fine).is_empty());
        assert!(!reassembly.wants(&late_coarse.header, late_coarse.fragment));
        assert!(reassembly.handle_part(at(0), late_coarse).is_none());
        let whole = reassembly.handle_part(at(0), last_fine).unwrap();
        assert_eq!(again(&whole), chain);
    }

    #[test]
    fn another_message_takes_the_place_of_an_unfinished_one() {
        let (old, new) = (chain(1500), chain(1600));
        let mut reassembly = Reassembly::default();
        let mut unfinished = parts(1, &old, 600);
        unfinished.pop();
        assert!(handle_all(&mut reassembly, unfinished).is_empty());
        let whole = handle_all(&mut reassembly, parts(2, &new, 600));
        assert_eq!(again(&whole[0]), new);
    }

    #[test]
    fn parts_do_not_wait_for_ever() {
        let mut reassembly = Reassembly::default();
        let mut fragments = parts(1, &chain(1500), 600);
        let last = fragments.pop().unwrap();
        assert!(handle_all(&mut reassembly, fragments).is_empty());
        reassembly.handle_timeout(at(29));
        assert!(reassembly.poll_timeout().is_some());
        reassembly.handle_timeout(at(30));
        assert_eq!(reassembly.poll_timeout(), None);
        assert!(reassembly.handle_part(at(31), last).is_none());
    }

    #[test]
    fn too_many_parts_are_not_wanted() {
        let reassembly = Reassembly::default();
        let fragment = |total| Fragment { number: 1, total };
        assert!(reassembly.wants(&header(1), fragment(MAX_FRAGMENTS)));
        assert!(!reassembly.wants(&header(1), fragment(MAX_FRAGMENTS + 1)));
        assert!(!reassembly.wants(&header(1), fragment(u16::MAX)));
    }

    #[test]
    fn a_message_that_grows_beyond_all_bounds_is_forgotten() {
        let mut reassembly = Reassembly::default();
        let whole = handle_all(&mut reassembly, parts(1, &chain(66_000), 1500));
        assert!(whole.is_empty());
    }

    proptest! {
        #[test]
        fn any_order_with_repeats_gives_the_message_once(
            len in 1300_usize..12_000,
            order in proptest::collection::vec(any::<prop::sample::Index>(), 0..60),
        ) {
            let chain = chain(len);
            let path = crate::io::Path {
                transport: crate::io::Transport::Udp,
                local: ([192, 0, 2, 1], 500).into(),
                remote: ([192, 0, 2, 2], 500).into(),
                interface: 0,
            };
            let most = max_datagram(&path, 1280).unwrap();
            let count = parts(1, &chain, most).len();
            // Some parts at random and repeatedly, then those that have not come yet.
            let mut come: Vec<usize> = order.iter().map(|i| i.index(count)).collect();
            come.extend(0..count);
            let mut reassembly = Reassembly::default();
            for number in come {
                let part = parts(1, &chain, most).remove(number);
                if let Some(whole) = reassembly.handle_part(at(0), part) {
                    prop_assert_eq!(again(&whole), chain);
                    return Ok(());
                }
            }
            prop_assert!(false, "never whole");
        }
    }
}
