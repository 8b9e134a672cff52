//! What is wanted: an operator's commands, and the policy.

use std::sync::Arc;

use super::servers::Return;
use super::{Dial, Kept, Replacing};
use crate::endpoint::Endpoint;
use crate::event::{Event, EventKind, Reason};
use crate::io::{Command, DataCommand, IkeSaId};
use crate::policy::{ChildPolicy, Connection, Policy, Remote, Start};
use crate::sa::IkeSa;
use crate::sa::exchange::{Task, Tries};

impl Endpoint {
    /// What an operator wants.
    pub(crate) fn obey(&mut self, command: Command) {
        match command {
            Command::Up { connection, child } => self.bring_up(&connection, child.as_deref()),
            Command::Down { connection, child } => self.take_down(&connection, child.as_deref()),
            Command::RekeyIke { connection } => {
                for id in self.live_sas(&connection) {
                    self.change(id, |state, _, cx| state.push_rekey_ike(cx));
                }
            }
            Command::RekeyChild { connection, child } => {
                for id in self.live_sas(&connection) {
                    self.change(id, |state, _, cx| {
                        if let Some(id) = state.child_named(&child).map(|c| c.id()) {
                            state.push_rekey_child(cx, id);
                        }
                    });
                }
            }
            Command::Reauthenticate { connection } => {
                for id in self.live_sas(&connection) {
                    self.reauthenticate(id);
                }
            }
            Command::Shutdown | Command::ExaminePeers | Command::SecretsReplaced { .. } => {}
        }
    }

    pub(crate) fn sas_of(&self, name: &str) -> Vec<IkeSaId> {
        let of = |sa: &&IkeSa| sa.connection().is_some_and(|c| c.name == name);
        self.sas.values().filter(of).map(IkeSa::id).collect()
    }

    pub(super) fn live_sas(&self, name: &str) -> Vec<IkeSaId> {
        let live = |id: &IkeSaId| {
            let state = self.sas.get(id).and_then(IkeSa::established);
            state.is_some_and(|state| state.is_live())
        };
        self.sas_of(name).into_iter().filter(live).collect()
    }

    fn bring_up(&mut self, name: &str, child: Option<&str>) {
        let Some(kept) = self.keeper.kept.get_mut(name) else {
            return;
        };
        let meant = |c: &&Arc<ChildPolicy>| match child {
            Some(name) => c.name == *name,
            None => c.start != Start::Traffic,
        };
        let children: Vec<_> = kept
            .connection
            .children
            .iter()
            .filter(meant)
            .cloned()
            .collect();
        if matches!(kept.connection.remote, Remote::Hosts { .. }) {
            kept.wanted.extend(children.iter().map(|c| c.name.clone()));
            kept.up = true;
            kept.retries.clear();
            if matches!(kept.dial, Dial::Waiting(_)) {
                kept.dial = Dial::Idle;
            }
            return self.keep(name);
        }
        // Who waits to be called can only add to what is up.
        let live = self.live_sas(name);
        if live.is_empty() {
            let reason = "this connection has no address to call: its peer has to call";
            self.cx.event(Event {
                connection: Some(name.to_owned()),
                ike_sa: None,
                path: None,
                peer: None,
                kind: EventKind::Refused {
                    reason: Reason::Local(reason.to_owned()),
                },
            });
        }
        for id in live {
            self.change(id, |state, _, cx| {
                for policy in children.iter().cloned() {
                    if state.has_child(&policy.name, None) {
                        continue;
                    }
                    let (packet, tries) = (None, Tries::default());
                    state.tasks.push_at(
                        cx.boot(),
                        Task::CreateChild {
                            policy,
                            packet,
                            tries,
                        },
                    );
                }
            });
        }
    }

    fn take_down(&mut self, name: &str, child: Option<&str>) {
        let Some(child) = child else {
            if let Some(kept) = self.keeper.kept.get_mut(name) {
                kept.wanted.clear();
                kept.up = false;
                kept.demands.clear();
                kept.retries.clear();
                kept.replacing = Replacing::default();
                kept.way_back = Return::default();
                kept.failed.clear();
                kept.dial = Dial::Idle;
                kept.why = Some(Reason::Operator);
            }
            for id in self.sas_of(name) {
                self.delete_ike_sa(id, Reason::Operator);
            }
            return;
        };
        if let Some(kept) = self.keeper.kept.get_mut(name) {
            kept.wanted.remove(child);
            kept.demands.retain(|demand| demand.child != child);
        }
        for id in self.live_sas(name) {
            self.change(id, |state, _, cx| state.take_child_down(cx, child));
        }
    }

    /// Another policy: what is gone or different ends, what is new begins.
    pub(crate) fn apply_policy(&mut self, policy: Arc<Policy>) {
        self.cx.policy = Arc::clone(&policy);
        let unchanged = |connection: &Arc<Connection>| {
            policy
                .connection(&connection.name)
                .is_some_and(|c| c == connection || c.is_renewal_of(connection))
        };
        let stale: Vec<_> = (self.keeper.kept.values())
            .filter(|kept| !unchanged(&kept.connection))
            .map(|kept| Arc::clone(&kept.connection))
            .collect();
        for connection in stale {
            self.keeper.kept.remove(&connection.name);
            for child in connection
                .children
                .iter()
                .filter(|c| c.start == Start::Traffic)
            {
                self.cx.data(DataCommand::RemoveTrap {
                    connection: connection.name.clone(),
                    child: child.name.clone(),
                });
            }
        }
        let of_stale = |sa: &&IkeSa| sa.connection().is_some_and(|c| !unchanged(c));
        let stale: Vec<_> = self.sas.values().filter(of_stale).map(IkeSa::id).collect();
        for id in stale {
            self.delete_ike_sa(id, Reason::Operator);
        }
        for connection in &policy.connections {
            if let Some(kept) = self.keeper.kept.get_mut(&connection.name) {
                if kept.connection != *connection {
                    kept.connection = Arc::clone(connection);
                    self.renew_certificate(connection);
                }
                continue;
            }
            for child in connection
                .children
                .iter()
                .filter(|c| c.start == Start::Traffic)
            {
                self.cx.data(DataCommand::InstallTrap {
                    connection: Arc::clone(connection),
                    child: Arc::clone(child),
                });
            }
            let kept = Kept::new(Arc::clone(connection));
            self.keeper.kept.insert(connection.name.clone(), kept);
            self.keep(&connection.name);
        }
    }

    /// What a connection shows is another certificate: what is up stays up, and what we called ourselves is called
    /// anew beside it, since the peer may end it when the old certificate does.
    fn renew_certificate(&mut self, connection: &Arc<Connection>) {
        for id in self.sas_of(&connection.name) {
            self.change(id, |state, _, _| {
                state.peering.connection = Arc::clone(connection);
            });
            self.reauthenticate(id);
        }
    }
}
