//! What could not be written: counted while it lasts, and said once it is over.

use std::io;
use std::time::{Duration, Instant};

use memchr::memchr_iter;
use tokio::sync::mpsc;

use super::Notice;
use crate::unit::Name;

/// A place that refuses lines is tried again at most this often, and only when there is something to write.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// Where notices go.
pub(super) type Notices = mpsc::UnboundedSender<Notice>;

/// A place that refuses lines, from its first error until all is well again.
#[derive(Debug)]
pub(super) struct Loss {
    /// Lost, and not yet said in the log.
    lines: u64,
    bytes: u64,
    /// Lost since the first error.
    total_lines: u64,
    total_bytes: u64,
    error: String,
    tried: Instant,
    /// Who was told.
    told: Vec<Name>,
}

impl Loss {
    pub(super) fn new(now: Instant) -> Loss {
        let error = String::new();
        Loss { lines: 0, bytes: 0, total_lines: 0, total_bytes: 0, error, tried: now, told: Vec::new() }
    }

    /// It is too early to try again.
    pub(super) fn rests(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.tried) < RETRY
    }

    /// Counts a batch whose lines begin with `lead` bytes that are not the service's.
    pub(super) fn count(&mut self, batch: &[u8], lead: usize) {
        let lines = memchr_iter(b'\n', batch).count() as u64;
        let bytes = (batch.len() as u64).saturating_sub(lines * lead as u64);
        self.lines += lines;
        self.bytes += bytes;
        self.total_lines += lines;
        self.total_bytes += bytes;
    }

    /// Remembers why and when, and says it to an owner who does not know.
    pub(super) fn failed(
        &mut self,
        now: Instant,
        error: &io::Error,
        place: &str,
        owner: &Name,
        notices: &Notices,
    ) {
        self.error = plain(error);
        self.tried = now;
        if self.told.contains(owner) {
            return;
        }
        self.told.push(owner.clone());
        let error = &self.error;
        let message = format!("cannot write {place}: {error}; lines are lost and counted until it can");
        say(notices, owner, "LogWriteFailed", true, message);
    }

    /// The line for the log itself, if anything was lost that it does not say yet.
    pub(super) fn line(&self, lead: &[u8]) -> Option<Vec<u8>> {
        let Loss { lines, bytes, error, .. } = self;
        let text = format!("uphold: {lines} lines ({bytes} bytes) lost: {error}\n");
        (self.lines > 0).then(|| [lead, text.as_bytes()].concat())
    }

    /// The log says it now.
    pub(super) fn said(&mut self) {
        self.lines = 0;
        self.bytes = 0;
    }

    /// All is well again: says so to everyone who was told.
    pub(super) fn recovered(self, place: &str, notices: &Notices) {
        let Loss { total_lines, total_bytes, error, told, .. } = self;
        let lost = format!("{total_lines} lines ({total_bytes} bytes) were lost: {error}");
        for owner in told {
            let message = format!("{place} is written again; {lost}");
            say(notices, &owner, "LogWriteRecovered", false, message);
        }
    }

    /// uphold ends and it is not well: says what was lost.
    pub(super) fn final_word(self, place: &str, notices: &Notices) {
        let Loss { total_lines, total_bytes, error, told, .. } = self;
        for owner in told {
            let message =
                format!("cannot write {place}: {error}; {total_lines} lines ({total_bytes} bytes) lost");
            say(notices, &owner, "LogWriteFailed", true, message);
        }
    }
}

/// Sends a notice; at the very end nobody may listen any more.
pub(super) fn say(notices: &Notices, owner: &Name, reason: &'static str, warning: bool, message: String) {
    if notices.send(Notice { instance: owner.clone(), reason, warning, message }).is_err() {
        tracing::debug!("nobody hears the notices of the logs any more");
    }
}

/// What a log says, and a notice, of a run whose FIFO was without a writer and a reader at once.
pub(super) fn unread(run: u64) -> String {
    format!("uphold: run {run} ended while no uphold ran: what it had written and nobody had read is lost")
}

/// The text of an error without its number.
pub(super) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error ").next().unwrap_or(&text).to_owned()
}
