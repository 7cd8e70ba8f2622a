//! Numbers for people: thousands separated, bytes with a unit, rates, short durations.

use std::time::Duration;

/// `1234567` as `1,234,567`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index != 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the largest binary unit that leaves a number of at least one.
pub(crate) fn bytes(value: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if value < 1024 {
        return format!("{value} B");
    }
    let mut scaled = value as f64 / 1024.0;
    let mut unit = 0;
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{scaled:.1} {}", UNITS[unit])
}

/// How many a second; zero when no time passed, so that it can always be written as JSON.
pub(crate) fn per_second(amount: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { amount as f64 / seconds } else { 0.0 }
}

/// Megabytes (10^6 bytes) a second.
pub(crate) fn megabytes_per_second(bytes: u64, seconds: f64) -> f64 {
    per_second(bytes, seconds) / 1e6
}

/// A rate rounded for reading: `950/s`, `12.3 k/s`, `1.25 M/s`.
pub(crate) fn rate(per_second: f64) -> String {
    if per_second >= 1e6 {
        format!("{:.2} M/s", per_second / 1e6)
    } else if per_second >= 1e4 {
        format!("{:.1} k/s", per_second / 1e3)
    } else {
        format!("{per_second:.0}/s")
    }
}

/// A latency in the unit that suits it.
pub(crate) fn latency(nanoseconds: u64) -> String {
    let value = nanoseconds as f64;
    if nanoseconds < 1_000 {
        format!("{nanoseconds} ns")
    } else if nanoseconds < 1_000_000 {
        format!("{:.1} us", value / 1e3)
    } else {
        format!("{:.2} ms", value / 1e6)
    }
}

/// Whole nanoseconds of a duration; more than 584 years are reported as the largest number.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_by_three() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn bytes_change_unit_at_1024() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(307_200_000), "293.0 MiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
    }

    #[test]
    fn rates_and_latencies_pick_a_unit() {
        assert_eq!(rate(per_second(950, 1.0)), "950/s");
        assert_eq!(rate(per_second(2_500_000, 2.0)), "1.25 M/s");
        assert_eq!(rate(12_340.0), "12.3 k/s");
        assert_eq!(per_second(5, 0.0), 0.0);
        assert_eq!(latency(999), "999 ns");
        assert_eq!(latency(1_500), "1.5 us");
        assert_eq!(latency(2_340_000), "2.34 ms");
    }
}
