//! `cygnet server …`

mod backup;
mod init;
pub(super) mod network;
mod uninstall;
mod unit;

use std::process::ExitCode;

use cygnet_server::time::{DAY, day};
use cygnet_server::{Address, Result, Summary};

use super::place::{self, Context, check};
use crate::args::server::{Server, SetAddress, Show, Where};

pub(super) fn server(what: &Server) -> ExitCode {
    let done = match what {
        Server::Init(options) => init::init(options),
        Server::Show(options) => show(options),
        Server::Renew { place } => renew(place),
        Server::SetAddress(options) => set_address(options),
        Server::Backup(options) => backup::backup(options),
        Server::Restore(options) => backup::restore(options),
        Server::Uninstall(options) => uninstall::uninstall(options),
    };
    done.unwrap_or_else(|error| place::failed(&error))
}

fn show(options: &Show) -> Result<ExitCode> {
    let mut context = Context::new(&options.place)?;
    let summary = context.open()?.summary()?;
    if options.json {
        println!("{}", super::user::json(&summary));
        return Ok(ExitCode::SUCCESS);
    }
    print!("{}", render(&summary, context.now()));
    if !summary.configured {
        println!(
            "\n{} has no [server] section of ours: `cygnet server init` with the same values writes it again.",
            context.place.config.display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn render(summary: &Summary, now: i64) -> String {
    let list = |items: &[String]| items.join(", ");
    let texts =
        |items: &[std::net::IpAddr]| items.iter().map(ToString::to_string).collect::<Vec<_>>();
    let pools: Vec<String> = summary.pools.iter().map(ToString::to_string).collect();
    let mut lines = vec![
        ("addresses", list(&summary.addresses)),
        ("pools", list(&pools)),
        ("dns", list(&texts(&summary.dns))),
    ];
    if let Some(uplink) = &summary.uplink {
        lines.push(("uplink", uplink.clone()));
    }
    lines.extend([
        (
            "users",
            format!("{}, with {} devices", summary.users, summary.devices),
        ),
        ("keys", summary.key.clone()),
        (
            "certificate",
            format!(
                "valid until {}{}, serial {}",
                day(summary.certificate_not_after),
                soon(summary.certificate_not_after, now),
                summary.certificate_serial
            ),
        ),
        (
            "authority",
            format!(
                "Cygnet {}, valid until {}{}",
                summary.id,
                day(summary.authority_not_after),
                soon(summary.authority_not_after, now)
            ),
        ),
        ("sha256", summary.authority_fingerprint.clone()),
    ]);
    lines
        .into_iter()
        .map(|(what, value)| format!("{what:<12} {value}\n"))
        .collect()
}

/// A remark where little time is left.
pub(super) fn soon(not_after: i64, now: i64) -> String {
    match (not_after - now) / DAY {
        _ if not_after < now => " (EXPIRED)".into(),
        0 => " (ENDS TODAY)".into(),
        1 => " (1 day left)".into(),
        left @ 2..30 => format!(" ({left} days left)"),
        _ => String::new(),
    }
}

fn renew(place: &Where) -> Result<ExitCode> {
    let mut context = Context::new(place)?;
    let mut server = context.open()?;
    server.renew(&mut context.with(), &check)?;
    let outcome = context.reload(&mut server);
    let summary = server.summary()?;
    println!(
        "The server has a new certificate, valid until {}. Clients need nothing new.",
        day(summary.certificate_not_after)
    );
    Ok(outcome.told(&context.place.config))
}

fn set_address(options: &SetAddress) -> Result<ExitCode> {
    let mut context = Context::new(&options.place)?;
    network::check_addresses(&options.addresses, options.no_resolve_check)?;
    let mut server = context.open()?;
    let before = server.settings()?.addresses;
    let mut addresses: Vec<Address> = match options.add {
        true => before.clone(),
        false => Vec::new(),
    };
    for address in &options.addresses {
        if !addresses.contains(address) {
            addresses.push(address.clone());
        }
    }
    if addresses == before {
        println!("The server has these addresses already; nothing was changed.");
        return Ok(ExitCode::SUCCESS);
    }
    let outdated = server.set_addresses(&addresses, &mut context.with(), &check)?;
    let outcome = context.reload(&mut server);
    let names: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    println!("The server's certificate holds: {}.", names.join(", "));
    network::tell_private(&options.addresses);
    network::tell_elsewhere(&options.addresses);
    if outdated.is_empty() {
        println!("All files that were handed out go on working.");
    } else {
        println!(
            "These were handed files that call an address which is gone; export and hand them out again:\n  {}\n\
             All others go on working.",
            outdated.join("\n  ")
        );
    }
    Ok(outcome.told(&context.place.config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_time_is_told_in_days() {
        let left = |days: i64| soon(days * DAY + 10, 0);
        assert_eq!(left(-1), " (EXPIRED)");
        assert_eq!(left(0), " (ENDS TODAY)");
        assert_eq!(left(1), " (1 day left)");
        assert_eq!(left(29), " (29 days left)");
        assert_eq!(left(30), "");
    }
}
