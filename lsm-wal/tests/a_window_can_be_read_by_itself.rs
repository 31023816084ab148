//! A window shows its newest generation, and what is left behind it of the one before.

mod simulation;

use std::path::Path;

use lsm_core::env::SimEnv;
use lsm_core::vfs::SimFs;
use lsm_wal::{Log, WindowReader};
use simulation::{open, options, payload};

const PATH: &str = "/log/000001.window";

/// Tag, position, and whether it is of the newest generation.
fn records(fs: &SimFs) -> Vec<(u64, u64, bool)> {
    let mut window = WindowReader::open(fs, Path::new(PATH)).unwrap().unwrap();
    assert_eq!((window.number(), window.area_bytes()), (1, 1024));
    let mut found = Vec::new();
    while let Some((record, is_newest)) = window.next().unwrap() {
        assert_eq!(record.payload, payload(record.tag, 80));
        found.push((record.tag, record.start.0, is_newest));
    }
    found
}

#[test]
fn the_newest_generation_comes_first_and_damage_leaves_a_gap() {
    let (fs, env) = (SimFs::new(), SimEnv::new(1));
    let (mut log, _) = open(&fs, &env, &options(1024)).unwrap();
    // Records of 120 bytes: the window has room for 1, 2, 4 and then 8 of them. The last four begin the next generation.
    for tag in 0..19 {
        log.append(tag, &payload(tag, 80)).unwrap();
    }
    let fs = fs.process_crash();
    drop(log);
    env.drop_jobs();
    let slots = WindowReader::open(&fs, Path::new(PATH)).unwrap().unwrap().slots();
    assert_eq!(slots, [(512, Some(840)), (1024, Some(1800))]);
    let newest = (15..19).map(|tag| (tag, tag * 120, true));
    let older = (11..15).map(|tag| (tag, tag * 120, false));
    let all: Vec<_> = newest.chain(older).collect();
    assert_eq!(records(&fs), all);

    fs.corrupt(Path::new(PATH), 4096 + 120 + 50, 1).unwrap();
    let without_one: Vec<_> = all.into_iter().filter(|(tag, ..)| *tag != 16).collect();
    assert_eq!(records(&fs), without_one);

    fs.write_all(Path::new(PATH), &[0; 5120]).unwrap();
    assert!(WindowReader::open(&fs, Path::new(PATH)).unwrap().is_none(), "a power cut took the header");
}
