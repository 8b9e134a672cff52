//! Answers the core's questions: those about secrets, names and addresses go to the supervisor,
//! chains are validated here, beside the core's thread, since they come from the network.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};

use cygnet_config::{Config, Trust};
use cygnet_crypto::Secret;
use cygnet_ike::identity;
use cygnet_ike::io::{
    Answer, Ask, AskId, ChainError, IkeSaId, Lease, Path, PeerKey, Transport, WantedAddress,
};
use cygnet_ike::policy::{Connection, Host, Remote, TrustId};
use cygnet_ike::time::UtcTime;
use cygnet_pki::{CrlPolicy, Crls, PeerRole, TrustAnchors, UnixTime, ValidatedPeer};
use cygnet_wire::id::{IdType, Identification};

use super::clock::Clock;
use super::datapath::Datapath;
use super::eap::{Job, LogIns};
use super::{Inbox, Input};
use crate::clock::NotSet;
use crate::ipc::{
    Bundle, Channel, HERE_MAX, SupervisorAnswer, SupervisorAsk, ToSupervisor, code_of,
};

/// Chains of callers waiting to be validated; one that does not fit is asked for again by the core.
const CHAINS_MAX: usize = 64;

/// Who knows what.
pub(super) struct Asker {
    channel: Arc<Channel>,
    chains: Sender<ChainJob>,
    /// How many of them are of callers.
    callers: Arc<AtomicUsize>,
    trusts: Trusts,
    /// What the supervisor works on, by its number.
    pending: BTreeMap<u64, Pending>,
    log_ins: LogIns,
    /// For the next question to the supervisor, whoever has it.
    numbers: Arc<AtomicU64>,
}

struct Pending {
    id: AskId,
    kind: PendingKind,
}

enum PendingKind {
    Signed,
    Mac,
    Leased,
    /// To a server of this connection, at this port.
    Paths(Arc<Connection>, u16),
}

/// Whom a connection trusts, decoded once and not for each caller.
pub(super) struct Trusted {
    anchors: TrustAnchors,
    crls: Crls,
    /// Of the anchors, DER.
    subjects: Vec<Vec<u8>>,
}

/// By connection.
pub(super) type Trusts = BTreeMap<TrustId, Arc<Result<Trusted, String>>>;

struct ChainJob {
    id: AskId,
    trust: Arc<Result<Trusted, String>>,
    certificates: Vec<Vec<u8>>,
    identity: Identification,
    role: PeerRole,
    /// Of a peer that is in; the core asks about one at a time.
    again: bool,
}

impl Asker {
    pub(super) fn new(
        channel: Arc<Channel>,
        inbox: Inbox,
        trusts: Trusts,
        clock: Arc<Clock>,
    ) -> Result<Self, String> {
        let numbers = Arc::new(AtomicU64::new(0));
        let log_ins = LogIns::start(
            Arc::clone(&channel),
            inbox.clone(),
            Arc::clone(&clock),
            Arc::clone(&numbers),
        )?;
        let (chains, jobs) = mpsc::channel::<ChainJob>();
        let callers = Arc::new(AtomicUsize::new(0));
        let waiting = Arc::clone(&callers);
        std::thread::Builder::new()
            .name("chains".into())
            .spawn(move || {
                while let Ok(job) = jobs.recv() {
                    let id = job.id;
                    if !job.again {
                        waiting.fetch_sub(1, Ordering::Relaxed);
                    }
                    let date = clock.date();
                    // A bug met by one chain is not to keep all others from being validated.
                    let verdict = catch_unwind(AssertUnwindSafe(|| validate(&job, date)));
                    let verdict = verdict.unwrap_or_else(|_| {
                        let bug = "this chain makes the validator fail: a bug, please report it";
                        Err(ChainError::Invalid(bug.to_owned()))
                    });
                    inbox.send(Input::Answer(id, Answer::Chain(verdict)));
                }
            })
            .map_err(|e| format!("cannot start a thread: {e}"))?;
        let mut asker = Self {
            channel,
            chains,
            callers,
            trusts: BTreeMap::new(),
            pending: BTreeMap::new(),
            log_ins,
            numbers,
        };
        asker.configure(trusts);
        Ok(asker)
    }

    pub(super) fn configure(&mut self, trusts: Trusts) {
        self.trusts = trusts;
        self.log_ins.configure(self.trusts.clone());
    }

    /// Asks; the answer, if it is there at once.
    pub(super) fn ask(&mut self, id: AskId, ask: Ask, datapath: &Datapath) -> Option<Answer> {
        match ask {
            Ask::Resolve { connection, server } => {
                let (host, port) = match &connection.remote {
                    Remote::Hosts { servers, port } => (servers.get(server), *port),
                    Remote::Any => (None, 0),
                };
                match host.map(|server| &server.host) {
                    Some(Host::Address(address)) => Some(Answer::Paths(paths(
                        &connection,
                        port,
                        &[*address],
                        datapath,
                    ))),
                    Some(Host::Name(name)) => {
                        let ask = SupervisorAsk::Resolve { name: name.clone() };
                        self.supervisor(id, PendingKind::Paths(connection, port), ask);
                        None
                    }
                    None => {
                        let error = "the tunnel has no address to call".to_owned();
                        Some(Answer::Paths(Err(error)))
                    }
                }
            }
            Ask::Ways {
                connection,
                from,
                to,
            } => {
                let way = |remote| {
                    let wanted = connection.local_address;
                    let local = datapath.local_on(from, remote, wanted)?;
                    Some(way(local, remote))
                };
                Some(Answer::Paths(Ok(to.into_iter().filter_map(way).collect())))
            }
            Ask::Sign {
                credential,
                scheme,
                octets,
            } => {
                let ask = SupervisorAsk::Sign {
                    credential: credential.0,
                    scheme: code_of(scheme),
                    octets,
                };
                self.supervisor(id, PendingKind::Signed, ask);
                None
            }
            Ask::PskAuth {
                credential,
                prf,
                octets,
            } => {
                let ask = SupervisorAsk::PskAuth {
                    credential: credential.0,
                    prf: prf.to_wire(),
                    octets,
                };
                self.supervisor(id, PendingKind::Mac, ask);
                None
            }
            Ask::ValidateChain {
                trust,
                certificates,
                identity,
                peer_is_responder,
                again,
            } => {
                let role = if peer_is_responder {
                    PeerRole::Responder
                } else {
                    PeerRole::Initiator
                };
                self.chain(&trust, |trust| ChainJob {
                    id,
                    trust,
                    certificates,
                    identity,
                    role,
                    again,
                })
            }
            Ask::Eap {
                ike_sa,
                connection,
                peer_logs_in,
                remote,
                packet,
            } => {
                let job = Job {
                    id,
                    ike_sa,
                    connection,
                    peer_logs_in,
                    remote,
                    packet,
                };
                let asked = self.log_ins.ask(job);
                (!asked).then(|| Answer::Eap(Err("who logs in has ended".to_owned())))
            }
            Ask::Lease {
                pool,
                identity,
                device,
                ike_sa,
                wanted,
            } => {
                let (mut v4, mut v6) = (None, None);
                for wish in wanted {
                    match wish {
                        WantedAddress::V4(a) => v4 = Some(a),
                        WantedAddress::V6(a) => v6 = Some(a),
                    }
                }
                let ask = SupervisorAsk::Lease {
                    pool: pool.0,
                    identity: holder(&identity),
                    device: device.as_ref().map(|device| device.at),
                    here: (device.iter())
                        .flat_map(|device| device.here.iter().map(|id| id.0))
                        .take(HERE_MAX)
                        .collect(),
                    ike_sa: ike_sa.0,
                    v4,
                    v6,
                };
                self.supervisor(id, PendingKind::Leased, ask);
                None
            }
        }
    }

    /// Nobody goes on with the log-in of this IKE SA.
    pub(super) fn end_log_in(&self, ike_sa: IkeSaId) {
        self.log_ins.end(ike_sa);
    }

    /// An answer of the supervisor; what the core is to hear, if it is complete.
    pub(super) fn answered(
        &mut self,
        number: u64,
        answer: SupervisorAnswer,
        datapath: &Datapath,
    ) -> Option<(AskId, Answer)> {
        let Some(Pending { id, kind }) = self.pending.remove(&number) else {
            self.log_ins.answered(number, answer);
            return None;
        };
        let wrong = || "the supervisor answered another question".to_owned();
        let answer = match (kind, answer) {
            (PendingKind::Signed, SupervisorAnswer::Octets(signed)) => Answer::Signed(signed),
            (PendingKind::Mac, SupervisorAnswer::Octets(mac)) => Answer::Mac(mac.map(Secret::new)),
            (PendingKind::Leased, SupervisorAnswer::Lease(lent)) => {
                Answer::Leased(lent.map(|lent| Lease {
                    addresses: lent.addresses,
                    dns: lent.dns,
                    domains: lent.domains,
                    speedtest: lent.speedtest,
                }))
            }
            (PendingKind::Leased, SupervisorAnswer::Octets(Err(e))) => Answer::Leased(Err(e)),
            (PendingKind::Paths(connection, port), answer) => Answer::Paths(match answer {
                SupervisorAnswer::Addresses(Ok(found)) => {
                    paths(&connection, port, &found, datapath)
                }
                SupervisorAnswer::Addresses(Err(e)) | SupervisorAnswer::Octets(Err(e)) => Err(e),
                _ => Err(wrong()),
            }),
            (PendingKind::Signed, _) => Answer::Signed(Err(wrong())),
            (PendingKind::Mac, _) => Answer::Mac(Err(wrong())),
            (PendingKind::Leased, _) => Answer::Leased(Err(wrong())),
        };
        Some((id, answer))
    }

    fn supervisor(&mut self, id: AskId, kind: PendingKind, ask: SupervisorAsk) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.pending.insert(number, Pending { id, kind });
        let message = ToSupervisor::Ask { id: number, ask };
        if let Err(error) = self.channel.send(&message, &[]) {
            // The supervisor is gone, and so are we in a moment.
            tracing::debug!("cannot ask the supervisor: {error}");
        }
    }

    fn chain(
        &self,
        trust: &TrustId,
        job: impl FnOnce(Arc<Result<Trusted, String>>) -> ChainJob,
    ) -> Option<Answer> {
        let unavailable =
            |why: &str| Some(Answer::Chain(Err(ChainError::Unavailable(why.to_owned()))));
        let Some(trust) = self.trusts.get(trust) else {
            let why = "its authorities are not in the configuration any more".to_owned();
            return Some(Answer::Chain(Err(ChainError::Invalid(why))));
        };
        let job = job(Arc::clone(trust));
        if !job.again {
            if self.callers.load(Ordering::Relaxed) >= CHAINS_MAX {
                return unavailable("too many others wait already");
            }
            self.callers.fetch_add(1, Ordering::Relaxed);
        }
        match self.chains.send(job) {
            Ok(()) => None,
            Err(_) => unavailable("who validates has ended"),
        }
    }
}

/// The ways to these addresses of a server, or why there is none.
fn paths(
    connection: &Connection,
    port: u16,
    addresses: &[IpAddr],
    datapath: &Datapath,
) -> Result<Vec<Path>, String> {
    let mut paths = Vec::new();
    let mut failure = None;
    for address in addresses {
        let remote = SocketAddr::new(*address, port);
        match datapath.local_for(remote, connection.local_address) {
            Ok(local) => paths.push(way(local, remote)),
            Err(error) => failure = Some(error),
        }
    }
    match failure.filter(|_| paths.is_empty()) {
        Some(failure) => Err(failure),
        None if paths.is_empty() => Err("the name has no address".to_owned()),
        None => Ok(paths),
    }
}

impl Trusted {
    /// Subjects of the authorities, DER.
    pub(super) fn subjects(&self) -> &[Vec<u8>] {
        &self.subjects
    }

    /// Whom the connections of a configuration trust.
    pub(super) fn of(config: &Config, bundle: &Bundle) -> Trusts {
        let trusts = config.trusts.iter();
        trusts
            .map(|(id, trust)| (id.clone(), Arc::new(Trusted::new(trust, &bundle.fetched))))
            .collect()
    }

    fn new(trust: &Trust, fetched: &BTreeMap<String, Vec<Vec<u8>>>) -> Result<Self, String> {
        let mut anchors = TrustAnchors::new();
        for anchor in &trust.anchors {
            anchors.add(anchor.clone()).map_err(|e| e.to_string())?;
        }
        let mut crls = Crls::new(CrlPolicy::default());
        for file in &trust.crls {
            for crl in cygnet_pki::load::crls(file, std::path::Path::new("CRL"))
                .map_err(|e| e.to_string())?
            {
                crls.add(crl).map_err(|e| e.to_string())?;
            }
        }
        for url in &trust.crl_urls {
            // Who fetched it has judged it; what a network said may keep nobody out all the same.
            for crl in fetched.get(url).into_iter().flatten() {
                if let Err(error) = crls.add(crl.clone()) {
                    tracing::warn!("the revocation list {url} is not heeded: {error}");
                }
            }
        }
        let subjects = anchors.iter().filter_map(|anchor| {
            let subject = cygnet_pki::identity::subject(anchor).ok()?;
            Some(subject.as_der().to_vec())
        });
        Ok(Self {
            subjects: subjects.collect(),
            anchors,
            crls,
        })
    }
}

fn way(local: SocketAddr, remote: SocketAddr) -> Path {
    Path {
        transport: Transport::Udp,
        local,
        remote,
        interface: 0,
    }
}

/// The name under which addresses are lent. Spellings that a certificate does not tell apart are
/// one client, or a single certificate could take a whole pool; and what is written alike but is
/// of different types is not.
fn holder(identity: &Identification) -> String {
    let shown = identity::display(identity);
    match identity.ty {
        IdType::ID_FQDN => {
            let name = shown.strip_suffix('.').unwrap_or(&shown).to_lowercase();
            let is_name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
            if name.parse::<IpAddr>().is_err() && name.chars().all(is_name) {
                name
            } else {
                format!("FQDN {name}")
            }
        }
        IdType::ID_RFC822_ADDR => {
            // What stands before a space or a `=` says the type elsewhere.
            let is_plain = !shown.contains(|c: char| c.is_whitespace() || c == '=');
            match shown.rsplit_once('@').filter(|_| is_plain) {
                Some((local, domain)) => format!("{local}@{}", domain.to_lowercase()),
                None => format!("e-mail {shown}"),
            }
        }
        IdType::ID_KEY_ID => format!("user {shown}"),
        IdType::ID_DER_ASN1_DN => {
            let words: Vec<&str> = shown.split_whitespace().collect();
            words.join(" ").to_lowercase()
        }
        _ => shown,
    }
}

fn validate(job: &ChainJob, date: Result<UtcTime, NotSet>) -> Result<PeerKey, ChainError> {
    // Says nothing about the peer: it is asked again.
    let date = date.map_err(|not_set| ChainError::Unavailable(not_set.to_string()))?;
    let peer = judge(&job.trust, &job.certificates, job.role, date).map_err(ChainError::Invalid)?;
    peer.chain
        .contains(job.identity.ty.0, &job.identity.data)
        .map_err(|e| ChainError::Invalid(e.to_string()))?;
    Ok(PeerKey {
        subject: peer.chain.subject.to_string(),
        not_after: peer.not_after,
        spki: peer.chain.spki,
    })
}

/// What a chain that holds says.
pub(super) struct Judged {
    chain: ValidatedPeer,
    /// When the leaf expires.
    pub(super) not_after: UtcTime,
}

/// Whether a chain holds, whoever its leaf is of.
pub(super) fn judge(
    trust: &Result<Trusted, String>,
    certificates: &[Vec<u8>],
    role: PeerRole,
    date: UtcTime,
) -> Result<Judged, String> {
    let Trusted { anchors, crls, .. } = trust.as_ref().map_err(Clone::clone)?;
    let Some((leaf, intermediates)) = certificates.split_first() else {
        return Err(
            "the peer sent no certificate; set it up to send one (strongSwan: send_cert = always)"
                .to_owned(),
        );
    };
    let intermediates: Vec<&[u8]> = intermediates.iter().map(Vec::as_slice).collect();
    let utc = u64::try_from(date.0).ok();
    let utc = utc.map(|s| UnixTime::since_unix_epoch(std::time::Duration::from_secs(s)));
    let chain = cygnet_pki::validate_chain(leaf, &intermediates, anchors, crls, role, utc)
        .map_err(|e| e.to_string())?;
    let not_after = i64::try_from(chain.not_after.as_secs()).unwrap_or(i64::MAX);
    Ok(Judged {
        chain,
        not_after: UtcTime(not_after),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_certificate_is_one_holder_however_it_is_spelt() {
        let fqdn = |name| holder(&Identification::fqdn(name));
        let email = |name| holder(&Identification::email(name));
        assert_eq!(fqdn("Alice.Example."), "alice.example");
        assert_eq!(email("Alice@Example.ORG"), "Alice@example.org");
        // CN=Alice  B
        let dn = |value: &[u8]| {
            let mut der = vec![0x30, 0x12, 0x31, 0x10, 0x30, 0x0e, 6, 3, 0x55, 4, 3, 12, 7];
            der.extend_from_slice(value);
            holder(&Identification::dn(&der))
        };
        assert_eq!(dn(b"Alice B"), dn(b"ALICE b"));
    }

    #[test]
    fn what_is_of_another_type_is_another_holder() {
        let address = holder(&Identification::address("10.0.0.1".parse().unwrap()));
        assert_eq!(address, "10.0.0.1");
        assert_ne!(address, holder(&Identification::fqdn("10.0.0.1")));
        let forged = Identification::fqdn("cn=alice");
        assert_eq!(holder(&forged), "FQDN cn=alice");
        assert_ne!(
            holder(&Identification::fqdn("alice")),
            holder(&Identification::email("alice"))
        );
        // A certificate of that name is not the user.
        assert_ne!(
            holder(&Identification::fqdn("alice")),
            holder(&Identification::key_id(b"alice"))
        );
        // Nor is one that is called as users are written here, or as subjects are.
        let email = |address| holder(&Identification::email(address));
        let user = holder(&Identification::key_id(b"alice@example.org"));
        assert_eq!(user, "user alice@example.org");
        assert_ne!(email("user alice@example.org"), user);
        assert_eq!(email("cn=alice@b.c"), "e-mail cn=alice@b.c");
    }
}
