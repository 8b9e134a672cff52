//! `cygnet status`: what a person wants to know first stands first.

use std::fmt::Write as _;
use std::process::ExitCode;

use cygnet_daemon::api::{ChildStatus, ConnectionStatus, Guard, IkeSaStatus, Status};
use cygnet_profile::read::printable;
use hyper::Method;
use serde_json::Value;

use crate::args;
use crate::client;

pub(super) fn status(options: &args::Status) -> ExitCode {
    let body = match client::call(&options.socket.socket, Method::GET, "/v1/status", None) {
        Ok(body) => body,
        Err(message) => return super::fail(&message),
    };
    if options.json {
        println!("{}", escaped(&String::from_utf8_lossy(&body)));
        return ExitCode::SUCCESS;
    }
    match parse(&body) {
        Ok(status) => {
            print!("{}", render(&status));
            ExitCode::SUCCESS
        }
        Err(message) => super::fail(&message),
    }
}

/// A status that is fit for a terminal. Peers choose some of its texts, and the engine most of them, which may have been
/// taken over: whoever reads them is root.
pub(super) fn parse(body: &[u8]) -> Result<Status, String> {
    let mut status: Value = serde_json::from_slice(body).map_err(unreadable)?;
    clean(&mut status);
    serde_json::from_value(status).map_err(unreadable)
}

/// JSON that says the same and steers no terminal: what does is in its strings alone.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && printable(c.encode_utf8(&mut [0; 4])) != c.to_string() {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

fn unreadable(error: serde_json::Error) -> String {
    format!("cannot read the status: {}", printable(&error.to_string()))
}

fn clean(value: &mut Value) {
    match value {
        // Each is a line, or a part of one.
        Value::String(text) => *text = printable(&text.replace('\n', " ")),
        Value::Array(items) => items.iter_mut().for_each(clean),
        Value::Object(members) => members.values_mut().for_each(clean),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn render(status: &Status) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "cygnet {}, up for {}",
        status.version,
        duration(status.uptime_s as f64)
    );
    if status.engine_restarts > 0 {
        let _ = writeln!(out, "  engine restarted {} times", status.engine_restarts);
    }
    match status.guard {
        Guard::NotConfigured => {}
        Guard::On => out.push_str("  guard on: LAN devices leave through the tunnel or not at all, but for what is to go direct\n"),
        Guard::Missing => out.push_str(
            "  GUARD MISSING: something removed the fail-closed rules; `cygnet gateway on` puts them back\n",
        ),
    }
    for warning in &status.warnings {
        let _ = writeln!(out, "  warning: {warning}");
    }
    match &status.engine {
        None => out.push_str("\nthe engine is being restarted\n"),
        Some(engine) => {
            for connection in &engine.connections {
                self::connection(&mut out, connection);
            }
            // Multicast that no tunnel carries is no sign of trouble.
            let telling = |name: &str| name != "multicast";
            for drop in engine
                .drops
                .iter()
                .filter(|d| d.count > 0 && telling(&d.name))
            {
                let _ = writeln!(out, "\ndropped: {} {}", drop.count, drop.name);
            }
        }
    }
    let refused = status.engine.iter().flat_map(|engine| &engine.refused);
    for (n, call) in refused.enumerate() {
        if n == 0 {
            out.push_str("\nrefused lately\n");
        }
        let _ = writeln!(
            out,
            "  {} ({}), {}, last {} ago: offers only {}\n    {}",
            call.from,
            call.client.as_deref().unwrap_or("unknown client"),
            times(call.count),
            duration(call.ago_s),
            call.offered,
            call.remedy
        );
    }
    if !status.leases.is_empty() {
        out.push_str("\nclients\n");
        for lease in &status.leases {
            let addresses: Vec<String> = lease.addresses.iter().map(ToString::to_string).collect();
            let _ = writeln!(
                out,
                "  {:<32} {:<30} {}",
                whose(&lease.user, &lease.device, &lease.identity),
                addresses.join(" "),
                if lease.online { "online" } else { "away" }
            );
        }
    }
    out
}

fn connection(out: &mut String, c: &ConnectionStatus) {
    let _ = write!(out, "\n{}: {}", c.name, c.state);
    if let Some(reason) = &c.reason {
        let _ = write!(out, " ({reason})");
    }
    if let Some(retry) = c.retry_in_s {
        let _ = write!(out, ", next try in {}", duration(retry));
    }
    out.push('\n');
    for sa in &c.ike_sas {
        ike_sa(out, sa);
    }
}

fn ike_sa(out: &mut String, sa: &IkeSaStatus) {
    if sa.state == "connecting" {
        let _ = writeln!(out, "  {} -> {}: {}", sa.local, sa.remote, calling(sa));
        return;
    }
    let _ = writeln!(
        out,
        "  {} {} -> {}{}{}, {} for {}{}",
        whose(
            &sa.user,
            &sa.device,
            sa.peer.as_deref().unwrap_or("(not yet known)")
        ),
        sa.local,
        sa.remote,
        match (sa.nat_local, sa.nat_remote) {
            (true, true) => ", NAT at both ends",
            (true, false) => ", NAT before us",
            (false, true) => ", NAT before the peer",
            (false, false) => "",
        },
        if sa.mobike { ", may move" } else { "" },
        sa.state,
        duration(sa.age_s),
        sa.rekey_in_s
            .map_or_else(String::new, |r| format!(", new keys in {}", duration(r))),
    );
    if let Some(suite) = &sa.suite {
        let _ = writeln!(out, "    ike  {suite}");
    }
    if let Some(request) = sa.in_flight.as_ref().filter(|r| r.sent > 1) {
        let _ = writeln!(
            out,
            "    no answer to {} for {}, sent {} times",
            request.exchange,
            duration(request.since_s),
            request.sent
        );
    }
    for address in &sa.virtual_addresses {
        let _ = writeln!(out, "    address {address}");
    }
    let domains = match sa.domains.as_slice() {
        [] => String::new(),
        domains => format!(" for {}", domains.join(", ")),
    };
    for resolver in &sa.dns {
        let _ = writeln!(out, "    dns     {resolver}{domains}");
    }
    for child in &sa.children {
        self::child(out, child);
    }
}

/// A peer by its user and device where they are known, and by its identity.
fn whose(user: &Option<String>, device: &Option<String>, identity: &str) -> String {
    match (user, device) {
        (Some(user), Some(device)) => format!("{user}'s {device} ({identity})"),
        _ => identity.to_owned(),
    }
}

/// How far a call is.
pub(super) fn calling(sa: &IkeSaStatus) -> &'static str {
    if sa.suite.is_none() {
        "no answer yet; does it run there, and are UDP 500 and 4500 open?"
    } else {
        "it answers; both ends prove who they are"
    }
}

fn child(out: &mut String, child: &ChildStatus) {
    let _ = writeln!(
        out,
        "    {} {} for {}: {} === {}",
        child.name,
        child.state,
        duration(child.age_s),
        child.local.join(" "),
        child.remote.join(" ")
    );
    let _ = writeln!(
        out,
        "      in {} ({} packets), out {} ({} packets), {}",
        bytes(child.bytes_in),
        child.packets_in,
        bytes(child.bytes_out),
        child.packets_out,
        child.suite
    );
}

pub(super) fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0) as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min", s / 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}

fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{n} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_was_taken_over_steers_no_terminal() {
        let evil = "x\u{1b}[2J\u{9b}H\r\nguard on\u{7}\u{202e}";
        let status = serde_json::json!({
            "version": "1", "config": evil, "processes": {"supervisor": 1, "engine": 2}, "uptime_s": 1, "engine_restarts": 0, "guard": "on", "warnings": [evil],
            "leases": [{"pool": evil, "identity": evil, "addresses": [], "online": true}],
            "engine": {
                "connections": [{"name": evil, "state": evil, "reason": evil, "ike_sas": []}],
                "drops": [{"name": evil, "count": 1}], "ike_counters": [],
                "refused": [{"from": "192.0.2.1", "client": evil, "offered": evil, "remedy": evil,
                             "count": 1, "ago_s": 1.0}],
            },
        });
        let json = escaped(&status.to_string());
        assert!(!json.contains(|c: char| c.is_control() || c == '\u{202e}'));
        assert_eq!(
            serde_json::from_str::<Value>(&json).ok(),
            Some(status.clone())
        );
        let shown = render(&parse(status.to_string().as_bytes()).unwrap());
        assert!(shown.contains("x\u{fffd}[2J"), "{shown:?}");
        let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!shown.contains(steers), "{shown:?}");
        assert!(!shown.lines().any(|line| line.starts_with("guard on")));
    }

    #[test]
    fn sizes_and_times_are_for_people() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_500_000), "1.5 MB");
        assert_eq!(duration(59.9), "59 s");
        assert_eq!(duration(3_720.0), "1 h 2 min");
        assert_eq!(duration(90_000.0), "1 d 1 h");
    }
}
