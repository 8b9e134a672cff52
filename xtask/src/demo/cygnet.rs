//! Cygnet at either end: one configuration file, one program.

use super::end::{Certificates, GATEWAY_NAME, POOL, SERVER_NAME, VpnEnd};
use crate::lab::cygnet::{Cygnet, Setup};
use crate::lab::process::last_lines;
use crate::lab::world::{SERVER, World};
use crate::lab::{Failure, Lab, Namespace, Result};

/// A Cygnet as gateway or server.
pub(super) struct CygnetEnd {
    namespace: Namespace,
    setup: Setup,
    /// The tunnel that `up` brings up; the server has none.
    tunnel: Option<&'static str>,
    cygnet: Option<Cygnet>,
}

impl CygnetEnd {
    pub(super) fn server(world: &World, certificates: &Certificates) -> Self {
        let config = format!(
            "[server]
identity = \"{SERVER_NAME}\"
certificate = \"own.crt\"
key = \"own.key\"
ca = [\"ca.crt\"]
pools = [\"{POOL}\"]
"
        );
        Self {
            namespace: world.server.clone(),
            setup: Setup::new(config)
                .credential("own", &certificates.server)
                .file("ca.crt", certificates.authority.clone()),
            tunnel: None,
            cygnet: None,
        }
    }

    pub(super) fn gateway(world: &World, certificates: &Certificates) -> Self {
        let config = format!(
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
        );
        Self {
            namespace: world.gateway.clone(),
            setup: Setup::new(config)
                .credential("own", &certificates.gateway)
                .file("ca.crt", certificates.authority.clone()),
            tunnel: Some("home"),
            cygnet: None,
        }
    }

    fn running(&self) -> Result<&Cygnet> {
        self.cygnet
            .as_ref()
            .ok_or_else(|| Failure::new("cygnet was not started"))
    }
}

impl VpnEnd for CygnetEnd {
    fn start(&mut self, lab: &Lab) -> Result<()> {
        let cygnet = self
            .cygnet
            .insert(Cygnet::prepare(lab, &self.namespace, &self.setup)?);
        cygnet.restart()
    }

    fn up(&mut self) -> Result<()> {
        self.tunnel
            .map_or(Ok(()), |tunnel| self.running()?.up(tunnel))
    }

    fn stop(&mut self) -> Result<()> {
        self.cygnet.as_mut().map_or(Ok(()), Cygnet::stop)
    }

    fn pids(&self) -> Vec<u32> {
        let processes = self
            .running()
            .and_then(Cygnet::status)
            .unwrap_or_default()
            .processes;
        let supervisor = self.cygnet.as_ref().and_then(Cygnet::pid);
        supervisor.into_iter().chain(processes.engine).collect()
    }

    fn firewall_advice(&self) -> Result<Vec<String>> {
        let warnings = self.running()?.status()?.warnings;
        Ok(warnings
            .iter()
            .flat_map(|warning| rules_offered(warning))
            .collect())
    }

    fn last_words(&self) -> String {
        self.cygnet
            .as_ref()
            .map_or_else(String::new, |cygnet| last_lines(&cygnet.log(), 20))
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
