//! `cargo xtask bench --memory`: what a further tunnel costs.
//!
//! A server and its clients, all of their tunnels up and idle: first one, then a thousand. The clients
//! are a few Cygnets with many tunnels each. What is told is the peak (VmHWM) of supervisor and engine,
//! so that what is only needed while tunnels come up counts as well.

use crate::lab::cygnet::{Cygnet, Setup, Status};
use crate::lab::{Context, End, Failure, Lab, Namespace, Result, Switch, interrupt, wait_for};
use std::fmt::Write;
use std::fs;
use std::time::Duration;

/// Cygnets that call, and how many tunnels each of them has then.
const CALLERS: u32 = 20;
const TUNNELS_EACH: u32 = 50;
/// Fifty key exchanges on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

const PSK: &str = "the same for all of them";

/// A process at one end, with few tunnels and with many; memory in KiB.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Row {
    end: &'static str,
    process: &'static str,
    further_tunnels: u32,
    one: u64,
    many: u64,
}

impl Row {
    /// What each further tunnel adds.
    fn further(self) -> f64 {
        self.many.saturating_sub(self.one) as f64 / f64::from(self.further_tunnels)
    }
}

/// Peak memory in KiB.
#[derive(Debug, Clone, Copy)]
struct Memory {
    supervisor: u64,
    engine: u64,
}

/// Measures and prints.
pub(super) fn run(json: bool) -> Result<bool> {
    let one = measure(1, 1)?;
    let many = measure(CALLERS, TUNNELS_EACH)?;
    let mut rows = rows("server", CALLERS * TUNNELS_EACH - 1, one.0, many.0);
    rows.extend(self::rows("client", TUNNELS_EACH - 1, one.1, many.1));
    if json {
        rows.iter().for_each(|row| println!("{}", line(*row)));
    } else {
        print!("{}", table(&rows));
    }
    Ok(true)
}

/// The server's memory and that of one caller, once all tunnels are up.
fn measure(callers: u32, each: u32) -> Result<(Memory, Memory)> {
    let lab = Lab::new()?;
    let switch = Switch::on(lab.host("switch")?)?;
    let host = |name: &str, address: &str| -> Result<Namespace> {
        let host = lab.router(name)?;
        switch.plug(&End::new(&host, "wan", &[address]))?;
        Ok(host)
    };
    eprintln!("bringing up {} tunnels", callers * each);
    let server = Cygnet::start(&lab, &host("server", "192.0.2.1/24")?, &server())?;
    let mut calling = Vec::new();
    for number in 0..callers {
        let address = format!("192.0.2.{}/24", 10 + number);
        let host = host(&format!("caller{number}"), &address)?;
        let caller = Cygnet::start(&lab, &host, &caller(number, each))?;
        // One after the other: what is measured is not a storm.
        wait_until_up(&caller, each)?;
        calling.push(caller);
    }
    wait_until_up(&server, callers * each)?;
    let [first, ..] = &*calling else {
        return Err(Failure::new("nobody called"));
    };
    Ok((Memory::of(&server)?, Memory::of(first)?))
}

fn wait_until_up(cygnet: &Cygnet, tunnels: u32) -> Result<()> {
    let name = cygnet.namespace().name();
    let mut up = 0;
    wait_for(
        &format!("{tunnels} tunnels are up at {name}"),
        PATIENCE,
        || {
            up = children_up(&cygnet.status()?);
            if up == tunnels as usize {
                return Ok(Some(()));
            }
            interrupt::pause(Duration::from_secs(1))?;
            Ok(None)
        },
    )
    .map_err(|failure| failure.while_doing(format!("{up} are up")))
}

fn server() -> Setup {
    let config = "[server]\nidentity = \"192.0.2.1\"\npsk = \"psk\"\npools = [\"10.96.0.0/16\"]\n\
                  uplink = \"wan\"\nnat = false\n";
    Setup::new(config).file("psk", PSK)
}

fn caller(caller: u32, tunnels: u32) -> Setup {
    let mut config = String::new();
    for number in 0..tunnels {
        let _ = write!(
            config,
            "[tunnel.t{number}]\nremote = \"192.0.2.1\"\nidentity = \"c{caller}-{number}\"\n\
             psk = \"psk\"\nvirtual_address = true\nremote_networks = [\"10.200.{number}.0/24\"]\n"
        );
    }
    Setup::new(config).file("psk", PSK)
}

fn children_up(status: &Status) -> usize {
    let connections = status.engine.iter().flat_map(|engine| &engine.connections);
    connections
        .flat_map(|connection| &connection.ike_sas)
        .flat_map(|sa| &sa.children)
        .filter(|child| child.state == "up")
        .count()
}

impl Memory {
    fn of(cygnet: &Cygnet) -> Result<Self> {
        let processes = cygnet.status()?.processes;
        let engine = processes
            .engine
            .ok_or_else(|| Failure::new("cygnet has no engine at this moment"))?;
        Ok(Self {
            supervisor: peak(processes.supervisor)?,
            engine: peak(engine)?,
        })
    }
}

fn peak(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).context(&path)?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| Failure::new(format!("there is no VmHWM in {path}")))
}

/// Each process of an end, and both together.
fn rows(end: &'static str, further_tunnels: u32, one: Memory, many: Memory) -> Vec<Row> {
    let row = |process, one, many| Row {
        end,
        process,
        further_tunnels,
        one,
        many,
    };
    vec![
        row("supervisor", one.supervisor, many.supervisor),
        row("engine", one.engine, many.engine),
        row(
            "both",
            one.supervisor + one.engine,
            many.supervisor + many.engine,
        ),
    ]
}

fn line(row: Row) -> serde_json::Value {
    serde_json::json!({
        "end": row.end,
        "process": row.process,
        "further_tunnels": row.further_tunnels,
        "one_tunnel_kib": row.one,
        "all_tunnels_kib": row.many,
        "further_tunnel_kib": row.further(),
    })
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| peak RSS, KiB       | 1 tunnel | with further | how many | a further tunnel |\n\
         |---------------------|----------|--------------|----------|------------------|\n",
    );
    for row in rows {
        let name = format!("{}, {}", row.end, row.process);
        let _ = writeln!(
            text,
            "| {name:<19} | {:>8} | {:>12} | {:>8} | {:>16.1} |",
            row.one,
            row.many,
            row.further_tunnels,
            row.further()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_further_tunnel_adds_is_of_both_processes() {
        let one = Memory {
            supervisor: 9_000,
            engine: 8_000,
        };
        let many = Memory {
            supervisor: 10_000,
            engine: 17_000,
        };
        let rows = rows("server", 1000, one, many);
        let further: Vec<f64> = rows.iter().map(|row| row.further()).collect();
        assert_eq!(further, [1.0, 9.0, 10.0]);
        assert!(table(&rows).contains(
            "| server, both        |    17000 |        27000 |     1000 |             10.0 |"
        ));
        assert_eq!(line(rows[2])["further_tunnel_kib"], 10.0);
    }
}
