//! The Notify payload (RFC 7296 §3.10).

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use crate::codec::{Reader, Writer};
use crate::error::ParseError;
use crate::header::ChildSpi;
use crate::sa::{ProposalSpi, ProtocolId, TransformId};

/// An error, or a word about what the sender can do or has done.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |  Protocol ID  |   SPI Size    |      Notify Message Type      |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                Security Parameter Index (SPI)                 ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                       Notification Data                       ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifyPayload<'a> {
    /// [`ProtocolId::NONE`] unless an SA is named by `spi`.
    pub protocol: ProtocolId,
    /// The SA concerned, where it is not the one that carries the message.
    pub spi: ProposalSpi,
    /// What is said.
    pub ty: NotifyType,
    /// As the type wants it.
    pub data: Cow<'a, [u8]>,
}

wire_number! {
    /// IANA "IKEv2 Notify Message Types": errors below 16384, status types from there on.
    NotifyType(u16) {
        UNSUPPORTED_CRITICAL_PAYLOAD = 1,
        INVALID_IKE_SPI = 4,
        INVALID_MAJOR_VERSION = 5,
        INVALID_SYNTAX = 7,
        INVALID_MESSAGE_ID = 9,
        INVALID_SPI = 11,
        NO_PROPOSAL_CHOSEN = 14,
        INVALID_KE_PAYLOAD = 17,
        AUTHENTICATION_FAILED = 24,
        SINGLE_PAIR_REQUIRED = 34,
        NO_ADDITIONAL_SAS = 35,
        INTERNAL_ADDRESS_FAILURE = 36,
        FAILED_CP_REQUIRED = 37,
        TS_UNACCEPTABLE = 38,
        INVALID_SELECTORS = 39,
        UNACCEPTABLE_ADDRESSES = 40,
        UNEXPECTED_NAT_DETECTED = 41,
        USE_ASSIGNED_HOA = 42,
        TEMPORARY_FAILURE = 43,
        CHILD_SA_NOT_FOUND = 44,
        INVALID_GROUP_ID = 45,
        AUTHORIZATION_FAILED = 46,
        STATE_NOT_FOUND = 47,
        TS_MAX_QUEUE = 48,
        REGISTRATION_FAILED = 49,
        INITIAL_CONTACT = 16384,
        SET_WINDOW_SIZE = 16385,
        ADDITIONAL_TS_POSSIBLE = 16386,
        IPCOMP_SUPPORTED = 16387,
        NAT_DETECTION_SOURCE_IP = 16388,
        NAT_DETECTION_DESTINATION_IP = 16389,
        COOKIE = 16390,
        USE_TRANSPORT_MODE = 16391,
        HTTP_CERT_LOOKUP_SUPPORTED = 16392,
        REKEY_SA = 16393,
        ESP_TFC_PADDING_NOT_SUPPORTED = 16394,
        NON_FIRST_FRAGMENTS_ALSO = 16395,
        MOBIKE_SUPPORTED = 16396,
        ADDITIONAL_IP4_ADDRESS = 16397,
        ADDITIONAL_IP6_ADDRESS = 16398,
        NO_ADDITIONAL_ADDRESSES = 16399,
        UPDATE_SA_ADDRESSES = 16400,
        COOKIE2 = 16401,
        NO_NATS_ALLOWED = 16402,
        AUTH_LIFETIME = 16403,
        MULTIPLE_AUTH_SUPPORTED = 16404,
        ANOTHER_AUTH_FOLLOWS = 16405,
        REDIRECT_SUPPORTED = 16406,
        REDIRECT = 16407,
        REDIRECTED_FROM = 16408,
        TICKET_LT_OPAQUE = 16409,
        TICKET_REQUEST = 16410,
        TICKET_ACK = 16411,
        TICKET_NACK = 16412,
        TICKET_OPAQUE = 16413,
        LINK_ID = 16414,
        USE_WESP_MODE = 16415,
        ROHC_SUPPORTED = 16416,
        EAP_ONLY_AUTHENTICATION = 16417,
        CHILDLESS_IKEV2_SUPPORTED = 16418,
        QUICK_CRASH_DETECTION = 16419,
        IKEV2_MESSAGE_ID_SYNC_SUPPORTED = 16420,
        IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED = 16421,
        IKEV2_MESSAGE_ID_SYNC = 16422,
        IPSEC_REPLAY_COUNTER_SYNC = 16423,
        SECURE_PASSWORD_METHODS = 16424,
        PSK_PERSIST = 16425,
        PSK_CONFIRM = 16426,
        ERX_SUPPORTED = 16427,
        IFOM_CAPABILITY = 16428,
        SENDER_REQUEST_ID = 16429,
        IKEV2_FRAGMENTATION_SUPPORTED = 16430,
        SIGNATURE_HASH_ALGORITHMS = 16431,
        CLONE_IKE_SA_SUPPORTED = 16432,
        CLONE_IKE_SA = 16433,
        PUZZLE = 16434,
        USE_PPK = 16435,
        PPK_IDENTITY = 16436,
        NO_PPK_AUTH = 16437,
        INTERMEDIATE_EXCHANGE_SUPPORTED = 16438,
        IP4_ALLOWED = 16439,
        IP6_ALLOWED = 16440,
        ADDITIONAL_KEY_EXCHANGE = 16441,
        USE_AGGFRAG = 16442,
        SUPPORTED_AUTH_METHODS = 16443,
        SA_RESOURCE_INFO = 16444,
        USE_PPK_INT = 16445,
        PPK_IDENTITY_KEY = 16446,
    }
}

wire_number! {
    /// IANA "IKEv2 Hash Algorithms", listed in SIGNATURE_HASH_ALGORITHMS (RFC 7427 §4; IDENTITY is
    /// RFC 8420 and stands for Ed25519 and Ed448).
    HashAlgorithm(u16) {
        SHA1 = 1,
        SHA2_256 = 2,
        SHA2_384 = 3,
        SHA2_512 = 4,
        IDENTITY = 5,
        STREEBOG_256 = 6,
        STREEBOG_512 = 7,
    }
}

impl NotifyType {
    /// Whether the request this answers has failed (RFC 7296 §3.10.1). Unknown errors count as
    /// errors, unknown status types are to be ignored.
    pub const fn is_error(self) -> bool {
        self.0 < 16384
    }
}

impl<'a> NotifyPayload<'a> {
    /// Without data, about the IKE SA.
    pub const fn new(ty: NotifyType) -> Self {
        Self {
            protocol: ProtocolId::NONE,
            spi: ProposalSpi::None,
            ty,
            data: Cow::Borrowed(&[]),
        }
    }

    /// With data, about the IKE SA.
    pub fn with_data(ty: NotifyType, data: impl Into<Cow<'a, [u8]>>) -> Self {
        Self {
            data: data.into(),
            ..Self::new(ty)
        }
    }

    /// About an ESP SA: REKEY_SA, CHILD_SA_NOT_FOUND.
    pub const fn about_esp(ty: NotifyType, spi: ChildSpi) -> Self {
        Self {
            protocol: ProtocolId::ESP,
            spi: ProposalSpi::Child(spi),
            ty,
            data: Cow::Borrowed(&[]),
        }
    }

    /// INVALID_KE_PAYLOAD with the method that would be accepted (RFC 7296 §1.2).
    pub fn invalid_ke(accepted: TransformId) -> NotifyPayload<'static> {
        NotifyPayload::with_data(
            NotifyType::INVALID_KE_PAYLOAD,
            accepted.0.to_be_bytes().to_vec(),
        )
    }

    /// UNSUPPORTED_CRITICAL_PAYLOAD with the type that is not known (RFC 7296 §2.5).
    pub fn unsupported_critical(ty: crate::payload::PayloadType) -> NotifyPayload<'static> {
        NotifyPayload::with_data(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, vec![ty.0])
    }

    /// SIGNATURE_HASH_ALGORITHMS (RFC 7427 §4).
    pub fn signature_hash_algorithms(hashes: &[HashAlgorithm]) -> NotifyPayload<'static> {
        let data: Vec<u8> = hashes
            .iter()
            .flat_map(|hash| hash.0.to_be_bytes())
            .collect();
        NotifyPayload::with_data(NotifyType::SIGNATURE_HASH_ALGORITHMS, data)
    }

    /// ADDITIONAL_IP4_ADDRESS or ADDITIONAL_IP6_ADDRESS (RFC 4555 §4.2.2).
    pub fn additional_address(address: IpAddr) -> NotifyPayload<'static> {
        match address {
            IpAddr::V4(v4) => {
                NotifyPayload::with_data(NotifyType::ADDITIONAL_IP4_ADDRESS, v4.octets().to_vec())
            }
            IpAddr::V6(v6) => {
                NotifyPayload::with_data(NotifyType::ADDITIONAL_IP6_ADDRESS, v6.octets().to_vec())
            }
        }
    }

    /// NO_NATS_ALLOWED (RFC 4555 §4.2.6): where the packet was sent from and to, both of one family.
    pub fn no_nats_allowed(source: SocketAddr, destination: SocketAddr) -> NotifyPayload<'static> {
        let mut data = Vec::with_capacity(36);
        for address in [source.ip(), destination.ip()] {
            match address {
                IpAddr::V4(v4) => data.extend(v4.octets()),
                IpAddr::V6(v6) => data.extend(v6.octets()),
            }
        }
        data.extend(source.port().to_be_bytes());
        data.extend(destination.port().to_be_bytes());
        NotifyPayload::with_data(NotifyType::NO_NATS_ALLOWED, data)
    }

    /// Reads the body of the payload.
    pub fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new("Notify payload", body);
        let protocol = ProtocolId(reader.u8()?);
        let spi_size = reader.u8()?;
        let ty = NotifyType(reader.u16()?);
        let spi = ProposalSpi::from_bytes(reader.take(usize::from(spi_size))?);
        Ok(Self {
            protocol,
            spi,
            ty,
            data: reader.rest().into(),
        })
    }

    /// The method an INVALID_KE_PAYLOAD asks for.
    pub fn accepted_ke(&self) -> Result<TransformId, ParseError> {
        self.fixed("INVALID_KE_PAYLOAD data", "2 octets")
            .map(|data| TransformId(u16::from_be_bytes(data)))
    }

    /// The payload type an UNSUPPORTED_CRITICAL_PAYLOAD complains about.
    pub fn unsupported_type(&self) -> Result<crate::payload::PayloadType, ParseError> {
        self.fixed("UNSUPPORTED_CRITICAL_PAYLOAD data", "1 octet")
            .map(|[ty]| crate::payload::PayloadType(ty))
    }

    /// The window of a SET_WINDOW_SIZE (RFC 7296 §2.3), never zero.
    pub fn window_size(&self) -> Result<u32, ParseError> {
        match self
            .fixed("SET_WINDOW_SIZE data", "4 octets")
            .map(u32::from_be_bytes)?
        {
            0 => Err(ParseError::Value {
                what: "window of a SET_WINDOW_SIZE",
                expected: "at least 1",
                got: 0,
            }),
            window => Ok(window),
        }
    }

    /// The seconds of an AUTH_LIFETIME (RFC 4478 §3).
    pub fn auth_lifetime(&self) -> Result<u32, ParseError> {
        self.fixed("AUTH_LIFETIME data", "4 octets")
            .map(u32::from_be_bytes)
    }

    /// The hashes of a SIGNATURE_HASH_ALGORITHMS. An odd last octet is ignored.
    pub fn hash_algorithms(&self) -> impl Iterator<Item = HashAlgorithm> {
        self.data
            .as_chunks()
            .0
            .iter()
            .map(|two| HashAlgorithm(u16::from_be_bytes(*two)))
    }

    /// The address of an ADDITIONAL_IP4_ADDRESS or ADDITIONAL_IP6_ADDRESS.
    pub fn address(&self) -> Result<IpAddr, ParseError> {
        match self.ty {
            NotifyType::ADDITIONAL_IP6_ADDRESS => self
                .fixed::<16>("ADDITIONAL_IP6_ADDRESS data", "16 octets")
                .map(IpAddr::from),
            _ => self
                .fixed::<4>("ADDITIONAL_IP4_ADDRESS data", "4 octets")
                .map(IpAddr::from),
        }
    }

    /// Source and destination of a NO_NATS_ALLOWED (RFC 4555 §4.2.6).
    pub fn sent_between(&self) -> Result<(SocketAddr, SocketAddr), ParseError> {
        let mut reader = Reader::new("NO_NATS_ALLOWED data", &self.data);
        let (source, destination) = match self.data.len() {
            12 => {
                let (source, destination) = (reader.array::<4>()?, reader.array::<4>()?);
                (IpAddr::from(source), IpAddr::from(destination))
            }
            36 => {
                let (source, destination) = (reader.array::<16>()?, reader.array::<16>()?);
                (IpAddr::from(source), IpAddr::from(destination))
            }
            got => {
                return Err(ParseError::Length {
                    what: "NO_NATS_ALLOWED data",
                    expected: "12 or 36 octets",
                    got,
                });
            }
        };
        let ports = (reader.u16()?, reader.u16()?);
        Ok((
            SocketAddr::new(source, ports.0),
            SocketAddr::new(destination, ports.1),
        ))
    }

    /// The octets of a COOKIE2 (RFC 4555 §4.2.5).
    pub fn cookie2(&self) -> Result<&[u8], ParseError> {
        match self.data.len() {
            8..=64 => Ok(&self.data),
            got => Err(ParseError::Length {
                what: "COOKIE2 data",
                expected: "8 to 64 octets",
                got,
            }),
        }
    }

    /// Copies what it borrows.
    pub fn into_owned(self) -> NotifyPayload<'static> {
        NotifyPayload {
            protocol: self.protocol,
            spi: self.spi,
            ty: self.ty,
            data: Cow::Owned(self.data.into_owned()),
        }
    }

    fn fixed<const N: usize>(
        &self,
        what: &'static str,
        expected: &'static str,
    ) -> Result<[u8; N], ParseError> {
        <[u8; N]>::try_from(self.data.as_ref()).map_err(|_| ParseError::Length {
            what,
            expected,
            got: self.data.len(),
        })
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.u8(self.protocol.0);
        self.spi.write_size(writer);
        writer.u16(self.ty.0);
        self.spi.write(writer);
        writer.bytes(&self.data);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::payload::PayloadType;
    use crate::testing::{self, assert_round_trip, emit_body, hex};

    #[test]
    fn octets() {
        let body = hex("03 04 4009 c0ffee12");
        let payload = NotifyPayload::about_esp(NotifyType::REKEY_SA, ChildSpi(0xc0ff_ee12));
        assert_eq!(NotifyPayload::parse(&body), Ok(payload.clone()));
        assert_eq!(emit_body(payload), body);

        let payload = NotifyPayload::new(NotifyType::NO_PROPOSAL_CHOSEN);
        assert_eq!(emit_body(payload), hex("00 00 000e"));
    }

    #[test]
    fn data_of_the_types_that_have_some() {
        let payload = NotifyPayload::invalid_ke(TransformId::KE_ECP_256);
        assert_eq!(emit_body(payload.clone()), hex("00 00 0011 0013"));
        assert_eq!(payload.accepted_ke(), Ok(TransformId::KE_ECP_256));

        let payload = NotifyPayload::unsupported_critical(PayloadType(99));
        assert_eq!(payload.data.as_ref(), [99]);
        assert_eq!(payload.unsupported_type(), Ok(PayloadType(99)));

        let hashes = [HashAlgorithm::SHA2_256, HashAlgorithm::IDENTITY];
        let payload = NotifyPayload::signature_hash_algorithms(&hashes);
        assert_eq!(emit_body(payload.clone()), hex("00 00 402f 0002 0005"));
        assert_eq!(payload.hash_algorithms().collect::<Vec<_>>(), hashes);

        for address in ["192.0.2.1", "2001:db8::1"] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(
                NotifyPayload::additional_address(address).address(),
                Ok(address)
            );
        }

        for (ends, octets) in [
            (
                ["192.0.2.1:500", "198.51.100.2:4500"],
                "c0000201 c6336402 01f4 1194",
            ),
            (
                ["[2001:db8::1]:500", "[2001:db8::2]:4500"],
                "20010db8000000000000000000000001 20010db8000000000000000000000002 01f4 1194",
            ),
        ] {
            let [source, destination] = ends.map(|end| end.parse().unwrap());
            let payload = NotifyPayload::no_nats_allowed(source, destination);
            assert_eq!(payload.data.as_ref(), hex(octets));
            assert_eq!(payload.sent_between(), Ok((source, destination)));
        }
        let short = NotifyPayload::with_data(NotifyType::NO_NATS_ALLOWED, vec![0; 13]);
        assert!(short.sent_between().is_err());
        for (len, good) in [(7, false), (8, true), (64, true), (65, false)] {
            let cookie = NotifyPayload::with_data(NotifyType::COOKIE2, vec![1; len]);
            assert_eq!(cookie.cookie2().is_ok(), good, "{len} octets");
        }

        let window = |octets: &'static [u8]| {
            NotifyPayload::with_data(NotifyType::SET_WINDOW_SIZE, octets).window_size()
        };
        assert_eq!(window(&[0, 0, 0, 5]), Ok(5));
        assert!(window(&[0, 0, 0, 0]).is_err());
        assert!(window(&[0, 5]).is_err());
        let lifetime = NotifyPayload::with_data(NotifyType::AUTH_LIFETIME, vec![0, 0, 14, 16]);
        assert_eq!(lifetime.auth_lifetime(), Ok(3600));
    }

    #[test]
    fn numbers_have_names_and_unknown_ones_survive() {
        assert_eq!(
            NotifyType::NO_PROPOSAL_CHOSEN.to_string(),
            "NO_PROPOSAL_CHOSEN"
        );
        assert_eq!(NotifyType(40999).to_string(), "NotifyType(40999)");
        assert!(NotifyType(8191).is_error());
        assert!(!NotifyType::INITIAL_CONTACT.is_error());
    }

    proptest! {
        #[test]
        fn round_trip(payload in testing::notify()) {
            assert_round_trip(payload);
        }
    }
}
