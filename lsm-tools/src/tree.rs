//! The tree of a keyspace as a table of its levels, for `stats` and `demo`, and as JSON.

use lsm_engine::{KeyspaceMetrics, LevelMetrics};
use serde_json::{Value, json};

use crate::escape::escaped;
use crate::exit::Result;
use crate::output::{Output, bytes, grouped};

/// Prints the levels of a keyspace, each line after `indent`.
pub(crate) fn print(out: &mut Output, indent: &str, keyspace: &KeyspaceMetrics) -> Result<()> {
    let name = escaped(keyspace.name.as_bytes());
    out.line(format_args!("{indent}keyspace {name} ({})", keyspace.policy))?;
    if let Some(operator) = &keyspace.merge_operator {
        out.line(format_args!("{indent}  merge operator {}", escaped(operator.as_bytes())))?;
    }
    if let Some(failure) = &keyspace.failure {
        out.line(format_args!("{indent}  background work has stopped: {failure}"))?;
    }
    let levels: Vec<_> = keyspace.levels.iter().enumerate().filter(|(_, level)| level.tables > 0).collect();
    if keyspace.blob_files > 0 {
        let (files, size) = (grouped(keyspace.blob_files), bytes(keyspace.blob_bytes));
        let garbage = bytes(keyspace.blob_garbage_bytes);
        out.line(format_args!("{indent}  blob files: {files} with values of {size}, garbage {garbage}"))?;
    }
    if levels.is_empty() {
        return out.line(format_args!("{indent}  no tables: what there is, is in the log and in memory"));
    }
    let header = "level   runs  tables        size    unpacked       entries    tombstones";
    out.line(format_args!("{indent}  {header}"))?;
    for (number, level) in &levels {
        print_level(out, indent, &number.to_string(), level)?;
    }
    if levels.len() > 1 {
        print_level(out, indent, "all", &total(keyspace))?;
    }
    Ok(())
}

/// A level as JSON: what `stats` and `simulate` both tell, and what is told `besides`.
pub(crate) fn level_as_json(runs: u64, tables: u64, bytes: u64, besides: Value) -> Value {
    let mut level = json!({ "runs": runs, "tables": tables, "bytes": bytes });
    if let (Value::Object(level), Value::Object(besides)) = (&mut level, besides) {
        level.extend(besides);
    }
    level
}

fn print_level(out: &mut Output, indent: &str, name: &str, level: &LevelMetrics) -> Result<()> {
    out.line(format_args!(
        "{indent}  {name:>5} {:>6} {:>7} {:>11} {:>11} {:>13} {:>13}",
        grouped(level.runs),
        grouped(level.tables),
        bytes(level.bytes),
        bytes(level.raw_bytes),
        grouped(level.entries),
        grouped(level.tombstones + level.range_tombstones),
    ))
}

/// The sum over all levels.
pub(crate) fn total(keyspace: &KeyspaceMetrics) -> LevelMetrics {
    let mut sum = LevelMetrics::default();
    for level in &keyspace.levels {
        sum.runs += level.runs;
        sum.tables += level.tables;
        sum.unpinned_tables += level.unpinned_tables;
        sum.bytes += level.bytes;
        sum.raw_bytes += level.raw_bytes;
        sum.entries += level.entries;
        sum.tombstones += level.tombstones;
        sum.range_tombstones += level.range_tombstones;
        sum.merge_operands += level.merge_operands;
    }
    sum
}

/// Bytes of all levels for each byte of the last one: what overwritten and deleted data may cost at most.
pub(crate) fn space_amplification(keyspace: &KeyspaceMetrics) -> Option<f64> {
    let last = keyspace.levels.iter().rev().find(|level| level.bytes > 0)?;
    Some(total(keyspace).bytes as f64 / last.bytes as f64)
}

/// Bytes of the values in blob files for each byte of those to which a table points.
pub(crate) fn blob_space_amplification(keyspace: &KeyspaceMetrics) -> Option<f64> {
    let live = keyspace.blob_bytes.saturating_sub(keyspace.blob_garbage_bytes);
    (live > 0).then(|| keyspace.blob_bytes as f64 / live as f64)
}
