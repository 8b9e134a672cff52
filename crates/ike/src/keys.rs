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
