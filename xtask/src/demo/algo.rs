//! A server that Algo has set up, and the Cygnet that joins it from the files Algo hands out.

use super::end::{VpnEnd, accept_rules};
use crate::ensure;
use crate::lab::algo::{Deployment, Format, Year, serve};
use crate::lab::cygnet::{Cygnet, Setup};
use crate::lab::process::last_lines;
use crate::lab::strongswan::Starter;
use crate::lab::world::{SERVER, World};
use crate::lab::{Failure, Lab, Namespace, Result};
use std::rc::Rc;

/// The tunnel that is imported.
pub(crate) const TUNNEL: &str = "home";

/// What Algo has made for the world's server.
pub(crate) fn deploy(lab: &Lab, year: Year) -> Result<Rc<Deployment>> {
    Deployment::make(lab, year, SERVER).map(Rc::new)
}

/// The addresses that the web host sees laptop and phone under, while the gateway is up.
pub(crate) fn seen_through(
    lab: &Lab,
    world: &World,
    gateway: &mut ImportedGateway,
) -> Result<Vec<String>> {
    gateway.start(lab)?;
    gateway.up()?;
    let seen = [&world.laptop, &world.phone].map(|device| world.seen_as(device));
    let seen = seen.into_iter().collect::<Result<Vec<String>>>()?;
    gateway.stop()?;
    Ok(seen)
}

/// Algo's server.
pub(crate) struct AlgoServer {
    namespace: Namespace,
    deployment: Rc<Deployment>,
    server: Option<Starter>,
}

impl AlgoServer {
    pub(crate) fn new(world: &World, deployment: &Rc<Deployment>) -> Self {
        Self {
            namespace: world.server.clone(),
            deployment: Rc::clone(deployment),
            server: None,
        }
    }
}

impl VpnEnd for AlgoServer {
    fn start(&mut self, lab: &Lab) -> Result<()> {
        self.server = Some(serve(lab, &self.namespace, &self.deployment)?);
        Ok(())
    }

    fn up(&mut self) -> Result<()> {
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        if let Some(server) = &mut self.server {
            server.stop();
        }
        Ok(())
    }

    fn pids(&self) -> Vec<u32> {
        self.server
            .as_ref()
            .and_then(Starter::pid)
            .into_iter()
            .collect()
    }

    fn firewall_advice(&self) -> Result<Vec<String>> {
        Ok(accept_rules("ipsec0"))
    }

    fn last_words(&self) -> String {
        let log = self.server.as_ref().map_or_else(String::new, Starter::log);
        last_lines(&log, 20)
    }
}

/// A gateway that knows nothing but what `cygnet import` has told it.
pub(crate) struct ImportedGateway {
    namespace: Namespace,
    deployment: Rc<Deployment>,
    format: Format,
    cygnet: Option<Cygnet>,
}

impl ImportedGateway {
    pub(crate) fn new(world: &World, deployment: &Rc<Deployment>, format: Format) -> Self {
        Self {
            namespace: world.gateway.clone(),
            deployment: Rc::clone(deployment),
            format,
            cygnet: None,
        }
    }

    /// `cygnet import FILE… --name home --gateway`, as a person types it but for the password.
    fn import(&self, cygnet: &Cygnet) -> Result<String> {
        let files = self.format.files.iter().map(|it| it.to_string_lossy());
        let files: Vec<_> = files.collect();
        let password = self.deployment.password_file().to_string_lossy();
        let mut arguments = vec!["import"];
        arguments.extend(files.iter().map(|it| &**it));
        arguments.extend(["--name", TUNNEL, "--gateway"]);
        arguments.extend(["--password-file", &*password]);
        let finished = cygnet.configured(&arguments)?;
        ensure!(
            finished.success(),
            "cygnet import: {}",
            finished.stderr.trim()
        );
        Ok(finished.stdout)
    }

    pub(crate) fn running(&self) -> Result<&Cygnet> {
        let cygnet = self.cygnet.as_ref();
        cygnet.ok_or_else(|| Failure::new("cygnet was not started"))
    }
}

impl VpnEnd for ImportedGateway {
    /// Imports, and puts the guard in place, as `systemctl enable --now cygnet-guard` does.
    fn start(&mut self, lab: &Lab) -> Result<()> {
        let name = self.namespace.name();
        // Nothing is left from a format before this one.
        let _ = std::fs::remove_dir_all(lab.directory().join(format!("cygnet-{name}")));
        let cygnet = Cygnet::prepare(lab, &self.namespace, &Setup::default())?;
        let told = self.import(&cygnet)?;
        let names = self.format.files.iter().filter_map(|it| it.file_name());
        let names: Vec<_> = names.map(|it| it.to_string_lossy()).collect();
        eprintln!(
            "cygnet import {} --name {TUNNEL} --gateway",
            names.join(" ")
        );
        ensure!(told.contains("To go online:"), "cygnet import said {told}");
        let guarded = cygnet.configured(&["gateway", "on"])?;
        ensure!(
            guarded.success(),
            "cygnet gateway on: {}",
            guarded.stderr.trim()
        );
        self.cygnet = Some(cygnet);
        Ok(())
    }

    fn up(&mut self) -> Result<()> {
        if let Some(cygnet) = &mut self.cygnet {
            cygnet.restart()?;
        }
        self.running()?.up(TUNNEL)
    }

    fn stop(&mut self) -> Result<()> {
        self.cygnet.as_mut().map_or(Ok(()), Cygnet::stop)
    }

    fn pids(&self) -> Vec<u32> {
        self.cygnet
            .as_ref()
            .and_then(Cygnet::pid)
            .into_iter()
            .collect()
    }

    fn firewall_advice(&self) -> Result<Vec<String>> {
        // It does not run yet when this is asked.
        Ok(accept_rules(&format!("cyg-{TUNNEL}")))
    }

    fn last_words(&self) -> String {
        let log = self.cygnet.as_ref().map_or_else(String::new, Cygnet::log);
        last_lines(&log, 20)
    }
}
