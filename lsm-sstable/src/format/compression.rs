//! Compression of the streams of data blocks.

use std::fmt;
use std::str::FromStr;

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};

/// How the data blocks of a table are compressed. A block that would not shrink by an eighth is stored as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all: for tables that are soon rewritten.
    None,
    /// LZ4: about half the size of text-like data for 0.08 µs to write and 0.015 µs to read a row of 116 bytes.
    #[default]
    Lz4,
    /// Zstandard: smaller and several times slower than LZ4, for tables that are seldom read.
    #[cfg(feature = "zstd")]
    Zstd {
        /// 1 to 22; higher is smaller and slower. 3 is the usual choice.
        level: i32,
    },
}

impl Compression {
    /// The name that the properties of a table show.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            #[cfg(feature = "zstd")]
            Self::Zstd { .. } => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    /// The name, and for Zstandard the level: `zstd:3`. [`str::parse`] reads it again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            #[cfg(feature = "zstd")]
            Self::Zstd { level } => write!(f, "zstd:{level}"),
            other => f.write_str(other.name()),
        }
    }
}

impl FromStr for Compression {
    type Err = lsm_core::Error;

    fn from_str(text: &str) -> lsm_core::Result<Self> {
        #[cfg(feature = "zstd")]
        if let Some(level) = text.strip_prefix("zstd:").and_then(|level| level.parse().ok())
            && (1..=22).contains(&level)
        {
            return Ok(Self::Zstd { level });
        }
        match text {
            "none" => Ok(Self::None),
            "lz4" => Ok(Self::Lz4),
            _ => Err(lsm_core::Error::invalid(format!("this build has no compression {text:?}"))),
        }
    }
}

/// How one block's stream is stored; the numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Codec {
    None = 0,
    Lz4 = 1,
    Zstd = 2,
}

impl Codec {
    pub(crate) fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Whether this build has it.
    pub(crate) fn is_built_in(self) -> bool {
        self != Self::Zstd || cfg!(feature = "zstd")
    }
}

/// No stored byte stands for more than this many raw ones, so that the memory which a block needs is bounded by
/// its size in the file. LZ4 cannot do more; a stream that Zstandard shrinks further is left to LZ4.
pub(crate) const EXPANSION_MAX: u64 = 255;

/// What `lz4_flex` holds: a table of 4096 positions of 16 bits for short inputs, and one of 32 bits for the others.
const LZ4_TABLE_BYTES: usize = 4096 * (2 + 4);

/// Compresses streams, reusing its tables and buffer.
pub(crate) struct Compressor {
    compression: Compression,
    /// Made for the first stream that it compresses: small tables that are not compressed are made without it.
    lz4: Option<CompressTable>,
    #[cfg(feature = "zstd")]
    zstd: Option<zstd::bulk::Compressor<'static>>,
    /// What Zstandard held after the last stream.
    #[cfg(feature = "zstd")]
    zstd_bytes: usize,
    output: Vec<u8>,
}

impl Compressor {
    #[cfg_attr(
        not(feature = "zstd"),
        expect(clippy::unnecessary_wraps, reason = "Zstandard can refuse its level")
    )]
    pub(crate) fn new(compression: Compression) -> lsm_core::Result<Self> {
        #[cfg(feature = "zstd")]
        let zstd = match compression {
            Compression::Zstd { level } => Some(zstd::bulk::Compressor::new(level).map_err(|error| {
                lsm_core::Error::invalid(format!("Zstandard refuses compression level {level}: {error}"))
            })?),
            _ => None,
        };
        Ok(Self {
            compression,
            lz4: None,
            #[cfg(feature = "zstd")]
            zstd,
            #[cfg(feature = "zstd")]
            zstd_bytes: 0,
            output: Vec::new(),
        })
    }

    /// What to store for `stream`.
    pub(crate) fn compress<'a>(&'a mut self, stream: &'a [u8]) -> (Codec, &'a [u8]) {
        let worth = stream.len() - stream.len() / 8;
        let (codec, count) = match self.compression {
            Compression::None => return (Codec::None, stream),
            Compression::Lz4 => (Codec::Lz4, self.lz4(stream)),
            #[cfg(feature = "zstd")]
            Compression::Zstd { .. } => match self.zstd(stream) {
                Some(count) if (count as u64) * EXPANSION_MAX >= stream.len() as u64 => {
                    (Codec::Zstd, Some(count))
                }
                _ => (Codec::Lz4, self.lz4(stream)),
            },
        };
        match count.and_then(|count| self.output.get(..count)) {
            Some(compressed) if compressed.len() < worth => (codec, compressed),
            _ => (Codec::None, stream),
        }
    }

    /// Bytes of memory held, and how many more compressing a stream of so many bytes would take.
    pub(crate) fn heap_bytes(&self, stream_bytes: usize) -> (usize, usize) {
        let held = self.output.capacity() + LZ4_TABLE_BYTES;
        let needed = match self.compression {
            Compression::None => 0,
            Compression::Lz4 => get_maximum_output_size(stream_bytes),
            // LZ4 takes over where Zstandard shrinks too well.
            #[cfg(feature = "zstd")]
            Compression::Zstd { .. } => {
                get_maximum_output_size(stream_bytes).max(zstd::zstd_safe::compress_bound(stream_bytes))
            }
        };
        #[cfg(feature = "zstd")]
        let held = held + self.zstd_bytes;
        (held, needed.saturating_sub(self.output.capacity()))
    }

    /// Gives memory back that a huge entry has made it take.
    pub(crate) fn give_back(&mut self) {
        self.output = Vec::new();
    }

    fn reserve(&mut self, bytes: usize) {
        if self.output.len() < bytes {
            self.output.reserve_exact(bytes - self.output.len());
            self.output.resize(bytes, 0);
        }
    }

    fn lz4(&mut self, stream: &[u8]) -> Option<usize> {
        let bound = get_maximum_output_size(stream.len());
        self.reserve(bound);
        let table = self.lz4.get_or_insert_default();
        compress_into_with_table(stream, &mut self.output, table).ok()
    }

    #[cfg(feature = "zstd")]
    fn zstd(&mut self, stream: &[u8]) -> Option<usize> {
        let bound = zstd::zstd_safe::compress_bound(stream.len());
        self.reserve(bound);
        let zstd = self.zstd.as_mut()?;
        let count = zstd.compress_to_buffer(stream, &mut self.output[..]).ok();
        self.zstd_bytes = zstd.context_mut().sizeof();
        count
    }
}

/// Fills `output`, which has the raw length exactly.
#[inline]
pub(crate) fn decompress(codec: Codec, stored: &[u8], output: &mut [u8]) -> Result<(), String> {
    let expected = output.len();
    let count = match codec {
        Codec::None => {
            if stored.len() == expected {
                output.copy_from_slice(stored);
            }
            stored.len()
        }
        Codec::Lz4 => {
            decompress_into(stored, output).map_err(|error| format!("LZ4 stream is malformed: {error}"))?
        }
        Codec::Zstd => decompress_zstd(stored, output)?,
    };
    if count == expected {
        Ok(())
    } else {
        Err(format!("block holds {count} raw bytes, its header says {expected}"))
    }
}

#[cfg(feature = "zstd")]
fn decompress_zstd(stored: &[u8], output: &mut [u8]) -> Result<usize, String> {
    use std::cell::RefCell;

    thread_local! {
        static CONTEXT: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    }
    CONTEXT.with_borrow_mut(|context| {
        let context = match context {
            Some(context) => context,
            None => context.insert(zstd::bulk::Decompressor::new().map_err(|error| error.to_string())?),
        };
        context
            .decompress_to_buffer(stored, output)
            .map_err(|error| format!("Zstandard stream is malformed: {error}"))
    })
}

#[cfg(not(feature = "zstd"))]
fn decompress_zstd(_: &[u8], _: &mut [u8]) -> Result<usize, String> {
    Err("block is compressed with Zstandard, which takes the feature `zstd`".into())
}
