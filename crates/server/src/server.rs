//! The server: its authority, its own certificate, and every change to its state.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use cygnet_crypto::Random;
use cygnet_pki::authority::{Authority, KeyKind};
use ipnet::IpNet;
use rusqlite::{OptionalExtension, Transaction, TransactionBehavior};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::configuration::{self, Check, Configuration};
use crate::error::{Error, Flaw, Result, refused};
use crate::hex;
use crate::issue::{certify_server, found, store_setting};
use crate::name::Address;
use crate::published::{self, DIRECTORY, FILES, Published};
use crate::store::{self, Store, Vacant, make_private_dir};
use crate::time::DAY;

/// How long a server's certificate is valid, from its first moment to its last. Apple's devices take 825 days, and
/// RFC 5280 counts the last second as well: a day less leaves no doubt.
pub const CERTIFICATE_VALIDITY: i64 = 824 * DAY;

/// Where things are.
#[derive(Clone, Debug)]
pub struct Place {
    /// `cygnet.toml`; what is published is beside it.
    pub config: PathBuf,
    /// Where the state is.
    pub state_dir: PathBuf,
}

impl Place {
    /// What the daemon reads.
    pub fn published(&self) -> PathBuf {
        let beside = self.config.parent().unwrap_or(Path::new("."));
        beside.join(DIRECTORY)
    }

    /// The state.
    pub fn state(&self) -> PathBuf {
        self.state_dir.join(store::FILE)
    }
}

/// What a change does not bring along itself.
pub struct Circumstances<'a> {
    /// Seconds since 1970.
    pub now: i64,
    /// For serial numbers, identifiers and passwords. Keys are drawn by the library that makes them.
    pub random: &'a mut dyn Random,
}

/// What is said at `init`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What clients call it; the first is its identity.
    pub addresses: Vec<Address>,
    /// Lent to clients.
    pub pools: Vec<IpNet>,
    /// Resolvers handed out.
    pub dns: Vec<IpAddr>,
    /// Where clients' traffic leaves; none: by the default route.
    pub uplink: Option<String>,
    /// Kind of all keys made here.
    pub key: Key,
}

/// Kind of the keys that are made: those which every family of devices takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Key {
    /// ECDSA on P-256.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// RSA with 3072 bits.
    Rsa3072,
}

impl Key {
    pub(crate) fn kind(self) -> KeyKind {
        match self {
            Self::EcdsaP256 => KeyKind::EcdsaP256,
            Self::EcdsaP384 => KeyKind::EcdsaP384,
            Self::Rsa3072 => KeyKind::Rsa3072,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EcdsaP256 => "p256",
            Self::EcdsaP384 => "p384",
            Self::Rsa3072 => "rsa3072",
        })
    }
}

impl FromStr for Key {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "p256" => Ok(Self::EcdsaP256),
            "p384" => Ok(Self::EcdsaP384),
            "rsa3072" => Ok(Self::Rsa3072),
            _ => refused(format!(
                "{text:?} is no kind of key: expected p256, p384 or rsa3072"
            )),
        }
    }
}

/// What was done to systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The unit was there, and was enabled.
    Enabled,
    /// The unit was written as well.
    Written,
}

/// What `server show` says.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// In every client's identity.
    pub id: String,
    /// What clients call it.
    pub addresses: Vec<String>,
    /// Lent to clients.
    pub pools: Vec<IpNet>,
    /// Resolvers handed out.
    pub dns: Vec<IpAddr>,
    /// Where clients' traffic leaves.
    pub uplink: Option<String>,
    /// Kind of its keys.
    pub key: String,
    /// SHA-256 of the authority's certificate.
    pub authority_fingerprint: String,
    /// Seconds since 1970.
    pub authority_not_after: i64,
    /// Of the server's certificate.
    pub certificate_serial: String,
    /// Seconds since 1970.
    pub certificate_not_after: i64,
    /// How many.
    pub users: i64,
    /// How many.
    pub devices: i64,
    /// Whether `[server]` in the configuration is ours.
    pub configured: bool,
}

/// A server that is set up, for this command alone.
pub struct Server {
    pub(crate) store: Store,
    pub(crate) place: Place,
    pub(crate) authority: Authority,
    pub(crate) id: String,
    pub(crate) key: Key,
}

impl Server {
    /// Sets a server up where there is none; whatever fails, nothing stays behind.
    pub fn init(
        place: &Place,
        settings: &Settings,
        with: &mut Circumstances<'_>,
        check: Check<'_>,
    ) -> Result<Self> {
        // Locked first, then looked at; dropped last.
        let vacant = Vacant::claim(&place.state_dir)?;
        let mut configuration = Configuration::read(&place.config)?;
        configuration.check_no_other()?;
        let undo = published::make(&place.published())?;
        let mut store = vacant.fill(b"")?;
        let error = store.error();
        let transaction = store
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(&error)?;
        found(&transaction, settings, with).map_err(|flaw| flaw.with(&error))?;
        transaction.commit().map_err(&error)?;
        let mut server = Self::load(store, place)?.ok_or_else(|| {
            Error::Refused(format!(
                "{} does not hold what was written",
                place.state().display()
            ))
        })?;
        server.publish(with, check).map_err(Error::before_commit)?;
        let text = configuration.with_section(&configuration::section(settings));
        configuration.replace(text, check)?;
        undo.keep();
        vacant.keep();
        Ok(server)
    }

    /// Opens the server that is set up; `None` where there is none. What an earlier command did not come to publish is
    /// published now; where that fails, the second value says why.
    pub fn open(
        place: &Place,
        with: &mut Circumstances<'_>,
        check: Check<'_>,
    ) -> Result<Option<(Self, Option<Error>)>> {
        let Some(store) = Store::open(&place.state_dir)? else {
            return Ok(None);
        };
        let Some(mut server) = Self::load(store, place)? else {
            return Ok(None);
        };
        let current: bool = server
            .store
            .connection
            .query_row("SELECT published = generation FROM server", [], |row| {
                row.get(0)
            })
            .map_err(server.store.error())?;
        let whole = FILES
            .iter()
            .all(|name| fs::symlink_metadata(place.published().join(name)).is_ok());
        let flaw = match current && whole {
            true => None,
            false => server.publish(with, check).err(),
        };
        Ok(Some((server, flaw)))
    }

    pub(crate) fn load(store: Store, place: &Place) -> Result<Option<Self>> {
        let row = store
            .connection
            .query_row(
                "SELECT id, key_kind, certificate, key FROM server",
                [],
                |row| {
                    let key = Zeroizing::new(row.get::<_, Vec<u8>>(3)?);
                    let certificate: Vec<u8> = row.get(2)?;
                    Ok((
                        row.get::<_, String>(0)?,
                        row.get::<_, String>(1)?,
                        certificate,
                        key,
                    ))
                },
            )
            .optional()
            .map_err(store.error())?;
        let Some((id, kind, certificate, key)) = row else {
            return Ok(None);
        };
        Ok(Some(Self {
            authority: Authority::open(&certificate, &key)?,
            id,
            key: kind.parse()?,
            place: place.clone(),
            store,
        }))
    }

    /// Writes `[server]` where it is missing, as after a crash of `init`. Returns whether it was.
    pub fn complete(&mut self, check: Check<'_>) -> Result<bool> {
        let mut configuration = Configuration::read(&self.place.config)?;
        if configuration.is_ours() {
            return Ok(false);
        }
        configuration.check_no_other()?;
        let text = configuration.with_section(&configuration::section(&self.settings()?));
        configuration.replace(text, check)?;
        Ok(true)
    }

    /// What was said at `init`, or changed since.
    pub fn settings(&self) -> Result<Settings> {
        let uplink = self
            .store
            .connection
            .query_row("SELECT uplink FROM server", [], |row| row.get(0))
            .map_err(self.store.error())?;
        let mut settings = Settings {
            addresses: self.setting("address")?,
            pools: self.setting("pool")?,
            dns: self.setting("dns")?,
            uplink,
            key: self.key,
        };
        Configuration::read(&self.place.config)?.overlay(&mut settings);
        Ok(settings)
    }

    pub(crate) fn setting<T: FromStr>(&self, kind: &str) -> Result<Vec<T>> {
        let read = || -> rusqlite::Result<Vec<String>> {
            let mut statement = self
                .store
                .connection
                .prepare("SELECT value FROM setting WHERE kind = ? ORDER BY position")?;
            statement.query_map([kind], |row| row.get(0))?.collect()
        };
        let values = read().map_err(self.store.error())?;
        values
            .iter()
            .map(|value| {
                value.parse().map_err(|_| {
                    Error::Refused(format!(
                        "{}: {value:?} is stored as {kind}, but is none; restore a backup",
                        self.store.path.display()
                    ))
                })
            })
            .collect()
    }

    /// A new certificate for the server's own key, with the addresses it has. Clients see no difference.
    pub fn renew(&mut self, with: &mut Circumstances<'_>, check: Check<'_>) -> Result<()> {
        let addresses: Vec<Address> = self.setting("address")?;
        self.change(with, check, |transaction, authority, with| {
            certify_server(transaction, authority, &addresses, with)
        })
    }

    /// Other addresses, and a new certificate that holds them. Returns whose files name an address that is gone.
    pub fn set_addresses(
        &mut self,
        addresses: &[Address],
        with: &mut Circumstances<'_>,
        check: Check<'_>,
    ) -> Result<Vec<String>> {
        check(&self.place.config)
            .map_err(|told| Error::Refused(format!("mend the configuration first: {told}")))?;
        self.change(with, check, |transaction, authority, with| {
            store_setting(transaction, "address", addresses)?;
            certify_server(transaction, authority, addresses, with)
        })?;
        self.outdated(addresses)
    }

    fn outdated(&self, addresses: &[Address]) -> Result<Vec<String>> {
        let read = || -> rusqlite::Result<Vec<(String, String)>> {
            let mut statement = self.store.connection.prepare(
                "SELECT user.name || '/' || device.name AS who, device.handed_out FROM device
                     JOIN user ON user.id = device.user WHERE device.handed_out IS NOT NULL
                 UNION ALL
                 SELECT name || ' (password)', handed_out FROM user WHERE handed_out IS NOT NULL
                 ORDER BY who",
            )?;
            statement
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        };
        let known: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let all = read().map_err(self.store.error())?;
        let gone = all
            .into_iter()
            .filter(|(_, address)| !known.contains(address));
        Ok(gone.map(|(who, _)| who).collect())
    }

    /// What `server show` says.
    pub fn summary(&self) -> Result<Summary> {
        let settings = self.settings()?;
        let read = || {
            self.store.connection.query_row(
                "SELECT serial, not_after, (SELECT count(*) FROM user), (SELECT count(*) FROM device)
                 FROM server_certificate ORDER BY position DESC LIMIT 1",
                [],
                |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
            )
        };
        let (serial, certificate_not_after, users, devices) = read().map_err(self.store.error())?;
        let fingerprint = cygnet_crypto::digest::sha256(&[self.authority.certificate_der()]);
        Ok(Summary {
            id: self.id.clone(),
            addresses: settings.addresses.iter().map(ToString::to_string).collect(),
            pools: settings.pools,
            dns: settings.dns,
            uplink: settings.uplink,
            key: settings.key.to_string(),
            authority_fingerprint: hex(&fingerprint),
            authority_not_after: self.authority_end()?,
            certificate_serial: hex(&serial),
            certificate_not_after,
            users,
            devices,
            configured: Configuration::read(&self.place.config)?.is_ours(),
        })
    }

    /// Whether the running daemon has taken up all that was published.
    pub fn is_confirmed(&self) -> Result<bool> {
        let confirmed = "SELECT confirmed = generation FROM server";
        self.store
            .connection
            .query_row(confirmed, [], |row| row.get(0))
            .map_err(self.store.error())
    }

    /// Notes that the running daemon has taken up what is published now.
    pub fn confirm(&mut self) -> Result<()> {
        self.store
            .connection
            .execute("UPDATE server SET confirmed = published", [])
            .map(|_| ())
            .map_err(self.store.error())
    }

    /// Notes what was done to systemd, or that it was undone.
    pub fn note_unit(&mut self, unit: Option<Unit>) -> Result<()> {
        let unit = unit.map(|it| match it {
            Unit::Enabled => "enabled",
            Unit::Written => "written",
        });
        self.store
            .connection
            .execute("UPDATE server SET unit = ?", [unit])
            .map(|_| ())
            .map_err(self.store.error())
    }

    /// What was done to systemd.
    pub fn unit(&self) -> Result<Option<Unit>> {
        let unit: Option<String> = self
            .store
            .connection
            .query_row("SELECT unit FROM server", [], |row| row.get(0))
            .map_err(self.store.error())?;
        Ok(unit.map(|it| match it.as_str() {
            "written" => Unit::Written,
            _ => Unit::Enabled,
        }))
    }

    /// Removes state, published files and `[server]`; a configuration in which nothing else is goes as a whole.
    /// Directories that hold something else stay. `reload` lets a daemon that runs read what is left, before the file goes.
    pub fn uninstall<T>(self, check: Check<'_>, reload: impl FnOnce() -> T) -> Result<T> {
        let mut configuration = Configuration::read(&self.place.config)?;
        let mut is_empty = false;
        if configuration.is_ours() {
            let rest = configuration.without_section();
            is_empty = rest.is_none();
            configuration.replace(rest.unwrap_or_default(), check)?;
        }
        let published = self.place.published();
        for path in FILES.iter().map(|name| published.join(name)) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::file("remove", &path)(error));
                }
                _ => {}
            }
        }
        let state = self.place.state();
        fs::remove_file(&state).map_err(Error::file("remove", &state))?;
        let reloaded = reload();
        if is_empty {
            configuration.remove()?;
        }
        for directory in [&published, &self.place.state_dir] {
            // One that holds something else stays.
            let _ = fs::remove_dir(directory);
        }
        Ok(reloaded)
    }

    pub(crate) fn authority_end(&self) -> Result<i64> {
        self.store
            .connection
            .query_row("SELECT not_after FROM server", [], |row| row.get(0))
            .map_err(self.store.error())
    }

    /// Makes the daemon's files show the state.
    pub(crate) fn publish(&mut self, with: &mut Circumstances<'_>, check: Check<'_>) -> Result<()> {
        self.change(with, check, |_, _, _| Ok(()))
    }

    /// One change: in the state as a whole or not at all, and then in the daemon's files, which are on the disk before
    /// the state says that the change is made. A full disk is met while there is nothing to take back.
    pub(crate) fn change<T>(
        &mut self,
        with: &mut Circumstances<'_>,
        check: Check<'_>,
        make: impl FnOnce(
            &Transaction<'_>,
            &Authority,
            &mut Circumstances<'_>,
        ) -> std::result::Result<T, Flaw>,
    ) -> Result<T> {
        let error = self.store.error();
        let until = self.authority_end()?;
        let directory = self.place.published();
        make_private_dir(&directory)?;
        let transaction = self
            .store
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(&error)?;
        let made = make(&transaction, &self.authority, with).map_err(|flaw| flaw.with(&error))?;
        transaction
            .execute(
                "UPDATE server SET generation = generation + 1, crl_number = crl_number + 1",
                [],
            )
            .map_err(&error)?;
        let staged = Published::render(&transaction, &self.authority, with.now, until)
            .map_err(|flaw| flaw.with(&error))?
            .stage(&directory)?;
        transaction.commit().map_err(&error)?;
        self.show(staged, &directory, check)
            .map_err(|error| Error::Unpublished(Box::new(error)))?;
        Ok(made)
    }

    /// Puts the files in place. At no moment does the configuration name an identity that the certificate beside it
    /// does not hold: a daemon that starts just then would refuse it.
    fn show(
        &mut self,
        staged: Vec<crate::file::Staged>,
        directory: &Path,
        check: Check<'_>,
    ) -> Result<()> {
        let addresses: Vec<String> = self
            .setting::<Address>("address")?
            .iter()
            .map(ToString::to_string)
            .collect();
        let mut configuration = Configuration::read(&self.place.config)?;
        let identity = configuration.identity();
        let fits = identity.is_some_and(|identity| addresses.contains(&identity));
        let change = configuration.is_ours() && !fits;
        if change && let Some(text) = configuration.with_identity(None) {
            configuration.replace(text, check)?;
        }
        published::place(staged, directory)?;
        if change
            && let Some(text) = configuration.with_identity(addresses.first().map(String::as_str))
        {
            configuration.replace(text, check)?;
        }
        // If this fails the next command publishes once more, which does no harm.
        let _ = self
            .store
            .connection
            .execute("UPDATE server SET published = generation", []);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Directory, TestRandom};

    #[test]
    fn who_runs_reads_a_configuration_without_a_server_before_the_file_goes() {
        for more in ["", "[daemon]\nlog = \"debug\"\n"] {
            let directory = Directory::new(&format!("uninstall-{}", more.len()));
            let place = Place {
                config: directory.path().join("cygnet.toml"),
                state_dir: directory.path().join("state"),
            };
            if !more.is_empty() {
                fs::write(&place.config, more).unwrap();
            }
            let settings = Settings {
                addresses: vec!["203.0.113.5".parse().unwrap()],
                pools: vec!["10.9.0.0/24".parse().unwrap()],
                dns: Vec::new(),
                uplink: None,
                key: Key::default(),
            };
            let mut random = TestRandom::new(1);
            let mut with = Circumstances {
                now: 1_800_000_000,
                random: &mut random,
            };
            let server = Server::init(&place, &settings, &mut with, &|_| Ok(())).unwrap();
            let read = server.uninstall(&|_| Ok(()), || fs::read_to_string(&place.config));
            assert_eq!(read.unwrap().unwrap(), more);
            assert_eq!(place.config.exists(), !more.is_empty());
            assert!(!place.state().exists() && !place.published().exists());
        }
    }
}
