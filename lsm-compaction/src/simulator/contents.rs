use super::popularity::Class;

/// What a table is expected to hold, evenly spread over its interval of the key space.
///
/// A set of keys is the union of two: *fresh* keys, inserted once by exactly one write, so that the fresh keys of
/// two tables are disjoint; and *drawn* keys, written again later, so that those of two tables are independent
/// random subsets of the keys there are. Merging adds the former up and takes the expected union of the latter,
/// which is exact in expectation for keys written independently.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Contents {
    /// Interval of the key space, of which the whole is 0 to 1.
    pub(super) start: f64,
    pub(super) end: f64,
    pub(super) fresh: f64,
    /// Drawn keys of each popularity class.
    pub(super) drawn: Vec<f64>,
    /// Share of the drawn keys whose newest version here is a delete.
    pub(super) dead_share: f64,
}

/// The keys there are, by class; those of a part of the key space are in proportion to its width.
#[derive(Clone, Debug)]
pub(super) struct Population {
    pub(super) classes: Vec<Class>,
    /// Share of the keys that were inserted so far.
    pub(super) inserted: f64,
}

impl Population {
    pub(super) fn keys(&self, width: f64) -> f64 {
        self.classes.iter().map(|class| class.keys).sum::<f64>() * self.inserted * width
    }

    fn class_keys(&self, class: usize, width: f64) -> f64 {
        self.classes[class].keys * self.inserted * width
    }
}

impl Contents {
    pub(super) fn width(&self) -> f64 {
        self.end - self.start
    }

    pub(super) fn drawn_keys(&self) -> f64 {
        self.drawn.iter().sum()
    }

    /// Expected number of distinct keys.
    pub(super) fn entries(&self, population: &Population) -> f64 {
        let keys = population.keys(self.width());
        let drawn = self.drawn_keys();
        self.fresh + drawn - share(drawn, keys) * self.fresh
    }

    pub(super) fn tombstones(&self) -> f64 {
        self.drawn_keys() * self.dead_share
    }

    /// The part in `[start, end)`, which lies within this interval.
    pub(super) fn part(&self, start: f64, end: f64) -> Self {
        let part = if self.width() > 0.0 { (end - start) / self.width() } else { 0.0 };
        Self {
            start,
            end,
            fresh: self.fresh * part,
            drawn: self.drawn.iter().map(|keys| keys * part).collect(),
            dead_share: self.dead_share,
        }
    }

    /// What remains of `parts`, newest first, all of the same interval, when they are merged.
    pub(super) fn merge(parts: &[Self], population: &Population, bottommost: bool) -> Self {
        let (start, end) = parts.first().map_or((0.0, 0.0), |part| (part.start, part.end));
        let width = end - start;
        let mut fresh = 0.0;
        let mut absent = vec![1.0; population.classes.len()];
        let mut dead = 0.0;
        for part in parts {
            fresh += part.fresh;
            let mut added = 0.0;
            for (class, absent) in absent.iter_mut().enumerate() {
                let keys = population.class_keys(class, width);
                let present = share(part.drawn[class], keys);
                // Only where no newer part has the key does this one say whether it is deleted.
                added += *absent * present * keys;
                *absent *= 1.0 - present;
            }
            dead += added * part.dead_share;
        }
        let drawn = absent.iter().enumerate();
        let mut drawn: Vec<f64> =
            drawn.map(|(class, absent)| population.class_keys(class, width) * (1.0 - absent)).collect();
        let total: f64 = drawn.iter().sum();
        let mut dead_share = share(dead, total);
        if bottommost && dead_share > 0.0 {
            // Deleted keys are gone, fresh or drawn; what is fresh only stays.
            let keys = population.keys(width);
            let alive = 1.0 - dead_share;
            let (before, after) = (share(total, keys), share(total * alive, keys));
            fresh *= share(1.0 - before, 1.0 - after);
            for keys in &mut drawn {
                *keys *= alive;
            }
            dead_share = 0.0;
        }
        Self { start, end, fresh, drawn, dead_share }
    }
}

/// `part / whole` within 0 and 1, and 0 where there is nothing.
pub(super) fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole).clamp(0.0, 1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn population(keys: f64) -> Population {
        Population { classes: vec![Class { keys, share: 1.0 }], inserted: 1.0 }
    }

    fn contents(fresh: f64, drawn: f64, dead_share: f64) -> Contents {
        Contents { start: 0.0, end: 1.0, fresh, drawn: vec![drawn], dead_share }
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-6, "{a} is not {b}");
    }

    #[test]
    fn fresh_keys_add_up_and_drawn_ones_overlap() {
        let keys = population(100.0);
        let merged = Contents::merge(&[contents(30.0, 0.0, 0.0), contents(70.0, 0.0, 0.0)], &keys, false);
        close(merged.entries(&keys), 100.0);
        let merged = Contents::merge(&[contents(0.0, 50.0, 0.0), contents(0.0, 50.0, 0.0)], &keys, false);
        close(merged.entries(&keys), 75.0);
        let merged = Contents::merge(&[contents(0.0, 50.0, 0.0), contents(100.0, 0.0, 0.0)], &keys, false);
        close(merged.entries(&keys), 100.0);
    }

    #[test]
    fn deletes_hide_older_versions_and_vanish_at_the_bottom() {
        let keys = population(100.0);
        let parts = [contents(0.0, 50.0, 0.5), contents(100.0, 0.0, 0.0)];
        let kept = Contents::merge(&parts, &keys, false);
        close(kept.tombstones(), 25.0);
        close(kept.entries(&keys), 100.0);
        let bottom = Contents::merge(&parts, &keys, true);
        close(bottom.tombstones(), 0.0);
        close(bottom.entries(&keys), 75.0);
        // A newer put brings a key back.
        let parts = [contents(0.0, 100.0, 0.0), contents(0.0, 100.0, 1.0)];
        close(Contents::merge(&parts, &keys, true).entries(&keys), 100.0);
    }
}
