//! The commands, one file each.

mod backup;
mod changes;
mod checkpoint;
mod compact;
mod completions;
mod count;
mod delete;
mod demo;
mod dump;
mod events;
mod get;
mod ingest;
mod load;
mod put;
mod scan;
mod simulate;
mod stats;
mod verify;

use clap::{CommandFactory, Parser, Subcommand};

use crate::exit::Result;

const LONG_ABOUT: &str = "\
Load, query, inspect, verify and compact LSM databases.

A database is a directory. Commands that only read open it read-only, change nothing on disk and may \
run at the same time. Beside a process that writes, only dump, events and verify run.

Keys and values are bytes. As text they are printed, and read, with escapes: \\t, \\n, \\r, \\\\ and \\xNN.";

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 not found, 2 usage, 3 corruption, 4 I/O or lock. A closed pipe is no error.

Try `lsm demo` first. `lsm help COMMAND` shows examples for each command.";

/// The command line.
#[derive(Parser, Debug)]
#[command(name = "lsm", version, about = "Load, query, inspect, verify and compact LSM databases")]
#[command(long_about = LONG_ABOUT, after_help = AFTER_HELP, max_term_width = 110, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Demo(demo::Demo),
    Load(load::Load),
    Ingest(ingest::Ingest),
    Get(get::Get),
    Put(put::Put),
    Delete(delete::Delete),
    Scan(scan::Scan),
    Count(count::Count),
    Stats(stats::Stats),
    Dump(dump::Dump),
    Events(events::Events),
    Changes(changes::Changes),
    Verify(verify::Verify),
    Compact(compact::Compact),
    Checkpoint(checkpoint::Checkpoint),
    Backup(backup::Backup),
    Simulate(simulate::Simulate),
    Completions(completions::Completions),
    #[command(name = demo::WRITER_COMMAND, hide = true)]
    DemoWriter(demo::DemoWriter),
}

impl Cli {
    /// Does what the command line asks for.
    pub(crate) fn run(self) -> Result<()> {
        match self.command {
            Command::Demo(command) => command.run(),
            Command::Load(command) => command.run(),
            Command::Ingest(command) => command.run(),
            Command::Get(command) => command.run(),
            Command::Put(command) => command.run(),
            Command::Delete(command) => command.run(),
            Command::Scan(command) => command.run(),
            Command::Count(command) => command.run(),
            Command::Dump(command) => command.run(),
            Command::Events(command) => command.run(),
            Command::Changes(command) => command.run(),
            Command::Verify(command) => command.run(),
            Command::Stats(command) => command.run(),
            Command::Compact(command) => command.run(),
            Command::Checkpoint(command) => command.run(),
            Command::Backup(command) => command.run(),
            Command::Simulate(command) => command.run(),
            Command::Completions(command) => command.run(Self::command()),
            Command::DemoWriter(command) => command.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
