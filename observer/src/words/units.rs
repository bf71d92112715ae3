//! Numbers as people read them, and durations as they write them.

/// A duration: `850 ns`, `12 µs`, `3.4 ms`, `1.23 s`, `3 min 20 s`, `2 h 5 min`.
pub fn duration(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{} µs", ns / 1_000),
        1_000_000..100_000_000 => format!("{}.{} ms", ns / 1_000_000, ns / 100_000 % 10),
        100_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        1_000_000_000..60_000_000_000 => format!("{seconds}.{:02} s", ns / 10_000_000 % 100),
        60_000_000_000..3_600_000_000_000 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
    }
}

/// A moment as seconds since the start, to the microsecond: `+0.012345`.
pub fn moment(at_ns: u64, started_ns: u64) -> String {
    let (sign, ns) = if at_ns < started_ns { ('-', started_ns - at_ns) } else { ('+', at_ns - started_ns) };
    format!("{sign}{}.{:06}", ns / 1_000_000_000, ns / 1_000 % 1_000_000)
}

/// A moment for people, to three digits: `+12 ms`, `+1.23 s`.
pub fn about(at_ns: u64, started_ns: u64) -> String {
    if at_ns < started_ns {
        return "before the start".to_owned();
    }
    format!("+{}", duration(at_ns - started_ns))
}

/// A size: `512 B`, `1.5 KiB`, `3.2 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths of a unit, in integers, so that nothing is rounded up to a unit it does not reach.
    let mut tenths = u128::from(bytes) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS.get(unit).unwrap_or(&"TiB"))
}

/// A count with its noun: `1 thread`, `5 threads`.
pub fn counted(count: u64, one: &str) -> String {
    match one.strip_suffix('s') {
        _ if count == 1 => format!("1 {one}"),
        Some(stem) => format!("{count} {stem}ses"),
        None => format!("{count} {one}s"),
    }
}

/// Reads a duration, in nanoseconds: `1.5s`, `200ms`, `3m`, `1h`, `14d`, plain seconds `2`; a leading `+` as in the timeline is taken.
///
/// # Errors
/// When it is none: says what can be written.
pub fn parse_duration_ns(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no duration; write seconds or one of 200ms, 1.5s, 3m, 1h, 14d");
    let number_end = text.find(|c: char| c.is_ascii_alphabetic() || c == 'µ').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_end);
    let unit_ns: u64 = match unit {
        "ns" => 1,
        "us" | "µs" => 1_000,
        "ms" => 1_000_000,
        "s" | "" => 1_000_000_000,
        "m" | "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return Err(wrong()),
    };
    times(number.trim().trim_start_matches('+'), unit_ns).ok_or_else(wrong)
}

/// Reads a size, in bytes: `512B`, `64KiB`, `1.5MiB`, `2GiB`, `1TiB`. The unit must be there.
///
/// # Errors
/// When it is none: says what can be written.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size; write it with its unit, one of 512B, 64KiB, 1.5MiB, 2GiB");
    let number_end = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(number_end);
    let unit_bytes = SIZES.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1;
    times(number.trim(), unit_bytes).ok_or_else(wrong)
}

const SIZES: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

const TIMES: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// A size as [`parse_size`] reads it back, exactly: `64MiB`.
pub fn exact_size(bytes: u64) -> String {
    exact(bytes, &SIZES).unwrap_or_else(|| "0B".to_owned())
}

/// A duration as [`parse_duration_ns`] reads it back, exactly: `90s`, `14d`.
pub fn exact_duration(ns: u64) -> String {
    exact(ns, &TIMES).unwrap_or_else(|| "0s".to_owned())
}

/// In the largest unit of which it is a multiple; nothing for nought.
fn exact(count: u64, units: &[(&str, u64)]) -> Option<String> {
    let (name, one) = units.iter().find(|(_, one)| count > 0 && count.is_multiple_of(*one))?;
    Some(format!("{}{name}", count / one))
}

/// So many units, where `number` is a decimal fraction.
fn times(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let mut total = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    // Nano-units of a unit, in integers: what is below one thing counted is left out.
    let (mut place, mut nano) = (1_000_000_000_u128, 0_u128);
    for digit in fraction.bytes() {
        place /= 10;
        nano += place * u128::from(digit - b'0');
    }
    let parts = u128::from(unit) * nano / 1_000_000_000;
    total = total.saturating_add(u64::try_from(parts).unwrap_or(u64::MAX));
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_well() {
        for (ns, text) in [
            (0, "0 ns"),
            (12_345, "12 µs"),
            (3_456_789, "3.4 ms"),
            (345_678_900, "345 ms"),
            (1_239_000_000, "1.23 s"),
            (200_000_000_000, "3 min 20 s"),
            (7_500_000_000_000, "2 h 5 min"),
        ] {
            assert_eq!(duration(ns), text);
        }
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3_400_000, "3.2 MiB")] {
            assert_eq!(size(bytes), text);
        }
        assert!(size(u64::MAX).ends_with(" TiB"));
        assert_eq!(counted(1, "process"), "1 process");
        assert_eq!(counted(2, "process"), "2 processes");
        assert_eq!(counted(0, "thread"), "0 threads");
    }

    #[test]
    fn moments_are_relative_to_the_start() {
        assert_eq!(moment(1_012_345_678, 1_000_000_000), "+0.012345");
        assert_eq!(moment(500_000_000, 1_000_000_000), "-0.500000", "from /proc: it began before us");
    }

    #[test]
    fn durations_are_read_exactly() {
        for (text, ns) in [
            ("1.5s", 1_500_000_000),
            ("+0.012345", 12_345_000),
            ("200ms", 200_000_000),
            ("2", 2_000_000_000),
            ("3m", 180_000_000_000),
            ("7ns", 7),
        ] {
            assert_eq!(parse_duration_ns(text), Ok(ns), "{text}");
        }
        assert_eq!(parse_duration_ns("14d"), Ok(1_209_600_000_000_000));
        for text in ["", "s", "-1s", "1.5.2s", "1 day", "99999999999999999999s", "9999999999999h", "."] {
            assert!(parse_duration_ns(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_exactly_and_written_back() {
        for (text, bytes) in [("512B", 512), ("64KiB", 65_536), ("1.5MiB", 1_572_864), ("2GiB", 2 << 30)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(parse_size(&exact_size(bytes)), Ok(bytes), "{text}");
        }
        for text in ["", "64", "MiB", "-1MiB", "64MB", "64M", "1.2.3MiB", "99999999999TiB", "64 mib"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!([0, 65_536, 1_572_864, 7].map(exact_size), ["0B", "64KiB", "1536KiB", "7B"]);
        let (second, day) = (1_000_000_000, 86_400_000_000_000);
        assert_eq!([0, 90 * second, 14 * day].map(exact_duration), ["0s", "90s", "14d"]);
        assert_eq!([300 * second, 1_500_000_000, 7].map(exact_duration), ["5m", "1500ms", "7ns"]);
    }
}
