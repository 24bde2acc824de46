//! What the engine is told, and what it answers: the whole of its contact with the world.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::endpoints::Endpoints;
use super::view::{Changes, Done, Event};
use crate::plan::Plan;
use crate::unit::{Name, Probe, ProbeKind, Scope, Signal, Unit};

/// The number of a start of an instance, counted from 1 and never used again. News that carries an old one
/// is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Run(pub u64);

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Whose answer this is: given out by the daemon with a request, handed back with its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// One thing that happened. `instance` and `run` say to whom; a pid is for display only.
#[derive(Debug, Clone)]
pub enum Input {
    /// A deadline that [`next_deadline`](super::Engine::next_deadline) gave may have come.
    Tick,
    /// The host started the main process: its exec succeeded.
    Spawned {
        /// Whose.
        instance: Name,
        /// Which start.
        run: Run,
        /// For display.
        pid: u32,
    },
    /// The host could not start the main process; nothing of the run is left.
    SpawnFailed {
        /// Whose.
        instance: Name,
        /// Which start.
        run: Run,
        /// At which stage, and why.
        failure: SpawnFailure,
    },
    /// The main process ended. Exactly once a run, after `Spawned`; then `Left` or `Emptied` follow.
    Exited {
        /// Whose.
        instance: Name,
        /// Which start.
        run: Run,
        /// How.
        exit: Exit,
    },
    /// After `Exited`, or as the answer to [`Effect::Survey`]: these processes of the run live on.
    Left {
        /// Whose.
        instance: Name,
        /// Which start.
        run: Run,
        /// For display; never empty.
        pids: Vec<u32>,
    },
    /// The main process ended and nothing of the run is left. Exactly once a run, the last news of it
    /// (with `stop.leave` it comes right after `Exited`).
    Emptied {
        /// Whose.
        instance: Name,
        /// Which start.
        run: Run,
    },
    /// An attempt that [`Effect::Probe`] asked for came to its end.
    Probed {
        /// Whose.
        instance: Name,
        /// Which start.
        run: Run,
        /// Which probe.
        kind: ProbeKind,
        /// How it went.
        outcome: Outcome,
    },
    /// Something beside the state went wrong or right for a unit; it becomes an event as it stands.
    Notice {
        /// Whose.
        instance: Name,
        /// An event's reason, as `LogWriteFailed`.
        reason: &'static str,
        /// `true`: a Warning.
        warning: bool,
        /// In a sentence.
        message: String,
    },
    /// The same of uphold itself.
    Own {
        /// An event's reason, as `Crashed`.
        reason: &'static str,
        /// `true`: a Warning.
        warning: bool,
        /// In a sentence.
        message: String,
    },
    /// New files were read and are right: the first plan, `daemon-reload`, or `update`.
    Load {
        /// What they say.
        plan: Arc<Plan>,
        /// Whether what changed is restarted and what is gone is stopped (`update`).
        update: bool,
        /// Who waits for the [`Answer`], if anyone.
        ticket: Option<Ticket>,
    },
    /// What the daemon config says of uphold itself changed. Nothing changes once the end has begun.
    Configure {
        /// [`Settings::main`](super::Settings::main)
        main: Option<Name>,
        /// [`Settings::shutdown_timeout`](super::Settings::shutdown_timeout)
        shutdown_timeout: Option<Duration>,
    },
    /// What an operator asks for. All names exist: the daemon has looked.
    Command {
        /// What.
        verb: Verb,
        /// On which instances.
        instances: Vec<Name>,
        /// How long the answer may take, where [`Verb`] allows a choice.
        timeout: Option<Duration>,
        /// `false`: answer at once, with what was begun.
        wait: bool,
        /// Who waits for the answer.
        ticket: Ticket,
    },
    /// Who waited for this answer is gone, and no answer follows; what was asked for goes on.
    Gone {
        /// Whose.
        ticket: Ticket,
    },
    /// Stop everything in order and end; the second one kills at once.
    Shutdown,
    /// The same, and the machine starts again after it: Ctrl-Alt-Del.
    Reboot,
    /// uphold itself got a signal in `init -- COMMAND`: it is COMMAND's.
    Forward(Signal),
    /// After [`Effect::Sweep`]: no child of uphold is left.
    Childless,
}

impl Input {
    /// What it is, in a word.
    pub fn name(&self) -> &'static str {
        match self {
            Input::Tick => "tick",
            Input::Spawned { .. } => "spawned",
            Input::SpawnFailed { .. } => "spawn-failed",
            Input::Exited { .. } => "exited",
            Input::Left { .. } => "left",
            Input::Emptied { .. } => "emptied",
            Input::Probed { .. } => "probed",
            Input::Notice { .. } => "notice",
            Input::Own { .. } => "own",
            Input::Load { .. } => "load",
            Input::Configure { .. } => "configure",
            Input::Command { .. } => "command",
            Input::Gone { .. } => "gone",
            Input::Shutdown => "shutdown",
            Input::Reboot => "reboot",
            Input::Forward(_) => "forward",
            Input::Childless => "childless",
        }
    }
}

/// What an operator can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Want it up, now. Answered when it is up and, without probes, one second more; or when it cannot be.
    Start,
    /// Want it down. Answered when nothing of it is left.
    Stop,
    /// Stop what runs, then start. Answered as a start.
    Restart,
    /// Forget backoff, run of restarts and `failed`; what waits in backoff starts now.
    Reset,
    /// Send a signal to the main process. Answered at once.
    Signal(Signal),
    /// Do nothing but wait for a goal.
    Wait(Goal),
}

/// What `ctl wait --for` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// *up*, as dependents mean it.
    Up,
    /// Ready.
    Ready,
    /// Nothing of it runs, and nothing is due to.
    Stopped,
    /// `failed`.
    Failed,
}

/// Why a main process could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpawnFailure {
    /// What was being set up, in words that follow "cannot start web: ", as `setting the user`.
    pub stage: String,
    /// Why, in a sentence, as `no user named wwww-data`. It may name a program or a file, and has in it neither
    /// an argument nor what stands in an environment file: everybody who may look reads it.
    pub message: String,
    /// For want of something passing (EAGAIN, ENOMEM, EMFILE, ENFILE, ETXTBSY): tried again, no crash.
    pub passing: bool,
    /// 127 where the command was not found, else 126: what a shell would exit with.
    pub code: i32,
}

/// How a main process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// exit(3) with this code, 0 to 255.
    Code(i32),
    /// By this signal.
    Signal {
        /// Which.
        signal: Signal,
        /// The kernel's out-of-memory killer sent it, as the cgroup counts them.
        oom: bool,
    },
    /// Nobody saw it.
    Unknown,
}

/// One attempt of a probe. Everybody who may look reads the texts: no argument of a command stands in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It passed.
    Success,
    /// It passed, and there is something to say.
    Warning(String),
    /// It failed; the text is the kubelet's, less a command's arguments.
    Failure(String),
    /// The supervisor could not try (EMFILE, ENOMEM, EAGAIN): thrown away.
    Error(String),
}

/// One thing to do. Effects are carried out in order.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Start the main process. Answered by `Spawned` or `SpawnFailed`, once.
    Spawn {
        /// Whose.
        instance: Name,
        /// Which start.
        run: Run,
        /// As what.
        unit: Arc<Unit>,
    },
    /// Send a signal to the main process or its group, while it lives.
    Signal {
        /// Whose.
        instance: Name,
        /// Which start.
        run: Run,
        /// Which.
        signal: Signal,
        /// To whom.
        to: Scope,
        /// Follow it with SIGCONT: a stop must reach a stopped process.
        cont: bool,
    },
    /// SIGTERM and SIGCONT to all that is left of the run after its main process.
    Terminate {
        /// Whose.
        instance: Name,
        /// Which start.
        run: Run,
    },
    /// SIGKILL.
    Kill {
        /// Whose.
        instance: Name,
        /// Which start.
        run: Run,
        /// Only the main process (`stop.leave`), not all that is left of the run.
        main_only: bool,
    },
    /// Say what is left of the run: `Left`, or nothing if `Emptied` was or is being said.
    Survey {
        /// Whose.
        instance: Name,
        /// Which start.
        run: Run,
    },
    /// Try once; answered by `Probed`, once, unless the run's probes are cancelled before.
    Probe {
        /// Whose.
        instance: Name,
        /// Which start.
        run: Run,
        /// Which probe.
        kind: ProbeKind,
        /// What to try, and how long.
        probe: Arc<Probe>,
        /// For exec: user, environment and directory.
        unit: Arc<Unit>,
    },
    /// Give up this probe's attempt in flight and say nothing of it.
    CancelProbe {
        /// Whose.
        instance: Name,
        /// Which start.
        run: Run,
        /// Which probe.
        kind: ProbeKind,
    },
    /// The keys in effect changed without a new process: pass on what the adapters hold of it (`[logs]`).
    Applied {
        /// Whose.
        instance: Name,
        /// The unit now in effect.
        unit: Arc<Unit>,
    },
    /// The instance is gone from the plan and nothing of it runs: forget what is held for it.
    Forget {
        /// Whose.
        instance: Name,
    },
    /// Where a service can be reached, and whether it should be, is not what it was.
    Endpoints {
        /// Whose.
        instance: Name,
        /// What is so now; `None`: there is no service any more.
        endpoints: Option<Box<Endpoints>>,
    },
    /// An event was recorded or counted on.
    Event(Event),
    /// A request came to its end. Once a ticket, unless its asker was `Gone` before.
    Answer {
        /// Whose.
        ticket: Ticket,
        /// With what.
        answer: Answer,
    },
    /// `init` only: this signal to every process that is left, then say `Childless` when none is.
    Sweep(Signal),
    /// All is done: end with this status.
    Exit(i32),
}

/// How a request ended.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A [`Verb`]: what came of it for each instance.
    Done(Vec<Done>),
    /// A [`Input::Load`]: what it changed.
    Loaded(Box<Changes>),
}
