//! `.mobileconfig`: what Algo and others hand to iPhones and Macs.

use std::io::Cursor;
use std::time::Duration;

use plist::{Dictionary, Value};
use zeroize::{Zeroize, Zeroizing};

use super::draft::{Draft, Login, Said, is_sane};
use super::material::{Material, Secret, SecretKind};
use super::proposals::Apple;
use super::{Error, File, Note, Place};

/// Lists and dictionaries in one file. Freed one within the other, many more would be too deep for the stack.
const COLLECTIONS_MAX: usize = 512;

/// A property list with passwords and keys in it, which go when it does.
struct Wiped(Value);

impl Drop for Wiped {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// No deeper than [`COLLECTIONS_MAX`].
fn wipe(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Dictionary(items) => items.values_mut().for_each(wipe),
        Value::Data(bytes) => bytes.zeroize(),
        Value::String(text) => text.zeroize(),
        _ => {}
    }
}

/// Elements that may be lists or dictionaries, whatever prefix their names have; rather too many than too few.
fn collections(xml: &str) -> usize {
    let names = xml.split('<').skip(1).map(|element| {
        let end = element.find(|c: char| c == '>' || c.is_ascii_whitespace());
        element.get(..end.unwrap_or(element.len())).unwrap_or("")
    });
    names
        .filter(|name| !name.starts_with('/'))
        .filter(|name| name.contains("array") || name.contains("dict"))
        .count()
}

pub(super) fn read(file: &File, material: &mut Material) -> Result<Draft, Error> {
    let place = Place::file(&file.name);
    let refuse = |text: &str| Error::at(&place, text);
    // What is counted has to be what is read.
    let xml = std::str::from_utf8(&file.bytes).ok();
    let xml = xml.filter(|it| !it.contains('\0'));
    let xml = xml.ok_or_else(|| refuse("expected a property list in UTF-8"))?;
    if collections(xml) > COLLECTIONS_MAX {
        return Err(refuse(
            "more than 512 lists and dictionaries: is it a profile?",
        ));
    }
    let root = Value::from_reader_xml(Cursor::new(file.bytes.as_slice()))
        .map(Wiped)
        .map_err(|error| {
            refuse(&format!(
                "no property list that can be read: {error}; was it copied completely?"
            ))
        })?;
    let payloads = root
        .0
        .as_dictionary()
        .and_then(|it| it.get("PayloadContent"))
        .and_then(Value::as_array)
        .ok_or_else(|| {
            refuse("expected a profile with PayloadContent, found another property list")
        })?;
    let payloads: Vec<&Dictionary> = payloads.iter().filter_map(Value::as_dictionary).collect();
    let of_type = |wanted: &'static str| {
        let all = payloads.iter().copied();
        all.filter(move |it| text(it, "PayloadType") == Some(wanted))
    };
    let vpn = of_type("com.apple.vpn.managed").find(|it| text(it, "VPNType") == Some("IKEv2"));
    let vpn = vpn.ok_or_else(|| refuse("no VPN of the kind IKEv2 is in this profile"))?;
    let ikev2 = vpn
        .get("IKEv2")
        .and_then(Value::as_dictionary)
        .ok_or_else(|| refuse("the VPN in this profile has no IKEv2 settings"))?;
    let mut draft = Draft {
        title: text(vpn, "UserDefinedName").map(str::to_owned),
        virtual_address: true,
        ..Draft::default()
    };
    let required = |key: &str| {
        let value = text(ikev2, key).filter(|it| is_sane(it));
        value.ok_or_else(|| refuse(&format!("expected {key} in its IKEv2 settings")))
    };
    draft.remote = vec![required("RemoteAddress")?.to_owned()];
    draft.title.get_or_insert_with(|| draft.remote.concat());
    draft.remote_identity = said(ikev2, "RemoteIdentifier", &place);
    draft.identity = said(ikev2, "LocalIdentifier", &place);
    draft.mtu = number(ikev2, "MTU").and_then(|it| u16::try_from(it).ok());
    draft.login = login(ikev2, &place)?;
    if let Some(secret) = text(ikev2, "SharedSecret") {
        material.secrets.push(Secret {
            kind: SecretKind::PreShared,
            ids: Vec::new(),
            value: Zeroizing::new(secret.as_bytes().to_vec()),
        });
    }
    sas(ikev2, &place, &mut draft);
    on_demand(ikev2, &place, &mut draft);
    for root in of_type("com.apple.security.root").chain(of_type("com.apple.security.pem")) {
        // Algo today puts PEM where Apple has DER.
        if let Some(bytes) = data(root, "PayloadContent") {
            material.trust(&place, bytes)?;
        }
    }
    let wanted = text(ikev2, "PayloadCertificateUUID");
    let mut identities: Vec<&Dictionary> = of_type("com.apple.security.pkcs12").collect();
    if let Some(named) = identities
        .iter()
        .position(|it| wanted.is_some() && text(it, "PayloadUUID") == wanted)
    {
        identities.swap(0, named);
    }
    if let Some(identity) = identities
        .first()
        .filter(|_| matches!(draft.login, Login::Certificate))
    {
        let bytes = data(identity, "PayloadContent");
        let bytes =
            bytes.ok_or_else(|| refuse("its com.apple.security.pkcs12 has no PayloadContent"))?;
        let password = text(identity, "Password").map(|it| Zeroizing::new(it.to_owned()));
        material.add_p12(&file.name, Zeroizing::new(bytes.to_vec()), password);
    }
    Ok(draft)
}

fn login(ikev2: &Dictionary, place: &Place) -> Result<Login, Error> {
    // Without AuthName the device asks for the user name. With a certificate of its own it is EAP-TLS.
    let by_name = flag(ikev2, "ExtendedAuthEnabled")
        && (ikev2.contains_key("AuthName") || !ikev2.contains_key("PayloadCertificateUUID"));
    match text(ikev2, "AuthenticationMethod") {
        // With EAP this says how the server proves itself.
        _ if by_name => Ok(Login::User(text(ikev2, "AuthName").map(str::to_owned))),
        Some("Certificate") | None => Ok(Login::Certificate),
        Some("SharedSecret") => Ok(Login::PreShared),
        Some(other) => Err(Error::at(
            place,
            format!("AuthenticationMethod {other} is not spoken here: expected Certificate"),
        )),
    }
}

/// The algorithms of both SAs; where they are left out, Apple's defaults of old, which nobody wants back.
fn sas(ikev2: &Dictionary, place: &Place, draft: &mut Draft) {
    let pfs = flag(ikev2, "EnablePFS");
    let mut take = |key: &str, ike: bool| {
        let parameters = ikev2.get(key).and_then(Value::as_dictionary)?;
        let apple = Apple {
            encryption: text(parameters, "EncryptionAlgorithm").unwrap_or("AES-256"),
            integrity: text(parameters, "IntegrityAlgorithm").unwrap_or("SHA2-256"),
            group: number(parameters, "DiffieHellmanGroup").unwrap_or(14),
        };
        let lifetime = number(parameters, "LifeTimeInMinutes");
        let lifetime = lifetime
            .and_then(|it| it.checked_mul(60))
            .map(Duration::from_secs);
        let proposal = if ike { apple.ike() } else { apple.esp(pfs) };
        let list = match proposal {
            Ok(proposal) => vec![proposal],
            Err(error) => {
                let text = format!("{key}: {error}; Cygnet's own proposals are offered instead");
                draft.notes.push(Note::NotRead(place.clone(), text));
                Vec::new()
            }
        };
        Some((list, lifetime))
    };
    let ike = take("IKESecurityAssociationParameters", true);
    let child = take("ChildSecurityAssociationParameters", false);
    if let Some((list, lifetime)) = ike {
        (draft.ike, draft.ike_lifetime) = (list, lifetime);
    }
    if let Some((list, lifetime)) = child {
        (draft.esp, draft.child_lifetime) = (list, lifetime);
    }
}

fn on_demand(ikev2: &Dictionary, place: &Place, draft: &mut Draft) {
    let rules = ikev2.get("OnDemandRules").and_then(Value::as_array);
    if rules.is_some_and(|it| !it.is_empty()) {
        let text = "OnDemandRules: the tunnel comes up by itself and stays up, on whatever network";
        draft
            .notes
            .push(Note::NotObeyed(place.clone(), text.into()));
    }
}

fn said(dictionary: &Dictionary, key: &str, place: &Place) -> Option<Said<String>> {
    let value = text(dictionary, key).filter(|it| is_sane(it))?;
    Some(Said {
        value: value.to_owned(),
        place: place.clone(),
    })
}

fn text<'a>(dictionary: &'a Dictionary, key: &str) -> Option<&'a str> {
    dictionary.get(key).and_then(Value::as_string)
}

fn data<'a>(dictionary: &'a Dictionary, key: &str) -> Option<&'a [u8]> {
    dictionary.get(key).and_then(Value::as_data)
}

fn number(dictionary: &Dictionary, key: &str) -> Option<u64> {
    dictionary.get(key).and_then(Value::as_unsigned_integer)
}

/// `true`, or 1, as both are in use.
fn flag(dictionary: &Dictionary, key: &str) -> bool {
    let value = dictionary.get(key);
    value.and_then(Value::as_boolean) == Some(true) || number(dictionary, key) == Some(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_and_keys_are_wiped_however_deep_they_are() {
        let mut payload = Dictionary::new();
        payload.insert("Password".into(), Value::from("secret"));
        payload.insert("PayloadContent".into(), Value::Data(vec![7; 32]));
        let mut list = Value::Array(vec![Value::Dictionary(payload)]);
        wipe(&mut list);
        let payload = list.as_array().and_then(|it| it.first());
        let payload = payload.and_then(Value::as_dictionary).expect("still there");
        assert_eq!(text(payload, "Password"), Some(""));
        assert_eq!(data(payload, "PayloadContent"), Some([].as_slice()));
    }
}
