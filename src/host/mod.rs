//! The host: the only unsafe, the only nix. It does what it is told and reports what happened.
//!
//! ```text
//! spawn, exec ──▶ launch (threads of their own for main processes and probes): prepare, fifo, cgroup, spawn
//!                    └──▶ wakes ──▶ next() ──▶ runs, exec ──▶ News
//! SIGCHLD ──▶ reap() ──▶ runs, exec ──▶ News
//! ```
//!
//! Only the deciding thread reaps children that run, so the pid of one that it knows is never a stranger's.
//! What belongs to a run is known by its cgroup, else by `kin`.

mod adopt;
mod aside;
mod cgroup;
mod clients;
mod crash;
mod directory;
mod environment;
mod exec;
mod fifo;
mod gate;
mod guard;
mod hatch;
mod identity;
mod inherited;
mod kin;
mod launch;
mod left;
mod lock;
mod machine;
mod mapped;
mod memory;
mod open_dir;
mod patience;
mod pipes;
mod prepare;
mod reap;
mod reexec;
mod runs;
mod salvage;
mod signals;
mod slots;
mod spawn;
mod store;
mod stuck;
mod sys;
#[cfg(test)]
mod tests;
mod usage;
mod users;
mod watch;

pub use guard::Guard;
pub use lock::{Lock, LockError, lock_again, lock_runtime_dir, runtime_dir_before, wait_for_end};
pub use machine::{
    World, become_subreaper, expect_units, hear_ctrl_alt_del, ignore_terminal_stops, in_container, is_pid1,
    monotonic, mount_api_file_systems, now, own_start, peer, power_off, raise_loopback, raise_nofile,
    read_only_mount, reboot, survive_out_of_memory, terminal_columns, uid, world,
};

pub use mapped::{Mapped, waiting};
pub use users::Users;

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

pub use aside::clear_away;
pub use clients::{mark_read, mark_unread};
pub use crash::{
    CRASHES, Crashes, act, catch_crashes, crash_was_said, forgive, handle_faults, is_poison, renew_crashes,
    reports_fault, taking,
};
pub use fifo::{highest_run, is_refused};
pub use gate::{GATE, Gate};
pub use inherited::Inherited;
pub use left::{left_alive, own_alive, recorded_alive};
pub use memory::{count, memory, path_of};
pub use open_dir::OpenDir;
pub use patience::patiently;
pub use pipes::Pipes;
pub use reexec::{
    UNWRITTEN, begun, execute, execute_self, goes_on, open_descriptors, own_path, prepare_reexec,
};
pub use signals::{Heard, Signals};
pub use slots::Slots;
pub use store::{Deposit, Stored, stored_names};
pub use stuck::stuck_thread;
pub use sys::{NONBLOCK, read_file};

use crate::engine::{Exit, Run, SpawnFailure};
use crate::unit::{Name, ProbeKind, Unit};

/// Where the host works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The `private` directory below the runtime directory, 0700, for FIFOs; `None`: nothing is writable.
    pub private: Option<PathBuf>,
    /// For output that comes out of no FIFO; `None`: it does not outlive this image.
    pub pipes: Option<Arc<Pipes>>,
    /// Sixteen hex digits that mark this daemon's processes (UPHOLD_RUN=name:run:token).
    pub token: String,
    /// uphold's soft RLIMIT_NOFILE before it raised its own: what children get.
    pub nofile: Option<(u64, u64)>,
    /// uphold's own oom_score_adj before it lowered its own: what children get.
    pub oom_score_adj: Option<i32>,
    /// `init` in a container: the working directory of a unit that names none; else `/`.
    pub default_dir: PathBuf,
    /// There is a service manager that may keep descriptors for the next uphold.
    pub deposits: bool,
    /// A breach of trust in an environment file is a warning.
    pub trust: crate::unit::trust::Trust,
}

/// What is to be started as an instance's main process.
#[derive(Debug, Clone)]
pub struct Order {
    /// Whose.
    pub instance: Name,
    /// Which start.
    pub run: Run,
    /// As what.
    pub unit: Arc<Unit>,
    /// COMMAND of `init`: keeps fds 0 to 2, terminal, directory, environment and user; its own process
    /// group in the foreground of the terminal instead of a session.
    pub foreground: bool,
}

/// One attempt of an exec probe.
#[derive(Debug, Clone)]
pub struct ExecOrder {
    /// Whose.
    pub instance: Name,
    /// Which start.
    pub run: Run,
    /// Which probe.
    pub kind: ProbeKind,
    /// For user, environment, directory and limits.
    pub unit: Arc<Unit>,
    /// argv.
    pub command: Vec<String>,
    /// At its end the command's group is killed.
    pub timeout: Duration,
}

/// A stream of a new run, to be read by the log pump. EOF is the end of the run's output.
#[derive(Debug)]
pub struct Captured {
    /// Which.
    pub stream: Stream,
    /// The reading end, non-blocking, close-on-exec.
    pub pipe: OwnedFd,
    /// The FIFO's path, to be unlinked at EOF; `None`: an anonymous pipe, or it is gone already.
    pub path: Option<PathBuf>,
    /// It was held open since an uphold before, by a service manager or by that itself: nothing of it is lost.
    pub kept: bool,
    /// Keeps the descriptor free that its log file will take, for as long as it is here.
    pub room: Option<OwnedFd>,
}

/// Standard output or standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// And stderr with it, unless that is kept apart.
    Stdout,
    /// Kept apart.
    Stderr,
}

/// What the host has to say.
#[derive(Debug)]
pub enum News {
    /// The exec of a main process succeeded.
    Spawned {
        /// Whose.
        instance: Name,
        /// Which start.
        run: Run,
        /// Its pid.
        pid: u32,
        /// Its output.
        output: Vec<Captured>,
        /// For the service manager to keep.
        deposits: Vec<Deposit>,
    },
    /// What an uphold before has started was taken over; what there is to say of it follows.
    Resumed {
        /// Whose.
        instance: Name,
        /// Which start.
        run: Run,
        /// Its output from here on.
        output: Vec<Captured>,
        /// For the service manager to keep, beside what it has of this run.
        deposits: Vec<Deposit>,
    },
    /// It could not be started; the FIFOs are gone again.
    SpawnFailed {
        /// Whose.
        instance: Name,
        /// Which start.
        run: Run,
        /// Why.
        failure: SpawnFailure,
    },
    /// A main process ended.
    Exited {
        /// Whose.
        instance: Name,
        /// Which start.
        run: Run,
        /// How.
        exit: Exit,
    },
    /// These outlive it.
    Left {
        /// Whose.
        instance: Name,
        /// Which start.
        run: Run,
        /// For display.
        pids: Vec<u32>,
    },
    /// Nothing of it is left.
    Emptied {
        /// Whose.
        instance: Name,
        /// Which start.
        run: Run,
    },
    /// An exec probe's attempt ended.
    Probed {
        /// Whose.
        instance: Name,
        /// Which start.
        run: Run,
        /// Which probe.
        kind: ProbeKind,
        /// How its command ended or why it could not be started; `None`: killed at its time-out.
        end: Option<Result<Exit, SpawnFailure>>,
        /// The first 10240 bytes of stdout and stderr together.
        output: Vec<u8>,
    },
    /// After a sweep: uphold has no child left.
    Childless,
    /// Something to say once, as a lack of cgroups; for an instance or for uphold itself.
    Notice {
        /// Whose, if anyone's.
        instance: Option<Name>,
        /// An event's reason.
        reason: &'static str,
        /// In a sentence.
        message: String,
    },
}

impl News {
    /// What it is about: the same news of the same run has the same subject.
    pub fn subject(&self) -> (&'static str, Option<&Name>, Run) {
        match self {
            News::Spawned { instance, run, .. } => ("spawned", Some(instance), *run),
            News::Resumed { instance, run, .. } => ("resumed", Some(instance), *run),
            News::SpawnFailed { instance, run, .. } => ("spawn failed", Some(instance), *run),
            News::Exited { instance, run, .. } => ("exited", Some(instance), *run),
            News::Left { instance, run, .. } => ("left", Some(instance), *run),
            News::Emptied { instance, run } => ("emptied", Some(instance), *run),
            News::Probed { instance, run, .. } => ("probed", Some(instance), *run),
            News::Childless => ("childless", None, Run(0)),
            News::Notice { instance, reason, .. } => (reason, instance.as_ref(), Run(0)),
        }
    }
}

/// What a cgroup, or /proc for the main process, says of an instance.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// memory.current, or resident memory.
    pub memory_bytes: Option<u64>,
    /// cpu.stat usage_usec, or user and system time.
    pub cpu_seconds: Option<f64>,
    /// Processes in the cgroup, or threads of the main process.
    pub tasks: Option<u64>,
}

/// The host. Lives on the deciding thread, in its tokio runtime; nothing in it blocks.
///
/// What it has to say is sent as [`News`] in the order in which it holds. The daemon's loop awaits
/// [`next`](Host::next) beside everything else, and calls [`reap`](Host::reap) on each SIGCHLD.
pub struct Host {
    settings: Settings,
    slots: Slots,
    news: mpsc::UnboundedSender<News>,
    wakes: mpsc::UnboundedSender<Wake>,
    woken: mpsc::UnboundedReceiver<Wake>,
    launcher: launch::Launcher,
    prober: launch::Launcher,
    cloning: launch::Cloning,
    base: Option<cgroup::Base>,
    watcher: Option<watch::Watcher>,
    /// Every child that is known and not reaped.
    children: HashMap<i32, Role>,
    runs: BTreeMap<Key, runs::Living>,
    attempts: HashMap<u64, exec::Attempt>,
    next_attempt: u64,
    /// Starts of probes that were not heard of yet.
    probing: usize,
    /// Cgroups of runs that are over, some of which cannot be removed yet, and what tells when they can.
    garbage: Vec<(cgroup::Leaf, Option<watch::Watch>)>,
    sweeping: bool,
}

type Key = (Name, Run);

/// What a child is.
#[derive(Debug)]
enum Role {
    /// Of this run.
    Main(Key),
    /// Of this attempt, if that still matters to anyone.
    Probe(u64),
}

/// What wakes the host up.
#[derive(Debug)]
enum Wake {
    /// A spawning thread is done.
    Launched(Box<launch::Launched>),
    /// A child of the image before has executed its command, or has ended.
    Hatched(hatch::Egg),
    /// A cgroup has changed.
    Cgroups,
    /// A main process that is no child of uphold has ended.
    Ended(Key, Exit),
    /// Something that was left of this run without a cgroup has ended.
    Settle(Key),
    /// The time of this attempt is over.
    TimedOut(u64),
    /// Something may be waiting behind a start that hangs, on the launcher of this name.
    Stalled(&'static str),
}

impl Host {
    /// Looks what the machine has. A lack of cgroups is said as a `Notice`. `cgroups`: the directory in which
    /// an uphold before has made those of its runs.
    pub fn new(
        settings: Settings,
        slots: Slots,
        cgroups: Option<&Path>,
        news: mpsc::UnboundedSender<News>,
    ) -> Host {
        let there = cgroups.and_then(cgroup::Base::existing);
        let base = there.map_or_else(|| cgroup::Base::new(&settings.token), Ok);
        if let Err(lack) = &base {
            let known = if kin::proc_is_of_this_namespace() {
                "their processes are known by session, descent and UPHOLD_RUN; what leaves all of these cannot be found"
            } else {
                kin::FOREIGN
            };
            let message = format!("no cgroup of its own for each service ({lack}): {known}");
            let _ = news.send(News::Notice { instance: None, reason: "NoCgroups", message });
        }
        Host::with_base(settings, slots, news, base.ok())
    }

    fn with_base(
        settings: Settings,
        slots: Slots,
        news: mpsc::UnboundedSender<News>,
        base: Option<cgroup::Base>,
    ) -> Host {
        let (wakes, woken) = mpsc::unbounded_channel();
        let cloning = launch::Cloning::default();
        let shop = launch::Shop {
            settings: settings.clone(),
            base: base.clone(),
            wakes: wakes.clone(),
            cloning: cloning.clone(),
            ignored: sys::ignored_signals().into(),
        };
        Host {
            settings,
            slots,
            news,
            wakes,
            woken,
            launcher: launch::Launcher::new(shop.clone(), "spawn"),
            prober: launch::Launcher::new(shop, "spawn-probes"),
            cloning,
            base,
            watcher: None,
            children: HashMap::new(),
            runs: BTreeMap::new(),
            attempts: HashMap::new(),
            next_attempt: 0,
            probing: 0,
            garbage: Vec::new(),
            sweeping: false,
        }
    }

    /// Waits until something comes that is not SIGCHLD: a start was done, a cgroup has emptied, a probe's
    /// time is over; and deals with it. Await it for ever, one call after the other. Cancel-safe. What there
    /// is to say of it was sent as `News` when it returns.
    pub async fn next(&mut self) {
        match self.woken.recv().await {
            Some(Wake::Launched(launched)) => self.launched(*launched),
            Some(Wake::Hatched(egg)) => self.hatched(egg),
            Some(Wake::Cgroups) => {
                self.settle_all(false);
                self.collect_garbage();
            }
            Some(Wake::Ended(key, exit)) => {
                if let Some(slot) = self.slots.get(key.1) {
                    slot.ended(exit);
                }
                self.main_exited(key, exit);
            }
            Some(Wake::Settle(key)) => self.settle(&key),
            Some(Wake::TimedOut(id)) => self.probe_timed_out(id),
            Some(Wake::Stalled(name)) => {
                for launcher in [&mut self.launcher, &mut self.prober] {
                    launcher.look(name);
                }
            }
            // Cannot be: the host holds a sender.
            None => std::future::pending().await,
        }
    }

    /// Starts a main process; `Spawned` or `SpawnFailed` follows, once.
    pub fn spawn(&mut self, order: Order) {
        match self.slots.take(order.run) {
            Ok(slot) => drop(self.launcher.send(launch::Job::Main(order, slot))),
            Err(error) => self.refuse(order, &error),
        }
    }

    /// Does not start a main process, because what has to be known of it cannot be recorded: `SpawnFailed`
    /// follows, which passes.
    pub fn refuse(&mut self, order: Order, error: &std::io::Error) {
        let failure = SpawnFailure {
            stage: "recording the start".to_owned(),
            message: format!("{error}: nobody would find it again if uphold were killed"),
            passing: true,
            code: 126,
        };
        self.say(News::SpawnFailed { instance: order.instance, run: order.run, failure });
    }

    /// Everything that was said of this run is on record: what was kept of it may go.
    pub fn release(&mut self, run: Run) {
        self.slots.release(run);
    }

    /// What is known of processes is in memory: for another image, and no other uphold.
    pub fn is_kept_in_memory(&self) -> bool {
        self.slots.are_in_memory()
    }

    /// What is known of processes is in this private directory, where the next uphold looks for it.
    pub fn is_kept_in(&self, private: &Path) -> bool {
        self.slots.are_in(private)
    }

    /// Somebody has removed it from there: puts it back, in full. On an error it is to be tried again.
    pub fn keep_anew(&mut self, private: &Path) -> std::io::Result<()> {
        self.slots.renew(private)
    }

    /// The same for what is kept of single runs.
    pub fn put_back(&self) {
        for living in self.runs.values() {
            if let runs::FoundBy::Kin(kin) = &living.found_by {
                kin.put_back();
            }
        }
    }

    /// The directory in which the cgroups of all runs are; `None`: there are none.
    pub fn cgroups(&self) -> Option<&Path> {
        self.base.as_ref().map(cgroup::Base::path)
    }

    /// Kills every probe in flight, also one that is just being started: after uphold's end nobody would.
    /// Bound it: a start may hang on a dead mount.
    pub async fn finish(&mut self) {
        for (_, attempt) in self.attempts.drain() {
            attempt.kill();
        }
        while self.probing > 0 {
            self.next().await;
        }
    }

    /// Removes what is held for an instance that is gone: its cgroup.
    pub fn forget(&mut self, _instance: &Name) {
        // A run's cgroup goes with its last process. This is for those that could not be removed then.
        self.collect_garbage();
    }

    fn say(&self, news: News) {
        // Nobody listens only when the daemon is ending.
        let _ = self.news.send(news);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // One in which something lives stays.
        self.collect_garbage();
        for living in self.runs.values() {
            if let runs::FoundBy::Cgroup(leaf) = &living.found_by {
                leaf.remove();
            }
        }
        if let Some(base) = &self.base {
            base.remove();
        }
    }
}
