//! The engines that are compared, behind what the workloads need of them.

#[cfg(feature = "fjall")]
pub(crate) mod fjall;
pub(crate) mod lsm;
#[cfg(test)]
pub(crate) mod model;
#[cfg(feature = "rocksdb")]
pub(crate) mod rocksdb;
pub(crate) mod transactional;

use std::path::Path;
use std::time::Duration;

use crate::result::Result;
use crate::settings::Settings;

/// Takes a key and its value.
pub(crate) type Put<'p> = dyn FnMut(&[u8], &[u8]) -> Result + 'p;

/// An ordered store of byte strings.
///
/// Each driver uses the fastest call that the engine offers for the purpose, and copies nothing that the engine
/// need not copy. Writes without `sync` must survive a crash of the process; with it, a power cut.
pub(crate) trait Engine: Sized + Sync {
    /// Opens the store in `dir`, creating it if there is none.
    fn open(dir: &Path, settings: &Settings) -> Result<Self>;

    /// Sets `key` to `value`.
    fn put(&self, key: &[u8], value: &[u8]) -> Result;

    /// Sets `key` to `value` and returns once that is on stable storage.
    fn put_sync(&self, key: &[u8], value: &[u8]) -> Result;

    /// Takes in a sorted stream, past the log, until `next` says that there is no more. Each call of `next` puts at most
    /// one entry. `false` if the engine has no way to do so.
    fn load_sorted(&self, _next: impl FnMut(&mut Put<'_>) -> Result<bool>) -> Result<bool> {
        Ok(false)
    }

    /// Deletes `key`.
    fn delete(&self, key: &[u8]) -> Result;

    /// Shows the value of `key` to `visit`.
    fn get<R>(&self, key: &[u8], visit: impl FnOnce(Option<&[u8]>) -> R) -> Result<R>;

    /// Shows rows to `visit`, in order from the first at or after `from`, until it says `false` or they end. All of
    /// them are of one moment.
    fn scan(&self, from: &[u8], visit: impl FnMut(&[u8], &[u8]) -> bool) -> Result;

    /// Writes what is in memory to tables and waits until no compaction runs or is due. Returns how long it waited
    /// only to be sure of that.
    fn settle(&self) -> Result<Duration>;

    /// Flushes and closes.
    fn close(self) -> Result;
}
