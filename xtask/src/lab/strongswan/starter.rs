//! strongSwan run by its starter from `ipsec.conf`, in a mount namespace where `/etc/ipsec.*` are its own.

use super::super::failure::{Context, Failure, Result};
use super::super::process::{Exec, Process, last_lines, wait_for};
use super::super::{Lab, Namespace};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const STARTER: &str = "/usr/lib/ipsec/starter";

/// What is looked for below `ipsec.d`.
const FOLDERS: [&str; 7] = [
    "cacerts",
    "certs",
    "private",
    "crls",
    "aacerts",
    "acerts",
    "ocspcerts",
];

/// A strongSwan with its starter; stopped when dropped.
#[derive(Debug)]
pub struct Starter {
    namespace: Namespace,
    directory: PathBuf,
    process: Option<Process>,
}

impl Starter {
    /// Makes its directory; write `ipsec.conf`, `ipsec.secrets` and what belongs below `ipsec.d` into it.
    pub fn prepare(lab: &Lab, namespace: &Namespace) -> Result<Self> {
        let directory = lab.subdirectory(&format!("starter-{}", namespace.name()))?;
        for folder in FOLDERS {
            let path = directory.join("ipsec.d").join(folder);
            fs::create_dir_all(&path).context(format!("cannot create {}", path.display()))?;
        }
        Ok(Self {
            namespace: namespace.clone(),
            directory,
            process: None,
        })
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Starts it with these plugins and these lines of strongswan.conf's section `charon`; returns when charon has
    /// logged `ready`.
    pub fn start(&mut self, plugins: &str, settings: &str, ready: &str) -> Result<()> {
        let settings = self.daemon_config(plugins, settings);
        fs::write(self.directory.join("strongswan.conf"), settings)?;
        let script = "mount -t tmpfs -o mode=755 tmpfs /run
            for name in ipsec.conf ipsec.secrets ipsec.d strongswan.conf; do
                mount --bind \"$1/$name\" /etc/$name
            done
            exec \"$2\" --nofork --daemon charon";
        let command = Exec::new([
            "unshare",
            "-m",
            "--propagation",
            "private",
            "sh",
            "-ec",
            script,
            "starter",
        ])
        .arg(self.directory.to_string_lossy())
        .arg(STARTER);
        self.namespace.forward_packets()?;
        let mut process = self.namespace.spawn_exec(command)?;
        wait_for(
            "strongSwan's starter is ready",
            Duration::from_secs(15),
            || {
                crate::ensure!(
                    process.is_running(),
                    "starter ended: {}",
                    process.last_words()
                );
                Ok(self.log().contains(ready).then_some(()))
            },
        )
        .map_err(|failure| {
            let (starter, charon) = (process.last_words(), last_lines(&self.log(), 15));
            Failure::new(format!("{failure}: {starter}\n{charon}"))
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends it in good order.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// The process id of the starter.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// What the starter itself has said: it warns of what it does not understand, and goes on.
    pub fn said(&self) -> String {
        self.process.as_ref().map_or_else(String::new, Process::log)
    }

    /// What charon has logged.
    pub fn log(&self) -> String {
        fs::read(self.directory.join("charon.log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn daemon_config(&self, plugins: &str, settings: &str) -> String {
        let directory = self.directory.display();
        format!(
            "charon {{
  load_modular = no
  load = {plugins}
  {settings}
  filelog {{
    log {{
      path = {directory}/charon.log
      default = 1
      flush_line = yes
    }}
  }}
  plugins {{
    # ESP of its own must not be routed into the tunnel again
    kernel-netlink {{ fwmark = !0x42 }}
    socket-default {{ fwmark = 0x42 }}
    kernel-libipsec {{ allow_peer_ts = yes }}
    resolve {{ file = {directory}/resolv.conf }}
  }}
}}
"
        )
    }
}
