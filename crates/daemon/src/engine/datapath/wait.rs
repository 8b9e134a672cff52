//! Waiting for descriptors.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use arrayvec::ArrayVec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Until something can be written, or the time is over.
pub(super) fn writable(descriptor: impl AsFd, ms: u32) {
    let mut fds = [PollFd::new(&descriptor, PollFlags::OUT)];
    // A signal or a lack of memory ends the wait early, which nobody minds.
    let _ = poll(&mut fds, Some(&timespec(ms)));
}

/// The queues that one worker reads; others add to it while the worker waits.
pub(super) struct Pool(OwnedFd);

/// A TUN queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// Its device's place in [`super::tables::Tables::outbound`].
    pub(super) place: usize,
    /// Its number among those of the device.
    pub(super) queue: usize,
}

impl Pool {
    /// How many are told of at once.
    pub(super) const EVENTS: usize = 32;

    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    pub(super) fn add(&self, key: Key, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let data = EventData::new_u64((key.place as u64) << 16 | key.queue as u64 & 0xffff);
        Ok(epoll::add(&self.0, descriptor, data, EventFlags::IN)?)
    }

    pub(super) fn remove(&self, descriptor: BorrowedFd<'_>) {
        // It was never there: that is what is wanted.
        let _ = epoll::delete(&self.0, descriptor);
    }

    /// Puts into `ready` the queues that can be read, or are broken; none when the time is over.
    pub(super) fn wait(
        &self,
        ready: &mut ArrayVec<Key, { Self::EVENTS }>,
        ms: u32,
    ) -> io::Result<()> {
        ready.clear();
        let none = Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        };
        let mut events = [none; Self::EVENTS];
        let count = match epoll::wait(&self.0, &mut events, Some(&timespec(ms))) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        ready.extend(events.iter().take(count).map(|event| {
            let data = event.data.u64();
            Key {
                place: usize::try_from(data >> 16).unwrap_or(usize::MAX),
                queue: (data & 0xffff) as usize,
            }
        }));
        Ok(())
    }
}

fn timespec(ms: u32) -> Timespec {
    Timespec {
        tv_sec: i64::from(ms / 1000),
        tv_nsec: i64::from(ms % 1000) * 1_000_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn what_can_be_read_is_told_by_its_key() {
        let pool = Pool::new().unwrap();
        let pairs: Vec<_> = (0..3).map(|_| UnixDatagram::pair().unwrap()).collect();
        for (place, (ours, _)) in pairs.iter().enumerate() {
            pool.add(Key { place, queue: 7 }, ours.as_fd()).unwrap();
        }
        let mut ready = ArrayVec::new();
        pool.wait(&mut ready, 0).unwrap();
        assert!(ready.is_empty());
        pairs[2].1.send(b"x").unwrap();
        pool.wait(&mut ready, 1000).unwrap();
        assert_eq!(ready[..], [Key { place: 2, queue: 7 }]);
        pool.remove(pairs[2].0.as_fd());
        pool.wait(&mut ready, 0).unwrap();
        assert!(ready.is_empty());
    }
}
