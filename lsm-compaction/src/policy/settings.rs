//! The settings of the built-in policies as text, so that a store can keep them and make the policy again.
//!
//! ```text
//! settings := [name=number (" " name=number)*]      a setting that is not there has its default
//! ```

use std::sync::Arc;

use super::{
    CompactionPolicy, Fifo, FifoOptions, LazyLeveled, LazyLeveledOptions, Leveled, LeveledOptions,
    SizeTiered, SizeTieredOptions,
};

/// The built-in policy with this [name](CompactionPolicy::name) and these [settings](CompactionPolicy::settings).
/// `None` if there is none, or if this version does not know a setting.
///
/// ```
/// use lsm_compaction::{CompactionPolicy, Fifo, FifoOptions, built_in_policy};
/// let policy = Fifo::new(FifoOptions { bytes_max: 1 << 20, ..FifoOptions::default() });
/// let same = built_in_policy("fifo", &policy.settings()).unwrap();
/// assert_eq!((same.name(), same.settings()), ("fifo", policy.settings()));
/// ```
pub fn built_in_policy(name: &str, settings: &str) -> Option<Arc<dyn CompactionPolicy>> {
    Some(match name {
        "leveled" => Arc::new(Leveled::new(LeveledOptions::from_settings(settings)?)),
        "size-tiered" => Arc::new(SizeTiered::new(SizeTieredOptions::from_settings(settings)?)),
        "lazy-leveled" => Arc::new(LazyLeveled::new(LazyLeveledOptions::from_settings(settings)?)),
        "fifo" => Arc::new(Fifo::new(FifoOptions::from_settings(settings)?)),
        _ => return None,
    })
}

macro_rules! settings {
    ($options:ident { $($field:ident),+ $(,)? }) => {
        impl $options {
            pub(super) fn to_settings(self) -> String {
                let Self { $($field),+ } = self;
                [$(format!(concat!(stringify!($field), "={}"), $field)),+].join(" ")
            }

            fn from_settings(text: &str) -> Option<Self> {
                let mut options = Self::default();
                for setting in text.split_terminator(' ') {
                    let (name, value) = setting.split_once('=')?;
                    match name {
                        $(stringify!($field) => options.$field = value.parse().ok()?,)+
                        _ => return None,
                    }
                }
                Some(options)
            }
        }
    };
}

settings!(LeveledOptions {
    level_count,
    level0_runs_max,
    base_bytes,
    fanout,
    target_table_bytes,
    compaction_bytes_max,
    tombstone_age_micros_max,
    tombstone_percent_max,
    hidden_percent_max,
});

settings!(SizeTieredOptions {
    runs_max,
    size_ratio_percent,
    space_amplification_percent_max,
    target_table_bytes,
    tombstone_age_micros_max,
    hidden_percent_max,
});

settings!(LazyLeveledOptions {
    level_count,
    level0_runs_max,
    base_bytes,
    runs_max,
    last_fanout,
    target_table_bytes,
    compaction_bytes_max,
    tombstone_age_micros_max,
    hidden_percent_max,
});

settings!(FifoOptions { bytes_max, time_to_live_micros });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_back_and_unknown_ones_are_refused() {
        let options = LeveledOptions { fanout: 3, base_bytes: u64::MAX, ..LeveledOptions::default() };
        let again = built_in_policy("leveled", &Leveled::new(options).settings()).unwrap();
        assert_eq!(again.settings(), options.to_settings());
        assert_eq!(built_in_policy("fifo", "").unwrap().settings(), FifoOptions::default().to_settings());
        for (name, settings) in [
            ("eager", ""),
            ("fifo", "fanout=2"),
            ("fifo", "bytes_max"),
            ("fifo", "bytes_max=-1"),
            ("fifo", "bytes_max=1  bytes_max=2"),
        ] {
            assert!(built_in_policy(name, settings).is_none(), "{name} {settings:?}");
        }
    }
}
