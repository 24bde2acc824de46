//! The host: the only unsafe, the only nix. It does what it is told and reports what happened.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::engine::{Exit, Run, SpawnFailure};
use crate::unit::{Name, ProbeKind, Scope, Signal, Unit};

/// Where the host works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The `private` directory below the runtime directory, 0700, for FIFOs; `None`: nothing is writable.
    pub private: Option<PathBuf>,
    /// Sixteen hex digits that mark this daemon's processes (UPHOLD_RUN=name:run:token).
    pub token: String,
    /// uphold's soft RLIMIT_NOFILE before it raised its own: what children get.
    pub nofile: Option<(u64, u64)>,
    /// `init` in a container: the working directory of a unit that names none; else `/`.
    pub default_dir: PathBuf,
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
    /// The FIFO's path, to be unlinked at EOF; `None`: an anonymous pipe.
    pub path: Option<PathBuf>,
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

/// The host. Lives on the deciding thread; nothing in it blocks.
pub struct Host {
    _settings: Settings,
    _news: mpsc::UnboundedSender<News>,
}

impl Host {
    /// Starts the spawning threads and looks what the machine has (cgroups, clone3).
    pub fn new(settings: Settings, news: mpsc::UnboundedSender<News>) -> Host {
        Host { _settings: settings, _news: news }
    }

    /// Starts a main process; `Spawned` or `SpawnFailed` follows, once.
    pub fn spawn(&mut self, _order: Order) {
        todo!()
    }

    /// Runs an exec probe once; `Probed` follows, once, unless it is cancelled.
    pub fn exec(&mut self, _order: ExecOrder) {
        todo!()
    }

    /// Kills a probe's attempt in flight; nothing is said of it.
    pub fn cancel_exec(&mut self, _instance: &Name, _kind: ProbeKind) {
        todo!()
    }

    /// A signal to the main process or its group. Nothing if it has ended.
    pub fn signal(&mut self, _instance: &Name, _run: Run, _signal: Signal, _to: Scope, _cont: bool) {
        todo!()
    }

    /// SIGTERM and SIGCONT to all that is left of a run.
    pub fn terminate(&mut self, _instance: &Name, _run: Run) {
        todo!()
    }

    /// SIGKILL to all of a run, or only to its main process.
    pub fn kill(&mut self, _instance: &Name, _run: Run, _main_only: bool) {
        todo!()
    }

    /// Says `Left` for a run of which something lives, its main process included.
    pub fn survey(&mut self, _instance: &Name, _run: Run) {
        todo!()
    }

    /// A signal to every process that descends from uphold; `Childless` follows once none is left.
    pub fn sweep(&mut self, _signal: Signal) {
        todo!()
    }

    /// Reaps every child that has ended. Call it on SIGCHLD.
    pub fn reap(&mut self) {
        todo!()
    }

    /// Removes what is held for an instance that is gone: its cgroup.
    pub fn forget(&mut self, _instance: &Name) {
        todo!()
    }

    /// Of the instance's cgroup; without one of its main process if `main_too`.
    pub fn usage(&self, _instance: &Name, _main_too: bool) -> Usage {
        todo!()
    }
}
