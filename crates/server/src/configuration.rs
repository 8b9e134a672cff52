//! The `[server]` section of `cygnet.toml`: written between two marks, so that it can be changed and removed without
//! touching a word of what a person wrote.

use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use cygnet_profile::read::quoted;

use crate::error::{Error, Result, refused};
use crate::file::{Staged, sync_dir};
use crate::published::DIRECTORY;
use crate::server::Settings;

const BEGIN: &str = "# cygnet server: begin. Keys may be added up to the end; `cygnet server uninstall` removes all of it.";
const END: &str = "# cygnet server: end.";
const BEGIN_MARK: &str = "# cygnet server: begin";
const END_MARK: &str = "# cygnet server: end";

/// Judges a configuration, with the files it names, as the daemon would.
pub type Check<'c> = &'c dyn Fn(&Path) -> std::result::Result<(), String>;

/// The text of a configuration, and where in it our section is.
pub struct Configuration {
    path: PathBuf,
    text: String,
    /// Mode of the file; none where there is no file.
    mode: Option<u32>,
    ours: Option<Range<usize>>,
}

/// What was written for the program itself, as far as it is needed to find things.
#[derive(Default, serde::Deserialize)]
struct Partial {
    #[serde(default)]
    daemon: Daemon,
    server: Option<toml::Table>,
}

/// Directories of `[daemon]`.
#[derive(Default, serde::Deserialize)]
struct Daemon {
    state_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
}

impl Configuration {
    /// Reads the file; one that is not there is empty.
    pub fn read(path: &Path) -> Result<Self> {
        let (text, mode) = match content(path)? {
            Some(text) => {
                let metadata = fs::metadata(path).map_err(Error::file("look at", path))?;
                (text, Some(metadata.permissions().mode() & 0o7777))
            }
            None => (String::new(), None),
        };
        let ours =
            ours(&text).map_err(|what| Error::Refused(format!("{}: {what}", path.display())))?;
        Ok(Self {
            path: path.to_owned(),
            text,
            mode,
            ours,
        })
    }

    /// `state_dir` and `run_dir` of `[daemon]`.
    pub fn directories(&self) -> Result<(Option<PathBuf>, Option<PathBuf>)> {
        let daemon = self.partial()?.daemon;
        Ok((daemon.state_dir, daemon.run_dir))
    }

    /// Whether our section is there.
    pub fn is_ours(&self) -> bool {
        self.ours.is_some()
    }

    /// Refuses a `[server]` that is not ours.
    pub(crate) fn check_no_other(&self) -> Result<()> {
        let inside = self.ours.clone().unwrap_or(0..0);
        let outside = [&self.text[..inside.start], &self.text[inside.end..]].concat();
        let partial: Partial = parse(&self.path, &outside)?;
        if partial.server.is_some() {
            return refused(format!(
                "{} has a [server] section that `cygnet server init` did not write: remove it, or keep it and go on \
                 without `cygnet server`",
                self.path.display()
            ));
        }
        Ok(())
    }

    /// Our section as it stands, without the marks.
    pub(crate) fn section(&self) -> Option<&str> {
        let text = self.text.get(self.ours.clone()?)?;
        let (_, rest) = text.split_once('\n')?;
        let end = rest.rfind(END_MARK)?;
        rest.get(..end)
    }

    /// The identity that our section names.
    pub(crate) fn identity(&self) -> Option<String> {
        let table: toml::Table = toml::from_str(self.section()?).ok()?;
        let identity = table.get("server")?.get("identity")?.as_str()?;
        Some(identity.to_owned())
    }

    /// Puts in what our section says by now: pools, resolvers and uplink are a person's to change there.
    pub(crate) fn overlay(&self, settings: &mut Settings) {
        let table = self
            .section()
            .and_then(|it| toml::from_str::<toml::Table>(it).ok());
        let Some(server) = table.as_ref().and_then(|it| it.get("server")) else {
            return;
        };
        if let Some(pools) = list(server.get("pools")) {
            settings.pools = pools;
        }
        if let Some(dns) = list(server.get("dns")) {
            settings.dns = dns;
        }
        settings.uplink = server
            .get("uplink")
            .and_then(|it| it.as_str())
            .map(str::to_owned);
    }

    /// With a section of ours behind the rest, or in place of the one that is there.
    pub(crate) fn with_section(&self, section: &str) -> String {
        let section = format!("{BEGIN}\n{}\n{END}\n", section.trim_end());
        match self.ours.clone() {
            Some(ours) => [&self.text[..ours.start], &section, &self.text[ours.end..]].concat(),
            None if self.text.is_empty() => section,
            None if self.text.ends_with('\n') => [&self.text, "\n", &section].concat(),
            None => [&self.text, "\n\n", &section].concat(),
        }
    }

    /// With this identity in our section, or with none, which stands for the certificate's subject.
    pub(crate) fn with_identity(&self, identity: Option<&str>) -> Option<String> {
        let section = self.section()?;
        let is_identity = |line: &&str| {
            line.trim_start()
                .strip_prefix("identity")
                .is_some_and(|rest| rest.trim_start().starts_with('='))
        };
        let mut out = String::new();
        for line in section.lines().filter(|line| !is_identity(line)) {
            out.push_str(line);
            out.push('\n');
            if let Some(identity) = identity.filter(|_| line.trim() == "[server]") {
                out.push_str(&format!("identity = {}\n", quoted(identity)));
            }
        }
        Some(self.with_section(&out))
    }

    /// Without our section; `None` where nothing else is left.
    pub(crate) fn without_section(&self) -> Option<String> {
        let ours = self.ours.clone()?;
        let before = self.text[..ours.start].trim_end_matches('\n');
        let behind = self.text[ours.end..].trim_start_matches('\n');
        match (before.is_empty(), behind.is_empty()) {
            (true, true) => None,
            (false, true) => Some(format!("{before}\n")),
            (true, false) => Some(behind.to_owned()),
            (false, false) => Some(format!("{before}\n\n{behind}")),
        }
    }

    /// Replaces the file by this text, if the daemon would take it, and the file is still what the text was made from.
    pub(crate) fn replace(&mut self, text: String, check: Check<'_>) -> Result<()> {
        let staged = Staged::write(&self.path, text.as_bytes())?;
        staged.set_mode(self.mode.unwrap_or(0o600))?;
        check(staged.new_path()).map_err(|told| {
            let (new, path) = (staged.new_path().display(), self.path.display());
            let told = told.replace(&new.to_string(), &path.to_string());
            Error::Refused(format!(
                "{path} would not be good, and stays as it was: {told}"
            ))
        })?;
        if content(&self.path)?.unwrap_or_default() != self.text {
            return refused(format!(
                "{} was changed by somebody else meanwhile, and stays as it is: run the command once more",
                self.path.display()
            ));
        }
        staged.place()?;
        sync_dir(self.path.parent().unwrap_or(Path::new(".")))?;
        *self = Self::read(&self.path)?;
        Ok(())
    }

    /// Removes the file, unless somebody else has written it meanwhile.
    pub(crate) fn remove(&self) -> Result<()> {
        if content(&self.path)?.is_some_and(|now| now != self.text) {
            return Ok(());
        }
        fs::remove_file(&self.path).map_err(Error::file("remove", &self.path))
    }

    fn partial(&self) -> Result<Partial> {
        parse(&self.path, &self.text)
    }
}

/// What is in the file; nothing where there is none.
fn content(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path)(error)),
    }
}

fn parse(path: &Path, text: &str) -> Result<Partial> {
    toml::from_str(text).map_err(|error| {
        Error::Refused(format!(
            "{0} cannot be read ({1}); `cygnet check --config {0}` shows where",
            path.display(),
            error.message().replace('\n', "; ")
        ))
    })
}

fn list<T: FromStr>(written: Option<&toml::Value>) -> Option<Vec<T>> {
    let items = written?.as_array()?.iter();
    items.map(|it| it.as_str()?.parse().ok()).collect()
}

/// The section that these settings become. The daemon's files are named here and nowhere else.
pub(crate) fn section(settings: &Settings) -> String {
    let identity = settings.addresses.first().map(ToString::to_string);
    let mut lines = vec![
        "[server]".to_owned(),
        format!("identity = {}", quoted(&identity.unwrap_or_default())),
        format!("certificate = \"{DIRECTORY}/server.crt\""),
        format!("key = \"{DIRECTORY}/server.key\""),
        format!("ca = \"{DIRECTORY}/ca.crt\""),
        format!("crl = \"{DIRECTORY}/ca.crl\""),
        format!("passwords = \"{DIRECTORY}/passwords\""),
        format!("devices = \"{DIRECTORY}/devices.json\""),
        format!("pools = {}", array(&settings.pools)),
        format!("dns = {}", array(&settings.dns)),
    ];
    if let Some(uplink) = &settings.uplink {
        lines.push(format!("uplink = {}", quoted(uplink)));
    }
    lines.join("\n") + "\n"
}

fn array<T: ToString>(items: &[T]) -> String {
    let quoted: Vec<String> = items.iter().map(|it| quoted(&it.to_string())).collect();
    format!("[{}]", quoted.join(", "))
}

/// From the line of the first mark to the end of the second's.
fn ours(text: &str) -> std::result::Result<Option<Range<usize>>, String> {
    let mut at = 0;
    let (mut begin, mut end) = (None, None);
    for line in text.split_inclusive('\n') {
        if line.starts_with(BEGIN_MARK) && begin.replace(at).is_some() {
            return Err(format!(
                "the line `{BEGIN_MARK}` is there twice; remove one of them"
            ));
        }
        at += line.len();
        if line.starts_with(END_MARK) && end.replace(at).is_some() {
            return Err(format!(
                "the line `{END_MARK}` is there twice; remove one of them"
            ));
        }
    }
    match (begin, end) {
        (None, None) => Ok(None),
        // Marks are comments: a text means the same without them, unless they stand inside a value.
        (Some(_), Some(_)) if !means_the_same_without_marks(text) => Err(format!(
            "the line `{BEGIN_MARK}` or `{END_MARK}` stands inside a value, so it cannot be told which section is ours: \
             change that value"
        )),
        (Some(begin), Some(end)) if begin < end => Ok(Some(begin..end)),
        _ => Err(format!(
            "of the lines `{BEGIN_MARK}` and `{END_MARK}` one is missing or out of order: put it back around [server]"
        )),
    }
}

/// Where it is no TOML, that is told when it is read as such.
fn means_the_same_without_marks(text: &str) -> bool {
    let is_mark = |line: &&str| line.starts_with(BEGIN_MARK) || line.starts_with(END_MARK);
    let lines = text.split_inclusive('\n');
    let without: String = lines.filter(|it| !is_mark(it)).collect();
    match text.parse::<toml::Table>() {
        Ok(table) => without.parse::<toml::Table>().ok() == Some(table),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Directory;

    fn of(text: &str) -> Configuration {
        Configuration {
            path: "cygnet.toml".into(),
            text: text.to_owned(),
            mode: None,
            ours: ours(text).expect("marks in order"),
        }
    }

    #[test]
    fn what_a_person_wrote_stays() {
        let written = "# mine\n[daemon]\nlog = \"debug\" # loud\n\n# last words";
        let with = of(written).with_section("[server]\nidentity = \"a\"\n# kept\nnat = false\n");
        assert!(with.starts_with(written));
        let with = of(&with);
        assert_eq!(with.identity().as_deref(), Some("a"));
        assert!(with.check_no_other().is_ok());
        let other = of(&with.with_identity(Some("b\"")).expect("ours"));
        assert_eq!(other.identity().as_deref(), Some("b\""));
        assert_eq!(
            other.section(),
            Some("[server]\nidentity = \"b\\\"\"\n# kept\nnat = false\n")
        );
        let none = of(&other.with_identity(None).expect("ours"));
        assert_eq!(none.section(), Some("[server]\n# kept\nnat = false\n"));
        assert_eq!(
            of(&none.with_identity(Some("a")).expect("ours")).text,
            with.text
        );
        assert_eq!(with.without_section(), Some(format!("{written}\n")));
        let behind = format!("{}\n[tunnel.a]\nremote = \"b\"\n", with.text);
        assert_eq!(
            of(&behind).without_section(),
            Some(format!("{written}\n\n[tunnel.a]\nremote = \"b\"\n"))
        );
        assert_eq!(
            of(&of("").with_section("[server]\n")).without_section(),
            None
        );
    }

    #[test]
    fn what_somebody_else_wrote_meanwhile_is_not_lost() {
        let directory = Directory::new("meanwhile");
        let path = directory.path().join("cygnet.toml");
        let mut absent = Configuration::read(&path).expect("nothing there");
        fs::write(&path, "# before\n").expect("written");
        let mut early = Configuration::read(&path).expect("good");
        fs::write(&path, "# meanwhile\n").expect("written");
        for configuration in [&mut absent, &mut early] {
            let text = configuration.with_section("[server]\n");
            let told = configuration.replace(text, &|_| Ok(())).expect_err("old");
            assert!(told.is_refusal(), "{told}");
            assert!(told.to_string().contains("meanwhile, and stays"), "{told}");
            assert_eq!(fs::read_to_string(&path).expect("there"), "# meanwhile\n");
            let names = fs::read_dir(directory.path()).expect("there").count();
            assert_eq!(names, 1, "nothing is left beside it");
        }
        let mut now = Configuration::read(&path).expect("good");
        for section in ["[server]\n", "[server]\nnat = false\n"] {
            let text = now.with_section(section);
            now.replace(text.clone(), &|_| Ok(())).expect("in place");
            assert_eq!(fs::read_to_string(&path).expect("there"), text);
        }
    }

    #[test]
    fn marks_inside_a_value_are_none() {
        let forged = format!("[tunnel.a]\nremote = \"\"\"\n{BEGIN}\n{END}\n\"\"\"\n");
        assert!(ours(&forged).is_err_and(|it| it.contains("inside a value")));
        // Neither may one reach from a value to the true end.
        let reaching = format!("[tunnel.a]\nremote = \"\"\"\n{BEGIN}\n\"\"\"\n{END}\n");
        assert!(ours(&reaching).is_err());
        assert!(ours(&format!("{BEGIN}\n[server]\n{END}\n")).is_ok_and(|it| it.is_some()));
    }

    #[test]
    fn another_section_and_lost_marks_are_told() {
        assert!(of("[server]\npools = []\n").check_no_other().is_err());
        let both = of("[server]\npools = []\n").with_section("[server]\n");
        assert!(of(&both).check_no_other().is_err());
        for bad in [
            format!("{BEGIN}\n[server]\n"),
            format!("{END}\n{BEGIN}\n"),
            format!("{BEGIN}\n{BEGIN}\n{END}\n"),
        ] {
            assert!(ours(&bad).is_err(), "{bad}");
        }
    }
}
