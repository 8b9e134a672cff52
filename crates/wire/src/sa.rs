//! The Security Association payload (RFC 7296 §3.3): proposals, their transforms, and the
//! attributes of those; additional key exchanges as in RFC 9370.

use std::fmt;

use crate::codec::{Reader, Writer};
use crate::error::ParseError;
use crate::header::{ChildSpi, Spi};

/// Most proposals accepted in one SA payload. Windows, the most talkative peer, sends about twenty.
pub const MAX_PROPOSALS: usize = 64;
/// Most transforms accepted in one proposal; more do not fit its count.
pub const MAX_TRANSFORMS: usize = 255;
/// Most attributes accepted in one transform; one is defined (RFC 7296 §3.3.5).
pub const MAX_ATTRIBUTES: usize = 8;

/// What the sender offers, best first, or the one proposal the responder chose.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                          <Proposals>                          ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaPayload {
    /// At least one.
    pub proposals: Vec<Proposal>,
}

/// One complete choice: for each transform type, the responder picks one of those listed.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Last Substruc |   RESERVED    |         Proposal Length       |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Proposal Num  |  Protocol ID  |    SPI Size   |Num  Transforms|
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ~                        SPI (variable)                         ~
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                        <Transforms>                           ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// 1 for the first, then one more for each; the answer repeats the number chosen.
    pub number: u8,
    /// What the SA is for.
    pub protocol: ProtocolId,
    /// The sender's SPI for the new SA.
    pub spi: ProposalSpi,
    /// In the order sent: within one type, best first.
    pub transforms: Vec<Transform>,
}

/// One algorithm of a proposal.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Last Substruc |   RESERVED    |        Transform Length       |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |Transform Type |   RESERVED    |          Transform ID         |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                      Transform Attributes                     ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transform {
    /// What the algorithm is for.
    pub ty: TransformType,
    /// Which algorithm; the number means something only together with `ty`.
    pub id: TransformId,
    /// Empty, or one KEY_LENGTH, in everything sent by an RFC 7296 peer.
    pub attributes: Vec<Attribute>,
}

/// A parameter of a transform.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |A|       Attribute Type        |    AF=0  Attribute Length     |
/// |F|                             |    AF=1  Attribute Value      |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                   AF=0  Attribute Value                       |
/// |                   AF=1  Not Transmitted                       |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// 15 bits.
    pub ty: AttributeType,
    /// In the form it was sent.
    pub value: AttributeValue,
}

/// The two forms of an attribute's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttributeValue {
    /// Two octets in place (type/value).
    Short(u16),
    /// Type/length/value.
    Long(Vec<u8>),
}

/// The SPI field of a proposal, a notification or a deletion. Its length is on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProposalSpi {
    /// Absent: the initial IKE SA, and everything that concerns the current IKE SA.
    None,
    /// Four octets: ESP or AH.
    Child(ChildSpi),
    /// Eight octets: an IKE SA being rekeyed.
    Ike(Spi),
    /// Any other length, from protocols this crate does not know.
    Other(Vec<u8>),
}

wire_number! {
    /// IANA "IKEv2 Security Protocol Identifiers". Zero, where no protocol is concerned.
    ProtocolId(u8) {
        NONE = 0,
        IKE = 1,
        AH = 2,
        ESP = 3,
        FC_ESP_HEADER = 4,
        FC_CT_AUTHENTICATION = 5,
        GIKE_UPDATE = 6,
    }
}

wire_number! {
    /// IANA "Transform Type Values"; additional key exchanges are RFC 9370.
    TransformType(u8) {
        ENCR = 1,
        PRF = 2,
        INTEG = 3,
        KE = 4,
        SN = 5,
        ADDKE1 = 6,
        ADDKE2 = 7,
        ADDKE3 = 8,
        ADDKE4 = 9,
        ADDKE5 = 10,
        ADDKE6 = 11,
        ADDKE7 = 12,
        KWA = 13,
        GCAUTH = 14,
    }
}

wire_number! {
    /// IANA "IKEv2 Transform Attribute Types".
    AttributeType(u16) {
        KEY_LENGTH = 14,
        SIGNATURE_ALGORITHM_IDENTIFIER = 18,
    }
}

/// Which algorithm, within a [`TransformType`]. The constants carry the type as a prefix:
/// `ENCR_`, `PRF_`, `AUTH_` (integrity), `KE_` (key exchange, also in the KE payload), `SN_`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransformId(pub u16);

macro_rules! transform_ids {
    ($( $ty:ident { $( $konst:ident = $value:literal, )* } )*) => {
        impl TransformId {
            $($(
                #[doc = concat!("`", stringify!($konst), "` is ", stringify!($value), ".")]
                pub const $konst: Self = Self($value);
            )*)*

            /// The registry's name of this number within `ty`, if this crate knows it.
            pub fn name(self, ty: TransformType) -> Option<&'static str> {
                // RFC 9370 §2.2.1: additional key exchanges share the registry of type 4.
                let ty = if ty.is_additional_ke() { TransformType::KE } else { ty };
                match ty {
                    $( TransformType::$ty => match self.0 {
                        $( $value => Some(stringify!($konst)), )*
                        _ => None,
                    }, )*
                    _ => None,
                }
            }
        }
    };
}

transform_ids! {
    ENCR {
        ENCR_DES_IV64 = 1,
        ENCR_DES = 2,
        ENCR_3DES = 3,
        ENCR_RC5 = 4,
        ENCR_IDEA = 5,
        ENCR_CAST = 6,
        ENCR_BLOWFISH = 7,
        ENCR_3IDEA = 8,
        ENCR_DES_IV32 = 9,
        ENCR_NULL = 11,
        ENCR_AES_CBC = 12,
        ENCR_AES_CTR = 13,
        ENCR_AES_CCM_8 = 14,
        ENCR_AES_CCM_12 = 15,
        ENCR_AES_CCM_16 = 16,
        ENCR_AES_GCM_8 = 18,
        ENCR_AES_GCM_12 = 19,
        ENCR_AES_GCM_16 = 20,
        ENCR_NULL_AUTH_AES_GMAC = 21,
        ENCR_CAMELLIA_CBC = 23,
        ENCR_CAMELLIA_CTR = 24,
        ENCR_CAMELLIA_CCM_8 = 25,
        ENCR_CAMELLIA_CCM_12 = 26,
        ENCR_CAMELLIA_CCM_16 = 27,
        ENCR_CHACHA20_POLY1305 = 28,
        ENCR_AES_CCM_8_IIV = 29,
        ENCR_AES_GCM_16_IIV = 30,
        ENCR_CHACHA20_POLY1305_IIV = 31,
    }
    PRF {
        PRF_HMAC_MD5 = 1,
        PRF_HMAC_SHA1 = 2,
        PRF_HMAC_TIGER = 3,
        PRF_AES128_XCBC = 4,
        PRF_HMAC_SHA2_256 = 5,
        PRF_HMAC_SHA2_384 = 6,
        PRF_HMAC_SHA2_512 = 7,
        PRF_AES128_CMAC = 8,
    }
    INTEG {
        AUTH_NONE = 0,
        AUTH_HMAC_MD5_96 = 1,
        AUTH_HMAC_SHA1_96 = 2,
        AUTH_DES_MAC = 3,
        AUTH_KPDK_MD5 = 4,
        AUTH_AES_XCBC_96 = 5,
        AUTH_HMAC_MD5_128 = 6,
        AUTH_HMAC_SHA1_160 = 7,
        AUTH_AES_CMAC_96 = 8,
        AUTH_AES_128_GMAC = 9,
        AUTH_AES_192_GMAC = 10,
        AUTH_AES_256_GMAC = 11,
        AUTH_HMAC_SHA2_256_128 = 12,
        AUTH_HMAC_SHA2_384_192 = 13,
        AUTH_HMAC_SHA2_512_256 = 14,
    }
    KE {
        KE_NONE = 0,
        KE_MODP_768 = 1,
        KE_MODP_1024 = 2,
        KE_MODP_1536 = 5,
        KE_MODP_2048 = 14,
        KE_MODP_3072 = 15,
        KE_MODP_4096 = 16,
        KE_MODP_6144 = 17,
        KE_MODP_8192 = 18,
        KE_ECP_256 = 19,
        KE_ECP_384 = 20,
        KE_ECP_521 = 21,
        KE_MODP_1024_160 = 22,
        KE_MODP_2048_224 = 23,
        KE_MODP_2048_256 = 24,
        KE_ECP_192 = 25,
        KE_ECP_224 = 26,
        KE_BRAINPOOL_P224R1 = 27,
        KE_BRAINPOOL_P256R1 = 28,
        KE_BRAINPOOL_P384R1 = 29,
        KE_BRAINPOOL_P512R1 = 30,
        KE_CURVE25519 = 31,
        KE_CURVE448 = 32,
        KE_ML_KEM_512 = 35,
        KE_ML_KEM_768 = 36,
        KE_ML_KEM_1024 = 37,
    }
    SN {
        SN_32_BIT = 0,
        SN_64_BIT = 1,
    }
}

impl SaPayload {
    /// Reads the body of the payload.
    pub fn parse(body: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new("Security Association payload", body);
        let mut proposals = Vec::new();
        loop {
            if proposals.len() == MAX_PROPOSALS {
                return Err(ParseError::TooMany {
                    what: "proposals",
                    limit: MAX_PROPOSALS,
                });
            }
            let (more, substructure) = substructure(&mut reader, "Proposal", 2)?;
            proposals.push(Proposal::parse(substructure)?);
            if !more {
                break;
            }
        }
        reader.finish()?;
        Ok(Self { proposals })
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        let last = self.proposals.len().saturating_sub(1);
        for (index, proposal) in self.proposals.iter().enumerate() {
            proposal.write(writer, if index == last { 0 } else { 2 });
        }
    }
}

impl Proposal {
    /// The transforms of one type, in the order sent.
    pub fn transforms_of(&self, ty: TransformType) -> impl Iterator<Item = &Transform> {
        self.transforms
            .iter()
            .filter(move |transform| transform.ty == ty)
    }

    fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new("Proposal", bytes);
        let number = reader.u8()?;
        let protocol = ProtocolId(reader.u8()?);
        let spi_size = reader.u8()?;
        let count = reader.u8()?;
        let spi = ProposalSpi::from_bytes(reader.take(usize::from(spi_size))?);
        let mut transforms = Vec::new();
        let mut more = count != 0;
        while more {
            if transforms.len() == MAX_TRANSFORMS {
                return Err(ParseError::TooMany {
                    what: "transforms",
                    limit: MAX_TRANSFORMS,
                });
            }
            let substructure;
            (more, substructure) = self::substructure(&mut reader, "Transform", 3)?;
            transforms.push(Transform::parse(substructure)?);
        }
        reader.finish()?;
        if transforms.len() != usize::from(count) {
            return Err(ParseError::Value {
                what: "Num Transforms of a proposal",
                expected: "the number of transforms that follow",
                got: u64::from(count),
            });
        }
        Ok(Self {
            number,
            protocol,
            spi,
            transforms,
        })
    }

    fn write(&self, writer: &mut Writer, last_substructure: u8) {
        let start = writer.len();
        writer.u8(last_substructure);
        writer.u8(0);
        writer.u16(0);
        writer.u8(self.number);
        writer.u8(self.protocol.0);
        self.spi.write_size(writer);
        writer.count_u8(
            "the number of transforms in a proposal",
            self.transforms.len(),
        );
        self.spi.write(writer);
        let last = self.transforms.len().saturating_sub(1);
        for (index, transform) in self.transforms.iter().enumerate() {
            transform.write(writer, if index == last { 0 } else { 3 });
        }
        writer.patch_length_u16("a proposal", start + 2, start);
    }
}

impl Transform {
    /// A transform without attributes.
    pub const fn new(ty: TransformType, id: TransformId) -> Self {
        Self {
            ty,
            id,
            attributes: Vec::new(),
        }
    }

    /// A transform with a key length in bits, for ciphers that have more than one
    /// (RFC 7296 §3.3.5: AES always has it, ChaCha20-Poly1305 never).
    pub fn with_key_length(ty: TransformType, id: TransformId, bits: u16) -> Self {
        let key_length = Attribute {
            ty: AttributeType::KEY_LENGTH,
            value: AttributeValue::Short(bits),
        };
        Self {
            ty,
            id,
            attributes: vec![key_length],
        }
    }

    /// The key length in bits, if the transform carries one.
    pub fn key_length(&self) -> Option<u16> {
        self.attributes
            .iter()
            .find_map(|attribute| match (attribute.ty, &attribute.value) {
                (AttributeType::KEY_LENGTH, AttributeValue::Short(bits)) => Some(*bits),
                _ => None,
            })
    }

    /// Whether there is an attribute that nobody here understands, or one more than once: such a
    /// transform cannot be chosen (RFC 7296 §3.3.6).
    pub fn has_unknown_attributes(&self) -> bool {
        match self.attributes.as_slice() {
            [] => false,
            [_] => self.key_length().is_none(),
            _ => true,
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new("Transform", bytes);
        let ty = TransformType(reader.u8()?);
        reader.u8()?;
        let id = TransformId(reader.u16()?);
        let mut attributes = Vec::new();
        while !reader.is_empty() {
            if attributes.len() == MAX_ATTRIBUTES {
                return Err(ParseError::TooMany {
                    what: "transform attributes",
                    limit: MAX_ATTRIBUTES,
                });
            }
            let format_and_type = reader.u16()?;
            let length_or_value = reader.u16()?;
            let value = if format_and_type & 0x8000 != 0 {
                AttributeValue::Short(length_or_value)
            } else {
                AttributeValue::Long(reader.take(usize::from(length_or_value))?.to_vec())
            };
            attributes.push(Attribute {
                ty: AttributeType(format_and_type & 0x7fff),
                value,
            });
        }
        Ok(Self { ty, id, attributes })
    }

    fn write(&self, writer: &mut Writer, last_substructure: u8) {
        let start = writer.len();
        writer.u8(last_substructure);
        writer.u8(0);
        writer.u16(0);
        writer.u8(self.ty.0);
        writer.u8(0);
        writer.u16(self.id.0);
        for attribute in &self.attributes {
            match &attribute.value {
                AttributeValue::Short(value) => {
                    writer.u16(attribute.ty.0 | 0x8000);
                    writer.u16(*value);
                }
                AttributeValue::Long(value) => {
                    writer.u16(attribute.ty.0 & 0x7fff);
                    writer.count_u16("a transform attribute", value.len());
                    writer.bytes(value);
                }
            }
        }
        writer.patch_length_u16("a transform", start + 2, start);
    }
}

/// As in a proposal of strongSwan's, with the key length: `ENCR_AES_GCM_16-256`.
impl fmt::Display for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id.name(self.ty) {
            Some(name) => f.write_str(name)?,
            None => write!(f, "{}({})", self.ty, self.id.0)?,
        }
        if self.ty.is_additional_ke() {
            write!(f, " as {}", self.ty)?;
        }
        match self.key_length() {
            Some(bits) => write!(f, "-{bits}"),
            None => Ok(()),
        }
    }
}

impl TransformType {
    /// The additional key exchanges of RFC 9370, in the order they are performed.
    pub const ADDITIONAL_KE: [Self; 7] = [
        Self::ADDKE1,
        Self::ADDKE2,
        Self::ADDKE3,
        Self::ADDKE4,
        Self::ADDKE5,
        Self::ADDKE6,
        Self::ADDKE7,
    ];

    /// Whether this is one of the additional key exchanges of RFC 9370.
    pub fn is_additional_ke(self) -> bool {
        (Self::ADDKE1..=Self::ADDKE7).contains(&self)
    }
}

impl ProposalSpi {
    /// Chooses by length.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            Self::None
        } else if let Ok(four) = <[u8; 4]>::try_from(bytes) {
            Self::Child(ChildSpi(u32::from_be_bytes(four)))
        } else if let Ok(eight) = <[u8; 8]>::try_from(bytes) {
            Self::Ike(Spi::from_bytes(eight))
        } else {
            Self::Other(bytes.to_vec())
        }
    }

    /// The SPI of a Child SA, if it is one.
    pub fn child(&self) -> Option<ChildSpi> {
        match self {
            Self::Child(spi) => Some(*spi),
            _ => None,
        }
    }

    /// The SPI of an IKE SA, if it is one.
    pub fn ike(&self) -> Option<Spi> {
        match self {
            Self::Ike(spi) => Some(*spi),
            _ => None,
        }
    }

    pub(crate) fn write_size(&self, writer: &mut Writer) {
        let size = match self {
            Self::None => 0,
            Self::Child(_) => 4,
            Self::Ike(_) => 8,
            Self::Other(bytes) => bytes.len(),
        };
        writer.count_u8("an SPI", size);
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        match self {
            Self::None => {}
            Self::Child(spi) => writer.u32(spi.0),
            Self::Ike(spi) => writer.u64(spi.0),
            Self::Other(bytes) => writer.bytes(bytes),
        }
    }
}

/// Reads the four octets that proposals and transforms begin with. Returns whether another
/// follows, and what the length covers after those four.
fn substructure<'a>(
    reader: &mut Reader<'a>,
    what: &'static str,
    more_mark: u8,
) -> Result<(bool, &'a [u8]), ParseError> {
    let last_substructure = reader.u8()?;
    reader.u8()?;
    let length = usize::from(reader.u16()?);
    let more = match last_substructure {
        0 => false,
        mark if mark == more_mark => true,
        got => {
            return Err(ParseError::Value {
                what,
                expected: "0 (last) or 2 (proposal) or 3 (transform) in its Last Substruc field",
                got: u64::from(got),
            });
        }
    };
    let Some(rest) = length.checked_sub(4) else {
        return Err(ParseError::Length {
            what,
            expected: "at least 8",
            got: length,
        });
    };
    Ok((more, reader.take(rest)?))
}
