use super::*;
use crate::SystemRandom;
use crate::testing::{Script, cases, hex};

fn scripted(group: Group, scalar: &str) -> Ephemeral {
    Ephemeral::generate(group, &mut Script::new(hex(scalar)))
}

/// Both sides of an example: private keys, KE payload contents, shared secret.
fn example(group: Group, i: &str, r: &str, ke_i: &str, ke_r: &str, shared: &str) {
    let (ei, er) = (scripted(group, i), scripted(group, r));
    assert_eq!(ei.public(), hex(ke_i));
    assert_eq!(er.public(), hex(ke_r));
    let shared = hex(shared);
    assert_eq!(er.agree(&hex(ke_i)).unwrap().expose(), shared);
    assert_eq!(ei.agree(&hex(ke_r)).unwrap().expose(), shared);
}

#[test]
fn rfc5903_section_8_1_p256() {
    example(
        Group::EcpP256,
        "C88F01F5 10D9AC3F 70A292DA A2316DE5 44E9AAB8 AFE84049 C62A9C57 862D1433",
        "C6EF9C5D 78AE012A 011164AC B397CE20 88685D8F 06BF9BE0 B283AB46 476BEE53",
        "DAD0B653 94221CF9 B051E1FE CA5787D0 98DFE637 FC90B9EF 945D0C37 72581180
         5271A046 1CDB8252 D61F1C45 6FA3E59A B1F45B33 ACCF5F58 389E0577 B8990BB3",
        "D12DFB52 89C8D4F8 1208B702 70398C34 2296970A 0BCCB74C 736FC755 4494BF63
         56FBF3CA 366CC23E 8157854C 13C58D6A AC23F046 ADA30F83 53E74F33 039872AB",
        "D6840F6B 42F6EDAF D13116E0 E1256520 2FEF8E9E CE7DCE03 812464D0 4B9442DE",
    );
}

#[test]
fn rfc5903_section_8_2_p384() {
    example(
        Group::EcpP384,
        "099F3C70 34D4A2C6 99884D73 A375A67F 7624EF7C 6B3C0F16 0647B674 14DCE655
         E35B5380 41E649EE 3FAEF896 783AB194",
        "41CB0779 B4BDB85D 47846725 FBEC3C94 30FAB46C C8DC5060 855CC9BD A0AA2942
         E0308312 916B8ED2 960E4BD5 5A7448FC",
        "667842D7 D180AC2C DE6F74F3 7551F557 55C7645C 20EF73E3 1634FE72 B4C55EE6
         DE3AC808 ACB4BDB4 C88732AE E95F41AA 9482ED1F C0EEB9CA FC498462 5CCFC23F
         65032149 E0E144AD A0241815 35A0F38E EB9FCFF3 C2C947DA E69B4C63 4573A81C",
        "E558DBEF 53EECDE3 D3FCCFC1 AEA08A89 A987475D 12FD950D 83CFA417 32BC509D
         0D1AC43A 0336DEF9 6FDA41D0 774A3571 DCFBEC7A ACF31964 72169E83 8430367F
         66EEBE3C 6E70C416 DD5F0C68 759DD1FF F83FA401 42209DFF 5EAAD96D B9E6386C",
        "11187331 C279962D 93D60424 3FD592CB 9D0A926F 422E4718 7521287E 7156C5C4
         D6031355 69B9E9D0 9CF5D4A2 70F59746",
    );
}

#[test]
fn rfc5903_section_8_3_p521() {
    example(
        Group::EcpP521,
        "0037ADE9 319A89F4 DABDB3EF 411AACCC A5123C61 ACAB57B5 393DCE47 608172A0
         95AA85A3 0FE1C295 2C6771D9 37BA9777 F5957B26 39BAB072 462F68C2 7A57382D 4A52",
        "0145BA99 A847AF43 793FDD0E 872E7CDF A16BE30F DC780F97 BCCC3F07 8380201E
         9C677D60 0B343757 A3BDBF2A 3163E4C2 F869CCA7 458AA4A4 EFFC311F 5CB15168 5EB9",
        "0015417E 84DBF28C 0AD3C278 713349DC 7DF153C8 97A1891B D98BAB43 57C9ECBE
         E1E3BF42 E00B8E38 0AEAE57C 2D107564 94188594 2AF5A7F4 601723C4 195D176C ED3E
         017CAE20 B6641D2E EB695786 D8C94614 6239D099 E18E1D5A 514C739D 7CB4A10A
         D8A78801 5AC405D7 799DC75E 7B7D5B6C F2261A6A 7F150743 8BF01BEB 6CA3926F 9582",
        "00D0B397 5AC4B799 F5BEA16D 5E13E9AF 971D5E9B 984C9F39 728B5E57 39735A21
         9B97C356 436ADC6E 95BB0352 F6BE64A6 C2912D4E F2D0433C ED2B6171 640012D9 460F
         015C6822 6383956E 3BD066E7 97B623C2 7CE0EAC2 F551A10C 2C724D98 52077B87
         220B6536 C5C408A1 D2AEBB8E 86D678AE 49CB5709 1F473229 6579AB44 FCD17F0F C56A",
        "01144C7D 79AE6956 BC8EDB8E 7C787C45 21CB086F A64407F9 7894E5E6 B2D79B04
         D1427E73 CA4BAA24 0A347868 59810C06 B3C715A3 A8CC3151 F2BEE417 996D19F3 DDEA",
    );
}

#[test]
fn rfc8031_appendix_a_curve25519() {
    example(
        Group::Curve25519,
        "75 1f b4 30 86 55 b4 76 b6 78 9b 73 25 f9 ea 8c dd d1 6a 58 53 3f f6 d9 e6 00 09 46 4a 5f 9d 94",
        "0a 54 64 52 53 29 0d 60 dd ad d0 e0 30 ba cd 9e 55 01 ef dc 22 07 55 a1 e9 78 f1 b8 39 a0 56 88",
        "48 d5 dd d4 06 12 57 ba 16 6f a3 f9 bb db 74 f1 a4 e8 1c 08 93 84 fa 77 f7 90 70 9f 0d fb c7 66",
        "0b e7 c1 f5 aa d8 7d 7e 44 86 62 67 32 98 a4 43 47 8b 85 97 45 17 9e af 56 4c 79 c0 ef 6e ee 25",
        "c7 49 50 60 7a 12 32 7f 32 04 d9 4b 68 25 bf b0 68 b7 f8 31 9a 9e 37 08 ed 3d 43 ce 81 30 c9 50",
    );
}

#[test]
fn rfc7748_section_6_1_curve25519() {
    example(
        Group::Curve25519,
        "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
        "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
    );
}

#[test]
fn wycheproof_x25519() {
    let zero = [0; 32];
    for case in cases(include_str!("../../vectors/x25519.txt")) {
        let [public, private, shared] = &case.fields[..] else {
            panic!("three fields")
        };
        let ephemeral = Ephemeral::generate(Group::Curve25519, &mut Script::new(private.clone()));
        let agreed = ephemeral.agree(public);
        if shared[..] == zero {
            let refused = KexError::ZeroSecret {
                group: Group::Curve25519,
            };
            assert_eq!(agreed.err(), Some(refused), "case {}", case.id);
        } else {
            assert_eq!(agreed.unwrap().expose(), shared, "case {}", case.id);
        }
    }
}

#[test]
fn wycheproof_ecdh() {
    let files = [
        (Group::EcpP256, include_str!("../../vectors/ecdh-p256.txt")),
        (Group::EcpP384, include_str!("../../vectors/ecdh-p384.txt")),
        (Group::EcpP521, include_str!("../../vectors/ecdh-p521.txt")),
    ];
    for (group, file) in files {
        let mut seen = (0, 0);
        for case in cases(file) {
            let [public, private, shared] = &case.fields[..] else {
                panic!("three fields")
            };
            // IKE has no compressed points: what is not 4 | x | y has no encoding here.
            let Some((4, public)) = public.split_first().map(|(first, rest)| (*first, rest)) else {
                continue;
            };
            let len = group.secret_len();
            let significant = &private[private.len().saturating_sub(len)..];
            let mut scalar = vec![0; len - significant.len()];
            scalar.extend_from_slice(significant);
            let agreed = Ephemeral::generate(group, &mut Script::new(scalar)).agree(public);
            if case.valid {
                assert_eq!(agreed.unwrap().expose(), shared, "case {}", case.id);
                seen.0 += 1;
            } else {
                assert!(agreed.is_err(), "case {}", case.id);
                seen.1 += 1;
            }
        }
        assert!(seen.0 >= 3 && seen.1 >= 3, "{group}: {seen:?}");
    }
}

#[test]
fn both_sides_agree_in_every_group() {
    for group in Group::ALL {
        let (i, r) = (
            Ephemeral::generate(group, &mut SystemRandom),
            Ephemeral::generate(group, &mut SystemRandom),
        );
        assert_eq!(i.public().len(), group.public_len());
        let (public_i, public_r) = (i.public().to_vec(), r.public().to_vec());
        let secret = i.agree(&public_r).unwrap();
        assert_eq!(secret.len(), group.secret_len());
        assert!(secret.ct_eq(r.agree(&public_i).unwrap().expose()));
    }
}

#[test]
fn the_same_randomness_makes_the_same_keys() {
    for group in Group::ALL {
        let script: Vec<u8> = (1..=132).collect();
        let a = Ephemeral::generate(group, &mut Script::new(script.clone()));
        let b = Ephemeral::generate(group, &mut Script::new(script));
        assert_eq!(a.public(), b.public());
    }
}

#[test]
fn a_scalar_out_of_range_is_drawn_again() {
    // Zero, then beyond the order, then 1: the public key is the generator (SEC 2, secp256r1).
    let mut draws = vec![0; 32];
    draws.extend([0xff; 32]);
    draws.extend([0; 31]);
    draws.push(1);
    let one = Ephemeral::generate(Group::EcpP256, &mut Script::new(draws));
    assert_eq!(
        one.public(),
        hex(
            "6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296
             4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5"
        )
    );
}

#[test]
fn wrong_lengths_are_refused_and_told() {
    for group in Group::ALL {
        let expected = group.public_len();
        for got in [0, 1, expected - 1, expected + 1, 2 * expected] {
            let ephemeral = Ephemeral::generate(group, &mut SystemRandom);
            let error = ephemeral.agree(&vec![2; got]).err();
            assert_eq!(
                error,
                Some(KexError::Length {
                    group,
                    expected,
                    got
                })
            );
        }
    }
    let error = KexError::Length {
        group: Group::EcpP256,
        expected: 64,
        got: 65,
    };
    assert_eq!(
        error.to_string(),
        "ecp256: expected a public value of 64 octets, got 65"
    );
}

#[test]
fn points_off_the_curve_are_refused() {
    for group in [Group::EcpP256, Group::EcpP384, Group::EcpP521] {
        let mut public = Ephemeral::generate(group, &mut SystemRandom)
            .public()
            .to_vec();
        *public.last_mut().unwrap() ^= 1;
        for bad in [
            public,
            vec![0; group.public_len()],
            vec![0xff; group.public_len()],
        ] {
            let error = Ephemeral::generate(group, &mut SystemRandom)
                .agree(&bad)
                .err();
            assert_eq!(error, Some(KexError::InvalidPublic { group }));
        }
    }
}

#[test]
fn modp_accepts_2_to_p_minus_2() {
    let groups = [Group::Modp2048, Group::Modp3072, Group::Modp4096];
    for (group, modulus) in groups.into_iter().zip(modp::MODULI) {
        let p = hex(modulus);
        assert_eq!(p.len(), group.public_len());
        let minus = |n: u8| {
            let mut octets = p.clone();
            *octets.last_mut().unwrap() -= n; // p ends in ff
            octets
        };
        let small = |n: u8| {
            let mut octets = vec![0; p.len()];
            *octets.last_mut().unwrap() = n;
            octets
        };
        for bad in [small(0), small(1), minus(1), p.clone(), vec![0xff; p.len()]] {
            let error = Ephemeral::generate(group, &mut SystemRandom)
                .agree(&bad)
                .err();
            assert_eq!(error, Some(KexError::InvalidPublic { group }));
        }
        for good in [small(2), small(3), minus(2)] {
            let secret = Ephemeral::generate(group, &mut SystemRandom)
                .agree(&good)
                .unwrap();
            assert_eq!(secret.len(), p.len());
        }
    }
}
