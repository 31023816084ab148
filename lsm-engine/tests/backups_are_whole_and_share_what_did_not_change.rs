//! Backups in a store: each is whole, they share files, damage is found and never copied, and whatever a store answers,
//! what was there stays.

use std::io::{self, ErrorKind as Io, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use lsm_engine::vfs::{AllLost, Fault, LockGuard, LockMode, OperationKind, SimFs, Vfs};
use lsm_engine::{
    Backup, BackupProgress, BackupStore, DirectoryStore, ErrorKind, Generation, Put, Result, StoredObject,
};

mod copies;

use copies::{Contents, DIRECTORY, Process, TARGET, contents, contents_of, file_system, files_below, fill};

const STORE: &str = "/data/store";
const RESTORED: &str = "/data/restored";

/// A backup whose store is on `disk`, and which restores to `target`.
fn backup(disk: &SimFs, target: &SimFs) -> Backup {
    try_backup(disk, target).unwrap()
}

fn try_backup(disk: &SimFs, target: &SimFs) -> Result<Backup> {
    let store = DirectoryStore::create_on(Arc::new(disk.clone()), STORE)?;
    Ok(Backup::open(store)?.vfs(Arc::new(target.clone())))
}

/// What a generation holds, by restoring it.
fn restored(backup: &Backup, generation: u64) -> Contents {
    let target = file_system();
    let store = backup.restore_on(&target, generation);
    store.unwrap_or_else(|error| panic!("generation {generation}: {error}"));
    contents_of(&target.power_cut(&mut AllLost), RESTORED)
}

/// Restores into another file system.
trait RestoreOn {
    fn restore_on(&self, target: &SimFs, generation: u64) -> Result<Generation>;
}

impl RestoreOn for Backup {
    fn restore_on(&self, target: &SimFs, generation: u64) -> Result<Generation> {
        self.clone().vfs(Arc::new(target.clone())).restore(generation, RESTORED)
    }
}

/// A database with three backups of it on another disk, and what each holds.
fn three_generations() -> (SimFs, SimFs, Process, Vec<Contents>) {
    let (fs, disk) = (file_system(), file_system());
    let process = Process::open(&fs, DIRECTORY);
    let backup = backup(&disk, &fs);
    let mut expected = Vec::new();
    for round in 1..=3 {
        fill(&process.db, round);
        expected.push(contents(&process.db));
        let made = backup.create(&process.db).unwrap();
        assert_eq!(made.number, u64::from(round));
        assert_eq!(made.sequence, process.db.snapshot().unwrap().sequence());
    }
    (fs, disk, process, expected)
}

#[test]
fn each_generation_is_restored_as_it_was_and_durable() {
    let (fs, disk, process, expected) = three_generations();
    process.kill();
    let disk = disk.power_cut(&mut AllLost);
    let backup = backup(&disk, &fs);
    let report = backup.verify().unwrap();
    assert!(report.damage.is_empty(), "{report:?}");
    assert_eq!(report.generations, 3);
    for (number, expected) in (1..).zip(&expected) {
        assert_eq!(restored(&backup, number), *expected, "generation {number}");
    }
}

#[test]
fn what_did_not_change_is_stored_once() {
    let (fs, disk) = (file_system(), file_system());
    let process = Process::open(&fs, DIRECTORY);
    fill(&process.db, 1);
    let backup = backup(&disk, &fs);
    let first = backup.create(&process.db).unwrap();
    assert_eq!(first.new_bytes, first.bytes);
    let objects = files_below(&disk, STORE).len();
    process.db.put("one more", "write").unwrap();
    let second = backup.create(&process.db).unwrap();
    assert!(second.new_bytes < 2000 && second.bytes > first.bytes, "{second:?}");
    assert_eq!(files_below(&disk, STORE).len(), objects + 2, "a log and a generation");
    let listed = backup.list().unwrap();
    assert_eq!(listed.generations, [first, second]);
    assert!(listed.damaged.is_empty());
    process.kill();
}

#[test]
fn pruning_deletes_what_no_generation_needs() {
    let (fs, disk, process, expected) = three_generations();
    let backup = backup(&disk, &fs);
    let error = backup.prune(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let nothing = backup.prune(3).unwrap();
    assert_eq!((nothing.generations, nothing.files), (0, 0));
    let pruned = backup.prune(1).unwrap();
    assert!(pruned.generations == 2 && pruned.files > 2 && pruned.bytes > 1000, "{pruned:?}");
    assert_eq!(restored(&backup, 3), expected[2]);
    let error = backup.restore(1, "/data/other").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(backup.verify().unwrap().generations, 1);
    fill(&process.db, 4);
    assert_eq!(backup.create(&process.db).unwrap().number, 4, "no number is used twice");
    process.kill();
}

#[test]
fn a_restored_database_is_the_same_one_and_a_branch_or_another_is_refused_by_name() {
    let (fs, disk, process, _) = three_generations();
    let backup = backup(&disk, &fs);
    process.db.checkpoint(TARGET).unwrap();
    process.kill();
    backup.restore(2, RESTORED).unwrap();
    let same = Process::open(&fs, RESTORED);
    assert_eq!(backup.create(&same.db).unwrap().number, 4);
    same.kill();
    for other in [TARGET, "/data/another"] {
        let other = Process::open(&fs, other);
        let before = disk.paths();
        let error = backup.create(&other.db).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Foreign);
        let path = other.db.path().to_string_lossy().into_owned();
        assert!(error.to_string().contains(STORE) && error.to_string().contains(&path), "{error}");
        assert_eq!(disk.paths(), before);
        other.kill();
    }
    assert!(backup.verify().unwrap().damage.is_empty());
}

#[test]
fn a_restored_database_has_no_change_slots_and_tells_that_its_history_is_gone() {
    let (fs, disk) = (file_system(), file_system());
    let process = Process::open(&fs, DIRECTORY);
    let slot = process.db.change_slot("consumer", 10 << 20).unwrap();
    fill(&process.db, 1);
    let expected = contents(&process.db);
    let made = backup(&disk, &fs).create(&process.db).unwrap();
    let position = slot.position();
    drop(slot);
    process.kill();
    backup(&disk, &fs).restore(made.number, RESTORED).unwrap();
    let restored = Process::open(&fs, RESTORED);
    assert_eq!(contents(&restored.db), expected);
    assert!(restored.db.change_slots().is_empty());
    assert_eq!(restored.db.changes(&position).unwrap_err().kind(), ErrorKind::HistoryGone);
    let slot = restored.db.change_slot("consumer", 10 << 20).unwrap();
    fill(&restored.db, 2);
    restored.db.sync().unwrap();
    assert!(slot.changes().unwrap().try_next().unwrap().is_some());
    drop(slot);
    restored.close();
}

#[test]
fn a_database_that_is_open_read_only_is_backed_up_with_its_log() {
    let (fs, disk) = (file_system(), file_system());
    let process = Process::open(&fs, DIRECTORY);
    fill(&process.db, 1);
    let expected = contents(&process.db);
    process.close();
    let reader = Process::open_read_only(&fs, DIRECTORY);
    let backup = backup(&disk, &fs);
    let made = backup.create(&reader.db).unwrap();
    reader.kill();
    assert_eq!(restored(&backup, made.number), expected);
}

#[test]
fn files_stay_until_the_backup_has_them_and_later_writes_are_not_in_it() {
    let (fs, disk) = (file_system(), file_system());
    let process = Process::open(&fs, DIRECTORY);
    fill(&process.db, 1);
    let expected = contents(&process.db);
    let (db, round) = (process.db.clone(), AtomicU64::new(2));
    // Runs between two files. Merges replace all tables each time.
    let write = move |_: BackupProgress| fill(&db, round.fetch_add(1, Ordering::Relaxed) as u32);
    let busy = backup(&disk, &fs).on_progress(write);
    let made = busy.create(&process.db).unwrap();
    drop(busy);
    process.kill();
    assert_eq!(restored(&backup(&disk, &fs), made.number), expected);
}

#[test]
fn progress_ends_at_its_total_and_a_panic_in_it_ends_the_call() {
    let (fs, disk, process, _) = three_generations();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let telling = backup(&disk, &fs).on_progress(move |progress| noted.lock().unwrap().push(progress));
    fill(&process.db, 4);
    for call in [
        Box::new(|| telling.create(&process.db).map(drop)) as Box<dyn Fn() -> Result<()>>,
        Box::new(|| telling.verify().map(drop)),
        Box::new(|| telling.restore(4, RESTORED).map(drop)),
    ] {
        call().unwrap();
        let seen: Vec<BackupProgress> = std::mem::take(&mut seen.lock().unwrap());
        assert!(seen.len() > 1 && seen.is_sorted_by_key(|progress| progress.bytes), "{seen:?}");
        let last = seen.last().unwrap();
        assert!(last.bytes == last.bytes_total && last.bytes > 500, "{last:?}");
    }
    let failing = backup(&disk, &fs).on_progress(|_| panic!("no more"));
    fill(&process.db, 5);
    let results = [
        failing.create(&process.db).map(drop),
        failing.verify().map(drop),
        failing.restore(4, "/data/other").map(drop),
    ];
    for result in results {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Callback, "{error}");
    }
    let backup = backup(&disk, &fs);
    assert_eq!(backup.list().unwrap().generations.len(), 4);
    assert_eq!(files_below(&fs, "/data/other"), [""; 0]);
    process.kill();
}

#[test]
fn pruning_waits_for_nobody_and_backups_at_the_same_time_are_both_right() {
    let (fs, disk, process, _) = three_generations();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (noted, store, db) = (Arc::clone(&seen), backup(&disk, &fs), process.db.clone());
    let is_first = AtomicU64::new(0);
    let outer = backup(&disk, &fs).on_progress(move |_| {
        if is_first.fetch_add(1, Ordering::Relaxed) == 0 {
            let made = store.create(&db).unwrap();
            noted.lock().unwrap().push((made.number, store.prune(1).unwrap_err()));
        }
    });
    fill(&process.db, 4);
    let made = outer.create(&process.db).unwrap();
    let (inner, error) = seen.lock().unwrap().pop().unwrap();
    assert_eq!((inner, made.number), (4, 5));
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains(STORE), "{error}");
    let backup = backup(&disk, &fs);
    assert!(backup.verify().unwrap().damage.is_empty());
    let expected = contents(&process.db);
    assert_eq!((restored(&backup, 4), restored(&backup, 5)), (expected.clone(), expected));
    drop(outer);
    process.kill();
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let (fs, disk) = (file_system(), file_system());
    let process = Process::open(&fs, DIRECTORY);
    process.db.put("in a table", "1").unwrap();
    process.db.flush().unwrap();
    process.db.put("in the log", "2").unwrap();
    let made = backup(&disk, &fs).create(&process.db).unwrap();
    process.kill();
    let is_found = |disk: &SimFs| match try_backup(disk, &fs) {
        Err(error) => error.kind() == ErrorKind::Corruption || error.kind() == ErrorKind::Unsupported,
        Ok(backup) => {
            let report = backup.verify().map(|report| !report.damage.is_empty());
            // The object that says whose store it is is needed by no restore.
            let restored = backup.restore_on(&file_system(), made.number);
            report.unwrap_or(true) && restored.is_err()
        }
    };
    assert!(!is_found(&disk));
    let mut objects = 0;
    for path in files_below(&disk, STORE) {
        if path.ends_with("STORE") {
            continue;
        }
        objects += 1;
        let path = Path::new(&path);
        let bytes = disk.read_all(path).unwrap();
        for at in 0..bytes.len() as u64 {
            let mask = 1 << (at % 8);
            disk.corrupt(path, at, mask).unwrap();
            assert!(is_found(&disk), "byte {at} of {}", path.display());
            disk.corrupt(path, at, mask).unwrap();
        }
        for length in (0..bytes.len()).step_by(7) {
            disk.write_all(path, &bytes[..length]).unwrap();
            assert!(is_found(&disk), "{} cut to {length}", path.display());
        }
        disk.write_all(path, &bytes).unwrap();
    }
    assert_eq!(objects, 4, "database, generation, table and log");
    assert!(!is_found(&disk));
}

#[test]
fn damage_is_told_with_the_generations_that_it_concerns_and_the_others_stay() {
    let (fs, disk, process, expected) = three_generations();
    let backup = backup(&disk, &fs);
    let generation = format!("{STORE}/generation-0000000002");
    disk.corrupt(Path::new(&generation), 50, 1).unwrap();
    let listed = backup.list().unwrap();
    assert_eq!(listed.generations.iter().map(|found| found.number).collect::<Vec<_>>(), [1, 3]);
    assert!(listed.damaged[0].0 == 2 && listed.damaged[0].1.to_string().contains(&generation));
    let report = backup.verify().unwrap();
    assert_eq!((report.damage.len(), &report.damage[0].generations), (1, &vec![2]));
    assert_eq!((restored(&backup, 1), restored(&backup, 3)), (expected[0].clone(), expected[2].clone()));
    // Nobody knows which files it needs.
    let before = disk.paths();
    assert_eq!(backup.prune(2).unwrap_err().kind(), ErrorKind::Corruption);
    assert_eq!(disk.paths(), before);
    fill(&process.db, 4);
    assert_eq!(backup.create(&process.db).unwrap().number, 4);
    backup.prune(2).unwrap();
    assert!(backup.verify().unwrap().damage.is_empty());
    // A log and a table.
    for prefix in ["log-", "table-"] {
        let object = files_below(&disk, STORE).into_iter().rfind(|path| path.contains(prefix)).unwrap();
        disk.remove_file(Path::new(&object)).unwrap();
        let report = backup.verify().unwrap();
        let error = &report.damage.last().unwrap().error;
        assert!(error.to_string().contains(&object), "{error}");
    }
    process.kill();
}

#[test]
fn damage_of_the_database_is_not_copied() {
    let (fs, disk, process, _) = three_generations();
    fill(&process.db, 4);
    let backup = backup(&disk, &fs);
    process.db.checkpoint("/data/names").unwrap();
    let table = files_below(&fs, "/data/names").into_iter().rfind(|path| path.contains(".sst")).unwrap();
    let table = table.replace("/data/names", DIRECTORY);
    fs.corrupt(Path::new(&table), 300, 4).unwrap();
    let error = backup.create(&process.db).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.to_string().contains(&table), "{error}");
    let fault = fs.inject(Fault::on(OperationKind::Read, Io::Other).named(".sst").sticky());
    assert_eq!(backup.create(&process.db).unwrap_err().kind(), ErrorKind::Io);
    assert!(fault.fired() > 0);
    fs.clear_faults();
    assert_eq!(backup.list().unwrap().generations.len(), 3);
    assert!(backup.verify().unwrap().damage.is_empty());
    process.kill();
}

#[test]
fn bad_places_are_refused_by_name() {
    let (fs, disk, process, _) = three_generations();
    let vfs = || Arc::new(disk.clone());
    let missing = DirectoryStore::open_on(vfs(), "/data/missing").err().unwrap();
    assert!(
        missing.kind() == ErrorKind::NotFound && missing.to_string().contains("/data/missing"),
        "{missing}"
    );
    disk.create_dir(Path::new("/data/home")).unwrap();
    disk.create_new(Path::new("/data/home/thesis.txt")).unwrap();
    let home = DirectoryStore::create_on(vfs(), "/data/home").err().unwrap();
    assert!(home.kind() == ErrorKind::InvalidArgument && home.to_string().contains("thesis.txt"), "{home}");
    assert!(DirectoryStore::open_on(vfs(), "/data/home").is_err());
    assert!(DirectoryStore::create_on(vfs(), "/data/no/parent").is_err());
    assert!(DirectoryStore::open_on(vfs(), STORE).is_ok());
    let backup = backup(&disk, &fs);
    let before = fs.paths();
    for (generation, target, kind) in [
        (1, DIRECTORY, ErrorKind::AlreadyExists),
        (1, "/data/db/inner", ErrorKind::InvalidArgument),
        (1, "/data/no/parent", ErrorKind::NotFound),
        (9, "/data/other", ErrorKind::NotFound),
        (0, "/data/other", ErrorKind::NotFound),
    ] {
        let error = backup.restore(generation, target).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(fs.paths(), before);
    }
    // A store of a newer build.
    let database = Path::new("/data/store/database");
    let mut bytes = disk.read_all(database).unwrap();
    bytes[8] = 2;
    disk.write_all(database, &bytes).unwrap();
    let store = DirectoryStore::open_on(vfs(), STORE).unwrap();
    assert_eq!(Backup::open(store).unwrap_err().kind(), ErrorKind::Unsupported);
    process.kill();
}

/// Runs `act` once for each operation on `disk` that it does, which fails. Then calls `check` with whether `act` failed.
fn fail_everywhere(
    make: impl Fn() -> SimFs,
    act: impl Fn(&SimFs) -> Result<()>,
    check: impl Fn(&SimFs, bool, &dyn Fn() -> String),
) {
    let disk = make();
    let begun = disk.operations();
    act(&disk).unwrap();
    let count = disk.operations() - begun;
    assert!(count > 5, "{count}");
    for error in [Io::Other, Io::StorageFull] {
        for operation in 0..count {
            let disk = make();
            let fault = disk.inject(Fault::at_operation(disk.operations() + operation, error));
            let failed = act(&disk).is_err();
            disk.clear_faults();
            assert_eq!(fault.fired(), 1);
            check(&disk, failed, &|| format!("operation {operation} ({:?})", disk.last_operation()));
        }
    }
}

#[test]
fn each_operation_of_the_store_may_fail() {
    let (fs, disk, process, expected) = three_generations();
    fill(&process.db, 4);
    let fourth = contents(&process.db);
    fail_everywhere(
        || disk.process_crash(),
        |disk| try_backup(disk, &fs)?.create(&process.db).map(drop),
        |disk, failed, what| {
            let backup = backup(disk, &fs);
            assert!(backup.verify().unwrap().damage.is_empty(), "{}", what());
            assert_eq!(restored(&backup, 3), expected[2], "{}", what());
            let generations = backup.list().unwrap().generations.len();
            assert!(generations == 4 || failed && generations == 3, "{}", what());
            let made = backup.create(&process.db).unwrap();
            assert_eq!(restored(&backup, made.number), fourth, "{}", what());
        },
    );
    fail_everywhere(
        || disk.process_crash(),
        |disk| try_backup(disk, &fs)?.prune(1).map(drop),
        |disk, _, what| {
            let backup = backup(disk, &fs);
            assert!(backup.verify().unwrap().damage.is_empty(), "{}", what());
            backup.prune(1).unwrap();
            assert_eq!(restored(&backup, 3), expected[2], "{}", what());
            assert_eq!(backup.list().unwrap().generations.len(), 1, "{}", what());
        },
    );
    fail_everywhere(
        file_system,
        |target| backup(&disk, &fs).restore_on(target, 2).map(drop),
        |target, failed, what| {
            if failed {
                assert_eq!(target.paths().len(), 0, "{}: {target:?}", what());
                assert!(target.metadata(Path::new("/data/restored.tmp")).is_err(), "{}", what());
                backup(&disk, &fs).restore_on(target, 2).unwrap();
            }
            assert_eq!(contents_of(target, RESTORED), expected[1], "{}", what());
        },
    );
    for kind in [OperationKind::Read, OperationKind::Open] {
        for skip in 0.. {
            let target = file_system();
            let disk = disk.process_crash();
            let backup = backup(&disk, &fs);
            let fault = disk.inject(Fault::on(kind, Io::Other).skip(skip));
            let result = backup.restore_on(&target, 2);
            if fault.fired() == 0 {
                result.unwrap();
                break;
            }
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Io);
            assert_eq!(target.paths().len(), 0);
        }
    }
    process.kill();
}

/// Of each call, decides by chance: it is done; it is done, but fails; it is not done and fails. A put may also be
/// repeated by the store.
struct Unsure {
    store: DirectoryStore,
    state: AtomicU64,
}

impl Unsure {
    fn draw(&self) -> u64 {
        let state = self.state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        (state ^ (state >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40
    }

    fn maybe<T>(&self, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.draw() % 24 {
            0 => Err(io::Error::other("the request was lost")),
            1 => call().and(Err(io::Error::other("the answer was lost"))),
            _ => call(),
        }
    }
}

impl BackupStore for Unsure {
    fn location(&self) -> String {
        self.store.location()
    }

    fn put_if_absent(&self, name: &str, bytes: u64, content: &mut dyn Read) -> io::Result<Put> {
        self.maybe(|| {
            let put = self.store.put_if_absent(name, bytes, content)?;
            Ok(if self.draw().is_multiple_of(4) { Put::AlreadyThere } else { put })
        })
    }

    fn get(&self, name: &str, range: Range<u64>) -> io::Result<Vec<u8>> {
        self.maybe(|| self.store.get(name, range))
    }

    fn list(&self) -> io::Result<Vec<StoredObject>> {
        self.maybe(|| self.store.list())
    }

    fn delete(&self, names: &[String]) -> io::Result<()> {
        self.maybe(|| self.store.delete(names))
    }

    fn lock(&self, mode: LockMode) -> io::Result<Box<dyn LockGuard>> {
        self.maybe(|| self.store.lock(mode))
    }
}

#[test]
fn a_store_may_lose_requests_and_answers() {
    let mut failures = 0;
    for seed in 0..60 {
        let (fs, disk) = (file_system(), file_system());
        let process = Process::open(&fs, DIRECTORY);
        let store = DirectoryStore::create_on(Arc::new(disk.clone()), STORE).unwrap();
        let unsure = Arc::new(Unsure { store, state: AtomicU64::new(seed) });
        let mut expected: Vec<(u64, Contents)> = Vec::new();
        for round in 1..=3 {
            fill(&process.db, round);
            let made = loop {
                let made = Backup::open(Arc::clone(&unsure)).and_then(|unsure| unsure.create(&process.db));
                match made {
                    Ok(made) => break made,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "seed {seed}: {error}"),
                }
                failures += 1;
                let sure = backup(&disk, &fs);
                assert!(sure.verify().unwrap().damage.is_empty(), "seed {seed}");
            };
            expected.push((made.number, contents(&process.db)));
        }
        for (number, expected) in &expected {
            assert_eq!(restored(&backup(&disk, &fs), *number), *expected, "seed {seed}");
        }
        while Backup::open(Arc::clone(&unsure)).and_then(|unsure| unsure.prune(1)).is_err() {}
        let sure = backup(&disk, &fs);
        assert!(sure.verify().unwrap().damage.is_empty(), "seed {seed}");
        let (newest, last) = expected.last().unwrap();
        assert_eq!(restored(&sure, *newest), *last, "seed {seed}");
        process.kill();
    }
    assert!(failures > 20, "{failures}");
}

/// A file system without hard links names objects by renames.
#[test]
fn a_store_needs_no_hard_links() {
    let (fs, disk) = (file_system(), file_system());
    disk.inject(Fault::on(OperationKind::Link, Io::Unsupported).sticky());
    let process = Process::open(&fs, DIRECTORY);
    fill(&process.db, 1);
    let backup = backup(&disk, &fs);
    let made = [backup.create(&process.db).unwrap(), backup.create(&process.db).unwrap()];
    assert_eq!(made.map(|made| made.number), [1, 2]);
    assert_eq!(restored(&backup, 2), contents(&process.db));
    assert!(!disk.paths().iter().any(|path| path.to_string_lossy().contains("unfinished")));
    process.kill();
}

#[test]
fn it_works_on_real_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let db = copies::options().open(path("db")).unwrap();
    fill(&db, 1);
    let expected = contents(&db);
    let backup = Backup::open(DirectoryStore::create(path("store")).unwrap()).unwrap();
    let made = backup.create(&db).unwrap();
    fill(&db, 2);
    backup.create(&db).unwrap();
    backup.prune(2).unwrap();
    assert!(backup.verify().unwrap().damage.is_empty());
    backup.restore(made.number, path("restored")).unwrap();
    let restored = copies::options().open(path("restored")).unwrap();
    assert_eq!(contents(&restored), expected);
    drop(Backup::open(DirectoryStore::open(path("store")).unwrap()).unwrap());
}

/// A store that calls back when it is listed, which a backup does after it has frozen the database, and when an object
/// whose name begins with a prefix is about to be stored.
struct Hooked {
    store: DirectoryStore,
    prefix: &'static str,
    hook: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Hooked {
    fn new(disk: &SimFs, prefix: &'static str, hook: impl FnOnce() + Send + 'static) -> Self {
        let store = DirectoryStore::create_on(Arc::new(disk.clone()), STORE).unwrap();
        Self { store, prefix, hook: Mutex::new(Some(Box::new(hook))) }
    }

    fn call(&self) {
        let hook = self.hook.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
    }
}

impl BackupStore for Hooked {
    fn location(&self) -> String {
        self.store.location()
    }

    fn put_if_absent(&self, name: &str, bytes: u64, content: &mut dyn Read) -> io::Result<Put> {
        if name.starts_with(self.prefix) && !self.prefix.is_empty() {
            self.call();
        }
        self.store.put_if_absent(name, bytes, content)
    }

    fn get(&self, name: &str, range: Range<u64>) -> io::Result<Vec<u8>> {
        self.store.get(name, range)
    }

    fn list(&self) -> io::Result<Vec<StoredObject>> {
        if self.prefix.is_empty() {
            self.call();
        }
        self.store.list()
    }

    fn delete(&self, names: &[String]) -> io::Result<()> {
        self.store.delete(names)
    }

    fn lock(&self, mode: LockMode) -> io::Result<Box<dyn LockGuard>> {
        self.store.lock(mode)
    }
}

#[test]
fn the_log_stays_until_the_backup_has_it() {
    let (fs, disk) = (file_system(), file_system());
    let process = Process::open(&fs, DIRECTORY);
    for number in 0..60 {
        process.db.put(format!("{number:03}"), "value ".repeat(100)).unwrap();
    }
    let expected = contents(&process.db);
    let db = process.db.clone();
    let segments =
        |fs: &SimFs| files_below(fs, DIRECTORY).iter().filter(|path| path.contains(".wal")).count();
    let (before, seen) = (segments(&fs), Arc::new(Mutex::new(None)));
    assert!(before > 2, "{before}");
    let (noted, looked_at) = (Arc::clone(&seen), fs.clone());
    let hooked = Hooked::new(&disk, "", move || {
        let pins = db.pins();
        assert!(pins.iter().any(|pin| pin.kind == lsm_engine::PinKind::Checkpoint), "{pins:?}");
        fill(&db, 1);
        *noted.lock().unwrap() = Some(segments(&looked_at));
    });
    let made = Backup::open(hooked).unwrap().create(&process.db).unwrap();
    assert!(seen.lock().unwrap().unwrap() >= before);
    process.env.run_until_idle();
    assert!(process.db.pins().is_empty());
    process.kill();
    assert_eq!(restored(&backup(&disk, &fs), made.number), expected);
}

#[test]
fn two_backups_never_have_one_number() {
    let (fs, disk, process, expected) = three_generations();
    fill(&process.db, 4);
    let (other, db) = (backup(&disk, &fs), process.db.clone());
    let hooked = Hooked::new(&disk, "generation", move || {
        assert_eq!(other.create(&db).unwrap().number, 4);
        fill(&db, 5);
    });
    let fourth = contents(&process.db);
    let made = Backup::open(hooked).unwrap().create(&process.db).unwrap();
    assert_eq!(made.number, 5);
    let backup = backup(&disk, &fs);
    assert_eq!(backup.list().unwrap().generations.len(), 5);
    assert_eq!((restored(&backup, 4), restored(&backup, 5)), (fourth.clone(), fourth));
    assert_eq!(restored(&backup, 3), expected[2]);
    process.kill();
}

#[test]
fn tables_that_only_the_log_names_are_in_it_though_compactions_replace_them() {
    let (fs, disk) = (file_system(), file_system());
    let process = Process::open(&fs, DIRECTORY);
    fill(&process.db, 1);
    let mut table = process.db.default_keyspace().table_builder("/data/one.sst").unwrap();
    table.put("ingested", "value").unwrap();
    table.finish().unwrap();
    process.db.ingest(lsm_engine::Ingest::new().table("/data/one.sst")).unwrap();
    let expected = contents(&process.db);
    let db = process.db.clone();
    let hooked = Hooked::new(&disk, "", move || fill(&db, 2));
    let made = Backup::open(hooked).unwrap().create(&process.db).unwrap();
    process.kill();
    let backup = backup(&disk, &fs);
    assert!(backup.verify().unwrap().damage.is_empty());
    assert_eq!(restored(&backup, made.number), expected);
    assert_eq!(backup.prune(1).unwrap().files, 0);
    assert_eq!(restored(&backup, made.number), expected);
}

/// Batches give two keyspaces the same number, one after another.
#[test]
fn threads_write_back_up_and_prune_at_the_same_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let db = copies::options().memory(8 << 20).open(path("db")).unwrap();
    let other = db.keyspace("other", lsm_engine::KeyspaceOptions::new()).unwrap();
    let store = || Backup::open(DirectoryStore::create(path("store")).unwrap()).unwrap();
    let ended = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let _end = Ended(&ended);
                for _ in 0..6 {
                    if let Err(error) = store().create(&db) {
                        // The store is being pruned.
                        assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
                    }
                }
            });
        }
        scope.spawn(|| {
            while ended.load(Ordering::SeqCst) < 2 {
                if let Err(error) = store().prune(2) {
                    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
                }
                std::thread::yield_now();
            }
        });
        for number in 0_u64.. {
            if ended.load(Ordering::SeqCst) == 2 {
                break;
            }
            let mut batch = lsm_engine::WriteBatch::new();
            batch.put("number", number.to_string()).put_in(&other, "number", number.to_string());
            batch.put_in(&other, format!("{:03}", number % 1000), vec![7; 500]);
            db.write(batch).unwrap();
        }
    });
    let backup = store();
    backup.create(&db).unwrap();
    let report = backup.verify().unwrap();
    assert!(report.damage.is_empty(), "{report:?}");
    for found in backup.list().unwrap().generations {
        let target = path(&format!("restored{}", found.number));
        backup.restore(found.number, &target).unwrap();
        let restored = copies::options().open(&target).unwrap();
        let other = restored.existing_keyspace("other").unwrap();
        let number = |value: lsm_engine::Result<Option<_>>| value.unwrap();
        let both = (number(restored.get("number")), other.and_then(|other| number(other.get("number"))));
        assert_eq!(both.0, both.1);
        assert_eq!(restored.snapshot().unwrap().sequence(), found.sequence);
    }
}

/// Counts threads that end, also by a panic.
struct Ended<'e>(&'e AtomicU64);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
