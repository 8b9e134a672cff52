//! What `status` knows of devices and their certificates, and what it says while the clock is not set.

use super::super::Scenario;
use super::super::resilience::home::{forwarding_world, start_behind, wait_for_state};
use super::SOON;
use crate::ensure;
use crate::lab::cygnet::{Cygnet, Setup};
use crate::lab::kept_clock::{self, Kept};
use crate::lab::pki::{Authority, Credential, KeyKind, Request, Validity};
use crate::lab::world::SERVER;
use crate::lab::{Lab, Result, wait_for};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "server-devices",
            "`status` names users and devices by their certificates, and warns before these expire",
            devices,
        ),
        Scenario::new(
            "clock-not-set",
            "a machine whose clock cannot be right refuses nobody's certificate: it waits, says so, and goes on \
             when the clock is right",
            clock_not_set,
        ),
    ]
}

const DAY: u64 = 86_400;
const ALICE: &str = "alice.laptop@1a2b3c4d.cygnet.internal";

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

pub(super) fn list(devices: &[(&str, &str, u64)]) -> String {
    let devices: Vec<_> = (devices.iter())
        .map(|(user, device, not_after)| {
            serde_json::json!({
                "user": user, "device": device, "serial": "0a",
                "identity": format!("{user}.{device}@1a2b3c4d.cygnet.internal"), "not_after": not_after,
            })
        })
        .collect();
    serde_json::json!({ "version": 1, "devices": devices }).to_string()
}

pub(super) fn server(authority: &Authority, own: &Credential, devices: &str) -> Setup {
    Setup::new(
        "[server]
identity = \"vpn.lab\"
certificate = \"own.crt\"
key = \"own.key\"
ca = \"ca.crt\"
pools = [\"10.99.0.0/24\"]
devices = \"devices.json\"
",
    )
    .credential("own", own)
    .file("ca.crt", authority.certificate.clone())
    .file("devices.json", devices)
}

pub(super) fn client(authority: &Authority, own: &Credential) -> Setup {
    Setup::new(format!(
        "[tunnel.home]
remote = \"{SERVER}\"
remote_identity = \"vpn.lab\"
identity = \"{ALICE}\"
certificate = \"own.crt\"
key = \"own.key\"
ca = \"ca.crt\"
virtual_address = true
remote_networks = [\"10.99.0.0/24\"]
"
    ))
    .credential("own", own)
    .file("ca.crt", authority.certificate.clone())
}

pub(super) fn kit() -> Result<(Authority, Credential, Credential)> {
    let authority = Authority::root(KeyKind::EcP256, "lab root")?;
    let own = authority.issue(&Request::new(KeyKind::EcP256, "vpn.lab").name("vpn.lab"))?;
    let alice = authority.issue(&Request::new(KeyKind::EcP256, "alice.laptop").name(ALICE))?;
    Ok((authority, own, alice))
}

fn devices(lab: &mut Lab) -> Result<String> {
    let (authority, own, alice) = kit()?;
    let world = forwarding_world(lab)?;
    let soon = list(&[
        ("alice", "laptop", now() + 400 * DAY),
        ("alice", "iphone", now() + 10 * DAY + 60),
        ("bob", "pc", now() - DAY),
    ]);
    let server_ = Cygnet::start(lab, &world.server, &server(&authority, &own, &soon))?;
    let client = Cygnet::start(lab, &world.gateway, &client(&authority, &alice))?;
    wait_for_state(&client, "home", "up")?;
    let text = server_.command(&["status"])?;
    let whose = format!("alice's laptop ({ALICE})");
    ensure!(
        text.matches(&whose).count() == 2,
        "once connected, once lent to: {text}"
    );
    let json: serde_json::Value = server_.whole_status()?;
    let sa = &json["engine"]["connections"][0]["ike_sas"][0];
    ensure!(
        (&sa["user"], &sa["device"]) == (&"alice".into(), &"laptop".into())
            && json["leases"][0]["user"] == "alice",
        "the API says {json}"
    );
    let warnings = server_.status()?.warnings;
    let about: Vec<&String> = warnings.iter().filter(|w| w.contains("'s ")).collect();
    ensure!(
        matches!(about.as_slice(), [bob, alice]
            if bob.contains("bob's pc expired on ") && alice.contains("alice's iphone expires on ")
                && alice.contains("in 10 days") && alice.contains("`cygnet user renew alice`")),
        "it warns {warnings:?}"
    );
    server_.wait_for_log("alice's iphone expires on ", SOON)?;

    // Renewed, and the list no list any more: what was stays.
    server_.write(&server(
        &authority,
        &own,
        &list(&[("alice", "iphone", now() + 400 * DAY)]),
    ))?;
    server_.reload()?;
    ensure!(
        !server_.status()?.warnings.iter().any(|w| w.contains("'s ")),
        "it still warns"
    );
    server_.write(&server(
        &authority,
        &own,
        "{\"version\": 2, \"devices\": []}",
    ))?;
    let told = server_.control(&["reload"])?;
    ensure!(
        !told.success() && told.stderr.contains("devices.json: version 2"),
        "a list of another version is taken: {}{}",
        told.stdout,
        told.stderr
    );
    Ok(about
        .iter()
        .map(|w| w.as_str())
        .collect::<Vec<_>>()
        .join("; "))
}

fn clock_not_set(lab: &mut Lab) -> Result<String> {
    let (authority, own, alice) = kit()?;
    let world = forwarding_world(lab)?;
    let none = list(&[]);
    let server_ = Cygnet::start(lab, &world.server, &server(&authority, &own, &none))?;
    // Its own certificate says that it must be later than the clock does.
    let request = Request::new(KeyKind::EcP256, "alice.laptop").name(ALICE);
    let later = authority.issue(&request.validity(Validity::NotYet))?;
    let client_ = Cygnet::start(lab, &world.gateway, &client(&authority, &later))?;
    let told = wait_for("status says that it waits for the clock", SOON, || {
        let warnings = client_.status()?.warnings;
        let told = warnings
            .into_iter()
            .find(|w| w.contains("clock is not set"));
        Ok(told)
    })?;
    client_.wait_for_log("clock is not set", SOON)?;
    std::thread::sleep(Duration::from_secs(3));
    let home = client_.connection("home")?;
    ensure!(home.state != "up", "it is up without a date");
    ensure!(
        !server_.log().contains("refused our proof"),
        "the server's certificate was refused for our clock: {}",
        server_.log()
    );
    // The same machine, had its clock been set.
    client_.write(&client(&authority, &alice))?;
    client_.reload()?;
    wait_for_state(&client_, "home", "up")?;
    let quiet = !client_
        .status()?
        .warnings
        .iter()
        .any(|w| w.contains("clock"));
    ensure!(quiet, "it still warns of the clock");

    // A clock that was later in the run before, and that nobody keeps.
    let mut client_ = client_;
    client_.stop()?;
    let kept = client_.directory().join("state/clock");
    let date: u64 = std::fs::read_to_string(&kept)?.trim().parse()?;
    ensure!(date.abs_diff(now()) < 60, "{date} is not when it ended");
    std::fs::write(&kept, format!("{}\n", now() + 2 * DAY))?;
    let start = |kept| {
        let before = kept_clock::before(client_.directory(), kept)?;
        start_behind(&format!("exec {before} \"$@\""), &client_)
    };
    let process = start(Kept::ByNobody)?;
    wait_for("status says that it waits for the clock", SOON, || {
        let warnings = client_.status()?.warnings;
        Ok(warnings.iter().any(|w| w.contains("it was ")).then_some(()))
    })?;
    ensure!(
        client_.connection("home")?.state != "up",
        "it is up without a date"
    );
    drop(process);
    // Who keeps it right knows better.
    let _process = start(Kept::Right)?;
    wait_for_state(&client_, "home", "up")?;
    Ok(told)
}
