//! Just enough DER (X.690 §8, §10) to read names strictly and to write them: definite lengths, one-byte tags.

/// Tags used by this crate.
pub(crate) mod tag {
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
    pub(crate) const UTF8_STRING: u8 = 0x0c;
    pub(crate) const NUMERIC_STRING: u8 = 0x12;
    pub(crate) const PRINTABLE_STRING: u8 = 0x13;
    pub(crate) const TELETEX_STRING: u8 = 0x14;
    pub(crate) const IA5_STRING: u8 = 0x16;
    pub(crate) const UNIVERSAL_STRING: u8 = 0x1c;
    pub(crate) const BMP_STRING: u8 = 0x1e;
    pub(crate) const SEQUENCE: u8 = 0x30;
    pub(crate) const SET: u8 = 0x31;
}

/// Reads one element after the other.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

/// One element: its tag, its content, and all its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    pub(crate) whole: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next element; `None` where there is none or it is not DER.
    pub(crate) fn element(&mut self) -> Option<Element<'a>> {
        let start = self.rest;
        let (&tag, rest) = start.split_first()?;
        // High tag numbers occur in none of the structures read here.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (&first, mut rest) = rest.split_first()?;
        let length = if first < 0x80 {
            usize::from(first)
        } else {
            let count = usize::from(first & 0x7f);
            let (bytes, behind) = rest.split_at_checked(count)?;
            rest = behind;
            // Minimal encoding, and nothing here is longer than 16 MiB.
            if !(1..=3).contains(&count) || bytes.first() == Some(&0) {
                return None;
            }
            let length = bytes
                .iter()
                .fold(0usize, |sum, &byte| (sum << 8) | usize::from(byte));
            if length < 0x80 {
                return None;
            }
            length
        };
        let (content, rest) = rest.split_at_checked(length)?;
        let whole = start.get(..start.len() - rest.len())?;
        self.rest = rest;
        Some(Element {
            tag,
            content,
            whole,
        })
    }

    /// The next element, which has to be of this tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Option<Element<'a>> {
        self.element().filter(|it| it.tag == tag)
    }
}

/// The only element in `bytes`, which has to be of this tag.
pub(crate) fn single(bytes: &[u8], tag: u8) -> Option<Element<'_>> {
    let mut reader = Reader::new(bytes);
    let element = reader.expect(tag)?;
    reader.is_empty().then_some(element)
}

/// One element's bytes.
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len();
    if let Ok(short @ 0..0x80) = u8::try_from(length) {
        out.push(short);
    } else {
        let bytes = length.to_be_bytes();
        let skip = bytes.iter().take_while(|&&byte| byte == 0).count();
        // At most eight bytes of length, so the count fits.
        out.push(0x80 | (bytes.len() - skip) as u8);
        out.extend(bytes.iter().skip(skip));
    }
    out.extend_from_slice(content);
    out
}

/// Object identifier from dotted text to content bytes.
pub(crate) fn oid_from_text(text: &str) -> Option<Vec<u8>> {
    let mut arcs = text.split('.').map(|arc| arc.parse::<u64>().ok());
    let first = arcs.next()??;
    let second = arcs.next()??;
    if first > 2 || (first < 2 && second > 39) {
        return None;
    }
    let mut out = Vec::new();
    push_arc(&mut out, first.checked_mul(40)?.checked_add(second)?);
    for arc in arcs {
        push_arc(&mut out, arc?);
    }
    Some(out)
}

fn push_arc(out: &mut Vec<u8>, arc: u64) {
    let groups = (64 - arc.leading_zeros()).div_ceil(7).max(1);
    for group in (0..groups).rev() {
        let more = if group == 0 { 0 } else { 0x80 };
        out.push(more | ((arc >> (7 * group)) & 0x7f) as u8);
    }
}

/// Object identifier from content bytes to dotted text; `None` where it is not one.
pub(crate) fn oid_to_text(content: &[u8]) -> Option<String> {
    let mut arcs = Vec::new();
    let mut arc = 0u64;
    let mut inside = false;
    for &byte in content {
        if (!inside && byte == 0x80) || arc > u64::MAX >> 7 {
            return None;
        }
        arc = (arc << 7) | u64::from(byte & 0x7f);
        inside = byte & 0x80 != 0;
        if !inside {
            arcs.push(arc);
            arc = 0;
        }
    }
    let (&head, tail) = arcs.split_first()?;
    if inside {
        return None;
    }
    let first = (head / 40).min(2);
    let mut out = format!("{first}.{}", head - first * 40);
    for arc in tail {
        out.push('.');
        out.push_str(&arc.to_string());
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oids_round_trip() {
        for text in [
            "2.5.4.3",
            "1.3.6.1.5.5.7.3.17",
            "0.9.2342.19200300.100.1.1",
            "2.999.1",
        ] {
            let bytes = oid_from_text(text).expect(text);
            assert_eq!(oid_to_text(&bytes).as_deref(), Some(text));
        }
        // X.690 §8.19.5: the example of that clause.
        assert_eq!(oid_from_text("2.999.3"), Some(vec![0x88, 0x37, 0x03]));
        for bad in [
            "",
            "1",
            "3.1",
            "1.40",
            "1.2.x",
            "1.2.",
            "2.18446744073709551615",
        ] {
            assert_eq!(oid_from_text(bad), None, "{bad}");
        }
    }

    #[test]
    fn lengths_are_minimal_and_definite() {
        for length in [0usize, 1, 127, 128, 255, 256, 65_536] {
            let bytes = element(0x04, &vec![7; length]);
            let read = single(&bytes, 0x04).expect("reads back");
            assert_eq!(read.content.len(), length);
            assert_eq!(read.whole, bytes);
        }
        for bad in [
            &[0x30, 0x80, 0x00, 0x00][..], // indefinite
            &[0x04, 0x81, 0x01, 0xff],     // one byte in the long form
            &[0x04, 0x82, 0x00, 0x01, 0xff],
            &[0x04, 0x02, 0xff],       // cut off
            &[0x1f, 0x81, 0x00, 0x00], // high tag number
            &[0x04],
            &[],
        ] {
            assert!(Reader::new(bad).element().is_none(), "{bad:02x?}");
        }
    }
}
