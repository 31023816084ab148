//! The workloads, their groups, and which of them need which.

use clap::ValueEnum;

/// What `--help` says about the workloads.
pub(crate) const HELP: &str = "\
Workloads, in the order in which they run; each engine starts with an empty directory at each fill:
  fillseq            put every key once, in order
  bulkload           load every key once, in order, straight to tables where the engine can
  fillrandom         put every key once, in random order (always runs before those below)
  readhot            get every key once, in random order, at once after the fill: compactions still run
  settle             flush, and wait until compactions have come to rest
  readrandom         get every key once, in random order, after that
  readmissing        get keys that are not there, between those that are
  scan               iterate over all rows
  seek10             seek to a random key and read ten rows
  overwrite          put every key once more, in random order
  readwhilewriting   get random keys while another thread puts random keys as fast as it can; the row
                     writewhilereading has the puts of that thread
  deleterandom       delete half of the keys, in random order
  scandeleted        iterate over all rows, at once after that
  fillsync           put keys, each on stable storage before the next: one thread, then (fillsync8) eight
  transactions       optimistic transactions, each reading and writing two keys, until they commit: one thread,
                     two, eight, with keys of their own (txn1, txn2, txn8) and with 16 keys for all (txnhot1 ...);
                     then the commit of ten reads and ten writes (txncommit), and a plain batch of ten puts
                     (txnbatch)
  open               open a settled, cleanly closed database and get one key; the row close has the closing

Every value that comes back is checked against what was put, every scan against all that must be there; a wrong
answer ends the comparison.";

/// One row of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub(crate) enum Workload {
    /// Load in order.
    FillSeq,
    /// Load in order, past the log.
    BulkLoad,
    /// Load in random order.
    FillRandom,
    /// Read while the load's compactions run.
    ReadHot,
    /// Wait for compactions.
    Settle,
    /// Read at rest.
    ReadRandom,
    /// Read keys that are not there.
    ReadMissing,
    /// Iterate over everything.
    Scan,
    /// Short ranges.
    Seek10,
    /// Load again.
    Overwrite,
    /// One reader, one writer.
    ReadWhileWriting,
    /// Delete half.
    DeleteRandom,
    /// Iterate over what is left.
    ScanDeleted,
    /// Durable writes.
    FillSync,
    /// Optimistic transactions.
    Transactions,
    /// Open and close.
    Open,
}

/// Workloads that share a database, in a process of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// Loaded in order.
    Sequential,
    /// Loaded in order, past the log.
    Bulk,
    /// Loaded in random order.
    Random,
    /// Durable writes.
    Sync,
    /// Optimistic transactions.
    Transactions,
    /// Open and close.
    Open,
}

/// Which workloads were asked for.
#[derive(Clone, Debug)]
pub(crate) struct Selection(Vec<Workload>);

impl Selection {
    /// These, or all if there are none.
    pub(crate) fn new(workloads: Vec<Workload>) -> Self {
        Self(if workloads.is_empty() { Workload::value_variants().to_vec() } else { workloads })
    }

    /// Names of the workloads.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.iter().map(|workload| workload.name()).collect()
    }

    /// Whether any of them belongs to `group`.
    pub(crate) fn needs(&self, group: Group) -> bool {
        self.0.iter().any(|workload| workload.group() == group)
    }

    /// Whether this workload was asked for.
    pub(crate) fn has(&self, workload: Workload) -> bool {
        self.0.contains(&workload)
    }
}

impl Workload {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn group(self) -> Group {
        match self {
            Self::FillSeq => Group::Sequential,
            Self::BulkLoad => Group::Bulk,
            Self::FillSync => Group::Sync,
            Self::Transactions => Group::Transactions,
            Self::Open => Group::Open,
            _ => Group::Random,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_needed_if_one_of_its_workloads_is() {
        let selection = Selection::new(vec![Workload::Scan, Workload::Open]);
        assert_eq!(selection.names(), ["scan", "open"]);
        assert!(
            selection.needs(Group::Random) && selection.needs(Group::Open) && !selection.needs(Group::Sync)
        );
        let all = Selection::new(Vec::new());
        assert!(Group::value_variants().iter().all(|group| all.needs(*group)));
    }

    #[test]
    fn help_names_every_workload() {
        for name in Selection::new(Vec::new()).names() {
            assert!(HELP.lines().any(|line| line.split_whitespace().next() == Some(&name)), "{name}");
        }
    }
}
