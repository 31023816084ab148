//! Measures a workload: time, latencies, and what it cost the machine.

use std::fs;
use std::path::Path;
use std::time::Instant;

use hdrhistogram::Histogram;

use crate::machine;
use crate::result::Result;
use crate::sample::{Cost, Sample};

/// Times of single operations in nanoseconds, to two digits, up to a minute.
pub(crate) type Latency = Histogram<u64>;

const LATENCY_NANOS_MAX: u64 = 60_000_000_000;

/// Measures one workload of this process from its start.
pub(crate) struct Meter {
    cpu_seconds: Option<f64>,
    written_bytes: Option<u64>,
    started: Instant,
}

impl Meter {
    /// Starts the clock, after forgetting the largest memory so far.
    pub(crate) fn start() -> Self {
        machine::reset_peak_memory();
        Self {
            cpu_seconds: machine::cpu_seconds(),
            written_bytes: machine::written_bytes(),
            started: Instant::now(),
        }
    }

    /// Seconds since the start.
    pub(crate) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Stops the clock after `ops` operations. The files of the store are in `dir`.
    pub(crate) fn finish(
        self,
        workload: &str,
        ops: u64,
        latency: Option<&Latency>,
        dir: &Path,
    ) -> Result<Sample> {
        let seconds = self.seconds();
        let since = |now: Option<f64>, then: Option<f64>| Some((now? - then?).max(0.0));
        Ok(Sample {
            workload: workload.to_owned(),
            ops,
            seconds,
            percentiles_nanos: latency.map(percentiles),
            cost: Some(Cost {
                cpu_seconds: since(machine::cpu_seconds(), self.cpu_seconds),
                written_bytes: machine::written_bytes()
                    .and_then(|now| Some(now.saturating_sub(self.written_bytes?))),
                memory_bytes: machine::peak_memory_bytes(),
                disk_bytes: directory_bytes(dir)?,
            }),
        })
    }
}

/// Median, 99th and 99.9th percentile.
pub(crate) fn percentiles(latency: &Latency) -> [u64; 3] {
    [0.5, 0.99, 0.999].map(|quantile| latency.value_at_quantile(quantile))
}

/// Calls `op` with each number below `ops` and times every `sample`th call.
#[inline]
pub(crate) fn repeat(ops: u64, sample: u32, op: impl FnMut(u64) -> Result) -> Result<Latency> {
    repeat_while(ops, sample, || true, op)
}

/// Like [`repeat`], but ends once `go_on`, asked before each timed call, says `false`.
#[inline]
pub(crate) fn repeat_while(
    ops: u64,
    sample: u32,
    go_on: impl Fn() -> bool,
    mut op: impl FnMut(u64) -> Result,
) -> Result<Latency> {
    let mut latency = new_latency()?;
    let mut at = 0;
    while at < ops && go_on() {
        let end = ops.min(at + u64::from(sample));
        let started = Instant::now();
        op(at)?;
        latency.saturating_record(started.elapsed().as_nanos() as u64);
        for at in at + 1..end {
            op(at)?;
        }
        at = end;
    }
    Ok(latency)
}

/// No times yet.
pub(crate) fn new_latency() -> Result<Latency> {
    Ok(Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, 2)?)
}

/// Bytes that the files under `dir` take on disk.
pub(crate) fn directory_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // A compaction may have removed the file since it was listed.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() { directory_bytes(&entry.path())? } else { allocated_bytes(&metadata) };
    }
    Ok(bytes)
}

#[cfg(unix)]
fn allocated_bytes(metadata: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    metadata.blocks() * 512
}

#[cfg(not(unix))]
fn allocated_bytes(metadata: &fs::Metadata) -> u64 {
    metadata.len()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn every_operation_is_done_once_and_one_in_so_many_is_timed() {
        for (ops, sample, timed) in [(0, 17, 0), (1, 17, 1), (17, 17, 1), (18, 17, 2), (100, 1, 100)] {
            let mut seen = Vec::new();
            let latency = repeat(ops, sample, |at| {
                seen.push(at);
                Ok(())
            });
            assert!(seen.into_iter().eq(0..ops));
            assert_eq!(latency.unwrap().len(), timed);
        }
    }

    #[test]
    fn repeating_ends_when_told_or_when_an_operation_fails() {
        let done = Cell::new(0);
        let step = |_| {
            done.set(done.get() + 1);
            Ok(())
        };
        repeat_while(u64::MAX, 10, || done.get() < 25, step).unwrap();
        assert_eq!(done.get(), 30);
        assert!(repeat(10, 3, |at| if at == 4 { Err("no".into()) } else { Ok(()) }).is_err());
    }
}
