//! Reading all that a store has.

use std::collections::{BTreeMap, BTreeSet};

use lsm_core::checksum::Checksum;
use lsm_core::vfs::LockMode;

use super::backup::{Backup, Meter};
use super::format::{self, Contents};
use super::objects::numbers;
use crate::checkpoint::{COPY_BYTES, Check, Proved};
use crate::error::{Error, Result};

/// What [`Backup::verify`] found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct BackupReport {
    /// Number of backups.
    pub generations: u64,
    /// Number of files that they need. A file that several share counts once.
    pub files: u64,
    /// Their bytes, all of which were read.
    pub bytes: u64,
    /// What is wrong. If it is empty, each backup can be restored.
    pub damage: Vec<BackupDamage>,
}

/// A damaged object of a store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackupDamage {
    /// The numbers of the backups that need it: those cannot be restored as a whole.
    pub generations: Vec<u64>,
    /// What is wrong. Names the object.
    pub error: Error,
}

impl Backup {
    /// Reads each byte of all backups, and compares it with its checksum. Damage is no error of this call: it is in the
    /// report, all of it.
    pub fn verify(&self) -> Result<BackupReport> {
        let _lock = self.objects.lock(LockMode::Shared)?;
        let numbers = numbers(&self.objects.list()?);
        let mut report = BackupReport { generations: numbers.len() as u64, ..BackupReport::default() };
        // By name: what proves an object, and who needs it.
        let mut needed: BTreeMap<String, (Check, u64, BTreeSet<u64>)> = BTreeMap::new();
        let owner = self.objects.database()?;
        for number in numbers {
            match self.objects.generation(number) {
                Ok(contents) => {
                    if Some(contents.state.database_id) != owner {
                        let path = self.objects.path(&format::generation_name(number));
                        let error =
                            Error::corruption(&path, 24, "it is a backup of another database than the store");
                        report.damage.push(BackupDamage { generations: vec![number], error });
                    }
                    for (name, bytes, check) in checks(&contents) {
                        needed.entry(name).or_insert((check, bytes, BTreeSet::new())).2.insert(number);
                    }
                }
                Err(error) => report.damage.push(BackupDamage { generations: vec![number], error }),
            }
        }
        let mut meter = self.meter(needed.values().map(|(_, bytes, _)| *bytes).fold(0, u64::saturating_add));
        for (name, (check, bytes, generations)) in needed {
            report.files += 1;
            report.bytes = report.bytes.saturating_add(bytes);
            match self.verify_object(&name, check, &mut meter) {
                Err(error @ Error::Callback(_)) => return Err(error),
                Err(error) => {
                    report
                        .damage
                        .push(BackupDamage { generations: generations.into_iter().collect(), error });
                }
                Ok(()) => {}
            }
        }
        Ok(report)
    }

    fn verify_object(&self, name: &str, check: Check, meter: &mut Meter<'_>) -> Result<()> {
        let mut on_bytes = |bytes| meter.add(bytes);
        let mut content =
            Proved::new(self.objects.reader(name), self.objects.path(name), check, &mut on_bytes);
        let mut buffer = vec![0; COPY_BYTES];
        while content.next(&mut buffer)? > 0 {}
        Ok(())
    }
}

/// The objects that a generation needs, with their lengths, and what proves them.
pub(super) fn checks(contents: &Contents) -> Vec<(String, u64, Check)> {
    let tables = contents.files();
    let tables = tables.iter().map(|file| (format::file_name(file), file.bytes, Check::Table(file.check())));
    tables.chain([(contents.log.name(), contents.log.bytes, log_check(contents))]).collect()
}

pub(super) fn log_check(contents: &Contents) -> Check {
    let (bytes, checksum) = (contents.log.bytes, contents.log.checksum);
    Check::Whole { bytes, checksum, at: 0, found: Checksum::new() }
}
