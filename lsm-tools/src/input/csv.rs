//! CSV as RFC 4180 has it: commas, fields in double quotes where need be, a quote inside doubled.
//!
//! Strict where other readers guess: a quote that is never closed, or followed by anything but a comma, is a
//! malformed record, and not a value of half the file.

use super::line::Lines;
use super::options::CsvColumns;
use super::record::{InputError, ReadRecord, Record};

/// Records of a CSV file.
pub(super) struct Csv {
    lines: Lines,
    columns: CsvColumns,
    /// Indexes of key and value; `None` until the header was read.
    indexes: Option<(usize, usize)>,
    /// The fields of a record one after the other, and where each ends.
    fields: Vec<u8>,
    ends: Vec<usize>,
    first_line: u64,
}

impl Csv {
    pub(super) fn new(lines: Lines, columns: CsvColumns) -> Self {
        let header = columns.header || columns.key.is_some() || columns.value.is_some();
        Self {
            lines,
            columns,
            indexes: (!header).then_some((0, 1)),
            fields: Vec::new(),
            ends: Vec::new(),
            first_line: 0,
        }
    }

    /// Reads one record, of one line or more, into `fields`; false at the end of the input.
    fn read_fields(&mut self) -> Result<bool, InputError> {
        self.fields.clear();
        self.ends.clear();
        let first = self.lines.next().map(|line| line.is_some());
        self.first_line = self.lines.number();
        if !first? {
            return Ok(false);
        }
        let mut quoted = false;
        loop {
            quoted = self.parse_line(quoted)?;
            if !quoted {
                return Ok(true);
            }
            self.fields.push(b'\n');
            let bytes_max = self.lines.bytes_max();
            if self.fields.len() as u64 > bytes_max {
                return Err(self.malformed(format!("the record is longer than {bytes_max} bytes")));
            }
            if self.lines.next()?.is_none() {
                return Err(self.malformed("a quote is opened and never closed".to_owned()));
            }
        }
    }

    /// Takes the current line apart. `quoted`: whether it begins inside a quoted field; returns whether it ends
    /// so.
    fn parse_line(&mut self, mut quoted: bool) -> Result<bool, InputError> {
        let mut rest = self.lines.current();
        loop {
            if !quoted && let [b'"', after @ ..] = rest {
                quoted = true;
                rest = after;
            }
            if quoted {
                let Some(at) = rest.iter().position(|&byte| byte == b'"') else {
                    self.fields.extend_from_slice(rest);
                    return Ok(true);
                };
                self.fields.extend_from_slice(&rest[..at]);
                rest = &rest[at + 1..];
                match rest {
                    [b'"', after @ ..] => {
                        self.fields.push(b'"');
                        rest = after;
                        continue;
                    }
                    [] | [b',', ..] => quoted = false,
                    _ => return Err(self.malformed("a closing quote is followed by more text".to_owned())),
                }
            } else {
                let at = rest.iter().position(|&byte| byte == b',').unwrap_or(rest.len());
                if rest[..at].contains(&b'"') {
                    return Err(self.malformed("a quote inside a field that is not quoted".to_owned()));
                }
                self.fields.extend_from_slice(&rest[..at]);
                rest = &rest[at..];
            }
            self.ends.push(self.fields.len());
            match rest {
                [b',', after @ ..] => rest = after,
                _ => return Ok(false),
            }
        }
    }

    fn field(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.fields[start..end])
    }

    /// Finds the columns in the header, which was just read.
    fn find_columns(&self) -> Result<(usize, usize), InputError> {
        let find = |name: &Option<String>, default: usize| match name {
            None => Ok(default),
            Some(name) => (0..self.ends.len())
                .find(|&index| self.field(index) == Some(name.as_bytes()))
                .ok_or_else(|| InputError::Header {
                    line: self.first_line,
                    reason: format!("the header has no column \"{name}\""),
                }),
        };
        Ok((find(&self.columns.key, 0)?, find(&self.columns.value, 1)?))
    }

    fn malformed(&self, reason: String) -> InputError {
        InputError::Malformed { line: self.first_line, reason }
    }
}

impl ReadRecord for Csv {
    fn read(&mut self, record: &mut Record) -> Result<bool, InputError> {
        if self.indexes.is_none() {
            if !self.read_fields()? {
                return Ok(false);
            }
            self.indexes = Some(self.find_columns()?);
        }
        let (key, value) = self.indexes.unwrap_or((0, 1));
        if !self.read_fields()? {
            return Ok(false);
        }
        let (Some(key_bytes), Some(value_bytes)) = (self.field(key), self.field(value)) else {
            let (found, needed) = (self.ends.len(), key.max(value) + 1);
            return Err(self.malformed(format!("{found} column(s), at least {needed} needed")));
        };
        record.key.extend_from_slice(key_bytes);
        record.value.extend_from_slice(value_bytes);
        Ok(true)
    }

    fn line(&self) -> u64 {
        self.first_line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::record::{ReadAll, read_all};

    fn read(text: &str, columns: CsvColumns) -> ReadAll {
        read_all(Csv::new(Lines::of(text), columns))
    }

    fn owned<const N: usize>(records: [(u64, &str, &str); N]) -> Vec<(u64, String, String)> {
        records.map(|(line, key, value)| (line, key.to_owned(), value.to_owned())).to_vec()
    }

    #[test]
    fn the_first_two_columns_are_key_and_value() {
        let (records, malformed) =
            read("a,1,x\r\n\"b,\"\"c\",\"two\r\nlines\"\n\"\",\nC:\\d,2\n", CsvColumns::default());
        assert_eq!(malformed, []);
        assert_eq!(
            records,
            owned([(1, "a", "1"), (2, "b,\"c", "two\\nlines"), (4, "", ""), (5, "C:\\\\d", "2")])
        );
    }

    #[test]
    fn a_header_names_the_columns() {
        let named = |key: Option<&str>, value: Option<&str>| CsvColumns {
            header: true,
            key: key.map(str::to_owned),
            value: value.map(str::to_owned),
        };
        let text = "id,city,country\n1,Oslo,Norway\n2,Turku\n";
        assert_eq!(read(text, named(None, None)).0, owned([(2, "1", "Oslo"), (3, "2", "Turku")]));
        let (records, malformed) = read(text, named(Some("country"), Some("id")));
        assert_eq!(records, owned([(2, "Norway", "1")]));
        assert_eq!(malformed, [(3, "2 column(s), at least 3 needed".to_owned())]);
    }

    #[test]
    fn records_that_are_not_csv_are_malformed() {
        let (records, malformed) =
            read("a,1\n\"b\"x,2\nc\"d,3\ne\n\nf,4\n\"g,5\nh,6\n", CsvColumns::default());
        assert_eq!(records, owned([(1, "a", "1"), (6, "f", "4")]));
        assert_eq!(malformed.iter().map(|bad| bad.0).collect::<Vec<_>>(), [2, 3, 4, 5, 7]);
        assert!(malformed[4].1.contains("never closed"), "{}", malformed[4].1);
    }
}
