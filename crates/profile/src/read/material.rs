//! What one proves oneself with: certificates, keys, authorities, secrets, from all files together.

use std::path::Path;

use cygnet_pki::identity::is_self_issued;
use cygnet_pki::is_issued_by;
use cygnet_pki::load::{self, LoadError, PrivateKey, is_key_of};
use cygnet_pki::pkcs12::{self, Pkcs12Error};
use zeroize::Zeroizing;

use super::kind::Kind;
use super::{Error, File, Note, PASSWORD_TRIES, Place, Surroundings, kind, legacy};

/// Certificates and keys beyond this belong to nobody's one connection.
const MOST: usize = 64;

/// Folders beside a description where strongSwan and Algo (2017 and today) keep a kind of file. Fixed: no file says in
/// which folder to look. None is above it, where others may write: into /tmp above /tmp/download, say.
pub(super) const CERTIFICATES: &[&str] = &[
    "",
    "pki/certs",
    ".pki/certs",
    "certs",
    "ipsec.d/certs",
    "x509",
];
pub(super) const KEYS: &[&str] = &[
    "",
    "pki/private",
    ".pki/private",
    "private",
    "ipsec.d/private",
    "rsa",
    "ecdsa",
    "pkcs8",
];
pub(super) const P12S: &[&str] = &[
    "",
    "pki/private",
    ".pki/private",
    "pkcs12",
    "ipsec.d/private",
];
pub(super) const AUTHORITIES: &[&str] = &["", "pki", ".pki", "ipsec.d/cacerts", "x509ca"];
/// What the authority's certificate is called there: by Algo, and by others.
const AUTHORITY_NAMES: &[&str] = &[
    "cacert.pem",
    "caCert.pem",
    "ca.pem",
    "ca.crt",
    "ca-cert.pem",
];
/// Folders in which every file counts.
const FOLDERS_OF_AUTHORITIES: &[&str] = &["ipsec.d/cacerts", "x509ca", "cacerts"];
const FOLDERS_OF_KEYS: &[&str] = &["private", "rsa", "ecdsa", "pkcs8", "ipsec.d/private"];

#[derive(Default)]
pub(super) struct Material {
    certificates: Vec<Certificate>,
    keys: Vec<PrivateKey>,
    /// Trusted because a file says so, not because of what they are.
    authorities: Vec<Vec<u8>>,
    p12s: Vec<P12>,
    /// Files that secrets name.
    pub(super) named: Vec<Named>,
    pub(super) secrets: Vec<Secret>,
    has_secrets: bool,
    /// Files that were given, and are no description.
    given: Vec<File>,
    /// Files that nobody gave, and that were taken, by their paths beside those given.
    pub(super) found: Vec<String>,
}

struct Certificate {
    /// Name of the file it came from.
    file: String,
    der: Vec<u8>,
    /// It lay beside the files given, and none of them calls it the server's authority.
    beside: bool,
}

struct P12 {
    file: String,
    bytes: Zeroizing<Vec<u8>>,
    password: Option<Zeroizing<String>>,
}

/// A file with a key, which a line of `ipsec.secrets` or a section of `secrets { }` names.
pub(super) struct Named {
    pub(super) file: String,
    pub(super) place: Place,
    pub(super) p12: bool,
    pub(super) password: Option<Zeroizing<String>>,
}

/// A secret of `ipsec.secrets` or of `secrets { }`.
pub(super) struct Secret {
    pub(super) kind: SecretKind,
    /// Whom it is for; empty: anybody.
    pub(super) ids: Vec<String>,
    pub(super) value: Zeroizing<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SecretKind {
    PreShared,
    Eap,
}

/// A certificate with its key, and what is known about it.
pub(super) struct Own {
    pub(super) chain: Vec<Vec<u8>>,
    pub(super) key: Zeroizing<Vec<u8>>,
}

impl Material {
    /// A file that was given, and is no description.
    pub(super) fn add_given(
        &mut self,
        file: &File,
        kind: Kind,
        notes: &mut Vec<Note>,
    ) -> Result<(), Error> {
        self.given.push(file.clone());
        self.add(file, kind, notes)
    }

    /// A file, given or found, which is no description.
    fn add(&mut self, file: &File, kind: Kind, notes: &mut Vec<Note>) -> Result<(), Error> {
        match kind {
            // Under two names it is opened once.
            Kind::P12 if self.p12s.iter().any(|it| it.bytes == file.bytes) => {}
            Kind::P12 => self.p12s.push(P12 {
                file: file.name.clone(),
                bytes: file.bytes.clone(),
                password: None,
            }),
            Kind::IpsecSecrets => legacy::secrets(file, self, notes)?,
            Kind::Der => {
                let path = Path::new(&file.name);
                if let Some(key) = PrivateKey::from_der(&file.bytes) {
                    self.keys.push(key);
                } else {
                    let found = load::certificates(&file.bytes, path);
                    self.push_certificate(&file.name, found.map_err(refused(&file.name))?.leaf)?;
                }
            }
            _ => self.add_pem(file, notes)?,
        }
        Ok(())
    }

    fn add_pem(&mut self, file: &File, notes: &mut Vec<Note>) -> Result<(), Error> {
        let contains = |part: &[u8]| file.bytes.windows(part.len()).any(|it| it == part);
        let path = Path::new(&file.name);
        let mut known = false;
        if contains(b"PRIVATE KEY-----") {
            let key = load::private_key(&file.bytes, path).map_err(refused(&file.name))?;
            self.keys.push(key);
            known = true;
        }
        if contains(b"-----BEGIN CERTIFICATE-----") || contains(b"-----BEGIN X509 CERTIFICATE-----")
        {
            let found = load::certificates(&file.bytes, path).map_err(refused(&file.name))?;
            for der in std::iter::once(found.leaf).chain(found.chain) {
                self.push_certificate(&file.name, der)?;
            }
            known = true;
        }
        if !known {
            let text = "neither a certificate nor a private key is in it; it is left out";
            notes.push(Note::NotRead(Place::file(&file.name), text.into()));
        }
        Ok(())
    }

    fn push_certificate(&mut self, file: &str, der: Vec<u8>) -> Result<(), Error> {
        if self.certificates.len() >= MOST {
            return Err(Error::at(
                &Place::file(file),
                format!("more than {MOST} certificates in all files together"),
            ));
        }
        if !self.certificates.iter().any(|it| it.der == der) {
            self.certificates.push(Certificate {
                file: file.to_owned(),
                der,
                beside: false,
            });
        }
        Ok(())
    }

    /// A certificate that a file calls the server's authority: PEM, or DER.
    pub(super) fn trust(&mut self, place: &Place, bytes: &[u8]) -> Result<(), Error> {
        let found = load::authorities(bytes, Path::new(&place.file));
        let found = found.map_err(|error| Error::at(place, without_path(&error)))?;
        self.authorities.extend(found.into_iter().take(MOST));
        Ok(())
    }

    /// Our own certificate, PEM or DER, which a file holds.
    pub(super) fn add_certificate(&mut self, place: &Place, bytes: &[u8]) -> Result<(), Error> {
        let found = load::certificates(bytes, Path::new(&place.file));
        let found = found.map_err(|error| Error::at(place, without_path(&error)))?;
        for der in std::iter::once(found.leaf).chain(found.chain) {
            self.push_certificate(&place.file, der)?;
        }
        Ok(())
    }

    /// Our own key, PEM or DER, which a file holds.
    pub(super) fn add_key(&mut self, place: &Place, bytes: &[u8]) -> Result<(), Error> {
        let key = load::private_key(bytes, Path::new(&place.file));
        self.keys
            .push(key.map_err(|error| Error::at(place, without_path(&error)))?);
        Ok(())
    }

    /// A `.p12` with the password it is opened by, if that is known.
    pub(super) fn add_p12(
        &mut self,
        file: &str,
        bytes: Zeroizing<Vec<u8>>,
        password: Option<Zeroizing<String>>,
    ) {
        let known = self.p12s.iter_mut().find(|it| it.file == file);
        match known {
            Some(known) => known.password = password.or(known.password.take()),
            None => self.p12s.push(P12 {
                file: file.to_owned(),
                bytes,
                password,
            }),
        }
    }

    /// That a file of secrets was read, be it an empty one.
    pub(super) fn saw_secrets(&mut self) {
        self.has_secrets = true;
    }

    /// Whether one was.
    pub(super) fn has_secrets(&self) -> bool {
        self.has_secrets
    }

    /// Whether a certificate came from a file of this name.
    pub(super) fn has_certificate(&self, file: &str) -> bool {
        self.certificates.iter().any(|it| it.file == file)
    }

    /// Looks beside the files given for one by the name a description has for it, and takes what is in it.
    pub(super) fn find(
        &mut self,
        name: &str,
        folders: &[&str],
        around: &mut dyn Surroundings,
    ) -> Result<bool, Error> {
        let Some(base) = base_name(name) else {
            return Ok(false);
        };
        for folder in folders {
            let path = join(folder, base);
            if let Some(bytes) = around.read(&path) {
                let file = File {
                    name: base.to_owned(),
                    bytes,
                };
                // What it is counts, not what it is called.
                let kind = kind::of(&file)?;
                if kind.is_description() {
                    continue;
                }
                let is_it = |it: &File| it.name == file.name && it.bytes == file.bytes;
                if self.given.iter().any(is_it) {
                    return Ok(true);
                }
                let known = self.certificates.len();
                self.add(&file, kind, &mut Vec::new())?;
                self.lay_beside(known, path);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The same for one that a description calls the server's authority.
    pub(super) fn find_authority(
        &mut self,
        name: &str,
        around: &mut dyn Surroundings,
    ) -> Result<bool, Error> {
        let known = self.certificates.len();
        let found = self.find(name, AUTHORITIES, around)?;
        for it in self.certificates.iter_mut().skip(known) {
            it.beside = false;
        }
        Ok(found)
    }

    /// Remembers that a file was taken which nobody gave, and which certificates it brought.
    fn lay_beside(&mut self, known: usize, path: String) {
        for it in self.certificates.iter_mut().skip(known) {
            it.beside = true;
        }
        if !self.found.contains(&path) {
            self.found.push(path);
        }
    }

    /// Our certificate with its key: the one from a file of these names first.
    pub(super) fn own(
        &mut self,
        wanted: &[String],
        around: &mut dyn Surroundings,
    ) -> Result<Option<Own>, Error> {
        if let Some(own) = self.matched(wanted) {
            return Ok(Some(own));
        }
        self.find_named(around)?;
        if let Some(own) = self.matched(wanted) {
            return Ok(Some(own));
        }
        for name in wanted {
            self.find_key_of(name, around)?;
        }
        if let Some(own) = self.matched(wanted) {
            return Ok(Some(own));
        }
        self.open_p12s(around)?;
        Ok(self.matched(wanted).or_else(|| self.matched(&[])))
    }

    fn matched(&self, wanted: &[String]) -> Option<Own> {
        let names = |it: &&Certificate| wanted.is_empty() || wanted.contains(&it.file);
        let candidates = self.certificates.iter().filter(names);
        let (leaf, key) = candidates
            .filter_map(|it| {
                let key = self.keys.iter().find(|key| is_key_of(key, &it.der))?;
                Some((it, key))
            })
            // An authority's own pair is in nobody's hands, but for a folder that holds everything.
            .min_by_key(|(it, _)| is_self_issued(&it.der))?;
        let mut chain = vec![leaf.der.clone()];
        while let Some(above) = self.issuer_of(chain.last()?) {
            if is_self_issued(&above.der) || chain.contains(&above.der) {
                break;
            }
            chain.push(above.der.clone());
        }
        Some(Own {
            chain,
            key: Zeroizing::new(key.pkcs8().to_vec()),
        })
    }

    fn issuer_of(&self, der: &[u8]) -> Option<&Certificate> {
        let mut all = self.certificates.iter();
        all.find(|it| is_issued_by(der, &it.der))
    }

    /// The files with keys that secrets name.
    fn find_named(&mut self, around: &mut dyn Surroundings) -> Result<(), Error> {
        for named in std::mem::take(&mut self.named) {
            let place = |error: Error| Error::at(&named.place, error.reason);
            if named.p12 {
                let known = |it: &&mut P12| it.file == named.file;
                if !self.p12s.iter_mut().any(|it| known(&it)) {
                    self.find(&named.file, P12S, around).map_err(place)?;
                }
                if let Some(p12) = self.p12s.iter_mut().find(known) {
                    p12.password = named.password.or(p12.password.take());
                }
            } else {
                self.find(&named.file, KEYS, around).map_err(place)?;
            }
        }
        Ok(())
    }

    /// A key of the same name as the certificate, or any that fits.
    fn find_key_of(&mut self, name: &str, around: &mut dyn Surroundings) -> Result<(), Error> {
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        for ending in [".key", ".pem", "-key.pem", "Key.pem"] {
            let named = format!("{stem}{ending}");
            if named != name && self.find(&named, KEYS, around)? {
                return Ok(());
            }
        }
        for folder in FOLDERS_OF_KEYS {
            for name in around.list(folder) {
                self.take_if_good(&join(folder, &name), &name, around);
            }
        }
        Ok(())
    }

    /// From a folder where every file counts, and one that is no use is no mistake.
    fn take_if_good(&mut self, path: &str, name: &str, around: &mut dyn Surroundings) {
        if let Some(bytes) = around.read(path) {
            let file = File {
                name: name.to_owned(),
                bytes,
            };
            if let Ok(kind @ (Kind::Pem | Kind::Der)) = kind::of(&file) {
                let (certificates, keys) = (self.certificates.len(), self.keys.len());
                let _ = self.add(&file, kind, &mut Vec::new());
                if self.certificates.len() > certificates || self.keys.len() > keys {
                    self.lay_beside(certificates, path.to_owned());
                }
            }
        }
    }

    /// Opens every `.p12`; asks for passwords that are not known.
    fn open_p12s(&mut self, around: &mut dyn Surroundings) -> Result<(), Error> {
        for p12 in std::mem::take(&mut self.p12s) {
            let opened =
                open(&p12, around).map_err(|text| Error::at(&Place::file(&p12.file), text))?;
            let key = PrivateKey::from_der(&opened.key);
            self.keys.extend(key);
            let all = std::iter::once(opened.leaf).chain(opened.intermediates);
            for der in all.chain(opened.authorities) {
                self.push_certificate(&p12.file, der)?;
            }
        }
        Ok(())
    }

    /// Who vouches for the server: whoever a file calls that; else the root whose signature our certificate has; else
    /// every root that was given. One that only lay beside counts by that signature, or where we have no certificate.
    pub(super) fn trusted(
        &mut self,
        own: Option<&Own>,
        around: &mut dyn Surroundings,
    ) -> Result<Vec<Vec<u8>>, Error> {
        if !self.authorities.is_empty() {
            return Ok(self.authorities.clone());
        }
        let last = own.and_then(|own| own.chain.last());
        let choose = |it: &Self| {
            let of = |fits: &dyn Fn(&Certificate) -> bool| -> Vec<Vec<u8>> {
                let roots = it.certificates.iter().filter(|it| is_self_issued(&it.der));
                roots
                    .filter(|it| fits(it))
                    .map(|it| it.der.clone())
                    .collect()
            };
            let issuers = of(&|it| last.is_some_and(|last| is_issued_by(last, &it.der)));
            let given = of(&|it| !it.beside);
            let beside = of(&|it| own.is_none() && it.beside);
            let mut all = [issuers, given, beside].into_iter();
            all.find(|it| !it.is_empty()).unwrap_or_default()
        };
        let mut chosen = choose(self);
        if chosen.is_empty() {
            for name in AUTHORITY_NAMES {
                if self.find(name, AUTHORITIES, around)? {
                    break;
                }
            }
            for folder in FOLDERS_OF_AUTHORITIES {
                for name in around.list(folder) {
                    self.take_if_good(&join(folder, &name), &name, around);
                }
            }
            chosen = choose(self);
        }
        if chosen.is_empty() && !self.p12s.is_empty() {
            self.open_p12s(around)?;
            chosen = choose(self);
        }
        Ok(chosen)
    }

    /// The secret for a connection with these identities: one that names most of them, then one for anybody.
    pub(super) fn secret(&self, kind: SecretKind, ids: &[&str]) -> Option<&Secret> {
        let fits = |it: &&Secret| {
            it.kind == kind && (it.ids.iter()).all(|id| id == "%any" || ids.contains(&id.as_str()))
        };
        let candidates = self.secrets.iter().filter(fits);
        candidates.max_by_key(|it| it.ids.len())
    }
}

/// Who knows a password.
const PASSWORD_KNOWN: &str = "of Cygnet's files `cygnet user export NAME` on the server prints it, of Algo's it was printed \
    when the server was deployed";

/// Tries what is known, then no password, then asks.
fn open(p12: &P12, around: &mut dyn Surroundings) -> Result<pkcs12::Opened, String> {
    let mut outcome = pkcs12::read(&p12.bytes, p12.password.as_ref().map_or("", |it| it));
    let mut tried = p12.password.is_some();
    for attempt in 1..=PASSWORD_TRIES {
        if p12.password.is_some() || !matches!(outcome, Err(Pkcs12Error::WrongPassword)) {
            break;
        }
        let Some(password) = around.password(&p12.file, attempt) else {
            break;
        };
        tried = true;
        outcome = pkcs12::read(&p12.bytes, &password);
    }
    outcome.map_err(|error| match error {
        Pkcs12Error::WrongPassword if tried => {
            format!("the password is wrong, or the file is damaged: try again; {PASSWORD_KNOWN}")
        }
        Pkcs12Error::WrongPassword => {
            format!("it is opened by a password, which is needed here; {PASSWORD_KNOWN}")
        }
        other => other.to_string(),
    })
}

fn refused(file: &str) -> impl Fn(LoadError) -> Error {
    let place = Place::file(file);
    move |error| Error::at(&place, without_path(&error))
}

/// The place says which file it is.
fn without_path(error: &LoadError) -> String {
    format!(
        "expected {}, found {}; {}",
        error.expected, error.found, error.remedy
    )
}

/// The last part of a path that a file has written; `None` where that is no name of a file.
pub(super) fn base_name(path: &str) -> Option<&str> {
    let base = path.rsplit('/').next().unwrap_or_default();
    (!base.is_empty() && base != "." && base != ".." && !base.contains(char::is_control))
        .then_some(base)
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}
