//! Names that go direct: the supervisor is asked to let their addresses out, before a device hears of them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::messages::LetOut;

/// Whoever has not said so by then has not done it.
const PATIENCE: Duration = Duration::from_secs(2);
/// What was let out so lately is not asked for again.
const LATELY: Duration = Duration::from_secs(60);
/// So much of that is remembered, a name's address each.
const REMEMBERED: usize = 8192;

type Done = oneshot::Sender<bool>;

/// What is asked for, and what was.
#[derive(Default)]
pub(super) struct Gate {
    /// Not asked for yet; as many as there are questions that wait.
    waiting: RefCell<Vec<(LetOut, Done)>>,
    /// Asked for, by its number: one at a time.
    asked: RefCell<Option<(u64, Vec<Done>)>>,
    last: Cell<u64>,
    something: Notify,
    let_out: RefCell<HashMap<(String, IpAddr), Instant>>,
}

impl Gate {
    /// Waits until these addresses go direct, as far as they may; `false`: that is not done.
    pub(super) async fn let_out(&self, wanted: LetOut) -> bool {
        if self.is_out(&wanted) {
            return true;
        }
        let (done, told) = oneshot::channel();
        self.waiting.borrow_mut().push((wanted.clone(), done));
        self.something.notify_one();
        let is_done = matches!(timeout(PATIENCE, told).await, Ok(Ok(true)));
        if is_done {
            self.remember(wanted);
        }
        is_done
    }

    fn is_out(&self, wanted: &LetOut) -> bool {
        let let_out = self.let_out.borrow();
        wanted.addresses.iter().all(|address| {
            let at = let_out.get(&(wanted.name.clone(), *address));
            at.is_some_and(|at| at.elapsed() < LATELY)
        })
    }

    fn remember(&self, wanted: LetOut) {
        let mut let_out = self.let_out.borrow_mut();
        if let_out.len() + wanted.addresses.len() > REMEMBERED {
            let_out.clear();
        }
        let now = Instant::now();
        for address in wanted.addresses {
            let_out.insert((wanted.name.clone(), address), now);
        }
    }

    /// The supervisor may have forgotten what it let out.
    pub(super) fn forget(&self) {
        self.let_out.borrow_mut().clear();
    }

    /// What the supervisor is to be asked next, when it has answered what it was asked before. May be given up at any
    /// time.
    pub(super) async fn next(&self) -> (u64, Vec<LetOut>) {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.something.notified().await;
        }
    }

    fn take(&self) -> Option<(u64, Vec<LetOut>)> {
        let mut asked = self.asked.borrow_mut();
        let mut waiting = self.waiting.borrow_mut();
        // Who has waited too long is answered already.
        waiting.retain(|(_, done)| !done.is_closed());
        if asked.is_some() || waiting.is_empty() {
            return None;
        }
        let most = waiting.len().min(LetOut::AT_ONCE);
        let (wanted, dones) = waiting.drain(..most).unzip();
        let id = self.last.get() + 1;
        self.last.set(id);
        *asked = Some((id, dones));
        Some((id, wanted))
    }

    /// What came of that.
    pub(super) fn done(&self, id: u64, is_done: bool) {
        let mut asked = self.asked.borrow_mut();
        if let Some((_, dones)) = asked.take_if(|(number, _)| *number == id) {
            for done in dones {
                let _ = done.send(is_done);
            }
            self.something.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(name: &str, last: u8) -> LetOut {
        LetOut {
            name: name.to_owned(),
            addresses: vec![IpAddr::from([198, 51, 100, last])],
        }
    }

    #[tokio::test]
    async fn one_message_at_a_time_holds_all_that_wait() {
        let gate = Gate::default();
        let supervisor = async {
            let (id, first) = gate.next().await;
            assert_eq!(first.len(), 1);
            assert!(gate.take().is_none(), "the first is not answered");
            gate.done(id + 1, false);
            assert!(gate.take().is_none(), "that was another");
            tokio::task::yield_now().await;
            gate.done(id, true);
            let (id, more) = gate.next().await;
            assert_eq!(more.len(), 2);
            gate.done(id, false);
        };
        let devices = async {
            let later = async {
                tokio::task::yield_now().await;
                tokio::join!(
                    gate.let_out(wanted("b.example", 2)),
                    gate.let_out(wanted("c.example", 3))
                )
            };
            tokio::join!(gate.let_out(wanted("a.example", 1)), later)
        };
        let (answers, ()) = tokio::join!(devices, supervisor);
        assert_eq!(answers, (true, (false, false)));
        // What is let out is known, by its name.
        assert!(gate.is_out(&wanted("a.example", 1)));
        assert!(!gate.is_out(&wanted("b.example", 2)) && !gate.is_out(&wanted("b.example", 1)));
        gate.forget();
        assert!(!gate.is_out(&wanted("a.example", 1)));
    }

    #[tokio::test]
    async fn a_supervisor_that_says_nothing_is_not_waited_for() {
        let gate = Gate::default();
        assert!(!gate.let_out(wanted("a.example", 1)).await);
        assert!(gate.take().is_none(), "nobody waits for it any more");
    }
}
