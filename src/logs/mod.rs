//! Logs: every line that a service writes, whole, once, in its file. One thread of its own, so that a
//! stalled disk never stalls supervision.
//!
//! In a file a line is `2026-11-25T12:00:00.123456Z TEXT` (TEXT alone with `timestamps = false`), its bytes
//! as they came. A line over `max_line` is split; every piece but the last ends with ` …[continued]`. What a
//! disk refuses is counted, and said in the file when it takes lines again:
//! `uphold: 12 lines (1200 bytes) lost: No space left on device`.
//!
//! A `kill -9` of uphold at any moment loses and doubles no line of a file: what the pump is about to do
//! stands in memory that outlives it (`journal`), what a stream has said of a line that is not at its end in a
//! file beside its FIFO (`unfinished`), and the next uphold goes on from there (`recover`). It does lose:
//!
//! - what stands in a FIFO whose last writer dies while no uphold runs, unless a service manager holds its
//!   reading end; the log says so:
//!   `uphold: run 3 ended while no uphold ran: what it had written and nobody had read is lost`;
//! - what a run writes to a FIFO that somebody has removed, if its main process has it on neither stdout nor
//!   stderr; that is said, too;
//! - what is queued for a console (`inherit`), at most 16 batches of what was read at a time; an upgrade or a crash
//!   waits half a second for that;
//! - the count of the lines that a full disk has refused until then;
//! - zeroes, if a batch of nothing else was in flight, and as many bytes came behind it; or the pipe has no name.
//!
//! Where no directory is writable, all that is in memory, and a pipe has no name: it passes over to the next image
//! in an upgrade or a crash, and is gone after a kill.
//!
//! Who reads a log may have a position with each line (`position`): device, inode and offset of what stands
//! behind it, for each stream, and a sum of that line, so that an inode that has become another file's is not
//! taken for it. Given back, to this uphold or another, it is where the reading goes on: no line twice, and
//! none left out but those whose file is gone, and then that is said.

mod console;
mod cursor;
mod file;
mod journal;
mod kept;
#[cfg(test)]
mod killed;
mod lines;
mod loss;
mod position;
mod pump;
mod read;
mod recover;
mod removals;
mod rotate;
mod sink;
mod stamp;
mod target;
#[cfg(test)]
mod tests;
mod unfinished;
mod wait;

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::runtime::Builder;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::engine::{Run, Wall};
use crate::unit::{self, Name};
use console::Console;
use kept::Kept;
use read::Reader;
use removals::Removals;
use target::Target;
use wait::Command;

pub use journal::{Gate, Lasting, Make, Memory, NAMELESS, REGION, Region};

pub use position::Position;

/// Where logs go.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The log directory; `None`: nothing is writable there, and `file` means `inherit`.
    pub dir: Option<PathBuf>,
    /// What a unit that says nothing gets: `File`, or `Inherit` in a container's init.
    pub default: unit::Output,
}

/// A stream of a run.
#[derive(Debug)]
pub struct Source {
    /// Whose.
    pub instance: Name,
    /// Which start.
    pub run: Run,
    /// Stderr kept apart.
    pub stderr: bool,
    /// The reading end, non-blocking.
    pub pipe: OwnedFd,
    /// To be unlinked at EOF.
    pub path: Option<PathBuf>,
    /// The keys in effect.
    pub logs: unit::Logs,
    /// How it comes to be read.
    pub begins: Begins,
    /// Its place is the log file's: closed right before that is opened.
    pub room: Option<OwnedFd>,
}

/// How a stream comes to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// Its run has just begun.
    Anew,
    /// An image or an uphold before has read it up to here, and it was held open since: this goes on within
    /// its line.
    Seamlessly,
    /// An uphold before has read it, and for a while nobody: what a run had written that ended then is lost.
    AfterAGap,
}

/// Something to say about a unit's log: lines lost, a disk that is full, and that it is well again.
#[derive(Debug)]
pub struct Notice {
    /// Whose.
    pub instance: Name,
    /// An event's reason, as `LogWriteFailed`.
    pub reason: &'static str,
    /// A Warning.
    pub warning: bool,
    /// In a sentence.
    pub message: String,
}

/// What to read of a unit's log.
#[derive(Debug, Clone)]
pub struct Query {
    /// Whose.
    pub instance: Name,
    /// The keys in effect.
    pub logs: unit::Logs,
    /// Only so many last lines.
    pub lines: Option<usize>,
    /// Only lines stamped at or after this.
    pub since: Option<Wall>,
    /// Only lines stamped before this.
    pub until: Option<Wall>,
    /// Go on with what is written from now on.
    pub follow: bool,
    /// Say with each line where it ends, so that who was cut off may go on there.
    pub positions: bool,
    /// Go on there; `lines` does not count then.
    pub after: Option<Position>,
}

/// What comes of reading a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Item {
    /// A line.
    Line(Line),
    /// Only where positions are wanted.
    Here(Here),
}

/// Where the reader stands: once all is read that was there, if it follows; and at the beginning where
/// something is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Here {
    /// To be given back as it is.
    pub position: String,
    /// Lines after the position that was asked for may be missing: their file is gone.
    pub gap: bool,
}

/// One line of a log, as `GET /v1/units/NAME/logs` gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When it was read from the service, where the log has stamps.
    pub at: Option<Wall>,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Its text; bytes that are no UTF-8 are replaced.
    pub line: String,
    /// Behind it, to be given back as it is; only where positions are wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
}

/// So many may read last lines from files at a time: on a disk that does not answer, none of them ends.
const RECALLS: usize = 4;
/// Lines that wait for who reads a log.
const ANSWER: usize = 256;
/// How long the log thread is waited for by who wants to see what was written: less than the second for which a client
/// waits for a view.
const PATIENCE: Duration = Duration::from_millis(900);

/// What the log thread and its readers share.
#[derive(Default)]
struct Shared {
    kept: Kept,
    removals: Removals,
    /// Counts the writes to each log that is written or followed.
    growth: Mutex<HashMap<PathBuf, watch::Sender<u64>>>,
    /// The log thread did not answer in time, and that was said.
    stalled: Mutex<bool>,
}

impl Shared {
    fn growth(&self, path: &Path) -> watch::Sender<u64> {
        let mut all = self.growth.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(path.to_owned()).or_insert_with(|| watch::Sender::new(0)).clone()
    }

    /// Watches a log, written yet or not.
    fn watch(&self, path: &Path) -> watch::Receiver<u64> {
        let mut all = self.growth.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(path.to_owned()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// The log thread has not answered in time, unless it does by now: that is said once.
    fn was_silent(&self, answer: &mut oneshot::Receiver<()>) {
        let mut stalled = self.stalled.lock().unwrap_or_else(PoisonError::into_inner);
        let silent = matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        if silent && !std::mem::replace(&mut *stalled, true) {
            tracing::warn!(
                reason = "LogStalled",
                "the log thread does not answer: a log file does not take what is written; until it does, the output \
                 of all services waits in their pipes, and logs are shown without it"
            );
        }
    }

    /// The log thread has answered. That it does again is said once.
    fn has_answered(&self) {
        let mut stalled = self.stalled.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut *stalled) {
            tracing::info!(reason = "LogResumed", "the log thread answers again");
        }
    }

    /// Nobody writes there now: forget it, unless somebody follows it.
    fn ungrow(&self, path: &Path) {
        let mut all = self.growth.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(path).is_some_and(|growth| growth.receiver_count() == 0) {
            all.remove(path);
        }
    }
}

/// A handle to the log thread.
pub struct Logs {
    settings: Arc<Settings>,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
    /// For threads that read last lines from files.
    recalls: Arc<Semaphore>,
}

impl Logs {
    /// Starts the thread. First it brings to its end what a predecessor was killed in, if that is in
    /// `lasting`; without it a kill loses what is read and not yet written.
    pub fn start(
        settings: Settings,
        lasting: Option<Lasting>,
        notices: mpsc::UnboundedSender<Notice>,
    ) -> io::Result<Logs> {
        let own = [io::stdout().as_fd().try_clone_to_owned()?, io::stderr().as_fd().try_clone_to_owned()?];
        Logs::with_streams(settings, lasting, notices, own)
    }

    /// Starts the thread with these for uphold's own stdout and stderr.
    fn with_streams(
        settings: Settings,
        lasting: Option<Lasting>,
        notices: mpsc::UnboundedSender<Notice>,
        [stdout, stderr]: [OwnedFd; 2],
    ) -> io::Result<Logs> {
        let (settings, shared) = (Arc::new(settings), Arc::new(Shared::default()));
        let (commands, orders) = mpsc::unbounded_channel();
        let gate = lasting.as_ref().and_then(|lasting| lasting.gate);
        let consoles = [
            Console::new(stdout, "uphold's own stdout", notices.clone(), gate),
            Console::new(stderr, "uphold's own stderr", notices.clone(), gate),
        ];
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let recalls = Arc::new(Semaphore::new(RECALLS));
        let logs = Logs { settings: settings.clone(), shared: shared.clone(), commands, recalls };
        thread::Builder::new().name("logs".to_owned()).spawn(move || {
            let pump = pump::Pump::new(settings, shared, notices, consoles, lasting);
            runtime.block_on(wait::run(pump, orders));
        })?;
        Ok(logs)
    }

    /// There is a directory for log files.
    pub fn has_dir(&self) -> bool {
        self.settings.dir.is_some()
    }

    /// Reads this stream from now on, to its end.
    pub fn open(&self, source: Source) {
        let anew = source.begins == Begins::Anew;
        self.shared.kept.begin(&source.instance, source.run, source.stderr, anew);
        self.order(Command::Open(source));
    }

    /// The `[logs]` keys of an instance changed.
    pub fn configure(&self, instance: &Name, logs: &unit::Logs) {
        self.order(Command::Configure(instance.clone(), logs.clone()));
    }

    /// Somebody has removed these files from the directory of FIFOs, or some that nobody can name (`None`):
    /// what of them is needed is put back. `region`: takes the place of the one in [`Lasting`].
    pub fn put_back(&self, region: Option<Box<dyn Region>>, gone: Option<BTreeSet<OsString>>) {
        self.order(Command::PutBack(region, gone));
    }

    /// Of names that were removed from the directory of FIFOs, those that the log thread has not removed itself.
    /// Each is asked of once.
    pub fn not_own(&self, mut names: Vec<OsString>) -> Vec<OsString> {
        names.retain(|name| !self.shared.removals.hear(name));
        names
    }

    /// The instance is gone: forget its last lines.
    pub fn forget(&self, instance: &Name) {
        self.shared.kept.forget(instance);
    }

    /// The last line of stderr, or of the output where it is one, of the instance's last run; kept in
    /// memory, at most 512 bytes, and nothing in it that a terminal obeys.
    pub fn last_line(&self, instance: &Name) -> Option<String> {
        self.shared.kept.last_line(instance)
    }

    /// The last lines (10 at most are kept) of the instance's last run, after everything was read that it
    /// has written up to now, if that can be had at once. Each at most 512 bytes, and nothing in them that a terminal
    /// obeys.
    pub async fn tail(&self, instance: &Name) -> Vec<String> {
        drained(&self.commands, &self.shared, instance).await;
        self.shared.kept.tail(instance)
    }

    /// The same, but what the run has said before this image began is read from its file, where it has one; `query` says
    /// since when it runs. What uphold has said there is left out, unless there is nothing else. May take as long as the
    /// disk does.
    pub async fn recall(&self, query: Query) -> Vec<String> {
        let kept = self.tail(&query.instance).await;
        let is_in_file = |stderr| {
            matches!(Target::of(&self.settings, &query.instance, &query.logs, stderr), Target::File(_))
        };
        if !self.shared.kept.is_partial(&query.instance) || !(is_in_file(false) || is_in_file(true)) {
            return kept;
        }
        // Nobody closes it.
        let Ok(permit) = self.recalls.clone().acquire_owned().await else { return kept };
        let mut read = self.read_with(Query { lines: Some(2 * kept::LINES), ..query.clone() }, Some(permit));
        let (mut lines, mut own) = (Vec::new(), Vec::new());
        while let Some(item) = read.recv().await {
            let Item::Line(Line { line, .. }) = item else { continue };
            let said = if line.starts_with("uphold: ") { &mut own } else { &mut lines };
            said.push(kept::shown(line.as_bytes()));
        }
        let written = if lines.is_empty() && kept.is_empty() { own } else { lines };
        self.shared.kept.tail_behind(&query.instance, written)
    }

    /// What is kept now of the last lines, without waiting for anything.
    pub fn kept(&self, instance: &Name) -> Vec<String> {
        self.shared.kept.tail(instance)
    }

    /// Reads a log. The channel ends with the log's end, or with the receiver. Output that goes to no file
    /// is answered with the lines that are kept of it, and cannot be followed. A line without a stamp counts
    /// as read with the one before. Where the log thread does not answer, what is in the files is given.
    pub fn read(&self, query: Query) -> mpsc::Receiver<Item> {
        self.read_with(query, None)
    }

    /// The permit lasts as long as the thread.
    fn read_with(&self, query: Query, permit: Option<OwnedSemaphorePermit>) -> mpsc::Receiver<Item> {
        let (lines, answer) = mpsc::channel(ANSWER);
        let (settings, shared, commands) =
            (self.settings.clone(), self.shared.clone(), self.commands.downgrade());
        let work = async move {
            if let Some(commands) = commands.upgrade() {
                drained(&commands, &shared, &query.instance).await;
            }
            let reader = Reader::new(&settings, &shared, query);
            // Who follows must not keep alive what it waits for.
            drop(shared);
            reader.run(lines).await;
            drop(permit);
        };
        let thread = thread::Builder::new().name("log-reader".to_owned()).spawn(move || {
            match Builder::new_current_thread().enable_time().build() {
                Ok(runtime) => runtime.block_on(work),
                Err(error) => tracing::error!("cannot read a log: {error}"),
            }
        });
        if let Err(error) = thread {
            tracing::error!("cannot start a thread to read a log: {error}");
        }
        answer
    }

    /// At the end: everything that was written is in its file, at most after `limit`. A line that stands
    /// unfinished in a pipe that somebody else will read on is written as a piece of one.
    pub async fn finish(&self, limit: Duration) {
        let (done, finished) = oneshot::channel();
        self.order(Command::Finish(done));
        if timeout(limit, finished).await.is_err() {
            tracing::warn!("cannot wait any longer for the logs to be written: {limit:?} have passed");
        }
    }

    /// Waits until everything that was read so far is where it goes, but a second at most.
    pub async fn settle(&self) {
        let (done, settled) = oneshot::channel();
        self.order(Command::Settle(done));
        // An error is the end of the thread, and after a second nobody waits any longer.
        drop(timeout(Duration::from_secs(1), settled).await);
    }

    fn order(&self, command: Command) {
        if self.commands.send(command).is_err() {
            tracing::error!("cannot reach the log thread: it has ended");
        }
    }
}

/// Waits until everything was read that the instance has written up to now, but not for ever.
async fn drained(commands: &mpsc::UnboundedSender<Command>, shared: &Shared, instance: &Name) {
    let (done, mut answer) = oneshot::channel();
    // An error is the end of the thread: there is nothing to wait for.
    if commands.send(Command::Drain(instance.clone(), done)).is_ok()
        && timeout(PATIENCE, &mut answer).await.is_err()
    {
        shared.was_silent(&mut answer);
    }
}
