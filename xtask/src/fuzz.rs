//! `cargo xtask fuzz`: the fuzz targets, two at a time.
//!
//! `tests/fuzz_corpora.rs` replays their corpora.

use crate::lab::{Context, Failure, Result, interrupt};
use crate::project;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Each target is a file here.
const TARGETS: &str = "fuzz/fuzz_targets";
/// How many run at once.
const AT_ONCE: usize = 2;

/// What was asked for on the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Targets to run; all of them where none is named
    pub targets: Vec<String>,
    /// Minutes for each
    #[arg(long, default_value_t = 10)]
    pub minutes: u64,
    /// Print the names of the targets
    #[arg(long)]
    pub list: bool,
}

/// Fuzzes; true when nothing was found.
pub fn run(options: &Options) -> Result<bool> {
    let all = targets()?;
    if options.list {
        all.iter().for_each(|name| println!("{name}"));
        return Ok(true);
    }
    if let Some(unknown) = options.targets.iter().find(|name| !all.contains(name)) {
        return Err(Failure::new(format!(
            "there is no target {unknown}; `cargo xtask fuzz --list` names all"
        )));
    }
    let chosen = if options.targets.is_empty() {
        &all
    } else {
        &options.targets
    };
    ensure_tools()?;
    if !cargo_fuzz(&["build"])
        .status()
        .context("cannot run cargo")?
        .success()
    {
        return Err(Failure::new("cargo fuzz build failed, see above"));
    }
    let mut found = Vec::new();
    let mut waiting = chosen.iter();
    let mut running: Vec<(&String, Child)> = Vec::new();
    loop {
        while running.len() < AT_ONCE
            && let Some(name) = waiting.next()
        {
            running.push((name, start(name, options.minutes)?));
        }
        if running.is_empty() {
            break;
        }
        interrupt::check()?;
        std::thread::sleep(Duration::from_millis(200));
        let mut still = Vec::new();
        for (name, mut child) in running {
            match child.try_wait()? {
                None => still.push((name, child)),
                Some(status) if status.success() => println!("{name:<24} nothing found"),
                Some(_) => {
                    println!("{name:<24} found something, see {}", log(name).display());
                    found.push(name.clone());
                }
            }
        }
        running = still;
    }
    if !found.is_empty() {
        println!("\nreplay: cargo +nightly fuzz run TARGET fuzz/artifacts/TARGET/FILE");
    }
    Ok(found.is_empty())
}

fn targets() -> Result<Vec<String>> {
    let folder = project::root().join(TARGETS);
    let entries =
        std::fs::read_dir(&folder).context(format!("cannot read {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        if let Some(name) = entry?.path().file_stem() {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn start(target: &str, minutes: u64) -> Result<Child> {
    let time = format!("-max_total_time={}", 60 * minutes);
    let log = log(target);
    println!("{target:<24} for {minutes} min, log in {}", log.display());
    let out = std::fs::File::create(&log).context(format!("cannot write {}", log.display()))?;
    let err = out.try_clone()?;
    cargo_fuzz(&[
        "run",
        target,
        "--",
        &time,
        "-timeout=20",
        "-rss_limit_mb=2048",
    ])
    .stdout(Stdio::from(out))
    .stderr(Stdio::from(err))
    .spawn()
    .context("cannot run cargo")
}

fn log(target: &str) -> PathBuf {
    project::root()
        .join("target")
        .join(format!("fuzz-{target}.log"))
}

/// `cargo +nightly fuzz …`: libFuzzer needs what only nightly compilers have.
fn cargo_fuzz(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command
        .current_dir(project::root())
        // Set by the cargo that runs this program, for the stable toolchain.
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO")
        .args(["+nightly", "fuzz"])
        .args(arguments);
    command
}

fn ensure_tools() -> Result<()> {
    let quiet = |mut command: Command| {
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    if quiet(cargo_fuzz(&["--version"])) {
        return Ok(());
    }
    println!("installing cargo-fuzz and a nightly toolchain");
    let mut rustup = Command::new("rustup");
    rustup.args(["toolchain", "install", "nightly", "--profile", "minimal"]);
    if !rustup.status().context("cannot run rustup")?.success() {
        return Err(Failure::new(
            "no nightly toolchain: `rustup toolchain install nightly` failed, see above",
        ));
    }
    let mut install = project::cargo();
    install.args(["install", "--locked", "cargo-fuzz"]);
    if install.status().context("cannot run cargo")?.success() {
        Ok(())
    } else {
        Err(Failure::new("`cargo install cargo-fuzz` failed, see above"))
    }
}
