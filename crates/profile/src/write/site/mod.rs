//! A [`Site`] as files for one of its ends.

mod libreswan;
mod netmap;
mod routeros;
mod swanctl;

use cygnet_pki::pkcs12::{self, Contents, Encryption};
use zeroize::{Zeroize, Zeroizing};

use super::{Error, File, text};
use crate::bundle::{SiteBundle, VERSION};
use crate::site::{Certified, End, Pair, Proof, Site};

/// What an end runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateway {
    /// Cygnet: `cygnet import` takes the file.
    Cygnet,
    /// strongSwan.
    Swanctl,
    /// libreswan.
    Libreswan,
    /// MikroTik's RouterOS 7.
    Routeros,
}

impl Gateway {
    /// Whether it negotiates several networks of a side at once.
    #[must_use]
    pub fn takes_lists(self) -> bool {
        matches!(self, Self::Cygnet | Self::Swanctl)
    }

    /// Proposals for IKE that the end with Cygnet has to have beside such a gateway; empty: those it has anyway.
    #[must_use]
    pub fn ike(self) -> Vec<String> {
        match self {
            // It knows no combined mode for IKE.
            Self::Routeros => vec!["aes256-sha256-ecp384".to_owned()],
            Self::Cygnet | Self::Swanctl | Self::Libreswan => Vec::new(),
        }
    }
}

/// The files for `site.here`, which runs `gateway`. Each is a secret.
///
/// # Errors
/// [`Error::Text`] where a name or an address has letters that not all formats take as they are.
pub fn files(site: &Site, gateway: Gateway) -> Result<Vec<File>, Error> {
    for end in [&site.here, &site.there] {
        if let Some(address) = &end.address {
            text::host("an office's address", address)?;
        }
        text::host("an office's identity", &end.identity)?;
    }
    text::tunnel("the name of the tunnel", &site.name)?;
    match &site.proof {
        Proof::PreShared(psk) => text::secret("the shared secret", psk)?,
        Proof::Certificates(pair) => {
            text::tunnel("the name in the certificate", &pair.here.common_name)?;
        }
    }
    let mut files = match gateway {
        Gateway::Cygnet => vec![bundle(site)?],
        Gateway::Swanctl => swanctl::files(site),
        Gateway::Libreswan => libreswan::files(site)?,
        Gateway::Routeros => routeros::files(site)?,
    };
    if matches!(gateway, Gateway::Swanctl | Gateway::Libreswan) && site.here.is_mapped() {
        files.push(netmap::file(site));
    }
    Ok(files)
}

fn bundle(site: &Site) -> Result<File, Error> {
    let (mut psk, mut ca, mut certificate, mut key) = (None, None, None, None);
    match &site.proof {
        Proof::PreShared(secret) => psk = Some(secret.to_string()),
        Proof::Certificates(pair) => {
            ca = Some(pair.authority_pem());
            certificate = Some(pair.here.certificate_pem());
            key = Some(pair.here.key_pem().to_string());
        }
    }
    let mut bundle = SiteBundle {
        cygnet: VERSION,
        site: site.name.clone(),
        remote: site.there.called().to_owned(),
        remote_identity: site.there.identity.clone(),
        identity: site.here.identity.clone(),
        psk,
        ca,
        certificate,
        key,
        local_networks: site.here.own(),
        local_map: match site.here.is_mapped() {
            true => site.here.shown(),
            false => Vec::new(),
        },
        remote_networks: site.there.shown(),
        on_demand: site.on_demand,
    };
    // Large enough at once, so that no copy of the secret is left behind by growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(64 * 1024));
    let written = serde_json::to_writer_pretty(&mut *bytes, &bundle);
    bundle.psk.zeroize();
    bundle.key.zeroize();
    written.map_err(|error| Error::Format {
        format: "Cygnet file",
        why: error.to_string(),
    })?;
    bytes.push(b'\n');
    Ok(File::secret(format!("{}.cygnet", site.name), bytes))
}

/// Kept in one allocation, which is wiped.
fn secret_file(path: String, parts: &[&str]) -> File {
    let mut bytes = Zeroizing::new(Vec::with_capacity(parts.iter().map(|it| it.len()).sum()));
    for part in parts {
        bytes.extend_from_slice(part.as_bytes());
    }
    File::secret(path, bytes)
}

/// Certificate, key and authority of the end that the files are for, as one file under a password.
fn p12(site: &Site, pair: &Pair, encryption: Encryption) -> Result<File, Error> {
    let own: &Certified = &pair.here;
    let contents = Contents {
        name: &own.common_name,
        certificate: &own.certificate,
        key: &own.key,
        authority: &pair.authority,
    };
    let bytes = pkcs12::write(&contents, &pair.p12_password, encryption)?;
    Ok(File::secret(format!("{}.p12", site.name), bytes))
}

fn list(networks: &[ipnet::IpNet], separator: &str) -> String {
    let texts: Vec<String> = networks.iter().map(ToString::to_string).collect();
    texts.join(separator)
}

/// Who the offices are, in a comment.
fn about(site: &Site) -> String {
    let side = |end: &End| {
        let networks = end.networks.iter().map(|net| match net.own == net.shown {
            true => net.own.to_string(),
            false => format!("{} (there known as {})", net.own, net.shown),
        });
        networks.collect::<Vec<_>>().join(", ")
    };
    format!(
        "this office {}, {}; the other office {}, {}",
        site.here.identity,
        side(&site.here),
        site.there.identity,
        side(&site.there)
    )
}
