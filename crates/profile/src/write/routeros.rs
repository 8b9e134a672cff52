//! A script for MikroTik's RouterOS 7, and the `.p12` file it uses.

use cygnet_crypto::suite::{Encryption, Group, Prf};

use super::proposals::Known;
use super::{Error, File, facts::Facts, pkcs12};

/// RouterOS knows combined modes for ESP, none for IKE.
const KNOWN: Known = Known {
    ike_encryption: &[Encryption::AesCbc256, Encryption::AesCbc128],
    esp_encryption: &[Encryption::AesGcm16_256, Encryption::AesGcm16_128],
    prf: &[Prf::HmacSha2_256, Prf::HmacSha2_384, Prf::HmacSha2_512],
    group: &[
        Group::EcpP384,
        Group::EcpP256,
        Group::EcpP521,
        Group::Modp3072,
        Group::Modp2048,
    ],
};

/// Nothing, if RouterOS knows nothing the server accepts, or for a password.
pub(super) fn files(facts: &Facts<'_>) -> Result<Vec<File>, Error> {
    let (Some(certificate), Some(choice)) =
        (&facts.certificate, KNOWN.choose(&facts.ike, &facts.esp))
    else {
        return Ok(Vec::new());
    };
    let Some(p12) = pkcs12::file(facts, "routeros/", pkcs12::LEGACY)? else {
        return Ok(Vec::new());
    };
    let profile = facts.profile;
    let hash = match choice.ike.prf {
        Prf::HmacSha2_256 => "sha256",
        Prf::HmacSha2_384 => "sha384",
        Prf::HmacSha2_512 => "sha512",
    };
    let ike = match choice.ike.encryption {
        Encryption::AesCbc128 => "aes-128",
        _ => "aes-256",
    };
    let esp = match choice.esp.encryption {
        Encryption::AesGcm16_128 => "aes-128-gcm",
        _ => "aes-256-gcm",
    };
    let script = format!(
        "\
# RouterOS 7. First upload {stem}.p12 and this file (Files), then in a terminal:
#   /certificate import file-name={stem}.p12
#   /import file-name={stem}.rsc
# The first command asks for the password of the .p12 file.
:local name \"cygnet-{name}\"
:local note {title}
:local certificate [/certificate find where common-name=\"{stem}\"]
:if ([:len $certificate] = 0) do={{ :error \"first: /certificate import file-name={stem}.p12\" }}
:local own [/certificate get ($certificate->([:len $certificate] - 1)) name]
/ip ipsec identity remove [find where peer=$name]
/ip ipsec policy remove [find where group=$name]
/ip ipsec peer remove [find where name=$name]
/ip ipsec mode-config remove [find where name=$name]
/ip ipsec proposal remove [find where name=$name]
/ip ipsec profile remove [find where name=$name]
/ip ipsec policy group remove [find where name=$name]
/ip ipsec policy group add name=$name
/ip ipsec profile add name=$name enc-algorithm={ike} hash-algorithm={hash} prf-algorithm={hash} dh-group={group} \
lifetime={ike_life}s dpd-interval=30s dpd-maximum-failures=4 nat-traversal=yes
/ip ipsec proposal add name=$name enc-algorithms={esp} auth-algorithms=\"\" pfs-group={pfs} lifetime={child_life}s
/ip ipsec mode-config add name=$name responder=no use-responder-dns=yes src-address-list=$name
/ip ipsec peer add name=$name comment=$note address=\"{remote}\" exchange-mode=ike2 profile=$name
/ip ipsec policy add group=$name proposal=$name template=yes src-address=0.0.0.0/0 dst-address=0.0.0.0/0
/ip ipsec identity add peer=$name auth-method=digital-signature certificate=$own my-id=\"user-fqdn:{identity}\" \
remote-id=\"{remote_id}\" mode-config=$name generate-policy=port-strict policy-template-group=$name
:put \"Added. Addresses in the firewall's address list $name go through the tunnel.\"
",
        stem = facts.stem,
        name = facts.stem.replace('.', "-"),
        title = quote(&profile.title),
        group = group(choice.ike.group),
        pfs = choice.esp.group.map_or("none", group),
        ike_life = facts.ike_rekey().as_secs(),
        child_life = facts.child_rekey().as_secs(),
        remote = profile.remote,
        identity = certificate.identity,
        remote_id = remote_id(&profile.remote_identity),
    );
    let script = File::public(format!("routeros/{}.rsc", facts.stem), script);
    Ok(vec![script, p12])
}

fn group(group: Group) -> &'static str {
    match group {
        Group::Modp2048 => "modp2048",
        Group::Modp3072 => "modp3072",
        Group::Modp4096 => "modp4096",
        Group::EcpP256 => "ecp256",
        Group::EcpP384 => "ecp384",
        Group::EcpP521 => "ecp521",
        Group::Curve25519 => "x25519",
    }
}

fn remote_id(identity: &str) -> String {
    let kind = match identity {
        _ if identity.parse::<std::net::IpAddr>().is_ok() => "address",
        _ if identity.contains('@') => "user-fqdn",
        _ => "fqdn",
    };
    format!("{kind}:{identity}")
}

/// A string of RouterOS' scripting language. Its letters are octets, and `\` with two hex digits is one of them: what
/// is neither letter, digit, space nor plain punctuation is written that way, so that nothing has a meaning.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for octet in text.bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b' ' | b'.' | b',' | b'-' | b'_' => {
                quoted.push(char::from(octet));
            }
            _ => quoted.push_str(&format!("\\{octet:02X}")),
        }
    }
    quoted.push('"');
    quoted
}
