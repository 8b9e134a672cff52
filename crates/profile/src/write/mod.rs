//! A [`Profile`](crate::Profile) as files for each family of devices.
//!
//! One module a format; [`site_files`] does the same for one end of a tunnel between two offices. Each gets the same [`Facts`]: the profile's texts, checked once, and what several formats
//! share. A format that cannot carry what the server asks for is left out, and the page of instructions says why;
//! a text that no format should carry is an error before anything is written.

mod android;
mod apple;
mod bundle;
mod error;
mod facts;
mod ipsec;
mod networkmanager;
mod page;
mod proposals;
mod routeros;
mod site;
mod swanctl;
mod text;
mod windows;

use zeroize::Zeroizing;

use crate::Profile;
use facts::Facts;

pub use error::Error;
pub use site::{Gateway, files as site_files};
pub(crate) use swanctl::PASSWORD_GOES_HERE;
pub use text::check_ssid;

/// One file of a device's folder.
pub struct File {
    /// Below the device's folder, with `/` between the names: at most two folders deep, letters, digits, `.` and `-`.
    pub path: String,
    /// Contents.
    pub bytes: Zeroizing<Vec<u8>>,
    /// Holds a private key, in clear or under a password: mode 0600.
    pub secret: bool,
}

/// All files for the device, the page of instructions first.
pub fn files(profile: &Profile) -> Result<Vec<File>, Error> {
    let facts = Facts::of(profile)?;
    let mut files = Vec::new();
    files.extend(apple::file(&facts)?);
    files.push(android::file(&facts)?);
    files.extend(windows::files(&facts));
    files.push(networkmanager::file(&facts));
    files.extend(networkmanager::credentials(&facts));
    files.extend(swanctl::files(&facts));
    files.extend(ipsec::files(&facts));
    files.extend(bundle::file(&facts)?);
    files.extend(routeros::files(&facts));
    files.extend(
        facts
            .key()
            .map(|key| File::secret(format!("{}.p12", facts.stem), key.p12.clone())),
    );
    files.insert(0, page::file(&facts, &files)?);
    Ok(files)
}

impl File {
    fn public(path: String, text: impl Into<Vec<u8>>) -> Self {
        Self {
            path,
            bytes: Zeroizing::new(text.into()),
            secret: false,
        }
    }

    fn secret(path: String, bytes: Zeroizing<Vec<u8>>) -> Self {
        Self {
            path,
            bytes,
            secret: true,
        }
    }
}
