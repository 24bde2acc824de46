//! A stream of bytes cut into lines.
//!
//! A line longer than `max_line` is split; every piece of it but the last ends with [`MARKER`], so that
//! putting the pieces together again without their markers gives the line, byte for byte.

use memchr::memchr_iter;

use super::loss::unread;
use crate::unit::Logs;

/// Ends every piece of a split line but the last.
pub(super) const MARKER: &[u8] = " …[continued]".as_bytes();

/// No line is held in memory beyond this, whatever `max_line` says.
pub(super) const MOST: usize = Logs::LONGEST_LINE as usize;
/// A buffer that grew beyond this for one long line is given back after it.
const ROOMY: usize = 1 << 20;

/// What comes after the bytes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// More of them: a line that is unfinished stays so.
    More = 0,
    /// The end of the stream, and of its last line.
    Whole = 1,
    /// Another uphold, which reads on: an unfinished line is written as a piece of one.
    Piece = 2,
    /// The end of the stream, which came while nobody read: that is said after its last line.
    Unread = 3,
}

impl Ending {
    pub(super) fn from_number(number: u64) -> Option<Ending> {
        [Ending::More, Ending::Whole, Ending::Piece, Ending::Unread].into_iter().find(|e| *e as u64 == number)
    }
}

/// Holds the beginning of a line whose end has not come yet.
#[derive(Debug)]
pub(super) struct Splitter {
    carry: Vec<u8>,
    max: usize,
}

impl Splitter {
    /// Goes on within a line of which this was read; empty at the beginning of one.
    pub(super) fn new(carry: Vec<u8>, max_line: u64) -> Splitter {
        let mut splitter = Splitter { carry, max: 0 };
        splitter.set_max(max_line);
        splitter
    }

    /// `max_line` of the next pieces.
    pub(super) fn set_max(&mut self, max_line: u64) {
        self.max = usize::try_from(max_line).unwrap_or(MOST).clamp(1, MOST);
    }

    pub(super) fn max(&self) -> u64 {
        self.max as u64
    }

    /// Appends the lines of a batch to `out`, each with `lead` before it and a newline behind. The same bytes
    /// in the same state make the same batch. `run` is whose it is.
    pub(super) fn batch(&mut self, bytes: &[u8], ending: Ending, run: u64, lead: &[u8], out: &mut Vec<u8>) {
        self.feed(bytes, lead, out);
        match ending {
            Ending::More => {}
            Ending::Whole => self.end(lead, out),
            Ending::Piece => self.hand_over(lead, out),
            Ending::Unread => {
                self.end(lead, out);
                out.extend_from_slice(lead);
                out.extend_from_slice(unread(run).as_bytes());
                out.push(b'\n');
            }
        }
    }

    /// The line that is not at its end.
    pub(super) fn unfinished(&self) -> &[u8] {
        &self.carry
    }

    /// Appends every line that these bytes finish to `out`: `lead`, the line, a newline.
    fn feed(&mut self, bytes: &[u8], lead: &[u8], out: &mut Vec<u8>) {
        let mut start = 0;
        for end in memchr_iter(b'\n', bytes) {
            self.finish_line(&bytes[start..end], lead, out);
            start = end + 1;
        }
        self.carry.extend_from_slice(&bytes[start..]);
        self.cut(lead, out);
    }

    /// The stream is at its end: an unfinished line ends here.
    fn end(&mut self, lead: &[u8], out: &mut Vec<u8>) {
        if !self.carry.is_empty() {
            self.finish_line(&[], lead, out);
        }
    }

    /// Somebody else reads on: an unfinished line is written as a piece of what will follow.
    fn hand_over(&mut self, lead: &[u8], out: &mut Vec<u8>) {
        if !self.carry.is_empty() {
            piece(&self.carry, lead, out);
            self.carry.clear();
        }
    }

    fn finish_line(&mut self, rest: &[u8], lead: &[u8], out: &mut Vec<u8>) {
        let mut rest = rest;
        if self.carry.len() + rest.len() > self.max {
            self.carry.extend_from_slice(rest);
            rest = &[];
            self.cut(lead, out);
        }
        out.extend_from_slice(lead);
        out.extend_from_slice(&self.carry);
        out.extend_from_slice(rest);
        out.push(b'\n');
        self.carry.clear();
        if self.carry.capacity() > ROOMY {
            self.carry = Vec::new();
        }
    }

    /// Takes pieces off the held line until it is no longer than allowed.
    fn cut(&mut self, lead: &[u8], out: &mut Vec<u8>) {
        let mut start = 0;
        while self.carry.len() - start > self.max {
            let at = start + whole_characters(&self.carry[start..], self.max);
            piece(&self.carry[start..at], lead, out);
            start = at;
        }
        self.carry.drain(..start);
    }
}

fn piece(bytes: &[u8], lead: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(lead);
    out.extend_from_slice(bytes);
    out.extend_from_slice(MARKER);
    out.push(b'\n');
}

/// The greatest cut at or before `max` that does not go through a character of UTF-8; `max` itself where the
/// text is none. `text` is longer than `max`.
fn whole_characters(text: &[u8], max: usize) -> usize {
    let start = |at: &usize| text.get(*at).is_none_or(|byte| byte & 0xC0 != 0x80);
    (max.saturating_sub(3).max(1)..=max).rev().find(start).unwrap_or(max)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The lines of a written batch, put together from their pieces.
    pub(crate) fn rejoin(out: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        let mut line = Vec::new();
        for part in out.split_inclusive(|byte| *byte == b'\n') {
            let part = part.strip_suffix(b"\n").unwrap();
            match part.strip_suffix(MARKER) {
                Some(part) => line.extend_from_slice(part),
                None => {
                    line.extend_from_slice(part);
                    lines.push(std::mem::take(&mut line));
                }
            }
        }
        assert!(line.is_empty(), "a piece without its rest");
        lines
    }

    #[test]
    fn an_unfinished_last_line_is_ended_at_the_end_and_marked_at_a_hand_over() {
        let (mut splitter, mut out) = (Splitter::new(Vec::new(), 100), Vec::new());
        splitter.feed(b"one\n\ntw", b"> ", &mut out);
        assert_eq!((&out[..], splitter.unfinished()), (&b"> one\n> \n"[..], &b"tw"[..]));
        splitter.feed(b"o", b"> ", &mut out);
        splitter.end(b"> ", &mut out);
        splitter.end(b"> ", &mut out);
        assert_eq!(out, b"> one\n> \n> two\n");
        out.clear();
        splitter.feed(b"half", b"", &mut out);
        splitter.hand_over(b"", &mut out);
        assert_eq!(out, "half …[continued]\n".as_bytes());
    }

    #[test]
    fn a_line_as_long_as_allowed_is_not_split_and_no_character_is_cut() {
        let (mut splitter, mut out) = (Splitter::new(Vec::new(), 4), Vec::new());
        splitter.feed("abcd\nabcé\n".as_bytes(), b"", &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "abcd\nabc …[continued]\né\n");
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_however_it_is_read(
            lines in prop::collection::vec("[ -~é\u{1}]{0,40}", 0..20), max in 1_u64..50, step in 1_usize..30,
        ) {
            let mut input = lines.join("\n").into_bytes();
            input.push(b'\n');
            let (mut splitter, mut out) = (Splitter::new(Vec::new(), max), Vec::new());
            for bytes in input.chunks(step) {
                splitter.feed(bytes, b"", &mut out);
            }
            splitter.end(b"", &mut out);
            let expected: Vec<Vec<u8>> =
                if lines.is_empty() { vec![vec![]] } else { lines.iter().map(|l| l.clone().into_bytes()).collect() };
            prop_assert_eq!(rejoin(&out), expected);
            let longest = out.split(|b| *b == b'\n').map(|l| l.strip_suffix(MARKER).unwrap_or(l).len()).max();
            prop_assert!(longest <= Some(max as usize));
        }
    }
}
