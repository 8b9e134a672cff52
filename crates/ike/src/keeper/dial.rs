//! Where a call stands.

use std::collections::VecDeque;

use super::moved::Look;
use crate::io::{AskId, IkeSaId, Path};
use crate::time::Instant;

/// The call.
pub(crate) enum Dial {
    Idle,
    Waiting(Instant),
    Resolving {
        ask: AskId,
        server: usize,
        /// When the next is called whatever comes of this.
        until: Option<Instant>,
    },
    Dialing {
        sa: IkeSaId,
        turn: Turn,
        until: Option<Instant>,
        look: Look,
    },
}

/// The turn of one server in a round of calls.
pub(crate) struct Turn {
    pub(super) server: usize,
    /// How many addresses it has.
    pub(super) parts: u32,
    /// Those that have not been called.
    pub(super) rest: VecDeque<Path>,
    /// When it is over if others wait.
    pub(super) ends: Instant,
}

impl Turn {
    /// By these paths.
    pub(super) fn new(server: usize, paths: Vec<Path>, ends: Instant) -> Self {
        Self {
            server,
            parts: u32::try_from(paths.len()).unwrap_or(u32::MAX),
            rest: paths.into(),
            ends,
        }
    }
}
