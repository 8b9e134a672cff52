//! `.sswan`: a profile for the strongSwan app on Android.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::proposals::{strongswan_esp, strongswan_ike};
use super::{Error, File, facts::Facts};

pub(super) fn file(facts: &Facts<'_>) -> Result<File, Error> {
    let profile = facts.profile;
    let mut local = Map::new();
    let kind = match &facts.certificate {
        None => {
            local.insert("eap_id".into(), json!(profile.user));
            "ikev2-eap"
        }
        Some(certificate) => {
            local.insert("id".into(), json!(certificate.identity));
            // Without one, the app lets the person choose a certificate that is already on the device.
            if let Some(key) = &certificate.key {
                local.insert("p12".into(), json!(STANDARD.encode(&*key.legacy_p12)));
            }
            "ikev2-cert"
        }
    };
    let mut root = json!({
        "uuid": facts.uuid("android").to_string(),
        "name": profile.title,
        "type": kind,
        "remote": {
            "addr": profile.remote,
            "id": profile.remote_identity,
            // Android's own list does not hold the authority: without this the server is not trusted.
            "cert": STANDARD.encode(&profile.authority.certificate),
        },
        "local": local,
    });
    // The app takes one proposal of each kind.
    if let Some(ike) = strongswan_ike(&facts.ike).into_iter().next() {
        set(&mut root, "ike-proposal", json!(ike));
    }
    if let Some(esp) = strongswan_esp(&facts.esp).into_iter().next() {
        set(&mut root, "esp-proposal", json!(esp));
    }
    if facts.is_split() {
        set(
            &mut root,
            "split-tunneling",
            json!({ "subnets": facts.networks() }),
        );
    }
    let mut bytes = serde_json::to_vec_pretty(&root).map_err(|error| Error::Format {
        format: ".sswan profile",
        why: error.to_string(),
    })?;
    bytes.push(b'\n');
    let path = format!("{}.sswan", facts.stem);
    Ok(match facts.key() {
        Some(_) => File::secret(path, Zeroizing::new(bytes)),
        None => File::public(path, bytes),
    })
}

fn set(root: &mut Value, key: &str, value: Value) {
    if let Some(root) = root.as_object_mut() {
        root.insert(key.to_owned(), value);
    }
}
