//! Files as servers hand them out, in a folder that is not on any disk; certificates are openssl's.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cygnet_config::Config;
use cygnet_pki::UnixTime;
use cygnet_profile::read::{
    Credentials, Error, File, Imported, Note, Options, Surroundings, import,
};
use zeroize::Zeroizing;

/// The server's address in every file.
pub(crate) const SERVER: &str = "203.0.113.5";
/// What opens `alice.p12`.
pub(crate) const PASSWORD: &str = "p12 password";

/// A directory in which openssl works; removed when dropped.
pub(crate) struct OpenSsl {
    pub(crate) directory: PathBuf,
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl OpenSsl {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("cygnet-read-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).expect("a directory for openssl");
        Self { directory }
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.directory.join(name), text).expect("written");
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.directory.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// A line for the shell.
    pub(crate) fn run(&self, line: &str) {
        let mut command = Command::new("sh");
        let output = command
            .args(["-ec", line])
            .current_dir(&self.directory)
            .output();
        let output = output.expect("sh runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {said}");
    }

    /// An authority (`cacert.pem`) called by the server's address, and `alice.crt`, `alice.key`.
    pub(crate) fn authority(curve: &str, ca: &str, alice: &str) -> Self {
        let openssl = Self::new();
        openssl.write("ca.ext", &format!("[e]\n{ca}"));
        openssl.write("alice.ext", alice);
        openssl.run(&format!(
            "key() {{ openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:{curve} -out $1; }}
             key cakey.pem; key alice.key
             printf '[req]\\ndistinguished_name=d\\n[d]\\n' >req.cnf; cat ca.ext >>req.cnf
             openssl req -x509 -new -config req.cnf -extensions e -key cakey.pem -subj /CN={SERVER} -days 3650 -out cacert.pem
             openssl req -new -config req.cnf -key alice.key -subj /CN=alice -out alice.req
             openssl x509 -req -in alice.req -CA cacert.pem -CAkey cakey.pem -set_serial 2 -days 3650 \\
                 -extfile alice.ext -out alice.crt"
        ));
        openssl
    }

    /// `alice.p12`.
    pub(crate) fn p12(&self, further: &str) {
        self.run(&format!(
            "openssl pkcs12 -export -in alice.crt -inkey alice.key -name alice -out alice.p12 \
             -passout 'pass:{PASSWORD}' {further}"
        ));
    }
}

/// Files beside those that are given, and passwords that a person would type.
#[derive(Default)]
pub(crate) struct Folder {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) passwords: Vec<&'static str>,
    pub(crate) asked: Vec<(String, u32)>,
    pub(crate) options: Options,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or(Duration::ZERO);
        Self {
            options: Options {
                now: Some(UnixTime::since_unix_epoch(now)),
                ..Options::default()
            },
            ..Self::default()
        }
    }

    pub(crate) fn with(mut self, path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.to_owned(), bytes.into());
        self
    }

    pub(crate) fn password(mut self, password: &'static str) -> Self {
        self.passwords.push(password);
        self
    }

    /// Imports files of this folder by their paths.
    pub(crate) fn import(&mut self, paths: &[&str]) -> Result<Imported, Error> {
        let file = |path: &&str| File {
            name: path.rsplit('/').next().unwrap_or_default().to_owned(),
            bytes: Zeroizing::new(self.files.get(*path).expect(path).clone()),
        };
        let files: Vec<File> = paths.iter().map(file).collect();
        let options = self.options.clone();
        import(&files, self, &options)
    }
}

impl Folder {
    /// What is said on refusing these.
    #[track_caller]
    pub(crate) fn refused(&mut self, paths: &[&str]) -> String {
        match self.import(paths) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{paths:?} are taken"),
        }
    }
}

impl Surroundings for Folder {
    fn read(&mut self, path: &str) -> Option<Zeroizing<Vec<u8>>> {
        self.files.get(path).cloned().map(Zeroizing::new)
    }

    fn list(&mut self, folder: &str) -> Vec<String> {
        let inside = |path: &String| {
            path.strip_prefix(folder)?
                .strip_prefix('/')
                .map(str::to_owned)
        };
        self.files.keys().filter_map(inside).collect()
    }

    fn password(&mut self, file: &str, attempt: u32) -> Option<Zeroizing<String>> {
        self.asked.push((file.to_owned(), attempt));
        let at = usize::try_from(attempt).unwrap_or(0).saturating_sub(1);
        self.passwords
            .get(at)
            .map(|it| Zeroizing::new((*it).to_owned()))
    }
}

/// That the daemon's own parser takes it, with the certificate, key and authority that belong together.
pub(crate) fn is_good(imported: &Imported) -> Config {
    let section = imported.section("home", "home");
    let config = Config::parse("cygnet.toml", &section.text, &mut |path| {
        let name = path.strip_prefix("home/").expect("its folder");
        let file = section.files.iter().find(|it| it.name == name);
        file.map(|it| it.bytes.to_vec())
            .ok_or_else(|| format!("no {path}"))
    });
    let config = config.unwrap_or_else(|error| panic!("{error}\n{}", section.text));
    if let Credentials::Certificate { .. } = imported.credentials {
        let bytes = |name: &str| {
            let file = section.files.iter().find(|it| it.name == name);
            file.map(|it| it.bytes.to_vec()).expect(name)
        };
        let openssl = OpenSsl::new();
        for name in ["client.crt", "client.key", "ca.crt"] {
            fs::write(openssl.directory.join(name), bytes(name)).expect("written");
        }
        openssl.run(
            "openssl verify -CAfile ca.crt -untrusted client.crt client.crt >&2
             openssl x509 -in client.crt -noout -pubkey >1; openssl pkey -in client.key -pubout >2; cmp 1 2",
        );
    }
    config
}

pub(crate) fn text_of(notes: &[Note]) -> String {
    notes.iter().map(|it| format!("{it}\n")).collect()
}
