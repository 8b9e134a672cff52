//! How much may go on at once, in all and for one client.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

/// Counts what goes on.
#[derive(Debug)]
pub(super) struct Bounds {
    in_all: usize,
    of_one: usize,
    /// By client; none that has nothing going on.
    now: RefCell<HashMap<IpAddr, usize>>,
    all: Cell<usize>,
}

/// One of what goes on, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    bounds: Rc<Bounds>,
    client: IpAddr,
}

impl Bounds {
    pub(super) fn new(in_all: usize, of_one: usize) -> Rc<Self> {
        Rc::new(Self {
            in_all,
            of_one,
            now: RefCell::default(),
            all: Cell::default(),
        })
    }

    /// A place for one more, if there is one.
    pub(super) fn take(self: &Rc<Self>, client: IpAddr) -> Option<Place> {
        let mut now = self.now.borrow_mut();
        let has = now.get(&client).copied().unwrap_or(0);
        if self.all.get() >= self.in_all || has >= self.of_one {
            return None;
        }
        now.insert(client, has + 1);
        self.all.set(self.all.get() + 1);
        Some(Place {
            bounds: Rc::clone(self),
            client,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut now = self.bounds.now.borrow_mut();
        match now.get_mut(&self.client) {
            Some(has) if *has > 1 => *has -= 1,
            _ => {
                now.remove(&self.client);
            }
        }
        self.bounds.all.set(self.bounds.all.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_leaves_room_for_others_and_all_together_end_somewhere() {
        let client = |n: u8| IpAddr::from([192, 168, 1, n]);
        let bounds = Bounds::new(5, 2);
        let mut places: Vec<Place> = (1..=2).filter_map(|_| bounds.take(client(1))).collect();
        assert_eq!(places.len(), 2);
        assert!(bounds.take(client(1)).is_none(), "it has two");
        places.extend((2..=4).filter_map(|n| bounds.take(client(n))));
        assert_eq!(places.len(), 5);
        assert!(bounds.take(client(9)).is_none(), "all are taken");
        drop(places.remove(0));
        assert!(bounds.take(client(1)).is_some());
        places.clear();
        assert!(bounds.now.borrow().is_empty(), "nobody is remembered");
        assert_eq!(bounds.all.get(), 0);
    }
}
