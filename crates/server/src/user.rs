//! Users and their devices. One certificate a device, so that a lost phone is shut out alone.

use cygnet_crypto::Random;
use cygnet_pki::SubjectAltName;
use cygnet_pki::authority::{Authority, Purpose, Request, Validity};
use cygnet_pki::csr::PublicKey;
use cygnet_profile::OnDemand;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::configuration::Check;
use crate::demand;
use crate::error::{Error, Flaw, Result, refused};
use crate::issue::{BACKDATED, new_serial};
use crate::name::Name;
use crate::published::pkcs8;
use crate::server::{Circumstances, Key, Server};
use crate::{hex, password, reason, time};

/// How long a client's certificate is valid unless it is said: as long as the server's. Whoever is to be shut out
/// earlier is, at once, by the revocation list; a short life would only surprise people.
pub const VALIDITY: i64 = crate::server::CERTIFICATE_VALIDITY - BACKDATED;
/// Folder of the files of a password, beside those of devices.
pub const PASSWORD: &str = "password";

/// Who is to be let in.
pub struct NewUser<'a> {
    /// Login name, too.
    pub name: &'a Name,
    /// Each gets a certificate.
    pub devices: &'a [Name],
    /// The key of the one device that made its own.
    pub key: Option<&'a PublicKey>,
    /// For logins by password.
    pub nt_hash: Option<&'a [u8; 16]>,
    /// Of the certificates, in seconds.
    pub validity: i64,
    /// When Apple's devices among them connect by themselves.
    pub on_demand: &'a OnDemand,
}

/// A user, as `user list` and `user show` tell.
#[derive(Debug, Serialize)]
pub struct User {
    /// The name.
    pub name: String,
    /// Since when nothing of this user is let in; seconds since 1970.
    pub suspended: Option<i64>,
    /// Whether a password opens.
    pub password: bool,
    /// By name.
    pub devices: Vec<Device>,
}

/// A device.
#[derive(Debug, Serialize)]
pub struct Device {
    /// The name.
    pub name: String,
    /// What it calls itself in IKE.
    pub identity: String,
    /// Whether its key was made here.
    pub key_made_here: bool,
    /// The last is in use; earlier ones that are listed are good until their end.
    pub certificates: Vec<Certificate>,
}

/// A certificate that is not revoked.
#[derive(Debug, Serialize)]
pub struct Certificate {
    /// In hexadecimal.
    pub serial: String,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
}

impl Server {
    /// Adds a user, or devices to one that is there. Returns whether the user is new.
    pub fn add_user(
        &mut self,
        new: &NewUser<'_>,
        with: &mut Circumstances<'_>,
        check: Check<'_>,
    ) -> Result<bool> {
        if new.key.is_some() && new.devices.len() != 1 {
            return refused("a signing request is that of one device: name it with --devices");
        }
        demand::check(new.on_demand)?;
        let on_demand = demand::stored(new.on_demand);
        let not_after = self.end(new.validity, with.now)?;
        let (id, kind) = (self.id.clone(), self.key);
        self.change(with, check, |state, authority, with| {
            let known = user_id(state, new.name)?;
            if known.is_some() && new.nt_hash.is_some() {
                return Err(Flaw::from(Error::Refused(format!(
                    "there is a user {0} already; `cygnet user password {0}` sets a password",
                    new.name
                ))));
            }
            let user = match known {
                Some(user) => user,
                None => {
                    state.execute(
                        "INSERT INTO user (name, nt_hash, on_demand) VALUES (?, ?, ?)",
                        params![new.name.as_str(), new.nt_hash.map(|it| &it[..]), on_demand],
                    )?;
                    state.last_insert_rowid()
                }
            };
            for device in new.devices {
                let identity = add_device(state, user, new.name, device, &id, with.random)?;
                let device = state.last_insert_rowid();
                state.execute(
                    "UPDATE device SET on_demand = ? WHERE id = ?",
                    params![on_demand, device],
                )?;
                let issue = Issue {
                    device,
                    identity: &identity,
                    key: new.key,
                    kind,
                    not_after,
                };
                issue.certify(state, authority, with)?;
            }
            Ok(known.is_none())
        })
    }

    /// Whether there is such a user.
    pub fn has_user(&self, name: &Name) -> Result<bool> {
        let found = user_id(&self.store.connection, name).map_err(self.store.error())?;
        Ok(found.is_some())
    }

    /// All users, by name.
    pub fn users(&self) -> Result<Vec<User>> {
        users(&self.store.connection).map_err(self.store.error())
    }

    /// One of them.
    pub fn user(&self, name: &Name) -> Result<User> {
        let mut all = self.users()?.into_iter();
        all.find(|user| user.name == name.as_str())
            .ok_or_else(|| unknown(name))
    }

    /// Lets nothing of this user in until [`Server::resume`].
    pub fn suspend(
        &mut self,
        name: &Name,
        with: &mut Circumstances<'_>,
        check: Check<'_>,
    ) -> Result<()> {
        self.change(with, check, |state, _, with| {
            let user = known_user(state, name)?;
            let changed = state.execute(
                "UPDATE user SET suspended = ? WHERE id = ? AND suspended IS NULL",
                (with.now, user),
            )?;
            match changed {
                0 => Err(Error::Refused(format!("{name} is suspended already")).into()),
                _ => Ok(()),
            }
        })
    }

    /// Lets a suspended user in again.
    pub fn resume(
        &mut self,
        name: &Name,
        with: &mut Circumstances<'_>,
        check: Check<'_>,
    ) -> Result<()> {
        self.change(with, check, |state, _, _| {
            let user = known_user(state, name)?;
            let changed = state.execute(
                "UPDATE user SET suspended = NULL WHERE id = ? AND suspended IS NOT NULL",
                [user],
            )?;
            match changed {
                0 => Err(Error::Refused(format!("{name} is not suspended")).into()),
                _ => Ok(()),
            }
        })
    }

    /// Removes a user, or one device, for good: the certificates are revoked, the names may be used again.
    pub fn remove_user(
        &mut self,
        name: &Name,
        device: Option<&Name>,
        with: &mut Circumstances<'_>,
        check: Check<'_>,
    ) -> Result<()> {
        self.change(with, check, |state, _, with| {
            let user = known_user(state, name)?;
            for device in devices(state, user, name, device)? {
                revoke(state, device.id, reason::CEASED, with.now)?;
            }
            match device {
                Some(device) => state.execute(
                    "DELETE FROM device WHERE user = ? AND name = ?",
                    (user, device.as_str()),
                )?,
                None => state.execute("DELETE FROM user WHERE id = ?", [user])?,
            };
            Ok(())
        })
    }

    /// New keys and certificates for a user's devices. The old ones are good until their end, unless they are revoked.
    pub fn renew_user(
        &mut self,
        name: &Name,
        device: Option<&Name>,
        renewal: &Renewal<'_>,
        with: &mut Circumstances<'_>,
        check: Check<'_>,
    ) -> Result<()> {
        let not_after = self.end(renewal.validity, with.now)?;
        let kind = self.key;
        self.change(with, check, |state, authority, with| {
            let user = known_user(state, name)?;
            let devices = devices(state, user, name, device)?;
            if devices.is_empty() {
                let told = format!("{name} has no devices, and a password needs no renewal");
                return Err(Flaw::from(Error::Refused(told)));
            }
            if renewal.key.is_some() && devices.len() != 1 {
                let told = "a signing request is that of one device: name it with --device";
                return Err(Error::Refused(told.into()).into());
            }
            for device in devices {
                if !device.key_made_here && renewal.key.is_none() {
                    return Err(Error::Refused(format!(
                        "the key of {name}'s {} was not made here: give a new signing request with --device {0} --csr",
                        device.name
                    ))
                    .into());
                }
                if renewal.revoke_old {
                    revoke(state, device.id, reason::SUPERSEDED, with.now)?;
                }
                // A superseded key opens the tunnel on its device alone; here it is of no more use.
                state.execute(
                    "UPDATE certificate SET key = NULL WHERE device = ?",
                    [device.id],
                )?;
                let issue = Issue {
                    device: device.id,
                    identity: &device.identity,
                    key: renewal.key,
                    kind,
                    not_after,
                };
                issue.certify(state, authority, with)?;
            }
            Ok(())
        })
    }

    /// Shuts out what [`Server::renew_user`] let overlap: of each device all certificates but the newest. Returns of which
    /// devices there were any.
    pub fn end_old(
        &mut self,
        name: &Name,
        device: Option<&Name>,
        with: &mut Circumstances<'_>,
        check: Check<'_>,
    ) -> Result<Vec<String>> {
        self.change(with, check, |state, _, with| {
            let user = known_user(state, name)?;
            let mut ended = Vec::new();
            for device in devices(state, user, name, device)? {
                let newest: Option<(i64, i64)> = state
                    .query_row(
                        "SELECT position, not_after FROM certificate WHERE device = ? AND revoked IS NULL
                         ORDER BY position DESC LIMIT 1",
                        [device.id],
                        |row| Ok((row.get(0)?, row.get(1)?)),
                    )
                    .optional()?;
                // One that is over cannot stand in for the others.
                let Some((newest, _)) = newest.filter(|(_, end)| *end > with.now) else {
                    continue;
                };
                let changed = state.execute(
                    "UPDATE certificate SET revoked = ?, reason = ?, key = NULL
                     WHERE device = ? AND revoked IS NULL AND position < ? AND not_after > ?",
                    (with.now, reason::SUPERSEDED, device.id, newest, with.now),
                )?;
                if changed > 0 {
                    ended.push(device.name);
                }
            }
            match ended.is_empty() {
                true => Err(Error::Refused(format!(
                    "there is nothing to end: no device of {name} that was asked for has an older certificate beside one \
                     that works"
                ))
                .into()),
                false => Ok(ended),
            }
        })
    }

    /// Another name. Devices keep certificates and identities, and need nothing new; a login by password takes the new
    /// name at once.
    pub fn rename_user(
        &mut self,
        name: &Name,
        new: &Name,
        with: &mut Circumstances<'_>,
        check: Check<'_>,
    ) -> Result<()> {
        self.change(with, check, |state, _, _| {
            let user = known_user(state, name)?;
            if user_id(state, new)?.is_some() {
                return Err(Error::Refused(format!("there is a user {new} already")).into());
            }
            state.execute(
                "UPDATE user SET name = ? WHERE id = ?",
                (new.as_str(), user),
            )?;
            Ok(())
        })
    }

    /// Sets a password, or removes it.
    pub fn set_password(
        &mut self,
        name: &Name,
        nt_hash: Option<&[u8; 16]>,
        with: &mut Circumstances<'_>,
        check: Check<'_>,
    ) -> Result<()> {
        self.change(with, check, |state, _, _| {
            let user = known_user(state, name)?;
            state.execute(
                "UPDATE user SET nt_hash = ? WHERE id = ?",
                params![nt_hash.map(|it| &it[..]), user],
            )?;
            Ok(())
        })
    }

    /// When a certificate ends that is issued now. None outlives the authority.
    fn end(&self, validity: i64, now: i64) -> Result<i64> {
        end_before(self.authority_end()?, validity, now)
    }
}

fn end_before(last: i64, validity: i64, now: i64) -> Result<i64> {
    let end = now + validity;
    if end > last {
        return refused(format!(
            "a certificate valid until {} would outlive the authority, which ends {}: give --valid {}d, which is the \
             most, or less",
            time::day(end),
            time::day(last),
            (last - now).max(0) / time::DAY
        ));
    }
    Ok(end)
}

/// How devices are renewed.
pub struct Renewal<'a> {
    /// The new key of the one device that makes its own.
    pub key: Option<&'a PublicKey>,
    /// Of the new certificates, in seconds.
    pub validity: i64,
    /// Shut the old certificates out now.
    pub revoke_old: bool,
}

/// One certificate for a device.
struct Issue<'a> {
    device: i64,
    identity: &'a str,
    key: Option<&'a PublicKey>,
    kind: Key,
    not_after: i64,
}

impl Issue<'_> {
    fn certify(
        &self,
        state: &Connection,
        authority: &Authority,
        with: &mut Circumstances<'_>,
    ) -> std::result::Result<(), Flaw> {
        let serial = new_serial(state, with)?;
        let not_before = with.now - BACKDATED;
        let local_part = self.identity.split('@').next().unwrap_or_default();
        let request = Request {
            common_name: local_part,
            names: &[SubjectAltName::Email(self.identity.to_owned())],
            purpose: Purpose::Client,
            serial: &serial,
            validity: Validity {
                not_before: time::unix(not_before),
                not_after: time::unix(self.not_after),
            },
            key: self.kind.kind(),
        };
        let (der, key) = match self.key {
            Some(key) => (authority.certify(&request, key)?, None),
            None => {
                let issued = authority.issue(&request)?;
                (issued.certificate_der, Some(pkcs8(&issued.key_pem)?))
            }
        };
        state.execute(
            "INSERT INTO certificate (serial, device, der, key, not_before, not_after) VALUES (?, ?, ?, ?, ?, ?)",
            params![
                serial,
                self.device,
                der,
                key.as_ref().map(|it| it.as_slice()),
                not_before,
                self.not_after
            ],
        )?;
        Ok(())
    }
}

/// A device as it is worked on.
struct Known {
    id: i64,
    name: String,
    identity: String,
    key_made_here: bool,
}

const KEY_MADE_HERE: &str = "coalesce((SELECT key IS NOT NULL FROM certificate WHERE device = device.id \
    ORDER BY position DESC LIMIT 1), 0)";

/// All devices of a user, or the one named.
fn devices(
    state: &Connection,
    user: i64,
    name: &Name,
    device: Option<&Name>,
) -> std::result::Result<Vec<Known>, Flaw> {
    let mut statement = state.prepare(&format!(
        "SELECT device.id, name, identity, {KEY_MADE_HERE} FROM device
         WHERE user = ?1 AND (?2 IS NULL OR name = ?2) ORDER BY name"
    ))?;
    let known = |row: &Row<'_>| {
        Ok(Known {
            id: row.get(0)?,
            name: row.get(1)?,
            identity: row.get(2)?,
            key_made_here: row.get(3)?,
        })
    };
    let found: Vec<Known> = statement
        .query_map((user, device.map(Name::as_str)), known)?
        .collect::<rusqlite::Result<_>>()?;
    match device {
        Some(device) if found.is_empty() => Err(Error::Refused(format!(
            "{name} has no device {device}; `cygnet user show {name}` lists them"
        ))
        .into()),
        _ => Ok(found),
    }
}

/// Revokes the certificates of a device and forgets their keys.
fn revoke(state: &Connection, device: i64, reason: i64, now: i64) -> rusqlite::Result<()> {
    state
        .execute(
            "UPDATE certificate SET revoked = ?, reason = ?, key = NULL
             WHERE device = ? AND revoked IS NULL",
            (now, reason, device),
        )
        .map(|_| ())
}

/// Adds a device without a certificate; returns its identity, which nobody else has: after a renaming another user's
/// device may have the one that would be natural.
fn add_device(
    state: &Connection,
    user: i64,
    name: &Name,
    device: &Name,
    server: &str,
    random: &mut dyn Random,
) -> std::result::Result<String, Flaw> {
    if device.as_str() == PASSWORD {
        let told =
            format!("a device cannot be named {PASSWORD}: files of a login by password go there");
        return Err(Error::Refused(told).into());
    }
    let local_part = format!("{name}.{device}");
    // The common name's limit (RFC 5280 appendix A: ub-common-name), with room for a number.
    if local_part.len() > 60 {
        return Err(Error::Refused(format!(
            "{name} and {device} together are too long: expected 59 characters at most"
        ))
        .into());
    }
    let there: bool = state.query_row(
        "SELECT count(*) FROM device WHERE user = ? AND name = ?",
        (user, device.as_str()),
        |row| row.get(0),
    )?;
    if there {
        return Err(Error::Refused(format!(
            "{name} has a device {device} already; `cygnet user renew {name} --device {device}` gives it a new certificate"
        ))
        .into());
    }
    let password = password::readable(random);
    for number in 1..1000 {
        let local_part = match number {
            1 => local_part.clone(),
            _ => format!("{local_part}-{number}"),
        };
        let identity = format!("{local_part}@{server}.cygnet.internal");
        let taken: bool = state.query_row(
            "SELECT count(*) FROM device WHERE identity = ?",
            [&identity],
            |row| row.get(0),
        )?;
        if !taken {
            state.execute(
                "INSERT INTO device (user, name, identity, p12_password) VALUES (?, ?, ?, ?)",
                (user, device.as_str(), &identity, password.as_str()),
            )?;
            return Ok(identity);
        }
    }
    Err(Error::Refused(format!(
        "every identity of {local_part} is taken; choose another name"
    ))
    .into())
}

fn user_id(state: &Connection, name: &Name) -> rusqlite::Result<Option<i64>> {
    let find = "SELECT id FROM user WHERE name = ?";
    state
        .query_row(find, [name.as_str()], |row| row.get(0))
        .optional()
}

pub(crate) fn known_user(state: &Connection, name: &Name) -> std::result::Result<i64, Flaw> {
    user_id(state, name)?.ok_or_else(|| unknown(name).into())
}

fn unknown(name: &Name) -> Error {
    Error::Refused(format!(
        "there is no user {name}; `cygnet user list` names them"
    ))
}

fn users(state: &Connection) -> rusqlite::Result<Vec<User>> {
    let mut users =
        state.prepare("SELECT id, name, suspended, nt_hash IS NOT NULL FROM user ORDER BY name")?;
    let mut devices = state.prepare(&format!(
        "SELECT device.id, name, identity, {KEY_MADE_HERE} FROM device WHERE user = ? ORDER BY name"
    ))?;
    let mut certificates = state.prepare(
        "SELECT serial, not_before, not_after FROM certificate
         WHERE device = ? AND revoked IS NULL ORDER BY position",
    )?;
    let mut out = Vec::new();
    let mut rows = users.query([])?;
    while let Some(row) = rows.next()? {
        let mut user = User {
            name: row.get(1)?,
            suspended: row.get(2)?,
            password: row.get(3)?,
            devices: Vec::new(),
        };
        let mut rows = devices.query([row.get::<_, i64>(0)?])?;
        while let Some(row) = rows.next()? {
            let certificate = |row: &Row<'_>| {
                Ok(Certificate {
                    serial: hex(&row.get::<_, Vec<u8>>(0)?),
                    not_before: row.get(1)?,
                    not_after: row.get(2)?,
                })
            };
            user.devices.push(Device {
                name: row.get(1)?,
                identity: row.get(2)?,
                key_made_here: row.get(3)?,
                certificates: certificates
                    .query_map([row.get::<_, i64>(0)?], certificate)?
                    .collect::<rusqlite::Result<_>>()?,
            });
        }
        out.push(user);
    }
    Ok(out)
}

/// What is handed to a device, from the state.
pub(crate) struct Handout {
    pub(crate) device: String,
    pub(crate) identity: String,
    pub(crate) p12_password: Zeroizing<String>,
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Option<Zeroizing<Vec<u8>>>,
    pub(crate) on_demand: OnDemand,
}

pub(crate) fn handouts(state: &Connection, user: i64) -> rusqlite::Result<Vec<Handout>> {
    let mut statement = state.prepare(
        "SELECT name, identity, p12_password, der, key, on_demand FROM device
         JOIN certificate ON certificate.position =
             (SELECT max(position) FROM certificate WHERE device = device.id AND revoked IS NULL)
         WHERE user = ? ORDER BY name",
    )?;
    let rows = statement.query_map([user], |row| {
        Ok(Handout {
            device: row.get(0)?,
            identity: row.get(1)?,
            p12_password: Zeroizing::new(row.get(2)?),
            certificate: row.get(3)?,
            key: row.get::<_, Option<Vec<u8>>>(4)?.map(Zeroizing::new),
            on_demand: demand::of(row.get::<_, Option<String>>(5)?.as_deref()),
        })
    })?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_validity_is_told() {
        let last = 3650 * time::DAY;
        assert_eq!(end_before(last, last, 0).expect("just so"), last);
        let told = end_before(last, last, 1).expect_err("a second too long");
        assert!(told.to_string().contains("give --valid 3649d,"), "{told}");
    }
}
