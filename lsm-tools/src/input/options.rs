use std::path::Path;

use clap::ValueEnum;

use crate::exit::{Failure, Result};

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
    pub(super) fn expect_for(&self, format: InputFormat) -> Result<()> {
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

/// Which columns are key and value.
#[derive(Clone, Debug, Default)]
pub(crate) struct CsvColumns {
    /// Whether the first record names the columns. Implied by a name below.
    pub(crate) header: bool,
    /// Name of the key's column; the first if not given.
    pub(crate) key: Option<String>,
    /// Name of the value's column; the second if not given.
    pub(crate) value: Option<String>,
}
