//! `cargo xtask demo`: a LAN goes online through a gateway and a VPN server, in a world of its own.

pub(crate) mod algo;
mod cygnet;
mod end;
mod report;
mod story;
mod strongswan;

pub use end::{Program, VpnEnd};
pub use report::{Claim, Leg, Report};
pub use story::{Story, tell};

use crate::lab::algo::Year;
use crate::lab::traffic::{self, Direction};
use crate::lab::world::{HOME_PUBLIC, SERVER, WEB, WEB_PORT, World};
use crate::lab::{Context, Exec, Failure, Lab, Namespace, Result, interrupt, nat, wait_for};
use crate::webhost;
use crate::{project, setup};
use algo::{AlgoServer, ImportedGateway};
use cygnet::CygnetEnd;
use end::Certificates;
use std::time::{Duration, Instant};
use strongswan::StrongSwanEnd;

/// What was asked for on the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The program at the server's end
    #[arg(long, value_enum, default_value_t = Program::Cygnet)]
    pub server: Program,
    /// The program at the gateway's end
    #[arg(long, value_enum, default_value_t = Program::Cygnet)]
    pub gateway: Program,
    /// Show how something is set up instead, each command as a person types it
    #[arg(long, value_enum)]
    pub story: Option<Story>,
    /// Leave it running until Ctrl-C, and say what to try
    #[arg(long)]
    pub stay: bool,
    /// End with one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Filter strictly by reverse path on gateway and server
    #[arg(long)]
    pub rp_filter: bool,
    /// Put a firewall that is not Cygnet's, and drops what is forwarded, on gateway and server
    #[arg(long)]
    pub foreign_firewall: bool,
}

/// How long bulk data flows, each way.
const SECONDS: u32 = 3;
const UP_PATIENCE: Duration = Duration::from_secs(20);

/// Installs and builds what is lacking, runs the demo, prints; true when every claim was verified.
pub fn run(options: &Options) -> Result<bool> {
    let imports = options.server.algo().is_some();
    if options.gateway.algo().is_some() || imports && options.gateway != Program::Cygnet {
        return Err(Failure::new(
            "Algo sets up servers, and this shows how Cygnet joins one: say `--server algo-2017` or `--server algo-2026` alone",
        ));
    }
    setup::ensure()?;
    if let Some(story) = options.story {
        return tell(story).map(|()| true);
    }
    if options.server == Program::Cygnet || options.gateway == Program::Cygnet {
        eprintln!("building cygnet");
        project::build_cygnet()?;
    }
    let mut report = Report::new(options.gateway, options.server);
    let outcome = play(options, &mut report);
    interrupt::check()?;
    if let Err(failure) = &outcome {
        report.claim(false, failure.to_string());
    }
    if !options.stay || outcome.is_err() {
        println!("{}", report.to_table());
    }
    if options.json {
        println!("{}", report.to_json());
    }
    Ok(report.ok())
}

fn play(options: &Options, report: &mut Report) -> Result<()> {
    let lab = Lab::new()?;
    let world = World::build(&lab)?;
    for host in [&world.gateway, &world.server] {
        if options.rp_filter {
            host.filter_reverse_path()?;
        }
        if options.foreign_firewall {
            nat::foreign_firewall(host)?;
        }
    }
    if let Some(year) = options.server.algo() {
        return play_algo(options, report, &lab, &world, year);
    }
    let certificates = Certificates::issue()?;
    let mut server: Box<dyn VpnEnd> = match options.server {
        Program::Cygnet => Box::new(CygnetEnd::server(&world, &certificates)),
        Program::Strongswan | Program::Algo2017 | Program::Algo2026 => {
            Box::new(StrongSwanEnd::server(&world, &certificates))
        }
    };
    let mut gateway: Box<dyn VpnEnd> = match options.gateway {
        Program::Cygnet => Box::new(CygnetEnd::gateway(&world, &certificates)),
        Program::Strongswan | Program::Algo2017 | Program::Algo2026 => {
            Box::new(StrongSwanEnd::gateway(&world, &certificates))
        }
    };
    compare(
        options,
        report,
        &lab,
        &world,
        gateway.as_mut(),
        server.as_mut(),
    )
}

/// Joins a server of Algo's: the whole story with the files of one format, and that the LAN gets online with those of
/// each other.
fn play_algo(
    options: &Options,
    report: &mut Report,
    lab: &Lab,
    world: &World,
    year: Year,
) -> Result<()> {
    let deployment = algo::deploy(lab, year)?;
    let mut server = AlgoServer::new(world, &deployment);
    let mut formats = deployment.formats().into_iter();
    if let Some(format) = formats.next() {
        let mut gateway = ImportedGateway::new(world, &deployment, format);
        compare(options, report, lab, world, &mut gateway, &mut server)?;
    }
    server.start(lab)?;
    for format in formats {
        let title = format.title;
        let mut gateway = ImportedGateway::new(world, &deployment, format);
        let seen = algo::seen_through(lab, world, &mut gateway);
        let seen = seen.map_err(|failure| explained(&failure, &gateway, &server))?;
        let text = format!(
            "from Algo's {title}: laptop and phone are seen as {}",
            seen.join(" and ")
        );
        report.claim(seen == [SERVER, SERVER], text);
    }
    server.stop()
}

pub(crate) fn explained(failure: &Failure, gateway: &dyn VpnEnd, server: &dyn VpnEnd) -> Failure {
    let (gateway, server) = (gateway.last_words(), server.last_words());
    Failure::new(format!(
        "{failure}\n--- gateway:\n{gateway}\n--- server:\n{server}"
    ))
}

/// Measures without the tunnel, then with it.
fn compare(
    options: &Options,
    report: &mut Report,
    lab: &Lab,
    world: &World,
    gateway: &mut dyn VpnEnd,
    server: &mut dyn VpnEnd,
) -> Result<()> {
    report.before = measure(world)?;
    expect_addresses(
        report,
        "before",
        &report.before.clone(),
        HOME_PUBLIC,
        "the home",
    );

    let outcome = through_tunnel(options, report, lab, world, gateway, server);
    outcome.map_err(|failure| explained(&failure, gateway, server))
}

fn through_tunnel(
    options: &Options,
    report: &mut Report,
    lab: &Lab,
    world: &World,
    gateway: &mut dyn VpnEnd,
    server: &mut dyn VpnEnd,
) -> Result<()> {
    server.start(lab)?;
    gateway.start(lab)?;
    world.route_through_gateway()?;
    let watch = world.watch()?;
    let closed = !reaches_web(&world.laptop)? && watch.counters()?.all_but_tunnel() == 0;
    report.claim(closed, "before `up`, nothing leaves the home");
    if options.foreign_firewall {
        open_firewall(report, options.gateway, gateway, &world.gateway)?;
        open_firewall(report, options.server, server, &world.server)?;
    }

    report.up_ms = Some(time_to_first_byte(world, gateway)?);
    report.after = measure(world)?;
    expect_addresses(report, "after", &report.after.clone(), SERVER, "the server");

    let passed = watch.counters()?;
    let (tunnelled, leaked) = (passed.tunnel, passed.all_but_tunnel());
    report.tunnel_packets = Some(tunnelled);
    report.leaked_packets = Some(leaked);
    report.claim(
        tunnelled > 0 && leaked == 0,
        format!(
            "on the provider's link: {tunnelled} packets of UDP 500/4500 between box and server, {leaked} others"
        ),
    );
    // What was measured went that way, and no other.
    let (carried, measured) = (watch.tunnelled_octets()?, octets_measured(&report.after));
    report.claim(
        carried >= measured,
        format!(
            "these packets hold {} MB; the laptop's measurement alone was {} MB",
            carried / 1_000_000,
            measured / 1_000_000
        ),
    );
    if options.stay {
        stay(options, report, world)?;
    }
    gateway.stop()?;
    // What the server had under way finds nobody there: the box's "port unreachable" quotes ciphertext.
    let closed = !reaches_web(&world.laptop)? && watch.counters()?.leaked == passed.leaked;
    let leaks = if closed {
        String::new()
    } else {
        format!(": {}", watch.leaks()?)
    };
    report.claim(
        closed,
        format!("after the gateway has stopped, nothing leaves the home{leaks}"),
    );
    report.leaked_packets = Some(leaked + watch.counters()?.leaked - passed.leaked);
    server.stop()
}

/// Applies what Cygnet offers against the foreign firewall, as its operator would; what a strongSwan
/// needs, its operator has to know.
fn open_firewall(
    report: &mut Report,
    program: Program,
    end: &dyn VpnEnd,
    host: &Namespace,
) -> Result<()> {
    let advice = end.firewall_advice()?;
    if program == Program::Cygnet {
        let (name, rules) = (host.name(), advice.len());
        report.claim(
            rules > 0,
            format!("on the {name} Cygnet names the foreign firewall and offers {rules} rules"),
        );
    }
    for rule in advice {
        host.shell(&rule).context("a rule that was offered")?;
    }
    Ok(())
}

/// From `up` to the first byte that the laptop gets from the web host, in milliseconds.
fn time_to_first_byte(world: &World, gateway: &mut dyn VpnEnd) -> Result<u64> {
    let host = format!("{WEB}:{WEB_PORT}");
    let mut asker = world
        .laptop
        .spawn_exec(project::own_command(&["first-byte", &host]))?;
    wait_for("the laptop asks", Duration::from_secs(5), || {
        Ok(asker.log().contains(webhost::BEGUN).then_some(()))
    })?;
    let begun = Instant::now();
    // The answer is timed by a thread, since `up` may return later than the first byte comes.
    let log = asker.log_path().to_owned();
    let answered = std::thread::spawn(move || {
        while begun.elapsed() < UP_PATIENCE {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if text.contains(webhost::ANSWERED) {
                return Some(begun.elapsed());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    });
    gateway.up()?;
    let elapsed = answered.join().ok().flatten();
    let _ = asker.wait(Duration::from_secs(1));
    match elapsed {
        Some(elapsed) => Ok(elapsed.as_millis().try_into()?),
        None => Err(Failure::new(format!(
            "no answer from the web host within {UP_PATIENCE:?} of `up`"
        ))),
    }
}

fn measure(world: &World) -> Result<Leg> {
    let ping = traffic::ping_all(&world.laptop, WEB, 6)?;
    let rate = |direction| traffic::throughput(&world.laptop, &world.web, WEB, SECONDS, direction);
    Ok(Leg {
        laptop: Some(world.seen_as(&world.laptop)?),
        phone: Some(world.seen_as(&world.phone)?),
        round_trip_ms: ping.average_ms,
        download_mbit_s: Some(rate(Direction::Download)?),
        upload_mbit_s: Some(rate(Direction::Upload)?),
    })
}

/// What the measurements of throughput brought across, at least.
fn octets_measured(leg: &Leg) -> u64 {
    let rates = [leg.download_mbit_s, leg.upload_mbit_s];
    let mbit_s: f64 = rates.into_iter().flatten().sum();
    let octets = mbit_s * 1e6 / 8.0 * f64::from(SECONDS);
    octets as u64
}

/// Claims that the web host sees laptop and phone as `expected`.
fn expect_addresses(report: &mut Report, when: &str, leg: &Leg, expected: &str, whose: &str) {
    let seen = [leg.laptop.as_deref(), leg.phone.as_deref()];
    let text = if seen == [Some(expected); 2] {
        format!("{when}, the web host sees laptop and phone as {whose}, {expected}")
    } else {
        format!(
            "{when}, the web host should see laptop and phone as {whose}, {expected}; it sees {seen:?}"
        )
    };
    report.claim(seen == [Some(expected); 2], text);
}

fn reaches_web(host: &Namespace) -> Result<bool> {
    let command = Exec::new([
        "curl",
        "-s",
        "--fail",
        "--max-time",
        "1",
        &format!("http://{WEB}/"),
    ]);
    Ok(host.place(command).finish()?.success())
}

/// Prints what to try, and waits for Ctrl-C.
fn stay(options: &Options, report: &Report, world: &World) -> Result<()> {
    println!("{}", report.to_table());
    let on = |host: &Namespace, command: &str| {
        println!("  ip netns exec {} {command}", host.full_name())
    };
    println!("  It runs on. To try, from another terminal:\n");
    on(&world.laptop, &format!("curl http://{WEB}/"));
    on(&world.phone, &format!("ping {WEB}"));
    on(&world.router, "tcpdump -ni wan");
    on(&world.gateway, "ip route show table all");
    on(&world.server, "nft list ruleset");
    println!("\n  Ctrl-C ends it and cleans up.");
    if options.json {
        println!("{}", report.to_json());
    }
    loop {
        interrupt::pause(Duration::from_secs(1))?;
    }
}
