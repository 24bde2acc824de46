//! How times, ages and foreign text are written.

use std::fmt::Write;
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::engine::Wall;

/// An age as kubectl writes it (PROBES section 12): `119s`, `9m59s`, `179m`, `7h59m`, `47h`, `7d23h`, `729d`,
/// `2y1d`, `8y`. A second part of 0 is left out.
pub(super) fn age(length: Duration) -> String {
    let seconds = length.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |big: u64, unit: &str, small: u64, name: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{name}") }
    };
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        two(minutes, "m", seconds % 60, "s")
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        two(hours, "h", minutes % 60, "m")
    } else if hours < 48 {
        format!("{hours}h")
    } else if days < 8 {
        two(days, "d", hours % 24, "h")
    } else if days < 730 {
        format!("{days}d")
    } else if days < 365 * 8 {
        two(days / 365, "y", days % 365, "d")
    } else {
        format!("{}y", days / 365)
    }
}

/// A message beside the name of its unit, which it need not say again: `cannot start web: setting the user
/// failed: …` is `setting the user failed: …`, and where the command was the trouble, what about it.
pub(super) fn beside<'m>(name: &str, message: &'m str) -> &'m str {
    let said = message.strip_prefix("cannot start ").and_then(|rest| rest.strip_prefix(name));
    let Some(said) = said.and_then(|rest| rest.strip_prefix(": ")) else { return message };
    ["executing the command failed: ", "finding the command failed: "]
        .iter()
        .find_map(|stage| said.strip_prefix(stage))
        .unwrap_or(said)
}

/// A duration for a query of the API: whole seconds where it has them, else milliseconds, rounded up.
pub(super) fn query_duration(length: Duration) -> String {
    if length.subsec_nanos() == 0 {
        format!("{}s", length.as_secs())
    } else {
        format!("{}ms", length.as_nanos().div_ceil(1_000_000))
    }
}

/// RFC 1123 with a numeric zone, as `kubectl describe` has it: `Mon, 08 Feb 2021 12:55:58 +0900`.
pub(super) fn long_time(at: Wall, zone: &TimeZone) -> String {
    at.timestamp().to_zoned_datetime(zone.clone()).strftime("%a, %d %b %Y %H:%M:%S %z").to_string()
}

/// `2021-02-08 12:55:58`
pub(super) fn short_time(at: Wall, zone: &TimeZone) -> String {
    at.timestamp().to_zoned_datetime(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Text on one line in which nothing can drive a terminal: control characters and those that turn the
/// direction of writing are escaped.
pub(super) fn clean(text: &str) -> String {
    escape(text, |_| false)
}

/// The same for text of several lines: line ends and tabs stay.
pub(super) fn clean_lines(text: &str) -> String {
    escape(text, |c| matches!(c, '\n' | '\t'))
}

fn escape(text: &str, stays: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
        match c {
            c if stays(c) => out.push(c),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            // Writing to a String cannot fail.
            c if c.is_control() && u32::from(c) < 0x100 => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c if c.is_control() || turns => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// At most so many characters; where some are left out the last is an ellipsis.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// `running` as `Running`.
pub(super) fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_kubectls() {
        const DAY: u64 = 86_400;
        let written = [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (599, "9m59s"),
            (600, "10m"),
            (3 * 3600 - 1, "179m"),
            (3 * 3600, "3h"),
            (8 * 3600 - 1, "7h59m"),
            (8 * 3600, "8h"),
            (48 * 3600 - 1, "47h"),
            (48 * 3600, "2d"),
            (8 * DAY - 1, "7d23h"),
            (8 * DAY, "8d"),
            (730 * DAY - 1, "729d"),
            (730 * DAY, "2y"),
            (731 * DAY, "2y1d"),
            (8 * 365 * DAY - 1, "7y364d"),
            (8 * 365 * DAY, "8y"),
            (9 * 365 * DAY + 5, "9y"),
        ];
        for (seconds, expected) in written {
            assert_eq!(age(Duration::from_secs(seconds)), expected, "{seconds} seconds");
        }
    }

    #[test]
    fn a_query_rounds_a_duration_up() {
        assert_eq!(query_duration(Duration::from_secs(90)), "90s");
        assert_eq!(query_duration(Duration::from_micros(1500)), "2ms");
    }

    #[test]
    fn text_of_a_service_cannot_drive_a_terminal() {
        assert_eq!(clean("a\x1b[2Jb\u{9b}\n\t\u{202e}ü"), "a\\x1b[2Jb\\x9b\\n\\t\\u{202e}ü");
        assert_eq!(clean_lines("a\n\tb\r"), "a\n\tb\\r");
    }

    #[test]
    fn a_cut_text_says_that_it_is_cut() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdef", 4), "abc…");
    }
}
