//! One log file: whole lines appended, rotated before it grows over its size, and given up on only for as
//! long as the disk refuses.
//!
//! Several streams may share one: all writes come from the one log thread.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use memchr::{memchr, memrchr};
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::journal::{Journal, Place};
use super::loss::{Loss, Notices, RETRY, plain, say};
use super::rotate::{self, Limits};
use crate::file_id::FileId;
use crate::unit::Name;

/// Who writes, and how.
#[derive(Clone, Copy)]
pub(super) struct Writer<'a> {
    /// Who is told when it fails.
    pub(super) owner: &'a Name,
    /// What stands before each line.
    pub(super) lead: &'a [u8],
    pub(super) limits: Limits,
    pub(super) now: Instant,
}

/// A log file, open or not.
pub(super) struct LogFile {
    path: PathBuf,
    open: Option<Open>,
    /// It ends in the middle of a line: the next write begins with a newline.
    torn: bool,
    loss: Option<Loss>,
    /// When a rotation last failed, until one succeeds.
    unrotated: Option<Instant>,
    /// Counts writes, for those who follow.
    growth: watch::Sender<u64>,
    notices: Notices,
}

struct Open {
    file: File,
    /// A regular file; anything else is only written to.
    regular: bool,
    len: u64,
    /// Device and inode.
    id: FileId,
    checked: Instant,
}

impl LogFile {
    pub(super) fn new(path: PathBuf, growth: watch::Sender<u64>, notices: Notices) -> LogFile {
        LogFile { path, open: None, torn: false, loss: None, unrotated: None, growth, notices }
    }

    /// Opens it ahead of the first line, so that a place that cannot be written is said early.
    pub(super) fn prepare(&mut self, writer: Writer<'_>) {
        if let Err(error) = self.open(writer.now) {
            self.fail(&[], &error, writer);
        }
    }

    /// Appends a batch of whole lines, or counts what of it is lost.
    pub(super) fn write(&mut self, batch: &[u8], writer: Writer<'_>, journal: &mut Journal) {
        if let Some(loss) = self.loss.as_mut().filter(|loss| loss.rests(writer.now)) {
            loss.count(batch, writer.lead.len());
            return;
        }
        self.attempt(batch, 0, writer, Some(journal));
    }

    /// Appends what is missing of a batch that somebody was killed in while a part of it went there.
    pub(super) fn resume(&mut self, batch: &[u8], place: Place, writer: Writer<'_>, journal: &mut Journal) {
        let at = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX).min(batch.len());
        let (done, end) = (at(place.done), at(place.done.saturating_add(place.length)));
        match self.complete(&batch[..end], done, place, writer, journal) {
            Ok(()) => self.attempt(batch, end, writer, Some(journal)),
            Err((written, error)) => self.fail(&batch[written..], &error, writer),
        }
    }

    /// Ends that part in its own file, whatever that is called now. One that is gone was whole, and rotated
    /// out of existence.
    fn complete(
        &mut self,
        batch: &[u8],
        done: usize,
        place: Place,
        writer: Writer<'_>,
        journal: &mut Journal,
    ) -> Result<(), (usize, io::Error)> {
        let Some((path, size)) = rotate::find(&self.path, place.id).zip(place.size) else { return Ok(()) };
        let open = Open::at(&path, writer.now).map_err(|error| (done, error))?;
        let grown = usize::try_from(open.len.saturating_sub(size)).unwrap_or(usize::MAX);
        let from = done.saturating_add(grown.saturating_sub(usize::from(place.torn)));
        if from >= batch.len() {
            return Ok(());
        }
        self.torn = place.torn && grown == 0;
        self.open = Some(open);
        self.put(batch, from, Some(journal))?;
        if path != self.path {
            self.open = None;
        }
        Ok(())
    }

    /// Tries once more to say what was lost, however recent the last attempt.
    pub(super) fn settle(&mut self, writer: Writer<'_>) {
        if self.loss.is_some() {
            self.attempt(&[], 0, writer, None);
        }
    }

    /// At the end of uphold: what stays unsaid in the file is said as a notice.
    pub(super) fn close(&mut self) {
        let place = self.place();
        if let Some(loss) = self.loss.take() {
            loss.final_word(&place, &self.notices);
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_well(&self) -> bool {
        self.loss.is_none()
    }

    fn place(&self) -> String {
        format!("the log {}", self.path.display())
    }

    /// Says what was lost, then appends the batch from `done` on.
    fn attempt(&mut self, batch: &[u8], done: usize, writer: Writer<'_>, journal: Option<&mut Journal>) {
        if let Some(line) = self.loss.as_ref().and_then(|loss| loss.line(writer.lead)) {
            if let Err((_, error)) = self.append(&line, 0, writer, None) {
                return self.fail(&batch[done..], &error, writer);
            }
            if let Some(loss) = &mut self.loss {
                loss.said();
            }
        }
        if let Err((written, error)) = self.append(batch, done, writer, journal) {
            return self.fail(&batch[written..], &error, writer);
        }
        let place = self.place();
        if let Some(loss) = self.loss.take() {
            loss.recovered(&place, &self.notices);
        }
    }

    fn fail(&mut self, lost: &[u8], error: &io::Error, writer: Writer<'_>) {
        self.open = None;
        let place = self.place();
        let loss = self.loss.get_or_insert_with(|| Loss::new(writer.now));
        loss.count(lost, writer.lead.len());
        loss.failed(writer.now, error, &place, writer.owner, &self.notices);
    }

    /// Appends whole lines from `done` on over as many files as they need. An error says how many bytes of
    /// the batch were written before it: whole lines, too.
    fn append(
        &mut self,
        batch: &[u8],
        mut done: usize,
        writer: Writer<'_>,
        mut journal: Option<&mut Journal>,
    ) -> Result<(), (usize, io::Error)> {
        self.open(writer.now).map_err(|error| (done, error))?;
        while done < batch.len() {
            let left = &batch[done..];
            let part = match self.fitting(left, writer) {
                0 => {
                    self.rotate(writer);
                    self.open(writer.now).map_err(|error| (done, error))?;
                    continue;
                }
                part => part,
            };
            self.put(&batch[..done + part], done, journal.as_deref_mut())?;
            done += part;
        }
        Ok(())
    }

    /// How much of these lines goes into the file as it is: whole lines; 0 says rotate first.
    fn fitting(&self, lines: &[u8], writer: Writer<'_>) -> usize {
        let max = writer.limits.max_size;
        let rests = self.unrotated.is_some_and(|at| writer.now.saturating_duration_since(at) < RETRY);
        let Some(open) = self.open.as_ref().filter(|open| open.regular && max > 0 && !rests) else {
            return lines.len();
        };
        let room = max.saturating_sub(open.len);
        if lines.len() as u64 <= room {
            return lines.len();
        }
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        match memrchr(b'\n', &lines[..room]) {
            Some(at) => at + 1,
            // A line that is longer than a whole file has one of its own.
            None if open.len == 0 => memchr(b'\n', lines).map_or(lines.len(), |at| at + 1),
            None => 0,
        }
    }

    fn rotate(&mut self, writer: Writer<'_>) {
        match rotate::rotate(&self.path, writer.limits.keep) {
            Ok(()) => {
                self.open = None;
                self.unrotated = None;
            }
            Err(error) => {
                let first = self.unrotated.replace(writer.now).is_none();
                if first {
                    let (place, error) = (self.place(), plain(&error));
                    let message =
                        format!("cannot rotate {place}: {error}; it grows over its size until it can");
                    say(&self.notices, writer.owner, "LogRotateFailed", true, message);
                }
            }
        }
    }

    /// Writes the lines of a batch from `done` on in one write(2) where the kernel takes them, and notes
    /// before where that is. On an error the file is cut back to the last whole line, and the bytes up to
    /// there are told.
    fn put(
        &mut self,
        batch: &[u8],
        done: usize,
        journal: Option<&mut Journal>,
    ) -> Result<(), (usize, io::Error)> {
        let Some(open) = &mut self.open else { return Err((done, io::ErrorKind::NotFound.into())) };
        let lines = &batch[done..];
        if let Some(journal) = journal {
            let size = open.size().map_err(|error| (done, error))?;
            let (done, length) = (done as u64, lines.len() as u64);
            journal.put(Place { done, length, id: open.id, size, torn: self.torn });
        }
        let mut written = 0;
        let outcome = open.write_all(self.torn, lines, &mut written);
        if written > 0 {
            self.growth.send_modify(|count| *count = count.wrapping_add(1));
        }
        let Err(error) = outcome else {
            self.torn = false;
            return Ok(());
        };
        let whole = memrchr(b'\n', &lines[..written]).map_or(0, |at| at + 1);
        if written > whole {
            self.torn = !open.cut((written - whole) as u64);
        }
        Err((done + whole, error))
    }

    /// Opens the file unless it is open and, as is looked once a second, still the one at the path.
    fn open(&mut self, now: Instant) -> io::Result<()> {
        if self.open.as_mut().is_some_and(|open| open.is_current(&self.path, now)) {
            return Ok(());
        }
        self.open = None;
        let open = Open::at(&self.path, now)?;
        // Of what cannot be read back, it is known from the last write.
        self.torn = if open.regular { open.ends_torn(&self.path) } else { self.torn };
        self.open = Some(open);
        Ok(())
    }
}

impl Open {
    fn at(path: &Path, now: Instant) -> io::Result<Open> {
        let file = match fs::metadata(path) {
            Ok(there) if !there.is_file() => open_special(path)?,
            _ => open_appending(path)?,
        };
        let found = file.metadata()?;
        let id = FileId::from(&found);
        Ok(Open { file, regular: found.is_file(), len: found.len(), id, checked: now })
    }

    /// Whether this is still the file at the path: somebody else may rotate it, or delete it.
    fn is_current(&mut self, path: &Path, now: Instant) -> bool {
        if !self.regular || now.saturating_duration_since(self.checked) < RETRY {
            return true;
        }
        self.checked = now;
        let Ok(there) = fs::metadata(path) else { return false };
        self.len = there.len();
        FileId::from(&there) == self.id
    }

    /// How long it is just now, as somebody else may write there too; `None`: it is no regular file.
    fn size(&mut self) -> io::Result<Option<u64>> {
        if self.regular {
            self.len = self.file.metadata()?.len();
        }
        Ok(self.regular.then_some(self.len))
    }

    /// Whether somebody was killed in the middle of a line. What cannot be read counts as whole.
    fn ends_torn(&self, path: &Path) -> bool {
        let mut last = [b'\n'];
        let end = self.len.checked_sub(1);
        let read = end.zip(File::open(path).ok()).map(|(at, file)| file.read_at(&mut last, at));
        matches!(read, Some(Ok(1))) && last != [b'\n']
    }

    fn write_all(&mut self, torn: bool, lines: &[u8], written: &mut usize) -> io::Result<()> {
        if torn {
            self.file.write_all(b"\n")?;
            self.len += 1;
        }
        while *written < lines.len() {
            match self.file.write(&lines[*written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    *written += count;
                    self.len += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes the last bytes off again, unless somebody else has written after them.
    fn cut(&mut self, bytes: u64) -> bool {
        let alone = self.regular && self.file.metadata().is_ok_and(|found| found.len() == self.len);
        let cut = alone && self.file.set_len(self.len - bytes).is_ok();
        if cut {
            self.len -= bytes;
        }
        cut
    }
}

/// A FIFO or a device, such that neither this nor a write waits for whoever reads there, for ever perhaps: what it does
/// not take at once is lost, and counted. It becomes no controlling terminal, as it is opened for writing only.
fn open_special(path: &Path) -> io::Result<File> {
    let sender = pipe::OpenOptions::new().unchecked(true).open_sender(path);
    match sender.and_then(pipe::Sender::into_nonblocking_fd) {
        Ok(fd) => Ok(fd.into()),
        // What cannot be waited on (EPERM of epoll_ctl(2)), as /dev/null, keeps nobody waiting.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => open_appending(path),
        Err(error) => Err(error),
    }
}

fn open_appending(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o640);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                DirBuilder::new().recursive(true).mode(0o750).create(parent)?;
            }
            options.open(path)
        }
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn a_file_that_somebody_else_moves_away_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/log");
        let (notices, mut heard) = mpsc::unbounded_channel();
        let mut log = LogFile::new(path.clone(), watch::Sender::new(0), notices);
        let (owner, began) = (Name::new("web").unwrap(), Instant::now());
        let mut journal = Journal::new(None, 0);
        let mut write = |text: &str, seconds: u32| {
            let limits = Limits { max_size: 100, keep: 1 };
            log.write(
                text.as_bytes(),
                Writer { owner: &owner, lead: b"", limits, now: began + RETRY * seconds },
                &mut journal,
            );
        };
        write("one\n", 0);
        fs::rename(&path, dir.path().join("moved")).unwrap();
        write("two\n", 0);
        write("three\n", 1);
        fs::remove_file(&path).unwrap();
        write("four\n", 2);
        assert_eq!(fs::read_to_string(dir.path().join("moved")).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "four\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777 & !0o640, 0);
        assert!(heard.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_refusing_place_is_tried_once_a_second_and_each_attempt_says_its_own_loss() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let (notices, mut heard) = mpsc::unbounded_channel();
        let mut log = LogFile::new(path.clone(), watch::Sender::new(0), notices);
        let (owner, began) = (Name::new("web").unwrap(), Instant::now());
        let mut journal = Journal::new(None, 0);
        let mut write = |text: &str, tenths: u32| {
            let (limits, now) = (Limits { max_size: 0, keep: 1 }, began + RETRY / 10 * tenths);
            log.write(text.as_bytes(), Writer { owner: &owner, lead: b"> ", limits, now }, &mut journal);
        };
        write("> a\n> b\n", 0);
        write("> c\n", 11);
        fs::remove_file(&path).unwrap();
        write("> d\n", 15);
        assert!(!path.exists());
        write("> e\n", 22);
        let text = "> uphold: 4 lines (8 bytes) lost: No space left on device\n> e\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        let reasons: Vec<_> =
            std::iter::from_fn(|| heard.try_recv().ok()).map(|notice| notice.reason).collect();
        assert_eq!(reasons, ["LogWriteFailed", "LogWriteRecovered"]);
    }
}
