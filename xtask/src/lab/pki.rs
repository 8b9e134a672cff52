//! Certificates to test with: authorities, intermediates, good and bad certificates, CRLs.

use super::failure::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, RsaKeySize, SanType, SerialNumber,
};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use time::{Duration, OffsetDateTime};

/// What kind of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum KeyKind {
    EcP256,
    EcP384,
    EcP521,
    Rsa2048,
    Rsa3072,
    Rsa4096,
    Ed25519,
}

impl KeyKind {
    fn generate(self) -> Result<KeyPair> {
        let rsa = |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size);
        let pair = match self {
            Self::EcP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            Self::EcP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            Self::EcP521 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512),
            Self::Rsa2048 => rsa(RsaKeySize::_2048),
            Self::Rsa3072 => rsa(RsaKeySize::_3072),
            Self::Rsa4096 => rsa(RsaKeySize::_4096),
            Self::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        };
        pair.context(format!("generating a key, {self:?}"))
    }
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// Since yesterday, for a year.
    Now,
    /// Until yesterday.
    Expired,
    /// From tomorrow on.
    NotYet,
    /// From this second since 1970 on.
    From(i64),
    /// Until this second since 1970.
    Until(i64),
}

/// What a certificate is to say.
#[derive(Debug, Clone)]
pub struct Request {
    kind: KeyKind,
    common_name: String,
    names: Vec<String>,
    validity: Validity,
}

impl Request {
    /// A certificate for `C=XX, O=lab, CN=<common_name>`, valid now, without alternative names.
    pub fn new(kind: KeyKind, common_name: &str) -> Self {
        Self {
            kind,
            common_name: common_name.to_owned(),
            names: Vec::new(),
            validity: Validity::Now,
        }
    }

    /// Adds a subject alternative name: an address, an e-mail address, or a DNS name.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.names.push(name.to_owned());
        self
    }

    /// Says when it is valid.
    #[must_use]
    pub fn validity(mut self, validity: Validity) -> Self {
        self.validity = validity;
        self
    }
}

/// A certificate with its key.
#[derive(Debug, Clone)]
pub struct Credential {
    /// The certificate alone, PEM.
    pub certificate: String,
    /// The certificates between this one and the root, nearest first, PEM; without the root.
    pub intermediates: Vec<String>,
    /// The private key, PKCS#8 PEM.
    pub key: String,
    /// The subject as strongSwan and Cygnet write it.
    pub subject: String,
    serial: u64,
}

impl Credential {
    /// The number of the certificate.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Certificate and intermediates in one file, as TLS servers like it.
    pub fn chain(&self) -> String {
        let mut chain = self.certificate.clone();
        for certificate in &self.intermediates {
            chain.push_str(certificate);
        }
        chain
    }
}

/// A certificate authority.
pub struct Authority {
    /// Its certificate, PEM.
    pub certificate: String,
    /// The certificates above it, nearest first, without the root; empty for a root.
    above: Vec<String>,
    is_root: bool,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("is_root", &self.is_root)
            .finish_non_exhaustive()
    }
}

static SERIAL: AtomicU64 = AtomicU64::new(4096);

impl Authority {
    /// A root.
    pub fn root(kind: KeyKind, common_name: &str) -> Result<Self> {
        let params = authority_params(common_name);
        let key = kind.generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self {
            certificate,
            above: Vec::new(),
            is_root: true,
            issuer: Issuer::new(params, key),
        })
    }

    /// An authority below this one.
    pub fn intermediate(&self, kind: KeyKind, common_name: &str) -> Result<Self> {
        let mut params = authority_params(common_name);
        params.use_authority_key_identifier_extension = true;
        let key = kind.generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Self {
            certificate,
            above: self.chain_upwards(),
            is_root: false,
            issuer: Issuer::new(params, key),
        })
    }

    /// Issues a certificate.
    pub fn issue(&self, request: &Request) -> Result<Credential> {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(&request.common_name);
        params.serial_number = Some(SerialNumber::from(serial));
        (params.not_before, params.not_after) = period(request.validity);
        params.subject_alt_names = names(&request.names)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
            // id-kp-ipsecIKE (RFC 4945 §5.1.3.12)
            ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 17]),
        ];
        params.use_authority_key_identifier_extension = true;
        let key = request.kind.generate()?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .context(&request.common_name)?;
        Ok(Credential {
            certificate: certificate.pem(),
            intermediates: self.chain_upwards(),
            key: key.serialize_pem(),
            subject: format!("C=XX, O=lab, CN={}", request.common_name),
            serial,
        })
    }

    /// Its private key, PKCS#8 PEM, for other programs.
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// The list of revoked certificates, PEM.
    pub fn revocation_list(&self, revoked: &[&Credential]) -> Result<String> {
        let now = OffsetDateTime::now_utc();
        let revoked_certs = revoked.iter().map(|credential| RevokedCertParams {
            serial_number: SerialNumber::from(credential.serial),
            revocation_time: now - Duration::hours(1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now - Duration::hours(1),
            next_update: now + Duration::days(30),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }

    /// This authority and those above it, without the root.
    fn chain_upwards(&self) -> Vec<String> {
        if self.is_root {
            return Vec::new();
        }
        let mut chain = vec![self.certificate.clone()];
        chain.extend(self.above.iter().cloned());
        chain
    }
}

fn authority_params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(common_name);
    params.serial_number = Some(SerialNumber::from(SERIAL.fetch_add(1, Ordering::Relaxed)));
    (params.not_before, params.not_after) = period(Validity::Now);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn distinguished_name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CountryName, "XX");
    name.push(DnType::OrganizationName, "lab");
    name.push(DnType::CommonName, common_name);
    name
}

fn period(validity: Validity) -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::now_utc();
    match validity {
        Validity::Now => (now - Duration::days(1), now + Duration::days(365)),
        Validity::Expired => (now - Duration::days(30), now - Duration::days(1)),
        Validity::NotYet => (now + Duration::days(1), now + Duration::days(30)),
        Validity::From(second) => {
            let from = OffsetDateTime::from_unix_timestamp(second).unwrap_or(now);
            (from, from + Duration::days(30))
        }
        Validity::Until(second) => {
            let until = OffsetDateTime::from_unix_timestamp(second).unwrap_or(now);
            (until - Duration::days(30), until)
        }
    }
}

fn names(names: &[String]) -> Result<Vec<SanType>> {
    let sorted = names.iter().map(|name| {
        Ok(if let Ok(address) = name.parse::<IpAddr>() {
            SanType::IpAddress(address)
        } else if name.contains('@') {
            SanType::Rfc822Name(name.as_str().try_into()?)
        } else {
            SanType::DnsName(name.as_str().try_into()?)
        })
    });
    sorted.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Exec;

    /// `openssl verify` with the root trusted and the intermediates at hand.
    fn verify(root: &str, credential: &Credential, crl: Option<&str>) -> Result<String> {
        let unique = format!("xtask-pki-{}-{}", std::process::id(), credential.serial);
        let directory = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join("root"), root)?;
        std::fs::write(directory.join("chain"), credential.chain())?;
        std::fs::write(directory.join("leaf"), &credential.certificate)?;
        let mut line = format!(
            "cd {} && openssl verify -CAfile root -untrusted chain",
            directory.display()
        );
        if let Some(crl) = crl {
            std::fs::write(directory.join("crl"), crl)?;
            line.push_str(" -crl_check -CRLfile crl");
        }
        let verdict = Exec::shell(&format!("{line} leaf 2>&1")).run();
        std::fs::remove_dir_all(directory)?;
        verdict
    }

    #[test]
    fn openssl_accepts_what_is_issued() {
        for kind in [
            KeyKind::EcP256,
            KeyKind::EcP384,
            KeyKind::Rsa2048,
            KeyKind::Ed25519,
        ] {
            let root = Authority::root(kind, "root").unwrap();
            let below = root.intermediate(kind, "below").unwrap();
            let request = Request::new(kind, "host")
                .name("host.lab")
                .name("a@lab")
                .name("10.0.0.1");
            let credential = below.issue(&request).unwrap();
            assert_eq!(credential.intermediates.len(), 1);
            verify(&root.certificate, &credential, None).unwrap();
        }
    }

    #[test]
    fn openssl_refuses_what_is_bad() {
        let root = Authority::root(KeyKind::EcP256, "root").unwrap();
        let other = Authority::root(KeyKind::EcP256, "other").unwrap();
        let request = Request::new(KeyKind::EcP256, "host");
        let good = root.issue(&request).unwrap();
        let told = verify(&other.certificate, &good, None)
            .unwrap_err()
            .to_string();
        assert!(told.contains("unable to get local issuer"), "{told}");

        let expired = root
            .issue(&request.clone().validity(Validity::Expired))
            .unwrap();
        let told = verify(&root.certificate, &expired, None)
            .unwrap_err()
            .to_string();
        assert!(told.contains("expired"), "{told}");

        let list = root.revocation_list(&[&good]).unwrap();
        let told = verify(&root.certificate, &good, Some(&list))
            .unwrap_err()
            .to_string();
        assert!(told.contains("revoked"), "{told}");
        let next = root.issue(&request).unwrap();
        verify(&root.certificate, &next, Some(&list)).unwrap();
    }
}
