//! The Configuration payload (RFC 7296 §3.15): addresses and names for a remote client.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::codec::{Reader, Writer};
use crate::error::ParseError;

/// Most attributes accepted in one Configuration payload.
pub const MAX_ATTRIBUTES: usize = 256;

/// A question for configuration, or its answer.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |   CFG Type    |                    RESERVED                   |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                   Configuration Attributes                    ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpPayload<'a> {
    /// Request, reply, set or acknowledgement.
    pub ty: CfgType,
    /// In the order sent.
    pub attributes: Vec<CfgAttribute<'a>>,
}

/// One attribute. `None` is an attribute without a value: in a request it asks for any.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |R|         Attribute Type      |            Length             |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                             Value                             ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CfgAttribute<'a> {
    /// INTERNAL_IP4_ADDRESS.
    Ip4Address(Option<Ipv4Addr>),
    /// INTERNAL_IP4_NETMASK.
    Ip4Netmask(Option<Ipv4Addr>),
    /// INTERNAL_IP4_DNS.
    Ip4Dns(Option<Ipv4Addr>),
    /// INTERNAL_IP4_NBNS: a WINS server.
    Ip4Nbns(Option<Ipv4Addr>),
    /// INTERNAL_IP4_DHCP.
    Ip4Dhcp(Option<Ipv4Addr>),
    /// INTERNAL_IP4_SUBNET: a protected subnet, as address and mask.
    Ip4Subnet(Option<(Ipv4Addr, Ipv4Addr)>),
    /// INTERNAL_IP6_ADDRESS, with the length of its prefix.
    Ip6Address(Option<(Ipv6Addr, u8)>),
    /// INTERNAL_IP6_DNS.
    Ip6Dns(Option<Ipv6Addr>),
    /// INTERNAL_IP6_DHCP.
    Ip6Dhcp(Option<Ipv6Addr>),
    /// INTERNAL_IP6_SUBNET: a protected subnet.
    Ip6Subnet(Option<(Ipv6Addr, u8)>),
    /// APPLICATION_VERSION: free text, not terminated.
    ApplicationVersion(Cow<'a, [u8]>),
    /// SUPPORTED_ATTRIBUTES: what the sender understands; empty in a request.
    SupportedAttributes(Vec<CfgAttributeType>),
    /// INTERNAL_DNS_DOMAIN (RFC 8598 §4.1): names below this one are asked inside the tunnel.
    DnsDomain(Cow<'a, [u8]>),
    /// Any other.
    Unknown {
        /// 15 bits.
        ty: CfgAttributeType,
        /// Not interpreted.
        value: Cow<'a, [u8]>,
    },
}

wire_number! {
    /// IANA "IKEv2 Configuration Payload CFG Types".
    CfgType(u8) {
        CFG_REQUEST = 1,
        CFG_REPLY = 2,
        CFG_SET = 3,
        CFG_ACK = 4,
    }
}

wire_number! {
    /// IANA "IKEv2 Configuration Payload Attribute Types".
    CfgAttributeType(u16) {
        INTERNAL_IP4_ADDRESS = 1,
        INTERNAL_IP4_NETMASK = 2,
        INTERNAL_IP4_DNS = 3,
        INTERNAL_IP4_NBNS = 4,
        INTERNAL_IP4_DHCP = 6,
        APPLICATION_VERSION = 7,
        INTERNAL_IP6_ADDRESS = 8,
        INTERNAL_IP6_DNS = 10,
        INTERNAL_IP6_DHCP = 12,
        INTERNAL_IP4_SUBNET = 13,
        SUPPORTED_ATTRIBUTES = 14,
        INTERNAL_IP6_SUBNET = 15,
        MIP6_HOME_PREFIX = 16,
        INTERNAL_IP6_LINK = 17,
        INTERNAL_IP6_PREFIX = 18,
        HOME_AGENT_ADDRESS = 19,
        P_CSCF_IP4_ADDRESS = 20,
        P_CSCF_IP6_ADDRESS = 21,
        FTT_KAT = 22,
        EXTERNAL_SOURCE_IP4_NAT_INFO = 23,
        TIMEOUT_PERIOD_FOR_LIVENESS_CHECK = 24,
        INTERNAL_DNS_DOMAIN = 25,
        INTERNAL_DNSSEC_TA = 26,
        ENCDNS_IP4 = 27,
        ENCDNS_IP6 = 28,
        ENCDNS_DIGEST_INFO = 29,
        // Of the numbers for private use (16384 to 32767), "cy" in ASCII: the address inside at which a server
        // measures speed, of 4 or 16 octets; none in a request. Microsoft's INTERNAL_IP4_SERVER (23456) would
        // mean nearly that, but strongSwan takes whoever asks for it for a Windows.
        CYGNET_SPEEDTEST = 25465,
    }
}

impl<'a> CpPayload<'a> {
    /// Of these attributes.
    pub const fn new(ty: CfgType, attributes: Vec<CfgAttribute<'a>>) -> Self {
        Self { ty, attributes }
    }

    /// Reads the body of the payload.
    pub fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new("Configuration payload", body);
        let ty = CfgType(reader.u8()?);
        reader.take(3)?;
        let mut attributes = Vec::new();
        while !reader.is_empty() {
            if attributes.len() == MAX_ATTRIBUTES {
                return Err(ParseError::TooMany {
                    what: "configuration attributes",
                    limit: MAX_ATTRIBUTES,
                });
            }
            let ty = CfgAttributeType(reader.u16()? & 0x7fff);
            let length = usize::from(reader.u16()?);
            attributes.push(CfgAttribute::parse(ty, reader.take(length)?)?);
        }
        Ok(Self { ty, attributes })
    }

    /// Copies what it borrows.
    pub fn into_owned(self) -> CpPayload<'static> {
        CpPayload {
            ty: self.ty,
            attributes: self
                .attributes
                .into_iter()
                .map(CfgAttribute::into_owned)
                .collect(),
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.u8(self.ty.0);
        writer.bytes(&[0; 3]);
        for attribute in &self.attributes {
            attribute.write(writer);
        }
    }
}

impl<'a> CfgAttribute<'a> {
    /// The number this attribute has on the wire.
    pub fn ty(&self) -> CfgAttributeType {
        match self {
            Self::Ip4Address(_) => CfgAttributeType::INTERNAL_IP4_ADDRESS,
            Self::Ip4Netmask(_) => CfgAttributeType::INTERNAL_IP4_NETMASK,
            Self::Ip4Dns(_) => CfgAttributeType::INTERNAL_IP4_DNS,
            Self::Ip4Nbns(_) => CfgAttributeType::INTERNAL_IP4_NBNS,
            Self::Ip4Dhcp(_) => CfgAttributeType::INTERNAL_IP4_DHCP,
            Self::Ip4Subnet(_) => CfgAttributeType::INTERNAL_IP4_SUBNET,
            Self::Ip6Address(_) => CfgAttributeType::INTERNAL_IP6_ADDRESS,
            Self::Ip6Dns(_) => CfgAttributeType::INTERNAL_IP6_DNS,
            Self::Ip6Dhcp(_) => CfgAttributeType::INTERNAL_IP6_DHCP,
            Self::Ip6Subnet(_) => CfgAttributeType::INTERNAL_IP6_SUBNET,
            Self::ApplicationVersion(_) => CfgAttributeType::APPLICATION_VERSION,
            Self::SupportedAttributes(_) => CfgAttributeType::SUPPORTED_ATTRIBUTES,
            Self::DnsDomain(_) => CfgAttributeType::INTERNAL_DNS_DOMAIN,
            Self::Unknown { ty, .. } => *ty,
        }
    }

    /// Copies what it borrows.
    pub fn into_owned(self) -> CfgAttribute<'static> {
        match self {
            Self::Ip4Address(value) => CfgAttribute::Ip4Address(value),
            Self::Ip4Netmask(value) => CfgAttribute::Ip4Netmask(value),
            Self::Ip4Dns(value) => CfgAttribute::Ip4Dns(value),
            Self::Ip4Nbns(value) => CfgAttribute::Ip4Nbns(value),
            Self::Ip4Dhcp(value) => CfgAttribute::Ip4Dhcp(value),
            Self::Ip4Subnet(value) => CfgAttribute::Ip4Subnet(value),
            Self::Ip6Address(value) => CfgAttribute::Ip6Address(value),
            Self::Ip6Dns(value) => CfgAttribute::Ip6Dns(value),
            Self::Ip6Dhcp(value) => CfgAttribute::Ip6Dhcp(value),
            Self::Ip6Subnet(value) => CfgAttribute::Ip6Subnet(value),
            Self::ApplicationVersion(text) => {
                CfgAttribute::ApplicationVersion(text.into_owned().into())
            }
            Self::SupportedAttributes(types) => CfgAttribute::SupportedAttributes(types),
            Self::DnsDomain(name) => CfgAttribute::DnsDomain(name.into_owned().into()),
            Self::Unknown { ty, value } => CfgAttribute::Unknown {
                ty,
                value: value.into_owned().into(),
            },
        }
    }

    fn parse(ty: CfgAttributeType, value: &'a [u8]) -> Result<Self, ParseError> {
        Ok(match ty {
            CfgAttributeType::INTERNAL_IP4_ADDRESS => Self::Ip4Address(ip4(value)?),
            CfgAttributeType::INTERNAL_IP4_NETMASK => Self::Ip4Netmask(ip4(value)?),
            CfgAttributeType::INTERNAL_IP4_DNS => Self::Ip4Dns(ip4(value)?),
            CfgAttributeType::INTERNAL_IP4_NBNS => Self::Ip4Nbns(ip4(value)?),
            CfgAttributeType::INTERNAL_IP4_DHCP => Self::Ip4Dhcp(ip4(value)?),
            CfgAttributeType::INTERNAL_IP4_SUBNET => Self::Ip4Subnet(ip4_subnet(value)?),
            CfgAttributeType::INTERNAL_IP6_ADDRESS => Self::Ip6Address(ip6_prefix(value)?),
            CfgAttributeType::INTERNAL_IP6_DNS => Self::Ip6Dns(ip6(value)?),
            CfgAttributeType::INTERNAL_IP6_DHCP => Self::Ip6Dhcp(ip6(value)?),
            CfgAttributeType::INTERNAL_IP6_SUBNET => Self::Ip6Subnet(ip6_prefix(value)?),
            CfgAttributeType::APPLICATION_VERSION => Self::ApplicationVersion(value.into()),
            CfgAttributeType::SUPPORTED_ATTRIBUTES => Self::SupportedAttributes(types(value)?),
            CfgAttributeType::INTERNAL_DNS_DOMAIN => Self::DnsDomain(value.into()),
            ty => Self::Unknown {
                ty,
                value: value.into(),
            },
        })
    }

    fn write(&self, writer: &mut Writer) {
        writer.u16(self.ty().0 & 0x7fff);
        let start = writer.len();
        writer.u16(0);
        match self {
            Self::Ip4Address(value)
            | Self::Ip4Netmask(value)
            | Self::Ip4Dns(value)
            | Self::Ip4Nbns(value)
            | Self::Ip4Dhcp(value) => {
                if let Some(addr) = value {
                    writer.bytes(&addr.octets());
                }
            }
            Self::Ip4Subnet(value) => {
                if let Some((addr, mask)) = value {
                    writer.bytes(&addr.octets());
                    writer.bytes(&mask.octets());
                }
            }
            Self::Ip6Dns(value) | Self::Ip6Dhcp(value) => {
                if let Some(addr) = value {
                    writer.bytes(&addr.octets());
                }
            }
            Self::Ip6Address(value) | Self::Ip6Subnet(value) => {
                if let Some((addr, prefix_len)) = value {
                    writer.bytes(&addr.octets());
                    writer.u8(*prefix_len);
                }
            }
            Self::SupportedAttributes(types) => types.iter().for_each(|ty| writer.u16(ty.0)),
            Self::ApplicationVersion(value)
            | Self::DnsDomain(value)
            | Self::Unknown { value, .. } => writer.bytes(value),
        }
        writer.patch_length_u16("a configuration attribute", start, start + 2);
    }
}

fn wrong_length(expected: &'static str, value: &[u8]) -> ParseError {
    ParseError::Length {
        what: "configuration attribute",
        expected,
        got: value.len(),
    }
}

fn ip4(value: &[u8]) -> Result<Option<Ipv4Addr>, ParseError> {
    if value.is_empty() {
        return Ok(None);
    }
    match <[u8; 4]>::try_from(value) {
        Ok(addr) => Ok(Some(addr.into())),
        Err(_) => Err(wrong_length("0 or 4 octets of an IPv4 address", value)),
    }
}

fn ip6(value: &[u8]) -> Result<Option<Ipv6Addr>, ParseError> {
    if value.is_empty() {
        return Ok(None);
    }
    match <[u8; 16]>::try_from(value) {
        Ok(addr) => Ok(Some(addr.into())),
        Err(_) => Err(wrong_length("0 or 16 octets of an IPv6 address", value)),
    }
}

fn ip4_subnet(value: &[u8]) -> Result<Option<(Ipv4Addr, Ipv4Addr)>, ParseError> {
    if value.is_empty() {
        return Ok(None);
    }
    let expected = "0 or 8 octets of an IPv4 address and mask";
    match value.split_first_chunk::<4>() {
        Some((addr, mask)) => match <[u8; 4]>::try_from(mask) {
            Ok(mask) => Ok(Some(((*addr).into(), mask.into()))),
            Err(_) => Err(wrong_length(expected, value)),
        },
        None => Err(wrong_length(expected, value)),
    }
}

fn ip6_prefix(value: &[u8]) -> Result<Option<(Ipv6Addr, u8)>, ParseError> {
    match value.split_first_chunk::<16>() {
        _ if value.is_empty() => Ok(None),
        Some((addr, &[prefix_len])) if prefix_len <= 128 => Ok(Some(((*addr).into(), prefix_len))),
        Some((_, &[prefix_len])) => Err(ParseError::Value {
            what: "prefix length of a configuration attribute",
            expected: "at most 128",
            got: u64::from(prefix_len),
        }),
        _ => Err(wrong_length(
            "0 or 17 octets of an IPv6 address and prefix length",
            value,
        )),
    }
}

fn types(value: &[u8]) -> Result<Vec<CfgAttributeType>, ParseError> {
    let (types, rest) = value.as_chunks();
    if !rest.is_empty() {
        return Err(wrong_length(
            "a multiple of 2 octets for SUPPORTED_ATTRIBUTES",
            value,
        ));
    }
    if types.len() > MAX_ATTRIBUTES {
        return Err(ParseError::TooMany {
            what: "supported attributes",
            limit: MAX_ATTRIBUTES,
        });
    }
    Ok(types
        .iter()
        .map(|ty| CfgAttributeType(u16::from_be_bytes(*ty) & 0x7fff))
        .collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{self, assert_round_trip, emit_body, hex};

    #[test]
    fn octets_of_a_request() {
        let body = hex("01 000000 0001 0000 0003 0000 0008 0000 000a 0000");
        let payload = CpPayload::new(
            CfgType::CFG_REQUEST,
            vec![
                CfgAttribute::Ip4Address(None),
                CfgAttribute::Ip4Dns(None),
                CfgAttribute::Ip6Address(None),
                CfgAttribute::Ip6Dns(None),
            ],
        );
        assert_eq!(CpPayload::parse(&body), Ok(payload.clone()));
        assert_eq!(emit_body(payload), body);
    }

    #[test]
    fn octets_of_a_reply() {
        let body = hex("02 000000
             0001 0004 0a4d0001
             000d 0008 0a020000 ffffff00
             0008 0011 20010db8000000000000000000000001 40
             0007 0003 783132
             000e 0004 0001 0008
             0019 0003 6c6162
             5ba0 0002 abcd");
        let payload = CpPayload::new(
            CfgType::CFG_REPLY,
            vec![
                CfgAttribute::Ip4Address(Some([10, 77, 0, 1].into())),
                CfgAttribute::Ip4Subnet(Some(([10, 2, 0, 0].into(), [255, 255, 255, 0].into()))),
                CfgAttribute::Ip6Address(Some(("2001:db8::1".parse().unwrap(), 64))),
                CfgAttribute::ApplicationVersion(b"x12"[..].into()),
                CfgAttribute::SupportedAttributes(vec![
                    CfgAttributeType::INTERNAL_IP4_ADDRESS,
                    CfgAttributeType::INTERNAL_IP6_ADDRESS,
                ]),
                CfgAttribute::DnsDomain(b"lab"[..].into()),
                // INTERNAL_IP4_SERVER of Windows: a number of no registry.
                CfgAttribute::Unknown {
                    ty: CfgAttributeType(23456),
                    value: vec![0xab, 0xcd].into(),
                },
            ],
        );
        assert_eq!(CpPayload::parse(&body), Ok(payload.clone()));
        assert_eq!(emit_body(payload), body);
    }

    #[test]
    fn the_reserved_bit_is_ignored() {
        let body = hex("01 000000 8001 0000");
        let parsed = CpPayload::parse(&body).unwrap();
        assert_eq!(parsed.attributes, [CfgAttribute::Ip4Address(None)]);
    }

    #[test]
    fn values_have_the_length_of_their_type() {
        for bad in [
            "0001 0003 0a4d00",
            "000d 0004 0a020000",
            "0008 0010 20010db8000000000000000000000001",
            "0008 0011 20010db8000000000000000000000001 81",
            "000e 0003 000100",
            "0001 0004 0a4d",
        ] {
            assert!(
                CpPayload::parse(&hex(&format!("02 000000 {bad}"))).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn attributes_are_limited() {
        let body = [
            &hex("01 000000")[..],
            &hex("0001 0000").repeat(MAX_ATTRIBUTES),
        ]
        .concat();
        assert!(CpPayload::parse(&body).is_ok());
        let body = [&body[..], &hex("0001 0000")].concat();
        assert!(matches!(
            CpPayload::parse(&body),
            Err(ParseError::TooMany { .. })
        ));
    }

    proptest! {
        #[test]
        fn round_trip(payload in testing::cp()) {
            assert_eq!(payload.clone().into_owned(), payload);
            assert_round_trip(payload);
        }
    }
}
