//! The Identification payloads IDi and IDr (RFC 7296 §3.5).

use std::fmt;
use std::net::IpAddr;

use crate::codec::{Reader, Writer};
use crate::error::ParseError;

/// An IDi or IDr payload.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |   ID Type     |                 RESERVED                      |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                   Identification Data                         ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdPayload {
    /// Who the sender claims to be, or (IDr of an initiator) wants to talk to.
    pub id: Identification,
    /// Zero in all we send. Kept because AUTH covers the octets as the peer sent them
    /// (RFC 7296 §2.15).
    pub reserved: [u8; 3],
}

/// An identity: its kind and its octets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identification {
    /// How to read `data`.
    pub ty: IdType,
    /// Not terminated, not padded.
    pub data: Vec<u8>,
}

wire_number! {
    /// IANA "IKEv2 Identification Payload ID Types".
    IdType(u8) {
        ID_IPV4_ADDR = 1,
        ID_FQDN = 2,
        ID_RFC822_ADDR = 3,
        ID_IPV6_ADDR = 5,
        ID_DER_ASN1_DN = 9,
        ID_DER_ASN1_GN = 10,
        ID_KEY_ID = 11,
        ID_FC_NAME = 12,
        ID_NULL = 13,
    }
}

impl IdPayload {
    /// As we send it.
    pub const fn new(id: Identification) -> Self {
        Self {
            id,
            reserved: [0; 3],
        }
    }

    /// Reads the body of the payload. A length that does not fit an address type is refused.
    pub fn parse(body: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new("Identification payload", body);
        let ty = IdType(reader.u8()?);
        let reserved = reader.array()?;
        let data = reader.rest();
        let fixed = match ty {
            IdType::ID_IPV4_ADDR => Some((4, "4 octets of ID_IPV4_ADDR")),
            IdType::ID_IPV6_ADDR => Some((16, "16 octets of ID_IPV6_ADDR")),
            _ => None,
        };
        if let Some((length, expected)) = fixed
            && data.len() != length
        {
            return Err(ParseError::Length {
                what: "Identification Data",
                expected,
                got: data.len(),
            });
        }
        Ok(Self {
            id: Identification {
                ty,
                data: data.to_vec(),
            },
            reserved,
        })
    }

    /// The payload without its generic header: `RestOfInitIDPayload` and `RestOfRespIDPayload`,
    /// which AUTH covers (RFC 7296 §2.15).
    pub fn body(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        self.write(&mut writer);
        writer.into_bytes()
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.u8(self.id.ty.0);
        writer.bytes(&self.reserved);
        writer.bytes(&self.id.data);
    }
}

impl Identification {
    /// A host name, without a trailing dot.
    pub fn fqdn(name: &str) -> Self {
        Self {
            ty: IdType::ID_FQDN,
            data: name.as_bytes().to_vec(),
        }
    }

    /// A mail address.
    pub fn email(address: &str) -> Self {
        Self {
            ty: IdType::ID_RFC822_ADDR,
            data: address.as_bytes().to_vec(),
        }
    }

    /// An IPv4 or IPv6 address.
    pub fn address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self {
                ty: IdType::ID_IPV4_ADDR,
                data: v4.octets().to_vec(),
            },
            IpAddr::V6(v6) => Self {
                ty: IdType::ID_IPV6_ADDR,
                data: v6.octets().to_vec(),
            },
        }
    }

    /// A distinguished name in DER.
    pub fn dn(der: &[u8]) -> Self {
        Self {
            ty: IdType::ID_DER_ASN1_DN,
            data: der.to_vec(),
        }
    }

    /// Octets that mean something to the two sides only.
    pub fn key_id(octets: &[u8]) -> Self {
        Self {
            ty: IdType::ID_KEY_ID,
            data: octets.to_vec(),
        }
    }

    /// The address, if the identity is one.
    pub fn to_address(&self) -> Option<IpAddr> {
        match self.ty {
            IdType::ID_IPV4_ADDR => <[u8; 4]>::try_from(self.data.as_slice())
                .ok()
                .map(IpAddr::from),
            IdType::ID_IPV6_ADDR => <[u8; 16]>::try_from(self.data.as_slice())
                .ok()
                .map(IpAddr::from),
            _ => None,
        }
    }

    /// The text, if the identity is a name or mail address in UTF-8.
    pub fn to_text(&self) -> Option<&str> {
        match self.ty {
            IdType::ID_FQDN | IdType::ID_RFC822_ADDR => std::str::from_utf8(&self.data).ok(),
            _ => None,
        }
    }
}

/// Text as it is, with control characters escaped; an address; anything else as type and
/// hexadecimal octets.
impl fmt::Display for Identification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.to_address() {
            return address.fmt(f);
        }
        if let Some(text) = self.to_text() {
            return text.escape_debug().fmt(f);
        }
        write!(f, "{}:", self.ty)?;
        self.data
            .iter()
            .try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Identification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identification({} {self})", self.ty)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::payload::Payload;
    use crate::testing::{self, assert_round_trip, emit_body, hex};

    #[test]
    fn octets() {
        let body = hex("02 000000 6777612e6c6162");
        let payload = IdPayload::new(Identification::fqdn("gwa.lab"));
        assert_eq!(IdPayload::parse(&body), Ok(payload.clone()));
        assert_eq!(payload.body(), body);
        assert_eq!(emit_body(Payload::Idi(payload)), body);
    }

    #[test]
    fn reserved_octets_survive_because_auth_covers_them() {
        let body = hex("01 aabbcc c0000201");
        let payload = IdPayload::parse(&body).unwrap();
        assert_eq!(payload.id, Identification::address([192, 0, 2, 1].into()));
        assert_eq!(payload.body(), body);
    }

    #[test]
    fn an_address_has_its_length() {
        let error = IdPayload::parse(&hex("01 000000 c00002")).unwrap_err();
        let expected = "4 octets of ID_IPV4_ADDR";
        assert_eq!(
            error,
            ParseError::Length {
                what: "Identification Data",
                expected,
                got: 3
            }
        );
        assert!(IdPayload::parse(&hex("05 000000 c0000201")).is_err());
    }

    #[test]
    fn display_never_shows_control_characters() {
        assert_eq!(
            Identification::email("a@b.example").to_string(),
            "a@b.example"
        );
        assert_eq!(
            Identification::fqdn("x\n\x1b[0m").to_string(),
            "x\\n\\u{1b}[0m"
        );
        assert_eq!(
            Identification::key_id(&[0xab, 1]).to_string(),
            "ID_KEY_ID:ab01"
        );
        let address = Identification::address("2001:db8::1".parse().unwrap());
        assert_eq!(address.to_string(), "2001:db8::1");
        let not_text = Identification {
            ty: IdType::ID_FQDN,
            data: vec![0xff],
        };
        assert_eq!(not_text.to_string(), "ID_FQDN:ff");
    }

    proptest! {
        #[test]
        fn round_trip(payload in testing::id()) {
            assert_eq!(IdPayload::parse(&payload.body()), Ok(payload.clone()));
            assert_round_trip(Payload::Idi(payload.clone()));
            assert_round_trip(Payload::Idr(payload));
        }
    }
}
