//! libreswan: two files below `/etc/ipsec.d`; with certificates one, and a `.p12` file for its own store.

use std::net::IpAddr;

use cygnet_pki::pkcs12::Encryption;

use super::{about, list, p12, secret_file};
use crate::site::{End, Proof, Site};
use crate::write::{Error, File};

pub(super) fn files(site: &Site) -> Result<Vec<File>, Error> {
    let Site {
        name, here, there, ..
    } = site;
    let (right, auto) = match (&there.address, site.on_demand) {
        (Some(address), true) => (address.as_str(), "ondemand"),
        (Some(address), false) => (address.as_str(), "start"),
        (None, _) => ("%any", "add"),
    };
    let (proof, beside) = match &site.proof {
        Proof::PreShared(_) => (
            "    authby=secret\n".to_owned(),
            format!("{name}.secrets beside it, mode 600; then: ipsec restart"),
        ),
        // By the name that the .p12 file gives it: its subject.
        Proof::Certificates(pair) => (
            format!(
                "    authby=ecdsa\n    leftcert=\"CN={}\"\n    leftsendcert=always\n    rightca=%same\n",
                pair.here.common_name
            ),
            format!("mode 600; then: ipsec import {name}.p12, ipsec restart"),
        ),
    };
    let configuration = format!(
        "\
# {about}
# For libreswan: goes to /etc/ipsec.d/{name}.conf, {beside}

conn {name}
    ikev2=insist
{proof}    left=%defaultroute
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
    let beside = match &site.proof {
        Proof::PreShared(psk) => {
            let before = format!("{} {} : PSK \"", identity(here), identity(there));
            secret_file(format!("{name}.secrets"), &[&before, psk, "\"\n"])
        }
        Proof::Certificates(pair) => p12(site, pair, Encryption::Aes256)?,
    };
    Ok(vec![
        secret_file(format!("{name}.conf"), &[&configuration]),
        beside,
    ])
}

/// A name that is not to be resolved has an `@` before it.
fn identity(end: &End) -> String {
    match end.identity.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => format!("@{}", end.identity),
    }
}
