//! The Authentication payload (RFC 7296 §3.8) and the signature format of RFC 7427.

use std::borrow::Cow;

use crate::codec::{Reader, Writer};
use crate::error::{EmitError, ParseError};

/// Proof that the sender holds the key of its identity.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Auth Method   |                RESERVED                       |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                      Authentication Data                      ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthPayload<'a> {
    /// How `data` was computed.
    pub method: AuthMethod,
    /// A MAC or a signature; for [`AuthMethod::DIGITAL_SIGNATURE`] a [`DigitalSignature`].
    pub data: Cow<'a, [u8]>,
}

/// The Authentication Data of method 14 (RFC 7427 §3).
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | ASN.1 Length  | AlgorithmIdentifier ASN.1 object              |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~        AlgorithmIdentifier ASN.1 object continuing            ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                         Signature Value                       ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigitalSignature<'a> {
    /// DER of the AlgorithmIdentifier, its outer SEQUENCE included.
    pub algorithm: &'a [u8],
    /// In the algorithm's own encoding.
    pub signature: &'a [u8],
}

wire_number! {
    /// IANA "IKEv2 Authentication Method".
    AuthMethod(u8) {
        RSA_DIGITAL_SIGNATURE = 1,
        SHARED_KEY_MIC = 2,
        DSS_DIGITAL_SIGNATURE = 3,
        ECDSA_SHA256_P256 = 9,
        ECDSA_SHA384_P384 = 10,
        ECDSA_SHA512_P521 = 11,
        GENERIC_SECURE_PASSWORD = 12,
        NULL = 13,
        DIGITAL_SIGNATURE = 14,
    }
}

impl<'a> AuthPayload<'a> {
    /// Of borrowed or owned data.
    pub fn new(method: AuthMethod, data: impl Into<Cow<'a, [u8]>>) -> Self {
        Self {
            method,
            data: data.into(),
        }
    }

    /// Reads the body of the payload.
    pub fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new("Authentication payload", body);
        let method = AuthMethod(reader.u8()?);
        reader.take(3)?;
        Ok(Self::new(method, reader.rest()))
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.u8(self.method.0);
        writer.bytes(&[0; 3]);
        writer.bytes(&self.data);
    }
}

impl<'a> DigitalSignature<'a> {
    /// Splits the Authentication Data of method 14.
    pub fn parse(data: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new("Digital Signature authentication data", data);
        let length = reader.u8()?;
        let algorithm = reader.take(usize::from(length))?;
        Ok(Self {
            algorithm,
            signature: reader.rest(),
        })
    }

    /// The Authentication Data of method 14.
    pub fn emit(&self) -> Result<Vec<u8>, EmitError> {
        let mut writer = Writer::default();
        writer.count_u8("an AlgorithmIdentifier", self.algorithm.len());
        writer.bytes(self.algorithm);
        writer.bytes(self.signature);
        writer.finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{self, assert_round_trip, emit_body, hex};

    #[test]
    fn octets() {
        let body = hex("02 000000 cafe");
        let payload = AuthPayload::new(AuthMethod::SHARED_KEY_MIC, vec![0xca, 0xfe]);
        assert_eq!(AuthPayload::parse(&body), Ok(payload.clone()));
        assert_eq!(emit_body(payload), body);
    }

    /// The AlgorithmIdentifier is ecdsa-with-SHA256 of RFC 7427 §A.3.2.
    #[test]
    fn octets_of_a_digital_signature() {
        let data = hex("0c 300a06082a8648ce3d040302 beef");
        let parsed = DigitalSignature::parse(&data).unwrap();
        assert_eq!(parsed.algorithm, hex("300a06082a8648ce3d040302"));
        assert_eq!(parsed.signature, [0xbe, 0xef]);
        assert_eq!(parsed.emit().unwrap(), data);
    }

    #[test]
    fn an_algorithm_longer_than_the_data_is_refused() {
        let what = "Digital Signature authentication data";
        assert_eq!(
            DigitalSignature::parse(&[12, 0x30]),
            Err(ParseError::Truncated {
                what,
                needed: 12,
                available: 1
            })
        );
        assert!(
            DigitalSignature {
                algorithm: &[0; 256],
                signature: &[]
            }
            .emit()
            .is_err()
        );
    }

    proptest! {
        #[test]
        fn round_trip(payload in testing::auth()) {
            assert_round_trip(payload);
        }

        #[test]
        fn round_trip_of_a_digital_signature(
            algorithm in vec(any::<u8>(), 0..=255),
            signature in vec(any::<u8>(), 0..99),
        ) {
            let value = DigitalSignature { algorithm: &algorithm, signature: &signature };
            let data = value.emit().unwrap();
            assert_eq!(DigitalSignature::parse(&data), Ok(value));
        }
    }
}
