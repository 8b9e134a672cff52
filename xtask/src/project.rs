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

/// How the `cygnet` of this run was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// Optimised: what is measured, and what is shown.
    Release,
    /// As `cargo test` has built it already: a second build of everything costs a test run minutes, and
    /// integer overflows are found in this one. `bench` and `demo` by themselves use the optimised one.
    Test,
}

/// The build that this run uses: the first that was asked for.
static BUILD: OnceLock<Build> = OnceLock::new();

impl Build {
    fn directory(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Test => "debug",
        }
    }
}

/// Builds `cygnet`, optimised, and says where it is. Shows what cargo says. Nothing is built where
/// the environment names a program in `CYGNET`, or the run has built one another way.
pub fn build_cygnet() -> Result<PathBuf> {
    build_cygnet_for(Build::Release)
}

/// The same, built the way that suits the run. It holds for all of it.
pub fn build_cygnet_for(build: Build) -> Result<PathBuf> {
    if std::env::var_os(CYGNET).is_some() {
        return Ok(cygnet());
    }
    let mut command = cargo();
    command.args(["build", "--quiet", "--package", "cygnet"]);
    if *BUILD.get_or_init(|| build) == Build::Release {
        command.arg("--release");
    }
    let status = command.status().context("cannot run cargo")?;
    if !status.success() {
        return Err(Failure::new("cargo build -p cygnet failed, see above"));
    }
    let path = cygnet();
    if path.exists() {
        return Ok(path);
    }
    Err(Failure::new(format!("cargo built no {}", path.display())))
}

/// Where the built program is.
pub fn cygnet() -> PathBuf {
    if let Some(path) = std::env::var_os(CYGNET) {
        return std::path::absolute(&path).unwrap_or_else(|_| path.into());
    }
    let build = BUILD.get().copied().unwrap_or(Build::Release);
    target().join(build.directory()).join("cygnet")
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
