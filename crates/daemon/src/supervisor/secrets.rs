//! Answers questions that need a secret: each on a thread of its own, so that neither a slow
//! signature nor a slow change of the kernel waits for the other.

use std::sync::{Arc, LazyLock};

use cygnet_crypto::psk::psk_auth;
use cygnet_crypto::signature::SignatureScheme;
use cygnet_crypto::suite::Prf;
use cygnet_crypto::{Random, Secret, SystemRandom};
use cygnet_eap::mschapv2::{self, Attempt, Challenges, HASH_LEN, RESPONSE_LEN};
use cygnet_ike::policy::{CredentialId, EapMethods};

use super::start::Secrets;
use crate::ipc::EapKeys;

/// What is signed is a message, a nonce and a MAC: never near this.
const OCTETS_MAX: usize = 256 << 10;

impl Secrets {
    /// The signature; long work, run it on a blocking thread.
    pub(super) fn sign(
        &self,
        credential: &str,
        scheme: SignatureScheme,
        octets: Vec<u8>,
    ) -> Box<dyn FnOnce() -> Result<Vec<u8>, String> + Send> {
        let Some(key) = self.keys.get(credential).map(Arc::clone) else {
            let message = format!("there is no private key `{credential}` any more");
            return Box::new(move || Err(message));
        };
        Box::new(move || {
            bounded(&octets)?;
            key.sign(scheme, &octets).map_err(|e| e.to_string())
        })
    }

    /// The MAC of RFC 7296 §2.15.
    pub(super) fn psk_auth(
        &self,
        credential: &str,
        prf: Prf,
        octets: &[u8],
    ) -> Result<Vec<u8>, String> {
        bounded(octets)?;
        let psk = self
            .psks
            .get(credential)
            .ok_or_else(|| format!("there is no pre-shared key `{credential}` any more"))?;
        Ok(psk_auth(prf, psk.expose(), octets).expose().to_vec())
    }

    /// Whether the attempt proves the password of one of these users. What is not there takes as long as what
    /// is wrong.
    pub(super) fn verify(&self, credential: &str, attempt: &Attempt) -> Option<EapKeys> {
        static NOBODY: LazyLock<Secret> = LazyLock::new(|| {
            let mut hash = Secret::new(vec![0; HASH_LEN]);
            SystemRandom.fill(hash.expose_mut());
            hash
        });
        let name = EapMethods::secret_of(&CredentialId(credential.to_owned()), &attempt.user);
        let known = self.hashes.get(&name.0).map(Arc::as_ref);
        let verified = mschapv2::verify(known.unwrap_or(&NOBODY), attempt);
        let verified = verified.filter(|_| known.is_some())?;
        Some(told(verified.authenticator_response, &verified.msk))
    }

    /// Our own answer to challenges.
    pub(super) fn respond(
        &self,
        credential: &str,
        challenges: &Challenges,
    ) -> Result<([u8; RESPONSE_LEN], EapKeys), String> {
        let hash = self
            .hashes
            .get(credential)
            .ok_or_else(|| format!("there is no password `{credential}` any more"))?;
        let responded = mschapv2::respond(hash, challenges);
        let keys = told(responded.authenticator_response, &responded.msk);
        Ok((responded.nt_response, keys))
    }
}

fn told(authenticator_response: [u8; 20], msk: &Secret) -> EapKeys {
    EapKeys {
        authenticator_response,
        msk: msk.expose().to_vec().into(),
    }
}

fn bounded(octets: &[u8]) -> Result<(), String> {
    if octets.len() > OCTETS_MAX {
        return Err(format!(
            "refused to authenticate {} octets: expected at most {OCTETS_MAX}",
            octets.len()
        ));
    }
    Ok(())
}
