//! `cygnet up` and `cygnet down`: ask, then watch until it is so or until it is known why not.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cygnet_daemon::api::{ConnectionStatus, Status};
use hyper::Method;
use serde_json::json;

use crate::args::Connection;
use crate::client;

pub(super) fn up(which: &Connection) -> ExitCode {
    order(which, "up", |c| match &which.child {
        Some(child) => c
            .ike_sas
            .iter()
            .flat_map(|sa| &sa.children)
            .any(|k| &k.name == child && k.state == "up"),
        None => c.state == "up",
    })
}

pub(super) fn down(which: &Connection) -> ExitCode {
    order(which, "down", |c| match &which.child {
        Some(child) => !c
            .ike_sas
            .iter()
            .flat_map(|sa| &sa.children)
            .any(|k| &k.name == child),
        None => c.ike_sas.is_empty(),
    })
}

/// Why it is not as ordered, in words.
fn why(c: &ConnectionStatus) -> String {
    let call = c.ike_sas.iter().find(|sa| sa.state == "connecting");
    match (&c.reason, call) {
        (Some(reason), _) => reason.clone(),
        (None, Some(sa)) => format!("{} {}: {}", c.state, sa.remote, super::status::calling(sa)),
        (None, None) => c.state.clone(),
    }
}

/// Tunnels that are not as ordered, each with the reason.
fn too_late(waiting: &[(String, String)], verb: &str, seconds: u64) -> String {
    let all: Vec<String> = waiting
        .iter()
        .map(|(name, why)| format!("{name} is not {verb} after {seconds} s: {why}"))
        .collect();
    let remedy = match verb {
        "up" => "; `cygnet doctor` looks for the cause",
        _ => "",
    };
    format!("{}{remedy}", all.join("\ncygnet: "))
}

fn order(which: &Connection, verb: &str, done: impl Fn(&ConnectionStatus) -> bool) -> ExitCode {
    let status = match fetch(which) {
        Ok(status) => status,
        Err(message) => return super::fail(&message),
    };
    let Some(engine) = status.engine else {
        return super::fail("the engine is being restarted; try again in a moment");
    };
    let all = engine.connections;
    let names: Vec<String> = match &which.name {
        Some(name) => vec![name.clone()],
        None => all
            .iter()
            .filter(|c| c.state != "listening")
            .map(|c| c.name.clone())
            .collect(),
    };
    if names.is_empty() {
        return super::refuse("no tunnel is configured; write a [tunnel.NAME] section");
    }
    for name in &names {
        let body = which.child.as_ref().map(|child| json!({ "child": child }));
        let path = format!("/v1/connections/{name}/{verb}");
        if let Err(message) = client::call(&which.socket.socket, Method::POST, &path, body.as_ref())
        {
            return super::refuse(&message);
        }
    }
    let until = Instant::now() + Duration::from_secs(which.wait);
    let mut waiting: Vec<(String, String)> =
        names.into_iter().map(|n| (n, String::new())).collect();
    if which.wait == 0 {
        return ExitCode::SUCCESS;
    }
    loop {
        let status = match fetch(which) {
            Ok(status) => status,
            Err(message) => return super::fail(&message),
        };
        let connections = status.engine.unwrap_or_default().connections;
        waiting.retain_mut(
            |(name, why)| match connections.iter().find(|c| &c.name == name) {
                Some(c) if done(c) => {
                    println!("{name} is {verb}");
                    false
                }
                Some(c) => {
                    *why = self::why(c);
                    true
                }
                None => true,
            },
        );
        if waiting.is_empty() {
            return ExitCode::SUCCESS;
        }
        if Instant::now() >= until {
            return super::fail(&too_late(&waiting, verb, which.wait));
        }
        sleep(Duration::from_millis(20));
    }
}

fn fetch(which: &Connection) -> Result<Status, String> {
    let body = client::call(&which.socket.socket, Method::GET, "/v1/status", None)?;
    super::status::parse(&body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_in_vain_is_told_who_looks_for_the_cause() {
        let waiting = ["home", "work"].map(|name| (name.to_owned(), "no answer".to_owned()));
        assert_eq!(
            too_late(&waiting, "up", 30),
            "home is not up after 30 s: no answer\ncygnet: work is not up after 30 s: no answer; `cygnet doctor` looks for the cause"
        );
        assert_eq!(
            too_late(&waiting[..1], "down", 30),
            "home is not down after 30 s: no answer"
        );
    }
}
