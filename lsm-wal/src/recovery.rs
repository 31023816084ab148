//! Opening a log that is used alone: find out where it ends, make that durable, go on after it.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use lsm_core::env::Env;
use lsm_core::vfs::{LockGuard, Vfs};
use lsm_core::{Error, Result};

use crate::directory::{self, DROPPED_SUFFIX, LogFile};
use crate::reader::Joint;
use crate::rewrite::Rewrite;
use crate::writer::{Live, Origin, Site, Writer};
use crate::{Position, RecoveryReport, WalReader};

/// Takes the lock of a directory, which is created if it is not there.
pub(crate) fn lock_directory(vfs: &dyn Vfs, directory: &Path) -> Result<Box<dyn LockGuard>> {
    match vfs.metadata(directory) {
        Ok(metadata) if !metadata.is_dir => {
            return Err(Error::invalid(format!("{} is not a directory", directory.display())));
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            vfs.create_dir(directory).map_err(|error| Error::io("create the directory", directory, error))?;
            if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                directory::sync(vfs, parent)?;
            }
        }
        Err(error) => return Err(Error::io("look at", directory, error)),
    }
    let path = directory.join("LOCK");
    vfs.lock(&path).map_err(|error| Error::io("lock", &path, error))
}

/// Recovers a log and returns a writer that goes on after it.
pub(crate) fn recover(site: &Site, env: &dyn Env) -> Result<(Writer, RecoveryReport)> {
    let mut reader = open(site, Position::ZERO)?;
    while reader.next()?.is_some() {}
    let report = reader.report().clone();
    let number = report.next_segment;
    // What is known to be durable, and stands in segments as it should.
    let weak = reader.trace().first_weak.map_or(report.end, Position);
    let sound = report.synced.min(weak).clamp(report.start, report.end);
    let writer = if report.segment == 0 {
        Writer::begin(site.clone(), number, Origin::root(report.end, env), VecDeque::new())?
    } else if sound == report.end {
        let joint = Joint {
            segment: report.segment,
            bytes: report.length,
            checksum: report.checksum,
            position: report.end.0,
        };
        Writer::begin(site.clone(), number, Origin::after(joint, env), live(&reader, report.segment))?
    } else {
        rewrite(site, env, number, sound, &reader)?
    };
    clean_up(site, &reader, &writer)?;
    Ok((writer, report))
}

fn open(site: &Site, from: Position) -> Result<WalReader> {
    let Site { vfs, directory, options } = site;
    WalReader::open(Arc::clone(vfs), directory, from, Position::ZERO, options.recovery, None)
}

/// The segments from where a reader began up to the one that is continued.
fn live(reader: &WalReader, last: u64) -> VecDeque<Live> {
    let mut live = VecDeque::new();
    let chain = reader.chain();
    let mut index = reader.first_segment();
    while let Some(header) = index.and_then(|index| chain.header(index)) {
        if header.number > last {
            break;
        }
        live.push_back(Live { number: header.number, start: header.start });
        index = index.and_then(|index| chain.successor(index));
    }
    live
}

/// Writes everything from `sound` on into a new, synced segment, which takes effect by its name.
fn rewrite(site: &Site, env: &dyn Env, number: u64, sound: Position, whole: &WalReader) -> Result<Writer> {
    let mut reader = open(site, sound)?;
    let joint = reader
        .find_joint()?
        .filter(|joint| joint.position == sound.0)
        .ok_or_else(|| Error::corruption(&site.directory, 0, "the log changed while it was read"))?;
    let live = live(whole, joint.segment);
    let mut rewrite = Rewrite::begin(site.clone(), number, Origin::after(joint, env), live)?;
    while let Some(record) = reader.next()? {
        rewrite.append(record.tag, record.payload)?;
    }
    rewrite.finish()
}

/// Removes what is no longer part of the log, and sets aside what holds dropped records.
fn clean_up(site: &Site, reader: &WalReader, writer: &Writer) -> Result<()> {
    let Site { vfs, directory, .. } = site;
    for &file in &reader.chain().files {
        if matches!(file, LogFile::Segment(number) if writer.is_live(number)) {
            continue;
        }
        let path = file.path(directory);
        if reader.holds_dropped(file) && matches!(file, LogFile::Segment(_)) {
            let aside = directory.join(file.name() + DROPPED_SUFFIX);
            vfs.rename(&path, &aside).map_err(|error| Error::io("set aside", &path, error))?;
        } else {
            directory::remove(&**vfs, &path)?;
        }
    }
    directory::sync(&**vfs, directory)
}
