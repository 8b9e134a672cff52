//! `cygnet gateway setup`, and what takes it back: nothing is changed before it was shown, and nothing stays that was not
//! confirmed.

mod apply;
mod ask;
mod edit;
mod facts;
mod keep;
mod record;
mod snapshot;
mod verify;
pub(in super::super) mod watch;
mod wish;
mod words;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use cygnet_config::{Config, Gateway};

use super::super::import::sections::Sections;
use super::super::systemd::{GUARD, RUN, Systemd, Unit, program_for_units};
use super::super::{FAILED, fail, refuse};
use crate::args::gateway::Setup;
use ask::{Answers, yes_or_no};
use facts::Facts;
pub(in super::super) use keep::{Boot, after_reboot, gateway_of, is_set_up, off};
use record::{Place, new_id};
pub(super) use snapshot::guard_is_there;
use wish::{NoWish, Present, Wish};
use words::Told;

/// Why it ends without a gateway.
enum Ended {
    /// Nothing was changed: why not.
    Refused(String),
    /// Nothing was changed, as was wished.
    Declined,
    /// It was changed and is taken back, or is left to be.
    TakenBack,
}

impl From<String> for Ended {
    fn from(why: String) -> Self {
        Self::Refused(why)
    }
}

impl From<NoWish> for Ended {
    fn from(why: NoWish) -> Self {
        match why {
            NoWish::Ended => Self::Declined,
            NoWish::Refused(why) => Self::Refused(why),
        }
    }
}

pub(super) fn setup(options: &Setup) -> ExitCode {
    if options.confirm {
        return keep::confirm_from_elsewhere(&options.file.config);
    }
    if options.take_back {
        return keep::take_back_from_elsewhere(&options.file.config);
    }
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Ended::Refused(why)) => refuse(&why.replace('\n', "\ncygnet: ")),
        Err(Ended::Declined) => {
            println!();
            refuse("nothing was changed")
        }
        Err(Ended::TakenBack) => ExitCode::from(FAILED),
    }
}

/// All that is known before anything is changed.
struct Prepared {
    /// Of the trial that it becomes.
    id: String,
    place: Place,
    sections: Sections,
    before: String,
    after: String,
    wish: Wish,
    systemd: Option<Systemd>,
    within: Duration,
}

fn run(options: &Setup) -> Result<(), Ended> {
    let config = &options.file.config;
    if !options.dry_run && !rustix::process::geteuid().is_root() {
        return Err("only root can set up a gateway: try again with sudo"
            .to_owned()
            .into());
    }
    let sections = Sections::read(config)?;
    let before = sections.text().to_owned();
    if !sections.has_tunnels() {
        return Err(no_tunnel(config).into());
    }
    let (configured, _) = cygnet_daemon::survey::configuration(config).map_err(|error| {
        format!("{error}\nmend it first (`cygnet check`), then set the gateway up")
    })?;
    let place = Place::of(config);
    keep::finish_earlier(&place)?;
    let systemd = Systemd::find();
    if let Some(systemd) = systemd {
        check_units(systemd, &place)?;
    }
    apply::check_running(&place)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let facts = runtime.block_on(Facts::gather(&configured, &sections.interfaces()))?;
    if facts.lans().is_empty() {
        return Err("no interface of this machine has an address in a private network, such as 192.168.1.2/24: give it a \
             fixed one in the LAN first"
            .to_owned()
            .into());
    }
    let mut answers = Answers::stdin();
    let present = Present::of(configured.gateway.as_ref(), &before);
    if !options.yes {
        println!(
            "This makes the machine the gateway of its LAN. Enter takes what stands in brackets; Ctrl-C ends it.\n\
             Nothing is changed before you have seen what."
        );
    }
    let wish = wish::find(options, &facts, &present, &mut answers)?;
    let after =
        edit::with(&before, &wish).map_err(|error| format!("{}: {error}", config.display()))?;
    validate(config, &after, &facts)?;
    let dhcp_servers = runtime.block_on(dhcp_servers(&configured, &facts, &wish));
    let within = Duration::from_secs(options.within);
    print!(
        "{}",
        words::plan(&Told {
            config,
            facts: &facts,
            wish: &wish,
            edits: configured.gateway.is_some(),
            difference: words::difference(&before, &after),
            names_resolver: edit::names_resolver(&before, &after),
            dhcp_servers: &dhcp_servers,
            systemd: systemd.is_some(),
            running: snapshot::is_running(&place),
            within,
            own_is_held: configured
                .gateway
                .as_ref()
                .is_some_and(Gateway::holds_own_traffic),
        })
    );
    if options.dry_run {
        println!("\nNothing was changed.");
        return Ok(());
    }
    if !options.yes {
        println!();
        match answers.ask("Go on?", "n", yes_or_no) {
            Ok(true) => {}
            Ok(false) | Err(ask::Ended) => return Err(Ended::Declined),
        }
    }
    let prepared = Prepared {
        id: new_id()?,
        place,
        sections,
        before,
        after,
        wish,
        systemd,
        within,
    };
    apply::apply(&prepared, options.yes, &mut answers)
}

fn no_tunnel(config: &Path) -> String {
    format!(
        "there is no tunnel in {} that the LAN could leave by: get one first, `cygnet import FILE…` from the files that a \
         VPN server handed out, or write [tunnel.NAME] by hand",
        config.display()
    )
}

/// Whether the configuration that would be written is good, and fits the LAN.
fn validate(config: &Path, text: &str, facts: &Facts) -> Result<(), String> {
    let base = config.parent().unwrap_or(Path::new("."));
    let mut read = |name: &str| {
        let path = base.join(name);
        std::fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    let name = config.display().to_string();
    let judged = Config::parse(&name, text, &mut read).and_then(|parsed| {
        let dhcp = parsed.gateway.as_ref().and_then(|it| it.dhcp.as_ref());
        match dhcp.and_then(|dhcp| Some((dhcp, facts.leg(&dhcp.interface)?))) {
            Some((dhcp, leg)) => dhcp
                .fit(&name, text, &leg.v4, &facts.routers(leg))
                .map(drop),
            None => Ok(()),
        }
    });
    judged.map_err(|error| {
        format!("with this the configuration would not be good, so nothing was changed:\n{error}")
    })
}

/// A unit that is there has to be for this configuration, and one that is not has to find this program.
fn check_units(systemd: Systemd, place: &Place) -> Result<(), String> {
    for unit in [GUARD, RUN] {
        match systemd.installed(unit) {
            Some(text) if !Unit::is_for(&text, &place.config) => {
                return Err(format!(
                    "{} is installed for another configuration than {} (`systemctl cat {0}`): name that one with --config",
                    unit.name,
                    place.config.display()
                ));
            }
            Some(_) => {}
            None if unit.path().symlink_metadata().is_ok() => {
                return Err(format!(
                    "{} is there and is no unit that systemd can start: `systemctl unmask {}` if it is masked, or remove \
                     that file",
                    unit.path().display(),
                    unit.name
                ));
            }
            None => drop(program_for_units()?),
        }
    }
    Ok(())
}

/// DHCP servers of the LAN other than this machine.
async fn dhcp_servers(
    config: &Config,
    facts: &Facts,
    wish: &Wish,
) -> Result<Vec<std::net::Ipv4Addr>, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root can ask".to_owned());
    }
    let user = cygnet_daemon::survey::helper_user(config)?;
    println!(
        "\nLooking for DHCP servers on {}: some seconds …",
        words::list(&wish.lan)
    );
    let mut found = Vec::new();
    for leg in wish.lan.iter().filter_map(|name| facts.leg(name)) {
        let Some(mac) = leg.mac else { continue };
        found.extend(cygnet_daemon::survey::dhcp_servers(&leg.name, mac, user).await?);
    }
    let own = |address: &std::net::Ipv4Addr| {
        let mut nets = facts.legs.iter().flat_map(|leg| &leg.v4);
        nets.any(|net| net.addr() == *address)
    };
    found.retain(|address| !own(address));
    found.sort();
    found.dedup();
    Ok(found)
}
