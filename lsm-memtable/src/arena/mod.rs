//! Memory of one table: chunks that grow from 64 KiB to huge pages, addressed by 32-bit offsets.
//!
//! Nothing is freed before the whole arena is, so whoever holds the table may follow any reference at any time.
//! One [`Allocator`] writes; readers find what it wrote through references that were stored with release and
//! loaded with acquire order, which is all that [`AtomicRef`] can do. Hence the rule on which every `unsafe` here
//! rests: **a [`Ref`] exists only after what it refers to is initialised, and whoever has one, has synchronised
//! with its maker.** References are never carried from one table to another: they live in the nodes of a table,
//! in its writer and in its cursors, which own the table.

mod allocator;
mod chunk;
mod memory;
mod record;
mod reference;
mod version_chain;

pub(crate) use self::allocator::Allocator;
pub(crate) use self::chunk::ChunkPool;
pub(crate) use self::memory::Arena;
pub(crate) use self::record::{Chain, NewRecord, Record};
pub(crate) use self::reference::{AtomicEither, AtomicRef, Either, Ref};
