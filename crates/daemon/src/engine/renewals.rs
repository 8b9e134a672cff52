//! How often SAs took the place of others, by connection.

use std::collections::BTreeMap;

use cygnet_ike::event::{Event, EventKind};

/// Since the engine started. Connections that are gone from the configuration stay.
#[derive(Default)]
pub(super) struct Renewals(BTreeMap<String, Renewed>);

/// Of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Renewed {
    /// IKE SAs, by rekeying or reauthentication.
    pub(super) ike_sas: u64,
    /// Child SAs.
    pub(super) child_sas: u64,
}

impl Renewals {
    pub(super) fn note(&mut self, connection: &str, event: &Event) {
        let (ike_sas, child_sas) = match event.kind {
            EventKind::IkeUp {
                replaces: Some(_), ..
            } => (1, 0),
            EventKind::ChildUp {
                replaces: Some(_), ..
            } => (0, 1),
            _ => return,
        };
        let of = self.0.entry(connection.to_owned()).or_default();
        of.ike_sas += ike_sas;
        of.child_sas += child_sas;
    }

    pub(super) fn of(&self, connection: &str) -> Renewed {
        self.0.get(connection).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use cygnet_ike::io::{ChildSaId, IkeSaId};

    use super::*;

    #[test]
    fn what_takes_the_place_of_another_is_counted() {
        let mut renewals = Renewals::default();
        let mut note = |kind| {
            let event = Event {
                connection: Some("home".to_owned()),
                ike_sa: Some(IkeSaId(1)),
                path: None,
                peer: None,
                kind,
            };
            renewals.note("home", &event);
        };
        let ike_up = |replaces| EventKind::IkeUp {
            suite: String::new(),
            nat_local: false,
            nat_remote: false,
            replaces,
        };
        let child_up = |replaces| EventKind::ChildUp {
            child: ChildSaId(2),
            name: "net".to_owned(),
            suite: String::new(),
            selectors: String::new(),
            replaces,
            server: None,
        };
        note(ike_up(None));
        note(child_up(None));
        note(child_up(Some(ChildSaId(1))));
        note(ike_up(Some(IkeSaId(1))));
        note(child_up(Some(ChildSaId(2))));
        let expected = Renewed {
            ike_sas: 1,
            child_sas: 2,
        };
        assert_eq!(renewals.of("home"), expected);
        assert_eq!(renewals.of("office"), Renewed::default());
    }
}
