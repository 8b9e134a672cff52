//! Distinguished names (X.501, RFC 5280 §4.1.2.4): from text to DER and back, and whether two are the same.
//!
//! Text is written as strongSwan and openssl write it, most significant part first: `C=XX, O=lab, CN=gw`.

use std::{fmt, str::FromStr};

use crate::der::{self, Reader, tag};

/// A distinguished name, kept as the DER it came in, so that it can be sent as an ID payload byte for byte.
///
/// Two names are equal when RFC 5280 §7.1 says so: attribute by attribute in order, text without regard to its
/// encoding, to the case of ASCII letters, and to the amount of white space.
#[derive(Clone)]
pub struct DistinguishedName {
    der: Vec<u8>,
}

/// Why a text or DER is no distinguished name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a distinguished name such as \"C=XX, O=lab, CN=gw\", found {found}; {remedy}")]
pub struct NameError {
    found: String,
    remedy: String,
}

impl DistinguishedName {
    /// A name from the DER of an ID payload or a certificate.
    pub fn from_der(der: &[u8]) -> Result<Self, NameError> {
        match rdns(der) {
            Some(_) => Ok(Self { der: der.to_vec() }),
            None => Err(NameError {
                found: format!("{} bytes that do not decode as one", der.len()),
                remedy: "check the identity the peer is configured to send".into(),
            }),
        }
    }

    /// For names that were decoded before.
    pub(crate) fn from_der_unchecked(der: &[u8]) -> Self {
        Self { der: der.to_vec() }
    }

    /// The name's DER: a SEQUENCE of relative distinguished names.
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// Whether the name has no attribute at all.
    pub fn is_empty(&self) -> bool {
        rdns(&self.der).is_none_or(|it| it.is_empty())
    }

    /// The last common name, where there is one.
    pub fn common_name(&self) -> Option<String> {
        let mut found = None;
        for_each_attribute(&self.der, |_, oid, value| {
            if oid == CN {
                found = text(value.tag, value.content);
            }
        });
        found
    }
}

impl PartialEq for DistinguishedName {
    fn eq(&self, other: &Self) -> bool {
        match (rdns(&self.der), rdns(&other.der)) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => self.der == other.der,
        }
    }
}

impl Eq for DistinguishedName {}

impl fmt::Debug for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DistinguishedName({self})")
    }
}

impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        let mut last = None;
        for_each_attribute(&self.der, |rdn, oid, value| {
            match last {
                None => {}
                Some(same) if same == rdn => out.push('+'),
                Some(_) => out.push_str(", "),
            }
            last = Some(rdn);
            match ATTRIBUTES.iter().find(|it| it.oid == oid) {
                Some(known) => out.push_str(known.keywords[0]),
                None => out.push_str(&der::oid_to_text(oid).unwrap_or_else(|| "?".into())),
            }
            out.push('=');
            match text(value.tag, value.content) {
                Some(text) => push_escaped(&mut out, &text),
                None => {
                    out.push('#');
                    out.extend(value.whole.iter().map(|byte| format!("{byte:02x}")));
                }
            }
        });
        f.write_str(&out)
    }
}

impl FromStr for DistinguishedName {
    type Err = NameError;

    /// Reads `C=XX, O=lab, CN=gw` (RFC 4514 escapes and quotes, `+` in multi-valued parts, `#` before hexadecimal DER,
    /// dotted object identifiers) and openssl's older `/C=XX/O=lab/CN=gw`.
    fn from_str(input: &str) -> Result<Self, NameError> {
        // White space at the end may be escaped, and is the value's business.
        let (input, separator) = match input.trim_start().strip_prefix('/') {
            Some(rest) => (rest, '/'),
            None => (input, ','),
        };
        if input.trim().is_empty() {
            return Err(NameError {
                found: "nothing".into(),
                remedy: "name at least one attribute".into(),
            });
        }
        let mut rest = input.chars().peekable();
        let mut content = Vec::new();
        let mut set: Vec<Vec<u8>> = Vec::new();
        loop {
            let (attribute, end) = parse_attribute(&mut rest, separator)?;
            set.push(attribute);
            if end == Some('+') {
                continue;
            }
            // X.690 §11.6: the elements of a SET OF are sorted by their encoding.
            set.sort();
            content.extend(der::element(tag::SET, &set.concat()));
            set.clear();
            if end.is_none() {
                break;
            }
        }
        Ok(Self {
            der: der::element(tag::SEQUENCE, &content),
        })
    }
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// One `type=value`, and the character that ended it.
fn parse_attribute(
    rest: &mut Chars<'_>,
    separator: char,
) -> Result<(Vec<u8>, Option<char>), NameError> {
    let mut keyword = String::new();
    loop {
        match rest.next() {
            Some('=') => break,
            Some(c) if c != separator && c != '+' => keyword.push(c),
            _ => {
                return Err(NameError {
                    found: format!("the part {:?} without \"=\"", keyword.trim()),
                    remedy: "write each part as TYPE=value, a comma inside a value as \\,".into(),
                });
            }
        }
    }
    let keyword = keyword.trim();
    let known = ATTRIBUTES.iter().find(|it| {
        it.keywords
            .iter()
            .any(|it| it.eq_ignore_ascii_case(keyword))
    });
    let oid = match known {
        Some(known) => known.oid.to_vec(),
        None => der::oid_from_text(keyword).ok_or_else(|| NameError {
            found: format!("the unknown attribute {keyword:?}"),
            remedy: "use one of C, ST, L, O, OU, CN, DC, UID, E, or a dotted object identifier"
                .into(),
        })?,
    };
    let (value, end) = parse_value(rest, separator)?;
    let value = match value {
        Value::Der(der) => der,
        Value::Text(text) => {
            let string = match known {
                Some(known) if known.ia5 && text.is_ascii() => tag::IA5_STRING,
                _ if text.bytes().all(is_printable) => tag::PRINTABLE_STRING,
                _ => tag::UTF8_STRING,
            };
            der::element(string, text.as_bytes())
        }
    };
    let pair = [der::element(tag::OBJECT_IDENTIFIER, &oid), value].concat();
    Ok((der::element(tag::SEQUENCE, &pair), end))
}

enum Value {
    Text(String),
    Der(Vec<u8>),
}

fn parse_value(rest: &mut Chars<'_>, separator: char) -> Result<(Value, Option<char>), NameError> {
    let bad = |found: String, remedy: &str| NameError {
        found,
        remedy: remedy.into(),
    };
    while rest.next_if(|c| c.is_whitespace()).is_some() {}
    let hexadecimal = rest.next_if_eq(&'#').is_some();
    let mut quoted = false;
    let mut out = Vec::new();
    // White space in front of the separator does not count, unless it was escaped or quoted.
    let mut kept = 0;
    let mut buffer = [0u8; 4];
    let end = loop {
        let Some(c) = rest.next() else {
            break None;
        };
        match c {
            '"' => {
                quoted = !quoted;
                kept = out.len();
            }
            '\\' => {
                let Some(next) = rest.next() else {
                    return Err(bad(
                        "a backslash at the end".into(),
                        "write a literal backslash as \\\\",
                    ));
                };
                match (next.to_digit(16), rest.peek().and_then(|c| c.to_digit(16))) {
                    (Some(high), Some(low)) => {
                        rest.next();
                        out.push((high << 4 | low) as u8);
                    }
                    _ => out.extend_from_slice(next.encode_utf8(&mut buffer).as_bytes()),
                }
                kept = out.len();
            }
            c if !quoted && (c == separator || c == '+') => break Some(c),
            c => {
                out.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
                if quoted || !c.is_whitespace() {
                    kept = out.len();
                }
            }
        }
    };
    if quoted {
        return Err(bad("an open quote".into(), "close it with \""));
    }
    out.truncate(kept);
    let text = String::from_utf8(out).map_err(|_| {
        bad(
            "escapes that are not UTF-8".into(),
            "write the text as UTF-8",
        )
    })?;
    if !hexadecimal {
        return Ok((Value::Text(text), end));
    }
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect();
    let der: Vec<u8> = digits
        .filter(|digits| digits.len().is_multiple_of(2))
        .unwrap_or_default()
        .chunks(2)
        .map(|pair| pair.iter().fold(0, |sum, digit| sum << 4 | digit))
        .collect();
    let mut reader = Reader::new(&der);
    if reader.element().is_none() || !reader.is_empty() {
        return Err(bad(
            format!("#{text}, which is not one DER element in hexadecimal"),
            "write a leading # of a text as \\#",
        ));
    }
    Ok((Value::Der(der), end))
}

/// A decoded name in a form that compares with `==`; see [`DistinguishedName`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rdn(Vec<(Vec<u8>, Comparable)>);

/// The relative names in order.
pub(crate) type Rdns = Vec<Rdn>;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Comparable {
    Text(String),
    Other(u8, Vec<u8>),
}

/// Decodes a Name; `None` where the bytes are not one.
pub(crate) fn rdns(der: &[u8]) -> Option<Rdns> {
    let mut names = Reader::new(der::single(der, tag::SEQUENCE)?.content);
    let mut out = Vec::new();
    while !names.is_empty() {
        let mut set = Reader::new(names.expect(tag::SET)?.content);
        let mut rdn = Vec::new();
        while !set.is_empty() {
            let mut pair = Reader::new(set.expect(tag::SEQUENCE)?.content);
            let oid = pair.expect(tag::OBJECT_IDENTIFIER)?.content;
            let value = pair.element()?;
            if !pair.is_empty() {
                return None;
            }
            let comparable = match text(value.tag, value.content) {
                Some(text) => Comparable::Text(fold(&text)),
                None => Comparable::Other(value.tag, value.content.to_vec()),
            };
            rdn.push((oid.to_vec(), comparable));
        }
        if rdn.is_empty() {
            return None;
        }
        rdn.sort();
        out.push(Rdn(rdn));
    }
    Some(out)
}

/// The e-mail addresses in a name (RFC 5280 §4.2.1.10: name constraints on addresses apply to them).
pub(crate) fn emails(der: &[u8]) -> Vec<String> {
    let mut out = Vec::new();
    for_each_attribute(der, |_, oid, value| {
        if oid == EMAIL {
            out.extend(text(value.tag, value.content));
        }
    });
    out
}

/// Calls `visit(index of the relative name, attribute type, value)` until the first thing that does not decode.
fn for_each_attribute<'a>(der: &'a [u8], mut visit: impl FnMut(usize, &'a [u8], der::Element<'a>)) {
    let Some(name) = der::single(der, tag::SEQUENCE) else {
        return;
    };
    let mut names = Reader::new(name.content);
    let mut index = 0;
    while let Some(set) = names.expect(tag::SET) {
        let mut set = Reader::new(set.content);
        while let Some(pair) = set.expect(tag::SEQUENCE) {
            let mut pair = Reader::new(pair.content);
            if let (Some(oid), Some(value)) = (pair.expect(tag::OBJECT_IDENTIFIER), pair.element())
            {
                visit(index, oid.content, value);
            }
        }
        index += 1;
    }
}

/// A string type's text; `None` for other types and for bytes that are no such text.
fn text(string: u8, content: &[u8]) -> Option<String> {
    match string {
        tag::UTF8_STRING | tag::PRINTABLE_STRING | tag::IA5_STRING | tag::NUMERIC_STRING => {
            std::str::from_utf8(content).ok().map(str::to_string)
        }
        // T.61 is read as Latin-1 by everyone.
        tag::TELETEX_STRING => Some(content.iter().map(|&byte| char::from(byte)).collect()),
        tag::BMP_STRING if content.len().is_multiple_of(2) => {
            let units = content
                .chunks(2)
                .map(|pair| pair.iter().fold(0, |sum, &byte| sum << 8 | u16::from(byte)));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        tag::UNIVERSAL_STRING if content.len().is_multiple_of(4) => content
            .chunks(4)
            .map(|four| four.iter().fold(0, |sum, &byte| sum << 8 | u32::from(byte)))
            .map(char::from_u32)
            .collect(),
        _ => None,
    }
}

/// RFC 5280 §7.1: outer white space gone, inner runs one space, ASCII letters in one case.
fn fold(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_ascii_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(&word.to_ascii_lowercase());
    }
    out
}

/// RFC 4514 §2.4, and everything a terminal or a log could stumble over as `\xx`.
fn push_escaped(out: &mut String, text: &str) {
    let last = text.chars().count().saturating_sub(1);
    for (at, c) in text.chars().enumerate() {
        let special = matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=' | '/');
        if special || (c == ' ' && (at == 0 || at == last)) || (c == '#' && at == 0) {
            out.push('\\');
            out.push(c);
        } else if is_unprintable(c) {
            let mut buffer = [0u8; 4];
            for byte in c.encode_utf8(&mut buffer).bytes() {
                out.push_str(&format!("\\{byte:02X}"));
            }
        } else {
            out.push(c);
        }
    }
}

/// Control characters, and those that reorder or hide text.
pub(crate) fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn is_printable(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte)
}

struct Attribute {
    /// The first is written, all are read.
    keywords: &'static [&'static str],
    oid: &'static [u8],
    /// IA5String by definition.
    ia5: bool,
}

const CN: &[u8] = &[0x55, 4, 3];
const EMAIL: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1];

const fn x520(keywords: &'static [&'static str], oid: &'static [u8]) -> Attribute {
    Attribute {
        keywords,
        oid,
        ia5: false,
    }
}

/// The keywords of strongSwan's parser and of openssl.
const ATTRIBUTES: &[Attribute] = &[
    x520(&["CN", "commonName"], CN),
    x520(&["SN", "S", "surname"], &[0x55, 4, 4]),
    x520(&["serialNumber"], &[0x55, 4, 5]),
    x520(&["C", "countryName"], &[0x55, 4, 6]),
    x520(&["L", "localityName"], &[0x55, 4, 7]),
    x520(&["ST", "stateOrProvinceName"], &[0x55, 4, 8]),
    x520(&["street", "streetAddress"], &[0x55, 4, 9]),
    x520(&["O", "organizationName"], &[0x55, 4, 10]),
    x520(&["OU", "organizationalUnitName"], &[0x55, 4, 11]),
    x520(&["T", "title"], &[0x55, 4, 12]),
    x520(&["D", "description"], &[0x55, 4, 13]),
    x520(&["postalCode"], &[0x55, 4, 17]),
    x520(&["N", "name"], &[0x55, 4, 41]),
    x520(&["G", "GN", "givenName"], &[0x55, 4, 42]),
    x520(&["I", "initials"], &[0x55, 4, 43]),
    x520(&["dnQualifier"], &[0x55, 4, 46]),
    x520(
        &["UID", "userId"],
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1],
    ),
    Attribute {
        keywords: &["DC", "domainComponent"],
        oid: &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25],
        ia5: true,
    },
    Attribute {
        keywords: &["E", "Email", "emailAddress"],
        oid: EMAIL,
        ia5: true,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DistinguishedName {
        text.parse().expect(text)
    }

    #[test]
    fn text_becomes_the_der_strongswan_sends() {
        // `openssl asn1parse` of the subject of `openssl req -subj /C=XX/O=lab/CN=gw`, with PrintableString values.
        let der = [
            0x30, 0x28, 0x31, 0x0b, 0x30, 0x09, 0x06, 0x03, 0x55, 0x04, 0x06, 0x13, 0x02, b'X',
            b'X', 0x31, 0x0c, 0x30, 0x0a, 0x06, 0x03, 0x55, 0x04, 0x0a, 0x13, 0x03, b'l', b'a',
            b'b', 0x31, 0x0b, 0x30, 0x09, 0x06, 0x03, 0x55, 0x04, 0x03, 0x13, 0x02, b'g', b'w',
        ];
        for text in [
            "C=XX, O=lab, CN=gw",
            "C=XX,O=lab,CN=gw",
            "/C=XX/O=lab/CN=gw",
            " c = XX , organizationName=\"lab\", 2.5.4.3=gw ",
            "C=XX, O=lab, CN=#13026777",
        ] {
            assert_eq!(name(text).as_der(), der, "{text}");
        }
        assert_eq!(name("C=XX, O=lab, CN=gw").to_string(), "C=XX, O=lab, CN=gw");
        assert_eq!(
            name("C=XX, O=lab, CN=gw").common_name().as_deref(),
            Some("gw")
        );
    }

    #[test]
    fn display_reads_back_to_the_same_der() {
        for text in [
            "CN=a\\,b\\+c\\\"d\\\\e",
            "CN=\\ leading and trailing\\ ",
            "CN=\\#hash",
            "CN=Zoë \\0A newline",
            "CN=a+OU=b, O=c",
            "1.2.3.4=#0403010203",
            "E=alice@example.org, UID=alice, DC=example",
            "CN=right-to-left \\E2\\80\\AE text",
            "CN=a\\/b",
        ] {
            let first = name(text);
            let shown = first.to_string();
            assert!(!shown.chars().any(is_unprintable), "{shown:?}");
            assert_eq!(
                name(&shown).as_der(),
                first.as_der(),
                "{text} shown as {shown}"
            );
        }
    }

    #[test]
    fn equality_is_that_of_rfc_5280() {
        let utf8 = DistinguishedName::from_der(&[
            0x30, 0x0d, 0x31, 0x0b, 0x30, 0x09, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x02, b'G',
            b'W',
        ])
        .expect("a name");
        let bmp = DistinguishedName::from_der(&[
            0x30, 0x0f, 0x31, 0x0d, 0x30, 0x0b, 0x06, 0x03, 0x55, 0x04, 0x03, 0x1e, 0x04, 0, b'g',
            0, b'w',
        ])
        .expect("a name");
        assert_eq!(name("CN=gw"), utf8);
        assert_eq!(name("CN=gw"), bmp);
        assert_eq!(name("CN=  My   Lab "), name("CN=my lab"));
        assert_eq!(name("CN=a+OU=b"), name("OU=b+CN=a"));
        assert_ne!(name("CN=a, OU=b"), name("OU=b, CN=a"));
        assert_ne!(name("CN=a, OU=b"), name("CN=a+OU=b"));
        assert_ne!(name("CN=gw"), name("CN=gw, CN=gw"));
        assert_ne!(name("CN=gw"), name("OU=gw"));
        assert_ne!(name("CN=my lab"), name("CN=mylab"));
    }

    #[test]
    fn nonsense_is_refused_with_what_to_do() {
        for (text, found) in [
            ("", "nothing"),
            ("gw", "the part \"gw\" without \"=\""),
            ("CN=gw, lab", "the part \"lab\" without \"=\""),
            ("CN=gw,", "the part \"\" without \"=\""),
            ("XY=gw", "the unknown attribute \"XY\""),
            ("CN=\"gw", "an open quote"),
            ("CN=gw\\", "a backslash at the end"),
            ("CN=#zz", "#zz, which is not one DER element in hexadecimal"),
        ] {
            let error = text.parse::<DistinguishedName>().expect_err(text);
            assert_eq!(error.found, found);
        }
        for bad in [
            &[][..],
            &[0x30],
            &[0x30, 1, 0],
            &[0x30, 2, 0x31, 0],
            &[0x30, 0, 0],
        ] {
            assert!(DistinguishedName::from_der(bad).is_err(), "{bad:02x?}");
        }
        assert!(DistinguishedName::from_der(&[0x30, 0]).is_ok_and(|it| it.is_empty()));
    }
}
