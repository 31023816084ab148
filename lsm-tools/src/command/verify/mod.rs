mod log;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use lsm_core::vfs::{PosixFs, Vfs};
use lsm_engine::inspect::{
    AddedBlob, AddedTable, Current, Kind, LogStart, RecordedEvents, VersionEdit, current, kind_of,
};
use lsm_sstable::{BlobExpectation, BlobReader, Table, TableOpen};
use lsm_wal::{RecordFileReader, RecoveryMode, RecoveryReport};

use crate::exit::{Failure, Result};
use crate::output::{Output, bytes, grouped};
use crate::progress::Progress;

/// Check every byte of every file
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  lsm verify db && echo sound
  lsm verify db --quiet          # print only what is wrong

Reads CURRENT, the manifest, every table and blob file that it names, and the segments and the window of the log. Compares \
every checksum, and every copy with the other. Goes on after damage, so that all of it is listed; then the \
exit code is 3, or 4 if nothing is damaged but a file could not be read. Nothing is changed.")]
pub(crate) struct Verify {
    /// Directory of the database
    db: PathBuf,
    /// Print only what is wrong
    #[arg(long, short)]
    quiet: bool,
}

impl Verify {
    pub(crate) fn run(self) -> Result<()> {
        let mut verifier =
            Verifier { db: &self.db, out: Output::stdout(), quiet: self.quiet, wrong: Vec::new() };
        verifier.run()?;
        let count = verifier.wrong.len() as u64;
        // Damage before what could not be read: it gives the exit code.
        let is_damage = |failure: &Failure| matches!(failure, Failure::Corruption(_));
        let worst = verifier.wrong.iter().position(is_damage).unwrap_or(0);
        match (count, verifier.wrong.into_iter().nth(worst)) {
            (_, None) => verifier.out.flush(),
            (1, Some(failure)) => Err(failure),
            (_, Some(failure)) => Err(failure.within(&format!("{} errors; one of them is", grouped(count)))),
        }
    }
}

struct Verifier<'a> {
    db: &'a Path,
    out: Output,
    quiet: bool,
    wrong: Vec<Failure>,
}

/// Tables, and numbers of blob files, that only the log names.
type OnlyInLog = (BTreeMap<u64, AddedTable>, BTreeSet<u64>);

/// What the manifest says there is.
#[derive(Default)]
struct Contents {
    tables: BTreeMap<u64, AddedTable>,
    /// By keyspace: the writes up to this number are in those tables.
    flushed: BTreeMap<u32, u64>,
    /// By the number of their files.
    blobs: BTreeMap<u64, AddedBlob>,
    log: Option<LogStart>,
    /// The log has a segment of this number or a higher one.
    log_begun: u64,
    /// No keyspace has this id or a higher one.
    next_keyspace: u32,
}

impl Verifier<'_> {
    fn run(&mut self) -> Result<()> {
        let current = current(&PosixFs, self.db)?;
        self.sound("CURRENT", format_args!("points at manifest {}", current.manifest))?;
        let contents = self.manifest(&current)?;
        self.tables(&contents)?;
        self.blobs(&contents)?;
        let in_log = self.log(&current, &contents)?;
        self.ingested(&in_log.0)?;
        in_log.1.iter().try_for_each(|&number| self.blob_of_log(number))?;
        self.events()?;
        self.left_over(&current, &contents, &in_log)
    }

    /// Reads all version edits; without them nothing else can be judged, so damage here ends the check.
    fn manifest(&mut self, current: &Current) -> Result<Contents> {
        let path = self.manifest_path(current);
        if !exists(&path)? {
            return Err(missing(&path));
        }
        let (contents, report) = read_manifest(&path, current)?;
        self.sound(
            &manifest_name(current),
            format_args!(
                "{} edits, {} tables, {} blob files",
                grouped(report.records),
                contents.tables.len(),
                contents.blobs.len()
            ),
        )?;
        for dropped in &report.dropped {
            self.note(format_args!("torn tail, promised to nobody: {dropped}"))?;
        }
        Ok(contents)
    }

    fn tables(&mut self, contents: &Contents) -> Result<()> {
        let total = contents.tables.values().map(|table| table.meta.file_bytes).sum();
        let progress = Progress::bytes("verifying", Some(total));
        let mut done = 0;
        for (number, added) in &contents.tables {
            let name = format!("{number:06}.sst");
            let path = self.db.join(&name);
            match verify_table(&path, added) {
                Err(_) if !exists(&path)? && !self.is_in_use(*number)? => {
                    self.note(format_args!("{name} was compacted away meanwhile"))?;
                }
                Err(_) if !exists(&path)? => self.wrong(missing(&path))?,
                Ok(()) => {
                    let (size, entries) = (bytes(added.meta.file_bytes), grouped(added.meta.entries));
                    self.sound(&name, format_args!("{size}, {entries} entries, level {}", added.level))?;
                }
                Err(failure) => self.wrong(failure)?,
            }
            done += added.meta.file_bytes;
            progress.set(done);
        }
        Ok(())
    }

    /// Checks tables that only the log names.
    fn ingested(&mut self, ingested: &BTreeMap<u64, AddedTable>) -> Result<()> {
        for (number, added) in ingested {
            let name = format!("{number:06}.sst");
            let path = self.db.join(&name);
            match verify_table(&path, added) {
                Ok(()) => {
                    let (size, entries) = (bytes(added.meta.file_bytes), grouped(added.meta.entries));
                    self.sound(&name, format_args!("{size}, {entries} entries, ingested"))?;
                }
                Err(_) if !exists(&path)? && self.is_flushed(added)? => {
                    self.note(format_args!("{name} was compacted away meanwhile"))?;
                }
                Err(_) if !exists(&path)? => self.wrong(missing(&path))?,
                Err(failure) => self.wrong(failure)?,
            }
        }
        Ok(())
    }

    fn blobs(&mut self, contents: &Contents) -> Result<()> {
        let total = contents.blobs.values().map(|blobs| blobs.meta.file_bytes).sum();
        let progress = Progress::bytes("verifying", Some(total));
        let mut done = 0;
        for (number, added) in &contents.blobs {
            let name = format!("{number:06}.blob");
            let path = self.db.join(&name);
            match verify_blobs(&path, Some(added)) {
                Err(_) if !exists(&path)? && !self.is_in_use(*number)? => {
                    self.note(format_args!("{name} was rewritten or dropped meanwhile"))?;
                }
                Err(_) if !exists(&path)? => self.wrong(missing(&path))?,
                Ok(()) => {
                    let (size, values) = (bytes(added.meta.file_bytes), grouped(added.meta.values));
                    self.sound(&name, format_args!("{size}, {values} values"))?;
                }
                Err(failure) => self.wrong(failure)?,
            }
            done += added.meta.file_bytes;
            progress.set(done);
        }
        Ok(())
    }

    /// Whether the manifest, read again, does without the log record of an ingested table.
    fn is_flushed(&self, added: &AddedTable) -> Result<bool> {
        let current = current(&PosixFs, self.db)?;
        let (contents, _) = read_manifest(&self.manifest_path(&current), &current)?;
        Ok(contents.flushed.get(&added.keyspace).is_none_or(|&flushed| flushed >= added.meta.global_sequence))
    }

    /// Checks a blob file that only the log points to.
    fn blob_of_log(&mut self, number: u64) -> Result<()> {
        let name = format!("{number:06}.blob");
        let path = self.db.join(&name);
        match verify_blobs(&path, None) {
            Ok(()) => self.sound(&name, format_args!("the log points to it")),
            Err(_) if !exists(&path)? => self.wrong(missing(&path)),
            Err(failure) => self.wrong(failure),
        }
    }

    /// Whether the manifest, read again, still names the table or blob file: another process may be writing.
    fn is_in_use(&self, number: u64) -> Result<bool> {
        let current = current(&PosixFs, self.db)?;
        let (contents, _) = read_manifest(&self.manifest_path(&current), &current)?;
        Ok(contents.tables.contains_key(&number) || contents.blobs.contains_key(&number))
    }

    fn manifest_path(&self, current: &Current) -> PathBuf {
        self.db.join(manifest_name(current))
    }

    /// Reads the flight recorder. Nothing needs it and it is not synced, so what is damaged there is only noted.
    fn events(&mut self) -> Result<()> {
        let mut recorded = RecordedEvents::of(Arc::new(PosixFs), self.db)?;
        let mut count = 0_u64;
        for event in &mut recorded {
            event?;
            count += 1;
        }
        for dropped in recorded.dropped() {
            self.note(format_args!("the flight recorder is damaged, which harms no data: {dropped}"))?;
        }
        if count == 0 { Ok(()) } else { self.sound("EVENTS", format_args!("{} events", grouped(count))) }
    }

    /// Names what is not part of the database, which is no damage.
    fn left_over(
        &mut self,
        current: &Current,
        contents: &Contents,
        (ingested, blobs): &OnlyInLog,
    ) -> Result<()> {
        let names = PosixFs
            .read_dir(self.db)
            .map_err(|error| Failure::io(&format!("list {}", self.db.display()), &error))?;
        let manifest = manifest_name(current);
        for name in names {
            let left_over = match kind_of(&name) {
                Some(Kind::Table) => {
                    let mut numbers = contents.tables.keys().chain(ingested.keys());
                    !numbers.any(|number| name == format!("{number:06}.sst"))
                }
                Some(Kind::Blob) => {
                    let mut numbers = contents.blobs.keys().chain(blobs);
                    !numbers.any(|number| name == format!("{number:06}.blob"))
                }
                Some(Kind::Manifest) => name != manifest,
                Some(_) => false,
                None => {
                    self.note(format_args!("{name} is not the database's"))?;
                    false
                }
            };
            if left_over {
                self.note(format_args!("{name} is not in use; opening the database for writing removes it"))?;
            }
        }
        Ok(())
    }

    fn sound(&mut self, name: &str, what: std::fmt::Arguments<'_>) -> Result<()> {
        if self.quiet { Ok(()) } else { self.out.line(format_args!("ok       {name:<16} {what}")) }
    }

    fn note(&mut self, what: std::fmt::Arguments<'_>) -> Result<()> {
        if self.quiet { Ok(()) } else { self.out.line(format_args!("note     {what}")) }
    }

    /// Lists what is damaged, or cannot be read, and goes on; anything else ends the check.
    fn wrong(&mut self, failure: Failure) -> Result<()> {
        match &failure {
            Failure::Corruption(message) => self.out.line(format_args!("DAMAGED  {message}"))?,
            Failure::Io(message) => self.out.line(format_args!("UNREADABLE  {message}"))?,
            _ => return Err(failure),
        }
        self.out.flush()?;
        self.wrong.push(failure);
        Ok(())
    }
}

fn manifest_name(current: &Current) -> String {
    format!("MANIFEST-{:06}", current.manifest)
}

fn exists(path: &Path) -> Result<bool> {
    match PosixFs.metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Failure::io(&format!("look at {}", path.display()), &error)),
    }
}

fn missing(path: &Path) -> Failure {
    Failure::Corruption(format!("{} is missing", path.display()))
}

fn read_manifest(path: &Path, current: &Current) -> Result<(Contents, RecoveryReport)> {
    let mut reader =
        RecordFileReader::open(&PosixFs, path, current.manifest_synced, RecoveryMode::TolerateTornTail)?;
    let mut contents = Contents::default();
    while let Some(record) = reader.next()? {
        let edit =
            VersionEdit::decode(record.payload).map_err(|error| error.at(record.path, record.offset))?;
        for (_, number) in edit.removed {
            contents.tables.remove(&number);
        }
        contents.blobs.extend(edit.added_blobs.into_iter().map(|blobs| (blobs.blob, blobs)));
        contents.tables.extend(edit.added.into_iter().map(|table| (table.number, table)));
        contents.tables.retain(|_, table| !edit.dropped.contains(&table.keyspace));
        for keyspace in &edit.keyspaces {
            contents.flushed.entry(keyspace.id).or_default();
        }
        for (keyspace, sequence) in edit.flushed {
            let flushed = contents.flushed.entry(keyspace).or_default();
            *flushed = sequence.max(*flushed);
        }
        contents.flushed.retain(|keyspace, _| !edit.dropped.contains(keyspace));
        contents.log = edit.log.or(contents.log);
        contents.log_begun = contents.log_begun.max(edit.log_begun.unwrap_or(0));
        contents.next_keyspace = contents.next_keyspace.max(edit.next_keyspace.unwrap_or(0));
    }
    // A blob that no table points to any more went by itself.
    let held: BTreeSet<u64> =
        contents.tables.values().flat_map(|table| table.meta.blobs.iter().map(|held| held.blob)).collect();
    let blobs = std::mem::take(&mut contents.blobs).into_values().filter(|blobs| held.contains(&blobs.blob));
    contents.blobs = blobs.map(|blobs| (blobs.number, blobs)).collect();
    Ok((contents, reader.report().clone()))
}

fn verify_blobs(path: &Path, added: Option<&AddedBlob>) -> Result<()> {
    let expected = added.map(|added| BlobExpectation::from(&added.meta));
    let blobs = BlobReader::open(&PosixFs, path, expected.as_ref())?;
    blobs.verify()?;
    if added.is_none_or(|added| blobs.meta() == added.meta) {
        return Ok(());
    }
    let detail = "the blob file is sound, but not the one that the manifest describes";
    Err(lsm_core::Error::corruption(path, 0, detail).into())
}

fn verify_table(path: &Path, added: &AddedTable) -> Result<()> {
    let table = Table::open(&PosixFs, path, None, &TableOpen::expecting(&added.meta))?;
    table.verify()?;
    if *table.meta() == added.meta {
        return Ok(());
    }
    Err(lsm_core::Error::corruption(
        path,
        0,
        "the table is sound, but not the one that the manifest describes",
    )
    .into())
}
