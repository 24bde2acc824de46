//! Texts that leave a probe: escaped, bounded, and in the words that Go's programs use.

use std::fmt::Write;
use std::io;
use std::time::Duration;

/// The most bytes that one text has, its mark of a cut included.
pub(super) const MAX_TEXT: usize = 1024;

/// What stands at the end of a text that was cut.
const CUT: &str = "…";

/// The text on one line, without a character that could move a terminal's cursor or hide what follows, and
/// at most [`MAX_TEXT`] bytes of it.
pub(super) fn escaped(text: &str) -> String {
    escaped_bytes(text.as_bytes())
}

/// As [`escaped`], of bytes from outside. What is not UTF-8 is shown as `\xff`.
pub(super) fn escaped_bytes(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if !push(&mut out, &escape(character)) {
                return out;
            }
        }
        for byte in chunk.invalid() {
            if !push(&mut out, &format!("\\x{byte:02x}")) {
                return out;
            }
        }
    }
    out
}

/// Appends a piece if it fits; says `false` and marks the cut if it does not.
fn push(out: &mut String, piece: &str) -> bool {
    let fits = out.len() + piece.len() + CUT.len() <= MAX_TEXT;
    out.push_str(if fits { piece } else { CUT });
    fits
}

/// One character as it may be shown.
fn escape(character: char) -> String {
    match character {
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        c if c.is_ascii_control() => format!("\\x{:02x}", u32::from(c)),
        c if c.is_control() || rearranges(c) => format!("\\u{{{:x}}}", u32::from(c)),
        c => c.to_string(),
    }
}

/// Line separators and the marks that turn the direction of writing: no controls to Unicode, but as apt to
/// make a text look like another.
fn rearranges(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// An error of a system call as Go words it, which is what people grep for: `connection refused`.
pub(super) fn errno(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        io::ErrorKind::BrokenPipe => "broken pipe".to_owned(),
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied if error.raw_os_error() == Some(13) => "permission denied".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        _ => lower_first(strip_number(&error.to_string())),
    }
}

/// Without the ` (os error 111)` that the standard library adds.
fn strip_number(text: &str) -> &str {
    text.split_once(" (os error ").map_or(text, |(words, _)| words)
}

/// The first letter in lower case.
fn lower_first(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => String::new(),
    }
}

/// A span of time as Go prints it: `1s`, `200ms`, `1.5s`, `1m30s`.
pub(super) fn span(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        return format!("{}ms", fraction(time.as_micros(), 1000));
    }
    let (minutes, seconds) = (time.as_secs() / 60, time.as_secs() % 60);
    let mut out = String::new();
    // Writing to a string cannot fail.
    if minutes >= 60 {
        let _ = write!(out, "{}h", minutes / 60);
    }
    if minutes > 0 {
        let _ = write!(out, "{}m", minutes % 60);
    }
    let millis = u128::from(seconds) * 1000 + u128::from(time.subsec_millis());
    let _ = write!(out, "{}s", fraction(millis, 1000));
    out
}

/// `number / unit` in decimals, without zeros at the end.
fn fraction(number: u128, unit: u128) -> String {
    let (whole, rest) = (number / unit, number % unit);
    if rest == 0 {
        return whole.to_string();
    }
    format!("{whole}.{rest:03}").trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_and_bytes_that_are_no_utf8_are_escaped() {
        assert_eq!(escaped_bytes(b"a\x1b[2J\r\n\t\xff\0z"), "a\\x1b[2J\\r\\n\\t\\xff\\x00z");
        assert_eq!(escaped("\u{85}\u{202e}grün ☃"), "\\u{85}\\u{202e}grün ☃");
    }

    #[test]
    fn a_long_text_is_cut_at_its_bound_and_says_so() {
        for unit in ["x", "é", "\u{1b}", "☃"] {
            let text = escaped(&unit.repeat(5000));
            assert!(text.len() <= MAX_TEXT && text.len() > MAX_TEXT - 10, "{}", text.len());
            assert!(text.ends_with(CUT));
        }
    }

    #[test]
    fn errors_read_as_in_go() {
        assert_eq!(errno(&io::Error::from_raw_os_error(111)), "connection refused");
        assert_eq!(errno(&io::Error::from_raw_os_error(13)), "permission denied");
        assert_eq!(errno(&io::Error::from_raw_os_error(113)), "no route to host");
        assert_eq!(errno(&io::Error::from_raw_os_error(24)), "too many open files");
    }

    #[test]
    fn spans_read_as_in_go() {
        let spans = [(200, "200ms"), (1000, "1s"), (1500, "1.5s"), (60_000, "1m0s"), (90_000, "1m30s")];
        for (millis, words) in spans {
            assert_eq!(span(Duration::from_millis(millis)), words);
        }
        assert_eq!(span(Duration::from_secs(3601)), "1h0m1s");
    }
}
