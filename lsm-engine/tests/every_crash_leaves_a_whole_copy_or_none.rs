//! Crashes at every file-system operation of a checkpoint, backup, restore and prune. Whatever a crash of the process or of
//! the machine leaves: what was there is as it was, the copy is whole or not there, and the next call makes it.

use std::path::Path;
use std::sync::Arc;

use lsm_engine::vfs::{SimFs, Vfs};
use lsm_engine::{Backup, DirectoryStore, Result};

mod copies;

use copies::{Contents, DIRECTORY, Process, TARGET, contents, contents_of, file_system, files_below, fill};

/// Images of the disk that are looked at after each crash.
const IMAGES: usize = 12;

/// A disk with a database, and what that holds.
fn prepare() -> (SimFs, Contents) {
    let fs = file_system();
    let process = Process::open(&fs, DIRECTORY);
    fill(&process.db, 1);
    process.db.sync().unwrap();
    let expected = contents(&process.db);
    process.kill();
    (fs, expected)
}

/// Runs `act` on the disk of `prepared` once for each of its operations, and crashes there. Gives `check` what is left.
fn crash_everywhere(
    prepared: &SimFs,
    open: fn(&SimFs, &str) -> Process,
    act: impl Fn(&Process) -> Result<()>,
    check: impl Fn(&SimFs, &dyn Fn() -> String),
) {
    let count = {
        let fs = prepared.process_crash();
        let process = open(&fs, DIRECTORY);
        let begun = fs.operations();
        act(&process).unwrap();
        let count = fs.operations() - begun;
        process.close();
        check(&fs.process_crash(), &|| "no crash".to_owned());
        count
    };
    assert!(count > 15, "{count}");
    for operation in 0..count {
        let fs = prepared.process_crash();
        let process = open(&fs, DIRECTORY);
        fs.crash_at(fs.operations() + operation);
        // The last operations only tidy up.
        let _ = act(&process);
        process.kill();
        let at = |image: &str| format!("operation {operation} ({:?}), {image}", fs.last_operation());
        check(&fs.process_crash(), &|| at("process crash"));
        for image in fs.crash_images().at_most(IMAGES).with_seed(operation) {
            check(&image.fs, &|| at(&image.description));
        }
    }
}

fn check_checkpoint(fs: &SimFs, expected: &Contents, what: &dyn Fn() -> String) {
    if fs.metadata(Path::new(TARGET)).is_ok() {
        assert_eq!(contents_of(fs, TARGET), *expected, "{}", what());
        assert!(!files_below(fs, TARGET).iter().any(|path| path.ends_with("STAGING")), "{}", what());
    }
    let process = Process::open(fs, DIRECTORY);
    assert_eq!(contents(&process.db), *expected, "{}", what());
    // What is left of the first is no obstacle to the next.
    let again = if fs.metadata(Path::new(TARGET)).is_ok() { "/data/again" } else { TARGET };
    process.db.checkpoint(again).unwrap_or_else(|error| panic!("{}: {error}", what()));
    process.kill();
    assert_eq!(contents_of(fs, again), *expected, "{}", what());
    assert_eq!(files_below(fs, &format!("{again}.tmp")), [""; 0], "{}", what());
}

#[test]
fn a_checkpoint() {
    let (prepared, expected) = prepare();
    for open in [Process::open, Process::open_read_only] {
        crash_everywhere(
            &prepared,
            open,
            |process| process.db.checkpoint(TARGET).map(drop),
            |fs, what| check_checkpoint(fs, &expected, what),
        );
    }
}

const STORE: &str = "/data/store";

/// A backup whose store is on `disk`, and which restores to `target`.
fn backup(disk: &SimFs, target: &SimFs) -> Result<Backup> {
    let store = DirectoryStore::create_on(Arc::new(disk.clone()), STORE)?;
    Ok(Backup::open(store)?.vfs(Arc::new(target.clone())))
}

fn restored(backup: &Backup, generation: u64, what: &dyn Fn() -> String) -> Contents {
    let target = file_system();
    let restored = backup.clone().vfs(Arc::new(target.clone())).restore(generation, TARGET);
    restored.unwrap_or_else(|error| panic!("{}: {error}", what()));
    contents_of(&target, TARGET)
}

/// Runs `act` on the disk of `prepared` once for each of its operations, and crashes there. Gives `check` what is left.
fn crash_disk_everywhere(
    prepared: &SimFs,
    act: impl Fn(&SimFs) -> Result<()>,
    check: impl Fn(&SimFs, &dyn Fn() -> String),
) {
    let disk = prepared.process_crash();
    act(&disk).unwrap();
    let count = disk.operations();
    assert!(count > 5, "{count}");
    check(&disk.process_crash(), &|| "no crash".to_owned());
    for operation in 0..count {
        let disk = prepared.process_crash();
        disk.crash_at(operation);
        let _ = act(&disk);
        let at = |image: &str| format!("operation {operation} ({:?}), {image}", disk.last_operation());
        check(&disk.process_crash(), &|| at("process crash"));
        for image in disk.crash_images().at_most(IMAGES).with_seed(operation) {
            check(&image.fs, &|| at(&image.description));
        }
    }
}

#[test]
fn a_backup_a_prune_and_a_restore() {
    let (fs, disk) = (file_system(), file_system());
    let process = Process::open(&fs, DIRECTORY);
    // The first backup makes the store, too.
    fill(&process.db, 1);
    let first = contents(&process.db);
    let create = |disk: &SimFs| backup(disk, &fs)?.create(&process.db).map(drop);
    crash_disk_everywhere(&disk, create, |disk, what| {
        let backup = backup(disk, &fs).unwrap_or_else(|error| panic!("{}: {error}", what()));
        let listed = backup.list().unwrap();
        assert!(listed.damaged.is_empty(), "{}", what());
        for found in &listed.generations {
            assert_eq!(restored(&backup, found.number, what), first, "{}", what());
        }
        let made = backup.create(&process.db).unwrap_or_else(|error| panic!("{}: {error}", what()));
        assert_eq!(restored(&backup, made.number, what), first, "{}", what());
        assert!(backup.verify().unwrap().damage.is_empty(), "{}", what());
    });
    create(&disk).unwrap();
    fill(&process.db, 2);
    create(&disk).unwrap();
    fill(&process.db, 3);
    let third = contents(&process.db);
    crash_disk_everywhere(&disk, create, |disk, what| {
        let backup = backup(disk, &fs).unwrap();
        assert!(backup.verify().unwrap().damage.is_empty(), "{}", what());
        assert_eq!(restored(&backup, 1, what), first, "{}", what());
        // What it left is of use to the next, or goes.
        let made = backup.create(&process.db).unwrap();
        assert_eq!(restored(&backup, made.number, what), third, "{}", what());
        backup.prune(1).unwrap();
        assert_eq!(backup.prune(1).unwrap(), lsm_engine::Pruned::default());
        assert_eq!(restored(&backup, made.number, what), third, "{}", what());
        assert!(!disk.paths().iter().any(|path| path.to_string_lossy().contains("unfinished")), "{}", what());
    });
    create(&disk).unwrap();
    let prune = |disk: &SimFs| backup(disk, &fs)?.prune(1).map(drop);
    crash_disk_everywhere(&disk, prune, |disk, what| {
        let backup = backup(disk, &fs).unwrap();
        assert!(backup.verify().unwrap().damage.is_empty(), "{}", what());
        backup.prune(1).unwrap();
        let listed = backup.list().unwrap();
        assert_eq!(
            listed.generations.iter().map(|found| found.number).collect::<Vec<_>>(),
            [3],
            "{}",
            what()
        );
        assert_eq!(restored(&backup, 3, what), third, "{}", what());
        assert_eq!(backup.verify().unwrap().files as usize + 3, files_below(disk, STORE).len(), "{}", what());
    });
    let restore = |target: &SimFs| backup(&disk, target)?.restore(3, TARGET).map(drop);
    crash_disk_everywhere(&file_system(), restore, |target, what| {
        if target.metadata(Path::new(TARGET)).is_err() {
            restore(target).unwrap_or_else(|error| panic!("{}: {error}", what()));
        }
        assert_eq!(contents_of(target, TARGET), third, "{}", what());
        assert_eq!(files_below(target, &format!("{TARGET}.tmp")), [""; 0], "{}", what());
    });
    process.kill();
}
