//! `cygnet server init`

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use cygnet_server::{Error, Key, Result, Server, Settings, pool};

use super::super::place::{Context, by, check};
use super::{network, unit};
use crate::args::server::Init;

/// Quad9: filters malware, keeps no addresses.
const DNS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9)),
    IpAddr::V4(Ipv4Addr::new(149, 112, 112, 112)),
];

pub(super) fn init(options: &Init) -> Result<ExitCode> {
    let mut context = Context::new(&options.place)?;
    if let Some(server) = context.find()? {
        return again(options, &mut context, server);
    }
    let mut addresses = Vec::new();
    for address in &options.addresses {
        if addresses.contains(address) {
            return Err(Error::Refused(format!("{address} is given twice")));
        }
        addresses.push(address.clone());
    }
    network::check_addresses(&addresses, options.no_resolve_check)?;
    pool::check_dns(&options.dns)?;
    if let Some(uplink) = &options.uplink {
        network::check_interface(uplink)?;
    }
    let known = network::known()?;
    let pools = match options.pools.is_empty() {
        true => pool::choose(&known, context.random())?,
        false => options.pools.clone(),
    };
    pool::check(&pools, &known)?;
    let settings = Settings {
        addresses,
        pools,
        dns: match options.dns.is_empty() {
            true => DNS.to_vec(),
            false => options.dns.clone(),
        },
        uplink: options.uplink.clone(),
        key: options.key.unwrap_or_default(),
    };
    let place = context.place.clone();
    let mut server = Server::init(&place, &settings, &mut context.with(), &check)?;
    let pools: Vec<String> = settings.pools.iter().map(ToString::to_string).collect();
    println!(
        "This machine is a VPN server now: clients call {} and get an address of {}.",
        settings
            .addresses
            .first()
            .map(ToString::to_string)
            .unwrap_or_default(),
        pools.join(" and ")
    );
    network::tell_private(&settings.addresses);
    network::tell_elsewhere(&settings.addresses);
    if settings.key == Key::Rsa3072 {
        println!(
            "Windows will not connect: it takes signatures by RSA with an outdated hash (SHA-1) alone. If it has to, \
             `cygnet server uninstall` and init again with --key p256."
        );
    }
    println!(
        "Written: {}, {}, {}.",
        place.config.display(),
        place.published().display(),
        place.state().display()
    );
    let code = started(options, &context, &mut server)?;
    println!(
        "\nNext:\n  open UDP 500 and 4500 in the provider's firewall and in this machine's own, if it has one\n  \
         cygnet user add alice --devices iphone,laptop   let somebody in\n  \
         cygnet server backup FILE                       keep a copy elsewhere: it holds all keys\n  \
         cygnet status                                   is it up, is something in the way?"
    );
    Ok(code)
}

/// Has it run: by systemd where that is asked for, else by a daemon that is there.
fn started(options: &Init, context: &Context, server: &mut Server) -> Result<ExitCode> {
    if options.enable {
        return unit::enable(&context.place, server).map_err(Error::after_change);
    }
    match context.reload(server) {
        super::super::place::ReloadOutcome::NotRunning => {
            match by(&context.place.config).as_str() {
                "" => println!(
                    "It does not run yet: `systemctl enable --now cygnet`, or --enable here."
                ),
                by => println!("It does not run yet{by}, or --enable here."),
            }
            Ok(ExitCode::SUCCESS)
        }
        outcome => Ok(outcome.told(&context.place.config)),
    }
}

/// There is a server: says so, and what differs from what was asked for.
fn again(options: &Init, context: &mut Context, mut server: Server) -> Result<ExitCode> {
    let settings = server.settings()?;
    let mut differences = Vec::new();
    let mut compare = |what: &str, has: String, asked: String, remedy: &str| {
        if has != asked {
            differences.push(format!(
                "{what}: it has {has}, asked for was {asked}; {remedy}"
            ));
        }
    };
    const FIXED: &str =
        "this is settled at init: `cygnet server uninstall` first, which ends every client's files";
    const EDIT: &str = "edit it in the configuration, then `cygnet reload`";
    compare(
        "addresses",
        list(&settings.addresses),
        list(&options.addresses),
        "`cygnet server set-address` changes that",
    );
    if !options.pools.is_empty() {
        compare("pools", list(&settings.pools), list(&options.pools), EDIT);
    }
    if !options.dns.is_empty() {
        compare("dns", list(&settings.dns), list(&options.dns), EDIT);
    }
    if options.uplink.is_some() {
        let text = |it: &Option<String>| it.clone().unwrap_or_else(|| "none".into());
        compare(
            "uplink",
            text(&settings.uplink),
            text(&options.uplink),
            EDIT,
        );
    }
    if let Some(key) = options.key {
        compare("key", settings.key.to_string(), key.to_string(), FIXED);
    }
    if !differences.is_empty() {
        return Err(Error::Refused(format!(
            "there is a server here already, and nothing was changed. It differs:\n  {}",
            differences.join("\n  ")
        )));
    }
    let completed = server.complete(&check)?;
    if completed {
        println!(
            "{} has its [server] section again.",
            context.place.config.display()
        );
    } else {
        println!(
            "This machine is this server already; nothing was changed. `cygnet server show` tells more."
        );
    }
    if !options.enable || server.unit()?.is_some() {
        return Ok(ExitCode::SUCCESS);
    }
    let enabled = unit::enable(&context.place, &mut server);
    match completed {
        true => enabled.map_err(Error::after_change),
        false => enabled,
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
