//! How both ends prove themselves: certificates, keys, authorities.

use std::ops::Range;

use cygnet_ike::policy::{CredentialId, EapLogin, EapMethods, LocalAuth, RemoteAuth, TrustId};
use cygnet_pki::identity::certificate_contains;
use cygnet_wire::id::Identification;
use toml::Spanned;

use super::Builder;
use crate::raw::OneOrMany;
use crate::{CredentialFile, SERVER, Trust, parse};

/// The keys by which one end proves itself and judges the other, wherever they are written.
pub(super) struct AuthKeys<'a> {
    pub(super) owner: &'a str,
    pub(super) span: Range<usize>,
    pub(super) certificate: Option<&'a Spanned<String>>,
    pub(super) key: Option<&'a Spanned<String>>,
    pub(super) ca: Option<&'a OneOrMany>,
    pub(super) crl: Option<&'a OneOrMany>,
    pub(super) psk: Option<&'a Spanned<String>>,
    pub(super) log_in: LogIn<'a>,
    pub(super) allow_sha1: bool,
    pub(super) rsa_pss: bool,
}

impl AuthKeys<'_> {
    /// The header of the section that they are written in.
    fn section(&self) -> String {
        match self.owner {
            SERVER => format!("[{SERVER}]"),
            tunnel => format!("[tunnel.{tunnel}]"),
        }
    }
}

/// The keys of a log-in by EAP.
pub(super) enum LogIn<'a> {
    /// Peers log in with us: who may.
    Served {
        passwords: Option<&'a Spanned<String>>,
        tls: Option<&'a Spanned<bool>>,
    },
    /// We do.
    Own {
        user: Option<&'a Spanned<String>>,
        password: Option<&'a Spanned<String>>,
        method: Option<&'a Spanned<String>>,
    },
}

/// What [`Builder::auth`] finds out.
pub(super) struct Auth {
    pub(super) local: LocalAuth,
    pub(super) remote: RemoteAuth,
    pub(super) eap: EapMethods,
    /// DER of the own certificate's subject: the default identity.
    pub(super) subject: Option<Vec<u8>>,
}

impl Builder<'_> {
    pub(super) fn auth(&mut self, keys: &AuthKeys<'_>) -> Option<Auth> {
        let (passwords, tls) = match keys.log_in {
            LogIn::Own {
                user: None,
                password: None,
                method,
            } => {
                self.method(method, keys.psk);
                (None, None)
            }
            LogIn::Own {
                user,
                password,
                method,
            } => {
                if let Some(method) = method {
                    self.mistake_with_help(
                        method.span(),
                        "both a user name and `eap` are given",
                        "`user` and `password` log in by password, `eap = \"tls\"` with `certificate` and `key`: keep \
                         either",
                    );
                }
                return self.own_password(keys, user, password);
            }
            LogIn::Served { passwords, tls } => (passwords, tls.filter(|tls| *tls.get_ref())),
        };
        if let Some(psk) = keys.psk {
            if let Some(other) = keys.certificate.or(keys.key) {
                self.mistake_with_help(
                    other.span(),
                    "both a pre-shared key and a certificate are given",
                    "keep either `psk`, or `certificate`, `key` and `ca`",
                );
            }
            let log_in = passwords.map(Spanned::span).or(tls.map(Spanned::span));
            if let Some(log_in) = log_in {
                self.mistake_with_help(
                    log_in,
                    "both a pre-shared key and a log-in are given: a server where peers log in proves itself with a \
                     certificate",
                    "give `certificate`, `key` and `ca` in the place of `psk`",
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
                eap: EapMethods::default(),
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
                format!("{} lacks: {}", keys.section(), missing.join(", ")),
                "give `certificate`, `key` and `ca`, or `psk`",
            );
            return None;
        };
        let own = self.file(certificate, parse::certificate_chain);
        let remote = self.trust(keys, ca);
        let own = own?;
        let credential = CredentialId(format!("{}/key", keys.owner));
        self.credentials.insert(
            credential.clone(),
            CredentialFile::Key {
                path: key.get_ref().clone(),
                certificate: certificate.get_ref().clone(),
            },
        );
        let eap = EapMethods {
            passwords: passwords.map(|written| {
                let id = CredentialId(format!("{}/passwords", keys.owner));
                let path = written.get_ref().clone();
                self.credentials
                    .insert(id.clone(), CredentialFile::Passwords { path });
                id
            }),
            tls: tls.is_some(),
            shared: false,
        };
        Some(Auth {
            local: LocalAuth::Certificate {
                credential,
                key: own.key,
                pss: keys.rsa_pss,
                chain: own.chain,
                identities: own.identities,
            },
            remote,
            eap,
            subject: Some(own.subject),
        })
    }

    /// `eap` of a tunnel.
    fn method(&mut self, method: Option<&Spanned<String>>, psk: Option<&Spanned<String>>) {
        let Some(method) = method else { return };
        if method.get_ref() != "tls" {
            self.mistake_with_help(
                method.span(),
                format!("`{}` is no EAP method: expected \"tls\"", method.get_ref()),
                "for a user name and a password write `user` and `password`, without `eap`",
            );
        } else if psk.is_some() {
            self.mistake_with_help(
                method.span(),
                "both `eap` and a pre-shared key are given",
                "EAP-TLS takes `certificate`, `key` and `ca`",
            );
        }
    }

    /// We log in by a user name and a password, once the peer has proven itself with a certificate.
    fn own_password(
        &mut self,
        keys: &AuthKeys<'_>,
        user: Option<&Spanned<String>>,
        password: Option<&Spanned<String>>,
    ) -> Option<Auth> {
        if let Some(other) = keys.psk.or(keys.certificate).or(keys.key) {
            self.mistake_with_help(
                other.span(),
                "both a user name and another proof of identity are given",
                "keep either `user`, `password` and `ca`, or the keys of the other",
            );
        }
        let (Some(user), Some(password), Some(ca)) = (user, password, keys.ca) else {
            let missing: Vec<&str> = [
                ("user", user.is_none()),
                ("password", password.is_none()),
                ("ca", keys.ca.is_none()),
            ]
            .into_iter()
            .filter_map(|(name, missing)| missing.then_some(name))
            .collect();
            self.mistake_with_help(
                keys.span.clone(),
                format!("{} lacks: {}", keys.section(), missing.join(", ")),
                "a log-in by password takes `user`, `password` (the name of a file that holds it) and `ca` (who vouches \
                 for the server)",
            );
            return None;
        };
        let name = self.value(user, parse::user)?;
        let remote = self.trust(keys, ca);
        let credential = CredentialId(format!("{}/password", keys.owner));
        let path = password.get_ref().clone();
        self.credentials
            .insert(credential.clone(), CredentialFile::Password { path });
        Some(Auth {
            local: LocalAuth::Eap(EapLogin::Password {
                user: name,
                credential,
            }),
            remote,
            eap: EapMethods::default(),
            subject: None,
        })
    }

    /// Who vouches for the other end.
    fn trust(&mut self, keys: &AuthKeys<'_>, ca: &OneOrMany) -> RemoteAuth {
        let anchors: Vec<Vec<u8>> = ca
            .iter()
            .filter_map(|w| self.file(w, parse::anchors))
            .flatten()
            .collect();
        let (mut crls, mut crl_urls) = (Vec::new(), Vec::new());
        for written in keys.crl.into_iter().flat_map(OneOrMany::iter) {
            if parse::is_url(written.get_ref()) {
                crl_urls.extend(self.value(written, parse::crl_url));
            } else {
                crls.extend(self.file(written, parse::crl));
            }
        }
        let authorities = anchors.iter().filter_map(|a| parse::key_hash(a)).collect();
        let trust = TrustId(keys.owner.to_owned());
        let trusted = Trust {
            anchors,
            crls,
            crl_urls,
        };
        self.trusts.insert(trust.clone(), trusted);
        RemoteAuth::Certificate {
            trust,
            authorities,
            allow_sha1: keys.allow_sha1,
        }
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
