//! Who observes a log is told of its segments, as they begin and are removed, of writes to files, and of syncs.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex};

use lsm_core::env::SimEnv;
use lsm_core::vfs::{Fault, OperationKind, SimFs};
use lsm_wal::{Log, LogChange, Wal, WalOptions};

#[test]
fn segments_and_a_failed_sync_are_told_in_order() {
    let (fs, env) = (SimFs::new(), SimEnv::new(1));
    let options = WalOptions { segment_bytes: 4096, ..WalOptions::default() };
    let (mut log, _) =
        Wal::open(Arc::new(fs.clone()), Arc::new(env.clone()), Path::new("/log"), options).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    log.sync_handle().observe(Arc::new(move |change| {
        tell.lock().unwrap().push(match change {
            LogChange::Begun(path) => format!("begun {}", name(path)),
            LogChange::Removed(path) => format!("removed {}", name(path)),
            LogChange::Stopped(error) => format!("stopped: {error}"),
            LogChange::Writing => "writing".to_owned(),
            LogChange::Written => "written".to_owned(),
            LogChange::Synced(_) => "synced".to_owned(),
            _ => String::new(),
        });
    }));
    let first = log.append(1, &[1; 3000]).unwrap();
    let last = log.append(2, &[2; 3000]).unwrap();
    log.truncate_front(first).unwrap();
    fs.inject(Fault::on(OperationKind::Sync, ErrorKind::Other));
    log.append(3, &[3; 10]).unwrap();
    log.sync_handle().wait_durable(log.end()).unwrap_err();
    let told = told.lock().unwrap();
    // The window takes the first records of its size by a copy, after more of it was taken into use.
    let (told, work): (Vec<_>, Vec<_>) =
        told.iter().partition(|told| !["writing", "written", "synced"].contains(&told.as_str()));
    assert_eq!(work, ["writing", "written", "writing", "written", "synced"]);
    let [begun, next, removed, stopped] = &told[..] else { panic!("{told:?}") };
    let number = |text: &str, prefix| text.strip_prefix(prefix).expect(text).to_owned();
    assert_eq!(number(begun, "begun "), number(removed, "removed "));
    assert!(number(next, "begun ") > number(begun, "begun "));
    assert!(stopped.starts_with("stopped: ") && last < log.end(), "{told:?}");
    env.drop_jobs();
}
