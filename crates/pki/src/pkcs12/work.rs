//! How much work a `.p12` asks for (RFC 7292 §4), judged before a key is derived: it says itself how many rounds each of
//! its parts takes, and how many parts there are.

use super::Pkcs12Error;
use crate::der::{Reader, single, tag};

/// Certificates, key, and a few more. Those that hand them out have two.
const PARTS_MAX: u64 = 8;
/// Rounds of all parts and of the MAC together: about a second on a small machine. openssl writes 2048 for each.
const ROUNDS_MAX: u64 = 2_000_000;

const OCTET_STRING: u8 = 0x04;
/// `[0] EXPLICIT`.
const CONTENT: u8 = 0xa0;

/// Object identifiers in DER.
mod oid {
    /// pkcs7-data.
    pub(super) const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
    /// pkcs7-encryptedData.
    pub(super) const ENCRYPTED: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x06];
    /// pkcs8ShroudedKeyBag.
    pub(super) const SHROUDED_KEY: &[u8] = &[
        0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x02,
    ];
    /// secretBag.
    pub(super) const SECRET: &[u8] = &[
        0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x05,
    ];
    /// PBES2 (RFC 8018 §A.4).
    pub(super) const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
}

#[derive(Default)]
struct Work {
    parts: u64,
    rounds: u64,
}

/// Refuses what would take too long.
pub(super) fn check(bytes: &[u8]) -> Result<(), Pkcs12Error> {
    let mut work = Work::default();
    if work.file(bytes).is_none() {
        let found = "bytes that are none, or in another order";
        return Err(Pkcs12Error::NotPkcs12(found.into()));
    }
    let Work { parts, rounds } = work;
    if parts > PARTS_MAX {
        let text = format!("{parts} encrypted parts, more than {PARTS_MAX}");
        return Err(Pkcs12Error::Unsupported(text));
    }
    if rounds > ROUNDS_MAX {
        let text = format!("{rounds} rounds in all, more than {ROUNDS_MAX}");
        return Err(Pkcs12Error::Unsupported(text));
    }
    Ok(())
}

impl Work {
    /// `PFX`. `None`, here and below: it is not what it has to be.
    fn file(&mut self, bytes: &[u8]) -> Option<()> {
        let mut pfx = Reader::new(single(bytes, tag::SEQUENCE)?.content);
        pfx.expect(tag::INTEGER)?;
        let (kind, safe) = content_info(pfx.expect(tag::SEQUENCE)?.content)?;
        if !pfx.is_empty() {
            self.mac(pfx.expect(tag::SEQUENCE)?.content)?;
        }
        // Signed by a public key instead: nothing of it is decrypted.
        if kind != oid::DATA {
            return Some(());
        }
        let mut all = Reader::new(inner(safe?)?);
        while !all.is_empty() {
            let (kind, content) = content_info(all.expect(tag::SEQUENCE)?.content)?;
            match kind {
                oid::DATA => self.bags(inner(content?)?)?,
                oid::ENCRYPTED => self.encrypted(content?)?,
                _ => {}
            }
        }
        Some(())
    }

    fn mac(&mut self, bytes: &[u8]) -> Option<()> {
        let mut parts = Reader::new(bytes);
        parts.expect(tag::SEQUENCE)?;
        parts.expect(OCTET_STRING)?;
        if !parts.is_empty() {
            self.rounds = self
                .rounds
                .saturating_add(number(parts.expect(tag::INTEGER)?.content)?);
        }
        Some(())
    }

    /// `EncryptedData`: version, and type, algorithm and bytes of what is encrypted.
    fn encrypted(&mut self, bytes: &[u8]) -> Option<()> {
        let mut data = Reader::new(single(bytes, tag::SEQUENCE)?.content);
        data.expect(tag::INTEGER)?;
        let mut info = Reader::new(data.expect(tag::SEQUENCE)?.content);
        info.expect(tag::OBJECT_IDENTIFIER)?;
        self.algorithm(info.expect(tag::SEQUENCE)?.content)
    }

    /// `SafeContents`: the bags that are encrypted each by itself.
    fn bags(&mut self, sequence: &[u8]) -> Option<()> {
        let mut all = Reader::new(sequence);
        while !all.is_empty() {
            let mut bag = Reader::new(all.expect(tag::SEQUENCE)?.content);
            let kind = bag.expect(tag::OBJECT_IDENTIFIER)?.content;
            let value = bag.expect(CONTENT)?.content;
            match kind {
                oid::SHROUDED_KEY => self.key(value)?,
                oid::SECRET => {
                    let mut secret = Reader::new(single(value, tag::SEQUENCE)?.content);
                    secret.expect(tag::OBJECT_IDENTIFIER)?;
                    let value = secret.expect(CONTENT)?.content;
                    // Most secrets are keys in the same wrapping; any other is not opened.
                    let _ = self.key(single(value, OCTET_STRING)?.content);
                }
                _ => {}
            }
        }
        Some(())
    }

    /// `EncryptedPrivateKeyInfo`.
    fn key(&mut self, bytes: &[u8]) -> Option<()> {
        let mut key = Reader::new(single(bytes, tag::SEQUENCE)?.content);
        self.algorithm(key.expect(tag::SEQUENCE)?.content)
    }

    /// One more part, with the rounds of its algorithm: `salt, rounds`, in PBES2 within the key derivation's parameters.
    fn algorithm(&mut self, bytes: &[u8]) -> Option<()> {
        self.parts += 1;
        let mut algorithm = Reader::new(bytes);
        let kind = algorithm.expect(tag::OBJECT_IDENTIFIER)?.content;
        let mut parameters = Reader::new(algorithm.expect(tag::SEQUENCE)?.content);
        if kind == oid::PBES2 {
            let mut derivation = Reader::new(parameters.expect(tag::SEQUENCE)?.content);
            derivation.expect(tag::OBJECT_IDENTIFIER)?;
            parameters = Reader::new(derivation.expect(tag::SEQUENCE)?.content);
        }
        parameters.expect(OCTET_STRING)?;
        let rounds = number(parameters.expect(tag::INTEGER)?.content)?;
        self.rounds = self.rounds.saturating_add(rounds);
        Some(())
    }
}

/// `ContentInfo`: its type, and what is in it.
fn content_info(bytes: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let mut info = Reader::new(bytes);
    let kind = info.expect(tag::OBJECT_IDENTIFIER)?.content;
    Some((kind, info.expect(CONTENT).map(|it| it.content)))
}

/// The sequence in an octet string.
fn inner(content: &[u8]) -> Option<&[u8]> {
    let octets = single(content, OCTET_STRING)?;
    Some(single(octets.content, tag::SEQUENCE)?.content)
}

/// One that is too large for words counts as the largest; a negative one is none.
fn number(bytes: &[u8]) -> Option<u64> {
    if *bytes.first()? >= 0x80 {
        return None;
    }
    let mut number = 0u64;
    for byte in bytes {
        number = number
            .checked_mul(256)
            .map_or(u64::MAX, |it| it | u64::from(*byte));
    }
    Some(number)
}
