//! How many filter bits a key gets in each run of a keyspace.
//!
//! A lookup asks the filter of every run, large or small, and each false yes costs it the same read. So a bit is
//! worth most where it serves the fewest keys: the rates of false positives should stand in proportion to the runs'
//! sizes (Monkey, Dayan et al., SIGMOD 2017). All filters together take the memory that equal shares would take.

use std::f64::consts::LN_2;

/// A small run gets at most so many bits more than the average: beyond, a Bloom filter of six probes gains little.
const EXTRA_BITS_MAX: f64 = 8.0;

/// Bits a key for a run of so many entries that stands beside `others`, `average` being what all may have.
pub(crate) fn bits_per_key(average: f64, entries: u64, others: impl IntoIterator<Item = u64>) -> f64 {
    let log = |entries: u64| (entries.max(1) as f64).ln();
    let (mut total, mut weighted) = (0.0, 0.0);
    for run in others.into_iter().chain([entries.max(1)]) {
        total += run as f64;
        weighted += run as f64 * log(run);
    }
    // A filter of b bits a key lets about e^(-b ln² 2) of the absent keys pass.
    let extra = (weighted / total - log(entries)) / (LN_2 * LN_2);
    average + extra.clamp(-average / 2.0, EXTRA_BITS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_runs_and_a_lone_one_have_the_average() {
        assert!((bits_per_key(10.0, 7, []) - 10.0).abs() < 1e-9);
        assert!((bits_per_key(10.0, 500, [500, 500]) - 10.0).abs() < 1e-9);
        assert!((bits_per_key(10.0, 0, []) - 10.0).abs() < 1e-9);
    }

    #[test]
    fn a_small_run_has_more_and_all_together_no_more_than_the_average() {
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
