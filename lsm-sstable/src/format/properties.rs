//! What a table says about itself.
//!
//! ```text
//! properties := count:varint  (mark:u8  name:bytes  value:bytes)*     bytes := length:varint byte*
//! ```
//!
//! Names ascend and occur once. Values of numbers are varints. A reader passes over a name that it does not know if the
//! mark is 0x80. If the mark is 0, it refuses the table: whoever does not know the name would read it wrongly.

use lsm_core::coding::{Decoder, SKIPPABLE, put_bytes, put_varint};
use lsm_core::{BlobPointer, DecodeError, Entry, Slice, ValueKind, expiry};

use crate::meta::{BlobRef, BlobRefs, TableId, TableMeta};

/// What a table says about itself beyond its [`TableMeta`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// Name of the compression asked for; single blocks may be stored uncompressed.
    pub compression: String,
    /// Name of the filter, empty if there is none.
    pub filter: String,
    /// Name of the prefix extractor whose prefixes are in the filter, empty if there is none.
    pub prefix_extractor: String,
    /// Number of data blocks.
    pub data_blocks: u64,
    /// Bytes of all data blocks in the file.
    pub data_bytes: u64,
    /// Bytes of all data blocks before compression, without their headers.
    pub raw_data_bytes: u64,
    /// Number of distinct user keys among the entries.
    pub distinct_keys: u64,
    /// Bytes of key and value of the largest entry: a block is at least as large as its largest.
    pub largest_entry_bytes: u64,
    /// Number of merge operands.
    pub merge_operands: u64,
    /// Number of entries that expire.
    pub expiring: u64,
    /// When the first of them expires, in microseconds since 1970; 0 if there is none.
    pub earliest_expiry_micros: u64,
    /// When the last of them expires; 0 if there is none.
    pub latest_expiry_micros: u64,
}

impl Properties {
    /// Takes note of an entry, if it is of a kind that is counted apart.
    #[inline]
    pub(crate) fn count(&mut self, entry: Entry<'_>, blobs: &mut BlobRefs) {
        match entry.kind {
            ValueKind::PutWithExpiry => self.count_expiring(entry.value),
            ValueKind::Merge => self.merge_operands += 1,
            ValueKind::BlobPointer => {
                blobs.count(entry);
                if BlobPointer::decode(entry.value).is_some_and(|pointer| pointer.expires()) {
                    self.count_expiring(entry.value);
                }
            }
            _ => {}
        }
    }

    #[cold]
    fn count_expiring(&mut self, stored: &[u8]) {
        let Some((expiry_micros, _)) = expiry::split(stored) else { return };
        self.earliest_expiry_micros = match self.expiring {
            0 => expiry_micros,
            _ => self.earliest_expiry_micros.min(expiry_micros),
        };
        self.latest_expiry_micros = self.latest_expiry_micros.max(expiry_micros);
        self.expiring += 1;
    }
}

pub(crate) fn encode(properties: &Properties, meta: &TableMeta) -> Vec<u8> {
    let number = |value: u64| {
        let mut out = Vec::new();
        put_varint(&mut out, value);
        out
    };
    let mut fields: Vec<(u8, &str, Vec<u8>)> = vec![
        (0, "compression", properties.compression.clone().into_bytes()),
        (0, "data.blocks", number(properties.data_blocks)),
        (0, "data.bytes", number(properties.data_bytes)),
        (0, "data.raw_bytes", number(properties.raw_data_bytes)),
        (0, "entries", number(meta.entries)),
        (0, "entries.largest_bytes", number(properties.largest_entry_bytes)),
        (0, "filter", properties.filter.clone().into_bytes()),
        (0, "keys.distinct", number(properties.distinct_keys)),
        (0, "keys.largest", meta.largest.to_vec()),
        (0, "keys.raw_bytes", number(meta.raw_key_bytes)),
        (0, "keys.smallest", meta.smallest.to_vec()),
        (0, "prefix_extractor", properties.prefix_extractor.clone().into_bytes()),
        (0, "range_tombstones", number(meta.range_tombstones)),
        (0, "sequence.largest", number(meta.largest_sequence)),
        (0, "sequence.smallest", number(meta.smallest_sequence)),
        (0, "tombstones", number(meta.tombstones)),
        (0, "values.raw_bytes", number(meta.raw_value_bytes)),
    ];
    if properties.merge_operands > 0 {
        // Whoever does not know operands would show them as values.
        fields.push((0, "merge.operands", number(properties.merge_operands)));
    }
    if properties.expiring > 0 {
        // Whoever does not know that entries expire would show what has expired.
        fields.push((0, "expiry.count", number(properties.expiring)));
        fields.push((SKIPPABLE, "expiry.earliest", number(properties.earliest_expiry_micros)));
        fields.push((SKIPPABLE, "expiry.latest", number(properties.latest_expiry_micros)));
    }
    if !meta.blobs.is_empty() {
        // Whoever does not know blob pointers would show them as values.
        fields.push((0, "blobs", BlobRef::encode_all(&meta.blobs)));
    }
    fields.sort_by_key(|(_, name, _)| *name);
    let mut out = Vec::new();
    put_varint(&mut out, fields.len() as u64);
    for (mark, name, value) in &fields {
        out.push(*mark);
        put_bytes(&mut out, name.as_bytes());
        put_bytes(&mut out, value);
    }
    out
}

/// Decodes the properties; what the footer knows better (id, length, checksum) is left at its default.
pub(crate) fn decode(payload: &[u8]) -> Result<(Properties, TableMeta), DecodeError> {
    let mut rest = Decoder::new(payload);
    let mut properties = Properties::default();
    let mut meta = TableMeta { id: TableId::default(), ..TableMeta::default() };
    let count = rest.varint().ok_or("properties have no count")?;
    let mut previous: &[u8] = b"";
    for _ in 0..count {
        let (Some(mark), Some(name), Some(value)) = (rest.u8(), rest.bytes(), rest.bytes()) else {
            return Err("properties are cut short".into());
        };
        if name <= previous || mark & !SKIPPABLE != 0 {
            return Err(
                format!("property \"{}\" is out of order or marked {mark}", name.escape_ascii()).into()
            );
        }
        previous = name;
        let malformed = || format!("property \"{}\" has a malformed value", name.escape_ascii());
        let number = || {
            let mut value = Decoder::new(value);
            value.varint().filter(|_| value.is_empty()).ok_or_else(malformed)
        };
        let text = || String::from_utf8(value.to_vec()).map_err(|_| malformed());
        match name {
            b"blobs" => meta.blobs = BlobRef::decode_all(value).ok_or_else(malformed)?.into(),
            b"compression" => properties.compression = text()?,
            b"data.blocks" => properties.data_blocks = number()?,
            b"data.bytes" => properties.data_bytes = number()?,
            b"data.raw_bytes" => properties.raw_data_bytes = number()?,
            b"entries" => meta.entries = number()?,
            b"entries.largest_bytes" => properties.largest_entry_bytes = number()?,
            b"expiry.count" => properties.expiring = number()?,
            b"expiry.earliest" => properties.earliest_expiry_micros = number()?,
            b"expiry.latest" => properties.latest_expiry_micros = number()?,
            b"filter" => properties.filter = text()?,
            b"merge.operands" => properties.merge_operands = number()?,
            b"keys.distinct" => properties.distinct_keys = number()?,
            b"keys.largest" => meta.largest = Slice::copy_from(value),
            b"keys.raw_bytes" => meta.raw_key_bytes = number()?,
            b"keys.smallest" => meta.smallest = Slice::copy_from(value),
            b"prefix_extractor" => properties.prefix_extractor = text()?,
            b"range_tombstones" => meta.range_tombstones = number()?,
            b"sequence.largest" => meta.largest_sequence = number()?,
            b"sequence.smallest" => meta.smallest_sequence = number()?,
            b"tombstones" => meta.tombstones = number()?,
            b"values.raw_bytes" => meta.raw_value_bytes = number()?,
            _ if mark == SKIPPABLE => {}
            _ => return Err(DecodeError::Unknown(format!("the property \"{}\"", name.escape_ascii()))),
        }
    }
    if rest.is_empty() {
        Ok((properties, meta))
    } else {
        Err(format!("properties are followed by {} stray bytes", rest.rest().len()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_survive_and_hostile_bytes_are_refused() {
        let properties =
            Properties { filter: "bloom".into(), data_blocks: 3, expiring: 2, ..Properties::default() };
        let properties = Properties {
            earliest_expiry_micros: 5,
            latest_expiry_micros: 900,
            merge_operands: 7,
            ..properties
        };
        let blobs = [3, 5].map(|blob| BlobRef { blob, values: 2, bytes: 90_000 });
        let meta = TableMeta {
            entries: 300,
            largest: Slice::from("z"),
            blobs: blobs.into(),
            ..TableMeta::default()
        };
        let encoded = encode(&properties, &meta);
        assert_eq!(decode(&encoded).unwrap(), (properties, meta));
        for len in 0..encoded.len() {
            assert!(decode(&encoded[..len]).is_err());
        }
        assert!(decode(&[0xff; 30]).is_err());
    }

    /// The names stand before, between and behind those of this version.
    #[test]
    fn unknown_properties_are_passed_over_if_they_may_be_and_refused_by_name_if_not() {
        let properties = Properties { filter: "bloom".into(), data_blocks: 3, ..Properties::default() };
        let meta = TableMeta { entries: 300, largest: Slice::from("z"), ..TableMeta::default() };
        let known = encode(&properties, &meta);
        let mut fields = Vec::new();
        let mut rest = Decoder::new(&known);
        for _ in 0..rest.varint().unwrap() {
            fields.push((rest.u8().unwrap(), rest.bytes().unwrap(), rest.bytes().unwrap()));
        }
        let decode_fields = |fields: &[(u8, &[u8], &[u8])]| {
            let mut out = Vec::new();
            put_varint(&mut out, fields.len() as u64);
            for (mark, name, value) in fields {
                out.push(*mark);
                put_bytes(&mut out, name);
                put_bytes(&mut out, value);
            }
            decode(&out)
        };
        let mut skippable = 0;
        for index in 0..=fields.len() {
            let name = index.checked_sub(1).map_or(b"!".to_vec(), |before| [fields[before].1, b"!"].concat());
            for (mark, value) in
                [(SKIPPABLE, &b""[..]), (SKIPPABLE, &[0xff; 300]), (0, b""), (1, b""), (0xff, b"")]
            {
                let mut more = fields.clone();
                more.insert(index, (mark, &name, value));
                let decoded = decode_fields(&more);
                match mark {
                    SKIPPABLE => assert_eq!(decoded.unwrap(), (properties.clone(), meta.clone())),
                    0 => {
                        let DecodeError::Unknown(what) = decoded.unwrap_err() else { panic!("malformed") };
                        assert!(what.contains(std::str::from_utf8(&name).unwrap()), "{what}");
                    }
                    _ => assert!(matches!(decoded, Err(DecodeError::Malformed(_)))),
                }
                skippable += usize::from(mark == SKIPPABLE);
            }
        }
        assert_eq!(skippable, 36);
    }
}
