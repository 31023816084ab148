//! The files of a log: their names, segments and windows, and reading records from one of them.

pub(crate) mod directory;
pub(crate) mod record_reader;
pub(crate) mod segment_file;
pub(crate) mod window_file;
