//! A server as [Algo](https://github.com/trailofbits/algo) sets it up, and the files it hands to a user: as it was in
//! 2017, and as it is today. The certificates are made by openssl, the server is strongSwan with its starter.

mod certificates;
mod files;
mod server;

pub use server::serve;

use super::failure::Result;
use super::{Context, Lab};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The user whose files are handed out.
const USER: &str = "alice";
/// What opens the `.p12`; Algo prints it at the end.
const PASSWORD: &str = "xkCdP4ss";

/// Which Algo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Year {
    /// Of the original write-up: P-256, AES-128-GCM, RC2 in the `.p12`.
    Y2017,
    /// Today: P-384, AES-256-GCM, an authority with critical constraints.
    Y2026,
}

impl Year {
    fn curve(self) -> &'static str {
        match self {
            Self::Y2017 => "P-256",
            Self::Y2026 => "P-384",
        }
    }

    /// Proposals for IKE and ESP, as in `ipsec.conf`.
    fn proposals(self) -> (&'static str, &'static str) {
        match self {
            Self::Y2017 => ("aes128gcm16-prfsha512-ecp256!", "aes128gcm16-ecp256!"),
            Self::Y2026 => ("aes256gcm16-prfsha512-ecp384!", "aes256gcm16-ecp384!"),
        }
    }

    /// Where clients get their addresses from, IPv4 and IPv6.
    fn pools(self) -> (&'static str, &'static str) {
        match self {
            Self::Y2017 => ("10.19.48.0/24", "fd9d:bc11:4020::/48"),
            Self::Y2026 => ("10.48.0.0/16", "2001:db8:4160::/48"),
        }
    }
}

/// Files of one kind, which are enough to connect.
#[derive(Debug, Clone)]
pub struct Format {
    /// What they are called.
    pub title: &'static str,
    /// What is given to `cygnet import`.
    pub files: Vec<PathBuf>,
}

/// What one run of Algo has made on the computer of whoever ran it.
#[derive(Debug)]
pub struct Deployment {
    year: Year,
    address: String,
    /// `configs/<address>`
    configs: PathBuf,
    /// Certificates and keys of all.
    pki: PathBuf,
    password_file: PathBuf,
}

impl Deployment {
    /// Makes everything for a server at `address` and one user.
    pub fn make(lab: &Lab, year: Year, address: &str) -> Result<Self> {
        let configs = lab.subdirectory(&format!("configs/{address}"))?;
        let pki = configs.join(match year {
            Year::Y2017 => "pki",
            Year::Y2026 => "ipsec/.pki",
        });
        let password_file = lab.directory().join("p12-password");
        let deployment = Self {
            year,
            address: address.to_owned(),
            configs,
            pki,
            password_file,
        };
        write(&deployment.password_file, format!("{PASSWORD}\n"))?;
        certificates::make(&deployment)?;
        files::write_all(&deployment)?;
        Ok(deployment)
    }

    /// A file with the password of the `.p12`, for root alone.
    pub fn password_file(&self) -> &Path {
        &self.password_file
    }

    /// The formats that a user may choose from.
    pub fn formats(&self) -> Vec<Format> {
        let format = |title, files: &[&str]| Format {
            title,
            files: files.iter().map(|it| self.configs.join(it)).collect(),
        };
        match self.year {
            Year::Y2017 => vec![
                format(
                    "ipsec.conf and ipsec.secrets",
                    &["ipsec_alice.conf", "ipsec_alice.secrets"],
                ),
                format(".p12", &["alice.p12"]),
                format(".mobileconfig", &["alice.mobileconfig"]),
                format(".sswan", &["android_alice.sswan"]),
            ],
            Year::Y2026 => vec![
                format(
                    "ipsec.conf and ipsec.secrets",
                    &["ipsec/manual/alice.conf", "ipsec/manual/alice.secrets"],
                ),
                format(
                    ".p12 beside the ipsec.conf",
                    &["handed-out/alice.conf", "handed-out/alice.p12"],
                ),
                format(".p12", &["handed-out/alice.p12"]),
                format(".mobileconfig", &["ipsec/apple/alice.mobileconfig"]),
            ],
        }
    }

    /// The domain that today's authority certifies users in.
    fn domain(&self) -> String {
        let digits: String = (self.address.bytes())
            .map(|it| format!("{it:02x}"))
            .collect();
        format!("{}-5e1f.algo", digits.get(..8).unwrap_or(&digits))
    }
}

/// A file that only root may read, and the directory it lies in.
fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).context(format!("cannot create {}", directory.display()))?;
    }
    fs::write(path, content).context(format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}
