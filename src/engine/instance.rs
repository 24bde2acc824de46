//! One instance: the states it can be in, each with what exists in it, and the facts that others go by.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::backoff::Backoff;
use super::endpoints::Offer;
use super::input::{Effect, Exit, Run, SpawnFailure};
use super::probes::Workers;
use super::random::Random;
use super::time::{Mono, Time, Wall};
use super::view::{EventKind, ExitReason, LastExit, Wanted};
use super::{Settings, events::Events};
use crate::unit::{Kind, Name, ProbeKind, Unit};

/// How many exits are shown.
const EXITS: usize = 10;

/// One running copy of a unit, or the place for one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Instance {
    pub(super) name: Name,
    /// What is in effect: the process's own keys as it was started, all others as they were last loaded.
    pub(super) unit: Arc<Unit>,
    /// What the next process is started as, where that differs.
    pub(super) pending: Option<Arc<Unit>>,
    pub(super) masked: bool,
    /// Its file is gone.
    pub(super) removed: bool,
    pub(super) wanted: Wanted,
    pub(super) state: State,
    /// The entry into the state.
    pub(super) since: Time,
    pub(super) backoff: Backoff,
    /// Automatic restarts.
    pub(super) restarts: u64,
    /// Since it was last asked for, it was up once or a start of it came to nothing: who only wants it no
    /// longer waits.
    pub(super) tried: bool,
    pub(super) last_run: Option<Run>,
    /// The end of the last run of which nothing is left: what is decided by.
    pub(super) ended: Option<Ended>,
    /// The last ends of main processes, oldest first: what is shown.
    pub(super) exits: VecDeque<LastExit>,
    /// It has just become `failed` or `completed`: `on_end` is looked at once.
    pub(super) final_end: bool,
    /// What it requires only since its file was read again, and was not up then: what runs goes on without it
    /// until it was up.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) spared: BTreeSet<Name>,
    /// What it showed to others when they last looked.
    #[serde(skip)]
    pub(super) shown: Face,
    /// What a proxy was last told of it.
    pub(super) offered: Option<Offer>,
    /// The deadline that stands in the engine's index.
    #[serde(skip)]
    pub(super) indexed: Option<Mono>,
}

/// Where an instance stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum State {
    /// Not running, and not to be started.
    Inactive(Idle),
    /// Wanted, and held back.
    Waiting(Waiting),
    /// Its main process was asked for and is not up.
    Starting(Box<Life>),
    /// Its main process is, or was, up.
    Running(Box<Life>),
    /// A group whose requirements are up.
    Assembled,
    /// Something of it is left, and is to go.
    Stopping(Box<Stopping>),
    /// Restarted by itself at that time.
    Backoff(Pause),
    /// Not restarted.
    Failed(Final),
    /// Ended with success, and not restarted.
    Completed,
}

/// Why it is not restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Final {
    ExceptCode,
    RestartLimit,
    /// The policy does not restart after such an end.
    Policy(ExitReason),
}

impl Final {
    /// In a word of the API's `reason`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Final::ExceptCode => "ExceptCode",
            Final::RestartLimit => "RestartLimit",
            Final::Policy(reason) => reason.as_str(),
        }
    }
}

/// Why an instance is inactive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Idle {
    NotAutostarted,
    StoppedByOperator,
    /// `reset` after it had failed.
    Reset,
    Masked,
    ShuttingDown,
    /// `update` stopped it: its file is gone.
    Removed,
}

/// What an instance waits for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Waiting {
    /// The first dependency in its way, once it was looked at.
    pub(super) on: Option<Name>,
    /// That one cannot come by itself.
    pub(super) blocked: bool,
    /// It ran, and was stopped because of a dependency or to be started again.
    pub(super) stopped: bool,
}

/// A restart that is due.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Pause {
    pub(super) until: Mono,
    /// It counts as a restart: not after a start that failed for want of something passing.
    pub(super) counts: bool,
}

/// One run of the main process, from the order to its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Life {
    pub(super) run: Run,
    /// When it was ordered: `start_timeout` counts from here.
    pub(super) asked: Mono,
    /// Once the host has said that it runs.
    pub(super) born: Option<Born>,
    /// Since when it is up.
    pub(super) up: Option<Mono>,
    /// `start_timeout` has passed, and has been said.
    pub(super) late: bool,
    /// What the probe that has it killed said last.
    pub(super) said: Option<String>,
}

/// A process that runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Born {
    pub(super) pid: u32,
    pub(super) at: Time,
    pub(super) workers: Workers,
}

/// The way to the end of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Stopping {
    pub(super) life: Life,
    pub(super) why: Why,
    pub(super) next: Next,
    pub(super) phase: Phase,
    /// Once the main process has ended.
    pub(super) ended: Option<Ended>,
}

/// What a run is ended by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Why {
    /// A request, a dependency or the shutdown.
    Asked,
    /// That probe has failed.
    Probe(ProbeKind),
    /// Itself: only what it left is being cleaned up.
    Itself,
}

/// What becomes of the instance when nothing of the run is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Next {
    Inactive(Idle),
    /// It starts again as soon as its dependencies let it.
    Again,
    /// As the restart policy has it.
    Policy,
}

/// How far a stop is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// What requires it goes first.
    Holding,
    /// The host has not answered the order yet; the signal follows when it does.
    Unborn { until: Mono },
    /// The main process was told. `None`: it has all the time it likes (COMMAND).
    Told { until: Option<Mono> },
    /// The main process is gone; the host is looking for what it left.
    Looking { until: Mono },
    /// What it left was told.
    Rest { until: Mono },
    /// SIGKILL was sent to all that is left.
    Killed { until: Mono },
    /// It is being asked what SIGKILL could not end.
    Surveyed { until: Mono },
    /// These could not be ended.
    Unkillable { pids: Vec<u32> },
}

/// How a run ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) run: Run,
    pub(super) how: How,
    pub(super) reason: ExitReason,
    pub(super) at: Time,
    /// From the exec to the end.
    pub(super) lived: Duration,
    /// So many processes outlived the main process.
    pub(super) left: usize,
    /// For a kill by a probe: what that said last.
    pub(super) said: Option<String>,
}

/// An exit, or a start that failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum How {
    Exit(Exit),
    NotStarted(SpawnFailure),
}

/// What others go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Face {
    /// What dependents wait for.
    pub(super) up: bool,
    /// Who only wants it need not wait (any more).
    pub(super) settled: bool,
    /// Who requires it has to go: it is down, and does not come back by itself at once.
    pub(super) gone: bool,
    /// Something of it runs that a stop could end.
    pub(super) occupied: bool,
    /// It is being stopped, or what is left of it is.
    pub(super) stopping: bool,
    /// It does not come up by itself.
    pub(super) blocked: bool,
}

/// What every decision needs and none owns.
pub(super) struct Step<'a> {
    pub(super) now: Time,
    pub(super) settings: &'a Settings,
    pub(super) effects: &'a mut Vec<Effect>,
    pub(super) events: &'a mut Events,
    pub(super) random: &'a mut Random,
    pub(super) runs: &'a mut u64,
}

impl Step<'_> {
    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(super) fn normal(&mut self, unit: &Name, reason: &'static str, message: &str) {
        self.event(unit, EventKind::Normal, reason, message);
    }

    pub(super) fn warning(&mut self, unit: &Name, reason: &'static str, message: &str) {
        self.event(unit, EventKind::Warning, reason, message);
    }

    pub(super) fn event(&mut self, unit: &Name, kind: EventKind, reason: &'static str, message: &str) {
        let event = self.events.record(self.now, unit, kind, reason, message);
        self.effects.push(Effect::Event(event));
    }
}

impl Instance {
    pub(super) fn new(now: Time, unit: Arc<Unit>, masked: bool) -> Instance {
        Instance {
            name: unit.name.clone(),
            unit,
            pending: None,
            masked,
            removed: false,
            wanted: Wanted::Down,
            state: State::Inactive(if masked { Idle::Masked } else { Idle::NotAutostarted }),
            since: now,
            backoff: Backoff::default(),
            restarts: 0,
            tried: false,
            last_run: None,
            ended: None,
            exits: VecDeque::new(),
            final_end: false,
            spared: BTreeSet::new(),
            shown: Face::default(),
            offered: None,
            indexed: None,
        }
    }

    pub(super) fn enter(&mut self, now: Time, state: State) {
        self.state = state;
        self.since = now;
    }

    /// The run that is on, in whatever state.
    pub(super) fn life(&self) -> Option<&Life> {
        match &self.state {
            State::Starting(life) | State::Running(life) => Some(life),
            State::Stopping(stopping) => Some(&stopping.life),
            State::Inactive(_)
            | State::Waiting(_)
            | State::Assembled
            | State::Backoff(_)
            | State::Failed(_)
            | State::Completed => None,
        }
    }

    /// The main process, while it lives.
    pub(super) fn main(&self) -> Option<(&Life, &Born)> {
        let over = matches!(&self.state, State::Stopping(stopping) if stopping.ended.is_some());
        self.life().filter(|_| !over).and_then(|life| Some((life, life.born.as_ref()?)))
    }

    pub(super) fn is_up(&self) -> bool {
        match &self.state {
            State::Running(_) | State::Assembled => true,
            State::Completed => self.unit.kind == Kind::Oneshot,
            State::Inactive(_)
            | State::Waiting(_)
            | State::Starting(_)
            | State::Stopping(_)
            | State::Backoff(_)
            | State::Failed(_) => false,
        }
    }

    /// What the readiness probe says; without one, yes once up; nothing where there is no service.
    pub(super) fn ready(&self) -> Option<bool> {
        match self.unit.kind {
            Kind::Oneshot | Kind::Group => return None,
            Kind::Simple => {}
        }
        match &self.state {
            State::Running(life) => {
                let probed = life.born.as_ref().and_then(|born| born.workers.ready());
                Some(probed.unwrap_or(true))
            }
            State::Inactive(_)
            | State::Waiting(_)
            | State::Starting(_)
            | State::Assembled
            | State::Stopping(_)
            | State::Backoff(_)
            | State::Failed(_)
            | State::Completed => Some(false),
        }
    }

    pub(super) fn face(&self) -> Face {
        let up = self.is_up();
        let down = |blocked| Face { up, settled: true, gone: !up, blocked, ..Face::default() };
        let busy = Face { up, settled: up || self.tried, occupied: true, ..Face::default() };
        match &self.state {
            State::Inactive(_) | State::Failed(_) | State::Completed => down(!up),
            State::Waiting(waiting) => Face {
                settled: self.tried || waiting.blocked,
                gone: waiting.stopped,
                blocked: waiting.blocked,
                ..Face::default()
            },
            State::Starting(_) | State::Running(_) | State::Assembled => busy,
            State::Backoff(_) => Face { occupied: false, ..busy },
            State::Stopping(stopping) => Face {
                gone: stopping.is_gone(),
                occupied: !matches!(stopping.phase, Phase::Unkillable { .. }),
                stopping: true,
                ..busy
            },
        }
    }

    /// When time alone changes something.
    pub(super) fn deadline(&self) -> Option<Mono> {
        match &self.state {
            State::Inactive(_)
            | State::Waiting(_)
            | State::Assembled
            | State::Failed(_)
            | State::Completed => None,
            State::Backoff(pause) => Some(pause.until),
            State::Starting(life) => {
                let late = self.unit.start_timeout.filter(|_| !life.late).map(|limit| life.asked + limit);
                let up = life.born.as_ref().and_then(|born| self.up_at(born));
                [late, up, life.probes_due()].into_iter().flatten().min()
            }
            State::Running(life) => life.probes_due(),
            State::Stopping(stopping) => {
                let phase = match &stopping.phase {
                    Phase::Holding | Phase::Unkillable { .. } => None,
                    Phase::Told { until } => *until,
                    Phase::Unborn { until }
                    | Phase::Looking { until }
                    | Phase::Rest { until }
                    | Phase::Killed { until }
                    | Phase::Surveyed { until } => Some(*until),
                };
                [phase, stopping.life.probes_due()].into_iter().flatten().min()
            }
        }
    }

    /// When a unit whose probes have no say is up.
    pub(super) fn up_at(&self, born: &Born) -> Option<Mono> {
        let by_itself =
            self.unit.kind == Kind::Simple && self.unit.readiness.is_none() && self.unit.startup.is_none();
        by_itself.then(|| born.at.mono + self.unit.up_after)
    }

    /// The status that uphold ends with where this is what ended it.
    pub(super) fn status(&self) -> Option<i32> {
        self.ended.as_ref().map(Ended::status)
    }

    /// Shows an end from now on: once a run, at the end of its main process, whatever is left of it.
    pub(super) fn show_end(&mut self, ended: &Ended, started: Option<Wall>) {
        if self.exits.len() >= EXITS {
            self.exits.pop_front();
        }
        self.exits.push_back(ended.shown(started));
    }
}

impl Stopping {
    /// SIGKILL was of no use.
    pub(super) fn is_unkillable(&self) -> bool {
        matches!(self.phase, Phase::Unkillable { .. })
    }

    /// Those that require it have to go. Not if it ended by itself, or by a probe, and comes back: not even
    /// if an operator says so before its policy does.
    pub(super) fn is_gone(&self) -> bool {
        match (self.next, self.why) {
            (Next::Inactive(_), Why::Asked | Why::Probe(_) | Why::Itself) | (Next::Again, Why::Asked) => true,
            (Next::Again, Why::Probe(_) | Why::Itself) => false,
            (Next::Policy, Why::Asked | Why::Probe(_) | Why::Itself) => false,
        }
    }
}

impl Life {
    pub(super) fn new(run: Run, now: Mono) -> Life {
        Life { run, asked: now, born: None, up: None, late: false, said: None }
    }

    fn probes_due(&self) -> Option<Mono> {
        self.born.as_ref().and_then(|born| born.workers.deadline())
    }

    pub(super) fn started(&self) -> Option<Wall> {
        self.born.as_ref().map(|born| born.at.wall)
    }

    /// From the exec to `now`.
    pub(super) fn age(&self, now: Mono) -> Duration {
        self.born.as_ref().map(|born| now - born.at.mono).unwrap_or_default()
    }
}

impl Ended {
    /// As a shell has it: the code, 128 and the signal, 126 or 127 for what could not be started.
    fn status(&self) -> i32 {
        match &self.how {
            How::Exit(Exit::Code(code)) => *code,
            How::Exit(Exit::Signal { signal, .. }) => 128 + signal.number(),
            How::Exit(Exit::Unknown) => 1,
            How::NotStarted(failure) => failure.code,
        }
    }

    fn shown(&self, started: Option<Wall>) -> LastExit {
        let (code, signal) = match &self.how {
            How::Exit(Exit::Code(code)) => (Some(*code), None),
            How::Exit(Exit::Signal { signal, .. }) => (None, Some(signal.name())),
            How::Exit(Exit::Unknown) => (None, None),
            How::NotStarted(failure) => (Some(failure.code), None),
        };
        LastExit { code, signal, reason: self.reason, started_at: started, finished_at: self.at.wall }
    }
}
