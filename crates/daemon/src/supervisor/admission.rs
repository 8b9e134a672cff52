//! Who is let in: revocations, users' passwords and devices, which are taken up even where the rest of a configuration
//! is refused. Whoever was removed is to be gone at once, whatever else is wrong in `cygnet.toml`.

use std::path::Path;

use cygnet_config::{CredentialFile, admission_files};

use super::start::{Loaded, RELATIVE, Secrets, read};
use crate::error::StartError;

/// What runs, with these files as they are now; `None` where it names none of them.
pub(super) fn read_again(
    path: &Path,
    running: &Loaded,
    secrets: &Secrets,
) -> Result<Option<Loaded>, StartError> {
    let base = path.parent().unwrap_or(Path::new("."));
    let mut bundle = running.bundle.clone();
    let names = admission_files(&bundle.text);
    for name in &names {
        let bytes = read(&base.join(name), name, RELATIVE)?;
        bundle.files.insert(name.clone(), bytes);
    }
    let config = bundle.parse()?;
    let mut admitted = Secrets {
        keys: secrets.keys.clone(),
        psks: secrets.psks.clone(),
        passwords: secrets.passwords.clone(),
        ..Secrets::default()
    };
    let mut users = false;
    for (id, file) in &config.credentials {
        match file {
            CredentialFile::Passwords { path } => {
                users = true;
                admitted.add_users(base, id, path)?;
            }
            CredentialFile::Key { .. }
            | CredentialFile::Psk { .. }
            | CredentialFile::Password { .. } => {}
        }
    }
    if names.is_empty() && !users {
        return Ok(None);
    }
    Ok(Some(Loaded {
        config,
        bundle,
        secrets: admitted,
    }))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use cygnet_pki::authority::{
        Authority, KeyKind, Purpose, Request, RevocationReason, Revoked, Validity, to_pem,
    };
    use cygnet_pki::{SubjectAltName, UnixTime};

    use super::*;
    use crate::supervisor::start::load;

    const TEXT: &str = r#"
[server]
identity = "vpn.example.org"
certificate = "server.crt"
key = "server.key"
ca = "ca.crt"
crl = "ca.crl"
passwords = "passwords"
devices = "devices.json"
pools = ["10.99.0.0/24"]
"#;
    const HASH: &str = "44ebba8d5312b8d611474411f56989ae";

    #[test]
    fn who_was_removed_is_gone_whatever_else_is_wrong() {
        let name = format!("cygnet-admission-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            path
        };
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let validity = Validity {
            not_before: at(1_767_225_600),
            not_after: at(2_082_758_400),
        };
        let key = KeyKind::EcdsaP256;
        let authority = Authority::create("Cygnet 1a2b3c4d", &[1], validity, key).unwrap();
        let server = authority.issue(&Request {
            common_name: "vpn.example.org",
            names: &[SubjectAltName::Dns("vpn.example.org".into())],
            purpose: Purpose::Server,
            serial: &[2],
            validity,
            key,
        });
        let server = server.unwrap();
        let list = |revoked: &[Revoked]| {
            let list = authority.crl(revoked, 1, validity.not_before, validity.not_after);
            to_pem("X509 CRL", &list.unwrap())
        };
        write("server.crt", &server.certificate_pem);
        write("server.key", &server.key_pem);
        write("ca.crt", authority.certificate_pem());
        write("ca.crl", &list(&[]));
        write("passwords", &format!("alice:{HASH}\nbob:{HASH}\n"));
        write("devices.json", r#"{"version":1,"devices":[]}"#);
        let path = write("cygnet.toml", TEXT);
        let mut running = load(&path).unwrap();
        let secrets = std::mem::take(&mut running.secrets);

        let revoked = list(&[Revoked {
            serial: vec![3],
            at: at(1_767_225_700),
            reason: RevocationReason::KeyCompromise,
        }]);
        write("ca.crl", &revoked);
        write("passwords", &format!("bob:{HASH}\n"));
        write("server.key", "damaged");
        write("cygnet.toml", "[serv");
        assert!(load(&path).is_err());
        let taken = read_again(&path, &running, &secrets).unwrap().unwrap();
        write("passwords", "damaged");
        let told = read_again(&path, &running, &secrets).err().unwrap();
        running.bundle.text = "[daemon]\n".to_owned();
        let nothing = read_again(&path, &running, &secrets).unwrap();
        fs::remove_dir_all(&directory).unwrap();

        assert_eq!(taken.bundle.files["ca.crl"], revoked.as_bytes());
        assert_eq!(taken.bundle.text, TEXT);
        let gone = taken.secrets.replaced_since(&secrets);
        assert!(gone.len() == 1 && gone[0].ends_with("/alice"), "{gone:?}");
        assert_eq!(taken.secrets.keys.len(), 1, "the key it runs with");
        assert!(told.to_string().contains("passwords"), "{told}");
        assert!(nothing.is_none());
    }
}
