use std::io;

/// An open file. All calls may come from several threads at once.
pub trait VfsFile: Send + Sync {
    /// Reads up to `buffer.len()` bytes at `offset`; 0 means the file ends there.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Fills `buffer` from `offset`; `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    buffer = &mut buffer[count..];
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all of `bytes` at `offset`, extending the file as needed.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts or extends the file with zeros.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Reserves blocks for the first `bytes` bytes and extends the file to that length, so that writing there
    /// cannot run out of space. Where the file system cannot reserve, extends only.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Makes the bytes, and the length needed to read them, durable.
    fn sync_data(&self) -> io::Result<()>;

    /// Starts writing out a range of the file without waiting, so that a later sync has less to do. A hint.
    fn start_writeback(&self, offset: u64, bytes: u64);

    /// Says how the file will be read. A hint.
    fn advise(&self, access: Access);
}

/// How a file will be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Here and there: read-ahead would waste the disk.
    Random,
    /// From front to end.
    Sequential,
}
