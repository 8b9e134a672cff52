//! libreswan: two files below `/etc/ipsec.d`.

use std::net::IpAddr;

use super::{about, list, secret_file};
use crate::site::{End, Site};
use crate::write::File;

pub(super) fn files(site: &Site) -> Vec<File> {
    let Site {
        name, here, there, ..
    } = site;
    let (right, auto) = match (&there.address, site.on_demand) {
        (Some(address), true) => (address.as_str(), "ondemand"),
        (Some(address), false) => (address.as_str(), "start"),
        (None, _) => ("%any", "add"),
    };
    let configuration = format!(
        "\
# {about}
# For libreswan: goes to /etc/ipsec.d/{name}.conf, {name}.secrets beside it, mode 600; then: ipsec restart

conn {name}
    ikev2=insist
    authby=secret
    left=%defaultroute
    leftid={own_identity}
    leftsubnet={local}
    right={right}
    rightid={their_identity}
    rightsubnet={networks}
    ike=aes_gcm256-sha2_384;dh20,aes_gcm128-sha2_256;dh19
    esp=aes_gcm256,aes_gcm128
    encapsulation=yes
    fragmentation=yes
    dpddelay=30
    auto={auto}
",
        about = about(site),
        own_identity = identity(here),
        their_identity = identity(there),
        local = list(&here.shown(), ","),
        networks = list(&there.shown(), ","),
    );
    let before = format!("{} {} : PSK \"", identity(here), identity(there));
    vec![
        secret_file(format!("{name}.conf"), &[&configuration]),
        secret_file(format!("{name}.secrets"), &[&before, &site.psk, "\"\n"]),
    ]
}

/// A name that is not to be resolved has an `@` before it.
fn identity(end: &End) -> String {
    match end.identity.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => format!("@{}", end.identity),
    }
}
