//! The MODP groups 14, 15 and 16 (RFC 3526): a^x mod p with fixed-size Montgomery arithmetic, in constant time.

use std::sync::LazyLock;

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U512, U2048, U3072, U4096, Uint};
use zeroize::Zeroizing;

use crate::suite::Group;
use crate::{Random, Secret};

/// A private exponent. Short: twice the group's strength and more (RFC 7296 §5, NIST SP 800-56A §5.6.1.1.1),
/// which is safe because (p-1)/2 is prime.
pub(super) struct Exponent {
    modulus: Modulus,
    bits: u32,
    value: Zeroizing<U512>,
}

#[derive(Clone, Copy)]
enum Modulus {
    Bits2048,
    Bits3072,
    Bits4096,
}

impl Exponent {
    pub(super) fn generate(group: Group, random: &mut dyn Random) -> Self {
        let (modulus, bits) = match group {
            Group::Modp3072 => (Modulus::Bits3072, 320),
            Group::Modp4096 => (Modulus::Bits4096, 384),
            _ => (Modulus::Bits2048, 256),
        };
        let mut octets = Zeroizing::new([0; 64]);
        let start = octets.len() - bits as usize / 8;
        random.fill(&mut octets[start..]);
        // The highest bit is set, so that no exponent is short of the strength or zero.
        octets[start] |= 0x80;
        Exponent {
            modulus,
            bits,
            value: Zeroizing::new(U512::from_be_slice(&*octets)),
        }
    }

    /// g^x, padded to the length of the modulus (RFC 7296 §3.4).
    pub(super) fn public(&self) -> Vec<u8> {
        let power = match self.modulus {
            Modulus::Bits2048 => self.power(&GROUP_2048, &U2048::from_u8(GENERATOR)),
            Modulus::Bits3072 => self.power(&GROUP_3072, &U3072::from_u8(GENERATOR)),
            Modulus::Bits4096 => self.power(&GROUP_4096, &U4096::from_u8(GENERATOR)),
        };
        power.expose().to_vec()
    }

    /// peer^x, padded to the length of the modulus; `None` unless 2 <= peer <= p-2. `peer` is as long as
    /// the modulus.
    pub(super) fn agree(&self, peer: &[u8]) -> Option<Secret> {
        match self.modulus {
            Modulus::Bits2048 => self.agree_in(&GROUP_2048, peer),
            Modulus::Bits3072 => self.agree_in(&GROUP_3072, peer),
            Modulus::Bits4096 => self.agree_in(&GROUP_4096, peer),
        }
    }

    fn agree_in<const LIMBS: usize>(
        &self,
        params: &FixedMontyParams<LIMBS>,
        peer: &[u8],
    ) -> Option<Secret> {
        let peer = Uint::<LIMBS>::from_be_slice(peer);
        // Public values: comparing them in variable time gives nothing away.
        let last = params.modulus().as_ref().wrapping_sub(&Uint::ONE);
        if peer <= Uint::ONE || peer >= last {
            return None;
        }
        Some(self.power(params, &peer))
    }

    fn power<const LIMBS: usize>(
        &self,
        params: &FixedMontyParams<LIMBS>,
        base: &Uint<LIMBS>,
    ) -> Secret {
        let base = FixedMontyForm::new(base, params);
        let power = Zeroizing::new(base.pow_bounded_exp(&*self.value, self.bits));
        let power = Zeroizing::new(power.retrieve());
        let mut octets = Vec::with_capacity(LIMBS * size_of::<crypto_bigint::Word>());
        for limb in power.as_limbs().iter().rev() {
            octets.extend_from_slice(&limb.0.to_be_bytes());
        }
        Secret::new(octets)
    }
}

const GENERATOR: u8 = 2;

static GROUP_2048: LazyLock<FixedMontyParams<{ U2048::LIMBS }>> =
    LazyLock::new(|| params(U2048::from_be_hex(MODP2048)));
static GROUP_3072: LazyLock<FixedMontyParams<{ U3072::LIMBS }>> =
    LazyLock::new(|| params(U3072::from_be_hex(MODP3072)));
static GROUP_4096: LazyLock<FixedMontyParams<{ U4096::LIMBS }>> =
    LazyLock::new(|| params(U4096::from_be_hex(MODP4096)));

fn params<const LIMBS: usize>(modulus: Uint<LIMBS>) -> FixedMontyParams<LIMBS> {
    FixedMontyParams::new_vartime(Odd::new(modulus).expect("every modulus is odd"))
}

/// RFC 3526: the 2048 bit MODP group, generator 2.
const MODP2048: &str = "\
    FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
    EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
    EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
    83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
    E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
    15728E5A8AACAA68FFFFFFFFFFFFFFFF";
/// RFC 3526: the 3072 bit MODP group, generator 2.
const MODP3072: &str = "\
    FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
    EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
    EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
    83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
    E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
    15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7\
    ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864D87602733EC86A64521F2B18177B200C\
    BBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF";
/// RFC 3526: the 4096 bit MODP group, generator 2.
const MODP4096: &str = "\
    FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
    EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
    EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
    83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
    E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
    15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7\
    ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864D87602733EC86A64521F2B18177B200C\
    BBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A92108011A723C12A787E6D7\
    88719A10BDBA5B2699C327186AF4E23C1A946834B6150BDA2583E9CA2AD44CE8DBBBC2DB04DE8EF92E8EFC141FBECAA6\
    287C59474E6BC05D99B2964FA090C3A2233BA186515BE7ED1F612970CEE2D7AFB81BDD762170481CD0069127D5B05AA9\
    93B4EA988D8FDDC186FFB7DC90A6C08F4DF435C934063199FFFFFFFFFFFFFFFF";

/// For tests, in the order of their size.
#[cfg(test)]
pub(super) const MODULI: [&str; 3] = [MODP2048, MODP3072, MODP4096];

#[cfg(test)]
mod tests {
    use crypto_bigint::{Limb, NonZero};

    use super::*;
    use crate::testing::Script;

    /// RFC 3526: p = 2^n - 2^(n-64) - 1 + 2^64 * ([2^(n-130) pi] + c).
    #[test]
    fn moduli_obey_their_defining_formula() {
        assert_eq!(
            formula(2048, 124_476),
            U4096::from(&U2048::from_be_hex(MODP2048))
        );
        assert_eq!(
            formula(3072, 1_690_314),
            U4096::from(&U3072::from_be_hex(MODP3072))
        );
        assert_eq!(formula(4096, 240_904), U4096::from_be_hex(MODP4096));
    }

    fn formula(n: u32, c: u64) -> U4096 {
        let power = |exponent: u32| U4096::ONE.shl_vartime(exponent);
        let middle = scaled_pi(n - 130)
            .wrapping_add(&U4096::from_u64(c))
            .shl_vartime(64);
        // 2^4096 does not fit, but all of this wraps back below it.
        let top = if n == 4096 { U4096::ZERO } else { power(n) };
        top.wrapping_sub(&power(n - 64))
            .wrapping_sub(&U4096::ONE)
            .wrapping_add(&middle)
    }

    /// [2^bits pi] by Machin's formula, with 60 bits to guard against rounding.
    fn scaled_pi(bits: u32) -> U4096 {
        let unity = U4096::ONE.shl_vartime(bits + 60);
        let arctan_inverse = |x: u64| {
            let over = |value: &U4096, by: u64| value.div_rem_limb(nonzero(by)).0;
            let (mut term, mut n, mut negative) = (over(&unity, x), 1, false);
            let mut sum = U4096::ZERO;
            while term != U4096::ZERO {
                let part = over(&term, n);
                sum = if negative {
                    sum.wrapping_sub(&part)
                } else {
                    sum.wrapping_add(&part)
                };
                term = over(&term, x * x);
                n += 2;
                negative = !negative;
            }
            sum
        };
        let four = |value: U4096| value.shl_vartime(2);
        four(four(arctan_inverse(5)).wrapping_sub(&arctan_inverse(239))).shr_vartime(60)
    }

    fn nonzero(value: u64) -> NonZero<Limb> {
        NonZero::new(Limb(value)).expect("not zero")
    }

    /// Powers of 2 and of 5, computed with Python's pow(); told by their SHA2-256.
    #[test]
    fn powers_are_those_of_an_independent_implementation() {
        let expected = [
            (
                Group::Modp2048,
                "688b73ccffa631130635f80eda46360fe324a18ad422f6981fd96130cee52859",
                "bf7326dad4a2b7ed801fcdb8357631254c3e04ed5ba7c28c9d6996447ee9e2d2",
            ),
            (
                Group::Modp3072,
                "dac03c1fc3f5e9a6432d5b0d70ceec3214ab5521857cde0c7bf38d6bdd4147a1",
                "267b4f91020963c81b25cfca1250a6dfbecc4c37ea5111bfc44ffe470d66e652",
            ),
            (
                Group::Modp4096,
                "4dab27c15dceb14605547ad4617a10a391386f70c401b3aa395fa998fd56f1a3",
                "069ea9456eac5f0db4da09eadb703120685ecb230303aa61620bfdc72e429119",
            ),
        ];
        for (group, of_2, of_5) in expected {
            let draw = (0..48_u32).map(|i| (7 * i + 1) as u8).collect();
            let exponent = Exponent::generate(group, &mut Script::new(draw));
            let digest = |octets: &[u8]| crate::digest::sha256(&[octets]).to_vec();
            assert_eq!(digest(&exponent.public()), crate::testing::hex(of_2));
            let mut five = vec![0; group.public_len()];
            *five.last_mut().unwrap() = 5;
            let power = exponent.agree(&five).unwrap();
            assert_eq!(digest(power.expose()), crate::testing::hex(of_5));
        }
    }

    /// Of another implementation; see the head of the file.
    const VECTORS: &str = include_str!("../../vectors/modp_strongswan.txt");

    #[test]
    fn powers_and_secrets_are_those_of_strongswan() {
        let mut lines = VECTORS.lines().filter(|line| !line.starts_with('#'));
        for (name, modulus) in [
            ("modp2048", Modulus::Bits2048),
            ("modp3072", Modulus::Bits3072),
            ("modp4096", Modulus::Bits4096),
        ] {
            assert_eq!(lines.next(), Some(name));
            let mut next = || crate::testing::hex(lines.next().expect("five numbers"));
            let mut exponent = || {
                let mut octets = [0; 64];
                let value = next();
                octets[64 - value.len()..].copy_from_slice(&value);
                Exponent {
                    modulus,
                    bits: 512,
                    value: Zeroizing::new(U512::from_be_slice(&octets)),
                }
            };
            let (own, peer) = (exponent(), exponent());
            let (own_public, peer_public, shared) = (next(), next(), next());
            assert_eq!(own.public(), own_public, "{name}");
            assert_eq!(peer.public(), peer_public, "{name}");
            let secret = |of: &Exponent, with: &[u8]| of.agree(with).map(|s| s.expose().to_vec());
            assert_eq!(secret(&own, &peer_public), Some(shared.clone()), "{name}");
            assert_eq!(secret(&peer, &own_public), Some(shared), "{name}");
        }
        assert_eq!(lines.next(), None);
    }
}
