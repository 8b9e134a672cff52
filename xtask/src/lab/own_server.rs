//! The server, as a person with a rented machine sets it up: two commands.

use super::cygnet::{Cygnet, Setup};
use super::process::last_lines;
use super::traffic::ping_all;
use super::world::{SERVER, World};
use super::{Failure, Lab, Namespace, Result, wait_for};
use crate::ensure;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

/// How long a device may take to come online.
pub const SOON: Duration = Duration::from_secs(15);
/// The pool; the first address is the server's own.
const POOL: &str = "10.99.0.0/24";
/// The server's address in it.
const INNER: &str = "10.99.0.1";

/// The demo's world with a server of one's own in it.
#[derive(Debug)]
pub struct OwnServer {
    /// All hosts.
    pub world: World,
    /// The server.
    pub cygnet: Cygnet,
    /// Where the files of devices were written.
    handed_out: PathBuf,
}

impl OwnServer {
    /// `cygnet server init`, and the daemon started.
    pub fn set_up(lab: &Lab) -> Result<Self> {
        let mut server = Self::bare(lab)?;
        server.init()?;
        server.cygnet.restart()?;
        Ok(server)
    }

    /// `cygnet server init`; gives what was printed.
    pub fn init(&self) -> Result<String> {
        let pools = ["--pool", POOL, "--pool", "fd99::/112"];
        self.cygnet(&[&["server", "init", "--address", SERVER][..], &pools].concat())
    }

    /// The machine before any of it.
    pub fn bare(lab: &Lab) -> Result<Self> {
        let world = World::build(lab)?;
        let cygnet = Cygnet::prepare(lab, &world.server, &Setup::new(""))?;
        Ok(Self {
            world,
            cygnet,
            handed_out: lab.subdirectory("handed-out")?,
        })
    }

    /// Adds devices to a user; gives what was printed.
    pub fn add(&self, user: &str, devices: &str) -> Result<String> {
        let to = self.handed_out.to_string_lossy().into_owned();
        self.cygnet(&["user", "add", user, "--devices", devices, "--to", &to])
    }

    /// Adds a user who logs in by name and password.
    pub fn add_with_password(&self, user: &str, password: &str) -> Result<String> {
        let file = self.handed_out.join("password");
        fs::write(&file, format!("{password}\n"))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        let (file, to) = (file.to_string_lossy(), self.handed_out.to_string_lossy());
        self.cygnet(&["user", "add", user, "--password-file", &file, "--to", &to])
    }

    /// Runs a command of the operator; fails unless it ended with 0.
    pub fn cygnet(&self, arguments: &[&str]) -> Result<String> {
        let finished = self.cygnet.configured(arguments)?;
        let said = format!("{}{}", finished.stdout, finished.stderr);
        ensure!(
            finished.success(),
            "cygnet {}: {}",
            arguments.join(" "),
            said.trim()
        );
        Ok(said)
    }

    /// The folder that was made for a device.
    pub fn folder(&self, user: &str, device: &str) -> PathBuf {
        self.handed_out.join(user).join(device)
    }

    /// The password of a device's `.p12` files, as `cygnet user add` printed it.
    pub fn p12_password(said: &str) -> Result<String> {
        let line = said
            .lines()
            .find_map(|line| line.trim().strip_prefix("import password: "));
        line.map(str::to_owned)
            .ok_or_else(|| Failure::new(format!("no import password in: {said}")))
    }

    /// Waits until `device` reaches the web host as the server, and pings the server's inner address.
    pub fn online(&self, device: &Namespace) -> Result<String> {
        let mut seen = String::new();
        wait_for(
            &format!("{} is online through the server", device.name()),
            SOON,
            || {
                seen = self
                    .world
                    .seen_as(device)
                    .unwrap_or_else(|failure| failure.to_string());
                Ok((seen.trim() == SERVER).then_some(()))
            },
        )
        .map_err(|failure| {
            self.with_log(failure.while_doing(format!("the web host sees {seen:?}")))
        })?;
        ping_all(device, INNER, 3)?;
        Ok(format!("online as {SERVER}"))
    }

    /// Who is connected.
    pub fn connected(&self) -> Result<Vec<String>> {
        let sas = self.cygnet.connection("server")?.ike_sas;
        let up = sas.into_iter().filter(|sa| sa.state == "up");
        Ok(up.filter_map(|sa| sa.peer).collect())
    }

    /// A failure, with the server's last words.
    pub fn with_log(&self, failure: Failure) -> Failure {
        let words = last_lines(&self.cygnet.log(), 12);
        Failure::new(format!("{failure}; the server's last words:\n{words}"))
    }
}
