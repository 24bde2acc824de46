//! After a kill: the batch that the predecessor was in is brought to its end, before anything is read.
//!
//! Every step leaves the notes such that a kill in it is recovered from in the same way.

use std::ffi::OsStr;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tokio::net::unix::pipe;

use super::file::Writer;
use super::journal::{Flight, Intent, Phase, TURN};
use super::lines::{Ending, MOST, Splitter};
use super::loss::{say, unread};
use super::pump::{PART, Pump, remove_file};
use super::rotate::Limits;
use super::sink::Sink;
use super::unfinished::{Place, Unfinished};
use crate::unit::Name;

/// Stands for what was read of a line and could not be kept.
const UNKNOWN: u8 = b'?';

impl Pump {
    /// Brings the batch in flight to its end, and removes what belongs to no stream any more.
    pub(super) fn recover(&mut self) {
        if let Some(flight) = self.journal.flight() {
            let understood = flight.intent().and_then(|intent| self.complete(&flight, intent));
            if understood.is_none() {
                tracing::warn!(
                    "cannot go on with the lines that an uphold of another version was killed in: \
                     what they say of it is in a form that this one does not know"
                );
            }
            self.journal.idle();
            self.release();
        }
        self.sweep();
    }

    /// `None`: what stands there makes no sense.
    fn complete(&mut self, flight: &Flight, intent: Intent<'_>) -> Option<()> {
        let owner = Name::new(std::str::from_utf8(intent.owner).ok()?).ok()?;
        let ending = Ending::from_number(intent.ending)?;
        let fifo = Some(OsStr::from_bytes(intent.fifo)).filter(|fifo| !fifo.is_empty());
        let asked = usize::try_from(intent.asked).ok().filter(|asked| *asked <= TURN)?;
        let held = usize::try_from(intent.held).ok().filter(|held| *held <= MOST)?;
        let count = match flight.phase {
            Phase::Idle => return Some(()),
            Phase::Reading if !self.was_read(asked, intent.waiting, fifo) => return Some(()),
            Phase::Reading => {
                self.journal.took(asked);
                asked
            }
            Phase::Carrying => usize::try_from(flight.taken).ok().filter(|taken| *taken <= TURN)?,
        };
        let place = fifo.map(|fifo| self.kept_beside(fifo)).unwrap_or_default();
        let (mut unfinished, line) = Unfinished::resume(place);
        if unfinished.seq() != intent.seq {
            let line = if line.len() == held { line } else { vec![UNKNOWN; held] };
            let mut splitter = Splitter::new(line, intent.max_line);
            self.batch.clear();
            splitter.batch(self.journal.bytes(count), ending, intent.run, intent.lead, &mut self.batch);
            let sink = match intent.path {
                [] => Sink::Console(usize::try_from(intent.console).ok().filter(|which| *which < 2)?),
                path => Sink::File(self.file(PathBuf::from(OsStr::from_bytes(path)))),
            };
            if ending == Ending::Unread {
                say(&self.notices, &owner, "LogUnread", true, unread(intent.run));
            }
            let limits =
                Limits { max_size: intent.max_size, keep: u32::try_from(intent.keep).unwrap_or(u32::MAX) };
            let writer = Writer { owner: &owner, lead: intent.lead, limits, now: Instant::now() };
            let (journal, consoles) = (&mut self.journal, &mut self.consoles);
            sink.deliver(&self.batch, flight.place, writer, journal, consoles, &self.notices);
            if let Some(path) = fifo.and_then(|fifo| Some(self.dir.as_ref()?.join(fifo)))
                && matches!(ending, Ending::Whole | Ending::Unread)
            {
                remove_file(&path);
            }
            unfinished.keep(splitter.unfinished(), intent.seq, self.batch.is_empty());
        }
        if let (Some((name, file)), Some(memory)) = (unfinished.into_memory(), &mut self.memory) {
            memory.handed_on.insert(name, file);
        }
        Some(())
    }

    /// Whether the bytes that were asked for came: where they would be there were zeroes before. Bytes that
    /// are all zero hold no line; fewer of them wait than did, if they came.
    fn was_read(&mut self, asked: usize, waiting: u64, fifo: Option<&OsStr>) -> bool {
        if self.journal.bytes(asked).iter().any(|byte| *byte != 0) {
            return true;
        }
        if waiting == 0 {
            return false;
        }
        let path = fifo.and_then(|fifo| Some(self.dir.as_ref()?.join(fifo)));
        let Some(pipe) = path.and_then(|path| pipe::OpenOptions::new().open_receiver(path).ok()) else {
            return false;
        };
        let Ok(fd) = pipe.into_nonblocking_fd() else { return false };
        match self.journal.waiting(fd.as_fd()) {
            // With its last writer went what waited there: that says nothing.
            Ok(0) => {
                matches!(fs::File::from(fd).read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
            }
            Ok(now) => (now as u64) < waiting,
            Err(_) => false,
        }
    }

    /// An unfinished line beside a FIFO that is gone was written when that ended.
    fn sweep(&self) {
        let Some(entries) = self.dir.as_ref().and_then(|dir| fs::read_dir(dir).ok()) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let fifo = path.to_str().and_then(|path| path.strip_suffix(PART)).map(Path::new);
            if fifo.is_some_and(|fifo| matches!(fifo.try_exists(), Ok(false))) {
                Unfinished::new(Place::Path(path));
            }
        }
    }
}
