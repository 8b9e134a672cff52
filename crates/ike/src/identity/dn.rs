//! Distinguished names in DER, as far as comparing and showing them needs (X.501, RFC 5280 §4.1.2.4,
//! §7.1):
//!
//! ```text
//! Name ::= SEQUENCE OF SET OF SEQUENCE { type OBJECT IDENTIFIER, value ANY }
//! ```

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const TELETEX_STRING: u8 = 0x14;
const IA5_STRING: u8 = 0x16;

/// More RDNs, or attributes in one, no name has.
const MOST: usize = 64;

/// One attribute of a name.
#[derive(Debug, PartialEq, Eq)]
struct Attribute<'a> {
    /// The object identifier's content.
    oid: &'a [u8],
    /// The type of the value.
    tag: u8,
    /// Its content.
    value: &'a [u8],
}

/// Whether `name` is the name `template`, RDN by RDN. With `wildcards`, a value `*` of the template
/// matches any value.
pub(super) fn matches(template: &[u8], name: &[u8], wildcards: bool) -> bool {
    let (Some(template), Some(name)) = (parse(template), parse(name)) else {
        return false;
    };
    template.len() == name.len()
        && template.iter().zip(&name).all(|(template, name)| {
            template.len() == name.len()
                && template.iter().all(|wanted| {
                    let star = wildcards && wanted.value == b"*";
                    name.iter().any(|found| {
                        wanted.oid == found.oid && (star || wanted.has_value_of(found))
                    })
                })
        })
}

/// "C=XX, O=lab, CN=alice"; `None` if it is no name.
pub(super) fn to_text(der: &[u8]) -> Option<String> {
    let rdns: Vec<String> = parse(der)?
        .iter()
        .map(|rdn| {
            let attributes: Vec<_> = rdn.iter().map(Attribute::to_text).collect();
            attributes.join(" + ")
        })
        .collect();
    Some(rdns.join(", "))
}

impl Attribute<'_> {
    /// RFC 5280 §7.1: text in any case, runs of spaces as one; other values to the bit.
    fn has_value_of(&self, other: &Self) -> bool {
        match (self.words(), other.words()) {
            (Some(a), Some(b)) => a == b,
            _ => self.tag == other.tag && self.value == other.value,
        }
    }

    fn text(&self) -> Option<&str> {
        match self.tag {
            UTF8_STRING | PRINTABLE_STRING | TELETEX_STRING | IA5_STRING => {
                std::str::from_utf8(self.value).ok()
            }
            _ => None,
        }
    }

    fn words(&self) -> Option<Vec<String>> {
        let words = self.text()?.split(' ').filter(|word| !word.is_empty());
        Some(words.map(str::to_lowercase).collect())
    }

    fn to_text(&self) -> String {
        let value = match self.text() {
            Some(text) => text.escape_debug().to_string(),
            None => self
                .value
                .iter()
                .map(|octet| format!("{octet:02x}"))
                .collect(),
        };
        format!("{}={value}", self.keyword())
    }

    /// The usual abbreviation of an attribute type, or its object identifier in hexadecimal.
    fn keyword(&self) -> String {
        // 2.5.4.x; 1.2.840.113549.1.9.1; 0.9.2342.19200300.100.1.x
        let known = match self.oid {
            [0x55, 0x04, 0x03] => "CN",
            [0x55, 0x04, 0x04] => "SN",
            [0x55, 0x04, 0x05] => "serialNumber",
            [0x55, 0x04, 0x06] => "C",
            [0x55, 0x04, 0x07] => "L",
            [0x55, 0x04, 0x08] => "ST",
            [0x55, 0x04, 0x09] => "street",
            [0x55, 0x04, 0x0a] => "O",
            [0x55, 0x04, 0x0b] => "OU",
            [0x55, 0x04, 0x0c] => "T",
            [0x55, 0x04, 0x2a] => "G",
            [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01] => "E",
            [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01] => "UID",
            [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19] => "DC",
            oid => return oid.iter().map(|octet| format!("{octet:02x}")).collect(),
        };
        known.to_owned()
    }
}

fn parse(der: &[u8]) -> Option<Vec<Vec<Attribute<'_>>>> {
    let (name, []) = element(SEQUENCE, der)? else {
        return None;
    };
    many(name, |rest| {
        let (set, rest) = element(SET, rest)?;
        let attributes = many(set, |rest| {
            let (sequence, rest) = element(SEQUENCE, rest)?;
            let (oid, after) = element(OBJECT_IDENTIFIER, sequence)?;
            let (tag, value, []) = any_element(after)? else {
                return None;
            };
            Some((Attribute { oid, tag, value }, rest))
        })?;
        Some((attributes, rest))
    })
}

/// Everything that `item` reads, until nothing is left.
fn many<'a, T>(
    mut rest: &'a [u8],
    mut item: impl FnMut(&'a [u8]) -> Option<(T, &'a [u8])>,
) -> Option<Vec<T>> {
    let mut items = Vec::new();
    while !rest.is_empty() {
        if items.len() == MOST {
            return None;
        }
        let read;
        (read, rest) = item(rest)?;
        items.push(read);
    }
    Some(items)
}

/// The content of an element with this tag, and what follows it.
fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = any_element(bytes)?;
    (found == tag).then_some((content, rest))
}

/// Tag and content of an element, and what follows it. Lengths over 65535 belong to no name.
fn any_element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => {
            let (&len, rest) = rest.split_first()?;
            (usize::from(len), rest)
        }
        0x82 => {
            let (len, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*len)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}
