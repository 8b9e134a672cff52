//! What rustls is to do: both ends prove themselves, with keys that are not here, to those who judge elsewhere.

use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use cygnet_crypto::signature::{KeyKind, SignatureScheme as Scheme};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureAlgorithm, SignatureScheme,
};

use super::{Check, Credential, Sign};

/// One for all conversations.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(default_provider()));

pub(super) fn server(credential: Credential, check: PeerCheck) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_client_cert_verifier(Arc::new(check))
        .with_cert_resolver(Arc::new(certified(credential)));
    // A session that goes on would skip the judgement, which may be another by then.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

pub(super) fn client(credential: Credential, check: PeerCheck) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(check))
        .with_client_cert_resolver(Arc::new(certified(credential)));
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

fn certified(credential: Credential) -> SingleCertAndKey {
    let chain = credential.chain.into_iter().map(CertificateDer::from);
    let key = AskedKey {
        kind: credential.key,
        sign: credential.sign,
    };
    CertifiedKey::new(chain.collect(), Arc::new(key)).into()
}

/// A private key that somebody else holds.
struct AskedKey {
    kind: KeyKind,
    sign: Arc<Sign>,
}

/// Schemes of TLS, ours first, with the same of IKE.
const RSA: &[(SignatureScheme, Scheme)] = &[
    (SignatureScheme::RSA_PSS_SHA256, Scheme::RsaPssSha256),
    (SignatureScheme::RSA_PSS_SHA384, Scheme::RsaPssSha384),
    (SignatureScheme::RSA_PSS_SHA512, Scheme::RsaPssSha512),
    (SignatureScheme::RSA_PKCS1_SHA256, Scheme::RsaPkcs1Sha256),
    (SignatureScheme::RSA_PKCS1_SHA384, Scheme::RsaPkcs1Sha384),
    (SignatureScheme::RSA_PKCS1_SHA512, Scheme::RsaPkcs1Sha512),
];

impl SigningKey for AskedKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let ours: &[(SignatureScheme, Scheme)] = match self.kind {
            KeyKind::Rsa { .. } => RSA,
            KeyKind::EcdsaP256 => &[(SignatureScheme::ECDSA_NISTP256_SHA256, Scheme::EcdsaSha256)],
            KeyKind::EcdsaP384 => &[(SignatureScheme::ECDSA_NISTP384_SHA384, Scheme::EcdsaSha384)],
            KeyKind::EcdsaP521 => &[(SignatureScheme::ECDSA_NISTP521_SHA512, Scheme::EcdsaSha512)],
            KeyKind::Ed25519 => &[(SignatureScheme::ED25519, Scheme::Ed25519)],
        };
        let (tls, ike) = ours.iter().find(|(tls, _)| offered.contains(tls))?;
        Some(Box::new(AskedSigner {
            tls: *tls,
            ike: *ike,
            sign: Arc::clone(&self.sign),
        }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.kind {
            KeyKind::Rsa { .. } => SignatureAlgorithm::RSA,
            KeyKind::EcdsaP256 | KeyKind::EcdsaP384 | KeyKind::EcdsaP521 => {
                SignatureAlgorithm::ECDSA
            }
            KeyKind::Ed25519 => SignatureAlgorithm::ED25519,
        }
    }
}

impl fmt::Debug for AskedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AskedKey({:?})", self.kind)
    }
}

struct AskedSigner {
    tls: SignatureScheme,
    ike: Scheme,
    sign: Arc<Sign>,
}

impl Signer for AskedSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        (self.sign)(self.ike, message).map_err(Error::General)
    }

    fn scheme(&self) -> SignatureScheme {
        self.tls
    }
}

impl fmt::Debug for AskedSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AskedSigner({:?})", self.tls)
    }
}

/// Whether the other end is who may be there: chains are judged elsewhere, signatures here.
pub(super) struct PeerCheck {
    check: Box<Check>,
    authorities: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
    refused: Arc<Mutex<Option<String>>>,
}

impl PeerCheck {
    pub(super) fn new(check: Box<Check>, authorities: Vec<Vec<u8>>) -> Self {
        Self {
            check,
            authorities: authorities
                .into_iter()
                .map(DistinguishedName::from)
                .collect(),
            algorithms: PROVIDER.signature_verification_algorithms,
            refused: Arc::default(),
        }
    }

    /// Where the reason of a refusal is put.
    pub(super) fn refused(&self) -> Arc<Mutex<Option<String>>> {
        Arc::clone(&self.refused)
    }

    fn judge(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        let chain: Vec<Vec<u8>> = std::iter::once(leaf)
            .chain(others)
            .map(|der| der.to_vec())
            .collect();
        (self.check)(&chain).map_err(|why| {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
            Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
        })
    }
}

impl fmt::Debug for PeerCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerCheck")
    }
}

/// What both traits of verifiers ask for.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, certificate, signed, &self.algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signed, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for PeerCheck {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(leaf, others)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

impl ClientCertVerifier for PeerCheck {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.authorities
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(leaf, others)?;
        Ok(ClientCertVerified::assertion())
    }

    signatures!();
}
