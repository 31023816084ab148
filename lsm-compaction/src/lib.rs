//! Compaction policies as pure functions, the garbage rules of a merge, and a simulator.
//!
//! A policy looks at the [`TreeShape`], which is metadata only, and names the next [`Compaction`]. [`validate`]
//! proves that carrying it out keeps every key's versions in order, so that a policy from outside can make a
//! store slow but never wrong. Nothing here reads a file, a clock or a random number: the same shape always gives
//! the same answer, on which tests, the simulator and the store rely.
//!
//! ```
//! use lsm_compaction::{CompactionPolicy, Leveled, LevelShape, RunShape, TableShape, TreeShape, validate};
//! use std::sync::Arc;
//!
//! // Four flushed tables that cover the same keys wait in level 0.
//! let flushed = |id| {
//!     RunShape::new(vec![Arc::new(TableShape {
//!         id,
//!         smallest: "a".into(),
//!         largest: "z".into(),
//!         bytes: 64 << 20,
//!         entries: 500_000,
//!         ..TableShape::default()
//!     })])
//! };
//! let policy = Leveled::default();
//! let mut shape = TreeShape::empty(policy.level_count());
//! shape.levels[0] = LevelShape { runs: vec![flushed(4), flushed(3), flushed(2), flushed(1)] };
//!
//! let compaction = policy.pick(&shape).expect("level 0 is full");
//! validate(&shape, &compaction).expect("built-in policies pick soundly");
//! assert_eq!(compaction.output_level, 6, "a small tree has nothing between level 0 and the last level");
//! ```
#![forbid(unsafe_code)]

mod apply;
mod compaction;
pub mod expired_tables;
mod filter;
mod garbage;
mod key_range_merge;
mod manual;
mod output_run;
mod policy;
mod shape;
pub mod simulator;
mod small_tables;
mod tables_in_range;
mod validate;

pub use compaction::{Action, Compaction, InputLevel, InputTable, Reason};
pub use garbage::{CompactionStream, GarbageCounts, GarbageRules, MergeFailure, OlderTables, OlderVersions};

pub use expired_tables::expired_tables;
pub use filter::{BlobSource, CompactionAt, CompactionFilter, Decision, LazyValue};
pub use manual::{ManualOptions, manual};
pub use output_run::OutputRun;
pub use policy::{
    CompactionPolicy, Fifo, FifoOptions, LazyLeveled, LazyLeveledOptions, Leveled, LeveledOptions,
    SizeTiered, SizeTieredOptions, built_in_policy,
};
pub use shape::{LevelShape, RunShape, RunningShape, TableShape, TreeShape};
pub use small_tables::small_tables;
pub use tables_in_range::tables_in_range;
pub use validate::{Rejection, validate};
