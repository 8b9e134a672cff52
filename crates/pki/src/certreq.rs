//! What CERTREQ payloads carry for X.509 certificates: SHA-1 hashes of trusted authorities' keys (RFC 7296 §3.7).

use cygnet_crypto::digest::sha1;

use crate::{TrustAnchors, chain::Certificate};

/// Length of one hash.
pub const HASH_LEN: usize = 20;

/// SHA-1 of a certificate's SubjectPublicKeyInfo; `None` where the bytes are no certificate.
pub fn key_hash(certificate: &[u8]) -> Option<[u8; HASH_LEN]> {
    let certificate = Certificate::parse(certificate).ok()?;
    Some(sha1(&[certificate.spki()]))
}

/// The Certification Authority field of a CERTREQ: the hash of each anchor, one behind the other, none twice.
pub fn request(anchors: &TrustAnchors) -> Vec<u8> {
    let mut hashes: Vec<[u8; HASH_LEN]> = Vec::new();
    for hash in anchors.iter().filter_map(key_hash) {
        if !hashes.contains(&hash) {
            hashes.push(hash);
        }
    }
    hashes.concat()
}

/// A certificate of ours, as far as a CERTREQ decides about it.
#[derive(Debug, Clone, Copy)]
pub struct OwnCertificate<'a> {
    /// The end entity (DER).
    pub leaf: &'a [u8],
    /// The authorities' certificates at hand (DER): those sent with it, and local ones.
    pub chain: &'a [Vec<u8>],
}

/// Which of our certificates answers the request best: the first whose chain holds a requested key, else the first of
/// all, since CERTREQ is a hint (RFC 7296 §3.7). `None` only where there is no certificate at all.
pub fn select(requested: &[u8], own: &[OwnCertificate<'_>]) -> Option<usize> {
    let fits = own.iter().position(|own| answers(requested, own));
    fits.or((!own.is_empty()).then_some(0))
}

/// Whether an authority above the certificate is among the requested ones.
pub fn answers(requested: &[u8], own: &OwnCertificate<'_>) -> bool {
    let at_hand: Vec<_> = own
        .chain
        .iter()
        .filter_map(|der| Certificate::parse(der).ok())
        .collect();
    let Ok(leaf) = Certificate::parse(own.leaf) else {
        return false;
    };
    // Walk up by names, never to the same certificate twice.
    let mut seen = vec![false; at_hand.len()];
    let mut issuers = vec![leaf.issuer.clone()];
    while let Some(issuer) = issuers.pop() {
        for (certificate, seen) in at_hand.iter().zip(&mut seen) {
            if *seen || certificate.subject != issuer {
                continue;
            }
            *seen = true;
            let hash = sha1(&[certificate.spki()]);
            if requested.chunks_exact(HASH_LEN).any(|it| it == hash) {
                return true;
            }
            issuers.push(certificate.issuer.clone());
        }
    }
    false
}
