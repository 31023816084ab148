//! Standard output: lines, and records as text, JSON or hex.

use std::fmt;
use std::io::{self, BufWriter, StdoutLock, Write};

use clap::ValueEnum;

use crate::escape::{write_escaped, write_hex};
use crate::exit::{Failure, Result};
use crate::item::{Item, ItemFormat};

/// How records are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Key, tab, value; tab, line break, backslash and bytes that are not text as \t, \n, \\ and \xNN.
    #[default]
    Text,
    /// One JSON object a line: {"key":"...","value":"..."}; bytes that are not text as `key_hex`, `value_hex`.
    Json,
    /// Key, tab, value in hex digits.
    Hex,
}

/// Standard output, buffered. Whatever goes wrong with it is a [`Failure`] already, so that a closed pipe is
/// told from every other I/O error.
pub(crate) struct Output {
    writer: BufWriter<StdoutLock<'static>>,
}

impl Output {
    /// Takes standard output.
    pub(crate) fn stdout() -> Self {
        Self { writer: BufWriter::with_capacity(1 << 16, io::stdout().lock()) }
    }

    /// Writes one line.
    pub(crate) fn line(&mut self, line: fmt::Arguments<'_>) -> Result<()> {
        self.writer
            .write_fmt(line)
            .and_then(|()| self.writer.write_all(b"\n"))
            .map_err(|e| Failure::stdout(&e))
    }

    /// Writes one record on a line of its own.
    pub(crate) fn record(&mut self, format: Format, key: &[u8], value: &[u8]) -> Result<()> {
        write_record(&mut self.writer, format, key, value).map_err(|e| Failure::stdout(&e))
    }

    /// Writes one key, or one value, on a line of its own; `name` is what a JSON object calls it.
    pub(crate) fn field(&mut self, format: Format, name: &str, bytes: &[u8]) -> Result<()> {
        let out = &mut self.writer;
        match format {
            Format::Text => write_escaped(out, bytes),
            Format::Hex => write_hex(out, bytes),
            Format::Json => write_json_object(out, &[(name, bytes)]),
        }
        .and_then(|()| self.writer.write_all(b"\n"))
        .map_err(|e| Failure::stdout(&e))
    }

    /// Writes one item of a dump on a line of its own.
    pub(crate) fn item(&mut self, item: &Item<'_>, format: ItemFormat) -> Result<()> {
        item.write(&mut self.writer, format).map_err(|e| Failure::stdout(&e))
    }

    /// Writes bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).map_err(|e| Failure::stdout(&e))
    }

    /// Hands everything written so far to the reader.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.writer.flush().map_err(|e| Failure::stdout(&e))
    }
}

/// Writes one line that `load` reads back as the same record.
pub(crate) fn write_record(out: &mut dyn Write, format: Format, key: &[u8], value: &[u8]) -> io::Result<()> {
    match format {
        Format::Text => {
            write_escaped(out, key)?;
            out.write_all(b"\t")?;
            write_escaped(out, value)?;
        }
        Format::Hex => {
            write_hex(out, key)?;
            out.write_all(b"\t")?;
            write_hex(out, value)?;
        }
        Format::Json => write_json_object(out, &[("key", key), ("value", value)])?,
    }
    out.write_all(b"\n")
}

/// `{"name":"text"}`, or `{"name_hex":"00ff"}` where the bytes are no UTF-8.
pub(crate) fn write_json_object(out: &mut dyn Write, fields: &[(&str, &[u8])]) -> io::Result<()> {
    out.write_all(b"{")?;
    for (index, (name, bytes)) in fields.iter().enumerate() {
        if index > 0 {
            out.write_all(b",")?;
        }
        if let Ok(text) = std::str::from_utf8(bytes) {
            write!(out, "\"{name}\":")?;
            serde_json::to_writer(&mut *out, text)?;
        } else {
            write!(out, "\"{name}_hex\":\"")?;
            write_hex(out, bytes)?;
            out.write_all(b"\"")?;
        }
    }
    out.write_all(b"}")
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of bytes for people: `512 B`, `3.4 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    let (mut amount, mut unit) = (count as f64, "B");
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if amount < 1024.0 {
            break;
        }
        (amount, unit) = (amount / 1024.0, next);
    }
    if unit == "B" { format!("{count} B") } else { format!("{amount:.1} {unit}") }
}

/// A time for people: `850 µs`, `12.3 ms`, `4.56 s`.
pub(crate) fn duration(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

/// `count` things in `micros`, as a rate for people: `1.23 M/s`, `456 K/s`.
pub(crate) fn rate(count: u64, micros: u64) -> String {
    let per_second = count as f64 * 1e6 / micros.max(1) as f64;
    if per_second >= 999_500.0 {
        format!("{:.2} M/s", per_second / 1e6)
    } else if per_second >= 1e4 {
        format!("{:.0} K/s", per_second / 1e3)
    } else {
        format!("{per_second:.0}/s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_in_every_format() {
        let line = |format, key: &[u8], value: &[u8]| {
            let mut out = Vec::new();
            write_record(&mut out, format, key, value).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(line(Format::Text, b"a\tb", b"\xff"), "a\\tb\t\\xff\n");
        assert_eq!(line(Format::Hex, b"a", b"\xff"), "61\tff\n");
        assert_eq!(line(Format::Json, b"a\"", b"\xff"), "{\"key\":\"a\\\"\",\"value_hex\":\"ff\"}\n");
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(3_565_158), "3.4 MiB");
        assert_eq!(duration(850), "850 µs");
        assert_eq!(duration(12_345), "12.3 ms");
        assert_eq!(rate(1_230_000, 1_000_000), "1.23 M/s");
        assert_eq!(rate(456_000, 1_000_000), "456 K/s");
        assert_eq!(rate(5, 0), "5.00 M/s");
    }
}
