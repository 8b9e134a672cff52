//! ESP on the wire (RFC 4303 §2).

/// The bytes that begin every ESP packet (RFC 4303 §2).
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ ----
/// |               Security Parameters Index (SPI)                 | ^Int.
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ |Cov-
/// |                      Sequence Number                          | |ered
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ | ----
/// |                    IV (variable)                              | |   ^
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ |   |
/// |                    Rest of Payload Data  (variable)           | |   |
/// ~                                                               ~ |   |
/// +               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ |   |Conf.
/// |               |         TFC Padding * (optional, variable)    | |   |Cov-
/// +-+-+-+-+-+-+-+-+         +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ |   |ered
/// |                         |        Padding (0-255 bytes)        | |   |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+     +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ |   |
/// |                               |  Pad Length   | Next Header   | v   v
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ ------
/// |         Integrity Check Value-ICV   (variable)                |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspHeader {
    /// Security Parameters Index, never 0 on the wire and above 255 when negotiated.
    pub spi: u32,
    /// The low 32 bits of the sequence number.
    pub seq: u32,
}

impl EspHeader {
    /// Length of the header, in bytes.
    pub const LEN: usize = 8;

    /// Reads the header, if that many bytes are there.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, d, e, f, g, h] = *bytes.first_chunk::<{ Self::LEN }>()?;
        Some(Self {
            spi: u32::from_be_bytes([a, b, c, d]),
            seq: u32::from_be_bytes([e, f, g, h]),
        })
    }

    /// The header as bytes.
    pub fn emit(&self) -> [u8; Self::LEN] {
        let [a, b, c, d] = self.spi.to_be_bytes();
        let [e, f, g, h] = self.seq.to_be_bytes();
        [a, b, c, d, e, f, g, h]
    }
}

/// The two bytes that end what is encrypted: Pad Length and Next Header (RFC 4303 §2.5, §2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspTrailer {
    /// Number of padding bytes before the trailer.
    pub pad_len: u8,
    /// Protocol of the payload: 4 or 41 in tunnel mode, 59 in a dummy packet.
    pub next_header: u8,
}

impl EspTrailer {
    /// Length of the trailer, in bytes.
    pub const LEN: usize = 2;

    /// Splits decrypted bytes into payload data (with padding for traffic flow confidentiality, if
    /// any), padding, and trailer. `None` when they are shorter than the trailer claims.
    pub fn split(plain: &[u8]) -> Option<(&[u8], &[u8], Self)> {
        let (rest, &[pad_len, next_header]) = plain.split_last_chunk::<{ Self::LEN }>()?;
        let (payload, padding) = rest.split_at_checked(rest.len().checked_sub(pad_len.into())?)?;
        Some((
            payload,
            padding,
            Self {
                pad_len,
                next_header,
            },
        ))
    }

    /// Whether padding is 1, 2, 3, … as RFC 4303 §2.4 prescribes where the cipher says nothing else.
    pub fn is_default_padding(padding: &[u8]) -> bool {
        padding
            .iter()
            .zip(1u8..=255)
            .all(|(byte, expected)| *byte == expected)
    }

    /// Fills `out` with the default padding for it: everything but the last two bytes counts
    /// 1, 2, 3, …; those hold the trailer. Lengths beyond 257 bytes are not padding and are cut.
    pub fn emit(out: &mut [u8], next_header: u8) {
        let Some((padding, trailer)) = out.split_last_chunk_mut::<{ Self::LEN }>() else {
            return;
        };
        let mut pad_len = 0;
        for (byte, value) in padding.iter_mut().zip(1u8..=255) {
            *byte = value;
            pad_len = value;
        }
        *trailer = [pad_len, next_header];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn header_example() {
        let bytes = [0xc0, 0xff, 0xee, 0x01, 0, 0, 0, 42];
        let header = EspHeader::parse(&bytes).unwrap();
        assert_eq!(
            header,
            EspHeader {
                spi: 0xc0ff_ee01,
                seq: 42
            }
        );
        assert_eq!(header.emit(), bytes);
        assert_eq!(EspHeader::parse(&bytes[..7]), None);
    }

    #[test]
    fn trailer_example() {
        let mut out = [0xee; 5];
        EspTrailer::emit(&mut out, 4);
        assert_eq!(out, [1, 2, 3, 3, 4]);
        let plain = [&[0x45, 0x00][..], &out].concat();
        let (payload, padding, trailer) = EspTrailer::split(&plain).unwrap();
        assert_eq!((payload, padding), (&[0x45, 0x00][..], &[1, 2, 3][..]));
        assert_eq!(
            trailer,
            EspTrailer {
                pad_len: 3,
                next_header: 4
            }
        );
        assert!(EspTrailer::is_default_padding(padding));
        assert!(!EspTrailer::is_default_padding(&[1, 2, 4]));
        assert_eq!(EspTrailer::split(&[1, 2, 3, 4]), None);
        assert_eq!(EspTrailer::split(&[4]), None);
    }

    proptest! {
        #[test]
        fn trailer_round_trips(payload in proptest::collection::vec(any::<u8>(), 0..64), pad in 0usize..=255, next: u8) {
            let mut plain = payload.clone();
            plain.resize(payload.len() + pad + 2, 0);
            EspTrailer::emit(&mut plain[payload.len()..], next);
            let (back, padding, trailer) = EspTrailer::split(&plain).unwrap();
            prop_assert_eq!(back, &payload[..]);
            prop_assert!(EspTrailer::is_default_padding(padding));
            prop_assert_eq!(trailer, EspTrailer { pad_len: pad as u8, next_header: next });
        }
    }
}
