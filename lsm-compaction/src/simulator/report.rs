use super::reads::ReadCost;
use super::tree::{Tree, to_u64};
use super::workload::Workload;
use crate::policy::CompactionPolicy;
use std::fmt;

/// What a policy made of a workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// [`CompactionPolicy::name`](crate::CompactionPolicy::name).
    pub policy: String,
    /// Bytes written to tables per byte written by the user; the log is not counted.
    pub write_amplification: f64,
    /// Runs whose key range covers a key and that a get looks into, at least by their filter, until it is found;
    /// mean over the second half of the run, as are the next three.
    pub runs_per_get: f64,
    /// Blocks that a get of an existing key reads.
    pub blocks_per_get: f64,
    /// Blocks that a get of a key that never existed reads, because a filter lets it pass.
    pub blocks_per_miss: f64,
    /// Runs of the whole tree: the sources of a scan.
    pub runs: f64,
    /// Bytes on disk per live byte when most bytes were on disk, inputs and outputs of a merge together.
    pub space_amplification_peak: f64,
    /// Bytes on disk per live byte at the end.
    pub space_amplification: f64,
    /// Bytes written by the user.
    pub bytes_written: u64,
    /// Bytes of live keys and values at the end.
    pub bytes_live: u64,
    /// Bytes on disk at the end.
    pub bytes_on_disk: u64,
    /// Most bytes that were on disk at once.
    pub bytes_peak: u64,
    /// Flushes.
    pub flushes: u64,
    /// Merges.
    pub merges: u64,
    /// Moves: compactions that wrote nothing.
    pub moves: u64,
    /// Drops.
    pub drops: u64,
    /// Bytes that the largest merge read; too high where a level has very many tables, since neighbours are then
    /// counted as one.
    pub largest_merge_bytes: u64,
    /// The levels at the end.
    pub levels: Vec<LevelReport>,
    /// Why the run ended early; `None` if it did not.
    pub stopped: Option<String>,
}

/// One level of a [`Report`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LevelReport {
    /// Runs at the end.
    pub runs: usize,
    /// Tables at the end; where there were very many, neighbours are counted as one.
    pub tables: usize,
    /// Bytes at the end.
    pub bytes: u64,
    /// Merges into the level over the whole run.
    pub merges: u64,
    /// Bytes that merges read from the level over the whole run.
    pub bytes_read: u64,
    /// Bytes that flushes and merges wrote into the level over the whole run.
    pub bytes_written: u64,
}

pub(super) fn report(
    policy: &dyn CompactionPolicy,
    workload: &Workload,
    tree: &Tree,
    reads: &ReadCost,
    stopped: Option<String>,
) -> Report {
    let totals = tree.totals();
    let ratio = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    let table_bytes: f64 = totals.levels.iter().map(|level| level.bytes_written).sum();
    let levels = tree.shape().levels.iter().zip(&totals.levels);
    Report {
        policy: policy.name().to_owned(),
        write_amplification: ratio(table_bytes, totals.bytes_written),
        runs_per_get: reads.runs_per_get(),
        blocks_per_get: reads.blocks_per_get(),
        blocks_per_miss: reads.blocks_per_miss(),
        runs: reads.runs(),
        space_amplification_peak: ratio(totals.bytes_peak, totals.live_bytes_at_peak),
        space_amplification: ratio(tree.bytes(), tree.live_bytes()),
        bytes_written: to_u64(totals.bytes_written),
        bytes_live: to_u64(tree.live_bytes()),
        bytes_on_disk: to_u64(tree.bytes()),
        bytes_peak: to_u64(totals.bytes_peak),
        flushes: workload.flushes(),
        merges: totals.merges,
        moves: totals.moves,
        drops: totals.drops,
        largest_merge_bytes: to_u64(totals.largest_merge_bytes),
        levels: levels
            .map(|(level, totals)| LevelReport {
                runs: level.runs.len(),
                tables: level.tables().count(),
                bytes: level.bytes(),
                merges: totals.compactions,
                bytes_read: to_u64(totals.bytes_read),
                bytes_written: to_u64(totals.bytes_written),
            })
            .collect(),
        stopped,
    }
}

impl fmt::Display for Report {
    /// Several lines: the amplifications, then a table of the levels in use.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} written, {} live",
            self.policy,
            Bytes(self.bytes_written),
            Bytes(self.bytes_live)
        )?;
        writeln!(f, "  write amplification  {:>8.2}", self.write_amplification)?;
        writeln!(
            f,
            "  read                 {:>8.2} runs and {:.2} blocks a get, {:.3} blocks a miss, {:.1} runs a scan",
            self.runs_per_get, self.blocks_per_get, self.blocks_per_miss, self.runs
        )?;
        writeln!(
            f,
            "  space amplification  {:>8.2} at the peak ({}), {:.2} at the end ({})",
            self.space_amplification_peak,
            Bytes(self.bytes_peak),
            self.space_amplification,
            Bytes(self.bytes_on_disk)
        )?;
        writeln!(
            f,
            "  {} flushes, {} merges (the largest of {}), {} moves, {} drops",
            self.flushes,
            self.merges,
            Bytes(self.largest_merge_bytes),
            self.moves,
            self.drops
        )?;
        writeln!(
            f,
            "  {:>5} {:>5} {:>7} {:>11} {:>9} {:>11} {:>11}",
            "level", "runs", "tables", "size", "merges", "read", "written"
        )?;
        for (number, level) in self.levels.iter().enumerate() {
            if level.bytes_written == 0 && level.tables == 0 {
                continue;
            }
            writeln!(
                f,
                "  {number:>5} {:>5} {:>7} {:>11} {:>9} {:>11} {:>11}",
                level.runs,
                level.tables,
                Bytes(level.bytes).to_string(),
                level.merges,
                Bytes(level.bytes_read).to_string(),
                Bytes(level.bytes_written).to_string()
            )?;
        }
        match &self.stopped {
            Some(reason) => writeln!(f, "  stopped early: {reason}"),
            None => Ok(()),
        }
    }
}

/// A number of bytes for people.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
        let mut number = self.0 as f64;
        let mut unit = 0;
        while number >= 1024.0 && unit + 1 < units.len() {
            number /= 1024.0;
            unit += 1;
        }
        if unit == 0 { write!(f, "{} B", self.0) } else { write!(f, "{number:.1} {}", units[unit]) }
    }
}
