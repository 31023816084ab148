use super::TableShape;
use super::chunk::{Chunk, Summary};
use lsm_core::Slice;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Tables of a chunk at most, and at least where a change leaves fewer: half of what one that is too large is cut into.
const CHUNK_TABLES_MAX: usize = 128;
const CHUNK_TABLES_MIN: usize = CHUNK_TABLES_MAX / 4;

/// Tables sorted by key that share no key: one source of a read.
///
/// Neighbours may touch: the largest bound of one may equal the smallest of the next where a range tombstone ends
/// exclusively at that key.
///
/// A clone costs next to nothing, and so do sums: a run of very many tables is a list of chunks, which the run after a
/// [change](Self::with_changes) shares but for those that the change touches.
///
/// ```
/// use lsm_compaction::{RunShape, TableShape};
/// use std::sync::Arc;
///
/// let table = |id, smallest: &str, largest: &str| {
///     Arc::new(TableShape { id, smallest: smallest.into(), largest: largest.into(), bytes: 10, ..TableShape::default() })
/// };
/// let run = RunShape::new(vec![table(1, "a", "c"), table(2, "e", "g"), table(3, "i", "k")]);
/// assert_eq!(run.overlapping(b"d", b"j"), 1..3);
/// assert_eq!((run.bytes(), run.bytes_in(1..3)), (30, 20));
/// let run = run.with_changes(&[1], vec![table(4, "d", "e"), table(5, "f", "h")]);
/// assert_eq!(run.tables().map(|table| table.id).collect::<Vec<_>>(), [1, 4, 5, 3]);
/// ```
#[derive(Clone, Default)]
pub struct RunShape {
    tables: Arc<Tables>,
    bytes: u64,
    busy: Busy,
}

#[derive(Default)]
struct Tables {
    chunks: Vec<Arc<Chunk>>,
    /// For each chunk, the tables up to its end, and their bytes.
    ends: Vec<(usize, u64)>,
    summary: Summary,
}

/// Inputs of running compactions.
#[derive(Clone, Default)]
struct Busy {
    /// Ascending.
    positions: Vec<usize>,
    bytes: u64,
}

impl Tables {
    fn new(chunks: Vec<Arc<Chunk>>) -> Self {
        let (mut tables, mut bytes) = (0, 0_u64);
        let mut ends = Vec::with_capacity(chunks.len());
        let mut summary = Summary::default();
        for chunk in &chunks {
            tables += chunk.tables().len();
            bytes = bytes.saturating_add(chunk.bytes_of_first(chunk.tables().len()));
            ends.push((tables, bytes));
            summary.add(chunk.summary());
        }
        Self { chunks, ends, summary }
    }

    /// The chunk that has a position, and where in it that is; the number of chunks if none has.
    fn locate(&self, position: usize) -> (usize, usize) {
        let chunk = self.ends.partition_point(|(end, _)| *end <= position);
        (chunk, position - self.start(chunk).0)
    }

    /// Tables before a chunk, and their bytes.
    fn start(&self, chunk: usize) -> (usize, u64) {
        chunk.checked_sub(1).map_or((0, 0), |before| self.ends[before])
    }
}

impl RunShape {
    /// A run of these tables, by ascending key. None is an input of a running compaction.
    pub fn new(tables: Vec<Arc<TableShape>>) -> Self {
        let mut chunks = Vec::new();
        push_chunks(&mut chunks, tables);
        Self::of_chunks(chunks)
    }

    fn of_chunks(chunks: Vec<Arc<Chunk>>) -> Self {
        let tables = Tables::new(chunks);
        let bytes = tables.ends.last().map_or(0, |(_, bytes)| *bytes);
        Self { tables: Arc::new(tables), bytes, busy: Busy::default() }
    }

    /// The run without the tables at some positions, ascending, and with others, in any order. Inputs of running
    /// compactions that stay are marked as before.
    #[must_use]
    pub fn with_changes(&self, removed: &[usize], added: Vec<Arc<TableShape>>) -> Self {
        let mut changed = Self::of_chunks(self.changed_chunks(removed, added));
        let stays = |position: &&usize| removed.binary_search(position).is_err();
        for table in self.busy.positions.iter().filter(stays).filter_map(|position| self.get(*position)) {
            if let Some(position) = changed.position(table) {
                changed.mark_busy(position);
            }
        }
        changed
    }

    fn changed_chunks(&self, removed: &[usize], mut added: Vec<Arc<TableShape>>) -> Vec<Arc<Chunk>> {
        added.sort_by(by_key);
        let mut removed = removed.iter().copied().peekable();
        let mut added = added.into_iter().peekable();
        let old = &self.tables.chunks;
        let mut chunks: Vec<Arc<Chunk>> = Vec::with_capacity(old.len() + 1);
        let mut position = 0;
        for (index, chunk) in old.iter().enumerate() {
            let end = position + chunk.tables().len();
            let next = old.get(index + 1).and_then(|next| next.tables().first());
            let joins = |table: &Arc<TableShape>| next.is_none_or(|next| by_key(table, next).is_lt());
            if removed.peek().is_none_or(|position| *position >= end) && !added.peek().is_some_and(joins) {
                chunks.push(Arc::clone(chunk));
                position = end;
                continue;
            }
            let mut tables: Vec<Arc<TableShape>> = Vec::new();
            for table in chunk.tables() {
                if removed.next_if_eq(&position).is_none() {
                    tables.push(Arc::clone(table));
                }
                position += 1;
            }
            let staying = tables.len();
            while let Some(table) = added.next_if(joins) {
                tables.push(table);
            }
            if tables.len() > staying {
                tables.sort_by(by_key);
            }
            push_chunks(&mut chunks, tables);
        }
        push_chunks(&mut chunks, added.collect());
        chunks
    }

    /// The tables, by ascending key.
    pub fn tables(&self) -> impl DoubleEndedIterator<Item = &Arc<TableShape>> + Clone {
        self.tables.chunks.iter().flat_map(|chunk| chunk.tables())
    }

    /// The tables that are no inputs of running compactions, by ascending key.
    pub fn free_tables(&self) -> impl Iterator<Item = &Arc<TableShape>> {
        let mut busy = self.busy.positions.iter().copied().peekable();
        self.tables()
            .enumerate()
            .filter(move |(position, _)| busy.next_if_eq(position).is_none())
            .map(|(_, table)| table)
    }

    /// Number of tables.
    pub fn len(&self) -> usize {
        self.tables.ends.last().map_or(0, |(tables, _)| *tables)
    }

    /// Whether there is no table.
    pub fn is_empty(&self) -> bool {
        self.tables.chunks.is_empty()
    }

    /// The table at a position.
    pub fn get(&self, position: usize) -> Option<&Arc<TableShape>> {
        let (chunk, index) = self.tables.locate(position);
        self.tables.chunks.get(chunk)?.tables().get(index)
    }

    /// The tables at some positions; those that there are.
    pub fn range(&self, positions: Range<usize>) -> impl Iterator<Item = &Arc<TableShape>> + Clone {
        let (first, skipped) = self.tables.locate(positions.start);
        let tables =
            self.tables.chunks.get(first..).unwrap_or_default().iter().flat_map(|chunk| chunk.tables());
        tables.skip(skipped).take(positions.len())
    }

    /// The table with the smallest keys.
    pub fn first(&self) -> Option<&Arc<TableShape>> {
        self.tables.chunks.first()?.tables().first()
    }

    /// The table with the largest keys.
    pub fn last(&self) -> Option<&Arc<TableShape>> {
        self.tables.chunks.last()?.tables().last()
    }

    /// The table that was written last.
    pub(crate) fn newest(&self) -> Option<&Arc<TableShape>> {
        let newest_id = self.summary().newest_id;
        self.find_map(
            |summary| summary.newest_id == newest_id,
            |_, table| (table.id == newest_id).then_some(table),
        )
    }

    /// Where the table with this id and these bounds stands.
    pub fn position(&self, table: &TableShape) -> Option<usize> {
        let first = self.partition_point(|other| other.smallest < table.smallest);
        let alike = self.range(first..self.len()).take_while(|other| other.smallest == table.smallest);
        alike.enumerate().find(|(_, other)| other.id == table.id).map(|(index, _)| first + index)
    }

    /// The first position at which the table is not `before`, as [`slice::partition_point`] finds it.
    pub fn partition_point(&self, before: impl Fn(&TableShape) -> bool) -> usize {
        let chunks = &self.tables.chunks;
        let is_before = |chunk: &Arc<Chunk>| chunk.tables().last().is_some_and(|table| before(table));
        let chunk = chunks.partition_point(is_before);
        let within =
            chunks.get(chunk).map_or(0, |chunk| chunk.tables().partition_point(|table| before(table)));
        self.tables.start(chunk).0 + within
    }

    /// Positions of the tables that may hold a key of `[smallest, largest]`, both ends inclusive.
    pub fn overlapping(&self, smallest: &[u8], largest: &[u8]) -> Range<usize> {
        let start = self.partition_point(|table| *table.largest < *smallest);
        let end = self.partition_point(|table| *table.smallest <= *largest);
        start..end.max(start)
    }

    /// Smallest and largest key bound of the run; `None` if it is empty.
    pub fn bounds(&self) -> Option<(&Slice, &Slice)> {
        Some((&self.first()?.smallest, &self.last()?.largest))
    }

    /// Sum of the sizes of the tables.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Sum of the sizes of the tables at some positions.
    pub fn bytes_in(&self, positions: Range<usize>) -> u64 {
        self.bytes_before(positions.end).saturating_sub(self.bytes_before(positions.start))
    }

    fn bytes_before(&self, position: usize) -> u64 {
        let (chunk, index) = self.tables.locate(position);
        let within = self.tables.chunks.get(chunk).map_or(0, |chunk| chunk.bytes_of_first(index));
        self.tables.start(chunk).1.saturating_add(within)
    }

    /// Sum of the entries of the tables.
    pub fn entries(&self) -> u64 {
        self.tables.summary.entries
    }

    /// Marks the table at a position as an input of a running compaction.
    pub fn mark_busy(&mut self, position: usize) {
        let Some(table) = self.get(position) else { return };
        let bytes = table.bytes;
        // Inputs mostly come one after the other.
        let place = self.busy.positions.partition_point(|busy| *busy < position);
        if self.busy.positions.get(place) != Some(&position) {
            self.busy.positions.insert(place, position);
            self.busy.bytes = self.busy.bytes.saturating_add(bytes);
        }
    }

    /// Whether a table of this run is an input of a running compaction.
    pub fn is_busy(&self) -> bool {
        !self.busy.positions.is_empty()
    }

    /// Whether the table at a position is an input of a running compaction.
    pub fn is_busy_at(&self, position: usize) -> bool {
        self.busy.positions.binary_search(&position).is_ok()
    }

    /// Whether one of the tables at some positions is an input of a running compaction.
    pub fn is_busy_in(&self, positions: &Range<usize>) -> bool {
        let first = self.busy.positions.partition_point(|busy| *busy < positions.start);
        self.busy.positions.get(first).is_some_and(|busy| *busy < positions.end)
    }

    /// Sum of the sizes of the tables that are no inputs of running compactions.
    pub fn free_bytes(&self) -> u64 {
        self.bytes().saturating_sub(self.busy.bytes)
    }

    /// Whether both are the same run, of which nothing was copied.
    pub fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.tables, &other.tables)
    }

    pub(crate) fn summary(&self) -> &Summary {
        &self.tables.summary
    }

    /// The positions of neighbours, and what they come to together.
    pub(crate) fn summaries(&self) -> impl Iterator<Item = (Range<usize>, &Summary)> {
        let chunks = self.tables.chunks.iter().enumerate();
        chunks.map(|(index, chunk)| (self.tables.start(index).0..self.tables.ends[index].0, chunk.summary()))
    }

    /// The first answer of `ask` for a table with its position, where `may` does not rule it out for it and its
    /// neighbours.
    pub(crate) fn find_map<'s, T>(
        &'s self,
        may: impl Fn(&Summary) -> bool,
        mut ask: impl FnMut(usize, &'s Arc<TableShape>) -> Option<T>,
    ) -> Option<T> {
        if !may(&self.tables.summary) {
            return None;
        }
        self.tables.chunks.iter().enumerate().filter(|(_, chunk)| may(chunk.summary())).find_map(
            |(index, chunk)| {
                let start = self.tables.start(index).0;
                chunk.tables().iter().enumerate().find_map(|(index, table)| ask(start + index, table))
            },
        )
    }
}

/// Cuts tables into chunks of about the same size; few of them join the chunk before.
fn push_chunks(chunks: &mut Vec<Arc<Chunk>>, mut tables: Vec<Arc<TableShape>>) {
    if tables.is_empty() {
        return;
    }
    if tables.len() < CHUNK_TABLES_MIN
        && let Some(before) = chunks.pop()
    {
        tables.splice(0..0, before.tables().iter().cloned());
    }
    let count = tables.len().div_ceil(CHUNK_TABLES_MAX);
    let size = tables.len().div_ceil(count);
    chunks.extend(tables.chunks(size).map(|tables| Arc::new(Chunk::new(tables.to_vec()))));
}

/// The order of tables in a run.
fn by_key(a: &Arc<TableShape>, b: &Arc<TableShape>) -> std::cmp::Ordering {
    (&a.smallest, &a.largest).cmp(&(&b.smallest, &b.largest))
}

impl PartialEq for RunShape {
    fn eq(&self, other: &Self) -> bool {
        self.busy.positions == other.busy.positions
            && (self.is_shared_with(other) || self.tables().eq(other.tables()))
    }
}

impl Eq for RunShape {}

impl fmt::Debug for RunShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let busy = &self.busy.positions;
        f.debug_struct("RunShape")
            .field("tables", &self.tables().collect::<Vec<_>>())
            .field("busy", busy)
            .finish_non_exhaustive()
    }
}

impl From<Vec<Arc<TableShape>>> for RunShape {
    fn from(tables: Vec<Arc<TableShape>>) -> Self {
        Self::new(tables)
    }
}

impl FromIterator<Arc<TableShape>> for RunShape {
    fn from_iter<I: IntoIterator<Item = Arc<TableShape>>>(tables: I) -> Self {
        Self::new(tables.into_iter().collect())
    }
}
