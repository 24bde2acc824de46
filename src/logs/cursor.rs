//! Reading a log back: line after line over the rotated files into the one that is written, and on, across
//! every rotation, without loss or doubling.
//!
//! Every file that was seen is held open, so that its inode cannot become another file's: that is how a file
//! is known again under its next name.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use memchr::{memchr, memrchr_iter};

use super::position::{self, Place};
use super::rotate::{real, rotated};
use crate::file_id::FileId;

const BLOCK: usize = 64 << 10;
/// A line longer than this (no log of ours has one) is given in parts.
const LONGEST: usize = 32 << 20;
/// How often rotations may come between while the files are listed,
const ATTEMPTS: usize = 200;
/// and how long they are left alone after each.
const PAUSE: Duration = Duration::from_millis(1);

struct Segment {
    file: File,
    id: FileId,
}

/// A place in a log.
pub(super) struct Cursor {
    path: PathBuf,
    /// Oldest first.
    seen: Vec<Segment>,
    current: usize,
    /// In the current file, of the first byte of `buffer` at `start`.
    offset: u64,
    buffer: Vec<u8>,
    start: usize,
    /// Of the line before `offset`.
    sum: u32,
}

impl Cursor {
    /// At the beginning of the oldest file.
    pub(super) fn new(path: &Path) -> Cursor {
        let seen = list(path);
        Cursor { path: path.to_owned(), seen, current: 0, offset: 0, buffer: Vec::new(), start: 0, sum: 0 }
    }

    /// Where it stands: behind the last line that it gave. `None`: there is no file yet.
    pub(super) fn place(&self) -> Option<Place> {
        let segment = self.seen.get(self.current)?;
        Some(Place { id: segment.id, offset: self.offset, sum: self.sum })
    }

    /// Goes on behind a place. `false`: its file is gone, or was cut, and what was left of it with it; then
    /// it goes on with the oldest lines that came after.
    pub(super) fn seek(&mut self, place: Option<Place>) -> bool {
        let Some(Place { id, offset, sum }) = place else { return true };
        let Some(at) = self.seen.iter().position(|segment| segment.id == id) else { return false };
        let file = &self.seen[at].file;
        let (len, before) =
            (file.metadata().map_or(0, |found| found.len()), position::sum_before(file, offset));
        if before == Some(sum) {
            (self.current, self.offset, self.sum) = (at, offset, sum);
            return true;
        }
        // A file that has become shorter is still that file. Any other has got its inode: it is a newer one.
        if len < offset {
            self.current = at;
        }
        false
    }

    /// Before the last `count` lines.
    pub(super) fn seek_last(&mut self, count: usize) {
        let mut wanted = count;
        for (at, segment) in self.seen.iter().enumerate().rev() {
            let (offset, missing) = last_lines(&segment.file, wanted);
            (self.current, self.offset) = (at, offset);
            wanted = missing;
            if wanted == 0 {
                break;
            }
        }
        let segment = self.seen.get(self.current);
        self.sum = segment.and_then(|segment| position::sum_before(&segment.file, self.offset)).unwrap_or(0);
        self.forget_buffer();
    }

    /// The next line without its newline; `None` where there is no whole one now. An error ends a file.
    pub(super) fn next_line(&mut self) -> Option<Vec<u8>> {
        let mut searched = 0;
        loop {
            let held = &self.buffer[self.start..];
            if let Some(end) = memchr(b'\n', &held[searched..]).map(|at| at + searched) {
                return Some(self.take(end, 1));
            }
            if held.len() > LONGEST {
                return Some(self.take(held.len(), 0));
            }
            searched = held.len();
            if self.fill() {
                continue;
            }
            if self.current + 1 >= self.seen.len() {
                self.forget_buffer();
                return None;
            }
            // Nothing is written to this file any more: what stands there unfinished is a line.
            if searched > 0 {
                return Some(self.take(searched, 0));
            }
            self.current += 1;
            (self.offset, self.sum) = (0, 0);
            self.forget_buffer();
            searched = 0;
        }
    }

    /// Looks whether the log goes on in another file, or was cut short in this one.
    pub(super) fn advance(&mut self) {
        let last = self.seen.last().map(|segment| segment.id);
        if last.is_some() && last == FileId::behind(&self.path) {
            let current = self.seen.get(self.current).and_then(|segment| segment.file.metadata().ok());
            if self.current + 1 == self.seen.len() && current.is_some_and(|found| found.len() < self.offset) {
                (self.offset, self.sum) = (0, 0);
                self.forget_buffer();
            }
            return;
        }
        let files = list(&self.path);
        // What is behind us and gone needs no holding.
        let gone = |segment: &Segment| !files.iter().any(|file| file.id == segment.id);
        let mut at = 0;
        let current = self.current;
        self.seen.retain(|segment| {
            at += 1;
            at > current || !gone(segment)
        });
        self.current -= at - self.seen.len();
        let new = files.into_iter().filter(|file| !self.seen.iter().any(|seen| seen.id == file.id));
        let new: Vec<Segment> = new.collect();
        self.seen.extend(new);
    }

    fn take(&mut self, length: usize, newline: usize) -> Vec<u8> {
        let line = self.buffer[self.start..self.start + length].to_vec();
        self.sum = position::sum(&self.buffer[self.start..self.start + length + newline]);
        self.start += length + newline;
        self.offset += (length + newline) as u64;
        line
    }

    /// Reads on behind what is held; `false` at the end of the file, and where it cannot be read.
    fn fill(&mut self) -> bool {
        let Some(segment) = self.seen.get(self.current) else { return false };
        self.buffer.drain(..self.start);
        self.start = 0;
        let held = self.buffer.len();
        self.buffer.resize(held + BLOCK, 0);
        let count = match segment.file.read_at(&mut self.buffer[held..], self.offset + held as u64) {
            Ok(count) => count,
            Err(error) => {
                tracing::warn!("cannot read {}: {error}", self.path.display());
                0
            }
        };
        self.buffer.truncate(held + count);
        count > 0
    }

    fn forget_buffer(&mut self) {
        self.buffer.clear();
        self.start = 0;
    }
}

/// Where the last lines of a file begin, and how many are missing for the count.
fn last_lines(file: &File, count: usize) -> (u64, usize) {
    let mut end = file.metadata().map_or(0, |found| found.len());
    let mut block = vec![0; BLOCK];
    let mut missing = count;
    let mut at_end = true;
    while end > 0 {
        let size = BLOCK.min(usize::try_from(end).unwrap_or(BLOCK));
        let begin = end - size as u64;
        if file.read_exact_at(&mut block[..size], begin).is_err() {
            return (end, missing);
        }
        let mut part = &block[..size];
        if at_end && count > 0 {
            part = part.strip_suffix(b"\n").unwrap_or(part);
        }
        at_end = false;
        for newline in memrchr_iter(b'\n', part) {
            if missing <= 1 {
                return (begin + newline as u64 + 1, 0);
            }
            missing -= 1;
        }
        end = begin;
    }
    let nothing = at_end;
    (0, if nothing { missing } else { missing.saturating_sub(1) })
}

/// The files of a log, oldest first, as they stood at one moment: what is still the same when all are looked
/// at again was there at once.
fn list(path: &Path) -> Vec<Segment> {
    let mut files = Vec::new();
    for _ in 0..ATTEMPTS {
        let path = &real(path);
        files = scan(path);
        let same = |(number, file): (u32, &Option<Segment>)| {
            FileId::behind(&rotated(path, number)) == file.as_ref().map(|file| file.id)
        };
        if (0..).zip(&files).all(same) {
            break;
        }
        thread::sleep(PAUSE);
    }
    files.into_iter().rev().flatten().collect()
}

/// The written file, then the rotated ones. A rotation on its way leaves one number free as it goes down,
/// so the end is where two in a row are missing.
fn scan(path: &Path) -> Vec<Option<Segment>> {
    let mut files = vec![open(path)];
    for number in 1..u32::MAX {
        let file = open(&rotated(path, number));
        let end = number > 1 && file.is_none() && files.last().is_some_and(Option::is_none);
        files.push(file);
        if end {
            break;
        }
    }
    files
}

/// Only a regular file has lines to read back: a FIFO would block, and /dev/full never ends.
fn open(path: &Path) -> Option<Segment> {
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => {
            tracing::warn!("cannot read the log {}: {error}", path.display());
            return None;
        }
    };
    let found = file.metadata().ok()?;
    Some(Segment { id: (&found).into(), file })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn rest(cursor: &mut Cursor) -> Vec<String> {
        std::iter::from_fn(|| cursor.next_line()).map(|line| String::from_utf8(line).unwrap()).collect()
    }

    #[test]
    fn the_last_lines_are_found_over_several_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(rotated(&path, 2), "1\n2\n3\n").unwrap();
        fs::write(rotated(&path, 1), "4\n\n6").unwrap();
        fs::write(&path, "7\n8\n").unwrap();
        let all = ["1", "2", "3", "4", "", "6", "7", "8"];
        for count in 0..10 {
            let mut cursor = Cursor::new(&path);
            cursor.seek_last(count);
            assert_eq!(rest(&mut cursor), all[all.len().saturating_sub(count)..], "the last {count}");
        }
        assert_eq!(rest(&mut Cursor::new(&path)), all);
    }

    #[test]
    fn a_line_is_read_once_it_is_whole_and_every_rotation_is_passed_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let append = |text: &str| {
            let mut file = File::options().append(true).create(true).open(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        let mut cursor = Cursor::new(&path);
        assert_eq!(rest(&mut cursor), [""; 0]);
        append("1\nha");
        cursor.advance();
        assert_eq!(rest(&mut cursor), ["1"]);
        append("lf\n2\n");
        for text in ["3\n", "4\n", "5\n", "6\n"] {
            super::super::rotate::rotate(&path, 5).unwrap();
            append(text);
        }
        cursor.advance();
        assert_eq!(rest(&mut cursor), ["half", "2", "3", "4", "5", "6"]);
        fs::remove_file(&path).unwrap();
        cursor.advance();
        append("7\n");
        cursor.advance();
        assert_eq!(rest(&mut cursor), ["7"]);
        File::create(&path).unwrap();
        append("8");
        cursor.advance();
        append("\n");
        assert_eq!(rest(&mut cursor), ["8"]);
    }

    #[test]
    fn a_place_is_found_again_over_rotations_and_an_inode_is_not_taken_for_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let append = |text: &str| {
            let mut file = File::options().append(true).create(true).open(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        let again = |place| {
            let mut cursor = Cursor::new(&path);
            let found = cursor.seek(place);
            (found, rest(&mut cursor))
        };
        let none = Cursor::new(&path).place();
        append("1\n2\n");
        assert_eq!(again(none), (true, vec!["1".to_owned(), "2".to_owned()]));
        let mut cursor = Cursor::new(&path);
        let start = cursor.place();
        assert_eq!(cursor.next_line().unwrap(), b"1");
        let place = cursor.place();
        let mut last = Cursor::new(&path);
        last.seek_last(1);
        assert_eq!(last.place(), place);
        super::super::rotate::rotate(&path, 2).unwrap();
        append("3\n");
        super::super::rotate::rotate(&path, 2).unwrap();
        append("4\nha");
        assert_eq!(again(place), (true, ["2", "3", "4"].map(str::to_owned).to_vec()));
        assert_eq!(again(start), (true, ["1", "2", "3", "4"].map(str::to_owned).to_vec()));
        let lie = place.map(|place| Place { sum: place.sum + 1, ..place });
        assert!(!again(lie).0);
        super::super::rotate::rotate(&path, 2).unwrap();
        assert_eq!(again(place), (false, ["3", "4"].map(str::to_owned).to_vec()));
        append("5\n6\n");
        let mut cursor = Cursor::new(&path);
        cursor.seek_last(0);
        let end = cursor.place();
        assert_eq!(again(end), (true, vec![]));
        File::create(&path).unwrap();
        append("7\n");
        assert_eq!(again(end), (false, vec!["7".to_owned()]));
    }
}
