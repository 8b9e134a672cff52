//! Which of the known formats a file has: told by its content, and by its name where the content leaves it open.

use super::{Error, File, Place};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// strongSwan's older configuration.
    IpsecConf,
    /// The secrets beside it.
    IpsecSecrets,
    /// strongSwan's newer configuration.
    Swanctl,
    /// Apple's profile.
    MobileConfig,
    /// The profile of strongSwan's app.
    Sswan,
    /// Our own.
    Bundle,
    /// PKCS#12.
    P12,
    /// Certificates and keys as text.
    Pem,
    /// A certificate or a key as bytes.
    Der,
}

impl Kind {
    /// Whether it tells what to connect to.
    pub(super) fn is_description(self) -> bool {
        matches!(
            self,
            Self::IpsecConf | Self::Swanctl | Self::MobileConfig | Self::Sswan | Self::Bundle
        )
    }
}

pub(super) fn of(file: &File) -> Result<Kind, Error> {
    let bytes = file.bytes.as_slice();
    let place = Place::file(&file.name);
    let name = file.name.to_ascii_lowercase();
    let ends = |ending: &str| name.ends_with(ending);
    let contains = |part: &[u8]| bytes.windows(part.len()).any(|it| it == part);
    if bytes.trim_ascii().is_empty() {
        return Err(Error::at(
            &place,
            "an empty file; was it copied completely?",
        ));
    }
    if bytes.first() == Some(&0x30) && std::str::from_utf8(bytes).is_err() {
        if contains(SIGNED_DATA) && contains(b"<plist") {
            return Err(Error::at(
                &place,
                "a signed profile: expected it unsigned; take the signature off with \
                 `openssl smime -verify -noverify -inform DER -in FILE -out NEW`",
            ));
        }
        return Ok(if ends(".p12") || ends(".pfx") || contains(PKCS7_DATA) {
            Kind::P12
        } else {
            Kind::Der
        });
    }
    if bytes.starts_with(b"bplist") {
        return Err(Error::at(
            &place,
            "a binary property list: expected XML; convert it with `plutil -convert xml1 FILE` (macOS) or `plistutil -i FILE -o NEW`",
        ));
    }
    if contains(b"-----BEGIN ") && !contains(b"<plist") && !bytes.trim_ascii().starts_with(b"{") {
        return Ok(Kind::Pem);
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Error::at(&place, format!("bytes of no format that is known; {KNOWN}")))?;
    if ends(".mobileconfig") || text.contains("<plist") {
        return Ok(Kind::MobileConfig);
    }
    if text.trim_start().starts_with('{') {
        return Ok(if text.contains("\"cygnet\"") {
            Kind::Bundle
        } else {
            Kind::Sswan
        });
    }
    if let Some(remedy) = for_others(&name, text) {
        return Err(Error::at(&place, remedy));
    }
    let mut lines = text.lines();
    if ends("swanctl.conf")
        || lines
            .clone()
            .any(|it| first_words(it, &["connections", "secrets"]))
    {
        return Ok(Kind::Swanctl);
    }
    if ends(".secrets") {
        return Ok(Kind::IpsecSecrets);
    }
    if lines.clone().any(|it| it.starts_with("conn ")) {
        return Ok(Kind::IpsecConf);
    }
    if lines.any(is_secret) {
        return Ok(Kind::IpsecSecrets);
    }
    if ends(".conf") {
        return Ok(Kind::IpsecConf);
    }
    Err(Error::at(
        &place,
        format!("a text of no format that is known; {KNOWN}"),
    ))
}

const KNOWN: &str = "expected ipsec.conf, ipsec.secrets, swanctl.conf, .mobileconfig, .sswan, a Cygnet bundle, .p12, or certificates and keys in PEM or DER";

/// pkcs7-signedData (RFC 2315 §14) in DER.
const SIGNED_DATA: &[u8] = &[
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02,
];
/// pkcs7-data, which a PKCS#12 file with a password begins with.
const PKCS7_DATA: &[u8] = &[
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01,
];

/// Files that servers hand out for other systems, and which one of the same folder is read instead.
fn for_others(name: &str, text: &str) -> Option<&'static str> {
    if name.ends_with(".ps1") {
        return Some(
            "a script for Windows, which holds no key; import the .p12 beside it, or the .mobileconfig",
        );
    }
    if name.ends_with(".nmconnection") {
        return Some("a file of NetworkManager is not read; import what it was made from");
    }
    if text.lines().any(|line| line.trim() == "[Interface]") {
        return Some(
            "a configuration of WireGuard, which is not IPsec; import the files of the IPsec part",
        );
    }
    None
}

/// Whether a line opens a section of one of these names.
fn first_words(line: &str, names: &[&str]) -> bool {
    let line = line.trim();
    names.iter().any(|name| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.trim_start().starts_with('{'))
    })
}

/// Whether a line tells a secret, as `203.0.113.5 : ECDSA alice.key` does.
fn is_secret(line: &str) -> bool {
    let kinds = ["RSA", "ECDSA", "PKCS8", "P12", "PSK", "EAP"];
    line.split_once(':').is_some_and(|(_, rest)| {
        let word = rest.split_whitespace().next().unwrap_or_default();
        kinds.contains(&word)
    })
}
