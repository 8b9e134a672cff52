//! What is issued for the server itself: the first content of a state, and its certificates. And serial numbers.

use cygnet_pki::authority::{Authority, Purpose, Request, Validity, draw_serial};
use cygnet_pki::csr::PublicKey;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use zeroize::Zeroizing;

use crate::error::{Error, Flaw};
use crate::hex;
use crate::name::Address;
use crate::published::pkcs8;
use crate::server::{CERTIFICATE_VALIDITY, Circumstances, Key, Settings};
use crate::time::{self, DAY};

/// How long the authority is valid: as long as a device may be left in a drawer.
const AUTHORITY_VALIDITY: i64 = 3650 * DAY;
/// Clocks of devices are slow sometimes.
pub(crate) const BACKDATED: i64 = DAY;

/// The first content of a state.
pub(crate) fn found(
    transaction: &Transaction<'_>,
    settings: &Settings,
    with: &mut Circumstances<'_>,
) -> Result<(), Flaw> {
    let mut id = [0; 4];
    with.random.fill(&mut id);
    let id = hex(&id);
    let serial = new_serial(transaction, with)?;
    let authority = Authority::create(
        // A name that no other authority has, or a peer with two of them would have to try both keys.
        &format!("Cygnet {id}"),
        &serial,
        Validity {
            not_before: time::unix(with.now - BACKDATED),
            not_after: time::unix(with.now + AUTHORITY_VALIDITY),
        },
        settings.key.kind(),
    )?;
    let key = pkcs8(&authority.key_pem())?;
    transaction.execute(
        "INSERT INTO server (only_one, id, key_kind, certificate, key, not_after, uplink)
         VALUES (1, ?, ?, ?, ?, ?, ?)",
        params![
            id,
            settings.key.to_string(),
            authority.certificate_der(),
            *key,
            with.now + AUTHORITY_VALIDITY,
            settings.uplink
        ],
    )?;
    store_setting(transaction, "address", &settings.addresses)?;
    store_setting(transaction, "pool", &settings.pools)?;
    store_setting(transaction, "dns", &settings.dns)?;
    certify_server(transaction, &authority, &settings.addresses, with)
}

pub(crate) fn store_setting<T: ToString>(
    transaction: &Transaction<'_>,
    kind: &str,
    values: &[T],
) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM setting WHERE kind = ?", [kind])?;
    for (at, value) in values.iter().enumerate() {
        transaction.execute(
            "INSERT INTO setting (kind, position, value) VALUES (?, ?, ?)",
            params![kind, at as i64, value.to_string()],
        )?;
    }
    Ok(())
}

/// The server's certificate. Its key stays what it is: certificate and key are two files, and a crash between them
/// must not leave a pair that does not fit.
pub(crate) fn certify_server(
    transaction: &Transaction<'_>,
    authority: &Authority,
    addresses: &[Address],
    with: &mut Circumstances<'_>,
) -> Result<(), Flaw> {
    let Some(first) = addresses.first() else {
        return Err(Error::Refused("a server needs at least one address".into()).into());
    };
    let kind: String =
        transaction.query_row("SELECT key_kind FROM server", [], |row| row.get(0))?;
    let last = transaction
        .query_row(
            "SELECT der, key FROM server_certificate ORDER BY position DESC LIMIT 1",
            [],
            |row| {
                Ok((
                    row.get::<_, Vec<u8>>(0)?,
                    Zeroizing::new(row.get::<_, Vec<u8>>(1)?),
                ))
            },
        )
        .optional()?;
    let names: Vec<_> = addresses
        .iter()
        .flat_map(Address::subject_alt_names)
        .collect();
    let serial = new_serial(transaction, with)?;
    let not_before = with.now - BACKDATED;
    let not_after = not_before + CERTIFICATE_VALIDITY;
    let request = Request {
        common_name: &first.to_string(),
        names: &names,
        purpose: Purpose::Server,
        serial: &serial,
        validity: Validity {
            not_before: time::unix(not_before),
            not_after: time::unix(not_after),
        },
        key: kind.parse::<Key>()?.kind(),
    };
    let (der, key) = match last {
        Some((der, key)) => {
            let public = PublicKey::of_certificate(&der)?;
            (authority.certify(&request, &public)?, key)
        }
        None => {
            let issued = authority.issue(&request)?;
            (issued.certificate_der, pkcs8(&issued.key_pem)?)
        }
    };
    transaction.execute(
        "INSERT INTO server_certificate (serial, der, key, not_after) VALUES (?, ?, ?, ?)",
        params![serial, der, *key, not_after],
    )?;
    Ok(())
}

/// A serial number that was never given before, noted for ever. It is random, so that even a state restored from an old
/// backup gives none twice.
pub(crate) fn new_serial(
    state: &Connection,
    with: &mut Circumstances<'_>,
) -> rusqlite::Result<Vec<u8>> {
    loop {
        let serial = draw_serial(with.random);
        let given = state.execute(
            "INSERT OR IGNORE INTO serial (number, given) VALUES (?, ?)",
            (Value::Blob(serial.to_vec()), with.now),
        )?;
        if given == 1 {
            return Ok(serial.to_vec());
        }
    }
}
