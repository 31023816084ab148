//! What a power cut leaves.

use crate::split_mix::mix;

/// Something that was changed and not yet synced: a power cut may keep it or lose it.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Number of the file or directory.
    pub inode: u64,
    /// What part of it.
    pub kind: PieceKind<'a>,
    /// How many states it went through since it was durable: a sector written three times has three, oldest
    /// first, and the disk may hold any of them.
    pub version_count: usize,
}

/// What part of a file or directory a [`Piece`] is.
#[derive(Clone, Copy, Debug)]
pub enum PieceKind<'a> {
    /// 512 bytes of a file.
    Sector {
        /// Where they are in the file.
        offset: u64,
    },
    /// The length of a file. Sectors that were lost below a length that was kept are zero, or what they were.
    Length,
    /// A change of the names in a directory.
    Entry {
        /// Which of the changes since the directory was synced, from 0.
        index: usize,
        /// What was changed.
        change: &'a EntryChange,
    },
}

/// A change of the names in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryChange {
    /// A file or directory got a name: it was created, linked, or moved here from another directory.
    Add {
        /// The name.
        name: String,
    },
    /// A name was unlinked, or moved to another directory.
    Remove {
        /// The name.
        name: String,
    },
    /// A file changed its name within the directory, replacing what had it.
    Rename {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
    },
}

/// What a power cut does to a [`Piece`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The disk has what it had.
    Lost,
    /// The disk has the newest state.
    Kept,
    /// The disk has an older state, counted from 0; [`Kept`](Fate::Kept) if there are not so many.
    Version(usize),
    /// The sector is noise. Only where the disk had nothing durable, else [`Lost`](Fate::Lost): disks write a
    /// sector whole or not at all. Names and lengths are lost.
    Garbled,
    /// The disk has the new name of a renamed file and still the old one. [`Kept`](Fate::Kept) for all else: no
    /// directory has two names.
    BothNames,
}

impl Fate {
    /// Which of the versions it is, if not what was there before.
    pub(super) fn version(self, version_count: usize) -> Option<usize> {
        match self {
            Self::Lost | Self::Garbled => None,
            Self::Kept | Self::BothNames => version_count.checked_sub(1),
            Self::Version(version) => Some(version.min(version_count - 1)),
        }
    }
}

/// Decides what a power cut leaves; asked once for every [`Piece`], in an order that is the same every time.
///
/// Any closure `FnMut(&Piece) -> Fate` is one.
pub trait Choice {
    /// The fate of a piece.
    fn choose(&mut self, piece: &Piece<'_>) -> Fate;
}

impl<F: FnMut(&Piece<'_>) -> Fate> Choice for F {
    fn choose(&mut self, piece: &Piece<'_>) -> Fate {
        self(piece)
    }
}

/// Nothing unsynced reached the disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllLost;

impl Choice for AllLost {
    fn choose(&mut self, _piece: &Piece<'_>) -> Fate {
        Fate::Lost
    }
}

/// Everything reached the disk just in time.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllKept;

impl Choice for AllKept {
    fn choose(&mut self, _piece: &Piece<'_>) -> Fate {
        Fate::Kept
    }
}

/// Every piece has a fate of its own, drawn from a seed.
#[derive(Clone, Debug)]
pub struct Seeded {
    state: u64,
}

impl Seeded {
    /// The same fates for the same seed.
    pub fn new(seed: u64) -> Self {
        Self { state: mix(seed) }
    }

    /// A number below `bound`.
    pub(super) fn draw(&mut self, bound: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.state) % bound as u64) as usize
    }
}

impl Choice for Seeded {
    fn choose(&mut self, piece: &Piece<'_>) -> Fate {
        match (self.draw(8), piece.kind) {
            (0..3, _) => Fate::Lost,
            (3, PieceKind::Sector { .. }) => Fate::Garbled,
            (3, PieceKind::Entry { change: EntryChange::Rename { .. }, .. }) => Fate::BothNames,
            (4, _) => Fate::Version(self.draw(piece.version_count)),
            _ => Fate::Kept,
        }
    }
}

/// Noise that is the same for the same seed.
pub(super) fn garble(bytes: &mut [u8], seed: u64) {
    for (index, word) in bytes.chunks_mut(8).enumerate() {
        let noise = mix(seed ^ mix(index as u64 + 1)).to_le_bytes();
        word.copy_from_slice(&noise[..word.len()]);
    }
}
