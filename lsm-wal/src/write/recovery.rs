//! Opening a log that is used alone: find out where it ends, make that durable, go on after it.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::env::Env;
use lsm_core::vfs::{LockGuard, LockMode, Vfs};
use lsm_core::{Error, Result};

use super::origin::Origin;
use super::rewrite::Rewrite;
use super::site::Site;
use super::writer::{Live, Writer};
use crate::files::directory::{self, LogFile};
use crate::log::Position;
use crate::read::wal_reader::{ResumePoint, WalReader};
use crate::report::{LogExpectation, RecoveryReport};

/// Takes the lock of a directory, which is created if it is not there.
pub(crate) fn lock_directory(vfs: &dyn Vfs, directory: &Path) -> Result<Box<dyn LockGuard>> {
    match vfs.metadata(directory) {
        Ok(metadata) if !metadata.is_dir => {
            return Err(Error::invalid(format!("{} is not a directory", directory.display())));
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            vfs.create_dir(directory).map_err(|error| Error::io("create the directory", directory, error))?;
        }
        Err(error) => return Err(Error::io("look at", directory, error)),
    }
    // Also of a directory that was there: whoever created it may have died before this.
    if let Some(parent) = directory.parent() {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        match vfs.sync_dir(parent) {
            Err(error) if error.kind() != ErrorKind::PermissionDenied => {
                return Err(Error::io("sync the directory", parent, error));
            }
            // One that may not be listed by us was not created by us.
            _ => {}
        }
    }
    let path = directory.join("LOCK");
    vfs.lock(&path, LockMode::Exclusive).map_err(|error| Error::io("lock", &path, error))
}

/// Recovers a log and returns a writer that goes on after it.
pub(crate) fn recover(site: &Site, env: &dyn Env) -> Result<(Writer, RecoveryReport)> {
    let Site { vfs, directory, options } = site;
    let mode = options.recovery;
    let mut reader = WalReader::open(Arc::clone(vfs), directory, &LogExpectation::default(), mode)?;
    while reader.next()?.is_some() {}
    let report = reader.report().clone();
    let number = report.next_segment;
    let writer = if report.segment == 0 {
        Writer::begin(site.clone(), number, Origin::root(report.end, env), VecDeque::new())?
    } else {
        // What is known to be durable, and stands in segments as it should.
        let weak = reader.trace().first_weak.map_or(report.end, Position);
        let sound = report.synced.min(weak).clamp(report.start, report.end);
        let (mut tail, resume_point) = find_resume_point(site, &reader, sound)?;
        let origin = Origin::after(resume_point, env);
        let kept = reader.read_segments().take_while(|header| header.number <= resume_point.segment);
        let live = kept.map(|header| Live { number: header.number, start: header.start }).collect();
        if sound == report.end {
            Writer::begin(site.clone(), number, origin, live)?
        } else {
            let mut rewrite = Rewrite::begin(site.clone(), number, origin, live)?;
            while let Some(record) = tail.next()? {
                rewrite.append(record.tag, record.payload)?;
            }
            rewrite.finish()?
        }
    };
    clean_up(site, &reader, &writer)?;
    Ok((writer, report))
}

/// Where the log can be continued at `sound`, and a reader of what follows.
///
/// A segment whose records are known to be durable has a durable header. One that begins where they end may not,
/// so its predecessor is continued; if there is none, its header is written once more.
pub(crate) fn find_resume_point(
    site: &Site,
    whole: &WalReader,
    sound: Position,
) -> Result<(WalReader, ResumePoint)> {
    let Site { vfs, directory, options } = site;
    let changed = || Error::corruption(directory, 0, "the log changed while it was read");
    let first = whole.read_segments().next().copied().ok_or_else(changed)?;
    let header = whole.read_segments().take_while(|header| header.start < sound.0).last().unwrap_or(&first);
    let mut reader = WalReader::open_at(Arc::clone(vfs), directory, header.number, sound, options.recovery)?;
    let resume_point = reader
        .find_resume_point()?
        .filter(|resume_point| resume_point.position == sound.0)
        .ok_or_else(changed)?;
    if header.start == sound.0 {
        let path = LogFile::Segment(header.number).path(directory);
        let file = vfs.open_write(&path).map_err(|error| Error::io("open", &path, error))?;
        file.write_at(&header.encode(), 0).map_err(|error| Error::io("write to", &path, error))?;
        file.sync_data().map_err(|error| Error::io("sync", &path, error))?;
        directory::sync(&**vfs, directory)?;
    }
    Ok((reader, resume_point))
}

/// Removes what is no longer part of the log, and sets aside what holds dropped records. Returns the paths of that.
pub(crate) fn clean_up(site: &Site, reader: &WalReader, writer: &Writer) -> Result<Vec<PathBuf>> {
    let Site { vfs, directory, .. } = site;
    let is_live = |file: LogFile| matches!(file, LogFile::Segment(number) if writer.is_live(number));
    let mut report = reader.report().clone();
    let live: Vec<_> = reader.list().files.iter().filter(|file| is_live(**file)).collect();
    report.dropped.retain(|dropped| !live.iter().any(|file| file.path(directory) == dropped.path));
    let set_aside = directory::set_aside_dropped(&**vfs, directory, &report)?;
    for &file in reader.list().files.iter().filter(|file| !is_live(**file)) {
        // One that was set aside has this name no more.
        directory::remove(&**vfs, &file.path(directory))?;
    }
    directory::sync(&**vfs, directory)?;
    Ok(set_aside)
}
