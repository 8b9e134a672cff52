//! Two offices by `cygnet site add`: both ends run from the very files that it writes.

use super::super::Scenario;
use super::super::pair::SOON;
use crate::ensure;
use crate::lab::cygnet::{Cygnet, Setup};
use crate::lab::nat::masquerade;
use crate::lab::offices::{Nat, Office, Offices};
use crate::lab::strongswan::StrongSwan;
use crate::lab::traffic::{Direction, ping, ping_all, ping_until_answered, throughput_by};
use crate::lab::{Failure, Lab, Namespace, Result, wait_for};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "site-two-cygnets",
            "site add at one office, import at the other: both reach each other, the internet stays local, each comes back",
            two_cygnets,
        ),
        Scenario::new(
            "site-strongswan",
            "the other office is a strongSwan with the file that site add wrote; each comes back",
            strongswan,
        ),
        Scenario::new(
            "site-certificates-two-cygnets",
            "site add --auth certificates, import at the other office: both reach each other, each comes back; another pair's is refused",
            certificates_cygnets,
        ),
        Scenario::new(
            "site-certificates-strongswan",
            "the same with a strongSwan, with the files that site add wrote in its folders",
            certificates_strongswan,
        ),
        Scenario::new(
            "site-mapped-two-cygnets",
            "both offices have 192.168.1.0/24, to the last host: each knows the other's by the network that was offered",
            mapped_cygnets,
        ),
        Scenario::new(
            "site-mapped-strongswan",
            "the same with a strongSwan, whose firewall translates by the rules that site add wrote",
            mapped_strongswan,
        ),
        Scenario::new(
            "site-on-demand",
            "nothing is up until a host of an office wants it, at either end",
            on_demand,
        ),
    ]
}

/// What the tunnel is called.
const BRANCH: &str = "branch";
/// Any host of the internet.
const INTERNET: &str = "198.51.100.10";

/// A Cygnet that is not configured yet.
fn unconfigured(lab: &Lab, office: &Office) -> Result<Cygnet> {
    let mut setup = Setup::new("");
    setup.daemon.push_str("log = \"debug\"\n");
    Cygnet::prepare(lab, &office.gateway, &setup)
}

/// `cygnet site add` at an office; the folder for the other one.
fn add(lab: &Lab, at: &Cygnet, options: &[&str]) -> Result<PathBuf> {
    let out = lab.directory().join("other-end");
    let shown = out.to_string_lossy();
    let mut line = vec!["site", "add", BRANCH, "--out", &*shown];
    line.extend(options);
    said(at, &line)?;
    Ok(out)
}

/// What a command prints; it has to succeed.
fn said(at: &Cygnet, line: &[&str]) -> Result<String> {
    let finished = at.configured(line)?;
    ensure!(
        finished.success(),
        "cygnet {}: {}{}",
        line.join(" "),
        finished.stdout,
        finished.stderr
    );
    Ok(finished.stdout)
}

/// The other office takes what was handed over.
fn import(at: &Cygnet, folder: &Path) -> Result<()> {
    let file = folder.join(format!("{BRANCH}.cygnet"));
    said(at, &["import", &file.to_string_lossy()]).map(drop)
}

/// A strongSwan whose `conf.d` holds what was handed over.
fn swan(lab: &Lab, office: &Office, folder: &Path) -> Result<StrongSwan> {
    let etc = lab.subdirectory("etc-swanctl")?;
    fs::write(etc.join("swanctl.conf"), "include conf.d/*.conf\n")?;
    for (to, name) in [
        ("conf.d", format!("{BRANCH}.conf")),
        ("x509", format!("{BRANCH}.crt")),
        ("x509ca", format!("{BRANCH}-ca.crt")),
        ("private", format!("{BRANCH}.key")),
    ] {
        let (from, to) = (folder.join(&name), etc.join(to));
        // Without certificates there is one alone.
        if from.exists() {
            fs::create_dir(&to)?;
            fs::copy(from, to.join(&name))?;
        }
    }
    StrongSwan::start_with_files(lab, &office.gateway, &etc)
}

/// Both offices reach each other and their gateways, and what they send to the internet leaves in clear.
fn internet_stays_local(offices: &Offices) -> Result<()> {
    let Offices { a, b, .. } = offices;
    b.gateway.ip(&format!("address add {INTERNET}/32 dev lo"))?;
    masquerade(&a.gateway, "wan")?;
    offices.reset_counters()?;
    ping_all(&a.host, INTERNET, 2)?;
    let counters = offices.counters()?;
    ensure!(
        counters.leaked >= 4,
        "what goes to the internet went elsewhere: {counters:?}"
    );
    Ok(())
}

fn reach_each_other(offices: &Offices) -> Result<()> {
    let Offices { a, b, .. } = offices;
    ping_until_answered(&a.host, b.host4, SOON)?;
    offices.reset_counters()?;
    for (from, to) in [
        (&a.host, b.host4),
        (&b.host, a.host4),
        (&a.gateway, b.host4),
        (&b.host, a.inner4),
    ] {
        ping_all(from, to, 2)?;
    }
    let counters = offices.counters()?;
    ensure!(
        counters.leaked == 0 && counters.tunnel >= 16,
        "beside the tunnel: {counters:?}"
    );
    Ok(())
}

/// Kills a Cygnet and starts it again; how long until hosts reach each other.
fn back_after(cygnet: &mut Cygnet, from: &Namespace, to: &str) -> Result<Duration> {
    cygnet.kill_supervisor()?;
    let begun = Instant::now();
    cygnet.restart()?;
    ping_until_answered(from, to, SOON)?;
    Ok(begun.elapsed())
}

fn two_cygnets(lab: &mut Lab) -> Result<String> {
    let (offices, a, b) = two_by(lab, "psk")?;
    came_back(&offices, a, b)
}

/// Both ends, running, that prove themselves this way.
fn two_by(lab: &Lab, auth: &str) -> Result<(Offices, Cygnet, Cygnet)> {
    let offices = Offices::build(lab, Nat::None)?;
    let (mut a, mut b) = (
        unconfigured(lab, &offices.a)?,
        unconfigured(lab, &offices.b)?,
    );
    let networks = [
        "--local-net",
        offices.a.lan4,
        "--remote-net",
        offices.b.lan4,
    ];
    let folder = add(
        lab,
        &a,
        &[
            &networks[..],
            &["--remote", offices.b.public4, "--auth", auth],
        ]
        .concat(),
    )?;
    import(&b, &folder)?;
    a.restart()?;
    b.restart()?;
    reach_each_other(&offices)?;
    Ok((offices, a, b))
}

fn came_back(offices: &Offices, mut a: Cygnet, mut b: Cygnet) -> Result<String> {
    let first = back_after(&mut a, &offices.b.host, offices.a.host4)?;
    let other = back_after(&mut b, &offices.a.host, offices.b.host4)?;
    reach_each_other(offices)?;
    internet_stays_local(offices)?;
    Ok(format!(
        "back after {:.1} and {:.1} s",
        first.as_secs_f32(),
        other.as_secs_f32()
    ))
}

fn certificates_cygnets(lab: &mut Lab) -> Result<String> {
    let (offices, mut a, b) = two_by(lab, "certificates")?;
    let config = fs::read_to_string(a.config_path())?;
    ensure!(
        config.contains("certificate = \"branch/client.crt\"") && !config.contains("psk"),
        "{config}"
    );
    // Who has a pair of the same names that another authority vouches for is nobody here.
    said(&a, &["site", "remove", BRANCH, "--yes"])?;
    let networks = [
        "--local-net",
        offices.a.lan4,
        "--remote-net",
        offices.b.lan4,
    ];
    let out = lab.directory().join("another-pair");
    let out = out.to_string_lossy();
    let again = [
        &["site", "add", BRANCH, "--out", &*out][..],
        &networks,
        &["--remote", offices.b.public4, "--auth", "certificates"],
    ]
    .concat();
    said(&a, &again)?;
    a.restart()?;
    b.wait_for_log("AUTHENTICATION_FAILED", SOON)?;
    ensure!(
        ping(&offices.a.host, offices.b.host4, 2)?.received == 0,
        "another authority's certificate is taken"
    );
    said(&b, &["site", "remove", BRANCH, "--yes"])?;
    import(&b, Path::new(&*out))?;
    b.reload()?;
    reach_each_other(&offices)?;
    came_back(&offices, a, b)
}

fn strongswan(lab: &mut Lab) -> Result<String> {
    strongswan_by(lab, "psk")
}

fn certificates_strongswan(lab: &mut Lab) -> Result<String> {
    strongswan_by(lab, "certificates")
}

fn strongswan_by(lab: &Lab, auth: &str) -> Result<String> {
    let offices = Offices::build(lab, Nat::None)?;
    let mut a = unconfigured(lab, &offices.a)?;
    let networks = [
        "--local-net",
        offices.a.lan4,
        "--remote-net",
        offices.b.lan4,
    ];
    let options = [
        &networks[..],
        &["--remote", offices.b.public4, "--for", "swanctl"],
        &["--auth", auth],
    ]
    .concat();
    let folder = add(lab, &a, &options)?;
    let mut swan = swan(lab, &offices.b, &folder)?;
    a.restart()?;
    reach_each_other(&offices)?;
    let first = back_after(&mut a, &offices.a.host, offices.b.host4)?;
    // What ends properly says so, and is called again at once.
    swan.stop();
    let begun = Instant::now();
    swan.restart()?;
    ping_until_answered(&offices.a.host, offices.b.host4, SOON)?;
    let other = begun.elapsed();
    reach_each_other(&offices)?;
    internet_stays_local(&offices)?;
    Ok(format!(
        "back after {:.1} and {:.1} s",
        first.as_secs_f32(),
        other.as_secs_f32()
    ))
}

/// Gives both offices the same network, gateways and hosts the same addresses.
fn same_network(offices: &mut Offices) -> Result<()> {
    for office in [&mut offices.a, &mut offices.b] {
        let (host, gateway) = (&office.host, &office.gateway);
        gateway.ip(&format!("address del {}/24 dev lan", office.inner4))?;
        host.ip(&format!("address del {}/24 dev eth0", office.host4))?;
        gateway.ip("address add 192.168.1.1/24 dev lan")?;
        host.ip("address add 192.168.1.10/24 dev eth0")?;
        host.default_route("192.168.1.1")?;
        (office.lan4, office.inner4, office.host4) =
            ("192.168.1.0/24", "192.168.1.1", "192.168.1.10");
    }
    Ok(())
}

/// Takes what is offered where both offices have the same network.
fn add_as_offered(lab: &Lab, a: &Cygnet, offices: &Offices, program: &str) -> Result<PathBuf> {
    let options = [
        "--local-net",
        offices.a.lan4,
        "--remote-net",
        offices.b.lan4,
    ];
    let options = [
        &options[..],
        &["--remote", offices.b.public4, "--for", program],
    ]
    .concat();
    let refused = a.configured(&[&["site", "add", BRANCH][..], &options[..]].concat())?;
    ensure!(!refused.success(), "it was not refused: {}", refused.stdout);
    let words: Vec<&str> = refused.stderr.split_whitespace().collect();
    let offered = |option: &str| {
        let at = words.iter().position(|word| *word == option);
        at.and_then(|at| words.get(at + 1).copied())
            .ok_or_else(|| Failure::new(format!("{option} is not offered: {}", refused.stderr)))
    };
    let maps = [
        "--local-map",
        offered("--local-map")?,
        "--remote-map",
        offered("--remote-map")?,
    ];
    ensure!(
        maps == [
            "--local-map",
            "10.201.1.0/24",
            "--remote-map",
            "10.202.1.0/24"
        ],
        "offered: {maps:?}"
    );
    add(lab, a, &[&options[..], &maps].concat())
}

/// Every host is reached by the address that it has in the other office, errors are told, and TCP carries.
fn mapped_reach_each_other(offices: &Offices) -> Result<String> {
    let Offices { a, b, .. } = offices;
    let ([host_a, gateway_a], [host_b, gateway_b]) =
        (["10.201.1.10", "10.201.1.1"], ["10.202.1.10", "10.202.1.1"]);
    ping_until_answered(&a.host, host_b, SOON)?;
    offices.reset_counters()?;
    for (from, to) in [
        (&a.host, host_b),
        (&b.host, host_a),
        (&a.host, gateway_b),
        (&b.host, gateway_a),
        (&a.gateway, host_b),
    ] {
        ping_all(from, to, 2)?;
    }
    for (from, to) in [(&a.host, host_b), (&b.host, host_a)] {
        // Port unreachable comes from the other host itself, as an error of the socket.
        let refused = "import socket,sys; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(5); \
                       s.connect((sys.argv[1],9)); s.send(b'x'); s.recv(9)";
        let told = from.finish(["python3", "-c", refused, to])?;
        ensure!(
            told.stderr.contains("ConnectionRefusedError"),
            "{} to {to}, port 9: {}",
            from.name(),
            told.stderr
        );
        // Too big: the sender is told what fits.
        let large = from.finish(["ping", "-n", "-c1", "-W2", "-Mdo", "-s1450", to])?;
        let told = format!("{}{}", large.stdout, large.stderr);
        ensure!(
            told.contains("Frag needed") || told.contains("message too long"),
            "{} sends too much to {to}: {told}",
            from.name()
        );
    }
    for direction in [Direction::Upload, Direction::Download] {
        throughput_by(&a.host, &b.host, (b.host4, host_b), 1, direction)?;
    }
    let counters = offices.counters()?;
    ensure!(
        counters.leaked == 0 && counters.tunnel >= 20,
        "beside the tunnel: {counters:?}"
    );
    Ok("hosts, gateways, errors and TCP by the other addresses".to_owned())
}

/// What hosts send to an office that is gone, by the addresses that are shown here, does not go to the router instead,
/// which knows nobody by them, or somebody else.
fn nothing_leaves_while_down(offices: &Offices, a: &Cygnet, b: &mut Cygnet) -> Result<()> {
    b.stop()?;
    wait_for("the tunnel is down", SOON, || {
        Ok(a.children(BRANCH)?.is_empty().then_some(()))
    })?;
    offices.reset_counters()?;
    for to in ["10.202.1.10", "10.202.1.1"] {
        let answered = ping(&offices.a.host, to, 2)?.received;
        ensure!(answered == 0, "{to} answers without a tunnel");
    }
    let counters = offices.counters()?;
    ensure!(
        counters.leaked == 0,
        "what is for the other office went past the tunnel: {counters:?}"
    );
    b.restart()?;
    ping_until_answered(&offices.a.host, "10.202.1.10", SOON)
}

fn mapped_cygnets(lab: &mut Lab) -> Result<String> {
    let mut offices = Offices::build(lab, Nat::None)?;
    same_network(&mut offices)?;
    let (mut a, mut b) = (
        unconfigured(lab, &offices.a)?,
        unconfigured(lab, &offices.b)?,
    );
    let folder = add_as_offered(lab, &a, &offices, "cygnet")?;
    import(&b, &folder)?;
    a.restart()?;
    b.restart()?;
    mapped_reach_each_other(&offices)?;
    internet_stays_local(&offices)?;
    nothing_leaves_while_down(&offices, &a, &mut b)?;
    back_after(&mut a, &offices.b.host, "10.201.1.10")?;
    back_after(&mut b, &offices.a.host, "10.202.1.10")?;
    mapped_reach_each_other(&offices)
}

fn mapped_strongswan(lab: &mut Lab) -> Result<String> {
    let mut offices = Offices::build(lab, Nat::None)?;
    same_network(&mut offices)?;
    let mut a = unconfigured(lab, &offices.a)?;
    let folder = add_as_offered(lab, &a, &offices, "swanctl")?;
    let rules = folder.join(format!("{BRANCH}.nft"));
    let gateway = &offices.b.gateway;
    gateway.exec(["nft", "-f", &rules.to_string_lossy()])?;
    // Its ESP in user space goes by a route, for which it looks for an address of its own in what it negotiates. The
    // kernel's needs none.
    gateway.ip("address add 10.202.1.1/32 dev lo")?;
    let mut swan = swan(lab, &offices.b, &folder)?;
    a.restart()?;
    mapped_reach_each_other(&offices)?;
    swan.stop();
    swan.restart()?;
    back_after(&mut a, &offices.a.host, "10.202.1.10")?;
    mapped_reach_each_other(&offices)
}

fn on_demand(lab: &mut Lab) -> Result<String> {
    let offices = Offices::build(lab, Nat::None)?;
    let (mut a, mut b) = (
        unconfigured(lab, &offices.a)?,
        unconfigured(lab, &offices.b)?,
    );
    let networks = [
        "--local-net",
        offices.a.lan4,
        "--remote-net",
        offices.b.lan4,
    ];
    let options = [
        &networks[..],
        &["--remote", offices.b.public4, "--on-demand"],
    ]
    .concat();
    import(&b, &add(lab, &a, &options)?)?;
    a.restart()?;
    b.restart()?;
    let mut waits = Vec::new();
    for (own, from, to) in [
        (&a, &offices.a.host, offices.b.host4),
        (&b, &offices.b.host, offices.a.host4),
    ] {
        crate::lab::interrupt::pause(Duration::from_secs(1))?;
        ensure!(
            own.children(BRANCH)?.is_empty(),
            "up without being asked for"
        );
        offices.reset_counters()?;
        let begun = Instant::now();
        ping_until_answered(from, to, SOON)?;
        waits.push(begun.elapsed());
        let counters = offices.counters()?;
        ensure!(
            counters.leaked == 0,
            "the first packet went in clear: {counters:?}"
        );
        // Both are to be down before the other one begins.
        own.down(BRANCH)?;
        wait_for("both are down", SOON, || {
            let up = a.children(BRANCH)?.len() + b.children(BRANCH)?.len();
            Ok((up == 0).then_some(()))
        })?;
    }
    let waits: Vec<String> = waits
        .iter()
        .map(|wait| format!("{:.1}", wait.as_secs_f32()))
        .collect();
    Ok(format!("answered after {} s", waits.join(" and ")))
}
