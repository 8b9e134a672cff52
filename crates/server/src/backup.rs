//! Everything needed to come back on another machine: the SQLite file, with the `[server]` section in it, encrypted.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;

use cygnet_crypto::Random;
use rusqlite::Connection;
use zeroize::Zeroizing;

use crate::age;
use crate::configuration::{self, Check, Configuration};
use crate::error::{Error, Result, refused};
use crate::file;
use crate::published;
use crate::server::{Circumstances, Place, Server};
use crate::store::Vacant;

/// Refuses a passphrase that is soon guessed: the backup holds every key.
pub fn check_passphrase(passphrase: &str) -> Result<()> {
    match passphrase.chars().count() {
        12.. => Ok(()),
        length => refused(format!(
            "the passphrase has {length} characters: expected 12 or more; some words that nobody would put together"
        )),
    }
}

/// Refuses to write a backup over anything but a backup: a word too many, and a key or a disk is gone.
pub fn check_replaceable(file: &Path) -> Result<()> {
    let refuse = |what: &str| {
        refused(format!(
            "{} is there, and {what}: name another file, or remove that one first",
            file.display()
        ))
    };
    // A pipe would be waited for when it is opened.
    match fs::metadata(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::file("look at", file)(error)),
        Ok(metadata) if !metadata.is_file() => return refuse("is no file"),
        Ok(_) => {}
    }
    let mut begin = Vec::new();
    File::open(file)
        .and_then(|it| it.take(age::VERSION.len() as u64).read_to_end(&mut begin))
        .map_err(Error::file("read", file))?;
    match begin == age::VERSION.as_bytes() {
        true => Ok(()),
        false => refuse("is no backup"),
    }
}

impl Server {
    /// Writes the state to a file that only the passphrase opens.
    pub fn backup(&mut self, to: &Path, passphrase: &str, random: &mut dyn Random) -> Result<()> {
        check_passphrase(passphrase)?;
        check_replaceable(to)?;
        let configuration = Configuration::read(&self.place.config)?;
        self.store
            .connection
            .execute("UPDATE server SET section = ?", [configuration.section()])
            .map_err(self.store.error())?;
        // Nobody else writes while this command has the lock, and with a rollback journal the file is all there is.
        let path = &self.store.path;
        let state = fs::read(path).map_err(Error::file("read", path))?;
        let state = Zeroizing::new(state);
        file::replace(to, &age::seal(&state, passphrase, random))
    }

    /// Sets a server up from a backup where there is none; whatever fails, nothing stays behind.
    pub fn restore(
        place: &Place,
        backup: &[u8],
        passphrase: &str,
        with: &mut Circumstances<'_>,
        check: Check<'_>,
    ) -> Result<Self> {
        // Locked first, then looked at; dropped last.
        let vacant = Vacant::claim(&place.state_dir)?;
        let mut configuration = Configuration::read(&place.config)?;
        configuration.check_no_other()?;
        let opened = age::open(backup, passphrase)
            .map_err(|told| Error::Refused(format!("the backup cannot be opened: {told}")))?;
        let undo = published::make(&place.published())?;
        let store = vacant.fill(&opened)?;
        let nothing = || Error::Refused("the backup holds no server".into());
        let section = examine(&store.connection).map_err(store.error())?;
        let section = section.map_err(|told| {
            Error::Refused(format!("the backup holds a damaged database: {told}"))
        })?;
        let mut server = Self::load(store, place)?.ok_or_else(nothing)?;
        // systemd's units are those of the other machine.
        server.note_unit(None)?;
        server.publish(with, check).map_err(Error::before_commit)?;
        let section = match section {
            Some(section) => section,
            None => configuration::section(&server.settings()?),
        };
        let text = configuration.with_section(&section);
        configuration.replace(text, check)?;
        undo.keep();
        vacant.keep();
        Ok(server)
    }
}

/// The section it was saved with; or what SQLite finds wrong.
fn examine(
    connection: &Connection,
) -> rusqlite::Result<std::result::Result<Option<String>, String>> {
    let told: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    if told != "ok" {
        return Ok(Err(told));
    }
    let mut statement = connection.prepare("SELECT section FROM server")?;
    let section = statement.query_row([], |row| row.get(0));
    Ok(Ok(section.unwrap_or_default()))
}
