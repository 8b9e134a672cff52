//! What a user's devices are handed: the state, as profiles that `cygnet-profile` turns into files.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use cygnet_profile::model::{Authority, Login, OnDemand, Profile};
use ipnet::IpNet;
use rustix::process::geteuid;
use zeroize::Zeroizing;

use crate::demand;
use crate::error::{Error, Result, refused};
use crate::file::Staged;
use crate::name::{Address, Name};
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
                let mut profile = self.profile(name, handout.device, id, login, terms)?;
                profile.on_demand = handout.on_demand;
                profiles.push(profile);
            }
        }
        let (password, on_demand): (bool, Option<String>) = state
            .query_row(
                "SELECT nt_hash IS NOT NULL, on_demand FROM user WHERE id = ?",
                [user],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .map_err(&error)?;
        if password && wanted(PASSWORD) {
            let id = format!("{}/{name}/{PASSWORD}", self.id);
            let folder = PASSWORD.to_owned();
            let mut profile = self.profile(name, folder, id, Login::Password, terms)?;
            profile.on_demand = demand::of(on_demand.as_deref());
            profiles.push(profile);
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
        let addresses: Vec<Address> = self.setting("address")?;
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
            own_directory(&to.join(profile.user.as_str()))?;
            own_directory(&directory)?;
            for file in &files {
                let path = directory.join(&file.path);
                own_directory(path.parent().unwrap_or(&directory))?;
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

/// Makes a directory that nobody else can change, or takes the one that is there if that is so: whoever could, would
/// put something else in the place of files with keys.
fn own_directory(path: &Path) -> Result<()> {
    make_private_dir(path)?;
    check_own(path)
}

fn check_own(path: &Path) -> Result<()> {
    let metadata = fs::symlink_metadata(path).map_err(Error::file("look at", path))?;
    let told = match metadata.mode() {
        _ if !metadata.is_dir() => "it is no directory, or a link to one",
        _ if metadata.uid() != geteuid().as_raw() => "it belongs to somebody else",
        mode if mode & 0o022 != 0 => "others can write to it",
        _ => return Ok(()),
    };
    refused(format!(
        "files with keys cannot go into {}: {told}; move it away, or name another place with --to",
        path.display()
    ))
}

/// Refuses a place where no files of this user can be written, or where others can move them, before anything is
/// changed.
pub fn check_writable(to: &Path, user: &Name) -> Result<()> {
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
    // In one with the sticky bit, such as /tmp, everybody moves what is theirs alone.
    if metadata.mode() & 0o1002 == 0o0002 {
        return refused(format!(
            "everybody can write to {}, and could put something else in the place of files with keys: \
             `chmod o-w` it, or name another place with --to",
            to.display()
        ));
    }
    let folder = to.join(user.as_str());
    if folder.symlink_metadata().is_ok() {
        check_own(&folder)?;
    }
    // Dropped at once, and with it the file.
    match Staged::draft(&to.join("cygnet"), b"") {
        Err(Error::File { source, .. }) => Err(Error::file("write to", to)(source)),
        drafted => drafted.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::testing::Directory;

    #[test]
    fn files_with_keys_go_where_nobody_else_writes() {
        let directory = Directory::new("own");
        let path = |name: &str| directory.path().join(name);
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
        };
        let told = |result: Result<()>| result.expect_err("refused").to_string();
        let alice: Name = "alice".parse().expect("a name");
        own_directory(&path("alice")).expect("made");
        own_directory(&path("alice")).expect("ours");
        mode(&path("alice"), 0o770);
        assert!(told(own_directory(&path("alice"))).contains("others can write to it"));
        symlink("alice", path("bob")).expect("linked");
        mode(&path("alice"), 0o700);
        assert!(told(own_directory(&path("bob"))).contains("or a link to one"));

        check_writable(directory.path(), &alice).expect("ours");
        mode(directory.path(), 0o777);
        assert!(told(check_writable(directory.path(), &alice)).contains("everybody can write to"));
        mode(directory.path(), 0o1777);
        check_writable(directory.path(), &alice).expect("as /tmp");
    }
}
