//! Key, tab, value: with escapes, or in hex digits.

use super::line::Lines;
use super::record::{InputError, ReadRecord, Record};
use crate::escape::{decode_hex, unescape};

/// `key TAB value` lines. The first tab ends the key; more of them belong to the value.
pub(super) struct Text {
    lines: Lines,
    escapes: bool,
}

impl Text {
    pub(super) fn new(lines: Lines, escapes: bool) -> Self {
        Self { lines, escapes }
    }
}

impl ReadRecord for Text {
    fn read(&mut self, record: &mut Record) -> Result<bool, InputError> {
        let Some(line) = self.lines.next()? else { return Ok(false) };
        let Some((key, value)) = split_at_tab(line) else {
            return Err(self.lines.malformed("no tab between key and value"));
        };
        if self.escapes {
            unescape(key, &mut record.key)
                .and_then(|()| unescape(value, &mut record.value))
                .map_err(|reason| self.lines.malformed(reason))?;
        } else {
            record.key.extend_from_slice(key);
            record.value.extend_from_slice(value);
        }
        Ok(true)
    }

    fn line(&self) -> u64 {
        self.lines.number()
    }
}

/// `key TAB value` lines in hex digits.
pub(super) struct Hex {
    lines: Lines,
}

impl Hex {
    pub(super) fn new(lines: Lines) -> Self {
        Self { lines }
    }
}

impl ReadRecord for Hex {
    fn read(&mut self, record: &mut Record) -> Result<bool, InputError> {
        let Some(line) = self.lines.next()? else { return Ok(false) };
        let Some((key, value)) = split_at_tab(line) else {
            return Err(self.lines.malformed("no tab between key and value"));
        };
        decode_hex(key, &mut record.key)
            .and_then(|()| decode_hex(value, &mut record.value))
            .map_err(|reason| self.lines.malformed(reason))?;
        Ok(true)
    }

    fn line(&self) -> u64 {
        self.lines.number()
    }
}

fn split_at_tab(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let tab = line.iter().position(|&byte| byte == b'\t')?;
    Some((&line[..tab], &line[tab + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::record::read_all;

    #[test]
    fn lines_become_records() {
        let (records, malformed) =
            read_all(Text::new(Lines::of(b"a\t1\r\n\t\nno tab\nb\\t\t\\xff\tx\n\nc\\d\t1\n\xfe\tend"), true));
        let expected = [(1, "a", "1"), (2, "", ""), (4, "b\\t", "\\xff\\tx"), (7, "\\xfe", "end")];
        assert_eq!(records, expected.map(|(line, key, value)| (line, key.to_owned(), value.to_owned())));
        assert_eq!(malformed.iter().map(|bad| bad.0).collect::<Vec<_>>(), [3, 5, 6]);
        assert!(malformed[2].1.contains(r"\d is no escape"), "{}", malformed[2].1);
    }

    #[test]
    fn without_escapes_a_backslash_is_a_backslash() {
        let (records, _) = read_all(Text::new(Lines::of("C:\\new\t\\\n"), false));
        assert_eq!(records, [(1, "C:\\\\new".into(), "\\\\".into())]);
    }

    #[test]
    fn hex_lines_become_records() {
        let (records, malformed) = read_all(Hex::new(Lines::of("6a\tFF\n\t\nzz\t00\n0\t00\n")));
        assert_eq!(records, [(1, "j".into(), "\\xff".into()), (2, String::new(), String::new())]);
        assert_eq!(malformed.iter().map(|bad| bad.0).collect::<Vec<_>>(), [3, 4]);
    }
}
