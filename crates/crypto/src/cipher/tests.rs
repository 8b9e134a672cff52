use super::*;
use crate::testing::{cases, hex};

fn wycheproof_aead(
    file: &'static str,
    of_key_len: impl Fn(usize) -> Encryption,
    make: impl Fn(Encryption, &[u8]) -> Aead,
) -> usize {
    let mut count = 0;
    for case in cases(file) {
        let [key, nonce, aad, plaintext, ciphertext, tag] = &case.fields[..] else {
            panic!("six fields");
        };
        let (salt, iv) = nonce.split_at(4);
        let iv: [u8; AEAD_IV] = iv.try_into().unwrap();
        let material = [key, salt].concat();
        let aead = make(of_key_len(key.len()), &material);
        let mut buffer = ciphertext.clone();
        let opened = aead.open(iv, aad, &mut buffer, tag);
        if case.valid {
            assert_eq!(opened, Ok(()), "case {}", case.id);
            assert_eq!(buffer, *plaintext, "case {}", case.id);
            let sealed = aead.seal(iv, aad, &mut buffer).unwrap();
            assert_eq!((buffer, sealed.to_vec()), (ciphertext.clone(), tag.clone()));
        } else {
            assert_eq!(opened, Err(OpenError::Integrity), "case {}", case.id);
        }
        count += 1;
    }
    count
}

fn aws_lc(encryption: Encryption, material: &[u8]) -> Aead {
    Aead::new(encryption, None, material).unwrap().unwrap()
}

/// On every processor: the implementation has code for each.
#[cfg(target_arch = "x86_64")]
fn widened(encryption: Encryption, material: &[u8]) -> Aead {
    let aead = Aead::with(encryption, None, material, wide::key);
    let aead = aead.unwrap().unwrap();
    assert!(matches!(aead.key, AeadKey::Wide(_)));
    aead
}

fn gcm_of(key_len: usize) -> Encryption {
    match key_len {
        16 => Encryption::AesGcm16_128,
        _ => Encryption::AesGcm16_256,
    }
}

#[test]
fn wycheproof_aes_gcm() {
    let file = include_str!("../../vectors/aes-gcm.txt");
    assert!(wycheproof_aead(file, gcm_of, aws_lc) > 50);
    #[cfg(target_arch = "x86_64")]
    assert!(wycheproof_aead(file, gcm_of, widened) > 50);
}

#[test]
fn wycheproof_chacha20_poly1305() {
    let file = include_str!("../../vectors/chacha20-poly1305.txt");
    let chacha = |_| Encryption::ChaCha20Poly1305;
    assert!(wycheproof_aead(file, chacha, aws_lc) > 50);
}

/// What ESP seals with is as fast as this processor can, and IKE's messages are AWS-LC's.
#[cfg(target_arch = "x86_64")]
#[test]
fn packets_have_the_wide_implementation_where_it_is_faster() {
    let material = [7; 36];
    let is_wide = |aead: Result<Option<Aead>, KeyError>| {
        matches!(aead.unwrap().unwrap().key, AeadKey::Wide(_))
    };
    let gcm = Encryption::AesGcm16_256;
    assert_eq!(
        is_wide(Aead::for_packets(gcm, None, &material)),
        wide::is_faster()
    );
    assert!(!is_wide(Aead::new(gcm, None, &material)));
    let chacha = Encryption::ChaCha20Poly1305;
    assert!(!is_wide(Aead::for_packets(chacha, None, &material)));
    let short = Aead::for_packets(gcm, None, &material[1..]);
    assert!(matches!(short, Err(KeyError::Length(_))));
}

/// The vectors are short; packets are not, and the wide code works in strides.
#[cfg(target_arch = "x86_64")]
#[test]
fn both_implementations_of_aes_gcm_are_one() {
    for encryption in [Encryption::AesGcm16_128, Encryption::AesGcm16_256] {
        let material: Vec<u8> = (7..).take(encryption.key_material_len()).collect();
        let (one, other) = (
            aws_lc(encryption, &material),
            widened(encryption, &material),
        );
        for len in (0..=2100).chain([65_000]) {
            let (iv, aad) = ((len as u64).to_be_bytes(), [len as u8; 12]);
            let plain: Vec<u8> = (0..len).map(|n| ((n * 31) >> 3) as u8).collect();
            let (mut sealed, mut again) = (plain.clone(), plain.clone());
            let tag = one.seal(iv, &aad, &mut sealed).unwrap();
            assert_eq!(other.seal(iv, &aad, &mut again), Ok(tag), "{len} octets");
            assert!(sealed == again, "{len} octets");
            let mut forged = sealed.clone();
            let wrong = [tag[0] ^ 1; TAG];
            assert_eq!(
                other.open(iv, &aad, &mut forged, &wrong),
                Err(OpenError::Integrity)
            );
            assert_eq!(other.open(iv, &aad, &mut sealed, &tag), Ok(()));
            assert!(sealed == plain, "{len} octets");
        }
    }
}

fn cbc(encryption: Encryption, key: &str, iv: &str, plaintext: &str, ciphertext: &str) {
    let (key, iv) = (hex(key), hex(iv).try_into().unwrap());
    let (plaintext, ciphertext) = (hex(plaintext), hex(ciphertext));
    let mut buffer = plaintext.clone();
    CbcEncryptor::new(encryption, &key)
        .unwrap()
        .encrypt(iv, &mut buffer)
        .unwrap();
    assert_eq!(buffer, ciphertext);
    CbcDecryptor::new(encryption, &key)
        .unwrap()
        .decrypt(iv, &mut buffer)
        .unwrap();
    assert_eq!(buffer, plaintext);
}

#[test]
fn rfc3602_section_4_case_1() {
    cbc(
        Encryption::AesCbc128,
        "06a9214036b8a15b512e03d534120006",
        "3dafba429d9eb430b422da802c9fac41",
        "53696e676c6520626c6f636b206d7367", // "Single block msg"
        "e353779c1079aeb82708942dbe77181a",
    );
}

#[test]
fn rfc3602_section_4_case_2() {
    cbc(
        Encryption::AesCbc128,
        "c286696d887c9aa0611bbb3e2025a45a",
        "562e17996d093d28ddb3ba695a2e6f58",
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1",
    );
}

#[test]
fn nist_sp_800_38a_f_2_5_aes_256_cbc() {
    cbc(
        Encryption::AesCbc256,
        "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
        "000102030405060708090a0b0c0d0e0f",
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51",
        "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d",
    );
}

/// RFC 4868 §2.7.2, cases 1 (key of 0b, "Hi There") and 2 (key of "Jefe").
#[test]
fn rfc4868_authenticators() {
    let hi = b"Hi There".as_slice();
    let what = b"what do ya want for nothing?".as_slice();
    let cases = [
        (
            Integrity::HmacSha2_256_128,
            b"\x0b".as_slice(),
            hi,
            "198a607eb44bfbc69903a0f1cf2bbdc5",
        ),
        (
            Integrity::HmacSha2_256_128,
            b"Jefe".as_slice(),
            what,
            "167f928588c5cc2eef8e3093caa0e87c",
        ),
        (
            Integrity::HmacSha2_384_192,
            b"\x0b".as_slice(),
            hi,
            "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973",
        ),
        (
            Integrity::HmacSha2_384_192,
            b"Jefe".as_slice(),
            what,
            "2c7353974f1842fd66d53c452ca42122b28c0b594cfb184d",
        ),
        (
            Integrity::HmacSha2_512_256,
            b"\x0b".as_slice(),
            hi,
            "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8",
        ),
        (
            Integrity::HmacSha2_512_256,
            b"Jefe".as_slice(),
            what,
            "cb370917ae8a7ce28cfd1d8f4705d6141c173b2a9362c15df235dfb251b15454",
        ),
    ];
    for (integrity, unit, data, icv) in cases {
        let key = unit.repeat(integrity.key_len() / unit.len());
        let mac = Mac::new(Encryption::AesCbc128, Some(integrity), &key).unwrap();
        let icv = hex(icv);
        let mut signed = vec![0; mac.icv_len()];
        mac.sign(&[&data[..3], &data[3..]], &mut signed);
        assert_eq!(signed, icv);
        assert_eq!(mac.verify(&[data], &icv), Ok(()));
        assert_eq!(mac.verify(&[data, b"x"], &icv), Err(OpenError::Integrity));
        assert_eq!(mac.verify(&[data], &icv[1..]), Err(OpenError::Integrity));
        assert_eq!(mac.verify(&[data], b""), Err(OpenError::Integrity));
    }
}

#[test]
fn ivs_of_cbc_differ_and_tell_nothing_of_the_number() {
    let ivs = IvGenerator::new(b"key material");
    let (a, b) = (ivs.iv(1).unwrap(), ivs.iv(2).unwrap());
    assert_ne!(a, b);
    assert_ne!(a, IvGenerator::new(b"other material").iv(1).unwrap());
    assert_eq!(a, ivs.iv(1).unwrap());
}

#[test]
fn wrong_key_lengths_are_told() {
    let error = Aead::new(Encryption::AesGcm16_128, None, &[0; 16])
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "aes128gcm16 key with salt: expected 20 octets of key material, got 16"
    );
    let error = Mac::new(Encryption::AesCbc128, None, &[]).err().unwrap();
    assert_eq!(
        error.to_string(),
        "aes128 needs an integrity algorithm beside it"
    );
    let sha = Some(Integrity::HmacSha2_256_128);
    let error = Aead::new(Encryption::ChaCha20Poly1305, sha, &[0; 36])
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "chacha20poly1305 takes no integrity algorithm beside it"
    );
}
