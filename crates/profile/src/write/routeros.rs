//! A script for MikroTik's RouterOS 7, and the `.p12` file it uses.

use cygnet_crypto::suite::{Encryption, Group, Prf};
use cygnet_pki::identity::subject;

use super::proposals::Known;
use super::{File, facts::Facts};

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

/// Nothing, if RouterOS knows nothing the server accepts, or without a key to import.
pub(super) fn files(facts: &Facts<'_>) -> Vec<File> {
    let (Some(certificate), Some(key), Some(choice)) = (
        &facts.certificate,
        facts.key(),
        KNOWN.choose(&facts.ike, &facts.esp),
    ) else {
        return Vec::new();
    };
    // RouterOS keeps it by that name, which stays as it was when a user is renamed.
    let Some(common_name) = subject(certificate.der)
        .ok()
        .and_then(|it| it.common_name())
    else {
        return Vec::new();
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
    // A variable named like a property is that property within `find`, and every entry would match: hence the prefix.
    let script = format!(
        "\
# RouterOS 7. First upload {stem}.p12 and this file (Files), then in a terminal:
#   /certificate import file-name={stem}.p12
#   /import file-name={stem}.rsc
# The first command asks for the password of the .p12 file.
:local cygnetName \"cygnet-{name}\"
:local cygnetNote {title}
:local cygnetCertificate [/certificate find where common-name={common_name}]
:if ([:len $cygnetCertificate] = 0) do={{ :error \"first: /certificate import file-name={stem}.p12\" }}
:local cygnetOwn [/certificate get ($cygnetCertificate->([:len $cygnetCertificate] - 1)) name]
/ip ipsec identity remove [find where peer=$cygnetName]
/ip ipsec policy remove [find where group=$cygnetName template=yes]
/ip ipsec peer remove [find where name=$cygnetName]
/ip ipsec mode-config remove [find where name=$cygnetName]
/ip ipsec proposal remove [find where name=$cygnetName]
/ip ipsec profile remove [find where name=$cygnetName]
/ip ipsec policy group remove [find where name=$cygnetName]
/ip ipsec policy group add name=$cygnetName
/ip ipsec profile add name=$cygnetName enc-algorithm={ike} hash-algorithm={hash} prf-algorithm={hash} dh-group={group} \
lifetime={ike_life}s dpd-interval=30s dpd-maximum-failures=4 nat-traversal=yes
/ip ipsec proposal add name=$cygnetName enc-algorithms={esp} auth-algorithms=\"\" pfs-group={pfs} lifetime={child_life}s
/ip ipsec mode-config add name=$cygnetName responder=no use-responder-dns=yes src-address-list=$cygnetName
/ip ipsec peer add name=$cygnetName comment=$cygnetNote address=\"{remote}\" exchange-mode=ike2 profile=$cygnetName
/ip ipsec policy add group=$cygnetName proposal=$cygnetName template=yes src-address=0.0.0.0/0 dst-address=0.0.0.0/0
/ip ipsec identity add peer=$cygnetName auth-method=digital-signature certificate=$cygnetOwn my-id=\"user-fqdn:{identity}\" \
remote-id=\"{remote_id}\" mode-config=$cygnetName generate-policy=port-strict policy-template-group=$cygnetName
:put \"Added. Addresses in the firewall's address list $cygnetName go through the tunnel.\"
",
        stem = facts.stem,
        common_name = quote(&common_name),
        name = facts.stem.replace('.', "-"),
        title = quote(&profile.title),
        group = group(choice.ike.group),
        pfs = choice.esp.group.map_or("none", group),
        ike_life = facts.ike_rekey().as_secs(),
        child_life = facts.child_rekey().as_secs(),
        remote = profile.remote,
        identity = certificate.identity,
        remote_id = typed_id(&profile.remote_identity),
    );
    let path = |ending| format!("routeros/{}.{ending}", facts.stem);
    vec![
        File::public(path("rsc"), script),
        File::secret(path("p12"), key.legacy_p12.clone()),
    ]
}

fn group(group: Group) -> &'static str {
    match group {
        Group::Curve25519 => "x25519",
        other => other.keyword(),
    }
}

pub(super) fn typed_id(identity: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_string_has_a_meaning() {
        assert_eq!(quote("Cygnet vpn-1, a_b."), "\"Cygnet vpn-1, a_b.\"");
        assert_eq!(quote("\"$x[:put]\\\n"), r#""\22\24x\5B\3Aput\5D\5C\0A""#);
        assert_eq!(quote("é’"), r#""\C3\A9\E2\80\99""#);
    }

    #[test]
    fn identities_are_of_their_kind() {
        assert_eq!(typed_id("203.0.113.5"), "address:203.0.113.5");
        assert_eq!(typed_id("vpn.example.org"), "fqdn:vpn.example.org");
        assert_eq!(typed_id("a@example.org"), "user-fqdn:a@example.org");
    }
}
