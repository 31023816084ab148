use super::{Leveled, LeveledOptions};
use crate::shape::{LevelShape, RunShape, TreeShape};

/// How large each level should be.
pub(super) struct Targets {
    /// The last level, which all data reaches in the end.
    pub(super) last: usize,
    /// The level that level 0 is merged into; those between should be empty.
    pub(super) base_level: usize,
    /// Upper bound of the size of each level: 0 above `base_level`, `u64::MAX` for the last.
    pub(super) bytes: Vec<u64>,
}

/// A level that should become smaller.
pub(super) struct Score {
    pub(super) level: usize,
    /// How full it is; above 1000 is too full.
    pub(super) per_mille: u64,
    pub(super) excess_bytes: u64,
}

impl Targets {
    /// `shape` has at least two levels.
    pub(super) fn of(shape: &TreeShape, options: &LeveledOptions) -> Self {
        let deepest = shape.levels.iter().rposition(|level| !level.runs.is_empty()).unwrap_or(0);
        let last = deepest.max(options.level_count.min(shape.levels.len()) - 1);
        let mut bottom_bytes = shape.levels[last].bytes();
        if bottom_bytes == 0 {
            bottom_bytes = shape.levels[1..last].iter().map(LevelShape::bytes).max().unwrap_or(0);
        }
        let ratio = bottom_bytes as f64 / options.base_bytes as f64;
        let fanout = options.fanout as f64;
        // Levels between level 0 and the last. One more pays as soon as it saves more rewriting below than it
        // costs itself, which in the simulator is at about this size; it stays until the tree is clearly smaller.
        let mut between = 0;
        let mut threshold = fanout.sqrt().sqrt();
        while ratio > threshold && between + 1 < last {
            between += 1;
            threshold *= fanout;
        }
        if between + 1 < last && !shape.levels[last - between - 1].runs.is_empty() && ratio > 0.8 * threshold
        {
            between += 1;
        }
        let base_level = last - between;
        // All steps alike: the cost of a step is proportional to its factor, so the sum is least this way.
        let factor = if between == 0 { 1.0 } else { ratio.max(1.0).powf(1.0 / between as f64) };
        let mut bytes = vec![0; shape.levels.len()];
        let mut target = options.base_bytes as f64;
        for level in &mut bytes[base_level..last] {
            *level = to_bytes(target);
            target *= factor;
        }
        for level in &mut bytes[last..] {
            *level = u64::MAX;
        }
        Self { last, base_level, bytes }
    }

    /// The level that receives what leaves level 0: nothing may be jumped over.
    pub(super) fn below_level_zero(&self, shape: &TreeShape) -> usize {
        (1..self.base_level).find(|level| !shape.levels[*level].runs.is_empty()).unwrap_or(self.base_level)
    }

    /// The levels that are too full.
    pub(super) fn scores(&self, shape: &TreeShape, options: &LeveledOptions) -> Vec<Score> {
        let mut scores = Vec::new();
        if let Some(fill) = level_zero_fill(&shape.levels[0], options) {
            // Every read pays for each run of level 0, so that it counts double.
            scores.push(Score { level: 0, per_mille: 2 * fill, excess_bytes: 0 });
        }
        for level in 1..self.last {
            let free_bytes: u64 = shape.levels[level].runs.iter().map(RunShape::free_bytes).sum();
            let target = self.bytes[level];
            if free_bytes > target {
                let per_mille = u128::from(free_bytes) * 1000 / u128::from(target.max(1));
                scores.push(Score {
                    level,
                    per_mille: u64::try_from(per_mille).unwrap_or(u64::MAX),
                    excess_bytes: free_bytes - target,
                });
            }
        }
        scores
    }

    /// What has to be rewritten until no level is too full: the surplus of each level, with what it meets in the
    /// next, and what it makes surplus there.
    pub(super) fn debt_bytes(&self, shape: &TreeShape, policy: &Leveled) -> u64 {
        let mut debt: u128 = 0;
        let mut incoming: u128 = 0;
        let next_bytes = |level: usize| u128::from(shape.levels[level].bytes());
        if level_zero_fill(&shape.levels[0], &policy.options).is_some() {
            let below_bytes = shape.levels[self.below_level_zero(shape)].bytes();
            let (rewritten, arriving) = policy.level_zero_debt(shape, below_bytes);
            debt = rewritten.into();
            incoming = arriving.into();
        }
        for level in 1..self.last {
            let bytes = next_bytes(level);
            if level < self.base_level && bytes == 0 {
                continue;
            }
            let excess = (bytes + incoming).saturating_sub(u128::from(self.bytes[level]));
            debt += excess + excess * next_bytes(level + 1) / (bytes + incoming).max(1);
            incoming = excess;
        }
        u64::try_from(debt).unwrap_or(u64::MAX)
    }
}

#[expect(clippy::cast_sign_loss, reason = "sizes are positive, and the cast saturates")]
fn to_bytes(size: f64) -> u64 {
    size as u64
}

/// How full level 0 is in thousandths, if that is full enough to act.
fn level_zero_fill(level: &LevelShape, options: &LeveledOptions) -> Option<u64> {
    let runs = level.runs.len() as u64 * 1000 / options.level0_runs_max as u64;
    let bytes = u128::from(level.bytes()) * 1000 / u128::from(options.base_bytes);
    let fill = runs.max(u64::try_from(bytes).unwrap_or(u64::MAX / 2));
    (fill >= 1000).then_some(fill.min(u64::MAX / 2))
}
