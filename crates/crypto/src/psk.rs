//! Authentication by a shared secret, RFC 7296 §2.15.

use crate::Secret;
use crate::suite::Prf;

/// The AUTH data for a shared secret: prf(prf(secret, "Key Pad for IKEv2"), octets).
///
/// `secret` is the pre-shared key, or the MSK of EAP; `signed_octets` is RealMessage | Nonce | prf(SK_p, ID).
pub fn psk_auth(prf: Prf, secret: &[u8], signed_octets: &[u8]) -> Secret {
    let padded = prf.compute(secret, &[b"Key Pad for IKEv2"]);
    prf.compute(padded.expose(), &[signed_octets])
}

/// Whether `auth` is the AUTH data of [`psk_auth`], compared in constant time.
pub fn verify_psk_auth(prf: Prf, secret: &[u8], signed_octets: &[u8], auth: &[u8]) -> bool {
    psk_auth(prf, secret, signed_octets).ct_eq(auth)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    /// Computed with Python's hmac.
    #[test]
    fn auth_is_two_applications_of_the_prf() {
        let auth = psk_auth(Prf::HmacSha2_256, b"secret", b"signed octets");
        let expected = hex("19bfdf542bd49158a67d4ee9591023e030135080fbbbf4fb49b495179c71f6c6");
        assert_eq!(auth.expose(), expected);
    }

    #[test]
    fn only_the_right_auth_verifies() {
        let auth = psk_auth(Prf::HmacSha2_512, b"secret", b"octets");
        let verify = |secret: &[u8], octets: &[u8], auth: &[u8]| {
            verify_psk_auth(Prf::HmacSha2_512, secret, octets, auth)
        };
        assert!(verify(b"secret", b"octets", auth.expose()));
        assert!(!verify(b"Secret", b"octets", auth.expose()));
        assert!(!verify(b"secret", b"octet", auth.expose()));
        assert!(!verify(b"secret", b"octets", &auth.expose()[..63]));
        assert!(!verify(b"secret", b"octets", b""));
    }
}
