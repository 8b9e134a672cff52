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
    /// How the signature is made; long work, run it on a blocking thread. What is refused does not come to wait
    /// for one, however much an engine that was taken over asks for.
    pub(super) fn sign(
        &self,
        credential: &str,
        scheme: SignatureScheme,
        octets: Vec<u8>,
    ) -> Result<impl FnOnce() -> Result<Vec<u8>, String> + Send + use<>, String> {
        bounded(&octets)?;
        let key = self
            .keys
            .get(credential)
            .map(Arc::clone)
            .ok_or_else(|| format!("there is no private key `{credential}` any more"))?;
        Ok(move || key.sign(scheme, &octets).map_err(|e| e.to_string()))
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

    /// Whether the attempt proves the password of one of these users, and of which. What is not there takes as
    /// long as what is wrong.
    pub(super) fn verify(&self, credential: &str, attempt: &Attempt) -> Option<(String, EapKeys)> {
        static NOBODY: LazyLock<Secret> = LazyLock::new(|| {
            let mut hash = Secret::new(vec![0; HASH_LEN]);
            SystemRandom.fill(hash.expose_mut());
            hash
        });
        let credential = CredentialId(credential.to_owned());
        let known = |user: String| {
            let hash = self.users.get(&EapMethods::secret_of(&credential, &user).0);
            hash.map(|hash| (user, hash.as_ref()))
        };
        // Phones begin a name with a capital. The proof is of the name as it was sent (RFC 2759 §8.2).
        let (exact, lower) = (
            known(attempt.user.clone()),
            known(attempt.user.to_lowercase()),
        );
        let known = exact.or(lower);
        let hash = known.as_ref().map_or(&*NOBODY, |(_, hash)| hash);
        let verified = mschapv2::verify(hash, attempt);
        let ((user, _), verified) = known.zip(verified)?;
        let keys = told(verified.authenticator_response, &verified.msk);
        Some((user, keys))
    }

    /// Our own answer to challenges, with a password of ours: under a user's, an engine that was taken over could
    /// log in elsewhere, or take the password apart.
    pub(super) fn respond(
        &self,
        credential: &str,
        challenges: &Challenges,
    ) -> Result<([u8; RESPONSE_LEN], EapKeys), String> {
        let hash = self
            .passwords
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

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        let hash = |password: &str| Arc::new(mschapv2::nt_hash(password));
        Secrets {
            passwords: [("home/password".to_owned(), hash("ours"))].into(),
            users: [("server/passwords/alice".to_owned(), hash("hers"))].into(),
            ..Secrets::default()
        }
    }

    #[test]
    fn what_is_too_long_to_be_signed_does_not_wait_for_a_thread() {
        let sign = |octets| {
            let scheme = SignatureScheme::EcdsaP256Fixed;
            secrets().sign("server", scheme, vec![0; octets]).err()
        };
        let refused = sign(OCTETS_MAX + 1).unwrap();
        assert!(refused.contains("expected at most"), "{refused}");
        let unknown = sign(OCTETS_MAX).unwrap();
        assert!(unknown.contains("no private key"), "{unknown}");
    }

    #[test]
    fn a_user_is_known_in_whatever_case_the_name_is_sent() {
        let challenges = [[1; 16], [2; 16]];
        let verify = |user: &str, password: &str| {
            let sent = Challenges {
                user: user.to_owned(),
                challenges,
            };
            let responded = mschapv2::respond(&mschapv2::nt_hash(password), &sent);
            let attempt = Attempt {
                user: user.to_owned(),
                challenges,
                nt_response: responded.nt_response,
            };
            let verified = secrets().verify("server/passwords", &attempt);
            verified.map(|(user, keys)| {
                assert_eq!(*keys.msk, responded.msk.expose());
                user
            })
        };
        for user in ["alice", "Alice", "ALICE"] {
            assert_eq!(verify(user, "hers").as_deref(), Some("alice"));
            assert_eq!(verify(user, "ours"), None);
        }
        assert_eq!(verify("bob", "hers"), None);
    }

    #[test]
    fn nothing_is_answered_with_the_password_of_a_user() {
        let challenges = || Challenges {
            user: "alice".to_owned(),
            challenges: [[1; 16], [2; 16]],
        };
        let secrets = secrets();
        assert!(secrets.respond("home/password", &challenges()).is_ok());
        let refused = secrets.respond("server/passwords/alice", &challenges());
        assert!(refused.err().unwrap().contains("no password"));
    }
}
