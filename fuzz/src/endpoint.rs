//! An endpoint at each stage of an IKE SA's life.
//!
//! Input for the later stages is a list of steps. A step's first octet says what kind it is (its
//! low three bits, [`kind`]) and how it is done (the others, [`how`]).

use std::time::Duration;

use cygnet_ike::io::{ChildSaId, Command, DataEvent, Path, Transport};
use cygnet_wire::header::ExchangeType;
use cygnet_wire::payload::{Chain, PayloadType};

use crate::input::Input;
use crate::peer::{CONNECTION, Peer, Setup};
use crate::seeds;

/// Most steps of one input.
const STEPS: usize = 48;

/// Kinds of steps.
pub(crate) mod kind {
    /// A request: exchange, first payload, length, chain.
    pub(crate) const REQUEST: u8 = 0;
    /// A response to the oldest request: first payload, length, chain.
    pub(crate) const RESPONSE: u8 = 1;
    /// A command: which.
    pub(crate) const COMMAND: u8 = 2;
    /// Word of the data path: which, about which child.
    pub(crate) const DATA: u8 = 3;
    /// Time passes: how much.
    pub(crate) const TIME: u8 = 4;
    /// Answers are held back, or given.
    pub(crate) const ANSWERS: u8 = 5;
    /// The last datagram again: how much of its beginning is lost.
    pub(crate) const REPEAT: u8 = 6;
    /// A datagram as it is: length, octets.
    pub(crate) const RAW: u8 = 7;
}

/// How a step is done.
pub(crate) mod how {
    /// On the newest IKE SA instead of the first.
    pub(crate) const NEWEST: u8 = 0x08;
    /// In fragments.
    pub(crate) const CUT: u8 = 0x10;
    /// With a proof that holds in the AUTH payload.
    pub(crate) const PROVEN: u8 = 0x20;
}

/// Datagrams from anybody, before anything is agreed. First octet: how the endpoint is set up.
pub fn endpoint_init(data: &[u8]) {
    let mut input = Input(data);
    let setup = Setup::of(input.u8());
    let mut peer = Peer::new(setup);
    let call = peer.inbox.front().cloned();
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        let how = input.u8();
        let mut datagram = input.bytes().to_vec();
        // An answer to the endpoint's call needs its SPI.
        if let (Some(call), 1) = (&call, how & 1)
            && let (Some(place), Some(spi)) = (datagram.get_mut(..8), call.get(..8))
        {
            place.copy_from_slice(spi);
        }
        let before = peer.sent;
        peer.deliver(&datagram);
        let sent = peer.sent - before;
        // What nobody has proven to be worth it causes not much more than came in: a whole
        // answer to the shortest call is within that.
        let allowed = if setup.endpoint_calls { 2048 } else { 400 };
        assert!(
            sent <= 3 * datagram.len() + allowed,
            "{} octets brought forth {sent}",
            datagram.len()
        );
        if how & 2 != 0 {
            peer.pass(Duration::from_secs(u64::from(how >> 2)));
        }
    }
    finish(&mut peer);
}

/// IKE_AUTH and what follows. First octet: how the endpoint is set up.
pub fn endpoint_auth(data: &[u8]) {
    let mut input = Input(data);
    let mut peer = Peer::new(Setup::of(input.u8()));
    peer.shake_hands();
    take_steps(&mut peer, input);
}

/// An established IKE SA with a Child SA. First octet: how the endpoint is set up.
pub fn endpoint_established(data: &[u8]) {
    let mut input = Input(data);
    let mut peer = established(Setup::of(input.u8()));
    take_steps(&mut peer, input);
}

/// Both as they are after IKE_AUTH.
pub(crate) fn established(setup: Setup) -> Peer {
    let mut peer = Peer::new(setup);
    peer.shake_hands();
    seeds::authenticate(&mut peer);
    peer
}

/// Whether [`endpoint_established`] begins as its name says in this setup: with one IKE SA, and a Child SA in it.
#[must_use]
pub fn establishes(setup: u8) -> bool {
    let status = established(Setup::of(setup)).status();
    matches!(
        status.ike_sas.as_slice(),
        [sa] if sa.stage == cygnet_ike::status::Stage::Established && !sa.children.is_empty()
    )
}

fn take_steps(peer: &mut Peer, mut input: Input<'_>) {
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        take_step(peer, &mut input);
    }
    finish(peer);
}

/// One step, as an input says it.
pub(crate) enum Step<'a> {
    Request(u8, ExchangeType, Chain),
    Response(u8, Chain),
    Command(u8),
    Data(u8, u8),
    Time(u8),
    Answers(u8),
    Repeat(u8),
    Raw(&'a [u8]),
}

impl<'a> Step<'a> {
    pub(crate) fn read(input: &mut Input<'a>) -> Self {
        let op = input.u8();
        match op & 7 {
            kind::REQUEST => {
                let exchange = ExchangeType(input.u8());
                Self::Request(op, exchange, chain(input))
            }
            kind::RESPONSE => Self::Response(op, chain(input)),
            kind::COMMAND => Self::Command(input.u8()),
            kind::DATA => Self::Data(input.u8(), input.u8()),
            kind::TIME => Self::Time(input.u8()),
            kind::ANSWERS => Self::Answers(input.u8()),
            kind::REPEAT => Self::Repeat(input.u8()),
            _ => Self::Raw(input.bytes()),
        }
    }
}

fn chain(input: &mut Input<'_>) -> Chain {
    Chain {
        first: PayloadType(input.u8()),
        bytes: input.bytes().to_vec(),
    }
}

fn take_step(peer: &mut Peer, input: &mut Input<'_>) {
    match Step::read(input) {
        Step::Request(op, exchange, chain) => {
            let chain = finished(peer, op, chain);
            let (newest, cut) = (op & how::NEWEST != 0, op & how::CUT != 0);
            peer.request(newest, exchange, &chain, cut);
        }
        Step::Response(op, chain) => {
            let chain = finished(peer, op, chain);
            peer.respond(&chain, op & how::CUT != 0);
        }
        Step::Command(number) => peer.command(command(number)),
        Step::Data(number, child) => peer.data(event(number, ChildSaId(u64::from(child)))),
        Step::Time(scale) => {
            let millis = 100u64 << (scale % 16);
            peer.pass(Duration::from_millis(millis));
        }
        Step::Answers(what) => match what % 4 {
            0 => peer.holds_answers = true,
            1 => {
                peer.holds_answers = false;
                peer.release(false, false);
            }
            2 => peer.release(true, false),
            _ => peer.release(false, true),
        },
        Step::Repeat(cut) => peer.repeat(usize::from(cut)),
        Step::Raw(datagram) => peer.deliver(datagram),
    }
}

fn finished(peer: &Peer, op: u8, chain: Chain) -> Chain {
    if op & how::PROVEN != 0 {
        peer.prove(chain)
    } else {
        chain
    }
}

pub(crate) fn command(number: u8) -> Command {
    let connection = CONNECTION.to_owned();
    let name = |number: u8| match (number >> 4) % 3 {
        0 => "one".to_owned(),
        1 => "two".to_owned(),
        _ => "lent".to_owned(),
    };
    match number & 7 {
        0 => Command::RekeyChild {
            connection,
            child: name(number),
        },
        1 => Command::RekeyIke { connection },
        2 => Command::Reauthenticate { connection },
        3 => Command::Up {
            connection,
            child: Some(name(number)),
        },
        4 => Command::Down {
            connection,
            child: Some(name(number)),
        },
        5 => Command::Up {
            connection,
            child: None,
        },
        6 => Command::Down {
            connection,
            child: None,
        },
        _ => Command::Shutdown,
    }
}

fn event(number: u8, child: ChildSaId) -> DataEvent {
    let path = Path {
        transport: Transport::Udp,
        local: ([198, 51, 100, 1], 4500).into(),
        remote: ([192, 0, 2, 77], 4500 + u16::from(number)).into(),
        interface: 0,
    };
    match number % 9 {
        0 => DataEvent::SoftLimit { child },
        1 => DataEvent::HardLimit { child },
        2 => DataEvent::FirstAuthenticated { child },
        3 => DataEvent::LastInbound { child },
        4 => DataEvent::LastOutbound { child },
        5 => DataEvent::PeerMoved { child, path },
        6 => DataEvent::UnknownSpi { spi: 9, path },
        7 => DataEvent::PathMtu {
            path,
            mtu: 68 + 100 * u32::from(number),
        },
        _ => DataEvent::Acquire {
            connection: CONNECTION.to_owned(),
            child: "two".to_owned(),
            packet: None,
        },
    }
}

/// Whatever happened, the endpoint can be asked and shut down.
fn finish(peer: &mut Peer) {
    peer.holds_answers = false;
    peer.release(false, false);
    peer.command(Command::Shutdown);
    peer.pass(Duration::from_secs(120));
    let status = peer.status();
    assert!(
        status.ike_sas.is_empty(),
        "{:?} survive a shutdown",
        status.ike_sas
    );
}
