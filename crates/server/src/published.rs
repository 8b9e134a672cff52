//! What the daemon reads: files beside `cygnet.toml`, written from the state and nothing else.

use std::fs;
use std::path::Path;

use cygnet_pki::authority::{Authority, Revoked, to_pem};
use cygnet_pki::load;
use rusqlite::{Connection, Row};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::error::{Error, Flaw, Result};
use crate::file::{Staged, Undo, clear, sync_dir};
use crate::issue::BACKDATED;
use crate::store::make_private_dir;
use crate::{hex, reason, time};

/// The directory beside the configuration.
pub const DIRECTORY: &str = "server";
/// The files in it.
pub const FILES: [&str; 6] = [
    "server.crt",
    "server.key",
    "ca.crt",
    "ca.crl",
    "passwords",
    "devices.json",
];

/// `devices.json`: who is behind a certificate, for `status` and the log.
#[derive(Serialize)]
struct Devices {
    version: u32,
    devices: Vec<Device>,
}

#[derive(Serialize)]
struct Device {
    user: String,
    device: String,
    serial: String,
    identity: String,
    not_after: i64,
}

/// The content of [`FILES`], in their order.
pub(crate) struct Published([Zeroizing<Vec<u8>>; 6]);

impl Published {
    /// Renders the state. `until` is when the revocation list ends: with the authority, since every change brings a
    /// new one, and a server that was not changed for long must go on.
    pub(crate) fn render(
        state: &Connection,
        authority: &Authority,
        now: i64,
        until: i64,
    ) -> std::result::Result<Self, Flaw> {
        let (certificate, key): (Vec<u8>, Vec<u8>) = state.query_row(
            "SELECT der, key FROM server_certificate ORDER BY position DESC LIMIT 1",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let key = Zeroizing::new(key);
        let number: i64 = state.query_row("SELECT crl_number FROM server", [], |row| row.get(0))?;
        let crl = authority.crl(
            &revoked(state, now)?,
            u64::try_from(number).unwrap_or_default(),
            // A clock that is behind, here after a restart or elsewhere, is no reason not to believe it.
            time::unix(now - BACKDATED),
            time::unix(until),
        )?;
        let plain = |bytes: &[u8]| Zeroizing::new(bytes.to_vec());
        Ok(Self([
            plain(to_pem("CERTIFICATE", &certificate).as_bytes()),
            plain(Zeroizing::new(to_pem("PRIVATE KEY", &key)).as_bytes()),
            plain(to_pem("CERTIFICATE", authority.certificate_der()).as_bytes()),
            plain(to_pem("X509 CRL", &crl).as_bytes()),
            passwords(state)?,
            Zeroizing::new(devices(state, now)?),
        ]))
    }

    /// Writes what differs beside the old files.
    pub(crate) fn stage(&self, directory: &Path) -> Result<Vec<Staged>> {
        let mut staged = Vec::new();
        for (name, bytes) in FILES.iter().zip(&self.0) {
            let path = directory.join(name);
            let same = fs::read(&path).is_ok_and(|old| Zeroizing::new(old) == *bytes);
            match same {
                // It may hold a secret that is a secret still.
                true => drop(clear(&path)?),
                false => staged.push(Staged::write(&path, bytes)?),
            }
        }
        Ok(staged)
    }
}

/// Puts what was staged in place. Each file is good beside the old others: a renewed certificate keeps its key.
pub(crate) fn place(staged: Vec<Staged>, directory: &Path) -> Result<()> {
    for file in staged {
        file.place()?;
    }
    sync_dir(directory)
}

/// What is revoked for good, and what is on hold because its user is suspended. The expired need no entry.
fn revoked(state: &Connection, now: i64) -> rusqlite::Result<Vec<Revoked>> {
    let mut statement = state.prepare(
        "SELECT serial, coalesce(revoked, suspended), coalesce(reason, ?2)
         FROM certificate
         LEFT JOIN device ON device.id = certificate.device
         LEFT JOIN user ON user.id = device.user
         WHERE coalesce(revoked, suspended) IS NOT NULL AND not_after >= ?1
         ORDER BY certificate.position",
    )?;
    let rows = statement.query_map((now, reason::HOLD), |row| {
        Ok(Revoked {
            serial: row.get(0)?,
            at: time::unix(row.get(1)?),
            reason: reason::of(row.get(2)?),
        })
    })?;
    rows.collect()
}

fn passwords(state: &Connection) -> rusqlite::Result<Zeroizing<Vec<u8>>> {
    const HEAD: &str = "# Written by `cygnet user`: a user's name and NT hash, which is as good as the password.\n";
    let users = "FROM user WHERE nt_hash IS NOT NULL AND suspended IS NULL";
    let count: i64 = state.query_row(&format!("SELECT count(*) {users}"), [], |row| row.get(0))?;
    // Whole at once, so that no reallocation leaves a copy behind: a name has 32 characters at most, a hash as many.
    let capacity = HEAD.len() + 66 * usize::try_from(count).unwrap_or_default();
    let mut out = Zeroizing::new(Vec::with_capacity(capacity));
    out.extend_from_slice(HEAD.as_bytes());
    let mut statement = state.prepare(&format!("SELECT name, nt_hash {users} ORDER BY name"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let hash = Zeroizing::new(row.get::<_, Vec<u8>>(1)?);
        out.extend_from_slice(row.get::<_, String>(0)?.as_bytes());
        out.push(b':');
        out.extend_from_slice(Zeroizing::new(hex(&hash)).as_bytes());
        out.push(b'\n');
    }
    Ok(out)
}

fn devices(state: &Connection, now: i64) -> rusqlite::Result<Vec<u8>> {
    let mut statement = state.prepare(
        "SELECT user.name, device.name, serial, identity, not_after
         FROM certificate
         JOIN device ON device.id = certificate.device
         JOIN user ON user.id = device.user
         WHERE revoked IS NULL AND suspended IS NULL AND not_after >= ?1
         ORDER BY user.name, device.name, certificate.position",
    )?;
    let device = |row: &Row<'_>| {
        Ok(Device {
            user: row.get(0)?,
            device: row.get(1)?,
            serial: hex(&row.get::<_, Vec<u8>>(2)?),
            identity: row.get(3)?,
            not_after: row.get(4)?,
        })
    };
    let devices = statement
        .query_map([now], device)?
        .collect::<rusqlite::Result<_>>()?;
    let mut out = serde_json::to_vec_pretty(&Devices {
        version: 1,
        devices,
    })
    .expect("strings and numbers are JSON");
    out.push(b'\n');
    Ok(out)
}

/// Makes the directory, which is taken back with what will be in it; refuses to write over what is there but is not
/// ours.
pub(crate) fn make(directory: &Path) -> Result<Undo> {
    let mut undo = Undo::default();
    undo.note(directory);
    for name in FILES {
        let path = directory.join(name);
        if fs::symlink_metadata(&path).is_ok() {
            return Err(Error::Refused(format!(
                "{} is there already, but no server in the state directory that it belongs to: move it away first",
                path.display()
            )));
        }
        undo.note(&path);
    }
    make_private_dir(directory)?;
    Ok(undo)
}

/// PKCS#8 (DER) of a key that was just issued as PEM.
pub(crate) fn pkcs8(pem: &str) -> Result<Zeroizing<Vec<u8>>> {
    let key = load::private_key(pem.as_bytes(), Path::new("the new key"))?;
    Ok(Zeroizing::new(key.pkcs8().to_vec()))
}
