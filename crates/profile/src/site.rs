//! A tunnel between two offices, as each of them has to know it.

use std::sync::Arc;

use cygnet_pki::authority::to_pem;
use ipnet::IpNet;
use zeroize::Zeroizing;

/// Both ends. What is written of it is for [`Site::here`]; [`Site::mirrored`] is the same for the other end.
#[derive(Clone)]
pub struct Site {
    /// What both call it: 1 to 32 letters, digits, `-` and `_`.
    pub name: String,
    /// How each proves to be who it is.
    pub proof: Proof,
    /// This end.
    pub here: End,
    /// The other end.
    pub there: End,
    /// Up when a packet wants it; otherwise always.
    pub on_demand: bool,
    /// Proposals for IKE, where Cygnet's own do not serve the other end.
    pub ike: Vec<String>,
}

/// How both ends prove themselves.
#[derive(Clone)]
pub enum Proof {
    /// By a secret both know: letters and digits alone, so that it is the same in every format.
    PreShared(Zeroizing<String>),
    /// By certificates.
    Certificates(Pair),
}

/// The certificates of both ends, and of who vouches for them.
#[derive(Clone)]
pub struct Pair {
    /// The authority's, DER.
    pub authority: Vec<u8>,
    /// Of [`Site::here`].
    pub here: Arc<Certified>,
    /// Of [`Site::there`].
    pub there: Arc<Certified>,
    /// What a `.p12` file of it is locked with: letters, digits and `-`.
    pub p12_password: Arc<Zeroizing<String>>,
}

/// What an end proves itself with.
pub struct Certified {
    /// Common name of the certificate's subject, by which programs keep it: letters, digits, `-` and `_`.
    pub common_name: String,
    /// The certificate, DER, for the end's identity.
    pub certificate: Vec<u8>,
    /// Its private key, PKCS#8 DER.
    pub key: Zeroizing<Vec<u8>>,
}

/// An office.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Name or address by which the other one calls it; `None`: it cannot be called.
    pub address: Option<String>,
    /// Who it proves to be: a host name or an address.
    pub identity: String,
    /// What is behind it.
    pub networks: Vec<Network>,
}

/// A network of an office.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// As it is there.
    pub own: IpNet,
    /// As the other office knows it; of the same family and length.
    pub shown: IpNet,
}

impl Site {
    /// As the other end sees it.
    #[must_use]
    pub fn mirrored(&self) -> Self {
        Self {
            here: self.there.clone(),
            there: self.here.clone(),
            proof: match &self.proof {
                Proof::Certificates(pair) => Proof::Certificates(Pair {
                    here: Arc::clone(&pair.there),
                    there: Arc::clone(&pair.here),
                    ..pair.clone()
                }),
                secret @ Proof::PreShared(_) => secret.clone(),
            },
            ..self.clone()
        }
    }
}

impl Pair {
    /// The authority's certificate, PEM.
    pub(crate) fn authority_pem(&self) -> String {
        to_pem("CERTIFICATE", &self.authority)
    }
}

impl Certified {
    /// The certificate, PEM.
    pub(crate) fn certificate_pem(&self) -> String {
        to_pem("CERTIFICATE", &self.certificate)
    }

    /// The key, PEM.
    pub(crate) fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(to_pem("PRIVATE KEY", &self.key))
    }
}

impl End {
    /// Its networks as the other office knows them.
    #[must_use]
    pub fn shown(&self) -> Vec<IpNet> {
        self.networks.iter().map(|net| net.shown).collect()
    }

    /// Its networks as they are there.
    #[must_use]
    pub fn own(&self) -> Vec<IpNet> {
        self.networks.iter().map(|net| net.own).collect()
    }

    /// Whether the other office knows any of them by other addresses.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        self.networks.iter().any(|net| net.own != net.shown)
    }

    /// What `cygnet.toml` calls a peer that is waited for.
    pub(crate) fn called(&self) -> &str {
        self.address.as_deref().unwrap_or("any")
    }
}
