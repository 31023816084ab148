use std::path::Path;

use lsm_core::SequenceNumber;
use lsm_core::vfs::{Vfs, try_link};

use super::copying::{NewFile, write_file};
use super::frozen::{freeze, log_path};
use super::options::CheckpointOptions;
use super::proved::{Check, FileReader, Proved};
use super::staging::Staging;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::version::LiveFile;
use crate::version::manifest::{Manifest, ManifestState};

/// What a checkpoint consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checkpoint {
    /// The sequence number of the last write in it. It has all writes up to this one.
    pub sequence: SequenceNumber,
    /// Files that it shares with the database.
    pub linked_files: u64,
    /// Their bytes. They take no space before one of the two databases does not need them any more.
    pub linked_bytes: u64,
    /// Files that had to be copied, because the target is on another file system, or on one without hard links.
    pub copied_files: u64,
    /// Their bytes.
    pub copied_bytes: u64,
    /// Bytes of log: the writes that were not in tables yet. They were copied, too.
    pub log_bytes: u64,
}

/// Makes a checkpoint of a database in `target`.
pub(crate) fn make(database: &Database, target: &Path, options: &CheckpointOptions) -> Result<Checkpoint> {
    let (vfs, env) = (&database.resources.vfs, &database.resources.env);
    let staging = Staging::begin(vfs, target)?;
    let mut frozen = freeze(database, options)?;
    let mut made = Checkpoint { sequence: frozen.sequence, ..Checkpoint::default() };
    let mut log = NewFile::create(&**vfs, log_path(staging.path()))?;
    while let Some(bytes) = frozen.next_log_bytes()? {
        log.write(&bytes)?;
    }
    made.log_bytes = log.sync()?;
    for file in frozen.files() {
        place(&**vfs, &database.resources.directory, staging.path(), &file, &mut made)?;
    }
    let (mut state, log) = frozen.into_copy()?;
    state.database_id = ManifestState::random_id(&**env);
    // This also syncs the directory.
    Manifest::create_closed(vfs, staging.path(), env.random() as u32, state, log)?;
    staging.finish()?;
    Ok(made)
}

/// Links a file into a directory, or copies it.
fn place(vfs: &dyn Vfs, from: &Path, into: &Path, file: &LiveFile, made: &mut Checkpoint) -> Result<()> {
    let (old, new) = (file.path(from), file.path(into));
    if try_link(vfs, &old, &new).map_err(|error| Error::io("link to", &new, error))? {
        made.linked_files += 1;
        made.linked_bytes += file.bytes;
        return Ok(());
    }
    let (content, check) = (FileReader::open(vfs, &old)?, Check::Table(file.check()));
    made.copied_bytes += write_file(vfs, &new, &mut Proved::new(content, old, check, &mut |_| Ok(())))?;
    made.copied_files += 1;
    Ok(())
}
