//! `cygnet device …`

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use cygnet_daemon::api::{DeviceChanged, DeviceNow, DevicesStatus, PolicySource};
use cygnet_gateway::DevicePolicy;
use cygnet_profile::read::printable;
use hyper::Method;
use serde_json::{Value, json};

use super::status::duration;
use crate::args::Listing;
use crate::args::device::{Device, Forget, Set};
use crate::client;

pub(super) fn device(what: &Device) -> ExitCode {
    match what {
        Device::List(options) => list(options),
        Device::Set(Set {
            device,
            policy,
            through,
            socket,
        }) => {
            let mut order = json!({ "device": device, "policy": policy });
            if let Some(tunnel) = through {
                order["through"] = json!(tunnel);
            }
            change(&socket.socket, "/v1/devices/set", &order)
        }
        Device::Forget(Forget { device, socket }) => {
            let order = json!({ "device": device });
            change(&socket.socket, "/v1/devices/forget", &order)
        }
    }
}

fn list(options: &Listing) -> ExitCode {
    let path = "/v1/devices";
    let body = match client::call(&options.socket.socket, Method::GET, path, None) {
        Ok(body) => body,
        Err(message) => return super::fail(&message),
    };
    if options.json {
        println!("{}", String::from_utf8_lossy(&body));
        return ExitCode::SUCCESS;
    }
    match serde_json::from_slice::<DevicesStatus>(&body) {
        Ok(devices) => {
            print!("{}", render(&devices));
            ExitCode::SUCCESS
        }
        Err(error) => unreadable(&error),
    }
}

fn change(socket: &Path, path: &str, order: &Value) -> ExitCode {
    let body = match client::call(socket, Method::POST, path, Some(order)) {
        Ok(body) => body,
        Err(message) => return super::refuse(&message),
    };
    match serde_json::from_slice::<DeviceChanged>(&body) {
        Ok(changed) => {
            println!("{}", told(&changed));
            ExitCode::SUCCESS
        }
        Err(error) => unreadable(&error),
    }
}

fn unreadable(error: &serde_json::Error) -> ExitCode {
    let error = printable(&error.to_string());
    super::fail(&format!("cannot read the answer: {error}"))
}

fn told(changed: &DeviceChanged) -> String {
    let mut told = String::new();
    // Those of one policy share a line, but for a device that has two.
    let goes = |one: &DeviceNow| goes(one.policy, one.through.as_deref());
    let first = changed.now.first().map(|one| (Vec::new(), goes(one)));
    let mut now: Vec<(Vec<String>, _)> = Vec::from_iter(first);
    for one in &changed.now {
        let mut same = changed
            .now
            .iter()
            .filter(|other| other.device == one.device);
        let who = match same.nth(1) {
            None => one.device.clone(),
            Some(_) => format!("{} at {}", one.device, listed(&one.addresses)),
        };
        match now.iter_mut().find(|(_, policy)| *policy == goes(one)) {
            Some((devices, _)) => devices.push(who),
            None => now.push((vec![who], goes(one))),
        }
    }
    for (devices, policy) in now {
        let are = match devices.len() {
            1 => "is",
            _ => "are",
        };
        let separator = if told.is_empty() { "" } else { "; " };
        let _ = write!(told, "{separator}{} {are} {policy}", devices.join(" and "));
    }
    match changed.ended {
        0 => {}
        1 => told.push_str("; 1 connection ended"),
        ended => {
            let _ = write!(told, "; {ended} connections ended");
        }
    }
    for note in &changed.notes {
        let _ = write!(told, "\n{note}");
    }
    told
}

/// In words, with the tunnel where it is another than the gateway's.
pub(super) fn goes(policy: DevicePolicy, through: Option<&str>) -> String {
    match through {
        Some(tunnel) => format!("{policy} through {tunnel}"),
        None => policy.to_string(),
    }
}

fn listed(addresses: &[IpAddr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    addresses.join(" ")
}

fn render(status: &DevicesStatus) -> String {
    let mut out = String::new();
    if let Some(problem) = &status.problem {
        let _ = writeln!(out, "warning: {problem}\n");
    }
    for warning in &status.warnings {
        let _ = writeln!(out, "warning: {warning}\n");
    }
    if !status.devices.is_empty() {
        let _ = writeln!(
            out,
            "{:<18} {:<12} {:<25} {:<13} addresses",
            "device", "name", "policy", "seen"
        );
    }
    for device in &status.devices {
        let from = match device.from {
            PolicySource::Default => "",
            PolicySource::Configuration => " (configuration)",
            PolicySource::Command => " (command)",
        };
        let seen = match device.last_seen_s {
            Some(ago) => format!("seen {} ago", duration(ago)),
            None => "not seen".to_owned(),
        };
        // In brackets it is the device's own word.
        let called = match (&device.name, &device.host_name) {
            (Some(name), _) => name.clone(),
            (None, Some(name)) => format!("({name})"),
            (None, None) => "-".to_owned(),
        };
        let _ = writeln!(
            out,
            "{:<18} {:<12} {:<25} {:<13} {}",
            device.device,
            called,
            format!("{}{from}", goes(device.policy, device.through.as_deref())),
            seen,
            listed(&device.addresses)
        );
    }
    if status.devices.is_empty() {
        out.push_str("no device was seen yet\n");
    }
    let _ = writeln!(out, "\nall others are {}", status.default);
    if !status.direct_networks.is_empty() {
        let networks: Vec<String> = status
            .direct_networks
            .iter()
            .map(ToString::to_string)
            .collect();
        let _ = writeln!(
            out,
            "everybody who is not blocked reaches {} around the tunnel",
            networks.join(", ")
        );
    }
    for (tunnel, networks) in &status.through {
        if !networks.is_empty() {
            let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
            let _ = writeln!(
                out,
                "everybody who is not blocked reaches {} through {tunnel} or not at all",
                networks.join(", ")
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_an_order_is_told_in_words() {
        let changed = |now: &[(&str, &str, &[&str])], ended: usize, notes: &[&str]| {
            let now: Vec<Value> = now
                .iter()
                .map(|(device, policy, addresses)| {
                    json!({ "device": device, "policy": policy, "addresses": addresses })
                })
                .collect();
            let devices: Vec<&Value> = now.iter().map(|one| &one["device"]).collect();
            let changed = json!({
                "devices": devices, "policy": now[0]["policy"], "now": now, "ended": ended, "notes": notes
            });
            told(&serde_json::from_value(changed).unwrap())
        };
        let (mac, other) = ("02:00:00:00:00:01", "02:00:00:00:00:02");
        assert_eq!(
            changed(&[(mac, "direct", &["192.168.1.9"])], 0, &[]),
            format!("{mac} is direct")
        );
        let through = json!({
            "devices": [mac], "policy": "tunnelled", "through": "work", "ended": 2, "notes": [],
            "now": [{ "device": mac, "policy": "tunnelled", "through": "work", "addresses": [] }],
        });
        assert_eq!(
            told(&serde_json::from_value(through).unwrap()),
            format!("{mac} is tunnelled through work; 2 connections ended")
        );
        assert_eq!(
            changed(&[(mac, "direct", &[]), (other, "direct", &[])], 3, &[]),
            format!("{mac} and {other} are direct; 3 connections ended")
        );
        assert_eq!(
            changed(
                &[(mac, "direct", &[]), (other, "blocked", &[])],
                1,
                &["note"]
            ),
            format!("{mac} is direct; {other} is blocked; 1 connection ended\nnote")
        );
        assert_eq!(
            changed(
                &[
                    (mac, "tunnelled", &["fd00::9", "fd00::10"]),
                    (mac, "direct", &["192.168.1.9"])
                ],
                0,
                &[]
            ),
            format!("{mac} at fd00::9 fd00::10 is tunnelled; {mac} at 192.168.1.9 is direct")
        );
    }

    #[test]
    fn a_list_names_who_decides_and_what_is_true_of_the_rest() {
        let status = json!({
            "default": "tunnelled", "direct_networks": ["198.51.100.0/24"], "problem": null,
            "devices": [
                {"device": "02:00:00:00:00:01", "name": "tv", "addresses": ["192.168.1.9", "fd00::9"],
                 "policy": "direct", "from": "command", "last_seen_s": 61.0},
                {"device": "02:00:00:00:00:02", "name": null, "host_name": "phone", "addresses": [],
                 "policy": "tunnelled", "from": "default", "last_seen_s": 3.0},
                {"device": "192.168.1.7", "name": null, "addresses": [], "policy": "blocked",
                 "from": "configuration", "last_seen_s": null},
                {"device": "192.168.1.8", "name": null, "addresses": [], "policy": "tunnelled", "through": "work",
                 "from": "configuration", "last_seen_s": null},
            ],
            "through": { "us": [], "work": ["10.20.0.0/16"] },
        });
        let shown = render(&serde_json::from_value(status).unwrap());
        let words: Vec<Vec<&str>> = shown
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(words[0].join(" "), "device name policy seen addresses");
        assert_eq!(
            words[1].join(" "),
            "02:00:00:00:00:01 tv direct (command) seen 1 min ago 192.168.1.9 fd00::9"
        );
        assert_eq!(
            words[2].join(" "),
            "02:00:00:00:00:02 (phone) tunnelled seen 3 s ago"
        );
        assert_eq!(
            words[3].join(" "),
            "192.168.1.7 - blocked (configuration) not seen"
        );
        assert_eq!(
            words[4].join(" "),
            "192.168.1.8 - tunnelled through work (configuration) not seen"
        );
        assert!(shown.ends_with(
            "\nall others are tunnelled\neverybody who is not blocked reaches 198.51.100.0/24 around the tunnel\n\
             everybody who is not blocked reaches 10.20.0.0/16 through work or not at all\n"
        ));
    }
}
