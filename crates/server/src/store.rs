//! The state: one SQLite file that one command at a time may open.
//!
//! Every change is one transaction, on the disk before anything outside shows it.

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use rustix::fs::{FlockOperation, flock};

use crate::error::{Error, Result, refused};
use crate::file::{self, Undo};

/// The file's name in the state directory.
pub const FILE: &str = "server.sqlite";
/// In SQLite's header: `CYGN`.
const APPLICATION_ID: i32 = 0x4359_474e;
/// `user_version` counts those that were applied. Never change one that was released: add another.
const MIGRATIONS: [&str; 1] = [include_str!("schema/1.sql")];
/// Commands take milliseconds; whoever waits longer should know why.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Store {
    pub(crate) connection: Connection,
    pub(crate) path: PathBuf,
    /// On the state directory; the kernel lets go of it with the process, however that ends.
    _lock: File,
}

impl Store {
    /// Opens what is there; `None` where there is nothing.
    pub(crate) fn open(state_dir: &Path) -> Result<Option<Self>> {
        let lock = match lock(state_dir) {
            Err(Error::File { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Ok(None);
            }
            lock => lock?,
        };
        let path = state_dir.join(FILE);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file("look at", &path)(error)),
            Ok(_) => Self::with(path, lock).map(Some),
        }
    }

    fn with(path: PathBuf, lock: File) -> Result<Self> {
        let metadata = fs::symlink_metadata(&path).map_err(Error::file("look at", &path))?;
        if !metadata.is_file() {
            return refused(format!(
                "{} is no file, and the server's state has to be one: move it away",
                path.display()
            ));
        }
        let connection = prepare(&path).map_err(|error| match error {
            Flaw::Sqlite(source) => Error::Store {
                path: path.clone(),
                source,
            },
            Flaw::Told(what) => Error::Refused(format!("{} {what}", path.display())),
        })?;
        Ok(Self {
            connection,
            path,
            _lock: lock,
        })
    }

    pub(crate) fn error(&self) -> impl Fn(rusqlite::Error) -> Error + use<> {
        let path = self.path.clone();
        move |source| Error::Store {
            path: path.clone(),
            source,
        }
    }
}

/// A place for a state where there was none when it was looked at under the lock, which it holds until it is dropped:
/// nothing that another command has made meanwhile is written over, or taken back.
pub(crate) struct Vacant {
    path: PathBuf,
    /// The state, and those of its directory and above it that were made for it; dropped before the lock.
    made: Undo,
    lock: File,
}

impl Vacant {
    /// Makes the state directory where it is missing; refuses one that holds a state.
    pub(crate) fn claim(state_dir: &Path) -> Result<Self> {
        let (mut made, lock) = loop {
            let mut made = Undo::default();
            made.note(state_dir);
            make_private_dir(state_dir)?;
            match lock(state_dir) {
                Ok(lock) => break (made, lock),
                // The command that held it took it away.
                Err(Error::File { source, .. }) if source.kind() == ErrorKind::NotFound => {
                    made.keep();
                }
                Err(error) => {
                    // It is another command's by now.
                    made.keep();
                    return Err(error);
                }
            }
        };
        let path = state_dir.join(FILE);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                made.note(&path);
                Ok(Self { path, made, lock })
            }
            Err(error) => Err(Error::file("look at", &path)(error)),
            Ok(_) if is_left_over(&path, &lock)? => Ok(Self { path, made, lock }),
            Ok(_) => refused(format!(
                "there is a server here already ({}); `cygnet server uninstall` removes it",
                path.display()
            )),
        }
    }

    /// Makes the state, with this content; empty is one that knows nothing yet.
    pub(crate) fn fill(&self, content: &[u8]) -> Result<Store> {
        // Before SQLite does: it would ask the umask who may read the keys.
        file::replace(&self.path, content)?;
        // One lock, held by both.
        let lock = self.lock.try_clone();
        Store::with(
            self.path.clone(),
            lock.map_err(Error::file("lock", &self.path))?,
        )
    }

    /// What was made for it stays.
    pub(crate) fn keep(self) {
        self.made.keep();
    }
}

/// Makes a directory that only its owner can look into, and those above it.
pub(crate) fn make_private_dir(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(Error::file("make the directory", path))
}

/// Keeps every other command that changes a server out, or writes where one does, until the file is dropped.
pub fn lock(state_dir: &Path) -> Result<File> {
    let until = Instant::now() + PATIENCE;
    let mut directory = File::open(state_dir).map_err(Error::file("open", state_dir))?;
    loop {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            // It may have been removed while it was waited for, and another may be in its place.
            Ok(()) if is_at(&directory, state_dir) => return Ok(directory),
            Ok(()) => {
                directory = File::open(state_dir).map_err(Error::file("open", state_dir))?;
            }
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => {
                sleep(Duration::from_millis(20));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::Busy(state_dir.to_owned())),
            Err(error) => return Err(Error::file("lock", state_dir)(error.into())),
        }
    }
}

/// Whether a state is that of a setting up that a crash cut short: it knows of no server.
fn is_left_over(path: &Path, lock: &File) -> Result<bool> {
    let lock = lock.try_clone().map_err(Error::file("lock", path))?;
    let store = Store::with(path.to_owned(), lock)?;
    let known = "SELECT count(*) FROM server";
    let servers = store.connection.query_row(known, [], |row| row.get(0));
    servers
        .map(|servers: i64| servers == 0)
        .map_err(store.error())
}

fn is_at(opened: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let there = fs::metadata(path).map(identity);
    there.is_ok_and(|there| opened.metadata().map(identity).is_ok_and(|it| it == there))
}

enum Flaw {
    Sqlite(rusqlite::Error),
    Told(String),
}

impl From<rusqlite::Error> for Flaw {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn prepare(path: &Path) -> std::result::Result<Connection, Flaw> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    // A rollback journal: one file at rest, which is also what a backup holds. `extra` syncs the directory as well, or
    // a power cut could bring the journal back and undo what was handed out.
    connection.pragma_update(None, "journal_mode", "delete")?;
    connection.pragma_update(None, "synchronous", "extra")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // What is deleted was a key: overwrite it, and let no temporary file hold one.
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    let number = |connection: &Connection, name: &str| {
        connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0))
    };
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let application = number(&connection, "application_id")?;
    if application != APPLICATION_ID && (tables > 0 || application != 0) {
        return Err(Flaw::Told(
            "is a database of another program; move it away".into(),
        ));
    }
    let version = number(&connection, "user_version")?;
    let version = usize::try_from(version).unwrap_or(usize::MAX);
    if version > MIGRATIONS.len() {
        return Err(Flaw::Told(format!(
            "was written by a newer cygnet (version {version} of its form, this one knows {}); install that one",
            MIGRATIONS.len()
        )));
    }
    for (at, migration) in MIGRATIONS.iter().enumerate().skip(version) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", at as i64 + 1)?;
        transaction.commit()?;
    }
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::issue::new_serial;
    use crate::server::Circumstances;
    use crate::testing::{Directory, TestRandom};

    fn create(state_dir: &Path) -> Store {
        let vacant = Vacant::claim(state_dir).expect("nothing there");
        let store = vacant.fill(b"").expect("made");
        vacant.keep();
        store
    }

    #[test]
    fn what_another_command_made_meanwhile_stays() {
        let directory = Directory::new("vacant");
        let state = directory.path().join("state");
        make_private_dir(&state).expect("made");
        let other = lock(&state).expect("free");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| Vacant::claim(&state).map(drop));
            sleep(Duration::from_millis(200));
            assert!(!waiting.is_finished(), "it waits for the lock");
            fs::write(state.join(FILE), "keys").expect("written");
            drop(other);
            let told = waiting.join().expect("no panic").expect_err("refused");
            assert!(told.to_string().contains("no database of cygnet"), "{told}");
        });
        assert_eq!(fs::read(state.join(FILE)).expect("still there"), b"keys");
    }

    #[test]
    fn a_directory_that_was_taken_away_is_made_anew() {
        let directory = Directory::new("taken-away");
        let state = directory.path().join("state");
        make_private_dir(&state).expect("made");
        let other = lock(&state).expect("free");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| create(&state).path.clone());
            sleep(Duration::from_millis(200));
            assert!(!waiting.is_finished(), "it waits for the lock");
            fs::remove_dir(&state).expect("removed");
            drop(other);
            let path = waiting.join().expect("made");
            assert!(path.exists(), "{}", path.display());
        });
        // What a crash left of a setting up is in nobody's way.
        drop(Vacant::claim(&state).expect("no server in it"));
        drop(Vacant::claim(&directory.path().join("deep/state")).expect("nothing there"));
        assert!(
            !directory.path().join("deep").exists(),
            "nothing stays behind"
        );
    }

    #[test]
    fn it_is_private_and_opens_again() {
        let directory = Directory::new("store");
        let state = directory.path().join("deep/state");
        assert!(Store::open(&state).expect("nothing there").is_none());
        let store = create(&state);
        for path in [&state, &store.path] {
            let mode = fs::metadata(path).expect("there").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", path.display());
        }
        drop(store);
        assert!(Store::open(&state).expect("opens").is_some());
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let directory = Directory::new("foreign");
        let refused = |change: &str| {
            let store = create(directory.path());
            let path = store.path.clone();
            store.connection.execute_batch(change).expect(change);
            drop(store);
            let before = fs::read(&path).expect("there");
            let told = Store::open(directory.path())
                .err()
                .expect(change)
                .to_string();
            assert!(fs::read(&path).expect("there") == before, "{change}");
            fs::remove_file(&path).expect("removed");
            told
        };
        assert!(refused("PRAGMA user_version = 99").contains("by a newer cygnet (version 99"));
        assert!(refused("PRAGMA application_id = 7").contains("database of another program"));
        assert!(refused("PRAGMA application_id = 0").contains("database of another program"));
        fs::write(directory.path().join(FILE), "text".repeat(300)).expect("written");
        let told = Store::open(directory.path())
            .err()
            .expect("text")
            .to_string();
        assert!(told.contains("no database of cygnet"), "{told}");
    }

    /// Draws the same again and again, and then something else.
    struct Stuck(usize, TestRandom);

    impl cygnet_crypto::Random for Stuck {
        fn fill(&mut self, out: &mut [u8]) {
            match self.0.checked_sub(1) {
                Some(left) => {
                    self.0 = left;
                    out.fill(7);
                }
                None => self.1.fill(out),
            }
        }
    }

    #[test]
    fn a_serial_that_was_given_is_drawn_again() {
        let directory = Directory::new("serial");
        let store = create(directory.path());
        let mut random = Stuck(5, TestRandom::new(1));
        let mut with = Circumstances {
            now: 1,
            random: &mut random,
        };
        let mut draw = || new_serial(&store.connection, &mut with).expect("a serial");
        let (first, second) = (draw(), draw());
        assert_eq!(first[1..], [7; 15]);
        assert_ne!(first, second);
        // Positive, and 16 octets however it is written.
        assert!(
            [&first, &second]
                .iter()
                .all(|it| it.len() == 16 && it[0] & 0xc0 == 0x40)
        );
    }
}
