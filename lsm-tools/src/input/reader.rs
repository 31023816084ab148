//! Opens an input and reads its records.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::rc::Rc;

use lsm_core::key::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

use super::csv::Csv;
use super::decompress::decompressed;
use super::json::JsonLines;
use super::line::Lines;
use super::options::{InputFormat, InputOptions};
use super::record::{InputError, ReadRecord, Record};
use super::text::{Hex, Text};
use crate::exit::{Failure, Result};
use crate::progress::Counted;

/// No line, and no CSV record, may be longer, in bytes.
const LINE_BYTES_LIMIT: u64 = if usize::BITS > 32 { 4 << 30 } else { 1 << 30 };

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
        let mut reader = decompressed(reader)?;
        skip_byte_order_mark(&mut *reader)?;
        let lines = Lines::new(reader, options.line_bytes_max.min(LINE_BYTES_LIMIT));
        let records: Box<dyn ReadRecord> = match format {
            InputFormat::Text => Box::new(Text::new(lines, options.escapes)),
            InputFormat::Hex => Box::new(Hex::new(lines)),
            InputFormat::Json => Box::new(JsonLines::new(lines)),
            InputFormat::Csv => Box::new(Csv::new(lines, options.columns.clone())),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::options::CsvColumns;
    use crate::input::record::read_all;

    impl ReadRecord for Input {
        fn read(&mut self, record: &mut Record) -> std::result::Result<bool, InputError> {
            Input::read(self, record)
        }

        fn line(&self) -> u64 {
            Input::line(self)
        }
    }

    fn text(bytes: impl Into<Vec<u8>>) -> Input {
        let columns = CsvColumns::default();
        let options = InputOptions { format: None, escapes: true, columns, line_bytes_max: 1 << 20 };
        Input::new(io::Cursor::new(bytes.into()), None, InputFormat::Text, &options).unwrap()
    }

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
        let (records, _) = read_all(text("\u{feff}a\tb\n"));
        assert_eq!(records, [(1, "a".into(), "b".into())]);
    }

    #[test]
    fn a_key_that_is_too_long_is_a_malformed_line() {
        let long = "k".repeat(KEY_BYTES_MAX + 1);
        let fits = "k".repeat(KEY_BYTES_MAX);
        let (records, malformed) = read_all(text(format!("a\t1\n{long}\t2\n{fits}\t3\n")));
        assert_eq!(records.iter().map(|record| record.0).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(malformed[0].0, 2);
        assert!(malformed[0].1.contains("65535"), "{}", malformed[0].1);
    }
}
