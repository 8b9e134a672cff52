//! `cygnet server backup` and `restore`

use std::process::ExitCode;

use cygnet_server::{Result, Server, backup, pool};

use super::super::place::{Context, check};
use super::super::read::read;
use super::super::secret;
use super::network;
use crate::args::server::{Backup, Restore};

/// No server has so many users.
const FILE_MAX: u64 = 1 << 30;

pub(super) fn backup(options: &Backup) -> Result<ExitCode> {
    let mut context = Context::new(&options.place)?;
    backup::check_replaceable(&options.file)?;
    let passphrase = match &options.passphrase.passphrase_file {
        Some(path) => secret::of_file(path)?,
        None => secret::new(
            "passphrase for the backup",
            "--passphrase-file",
            backup::check_passphrase,
        )?,
    };
    secret::judge(
        backup::check_passphrase(&passphrase),
        options.passphrase.passphrase_file.as_deref(),
    )?;
    let mut server = context.open()?;
    server.backup(&options.file, &passphrase, context.random())?;
    println!(
        "Everything is in {}. `cygnet server restore` brings it back, here or on another machine.\n\
         Keep file and passphrase apart: together they are the server.",
        options.file.display()
    );
    Ok(ExitCode::SUCCESS)
}

pub(super) fn restore(options: &Restore) -> Result<ExitCode> {
    let mut context = Context::new(&options.place)?;
    let (sealed, _) = read(&options.file, FILE_MAX)?;
    let passphrase = match &options.passphrase.passphrase_file {
        Some(path) => secret::of_file(path)?,
        None => secret::known("passphrase of the backup", "--passphrase-file")?,
    };
    let place = context.place.clone();
    // Before its own ways to the pools are there.
    let known = network::known()?;
    let mut server = Server::restore(&place, &sealed, &passphrase, &mut context.with(), &check)?;
    let outcome = context.reload(&mut server);
    let summary = server.summary()?;
    println!(
        "The server is back, with {} users and {} devices; it is called by {}.",
        summary.users,
        summary.devices,
        summary.addresses.join(", ")
    );
    if let Err(error) = pool::check(&summary.pools, &known) {
        println!(
            "But {error}. Change `pools` in {} before it runs.",
            place.config.display()
        );
    }
    if let Some(uplink) = &summary.uplink
        && network::check_interface(uplink).is_err()
    {
        println!(
            "But there is no interface {uplink} here: change `uplink` in {} before it runs.",
            place.config.display()
        );
    }
    println!(
        "If its address is another one now, point the name to it, or `cygnet server set-address`.\n\
         What was changed after the backup is not in it: remove again whoever was removed since."
    );
    Ok(outcome.told(&context.place.config))
}
