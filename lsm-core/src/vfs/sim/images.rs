//! A choice of the images that a power cut may leave.

use std::collections::BTreeSet;

use super::content::{PAGE_BYTES, SECTOR_BYTES, SECTOR_COUNT};
use super::crash::{Choice, Fate, Piece, PieceKind, Seeded};
use super::file_system::SimFs;
use super::tree::{Node, Tree};

/// Up to so many units, every subset of them is an image.
const SUBSET_UNITS_MAX: usize = 6;
/// Random images.
const SEEDED_COUNT: u64 = 8;
const IMAGES_MAX: usize = 256;

/// One state that a power cut may have left.
#[derive(Clone, Debug)]
pub struct CrashImage {
    /// How it came about, for the message of a failed test.
    pub description: String,
    /// The file system of the next boot.
    pub fs: SimFs,
}

/// Distinct images of what a power cut leaves, the telling ones first; made by [`SimFs::crash_images`].
///
/// In this order, and each of the data images once with all unsynced names lost and once with all kept, each of
/// the name images with all unsynced data lost and kept:
///
/// 1. everything lost, everything kept, only names, only data;
/// 2. the data of each file alone, and missing; its length alone, and missing;
/// 3. each change of names alone, and missing; each rename with both names; the first so many changes;
/// 4. if there are at most six changed files, pages and changes of names together, every subset of them;
/// 5. each page alone with the length of its file, and missing; each file torn at every sector of its last pages;
/// 6. eight images with every sector, length and name decided at random.
///
/// There are at most 256, and fewer pages are looked at where there would be more, unless
/// [`at_most`](CrashImages::at_most) says otherwise.
#[derive(Debug)]
pub struct CrashImages {
    fs: SimFs,
    seed: u64,
    images_max: usize,
    plans: Option<std::vec::IntoIter<Plan>>,
    seen: BTreeSet<u64>,
}

impl SimFs {
    /// Distinct images of what a power cut may leave now: everything unsynced lost, everything kept, each piece
    /// alone, each piece missing, tears, and random ones; see [`CrashImages`].
    pub fn crash_images(&self) -> CrashImages {
        let state = self.state.lock();
        CrashImages::new(state.restarted(state.tree.clone()))
    }
}

impl CrashImages {
    fn new(fs: SimFs) -> Self {
        Self { fs, seed: 0, images_max: IMAGES_MAX, plans: None, seen: BTreeSet::new() }
    }

    /// Bounds the number of images.
    #[must_use]
    pub fn at_most(mut self, count: usize) -> Self {
        self.images_max = count;
        self
    }

    /// Draws the random images from this seed.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}

impl Iterator for CrashImages {
    type Item = CrashImage;

    fn next(&mut self) -> Option<CrashImage> {
        if self.seen.len() >= self.images_max {
            return None;
        }
        let Self { fs, seed, images_max, .. } = self;
        let plans =
            self.plans.get_or_insert_with(|| plans(&fs.state.lock().tree, *seed, *images_max).into_iter());
        for mut plan in plans {
            let image = fs.power_cut(&mut plan);
            if self.seen.insert(image.fingerprint()) {
                return Some(CrashImage { description: format!("{plan:?}"), fs: image });
            }
        }
        None
    }
}

/// What is kept or lost as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    File { inode: u64 },
    Length { inode: u64 },
    Page { inode: u64, page: u64 },
    Name { directory: u64, index: usize },
}

impl Unit {
    fn contains(self, piece: &Piece<'_>) -> bool {
        match (self, piece.kind) {
            (Self::File { inode }, PieceKind::Sector { .. } | PieceKind::Length)
            | (Self::Length { inode }, PieceKind::Length) => inode == piece.inode,
            (Self::Page { inode, page }, PieceKind::Sector { offset }) => {
                inode == piece.inode && page == offset / PAGE_BYTES as u64
            }
            (Self::Name { directory, index }, PieceKind::Entry { index: piece_index, .. }) => {
                directory == piece.inode && index == piece_index
            }
            _ => false,
        }
    }
}

/// How to make an image. Its debug form is the description that a failed test prints.
#[derive(Clone, Debug)]
enum Plan {
    /// All data and all names are kept or lost, but for one unit.
    Except { data_kept: bool, names_kept: bool, unit: Option<Unit> },
    /// Files may have both names.
    BothNames { data_kept: bool },
    /// The first so many changes of each directory are kept.
    FirstNames { count: usize, data_kept: bool },
    /// Of one file what is before an offset is kept, with its length; all else is kept or lost.
    Torn { inode: u64, offset: u64, rest_kept: bool },
    /// Only these units are kept, and the lengths of their files.
    Only(Vec<Unit>),
    /// Everything by chance.
    Random(Seeded),
}

impl Choice for Plan {
    fn choose(&mut self, piece: &Piece<'_>) -> Fate {
        let is_name = matches!(piece.kind, PieceKind::Entry { .. });
        let kept = match self {
            Self::Except { data_kept, names_kept, unit } => {
                let base = if is_name { *names_kept } else { *data_kept };
                let is_unit = unit.is_some_and(|unit| unit.contains(piece));
                // A page alone is not to be seen without the length of its file.
                let length = matches!((&unit, piece.kind),
                    (Some(Unit::Page { inode, .. }), PieceKind::Length) if *inode == piece.inode);
                length || base != is_unit
            }
            Self::BothNames { .. } if is_name => return Fate::BothNames,
            Self::BothNames { data_kept } => *data_kept,
            Self::FirstNames { count, data_kept } => match piece.kind {
                PieceKind::Entry { index, .. } => index < *count,
                _ => *data_kept,
            },
            Self::Torn { inode, offset, rest_kept } => match piece.kind {
                PieceKind::Sector { offset: sector } if piece.inode == *inode => sector < *offset,
                PieceKind::Length if piece.inode == *inode => true,
                PieceKind::Entry { .. } => true,
                _ => *rest_kept,
            },
            Self::Only(units) => units.iter().any(|unit| {
                unit.contains(piece)
                    || matches!((unit, piece.kind),
                        (Unit::Page { inode, .. }, PieceKind::Length) if *inode == piece.inode)
            }),
            Self::Random(seeded) => return seeded.choose(piece),
        };
        if kept { Fate::Kept } else { Fate::Lost }
    }
}

/// The images of [`CrashImages`], in its order, before those that are alike are left out.
fn plans(tree: &Tree, seed: u64, images_max: usize) -> Vec<Plan> {
    let pending = Pending::of(tree);
    let mut plans = Vec::new();
    let both = [false, true];
    for (data_kept, names_kept) in [(false, false), (true, true), (false, true), (true, false)] {
        plans.push(Plan::Except { data_kept, names_kept, unit: None });
    }
    let except = |plans: &mut Vec<Plan>, unit: Unit| {
        for data_kept in both {
            for names_kept in both {
                plans.push(Plan::Except { data_kept, names_kept, unit: Some(unit) });
            }
        }
    };
    for unit in pending.files.iter().chain(&pending.lengths).chain(&pending.names) {
        except(&mut plans, *unit);
    }
    for data_kept in both {
        if !pending.names.is_empty() {
            plans.push(Plan::BothNames { data_kept });
        }
        for count in 1..pending.names_longest {
            plans.push(Plan::FirstNames { count, data_kept });
        }
    }
    let units: Vec<Unit> =
        pending.pages.iter().chain(&pending.names).chain(&pending.lengths).copied().collect();
    if units.len() <= SUBSET_UNITS_MAX {
        for subset in 0_usize..1 << units.len() {
            let kept = |(index, unit): (usize, &Unit)| (subset & (1 << index) != 0).then_some(*unit);
            plans.push(Plan::Only(units.iter().enumerate().filter_map(kept).collect()));
        }
    }
    let room = images_max.saturating_sub(plans.len()).max(SECTOR_COUNT);
    let stride = (pending.pages.len() * 4).div_ceil(room).max(1);
    for unit in pending.pages.iter().step_by(stride) {
        except(&mut plans, *unit);
    }
    for (inode, page) in pending.last_pages {
        for sector in 0..SECTOR_COUNT {
            let offset = page * PAGE_BYTES as u64 + (sector * SECTOR_BYTES) as u64;
            plans.extend(both.map(|rest_kept| Plan::Torn { inode, offset, rest_kept }));
        }
    }
    // Random ones must not fall victim to the bound.
    plans.truncate(images_max.saturating_sub(SEEDED_COUNT as usize).max(4));
    plans.extend((0..SEEDED_COUNT).map(|index| Plan::Random(Seeded::new(seed.wrapping_add(index)))));
    plans
}

/// What is not durable.
#[derive(Default)]
struct Pending {
    files: Vec<Unit>,
    lengths: Vec<Unit>,
    pages: Vec<Unit>,
    names: Vec<Unit>,
    /// The most changes that one directory has.
    names_longest: usize,
    /// The last two pages of each file that has any.
    last_pages: Vec<(u64, u64)>,
}

impl Pending {
    fn of(tree: &Tree) -> Self {
        let mut pending = Self::default();
        for (inode, node) in tree.nodes() {
            match node {
                Node::File(file) => {
                    let pages: Vec<u64> = file.pending_pages().collect();
                    if !pages.is_empty() || file.has_pending_length() {
                        pending.files.push(Unit::File { inode });
                    }
                    if file.has_pending_length() {
                        pending.lengths.push(Unit::Length { inode });
                    }
                    pending.last_pages.extend(pages.iter().rev().take(2).map(|page| (inode, *page)));
                    pending.pages.extend(pages.into_iter().map(|page| Unit::Page { inode, page }));
                }
                Node::Directory(directory) => {
                    let count = directory.pending_count();
                    pending.names.extend((0..count).map(|index| Unit::Name { directory: inode, index }));
                    pending.names_longest = pending.names_longest.max(count);
                }
            }
        }
        pending
    }
}
