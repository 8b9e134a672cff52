//! The program `cygnet`.

#[macro_use]
mod output;

mod args;
mod client;
mod command;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match args::Helper::asked_for() {
        Some(helper) => command::help(helper),
        None => output::judge(command::dispatch(args::Args::parse())),
    }
}
