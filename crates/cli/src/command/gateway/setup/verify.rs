//! Whether what was set up works: a line each, good or with what is wrong.

use std::time::{Duration, Instant};

use cygnet_linux::Netlink;
use cygnet_profile::read::printable;
use hyper::Method;
use serde_json::Value;

use super::record::Place;
use crate::client;
use crate::command::systemd::{GUARD, RUN, Systemd};

/// How long the program may take to answer, and the tunnel to come up.
const ANSWERS: Duration = Duration::from_secs(30);
const COMES_UP: Duration = Duration::from_secs(30);
const TURN: Duration = Duration::from_millis(300);
/// How often it is told that something is waited for.
const PROGRESS: Duration = Duration::from_secs(5);

/// Looks at it and tells; whether all is well. `stop`: somebody wants no more of it.
pub(super) fn verify(
    place: &Place,
    tunnel: &str,
    systemd: Option<Systemd>,
    stop: &dyn Fn() -> bool,
) -> bool {
    println!("\nIs it well?");
    let mut well = true;
    let mut tell = |good: Result<String, String>| {
        well &= good.is_ok();
        match good {
            Ok(what) => println!("  ✓ {what}"),
            Err(what) => println!("  ✗ {what}"),
        }
    };
    tell(guard(place));
    let waited = "cygnet to answer";
    let status = wait(ANSWERS, waited, stop, || Some(status(place)));
    match status {
        Err(told) => tell(Err(format!(
            "cygnet does not answer: {told}; `journalctl -u cygnet` says why"
        ))),
        Ok(status) => {
            tell(Ok("cygnet runs, and answers".to_owned()));
            let version = env!("CARGO_PKG_VERSION");
            let other = status.get("version").and_then(Value::as_str);
            if other.is_some_and(|other| other != version) {
                tell(Err(format!(
                    "another version of cygnet runs, {}: restart it",
                    printable(other.unwrap_or_default())
                )));
            }
            tell(up(place, tunnel, stop));
            tell(forwarding());
        }
    }
    if let Some(systemd) = systemd {
        let off: Vec<&str> = [GUARD, RUN]
            .into_iter()
            .filter(|unit| !systemd.is_enabled(*unit))
            .map(|unit| unit.name)
            .collect();
        tell(match off.as_slice() {
            [] => Ok("systemd starts both at every boot, the guard before the network".to_owned()),
            off => Err(format!(
                "systemd does not start {} at boot",
                off.join(" and ")
            )),
        });
    }
    // Cygnet can do without, by time servers that nobody vouches for.
    if cygnet_linux::clock::is_synchronised() {
        println!("  ✓ time synchronisation keeps the clock right");
    } else {
        println!(
            "  ! no time synchronisation keeps the clock right: `timedatectl set-ntp true`, or certificates are judged by \
             the date of time servers, which whoever is on the way can forge"
        );
    }
    if let Ok(status) = self::status(place) {
        let warnings = status.get("warnings").and_then(Value::as_array);
        for warning in warnings.into_iter().flatten().filter_map(Value::as_str) {
            println!("  ! {}", printable(warning));
        }
    }
    well
}

fn status(place: &Place) -> Result<Value, String> {
    let body = client::call(&place.socket(), Method::GET, "/v1/status", None)?;
    serde_json::from_slice(&body).map_err(|error| format!("its status cannot be read: {error}"))
}

fn guard(place: &Place) -> Result<String, String> {
    let (config, _) =
        cygnet_daemon::survey::configuration(&place.config).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let network = runtime.block_on(async {
        let netlink = Netlink::connect().map_err(|error| error.to_string())?;
        cygnet_daemon::survey::network(&config, &netlink).await
    })?;
    match network.guard {
        Some(Ok(state)) if state.is_whole() => {
            Ok("the guard is in place: routing and filter".to_owned())
        }
        Some(Ok(state)) => Err(format!(
            "the guard is not whole: {}; `cygnet doctor` says what to do",
            match (state.routing, state.filter) {
                (false, false) => "neither routing nor filter is as it should be",
                (false, true) => "its routing is not as it should be",
                (true, _) => "its filter is not as it should be",
            }
        )),
        Some(Err(told)) => Err(format!("the guard cannot be looked at: {told}")),
        None => {
            Err("the configuration asks for no guard (`guard = false` in [gateway])".to_owned())
        }
    }
}

fn up(place: &Place, tunnel: &str, stop: &dyn Fn() -> bool) -> Result<String, String> {
    wait(COMES_UP, &format!("the tunnel {tunnel}"), stop, || {
        let status = match status(place) {
            Ok(status) => status,
            Err(told) => return Some(Err(told)),
        };
        let connections = status.pointer("/engine/connections")?.as_array()?;
        let of = |key: &'static str, it: &Value| it.get(key)?.as_str().map(printable);
        let connection = connections
            .iter()
            .find(|it| it.get("name").and_then(Value::as_str) == Some(tunnel))?;
        let state = of("state", connection).unwrap_or_default();
        if state == "up" {
            return Some(Ok(()));
        }
        let reason = of("reason", connection).map_or_else(String::new, |why| format!(": {why}"));
        Some(Err(format!("it is {state}{reason}")))
    })
    .map(|()| format!("the tunnel {tunnel} is up"))
    .map_err(|why| format!("the tunnel {tunnel} is not up: {why}; `cygnet doctor` says what to do"))
}

fn forwarding() -> Result<String, String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    match read("/proc/sys/net/ipv4/conf/all/forwarding").trim() {
        "1" => Ok("packets are forwarded".to_owned()),
        _ => Err("packets are not forwarded (net.ipv4.conf.all.forwarding)".to_owned()),
    }
}

/// Tries until it is good, with a line now and then; the last error if it takes too long. `None`: nothing is known yet.
fn wait<T>(
    patience: Duration,
    what: &str,
    stop: &dyn Fn() -> bool,
    mut attempt: impl FnMut() -> Option<Result<T, String>>,
) -> Result<T, String> {
    let begun = Instant::now();
    let mut next = PROGRESS;
    let mut last = "nothing is known of it".to_owned();
    loop {
        match attempt() {
            Some(Ok(done)) => return Ok(done),
            Some(Err(told)) => last = told,
            None => {}
        }
        let elapsed = begun.elapsed();
        if elapsed >= patience || stop() {
            return Err(last);
        }
        if elapsed >= next {
            next += PROGRESS;
            println!("    waiting for {what} …");
        }
        std::thread::sleep(TURN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_comes_or_says_why_not() {
        let mut tries = 0;
        let done = wait(Duration::from_secs(60), "it", &|| false, || {
            tries += 1;
            (tries > 1).then_some(Ok(tries))
        });
        assert_eq!(done, Ok(2));
        let why = || Some(Err::<(), _>("no answer".to_owned()));
        assert_eq!(
            wait(Duration::ZERO, "it", &|| false, why),
            Err("no answer".into())
        );
        assert_eq!(
            wait(Duration::from_secs(60), "it", &|| true, why),
            Err("no answer".into())
        );
    }
}
