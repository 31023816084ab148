//! Invalid input is refused. The error names it, and nothing on disk changes.
#![expect(clippy::disallowed_methods, reason = "the tests look at and damage the files themselves")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use lsm_engine::compaction_policies::{Leveled, SizeTiered, SizeTieredOptions};
use lsm_engine::vfs::PosixFs;
use lsm_engine::{Db, Error, ErrorKind, KeyspaceOptions, Options, Result, WriteBatch};

type Files = BTreeMap<String, Vec<u8>>;
type Entries = Vec<(Vec<u8>, Vec<u8>)>;

fn files(directory: &Path) -> Files {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

fn write_files(directory: &Path, files: &Files) {
    for (name, bytes) in files {
        fs::write(directory.join(name), bytes).unwrap();
    }
}

fn options() -> Options {
    Options::new().memory(1 << 20).log_segment_bytes(8 << 10)
}

fn entries(db: &Db) -> Result<Entries> {
    let mut all = Vec::new();
    for name in db.keyspaces() {
        let keyspace = db.existing_keyspace(&name)?.unwrap();
        for entry in &keyspace {
            let (key, value) = entry?;
            all.push(([name.as_bytes(), b"/", &key].concat(), value.to_vec()));
        }
    }
    Ok(all)
}

/// A database with tables in two keyspaces, a manifest with edits, and a log with records beyond the tables.
fn make(directory: &Path, clean: bool) -> Entries {
    let db = options().open(directory).unwrap();
    let other = db.keyspace("other", KeyspaceOptions::new()).unwrap();
    for number in 0..30 {
        db.put(format!("key{number:02}"), format!("value {number}")).unwrap();
        other.put(format!("key{number:02}"), "in the other").unwrap();
    }
    db.flush().unwrap();
    db.delete_range("key05".."key10").unwrap();
    db.put("key40", "in the log").unwrap();
    db.delete("key20").unwrap();
    if !clean {
        // Make the log durable, so that damage cannot look like a torn tail.
        db.sync().unwrap();
    }
    let entries = entries(&db).unwrap();
    if clean {
        db.close().unwrap();
    } else {
        drop((other, db));
    }
    entries
}

/// The part of a file name after the last dot.
fn kind(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn refusal(result: Result<impl Sized>) -> Error {
    match result {
        Ok(_) => panic!("this must be refused"),
        Err(error) => error,
    }
}

#[track_caller]
fn assert_refused(result: Result<impl Sized>, kind: ErrorKind, named: &str) {
    let error = refusal(result);
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(named), "{named:?} is not in {error:?}: {error}");
}

#[test]
fn a_missing_database_is_reported_and_not_created() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("missing");
    assert_refused(options().create_if_missing(false).open(&path), ErrorKind::NotFound, "missing");
    assert_refused(options().read_only(true).open(&path), ErrorKind::NotFound, "missing");
    assert!(!path.exists());
    // An empty directory is no database, and stays empty.
    fs::create_dir(&path).unwrap();
    assert_refused(options().create_if_missing(false).open(&path), ErrorKind::NotFound, "missing");
    assert_refused(options().read_only(true).open(&path), ErrorKind::NotFound, "missing");
    assert!(files(&path).is_empty());
}

#[test]
fn a_file_instead_of_the_directory_is_reported() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("file");
    fs::write(&path, "not a database").unwrap();
    assert_refused(options().open(&path), ErrorKind::InvalidArgument, "file");
    assert_refused(options().open(path.join("below")), ErrorKind::InvalidArgument, "file");
    assert_eq!(fs::read(&path).unwrap(), b"not a database");
}

#[test]
fn error_if_exists_refuses_an_existing_database() {
    let root = tempfile::tempdir().unwrap();
    make(root.path(), true);
    let before = files(root.path());
    assert_refused(options().error_if_exists(true).open(root.path()), ErrorKind::InvalidArgument, "already");
    assert_eq!(files(root.path()), before);
}

#[test]
fn a_second_open_is_refused_until_the_first_handle_is_dropped() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path()).unwrap();
    let name = root.path().file_name().unwrap().to_str().unwrap().to_owned();
    assert_refused(options().open(root.path()), ErrorKind::Locked, &name);
    assert_refused(options().read_only(true).open(root.path()), ErrorKind::Locked, &name);
    db.put("still", "usable").unwrap();
    drop(db);
    assert_eq!(options().open(root.path()).unwrap().get("still").unwrap().unwrap(), b"usable");
}

#[test]
fn opening_read_only_reads_everything_and_changes_nothing() {
    for clean in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let expected = make(root.path(), clean);
        let before = files(root.path());
        let db = options().read_only(true).open(root.path()).unwrap();
        assert_eq!(entries(&db).unwrap(), expected);
        assert_eq!(db.snapshot().unwrap().get("key40").unwrap().unwrap(), b"in the log");
        let other = db.existing_keyspace("other").unwrap().unwrap();
        let mut batch = WriteBatch::new();
        batch.put("a", "b");
        for refused in [
            db.put("a", "b"),
            db.delete("a"),
            db.delete_range("a".."b"),
            db.write(&batch),
            other.put("a", "b"),
            other.clear(),
            db.flush(),
            db.sync(),
            db.compact_range::<&[u8]>(..),
            db.drop_keyspace("other"),
            db.keyspace("new", KeyspaceOptions::new()).map(drop),
        ] {
            assert_refused(refused, ErrorKind::ReadOnly, "read-only");
        }
        assert_eq!(entries(&db).unwrap(), expected);
        db.close().unwrap();
        assert_eq!(files(root.path()), before);
        assert_eq!(entries(&options().open(root.path()).unwrap()).unwrap(), expected);
    }
}

#[test]
fn read_only_handles_share_a_database_and_exclude_a_writer() {
    let root = tempfile::tempdir().unwrap();
    let expected = make(root.path(), false);
    let reading = || options().read_only(true).open(root.path());
    let (one, two) = (reading().unwrap(), reading().unwrap());
    assert_eq!((entries(&one).unwrap(), entries(&two).unwrap()), (expected.clone(), expected.clone()));
    let name = root.path().file_name().unwrap().to_str().unwrap().to_owned();
    assert_refused(options().open(root.path()), ErrorKind::Locked, &name);
    one.close().unwrap();
    assert_refused(options().open(root.path()), ErrorKind::Locked, &name);
    assert_eq!(entries(&two).unwrap(), expected);
    drop(two);
    let writing = options().open(root.path()).unwrap();
    assert_refused(reading(), ErrorKind::Locked, &name);
    assert_eq!(entries(&writing).unwrap(), expected);
}

/// Like a backup, or a medium that cannot be written.
#[cfg(unix)]
#[test]
fn a_database_on_a_read_only_file_system_can_be_read() {
    use std::os::unix::fs::PermissionsExt;
    for lock in [true, false] {
        let root = tempfile::tempdir().unwrap();
        let expected = make(root.path(), false);
        if !lock {
            fs::remove_file(root.path().join("LOCK")).unwrap();
        }
        let before = files(root.path());
        let set_modes = |file: u32, directory: u32| {
            for name in before.keys() {
                fs::set_permissions(root.path().join(name), fs::Permissions::from_mode(file)).unwrap();
            }
            fs::set_permissions(root.path(), fs::Permissions::from_mode(directory)).unwrap();
        };
        set_modes(0o444, 0o555);
        let open = || options().read_only(true).open(root.path());
        let (one, two) = (open().unwrap(), open().unwrap());
        assert_eq!(entries(&one).unwrap(), expected);
        drop((one, two));
        assert_eq!(files(root.path()), before);
        set_modes(0o644, 0o755);
    }
}

#[test]
fn a_missing_file_is_named_and_nothing_is_removed() {
    for clean in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let expected = make(root.path(), clean);
        let whole = files(root.path());
        // The window matters only for records that are not synced. These are synced.
        let needed = |name: &str| name == "CURRENT" || name.starts_with("MANIFEST-") || kind(name) == "sst";
        for missing in whole.keys().filter(|name| needed(name)) {
            fs::remove_file(root.path().join(missing)).unwrap();
            let before = files(root.path());
            for read_only in [true, false] {
                let error = refusal(options().read_only(read_only).open(root.path()));
                assert!(error.to_string().contains(missing.as_str()), "{missing}: {error}");
                assert_eq!(error.kind(), ErrorKind::Corruption, "{missing}: {error}");
            }
            assert_eq!(files(root.path()), before, "without {missing}");
            write_files(root.path(), &whole);
        }
        assert_eq!(entries(&options().open(root.path()).unwrap()).unwrap(), expected);
    }
}

/// Opens a damaged database and reads all of it. Either everything is there, or the error names the bad file and
/// nothing was removed.
fn check_damaged(directory: &Path, damaged: &str, expected: &Entries, what: &str) -> bool {
    let before = files(directory);
    let read_only = options().read_only(true).open(directory).and_then(|db| entries(&db));
    assert_eq!(files(directory), before, "{what}: reading changed something");
    let opened = options().open(directory);
    if opened.is_err() {
        assert_eq!(files(directory), before, "{what}: a refused open changed something");
    }
    let read = opened.and_then(|db| entries(&db));
    let mut noticed = false;
    for result in [read_only, read] {
        match result {
            Ok(found) => assert_eq!(found, *expected, "{what}: other data, and no error"),
            Err(error) => {
                noticed = true;
                assert!(
                    matches!(error.kind(), ErrorKind::Corruption | ErrorKind::Unsupported),
                    "{what}: {error:?}"
                );
                // Without its first file the whole log ends too early, so the error can only name the directory.
                let whole_log = kind(damaged) == "wal" && error.to_string().contains("was synced");
                assert!(error.to_string().contains(damaged) || whole_log, "{what}: {error}");
            }
        }
    }
    noticed
}

fn restore(directory: &Path, whole: &Files) {
    for name in files(directory).keys().filter(|name| !whole.contains_key(*name)) {
        fs::remove_file(directory.join(name)).unwrap();
    }
    write_files(directory, whole);
}

/// The lock and the reserve hold nothing, and the flight recorder no data.
fn holds_data(name: &str) -> bool {
    !["LOCK", "RESERVE"].contains(&name) && !name.starts_with("EVENTS-")
}

#[test]
fn flipped_bytes_are_detected_or_harmless() {
    for clean in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let expected = make(root.path(), clean);
        let whole = files(root.path());
        for (name, bytes) in &whole {
            let mut noticed = 0;
            // Zeros after the data of a preallocated file do not matter.
            let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            let stride = (used / 40).max(1);
            for at in (0..used).step_by(stride) {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x10;
                fs::write(root.path().join(name), &damaged).unwrap();
                let what = format!("byte {at} of {name} flipped, clean: {clean}");
                noticed += usize::from(check_damaged(root.path(), name, &expected, &what));
                restore(root.path(), &whole);
            }
            if holds_data(name) && used > 0 {
                assert!(noticed > 0, "nothing was noticed in {name}, clean: {clean}");
            }
        }
    }
}

#[test]
fn truncated_files_are_detected() {
    for clean in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let expected = make(root.path(), clean);
        let whole = files(root.path());
        for (name, bytes) in whole.iter().filter(|(name, _)| holds_data(name)) {
            // Only the log itself knows where it ends if it was not closed. A shorter one looks like an earlier power
            // cut.
            if kind(name) == "wal" && !clean {
                continue;
            }
            let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            for length in [0, 1, used / 3, used / 2, used.saturating_sub(1)] {
                // A log without a header looks like one lost by a power cut before its first sync.
                if kind(name) == "wal" && length < 128 && !clean {
                    continue;
                }
                fs::write(root.path().join(name), &bytes[..length]).unwrap();
                let what = format!("{name} cut to {length} of {used} bytes, clean: {clean}");
                check_damaged(root.path(), name, &expected, &what);
                restore(root.path(), &whole);
            }
        }
    }
}

#[test]
fn foreign_files_are_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let expected = make(root.path(), false);
    let strangers = ["notes.txt", "7.sst", "000001.sst.bak", "MANIFEST-old"];
    for name in strangers {
        fs::write(root.path().join(name), "mine").unwrap();
    }
    let db = options().open(root.path()).unwrap();
    assert_eq!(entries(&db).unwrap(), expected);
    db.compact_range::<&[u8]>(..).unwrap();
    db.close().unwrap();
    for name in strangers {
        assert_eq!(fs::read(root.path().join(name)).unwrap(), b"mine", "{name}");
    }
}

#[test]
fn newer_formats_are_refused_as_unsupported() {
    for clean in [false, true] {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), clean);
        let whole = files(root.path());
        for (name, bytes) in whole.iter().filter(|(name, bytes)| holds_data(name) && !bytes.is_empty()) {
            let mut newer = bytes.clone();
            // All files start with eight bytes of magic number, then the version.
            newer[8..12].copy_from_slice(&77_u32.to_le_bytes());
            if kind(name) == "sst" {
                let checksum = lsm_core::checksum::crc32(0, &newer[..76]);
                newer[76..80].copy_from_slice(&checksum.to_le_bytes());
            }
            fs::write(root.path().join(name), &newer).unwrap();
            let before = files(root.path());
            let error = refusal(options().open(root.path()));
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}: {error}");
            assert!(error.to_string().contains(name.as_str()), "{error}");
            assert!(error.to_string().contains("77"), "{error}");
            assert_eq!(files(root.path()), before);
            restore(root.path(), &whole);
        }
    }
}

#[test]
fn keys_and_ranges_out_of_limits_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path()).unwrap();
    let (longest, long) = (vec![b'k'; 65_535], vec![b'k'; 65_536]);
    db.put(&longest, "fits").unwrap();
    db.put("", "the empty key").unwrap();
    assert_refused(db.put(&long, "x"), ErrorKind::InvalidArgument, "65536");
    assert_refused(db.delete(&long), ErrorKind::InvalidArgument, "65536");
    assert_refused(db.delete_range(&long[..]..&long[..]), ErrorKind::InvalidArgument, "65536");
    let mut batch = WriteBatch::new();
    batch.put("good", "x").put(&long, "x").put("fine", "x");
    assert_refused(db.write(&batch), ErrorKind::InvalidArgument, "65536");
    assert_eq!(db.get("good").unwrap(), None, "a refused batch leaves nothing");
    assert_eq!(db.get(&long).unwrap(), None);
    assert_eq!(db.prefix(&long).count(), 0);

    assert_refused(db.delete_range("b".."a"), ErrorKind::InvalidArgument, "\"b\" to \"a\"");
    assert_refused(db.compact_range("b".."a"), ErrorKind::InvalidArgument, "\"b\" to \"a\"");
    let found: Result<Vec<_>> = db.range("b".."a").collect();
    assert_refused(found, ErrorKind::InvalidArgument, "\"b\" to \"a\"");
    db.delete_range("a".."a").unwrap();
    assert_eq!(db.range("a".."a").count(), 0);

    let read = |db: &Db| {
        assert_eq!(db.get("").unwrap().unwrap(), b"the empty key");
        assert_eq!(db.get(&longest).unwrap().unwrap(), b"fits");
        assert_eq!(db.iter().count(), 2);
        assert_eq!(db.iter().rev().count(), 2);
    };
    read(&db);
    db.flush().unwrap();
    read(&db);
    drop(db);
    read(&options().open(root.path()).unwrap());
}

#[test]
fn options_and_batches_that_do_not_fit_the_memory_are_refused() {
    let root = tempfile::tempdir().unwrap();
    assert_refused(Options::new().memory(1000).open(root.path()), ErrorKind::InvalidArgument, "memory");
    let db = options().open(root.path()).unwrap();
    let half = vec![0; 600 << 10];
    assert_refused(db.put("a", &half), ErrorKind::InvalidArgument, "Options::memory");
    let mut batch = WriteBatch::new();
    for number in 0..6_u8 {
        batch.put([number], &half[..60 << 10]);
    }
    assert_refused(db.write(&batch), ErrorKind::InvalidArgument, "batch");
    assert_eq!(db.iter().count(), 0);
    db.put("a", &half[..200 << 10]).unwrap();
}

#[test]
fn another_compaction_policy_is_refused_unless_change_compaction_is_set() {
    let root = tempfile::tempdir().unwrap();
    let expected = make(root.path(), true);
    let tiered = || Arc::new(SizeTiered::new(SizeTieredOptions::default()));
    let before = files(root.path());
    let mismatch = options().compaction(tiered()).open(root.path());
    assert_refused(mismatch, ErrorKind::OptionsMismatch, "change_compaction");
    assert_eq!(files(root.path()), before);
    let db = options().open(root.path()).unwrap();
    let given = || KeyspaceOptions::new().compaction(tiered());
    assert_refused(db.keyspace("other", given()), ErrorKind::OptionsMismatch, "other");
    drop(db.keyspace("other", given().change_compaction(true)).unwrap());
    db.close().unwrap();
    let db = options().keyspace(given().change_compaction(true)).open(root.path()).unwrap();
    assert_eq!(entries(&db).unwrap(), expected);
    drop(db);
    let leveled = options().compaction(Arc::new(Leveled::default()));
    assert_refused(leveled.open(root.path()), ErrorKind::OptionsMismatch, "leveled");
}

#[test]
fn keyspaces_of_another_database_are_refused() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (one, two) = (options().open(one.path()).unwrap(), options().open(two.path()).unwrap());
    let foreign = two.keyspace("users", KeyspaceOptions::new()).unwrap();
    one.keyspace("users", KeyspaceOptions::new()).unwrap();
    let mut batch = WriteBatch::new();
    batch.put_in(&foreign, "a", "b");
    assert_refused(one.write(&batch), ErrorKind::Foreign, "another database");
    batch.put_in(&one.default_keyspace(), "a", "b");
    assert_refused(two.write(&batch), ErrorKind::Foreign, "two databases");
    let named = "keyspace \"users\" belongs to another database";
    assert_refused(one.snapshot().unwrap().get_in(&foreign, "a"), ErrorKind::Foreign, named);
    let transaction = one.transaction().unwrap();
    assert_refused(transaction.get_in(&foreign, "a"), ErrorKind::Foreign, named);
    assert_refused(transaction.put_in(&foreign, "a", "b"), ErrorKind::Foreign, named);
    assert_refused(transaction.delete_range_in(&foreign, "a".."a"), ErrorKind::Foreign, named);
    assert_refused(transaction.cursor_in(&foreign), ErrorKind::Foreign, named);
    assert_refused(transaction.prefix_in(&foreign, "a").next().unwrap(), ErrorKind::Foreign, named);
    transaction.commit().unwrap();
    assert_eq!(one.iter().count() + two.iter().count() + foreign.iter().count(), 0);
}

#[test]
fn keyspace_names_have_limits() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path()).unwrap();
    assert_refused(db.keyspace("", KeyspaceOptions::new()), ErrorKind::InvalidArgument, "255");
    let long = "n".repeat(256);
    assert_refused(db.keyspace(&long, KeyspaceOptions::new()), ErrorKind::InvalidArgument, "256");
    assert_refused(db.drop_keyspace("default"), ErrorKind::InvalidArgument, "default");
    assert_refused(db.drop_keyspace("none"), ErrorKind::InvalidArgument, "none");
    assert!(db.existing_keyspace("none").unwrap().is_none());
    assert_eq!(db.keyspaces(), ["default"]);
}

#[test]
fn handles_of_a_dropped_keyspace_fail_and_a_new_one_with_its_name_works() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path()).unwrap();
    let old = db.keyspace("users", KeyspaceOptions::new()).unwrap();
    old.put("a", "old").unwrap();
    db.flush().unwrap();
    let mut running = old.iter();
    let mut batch = WriteBatch::new();
    batch.put_in(&old, "b", "late");
    db.drop_keyspace("users").unwrap();
    assert_refused(old.put("b", "late"), ErrorKind::Closed, "users");
    assert_refused(old.get("a"), ErrorKind::Closed, "users");
    assert_refused(old.clear(), ErrorKind::Closed, "users");
    assert_refused(old.iter().next().unwrap(), ErrorKind::Closed, "users");
    assert_refused(old.compact_range::<&[u8]>(..), ErrorKind::Closed, "users");
    assert_refused(db.write(&batch), ErrorKind::Closed, "dropped");
    let new = db.keyspace("users", KeyspaceOptions::new()).unwrap();
    assert_eq!(new.get("a").unwrap(), None);
    assert_refused(db.write(&batch), ErrorKind::Closed, "dropped");
    new.put("a", "new").unwrap();
    assert_eq!(running.next().unwrap().unwrap().1, b"old");
    drop((running, old, new, db));
    let db = options().open(root.path()).unwrap();
    assert_eq!(entries(&db).unwrap(), [(b"users/a".to_vec(), b"new".to_vec())]);
}

#[test]
fn a_closed_database_refuses_calls_and_its_iterators_stay_readable() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path()).unwrap();
    let other = db.keyspace("other", KeyspaceOptions::new()).unwrap();
    db.put("a", "b").unwrap();
    let (handle, snapshot, running) = (db.clone(), db.snapshot().unwrap(), db.iter());
    db.close().unwrap();
    assert_refused(handle.put("a", "c"), ErrorKind::Closed, "closed");
    assert_refused(handle.get("a"), ErrorKind::Closed, "closed");
    assert_refused(handle.iter().next().unwrap(), ErrorKind::Closed, "closed");
    assert_refused(handle.flush(), ErrorKind::Closed, "closed");
    assert_refused(handle.sync(), ErrorKind::Closed, "closed");
    assert_refused(handle.snapshot(), ErrorKind::Closed, "closed");
    assert_refused(handle.compact_range::<&[u8]>(..), ErrorKind::Closed, "closed");
    assert_refused(handle.keyspace("new", KeyspaceOptions::new()), ErrorKind::Closed, "closed");
    assert_refused(handle.drop_keyspace("other"), ErrorKind::Closed, "closed");
    assert_refused(other.put("a", "c"), ErrorKind::Closed, "closed");
    assert_refused(other.clear(), ErrorKind::Closed, "closed");
    handle.clone().close().unwrap();
    assert_eq!(running.map(Result::unwrap).count(), 1);
    // The lock is free although old handles still exist.
    let again = options().vfs(Arc::new(PosixFs)).open(root.path()).unwrap();
    assert_eq!(again.get("a").unwrap().unwrap(), b"b");
    drop((handle, snapshot, other));
    again.put("a", "the old handles do not matter").unwrap();
}

#[test]
fn invalid_table_options_are_refused_when_opening() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    for block_bytes in [0, 255, (1 << 20) + 1] {
        let keyspace = KeyspaceOptions::new().block_bytes(block_bytes);
        let opened = options().keyspace(keyspace.clone()).open(&path);
        assert_refused(opened, ErrorKind::InvalidArgument, "block_bytes");
        assert!(!path.exists());
        let other = tempfile::tempdir().unwrap();
        let db = options().open(other.path()).unwrap();
        assert_refused(db.keyspace("other", keyspace), ErrorKind::InvalidArgument, "block_bytes");
        assert_eq!(db.keyspaces(), ["default"]);
    }
    for bits in [f64::NAN, -1.0, f64::INFINITY, f64::NEG_INFINITY] {
        let keyspace = KeyspaceOptions::new().filter_bits_per_key(bits);
        let opened = options().keyspace(keyspace.clone()).open(&path);
        assert_refused(opened, ErrorKind::InvalidArgument, "filter_bits_per_key");
        assert!(!path.exists());
        let other = tempfile::tempdir().unwrap();
        let db = options().open(other.path()).unwrap();
        let changed = db.set_options(keyspace);
        assert_refused(changed, ErrorKind::InvalidArgument, "filter_bits_per_key");
    }
    assert_refused(options().memory(1000).open(&path), ErrorKind::InvalidArgument, "memory");
}

type Set = fn(Options, usize) -> Options;

#[test]
fn extreme_sizes_work_or_are_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let sizes: [(Set, &str); 4] = [
        (Options::memory, "Options::memory"),
        (Options::memtable_bytes, "two memtables of"),
        (Options::cache_bytes, "cache_bytes"),
        (|options, bytes| options.log_segment_bytes(bytes as u64), "segment_bytes"),
    ];
    for (number, (set, name)) in sizes.into_iter().enumerate() {
        for bytes in [0, 1, usize::MAX] {
            match set(options(), bytes).open(root.path().join(format!("{number} {bytes}"))) {
                Ok(db) => {
                    db.put("key", "value").unwrap();
                    db.flush().unwrap();
                    db.close().unwrap();
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
                    let text = error.to_string();
                    let names = text.contains(name) || text.contains("memtable_bytes is 0");
                    assert!(names && text.contains(&bytes.to_string()), "{name} {bytes}: {text}");
                }
            }
        }
    }
}

#[test]
fn a_transaction_refuses_what_it_cannot_do_and_says_why() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path()).unwrap();
    db.put("a", "1").unwrap();
    let (one, two) = (db.transaction().unwrap(), db.transaction().unwrap());
    let foreign = two.savepoint();
    assert_refused(one.rollback_to(&foreign), ErrorKind::Foreign, "another transaction");
    let first = one.savepoint();
    one.put("a", "2").unwrap();
    let second = one.savepoint();
    one.rollback_to(&first).unwrap();
    assert_refused(one.rollback_to(&second), ErrorKind::InvalidArgument, "savepoint 2 was taken back");
    assert_refused(one.put(vec![0; 65_536], ""), ErrorKind::InvalidArgument, "key of 65536 bytes");
    assert_refused(one.delete_range("b".."a"), ErrorKind::InvalidArgument, "ends before it starts");
    assert_refused(one.range("b".."a").next().unwrap(), ErrorKind::InvalidArgument, "ends before it starts");
    assert_eq!(one.get("a").unwrap().unwrap(), "1");
    one.commit().unwrap();

    two.put("b", "1").unwrap();
    db.clone().close().unwrap();
    assert_refused(two.get("a"), ErrorKind::Closed, "closed");
    assert_refused(two.put("a", "2"), ErrorKind::Closed, "closed");
    assert_refused(two.iter().next().unwrap(), ErrorKind::Closed, "closed");
    assert_refused(two.cursor(), ErrorKind::Closed, "closed");
    assert_refused(two.commit(), ErrorKind::Closed, "closed");
    assert_refused(db.transaction(), ErrorKind::Closed, "closed");
    drop(db);

    let db = options().read_only(true).open(root.path()).unwrap();
    let reader = db.transaction().unwrap();
    assert_eq!(reader.get("a").unwrap().unwrap(), "1");
    assert_refused(reader.put("a", "2"), ErrorKind::ReadOnly, "read-only");
    assert_refused(reader.delete_range("a".."a"), ErrorKind::ReadOnly, "read-only");
    assert!(reader.commit().unwrap().is_durable());
}
