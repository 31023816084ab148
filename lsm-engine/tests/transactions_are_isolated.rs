//! Every anomaly of the literature, at each isolation: which ones can happen, and which end in a conflict.

use std::sync::Arc;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{
    Db, Error, ErrorKind, Isolation, KeyspaceOptions, Options, Result, Transaction, TransactionOptions,
};

const LEVELS: [Isolation; 2] = [Isolation::Snapshot, Isolation::Serializable];

struct World {
    env: Arc<SimEnv>,
    db: Db,
}

impl World {
    fn new() -> Self {
        let env = Arc::new(SimEnv::new(1));
        let options = Options::new().memory(4 << 20).vfs(Arc::new(SimFs::new()));
        let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
        for key in ["x", "y"] {
            db.put(key, "50").unwrap();
        }
        Self { env, db }
    }

    fn begin(&self, isolation: Isolation) -> Transaction {
        self.db.transaction_with(TransactionOptions { isolation, locks: None }).unwrap()
    }

    fn value(&self, key: &str) -> String {
        String::from_utf8(self.db.get(key).unwrap().unwrap().to_vec()).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.env.drop_jobs();
    }
}

fn number(transaction: &Transaction, key: &str) -> i64 {
    let value = transaction.get(key).unwrap().unwrap();
    std::str::from_utf8(&value).unwrap().parse().unwrap()
}

fn assert_conflict(committed: Result<lsm_engine::Ticket>, names: &str) {
    let error = committed.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().starts_with(names), "{error}");
}

#[test]
fn nobody_sees_writes_before_the_commit_and_all_of_them_after_it() {
    for level in LEVELS {
        let world = World::new();
        let (writer, reader) = (world.begin(level), world.begin(level));
        writer.put("x", "1").unwrap();
        writer.put("x", "2").unwrap();
        writer.delete("y").unwrap();
        // Dirty read.
        assert_eq!((world.value("x").as_str(), number(&reader, "x")), ("50", 50));
        let ticket = writer.commit().unwrap();
        // Fuzzy read.
        assert_eq!((world.value("x").as_str(), number(&reader, "x")), ("2", 50));
        assert_eq!(world.db.get("y").unwrap(), None);
        assert_eq!(ticket.sequence(), world.db.snapshot().unwrap().sequence());
        ticket.wait().unwrap();
        reader.commit().unwrap();
    }
}

#[test]
fn nobody_sees_writes_that_are_rolled_back() {
    for level in LEVELS {
        let world = World::new();
        let before = world.db.snapshot().unwrap().sequence();
        let (dropped, rolled_back) = (world.begin(level), world.begin(level));
        dropped.put("x", "1").unwrap();
        rolled_back.delete_range("a".."z").unwrap();
        drop(dropped);
        rolled_back.rollback();
        let reader = world.begin(level);
        assert_eq!((number(&reader, "x"), number(&reader, "y")), (50, 50));
        assert_eq!(world.db.snapshot().unwrap().sequence(), before, "nothing was written");
    }
}

#[test]
fn an_update_is_never_lost() {
    for level in LEVELS {
        let world = World::new();
        let (one, two) = (world.begin(level), world.begin(level));
        one.put("x", (number(&one, "x") + 1).to_string()).unwrap();
        two.put("x", (number(&two, "x") + 10).to_string()).unwrap();
        two.commit().unwrap();
        assert_conflict(one.commit(), "key \"x\" of keyspace \"default\"");
        assert_eq!(world.value("x"), "60");
    }
}

#[test]
fn the_first_committer_wins_also_against_plain_and_blind_writes() {
    for level in LEVELS {
        let world = World::new();
        let blind = world.begin(level);
        blind.put("x", "blind").unwrap();
        world.db.put("x", "plain").unwrap();
        assert_conflict(blind.commit(), "key \"x\"");
        let of_range = world.begin(level);
        of_range.delete_range("a".."m").unwrap();
        world.db.put("b", "plain").unwrap();
        assert_conflict(of_range.commit(), "the range from \"a\" up to \"m\"");
        let in_range = world.begin(level);
        in_range.put("b", "mine").unwrap();
        world.db.delete_range("a".."m").unwrap();
        assert_conflict(in_range.commit(), "key \"b\"");
        // Neighbours do not conflict.
        let neighbour = world.begin(level);
        neighbour.put("m", "mine").unwrap();
        neighbour.delete_range("n".."o").unwrap();
        world.db.delete_range("a".."m").unwrap();
        world.db.put("o", "plain").unwrap();
        neighbour.commit().unwrap();
    }
}

/// Each of two withdrawals leaves the sum positive by what it read; both together do not.
#[test]
fn write_skew_happens_at_snapshot_isolation_only() {
    for level in LEVELS {
        let world = World::new();
        let (one, two) = (world.begin(level), world.begin(level));
        for (transaction, key) in [(&one, "x"), (&two, "y")] {
            assert!(number(transaction, "x") + number(transaction, "y") - 80 > 0);
            transaction.put(key, "-30").unwrap();
        }
        one.commit().unwrap();
        match level {
            Isolation::Serializable => assert_conflict(two.commit(), "key \"x\""),
            _ => drop(two.commit().unwrap()),
        }
    }
    // A read for update makes the difference at snapshot isolation.
    let world = World::new();
    let (one, two) = (world.begin(Isolation::Snapshot), world.begin(Isolation::Snapshot));
    for (transaction, key) in [(&one, "x"), (&two, "y")] {
        transaction.get_for_update("x").unwrap();
        transaction.get_for_update("y").unwrap();
        transaction.put(key, "-30").unwrap();
    }
    one.commit().unwrap();
    assert_conflict(two.commit(), "key \"x\"");
}

type Count = fn(&Transaction) -> usize;

/// Both count the tasks of a day and add one. The keys that they add are different, and were in no result.
#[test]
fn phantoms_happen_at_snapshot_isolation_only() {
    let counts: [(&str, Count); 6] = [
        ("range", |transaction| transaction.range("task/".."task0").count()),
        ("range backward", |transaction| transaction.range("task/".."task0").rev().count()),
        ("prefix", |transaction| transaction.prefix("task/").count()),
        ("cursor", |transaction| {
            let mut cursor = transaction.cursor().unwrap();
            let mut count = 0;
            cursor.seek("task/").unwrap();
            while cursor.key().is_some_and(|key| key.starts_with(b"task/")) {
                count += 1;
                cursor.next().unwrap();
            }
            count
        }),
        ("cursor backward", |transaction| {
            let mut cursor = transaction.cursor().unwrap();
            let mut count = 0;
            cursor.seek_for_prev("task0").unwrap();
            while cursor.key().is_some_and(|key| key.starts_with(b"task/")) {
                count += 1;
                cursor.prev().unwrap();
            }
            count
        }),
        ("both ends", |transaction| {
            let mut tasks = transaction.range("task/".."task0");
            let mut count = 0;
            while tasks.next().is_some() {
                count += 1 + usize::from(tasks.next_back().is_some());
            }
            count
        }),
    ];
    for level in LEVELS {
        for (name, count) in counts {
            for existing in ["", "task/5", "task/1 task/5 task/9"] {
                let world = World::new();
                for task in existing.split_whitespace() {
                    world.db.put(task, "").unwrap();
                }
                let (one, two) = (world.begin(level), world.begin(level));
                assert_eq!((count(&one), count(&two)), (count(&two), existing.split_whitespace().count()));
                one.put("task/4", "one").unwrap();
                two.put("task/6", "two").unwrap();
                two.commit().unwrap();
                assert_eq!(
                    count(&one),
                    existing.split_whitespace().count() + 1,
                    "its own task, not the other"
                );
                match level {
                    Isolation::Serializable => assert_conflict(one.commit(), "the range"),
                    _ => drop(one.commit().unwrap_or_else(|error| panic!("{name}, {existing}: {error}"))),
                }
            }
        }
    }
}

/// Fekete, O'Neil and O'Neil, "A Read-Only Transaction Anomaly Under Snapshot Isolation" (2004).
#[test]
fn the_read_only_anomaly_happens_at_snapshot_isolation_only() {
    for level in LEVELS {
        let world = World::new();
        world.db.put("x", "0").unwrap();
        world.db.put("y", "0").unwrap();
        let (withdrawal, deposit) = (world.begin(level), world.begin(level));
        assert_eq!(number(&withdrawal, "x") + number(&withdrawal, "y"), 0);
        deposit.put("y", (number(&deposit, "y") + 20).to_string()).unwrap();
        deposit.commit().unwrap();
        let report = world.begin(level);
        assert_eq!((number(&report, "x"), number(&report, "y")), (0, 20), "no overdraft yet");
        report.commit().unwrap();
        // It saw too little money, so it takes a fee. With the deposit before it, as the report says, there is none.
        withdrawal.put("x", "-11").unwrap();
        match level {
            Isolation::Serializable => assert_conflict(withdrawal.commit(), "key \"y\""),
            _ => drop(withdrawal.commit().unwrap()),
        }
    }
}

type Read<'r> = &'r dyn Fn(&Transaction);

#[test]
fn only_what_was_read_of_a_range_conflicts() {
    let world = World::new();
    for key in ["b", "d", "f", "h"] {
        world.db.put(key, "").unwrap();
    }
    let first = |transaction: &Transaction| drop(transaction.range("a"..).next().unwrap().unwrap());
    let last = |transaction: &Transaction| drop(transaction.range(.."i").next_back().unwrap().unwrap());
    let seek = |transaction: &Transaction| {
        let mut cursor = transaction.cursor().unwrap();
        cursor.seek("c").unwrap();
        assert_eq!(cursor.key(), Some(&b"d"[..]));
        cursor.next().unwrap();
        cursor.prev().unwrap();
        cursor.prev().unwrap();
        assert_eq!(cursor.key(), Some(&b"b"[..]));
    };
    let cases: [(Read<'_>, &[&str], &[&str]); 3] = [
        (&first, &["a", "aa", "b"], &["A", "b2", "c"]),
        (&last, &["h", "hh"], &["g", "i"]),
        (&seek, &["b", "bb", "c", "d", "e", "f"], &["a", "f2", "g"]),
    ];
    for (read, conflicting, harmless) in cases {
        for (keys, conflicts) in [(conflicting, true), (harmless, false)] {
            for key in keys {
                let transaction = world.begin(Isolation::Serializable);
                read(&transaction);
                transaction.put("result", "").unwrap();
                world.db.delete(key).unwrap();
                world.db.put(key, "").unwrap();
                assert_eq!(transaction.commit().is_err(), conflicts, "{key}");
                if !["b", "d", "f", "h"].contains(key) {
                    world.db.delete(key).unwrap();
                }
            }
        }
    }
}

#[test]
fn untracked_reads_and_transactions_without_writes_never_conflict() {
    let world = World::new();
    let (statistics, reader) = (world.begin(Isolation::Serializable), world.begin(Isolation::Serializable));
    let untracked = statistics.untracked();
    assert_eq!(untracked.get("x").unwrap().unwrap(), "50");
    assert_eq!(untracked.multi_get(["x", "y"]).unwrap().len(), 2);
    assert_eq!(untracked.range::<&str>(..).count() + untracked.prefix("x").count(), 3);
    let mut cursor = untracked.cursor().unwrap();
    cursor.last().unwrap();
    drop(cursor);
    assert_eq!(reader.iter().count(), 2);
    world.db.put("x", "51").unwrap();
    world.db.put("z", "51").unwrap();
    statistics.put("result", "").unwrap();
    assert_eq!(untracked.get("result").unwrap().unwrap(), "");
    statistics.commit().unwrap();
    assert!(reader.commit().unwrap().is_durable());
}

type Others = fn(&Db) -> Result<()>;

#[test]
fn conflicts_are_found_wherever_the_change_went() {
    let others: [(&str, Others); 6] = [
        ("memtable", |_| Ok(())),
        ("table", Db::flush),
        ("last level", |db| db.compact_range::<&[u8]>(..)),
        ("after a clear", |db| db.default_keyspace().clear()),
        ("hidden by a delete", |db| {
            db.delete("x")?;
            db.delete("y2")?;
            db.compact_range::<&[u8]>(..)
        }),
        ("hidden by a range delete", |db| {
            db.delete_range("w".."z")?;
            db.compact_range::<&[u8]>(..)
        }),
    ];
    for (name, then) in others {
        for change in ["x", "y2"] {
            let world = World::new();
            let (by_key, by_range) =
                (world.begin(Isolation::Serializable), world.begin(Isolation::Serializable));
            by_key.multi_get(["x", "y2"]).unwrap();
            assert_eq!(by_range.range("w".."z").count(), 2);
            world.db.put(change, "changed").unwrap();
            then(&world.db).unwrap();
            by_key.put("other", "").unwrap();
            by_range.put("other", "").unwrap();
            assert_conflict(by_key.commit(), "key");
            // A clear changes every key, also the one that is only written.
            assert_conflict(by_range.commit(), if name == "after a clear" { "key" } else { "the range" });
            assert_eq!(world.db.get("other").unwrap(), None, "{name}");
        }
    }
}

#[test]
fn transactions_span_keyspaces_and_fail_if_one_is_dropped() {
    let world = World::new();
    let users = world.db.keyspace("users", KeyspaceOptions::new()).unwrap();
    users.put("1", "Ada").unwrap();
    let both = world.begin(Isolation::Serializable);
    assert_eq!(both.get_in(&users, "1").unwrap().unwrap(), "Ada");
    both.put_in(&users, "2", "Grace").unwrap();
    both.put("count", "2").unwrap();
    both.commit().unwrap();
    assert_eq!((users.iter().count(), world.value("count").as_str()), (2, "2"));

    let conflicting = world.begin(Isolation::Serializable);
    conflicting.get_in(&users, "2").unwrap();
    conflicting.put("count", "3").unwrap();
    users.put("2", "Hopper").unwrap();
    assert_conflict(conflicting.commit(), "key \"2\" of keyspace \"users\"");

    let (reads, writes) = (world.begin(Isolation::Serializable), world.begin(Isolation::Serializable));
    reads.get_in(&users, "1").unwrap();
    reads.put("count", "4").unwrap();
    writes.put_in(&users, "3", "").unwrap();
    writes.put("count", "5").unwrap();
    world.db.drop_keyspace("users").unwrap();
    for transaction in [reads, writes] {
        let refused = transaction.get_in(&users, "1").unwrap_err();
        assert!(matches!(refused, Error::KeyspaceDropped(name) if &*name == "users"));
        let refused = transaction.commit().unwrap_err();
        assert!(matches!(refused, Error::KeyspaceDropped(name) if &*name == "users"));
    }
    assert_eq!(world.value("count"), "2");
}

#[test]
fn a_cursor_that_was_forgotten_still_counts_as_read() {
    let world = World::new();
    let transaction = world.begin(Isolation::Serializable);
    let mut entries = transaction.range("a".."m");
    entries.next();
    std::mem::forget(entries);
    transaction.put("z", "").unwrap();
    world.db.put("b", "").unwrap();
    assert_conflict(transaction.commit(), "the range");
}

/// What leaves with its files leaves no version behind by which a conflict could be found.
#[test]
fn files_that_are_deleted_meanwhile_are_a_conflict() {
    type Use = fn(&Transaction);
    let uses: [Use; 4] = [
        |transaction| drop(transaction.get("x").unwrap()),
        |transaction| assert!(transaction.count("a".."z").is_ok()),
        |transaction| transaction.put("x", "mine").unwrap(),
        |transaction| transaction.delete_range("a".."y").unwrap(),
    ];
    for act in uses {
        let world = World::new();
        world.db.flush().unwrap();
        let transaction = world.begin(Isolation::Serializable);
        act(&transaction);
        transaction.put("elsewhere", "1").unwrap();
        assert_eq!(world.db.delete_files_in_range::<&str>(..).unwrap().tables, 1);
        assert_eq!(transaction.untracked().get("y").unwrap().unwrap(), "50");
        assert_conflict(transaction.commit(), "");
        assert_eq!(world.db.iter().count(), 0);
    }
    let world = World::new();
    world.db.flush().unwrap();
    let transaction = world.begin(Isolation::Serializable);
    world.db.delete_files_in_range::<&str>(..).unwrap();
    assert_eq!(transaction.count::<&str>(..).unwrap(), 2, "it sees what was there when it began");
    transaction.commit().unwrap();
}
