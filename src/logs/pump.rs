//! The log thread: waits on the pipes of all services at once, and carries what they write to where it goes.
//!
//! Everything here may block on a disk; nothing else waits for it but who asks. When nothing is written the
//! thread sleeps in epoll_wait(2) without a time-out.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{self, LocalSet};

use super::console::{Console, Order};
use super::file::{LogFile, Writer};
use super::lines::Splitter;
use super::loss::{Notices, say};
use super::rotate::Limits;
use super::stamp::Stamper;
use super::target::Target;
use super::{Settings, Shared, Source};
use crate::engine::Run;
use crate::unit::{self, Name};

/// Read from one pipe at a turn, so that a service that never stops writing does not keep others waiting.
const TURN: usize = 64 << 10;
/// Turns that a drain takes at most: a pipe of 1 MiB, the most that a pipe of a user can be, was read then.
const DRAIN: usize = (1 << 20) / TURN + 1;
/// Waits for a console at the end; by then a full pipe has passed however small its lines.
const ROUNDS: usize = 1024;
/// A batch buffer that grew beyond this is given back.
const ROOMY: usize = 1 << 20;

/// What the thread is asked.
pub(super) enum Command {
    Open(Source),
    Configure(Name, unit::Logs),
    /// Read what this instance has written up to now, then answer.
    Drain(Name, oneshot::Sender<()>),
    /// Have the consoles write what they were given, then answer.
    Settle(oneshot::Sender<()>),
    /// Read what all have written up to now, then answer and end.
    Finish(oneshot::Sender<()>),
}

/// A stream of a run that is not at its end.
struct Stream {
    instance: Name,
    run: Run,
    stderr: bool,
    pipe: Rc<AsyncFd<File>>,
    path: Option<PathBuf>,
    logs: unit::Logs,
    splitter: Splitter,
    sink: Sink,
    /// `NAME | ` where it goes to the console and wants that.
    prefix: Vec<u8>,
}

enum Sink {
    File(Rc<RefCell<LogFile>>),
    Console(usize),
    Null,
}

/// How a turn of a stream went.
enum Turn {
    /// Something came.
    Read,
    /// There is nothing now.
    Dry,
    /// The console's queue is full.
    Held(mpsc::Sender<Order>),
    /// It came to its end, now or before.
    Gone,
}

/// What an unfinished line becomes.
#[derive(Clone, Copy)]
enum Ending {
    /// A line: the stream is at its end.
    Whole,
    /// A piece of one: the next uphold reads on.
    Piece,
}

pub(super) struct Pump {
    settings: Arc<Settings>,
    shared: Arc<Shared>,
    notices: Notices,
    streams: BTreeMap<u64, Stream>,
    next: u64,
    files: HashMap<PathBuf, Rc<RefCell<LogFile>>>,
    consoles: [Console; 2],
    stamper: Stamper,
    read: Vec<u8>,
    batch: Vec<u8>,
}

/// Runs until it is told to finish, or nobody can tell it anything any more.
pub(super) async fn run(pump: Pump, mut commands: mpsc::UnboundedReceiver<Command>) {
    let pump = Rc::new(RefCell::new(pump));
    let body = async {
        loop {
            match commands.recv().await {
                Some(Command::Open(source)) => open(&pump, source),
                Some(Command::Configure(instance, logs)) => pump.borrow_mut().configure(&instance, &logs),
                Some(Command::Drain(instance, done)) => {
                    // A queue that is full is not waited for: whoever asks must not hang on it.
                    let _ = pump.borrow_mut().drain(Some(&instance));
                    // Who asked may have gone.
                    let _ = done.send(());
                }
                Some(Command::Settle(done)) => {
                    flush(&pump).await;
                    let _ = done.send(());
                }
                Some(Command::Finish(done)) => break Some(done),
                None => break None,
            }
        }
    };
    let local = LocalSet::new();
    let done = local.run_until(body).await;
    drain_all(&pump).await;
    pump.borrow_mut().finish();
    flush(&pump).await;
    if let Some(done) = done {
        let _ = done.send(());
    }
}

fn open(pump: &Rc<RefCell<Pump>>, source: Source) {
    if let Some((id, pipe)) = pump.borrow_mut().open(source) {
        task::spawn_local(follow(pump.clone(), id, pipe));
    }
}

/// Waits on one stream to its end.
async fn follow(pump: Rc<RefCell<Pump>>, id: u64, pipe: Rc<AsyncFd<File>>) {
    loop {
        let mut guard = match pipe.readable().await {
            Ok(guard) => guard,
            Err(error) => return pump.borrow_mut().unreadable(id, &error),
        };
        let turn = pump.borrow_mut().turn(id);
        match turn {
            Turn::Read => task::yield_now().await,
            Turn::Dry => guard.clear_ready(),
            // A console whose thread is gone takes everything: the next turn sees that.
            Turn::Held(queue) => drop(queue.reserve().await),
            Turn::Gone => return,
        }
    }
}

#[expect(deprecated, reason = "a File keeps its descriptor, which is all that the unsafe successor asks for")]
fn wait_on(pipe: OwnedFd) -> io::Result<AsyncFd<File>> {
    AsyncFd::with_interest(File::from(pipe), Interest::READABLE)
}

/// Reads everything that was written, and waits for a slow console, as long as the caller lets us.
async fn drain_all(pump: &RefCell<Pump>) {
    for _ in 0..ROUNDS {
        let held = pump.borrow_mut().drain(None);
        match held {
            Some(queue) => drop(queue.reserve().await),
            None => return,
        }
    }
}

async fn flush(pump: &RefCell<Pump>) {
    let queues: Vec<_> = pump.borrow().consoles.iter().filter_map(|c| c.started().cloned()).collect();
    for queue in queues {
        let (done, flushed) = oneshot::channel();
        if queue.send(Order::Flush(done)).await.is_ok() {
            // An error is the end of its thread: there is nothing more to wait for.
            drop(flushed.await);
        }
    }
}

impl Pump {
    pub(super) fn new(
        settings: Arc<Settings>,
        shared: Arc<Shared>,
        notices: Notices,
        consoles: [Console; 2],
    ) -> Pump {
        Pump {
            settings,
            shared,
            notices,
            streams: BTreeMap::new(),
            next: 0,
            files: HashMap::new(),
            consoles,
            stamper: Stamper::new(),
            read: vec![0; TURN],
            batch: Vec::new(),
        }
    }

    fn open(&mut self, source: Source) -> Option<(u64, Rc<AsyncFd<File>>)> {
        let Source { instance, run, stderr, pipe, path, logs } = source;
        let pipe = match wait_on(pipe) {
            Ok(pipe) => Rc::new(pipe),
            Err(error) => {
                let message = format!("cannot wait for the output of {instance}: {error}; it is not logged");
                say(&self.notices, &instance, "LogReadFailed", true, message);
                return None;
            }
        };
        let sink = self.sink(&instance, &logs, stderr);
        let stream = Stream {
            prefix: prefix(&instance, &logs),
            splitter: Splitter::new(logs.max_line),
            pipe: pipe.clone(),
            instance,
            run,
            stderr,
            path,
            logs,
            sink,
        };
        self.next += 1;
        self.streams.insert(self.next, stream);
        Some((self.next, pipe))
    }

    /// The place of a stream, opened.
    fn sink(&mut self, instance: &Name, logs: &unit::Logs, stderr: bool) -> Sink {
        match Target::of(&self.settings, instance, logs, stderr) {
            Target::File(path) => {
                let file = self.files.entry(path).or_insert_with_key(|path| {
                    let growth = self.shared.growth(path);
                    Rc::new(RefCell::new(LogFile::new(path.clone(), growth, self.notices.clone())))
                });
                let writer = Writer { owner: instance, lead: b"", limits: limits(logs), now: Instant::now() };
                file.borrow_mut().prepare(writer);
                Sink::File(file.clone())
            }
            Target::Console(which) => Sink::Console(which),
            Target::Null => Sink::Null,
        }
    }

    fn configure(&mut self, instance: &Name, logs: &unit::Logs) {
        let ids: Vec<(u64, bool)> = self
            .streams
            .iter()
            .filter(|(_, s)| s.instance == *instance)
            .map(|(id, s)| (*id, s.stderr))
            .collect();
        for (id, stderr) in ids {
            let sink = self.sink(instance, logs, stderr);
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.splitter.set_max(logs.max_line);
                stream.prefix = prefix(instance, logs);
                stream.logs = logs.clone();
                stream.sink = sink;
            }
        }
        self.release();
    }

    /// Reads once from a stream, and carries on what came.
    fn turn(&mut self, id: u64) -> Turn {
        let Some(stream) = self.streams.get(&id) else { return Turn::Gone };
        if let Sink::Console(which) = stream.sink
            && let Some(queue) = self.consoles[which].queue()
            && queue.capacity() == 0
            && !queue.is_closed()
        {
            return Turn::Held(queue.clone());
        }
        let outcome = stream.pipe.get_ref().read(&mut self.read);
        match outcome {
            Ok(0) => {
                self.end(id);
                Turn::Gone
            }
            Ok(count) => {
                self.carry(id, count, None);
                Turn::Read
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Turn::Read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Turn::Dry,
            Err(error) => {
                self.unreadable(id, &error);
                Turn::Gone
            }
        }
    }

    /// Carries the first `count` bytes of the read buffer, and an unfinished line if it is to be finished.
    fn carry(&mut self, id: u64, count: usize, ending: Option<Ending>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let lead = match &stream.sink {
            Sink::File(_) if stream.logs.timestamps => self.stamper.at(SystemTime::now()),
            Sink::Console(_) => &stream.prefix,
            Sink::File(_) => &[],
            Sink::Null => return,
        };
        self.batch.clear();
        stream.splitter.feed(&self.read[..count], lead, &mut self.batch);
        match ending {
            Some(Ending::Whole) => stream.splitter.end(lead, &mut self.batch),
            Some(Ending::Piece) => stream.splitter.hand_over(lead, &mut self.batch),
            None => {}
        }
        let (instance, unfinished) = (&stream.instance, stream.splitter.unfinished());
        self.shared.kept.add(instance, stream.run, stream.stderr, &self.batch, lead.len(), unfinished);
        if self.batch.is_empty() {
            return;
        }
        match &stream.sink {
            Sink::File(file) => {
                let writer =
                    Writer { owner: instance, lead, limits: limits(&stream.logs), now: Instant::now() };
                file.borrow_mut().write(&self.batch, writer);
            }
            Sink::Console(which) => {
                let order =
                    Order::Write { owner: instance.clone(), batch: self.batch.clone(), lead: lead.len() };
                let sent = self.consoles[*which].queue().map(|queue| queue.try_send(order));
                if !matches!(sent, Some(Ok(()))) {
                    let message =
                        format!("cannot pass on output of {instance}: uphold's own stream is stuck");
                    say(&self.notices, instance, "LogWriteFailed", true, message);
                }
            }
            Sink::Null => {}
        }
        if self.batch.capacity() > ROOMY {
            self.batch = Vec::new();
        }
    }

    /// The stream is at its end: so is its last line, and nobody needs its FIFO any more.
    fn end(&mut self, id: u64) {
        self.carry(id, 0, Some(Ending::Whole));
        let Some(stream) = self.streams.remove(&id) else { return };
        if let Some(path) = &stream.path
            && let Err(error) = fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("cannot remove {}: {error}", path.display());
        }
        if let Sink::File(file) = &stream.sink {
            let (owner, limits) = (&stream.instance, limits(&stream.logs));
            let lead = if stream.logs.timestamps { self.stamper.at(SystemTime::now()) } else { &[] };
            file.borrow_mut().settle(Writer { owner, lead, limits, now: Instant::now() });
        }
        drop(stream);
        self.release();
    }

    fn unreadable(&mut self, id: u64, error: &io::Error) {
        if let Some(stream) = self.streams.get(&id) {
            let message = format!("cannot read the output of {}: {error}; it is not logged", stream.instance);
            say(&self.notices, &stream.instance, "LogReadFailed", true, message);
        }
        self.end(id);
    }

    /// Closes the files that nobody writes to; one that still has a loss to say stays.
    fn release(&mut self) {
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
    fn drain(&mut self, instance: Option<&Name>) -> Option<mpsc::Sender<Order>> {
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
    fn finish(&mut self) {
        let ids: Vec<u64> = self.streams.keys().copied().collect();
        for id in ids {
            self.carry(id, 0, Some(Ending::Piece));
        }
        self.streams.clear();
        for (_, file) in self.files.drain() {
            file.borrow_mut().close();
        }
    }
}

fn prefix(instance: &Name, logs: &unit::Logs) -> Vec<u8> {
    if logs.prefix { format!("{instance} | ").into_bytes() } else { Vec::new() }
}

fn limits(logs: &unit::Logs) -> Limits {
    Limits { max_size: logs.max_size, keep: logs.keep }
}
