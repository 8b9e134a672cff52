//! `.mobileconfig`: a configuration profile for iPhone, iPad and Mac (Apple's "Device Management" reference).

use cygnet_crypto::signature::KeyKind;
use cygnet_crypto::suite::{Encryption, Group, Prf};
use plist::{Dictionary, Value};
use zeroize::Zeroizing;

use super::proposals::{Choice, Known};
use super::{Error, File, facts::Facts};
use crate::OnDemand;

/// Apple's devices take lifetimes of 10 to 1440 minutes.
const MINUTES: std::ops::RangeInclusive<u64> = 10..=1440;

/// Asked before connecting, so that the sign-in page of a hotel's Wi-Fi is seen first.
const PROBE: &str = "http://captive.apple.com/hotspot-detect.html";

const KNOWN: Known = Known {
    ike_encryption: &[
        Encryption::AesGcm16_256,
        Encryption::AesGcm16_128,
        Encryption::ChaCha20Poly1305,
        Encryption::AesCbc256,
    ],
    esp_encryption: &[
        Encryption::AesGcm16_256,
        Encryption::AesGcm16_128,
        Encryption::ChaCha20Poly1305,
    ],
    prf: &[Prf::HmacSha2_512, Prf::HmacSha2_384, Prf::HmacSha2_256],
    group: &[
        Group::EcpP384,
        Group::EcpP256,
        Group::Curve25519,
        Group::EcpP521,
        Group::Modp2048,
    ],
};

/// Whether the server's lifetimes end before one of Apple's devices would rekey.
pub(super) fn is_too_hasty(facts: &Facts<'_>) -> bool {
    let shortest = facts.ike_rekey().min(facts.child_rekey());
    shortest.as_secs() / 60 < *MINUTES.start()
}

/// The profile; `None` if Apple's devices know nothing the server accepts, the server's lifetimes are too short for
/// them, or the key is not here to be put in.
pub(super) fn file(facts: &Facts<'_>) -> Result<Option<File>, Error> {
    let Some(choice) = KNOWN.choose(&facts.ike, &facts.esp) else {
        return Ok(None);
    };
    if is_too_hasty(facts) {
        return Ok(None);
    }
    let path = format!("{}.mobileconfig", facts.stem);
    Ok(match (&facts.certificate, facts.key()) {
        (None, _) => {
            let login = password_login(facts);
            Some(File::public(path, xml(facts, choice, login, None)?))
        }
        (Some(certificate), Some(key)) => {
            let login = certificate_login(facts, certificate.identity, certificate.kind);
            let bytes = xml(facts, choice, login, Some(&key.legacy_p12))?;
            Some(File::secret(path, Zeroizing::new(bytes)))
        }
        (Some(_), None) => None,
    })
}

fn xml(
    facts: &Facts<'_>,
    choice: Choice,
    login: Dictionary,
    p12: Option<&[u8]>,
) -> Result<Vec<u8>, Error> {
    let title = facts.profile.title.as_str();
    let mut contents = vec![vpn(facts, choice, login)];
    if let Some(p12) = p12 {
        // No Password key: the device asks for it, and the file alone opens nothing.
        let mut payload = payload(facts, "com.apple.security.pkcs12", "pkcs12");
        put(
            &mut payload,
            "PayloadDescription",
            "The device's certificate and key",
        );
        put(
            &mut payload,
            "PayloadCertificateFileName",
            format!("{}.p12", facts.stem),
        );
        payload.insert("PayloadContent".into(), Value::Data(p12.to_vec()));
        contents.push(payload);
    }
    let mut root = payload(facts, "com.apple.security.root", "root");
    put(
        &mut root,
        "PayloadDescription",
        "The authority that vouches for the server",
    );
    put(&mut root, "PayloadCertificateFileName", "ca.crt");
    let ca = facts.profile.authority.certificate.clone();
    root.insert("PayloadContent".into(), Value::Data(ca));
    contents.push(root);

    let mut profile = payload(facts, "Configuration", "profile");
    put(&mut profile, "PayloadOrganization", "Cygnet");
    put(
        &mut profile,
        "PayloadDescription",
        format!("Connects {} to {title}", facts.stem),
    );
    put(&mut profile, "PayloadRemovalDisallowed", false);
    let contents = contents.into_iter().map(Value::Dictionary).collect();
    profile.insert("PayloadContent".into(), Value::Array(contents));
    let mut bytes = Vec::new();
    Value::Dictionary(profile)
        .to_writer_xml(&mut bytes)
        .map_err(|error| Error::Format {
            format: ".mobileconfig",
            why: error.to_string(),
        })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// What every payload has. A later profile takes the place of one with the same identifiers.
fn payload(facts: &Facts<'_>, kind: &str, part: &str) -> Dictionary {
    let uuid = facts
        .uuid(&format!("apple {part}"))
        .to_string()
        .to_uppercase();
    let mut payload = Dictionary::new();
    put(&mut payload, "PayloadType", kind);
    put(&mut payload, "PayloadVersion", 1);
    put(
        &mut payload,
        "PayloadIdentifier",
        format!("internal.cygnet.{part}.{uuid}"),
    );
    put(&mut payload, "PayloadUUID", uuid);
    put(
        &mut payload,
        "PayloadDisplayName",
        facts.profile.title.as_str(),
    );
    payload
}

fn vpn(facts: &Facts<'_>, choice: Choice, mut ikev2: Dictionary) -> Dictionary {
    let profile = facts.profile;
    put(&mut ikev2, "RemoteAddress", profile.remote.as_str());
    put(
        &mut ikev2,
        "RemoteIdentifier",
        profile.remote_identity.as_str(),
    );
    put(
        &mut ikev2,
        "ServerCertificateIssuerCommonName",
        profile.authority.common_name.as_str(),
    );
    // Every minute, or every ten: where nobody looks, a server that was started anew is to be called soon.
    let rules = rules(&profile.on_demand);
    let detection = if rules.is_empty() { "Medium" } else { "High" };
    put(&mut ikev2, "DeadPeerDetectionRate", detection);
    put(&mut ikev2, "DisableMOBIKE", 0);
    put(&mut ikev2, "DisableRedirect", 1);
    // The authority's CRL is the server's own affair; a device cannot reach it before it is connected.
    put(&mut ikev2, "EnableCertificateRevocationCheck", 0);
    put(&mut ikev2, "UseConfigurationAttributeInternalIPSubnet", 0);
    put(&mut ikev2, "EnablePFS", choice.esp.group.is_some());
    let hash = integrity(choice.ike.prf);
    let ike = association(
        choice.ike.encryption,
        hash,
        choice.ike.group,
        facts.ike_rekey(),
    );
    ikev2.insert("IKESecurityAssociationParameters".into(), ike);
    let group = choice.esp.group.unwrap_or(choice.ike.group);
    let child = association(choice.esp.encryption, hash, group, facts.child_rekey());
    ikev2.insert("ChildSecurityAssociationParameters".into(), child);
    put(&mut ikev2, "OnDemandEnabled", i64::from(!rules.is_empty()));
    if !rules.is_empty() {
        ikev2.insert("OnDemandRules".into(), Value::Array(rules));
    }

    let mut vpn = payload(facts, "com.apple.vpn.managed", "vpn");
    put(&mut vpn, "PayloadDescription", "The VPN connection");
    put(&mut vpn, "UserDefinedName", profile.title.as_str());
    put(&mut vpn, "VPNType", "IKEv2");
    vpn.insert("IKEv2".into(), Value::Dictionary(ikev2));
    let mut ipv4 = Dictionary::new();
    put(&mut ipv4, "OverridePrimary", i64::from(!facts.is_split()));
    vpn.insert("IPv4".into(), Value::Dictionary(ipv4));
    if !profile.domains.is_empty() && !profile.dns.is_empty() {
        let mut dns = Dictionary::new();
        let strings =
            |list: Vec<String>| Value::Array(list.into_iter().map(Value::String).collect());
        let servers = profile.dns.iter().map(ToString::to_string).collect();
        dns.insert("ServerAddresses".into(), strings(servers));
        dns.insert(
            "SupplementalMatchDomains".into(),
            strings(profile.domains.clone()),
        );
        vpn.insert("DNS".into(), Value::Dictionary(dns));
    }
    vpn
}

fn certificate_login(facts: &Facts<'_>, identity: &str, kind: KeyKind) -> Dictionary {
    let mut ikev2 = Dictionary::new();
    put(&mut ikev2, "AuthenticationMethod", "Certificate");
    put(&mut ikev2, "ExtendedAuthEnabled", 0);
    put(&mut ikev2, "LocalIdentifier", identity);
    let certificate = facts.uuid("apple pkcs12").to_string().to_uppercase();
    put(&mut ikev2, "PayloadCertificateUUID", certificate);
    put(&mut ikev2, "CertificateType", certificate_type(kind));
    ikev2
}

/// RSA where it is left out: a device then takes no other signature from the server.
fn certificate_type(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Rsa { .. } => "RSA",
        KeyKind::EcdsaP256 => "ECDSA256",
        KeyKind::EcdsaP384 => "ECDSA384",
        KeyKind::EcdsaP521 => "ECDSA521",
        KeyKind::Ed25519 => "Ed25519",
    }
}

/// User name and password: the latter is asked for when the profile is installed. `Certificate` is how the server
/// proves itself; `None` would ask it for EAP alone (RFC 5998).
fn password_login(facts: &Facts<'_>) -> Dictionary {
    let mut ikev2 = Dictionary::new();
    put(&mut ikev2, "AuthenticationMethod", "Certificate");
    let kind = certificate_type(facts.server_kind);
    put(&mut ikev2, "CertificateType", kind);
    put(&mut ikev2, "ExtendedAuthEnabled", 1);
    put(&mut ikev2, "AuthName", facts.profile.user.as_str());
    put(&mut ikev2, "LocalIdentifier", facts.profile.user.as_str());
    ikev2
}

fn association(
    encryption: Encryption,
    integrity: &str,
    group: Group,
    rekey: std::time::Duration,
) -> Value {
    let mut parameters = Dictionary::new();
    let encryption = match encryption {
        Encryption::AesGcm16_128 => "AES-128-GCM",
        Encryption::AesGcm16_256 => "AES-256-GCM",
        Encryption::ChaCha20Poly1305 => "ChaCha20Poly1305",
        Encryption::AesCbc128 => "AES-128",
        Encryption::AesCbc256 => "AES-256",
    };
    put(&mut parameters, "EncryptionAlgorithm", encryption);
    put(&mut parameters, "IntegrityAlgorithm", integrity);
    put(&mut parameters, "DiffieHellmanGroup", group.to_wire());
    let minutes = (rekey.as_secs() / 60).min(*MINUTES.end());
    put(&mut parameters, "LifeTimeInMinutes", minutes);
    Value::Dictionary(parameters)
}

/// Also what Apple takes the PRF from.
fn integrity(prf: Prf) -> &'static str {
    match prf {
        Prf::HmacSha2_256 => "SHA2-256",
        Prf::HmacSha2_384 => "SHA2-384",
        Prf::HmacSha2_512 => "SHA2-512",
    }
}

/// The first rule that fits decides. Empty: the person connects by hand.
fn rules(on_demand: &OnDemand) -> Vec<Value> {
    if !on_demand.cellular && !on_demand.wifi {
        return Vec::new();
    }
    let mut rules = Vec::new();
    if !on_demand.trusted_ssids.is_empty() {
        let mut trusted = rule("Disconnect", Some("WiFi"));
        let names = on_demand.trusted_ssids.iter().cloned().map(Value::String);
        trusted.insert("SSIDMatch".into(), Value::Array(names.collect()));
        rules.push(trusted);
    }
    for (interface, connect) in [("WiFi", on_demand.wifi), ("Cellular", on_demand.cellular)] {
        rules.push(if connect {
            let mut connect = rule("Connect", Some(interface));
            put(&mut connect, "URLStringProbe", PROBE);
            connect
        } else {
            // As the person left it: Disconnect would cut off what is switched on by hand.
            rule("Ignore", Some(interface))
        });
    }
    // Whatever else there is (a cable), likewise.
    rules.push(rule("Ignore", None));
    rules.into_iter().map(Value::Dictionary).collect()
}

fn rule(action: &str, interface: Option<&str>) -> Dictionary {
    let mut rule = Dictionary::new();
    put(&mut rule, "Action", action);
    if let Some(interface) = interface {
        put(&mut rule, "InterfaceTypeMatch", interface);
    }
    rule
}

fn put(dictionary: &mut Dictionary, key: &str, value: impl Into<Value>) {
    dictionary.insert(key.to_owned(), value.into());
}
