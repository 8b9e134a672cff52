//! A Child SA as its IKE SA sees it: installed inbound first, outbound when the peer is known to
//! be ready, stopped outbound first, and inbound a few seconds later (RFC 7296 §2.8).

use std::sync::Arc;
use std::time::Duration;

use cygnet_crypto::Secret;
use cygnet_crypto::suite::Group;

use crate::context::{Bearer, Context, Upcall, Waiting};
use crate::event::{EventKind, Reason};
use crate::io::{AskId, ChildSaId, ChildSaParameters, DataCommand, IkeSaId, Path};
use crate::lifetime::Deadlines;
use crate::narrowing::Packet;
use crate::sa::Peering;
use crate::sa::collision::Nonces;
use crate::selector;
use crate::time::Instant;

/// How long the peer may take to delete what it has replaced.
const RETIRED: Duration = Duration::from_secs(60);

/// One Child SA, both directions.
pub(crate) struct ChildSa {
    pub(crate) params: Arc<ChildSaParameters>,
    pub(crate) state: ChildState,
    outbound: Outbound,
    /// Soft limit by time; `None` once it has been acted upon.
    pub(crate) rekey_at: Option<Instant>,
    /// Hard limit by time.
    pub(crate) expires_at: Option<Instant>,
    pub(crate) since: Instant,
    /// Of the CREATE_CHILD_SA exchange that made it, if we started that.
    pub(crate) nonces: Option<Nonces>,
    /// Of the key exchange that made its keys, if there was one of its own.
    pub(crate) group: Option<Group>,
    /// When and how the first of this line of rekeyed Child SAs was made by a request of ours.
    pub(crate) line: Option<(Instant, Nonces)>,
    /// Lost to this one, which the peer may not know yet: it serves until that sends.
    pub(crate) yields_to: Option<ChildSaId>,
    /// It serves no more: the peer does not know it, or its keys are used up.
    pub(crate) forgotten: bool,
    bearer: Bearer,
    announced: bool,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildState {
    /// In use.
    Installed,
    /// The peer has rekeyed it and is to delete it.
    Replaced,
    /// Lost to another one when both ends rekeyed at once; the peer, who made it, is to delete it.
    Redundant,
    /// We are to delete it, or have asked the peer to.
    Closing,
}

/// Whether we send on it.
enum Outbound {
    /// Not yet: the peer may not be ready to receive.
    Deferred(Secret),
    /// Yes.
    Active,
    /// No longer, or never.
    Stopped,
}

impl ChildSa {
    /// Orders the inbound half; the answer goes to its IKE SA.
    pub(crate) fn install(
        cx: &mut Context,
        who: &Peering,
        mut params: ChildSaParameters,
        keys_in: Secret,
        keys_out: Secret,
    ) -> (Self, AskId) {
        let now = cx.boot();
        let due = Deadlines::new(&params.policy.lifetime, now, cx.random.as_mut());
        params.limits = due.data;
        let params = Arc::new(params);
        cx.holders.insert(params.id, params.ike_sa);
        let child = Arc::clone(&params);
        let ask = cx.order(Waiting::IkeSa(params.ike_sa), |id| DataCommand::InstallIn {
            id,
            child,
            keys: keys_in,
        });
        cx.counters.children += 1;
        let child = Self {
            bearer: who.bearer(&params),
            params,
            state: ChildState::Installed,
            outbound: Outbound::Deferred(keys_out),
            rekey_at: Some(due.soft),
            expires_at: Some(due.hard),
            since: now,
            nonces: None,
            group: None,
            line: None,
            yields_to: None,
            forgotten: false,
            announced: false,
        };
        (child, ask)
    }

    pub(crate) fn id(&self) -> ChildSaId {
        self.params.id
    }

    pub(crate) fn name(&self) -> &str {
        &self.params.policy.name
    }

    /// Whether it may carry this packet; if none is named, what the peer has left of its policy.
    pub(crate) fn carries(&self, packet: Option<&Packet>) -> bool {
        packet.is_none_or(|(local, remote)| {
            selector::covers(&self.params.local_ts, local)
                && selector::covers(&self.params.remote_ts, remote)
        })
    }

    /// Whether it does the same as another one.
    pub(crate) fn equals(&self, other: &ChildSa) -> bool {
        self.bearer == other.bearer
    }

    pub(crate) fn is_sending(&self) -> bool {
        matches!(self.outbound, Outbound::Active)
    }

    /// Sends from now on.
    pub(crate) fn switch_out(&mut self, cx: &mut Context) {
        match std::mem::replace(&mut self.outbound, Outbound::Active) {
            Outbound::Deferred(keys) => {
                let child = Arc::clone(&self.params);
                let bearer = self.bearer.clone();
                cx.bearers.entry(bearer).or_default().insert(self.id());
                cx.order(Waiting::ChildSa(self.id()), |id| DataCommand::SwitchOut {
                    id,
                    child,
                    keys,
                });
            }
            before => self.outbound = before,
        }
    }

    /// We have answered the peer, who made it: as long as another one serves, that does, until the
    /// peer has shown that it has our response (RFC 7296 §2.8). Where none serves there is nothing
    /// to lose.
    pub(crate) fn switch_out_after_others(&mut self, cx: &mut Context) {
        match cx.bearers.get(&self.bearer).cloned() {
            Some(others) => {
                for other in others {
                    cx.waiting_for(other, self.id());
                }
            }
            None => self.switch_out(cx),
        }
    }

    /// The peer is to delete it; if it does not, we do after a while.
    pub(crate) fn retire(&mut self, cx: &Context, state: ChildState) {
        let until = cx.boot() + RETIRED;
        self.state = state;
        self.rekey_at = None;
        self.expires_at = Some(self.expires_at.map_or(until, |at| at.min(until)));
    }

    /// The peer has shown that it can receive. Whether we send from now on.
    pub(crate) fn peer_ready(&mut self, cx: &mut Context) -> bool {
        let ready =
            self.state == ChildState::Installed && matches!(self.outbound, Outbound::Deferred(_));
        if ready {
            self.switch_out(cx);
        }
        ready
    }

    /// Sends no more; packets of the peer are still received. Those that waited for this begin to
    /// send first, so that no packet finds no Child SA between the two.
    pub(crate) fn stop_sending(&mut self, cx: &mut Context) {
        let was_sending = self.is_sending();
        self.outbound = Outbound::Stopped;
        if !was_sending {
            return;
        }
        if let Some(bearers) = cx.bearers.get_mut(&self.bearer) {
            bearers.remove(&self.id());
            if bearers.is_empty() {
                cx.bearers.remove(&self.bearer);
            }
        }
        cx.upcall(Upcall::Stopped {
            child: self.id(),
            bearer: self.bearer.clone(),
            forgotten: self.forgotten,
        });
    }

    /// The peer is reached by `path`.
    pub(crate) fn follow(&mut self, cx: &mut Context, path: Path) {
        if self.params.path != path {
            Arc::make_mut(&mut self.params).path = path;
            let child = self.id();
            cx.data(DataCommand::UpdatePath { child, path });
        }
    }

    /// Another IKE SA holds it now.
    pub(crate) fn moved_to(&mut self, cx: &mut Context, ike_sa: IkeSaId) {
        Arc::make_mut(&mut self.params).ike_sa = ike_sa;
        cx.holders.insert(self.id(), ike_sa);
    }

    /// Deleted: sends no more, receives what is in flight.
    pub(crate) fn remove(mut self, cx: &mut Context, ike_sa: IkeSaId, who: &Peering, why: Reason) {
        let (id, name) = (self.id(), self.name().to_owned());
        let why = match self.state {
            ChildState::Redundant if !why.is_replaced() => Reason::Replaced,
            _ => why,
        };
        self.stop_sending(cx);
        cx.upcall(Upcall::Removed(id));
        if !self.announced {
            return;
        }
        cx.event(who.event(
            ike_sa,
            self.params.path,
            EventKind::ChildDown {
                child: id,
                name: name.clone(),
                reason: why.clone(),
            },
        ));
        if !why.is_replaced() {
            cx.upcall(Upcall::ChildDown {
                sa: ike_sa,
                name,
                reason: why,
            });
        }
    }

    /// Never came to be: its installation failed, or its exchange did.
    pub(crate) fn abandon(mut self, cx: &mut Context) {
        self.stop_sending(cx);
        cx.upcall(Upcall::Removed(self.id()));
    }

    /// It carries traffic: tells the operator and the keeper.
    pub(crate) fn announce(&mut self, cx: &mut Context, who: &Peering) {
        self.announced = true;
        let list = |selectors: &[cygnet_wire::ts::TrafficSelector]| {
            selectors
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        cx.event(who.event(
            self.params.ike_sa,
            self.params.path,
            EventKind::ChildUp {
                child: self.id(),
                name: self.name().to_owned(),
                suite: self.params.suite.to_string(),
                selectors: format!(
                    "{} === {}",
                    list(&self.params.local_ts),
                    list(&self.params.remote_ts)
                ),
                replaces: self.params.replaces,
                server: who.place(),
            },
        ));
        cx.upcall(Upcall::ChildUp {
            sa: self.params.ike_sa,
            name: self.name().to_owned(),
        });
    }

    /// The next moment something is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.rekey_at, self.expires_at].into_iter().flatten().min()
    }
}
