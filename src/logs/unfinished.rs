//! What a stream has said of a line that is not at its end, kept in a file beside its FIFO for a successor; of a
//! pipe without a name in one in memory.
//!
//! ```text
//! 0 form | 8 batch | 16 half | 24 length | 32 a short line | 4096 a long one | 4096 + 16 MiB, or here
//! ```
//!
//! The first page is written by one write(2), which no SIGKILL divides: until then the old line stands, in a
//! place where the new one is not written.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::journal::Make;
use super::lines::MOST;
use super::pump::remove_file;

const PAGE: usize = 4096;
const HEAD: usize = 32;
/// A line up to here stands in the first page.
const SHORT: usize = PAGE - HEAD;
const FORM: u64 = 1;

/// Where it is kept.
#[derive(Debug, Default)]
pub(super) enum Place {
    /// Nothing is kept.
    #[default]
    Nowhere,
    Path(PathBuf),
    Memory {
        name: String,
        handed_on: Option<File>,
        make: Make,
    },
}

impl Place {
    /// Of a successor: the file, if there is one.
    fn find(&mut self) -> Option<File> {
        match self {
            Place::Nowhere => None,
            Place::Path(path) => OpenOptions::new().read(true).write(true).open(path).ok(),
            Place::Memory { handed_on, .. } => handed_on.take(),
        }
    }

    /// Makes the file; `None`: nothing is kept.
    fn make(&self) -> io::Result<Option<File>> {
        match self {
            Place::Nowhere => Ok(None),
            Place::Path(path) => {
                let mut options = OpenOptions::new();
                let options = options.read(true).write(true).create(true).truncate(true).mode(0o600);
                options.open(path).map(Some)
            }
            Place::Memory { name, make, .. } => make(name).map(Some),
        }
    }
}

/// The file of one stream, made when there first is something to keep.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    place: Place,
    file: Option<File>,
    /// Where the line stands: 0 in the first page, else in one of the halves.
    half: u64,
    length: usize,
    /// After which batch.
    seq: u64,
    /// It could not be written the last time, and that was said.
    failed: bool,
}

impl Unfinished {
    /// Of a new stream: what there is, is another one's.
    pub(super) fn new(place: Place) -> Unfinished {
        let unfinished = Unfinished { place, ..Unfinished::default() };
        unfinished.delete();
        unfinished
    }

    /// Of a stream that a predecessor has read, and what it had of a line.
    pub(super) fn resume(place: Place) -> (Unfinished, Vec<u8>) {
        let mut unfinished = Unfinished { place, ..Unfinished::default() };
        let line = unfinished.read().unwrap_or_default();
        (unfinished, line)
    }

    /// The batch after which this is what was left.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    fn read(&mut self) -> Option<Vec<u8>> {
        let file = self.place.find()?;
        let mut head = [0; HEAD];
        file.read_exact_at(&mut head, 0).ok()?;
        let (numbers, _) = head.as_chunks();
        let [form, seq, half, length] = <[[u8; 8]; 4]>::try_from(numbers).ok()?.map(u64::from_le_bytes);
        let length = usize::try_from(length).ok().filter(|length| *length <= MOST)?;
        if form != FORM || half > 2 {
            return None;
        }
        let mut line = vec![0; length];
        file.read_exact_at(&mut line, place(half)).ok()?;
        (self.file, self.half, self.length, self.seq) = (Some(file), half, length, seq);
        Some(line)
    }

    /// Somebody has removed the file: makes it anew, with this in it.
    pub(super) fn put_back(&mut self, line: &[u8]) {
        let Place::Path(path) = &self.place else { return };
        if self.file.is_some() && matches!(path.try_exists(), Ok(false)) {
            // An image that begins before there is anything in the new one finds it in the old one.
            let old = self.file.take();
            (self.length, self.half) = (0, 0);
            self.keep(line, self.seq, false);
            drop(old);
        }
    }

    /// This is left after that batch; `grown`: what was kept is its beginning. Where it cannot be kept it is
    /// in memory only, which is said.
    pub(super) fn keep(&mut self, line: &[u8], seq: u64, grown: bool) {
        if matches!(self.place, Place::Nowhere) || line.is_empty() && self.length == 0 {
            return;
        }
        let outcome = self.write(line, seq, grown);
        if let Err(error) = &outcome {
            self.delete();
            (self.file, self.length, self.half) = (None, 0, 0);
            let shown = match &self.place {
                Place::Path(path) => path.display().to_string(),
                Place::Memory { .. } | Place::Nowhere => "a file in memory".to_owned(),
            };
            if !self.failed {
                tracing::warn!("cannot write {shown}: {error}; should uphold be killed, half a line is lost");
            }
        }
        self.failed = outcome.is_err();
    }

    fn write(&mut self, line: &[u8], seq: u64, grown: bool) -> io::Result<()> {
        if self.file.is_none() {
            self.file = self.place.make()?;
        }
        let Some(file) = &self.file else { return Ok(()) };
        let (half, old) = match line.len() {
            ..=SHORT => (0, 0),
            _ if grown && self.half > 0 => (self.half, self.length),
            _ if self.half == 1 => (2, 0),
            _ => (1, 0),
        };
        let mut page = Vec::with_capacity(PAGE);
        for number in [FORM, seq, half, line.len() as u64] {
            page.extend_from_slice(&number.to_le_bytes());
        }
        if half == 0 {
            page.extend_from_slice(line);
        } else {
            file.write_all_at(&line[old..], place(half) + old as u64)?;
        }
        file.write_all_at(&page, 0)?;
        if half == 0 && self.half > 0 {
            file.set_len(PAGE as u64)?;
        }
        (self.half, self.length, self.seq) = (half, line.len(), seq);
        Ok(())
    }

    /// What was kept, for who goes on with the stream; only of what is in memory.
    pub(super) fn into_memory(self) -> Option<(String, File)> {
        match self.place {
            Place::Memory { name, .. } => Some((name, self.file?)),
            Place::Path(_) | Place::Nowhere => None,
        }
    }

    /// Where the file is, or will be once there is anything to keep: it goes with the end of the stream. `None`: it
    /// has no name.
    pub(super) fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::Path(path) => Some(path),
            Place::Memory { .. } | Place::Nowhere => None,
        }
    }

    fn delete(&self) {
        self.path().map(remove_file);
    }
}

fn place(half: u64) -> u64 {
    match half {
        0 => HEAD as u64,
        half => PAGE as u64 + (half - 1) * MOST as u64,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_kept_last_is_found_however_long_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = || Place::Path(dir.path().join("web.1.out.part"));
        let mut unfinished = Unfinished::new(path());
        let mut line = Vec::new();
        let lengths = [0, 5, SHORT, SHORT + 1, SHORT + 9, 70_000, 6_000, 5, 9_000, 12_000, 0, 8];
        for (seq, length) in (7..).zip(lengths) {
            let grown = line.len() <= length;
            if !grown {
                line.clear();
            }
            line.resize(length, b'a' + seq as u8);
            unfinished.keep(&line, seq, grown);
            let (found, kept) = Unfinished::resume(path());
            assert!(kept == line, "{length}");
            assert!(length == 0 || found.seq() == seq);
            if length % 2 == 0 {
                unfinished = found;
            }
        }
        unfinished.delete();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_another_stream_of_that_name_has_left_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = || Place::Path(dir.path().join("web.1.out.part"));
        Unfinished::new(path()).keep(b"old", 1, false);
        assert_eq!(Unfinished::resume(path()).1, b"old");
        Unfinished::new(path());
        assert_eq!(Unfinished::resume(path()).1, b"");
    }
}
