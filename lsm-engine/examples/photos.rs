//! A store of photos: megabytes in blob files, read piece by piece, and listed without being read.
//!
//! Run it with `cargo run -p lsm-engine --example photos`.

use lsm_engine::{Db, KeyspaceOptions, Result};

/// Bytes sent to a browser at a time.
const PIECE_BYTES: u64 = 64 << 10;

/// Something like a photo.
fn photo(seed: u32, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

fn main() -> Result<()> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let db = Db::open(directory.path())?;
    let photos = db.keyspace("photos", KeyspaceOptions::new().blobs_from(16 << 10))?;
    for number in 0..20_u32 {
        photos.put(format!("album/{number:03}"), photo(number, 300_000))?;
    }
    // Each photo is edited once.
    for number in 0..20_u32 {
        photos.put(format!("album/{number:03}"), photo(100 + number, 250_000))?;
    }
    photos.compact_range::<&[u8]>(..)?;
    db.wait_for_compactions()?;

    // The list of an album reads no photo.
    let names = photos.prefix("album/").keys().collect::<Result<Vec<_>>>()?;
    assert_eq!(names.len(), 20);

    // One photo is sent piece by piece.
    let mut sent = Vec::new();
    while let Some(piece) =
        photos.get_part("album/007", sent.len() as u64..sent.len() as u64 + PIECE_BYTES)?
    {
        if piece.is_empty() {
            break;
        }
        sent.extend_from_slice(&piece);
    }
    assert!(sent == photo(107, 250_000));

    let metrics = db.metrics();
    let found = metrics.keyspaces.iter().find(|keyspace| keyspace.name == "photos").expect("the keyspace");
    println!(
        "{} photos of {} bytes, sent one of {} bytes in pieces; {} blob files, {} bytes of garbage",
        names.len(),
        found.blob_bytes - found.blob_garbage_bytes,
        sent.len(),
        found.blob_files,
        found.blob_garbage_bytes
    );
    assert!(found.blob_garbage_bytes * 4 <= found.blob_bytes);
    Ok(())
}
