use std::cmp::Ordering;
use std::fmt::Write;
use std::sync::Arc;

use super::number::Number;
use super::set;
use super::{MergeError, MergeOperator};

/// The merge operators that come with the store. Their names tell all about them, so a database that uses one opens
/// without being told, and tools can read it.
///
/// | made by | name | the value is | operands are |
/// |---|---|---|---|
/// | [`add_i64`](Self::add_i64), `add_u64`, `add_f64` | `lsm.add-i64`, … | the sum | numbers |
/// | [`min_i64`](Self::min_i64), `min_u64`, `min_f64` | `lsm.min-i64`, … | the smallest | numbers |
/// | [`max_i64`](Self::max_i64), `max_u64`, `max_f64` | `lsm.max-i64`, … | the largest | numbers |
/// | [`min_bytes`](Self::min_bytes), [`max_bytes`](Self::max_bytes) | `lsm.min-bytes`, `lsm.max-bytes` | the smallest or largest, bytewise | any bytes |
/// | [`append`](Self::append) | `lsm.append:` and the separator in hexadecimal | all, one after the other, with the separator between | any bytes |
/// | [`set_union`](Self::set_union) | `lsm.set-union` | the union | sets, see [`encode_set`](super::encode_set) |
/// | [`last_writer`](Self::last_writer) | `lsm.last-writer` | the last operand | any bytes |
///
/// Numbers are 8 bytes, little-endian; any other length is an error. So is an integer sum outside the range of its type,
/// rather than a wrong number; only the sum of all must be inside, in whatever parts it is computed. Sums of `f64` are
/// rounded, and depend in their last bits on the parts in which they were computed. `f64` are compared in their total
/// order: -NaN, numbers, NaN. Values have the same form as operands, so that [put](crate::ValueKind::Put) may set one.
///
/// ```
/// use lsm_core::merge_operator::{BuiltInMerge, MergeOperator};
/// let add = BuiltInMerge::add_i64();
/// let (base, operands) = (5_i64.to_le_bytes(), [1_i64.to_le_bytes(), (-7_i64).to_le_bytes()]);
/// let sum = add.full(b"key", Some(&base), &[&operands[0], &operands[1]])?.unwrap();
/// assert_eq!(sum, (-1_i64).to_le_bytes());
///
/// let append = BuiltInMerge::append(", ");
/// assert_eq!(append.name(), "lsm.append:2c20");
/// assert_eq!(append.full(b"key", None, &[b"a", b"b"])?.unwrap(), b"a, b");
/// # Ok::<(), lsm_core::merge_operator::MergeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltInMerge {
    name: Arc<str>,
    rule: Rule,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Add(Number),
    /// The value that compares so to all others.
    Extreme(Ordering, Order),
    Append(Arc<[u8]>),
    SetUnion,
    LastWriter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Numbers(Number),
    Bytes,
}

/// In front of the separator, in the name.
const APPEND: &str = "lsm.append:";

impl BuiltInMerge {
    /// The sum of signed integers.
    pub fn add_i64() -> Self {
        Self::of(Rule::Add(Number::I64))
    }

    /// The sum of unsigned integers.
    pub fn add_u64() -> Self {
        Self::of(Rule::Add(Number::U64))
    }

    /// The sum of floating-point numbers.
    pub fn add_f64() -> Self {
        Self::of(Rule::Add(Number::F64))
    }

    /// The smallest signed integer.
    pub fn min_i64() -> Self {
        Self::of(Rule::Extreme(Ordering::Less, Order::Numbers(Number::I64)))
    }

    /// The smallest unsigned integer.
    pub fn min_u64() -> Self {
        Self::of(Rule::Extreme(Ordering::Less, Order::Numbers(Number::U64)))
    }

    /// The smallest floating-point number.
    pub fn min_f64() -> Self {
        Self::of(Rule::Extreme(Ordering::Less, Order::Numbers(Number::F64)))
    }

    /// The value that is smallest bytewise.
    pub fn min_bytes() -> Self {
        Self::of(Rule::Extreme(Ordering::Less, Order::Bytes))
    }

    /// The largest signed integer.
    pub fn max_i64() -> Self {
        Self::of(Rule::Extreme(Ordering::Greater, Order::Numbers(Number::I64)))
    }

    /// The largest unsigned integer.
    pub fn max_u64() -> Self {
        Self::of(Rule::Extreme(Ordering::Greater, Order::Numbers(Number::U64)))
    }

    /// The largest floating-point number.
    pub fn max_f64() -> Self {
        Self::of(Rule::Extreme(Ordering::Greater, Order::Numbers(Number::F64)))
    }

    /// The value that is largest bytewise.
    pub fn max_bytes() -> Self {
        Self::of(Rule::Extreme(Ordering::Greater, Order::Bytes))
    }

    /// All values, with `separator` between two of them. It may have 122 bytes, so that the name fits 255.
    pub fn append(separator: impl AsRef<[u8]>) -> Self {
        Self::of(Rule::Append(separator.as_ref().into()))
    }

    /// The union of sets; [`encode_set`](super::encode_set) makes operands.
    pub fn set_union() -> Self {
        Self::of(Rule::SetUnion)
    }

    /// The last operand. Like a put, but a put replaces what no operand of another operator could.
    pub fn last_writer() -> Self {
        Self::of(Rule::LastWriter)
    }

    /// The operator with this name; `None` if no built-in one has it.
    pub fn from_name(name: &str) -> Option<Self> {
        if let Some(separator) = name.strip_prefix(APPEND) {
            let found = Self::append(from_hexadecimal(separator)?);
            return (*found.name == *name).then_some(found);
        }
        let others = [
            Self::add_i64,
            Self::add_u64,
            Self::add_f64,
            Self::min_i64,
            Self::min_u64,
            Self::min_f64,
            Self::min_bytes,
            Self::max_i64,
            Self::max_u64,
            Self::max_f64,
            Self::max_bytes,
            Self::set_union,
            Self::last_writer,
        ];
        others.iter().map(|make| make()).find(|operator| *operator.name == *name)
    }

    fn of(rule: Rule) -> Self {
        let order = |order| match order {
            Order::Numbers(number) => Number::name(number),
            Order::Bytes => "bytes",
        };
        let name = match &rule {
            Rule::Add(number) => format!("lsm.add-{}", number.name()),
            Rule::Extreme(Ordering::Less, by) => format!("lsm.min-{}", order(*by)),
            Rule::Extreme(_, by) => format!("lsm.max-{}", order(*by)),
            Rule::Append(separator) => {
                let mut name = APPEND.to_owned();
                for byte in &**separator {
                    // Writing to a string does not fail.
                    let _ = write!(name, "{byte:02x}");
                }
                name
            }
            Rule::SetUnion => "lsm.set-union".to_owned(),
            Rule::LastWriter => "lsm.last-writer".to_owned(),
        };
        Self { name: name.into(), rule }
    }

    /// All rules treat base and operands alike, so that a part of the operands folds as all of them do.
    fn fold<'v>(&self, values: impl Iterator<Item = &'v [u8]> + Clone) -> Result<Vec<u8>, MergeError> {
        match &self.rule {
            Rule::Add(number) => number.sum(values).map(Vec::from),
            Rule::Extreme(wanted, order) => extreme(*wanted, *order, values),
            Rule::Append(separator) => Ok(join(separator, values)),
            Rule::SetUnion => set::union(values),
            Rule::LastWriter => Ok(values.last().unwrap_or_default().to_vec()),
        }
    }
}

impl MergeOperator for BuiltInMerge {
    fn name(&self) -> &str {
        &self.name
    }

    fn full(&self, _: &[u8], base: Option<&[u8]>, operands: &[&[u8]]) -> Result<Option<Vec<u8>>, MergeError> {
        self.fold(base.into_iter().chain(operands.iter().copied())).map(Some)
    }

    fn partial(&self, _: &[u8], operands: &[&[u8]]) -> Option<Vec<u8>> {
        self.fold(operands.iter().copied()).ok()
    }
}

fn extreme<'v>(
    wanted: Ordering,
    order: Order,
    values: impl Iterator<Item = &'v [u8]>,
) -> Result<Vec<u8>, MergeError> {
    let mut found: Option<&[u8]> = None;
    for value in values {
        let is_better = match (found, order) {
            (None, Order::Numbers(_)) => Number::check(value).map(|()| true)?,
            (None, Order::Bytes) => true,
            (Some(found), Order::Numbers(number)) => number.compare(value, found)? == wanted,
            (Some(found), Order::Bytes) => value.cmp(found) == wanted,
        };
        if is_better {
            found = Some(value);
        }
    }
    Ok(found.unwrap_or_default().to_vec())
}

fn join<'v>(separator: &[u8], values: impl Iterator<Item = &'v [u8]> + Clone) -> Vec<u8> {
    let bytes: usize = values.clone().map(|value| value.len() + separator.len()).sum();
    let mut joined = Vec::with_capacity(bytes);
    for (index, value) in values.enumerate() {
        if index > 0 {
            joined.extend_from_slice(separator);
        }
        joined.extend_from_slice(value);
    }
    joined
}

fn from_hexadecimal(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge_operator::encode_set;

    fn i64s(numbers: &[i64]) -> Vec<[u8; 8]> {
        numbers.iter().map(|number| number.to_le_bytes()).collect()
    }

    fn full(operator: &BuiltInMerge, base: Option<&[u8]>, operands: &[impl AsRef<[u8]>]) -> Option<Vec<u8>> {
        let operands: Vec<&[u8]> = operands.iter().map(AsRef::as_ref).collect();
        operator.full(b"key", base, &operands).unwrap()
    }

    #[test]
    fn a_name_resolves_to_its_operator_and_no_other_name_does() {
        let all = [
            BuiltInMerge::add_i64(),
            BuiltInMerge::add_u64(),
            BuiltInMerge::add_f64(),
            BuiltInMerge::min_i64(),
            BuiltInMerge::min_u64(),
            BuiltInMerge::min_f64(),
            BuiltInMerge::min_bytes(),
            BuiltInMerge::max_i64(),
            BuiltInMerge::max_u64(),
            BuiltInMerge::max_f64(),
            BuiltInMerge::max_bytes(),
            BuiltInMerge::append(""),
            BuiltInMerge::append(", "),
            BuiltInMerge::append([0, 255]),
            BuiltInMerge::append([7; 122]),
            BuiltInMerge::set_union(),
            BuiltInMerge::last_writer(),
        ];
        for operator in &all {
            assert_eq!(BuiltInMerge::from_name(operator.name()).as_ref(), Some(operator));
            assert!(operator.name().len() <= 255);
        }
        let mut names: Vec<_> = all.iter().map(MergeOperator::name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
        for name in [
            "",
            "lsm.",
            "add-i64",
            "lsm.append",
            "lsm.append:2",
            "lsm.append:2C",
            "lsm.append:+1",
            "lsm.append:é",
        ] {
            assert_eq!(BuiltInMerge::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn only_the_sum_of_all_must_fit() {
        let add = BuiltInMerge::add_i64();
        let back = i64s(&[i64::MAX, 1, -1]);
        assert_eq!(full(&add, None, &back), Some(i64::MAX.to_le_bytes().to_vec()));
        let operands: Vec<&[u8]> = back.iter().map(<[u8; 8]>::as_slice).collect();
        let error = add.full(b"key", None, &operands[..2]).unwrap_err();
        assert_eq!(error.to_string(), "the sum 9223372036854775808 does not fit i64");
        assert_eq!(add.partial(b"key", &operands[..2]), None, "the parts stay apart until they fit");

        let unsigned = BuiltInMerge::add_u64();
        assert!(unsigned.full(b"key", Some(&u64::MAX.to_le_bytes()), &[&1_u64.to_le_bytes()]).is_err());
        let sum = full(&BuiltInMerge::add_f64(), Some(&0.5_f64.to_le_bytes()), &[1.25_f64.to_le_bytes()]);
        assert_eq!(sum, Some(1.75_f64.to_le_bytes().to_vec()));
    }

    #[test]
    fn a_number_of_another_length_is_an_error_wherever_it_stands() {
        let (number, short) = (7_i64.to_le_bytes(), [1, 2, 3]);
        for operator in [BuiltInMerge::add_i64(), BuiltInMerge::min_u64(), BuiltInMerge::max_f64()] {
            for (base, operands) in [
                (Some(&short[..]), vec![&number[..]]),
                (None, vec![&short[..]]),
                (Some(&number[..]), vec![&number[..], &short[..]]),
            ] {
                let error = operator.full(b"key", base, &operands).unwrap_err();
                assert_eq!(error.to_string(), "a number takes 8 bytes, little-endian; one has 3");
            }
            assert_eq!(operator.partial(b"key", &[&number, &short]), None);
        }
    }

    #[test]
    fn the_extremes_follow_the_order_of_their_type() {
        let numbers = i64s(&[3, -5, 9]);
        assert_eq!(full(&BuiltInMerge::min_i64(), None, &numbers), Some(numbers[1].to_vec()));
        assert_eq!(
            full(&BuiltInMerge::max_i64(), Some(&numbers[2]), &numbers[..2]),
            Some(numbers[2].to_vec())
        );
        // As an unsigned integer, -5 is the largest.
        assert_eq!(full(&BuiltInMerge::max_u64(), None, &numbers), Some(numbers[1].to_vec()));
        let floats = [1.5, -2.5, f64::NAN].map(f64::to_le_bytes);
        assert_eq!(full(&BuiltInMerge::min_f64(), None, &floats), Some(floats[1].to_vec()));
        assert_eq!(full(&BuiltInMerge::max_f64(), None, &floats), Some(floats[2].to_vec()));
        assert_eq!(full(&BuiltInMerge::min_bytes(), Some(b"b"), &["ab", "c"]), Some(b"ab".to_vec()));
        assert_eq!(full(&BuiltInMerge::max_bytes(), Some(b"b"), &["ab", "c"]), Some(b"c".to_vec()));
    }

    #[test]
    fn lists_sets_and_last_writers() {
        let append = BuiltInMerge::append(",");
        assert_eq!(full(&append, None, &["a"]), Some(b"a".to_vec()));
        assert_eq!(full(&append, Some(b""), &["a", "", "b"]), Some(b",a,,b".to_vec()));
        let union = BuiltInMerge::set_union();
        let (one, other) = (encode_set(["b", "d"]), encode_set(["a", "b", ""]));
        assert_eq!(full(&union, Some(&one), &[&other]), Some(encode_set(["", "a", "b", "d"])));
        assert_eq!(
            full(&union, None, &[b"\x01b\x01a\x01b"]),
            Some(encode_set(["a", "b"])),
            "any order is read"
        );
        let error = union.full(b"key", Some(&one), &[b"\x01a\x05b"]).unwrap_err();
        assert_eq!(error.to_string(), "a set of 4 bytes has no whole member at byte 2");
        assert_eq!(full(&BuiltInMerge::last_writer(), Some(b"x"), &["a", "b"]), Some(b"b".to_vec()));
    }

    #[test]
    fn parts_fold_as_the_whole_does() {
        let words = ["b", "", "abc", "zz", "abc"];
        let numbers = i64s(&[4, -9, 1 << 40, 7, 0]);
        let sets: Vec<Vec<u8>> = words.iter().map(|word| encode_set([*word, "x"])).collect();
        let of_words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let of_numbers: Vec<&[u8]> = numbers.iter().map(<[u8; 8]>::as_slice).collect();
        let of_sets: Vec<&[u8]> = sets.iter().map(Vec::as_slice).collect();
        for (operator, values) in [
            (BuiltInMerge::add_i64(), &of_numbers),
            (BuiltInMerge::min_i64(), &of_numbers),
            (BuiltInMerge::max_u64(), &of_numbers),
            (BuiltInMerge::max_f64(), &of_numbers),
            (BuiltInMerge::min_bytes(), &of_words),
            (BuiltInMerge::append("--"), &of_words),
            (BuiltInMerge::set_union(), &of_sets),
            (BuiltInMerge::last_writer(), &of_words),
        ] {
            for base in [None, Some(values[0])] {
                let whole = operator.full(b"key", base, &values[1..]).unwrap();
                for cut in 2..values.len() {
                    let below = operator.full(b"key", base, &values[1..cut]).unwrap();
                    let in_two = operator.full(b"key", below.as_deref(), &values[cut..]).unwrap();
                    assert_eq!(in_two, whole, "{operator:?} cut at {cut}");
                    let part = operator.partial(b"key", &values[1..cut]).unwrap();
                    let operands: Vec<&[u8]> =
                        [&part[..]].into_iter().chain(values[cut..].iter().copied()).collect();
                    assert_eq!(
                        operator.full(b"key", base, &operands).unwrap(),
                        whole,
                        "{operator:?} part to {cut}"
                    );
                }
            }
        }
    }
}
