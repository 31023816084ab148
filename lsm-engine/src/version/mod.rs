//! Versions: which tables and blob files a keyspace has, the tables in levels of runs, newest first, and how the disk
//! records it.
//!
//! Input: tables that were written. Output: immutable versions for readers, edits in the manifest, and obsolete files.
//! Code here does not decide what to flush or compact. No change counts before the manifest has it.

mod blob_file;
mod blobs;
mod clock;
mod covered;
pub(crate) mod current;
mod disk_reserve;
pub(crate) mod edit;
mod fence_pointers;
pub(crate) mod files;
mod hidden_bytes;
pub(crate) mod history;
pub(crate) mod lease;
mod leases;
mod live_files;
pub(crate) mod manifest;
mod manifest_reader;
mod numbers;
mod opening;
mod placement;
mod run;
mod table_file;
#[expect(clippy::module_inception, reason = "the folder has the name of what it is about")]
mod version;
mod version_set;

pub(crate) use blob_file::BlobFile;
pub(crate) use blobs::LiveBlob;
pub(crate) use clock::Clock;
pub(crate) use disk_reserve::DiskReserve;
pub(crate) use leases::Leases;
pub(crate) use live_files::{LiveFile, LiveKind};
pub(crate) use manifest_reader::ManifestReader;
pub(crate) use numbers::Numbers;
pub(crate) use opening::{TableOpener, missing, open_blobs, open_table, open_tables};
pub(crate) use placement::{BusyTable, Placement};
pub(crate) use run::{Run, RunCursor, common_prefix};
pub(crate) use table_file::{ObsoleteFiles, Shape, TableFile};
pub(crate) use version::{Lookup, Version, gather_range_tombstones};
pub(crate) use version_set::{MANIFEST_BYTES_BESIDE, VersionSet};
