//! What the seams cost: a record into a window and into a file, a notification, a job's step, a simulated crash.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use lsm_core::env::{Env, Event, Job, Priority, Step, ThreadEnv};
use lsm_core::vfs::{AllKept, PosixFs, Seeded, SimFs, Vfs};

const RECORD: [u8; 132] = [7; 132];

fn files(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut window = PosixFs.window(&directory.path().join("window"), 1 << 20).expect("a window");
    let mut offset = 0;
    criterion.bench_function("window: copy a record of 132 bytes and publish", |bencher| {
        bencher.iter(|| {
            window.write_at(offset, black_box(&RECORD));
            window.publish(0, offset as u64);
            offset = (offset + 136) % ((1 << 20) - 136);
        });
    });
    let file = PosixFs.create_new(&directory.path().join("file")).expect("a file");
    let mut offset = 0;
    criterion.bench_function("file: write a record of 132 bytes", |bencher| {
        bencher.iter(|| {
            file.write_at(black_box(&RECORD), offset).expect("written");
            offset = (offset + 132) % (1 << 26);
        });
    });
}

struct Echo {
    asked: Event,
    answered: Event,
    seen: u64,
}

impl Job for Echo {
    fn step(&mut self) -> Step {
        let seen = self.asked.epoch();
        if seen != self.seen {
            self.seen = seen;
            self.answered.notify();
        }
        Step::Pending { event: self.asked.clone(), seen, deadline_micros: None }
    }
}

fn jobs(criterion: &mut Criterion) {
    let event = Event::new();
    criterion.bench_function("event: notify when nobody waits", |bencher| bencher.iter(|| event.notify()));
    let env = ThreadEnv::new(2);
    let (asked, answered) = (Event::new(), Event::new());
    env.spawn(Priority::High, Box::new(Echo { asked: asked.clone(), answered: answered.clone(), seen: 0 }));
    criterion.bench_function("threads: wake a job and be woken by it", |bencher| {
        bencher.iter(|| {
            let seen = answered.epoch();
            asked.notify();
            env.wait(&answered, seen, None)
        });
    });
    criterion.bench_function("threads: random", |bencher| bencher.iter(|| env.random()));
}

fn crashes(criterion: &mut Criterion) {
    let fs = SimFs::new();
    for number in 0..20 {
        let name = format!("{number}.sst");
        fs.write_all(Path::new(&name), &[number; 10_000]).expect("written");
    }
    let log = fs.create_new(Path::new("log")).expect("created");
    for record in 0..300 {
        log.write_at(&RECORD, record * 132).expect("written");
    }
    criterion.bench_function("sim: power cut, 240 KB in 21 files, everything kept", |bencher| {
        bencher.iter(|| fs.power_cut(&mut AllKept));
    });
    criterion.bench_function("sim: power cut, 240 KB in 21 files, at random, with fingerprint", |bencher| {
        bencher.iter(|| fs.power_cut(&mut Seeded::new(1)).fingerprint());
    });
    let sim = SimFs::new();
    let file = sim.create_new(Path::new("file")).expect("created");
    let mut offset = 0;
    criterion.bench_function("sim: write a record of 132 bytes", |bencher| {
        bencher.iter(|| {
            file.write_at(black_box(&RECORD), offset).expect("written");
            offset = (offset + 132) % (1 << 20);
        });
    });
}

criterion_group!(benches, files, jobs, crashes);
criterion_main!(benches);
