//! An immutable lookup file: a word list, written once, asked for words, completions and neighbours.
//!
//! ```text
//! cargo run --release -p lsm-sstable --example word_list                        a small list that comes along
//! cargo run --release -p lsm-sstable --example word_list -- WORDS.txt tabl      your own, one word a line
//! ```
//!
//! The value of each word is the number of its line. The file can be copied anywhere and opened by any number of
//! processes; every byte that is read from it is checked.

#![expect(
    clippy::disallowed_methods,
    reason = "reads the word list of the user, and draws an id from the clock"
)]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use lsm_core::vfs::PosixFs;
use lsm_core::{Cursor, Entry, SEQUENCE_MAX, ValueKind, hash::key_hash};
use lsm_sstable::{BlockCache, CursorAccess, Table, TableId, TableOpen, TableOptions, TableWriter};

const WORDS: &str = "ability able about above accept across act action add admit adult after again against age agent \
    ago agree air all allow almost alone along already also always among amount analysis and animal another answer \
    any apply approach area argue arm around arrive art article artist ask assume attack author away baby back bad \
    bag ball bank bar base beat beautiful because become bed before begin behavior behind believe benefit best \
    better between beyond big bill bit black blood blue board body book born both box boy break bring brother \
    budget build building business but buy call camera campaign can cancer candidate capital car card care career \
    carry case catch cause cell center central century certain chair challenge chance change character charge check \
    child choice choose church citizen city civil claim class clear clearly close coach cold collection college \
    color come commercial common community company compare computer concern condition conference consider contain \
    continue control cost could country couple course court cover create crime cultural culture cup current \
    customer cut dark data table tablet tabloid taboo tabular tackle tail take tale talent talk tall tame tank tap \
    tape target task taste tax tea teach team tear tell ten tend tennis tent term test text than thank";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let text = match arguments.next() {
        Some(file) => std::fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?,
        None => WORDS.to_owned(),
    };
    let asked: Vec<String> = arguments.collect();
    let asked = if asked.is_empty() { vec!["tab".into(), "between".into(), "zebra".into()] } else { asked };

    let directory = tempfile::tempdir()?; // removed at the end
    let path = directory.path().join("word_list.sst");
    build(&path, &text)?;

    // As another program would, later: open the file and ask it.
    let started = Instant::now();
    let table = Table::open(&PosixFs, &path, Some(BlockCache::new(4 << 20)), &TableOpen::default())?;
    println!("opened in {:?}; {} bytes of memory", started.elapsed(), table.pinned_bytes());
    let report = table.verify()?;
    println!("verified {} words in {} bytes", report.entries, report.file_bytes);
    for word in asked {
        ask(&table, &word)?;
    }
    Ok(())
}

fn build(path: &Path, text: &str) -> Result<(), Box<dyn Error>> {
    // A table takes its entries in order and each once; a BTreeMap gives both.
    let words: BTreeMap<&str, usize> =
        text.split_whitespace().enumerate().map(|(number, word)| (word, number + 1)).collect();
    let started = Instant::now();
    let id = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos();
    let mut writer = TableWriter::create(&PosixFs, path, TableId(id), &TableOptions::default())?;
    for (word, number) in &words {
        let value = number.to_string();
        writer.add(Entry {
            key: word.as_bytes(),
            sequence: 0,
            kind: ValueKind::Put,
            value: value.as_bytes(),
        })?;
    }
    let meta = writer.finish()?;
    println!("wrote {} words, {} bytes, in {:?}", meta.entries, meta.file_bytes, started.elapsed());
    Ok(())
}

fn ask(table: &Arc<Table>, word: &str) -> Result<(), Box<dyn Error>> {
    let key = word.as_bytes();
    match table.get(key, key_hash(key), SEQUENCE_MAX)? {
        Some(found) => println!("\"{word}\" is word number {}", String::from_utf8_lossy(&found.value)),
        None => println!("\"{word}\" is not in the list"),
    }
    let mut cursor = table.cursor(CursorAccess::Cached);
    cursor.seek(key, SEQUENCE_MAX);
    let mut completions = Vec::new();
    while let Some(entry) = cursor.entry().filter(|entry| entry.key.starts_with(key) && completions.len() < 8)
    {
        completions.push(String::from_utf8_lossy(entry.key).into_owned());
        cursor.next();
    }
    println!("  begins: {}", completions.join(", "));
    cursor.seek_for_prev(key, SEQUENCE_MAX);
    if let Some(entry) = cursor.entry() {
        println!("  comes after: {}", String::from_utf8_lossy(entry.key));
    }
    match cursor.error() {
        Some(error) => Err(error.clone().into()),
        None => Ok(()),
    }
}
