//! One thing that a dump shows: a name and fields, as a line of text or a JSON object.

use std::io::{self, Write};

use clap::ValueEnum;
use lsm_core::{BlobPointer, ValueKind, expiry};

use crate::escape::{escaped, write_hex};

/// How a dump is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ItemFormat {
    /// A name and name=value pairs; bytes in quotes, with escapes.
    #[default]
    Text,
    /// One JSON object a line; bytes that are not text under a name with `_hex` added.
    Json,
}

/// A name and fields.
pub(crate) struct Item<'a> {
    what: &'static str,
    fields: Vec<(&'static str, Field<'a>)>,
}

enum Field<'a> {
    Number(u64),
    Text(String),
    Bytes(&'a [u8]),
}

impl<'a> Item<'a> {
    /// An item without fields.
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, fields: Vec::new() }
    }

    /// Adds a number.
    pub(crate) fn number(self, name: &'static str, number: impl Into<u64>) -> Self {
        self.field(name, Field::Number(number.into()))
    }

    /// Adds words.
    pub(crate) fn text(self, name: &'static str, text: impl Into<String>) -> Self {
        self.field(name, Field::Text(text.into()))
    }

    /// Adds bytes that may be anything.
    pub(crate) fn bytes(self, name: &'static str, bytes: &'a [u8]) -> Self {
        self.field(name, Field::Bytes(bytes))
    }

    /// Adds the value of an entry of this kind: the end of a range, nothing for deletes, and only its length where
    /// values are not wanted.
    pub(crate) fn value(self, kind: ValueKind, value: &'a [u8], shown: bool) -> Self {
        match kind {
            ValueKind::RangeDelete => self.bytes("end", value),
            ValueKind::PutWithExpiry if let Some((micros, value)) = expiry::split(value) => {
                self.number("expiry_micros", micros).value(ValueKind::Put, value, shown)
            }
            ValueKind::BlobPointer if let Some(pointer) = BlobPointer::decode(value) => {
                let item = if pointer.expires() {
                    self.number("expiry_micros", pointer.expiry_micros)
                } else {
                    self
                };
                let item = item.number("blob", pointer.blob).number("number", pointer.number);
                item.number("offset", pointer.offset).number("value_bytes", pointer.bytes)
            }
            _ if value.is_empty() && kind != ValueKind::Put => self,
            _ if shown => self.bytes("value", value),
            _ => self.number("value_bytes", value.len() as u64),
        }
    }

    fn field(mut self, name: &'static str, field: Field<'a>) -> Self {
        self.fields.push((name, field));
        self
    }

    /// Writes the item on a line of its own.
    pub(crate) fn write(&self, out: &mut dyn Write, format: ItemFormat) -> io::Result<()> {
        match format {
            ItemFormat::Text => self.write_text(out)?,
            ItemFormat::Json => self.write_json(out)?,
        }
        out.write_all(b"\n")
    }

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{}", self.what)?;
        for (name, field) in &self.fields {
            match field {
                Field::Number(number) => write!(out, " {name}={number}")?,
                Field::Text(text) if text.contains(' ') => write!(out, " {name}=\"{text}\"")?,
                Field::Text(text) => write!(out, " {name}={text}")?,
                Field::Bytes(bytes) => write!(out, " {name}=\"{}\"", escaped(bytes).replace('"', "\\\""))?,
            }
        }
        Ok(())
    }

    fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{{\"what\":\"{}\"", self.what)?;
        for (name, field) in &self.fields {
            match field {
                Field::Number(number) => write!(out, ",\"{name}\":{number}")?,
                Field::Text(text) => write_json_text(out, name, text)?,
                Field::Bytes(bytes) => {
                    if let Ok(text) = std::str::from_utf8(bytes) {
                        write_json_text(out, name, text)?;
                    } else {
                        write!(out, ",\"{name}_hex\":\"")?;
                        write_hex(out, bytes)?;
                        out.write_all(b"\"")?;
                    }
                }
            }
        }
        out.write_all(b"}")
    }
}

fn write_json_text(out: &mut dyn Write, name: &str, text: &str) -> io::Result<()> {
    write!(out, ",\"{name}\":")?;
    Ok(serde_json::to_writer(out, text)?)
}

/// What an entry of this kind is called.
pub(crate) fn name_of(kind: ValueKind) -> &'static str {
    match kind {
        ValueKind::Put => "put",
        ValueKind::Delete => "delete",
        ValueKind::PutWithExpiry => "put_with_expiry",
        ValueKind::SingleDelete => "single_delete",
        ValueKind::RangeDelete => "range_delete",
        ValueKind::Merge => "merge",
        ValueKind::BlobPointer => "blob_pointer",
        ValueKind::Prepare => "prepare",
        ValueKind::Commit => "commit",
        ValueKind::Ingest => "ingest",
        ValueKind::KeyspaceClear => "keyspace_clear",
        ValueKind::KeyspaceDrop => "keyspace_drop",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_a_line_of_text_or_an_object() {
        let item = Item::new("put")
            .number("sequence", 7_u64)
            .bytes("key", b"a \"b\"\n")
            .bytes("value", b"\xff")
            .text("why", "no reason");
        let line = |format| {
            let mut out = Vec::new();
            item.write(&mut out, format).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            line(ItemFormat::Text),
            "put sequence=7 key=\"a \\\"b\\\"\\n\" value=\"\\xff\" why=\"no reason\"\n"
        );
        assert_eq!(
            line(ItemFormat::Json),
            "{\"what\":\"put\",\"sequence\":7,\"key\":\"a \\\"b\\\"\\n\",\"value_hex\":\"ff\",\"why\":\"no reason\"}\n"
        );
    }
}
