//! uphold's own log, on stderr. The lines go through a thread: a reader of stderr that has stopped reading
//! must not stop supervision. What does not fit is counted, and the count is said.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tracing::{Event, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{DefaultFields, Format, Full, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{fmt, reload};

use crate::host::UNWRITTEN;
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
struct Out {
    words: SyncSender<Word>,
    lost: Arc<AtomicU64>,
}

/// Everything of the log but its level.
type Base = fmt::Subscriber<DefaultFields, Form, LevelFilter, Out>;

/// uphold's own log. What it says, and how, can change as it runs.
#[derive(Clone)]
pub struct Voice {
    out: Out,
    level: reload::Handle<LevelFilter, Base>,
    json: Arc<AtomicBool>,
}

impl Voice {
    /// Starts the thread and makes this the process's log.
    pub fn start(level: Option<&str>, format: LogFormat) -> io::Result<Voice> {
        let (words, queue) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let count = lost.clone();
        std::thread::Builder::new().name("uphold-voice".to_owned()).spawn(move || speak(&queue, &count))?;
        let out = Out { words, lost };
        let json = Arc::new(AtomicBool::new(format == LogFormat::Json));
        let base = fmt()
            .event_format(Form::new(json.clone()))
            .with_writer(out.clone())
            .with_max_level(LevelFilter::TRACE)
            .finish();
        let (filter, handle) = reload::Layer::new(filter(level));
        // A second voice in one process keeps the first: both end at stderr.
        drop(tracing::subscriber::set_global_default(base.with(filter)));
        Ok(Voice { out, level: handle, json })
    }

    /// From now on it says this much, in this form.
    pub fn tune(&self, level: Option<&str>, format: LogFormat) {
        self.json.store(format == LogFormat::Json, Ordering::Relaxed);
        // Fails only for a second voice in one process, whose log is the first's.
        drop(self.level.reload(filter(level)));
    }

    /// Waits until what was said is written, at most that long.
    pub fn flush(&self, limit: Duration) {
        let (done, written) = sync_channel(1);
        if self.out.words.try_send(Word::Flush(done)).is_ok() {
            let _ = written.recv_timeout(limit);
        }
    }
}

fn filter(level: Option<&str>) -> LevelFilter {
    // The config allows only the five words that parse.
    level.and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::INFO)
}

/// How a line looks: either form, whichever is wanted by then.
struct Form {
    json: Arc<AtomicBool>,
    lines: Format<Full>,
    objects: Format<Json>,
}

impl Form {
    fn new(json: Arc<AtomicBool>) -> Form {
        let format = fmt::format().with_target(false).with_ansi(false);
        Form { json, lines: format.clone(), objects: format.json() }
    }
}

impl<S, N> FormatEvent<S, N> for Form
where
    S: Subscriber + for<'l> LookupSpan<'l>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        if self.json.load(Ordering::Relaxed) {
            self.objects.format_event(context, writer, event)
        } else {
            self.lines.format_event(context, writer, event)
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
            Word::Line(line) => {
                let _ = out.write_all(&line);
                UNWRITTEN.fetch_sub(1, Ordering::SeqCst);
            }
            Word::Flush(done) => drop(done.try_send(())),
        }
    }
}

impl Write for Out {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        UNWRITTEN.fetch_add(1, Ordering::SeqCst);
        if self.words.try_send(Word::Line(line.to_owned())).is_err() {
            UNWRITTEN.fetch_sub(1, Ordering::SeqCst);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Out {
    type Writer = Out;
    fn make_writer(&'a self) -> Out {
        self.clone()
    }
}
