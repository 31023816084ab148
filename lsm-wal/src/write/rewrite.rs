//! Writes the unsynced end of a recovered log anew.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use lsm_core::vfs::VfsFile;
use lsm_core::{Error, Result};

use super::origin::Origin;
use super::site::Site;
use super::window_writer::WindowWriter;
use super::writer::{Live, Writer};
use crate::files::directory::{self, LogFile};
use crate::files::segment_file::{CLOSE_BYTES, Segment};
use crate::format::record::{self, Boundary, RecordHeader, RecordType};
use crate::format::segment;

const CHUNK_BYTES: usize = 1 << 20;

/// A segment under an unfinished name. It takes effect as a whole when it gets its real one, so a crash on the
/// way leaves the log as it was.
pub(crate) struct Rewrite {
    site: Site,
    number: u64,
    origin: Origin,
    live: VecDeque<Live>,
    file: Arc<dyn VfsFile>,
    path: PathBuf,
    chunk: Vec<u8>,
    chunk_offset: u64,
    end: Boundary,
}

impl Rewrite {
    pub(crate) fn begin(site: Site, number: u64, origin: Origin, live: VecDeque<Live>) -> Result<Self> {
        directory::check_number(number)?;
        let path = LogFile::Unfinished(number).path(&site.directory);
        let file = site.vfs.create_new(&path).map_err(|error| Error::io("create", &path, error))?;
        let end = Boundary { position: origin.position, checksum: origin.seed };
        let chunk_offset = segment::HEADER_BYTES as u64;
        Ok(Self { site, number, origin, live, file, path, chunk: Vec::new(), chunk_offset, end })
    }

    pub(crate) fn append(&mut self, tag: u64, payload: &[u8]) -> Result<()> {
        let header = RecordHeader {
            length: record::payload_length(payload, self.end.position)?,
            position: self.end.position,
            kind: RecordType::Data,
            tag,
            synced: self.origin.position,
        };
        let checksum =
            record::encode(&mut self.chunk, &header, payload, self.end.checksum, self.origin.record_seed);
        self.end = Boundary { position: header.end(), checksum };
        if self.chunk.len() >= CHUNK_BYTES { self.write_chunk() } else { Ok(()) }
    }

    fn write_chunk(&mut self) -> Result<()> {
        self.write(&self.chunk, self.chunk_offset)?;
        self.chunk_offset += self.chunk.len() as u64;
        self.chunk.clear();
        Ok(())
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.write_at(bytes, offset).map_err(|error| Error::io("write to", &self.path, error))
    }

    /// Makes it durable and a part of the log, and goes on writing in it.
    pub(crate) fn finish(mut self) -> Result<Writer> {
        self.write_chunk()?;
        let capacity = self.site.segment_bytes_after(0).max(self.chunk_offset + CLOSE_BYTES);
        self.file.allocate(capacity).map_err(|error| Error::io("allocate", &self.path, error))?;
        let window =
            WindowWriter::create(&self.site, self.number, self.end.position, self.origin.record_seed)?;
        let header = self.origin.header(self.number, self.origin.position, window.as_ref());
        self.write(&header.encode(), 0)?;
        self.file.sync_data().map_err(|error| Error::io("sync", &self.path, error))?;
        let Self { site, number, origin, live, file, path: unfinished, end, .. } = self;
        let path = LogFile::Segment(number).path(&site.directory);
        site.vfs.rename(&unfinished, &path).map_err(|error| Error::io("rename", &unfinished, error))?;
        directory::sync(&*site.vfs, &site.directory)?;
        let Origin { position: start, record_seed, .. } = origin;
        let segment = Segment { file, path, number, start, capacity, record_seed };
        Ok(Writer::resume(site, segment, window, end, live))
    }
}
