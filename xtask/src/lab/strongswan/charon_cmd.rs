//! `charon-cmd`: strongSwan as one command, its settings on the command line.

use super::super::Lab;
use super::super::failure::{Context, Result};
use super::super::namespace::Namespace;
use super::super::process::{Exec, Process};
use super::PLUGINS;
use std::fs;
use std::path::{Path, PathBuf};

/// What is asked of it.
#[derive(Debug, Clone)]
pub struct CharonCmd {
    host: String,
    identity: String,
    /// File and password.
    p12: Option<(PathBuf, String)>,
    authority: Option<PathBuf>,
}

impl CharonCmd {
    /// A connection to `host`, as `identity`.
    pub fn new(host: &str, identity: &str) -> Self {
        Self {
            host: host.to_owned(),
            identity: identity.to_owned(),
            p12: None,
            authority: None,
        }
    }

    /// Proves itself by a `.p12` file, which this password opens.
    #[must_use]
    pub fn p12(mut self, file: &Path, password: &str) -> Self {
        self.p12 = Some((file.to_owned(), password.to_owned()));
        self
    }

    /// Trusts this authority (PEM).
    #[must_use]
    pub fn authority(mut self, file: &Path) -> Self {
        self.authority = Some(file.to_owned());
        self
    }

    /// Starts it on `namespace`; it connects at once, and ends when dropped.
    pub fn start(&self, lab: &Lab, namespace: &Namespace) -> Result<Process> {
        let directory = lab.subdirectory(&format!("charon-cmd-{}", namespace.name()))?;
        let mut arguments = vec![
            "--host".to_owned(),
            self.host.clone(),
            "--identity".to_owned(),
            self.identity.clone(),
            "--remote-identity".to_owned(),
            self.host.clone(),
        ];
        if let Some(authority) = &self.authority {
            arguments.extend([
                "--cert".to_owned(),
                authority.to_string_lossy().into_owned(),
            ]);
        }
        let mut typed = String::new();
        if let Some((file, password)) = &self.p12 {
            arguments.extend(["--p12".to_owned(), file.to_string_lossy().into_owned()]);
            typed = format!("{password}\n");
        }
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).context(format!("cannot write {}", path.display()))
        };
        write("typed", &typed)?;
        write("tty", "")?;
        write("strongswan.conf", &settings(&directory))?;
        // It asks for the password at the terminal, if there is one, and reads it from its input
        // otherwise: a terminal that cannot be opened is none.
        let script = "mount -t tmpfs -o mode=755 tmpfs /run
            mount --bind \"$1/tty\" /dev/tty
            mount -o remount,bind,ro /dev/tty
            exec 0< \"$1/typed\"
            shift
            exec charon-cmd \"$@\"";
        let prefix = [
            "unshare",
            "-m",
            "--propagation",
            "private",
            "sh",
            "-ec",
            script,
            "charon-cmd",
        ];
        let argv = prefix
            .into_iter()
            .map(str::to_owned)
            .chain([directory.to_string_lossy().into_owned()])
            .chain(arguments);
        let command = Exec::new(argv).env("STRONGSWAN_CONF", directory.join("strongswan.conf"));
        namespace.spawn_exec(command)
    }
}

fn settings(directory: &Path) -> String {
    format!(
        "charon-cmd {{
  load_modular = no
  load = {PLUGINS} rc2 des
  plugins {{
    kernel-netlink {{ fwmark = !0x42 }}
    socket-default {{ fwmark = 0x42 }}
    kernel-libipsec {{ allow_peer_ts = yes }}
    resolve {{ file = {}/resolv.conf }}
  }}
}}
",
        directory.display()
    )
}
