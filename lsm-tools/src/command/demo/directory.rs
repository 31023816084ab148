//! The demo's directory. It is marked, so that a second run can clear what the first one made, and nothing else.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

use lsm_core::vfs::{LockMode, PosixFs, Vfs};
use lsm_engine::inspect::kind_of;

use crate::exit::{Failure, Result};

const MARKER: &str = "LSM-DEMO.txt";
const MARKER_TEXT: &str = "\
This directory was made by `lsm demo`. It holds a database of the cities of the world (data by GeoNames,
https://www.geonames.org/, CC BY 4.0). Delete it whenever you like; the next `lsm demo` clears it anyway.
";

/// Makes `path` an empty, marked directory: a new one, an empty one, or one that an earlier demo left.
#[expect(clippy::disallowed_methods, reason = "makes room for a store before there is one")]
pub(super) fn claim(path: &Path) -> Result<()> {
    let failed = |what: &str, error: &io::Error| Failure::io(&format!("{what} {}", path.display()), error);
    match fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => clear(path)?,
        Err(error) => return Err(failed("create", &error)),
    }
    fs::write(path.join(MARKER), MARKER_TEXT).map_err(|error| failed("write into", &error))
}

/// Removes what an earlier demo left.
#[expect(clippy::disallowed_methods, reason = "the database in here is closed: its lock is held")]
fn clear(path: &Path) -> Result<()> {
    let failed = |what: &str, error: &io::Error| Failure::io(&format!("{what} {}", path.display()), error);
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| failed("read", &error))? {
        names.push(entry.map_err(|error| failed("read", &error))?.file_name());
    }
    if names.is_empty() {
        return Ok(());
    }
    if !names.iter().any(|name| name == MARKER) {
        return Err(Failure::Usage(format!(
            "{} was not made by a demo, and is not empty; give another directory with --dir",
            path.display()
        )));
    }
    let is_ours = |name: &OsString| name.to_str().and_then(kind_of).is_some();
    if let Some(stranger) = names.iter().find(|name| *name != MARKER && !is_ours(name)) {
        return Err(Failure::Usage(format!(
            "{} holds a file that no demo made, {}; move it away, or give another directory with --dir",
            path.display(),
            stranger.display()
        )));
    }
    let lock_path = path.join("LOCK");
    let _lock = PosixFs.lock(&lock_path, LockMode::Exclusive).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            Failure::Io(format!("{} is locked: another process has it open", path.display()))
        }
        _ => Failure::io(&format!("lock {}", lock_path.display()), &error),
    })?;
    for name in names.iter().filter(|name| *name != MARKER && *name != "LOCK") {
        let file = path.join(name);
        fs::remove_file(&file).map_err(|error| Failure::io(&format!("remove {}", file.display()), &error))?;
    }
    Ok(())
}
