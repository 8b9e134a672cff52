//! Protection of ESP packets in place (RFC 4303, 4106, 7634, 3602, 4868).
//!
//! Packets are whole, from SPI to ICV; nothing is allocated; sealers and openers are shared between threads.
//!
//! ```text
//!   0        4         8          8+iv_len                                  len-icv_len
//!   | SPI    | Seq low | IV       | payload, padding, Pad Length, Next Header | ICV |
//!                                 |<---------------- encrypted ------------->|
//! ```

use crate::cipher::{
    AEAD_IV, Aead, BLOCK, CbcDecryptor, CbcEncryptor, IvGenerator, Mac, TAG, check_pairing,
};
use crate::suite::EspSuite;
use crate::{KeyError, KeyLengthError, OpenError, SealError};

/// Octets of SPI and sequence number before the IV.
pub const HEADER_LEN: usize = 8;

/// Seals the packets of one outbound SA.
pub struct EspSealer {
    suite: EspSuite,
    key: SealKey,
}

enum SealKey {
    Aead(Aead),
    Cbc {
        key: CbcEncryptor,
        ivs: IvGenerator,
        mac: Mac,
    },
}

/// Opens the packets of one inbound SA.
pub struct EspOpener {
    suite: EspSuite,
    key: OpenKey,
}

enum OpenKey {
    Aead(Aead),
    Cbc { key: CbcDecryptor, mac: Mac },
}

impl EspSealer {
    /// `key_material` is this direction's part of KEYMAT, [`EspSuite::key_material_len`] octets
    /// (RFC 7296 §2.17: encryption key with salt, then integrity key).
    pub fn new(suite: EspSuite, key_material: &[u8]) -> Result<Self, KeyError> {
        let (sk_e, sk_a) = split_material(suite, key_material)?;
        let integrity = check_pairing(suite.encryption, suite.integrity)?;
        let key = match (Aead::new(suite.encryption, sk_e)?, integrity) {
            (None, Some(integrity)) => SealKey::Cbc {
                key: CbcEncryptor::new(suite.encryption, sk_e)?,
                ivs: IvGenerator::new(key_material),
                mac: Mac::new(integrity, sk_a)?,
            },
            (Some(key), None) => SealKey::Aead(key),
            _ => {
                let encryption = suite.encryption;
                return Err(KeyError::Pairing {
                    encryption,
                    aead: encryption.is_aead(),
                });
            }
        };
        Ok(EspSealer { suite, key })
    }

    /// The algorithms.
    pub fn suite(&self) -> EspSuite {
        self.suite
    }

    /// Seals `packet`: writes SPI, sequence number and IV, encrypts what follows them, writes the ICV
    /// into the last octets.
    ///
    /// On entry the payload with its trailer (padding, Pad Length, Next Header) is in place, a multiple
    /// of [`EspSuite::pad_to`] long. `seq` is the full sequence number, without ESN below 2^32, and must
    /// never repeat under one key: the IV comes from it.
    pub fn seal_in_place(&self, spi: u32, seq: u64, packet: &mut [u8]) -> Result<(), SealError> {
        let (iv_len, icv_len) = (self.suite.iv_len(), self.suite.icv_len());
        let least = HEADER_LEN + iv_len + self.suite.pad_to() + icv_len;
        let wrong = SealError::Length {
            got: packet.len(),
            least,
        };
        if packet.len() < least
            || !(packet.len() - least).is_multiple_of(self.suite.encryption.block_len())
        {
            return Err(wrong);
        }
        if !self.suite.esn && seq > u64::from(u32::MAX) {
            return Err(SealError::Exhausted);
        }
        let seq = seq.to_be_bytes();
        packet[..4].copy_from_slice(&spi.to_be_bytes());
        packet[4..HEADER_LEN].copy_from_slice(&seq[4..]);
        let (covered, icv) = packet.split_at_mut(packet.len() - icv_len);
        let (header, rest) = covered.split_at_mut(HEADER_LEN);
        let (iv_field, payload) = rest.split_at_mut(iv_len);
        match &self.key {
            SealKey::Aead(key) => {
                iv_field.copy_from_slice(&seq);
                let aad = AeadAad::new(self.suite, header, seq);
                let tag = key.seal(seq, aad.as_slice(), payload)?;
                icv.copy_from_slice(&tag);
            }
            SealKey::Cbc { key, ivs, mac } => {
                let iv = ivs.iv(u64::from_be_bytes(seq))?;
                iv_field.copy_from_slice(&iv);
                key.encrypt(iv, payload)?;
                mac.sign(&[covered, implicit_seq(self.suite, &seq)], icv);
            }
        }
        Ok(())
    }
}

impl EspOpener {
    /// As [`EspSealer::new`], with the peer's part of KEYMAT.
    pub fn new(suite: EspSuite, key_material: &[u8]) -> Result<Self, KeyError> {
        let (sk_e, sk_a) = split_material(suite, key_material)?;
        let integrity = check_pairing(suite.encryption, suite.integrity)?;
        let key = match (Aead::new(suite.encryption, sk_e)?, integrity) {
            (None, Some(integrity)) => OpenKey::Cbc {
                key: CbcDecryptor::new(suite.encryption, sk_e)?,
                mac: Mac::new(integrity, sk_a)?,
            },
            (Some(key), None) => OpenKey::Aead(key),
            _ => {
                let encryption = suite.encryption;
                return Err(KeyError::Pairing {
                    encryption,
                    aead: encryption.is_aead(),
                });
            }
        };
        Ok(EspOpener { suite, key })
    }

    /// The algorithms.
    pub fn suite(&self) -> EspSuite {
        self.suite
    }

    /// Authenticates and decrypts `packet` and returns the payload with its trailer, still padded.
    ///
    /// `seq` is the full sequence number: what the packet says, and with ESN the high half as guessed
    /// from the replay window (RFC 4303 §A2.2). When opening fails, the contents of `packet` are
    /// unspecified.
    pub fn open_in_place<'p>(
        &self,
        seq: u64,
        packet: &'p mut [u8],
    ) -> Result<&'p mut [u8], OpenError> {
        let (iv_len, icv_len) = (self.suite.iv_len(), self.suite.icv_len());
        let block_len = self.suite.encryption.block_len();
        let least = HEADER_LEN + iv_len + self.suite.pad_to() + icv_len;
        let wrong = OpenError::Length {
            got: packet.len(),
            least,
        };
        if packet.len() < least || !(packet.len() - least).is_multiple_of(block_len) {
            return Err(wrong);
        }
        let seq = seq.to_be_bytes();
        let icv_at = packet.len() - icv_len;
        let (covered, icv) = packet.split_at_mut_checked(icv_at).ok_or(wrong)?;
        match &self.key {
            OpenKey::Aead(key) => {
                let (header, rest) = covered.split_at_mut_checked(HEADER_LEN).ok_or(wrong)?;
                let (iv, payload) = rest.split_first_chunk_mut::<AEAD_IV>().ok_or(wrong)?;
                let aad = AeadAad::new(self.suite, header, seq);
                key.open(*iv, aad.as_slice(), payload, icv)?;
                Ok(payload)
            }
            OpenKey::Cbc { key, mac } => {
                mac.verify(&[covered, implicit_seq(self.suite, &seq)], icv)?;
                let rest = covered.get_mut(HEADER_LEN..).ok_or(wrong)?;
                let (iv, payload) = rest.split_first_chunk_mut::<BLOCK>().ok_or(wrong)?;
                key.decrypt(*iv, payload)?;
                Ok(payload)
            }
        }
    }
}

fn split_material(suite: EspSuite, key_material: &[u8]) -> Result<(&[u8], &[u8]), KeyError> {
    let expected = suite.key_material_len();
    if key_material.len() != expected {
        let what = format!("KEYMAT of {suite}");
        return Err(KeyLengthError {
            what,
            expected,
            got: key_material.len(),
        }
        .into());
    }
    Ok(key_material.split_at(suite.encryption.key_material_len()))
}

/// What a combined mode authenticates beside the payload: SPI and sequence number, with ESN all 64 bits
/// of it (RFC 4106 §5, RFC 7634 §2.1).
struct AeadAad {
    octets: [u8; 12],
    len: usize,
}

impl AeadAad {
    fn new(suite: EspSuite, header: &[u8], seq: [u8; 8]) -> Self {
        let mut octets = [0; 12];
        if suite.esn {
            octets[..4].copy_from_slice(header.get(..4).unwrap_or(&[0; 4]));
            octets[4..].copy_from_slice(&seq);
            AeadAad { octets, len: 12 }
        } else {
            octets[..HEADER_LEN].copy_from_slice(header);
            AeadAad {
                octets,
                len: HEADER_LEN,
            }
        }
    }

    fn as_slice(&self) -> &[u8] {
        &self.octets[..self.len]
    }
}

/// The high half of the sequence number, which an integrity algorithm covers although it is not sent
/// (RFC 4303 §2.2.1).
fn implicit_seq(suite: EspSuite, seq: &[u8; 8]) -> &[u8] {
    if suite.esn { &seq[..4] } else { &[] }
}

const _: () = {
    assert!(TAG == 16);
    const fn shared<T: Send + Sync>() {}
    shared::<EspSealer>();
    shared::<EspOpener>();
};
