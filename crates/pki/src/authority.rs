//! A small certificate authority: makes its own certificate, issues those of servers and clients, revokes by CRL.
//!
//! Serial numbers and times are the caller's, so that a store can promise never to give a serial twice.
//! Private keys leave as PKCS#8 PEM and are wiped when dropped.

use cygnet_crypto::Random;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PublicKeyData, RevokedCertParams, RsaKeySize, SanType, SerialNumber,
};
use rustls_pki_types::UnixTime;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::{SubjectAltName, chain::Certificate, csr::PublicKey};

pub use rcgen::RevocationReason;

/// Why something could not be issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// What was asked for cannot be put into a certificate.
    #[error("cannot issue: expected {expected}, found {found}")]
    Request {
        /// What is allowed.
        expected: &'static str,
        /// What was asked.
        found: String,
    },
    /// The authority's certificate and key do not fit together or cannot be read.
    #[error("cannot use this authority: {0}; give the certificate and the key `create` returned")]
    Load(String),
    /// The issuing library failed.
    #[error("issuing failed: {0}")]
    Issue(#[from] rcgen::Error),
}

/// Kind of a key to make.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256: every device knows it.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// RSA with 3072 bits.
    Rsa3072,
    /// Ed25519: neither Apple nor Windows take it.
    Ed25519,
}

impl KeyKind {
    fn generate(self) -> Result<KeyPair, rcgen::Error> {
        match self {
            Self::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            Self::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            Self::Rsa3072 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072),
            Self::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        }
    }
}

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub not_before: UnixTime,
    /// Last moment.
    pub not_after: UnixTime,
}

/// What a certificate is issued for; decides its extended key usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A server or gateway: `serverAuth` and `ipsecIKE`.
    Server,
    /// A client's device: `clientAuth` alone. With `ipsecIKE`, which says nothing of a role, it could pose as the
    /// server to whoever takes any name of this authority.
    Client,
}

/// A certificate to issue.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Common name of the subject.
    pub common_name: &'a str,
    /// Subject alternative names: DNS names, e-mail addresses, IP addresses. At least one.
    pub names: &'a [SubjectAltName],
    /// Server or client.
    pub purpose: Purpose,
    /// Serial number, big-endian, 1 to 20 bytes, positive, never used before.
    pub serial: &'a [u8],
    /// When it is valid.
    pub validity: Validity,
    /// The key that [`Authority::issue`] makes for it; [`Authority::certify`] is given one.
    pub key: KeyKind,
}

/// An issued certificate and its private key.
pub struct Issued {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The certificate, DER.
    pub certificate_der: Vec<u8>,
    /// The private key, PKCS#8 PEM.
    pub key_pem: Zeroizing<String>,
}

/// A revoked certificate, as a CRL lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Its serial number, big-endian.
    pub serial: Vec<u8>,
    /// When it was revoked.
    pub at: UnixTime,
    /// Why.
    pub reason: RevocationReason,
}

/// An authority that can sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_der: Vec<u8>,
    certificate_pem: String,
}

impl Authority {
    /// Makes a new root: CA with path length 0, allowed to sign certificates and CRLs, for what a VPN needs alone:
    /// machines that are told to trust it take neither programs nor mail on its word (`docs/decisions/0014`).
    ///
    /// The name should be one no other authority has, or peers holding two of one name have to try both keys.
    pub fn create(
        common_name: &str,
        serial: &[u8],
        validity: Validity,
        key: KeyKind,
    ) -> Result<Self, AuthorityError> {
        let key = key.generate()?;
        let mut params = params(common_name, serial, validity)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
            ipsec_ike(),
        ];
        params.key_identifier_method = key_identifier(&key);
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            certificate_der: certificate.der().to_vec(),
            certificate_pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Takes up an authority from its certificate (DER) and key (PKCS#8, DER), as [`load`](crate::load) reads them.
    pub fn open(certificate_der: &[u8], key_pkcs8: &[u8]) -> Result<Self, AuthorityError> {
        let load = |what: String| AuthorityError::Load(what);
        let certificate =
            Certificate::parse(certificate_der).map_err(|error| load(error.to_string()))?;
        let basic = &certificate.extensions.basic_constraints;
        if !basic.as_ref().is_some_and(|it| it.ca) {
            return Err(load("its certificate is not that of a CA".into()));
        }
        let key = KeyPair::try_from(key_pkcs8).map_err(|error| load(error.to_string()))?;
        let spki = &certificate.x509.tbs_certificate.subject_pki;
        if key.der_bytes() != spki.subject_public_key.data.as_ref() {
            return Err(load("the key is not that of its certificate".into()));
        }
        let der = certificate_der.to_vec().into();
        let issuer =
            Issuer::from_ca_cert_der(&der, key).map_err(|error| load(error.to_string()))?;
        Ok(Self {
            issuer,
            certificate_der: certificate_der.to_vec(),
            certificate_pem: to_pem("CERTIFICATE", certificate_der),
        })
    }

    /// The root's certificate, DER.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate_der
    }

    /// The root's certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The root's private key, PKCS#8 PEM.
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// Issues a certificate with a new key.
    pub fn issue(&self, request: &Request<'_>) -> Result<Issued, AuthorityError> {
        let key = request.key.generate()?;
        let certificate = self.sign(request, &key)?;
        Ok(Issued {
            certificate_pem: certificate.pem(),
            certificate_der: certificate.der().to_vec(),
            key_pem: Zeroizing::new(key.serialize_pem()),
        })
    }

    /// Issues a certificate (DER) for a key whose private half is somewhere else.
    pub fn certify(
        &self,
        request: &Request<'_>,
        key: &PublicKey,
    ) -> Result<Vec<u8>, AuthorityError> {
        Ok(self.sign(request, key.info())?.der().to_vec())
    }

    fn sign(
        &self,
        request: &Request<'_>,
        key: &impl PublicKeyData,
    ) -> Result<rcgen::Certificate, AuthorityError> {
        let mut params = params(request.common_name, request.serial, request.validity)?;
        if request.names.is_empty() {
            return Err(AuthorityError::Request {
                expected: "at least one DNS name, e-mail address or IP address",
                found: "none".into(),
            });
        }
        params.subject_alt_names = request
            .names
            .iter()
            .map(alternative_name)
            .collect::<Result<_, _>>()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match request.purpose {
            Purpose::Server => vec![ExtendedKeyUsagePurpose::ServerAuth, ipsec_ike()],
            Purpose::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        params.key_identifier_method = key_identifier(key);
        Ok(params.signed_by(key, &self.issuer)?)
    }

    /// Signs a CRL (DER); `number` grows with each one (RFC 5280 §5.2.3).
    pub fn crl(
        &self,
        revoked: &[Revoked],
        number: u64,
        this_update: UnixTime,
        next_update: UnixTime,
    ) -> Result<Vec<u8>, AuthorityError> {
        let revoked_certs = revoked
            .iter()
            .map(|it| {
                Ok(RevokedCertParams {
                    serial_number: serial_number(&it.serial)?,
                    revocation_time: date(it.at)?,
                    reason_code: Some(it.reason),
                    invalidity_date: None,
                })
            })
            .collect::<Result<_, AuthorityError>>()?;
        let params = CertificateRevocationListParams {
            this_update: date(this_update)?,
            next_update: date(next_update)?,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: key_identifier(self.issuer.key()),
        };
        Ok(params.signed_by(&self.issuer)?.der().to_vec())
    }
}

/// A CRL or certificate as PEM text: `label` is `X509 CRL` or `CERTIFICATE`.
pub fn to_pem(label: &str, der: &[u8]) -> String {
    crate::pem::encode(label, der)
}

fn params(
    common_name: &str,
    serial: &[u8],
    validity: Validity,
) -> Result<CertificateParams, AuthorityError> {
    // RFC 5280 appendix A: ub-common-name.
    if common_name.trim().is_empty()
        || common_name.chars().count() > 64
        || common_name.chars().any(crate::name::is_unprintable)
    {
        return Err(AuthorityError::Request {
            expected: "a common name of 1 to 64 printable characters",
            found: format!("{common_name:?}"),
        });
    }
    if validity.not_after <= validity.not_before {
        return Err(AuthorityError::Request {
            expected: "a validity that ends after it begins",
            found: format!(
                "{} to {} (seconds since 1970)",
                validity.not_before.as_secs(),
                validity.not_after.as_secs()
            ),
        });
    }
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.serial_number = Some(serial_number(serial)?);
    params.not_before = date(validity.not_before)?;
    params.not_after = date(validity.not_after)?;
    Ok(params)
}

/// A serial number of 126 random bits in 16 octets, positive (RFC 5280 §4.1.2.2).
pub fn draw_serial(random: &mut dyn Random) -> [u8; 16] {
    let mut serial = [0; 16];
    random.fill(&mut serial);
    serial[0] = serial[0] & 0x3f | 0x40;
    serial
}

/// RFC 5280 §4.1.2.2: positive, at most 20 bytes, the sign bit included.
fn serial_number(serial: &[u8]) -> Result<SerialNumber, AuthorityError> {
    let magnitude = crate::chain::strip_zeros(serial);
    let sign = magnitude.first().is_some_and(|first| first & 0x80 != 0);
    if magnitude.is_empty() || magnitude.len() + usize::from(sign) > 20 {
        return Err(AuthorityError::Request {
            expected: "a serial number above zero of at most 159 bits",
            found: format!("{} bytes", serial.len()),
        });
    }
    Ok(SerialNumber::from_slice(magnitude))
}

fn alternative_name(name: &SubjectAltName) -> Result<SanType, AuthorityError> {
    let text = |text: &str| {
        text.try_into().map_err(|_| AuthorityError::Request {
            expected: "a name in ASCII (internationalised names as xn--…)",
            found: format!("{text:?}"),
        })
    };
    match name {
        SubjectAltName::Dns(name) => Ok(SanType::DnsName(text(name)?)),
        SubjectAltName::Email(name) => Ok(SanType::Rfc822Name(text(name)?)),
        SubjectAltName::Ip(address) => Ok(SanType::IpAddress(*address)),
        other => Err(AuthorityError::Request {
            expected: "a DNS name, e-mail address or IP address",
            found: other.to_string(),
        }),
    }
}

/// id-kp-ipsecIKE, RFC 4945 §5.1.3.12.
fn ipsec_ike() -> ExtendedKeyUsagePurpose {
    ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 17])
}

/// RFC 7093 §2 method 1: the leftmost 160 bits of SHA-256 of the public key.
fn key_identifier(key: &impl PublicKeyData) -> KeyIdMethod {
    let hash = cygnet_crypto::digest::sha256(&[key.der_bytes()]);
    KeyIdMethod::PreSpecified(hash.iter().take(20).copied().collect())
}

fn date(time: UnixTime) -> Result<OffsetDateTime, AuthorityError> {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or_else(|| AuthorityError::Request {
            expected: "a time before the year 10000",
            found: format!("{} seconds since 1970", time.as_secs()),
        })
}
