//! A PowerShell script for Windows 10 and 11, and the `.p12` file it imports.
//!
//! What a person makes in Windows' own dialog offers modp1024 alone, which no careful server takes; the script sets
//! the proposals. It is ASCII throughout: Windows PowerShell reads a file without a byte order mark in the machine's
//! code page, where octets of UTF-8 can become quotes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cygnet_crypto::signature::KeyKind;
use cygnet_crypto::suite::{Encryption, Group, Prf};

use super::proposals::{Choice, Known};
use super::{File, facts::Facts};

const HEAD: &str = include_str!("windows/head.ps1");
const BODY: &str = include_str!("windows/body.ps1");

/// What `Set-VpnConnectionIPsecConfiguration` takes.
const KNOWN: Known = Known {
    ike_encryption: &[
        Encryption::AesGcm16_256,
        Encryption::AesGcm16_128,
        Encryption::AesCbc256,
        Encryption::AesCbc128,
    ],
    esp_encryption: &[Encryption::AesGcm16_256, Encryption::AesGcm16_128],
    prf: &[Prf::HmacSha2_384, Prf::HmacSha2_256],
    group: &[Group::EcpP384, Group::EcpP256, Group::Modp2048],
};

/// Whether Windows would refuse the server's signature: by RSA it takes the first method of IKEv2 alone, which is SHA-1
/// (RFC 7296 §3.8), and not that of RFC 7427.
pub(super) fn is_left_out(facts: &Facts<'_>) -> bool {
    matches!(facts.server_kind, KeyKind::Rsa { .. })
}

/// Nothing, if Windows knows nothing the server accepts, or the key is not here to be handed over.
pub(super) fn files(facts: &Facts<'_>) -> Vec<File> {
    if is_left_out(facts) {
        return Vec::new();
    }
    let Some(choice) = KNOWN.choose(&facts.ike, &facts.esp) else {
        return Vec::new();
    };
    let path = |ending| format!("windows/{}.{ending}", facts.stem);
    let script = File::public(path("ps1"), script(facts, choice));
    match (&facts.certificate, facts.key()) {
        (None, _) => vec![script],
        (Some(_), Some(key)) => vec![script, File::secret(path("p12"), key.p12.clone())],
        (Some(_), None) => Vec::new(),
    }
}

fn script(facts: &Facts<'_>, choice: Choice) -> String {
    let profile = facts.profile;
    let der = |der: &[u8]| quote(&STANDARD.encode(der));
    let p12 = match facts.certificate {
        Some(_) => format!("{}.p12", facts.stem),
        None => String::new(),
    };
    let own = facts.certificate.as_ref();
    // Windows sends IPv6 into a tunnel only by routes of its own.
    let routes = match facts.is_split() {
        true => facts.networks(),
        // Public addresses, and private ones that nothing nearer has. `::/1` and `8000::/1` would hold link-local and
        // multicast addresses as well, and are refused in places.
        false => vec!["2000::/3".to_owned(), "fc00::/7".to_owned()],
    };
    // The suffix of the connection can be but one; rules for names, one a domain, send the rest.
    let domain = profile.domains.first().map_or("", String::as_str);
    let (domains, resolvers) = match facts.is_split() && !profile.dns.is_empty() {
        true => (
            profile.domains.clone(),
            profile.dns.iter().map(ToString::to_string).collect(),
        ),
        false => (Vec::new(), Vec::new()),
    };
    let ike = match choice.ike.encryption {
        Encryption::AesGcm16_128 => "GCMAES128",
        Encryption::AesCbc128 => "AES128",
        Encryption::AesCbc256 => "AES256",
        _ => "GCMAES256",
    };
    let esp = match choice.esp.encryption {
        Encryption::AesGcm16_128 => "GCMAES128",
        _ => "GCMAES256",
    };
    let hash = match choice.ike.prf {
        Prf::HmacSha2_384 => "SHA384",
        _ => "SHA256",
    };
    let pfs = match choice.esp.group {
        None => "None",
        Some(Group::Modp2048) => "PFS2048",
        Some(some) => group(some),
    };
    let facts = [
        ("Name", quote(&profile.title)),
        ("Server", quote(&profile.remote)),
        ("P12", quote(&p12)),
        ("OwnBase64", own.map_or(quote(""), |own| der(own.der))),
        ("AuthorityBase64", der(&profile.authority.certificate)),
        ("Split", format!("${}", facts.is_split())),
        ("Routes", list(&routes)),
        ("Domain", quote(domain)),
        ("Domains", list(&domains)),
        ("Resolvers", list(&resolvers)),
        ("IkeCipher", quote(ike)),
        ("IkeHash", quote(hash)),
        ("IkeGroup", quote(group(choice.ike.group))),
        ("EspCipher", quote(esp)),
        ("PfsGroup", quote(pfs)),
    ];
    let facts: String = facts
        .into_iter()
        .map(|(name, value)| format!("${name} = {value}\n"))
        .collect();
    // Notepad of older Windows shows no line ends but these.
    format!("{HEAD}{facts}{BODY}").replace('\n', "\r\n")
}

fn group(group: Group) -> &'static str {
    match group {
        Group::EcpP256 => "ECP256",
        Group::Modp2048 => "Group14",
        _ => "ECP384",
    }
}

/// An expression that is a list of these texts.
fn list(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| quote(text)).collect();
    format!("@({})", texts.join(", "))
}

/// An expression that is this text. In single quotes nothing has a meaning but the quotes themselves, which
/// PowerShell takes in any of the shapes U+2018 to U+201B; none of those is ASCII, and what is not is not quoted.
fn quote(text: &str) -> String {
    if text.is_ascii() {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let octets = STANDARD.encode(text);
    format!("[Text.Encoding]::UTF8.GetString([Convert]::FromBase64String('{octets}'))")
}
