//! systemd, by its own program, and the units of this one.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the units' ProtectHome and PrivateTmp hide.
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];
/// What the packaged units start, and with which configuration.
const PACKAGED: &str = "ExecStart=/usr/local/bin/cygnet";
const CONFIG: &str = "/etc/cygnet/cygnet.toml";
/// Where units of the administrator's are.
const UNITS: &str = "/etc/systemd/system";

/// A unit that comes with the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) name: &'static str,
    text: &'static str,
}

/// `cygnet run`.
pub(super) const RUN: Unit = Unit {
    name: "cygnet.service",
    text: include_str!("../../../../packaging/systemd/cygnet.service"),
};
/// `cygnet gateway on`, before the network.
pub(super) const GUARD: Unit = Unit {
    name: "cygnet-guard.service",
    text: include_str!("../../../../packaging/systemd/cygnet-guard.service"),
};

impl Unit {
    /// Where it is written if it is not installed.
    pub(super) fn path(self) -> PathBuf {
        Path::new(UNITS).join(self.name)
    }

    /// The packaged unit, for this program and this configuration.
    ///
    /// # Errors
    /// A unit cannot name one of them.
    pub(super) fn text(self, program: &Path, config: &Path) -> Result<String, String> {
        let config = std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
        let (program, config) = (program_name(program)?, argument(&config)?);
        let line = |line: &str| match line.strip_prefix(PACKAGED) {
            Some(order) => format!("ExecStart={program}{}\n", order.replace(CONFIG, &config)),
            None => format!("{line}\n"),
        };
        Ok(self.text.lines().map(line).collect())
    }

    /// Whether an installed unit of this text is for this configuration.
    pub(super) fn is_for(text: &str, config: &Path) -> bool {
        cygnet_doctor::configuration_of_unit(text) == config
    }
}

fn in_units(path: &Path) -> Result<&str, String> {
    path.to_str().ok_or_else(|| {
        format!(
            "systemd can start nothing by the name {}: expected UTF-8",
            path.display()
        )
    })
}

/// A path as what `ExecStart=` starts: no `$` in it means a variable, and some things cannot be in it at all.
fn program_name(path: &Path) -> Result<String, String> {
    let name = in_units(path)?;
    let never = |letter: char| letter.is_ascii_control() || ['"', '\'', '\\'].contains(&letter);
    match name.contains(never) {
        true => Err(format!(
            "systemd starts no program with quotes, backslashes or control characters in its name, as {name:?} has: \
             `install -m 755` it to /usr/local/bin/cygnet, then the same command by that"
        )),
        false => Ok(quoted(&name.replace('%', "%%"))),
    }
}

/// A path as an argument in `ExecStart=` (systemd.service(5), "Command lines"; systemd.unit(5), "Specifiers").
fn argument(path: &Path) -> Result<String, String> {
    let path = in_units(path)?;
    Ok(quoted(&path.replace('%', "%%").replace('$', "$$")))
}

/// One word of a command line, whatever is in it; as it stands where it is one by itself.
fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || "/.-_+,:@%$=".contains(letter);
    if word.chars().all(plain) {
        return word.to_owned();
    }
    let mut text = String::from("\"");
    for letter in word.chars() {
        match letter {
            '"' | '\\' => text.extend(['\\', letter]),
            letter if letter.is_ascii_control() => {
                text.extend(format!("\\x{:02x}", u32::from(letter)).chars());
            }
            letter => text.push(letter),
        }
    }
    text.push('"');
    text
}

/// The program as a unit has to name it.
pub(super) fn program_for_units() -> Result<PathBuf, String> {
    let program = std::env::current_exe()
        .map_err(|error| format!("cannot tell where this program is: {error}"))?;
    match HIDDEN.iter().any(|hidden| program.starts_with(hidden)) {
        true => Err(format!(
            "the unit cannot start {}: it sees nothing of that directory. `install -m 755 {0} /usr/local/bin/`, then \
             the same command by /usr/local/bin/cygnet",
            program.display()
        )),
        false => Ok(program),
    }
}

/// The systemd that this machine was booted by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Systemd(());

impl Systemd {
    /// `None` where there is none, or it is installed and another program started the machine.
    pub(super) fn find() -> Option<Self> {
        let said = Command::new("systemctl")
            .arg("is-system-running")
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let state = String::from_utf8_lossy(&said.stdout);
        let runs = [
            "initializing",
            "starting",
            "running",
            "degraded",
            "maintenance",
            "stopping",
        ];
        runs.contains(&state.trim()).then_some(Self(()))
    }

    /// The text of a unit that is installed.
    pub(super) fn installed(self, unit: Unit) -> Option<String> {
        let said = Command::new("systemctl")
            .args(["cat", unit.name])
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        said.status.success().then_some(text)
    }

    pub(super) fn is_enabled(self, unit: Unit) -> bool {
        self.quietly(&["is-enabled", unit.name])
    }

    pub(super) fn is_active(self, unit: Unit) -> bool {
        self.quietly(&["is-active", unit.name])
    }

    fn quietly(self, arguments: &[&str]) -> bool {
        Command::new("systemctl")
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    /// `systemctl …`; what it complains about, if it fails.
    pub(super) fn call(self, arguments: &[&str]) -> Result<(), String> {
        let told = |what: &str| format!("`systemctl {}` failed: {what}", arguments.join(" "));
        let output = Command::new("systemctl")
            .args(arguments)
            .stdin(Stdio::null())
            // What is begun is not cut off by Ctrl-C, or with the terminal.
            .process_group(0)
            .output()
            .map_err(|error| told(&error.to_string()))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(told(String::from_utf8_lossy(&output.stderr).trim())),
        }
    }

    /// Writes a unit that is not installed.
    pub(super) fn write(self, unit: Unit, text: &str) -> Result<(), String> {
        let path = unit.path();
        // A mask is a link to /dev/null: it is neither followed nor replaced.
        File::create_new(&path)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        self.call(&["daemon-reload"])
    }

    /// Waits until units that were written, enabled, disabled or removed are so on the disk: systemd does not, and after
    /// a power cut the machine would start as it did before.
    pub(super) fn settle(self) -> Result<(), String> {
        settle(Path::new(UNITS))
    }

    /// Removes a unit that was written.
    pub(super) fn remove(self, unit: Unit) -> Result<(), String> {
        let path = unit.path();
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(format!("cannot remove {}: {error}", path.display()));
            }
            _ => {}
        }
        self.call(&["daemon-reload"])
    }
}

/// The folder of the units, and those of links to what is enabled: units themselves are brought there as they are written.
fn settle(folder: &Path) -> Result<(), String> {
    let settle_all = || -> std::io::Result<()> {
        File::open(folder)?.sync_all()?;
        for entry in folder.read_dir()? {
            let path = entry?.path();
            if path.extension().is_some_and(|kind| kind == "wants") {
                File::open(path)?.sync_all()?;
            }
        }
        Ok(())
    };
    match settle_all() {
        // Nothing was written where nothing is.
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(format!(
            "what is in {} is not on the disk yet: {error}",
            folder.display()
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_brought_onto_the_disk_is_named() {
        assert_eq!(settle(&std::env::temp_dir()), Ok(()));
        assert_eq!(settle(Path::new("/nonexistent/units")), Ok(()));
        let told = settle(Path::new("/proc/version/units")).unwrap_err();
        assert!(
            told.contains("/proc/version/units is not on the disk"),
            "{told}"
        );
    }

    #[test]
    fn the_units_start_this_program_with_this_configuration() {
        for (unit, order) in [(RUN, "run"), (GUARD, "gateway on")] {
            let text = unit.text(Path::new("/opt/cygnet"), Path::new("/srv/vpn.toml"));
            let text = text.unwrap();
            let line = format!("\nExecStart=/opt/cygnet {order} --config /srv/vpn.toml\n");
            assert!(text.contains(&line), "{text}");
            assert!(Unit::is_for(&text, Path::new("/srv/vpn.toml")));
            assert!(!Unit::is_for(&text, Path::new("/etc/cygnet/cygnet.toml")));
        }
    }

    #[test]
    fn a_name_with_blanks_and_percent_signs_is_one_word_to_systemd() {
        let config = Path::new("/srv/my 100%u $HOME \"x\"\n.toml");
        let text = RUN
            .text(Path::new("/opt/my vpn/50%/cygnet"), config)
            .unwrap();
        let line = "\nExecStart=\"/opt/my vpn/50%%/cygnet\" run --config \"/srv/my 100%%u $$HOME \\\"x\\\"\\x0a.toml\"\n";
        assert!(text.contains(line), "{text}");
        assert!(Unit::is_for(&text, config));
        let odd = RUN.text(Path::new("/opt/\"x\"/cygnet"), config);
        assert!(odd.unwrap_err().contains("quotes"));
        let bytes = std::os::unix::ffi::OsStrExt::from_bytes(b"/srv/\xff");
        let odd = RUN.text(
            Path::new("/opt/cygnet"),
            Path::new::<std::ffi::OsStr>(bytes),
        );
        assert!(odd.unwrap_err().contains("UTF-8"));
    }

    /// systemd itself, where it is installed; in CI it is.
    #[test]
    #[allow(
        clippy::print_stderr,
        reason = "the person who runs the test has to see this"
    )]
    fn systemd_reads_the_name_as_it_is() {
        let place = std::env::temp_dir().join(format!("cygnet 50%% $HOME {}", std::process::id()));
        std::fs::create_dir(&place).unwrap();
        let program = place.join("cygnet");
        std::fs::copy("/bin/true", &program).unwrap();
        let path = place.join("cygnet-test.service");
        let text = RUN.text(&program, &place.join("my \"50%\".toml")).unwrap();
        std::fs::write(&path, text).unwrap();
        let said = Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .arg(&path)
            .output();
        std::fs::remove_dir_all(&place).unwrap();
        let said = match said {
            Ok(said) => said,
            Err(error) => {
                let message =
                    format!("this test needs systemd-analyze, of Debian's systemd: {error}");
                assert!(std::env::var_os("CI").is_none(), "{message}");
                eprintln!("skipped: {message}");
                return;
            }
        };
        let told = String::from_utf8_lossy(&said.stderr).into_owned();
        let ours: Vec<&str> = told.lines().filter(|it| it.contains("cygnet")).collect();
        assert!(said.status.success() && ours.is_empty(), "{told}");
    }
}
