use super::{CompactionPolicy, accepted};
use crate::compaction::{Action, Compaction, InputLevel, Reason};
use crate::output_run::OutputRun;
use crate::shape::TreeShape;

/// Never rewrites anything: the oldest runs are dropped, data and all, when the tree grows past a size or they
/// past an age. For logs and caches.
///
/// Runs go oldest first and whole, so that no older version of a key ever reappears; the newest run stays
/// whatever its size. `lsm-engine` keeps the files of dropped runs for snapshots and iterators that see them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fifo {
    options: FifoOptions,
}

/// Settings of [`Fifo`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FifoOptions {
    /// Size of the tree above which the oldest runs are dropped. Default 1 GiB.
    pub bytes_max: u64,
    /// Age at which a run is dropped, counted from when its newest table was written, in microseconds. Default
    /// `u64::MAX`: never. In `lsm-engine` ages follow no jump of the wall clock: they count the time for which the
    /// database is open, and of each time for which it is closed up to an hour.
    pub time_to_live_micros: u64,
}

impl Default for FifoOptions {
    fn default() -> Self {
        Self { bytes_max: 1 << 30, time_to_live_micros: u64::MAX }
    }
}

impl Fifo {
    /// A policy with these settings.
    pub fn new(options: FifoOptions) -> Self {
        Self { options }
    }

    /// The settings in force.
    pub fn options(&self) -> &FifoOptions {
        &self.options
    }
}

impl CompactionPolicy for Fifo {
    fn name(&self) -> &'static str {
        "fifo"
    }

    fn settings(&self) -> String {
        self.options.to_settings()
    }

    fn level_count(&self) -> usize {
        1
    }

    fn pick(&self, shape: &TreeShape) -> Option<Compaction> {
        let mut bytes = shape.bytes();
        let mut left = shape.run_count();
        let mut inputs: Vec<InputLevel> = Vec::new();
        let mut reason = Reason::TimeToLive;
        let levels = shape.levels.iter().enumerate().rev();
        for (level, run) in
            levels.flat_map(|(level, shape)| shape.runs.iter().rev().map(move |run| (level, run)))
        {
            left -= 1;
            let written_micros = run.summary().newest_micros;
            let expired = shape.now_micros.saturating_sub(written_micros) >= self.options.time_to_live_micros;
            let too_many = bytes > self.options.bytes_max && left > 0;
            if run.is_busy() || !(expired || too_many) {
                break;
            }
            if !expired {
                reason = Reason::TotalBytes;
            }
            bytes -= run.bytes();
            match inputs.last_mut().filter(|input| input.level == level) {
                Some(input) => input.tables.extend(run.tables().cloned()),
                None => inputs.push(InputLevel::new(level, run.tables())),
            }
        }
        accepted(
            shape,
            Compaction {
                inputs,
                output_level: 0,
                output_run: OutputRun::NewRun,
                action: Action::Drop,
                target_table_bytes: 0,
                reason,
            },
        )
    }

    /// Always 0: dropping writes nothing, so that nobody need wait for it.
    fn debt_bytes(&self, _shape: &TreeShape) -> u64 {
        0
    }

    fn drops_data(&self) -> bool {
        true
    }
}
