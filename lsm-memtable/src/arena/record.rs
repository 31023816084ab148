//! Records: one version of one key, written once and never changed.
//!
//! ```text
//! record   := header [chain] key value           aligned to 4 bytes
//! header   := trailer u64, value_bytes u32, key_bytes u16, flags u16
//! chain    := previous u32, jump u32, depth u32  if flags & CHAINED: there is an older version
//! value    := value_bytes bytes                  or, if flags & OUTSIDE, a pointer to them
//! ```
#![expect(unsafe_code, reason = "records are bytes behind a header; each block says why its bytes are there")]
#![expect(clippy::cast_ptr_alignment, reason = "addresses of records are aligned for their headers")]

use std::alloc::Layout;
use std::marker::PhantomData;
use std::num::NonZeroU32;

use lsm_core::{Entry, SequenceNumber, key};

use super::reference::Ref;

/// Every so many versions of a key one carries a long jump; the others lead to the last of those.
pub(super) const BLOCK_VERSIONS: u32 = 8;

const CHAINED: u16 = 1;
const OUTSIDE: u16 = 2;

/// Head of a record.
#[repr(C)]
pub(crate) struct Record {
    /// In halves, so that the record needs an alignment of four only.
    trailer: [u32; 2],
    value_bytes: u32,
    key_bytes: u16,
    flags: u16,
    /// Lets the model checker see that records are written before they are read.
    #[cfg(loom)]
    witness: loom::cell::UnsafeCell<()>,
}

/// Links to older versions of the same key.
///
/// Versions are numbered from the oldest, 0; that is the `depth`. `previous` is the next older one. `jump` of most
/// versions leads to the last multiple of [`BLOCK_VERSIONS`] below them; among those multiples, jumps are those of
/// Myers' "applicative random-access stack" (1983), so that any depth is reached in a logarithm of steps.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Chain {
    pub(super) previous: NonZeroU32,
    pub(super) jump: NonZeroU32,
    pub(super) depth: u32,
}

/// What a record is made of.
pub(crate) struct NewRecord<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) trailer: u64,
    pub(crate) value: &'a [u8],
    pub(crate) chain: Option<Chain>,
}

impl Record {
    const KEY_AT: usize = size_of::<Self>();
    const KEY_AT_CHAINED: usize = Self::KEY_AT + size_of::<Chain>();

    /// Room that a record takes at most, alignment included. `is_outside`: the value gets memory of its own.
    #[inline]
    pub(crate) fn bytes_max(key: &[u8], value: &[u8], is_outside: bool) -> usize {
        let value_bytes = if is_outside { size_of::<*const u8>() } else { value.len() };
        Self::KEY_AT_CHAINED + key.len() + value_bytes + align_of::<Self>()
    }
}

impl NewRecord<'_> {
    fn key_at(&self) -> usize {
        if self.chain.is_some() { Record::KEY_AT_CHAINED } else { Record::KEY_AT }
    }

    #[inline]
    pub(super) fn layout(&self, is_outside: bool) -> Layout {
        let value_bytes = if is_outside { size_of::<*const u8>() } else { self.value.len() };
        let bytes = self.key_at() + self.key.len() + value_bytes;
        Layout::from_size_align(bytes, align_of::<Record>()).expect("a record is far smaller than a chunk")
    }

    /// Writes the record.
    ///
    /// # Safety
    /// `address` must have room and alignment for [`Self::layout`], with the value outside if `outside` is given, and
    /// nobody else may access it. `outside` must point to a copy of the value that lives as long as the arena.
    #[inline]
    pub(super) unsafe fn write(&self, address: *mut u8, outside: Option<*const u8>) {
        let header = Record {
            trailer: [self.trailer as u32, (self.trailer >> 32) as u32],
            value_bytes: self.value.len() as u32,
            key_bytes: self.key.len() as u16,
            flags: if self.chain.is_some() { CHAINED } else { 0 }
                | if outside.is_some() { OUTSIDE } else { 0 },
            #[cfg(loom)]
            witness: loom::cell::UnsafeCell::new(()),
        };
        // SAFETY: the caller gives room for header, chain, key and value, in this order and without gaps, aligned
        // for the header and thereby for the chain.
        unsafe {
            address.cast::<Record>().write(header);
            #[cfg(loom)]
            (*address.cast::<Record>()).witness.with_mut(|_| ());
            if let Some(chain) = self.chain {
                address.add(Record::KEY_AT).cast::<Chain>().write(chain);
            }
            let key_address = address.add(self.key_at());
            key_address.copy_from_nonoverlapping(self.key.as_ptr(), self.key.len());
            let value_address = key_address.add(self.key.len());
            match outside {
                Some(outside) => value_address.cast::<*const u8>().write_unaligned(outside),
                None => value_address.copy_from_nonoverlapping(self.value.as_ptr(), self.value.len()),
            }
        }
    }
}

/// A record that can be read.
#[derive(Clone, Copy)]
pub(crate) struct RecordView<'a> {
    address: *const u8,
    memory: PhantomData<&'a [u8]>,
}

impl<'a> RecordView<'a> {
    /// # Safety
    /// There must be a record at `address`, written by [`NewRecord::write`], unchanged for `'a`, and the write must
    /// happen before this.
    #[inline]
    pub(super) unsafe fn new(address: *const u8) -> Self {
        let view = Self { address, memory: PhantomData };
        #[cfg(loom)]
        view.header().witness.with(|_| ());
        view
    }

    #[inline]
    fn header(self) -> &'a Record {
        // SAFETY: `new` promises a header here.
        unsafe { &*self.address.cast::<Record>() }
    }

    #[inline]
    fn chain(self) -> Option<Chain> {
        if self.header().flags & CHAINED == 0 {
            return None;
        }
        // SAFETY: a record with this flag has a chain after its header, aligned because `Record` is.
        Some(unsafe { self.address.add(Record::KEY_AT).cast::<Chain>().read() })
    }

    #[inline]
    fn key_address(self) -> *const u8 {
        let chained = self.header().flags & CHAINED != 0;
        self.address.wrapping_add(if chained { Record::KEY_AT_CHAINED } else { Record::KEY_AT })
    }

    /// The user key.
    #[inline]
    pub(crate) fn key(self) -> &'a [u8] {
        let bytes = usize::from(self.header().key_bytes);
        // SAFETY: the key is there, `key_bytes` long.
        unsafe { std::slice::from_raw_parts(self.key_address(), bytes) }
    }

    #[inline]
    fn value(self) -> &'a [u8] {
        let header = self.header();
        let address = self.key_address().wrapping_add(usize::from(header.key_bytes));
        // SAFETY: after the key comes the value, or the pointer to it, as the flag says; `value_bytes` is its
        // length in both cases.
        unsafe {
            let value = if header.flags & OUTSIDE == 0 {
                address
            } else {
                address.cast::<*const u8>().read_unaligned()
            };
            std::slice::from_raw_parts(value, header.value_bytes as usize)
        }
    }

    #[inline]
    fn trailer(self) -> u64 {
        let [low, high] = self.header().trailer;
        u64::from(high) << 32 | u64::from(low)
    }

    #[inline]
    pub(crate) fn sequence(self) -> SequenceNumber {
        self.trailer() >> 8
    }

    /// `None` never happens, because only known kinds are written; it spares a panic.
    #[inline]
    pub(crate) fn entry(self) -> Option<Entry<'a>> {
        let (sequence, kind) = key::unpack_trailer(self.trailer())?;
        Some(Entry { key: self.key(), sequence, kind, value: self.value() })
    }

    /// The next older version of this key.
    #[inline]
    pub(crate) fn previous(self) -> Option<Ref<Record>> {
        self.chain().map(|chain| Ref::new(chain.previous))
    }

    pub(super) fn jump(self) -> Option<Ref<Record>> {
        self.chain().map(|chain| Ref::new(chain.jump))
    }

    pub(super) fn depth(self) -> u32 {
        self.chain().map_or(0, |chain| chain.depth)
    }

    /// The last version at or below this one that carries a long jump. `own` is the reference to this record.
    pub(super) fn block(self, own: Ref<Record>) -> Ref<Record> {
        match self.chain() {
            Some(chain) if !chain.depth.is_multiple_of(BLOCK_VERSIONS) => Ref::new(chain.jump),
            _ => own,
        }
    }
}
