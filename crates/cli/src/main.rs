//! The program `cygnet`.

#[macro_use]
mod output;

mod args;
mod client;
mod command;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    output::judge(command::dispatch(args::Args::parse()))
}
