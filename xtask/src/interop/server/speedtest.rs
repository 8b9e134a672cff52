//! `cygnet speedtest`: its figures beside iperf3's, and who reaches what it measures at.

use super::super::Scenario;
use super::super::confined::{expect_unprivileged, process_named};
use super::super::pair::Pair;
use super::super::plan::{ChildPlan, NET, OFFICE, Plan, Role};
use super::super::resilience::home::wait_for_state;
use super::{SECRET, SOON, device, world};
use crate::ensure;
use crate::lab::cygnet::{Cygnet, Setup};
use crate::lab::offices::{Nat, Offices};
use crate::lab::world::{HOME_PUBLIC, SERVER, WEB, World};
use crate::lab::{Context, Exec, Failure, Finished, Lab, Namespace, Process, Result, wait_for};
use crate::project;
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "speedtest-as-iperf3",
            "through a line of 40 and 15 Mbit/s the speed test's figures are iperf3's, within 10 %; around the tunnel \
             it says that the line is the limit",
            as_iperf3,
        ),
        Scenario::new(
            "speedtest-inside-alone",
            "clients reach the speed test's endpoint even where they reach nothing else of the server, and nobody else \
             does; it is unprivileged, and ends with its configuration and with its supervisor",
            inside_alone,
        ),
        Scenario::new(
            "speedtest-strongswan-server",
            "a strongSwan server has no speed test, which is told; against a file behind it speed is measured",
            strongswan_server,
        ),
    ]
}

/// The endpoint.
const PORT: u16 = 25465;
/// The server's own addresses inside.
const INSIDE: [&str; 2] = ["10.99.0.1", "fd99::1"];
/// The line of the home, in Mbit/s: slow enough for two cores that do much else.
const LINE: [(&str, u32); 2] = [("down", 40), ("up", 15)];
/// Measurements of each program, in turns.
const ROUNDS: usize = 3;
/// Seconds of each measurement that count.
const SECONDS: u16 = 5;
/// How far the medians may be apart.
const APART: f64 = 0.1;
/// From this share of its time on a machine does too much for its line to be sure to be the limit.
const HALF_BUSY: f64 = 0.5;
/// For a run with two ways.
const PATIENCE: Duration = Duration::from_secs(150);

pub(super) fn server_setup(lines: &str) -> Setup {
    Setup::new(format!(
        "[server]
identity = \"vpn.lab\"
psk = \"psk\"
pools = [\"10.99.0.0/24\", \"fd99::/112\"]
{lines}"
    ))
    .file("psk", format!("{SECRET}\n"))
}

/// The box as a client whose own traffic goes through the tunnel.
pub(super) fn client_setup() -> Setup {
    Setup::new(format!(
        "[tunnel.home]
remote = \"{SERVER}\"
remote_identity = \"vpn.lab\"
identity = \"box.lab\"
psk = \"psk\"
virtual_address = true
"
    ))
    .file("psk", format!("{SECRET}\n"))
}

/// `cygnet speedtest …`, whatever comes of it.
fn speedtest(cygnet: &Cygnet, arguments: &[&str]) -> Result<Finished> {
    let (program, socket) = (project::cygnet(), cygnet.socket());
    let (program, socket) = (program.to_string_lossy(), socket.to_string_lossy());
    let argv = [&*program, "speedtest"]
        .into_iter()
        .chain(arguments.iter().copied())
        .chain(["--socket", &*socket]);
    let command = Exec::new(argv).patience(PATIENCE);
    cygnet.namespace().place(command).finish()
}

/// What `cygnet speedtest … --json` says.
pub(super) fn measured(cygnet: &Cygnet, arguments: &[&str]) -> Result<Value> {
    let finished = speedtest(cygnet, &[arguments, &["--json"]].concat())?;
    ensure!(
        finished.success(),
        "cygnet speedtest {}: {}{}",
        arguments.join(" "),
        finished.stdout,
        finished.stderr
    );
    serde_json::from_str(&finished.stdout).context(finished.stdout)
}

/// A large file on a web server; what the process logs says who fetched it.
pub(super) fn web_server(lab: &Lab, on: &Namespace, address: &str) -> Result<Process> {
    let directory = lab.subdirectory("files")?;
    let big = fs::File::create(directory.join("big"))?;
    big.set_len(4 << 30)?;
    let directory = directory.to_string_lossy();
    let server = on.spawn([
        "python3",
        "-u",
        "-m",
        "http.server",
        "8080",
        "--bind",
        address,
        "--directory",
        &*directory,
    ])?;
    wait_for("a web server listens", SOON, || {
        Ok(on.listens_tcp(8080)?.then_some(()))
    })?;
    Ok(server)
}

fn as_iperf3(lab: &mut Lab) -> Result<String> {
    let world = World::build(lab)?;
    for (host, interface, mbit_s) in [
        (&world.internet, "home", LINE[0].1),
        (&world.router, "wan", LINE[1].1),
    ] {
        host.exec([
            "tc",
            "qdisc",
            "replace",
            "dev",
            interface,
            "root",
            "tbf",
            "rate",
            &format!("{mbit_s}mbit"),
            "burst",
            "32kb",
            "latency",
            "60ms",
        ])?;
    }
    let web = web_server(lab, &world.web, WEB)?;
    let _server = Cygnet::start(lab, &world.server, &server_setup("speedtest = true\n"))?;
    let client = Cygnet::start(lab, &world.gateway, &client_setup())?;
    wait_for_state(&client, "home", "up")?;

    let (picture, file) = (
        lab.directory().join("run.svg"),
        format!("http://{WEB}:8080/big"),
    );
    let picture_name = picture.to_string_lossy();
    let seconds = SECONDS.to_string();
    let whole = ["--direct-url", &file, "--svg", &*picture_name];
    let whole = measured(&client, &[&whole[..], &["--seconds", &*seconds]].concat())?;
    around_the_tunnel(&whole, &web)?;
    let drawn = fs::read_to_string(&picture)?;
    ensure!(
        drawn.starts_with("<svg") && drawn.matches("<polyline").count() == 3,
        "the plot is {drawn}"
    );

    let _iperf = world.server.spawn(["iperf3", "-s", "-B", INSIDE[0]])?;
    wait_for("iperf3 listens", SOON, || {
        Ok(world.server.listens_tcp(5201)?.then_some(()))
    })?;
    let (mut ours, mut theirs) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let mut run = whole;
    for round in 0..ROUNDS {
        if round > 0 {
            run = measured(&client, &["home", "--seconds", &*seconds])?;
        }
        for (n, (direction, _)) in LINE.into_iter().enumerate() {
            ours[n].push(mbit_s(&run, 0, direction)?);
            theirs[n].push(iperf(client.namespace(), direction)?);
        }
    }
    let mut seen = Vec::new();
    for (n, (direction, line)) in LINE.into_iter().enumerate() {
        let (ours, theirs) = (median(&mut ours[n]), median(&mut theirs[n]));
        let agree = (ours / theirs - 1.0).abs() <= APART;
        ensure!(
            agree,
            "{direction}: cygnet says {ours:.2} Mbit/s, iperf3 {theirs:.2}"
        );
        ensure!(
            (0.6..1.05).contains(&(theirs / f64::from(line))),
            "{direction}: a line of {line} Mbit/s carries {theirs:.2}"
        );
        seen.push(format!("{direction} {ours:.2} and {theirs:.2} Mbit/s"));
    }
    let history = speedtest(&client, &["--history"])?.stdout;
    ensure!(
        history.lines().count() == ROUNDS + 1 && history.contains("home"),
        "the history is {history}"
    );
    Ok(format!(
        "medians of {ROUNDS}, cygnet's and iperf3's: {}",
        seen.join(", ")
    ))
}

/// Both ways were measured, and the line is found to be the limit, unless a processor was.
fn around_the_tunnel(run: &Value, web: &Process) -> Result<()> {
    let ways: Vec<&Value> = (0..2).map(|n| &run["paths"][n]["way"]).collect();
    ensure!(ways == ["tunnel", "direct"], "measured: {run}");
    let (tunnel, direct) = (mbit_s(run, 0, "down")?, mbit_s(run, 1, "down")?);
    let down = &run["paths"][0]["down"];
    let promised = limit(down, direct)?;
    ensure!(
        down["limit"] == promised,
        "the limit is said to be {}, and by the figures it is {promised}: {run}",
        down["limit"]
    );
    // What the machine does beside it may slow the one way down, and not the other.
    let busiest = ["cpu", "server_cpu"].map(|whose| down[whose]["busiest"].as_f64());
    if busiest.iter().all(|busy| *busy < Some(HALF_BUSY)) {
        ensure!(
            promised["is"] == "line" && (0.8..1.2).contains(&(direct / tunnel)),
            "on idle machines, {tunnel} Mbit/s through the tunnel, {direct} around it: {run}"
        );
    }
    for latency in [&run["paths"][0]["idle"], &down["latency"]] {
        ensure!(
            latency["samples"].as_u64() > Some(20) && latency["p50_ms"].as_f64() > Some(0.0),
            "round trips: {run}"
        );
    }
    let log = web.log();
    ensure!(
        log.contains(HOME_PUBLIC) && !log.contains(SERVER),
        "around the tunnel the file was fetched by {log}"
    );
    Ok(())
}

/// The limit of a direction as docs/speedtest.md has it.
fn limit(direction: &Value, direct_mbit_s: f64) -> Result<Value> {
    let figure = |figure: &Value| {
        let missing = || Failure::new(format!("a figure is missing: {direction}"));
        figure.as_f64().ok_or_else(missing)
    };
    let thread = figure(&direction["thread"])?;
    if thread >= 0.9 {
        return Ok(json!({ "is": "thread", "busy": thread }));
    }
    for (is, whose) in [("cpu", "cpu"), ("server", "server_cpu")] {
        for (cores, full) in [("busiest", 0.9), ("all", 0.85)] {
            let busy = figure(&direction[whose][cores])?;
            if busy >= full {
                return Ok(json!({ "is": is, "busy": busy, "cores": cores }));
            }
        }
    }
    let is = match figure(&direction["mbit_s"])? >= 0.85 * direct_mbit_s {
        true => "line",
        false => "path",
    };
    Ok(json!({ "is": is, "direct_mbit_s": direct_mbit_s }))
}

pub(super) fn mbit_s(run: &Value, path: usize, direction: &str) -> Result<f64> {
    let figure = run["paths"][path][direction]["mbit_s"].as_f64();
    figure.ok_or_else(|| Failure::new(format!("there is no figure for {direction}: {run}")))
}

/// Mbit/s of four streams, without the first two seconds, as the receiver counts.
fn iperf(client: &Namespace, direction: &str) -> Result<f64> {
    let seconds = SECONDS.to_string();
    let mut argv = vec![
        "iperf3", "-J", "-c", INSIDE[0], "-P", "4", "-O", "2", "-t", &*seconds,
    ];
    if direction == "down" {
        argv.push("-R");
    }
    let report = client.place(Exec::new(argv).patience(PATIENCE)).run()?;
    let parsed: Value = serde_json::from_str(&report)?;
    let bits = parsed["end"]["sum_received"]["bits_per_second"].as_f64();
    bits.map(|bits| bits / 1e6)
        .ok_or_else(|| Failure::new(format!("iperf3 reported no throughput: {report}")))
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn inside_alone(lab: &mut Lab) -> Result<String> {
    let world = world(lab)?;
    let router = &world.server_router;
    for (inside, outside) in INSIDE.into_iter().zip([SERVER, "2001:db8:18::18"]) {
        router.ip(&format!("route add {inside} via {outside}"))?;
    }
    let with = server_setup("host_access = false\nspeedtest = true\n");
    let mut server = Cygnet::start(lab, &world.server, &with)?;
    let other = project::own_command(&["webhost", "--listen", "[::]:8080"]);
    let _other = world.server.spawn_exec(other)?;
    let (_swan, lent) = device(lab, &world.laptop, "192.168.1.20")?;
    ensure!(lent.len() == 2, "the laptop was lent {lent:?}");

    wait_for("the laptop reaches the endpoint", SOON, || {
        let reached = answers(&world.laptop, PORT)?;
        Ok((reached == [true, true]).then_some(()))
    })?;
    let reached = answers(&world.laptop, 8080)?;
    ensure!(
        reached == [false, false],
        "the laptop reaches other services of the server: {reached:?}"
    );
    let reached = answers(router, PORT)?;
    ensure!(
        reached == [false, false],
        "the endpoint is reached from outside: {reached:?}"
    );
    // A port that nobody listens at.
    ensure!(
        ended(router, SERVER, PORT)? == REFUSED,
        "it listens outside"
    );
    without_the_filter(&world)?;
    let process = endpoint(&world.server)?;
    let process = process.ok_or_else(|| Failure::new("there is no process for the speed test"))?;
    expect_unprivileged(process)?;

    server.write(&server_setup("host_access = false\n"))?;
    server.reload()?;
    wait_for("the endpoint ends with its key", SOON, || {
        Ok(endpoint(&world.server)?.is_none().then_some(()))
    })?;
    ensure!(
        answers(&world.laptop, PORT)? == [false, false],
        "it still answers"
    );
    server.write(&with)?;
    server.reload()?;
    wait_for("the endpoint is there again", SOON, || {
        Ok((answers(&world.laptop, PORT)? == [true, true]).then_some(()))
    })?;
    server.kill_supervisor()?;
    wait_for("the endpoint ends with its supervisor", SOON, || {
        Ok(endpoint(&world.server)?.is_none().then_some(()))
    })?;
    Ok(
        "reached over IPv4 and IPv6 by a client that reaches nothing else, and by nobody else"
            .to_owned(),
    )
}

/// What curl ends with where a connection is refused.
const REFUSED: Option<i32> = Some(7);

/// How curl ends.
fn ended(from: &Namespace, host: &str, port: u16) -> Result<Option<i32>> {
    let host = match host.contains(':') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    };
    let url = format!("http://{host}:{port}/v1/ping");
    let curl = [
        "curl",
        "-s",
        "-g",
        "--max-time",
        "1",
        "-o",
        "/dev/null",
        &url,
    ];
    Ok(from.finish(curl)?.status.code())
}

/// Whether anything answers at the server's address of each family.
fn answers(from: &Namespace, port: u16) -> Result<Vec<bool>> {
    let answer = |host: &str| Ok(ended(from, host, port)? == Some(0));
    INSIDE.into_iter().map(answer).collect()
}

/// With the program's table gone, which it puts back within seconds, the socket itself takes nothing from outside.
fn without_the_filter(world: &World) -> Result<()> {
    wait_for("the endpoint refuses what comes from outside", SOON, || {
        let gone = world
            .server
            .finish(["nft", "delete", "table", "inet", "cygnet"])?;
        let how = ended(&world.server_router, INSIDE[0], PORT)?;
        ensure!(
            how != Some(0),
            "without the filter it is reached from outside"
        );
        Ok((gone.success() && how == REFUSED).then_some(()))
    })
}

/// The process id of the endpoint.
fn endpoint(server: &Namespace) -> Result<Option<u32>> {
    process_named(server, "speedtest-endpoint")
}

fn strongswan_server(lab: &mut Lab) -> Result<String> {
    let mut plan = Plan::shared_key(Role::Initiator).cygnet_line("virtual_address = true");
    plan.swan_pools = vec![("pool4", "10.77.0.0/24")];
    let offices = Offices::build(lab, Nat::None)?;
    let behind = vec![offices.b.lan4.to_owned()];
    plan.children = vec![ChildPlan {
        name: NET.to_owned(),
        cygnet: (Vec::new(), behind.clone()),
        swan: (behind, Vec::new()),
    }];
    let host = offices.b.host4;
    let _web = web_server(lab, &offices.b.host, host)?;
    let pair = Pair::start_in(lab, plan, offices)?;
    pair.connect()?;
    let refused = speedtest(&pair.cygnet, &[OFFICE])?;
    ensure!(
        refused.status.code() == Some(2)
            && refused
                .stderr
                .contains("the server of office names no speed test")
            && refused.stderr.contains("--url"),
        "it ended with {}: {}",
        refused.status,
        refused.stderr
    );
    let file = format!("http://{host}:8080/big");
    let run = measured(&pair.cygnet, &[OFFICE, "--url", &file, "--seconds", "3"])?;
    let down = mbit_s(&run, 0, "down")?;
    ensure!(
        down > 1.0 && run["paths"][0]["up"].is_null() && !run["paths"][0]["idle"].is_null(),
        "measured: {run}"
    );
    let nowhere = format!("http://{host}:8080/nowhere");
    let failed = speedtest(&pair.cygnet, &["--url", &nowhere, "--seconds", "3"])?;
    ensure!(
        failed.status.code() == Some(1) && failed.stderr.contains("/nowhere says `404"),
        "it ended with {}: {}",
        failed.status,
        failed.stderr
    );
    Ok("the sentence says what to do; a file behind it is measured against".to_owned())
}
