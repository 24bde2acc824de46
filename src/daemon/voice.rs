//! uphold's own log, on stderr. The lines go through a thread: a reader of stderr that has stopped reading
//! must not stop supervision. What does not fit is counted, and the count is said.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::unit::LogFormat;

/// How many lines may wait for stderr.
const WAITING: usize = 4096;

enum Word {
    Line(Vec<u8>),
    /// All before is written: say so.
    Flush(SyncSender<()>),
}

/// A way to stderr that never blocks.
#[derive(Clone)]
pub struct Voice {
    words: SyncSender<Word>,
    lost: Arc<AtomicU64>,
}

impl Voice {
    /// Starts the thread and makes this the process's log.
    pub fn start(level: Option<&str>, format: LogFormat) -> io::Result<Voice> {
        let (words, queue) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let count = lost.clone();
        std::thread::Builder::new().name("uphold-voice".to_owned()).spawn(move || speak(&queue, &count))?;
        let voice = Voice { words, lost };
        let filter = EnvFilter::new(level.unwrap_or("info"));
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
        // A second voice in one process keeps the first: both end at stderr.
        let set = match format {
            LogFormat::Text => builder.with_ansi(false).with_writer(voice.clone()).try_init(),
            LogFormat::Json => builder.json().with_writer(voice.clone()).try_init(),
        };
        drop(set);
        Ok(voice)
    }

    /// Waits until what was said is written, at most that long.
    pub fn flush(&self, limit: Duration) {
        let (done, written) = sync_channel(1);
        if self.words.try_send(Word::Flush(done)).is_ok() {
            let _ = written.recv_timeout(limit);
        }
    }
}

fn speak(queue: &Receiver<Word>, lost: &AtomicU64) {
    while let Ok(word) = queue.recv() {
        let mut out = io::stderr().lock();
        let lines = lost.swap(0, Ordering::Relaxed);
        if lines > 0 {
            let _ = writeln!(out, "uphold: {lines} lines of its own log are lost: stderr was not read");
        }
        match word {
            Word::Line(line) => drop(out.write_all(&line)),
            Word::Flush(done) => drop(done.try_send(())),
        }
    }
}

impl Write for Voice {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.words.try_send(Word::Line(line.to_owned())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Voice {
    type Writer = Voice;
    fn make_writer(&'a self) -> Voice {
        self.clone()
    }
}
