//! What the engine asks: each question is answered at once, or when its answer is there, while the loop
//! goes on.

use std::net::IpAddr;

use cygnet_crypto::signature::SignatureScheme;
use cygnet_crypto::suite::Prf;
use cygnet_eap::USER_MAX;
use cygnet_eap::mschapv2::{Attempt, Challenges};

use super::guesses::Admission;
use super::leases::{Borrower, Wanted};
use super::{Done, Supervisor};
use crate::ipc::{HERE_MAX, SupervisorAnswer, SupervisorAsk, ToEngine, scheme_of};
use crate::resolve;

/// Questions of the engine being worked on at once.
const QUESTIONS_MAX: usize = 256;

/// Octets of the name of a list of users.
const CREDENTIAL_MAX: usize = 1024;

/// Somebody who says that it knows a user's password.
pub(super) struct Guess {
    credential: String,
    source: IpAddr,
    attempt: Attempt,
}

impl Guess {
    /// Refuses what no engine asks that was not taken over: guesses are kept waiting.
    fn new(credential: String, source: IpAddr, attempt: Attempt) -> Result<Self, String> {
        for (what, name, most) in [
            ("user", &attempt.user, USER_MAX),
            ("credential", &credential, CREDENTIAL_MAX),
        ] {
            if name.len() > most {
                return Err(format!(
                    "the name of a {what} has {} octets, expected {most} at most",
                    name.len()
                ));
            }
        }
        Ok(Self {
            credential,
            source,
            attempt,
        })
    }
}

impl Supervisor {
    pub(super) fn ask(&mut self, id: u64, ask: SupervisorAsk) {
        if self.questions >= QUESTIONS_MAX {
            let answer = SupervisorAnswer::Octets(Err("too many questions at once".to_owned()));
            self.tell(&ToEngine::Answer { id, answer });
            return;
        }
        match ask {
            SupervisorAsk::Sign {
                credential,
                scheme,
                octets,
            } => {
                let Some(scheme) = scheme_of(scheme) else {
                    let answer =
                        SupervisorAnswer::Octets(Err(format!("no signature scheme {scheme}")));
                    self.tell(&ToEngine::Answer { id, answer });
                    return;
                };
                self.sign(id, &credential, scheme, octets);
            }
            SupervisorAsk::PskAuth {
                credential,
                prf,
                octets,
            } => {
                let mac = match Prf::from_wire(prf) {
                    Some(prf) => self.secrets.psk_auth(&credential, prf, &octets),
                    None => Err(format!("no PRF {prf}")),
                };
                let answer = SupervisorAnswer::Octets(mac);
                self.tell(&ToEngine::Answer { id, answer });
            }
            SupervisorAsk::EapVerify {
                credential,
                user,
                source,
                challenges,
                nt_response,
            } => {
                let attempt = Attempt {
                    user,
                    challenges,
                    nt_response,
                };
                match Guess::new(credential, source, attempt) {
                    Ok(guess) => self.guess(id, guess),
                    Err(error) => {
                        let answer = SupervisorAnswer::EapVerified(Err(error));
                        self.tell(&ToEngine::Answer { id, answer });
                    }
                }
            }
            SupervisorAsk::EapRespond {
                credential,
                user,
                challenges,
            } => {
                let challenges = Challenges { user, challenges };
                let responded = self.secrets.respond(&credential, &challenges);
                let answer = SupervisorAnswer::EapResponded(responded);
                self.tell(&ToEngine::Answer { id, answer });
            }
            SupervisorAsk::Resolve { name } => {
                // An engine that was taken over is not to choose what is sent to name servers.
                if !resolve::is_configured(&self.loaded.config.policy, &name) {
                    let error = format!("{name} is not in the configuration (any more)");
                    let answer = SupervisorAnswer::Addresses(Err(error));
                    self.tell(&ToEngine::Answer { id, answer });
                    return;
                }
                let user = self.user;
                self.later(id, async move {
                    SupervisorAnswer::Addresses(resolve::ask(&name, user).await)
                });
            }
            SupervisorAsk::Lease {
                pool,
                identity,
                device,
                here,
                ike_sa,
                v4,
                v6,
            } => {
                if here.len() > HERE_MAX {
                    let error = format!(
                        "{} devices at one place, expected {HERE_MAX} at most",
                        here.len()
                    );
                    let answer = SupervisorAnswer::Lease(Err(error));
                    self.tell(&ToEngine::Answer { id, answer });
                    return;
                }
                let who = Borrower {
                    identity: &identity,
                    device,
                    here: &here,
                };
                let lent = self.leases.lend(&pool, who, ike_sa, Wanted { v4, v6 });
                let answer = SupervisorAnswer::Lease(lent);
                self.tell(&ToEngine::Answer { id, answer });
            }
        }
    }

    /// Whoever guesses passwords waits; an attempt that would have to wait for long counts as wrong, and is
    /// answered when those are that had not to.
    fn guess(&mut self, id: u64, guess: Guess) {
        let now = self.started.elapsed();
        let (user, source) = (&guess.attempt.user, guess.source);
        let admitted = self.guesses.admit(now, user, source);
        let Some(wait) = admitted.wait() else {
            self.verify(id, &guess, admitted);
            return;
        };
        let (done, generation) = (self.done.clone(), self.generation);
        let attempt = Box::new(guess);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(wait).await;
            let _ = done.send(Done::Guess {
                generation,
                id,
                attempt,
                admitted,
            });
        });
    }

    /// Answers an attempt that was `admitted` so.
    pub(super) fn verify(&mut self, id: u64, guess: &Guess, admitted: Admission) {
        // What is refused takes as long.
        let verified = self.secrets.verify(&guess.credential, &guess.attempt);
        let verified = verified.filter(|_| admitted.is_looked_at());
        if verified.is_some() {
            let (user, source) = (&guess.attempt.user, guess.source);
            self.guesses.was_right(user, source, admitted);
        }
        let answer = SupervisorAnswer::EapVerified(Ok(verified));
        self.tell(&ToEngine::Answer { id, answer });
    }

    fn sign(&mut self, id: u64, credential: &str, scheme: SignatureScheme, octets: Vec<u8>) {
        let work = match self.secrets.sign(credential, scheme, octets) {
            Ok(work) => work,
            Err(error) => {
                let answer = SupervisorAnswer::Octets(Err(error));
                self.tell(&ToEngine::Answer { id, answer });
                return;
            }
        };
        self.later(id, async move {
            let signed = tokio::task::spawn_blocking(work).await;
            SupervisorAnswer::Octets(signed.unwrap_or_else(|e| Err(e.to_string())))
        });
    }

    /// Answers question `id` when `answer` is there; meanwhile the loop goes on.
    fn later(&mut self, id: u64, answer: impl Future<Output = SupervisorAnswer> + 'static) {
        self.questions += 1;
        let (done, generation) = (self.done.clone(), self.generation);
        tokio::task::spawn_local(async move {
            let answer = answer.await;
            let _ = done.send(Done::Answer {
                generation,
                id,
                answer,
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guess_with_a_long_name_is_not_kept() {
        let guess = |credential: usize, user: usize| {
            let attempt = Attempt {
                user: "u".repeat(user),
                challenges: [[1; 16], [2; 16]],
                nt_response: [0; 24],
            };
            let source = IpAddr::from([192, 0, 2, 1]);
            Guess::new("c".repeat(credential), source, attempt).err()
        };
        assert_eq!(guess(CREDENTIAL_MAX, USER_MAX), None);
        assert!(guess(9, USER_MAX + 1).unwrap().contains("user has 257"));
        assert!(guess(CREDENTIAL_MAX + 1, 5).unwrap().contains("credential"));
    }
}
