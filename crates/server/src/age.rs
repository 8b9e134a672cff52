//! The file format of age (age-encryption.org/v1) with a passphrase: whoever has the backup and the passphrase needs
//! no Cygnet to open it, `age --decrypt` does.
//!
//! ```text
//! age-encryption.org/v1
//! -> scrypt <salt> <log2 of N>
//! <file key, sealed under scrypt(passphrase)>
//! --- <HMAC of the above, under HKDF(file key, "header")>
//! <nonce, 16 octets><chunks of 64 KiB, sealed under HKDF(file key, nonce, "payload")>
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use cygnet_crypto::chacha20poly1305::{Key, TAG_LEN};
use cygnet_crypto::suite::Prf;
use cygnet_crypto::{Random, Secret};
use zeroize::Zeroizing;

pub(crate) const VERSION: &str = "age-encryption.org/v1";
const CHUNK: usize = 64 * 1024;
/// 128 MiB and half a second for each guess.
const WORK: u8 = 17;
/// What age itself writes; more memory than that is not spent because a file says so.
const WORK_MAX: u8 = 18;

/// Seals `plaintext` under a passphrase.
pub(crate) fn seal(plaintext: &[u8], passphrase: &str, random: &mut dyn Random) -> Vec<u8> {
    seal_with(WORK, plaintext, passphrase, random)
}

fn seal_with(work: u8, plaintext: &[u8], passphrase: &str, random: &mut dyn Random) -> Vec<u8> {
    let mut file_key = Zeroizing::new([0; 16]);
    let (mut salt, mut nonce) = ([0; 16], [0; 16]);
    random.fill(&mut *file_key);
    random.fill(&mut salt);
    random.fill(&mut nonce);
    let wrapped = wrapping_key(passphrase, &salt, work).seal([0; 12], &*file_key);
    let header = format!(
        "{VERSION}\n-> scrypt {} {work}\n{}\n---",
        BASE64.encode(salt),
        BASE64.encode(wrapped)
    );
    let mac = header_mac(&*file_key, &header);
    let mut out = format!("{header} {}\n", BASE64.encode(mac.expose())).into_bytes();
    out.extend_from_slice(&nonce);
    let key = payload_key(&*file_key, &nonce);
    if plaintext.is_empty() {
        out.extend(key.seal(chunk_nonce(0, true), &[]));
    }
    for (number, chunk) in (0..).zip(plaintext.chunks(CHUNK)) {
        let last = (number as usize + 1) * CHUNK >= plaintext.len();
        out.extend(key.seal(chunk_nonce(number, last), chunk));
    }
    out
}

/// What was sealed, or one sentence why not.
pub(crate) fn open(sealed: &[u8], passphrase: &str) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    const NONE: &str = "it is no backup of cygnet (no file of age with a passphrase)";
    let mut rest = sealed;
    let mut line = || {
        let end = rest.iter().position(|&b| b == b'\n')?;
        let (line, behind) = rest.split_at_checked(end)?;
        rest = behind.get(1..)?;
        std::str::from_utf8(line).ok().filter(|it| it.len() <= 128)
    };
    if line() != Some(VERSION) {
        return Err(NONE);
    }
    let (stanza, wrapped, mac) = (line(), line(), line());
    let (Some(stanza), Some(wrapped), Some(mac)) = (stanza, wrapped, mac) else {
        return Err(NONE);
    };
    let (salt, work) = stanza
        .strip_prefix("-> scrypt ")
        .and_then(|it| it.split_once(' '))
        .ok_or(NONE)?;
    let salt: [u8; 16] = decoded(salt).ok_or(NONE)?;
    let sealed_key: [u8; 16 + TAG_LEN] = decoded(wrapped).ok_or(NONE)?;
    let mac: [u8; 32] = mac.strip_prefix("--- ").and_then(decoded).ok_or(NONE)?;
    let work: u8 = work.parse().map_err(|_| NONE)?;
    if !(1..=WORK_MAX).contains(&work) {
        return Err("opening it would take too much memory; open it with `age --decrypt`");
    }
    const WRONG: &str = "the passphrase is not the right one";
    let file_key = wrapping_key(passphrase, &salt, work)
        .open([0; 12], &sealed_key)
        .ok_or(WRONG)?;
    const DAMAGED: &str = "it is damaged, or only a part of it";
    let header = format!("{VERSION}\n{stanza}\n{wrapped}\n---");
    if !header_mac(&file_key, &header).ct_eq(&mac) {
        return Err(DAMAGED);
    }
    let (nonce, mut payload) = rest.split_first_chunk::<16>().ok_or(DAMAGED)?;
    let key = payload_key(&file_key, nonce);
    let mut out = Zeroizing::new(Vec::with_capacity(payload.len()));
    for number in 0.. {
        let (chunk, behind) = payload.split_at(payload.len().min(CHUNK + TAG_LEN));
        let last = behind.is_empty();
        let opened = key.open(chunk_nonce(number, last), chunk).ok_or(DAMAGED)?;
        out.extend_from_slice(&opened);
        if last {
            break;
        }
        payload = behind;
    }
    Ok(out)
}

fn decoded<const N: usize>(text: &str) -> Option<[u8; N]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

fn wrapping_key(passphrase: &str, salt: &[u8; 16], work: u8) -> Key {
    let salt = [b"age-encryption.org/v1/scrypt", &salt[..]].concat();
    let params = scrypt::Params::new(work, 8, 1).expect("these are parameters of scrypt");
    let mut key = Zeroizing::new([0; 32]);
    scrypt::scrypt(passphrase.as_bytes(), &salt, &params, &mut *key)
        .expect("scrypt gives 32 octets");
    Key::new(&key)
}

/// HKDF-SHA-256 (RFC 5869). IKE's prf+ is its second step.
fn hkdf(key: &[u8], salt: &[u8], info: &[u8]) -> Secret {
    let extracted = Prf::HmacSha2_256.compute(salt, &[key]);
    Prf::HmacSha2_256.prf_plus(extracted.expose(), &[info], 32)
}

fn header_mac(file_key: &[u8], header: &str) -> Secret {
    let key = hkdf(file_key, b"", b"header");
    Prf::HmacSha2_256.compute(key.expose(), &[header.as_bytes()])
}

fn payload_key(file_key: &[u8], nonce: &[u8; 16]) -> Key {
    let key = hkdf(file_key, nonce, b"payload");
    Key::new(key.expose().try_into().expect("32 octets were asked for"))
}

/// Eleven octets that count, one that says whether it is the last.
fn chunk_nonce(number: u64, last: bool) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&number.to_be_bytes());
    nonce[11] = last.into();
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestRandom;

    #[test]
    fn only_the_whole_file_and_the_passphrase_open() {
        for len in [0, 1, CHUNK, CHUNK + 1] {
            let plain: Vec<u8> = (0..len).map(|it| it as u8).collect();
            let sealed = seal_with(
                10,
                &plain,
                "correct horse",
                &mut TestRandom::new(len as u64),
            );
            assert_eq!(
                open(&sealed, "correct horse").expect("opens").as_slice(),
                plain
            );
            if len == CHUNK + 1 {
                let told = |sealed: &[u8], passphrase: &str| open(sealed, passphrase).err();
                assert!(told(&sealed, "wrong").is_some_and(|it| it.contains("passphrase")));
                // Cut in a chunk, and between two.
                for end in [sealed.len() - 1, sealed.len() - 1 - TAG_LEN] {
                    assert!(
                        told(&sealed[..end], "correct horse")
                            .is_some_and(|it| it.contains("damaged"))
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_no_such_file_is_told_without_work() {
        for bad in [
            "",
            "age-encryption.org/v1",
            "age-encryption.org/v1\n-> X25519 a b\nc\n--- d\n",
            "age-encryption.org/v1\n-> scrypt AAAAAAAAAAAAAAAAAAAAAA 30\n\
             AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n--- AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n",
            "SQLite format 3\0",
        ] {
            assert!(open(bad.as_bytes(), "x").is_err(), "{bad}");
        }
    }
}
