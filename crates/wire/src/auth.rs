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
