use std::sync::Arc;

use lsm_sstable::FilterPolicy;

/// The filter of new tables.
#[derive(Clone, Debug)]
pub(super) enum Filter {
    None,
    /// A Bloom filter with this many bits per key, on average over all tables.
    Bloom(f64),
    Given(Arc<dyn FilterPolicy>),
}

impl Filter {
    pub(super) fn to_text(&self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::Bloom(bits) => format!("bloom:{bits}"),
            Self::Given(policy) => format!("given:{}", policy.name()),
        }
    }

    /// `given` is a filter that may be meant.
    pub(super) fn from_text(text: &str, given: Option<&Self>) -> Option<Self> {
        match text.split_once(':') {
            None if text == "none" => Some(Self::None),
            Some(("bloom", bits)) => {
                bits.parse().ok().filter(|bits: &f64| *bits > 0.0 && bits.is_finite()).map(Self::Bloom)
            }
            _ => given.filter(|given| given.to_text() == text).cloned(),
        }
    }
}
