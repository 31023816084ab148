//! Side-by-side comparison of the engine with its peers: the same workloads under the same settings, every engine
//! in a process of its own, medians over several rounds. See README.md for what the figures mean.

#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "measures real files, clocks and threads")]

mod bench;
mod compare;
mod dataset;
mod dispatch;
mod engine;
mod machine;
mod meter;
mod report;
mod result;
mod sample;
mod settings;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::compare::Compare;
use crate::result::Result;
use crate::settings::Settings;
use crate::workload::{Group, Selection, Workload};

/// Compares the lsm engine with its peers, side by side.
#[derive(Parser)]
#[command(version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the workloads on every engine, round by round, and print medians and ratios as Markdown
    #[command(after_long_help = workload::HELP)]
    Compare(Compare),
    /// List the engines in this build, and the workloads
    List,
    /// What `compare` starts for one group of workloads on one engine; prints a JSON object per measurement
    #[command(hide = true)]
    Run(Run),
}

#[derive(Args)]
struct Run {
    #[arg(long)]
    engine: String,
    #[arg(long)]
    group: Group,
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<Workload>,
    #[arg(long)]
    dir: PathBuf,
    #[command(flatten)]
    settings: Settings,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Compare(compare) => compare.run(),
        Command::List => {
            list();
            Ok(())
        }
        Command::Run(run) => run.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Run {
    fn run(self) -> Result {
        let selection = Selection::new(self.workloads);
        let mut print = |sample: sample::Sample| println!("{}", sample.to_json());
        dispatch::run(&self.engine, self.group, &selection, &self.dir, &self.settings, &mut print)
    }
}

fn list() {
    println!("Engines: {}\n\n{}", dispatch::NAMES.join(", "), workload::HELP);
}
