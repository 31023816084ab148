use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::UNIX_EPOCH;

use clap::{Args, Subcommand};
use lsm_engine::{Backup as Backups, DirectoryStore, Generation};

use crate::database::open_for_reading;
use crate::exit::{Failure, Result};
use crate::item::{Item, ItemFormat};
use crate::output::{Output, bytes, grouped};
use crate::progress::Progress;
use crate::time::Utc;

/// Make, list, check, delete and restore backups
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  lsm backup create db /mnt/backups
  lsm backup list /mnt/backups
  lsm backup verify /mnt/backups && echo sound
  lsm backup prune /mnt/backups --keep 7
  lsm backup restore /mnt/backups restored

A store is a directory that holds the backups of one database. Each backup is whole, and shares the files that did not \
change with those before it. Every byte is checked when it is copied, in either direction. Whatever interrupts a \
command, the backups that were there stay.")]
pub(crate) struct Backup {
    #[command(subcommand)]
    command: BackupCommand,
}

#[derive(Subcommand, Debug)]
enum BackupCommand {
    Create(Create),
    List(List),
    Verify(Verify),
    Prune(Prune),
    Restore(Restore),
}

/// Make a backup
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  lsm backup create db /mnt/backups

Makes the store, if it is a new or empty directory. The database is opened read-only and not changed. Refused if the \
store has backups of another database. A checkpoint of a database is another one; what was restored is the same.")]
struct Create {
    /// Directory of the database
    db: PathBuf,
    /// Directory of the backups
    store: PathBuf,
}

/// List the backups of a store, the oldest first
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  lsm backup list /mnt/backups
  lsm backup list /mnt/backups --format json

`new_bytes` is what was stored for a backup; it shares the rest with earlier ones. The exit code is 3 if a backup \
cannot be read; the others are listed.")]
struct List {
    /// Directory of the backups
    store: PathBuf,
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    format: ItemFormat,
}

/// Check every byte of every backup
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  lsm backup verify /mnt/backups && echo sound

Goes on after damage, so that all of it is listed, with the backups that need what is damaged: then the exit code is \
3, or 4 if nothing is damaged but something could not be read.")]
struct Verify {
    /// Directory of the backups
    store: PathBuf,
}

/// Delete old backups, and files that no backup needs
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  lsm backup prune /mnt/backups --keep 7

Refused while a backup is being made, checked or restored. If one of the backups to keep is damaged, nothing is \
deleted, since nobody knows which files it needs.")]
struct Prune {
    /// Directory of the backups
    store: PathBuf,
    /// How many backups to keep, the newest
    #[arg(long, value_name = "COUNT")]
    keep: usize,
}

/// Make a database of a backup
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  lsm backup restore /mnt/backups restored
  lsm backup restore /mnt/backups restored --generation 12

TARGET is whole and durable at the end, or not there.")]
struct Restore {
    /// Directory of the backups
    store: PathBuf,
    /// Directory to make; its parent must exist
    target: PathBuf,
    /// Number of the backup, as `list` prints it; the newest by default
    #[arg(long, value_name = "NUMBER")]
    generation: Option<u64>,
}

impl Backup {
    pub(crate) fn run(self) -> Result<()> {
        match self.command {
            BackupCommand::Create(command) => command.run(),
            BackupCommand::List(command) => command.run(),
            BackupCommand::Verify(command) => command.run(),
            BackupCommand::Prune(command) => command.run(),
            BackupCommand::Restore(command) => command.run(),
        }
    }
}

fn open(store: &Path, what: &'static str) -> Result<Backups> {
    Ok(with_progress(Backups::open(DirectoryStore::open(store)?)?, what))
}

/// Shows how far a call is. The end is known when the first bytes have passed.
fn with_progress(backups: Backups, what: &'static str) -> Backups {
    let shown: Mutex<Option<Progress>> = Mutex::new(None);
    backups.on_progress(move |progress| {
        if let Ok(mut shown) = shown.lock() {
            shown
                .get_or_insert_with(|| Progress::bytes(what, Some(progress.bytes_total)))
                .set(progress.bytes);
            if progress.bytes == progress.bytes_total {
                *shown = None;
            }
        }
    })
}

fn print(generation: &Generation, format: ItemFormat, out: &mut Output) -> Result<()> {
    let created = generation.created.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let item = Item::new("backup")
        .number("number", generation.number)
        .text("created", Utc(u64::try_from(created).unwrap_or(u64::MAX)).to_string())
        .number("sequence", generation.sequence)
        .number("files", generation.files)
        .number("bytes", generation.bytes)
        .number("new_bytes", generation.new_bytes);
    out.item(&item, format)
}

impl Create {
    fn run(self) -> Result<()> {
        let db = open_for_reading(&self.db)?;
        let backups = Backups::open(DirectoryStore::create(&self.store)?)?;
        let made = with_progress(backups, "copying").create(&db)?;
        let mut out = Output::stdout();
        print(&made, ItemFormat::Text, &mut out)?;
        out.flush()
    }
}

impl List {
    fn run(self) -> Result<()> {
        let found = open(&self.store, "reading")?.list()?;
        let mut out = Output::stdout();
        for generation in &found.generations {
            print(generation, self.format, &mut out)?;
        }
        out.flush()?;
        let damaged = found.damaged.into_iter().next_back();
        damaged
            .map_or(Ok(()), |(number, error)| Err(Failure::from(error).within(&format!("backup {number}"))))
    }
}

impl Verify {
    fn run(self) -> Result<()> {
        let report = open(&self.store, "verifying")?.verify()?;
        let mut out = Output::stdout();
        let (mut worst, count) = (None, report.damage.len() as u64);
        for damage in report.damage {
            let generations: Vec<String> = damage.generations.iter().map(u64::to_string).collect();
            let failure = Failure::from(damage.error);
            let (word, message) = match &failure {
                Failure::Corruption(message) => ("DAMAGED", message),
                Failure::Io(message) => ("UNREADABLE", message),
                _ => return Err(failure),
            };
            out.line(format_args!("{word}  {message}; backups that need it: {}", generations.join(", ")))?;
            // Damage before what could not be read: it gives the exit code.
            if worst.is_none() || matches!(failure, Failure::Corruption(_)) {
                worst = Some(failure);
            }
        }
        let size = bytes(report.bytes);
        let (generations, files) = (grouped(report.generations), grouped(report.files));
        out.line(format_args!("read     {generations} backups, {files} files, {size}"))?;
        out.flush()?;
        match (count, worst) {
            (_, None) => Ok(()),
            (1, Some(failure)) => Err(failure),
            (_, Some(failure)) => Err(failure.within(&format!("{} errors; one of them is", grouped(count)))),
        }
    }
}

impl Prune {
    fn run(self) -> Result<()> {
        let pruned = open(&self.store, "deleting")?.prune(self.keep)?;
        let mut out = Output::stdout();
        let (generations, files) = (grouped(pruned.generations), grouped(pruned.files));
        out.line(format_args!("deleted  {generations} backups, {files} files, {}", bytes(pruned.bytes)))?;
        out.flush()
    }
}

impl Restore {
    fn run(self) -> Result<()> {
        let backups = open(&self.store, "restoring")?;
        let generation = match self.generation {
            Some(number) => number,
            None => newest(&backups, &self.store)?,
        };
        let restored = backups.restore(generation, &self.target)?;
        let mut out = Output::stdout();
        print(&restored, ItemFormat::Text, &mut out)?;
        out.flush()
    }
}

/// The newest backup. If it is damaged, restoring it says so.
fn newest(backups: &Backups, store: &Path) -> Result<u64> {
    let found = backups.list()?;
    let numbers = found.generations.iter().map(|found| found.number);
    let newest = numbers.chain(found.damaged.iter().map(|(number, _)| *number)).max();
    newest.ok_or_else(|| Failure::NotFound(format!("there is no backup in {}", store.display())))
}
