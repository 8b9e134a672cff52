//! Addresses that peers lent us, by the IKE SA that brought them.
//!
//! Two IKE SAs of one connection may hold addresses for a while: one that is authenticated anew
//! takes the place of another before that ends, usually with the same address. So the end of an IKE
//! SA takes an address off the interface only when no other IKE SA has one.

use std::collections::BTreeMap;

use cygnet_ike::io::{IkeSaId, Lease};

/// What each connection has.
#[derive(Default)]
pub(super) struct Virtuals {
    by_connection: BTreeMap<String, BTreeMap<IkeSaId, Lease>>,
}

impl Virtuals {
    /// `ike_sa` brought `lease`, or gives its addresses back where that is empty. Returns what is in
    /// force from now on: that of the newest IKE SA; `None` when nothing changes by it.
    pub(super) fn set(&mut self, connection: &str, ike_sa: IkeSaId, lease: Lease) -> Option<Lease> {
        let leases = self.by_connection.entry(connection.to_owned()).or_default();
        let before = leases.values().next_back().cloned().unwrap_or_default();
        if lease.addresses.is_empty() {
            leases.remove(&ike_sa);
        } else {
            leases.insert(ike_sa, lease);
        }
        let now = leases.values().next_back().cloned().unwrap_or_default();
        if leases.is_empty() {
            self.by_connection.remove(connection);
        }
        (now != before).then_some(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(address: &str) -> Lease {
        Lease {
            addresses: vec![address.parse().unwrap()],
            ..Lease::default()
        }
    }

    #[test]
    fn an_address_stays_while_the_successor_holds_it() {
        let mut virtuals = Virtuals::default();
        let first = lease("10.9.0.2");
        assert_eq!(
            virtuals.set("home", IkeSaId(1), first.clone()),
            Some(first.clone())
        );
        assert_eq!(virtuals.set("home", IkeSaId(2), first.clone()), None);
        assert_eq!(virtuals.set("home", IkeSaId(1), Lease::default()), None);
        let gone = virtuals.set("home", IkeSaId(2), Lease::default());
        assert_eq!(gone, Some(Lease::default()));
        assert_eq!(virtuals.set("home", IkeSaId(2), Lease::default()), None);
    }

    #[test]
    fn the_newest_ike_sa_says_which_address_it_is() {
        let mut virtuals = Virtuals::default();
        virtuals.set("home", IkeSaId(1), lease("10.9.0.2"));
        let second = lease("10.9.0.7");
        assert_eq!(
            virtuals.set("home", IkeSaId(2), second.clone()),
            Some(second)
        );
        // Its successor failed: the first is still there.
        assert_eq!(
            virtuals.set("home", IkeSaId(2), Lease::default()),
            Some(lease("10.9.0.2"))
        );
    }

    #[test]
    fn connections_have_addresses_of_their_own() {
        let mut virtuals = Virtuals::default();
        virtuals.set("home", IkeSaId(1), lease("10.9.0.2"));
        virtuals.set("office", IkeSaId(2), lease("10.8.0.2"));
        assert_eq!(
            virtuals.set("home", IkeSaId(1), Lease::default()),
            Some(Lease::default())
        );
        assert_eq!(virtuals.set("office", IkeSaId(2), lease("10.8.0.2")), None);
    }
}
