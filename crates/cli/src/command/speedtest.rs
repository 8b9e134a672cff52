//! `cygnet speedtest`: how fast a tunnel is, and what does not let it be faster.

mod follow;
mod machine;
mod target;

use std::io::{ErrorKind, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use cygnet_daemon::api::Status;
use cygnet_daemon::speedtest::{Surroundings, surroundings};
use cygnet_linux::{Netlink, keep_file};
use cygnet_speedtest::{Path as Measured, Run, Way, append, list, read, svg, table};
use hyper::Method;

use crate::args::speedtest::Speedtest;
use crate::client;
use follow::{Progress, follow};
use machine::Machine;

/// The name of the file with earlier runs, in the state directory.
const HISTORY: &str = "speedtest.jsonl";

/// Why there is no result.
enum Ended {
    /// Nothing was measured: it was asked for what cannot be.
    Refused(String),
    Failed(String),
}

pub(super) fn speedtest(options: &Speedtest) -> ExitCode {
    let done = match options.history {
        true => history(options),
        false => run(options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Ended::Refused(message)) => super::refuse(&message),
        Err(Ended::Failed(message)) => super::fail(&message),
    }
}

/// What runs, and by which configuration.
fn daemon(options: &Speedtest) -> Result<(Status, Surroundings), Ended> {
    let body = client::call(&options.socket.socket, Method::GET, "/v1/status", None);
    let status = super::status::parse(&body.map_err(Ended::Refused)?).map_err(Ended::Refused)?;
    let known = surroundings(&status.config).map_err(|e| Ended::Refused(e.to_string()))?;
    Ok((status, known))
}

fn history(options: &Speedtest) -> Result<(), Ended> {
    let (_, known) = daemon(options)?;
    let runs = read(&kept(&known.state_dir.join(HISTORY)).map_err(Ended::Failed)?);
    match (options.json, runs.is_empty()) {
        (true, _) => println!("{}", serde_json::to_string(&runs).unwrap_or_default()),
        (false, true) => println!("nothing was measured yet"),
        (false, false) => print!("{}", list(&runs)),
    }
    Ok(())
}

/// The text of earlier runs.
fn kept(path: &Path) -> Result<String, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

fn run(options: &Speedtest) -> Result<(), Ended> {
    let (status, known) = daemon(options)?;
    let target = target::through(options, &status, &known).map_err(Ended::Refused)?;
    let machine = Machine::new(&status.processes);
    let progress = Progress {
        live: std::io::stderr().is_terminal(),
        silent: options.json,
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let mut run = Run {
        at: now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(0)),
        tunnel: target.tunnel.clone(),
        seconds: options.seconds,
        streams: options.streams,
        paths: Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Ended::Failed(format!("cannot start: {e}")))?;
    runtime
        .block_on(async {
            let measured = async {
                let path = (Way::Tunnel, target.shown.as_str());
                follow(&target.errand, known.user, path, &machine, &progress).await
            };
            let around = options.direct_url.as_ref().map(async |url| {
                let errand = target::around(options, url, &uplink().await?);
                progress.note(&format!(
                    "around the tunnel, in clear, by interface {}",
                    errand.interface
                ));
                let path = (Way::Direct, url.as_str());
                follow(&errand, known.user, path, &machine, &progress).await
            });
            tokio::select! {
                paths = both(measured, around) => {
                    run.paths = paths?;
                    Ok(())
                }
                _ = tokio::signal::ctrl_c() => Err("interrupted: nothing of it is kept".to_owned()),
            }
        })
        .map_err(Ended::Failed)?;
    run.judge();
    show(options, &run);
    let drawn = match &options.svg {
        Some(file) => write(file, &svg(&run)),
        None => Ok(()),
    };
    // It was measured, whether or not it can be looked up later.
    if let Err(error) = keep(&known.state_dir.join(HISTORY), &run) {
        eprintln!("cygnet: not kept for --history: {error}");
    }
    drawn?;
    let tunnelled = run.tunnelled();
    let nothing = tunnelled.is_none_or(|path| path.down.is_none() && path.up.is_none());
    match nothing {
        true => Err(Ended::Failed(
            "neither direction could be measured".to_owned(),
        )),
        false => Ok(()),
    }
}

/// Measures one way behind the other. What was found on the first is there whatever comes of the second.
async fn both(
    tunnel: impl Future<Output = Result<Measured, String>>,
    around: Option<impl Future<Output = Result<Measured, String>>>,
) -> Result<Vec<Measured>, String> {
    let mut paths = vec![tunnel.await?];
    if let Some(around) = around {
        match around.await {
            Ok(path) => paths.push(path),
            Err(error) => eprintln!("cygnet: around the tunnel: {error}"),
        }
    }
    Ok(paths)
}

fn show(options: &Speedtest, run: &Run) {
    match options.json {
        true => println!("{}", serde_json::to_string(run).unwrap_or_default()),
        false => print!("{}", table(run)),
    }
}

/// The interface that leads to the internet without a tunnel.
async fn uplink() -> Result<String, String> {
    let netlink = Netlink::connect().map_err(|e| e.to_string())?;
    for v6 in [false, true] {
        if let Some(way) = netlink.default_route(v6).await.map_err(|e| e.to_string())? {
            return Ok(way.interface);
        }
    }
    Err("this machine has no default route, so there is no way around the tunnel".to_owned())
}

fn keep(path: &Path, run: &Run) -> Result<(), String> {
    let text = append(&kept(path)?, run);
    keep_file(path, text.as_bytes()).map_err(|e| format!("cannot write {}: {e}", path.display()))
}

fn write(file: &Path, picture: &str) -> Result<(), Ended> {
    std::fs::write(file, picture)
        .map_err(|e| Ended::Failed(format!("cannot write {}: {e}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::ready;

    type Found = Result<Measured, String>;

    fn path(way: Way) -> Measured {
        Measured {
            way,
            target: "10.99.0.1".to_owned(),
            idle: None,
            down: None,
            up: None,
        }
    }

    #[tokio::test]
    async fn what_the_tunnel_carries_is_told_whatever_comes_of_the_way_around_it() {
        let ways = async |tunnel: Found, around: Option<Found>| {
            let paths = both(ready(tunnel), around.map(ready)).await;
            paths.map(|paths| paths.iter().map(|path| path.way).collect::<Vec<_>>())
        };
        let (tunnel, direct) = (|| Ok(path(Way::Tunnel)), || Ok(path(Way::Direct)));
        let failed = || Err("no route".to_owned());
        assert_eq!(ways(tunnel(), None).await, Ok(vec![Way::Tunnel]));
        let whole = Ok(vec![Way::Tunnel, Way::Direct]);
        assert_eq!(ways(tunnel(), Some(direct())).await, whole);
        assert_eq!(ways(tunnel(), Some(failed())).await, Ok(vec![Way::Tunnel]));
        assert!(ways(failed(), Some(direct())).await.is_err());
    }

    #[test]
    fn a_history_that_cannot_be_read_or_written_is_told() {
        let nowhere = Path::new("/proc/cygnet/speedtest.jsonl");
        let run = Run {
            at: 0,
            tunnel: "home".to_owned(),
            seconds: 3,
            streams: 1,
            paths: Vec::new(),
        };
        let error = keep(nowhere, &run).unwrap_err();
        assert!(error.starts_with("cannot write /proc/cygnet"), "{error}");
    }
}
