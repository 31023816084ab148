//! A map in memory that keeps its promises, or breaks one of them: the proof that the workloads notice.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Engine;
use crate::dataset::KEY_BYTES;
use crate::result::Result;
use crate::settings::Settings;

pub(crate) const HONEST: u8 = 0;
/// Forgets one put.
pub(crate) const LOSES_A_PUT: u8 = 1;
/// Flips a bit of one value.
pub(crate) const SCRIBBLES: u8 = 2;
/// Ignores puts to keys that it has.
pub(crate) const KEEPS_OLD_VALUES: u8 = 3;
/// Ignores some deletes.
pub(crate) const IGNORES_DELETES: u8 = 4;
/// Leaves one row out of each scan.
pub(crate) const SKIPS_A_ROW: u8 = 5;
/// Finds keys that are not there.
pub(crate) const FINDS_EVERYTHING: u8 = 6;
/// Has nothing when opened again.
pub(crate) const FORGETS_AT_CLOSE: u8 = 7;

/// One of the above.
pub(crate) struct Model<const FAULT: u8> {
    rows: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    writes: AtomicU64,
    file: PathBuf,
    value_bytes: usize,
}

impl<const FAULT: u8> Engine for Model<FAULT> {
    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        let file = dir.join("rows");
        let value_bytes = settings.value_bytes as usize;
        let rows = fs::read(&file)
            .unwrap_or_default()
            .chunks_exact(KEY_BYTES + value_bytes)
            .map(|row| (row[..KEY_BYTES].to_vec(), row[KEY_BYTES..].to_vec()))
            .collect();
        Ok(Self { rows: Mutex::new(rows), writes: AtomicU64::new(0), file, value_bytes })
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result {
        assert_eq!((key.len(), value.len()), (KEY_BYTES, self.value_bytes));
        let write = self.writes.fetch_add(1, Ordering::Relaxed);
        let mut value = value.to_vec();
        match FAULT {
            LOSES_A_PUT if write == 7 => return Ok(()),
            SCRIBBLES if write == 7 => value[50] ^= 4,
            _ => {}
        }
        let mut rows = self.rows.lock().unwrap();
        if FAULT != KEEPS_OLD_VALUES || !rows.contains_key(key) {
            rows.insert(key.to_vec(), value);
        }
        Ok(())
    }

    fn put_sync(&self, key: &[u8], value: &[u8]) -> Result {
        self.put(key, value)
    }

    fn delete(&self, key: &[u8]) -> Result {
        if FAULT != IGNORES_DELETES || !key.ends_with(b"4") {
            self.rows.lock().unwrap().remove(key);
        }
        Ok(())
    }

    fn get<R>(&self, key: &[u8], visit: impl FnOnce(Option<&[u8]>) -> R) -> Result<R> {
        let rows = self.rows.lock().unwrap();
        let found = rows.get(key).map(Vec::as_slice);
        Ok(visit(if FAULT == FINDS_EVERYTHING { found.or(Some(b"")) } else { found }))
    }

    fn scan(&self, from: &[u8], mut visit: impl FnMut(&[u8], &[u8]) -> bool) -> Result {
        for (at, (key, value)) in self.rows.lock().unwrap().range(from.to_vec()..).enumerate() {
            if (FAULT != SKIPS_A_ROW || at != 3) && !visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn settle(&self) -> Result<Duration> {
        Ok(Duration::ZERO)
    }

    fn close(self) -> Result {
        let rows = self.rows.into_inner().map_err(|_| "poisoned")?;
        let bytes: Vec<u8> = rows.into_iter().flat_map(|(key, value)| [key, value]).flatten().collect();
        if FAULT != FORGETS_AT_CLOSE {
            fs::write(self.file, bytes)?;
        }
        Ok(())
    }
}
