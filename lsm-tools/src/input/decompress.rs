//! gzip and zstd, told by their first bytes.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::BlockDecodingStrategy;
use ruzstd::decoding::FrameDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const BUFFER_BYTES: usize = 1 << 16;

/// `reader`, decompressed if its first bytes are those of gzip or zstd. The first buffer of the result is the
/// whole input or holds at least four bytes of it.
pub(super) fn decompressed(mut reader: impl Read + 'static) -> io::Result<Box<dyn BufRead>> {
    let head = read_head(&mut reader)?;
    let (gzip, zstd) = (head.starts_with(GZIP_MAGIC), head.starts_with(ZSTD_MAGIC));
    let input = Cursor::new(head).chain(reader);
    if gzip {
        with_head(MultiGzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, input)))
    } else if zstd {
        with_head(Zstd::new(BufReader::with_capacity(BUFFER_BYTES, input)))
    } else {
        Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, input)))
    }
}

fn with_head(mut reader: impl Read + 'static) -> io::Result<Box<dyn BufRead>> {
    let head = read_head(&mut reader)?;
    Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, Cursor::new(head).chain(reader))))
}

/// The first four bytes, or all if there are fewer.
fn read_head(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    reader.take(4).read_to_end(&mut head)?;
    Ok(head)
}

/// A zstd file: any number of frames, checksums compared. Windows beyond the decoder's default of 128 MiB are
/// refused, so that a small file cannot ask for all memory.
struct Zstd<R> {
    reader: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(reader: R) -> Self {
        Self { reader, decoder: FrameDecoder::new(), in_frame: false }
    }

    /// Goes to the next frame that has data; false at the end of the file.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.reader.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.reader) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    if io::copy(&mut self.reader.by_ref().take(length), &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                // The decoder shows these two as its own types.
                Err(FrameDecoderError::ReadFrameHeaderError(error)) => return Err(damaged(error)),
                Err(FrameDecoderError::FrameHeaderError(error)) => return Err(damaged(error)),
                Err(error) => return Err(damaged(error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.in_frame {
                if !self.next_frame()? {
                    return Ok(0);
                }
                self.in_frame = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.reader, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(damaged)?;
            }
            let count = self.decoder.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let stored = self.decoder.get_checksum_from_data();
            if stored.is_some() && stored != self.decoder.get_calculated_checksum() {
                return Err(damaged("wrong checksum of the content"));
            }
            self.in_frame = false;
        }
    }
}

fn damaged(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    fn read(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompressed(Cursor::new(bytes))?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn compressed_and_plain_input_read_the_same() {
        let text: Vec<u8> = (0..100_000_u32).flat_map(|number| format!("{number}\n").into_bytes()).collect();
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        for bytes in [b"".as_slice(), b"a", b"abc", &text] {
            let twice = [bytes, bytes].concat();
            assert_eq!(read(bytes.to_vec()).unwrap(), bytes);
            assert_eq!(read(gzip(bytes)).unwrap(), bytes);
            assert_eq!(read([gzip(bytes), gzip(bytes)].concat()).unwrap(), twice);
            assert_eq!(read(zstd(bytes)).unwrap(), bytes);
            assert_eq!(read([zstd(bytes), skippable.clone(), zstd(bytes)].concat()).unwrap(), twice);
        }
    }

    #[test]
    fn a_cut_or_damaged_file_is_an_error() {
        let text = b"key\tvalue\n".repeat(1000);
        for whole in [gzip(&text), zstd(&text)] {
            for cut in [5, whole.len() / 2, whole.len() - 1] {
                assert!(read(whole[..cut].to_vec()).is_err(), "cut at {cut} of {}", whole.len());
            }
            let mut flipped = whole.clone();
            let last = flipped.len() - 6;
            flipped[last] ^= 1;
            assert!(read(flipped).is_err());
        }
    }
}
