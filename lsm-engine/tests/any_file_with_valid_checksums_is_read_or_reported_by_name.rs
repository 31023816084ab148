//! Changes files of each kind at random and makes their checksums right again. The database must then open and read, or
//! name the bad file. It must not panic or allocate the memory that a file claims to need.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::checksum::{crc32, crc64};
use lsm_dev::Random;
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{SimFs, Vfs};
use lsm_engine::{Db, Error, ErrorKind, KeyspaceOptions, Options, Result, WriteBatch};
use lsm_wal::{RecordFile, SEGMENT_SUFFIX, WINDOW_SUFFIX};

mod manifest;

const DIRECTORY: &str = "/db";
const MEMORY: usize = 8 << 20;
/// Header sizes in bytes: of a segment, a window or a manifest, and of a record.
const HEADER: usize = 128;
const RECORD_HEADER: usize = 32;
/// Offset of the first record of a window.
const AREA: usize = 4096;

/// Changes some bytes: to random ones, or to a large number in one of the encodings of numbers.
fn change(random: &mut Random, bytes: &mut [u8]) {
    let at = random.below(bytes.len());
    let number = [0, 1, 1 << 31, (1 << 32) - 1, 1 << 56, 1 << 60, u64::MAX, random.next()][random.below(8)];
    let new = match random.below(4) {
        0 => vec![random.next() as u8],
        1 => number.to_le_bytes().to_vec(),
        2 => vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        _ => vec![0xff, 0xff, 0xff, 0xff, 0x0f],
    };
    bytes[at..].iter_mut().zip(new).for_each(|(old, new)| *old = new);
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn set_u32(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

fn set_u64(bytes: &mut [u8], at: usize, number: u64) {
    bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

fn open(fs: &SimFs, env: &Arc<SimEnv>) -> Result<Db> {
    let env = Arc::clone(env) as Arc<dyn Env>;
    Options::new().memory(MEMORY).vfs(Arc::new(fs.clone())).env(env).open(DIRECTORY)
}

/// A database with tables in two keyspaces and records in its log, cleanly closed or not.
fn make(closed: bool) -> SimFs {
    let (fs, env) = (SimFs::new(), Arc::new(SimEnv::new(1)));
    let db = open(&fs, &env).unwrap();
    let other = db.keyspace("other", KeyspaceOptions::new()).unwrap();
    for round in 0..3 {
        for number in 0..100 {
            let mut batch = WriteBatch::new();
            batch.put(format!("key{number:03}"), vec![b'v'; 100]);
            batch.put_in(&other, format!("key{number:03}"), "value").delete(format!("key{round}"));
            db.write(batch).unwrap();
        }
        db.delete_range("key010".."key020").unwrap();
        if round < 2 {
            db.flush().unwrap();
        }
    }
    db.sync().unwrap();
    db.put("in the window", "value").unwrap();
    let crashed = fs.process_crash();
    drop(other);
    db.close().unwrap();
    env.drop_jobs();
    let fs = if closed { fs } else { crashed };
    manifest::verify_log(&fs, Path::new(DIRECTORY), &|| "before anything is changed".into());
    fs
}

fn files(fs: &SimFs, ends: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut names = fs.read_dir(Path::new(DIRECTORY)).unwrap();
    names.retain(|name| ends(name));
    names.sort();
    names.into_iter().map(|name| Path::new(DIRECTORY).join(name)).collect()
}

fn write(fs: &SimFs, path: &Path, bytes: &[u8]) {
    fs.remove_file(path).unwrap();
    let file = fs.create_new(path).unwrap();
    file.write_at(bytes, 0).unwrap();
}

/// The consecutive records from an offset on: the start of each, and the position of its checksum.
fn records(bytes: &[u8], from: usize) -> Vec<(usize, usize)> {
    let (mut found, mut at) = (Vec::new(), from);
    while at + RECORD_HEADER + 8 <= bytes.len() && bytes[at..at + RECORD_HEADER].iter().any(|byte| *byte != 0)
    {
        let checksum = at + RECORD_HEADER + (u32_at(bytes, at + 4) as usize).next_multiple_of(8);
        if checksum + 8 > bytes.len() {
            break;
        }
        found.push((at, checksum));
        at = checksum + 8;
    }
    found
}

/// Makes the checksums of records right. They continue the chained checksum `chain`.
fn chain(bytes: &mut [u8], records: &[(usize, usize)], record_seed: u32, mut chain: u64) {
    for &(at, checksum) in records {
        let crc = crc32(record_seed, &bytes[at + 4..at + RECORD_HEADER]);
        set_u32(bytes, at, crc);
        chain = crc64(chain, &bytes[at..checksum]);
        set_u64(bytes, checksum, chain);
    }
}

/// Changes the header of a segment or manifest, or one of its records.
fn change_records(fs: &SimFs, path: &Path, random: &mut Random) {
    let mut bytes = fs.read_all(path).unwrap();
    let records = records(&bytes, HEADER);
    if random.below(4) == 0 || records.is_empty() {
        change(random, &mut bytes[8..HEADER - 8]);
        let crc = crc64(0, &bytes[..HEADER - 8]);
        set_u64(&mut bytes, HEADER - 8, crc);
    } else {
        let (at, checksum) = records[random.below(records.len())];
        let from = if random.below(3) == 0 { at + 4 } else { at + RECORD_HEADER };
        change(random, &mut bytes[from..checksum]);
    }
    let (record_seed, seed) = (u32_at(&bytes, 12), u64_at(&bytes, 56));
    chain(&mut bytes, &records, record_seed, seed);
    write(fs, path, &bytes);
}

/// Changes the header of a window, one of its slots, or one of its records.
fn change_window(fs: &SimFs, path: &Path, random: &mut Random) {
    let mut bytes = fs.read_all(path).unwrap();
    let records = records(&bytes, AREA);
    match random.below(3) {
        0 => change(random, &mut bytes[8..HEADER - 8]),
        1 => change(random, &mut bytes[512..520]),
        _ if !records.is_empty() => {
            let first = records[0].0;
            // The first record continues the checksum of a segment.
            let before = files(fs, |name| name.ends_with(SEGMENT_SUFFIX)).iter().find_map(|segment| {
                let bytes_before = fs.read_all(segment).unwrap();
                let ends = self::records(&bytes_before, HEADER).into_iter().map(|(_, checksum)| checksum);
                ends.chain([56]).map(|at| u64_at(&bytes_before, at)).find(|&before| {
                    crc64(before, &bytes[first..records[0].1]) == u64_at(&bytes, records[0].1)
                })
            });
            let (at, checksum) = records[random.below(records.len())];
            change(random, &mut bytes[at + 4..checksum]);
            let record_seed = u32_at(&bytes, 12);
            chain(&mut bytes, &records, record_seed, before.unwrap());
        }
        _ => {}
    }
    let crc = crc64(0, &bytes[..HEADER - 8]);
    set_u64(&mut bytes, HEADER - 8, crc);
    let number = crc64(0, &bytes[16..24]);
    let check = crc64(number, &bytes[512..520]);
    set_u64(&mut bytes, 520, check);
    write(fs, path, &bytes);
}

fn change_current(fs: &SimFs, random: &mut Random) {
    let path = Path::new(DIRECTORY).join("CURRENT");
    let mut bytes = fs.read_all(&path).unwrap();
    let end = bytes.len() - 4;
    change(random, &mut bytes[8..end]);
    let crc = crc32(0, &bytes[..end]);
    set_u32(&mut bytes, end, crc);
    write(fs, &path, &bytes);
}

/// Changes a block, a section or the footer of a table, and puts the new checksum into the manifest.
fn change_table(fs: &SimFs, path: &Path, random: &mut Random) {
    let mut bytes = fs.read_all(path).unwrap();
    let footer = bytes.len() - 128;
    let lengths = [0, 8, 16, 24, 32].map(|at| u64_at(&bytes, footer + at) as usize);
    let seed = crc32(0, &bytes[16..32]);
    // Each of these tables has one block, followed by sections.
    let (mut parts, mut at) = (vec![(80, lengths[0])], lengths[0]);
    for length in &lengths[1..] {
        parts.push((at, at + length));
        at += length;
    }
    parts.retain(|(start, end)| start < end);
    let part = random.below(parts.len() + 1);
    if let Some(&(start, end)) = parts.get(part) {
        change(random, &mut bytes[start + 4..end]);
        let crc = crc32(crc32(seed, &(start as u64).to_le_bytes()), &bytes[start + 4..end]);
        set_u32(&mut bytes, start, crc);
    } else {
        change(random, &mut bytes[footer..footer + 48]);
    }
    let checksum = crc64(0, &bytes[..footer]);
    set_u64(&mut bytes, footer + 48, checksum);
    let crc = crc32(crc32(seed, &(footer as u64).to_le_bytes()), &bytes[footer..footer + 116]);
    set_u32(&mut bytes, footer + 116, crc);
    write(fs, path, &bytes);
    name_checksum(fs, path, checksum);
}

fn name_checksum(fs: &SimFs, table: &Path, checksum: u64) {
    let number: u64 = table.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let (current, mut edits) = manifest::edits(fs, Path::new(DIRECTORY)).unwrap();
    let path = Path::new(DIRECTORY).join(format!("MANIFEST-{:06}", current.manifest));
    fs.remove_file(&path).unwrap();
    let mut file = RecordFile::create(fs, &path, current.manifest, 77).unwrap();
    for edit in &mut edits {
        edit.added.iter_mut().filter(|added| added.number == number).for_each(|added| {
            added.meta.checksum = checksum;
        });
        file.append(0, &edit.encode()).unwrap();
    }
    file.sync().unwrap();
}

/// Reads everything. Returns the first error.
fn read_all(db: &Db) -> Result<()> {
    let keyspaces =
        [db.keyspace("default", KeyspaceOptions::new()), db.keyspace("other", KeyspaceOptions::new())];
    for keyspace in keyspaces {
        let keyspace = keyspace?;
        for number in 0..100 {
            keyspace.get(format!("key{number:03}"))?;
        }
        keyspace.iter().try_for_each(|entry| entry.map(drop))?;
        keyspace.iter().rev().try_for_each(|entry| entry.map(drop))?;
    }
    Ok(())
}

/// Errors that a valid manifest may cause: another policy, more tables than fit memory, or numbers that are used up.
fn is_about_content(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::OptionsMismatch | ErrorKind::InvalidArgument)
}

/// Prints the seed if the engine panics.
struct Case(String);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

/// Whether the file was refused.
fn open_and_read(fs: &SimFs, what: &str) -> bool {
    let env = Arc::new(SimEnv::new(2));
    let mut refused = false;
    let mut told = |result: Result<()>| {
        let Err(error) = result else { return };
        refused = true;
        let names_a_file = error.to_string().contains(DIRECTORY);
        assert!(names_a_file || is_about_content(&error), "{what}: {error}");
    };
    match open(fs, &env) {
        Ok(db) => {
            told(read_all(&db));
            assert!(db.metrics().memory_bytes() <= MEMORY as u64, "{what}");
            told(db.close());
        }
        Err(error) => told(Err(error)),
    }
    env.drop_jobs();
    refused
}

#[test]
fn any_content_under_valid_checksums_is_read_or_refused() {
    let (first, seeds) = (std::env::var("LSM_SEED"), std::env::var("LSM_SEEDS"));
    let first: u64 = first.map_or(0, |seed| seed.parse().unwrap());
    let seeds: u64 = seeds.map_or(2000, |seeds| seeds.parse().unwrap());
    let made = [make(false), make(true)];
    let mut refused = [0; 5];
    for seed in first..first + seeds {
        let mut random = Random(seed);
        let fs = made[random.below(2)].process_crash();
        let kind = random.below(5);
        let (named, is_manifest) =
            ([".sst", SEGMENT_SUFFIX, WINDOW_SUFFIX], |name: &str| name.starts_with("MANIFEST"));
        let paths = match kind {
            0..=2 => files(&fs, |name| name.ends_with(named[kind])),
            _ => files(&fs, is_manifest),
        };
        let Some(path) = paths.get(random.below(paths.len())) else { continue };
        match kind {
            0 => change_table(&fs, path, &mut random),
            1 | 3 => change_records(&fs, path, &mut random),
            2 => change_window(&fs, path, &mut random),
            _ => change_current(&fs, &mut random),
        }
        let kinds = ["a table", "a segment", "a window", "a manifest", "CURRENT"];
        let case = Case(format!("LSM_SEED={seed}, {}", kinds[kind]));
        refused[kind] += usize::from(open_and_read(&fs, &case.0));
    }
    // Recovery may drop most records of a window, so few changes there are refused.
    assert!(seeds < 1000 || refused.iter().all(|&count| count > 5), "{refused:?}");
}
