//! Sizes in bytes as people write them: `1048576`, `256MiB`, `4 GB`.

/// Units by suffix, longest first, so that `MiB` is not read as `B`.
const UNITS: [(&str, u64); 12] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("b", 1),
];

/// Bytes of a written size: digits and an optional unit. `K`, `M` and `G` alone are powers of 1024.
///
/// # Errors
/// A sentence for clap, naming what is accepted.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let (digits, unit) = UNITS
        .iter()
        .find_map(|(suffix, unit)| lower.strip_suffix(suffix).map(|digits| (digits, *unit)))
        .unwrap_or((lower.as_str(), 1));
    let digits = digits.trim_end();
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !plain {
        return Err("a size is a whole number of bytes with a unit, such as 256MiB or 1GB".into());
    }
    digits
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(unit))
        .ok_or_else(|| "this size does not fit 64 bits".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        let cases = [
            ("0", 0),
            ("1048576", 1 << 20),
            ("256MiB", 256 << 20),
            ("256 mib", 256 << 20),
            ("4GB", 4_000_000_000),
            ("2g", 2 << 30),
            ("17b", 17),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn nonsense_and_overflow_are_refused() {
        for text in
            ["", "MiB", "-1", "1.5GiB", "12parsecs", "+3", "99999999999999999999", "9999999999TiB"]
        {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
