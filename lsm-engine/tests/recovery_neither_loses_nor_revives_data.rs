//! Recovery replays the writes that are not in tables yet, and none twice. Creating, clearing and dropping keyspaces is
//! durable when the call returns.

use std::io::ErrorKind as Io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_engine::compaction_policies::{Fifo, FifoOptions};
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{AllLost, Fault, OperationKind, SimFs, Vfs};
use lsm_engine::{Db, Durability, ErrorKind, KeyspaceOptions, Options, RecoveryMode, WriteBatch};

const DIRECTORY: &str = "/data/db";

fn file_system() -> SimFs {
    let fs = SimFs::new();
    fs.create_dir(Path::new("/data")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    fs
}

fn options(fs: &SimFs, env: &Arc<SimEnv>) -> Options {
    Options::new()
        .memory(1 << 20)
        .memtable_bytes(100_000)
        .log_segment_bytes(256 << 10)
        .vfs(Arc::new(fs.clone()))
        .env(Arc::clone(env) as Arc<dyn Env>)
}

fn manifests(fs: &SimFs) -> String {
    let named = |path: &PathBuf| path.to_string_lossy().contains("MANIFEST");
    fs.paths().iter().filter(|path| named(path)).map(|path| path.to_string_lossy()).collect()
}

fn keys(db: &Db) -> Vec<Vec<u8>> {
    db.iter().map(|entry| entry.unwrap().0.to_vec()).collect()
}

/// An idle keyspace pins the log, while another has already flushed and dropped the data of that log.
#[test]
fn dropped_tables_are_not_replayed_from_a_log_that_another_keyspace_pins() {
    flush_and_drop_beside_an_idle_keyspace(false);
}

/// The same after the manifest was replaced.
#[test]
fn a_new_manifest_keeps_the_flushed_sequence_numbers() {
    flush_and_drop_beside_an_idle_keyspace(true);
}

fn flush_and_drop_beside_an_idle_keyspace(rolls: bool) {
    let fs = file_system();
    let fifo = || Arc::new(Fifo::new(FifoOptions { bytes_max: 100_000, ..FifoOptions::default() }));
    let env = Arc::new(SimEnv::new(1));
    let db = options(&fs, &env).compaction(fifo()).open(DIRECTORY).unwrap();
    let idle = db.keyspace("idle", KeyspaceOptions::new()).unwrap();
    idle.put("keeps", "the log").unwrap();
    let first = manifests(&fs);
    for number in 0..60 {
        if rolls && number == 45 {
            // After a failed write the next edit goes into a new manifest.
            fs.inject(Fault::on(OperationKind::Write, Io::StorageFull).named(first.clone()));
        }
        db.put(format!("key{number:02}"), vec![b'v'; 4000]).unwrap();
        env.run_until_idle();
        env.advance(1_000_001);
    }
    assert_eq!(manifests(&fs) != first, rolls);
    let kept = keys(&db);
    let metrics = db.metrics();
    assert!(metrics.log_bytes > 240_000, "the idle keyspace keeps the whole log: {metrics:?}");
    assert!(db.get("key00").unwrap().is_none() && kept.len() < 40, "the oldest were dropped: {kept:?}");
    let crashed = fs.process_crash();
    drop((idle, db));
    env.drop_jobs();

    let env = Arc::new(SimEnv::new(2));
    let db = options(&crashed, &env).compaction(fifo()).open(DIRECTORY).unwrap();
    let found = keys(&db);
    assert!(db.get("key00").unwrap().is_none(), "dropped data came back");
    assert!(found.iter().all(|key| kept.contains(key)), "dropped data came back: {found:?}");
    assert_eq!(found.last(), kept.last());
    let recovery = db.recovery();
    assert_eq!(recovery.records, 61, "the whole log is read");
    assert!(recovery.operations < 20, "and only what no table holds is replayed: {}", recovery.operations);
    drop(db);
    env.drop_jobs();
}

/// A power cut leaves the state of some moment. If a clear or drop survives, all earlier writes survive too.
#[test]
fn a_power_cut_keeps_what_was_written_before_a_clear_or_drop() {
    for dropped in [false, true] {
        let (fs, env) = (file_system(), Arc::new(SimEnv::new(1)));
        let db = options(&fs, &env).open(DIRECTORY).unwrap();
        let space = db.keyspace("space", KeyspaceOptions::new()).unwrap();
        space.put("old", "value").unwrap();
        db.flush().unwrap();
        db.put("before", "value").unwrap();
        let mut batch = WriteBatch::new();
        batch.put("with", "value");
        batch.put_in(&space, "too", "value");
        db.write(batch).unwrap();
        if dropped {
            db.drop_keyspace("space").unwrap();
        } else {
            space.clear().unwrap();
        }
        let cut = fs.power_cut(&mut AllLost);
        drop((space, db));
        env.drop_jobs();
        let env = Arc::new(SimEnv::new(2));
        let db = options(&cut, &env).open(DIRECTORY).unwrap();
        assert_eq!(db.keyspaces().len(), if dropped { 1 } else { 2 });
        let space = db.keyspace("space", KeyspaceOptions::new()).unwrap();
        assert_eq!((keys(&db), space.iter().count()), (vec![b"before".to_vec(), b"with".to_vec()], 0));
        drop((space, db));
        env.drop_jobs();
    }
}

/// A service that is restarted again and again must not fill the rest of the disk.
#[test]
fn failed_opens_do_not_leave_more_and_more_files() {
    let fs = file_system();
    let env = Arc::new(SimEnv::new(1));
    let db = options(&fs, &env).open(DIRECTORY).unwrap();
    db.put("key", "value").unwrap();
    let fs = fs.process_crash();
    drop(db);
    env.drop_jobs();
    let fail = || {
        fs.inject(Fault::on(OperationKind::Write, std::io::ErrorKind::Other).named(".sst"));
        assert!(options(&fs, &Arc::new(SimEnv::new(2))).open(DIRECTORY).is_err());
        fs.read_dir(Path::new(DIRECTORY)).unwrap().len()
    };
    let files = fail();
    assert_eq!([fail(), fail(), fail()], [files; 3]);
    let db = options(&fs, &env).open(DIRECTORY).unwrap();
    assert_eq!(keys(&db), [b"key"]);
    drop(db);
    env.drop_jobs();
}

/// The size of a memtable may be so small that already an empty one exceeds it.
#[test]
fn memtables_that_are_rotated_at_once_are_replayed() {
    let fs = file_system();
    let env = Arc::new(SimEnv::new(1));
    let db = options(&fs, &env).memtable_bytes(1).open(DIRECTORY).unwrap();
    for number in 0..3 {
        db.put(format!("key{number}"), "value").unwrap();
    }
    let crashed = fs.process_crash();
    drop(db);
    env.drop_jobs();
    let env = Arc::new(SimEnv::new(2));
    let db = options(&crashed, &env).memtable_bytes(1).open(DIRECTORY).unwrap();
    assert_eq!(keys(&db), [b"key0", b"key1", b"key2"]);
    drop(db);
    env.drop_jobs();
}

#[test]
fn the_marker_of_a_clean_close_survives_a_power_cut() {
    let fs = file_system();
    let env = Arc::new(SimEnv::new(1));
    let db = options(&fs, &env).open(DIRECTORY).unwrap();
    db.put("key", "value").unwrap();
    db.close().unwrap();
    env.drop_jobs();
    let fs = fs.power_cut(&mut AllLost);
    let env = Arc::new(SimEnv::new(2));
    let db = options(&fs, &env).open(DIRECTORY).unwrap();
    assert!(db.recovery().was_clean, "the marker of the clean close is lost");
    assert_eq!(db.get("key").unwrap().unwrap(), b"value");
    drop(db);
    env.drop_jobs();
}

/// The old manifest may be removed only after the `CURRENT` that names the new one is durable.
#[test]
fn an_old_manifest_is_removed_only_after_current_names_the_new_one() {
    let fs = file_system();
    let env = Arc::new(SimEnv::new(1));
    let db = options(&fs, &env).open(DIRECTORY).unwrap();
    db.put_with("key", "value", Durability::Sync).unwrap();
    let manifests = |fs: &SimFs| {
        let names = fs.read_dir(Path::new(DIRECTORY)).unwrap();
        names.into_iter().filter(|name| name.starts_with("MANIFEST")).collect::<Vec<_>>()
    };
    let [before] = manifests(&fs).try_into().unwrap();
    fs.inject(Fault::on(OperationKind::Write, std::io::ErrorKind::StorageFull).named(before.clone()));
    // After a failed append a manifest is never appended to again. The disk reserve has space for a new one.
    db.flush().unwrap();
    assert!(!manifests(&fs).contains(&before), "the manifest was replaced");
    for image in fs.crash_images() {
        let env = Arc::new(SimEnv::new(2));
        let db = options(&image.fs, &env).open(DIRECTORY);
        let db = db.unwrap_or_else(|error| panic!("{}: {error}", image.description));
        assert_eq!(db.get("key").unwrap().unwrap(), b"value", "{}", image.description);
        drop(db);
        env.drop_jobs();
    }
    drop(db);
    env.drop_jobs();
}

/// Bytes after the end of the log may still be useful for repair, so recovery keeps them under another name.
#[test]
fn a_tail_that_does_not_belong_to_the_log_is_set_aside_and_reported() {
    let fs = file_system();
    let env = Arc::new(SimEnv::new(1));
    let db = options(&fs, &env).open(DIRECTORY).unwrap();
    for number in 0..50 {
        db.put(format!("key{number:02}"), vec![b'v'; 1000]).unwrap();
    }
    let fs = fs.process_crash();
    drop(db);
    env.drop_jobs();
    // Nothing was synced, so a segment that lost a sector looks like an earlier power cut.
    let segment = Path::new(DIRECTORY).join("000001.wal");
    let mut bytes = fs.read_all(&segment).unwrap();
    bytes[20 * 512..21 * 512].fill(0x55);
    fs.write_all(&segment, &bytes).unwrap();

    let env = Arc::new(SimEnv::new(2));
    let db = options(&fs, &env).read_only(true).open(DIRECTORY).unwrap();
    let kept = keys(&db);
    assert!(kept.len() < 20 && kept.last().unwrap() == format!("key{:02}", kept.len() - 1).as_bytes());
    assert!(db.recovery().bytes_dropped > 0 && db.recovery().set_aside.is_empty());
    assert_eq!(fs.read_all(&segment).unwrap(), bytes, "opening read-only changes nothing");
    drop(db);
    let db = options(&fs, &env).open(DIRECTORY).unwrap();
    assert_eq!(keys(&db), kept);
    let recovery = db.recovery().clone();
    assert!(recovery.bytes_dropped > 0, "{recovery:?}");
    assert!(recovery.dropped.iter().any(|what| what.contains("000001.wal")), "{recovery:?}");
    let [aside] = recovery.set_aside.try_into().unwrap();
    assert_eq!(aside, segment.with_extension("wal.dropped"));
    db.close().unwrap();
    env.drop_jobs();

    // The file stays, durably, and later opens ignore it.
    let fs = fs.power_cut(&mut AllLost);
    let env = Arc::new(SimEnv::new(3));
    let db = options(&fs, &env).open(DIRECTORY).unwrap();
    assert_eq!(keys(&db), kept);
    assert!(db.recovery().was_clean && db.recovery().set_aside.is_empty());
    let used = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    assert!(used < bytes.len(), "more was allocated");
    assert_eq!(fs.read_all(&aside).unwrap(), bytes[..used]);
    assert!(fs.read_all(&segment).is_err());
    drop(db);
    env.drop_jobs();
}

/// Each torn tail that recovery set aside used to stay on the disk forever.
#[test]
fn only_the_newest_logs_that_recovery_set_aside_are_kept() {
    let mut fs = file_system();
    let mut set_aside: Vec<PathBuf> = Vec::new();
    for round in 0..9 {
        let env = Arc::new(SimEnv::new(round + 1));
        let db = options(&fs, &env).open(DIRECTORY).unwrap();
        let new = db.recovery().set_aside.clone();
        assert_eq!(new.is_empty(), round == 0, "each crash leaves a torn end");
        // The files of this open, and four more.
        let kept = set_aside.len().saturating_sub(4);
        let (gone, kept) = set_aside.split_at(kept);
        assert!(gone.iter().all(|path| fs.metadata(path).is_err()), "round {round}: {gone:?}");
        assert!(kept.iter().chain(&new).all(|path| fs.metadata(path).is_ok()), "round {round}: {kept:?}");
        set_aside.extend(new);
        for number in 0..50 {
            db.put(format!("key{number:02}"), vec![b'v'; 1000]).unwrap();
        }
        let left = fs.process_crash();
        drop(db);
        env.drop_jobs();
        for path in left.paths().iter().filter(|path| path.extension().is_some_and(|suffix| suffix == "wal"))
        {
            let mut bytes = left.read_all(path).unwrap();
            if bytes[0] != 0 {
                bytes[20 * 512..21 * 512].fill(0x55);
                left.write_all(path, &bytes).unwrap();
            }
        }
        // Files with similar names are not touched.
        left.write_all(&Path::new(DIRECTORY).join("1.wal.dropped"), b"mine").unwrap();
        fs = left;
    }
    assert!(set_aside.len() >= 8);
    assert_eq!(fs.read_all(&Path::new(DIRECTORY).join("1.wal.dropped")).unwrap(), b"mine");
}

/// An unclean database without its log used to open as if nothing had been written since the last flush.
#[test]
fn a_missing_log_is_corruption() {
    let fs = file_system();
    let env = Arc::new(SimEnv::new(1));
    let db = options(&fs, &env).open(DIRECTORY).unwrap();
    // Enough for several segments. The first ones are no longer needed.
    for number in 0..40 {
        db.put(format!("key{number:02}"), vec![b'v'; 20_000]).unwrap();
        env.run_until_idle();
    }
    db.put("last", "in the log only").unwrap();
    let fs = fs.process_crash();
    drop(db);
    env.drop_jobs();
    let opened = |fs: &SimFs| {
        let env = Arc::new(SimEnv::new(2));
        let keys = options(fs, &env).open(DIRECTORY).map(|db| keys(&db).len());
        env.drop_jobs();
        keys
    };
    let is_log = |path: &Path| path.extension().is_some_and(|suffix| suffix == "wal" || suffix == "window");
    let log: Vec<_> = fs.paths().into_iter().filter(|path| is_log(path)).collect();
    assert!(
        !log.iter().any(|path| path.ends_with("000001.wal")),
        "the first segment was not needed: {log:?}"
    );
    assert_eq!(opened(&fs.process_crash()).unwrap(), 41);

    let remove = |fs: &SimFs, path: &Path| fs.remove_file(path).unwrap();
    let empty = |fs: &SimFs, path: &Path| fs.write_all(path, b"").unwrap();
    let zero = |fs: &SimFs, path: &Path| fs.write_all(path, &[0; 5000]).unwrap();
    for lose in [&remove as &dyn Fn(&SimFs, &Path), &empty, &zero] {
        let fs = fs.process_crash();
        for path in &log {
            lose(&fs, path);
        }
        // The error names an existing file first.
        let left = fs.paths().into_iter().find(|path| path.extension().is_some_and(|suffix| suffix == "wal"));
        let name = left
            .as_deref()
            .and_then(Path::file_name)
            .map_or("000001.wal".into(), |name| name.to_string_lossy());
        let before = fs.fingerprint();
        for read_only in [false, true] {
            let env = Arc::new(SimEnv::new(2));
            let error = options(&fs, &env).read_only(read_only).open(DIRECTORY).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corruption);
            assert!(error.to_string().contains(&format!("{name} is corrupt")), "{error}");
        }
        assert_eq!(fs.fingerprint(), before, "nothing was changed");
        // `Salvage` opens without the log, and reports it.
        let env = Arc::new(SimEnv::new(3));
        let db = options(&fs, &env).recovery(RecoveryMode::Salvage).open(DIRECTORY).unwrap();
        assert!(db.get("last").unwrap().is_none());
        assert!(db.recovery().dropped.iter().any(|what| what.contains(&*name)), "{:?}", db.recovery());
        drop(db);
        env.drop_jobs();
        assert!(opened(&fs).is_ok());
    }
}
