//! Cygnet's own one-file form.

use zeroize::Zeroizing;

use super::draft::{Draft, Said, is_sane};
use super::material::Material;
use super::{Error, File, Place};
use crate::bundle::{Bundle, VERSION};

pub(super) fn read(file: &File, material: &mut Material) -> Result<Draft, Error> {
    let place = Place::file(&file.name);
    let mut bundle: Bundle = serde_json::from_slice(&file.bytes).map_err(|error| {
        let place = Place::line(&file.name, error.line());
        Error::at(
            &place,
            format!("no Cygnet bundle that can be read: {error}; was it copied completely?"),
        )
    })?;
    if bundle.cygnet != VERSION {
        let text = format!(
            "a bundle of version {}, expected {VERSION}: update cygnet here, or make the file anew",
            bundle.cygnet
        );
        return Err(Error::at(&place, text));
    }
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
