//! Cygnet's own one-file form.

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use zeroize::Zeroizing;

use super::draft::{Draft, Login, Said, is_sane};
use super::material::{Material, Secret, SecretKind};
use super::{Error, File, Place};
use crate::bundle::{Bundle, SiteBundle, VERSION};

/// What tells a device's file from an office's.
#[derive(Deserialize)]
struct Which {
    cygnet: u32,
    #[serde(default)]
    site: Option<IgnoredAny>,
}

pub(super) fn read(file: &File, material: &mut Material) -> Result<Draft, Error> {
    let place = Place::file(&file.name);
    let which: Which = parsed(file)?;
    if which.cygnet != VERSION {
        let text = format!(
            "a bundle of version {}, expected {VERSION}: update cygnet here, or make the file anew",
            which.cygnet
        );
        return Err(Error::at(&place, text));
    }
    if which.site.is_some() {
        return site(&place, parsed(file)?, material);
    }
    let mut bundle: Bundle = parsed(file)?;
    if !is_sane(&bundle.remote) {
        return Err(Error::at(
            &place,
            "expected remote, the server's name or address",
        ));
    }
    let said = |value: &String| {
        let (value, place) = (value.clone(), place.clone());
        is_sane(&value).then_some(Said { value, place })
    };
    material.trust(&place, bundle.ca.as_bytes())?;
    material.add_certificate(&place, bundle.certificate.as_bytes())?;
    if let Some(key) = bundle.key.take().map(Zeroizing::new) {
        material.add_key(&place, key.as_bytes())?;
    }
    Ok(Draft {
        remote_identity: said(&bundle.remote_identity),
        identity: said(&bundle.identity),
        virtual_address: true,
        networks: bundle.networks,
        dns: bundle.dns,
        title: Some(bundle.name),
        remote: vec![bundle.remote],
        ..Draft::default()
    })
}

fn parsed<T: DeserializeOwned>(file: &File) -> Result<T, Error> {
    serde_json::from_slice(&file.bytes).map_err(|error| {
        let place = Place::line(&file.name, error.line());
        Error::at(
            &place,
            format!("no Cygnet bundle that can be read: {error}; was it copied completely?"),
        )
    })
}

/// One end of a tunnel between two offices. That its networks fit together is judged with the configuration.
fn site(place: &Place, bundle: SiteBundle, material: &mut Material) -> Result<Draft, Error> {
    let (psk, key) = (
        bundle.psk.map(Zeroizing::new),
        bundle.key.map(Zeroizing::new),
    );
    let texts = [&bundle.remote, &bundle.remote_identity, &bundle.identity];
    if !texts.into_iter().all(|it| is_sane(it)) {
        return Err(Error::at(
            place,
            "expected remote, remote_identity and identity, each a text on one line",
        ));
    }
    if bundle.local_networks.is_empty() || bundle.remote_networks.is_empty() {
        return Err(Error::at(
            place,
            "expected networks of both offices in local_networks and remote_networks",
        ));
    }
    let login = match (psk, bundle.ca, bundle.certificate, key) {
        (Some(psk), None, None, None) if is_sane(&psk) => {
            material.secrets.push(Secret {
                kind: SecretKind::PreShared,
                ids: Vec::new(),
                value: Zeroizing::new(psk.as_bytes().to_vec()),
            });
            Login::PreShared
        }
        (None, Some(ca), Some(certificate), Some(key)) => {
            material.trust(place, ca.as_bytes())?;
            material.add_certificate(place, certificate.as_bytes())?;
            material.add_key(place, key.as_bytes())?;
            Login::Certificate
        }
        _ => {
            return Err(Error::at(
                place,
                "expected psk, a text on one line, or ca, certificate and key",
            ));
        }
    };
    let said = |value: String| {
        let place = place.clone();
        Some(Said { value, place })
    };
    Ok(Draft {
        title: Some(bundle.site),
        remote: vec![bundle.remote],
        remote_identity: said(bundle.remote_identity),
        identity: said(bundle.identity),
        login,
        local_networks: bundle.local_networks,
        local_map: bundle.local_map,
        networks: bundle.remote_networks,
        on_demand: bundle.on_demand,
        ..Draft::default()
    })
}
