//! What an established IKE SA has to do, and what it is doing: one request at a time.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cygnet_crypto::suite::Group;
use cygnet_wire::payload::Payload;
use cygnet_wire::ts::TrafficSelector;

use crate::event::Reason;
use crate::io::ChildSaId;
use crate::pmtu::Probe;
use crate::policy::ChildPolicy;
use crate::sa::create_child::CreateChild;
use crate::sa::mobike::PathExchange;
use crate::sa::rekey_ike::RekeyIke;
use crate::sa::serve_child::ServeChild;
use crate::time::Instant;

/// Most tasks that wait; what comes beyond is dropped, and wanted again by whoever wanted it.
const MAX_TASKS: usize = 1024;

/// RFC 7296 §2.25: a peer that answers TEMPORARY_FAILURE for longer than this has lost its way.
pub(crate) const TEMPORARY: Duration = Duration::from_secs(180);

/// Something to be asked of the peer.
pub(crate) enum Task {
    /// Make a Child SA of this policy.
    CreateChild {
        policy: Arc<ChildPolicy>,
        /// The packet that wants it, our side first (RFC 7296 §2.9).
        packet: Option<(TrafficSelector, TrafficSelector)>,
        tries: Tries,
    },
    /// Replace a Child SA by a new one.
    RekeyChild { child: ChildSaId, tries: Tries },
    /// Delete Child SAs of ours, and others by the SPI the peer knows from us alone.
    DeleteChildren {
        children: BTreeSet<ChildSaId>,
        spis: Vec<u32>,
        reason: Reason,
    },
    /// Replace this IKE SA by a new one.
    RekeyIke { tries: Tries },
    /// End this IKE SA.
    DeleteIke { reason: Reason },
    /// Say something, or nothing, and see that the peer lives.
    Inform { payloads: Vec<Payload<'static>> },
}

/// What has been tried of one task.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tries {
    /// The peer asked for this group (INVALID_KE_PAYLOAD).
    pub(crate) group: Option<Group>,
    /// Failures so far.
    pub(crate) failures: u32,
    /// When the peer first answered TEMPORARY_FAILURE.
    pub(crate) temporary_since: Option<Instant>,
}

/// The request in flight, its preparation, or what its response demands before the next.
pub(crate) enum Exchange {
    /// CREATE_CHILD_SA for a Child SA, new or rekeyed.
    CreateChild(Box<CreateChild>),
    /// CREATE_CHILD_SA for this IKE SA.
    RekeyIke(Box<RekeyIke>),
    /// INFORMATIONAL with DELETE of Child SAs.
    DeleteChildren {
        children: BTreeSet<ChildSaId>,
        reason: Reason,
    },
    /// INFORMATIONAL with DELETE of this IKE SA.
    DeleteIke { reason: Reason },
    /// INFORMATIONAL about the addresses of the two ends.
    Path(PathExchange),
    /// INFORMATIONAL that fills a packet.
    SizeProbe(Probe),
    /// INFORMATIONAL with something else, or nothing.
    Inform,
}

/// A request of the peer that waits for an answer of the data path.
pub(crate) type Serving = Box<ServeChild>;

/// Tasks in the order they are to be done.
#[derive(Default)]
pub(crate) struct Tasks {
    queue: VecDeque<(Instant, Task)>,
}

impl Tasks {
    /// Not before `at`.
    pub(crate) fn push_at(&mut self, at: Instant, task: Task) {
        if self.queue.len() < MAX_TASKS {
            self.queue.push_back((at, task));
        }
    }

    /// The next that is due; an end of the IKE SA before all others.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Task> {
        let due = |(at, _): &(Instant, Task)| *at <= now;
        let end = |(_, task): &(Instant, Task)| matches!(task, Task::DeleteIke { .. });
        let index = self
            .queue
            .iter()
            .position(end)
            .or_else(|| self.queue.iter().position(due))?;
        self.queue.remove(index).map(|(_, task)| task)
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.queue.iter().map(|(at, _)| *at).min()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Task> {
        self.queue.iter().map(|(_, task)| task)
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&Task) -> bool) {
        self.queue.retain(|(_, task)| keep(task));
    }

    /// Nothing is left to be done.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
    }

    /// The end that was to come, for the IKE SA that inherits it.
    pub(crate) fn take_end(&mut self) -> Option<Reason> {
        let mut end = None;
        self.queue.retain(|(_, task)| match task {
            Task::DeleteIke { reason } => {
                end.get_or_insert_with(|| reason.clone());
                false
            }
            _ => true,
        });
        end
    }

    /// Children's tasks, for the IKE SA that inherits them; what concerns this IKE SA stays.
    pub(crate) fn take_of_children(&mut self) -> Tasks {
        let (of_children, of_ike) = self.queue.drain(..).partition(|(_, task)| {
            matches!(
                task,
                Task::CreateChild { .. } | Task::RekeyChild { .. } | Task::DeleteChildren { .. }
            )
        });
        self.queue = of_ike;
        Tasks { queue: of_children }
    }

    pub(crate) fn append(&mut self, mut other: Tasks) {
        self.queue.append(&mut other.queue);
    }
}
