//! Where things are in this repository, and how its program is built.

use crate::lab::{Context, Exec, Failure, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The root of the repository.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Names a `cygnet` to use instead of the one built here.
const CYGNET: &str = "CYGNET";

/// How the programs of this run are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// Optimised: what is measured, and what is shown.
    Release,
    /// As `cargo test` builds them for its own tests: a second build of everything costs a test run minutes, and
    /// integer overflows are found in this one. `bench` and `demo` by themselves use the optimised one.
    Test,
}

/// The build that this run uses: the first that was asked for.
static BUILD: OnceLock<Build> = OnceLock::new();

impl Build {
    /// That of this run.
    fn of_this_run() -> Self {
        BUILD.get().copied().unwrap_or(Self::Release)
    }

    fn program(self, name: &str) -> PathBuf {
        let directory = match self {
            Self::Release => "release",
            Self::Test => "debug",
        };
        target().join(directory).join(name)
    }
}

/// Builds `cygnet` and says where it is, in the way of this run: optimised, unless all is built for tests. Nothing is
/// built where the environment names a program in `CYGNET`.
pub fn build_cygnet() -> Result<PathBuf> {
    match std::env::var_os(CYGNET) {
        Some(_) => Ok(cygnet()),
        None => built("cygnet"),
    }
}

/// Builds the simulator and says where it is.
pub fn build_simulator() -> Result<PathBuf> {
    built("cygnet-sim")
}

/// Builds every program and test of the workspace, all at once: built one by one, what they share would be built
/// several times, as each alone needs less of it. It holds for the whole run.
pub fn build_for_tests() -> Result<()> {
    BUILD.get_or_init(|| Build::Test);
    cargo_build(&["test", "--no-run", "--workspace", "--quiet"])
}

fn built(name: &str) -> Result<PathBuf> {
    let build = *BUILD.get_or_init(|| Build::Release);
    if build == Build::Release {
        cargo_build(&["build", "--release", "--quiet", "--package", name])?;
    }
    let path = build.program(name);
    if path.exists() {
        return Ok(path);
    }
    Err(Failure::new(format!("cargo built no {}", path.display())))
}

/// Shows what cargo says.
fn cargo_build(arguments: &[&str]) -> Result<()> {
    let status = cargo().args(arguments).status();
    match status.context("cannot run cargo")?.success() {
        true => Ok(()),
        false => Err(Failure::new(format!(
            "cargo {} failed, see above",
            arguments.join(" ")
        ))),
    }
}

/// Where the built program is.
pub fn cygnet() -> PathBuf {
    if let Some(path) = std::env::var_os(CYGNET) {
        return std::path::absolute(&path).unwrap_or_else(|_| path.into());
    }
    Build::of_this_run().program("cygnet")
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    // The directory may have been chosen by CARGO_TARGET_DIR; this program lies in it.
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors()
        .find(|path| path.join("CACHEDIR.TAG").exists())
        .map_or_else(|| root().join("target"), Path::to_owned)
}

/// Cargo, at the root of the repository.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// This program, to be run again on a host of the lab with a hidden command. Not by its path: a
/// build beside this run may have replaced the file.
fn own_program() -> String {
    format!("/proc/{}/exe", std::process::id())
}

/// This program with a hidden command.
pub fn own_command(arguments: &[&str]) -> Exec {
    let program = own_program();
    let argv = std::iter::once(program.as_str()).chain(arguments.iter().copied());
    Exec::new(argv)
}
