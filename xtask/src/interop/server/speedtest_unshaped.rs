//! `cygnet speedtest` where no line is slower than the machines: which of the processors it finds to be the limit.

use super::super::Scenario;
use super::super::resilience::home::wait_for_state;
use super::SOON;
use super::speedtest::{client_setup, mbit_s, measured, server_setup, web_server};
use crate::ensure;
use crate::lab::cygnet::Cygnet;
use crate::lab::world::{WEB, World};
use crate::lab::{Exec, Failure, Lab, Namespace, Process, Result, wait_for};
use serde_json::Value;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "speedtest-without-a-line",
            "with no line that is slower than the machines, a processor is found to be the limit of both directions",
            without_a_line,
        ),
        Scenario::new(
            "speedtest-busy-core",
            "of a gateway whose program has to share one core, that core is named as the limit",
            busy_core,
        ),
        Scenario::new(
            "speedtest-upload-urls",
            "an upload is measured by --upload-url through the tunnel, and by --direct-upload-url around it",
            upload_urls,
        ),
    ]
}

/// Both directions of a run.
const DIRECTIONS: [&str; 2] = ["down", "up"];
/// Seconds of each measurement that count.
const SHORT: &str = "3";
/// Where what is uploaded is thrown away.
const SINK: u16 = 8081;

/// Both ends, and the tunnel up.
struct Ends {
    world: World,
    client: Cygnet,
    _server: Cygnet,
}

impl Ends {
    fn start(lab: &Lab) -> Result<Self> {
        let world = World::build(lab)?;
        let server = Cygnet::start(lab, &world.server, &server_setup("speedtest = true\n"))?;
        let client = Cygnet::start(lab, &world.gateway, &client_setup())?;
        wait_for_state(&client, "home", "up")?;
        Ok(Self {
            world,
            client,
            _server: server,
        })
    }
}

/// Takes what anybody sends, and says nothing.
fn sink(on: &Namespace) -> Result<Process> {
    let script = "import socket, sys, threading
def drain(connection):
    buffer = bytearray(1 << 18)
    while connection.recv_into(buffer):
        pass
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
while True:
    threading.Thread(target=drain, args=(listener.accept()[0],), daemon=True).start()
";
    let port = SINK.to_string();
    let process = on.spawn(["python3", "-c", script, WEB, &port])?;
    wait_for("the sink listens", SOON, || {
        Ok(on.listens_tcp(SINK)?.then_some(()))
    })?;
    Ok(process)
}

/// What a run finds to be the limit of a direction through the tunnel.
fn limit<'a>(run: &'a Value, direction: &str) -> Result<&'a str> {
    let limit = run["paths"][0][direction]["limit"]["is"].as_str();
    limit.ok_or_else(|| Failure::new(format!("there is no limit for {direction}: {run}")))
}

fn without_a_line(lab: &mut Lab) -> Result<String> {
    let ends = Ends::start(lab)?;
    let run = measured(&ends.client, &["home", "--seconds", SHORT])?;
    let mut seen = Vec::new();
    for direction in DIRECTIONS {
        let is = limit(&run, direction)?;
        ensure!(
            ["thread", "cpu", "server"].contains(&is),
            "the limit of {direction} is said to be {is}, where there is no line: {run}"
        );
        let rate = mbit_s(&run, 0, direction)?;
        seen.push(format!("{direction} {rate:.0} Mbit/s by {is}"));
    }
    Ok(seen.join(", "))
}

fn busy_core(lab: &mut Lab) -> Result<String> {
    let ends = Ends::start(lab)?;
    let processes = ends.client.status()?.processes;
    let engine = processes
        .engine
        .ok_or_else(|| Failure::new("there is no engine"))?;
    for pid in [processes.supervisor, engine] {
        Exec::new(["taskset", "--all-tasks", "--cpu-list", "--pid", "0"])
            .arg(pid.to_string())
            .run()?;
    }
    let gateway = ends.client.namespace();
    let _hog = gateway.spawn([
        "taskset",
        "--cpu-list",
        "0",
        "sh",
        "-c",
        "while :; do :; done",
    ])?;
    let run = measured(&ends.client, &["home", "--seconds", SHORT])?;
    let mut seen = Vec::new();
    for direction in DIRECTIONS {
        let is = limit(&run, direction)?;
        ensure!(
            ["thread", "cpu"].contains(&is),
            "the limit of {direction} is said to be {is}, where one core is full: {run}"
        );
        seen.push(format!("{direction} {is}"));
    }
    Ok(seen.join(", "))
}

fn upload_urls(lab: &mut Lab) -> Result<String> {
    let ends = Ends::start(lab)?;
    let _web = web_server(lab, &ends.world.web, WEB)?;
    let _sink = sink(&ends.world.web)?;
    let file = format!("http://{WEB}:8080/big");
    let sink = format!("http://{WEB}:{SINK}/");
    let run = measured(
        &ends.client,
        &[
            "home",
            "--url",
            &file,
            "--upload-url",
            &sink,
            "--direct-url",
            &file,
            "--direct-upload-url",
            &sink,
            "--seconds",
            SHORT,
        ],
    )?;
    let mut seen = Vec::new();
    for (path, way) in ["tunnel", "direct"].into_iter().enumerate() {
        ensure!(
            run["paths"][path]["way"] == way,
            "way {path} is not {way}: {run}"
        );
        let (down, up) = (mbit_s(&run, path, "down")?, mbit_s(&run, path, "up")?);
        ensure!(down > 1.0 && up > 1.0, "by {way}: {run}");
        seen.push(format!("{way} {down:.0} down, {up:.0} up"));
    }
    Ok(seen.join("; "))
}
