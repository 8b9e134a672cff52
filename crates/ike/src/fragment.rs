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
