//! What `SimFs` says a disk keeps.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use lsm_core::vfs::{
    AllKept, AllLost, EntryChange, Fate, Fault, LockMode, OperationKind, Piece, PieceKind, Seeded, SimFs,
    Vfs, VfsFile,
};
use proptest::prelude::*;

fn root() -> &'static Path {
    Path::new("/")
}

/// A file whose name and bytes are durable.
fn durable_file(fs: &SimFs, name: &str, bytes: &[u8]) -> std::sync::Arc<dyn VfsFile> {
    let file = fs.create_new(Path::new(name)).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync_data().unwrap();
    fs.sync_dir(root()).unwrap();
    file
}

fn contents(fs: &SimFs, name: &str) -> Option<Vec<u8>> {
    fs.read_all(Path::new(name)).ok()
}

/// Keeps the sectors at these offsets, and all names and lengths.
fn sectors(offsets: &'static [u64]) -> impl FnMut(&Piece<'_>) -> Fate {
    move |piece| match piece.kind {
        PieceKind::Sector { offset } if !offsets.contains(&offset) => Fate::Lost,
        _ => Fate::Kept,
    }
}

#[test]
fn what_was_synced_is_kept_and_the_rest_may_go() {
    let fs = SimFs::new();
    let file = durable_file(&fs, "file", b"synced");
    file.write_at(b" and not", 6).unwrap();
    assert_eq!(contents(&fs.power_cut(&mut AllLost), "file").unwrap(), b"synced");
    assert_eq!(contents(&fs.power_cut(&mut AllKept), "file").unwrap(), b"synced and not");
    assert_eq!(contents(&fs.process_crash(), "file").unwrap(), b"synced and not");
    file.sync_data().unwrap();
    assert_eq!(contents(&fs.power_cut(&mut AllLost), "file").unwrap(), b"synced and not");
}

#[test]
fn a_synced_file_is_lost_with_its_name() {
    let fs = SimFs::new();
    let file = fs.create_new(Path::new("file")).unwrap();
    file.write_at(b"synced", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(contents(&fs.power_cut(&mut AllLost), "file"), None);
    fs.sync_dir(root()).unwrap();
    assert_eq!(contents(&fs.power_cut(&mut AllLost), "file").unwrap(), b"synced");
}

#[test]
fn a_directory_is_lost_with_all_that_was_synced_in_it() {
    let fs = SimFs::new();
    fs.create_dir(Path::new("inner")).unwrap();
    let file = fs.create_new(Path::new("inner/file")).unwrap();
    file.sync_data().unwrap();
    fs.sync_dir(Path::new("inner")).unwrap();
    assert!(fs.power_cut(&mut AllLost).read_dir(root()).unwrap().is_empty());
    fs.sync_dir(root()).unwrap();
    assert_eq!(fs.power_cut(&mut AllLost).read_dir(Path::new("inner")).unwrap(), ["file"]);
}

#[test]
fn an_unlinked_file_may_come_back() {
    let fs = SimFs::new();
    durable_file(&fs, "file", b"old");
    fs.remove_file(Path::new("file")).unwrap();
    assert_eq!(contents(&fs, "file"), None);
    assert_eq!(contents(&fs.power_cut(&mut AllLost), "file").unwrap(), b"old");
    fs.sync_dir(root()).unwrap();
    assert_eq!(contents(&fs.power_cut(&mut AllLost), "file"), None);
}

#[test]
fn a_rename_is_done_or_not_or_leaves_both_names() {
    let fs = SimFs::new();
    durable_file(&fs, "current", b"old");
    durable_file(&fs, "new", b"new");
    fs.rename(Path::new("new"), Path::new("current")).unwrap();
    let lost = fs.power_cut(&mut AllLost);
    assert_eq!(
        (contents(&lost, "current").unwrap(), contents(&lost, "new").unwrap()),
        (b"old".into(), b"new".into())
    );
    let kept = fs.power_cut(&mut AllKept);
    assert_eq!((contents(&kept, "current").unwrap(), contents(&kept, "new")), (b"new".into(), None));
    let both = fs.power_cut(&mut |piece: &Piece<'_>| {
        let from = "new".to_owned();
        let to = "current".to_owned();
        assert!(matches!(piece.kind, PieceKind::Entry { index: 0, change }
            if *change == EntryChange::Rename { from, to }));
        Fate::BothNames
    });
    assert_eq!(
        (contents(&both, "current").unwrap(), contents(&both, "new").unwrap()),
        (b"new".into(), b"new".into())
    );
}

#[test]
fn a_name_can_be_kept_without_the_bytes() {
    let fs = SimFs::new();
    let file = fs.create_new(Path::new("file")).unwrap();
    file.write_at(&[1; 1000], 0).unwrap();
    let names_only = |piece: &Piece<'_>| match piece.kind {
        PieceKind::Entry { .. } => Fate::Kept,
        _ => Fate::Lost,
    };
    assert_eq!(contents(&fs.power_cut(&mut { names_only }), "file").unwrap(), b"");
    assert_eq!(
        contents(&fs.power_cut(&mut sectors(&[])), "file").unwrap(),
        [0; 1000],
        "a length without bytes"
    );
}

#[test]
fn bytes_beyond_a_lost_length_do_not_come_back() {
    let fs = SimFs::new();
    let file = durable_file(&fs, "file", b"abc");
    file.write_at(b"def", 3).unwrap();
    let image = fs.power_cut(&mut |piece: &Piece<'_>| match piece.kind {
        PieceKind::Length => Fate::Lost,
        _ => Fate::Kept,
    });
    image.open_write(Path::new("file")).unwrap().set_len(6).unwrap();
    assert_eq!(contents(&image, "file").unwrap(), b"abc\0\0\0");
}

#[test]
fn sectors_are_kept_whole_and_one_by_one() {
    let fs = SimFs::new();
    let file = durable_file(&fs, "file", &[1; 2048]);
    file.write_at(&[2; 1200], 400).unwrap();
    let image = contents(&fs.power_cut(&mut sectors(&[512, 1536])), "file").unwrap();
    assert_eq!(image[..512], [1; 512]);
    assert_eq!(image[512..1024], [2; 512]);
    assert_eq!(image[1024..1536], [1; 512]);
    assert_eq!(image[1536..1600], [2; 64]);
    assert_eq!(image[1600..], [1; 448], "what was around a write is part of its sector");
}

#[test]
fn a_sector_may_be_any_of_what_it_was_but_never_a_mix() {
    let fs = SimFs::new();
    let file = durable_file(&fs, "file", b"....");
    for offset in 0..3 {
        file.write_at(b"x", offset).unwrap();
    }
    let version = |version| {
        fs.power_cut(&mut move |piece: &Piece<'_>| {
            assert_eq!(piece.version_count, 3);
            Fate::Version(version)
        })
    };
    assert_eq!(contents(&version(0), "file").unwrap(), b"x...");
    assert_eq!(contents(&version(1), "file").unwrap(), b"xx..");
    assert_eq!(contents(&version(2), "file").unwrap(), b"xxx.");
}

#[test]
fn noise_never_replaces_what_was_durable() {
    let fs = SimFs::new();
    let file = durable_file(&fs, "file", &[1; 700]);
    file.write_at(&[2; 1000], 700).unwrap();
    let image = contents(
        &fs.power_cut(&mut |piece: &Piece<'_>| match piece.kind {
            PieceKind::Sector { .. } => Fate::Garbled,
            _ => Fate::Kept,
        }),
        "file",
    )
    .unwrap();
    assert_eq!(image[..700], [1; 700]);
    assert_eq!(image[700..1024], [0; 324]);
    assert!(image[1024..].iter().collect::<BTreeSet<_>>().len() > 50, "noise");
}

#[test]
fn a_cut_may_be_undone_and_then_the_old_bytes_are_back() {
    let fs = SimFs::new();
    let file = durable_file(&fs, "file", &[1; 5000]);
    file.set_len(10).unwrap();
    file.write_at(b"new", 10).unwrap();
    assert_eq!(contents(&fs.power_cut(&mut AllLost), "file").unwrap(), [1; 5000]);
    file.sync_data().unwrap();
    assert_eq!(
        contents(&fs.power_cut(&mut AllLost), "file").unwrap(),
        *b"\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01new"
    );
    file.set_len(5000).unwrap();
    file.sync_data().unwrap();
    assert_eq!(contents(&fs.power_cut(&mut AllLost), "file").unwrap()[13..], [0; 4987]);
}

#[test]
fn windows_survive_the_process_and_are_torn_by_power_cuts() {
    let fs = SimFs::new();
    let path = Path::new("window");
    let mut window = fs.window(path, 8192).unwrap();
    fs.sync_dir(root()).unwrap();
    window.write_at(4000, &[7; 200]);
    window.publish(0, 9);
    let crashed = contents(&fs.process_crash(), "window").unwrap();
    assert_eq!((&crashed[..8], &crashed[4000..4200]), (&[9, 0, 0, 0, 0, 0, 0, 0][..], &[7; 200][..]));
    assert_eq!(contents(&fs.power_cut(&mut AllLost), "window").unwrap(), [0; 8192]);
    // The published word may be there without the bytes it promises.
    let torn = contents(&fs.power_cut(&mut sectors(&[0, 4096])), "window").unwrap();
    assert_eq!((torn[0], torn[4095], torn[4096]), (9, 0, 7));
}

#[test]
fn locks_end_with_the_process() {
    let fs = SimFs::new();
    let path = Path::new("LOCK");
    let guard = fs.lock(path, LockMode::Exclusive).unwrap();
    let next = fs.process_crash();
    let held = next.lock(path, LockMode::Exclusive).unwrap();
    drop(guard);
    assert_eq!(
        next.lock(path, LockMode::Shared).err().unwrap().kind(),
        ErrorKind::WouldBlock,
        "the old process releases its own only"
    );
    drop(held);
    fs.power_cut(&mut AllLost).lock(path, LockMode::Exclusive).unwrap();
}

#[test]
fn after_a_failed_sync_the_bytes_are_seen_and_never_durable() {
    let fs = SimFs::new();
    let file = durable_file(&fs, "file", b"old");
    file.write_at(b"new", 0).unwrap();
    fs.inject(Fault::on(OperationKind::Sync, ErrorKind::Other));
    assert!(file.sync_data().is_err());
    assert_eq!(contents(&fs, "file").unwrap(), b"new");
    file.sync_data().unwrap();
    assert_eq!(
        contents(&fs.power_cut(&mut AllLost), "file").unwrap(),
        b"old",
        "the second sync had nothing to do"
    );
    assert_eq!(contents(&fs.process_crash().power_cut(&mut AllLost), "file").unwrap(), b"old");
    file.write_at(b"N", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(
        contents(&fs.power_cut(&mut AllLost), "file").unwrap(),
        b"New",
        "written again, the page goes out"
    );
}

#[test]
fn a_dead_process_does_nothing_any_more() {
    let fs = SimFs::new();
    let file = durable_file(&fs, "file", b"abc");
    let mut window = fs.window(Path::new("window"), 4096).unwrap();
    fs.crash_at(fs.operations() + 1);
    file.write_at(b"X", 0).unwrap();
    assert!(!fs.crashed());
    assert!(file.write_at(b"Y", 1).is_err());
    assert!(fs.crashed());
    assert!(file.sync_data().is_err());
    assert!(file.len().is_err());
    assert!(fs.open_read(Path::new("file")).is_err());
    window.write_at(0, b"late");
    drop((file, window));
    let after = fs.process_crash();
    assert!(!after.crashed());
    assert_eq!(contents(&after, "file").unwrap(), b"Xbc");
    assert_eq!(contents(&after, "window").unwrap(), [0; 4096]);
}

#[test]
fn a_process_may_die_within_a_write() {
    let fs = SimFs::new();
    let file = durable_file(&fs, "file", b"......");
    fs.crash_within(fs.operations(), 4);
    assert!(file.write_at(b"abcdef", 0).is_err());
    assert_eq!(contents(&fs.process_crash(), "file").unwrap(), b"abcd..");
}

#[test]
fn recovery_can_crash_as_well() {
    let fs = SimFs::new();
    let file = durable_file(&fs, "file", b"1");
    file.write_at(b"2", 0).unwrap();
    let second = fs.process_crash();
    second.open_write(Path::new("file")).unwrap().write_at(b"3", 0).unwrap();
    let third = second.process_crash();
    let seen: BTreeSet<Vec<u8>> =
        third.crash_images().map(|image| contents(&image.fs, "file").unwrap()).collect();
    assert!(seen.contains(b"1".as_slice()) && seen.contains(b"3".as_slice()));
    let older = third.power_cut(&mut |_: &Piece<'_>| Fate::Version(0));
    assert_eq!(contents(&older, "file").unwrap(), b"2", "what the first process wrote is still on its way");
}

#[test]
fn images_are_distinct_and_bounded_and_begin_with_the_extremes() {
    let fs = SimFs::new();
    let log = durable_file(&fs, "log", b"");
    for index in 0..40 {
        log.write_at(&[index; 1000], u64::from(index) * 1000).unwrap();
    }
    fs.create_new(Path::new("a")).unwrap().write_at(b"a", 0).unwrap();
    fs.create_new(Path::new("b")).unwrap().write_at(b"b", 0).unwrap();
    fs.rename(Path::new("a"), Path::new("c")).unwrap();
    fs.remove_file(Path::new("log")).unwrap();
    let images: Vec<_> = fs.crash_images().collect();
    assert_eq!(images[0].fs.fingerprint(), fs.power_cut(&mut AllLost).fingerprint());
    assert_eq!(images[1].fs.fingerprint(), fs.fingerprint(), "all kept is what the process saw");
    let distinct: BTreeSet<u64> = images.iter().map(|image| image.fs.fingerprint()).collect();
    assert_eq!(distinct.len(), images.len());
    assert!((50..=256).contains(&images.len()), "{} images", images.len());
    assert!(images.iter().any(|image| image.description.contains("BothNames")));
    assert_eq!(fs.crash_images().at_most(10).count(), 10);
    let again: BTreeSet<u64> = fs.crash_images().map(|image| image.fs.fingerprint()).collect();
    assert_eq!(again, distinct, "the same every time");
    let reseeded: BTreeSet<u64> =
        fs.crash_images().with_seed(9).map(|image| image.fs.fingerprint()).collect();
    assert_ne!(reseeded, distinct);
    assert_eq!(SimFs::new().crash_images().count(), 1, "nothing pending, one image");
}

#[test]
fn few_pieces_give_every_subset() {
    let fs = SimFs::new();
    let file = durable_file(&fs, "file", &[0; 4096 * 4]);
    for page in 0..4 {
        file.write_at(b"x", page * 4096).unwrap();
    }
    let subset = |image: &SimFs| -> Vec<bool> {
        let bytes = contents(image, "file").unwrap();
        (0..4).map(|page| bytes[page * 4096] == b'x').collect()
    };
    let seen: BTreeSet<Vec<bool>> = fs.crash_images().map(|image| subset(&image.fs)).collect();
    assert_eq!(seen.len(), 16);
}

/// Changes to one file, for the model below.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, count: usize, byte: u8 },
    SetLen(usize),
    Sync { fails: bool },
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (0..9000_usize, 1..3000_usize, any::<u8>())
            .prop_map(|(offset, count, byte)| Change::Write { offset, count, byte }),
        2 => (0..12_000_usize).prop_map(Change::SetLen),
        2 => prop::bool::weighted(0.2).prop_map(|fails| Change::Sync { fails }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// The model keeps every state that the file went through since its last successful sync: each sector of each
    /// image must be that of one of them, each length too.
    #[test]
    fn every_image_is_made_of_states_that_the_file_went_through(
        changes in prop::collection::vec(change(), 1..25),
        seed in any::<u64>(),
    ) {
        let fs = SimFs::new();
        let file = durable_file(&fs, "file", b"");
        let mut states: Vec<Vec<u8>> = vec![Vec::new()];
        let mut failed = false;
        for change in &changes {
            let mut next = states.last().unwrap().clone();
            match *change {
                Change::Write { offset, count, byte } => {
                    file.write_at(&vec![byte; count], offset as u64)?;
                    next.resize(next.len().max(offset + count), 0);
                    next[offset..offset + count].fill(byte);
                }
                Change::SetLen(len) => {
                    file.set_len(len as u64)?;
                    next.resize(len, 0);
                }
                Change::Sync { fails } => {
                    if fails {
                        fs.inject(Fault::on(OperationKind::Sync, ErrorKind::Other));
                        failed = true;
                    }
                    prop_assert_eq!(file.sync_data().is_err(), fails);
                    // After one failure nothing that was pending then is ever known to be durable.
                    if !failed {
                        states.clear();
                    }
                }
            }
            states.push(next);
        }
        let last = states.last().unwrap();
        prop_assert_eq!(&contents(&fs, "file").unwrap(), last);
        prop_assert_eq!(&contents(&fs.process_crash(), "file").unwrap(), last);
        prop_assert_eq!(&contents(&fs.power_cut(&mut AllKept), "file").unwrap(), last);
        if !failed {
            prop_assert_eq!(&contents(&fs.power_cut(&mut AllLost), "file").unwrap(), &states[0]);
        }
        // Noise is outside the model.
        let mut seeded = Seeded::new(seed);
        let mut without_noise = move |piece: &Piece<'_>| {
            match lsm_core::vfs::Choice::choose(&mut seeded, piece) {
                Fate::Garbled => Fate::Lost,
                fate => fate,
            }
        };
        let durable_len = states.iter().map(Vec::len).max().unwrap();
        for _ in 0..4 {
            let image = contents(&fs.power_cut(&mut without_noise), "file").unwrap();
            prop_assert!(states.iter().any(|state| state.len() == image.len()), "length {}", image.len());
            let padded = |bytes: &[u8]| { let mut bytes = bytes.to_vec(); bytes.resize(durable_len.max(bytes.len()), 0); bytes };
            for start in (0..image.len()).step_by(512) {
                let end = (start + 512).min(image.len());
                prop_assert!(
                    states.iter().any(|state| padded(state)[start..end] == image[start..end]),
                    "sector at {}", start
                );
            }
        }
    }
}

#[test]
fn a_linked_name_lasts_once_its_directory_is_synced() {
    let fs = SimFs::new();
    durable_file(&fs, "one", b"bytes");
    fs.hard_link(Path::new("one"), Path::new("two")).unwrap();
    assert_eq!(contents(&fs.power_cut(&mut AllLost), "two"), None);
    fs.sync_dir(root()).unwrap();
    fs.remove_file(Path::new("one")).unwrap();
    fs.sync_dir(root()).unwrap();
    let after = fs.power_cut(&mut AllLost);
    assert_eq!((contents(&after, "one"), contents(&after, "two").unwrap()), (None, b"bytes".into()));
}

#[test]
fn a_renamed_directory_has_one_name() {
    let fs = SimFs::new();
    fs.create_dir(Path::new("old")).unwrap();
    fs.create_new(Path::new("old/file")).unwrap();
    fs.sync_dir(Path::new("old")).unwrap();
    fs.sync_dir(root()).unwrap();
    fs.rename(Path::new("old"), Path::new("new")).unwrap();
    for (fate, name) in [(Fate::Lost, "old/file"), (Fate::Kept, "new/file"), (Fate::BothNames, "new/file")] {
        let after = fs.power_cut(&mut |_: &Piece<'_>| fate);
        assert_eq!(after.paths(), [Path::new(name)], "{fate:?}");
    }
}

#[test]
fn a_removed_directory_is_back_until_its_parent_is_synced() {
    let fs = SimFs::new();
    let inner = Path::new("inner");
    fs.create_dir(inner).unwrap();
    fs.sync_dir(root()).unwrap();
    fs.remove_dir(inner).unwrap();
    assert!(fs.power_cut(&mut AllLost).metadata(inner).is_ok());
    fs.sync_dir(root()).unwrap();
    assert!(fs.power_cut(&mut AllLost).metadata(inner).is_err());
}
