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
