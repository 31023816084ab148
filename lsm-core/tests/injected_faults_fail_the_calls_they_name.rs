//! Faults, full disks and damage in `SimFs`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use lsm_core::vfs::{
    AllLost, Fault, LockMode, OperationKind, Placed, PosixFs, SimFs, Vfs, copy_file, is_too_many_open_files,
    link_or_copy,
};

fn kind<T>(result: std::io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn an_operation_fails_once_or_from_then_on() {
    let fs = SimFs::new();
    let file = fs.create_new(Path::new("file")).unwrap();
    assert_eq!(fs.operations(), 1);
    fs.inject(Fault::at_operation(2, ErrorKind::StorageFull));
    file.write_at(b"1", 0).unwrap();
    assert_eq!(kind(file.write_at(b"2", 0)), Some(ErrorKind::StorageFull));
    file.write_at(b"3", 0).unwrap();
    fs.inject(Fault::at_operation(5, ErrorKind::Other).sticky());
    file.write_at(b"4", 0).unwrap();
    assert!(file.write_at(b"5", 0).is_err());
    assert!(fs.remove_file(Path::new("file")).is_err());
    file.read_exact_at(&mut [0], 0).unwrap();
    fs.clear_faults();
    file.write_at(b"6", 0).unwrap();
    assert_eq!(fs.last_operation().unwrap().to_string(), "Write file, 1 bytes at 0");
}

#[test]
fn calls_of_a_kind_fail_on_files_of_a_name() {
    let fs = SimFs::new();
    let (log, table) =
        (fs.create_new(Path::new("1.wal")).unwrap(), fs.create_new(Path::new("2.sst")).unwrap());
    for file in [&log, &table] {
        file.write_at(b"abc", 0).unwrap();
    }
    fs.inject(Fault::on(OperationKind::Read, ErrorKind::Other).named(".sst").skip(1).sticky());
    log.read_exact_at(&mut [0], 0).unwrap();
    table.read_exact_at(&mut [0], 0).unwrap();
    assert!(table.read_at(&mut [0], 0).is_err());
    assert!(table.read_at(&mut [0], 0).is_err());
    log.read_exact_at(&mut [0], 0).unwrap();
    table.sync_data().unwrap();
}

#[test]
fn a_fault_tells_how_often_it_fired() {
    let fs = SimFs::new();
    let fault = |prefix: &str| {
        fs.inject(Fault::on(OperationKind::Write, ErrorKind::Other).name_starting(prefix).sticky())
    };
    let (manifests, wals) = (fault("MANIFEST-"), fault("wal"));
    let manifest = fs.create_new(Path::new("MANIFEST-1")).unwrap();
    let log = fs.create_new(Path::new("1.wal")).unwrap();
    assert_eq!(manifests.fired(), 0);
    for _ in 0..2 {
        assert!(manifest.write_at(b"abc", 0).is_err());
        log.write_at(b"abc", 0).unwrap();
    }
    assert_eq!((manifests.fired(), wals.fired()), (2, 0));
}

#[test]
fn a_failed_write_may_have_written_a_part() {
    let fs = SimFs::new();
    let file = fs.create_new(Path::new("file")).unwrap();
    fs.inject(Fault::on(OperationKind::Write, ErrorKind::Other).after_writing(3));
    assert!(file.write_at(b"abcdef", 0).is_err());
    assert_eq!(fs.read_all(Path::new("file")).unwrap(), b"abc");
}

#[test]
fn a_full_disk_takes_what_fits_and_overwrites_what_is_there() {
    let fs = SimFs::new();
    fs.set_capacity(Some(4 * 4096));
    let file = fs.create_new(Path::new("file")).unwrap();
    file.write_at(&[1; 4096], 0).unwrap();
    assert_eq!(fs.free_bytes(Path::new("/")).unwrap(), 3 * 4096);
    assert_eq!(kind(file.write_at(&vec![2; 5 * 4096], 0)), Some(ErrorKind::StorageFull));
    assert_eq!(fs.read_all(Path::new("file")).unwrap(), [2; 4 * 4096]);
    file.write_at(&[3; 4 * 4096], 0).unwrap();
    assert_eq!(kind(fs.window(Path::new("window"), 1)), Some(ErrorKind::StorageFull));
    assert!(fs.metadata(Path::new("window")).is_err());
    file.set_len(4096).unwrap();
    assert_eq!(fs.free_bytes(Path::new("/")).unwrap(), 3 * 4096);
    fs.remove_file(Path::new("file")).unwrap();
    assert_eq!(fs.free_bytes(Path::new("/")).unwrap(), 3 * 4096, "open files keep their blocks");
    drop(file);
    assert_eq!(fs.free_bytes(Path::new("/")).unwrap(), 4 * 4096);
}

#[test]
fn what_was_allocated_can_be_written_on_a_full_disk() {
    let fs = SimFs::new();
    fs.set_capacity(Some(10 * 4096));
    let (segment, other) = (fs.create_new(Path::new("1")).unwrap(), fs.create_new(Path::new("2")).unwrap());
    assert_eq!(kind(segment.allocate(11 * 4096)), Some(ErrorKind::StorageFull));
    segment.allocate(6 * 4096).unwrap();
    assert_eq!(kind(other.write_at(&vec![1; 5 * 4096], 0)), Some(ErrorKind::StorageFull));
    segment.write_at(&vec![1; 6 * 4096], 0).unwrap();
    assert_eq!(kind(segment.write_at(b"x", 6 * 4096)), Some(ErrorKind::StorageFull));
    segment.sync_data().unwrap();
    assert_eq!(fs.free_bytes(Path::new("/")).unwrap(), 0);
}

#[test]
fn bytes_can_be_damaged_and_files_replaced() {
    let fs = SimFs::new();
    let path = Path::new("file");
    fs.write_all(path, &[0; 5000]).unwrap();
    fs.corrupt(path, 4500, 0x81).unwrap();
    let mut expected = vec![0; 5000];
    expected[4500] = 0x81;
    assert_eq!(fs.read_all(path).unwrap(), expected);
    assert_eq!(kind(fs.corrupt(path, 5000, 1)), Some(ErrorKind::InvalidInput));
    fs.truncate(path, 4400).unwrap();
    fs.truncate(path, 4600).unwrap();
    assert_eq!(fs.read_all(path).unwrap(), [0; 4600]);
    fs.write_all(path, b"short").unwrap();
    assert_eq!(fs.power_cut(&mut lsm_core::vfs::AllLost).read_all(path).unwrap(), b"short");
    fs.create_dir(Path::new("inner")).unwrap();
    fs.write_all(Path::new("inner/file"), b"").unwrap();
    assert_eq!(fs.paths(), [PathBuf::from("file"), PathBuf::from("inner/file")]);
    assert_eq!(fs.operations(), 1, "only the directory was made by a process");
    assert!(fs.write_all(Path::new("missing/file"), b"").is_err());
}

#[test]
fn a_file_system_may_support_no_windows() {
    let fs = SimFs::new();
    fs.set_windows(false);
    assert_eq!(kind(fs.window(Path::new("window"), 4096)), Some(ErrorKind::Unsupported));
    assert!(fs.paths().is_empty());
}

#[test]
fn short_reads_return_less_but_never_nothing() {
    let fs = SimFs::new();
    fs.write_all(Path::new("file"), &[7; 1000]).unwrap();
    fs.set_short_reads(Some(1));
    let file = fs.open_read(Path::new("file")).unwrap();
    let counts: Vec<usize> = (0..50).map(|_| file.read_at(&mut [0; 1000], 0).unwrap()).collect();
    assert!(counts.iter().all(|count| (1..=1000).contains(count)));
    assert!(counts.iter().any(|count| *count < 500));
    let mut bytes = [0; 1000];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [7; 1000]);
}

#[test]
fn no_more_files_open_at_once_than_the_limit_allows() {
    let fs = SimFs::new();
    fs.write_all(Path::new("old"), b"abc").unwrap();
    let refused = fs.set_open_files_max(Some(2));
    assert_eq!(fs.raise_open_files_limit(), Some(2));
    let lock = fs.lock(Path::new("lock"), LockMode::Exclusive).unwrap();
    let new = fs.create_new(Path::new("new")).unwrap();
    assert_eq!(fs.open_files(), 2);
    for error in [
        fs.open_read(Path::new("old")).err().unwrap(),
        fs.open_write(Path::new("old")).err().unwrap(),
        fs.create_new(Path::new("newer")).err().unwrap(),
        fs.window(Path::new("window"), 4096).err().unwrap(),
        fs.lock(Path::new("other lock"), LockMode::Exclusive).err().unwrap(),
    ] {
        assert!(is_too_many_open_files(&error), "{error}");
    }
    assert_eq!(refused.fired(), 5);
    assert_eq!(fs.paths(), [PathBuf::from("lock"), PathBuf::from("new"), PathBuf::from("old")]);
    drop(new);
    let window = fs.window(Path::new("window"), 4096).unwrap();
    let old = fs.open_read(Path::new("old")).unwrap();
    assert_eq!(fs.open_files(), 2, "a window is memory");
    drop((lock, window, old));
    assert_eq!(fs.open_files(), 0);
    assert!(!is_too_many_open_files(&fs.open_read(Path::new("missing")).err().unwrap()));
}

#[cfg(unix)]
#[test]
fn the_limit_on_open_files_is_raised_once_and_stays() {
    let limit = PosixFs.raise_open_files_limit();
    assert_eq!(PosixFs.raise_open_files_limit(), limit);
    assert!(limit.is_none_or(|limit| limit > 0));
}

#[test]
fn what_cannot_be_linked_is_copied_and_a_failed_copy_leaves_no_file() {
    let (from, to) = (Path::new("from"), Path::new("to"));
    let disk = || {
        let fs = SimFs::new();
        fs.write_all(from, &[7; 10_000]).unwrap();
        fs
    };
    for error in [
        ErrorKind::CrossesDevices,
        ErrorKind::Unsupported,
        ErrorKind::PermissionDenied,
        ErrorKind::TooManyLinks,
    ] {
        let fs = disk();
        fs.inject(Fault::on(OperationKind::Link, error));
        assert_eq!(link_or_copy(&fs, from, to).unwrap(), Placed::Copied(10_000));
        fs.sync_dir(Path::new("/")).unwrap();
        let after = fs.power_cut(&mut AllLost);
        assert_eq!(after.read_all(to).unwrap(), [7; 10_000], "{error}");
    }
    let fs = disk();
    let full = fs.inject(Fault::on(OperationKind::Link, ErrorKind::StorageFull));
    assert_eq!(kind(link_or_copy(&fs, from, to)), Some(ErrorKind::StorageFull));
    assert_eq!((full.fired(), fs.paths()), (1, vec![PathBuf::from("from")]));
    for failing in [OperationKind::Read, OperationKind::Create, OperationKind::Write, OperationKind::Sync] {
        let fs = disk();
        let fault = fs.inject(Fault::on(failing, ErrorKind::Other));
        assert_eq!(kind(copy_file(&fs, from, to)), Some(ErrorKind::Other));
        assert_eq!((fault.fired(), fs.paths()), (1, vec![PathBuf::from("from")]), "{failing:?}");
    }
}
