//! `ipsec.conf` and `ipsec.secrets`, for strongSwan's older starter (Debian: strongswan-starter).
//!
//! Its parser warns and goes on, so that a wrong word is a setting lost without a sound. Everything written here is
//! of letters it takes literally, or in quotes that it knows.

use cygnet_crypto::signature::KeyKind;

use super::proposals::{strongswan_esp, strongswan_ike};
use super::{File, facts::Facts};

/// Everything below `ipsec/`; nothing for a password, which that parser would want in clear.
pub(super) fn files(facts: &Facts<'_>) -> Vec<File> {
    let Some(certificate) = &facts.certificate else {
        return Vec::new();
    };
    let stem = &facts.stem;
    let path = |name: String| format!("ipsec/{name}");
    let conf = configuration(facts, certificate.identity);
    let token = match certificate.kind {
        KeyKind::Rsa { .. } => "RSA",
        KeyKind::EcdsaP256 | KeyKind::EcdsaP384 | KeyKind::EcdsaP521 => "ECDSA",
        KeyKind::Ed25519 => "PKCS8",
    };
    let mut files = vec![
        File::public(path("ipsec.conf".into()), conf),
        File::public(
            path("ipsec.secrets".into()),
            format!(": {token} {stem}.key\n"),
        ),
        File::public(path(format!("cacerts/{stem}-ca.crt")), facts.ca.clone()),
        File::public(path(format!("certs/{stem}.crt")), certificate.pem.clone()),
    ];
    if let Some(key) = &certificate.key {
        let path = path(format!("private/{stem}.key"));
        files.push(File::secret(path, key.pem_bytes()));
    }
    files
}

fn configuration(facts: &Facts<'_>, identity: &str) -> String {
    let profile = facts.profile;
    // The lifetimes are hard ends here; rekeying begins between one and two margins before.
    let ike = facts.ike_rekey().as_secs();
    let child = facts.child_rekey().as_secs();
    format!(
        "\
# {title}
# For strongSwan's older starter: goes to /etc/ipsec.conf, ipsec.secrets to /etc/ipsec.secrets, the folders
# beside it into /etc/ipsec.d; then: ipsec restart

conn {name}
    keyexchange=ikev2
    ike=\"{ike_proposals}!\"
    esp=\"{esp_proposals}!\"
    fragmentation=yes
    mobike=yes
    left=%defaultroute
    leftsourceip=%config4,%config6
    leftauth=pubkey
    leftcert={stem}.crt
    leftid=\"{identity}\"
    leftsendcert=always
    right={remote}
    rightid=\"{remote_identity}\"
    rightauth=pubkey
    rightsubnet={networks}
    ikelifetime={ike}s
    lifetime={child}s
    margintime={margin}s
    rekey=yes
    dpdaction=restart
    dpddelay=30s
    closeaction=restart
    keyingtries=%forever
    auto=start
",
        title = profile.title,
        name = facts.stem.replace('.', "-"),
        stem = facts.stem,
        ike_proposals = strongswan_ike(&facts.ike).join(","),
        esp_proposals = strongswan_esp(&facts.esp).join(","),
        remote = profile.remote,
        remote_identity = profile.remote_identity,
        networks = facts.networks().join(","),
        margin = ike.min(child) / 10,
    )
}
