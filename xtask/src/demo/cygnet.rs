//! Cygnet at either end: one configuration file, one program.

use super::end::{Certificates, GATEWAY_NAME, POOL, SERVER_NAME, VpnEnd};
use crate::lab::world::{SERVER, World};
use crate::lab::{Exec, Failure, Lab, Namespace, Process, Result, wait_for};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A Cygnet as gateway or server.
pub(super) struct CygnetEnd {
    program: PathBuf,
    namespace: Namespace,
    config: String,
    files: Vec<(&'static str, String)>,
    /// The tunnel that `up` brings up; the server has none.
    tunnel: Option<&'static str>,
    socket: PathBuf,
    process: Option<Process>,
}

impl CygnetEnd {
    pub(super) fn server(program: &Path, world: &World, certificates: &Certificates) -> Self {
        Self {
            program: program.to_owned(),
            namespace: world.server.clone(),
            config: format!(
                "[server]
identity = \"{SERVER_NAME}\"
certificate = \"own.crt\"
key = \"own.key\"
ca = [\"ca.crt\"]
pools = [\"{POOL}\"]
"
            ),
            files: vec![
                ("own.crt", certificates.server.chain()),
                ("own.key", certificates.server.key.clone()),
                ("ca.crt", certificates.authority.clone()),
            ],
            tunnel: None,
            socket: PathBuf::new(),
            process: None,
        }
    }

    pub(super) fn gateway(program: &Path, world: &World, certificates: &Certificates) -> Self {
        Self {
            program: program.to_owned(),
            namespace: world.gateway.clone(),
            config: format!(
                "[tunnel.home]
remote = \"{SERVER}\"
remote_identity = \"{SERVER_NAME}\"
identity = \"{GATEWAY_NAME}\"
certificate = \"own.crt\"
key = \"own.key\"
ca = [\"ca.crt\"]
virtual_address = true
start = \"manual\"

[gateway]
tunnel = \"home\"
lan = \"eth0\"
"
            ),
            files: vec![
                ("own.crt", certificates.gateway.chain()),
                ("own.key", certificates.gateway.key.clone()),
                ("ca.crt", certificates.authority.clone()),
            ],
            tunnel: Some("home"),
            socket: PathBuf::new(),
            process: None,
        }
    }

    fn control(&self, arguments: &[&str]) -> Result<String> {
        let program = self.program.to_string_lossy();
        let socket = self.socket.to_string_lossy();
        let argv = std::iter::once(&*program)
            .chain(arguments.iter().copied())
            .chain(["--socket", &*socket]);
        self.namespace.exec(argv)
    }
}

impl VpnEnd for CygnetEnd {
    fn start(&mut self, lab: &Lab) -> Result<()> {
        let directory = lab.subdirectory(&format!("cygnet-{}", self.namespace.name()))?;
        for (name, text) in &self.files {
            let path = directory.join(name);
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        }
        let run = directory.join("run");
        let config = directory.join("cygnet.toml");
        fs::write(
            &config,
            format!(
                "[daemon]\nrun_dir = \"{}\"\n\n{}",
                run.display(),
                self.config
            ),
        )?;
        self.socket = run.join("control.sock");
        let command = Exec::new([
            &self.program.to_string_lossy(),
            "run",
            "--config",
            &config.to_string_lossy(),
        ]);
        let mut process = self.namespace.spawn_exec(command)?;
        wait_for("cygnet answers", Duration::from_secs(10), || {
            crate::ensure!(
                process.is_running(),
                "cygnet ended: {}",
                process.last_words()
            );
            Ok((self.socket.exists() && self.control(&["status"]).is_ok()).then_some(()))
        })
        .map_err(|failure| {
            failure.while_doing(format!("starting cygnet on {}", self.namespace.name()))
        })?;
        self.process = Some(process);
        Ok(())
    }

    fn up(&mut self) -> Result<()> {
        match self.tunnel {
            Some(tunnel) => self.control(&["up", tunnel]).map(drop),
            None => Ok(()),
        }
    }

    fn stop(&mut self) -> Result<()> {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        if !process.is_running() {
            return Err(Failure::new(format!(
                "cygnet had ended by itself: {}",
                process.last_words()
            )));
        }
        if !process.stop() {
            return Err(Failure::new(
                "cygnet did not end within five seconds of SIGTERM",
            ));
        }
        Ok(())
    }

    fn pids(&self) -> Vec<u32> {
        let supervisor = self.process.as_ref().map(Process::pid);
        let others = self.namespace.pids().unwrap_or_default();
        supervisor.map_or_else(Vec::new, |_| others)
    }

    fn firewall_advice(&self) -> Result<Vec<String>> {
        let status: serde_json::Value =
            serde_json::from_str(&self.control(&["status", "--json"])?)?;
        let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
        Ok(warnings
            .iter()
            .filter_map(|warning| warning.as_str())
            .flat_map(rules_offered)
            .collect())
    }

    fn last_words(&self) -> String {
        self.process
            .as_ref()
            .map_or_else(String::new, Process::last_words)
    }
}

/// The commands in a warning: what stands between backquotes and begins with `nft`.
fn rules_offered(warning: &str) -> Vec<String> {
    let quoted = warning.split('`').skip(1).step_by(2);
    quoted
        .filter(|text| text.starts_with("nft "))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_a_warning_are_found() {
        let warning = "chain `forward` of table `inet foreign` drops packets of eth0; let them through with \
            `nft insert rule inet foreign forward iifname \"eth0\" accept` and `nft insert rule inet foreign forward oifname \"eth0\" accept`";
        let rules = rules_offered(warning);
        assert_eq!(rules.len(), 2);
        assert!(rules[1].ends_with("oifname \"eth0\" accept"));
        assert!(rules_offered("the clock is not set").is_empty());
    }
}
