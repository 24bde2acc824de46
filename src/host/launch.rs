//! The spawning threads. A vfork parent sleeps until the exec, and what comes before may block for ever on
//! a dead mount: so it is done here, and the deciding thread hears of it through its channel of wakes.

use std::collections::{HashSet, VecDeque};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use tokio::sync::mpsc::UnboundedSender;

use super::cgroup::{Base, Leaf};
use super::prepare::{Failed, Prepared, Role, explain, prepare};
use super::slots::Slot;
use super::spawn::{Into, Stack, Stage};
use super::{Captured, Order, Settings, Stream, Wake, exec, fifo, kin, reexec, spawn, sys};
use crate::engine::{Run, SpawnFailure};
use crate::failpoint;
use crate::task::Task;
use crate::unit::{Name, Output, Signal, Unit};

/// Descriptors that a start leaves for clients, probes, and whatever is opened for a moment.
const SPARE: usize = 8;

/// What a thread is to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Start a main process. Where its pid goes, and what else is to be known of it without uphold.
    Main(Order, Option<&'static Slot>),
    /// Start an exec probe's command.
    Probe(exec::Job),
}

/// What came of a [`Job`].
#[derive(Debug)]
pub(super) struct Launched {
    pub job: Job,
    /// A clone was tried: this is in [`Shop::cloning`] until it is handled.
    pub cloned: Option<Arc<AtomicI32>>,
    pub outcome: Result<Started, SpawnFailure>,
    /// To be said beside it.
    pub warnings: Vec<String>,
}

impl Launched {
    /// Nobody will hear of the child, if there is one: it would run on beside the next. It is not reaped yet, so this
    /// is its pid, and it leads its session, unless it is COMMAND.
    fn end_child(&self) {
        let Some(pid) = self.cloned.as_ref().map(|child| child.load(Ordering::SeqCst)).filter(|pid| *pid > 0)
        else {
            return;
        };
        let _ = sys::kill(pid, Signal::KILL);
        let _ = sys::kill(-pid, Signal::KILL);
    }
}

/// A child that executes its command.
#[derive(Debug)]
pub(super) struct Started {
    pub pid: i32,
    pub uid: u32,
    pub leaf: Option<Leaf>,
    pub output: Vec<Captured>,
}

/// What all spawning threads share.
#[derive(Debug, Clone)]
pub(super) struct Shop {
    pub settings: Settings,
    pub base: Option<Base>,
    pub wakes: UnboundedSender<Wake>,
    pub cloning: Cloning,
    /// The signals that uphold ignores: it changes none of them later.
    pub ignored: Arc<[i32]>,
}

/// Children that may exist without the deciding thread knowing them, each with its pid, 0 before it has one.
/// An unknown child that has ended and may be one of these is not to be reaped.
#[derive(Debug, Clone, Default)]
pub(super) struct Cloning(Arc<Mutex<Vec<Arc<AtomicI32>>>>);

impl Cloning {
    /// There may be one more from here on. Where its pid is to be written before it runs.
    pub(super) fn begin(&self) -> Arc<AtomicI32> {
        let child = Arc::new(AtomicI32::new(0));
        self.lock().push(child.clone());
        child
    }

    /// The deciding thread knows what came of it.
    pub(super) fn end(&self, child: &Arc<AtomicI32>) {
        self.lock().retain(|other| !Arc::ptr_eq(other, child));
    }

    /// Whether this child may be one of them.
    pub(super) fn may_be(&self, pid: i32) -> bool {
        self.lock().iter().any(|child| [0, pid].contains(&child.load(Ordering::SeqCst)))
    }

    /// No code that holds it can panic half-way.
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<AtomicI32>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A start that takes longer than this may take for ever: what waits behind it gets a thread of its own.
const STALLED: Duration = Duration::from_secs(1);
/// Threads that share a burst of starts: each sleeps in vfork until its child's exec, and another has what to
/// do meanwhile.
const AT_ONCE: usize = 2;
/// Threads at most.
const MOST: usize = 64;

/// A handle to the spawning threads of one kind. There are few, until a start stalls one: a dead mount of one
/// unit must not hold up the others.
#[derive(Debug)]
pub(super) struct Launcher {
    shop: Shop,
    name: &'static str,
    queue: Arc<Queue>,
    /// Looks again while something waits; with how many jobs had been begun when it was set.
    look: Option<(Task, u64)>,
}

/// What waits, and who works on it.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Whose jobs are being done: a second one for the same would stall for the same reason.
    busy: HashSet<Name>,
    begun: u64,
    workers: usize,
    idle: usize,
    closed: bool,
}

impl Job {
    fn instance(&self) -> &Name {
        match self {
            Job::Main(order, _) => &order.instance,
            Job::Probe(job) => &job.order.instance,
        }
    }

    /// Nobody waits for it any more, and nothing has to be said of it.
    fn given_up(&self) -> bool {
        match self {
            Job::Main(..) => false,
            Job::Probe(job) => job.wanted.strong_count() == 0,
        }
    }
}

impl State {
    fn first(&self) -> Option<usize> {
        self.jobs.iter().position(|job| !self.busy.contains(job.instance()))
    }

    fn take(&mut self) -> Option<Job> {
        let job = self.first().and_then(|index| self.jobs.remove(index))?;
        self.busy.insert(job.instance().clone());
        self.begun += 1;
        Some(job)
    }
}

impl Queue {
    /// No code that holds it can panic half-way.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a job; `None`: the thread is not needed any more.
    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            let job = if state.closed { None } else { state.take() };
            if job.is_some() {
                return job;
            }
            if state.closed || state.idle > 0 {
                state.workers -= 1;
                return None;
            }
            state.idle += 1;
            state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

impl Launcher {
    pub(super) fn new(shop: Shop, name: &'static str) -> Launcher {
        Launcher { shop, name, queue: Arc::default(), look: None }
    }

    /// Hands over a job; a [`Launched`] follows in every case, but for those before it that nobody waits
    /// for any more, which come back.
    pub(super) fn send(&mut self, job: Job) -> Vec<Job> {
        let (few, waits, dropped) = {
            let mut state = self.queue.lock();
            let (dropped, jobs) = std::mem::take(&mut state.jobs).into_iter().partition(Job::given_up);
            state.jobs = jobs;
            state.jobs.push_back(job);
            let waits = state.jobs.len() > state.idle;
            let dropped: VecDeque<Job> = dropped;
            (waits && state.workers < AT_ONCE, waits, dropped.into())
        };
        self.queue.more.notify_one();
        if few {
            self.begin();
        } else if waits && self.look.is_none() {
            self.look_later();
        }
        dropped
    }

    /// Time has passed while something waited on the launcher of this name.
    pub(super) fn look(&mut self, name: &str) {
        if name != self.name {
            return;
        }
        let Some((_, before)) = self.look.take() else { return };
        let (waits, stalled) = {
            let state = self.queue.lock();
            let stalled = state.begun == before && state.idle == 0 && state.workers < MOST;
            (state.first().is_some(), stalled)
        };
        if waits && stalled {
            self.begin();
        }
        if waits {
            self.look_later();
        }
    }

    fn look_later(&mut self) {
        let (wakes, name, begun) = (self.shop.wakes.clone(), self.name, self.queue.lock().begun);
        let task = Task::spawn(async move {
            tokio::time::sleep(STALLED).await;
            let _ = wakes.send(Wake::Stalled(name));
        });
        self.look = Some((task, begun));
    }

    /// Starts a thread. Where there is none and none can be had, all that waits has failed.
    fn begin(&mut self) {
        self.queue.lock().workers += 1;
        let (shop, queue) = (self.shop.clone(), self.queue.clone());
        let made = thread::Builder::new().name(self.name.to_owned()).spawn(move || work(&shop, &queue));
        let Err(error) = made else { return };
        let jobs = {
            let mut state = self.queue.lock();
            state.workers -= 1;
            if state.workers == 0 { std::mem::take(&mut state.jobs) } else { VecDeque::new() }
        };
        for job in jobs {
            let failure = Failed::io("creating the process", "the spawning thread: ", &error);
            let launched = Launched { job, cloned: None, outcome: Err(failure), warnings: Vec::new() };
            let _ = self.shop.wakes.send(Wake::Launched(Box::new(launched)));
        }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.more.notify_all();
    }
}

/// A thread. It ends with the launcher, that is with the host, or when another one has nothing to do.
fn work(shop: &Shop, queue: &Queue) {
    reexec::block_all_but_faults();
    let mut stack = None;
    while let Some(job) = queue.next() {
        let instance = job.instance().clone();
        let mut launched = Launched { job, cloned: None, outcome: Err(internal()), warnings: Vec::new() };
        // Whatever happens, there is an answer.
        if catch_unwind(AssertUnwindSafe(|| launch(shop, &mut stack, &mut launched))).is_err() {
            launched.end_child();
        }
        queue.lock().busy.remove(&instance);
        // Nobody listens only when the host is gone: then the queue is closed.
        let _ = shop.wakes.send(Wake::Launched(Box::new(launched)));
    }
}

fn internal() -> SpawnFailure {
    Failed::plain("preparing the command", "uphold itself has failed; its log says where".to_owned())
}

fn launch(shop: &Shop, stack: &mut Option<Stack>, launched: &mut Launched) {
    let outcome = match &launched.job {
        Job::Main(order, slot) => {
            let (order, slot, marker) = (order.clone(), *slot, marker(order, &shop.settings.token));
            let role = if order.foreground { Role::Foreground } else { Role::Main(&marker) };
            prepare(&shop.settings, &order.unit, &order.unit.command, role, &shop.ignored)
                .and_then(|prepared| main(shop, stack, launched, &order, slot, prepared))
        }
        // A mount that was dead for a while must not let loose all attempts that were given up meanwhile.
        job @ Job::Probe(_) if job.given_up() => Err(internal()),
        Job::Probe(job) => {
            let (order, slot) = (job.order.clone(), job.slot);
            let marker = probe_marker(exec::run_of(job.id), &shop.settings.token);
            prepare(&shop.settings, &order.unit, &order.command, Role::Probe(&marker), &shop.ignored)
                .and_then(|prepared| probe(shop, stack, launched, &order.unit, slot, prepared))
        }
    };
    launched.outcome = outcome;
}

/// What the cgroup and the FIFOs of a run are called.
pub(super) fn stem(instance: &Name, run: Run) -> String {
    format!("{instance}.{run}")
}

/// The value of UPHOLD_RUN.
pub(super) fn marker(order: &Order, token: &str) -> String {
    format!("{}:{}:{token}", order.instance, order.run)
}

/// The value of UPHOLD_PROBE, by which an attempt is known that uphold did not live to look at.
pub(super) fn probe_marker(attempt: Run, token: &str) -> String {
    format!("{attempt}:{token}")
}

fn main(
    shop: &Shop,
    stack: &mut Option<Stack>,
    launched: &mut Launched,
    order: &Order,
    slot: Option<&'static Slot>,
    mut prepared: Prepared,
) -> Result<Started, SpawnFailure> {
    launched.warnings.append(&mut prepared.warnings);
    let stem = stem(&order.instance, order.run);
    let owner = (prepared.identity.uid, prepared.identity.gid);
    let mut ends = Ends::default();
    if !order.foreground {
        ends = Ends::open(&shop.settings, &order.unit, &stem, owner).map_err(|error| {
            let mut failure = Failed::io("opening its output", "", &error);
            // Somebody has removed the directory: it is put back.
            failure.passing |= error.raw_os_error() == Some(libc::ENOENT);
            failure
        })?;
        prepared.image.stdio = Some(ends.stdio());
    }
    if let Some(error) = &ends.refused
        && shop.settings.pipes.as_ref().is_some_and(|pipes| pipes.is_new())
    {
        launched.warnings.push(format!(
            "cannot make a FIFO in the runtime directory: {error}; should uphold be killed, nobody reads what \
             services write"
        ));
    }
    let mut made = match shop.base.as_ref().map(|base| base.leaf(&stem)) {
        Some(Ok(made)) => Some(made),
        Some(Err(error)) => {
            launched
                .warnings
                .push(format!("cannot make a cgroup: {error}; its processes are found by other means"));
            None
        }
        None => None,
    };
    let into = made.as_ref().map(|(_, into)| into);
    failpoint::reach("cloning");
    let born = start(shop, stack, launched, &order.unit, &prepared, into, slot);
    failpoint::reach("cloned");
    let (pid, outside) = match born {
        Ok(born) => born,
        Err(failure) => {
            if let Some((leaf, _)) = &made {
                leaf.remove();
            }
            ends.unlink();
            return Err(failure);
        }
    };
    if let Some(errno) = outside {
        launched
            .warnings
            .push(format!("cannot enter its cgroup: {errno}; its processes are found by other means"));
        if let Some((leaf, _)) = made.take() {
            leaf.remove();
        }
    }
    record_birth(slot, pid, owner.0);
    failpoint::reach("born");
    Ok(Started { pid, uid: owner.0, leaf: made.map(|(leaf, _)| leaf), output: ends.captured })
}

fn probe(
    shop: &Shop,
    stack: &mut Option<Stack>,
    launched: &mut Launched,
    unit: &Unit,
    slot: Option<&'static Slot>,
    mut prepared: Prepared,
) -> Result<Started, SpawnFailure> {
    let failed = |error| Failed::io("opening its output", "", &error);
    let owner = (prepared.identity.uid, prepared.identity.gid);
    let pair = fifo::anonymous(Stream::Stdout, owner).map_err(failed)?;
    let null = null().map_err(failed)?;
    let output = pair.child.as_raw_fd();
    prepared.image.stdio = Some([null.as_raw_fd(), output, output]);
    let (pid, _) = start(shop, stack, launched, unit, &prepared, None, slot)?;
    failpoint::reach("probe-cloned");
    record_birth(slot, pid, owner.0);
    Ok(Started { pid, uid: owner.0, leaf: None, output: vec![pair.captured] })
}

/// It executes its command. When it started it has said itself, unless it could not look.
fn record_birth(slot: Option<&Slot>, pid: i32, uid: u32) {
    let Some(slot) = slot else { return };
    let start = match slot.started(pid) {
        0 => kin::started(pid),
        start => start,
    };
    slot.born(pid, start, uid);
}

fn start(
    shop: &Shop,
    stack: &mut Option<Stack>,
    launched: &mut Launched,
    unit: &Unit,
    prepared: &Prepared,
    into: Option<&Into>,
    slot: Option<&'static Slot>,
) -> Result<(i32, Option<Errno>), SpawnFailure> {
    let mapped = match stack.take() {
        Some(mapped) => mapped,
        None => Stack::new().map_err(|errno| explain(unit, prepared, Stage::Clone, errno))?,
    };
    let mapped = stack.insert(mapped);
    // Counted before there can be a child.
    let child = launched.cloned.insert(shop.cloning.begin());
    // No handler of uphold's may run in the child. A fault of this thread is handled again after that.
    sys::block_all_signals();
    let born = spawn::start(mapped, &prepared.image, into, child, slot);
    reexec::block_all_but_faults();
    match born {
        Ok(born) => Ok((born.pid, born.outside)),
        Err((stage, errno)) => {
            // There is no child any more. A successor that has not heard of this tries again, and hears it, too.
            if let Some(slot) = slot {
                slot.pid.store(0, Ordering::SeqCst);
            }
            child.store(0, Ordering::SeqCst);
            Err(explain(unit, prepared, stage, errno))
        }
    }
}

/// A child's stdin, stdout and stderr, and what uphold reads of them.
#[derive(Debug, Default)]
struct Ends {
    child: Vec<std::os::fd::OwnedFd>,
    /// Indices into `child`.
    out: usize,
    err: usize,
    captured: Vec<Captured>,
    /// Why there is no FIFO although there is a directory.
    refused: Option<std::io::Error>,
}

impl Ends {
    fn open(settings: &Settings, unit: &Unit, stem: &str, owner: (u32, u32)) -> std::io::Result<Ends> {
        let mut ends = Ends { child: vec![null()?], ..Ends::default() };
        let opened = ends.open_output(settings, unit, stem, owner).and_then(|()| ends.leave_room());
        if opened.is_err() {
            ends.unlink();
        }
        opened.map(|()| ends)
    }

    fn open_output(
        &mut self,
        settings: &Settings,
        unit: &Unit,
        stem: &str,
        owner: (u32, u32),
    ) -> std::io::Result<()> {
        if unit.logs.stdout != Some(Output::Null) {
            self.out = self.capture(settings, stem, Stream::Stdout, owner)?;
        }
        self.err = match &unit.logs.stderr {
            None => self.out,
            Some(Output::Null) => 0,
            Some(Output::File | Output::Path(_) | Output::Inherit) => {
                self.capture(settings, stem, Stream::Stderr, owner)?
            }
        };
        Ok(())
    }

    fn capture(
        &mut self,
        settings: &Settings,
        stem: &str,
        stream: Stream,
        owner: (u32, u32),
    ) -> std::io::Result<usize> {
        // Its log file is opened later, when other starts may have looked what is left.
        let room = self.child.first().map(std::os::fd::OwnedFd::try_clone).transpose()?;
        let made = settings.private.as_ref().map(|dir| fifo::make(dir, stem, stream, owner));
        let mut pair = match made {
            Some(Err(error)) if fifo::is_refused(&error) => {
                self.refused = Some(error);
                nameless(settings, stem, stream, owner)?
            }
            Some(made) => made?,
            None => nameless(settings, stem, stream, owner)?,
        };
        pair.captured.room = room;
        self.captured.push(pair.captured);
        self.child.push(pair.child);
        Ok(self.child.len() - 1)
    }

    /// An error if this start would take the last descriptors. Services hold theirs for as long as they run:
    /// without this, no client could come in to stop one.
    fn leave_room(&self) -> std::io::Result<()> {
        let spare = |_| self.child.first().map(std::os::fd::OwnedFd::try_clone).transpose();
        (0..SPARE).map(spare).collect::<std::io::Result<Vec<_>>>().map(drop)
    }

    fn stdio(&self) -> [i32; 3] {
        let raw = |index: usize| self.child.get(index).map_or(-1, AsRawFd::as_raw_fd);
        [raw(0), raw(self.out), raw(self.err)]
    }

    fn unlink(&self) {
        for path in self.captured.iter().filter_map(|captured| captured.path.as_ref()) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A pipe that passes over to the next image all the same.
fn nameless(
    settings: &Settings,
    stem: &str,
    stream: Stream,
    owner: (u32, u32),
) -> std::io::Result<fifo::Pair> {
    let pair = fifo::anonymous(stream, owner)?;
    if let Some(pipes) = &settings.pipes {
        pipes.note(&pair.captured.pipe, &fifo::name(stem, stream))?;
    }
    Ok(pair)
}

/// /dev/null, for reading and writing.
fn null() -> std::io::Result<std::os::fd::OwnedFd> {
    let opened = std::fs::File::options().read(true).write(true).open("/dev/null");
    // A container without /dev; every other error keeps its number, which says whether it passes.
    let file = opened.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => std::io::Error::new(error.kind(), "there is no /dev/null"),
        _ => error,
    })?;
    sys::above_stdio(file.into())
}
