//! What hooks are told of: IKE SAs as they are once something has happened to them.

use std::collections::BTreeSet;

use cygnet_config::Config;
use cygnet_ike::event::{Event, EventKind};
use cygnet_ike::identity;
use cygnet_ike::io::IkeSaId;
use cygnet_ike::status::{ChildSaStatus, IkeSaStatus};
use cygnet_wire::ts::TrafficSelector;

use crate::ipc::{Carried, CarriedChild, Selector};

/// IKE SAs of connections with a hook that are others than the supervisor knows.
#[derive(Default)]
pub(super) struct Touched(BTreeSet<IkeSaId>);

impl Touched {
    pub(super) fn note(&mut self, event: &Event, config: &Config) {
        let connection = event.connection.as_deref();
        if connection.is_none_or(|name| config.hook_of(name).is_none()) {
            return;
        }
        match event.kind {
            EventKind::IkeUp { replaces, .. } => {
                self.0.extend(event.ike_sa.into_iter().chain(replaces))
            }
            EventKind::IkeDown { .. }
            | EventKind::ChildUp { .. }
            | EventKind::ChildDown { .. }
            | EventKind::PeerMoved { .. }
            | EventKind::Moved { .. } => self.0.extend(event.ike_sa),
            _ => {}
        }
    }

    /// Another configuration may have another hook.
    pub(super) fn note_all(&mut self, ike_sas: &[IkeSaStatus]) {
        self.0.extend(ike_sas.iter().map(|sa| sa.id));
    }

    /// Those noted since the last call.
    pub(super) fn take(&mut self) -> BTreeSet<IkeSaId> {
        std::mem::take(&mut self.0)
    }
}

/// What the hook of its connection is told; `None` where there is none.
pub(super) fn carried(sa: &IkeSaStatus, config: &Config) -> Option<Carried> {
    let connection = sa.connection.clone()?;
    config.hook_of(&connection)?;
    let identity = |id: &Option<_>| {
        let text = id.as_ref().map(identity::display);
        text.unwrap_or_default()
    };
    let in_use = sa.children.iter().filter(|child| child.installed);
    Some(Carried {
        connection,
        local: sa.path.local,
        remote: sa.path.remote,
        local_identity: identity(&sa.local),
        remote_identity: identity(&sa.peer),
        assigned: sa.assigned.addresses.clone(),
        dns: sa.assigned.dns.clone(),
        lent: sa.lent.addresses.clone(),
        children: in_use.map(child).collect(),
    })
}

fn child(child: &ChildSaStatus) -> CarriedChild {
    CarriedChild {
        name: child.name.clone(),
        local: child.local_ts.iter().map(selector).collect(),
        remote: child.remote_ts.iter().map(selector).collect(),
    }
}

fn selector(selector: &TrafficSelector) -> Selector {
    Selector {
        first: selector.addrs.lo(),
        last: selector.addrs.hi(),
        protocol: selector.protocol,
        ports: (*selector.ports.start(), *selector.ports.end()),
        claimed_identity: sa.claimed.as_ref().map(identity::display),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cygnet_ike::event::Reason;

    const TEXT: &str = r#"
[tunnel.home]
remote = "192.0.2.1"
psk = "psk"
hook = "/etc/cygnet/updown"

[tunnel.quiet]
remote = "192.0.2.2"
psk = "psk"
"#;

    #[test]
    fn what_happens_to_tunnels_with_a_hook_is_told() {
        let config = Config::parse("test", TEXT, &mut |_| Ok(Vec::new())).unwrap();
        let mut touched = Touched::default();
        let mut note = |connection: &str, id, kind| {
            let event = Event {
                connection: Some(connection.to_owned()),
                ike_sa: Some(IkeSaId(id)),
                path: None,
                peer: None,
                kind,
            };
            touched.note(&event, &config);
        };
        let down = || EventKind::IkeDown {
            reason: Reason::Operator,
        };
        note("home", 3, down());
        note("quiet", 4, down());
        note("home", 5, EventKind::Drained);
        let up = EventKind::IkeUp {
            suite: String::new(),
            nat_local: false,
            nat_remote: false,
            replaces: Some(IkeSaId(1)),
        };
        note("home", 2, up);
        assert_eq!(touched.take(), [1, 2, 3].map(IkeSaId).into());
        assert!(touched.take().is_empty());
    }
}
