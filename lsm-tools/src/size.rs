//! Sizes and counts on the command line: `4096`, `64K`, `512M`, `2G`.

/// Parses a number of bytes with an optional suffix K, M, G or T, in powers of 1024.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits_end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(digits_end);
    let shift = match suffix.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err("give a number of bytes, or one with K, M, G or T: 4096, 64K, 512M, 2G".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{digits:?} is not a number of bytes"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text} is more than 2^64 bytes"))
}

/// Parses a number of things with an optional suffix K, M, G or T, in powers of 1000.
pub(crate) fn parse_count(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.trim().split_at_checked(text.trim().len().saturating_sub(1)) {
        Some((digits, "K" | "k")) => (digits, 1_000),
        Some((digits, "M" | "m")) => (digits, 1_000_000),
        Some((digits, "G" | "g")) => (digits, 1_000_000_000),
        Some((digits, "T" | "t")) => (digits, 1_000_000_000_000),
        _ => (text.trim(), 1),
    };
    let number: Option<u64> = digits.parse().ok();
    number
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| "give a number, or one with K, M, G or T: 5000, 100M, 1T".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{parse_bytes, parse_count};

    #[test]
    fn counts_have_decimal_suffixes() {
        assert_eq!(parse_count("5000"), Ok(5000));
        assert_eq!(parse_count("1T"), Ok(1_000_000_000_000));
        for bad in ["", "T", "1X", "-1", "é", "99999999T"] {
            assert!(parse_count(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_suffixes() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("64k"), Ok(65_536));
        assert_eq!(parse_bytes("2GiB"), Ok(2 << 30));
        for bad in ["", "M", "1X", "-1", "1.5G", "99999999T"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }
}
