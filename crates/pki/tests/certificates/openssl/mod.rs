//! Certificates made by the openssl command line in a directory of their own, and its verdict about them.
//!
//! Dates are fixed, so every run judges the same thing, whatever the clock says.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use cygnet_pki::{
    ChainError, CrlPolicy, Crls, PeerRole, TrustAnchors, UnixTime, ValidatedPeer, load,
    validate_chain,
};

/// The moment chains are judged at unless a test says otherwise: 2027-06-15 12:00 UTC.
pub(crate) const NOW: u64 = 1_813_060_800;
/// Validity unless a test says otherwise.
pub(crate) const FROM: &str = "20260101000000Z";
pub(crate) const TO: &str = "20360101000000Z";

pub(crate) const CA: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n\
    subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";
pub(crate) const LEAF: &str = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
    subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\nsubjectAltName=DNS:gw.example.org\n";

pub(crate) fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

/// A directory with keys and certificates, removed when dropped.
pub(crate) struct Lab {
    dir: PathBuf,
    serial: AtomicU32,
}

/// A certificate to make. Files are `<name>.key` and `<name>.pem`.
#[derive(Clone, Copy)]
pub(crate) struct Make<'a> {
    pub(crate) name: &'a str,
    pub(crate) subject: &'a str,
    /// Name of the issuing certificate; its own name for a self-signed one.
    pub(crate) issuer: &'a str,
    /// Body of openssl's extension section.
    pub(crate) extensions: &'a str,
    /// `ec:P-256`, `rsa:2048`, `ed25519`.
    pub(crate) key: &'a str,
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
    /// Further arguments of `openssl ca`, such as `-md sha1`.
    pub(crate) arguments: &'a [&'a str],
}

/// Fills in a [`Make`] of the usual kind.
pub(crate) fn make<'a>(
    name: &'a str,
    subject: &'a str,
    issuer: &'a str,
    extensions: &'a str,
) -> Make<'a> {
    Make {
        name,
        subject,
        issuer,
        extensions,
        key: "ec:P-256",
        from: FROM,
        to: TO,
        arguments: &[],
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Lab {
    pub(crate) fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("cygnet-pki-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory for the test's certificates");
        let config = "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nnew_certs_dir=new\nserial=serial\n\
            default_md=default\npolicy=any\nunique_subject=no\ndefault_crl_days=30\n[any]\n\
            commonName=optional\n[req]\ndistinguished_name=dn\nprompt=no\n[dn]\n";
        fs::write(dir.join("ca.cnf"), config).expect("written");
        fs::create_dir(dir.join("new")).expect("created");
        Self {
            dir,
            serial: AtomicU32::new(0x1000),
        }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    pub(crate) fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    pub(crate) fn write(&self, file: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.path(file), contents).expect("written");
    }

    /// Runs openssl in the directory; it has to succeed.
    pub(crate) fn openssl(&self, arguments: &[&str]) -> Output {
        let output = self.try_openssl(arguments);
        assert!(
            output.status.success(),
            "openssl {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }

    fn try_openssl(&self, arguments: &[&str]) -> Output {
        Command::new("openssl")
            .args(arguments)
            .current_dir(&self.dir)
            .env("OPENSSL_CONF", self.path("ca.cnf"))
            .output()
            .expect("these tests need the `openssl` command: apt install openssl")
    }

    /// Makes the key unless it is there.
    pub(crate) fn key(&self, name: &str, kind: &str) {
        let file = format!("{name}.key");
        if self.path(&file).exists() {
            return;
        }
        let option;
        let mut arguments = vec!["genpkey", "-out", &file, "-algorithm"];
        match kind.split_once(':') {
            Some(("ec", curve)) => {
                option = format!("ec_paramgen_curve:{curve}");
                arguments.extend(["EC", "-pkeyopt", &option]);
            }
            Some(("rsa", bits)) => {
                option = format!("rsa_keygen_bits:{bits}");
                arguments.extend(["RSA", "-pkeyopt", &option]);
            }
            _ => arguments.push(kind),
        }
        self.openssl(&arguments);
    }

    /// Makes a certificate; returns its DER.
    pub(crate) fn make(&self, it: Make<'_>) -> Vec<u8> {
        self.make_unread(it);
        self.der(it.name)
    }

    /// Makes a certificate that need not be one in our eyes.
    pub(crate) fn make_unread(&self, it: Make<'_>) {
        self.key(it.name, it.key);
        let file = |suffix: &str| format!("{}{suffix}", it.name);
        let (key, csr, ext, pem) = (file(".key"), file(".csr"), file(".ext"), file(".pem"));
        self.openssl(&[
            "req",
            "-new",
            "-key",
            &key,
            "-subj",
            it.subject,
            "-out",
            &csr,
            "-multivalue-rdn",
        ]);
        self.write(&ext, format!("[e]\n{}", it.extensions));
        self.write("index.txt", "");
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        self.write("serial", format!("{serial:04X}\n"));
        let mut arguments = vec![
            "ca",
            "-batch",
            "-notext",
            "-config",
            "ca.cnf",
            "-preserveDN",
            "-in",
            &csr,
            "-out",
            &pem,
            "-startdate",
            it.from,
            "-enddate",
            it.to,
            "-extfile",
            &ext,
            "-extensions",
            "e",
        ];
        let (issuer_key, issuer_pem) = (format!("{}.key", it.issuer), format!("{}.pem", it.issuer));
        arguments.extend(["-keyfile", &issuer_key]);
        match it.issuer == it.name {
            true => arguments.push("-selfsign"),
            false => arguments.extend(["-cert", &issuer_pem]),
        }
        arguments.extend(it.arguments);
        self.openssl(&arguments);
    }

    /// Lets `other` use the key of `name`.
    pub(crate) fn share_key(&self, name: &str, other: &str) {
        self.write(&format!("{other}.key"), self.read(&format!("{name}.key")));
    }

    /// A root of the usual kind.
    pub(crate) fn root(&self, name: &str) -> Vec<u8> {
        self.make(make(name, &format!("/O=lab/CN={name}"), name, CA))
    }

    pub(crate) fn der(&self, name: &str) -> Vec<u8> {
        let file = format!("{name}.pem");
        let path = Path::new(&file);
        load::certificates(&self.read(&file), path)
            .expect("openssl's certificate loads")
            .leaf
    }

    /// Makes a CRL of `issuer`, DER; `revoked` are (certificate, time, reason).
    pub(crate) fn crl(
        &self,
        issuer: &str,
        revoked: &[(&str, &str, &str)],
        from: &str,
        to: &str,
    ) -> Vec<u8> {
        self.crl_of_scope(issuer, revoked, from, to, None)
    }

    /// The same of a part, said by fields of the issuingDistributionPoint.
    pub(crate) fn crl_of_scope(
        &self,
        issuer: &str,
        revoked: &[(&str, &str, &str)],
        from: &str,
        to: &str,
        scope: Option<&str>,
    ) -> Vec<u8> {
        let mut index = String::new();
        for (name, time, reason) in revoked {
            let file = format!("{name}.pem");
            let output = self.openssl(&["x509", "-in", &file, "-noout", "-serial"]);
            let text = String::from_utf8_lossy(&output.stdout).trim().to_string();
            let serial = text.strip_prefix("serial=").expect("a serial").to_string();
            index.push_str(&format!(
                "R\t360101000000Z\t{time},{reason}\t{serial}\tunknown\t/CN={name}\n"
            ));
        }
        self.write("index.txt", index);
        let (key, pem) = (format!("{issuer}.key"), format!("{issuer}.pem"));
        let mut config = self.read("ca.cnf");
        if let Some(scope) = scope {
            let section = "issuingDistributionPoint=critical,@part\n[part]\n";
            config.extend(format!("[parts]\n{section}{scope}\n").bytes());
        }
        self.write("crl.cnf", config);
        let mut arguments = vec![
            "ca",
            "-gencrl",
            "-config",
            "crl.cnf",
            "-keyfile",
            &key,
            "-cert",
            &pem,
            "-out",
            "last.crl",
            "-crl_lastupdate",
            from,
            "-crl_nextupdate",
            to,
        ];
        if scope.is_some() {
            arguments.extend(["-crlexts", "parts"]);
        }
        self.openssl(&arguments);
        load::crls(&self.read("last.crl"), Path::new("last.crl"))
            .expect("openssl's CRL loads")
            .remove(0)
    }

    /// Whether `openssl verify` accepts the chain at `now`; its reason if not.
    pub(crate) fn verify(
        &self,
        leaf: &str,
        intermediates: &[&str],
        anchors: &[&str],
        crls: &[Vec<u8>],
        now: u64,
        options: &[&str],
    ) -> Result<(), String> {
        let join = |names: &[&str]| -> Vec<u8> {
            let read = |name: &&str| self.read(&format!("{name}.pem"));
            names.iter().flat_map(read).collect()
        };
        self.write("untrusted.pem", join(intermediates));
        let mut trusted = join(anchors);
        for crl in crls {
            trusted.extend(cygnet_pki::authority::to_pem("X509 CRL", crl).into_bytes());
        }
        self.write("trusted.pem", trusted);
        let (now, leaf) = (now.to_string(), format!("{leaf}.pem"));
        let mut arguments = vec![
            "verify",
            "-no-CApath",
            "-no-CAstore",
            "-attime",
            &now,
            "-CAfile",
            "trusted.pem",
        ];
        if !intermediates.is_empty() {
            arguments.extend(["-untrusted", "untrusted.pem"]);
        }
        arguments.extend(options);
        arguments.push(&leaf);
        let output = self.try_openssl(&arguments);
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    pub(crate) fn anchors(&self, names: &[&str]) -> TrustAnchors {
        let mut anchors = TrustAnchors::new();
        for name in names {
            anchors.add(self.der(name)).expect("a certificate");
        }
        anchors
    }
}

pub(crate) fn crls(policy: CrlPolicy, lists: &[Vec<u8>]) -> Crls {
    let mut crls = Crls::new(policy);
    for list in lists {
        crls.add(list.clone()).expect("a CRL");
    }
    crls
}

/// What openssl is asked about the same chain.
pub(crate) enum Agree {
    /// `openssl verify` with these options says the same.
    With(&'static [&'static str]),
    /// It does not judge this property (the reason stands beside the use).
    NotJudged,
}

pub(crate) struct Case<'a> {
    pub(crate) leaf: &'a str,
    pub(crate) sent: &'a [&'a str],
    pub(crate) trusted: &'a [&'a str],
    pub(crate) role: PeerRole,
    pub(crate) now: u64,
    pub(crate) agree: Agree,
}

pub(crate) fn case<'a>(leaf: &'a str, sent: &'a [&'a str], trusted: &'a [&'a str]) -> Case<'a> {
    Case {
        leaf,
        sent,
        trusted,
        role: PeerRole::Responder,
        now: NOW,
        agree: Agree::With(&[]),
    }
}

/// Our verdict, after openssl's was seen to be the same.
pub(crate) fn judge(lab: &Lab, case: Case<'_>) -> Result<ValidatedPeer, ChainError> {
    let sent: Vec<_> = case.sent.iter().map(|name| lab.der(name)).collect();
    let sent: Vec<_> = sent.iter().map(Vec::as_slice).collect();
    let ours = validate_chain(
        &lab.der(case.leaf),
        &sent,
        &lab.anchors(case.trusted),
        &Crls::new(CrlPolicy::IfPresent),
        case.role,
        Some(at(case.now)),
    );
    if let Agree::With(options) = case.agree {
        let theirs = lab.verify(case.leaf, case.sent, case.trusted, &[], case.now, options);
        assert_eq!(
            ours.is_ok(),
            theirs.is_ok(),
            "{}: ours {ours:?}, openssl {theirs:?}",
            case.leaf
        );
    }
    ours
}

pub(crate) fn refusal(lab: &Lab, case: Case<'_>) -> ChainError {
    let leaf = case.leaf.to_string();
    judge(lab, case).expect_err(&leaf)
}

/// xorshift64*: the same numbers in every run.
pub(crate) struct Sequence(u64);

impl Sequence {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `below`.
    pub(crate) fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below
    }

    /// One of these.
    pub(crate) fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.next(from.len())]
    }
}
