//! A device's certificate and key as they are, PEM.

use cygnet_pki::authority::to_pem;
use cygnet_profile::model::{Login, Profile};
use zeroize::Zeroizing;

/// One file for a device.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) bytes: Zeroizing<Vec<u8>>,
    pub(crate) secret: bool,
}

/// The authority's certificate, and the device's certificate and key.
pub(crate) fn files(profile: &Profile) -> Vec<File> {
    let file = |path: String, label: &str, der: &[u8]| File {
        path,
        bytes: Zeroizing::new(Zeroizing::new(to_pem(label, der)).as_bytes().to_vec()),
        secret: label == "PRIVATE KEY",
    };
    let mut out = vec![file(
        "ca.crt".into(),
        "CERTIFICATE",
        &profile.authority.certificate,
    )];
    if let Login::Certificate {
        certificate, key, ..
    } = &profile.login
    {
        out.push(file(
            format!("{}.crt", profile.device),
            "CERTIFICATE",
            certificate,
        ));
        if let Some(key) = key {
            out.push(file(format!("{}.key", profile.device), "PRIVATE KEY", key));
        }
    }
    out
}
