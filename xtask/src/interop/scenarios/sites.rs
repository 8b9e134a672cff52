//! Two offices by `cygnet site add`: both ends run from the very files that it writes.

use super::super::Scenario;
use super::super::pair::SOON;
use crate::ensure;
use crate::lab::cygnet::{Cygnet, Setup};
use crate::lab::nat::masquerade;
use crate::lab::offices::{Nat, Office, Offices};
use crate::lab::sites::{self, BRANCH, Networks, SHOWN_A, SHOWN_B};
use crate::lab::traffic::{Direction, ping, ping_all, ping_until_answered, throughput_by};
use crate::lab::{Lab, Namespace, Result, wait_for};
use std::fs;
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
            "site-standby",
            "a second tunnel to the same office carries while the first is down, and gives back; nothing goes in clear",
            standby,
        ),
        Scenario::new(
            "site-on-demand",
            "nothing is up until a host of an office wants it, at either end",
            on_demand,
        ),
    ]
}

/// Any host of the internet.
const INTERNET: &str = "198.51.100.10";
/// Lines of `[daemon]`: what is wrong is to be seen.
const DEBUG: &str = "log = \"debug\"\n";

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

/// TCP between the hosts of both offices, up and down as seen from the first; what it carried.
fn carries(offices: &Offices, host_b: &str) -> Result<String> {
    let Offices { a, b, .. } = offices;
    let [up, down] = [Direction::Upload, Direction::Download]
        .map(|direction| throughput_by(&a.host, &b.host, (b.host4, host_b), 1, direction));
    Ok(format!("{:.0} Mbit/s up, {:.0} down", up?, down?))
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
    let (offices, a, b) = sites::two_cygnets(lab, Networks::Own, "psk", DEBUG)?;
    came_back(&offices, a, b)
}

fn came_back(offices: &Offices, mut a: Cygnet, mut b: Cygnet) -> Result<String> {
    reach_each_other(offices)?;
    let carried = carries(offices, offices.b.host4)?;
    let first = back_after(&mut a, &offices.b.host, offices.a.host4)?;
    let other = back_after(&mut b, &offices.a.host, offices.b.host4)?;
    reach_each_other(offices)?;
    internet_stays_local(offices)?;
    Ok(format!(
        "{carried}; back after {:.1} and {:.1} s",
        first.as_secs_f32(),
        other.as_secs_f32()
    ))
}

fn certificates_cygnets(lab: &mut Lab) -> Result<String> {
    let (offices, mut a, b) = sites::two_cygnets(lab, Networks::Own, "certificates", DEBUG)?;
    reach_each_other(&offices)?;
    let config = fs::read_to_string(a.config_path())?;
    ensure!(
        config.contains("certificate = \"branch/client.crt\"") && !config.contains("psk"),
        "{config}"
    );
    // Who has a pair of the same names that another authority vouches for is nobody here.
    sites::said(&a, &["site", "remove", BRANCH, "--yes"])?;
    let out = lab.directory().join("another-pair");
    let shown = out.to_string_lossy();
    let again = [
        &["site", "add", BRANCH, "--out", &*shown][..],
        &sites::between(&offices),
        &["--auth", "certificates"],
    ]
    .concat();
    sites::said(&a, &again)?;
    a.restart()?;
    b.wait_for_log("AUTHENTICATION_FAILED", SOON)?;
    ensure!(
        ping(&offices.a.host, offices.b.host4, 2)?.received == 0,
        "another authority's certificate is taken"
    );
    sites::said(&b, &["site", "remove", BRANCH, "--yes"])?;
    sites::import(&b, &out)?;
    b.reload()?;
    came_back(&offices, a, b)
}

fn strongswan(lab: &mut Lab) -> Result<String> {
    strongswan_by(lab, "psk")
}

fn certificates_strongswan(lab: &mut Lab) -> Result<String> {
    strongswan_by(lab, "certificates")
}

fn strongswan_by(lab: &Lab, auth: &str) -> Result<String> {
    let (offices, mut a, mut swan) = sites::with_strongswan(lab, Networks::Own, auth, DEBUG)?;
    reach_each_other(&offices)?;
    let carried = carries(&offices, offices.b.host4)?;
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
        "{carried}; back after {:.1} and {:.1} s",
        first.as_secs_f32(),
        other.as_secs_f32()
    ))
}

/// Every host is reached by the address that it has in the other office, errors are told, and TCP carries.
fn mapped_reach_each_other(offices: &Offices) -> Result<String> {
    let Offices { a, b, .. } = offices;
    let ([host_a, gateway_a], [host_b, gateway_b]) =
        ([SHOWN_A, "10.201.1.1"], [SHOWN_B, "10.202.1.1"]);
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
    let carried = carries(offices, host_b)?;
    let counters = offices.counters()?;
    ensure!(
        counters.leaked == 0 && counters.tunnel >= 20,
        "beside the tunnel: {counters:?}"
    );
    Ok(format!(
        "hosts, gateways and errors by the other addresses; {carried}"
    ))
}

/// What hosts send to an office that is gone, by the addresses that are shown here, does not go to the router instead,
/// which knows nobody by them, or somebody else.
fn nothing_leaves_while_down(offices: &Offices, a: &Cygnet, b: &mut Cygnet) -> Result<()> {
    b.stop()?;
    wait_for("the tunnel is down", SOON, || {
        Ok(a.children(BRANCH)?.is_empty().then_some(()))
    })?;
    offices.reset_counters()?;
    for to in [SHOWN_B, "10.202.1.1"] {
        let answered = ping(&offices.a.host, to, 2)?.received;
        ensure!(answered == 0, "{to} answers without a tunnel");
    }
    let counters = offices.counters()?;
    ensure!(
        counters.leaked == 0,
        "what is for the other office went past the tunnel: {counters:?}"
    );
    b.restart()?;
    ping_until_answered(&offices.a.host, SHOWN_B, SOON)
}

fn mapped_cygnets(lab: &mut Lab) -> Result<String> {
    let (offices, mut a, mut b) = sites::two_cygnets(lab, Networks::Same, "psk", DEBUG)?;
    mapped_reach_each_other(&offices)?;
    internet_stays_local(&offices)?;
    nothing_leaves_while_down(&offices, &a, &mut b)?;
    back_after(&mut a, &offices.b.host, SHOWN_A)?;
    back_after(&mut b, &offices.a.host, SHOWN_B)?;
    mapped_reach_each_other(&offices)
}

fn mapped_strongswan(lab: &mut Lab) -> Result<String> {
    let (offices, mut a, mut swan) = sites::with_strongswan(lab, Networks::Same, "psk", DEBUG)?;
    mapped_reach_each_other(&offices)?;
    internet_stays_local(&offices)?;
    swan.stop();
    swan.restart()?;
    back_after(&mut a, &offices.a.host, SHOWN_B)?;
    mapped_reach_each_other(&offices)
}

fn standby(lab: &mut Lab) -> Result<String> {
    let offices = Offices::build(lab, Nat::None)?;
    let Offices { a, b, .. } = &offices;
    // By its name the standby would come first.
    let setup = |own: &Office, other: &Office, start: &str| {
        let tunnel = |name: &str, more: &str| {
            format!(
                "[tunnel.{name}]\nremote = \"{}\"\nidentity = \"{name}-{}\"\nremote_identity = \"{name}-{}\"\n\
                 psk = \"psk\"\nstart = \"{start}\"\nlocal_networks = [\"{}\"]\nremote_networks = [\"{}\"]\n{more}",
                other.outer4,
                own.gateway.name(),
                other.gateway.name(),
                own.lan4,
                other.lan4
            )
        };
        let both = tunnel("line", "") + &tunnel("backup", "standby_for = \"line\"\n");
        Setup::new(both).file("psk", "correct horse battery staple\n")
    };
    let _other = Cygnet::start(lab, &b.gateway, &setup(b, a, "manual"))?;
    let own = Cygnet::start(lab, &a.gateway, &setup(a, b, "always"))?;
    for tunnel in ["line", "backup"] {
        wait_for("both are up", SOON, || {
            Ok((!own.children(tunnel)?.is_empty()).then_some(()))
        })?;
    }
    let carried = |tunnel: &str| -> Result<u64> {
        let children = own.children(tunnel)?;
        Ok(children.iter().map(|child| child.packets_out).sum())
    };
    let only_by = |tunnel: &str, other: &str| -> Result<()> {
        ping_until_answered(&a.host, b.host4, SOON)?;
        offices.reset_counters()?;
        let before = [carried(tunnel)?, carried(other)?];
        ping_all(&a.host, b.host4, 3)?;
        let now = [carried(tunnel)?, carried(other)?];
        ensure!(
            now[0] >= before[0] + 3 && now[1] == before[1],
            "{tunnel} and {other} had {before:?} packets, and have {now:?}"
        );
        let counters = offices.counters()?;
        ensure!(counters.leaked == 0, "by {tunnel}: {counters:?}");
        Ok(())
    };
    only_by("line", "backup")?;
    offices.reset_counters()?;
    own.down("line")?;
    only_by("backup", "line")?;
    own.up("line")?;
    wait_for("the first is up again", SOON, || {
        Ok((!own.children("line")?.is_empty()).then_some(()))
    })?;
    only_by("line", "backup")?;
    own.down("line")?;
    own.down("backup")?;
    offices.reset_counters()?;
    let answered = ping(&a.host, b.host4, 2)?.received;
    let counters = offices.counters()?;
    ensure!(
        answered == 0 && counters.leaked == 0,
        "with both down: {answered} answers, {counters:?}"
    );
    Ok("there and back, and nowhere with both down".to_owned())
}

fn on_demand(lab: &mut Lab) -> Result<String> {
    let offices = Offices::build(lab, Nat::None)?;
    let (mut a, mut b) = (
        sites::unconfigured(lab, &offices.a, DEBUG)?,
        sites::unconfigured(lab, &offices.b, DEBUG)?,
    );
    let options = [&sites::between(&offices)[..], &["--on-demand"]].concat();
    sites::import(&b, &sites::add(lab, &a, &options)?)?;
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
