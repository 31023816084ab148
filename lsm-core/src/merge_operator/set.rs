//! Sets of byte strings: each member with its length in front (a varint), sorted bytewise, without repetitions.

use std::collections::BTreeSet;

use super::MergeError;
use crate::coding::{Decoder, put_bytes};

/// The set with these members, as [`BuiltInMerge::set_union`](super::BuiltInMerge::set_union) reads and writes it.
///
/// ```
/// use lsm_core::merge_operator::{decode_set, encode_set};
/// assert_eq!(encode_set(["b", "a", "b"]), b"\x01a\x01b");
/// assert_eq!(decode_set(b"\x01a\x01b"), Ok(vec![&b"a"[..], b"b"]));
/// ```
pub fn encode_set<M: AsRef<[u8]>>(members: impl IntoIterator<Item = M>) -> Vec<u8> {
    let members: Vec<M> = members.into_iter().collect();
    encode(members.iter().map(AsRef::as_ref).collect())
}

/// The members of an encoded set, sorted. Members that repeat, or are not sorted, are accepted.
///
/// # Errors
/// If the lengths do not fit the bytes.
pub fn decode_set(set: &[u8]) -> Result<Vec<&[u8]>, MergeError> {
    let mut members = BTreeSet::new();
    add_members(&mut members, set)?;
    Ok(members.into_iter().collect())
}

/// The union of sets.
pub(super) fn union<'s>(sets: impl Iterator<Item = &'s [u8]>) -> Result<Vec<u8>, MergeError> {
    let mut members = BTreeSet::new();
    for set in sets {
        add_members(&mut members, set)?;
    }
    Ok(encode(members))
}

fn add_members<'s>(members: &mut BTreeSet<&'s [u8]>, set: &'s [u8]) -> Result<(), MergeError> {
    let mut decoder = Decoder::new(set);
    while !decoder.is_empty() {
        let offset = set.len() - decoder.rest().len();
        let member = decoder.bytes().ok_or_else(|| {
            MergeError::new(format!("a set of {} bytes has no whole member at byte {offset}", set.len()))
        })?;
        members.insert(member);
    }
    Ok(())
}

fn encode(members: BTreeSet<&[u8]>) -> Vec<u8> {
    let mut set = Vec::new();
    for member in members {
        put_bytes(&mut set, member);
    }
    set
}
