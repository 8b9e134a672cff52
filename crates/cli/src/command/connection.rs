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
            let all: Vec<String> = waiting
                .iter()
                .map(|(name, why)| format!("{name} is not {verb} after {} s: {why}", which.wait))
                .collect();
            return super::fail(&all.join("\ncygnet: "));
        }
        sleep(Duration::from_millis(20));
    }
}

fn fetch(which: &Connection) -> Result<Status, String> {
    let body = client::call(&which.socket.socket, Method::GET, "/v1/status", None)?;
    super::status::parse(&body)
}
