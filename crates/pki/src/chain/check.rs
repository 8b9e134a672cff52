//! The judgement of one complete path (RFC 5280 §6.1), from the anchor down to the end entity.

use rustls_pki_types::UnixTime;
use time::{OffsetDateTime, macros::format_description};

use super::{
    Certificate, ChainError, Crls, PeerRole, ValidatedPeer, certificate::unix_time, path::Budget,
};

/// Judges a path whose names and signatures fit: end entity first, anchor last.
pub(super) fn path(
    path: &[&Certificate<'_>],
    crls: &Crls,
    role: PeerRole,
    utc: UnixTime,
    budget: &mut Budget,
) -> Result<ValidatedPeer, ChainError> {
    let ([end_entity, authorities @ ..], [.., anchor]) = (path, path) else {
        return Err(ChainError::Malformed {
            subject: "<unreadable>".into(),
            what: "an empty path".into(),
        });
    };
    let now = i64::try_from(utc.as_secs()).unwrap_or(i64::MAX);
    for (index, certificate) in path.iter().enumerate().rev() {
        dates(certificate, now, index > 0)?;
        if let Some(oid) = &certificate.extensions.unknown_critical {
            return Err(ChainError::UnknownCriticalExtension {
                subject: certificate.subject_text(),
                oid: oid.clone(),
            });
        }
    }
    for (authority, issued) in authorities.iter().zip(path) {
        may_issue(authority, issued)?;
    }
    for (below, authority) in authorities.iter().enumerate() {
        path_length(authority, authorities.get(..below).unwrap_or_default())?;
    }
    if let Some(usage) = end_entity.extensions.key_usage
        && !usage.digital_signature()
        && !usage.non_repudiation()
    {
        // RFC 4945 §5.1.3.2.
        return Err(ChainError::KeyUsage {
            subject: end_entity.subject_text(),
            needed: "digitalSignature",
        });
    }
    purposes(path, role)?;
    names(path)?;
    let mut warnings = Vec::new();
    for (certificate, issuer) in path.iter().zip(authorities) {
        crls.check(certificate, issuer, now, budget, &mut warnings)?;
    }
    let not_after = path.iter().map(|it| it.not_after()).min().unwrap_or(0);
    Ok(ValidatedPeer {
        spki: end_entity.spki().to_vec(),
        subject: end_entity.subject_name(),
        issuer: end_entity.issuer_name(),
        serial: end_entity.serial().to_vec(),
        sans: end_entity.extensions.names.clone(),
        not_after: unix_time(not_after),
        anchor: anchor.subject_name(),
        warnings,
    })
}

fn dates(certificate: &Certificate<'_>, now: i64, authority: bool) -> Result<(), ChainError> {
    if now > certificate.not_after() {
        return Err(ChainError::Expired {
            subject: certificate.subject_text(),
            on: day(certificate.not_after()),
            authority,
        });
    }
    if now < certificate.not_before() {
        return Err(ChainError::NotYetValid {
            subject: certificate.subject_text(),
            from: minute(certificate.not_before()),
            now: minute(now),
        });
    }
    Ok(())
}

/// Whether `authority` may have issued the certificate below it (§6.1.4 (k), (n)).
fn may_issue(authority: &Certificate<'_>, issued: &Certificate<'_>) -> Result<(), ChainError> {
    let constraints = &authority.extensions.basic_constraints;
    if !constraints.as_ref().is_some_and(|it| it.ca) {
        return Err(ChainError::NotAnAuthority {
            subject: authority.subject_text(),
            issued: issued.subject_text(),
        });
    }
    match authority.extensions.key_usage {
        Some(usage) if !usage.key_cert_sign() => Err(ChainError::KeyUsage {
            subject: authority.subject_text(),
            needed: "keyCertSign",
        }),
        _ => Ok(()),
    }
}

/// Whether the authorities between `authority` and the end entity are few enough; self-issued ones do not count
/// (§4.2.1.9).
fn path_length(
    authority: &Certificate<'_>,
    between: &[&Certificate<'_>],
) -> Result<(), ChainError> {
    let constraints = authority.extensions.basic_constraints.as_ref();
    let Some(allowed) = constraints.and_then(|it| it.path_len_constraint) else {
        return Ok(());
    };
    let found = between.iter().filter(|it| !it.is_self_issued()).count();
    let found = u32::try_from(found).unwrap_or(u32::MAX);
    if found > allowed {
        return Err(ChainError::PathLength {
            subject: authority.subject_text(),
            allowed,
            found,
        });
    }
    Ok(())
}

/// Key purposes (RFC 5280 §4.2.1.12) by object identifier.
pub(super) mod purpose {
    pub(in super::super) const ANY: &str = "2.5.29.37.0";
    pub(in super::super) const SERVER_AUTH: &str = "1.3.6.1.5.5.7.3.1";
    pub(in super::super) const CLIENT_AUTH: &str = "1.3.6.1.5.5.7.3.2";
    pub(in super::super) const CODE_SIGNING: &str = "1.3.6.1.5.5.7.3.3";
    pub(in super::super) const EMAIL_PROTECTION: &str = "1.3.6.1.5.5.7.3.4";
    pub(in super::super) const TIME_STAMPING: &str = "1.3.6.1.5.5.7.3.8";
    pub(in super::super) const OCSP_SIGNING: &str = "1.3.6.1.5.5.7.3.9";
    /// RFC 4945 §5.1.3.12.
    pub(in super::super) const IPSEC_IKE: &str = "1.3.6.1.5.5.7.3.17";
    /// "IP security IKE intermediate", which older macOS asked for.
    pub(in super::super) const IKE_INTERMEDIATE: &str = "1.3.6.1.5.5.8.2.2";
}

/// One purpose that fits the role has to be allowed by every certificate of the path; those without the extension allow
/// all. RFC 4945 §5.1.3.12 asks for `ipsecIKE` or `any`; what is issued in practice carries the TLS purposes.
fn purposes(path: &[&Certificate<'_>], role: PeerRole) -> Result<(), ChainError> {
    let fitting: &[&str] = match role {
        PeerRole::Responder => &[
            purpose::IPSEC_IKE,
            purpose::SERVER_AUTH,
            purpose::IKE_INTERMEDIATE,
        ],
        PeerRole::Initiator => &[
            purpose::IPSEC_IKE,
            purpose::CLIENT_AUTH,
            purpose::SERVER_AUTH,
            purpose::IKE_INTERMEDIATE,
        ],
    };
    let list = |oids: &mut dyn Iterator<Item = &str>| -> String {
        oids.map(purpose_name).collect::<Vec<_>>().join(", ")
    };
    if let (PeerRole::Responder, Some(end_entity)) = (role, path.first())
        && let Some(allowed) = &end_entity.extensions.extended_key_usage
    {
        let names = |purpose: &str| allowed.iter().any(|oid| oid == purpose);
        // Authorities that issue both kinds give `ipsecIKE` to both, Algo's for one.
        if names(purpose::CLIENT_AUTH) && !names(purpose::SERVER_AUTH) && !names(purpose::ANY) {
            return Err(ChainError::ExtendedKeyUsage {
                subject: end_entity.subject_text(),
                found: list(&mut allowed.iter().map(String::as_str)),
                needed: list(&mut std::iter::once(purpose::SERVER_AUTH)),
            });
        }
    }
    let mut left = fitting.to_vec();
    for certificate in path.iter().rev() {
        let Some(allowed) = &certificate.extensions.extended_key_usage else {
            continue;
        };
        if allowed.iter().any(|it| it == purpose::ANY) {
            continue;
        }
        let before = left.clone();
        left.retain(|it| allowed.iter().any(|oid| oid == it));
        if left.is_empty() {
            return Err(ChainError::ExtendedKeyUsage {
                subject: certificate.subject_text(),
                found: list(&mut allowed.iter().map(String::as_str)),
                needed: list(&mut before.into_iter()),
            });
        }
    }
    Ok(())
}

fn purpose_name(oid: &str) -> &str {
    match oid {
        purpose::ANY => "any",
        purpose::SERVER_AUTH => "serverAuth",
        purpose::CLIENT_AUTH => "clientAuth",
        purpose::CODE_SIGNING => "codeSigning",
        purpose::EMAIL_PROTECTION => "emailProtection",
        purpose::TIME_STAMPING => "timeStamping",
        purpose::OCSP_SIGNING => "OCSPSigning",
        purpose::IPSEC_IKE => "ipsecIKE",
        purpose::IKE_INTERMEDIATE => "ikeIntermediate",
        other => other,
    }
}

/// Each authority's name constraints hold for all that lies below it, save self-issued authorities (§6.1.3 (b), (c)).
fn names(path: &[&Certificate<'_>]) -> Result<(), ChainError> {
    for (above, authority) in path.iter().enumerate().rev() {
        let Some(constraints) = &authority.extensions.name_constraints else {
            continue;
        };
        for (index, certificate) in path.iter().take(above).enumerate() {
            if index == 0 || !certificate.is_self_issued() {
                constraints.check(certificate, authority)?;
            }
        }
    }
    Ok(())
}

/// `2026-01-02`, UTC.
pub(super) fn day(seconds: i64) -> String {
    let format = format_description!("[year]-[month]-[day]");
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|at| at.format(format).ok())
        .unwrap_or_else(|| "at an unknown time".into())
}

/// `2026-01-02 03:04 UTC`.
fn minute(seconds: i64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|at| at.format(format).ok())
        .unwrap_or_else(|| "an unknown time".into())
}
