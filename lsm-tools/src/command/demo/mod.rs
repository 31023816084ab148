//! A tour of the engine on real data, which ends with a process killed in the middle of its writes.

mod cities;
mod directory;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use lsm_engine::{Db, Durability, Keyspace, KeyspaceOptions, Options, WriteBatch};

use crate::exit::{Failure, Result};
use crate::output::{Output, duration, grouped, rate};
use crate::stopwatch::Stopwatch;
use crate::tree;
use cities::City;
use writer::Writer;

pub(crate) use writer::{DemoWriter, WRITER_COMMAND};

const BATCH_CITIES: usize = 1000;
const RANDOM_READS: usize = 100_000;
const SYNCED_WRITES: u64 = 100;
/// The child is killed when it has acknowledged so many writes.
const CHILD_WRITES: u64 = 50_000;
const INDEX: &str = "by-population";
const REYKJAVIK: &str = "Iceland/Reykjavík/3413829";

/// Show what the engine does, on 34,006 cities of the world
#[derive(Args, Debug)]
#[command(after_long_help = "\
Loads a public data set, reads it, scans it forwards and backwards, keeps a snapshot beside an \
overwrite, writes a batch, kills a writing process and recovers every write that it had \
acknowledged, compacts, and prints the tree and the time that it took. The directory stays, for you \
to look inside; the next demo clears it.

Examples:
  lsm demo
  lsm demo --dir /tmp/cities")]
pub(crate) struct Demo {
    /// Where to put the database: a new directory, an empty one, or that of an earlier demo
    #[arg(long, value_name = "DIR", default_value = "lsm-demo")]
    dir: PathBuf,
}

impl Demo {
    pub(crate) fn run(self) -> Result<()> {
        directory::claim(&self.dir)?;
        let cities = cities::cities()?;
        let mut tour = Tour { out: Output::stdout(), dir: &self.dir, step: 0, figures: Vec::new() };
        tour.out.line(format_args!(
            "{} cities of the world (GeoNames, CC BY 4.0) in the directory {}",
            grouped(cities.len() as u64),
            self.dir.display()
        ))?;

        let db = Options::new().open(&self.dir)?;
        let index = db.keyspace(INDEX, KeyspaceOptions::default())?;
        tour.load(&db, &index, &cities)?;
        tour.point_reads(&db, &cities)?;
        tour.prefix_scan(&db, cities.len())?;
        tour.reverse_range(&db, &index)?;
        tour.snapshot(&db)?;
        tour.batch(&db, &index)?;
        tour.synced_writes(&db)?;
        drop(index);
        db.close()?;

        tour.kill()?;
        tour.compact()?;
        tour.show_figures()?;
        tour.look_inside()
    }
}

/// What a step took.
struct Figure {
    what: &'static str,
    count: u64,
    micros: u64,
}

struct Tour<'a> {
    out: Output,
    dir: &'a Path,
    step: u32,
    figures: Vec<Figure>,
}

impl Tour<'_> {
    fn load(&mut self, db: &Db, index: &Keyspace, cities: &[City]) -> Result<()> {
        self.title(
            "Load",
            "each batch puts 1,000 cities, and an index of them by population, or none of it",
        )?;
        let stopwatch = Stopwatch::start();
        for cities in cities.chunks(BATCH_CITIES) {
            let mut batch = WriteBatch::new();
            for city in cities {
                batch.put(&city.key, &city.value).put_in(index, city.index_key(), &city.key);
            }
            db.write(batch)?;
        }
        let records = 2 * cities.len() as u64;
        self.figure("records loaded, in batches", records, &stopwatch)?;
        Ok(())
    }

    fn point_reads(&mut self, db: &Db, cities: &[City]) -> Result<()> {
        self.title("Point read", &format!("get {REYKJAVIK}"))?;
        let value = db.get(REYKJAVIK)?.ok_or_else(|| missing(REYKJAVIK))?;
        self.say(format_args!("{}", text(&value)))?;
        let stopwatch = Stopwatch::start();
        for number in 0..RANDOM_READS {
            // A prime far larger than the number of cities goes round them in an order without order.
            let city = &cities[number.wrapping_mul(2_147_483_647) % cities.len()];
            let value = db.get(&city.key)?.ok_or_else(|| missing(&city.key))?;
            if *value != *city.value.as_bytes() {
                return Err(Failure::Corruption(format!("{} has a wrong value", city.key)));
            }
        }
        self.figure("random reads, each value checked", RANDOM_READS as u64, &stopwatch)
    }

    fn prefix_scan(&mut self, db: &Db, city_count: usize) -> Result<()> {
        self.title("Prefix scan", "all keys that begin with Iceland/")?;
        for record in db.prefix("Iceland/") {
            let (key, value) = record?;
            self.say(format_args!("{:<32} {}", text(&key), text(&value)))?;
        }
        let stopwatch = Stopwatch::start();
        let mut count = 0;
        for record in db {
            record?;
            count += 1;
        }
        if count != city_count {
            return Err(Failure::Corruption(format!("a scan found {count} of {city_count} cities")));
        }
        self.figure("records scanned in order", count as u64, &stopwatch)
    }

    fn reverse_range(&mut self, db: &Db, index: &Keyspace) -> Result<()> {
        self.title("Reverse range", "the five largest cities of Brazil: the index from its end backwards")?;
        for entry in index.range("Brazil/".."Brazil0").rev().take(5) {
            let (index_key, city) = entry?;
            let population = text(&index_key).split('/').nth(1).and_then(|digits| digits.parse().ok());
            let value = db.get(&city)?.ok_or_else(|| missing(&text(&city)))?;
            let value: serde_json::Value = serde_json::from_slice(&value).unwrap_or_default();
            self.say(format_args!(
                "{:>12}  {}",
                grouped(population.unwrap_or(0)),
                value["name"].as_str().unwrap_or("?")
            ))?;
        }
        Ok(())
    }

    fn snapshot(&mut self, db: &Db) -> Result<()> {
        self.title("Snapshot", "what was there stays readable beside what replaces it")?;
        let before = db.get(REYKJAVIK)?.ok_or_else(|| missing(REYKJAVIK))?;
        let snapshot = db.snapshot()?;
        db.put(REYKJAVIK, "under the volcano")?;
        let now = db.get(REYKJAVIK)?.ok_or_else(|| missing(REYKJAVIK))?;
        let then = snapshot.get(REYKJAVIK)?.ok_or_else(|| missing(REYKJAVIK))?;
        self.say(format_args!("now       {}", text(&now)))?;
        self.say(format_args!("snapshot  {}", text(&then)))?;
        db.put(REYKJAVIK, &before)?;
        if *then == *before { Ok(()) } else { Err(Failure::Corruption("the snapshot changed".to_owned())) }
    }

    fn batch(&mut self, db: &Db, index: &Keyspace) -> Result<()> {
        self.title("Batch", "three writes to two keyspaces, visible and durable together or not at all")?;
        let mut batch = WriteBatch::new();
        batch.put("Atlantis/Poseidonis/0", "{\"name\":\"Poseidonis\",\"population\":0}");
        batch.put_in(index, "Atlantis/0000000000/0", "Atlantis/Poseidonis/0");
        batch.put("Atlantis/Kerne/1", "{\"name\":\"Kerne\",\"population\":0}");
        db.write(batch)?;
        self.say(format_args!("risen: {} cities, {} in the index", db.prefix("Atlantis/").count(), {
            index.prefix("Atlantis/").count()
        }))?;
        let mut batch = WriteBatch::new();
        batch.delete_range("Atlantis/".."Atlantis0").delete_range_in(index, "Atlantis/".."Atlantis0");
        db.write(batch)?;
        self.say(format_args!("sunk:  {} cities, {} in the index", db.prefix("Atlantis/").count(), {
            index.prefix("Atlantis/").count()
        }))
    }

    fn synced_writes(&mut self, db: &Db) -> Result<()> {
        self.title(
            "Durability",
            "a write survives kill -9 once `put` returns; asked to sync, also a power cut",
        )?;
        let stopwatch = Stopwatch::start();
        for number in 0..SYNCED_WRITES {
            db.put_with("synced", number.to_string(), Durability::Sync)?;
        }
        db.delete("synced")?;
        self.figure("writes, each synced to the disk", SYNCED_WRITES, &stopwatch)
    }

    fn kill(&mut self) -> Result<()> {
        self.title("Kill -9", "a child process writes to this database and says when each write is done")?;
        self.out.flush()?;
        let mut writer = Writer::start(self.dir)?;
        writer.wait_for(1)?;
        let stopwatch = Stopwatch::start();
        writer.wait_for(CHILD_WRITES)?;
        let (before, micros) = (writer.acknowledged(), stopwatch.micros());
        let status = writer.kill()?;
        let acknowledged = writer.acknowledged();
        self.figures.push(Figure { what: "writes by the child, told one by one", count: before, micros });
        self.say(format_args!(
            "process {} killed ({status}); it had acknowledged {} writes",
            writer.id(),
            grouped(acknowledged)
        ))?;

        let stopwatch = Stopwatch::start();
        let db = Db::open(self.dir)?;
        let opened_micros = stopwatch.micros();
        let replayed = db.recovery().records;
        let mut missing_writes = 0_u64;
        for number in 0..acknowledged {
            if db.get(writer::key(number))?.is_none_or(|value| *value != *writer::value(number).as_bytes()) {
                missing_writes += 1;
            }
        }
        let found = db.prefix(writer::PREFIX).count() as u64;
        db.close()?;
        self.say(format_args!(
            "opened again in {}: {} log records replayed",
            duration(opened_micros),
            grouped(replayed)
        ))?;
        self.say(format_args!(
            "{} of {} acknowledged writes are there, {missing_writes} missing; {} more were under way",
            grouped(acknowledged - missing_writes),
            grouped(acknowledged),
            found.saturating_sub(acknowledged)
        ))?;
        if missing_writes > 0 {
            self.out.flush()?;
            return Err(Failure::Corruption(format!("{missing_writes} acknowledged writes were lost")));
        }
        Ok(())
    }

    fn compact(&mut self) -> Result<()> {
        self.title("Compact", "one range delete takes the child's records away; merging frees their space")?;
        let db = Db::open(self.dir)?;
        db.delete_range(writer::PREFIX.."written-by-the-child0")?;
        db.flush()?;
        let index = db.keyspace(INDEX, KeyspaceOptions::default())?;
        let stopwatch = Stopwatch::start();
        db.compact_range::<&[u8]>(..)?;
        index.compact_range::<&[u8]>(..)?;
        db.wait_for_compactions()?;
        self.say(format_args!("done in {}; the tree now:", duration(stopwatch.micros())))?;
        for keyspace in &db.metrics().keyspaces {
            tree::print(&mut self.out, "   ", keyspace)?;
        }
        drop(index);
        Ok(db.close()?)
    }

    fn show_figures(&mut self) -> Result<()> {
        self.out.line(format_args!("\nFigures of this run"))?;
        for Figure { what, count, micros } in std::mem::take(&mut self.figures) {
            self.say(format_args!("{what:<38} {:>9}  {:>10}", grouped(count), rate(count, micros)))?;
        }
        Ok(())
    }

    fn look_inside(&mut self) -> Result<()> {
        let program = std::env::args().next().unwrap_or_else(|| "lsm".to_owned());
        let dir = self.dir.display();
        self.out.line(format_args!("\nLook inside"))?;
        for (command, arguments) in [
            ("get", REYKJAVIK),
            ("scan", "--prefix Japan/ --reverse --limit 5"),
            ("scan", "--keyspace by-population --prefix India/ --reverse --limit 5"),
            ("count", ""),
            ("stats", ""),
            ("verify", ""),
        ] {
            self.say(format_args!("{}", format!("{program} {command} {dir} {arguments}").trim_end()))?;
        }
        self.out.flush()
    }

    fn title(&mut self, name: &str, what: &str) -> Result<()> {
        self.step += 1;
        self.out.line(format_args!("\n{}. {name}: {what}", self.step))?;
        self.out.flush()
    }

    fn say(&mut self, line: fmt::Arguments<'_>) -> Result<()> {
        self.out.line(format_args!("   {line}"))
    }

    fn figure(&mut self, what: &'static str, count: u64, stopwatch: &Stopwatch) -> Result<()> {
        let micros = stopwatch.micros();
        self.figures.push(Figure { what, count, micros });
        self.say(format_args!("{} {what}: {}, {}", grouped(count), duration(micros), rate(count, micros)))
    }
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn missing(key: &str) -> Failure {
    Failure::Corruption(format!("{key} was written and is not there"))
}
