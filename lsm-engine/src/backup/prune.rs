//! Deleting old backups.

use std::collections::BTreeSet;

use lsm_core::vfs::LockMode;

use super::backup::Backup;
use super::format;
use super::objects::numbers;
use crate::error::{Error, Result};

/// What [`Backup::prune`] deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruned {
    /// Number of backups.
    pub generations: u64,
    /// Number of files that no backup needs any more.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Backup {
    /// Deletes all backups but the newest `keep`, at least one, and then the files that no backup needs, also those of
    /// backups that were interrupted.
    ///
    /// Fails with [`ErrorKind::Locked`](crate::ErrorKind::Locked) while a backup is being made, verified or restored. Fails
    /// and deletes nothing if one of the backups that would be kept is damaged, since it is unknown which files it needs;
    /// damaged backups that are older are deleted.
    pub fn prune(&self, keep: usize) -> Result<Pruned> {
        if keep == 0 {
            return Err(Error::invalid("prune keeps at least one backup"));
        }
        let _lock = self.objects.lock(LockMode::Exclusive)?;
        let objects = self.objects.list()?;
        let numbers = numbers(&objects);
        let (old, kept) = numbers.split_at(numbers.len().saturating_sub(keep));
        let mut needed = BTreeSet::new();
        for &number in kept {
            needed.extend(self.objects.generation(number)?.objects().into_iter().map(|(name, _)| name));
        }
        // The oldest first, and durably before any of their files: whatever ends this call, no backup lacks a file.
        for &number in old {
            self.objects.delete(&[format::generation_name(number)])?;
        }
        let mut pruned = Pruned { generations: old.len() as u64, ..Pruned::default() };
        let mut unneeded = Vec::new();
        for object in objects {
            if format::is_of_generations(&object.name) && !needed.contains(&object.name) {
                pruned.files += 1;
                pruned.bytes += object.bytes;
                unneeded.push(object.name);
            }
        }
        if !unneeded.is_empty() {
            self.objects.delete(&unneeded)?;
        }
        self.objects.clean_up()?;
        Ok(pruned)
    }
}
