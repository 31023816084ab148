//! Dumps a segment of the log.

use std::path::Path;
use std::sync::Arc;

use lsm_core::coding::Decoder;
use lsm_core::vfs::{PosixFs, Vfs};
use lsm_core::{Error, ValueKind};
use lsm_engine::inspect::{Operations, decode_ingested};
use lsm_wal::{LogExpectation, Position, Record, RecoveryMode, RecoveryReport, SEGMENT_SUFFIX, WalReader};

use super::dumper::Dumper;
use crate::exit::Result;
use crate::item::{Item, name_of};

/// A segment begins so; see `docs/FORMAT.md`. At offset 24 stands the position of its first record.
const SEGMENT_MAGIC: &[u8] = b"lsm-wal\0";

/// Shows the records of one segment, those that are still in the window included.
pub(super) fn dump(path: &Path, dumper: &mut Dumper) -> Result<()> {
    let directory = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("."),
    };
    let start = match segment_start(path)? {
        SegmentStart::At(start) => start,
        SegmentStart::Empty => {
            return dumper.item(&Item::new("empty").text("why", "allocated and not used yet"));
        }
        SegmentStart::Unknown => {
            let detail = "this is no segment of a log: the magic number is missing";
            return Err(Error::corruption(path, 0, detail).into());
        }
    };
    let end = start_of_next(path, directory)?.unwrap_or(u64::MAX);

    let mode = RecoveryMode::TolerateTornTail;
    let expected = LogExpectation { from: Position(start), ..LogExpectation::default() };
    let mut reader = WalReader::open(Arc::new(PosixFs), directory, &expected, mode)?;
    while let Some(record) = reader.next()? {
        if record.start.0 >= end {
            return Ok(());
        }
        if record.start.0 < start {
            continue;
        }
        dump_record("record", &record, dumper)?;
        dump_writes(&record, dumper)?;
    }
    dump_end(reader.report(), dumper)
}

/// Shows the writes in a record, without `--raw`.
pub(super) fn dump_writes(record: &Record<'_>, dumper: &mut Dumper) -> Result<()> {
    if dumper.raw {
        return Ok(());
    }
    for operation in Operations::new(record.payload, record.tag) {
        let operation = operation.map_err(|reason| Error::corruption(record.path, record.offset, reason))?;
        let item = Item::new(name_of(operation.kind))
            .number("sequence", operation.sequence)
            .number("keyspace", operation.keyspace);
        if operation.kind == ValueKind::Ingest {
            dumper.item(&item)?;
            let tables = decode_ingested(operation.value, operation.keyspace, operation.sequence)
                .map_err(|error| error.at(record.path, record.offset))?;
            for table in tables {
                dumper.item(
                    &Item::new("table_ingested")
                        .number("number", table.number)
                        .text("id", table.meta.id.to_string())
                        .number("file_bytes", table.meta.file_bytes)
                        .number("entries", table.meta.entries)
                        .bytes("smallest", &table.meta.smallest)
                        .bytes("largest", &table.meta.largest),
                )?;
            }
            continue;
        }
        let item = item.bytes("key", operation.key);
        dumper.item(&item.value(operation.kind, operation.value, dumper.values))?;
    }
    Ok(())
}

/// Shows where a record stands, and with `--raw` what it is.
pub(super) fn dump_record(what: &'static str, record: &Record<'_>, dumper: &mut Dumper) -> Result<()> {
    let item = Item::new(what)
        .number("start", record.start.0)
        .number("end", record.end.0)
        .number("synced", record.synced.0)
        .number("tag", record.tag);
    if dumper.raw && dumper.values {
        dumper.item(&item.bytes("payload", record.payload))
    } else {
        dumper.item(&item.number("payload_bytes", record.payload.len() as u64))
    }
}

/// Shows how a log ends.
pub(super) fn dump_end(report: &RecoveryReport, dumper: &mut Dumper) -> Result<()> {
    dumper.item(
        &Item::new("end")
            .number("records", report.records)
            .number("position", report.end.0)
            .number("synced", report.synced.0)
            .text("closed", if report.closed { "yes" } else { "no" }),
    )?;
    for dropped in &report.dropped {
        dumper.item(
            &Item::new("dropped")
                .text("file", dropped.path.display().to_string())
                .number("offset", dropped.offset)
                .number("bytes", dropped.bytes)
                .text("reason", &*dropped.reason),
        )?;
    }
    Ok(())
}

/// What the first bytes of a segment say.
enum SegmentStart {
    /// Its first record has this position.
    At(u64),
    /// Zeros: it is kept ready, so that a full disk cannot stop the log.
    Empty,
    /// It is no segment.
    Unknown,
}

fn segment_start(path: &Path) -> Result<SegmentStart> {
    let file = PosixFs.open_read(path).map_err(|error| Error::io("open", path, error))?;
    let mut header = [0; 32];
    match file.read_exact_at(&mut header, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(SegmentStart::Unknown),
        Err(error) => return Err(Error::io("read", path, error).into()),
    }
    if header == [0; 32] {
        return Ok(SegmentStart::Empty);
    }
    let mut decoder = Decoder::new(&header);
    if decoder.take(SEGMENT_MAGIC.len()) != Some(SEGMENT_MAGIC) {
        return Ok(SegmentStart::Unknown);
    }
    Ok(decoder.take(16).and_then(|_| decoder.u64()).map_or(SegmentStart::Unknown, SegmentStart::At))
}

/// Where the segment after `path` begins, if there is one in use.
fn start_of_next(path: &Path, directory: &Path) -> Result<Option<u64>> {
    let number = |name: &str| name.strip_suffix(SEGMENT_SUFFIX).and_then(|digits| digits.parse::<u64>().ok());
    let Some(own) = path.file_name().and_then(|name| number(name.to_str()?)) else { return Ok(None) };
    let names = PosixFs.read_dir(directory).map_err(|error| Error::io("list", directory, error))?;
    let next =
        names.iter().filter_map(|name| Some((number(name)?, name))).filter(|(other, _)| *other > own).min();
    let Some((_, name)) = next else { return Ok(None) };
    match segment_start(&directory.join(name))? {
        SegmentStart::At(start) => Ok(Some(start)),
        SegmentStart::Empty | SegmentStart::Unknown => Ok(None),
    }
}
