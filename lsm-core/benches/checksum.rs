//! CRC-64 and CRC-32 by length of the input: log records are short, blocks are pages.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lsm_core::checksum::{crc32, crc64};

fn checksums(criterion: &mut Criterion) {
    let bytes: Vec<u8> = (0..=255).cycle().take(65_536).collect();
    let mut group = criterion.benchmark_group("checksum");
    for len in [16, 40, 100, 128, 200, 512, 1024, 4096, 65_536] {
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_with_input(BenchmarkId::new("crc64", len), &bytes[..len], |bencher, bytes| {
            bencher.iter(|| crc64(0, black_box(bytes)));
        });
        group.bench_with_input(BenchmarkId::new("crc32", len), &bytes[..len], |bencher, bytes| {
            bencher.iter(|| crc32(0, black_box(bytes)));
        });
    }
    group.finish();
}

criterion_group!(benches, checksums);
criterion_main!(benches);
