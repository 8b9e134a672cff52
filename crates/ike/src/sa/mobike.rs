//! MOBIKE (RFC 4555): an IKE SA whose ends move. Who called decides by which addresses both talk; the
//! other end follows its word, and sends ESP to another address only when the peer has shown that it
//! receives there.
//!
//! Here is what both ends share, and who called; [`follow`] is the other end.

mod follow;

use std::net::IpAddr;

use cygnet_wire::header::ExchangeType;
use cygnet_wire::notify::{NotifyPayload, NotifyType};
use cygnet_wire::payload::Payload;

use crate::context::{Context, Upcall};
use crate::event::{EventKind, Reason};
use crate::io::Path;
use crate::nat::{self, Nat};
use crate::policy::Connection;
use crate::sa::channel::Channel;
use crate::sa::contents::Contents;
use crate::sa::established::{Established, Life};
use crate::sa::exchange::{Exchange, Task};
use crate::sa::negotiate::notify;
use crate::time::Instant;

/// Further addresses of a peer that are remembered, and of ours that it is told.
pub(crate) const MAX_ADDRESSES: usize = 8;
/// Octets of a COOKIE2.
const COOKIE2: usize = 16;
/// How often a request is sent by one way before it goes by the others as well.
const ALONE: u32 = 3;
/// How often a request in flight goes after a peer that says it is elsewhere, at once and with all its time
/// again; then by its schedule alone. Whoever is there has not asked for it.
const FOLLOWED: u32 = 4;
/// RFC 4555 §3.9: how often an update is tried that met a NAT where none may be.
const UNEXPECTED_NATS: u32 = 5;

/// What an end knows about ways to the peer beside the one in use. Passed on when the IKE SA is rekeyed.
#[derive(Clone, Default)]
pub(crate) struct Mobility {
    /// Both ends do MOBIKE.
    pub(crate) enabled: bool,
    /// Further addresses of the peer, as it says (RFC 4555 §3.4). For who called.
    pub(crate) peer: Vec<IpAddr>,
    /// Where ESP goes as long as the peer has not shown that it receives at the IKE SA's address.
    esp_at: Option<Path>,
    /// Who called: the peer is still to be told of the way in use; it knows this one.
    told: Option<Path>,
    /// Further ways by which a request goes that gets no answer. For who called.
    others: Vec<Path>,
    /// Our own addresses have changed since the peer that called was told of them.
    untold: bool,
    /// We were called at an address that this machine has not got any more.
    pub(crate) lost: bool,
    /// The peer's ESP came from here: whether the peer is there is to be seen.
    seen_at: Option<Path>,
    /// When that was last looked at.
    checked: Option<Instant>,
    /// Under what address and port the peer sees us, as the hash of NAT_DETECTION_DESTINATION_IP.
    mapping: Option<Vec<u8>>,
    /// Answers in a row that speak of a NAT.
    unexpected_nats: u32,
    sending: Sending,
}

/// Where the request in flight has gone.
#[derive(Clone, Copy, Default)]
struct Sending {
    /// By this way and no other.
    alone: Option<Path>,
    /// By several: its response does not tell at which address the peer has it (RFC 4555 §3.7).
    scattered: bool,
    /// Further ways were asked for.
    sought: bool,
    /// How often it has gone after the peer.
    followed: u32,
    /// The peer has checked meanwhile whether we are where it sees us: what the response says of that may be older.
    checked: bool,
}

/// INFORMATIONAL about ways, in flight: UPDATE_SA_ADDRESSES by who called, a return routability check
/// by the other end.
pub(crate) struct PathExchange {
    /// The way it is about.
    path: Path,
    /// What the peer is to repeat.
    cookie: Option<Vec<u8>>,
}

impl Mobility {
    /// For the IKE SA that follows.
    pub(crate) fn heir(&self) -> Self {
        Self {
            seen_at: None,
            // The hash has the SPIs in it.
            mapping: None,
            sending: Sending::default(),
            ..self.clone()
        }
    }

    /// Whether we are to say MOBIKE_SUPPORTED. With a peer that knows no NAT traversal, it would be
    /// MOBIKE that forbids NATs (RFC 4555 §3.9), and ESP in UDP is none of that.
    pub(crate) fn is_offered(channel: &Channel, connection: &Connection) -> bool {
        connection.mobike && channel.nat.supported
    }

    /// The peer's offer or answer in IKE_AUTH.
    pub(crate) fn agree(&mut self, offered: bool, contents: &Contents) {
        self.enabled = offered && contents.has(NotifyType::MOBIKE_SUPPORTED);
        self.learn_addresses(contents);
    }

    fn learn_addresses(&mut self, contents: &Contents) {
        let told = contents.notifies.iter().filter(|n| is_additional(n.ty));
        let told = told.filter_map(|notify| notify.address().ok());
        self.peer = told.take(MAX_ADDRESSES).collect();
    }
}

impl Channel {
    /// Where ESP goes.
    pub(crate) fn esp_path(&self) -> Path {
        self.mobility.esp_at.unwrap_or(self.path)
    }

    /// A new request goes by `alone` and no other way, or by the one in use.
    pub(crate) fn begin_sending(&mut self, alone: Option<Path>) -> Path {
        self.mobility.sending = Sending {
            alone,
            ..Sending::default()
        };
        alone.unwrap_or(self.path)
    }

    /// The request in flight was sent several times, and has no answer.
    fn waits_in_vain(&self) -> bool {
        let request = self.window.in_flight();
        request.is_some_and(|request| request.sent() >= ALONE)
    }

    /// Where the request in flight goes when it is sent once more, after so many times.
    pub(crate) fn ways_again(&mut self, sent: u32) -> Vec<Path> {
        let sending = &mut self.mobility.sending;
        if let Some(alone) = sending.alone {
            if sent <= ALONE {
                return vec![alone];
            }
            // The peer is not there; it answers by the way in use.
            sending.alone = None;
            sending.scattered = true;
        }
        let mut ways = vec![self.path];
        if sent > ALONE {
            let mobility = &self.mobility;
            ways.extend(mobility.others.iter().chain(&mobility.seen_at));
        }
        self.mobility.sending.scattered |= ways.len() > 1;
        ways
    }

    /// The request in flight goes by `path` as well.
    pub(crate) fn note_way(&mut self, path: Path) {
        let sending = &mut self.mobility.sending;
        sending.scattered |= path != sending.alone.unwrap_or(self.path);
    }

    /// The request in flight goes by the way in use, whichever it went before.
    pub(crate) fn gather(&mut self) {
        self.mobility.sending.scattered |= self.mobility.sending.alone.take().is_some();
    }

    /// Everything goes by `path` from now on, the request in flight included (RFC 4555 §3.5), which has
    /// all its time for an answer again.
    fn turn_to(&mut self, cx: &mut Context, path: Path) {
        if path != self.path {
            self.path = path;
            self.mobility.sending.scattered = true;
            self.window.restart(cx.boot());
        }
        self.send_again(cx);
    }

    /// The same at the peer's word. Nobody has proven that it is there, but the check that does cannot be sent
    /// before the request in flight has its answer.
    fn turn_after(&mut self, cx: &mut Context, path: Path) {
        let followed = self.mobility.sending.followed;
        if followed < FOLLOWED {
            self.mobility.sending.followed += 1;
            return self.turn_to(cx, path);
        }
        self.gather();
        self.mobility.sending.scattered |= path != self.path;
        self.path = path;
    }

    /// NAT detection as any INFORMATIONAL may carry it (RFC 4555 §3.8), for `path`; a NAT that is
    /// claimed is claimed here as well.
    fn nat_detection(&self, path: &Path) -> impl Iterator<Item = Payload<'static>> + use<> {
        let claimed = self.nat.claimed;
        let notifies = nat::notifies(self.spi_i, self.spi_r, path, claimed);
        notifies.into_iter().map(Payload::from)
    }
}

/// Our own answer to a peer that offers MOBIKE in IKE_AUTH: that we do it, too, and at which other
/// addresses it finds us.
pub(crate) fn answer_offer(
    channel: &mut Channel,
    cx: &Context,
    connection: &Connection,
    contents: &Contents,
) -> Vec<Payload<'static>> {
    let offered = Mobility::is_offered(channel, connection);
    channel.mobility.agree(offered, contents);
    if !channel.mobility.enabled {
        return Vec::new();
    }
    let mut payloads = vec![notify(NotifyType::MOBIKE_SUPPORTED)];
    payloads.extend(additional(cx, channel));
    payloads
}

/// The addresses of ours that the peer is told beside the one at which it reaches us. One that only few
/// reach is nobody's business who reaches us at another.
fn additional(cx: &Context, channel: &Channel) -> impl Iterator<Item = Payload<'static>> {
    let here = channel.path.local.ip();
    let told =
        move |address: &&IpAddr| **address != here && (!is_local(here) <= !is_local(**address));
    let told = cx.own_addresses.iter().filter(told).take(MAX_ADDRESSES);
    told.map(|address| NotifyPayload::additional_address(*address).into())
}

/// RFC 1918, RFC 6598, RFC 4193: of no use from elsewhere.
fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            v4.is_private() || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

fn is_additional(ty: NotifyType) -> bool {
    matches!(
        ty,
        NotifyType::ADDITIONAL_IP4_ADDRESS | NotifyType::ADDITIONAL_IP6_ADDRESS
    )
}

impl Established {
    /// Says what is to be said about ways, before anything else. It is not a [`Task`]: whatever becomes
    /// of the exchange, it is begun again until both ends agree, by whichever IKE SA follows.
    pub(crate) fn start_path_exchange(
        &mut self,
        channel: &mut Channel,
        cx: &mut Context,
    ) -> Result<(), Reason> {
        let mobility = &channel.mobility;
        // The peer may not know the one in place of this one, and wait here for the answer that tells it.
        let may_talk = self.is_live() || (self.peering.dialed && self.is_replaced());
        if !mobility.enabled || !may_talk {
            return Ok(());
        }
        let doubted = mobility.esp_at.is_some();
        let alone = mobility.seen_at.filter(|_| !doubted);
        let checks = doubted || alone.is_some();
        let path = alone.unwrap_or(channel.path);
        let mut payloads = Vec::new();
        match self.peering.dialed {
            true if mobility.told.is_none() => return Ok(()),
            true => {
                payloads.push(notify(NotifyType::UPDATE_SA_ADDRESSES));
                payloads.extend(channel.nat_detection(&path));
            }
            false if !checks => return self.start_telling(channel, cx),
            false => {}
        }
        let cookie = checks.then(|| {
            let mut cookie = vec![0; COOKIE2];
            cx.random.fill(&mut cookie);
            cookie
        });
        let cookie2 = |data| NotifyPayload::with_data(NotifyType::COOKIE2, data).into();
        payloads.extend(cookie.clone().map(cookie2));
        channel.send_request_by(cx, alone, ExchangeType::INFORMATIONAL, payloads)?;
        self.current = Some(Exchange::Path(PathExchange { path, cookie }));
        Ok(())
    }

    pub(crate) fn handle_path_response(
        &mut self,
        channel: &mut Channel,
        cx: &mut Context,
        exchange: PathExchange,
        contents: &Contents,
    ) {
        if let Some(cookie) = &exchange.cookie {
            let repeated = contents.notify(NotifyType::COOKIE2);
            if repeated.is_none_or(|repeated| repeated.data.as_ref() != cookie) {
                // RFC 4555 §3.7.
                let error =
                    "the peer's response does not repeat our COOKIE2: expected the same octets";
                let reason = Reason::Protocol(error.to_owned());
                return self.push(cx, Task::DeleteIke { reason });
            }
        }
        if self.is_replaced() && exchange.path == channel.path {
            channel.mobility.told = None;
        }
        if self.life != Life::Live {
            return;
        }
        if self.peering.dialed {
            self.updated(channel, cx, exchange.path, contents);
        } else {
            self.checked(channel, cx, exchange.path);
        }
    }

    /// The peer has been told where we are.
    fn updated(
        &mut self,
        channel: &mut Channel,
        cx: &mut Context,
        path: Path,
        contents: &Contents,
    ) {
        let mobility = &mut channel.mobility;
        let Some(from) = mobility.told else {
            return;
        };
        // RFC 4555 §3.5: what was told is not so any more, or it is not known what the peer has seen.
        if path != channel.path || mobility.sending.scattered {
            return;
        }
        if contents.has(NotifyType::UNEXPECTED_NAT_DETECTED) {
            mobility.unexpected_nats += 1;
            if mobility.unexpected_nats < UNEXPECTED_NATS {
                return;
            }
        }
        mobility.unexpected_nats = 0;
        if let Some(error) = contents.error() {
            let reason = crate::refusal::reason(error, String::new);
            cx.event(self.event(channel, EventKind::Refused { reason }));
            return self.leave(channel, cx);
        }
        mobility.told = None;
        self.observe_nat(channel, cx, contents);
        if channel.mobility.sending.checked {
            channel.mobility.mapping = None;
        }
        if from != path {
            cx.event(self.event(channel, EventKind::Moved { from }));
        }
        self.esp_follows(channel, cx);
    }

    /// The peer does not want us here: another way, or another call.
    fn leave(&mut self, channel: &mut Channel, cx: &mut Context) {
        let mobility = &mut channel.mobility;
        let next = mobility.others.first().copied();
        if let Some(next) = next {
            mobility.others.retain(|path| *path != next);
            // The one that is left is not tried again.
            self.move_to(channel, cx, next);
        } else {
            mobility.told = None;
            cx.upcall(Upcall::Reauthenticate(channel.id));
        }
    }

    fn is_replaced(&self) -> bool {
        matches!(self.life, Life::Replaced { .. })
    }

    /// The peer is elsewhere: everything goes there now.
    pub(crate) fn peer_moved(&mut self, channel: &mut Channel, cx: &mut Context, from: Path) {
        self.esp_follows(channel, cx);
        cx.event(self.event(channel, EventKind::PeerMoved { from }));
    }

    /// The same at the word of a packet. One that moves without an end is followed by what comes later.
    pub(crate) fn follow_peer(&mut self, channel: &mut Channel, cx: &mut Context, from: Path) {
        if self.may_move(cx) {
            self.peer_moved(channel, cx, from);
        } else {
            channel.path = from;
        }
    }

    /// Whether the peer may be elsewhere once more.
    fn may_move(&mut self, cx: &Context) -> bool {
        self.peering.moves.take(cx.boot(), None)
    }

    /// ESP goes where IKE goes.
    pub(crate) fn esp_follows(&mut self, channel: &mut Channel, cx: &mut Context) {
        channel.mobility.esp_at = None;
        for child in self.children.values_mut() {
            child.follow(cx, channel.path);
        }
    }

    fn observe_nat(&mut self, channel: &mut Channel, cx: &mut Context, contents: &Contents) {
        let (spi_i, spi_r) = (channel.spi_i, channel.spi_r);
        let claimed = channel.nat.claimed;
        let nat = Nat::observe(&contents.notifies, spi_i, spi_r, &channel.path, claimed);
        if !nat.supported {
            return;
        }
        channel.nat = nat;
        let seen = contents.notify(NotifyType::NAT_DETECTION_DESTINATION_IP);
        channel.mobility.mapping = seen.map(|seen| seen.data.to_vec());
        if cx.policy.esp_in_udp_only
            && let Some(why) = nat.why_bare()
        {
            let reason = Reason::NoEncapsulation(why.to_owned());
            self.push(cx, Task::DeleteIke { reason });
        }
    }

    /// Who called talks by `path` from now on, and tells the peer. ESP goes there at once, unless it is
    /// another address of the peer, where it first has to show that it receives.
    fn move_to(&mut self, channel: &mut Channel, cx: &mut Context, path: Path) {
        let from = channel.path;
        let esp = channel.esp_path();
        channel.turn_to(cx, path);
        channel.mobility.told.get_or_insert(from);
        if esp.remote.ip() == path.remote.ip() {
            self.esp_follows(channel, cx);
        } else {
            channel.mobility.esp_at = Some(esp);
        }
    }

    /// The ways there are to the peer, which we called, the best first. With `changed` the network is
    /// another one, though the addresses may be the same: a NAT sees us for the first time.
    pub(crate) fn take_ways(
        &mut self,
        channel: &mut Channel,
        cx: &mut Context,
        ways: &[Path],
        changed: bool,
    ) {
        let present = |way: &&Path| way.remote == channel.path.remote;
        let Some(best) = ways.iter().find(present).or(ways.first()).copied() else {
            // No way out: the next change brings one, or the peer counts as gone.
            channel.mobility.others.clear();
            return;
        };
        let others = ways.iter().filter(|way| **way != best).copied();
        channel.mobility.others = others.take(MAX_ADDRESSES).collect();
        let new = best != channel.path;
        if new || (changed && !self.is_doubted(cx.boot())) {
            self.move_to(channel, cx, best);
            self.doubt_move(channel, cx, new);
        }
        self.scatter(channel, cx);
    }

    /// A request that waits in vain goes by the other ways as well.
    fn scatter(&mut self, channel: &mut Channel, cx: &mut Context) {
        if !channel.waits_in_vain() {
            return;
        }
        for way in channel.mobility.others.clone() {
            channel.send_again_by(cx, way);
        }
    }

    /// A request was repeated in vain: are there other ways (RFC 4555 §3.5)?
    pub(crate) fn seek_ways(&self, channel: &mut Channel, cx: &mut Context) {
        if channel.mobility.enabled
            && self.peering.dialed
            && channel.waits_in_vain()
            && !std::mem::replace(&mut channel.mobility.sending.sought, true)
        {
            cx.upcall(Upcall::SeekWays(self.peering.authenticated_as));
        }
    }

    /// A response came by `path`: if that is another one than the one in use, it is what works.
    pub(crate) fn take_way(&mut self, channel: &mut Channel, cx: &mut Context, path: Path) {
        let mobility = &mut channel.mobility;
        if !mobility.enabled || !self.peering.dialed || !mobility.others.contains(&path) {
            return;
        }
        let left = channel.path;
        mobility.others.retain(|way| *way != path);
        mobility.others.push(left);
        self.move_to(channel, cx, path);
    }

    /// RFC 4555 §3.8: who called and is behind a NAT sees by these whether that still sees it as before.
    pub(crate) fn ask_mapping(&self, channel: &Channel) -> Vec<Payload<'static>> {
        let asks = channel.mobility.enabled && self.peering.dialed && channel.nat.local;
        let path = &channel.path;
        let asked = asks.then(|| channel.nat_detection(path));
        asked.into_iter().flatten().collect()
    }

    pub(crate) fn compare_mapping(&self, channel: &mut Channel, contents: &Contents) {
        let seen = contents.notify(NotifyType::NAT_DETECTION_DESTINATION_IP);
        let mobility = &mut channel.mobility;
        let known = mobility.mapping.as_deref();
        if let Some(seen) = seen
            && mobility.enabled
            && self.peering.dialed
            && known != Some(seen.data.as_ref())
        {
            mobility.told.get_or_insert(channel.path);
        }
    }
}
