//! Bytes as text on one line, and back.
//!
//! ```text
//! \t \n \r \\      tab, line feed, carriage return, backslash
//! \"               a quote; written only where the text stands in quotes
//! \xNN             any other byte that is not part of a printable UTF-8 character; NN are two hex digits
//! the rest         as it is
//! ```
//!
//! Every sequence of bytes has one such text, and reading it gives the same bytes: `scan | load` loses nothing.

use std::io::{self, Write};

/// Writes `bytes` to `out` as text that holds no tab, no line break and nothing that a terminal would obey.
pub(crate) fn write_escaped(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    for chunk in bytes.utf8_chunks() {
        let text = chunk.valid();
        let mut plain_from = 0;
        for (at, character) in text.char_indices() {
            if is_plain(character) {
                continue;
            }
            out.write_all(&text.as_bytes()[plain_from..at])?;
            plain_from = at + character.len_utf8();
            match character {
                '\t' => out.write_all(b"\\t")?,
                '\n' => out.write_all(b"\\n")?,
                '\r' => out.write_all(b"\\r")?,
                '\\' => out.write_all(b"\\\\")?,
                _ => write_hex_escapes(out, &text.as_bytes()[at..plain_from])?,
            }
        }
        out.write_all(&text.as_bytes()[plain_from..])?;
        write_hex_escapes(out, chunk.invalid())?;
    }
    Ok(())
}

/// [`write_escaped`] into a string, for messages.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    let _ = write_escaped(&mut out, bytes); // writing to a Vec cannot fail
    String::from_utf8_lossy(&out).into_owned()
}

fn write_hex_escapes(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    bytes.iter().try_for_each(|byte| write!(out, "\\x{byte:02x}"))
}

/// Controls, the byte-order mark (which input drops) and the characters that turn the direction of the text
/// around are not plain.
fn is_plain(character: char) -> bool {
    match character {
        ' '..='~' => character != '\\',
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => false,
        _ => !character.is_control(),
    }
}

/// Appends to `out` the bytes that `text` stands for. An error says what is wrong with which escape.
pub(crate) fn unescape(text: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&byte| byte == b'\\') {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        let (byte, escape_len) = match *rest {
            [b't', ..] => (b'\t', 1),
            [b'n', ..] => (b'\n', 1),
            [b'r', ..] => (b'\r', 1),
            [byte @ (b'\\' | b'"'), ..] => (byte, 1),
            [b'x', high, low, ..] => match (hex_digit(high), hex_digit(low)) {
                (Some(high), Some(low)) => (high << 4 | low, 3),
                _ => return Err(bad_escape(&rest[..3])),
            },
            _ => return Err(bad_escape(&rest[..rest.len().min(1)])),
        };
        out.push(byte);
        rest = &rest[escape_len..];
    }
    out.extend_from_slice(rest);
    Ok(())
}

fn bad_escape(after_backslash: &[u8]) -> String {
    format!(
        r"\{} is no escape: use \t, \n, \r, \xNN, and \\ for a backslash itself",
        after_backslash.escape_ascii()
    )
}

/// Appends to `out` the bytes whose hex digits are `digits`.
pub(crate) fn decode_hex(digits: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let (pairs, odd) = digits.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(format!("{} hex digits: two make a byte", digits.len()));
    }
    for &[high, low] in pairs {
        match (hex_digit(high), hex_digit(low)) {
            (Some(high), Some(low)) => out.push(high << 4 | low),
            _ => return Err(format!("\"{}\" is not hex", [high, low].escape_ascii())),
        }
    }
    Ok(())
}

/// Writes two hex digits for each byte.
pub(crate) fn write_hex(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for chunk in bytes.chunks(64) {
        let mut digits = [0; 128];
        for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(chunk) {
            *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
        }
        out.write_all(&digits[..2 * chunk.len()])?;
    }
    Ok(())
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_string_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        for bytes in [
            b"".as_slice(),
            b"plain",
            b"a\tb\nc\rd\\e\0",
            "Reykjavík \u{feff}\u{202e}\u{85}東京".as_bytes(),
            b"\xff\xc3\xe6\x9d",
            &all,
        ] {
            let text = escaped(bytes);
            assert!(!text.contains(['\t', '\n', '\r', '\0', '\u{202e}']), "{text}");
            let mut back = Vec::new();
            unescape(text.as_bytes(), &mut back).unwrap();
            assert_eq!(back, bytes);

            let mut digits = Vec::new();
            write_hex(&mut digits, bytes).unwrap();
            back.clear();
            decode_hex(&digits, &mut back).unwrap();
            assert_eq!(back, bytes);
        }
    }

    #[test]
    fn printable_characters_stay_readable() {
        assert_eq!(escaped("Reykjavík/東京 \"'".as_bytes()), "Reykjavík/東京 \"'");
        assert_eq!(escaped(b"\x1b[31m\xff\\"), r"\x1b[31m\xff\\");
    }

    #[test]
    fn an_unknown_escape_is_named() {
        for bad in [r"\d", r"\", r"\x1", r"\xg1", r"\x"] {
            let mut out = Vec::new();
            assert!(unescape(bad.as_bytes(), &mut out).is_err(), "{bad}");
        }
        assert!(decode_hex(b"abc", &mut Vec::new()).is_err());
        assert!(decode_hex(b"zz", &mut Vec::new()).is_err());
    }
}
