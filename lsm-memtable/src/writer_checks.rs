//! Unit tests that both tables of the arena must pass.

use lsm_core::{SEQUENCE_MAX, ValueKind};

use crate::memtable::{Full, MemtableReader, MemtableWriter};

/// A table refuses what does not fit its last chunk, and keeps what it has.
pub(crate) fn a_full_table_refuses_and_stays_as_it_was<Writer: MemtableWriter>(
    mut writer: Writer,
    table: &dyn MemtableReader,
    skip_to_last_chunk: impl FnOnce(&mut Writer),
) {
    let key = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let insert = |writer: &mut Writer, number: u64| {
        writer.insert(&key(number), number, ValueKind::Put, &number.to_le_bytes())
    };
    for number in 1..1000 {
        insert(&mut writer, number).expect("there is room");
    }
    skip_to_last_chunk(&mut writer);
    let full = (1000..1_000_000).find(|&number| insert(&mut writer, number) == Err(Full)).expect("an end");
    assert!(full > 10_000);
    assert_eq!(insert(&mut writer, full), Err(Full));

    assert_eq!(table.entry_count() as u64, full - 1);
    for number in 1..full {
        let entry = table.get(&key(number), SEQUENCE_MAX).expect("inserted");
        assert_eq!(entry.value, number.to_le_bytes());
    }
    assert_eq!(table.get(&key(full), SEQUENCE_MAX), None);
}
