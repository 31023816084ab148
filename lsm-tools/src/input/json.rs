//! JSON lines: `{"key":"...","value":"..."}`, either of them in hex digits as `"key_hex"`, `"value_hex"`.

use serde_json::{Map, Value};

use super::line::Lines;
use super::record::{InputError, ReadRecord, Record};
use crate::escape::decode_hex;

/// One object a line; members of other names are passed over.
pub(super) struct JsonLines {
    lines: Lines,
}

impl JsonLines {
    pub(super) fn new(lines: Lines) -> Self {
        Self { lines }
    }
}

impl ReadRecord for JsonLines {
    fn read(&mut self, record: &mut Record) -> Result<bool, InputError> {
        let Some(line) = self.lines.next()? else { return Ok(false) };
        let object: Map<String, Value> = serde_json::from_slice(line).map_err(|error| {
            self.lines.malformed(format!("not a JSON object (column {}: {})", error.column(), short(&error)))
        })?;
        take_member(&object, "key", &mut record.key)
            .and_then(|()| take_member(&object, "value", &mut record.value))
            .map_err(|reason| self.lines.malformed(reason))?;
        Ok(true)
    }

    fn line(&self) -> u64 {
        self.lines.number()
    }
}

fn take_member(object: &Map<String, Value>, name: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let hex_name = format!("{name}_hex");
    match (object.get(name), object.get(&hex_name)) {
        (Some(Value::String(text)), None) => {
            out.extend_from_slice(text.as_bytes());
            Ok(())
        }
        (None, Some(Value::String(digits))) => {
            decode_hex(digits.as_bytes(), out).map_err(|reason| format!("\"{hex_name}\": {reason}"))
        }
        (Some(_), Some(_)) => Err(format!("both \"{name}\" and \"{hex_name}\"")),
        (None, None) => Err(format!("no \"{name}\" and no \"{hex_name}\"")),
        (Some(_), None) => Err(format!("\"{name}\" is not a string")),
        (None, Some(_)) => Err(format!("\"{hex_name}\" is not a string")),
    }
}

/// What is wrong, without the place: serde counts every line as line 1.
fn short(error: &serde_json::Error) -> String {
    let message = error.to_string();
    message.rsplit_once(" at line ").map_or(message.clone(), |(what, _)| what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::record::read_all;

    #[test]
    fn objects_become_records() {
        let text = concat!(
            "{\"key\":\"a\\n\",\"value\":\"\u{1f600}\",\"more\":[1]}\n",
            "{\"key_hex\":\"00ff\",\"value_hex\":\"\"}\r\n",
            "{\"key\":1,\"value\":\"\"}\n",
            "[\"key\",\"value\"]\n",
            "{\"key\":\"a\",\n",
            "{\"key\":\"a\",\"key_hex\":\"00\",\"value\":\"\"}\n",
            "{\"key\":\"a\"}\n",
            "{\"key\":\"a\",\"value_hex\":\"0\"}\n",
        );
        let (records, malformed) = read_all(JsonLines::new(Lines::of(text)));
        assert_eq!(
            records,
            [(1, "a\\n".into(), "\u{1f600}".into()), (2, "\\x00\\xff".into(), String::new())]
        );
        assert_eq!(malformed.iter().map(|bad| bad.0).collect::<Vec<_>>(), [3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn deep_nesting_is_malformed_and_no_stack_overflow() {
        let text = format!("{{\"key\":{}}}\n", "[".repeat(1 << 20));
        let (records, malformed) = read_all(JsonLines::new(Lines::of(text)));
        assert!(records.is_empty());
        assert_eq!(malformed.len(), 1);
    }
}
