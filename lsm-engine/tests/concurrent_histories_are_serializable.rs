//! Random concurrent histories of transactions, over few keys and with ranges. A checker decides for each whether some
//! serial order explains what was read, and what a crash left.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{Seeded, SimFs, Vfs};
use lsm_engine::{
    Db, ErrorKind, Isolation, Options, Result, Savepoint, SequenceNumber, Slice, Ticket, Transaction,
    TransactionOptions,
};

#[allow(dead_code, reason = "only the random numbers and the loop over seeds are needed here")]
mod random;
#[allow(dead_code, reason = "a part of the module above")]
mod reads;

use random::{Random, each_seed};

const KEYS: usize = 6;
const CLIENTS: usize = 4;

/// The value of each key that has one. Each write has a value of its own.
type State = BTreeMap<u8, u64>;

/// What a transaction did, and what it saw.
#[derive(Clone, Debug)]
enum Step {
    Get(u8, Option<u64>),
    /// The keys from the first up to the second, exclusive, as far as they were read, from one end.
    Range {
        from: u8,
        to: u8,
        backward: bool,
        seen: Vec<(u8, u64)>,
        to_the_end: bool,
    },
    Put(u8, u64),
    Delete(u8),
    DeleteRange(u8, u8),
    Savepoint,
    RollBack,
}

/// A committed transaction.
#[derive(Clone, Debug)]
struct Committed {
    steps: Vec<Step>,
    begun: usize,
    ended: usize,
    /// The number of its snapshot, and of its last write.
    snapshot: SequenceNumber,
    sequence: SequenceNumber,
    is_durable: bool,
}

#[derive(Default)]
struct History {
    committed: Vec<Committed>,
    /// The transaction whose commit was under way in the crash.
    in_flight: Option<Vec<Step>>,
    conflicts: usize,
    concurrent: usize,
}

/// The state after the steps; `None` if they saw something else.
fn replay(steps: &[Step], mut state: State) -> Option<State> {
    let mut savepoint = state.clone();
    for step in steps {
        match step {
            Step::Get(key, seen) => {
                if state.get(key) != seen.as_ref() {
                    return None;
                }
            }
            Step::Range { from, to, backward, seen, to_the_end } => {
                let mut there: Vec<_> = state.range(from..to).map(|(key, value)| (*key, *value)).collect();
                if *backward {
                    there.reverse();
                }
                let is_right = if *to_the_end { there == *seen } else { there.starts_with(seen) };
                if !is_right {
                    return None;
                }
            }
            Step::Put(key, value) => drop(state.insert(*key, *value)),
            Step::Delete(key) => drop(state.remove(key)),
            Step::DeleteRange(from, to) => state.retain(|key, _| key < from || key >= to),
            Step::Savepoint => savepoint = state.clone(),
            Step::RollBack => state = savepoint.clone(),
        }
    }
    Some(state)
}

/// Whether the transactions can be put into an order in which each sees what it saw, and which ends in `end`. One that
/// ended before another began must come first.
fn is_serializable(history: &[Committed], end: &State) -> bool {
    fn search(
        history: &[Committed],
        end: &State,
        done: u64,
        state: &State,
        seen: &mut HashSet<(u64, Vec<(u8, u64)>)>,
    ) -> bool {
        if done.count_ones() as usize == history.len() {
            return state == end;
        }
        if !seen.insert((done, state.iter().map(|(key, value)| (*key, *value)).collect())) {
            return false;
        }
        let is_left = |index: usize| done & (1 << index) == 0;
        let first_end =
            history.iter().enumerate().filter(|(index, _)| is_left(*index)).map(|(_, next)| next.ended).min();
        history.iter().enumerate().any(|(index, next)| {
            is_left(index)
                && first_end.is_none_or(|end| next.begun <= end)
                && replay(&next.steps, state.clone())
                    .is_some_and(|state| search(history, end, done | (1 << index), &state, seen))
        })
    }
    assert!(history.len() <= 64, "one bit each");
    search(history, end, 0, &State::new(), &mut HashSet::new())
}

/// Checks snapshot isolation: each transaction saw the state of its snapshot, and no two that wrote the same key overlap.
fn check_snapshots(history: &[Committed]) {
    for one in history {
        let before = history.iter().filter(|other| writes(other) && other.sequence <= one.snapshot);
        let state = before.fold(State::new(), |state, other| apply(&other.steps, state));
        assert!(replay(&one.steps, state).is_some(), "{one:?} did not see its snapshot");
        for other in history.iter().filter(|other| writes(other) && writes(one)) {
            let concurrent = one.snapshot < other.sequence && other.sequence < one.sequence;
            let shared =
                written(&one.steps).intersection(&written(&other.steps)).copied().collect::<Vec<_>>();
            assert!(!concurrent || shared.is_empty(), "{one:?} and {other:?} both wrote {shared:?}");
        }
    }
}

/// The state after the writes, whatever was read.
fn apply(steps: &[Step], state: State) -> State {
    let writes: Vec<_> =
        steps.iter().filter(|step| !matches!(step, Step::Get(..) | Step::Range { .. })).cloned().collect();
    replay(&writes, state).unwrap()
}

/// The keys that are written in the end, as far as they were not rolled back.
fn written(steps: &[Step]) -> HashSet<u8> {
    let (mut keys, mut savepoint) = (HashSet::new(), HashSet::new());
    for step in steps {
        match step {
            Step::Put(key, _) | Step::Delete(key) => drop(keys.insert(*key)),
            Step::DeleteRange(from, to) => keys.extend(*from..*to),
            Step::Savepoint => savepoint.clone_from(&keys),
            Step::RollBack => keys.clone_from(&savepoint),
            Step::Get(..) | Step::Range { .. } => {}
        }
    }
    keys
}

fn writes(committed: &Committed) -> bool {
    !written(&committed.steps).is_empty()
}

fn key(number: u8) -> [u8; 4] {
    [b'k', b'e', b'y', b'0' + number]
}

fn number((key, value): (Slice, Slice)) -> (u8, u64) {
    (key[3] - b'0', u64::from_le_bytes((*value).try_into().unwrap()))
}

/// A client with at most one open transaction.
#[derive(Default)]
struct Client {
    open: Option<(Transaction, Vec<Step>, usize)>,
    savepoint: Option<Savepoint>,
}

/// The next value that no write had.
static VALUES: AtomicUsize = AtomicUsize::new(1);

fn fresh() -> u64 {
    VALUES.fetch_add(1, Ordering::Relaxed) as u64
}

/// One random call on an open transaction.
fn call(transaction: &Transaction, savepoint: &mut Option<Savepoint>, random: &mut Random) -> Result<Step> {
    let at = random.below(KEYS) as u8;
    let (from, to) = (at, at + random.below(KEYS - usize::from(at)) as u8 + 1);
    Ok(match random.below(14) {
        0..4 => {
            let value = if random.one_in(4) {
                transaction.get_for_update(key(at))?
            } else {
                transaction.get(key(at))?
            };
            Step::Get(at, value.map(|value| number((Slice::from(&key(at)), value)).1))
        }
        4..6 => {
            let (backward, count) = (random.one_in(2), random.below(4));
            let mut entries = transaction.range(key(from)..key(to));
            let (mut seen, mut to_the_end) = (Vec::new(), false);
            while seen.len() < count && !to_the_end {
                match if backward { entries.next_back() } else { entries.next() } {
                    Some(entry) => seen.push(number(entry?)),
                    None => to_the_end = true,
                }
            }
            Step::Range { from, to, backward, seen, to_the_end }
        }
        6..10 => {
            let value = fresh();
            transaction.put(key(at), value.to_le_bytes())?;
            Step::Put(at, value)
        }
        10 => {
            transaction.delete(key(at))?;
            Step::Delete(at)
        }
        11 => {
            transaction.delete_range(key(from)..key(to))?;
            Step::DeleteRange(from, to)
        }
        12 if savepoint.is_none() => {
            *savepoint = Some(transaction.savepoint());
            Step::Savepoint
        }
        12 => {
            savepoint.as_ref().map_or(Ok(()), |savepoint| transaction.rollback_to(savepoint))?;
            Step::RollBack
        }
        _ => Step::Get(at, transaction.get(key(at))?.map(|value| number((Slice::from(&key(at)), value)).1)),
    })
}

fn is_end_of_transaction(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Conflict | ErrorKind::LockTimeout | ErrorKind::Deadlock)
}

fn open(fs: &SimFs, env: &Arc<SimEnv>) -> Result<Db> {
    let options = Options::new().memory(1 << 20).memtable_bytes(70_000).log_segment_bytes(16 << 10);
    options.vfs(Arc::new(fs.clone())).env(Arc::clone(env) as Arc<dyn Env>).open("/data/db")
}

fn file_system() -> SimFs {
    let fs = SimFs::new();
    fs.create_dir(Path::new("/data")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    fs
}

fn read(db: &Db) -> State {
    db.iter().map(|entry| number(entry.unwrap())).collect()
}

/// Several clients on one thread, whose calls are interleaved at random. Ends at a crash.
fn interleave(
    fs: &SimFs,
    env: &Arc<SimEnv>,
    seed: u64,
    options: TransactionOptions,
) -> (History, Option<State>) {
    let mut history = History::default();
    let Ok(db) = open(fs, env) else { return (history, None) };
    let is_whole = interleave_in(&db, fs, seed, options, &mut history).is_ok() && !fs.crashed();
    let end = is_whole.then(|| read(&db));
    (history, end)
}

fn interleave_in(
    db: &Db,
    fs: &SimFs,
    seed: u64,
    options: TransactionOptions,
    history: &mut History,
) -> Result<()> {
    let mut random = Random(seed);
    let mut clients: [Client; CLIENTS] = Default::default();
    let mut tickets: Vec<(usize, Ticket)> = Vec::new();
    for now in 0..140 {
        match random.below(40) {
            0 => db.flush()?,
            1 => db.compact_range::<&[u8]>(..)?,
            2 => {
                let (at, value) = (random.below(KEYS) as u8, fresh());
                history.in_flight = Some(vec![Step::Put(at, value)]);
                let ticket = db.submit_put(key(at), value.to_le_bytes())?;
                if fs.crashed() {
                    return Ok(());
                }
                let steps = history.in_flight.take().unwrap();
                let sequence = ticket.sequence();
                let snapshot = sequence - 1;
                history.committed.push(Committed {
                    steps,
                    begun: now,
                    ended: now,
                    snapshot,
                    sequence,
                    is_durable: false,
                });
            }
            3 => {
                if let Some((index, ticket)) = tickets.pop() {
                    ticket.wait()?;
                    if !fs.crashed() {
                        let upto = history.committed[index].sequence;
                        let earlier = history.committed.iter_mut().filter(|other| other.sequence <= upto);
                        earlier.for_each(|other| other.is_durable = true);
                    }
                }
            }
            _ => {
                let client = &mut clients[random.below(CLIENTS)];
                let Some((transaction, mut steps, begun)) = client.open.take() else {
                    client.open = Some((db.transaction_with(options)?, Vec::new(), now));
                    client.savepoint = None;
                    continue;
                };
                if steps.len() > 1 && random.one_in(4) {
                    let snapshot = transaction.sequence();
                    history.in_flight = Some(steps.clone());
                    match transaction.commit() {
                        _ if fs.crashed() => return Ok(()),
                        Ok(ticket) => {
                            let sequence = ticket.sequence();
                            // The ticket of a transaction without writes says nothing about what it has read.
                            if !written(&steps).is_empty() {
                                tickets.push((history.committed.len(), ticket));
                            }
                            let is_newer = |other: &Committed| writes(other) && other.sequence > snapshot;
                            history.concurrent += usize::from(history.committed.iter().any(is_newer));
                            history.committed.push(Committed {
                                steps,
                                begun,
                                ended: now,
                                snapshot,
                                sequence,
                                is_durable: false,
                            });
                        }
                        Err(error) if error.kind() == ErrorKind::Conflict => history.conflicts += 1,
                        Err(error) => return Err(error),
                    }
                    history.in_flight = None;
                } else {
                    match call(&transaction, &mut client.savepoint, &mut random) {
                        Ok(step) => {
                            steps.push(step);
                            client.open = Some((transaction, steps, begun));
                        }
                        // Rolled back.
                        Err(error) if is_end_of_transaction(error.kind()) => history.conflicts += 1,
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        if fs.crashed() {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether a state is what the first transactions left, in the order of their commits, at least the first `least` that
/// wrote.
fn is_prefix(history: &History, least: usize, found: &State) -> bool {
    let mut written: Vec<&[Step]> = {
        let mut written: Vec<_> = history.committed.iter().filter(|committed| writes(committed)).collect();
        written.sort_by_key(|committed| committed.sequence);
        written.into_iter().map(|committed| &*committed.steps).collect()
    };
    written.extend(history.in_flight.as_deref());
    let mut state = State::new();
    let mut is_found = least == 0 && *found == state;
    for (index, steps) in written.into_iter().enumerate() {
        state = apply(steps, state);
        is_found |= index + 1 >= least && *found == state;
    }
    is_found
}

/// Runs a history, and again with a crash at a random operation. Returns what happened in the first.
fn check(seed: u64, options: TransactionOptions) -> (History, State) {
    let fs = file_system();
    let begun = fs.operations();
    let env = Arc::new(SimEnv::new(seed));
    let (history, end) = interleave(&fs, &env, seed, options);
    env.drop_jobs();
    let end = end.unwrap();
    assert!(is_prefix(
        &history,
        history.committed.iter().filter(|committed| writes(committed)).count(),
        &end
    ));
    match options.isolation {
        Isolation::Serializable => {
            assert!(is_serializable(&history.committed, &end), "{:#?}", history.committed);
        }
        _ => check_snapshots(&history.committed),
    }
    let operation = begun + Random(seed ^ 0xc4a5).next() % (fs.operations() - begun);
    let fs = file_system();
    fs.crash_at(operation);
    let env = Arc::new(SimEnv::new(seed));
    let (history, _) = interleave(&fs, &env, seed, options);
    env.drop_jobs();
    let written = || history.committed.iter().filter(|committed| writes(committed));
    let (acknowledged, durable) =
        (written().count(), written().filter(|committed| committed.is_durable).count());
    for (image, least, what) in [
        (fs.process_crash(), acknowledged, "process crash"),
        (fs.power_cut(&mut Seeded::new(seed)), durable, "power cut"),
    ] {
        let env = Arc::new(SimEnv::new(3));
        let db = open(&image, &env).unwrap_or_else(|error| panic!("{what} at {operation}: {error}"));
        let found = read(&db);
        assert!(
            is_prefix(&history, least, &found),
            "{what} at {operation} left {found:?}: {:#?}",
            history.committed
        );
        drop(db);
        env.drop_jobs();
    }
    (history, end)
}

#[test]
fn a_thousand_histories_of_optimistic_transactions() {
    let totals = Mutex::new((0, 0, 0));
    each_seed(1000, |seed| {
        let (history, _) = check(seed, TransactionOptions::default());
        let mut totals = totals.lock().unwrap();
        totals.0 += history.committed.len();
        totals.1 += history.conflicts;
        totals.2 += history.concurrent;
    });
    let (committed, conflicts, concurrent) = totals.into_inner().unwrap();
    assert!(
        committed > 4000 && conflicts > 1000 && concurrent > 1000,
        "{committed}, {conflicts}, {concurrent}"
    );
}

#[test]
fn six_hundred_histories_of_transactions_with_locks() {
    let locks = Some(Duration::from_millis(5));
    each_seed(600, |seed| drop(check(seed, TransactionOptions { locks, ..TransactionOptions::default() })));
}

/// Half of them with locks. The checker for serializability must find some that are not: it would be worth nothing
/// otherwise.
#[test]
fn six_hundred_histories_at_snapshot_isolation() {
    let skewed = AtomicUsize::new(0);
    each_seed(600, |seed| {
        let locks = (seed % 2 == 1).then_some(Duration::from_millis(5));
        let (history, end) = check(seed, TransactionOptions { isolation: Isolation::Snapshot, locks });
        skewed.fetch_add(usize::from(!is_serializable(&history.committed, &end)), Ordering::Relaxed);
    });
    assert!(skewed.into_inner() > 20);
}

/// Transactions of real threads on real files.
fn run_threads(seed: u64, options: TransactionOptions) {
    let directory = tempfile::tempdir().unwrap();
    let db = Options::new().memory(1 << 20).open(directory.path()).unwrap();
    let (clock, committed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for thread in 0..3 {
            let (db, clock, committed) = (&db, &clock, &committed);
            scope.spawn(move || {
                let mut random = Random(seed * 31 + thread);
                for _ in 0..6 {
                    let begun = clock.fetch_add(1, Ordering::SeqCst);
                    let transaction = db.transaction_with(options).unwrap();
                    let (mut steps, mut savepoint) = (Vec::new(), None);
                    let failed = (0..2 + random.below(5)).find_map(|_| {
                        call(&transaction, &mut savepoint, &mut random).map(|step| steps.push(step)).err()
                    });
                    if let Some(error) = failed {
                        assert!(is_end_of_transaction(error.kind()), "{error}");
                        continue;
                    }
                    let snapshot = transaction.sequence();
                    match transaction.commit() {
                        Ok(ticket) => {
                            let ended = clock.fetch_add(1, Ordering::SeqCst);
                            let sequence = ticket.sequence();
                            let one =
                                Committed { steps, begun, ended, snapshot, sequence, is_durable: false };
                            committed.lock().unwrap().push(one);
                        }
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
                    }
                }
            });
        }
    });
    let committed = committed.into_inner().unwrap();
    assert!(is_serializable(&committed, &read(&db)), "{committed:#?}");
}

#[test]
fn histories_of_threads() {
    each_seed(100, |seed| run_threads(seed, TransactionOptions::default()));
    let locks = Some(Duration::from_millis(2));
    each_seed(100, |seed| run_threads(seed, TransactionOptions { locks, ..TransactionOptions::default() }));
}

#[test]
fn the_checker_tells_serializable_histories_from_others() {
    let one = |steps: &[Step], begun, ended| Committed {
        steps: steps.to_vec(),
        begun,
        ended,
        snapshot: 0,
        sequence: 0,
        is_durable: false,
    };
    let state = |entries: &[(u8, u64)]| entries.iter().copied().collect::<State>();
    let (put, get) = (Step::Put, Step::Get);
    // Lost update.
    let (first, second) = (one(&[get(0, None), put(0, 1)], 0, 3), one(&[get(0, None), put(0, 2)], 1, 2));
    assert!(!is_serializable(&[first.clone(), second], &state(&[(0, 1)])));
    let after = one(&[get(0, Some(1)), put(0, 2)], 1, 2);
    assert!(is_serializable(&[after.clone(), first.clone()], &state(&[(0, 2)])));
    assert!(!is_serializable(&[after, first], &state(&[(0, 1)])), "the end must fit, too");
    // Write skew, and a phantom.
    let empty = Step::Range { from: 0, to: 4, backward: false, seen: vec![], to_the_end: true };
    let skew = [one(&[empty.clone(), put(0, 1)], 0, 2), one(&[empty, put(3, 2)], 1, 3)];
    assert!(!is_serializable(&skew, &state(&[(0, 1), (3, 2)])));
    // Nobody may see a state from before a transaction that had ended.
    let late = [one(&[put(0, 1)], 0, 1), one(&[get(0, None)], 2, 3)];
    assert!(!is_serializable(&late, &state(&[(0, 1)])));
}

/// Each transaction counts the rows and adds one with that number, under a key of its own. A row that comes between the
/// search for conflicts and the commit must be noticed, too, so no number may occur twice.
#[test]
fn no_row_slips_in_at_the_moment_of_a_commit() {
    let directory = tempfile::tempdir().unwrap();
    let db = Options::new().memory(8 << 20).open(directory.path()).unwrap();
    thread::scope(|scope| {
        for thread in 0..4_u8 {
            let db = &db;
            scope.spawn(move || {
                for row in 0..150_u8 {
                    db.transact(|transaction| {
                        let count = transaction.range("row".."rox").count() as u64;
                        transaction.put([b'r', b'o', b'w', thread, row], count.to_le_bytes())
                    })
                    .unwrap();
                }
            });
        }
    });
    let mut numbers: Vec<_> =
        db.iter().map(|row| u64::from_le_bytes((*row.unwrap().1).try_into().unwrap())).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..600).collect::<Vec<_>>());
}
