//! Crashes at every file-system operation of a checkpoint. Whatever a crash of the process or of the machine leaves: the
//! database is as it was, the copy is whole or not there, and the next call makes it.

use std::path::Path;

use lsm_engine::vfs::{SimFs, Vfs};

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
    act: impl Fn(&Process) -> lsm_engine::Result<()>,
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
