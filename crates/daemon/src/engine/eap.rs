//! Log-ins by EAP: one conversation an IKE SA, on a thread of its own, since packets of strangers are read here.
//!
//! Passwords are the supervisor's: it is asked whether one is right, and for our answer to a challenge.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use cygnet_crypto::{Secret, SystemRandom};
use cygnet_eap::mschapv2::{Attempt, Challenges, Responded, Verified};
use cygnet_eap::{Login, Step, peer, server};
use cygnet_ike::identity;
use cygnet_ike::io::{Answer, AskId, EapStep, EapSuccess, IkeSaId};
use cygnet_ike::policy::{Connection, CredentialId, EapLogin, EapMethods, LocalAuth};
use cygnet_wire::eap::EapPayload;
use cygnet_wire::id::Identification;

use super::{Inbox, Input};
use crate::ipc::{Channel, SupervisorAnswer, SupervisorAsk, ToSupervisor};

/// Log-ins at once: each holds some kilobytes for somebody who has proven nothing.
const CONVERSATIONS_MAX: usize = 256;
/// How long one may take; IKE forgets it before.
const PATIENCE: Duration = Duration::from_secs(40);

/// The way to the thread.
pub(super) struct LogIns {
    sender: Sender<Work>,
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
    /// The supervisor's answer to the question of this number.
    Answered(u64, SupervisorAnswer),
}

impl LogIns {
    /// Starts the thread; its questions to the supervisor get their numbers from `numbers`.
    pub(super) fn start(
        channel: Arc<Channel>,
        inbox: Inbox,
        numbers: Arc<AtomicU64>,
    ) -> Result<Self, String> {
        let (sender, work) = mpsc::channel();
        let mut conversations = Conversations {
            channel,
            inbox,
            numbers,
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
        Ok(Self { sender })
    }

    /// `false`: the thread has ended.
    pub(super) fn ask(&self, job: Job) -> bool {
        self.sender.send(Work::Job(Box::new(job))).is_ok()
    }

    pub(super) fn answered(&self, number: u64, answer: SupervisorAnswer) {
        // Without the thread nobody waits for it.
        let _ = self.sender.send(Work::Answered(number, answer));
    }
}

struct Conversations {
    channel: Arc<Channel>,
    inbox: Inbox,
    numbers: Arc<AtomicU64>,
    all: BTreeMap<IkeSaId, Conversation>,
    /// Whose question to the supervisor it is, and the core's question that waits for it.
    asked: BTreeMap<u64, (IkeSaId, AskId)>,
}

struct Conversation {
    side: Side,
    connection: Arc<Connection>,
    remote: IpAddr,
    until: Instant,
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
                if !matches!(step, Ok(EapStep::Send(_))) {
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
            if self.all.len() >= CONVERSATIONS_MAX {
                return Next::Told(Err("too many others log in at this moment".to_owned()));
            }
            let conversation = match Conversation::new(&job, now + PATIENCE) {
                Ok(conversation) => conversation,
                Err(why) => return Next::Told(Err(why)),
            };
            self.all.insert(job.ike_sa, conversation);
        }
        match self.all.get_mut(&job.ike_sa) {
            Some(conversation) => conversation.handle(job.packet.as_ref()),
            None => Next::Told(Err("the log-in took too long".to_owned())),
        }
    }

    fn resume(&mut self, ike_sa: IkeSaId, answer: SupervisorAnswer) -> Next {
        match self.all.get_mut(&ike_sa) {
            Some(conversation) => conversation.resume(answer),
            None => Next::Told(Err("the log-in took too long".to_owned())),
        }
    }
}

impl Conversation {
    fn new(job: &Job, until: Instant) -> Result<Self, String> {
        let connection = Arc::clone(&job.connection);
        let side = match (job.peer_logs_in, &connection.local_auth) {
            (true, _) => {
                let name = connection.local_identity.as_ref().map(identity::display);
                let server = server::Server::new(&name.unwrap_or_default());
                Side::Server(Box::new(server))
            }
            (false, LocalAuth::Eap(EapLogin::Password { user, .. })) => {
                Side::Peer(Box::new(peer::Peer::new(user)))
            }
            (false, _) => return Err("this tunnel does not log in by EAP".to_owned()),
        };
        Ok(Self {
            side,
            connection,
            remote: job.remote,
            until,
        })
    }

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
                let step = server.verified(verified.map(|keys| Verified {
                    authenticator_response: keys.authenticator_response,
                    msk: Secret::from_slice(&keys.msk),
                }));
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
        let Some(passwords) = &self.connection.eap.passwords else {
            return Next::Told(Err("there are no passwords any more".to_owned()));
        };
        match step {
            Step::Ask(Attempt {
                user,
                challenges,
                nt_response,
            }) => Next::Ask(SupervisorAsk::EapVerify {
                credential: passwords.0.clone(),
                user,
                source: self.remote,
                challenges,
                nt_response,
            }),
            step => told(step, |user| Some(EapMethods::secret_of(passwords, user))),
        }
    }

    fn log_in(&self, step: peer::Step) -> Next {
        let LocalAuth::Eap(EapLogin::Password { credential, .. }) = &self.connection.local_auth
        else {
            return Next::Told(Err("this tunnel does not log in by EAP".to_owned()));
        };
        match step {
            Step::Ask(Challenges { user, challenges }) => Next::Ask(SupervisorAsk::EapRespond {
                credential: credential.0.clone(),
                user,
                challenges,
            }),
            step => told(step, |_| None),
        }
    }
}

fn told<Q>(step: Step<Q>, secret: impl FnOnce(&str) -> Option<CredentialId>) -> Next {
    Next::Told(Ok(match step {
        Step::Send(packet) => EapStep::Send(packet),
        Step::Success {
            packet,
            login: Login { user, msk },
        } => EapStep::Success(Box::new(EapSuccess {
            packet,
            msk,
            secret: secret(&user),
            identity: Identification::key_id(user.as_bytes()),
            certificates: Vec::new(),
            not_after: None,
        })),
        Step::Failure { packet, why } => EapStep::Failure { packet, why },
        Step::Ask(_) => return Next::Told(Err("the log-in asks twice".to_owned())),
    }))
}
