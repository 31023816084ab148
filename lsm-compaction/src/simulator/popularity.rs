use super::workload::{KeyDistribution, Workload};

/// Keys of about the same popularity, scattered evenly over the key space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class {
    /// How many keys.
    pub(super) keys: f64,
    /// Share of the writes to existing keys that goes to all of them together.
    pub(super) share: f64,
}

/// Each class has this many times more keys than the one that is more popular.
const CLASS_GROWTH: u64 = 4;

pub(super) fn classes(workload: &Workload) -> Vec<Class> {
    let KeyDistribution::Zipf { exponent } = workload.distribution else {
        return vec![Class { keys: workload.keys as f64, share: 1.0 }];
    };
    let mut classes = Vec::new();
    let (mut first, mut keys) = (1, 1);
    while first <= workload.keys {
        let end = first.saturating_add(keys).min(workload.keys + 1);
        classes.push(Class { keys: (end - first) as f64, share: weight(first, end, exponent) });
        first = end;
        keys *= CLASS_GROWTH;
    }
    let total: f64 = classes.iter().map(|class| class.share).sum();
    for class in &mut classes {
        class.share /= total;
    }
    classes
}

/// Sum of `1 / r^exponent` over the ranks `first..end`.
fn weight(first: u64, end: u64, exponent: f64) -> f64 {
    if end - first <= 1024 {
        return (first..end).map(|rank| (rank as f64).powf(-exponent)).sum();
    }
    // The integral between the half steps is off by less than a millionth at such ranks.
    let (low, high) = (first as f64 - 0.5, end as f64 - 0.5);
    if (exponent - 1.0).abs() < 1e-9 {
        return (high / low).ln();
    }
    let power = 1.0 - exponent;
    (high.powf(power) - low.powf(power)) / power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_all_keys_and_all_writes_and_the_first_key_what_zipf_says() {
        for keys in [1, 2, 1000, 1_000_000, 1_000_000_000_000] {
            let distribution = KeyDistribution::Zipf { exponent: 0.99 };
            let classes = classes(&Workload { keys, distribution, ..Workload::default() });
            let sum = |part: fn(&Class) -> f64| classes.iter().map(part).sum::<f64>();
            assert!((sum(|class| class.keys) - keys as f64).abs() < 0.5);
            assert!((sum(|class| class.share) - 1.0).abs() < 1e-9);
            if keys == 1_000_000 {
                let exact: f64 = (1..=keys).map(|rank| (rank as f64).powf(-0.99)).sum();
                assert!((classes[0].share * exact - 1.0).abs() < 1e-6);
            }
        }
    }
}
