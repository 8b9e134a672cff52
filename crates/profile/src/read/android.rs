//! `.sswan`: the profile of strongSwan's app.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::draft::{Draft, Login, Said, is_sane, networks};
use super::material::Material;
use super::proposals;
use super::{Error, File, Note, Place};

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Profile {
    name: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    remote: Remote,
    #[serde(default)]
    local: Local,
    ike_proposal: Option<String>,
    esp_proposal: Option<String>,
    dns_servers: Option<Value>,
    mtu: Option<u16>,
    #[serde(default)]
    split_tunneling: Split,
    apps: Option<Value>,
    excluded_apps: Option<Value>,
}

#[derive(Deserialize)]
struct Remote {
    addr: String,
    port: Option<u16>,
    id: Option<String>,
    cert: Option<String>,
}

#[derive(Default, Deserialize)]
struct Local {
    p12: Option<Zeroizing<String>>,
    id: Option<String>,
    eap_id: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Split {
    subnets: Option<Value>,
    excluded: Option<Value>,
}

pub(super) fn read(file: &File, material: &mut Material) -> Result<Draft, Error> {
    let place = Place::file(&file.name);
    let profile: Profile = serde_json::from_slice(&file.bytes).map_err(|error| {
        // A message of serde_json tells what it expected, never what is in the file.
        let place = Place::line(&file.name, error.line());
        Error::at(
            &place,
            format!("no profile of strongSwan's app that can be read: {error}"),
        )
    })?;
    let refuse = |text: &str| Error::at(&place, text);
    let mut draft = Draft {
        title: Some(
            profile
                .name
                .clone()
                .unwrap_or_else(|| profile.remote.addr.clone()),
        ),
        virtual_address: true,
        remote_port: profile.remote.port,
        mtu: profile.mtu,
        ..Draft::default()
    };
    if !is_sane(&profile.remote.addr) {
        return Err(refuse("expected remote.addr, the server's name or address"));
    }
    draft.remote = vec![profile.remote.addr.clone()];
    let said = |text: &Option<String>| {
        let value = text.clone().filter(|it| is_sane(it))?;
        let place = place.clone();
        Some(Said { value, place })
    };
    draft.remote_identity = said(&profile.remote.id);
    draft.identity = said(&profile.local.id);
    draft.login = match profile.kind.as_str() {
        "ikev2-cert" => Login::Certificate,
        "ikev2-eap" => {
            let name = profile.local.eap_id.clone();
            Login::User(name.or_else(|| profile.local.id.clone()))
        }
        other => {
            let text =
                format!("the type {other} is not spoken here: expected ikev2-cert or ikev2-eap");
            return Err(refuse(&text));
        }
    };
    if let Some(list) = &profile.ike_proposal {
        draft.ike = proposals::ike(list, &place, &mut draft.notes);
    }
    if let Some(list) = &profile.esp_proposal {
        draft.esp = proposals::esp(list, &place, &mut draft.notes);
    }
    let subnets = list(profile.split_tunneling.subnets.as_ref()).join(",");
    draft.networks = networks(&subnets, &place, &mut draft.notes);
    for resolver in list(profile.dns_servers.as_ref()) {
        match resolver.parse() {
            Ok(address) => draft.dns.push(address),
            Err(_) => {
                let text = format!("dns-servers: {resolver} is no address; it is left out");
                draft.notes.push(Note::NotRead(place.clone(), text));
            }
        }
    }
    for (what, value) in [
        (
            "split-tunneling.excluded",
            &profile.split_tunneling.excluded,
        ),
        ("apps", &profile.apps),
        ("excluded-apps", &profile.excluded_apps),
    ] {
        if !list(value.as_ref()).is_empty() {
            let text = format!("{what} is not done here; it is left out");
            draft.notes.push(Note::NotRead(place.clone(), text));
        }
    }
    if let Some(text) = &profile.remote.cert {
        let der =
            decoded(text).ok_or_else(|| refuse("remote.cert: expected a certificate in base64"))?;
        material.trust(&place, &der)?;
    }
    if let Some(text) = &profile.local.p12
        && matches!(draft.login, Login::Certificate)
    {
        let bytes =
            decoded(text).ok_or_else(|| refuse("local.p12: expected a PKCS#12 file in base64"))?;
        material.add_p12(&file.name, bytes, None);
    }
    Ok(draft)
}

/// Base64, with the line ends that Algo leaves in it.
fn decoded(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let text: Zeroizing<String> =
        Zeroizing::new(text.chars().filter(|c| !c.is_whitespace()).collect());
    STANDARD.decode(text.as_bytes()).ok().map(Zeroizing::new)
}

/// Lists come as lists, or as texts with spaces between.
fn list(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Array(items)) => {
            let texts = items.iter().filter_map(Value::as_str);
            texts.take(64).map(str::to_owned).collect()
        }
        Some(Value::String(text)) => {
            let words = text.split([' ', ',']).filter(|it| !it.is_empty());
            words.take(64).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}
