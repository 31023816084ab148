//! The `lsm` command: load, query, inspect, verify and compact databases of `lsm-engine`.

#![forbid(unsafe_code)]

mod command;
mod database;
mod escape;
mod exit;
mod input;
mod item;
mod output;
mod progress;
mod size;
mod stopwatch;
mod time;
mod tree;
mod warnings;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = match command::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::refuse(&error),
    };
    warnings::show();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
