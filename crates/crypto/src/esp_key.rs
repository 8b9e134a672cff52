//! Protection of ESP packets in place (RFC 4303, 4106, 7634, 3602, 4868).
//!
//! Packets are whole, from SPI to ICV; nothing is allocated; sealers and openers are shared between threads.
//!
//! ```text
//!   0        4         8          8+iv_len                                  len-icv_len
//!   | SPI    | Seq low | IV       | payload, padding, Pad Length, Next Header | ICV |
//!                                 |<---------------- encrypted ------------->|
//! ```

use crate::cipher::{AEAD_IV, Aead, BLOCK, CbcDecryptor, CbcEncryptor, IvGenerator, Mac};
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
        key: Box<CbcEncryptor>,
        ivs: Box<IvGenerator>,
        mac: Box<Mac>,
    },
}

/// Opens the packets of one inbound SA.
pub struct EspOpener {
    suite: EspSuite,
    key: OpenKey,
}

enum OpenKey {
    Aead(Aead),
    Cbc {
        key: Box<CbcDecryptor>,
        mac: Box<Mac>,
    },
}

impl EspSealer {
    /// `key_material` is this direction's part of KEYMAT, [`EspSuite::key_material_len`] octets
    /// (RFC 7296 §2.17: encryption key with salt, then integrity key).
    pub fn new(suite: EspSuite, key_material: &[u8]) -> Result<Self, KeyError> {
        let (sk_e, sk_a) = split_material(suite, key_material)?;
        let key = match Aead::for_packets(suite.encryption, suite.integrity, sk_e)? {
            Some(key) => SealKey::Aead(key),
            None => SealKey::Cbc {
                key: Box::new(CbcEncryptor::new(suite.encryption, sk_e)?),
                ivs: Box::new(IvGenerator::new(key_material)),
                mac: Box::new(Mac::new(suite.encryption, suite.integrity, sk_a)?),
            },
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
        if packet.len() < least || !self.suite.encryption.is_whole_blocks(packet.len() - least) {
            return Err(wrong);
        }
        if !self.suite.esn && seq > u64::from(u32::MAX) {
            return Err(SealError::Exhausted);
        }
        let seq = seq.to_be_bytes();
        packet[..4].copy_from_slice(&spi.to_be_bytes());
        packet[4..HEADER_LEN].copy_from_slice(&seq[4..]);
        let (covered, icv) = packet.split_at_mut(packet.len() - icv_len);
        let (header, rest) = covered.split_first_chunk_mut::<HEADER_LEN>().ok_or(wrong)?;
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
        let key = match Aead::for_packets(suite.encryption, suite.integrity, sk_e)? {
            Some(key) => OpenKey::Aead(key),
            None => OpenKey::Cbc {
                key: Box::new(CbcDecryptor::new(suite.encryption, sk_e)?),
                mac: Box::new(Mac::new(suite.encryption, suite.integrity, sk_a)?),
            },
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
        let least = HEADER_LEN + iv_len + self.suite.pad_to() + icv_len;
        let wrong = OpenError::Length {
            got: packet.len(),
            least,
        };
        if packet.len() < least || !self.suite.encryption.is_whole_blocks(packet.len() - least) {
            return Err(wrong);
        }
        let seq = seq.to_be_bytes();
        let icv_at = packet.len() - icv_len;
        let (covered, icv) = packet.split_at_mut_checked(icv_at).ok_or(wrong)?;
        match &self.key {
            OpenKey::Aead(key) => {
                let (header, rest) = covered.split_first_chunk_mut::<HEADER_LEN>().ok_or(wrong)?;
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
    fn new(suite: EspSuite, header: &[u8; HEADER_LEN], seq: [u8; 8]) -> Self {
        let mut octets = [0; 12];
        if suite.esn {
            octets[..4].copy_from_slice(&header[..4]);
            octets[4..8].copy_from_slice(&seq[..4]);
            octets[8..].copy_from_slice(&header[4..]);
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
    const fn shared<T: Send + Sync>() {}
    shared::<EspSealer>();
    shared::<EspOpener>();
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::suite::{Encryption, Integrity};
    use crate::testing::hex;

    fn suites() -> Vec<EspSuite> {
        let mut all = Vec::new();
        for esn in [false, true] {
            for encryption in Encryption::ALL {
                if encryption.is_aead() {
                    all.push(EspSuite {
                        encryption,
                        integrity: None,
                        esn,
                    });
                } else {
                    for integrity in Integrity::ALL {
                        all.push(EspSuite {
                            encryption,
                            integrity: Some(integrity),
                            esn,
                        });
                    }
                }
            }
        }
        all
    }

    fn pair(suite: EspSuite) -> (EspSealer, EspOpener) {
        let material: Vec<u8> = (1..).take(suite.key_material_len()).collect();
        (
            EspSealer::new(suite, &material).unwrap(),
            EspOpener::new(suite, &material).unwrap(),
        )
    }

    /// A packet with this payload in place and everything else to be filled in.
    fn packet(suite: EspSuite, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0xee; HEADER_LEN + suite.iv_len()];
        packet.extend_from_slice(payload);
        packet.resize(packet.len() + suite.icv_len(), 0xee);
        packet
    }

    fn opens_to(suite: EspSuite, material: &str, seq: u64, packet: &str, plaintext: &str) {
        let opener = EspOpener::new(suite, &hex(material)).unwrap();
        let mut packet = hex(packet);
        assert_eq!(
            *opener.open_in_place(seq, &mut packet).unwrap(),
            hex(plaintext)[..]
        );
    }

    const CHACHA: EspSuite = EspSuite {
        encryption: Encryption::ChaCha20Poly1305,
        integrity: None,
        esn: false,
    };
    const GCM_128: EspSuite = EspSuite {
        encryption: Encryption::AesGcm16_128,
        integrity: None,
        esn: false,
    };
    const GCM_256: EspSuite = EspSuite {
        encryption: Encryption::AesGcm16_256,
        integrity: None,
        esn: false,
    };
    const CBC_256: EspSuite = EspSuite {
        encryption: Encryption::AesCbc256,
        integrity: Some(Integrity::HmacSha2_256_128),
        esn: false,
    };

    #[test]
    fn rfc7634_appendix_a() {
        opens_to(
            CHACHA,
            "80 81 82 83 84 85 86 87 88 89 8a 8b 8c 8d 8e 8f 90 91 92 93 94 95 96 97 98 99 9a 9b 9c 9d 9e 9f
             a0 a1 a2 a3",
            5,
            "01 02 03 04 00 00 00 05 10 11 12 13 14 15 16 17
             24 03 94 28 b9 7f 41 7e 3c 13 75 3a 4f 05 08 7b 67 c3 52 e6 a7 fa b1 b9 82 d4 66 ef 40 7a e5 c6
             14 ee 80 99 d5 28 44 eb 61 aa 95 df ab 4c 02 f7 2a a7 1e 7c 4c 4f 64 c9 be fe 2f ac c6 38 e8 f3
             cb ec 16 3f ac 46 9b 50 27 73 f6 fb 94 e6 64 da 91 65 b8 28 29 f6 41 e0
             76 aa a8 26 6b 7f b0 f7 b1 1b 36 99 07 e1 ad 43",
            "45 00 00 54 a6 f2 00 00 40 01 e7 78 c6 33 64 05 c0 00 02 05 08 00 5b 7a 3a 08 00 00 55 3b ec 10
             00 07 36 27 08 09 0a 0b 0c 0d 0e 0f 10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f 20 21 22 23
             24 25 26 27 28 29 2a 2b 2c 2d 2e 2f 30 31 32 33 34 35 36 37 01 02 02 04",
        );
    }

    /// draft-mcgrew-gcm-test-01 §4, the first example: 128 bit key, ESN.
    #[test]
    fn mcgrew_gcm_128_with_esn() {
        opens_to(
            EspSuite {
                esn: true,
                ..GCM_128
            },
            "4c80cdefbb5d10da906ac73c3613a634 2e443b68",
            0x8765_4321_0000_0000,
            "00004321 00000000 4956ed7e3b244cfe
             fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34
             cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce
             61bc17d768fd9732 459018148f6cbe722fd04796562dfdb4",
            "45000048699a000080114db7c0a80102c0a801010a9bf15638d3010000010000
             00000000045f736970045f756470037369700963796265726369747902646b00
             0021000101020201",
        );
    }

    /// draft-mcgrew-gcm-test-01 §4, the example with a 256 bit key, without ESN.
    #[test]
    fn mcgrew_gcm_256_without_esn() {
        opens_to(
            GCM_256,
            "abbccddef00112233445566778899aababbccddef00112233445566778899aab 11223344",
            2,
            "4a2cbfe3 00000002 0102030405060708
             ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763
             748a637985771d347f0545659f14e99def842d8e b335f4eecfdbf831824b4c4915956c96",
            "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee000000000
             7002400020bf0000020405b40101040201020201",
        );
    }

    /// Computed with OpenSSL (AES-CBC) and Python's hmac; the IV is one this side would not choose.
    #[test]
    fn cbc_as_an_independent_implementation_makes_it() {
        let material: String = (0..64).map(|octet| format!("{octet:02x}")).collect();
        let sealed = "0102030400000007a0a1a2a3a4a5a6a7a8a9aaabacadaeaf\
             224c27f4ba378b27d3d6888adced64428edf76e72afa220edf0c33dcaac0a341";
        let plaintext: String = (0..30)
            .chain([0, 4])
            .map(|octet| format!("{octet:02x}"))
            .collect();
        let without = format!("{sealed}785e60758e6b091b28336032df121625");
        opens_to(CBC_256, &material, 7, &without, &plaintext);
        let with = format!("{sealed}7189fc5c0a99649a862e4776f224446a");
        let esn = EspSuite {
            esn: true,
            ..CBC_256
        };
        opens_to(esn, &material, 0x1_0000_0007, &with, &plaintext);
    }

    /// Computed with OpenSSL and Python's hmac: AES-256 of the number under a key from HMAC.
    #[test]
    fn the_iv_of_cbc_comes_from_the_sequence_number() {
        let material: Vec<u8> = (0..64).collect();
        let suite = EspSuite {
            esn: true,
            ..CBC_256
        };
        let sealer = EspSealer::new(suite, &material).unwrap();
        let mut packet = packet(suite, &[0; 16]);
        sealer.seal_in_place(1, 0x1_0000_0007, &mut packet).unwrap();
        assert_eq!(packet[8..24], hex("919918cb20959bc31964278b23cf0fcc")[..]);
    }

    #[test]
    fn header_and_iv_are_written_in_network_order() {
        let (sealer, _) = pair(EspSuite {
            esn: true,
            ..GCM_128
        });
        let mut packet = packet(sealer.suite(), &[0; 4]);
        sealer
            .seal_in_place(0x0102_0304, 0x0a0b_0c0d_0e0f_1011, &mut packet)
            .unwrap();
        assert_eq!(packet[..16], hex("01020304 0e0f1011 0a0b0c0d0e0f1011")[..]);
    }

    #[test]
    fn without_esn_the_sequence_ends_at_32_bits() {
        for suite in suites().into_iter().filter(|suite| !suite.esn) {
            let (sealer, _) = pair(suite);
            let mut packet = packet(suite, &[0; 16]);
            assert_eq!(
                sealer.seal_in_place(1, u64::from(u32::MAX), &mut packet),
                Ok(())
            );
            let beyond = sealer.seal_in_place(1, u64::from(u32::MAX) + 1, &mut packet);
            assert_eq!(beyond, Err(SealError::Exhausted));
        }
    }

    #[test]
    fn a_wrong_guess_of_the_high_half_does_not_open() {
        for suite in suites().into_iter().filter(|suite| suite.esn) {
            let (sealer, opener) = pair(suite);
            let mut packet = packet(suite, &[0; 16]);
            sealer.seal_in_place(1, 0x2_0000_0001, &mut packet).unwrap();
            let wrong = opener
                .open_in_place(0x1_0000_0001, &mut packet.clone())
                .err();
            assert_eq!(wrong, Some(OpenError::Integrity), "{suite}");
            assert!(
                opener.open_in_place(0x2_0000_0001, &mut packet).is_ok(),
                "{suite}"
            );
        }
    }

    #[test]
    fn packets_of_impossible_length_are_refused() {
        for suite in suites() {
            let (sealer, opener) = pair(suite);
            let least = HEADER_LEN + suite.iv_len() + suite.pad_to() + suite.icv_len();
            for got in 0..least {
                let mut packet = vec![0; got];
                let error = opener.open_in_place(1, &mut packet).err();
                assert_eq!(error, Some(OpenError::Length { got, least }));
                let error = sealer.seal_in_place(1, 1, &mut packet).err();
                assert_eq!(error, Some(SealError::Length { got, least }));
            }
            if !suite.encryption.is_aead() {
                let mut ragged = vec![0; least + 1];
                assert!(matches!(
                    opener.open_in_place(1, &mut ragged),
                    Err(OpenError::Length { .. })
                ));
            }
        }
    }

    #[test]
    fn key_material_of_another_length_is_refused() {
        let error = EspSealer::new(CBC_256, &[0; 63]).err().unwrap();
        assert_eq!(
            error.to_string(),
            "KEYMAT of aes256-sha256-noesn: expected 64 octets of key material, got 63"
        );
        let unpaired = EspSuite {
            integrity: None,
            ..CBC_256
        };
        assert!(matches!(
            EspOpener::new(unpaired, &[0; 32]).err().unwrap(),
            KeyError::Pairing { .. }
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn what_was_sealed_opens_and_any_flipped_bit_is_refused(
            blocks in 1..20_usize,
            fill in any::<u8>(),
            spi in any::<u32>(),
            seq in any::<u64>(),
            at in any::<proptest::sample::Index>(),
            bit in 0..8,
        ) {
            for suite in suites() {
                let seq = if suite.esn { seq } else { seq & 0xffff_ffff };
                let (sealer, opener) = pair(suite);
                let payload = vec![fill; 16 * blocks];
                let mut sealed = packet(suite, &payload);
                sealer.seal_in_place(spi, seq, &mut sealed).unwrap();
                let mut opened = sealed.clone();
                prop_assert_eq!(&*opener.open_in_place(seq, &mut opened).unwrap(), &payload[..]);
                let at = at.index(sealed.len());
                sealed[at] ^= 1_u8 << bit;
                let refused = opener.open_in_place(seq, &mut sealed).err();
                prop_assert_eq!(refused, Some(OpenError::Integrity), "octet {}", at);
            }
        }
    }
}
