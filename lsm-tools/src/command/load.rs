//! `load`: records of a file become entries of a database.

use std::path::PathBuf;

use clap::Args;
use lsm_engine::{BulkLoad, Db, Durability, Keyspace, Options, WriteBatch};

use crate::database::{KeyspaceArg, open_or_create};
use crate::exit::{Failure, Result};
use crate::input::{CsvColumns, Input, InputError, InputFormat, InputOptions, Record, read_failure};
use crate::output::{Output, duration, grouped, rate};
use crate::progress::Progress;
use crate::size::parse_bytes;
use crate::stopwatch::Stopwatch;

/// A batch takes so many bytes of memory at most, unless one line takes more, even if it has fewer lines than asked for.
const BATCH_BYTES: u64 = 1 << 20;

/// How many sorted lines there are between two looks at the progress.
const SORTED_STEP: u64 = 4096;

/// Room for what the engine adds to a record in a batch and in memory.
const RECORD_OVERHEAD_BYTES: u64 = 96;

/// Load records from a file, creating the database if there is none
#[derive(Args, Debug)]
#[command(after_long_help = "\
Formats (by the name of the file, or --input-format):
  text   key TAB value; \\t, \\n, \\r, \\\\ and \\xNN are escapes, as `scan` writes them
  csv    .csv: the first two columns, or --key-column and --value-column
  json   .json, .jsonl, .ndjson: {\"key\":\"...\",\"value\":\"...\"},
         or \"key_hex\" and \"value_hex\"
  hex    .hex: key TAB value in hex digits
gzip and zstd are recognised by their first bytes, whatever the name.

Examples:
  lsm load db cities.tsv.gz
  lsm load db people.csv --key-column email --value-column name
  lsm load db export.txt --no-escapes     # a backslash is only a backslash
  zcat log.gz | lsm load db - --batch 10000 --sync
  lsm load db sorted.tsv --sorted         # straight to tables

Lines are written in batches, each whole or not at all. A malformed line stops the load: the batch \
that it is in is not written, what was written before stays, and the number of lines committed is \
printed. With --sorted all lines are one step: after any error nothing is loaded.")]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct Load {
    /// Directory of the database; created if it does not exist
    db: PathBuf,
    /// The file, `-` for standard input
    file: PathBuf,
    #[command(flatten)]
    keyspace: KeyspaceArg,
    /// Lines in a batch; fewer if they take 1 MiB of memory
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Sync each batch before the next one; otherwise all batches are synced at the end
    #[arg(long)]
    sync: bool,
    /// The keys ascend, bytewise: write them straight to tables, without the log. All or nothing
    #[arg(long, conflicts_with_all = ["batch", "sync"])]
    sorted: bool,
    /// Skip malformed lines, and print how many there were
    #[arg(long)]
    skip_bad: bool,
    /// How the records are written in the file
    #[arg(long, value_enum, value_name = "FORMAT", visible_alias = "format")]
    input_format: Option<InputFormat>,
    /// In text, read a backslash as a backslash
    #[arg(long)]
    no_escapes: bool,
    /// The first record of a CSV file names its columns
    #[arg(long)]
    header: bool,
    /// Column of a CSV file with the keys, by its name in the header
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    key_column: Option<String>,
    /// Column of a CSV file with the values, by its name in the header
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    value_column: Option<String>,
    /// Memory to use, such as 64M or 2G. A line may not be longer, a record may take a quarter of it
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = parse_bytes)]
    memory: u64,
}

impl Load {
    pub(crate) fn run(self) -> Result<()> {
        let stopwatch = Stopwatch::start();
        let memory = usize::try_from(self.memory).map_err(|_| {
            Failure::Usage(format!("--memory {}: more than this machine can address", self.memory))
        })?;
        let options = InputOptions {
            format: self.input_format,
            escapes: !self.no_escapes,
            columns: CsvColumns {
                header: self.header,
                key: self.key_column.clone(),
                value: self.value_column.clone(),
            },
            line_bytes_max: self.memory,
        };
        let input = Input::open(&self.file, &options)?; // first: a missing file must not make a database
        let db = open_or_create(&self.db, Options::new().memory(memory))?;
        let keyspace = self.keyspace.or_create(&db)?;
        let mut loader = Loader {
            sorted: if self.sorted { Some(keyspace.bulk_load()?) } else { None },
            keyspace,
            db: &db,
            durability: if self.sync { Durability::Sync } else { Durability::Buffered },
            batch_lines: self.batch,
            record_bytes_max: self.memory / 4,
            skip_bad: self.skip_bad,
            batch: WriteBatch::new(),
            counts: Counts::default(),
        };
        let outcome = loader.load(input).map_err(|failure| failure.within(&self.file.display().to_string()));
        let Loader { counts, keyspace, .. } = loader;
        drop(keyspace);
        let closed = db.close().map_err(Failure::from);

        let mut out = Output::stdout();
        out.line(format_args!(
            "{} {} committed in {}{}",
            counts.committed,
            if counts.committed == 1 { "line" } else { "lines" },
            duration(stopwatch.micros()),
            {
                let micros = stopwatch.micros();
                if counts.committed > 0 {
                    format!(" ({})", rate(counts.committed, micros))
                } else {
                    String::new()
                }
            }
        ))?;
        if counts.skipped > 0 {
            let (line, reason) = counts.first_skipped.unwrap_or_default();
            out.line(format_args!(
                "{} malformed {} skipped; the first is line {line}: {reason}",
                grouped(counts.skipped),
                if counts.skipped == 1 { "line" } else { "lines" }
            ))?;
        }
        out.flush()?;
        outcome.and(closed)
    }
}

/// Where a load stands.
#[derive(Debug, Default)]
struct Counts {
    committed: u64,
    skipped: u64,
    first_skipped: Option<(u64, String)>,
}

struct Loader<'a> {
    db: &'a Db,
    /// Where lines go whose keys ascend.
    sorted: Option<BulkLoad>,
    keyspace: Keyspace,
    durability: Durability,
    batch_lines: u32,
    record_bytes_max: u64,
    skip_bad: bool,
    batch: WriteBatch,
    counts: Counts,
}

/// What a record takes in memory.
fn bytes_of(record: &Record) -> u64 {
    (record.key.len() + record.value.len()) as u64 + RECORD_OVERHEAD_BYTES
}

impl Loader<'_> {
    fn load(&mut self, mut input: Input) -> Result<()> {
        let progress = Progress::bytes("loading", input.total_bytes());
        let mut record = Record::default();
        loop {
            match self.read(&mut input, &mut record) {
                Ok(true) if let Some(sorted) = &mut self.sorted => {
                    let put = sorted.put(&record.key, &record.value);
                    put.map_err(|error| Failure::from(error).within(&format!("line {}", input.line())))?;
                    if sorted.entry_count().is_multiple_of(SORTED_STEP) {
                        progress.set(input.read_bytes());
                    }
                }
                Ok(true) => {
                    let full = self.batch.len() >= self.batch_lines as usize;
                    let bytes = self.batch.memory_bytes() as u64 + bytes_of(&record);
                    if full || bytes > self.record_bytes_max.min(BATCH_BYTES) {
                        self.commit()?;
                        progress.set(input.read_bytes());
                    }
                    self.batch.put_in(&self.keyspace, &record.key, &record.value);
                }
                Ok(false) => return self.commit(),
                Err(InputError::Malformed { line, reason }) if self.skip_bad => {
                    self.counts.skipped += 1;
                    self.counts.first_skipped.get_or_insert((line, reason));
                }
                Err(InputError::Malformed { line, reason } | InputError::Header { line, reason }) => {
                    return Err(Failure::Usage(format!("line {line}: {reason}")));
                }
                Err(InputError::Read(error)) => return Err(read_failure(&error)),
            }
        }
    }

    /// Reads a record that fits the database's memory.
    fn read(&self, input: &mut Input, record: &mut Record) -> std::result::Result<bool, InputError> {
        let more = input.read(record)?;
        let bytes = bytes_of(record);
        if more && bytes > self.record_bytes_max {
            let reason =
                format!("a record of {bytes} bytes takes more than a quarter of the memory; raise --memory");
            return Err(InputError::Malformed { line: input.line(), reason });
        }
        Ok(more)
    }

    fn commit(&mut self) -> Result<()> {
        if let Some(sorted) = self.sorted.take() {
            let lines = sorted.entry_count();
            sorted.finish()?;
            self.counts.committed += lines;
        }
        if self.batch.is_empty() {
            return Ok(());
        }
        let lines = self.batch.len() as u64;
        let batch = std::mem::take(&mut self.batch);
        self.db.write_with(batch, self.durability)?;
        self.counts.committed += lines;
        Ok(())
    }
}
