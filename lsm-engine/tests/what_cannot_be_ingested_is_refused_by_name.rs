//! Tables and streams that cannot be taken in are refused by name, and leave everything as it was.

use std::path::Path;
use std::sync::Arc;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::inspect::{Kind, kind_of};
use lsm_engine::vfs::{Fault, OperationKind, SimFs, Vfs};
use lsm_engine::{Db, ErrorKind, Ingest, KeyspaceOptions, Options, Result};

struct Process {
    env: Arc<SimEnv>,
    db: Db,
}

impl Process {
    fn open(fs: &SimFs) -> Self {
        let env = Arc::new(SimEnv::new(fs.operations()));
        let options = Options::new().memory(4 << 20).vfs(Arc::new(fs.clone()));
        let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
        Self { env, db }
    }

    fn kill(self) {
        drop(self.db);
        self.env.drop_jobs();
    }

    fn build(&self, path: &str, keys: &[&str]) {
        let mut table = self.db.default_keyspace().table_builder(path).unwrap();
        for key in keys {
            table.put(key, format!("value of {key}")).unwrap();
        }
        table.finish().unwrap();
    }

    fn keys(&self) -> Vec<String> {
        self.db.iter().keys().map(|key| String::from_utf8(key.unwrap().to_vec()).unwrap()).collect()
    }
}

fn tables(fs: &SimFs) -> Vec<String> {
    let names = fs.read_dir(Path::new("/db")).unwrap();
    names.into_iter().filter(|name| kind_of(name) == Some(Kind::Table)).collect()
}

fn all_files(fs: &SimFs) -> Vec<(String, Vec<u8>)> {
    let tables = fs.paths().into_iter().filter(|path| path.extension().is_some_and(|it| it == "sst"));
    tables
        .map(|path| {
            let path = Path::new("/").join(path);
            (path.display().to_string(), fs.read_all(&path).unwrap())
        })
        .collect()
}

/// Checks that a request is refused, by whole words of the message, and changes nothing.
fn refused(fs: &SimFs, process: &Process, request: Ingest, kind: ErrorKind, words: &[&str]) {
    let (before, keys) = (all_files(fs), process.keys());
    let error = process.db.ingest(request).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} is not in {error}");
    }
    assert!(before == all_files(fs), "{error}");
    assert_eq!(process.keys(), keys, "{error}");
}

#[test]
fn what_is_no_table_to_ingest_is_refused_by_name() {
    let fs = SimFs::new();
    let process = Process::open(&fs);
    process.db.put("old", "1").unwrap();
    process.db.flush().unwrap();
    process.build("/good.sst", &["a", "m"]);
    process.build("/good2.sst", &["x", "y"]);
    process.build("/overlaps.sst", &["l", "n"]);
    process.build("/inside.sst", &["b", "c"]);
    process.build("/touches.sst", &["m", "n"]);
    let good = || Ingest::new().table("/good.sst");
    let refused = |request, kind, words: &[&str]| refused(&fs, &process, request, kind, words);

    refused(Ingest::new(), ErrorKind::InvalidArgument, &["at least one table"]);
    refused(
        good().replace("b".."a"),
        ErrorKind::InvalidArgument,
        &["from \"b\" to \"a\" ends before it starts"],
    );
    refused(good().table("/none.sst"), ErrorKind::NotFound, &["/none.sst"]);
    refused(good().table("/db"), ErrorKind::RefusedTable, &["/db is a directory"]);
    refused(good().table("/db/CURRENT"), ErrorKind::Corruption, &["/db/CURRENT"]);
    let own = format!("/db/{}", tables(&fs)[0]);
    refused(good().table(&own), ErrorKind::RefusedTable, &[&own, "sequence number 1"]);
    refused(good().table("/good.sst"), ErrorKind::RefusedTable, &["/good.sst is given twice"]);
    for (other, at) in [("/overlaps.sst", "\"l\""), ("/inside.sst", "\"b\""), ("/touches.sst", "\"m\"")] {
        let words = ["/good.sst overlaps", other, "ends at \"m\"", at];
        refused(Ingest::new().table(other).table("/good.sst"), ErrorKind::RefusedTable, &words);
        refused(good().link().table(other), ErrorKind::RefusedTable, &words);
    }
    let mut operands = process.db.default_keyspace().table_builder("/operands.sst").unwrap();
    operands.merge("k", "1").unwrap();
    operands.finish().unwrap();
    refused(good().table("/operands.sst"), ErrorKind::OperatorMissing, &["merge operator"]);

    process.db.ingest(good()).unwrap();
    refused(good(), ErrorKind::RefusedTable, &["/good.sst is in keyspace \"default\" already"]);
    let twice = Ingest::new().table("/good2.sst").table("/good.sst");
    refused(twice, ErrorKind::RefusedTable, &["/good.sst is in keyspace \"default\" already"]);
    process.db.flush().unwrap();
    refused(good(), ErrorKind::RefusedTable, &["/good.sst is in keyspace \"default\" already"]);

    let dropped = process.db.keyspace("dropped", KeyspaceOptions::new()).unwrap();
    let mut load = dropped.bulk_load().unwrap();
    load.put("a", "1").unwrap();
    process.db.drop_keyspace("dropped").unwrap();
    let error = dropped.ingest(Ingest::new().table("/good2.sst")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    assert_eq!(load.finish().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(dropped.bulk_load().unwrap_err().kind(), ErrorKind::Closed);
    process.kill();
}

#[test]
fn a_table_that_ends_with_a_range_delete_may_touch_the_next_one() {
    let fs = SimFs::new();
    let process = Process::open(&fs);
    for key in ["b", "m", "n"] {
        process.db.put(key, "old").unwrap();
    }
    let mut table = process.db.default_keyspace().table_builder("/first.sst").unwrap();
    table.put("a", "new").unwrap();
    table.delete_range("b".."m").unwrap();
    table.finish().unwrap();
    process.build("/second.sst", &["m"]);
    process.build("/empty.sst", &[]);
    process.db.ingest(Ingest::new().tables(["/second.sst", "/empty.sst", "/first.sst"])).unwrap();
    assert_eq!(process.keys(), ["a", "m", "n"]);
    assert_eq!(process.db.get("m").unwrap().unwrap(), "value of m");
    // An empty table can still replace.
    process.db.ingest(Ingest::new().table("/empty.sst").replace("a".."n")).unwrap();
    assert_eq!(process.keys(), ["n"]);
    let sequence = process.db.ingest(Ingest::new().table("/empty.sst")).unwrap();
    assert_eq!(sequence, process.db.snapshot().unwrap().sequence());
    process.kill();
}

#[test]
fn every_flipped_byte_and_every_cut_of_a_table_is_refused() {
    let fs = SimFs::new();
    let process = Process::open(&fs);
    process.db.put("old", "1").unwrap();
    let mut table = process.db.default_keyspace().table_builder("/good.sst").unwrap();
    for number in 0..40 {
        table.put(format!("key {number:02}"), "value").unwrap();
    }
    table.delete_range("b".."c").unwrap();
    table.finish().unwrap();
    let good = fs.read_all(Path::new("/good.sst")).unwrap();
    let refuse = |bytes: &[u8], what: &str| {
        fs.write_all(Path::new("/bad.sst"), bytes).unwrap();
        let error = process.db.ingest(Ingest::new().table("/bad.sst")).unwrap_err();
        let known = [ErrorKind::Corruption, ErrorKind::Unsupported];
        assert!(known.contains(&error.kind()) && error.to_string().contains("/bad.sst"), "{what}: {error}");
        assert_eq!(process.keys(), ["old"], "{what}");
        assert_eq!(tables(&fs), [""; 0], "{what}");
    };
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        refuse(&bytes, &format!("flipped at {at}"));
        refuse(&good[..at], &format!("cut at {at}"));
    }
    refuse(&[&good[..], b"\0"].concat(), "longer");
    process.db.ingest(Ingest::new().table("/good.sst")).unwrap();
    assert_eq!(process.keys().len(), 41);
    process.kill();
}

/// Puts a key, in one of the two ways.
type Put<'p> = &'p mut dyn FnMut(&str) -> Result<()>;

#[test]
fn keys_that_do_not_ascend_are_refused_with_both_keys_and_the_load_goes_on() {
    let fs = SimFs::new();
    let process = Process::open(&fs);
    let mut load = process.db.bulk_load().unwrap();
    let mut table = process.db.default_keyspace().table_builder("/one.sst").unwrap();
    load.put("b\u{ff}", "1").unwrap();
    table.put("b\u{ff}", "1").unwrap();
    let puts: [Put<'_>; 2] = [&mut |key| load.put(key, "2"), &mut |key| table.put(key, "2")];
    for put in puts {
        let error = put("a").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotAscending);
        let both =
            "key \"a\" does not come after \"b\\xc3\\xbf\", the key before it; keys must ascend, bytewise";
        assert_eq!(error.to_string(), both);
        let error = put("b\u{ff}").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotAscending);
        assert!(error.to_string().contains("key \"b\\xc3\\xbf\" is added twice"), "{error}");
        assert!(put(&"k".repeat(70_000)).unwrap_err().to_string().contains("over the limit of 65535"));
        put("c").unwrap();
    }
    load.finish().unwrap();
    assert_eq!(process.keys(), ["b\u{ff}", "c"]);
    table.finish().unwrap();
    process.db.ingest(Ingest::new().table("/one.sst")).unwrap();
    assert_eq!(process.db.get("c").unwrap().unwrap(), "2");
    process.kill();
}

#[test]
fn a_bulk_load_is_not_visible_before_its_end_and_leaves_nothing_if_it_is_dropped() {
    let fs = SimFs::new();
    let process = Process::open(&fs);
    process.db.put("key 00005", "old").unwrap();
    let load = |count: u32| {
        let mut load = process.db.bulk_load().unwrap();
        for number in 0..count {
            load.put(format!("key {number:05}"), [number as u8; 300]).unwrap();
        }
        assert_eq!(process.keys(), ["key 00005"]);
        load
    };
    drop(load(20_000));
    process.env.run_until_idle();
    assert_eq!(tables(&fs), [""; 0]);
    assert_eq!(process.keys(), ["key 00005"]);
    let before = process.db.snapshot().unwrap();
    load(20_000).finish().unwrap();
    assert_eq!(process.db.count::<&str>(..).unwrap(), 20_000);
    assert_eq!(process.db.get("key 00005").unwrap().unwrap(), [5; 300]);
    assert_eq!(before.count::<&str>(..).unwrap(), 1);
    // Nothing at all is fine, too.
    process.db.bulk_load().unwrap().finish().unwrap();
    drop(before);
    process.kill();
    let process = Process::open(&fs);
    assert_eq!(process.db.count::<&str>(..).unwrap(), 20_000);
    process.kill();
}

#[test]
fn a_failed_write_ends_a_bulk_load_and_leaves_nothing() {
    let fs = SimFs::new();
    let process = Process::open(&fs);
    let mut load = process.db.bulk_load().unwrap();
    fs.inject(Fault::on(OperationKind::Write, std::io::ErrorKind::StorageFull).named("sst"));
    let failed =
        (0_u32..100_000).find_map(|number| load.put(number.to_be_bytes(), [number as u8; 100]).err());
    assert_eq!(failed.unwrap().kind(), ErrorKind::NoSpace);
    assert_eq!(load.put("z", "").unwrap_err().kind(), ErrorKind::NoSpace);
    assert_eq!(load.finish().unwrap_err().kind(), ErrorKind::NoSpace);
    process.env.run_until_idle();
    assert_eq!(tables(&fs), [""; 0]);
    assert!(process.db.is_empty().unwrap());
    process.db.put("a", "").unwrap();
    process.kill();
}

#[test]
fn a_builder_that_is_dropped_or_fails_removes_its_file() {
    let fs = SimFs::new();
    let process = Process::open(&fs);
    let keyspace = process.db.default_keyspace();
    drop(keyspace.table_builder("/one.sst").unwrap());
    assert!(fs.metadata(Path::new("/one.sst")).is_err());
    process.build("/one.sst", &["a"]);
    // An existing file is never overwritten.
    assert!(keyspace.table_builder("/one.sst").is_err());
    process.db.ingest(Ingest::new().table("/one.sst")).unwrap();
    fs.inject(Fault::on(OperationKind::Sync, std::io::ErrorKind::Other).named("two.sst"));
    let mut table = keyspace.table_builder("/two.sst").unwrap();
    table.put("b", "").unwrap();
    table.finish().unwrap_err();
    assert!(fs.metadata(Path::new("/two.sst")).is_err());
    drop(keyspace);
    process.kill();
}

#[test]
fn files_are_copied_linked_or_moved_as_asked() {
    let fs = SimFs::new();
    let process = Process::open(&fs);
    for name in ["copied", "linked", "moved"] {
        process.build(&format!("/{name}.sst"), &[name]);
    }
    process.db.ingest(Ingest::new().table("/copied.sst")).unwrap();
    // Nothing that happens to the given file concerns the database any more.
    fs.write_all(Path::new("/copied.sst"), b"overwritten").unwrap();
    process.db.ingest(Ingest::new().table("/linked.sst").link()).unwrap();
    process.db.ingest(Ingest::new().table("/moved.sst").move_files()).unwrap();
    assert!(fs.metadata(Path::new("/linked.sst")).is_ok() && fs.metadata(Path::new("/moved.sst")).is_err());
    // On another file system they are copied.
    process.build("/far.sst", &["far"]);
    fs.inject(Fault::on(OperationKind::Link, std::io::ErrorKind::CrossesDevices));
    process.db.ingest(Ingest::new().table("/far.sst").link()).unwrap();
    process.kill();
    let process = Process::open(&fs);
    assert_eq!(process.keys(), ["copied", "far", "linked", "moved"]);
    process.kill();
}
