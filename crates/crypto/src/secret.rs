//! Bytes that vanish when dropped.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Secret bytes: zeroed on drop, never printed, never cloned.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes over `bytes`; they are zeroed when this value is dropped.
    pub fn new(bytes: Vec<u8>) -> Self {
        Secret(Zeroizing::new(bytes))
    }

    /// A copy of `bytes`, whose owner zeroes its own.
    pub fn from_slice(bytes: &[u8]) -> Self {
        Secret::new(bytes.to_vec())
    }

    /// The bytes, for as short a time as can be.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, to be decrypted or parsed in place.
    pub fn expose_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both hold the same bytes, in time that depends on their length alone.
    pub fn ct_eq(&self, other: &[u8]) -> bool {
        self.0.as_slice().ct_eq(other).into()
    }

    /// Shortens to `len` bytes; what is cut off is zeroed with the rest.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_by_content_and_length() {
        let secret = Secret::from_slice(b"abc");
        assert!(secret.ct_eq(b"abc"));
        assert!(!secret.ct_eq(b"abd"));
        assert!(!secret.ct_eq(b"ab"));
        assert_eq!((secret.len(), secret.is_empty()), (3, false));
    }
}
