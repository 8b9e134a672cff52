//! UDP port 4500 carries IKE, ESP, and NAT keepalives side by side (RFC 3948 §2).

/// Four zero octets in front of an IKE message, where ESP has its SPI.
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// The one octet that keeps a NAT's mapping alive.
pub const KEEPALIVE: [u8; 1] = [0xff];

/// What a datagram to or from port 4500 carries.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |        Source Port            |      Destination Port         |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |           Length              |           Checksum            |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |   Non-ESP Marker (zero), or the SPI of ESP (never zero)       |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                 IKE header, or the rest of ESP                |
/// ~                                                               ~
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// One octet 0xFF: to be ignored.
    Keepalive,
    /// An IKE message, the marker removed.
    Ike(&'a [u8]),
    /// An ESP packet, from its SPI on; at least four octets.
    Esp(&'a [u8]),
    /// Too short to be any of them: to be counted and dropped.
    Runt,
}

impl<'a> Datagram<'a> {
    /// Looks at the first octets of a UDP payload.
    pub fn classify(payload: &'a [u8]) -> Self {
        if payload == KEEPALIVE {
            return Self::Keepalive;
        }
        match payload.split_first_chunk::<4>() {
            Some((&NON_ESP_MARKER, message)) => Self::Ike(message),
            Some(_) => Self::Esp(payload),
            None => Self::Runt,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_by_its_first_octets() {
        assert_eq!(Datagram::classify(&[0xff]), Datagram::Keepalive);
        assert_eq!(
            Datagram::classify(&[0, 0, 0, 0, 7, 8]),
            Datagram::Ike(&[7, 8])
        );
        assert_eq!(
            Datagram::classify(&[0, 0, 1, 0, 7]),
            Datagram::Esp(&[0, 0, 1, 0, 7])
        );
        assert_eq!(Datagram::classify(&[0xff; 5]), Datagram::Esp(&[0xff; 5]));
    }

    #[test]
    fn what_is_too_short_is_a_runt() {
        for runt in [&[][..], &[0], &[0xff, 0xff], &[0, 0, 0]] {
            assert_eq!(Datagram::classify(runt), Datagram::Runt);
        }
    }
}
