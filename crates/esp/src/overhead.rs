//! What ESP adds to a packet, for MTU, MSS and buffer sizes.

use cygnet_crypto::suite::EspSuite;
use cygnet_wire::esp::{EspHeader, EspTrailer};
use cygnet_wire::ip::{Ipv4Header, Ipv6Header, TcpHeader, UdpHeader, Version};

/// The lengths of a suite's parts of an ESP packet, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overhead {
    iv_len: usize,
    icv_len: usize,
    pad_to: usize,
}

/// What carries the ESP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// UDP (RFC 3948).
    Udp,
    /// IP itself, protocol 50.
    None,
}

impl Overhead {
    /// The overhead of a suite.
    pub fn of(suite: EspSuite) -> Self {
        Self {
            iv_len: suite.iv_len(),
            icv_len: suite.icv_len(),
            pad_to: suite.pad_to(),
        }
    }

    /// Where the inner packet begins in a sealed one.
    pub fn inner_at(self) -> usize {
        EspHeader::LEN + self.iv_len
    }

    /// Length of the ESP packet that carries `inner_len` bytes.
    pub fn sealed_len(self, inner_len: usize) -> usize {
        let encrypted = (inner_len + EspTrailer::LEN).next_multiple_of(self.pad_to);
        self.inner_at() + encrypted + self.icv_len
    }

    /// The longest inner packet in an ESP packet of at most `len` bytes.
    pub fn max_inner_in(self, len: usize) -> usize {
        let encrypted = len.saturating_sub(self.inner_at() + self.icv_len);
        (encrypted - encrypted % self.pad_to).saturating_sub(EspTrailer::LEN)
    }

    /// The longest inner packet on a path: the tunnel's MTU there.
    ///
    /// `outer_mtu` is that of the path, IP header included.
    pub fn max_inner_len(
        self,
        outer_mtu: usize,
        encapsulation: Encapsulation,
        outer: Version,
    ) -> usize {
        let ip = match outer {
            Version::V4 => Ipv4Header::LEN,
            Version::V6 => Ipv6Header::LEN,
        };
        let udp = match encapsulation {
            Encapsulation::Udp => UdpHeader::LEN,
            Encapsulation::None => 0,
        };
        self.max_inner_in(outer_mtu.saturating_sub(ip + udp))
    }

    /// The longest TCP payload in an inner packet of `max_inner` bytes without options: what MSS is
    /// clamped to (RFC 9293 §3.7.1).
    pub fn tcp_mss(max_inner: usize, inner: Version) -> usize {
        let ip = match inner {
            Version::V4 => Ipv4Header::LEN,
            Version::V6 => Ipv6Header::LEN,
        };
        max_inner.saturating_sub(ip + TcpHeader::LEN)
    }

    /// Bytes at the end of a sealed packet that are its ICV.
    pub fn icv_len(self) -> usize {
        self.icv_len
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{suite_cbc, suite_chacha, suite_gcm};

    #[test]
    fn well_known_numbers() {
        // 1500 - 20 - 8 - 8 - 8 - 16 = 1440 in multiples of four, two of them the trailer.
        let gcm = Overhead::of(suite_gcm(true));
        assert_eq!(
            gcm.max_inner_len(1500, Encapsulation::Udp, Version::V4),
            1438
        );
        assert_eq!(
            gcm.max_inner_len(1500, Encapsulation::Udp, Version::V6),
            1418
        );
        assert_eq!(
            gcm.max_inner_len(1500, Encapsulation::None, Version::V4),
            1446
        );
        assert_eq!(Overhead::tcp_mss(1438, Version::V4), 1398);
        assert_eq!(Overhead::tcp_mss(1438, Version::V6), 1378);
        // 1500 - 20 - 8 - 8 - 16 - 16 = 1432, whole blocks of sixteen: 1424.
        let cbc = Overhead::of(suite_cbc(false));
        assert_eq!(
            cbc.max_inner_len(1500, Encapsulation::Udp, Version::V4),
            1422
        );
        assert_eq!(gcm.max_inner_len(10, Encapsulation::Udp, Version::V4), 0);
    }

    proptest! {
        #[test]
        fn the_longest_fits_and_one_more_does_not(mtu in 100usize..9000, kind in 0..3) {
            let suite = [suite_gcm(true), suite_chacha(true), suite_cbc(true)][kind as usize];
            let overhead = Overhead::of(suite);
            let inner = overhead.max_inner_in(mtu);
            prop_assert!(overhead.sealed_len(inner) <= mtu);
            prop_assert!(overhead.sealed_len(inner + 1) > mtu);
        }
    }
}
