//! The encoding of events in the flight recorder.
//!
//! ```text
//! record := event*
//! event  := length:varint body            length of the body, so that a reader can pass over events that it does not know
//! body   := tag:u8 number:varint unix_micros:varint field*
//! field  := varint | length:varint byte*  numbers, and texts in UTF-8; which ones depends on the tag
//! ```
//!
//! An option is two fields: 0 or 1, and the value if it is 1. A reason to wait is its number in [`REASONS`]. A body may
//! be longer than the fields that are known: later versions append fields.

use std::sync::Arc;

use lsm_core::coding::{Decoder, put_bytes, put_varint};

use crate::events::{Event, EventKind, REASONS, WaitReason};

const OPENED: u8 = 1;
/// How a database was opened if it is new; otherwise whether it had been closed.
const CREATED: u64 = 2;
const CLOSED: u8 = 2;
const FLUSH_BEGIN: u8 = 3;
const FLUSH_END: u8 = 4;
const COMPACTION_BEGIN: u8 = 5;
const COMPACTION_END: u8 = 6;
const TABLES_MOVED: u8 = 7;
const TABLES_DROPPED: u8 = 8;
const FILE_CREATED: u8 = 9;
const FILE_DELETED: u8 = 10;
const LOG_SEGMENT: u8 = 11;
const STALL_BEGIN: u8 = 12;
const STALL_END: u8 = 13;
const RATE_LIMIT: u8 = 14;
const SNAPSHOT_EXPIRED: u8 = 15;
const ERROR: u8 = 16;
const LAGGED: u8 = 17;
const SHORT_STALLS: u8 = 18;
const PAUSED: u8 = 19;
const RESUMED: u8 = 20;
const INGESTED: u8 = 21;
const LOG_PIN_LOST: u8 = 24;

const CUT: &str = "an event is cut";

/// A text in the recorder is cut after so many bytes: the message of an error may be long.
const TEXT_BYTES_MAX: usize = 1024;

/// Appends an event to a record.
pub(super) fn encode(out: &mut Vec<u8>, event: &Event) {
    let mut fields = Fields(Vec::with_capacity(64));
    fields.event(event);
    put_bytes(out, &fields.0);
}

/// The events of a record. `Err` tells what is wrong; events before it are added. Unknown events are left out.
pub(super) fn decode(record: &[u8], events: &mut impl Extend<Event>) -> Result<(), &'static str> {
    let mut record = Decoder::new(record);
    while !record.is_empty() {
        let body = record.bytes().ok_or("an event is longer than its record")?;
        events.extend(Body(Decoder::new(body)).event()?);
    }
    Ok(())
}

struct Fields(Vec<u8>);

impl Fields {
    fn numbers<const N: usize>(&mut self, numbers: [u64; N]) {
        for number in numbers {
            put_varint(&mut self.0, number);
        }
    }

    fn text(&mut self, text: &str) {
        let mut length = text.len().min(TEXT_BYTES_MAX);
        while !text.is_char_boundary(length) {
            length -= 1;
        }
        put_bytes(&mut self.0, &text.as_bytes()[..length]);
    }

    fn option(&mut self, text: Option<&Arc<str>>) {
        self.numbers([u64::from(text.is_some())]);
        if let Some(text) = text {
            self.text(text);
        }
    }

    fn event(&mut self, event: &Event) {
        let tag = match &event.kind {
            EventKind::Opened { .. } => OPENED,
            EventKind::Closed => CLOSED,
            EventKind::FlushBegin { .. } => FLUSH_BEGIN,
            EventKind::FlushEnd { .. } => FLUSH_END,
            EventKind::CompactionBegin { .. } => COMPACTION_BEGIN,
            EventKind::CompactionEnd { .. } => COMPACTION_END,
            EventKind::TablesMoved { .. } => TABLES_MOVED,
            EventKind::TablesDropped { .. } => TABLES_DROPPED,
            EventKind::Ingested { .. } => INGESTED,
            EventKind::FileCreated { .. } => FILE_CREATED,
            EventKind::FileDeleted { .. } => FILE_DELETED,
            EventKind::LogSegment { .. } => LOG_SEGMENT,
            EventKind::StallBegin { .. } => STALL_BEGIN,
            EventKind::StallEnd { .. } => STALL_END,
            EventKind::RateLimit { .. } => RATE_LIMIT,
            EventKind::SnapshotExpired { .. } => SNAPSHOT_EXPIRED,
            EventKind::Error { .. } => ERROR,
            EventKind::Lagged(_) => LAGGED,
            EventKind::ShortStalls { .. } => SHORT_STALLS,
            EventKind::Paused => PAUSED,
            EventKind::Resumed => RESUMED,
            EventKind::LogPinLost { .. } => LOG_PIN_LOST,
        };
        self.0.push(tag);
        self.numbers([event.number, event.unix_micros]);
        match &event.kind {
            EventKind::Opened { created, was_clean, replayed_records, micros } => {
                let how = if *created { CREATED } else { u64::from(*was_clean) };
                self.numbers([how, *replayed_records, *micros]);
            }
            EventKind::Closed | EventKind::Paused | EventKind::Resumed => {}
            EventKind::FlushBegin { keyspace, bytes } => {
                self.text(keyspace);
                self.numbers([*bytes]);
            }
            EventKind::FlushEnd { keyspace, tables, bytes, micros } => {
                self.text(keyspace);
                self.numbers([*tables, *bytes, *micros]);
            }
            EventKind::CompactionBegin { keyspace, reason, level, tables, bytes } => {
                self.text(keyspace);
                self.text(reason);
                self.numbers([*level, *tables, *bytes]);
            }
            EventKind::CompactionEnd { keyspace, level, tables, bytes, micros } => {
                self.text(keyspace);
                self.numbers([*level, *tables, *bytes, *micros]);
            }
            EventKind::TablesMoved { keyspace, level, tables, bytes } => {
                self.text(keyspace);
                self.numbers([*level, *tables, *bytes]);
            }
            EventKind::TablesDropped { keyspace, tables, bytes }
            | EventKind::Ingested { keyspace, tables, bytes } => {
                self.text(keyspace);
                self.numbers([*tables, *bytes]);
            }
            EventKind::FileCreated { file, bytes } => {
                self.text(file);
                self.numbers([*bytes]);
            }
            EventKind::FileDeleted { file } | EventKind::LogSegment { file } => self.text(file),
            EventKind::StallBegin { why } => self.numbers([*why as u64]),
            EventKind::StallEnd { why, micros } => self.numbers([*why as u64, *micros]),
            EventKind::RateLimit { keyspace, why, bytes_per_second } => {
                self.option(keyspace.as_ref());
                // No limit is 0 bytes per second.
                self.numbers([*why as u64, bytes_per_second.unwrap_or(0)]);
            }
            EventKind::SnapshotExpired { label, sequence, age_micros } => {
                self.option(label.as_ref());
                self.numbers([*sequence, *age_micros]);
            }
            EventKind::LogPinLost { label, bytes_max } => {
                self.option(label.as_ref());
                self.numbers([*bytes_max]);
            }
            EventKind::Error { during, keyspace, message } => {
                self.text(during);
                self.option(keyspace.as_ref());
                self.text(message);
            }
            EventKind::Lagged(count) => self.numbers([*count]),
            EventKind::ShortStalls { why, count, micros } => self.numbers([*why as u64, *count, *micros]),
        }
    }
}

/// The fields of an event.
struct Body<'r>(Decoder<'r>);

impl Body<'_> {
    fn number(&mut self) -> Result<u64, &'static str> {
        self.0.varint().ok_or(CUT)
    }

    fn text(&mut self) -> Result<Arc<str>, &'static str> {
        Ok(String::from_utf8_lossy(self.0.bytes().ok_or(CUT)?).into())
    }

    fn option(&mut self) -> Result<Option<Arc<str>>, &'static str> {
        if self.number()? == 0 { Ok(None) } else { self.text().map(Some) }
    }

    /// `None` if the reason is not known.
    fn reason(&mut self) -> Result<Option<WaitReason>, &'static str> {
        let number = self.number()?;
        Ok(usize::try_from(number).ok().and_then(|number| REASONS.get(number)).copied())
    }

    /// `None` for an event or a reason that is not known.
    fn event(&mut self) -> Result<Option<Event>, &'static str> {
        let (tag, number, unix_micros) = (self.0.u8().ok_or(CUT)?, self.number()?, self.number()?);
        let kind = match tag {
            OPENED => {
                let how = self.number()?;
                EventKind::Opened {
                    created: how == CREATED,
                    was_clean: how == 1,
                    replayed_records: self.number()?,
                    micros: self.number()?,
                }
            }
            CLOSED => EventKind::Closed,
            PAUSED => EventKind::Paused,
            RESUMED => EventKind::Resumed,
            FLUSH_BEGIN => EventKind::FlushBegin { keyspace: self.text()?, bytes: self.number()? },
            FLUSH_END => EventKind::FlushEnd {
                keyspace: self.text()?,
                tables: self.number()?,
                bytes: self.number()?,
                micros: self.number()?,
            },
            COMPACTION_BEGIN => EventKind::CompactionBegin {
                keyspace: self.text()?,
                reason: self.text()?,
                level: self.number()?,
                tables: self.number()?,
                bytes: self.number()?,
            },
            COMPACTION_END => EventKind::CompactionEnd {
                keyspace: self.text()?,
                level: self.number()?,
                tables: self.number()?,
                bytes: self.number()?,
                micros: self.number()?,
            },
            TABLES_MOVED => EventKind::TablesMoved {
                keyspace: self.text()?,
                level: self.number()?,
                tables: self.number()?,
                bytes: self.number()?,
            },
            TABLES_DROPPED => EventKind::TablesDropped {
                keyspace: self.text()?,
                tables: self.number()?,
                bytes: self.number()?,
            },
            INGESTED => {
                EventKind::Ingested { keyspace: self.text()?, tables: self.number()?, bytes: self.number()? }
            }
            FILE_CREATED => EventKind::FileCreated { file: self.text()?, bytes: self.number()? },
            FILE_DELETED => EventKind::FileDeleted { file: self.text()? },
            LOG_SEGMENT => EventKind::LogSegment { file: self.text()? },
            STALL_BEGIN | STALL_END | SHORT_STALLS => {
                let Some(why) = self.reason()? else { return Ok(None) };
                match tag {
                    STALL_BEGIN => EventKind::StallBegin { why },
                    STALL_END => EventKind::StallEnd { why, micros: self.number()? },
                    _ => EventKind::ShortStalls { why, count: self.number()?, micros: self.number()? },
                }
            }
            RATE_LIMIT => {
                let keyspace = self.option()?;
                let Some(why) = self.reason()? else { return Ok(None) };
                let bytes_per_second = Some(self.number()?).filter(|&rate| rate != 0);
                EventKind::RateLimit { keyspace, why, bytes_per_second }
            }
            SNAPSHOT_EXPIRED => EventKind::SnapshotExpired {
                label: self.option()?,
                sequence: self.number()?,
                age_micros: self.number()?,
            },
            LOG_PIN_LOST => EventKind::LogPinLost { label: self.option()?, bytes_max: self.number()? },
            ERROR => {
                EventKind::Error { during: self.text()?, keyspace: self.option()?, message: self.text()? }
            }
            LAGGED => EventKind::Lagged(self.number()?),
            _ => return Ok(None),
        };
        Ok(Some(Event { number, unix_micros, kind }))
    }
}

/// Sums up short stalls, so that a recorder of a busy database reaches further back: each begin and end of a stall
/// that lasted less than `long_micros` becomes a part of one event for each reason.
pub(super) fn without_short_stalls(events: Vec<Event>, long_micros: u64) -> Vec<Event> {
    let mut kept: Vec<Event> = Vec::with_capacity(events.len());
    let mut short = [(0_u64, 0_u64); REASONS.len()];
    let (mut number, mut unix_micros) = (0, 0);
    for event in events {
        (number, unix_micros) = (event.number, event.unix_micros);
        let ended = match event.kind {
            EventKind::StallEnd { why, micros } if micros < long_micros => Some((why, micros)),
            _ => None,
        };
        let begun = ended.and_then(|(why, _)| {
            kept.iter().rposition(|before| before.kind == EventKind::StallBegin { why })
        });
        match (ended, begun) {
            (Some((why, micros)), Some(begun)) => {
                kept.remove(begun);
                if let Some((count, sum)) = short.get_mut(why as usize) {
                    (*count, *sum) = (*count + 1, *sum + micros);
                }
            }
            _ => kept.push(event),
        }
    }
    let summed = |(why, (count, micros)): (WaitReason, (u64, u64))| {
        let kind = EventKind::ShortStalls { why, count, micros };
        (count > 0).then_some(Event { number, unix_micros, kind })
    };
    kept.extend(REASONS.into_iter().zip(short).filter_map(summed));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One event of each kind.
    fn samples() -> Vec<Event> {
        let (keyspace, file): (Arc<str>, Arc<str>) = ("orders".into(), "000007.sst".into());
        let key = || Arc::clone(&keyspace);
        let why = WaitReason::DiskSpace;
        let kinds = vec![
            EventKind::Opened { created: false, was_clean: true, replayed_records: 3, micros: 1 << 40 },
            EventKind::Opened { created: true, was_clean: false, replayed_records: 0, micros: 5 },
            EventKind::Closed,
            EventKind::FlushBegin { keyspace: key(), bytes: 1 },
            EventKind::FlushEnd { keyspace: key(), tables: 1, bytes: 2, micros: 3 },
            EventKind::CompactionBegin {
                keyspace: key(),
                reason: "manual".into(),
                level: 6,
                tables: 2,
                bytes: 9,
            },
            EventKind::CompactionEnd { keyspace: key(), level: 6, tables: 2, bytes: 300, micros: 4 },
            EventKind::TablesMoved { keyspace: key(), level: 1, tables: 2, bytes: 300 },
            EventKind::TablesDropped { keyspace: key(), tables: 2, bytes: 300 },
            EventKind::Ingested { keyspace: key(), tables: 2, bytes: 300 },
            EventKind::FileCreated { file: Arc::clone(&file), bytes: 300 },
            EventKind::FileDeleted { file: Arc::clone(&file) },
            EventKind::LogSegment { file },
            EventKind::StallBegin { why },
            EventKind::StallEnd { why, micros: u64::MAX },
            EventKind::RateLimit { keyspace: Some(key()), why, bytes_per_second: Some(1_000_000) },
            EventKind::RateLimit { keyspace: None, why, bytes_per_second: None },
            EventKind::SnapshotExpired { label: Some("report".into()), sequence: 9, age_micros: 10 },
            EventKind::SnapshotExpired { label: None, sequence: 9, age_micros: 10 },
            EventKind::LogPinLost { label: Some("slot".into()), bytes_max: 11 },
            EventKind::Error { during: "a flush".into(), keyspace: Some(key()), message: "no space".into() },
            EventKind::Lagged(12),
            EventKind::ShortStalls { why, count: 3, micros: 4 },
            EventKind::Paused,
            EventKind::Resumed,
        ];
        let event = |(number, kind)| Event { number, unix_micros: 1_700_000_000_000_000 + number, kind };
        (0..).zip(kinds).map(event).collect()
    }

    fn encoded(events: &[Event]) -> Vec<u8> {
        let mut record = Vec::new();
        for event in events {
            encode(&mut record, event);
        }
        record
    }

    #[test]
    fn events_survive_encoding() {
        let mut decoded = Vec::new();
        decode(&encoded(&samples()), &mut decoded).unwrap();
        assert_eq!(decoded, samples());
    }

    #[test]
    fn events_that_are_not_known_are_passed_over_and_later_fields_too() {
        let [first, .., last] = &samples()[..] else { panic!("too few") };
        let mut record = encoded(std::slice::from_ref(first));
        let mut longer = encoded(std::slice::from_ref(first));
        longer[0] += 3;
        longer.extend([1, 2, 3]);
        record.extend(longer);
        put_bytes(&mut record, &[200, 1, 2, 3, 4]);
        put_bytes(&mut record, &[STALL_BEGIN, 1, 2, 250, 1]);
        record.extend(encoded(std::slice::from_ref(last)));
        let mut decoded = Vec::new();
        decode(&record, &mut decoded).unwrap();
        assert_eq!(decoded, [first.clone(), first.clone(), last.clone()]);
    }

    #[test]
    fn cut_and_changed_records_are_refused_or_read_and_never_panic() {
        let record = encoded(&samples());
        for length in 0..record.len() {
            let mut decoded = Vec::new();
            let _ = decode(&record[..length], &mut decoded);
            assert!(samples().starts_with(&decoded));
        }
        for bit in 0..record.len() * 8 {
            let mut changed = record.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let _ = decode(&changed, &mut Vec::new());
        }
        assert!(decode(&[0xff; 10], &mut Vec::new()).is_err());
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let message: Arc<str> = "é".repeat(TEXT_BYTES_MAX).into();
        let kind = EventKind::Error { during: "x".into(), keyspace: None, message: Arc::clone(&message) };
        let mut decoded = Vec::new();
        decode(&encoded(&[Event { number: 0, unix_micros: 0, kind }]), &mut decoded).unwrap();
        let EventKind::Error { message: read, .. } = &decoded[0].kind else { panic!("{decoded:?}") };
        assert!(message.starts_with(&**read) && read.len() == TEXT_BYTES_MAX);
    }

    #[test]
    fn short_stalls_are_summed_up_and_long_ones_kept() {
        let why = WaitReason::Memory;
        let event = |number, kind| Event { number, unix_micros: number, kind };
        let begin = |number| event(number, EventKind::StallBegin { why });
        let end = |number, micros| event(number, EventKind::StallEnd { why, micros });
        let events = vec![
            end(0, 5),
            begin(1),
            end(2, 99),
            begin(3),
            end(4, 100),
            begin(5),
            end(6, 1),
            event(7, EventKind::Closed),
            begin(8),
        ];
        let summed = event(8, EventKind::ShortStalls { why, count: 2, micros: 100 });
        let expected = [end(0, 5), begin(3), end(4, 100), event(7, EventKind::Closed), begin(8), summed];
        assert_eq!(without_short_stalls(events, 100), expected);
    }
}
