//! Log-ins by EAP: one conversation an IKE SA, on a thread of its own, since packets of strangers are read here.
//!
//! Passwords are the supervisor's: it is asked whether one is right, and for our answer to a challenge.

mod room;
mod tls;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use cygnet_crypto::{Secret, SystemRandom};
use cygnet_eap::mschapv2::{Attempt, Challenges, Responded, Verified};
use cygnet_eap::peer::LogIn;
use cygnet_eap::server::Methods;
use cygnet_eap::{Login, Proof, Step, peer, server};
use cygnet_ike::identity;
use cygnet_ike::io::{Answer, AskId, EapStep, EapSuccess, IkeSaId};
use cygnet_ike::policy::{Connection, CredentialId, EapLogin, EapMethods, LocalAuth};
use cygnet_wire::eap::EapPayload;
use cygnet_wire::id::Identification;

use super::ask::Trusts;
use super::clock::Clock;
use super::{Inbox, Input};
use crate::ipc::{Channel, SupervisorAnswer, SupervisorAsk, ToSupervisor};
use room::UnderWay;
use tls::{Shown, Signatures, Verdict};

/// Log-ins of our own at once: not those that peers may take up.
const OWN_MAX: usize = 256;
/// How long one may take; IKE forgets it before.
const PATIENCE: Duration = Duration::from_secs(40);
const GIVEN_UP: &str = "the log-in took too long, or gave way to those of others";

/// The way to the thread.
pub(super) struct LogIns {
    sender: Sender<Work>,
    signatures: Arc<Signatures>,
}

/// What the core asks.
pub(super) struct Job {
    pub(super) id: AskId,
    pub(super) ike_sa: IkeSaId,
    pub(super) connection: Arc<Connection>,
    pub(super) peer_logs_in: bool,
    pub(super) remote: IpAddr,
    pub(super) packet: Option<EapPayload<'static>>,
}

enum Work {
    Job(Box<Job>),
    /// The IKE SA is gone.
    End(IkeSaId),
    /// The supervisor's answer to the question of this number.
    Answered(u64, SupervisorAnswer),
    /// Who vouches for others from now on.
    Trusts(Trusts),
}

impl LogIns {
    /// Starts the thread; its questions to the supervisor get their numbers from `numbers`.
    pub(super) fn start(
        channel: Arc<Channel>,
        inbox: Inbox,
        clock: Arc<Clock>,
        numbers: Arc<AtomicU64>,
    ) -> Result<Self, String> {
        let (sender, work) = mpsc::channel();
        let signatures = Signatures::new(Arc::clone(&channel), Arc::clone(&numbers));
        let signatures = Arc::new(signatures);
        let mut conversations = Conversations {
            channel,
            inbox,
            clock,
            numbers,
            signatures: Arc::clone(&signatures),
            trusts: Trusts::new(),
            all: BTreeMap::new(),
            asked: BTreeMap::new(),
        };
        std::thread::Builder::new()
            .name("eap".into())
            .spawn(move || {
                while let Ok(work) = work.recv() {
                    conversations.work(work);
                }
            })
            .map_err(|e| format!("cannot start a thread: {e}"))?;
        Ok(Self { sender, signatures })
    }

    /// `false`: the thread has ended.
    pub(super) fn ask(&self, job: Job) -> bool {
        self.sender.send(Work::Job(Box::new(job))).is_ok()
    }

    /// The IKE SA has come to nothing, and with it the log-in.
    pub(super) fn end(&self, ike_sa: IkeSaId) {
        let _ = self.sender.send(Work::End(ike_sa));
    }

    pub(super) fn answered(&self, number: u64, answer: SupervisorAnswer) {
        if let Err(answer) = self.signatures.answered(number, answer) {
            // Without the thread nobody waits for it.
            let _ = self.sender.send(Work::Answered(number, answer));
        }
    }

    pub(super) fn configure(&self, trusts: Trusts) {
        let _ = self.sender.send(Work::Trusts(trusts));
    }
}

struct Conversations {
    channel: Arc<Channel>,
    inbox: Inbox,
    clock: Arc<Clock>,
    numbers: Arc<AtomicU64>,
    signatures: Arc<Signatures>,
    trusts: Trusts,
    all: BTreeMap<IkeSaId, Conversation>,
    /// Whose question to the supervisor it is, and the core's question that waits for it.
    asked: BTreeMap<u64, (IkeSaId, AskId)>,
}

struct Conversation {
    side: Side,
    connection: Arc<Connection>,
    remote: IpAddr,
    until: Instant,
    /// Of the certificates that are shown in TLS.
    verdict: Verdict,
    /// The user whose password was proven, as the list of users has the name.
    user: Option<String>,
}

enum Side {
    Server(Box<server::Server>),
    Peer(Box<peer::Peer>),
}

/// What a conversation comes to.
enum Next {
    Told(Result<EapStep, String>),
    Ask(SupervisorAsk),
}

impl Conversations {
    fn work(&mut self, work: Work) {
        let (ike_sa, id, next) = match work {
            Work::Trusts(trusts) => {
                self.trusts = trusts;
                return;
            }
            Work::End(ike_sa) => {
                self.all.remove(&ike_sa);
                self.asked.retain(|_, (asked, _)| *asked != ike_sa);
                return;
            }
            Work::Job(job) => {
                let (ike_sa, id) = (job.ike_sa, job.id);
                // A bug met by one peer is not to keep all others from logging in.
                let next = catch_unwind(AssertUnwindSafe(|| self.handle(*job)));
                (ike_sa, id, next)
            }
            Work::Answered(number, answer) => {
                let Some((ike_sa, id)) = self.asked.remove(&number) else {
                    return;
                };
                let next = catch_unwind(AssertUnwindSafe(|| self.resume(ike_sa, answer)));
                (ike_sa, id, next)
            }
        };
        let next = next.unwrap_or_else(|_| {
            let why = "this peer makes the log-in fail: a bug, please report it".to_owned();
            Next::Told(Err(why))
        });
        match next {
            Next::Ask(ask) => {
                let number = self.numbers.fetch_add(1, Ordering::Relaxed);
                self.asked.insert(number, (ike_sa, id));
                let message = ToSupervisor::Ask { id: number, ask };
                if let Err(error) = self.channel.send(&message, &[]) {
                    // The supervisor is gone, and so are we in a moment.
                    tracing::debug!("cannot ask the supervisor: {error}");
                }
            }
            Next::Told(step) => {
                if !matches!(step, Ok(EapStep::Send(_) | EapStep::Reject { .. })) {
                    self.all.remove(&ike_sa);
                }
                self.inbox.send(Input::Answer(id, Answer::Eap(step)));
            }
        }
    }

    fn handle(&mut self, job: Job) -> Next {
        let now = Instant::now();
        self.all.retain(|_, conversation| conversation.until > now);
        let all = &self.all;
        self.asked.retain(|_, (ike_sa, _)| all.contains_key(ike_sa));
        let begins = match job.peer_logs_in {
            true => job.packet.is_none(),
            false => !self.all.contains_key(&job.ike_sa),
        };
        if begins {
            if let Err(why) = self.make_room(&job) {
                return Next::Told(Err(why));
            }
            let conversation = match self.begin(&job, now + PATIENCE) {
                Ok(conversation) => conversation,
                Err(why) => return Next::Told(Err(why)),
            };
            self.all.insert(job.ike_sa, conversation);
        }
        match self.all.get_mut(&job.ike_sa) {
            Some(conversation) => conversation.handle(job.packet.as_ref()),
            None => Next::Told(Err(GIVEN_UP.to_owned())),
        }
    }

    /// Whoever logs in with us gives way to others; we do not.
    fn make_room(&mut self, job: &Job) -> Result<(), String> {
        let is_peers = |one: &&Conversation| matches!(one.side, Side::Server(_));
        if !job.peer_logs_in {
            let own = self.all.values().filter(|one| !is_peers(one)).count();
            return match own < OWN_MAX {
                true => Ok(()),
                false => Err("too many tunnels log in at this moment".to_owned()),
            };
        }
        let of_peers = self.all.iter().filter(|(_, one)| is_peers(one));
        let under_way: Vec<_> = of_peers
            .map(|(ike_sa, one)| UnderWay {
                key: *ike_sa,
                source: one.remote,
                until: one.until,
            })
            .collect();
        if let Some(ike_sa) = room::gives_way(&under_way, job.remote) {
            self.all.remove(&ike_sa);
        }
        Ok(())
    }

    fn resume(&mut self, ike_sa: IkeSaId, answer: SupervisorAnswer) -> Next {
        match self.all.get_mut(&ike_sa) {
            Some(conversation) => conversation.resume(answer),
            None => Next::Told(Err(GIVEN_UP.to_owned())),
        }
    }

    fn begin(&self, job: &Job, until: Instant) -> Result<Conversation, String> {
        let connection = Arc::clone(&job.connection);
        let own_name = || {
            let identity = connection.local_identity.as_ref();
            identity.map(identity::display).unwrap_or_default()
        };
        let mut verdict = Verdict::default();
        let side = match (job.peer_logs_in, &connection.local_auth) {
            (true, _) => {
                let mut methods = Methods {
                    passwords: connection.eap.passwords.is_some(),
                    tls: None,
                };
                if connection.eap.tls {
                    let (handshake, shown) =
                        tls::server(&connection, &self.trusts, &self.clock, &self.signatures)?;
                    methods.tls = Some(Box::new(handshake));
                    verdict = shown;
                }
                let server = server::Server::new(&own_name(), methods);
                Side::Server(Box::new(server))
            }
            (false, LocalAuth::Eap(EapLogin::Password { user, .. })) => {
                Side::Peer(Box::new(peer::Peer::new(user, LogIn::Password)))
            }
            (false, LocalAuth::Eap(EapLogin::Certificate { .. })) => {
                let (handshake, shown) =
                    tls::client(&connection, &self.trusts, &self.clock, &self.signatures)?;
                verdict = shown;
                let log_in = LogIn::Tls(Box::new(handshake));
                Side::Peer(Box::new(peer::Peer::new(&own_name(), log_in)))
            }
            (false, _) => return Err("this tunnel does not log in by EAP".to_owned()),
        };
        Ok(Conversation {
            side,
            connection,
            remote: job.remote,
            until,
            verdict,
            user: None,
        })
    }
}

impl Conversation {
    fn handle(&mut self, packet: Option<&EapPayload<'static>>) -> Next {
        let random = &mut SystemRandom;
        match (&mut self.side, packet) {
            (Side::Server(server), None) => Next::Told(Ok(EapStep::Send(server.begin(random)))),
            (Side::Server(server), Some(packet)) => {
                let step = server.handle(packet, random);
                self.serve(step)
            }
            (Side::Peer(peer), Some(packet)) => {
                let step = peer.handle(packet, random);
                self.log_in(step)
            }
            (Side::Peer(_), None) => Next::Told(Err("the server sent nothing".to_owned())),
        }
    }

    fn resume(&mut self, answer: SupervisorAnswer) -> Next {
        match (&mut self.side, answer) {
            (Side::Server(server), SupervisorAnswer::EapVerified(Ok(verified))) => {
                let (user, keys) = verified.unzip();
                let step = server.verified(keys.map(|keys| Verified {
                    authenticator_response: keys.authenticator_response,
                    msk: Secret::from_slice(&keys.msk),
                }));
                self.user = user;
                self.serve(step)
            }
            (Side::Peer(peer), SupervisorAnswer::EapResponded(Ok((nt_response, keys)))) => {
                let step = peer.responded(Responded {
                    nt_response,
                    authenticator_response: keys.authenticator_response,
                    msk: Secret::from_slice(&keys.msk),
                });
                self.log_in(step)
            }
            (
                _,
                SupervisorAnswer::EapVerified(Err(error))
                | SupervisorAnswer::EapResponded(Err(error))
                | SupervisorAnswer::Octets(Err(error)),
            ) => Next::Told(Err(error)),
            _ => Next::Told(Err("the supervisor answered another question".to_owned())),
        }
    }

    fn serve(&self, step: server::Step) -> Next {
        match (step, &self.connection.eap.passwords) {
            (
                Step::Ask(Attempt {
                    user,
                    challenges,
                    nt_response,
                }),
                Some(passwords),
            ) => Next::Ask(SupervisorAsk::EapVerify {
                credential: passwords.0.clone(),
                user,
                source: self.remote,
                challenges,
                nt_response,
            }),
            (step, passwords) => self.told(step, |user| {
                let passwords = passwords.as_ref()?;
                Some(EapMethods::secret_of(passwords, user))
            }),
        }
    }

    fn log_in(&self, step: peer::Step) -> Next {
        match (step, &self.connection.local_auth) {
            (
                Step::Ask(Challenges { user, challenges }),
                LocalAuth::Eap(EapLogin::Password { credential, .. }),
            ) => Next::Ask(SupervisorAsk::EapRespond {
                credential: credential.0.clone(),
                user,
                challenges,
            }),
            (step, _) => self.told(step, |_| None),
        }
    }

    fn told<Q>(&self, step: Step<Q>, secret: impl FnOnce(&str) -> Option<CredentialId>) -> Next {
        let (packet, Login { proof, msk }) = match step {
            Step::Send(packet) => return Next::Told(Ok(EapStep::Send(packet))),
            Step::Reject { packet, why } => {
                return Next::Told(Ok(EapStep::Reject { packet, why }));
            }
            Step::Failure { packet, why } => {
                return Next::Told(Ok(EapStep::Failure { packet, why }));
            }
            Step::Ask(_) => return Next::Told(Err("there are no passwords any more".to_owned())),
            Step::Success { packet, login } => (packet, login),
        };
        let success = match proof {
            Proof::Password(sent) => {
                // However the name was sent, it is one user.
                let user = self.user.as_ref().unwrap_or(&sent);
                EapSuccess {
                    packet,
                    msk,
                    secret: secret(user),
                    identity: Identification::key_id(user.as_bytes()),
                    certificates: Vec::new(),
                    not_after: None,
                }
            }
            Proof::Certificates(certificates) => {
                let shown = self
                    .verdict
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take();
                let Some(Shown {
                    identity,
                    not_after,
                }) = shown
                else {
                    let why = "nobody has judged the certificate that was shown".to_owned();
                    return Next::Told(Err(why));
                };
                EapSuccess {
                    packet,
                    msk,
                    secret: None,
                    identity,
                    certificates,
                    not_after: Some(not_after),
                }
            }
        };
        Next::Told(Ok(EapStep::Success(Box::new(success))))
    }
}
