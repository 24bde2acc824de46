//! Logs: every line that a service writes, whole, once, in its file. One thread of its own, so that a
//! stalled disk never stalls supervision.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::engine::{Run, Wall};
use crate::unit::{self, Name};

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
}

/// A handle to the log thread.
pub struct Logs {}

impl Logs {
    /// Starts the thread.
    pub fn start(_settings: Settings, _notices: mpsc::UnboundedSender<Notice>) -> io::Result<Logs> {
        todo!()
    }

    /// Reads this stream from now on, to its end.
    pub fn open(&self, _source: Source) {
        todo!()
    }

    /// The `[logs]` keys of an instance changed.
    pub fn configure(&self, _instance: &Name, _logs: &unit::Logs) {
        todo!()
    }

    /// The instance is gone: forget its last lines.
    pub fn forget(&self, _instance: &Name) {
        todo!()
    }

    /// The last line of stderr, or of the output where it is one, of the instance's last run; kept in
    /// memory, at most 512 bytes.
    pub fn last_line(&self, _instance: &Name) -> Option<String> {
        todo!()
    }

    /// The last lines (10 at most are kept) of the instance's last run, after everything was read that it
    /// has written up to now.
    pub async fn tail(&self, _instance: &Name) -> Vec<String> {
        todo!()
    }

    /// Reads a log. The channel ends with the log's end, or with the receiver.
    pub fn read(&self, _query: Query) -> mpsc::Receiver<Line> {
        todo!()
    }

    /// At the end: everything that was written is in its file, at most after `limit`.
    pub async fn finish(self, _limit: std::time::Duration) {
        todo!()
    }
}
