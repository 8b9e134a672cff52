//! What the two ends of a scenario are to agree on, and the files that say so to each.

use crate::lab::cygnet;
use crate::lab::offices::{Nat, Office, Offices};
use crate::lab::pki::{Authority, Credential, KeyKind, Request};
use crate::lab::strongswan::{self, Auth, Child, Config, Connection};
use crate::lab::{Failure, Result};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

/// Cygnet's identity.
pub(super) const CYGNET: &str = "cygnet.lab";
/// strongSwan's.
pub(super) const SWAN: &str = "swan.lab";
/// The connection, at both ends.
pub(super) const OFFICE: &str = "office";
/// The only child, at both ends: what Cygnet calls the one of a tunnel without child sections.
pub(super) const NET: &str = "net";
/// What Cygnet calls the connection of a server, and the child of its clients.
pub(super) const SERVER: &str = "server";
/// See [`SERVER`].
pub(super) const CLIENTS: &str = "clients";
/// The interface of Cygnet's tunnel.
pub(super) const INTERFACE: &str = "cyg-office";

/// Algo's first suite.
pub(super) const IKE: &str = "aes128gcm16-prfsha512-ecp256";
/// Its ESP; a group would be used for rekeying only.
pub(super) const ESP: &str = "aes128gcm16";

/// Which part of IKE_SA_INIT is Cygnet's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It calls.
    Initiator,
    /// It is called.
    Responder,
}

impl Role {
    pub(super) const BOTH: [Self; 2] = [Self::Initiator, Self::Responder];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Initiator => "initiator",
            Self::Responder => "responder",
        }
    }
}

/// Which addresses the inner packets have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inner {
    V4,
    V6,
    Both,
}

impl Inner {
    pub(super) fn networks(self, of: &Office) -> Vec<String> {
        let (v4, v6) = (of.lan4.to_owned(), of.lan6.to_owned());
        match self {
            Self::V4 => vec![v4],
            Self::V6 => vec![v6],
            Self::Both => vec![v4, v6],
        }
    }
}

/// What an end proves itself by.
#[derive(Debug, Clone)]
pub(super) enum Proof {
    SharedKey(String),
    Certificate(Box<Credential>),
    /// By EAP-MSCHAPv2, with the initiator.
    Password {
        user: String,
        password: String,
    },
}

/// One end.
#[derive(Debug, Clone)]
pub(super) struct Party {
    /// Who it says it is.
    pub(super) identity: String,
    /// How it proves that.
    pub(super) proof: Proof,
    /// Who the other has to be.
    pub(super) expects: String,
    /// Authorities it trusts.
    pub(super) trusts: Vec<String>,
    /// Revocation lists it has.
    pub(super) revoked: Vec<String>,
    /// Its IKE proposals.
    pub(super) ike: Vec<String>,
    /// Its ESP proposals.
    pub(super) esp: Vec<String>,
}

impl Party {
    fn new(identity: &str, proof: Proof, expects: &str) -> Self {
        Self {
            identity: identity.to_owned(),
            proof,
            expects: expects.to_owned(),
            trusts: Vec::new(),
            revoked: Vec::new(),
            ike: vec![IKE.to_owned()],
            esp: vec![ESP.to_owned()],
        }
    }
}

/// A child as each end has it configured; no networks mean the end's own address.
#[derive(Debug, Clone)]
pub(super) struct ChildPlan {
    pub(super) name: String,
    /// Cygnet's idea of its own side and of strongSwan's.
    pub(super) cygnet: (Vec<String>, Vec<String>),
    /// strongSwan's idea of its own side and of Cygnet's.
    pub(super) swan: (Vec<String>, Vec<String>),
}

impl ChildPlan {
    /// Both ends agree.
    pub(super) fn agreed(name: &str, cygnet: &[&str], swan: &[&str]) -> Self {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let (cygnet, swan) = (owned(cygnet), owned(swan));
        Self {
            name: name.to_owned(),
            cygnet: (cygnet.clone(), swan.clone()),
            swan: (swan, cygnet),
        }
    }
}

/// A scenario's network and both configurations.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) role: Role,
    /// What Cygnet calls the connection.
    pub(super) connection: &'static str,
    pub(super) nat: Nat,
    /// IPv6 outside.
    pub(super) outer6: bool,
    /// Inner addresses of the one child that there is when `children` is empty.
    pub(super) inner: Inner,
    pub(super) cygnet: Party,
    pub(super) swan: Party,
    pub(super) children: Vec<ChildPlan>,
    /// More lines of Cygnet's tunnel; one that sets a key replaces the usual one.
    pub(super) cygnet_lines: Vec<String>,
    /// More settings of strongSwan's connection.
    pub(super) swan_connection: Vec<(String, String)>,
    /// More settings of each of its children.
    pub(super) swan_child: Vec<(String, String)>,
    /// strongSwan's pools: their names and networks. It gives addresses of all of them.
    pub(super) swan_pools: Vec<(&'static str, &'static str)>,
    /// `auth` of strongSwan's own section and of its peer's, instead of `pubkey`.
    pub(super) swan_auth: (Option<String>, Option<String>),
    /// More settings of charon.
    pub(super) swan_daemon: Vec<String>,
    /// The password that strongSwan knows of Cygnet's user, if it is another one.
    pub(super) swan_knows: Option<String>,
}

impl Plan {
    /// A shared key, Algo's first suite, IPv4.
    pub(super) fn shared_key(role: Role) -> Self {
        let key = || Proof::SharedKey("correct horse battery staple".to_owned());
        Self {
            role,
            connection: OFFICE,
            nat: Nat::None,
            outer6: false,
            inner: Inner::V4,
            cygnet: Party::new(CYGNET, key(), SWAN),
            swan: Party::new(SWAN, key(), CYGNET),
            children: Vec::new(),
            cygnet_lines: Vec::new(),
            swan_connection: Vec::new(),
            swan_child: Vec::new(),
            swan_pools: Vec::new(),
            swan_auth: (None, None),
            swan_daemon: Vec::new(),
            swan_knows: None,
        }
    }

    /// Certificates of one authority, all keys of this kind.
    pub(super) fn certificates(role: Role, kind: KeyKind) -> Result<Self> {
        let kit = Kit::of(kind)?;
        let mut plan = Self::shared_key(role);
        plan.cygnet.proof = Proof::Certificate(Box::new(kit.cygnet.clone()));
        plan.swan.proof = Proof::Certificate(Box::new(kit.swan.clone()));
        plan.trust(&kit.root);
        Ok(plan)
    }

    /// Both ends trust this authority alone.
    pub(super) fn trust(&mut self, root: &Authority) {
        self.cygnet.trusts = vec![root.certificate.clone()];
        self.swan.trusts = vec![root.certificate.clone()];
    }

    /// Both ends propose just this.
    #[must_use]
    pub(super) fn suite(mut self, ike: &str, esp: &str) -> Self {
        for party in [&mut self.cygnet, &mut self.swan] {
            party.ike = vec![ike.to_owned()];
            party.esp = vec![esp.to_owned()];
        }
        self
    }

    /// A line of Cygnet's tunnel: `child_lifetime = "2s"`.
    #[must_use]
    pub(super) fn cygnet_line(mut self, line: &str) -> Self {
        self.cygnet_lines.push(line.to_owned());
        self
    }

    /// A setting of strongSwan's connection.
    #[must_use]
    pub(super) fn swan_set(mut self, key: &str, value: &str) -> Self {
        self.swan_connection
            .push((key.to_owned(), value.to_owned()));
        self
    }

    /// A setting of strongSwan's children.
    #[must_use]
    pub(super) fn swan_child(mut self, key: &str, value: &str) -> Self {
        self.swan_child.push((key.to_owned(), value.to_owned()));
        self
    }

    /// A line of the section `charon`.
    #[must_use]
    pub(super) fn swan_daemon(mut self, line: &str) -> Self {
        self.swan_daemon.push(line.to_owned());
        self
    }

    /// Where Cygnet runs, and where strongSwan runs: who calls is in office `a`.
    pub(super) fn offices<'a>(&self, offices: &'a Offices) -> (&'a Office, &'a Office) {
        match self.role {
            Role::Initiator => (&offices.a, &offices.b),
            Role::Responder => (&offices.b, &offices.a),
        }
    }

    /// The children, also when there is just the usual one.
    pub(super) fn children(&self, offices: &Offices) -> Vec<ChildPlan> {
        if !self.children.is_empty() {
            return self.children.clone();
        }
        let (cygnet, swan) = self.offices(offices);
        let (cygnet, swan) = (self.inner.networks(cygnet), self.inner.networks(swan));
        vec![ChildPlan {
            name: NET.to_owned(),
            cygnet: (cygnet.clone(), swan.clone()),
            swan: (swan, cygnet),
        }]
    }

    /// Cygnet's configuration and files.
    pub(super) fn cygnet_setup(&self, offices: &Offices) -> cygnet::Setup {
        let (_, other) = self.offices(offices);
        let party = &self.cygnet;
        let mut lines = vec![match self.role {
            Role::Initiator => format!("remote = {}", quoted(self.public(other))),
            Role::Responder => "remote = \"any\"".to_owned(),
        }];
        lines.push(format!("identity = {}", quoted(&party.identity)));
        lines.push(format!("remote_identity = {}", quoted(&party.expects)));
        lines.push("start = \"manual\"".to_owned());
        for (key, proposals) in [("ike", &party.ike), ("esp", &party.esp)] {
            // None: the defaults.
            if !proposals.is_empty() {
                lines.push(format!("{key} = {}", list(proposals)));
            }
        }
        lines.push("liveness = \"30s\"".to_owned());
        lines.push("retransmit = { first = \"0.3s\", factor = 1.5, tries = 5 }".to_owned());
        lines.extend(credential_lines(party));
        let children = self.children(offices);
        let one = children.len() == 1 && children.iter().all(|child| child.name == NET);
        if let ([child], true) = (children.as_slice(), one) {
            lines.extend(network_lines(child));
        }
        for line in &self.cygnet_lines {
            let key = key_of(line);
            lines.retain(|usual| key_of(usual) != key);
            lines.push(line.clone());
        }
        let mut config = format!("[tunnel.{OFFICE}]\n{}\n", lines.join("\n"));
        if !one {
            for child in &children {
                // Writing to a String cannot fail.
                let _ = write!(
                    config,
                    "\n[tunnel.{OFFICE}.child.{}]\n{}\n",
                    child.name,
                    network_lines(child).join("\n")
                );
            }
        }
        with_files(cygnet::Setup::new(config), party)
    }

    /// strongSwan's configuration and files.
    pub(super) fn swan_setup(&self, offices: &Offices) -> strongswan::Setup {
        let (other, own) = self.offices(offices);
        let remote = match self.role {
            Role::Initiator => "%any",
            Role::Responder => self.public(other),
        };
        let outer = if self.outer6 { own.outer6 } else { own.outer4 };
        let party = &self.swan;
        let own_auth = match &party.proof {
            Proof::SharedKey(_) => Auth::shared_key(&party.identity),
            Proof::Certificate(_) => Auth::certificate("own", &party.identity),
            Proof::Password { user, .. } => Auth::public_key(&party.identity)
                .by("eap-mschapv2")
                .set("eap_id", user),
        };
        let peer_auth = match (&party.proof, &self.cygnet.proof) {
            (Proof::SharedKey(_), _) => Auth::shared_key(&party.expects),
            (_, Proof::Password { .. }) => Auth::public_key("%any")
                .by("eap-mschapv2")
                .set("eap_id", "%any"),
            _ => Auth::public_key(&party.expects),
        };
        let mut connection = Connection::new(OFFICE, outer, remote)
            .local(chosen(own_auth, self.swan_auth.0.as_deref()))
            .remote(chosen(peer_auth, self.swan_auth.1.as_deref()));
        connection.proposals.clone_from(&party.ike);
        for (key, value) in &self.swan_connection {
            connection = match key.as_str() {
                "vips" => connection.virtual_address(value),
                _ => connection.set(key, value),
            };
        }
        for (name, _) in &self.swan_pools {
            connection = connection.pool(name);
        }
        for plan in self.children(offices) {
            let mut child = Child::new(&plan.name, &[], &[]);
            (child.local, child.remote) = plan.swan;
            child.proposals.clone_from(&party.esp);
            for (key, value) in &self.swan_child {
                child = child.set(key, value);
            }
            connection = connection.child(child);
        }
        let mut setup = strongswan::Setup {
            config: Config::of(connection),
            authorities: party.trusts.clone(),
            revocation_lists: party.revoked.clone(),
            settings: self.swan_daemon.clone(),
            ..strongswan::Setup::default()
        };
        for (name, network) in &self.swan_pools {
            setup.config = setup.config.pool(name, network);
        }
        match &party.proof {
            Proof::SharedKey(key) => {
                setup.config = setup.config.secret(&[&party.identity, &party.expects], key);
            }
            Proof::Certificate(credential) => {
                setup.credentials = vec![("own".to_owned(), (**credential).clone())];
            }
            Proof::Password { user, password } => {
                setup.config = setup.config.eap_user(user, password);
            }
        }
        if let Proof::Password { user, password } = &self.cygnet.proof {
            let known = self.swan_knows.as_deref().unwrap_or(password);
            setup.config = setup.config.eap_user(user, known);
        }
        setup
    }

    /// The address at which others reach an office.
    pub(super) fn public(&self, office: &Office) -> &'static str {
        if self.outer6 {
            office.outer6
        } else {
            office.public4
        }
    }
}

fn chosen(auth: Auth, other: Option<&str>) -> Auth {
    match other {
        Some(other) => auth.by(other),
        None => auth,
    }
}

/// The lines of a Cygnet section that say how this end proves itself and whom it trusts.
pub(super) fn credential_lines(party: &Party) -> Vec<String> {
    match &party.proof {
        Proof::SharedKey(_) => vec!["psk = \"psk\"".to_owned()],
        Proof::Certificate(_) => {
            let mut lines = vec![
                "certificate = \"own.crt\"".to_owned(),
                "key = \"own.key\"".to_owned(),
                "ca = [\"ca.crt\"]".to_owned(),
            ];
            if !party.revoked.is_empty() {
                lines.push("crl = [\"crl.pem\"]".to_owned());
            }
            lines
        }
        Proof::Password { user, .. } => vec![
            format!("user = {}", quoted(user)),
            "password = \"password.txt\"".to_owned(),
            "ca = [\"ca.crt\"]".to_owned(),
        ],
    }
}

/// The files that [`credential_lines`] names.
pub(super) fn with_files(setup: cygnet::Setup, party: &Party) -> cygnet::Setup {
    match &party.proof {
        Proof::SharedKey(key) => setup.file("psk", format!("{key}\n")),
        Proof::Certificate(credential) => {
            let setup = setup
                .credential("own", credential)
                .file("ca.crt", party.trusts.concat());
            if party.revoked.is_empty() {
                return setup;
            }
            setup.file("crl.pem", party.revoked.concat())
        }
        Proof::Password { password, .. } => setup
            .file("password.txt", format!("{password}\n"))
            .file("ca.crt", party.trusts.concat()),
    }
}

fn network_lines(child: &ChildPlan) -> Vec<String> {
    let (local, remote) = &child.cygnet;
    [("local_networks", local), ("remote_networks", remote)]
        .into_iter()
        .filter(|(_, networks)| !networks.is_empty())
        .map(|(key, networks)| format!("{key} = {}", list(networks)))
        .collect()
}

fn key_of(line: &str) -> &str {
    line.split('=').next().unwrap_or_default().trim()
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(", "))
}

/// An authority with a certificate for each end. Made once for all scenarios: RSA takes a while.
#[derive(Debug)]
pub(super) struct Kit {
    pub(super) root: Authority,
    pub(super) cygnet: Credential,
    pub(super) swan: Credential,
}

impl Kit {
    pub(super) fn of(kind: KeyKind) -> Result<Arc<Self>> {
        static MADE: Mutex<BTreeMap<String, Arc<Kit>>> = Mutex::new(BTreeMap::new());
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("{kind:?}");
        if let Some(kit) = made.get(&name) {
            return Ok(Arc::clone(kit));
        }
        let root = Authority::root(kind, &format!("{name} root"))?;
        let issue = |name: &str| {
            let first = name.split('.').next().unwrap_or(name);
            let request = Request::new(kind, first).name(name);
            root.issue(&request.name(&format!("{first}@lab")))
        };
        let (cygnet, swan) = (issue(CYGNET)?, issue(SWAN)?);
        let kit = Arc::new(Self { root, cygnet, swan });
        made.insert(name, Arc::clone(&kit));
        Ok(kit)
    }
}

/// The certificate of an end, for a plan that has one.
pub(super) fn credential(party: &Party) -> Result<&Credential> {
    match &party.proof {
        Proof::Certificate(credential) => Ok(credential),
        Proof::SharedKey(_) | Proof::Password { .. } => {
            Err(Failure::new("this end has no certificate"))
        }
    }
}
