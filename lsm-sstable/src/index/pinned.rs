//! The index in memory: all separators, searched by integers of eight key bytes.

use std::cmp::Ordering;

use lsm_core::coding::Decoder;
use lsm_core::key;
use lsm_core::{SEQUENCE_MAX, SequenceNumber};

use super::entry::IndexEntry;
use crate::format::file_header::FILE_HEADER_BYTES;

/// An index in memory. Blocks are named by their number, from 0.
///
/// A lookup takes eight bytes of the key after the prefix as an integer, finds in a small table which separators
/// share its top bits, and halves that range: 80 to 210 ns cold, where comparing whole keys takes 800.
#[derive(Debug)]
pub(crate) struct Index {
    prefix: Box<[u8]>,
    /// First eight bytes of each suffix, as an integer.
    heads: Box<[u64]>,
    /// For each value of the top bits of a head less the first head: the first block that has it or a higher one.
    buckets: Box<[u32]>,
    bucket_shift: u32,
    suffixes: Box<[u8]>,
    /// Where each suffix starts, and where the last one ends.
    suffix_offsets: Box<[u32]>,
    /// Sequence numbers of the few separators that have one, by block.
    sequences: Box<[(u32, SequenceNumber)]>,
    /// Where each block starts in the file, and where the last one ends.
    block_offsets: Box<[u64]>,
}

impl Index {
    /// Decodes the index of a table whose blocks end at `data_end`.
    pub(crate) fn decode(payload: &[u8], block_count: u64, data_end: u64) -> Result<Self, String> {
        // Each block takes two bytes at least, which bounds what is allocated here.
        let Some(block_count) =
            u32::try_from(block_count).ok().filter(|&count| count as usize <= payload.len() / 2)
        else {
            return Err(format!("index of {} bytes cannot hold {block_count} blocks", payload.len()));
        };
        let count = block_count as usize;
        let mut fields = Decoder::new(payload);
        let prefix = fields.bytes().ok_or("index has no prefix")?;
        let mut heads = Vec::with_capacity(count);
        let mut suffixes = Vec::with_capacity(payload.len().saturating_sub(2 * count));
        let mut suffix_offsets = Vec::with_capacity(count + 1);
        let mut sequences = Vec::new();
        let mut block_offsets = Vec::with_capacity(count + 1);
        let mut offset = FILE_HEADER_BYTES as u64;
        let mut previous: (&[u8], SequenceNumber) = (b"", SEQUENCE_MAX);
        for block in 0..block_count {
            let malformed = || format!("entry {block} of the index is malformed");
            let IndexEntry { block_bytes, suffix, sequence, has_sequence } =
                IndexEntry::next(&mut fields).ok_or_else(malformed)?;
            if has_sequence {
                sequences.push((block, sequence));
            }
            if block > 0 && key::compare(previous.0, previous.1, suffix, sequence) != Ordering::Less {
                return Err(format!("entry {block} of the index is out of order"));
            }
            previous = (suffix, sequence);
            block_offsets.push(offset);
            offset = offset.checked_add(block_bytes).filter(|&end| end <= data_end).ok_or_else(malformed)?;
            heads.push(key::head(suffix, 0));
            suffix_offsets.push(u32::try_from(suffixes.len()).map_err(|_| malformed())?);
            suffixes.extend_from_slice(suffix);
        }
        if !fields.is_empty() || offset != data_end {
            return Err(format!("index accounts for data up to {offset}, it ends at {data_end}"));
        }
        suffix_offsets.push(u32::try_from(suffixes.len()).map_err(|_| "index exceeds 4 GiB")?);
        block_offsets.push(offset);
        let (buckets, bucket_shift) = buckets(&heads);
        Ok(Self {
            prefix: prefix.into(),
            heads: heads.into(),
            buckets: buckets.into(),
            bucket_shift,
            suffixes: suffixes.into(),
            suffix_offsets: suffix_offsets.into(),
            sequences: sequences.into(),
            block_offsets: block_offsets.into(),
        })
    }

    #[inline]
    pub(crate) fn block_count(&self) -> usize {
        self.heads.len()
    }

    /// Where a block starts in the file and where it ends. The block must exist.
    #[inline]
    pub(crate) fn block_range(&self, block: usize) -> std::ops::Range<u64> {
        self.block_offsets[block]..self.block_offsets[block + 1]
    }

    /// A block's separator as an internal key.
    pub(crate) fn separator_with_sequence(&self, block: usize) -> (Vec<u8>, SequenceNumber) {
        (self.separator(block), self.sequence(block))
    }

    /// The block that holds the byte at `offset` of the file; the last one if that is past all blocks.
    pub(crate) fn block_at(&self, offset: u64) -> usize {
        self.block_offsets
            .partition_point(|&start| start <= offset)
            .saturating_sub(1)
            .min(self.heads.len().saturating_sub(1))
    }

    /// Bytes of memory that the index of so many blocks, which takes so many bytes in the file, does not exceed.
    pub(crate) fn memory_bytes_max(payload_bytes: u64, block_count: u64) -> u64 {
        let buckets = (block_count / 4).max(BUCKETS_MIN) + 1;
        let arrays = (size_of::<u64>() * 2 + size_of::<u32>() + size_of::<(u32, SequenceNumber)>()) as u64;
        (size_of::<Self>() as u64 + 16)
            .saturating_add(payload_bytes)
            .saturating_add(buckets.saturating_mul(size_of::<u32>() as u64))
            .saturating_add(block_count.saturating_mul(arrays))
    }

    /// Bytes of memory held.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.prefix.len()
            + self.suffixes.len()
            + size_of_val(&*self.heads)
            + size_of_val(&*self.buckets)
            + size_of_val(&*self.suffix_offsets)
            + size_of_val(&*self.sequences)
            + size_of_val(&*self.block_offsets)
    }

    /// The user key of a block's separator.
    pub(crate) fn separator(&self, block: usize) -> Vec<u8> {
        [&self.prefix, self.suffix(block)].concat()
    }

    /// The only block that can hold the first entry at or after `(key, sequence)`, unless that is the first of
    /// the block after it: the last one whose separator is at or below, or else the first. 0 if there are no
    /// blocks.
    #[inline]
    pub(crate) fn find(&self, key: &[u8], sequence: SequenceNumber) -> usize {
        let Some(rest) = key.strip_prefix(&*self.prefix) else {
            return if *key < *self.prefix { 0 } else { self.heads.len().saturating_sub(1) };
        };
        let head = key::head(rest, 0);
        let Some(&first_head) = self.heads.first() else { return 0 };
        if head < first_head {
            return 0;
        }
        let bucket = usize::try_from((head - first_head) >> self.bucket_shift).unwrap_or(usize::MAX);
        let block_at =
            |bucket: usize| self.buckets.get(bucket).map_or(self.heads.len(), |&block| block as usize);
        let mut low = block_at(bucket);
        let mut high = block_at(bucket.saturating_add(1));
        // Everything below `low` is at or below the key, everything from `high` on above it. Branches, not
        // conditional moves: when the heads are not in cache, a guessed branch loads the next one ahead.
        while low < high {
            let middle = low.midpoint(high);
            let found = self.heads[middle];
            let is_above = match found.cmp(&head) {
                Ordering::Less => false,
                Ordering::Greater => true,
                Ordering::Equal => self.is_above(middle, rest, sequence),
            };
            if is_above {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low.saturating_sub(1)
    }

    fn is_above(&self, block: usize, rest: &[u8], sequence: SequenceNumber) -> bool {
        match self.suffix(block).cmp(rest) {
            Ordering::Less => false,
            Ordering::Greater => true,
            Ordering::Equal => self.sequence(block) < sequence,
        }
    }

    fn suffix(&self, block: usize) -> &[u8] {
        &self.suffixes[self.suffix_offsets[block] as usize..self.suffix_offsets[block + 1] as usize]
    }

    fn sequence(&self, block: usize) -> SequenceNumber {
        let found = self.sequences.binary_search_by_key(&block, |&(block, _)| block as usize);
        found.map_or(SEQUENCE_MAX, |at| self.sequences[at].1)
    }
}

const BUCKETS_MIN: u64 = 64;

/// About a bucket for every four blocks, over the top bits of each head less the first.
fn buckets(heads: &[u64]) -> (Vec<u32>, u32) {
    let (Some(&first), Some(&last)) = (heads.first(), heads.last()) else {
        return (Vec::new(), 0);
    };
    let bucket_count_max = (heads.len() as u64 / 4).max(BUCKETS_MIN);
    let span = last - first;
    let mut shift = 0;
    while span >> shift >= bucket_count_max {
        shift += 1;
    }
    let mut buckets = Vec::with_capacity((span >> shift) as usize + 2);
    for (block, &head) in heads.iter().enumerate() {
        let bucket = ((head - first) >> shift) as usize;
        while buckets.len() <= bucket {
            buckets.push(block as u32);
        }
    }
    (buckets, shift)
}

#[cfg(test)]
mod tests {
    use super::super::IndexBuilder;
    use super::*;

    /// One block a key, as they come.
    fn index_over(keys: &[(&[u8], SequenceNumber)]) -> Index {
        let mut builder = IndexBuilder::default();
        for (at, &(key, _)) in keys.iter().enumerate() {
            let last = at.checked_sub(1).map(|at| keys[at]);
            builder.add(last, key).unwrap();
            builder.set_block_bytes(10);
        }
        Index::decode(&builder.encode(), keys.len() as u64, 80 + 10 * keys.len() as u64).unwrap()
    }

    /// What `find` promises, by looking at every block.
    fn check(keys: &[(&[u8], SequenceNumber)], targets: &[(&[u8], SequenceNumber)]) {
        let index = index_over(keys);
        for &(key, sequence) in targets {
            let found = index.find(key, sequence);
            let at_or_below = (0..keys.len()).rfind(|&block| {
                key::compare(&index.separator(block), index.sequence(block), key, sequence)
                    != Ordering::Greater
            });
            assert_eq!(found, at_or_below.unwrap_or(0), "{key:?} {sequence}");
            // The entry itself, where it exists, is in the block found.
            if let Some(exact) = keys.iter().position(|&entry| entry == (key, sequence)) {
                assert_eq!(found, exact, "{key:?} {sequence}");
            }
        }
    }

    #[test]
    fn lookups_find_the_last_separator_at_or_below_the_key() {
        let owned: Vec<Vec<u8>> = (0..1000_u32).map(|n| format!("user{:06}", n * 7).into_bytes()).collect();
        let keys: Vec<(&[u8], u64)> = owned.iter().map(|key| (&key[..], 5)).collect();
        let probes: Vec<Vec<u8>> = (0..7100_u32).map(|n| format!("user{n:06}").into_bytes()).collect();
        let mut targets: Vec<(&[u8], u64)> = probes.iter().map(|key| (&key[..], 5)).collect();
        targets.extend([(&b""[..], 0), (b"use", 9), (b"user", 9), (b"zzz", 9), (b"user\xff\xff", 1)]);
        check(&keys, &targets);
    }

    #[test]
    fn versions_of_one_key_in_many_blocks_are_told_apart_by_sequence_number() {
        let keys: Vec<(&[u8], u64)> = vec![
            (b"a", 3),
            (b"k", 90),
            (b"k", 80),
            (b"k", 70),
            (b"k", 0),
            (b"k\0", 5),
            (b"same-long-head-1", 4),
            (b"same-long-head-2", 4),
        ];
        let mut targets = keys.clone();
        for sequence in 0..100 {
            targets.push((b"k", sequence));
        }
        targets.extend([
            (&b"j"[..], 1),
            (b"k\0", 9),
            (b"k\0\0", 9),
            (b"same-long-head", 1),
            (b"same-long-head-11", 1),
        ]);
        check(&keys, &targets);
    }

    #[test]
    fn the_memory_of_an_index_is_bounded_before_it_is_decoded() {
        let owned: Vec<Vec<u8>> = (0..5000_u32).map(|n| (n * 7919).to_be_bytes().to_vec()).collect();
        for (count, versions) in [(0, 1), (1, 1), (5000, 1), (1000, 5)] {
            let mut builder = IndexBuilder::default();
            let keys = owned[..count].iter().cycle().take(count * versions);
            let mut keys: Vec<(&[u8], u64)> =
                keys.zip((0..9000).rev()).map(|(key, n)| (&key[..], n)).collect();
            keys.sort_by(|a, b| key::compare(a.0, a.1, b.0, b.1));
            for (at, &(key, _)) in keys.iter().enumerate() {
                builder.add(at.checked_sub(1).map(|at| keys[at]), key).unwrap();
                builder.set_block_bytes(4000);
            }
            let encoded = builder.encode();
            let blocks = keys.len() as u64;
            let held = Index::decode(&encoded, blocks, 80 + 4000 * blocks).unwrap().memory_bytes() as u64;
            let bound = Index::memory_bytes_max(encoded.len() as u64, blocks);
            assert!((held..2 * held + 300).contains(&bound), "{count} {versions}: {held} {bound}");
        }
    }

    #[test]
    fn separators_are_as_short_as_they_can_be() {
        let index = index_over(&[(b"apple", 1), (b"banana", 1), (b"bandit", 1)]);
        assert_eq!(index.separator(0), b"apple");
        assert_eq!(index.separator(1), b"b");
        assert_eq!(index.separator(2), b"band");
    }

    #[test]
    fn hostile_bytes_are_refused() {
        let index: &[(&[u8], u64)] = &[(b"a", 1), (b"b", 1)];
        let mut builder = IndexBuilder::default();
        builder.add(None, index[0].0).unwrap();
        builder.set_block_bytes(10);
        builder.add(Some(index[0]), index[1].0).unwrap();
        builder.set_block_bytes(10);
        let encoded = builder.encode();
        assert!(Index::decode(&encoded, 2, 100).is_ok());
        assert!(Index::decode(&encoded, 1, 100).is_err());
        assert!(Index::decode(&encoded, 2, 85).is_err());
        assert!(Index::decode(&encoded, u64::MAX, 100).is_err());
        for len in 0..encoded.len() {
            assert!(Index::decode(&encoded[..len], 2, 100).is_err());
        }
        assert_eq!(Index::memory_bytes_max(u64::MAX, u64::MAX), u64::MAX);
        let empty = Index::decode(&IndexBuilder::default().encode(), 0, 80).unwrap();
        assert_eq!(empty.find(b"x", 1), 0);
    }
    proptest::proptest! {
        #[test]
        fn an_index_that_passes_its_checksum_but_means_nothing_does_no_harm(
            damage in proptest::collection::vec((0_usize..200, proptest::num::u8::ANY), 0..6),
            key in proptest::collection::vec(proptest::num::u8::ANY, 0..20),
        ) {
            let mut builder = IndexBuilder::default();
            let keys: Vec<Vec<u8>> = (0..20).map(|n| format!("prefix{n:03}").into_bytes()).collect();
            for (at, key) in keys.iter().enumerate() {
                builder.add(at.checked_sub(1).map(|at| (&keys[at][..], 5)), key).unwrap();
                builder.set_block_bytes(10);
            }
            let mut bytes = builder.encode();
            for (at, byte) in damage {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            if let Ok(index) = Index::decode(&bytes, 20, 280) {
                for key in keys.iter().chain([&key]) {
                    proptest::prop_assert!(index.find(key, 5) < 20);
                }
                for block in 0..20 {
                    index.separator(block);
                    proptest::prop_assert!(index.block_range(block).end <= 280);
                }
            }
        }
    }
}
