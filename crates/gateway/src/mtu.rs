//! How large a packet fits into the tunnel.

/// What an ESP suite adds to a packet (RFC 4303 §2), in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EspFraming {
    /// Explicit IV: 8 for AES-GCM and ChaCha20-Poly1305, 16 for CBC.
    pub iv: u16,
    /// Alignment of the ciphertext: 4 by RFC 4303 §2.4, 16 for CBC.
    pub block: u16,
    /// Integrity check value.
    pub icv: u16,
}

impl EspFraming {
    /// AES-GCM-16 and ChaCha20-Poly1305.
    pub const AEAD: Self = Self {
        iv: 8,
        block: 4,
        icv: 16,
    };
}

/// The largest inner packet whose ESP-in-UDP datagram fits into `link_mtu` (tunnel mode).
///
/// Outer header (20 or 40) + UDP (8, RFC 3948 §2.1) + SPI and sequence number (8) + IV +
/// ciphertext, a multiple of `block` that ends in pad length and next header + ICV.
/// Zero where nothing fits.
#[must_use]
pub fn inner_mtu(link_mtu: u16, outer_ipv6: bool, framing: EspFraming) -> u16 {
    let outer = if outer_ipv6 { 40 } else { 20 };
    let fixed = outer + 8 + 8 + framing.iv + framing.icv;
    let room = link_mtu.saturating_sub(fixed);
    let block = framing.block.max(1);
    (room / block * block).saturating_sub(2)
}

/// The largest TCP segment for an inner MTU: 20 bytes of TCP header, 20 or 40 of IP.
#[must_use]
pub fn tcp_mss(mtu: u16, ipv6: bool) -> u16 {
    mtu.saturating_sub(if ipv6 { 60 } else { 40 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes on the link for an inner packet, added up the other way round.
    fn outer_len(inner: u32, outer_ipv6: bool, f: EspFraming) -> u32 {
        let block = u32::from(f.block);
        let ciphertext = (inner + 2).div_ceil(block) * block;
        let ip = if outer_ipv6 { 40 } else { 20 };
        ip + 8 + 8 + u32::from(f.iv) + ciphertext + u32::from(f.icv)
    }

    #[test]
    fn ethernet() {
        assert_eq!(inner_mtu(1500, false, EspFraming::AEAD), 1438);
        assert_eq!(inner_mtu(1500, true, EspFraming::AEAD), 1418);
        let cbc = EspFraming {
            iv: 16,
            block: 16,
            icv: 16,
        };
        assert_eq!(inner_mtu(1500, false, cbc), 1422);
        assert_eq!(tcp_mss(1438, false), 1398);
        assert_eq!(tcp_mss(1438, true), 1378);
        assert_eq!(inner_mtu(40, true, EspFraming::AEAD), 0);
    }

    #[test]
    fn the_largest_that_fits_and_not_one_more() {
        for block in [4, 16] {
            let f = EspFraming {
                iv: 8,
                block,
                icv: 16,
            };
            for link in 600..1600u16 {
                for v6 in [false, true] {
                    let inner = u32::from(inner_mtu(link, v6, f));
                    assert!(outer_len(inner, v6, f) <= u32::from(link));
                    assert!(outer_len(inner + 1, v6, f) > u32::from(link));
                }
            }
        }
    }
}
