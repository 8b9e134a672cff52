//! Handshakes of EAP-TLS: who vouches for the other end is known here, private keys are the supervisor's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cygnet_crypto::signature::{KeyKind, SignatureScheme};
use cygnet_eap::tls::{Credential, Handshake};
use cygnet_ike::policy::{Connection, EapLogin, LocalAuth, RemoteAuth};
use cygnet_ike::time::UtcTime;
use cygnet_pki::PeerRole;
use cygnet_wire::id::{IdType, Identification};

use crate::engine::ask::{Trusted, Trusts, judge};
use crate::engine::clock::Clock;
use crate::ipc::{Channel, SupervisorAnswer, SupervisorAsk, ToSupervisor, code_of};

/// How long a signature may take: all other log-ins wait meanwhile. How many want one at once is bounded by the
/// calls of one source that may be half open.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a certificate that holds says.
pub(super) struct Shown {
    /// Who has it.
    pub(super) identity: Identification,
    /// When it expires.
    pub(super) not_after: UtcTime,
}

/// What is shown in a handshake, once it has been judged.
pub(super) type Verdict = Arc<Mutex<Option<Shown>>>;

/// Questions for signatures, whose answers are waited for: a handshake cannot go on without.
pub(super) struct Signatures {
    channel: Arc<Channel>,
    numbers: Arc<AtomicU64>,
    waiting: Mutex<BTreeMap<u64, Sender<SupervisorAnswer>>>,
}

impl Signatures {
    pub(super) fn new(channel: Arc<Channel>, numbers: Arc<AtomicU64>) -> Self {
        Self {
            channel,
            numbers,
            waiting: Mutex::default(),
        }
    }

    fn sign(
        &self,
        credential: &str,
        scheme: SignatureScheme,
        octets: &[u8],
    ) -> Result<Vec<u8>, String> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = mpsc::channel();
        self.waiting().insert(number, sender);
        let ask = SupervisorAsk::Sign {
            credential: credential.to_owned(),
            scheme: code_of(scheme),
            octets: octets.to_vec(),
        };
        let asked = self
            .channel
            .send(&ToSupervisor::Ask { id: number, ask }, &[]);
        let answer = match asked {
            Ok(()) => answer.recv_timeout(PATIENCE).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        self.waiting().remove(&number);
        match answer? {
            SupervisorAnswer::Octets(signed) => signed,
            _ => Err("the supervisor answered another question".to_owned()),
        }
    }

    /// Hands over an answer; gives it back if nobody waits for it.
    pub(super) fn answered(
        &self,
        number: u64,
        answer: SupervisorAnswer,
    ) -> Result<(), SupervisorAnswer> {
        match self.waiting().remove(&number) {
            // Whoever has stopped waiting does not want it any more.
            Some(sender) => {
                let _ = sender.send(answer);
                Ok(())
            }
            None => Err(answer),
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Sender<SupervisorAnswer>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server's end for a peer of this connection.
pub(super) fn server(
    connection: &Connection,
    trusts: &Trusts,
    clock: &Arc<Clock>,
    signatures: &Arc<Signatures>,
) -> Result<(Handshake, Verdict), String> {
    let LocalAuth::Certificate {
        credential,
        key,
        chain,
        ..
    } = &connection.local_auth
    else {
        return Err("the server has no certificate".to_owned());
    };
    let trust = trust(connection, trusts)?;
    let authorities = match trust.as_ref() {
        Ok(trusted) => trusted.subjects().to_vec(),
        Err(error) => return Err(error.clone()),
    };
    let verdict = Verdict::default();
    let check = check(trust, PeerRole::Initiator, clock, &verdict);
    let credential = asked(signatures, &credential.0, *key, chain);
    let handshake = Handshake::server(credential, authorities, check)?;
    Ok((handshake, verdict))
}

/// The client's end.
pub(super) fn client(
    connection: &Connection,
    trusts: &Trusts,
    clock: &Arc<Clock>,
    signatures: &Arc<Signatures>,
) -> Result<(Handshake, Verdict), String> {
    let LocalAuth::Eap(EapLogin::Certificate {
        credential,
        key,
        chain,
        ..
    }) = &connection.local_auth
    else {
        return Err("this tunnel does not log in with a certificate".to_owned());
    };
    let trust = trust(connection, trusts)?;
    let verdict = Verdict::default();
    let check = check(trust, PeerRole::Responder, clock, &verdict);
    let credential = asked(signatures, &credential.0, *key, chain);
    Ok((Handshake::client(credential, check)?, verdict))
}

fn asked(
    signatures: &Arc<Signatures>,
    credential: &str,
    key: KeyKind,
    chain: &[Vec<u8>],
) -> Credential {
    let (signatures, name) = (Arc::clone(signatures), credential.to_owned());
    Credential {
        chain: chain.to_vec(),
        key,
        sign: Arc::new(move |scheme, octets| signatures.sign(&name, scheme, octets)),
    }
}

fn trust(connection: &Connection, trusts: &Trusts) -> Result<Arc<Result<Trusted, String>>, String> {
    let RemoteAuth::Certificate { trust, .. } = &connection.remote_auth else {
        return Err("nobody vouches for certificates here".to_owned());
    };
    let known = trusts.get(trust).map(Arc::clone);
    known.ok_or_else(|| "its authorities are not in the configuration any more".to_owned())
}

fn check(
    trust: Arc<Result<Trusted, String>>,
    role: PeerRole,
    clock: &Arc<Clock>,
    verdict: &Verdict,
) -> Box<cygnet_eap::tls::Check> {
    let (clock, verdict) = (Arc::clone(clock), Arc::clone(verdict));
    Box::new(move |certificates| {
        let date = clock.date().map_err(|not_set| not_set.to_string())?;
        let peer = judge(&trust, certificates, role, date)?;
        let leaf = certificates.first().map_or(&[][..], Vec::as_slice);
        let shown = Shown {
            identity: identity(leaf)?,
            not_after: peer.not_after,
        };
        *verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        Ok(())
    })
}

/// Who a certificate is of: its first e-mail address, else its first name, else its subject. What the
/// other end says beside that does not count.
fn identity(leaf: &[u8]) -> Result<Identification, String> {
    let named = cygnet_pki::identity::identities(leaf).map_err(|e| e.to_string())?;
    let named: Vec<Identification> = named
        .into_iter()
        .map(|(ty, data)| Identification {
            ty: IdType(ty),
            data,
        })
        .collect();
    let first = |ty| named.iter().find(|id| id.ty == ty).cloned();
    match first(IdType::ID_RFC822_ADDR).or_else(|| first(IdType::ID_FQDN)) {
        Some(identity) => Ok(identity),
        None => {
            let subject = cygnet_pki::identity::subject(leaf).map_err(|e| e.to_string())?;
            Ok(Identification::dn(subject.as_der()))
        }
    }
}
