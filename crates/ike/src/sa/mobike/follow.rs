//! The end that was called: it goes where the peer says, and with ESP where the peer has shown that it
//! receives (RFC 4555 §3.5 to §3.9).

use std::net::IpAddr;
use std::time::Duration;

use cygnet_wire::header::ExchangeType;
use cygnet_wire::notify::NotifyType;
use cygnet_wire::payload::Payload;

use super::{Sending, additional, is_additional};
use crate::context::{Context, Upcall};
use crate::event::Reason;
use crate::io::Path;
use crate::sa::channel::Channel;
use crate::sa::contents::Contents;
use crate::sa::established::{Established, Life};
use crate::sa::exchange::Exchange;
use crate::sa::negotiate::notify;
use crate::time::Instant;

/// Between two checks of places that ESP came from.
const CHECKS: Duration = Duration::from_secs(10);

impl Established {
    /// What a request of the peer says of ways; what its response has to say of them.
    pub(crate) fn serve_path(
        &mut self,
        channel: &mut Channel,
        cx: &mut Context,
        path: Path,
        contents: &Contents,
    ) -> Vec<Payload<'static>> {
        let mut answer = Vec::new();
        if !channel.mobility.enabled {
            return answer;
        }
        // RFC 4555 §4.2.5: one of another length is none.
        if let Some(cookie) = contents.notify(NotifyType::COOKIE2)
            && cookie.cookie2().is_ok()
        {
            answer.push(cookie.clone().into());
            // It goes where it has seen us, which the next sign of life is to find out: a NAT may see us again
            // as it did when that was last heard.
            channel.mobility.mapping = None;
            channel.mobility.sending.checked = true;
        }
        let updates = contents.has(NotifyType::UPDATE_SA_ADDRESSES);
        let lists = contents.has(NotifyType::NO_ADDITIONAL_ADDRESSES)
            || contents.notifies.iter().any(|n| is_additional(n.ty));
        if (updates || lists)
            && let Some(ends) = contents.notify(NotifyType::NO_NATS_ALLOWED)
            && ends.sent_between().ok() != Some((path.remote, path.local))
        {
            answer.push(notify(NotifyType::UNEXPECTED_NAT_DETECTED));
            return answer;
        }
        if updates && !self.peering.dialed {
            if !self.is_acceptable(cx, &path) || (path != channel.path && !self.may_move(cx)) {
                answer.push(notify(NotifyType::UNACCEPTABLE_ADDRESSES));
                return answer;
            }
            self.follow_update(channel, cx, path, contents);
        }
        if lists && self.peering.dialed {
            channel.mobility.learn_addresses(contents);
            let here = channel.path.remote.ip();
            // Those it lists are beside the one that it sends from (RFC 4555 §3.6).
            if path.remote.ip() != here {
                channel.mobility.peer.insert(0, path.remote.ip());
            }
            if path.remote.ip() != here && !channel.mobility.peer.contains(&here) {
                cx.upcall(Upcall::SeekWays(self.peering.authenticated_as));
            }
        }
        if contents.has(NotifyType::NAT_DETECTION_SOURCE_IP)
            || contents.has(NotifyType::NAT_DETECTION_DESTINATION_IP)
        {
            answer.extend(channel.nat_detection(&path));
        }
        answer
    }

    /// A peer of named addresses stays at these, and ESP needs the port where it travels in UDP.
    fn is_acceptable(&self, cx: &Context, path: &Path) -> bool {
        let policy = &cx.policy;
        self.peering.connection.remote.may_call_from(path.remote)
            && (!policy.esp_in_udp_only || path.local.port() == policy.limits.ports.nat_t)
    }

    /// UPDATE_SA_ADDRESSES: IKE goes there, ESP as soon as the peer has shown that it receives there. At
    /// the same address, whatever the port, it does.
    fn follow_update(
        &mut self,
        channel: &mut Channel,
        cx: &mut Context,
        path: Path,
        contents: &Contents,
    ) {
        let (from, esp) = (channel.path, channel.esp_path());
        channel.turn_after(cx, path);
        channel.mobility.lost = false;
        channel.mobility.seen_at = None;
        self.observe_nat(channel, cx, contents);
        if esp.remote.ip() != path.remote.ip() {
            channel.mobility.esp_at = Some(esp);
            return;
        }
        if from == path {
            return self.esp_follows(channel, cx);
        }
        self.peer_moved(channel, cx, from);
    }

    /// Authenticated ESP of the peer, or a request about the keys, came by `path`; who called decides by itself.
    /// RFC 4555 §3.8 lets us follow ESP, and no IKE, so that a path may be tested by an INFORMATIONAL exchange:
    /// none of these comes here. Nobody tests a path by new keys, and behind a NAT that forgot its mapping the
    /// peer would not hear what we ask meanwhile. A NAT's other port is followed at once, another address
    /// when the peer has shown that it receives there: the source of a packet can be forged.
    pub(crate) fn seen_by(&mut self, channel: &mut Channel, cx: &mut Context, path: Path) {
        let now = cx.boot();
        let follows = channel.mobility.enabled && !self.peering.dialed && channel.nat.remote;
        if !follows || self.life != Life::Live {
            return;
        }
        self.heard = now;
        let from = channel.path;
        let mobility = &mut channel.mobility;
        if path == from {
            return;
        }
        if let Some(esp) = mobility.esp_at {
            // It may not be where its update seemed to come from: the check goes to where it is.
            if path.remote.ip() != esp.remote.ip() {
                channel.turn_after(cx, path);
            }
            return;
        }
        if path.remote.ip() == from.remote.ip() {
            if !self.may_move(cx) {
                return;
            }
            channel.turn_after(cx, path);
            return self.peer_moved(channel, cx, from);
        }
        let lately = |at: Instant| now.since(at) < CHECKS;
        if mobility.seen_at.is_none() && !mobility.checked.is_some_and(lately) {
            mobility.checked = Some(now);
            mobility.seen_at = Some(path);
            // The answer that a request in flight waits for may only come from there.
            channel.send_again_by(cx, path);
        }
    }

    /// Our own addresses have changed: the peer is to be told of those beside the one it uses.
    pub(crate) fn tell_addresses(&self, channel: &mut Channel) {
        channel.mobility.untold = channel.mobility.enabled && !self.peering.dialed;
    }

    /// The address that the peer uses is gone: what is to be said, and ESP, come from another one, whichever
    /// way the peer then chooses.
    pub(crate) fn leave_lost_address(&mut self, channel: &mut Channel, cx: &mut Context) {
        if !channel.mobility.lost {
            return;
        }
        let mut path = channel.path;
        let fits = |own: &&IpAddr| own.is_ipv4() == path.remote.is_ipv4();
        let Some(own) = cx.own_addresses.iter().find(fits).copied() else {
            return;
        };
        channel.mobility.lost = false;
        channel.mobility.untold = true;
        path.local.set_ip(own);
        channel.turn_to(cx, path);
        match &mut channel.mobility.esp_at {
            Some(esp) if esp.remote.is_ipv4() == own.is_ipv4() => esp.local.set_ip(own),
            Some(_) => {}
            None => self.esp_follows(channel, cx),
        }
    }

    pub(super) fn start_telling(
        &mut self,
        channel: &mut Channel,
        cx: &mut Context,
    ) -> Result<(), Reason> {
        if !std::mem::take(&mut channel.mobility.untold) {
            return Ok(());
        }
        let mut payloads: Vec<_> = additional(cx, channel).collect();
        if payloads.is_empty() {
            payloads.push(notify(NotifyType::NO_ADDITIONAL_ADDRESSES));
        }
        channel.send_request(cx, ExchangeType::INFORMATIONAL, payloads)?;
        self.current = Some(Exchange::Inform);
        Ok(())
    }

    /// The peer has answered a check.
    pub(super) fn checked(&mut self, channel: &mut Channel, cx: &mut Context, path: Path) {
        let mobility = &mut channel.mobility;
        let Sending {
            alone, scattered, ..
        } = mobility.sending;
        mobility.seen_at = None;
        let from = channel.esp_path();
        if alone == Some(path) && channel.mobility.esp_at.is_none() {
            // It is where its ESP came from.
            channel.turn_to(cx, path);
        } else if path != channel.path || scattered || channel.mobility.esp_at.is_none() {
            return;
        }
        self.peer_moved(channel, cx, from);
    }
}
