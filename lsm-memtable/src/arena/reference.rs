//! References into an arena, and the atomics that hold them.

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU32;

use crate::sync::{AtomicU32, Ordering};

/// Where something in an arena is: an offset that is known to lead to an initialised `T`.
pub(crate) struct Ref<T> {
    offset: NonZeroU32,
    target: PhantomData<fn() -> T>,
}

impl<T> Clone for Ref<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ref<T> {}

impl<T> PartialEq for Ref<T> {
    fn eq(&self, other: &Self) -> bool {
        self.offset == other.offset
    }
}

impl<T> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.offset)
    }
}

impl<T> Ref<T> {
    /// For what the arena has initialised at this offset.
    #[inline]
    pub(super) fn new(offset: NonZeroU32) -> Self {
        Self { offset, target: PhantomData }
    }

    #[inline]
    pub(super) fn offset(self) -> NonZeroU32 {
        self.offset
    }

    /// The offset, with the lowest bit free for the caller: everything is aligned to at least four bytes.
    fn to_bits(self) -> u32 {
        self.offset.get()
    }
}

/// A reference that one thread stores and others load. Stores release, loads acquire.
pub(crate) struct AtomicRef<T> {
    offset: AtomicU32,
    target: PhantomData<fn() -> T>,
}

impl<T> AtomicRef<T> {
    pub(crate) fn new(target: Option<Ref<T>>) -> Self {
        Self { offset: AtomicU32::new(target.map_or(0, Ref::to_bits)), target: PhantomData }
    }

    #[inline]
    pub(crate) fn load(&self) -> Option<Ref<T>> {
        let offset = NonZeroU32::new(self.offset.load(Ordering::Acquire))?;
        Some(Ref::new(offset))
    }

    #[inline]
    pub(crate) fn store(&self, target: Option<Ref<T>>) {
        self.offset.store(target.map_or(0, Ref::to_bits), Ordering::Release);
    }
}

/// A reference to one of two types, in one word.
pub(crate) enum Either<A, B> {
    A(Ref<A>),
    B(Ref<B>),
}

impl<A, B> Clone for Either<A, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A, B> Copy for Either<A, B> {}

impl<A, B> Either<A, B> {
    fn to_bits(self) -> u32 {
        match self {
            Self::A(target) => target.to_bits(),
            Self::B(target) => target.to_bits() | 1,
        }
    }
}

impl<A, B> PartialEq for Either<A, B> {
    fn eq(&self, other: &Self) -> bool {
        self.to_bits() == other.to_bits()
    }
}

/// Like [`AtomicRef`], for one of two types.
pub(crate) struct AtomicEither<A, B> {
    bits: AtomicU32,
    target: PhantomData<fn() -> (A, B)>,
}

impl<A, B> AtomicEither<A, B> {
    pub(crate) fn new(target: Option<Either<A, B>>) -> Self {
        Self { bits: AtomicU32::new(target.map_or(0, Either::to_bits)), target: PhantomData }
    }

    #[inline]
    pub(crate) fn load(&self) -> Option<Either<A, B>> {
        let bits = self.bits.load(Ordering::Acquire);
        let offset = NonZeroU32::new(bits & !1)?;
        Some(if bits & 1 == 0 { Either::A(Ref::new(offset)) } else { Either::B(Ref::new(offset)) })
    }

    #[inline]
    pub(crate) fn store(&self, target: Option<Either<A, B>>) {
        self.bits.store(target.map_or(0, Either::to_bits), Ordering::Release);
    }
}
