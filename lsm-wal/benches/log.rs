//! Figures of the log.
//!
//! - `append_buffered`: one thread appends without waiting, the mean over drains, rotations and background syncs. After
//!   the time on the clock comes the processor time of the appending thread, where the system tells it (Linux):
//!   what is missing is waiting for a shared machine and its disk.
//! - `recovery`: reading a log of a million records and checking all of it.
//! - `sync_floor`: write and sync of a record in a plain preallocated file, what no log can beat by one thread.
//! - `append_synced`: threads that wait for the durability of each record. The limit is threads / `sync_floor`.
//!
//! Files go to the current directory, or where `LOG_BENCH_DIR` says: with one in memory, such as `/dev/shm`, the
//! figures are the log's own cost without the disk's.

#![expect(clippy::disallowed_methods, reason = "benchmarks run on real threads")]

use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lsm_core::env::ThreadEnv;
use lsm_core::vfs::{PosixFs, Vfs};
use lsm_wal::{FirstSegment, Log, LogExpectation, RecoveryMode, Wal, WalOptions, WalReader};
use parking_lot::Mutex;

/// A record of 132 bytes, header and checksum included.
const PAYLOAD: [u8; 92] = [0x5a; 92];
const PAYLOAD_1K: [u8; 984] = [0x5a; 984];

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(std::env::var_os("LOG_BENCH_DIR").unwrap_or(".".into())).unwrap()
}

/// Nanoseconds of processor time that this thread has had.
fn processor_nanos() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok()
}

fn create(directory: &std::path::Path, window_bytes: u64) -> Wal {
    let options = WalOptions { window_bytes, ..WalOptions::default() };
    let env = Arc::new(ThreadEnv::new(1));
    Wal::create(Arc::new(PosixFs), env, directory, FirstSegment::default(), options).unwrap()
}

/// One log for all iterations; what is no longer needed is truncated, so that the disk does not fill up. Adds to
/// `spent` the appends and the processor time that they took.
fn append(log: &mut Wal, payload: &[u8], iterations: u64, spent: &mut (u64, u64)) -> Duration {
    let mut elapsed = Duration::ZERO;
    let mut left = iterations;
    while left > 0 {
        let count = left.min(2_000_000);
        let (start, before) = (Instant::now(), processor_nanos());
        for tag in 0..count {
            black_box(log.append(tag, black_box(payload)).unwrap());
        }
        elapsed += start.elapsed();
        if let Some((after, before)) = processor_nanos().zip(before) {
            *spent = (spent.0 + count, spent.1 + after - before);
        }
        left -= count;
        let end = log.end();
        log.truncate_front(end).unwrap();
    }
    elapsed
}

fn buffered(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append_buffered");
    group.throughput(Throughput::Elements(1));
    for (name, payload, window_bytes) in [
        ("132_bytes", &PAYLOAD[..], 512 << 10),
        ("1024_bytes", &PAYLOAD_1K[..], 512 << 10),
        ("132_bytes_without_window", &PAYLOAD[..], 0),
    ] {
        let directory = directory();
        let mut log = create(directory.path(), window_bytes);
        let mut spent = (0, 0);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| append(&mut log, payload, iterations, &mut spent));
        });
        if spent.0 > 0 {
            println!("{name}: {:.1} ns of processor time an append", spent.1 as f64 / spent.0 as f64);
        }
    }
    group.finish();
}

fn recovery(criterion: &mut Criterion) {
    const COUNT: u64 = 1_000_000;
    let directory = directory();
    let mut log = create(directory.path(), 512 << 10);
    for tag in 0..COUNT {
        log.append(tag, &PAYLOAD).unwrap();
    }
    let mut group = criterion.benchmark_group("recovery");
    group.throughput(Throughput::Elements(COUNT)).sample_size(10);
    group.bench_function("132_bytes", |bencher| {
        bencher.iter(|| {
            let mode = RecoveryMode::Strict;
            let mut reader =
                WalReader::open(Arc::new(PosixFs), directory.path(), &LogExpectation::default(), mode)
                    .unwrap();
            while let Some(record) = reader.next().unwrap() {
                black_box(record.payload);
            }
            assert_eq!(reader.report().records, COUNT);
        });
    });
    group.finish();
}

fn sync_floor(criterion: &mut Criterion) {
    let directory = directory();
    let file = PosixFs.create_new(&directory.path().join("floor")).unwrap();
    file.allocate(64 << 20).unwrap();
    file.sync_data().unwrap();
    let mut offset = 0;
    criterion.bench_function("sync_floor", |bencher| {
        bencher.iter(|| {
            file.write_at(&[1; 132], offset).unwrap();
            file.sync_data().unwrap();
            offset = (offset + 132) % (32 << 20);
        });
    });
}

fn synced(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append_synced");
    group.throughput(Throughput::Elements(1)).sample_size(10).measurement_time(Duration::from_secs(3));
    for threads in [1, 2, 4, 8, 16] {
        let directory = directory();
        let log = create(directory.path(), 512 << 10);
        let sync = log.sync_handle();
        let log = Mutex::new(log);
        group.bench_function(format!("{threads}_threads"), |bencher| {
            bencher.iter_custom(|iterations| {
                let start = Instant::now();
                thread::scope(|scope| {
                    for thread in 0..threads {
                        let (log, sync) = (&log, &sync);
                        let share = iterations / threads + u64::from(thread < iterations % threads);
                        scope.spawn(move || {
                            for tag in 0..share {
                                let position = log.lock().append(tag, &PAYLOAD).unwrap();
                                sync.wait_durable(position).unwrap();
                            }
                        });
                    }
                });
                start.elapsed()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, buffered, recovery, sync_floor, synced);
criterion_main!(benches);
