//! `tracing` spans around opening, flushes and compactions, with what went in and out.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{Db, Metrics, Options};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Keeps all spans with their fields, and how often each was entered and left.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Span>>>);

#[derive(Clone, Debug, Default)]
struct Span {
    name: &'static str,
    fields: BTreeMap<&'static str, String>,
    entered: usize,
    left: usize,
}

impl Visit for Span {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

impl Spans {
    fn change(&self, id: &Id, change: impl FnOnce(&mut Span)) {
        change(&mut self.0.lock().unwrap()[id.into_u64() as usize - 1]);
    }

    fn named(&self, name: &str) -> Vec<Span> {
        self.0.lock().unwrap().iter().filter(|span| span.name == name).cloned().collect()
    }
}

impl Subscriber for Spans {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut span = Span { name: attributes.metadata().name(), ..Span::default() };
        attributes.record(&mut span);
        let mut spans = self.0.lock().unwrap();
        spans.push(span);
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        self.change(id, |span| values.record(span));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, id: &Id) {
        self.change(id, |span| span.entered += 1);
    }

    fn exit(&self, id: &Id) {
        self.change(id, |span| span.left += 1);
    }
}

fn open(fs: &SimFs) -> (Arc<SimEnv>, Db) {
    let env = Arc::new(SimEnv::new(1));
    let options = Options::new().memory(8 << 20).vfs(Arc::new(fs.clone()));
    let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
    (env, db)
}

fn sum(spans: &[Span], field: &str) -> u64 {
    spans.iter().map(|span| span.fields[field].parse::<u64>().unwrap()).sum()
}

#[test]
fn spans_say_what_flushes_compactions_and_recovery_did() {
    let (spans, fs) = (Spans::default(), SimFs::new());
    let metrics: Metrics = tracing::subscriber::with_default(spans.clone(), || {
        let (env, db) = open(&fs);
        for round in 0..6 {
            for key in 0..200_u32 {
                db.put(key.to_be_bytes(), vec![round; 300]).unwrap();
            }
            db.flush().unwrap();
        }
        db.compact_range::<&[u8]>(..).unwrap();
        db.wait_for_compactions().unwrap();
        db.put("left", "in the log").unwrap();
        let metrics = db.metrics();
        let crashed = fs.process_crash();
        drop(db);
        env.drop_jobs();
        let (env, db) = open(&crashed);
        db.close().unwrap();
        env.drop_jobs();
        metrics
    });

    let opened = spans.named("open");
    assert_eq!(opened.len(), 2);
    assert!(opened.iter().all(|span| span.fields["path"] == "/db" && span.fields["read_only"] == "false"));
    let replays = spans.named("replay");
    assert_eq!(replays.iter().map(|span| &*span.fields["records"]).collect::<Vec<_>>(), ["0", "1"]);

    let flushes = spans.named("flush");
    let before = flushes.len() - 1; // the last one is of the recovery
    assert_eq!(before as u64, metrics.flushes);
    assert_eq!(sum(&flushes[..before], "bytes_in"), metrics.flush_bytes_in);
    assert_eq!(sum(&flushes[..before], "bytes_out"), metrics.flush_bytes_out);
    assert!(flushes.iter().all(|span| span.fields["keyspace"] == "default" && span.fields["tables"] == "1"));

    let compactions = spans.named("compaction");
    assert_eq!(compactions.len() as u64, metrics.compactions);
    assert_eq!(sum(&compactions, "bytes_in"), metrics.compaction_bytes_in);
    assert_eq!(sum(&compactions, "bytes_out"), metrics.compaction_bytes_out);
    for compaction in &compactions {
        assert_eq!(compaction.fields["keyspace"], "default");
        for field in ["policy", "reason", "input_level", "output_level", "tables_in", "tables_out"] {
            assert!(compaction.fields.contains_key(field), "{field} in {compaction:?}");
        }
    }
    for span in [opened, replays, flushes, compactions].concat() {
        assert!(span.entered > 0 && span.entered == span.left, "{span:?}");
    }
}
