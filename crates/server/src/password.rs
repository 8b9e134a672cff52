//! Passwords: what a person types, and what is drawn.

use cygnet_crypto::Random;
use cygnet_eap::mschapv2::{HASH_LEN, nt_hash};
use zeroize::Zeroizing;

use crate::error::{Result, refused};

/// What is kept of a password: as good as the password itself to whoever wants to log in.
pub fn hash(password: &str) -> Zeroizing<[u8; HASH_LEN]> {
    let mut out = Zeroizing::new([0; HASH_LEN]);
    out.copy_from_slice(nt_hash(password).expose());
    out
}

/// Refuses what is soon guessed, and what devices cannot send (RFC 2759 §8.3: 0 to 256 characters).
pub fn check_password(password: &str) -> Result<()> {
    let length = password.encode_utf16().count();
    if !(8..=256).contains(&length) {
        return refused(format!(
            "the password has {length} characters: expected 8 to 256"
        ));
    }
    if password.chars().any(char::is_control) {
        return refused("the password has a control character, which no keyboard types");
    }
    Ok(())
}

/// Four groups of four, 80 bits; without `l`, `o`, `0`, `1`, which look alike.
pub fn readable(random: &mut dyn Random) -> Zeroizing<String> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut drawn = Zeroizing::new([0; 16]);
    random.fill(&mut *drawn);
    let mut out = Zeroizing::new(String::with_capacity(19));
    for (at, byte) in drawn.iter().enumerate() {
        if at > 0 && at % 4 == 0 {
            out.push('-');
        }
        out.push(char::from(LETTERS[usize::from(byte % 32)]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_untypable_passwords_are_refused() {
        assert!(check_password("12345678").is_ok());
        assert!(check_password("pässwörter").is_ok());
        for bad in ["", "1234567", "12345678\n", &"a".repeat(257)] {
            assert!(check_password(bad).is_err(), "{bad:?}");
        }
    }
}
