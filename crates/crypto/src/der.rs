//! As much DER as keys and AlgorithmIdentifiers need: definite lengths, low tag numbers.

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const NULL: u8 = 0x05;
pub(crate) const OID: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;

/// The constructed, context-specific tag `[n]`.
pub(crate) const fn context(n: u8) -> u8 {
    0xa0 | n
}

/// The first element of `input`: tag, contents, and what follows it.
pub(crate) fn read(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let len = match first {
        0..=0x7f => usize::from(first),
        // Nothing here is longer than four octets of length can say.
        0x81..=0x84 => {
            let (octets, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
            rest = after;
            octets.iter().try_fold(0_usize, |len, &o| {
                Some(len.checked_mul(256)? + usize::from(o))
            })?
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(len)?;
    Some((tag, contents, rest))
}

/// The contents of the first element, which must have this tag, and what follows it.
pub(crate) fn expect(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
    match read(input)? {
        (found, contents, rest) if found == tag => Some((contents, rest)),
        _ => None,
    }
}

/// The contents of the one element that `input` is.
pub(crate) fn whole(tag: u8, input: &[u8]) -> Option<&[u8]> {
    match expect(tag, input)? {
        (contents, []) => Some(contents),
        _ => None,
    }
}

/// The bits of a positive INTEGER's contents.
pub(crate) fn integer_bits(contents: &[u8]) -> usize {
    let significant = contents.iter().skip_while(|&&octet| octet == 0).count();
    let top = contents
        .iter()
        .find(|&&octet| octet != 0)
        .map_or(0, |octet| octet.leading_zeros());
    (significant * 8).saturating_sub(top as usize)
}
