use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use lsm_core::vfs::{PosixFs, Vfs};
use lsm_engine::inspect::{Kind, kind_of};
use lsm_engine::{KeyspaceMetrics, Metrics};
use serde_json::{Value, json};

use crate::database::FollowArg;
use crate::exit::{Failure, Result};
use crate::output::{Output, bytes, grouped};
use crate::tree;

/// Show the shape of the tree, sizes and amplification
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  lsm stats lsm-demo
  lsm stats lsm-demo --json | jq .files
  lsm stats lsm-demo --prometheus > lsm.prom

Read amplification is the number of sorted runs that a read has to look into where no filter spares it. \
Space amplification is the size of all levels divided by that of the last one: overwritten and deleted \
data cannot take more than the rest.")]
pub(crate) struct Stats {
    /// Directory of the database
    db: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Print Prometheus text, for a textfile collector
    ///
    /// It shows the shape of the tree. Work and latencies are those of the process that prints them: a running program
    /// serves its own with `Metrics::to_prometheus`.
    #[arg(long, conflicts_with = "json")]
    prometheus: bool,
    #[command(flatten)]
    follow: FollowArg,
}

impl Stats {
    pub(crate) fn run(self) -> Result<()> {
        let db = self.follow.open_for_reading(&self.db)?;
        let metrics = db.metrics();
        let files = files(&self.db)?;
        let mut out = Output::stdout();
        if self.prometheus {
            out.raw(metrics.to_prometheus().as_bytes())?;
        } else if self.json {
            out.line(format_args!("{}", as_json(&metrics, &files)))?;
        } else {
            print(&mut out, &metrics, &files)?;
        }
        out.flush()
    }
}

/// Number and bytes of the files of each kind.
type Files = BTreeMap<&'static str, (u64, u64)>;

fn files(directory: &Path) -> Result<Files> {
    let failed = |path: &Path, error| Failure::io(&format!("read {}", path.display()), &error);
    let mut files = Files::new();
    for name in PosixFs.read_dir(directory).map_err(|error| failed(directory, error))? {
        let path = directory.join(&name);
        match PosixFs.metadata(&path) {
            Ok(metadata) => {
                let (count, len) = files.entry(kind(&name)).or_default();
                (*count, *len) = (*count + 1, *len + metadata.len);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {} // removed since it was listed
            Err(error) => return Err(failed(&path, error)),
        }
    }
    Ok(files)
}

fn kind(name: &str) -> &'static str {
    match kind_of(name) {
        Some(Kind::Current) => "current",
        Some(Kind::Manifest) => "manifests",
        Some(Kind::Log) => "logs",
        Some(Kind::Table) => "tables",
        Some(Kind::Blob) => "blobs",
        Some(Kind::Reserve) => "reserve",
        Some(Kind::Lock) => "lock",
        Some(Kind::Events) => "events",
        Some(Kind::Lease) => "leases",
        _ => "others",
    }
}

fn print(out: &mut Output, metrics: &Metrics, files: &Files) -> Result<()> {
    for keyspace in &metrics.keyspaces {
        tree::print(out, "", keyspace)?;
        if let Some(space) = tree::space_amplification(keyspace) {
            out.line(format_args!("  amplification: read {}, space {space:.2}", tree::total(keyspace).runs))?;
        }
        if let Some(space) = tree::blob_space_amplification(keyspace) {
            out.line(format_args!("  space amplification of blob files: {space:.2}"))?;
        }
        out.line(format_args!(""))?;
    }
    out.line(format_args!("last write: number {}", grouped(metrics.visible_sequence)))?;
    if metrics.purged_sequence > 0 {
        out.line(format_args!("purged through: number {}", grouped(metrics.purged_sequence)))?;
    }
    out.line(format_args!("log to replay when opened: {}", bytes(metrics.log_bytes)))?;
    out.line(format_args!("files:"))?;
    for (kind, (count, len)) in files {
        out.line(format_args!("  {:<9} {:>7} {:>11}", kind, grouped(*count), bytes(*len)))?;
    }
    Ok(())
}

fn as_json(metrics: &Metrics, files: &Files) -> Value {
    json!({
        "keyspaces": metrics.keyspaces.iter().map(keyspace_as_json).collect::<Vec<_>>(),
        "visible_sequence": metrics.visible_sequence,
        "purged_sequence": metrics.purged_sequence,
        "log_bytes": metrics.log_bytes,
        "files": files
            .iter()
            .map(|(kind, (count, len))| ((*kind).to_owned(), json!({ "count": count, "bytes": len })))
            .collect::<serde_json::Map<_, _>>(),
    })
}

fn keyspace_as_json(keyspace: &KeyspaceMetrics) -> Value {
    let levels: Vec<_> = keyspace
        .levels
        .iter()
        .map(|level| {
            let besides = json!({
                "raw_bytes": level.raw_bytes,
                "entries": level.entries,
                "tombstones": level.tombstones,
                "range_tombstones": level.range_tombstones,
                "merge_operands": level.merge_operands,
            });
            tree::level_as_json(level.runs, level.tables, level.bytes, besides)
        })
        .collect();
    json!({
        "name": keyspace.name,
        "policy": keyspace.policy,
        "merge_operator": keyspace.merge_operator,
        "failure": keyspace.failure,
        "levels": levels,
        "blob_files": keyspace.blob_files,
        "blob_bytes": keyspace.blob_bytes,
        "blob_garbage_bytes": keyspace.blob_garbage_bytes,
        "blob_space_amplification": tree::blob_space_amplification(keyspace),
        "read_amplification": tree::total(keyspace).runs,
        "space_amplification": tree::space_amplification(keyspace),
    })
}
