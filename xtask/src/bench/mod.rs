//! `cargo xtask bench`: VPNs side by side, in a network of its own, with a table at the end.
//!
//! What runs and what is computed is in `lab/bench` (`bench.py`, `summarise.py`, a script for each
//! contender), which works without this, too. Here everything it needs is installed and built, its
//! network gets names that are swept when something goes wrong, and the run is started.

mod map;
mod memory;
mod tools;

use crate::lab::{Context, Exec, Failure, Lab, Result, interrupt};
use crate::{ensure, project, setup};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Who is measured when nobody was named; the last is wireguard-go as Debian has it.
const CONTENDERS: &str = "plain,probe,cygnet,strongswan,gotatun,boringtun,wggo-old";

/// Most of a run is waiting for tests whose length was asked for. This only bounds a run that hangs.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// What was asked for on the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    pub repetitions: u32,
    /// Length of each test
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub seconds: u32,
    /// Who is measured, see lab/bench/contenders
    #[arg(long, value_name = "A,B", value_delimiter = ',', default_value = CONTENDERS)]
    pub contenders: Vec<String>,
    /// Only these tests; the beginning of a name is enough
    #[arg(long, value_name = "A,B")]
    pub tests: Option<String>,
    /// One line of JSON for each measurement, and a last one with the table
    #[arg(long)]
    pub json: bool,
    /// Keep the measurements in this file, for lab/bench/summarise.py
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Measure instead what one tunnel and each of a thousand take of memory
    #[arg(long)]
    pub memory: bool,
    /// Measure instead what two offices carry to each other, with networks of their own and with mapped ones
    #[arg(long, conflicts_with = "memory")]
    pub map: bool,
    /// Only install and build what the bench runs
    #[arg(long)]
    pub setup: bool,
}

/// Installs, measures, prints the table.
pub fn run(options: &Options) -> Result<bool> {
    if let Some(unknown) = options
        .contenders
        .iter()
        .find(|name| !folder().join(format!("contenders/{name}.sh")).exists())
    {
        return Err(Failure::new(format!(
            "there is no contender {unknown}; lab/bench/contenders has a script for each"
        )));
    }
    if options.memory || options.map {
        setup::ensure()?;
        project::build_cygnet()?;
        return match options.memory {
            true => memory::run(options.json),
            false => map::run(options.json),
        };
    }
    setup::ensure_with_bench()?;
    tools::build(&options.contenders)?;
    project::build_cygnet()?;
    if options.setup {
        return Ok(true);
    }
    let network = Network::new()?;
    let file = match &options.out {
        Some(path) => std::path::absolute(path)?,
        None => network.lab.directory().join("measurements.jsonl"),
    };
    network.measure(options, &file)?;
    let mut table = vec![script("summarise.py"), file.to_string_lossy().into_owned()];
    table.extend(options.json.then(|| "--json".to_owned()));
    print!("{}", Exec::new(table).run()?);
    Ok(true)
}

/// One short run of Cygnet: the scripts work, traffic passes, CPU and memory of both processes at both
/// ends are seen, and nothing is left behind.
pub fn smoke() -> Result<()> {
    let options = Options {
        repetitions: 1,
        seconds: 1,
        contenders: vec!["cygnet".to_owned()],
        tests: Some("ping_idle,tcp1_fwd".to_owned()),
        json: false,
        out: None,
        memory: false,
        map: false,
        setup: false,
    };
    let network = Network::new()?;
    let file = network.lab.directory().join("measurements.jsonl");
    network.measure(&options, &file)?;
    let lines = std::fs::read_to_string(&file)?;
    let table = Exec::new([script("summarise.py"), file.to_string_lossy().into_owned()]).run()?;
    let all: Vec<Measurement> = lines
        .lines()
        .map(|line| serde_json::from_str(line).context(line))
        .collect::<Result<_>>()?;
    for one in &all {
        let trouble = one.failed.as_ref().or(one.error.as_ref());
        ensure!(trouble.is_none(), "the bench says: {lines}");
        ensure!(one.left.is_empty(), "left behind: {}", one.left.join("; "));
    }
    let [ping, tcp] = &*all else {
        return Err(Failure::new(format!("not two measurements: {lines}")));
    };
    ensure!(ping.lost == Some(0), "pings were lost: {lines}");
    ensure!(tcp.bps.is_some_and(|bps| bps > 0.0), "no traffic: {lines}");
    ensure!(
        tcp.gw_cpu.len() == 2 && tcp.gw_cpu.values().all(Option::is_some),
        "no CPU time of A and B: {lines}"
    );
    ensure!(
        table.contains("TCP, 1 stream, forward"),
        "no table: {table}"
    );
    Ok(())
}

/// A line of `bench.py`, as far as it is looked at here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Measurement {
    failed: Option<String>,
    error: Option<String>,
    left: Vec<String>,
    lost: Option<i64>,
    bps: Option<f64>,
    gw_cpu: BTreeMap<String, Option<f64>>,
}

/// The network of a run; gone, with everybody in it, when dropped.
struct Network {
    lab: Lab,
}

/// The variables that name the hosts, and what the lab calls those.
const HOSTS: [(&str, &str); 4] = [
    ("PF_CL", "cl"),
    ("PF_A", "a"),
    ("PF_B", "b"),
    ("PF_SV", "sv"),
];

impl Network {
    fn new() -> Result<Self> {
        Ok(Self { lab: Lab::new()? })
    }

    /// A command with the variables that `lab/bench/env.sh` leaves as they are.
    fn place(&self, command: Exec) -> Exec {
        let command = HOSTS.iter().fold(command, |command, (variable, host)| {
            command.env(variable, self.lab.full_name(host))
        });
        command
            .env("PF_RUN", self.lab.directory().join("run"))
            .env("PF_BIN", tools::folder())
            .env("CYGNET", project::cygnet())
    }

    fn measure(&self, options: &Options, file: &Path) -> Result<()> {
        let mut command = Exec::new([script("bench.py")])
            .arg(format!("-r{}", options.repetitions))
            .arg(format!("-t{}", options.seconds))
            .arg(format!("-o{}", file.display()));
        if let Some(tests) = &options.tests {
            command = command.arg(format!("--tests={tests}"));
        }
        if options.json {
            command = command.arg("--json");
        }
        for contender in &options.contenders {
            command = command.arg(contender);
        }
        self.place(command.patience(PATIENCE))
            .show()
            .context("the bench")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for (_, host) in HOSTS {
            interrupt::remove_namespace(&self.lab.full_name(host));
        }
    }
}

/// Where the bench's scripts are.
fn folder() -> PathBuf {
    project::root().join("lab/bench")
}

fn script(name: &str) -> String {
    folder().join(name).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arithmetic_of_the_table_is_right() {
        Exec::new([script("test_summarise.py")]).run().unwrap();
    }

    #[test]
    fn every_default_contender_has_a_script() {
        for name in CONTENDERS.split(',') {
            let script = folder().join(format!("contenders/{name}.sh"));
            assert!(script.exists(), "{}", script.display());
        }
    }
}
