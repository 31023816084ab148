use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// `SplitMix64`.
pub struct Random(pub u64);

impl Random {
    /// 64 random bits.
    #[expect(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below a bound; 0 if the bound is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// `true` once in `odds` times.
    pub fn one_in(&mut self, odds: usize) -> bool {
        self.below(odds) == 0
    }
}

/// Runs `count` seeds, or `LSM_SEEDS` of them, starting with `LSM_SEED` or 0. Returns how many. Of a run that panics it
/// prints the seed.
pub fn each_seed(count: u64, run: impl Fn(u64)) -> u64 {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("LSM_SEED").unwrap_or(0);
    let count = number("LSM_SEEDS").unwrap_or(count);
    for seed in first..first + count {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!("LSM_SEED={seed} LSM_SEEDS=1 repeats this");
            resume_unwind(panic);
        }
    }
    count
}
