use super::TableShape;
use lsm_core::SequenceNumber;
use std::sync::Arc;

/// Small tables that are merged at a time: see [`small_tables`](crate::small_tables).
pub(crate) const SMALL_TABLES: usize = 4;

/// How many times as much as the largest of them all must be together. Each time that an entry is rewritten its table
/// grows by as much, so that it is rewritten a few times only.
const SMALL_TABLES_GROWTH: u64 = 3;

/// Neighbouring tables of a run, shared by all shapes of the tree until one of them goes or another joins them.
#[derive(Debug)]
pub(super) struct Chunk {
    tables: Vec<Arc<TableShape>>,
    /// For each table, the bytes up to its end.
    bytes_up_to: Vec<u64>,
    summary: Summary,
}

impl Chunk {
    /// `tables` are not empty.
    pub(super) fn new(tables: Vec<Arc<TableShape>>) -> Self {
        let mut sum: u64 = 0;
        let mut bytes_up_to = Vec::with_capacity(tables.len());
        let mut summary = Summary::default();
        for table in &tables {
            sum = sum.saturating_add(table.bytes);
            bytes_up_to.push(sum);
            summary.add(&Summary::of(table));
        }
        for window in tables.windows(SMALL_TABLES) {
            summary.small = SmallTables::least(summary.small, SmallTables::of(window.iter()));
        }
        Self { tables, bytes_up_to, summary }
    }

    pub(super) fn tables(&self) -> &[Arc<TableShape>] {
        &self.tables
    }

    /// Bytes of the first `count` tables.
    pub(super) fn bytes_of_first(&self, count: usize) -> u64 {
        count.checked_sub(1).map_or(0, |last| self.bytes_up_to[last])
    }

    pub(super) fn summary(&self) -> &Summary {
        &self.summary
    }
}

/// What some tables come to together, so that a policy need not look at each of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    pub(crate) entries: u64,
    /// Greatest id.
    pub(crate) newest_id: u64,
    /// When the last of them was written.
    pub(crate) newest_micros: u64,
    /// When the first entry expires; `None` if none does.
    pub(crate) earliest_expiry_micros: Option<u64>,
    /// Of the tables that delete anything; `None` if there are none.
    pub(crate) tombstones: Option<Tombstones>,
    /// Sum of [`TableShape::older_bytes`].
    pub(crate) older_bytes: u128,
    /// The windows of neighbours that lie in a chunk as a whole.
    pub(crate) small: Option<SmallTables>,
    /// The least bytes and the least entries of a table.
    pub(crate) least: Option<SmallTables>,
}

impl Summary {
    fn of(table: &TableShape) -> Self {
        Self {
            entries: table.entries,
            newest_id: table.id,
            newest_micros: table.created_micros,
            earliest_expiry_micros: (table.expiring > 0).then_some(table.earliest_expiry_micros),
            tombstones: table.has_tombstones().then(|| Tombstones::of(table)),
            older_bytes: table.older_bytes.into(),
            small: None,
            least: Some(SmallTables { bytes: table.bytes, entries: table.entries }),
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.entries = self.entries.saturating_add(other.entries);
        self.newest_id = self.newest_id.max(other.newest_id);
        self.newest_micros = self.newest_micros.max(other.newest_micros);
        self.older_bytes += other.older_bytes;
        let earliest = self.earliest_expiry_micros.into_iter().chain(other.earliest_expiry_micros).min();
        self.earliest_expiry_micros = earliest;
        self.small = SmallTables::least(self.small, other.small);
        self.least = SmallTables::least(self.least, other.least);
        match (&mut self.tombstones, &other.tombstones) {
            (Some(own), Some(other)) => own.add(other),
            (None, Some(other)) => self.tombstones = Some(other.clone()),
            (_, None) => {}
        }
    }
}

/// What the tables with tombstones come to.
#[derive(Clone, Debug)]
pub(crate) struct Tombstones {
    /// When the oldest of them was written to its first table.
    pub(crate) written_micros: u64,
    /// Tombstones and entries of the table with the largest share of tombstones.
    pub(crate) densest: Share,
    /// Hidden and older bytes of the table that hides the largest share of what is older.
    pub(crate) most_hidden: Share,
    /// Sum of [`TableShape::hidden_bytes`].
    pub(crate) hidden_bytes: u128,
    /// The least and the greatest of their largest sequence numbers.
    pub(crate) least_sequence: SequenceNumber,
    pub(crate) greatest_sequence: SequenceNumber,
}

impl Tombstones {
    fn of(table: &TableShape) -> Self {
        Self {
            written_micros: table.tombstones_since_micros(),
            densest: Share { part: table.tombstones, whole: table.entries.max(1) },
            most_hidden: Share { part: table.hidden_bytes, whole: table.older_bytes },
            hidden_bytes: table.hidden_bytes.into(),
            least_sequence: table.largest_sequence,
            greatest_sequence: table.largest_sequence,
        }
    }

    fn add(&mut self, other: &Self) {
        self.written_micros = self.written_micros.min(other.written_micros);
        self.densest = self.densest.larger(other.densest);
        self.most_hidden = self.most_hidden.larger(other.most_hidden);
        self.hidden_bytes += other.hidden_bytes;
        self.least_sequence = self.least_sequence.min(other.least_sequence);
        self.greatest_sequence = self.greatest_sequence.max(other.greatest_sequence);
    }
}

/// A part of something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) part: u64,
    pub(crate) whole: u64,
}

impl Share {
    /// Whether there is a part, and it is at least this share of the whole.
    pub(crate) fn is_at_least(self, percent: u64) -> bool {
        self.part > 0
            && u128::from(self.part) * 100 >= u128::from(self.whole).saturating_mul(u128::from(percent))
    }

    fn larger(self, other: Self) -> Self {
        let more =
            u128::from(other.part) * u128::from(self.whole) > u128::from(self.part) * u128::from(other.whole);
        // No part of nothing is the least, any part of nothing the most.
        let is_none = self.part == 0 && other.part > 0;
        if more || is_none { other } else { self }
    }
}

/// Bytes and entries of [`SMALL_TABLES`] neighbours that are worth a merge, or the least of each of several such windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SmallTables {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
}

impl SmallTables {
    /// `window` together, unless one of them is most of it.
    pub(crate) fn of<'s>(window: impl Iterator<Item = &'s Arc<TableShape>>) -> Option<Self> {
        let (mut together, mut largest) = (Self { bytes: 0, entries: 0 }, 0);
        for table in window {
            together.bytes = together.bytes.saturating_add(table.bytes);
            together.entries = together.entries.saturating_add(table.entries);
            largest = largest.max(table.bytes);
        }
        (largest <= together.bytes / SMALL_TABLES_GROWTH).then_some(together)
    }

    pub(crate) fn least(own: Option<Self>, other: Option<Self>) -> Option<Self> {
        let Some((a, b)) = own.zip(other) else { return own.or(other) };
        Some(Self { bytes: a.bytes.min(b.bytes), entries: a.entries.min(b.entries) })
    }
}
