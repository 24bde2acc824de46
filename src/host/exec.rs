//! Exec probes: one command, its output read to its end and kept to a limit, its group killed after it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, Weak};

use tokio::io::unix::AsyncFd;

use super::slots::Slot;
use super::{ExecOrder, Host, News, Wake, launch, sys};
use crate::engine::{Exit, Run, SpawnFailure};
use crate::task::Task;
use crate::unit::{Name, ProbeKind, Signal};

/// As much of its output is kept.
const KEPT: usize = 10_240;
/// As much is read at once at its end: more than any pipe of this host holds is not its own any more.
const MOST_AT_END: usize = 2 << 20;

/// An order with the number of its attempt.
#[derive(Debug)]
pub(super) struct Job {
    pub id: u64,
    pub order: ExecOrder,
    /// For who comes after this uphold, to kill it.
    pub slot: Option<&'static Slot>,
    /// Dead once nobody waits for it any more.
    pub wanted: Weak<()>,
}

/// An attempt of which nothing was said yet.
#[derive(Debug)]
pub(super) struct Attempt {
    order: ExecOrder,
    /// Held while somebody waits for it.
    wanted: Arc<()>,
    /// Once it was started.
    pid: Option<i32>,
    output: Option<Reader>,
    _timer: Task,
}

impl Host {
    /// Runs an exec probe once; `Probed` follows, once, unless it is cancelled. The time-out counts from here.
    pub fn exec(&mut self, order: ExecOrder) {
        self.next_attempt += 1;
        let id = self.next_attempt;
        let (wakes, timeout) = (self.wakes.clone(), order.timeout);
        let timer = Task::spawn(async move {
            tokio::time::sleep(timeout).await;
            let _ = wakes.send(Wake::TimedOut(id));
        });
        let attempt =
            Attempt { order: order.clone(), wanted: Arc::new(()), pid: None, output: None, _timer: timer };
        let wanted = Arc::downgrade(&attempt.wanted);
        self.attempts.insert(id, attempt);
        // Without room for it the probe is tried all the same: it is killed at its time-out.
        let slot = self.slots.take(run_of(id)).ok().flatten();
        self.probing += 1;
        for job in self.prober.send(launch::Job::Probe(Job { id, order, slot, wanted })) {
            if let launch::Job::Probe(job) = job {
                self.slots.release(run_of(job.id));
                self.probing = self.probing.saturating_sub(1);
            }
        }
    }

    /// Kills a probe's attempt in flight; nothing is said of it.
    pub fn cancel_exec(&mut self, instance: &Name, kind: ProbeKind) {
        let cancelled: Vec<u64> = self
            .attempts
            .iter()
            .filter(|(_, attempt)| attempt.order.instance == *instance && attempt.order.kind == kind)
            .map(|(id, _)| *id)
            .collect();
        for id in cancelled {
            if let Some(attempt) = self.attempts.remove(&id) {
                attempt.kill();
            }
        }
    }

    /// A probe's command runs, or could not be started.
    pub(super) fn probe_launched(&mut self, id: u64, started: Result<(i32, Option<OwnedFd>), SpawnFailure>) {
        self.probing = self.probing.saturating_sub(1);
        match started {
            Ok((pid, pipe)) => {
                self.children.insert(pid, super::Role::Probe(id));
                match self.attempts.get_mut(&id) {
                    Some(attempt) => {
                        attempt.pid = Some(pid);
                        attempt.output = pipe.map(Reader::new);
                    }
                    // Cancelled or timed out before it began.
                    None => drop(sys::kill(-pid, Signal::KILL)),
                }
            }
            Err(failure) => {
                self.slots.release(run_of(id));
                if let Some(attempt) = self.attempts.remove(&id) {
                    self.say_probed(attempt, Some(Err(failure)));
                }
            }
        }
    }

    /// Its command ended. It is still a zombie, so its group's number is its own.
    pub(super) fn probe_exited(&mut self, id: u64, pid: i32, exit: Exit) {
        let _ = sys::kill(-pid, Signal::KILL);
        self.slots.release(run_of(id));
        if let Some(attempt) = self.attempts.remove(&id) {
            self.say_probed(attempt, Some(Ok(exit)));
        }
    }

    /// Its time is over.
    pub(super) fn probe_timed_out(&mut self, id: u64) {
        // What ended in time has ended in time, even if both are heard of at once.
        self.reap();
        if let Some(attempt) = self.attempts.remove(&id) {
            attempt.kill();
            self.say_probed(attempt, None);
        }
    }

    fn say_probed(&self, attempt: Attempt, end: Option<Result<Exit, SpawnFailure>>) {
        let output = attempt.output.map(Reader::finish).unwrap_or_default();
        let ExecOrder { instance, run, kind, .. } = attempt.order;
        self.say(News::Probed { instance, run, kind, end, output });
    }
}

/// The number of an attempt's slot: not that of any main process.
pub(super) fn run_of(id: u64) -> Run {
    Run(id | PROBES)
}

/// Set in the number of every slot of a probe.
pub(super) const PROBES: u64 = 1 << 63;

impl Attempt {
    pub(super) fn kill(&self) {
        if let Some(pid) = self.pid {
            // Not reaped yet, or there would be no attempt any more.
            let _ = sys::kill(-pid, Signal::KILL);
        }
    }
}

/// Reads a command's output while it runs, so that it never waits for a reader.
#[derive(Debug)]
struct Reader {
    kept: Arc<Mutex<Vec<u8>>>,
    pipe: Arc<File>,
    _task: Option<Task>,
}

impl Reader {
    fn new(pipe: OwnedFd) -> Reader {
        let (pipe, kept) = (Arc::new(File::from(pipe)), Arc::default());
        let task = sys::readable(pipe.clone()).ok().map(|fd| Task::spawn(follow(fd, Arc::clone(&kept))));
        Reader { kept, pipe, _task: task }
    }

    /// What was read, and what is still in the pipe.
    fn finish(self) -> Vec<u8> {
        let mut taken = 0;
        while taken < MOST_AT_END
            && let Ok(length @ 1..) = read(&self.pipe, &self.kept)
        {
            taken += length;
        }
        self.kept.lock().map(|mut kept| std::mem::take(&mut *kept)).unwrap_or_default()
    }
}

async fn follow(fd: AsyncFd<Arc<File>>, kept: Arc<Mutex<Vec<u8>>>) {
    while let Ok(mut ready) = fd.readable().await {
        match ready.try_io(|fd| read(fd.get_ref(), &kept)) {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(_)) => tokio::task::yield_now().await,
            Err(_would_block) => {}
        }
    }
}

fn read(pipe: &File, kept: &Mutex<Vec<u8>>) -> io::Result<usize> {
    let mut buffer = [0; 16 << 10];
    let mut pipe = pipe;
    let length = pipe.read(&mut buffer)?;
    if let (Ok(mut kept), Some(new)) = (kept.lock(), buffer.get(..length)) {
        let room = KEPT.saturating_sub(kept.len());
        kept.extend(new.iter().take(room));
    }
    Ok(length)
}
