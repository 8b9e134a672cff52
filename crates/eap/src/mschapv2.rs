//! MS-CHAP-V2: its arithmetic (RFC 2759 §8, RFC 3079 §3), and its messages within EAP.
//!
//! The hash of a password is as good as the password itself: [`verify`] and [`respond`] are for the process that holds
//! them.

mod message;

use cygnet_crypto::Secret;
use cygnet_crypto::digest::sha1;
use des::Des;
use des::cipher::{BlockCipherEncrypt, KeyInit};
use md4::{Digest, Md4};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

pub(crate) use message::Message;

/// Length of a challenge, of either side.
pub const CHALLENGE_LEN: usize = 16;
/// Length of a password's hash.
pub const HASH_LEN: usize = 16;
/// Length of the answer to a challenge.
pub const RESPONSE_LEN: usize = 24;

/// What a server asks: has this user this password?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The user, without a domain before it.
    pub user: String,
    /// Both challenges.
    pub challenges: [[u8; CHALLENGE_LEN]; 2],
    /// What the peer answered.
    pub nt_response: [u8; RESPONSE_LEN],
}

/// What a peer asks: the answer to these challenges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenges {
    /// The user, without a domain before it.
    pub user: String,
    /// The server's and ours.
    pub challenges: [[u8; CHALLENGE_LEN]; 2],
}

/// The password was right.
pub struct Verified {
    /// By which the server proves that it knows the password, too.
    pub authenticator_response: [u8; 20],
    /// The master session key.
    pub msk: Secret,
}

/// The peer's proof, and what the server has to prove.
pub struct Responded {
    /// The answer to the challenges.
    pub nt_response: [u8; RESPONSE_LEN],
    /// What a server that knows the password answers to it.
    pub authenticator_response: [u8; 20],
    /// The master session key.
    pub msk: Secret,
}

/// NtPasswordHash (RFC 2759 §8.3).
pub fn nt_hash(password: &str) -> Secret {
    let units = password.encode_utf16().flat_map(u16::to_le_bytes);
    // Of its final size from the beginning: growing would leave copies behind.
    let mut octets = Zeroizing::new(Vec::with_capacity(password.len().saturating_mul(2)));
    octets.extend(units);
    md4(&octets)
}

/// Whether the peer knows the password of this hash; `None`: it does not.
pub fn verify(hash: &Secret, attempt: &Attempt) -> Option<Verified> {
    let proof = Proof::new(hash, &attempt.user, &attempt.challenges);
    let right: bool = proof.nt_response.ct_eq(&attempt.nt_response).into();
    right.then(|| Verified {
        authenticator_response: proof.authenticator_response(),
        msk: proof.msk(),
    })
}

/// The peer's answer to the challenges.
pub fn respond(hash: &Secret, challenges: &Challenges) -> Responded {
    let proof = Proof::new(hash, &challenges.user, &challenges.challenges);
    Responded {
        nt_response: proof.nt_response,
        authenticator_response: proof.authenticator_response(),
        msk: proof.msk(),
    }
}

/// The name without a domain before it: `OFFICE\alice` is alice (RFC 2759 §4, Name).
pub fn without_domain(name: &str) -> &str {
    name.rsplit_once('\\').map_or(name, |(_, user)| user)
}

struct Proof {
    hash_of_hash: Secret,
    challenge_hash: [u8; 8],
    nt_response: [u8; RESPONSE_LEN],
}

impl Proof {
    /// GenerateNTResponse (RFC 2759 §8.1).
    fn new(hash: &Secret, user: &str, [server, peer]: &[[u8; CHALLENGE_LEN]; 2]) -> Self {
        // ChallengeHash (§8.2): the first 8 octets.
        let digest = sha1(&[peer, server, user.as_bytes()]);
        let mut challenge_hash = [0; 8];
        challenge_hash.copy_from_slice(digest.first_chunk::<8>().unwrap_or(&[0; 8]));
        Self {
            hash_of_hash: md4(hash.expose()),
            challenge_hash,
            nt_response: challenge_response(hash, challenge_hash),
        }
    }

    /// GenerateAuthenticatorResponse (RFC 2759 §8.7).
    fn authenticator_response(&self) -> [u8; 20] {
        let digest = sha1(&[
            self.hash_of_hash.expose(),
            &self.nt_response,
            b"Magic server to client signing constant",
        ]);
        sha1(&[
            &digest,
            &self.challenge_hash,
            b"Pad to make it do more than one iteration",
        ])
    }

    /// The two MPPE keys of RFC 3079 §3.4, as the server receives and sends, then zeros: what EAP-MSCHAPv2 calls its
    /// master session key.
    fn msk(&self) -> Secret {
        let master = Zeroizing::new(sha1(&[
            self.hash_of_hash.expose(),
            &self.nt_response,
            b"This is the MPPE Master Key",
        ]));
        let start_key = |magic: &[u8]| {
            let master = master.first_chunk::<16>().map_or(&[][..], |key| key);
            Zeroizing::new(sha1(&[master, &[0; 40], magic, &[0xf2; 40]]))
        };
        let (receive, send) = (start_key(CLIENT_SENDS), start_key(SERVER_SENDS));
        let mut msk = Secret::new(vec![0; 64]);
        let parts = msk.expose_mut().chunks_exact_mut(16);
        for (part, key) in parts.zip([&receive, &send]) {
            part.copy_from_slice(key.first_chunk::<16>().unwrap_or(&[0; 16]));
        }
        msk
    }
}

/// RFC 3079 §3.4, Magic2 and Magic3.
const CLIENT_SENDS: &[u8] =
    b"On the client side, this is the send key; on the server side, it is the receive key.";
const SERVER_SENDS: &[u8] =
    b"On the client side, this is the receive key; on the server side, it is the send key.";

fn md4(octets: &[u8]) -> Secret {
    Secret::from_slice(&Md4::digest(octets))
}

/// ChallengeResponse (RFC 2759 §8.5): the challenge under three DES keys, which are the hash and five zeros.
fn challenge_response(hash: &Secret, challenge: [u8; 8]) -> [u8; RESPONSE_LEN] {
    let mut padded = Zeroizing::new([0_u8; 21]);
    padded
        .iter_mut()
        .zip(hash.expose())
        .for_each(|(to, from)| *to = *from);
    let mut response = [0; RESPONSE_LEN];
    let (keys, _) = padded.as_chunks::<7>();
    let (blocks, _) = response.as_chunks_mut::<8>();
    for (key, block) in keys.iter().zip(blocks) {
        *block = challenge;
        Des::new(&(*des_key(key)).into()).encrypt_block(block.into());
    }
    response
}

/// 56 bits in eight octets; DES does not look at the lowest bit of each (RFC 2759 §9.3).
fn des_key(key: &[u8; 7]) -> Zeroizing<[u8; 8]> {
    let mut bits: u64 = key
        .iter()
        .fold(0, |bits, octet| bits << 8 | u64::from(*octet));
    let mut spread = Zeroizing::new([0; 8]);
    for octet in spread.iter_mut().rev() {
        *octet = u8::try_from(bits & 0x7f).unwrap_or_default() << 1;
        bits >>= 7;
    }
    spread
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text
            .chars()
            .filter_map(|c| c.to_digit(16))
            .map(|digit| digit as u8)
            .collect();
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    }

    fn array<const N: usize>(text: &str) -> [u8; N] {
        unhex(text).try_into().unwrap()
    }

    fn challenges() -> Challenges {
        Challenges {
            user: "User".to_owned(),
            challenges: [
                array("5B 5D 7C 7D 7B 3F 2F 3E 3C 2C 60 21 32 26 26 28"),
                array("21 40 23 24 25 5E 26 2A 28 29 5F 2B 3A 33 7C 7E"),
            ],
        }
    }

    #[test]
    fn rfc2759_section_9_2() {
        let hash = nt_hash("clientPass");
        assert!(hash.ct_eq(&unhex("44 EB BA 8D 53 12 B8 D6 11 47 44 11 F5 69 89 AE")));
        let Challenges { user, challenges } = challenges();
        let proof = Proof::new(&hash, &user, &challenges);
        assert_eq!(
            proof.challenge_hash.to_vec(),
            unhex("D0 2E 43 86 BC E9 12 26")
        );
        assert!(
            proof
                .hash_of_hash
                .ct_eq(&unhex("41 C0 0C 58 4B D2 D9 1C 40 17 A2 A1 2F A5 9F 3F"))
        );
        assert_eq!(
            proof.nt_response.to_vec(),
            unhex("82 30 9E CD 8D 70 8B 5E A0 8F AA 39 81 CD 83 54 42 33 11 4A 3D 85 D6 DF")
        );
        assert_eq!(
            proof.authenticator_response().to_vec(),
            unhex("407A5589115FD0D6209F510FE9C04566932CDA56")
        );
    }

    #[test]
    fn rfc2759_section_9_3() {
        let hash = nt_hash("MyPw");
        assert!(hash.ct_eq(&unhex("FC 15 6A F7 ED CD 6C 0E DD E3 33 7D 42 7F 4E AC")));
        // The RFC sets the parity, which DES does not look at.
        let without_parity = |text| unhex(text).iter().map(|octet| octet & 0xfe).collect();
        let expected: [Vec<u8>; 2] = [
            without_parity("FD 0B 5B 5E 7F 6E 34 D9"),
            without_parity("0E 6E 79 67 37 EA 08 FE"),
        ];
        let (keys, _) = hash.expose().as_chunks::<7>();
        let keys: Vec<Vec<u8>> = keys.iter().map(|key| des_key(key).to_vec()).collect();
        assert_eq!(keys, expected);
    }

    #[test]
    fn rfc3079_section_3_5_3() {
        let responded = respond(&nt_hash("clientPass"), &challenges());
        let msk = responded.msk.expose();
        // The server's send key is the second half of what is not zero.
        assert_eq!(
            msk[16..32],
            unhex("8B 7C DC 14 9B 99 3A 1B A1 18 CB 15 3F 56 DC CB")
        );
        assert_eq!(msk[32..], [0; 32]);
        assert_eq!(msk.len(), 64);
    }

    #[test]
    fn only_the_right_password_is_verified() {
        let Challenges { user, challenges } = challenges();
        let nt_response = array("82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF");
        let attempt = Attempt {
            user,
            challenges,
            nt_response,
        };
        let verified = verify(&nt_hash("clientPass"), &attempt).unwrap();
        let responded = respond(&nt_hash("clientPass"), &self::challenges());
        assert!(verified.msk.ct_eq(responded.msk.expose()));
        assert_eq!(
            verified.authenticator_response,
            responded.authenticator_response
        );
        assert!(verify(&nt_hash("clientpass"), &attempt).is_none());
        let other = Attempt {
            user: "user".to_owned(),
            ..attempt
        };
        assert!(verify(&nt_hash("clientPass"), &other).is_none());
    }

    #[test]
    fn a_password_is_text_in_any_script() {
        // Computed with Python: hashlib.new("md4", "Schlüssel🔑".encode("utf-16-le")).
        assert_eq!(
            nt_hash("").expose(),
            unhex("31d6cfe0d16ae931b73c59d7e0c089c0")
        );
        assert_eq!(
            nt_hash("Schlüssel🔑").expose(),
            unhex("e167ccf67e56c554e86452f82f6a264a")
        );
    }

    #[test]
    fn a_domain_is_not_part_of_the_name() {
        assert_eq!(without_domain("OFFICE\\alice"), "alice");
        assert_eq!(without_domain("alice@example.org"), "alice@example.org");
    }
}
