//! What the bench runs and Debian does not have: the probe, the load generator, and the peers from
//! crates.io. All of it lies in `target/bench`.

use super::script;
use crate::lab::{Context, Exec, Failure, Result};
use crate::project;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// A peer from crates.io, always the same version, with the versions of its own lock file.
struct Peer {
    contender: &'static str,
    package: &'static str,
    version: &'static str,
    program: &'static str,
}

const PEERS: [Peer; 2] = [
    Peer {
        contender: "gotatun",
        package: "gotatun-cli",
        version: "0.10.2",
        program: "gotatun",
    },
    Peer {
        contender: "boringtun",
        package: "boringtun-cli",
        version: "0.7.1",
        program: "boringtun-cli",
    },
];

/// A peer is a few hundred crates.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Where the programs are.
pub(super) fn folder() -> PathBuf {
    target().join("bin")
}

fn target() -> PathBuf {
    project::target().join("bench")
}

/// Builds what these contenders need, as far as it is not there. A peer that cannot be built is told and
/// left out: the run then says that it did not come up.
pub(super) fn build(contenders: &[String]) -> Result<()> {
    fs::create_dir_all(folder()).context("cannot make target/bench/bin")?;
    load_generator()?;
    if contenders.iter().any(|name| name.starts_with("probe")) {
        probe()?;
    }
    let wanted = |peer: &&Peer| contenders.iter().any(|name| name == peer.contender);
    for peer in PEERS.iter().filter(wanted) {
        if let Err(failure) = peer.install() {
            eprintln!("{}: {failure}", peer.package);
        }
    }
    Ok(())
}

fn load_generator() -> Result<()> {
    let program = folder().join("udpload");
    Exec::new(["gcc", "-O2", "-o", &*program.to_string_lossy()])
        .arg(script("load/udpload.c"))
        .run()
        .map(drop)
}

/// With its own lock file and profile, in a directory of its own.
fn probe() -> Result<()> {
    let target = target().join("probe");
    let mut command = project::cargo();
    let status = command
        .args(["build", "--release", "--locked", "--quiet"])
        .args(["--manifest-path", &script("probe/Cargo.toml")])
        .env("CARGO_TARGET_DIR", &target)
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        return Err(Failure::new("the probe could not be built, see above"));
    }
    fs::copy(target.join("release/esp-probe"), folder().join("esp-probe"))?;
    Ok(())
}

impl Peer {
    fn install(&self) -> Result<()> {
        let root = target().join(format!("{}-{}", self.package, self.version));
        let program = root.join("bin").join(self.program);
        if !program.exists() {
            eprintln!("installing {} {}", self.package, self.version);
            let cargo = project::cargo();
            Exec::new([cargo.get_program().to_string_lossy()])
                .arg("install")
                .arg("--quiet")
                .arg("--locked")
                .arg(format!("{}@{}", self.package, self.version))
                .arg(format!("--root={}", root.display()))
                .arg(format!("--target-dir={}", target().join("peers").display()))
                .patience(PATIENCE)
                .run()?;
        }
        fs::copy(&program, folder().join(self.program))?;
        Ok(())
    }
}
