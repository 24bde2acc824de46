//! The pump: carries what services write to where it goes, a batch at a time.
//!
//! A batch is noted in the journal before it is read. It is over once its lines are in their file and what is
//! left of it is kept: whoever is killed in between, the next pump finishes it (`recover`).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::console::{Console, Order};
use super::file::{LogFile, Writer};
use super::journal::{Intent, Journal, Memory, NAMELESS, TURN};
use super::lines::{Ending, Splitter};
use super::loss::{Notices, say, unread};
use super::rotate::Limits;
use super::sink::Sink;
use super::stamp::Stamper;
use super::target::Target;
use super::unfinished::{Place, Unfinished};
use super::{Begins, Lasting, Region, Settings, Shared, Source};
use crate::engine::Run;
use crate::file_id::FileId;
use crate::unit::{self, Name};

/// Turns that a drain takes at most: a pipe of 1 MiB, the most that a pipe of a user can be, was read then.
const DRAIN: usize = (1 << 20) / TURN + 1;
/// What follows the name of a FIFO in that of the file for its unfinished line.
pub(super) const PART: &str = ".part";
/// A batch buffer that grew beyond this is given back.
const ROOMY: usize = 1 << 20;

/// A stream of a run that is not at its end.
struct Stream {
    instance: Name,
    run: Run,
    stderr: bool,
    pipe: Rc<AsyncFd<File>>,
    path: Option<PathBuf>,
    /// What FIFO lay there when it was opened.
    lay: Option<FileId>,
    /// The name of the FIFO, or what stands for it.
    fifo: OsString,
    logs: unit::Logs,
    splitter: Splitter,
    unfinished: Unfinished,
    /// A predecessor has read it, and nothing has come since that tells whether a writer was there all the time.
    unheard: bool,
    sink: Sink,
    /// `NAME | ` where it goes to the console and wants that.
    prefix: Vec<u8>,
}

/// How a turn of a stream went.
pub(super) enum Turn {
    /// Something came.
    Read,
    /// There is nothing now.
    Dry,
    /// The console's queue is full.
    Held(mpsc::Sender<Order>),
    /// It came to its end, now or before.
    Gone,
}

pub(super) struct Pump {
    settings: Arc<Settings>,
    pub(super) shared: Arc<Shared>,
    pub(super) notices: Notices,
    streams: BTreeMap<u64, Stream>,
    next: u64,
    files: HashMap<PathBuf, Rc<RefCell<LogFile>>>,
    pub(super) consoles: [Console; 2],
    stamper: Stamper,
    /// Where FIFOs are, if something is to outlive this pump.
    pub(super) dir: Option<PathBuf>,
    pub(super) memory: Option<Memory>,
    pub(super) journal: Journal,
    /// What stands before each line of the batch in flight.
    lead: Vec<u8>,
    pub(super) batch: Vec<u8>,
}

#[expect(deprecated, reason = "a File keeps its descriptor, which is all that the unsafe successor asks for")]
fn wait_on(pipe: OwnedFd) -> io::Result<AsyncFd<File>> {
    AsyncFd::with_interest(File::from(pipe), Interest::READABLE)
}

impl Pump {
    pub(super) fn new(
        settings: Arc<Settings>,
        shared: Arc<Shared>,
        notices: Notices,
        consoles: [Console; 2],
        lasting: Option<Lasting>,
    ) -> Pump {
        let (dir, region, memory) = match lasting {
            Some(Lasting { dir, region, memory, gate: _ }) => (dir, Some(region), memory),
            None => (None, None, None),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Pump {
            settings,
            shared,
            notices,
            streams: BTreeMap::new(),
            next: 0,
            files: HashMap::new(),
            consoles,
            stamper: Stamper::new(),
            dir,
            memory,
            journal: Journal::new(region, u64::try_from(now.as_nanos()).unwrap_or(0)),
            lead: Vec::new(),
            batch: Vec::new(),
        }
    }

    /// `None`: it cannot be read, or a predecessor was at its end.
    pub(super) fn open(&mut self, source: Source) -> Option<(u64, Rc<AsyncFd<File>>)> {
        let Source { instance, run, stderr, pipe, path, logs, begins, room } = source;
        let resumed = begins != Begins::Anew;
        if resumed && path.as_ref().is_some_and(|path| matches!(path.try_exists(), Ok(false))) {
            return None;
        }
        let pipe = match wait_on(pipe) {
            Ok(pipe) => Rc::new(pipe),
            Err(error) => {
                let message = format!("cannot wait for the output of {instance}: {error}; it is not logged");
                say(&self.notices, &instance, "LogReadFailed", true, message);
                return None;
            }
        };
        drop(room);
        let sink = self.sink(&instance, &logs, stderr);
        let fifo = match path.as_deref().and_then(Path::file_name) {
            Some(fifo) => fifo.to_owned(),
            None => format!("{NAMELESS}{run}.{}", if stderr { "err" } else { "out" }).into(),
        };
        let kept = self.kept_beside(&fifo);
        let (unfinished, line) =
            if resumed { Unfinished::resume(kept) } else { (Unfinished::new(kept), Vec::new()) };
        self.shared.kept.add(&instance, run, stderr, b"", 0, &line);
        let stream = Stream {
            prefix: prefix(&instance, &logs),
            splitter: Splitter::new(line, logs.max_line),
            unfinished,
            unheard: begins == Begins::AfterAGap,
            pipe: pipe.clone(),
            instance,
            run,
            stderr,
            lay: fifo_of(&pipe).or_else(|| path.as_deref().and_then(fifo_at)),
            path,
            fifo,
            logs,
            sink,
        };
        self.next += 1;
        self.streams.insert(self.next, stream);
        Some((self.next, pipe))
    }

    /// Somebody has removed these from the directory of FIFOs, or all of it is to be looked at, which is this uphold's
    /// (`None`). A FIFO cannot be given its name back. It is read on, and an empty file in its place tells a successor that
    /// it was not at its end. `region`: what takes the place of the one of before.
    pub(super) fn put_back(&mut self, region: Option<Box<dyn Region>>, gone: Option<&BTreeSet<OsString>>) {
        if let Some(region) = region {
            self.journal.move_to(region);
        }
        for stream in self.streams.values_mut() {
            let Some(path) = &stream.path else { continue };
            let Some(fifo) = path.file_name() else { continue };
            let part = || [fifo, OsStr::new(PART)].into_iter().collect();
            if gone.is_some_and(|gone| !gone.contains(fifo) && !gone.contains::<OsString>(&part())) {
                continue;
            }
            // What lies there of an uphold that had the directory meanwhile is of nobody's any more.
            let anothers = gone.is_none() && is_anothers(path, stream.lay) && remove_file(path);
            if anothers || matches!(path.try_exists(), Ok(false)) {
                let made = File::options().write(true).create_new(true).mode(0o600).open(path);
                let message = match made {
                    // It was said of all of the directory.
                    Ok(_) if gone.is_none() => None,
                    Ok(_) => Some("after a kill of uphold it is found through the main process".to_owned()),
                    Err(error) => Some(format!(
                        "should uphold be killed, lines may be lost: cannot leave a mark in its place: {error}"
                    )),
                };
                if let Some(then) = message {
                    let message =
                        format!("somebody has removed {}; it is read on, and {then}", path.display());
                    say(&self.notices, &stream.instance, "FifoRemoved", true, message);
                }
            }
            stream.unfinished.put_back(stream.splitter.unfinished());
        }
    }

    /// Where an unfinished line is kept beside this FIFO, or what stands for it. What a predecessor has handed on
    /// is given away.
    pub(super) fn kept_beside(&mut self, fifo: &OsStr) -> Place {
        match (fifo.to_str().filter(|name| name.starts_with(NAMELESS)), &mut self.memory, &self.dir) {
            (Some(name), Some(Memory { handed_on, make }), _) => {
                Place::Memory { name: name.to_owned(), handed_on: handed_on.remove(name), make: *make }
            }
            (None, _, Some(dir)) => {
                let mut name = fifo.to_owned();
                name.push(PART);
                Place::Path(dir.join(name))
            }
            (Some(_), None, _) | (None, _, None) => Place::Nowhere,
        }
    }

    /// A log file, which is closed by `release` when nobody writes there.
    pub(super) fn file(&mut self, path: PathBuf) -> Rc<RefCell<LogFile>> {
        let file = self.files.entry(path).or_insert_with_key(|path| {
            let growth = self.shared.growth(path);
            Rc::new(RefCell::new(LogFile::new(path.clone(), growth, self.notices.clone())))
        });
        file.clone()
    }

    /// The place of a stream, opened.
    fn sink(&mut self, instance: &Name, logs: &unit::Logs, stderr: bool) -> Sink {
        match Target::of(&self.settings, instance, logs, stderr) {
            Target::File(path) => {
                let file = self.file(path);
                let writer = Writer { owner: instance, lead: b"", limits: limits(logs), now: Instant::now() };
                file.borrow_mut().prepare(writer);
                Sink::File(file)
            }
            Target::Console(which) => Sink::Console(which),
            Target::Null => Sink::Null,
        }
    }

    pub(super) fn configure(&mut self, instance: &Name, logs: &unit::Logs) {
        let ids: Vec<(u64, bool)> = self
            .streams
            .iter()
            .filter(|(_, s)| s.instance == *instance)
            .map(|(id, s)| (*id, s.stderr))
            .collect();
        for (id, stderr) in ids {
            let sink = self.sink(instance, logs, stderr);
            if matches!(sink, Sink::Null) {
                self.end_line(id);
            }
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.splitter.set_max(logs.max_line);
                stream.prefix = prefix(instance, logs);
                stream.logs = logs.clone();
                stream.sink = sink;
            }
        }
        self.release();
    }

    /// Ends a line of which a part was read, as if the service had: of what comes next, nobody is told.
    fn end_line(&mut self, id: u64) {
        let Some(stream) = self.streams.get(&id).filter(|stream| !stream.splitter.unfinished().is_empty())
        else {
            return;
        };
        let unheard = stream.unheard;
        self.announce(id, 1, 0, Ending::More);
        self.journal.bytes(1).copy_from_slice(b"\n");
        self.journal.took(1);
        self.carry(id, 1, Ending::More);
        self.commit(id);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.unheard = unheard;
        }
    }

    /// Reads once from a stream, and carries on what came.
    pub(super) fn turn(&mut self, id: u64) -> Turn {
        let Some(stream) = self.streams.get(&id) else { return Turn::Gone };
        if let Sink::Console(which) = stream.sink
            && let Some(queue) = self.consoles[which].queue()
            && queue.capacity() == 0
            && !queue.is_closed()
        {
            return Turn::Held(queue.clone());
        }
        let pipe = stream.pipe.clone();
        let waiting = match self.journal.waiting(pipe.get_ref().as_fd()) {
            Ok(waiting) => waiting,
            Err(error) => {
                self.unreadable(id, &error);
                return Turn::Gone;
            }
        };
        // Nothing waits at the end, too: only a read tells that.
        let asked = waiting.clamp(1, TURN);
        self.announce(id, asked, waiting, Ending::More);
        let outcome = pipe.get_ref().read(self.journal.bytes(asked));
        match outcome {
            Ok(0) => {
                self.end(id);
                Turn::Gone
            }
            Ok(count) => {
                self.journal.took(count);
                self.carry(id, count, Ending::More);
                self.commit(id);
                Turn::Read
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Turn::Read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.journal.idle();
                // It is not at its end: a writer has kept what was written.
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.unheard = false;
                }
                Turn::Dry
            }
            Err(error) => {
                self.unreadable(id, &error);
                Turn::Gone
            }
        }
    }

    /// Notes the next batch of a stream, of which `asked` bytes of those that wait are about to be read.
    fn announce(&mut self, id: u64, asked: usize, waiting: usize, ending: Ending) {
        let Some(stream) = self.streams.get(&id) else { return };
        self.lead.clear();
        let file;
        let (path, console) = match &stream.sink {
            Sink::File(log) => {
                if stream.logs.timestamps {
                    self.lead.extend_from_slice(self.stamper.at(SystemTime::now()));
                }
                file = log.borrow();
                (file.path().as_os_str().as_bytes(), 0)
            }
            Sink::Console(which) => {
                self.lead.extend_from_slice(&stream.prefix);
                (&[][..], *which)
            }
            Sink::Null => return,
        };
        let Limits { max_size, keep } = limits(&stream.logs);
        self.journal.begin(Intent {
            seq: 0,
            run: stream.run.0,
            asked: asked as u64,
            waiting: waiting as u64,
            held: stream.splitter.unfinished().len() as u64,
            ending: ending as u64,
            max_line: stream.splitter.max(),
            max_size,
            keep: keep.into(),
            console: console as u64,
            path,
            fifo: stream.fifo.as_bytes(),
            owner: stream.instance.as_str().as_bytes(),
            lead: &self.lead,
        });
    }

    /// Carries the first `count` bytes that were read, and what the ending makes of an unfinished line.
    fn carry(&mut self, id: u64, count: usize, ending: Ending) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.unheard &= count == 0;
        self.batch.clear();
        if matches!(stream.sink, Sink::Null) {
            return;
        }
        let bytes = self.journal.bytes(count);
        stream.splitter.batch(bytes, ending, stream.run.0, &self.lead, &mut self.batch);
        let (owner, unfinished) = (&stream.instance, stream.splitter.unfinished());
        let lead = &self.lead;
        self.shared.kept.add(owner, stream.run, stream.stderr, &self.batch, lead.len(), unfinished);
        let writer = Writer { owner, lead, limits: limits(&stream.logs), now: Instant::now() };
        stream.sink.deliver(&self.batch, None, writer, &mut self.journal, &mut self.consoles, &self.notices);
    }

    /// The batch is where it belongs: keeps what is left of it, and it is over.
    fn commit(&mut self, id: u64) {
        if let Some(stream) = self.streams.get_mut(&id) {
            // Without a line of it, all of the batch went behind what was left before.
            let grown = self.batch.is_empty();
            stream.unfinished.keep(stream.splitter.unfinished(), self.journal.seq(), grown);
        }
        self.journal.idle();
        if self.batch.capacity() > ROOMY {
            self.batch = Vec::new();
        }
    }

    /// The stream is at its end: so is its last line, and nobody needs its FIFO any more.
    fn end(&mut self, id: u64) {
        let Some(stream) = self.streams.get(&id) else { return };
        let ending = if stream.unheard { Ending::Unread } else { Ending::Whole };
        if ending == Ending::Unread {
            say(&self.notices, &stream.instance, "LogUnread", true, unread(stream.run.0));
        }
        self.announce(id, 0, 0, ending);
        self.carry(id, 0, ending);
        if let Some(stream) = self.streams.get(&id)
            && let Some(path) = stream.path.as_deref().filter(|path| !is_anothers(path, stream.lay))
        {
            self.shared.removals.of(path, remove_file);
        }
        self.commit(id);
        let Some(stream) = self.streams.remove(&id) else { return };
        if let Some(path) = stream.unfinished.path() {
            self.shared.removals.of(path, remove_file);
        }
        if let Sink::File(file) = &stream.sink {
            let (owner, limits) = (&stream.instance, limits(&stream.logs));
            let lead = if stream.logs.timestamps { self.stamper.at(SystemTime::now()) } else { &[] };
            file.borrow_mut().settle(Writer { owner, lead, limits, now: Instant::now() });
        }
        drop(stream);
        self.release();
    }

    pub(super) fn unreadable(&mut self, id: u64, error: &io::Error) {
        if let Some(stream) = self.streams.get_mut(&id) {
            let message = format!("cannot read the output of {}: {error}; it is not logged", stream.instance);
            say(&self.notices, &stream.instance, "LogReadFailed", true, message);
            stream.unheard = false;
        }
        self.end(id);
    }

    /// Those of the consoles that are in use.
    pub(super) fn queues(&self) -> Vec<mpsc::Sender<Order>> {
        self.consoles.iter().filter_map(|console| console.started().cloned()).collect()
    }

    /// Closes the files that nobody writes to; one that still has a loss to say stays.
    pub(super) fn release(&mut self) {
        let shared = &self.shared;
        self.files.retain(|path, file| {
            let needed = Rc::strong_count(file) > 1 || !file.borrow().is_well();
            if !needed {
                shared.ungrow(path);
            }
            needed
        });
    }

    /// Reads what was written up to now, by one instance or by all, and an end that follows it: turns until
    /// there is nothing, or as many as hold a full pipe. Gives a queue that was full and must be waited for.
    pub(super) fn drain(&mut self, instance: Option<&Name>) -> Option<mpsc::Sender<Order>> {
        let theirs = |(_, stream): &(&u64, &Stream)| instance.is_none_or(|name| stream.instance == *name);
        let ids: Vec<u64> = self.streams.iter().filter(theirs).map(|(id, _)| *id).collect();
        let mut held = None;
        for id in ids {
            for _ in 0..DRAIN {
                match self.turn(id) {
                    Turn::Read => {}
                    Turn::Held(queue) => {
                        held = Some(queue);
                        break;
                    }
                    Turn::Dry | Turn::Gone => break,
                }
            }
        }
        held
    }

    /// Hands over what stands unfinished, and says what was lost for good.
    pub(super) fn finish(&mut self) {
        let ids: Vec<u64> = self.streams.keys().copied().collect();
        for id in ids {
            self.announce(id, 0, 0, Ending::Piece);
            self.carry(id, 0, Ending::Piece);
            self.commit(id);
        }
        self.streams.clear();
        for (_, file) in self.files.drain() {
            file.borrow_mut().close();
        }
    }
}

/// A FIFO of that name, and not this one: of another uphold, which has come since somebody removed the directory.
fn is_anothers(path: &Path, lay: Option<FileId>) -> bool {
    // Where a mark lay, ours was gone by then.
    let there = fifo_at(path);
    there.is_some() && there != lay
}

/// A FIFO that lies at this path.
fn fifo_at(path: &Path) -> Option<FileId> {
    let found = fs::symlink_metadata(path).ok()?;
    found.file_type().is_fifo().then(|| (&found).into())
}

/// The FIFO that this is an end of. By its path there may be another one by now.
fn fifo_of(pipe: &AsyncFd<File>) -> Option<FileId> {
    let found = pipe.get_ref().metadata().ok()?;
    found.file_type().is_fifo().then(|| (&found).into())
}

/// Removes a file of a stream; whether it was there and is no more.
pub(super) fn remove_file(path: &Path) -> bool {
    let removed = fs::remove_file(path);
    if let Err(error) = &removed
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("cannot remove {}: {error}", path.display());
    }
    removed.is_ok()
}

fn prefix(instance: &Name, logs: &unit::Logs) -> Vec<u8> {
    if logs.prefix { format!("{instance} | ").into_bytes() } else { Vec::new() }
}

fn limits(logs: &unit::Logs) -> Limits {
    Limits { max_size: logs.max_size, keep: logs.keep }
}
