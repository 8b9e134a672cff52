//! EAP-TLS (RFC 5216, RFC 9190): a TLS handshake whose records travel in EAP packets, with certificates at both ends.
//!
//! TLS is rustls'. What it needs of a private key and of those who vouch for the other end is asked of closures, which
//! may block: conversations by TLS belong on a thread of their own.

mod config;
mod framing;

use std::sync::{Arc, Mutex, PoisonError};

use cygnet_crypto::Secret;
use cygnet_crypto::signature::{KeyKind, SignatureScheme};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Connection, ProtocolVersion, ServerConnection};
use zeroize::Zeroizing;

use config::PeerCheck;
use framing::{Framing, Received};

/// Signs with the private key of a [`Credential`].
pub type Sign = dyn Fn(SignatureScheme, &[u8]) -> Result<Vec<u8>, String> + Send + Sync;
/// Judges the other end's certificates, DER, leaf first; an error is one sentence.
pub type Check = dyn Fn(&[Vec<u8>]) -> Result<(), String> + Send + Sync;

/// What one end proves itself with.
pub struct Credential {
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// What the private key can do.
    pub key: KeyKind,
    /// Asks whoever holds it.
    pub sign: Arc<Sign>,
}

/// One end of a handshake.
pub struct Handshake {
    connection: Connection,
    framing: Framing,
    /// What [`Check`] has said, when it refused.
    refused: Arc<Mutex<Option<String>>>,
    /// The other end has proven itself, and knows that we have.
    done: bool,
    /// It has failed, and what we have to say about that is out.
    failed: Option<String>,
}

/// How a handshake goes on.
pub(crate) enum Turn {
    /// What follows the EAP type of the next packet.
    Send(Vec<u8>),
    /// Done, as soon as the other end knows it.
    Done,
    /// It came to nothing.
    Failed(String),
}

impl Handshake {
    /// The server's end. `authorities` are the subjects (DER) of those that clients' certificates may come from.
    pub fn server(
        credential: Credential,
        authorities: Vec<Vec<u8>>,
        check: Box<Check>,
    ) -> Result<Self, String> {
        let check = PeerCheck::new(check, authorities);
        let refused = check.refused();
        let config = config::server(credential, check).map_err(|e| e.to_string())?;
        let connection = ServerConnection::new(config).map_err(|e| e.to_string())?;
        Ok(Self::new(connection.into(), refused))
    }

    /// The client's end.
    pub fn client(credential: Credential, check: Box<Check>) -> Result<Self, String> {
        let check = PeerCheck::new(check, Vec::new());
        let refused = check.refused();
        let config = config::client(credential, check).map_err(|e| e.to_string())?;
        // IKE knows already who the server is, and says nothing of names here.
        let nobody = ServerName::IpAddress(std::net::IpAddr::from([0, 0, 0, 0]).into());
        let connection = ClientConnection::new(config, nobody).map_err(|e| e.to_string())?;
        Ok(Self::new(connection.into(), refused))
    }

    fn new(connection: Connection, refused: Arc<Mutex<Option<String>>>) -> Self {
        Self {
            connection,
            framing: Framing::default(),
            refused,
            done: false,
            failed: None,
        }
    }

    /// The server's first packet, by which the client begins.
    pub(crate) fn start() -> Vec<u8> {
        framing::START.to_vec()
    }

    /// What follows the EAP type of the other end's packet.
    pub(crate) fn handle(&mut self, data: &[u8]) -> Turn {
        match self.framing.receive(data) {
            Ok(Received::Start) if self.is_client() => self.flush(),
            Ok(Received::More) => Turn::Send(framing::ACK.to_vec()),
            Ok(Received::Ack) => match self.framing.next_fragment() {
                Some(fragment) => Turn::Send(fragment),
                None if self.is_done() => Turn::Done,
                None => {
                    let why = self.failed.take();
                    let stopped = || "the other end stopped its TLS handshake".to_owned();
                    Turn::Failed(why.unwrap_or_else(stopped))
                }
            },
            Ok(Received::Message(records)) => self.feed(&records),
            Ok(Received::Start) => Turn::Failed("the client began TLS as a server does".to_owned()),
            Err(error) => Turn::Failed(format!("malformed EAP-TLS packet: {error}")),
        }
    }

    fn feed(&mut self, records: &[u8]) -> Turn {
        let mut rest = records;
        while !rest.is_empty() {
            let read = self.connection.read_tls(&mut rest);
            let processed = self.connection.process_new_packets();
            match (read, processed) {
                (Ok(1..), Ok(_)) => {}
                (_, Err(error)) => return self.fail(&error),
                (Ok(_), Ok(_)) => return Turn::Failed("TLS records without an end".to_owned()),
                (Err(error), Ok(_)) => return Turn::Failed(error.to_string()),
            }
        }
        if !self.connection.is_handshaking() {
            self.finish();
        }
        self.flush()
    }

    /// The handshake proper is over.
    fn finish(&mut self) {
        if self.connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            self.done = true;
            return;
        }
        // RFC 9190 §2.1.1: the server says by an octet of its own that it is done.
        match &mut self.connection {
            Connection::Server(server) => {
                self.done = std::io::Write::write_all(&mut server.writer(), &[0]).is_ok();
            }
            Connection::Client(client) => {
                let mut indication = [1; 2];
                let read = std::io::Read::read(&mut client.reader(), &mut indication);
                self.done |= matches!((read, indication), (Ok(1), [0, _]));
            }
        }
    }

    /// What TLS has to say, or that we have heard.
    fn flush(&mut self) -> Turn {
        let mut out = Vec::new();
        while self.connection.wants_write() {
            if let Err(error) = self.connection.write_tls(&mut out) {
                return Turn::Failed(error.to_string());
            }
        }
        self.framing.send(out);
        match self.framing.next_fragment() {
            Some(fragment) => Turn::Send(fragment),
            None if self.is_client() => Turn::Send(framing::ACK.to_vec()),
            None if self.done => Turn::Done,
            None => Turn::Failed("the client's part of the TLS handshake is not whole".to_owned()),
        }
    }

    /// RFC 5216 §2.1.3: the other end is told by an alert, and acknowledges it.
    fn fail(&mut self, error: &rustls::Error) -> Turn {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let why = match (refused.take(), error) {
            (Some(why), _) => why,
            (None, rustls::Error::AlertReceived(alert)) => {
                format!(
                    "the other end refused our certificate or broke off the TLS handshake (alert {alert:?})"
                )
            }
            (None, error) => format!("the TLS handshake failed: {error}"),
        };
        drop(refused);
        self.failed = Some(why);
        match self.flush() {
            Turn::Failed(_) | Turn::Done => Turn::Failed(self.failed.take().unwrap_or_default()),
            send => send,
        }
    }

    fn is_client(&self) -> bool {
        matches!(self.connection, Connection::Client(_))
    }

    /// Why it failed, when the other end is told.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Whether the other end has proven itself.
    pub(crate) fn is_done(&self) -> bool {
        self.done && self.failed.is_none()
    }

    /// The other end's certificates, DER, leaf first.
    pub(crate) fn certificates(&self) -> Vec<Vec<u8>> {
        let shown = self.connection.peer_certificates().unwrap_or_default();
        shown.iter().map(|der| der.to_vec()).collect()
    }

    /// The master session key: the first half of what RFC 5216 §2.3 and RFC 9190 §2.3 derive.
    pub(crate) fn msk(&self) -> Result<Secret, String> {
        // The length goes into TLS 1.3's derivation: both halves are asked for.
        let material = Zeroizing::new([0; 128]);
        let (label, context): (&[u8], Option<&[u8]>) = match self.connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => (b"EXPORTER_EAP_TLS_Key_Material", Some(&[13])),
            _ => (b"client EAP encryption", None),
        };
        let exported = self
            .connection
            .export_keying_material(material, label, context)
            .map_err(|e| format!("TLS yields no key: {e}"))?;
        let (msk, _) = exported.split_at(64);
        Ok(Secret::from_slice(msk))
    }
}
