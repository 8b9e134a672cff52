//! Keys of IKE SAs and of their children (RFC 7296 §2.13, §2.14, §2.17, §2.18).
//!
//! An IKE SA has a sequence of key generations, each made from the one before: today by rekeying;
//! additional key exchanges (RFC 9370 §2.2.2) take the same step within one SA.

use cygnet_crypto::ike_cipher::{IkeOpener, IkeSealer};
use cygnet_crypto::suite::{EspSuite, IkeSuite};
use cygnet_crypto::{KeyError, Secret};
use cygnet_wire::header::Spi;

/// Which side of an exchange, or of an IKE SA, one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Sent the first request.
    Initiator,
    /// Answered it.
    Responder,
}

impl Role {
    /// The peer's.
    pub fn other(self) -> Self {
        match self {
            Role::Initiator => Role::Responder,
            Role::Responder => Role::Initiator,
        }
    }
}

/// What both sides of a key exchange know before they know the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchanged {
    /// Ni, without the payload's header.
    pub nonce_i: Vec<u8>,
    /// Nr.
    pub nonce_r: Vec<u8>,
    /// SPIi of the IKE SA that the keys are for.
    pub spi_i: Spi,
    /// SPIr.
    pub spi_r: Spi,
}

/// One generation of the keys of an IKE SA.
pub struct IkeKeys {
    suite: IkeSuite,
    role: Role,
    sk_d: Secret,
    sk_pi: Secret,
    sk_pr: Secret,
    sealer: IkeSealer,
    opener: IkeOpener,
}

/// Key material of a Child SA, one direction each; in each the encryption key, then the integrity
/// key (RFC 7296 §2.17).
pub struct ChildKeys {
    /// What the initiator of the exchange that made the Child SA seals with.
    pub initiator: Secret,
    /// What the responder seals with.
    pub responder: Secret,
}

impl IkeKeys {
    /// From IKE_SA_INIT: SKEYSEED = prf(Ni | Nr, g^ir). `role` is this side's in the IKE SA.
    pub fn initial(
        suite: IkeSuite,
        role: Role,
        exchanged: &Exchanged,
        shared: &Secret,
    ) -> Result<Self, KeyError> {
        let mut nonces = exchanged.nonce_i.clone();
        nonces.extend_from_slice(&exchanged.nonce_r);
        let skeyseed = suite.prf.compute(&nonces, &[shared.expose()]);
        Self::expand(suite, role, exchanged, &skeyseed)
    }

    /// The next generation: of a rekeyed IKE SA, SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr)
    /// with the *old* prf (RFC 7296 §2.18). `role`, suite, nonces and SPIs are those of the new one.
    pub fn successor(
        &self,
        suite: IkeSuite,
        role: Role,
        exchanged: &Exchanged,
        shared: &Secret,
    ) -> Result<Self, KeyError> {
        let skeyseed = self.suite.prf.compute(
            self.sk_d.expose(),
            &[shared.expose(), &exchanged.nonce_i, &exchanged.nonce_r],
        );
        Self::expand(suite, role, exchanged, &skeyseed)
    }

    /// SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr = prf+(SKEYSEED, Ni | Nr | SPIi | SPIr).
    fn expand(
        suite: IkeSuite,
        role: Role,
        exchanged: &Exchanged,
        skeyseed: &Secret,
    ) -> Result<Self, KeyError> {
        let material = suite.prf.prf_plus(
            skeyseed.expose(),
            &[
                &exchanged.nonce_i,
                &exchanged.nonce_r,
                &exchanged.spi_i.to_bytes(),
                &exchanged.spi_r.to_bytes(),
            ],
            suite.key_material_len(),
        );
        let mut rest = material.expose();
        let mut take = |len: usize| {
            let (taken, left) = rest.split_at(len);
            rest = left;
            taken
        };
        let sk_d = Secret::from_slice(take(suite.prf.key_len()));
        let (sk_ai, sk_ar) = (take(suite.sk_a_len()), take(suite.sk_a_len()));
        let (sk_ei, sk_er) = (take(suite.sk_e_len()), take(suite.sk_e_len()));
        let sk_pi = Secret::from_slice(take(suite.prf.key_len()));
        let sk_pr = Secret::from_slice(take(suite.prf.key_len()));
        let ((out_e, out_a), (in_e, in_a)) = match role {
            Role::Initiator => ((sk_ei, sk_ai), (sk_er, sk_ar)),
            Role::Responder => ((sk_er, sk_ar), (sk_ei, sk_ai)),
        };
        Ok(Self {
            suite,
            role,
            sealer: IkeSealer::new(suite.encryption, suite.integrity, out_e, out_a)?,
            opener: IkeOpener::new(suite.encryption, suite.integrity, in_e, in_a)?,
            sk_d,
            sk_pi,
            sk_pr,
        })
    }

    /// The algorithms.
    pub fn suite(&self) -> IkeSuite {
        self.suite
    }

    /// This side's role in the IKE SA.
    pub fn role(&self) -> Role {
        self.role
    }

    /// SK_pi or SK_pr: the key under which a side's identity enters its AUTH payload.
    pub fn sk_p(&self, of: Role) -> &Secret {
        match of {
            Role::Initiator => &self.sk_pi,
            Role::Responder => &self.sk_pr,
        }
    }

    /// Seals what this side sends.
    pub fn sealer(&mut self) -> &mut IkeSealer {
        &mut self.sealer
    }

    /// Opens what the peer sends.
    pub fn opener(&self) -> &IkeOpener {
        &self.opener
    }

    /// KEYMAT = prf+(SK_d, [g^ir (new) |] Ni | Nr) for a Child SA. `shared` where CREATE_CHILD_SA
    /// had a key exchange of its own; the nonces are those of the exchange that makes the child.
    pub fn child(
        &self,
        suite: EspSuite,
        shared: Option<&Secret>,
        nonce_i: &[u8],
        nonce_r: &[u8],
    ) -> ChildKeys {
        let len = suite.key_material_len();
        let shared = shared.map_or(&[][..], Secret::expose);
        let material =
            self.suite
                .prf
                .prf_plus(self.sk_d.expose(), &[shared, nonce_i, nonce_r], 2 * len);
        let (initiator, responder) = material.expose().split_at(len);
        ChildKeys {
            initiator: Secret::from_slice(initiator),
            responder: Secret::from_slice(responder),
        }
    }
}

impl ChildKeys {
    /// (inbound, outbound) for the side that had `role` in the exchange that made the Child SA.
    pub fn directions(self, role: Role) -> (Secret, Secret) {
        match role {
            Role::Initiator => (self.responder, self.initiator),
            Role::Responder => (self.initiator, self.responder),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_random::TestRandom;
    use cygnet_crypto::suite::{Encryption, Group, Integrity, Prf};

    // The expected values were computed independently, with Python's hmac and hashlib, from the
    // formulas of RFC 7296 §2.13, §2.14, §2.17 and §2.18.

    const SUITE: IkeSuite = IkeSuite {
        encryption: Encryption::AesGcm16_128,
        integrity: None,
        prf: Prf::HmacSha2_256,
        group: Group::Curve25519,
    };
    const LEGACY: IkeSuite = IkeSuite {
        encryption: Encryption::AesCbc256,
        integrity: Some(Integrity::HmacSha2_512_256),
        prf: Prf::HmacSha2_384,
        group: Group::Modp2048,
    };
    const CHILD: EspSuite = EspSuite {
        encryption: Encryption::AesGcm16_256,
        integrity: None,
        esn: true,
    };

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
            .collect()
    }

    fn counting(from: u8, len: u8) -> Vec<u8> {
        (from..from + len).collect()
    }

    fn first_exchange() -> Exchanged {
        Exchanged {
            nonce_i: counting(0, 32),
            nonce_r: counting(0x80, 48),
            spi_i: Spi(0x1122_3344_5566_7788),
            spi_r: Spi(0x99aa_bbcc_ddee_ff00),
        }
    }

    fn initial(role: Role) -> IkeKeys {
        let shared = Secret::new(counting(0x40, 32));
        IkeKeys::initial(SUITE, role, &first_exchange(), &shared).unwrap()
    }

    fn rekeyed(role: Role) -> IkeKeys {
        let exchanged = Exchanged {
            nonce_i: vec![0x11; 32],
            nonce_r: vec![0x22; 32],
            spi_i: Spi(0x0102_0304_0506_0708),
            spi_r: Spi(0x1112_1314_1516_1718),
        };
        let shared = Secret::new(counting(0xc0, 32));
        initial(role.other())
            .successor(LEGACY, role, &exchanged, &shared)
            .unwrap()
    }

    /// That `keys` seals with these keys, and its other side opens with them.
    fn assert_ciphers(mut keys: IkeKeys, suite: IkeSuite, sk_e: &str, sk_a: &str, peer: &IkeKeys) {
        let (header, text) = (b"the header", b"payloads");
        let body = keys
            .sealer()
            .seal(&mut TestRandom::new(1), header, text)
            .unwrap();
        let opener = IkeOpener::new(
            suite.encryption,
            suite.integrity,
            &unhex(sk_e),
            &unhex(sk_a),
        )
        .unwrap();
        assert_eq!(opener.open(header, &body).unwrap().expose(), text);
        assert_eq!(peer.opener().open(header, &body).unwrap().expose(), text);
        assert!(keys.opener().open(header, &body).is_err());
    }

    #[test]
    fn the_first_keys_are_those_of_the_rfc() {
        let keys = initial(Role::Initiator);
        assert_eq!(
            hex(keys.sk_d.expose()),
            "ef330910f2220d7f0619ff0da2708b01b8f8d02e6644522e2c45def461d6f11b"
        );
        assert_eq!(
            hex(keys.sk_p(Role::Initiator).expose()),
            "a7c64abab39fe3bb70ecf4d5942ae19692c87109da5ff775806d52d4043dcf33"
        );
        assert_eq!(
            hex(keys.sk_p(Role::Responder).expose()),
            "f4a224cdc97e196a5eac98be3637481b65b3154516a4eb8baffac5e0f5fa9ade"
        );
        let sk_ei = "f0bbb22fb60d9e66f9bcf261d9c7c83687e79b2f";
        let sk_er = "ff90d77638e854b723e77ef686f4feb5f03df57b";
        assert_ciphers(keys, SUITE, sk_ei, "", &initial(Role::Responder));
        let responder = initial(Role::Responder);
        assert_ciphers(responder, SUITE, sk_er, "", &initial(Role::Initiator));
    }

    #[test]
    fn a_rekeyed_ike_sa_has_keys_of_the_old_and_the_new_prf() {
        let keys = rekeyed(Role::Initiator);
        assert_eq!(
            hex(keys.sk_d.expose()),
            "54b7a69710ea8ee042f4e8a2622b454df4b3c2aa75525944171e61a5ea0a50b1\
             b338989ffceb96c093be9f85c0c4d48c"
        );
        assert_eq!(
            hex(keys.sk_p(Role::Responder).expose()),
            "779c529b78901c09000258d92d7a6f5991df36df28fe449c5038d1ef5fa4114f\
             551069703d12220855523abfab873a42"
        );
        assert_ciphers(
            keys,
            LEGACY,
            "3e30cebaf46572f638cc6bfcd901606314e2b3b4e0edef0ed6651d9f5ab28a5f",
            "f051a1bdaf0f4f3d1ee5825a46912db6dab86e1998a24a4821e0541295287a3f\
             7a8f78306efdabeedfbc901ea98b81938254d29e11a20965977826429f112a39",
            &rekeyed(Role::Responder),
        );
        assert_ciphers(
            rekeyed(Role::Responder),
            LEGACY,
            "171581e4e31bdbd2c0a2b1ebac802652d4f71340e37507d5c3a3f3eec0e2a207",
            "cb15d659026c0cd57e2b290c0ad3b016f33fb03acad72bfc8b70f66e411f5dd6\
             917738911ac76f45615ebbe28d93810e842b8f969acb3b19fc3589468ea1fdcf",
            &rekeyed(Role::Initiator),
        );
    }

    #[test]
    fn children_have_key_material_with_and_without_a_key_exchange() {
        let keys = initial(Role::Initiator);
        let Exchanged {
            nonce_i, nonce_r, ..
        } = first_exchange();
        let plain = keys.child(CHILD, None, &nonce_i, &nonce_r);
        assert_eq!(
            hex(plain.initiator.expose()),
            "05ed095fb55205dfa6e313e83137f5be6c40f02bf70f3e4770677fd686379053540bb829"
        );
        assert_eq!(
            hex(plain.responder.expose()),
            "20d23c4f7f150c4c39d0a79fdc6c386b081a5923de7f18e4dfded22369dcc0e3949af3da"
        );
        let shared = Secret::new(counting(0xc0, 32));
        let fresh = keys.child(CHILD, Some(&shared), &nonce_i, &nonce_r);
        assert_eq!(
            hex(fresh.initiator.expose()),
            "f56901675c7047eeb898f446d81081359a131d8e142a9452b0629a06e3303c95b8264e01"
        );
        assert_eq!(
            hex(fresh.responder.expose()),
            "795d8a1b3acf4a5933db1872a72c23b30c13dd3c4ec3bee8e55df4cd8d0be9d44db7a20d"
        );
    }

    #[test]
    fn what_one_side_sends_with_the_other_receives_with() {
        let (nonce_i, nonce_r) = ([1; 32], [2; 32]);
        let child = |role| {
            initial(role)
                .child(CHILD, None, &nonce_i, &nonce_r)
                .directions(role)
        };
        let (in_i, out_i) = child(Role::Initiator);
        let (in_r, out_r) = child(Role::Responder);
        assert!(in_i.ct_eq(out_r.expose()) && in_r.ct_eq(out_i.expose()));
        assert!(!in_i.ct_eq(out_i.expose()));
    }

    /// See the head of the file.
    const ACVP: &str = include_str!("../vectors/ikev2_kdf_acvp.txt");

    #[test]
    fn key_material_is_that_of_nist() {
        let rows: Vec<_> = (ACVP.lines().filter(|line| !line.starts_with('#')))
            .map(unhex)
            .collect();
        let [nonce_i, nonce_r, spi_i, spi_r, skeyseed, dkm, child] = rows.as_slice() else {
            panic!("{} rows", rows.len());
        };
        let spi = |octets: &[u8]| Spi(u64::from_be_bytes(octets.try_into().unwrap()));
        let exchanged = Exchanged {
            nonce_i: nonce_i.clone(),
            nonce_r: nonce_r.clone(),
            spi_i: spi(spi_i),
            spi_r: spi(spi_r),
        };
        let suite = IkeSuite {
            encryption: Encryption::AesGcm16_256,
            prf: Prf::HmacSha2_512,
            ..SUITE
        };
        let skeyseed = Secret::from_slice(skeyseed);
        let keys = |role| IkeKeys::expand(suite, role, &exchanged, &skeyseed).unwrap();
        // SK_d | SK_ei | SK_er | SK_pi | SK_pr, with 4 octets of salt in each SK_e.
        let mut rest = dkm.as_slice();
        let mut take = |len| rest.split_off(..len).unwrap();
        let (sk_d, sk_ei, sk_er) = (take(64), take(36), take(36));
        let (sk_pi, sk_pr) = (take(64), take(64));
        assert!(rest.is_empty());
        let initiator = keys(Role::Initiator);
        assert_eq!(initiator.sk_d.expose(), sk_d);
        assert_eq!(initiator.sk_p(Role::Initiator).expose(), sk_pi);
        assert_eq!(initiator.sk_p(Role::Responder).expose(), sk_pr);
        assert_ciphers(initiator, suite, &hex(sk_ei), "", &keys(Role::Responder));
        let responder = keys(Role::Responder);
        assert_ciphers(responder, suite, &hex(sk_er), "", &keys(Role::Initiator));
        let made = keys(Role::Initiator).child(CHILD, None, nonce_i, nonce_r);
        let (first, second) = child.split_at(CHILD.key_material_len());
        assert_eq!(made.initiator.expose(), first);
        assert!(second.starts_with(made.responder.expose()));
    }
}
