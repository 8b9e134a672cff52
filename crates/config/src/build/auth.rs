//! How both ends prove themselves: certificates, keys, authorities.

use std::ops::Range;

use cygnet_ike::policy::{CredentialId, LocalAuth, RemoteAuth, TrustId};
use cygnet_pki::identity::certificate_contains;
use cygnet_wire::id::Identification;
use toml::Spanned;

use super::Builder;
use crate::raw::OneOrMany;
use crate::{CredentialFile, Trust, parse};

/// The keys by which one end proves itself and judges the other, wherever they are written.
pub(super) struct AuthKeys<'a> {
    pub(super) owner: &'a str,
    pub(super) span: Range<usize>,
    pub(super) certificate: Option<&'a Spanned<String>>,
    pub(super) key: Option<&'a Spanned<String>>,
    pub(super) ca: Option<&'a OneOrMany>,
    pub(super) crl: Option<&'a OneOrMany>,
    pub(super) psk: Option<&'a Spanned<String>>,
    pub(super) allow_sha1: bool,
    pub(super) rsa_pss: bool,
}

/// What [`Builder::auth`] finds out.
pub(super) struct Auth {
    pub(super) local: LocalAuth,
    pub(super) remote: RemoteAuth,
    /// DER of the own certificate's subject: the default identity.
    pub(super) subject: Option<Vec<u8>>,
}

impl Builder<'_> {
    pub(super) fn auth(&mut self, keys: &AuthKeys<'_>) -> Option<Auth> {
        if let Some(psk) = keys.psk {
            if let Some(other) = keys.certificate.or(keys.key) {
                self.mistake_with_help(
                    other.span(),
                    "both a pre-shared key and a certificate are given",
                    "keep either `psk`, or `certificate`, `key` and `ca`",
                );
            }
            let id = CredentialId(format!("{}/psk", keys.owner));
            let file = CredentialFile::Psk {
                path: psk.get_ref().clone(),
            };
            self.credentials.insert(id.clone(), file);
            return Some(Auth {
                local: LocalAuth::Psk(id.clone()),
                remote: RemoteAuth::Psk(id),
                subject: None,
            });
        }
        let (Some(certificate), Some(key), Some(ca)) = (keys.certificate, keys.key, keys.ca) else {
            let missing: Vec<&str> = [
                ("certificate", keys.certificate.is_none()),
                ("key", keys.key.is_none()),
                ("ca", keys.ca.is_none()),
            ]
            .into_iter()
            .filter_map(|(name, missing)| missing.then_some(name))
            .collect();
            self.mistake_with_help(
                keys.span.clone(),
                format!("`{}` lacks: {}", keys.owner, missing.join(", ")),
                "give `certificate`, `key` and `ca`, or `psk`",
            );
            return None;
        };
        let own = self.file(certificate, parse::certificate_chain);
        let anchors: Vec<Vec<u8>> = ca
            .iter()
            .filter_map(|w| self.file(w, parse::anchors))
            .flatten()
            .collect();
        let crls: Vec<Vec<u8>> = keys
            .crl
            .into_iter()
            .flat_map(OneOrMany::iter)
            .filter_map(|w| self.file(w, parse::crl))
            .collect();
        let own = own?;
        let authorities = anchors.iter().filter_map(|a| parse::key_hash(a)).collect();
        let credential = CredentialId(format!("{}/key", keys.owner));
        self.credentials.insert(
            credential.clone(),
            CredentialFile::Key {
                path: key.get_ref().clone(),
                certificate: certificate.get_ref().clone(),
            },
        );
        let trust = TrustId(keys.owner.to_owned());
        self.trusts.insert(trust.clone(), Trust { anchors, crls });
        Some(Auth {
            local: LocalAuth::Certificate {
                credential,
                key: own.key,
                pss: keys.rsa_pss,
                chain: own.chain,
                identities: own.identities,
            },
            remote: RemoteAuth::Certificate {
                trust,
                authorities,
                allow_sha1: keys.allow_sha1,
            },
            subject: Some(own.subject),
        })
    }

    /// An identity that our certificate does not hold is refused by every careful peer: better here,
    /// where it can be mended.
    pub(super) fn proven(
        &mut self,
        written: Option<&Spanned<String>>,
        identity: Option<&Identification>,
        local: &LocalAuth,
    ) {
        let LocalAuth::Certificate { chain, .. } = local else {
            return;
        };
        if let (Some(written), Some(identity), Some(leaf)) = (written, identity, chain.first())
            && let Err(error) = certificate_contains(leaf, identity.ty.0, &identity.data)
        {
            self.mistake(written.span(), error.to_string());
        }
    }

    /// Reads a public file and parses it; both kinds of failure are noted at the file's name.
    pub(super) fn file<T>(
        &mut self,
        path: &Spanned<String>,
        parse: impl FnOnce(&str, &[u8]) -> Result<T, String>,
    ) -> Option<T> {
        match (self.read)(path.get_ref()).and_then(|bytes| parse(path.get_ref(), &bytes)) {
            Ok(value) => Some(value),
            Err(message) => {
                self.mistake(path.span(), message);
                None
            }
        }
    }
}
