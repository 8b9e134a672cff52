//! The Certificate and Certificate Request payloads (RFC 7296 §3.6, §3.7).

use std::borrow::Cow;

use crate::codec::{Reader, Writer};
use crate::error::ParseError;

/// Length of the hash that names a certification authority (SHA-1 of its public key info).
pub const AUTHORITY_LEN: usize = 20;

/// One certificate, CRL, or other proof. The end entity's certificate comes first.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Cert Encoding |                                               |
/// +-+-+-+-+-+-+-+-+                                               |
/// ~                       Certificate Data                        ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertPayload<'a> {
    /// How to read `data`.
    pub encoding: CertEncoding,
    /// DER, for X.509.
    pub data: Cow<'a, [u8]>,
}

/// What kinds of certificates the sender wants, and from which authorities.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Cert Encoding |                                               |
/// +-+-+-+-+-+-+-+-+                                               |
/// ~                    Certification Authority                    ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertReqPayload<'a> {
    /// Which certificates are wanted.
    pub encoding: CertEncoding,
    /// For X.509: hashes of authorities' keys, one after the other; empty means any authority.
    pub authorities: Cow<'a, [u8]>,
}

wire_number! {
    /// IANA "IKEv2 Certificate Encodings".
    CertEncoding(u8) {
        PKCS7_WRAPPED_X509 = 1,
        PGP = 2,
        DNS_SIGNED_KEY = 3,
        X509_SIGNATURE = 4,
        KERBEROS_TOKEN = 6,
        CRL = 7,
        ARL = 8,
        SPKI = 9,
        X509_ATTRIBUTE = 10,
        RAW_RSA_KEY = 11,
        HASH_AND_URL_X509 = 12,
        HASH_AND_URL_BUNDLE = 13,
        OCSP_CONTENT = 14,
        RAW_PUBLIC_KEY = 15,
    }
}

impl<'a> CertPayload<'a> {
    /// An X.509 certificate in DER.
    pub fn x509(der: impl Into<Cow<'a, [u8]>>) -> Self {
        Self {
            encoding: CertEncoding::X509_SIGNATURE,
            data: der.into(),
        }
    }

    /// Reads the body of the payload.
    pub fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new("Certificate payload", body);
        let encoding = CertEncoding(reader.u8()?);
        Ok(Self {
            encoding,
            data: reader.rest().into(),
        })
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.u8(self.encoding.0);
        writer.bytes(&self.data);
    }
}

impl<'a> CertReqPayload<'a> {
    /// X.509 certificates of any of these authorities.
    pub fn x509(authorities: &[[u8; AUTHORITY_LEN]]) -> CertReqPayload<'static> {
        CertReqPayload {
            encoding: CertEncoding::X509_SIGNATURE,
            authorities: authorities.concat().into(),
        }
    }

    /// Reads the body of the payload.
    pub fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new("Certificate Request payload", body);
        let encoding = CertEncoding(reader.u8()?);
        let authorities = reader.rest();
        if encoding == CertEncoding::X509_SIGNATURE
            && !authorities.len().is_multiple_of(AUTHORITY_LEN)
        {
            return Err(ParseError::Length {
                what: "Certification Authority field",
                expected: "a multiple of 20 octets",
                got: authorities.len(),
            });
        }
        Ok(Self {
            encoding,
            authorities: authorities.into(),
        })
    }

    /// The authorities named, for the encodings that name them by hash.
    pub fn authorities(&self) -> impl Iterator<Item = &[u8; AUTHORITY_LEN]> {
        self.authorities.as_chunks().0.iter()
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.u8(self.encoding.0);
        writer.bytes(&self.authorities);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{self, assert_round_trip, emit_body, hex};

    #[test]
    fn octets_of_a_certificate() {
        let body = hex("04 3000");
        let payload = CertPayload::x509(vec![0x30, 0]);
        assert_eq!(CertPayload::parse(&body), Ok(payload.clone()));
        assert_eq!(emit_body(payload), body);
    }

    #[test]
    fn octets_of_a_request() {
        let body = [&[4][..], &[1; 20], &[2; 20]].concat();
        let payload = CertReqPayload::x509(&[[1; 20], [2; 20]]);
        let parsed = CertReqPayload::parse(&body).unwrap();
        assert_eq!(parsed, payload);
        assert_eq!(
            parsed.authorities().collect::<Vec<_>>(),
            [&[1; 20], &[2; 20]]
        );
        assert_eq!(emit_body(payload), body);
    }

    #[test]
    fn half_a_hash_is_refused() {
        let error = CertReqPayload::parse(&[4; 12]).unwrap_err();
        assert!(
            matches!(error, ParseError::Length { got: 11, .. }),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn round_trip(cert in testing::cert(), certreq in testing::certreq()) {
            assert_round_trip(cert);
            assert_round_trip(certreq);
        }
    }
}
