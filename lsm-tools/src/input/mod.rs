//! Records out of files: what `load` reads.
//!
//! A file is opened ([`Input::open`]), decompressed if its first bytes say so, cut into lines, and each line (or
//! CSV record) is a [`Record`]. All of it streams: memory is bounded by the longest line, and that by
//! [`InputOptions::line_bytes_max`], however large the file and whatever it inflates to.

mod csv;
mod decompress;
mod json;
mod line;
mod text;

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::rc::Rc;

use clap::ValueEnum;
use lsm_core::key::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

use crate::exit::{Failure, Result};
use crate::progress::Counted;
use line::Lines;

pub(crate) use csv::CsvColumns;

/// No line, and no CSV record, may be longer, in bytes.
const LINE_BYTES_LIMIT: u64 = if usize::BITS > 32 { 4 << 30 } else { 1 << 30 };

/// How the records are written in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    /// Key, tab, value; \t, \n, \r, \\ and \xNN are read as escapes.
    Text,
    /// Key and value in two columns of a CSV file.
    Csv,
    /// One JSON object a line: {"key":"...","value":"..."}, or `key_hex` and `value_hex` with hex digits.
    Json,
    /// Key, tab, value in hex digits.
    Hex,
}

impl InputFormat {
    /// What the name of a file says, with `.gz`, `.zst` or `.zstd` taken off; text if it says nothing.
    pub(crate) fn of_name(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let name = [".gz", ".zst", ".zstd"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
        match name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("csv") => Self::Csv,
            Some("json" | "jsonl" | "ndjson") => Self::Json,
            Some("hex") => Self::Hex,
            _ => Self::Text,
        }
    }
}

/// One key with its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// The key, unescaped.
    pub(crate) key: Vec<u8>,
    /// The value, unescaped.
    pub(crate) value: Vec<u8>,
}

/// Why there is no record.
#[derive(Debug)]
pub(crate) enum InputError {
    /// This line is not as it must be. Reading may go on behind it.
    Malformed {
        /// Number of the line, from 1; of its first line for a record of several.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// The header is not as it must be, so that no line can be understood. Reading cannot go on.
    Header {
        /// Number of its line.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// The input could not be read. Reading cannot go on.
    Read(io::Error),
}

impl From<io::Error> for InputError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// A format: turns lines into records.
trait ReadRecord {
    /// Reads the next record into `record`, whose contents are replaced; false at the end of the input.
    fn read(&mut self, record: &mut Record) -> std::result::Result<bool, InputError>;

    /// The line at which the record read last begins.
    fn line(&self) -> u64;
}

/// How to read an input.
#[derive(Clone, Debug)]
pub(crate) struct InputOptions {
    /// The format; if not given, by the name of the file.
    pub(crate) format: Option<InputFormat>,
    /// Whether text has escapes.
    pub(crate) escapes: bool,
    /// Which columns of a CSV file are key and value.
    pub(crate) columns: CsvColumns,
    /// Longest line, or CSV record, in bytes; at most 4 GiB.
    pub(crate) line_bytes_max: u64,
}

impl InputOptions {
    /// Refuses what means nothing in a format: the file would not be read as whoever asked for it expects.
    fn expect_for(&self, format: InputFormat) -> Result<()> {
        let CsvColumns { header, key, value } = &self.columns;
        let (option, its_format) = if format != InputFormat::Text && !self.escapes {
            ("--no-escapes", "text")
        } else if format == InputFormat::Csv {
            return Ok(());
        } else if key.is_some() {
            ("--key-column", "csv")
        } else if value.is_some() {
            ("--value-column", "csv")
        } else if *header {
            ("--header", "csv")
        } else {
            return Ok(());
        };
        Err(Failure::Usage(format!(
            "{option} means nothing in this format; if the file is {its_format}, say --input-format {its_format}"
        )))
    }
}

/// An opened input.
pub(crate) struct Input {
    records: Box<dyn ReadRecord>,
    read_bytes: Rc<Cell<u64>>,
    total_bytes: Option<u64>,
}

impl Input {
    /// Opens the file at `path`, or standard input if that is `-`.
    #[expect(clippy::disallowed_methods, reason = "the user's file, not a file of the store")]
    pub(crate) fn open(path: &Path, options: &InputOptions) -> Result<Self> {
        let format = options.format.unwrap_or_else(|| InputFormat::of_name(path));
        options.expect_for(format)?;
        let (reader, total_bytes): (Box<dyn Read>, _) = if path == Path::new("-") {
            (Box::new(io::stdin().lock()), None)
        } else {
            let failed = |error| Failure::io(&format!("open {}", path.display()), &error);
            let file = File::open(path).map_err(failed)?;
            let metadata = file.metadata().map_err(failed)?;
            if metadata.is_dir() {
                return Err(Failure::Io(format!("cannot read {}: it is a directory", path.display())));
            }
            let total_bytes = metadata.is_file().then_some(metadata.len());
            (Box::new(file), total_bytes)
        };
        Self::new(reader, total_bytes, format, options)
            .map_err(|error| read_failure(&error).within(&path.display().to_string()))
    }

    /// Reads records in `format` from `reader`.
    pub(crate) fn new(
        reader: impl Read + 'static,
        total_bytes: Option<u64>,
        format: InputFormat,
        options: &InputOptions,
    ) -> io::Result<Self> {
        let (reader, read_bytes) = Counted::new(reader);
        let mut reader = decompress::decompressed(reader)?;
        skip_byte_order_mark(&mut *reader)?;
        let lines = Lines::new(reader, options.line_bytes_max.min(LINE_BYTES_LIMIT));
        let records: Box<dyn ReadRecord> = match format {
            InputFormat::Text => Box::new(text::Text::new(lines, options.escapes)),
            InputFormat::Hex => Box::new(text::Hex::new(lines)),
            InputFormat::Json => Box::new(json::JsonLines::new(lines)),
            InputFormat::Csv => Box::new(csv::Csv::new(lines, options.columns.clone())),
        };
        Ok(Self { records, read_bytes, total_bytes })
    }

    /// Reads the next record into `record`, whose contents are replaced; false at the end of the input. After a
    /// malformed line the next call goes on behind it.
    pub(crate) fn read(&mut self, record: &mut Record) -> std::result::Result<bool, InputError> {
        record.key.clear();
        record.value.clear();
        if !self.records.read(record)? {
            return Ok(false);
        }
        let line = self.records.line();
        if record.key.len() > KEY_BYTES_MAX {
            let reason =
                format!("the key has {} bytes; the longest allowed has {KEY_BYTES_MAX}", record.key.len());
            return Err(InputError::Malformed { line, reason });
        }
        if record.value.len() as u64 > VALUE_BYTES_MAX {
            let reason = format!(
                "the value has {} bytes; the longest allowed has {VALUE_BYTES_MAX}",
                record.value.len()
            );
            return Err(InputError::Malformed { line, reason });
        }
        Ok(true)
    }

    /// The line at which the record read last begins.
    pub(crate) fn line(&self) -> u64 {
        self.records.line()
    }

    /// Bytes read so far, before decompression.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.read_bytes.get()
    }

    /// Bytes in the file, if it is one.
    pub(crate) fn total_bytes(&self) -> Option<u64> {
        self.total_bytes
    }
}

/// What an error in reading means: damaged compressed data is corruption, the rest is I/O.
pub(crate) fn read_failure(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
            Failure::Corruption(format!("the compressed data is damaged: {error}"))
        }
        _ => Failure::Io(format!("cannot read: {error}")),
    }
}

fn skip_byte_order_mark(reader: &mut dyn BufRead) -> io::Result<()> {
    const MARK: &[u8] = "\u{feff}".as_bytes();
    // The first buffer holds the mark whole: `decompressed` has seen to it.
    if reader.fill_buf()?.starts_with(MARK) {
        reader.consume(MARK.len());
    }
    Ok(())
}

/// The records of an input in tests, as line, escaped key and escaped value; and its malformed lines.
#[cfg(test)]
type ReadAll = (Vec<(u64, String, String)>, Vec<(u64, String)>);

#[cfg(test)]
fn read_all(bytes: impl Into<Vec<u8>>, format: InputFormat, options: &InputOptions) -> ReadAll {
    let mut input = Input::new(io::Cursor::new(bytes.into()), None, format, options).unwrap();
    let (mut records, mut malformed) = (Vec::new(), Vec::new());
    let mut record = Record::default();
    loop {
        match input.read(&mut record) {
            Ok(true) => records.push((
                input.line(),
                crate::escape::escaped(&record.key),
                crate::escape::escaped(&record.value),
            )),
            Ok(false) => return (records, malformed),
            Err(InputError::Malformed { line, reason }) => malformed.push((line, reason)),
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[cfg(test)]
fn plain_options() -> InputOptions {
    InputOptions { format: None, escapes: true, columns: CsvColumns::default(), line_bytes_max: 1 << 20 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_tells_the_format() {
        for (name, format) in [
            ("a.csv", InputFormat::Csv),
            ("a.CSV.gz", InputFormat::Csv),
            ("a.jsonl.zst", InputFormat::Json),
            ("a.ndjson", InputFormat::Json),
            ("a.hex", InputFormat::Hex),
            ("a.tsv.gz", InputFormat::Text),
            ("csv", InputFormat::Text),
            ("-", InputFormat::Text),
        ] {
            assert_eq!(InputFormat::of_name(Path::new(name)), format, "{name}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_key() {
        let (records, _) = read_all("\u{feff}a\tb\n", InputFormat::Text, &plain_options());
        assert_eq!(records, [(1, "a".into(), "b".into())]);
    }

    #[test]
    fn a_key_that_is_too_long_is_a_malformed_line() {
        let long = "k".repeat(KEY_BYTES_MAX + 1);
        let fits = "k".repeat(KEY_BYTES_MAX);
        let (records, malformed) =
            read_all(format!("a\t1\n{long}\t2\n{fits}\t3\n"), InputFormat::Text, &plain_options());
        assert_eq!(records.iter().map(|record| record.0).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(malformed[0].0, 2);
        assert!(malformed[0].1.contains("65535"), "{}", malformed[0].1);
    }
}
