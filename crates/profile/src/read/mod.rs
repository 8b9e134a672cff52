//! The files of Algo and others, as a tunnel of ours.
//!
//! [`import`] takes all files of one person at once: what describes the connection (an `ipsec.conf`, a
//! `swanctl.conf`, a `.mobileconfig`, a `.sswan`, a [bundle](crate::Bundle)), and what proves who one is (`.p12`, PEM).
//! What a description names is looked for among the files given, and then beside them.
//!
//! Nothing is believed: sizes, counts and nesting are bounded, a description names files but never their folders, and
//! a certificate, its key and its authority are matched by what they are rather than by what they are called.

mod android;
mod apple;
mod bundle;
mod draft;
mod imported;
mod kind;
mod legacy;
mod material;
mod proposals;
mod section;
mod swanctl;

use cygnet_pki::UnixTime;
use zeroize::Zeroizing;

pub(crate) use draft::tunnel_name;
pub use imported::{Credentials, Error, Imported, Note, Place, Subject, printable};
pub use section::{File as KeyFile, Section, quoted};

use draft::Draft;
use kind::Kind;
use material::Material;

/// No description of a connection, and no certificate, is larger.
pub const FILE_MAX: usize = 1 << 20;
/// More files than anyone was handed for one connection.
pub const FILES_MAX: usize = 64;
/// How often a password is asked for.
pub const PASSWORD_TRIES: u32 = 3;

/// A file that was given.
#[derive(Clone)]
pub struct File {
    /// Its name without its folder.
    pub name: String,
    /// What it holds; often a secret.
    pub bytes: Zeroizing<Vec<u8>>,
}

impl File {
    /// As text, without the mark that some editors put at its beginning.
    fn text(&self) -> Result<&str, Error> {
        let text = std::str::from_utf8(&self.bytes).map_err(|error| {
            let text = format!("not UTF-8 at byte {}", error.valid_up_to());
            Error::at(&Place::file(&self.name), text)
        })?;
        Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
    }
}

/// What is around the files that were given.
pub trait Surroundings {
    /// The content of a file by its path relative to the files given; `None`: there is none. At most
    /// [`FILE_MAX`] bytes.
    fn read(&mut self, path: &str) -> Option<Zeroizing<Vec<u8>>>;

    /// Names of the files in a folder, sorted; at most [`FILES_MAX`].
    fn list(&mut self, folder: &str) -> Vec<String>;

    /// The password of a `.p12`, or of a user, as `whose` says; `attempt` counts from 1, at most [`PASSWORD_TRIES`] are
    /// made. `None`: nobody knows.
    fn password(&mut self, whose: &str, attempt: u32) -> Option<Zeroizing<String>>;
}

/// What was said beside the files.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which connection of several.
    pub connection: Option<String>,
    /// The server's name or address, where the files do not tell or are to be corrected.
    pub remote: Option<String>,
    /// The time, to judge certificates; `None`: the clock is not set.
    pub now: Option<UnixTime>,
}

/// Reads the files of one connection.
///
/// # Errors
/// With file and line, where there is nothing to connect with, or what stands there cannot be done.
pub fn import(
    files: &[File],
    around: &mut dyn Surroundings,
    options: &Options,
) -> Result<Imported, Error> {
    if files.is_empty() {
        return Err(Error::new("no file was named"));
    }
    if files.len() > FILES_MAX {
        return Err(Error::new(format!("at most {FILES_MAX} files at once")));
    }
    let mut material = Material::default();
    let mut notes = Vec::new();
    let mut description: Option<(&File, Kind)> = None;
    for file in files {
        if file.bytes.len() > FILE_MAX {
            let text = format!("{} bytes, expected at most {FILE_MAX}", file.bytes.len());
            return Err(Error::at(&Place::file(&file.name), text));
        }
        let kind = kind::of(file)?;
        if kind.is_description() {
            if let Some((other, _)) = description {
                let text = format!(
                    "describes a connection, as {} does; import one after the other",
                    other.name
                );
                return Err(Error::at(&Place::file(&file.name), text));
            }
            description = Some((file, kind));
        } else {
            material.add_given(file, kind, &mut notes)?;
        }
    }
    let mut draft = match description {
        Some((file, Kind::IpsecConf)) => legacy::read(file, &mut material, around, options)?,
        Some((file, Kind::Swanctl)) => swanctl::read(file, &mut material, around, options)?,
        Some((file, Kind::MobileConfig)) => apple::read(file, &mut material)?,
        Some((file, Kind::Sswan)) => android::read(file, &mut material)?,
        Some((file, _)) => bundle::read(file, &mut material)?,
        None => Draft::default(),
    };
    notes.append(&mut draft.notes);
    draft.notes = notes;
    draft.finish(material, around, options)
}
