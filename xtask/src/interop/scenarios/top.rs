//! `cygnet top` on a terminal: what a person sees there while tunnels carry, fail and come back, and that the terminal
//! is afterwards as it was before, whatever ends it.

use super::super::Scenario;
use super::super::flow::Flow;
use super::super::pair::{Pair, SOON};
use super::super::plan::{NET, OFFICE, Plan, Role};
use super::super::resilience::home::{Home, QUICK, gateway_setup};
use crate::ensure;
use crate::lab::cygnet::Cygnet;
use crate::lab::terminal::Terminal;
use crate::lab::traffic::ping;
use crate::lab::{Exec, Failure, Lab, Process, Result, wait_for};
use crate::project;
use rustix::process::Signal;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "top-tunnel",
            "`cygnet top` shows a tunnel, its rate and its new keys, and comes back when the engine and Cygnet were killed",
            tunnel,
        ),
        Scenario::new(
            "top-terminal",
            "keys, SIGTERM, SIGHUP and a closed window end `cygnet top`, and leave the terminal as it was",
            terminal,
        ),
        Scenario::new(
            "top-devices",
            "`cygnet top` shows the LAN's devices with their policies",
            devices,
        ),
    ]
}

/// What ends it.
const QUIT: &str = "q";
const ESCAPE: &str = "\u{1b}";
const CONTROL_C: &str = "\u{3}";
const CONTROL_Z: &str = "\u{1a}";

/// `cygnet top`, several times a second.
fn start(cygnet: &Cygnet, terminal: &Terminal) -> Result<Process> {
    let (program, socket) = (project::cygnet(), cygnet.socket());
    let command = Exec::new([
        &*program.to_string_lossy(),
        "top",
        "--interval",
        "0.3",
        "--socket",
        &*socket.to_string_lossy(),
    ]);
    terminal.start(cygnet.namespace().place(command), "cygnet top")
}

/// The line of the only tunnel, once it is as wished.
fn wait_for_tunnel(
    terminal: &Terminal,
    what: &str,
    is: impl Fn(&[&str]) -> bool,
) -> Result<String> {
    terminal.wait_for_line_where(what, SOON, |line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.starts_with(&[">", OFFICE]) && is(words.get(2..).unwrap_or_default())
    })
}

/// `["up", "10", "Mbit/s", "10", "Mbit/s", …]`: some 10 Mbit/s in each direction, which is what flows.
fn carries(words: &[&str]) -> bool {
    let megabits = |at: usize| {
        let number = words.get(at).and_then(|word| word.parse::<f64>().ok());
        let unit = words.get(at + 1).copied();
        number.is_some_and(|number| number > 1.0) && unit == Some("Mbit/s")
    };
    words.first() == Some(&"up") && megabits(1) && megabits(3)
}

fn tunnel(lab: &mut Lab) -> Result<String> {
    let plan = Plan::shared_key(Role::Initiator)
        .cygnet_line("start = \"always\"")
        .cygnet_line("liveness = \"1s\"");
    let mut pair = Pair::start(lab, plan)?;
    pair.wait_for_child(NET)?;
    let terminal = Terminal::open((80, 24))?;
    let before = terminal.modes()?;
    let mut top = start(&pair.cygnet, &terminal)?;
    wait_for_tunnel(&terminal, "that nothing flows", |words| {
        words.starts_with(&["up", "0", "bit/s", "0", "bit/s"])
    })?;
    ensure!(
        terminal.is_taken() && terminal.modes()? != before,
        "`top` did not take the terminal"
    );

    let (near, far) = (pair.near(), pair.far());
    let flow = Flow::start((&near.host, near.host4), (&far.host, far.host4), 10)?;
    let flowing = wait_for_tunnel(&terminal, "a rate", carries)?;
    terminal.wait_for_line(&["in", "Mbit/s, scale to"], SOON)?;
    terminal.wait_for_line_where("a graph", SOON, |line| {
        line.contains(['█', '▁']) && !line.contains("bit/s")
    })?;
    // Into the tunnel, and for nobody that a policy takes.
    let tun = "cyg-office";
    pair.near()
        .gateway
        .ip(&format!("route add 10.77.0.0/24 dev {tun}"))?;
    let lost = ping(&pair.near().gateway, "10.77.0.1", 10)?;
    ensure!(lost.received == 0, "10.77.0.1 answers");
    terminal.wait_for_line_where("what was dropped", SOON, |line| {
        let mut words = line
            .split_whitespace()
            .skip_while(|word| *word != "no-policy")
            .skip(1);
        line.starts_with("dropped") && words.next().and_then(|n| n.parse().ok()) >= Some(10)
    })?;
    pair.cygnet.request(OFFICE, "rekey", Some(NET))?;
    wait_for_tunnel(&terminal, "new keys", |words| {
        carries(words) && words.get(5..) == Some(&["1", "1"])
    })?;
    terminal.wait_for_line(&["new keys: 1 Child SA, 0 IKE SAs"], SOON)?;
    pair.cygnet.request(OFFICE, "rekey", None)?;
    terminal.wait_for_line(&["new keys: 1 Child SA, 1 IKE SA"], SOON)?;
    flow.finish()?;

    // A new engine counts from nothing, and nothing is negative or beyond all measure.
    pair.cygnet.kill_engine()?;
    terminal.wait_for_line(&["engine restarted 1 times"], SOON)?;
    wait_for_tunnel(&terminal, "the tunnel of the new engine", |words| {
        words.starts_with(&["up", "0", "bit/s", "0", "bit/s", "0"])
    })?;
    terminal.type_keys("h")?;
    terminal.wait_for_line(&["what happened to office"], SOON)?;
    terminal.wait_for_line(&["down", "the engine ended (signal 9)"], SOON)?;
    terminal.type_keys("h")?;

    pair.cygnet.kill_supervisor()?;
    terminal.wait_for_line(&["cannot reach"], SOON)?;
    terminal.wait_for_line(&["trying again every 0.3 s"], SOON)?;
    pair.cygnet.restart()?;
    wait_for_tunnel(&terminal, "the tunnel again", |words| {
        words.first() == Some(&"up")
    })?;

    terminal.type_keys(QUIT)?;
    let ended = top.wait(SOON)?;
    ensure!(ended.success(), "`top` ended with {ended}");
    as_before(&terminal, &before)?;
    once(&pair)?;
    Ok(flowing)
}

/// One frame for a pipe; none without a cygnet, and none on what is no terminal.
fn once(pair: &Pair) -> Result<()> {
    let frame = pair
        .cygnet
        .command(&["top", "--once", "--interval", "0.2"])?;
    ensure!(
        frame
            .lines()
            .any(|line| line.starts_with(&format!("> {OFFICE}")) && line.contains(" up ")),
        "--once prints {frame}"
    );
    ensure!(
        !frame.contains(|c: char| c.is_control() && c != '\n'),
        "--once steers the terminal: {frame:?}"
    );
    let refused = pair.cygnet.control(&["top"])?;
    ensure!(
        refused.status.code() == Some(2) && refused.stderr.contains("--once"),
        "without a terminal: {refused:?}"
    );
    let nobody = pair.cygnet.directory().join("nobody.sock");
    let program = project::cygnet();
    let nobody = pair.cygnet.namespace().finish([
        &*program.to_string_lossy(),
        "top",
        "--once",
        "--socket",
        &*nobody.to_string_lossy(),
    ])?;
    ensure!(
        nobody.status.code() == Some(1) && nobody.stderr.contains("is cygnet running?"),
        "without a cygnet: {nobody:?}"
    );
    Ok(())
}

/// The terminal belongs to nobody, and treats keys as before.
fn as_before(terminal: &Terminal, before: &str) -> Result<()> {
    wait_for("the terminal is as before", SOON, || {
        let same = !terminal.is_taken() && terminal.modes()? == before;
        Ok(same.then_some(()))
    })
    .map_err(|failure| {
        let now = terminal.modes().unwrap_or_default();
        Failure::new(format!("{failure}: it was\n{before}\nand is\n{now}"))
    })
}

fn terminal(lab: &mut Lab) -> Result<String> {
    let pair = Pair::connected(lab, Plan::shared_key(Role::Initiator))?;
    let terminal = Terminal::open((80, 24))?;
    let before = terminal.modes()?;
    let up = |terminal: &Terminal| {
        wait_for_tunnel(terminal, "the tunnel", |words| words.first() == Some(&"up"))
    };
    for keys in [QUIT, ESCAPE, CONTROL_C] {
        let mut top = start(&pair.cygnet, &terminal)?;
        up(&terminal)?;
        terminal.type_keys(keys)?;
        let ended = top.wait(SOON)?;
        ensure!(ended.success(), "after {keys:?} `top` ended with {ended}");
        as_before(&terminal, &before)?;
    }
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let mut top = start(&pair.cygnet, &terminal)?;
        up(&terminal)?;
        top.signal(signal)?;
        let ended = top.wait(SOON)?;
        ensure!(ended.success(), "after {signal:?} `top` ended with {ended}");
        as_before(&terminal, &before)?;
    }

    let mut top = start(&pair.cygnet, &terminal)?;
    up(&terminal)?;
    // The first of a sequence that never comes stops nothing.
    terminal.type_keys("\u{1b}[")?;
    terminal.resize((40, 10))?;
    terminal.wait_for_line_where("keys for few columns", SOON, |line| {
        line.trim_end() == "q quit  ? help"
    })?;
    up(&terminal)?;
    terminal.resize((200, 60))?;
    terminal.wait_for_line(&["+ - interval"], SOON)?;
    up(&terminal)?;
    // Ends the sequence, whatever it then means.
    terminal.type_keys("Z")?;
    terminal.type_keys("?")?;
    terminal.wait_for_line(&["Ctrl-Z", "suspend"], SOON)?;
    terminal.type_keys("x")?;
    up(&terminal)?;
    terminal.type_keys("p")?;
    terminal.wait_for_line(&["cygnet PAUSED"], SOON)?;
    terminal.type_keys("p++")?;
    terminal.wait_for_line_where("a longer interval", SOON, |line| {
        line.starts_with("cygnet") && line.contains("every 1 s") && !line.contains("PAUSED")
    })?;
    // No shell is there to continue it: it takes the terminal again.
    terminal.type_keys(CONTROL_Z)?;
    terminal.type_keys("-")?;
    terminal.wait_for_line(&["every 0.5 s"], SOON)?;
    ensure!(terminal.is_taken(), "`top` did not take the terminal again");
    drop(terminal);
    top.wait(SOON)?;
    suspended(&pair)?;
    Ok("three keys, three signals, a closed window, and a shell's job control".to_owned())
}

/// As a shell suspends and continues it.
fn suspended(pair: &Pair) -> Result<()> {
    let terminal = Terminal::open((80, 24))?;
    let (program, socket) = (project::cygnet(), pair.cygnet.socket());
    // A prompt of nothing else, and no line editor that has modes of its own.
    let shell =
        Exec::new(["bash", "--norc", "--noprofile", "--noediting", "-i"]).env("PS1", "ready$ ");
    let mut shell = terminal.start(pair.cygnet.namespace().place(shell), "bash")?;
    let ready = |times: usize| {
        wait_for("the shell is ready", SOON, || {
            let text = terminal.text();
            Ok((text.matches("ready$").count() >= times).then_some(()))
        })
        .map_err(|failure| Failure::new(format!("{failure}: {}", terminal.text())))
    };
    ready(1)?;
    let before = terminal.modes()?;
    terminal.type_keys(&format!(
        "{} top --interval 0.3 --socket {}\r",
        program.display(),
        socket.display()
    ))?;
    wait_for_tunnel(&terminal, "the tunnel", |words| {
        words.first() == Some(&"up")
    })?;
    terminal.type_keys(CONTROL_Z)?;
    terminal.wait_for_line(&["Stopped"], SOON)?;
    ready(2)?;
    as_before(&terminal, &before)?;
    terminal.type_keys("fg\r")?;
    wait_for_tunnel(&terminal, "the tunnel again", |words| {
        words.first() == Some(&"up")
    })?;
    ensure!(terminal.is_taken(), "`top` did not take the terminal again");
    terminal.type_keys(QUIT)?;
    ready(3)?;
    as_before(&terminal, &before)?;
    terminal.type_keys("exit\r")?;
    shell.wait(SOON)?;
    Ok(())
}

fn devices(lab: &mut Lab) -> Result<String> {
    let home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    let terminal = Terminal::open((120, 30))?;
    let mut top = start(&home.gateway, &terminal)?;
    terminal.wait_for_line(&["cygnet", "guard on"], SOON)?;
    terminal.type_keys("d")?;
    terminal.wait_for_line(&["DEVICE", "GOES", "ADDRESSES"], SOON)?;
    terminal.wait_for_line(&["tunnelled", "default", "192.168.1."], SOON)?;
    home.gateway
        .command(&["device", "set", "192.168.1.77", "blocked"])?;
    let blocked = terminal.wait_for_line(&["192.168.1.77", "blocked", "command"], SOON)?;
    terminal.type_keys("q")?;
    let ended = top.wait(SOON)?;
    ensure!(ended.success(), "`top` ended with {ended}");
    Ok(blocked.trim().to_owned())
}
