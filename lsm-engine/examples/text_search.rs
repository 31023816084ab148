//! A search index over text: it finds the notes that contain all given words, and the words with a given prefix.
//!
//! ```text
//! cargo run -p lsm-engine --example text_search
//! ```
//!
//! Two keyspaces. `notes` maps a note's number to its text. `words` is the inverted index: its keys are a word, a
//! zero byte and the number of a note, so the notes with a word stand next to each other, in order, and so do the
//! words that begin alike. A note and its index entries are written in one batch: after a crash the index never
//! names a note that is not there, nor misses one that is.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::Path;

use lsm_engine::{Db, Durability, Keyspace, KeyspaceOptions, Snapshot, WriteBatch};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// The number of a note. It is stored big-endian, so that keys sort like numbers.
type NoteId = u32;

struct TextIndex {
    db: Db,
    notes: Keyspace,
    words: Keyspace,
}

/// The number of occurrences of each word.
fn count_words(text: &str) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for word in text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()) {
        *counts.entry(word.to_lowercase()).or_insert(0) += 1;
    }
    counts
}

fn posting_key(word: &str, note: NoteId) -> Vec<u8> {
    [word.as_bytes(), &[0], &note.to_be_bytes()].concat()
}

/// The word and the note of an index key.
fn parse_posting(key: &[u8]) -> Result<(&str, NoteId)> {
    let (rest, note) = key.split_last_chunk::<4>().ok_or("a key of the index is too short")?;
    let (_, word) = rest.split_last().ok_or("a key of the index has no word")?;
    Ok((std::str::from_utf8(word)?, NoteId::from_be_bytes(*note)))
}

impl TextIndex {
    fn open(path: &Path) -> Result<Self> {
        let db = Db::open(path)?;
        let notes = db.keyspace("notes", KeyspaceOptions::new())?;
        let words = db.keyspace("words", KeyspaceOptions::new())?;
        Ok(Self { db, notes, words })
    }

    /// Writes or replaces a note. Index entries of words that are only in the old text are deleted.
    fn write(&self, note: NoteId, text: &str) -> Result<()> {
        let mut batch = WriteBatch::new();
        if let Some(old) = self.notes.get(note.to_be_bytes())? {
            for word in count_words(std::str::from_utf8(&old)?).keys() {
                batch.delete_in(&self.words, posting_key(word, note));
            }
        }
        for (word, count) in count_words(text) {
            batch.put_in(&self.words, posting_key(&word, note), count.to_be_bytes());
        }
        batch.put_in(&self.notes, note.to_be_bytes(), text);
        Ok(self.db.write_with(batch, Durability::Sync)?)
    }

    /// The notes that contain all of the words, as of the snapshot.
    fn search(&self, snapshot: &Snapshot, query: &str) -> Result<Vec<NoteId>> {
        let mut matches: Option<BTreeSet<NoteId>> = None;
        for word in count_words(query).keys() {
            let mut notes = BTreeSet::new();
            for entry in snapshot.prefix_in(&self.words, [word.as_bytes(), &[0]].concat()) {
                let (key, _) = entry?;
                notes.insert(parse_posting(&key)?.1);
            }
            matches = Some(match matches {
                Some(so_far) => &so_far & &notes,
                None => notes,
            });
        }
        Ok(matches.unwrap_or_default().into_iter().collect())
    }

    /// The words with the prefix `start`, and how often each occurs in all notes.
    fn complete(&self, start: &str) -> Result<BTreeMap<String, u32>> {
        let mut counts = BTreeMap::new();
        for entry in self.words.prefix(start) {
            let (key, value) = entry?;
            let (word, _) = parse_posting(&key)?;
            let count = value.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
            *counts.entry(word.to_owned()).or_insert(0) += count;
        }
        Ok(counts)
    }
}

fn main() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let index = TextIndex::open(directory.path())?;
    let notes = [
        "The log is written first. A log is only ever appended to.",
        "A sorted table is written once and never changed.",
        "Merging sorted tables keeps reads fast.",
        "Reads ask the newest table first.",
        "The manifest is a log of changes to the set of tables.",
    ];
    for (note, text) in (1..).zip(notes) {
        index.write(note, text)?;
    }
    let before = index.db.snapshot()?;
    for query in ["log", "sorted written", "tables READS", "reads first", "tree"] {
        println!("{query:>16}: notes {:?}", index.search(&before, query)?);
    }
    println!("words in ta-: {:?}", index.complete("ta")?);

    index.write(3, "Merging is what the log never needs.")?;
    let now = index.db.snapshot()?;
    println!("note 3 rewritten; \"log\" finds {:?}", index.search(&now, "log")?);
    println!("the snapshot of before still finds {:?}", index.search(&before, "log")?);
    drop((before, now));

    let TextIndex { db, .. } = index;
    db.close()?;
    let index = TextIndex::open(directory.path())?;
    let now = index.db.snapshot()?;
    assert_eq!(index.search(&now, "log")?, [1, 3, 5]);
    println!("closed and opened again: \"log never\" finds {:?}", index.search(&now, "log never")?);
    for note in index.search(&now, "log never")? {
        let text = now
            .get_in(&index.notes, note.to_be_bytes())?
            .ok_or("the index names a note that is not there")?;
        println!("  note {note}: {}", std::str::from_utf8(&text)?);
    }
    Ok(())
}
