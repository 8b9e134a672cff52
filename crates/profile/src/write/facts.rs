//! The profile as every format needs it: texts checked, proposals parsed, certificates as PEM.

use std::time::Duration;

use cygnet_crypto::signature::{KeyKind, VerifyingKey};
use cygnet_crypto::suite::proposal::{EspProposal, IkeProposal};
use cygnet_pki::authority::to_pem;
use cygnet_pki::identity::public_key_info;
use cygnet_pki::pkcs12::{self, Contents, Encryption};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Error, text};
use crate::{Login, Profile};

pub(super) struct Facts<'a> {
    pub(super) profile: &'a Profile,
    /// `USER.DEVICE`: the name of files and connections.
    pub(super) stem: String,
    pub(super) ike: Vec<IkeProposal>,
    pub(super) esp: Vec<EspProposal>,
    /// The authority's certificate, PEM.
    pub(super) ca: String,
    /// Kind of the authority's key, which is that of the server's own.
    pub(super) server_kind: KeyKind,
    /// `None` for logins with a password.
    pub(super) certificate: Option<Certificate<'a>>,
}

/// A login by certificate.
pub(super) struct Certificate<'a> {
    /// The identity to say.
    pub(super) identity: &'a str,
    pub(super) der: &'a [u8],
    pub(super) pem: String,
    pub(super) kind: KeyKind,
    /// `None`: it never left the device.
    pub(super) key: Option<Key<'a>>,
}

/// The private key of a device.
pub(super) struct Key<'a> {
    /// PKCS#8, DER.
    der: &'a [u8],
    /// Certificate, key and authority as `.p12`, for what is new enough.
    pub(super) p12: Zeroizing<Vec<u8>>,
    /// The same, for importers that know only the old encryption.
    pub(super) legacy_p12: Zeroizing<Vec<u8>>,
}

impl<'a> Facts<'a> {
    pub(super) fn of(profile: &'a Profile) -> Result<Self, Error> {
        text::name("the user's name", &profile.user)?;
        text::name("the device's name", &profile.device)?;
        text::host("the server's address", &profile.remote)?;
        text::identity("the server's identity", &profile.remote_identity)?;
        text::printable("the title", &profile.title, 200)?;
        text::printable("the authority's name", &profile.authority.common_name, 256)?;
        for domain in &profile.domains {
            text::host("a domain", domain)?;
        }
        for ssid in &profile.on_demand.trusted_ssids {
            text::check_ssid(ssid)?;
        }
        let server_kind = key_kind("the authority's", &profile.authority.certificate)?;
        let stem = format!("{}.{}", profile.user, profile.device);
        Ok(Self {
            profile,
            ike: parse(&profile.ike)?,
            esp: parse(&profile.esp)?,
            server_kind,
            ca: to_pem("CERTIFICATE", &profile.authority.certificate),
            certificate: match &profile.login {
                Login::Password => None,
                Login::Certificate {
                    identity,
                    certificate,
                    key,
                    p12_password,
                } => {
                    text::identity("the device's identity", identity)?;
                    let kind = key_kind("the device's", certificate)?;
                    let key = match key {
                        None => None,
                        Some(der) => {
                            let contents = Contents {
                                name: &stem,
                                certificate,
                                key: der,
                                authority: &profile.authority.certificate,
                            };
                            Some(Key::of(&contents, der, p12_password)?)
                        }
                    };
                    Some(Certificate {
                        identity,
                        pem: to_pem("CERTIFICATE", certificate),
                        kind,
                        key,
                        der: certificate,
                    })
                }
            },
            stem,
        })
    }

    /// An identifier that stays the same for this device and `part`, however often its files are made.
    pub(super) fn uuid(&self, part: &str) -> Uuid {
        let ours = Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"profile.cygnet.internal");
        let device = Uuid::new_v5(&ours, self.profile.stable_id.as_bytes());
        Uuid::new_v5(&device, part.as_bytes())
    }

    /// After how long a device rekeys its IKE SA: before the server's own lifetime ends.
    pub(super) fn ike_rekey(&self) -> Duration {
        self.profile.ike_lifetime / 4 * 3
    }

    /// The same for a Child SA.
    pub(super) fn child_rekey(&self) -> Duration {
        self.profile.child_lifetime / 4 * 3
    }

    /// The device's private key, if there is one and it is here.
    pub(super) fn key(&self) -> Option<&Key<'a>> {
        self.certificate.as_ref()?.key.as_ref()
    }

    /// What is reached through the tunnel; everything, if nothing is named.
    pub(super) fn networks(&self) -> Vec<String> {
        match self.profile.networks.as_slice() {
            [] => vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()],
            some => some.iter().map(ToString::to_string).collect(),
        }
    }

    /// Whether only some networks are reached through the tunnel.
    pub(super) fn is_split(&self) -> bool {
        !self.profile.networks.is_empty()
    }
}

impl<'a> Key<'a> {
    fn of(contents: &Contents<'_>, der: &'a [u8], password: &str) -> Result<Self, Error> {
        text::printable("the password of the .p12 files", password, 256)?;
        Ok(Self {
            der,
            p12: pkcs12::write(contents, password, Encryption::Aes256)?,
            legacy_p12: pkcs12::write(contents, password, Encryption::TripleDes)?,
        })
    }

    pub(super) fn pem(&self) -> Zeroizing<String> {
        Zeroizing::new(to_pem("PRIVATE KEY", self.der))
    }

    pub(super) fn pem_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.pem().as_bytes().to_vec())
    }
}

fn key_kind(whose: &'static str, der: &[u8]) -> Result<KeyKind, Error> {
    let wrong = |why: String| Error::Certificate { whose, why };
    let spki = public_key_info(der).map_err(|error| wrong(error.to_string()))?;
    let key = VerifyingKey::from_spki_der(&spki).map_err(|error| wrong(error.to_string()))?;
    Ok(key.kind())
}

fn parse<T: std::str::FromStr>(proposals: &[String]) -> Result<Vec<T>, T::Err> {
    proposals.iter().map(|text| text.trim().parse()).collect()
}
