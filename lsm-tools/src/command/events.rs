use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use lsm_core::env::{Env, Event as Never, ThreadEnv};
use lsm_core::vfs::PosixFs;
use lsm_engine::Event;
use lsm_engine::inspect::{RecordedEvents, current};

use crate::escape::escaped;
use crate::exit::Result;
use crate::item::{Item, ItemFormat};
use crate::output::Output;
use crate::time::Utc;
use crate::warnings::warn;

/// How often to look for new events, in microseconds.
const LOOK_MICROS: u64 = 500_000;

/// Show what a database did last
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  lsm events db                  # flushes, compactions, stalls, errors
  lsm events db --follow         # and those to come
  lsm events db --format json

Reads the flight recorder, the files EVENTS-N, which a database writes about once a second and keeps up to one \
megabyte long. Runs beside a process that has the database open. What a power cut damaged is left out, with a warning.")]
pub(crate) struct Events {
    /// Directory of the database
    db: PathBuf,
    /// Wait for further events, until interrupted
    #[arg(long, short)]
    follow: bool,
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    format: ItemFormat,
}

impl Events {
    pub(crate) fn run(self) -> Result<()> {
        // Fails if there is no database.
        current(&PosixFs, &self.db)?;
        let mut out = Output::stdout();
        let mut last = self.print_after(None, &mut out)?;
        if self.follow {
            let (env, never) = (ThreadEnv::new(1), Never::new());
            loop {
                env.wait(&never, 0, Some(env.monotonic_micros() + LOOK_MICROS));
                last = self.print_after(last, &mut out)?;
            }
        }
        Ok(())
    }

    /// Prints the events that come after `last`, and returns the last one.
    fn print_after(&self, last: Option<Event>, out: &mut Output) -> Result<Option<Event>> {
        let (events, dropped) = read(&self.db)?;
        let printed = last.as_ref().and_then(|last| events.iter().rposition(|event| event == last));
        if last.is_none() {
            for dropped in dropped {
                warn(format_args!("the flight recorder is damaged, and a part was left out: {dropped}"));
            }
        }
        for event in events.iter().skip(printed.map_or(0, |printed| printed + 1)) {
            print(event, self.format, out)?;
        }
        out.flush()?;
        Ok(events.last().cloned().or(last))
    }
}

fn read(db: &Path) -> Result<(Vec<Event>, Vec<String>)> {
    let mut recorded = RecordedEvents::of(Arc::new(PosixFs), db)?;
    let mut events = Vec::new();
    for event in &mut recorded {
        events.push(event?);
    }
    Ok((events, recorded.dropped().to_vec()))
}

/// Prints one event.
pub(super) fn print(event: &Event, format: ItemFormat, out: &mut Output) -> Result<()> {
    let (time, what) = (Utc(event.unix_micros), event.kind.to_string());
    match format {
        // The message of an error may hold anything.
        ItemFormat::Text => out.line(format_args!("{time}  {}", escaped(what.as_bytes()))),
        ItemFormat::Json => {
            let item =
                Item::new("event").number("number", event.number).number("unix_micros", event.unix_micros);
            out.item(&item.text("time", time.to_string()).text("event", what), format)
        }
    }
}
