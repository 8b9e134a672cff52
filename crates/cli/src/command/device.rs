//! `cygnet device …`

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use cygnet_daemon::api::{DeviceChanged, DeviceStatus, DevicesStatus, PolicySource};
use cygnet_profile::read::printable;
use hyper::Method;
use serde_json::{Value, json};

use super::status::duration;
use crate::args::device::{Device, Forget, List, Set};
use crate::client;

pub(super) fn device(what: &Device) -> ExitCode {
    match what {
        Device::List(options) => list(options),
        Device::Set(Set {
            device,
            policy,
            socket,
        }) => {
            let order = json!({ "device": device, "policy": policy });
            change(&socket.socket, "/v1/devices/set", &order)
        }
        Device::Forget(Forget { device, socket }) => {
            let order = json!({ "device": device });
            change(&socket.socket, "/v1/devices/forget", &order)
        }
    }
}

fn list(options: &List) -> ExitCode {
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
    let DeviceChanged {
        devices,
        policy,
        ended,
    } = changed;
    let are = match devices.len() {
        1 => "is",
        _ => "are",
    };
    let mut told = format!("{} {are} {policy}", devices.join(" and "));
    match ended {
        0 => {}
        1 => told.push_str("; 1 connection ended"),
        ended => {
            let _ = write!(told, "; {ended} connections ended");
        }
    }
    let by_address = devices
        .iter()
        .any(|device| device.parse::<IpAddr>().is_ok());
    if by_address {
        told.push_str(
            "\nno device with that address was seen: what was said counts for the address alone, and not for the \
             other addresses of the device",
        );
    }
    told
}

fn render(status: &DevicesStatus) -> String {
    let mut out = String::new();
    if let Some(problem) = &status.problem {
        let _ = writeln!(out, "warning: {problem}\n");
    }
    let addresses = |device: &DeviceStatus| {
        let addresses: Vec<String> = device.addresses.iter().map(IpAddr::to_string).collect();
        addresses.join(" ")
    };
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
            format!("{}{from}", device.policy),
            seen,
            addresses(device)
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
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_an_order_is_told_in_words() {
        let changed = |devices: &[&str], ended| {
            let devices = devices.iter().map(|d| (*d).to_owned()).collect();
            let policy = serde_json::from_value(json!("direct")).unwrap();
            told(&DeviceChanged {
                devices,
                policy,
                ended,
            })
        };
        let mac = "02:00:00:00:00:01";
        assert_eq!(changed(&[mac], 0), format!("{mac} is direct"));
        assert_eq!(
            changed(&[mac, "02:00:00:00:00:02"], 3),
            "02:00:00:00:00:01 and 02:00:00:00:00:02 are direct; 3 connections ended"
        );
        let by_address = changed(&["fd00::9"], 1);
        assert!(by_address.starts_with("fd00::9 is direct; 1 connection ended\nno device"));
        assert!(!changed(&["192.168.1.64/26"], 1).contains("no device"));
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
            ],
        });
        let shown = render(&serde_json::from_value(status).unwrap());
        let words: Vec<Vec<&str>> = shown
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(
            words[0].join(" "),
            "02:00:00:00:00:01 tv direct (command) seen 1 min ago 192.168.1.9 fd00::9"
        );
        assert_eq!(
            words[1].join(" "),
            "02:00:00:00:00:02 (phone) tunnelled seen 3 s ago"
        );
        assert_eq!(
            words[2].join(" "),
            "192.168.1.7 - blocked (configuration) not seen"
        );
        assert!(shown.ends_with(
            "\nall others are tunnelled\neverybody who is not blocked reaches 198.51.100.0/24 around the tunnel\n"
        ));
    }
}
