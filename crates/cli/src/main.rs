//! The program `cygnet`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it answers a person or a script"
)]

mod args;
mod client;
mod command;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    command::dispatch(args::Args::parse())
}
