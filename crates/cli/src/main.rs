//! The program `cygnet`.

mod args;
mod client;
mod command;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    command::dispatch(args::Args::parse())
}
