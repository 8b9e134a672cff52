//! Values that mean something to IKE: identities, proposals, selectors, certificates.

use std::net::IpAddr;
use std::path::Path;

use cygnet_crypto::signature::{KeyKind, VerifyingKey};
use cygnet_ike::identity;
use cygnet_ike::policy::{EapLogin, Host, IdentityPattern, LocalAuth};
use cygnet_ike::proposal::{EspProposal, IkeProposal};
use cygnet_pki::{DistinguishedName, certreq, load};
use cygnet_wire::id::{IdType, Identification};
use cygnet_wire::ts::TrafficSelector;
use ipnet::IpNet;

/// Names of tunnels and children: they end up in interface names, URLs and log lines.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// A host name (RFC 1123 §2.1) or an address.
pub(crate) fn host(text: &str) -> Result<Host, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Host::Address(address));
    }
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    // Digits and dots alone are an address written wrongly, never a name.
    let numeric = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if !numeric && name.len() <= 253 && name.split('.').all(label) {
        return Ok(Host::Name(name.to_owned()));
    }
    Err(format!(
        "`{text}` is neither a host name nor an address: expected one such as \"vpn.example.org\" or \"203.0.113.5\""
    ))
}

pub(crate) fn identity_of_host(host: &Host) -> IdentityPattern {
    IdentityPattern::Exactly(match host {
        Host::Address(address) => Identification::address(*address),
        Host::Name(name) => Identification::fqdn(name),
    })
}

pub(crate) fn identification(text: &str) -> Result<Identification, String> {
    if identity::is_distinguished_name(text) {
        return distinguished_name(text).map(|der| Identification::dn(&der));
    }
    identity::parse(text).map_err(|e| e.to_string())
}

pub(crate) fn identity_pattern(text: &str) -> Result<IdentityPattern, String> {
    if text == "any" {
        return Ok(IdentityPattern::Any);
    }
    if identity::is_distinguished_name(text) {
        let der = distinguished_name(text)?;
        return Ok(if text.contains('*') {
            IdentityPattern::DnTemplate(der)
        } else {
            IdentityPattern::Exactly(Identification::dn(&der))
        });
    }
    identity::parse_pattern(text).map_err(|e| e.to_string())
}

/// A user name, perhaps with a domain before it.
pub(crate) fn user(text: &str) -> Result<String, String> {
    if (1..=256).contains(&text.len()) && !text.contains(char::is_control) {
        return Ok(text.to_owned());
    }
    Err("that is no user name: expected 1 to 256 characters, on one line".to_owned())
}

/// Who says it is calling where a log-in tells later who it is: servers look at the log-in alone, or
/// expect the same name. `None`: no identity can be made of it.
pub(crate) fn identity_of_login(local: &LocalAuth) -> Option<Identification> {
    let LocalAuth::Eap(EapLogin::Password { user, .. }) = local else {
        return None;
    };
    let name = user
        .rsplit_once('\\')
        .map_or(user.as_str(), |(_, name)| name);
    identity::parse(name).ok()
}

fn distinguished_name(text: &str) -> Result<Vec<u8>, String> {
    text.parse::<DistinguishedName>()
        .map(|n| n.as_der().to_vec())
        .map_err(|e| e.to_string())
}

pub(crate) fn dn_identity(subject: Vec<u8>) -> Identification {
    Identification::dn(&subject)
}

pub(crate) fn ike_proposal(text: &str) -> Result<IkeProposal, String> {
    text.parse::<IkeProposal>().map_err(|e| e.to_string())
}

pub(crate) fn esp_proposal(text: &str) -> Result<EspProposal, String> {
    text.parse::<EspProposal>().map_err(|e| e.to_string())
}

pub(crate) fn default_ike() -> Vec<IkeProposal> {
    cygnet_ike::proposal::default_ike()
}

pub(crate) fn default_esp() -> Vec<EspProposal> {
    cygnet_ike::proposal::default_esp(cygnet_crypto::suite::aes_is_fast())
}

pub(crate) fn selector(network: &IpNet) -> TrafficSelector {
    TrafficSelector::from_prefix(network.addr(), network.prefix_len())
}

pub(crate) fn network_of(selector: &TrafficSelector) -> Option<IpNet> {
    let (address, length) = selector.to_prefix()?;
    IpNet::new(address, length).ok()
}

/// Our own certificate, as far as it is public.
pub(crate) struct OwnCertificate {
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) key: KeyKind,
    pub(crate) subject: Vec<u8>,
    /// Who it says we are.
    pub(crate) identities: Vec<Identification>,
}

pub(crate) fn certificate_chain(path: &str, bytes: &[u8]) -> Result<OwnCertificate, String> {
    let file = load::certificates(bytes, Path::new(path)).map_err(|e| e.to_string())?;
    let subject = cygnet_pki::identity::subject(&file.leaf).map_err(|e| format!("{path}: {e}"))?;
    let identities = cygnet_pki::identity::identities(&file.leaf)
        .map_err(|e| format!("{path}: {e}"))?
        .into_iter()
        .map(|(ty, data)| Identification {
            ty: IdType(ty),
            data,
        })
        .collect();
    let spki =
        cygnet_pki::identity::public_key_info(&file.leaf).map_err(|e| format!("{path}: {e}"))?;
    let key = VerifyingKey::from_spki_der(&spki)
        .map_err(|e| format!("{path}: {e}"))?
        .kind();
    let chain = std::iter::once(file.leaf).chain(file.chain).collect();
    Ok(OwnCertificate {
        chain,
        key,
        subject: subject.as_der().to_vec(),
        identities,
    })
}

pub(crate) fn anchors(path: &str, bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    load::authorities(bytes, Path::new(path)).map_err(|e| e.to_string())
}

pub(crate) fn crl(path: &str, bytes: &[u8]) -> Result<Vec<u8>, String> {
    load::crls(bytes, Path::new(path)).map_err(|e| e.to_string())?;
    Ok(bytes.to_vec())
}

/// Whether a revocation list that is written so is fetched; otherwise it is a file.
pub(crate) fn is_url(written: &str) -> bool {
    written.contains("://")
}

/// Where a CRL is fetched from.
pub(crate) fn crl_url(text: &str) -> Result<String, String> {
    const EXPECTED: &str = "expected http://HOST[:PORT]/PATH, or the name of a file";
    let refuse = |what: &str| Err(format!("`{text}` {what}: {EXPECTED}"));
    if text.len() > URL_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return refuse("is too long for a URL, or holds what must be written %XX there");
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    if scheme.eq_ignore_ascii_case("https") {
        return Err(format!(
            "`{text}`: revocation lists are fetched over http:// alone; their authority has signed them, so that \
             nothing is gained by trusting somebody else for https"
        ));
    }
    if scheme != "http" {
        return refuse("is no URL of a revocation list");
    }
    let Some((authority, path)) = rest.split_once('/') else {
        return refuse("names no file of that host");
    };
    if path.contains('#') || authority.contains(['@', '?', '#']) {
        return refuse("holds what has no place in such a URL (user names, `#`)");
    }
    let bracketed = authority
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'));
    let (name, port) = match bracketed {
        Some((address, port)) => (address, port),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let good_port = port.is_empty()
        || (port.strip_prefix(':')).is_some_and(|port| port.parse::<u16>().is_ok_and(|p| p != 0));
    let good_host = match host(name) {
        Ok(Host::Address(address)) => address.is_ipv6() == bracketed.is_some(),
        Ok(Host::Name(_)) => bracketed.is_none(),
        Err(_) => false,
    };
    if !good_host || !good_port {
        return refuse("names no host");
    }
    Ok(text.to_owned())
}

/// Longer URLs are of no use to anybody.
const URL_MAX: usize = 1024;

pub(crate) fn key_hash(certificate: &[u8]) -> Option<[u8; 20]> {
    certreq::key_hash(certificate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_crl_is_fetched_from_is_judged_before_it_is_fetched() {
        for good in [
            "http://crl.example.org/root.crl",
            "http://crl.example.org:8080/a/b?c=d",
            "http://192.0.2.1/",
            "http://[2001:db8::1]:8080/list.crl",
        ] {
            assert_eq!(crl_url(good).as_deref(), Ok(good));
        }
        let https = crl_url("https://crl.example.org/root.crl").unwrap_err();
        assert!(https.contains("their authority has signed them"), "{https}");
        for bad in [
            "ftp://crl.example.org/root.crl",
            "http://crl.example.org",
            "http:///root.crl",
            "http://user:secret@crl.example.org/root.crl",
            "http://crl.example.org/root.crl#x",
            "http://crl.example.org:0/root.crl",
            "http://crl.example.org:99999/root.crl",
            "http://2001:db8::1/root.crl",
            "http://[192.0.2.1]/root.crl",
            "http://crl.example.org/a b",
            "http://crl.example.org/\r\nHost:%20other",
        ] {
            let told = crl_url(bad).unwrap_err();
            assert!(told.contains("expected http://HOST"), "{told}");
        }
        assert!(crl_url(&format!("http://a/{}", "x".repeat(URL_MAX))).is_err());
    }
}
