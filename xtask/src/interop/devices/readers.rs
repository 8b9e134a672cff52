//! Files for systems that cannot run here: read by Python's own readers, and what they say, nothing else, given to a
//! strongSwan.

use super::super::Scenario;
use crate::ensure;
use crate::lab::own_server::{OwnServer, SOON};
use crate::lab::strongswan::{Auth, Child, Config, Connection, StrongSwan};
use crate::lab::{Context, Exec, Failure, Lab, Result};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "device-sswan",
            "what the Android app finds in its .sswan file",
            |lab| connect(lab, "sswan", SSWAN),
        ),
        Scenario::new(
            "device-mobileconfig",
            "what an iPhone or a Mac finds in its .mobileconfig file",
            |lab| connect(lab, "mobileconfig", MOBILECONFIG),
        ),
    ]
}

/// Prints [`Fields`] of a strongSwan profile for Android.
const SSWAN: &str = r#"
import json, sys
profile = json.load(open(sys.argv[1]))
assert profile["type"] == "ikev2-cert", profile["type"]
remote, local = profile["remote"], profile["local"]
print(json.dumps({
    "remote": remote["addr"], "remote_id": remote["id"], "local_id": local["id"],
    "ca": remote["cert"], "p12": local["p12"],
    "ike": profile["ike-proposal"], "esp": profile["esp-proposal"],
}))
"#;

/// The same, of a configuration profile for Apple's systems.
const MOBILECONFIG: &str = r#"
import base64, json, plistlib, sys
profile = plistlib.load(open(sys.argv[1], "rb"))
payloads = profile["PayloadContent"]
ids = [payload["PayloadUUID"] for payload in payloads + [profile]]
assert len(set(ids)) == len(ids), "UUIDs are not unique"
by_type = {payload["PayloadType"]: payload for payload in payloads}
vpn = by_type["com.apple.vpn.managed"]
ikev2 = vpn["IKEv2"]
assert vpn["VPNType"] == "IKEv2" and ikev2["AuthenticationMethod"] == "Certificate"
p12 = by_type["com.apple.security.pkcs12"]
assert ikev2["PayloadCertificateUUID"] == p12["PayloadUUID"]
cipher = {"AES-256-GCM": "aes256gcm16", "AES-128-GCM": "aes128gcm16", "ChaCha20Poly1305": "chacha20poly1305"}
prf = {"SHA2-256": "prfsha256", "SHA2-384": "prfsha384", "SHA2-512": "prfsha512"}
group = {14: "modp2048", 19: "ecp256", 20: "ecp384", 21: "ecp521", 31: "curve25519"}
ike, esp = ikev2["IKESecurityAssociationParameters"], ikev2["ChildSecurityAssociationParameters"]
b64 = lambda payload: base64.b64encode(payload["PayloadContent"]).decode()
print(json.dumps({
    "remote": ikev2["RemoteAddress"], "remote_id": ikev2["RemoteIdentifier"], "local_id": ikev2["LocalIdentifier"],
    "ca": b64(by_type["com.apple.security.root"]), "p12": b64(p12),
    "ike": "-".join([cipher[ike["EncryptionAlgorithm"]], prf[ike["IntegrityAlgorithm"]], group[ike["DiffieHellmanGroup"]]]),
    "esp": cipher[esp["EncryptionAlgorithm"]]
        + ("-" + group[esp["DiffieHellmanGroup"]] if ikev2.get("EnablePFS") else ""),
}))
"#;

/// What a device makes of its file.
#[derive(Debug, Deserialize)]
struct Fields {
    remote: String,
    remote_id: String,
    local_id: String,
    /// DER, base64.
    ca: String,
    /// Base64.
    p12: String,
    ike: String,
    esp: String,
}

fn connect(lab: &mut Lab, kind: &str, reader: &str) -> Result<String> {
    let server = OwnServer::set_up(lab)?;
    let said = server.add("alice", "phone")?;
    let password = OwnServer::p12_password(&said)?;
    let file = server
        .folder("alice", "phone")
        .join(format!("alice.phone.{kind}"));
    let read = Exec::new(["python3", "-c", reader, &file.to_string_lossy()]).run()?;
    let fields: Fields = serde_json::from_str(&read).context(format!("the reader said {read}"))?;
    let folder = lab.subdirectory("phone-files")?;
    unpack(&folder, &fields, &password)?;
    let connection = Connection::new("home", "%any", &fields.remote)
        .proposal(&fields.ike)
        .local(Auth::certificate("own", &fields.local_id))
        .remote(Auth::public_key(&fields.remote_id))
        .virtual_address("0.0.0.0")
        .child(Child::new("internet", &[], &["0.0.0.0/0"]).proposal(&fields.esp));
    fs::write(
        folder.join("swanctl.conf"),
        Config::of(connection).to_string(),
    )?;
    let swan = StrongSwan::start_with_files(lab, &server.world.phone, &folder)?;
    swan.initiate("internet")
        .map_err(|failure| server.with_log(failure))?;
    server.online(&server.world.phone)?;
    // A rekey with what the file says about its keys, too.
    let before = swan.child("internet")?.spi_in;
    swan.rekey_child("internet")?;
    swan.wait_for_new_child("internet", &before, SOON)
        .map_err(|failure| server.with_log(failure))?;
    server.online(&server.world.phone)?;
    let peers = server.connected()?;
    ensure!(peers.len() == 1, "connected are {peers:?}");
    Ok(format!(
        "{}, {}, {}",
        fields.ike,
        fields.esp,
        peers.join(", ")
    ))
}

/// Certificate, key and authority, as swanctl finds them.
fn unpack(folder: &Path, fields: &Fields, password: &str) -> Result<()> {
    for part in ["x509", "x509ca", "private"] {
        fs::create_dir_all(folder.join(part))?;
    }
    let decode = |text: &str, to: &Path| -> Result<()> {
        let bytes = Exec::new([
            "openssl",
            "base64",
            "-d",
            "-A",
            "-out",
            &to.to_string_lossy(),
        ]);
        bytes.stdin(text).run().map(drop)
    };
    let p12 = folder.join("own.p12");
    decode(&fields.p12, &p12)?;
    decode(&fields.ca, &folder.join("x509ca/ca.crt"))?;
    let secret = folder.join("p12-password");
    fs::write(&secret, password)?;
    let out = |part: &[&str], to: PathBuf| -> Result<()> {
        let (p12, pass) = (p12.to_string_lossy(), format!("file:{}", secret.display()));
        let to = to.to_string_lossy();
        let argv = [
            "openssl", "pkcs12", "-legacy", "-in", &*p12, "-passin", &pass, "-out", &*to,
        ];
        Exec::new(argv.iter().chain(part).copied()).run().map(drop)
    };
    out(&["-clcerts", "-nokeys"], folder.join("x509/own.crt"))?;
    out(&["-nocerts", "-nodes"], folder.join("private/own.key"))?;
    let key = fs::read_to_string(folder.join("private/own.key"))?;
    if key.contains("PRIVATE KEY") {
        return Ok(());
    }
    Err(Failure::new("the .p12 file holds no private key"))
}
