//! Durations and sizes as people write them.

use std::time::Duration;

/// No duration is longer: a hundred years, so that every deadline fits into nanoseconds.
pub const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// Reads `300ms`, `3s`, `1m30s`, `1.5h`: numbers, each with ns, us, ms, s, m, h or d; also a bare `0`. The
/// error is what is wrong with the text.
pub fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err("an empty text is no duration".to_owned());
    }
    let bad = || format!("`{text}` is no duration");
    let (mut rest, mut nanos) = (text, 0_u128);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        if number.is_empty() {
            return Err(bad());
        }
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        if unit.is_empty() {
            return Err(format!("`{text}` has no unit"));
        }
        let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("`{unit}` in `{text}` is no unit of time"));
        };
        let part = scaled(number, *factor).ok_or_else(bad)?;
        nanos = nanos.saturating_add(part);
        rest = tail;
    }
    if nanos > LONGEST.as_nanos() {
        return Err(format!("`{text}` is longer than a hundred years"));
    }
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| bad())
}

/// The same, or a bare number of seconds, as a command line or a query has it.
pub fn duration_or_seconds(text: &str) -> Result<Duration, String> {
    if text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains(|c: char| c.is_alphabetic()) {
        return duration(&format!("{text}s"));
    }
    duration(text).map_err(|why| format!("{why}; use a number with ms, s, m, h or d, as 300ms, 3s or 1m30s"))
}

/// A decimal number times a whole factor, rounded down.
fn scaled(number: &str, factor: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    // Nine digits are exact to a nanosecond of a second; more would not be seen.
    let fraction = fraction.get(..9).unwrap_or(fraction);
    let places = u32::try_from(fraction.len()).ok()?;
    let fraction: u128 = fraction.parse().ok()?;
    Some(whole.saturating_mul(factor).saturating_add(fraction * factor / 10_u128.pow(places)))
}

/// A duration in a short form: `0s`, `200ms`, `1.5s`, `1m30s`, `2h`.
pub fn duration_text(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let second = 1_000_000_000;
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < second {
        let (unit, factor) = match nanos {
            0..1_000 => ("ns", 1),
            1_000..1_000_000 => ("us", 1_000),
            1_000_000.. => ("ms", 1_000_000),
        };
        return format!("{}{unit}", decimal(nanos, factor));
    }
    let (hours, minutes, rest) = (nanos / (3600 * second), nanos / (60 * second) % 60, nanos % (60 * second));
    let mut text = String::new();
    if hours > 0 {
        text += &format!("{hours}h");
    }
    if minutes > 0 {
        text += &format!("{minutes}m");
    }
    if rest > 0 {
        text += &format!("{}s", decimal(rest, second));
    }
    text
}

/// `nanos / factor` with as many decimal places as it needs; the factor is a power of ten.
fn decimal(nanos: u128, factor: u128) -> String {
    let (whole, rest) = (nanos / factor, nanos % factor);
    if rest == 0 {
        return whole.to_string();
    }
    let places = factor.to_string().len() - 1;
    let fraction = format!("{rest:0places$}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

/// Reads `10MiB`, `10M`, `64k`, `512`: bytes, or with K, M, G or T (also KB, Ki, KiB, …), which count by 1024
/// as in systemd and supervisord. The error is what is wrong with the text.
pub fn size(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is no size");
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let unit = unit.strip_suffix('i').unwrap_or(unit);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(bad()),
    };
    let bytes = scaled(number, 1 << shift).ok_or_else(bad)?;
    u64::try_from(bytes).map_err(|_| format!("`{text}` is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_read_and_written_in_its_short_form() {
        for (text, nanos, short) in [
            ("300ms", 300_000_000_u64, "300ms"),
            ("3s", 3_000_000_000, "3s"),
            ("1m30s", 90_000_000_000, "1m30s"),
            ("1.5s", 1_500_000_000, "1.5s"),
            ("1500ms", 1_500_000_000, "1.5s"),
            ("90m", 5_400_000_000_000, "1h30m"),
            ("1d", 86_400_000_000_000, "24h"),
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("10us", 10_000, "10us"),
            ("1h1ms", 3_600_001_000_000, "1h0.001s"),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
            assert_eq!(duration_text(Duration::from_nanos(nanos)), short);
            assert_eq!(duration(short), Ok(Duration::from_nanos(nanos)), "{short}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        let long = "9".repeat(60) + "d";
        for bad in ["", "10", "s", "1x", "-1s", "1 s", "1.s", ".5s", "1..2s", "101000d", "1s 2s", &long] {
            assert!(duration(bad).is_err(), "{bad:?} was taken");
        }
        assert_eq!(duration("10"), Err("`10` has no unit".to_owned()));
    }

    #[test]
    fn outside_of_files_a_number_may_stand_for_seconds() {
        assert_eq!(duration_or_seconds("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration_or_seconds("1m30s"), Ok(Duration::from_secs(90)));
        for bad in ["", "-1", "1x", "1s2", "inf", "nan", "1e9", ".", "99999999999999999999"] {
            assert!(duration_or_seconds(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_size_counts_by_1024() {
        for (text, bytes) in [
            ("10MiB", 10 << 20),
            ("10M", 10 << 20),
            ("10MB", 10 << 20),
            ("64k", 64 << 10),
            ("7", 7),
            ("1.5K", 1536),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "M", "-1", "1X", "1iM", "99999999T", "1e3"] {
            assert!(size(bad).is_err(), "{bad:?} was taken");
        }
    }
}
