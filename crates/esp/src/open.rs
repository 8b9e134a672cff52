//! Opening: a datagram becomes the inner packet it carried, or a counted drop.

use std::ops::Range;

use cygnet_wire::esp::{EspHeader, EspTrailer};
use cygnet_wire::ip::{IpPacket, Version, protocol};

use crate::flow::Flow;
use crate::fragments::FragmentTable;
use crate::replay::Refused;
use crate::sa::{InboundSa, LimitReached};
use crate::tos::{self, Ecn};

/// What came of one datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Opened {
    /// The inner packet, or why there is none (already counted).
    pub inner: Result<Inner, DropReason>,
    /// This was the SA's first packet that authenticated: the peer uses it. Said once.
    pub first_authenticated: bool,
    /// A limit of the SA was reached, to be told to IKE.
    pub limit: Option<LimitReached>,
}

/// A packet that came out of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Where it lies in the datagram, without padding of any kind.
    pub range: Range<usize>,
    /// What its headers say.
    pub packet: IpPacket,
}

impl Inner {
    /// Marks congestion in the packet, which lies in `datagram`; `false` where its transport does not
    /// know ECN, and nothing is marked.
    pub fn mark_congestion(&mut self, datagram: &mut [u8]) -> bool {
        let bytes = datagram.get_mut(self.range.clone());
        let (Some(bytes), Ecn::Ect0 | Ecn::Ect1 | Ecn::Ce) = (bytes, Ecn::of(self.packet.tos))
        else {
            return false;
        };
        tos::set_ecn(self.packet.version, bytes, Ecn::Ce);
        self.packet.tos |= Ecn::Ce.bits();
        true
    }
}

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum DropReason {
    /// Shorter than any ESP packet of the suite, or no whole number of blocks.
    Length,
    /// The SA's hard lifetime is over.
    Lifetime,
    /// Its sequence number was accepted before.
    Replayed,
    /// Its sequence number is left of the replay window.
    TooOld,
    /// It did not authenticate.
    Integrity,
    /// Its padding is not 1, 2, 3, … or longer than the packet.
    Padding,
    /// A dummy packet (next header 59): not an error.
    Dummy,
    /// Next header is neither 4 nor 41.
    NextHeader,
    /// The inner header is no IP header, or states more than there is.
    InnerHeader,
    /// The inner IP version is not what next header says.
    Version,
    /// The inner packet is outside the SA's selectors.
    Selectors,
    /// A later fragment under selectors that need its ports, and its first has not been seen.
    Fragment,
    /// Congestion was marked outside on a packet whose transport does not know ECN (RFC 6040 §4.2).
    Ecn,
}

impl DropReason {
    /// Number of reasons.
    pub const COUNT: usize = Self::ALL.len();
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::Length,
        Self::Lifetime,
        Self::Replayed,
        Self::TooOld,
        Self::Integrity,
        Self::Padding,
        Self::Dummy,
        Self::NextHeader,
        Self::InnerHeader,
        Self::Version,
        Self::Selectors,
        Self::Fragment,
        Self::Ecn,
    ];

    /// A short name for status output and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Lifetime => "lifetime",
            Self::Replayed => "replayed",
            Self::TooOld => "too-old",
            Self::Integrity => "integrity",
            Self::Padding => "padding",
            Self::Dummy => "dummy",
            Self::NextHeader => "next-header",
            Self::InnerHeader => "inner-header",
            Self::Version => "inner-version",
            Self::Selectors => "selectors",
            Self::Fragment => "fragment",
            Self::Ecn => "ecn",
        }
    }
}

impl InboundSa {
    /// Opens `datagram`, an ESP packet of this SA from its SPI on, in place.
    ///
    /// `outer` is the ECN field of the outer header. The inner packet has ECN already carried over;
    /// the bytes before it, ESP header and IV, are free for the caller to use.
    pub fn open(&self, datagram: &mut [u8], outer: Ecn, fragments: &mut FragmentTable) -> Opened {
        let (payload, next_header) = match self.authenticate(datagram) {
            Ok(opened) => opened,
            Err(reason) => return self.dropped(reason, false),
        };
        let first_authenticated = self.note_authenticated();
        let (payload, next_header) = match (payload, next_header) {
            (Some(payload), next_header) => (payload, next_header),
            (None, _) => return self.dropped(DropReason::Padding, first_authenticated),
        };
        let inner = match self.admit(datagram, payload, next_header, outer, fragments) {
            Ok(inner) => inner,
            Err(reason) => return self.dropped(reason, first_authenticated),
        };
        let limit = self.note_delivered(inner.packet.len);
        Opened {
            inner: Ok(inner),
            first_authenticated,
            limit,
        }
    }

    /// RFC 4303 §3.4.3 and §3.4.4: replay check, integrity check with decryption, only then the window.
    /// The payload's place is `None` where padding is wrong, which is found out after authentication.
    fn authenticate(&self, datagram: &mut [u8]) -> Result<(Option<Range<usize>>, u8), DropReason> {
        let header = EspHeader::parse(datagram).ok_or(DropReason::Length)?;
        if self.is_over() {
            return Err(DropReason::Lifetime);
        }
        let seq = self.replay().check(header.seq)?;
        let start = EspHeader::LEN + self.opener().suite().iv_len();
        let plain = self.opener().open_in_place(seq, datagram)?;
        self.replay().commit(seq)?;
        let Some((payload, padding, trailer)) = EspTrailer::split(plain) else {
            return Ok((None, 0));
        };
        let range = start..start + payload.len();
        let intact = EspTrailer::is_default_padding(padding);
        Ok((intact.then_some(range), trailer.next_header))
    }

    /// What RFC 4301 §5.2 asks of an authentic packet.
    fn admit(
        &self,
        datagram: &mut [u8],
        payload: Range<usize>,
        next_header: u8,
        outer: Ecn,
        fragments: &mut FragmentTable,
    ) -> Result<Inner, DropReason> {
        let expected = match next_header {
            protocol::IPV4 => Version::V4,
            protocol::IPV6 => Version::V6,
            protocol::NO_NEXT_HEADER => return Err(DropReason::Dummy),
            _ => return Err(DropReason::NextHeader),
        };
        let start = payload.start;
        let bytes = datagram.get_mut(payload).ok_or(DropReason::Length)?;
        let packet = IpPacket::parse(bytes).map_err(|_| DropReason::InnerHeader)?;
        if packet.version != expected {
            return Err(DropReason::Version);
        }
        let flow = Flow::of(&packet, bytes);
        if !packet.is_later_fragment() || !self.selectors().needs_ports() {
            self.selectors()
                .match_inbound(&flow)
                .then_some(())
                .ok_or(DropReason::Selectors)?;
            if packet.fragment.is_some() && self.selectors().needs_ports() {
                // Only what this SA may carry is remembered, or one peer could say what ports the
                // fragments of another have: the table serves all SAs.
                let _remembered = fragments.resolve(&packet, flow);
            }
        } else {
            // A later fragment whose first is unknown may still match where ports do not matter.
            let (flow, reason) = match fragments.resolve(&packet, flow) {
                Some(resolved) => (resolved, DropReason::Selectors),
                None => (flow, DropReason::Fragment),
            };
            self.selectors()
                .match_inbound(&flow)
                .then_some(())
                .ok_or(reason)?;
        }
        let inner_ecn = Ecn::of(packet.tos);
        let ecn = Ecn::decapsulate(inner_ecn, outer).ok_or(DropReason::Ecn)?;
        let mut packet = packet;
        if ecn != inner_ecn {
            tos::set_ecn(packet.version, bytes, ecn);
            packet.tos = packet.tos & !0b11 | ecn.bits();
        }
        // What follows the inner packet is padding for traffic flow confidentiality (RFC 4303 §2.7).
        Ok(Inner {
            range: start..start + packet.len,
            packet,
        })
    }

    fn dropped(&self, reason: DropReason, first_authenticated: bool) -> Opened {
        self.note_drop(reason);
        Opened {
            inner: Err(reason),
            first_authenticated,
            limit: None,
        }
    }
}

impl From<Refused> for DropReason {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Replayed => Self::Replayed,
            Refused::TooOld => Self::TooOld,
        }
    }
}

impl From<cygnet_crypto::OpenError> for DropReason {
    fn from(error: cygnet_crypto::OpenError) -> Self {
        match error {
            cygnet_crypto::OpenError::Length { .. } => Self::Length,
            cygnet_crypto::OpenError::Integrity => Self::Integrity,
            cygnet_crypto::OpenError::Padding { .. } => Self::Padding,
        }
    }
}

#[cfg(test)]
mod tests;
