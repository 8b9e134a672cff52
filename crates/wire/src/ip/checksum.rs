//! The Internet checksum (RFC 1071): sums that can be joined, and its incremental update (RFC 1624).
//!
//! Sums are taken over native-order words, which gives the same result as network order once it is
//! stored in native order (RFC 1071 §2 (B)), and lets the compiler use vector instructions.

use std::net::IpAddr;

/// A one's complement sum in progress.
///
/// Parts may be added in any order as long as each starts at an even offset of the whole; every
/// part but the last has to be of even length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Adds `bytes`; an odd last byte is padded with zero, as RFC 1071 says.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        // Four lanes keep the additions independent of each other, so that they become vector
        // additions. A lane grows by less than 2^32 per 16 bytes: no overflow below 2^36 bytes.
        let mut lanes = [0u64; 4];
        let (blocks, rest) = bytes.as_chunks::<16>();
        for block in blocks {
            let (words, _) = block.as_chunks::<4>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        let mut sum = lanes.iter().sum::<u64>();
        let (words, tail) = rest.as_chunks::<2>();
        for word in words {
            sum += u64::from(u16::from_ne_bytes(*word));
        }
        if let [last] = tail {
            sum += u64::from(u16::from_ne_bytes([*last, 0]));
        }
        Self(self.0 + u64::from(fold(sum)))
    }

    /// Adds one 16-bit word given as a number.
    #[must_use]
    pub fn word(self, word: u16) -> Self {
        Self(self.0 + u64::from(u16::from_ne_bytes(word.to_be_bytes())))
    }

    /// Takes one 16-bit word away again (RFC 1624: adding its complement).
    #[must_use]
    pub fn without_word(self, word: u16) -> Self {
        self.word(!word)
    }

    /// Adds another sum, of bytes at an even offset of the whole.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The sum folded to 16 bits, as a number: what the checksum field holds while a checksum is
    /// still to be completed by someone else (virtio's NEEDS_CSUM).
    pub fn partial(self) -> u16 {
        u16::from_be_bytes(fold(self.0).to_ne_bytes())
    }

    /// The checksum: the complement of the folded sum, as a number.
    pub fn checksum(self) -> u16 {
        !self.partial()
    }

    /// Whether a sum that includes the checksum field shows an intact packet.
    pub fn is_valid(self) -> bool {
        fold(self.0) == 0xffff
    }
}

/// The sum of the pseudo-header: addresses, upper-layer length and protocol
/// (RFC 9293 §3.1, RFC 768, RFC 8200 §8.1).
///
/// ```text
/// +--------+--------+--------+--------+
/// |           Source Address          |
/// +--------+--------+--------+--------+
/// |         Destination Address       |
/// +--------+--------+--------+--------+
/// |  zero  |  PTCL  |    TCP Length   |
/// +--------+--------+--------+--------+
/// ```
pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Sum {
    address(src)
        .join(address(dst))
        .join(pseudo_tail(protocol, len))
}

/// The part of the pseudo-header after the addresses.
pub fn pseudo_tail(protocol: u8, len: usize) -> Sum {
    // Both families place length and protocol so that they add as plain numbers. An upper-layer
    // length beyond 16 bits exists only in jumbograms, which are not carried.
    let len = u16::try_from(len).unwrap_or(u16::MAX);
    Sum::default().word(len).word(u16::from(protocol))
}

/// The checksum field of an IPv4 header, given all its bytes; the field itself is taken as zero.
pub fn ipv4_header(header: &[u8]) -> u16 {
    let (before, after) = header.split_at_checked(10).unwrap_or((header, &[]));
    Sum::default()
        .bytes(before)
        .bytes(after.get(2..).unwrap_or_default())
        .checksum()
}

/// A checksum after one 16-bit word it covers changed from `old` to `new` (RFC 1624 equation 3).
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    Sum::default()
        .word(!checksum)
        .word(!old)
        .word(new)
        .checksum()
}

fn address(addr: IpAddr) -> Sum {
    match addr {
        IpAddr::V4(addr) => Sum::default().bytes(&addr.octets()),
        IpAddr::V6(addr) => Sum::default().bytes(&addr.octets()),
    }
}

fn fold(mut sum: u64) -> u16 {
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    // Two folds leave at most 17 bits; the third brings the last carry in.
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn rfc_1071_section_3_example() {
        // RFC 1071 §3: 00 01 f2 03 f4 f5 f6 f7 sums to ddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().bytes(&bytes).partial(), 0xddf2);
        assert_eq!(Sum::default().bytes(&bytes).checksum(), !0xddf2);
    }

    #[test]
    fn rfc_1624_section_4_example() {
        // RFC 1624 §4: header checksum DD2F, a field changes from 5555 to 3285, result 0000.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    proptest! {
        #[test]
        fn sums_as_the_plain_definition_does(
            bytes in proptest::collection::vec(any::<u8>(), 0..3000),
            cut in 0usize..3000,
        ) {
            let cut = (cut & !1).min(bytes.len() & !1);
            let (left, right) = bytes.split_at(cut);
            let expected = naive(&bytes);
            prop_assert_eq!(Sum::default().bytes(&bytes).partial(), expected);
            prop_assert_eq!(Sum::default().bytes(left).bytes(right).partial(), expected);
            prop_assert_eq!(Sum::default().bytes(right).join(Sum::default().bytes(left)).partial(), expected);
        }

        #[test]
        fn update_equals_computing_afresh(mut words in proptest::collection::vec(1u16.., 2..20), at: usize, new: u16) {
            let bytes = |words: &[u16]| words.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<_>>();
            let before = Sum::default().bytes(&bytes(&words)).checksum();
            let at = at % words.len();
            let old = std::mem::replace(&mut words[at], new);
            let after = Sum::default().bytes(&bytes(&words)).checksum();
            prop_assert_eq!(update(before, old, new), after);
        }
    }
}
