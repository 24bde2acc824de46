//! The way down: signal, time, SIGKILL, and the report of what even that cannot end.

use std::time::Duration;

use super::input::{Effect, Run};
use super::instance::{Idle, Instance, Life, Next, Phase, State, Step, Stopping, Waiting, Why};
use super::words;
use crate::unit::ProbeKind;

/// How long SIGKILL may take before what is left is reported.
const KILL: Duration = Duration::from_secs(10);
/// How long the host may take to name it.
const SURVEY: Duration = Duration::from_secs(1);

impl Instance {
    /// Somebody wants it gone: the operator, a dependency, an update or the shutdown.
    pub(super) fn ask_stop(&mut self, step: &mut Step, next: Next) {
        let settled = match next {
            Next::Inactive(idle) => State::Inactive(idle),
            Next::Again | Next::Policy => State::Waiting(Waiting { stopped: true, ..Waiting::default() }),
        };
        match std::mem::replace(&mut self.state, State::Completed) {
            State::Starting(life) | State::Running(life) => {
                let message = format!("Stopping process {}", self.name);
                step.normal(&self.name, "Killing", &message);
                self.stop_life(step, *life, Why::Asked, next);
            }
            State::Stopping(mut stopping) => {
                if stopping.is_unkillable() {
                    // Its own end is long over: what follows is what is asked now.
                    stopping.why = Why::Asked;
                }
                stopping.next = match (stopping.next, next) {
                    // It was to stay down without the shutdown, and does if that is forgotten.
                    (Next::Inactive(idle), Next::Inactive(Idle::ShuttingDown)) => Next::Inactive(idle),
                    (
                        Next::Inactive(_) | Next::Again | Next::Policy,
                        Next::Inactive(_) | Next::Again | Next::Policy,
                    ) => next,
                };
                self.state = State::Stopping(stopping);
            }
            State::Inactive(idle) => {
                let idle = match (idle, next) {
                    (Idle::Masked, _) => Idle::Masked,
                    (_, Next::Inactive(Idle::ShuttingDown)) => idle,
                    (_, Next::Inactive(newer)) => newer,
                    (_, Next::Again | Next::Policy) => idle,
                };
                self.state = State::Inactive(idle);
            }
            State::Failed(reason) if next == Next::Inactive(Idle::ShuttingDown) => {
                self.state = State::Failed(reason);
            }
            State::Completed if next == Next::Inactive(Idle::ShuttingDown) => self.state = State::Completed,
            State::Waiting(_)
            | State::Assembled
            | State::Backoff(_)
            | State::Failed(_)
            | State::Completed => {
                self.enter(step.now, settled);
            }
        }
    }

    /// A probe has failed for good.
    pub(super) fn kill_by_probe(&mut self, step: &mut Step, kind: ProbeKind) {
        match std::mem::replace(&mut self.state, State::Completed) {
            State::Starting(life) | State::Running(life) => {
                // Up for `reset_after`, it starts a new run of restarts as it ends.
                let rules = &self.unit.restart;
                let fresh = life.up.is_some_and(|up| step.now.mono - up >= rules.reset_after);
                let spent = !fresh && self.backoff.spent(rules);
                let message = words::killed_by_probe(&self.name, &self.unit, kind, spent);
                step.normal(&self.name, "Killing", &message);
                self.stop_life(step, *life, Why::Probe(kind), Next::Policy);
                self.tell(step);
            }
            other => self.state = other,
        }
    }

    fn stop_life(&mut self, step: &mut Step, mut life: Life, why: Why, next: Next) {
        if let Why::Probe(kind) = why {
            life.remember(kind);
        }
        life.quiet(&self.name, step);
        let stopping = Stopping { life, why, next, phase: Phase::Holding, ended: None };
        self.enter(step.now, State::Stopping(Box::new(stopping)));
    }

    /// What requires it is gone: the signal may go out.
    pub(super) fn release(&mut self, step: &mut Step) {
        let limit = self.unit.stop.timeout;
        let State::Stopping(stopping) = &mut self.state else { return };
        if stopping.phase != Phase::Holding {
            return;
        }
        if stopping.life.born.is_some() {
            self.tell(step);
        } else {
            stopping.phase = Phase::Unborn { until: step.now.mono + limit };
        }
    }

    /// The process that was ordered before the stop exists now.
    pub(super) fn born_to_be_stopped(&mut self, step: &mut Step) {
        let State::Stopping(stopping) = &self.state else { return };
        match &stopping.phase {
            Phase::Holding => {}
            Phase::Unborn { .. } => self.tell(step),
            Phase::Killed { .. } | Phase::Surveyed { .. } | Phase::Unkillable { .. } => self.kill(step),
            Phase::Told { .. } | Phase::Looking { .. } | Phase::Rest { .. } => {}
        }
    }

    /// The first signal of a stop.
    fn tell(&mut self, step: &mut Step) {
        let Some(limit) = self.limit(step) else {
            self.send(step, None);
            return;
        };
        if limit.is_zero() {
            self.kill(step);
        } else {
            self.send(step, Some(limit));
        }
    }

    /// What was started last is not what was asked for since.
    pub(super) fn is_another(&self) -> bool {
        self.pending.as_ref().is_some_and(|new| new.command != self.unit.command)
    }

    /// It is the COMMAND of an uphold before, and another one waits for its end.
    pub(super) fn gives_way(&self) -> bool {
        self.life().is_some() && self.is_another()
    }

    /// How long the main process may take; `None`: COMMAND, which takes as long as it likes, unless it is to
    /// give way.
    fn limit(&self, step: &Step) -> Option<Duration> {
        if step.settings.command.as_ref() == Some(&self.name) {
            return step.settings.command_timeout.or(self.gives_way().then_some(self.unit.stop.timeout));
        }
        let by_probe = match &self.state {
            State::Stopping(stopping) => match stopping.why {
                Why::Probe(kind) => self.unit.probe(kind).and_then(|probe| probe.stop_timeout),
                Why::Asked | Why::Itself => None,
            },
            State::Inactive(_)
            | State::Waiting(_)
            | State::Starting(_)
            | State::Running(_)
            | State::Assembled
            | State::Backoff(_)
            | State::Failed(_)
            | State::Completed => None,
        };
        Some(by_probe.unwrap_or(self.unit.stop.timeout))
    }

    fn send(&mut self, step: &mut Step, limit: Option<Duration>) {
        let State::Stopping(stopping) = &mut self.state else { return };
        stopping.phase = Phase::Told { until: limit.map(|limit| step.now.mono + limit) };
        step.effect(Effect::Signal {
            instance: self.name.clone(),
            run: stopping.life.run,
            signal: self.unit.stop.signal,
            to: self.unit.stop.scope,
            cont: true,
        });
    }

    /// SIGKILL, whatever the stop was waiting for.
    pub(super) fn kill(&mut self, step: &mut Step) {
        let main_only = self.unit.stop.leave;
        let State::Stopping(stopping) = &mut self.state else { return };
        stopping.phase = Phase::Killed { until: step.now.mono + KILL };
        step.effect(Effect::Kill { instance: self.name.clone(), run: stopping.life.run, main_only });
    }

    /// SIGKILL at once, unless it was sent already: the second Shutdown.
    pub(super) fn force(&mut self, step: &mut Step) {
        let State::Stopping(stopping) = &self.state else { return };
        match &stopping.phase {
            Phase::Holding
            | Phase::Unborn { .. }
            | Phase::Told { .. }
            | Phase::Looking { .. }
            | Phase::Rest { .. } => {
                self.kill(step);
            }
            Phase::Killed { .. } | Phase::Surveyed { .. } | Phase::Unkillable { .. } => {}
        }
    }

    /// These live on after the main process, or after SIGKILL.
    pub(super) fn left(&mut self, step: &mut Step, run: Run, pids: Vec<u32>) {
        let State::Stopping(stopping) = &mut self.state else { return };
        if stopping.life.run != run {
            return;
        }
        match &stopping.phase {
            Phase::Looking { until } => {
                let until = *until;
                if let Some(ended) = &mut stopping.ended {
                    ended.left = pids.len();
                }
                if until <= step.now.mono {
                    self.kill(step);
                } else {
                    stopping.phase = Phase::Rest { until };
                    step.effect(Effect::Terminate { instance: self.name.clone(), run });
                }
            }
            Phase::Surveyed { .. } => self.give_up(step, pids),
            Phase::Unkillable { pids: known } if known.is_empty() => self.give_up(step, pids),
            Phase::Holding
            | Phase::Unborn { .. }
            | Phase::Told { .. }
            | Phase::Rest { .. }
            | Phase::Killed { .. }
            | Phase::Unkillable { .. } => {}
        }
    }

    fn give_up(&mut self, step: &mut Step, pids: Vec<u32>) {
        let State::Stopping(stopping) = &mut self.state else { return };
        step.warning(&self.name, "Unkillable", &words::unkillable(&self.name, &pids));
        stopping.phase = Phase::Unkillable { pids };
    }

    /// A stop's deadline may have come.
    pub(super) fn advance_stop(&mut self, step: &mut Step) {
        let now = step.now.mono;
        let State::Stopping(stopping) = &mut self.state else { return };
        match &stopping.phase {
            Phase::Told { until: Some(until) }
            | Phase::Unborn { until }
            | Phase::Looking { until }
            | Phase::Rest { until }
                if *until <= now =>
            {
                self.kill(step);
            }
            Phase::Killed { until } if *until <= now => {
                let run = stopping.life.run;
                stopping.phase = Phase::Surveyed { until: now + SURVEY };
                step.effect(Effect::Survey { instance: self.name.clone(), run });
            }
            Phase::Surveyed { until } if *until <= now => self.give_up(step, Vec::new()),
            Phase::Holding
            | Phase::Told { .. }
            | Phase::Unborn { .. }
            | Phase::Looking { .. }
            | Phase::Rest { .. }
            | Phase::Killed { .. }
            | Phase::Surveyed { .. }
            | Phase::Unkillable { .. } => {}
        }
    }
}

impl Life {
    /// Keeps what a probe said last: its worker is about to go.
    fn remember(&mut self, kind: ProbeKind) {
        let worker = self.born.as_ref().and_then(|born| born.workers.get(kind));
        self.said = worker.map(|worker| worker.message.clone());
    }
}
