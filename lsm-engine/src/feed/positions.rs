//! Finds places in the log: of what a snapshot sees, and of the oldest change.

use std::sync::Arc;

use lsm_core::SequenceNumber;
use lsm_wal::{Position, Tail, TailError};

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

/// The earliest place from which on the log has all changes, as far as can be told without reading it.
pub(crate) fn oldest(database: &Database) -> Result<ChangePosition> {
    database.check_open()?;
    let (vfs, directory) = (&database.resources.vfs, &database.resources.directory);
    let history = &database.history;
    let open = |position| Tail::open(Arc::clone(vfs), directory, position);
    let fail = |error| failed(error, &history.position(0, 0, 0));
    let mut tail = match open(Position::ZERO) {
        Err(TailError::Gone { begin, .. }) => open(begin).map_err(fail)?,
        tail => tail.map_err(fail)?,
    };
    let first = tail.next().map_err(fail)?.map(|record| (record.start.0, record.tag.saturating_sub(1)));
    let (log, sequence) = first.unwrap_or((tail.position().0, database.visibility.sequence()));
    let events = history.lock().events_before(sequence);
    Ok(history.position(log, sequence, events))
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
