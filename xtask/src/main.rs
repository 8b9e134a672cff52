//! The command line of `cargo xtask`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use clap::{Parser, Subcommand};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;
use xtask::interop::{integrity, recovery};
use xtask::lab::{Result, interrupt};
use xtask::{bench, demo, fuzz, interop, leak, setup, sim, steps, webhost};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "What a person or CI runs")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the main job in a world of its own: a LAN goes online through gateway and server
    Demo(demo::Options),
    /// Run every test
    Test(steps::Options),
    /// Run scenarios against real strongSwan
    Interop(interop::Options),
    /// Show that a tunnel loses, repeats, reorders and damages nothing while its keys change
    Integrity(integrity::Options),
    /// Show that nothing of a device leaves the home but inside the tunnel, whatever befalls the box
    Leak(leak::Options),
    /// Show that a tunnel comes back without a hand, whatever befalls it, and how soon
    Recovery(recovery::Options),
    /// Run seeds of the simulation: two endpoints, a bad network, a virtual clock
    Sim(sim::Options),
    /// Look for inputs that break something
    Fuzz(fuzz::Options),
    /// Measure VPNs side by side
    Bench(bench::Options),
    /// Install what the others need
    Setup,
    /// The web host of the lab's internet
    #[command(hide = true)]
    Webhost {
        /// Where to listen
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Ask a web host until it answers
    #[command(hide = true)]
    FirstByte {
        /// Address and port
        host: SocketAddr,
    },
}

fn main() -> ExitCode {
    let outcome = run(Arguments::parse().command);
    interrupt::wait_for_exit_if_interrupted();
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a command; whether everything it checked was as it should be.
fn run(command: Command) -> Result<bool> {
    match &command {
        Command::Webhost { listen } => return webhost::serve(*listen).map(|()| true),
        Command::FirstByte { host } => {
            return webhost::wait_for_first_byte(*host, Duration::from_secs(30)).map(|()| true);
        }
        Command::Sim(options) => return sim::run(options),
        _ => {}
    }
    interrupt::install()?;
    interrupt::sweep_leftovers();
    match command {
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => steps::run(&options),
        Command::Interop(options) => interop::run(&options),
        Command::Integrity(options) => integrity::run(&options),
        Command::Leak(options) => leak::run(&options),
        Command::Recovery(options) => recovery::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Setup => setup::ensure().map(|()| true),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Webhost { .. } | Command::FirstByte { .. } | Command::Sim(_) => Ok(true),
    }
}
