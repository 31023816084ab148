//! Finds the place in the log of what a snapshot sees.

use std::sync::Arc;

use lsm_core::SequenceNumber;
use lsm_wal::{Position, Tail};

use super::changes::failed;
use crate::change_position::ChangePosition;
use crate::database::Database;
use crate::error::Result;
use crate::version::history::gone;

/// The place after the last write.
pub(crate) fn current(database: &Database) -> Result<ChangePosition> {
    let events = database.history.event_count();
    of_snapshot(database, database.visibility.sequence(), events)
}

/// The place after the write `sequence` and the first `events` events of keyspaces.
pub(crate) fn of_snapshot(
    database: &Database,
    sequence: SequenceNumber,
    events: u64,
) -> Result<ChangePosition> {
    database.check_open()?;
    database.resources.check_process()?;
    let history = &database.history;
    let start = match &database.writer {
        Some(side) => {
            let committer = side.write.committer.lock();
            if committer.last_sequence() == sequence {
                return Ok(history.position(committer.log_end(), sequence, events));
            }
            side.write.log_pins.start()
        }
        None => history.log_start,
    };
    let begin = history.position(start, sequence, events);
    let (vfs, directory) = (Arc::clone(&database.resources.vfs), &database.resources.directory);
    let fail = |error| failed(error, &begin);
    let mut tail = Tail::open(vfs, directory, Position(start)).map_err(fail)?;
    tail.skip_segments(sequence).map_err(fail)?;
    let mut is_first = true;
    let mut end = tail.position();
    while let Some(record) = tail.next().map_err(fail)? {
        if record.tag > sequence {
            if is_first && record.tag > sequence + 1 {
                return Err(gone(&begin, "the log begins with a later write"));
            }
            end = record.start;
            break;
        }
        is_first = false;
        end = record.end;
    }
    Ok(history.position(end.0, sequence, events))
}
