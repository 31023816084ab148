//! What `Vfs` promises, on the disk and in the simulator.

use std::io::ErrorKind;
use std::path::Path;

use lsm_core::vfs::{Access, LockMode, Metadata, Placed, PosixFs, SimFs, Vfs, copy_file, link_or_copy};

use LockMode::{Exclusive, Shared};

/// Runs a test in an empty directory of each file system.
fn on_each(test: impl Fn(&dyn Vfs, &Path)) {
    let directory = tempfile::tempdir().unwrap();
    test(&PosixFs, directory.path());
    let fs = SimFs::new();
    fs.create_dir(Path::new("/home")).unwrap();
    test(&fs, Path::new("/home"));
    let fs = SimFs::new();
    fs.set_short_reads(Some(7));
    test(&fs, Path::new("/"));
}

/// Whether the file system that `directory` is on gives windows; not all do.
fn maps_windows(vfs: &dyn Vfs, directory: &Path) -> bool {
    let path = directory.join("probe");
    let result = vfs.window(&path, 4096);
    if kind(result) == Some(ErrorKind::Unsupported) {
        return false;
    }
    vfs.remove_file(&path).unwrap();
    true
}

fn read_all(vfs: &dyn Vfs, path: &Path) -> Vec<u8> {
    let file = vfs.open_read(path).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn kind<T>(result: std::io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn what_is_written_is_read() {
    on_each(|vfs, directory| {
        let path = directory.join("file");
        let file = vfs.create_new(&path).unwrap();
        assert!(file.is_empty().unwrap());
        file.write_at(b"world", 6).unwrap();
        file.write_at(b"hello", 0).unwrap();
        assert_eq!(read_all(vfs, &path), b"hello\0world", "the gap is zero");
        assert_eq!(vfs.metadata(&path).unwrap(), Metadata { len: 11, is_dir: false });
        file.advise(Access::Random);
        file.advise(Access::Sequential);
        file.start_writeback(0, 11);
        file.sync_data().unwrap();
        vfs.sync_dir(directory).unwrap();
        vfs.open_write(&path).unwrap().write_at(b"J", 0).unwrap();
        assert_eq!(read_all(vfs, &path), b"Jello\0world");
    });
}

#[test]
fn reading_past_the_end_finds_nothing() {
    on_each(|vfs, directory| {
        let file = vfs.create_new(&directory.join("file")).unwrap();
        file.write_at(b"abc", 0).unwrap();
        let mut buffer = [0; 4];
        assert_eq!(file.read_at(&mut buffer, 3).unwrap(), 0);
        assert_eq!(file.read_at(&mut buffer, 1000).unwrap(), 0);
        assert_eq!(file.read_at(&mut [], 0).unwrap(), 0);
        assert_eq!(kind(file.read_exact_at(&mut buffer, 0)), Some(ErrorKind::UnexpectedEof));
    });
}

#[test]
fn a_cut_file_grows_back_with_zeros() {
    on_each(|vfs, directory| {
        let path = directory.join("file");
        let file = vfs.create_new(&path).unwrap();
        file.write_at(&[7; 10_000], 0).unwrap();
        file.set_len(5000).unwrap();
        file.set_len(9000).unwrap();
        let mut expected = vec![7; 5000];
        expected.resize(9000, 0);
        assert_eq!(read_all(vfs, &path), expected);
    });
}

#[test]
fn allocating_extends_and_never_cuts() {
    on_each(|vfs, directory| {
        let path = directory.join("file");
        let file = vfs.create_new(&path).unwrap();
        file.write_at(b"abc", 0).unwrap();
        file.allocate(0).unwrap();
        file.allocate(2).unwrap();
        assert_eq!(file.len().unwrap(), 3);
        file.allocate(8192).unwrap();
        assert_eq!(file.len().unwrap(), 8192);
        assert_eq!(read_all(vfs, &path)[..5], *b"abc\0\0");
    });
}

#[test]
fn a_name_is_created_once() {
    on_each(|vfs, directory| {
        let path = directory.join("file");
        vfs.create_new(&path).unwrap().write_at(b"abc", 0).unwrap();
        assert_eq!(kind(vfs.create_new(&path)), Some(ErrorKind::AlreadyExists));
        assert_eq!(kind(vfs.create_dir(&path)), Some(ErrorKind::AlreadyExists));
        assert_eq!(kind(vfs.window(&path, 4096)), Some(ErrorKind::AlreadyExists));
        assert_eq!(read_all(vfs, &path), b"abc");
    });
}

#[test]
fn missing_and_misplaced_paths_are_told_apart() {
    on_each(|vfs, directory| {
        let (file, missing, inner) =
            (directory.join("file"), directory.join("missing"), directory.join("directory"));
        vfs.create_new(&file).unwrap();
        vfs.create_dir(&inner).unwrap();
        for path in [&missing, &missing.join("file")] {
            assert_eq!(kind(vfs.open_read(path)), Some(ErrorKind::NotFound));
            assert_eq!(kind(vfs.open_write(path)), Some(ErrorKind::NotFound));
            assert_eq!(kind(vfs.metadata(path)), Some(ErrorKind::NotFound));
            assert_eq!(kind(vfs.remove_file(path)), Some(ErrorKind::NotFound));
            assert_eq!(kind(vfs.read_dir(path)), Some(ErrorKind::NotFound));
            assert_eq!(kind(vfs.sync_dir(path)), Some(ErrorKind::NotFound));
            assert_eq!(kind(vfs.rename(path, &file)), Some(ErrorKind::NotFound));
            assert_eq!(kind(vfs.hard_link(path, &missing)), Some(ErrorKind::NotFound));
        }
        assert_eq!(kind(vfs.create_new(&missing.join("file"))), Some(ErrorKind::NotFound));
        assert_eq!(kind(vfs.create_dir(&missing.join("directory"))), Some(ErrorKind::NotFound));
        assert_eq!(kind(vfs.lock(&missing.join("LOCK"), LockMode::Exclusive)), Some(ErrorKind::NotFound));
        assert_eq!(kind(vfs.open_read(&file.join("x"))), Some(ErrorKind::NotADirectory));
        assert_eq!(kind(vfs.create_new(&file.join("x"))), Some(ErrorKind::NotADirectory));
        assert_eq!(kind(vfs.read_dir(&file)), Some(ErrorKind::NotADirectory));
        assert_eq!(kind(vfs.sync_dir(&file)), Some(ErrorKind::NotADirectory));
        assert_eq!(kind(vfs.open_read(&inner)), Some(ErrorKind::IsADirectory));
        assert_eq!(kind(vfs.open_write(&inner)), Some(ErrorKind::IsADirectory));
        assert!(vfs.remove_file(&inner).is_err());
        assert_eq!(vfs.metadata(&inner).unwrap(), Metadata { len: 0, is_dir: true });
    });
}

#[test]
fn a_file_opened_for_reading_is_not_written() {
    on_each(|vfs, directory| {
        let path = directory.join("file");
        vfs.create_new(&path).unwrap().write_at(b"abc", 0).unwrap();
        let file = vfs.open_read(&path).unwrap();
        assert!(file.write_at(b"x", 0).is_err());
        assert!(file.set_len(0).is_err());
        assert_eq!(read_all(vfs, &path), b"abc");
    });
}

#[test]
fn renaming_replaces_and_open_files_stay_readable() {
    on_each(|vfs, directory| {
        let (old, new) = (directory.join("old"), directory.join("new"));
        vfs.create_new(&old).unwrap().write_at(b"old", 0).unwrap();
        vfs.create_new(&new).unwrap().write_at(b"new", 0).unwrap();
        let (replaced, moved) = (vfs.open_read(&new).unwrap(), vfs.open_read(&old).unwrap());
        vfs.rename(&old, &new).unwrap();
        assert_eq!(vfs.read_dir(directory).unwrap(), ["new"]);
        assert_eq!(read_all(vfs, &new), b"old");
        let mut bytes = [0; 3];
        replaced.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"new");
        vfs.remove_file(&new).unwrap();
        moved.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"old");
        assert!(vfs.read_dir(directory).unwrap().is_empty());
    });
}

#[test]
fn a_file_has_as_many_names_as_it_was_given() {
    on_each(|vfs, directory| {
        let (one, two) = (directory.join("one"), directory.join("two"));
        vfs.create_new(&one).unwrap().write_at(b"abc", 0).unwrap();
        vfs.hard_link(&one, &two).unwrap();
        assert_eq!(kind(vfs.hard_link(&one, &two)), Some(ErrorKind::AlreadyExists));
        vfs.open_write(&two).unwrap().write_at(b"X", 1).unwrap();
        vfs.rename(&one, &two).unwrap();
        assert_eq!(vfs.read_dir(directory).unwrap(), ["one", "two"], "names of one file are not merged");
        vfs.remove_file(&one).unwrap();
        assert_eq!(read_all(vfs, &two), b"aXc");
    });
}

#[test]
fn names_are_sorted() {
    on_each(|vfs, directory| {
        for name in ["b", "a", "10", "9", "c"] {
            vfs.create_new(&directory.join(name)).unwrap();
        }
        vfs.create_dir(&directory.join("aa")).unwrap();
        vfs.create_new(&directory.join("aa").join("inner")).unwrap();
        assert_eq!(vfs.read_dir(directory).unwrap(), ["10", "9", "a", "aa", "b", "c"]);
        assert_eq!(vfs.read_dir(&directory.join("aa")).unwrap(), ["inner"]);
    });
}

#[test]
fn a_lock_is_held_once_and_leaves_its_file() {
    on_each(|vfs, directory| {
        let path = directory.join("LOCK");
        let guard = vfs.lock(&path, Exclusive).unwrap();
        for mode in [Exclusive, Shared] {
            assert_eq!(kind(vfs.lock(&path, mode)), Some(ErrorKind::WouldBlock));
            let spelled_otherwise = directory.join(".").join("LOCK");
            assert_eq!(kind(vfs.lock(&spelled_otherwise, mode)), Some(ErrorKind::WouldBlock));
        }
        let other = vfs.lock(&directory.join("OTHER"), Exclusive).unwrap();
        drop(guard);
        let guard = vfs.lock(&path, Exclusive).unwrap();
        assert_eq!(vfs.read_dir(directory).unwrap(), ["LOCK", "OTHER"]);
        drop((guard, other));
        vfs.lock(&path, Exclusive).unwrap();
    });
}

#[test]
fn a_shared_lock_is_held_by_many_and_changes_nothing() {
    on_each(|vfs, directory| {
        let path = directory.join("LOCK");
        assert_eq!(kind(vfs.lock(&path, Shared)), Some(ErrorKind::NotFound));
        assert!(vfs.read_dir(directory).unwrap().is_empty());
        vfs.create_new(&path).unwrap();
        let one = vfs.lock(&path, Shared).unwrap();
        let two = vfs.lock(&path, Shared).unwrap();
        assert_eq!(kind(vfs.lock(&path, Exclusive)), Some(ErrorKind::WouldBlock));
        drop(one);
        assert_eq!(kind(vfs.lock(&path, Exclusive)), Some(ErrorKind::WouldBlock), "one still holds it");
        let three = vfs.lock(&path, Shared).unwrap();
        drop((two, three));
        let alone = vfs.lock(&path, Exclusive).unwrap();
        assert_eq!(kind(vfs.lock(&path, Shared)), Some(ErrorKind::WouldBlock));
        drop(alone);
        vfs.lock(&path, Shared).unwrap();
    });
}

#[test]
fn a_window_is_a_file_of_zeros_to_write_to() {
    on_each(|vfs, directory| {
        let path = directory.join("window");
        if !maps_windows(vfs, directory) {
            return;
        }
        let mut window = vfs.window(&path, 10_000).unwrap();
        assert_eq!(window.len(), 10_000);
        assert!(!window.is_empty());
        let mut expected = vec![0; 10_000];
        assert_eq!(read_all(vfs, &path), expected);
        window.write_at(4090, b"across pages");
        window.publish(16, 0x0102_0304_0506_0708);
        window.write_at(9999, b"!");
        window.write_at(10_000, b"");
        expected[4090..4102].copy_from_slice(b"across pages");
        expected[16..24].copy_from_slice(&[8, 7, 6, 5, 4, 3, 2, 1]);
        expected[9999] = b'!';
        assert_eq!(read_all(vfs, &path), expected, "others see it at once");
        let copy = vfs.create_new(&directory.join("copy")).unwrap();
        window.write_to(4090..4102, &*copy, 3).unwrap();
        assert_eq!(read_all(vfs, &directory.join("copy")), b"\0\0\0across pages");
        drop(window);
        assert_eq!(read_all(vfs, &path), expected);
        let file = vfs.open_write(&path).unwrap();
        file.write_at(b"reused", 0).unwrap();
        file.sync_data().unwrap();
        assert_eq!(read_all(vfs, &path)[..6], *b"reused");
    });
}

#[test]
fn windows_refuse_what_is_out_of_bounds_or_unaligned() {
    on_each(|vfs, directory| {
        assert_eq!(kind(vfs.window(&directory.join("none"), 0)), Some(ErrorKind::InvalidInput));
        assert!(vfs.read_dir(directory).unwrap().is_empty(), "a failed window leaves no file");
        if !maps_windows(vfs, directory) {
            return;
        }
        let copied = &vfs.create_new(&directory.join("copy")).unwrap();
        for (name, misuse) in [
            (
                "beyond",
                Box::new(|window: &mut dyn lsm_core::vfs::Window| window.write_at(4000, &[1; 97]))
                    as Box<dyn Fn(&mut dyn lsm_core::vfs::Window)>,
            ),
            ("copied beyond", Box::new(move |window| drop(window.write_to(4000..4097, &**copied, 0)))),
            ("unaligned", Box::new(|window| window.publish(12, 1))),
            ("published beyond", Box::new(|window| window.publish(4096, 1))),
            ("overflow", Box::new(|window| window.write_at(usize::MAX, &[1; 2]))),
        ] {
            let mut window = vfs.window(&directory.join(name), 4096).unwrap();
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| misuse(&mut *window)));
            assert!(caught.is_err(), "{name}");
            assert_eq!(read_all(vfs, &directory.join(name)), [0; 4096], "{name}");
        }
    });
}

#[test]
fn there_is_room_on_the_disk() {
    on_each(|vfs, directory| match vfs.free_bytes(directory) {
        Err(error) if error.kind() == ErrorKind::Unsupported && cfg!(not(unix)) => {}
        free => {
            assert!(free.unwrap() > 1 << 20);
            assert_eq!(kind(vfs.free_bytes(&directory.join("missing"))), Some(ErrorKind::NotFound));
        }
    });
}

#[test]
fn many_threads_share_a_file() {
    on_each(|vfs, directory| {
        let file = vfs.create_new(&directory.join("file")).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                let file = &file;
                scope.spawn(move || {
                    for row in 0..200_u64 {
                        let offset = (row * 4 + u64::from(thread)) * 100;
                        file.write_at(&[thread; 100], offset).unwrap();
                        let mut bytes = [9; 100];
                        file.read_exact_at(&mut bytes, offset).unwrap();
                        assert_eq!(bytes, [thread; 100]);
                    }
                });
            }
        });
        assert_eq!(file.len().unwrap(), 80_000);
    });
}

#[test]
fn a_directory_is_removed_when_it_is_empty_and_renamed_with_all_that_is_in_it() {
    on_each(|vfs, directory| {
        let (old, new) = (directory.join("old"), directory.join("new"));
        vfs.create_dir(&old).unwrap();
        vfs.create_new(&old.join("file")).unwrap().write_at(b"abc", 0).unwrap();
        assert_eq!(kind(vfs.remove_dir(&old)), Some(ErrorKind::DirectoryNotEmpty));
        assert_eq!(kind(vfs.remove_dir(&old.join("file"))), Some(ErrorKind::NotADirectory));
        assert_eq!(kind(vfs.remove_dir(&new)), Some(ErrorKind::NotFound));
        vfs.rename(&old, &new).unwrap();
        assert_eq!(vfs.read_dir(directory).unwrap(), ["new"]);
        assert_eq!(read_all(vfs, &new.join("file")), b"abc");
        vfs.remove_file(&new.join("file")).unwrap();
        vfs.remove_dir(&new).unwrap();
        assert!(vfs.read_dir(directory).unwrap().is_empty());
    });
}

#[test]
fn a_file_is_linked_or_copied_to_a_name_that_is_free() {
    on_each(|vfs, directory| {
        let (one, two, three) = (directory.join("one"), directory.join("two"), directory.join("three"));
        let bytes: Vec<u8> = (0..2_500_000_u32).map(|index| (index % 251) as u8).collect();
        vfs.create_new(&one).unwrap().write_at(&bytes, 0).unwrap();
        assert_eq!(link_or_copy(vfs, &one, &two).unwrap(), Placed::Linked);
        assert_eq!(copy_file(vfs, &one, &three).unwrap(), 2_500_000);
        for to in [&two, &three] {
            assert!(read_all(vfs, to) == bytes);
            assert_eq!(kind(link_or_copy(vfs, &one, to)), Some(ErrorKind::AlreadyExists));
            assert_eq!(kind(copy_file(vfs, &one, to)), Some(ErrorKind::AlreadyExists));
        }
        let missing = directory.join("missing");
        assert_eq!(kind(link_or_copy(vfs, &missing, &directory.join("four"))), Some(ErrorKind::NotFound));
        assert_eq!(kind(copy_file(vfs, &missing, &directory.join("four"))), Some(ErrorKind::NotFound));
        vfs.open_write(&two).unwrap().write_at(b"X", 0).unwrap();
        assert_eq!((read_all(vfs, &one)[0], read_all(vfs, &three)[0]), (b'X', 0));
        assert_eq!(vfs.read_dir(directory).unwrap(), ["one", "three", "two"]);
    });
}
