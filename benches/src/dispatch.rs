//! From the name of an engine to its type.

use std::error::Error;
use std::path::Path;

use crate::bench;
#[cfg(feature = "fjall")]
use crate::engine::fjall;
use crate::engine::lsm;
#[cfg(feature = "rocksdb")]
use crate::engine::rocksdb;
#[cfg(any(feature = "rocksdb", feature = "fjall"))]
use crate::engine::transactional;
use crate::result::Result;
use crate::sample::Sample;
use crate::settings::Settings;
use crate::workload::{Group, Selection};

/// Names of the engines in this build, the project's own first.
pub(crate) const NAMES: &[&str] = &[
    "lsm",
    #[cfg(feature = "rocksdb")]
    "rocksdb",
    #[cfg(feature = "fjall")]
    "fjall",
];

/// Runs one group of workloads on the engine with this name; each measurement goes to `emit` as it is made.
pub(crate) fn run(
    name: &str,
    group: Group,
    selection: &Selection,
    dir: &Path,
    settings: &Settings,
    emit: &mut dyn FnMut(Sample),
) -> Result {
    if group == Group::Transactions {
        return match name {
            "lsm" => bench::run_transactions::<lsm::Lsm>(dir, settings, emit),
            #[cfg(feature = "rocksdb")]
            "rocksdb" => {
                bench::run_transactions::<transactional::rocksdb::OptimisticRocksDb>(dir, settings, emit)
            }
            #[cfg(feature = "fjall")]
            "fjall" => bench::run_transactions::<transactional::fjall::OptimisticFjall>(dir, settings, emit),
            _ => Err(unknown(name)),
        };
    }
    match name {
        "lsm" => bench::run::<lsm::Lsm>(group, selection, dir, settings, emit),
        #[cfg(feature = "rocksdb")]
        "rocksdb" => bench::run::<rocksdb::RocksDb>(group, selection, dir, settings, emit),
        #[cfg(feature = "fjall")]
        "fjall" => bench::run::<fjall::Fjall>(group, selection, dir, settings, emit),
        _ => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> Box<dyn Error + Send + Sync> {
    format!("no engine {name:?} in this build; there are {NAMES:?} (see --features peers)").into()
}
