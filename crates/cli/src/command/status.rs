//! `cygnet status`: what a person wants to know first stands first.

use std::fmt::Write as _;
use std::process::ExitCode;

use cygnet_daemon::api::{
    ChildStatus, ConnectionStatus, DirectDomain, DnsStatus, Guard, IkeSaStatus, Status, What,
    ordinal,
};
use cygnet_profile::read::printable;
use hyper::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

use crate::args;
use crate::client;

/// Changes of a tunnel that are shown unless all are asked for.
const CHANGES: usize = 3;

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
            let changes = if options.history { usize::MAX } else { CHANGES };
            print!("{}", render(&status, changes));
            ExitCode::SUCCESS
        }
        Err(message) => super::fail(&message),
    }
}

/// A status that is fit for a terminal. Peers choose some of its texts, and the engine most of them, which may have been
/// taken over: whoever reads them is root.
pub(super) fn parse(body: &[u8]) -> Result<Status, String> {
    parse_as(body)
}

/// The same of another answer.
pub(super) fn parse_as<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    let mut answer: Value = serde_json::from_slice(body).map_err(unreadable)?;
    clean(&mut answer);
    serde_json::from_value(answer).map_err(unreadable)
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
    format!("cannot read the answer: {}", printable(&error.to_string()))
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

fn render(status: &Status, changes: usize) -> String {
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
        Guard::On => {
            out.push_str("  guard on: LAN devices leave through the tunnel or not at all");
            out.push_str(match status.lets_out {
                true => ", but for what is to go direct\n",
                false => "\n",
            });
            if status.let_out {
                out.push_str("  LET OUT: the tunnel is down, and tunnelled devices go direct, in clear\n");
            }
        }
        Guard::Missing => out.push_str(
            "  GUARD MISSING: something removed the fail-closed rules; `cygnet gateway on` puts them back\n",
        ),
    }
    if let Some(dhcp) = &status.dhcp {
        let _ = writeln!(out, "  {}", super::dhcp::line(dhcp));
    }
    if let Some(router) = &status.advertise {
        let state = match router.advertising {
            true => "this machine is advertised as the router to prefer",
            false => "this machine is not advertised",
        };
        let _ = writeln!(out, "  IPv6 on {}: {state}", router.interface);
    }
    for warning in &status.warnings {
        let _ = writeln!(out, "  warning: {warning}");
    }
    match &status.engine {
        None => {
            out.push_str("\nthe engine is being restarted\n");
            for of in status.history.iter().filter(|of| !of.changes.is_empty()) {
                let _ = writeln!(out, "\n{}", of.name);
                history(&mut out, status, &of.name, changes, local);
            }
        }
        Some(engine) => {
            for connection in &engine.connections {
                self::connection(&mut out, connection);
                history(&mut out, status, &connection.name, changes, local);
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
    if let Some(dns) = &status.dns {
        self::dns(&mut out, dns);
        direct_domains(&mut out, &status.direct_domains);
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

/// The last changes of a tunnel, oldest first.
pub(super) fn history(
    out: &mut String,
    status: &Status,
    tunnel: &str,
    most: usize,
    zone: impl Fn(OffsetDateTime) -> Option<UtcOffset>,
) {
    let of = status.history.iter().find(|of| of.name == tunnel);
    let changes = of.map_or(&[][..], |of| &of.changes);
    let today = OffsetDateTime::now_utc();
    let first = changes.len().saturating_sub(most);
    for (n, change) in changes.iter().enumerate().skip(first) {
        let when = match (change.at, change.ago_s) {
            (None, Some(ago)) => format!("{} ago", duration(ago as f64)),
            (at, _) => moment(at, today, &zone),
        };
        let text = &change.text;
        let _ = match change.what {
            What::Up if n > 0 => writeln!(out, "  up again {when}: via {text}"),
            What::Up => writeln!(out, "  up {when}: via {text}"),
            What::Moved => writeln!(out, "  moved {when}: via {text}"),
            What::Open => writeln!(out, "  LET OUT {when}: {text}"),
            What::Closed => writeln!(out, "  closed in {when}: {text}"),
            What::Down => writeln!(out, "  down {when}: {text}"),
            What::Failed => writeln!(out, "  not up {when}: {text}"),
        };
    }
}

/// `14:02:11` if it was today, else with the date, as the clock on the wall has it.
fn moment(
    at: Option<i64>,
    today: OffsetDateTime,
    zone: impl Fn(OffsetDateTime) -> Option<UtcOffset>,
) -> String {
    let Some(at) = at.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok()) else {
        return "at an unknown time".to_owned();
    };
    let zone = |at: OffsetDateTime| at.to_offset(zone(at).unwrap_or(UtcOffset::UTC));
    let (at, today) = (zone(at), zone(today));
    let time = at.format(format_description!("[hour]:[minute]:[second]"));
    let mut told = time.unwrap_or_default();
    if at.date() != today.date() {
        told = format!("{} {told}", at.date());
    }
    if at.offset().is_utc() {
        told.push_str(" UTC");
    }
    told
}

/// Unknown where other threads could change it meanwhile.
fn local(at: OffsetDateTime) -> Option<UtcOffset> {
    UtcOffset::local_offset_at(at).ok()
}

fn ike_sa(out: &mut String, sa: &IkeSaStatus) {
    if sa.state == "connecting" {
        let _ = writeln!(out, "  {} -> {}: {}", sa.local, sa.remote, calling(sa));
        return;
    }
    let _ = writeln!(
        out,
        "  {} {} -> {}{}{}{}, {} for {}{}",
        whose(
            &sa.user,
            &sa.device,
            sa.peer.as_deref().unwrap_or("(not yet known)")
        ),
        sa.local,
        sa.remote,
        sa.server
            .map_or_else(String::new, |place| format!(", {} server", ordinal(place))),
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

/// What goes direct by its name, right below.
fn direct_domains(out: &mut String, domains: &[DirectDomain]) {
    let domains: Vec<String> = domains
        .iter()
        .map(|DirectDomain { domain, count, .. }| match count {
            1 => format!("{domain} (1 address)"),
            count => format!("{domain} ({count} addresses)"),
        })
        .collect();
    if !domains.is_empty() {
        let _ = writeln!(out, "  past the tunnel: {}", domains.join(", "));
    }
}

/// How devices are answered that ask for names.
fn dns(out: &mut String, dns: &DnsStatus) {
    let listed = |addresses: &[std::net::IpAddr]| {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        addresses.join(" ")
    };
    let _ = match dns.addresses.is_empty() {
        true => writeln!(out, "\ndns: answers nowhere: no address on the LAN"),
        false => writeln!(out, "\ndns: answers at {}", listed(&dns.addresses)),
    };
    let tls = (dns.tls.as_ref()).map_or_else(String::new, |name| format!(" over TLS as {name}"));
    let _ = match &dns.reason {
        Some(reason) => writeln!(out, "  asks nobody: {reason}"),
        None => writeln!(out, "  asks {}{tls}", listed(&dns.resolvers)),
    };
    let _ = writeln!(
        out,
        "  {} questions: {} from the cache, {} blocked, {} asked outside, {} failed; {} not answered",
        dns.queries, dns.cache_hits, dns.blocked, dns.direct, dns.failures, dns.dropped
    );
    if dns.blocked_names > 0 {
        let _ = writeln!(out, "  {} names on block lists", dns.blocked_names);
    }
    if dns.restarts > 0 {
        let _ = writeln!(
            out,
            "  the process that answers was restarted {} times",
            dns.restarts
        );
    }
}

/// A peer by its user and device where they are known, and by its identity.
pub(super) fn whose(user: &Option<String>, device: &Option<String>, identity: &str) -> String {
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
    if let (Some(mtu), Some(path_mtu)) = (child.mtu, child.path_mtu) {
        let _ = writeln!(out, "      MTU {mtu}, of the path {path_mtu}");
    }
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

pub(super) fn bytes(n: u64) -> String {
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
            "history": [{"name": evil, "changes": [{"at": 1, "what": "down", "text": evil}]}],
        });
        let json = escaped(&status.to_string());
        assert!(!json.contains(|c: char| c.is_control() || c == '\u{202e}'));
        assert_eq!(
            serde_json::from_str::<Value>(&json).ok(),
            Some(status.clone())
        );
        let shown = render(&parse(status.to_string().as_bytes()).unwrap(), CHANGES);
        assert!(shown.contains("x\u{fffd}[2J"), "{shown:?}");
        let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!shown.contains(steers), "{shown:?}");
        assert!(!shown.lines().any(|line| line.starts_with("guard on")));
    }

    #[test]
    fn that_something_goes_direct_is_told_where_it_does() {
        let shown = |more: Value| {
            let mut status = serde_json::json!({
                "version": "1", "config": "c", "processes": {"supervisor": 1, "engine": null}, "uptime_s": 1,
                "engine_restarts": 0, "guard": "on", "warnings": [], "leases": [], "engine": null,
            });
            if let (Some(status), Value::Object(more)) = (status.as_object_mut(), more) {
                status.extend(more);
            }
            render(&parse(status.to_string().as_bytes()).unwrap(), CHANGES)
        };
        let closed = "guard on: LAN devices leave through the tunnel or not at all\n";
        assert!(shown(serde_json::json!({})).contains(closed));
        let open = shown(serde_json::json!({"lets_out": true}));
        assert!(
            open.contains("not at all, but for what is to go direct\n"),
            "{open}"
        );
    }

    #[test]
    fn what_happened_is_told_with_when_and_why() {
        let mut changes = vec![serde_json::json!({"at": 1, "what": "up", "text": "a -> b"})];
        for n in 0..4 {
            let text = format!("no answer from 203.0.113.{n} for 8 s");
            changes.push(serde_json::json!({"at": null, "what": "down", "text": text}));
            changes.push(serde_json::json!({"at": null, "what": "up", "text": "a -> b"}));
        }
        // Since the program started, and before the date is known.
        changes.last_mut().unwrap()["ago_s"] = 4.into();
        let status = |engine: Value| {
            let status = serde_json::json!({
                "version": "1", "config": "c", "processes": {"supervisor": 1, "engine": null}, "uptime_s": 1,
                "engine_restarts": 0, "guard": "on", "warnings": [], "leases": [], "engine": engine,
                "history": [{"name": "home", "changes": changes}],
            });
            parse(status.to_string().as_bytes()).unwrap()
        };
        let engine = serde_json::json!({
            "connections": [{"name": "home", "state": "up", "reason": null, "ike_sas": []}],
            "drops": [], "ike_counters": [],
        });
        let shown = render(&status(engine), CHANGES);
        let lines: Vec<&str> = shown.lines().rev().take(4).collect();
        assert_eq!(
            lines,
            [
                "  up again 4 s ago: via a -> b",
                "  down at an unknown time: no answer from 203.0.113.3 for 8 s",
                "  up again at an unknown time: via a -> b",
                "home: up",
            ]
        );
        // Also while the engine is away, and all of it.
        let shown = render(&status(Value::Null), usize::MAX);
        assert!(shown.contains("\nhome\n  up 1970-01-01 "), "{shown}");
        assert_eq!(shown.matches("down at").count(), 4, "{shown}");
    }

    #[test]
    fn a_moment_is_told_by_the_clock_on_the_wall() {
        // 2026-11-26 13:02:11 UTC.
        let at = 1_795_698_131;
        let today = OffsetDateTime::from_unix_timestamp(at + 60).unwrap();
        let next = OffsetDateTime::from_unix_timestamp(at + 86_400).unwrap();
        let zone = |hours| move |_| UtcOffset::from_hms(hours, 0, 0).ok();
        assert_eq!(moment(Some(at), today, zone(1)), "14:02:11");
        assert_eq!(moment(Some(at), today, |_| None), "13:02:11 UTC");
        assert_eq!(moment(Some(at), next, zone(-8)), "2026-11-26 05:02:11");
        assert_eq!(moment(None, today, zone(1)), "at an unknown time");
    }

    #[test]
    fn how_devices_are_answered_is_told_up_and_down() {
        let mut dns = DnsStatus {
            addresses: vec!["192.168.1.2".parse().unwrap()],
            resolvers: vec!["9.9.9.9".parse().unwrap()],
            tls: Some("dns.quad9.net".to_owned()),
            reason: None,
            process: Some(7),
            restarts: 0,
            blocked_names: 3,
            queries: 10,
            cache_hits: 4,
            blocked: 1,
            direct: 2,
            failures: 0,
            dropped: 0,
        };
        let shown = |dns: &DnsStatus| {
            let mut out = String::new();
            super::dns(&mut out, dns);
            out
        };
        let up = shown(&dns);
        assert!(up.contains("answers at 192.168.1.2"), "{up}");
        assert!(
            up.contains("asks 9.9.9.9 over TLS as dns.quad9.net"),
            "{up}"
        );
        assert!(
            up.contains("10 questions: 4 from the cache, 1 blocked, 2 asked outside"),
            "{up}"
        );
        assert!(up.contains("3 names on block lists"), "{up}");
        let of = |domain: &str, count| DirectDomain {
            domain: domain.to_owned(),
            count,
            addresses: Vec::new(),
        };
        let mut out = String::new();
        direct_domains(&mut out, &[of("a.example", 1), of("b.example", 0)]);
        let told = "  past the tunnel: a.example (1 address), b.example (0 addresses)\n";
        assert_eq!(out, told);
        dns.reason = Some("tunnel home is down".to_owned());
        dns.addresses.clear();
        let down = shown(&dns);
        assert!(down.contains("asks nobody: tunnel home is down"), "{down}");
        assert!(down.contains("answers nowhere"), "{down}");
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
