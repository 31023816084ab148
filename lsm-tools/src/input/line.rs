use std::io::{BufRead, Read};

use super::record::InputError;

/// Lines of bounded length, numbered from 1.
pub(super) struct Lines {
    reader: Box<dyn BufRead>,
    number: u64,
    line: Vec<u8>,
    bytes_max: u64,
    /// The rest of a line that was too long has not been read yet: perhaps nobody wants to know what follows, and
    /// the line has no end.
    cut: bool,
}

impl Lines {
    pub(super) fn new(reader: Box<dyn BufRead>, bytes_max: u64) -> Self {
        Self { reader, number: 0, line: Vec::new(), bytes_max, cut: false }
    }

    /// Lines of up to a mebibyte, in tests.
    #[cfg(test)]
    pub(super) fn of(text: impl Into<Vec<u8>>) -> Self {
        Self::new(Box::new(std::io::Cursor::new(text.into())), 1 << 20)
    }

    /// Longest line in bytes.
    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// The next line without its end (line feed, or carriage return and line feed); `None` at the end of the
    /// input. A line that is too long is malformed, and is never held in memory whole.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, InputError> {
        self.line.clear();
        if std::mem::take(&mut self.cut) {
            self.reader.skip_until(b'\n')?;
        }
        let limit = self.bytes_max + 2; // the line's end does not count
        let count = self.reader.by_ref().take(limit).read_until(b'\n', &mut self.line)?;
        if count == 0 {
            return Ok(None);
        }
        self.number += 1;
        if self.line.ends_with(b"\n") {
            self.line.pop();
            if self.line.ends_with(b"\r") {
                self.line.pop();
            }
        } else if count as u64 == limit {
            self.cut = true;
        }
        if self.line.len() as u64 > self.bytes_max {
            return Err(self.malformed(format!("the line is longer than {} bytes", self.bytes_max)));
        }
        Ok(Some(&self.line))
    }

    /// The line that [`next`](Self::next) returned last.
    pub(super) fn current(&self) -> &[u8] {
        &self.line
    }

    /// Number of the line that [`next`](Self::next) returned last.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The error for the line that [`next`](Self::next) returned last.
    pub(super) fn malformed(&self, reason: impl Into<String>) -> InputError {
        InputError::Malformed { line: self.number, reason: reason.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &'static str, bytes_max: u64) -> Vec<Result<String, u64>> {
        let mut lines = Lines::new(Box::new(text.as_bytes()), bytes_max);
        let mut out = Vec::new();
        loop {
            match lines.next() {
                Ok(Some(line)) => out.push(Ok(String::from_utf8(line.to_vec()).unwrap())),
                Ok(None) => return out,
                Err(InputError::Malformed { line, .. }) => out.push(Err(line)),
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    #[test]
    fn line_ends_of_both_kinds_are_taken_off() {
        let expected = ["a", "b", "", "c\rd", "e"].map(|line| Ok(line.to_owned()));
        assert_eq!(lines("a\nb\r\n\nc\rd\ne", 100), expected);
    }

    #[test]
    fn a_line_without_an_end_is_refused_at_once() {
        let mut lines = Lines::new(Box::new(std::io::BufReader::new(std::io::repeat(b'x'))), 100);
        assert!(matches!(lines.next(), Err(InputError::Malformed { line: 1, .. })));
    }

    #[test]
    fn a_line_that_is_too_long_is_left_out_and_counted() {
        let text = "12345\n123456\n12345\r\n1234567890123\nx\n1234567";
        let ok = |line: &str| Ok(line.to_owned());
        assert_eq!(lines(text, 5), [ok("12345"), Err(2), ok("12345"), Err(4), ok("x"), Err(6)]);
    }
}
