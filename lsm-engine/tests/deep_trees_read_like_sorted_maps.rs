//! Random histories on trees of tiny memtables and tables: a few hundred writes fill several levels, with several
//! compactions running at once. Every keyspace, snapshot, iterator and cursor is compared with a sorted map of the
//! moment that it shows. Each history has one thread and one seed, so a failure repeats.
//!
//! `LSM_SEEDS=1000 cargo test -p lsm-engine --release --test deep_trees_read_like_sorted_maps` runs more histories.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lsm_engine::env::Env;
use lsm_engine::vfs::{SimFs, Vfs};
use lsm_engine::{Db, DbCursor, Keyspace, KeyspaceOptions, Options, Snapshot, WriteBatch};
use lsm_memtable::{BPlusMemtable, MemtableFactory, ReferenceMemtable, SkipListMemtable};

mod random;
mod reads;

use lsm_dev::{Layer, Wide};
use random::{Draw, Random, each_seed, merge};
use reads::{Bytes, Model, View, Walk};

const VALUE_BYTES_MAX: usize = 1000;

struct Space {
    name: String,
    options: KeyspaceOptions,
    handle: Keyspace,
    model: Model,
    /// Tells the keyspace from an earlier one with its name.
    number: usize,
}

/// A cursor, the entries that it must show, and its position in them.
struct Stand {
    cursor: DbCursor,
    rows: Vec<(Bytes, Bytes)>,
    at: Option<usize>,
}

struct World {
    random: Random,
    fs: SimFs,
    env: Arc<Layer<Wide>>,
    db: Option<Db>,
    spaces: Vec<Space>,
    snapshots: Vec<(Snapshot, BTreeMap<usize, Model>)>,
    walks: Vec<Walk>,
    stands: Vec<Stand>,
    memtable: Arc<dyn MemtableFactory>,
    memtable_bytes: usize,
    made: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let fs = SimFs::new();
        fs.create_dir(Path::new("/data")).unwrap();
        // Only the plain memtable counts memory so finely that it is full after a few dozen entries.
        let (memtable, memtable_bytes): (Arc<dyn MemtableFactory>, _) = match random.below(6) {
            0 => (Arc::new(BPlusMemtable::default()), 80_000),
            1 => (Arc::new(SkipListMemtable::default()), 80_000),
            _ => (Arc::new(ReferenceMemtable), 2000 + random.below(5000)),
        };
        let mut world = Self {
            random,
            fs,
            env: Arc::new(Wide::new(seed)),
            db: None,
            spaces: Vec::new(),
            snapshots: Vec::new(),
            walks: Vec::new(),
            stands: Vec::new(),
            memtable,
            memtable_bytes,
            made: 0,
        };
        let options = world.keyspace_options();
        world.open(&options);
        let handle = world.db().default_keyspace();
        world.spaces.push(Space { name: "default".into(), options, handle, model: Model::new(), number: 0 });
        for _ in 0..world.random.below(3) {
            world.create_keyspace();
        }
        world
    }

    fn keyspace_options(&mut self) -> KeyspaceOptions {
        self.random.keyspace_options().memtable(Arc::clone(&self.memtable)).block_bytes(256)
    }

    fn open(&mut self, keyspace: &KeyspaceOptions) {
        let options = Options::new()
            .memory(2 << 20)
            .memtable_bytes(self.memtable_bytes)
            .vfs(Arc::new(self.fs.clone()))
            .env(Arc::clone(&self.env) as Arc<dyn Env>)
            .keyspace(keyspace.clone());
        self.db = Some(options.open("/data/db").unwrap());
    }

    fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    fn create_keyspace(&mut self) {
        self.made += 1;
        let name = format!("space {}", self.made % 3);
        if self.spaces.iter().any(|space| space.name == name) {
            return;
        }
        let options = self.keyspace_options();
        let handle = self.db().keyspace(&name, options.clone()).unwrap();
        self.spaces.push(Space { name, options, handle, model: Model::new(), number: self.made });
    }

    fn write(&mut self) {
        let index = self.random.below(self.spaces.len());
        let (random, space) = (&mut self.random, &mut self.spaces[index]);
        match random.below(20) {
            0..=3 => {
                let (key, operand) = (random.key(), random.value(VALUE_BYTES_MAX));
                space.handle.merge(&key, &operand).unwrap();
                merge(&mut space.model, key, &operand);
            }
            4..=12 => {
                let (key, value) = (random.key(), random.value(VALUE_BYTES_MAX));
                space.handle.put(&key, &value).unwrap();
                space.model.insert(key, value);
            }
            13..=16 => {
                let key = random.key();
                space.handle.delete(&key).unwrap();
                space.model.remove(&key);
            }
            17 | 18 => {
                let (start, end) = random.range();
                space.handle.delete_range(start.clone()..end.clone()).unwrap();
                space.model.retain(|key, _| *key < start || *key >= end);
            }
            _ => self.write_batch(),
        }
    }

    fn write_batch(&mut self) {
        let mut batch = WriteBatch::new();
        for _ in 0..self.random.below(12) {
            let index = self.random.below(self.spaces.len());
            let (random, space) = (&mut self.random, &mut self.spaces[index]);
            match random.below(8) {
                0 => {
                    let (start, end) = random.range();
                    batch.delete_range_in(&space.handle, start.clone()..end.clone());
                    space.model.retain(|key, _| *key < start || *key >= end);
                }
                1 | 2 => {
                    let key = random.key();
                    batch.delete_in(&space.handle, &key);
                    space.model.remove(&key);
                }
                3 | 4 => {
                    let (key, operand) = (random.key(), random.value(VALUE_BYTES_MAX));
                    batch.merge_in(&space.handle, &key, &operand);
                    merge(&mut space.model, key, &operand);
                }
                _ => {
                    let (key, value) = (random.key(), random.value(VALUE_BYTES_MAX));
                    batch.put_in(&space.handle, &key, &value);
                    space.model.insert(key, value);
                }
            }
        }
        self.db().write(batch).unwrap();
    }

    /// Starts an iterator or cursor over a keyspace, as it is now or as a snapshot sees it.
    fn look(&mut self) {
        let snapshot = match self.snapshots.len() {
            0 => None,
            count if self.random.one_in(2) => Some(self.random.below(count)),
            _ => None,
        };
        let snapshot = snapshot.map(|index| &self.snapshots[index]);
        let space = &self.spaces[self.random.below(self.spaces.len())];
        let nothing = Model::new();
        let model = match snapshot {
            Some((_, then)) => then.get(&space.number).unwrap_or(&nothing),
            None => &space.model,
        };
        if self.random.one_in(4) {
            let cursor = match snapshot {
                Some((snapshot, _)) => snapshot.cursor_in(&space.handle),
                None => space.handle.cursor(),
            };
            let rows = model.clone().into_iter().collect();
            self.stands.push(Stand { cursor: cursor.unwrap(), rows, at: None });
        } else {
            let view = View { keyspace: &space.handle, snapshot: snapshot.map(|(snapshot, _)| snapshot) };
            self.walks.push(Walk::begin(&mut self.random, view, model));
        }
        if self.walks.len() > 6 {
            let index = self.random.below(self.walks.len());
            self.walks.swap_remove(index);
        }
        if self.stands.len() > 4 {
            let index = self.random.below(self.stands.len());
            self.stands.swap_remove(index);
        }
    }

    fn walk(&mut self) {
        for walk in &mut self.walks {
            walk.go_on(&mut self.random).unwrap();
        }
    }

    fn move_cursors(&mut self) {
        for Stand { cursor, rows, at } in &mut self.stands {
            for _ in 0..self.random.below(12) {
                match self.random.below(12) {
                    0 => {
                        cursor.first().unwrap();
                        *at = Some(0);
                    }
                    1 => {
                        cursor.last().unwrap();
                        *at = rows.len().checked_sub(1);
                    }
                    2 => {
                        let key = self.random.key();
                        cursor.seek(&key).unwrap();
                        *at = Some(rows.partition_point(|(other, _)| *other < key));
                    }
                    3 => {
                        let key = self.random.key();
                        cursor.seek_for_prev(&key).unwrap();
                        *at = rows.partition_point(|(other, _)| *other <= key).checked_sub(1);
                    }
                    4..=7 => {
                        cursor.next().unwrap();
                        *at = at.map(|at| at + 1);
                    }
                    _ => {
                        cursor.prev().unwrap();
                        *at = at.and_then(|at| at.checked_sub(1));
                    }
                }
                // Past an end the cursor has no position, and stays there.
                *at = at.filter(|at| *at < rows.len());
                let expected = at.map(|at| (&*rows[at].0, &*rows[at].1));
                assert_eq!(cursor.entry(), expected);
            }
        }
    }

    fn check(&mut self) {
        let keys: Vec<Bytes> = (0..40).map(|_| self.random.key()).collect();
        let nothing = Model::new();
        for Space { handle: keyspace, model, number, .. } in &self.spaces {
            View { keyspace, snapshot: None }.compare(model, &keys).unwrap();
            for (snapshot, then) in &self.snapshots {
                let model = then.get(number).unwrap_or(&nothing);
                View { keyspace, snapshot: Some(snapshot) }.compare(model, &keys).unwrap();
            }
        }
    }

    fn reopen(&mut self) {
        // Snapshots and handles keep the database open. Iterators and cursors outlive it.
        self.snapshots.clear();
        let options = self.spaces[0].options.clone();
        let names: Vec<_> = self
            .spaces
            .drain(..)
            .map(|space| (space.name, space.options, space.model, space.number))
            .collect();
        let db = self.db.take().unwrap();
        if self.random.one_in(2) {
            db.close().unwrap();
        } else {
            drop(db);
        }
        self.open(&options);
        for (name, options, model, number) in names {
            let handle = if name == "default" {
                self.db().default_keyspace()
            } else {
                self.db().keyspace(&name, options.clone()).unwrap()
            };
            self.spaces.push(Space { name, options, handle, model, number });
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..=54 => (0..=self.random.below(8)).for_each(|_| self.write()),
            55..=64 => {
                for _ in 0..self.random.below(6) {
                    self.env.step();
                }
            }
            65..=69 => self.look(),
            70..=76 => self.walk(),
            77..=83 => self.move_cursors(),
            84..=86 => self.check(),
            87..=89 => {
                let models = self.spaces.iter().map(|space| (space.number, space.model.clone())).collect();
                self.snapshots.push((self.db().snapshot().unwrap(), models));
            }
            90 | 91 => {
                if !self.snapshots.is_empty() {
                    let index = self.random.below(self.snapshots.len());
                    self.snapshots.swap_remove(index);
                }
            }
            92 => self.db().flush().unwrap(),
            93 => self.db().wait_for_compactions().unwrap(),
            94 => {
                let (start, end) = self.random.range();
                let space = &self.spaces[self.random.below(self.spaces.len())];
                space.handle.compact_range(start..end).unwrap();
            }
            95 => {
                if self.random.one_in(3) {
                    let index = self.random.below(self.spaces.len());
                    self.spaces[index].handle.clear().unwrap();
                    self.spaces[index].model.clear();
                }
            }
            96 => {
                if self.random.one_in(3) && self.spaces.len() > 1 {
                    let index = 1 + self.random.below(self.spaces.len() - 1);
                    let space = self.spaces.swap_remove(index);
                    self.db().drop_keyspace(&space.name).unwrap();
                }
            }
            97 => self.create_keyspace(),
            98 => {
                let space = &self.spaces[self.random.below(self.spaces.len())];
                space.handle.compact_range::<&[u8]>(..).unwrap();
            }
            _ => {
                if self.random.one_in(4) {
                    self.reopen();
                }
            }
        }
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    let steps = 200 + world.random.below(400);
    for _ in 0..steps {
        world.step();
    }
    world.check();
    world.walk();
    world.move_cursors();
    world.reopen();
    world.check();
    world.env.drop_jobs();
}

#[test]
fn any_history_on_a_deep_tree_reads_like_its_model() {
    each_seed(40, run);
}
