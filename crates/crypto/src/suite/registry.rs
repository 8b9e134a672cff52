//! Names for the transforms that IANA registered, also for those refused here, so that reports can say what a peer offered.

use std::borrow::Cow;

/// Transform types (RFC 7296 §3.3.2).
pub(crate) mod kind {
    pub(crate) const ENCRYPTION: u8 = 1;
    pub(crate) const PRF: u8 = 2;
    pub(crate) const INTEGRITY: u8 = 3;
    pub(crate) const KEY_EXCHANGE: u8 = 4;
    pub(crate) const SEQUENCE_NUMBERS: u8 = 5;
    /// Additional Key Exchange 1 to 7 (RFC 9370), numbered like key exchanges.
    pub(crate) const ADDITIONAL: std::ops::RangeInclusive<u8> = 6..=12;
}

/// The keyword of a transform: its type (1 encryption, 2 PRF, 3 integrity, 4 key exchange, 5 sequence
/// numbers, 6 to 12 additional key exchanges), id and Key Length attribute. What is not registered comes
/// out as its numbers.
pub fn transform_keyword(transform_type: u8, id: u16, key_bits: Option<u16>) -> Cow<'static, str> {
    let table_type = if kind::ADDITIONAL.contains(&transform_type) {
        kind::KEY_EXCHANGE
    } else {
        transform_type
    };
    let entry = REGISTRY
        .iter()
        .find(|entry| entry.kind == table_type && entry.id == id);
    match (entry.map(|entry| entry.name), key_bits) {
        (Some(Plain(name)), None) => Cow::Borrowed(name),
        (Some(Plain(name)), Some(bits)) => Cow::Owned(format!("{name} with a {bits} bit key")),
        (Some(Keyed(family, mode)), Some(bits)) => Cow::Owned(format!("{family}{bits}{mode}")),
        (Some(Keyed(family, mode)), None) => {
            Cow::Owned(format!("{family}{mode} without a key length"))
        }
        (None, bits) => {
            let kind = match table_type {
                kind::ENCRYPTION => "encryption",
                kind::PRF => "prf",
                kind::INTEGRITY => "integrity",
                kind::KEY_EXCHANGE => "key exchange",
                kind::SEQUENCE_NUMBERS => "sequence numbers",
                other => return Cow::Owned(format!("transform type {other} number {id}")),
            };
            Cow::Owned(match bits {
                Some(bits) => format!("{kind} {id} with a {bits} bit key"),
                None => format!("{kind} {id}"),
            })
        }
    }
}

/// Why `keyword` is refused, when it names a registered algorithm that is not used here.
pub(super) fn refusal(keyword: &str) -> Option<&'static str> {
    let known = |entry: &&Entry| match entry.name {
        Plain(name) => keyword == name || Some(keyword) == name.strip_suffix("_96"),
        Keyed(family, mode) => keyword
            .strip_prefix(family)
            .and_then(|rest| rest.strip_suffix(mode))
            .is_some_and(|bits| matches!(bits, "" | "128" | "192" | "256")),
    };
    let entry = REGISTRY.iter().find(known)?;
    Some(match entry.standing {
        Weak => "it is too weak (RFC 8221, RFC 8247)",
        Used | Absent => "Cygnet does not implement it",
    })
}

struct Entry {
    kind: u8,
    id: u16,
    name: Name,
    standing: Standing,
}

#[derive(Clone, Copy)]
enum Name {
    Plain(&'static str),
    /// What stands before and after the key length.
    Keyed(&'static str, &'static str),
}

#[derive(Clone, Copy)]
enum Standing {
    Used,
    Weak,
    Absent,
}

use Name::{Keyed, Plain};
use Standing::{Absent, Used, Weak};

const fn entry(kind: u8, id: u16, name: Name, standing: Standing) -> Entry {
    Entry {
        kind,
        id,
        name,
        standing,
    }
}

/// IANA, "Internet Key Exchange Version 2 (IKEv2) Parameters", transform types 1 to 5.
const REGISTRY: &[Entry] = &[
    entry(kind::ENCRYPTION, 1, Plain("des_iv64"), Weak),
    entry(kind::ENCRYPTION, 2, Plain("des"), Weak),
    entry(kind::ENCRYPTION, 3, Plain("3des"), Weak),
    entry(kind::ENCRYPTION, 4, Plain("rc5"), Weak),
    entry(kind::ENCRYPTION, 5, Plain("idea"), Weak),
    entry(kind::ENCRYPTION, 6, Keyed("cast", ""), Weak),
    entry(kind::ENCRYPTION, 7, Keyed("blowfish", ""), Weak),
    entry(kind::ENCRYPTION, 8, Plain("3idea"), Weak),
    entry(kind::ENCRYPTION, 9, Plain("des_iv32"), Weak),
    entry(kind::ENCRYPTION, 11, Plain("null"), Weak),
    entry(kind::ENCRYPTION, 12, Keyed("aes", ""), Used),
    entry(kind::ENCRYPTION, 13, Keyed("aes", "ctr"), Absent),
    entry(kind::ENCRYPTION, 14, Keyed("aes", "ccm8"), Absent),
    entry(kind::ENCRYPTION, 15, Keyed("aes", "ccm12"), Absent),
    entry(kind::ENCRYPTION, 16, Keyed("aes", "ccm16"), Absent),
    entry(kind::ENCRYPTION, 18, Keyed("aes", "gcm8"), Absent),
    entry(kind::ENCRYPTION, 19, Keyed("aes", "gcm12"), Absent),
    entry(kind::ENCRYPTION, 20, Keyed("aes", "gcm16"), Used),
    entry(kind::ENCRYPTION, 21, Keyed("aes", "gmac"), Weak),
    entry(kind::ENCRYPTION, 23, Keyed("camellia", ""), Absent),
    entry(kind::ENCRYPTION, 24, Keyed("camellia", "ctr"), Absent),
    entry(kind::ENCRYPTION, 25, Keyed("camellia", "ccm8"), Absent),
    entry(kind::ENCRYPTION, 26, Keyed("camellia", "ccm12"), Absent),
    entry(kind::ENCRYPTION, 27, Keyed("camellia", "ccm16"), Absent),
    entry(kind::ENCRYPTION, 28, Plain("chacha20poly1305"), Used),
    entry(kind::ENCRYPTION, 29, Keyed("aes", "ccm8iiv"), Absent),
    entry(kind::ENCRYPTION, 30, Keyed("aes", "gcm16iiv"), Absent),
    entry(kind::ENCRYPTION, 31, Plain("chacha20poly1305iiv"), Absent),
    entry(kind::ENCRYPTION, 32, Plain("kuznyechik_mgm_ktree"), Absent),
    entry(kind::ENCRYPTION, 33, Plain("magma_mgm_ktree"), Absent),
    entry(kind::PRF, 1, Plain("prfmd5"), Weak),
    entry(kind::PRF, 2, Plain("prfsha1"), Weak),
    entry(kind::PRF, 3, Plain("prftiger"), Weak),
    entry(kind::PRF, 4, Plain("prfaesxcbc"), Absent),
    entry(kind::PRF, 5, Plain("prfsha256"), Used),
    entry(kind::PRF, 6, Plain("prfsha384"), Used),
    entry(kind::PRF, 7, Plain("prfsha512"), Used),
    entry(kind::PRF, 8, Plain("prfaescmac"), Absent),
    entry(kind::PRF, 9, Plain("prfstreebog512"), Absent),
    entry(kind::INTEGRITY, 0, Plain("no integrity"), Weak),
    entry(kind::INTEGRITY, 1, Plain("md5_96"), Weak),
    entry(kind::INTEGRITY, 2, Plain("sha1_96"), Weak),
    entry(kind::INTEGRITY, 3, Plain("desmac"), Weak),
    entry(kind::INTEGRITY, 4, Plain("kpdkmd5"), Weak),
    entry(kind::INTEGRITY, 5, Plain("aesxcbc_96"), Absent),
    entry(kind::INTEGRITY, 6, Plain("md5_128"), Weak),
    entry(kind::INTEGRITY, 7, Plain("sha1_160"), Weak),
    entry(kind::INTEGRITY, 8, Plain("aescmac_96"), Absent),
    entry(kind::INTEGRITY, 9, Plain("aes128gmac"), Absent),
    entry(kind::INTEGRITY, 10, Plain("aes192gmac"), Absent),
    entry(kind::INTEGRITY, 11, Plain("aes256gmac"), Absent),
    entry(kind::INTEGRITY, 12, Plain("sha256"), Used),
    entry(kind::INTEGRITY, 13, Plain("sha384"), Used),
    entry(kind::INTEGRITY, 14, Plain("sha512"), Used),
    entry(kind::KEY_EXCHANGE, 0, Plain("no key exchange"), Absent),
    entry(kind::KEY_EXCHANGE, 1, Plain("modp768"), Weak),
    entry(kind::KEY_EXCHANGE, 2, Plain("modp1024"), Weak),
    entry(kind::KEY_EXCHANGE, 5, Plain("modp1536"), Weak),
    entry(kind::KEY_EXCHANGE, 14, Plain("modp2048"), Used),
    entry(kind::KEY_EXCHANGE, 15, Plain("modp3072"), Used),
    entry(kind::KEY_EXCHANGE, 16, Plain("modp4096"), Used),
    entry(kind::KEY_EXCHANGE, 17, Plain("modp6144"), Absent),
    entry(kind::KEY_EXCHANGE, 18, Plain("modp8192"), Absent),
    entry(kind::KEY_EXCHANGE, 19, Plain("ecp256"), Used),
    entry(kind::KEY_EXCHANGE, 20, Plain("ecp384"), Used),
    entry(kind::KEY_EXCHANGE, 21, Plain("ecp521"), Used),
    entry(kind::KEY_EXCHANGE, 22, Plain("modp1024s160"), Weak),
    entry(kind::KEY_EXCHANGE, 23, Plain("modp2048s224"), Weak),
    entry(kind::KEY_EXCHANGE, 24, Plain("modp2048s256"), Weak),
    entry(kind::KEY_EXCHANGE, 25, Plain("ecp192"), Weak),
    entry(kind::KEY_EXCHANGE, 26, Plain("ecp224"), Absent),
    entry(kind::KEY_EXCHANGE, 27, Plain("ecp224bp"), Absent),
    entry(kind::KEY_EXCHANGE, 28, Plain("ecp256bp"), Absent),
    entry(kind::KEY_EXCHANGE, 29, Plain("ecp384bp"), Absent),
    entry(kind::KEY_EXCHANGE, 30, Plain("ecp512bp"), Absent),
    entry(kind::KEY_EXCHANGE, 31, Plain("curve25519"), Used),
    entry(kind::KEY_EXCHANGE, 32, Plain("curve448"), Absent),
    entry(kind::KEY_EXCHANGE, 33, Plain("gost256"), Absent),
    entry(kind::KEY_EXCHANGE, 34, Plain("gost512"), Absent),
    entry(kind::KEY_EXCHANGE, 35, Plain("mlkem512"), Absent),
    entry(kind::KEY_EXCHANGE, 36, Plain("mlkem768"), Absent),
    entry(kind::KEY_EXCHANGE, 37, Plain("mlkem1024"), Absent),
    entry(kind::SEQUENCE_NUMBERS, 0, Plain("noesn"), Used),
    entry(kind::SEQUENCE_NUMBERS, 1, Plain("esn"), Used),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::{Encryption, Group, Integrity, Prf};

    #[test]
    fn used_transforms_have_the_same_name_here_and_in_their_types() {
        for e in Encryption::ALL {
            let (id, bits) = e.to_wire();
            assert_eq!(transform_keyword(kind::ENCRYPTION, id, bits), e.keyword());
        }
        for p in Prf::ALL {
            assert_eq!(transform_keyword(kind::PRF, p.to_wire(), None), p.keyword());
        }
        for i in Integrity::ALL {
            assert_eq!(
                transform_keyword(kind::INTEGRITY, i.to_wire(), None),
                i.keyword()
            );
        }
        for g in Group::ALL {
            assert_eq!(
                transform_keyword(kind::KEY_EXCHANGE, g.to_wire(), None),
                g.keyword()
            );
            assert_eq!(transform_keyword(6, g.to_wire(), None), g.keyword());
        }
    }

    #[test]
    fn refused_and_unregistered_transforms_are_named_too() {
        assert_eq!(transform_keyword(kind::KEY_EXCHANGE, 2, None), "modp1024");
        assert_eq!(transform_keyword(kind::ENCRYPTION, 3, None), "3des");
        assert_eq!(transform_keyword(kind::INTEGRITY, 2, None), "sha1_96");
        assert_eq!(transform_keyword(kind::ENCRYPTION, 12, Some(192)), "aes192");
        assert_eq!(
            transform_keyword(kind::ENCRYPTION, 20, None),
            "aesgcm16 without a key length"
        );
        assert_eq!(
            transform_keyword(kind::ENCRYPTION, 28, Some(256)),
            "chacha20poly1305 with a 256 bit key"
        );
        assert_eq!(transform_keyword(kind::PRF, 4711, None), "prf 4711");
        assert_eq!(transform_keyword(99, 1, None), "transform type 99 number 1");
    }

    #[test]
    fn each_number_and_each_name_stands_once() {
        for (n, a) in REGISTRY.iter().enumerate() {
            for b in &REGISTRY[n + 1..] {
                assert!(
                    (a.kind, a.id) != (b.kind, b.id),
                    "{} {} stands twice",
                    a.kind,
                    a.id
                );
            }
        }
    }
}
