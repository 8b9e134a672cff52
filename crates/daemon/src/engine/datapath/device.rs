//! TUN devices, as the workers use them.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cygnet_esp::JoinConfig;
use cygnet_linux::Tun;

/// One queue of a TUN; a trait, so that tests need no device.
pub(super) trait Queue: Send + Sync {
    /// One packet with its virtio header.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;
    /// One packet with its virtio header, gathered.
    fn writev(&self, parts: &[IoSlice<'_>]) -> io::Result<usize>;
    /// To wait on.
    fn descriptor(&self) -> BorrowedFd<'_>;
}

impl Queue for Tun {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Tun::read(self, buffer)
    }

    fn writev(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        Tun::writev(self, parts)
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

/// A TUN with all its queues.
pub(super) struct Device {
    /// The connection whose packets it carries; all clients share that of the server.
    pub(super) connection: String,
    /// Interface name, for messages.
    pub(super) name: String,
    queues: Vec<Arc<dyn Queue>>,
    /// For writing, where that is not for those that are read.
    writer: Option<Arc<dyn Queue>>,
    join: JoinConfig,
    refuses_joined: AtomicBool,
}

impl Device {
    /// A device of at least one queue.
    pub(super) fn new(
        connection: String,
        name: String,
        queues: Vec<Arc<dyn Queue>>,
        join: JoinConfig,
    ) -> Self {
        Self {
            connection,
            name,
            queues,
            writer: None,
            join,
            refuses_joined: AtomicBool::new(false),
        }
    }

    /// The last queue is for writing alone, and all is written to it: so it is the kernel's hash of a
    /// flow that says which queue its packets come out of.
    pub(super) fn last_queue_writes(&mut self) {
        self.writer = self.queues.pop();
    }

    pub(super) fn queues(&self) -> &[Arc<dyn Queue>] {
        &self.queues
    }

    /// The queue the worker of that number writes to.
    pub(super) fn queue_for(&self, worker: usize) -> Option<&dyn Queue> {
        if let Some(writer) = &self.writer {
            return Some(writer.as_ref());
        }
        let place = worker.checked_rem(self.queues.len())?;
        self.queues.get(place).map(AsRef::as_ref)
    }

    /// What may be joined before it is written.
    pub(super) fn join(&self) -> JoinConfig {
        if self.refuses_joined.load(Ordering::Relaxed) {
            JoinConfig {
                tcp: false,
                udp: false,
            }
        } else {
            self.join
        }
    }

    /// The kernel refused a super-packet: from now on packets are written one by one.
    pub(super) fn refuse_joined(&self) {
        if !self.refuses_joined.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{}: this kernel refuses merged packets; they are written one by one, which is slower",
                self.name
            );
        }
    }
}
