//! The Vendor ID payload (RFC 7296 §3.12).

use std::borrow::Cow;

/// Announces an implementation or one of its extensions.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                        Vendor ID (VID)                        ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VendorPayload<'a> {
    /// Usually a hash of the vendor's name for the extension.
    pub vid: Cow<'a, [u8]>,
}

impl<'a> VendorPayload<'a> {
    /// Of borrowed or owned octets.
    pub fn new(vid: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { vid: vid.into() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::payload::{Payload, PayloadType};
    use crate::testing::{self, assert_round_trip, emit_body, parse_body};

    #[test]
    fn octets() {
        let payload = VendorPayload::new(&b"cygnet"[..]);
        assert_eq!(emit_body(payload.clone()), b"cygnet");
        assert_eq!(
            parse_body(PayloadType::VENDOR, b"cygnet"),
            Ok(Payload::Vendor(payload))
        );
    }

    proptest! {
        #[test]
        fn round_trip(payload in testing::vendor()) {
            assert_round_trip(payload);
        }
    }
}
