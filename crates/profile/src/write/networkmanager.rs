//! A key file for NetworkManager with its strongSwan plugin (Debian: network-manager-strongswan), and the
//! certificates and key it names.
//!
//! The plugin's lifetimes are its own and longer than most servers'; the server rekeys first then.

use super::proposals::{strongswan_esp, strongswan_ike};
use super::{File, facts::Facts};

/// Where the key file expects the other files: it can name them by absolute paths alone.
pub(super) fn folder(facts: &Facts<'_>) -> String {
    format!("/etc/NetworkManager/cygnet/{}", facts.stem)
}

pub(super) fn file(facts: &Facts<'_>) -> File {
    let path = format!("networkmanager/{}.nmconnection", facts.stem);
    File::public(path, key_file(facts))
}

/// What the key file names.
pub(super) fn credentials(facts: &Facts<'_>) -> Vec<File> {
    let path = |name: &str| format!("networkmanager/{name}");
    let mut files = vec![File::public(path("ca.crt"), facts.ca.clone())];
    if let Some(certificate) = &facts.certificate {
        files.push(File::public(path("device.crt"), certificate.pem.clone()));
        if let Some(key) = &certificate.key {
            files.push(File::secret(path("device.key"), key.pem_bytes()));
        }
    }
    files
}

fn key_file(facts: &Facts<'_>) -> String {
    let profile = facts.profile;
    let folder = folder(facts);
    let mut data = vec![
        (
            "service-type",
            "org.freedesktop.NetworkManager.strongswan".to_owned(),
        ),
        ("address", profile.remote.clone()),
        ("remote-identity", profile.remote_identity.clone()),
        ("certificate", format!("{folder}/ca.crt")),
    ];
    match &facts.certificate {
        Some(certificate) => data.extend([
            ("method", "cert".to_owned()),
            ("cert-source", "file".to_owned()),
            ("usercert", format!("{folder}/device.crt")),
            ("userkey", format!("{folder}/device.key")),
            ("local-identity", certificate.identity.to_owned()),
        ]),
        None => data.extend([
            ("method", "eap".to_owned()),
            ("user", profile.user.clone()),
            // Asked for and kept by the person's own key ring.
            ("password-flags", "1".to_owned()),
        ]),
    }
    data.extend([
        ("virtual", "yes".to_owned()),
        ("encap", "no".to_owned()),
        ("ipcomp", "no".to_owned()),
        ("proposal", "yes".to_owned()),
        ("ike", strongswan_ike(&facts.ike).join(";")),
        ("esp", strongswan_esp(&facts.esp).join(";")),
    ]);
    if facts.is_split() {
        data.push(("remote-ts", facts.networks().join(";")));
    }
    let data: String = data
        .into_iter()
        .map(|(key, value)| format!("{key}={}\n", escape(&value)))
        .collect();
    // Without a network of its own named, NetworkManager sends everything into the tunnel.
    let route = match facts.is_split() {
        true => "method=auto\nnever-default=true\n",
        false => "method=auto\n",
    };
    format!(
        "[connection]\nid={title}\nuuid={uuid}\ntype=vpn\nautoconnect=false\n\n\
         [vpn]\n{data}\n[ipv4]\n{route}\n[ipv6]\n{route}",
        title = escape(&profile.title),
        uuid = facts.uuid("networkmanager"),
    )
}

/// GLib's key files: a backslash begins an escape, and spaces at either end are cut off.
fn escape(value: &str) -> String {
    let escaped = value.replace('\\', "\\\\");
    let inner = escaped.trim_matches(' ');
    let before = escaped.len() - escaped.trim_start_matches(' ').len();
    let after = escaped.len() - before - inner.len();
    format!("{}{inner}{}", "\\s".repeat(before), "\\s".repeat(after))
}
