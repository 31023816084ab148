use super::contents::share;
use super::tree::{Tree, to_u64};
use crate::shape::TableShape;

/// Evenly spaced keys at which the runs are looked into.
const PROBES: u32 = 64;

/// What reads cost, averaged over samples of the tree.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReadCost {
    samples: f64,
    runs: f64,
    runs_per_get: f64,
    blocks_per_get: f64,
    blocks_per_miss: f64,
}

impl ReadCost {
    pub(super) fn runs(&self) -> f64 {
        self.mean(self.runs)
    }

    pub(super) fn runs_per_get(&self) -> f64 {
        self.mean(self.runs_per_get)
    }

    pub(super) fn blocks_per_get(&self) -> f64 {
        self.mean(self.blocks_per_get)
    }

    pub(super) fn blocks_per_miss(&self) -> f64 {
        self.mean(self.blocks_per_miss)
    }

    fn mean(&self, sum: f64) -> f64 {
        if self.samples > 0.0 { sum / self.samples } else { 0.0 }
    }

    /// Takes a sample. A get asks for a key drawn like the writes to existing keys; a miss for a key between
    /// existing ones.
    pub(super) fn add(&mut self, tree: &Tree) {
        // Bloom filters of so many bits per key let this share of other keys pass.
        let false_positives = 0.6185_f64.powf(tree.workload().filter_bits_per_key);
        let mut probes = 0.0;
        let (mut runs_per_get, mut blocks_per_get, mut blocks_per_miss) = (0.0, 0.0, 0.0);
        for probe in 0..PROBES {
            let position = (f64::from(probe) + 0.5) / f64::from(PROBES);
            let key = to_u64(position * 2.0_f64.powi(64)).to_be_bytes();
            let runs = tree.shape().levels.iter().flat_map(|level| &level.runs);
            let tables = runs.filter_map(|run| run.range(run.overlapping(&key, &key)).next());
            let mut not_yet = vec![1.0; tree.population().classes.len()];
            let mut met = false;
            for table in tables {
                met = true;
                blocks_per_miss += false_positives;
                for (class, not_yet) in not_yet.iter_mut().enumerate() {
                    let asked = tree.population().classes[class].share * *not_yet;
                    let found = present(tree, table, position, class);
                    runs_per_get += asked;
                    blocks_per_get += asked * (found + (1.0 - found) * false_positives);
                    *not_yet *= 1.0 - found;
                }
            }
            probes += f64::from(u8::from(met));
        }
        if probes > 0.0 {
            self.samples += 1.0;
            self.runs += tree.shape().run_count() as f64;
            self.runs_per_get += runs_per_get / probes;
            self.blocks_per_get += blocks_per_get / probes;
            self.blocks_per_miss += blocks_per_miss / probes;
        }
    }
}

/// How likely a table has a certain existing key of a class near `position`.
fn present(tree: &Tree, table: &TableShape, position: f64, class: usize) -> f64 {
    let segments = tree.contents(table.id).iter();
    let mut segments = segments.filter(|part| part.start <= position && position < part.end);
    let Some(part) = segments.next() else { return 0.0 };
    let population = tree.population();
    let fresh = share(part.fresh, population.keys(part.width()));
    let class_keys = population.classes[class].keys * population.inserted * part.width();
    1.0 - (1.0 - fresh) * (1.0 - share(part.drawn[class], class_keys))
}
