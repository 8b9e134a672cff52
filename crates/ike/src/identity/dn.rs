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
            // A comma of the value is not one between attributes.
            Some(text) => text.escape_debug().to_string().replace(',', "\\,"),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{display, same};
    use crate::policy::IdentityPattern;
    use cygnet_wire::id::Identification;
    use proptest::prelude::*;

    /// The subject of a certificate of `openssl req -subj "/C=XX/O=Lab  Works/CN=Alice"`.
    const OPENSSL: &str = "3032310b300906035504061302585831133011060355040a0c0a4c61622020576f726b7331\
                           0e300c06035504030c05416c696365";

    const CN: &[u8] = &[0x55, 0x04, 0x03];
    const O: &[u8] = &[0x55, 0x04, 0x0a];

    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut der = vec![tag];
        match u8::try_from(content.len()) {
            Ok(len @ 0..=0x7f) => der.push(len),
            Ok(len) => der.extend([0x81, len]),
            Err(_) => {
                der.push(0x82);
                der.extend((content.len() as u16).to_be_bytes());
            }
        }
        der.extend(content);
        der
    }

    /// A name of RDNs of attributes.
    fn name(rdns: &[&[(&[u8], u8, &str)]]) -> Vec<u8> {
        let rdns: Vec<u8> = rdns
            .iter()
            .flat_map(|rdn| {
                let attributes: Vec<u8> = rdn
                    .iter()
                    .flat_map(|(oid, tag, value)| {
                        let pair = [tlv(OBJECT_IDENTIFIER, oid), tlv(*tag, value.as_bytes())];
                        tlv(SEQUENCE, &pair.concat())
                    })
                    .collect();
                tlv(SET, &attributes)
            })
            .collect();
        tlv(SEQUENCE, &rdns)
    }

    fn lab(tag: u8, o: &str, cn: &str) -> Vec<u8> {
        name(&[&[(O, tag, o)], &[(CN, tag, cn)]])
    }

    fn openssl() -> Vec<u8> {
        (0..OPENSSL.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&OPENSSL[i..i + 2], 16).unwrap())
            .collect()
    }

    #[test]
    fn a_name_is_shown_as_people_write_it() {
        assert_eq!(
            display(&Identification::dn(&openssl())),
            "C=XX, O=Lab  Works, CN=Alice"
        );
        assert_eq!(
            to_text(&name(&[&[
                (CN, UTF8_STRING, "a"),
                (O, UTF8_STRING, "b, c\n")
            ]]))
            .unwrap(),
            "CN=a + O=b\\, c\\n"
        );
        assert_eq!(
            to_text(&name(&[&[(&[0x2a, 0x03], 0x02, "x")]])).unwrap(),
            "2a03=78"
        );
        assert_eq!(to_text(b"no name"), None);
    }

    /// RFC 5280 §7.1.
    #[test]
    fn text_compares_in_any_case_type_and_spacing() {
        let utf8 = lab(UTF8_STRING, "Lab Works", "Alice");
        let printable = lab(PRINTABLE_STRING, " lab   works ", "ALICE");
        assert!(same(
            &Identification::dn(&utf8),
            &Identification::dn(&printable)
        ));
        for other in [
            lab(UTF8_STRING, "LabWorks", "Alice"),
            lab(UTF8_STRING, "Lab Works", "Bob"),
            lab(UTF8_STRING, "Alice", "Lab Works"),
            name(&[&[(O, UTF8_STRING, "Lab Works")]]),
            name(&[
                &[(CN, UTF8_STRING, "Alice")],
                &[(O, UTF8_STRING, "Lab Works")],
            ]),
            name(&[&[(O, UTF8_STRING, "Lab Works"), (CN, UTF8_STRING, "Alice")]]),
        ] {
            assert!(!matches(&utf8, &other, false), "{:?}", to_text(&other));
        }
    }

    #[test]
    fn a_star_matches_one_value_where_it_is_allowed() {
        let template = lab(UTF8_STRING, "lab", "*");
        let pattern = IdentityPattern::DnTemplate(template.clone());
        let identity = |o, cn| Identification::dn(&lab(PRINTABLE_STRING, o, cn));
        assert!(pattern.matches(&identity("LAB", "anyone")));
        assert!(!pattern.matches(&identity("other", "anyone")));
        let longer = name(&[
            &[(O, UTF8_STRING, "lab")],
            &[(CN, UTF8_STRING, "a")],
            &[(CN, UTF8_STRING, "b")],
        ]);
        assert!(!pattern.matches(&Identification::dn(&longer)));
        assert!(!pattern.matches(&Identification::fqdn("lab")));
        // The star of a peer stands for itself.
        let exactly = IdentityPattern::Exactly(Identification::dn(&lab(UTF8_STRING, "lab", "a")));
        assert!(!exactly.matches(&Identification::dn(&template)));
        assert_eq!(pattern.to_string(), "O=lab, CN=*");
    }

    #[test]
    fn attributes_of_one_rdn_have_no_order() {
        let one = name(&[&[(CN, UTF8_STRING, "a"), (O, UTF8_STRING, "b")]]);
        let other = name(&[&[(O, UTF8_STRING, "b"), (CN, UTF8_STRING, "a")]]);
        assert!(matches(&one, &other, false));
    }

    #[test]
    fn long_values_are_read() {
        for len in [127, 128, 255, 256, 1000] {
            let long = "x".repeat(len);
            let der = lab(UTF8_STRING, &long, "a");
            assert!(matches(&der, &der, false), "{len} octets");
            assert!(to_text(&der).unwrap().contains(&long));
        }
    }

    #[test]
    fn what_is_no_name_matches_nothing_but_itself() {
        let broken = Identification::dn(b"\x30\x05junk");
        assert!(same(&broken, &broken));
        assert!(!matches(b"\x30\x05junk", b"\x30\x05junk", false));
        let many: Vec<_> = std::iter::repeat_n(&[(CN, UTF8_STRING, "a")][..], MOST + 1).collect();
        assert_eq!(parse(&name(&many)), None);
    }

    proptest! {
        #[test]
        fn no_octets_bring_it_down(
            der in proptest::collection::vec(any::<u8>(), 0..80),
            cut in any::<prop::sample::Index>(),
            octet in any::<u8>(),
        ) {
            let _ = to_text(&der);
            let mut altered = openssl();
            let at = cut.index(altered.len());
            altered[at] = octet;
            let _ = to_text(&altered);
            let _ = matches(&openssl(), &altered, true);
            let _ = matches(&altered[..at], &altered, true);
        }
    }
}
