//! A keyspace that is opened by name alone has the options that it was given before.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lsm_engine::compaction_policies::{
    Compaction, CompactionPolicy, Fifo, FifoOptions, Leveled, LeveledOptions, SizeTiered, TreeShape,
};
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::inspect::{Kind, StoredOptions, VersionEdit, kind_of};
use lsm_engine::vfs::{PosixFs, SimFs, Vfs};
use lsm_engine::{
    BuiltInMerge, Compression, Db, DelimitedPrefix, ErrorKind, FixedPrefix, Keyspace, KeyspaceOptions,
    Options, Result,
};
use lsm_sstable::{Properties, Table, TableOpen};
use lsm_wal::{RecordFileReader, RecoveryMode};

fn options() -> Options {
    Options::new().memory(8 << 20)
}

/// The stored options of a keyspace, from the manifest.
fn stored(directory: &Path, keyspace: u32) -> StoredOptions {
    let current = lsm_engine::inspect::current(&PosixFs, directory).unwrap();
    let path = directory.join(format!("MANIFEST-{:06}", current.manifest));
    let mut reader = RecordFileReader::open(&PosixFs, &path, 0, RecoveryMode::Strict).unwrap();
    let mut found = StoredOptions::default();
    while let Some(record) = reader.next().unwrap() {
        let edit = VersionEdit::decode(record.payload).unwrap();
        if let Some(record) = edit.keyspaces.into_iter().rfind(|record| record.id == keyspace) {
            found = (*record.options).clone();
        }
    }
    found
}

/// The properties of all tables in a directory.
fn properties(directory: &Path) -> Vec<Properties> {
    let names = PosixFs.read_dir(directory).unwrap().into_iter();
    let tables = names.filter(|name| kind_of(name) == Some(Kind::Table)).map(|name| directory.join(name));
    let open = |path: &Path| Table::open(&PosixFs, path, None, &TableOpen::default()).unwrap();
    tables.map(|path| open(&path).properties().clone()).collect()
}

/// Writes some entries and flushes them.
fn fill(keyspace: &Keyspace, db: &Db) {
    for number in 0..200 {
        keyspace.put(format!("user/{number:05}"), "v".repeat(100)).unwrap();
    }
    db.flush().unwrap();
}

#[test]
fn a_keyspace_opened_by_name_alone_writes_tables_as_before() {
    let root = tempfile::tempdir().unwrap();
    let given = KeyspaceOptions::new()
        .compression(Compression::None)
        .compression_above(Compression::Lz4)
        .block_bytes(512)
        .filter_bits_per_key(20.0)
        .prefix_extractor(Arc::new(DelimitedPrefix { delimiter: b'/' }))
        .compaction(Arc::new(SizeTiered::default()));
    let db = options().open(root.path()).unwrap();
    fill(&db.keyspace("users", given).unwrap(), &db);
    let before = properties(root.path()).pop().unwrap();
    assert_eq!((&*before.compression, &*before.prefix_extractor), ("lz4", "delimited:47"));
    db.close().unwrap();

    let by_name: fn(&Db) -> Keyspace = |db| db.keyspace("users", KeyspaceOptions::new()).unwrap();
    let existing: fn(&Db) -> Keyspace = |db| db.existing_keyspace("users").unwrap().unwrap();
    for reopen in [by_name, existing] {
        let db = options().open(root.path()).unwrap();
        let users = reopen(&db);
        users.clear().unwrap();
        fill(&users, &db);
        assert_eq!(
            db.metrics().keyspaces.iter().find(|it| it.name == "users").unwrap().policy,
            "size-tiered"
        );
        db.close().unwrap();
        let after = properties(root.path()).pop().unwrap();
        assert_eq!(
            (&after.compression, &after.prefix_extractor, &after.filter, after.data_blocks),
            (&before.compression, &before.prefix_extractor, &before.filter, before.data_blocks)
        );
    }
    // The last level is not compressed.
    let db = options().open(root.path()).unwrap();
    let users = by_name(&db);
    fill(&users, &db);
    users.compact_range::<&str>(..).unwrap();
    drop(users);
    db.close().unwrap();
    assert_eq!(properties(root.path()).pop().unwrap().compression, "none");
}

#[test]
fn the_default_keyspace_is_reopened_as_stored_too() {
    let root = tempfile::tempdir().unwrap();
    let db = options().keyspace(KeyspaceOptions::new().block_bytes(300)).open(root.path()).unwrap();
    fill(&db.default_keyspace(), &db);
    db.close().unwrap();
    let blocks = properties(root.path())[0].data_blocks;
    let db = options().open(root.path()).unwrap();
    db.default_keyspace().clear().unwrap();
    fill(&db.default_keyspace(), &db);
    db.close().unwrap();
    assert_eq!(properties(root.path())[0].data_blocks, blocks);
}

/// With its default settings the policy would keep everything.
#[test]
fn a_policy_made_from_its_name_has_its_settings() {
    let root = tempfile::tempdir().unwrap();
    let fifo = Fifo::new(FifoOptions { bytes_max: 4000, ..FifoOptions::default() });
    let db = options().open(root.path()).unwrap();
    let log = db.keyspace("log", KeyspaceOptions::new().compaction(Arc::new(fifo))).unwrap();
    fill(&log, &db);
    db.close().unwrap();
    assert_eq!(stored(root.path(), 1).text("policy"), Some("fifo"));
    let db = options().open(root.path()).unwrap();
    let log = db.existing_keyspace("log").unwrap().unwrap();
    fill(&log, &db);
    fill(&log, &db);
    db.wait_for_compactions().unwrap();
    let metrics = db.metrics();
    let levels = &metrics.keyspaces.iter().find(|it| it.name == "log").unwrap().levels;
    assert_eq!(levels.iter().map(|level| level.runs).sum::<u64>(), 1, "the older runs were dropped");
}

#[test]
fn options_that_do_not_matter_for_reading_may_be_changed_and_are_stored() {
    let root = tempfile::tempdir().unwrap();
    let open = |given| {
        let db = options().open(root.path()).unwrap();
        drop(db.keyspace("users", given).unwrap());
        db.close().unwrap();
        stored(root.path(), 1)
    };
    let first = open(KeyspaceOptions::new());
    assert_eq!(first.iter().collect::<Vec<_>>(), [("policy", &b"leveled"[..])]);
    let fanout = |fanout| Leveled::new(LeveledOptions { fanout, ..LeveledOptions::default() });
    for (bits, block, factor) in [(7.5, 1000, 3), (0.0, 2000, 4)] {
        let given = KeyspaceOptions::new()
            .filter_bits_per_key(bits)
            .block_bytes(block)
            .compression(Compression::None)
            .compaction(Arc::new(fanout(factor)));
        let now = open(given);
        let filter = if bits > 0.0 { "bloom:7.5" } else { "none" };
        assert_eq!(now.text("filter"), Some(filter));
        assert_eq!(now.text("block_bytes"), Some(&*block.to_string()));
        assert_eq!(now.text("compression"), Some("none"));
        assert!(now.text("policy_settings").unwrap().contains(&format!("fanout={factor}")));
        assert_eq!(open(KeyspaceOptions::new()), now, "nothing was given");
    }
}

fn refused<T>(result: Result<T>, names: [&str; 3]) {
    let error = result.err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::OptionsMismatch, "{error}");
    for name in names {
        assert!(error.to_string().contains(name), "{error} does not name {name}");
    }
}

#[test]
fn another_prefix_extractor_is_refused_by_both_names_unless_it_may_change() {
    let root = tempfile::tempdir().unwrap();
    let fixed = |bytes| KeyspaceOptions::new().prefix_extractor(Arc::new(FixedPrefix { bytes }));
    let db = options().open(root.path()).unwrap();
    drop(db.keyspace("plain", KeyspaceOptions::new()).unwrap());
    drop(db.keyspace("users", fixed(4)).unwrap());
    refused(db.keyspace("users", fixed(5)), ["users", "fixed:4", "fixed:5"]);
    db.close().unwrap();
    let db = options().open(root.path()).unwrap();
    refused(db.keyspace("users", fixed(5)), ["users", "fixed:4", "fixed:5"]);
    drop(db.keyspace("users", fixed(5).change_prefix_extractor(true)).unwrap());
    // It is open now, so it cannot change any more.
    refused(db.keyspace("users", fixed(6).change_prefix_extractor(true)), ["users", "fixed:5", "fixed:6"]);
    // A keyspace without one may get one.
    drop(db.keyspace("plain", fixed(2)).unwrap());
    db.close().unwrap();
    assert_eq!(stored(root.path(), 1).text("prefix_extractor"), Some("fixed:2"));
    assert_eq!(stored(root.path(), 2).text("prefix_extractor"), Some("fixed:5"));
    refused(
        options().keyspace(fixed(1)).open(root.path()).and_then(|db| db.keyspace("users", fixed(1))),
        ["users", "fixed:5", "fixed:1"],
    );
}

/// A policy that is not built in.
#[derive(Debug)]
struct Lazy;

impl CompactionPolicy for Lazy {
    fn name(&self) -> &'static str {
        "lazy"
    }
    fn level_count(&self) -> usize {
        2
    }
    fn pick(&self, _: &TreeShape) -> Option<Compaction> {
        None
    }
    fn debt_bytes(&self, _: &TreeShape) -> u64 {
        0
    }
}

#[test]
fn a_policy_that_is_not_built_in_must_be_given_for_writing() {
    let root = tempfile::tempdir().unwrap();
    let lazy = || KeyspaceOptions::new().compaction(Arc::new(Lazy));
    let db = options().keyspace(lazy()).open(root.path()).unwrap();
    drop(db.keyspace("users", lazy()).unwrap());
    db.put("key", "value").unwrap();
    db.close().unwrap();
    refused(options().open(root.path()), ["default", "lazy", "KeyspaceOptions::compaction"]);
    let db = options().read_only(true).open(root.path()).unwrap();
    assert_eq!(db.get("key").unwrap().unwrap(), "value");
    assert!(db.metrics().keyspaces.iter().all(|keyspace| keyspace.policy == "lazy"));
    drop(db.keyspace("users", KeyspaceOptions::new()).unwrap());
    db.close().unwrap();
    // What the default keyspace is given serves others of that name.
    let db = options().keyspace(lazy()).open(root.path()).unwrap();
    drop(db.keyspace("users", KeyspaceOptions::new()).unwrap());
    db.close().unwrap();
    let leveled = KeyspaceOptions::new().compaction(Arc::new(Leveled::default())).change_compaction(true);
    let db = options().keyspace(leveled).open(root.path()).unwrap();
    refused(db.keyspace("users", KeyspaceOptions::new()), ["users", "lazy", "KeyspaceOptions::compaction"]);
}

#[test]
fn options_that_change_live_hold_for_new_tables_and_are_stored() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path()).unwrap();
    let users = db.keyspace("users", KeyspaceOptions::new().block_bytes(500)).unwrap();
    fill(&users, &db);
    users.clear().unwrap();
    let given = KeyspaceOptions::new()
        .compression(Compression::None)
        .compression_above(Compression::Lz4)
        .filter_bits_per_key(0.0)
        .compaction(Arc::new(SizeTiered::default()));
    refused(users.set_options(given.clone()), ["users", "leveled", "size-tiered"]);
    users.set_options(given.change_compaction(true)).unwrap();
    fill(&users, &db);
    db.wait_for_compactions().unwrap();
    let policy =
        |db: &Db| db.metrics().keyspaces.iter().find(|it| it.name == "users").unwrap().policy.clone();
    assert_eq!(policy(&db), "size-tiered");
    drop(users);
    db.close().unwrap();
    let written = properties(root.path()).pop().unwrap();
    assert_eq!((&*written.compression, &*written.filter), ("lz4", ""));
    let expected = [
        ("block_bytes", "500"),
        ("compression", "none"),
        ("compression_above", "lz4"),
        ("filter", "none"),
        ("policy", "size-tiered"),
    ];
    let now = stored(root.path(), 1);
    for (name, value) in expected {
        assert_eq!(now.text(name), Some(value), "{name}");
    }
    let db = options().open(root.path()).unwrap();
    assert_eq!(policy(&db), "size-tiered");
    assert_eq!(db.existing_keyspace("users").unwrap().unwrap().iter().count(), 200);
}

#[test]
fn a_time_to_live_that_changes_live_holds_for_later_puts() {
    let env = Arc::new(SimEnv::new(1));
    let options = Options::new().vfs(Arc::new(SimFs::new())).env(Arc::clone(&env) as Arc<dyn Env>);
    let db = options.open("/db").unwrap();
    db.put("before", "value").unwrap();
    db.set_options(KeyspaceOptions::new().ttl(Duration::from_secs(5))).unwrap();
    db.put("with", "value").unwrap();
    db.set_options(KeyspaceOptions::new().ttl(None)).unwrap();
    db.put("after", "value").unwrap();
    env.advance(6_000_000);
    let left: Vec<_> = db.iter().map(|entry| entry.unwrap().0).collect();
    assert_eq!(left, ["after", "before"]);
    drop(db);
    env.drop_jobs();
}

#[test]
fn options_that_cannot_change_live_are_refused_by_name_and_nothing_changes() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path()).unwrap();
    let users = db.keyspace("users", KeyspaceOptions::new()).unwrap();
    let before = stored(root.path(), 1);
    let also = || KeyspaceOptions::new().block_bytes(1000);
    for (given, option) in [
        (also().prefix_extractor(Arc::new(FixedPrefix { bytes: 1 })), "prefix_extractor"),
        (also().merge_operator(Arc::new(BuiltInMerge::add_u64())), "merge_operator"),
        (also().memtable(Arc::new(lsm_memtable::BPlusMemtable::default())), "memtable"),
    ] {
        let error = users.set_options(given).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotLive, "{error}");
        assert!(error.to_string().contains("users") && error.to_string().contains(option), "{error}");
    }
    assert_eq!(
        users.set_options(KeyspaceOptions::new().block_bytes(7)).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    assert_eq!(stored(root.path(), 1), before);
    db.drop_keyspace("users").unwrap();
    assert_eq!(users.set_options(also()).unwrap_err().kind(), ErrorKind::Closed);
    drop(users);
    db.close().unwrap();
    let db = options().read_only(true).open(root.path()).unwrap();
    assert_eq!(db.set_options(also()).unwrap_err().kind(), ErrorKind::ReadOnly);
}
