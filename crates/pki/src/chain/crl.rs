//! Revocation by local CRLs (RFC 5280 §5 and §6.3).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use x509_parser::prelude::{CertificateRevocationList, FromDer, ParsedExtension};

use crate::DistinguishedName;
use crate::name::{self, Rdns};

use super::{
    Certificate, ChainError, MAX_SIGNATURES, TrustAnchors, certificate::strip_zeros, check::day,
    path::Budget, signature,
};

/// What is asked of CRLs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CrlPolicy {
    /// A CRL is heeded where there is one. A stale one still revokes what it lists, and warns.
    #[default]
    IfPresent,
    /// Every certificate below the anchor has to be covered by a current CRL of its issuer.
    Required,
    /// CRLs are not looked at.
    Ignore,
}

/// The bytes are no CRL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected one X.509 CRL in DER, found {found}")]
pub struct NotACrl {
    found: String,
}

/// The CRLs at hand, and what is asked of them.
#[derive(Debug, Clone, Default)]
pub struct Crls {
    policy: CrlPolicy,
    lists: Vec<Crl>,
}

/// One CRL, decoded when it was loaded: looking up a serial does not read the list again.
#[derive(Debug, Clone)]
struct Crl {
    der: Vec<u8>,
    issuer: Rdns,
    /// Big-endian, without leading zeros (RFC 5280 §5.2.3).
    number: Option<Vec<u8>>,
    this_update: i64,
    next_update: Option<i64>,
    /// Serial without leading zeros, to time and reason.
    revoked: BTreeMap<Vec<u8>, (i64, u8)>,
    covers: Covers,
    /// Its issuingDistributionPoint (RFC 5280 §5.2.5) as it stands there; empty where there is none.
    scope: Vec<u8>,
    /// Why nothing may be concluded from it.
    unusable: Option<String>,
    verdicts: Arc<Mutex<Verdicts>>,
}

/// What came of checking the list's signature with keys that bear its issuer's name: a list has megabytes, and those
/// whose certificates are judged by it have proven nothing yet.
#[derive(Debug, Default)]
struct Verdicts {
    /// SubjectPublicKeyInfo (DER), and what is wrong, the latest last.
    known: VecDeque<(Vec<u8>, Option<String>)>,
}

/// Keys that a list is known to be signed with, or not to be. Only those of authorities get here.
const VERDICTS: usize = 8;

impl Verdicts {
    fn of(&self, key: &[u8]) -> Option<Option<String>> {
        let known = self.known.iter().find(|(known, _)| known == key);
        known.map(|(_, flaw)| flaw.clone())
    }

    fn note(&mut self, key: &[u8], flaw: Option<String>) {
        if self.known.len() >= VERDICTS {
            self.known.pop_front();
        }
        self.known.push_back((key.to_vec(), flaw));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Covers {
    All,
    EndEntities,
    Authorities,
}

impl Crls {
    /// No CRL yet.
    pub fn new(policy: CrlPolicy) -> Self {
        Self {
            policy,
            lists: Vec::new(),
        }
    }

    /// Adds a CRL (DER). Its signature is checked when a chain brings the issuer's key. A list already present is
    /// not added twice.
    pub fn add(&mut self, der: impl Into<Vec<u8>>) -> Result<(), NotACrl> {
        let crl = Crl::parse(der.into())?;
        if self.lists.iter().all(|it| it.der != crl.der) {
            self.lists.push(crl);
        }
        Ok(())
    }

    /// Judges one certificate by the CRLs that its issuer signed and that cover it, of each scope by the newest:
    /// an authority may publish several lists, each of a part, and none takes the place of another.
    pub(super) fn check(
        &self,
        certificate: &Certificate<'_>,
        issuer: &Certificate<'_>,
        now: i64,
        budget: &mut Budget,
        warnings: &mut Vec<String>,
    ) -> Result<(), ChainError> {
        if self.policy == CrlPolicy::Ignore {
            return Ok(());
        }
        let is_authority = certificate
            .extensions
            .basic_constraints
            .as_ref()
            .is_some_and(|it| it.ca);
        // What lists of the future name is revoked as well, and they do not make up for a list of today.
        let mut newest: BTreeMap<(&[u8], bool), &Crl> = BTreeMap::new();
        let mut why = None;
        for crl in &self.lists {
            let covered = match crl.covers {
                Covers::All => true,
                Covers::EndEntities => !is_authority,
                Covers::Authorities => is_authority,
            };
            if crl.issuer != issuer.subject || !covered {
                continue;
            }
            match crl.flaw(issuer, budget, certificate)? {
                Some(flaw) => why = Some(flaw),
                None => {
                    let of_the_future = crl.this_update > now;
                    let known = newest.entry((&crl.scope, of_the_future)).or_insert(crl);
                    if known.this_update <= crl.this_update {
                        *known = crl;
                    }
                }
            }
        }
        let mut is_current = false;
        for crl in newest.values() {
            if let Some((at, reason)) = crl.revoked.get(certificate.serial()) {
                return Err(ChainError::Revoked {
                    subject: certificate.subject_text(),
                    serial: hexadecimal(certificate.serial()),
                    on: day(*at),
                    reason: reason_name(*reason),
                });
            }
            // What it lists is revoked whatever the date is here: that may be wrong, and the signature is not.
            match crl.next_update {
                _ if crl.this_update > now => why = Some(crl.of_the_future()),
                Some(next) if next < now => {
                    why = Some(format!("it expired {}", day(next)));
                }
                _ => is_current = true,
            }
        }
        if is_current {
            return Ok(());
        }
        let Some(why) = why else {
            return match self.policy {
                CrlPolicy::Required => Err(ChainError::NoCurrentCrl {
                    subject: certificate.subject_text(),
                    issuer: issuer.subject_text(),
                    why: "no CRL of its issuer is installed".into(),
                }),
                _ => Ok(()),
            };
        };
        if self.policy == CrlPolicy::Required {
            return Err(ChainError::NoCurrentCrl {
                subject: certificate.subject_text(),
                issuer: issuer.subject_text(),
                why: format!("the CRL of its issuer is of no use: {why}"),
            });
        }
        let warning = format!(
            "the CRL of {} is of no use: {why}; install a current one",
            issuer.subject_text()
        );
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
        Ok(())
    }
}

impl Crl {
    fn parse(der: Vec<u8>) -> Result<Self, NotACrl> {
        let refuse = |found: &str| NotACrl {
            found: found.into(),
        };
        let (rest, list) = CertificateRevocationList::from_der(&der)
            .map_err(|_| refuse("bytes that do not decode as one"))?;
        if !rest.is_empty() {
            return Err(refuse("further bytes behind it"));
        }
        if list.signature_algorithm != list.tbs_cert_list.signature {
            return Err(refuse("one that names two different signature algorithms"));
        }
        let issuer = name::rdns(list.issuer().as_raw())
            .ok_or_else(|| refuse("one whose issuer does not decode"))?;
        let (covers, mut unusable) = covers(&list);
        let scope = list.extensions().iter().find(|extension| {
            let parsed = extension.parsed_extension();
            matches!(parsed, ParsedExtension::IssuingDistributionPoint(_))
        });
        let scope = scope.map(|extension| extension.value.to_vec());
        let mut revoked = BTreeMap::new();
        for entry in list.iter_revoked_certificates() {
            let mut reason = 0;
            for extension in entry.extensions() {
                match extension.parsed_extension() {
                    ParsedExtension::ReasonCode(code) => reason = code.0,
                    ParsedExtension::InvalidityDate(_) => {}
                    // RFC 5280 §5.3: not to be used when an entry holds what is not understood.
                    _ if extension.critical && unusable.is_none() => {
                        unusable = Some(format!(
                            "an entry has the critical extension {}",
                            extension.oid
                        ));
                    }
                    _ => {}
                }
            }
            revoked.insert(
                strip_zeros(entry.raw_serial()).to_vec(),
                (entry.revocation_date.timestamp(), reason),
            );
        }
        Ok(Self {
            issuer,
            number: list.crl_number().map(|number| number.to_bytes_be()),
            this_update: list.last_update().timestamp(),
            next_update: list.next_update().map(|it| it.timestamp()),
            revoked,
            covers,
            scope: scope.unwrap_or_default(),
            unusable,
            verdicts: Arc::default(),
            der,
        })
    }

    /// What keeps the list from being believed, if anything.
    fn flaw(
        &self,
        issuer: &Certificate<'_>,
        budget: &mut Budget,
        certificate: &Certificate<'_>,
    ) -> Result<Option<String>, ChainError> {
        if let Some(flaw) = self.unfit(issuer) {
            return Ok(Some(flaw));
        }
        // Held while the list is checked: nobody else has to do it again.
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = verdicts.of(issuer.spki()) {
            return Ok(known);
        }
        if !budget.take() {
            return Err(ChainError::TooComplex {
                subject: certificate.subject_text(),
                limit: MAX_SIGNATURES,
            });
        }
        let flaw = self.unsigned(issuer);
        verdicts.note(issuer.spki(), flaw.clone());
        Ok(flaw)
    }

    /// What is wrong with it whoever signed it.
    fn unfit(&self, issuer: &Certificate<'_>) -> Option<String> {
        if self.unusable.is_some() {
            return self.unusable.clone();
        }
        // RFC 5280 §6.3.3 (f).
        if issuer.extensions.key_usage.is_some_and(|it| !it.crl_sign()) {
            return Some("its issuer's keyUsage lacks cRLSign".into());
        }
        None
    }

    fn of_the_future(&self) -> String {
        format!("it is not valid before {}", day(self.this_update))
    }

    fn unsigned(&self, issuer: &Certificate<'_>) -> Option<String> {
        match signature::check_signed(&self.der, issuer) {
            Ok(()) => None,
            Err(signature::Flaw::Wrong) => Some("it does not carry its issuer's signature".into()),
            Err(signature::Flaw::Unsupported(algorithm)) => {
                Some(format!("it is signed with {algorithm}"))
            }
        }
    }
}

/// A CRL that an anchor has signed, known before there is a certificate to judge by it.
#[derive(Debug, Clone)]
pub struct SignedCrl {
    crl: Crl,
    /// SubjectPublicKeyInfo (DER) of the anchor.
    signer: Vec<u8>,
}

/// Why a CRL is none that an anchor vouches for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrlRefused {
    /// The bytes are none.
    #[error(transparent)]
    NotACrl(#[from] NotACrl),
    /// It is of somebody else.
    #[error("the revocation list is of {issuer}, who is none of the authorities in `ca`")]
    Stranger {
        /// Whose it is.
        issuer: String,
    },
    /// It is of an anchor, and of no use.
    #[error("the revocation list of {issuer} is of no use: {why}")]
    Flawed {
        /// Whose it is.
        issuer: String,
        /// What is wrong with it.
        why: String,
    },
}

impl SignedCrl {
    /// Reads a CRL (DER) and checks it as validation does. By no date: whether it is out of date remains to be seen, and
    /// one of the future says that the date is wrong, and revokes what it lists.
    pub fn verify(der: &[u8], anchors: &TrustAnchors) -> Result<Self, CrlRefused> {
        let crl = Crl::parse(der.to_vec())?;
        let mut refused = None;
        for anchor in anchors.iter() {
            let Ok(anchor) = Certificate::parse(anchor) else {
                continue;
            };
            if anchor.subject != crl.issuer {
                continue;
            }
            match crl.unfit(&anchor).or_else(|| crl.unsigned(&anchor)) {
                None => {
                    let signer = anchor.spki().to_vec();
                    return Ok(Self { crl, signer });
                }
                Some(why) => {
                    let issuer = anchor.subject_text();
                    refused = Some(CrlRefused::Flawed { issuer, why });
                }
            }
        }
        Err(refused.unwrap_or_else(|| CrlRefused::Stranger {
            issuer: issuer_text(der),
        }))
    }

    /// When it was made (`thisUpdate`), in seconds since 1970.
    #[must_use]
    pub fn this_update(&self) -> i64 {
        self.crl.this_update
    }

    /// When the next one is there at the latest (`nextUpdate`), in seconds since 1970.
    #[must_use]
    pub fn next_update(&self) -> Option<i64> {
        self.crl.next_update
    }

    /// Whether one of them takes the place of the other: they are of the same authority, signed with the same key, and
    /// of the same scope (RFC 5280 §5.2.5). Of others both count.
    #[must_use]
    pub fn is_of_series(&self, other: &Self) -> bool {
        self.crl.issuer == other.crl.issuer
            && self.signer == other.signer
            && self.crl.scope == other.crl.scope
    }

    /// Whether `other` is of the same series and was made later: by its number (RFC 5280 §5.2.3), or its date.
    #[must_use]
    pub fn is_older_than(&self, other: &Self) -> bool {
        let by_number = match (&self.crl.number, &other.crl.number) {
            (Some(own), Some(others)) => (own.len(), own) < (others.len(), others),
            _ => false,
        };
        self.is_of_series(other) && (by_number || self.crl.this_update < other.crl.this_update)
    }
}

fn issuer_text(der: &[u8]) -> String {
    CertificateRevocationList::from_der(der)
        .ok()
        .and_then(|(_, list)| DistinguishedName::from_der(list.issuer().as_raw()).ok())
        .map_or_else(|| "somebody".into(), |name| name.to_string())
}

/// What the list covers (RFC 5280 §5.2.5), and why it may not be used.
fn covers(list: &CertificateRevocationList<'_>) -> (Covers, Option<String>) {
    let mut covers = Covers::All;
    for extension in list.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(_) | ParsedExtension::CRLNumber(_) => {}
            ParsedExtension::IssuingDistributionPoint(point) => {
                if point.indirect_crl || point.only_some_reasons.is_some() {
                    return (
                        covers,
                        Some("it is indirect or covers some reasons only".into()),
                    );
                }
                if point.only_contains_attribute_certs {
                    return (covers, Some("it covers attribute certificates only".into()));
                }
                covers = match (point.only_contains_user_certs, point.only_contains_ca_certs) {
                    (false, false) => Covers::All,
                    (true, false) => Covers::EndEntities,
                    (false, true) => Covers::Authorities,
                    (true, true) => return (covers, Some("its scope is contradictory".into())),
                };
            }
            // Delta CRLs (§5.2.4) among them.
            _ if extension.critical => {
                let why = format!("it has the critical extension {}", extension.oid);
                return (covers, Some(why));
            }
            _ => {}
        }
    }
    (covers, None)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Names of RFC 5280 §5.3.1.
fn reason_name(code: u8) -> String {
    match code {
        0 => "unspecified".into(),
        1 => "keyCompromise".into(),
        2 => "cACompromise".into(),
        3 => "affiliationChanged".into(),
        4 => "superseded".into(),
        5 => "cessationOfOperation".into(),
        6 => "certificateHold".into(),
        8 => "removeFromCRL".into(),
        9 => "privilegeWithdrawn".into(),
        10 => "aACompromise".into(),
        other => format!("code {other}"),
    }
}
