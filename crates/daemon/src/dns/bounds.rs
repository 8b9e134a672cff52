//! How much may go on at once, in all and for one client.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

/// Who has no more than this going on has few.
const FEW: usize = 4;

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

    /// A place for one more, if there is one. The last quarter is for those who have few: a device may have several
    /// addresses, and with all that each may have they leave room for others.
    pub(super) fn take(self: &Rc<Self>, client: IpAddr) -> Option<Place> {
        let mut now = self.now.borrow_mut();
        let has = now.get(&client).copied().unwrap_or(0);
        let most = match has < FEW {
            true => self.in_all,
            false => self.in_all - self.in_all / 4,
        };
        if self.all.get() >= most || has >= self.of_one {
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

    #[test]
    fn a_device_of_several_addresses_leaves_room_for_others() {
        let bounds = Bounds::new(512, 128);
        let mut places = Vec::new();
        for n in 1..=8 {
            while let Some(place) = bounds.take(IpAddr::from([192, 168, 1, n])) {
                places.push(place);
            }
        }
        let other = IpAddr::from([192, 168, 1, 100]);
        let its: Vec<Place> = (0..512).map_while(|_| bounds.take(other)).collect();
        assert_eq!((places.len(), its.len()), (384 + 5 * FEW, FEW));
    }
}
