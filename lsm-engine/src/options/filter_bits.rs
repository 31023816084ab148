//! The number of filter bits per key in each run of a keyspace.
//!
//! A lookup asks the filters of all runs, and each false positive costs one block read, whatever the size of the run.
//! So bits pay most in small runs: the best false positive rates are proportional to the sizes of the runs (Monkey,
//! Dayan et al., SIGMOD 2017). All filters together take no more memory than with equal bits per key.

use std::f64::consts::LN_2;

/// A small run gets at most this many bits above the average: with six probes, more bits gain little.
const EXTRA_BITS_MAX: f64 = 8.0;

/// Bits per key for a run of `entries` entries. `others` are the entry counts of the other runs, `average` the bits per
/// key over all runs.
pub(crate) fn bits_per_key(average: f64, entries: u64, others: impl IntoIterator<Item = u64>) -> f64 {
    let log = |entries: u64| (entries.max(1) as f64).ln();
    let (mut total, mut weighted) = (0.0, 0.0);
    for run in others.into_iter().chain([entries.max(1)]) {
        total += run as f64;
        weighted += run as f64 * log(run);
    }
    // A Bloom filter with b bits per key has a false positive rate of about e^(-b ln² 2).
    let extra = (weighted / total - log(entries)) / (LN_2 * LN_2);
    average + extra.clamp(-average / 2.0, EXTRA_BITS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_runs_and_a_single_run_get_the_average() {
        assert!((bits_per_key(10.0, 7, []) - 10.0).abs() < 1e-9);
        assert!((bits_per_key(10.0, 500, [500, 500]) - 10.0).abs() < 1e-9);
        assert!((bits_per_key(10.0, 0, []) - 10.0).abs() < 1e-9);
    }

    #[test]
    fn small_runs_get_more_bits_and_the_total_stays_within_the_average() {
        let runs = [1_000_u64, 10_000, 100_000, 1_000_000];
        let bits: Vec<f64> = (0..runs.len())
            .map(|at| {
                let others = runs.iter().enumerate().filter(|&(other, _)| other != at);
                bits_per_key(10.0, runs[at], others.map(|(_, &entries)| entries))
            })
            .collect();
        assert!(bits.is_sorted_by(|small, large| small >= large), "{bits:?}");
        assert!(bits[0] <= 10.0 + EXTRA_BITS_MAX && bits[3] > 9.0, "{bits:?}");
        let spent: f64 = runs.iter().zip(&bits).map(|(&entries, bits)| entries as f64 * bits).sum();
        assert!(spent <= 10.0 * runs.iter().sum::<u64>() as f64, "{spent}");
    }
}
