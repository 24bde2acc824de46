//! What happens to an instance from the order to start it to the end of its last process: one method for
//! each thing that the host or the clock can say.
//!
//! ```text
//! Waiting ──▶ Starting ──▶ Running ──▶ Stopping ──▶ Backoff ──▶ Waiting …
//!                └───────────────────────▲ └──▶ Inactive, Failed, Completed, Waiting
//! ```
//!
//! A main process that ended by itself passes through Stopping too: nothing follows a run before all that it
//! left behind is gone.

use super::input::{Effect, Exit, Outcome, Run, SpawnFailure};
use super::instance::{
    Born, Ended, Final, How, Instance, Life, Next, Pause, Phase, State, Step, Stopping, Waiting, Why,
};
use super::probes::{Verdict, Workers};
use super::view::ExitReason;
use super::words;
use crate::unit::{ExitMatch, Kind, Name, Policy, ProbeKind};

impl Instance {
    /// Nothing is in its way: order the main process.
    pub(super) fn start(&mut self, step: &mut Step) {
        if let Some(unit) = self.pending.take() {
            self.unit = unit;
        }
        match self.unit.kind {
            Kind::Group => {
                self.tried = true;
                self.enter(step.now, State::Assembled);
            }
            Kind::Simple | Kind::Oneshot => {
                *step.runs += 1;
                let run = Run(*step.runs);
                self.last_run = Some(run);
                self.enter(step.now, State::Starting(Box::new(Life::new(run, step.now.mono))));
                step.effect(Effect::Spawn { instance: self.name.clone(), run, unit: self.unit.clone() });
            }
        }
    }

    /// The exec succeeded.
    pub(super) fn spawned(&mut self, step: &mut Step, run: Run, pid: u32) {
        let born = Born { pid, at: step.now, workers: Workers::new(&self.unit, step.now.mono) };
        match &mut self.state {
            State::Starting(life) if life.run == run && life.born.is_none() => {
                life.born = Some(born);
                step.normal(&self.name, "Started", &format!("Started process {}", self.name));
                self.advance(step);
            }
            State::Stopping(stopping) if stopping.life.run == run && stopping.life.born.is_none() => {
                stopping.life.born = Some(born);
                stopping.life.quiet(&self.name, step);
                self.born_to_be_stopped(step);
            }
            State::Starting(_)
            | State::Stopping(_)
            | State::Inactive(_)
            | State::Waiting(_)
            | State::Running(_)
            | State::Assembled
            | State::Backoff(_)
            | State::Failed(_)
            | State::Completed => {}
        }
    }

    /// The host could not start it, and nothing of the run is left.
    pub(super) fn spawn_failed(&mut self, step: &mut Step, run: Run, failure: SpawnFailure) {
        let (next, why) = match &self.state {
            State::Starting(life) if life.run == run && life.born.is_none() => (Next::Policy, Why::Itself),
            State::Stopping(stopping) if stopping.life.run == run && stopping.life.born.is_none() => {
                (stopping.next, stopping.why)
            }
            State::Starting(_)
            | State::Stopping(_)
            | State::Inactive(_)
            | State::Waiting(_)
            | State::Running(_)
            | State::Assembled
            | State::Backoff(_)
            | State::Failed(_)
            | State::Completed => return,
        };
        let ended = Ended {
            run,
            how: How::NotStarted(failure),
            reason: ExitReason::SpawnFailed,
            at: step.now,
            lived: Default::default(),
            left: 0,
            said: None,
        };
        step.warning(&self.name, "SpawnFailed", &words::ended(&self.name, &ended));
        self.show_end(&ended, None);
        self.ended = Some(ended);
        self.follow(step, next, why);
    }

    /// The main process ended. What it left behind is still to be heard of.
    pub(super) fn exited(&mut self, step: &mut Step, run: Run, exit: Exit) {
        let now = step.now;
        let timeout = self.unit.stop.timeout;
        let (mut stopping, fresh) = match std::mem::replace(&mut self.state, State::Completed) {
            State::Starting(life) | State::Running(life) if life.run == run && life.born.is_some() => {
                let phase = Phase::Looking { until: now.mono + timeout };
                let (why, next) = (Why::Itself, Next::Policy);
                (Box::new(Stopping { life: *life, why, next, phase, ended: None }), true)
            }
            State::Stopping(stopping)
                if stopping.life.run == run && stopping.life.born.is_some() && stopping.ended.is_none() =>
            {
                (stopping, false)
            }
            stale @ (State::Inactive(_)
            | State::Waiting(_)
            | State::Starting(_)
            | State::Running(_)
            | State::Assembled
            | State::Stopping(_)
            | State::Backoff(_)
            | State::Failed(_)
            | State::Completed) => {
                self.state = stale;
                return;
            }
        };
        if stopping.life.up.is_some_and(|up| now.mono - up >= self.unit.restart.reset_after) {
            self.backoff.reset();
        }
        let why = if stopping.phase == Phase::Holding { Why::Itself } else { stopping.why };
        stopping.phase = match stopping.phase {
            Phase::Holding => Phase::Looking { until: now.mono + timeout },
            Phase::Told { until } => Phase::Looking { until: until.unwrap_or(now.mono + timeout) },
            Phase::Unborn { until } | Phase::Looking { until } | Phase::Rest { until } => {
                Phase::Looking { until }
            }
            later @ (Phase::Killed { .. } | Phase::Surveyed { .. } | Phase::Unkillable { .. }) => later,
        };
        let ended = Ended {
            run,
            how: How::Exit(exit),
            reason: self.exit_reason(why, exit),
            at: now,
            lived: stopping.life.age(now.mono),
            left: 0,
            said: stopping.life.said.take(),
        };
        match (why, ended.reason) {
            (
                Why::Itself,
                ExitReason::Error | ExitReason::Killed | ExitReason::OOMKilled | ExitReason::Unknown,
            ) => {
                let message = format!("Process {} ended: {}", self.name, words::exit(exit));
                step.warning(&self.name, "Exited", &message);
            }
            (Why::Asked | Why::Probe(_) | Why::Itself, _) => {}
        }
        self.show_end(&ended, stopping.life.started());
        stopping.why = why;
        stopping.ended = Some(ended);
        stopping.life.end_probes(&self.name, step);
        self.state = State::Stopping(stopping);
        if fresh {
            self.since = now;
        }
    }

    fn exit_reason(&self, why: Why, exit: Exit) -> ExitReason {
        match (why, exit) {
            (_, Exit::Unknown) => ExitReason::Unknown,
            (Why::Asked, Exit::Code(_) | Exit::Signal { .. }) => ExitReason::Stopped,
            (Why::Probe(ProbeKind::Startup), Exit::Code(_) | Exit::Signal { .. }) => {
                ExitReason::StartupFailed
            }
            (Why::Probe(ProbeKind::Liveness | ProbeKind::Readiness), Exit::Code(_) | Exit::Signal { .. }) => {
                ExitReason::LivenessFailed
            }
            (Why::Itself, exit) if self.matches(&self.unit.restart.success, exit) => ExitReason::Completed,
            (Why::Itself, Exit::Code(_)) => ExitReason::Error,
            (Why::Itself, Exit::Signal { oom: true, .. }) => ExitReason::OOMKilled,
            (Why::Itself, Exit::Signal { oom: false, .. }) => ExitReason::Killed,
        }
    }

    fn matches(&self, list: &[ExitMatch], exit: Exit) -> bool {
        list.iter().any(|entry| match (entry, exit) {
            (ExitMatch::Code(code), Exit::Code(exit)) => i32::from(*code) == exit,
            (ExitMatch::Signal(signal), Exit::Signal { signal: by, .. }) => *signal == by,
            (
                ExitMatch::Code(_) | ExitMatch::Signal(_),
                Exit::Code(_) | Exit::Signal { .. } | Exit::Unknown,
            ) => false,
        })
    }

    /// Nothing of the run is left.
    pub(super) fn emptied(&mut self, step: &mut Step, run: Run) {
        let stopping = match std::mem::replace(&mut self.state, State::Completed) {
            State::Stopping(stopping) if stopping.life.run == run && stopping.ended.is_some() => stopping,
            other => {
                self.state = other;
                return;
            }
        };
        let Stopping { why, next, ended, .. } = *stopping;
        self.ended = ended;
        match why {
            Why::Asked => step.normal(&self.name, "Stopped", &format!("Stopped process {}", self.name)),
            Why::Probe(_) | Why::Itself => {}
        }
        self.follow(step, next, why);
    }

    /// The run is over and recorded: what comes now?
    fn follow(&mut self, step: &mut Step, next: Next, why: Why) {
        match next {
            Next::Inactive(idle) => self.enter(step.now, State::Inactive(idle)),
            Next::Again => {
                let waiting = Waiting { stopped: why == Why::Asked, ..Waiting::default() };
                self.enter(step.now, State::Waiting(waiting));
            }
            Next::Policy => {
                self.tried = true;
                self.decide(step);
            }
        }
    }

    /// The restart policy (DESIGN section 5, "Ending" and "Restarting").
    fn decide(&mut self, step: &mut Step) {
        let Some(ended) = self.ended.clone() else { return };
        let rules = &self.unit.restart;
        let passing = matches!(&ended.how, How::NotStarted(failure) if failure.passing);
        let by_probe = matches!(ended.reason, ExitReason::LivenessFailed | ExitReason::StartupFailed);
        let success = ended.reason == ExitReason::Completed;
        let excepted = match &ended.how {
            How::Exit(exit) => !by_probe && self.matches(&rules.except, *exit),
            How::NotStarted(_) => false,
        };
        // It may have done its work: nobody but an operator knows whether it may do it twice.
        let unseen = self.unit.kind == Kind::Oneshot && ended.reason == ExitReason::Unknown;
        let applies = match rules.policy {
            Policy::Always | Policy::OnFailure if unseen => false,
            Policy::Always => true,
            Policy::OnFailure => !success,
            Policy::Never => false,
        };
        if passing {
            self.pause(step, &ended, false);
        } else if excepted || !applies {
            self.end_for_good(
                step,
                &ended,
                if excepted { Final::ExceptCode } else { Final::Policy(ended.reason) },
            );
        } else if self.backoff.spent(rules) {
            self.end_for_good(step, &ended, Final::RestartLimit);
        } else {
            self.pause(step, &ended, true);
        }
    }

    fn end_for_good(&mut self, step: &mut Step, ended: &Ended, reason: Final) {
        self.final_end = true;
        if ended.reason == ExitReason::Completed && reason != Final::RestartLimit {
            step.normal(&self.name, "Completed", &format!("Process {} completed", self.name));
            self.enter(step.now, State::Completed);
        } else {
            let message =
                format!("Process {} is not restarted: {}", self.name, words::final_end(self, reason));
            step.warning(&self.name, "Failed", &message);
            self.enter(step.now, State::Failed(reason));
        }
    }

    fn pause(&mut self, step: &mut Step, ended: &Ended, counts: bool) {
        let delay = self.backoff.next(&self.unit.restart, step.random);
        let until = ended.at.mono + delay;
        if until > step.now.mono {
            let message = format!("Back-off restarting failed process {}", self.name);
            step.warning(&self.name, "BackOff", &message);
        }
        self.enter(step.now, State::Backoff(Pause { until, counts }));
        // The delay counts from the exit: cleaning up after it may have taken longer.
        self.advance(step);
    }

    /// An attempt of a probe ended.
    pub(super) fn probed(&mut self, step: &mut Step, run: Run, kind: ProbeKind, outcome: &Outcome) {
        let now = step.now;
        let life = match &mut self.state {
            State::Starting(life) | State::Running(life) => life.as_mut(),
            State::Stopping(stopping) => &mut stopping.life,
            State::Inactive(_)
            | State::Waiting(_)
            | State::Assembled
            | State::Backoff(_)
            | State::Failed(_)
            | State::Completed => return,
        };
        let Some(born) = life.born.as_mut().filter(|_| life.run == run) else { return };
        let Some(verdict) = born.workers.probed(now, kind, outcome) else { return };
        let ready = born.workers.open && born.workers.ready() != Some(false);
        if let Some((reason, message)) = words::attempt(kind, outcome) {
            step.warning(&self.name, reason, &message);
        }
        match (verdict, &self.state) {
            (Verdict::Kill, State::Starting(_) | State::Running(_)) => self.kill_by_probe(step, kind),
            (Verdict::Nothing, State::Starting(_)) if ready && self.probes_decide() => self.rise(step),
            (
                Verdict::Kill | Verdict::Nothing,
                State::Inactive(_)
                | State::Waiting(_)
                | State::Starting(_)
                | State::Running(_)
                | State::Assembled
                | State::Stopping(_)
                | State::Backoff(_)
                | State::Failed(_)
                | State::Completed,
            ) => {}
        }
        self.advance(step);
    }

    /// Whether it is up depends on a probe.
    pub(super) fn probes_decide(&self) -> bool {
        self.unit.readiness.is_some() || self.unit.startup.is_some()
    }

    /// It is up.
    pub(super) fn rise(&mut self, step: &mut Step) {
        match std::mem::replace(&mut self.state, State::Completed) {
            State::Starting(mut life) => {
                life.up = Some(step.now.mono);
                self.tried = true;
                self.enter(step.now, State::Running(life));
            }
            other => self.state = other,
        }
    }

    /// Everything that time alone brings about.
    pub(super) fn advance(&mut self, step: &mut Step) {
        let now = step.now.mono;
        match &mut self.state {
            State::Backoff(pause) if pause.until <= now => {
                if pause.counts {
                    self.restarts = self.restarts.saturating_add(1);
                    self.backoff.count();
                }
                self.enter(step.now, State::Waiting(Waiting::default()));
            }
            State::Starting(life) => {
                if self.unit.start_timeout.is_some_and(|limit| life.asked + limit <= now) && !life.late {
                    life.late = true;
                    self.tried = true;
                    let limit = words::length(self.unit.start_timeout.unwrap_or_default());
                    let message = format!("Process {} is not up after {limit}", self.name);
                    step.warning(&self.name, "StartTimeout", &message);
                }
                let born = self.life().and_then(|life| life.born.as_ref());
                if born.and_then(|born| self.up_at(born)).is_some_and(|at| at <= now) {
                    self.rise(step);
                }
            }
            State::Stopping(_) => self.advance_stop(step),
            State::Inactive(_)
            | State::Waiting(_)
            | State::Running(_)
            | State::Assembled
            | State::Backoff(_)
            | State::Failed(_)
            | State::Completed => {}
        }
        self.try_probes(step);
    }

    fn try_probes(&mut self, step: &mut Step) {
        let life = match &mut self.state {
            State::Starting(life) | State::Running(life) => life.as_mut(),
            State::Stopping(stopping) => &mut stopping.life,
            State::Inactive(_)
            | State::Waiting(_)
            | State::Assembled
            | State::Backoff(_)
            | State::Failed(_)
            | State::Completed => return,
        };
        let Some(born) = &mut life.born else { return };
        for (kind, probe) in born.workers.due(step.now.mono) {
            step.effect(Effect::Probe {
                instance: self.name.clone(),
                run: life.run,
                kind,
                probe,
                unit: self.unit.clone(),
            });
        }
    }
}

impl Life {
    /// It is to be stopped: liveness and startup have no say any more.
    pub(super) fn quiet(&mut self, name: &Name, step: &mut Step) {
        let cancelled = self.born.as_mut().map(|born| born.workers.quiet()).unwrap_or_default();
        self.cancel(name, step, cancelled);
    }

    fn end_probes(&mut self, name: &Name, step: &mut Step) {
        let cancelled = self.born.as_mut().map(|born| born.workers.end()).unwrap_or_default();
        self.cancel(name, step, cancelled);
    }

    pub(super) fn cancel(&self, name: &Name, step: &mut Step, kinds: Vec<ProbeKind>) {
        for kind in kinds {
            step.effect(Effect::CancelProbe { instance: name.clone(), run: self.run, kind });
        }
    }
}
