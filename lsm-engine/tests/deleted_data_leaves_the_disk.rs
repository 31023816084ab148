//! Deleted data leaves the disk without a manual compaction. Data that a snapshot sees stays until it is dropped.

use std::sync::Arc;

use lsm_engine::compaction_policies::{
    CompactionPolicy, LazyLeveled, LazyLeveledOptions, Leveled, LeveledOptions, SizeTiered, SizeTieredOptions,
};
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{Fault, OperationKind, SimFs};
use lsm_engine::{Db, Options};

use lsm_dev::Impatient;

const TABLE_BYTES: u64 = 128 << 10;
const KEYS: u32 = 100_000;
const VALUE_BYTES: usize = 40;

fn leveled_options() -> LeveledOptions {
    LeveledOptions {
        base_bytes: 8 * TABLE_BYTES,
        target_table_bytes: TABLE_BYTES,
        ..LeveledOptions::default()
    }
}

fn leveled() -> Arc<dyn CompactionPolicy> {
    Arc::new(Leveled::new(leveled_options()))
}

fn policies() -> [Arc<dyn CompactionPolicy>; 3] {
    let lazy = LazyLeveled::new(LazyLeveledOptions {
        base_bytes: 8 * TABLE_BYTES,
        target_table_bytes: TABLE_BYTES,
        ..LazyLeveledOptions::default()
    });
    let tiered = SizeTiered::new(SizeTieredOptions {
        target_table_bytes: TABLE_BYTES,
        ..SizeTieredOptions::default()
    });
    [leveled(), Arc::new(lazy), Arc::new(tiered)]
}

struct Machine {
    fs: SimFs,
    env: Arc<SimEnv>,
}

impl Machine {
    fn new() -> Self {
        Self { fs: SimFs::new(), env: Arc::new(SimEnv::new(1)) }
    }

    fn options(&self, policy: Arc<dyn CompactionPolicy>) -> Options {
        Options::new()
            .memory(1 << 20)
            .vfs(Arc::new(self.fs.clone()))
            .env(Arc::clone(&self.env) as Arc<dyn Env>)
            .compaction(policy)
    }

    fn open(&self, policy: Arc<dyn CompactionPolicy>) -> Db {
        self.options(policy).open("/db").unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.env.drop_jobs();
    }
}

fn key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

/// A value that hardly compresses.
fn value(number: u32, round: u32) -> Vec<u8> {
    let mut state = u64::from(number) << 32 | u64::from(round) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..VALUE_BYTES.div_ceil(8)).flat_map(|_| next()).take(VALUE_BYTES).collect()
}

/// All keys, in an order in which every memtable spans the whole key range.
fn load(db: &Db) {
    for step in 0..KEYS {
        let number = step * 7919 % KEYS;
        db.put(key(number), value(number, 0)).unwrap();
    }
    settle(db);
}

fn settle(db: &Db) {
    db.flush().unwrap();
    db.wait_for_compactions().unwrap();
}

fn table_bytes(db: &Db) -> u64 {
    db.metrics().keyspaces.iter().flat_map(|keyspace| &keyspace.levels).map(|level| level.bytes).sum()
}

fn numbers(entries: lsm_engine::Iter) -> Vec<u32> {
    entries.map(|entry| u32::from_be_bytes(entry.unwrap().0.as_ref().try_into().unwrap())).collect()
}

#[test]
fn tables_covered_by_a_range_delete_are_dropped_without_reading_them() {
    let machine = Machine::new();
    let db = machine.open(leveled());
    load(&db);
    let before = table_bytes(&db);
    let read_before = db.metrics().compaction_bytes_in;
    db.delete_range(key(2500)..key(97_500)).unwrap();
    settle(&db);
    let metrics = db.metrics();
    assert!(metrics.covered_tables_dropped > 10, "{metrics:#?}");
    // Only tables that reach beyond the ends of the range were read.
    assert!(metrics.compaction_bytes_in - read_before < before / 5, "{metrics:#?}");
    let after = table_bytes(&db);
    assert!(after <= before / 10, "{before} bytes became {after}");
    let left: Vec<u32> = (0..2500).chain(97_500..KEYS).collect();
    assert_eq!(numbers(db.iter()), left);
    for number in (0..KEYS).step_by(13) {
        let kept = !(2500..97_500).contains(&number);
        assert_eq!(db.get(key(number)).unwrap().is_some(), kept, "{number}");
    }
    db.close().unwrap();
    let db = machine.open(leveled());
    assert_eq!(numbers(db.iter()), left);
    db.close().unwrap();
}

#[test]
fn covered_tables_stay_while_a_snapshot_sees_them() {
    let machine = Machine::new();
    let db = machine.open(leveled());
    load(&db);
    let before = table_bytes(&db);
    let snapshot = db.snapshot().unwrap();
    db.delete_range(key(0)..key(KEYS)).unwrap();
    let later = db.snapshot().unwrap();
    settle(&db);
    assert_eq!(db.metrics().covered_tables_dropped, 0);
    assert_eq!(numbers(db.iter()), []);
    assert_eq!(numbers(snapshot.iter()).len() as u32, KEYS);
    let mut held = snapshot.iter();
    assert!(held.next().is_some());
    drop(snapshot);
    // A snapshot taken after the delete keeps nothing.
    db.wait_for_compactions().unwrap();
    let after = table_bytes(&db);
    assert!(after <= before / 100, "{before} bytes became {after}");
    assert_eq!(numbers(later.iter()), []);
    // An iterator keeps the files that it reads.
    assert_eq!(held.count() as u32, KEYS - 1);
    drop(later);
    db.close().unwrap();
}

#[test]
fn writes_after_a_range_delete_stay() {
    let machine = Machine::new();
    let db = machine.open(leveled());
    load(&db);
    db.delete_range(key(10_000)..key(90_000)).unwrap();
    for number in 40_000..50_000 {
        db.put(key(number), value(number, 1)).unwrap();
    }
    settle(&db);
    assert!(db.metrics().covered_tables_dropped > 10);
    let left: Vec<u32> = (0..10_000).chain(40_000..50_000).chain(90_000..KEYS).collect();
    assert_eq!(numbers(db.iter()), left);
    assert_eq!(db.get(key(45_000)).unwrap().unwrap(), value(45_000, 1));
    // The newest delete hides both halves, so the older range delete is dropped with the newer half.
    db.delete_range(key(30_000)..key(95_000)).unwrap();
    db.delete_range(key(0)..key(40_000)).unwrap();
    settle(&db);
    assert_eq!(numbers(db.iter()), (95_000..KEYS).collect::<Vec<_>>());
    db.close().unwrap();
}

/// Loads data and deletes, with `delete`, the keys for which `kept` is false. With every policy, nine tenths of their
/// space must be free after a flush and a wait. Then the same with a snapshot, which must see everything until it is
/// dropped.
fn expect_space(kept: impl Fn(u32) -> bool, delete: impl Fn(&Db)) {
    let left: Vec<u32> = (0..KEYS).filter(|number| kept(*number)).collect();
    for policy in policies() {
        for with_snapshot in [false, true] {
            let name = format!("{} {with_snapshot}", policy.name());
            let machine = Machine::new();
            let db = machine.open(Arc::clone(&policy));
            load(&db);
            let before = table_bytes(&db);
            let dead = before - before * left.len() as u64 / u64::from(KEYS);
            let snapshot = with_snapshot.then(|| db.snapshot().unwrap());
            delete(&db);
            settle(&db);
            assert_eq!(numbers(db.iter()), left, "{name}");
            if let Some(snapshot) = snapshot {
                let settled = db.metrics().compactions;
                machine.env.advance(10_000_000);
                db.wait_for_compactions().unwrap();
                assert_eq!(db.metrics().compactions, settled, "{name}: merges for nothing");
                assert_eq!(numbers(snapshot.iter()).len() as u32, KEYS, "{name}");
                assert_eq!(snapshot.get(key(777)).unwrap().unwrap(), value(777, 0), "{name}");
                drop(snapshot);
                db.wait_for_compactions().unwrap();
            }
            let after = table_bytes(&db);
            assert!(
                before.saturating_sub(after) >= dead / 10 * 9,
                "{name}: {before} bytes became {after}, {dead} are dead"
            );
            assert_eq!(numbers(db.iter()), left, "{name}");
            db.close().unwrap();
        }
    }
}

#[test]
fn compactions_free_the_space_of_a_range_delete() {
    expect_space(
        |number| !(2000..97_000).contains(&number),
        |db| db.delete_range(key(2000)..key(97_000)).unwrap(),
    );
}

#[test]
fn compactions_free_the_space_of_many_range_deletes() {
    expect_space(
        |number| number % 50 >= 40,
        |db| {
            for start in (0..KEYS).step_by(50) {
                db.delete_range(key(start)..key(start + 40)).unwrap();
            }
        },
    );
}

#[test]
fn compactions_free_the_space_of_single_deletes() {
    expect_space(|_| false, |db| (0..KEYS).for_each(|number| db.delete(key(number)).unwrap()));
}

#[test]
fn compactions_free_the_space_of_scattered_deletes() {
    expect_space(
        |number| number % 3 == 0,
        |db| (0..KEYS).filter(|number| number % 3 != 0).for_each(|number| db.delete(key(number)).unwrap()),
    );
}

/// A range tombstone that begins where the previous table ends used to be kept because of that table, which a snapshot
/// held. So its own table was rewritten again and again.
#[test]
fn a_table_next_to_one_held_by_a_snapshot_is_rewritten_once() {
    let machine = Machine::new();
    let db = machine.open(leveled());
    load(&db);
    let before = table_bytes(&db);
    let oldest = db.snapshot().unwrap();
    db.delete_range(key(0)..key(KEYS)).unwrap();
    let newer = db.snapshot().unwrap();
    db.delete(key(0)).unwrap();
    // Each snapshot now sees another version at the last level, in the first table.
    db.compact_range::<&[u8]>(..).unwrap();
    // Larger tables take a little less.
    assert!(table_bytes(&db) >= before / 100 * 99);
    assert_eq!(oldest.iter().count(), KEYS as usize);
    let compactions = db.metrics().compactions;
    drop(oldest);
    machine.env.advance(1_000_000);
    for _ in 0..10_000 {
        machine.env.step();
    }
    let tables = before / TABLE_BYTES;
    assert!(db.metrics().compactions - compactions <= 2 * tables, "{:#?}", db.metrics());
    db.wait_for_compactions().unwrap();
    assert!(table_bytes(&db) <= before / 5);
    assert_eq!(numbers(newer.iter()), []);
    drop(newer);
    db.wait_for_compactions().unwrap();
    assert!(table_bytes(&db) <= before / 100);
    db.close().unwrap();
}

#[test]
fn no_tombstone_gets_older_than_the_maximum_age() {
    const BOUND_MICROS: u64 = 3_600_000_000;
    let (leveled, lazy, tiered) =
        (LeveledOptions::default(), LazyLeveledOptions::default(), SizeTieredOptions::default());
    let tombstone_age_micros_max = BOUND_MICROS;
    let policies: [Arc<dyn CompactionPolicy>; 3] = [
        Arc::new(Leveled::new(LeveledOptions { tombstone_age_micros_max, ..leveled })),
        Arc::new(LazyLeveled::new(LazyLeveledOptions { tombstone_age_micros_max, ..lazy })),
        Arc::new(SizeTiered::new(SizeTieredOptions { tombstone_age_micros_max, ..tiered })),
    ];
    for policy in policies {
        let name = policy.name();
        let machine = Machine::new();
        let db = machine.open(Arc::clone(&policy));
        load(&db);
        db.compact_range::<&[u8]>(..).unwrap();
        // Too few tombstones to cause a merge by their share.
        db.delete(key(7)).unwrap();
        db.delete_range(key(500)..key(510)).unwrap();
        settle(&db);
        machine.env.advance(BOUND_MICROS - 60_000_000);
        db.wait_for_compactions().unwrap();
        assert_eq!(tombstones(&db), 2, "{name}");
        // The age survives a restart.
        db.close().unwrap();
        let db = machine.open(policy);
        let snapshot = db.snapshot().unwrap();
        db.delete(key(8)).unwrap();
        settle(&db);
        machine.env.advance(60_000_000);
        db.wait_for_compactions().unwrap();
        assert_eq!(tombstones(&db), 1, "{name}: the new one");
        machine.env.advance(BOUND_MICROS);
        db.wait_for_compactions().unwrap();
        assert_eq!(tombstones(&db), 1, "{name}: the snapshot does not see it");
        assert_eq!(snapshot.get(key(8)).unwrap().unwrap(), value(8, 0), "{name}");
        drop(snapshot);
        db.wait_for_compactions().unwrap();
        assert_eq!(tombstones(&db), 0, "{name}");
        assert_eq!(numbers(db.iter()).len() as u32, KEYS - 12, "{name}");
        db.close().unwrap();
    }
}

fn tombstones(db: &Db) -> u64 {
    let metrics = db.metrics();
    let levels = metrics.keyspaces.iter().flat_map(|keyspace| &keyspace.levels);
    levels.map(|level| level.tombstones + level.range_tombstones).sum()
}

#[test]
fn wait_for_compactions_returns_when_a_drop_of_tables_succeeds_at_the_second_try() {
    let machine = Machine::new();
    // No merge follows that would wake the waiting caller.
    let policy = Leveled::new(LeveledOptions { hidden_percent_max: 101, ..leveled_options() });
    let options = machine.options(Arc::new(policy)).env(Impatient::over(&machine.env, 1000));
    let db = options.open("/db").unwrap();
    load(&db);
    let before = table_bytes(&db);
    let snapshot = db.snapshot().unwrap();
    db.delete_range(key(0)..key(KEYS)).unwrap();
    settle(&db);
    let fault = Fault::on(OperationKind::Write, std::io::ErrorKind::Other).name_starting("MANIFEST");
    let fault = machine.fs.inject(fault);
    drop(snapshot);
    machine.env.advance(1_000_000);
    machine.env.run_until_idle();
    assert_eq!(fault.fired(), 1);
    assert!(table_bytes(&db) >= before, "the first try failed");
    db.wait_for_compactions().unwrap();
    assert!(table_bytes(&db) <= before / 100);
    db.close().unwrap();
}

#[test]
fn space_of_deletes_before_a_crash_is_freed_after_it() {
    let machine = Machine::new();
    let db = machine.open(leveled());
    load(&db);
    let before = table_bytes(&db);
    (0..KEYS).filter(|number| number % 4 != 0).for_each(|number| db.delete(key(number)).unwrap());
    db.delete_range(key(0)..key(KEYS / 2)).unwrap();
    let after_crash = Machine { fs: machine.fs.process_crash(), env: Arc::new(SimEnv::new(2)) };
    drop(db);
    let db = after_crash.open(leveled());
    settle(&db);
    let left: Vec<u32> = (KEYS / 2..KEYS).filter(|number| number % 4 == 0).collect();
    assert_eq!(numbers(db.iter()), left);
    let after = table_bytes(&db);
    assert!(after <= before / 5, "{before} bytes became {after}");
    db.close().unwrap();
}
