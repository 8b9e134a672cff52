//! What was understood, and what was not.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use zeroize::Zeroizing;

/// A connection as it was understood.
pub struct Imported {
    /// A name for the tunnel, made from what the file calls it.
    pub name: String,
    /// Names or addresses to call.
    pub remote: Vec<String>,
    /// The port of the first packet, where it is not 500.
    pub remote_port: Option<u16>,
    /// Who the server must prove to be, as `cygnet.toml` writes it; `None`: what it is called by.
    pub remote_identity: Option<String>,
    /// Who we say we are, as `cygnet.toml` writes it; `None`: the certificate's subject, or our address.
    pub identity: Option<String>,
    /// How both prove themselves.
    pub credentials: Credentials,
    /// Whether the server lends an address.
    pub virtual_address: bool,
    /// Our side's networks; empty: the address alone.
    pub local_networks: Vec<IpNet>,
    /// Each of them as the other side knows it; empty: as it is.
    pub local_map: Vec<IpNet>,
    /// Up when a packet wants it; otherwise always.
    pub on_demand: bool,
    /// What is reached through it; empty: everything.
    pub networks: Vec<IpNet>,
    /// Resolvers.
    pub dns: Vec<IpAddr>,
    /// Proposals for IKE, as strongSwan writes them; empty: ours.
    pub ike: Vec<String>,
    /// Proposals for ESP, likewise.
    pub esp: Vec<String>,
    /// When new IKE keys are made: before the server would end the SA.
    pub ike_lifetime: Duration,
    /// When new ESP keys are made, likewise.
    pub child_lifetime: Duration,
    /// Largest packet inside.
    pub mtu: Option<u16>,
    /// What is otherwise than in the files, and what could not be read.
    pub notes: Vec<Note>,
}

/// How both ends prove themselves.
pub enum Credentials {
    /// By certificates.
    Certificate {
        /// Our certificate and those between it and the authority (DER).
        chain: Vec<Vec<u8>>,
        /// Our private key, PKCS#8 (DER).
        key: Zeroizing<Vec<u8>>,
        /// Who vouches for the server (DER).
        ca: Vec<Vec<u8>>,
        /// Our certificate in words.
        subject: Subject,
    },
    /// By a secret both know: its bytes.
    PreShared(Zeroizing<Vec<u8>>),
    /// We by user name and password (EAP), the server by certificate.
    User {
        /// The user name.
        name: String,
        /// The password.
        password: Zeroizing<String>,
        /// Who vouches for the server (DER).
        ca: Vec<Vec<u8>>,
    },
}

/// A certificate in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its subject.
    pub name: String,
    /// The authority's.
    pub issuer: String,
}

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file's name.
    pub file: String,
    /// The line, from 1, where the format has lines.
    pub line: Option<usize>,
}

impl Place {
    /// A file as a whole.
    pub fn file(name: &str) -> Self {
        Self {
            file: name.to_owned(),
            line: None,
        }
    }

    /// A line of it.
    pub fn line(name: &str, line: usize) -> Self {
        Self {
            file: name.to_owned(),
            line: Some(line),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", printable(&self.file)),
            None => f.write_str(&printable(&self.file)),
        }
    }
}

/// Something that a person should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// It was understood, and is done otherwise.
    NotObeyed(Place, String),
    /// It was not understood, or cannot be done.
    NotRead(Place, String),
    /// It was not said, and was concluded.
    Concluded(String),
    /// It will make trouble.
    Warning(String),
}

impl Note {
    /// The line it is about, by which notes are put in order.
    pub(super) fn line(&self) -> Option<usize> {
        match self {
            Self::NotObeyed(place, _) | Self::NotRead(place, _) => place.line,
            Self::Concluded(_) | Self::Warning(_) => None,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotObeyed(place, text) | Self::NotRead(place, text) => {
                write!(f, "{place}: {}", printable(text))
            }
            Self::Concluded(text) | Self::Warning(text) => f.write_str(&printable(text)),
        }
    }
}

/// Why nothing can be made of the files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct Error {
    /// Where.
    pub place: Option<Place>,
    /// What was expected, what is there, what to do.
    pub reason: String,
}

impl Error {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self {
            place: None,
            reason: reason.into(),
        }
    }

    pub(super) fn at(place: &Place, reason: impl Into<String>) -> Self {
        Self {
            place: Some(place.clone()),
            reason: reason.into(),
        }
    }

    fn text(&self) -> String {
        match &self.place {
            Some(place) => format!("{place}: {}", printable(&self.reason)),
            None => printable(&self.reason),
        }
    }
}

/// A stranger's text on somebody's terminal: letters that only steer it are replaced, all but the end of a line.
#[must_use]
pub fn printable(text: &str) -> String {
    let visible = |c: char| match c {
        '\n' => c,
        // Directions of writing and the like turn the rest of the line around.
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(visible).collect()
}
