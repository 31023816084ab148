//! Figures of the log: buffered appends, recovery, synced appends by several threads.

#![expect(clippy::disallowed_methods, reason = "benchmarks run on real threads")]

use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lsm_core::env::ThreadEnv;
use lsm_core::vfs::PosixFs;
use lsm_wal::{Log, Position, RecoveryMode, Wal, WalOptions, WalReader};
use parking_lot::Mutex;

/// A record of 132 bytes, header and checksum included.
const PAYLOAD: [u8; 92] = [0x5a; 92];
const PAYLOAD_1K: [u8; 984] = [0x5a; 984];

fn create(directory: &std::path::Path, window_bytes: u64) -> Wal {
    let options = WalOptions { window_bytes, ..WalOptions::default() };
    let env = Arc::new(ThreadEnv::new(1));
    Wal::create(Arc::new(PosixFs), env, directory, Position::ZERO, 1, options).unwrap()
}

/// One log for all iterations; what is no longer needed is truncated, so that the disk does not fill up.
fn append(log: &mut Wal, payload: &[u8], iterations: u64) -> Duration {
    let mut elapsed = Duration::ZERO;
    let mut left = iterations;
    while left > 0 {
        let count = left.min(2_000_000);
        let start = Instant::now();
        for tag in 0..count {
            black_box(log.append(tag, black_box(payload)).unwrap());
        }
        elapsed += start.elapsed();
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
        let directory = tempfile::tempdir_in(".").unwrap();
        let mut log = create(directory.path(), window_bytes);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| append(&mut log, payload, iterations));
        });
    }
    group.finish();
}

fn recovery(criterion: &mut Criterion) {
    const COUNT: u64 = 1_000_000;
    let directory = tempfile::tempdir_in(".").unwrap();
    let mut log = create(directory.path(), 512 << 10);
    for tag in 0..COUNT {
        log.append(tag, &PAYLOAD).unwrap();
    }
    let mut group = criterion.benchmark_group("recovery");
    group.throughput(Throughput::Elements(COUNT)).sample_size(10);
    group.bench_function("132_bytes", |bencher| {
        bencher.iter(|| {
            let zero = Position::ZERO;
            let mode = RecoveryMode::Strict;
            let mut reader =
                WalReader::open(Arc::new(PosixFs), directory.path(), zero, zero, mode, None).unwrap();
            while let Some(record) = reader.next().unwrap() {
                black_box(record.payload);
            }
            assert_eq!(reader.report().records, COUNT);
        });
    });
    group.finish();
}

fn synced(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append_synced");
    group.throughput(Throughput::Elements(1)).sample_size(10).measurement_time(Duration::from_secs(3));
    for threads in [1, 2, 4, 8] {
        let directory = tempfile::tempdir_in(".").unwrap();
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

criterion_group!(benches, buffered, recovery, synced);
criterion_main!(benches);
