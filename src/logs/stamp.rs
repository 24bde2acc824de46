//! The stamp before each line of a file: RFC 3339 in UTC with microseconds and a space, 28 bytes, as
//! `2026-11-25T12:00:00.123456Z `.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::engine::Wall;

/// Bytes of a stamp, its space included.
const LENGTH: usize = 28;
/// Where its microseconds begin.
const MICROS: usize = 20;

/// Writes stamps; what does not change within a second is formatted once in it.
#[derive(Debug)]
pub(super) struct Stamper {
    second: Option<u64>,
    text: [u8; LENGTH],
}

impl Stamper {
    pub(super) fn new() -> Stamper {
        Stamper { second: None, text: *b"1970-01-01T00:00:00.000000Z " }
    }

    /// The stamp of this moment; a clock before 1970 counts as 1970.
    pub(super) fn at(&mut self, now: SystemTime) -> &[u8] {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != Some(since.as_secs()) {
            let wall = Wall::from_nanos(i128::from(since.as_secs()) * 1_000_000_000);
            let text = format!("{:.6} ", wall.timestamp());
            if text.len() == LENGTH {
                self.text.copy_from_slice(text.as_bytes());
                self.second = Some(since.as_secs());
            }
        }
        let mut micros = since.subsec_micros();
        for digit in self.text[MICROS..MICROS + 6].iter_mut().rev() {
            *digit = b'0' + (micros % 10) as u8;
            micros /= 10;
        }
        &self.text
    }
}

/// Takes the stamp off a line; a line that does not begin with one is all text.
pub(super) fn split(line: &[u8]) -> (Option<Wall>, &[u8]) {
    const FORM: &[u8; LENGTH] = b"dddd-dd-ddTdd:dd:dd.ddddddZ ";
    let Some((head, text)) = line.split_at_checked(LENGTH) else { return (None, line) };
    let fits = |(byte, form): (&u8, &u8)| if *form == b'd' { byte.is_ascii_digit() } else { byte == form };
    if !head.iter().zip(FORM).all(fits) {
        return (None, line);
    }
    let wall = std::str::from_utf8(&head[..LENGTH - 1]).ok().and_then(|text| text.to_owned().try_into().ok());
    if wall.is_some() { (wall, text) } else { (None, line) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_stamp_is_read_back_as_it_was_written() {
        let mut stamper = Stamper::new();
        for nanos in [0, 1_795_608_000_123_456_789_u64, 1_795_608_000_999_999_999, 1_795_608_001_000_000_000]
        {
            let mut line = stamper.at(UNIX_EPOCH + Duration::from_nanos(nanos)).to_vec();
            line.extend_from_slice(b"text");
            let micros = i128::from(nanos / 1000) * 1000;
            assert_eq!(split(&line), (Some(Wall::from_nanos(micros)), &b"text"[..]));
        }
        let text = stamper.at(UNIX_EPOCH + Duration::from_nanos(1_795_608_000_123_456_789)).to_vec();
        assert_eq!(text, b"2026-11-25T12:00:00.123456Z ");
    }

    #[test]
    fn what_only_looks_like_a_stamp_is_text() {
        for line in [
            "",
            "x",
            "2026-11-25T12:00:00.123456Z",
            "2026-13-25T12:00:00.123456Z x",
            "0123456789012345678901234567890",
        ] {
            assert_eq!(split(line.as_bytes()), (None, line.as_bytes()));
        }
    }
}
