//! What a user's devices are handed: the state, as profiles that `cygnet-profile` turns into files.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use cygnet_profile::model::{Authority, Login, OnDemand, Profile};
use ipnet::IpNet;
use zeroize::Zeroizing;

use crate::error::{Error, Result, refused};
use crate::file::Staged;
use crate::name::Name;
use crate::server::Server;
use crate::store::make_private_dir;
use crate::user::{PASSWORD, handouts, known_user};

/// What the configuration says about clients' connections.
pub struct Terms {
    /// What is reached through the tunnel; empty: everything.
    pub networks: Vec<IpNet>,
    /// Resolvers handed out.
    pub dns: Vec<IpAddr>,
    /// Names below these are asked there; empty: all names.
    pub domains: Vec<String>,
    /// Proposals as strongSwan writes them, best first.
    pub ike: Vec<String>,
    /// Likewise.
    pub esp: Vec<String>,
    /// Lifetime of an IKE SA.
    pub ike_lifetime: Duration,
    /// Lifetime of a Child SA.
    pub child_lifetime: Duration,
}

/// One device's files, as they were written.
pub struct Exported {
    /// Folder under the one that was named.
    pub folder: String,
    /// Opens the `.p12` files, where there are any.
    pub p12_password: Option<Zeroizing<String>>,
}

impl Server {
    /// What is handed to a user: one profile a device, and one for a password.
    pub fn profiles(
        &self,
        name: &Name,
        device: Option<&Name>,
        terms: &Terms,
    ) -> Result<Vec<Profile>> {
        let state = &self.store.connection;
        let error = self.store.error();
        let user = known_user(state, name).map_err(|flaw| flaw.with(&error))?;
        let wanted = |folder: &str| device.is_none_or(|device| device.as_str() == folder);
        let mut profiles = Vec::new();
        for handout in handouts(state, user).map_err(&error)? {
            if wanted(&handout.device) {
                let id = format!("{}/{}", self.id, handout.identity);
                let login = Login::Certificate {
                    identity: handout.identity,
                    certificate: handout.certificate,
                    key: handout.key,
                    p12_password: handout.p12_password,
                };
                profiles.push(self.profile(name, handout.device, id, login, terms)?);
            }
        }
        let password: bool = state
            .query_row(
                "SELECT nt_hash IS NOT NULL FROM user WHERE id = ?",
                [user],
                |row| row.get(0),
            )
            .map_err(&error)?;
        if password && wanted(PASSWORD) {
            let id = format!("{}/{name}/{PASSWORD}", self.id);
            let folder = PASSWORD.to_owned();
            profiles.push(self.profile(name, folder, id, Login::Password, terms)?);
        }
        match device {
            _ if !profiles.is_empty() => Ok(profiles),
            Some(device) => refused(format!(
                "{name} has no device {device} with a certificate; `cygnet user show {name}` lists them"
            )),
            None => refused(format!(
                "{name} has neither a device nor a password: add one with `cygnet user add {name} --devices NAME`"
            )),
        }
    }

    fn profile(
        &self,
        user: &Name,
        device: String,
        stable_id: String,
        login: Login,
        terms: &Terms,
    ) -> Result<Profile> {
        let addresses = self.settings()?.addresses;
        let Some(remote) = addresses.first().map(ToString::to_string) else {
            return refused("this server has no address; `cygnet server set-address` gives it one");
        };
        Ok(Profile {
            title: format!("Cygnet {remote}"),
            stable_id,
            remote_identity: remote.clone(),
            remote,
            user: user.to_string(),
            device,
            authority: Authority {
                common_name: format!("Cygnet {}", self.id),
                certificate: self.authority.certificate_der().to_vec(),
            },
            login,
            networks: terms.networks.clone(),
            dns: terms.dns.clone(),
            domains: terms.domains.clone(),
            on_demand: OnDemand::default(),
            ike: terms.ike.clone(),
            esp: terms.esp.clone(),
            ike_lifetime: terms.ike_lifetime,
            child_lifetime: terms.child_lifetime,
        })
    }

    /// Writes the files of these profiles to `to`, a folder a device, and notes which address they name.
    pub fn export(&self, profiles: &[Profile], to: &Path) -> Result<Vec<Exported>> {
        let mut out = Vec::new();
        for profile in profiles {
            let folder = format!("{}/{}", profile.user, profile.device);
            let directory = to.join(&folder);
            let files = cygnet_profile::write::files(profile).map_err(|error| {
                Error::Refused(format!("the files for {folder} cannot be made: {error}"))
            })?;
            make_private_dir(&directory)?;
            for file in &files {
                let path = directory.join(&file.path);
                let beside = path.parent().unwrap_or(&directory);
                make_private_dir(beside)?;
                let staged = Staged::draft(&path, &file.bytes)?;
                staged.set_mode(if file.secret { 0o600 } else { 0o644 })?;
                staged.place()?;
            }
            self.note_handed_out(profile)?;
            out.push(Exported {
                folder,
                p12_password: match &profile.login {
                    Login::Certificate {
                        p12_password,
                        key: Some(_),
                        ..
                    } => Some(p12_password.clone()),
                    _ => None,
                },
            });
        }
        Ok(out)
    }

    fn note_handed_out(&self, profile: &Profile) -> Result<()> {
        let state = &self.store.connection;
        let names = (&profile.remote, &profile.user, &profile.device);
        let noted = match profile.login {
            Login::Password => state.execute(
                "UPDATE user SET handed_out = ?1 WHERE name = ?2 AND ?3 <> ''",
                names,
            ),
            Login::Certificate { .. } => state.execute(
                "UPDATE device SET handed_out = ?1
                 WHERE name = ?3 AND user = (SELECT id FROM user WHERE name = ?2)",
                names,
            ),
        };
        noted.map(|_| ()).map_err(self.store.error())
    }
}

/// Refuses a place where no files can be written, before anything is changed.
pub fn check_writable(to: &Path) -> Result<()> {
    if !to.exists() {
        make_private_dir(to)?;
    }
    let metadata = fs::metadata(to).map_err(Error::file("look at", to))?;
    if !metadata.is_dir() {
        return refused(format!(
            "{} is no directory to write files to",
            to.display()
        ));
    }
    // Dropped at once, and with it the file.
    Staged::draft(&to.join("cygnet"), b"").map(|_| ())
}
