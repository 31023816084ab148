//! A directory that appears whole or not at all: it is filled under the name `NAME.tmp`, and then renamed.
//!
//! `NAME.tmp` holds the file `STAGING` from its beginning, locked by whoever fills it. So what an interrupted call left
//! is told from what somebody else put there, and from what is being filled right now.

use std::ffi::OsString;
use std::io::ErrorKind as Io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::vfs::{LockGuard, LockMode, Vfs};

use crate::error::{Error, Result};
use crate::version::files;

/// A directory that is being filled. If it is dropped before [`finish`](Self::finish), nothing of it is left.
pub(crate) struct Staging {
    vfs: Arc<dyn Vfs>,
    target: PathBuf,
    path: PathBuf,
    parent: PathBuf,
    lock: Option<Box<dyn LockGuard>>,
    is_done: bool,
}

impl Staging {
    /// Begins to fill a directory that shall have the name `target`. Removes what an interrupted call has left.
    pub(crate) fn begin(vfs: &Arc<dyn Vfs>, target: &Path) -> Result<Self> {
        let Some(name) = target.file_name() else {
            return Err(Error::invalid(format!("{} names no new directory", target.display())));
        };
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        match vfs.metadata(target) {
            Ok(_) => return Err(Error::TargetExists(Arc::new(target.to_owned()))),
            Err(error) if matches!(error.kind(), Io::NotFound | Io::NotADirectory) => {}
            Err(error) => return Err(Error::io("look at", target, error)),
        }
        let found = vfs.metadata(&parent).map_err(|error| Error::io("look at", &parent, error))?;
        if !found.is_dir {
            return Err(Error::NotADirectory(Arc::new(parent)));
        }
        check_outside_databases(&**vfs, &parent)?;
        let mut temporary = OsString::from(name);
        temporary.push(".tmp");
        let path = parent.join(temporary);
        let lock = claim(&**vfs, &path)?;
        let (vfs, target) = (Arc::clone(vfs), target.to_owned());
        let staging = Self { vfs, target, path, parent, lock: Some(lock), is_done: false };
        staging.clear()?;
        // From here on everybody can tell whose directory it is.
        staging.sync(&staging.path)?;
        Ok(staging)
    }

    /// The directory to fill.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the directory its name, durably. Its files and their names are durable already.
    pub(crate) fn finish(mut self) -> Result<()> {
        let mut renamed = self.vfs.rename(&self.path, &self.target);
        if renamed.as_ref().is_err_and(|error| error.kind() == Io::PermissionDenied) {
            // Some systems rename no directory that holds an open file.
            self.lock = None;
            renamed = self.vfs.rename(&self.path, &self.target);
        }
        let target = &self.target;
        renamed.map_err(|error| match error.kind() {
            Io::AlreadyExists | Io::DirectoryNotEmpty | Io::NotADirectory => {
                Error::TargetExists(Arc::new(target.clone()))
            }
            _ => Error::io("rename to", target, error),
        })?;
        if let Err(error) = self.sync(&self.parent) {
            // It may or may not be there after a power cut. Better not at all.
            let _ = self.vfs.rename(target, &self.path);
            return Err(error);
        }
        // Should it stay, the next open removes it.
        let _ = self.vfs.remove_file(&target.join(files::STAGING));
        let _ = self.vfs.sync_dir(target);
        self.is_done = true;
        Ok(())
    }

    /// Removes all files but the one that is locked.
    fn clear(&self) -> Result<()> {
        for name in files::list(&*self.vfs, &self.path)? {
            if name == files::STAGING {
                continue;
            }
            let path = self.path.join(&name);
            if files::parse(&name).is_none() {
                return Err(Error::invalid(format!(
                    "{} holds {name:?}, which no checkpoint or restore has put there: remove the directory, or choose \
                     another target",
                    self.path.display()
                )));
            }
            self.vfs.remove_file(&path).map_err(|error| Error::io("remove", &path, error))?;
        }
        Ok(())
    }

    fn sync(&self, directory: &Path) -> Result<()> {
        self.vfs.sync_dir(directory).map_err(|error| Error::io("sync", directory, error))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let removed = self.clear();
        self.lock = None;
        if removed.is_ok() {
            // What counts is the failure that led here. The next call removes what is left.
            let _ = self.vfs.remove_file(&self.path.join(files::STAGING));
            let _ = self.vfs.remove_dir(&self.path);
            let _ = self.vfs.sync_dir(&self.parent);
        }
    }
}

/// Creates the directory, or takes over one that an interrupted call has left.
fn claim(vfs: &dyn Vfs, path: &Path) -> Result<Box<dyn LockGuard>> {
    let is_new = match vfs.create_dir(path) {
        Ok(()) => true,
        Err(error) if error.kind() == Io::AlreadyExists => false,
        Err(error) => return Err(Error::io("create", path, error)),
    };
    if !is_new {
        let names = files::list(vfs, path)?;
        if !names.is_empty() && !names.iter().any(|name| name == files::STAGING) {
            return Err(Error::TargetExists(Arc::new(path.to_owned())));
        }
    }
    let marker = path.join(files::STAGING);
    vfs.lock(&marker, LockMode::Exclusive).map_err(|error| {
        if is_new {
            let _ = vfs.remove_dir(path);
        }
        match error.kind() {
            Io::WouldBlock => Error::Locked(Arc::new(path.to_owned())),
            _ => Error::io("lock", &marker, error),
        }
    })
}

/// Fails if a directory is one of a database, or inside of one.
fn check_outside_databases(vfs: &dyn Vfs, directory: &Path) -> Result<()> {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    for outer in directory.ancestors().chain(absolute.ancestors()) {
        if vfs.metadata(&outer.join(files::CURRENT)).is_ok_and(|found| !found.is_dir) {
            return Err(Error::invalid(format!(
                "the target is inside of the database in {}: choose a directory outside",
                outer.display()
            )));
        }
    }
    Ok(())
}
