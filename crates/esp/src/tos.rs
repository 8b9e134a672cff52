//! What of DSCP, ECN and DF passes between inner and outer header (RFC 4301 §5.1.2, RFC 6040).

use cygnet_wire::ip::{IpPacket, Version, checksum};

/// The two ECN bits (RFC 3168 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ecn {
    /// The transport does not understand ECN.
    NotEct,
    /// ECN-capable, codepoint ECT(1).
    Ect1,
    /// ECN-capable, codepoint ECT(0).
    Ect0,
    /// Congestion experienced.
    Ce,
}

impl Ecn {
    /// The bits of a TOS or traffic class octet.
    pub fn of(tos: u8) -> Self {
        match tos & 0b11 {
            0b00 => Self::NotEct,
            0b01 => Self::Ect1,
            0b10 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// As bits.
    pub fn bits(self) -> u8 {
        match self {
            Self::NotEct => 0b00,
            Self::Ect1 => 0b01,
            Self::Ect0 => 0b10,
            Self::Ce => 0b11,
        }
    }

    /// The inner field after decapsulation, given what arrived inside and outside; `None` where the
    /// packet has to be dropped (RFC 6040 §4.2, figure 4).
    ///
    /// ```text
    /// +---------+------------------------------------------------+
    /// |Arriving |            Arriving Outer Header               |
    /// |   Inner +---------+------------+------------+------------+
    /// |  Header | Not-ECT | ECT(0)     | ECT(1)     |     CE     |
    /// +---------+---------+------------+------------+------------+
    /// | Not-ECT | Not-ECT |Not-ECT(!!!)|Not-ECT(!!!)| <drop>(!!!)|
    /// |  ECT(0) |  ECT(0) | ECT(0)     | ECT(1)     |     CE     |
    /// |  ECT(1) |  ECT(1) | ECT(1) (!) | ECT(1)     |     CE     |
    /// |    CE   |      CE |     CE     |     CE(!!!)|     CE     |
    /// +---------+---------+------------+------------+------------+
    /// ```
    pub fn decapsulate(inner: Self, outer: Self) -> Option<Self> {
        match (inner, outer) {
            (Self::NotEct, Self::Ce) => None,
            (Self::Ect0 | Self::Ect1, Self::Ce) => Some(Self::Ce),
            (Self::Ect0, Self::Ect1) => Some(Self::Ect1),
            _ => Some(inner),
        }
    }
}

/// What becomes of the inner DSCP in the outer header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DscpPolicy {
    /// It is copied (RFC 4301 §5.1.2.1).
    #[default]
    Copy,
    /// The outer header always has this one, 0 to 63: nothing is told about what is inside.
    Fixed(u8),
}

/// The outer TOS or traffic class for an inner one. ECN is copied: RFC 6040 §4.1, normal mode, which
/// IKEv2 implies (RFC 4301 §5.1.2).
pub fn outer_tos(inner: u8, dscp: DscpPolicy) -> u8 {
    match dscp {
        DscpPolicy::Copy => inner,
        DscpPolicy::Fixed(dscp) => dscp << 2 | inner & 0b11,
    }
}

/// What becomes of DF in an outer IPv4 header (RFC 4301 §8.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DfPolicy {
    /// Set: the path's MTU is discovered, and inner packets are cut or refused before sealing.
    #[default]
    Set,
    /// Clear: routers may cut sealed packets.
    Clear,
    /// As in an inner IPv4 packet; set for IPv6.
    Copy,
}

impl DfPolicy {
    /// Whether the outer packet that carries `inner` has DF set.
    pub fn outer_df(self, inner: &IpPacket) -> bool {
        match self {
            Self::Set => true,
            Self::Clear => false,
            Self::Copy => inner.dont_fragment,
        }
    }
}

/// Writes `ecn` into a packet's header, with IPv4's checksum corrected.
pub(crate) fn set_ecn(version: Version, packet: &mut [u8], ecn: Ecn) {
    match version {
        Version::V4 => {
            let Some(header) = packet.first_chunk_mut::<20>() else {
                return;
            };
            let old = u16::from_be_bytes([header[0], header[1]]);
            header[1] = header[1] & !0b11 | ecn.bits();
            let new = u16::from_be_bytes([header[0], header[1]]);
            let sum = u16::from_be_bytes([header[10], header[11]]);
            [header[10], header[11]] = checksum::update(sum, old, new).to_be_bytes();
        }
        Version::V6 => {
            if let Some(byte) = packet.get_mut(1) {
                // The traffic class spans two octets; its ECN bits are bits 4 and 5 of the second.
                *byte = *byte & !0b0011_0000 | ecn.bits() << 4;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const ALL: [Ecn; 4] = [Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce];

    #[test]
    fn decapsulation_is_the_table_of_rfc_6040() {
        use Ecn::{Ce, Ect0, Ect1, NotEct};
        let table = [
            (NotEct, [Some(NotEct), Some(NotEct), Some(NotEct), None]),
            (Ect0, [Some(Ect0), Some(Ect0), Some(Ect1), Some(Ce)]),
            (Ect1, [Some(Ect1), Some(Ect1), Some(Ect1), Some(Ce)]),
            (Ce, [Some(Ce); 4]),
        ];
        for (inner, row) in table {
            assert_eq!(
                ALL.map(|outer| Ecn::decapsulate(inner, outer)),
                row,
                "inner {inner:?}"
            );
        }
    }

    #[test]
    fn outer_tos_copies_or_hides() {
        assert_eq!(outer_tos(0xb9, DscpPolicy::Copy), 0xb9);
        assert_eq!(outer_tos(0xb9, DscpPolicy::Fixed(0)), 0x01);
        assert_eq!(outer_tos(0x02, DscpPolicy::Fixed(46)), 0xba);
    }

    #[test]
    fn ecn_is_rewritten_in_both_families() {
        for ecn in ALL {
            let mut v4 = testing::udp_v4(b"x");
            set_ecn(Version::V4, &mut v4, ecn);
            assert_eq!(Ecn::of(IpPacket::parse(&v4).unwrap().tos), ecn);
            assert_eq!(checksum::ipv4_header(&v4[..20]).to_be_bytes(), v4[10..12]);
            let mut v6 = testing::udp_v6(b"x");
            let before = v6.clone();
            set_ecn(Version::V6, &mut v6, ecn);
            assert_eq!(Ecn::of(IpPacket::parse(&v6).unwrap().tos), ecn);
            set_ecn(Version::V6, &mut v6, Ecn::NotEct);
            assert_eq!(v6, before);
        }
    }

    #[test]
    fn df_follows_the_policy() {
        let packet = IpPacket::parse(&testing::udp_v4(b"x")).unwrap();
        let free = IpPacket {
            dont_fragment: false,
            ..packet
        };
        assert!(DfPolicy::Set.outer_df(&free) && !DfPolicy::Clear.outer_df(&packet));
        assert!(DfPolicy::Copy.outer_df(&packet) && !DfPolicy::Copy.outer_df(&free));
    }
}
