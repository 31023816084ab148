//! Version edits: the records of the manifest.
//!
//! ```text
//! edit  := field*
//! field := tag:u8 body        a tag of 128 or more: `bytes`, which a reader passes over if it does not know the tag
//!   1 next_number     varint                       no file or run has this number or a higher one
//!   2 last_sequence   varint                       no write had a higher sequence number
//!   3 log             position:varint segment:varint synced:varint   the position where replay starts, the first
//!                                                   needed segment, and the position up to which the log is durable
//!   4 keyspace        id:varint name:bytes options
//!   5 drop            id:varint
//!   6 flushed         id:varint sequence:varint    all writes up to it are in tables
//!   7 add             id:varint level:varint run:varint number:varint created:varint tombstones_since:varint meta
//!   8 remove          id:varint number:varint
//!   9 next_keyspace   varint                       no keyspace has this id or a higher one
//!  10 clock           varint                       high-water mark of the wall clock, microseconds
//!  11 log_begun       varint                       the log has a segment with this number or a higher one
//!  12 age_clock       varint                       time of the clock of `created` and `tombstones_since`, microseconds
//!  13 add_blob        id:varint blob:varint number:varint file_id:u128 file_bytes:varint checksum:u64 values:varint
//!                     value_bytes:varint          the file of a blob; one that is there already is replaced
//!  20 epoch           number:varint id:u64 position:varint sequence:varint   the database was opened for writing
//!  21 slot            name:bytes bytes_max:varint position:bytes            a change slot is made, or has moved
//!  22 drop_slot       name:bytes
//!  23 keyspace_event  number:varint is_drop:u8 keyspace:varint name:bytes sequence:varint
//!  24 event_count     varint                       number of the last keyspace event
//!  30 purged          varint                       what writes up to this number deleted is in no file any more
//!  40 database_id     u128                         random, not 0; tells this database from all others
//! options := count:varint (name:bytes value:bytes)*count      names ascend
//! meta  := id:u128 file_bytes:varint checksum:u64 smallest:bytes largest:bytes entries:varint tombstones:varint
//!          range_tombstones:varint smallest_sequence:varint largest_sequence:varint raw_key_bytes:varint
//!          raw_value_bytes:varint extras
//! extras := count:varint (tag:u8 value:bytes)*count      numbers as varints; tags ascend; 128 or more as above
//!   1 blobs           (blob:varint values:varint bytes:varint)*      what the pointers of the table point to
//!   2 global_sequence varint                       the number of everything in an ingested table, above 0
//! ```

use std::sync::Arc;

use lsm_core::coding::{Decoder, SKIPPABLE, put_bytes, put_varint};
use lsm_core::{DecodeError, SEQUENCE_MAX, SequenceNumber, Slice};
use lsm_sstable::{BlobMeta, BlobRef, TableId, TableMeta};
use lsm_wal::{CleanClose, LogExpectation, Position};

use crate::change_position::ChangePosition;
use crate::options::StoredOptions;
use crate::version::files;
use crate::version::history::{Epoch, KeyspaceEvent, SlotRecord};

const NEXT_NUMBER: u8 = 1;
const LAST_SEQUENCE: u8 = 2;
const LOG: u8 = 3;
const KEYSPACE: u8 = 4;
const DROP: u8 = 5;
const FLUSHED: u8 = 6;
const ADD: u8 = 7;
const REMOVE: u8 = 8;
const NEXT_KEYSPACE: u8 = 9;
const CLOCK: u8 = 10;
const LOG_BEGUN: u8 = 11;
const AGE_CLOCK: u8 = 12;
const ADD_BLOB: u8 = 13;
const EPOCH: u8 = 20;
const SLOT: u8 = 21;
const DROP_SLOT: u8 = 22;
const KEYSPACE_EVENT: u8 = 23;
const EVENT_COUNT: u8 = 24;
const PURGED: u8 = 30;
const DATABASE_ID: u8 = 40;

/// Tags of extras of a table.
const BLOBS: u8 = 1;
const GLOBAL_SEQUENCE: u8 = 2;

/// Maximum number of levels of a keyspace. A manifest with a higher level is damaged. Versions keep a list per level.
pub(crate) const LEVEL_COUNT_MAX: usize = 256;

/// Positions in the log are below this: records have seven bytes for them.
const POSITION_END: u64 = 1 << 56;

/// One change to the set of tables and keyspaces, applied whole or not at all.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct VersionEdit {
    /// No file or run has this number or a higher one.
    pub next_number: Option<u64>,
    /// No write in a table has a higher sequence number.
    pub last_sequence: Option<SequenceNumber>,
    /// The start of the log for replay.
    pub log: Option<LogStart>,
    /// The log has a segment with this number or a higher one. If there is none, the log was lost.
    pub log_begun: Option<u64>,
    /// Created keyspaces, and keyspaces with other options.
    pub keyspaces: Vec<KeyspaceRecord>,
    /// Ids of dropped keyspaces.
    pub dropped: Vec<u32>,
    /// Keyspace ids, and the sequence number up to which all writes of each are in tables.
    pub flushed: Vec<(u32, SequenceNumber)>,
    /// Added tables.
    pub added: Vec<AddedTable>,
    /// Added blob files. One whose blob has a file replaces it.
    pub added_blobs: Vec<AddedBlob>,
    /// Keyspace ids and numbers of removed tables. A blob that no table refers to any more goes by itself.
    pub removed: Vec<(u32, u64)>,
    /// No keyspace has this id or a higher one.
    pub next_keyspace: Option<u32>,
    /// The highest wall clock seen, in microseconds since 1970.
    pub clock_micros: Option<u64>,
    /// What writes up to this number deleted or overwrote is in no file any more, in keyspaces with
    /// `KeyspaceOptions::purge_within`.
    pub purged: Option<SequenceNumber>,
    /// The time of the clock for table ages, in microseconds. That clock ignores jumps of the wall clock.
    pub age_clock_micros: Option<u64>,
    /// A random number that tells this database from all others. A checkpoint has another one, a restored backup the same.
    pub database_id: Option<u128>,
    /// Epochs that begin.
    pub epochs: Vec<Epoch>,
    /// Change slots that are made, or that have moved.
    pub slots: Vec<SlotRecord>,
    /// Names of dropped change slots.
    pub dropped_slots: Vec<Arc<str>>,
    /// Keyspaces that were created or dropped, for readers of changes.
    pub keyspace_events: Vec<KeyspaceEvent>,
    /// The number of the last event of a keyspace.
    pub keyspace_event_count: Option<u64>,
}

/// The start of the log for replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStart {
    /// Records that end at or before this position are in tables.
    pub position: u64,
    /// The lowest number of a segment that may be needed; 0 before there was a log.
    pub segment: u64,
    /// The position up to which the log was synced. A log that ends before it is damaged.
    pub synced: u64,
}

impl LogStart {
    /// What a log must hold that is read from here on.
    pub(crate) fn expectation(&self, clean: Option<CleanClose>, begun: u64) -> LogExpectation {
        // The log may lack records that are in tables, even synced ones. So the synced position only counts above the
        // start.
        let synced = if self.synced > self.position { self.synced } else { 0 };
        LogExpectation { from: Position(self.position), synced: Position(synced), clean, begun }
    }
}

/// A keyspace in the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyspaceRecord {
    /// Its id. Ids are never reused.
    pub id: u32,
    /// Its name, unique among existing keyspaces.
    pub name: Arc<str>,
    /// Its options, as they are stored.
    pub options: Arc<StoredOptions>,
}

/// A table in the manifest, with its level and run.
#[derive(Clone, Debug, PartialEq)]
pub struct AddedTable {
    /// Id of the keyspace.
    pub keyspace: u32,
    /// Its level. Level 0 is the newest.
    pub level: u32,
    /// The number of its run. In a level, the run with the higher number is newer.
    pub run: u64,
    /// Number of its file.
    pub number: u64,
    /// The time at which it was written, in microseconds of the clock for table ages.
    pub created_micros: u64,
    /// The time at which its oldest tombstone was first written to a table; `None` if it has no tombstones.
    pub tombstones_since_micros: Option<u64>,
    /// Its size, checksum, key range and counts.
    pub meta: TableMeta,
}

/// A blob file in the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedBlob {
    /// Id of the keyspace.
    pub keyspace: u32,
    /// What pointers call it: the number of the file that its values were written to first.
    pub blob: u64,
    /// Number of its file: another one than `blob` if it was rewritten.
    pub number: u64,
    /// Its id, size and checksum, and what it holds.
    pub meta: BlobMeta,
}

impl VersionEdit {
    /// The payload of the manifest record.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut field = |tag: u8, numbers: &[u64]| put_field(&mut out, tag, numbers);
        if let Some(number) = self.next_number {
            field(NEXT_NUMBER, &[number]);
        }
        if let Some(sequence) = self.last_sequence {
            field(LAST_SEQUENCE, &[sequence]);
        }
        if let Some(log) = self.log {
            field(LOG, &[log.position, log.segment, log.synced]);
        }
        if let Some(id) = self.next_keyspace {
            field(NEXT_KEYSPACE, &[u64::from(id)]);
        }
        if let Some(micros) = self.clock_micros {
            field(CLOCK, &[micros]);
        }
        if let Some(micros) = self.age_clock_micros {
            field(AGE_CLOCK, &[micros]);
        }
        if let Some(sequence) = self.purged {
            field(PURGED, &[sequence]);
        }
        if let Some(segment) = self.log_begun {
            field(LOG_BEGUN, &[segment]);
        }
        if let Some(id) = self.database_id {
            field(DATABASE_ID, &[]);
            out.extend_from_slice(&id.to_le_bytes());
        }
        let mut field = |tag: u8, numbers: &[u64]| put_field(&mut out, tag, numbers);
        for &id in &self.dropped {
            field(DROP, &[u64::from(id)]);
        }
        for &(id, sequence) in &self.flushed {
            field(FLUSHED, &[u64::from(id), sequence]);
        }
        for &(id, number) in &self.removed {
            field(REMOVE, &[u64::from(id), number]);
        }
        self.encode_history(&mut out);
        for keyspace in &self.keyspaces {
            out.push(KEYSPACE);
            put_varint(&mut out, u64::from(keyspace.id));
            put_bytes(&mut out, keyspace.name.as_bytes());
            put_varint(&mut out, keyspace.options.iter().len() as u64);
            for (name, value) in keyspace.options.iter() {
                put_bytes(&mut out, name.as_bytes());
                put_bytes(&mut out, value);
            }
        }
        for AddedBlob { keyspace, blob, number, meta } in &self.added_blobs {
            out.push(ADD_BLOB);
            put_varint(&mut out, u64::from(*keyspace));
            put_varint(&mut out, *blob);
            put_varint(&mut out, *number);
            out.extend_from_slice(&meta.id.0.to_le_bytes());
            put_varint(&mut out, meta.file_bytes);
            out.extend_from_slice(&meta.checksum.to_le_bytes());
            put_varint(&mut out, meta.values);
            put_varint(&mut out, meta.value_bytes);
        }
        for table in &self.added {
            out.push(ADD);
            for number in [
                u64::from(table.keyspace),
                u64::from(table.level),
                table.run,
                table.number,
                table.created_micros,
                table.tombstones_since_micros.unwrap_or(0),
            ] {
                put_varint(&mut out, number);
            }
            encode_meta(&mut out, &table.meta);
        }
        out
    }

    fn encode_history(&self, out: &mut Vec<u8>) {
        for epoch in &self.epochs {
            put_field(out, EPOCH, &[epoch.number]);
            out.extend_from_slice(&epoch.id.to_le_bytes());
            put_varint(out, epoch.position);
            put_varint(out, epoch.sequence);
        }
        for name in &self.dropped_slots {
            out.push(DROP_SLOT);
            put_bytes(out, name.as_bytes());
        }
        for slot in &self.slots {
            out.push(SLOT);
            put_bytes(out, slot.name.as_bytes());
            put_varint(out, slot.bytes_max);
            put_bytes(out, &slot.position.to_bytes());
        }
        for event in &self.keyspace_events {
            put_field(out, KEYSPACE_EVENT, &[event.number]);
            out.push(u8::from(event.is_drop));
            put_varint(out, u64::from(event.keyspace));
            put_bytes(out, event.name.as_bytes());
            put_varint(out, event.sequence);
        }
        if let Some(count) = self.keyspace_event_count {
            put_field(out, EVENT_COUNT, &[count]);
        }
    }

    /// Decodes the output of [`encode`](Self::encode).
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut edit = Self::default();
        let mut decoder = Decoder::new(payload);
        while let Some(tag) = decoder.u8() {
            let mut unknown = None;
            let field = edit.decode_field(tag, &mut decoder, &mut unknown);
            if let Some(what) = unknown {
                return Err(DecodeError::Unknown(what));
            }
            field.ok_or_else(|| format!("field {tag} of the version edit is malformed or out of range"))?;
        }
        Ok(edit)
    }

    /// Decodes a field. `None` if it is malformed. Sets `unknown` to what it is if it must be known and is not.
    fn decode_field(
        &mut self,
        tag: u8,
        decoder: &mut Decoder<'_>,
        unknown: &mut Option<String>,
    ) -> Option<()> {
        match tag {
            NEXT_NUMBER => self.next_number = Some(number(decoder)?),
            LAST_SEQUENCE => self.last_sequence = Some(sequence(decoder)?),
            LOG => {
                self.log = Some(LogStart {
                    position: position(decoder)?,
                    segment: number(decoder)?,
                    synced: position(decoder)?,
                });
            }
            NEXT_KEYSPACE => self.next_keyspace = Some(id(decoder)?),
            CLOCK => self.clock_micros = Some(decoder.varint()?),
            AGE_CLOCK => self.age_clock_micros = Some(decoder.varint()?),
            PURGED => self.purged = Some(sequence(decoder)?),
            LOG_BEGUN => self.log_begun = Some(number(decoder)?),
            DATABASE_ID => self.database_id = Some(decoder.u128().filter(|&id| id != 0)?),
            DROP => self.dropped.push(id(decoder)?),
            FLUSHED => self.flushed.push((id(decoder)?, sequence(decoder)?)),
            REMOVE => self.removed.push((id(decoder)?, decoder.varint()?)),
            EPOCH => self.epochs.push(Epoch {
                number: decoder.varint()?,
                id: decoder.u64()?,
                position: position(decoder)?,
                sequence: sequence(decoder)?,
            }),
            SLOT => self.slots.push(SlotRecord {
                name: text(decoder)?,
                bytes_max: decoder.varint()?,
                position: ChangePosition::from_bytes(decoder.bytes()?).ok()?,
            }),
            DROP_SLOT => self.dropped_slots.push(text(decoder)?),
            KEYSPACE_EVENT => self.keyspace_events.push(KeyspaceEvent {
                number: decoder.varint()?,
                is_drop: decoder.u8().filter(|&is_drop| is_drop < 2)? == 1,
                keyspace: id(decoder)?,
                name: text(decoder)?,
                sequence: sequence(decoder)?,
            }),
            EVENT_COUNT => self.keyspace_event_count = Some(decoder.varint()?),
            KEYSPACE => {
                self.keyspaces.push(KeyspaceRecord {
                    id: id(decoder)?,
                    name: text(decoder)?,
                    options: Arc::new(options(decoder)?),
                });
            }
            ADD_BLOB => self.added_blobs.push(AddedBlob {
                keyspace: id(decoder)?,
                blob: number(decoder)?,
                number: number(decoder)?,
                meta: BlobMeta {
                    id: TableId(decoder.u128()?),
                    file_bytes: decoder.varint()?,
                    checksum: decoder.u64()?,
                    values: decoder.varint()?,
                    value_bytes: decoder.varint()?,
                },
            }),
            ADD => self.added.push(AddedTable {
                keyspace: id(decoder)?,
                level: id(decoder).filter(|&level| (level as usize) < LEVEL_COUNT_MAX)?,
                run: number(decoder)?,
                number: number(decoder)?,
                created_micros: decoder.varint()?,
                tombstones_since_micros: Some(decoder.varint()?).filter(|&micros| micros != 0),
                meta: decode_meta(decoder, unknown)?,
            }),
            _ if tag & SKIPPABLE != 0 => drop(decoder.bytes()?),
            _ => *unknown = Some(format!("field {tag} of a version edit")),
        }
        Some(())
    }
}

fn put_field(out: &mut Vec<u8>, tag: u8, numbers: &[u64]) {
    out.push(tag);
    for &number in numbers {
        put_varint(out, number);
    }
}

/// Encodes the tables of an ingest, as its log record has them.
///
/// ```text
/// tables := (number:varint created:varint tombstones_since:varint meta)*      as in the field `add` of an edit
/// ```
pub(crate) fn encode_ingested<'t>(tables: impl IntoIterator<Item = &'t AddedTable>) -> Vec<u8> {
    let mut out = Vec::new();
    for table in tables {
        for number in [table.number, table.created_micros, table.tombstones_since_micros.unwrap_or(0)] {
            put_varint(&mut out, number);
        }
        encode_meta(&mut out, &table.meta);
    }
    out
}

/// Decodes the tables of an ingest into a keyspace with this sequence number, which each of them has from then on. They
/// are in no run yet.
pub fn decode_ingested(
    bytes: &[u8],
    keyspace: u32,
    sequence: SequenceNumber,
) -> Result<Vec<AddedTable>, DecodeError> {
    let (mut decoder, mut unknown) = (Decoder::new(bytes), None);
    let mut tables = Vec::new();
    while !decoder.is_empty() {
        let Some(mut table) = decode_ingested_table(&mut decoder, &mut unknown) else {
            return Err(
                unknown.map_or_else(|| "the tables of an ingest are malformed".into(), DecodeError::Unknown)
            );
        };
        table.keyspace = keyspace;
        let TableMeta { smallest_sequence, largest_sequence, global_sequence, .. } = &mut table.meta;
        for number in [smallest_sequence, largest_sequence, global_sequence] {
            *number = sequence;
        }
        tables.push(table);
    }
    Ok(tables)
}

fn decode_ingested_table(decoder: &mut Decoder<'_>, unknown: &mut Option<String>) -> Option<AddedTable> {
    Some(AddedTable {
        keyspace: 0,
        level: 0,
        run: 0,
        number: number(decoder)?,
        created_micros: decoder.varint()?,
        tombstones_since_micros: Some(decoder.varint()?).filter(|&micros| micros != 0),
        meta: decode_meta(decoder, unknown)?,
    })
}

fn id(decoder: &mut Decoder<'_>) -> Option<u32> {
    u32::try_from(decoder.varint()?).ok()
}

fn number(decoder: &mut Decoder<'_>) -> Option<u64> {
    decoder.varint().filter(|&number| number < files::NUMBER_END)
}

fn position(decoder: &mut Decoder<'_>) -> Option<u64> {
    decoder.varint().filter(|&position| position < POSITION_END)
}

fn sequence(decoder: &mut Decoder<'_>) -> Option<SequenceNumber> {
    decoder.varint().filter(|&sequence| sequence <= SEQUENCE_MAX)
}

fn text(decoder: &mut Decoder<'_>) -> Option<Arc<str>> {
    std::str::from_utf8(decoder.bytes()?).ok().map(Arc::from)
}

/// Options with ascending names. Those that this version does not know are kept.
fn options(decoder: &mut Decoder<'_>) -> Option<StoredOptions> {
    let count = decoder.varint_usize().filter(|&count| count <= StoredOptions::COUNT_MAX)?;
    let mut options = StoredOptions::default();
    let mut last = "";
    for _ in 0..count {
        let name = std::str::from_utf8(decoder.bytes()?).ok()?;
        let value = decoder.bytes()?;
        if name <= last
            || name.len() > StoredOptions::NAME_BYTES_MAX
            || value.len() > StoredOptions::VALUE_BYTES_MAX
        {
            return None;
        }
        options.set(name, value);
        last = name;
    }
    Some(options)
}

fn encode_meta(out: &mut Vec<u8>, meta: &TableMeta) {
    out.extend_from_slice(&meta.id.0.to_le_bytes());
    put_varint(out, meta.file_bytes);
    out.extend_from_slice(&meta.checksum.to_le_bytes());
    put_bytes(out, &meta.smallest);
    put_bytes(out, &meta.largest);
    for number in [
        meta.entries,
        meta.tombstones,
        meta.range_tombstones,
        meta.smallest_sequence,
        meta.largest_sequence,
        meta.raw_key_bytes,
        meta.raw_value_bytes,
    ] {
        put_varint(out, number);
    }
    let mut extras: Vec<(u8, Vec<u8>)> = Vec::new();
    if !meta.blobs.is_empty() {
        extras.push((BLOBS, BlobRef::encode_all(&meta.blobs)));
    }
    if meta.global_sequence > 0 {
        let mut number = Vec::new();
        put_varint(&mut number, meta.global_sequence);
        extras.push((GLOBAL_SEQUENCE, number));
    }
    put_varint(out, extras.len() as u64);
    for (tag, value) in extras {
        out.push(tag);
        put_bytes(out, &value);
    }
}

fn decode_meta(decoder: &mut Decoder<'_>, unknown: &mut Option<String>) -> Option<TableMeta> {
    let mut meta = TableMeta {
        id: TableId(decoder.u128()?),
        file_bytes: decoder.varint()?,
        checksum: decoder.u64()?,
        smallest: Slice::copy_from(decoder.bytes()?),
        largest: Slice::copy_from(decoder.bytes()?),
        entries: decoder.varint()?,
        tombstones: decoder.varint()?,
        range_tombstones: decoder.varint()?,
        smallest_sequence: sequence(decoder)?,
        largest_sequence: sequence(decoder)?,
        raw_key_bytes: decoder.varint()?,
        raw_value_bytes: decoder.varint()?,
        global_sequence: 0,
        blobs: Arc::default(),
    };
    let mut last = 0;
    for _ in 0..decoder.varint()? {
        let (tag, value) = (decoder.u8().filter(|&tag| tag > last)?, decoder.bytes()?);
        last = tag;
        match tag {
            BLOBS => meta.blobs = BlobRef::decode_all(value)?.into(),
            GLOBAL_SEQUENCE => {
                let mut number = Decoder::new(value);
                meta.global_sequence = sequence(&mut number).filter(|&number| number > 0)?;
                number.is_empty().then_some(())?;
            }
            _ if tag & SKIPPABLE != 0 => {}
            _ => {
                *unknown = Some(format!("extra {tag} of a table in a version edit"));
                return None;
            }
        }
    }
    Some(meta)
}

#[cfg(test)]
mod tests {
    use lsm_core::env::{Env, SimEnv};

    use super::*;

    /// One edit for each field.
    fn fields() -> Vec<VersionEdit> {
        let none = VersionEdit::default;
        let mut options = StoredOptions::default();
        options.set("policy", "leveled");
        let options = Arc::new(options);
        let blobs = [(3, 4, 5), (6, 7, 8)].map(|(blob, values, bytes)| BlobRef { blob, values, bytes });
        let meta = TableMeta {
            smallest: "a".into(),
            largest: "b".into(),
            blobs: blobs.into(),
            ..TableMeta::default()
        };
        let blob = AddedBlob {
            keyspace: 1,
            blob: 3,
            number: 9,
            meta: BlobMeta { id: TableId(1), file_bytes: 2, checksum: 3, values: 4, value_bytes: 5 },
        };
        let table = AddedTable {
            keyspace: 1,
            level: 2,
            run: 3,
            number: 4,
            created_micros: 5,
            tombstones_since_micros: None,
            meta,
        };
        let event = KeyspaceEvent { number: 1, is_drop: true, keyspace: 2, name: "k".into(), sequence: 3 };
        let position = ChangePosition { database: 1, epoch: 2, epoch_id: 3, log: 4, sequence: 5, events: 6 };
        let slot = SlotRecord { name: "s".into(), position, bytes_max: 7 };
        vec![
            VersionEdit { next_number: Some(1), ..none() },
            VersionEdit { last_sequence: Some(2), ..none() },
            VersionEdit { log: Some(LogStart { position: 3, segment: 4, synced: 5 }), ..none() },
            VersionEdit { keyspaces: vec![KeyspaceRecord { id: 1, name: "k".into(), options }], ..none() },
            VersionEdit { dropped: vec![6], ..none() },
            VersionEdit { flushed: vec![(1, 7)], ..none() },
            VersionEdit { added: vec![table], ..none() },
            VersionEdit { removed: vec![(1, 8)], ..none() },
            VersionEdit { added_blobs: vec![blob], ..none() },
            VersionEdit { next_keyspace: Some(9), ..none() },
            VersionEdit { clock_micros: Some(10), ..none() },
            VersionEdit { log_begun: Some(11), ..none() },
            VersionEdit { age_clock_micros: Some(12), ..none() },
            VersionEdit { purged: Some(13), ..none() },
            VersionEdit { database_id: Some(13), ..none() },
            VersionEdit { epochs: vec![Epoch { number: 14, id: 15, position: 16, sequence: 17 }], ..none() },
            VersionEdit { slots: vec![slot], ..none() },
            VersionEdit { dropped_slots: vec!["s".into()], ..none() },
            VersionEdit { keyspace_events: vec![event], ..none() },
            VersionEdit { keyspace_event_count: Some(18), ..none() },
        ]
    }

    /// A field or extra: a tag from `from` on, with up to 300 bytes.
    fn unknown(env: &SimEnv, from: u8) -> Vec<u8> {
        let mut out = vec![from | env.random() as u8];
        let body: Vec<u8> = (0..env.random() % 300).map(|_| env.random() as u8).collect();
        put_bytes(&mut out, &body);
        out
    }

    #[test]
    fn unknown_fields_are_passed_over_if_they_may_be_and_refused_by_name_if_not() {
        let known: Vec<Vec<u8>> = fields().iter().map(VersionEdit::encode).collect();
        let expected = VersionEdit::decode(&known.concat()).unwrap();
        assert_eq!(expected.added, fields()[6].added);
        for seed in 0..200 {
            let env = SimEnv::new(seed);
            let mut more = known.clone();
            for _ in 0..=env.random() % 8 {
                let index = env.random() as usize % (more.len() + 1);
                more.insert(index, unknown(&env, SKIPPABLE));
            }
            assert_eq!(VersionEdit::decode(&more.concat()), Ok(expected.clone()), "seed {seed}");
            // Nothing behind a field that must be known can be read.
            let index = env.random() as usize % (more.len() + 1);
            let tag = 100 + (env.random() % 28) as u8;
            more.insert(index, vec![tag, 0]);
            let refused = DecodeError::Unknown(format!("field {tag} of a version edit"));
            assert_eq!(VersionEdit::decode(&more.concat()), Err(refused), "seed {seed}");
        }
        let malformed = [vec![SKIPPABLE], vec![SKIPPABLE, 5, 0], vec![LOG, 1]];
        assert!(malformed.iter().all(|it| matches!(VersionEdit::decode(it), Err(DecodeError::Malformed(_)))));
    }

    #[test]
    fn an_ingested_table_keeps_its_number() {
        let mut edit = fields()[6].clone();
        for number in [1, 300, SEQUENCE_MAX] {
            edit.added[0].meta.global_sequence = number;
            assert_eq!(VersionEdit::decode(&edit.encode()), Ok(edit.clone()));
        }
        let mut malformed = fields()[6].encode();
        malformed.pop();
        for value in [&[0][..], &[5, 5], &[]] {
            let mut bytes = [&malformed[..], &[1, GLOBAL_SEQUENCE]].concat();
            put_bytes(&mut bytes, value);
            assert!(matches!(VersionEdit::decode(&bytes), Err(DecodeError::Malformed(_))), "{value:?}");
        }
    }

    #[test]
    fn unknown_extras_of_a_table_are_passed_over_if_they_may_be_and_refused_by_name_if_not() {
        let mut edit = fields()[6].clone();
        assert!(!std::mem::take(&mut edit.added[0].meta.blobs).is_empty());
        let edit = &edit;
        let known = edit.encode();
        // The last byte is the number of extras.
        let with = |extras: &[(u8, &[u8])]| {
            let mut out = known[..known.len() - 1].to_vec();
            put_varint(&mut out, extras.len() as u64);
            for (tag, value) in extras {
                out.push(*tag);
                put_bytes(&mut out, value);
            }
            VersionEdit::decode(&out)
        };
        assert_eq!(with(&[]).as_ref(), Ok(edit));
        assert_eq!(with(&[(0xf0, b""), (0xfe, &[1; 200]), (0xff, b"x")]).as_ref(), Ok(edit));
        let refused = DecodeError::Unknown("extra 90 of a table in a version edit".into());
        assert_eq!(with(&[(90, b""), (0xff, b"")]), Err(refused));
        // Two blobs that do not ascend, one without values, one cut short.
        for blobs in [&[3, 1, 1, 3, 1, 1][..], &[3, 0, 0], &[3, 1]] {
            assert!(matches!(with(&[(BLOBS, blobs)]), Err(DecodeError::Malformed(_))));
        }
        for malformed in [[(0xff, b""), (0xfe, b"")], [(0xff, b""), (0xff, b"")]] {
            assert!(matches!(
                with(&malformed.map(|(tag, value)| (tag, &value[..]))),
                Err(DecodeError::Malformed(_))
            ));
        }
    }
}
