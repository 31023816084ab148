//! What is in a file of a database, as it stands there.

mod blob;
mod current;
mod dumper;
mod events;
mod lease;
mod log;
mod manifest;
mod table;
mod window;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use lsm_core::vfs::{PosixFs, Vfs};
use lsm_engine::inspect::{Kind, kind_of};

use self::dumper::Dumper;
use crate::exit::{Failure, Result};
use crate::item::{Item, ItemFormat};
use crate::output::Output;

/// Show what is in a file of a database
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  lsm dump db/000005.wal              # every record of the log and its writes
  lsm dump db/000005.window           # what is not in a segment yet, and older
  lsm dump db/000012.sst --no-values  # a table and its entries, tombstones too
  lsm dump db/000013.blob --no-values # which large values are where
  lsm dump db/MANIFEST-000001         # every change of the set of tables
  lsm dump db/CURRENT --format json
  lsm dump db/EVENTS-000001         # the flight recorder; see `lsm events`

Everything before the first damage is printed, then the error, and the exit code is 3. A log ends where its \
records end; bytes that follow are listed as dropped. Nothing is changed.")]
pub(crate) struct Dump {
    /// The file
    file: PathBuf,
    /// What kind of file it is, if its name does not tell
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    file_type: Option<FileType>,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: ItemFormat,
    /// Print the lengths of values instead of the values
    #[arg(long)]
    no_values: bool,
    /// Print the records of a log as bytes, for logs that were not written by a database
    #[arg(long)]
    raw: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FileType {
    /// A segment of the write-ahead log.
    Wal,
    /// The window of the write-ahead log.
    Window,
    /// A sorted table.
    Sst,
    /// A file with large values.
    Blob,
    /// A log of version edits.
    Manifest,
    /// The pointer to the manifest.
    Current,
    /// The bytes of the disk that a database holds back.
    Reserve,
    /// The lock file.
    Lock,
    /// A file of the flight recorder.
    Events,
    /// The lease of a follower.
    Lease,
}

impl Dump {
    pub(crate) fn run(self) -> Result<()> {
        let file_type = match self.file_type {
            Some(file_type) => file_type,
            None => self.type_by_name()?,
        };
        let mut dumper =
            Dumper { out: Output::stdout(), format: self.format, values: !self.no_values, raw: self.raw };
        let result = match file_type {
            FileType::Wal => log::dump(&self.file, &mut dumper),
            FileType::Window => window::dump(&self.file, &mut dumper),
            FileType::Sst => table::dump(&self.file, &mut dumper),
            FileType::Blob => blob::dump(&self.file, &mut dumper),
            FileType::Manifest => manifest::dump(&self.file, &mut dumper),
            FileType::Current => current::dump(&self.file, &mut dumper),
            FileType::Events => events::dump(&self.file, &mut dumper),
            FileType::Lease => lease::dump(&self.file, &mut dumper),
            FileType::Reserve => nothing(
                &self.file,
                "reserve",
                "it holds back a part of the disk, and has no content",
                &mut dumper,
            ),
            FileType::Lock => {
                nothing(&self.file, "lock", "it is locked while in use, and has no content", &mut dumper)
            }
        };
        dumper.out.flush()?;
        result
    }

    fn type_by_name(&self) -> Result<FileType> {
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        match kind_of(&name) {
            Some(Kind::Table) => Ok(FileType::Sst),
            Some(Kind::Blob) => Ok(FileType::Blob),
            Some(Kind::Manifest) => Ok(FileType::Manifest),
            Some(Kind::Current) => Ok(FileType::Current),
            Some(Kind::Log) if name.ends_with(lsm_wal::SEGMENT_SUFFIX) => Ok(FileType::Wal),
            Some(Kind::Log) => Ok(FileType::Window),
            Some(Kind::Reserve) => Ok(FileType::Reserve),
            Some(Kind::Lock) => Ok(FileType::Lock),
            Some(Kind::Events) => Ok(FileType::Events),
            Some(Kind::Lease) => Ok(FileType::Lease),
            _ if !is_file(&self.file)? => {
                let what = "is a directory: name a file in it, or try `lsm stats`";
                Err(Failure::Usage(format!("{} {what}", self.file.display())))
            }
            _ => Err(Failure::Usage(format!(
                "the name of {} does not say what it is; say so with --type",
                self.file.display()
            ))),
        }
    }
}

/// Says what a file without content is for, if it is one.
fn nothing(path: &Path, name: &'static str, why: &str, dumper: &mut Dumper) -> Result<()> {
    if !is_file(path)? {
        return Err(Failure::Io(format!("cannot open {}: is a directory", path.display())));
    }
    dumper.item(&Item::new(name).text("why", why))
}

fn is_file(path: &Path) -> Result<bool> {
    let metadata = PosixFs.metadata(path);
    let metadata = metadata.map_err(|error| Failure::io(&format!("open {}", path.display()), &error))?;
    Ok(!metadata.is_dir)
}
