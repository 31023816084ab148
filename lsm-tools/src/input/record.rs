use std::io;

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
pub(super) trait ReadRecord {
    /// Reads the next record into `record`, whose contents are replaced; false at the end of the input.
    fn read(&mut self, record: &mut Record) -> std::result::Result<bool, InputError>;

    /// The line at which the record read last begins.
    fn line(&self) -> u64;
}

/// The records of an input, as line, escaped key and escaped value; and its malformed lines.
#[cfg(test)]
pub(super) type ReadAll = (Vec<(u64, String, String)>, Vec<(u64, String)>);

#[cfg(test)]
pub(super) fn read_all(mut reader: impl ReadRecord) -> ReadAll {
    use crate::escape::escaped;

    let (mut records, mut malformed) = (Vec::new(), Vec::new());
    loop {
        let mut record = Record::default();
        match reader.read(&mut record) {
            Ok(true) => records.push((reader.line(), escaped(&record.key), escaped(&record.value))),
            Ok(false) => return (records, malformed),
            Err(InputError::Malformed { line, reason }) => malformed.push((line, reason)),
            Err(error) => panic!("{error:?}"),
        }
    }
}
