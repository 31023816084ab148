//! What the first header after a recovery or a truncation continues.

use lsm_core::env::Env;

use super::window_writer::WindowWriter;
use crate::format::segment::SegmentHeader;
use crate::log::Position;
use crate::read::wal_reader::ResumePoint;

/// Where a log goes on: after which segment, from which position and checksum.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) position: u64,
    pub(crate) seed: u64,
    pub(crate) predecessor: u64,
    pub(crate) predecessor_bytes: u64,
    pub(crate) predecessor_checksum: u64,
    /// What the checksum of each record's header continues from.
    pub(crate) record_seed: u32,
}

impl Origin {
    /// A log that begins here.
    pub(crate) fn root(start: Position, env: &dyn Env) -> Self {
        Self {
            position: start.0,
            seed: env.random(),
            predecessor: 0,
            predecessor_bytes: 0,
            predecessor_checksum: 0,
            record_seed: random_record_seed(env),
        }
    }

    /// After a part of a segment. Records that are given up thereby may stand elsewhere still, and positions are
    /// used anew: with a random seed they can never continue the chain.
    pub(crate) fn after(resume_point: ResumePoint, env: &dyn Env) -> Self {
        Self {
            position: resume_point.position,
            seed: env.random(),
            predecessor: resume_point.segment,
            predecessor_bytes: resume_point.bytes,
            predecessor_checksum: resume_point.checksum,
            // One for all of a log, so that whichever of its headers is lost, another has it.
            record_seed: if resume_point.record_seed == 0 {
                random_record_seed(env)
            } else {
                resume_point.record_seed
            },
        }
    }

    pub(crate) fn header(&self, number: u64, synced: u64, window: Option<&WindowWriter>) -> SegmentHeader {
        SegmentHeader {
            number,
            start: self.position,
            predecessor: self.predecessor,
            predecessor_bytes: self.predecessor_bytes,
            predecessor_checksum: self.predecessor_checksum,
            seed: self.seed,
            synced,
            window: window.map_or(0, WindowWriter::number),
            record_seed: self.record_seed,
        }
    }
}

/// What nobody can know who has only the log's records. Not 0, which stands for none.
fn random_record_seed(env: &dyn Env) -> u32 {
    ((env.random() >> 32) as u32).max(1)
}
