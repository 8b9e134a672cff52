//! The vocabulary of algorithms that IKE and ESP negotiate: numbers, keywords, lengths, and the suites they form.
//!
//! Keywords are those of strongSwan, which operators know. [`proposal`] reads strings of them; [`registry`] names also what this
//! implementation refuses, so that a report can say what a peer offered.

use std::fmt;

pub mod proposal;
pub mod registry;

pub use proposal::{
    EspProposal, IkeProposal, ProposalError, aes_is_fast, parse_esp_list, parse_ike_list,
};
pub use registry::transform_keyword;

/// Encryption algorithms (transform type 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(
    non_camel_case_types,
    reason = "two numbers side by side need a separator"
)]
pub enum Encryption {
    /// AES-GCM with a 16 octet ICV, 128 bit key (RFC 4106, 5282).
    AesGcm16_128,
    /// AES-GCM with a 16 octet ICV, 256 bit key (RFC 4106, 5282).
    AesGcm16_256,
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305,
    /// AES-CBC, 128 bit key (RFC 3602).
    AesCbc128,
    /// AES-CBC, 256 bit key (RFC 3602).
    AesCbc256,
}

impl Encryption {
    /// All of them, strongest first within each family.
    pub const ALL: [Self; 5] = [
        Self::AesGcm16_256,
        Self::AesGcm16_128,
        Self::ChaCha20Poly1305,
        Self::AesCbc256,
        Self::AesCbc128,
    ];

    /// From transform id and Key Length attribute; AES demands one (RFC 7296 §3.3.5), ChaCha20-Poly1305 forbids it (RFC 7634 §4).
    pub fn from_wire(id: u16, key_bits: Option<u16>) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|e| e.to_wire() == (id, key_bits))
    }

    /// Transform id and Key Length attribute.
    pub fn to_wire(self) -> (u16, Option<u16>) {
        match self {
            Self::AesGcm16_128 => (20, Some(128)),
            Self::AesGcm16_256 => (20, Some(256)),
            Self::ChaCha20Poly1305 => (28, None),
            Self::AesCbc128 => (12, Some(128)),
            Self::AesCbc256 => (12, Some(256)),
        }
    }

    /// strongSwan's keyword.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::AesGcm16_128 => "aes128gcm16",
            Self::AesGcm16_256 => "aes256gcm16",
            Self::ChaCha20Poly1305 => "chacha20poly1305",
            Self::AesCbc128 => "aes128",
            Self::AesCbc256 => "aes256",
        }
    }

    /// Whether it protects integrity too, and so takes no integrity algorithm.
    pub fn is_aead(self) -> bool {
        !matches!(self, Self::AesCbc128 | Self::AesCbc256)
    }

    /// Octets of the key proper.
    pub fn key_len(self) -> usize {
        match self {
            Self::AesGcm16_128 | Self::AesCbc128 => 16,
            Self::AesGcm16_256 | Self::ChaCha20Poly1305 | Self::AesCbc256 => 32,
        }
    }

    /// Octets of the salt that follows the key in the key material (RFC 4106 §8.1, RFC 7634 §2).
    pub fn salt_len(self) -> usize {
        if self.is_aead() { 4 } else { 0 }
    }

    /// Octets taken from the key material: key and salt.
    pub fn key_material_len(self) -> usize {
        self.key_len() + self.salt_len()
    }

    /// Octets of the explicit IV in a message.
    pub fn iv_len(self) -> usize {
        if self.is_aead() { 8 } else { 16 }
    }

    /// Octets of the ICV the cipher itself makes; 0 when an integrity algorithm does.
    pub fn tag_len(self) -> usize {
        if self.is_aead() { 16 } else { 0 }
    }

    /// The ciphertext is a multiple of so many octets.
    pub fn block_len(self) -> usize {
        if self.is_aead() { 1 } else { 16 }
    }

    /// Whether what is encrypted may be so long.
    pub(crate) fn is_whole_blocks(self, len: usize) -> bool {
        // Not by `block_len`: a division by what is known only now is slow, and this is asked for each
        // packet.
        self.is_aead() || len.is_multiple_of(16)
    }
}

/// Integrity algorithms (transform type 3), for AES-CBC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(
    non_camel_case_types,
    reason = "two numbers side by side need a separator"
)]
pub enum Integrity {
    /// HMAC-SHA2-256 truncated to 128 bits (RFC 4868).
    HmacSha2_256_128,
    /// HMAC-SHA2-384 truncated to 192 bits (RFC 4868).
    HmacSha2_384_192,
    /// HMAC-SHA2-512 truncated to 256 bits (RFC 4868).
    HmacSha2_512_256,
}

impl Integrity {
    /// All of them.
    pub const ALL: [Self; 3] = [
        Self::HmacSha2_256_128,
        Self::HmacSha2_384_192,
        Self::HmacSha2_512_256,
    ];

    /// From the transform id.
    pub fn from_wire(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|i| i.to_wire() == id)
    }

    /// The transform id.
    pub fn to_wire(self) -> u16 {
        match self {
            Self::HmacSha2_256_128 => 12,
            Self::HmacSha2_384_192 => 13,
            Self::HmacSha2_512_256 => 14,
        }
    }

    /// strongSwan's keyword.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::HmacSha2_256_128 => "sha256",
            Self::HmacSha2_384_192 => "sha384",
            Self::HmacSha2_512_256 => "sha512",
        }
    }

    /// Octets of the key: the hash's output (RFC 4868 §2.1.1).
    pub fn key_len(self) -> usize {
        match self {
            Self::HmacSha2_256_128 => 32,
            Self::HmacSha2_384_192 => 48,
            Self::HmacSha2_512_256 => 64,
        }
    }

    /// Octets of the ICV: half the hash's output.
    pub fn icv_len(self) -> usize {
        self.key_len() / 2
    }

    /// The PRF of the same hash, for proposals that name none.
    pub fn prf(self) -> Prf {
        match self {
            Self::HmacSha2_256_128 => Prf::HmacSha2_256,
            Self::HmacSha2_384_192 => Prf::HmacSha2_384,
            Self::HmacSha2_512_256 => Prf::HmacSha2_512,
        }
    }
}

/// Pseudorandom functions (transform type 2). [`Prf::compute`] and [`Prf::prf_plus`] are in [`crate::prf`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(
    non_camel_case_types,
    reason = "two numbers side by side need a separator"
)]
pub enum Prf {
    /// PRF_HMAC_SHA2_256 (RFC 4868).
    HmacSha2_256,
    /// PRF_HMAC_SHA2_384 (RFC 4868).
    HmacSha2_384,
    /// PRF_HMAC_SHA2_512 (RFC 4868).
    HmacSha2_512,
}

impl Prf {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::HmacSha2_256, Self::HmacSha2_384, Self::HmacSha2_512];

    /// From the transform id.
    pub fn from_wire(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.to_wire() == id)
    }

    /// The transform id.
    pub fn to_wire(self) -> u16 {
        match self {
            Self::HmacSha2_256 => 5,
            Self::HmacSha2_384 => 6,
            Self::HmacSha2_512 => 7,
        }
    }

    /// strongSwan's keyword.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::HmacSha2_256 => "prfsha256",
            Self::HmacSha2_384 => "prfsha384",
            Self::HmacSha2_512 => "prfsha512",
        }
    }

    /// Octets of output, which is also the preferred key length (RFC 4868 §2.4).
    pub fn output_len(self) -> usize {
        match self {
            Self::HmacSha2_256 => 32,
            Self::HmacSha2_384 => 48,
            Self::HmacSha2_512 => 64,
        }
    }

    /// Octets of the SK_d and SK_p keys.
    pub fn key_len(self) -> usize {
        self.output_len()
    }

    /// The least octets of a nonce used with it: half the key, at least 16 (RFC 7296 §2.10).
    pub fn min_nonce_len(self) -> usize {
        (self.key_len() / 2).max(16)
    }
}

/// Key exchange methods (transform type 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// 2048 bit MODP, group 14 (RFC 3526).
    Modp2048,
    /// 3072 bit MODP, group 15 (RFC 3526).
    Modp3072,
    /// 4096 bit MODP, group 16 (RFC 3526).
    Modp4096,
    /// NIST P-256, group 19 (RFC 5903).
    EcpP256,
    /// NIST P-384, group 20 (RFC 5903).
    EcpP384,
    /// NIST P-521, group 21 (RFC 5903).
    EcpP521,
    /// Curve25519, group 31 (RFC 8031).
    Curve25519,
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Curve25519,
        Self::EcpP256,
        Self::EcpP384,
        Self::EcpP521,
        Self::Modp2048,
        Self::Modp3072,
        Self::Modp4096,
    ];

    /// From the transform id.
    pub fn from_wire(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|g| g.to_wire() == id)
    }

    /// The transform id, which is also the KE payload's method number.
    pub fn to_wire(self) -> u16 {
        match self {
            Self::Modp2048 => 14,
            Self::Modp3072 => 15,
            Self::Modp4096 => 16,
            Self::EcpP256 => 19,
            Self::EcpP384 => 20,
            Self::EcpP521 => 21,
            Self::Curve25519 => 31,
        }
    }

    /// strongSwan's keyword.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Modp2048 => "modp2048",
            Self::Modp3072 => "modp3072",
            Self::Modp4096 => "modp4096",
            Self::EcpP256 => "ecp256",
            Self::EcpP384 => "ecp384",
            Self::EcpP521 => "ecp521",
            Self::Curve25519 => "curve25519",
        }
    }

    /// Octets of the public value in the KE payload.
    pub fn public_len(self) -> usize {
        match self {
            Self::Modp2048 => 256,
            Self::Modp3072 => 384,
            Self::Modp4096 => 512,
            Self::EcpP256 => 64,
            Self::EcpP384 => 96,
            Self::EcpP521 => 132,
            Self::Curve25519 => 32,
        }
    }

    /// Octets of the shared secret.
    pub fn secret_len(self) -> usize {
        match self {
            Self::EcpP256 | Self::EcpP384 | Self::EcpP521 => self.public_len() / 2,
            _ => self.public_len(),
        }
    }
}

/// What protects an IKE SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IkeSuite {
    /// Encryption algorithm.
    pub encryption: Encryption,
    /// Integrity algorithm, exactly when the encryption algorithm is no AEAD.
    pub integrity: Option<Integrity>,
    /// Pseudorandom function.
    pub prf: Prf,
    /// Key exchange method.
    pub group: Group,
}

impl IkeSuite {
    /// Octets of SK_e, with salt.
    pub fn sk_e_len(&self) -> usize {
        self.encryption.key_material_len()
    }

    /// Octets of SK_a; 0 for an AEAD.
    pub fn sk_a_len(&self) -> usize {
        self.integrity.map_or(0, Integrity::key_len)
    }

    /// Octets of SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr (RFC 7296 §2.14).
    pub fn key_material_len(&self) -> usize {
        3 * self.prf.key_len() + 2 * self.sk_a_len() + 2 * self.sk_e_len()
    }
}

/// What protects a Child SA with ESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EspSuite {
    /// Encryption algorithm.
    pub encryption: Encryption,
    /// Integrity algorithm, exactly when the encryption algorithm is no AEAD.
    pub integrity: Option<Integrity>,
    /// Extended, 64-bit sequence numbers.
    pub esn: bool,
}

impl EspSuite {
    /// Octets of key material for one direction: encryption key with salt, then integrity key (RFC 7296 §2.17).
    pub fn key_material_len(&self) -> usize {
        self.encryption.key_material_len() + self.integrity.map_or(0, Integrity::key_len)
    }

    /// Octets of the IV after the ESP header.
    pub fn iv_len(&self) -> usize {
        self.encryption.iv_len()
    }

    /// Octets of the ICV at the packet's end.
    pub fn icv_len(&self) -> usize {
        self.encryption.tag_len() + self.integrity.map_or(0, Integrity::icv_len)
    }

    /// Payload, padding, Pad Length and Next Header together are a multiple of so many octets (RFC 4303 §2.4).
    pub fn pad_to(&self) -> usize {
        self.encryption.block_len().max(4)
    }
}

macro_rules! display_keyword {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.keyword())
            }
        }
    )*};
}
display_keyword!(Encryption, Integrity, Prf, Group);

impl fmt::Display for IkeSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.encryption)?;
        if let Some(integrity) = self.integrity {
            write!(f, "-{integrity}")?;
        }
        write!(f, "-{}-{}", self.prf, self.group)
    }
}

impl fmt::Display for EspSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.encryption)?;
        if let Some(integrity) = self.integrity {
            write!(f, "-{integrity}")?;
        }
        f.write_str(if self.esn { "-esn" } else { "-noesn" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_numbers_come_back() {
        for e in Encryption::ALL {
            let (id, bits) = e.to_wire();
            assert_eq!(Encryption::from_wire(id, bits), Some(e));
        }
        assert!(
            Integrity::ALL
                .iter()
                .all(|i| Integrity::from_wire(i.to_wire()) == Some(*i))
        );
        assert!(
            Prf::ALL
                .iter()
                .all(|p| Prf::from_wire(p.to_wire()) == Some(*p))
        );
        assert!(
            Group::ALL
                .iter()
                .all(|g| Group::from_wire(g.to_wire()) == Some(*g))
        );
    }

    #[test]
    fn aes_without_a_key_length_and_chacha_with_one_are_not_ours() {
        assert_eq!(Encryption::from_wire(20, None), None);
        assert_eq!(Encryption::from_wire(12, Some(192)), None);
        assert_eq!(Encryption::from_wire(28, Some(256)), None);
    }

    #[test]
    fn lengths_of_key_material() {
        let algo = IkeSuite {
            encryption: Encryption::AesGcm16_128,
            integrity: None,
            prf: Prf::HmacSha2_512,
            group: Group::EcpP256,
        };
        assert_eq!(algo.key_material_len(), 3 * 64 + 2 * 20);
        assert_eq!(algo.to_string(), "aes128gcm16-prfsha512-ecp256");
        let windows = EspSuite {
            encryption: Encryption::AesCbc256,
            integrity: Some(Integrity::HmacSha2_256_128),
            esn: true,
        };
        assert_eq!(windows.key_material_len(), 32 + 32);
        assert_eq!(
            (windows.iv_len(), windows.icv_len(), windows.pad_to()),
            (16, 16, 16)
        );
        assert_eq!(windows.to_string(), "aes256-sha256-esn");
    }
}
