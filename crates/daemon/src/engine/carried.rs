//! What hooks are told of: IKE SAs as they are once something has happened to them.

use std::collections::BTreeSet;
use std::time::Duration;

use cygnet_config::Config;
use cygnet_ike::event::{Event, EventKind};
use cygnet_ike::identity;
use cygnet_ike::io::IkeSaId;
use cygnet_ike::status::{ChildSaStatus, IkeSaStatus};
use cygnet_ike::time::Instant;
use cygnet_wire::ts::TrafficSelector;

use crate::ipc::{Carried, CarriedChild, Selector};

/// IKE SAs that are told of at once; what happens to more within [`PAUSE`] is told behind it, to each once. A peer may
/// change its Child SAs as often as it likes, and each time the whole IKE SA is told of.
const BURST: usize = 64;
const PAUSE: Duration = Duration::from_secs(1);

/// IKE SAs of connections with a hook that are others than the supervisor knows.
#[derive(Default)]
pub(super) struct Touched {
    ike_sas: BTreeSet<IkeSaId>,
    /// How many were told of since when.
    told: usize,
    since: Option<Instant>,
}

impl Touched {
    pub(super) fn note(&mut self, event: &Event, config: &Config) {
        let connection = event.connection.as_deref();
        if connection.is_none_or(|name| config.hook_of(name).is_none()) {
            return;
        }
        match event.kind {
            EventKind::IkeUp { replaces, .. } => {
                let both = event.ike_sa.into_iter().chain(replaces);
                self.ike_sas.extend(both);
            }
            EventKind::IkeDown { .. }
            | EventKind::ChildUp { .. }
            | EventKind::ChildDown { .. }
            | EventKind::PeerMoved { .. }
            | EventKind::Moved { .. } => self.ike_sas.extend(event.ike_sa),
            _ => {}
        }
    }

    /// Another configuration may have another hook.
    pub(super) fn note_all(&mut self, ike_sas: &[IkeSaStatus], config: &Config) {
        let has_hook = |sa: &&IkeSaStatus| {
            let connection = sa.connection.as_deref();
            connection.is_some_and(|name| config.hook_of(name).is_some())
        };
        let touched = ike_sas.iter().filter(has_hook);
        self.ike_sas.extend(touched.map(|sa| sa.id));
    }

    /// Those noted and not told of yet, or none while too many are told of. All of them together: an heir is never
    /// told of behind the one it inherits from.
    pub(super) fn take(&mut self, now: Instant) -> BTreeSet<IkeSaId> {
        if self.since.is_none_or(|since| now.since(since) >= PAUSE) {
            (self.told, self.since) = (0, Some(now));
        }
        if self.told >= BURST {
            return BTreeSet::new();
        }
        self.told += self.ike_sas.len();
        std::mem::take(&mut self.ike_sas)
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
        claimed_identity: sa.claimed.as_ref().map(identity::display),
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
hook = "/usr/local/lib/cygnet/updown"

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
        assert_eq!(
            touched.take(Instant::default()),
            [1, 2, 3].map(IkeSaId).into()
        );
        assert!(touched.take(Instant::default()).is_empty());
    }

    #[test]
    fn a_peer_that_changes_all_the_time_is_told_of_once_a_second() {
        let config = Config::parse("test", TEXT, &mut |_| Ok(Vec::new())).unwrap();
        let (mut touched, mut times) = (Touched::default(), 0);
        let start = Instant::default();
        for round in 0..10_000 {
            let event = Event {
                connection: Some("home".to_owned()),
                ike_sa: Some(IkeSaId(1)),
                path: None,
                peer: None,
                kind: EventKind::IkeDown {
                    reason: Reason::Operator,
                },
            };
            touched.note(&event, &config);
            times += touched.take(start + Duration::from_millis(round)).len();
        }
        assert_eq!(times, 10 * BURST);
        // What came last is not lost.
        let end = start + Duration::from_secs(11);
        assert_eq!(touched.take(end), [IkeSaId(1)].into());
    }
}
