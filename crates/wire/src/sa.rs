//! The Security Association payload (RFC 7296 §3.3): proposals, their transforms, and the
//! attributes of those; additional key exchanges as in RFC 9370.

use std::fmt;

use crate::codec::{Reader, Writer};
use crate::error::ParseError;
use crate::header::{ChildSpi, Spi};

mod registry;
#[cfg(test)]
mod tests;

pub use registry::{AttributeType, ProtocolId, TransformId, TransformType};

/// Most proposals accepted in one SA payload. Windows, the most talkative peer, sends about twenty.
pub const MAX_PROPOSALS: usize = 64;
/// Most transforms accepted in one SA payload, all proposals together.
pub const MAX_TRANSFORMS: usize = 1024;
/// Most attributes accepted in one transform; one is defined (RFC 7296 §3.3.5).
pub const MAX_ATTRIBUTES: usize = 8;

// Values of the field Last Substruc (RFC 7296 §3.3.1, §3.3.2).
const LAST: u8 = 0;
const MORE_PROPOSALS: u8 = 2;
const MORE_TRANSFORMS: u8 = 3;

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

impl SaPayload {
    /// Reads the body of the payload.
    pub fn parse(body: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new("Security Association payload", body);
        let mut proposals = Vec::new();
        let mut transforms = 0;
        loop {
            if proposals.len() == MAX_PROPOSALS {
                return Err(ParseError::TooMany {
                    what: "proposals",
                    limit: MAX_PROPOSALS,
                });
            }
            let (more, substructure) = substructure(&mut reader, "Proposal", MORE_PROPOSALS)?;
            let proposal = Proposal::parse(substructure)?;
            transforms += proposal.transforms.len();
            if transforms > MAX_TRANSFORMS {
                return Err(ParseError::TooMany {
                    what: "transforms",
                    limit: MAX_TRANSFORMS,
                });
            }
            proposals.push(proposal);
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
            proposal.write(writer, if index == last { LAST } else { MORE_PROPOSALS });
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
        for following in (0..count).rev() {
            let (more, substructure) = substructure(&mut reader, "Transform", MORE_TRANSFORMS)?;
            if more != (following != 0) {
                return Err(ParseError::Value {
                    what: "Num Transforms of a proposal",
                    expected: "the number of transforms that follow",
                    got: u64::from(count),
                });
            }
            transforms.push(Transform::parse(substructure)?);
        }
        reader.finish()?;
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
            transform.write(writer, if index == last { LAST } else { MORE_TRANSFORMS });
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
    more_follow: u8,
) -> Result<(bool, &'a [u8]), ParseError> {
    let last_substructure = reader.u8()?;
    reader.u8()?;
    let length = usize::from(reader.u16()?);
    let more = match last_substructure {
        LAST => false,
        mark if mark == more_follow => true,
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
