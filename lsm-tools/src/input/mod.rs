//! Records out of files: what `load` reads.
//!
//! A file is opened ([`Input::open`]), decompressed if its first bytes say so, cut into lines, and each line (or
//! CSV record) is a [`Record`]. All of it streams: memory is bounded by the longest line, and that by
//! [`InputOptions::line_bytes_max`], however large the file and whatever it inflates to.

mod csv;
mod decompress;
mod json;
mod line;
mod options;
mod reader;
mod record;
mod text;

pub(crate) use options::{CsvColumns, InputFormat, InputOptions};
pub(crate) use reader::{Input, read_failure};
pub(crate) use record::{InputError, Record};
