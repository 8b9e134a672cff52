//! Key exchange: a fresh key pair for one exchange, and the secret agreed with the peer's public value.

use aws_lc_rs::agreement::{self, Algorithm, ECDH_P256, ECDH_P384, ECDH_P521, PrivateKey, X25519};
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::suite::Group;
use crate::{Random, Secret};

mod modp;

/// A peer's public value that must not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KexError {
    /// Not the length of the group's encoding.
    #[error("{group}: expected a public value of {expected} octets, got {got}")]
    Length {
        /// The group.
        group: Group,
        /// Octets of its encoding.
        expected: usize,
        /// Octets that came.
        got: usize,
    },
    /// Not on the curve, or not in 2..=p-2 (RFC 6989 §2).
    #[error("{group}: the peer's public value is no valid element of the group")]
    InvalidPublic {
        /// The group.
        group: Group,
    },
    /// The agreed secret is all zero: the peer sent a point of small order (RFC 8031 §5).
    #[error("{group}: the agreed secret is all zero, the peer sent a point of small order")]
    ZeroSecret {
        /// The group.
        group: Group,
    },
}

/// A key pair for one exchange; agreeing consumes it.
pub struct Ephemeral {
    group: Group,
    private: Private,
    public: Vec<u8>,
}

enum Private {
    Curve(PrivateKey),
    Modp(modp::Exponent),
}

impl Ephemeral {
    /// A fresh key pair, determined by what `random` yields.
    pub fn generate(group: Group, random: &mut dyn Random) -> Self {
        let Some(curve) = curve(group) else {
            let exponent = modp::Exponent::generate(group, random);
            return Ephemeral {
                group,
                public: exponent.public(),
                private: Private::Modp(exponent),
            };
        };
        let mut scalar = Zeroizing::new(vec![0; group.secret_len()]);
        loop {
            random.fill(&mut scalar);
            if group == Group::EcpP521 {
                // The order has 521 bits: without this, all but one draw in 128 would be out of range.
                scalar[0] &= 1;
            }
            if let Ok(ephemeral) = Self::from_scalar(group, curve, &scalar) {
                return ephemeral;
            }
        }
    }

    /// The group.
    pub fn group(&self) -> Group {
        self.group
    }

    /// The Key Exchange Data of the KE payload: x | y for the NIST curves (RFC 5903 §7), 32 octets for
    /// Curve25519 (RFC 8031 §3.1), for MODP as long as the modulus (RFC 7296 §3.4).
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// The shared secret g^ir: x for the NIST curves, for MODP as long as the modulus.
    pub fn agree(self, peer: &[u8]) -> Result<Secret, KexError> {
        let group = self.group;
        let expected = group.public_len();
        if peer.len() != expected {
            return Err(KexError::Length {
                group,
                expected,
                got: peer.len(),
            });
        }
        let invalid = KexError::InvalidPublic { group };
        match (self.private, curve(group)) {
            (Private::Modp(exponent), _) => exponent.agree(peer).ok_or(invalid),
            (Private::Curve(private), Some(curve)) if group == Group::Curve25519 => {
                let zero = KexError::ZeroSecret { group };
                // The library refuses an all-zero secret by itself; this is the second lock.
                let secret = agree_on_curve(&private, curve, peer, zero)?;
                if secret.expose().ct_eq(&[0; 32]).into() {
                    Err(zero)
                } else {
                    Ok(secret)
                }
            }
            (Private::Curve(private), Some(curve)) => {
                let mut point = Vec::with_capacity(1 + peer.len());
                point.push(UNCOMPRESSED);
                point.extend_from_slice(peer);
                agree_on_curve(&private, curve, &point, invalid)
            }
            (Private::Curve(_), None) => Err(invalid),
        }
    }

    /// Fails when the scalar is zero or not below the order of the curve.
    fn from_scalar(
        group: Group,
        curve: &'static Algorithm,
        scalar: &[u8],
    ) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let private = PrivateKey::from_private_key(curve, scalar)?;
        let point = private.compute_public_key()?;
        let public = match point.as_ref() {
            [UNCOMPRESSED, xy @ ..] if group != Group::Curve25519 => xy.to_vec(),
            raw => raw.to_vec(),
        };
        Ok(Ephemeral {
            group,
            private: Private::Curve(private),
            public,
        })
    }
}

/// Of SEC 1, and left out in IKE (RFC 5903 §7).
const UNCOMPRESSED: u8 = 4;

fn curve(group: Group) -> Option<&'static Algorithm> {
    match group {
        Group::EcpP256 => Some(&ECDH_P256),
        Group::EcpP384 => Some(&ECDH_P384),
        Group::EcpP521 => Some(&ECDH_P521),
        Group::Curve25519 => Some(&X25519),
        Group::Modp2048 | Group::Modp3072 | Group::Modp4096 => None,
    }
}

fn agree_on_curve(
    private: &PrivateKey,
    curve: &'static Algorithm,
    peer: &[u8],
    refused: KexError,
) -> Result<Secret, KexError> {
    let peer = agreement::UnparsedPublicKey::new(curve, peer);
    agreement::agree(private, peer, refused, |secret| {
        Ok(Secret::from_slice(secret))
    })
}

#[cfg(test)]
mod tests;
