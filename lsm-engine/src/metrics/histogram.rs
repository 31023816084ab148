//! Histograms of durations, and what a histogram says at one moment.
//!
//! Buckets are log-linear: each doubling is cut into sixteen, so a bucket is at most a sixteenth wide. Recording takes
//! three relaxed additions and no lock. Each thread adds to its own stripe, as far as there are stripes, and a stripe has
//! memory only once a thread has used it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Each doubling has `1 << PART_BITS` buckets.
const PART_BITS: u32 = 4;
const PARTS: usize = 1 << PART_BITS;
/// Longer durations, of more than an hour, count as this long.
const NANOS_MAX: u64 = (1 << 42) - 1;
const BUCKETS: usize = bucket_of(NANOS_MAX) + 1;
/// Threads beyond this number share stripes.
pub(super) const STRIPES: usize = 16;

/// The bucket of a duration.
#[inline]
const fn bucket_of(nanos: u64) -> usize {
    if nanos < PARTS as u64 {
        return nanos as usize;
    }
    let shift = nanos.ilog2() - PART_BITS;
    // The leading one adds `PARTS`: the first doubling follows the exact buckets.
    ((shift as usize) << PART_BITS) + (nanos >> shift) as usize
}

/// The longest duration in a bucket.
const fn longest_in(bucket: usize) -> u64 {
    if bucket < PARTS {
        return bucket as u64;
    }
    let shift = bucket / PARTS - 1;
    (((bucket % PARTS + PARTS + 1) as u64) << shift) - 1
}

/// A stripe of the present thread, below `stripes`.
#[inline]
pub(super) fn stripe_of_thread(stripes: usize) -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static STRIPE: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    STRIPE.with(|stripe| stripe % stripes)
}

/// A histogram of durations that threads record at the same time.
#[derive(Debug, Default)]
pub(crate) struct Histogram([OnceLock<Box<Stripe>>; STRIPES]);

#[derive(Debug)]
struct Stripe {
    buckets: [AtomicU64; BUCKETS],
    sum_nanos: AtomicU64,
    max_nanos: AtomicU64,
}

impl Default for Stripe {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self { buckets: std::array::from_fn(|_| zero()), sum_nanos: zero(), max_nanos: zero() }
    }
}

impl Histogram {
    pub(crate) fn record(&self, nanos: u64) {
        let Some(stripe) = self.0.get(stripe_of_thread(STRIPES)) else { return };
        let stripe = stripe.get_or_init(Box::default);
        let nanos = nanos.min(NANOS_MAX);
        if let Some(bucket) = stripe.buckets.get(bucket_of(nanos)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        stripe.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
        if nanos > stripe.max_nanos.load(Ordering::Relaxed) {
            stripe.max_nanos.fetch_max(nanos, Ordering::Relaxed);
        }
    }

    pub(crate) fn record_micros(&self, micros: u64) {
        self.record(micros.saturating_mul(1000));
    }

    /// What was recorded so far. What others record meanwhile may be missing in part.
    pub(crate) fn snapshot(&self) -> Latency {
        let mut counts = [0; BUCKETS];
        let mut latency = Latency::default();
        for stripe in self.0.iter().filter_map(OnceLock::get) {
            for (count, bucket) in counts.iter_mut().zip(&stripe.buckets) {
                *count += bucket.load(Ordering::Relaxed);
            }
            latency.sum_nanos += stripe.sum_nanos.load(Ordering::Relaxed);
            latency.max_nanos = latency.max_nanos.max(stripe.max_nanos.load(Ordering::Relaxed));
        }
        let counted = counts.into_iter().enumerate().filter(|(_, count)| *count > 0);
        latency.buckets = counted.map(|(bucket, count)| (longest_in(bucket), count)).collect();
        latency.count = latency.buckets.iter().map(|(_, count)| count).sum();
        latency
    }
}

/// How long calls of one kind took: a histogram, as it was at one moment.
///
/// Quantiles are at most a sixteenth too long, never too short.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let db = lsm_engine::Options::new().statistics(true).open(dir.path())?;
/// db.get("key")?;
/// let get = db.metrics().operations.get;
/// assert_eq!(get.count(), 1);
/// assert!(get.quantile(0.99) <= get.max());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    count: u64,
    sum_nanos: u64,
    max_nanos: u64,
    /// The longest duration in nanoseconds of each bucket that is not empty, and its count; ascending.
    buckets: Vec<(u64, u64)>,
}

impl Latency {
    /// Number of calls.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What all calls took together.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_nanos)
    }

    /// What a call took on average; zero without calls.
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.sum_nanos.checked_div(self.count).unwrap_or(0))
    }

    /// What the longest call took.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max_nanos)
    }

    /// What a call took at most, for this part of the calls, from 0 to 1: 0.99 is the 99th percentile. Zero without
    /// calls.
    pub fn quantile(&self, part: f64) -> Duration {
        let rank = part.clamp(0.0, 1.0) * self.count as f64;
        let mut seen = 0;
        let bucket = self.buckets.iter().find(|(_, count)| {
            seen += count;
            seen as f64 >= rank
        });
        Duration::from_nanos(bucket.map_or(self.max_nanos, |(nanos, _)| (*nanos).min(self.max_nanos)))
    }

    /// Half of the calls took no longer.
    pub fn p50(&self) -> Duration {
        self.quantile(0.5)
    }

    /// 99 of 100 calls took no longer.
    pub fn p99(&self) -> Duration {
        self.quantile(0.99)
    }

    /// 999 of 1000 calls took no longer.
    pub fn p999(&self) -> Duration {
        self.quantile(0.999)
    }

    /// Number of calls that took less than a power of two nanoseconds.
    pub(super) fn count_below_power(&self, power: u32) -> u64 {
        self.buckets.iter().take_while(|(nanos, _)| *nanos >> power == 0).map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_join_without_gaps_and_are_a_sixteenth_wide_at_most() {
        let mut shortest = 0;
        for bucket in 0..BUCKETS {
            let longest = longest_in(bucket);
            assert_eq!((bucket_of(shortest), bucket_of(longest)), (bucket, bucket));
            assert!((longest - shortest) * 16 <= shortest, "{shortest} to {longest}");
            shortest = longest + 1;
        }
        assert_eq!(shortest, NANOS_MAX + 1);
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_durations() {
        let histogram = Histogram::default();
        let mut random = 1_u64;
        let mut nanos: Vec<u64> = (0..10_000)
            .map(|_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (random >> 24) >> (random % 40)
            })
            .collect();
        // Each thread has its own stripe.
        std::thread::scope(|scope| {
            for part in nanos.chunks(1000) {
                scope.spawn(|| part.iter().for_each(|&nanos| histogram.record(nanos)));
            }
        });
        nanos.sort_unstable();
        let latency = histogram.snapshot();
        assert_eq!(latency.count(), 10_000);
        assert_eq!(latency.sum(), Duration::from_nanos(nanos.iter().sum()));
        assert_eq!(latency.max(), Duration::from_nanos(nanos[9999]));
        assert_eq!(latency.quantile(1.0), latency.max());
        for (part, rank) in [(0.0, 0), (0.5, 4999), (0.99, 9899), (0.999, 9989)] {
            let (exact, said) = (nanos[rank], latency.quantile(part).as_nanos() as u64);
            assert!(said >= exact && said <= exact + exact / 16, "{part}: {said} for {exact}");
        }
        for power in 0..45 {
            let exact = nanos.iter().filter(|nanos| **nanos < 1 << power).count() as u64;
            assert_eq!(latency.count_below_power(power), exact, "{power}");
        }
    }

    #[test]
    fn an_empty_histogram_says_zero_and_a_long_duration_counts_as_the_longest() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot(), Latency::default());
        assert_eq!(Latency::default().p99(), Duration::ZERO);
        assert_eq!(Latency::default().mean(), Duration::ZERO);
        histogram.record(u64::MAX);
        assert_eq!(histogram.snapshot().max(), Duration::from_nanos(NANOS_MAX));
    }
}
