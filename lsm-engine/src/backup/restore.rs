//! Making a database of a backup.

use std::path::Path;

use lsm_core::vfs::LockMode;

use super::backup::{Backup, Generation, Meter};
use super::format::{self, Contents};
use super::verify::log_check;
use crate::checkpoint::{Check, Proved, Staging, log_path, write_file};
use crate::error::Result;
use crate::version::manifest::Manifest;

impl Backup {
    /// Makes a database of a backup in the new directory `target`. It is whole and durable when this returns; after a
    /// crash or an error `target` is not there.
    ///
    /// It is the same database as the one that was backed up, with the same id: its next backup goes into the same store.
    /// Do not go on writing to both.
    pub fn restore(&self, generation: u64, target: impl AsRef<Path>) -> Result<Generation> {
        let _lock = self.objects.lock(LockMode::Shared)?;
        let contents = self.objects.generation(generation)?;
        let restored = Generation::of(&contents);
        let staging = Staging::begin(&self.vfs, target.as_ref())?;
        let mut meter = self.meter(restored.bytes);
        let (log, log_name) = (log_path(staging.path()), contents.log.name());
        self.fetch(&log_name, log_check(&contents), &log, &mut meter)?;
        for file in contents.files() {
            let check = Check::Table(file.check());
            self.fetch(&format::file_name(&file), check, &file.path(staging.path()), &mut meter)?;
        }
        let Contents { salt, state, log, .. } = contents;
        // This also syncs the directory.
        Manifest::create_closed(&self.vfs, staging.path(), salt as u32, state, log.closed)?;
        staging.finish()?;
        Ok(restored)
    }

    /// Writes an object to a new file.
    fn fetch(&self, name: &str, check: Check, path: &Path, meter: &mut Meter<'_>) -> Result<()> {
        let mut on_bytes = |bytes| meter.add(bytes);
        let content = self.objects.reader(name);
        let mut content = Proved::new(content, self.objects.path(name), check, &mut on_bytes);
        write_file(&*self.vfs, path, &mut content).map(drop)
    }
}
