//! Answers questions that need a secret: each on a thread of its own, so that neither a slow
//! signature nor a slow change of the kernel waits for the other.

use std::sync::Arc;

use cygnet_crypto::psk::psk_auth;
use cygnet_crypto::signature::SignatureScheme;
use cygnet_crypto::suite::Prf;

use super::start::Secrets;

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
