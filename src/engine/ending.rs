//! The end of uphold: everything stops in order, then `init` sweeps up what is left, then there is a status.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::input::{Effect, Run};
use super::instance::{Idle, Instance, Next};
use super::time::{Mono, Time};
use super::{Engine, Settings};
use crate::plan::Plan;
use crate::unit::{Name, OnEnd, Scope, Signal};

/// How long what outlives everything else may take, where `--stop-timeout` does not say.
const SWEEP: Duration = Duration::from_secs(30);
/// How long SIGKILL may take in the sweep.
const SWEEP_KILL: Duration = Duration::from_secs(10);
/// Signals for a COMMAND that is being spawned: more than anybody sends.
const FORWARDS: usize = 16;

/// A shutdown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Ending {
    /// What uphold ends with, where no `--main` or COMMAND has the say.
    status: i32,
    /// Everything gets SIGKILL now.
    forced: bool,
    /// The machine starts again after it.
    #[serde(default)]
    reboot: bool,
    /// When that happens by itself (`shutdown_timeout`).
    cap: Option<Mono>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    /// Instances stop, in order.
    Instances,
    /// All descendants were told.
    Swept { until: Mono },
    /// All descendants got SIGKILL.
    SweptHard { until: Mono },
    /// The status was given.
    Over,
}

impl Ending {
    pub(super) fn reboots(&self) -> bool {
        self.reboot
    }
}

impl Engine {
    /// A shutdown that was asked for; the second one kills. What is asked for last says whether the machine starts again.
    pub(super) fn shut_down(&mut self, now: Time, effects: &mut Vec<Effect>, reboot: bool) {
        if self.ending.is_some() {
            self.force(now, effects);
        } else {
            self.begin_ending(now, effects, 0);
        }
        if let Some(ending) = &mut self.ending {
            ending.reboot = reboot;
        }
    }

    /// An instance has ended for good: it may have been what all this is about.
    pub(super) fn ended_for_good(
        &mut self,
        now: Time,
        effects: &mut Vec<Effect>,
        on_end: OnEnd,
        status: Option<i32>,
    ) {
        match on_end {
            OnEnd::None => {}
            OnEnd::Shutdown => self.begin_ending(now, effects, status.unwrap_or(1)),
        }
    }

    /// The daemon config was read again. An end that has begun keeps its rules.
    pub(super) fn configure(&mut self, main: Option<Name>, shutdown_timeout: Option<Duration>) {
        if self.ending.is_none() {
            self.settings.main = main;
            self.settings.shutdown_timeout = shutdown_timeout;
        }
    }

    fn begin_ending(&mut self, now: Time, effects: &mut Vec<Effect>, status: i32) {
        if self.ending.is_some() {
            return;
        }
        let cap = self.settings.shutdown_timeout.map(|limit| now.mono + limit);
        self.ending = Some(Ending { status, forced: false, reboot: false, cap, stage: Stage::Instances });
        for name in self.instances() {
            self.step(now, effects, &name, |instance, step| {
                instance.ask_stop(step, Next::Inactive(Idle::ShuttingDown));
            });
        }
    }

    fn force(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let Some(ending) = &mut self.ending else { return };
        ending.forced = true;
        ending.cap = None;
        if let Stage::Swept { .. } = ending.stage {
            ending.stage = Stage::SweptHard { until: now.mono + SWEEP_KILL };
            effects.push(Effect::Sweep(Signal::KILL));
        }
        for name in self.instances() {
            self.step(now, effects, &name, |instance, step| instance.force(step));
        }
    }

    /// Goes on once nothing of any instance is left.
    pub(super) fn advance_ending(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let Some(ending) = &self.ending else { return };
        let busy = self.instances.values().any(|instance| instance.face().occupied);
        if ending.stage != Stage::Instances || busy || !self.dirty.is_empty() {
            return;
        }
        if !self.settings.sweep {
            self.exit(effects);
        } else if ending.forced {
            effects.push(Effect::Sweep(Signal::KILL));
            self.enter(Stage::SweptHard { until: now.mono + SWEEP_KILL });
        } else {
            effects.push(Effect::Sweep(Signal::TERM));
            let limit = self.settings.command_timeout.unwrap_or(SWEEP);
            self.enter(Stage::Swept { until: now.mono + limit });
        }
    }

    fn enter(&mut self, stage: Stage) {
        if let Some(ending) = &mut self.ending {
            ending.stage = stage;
        }
    }

    /// No child of uphold is left.
    pub(super) fn childless(&mut self, effects: &mut Vec<Effect>) {
        match self.ending.as_ref().map(|ending| ending.stage) {
            Some(Stage::Swept { .. } | Stage::SweptHard { .. }) => self.exit(effects),
            Some(Stage::Instances | Stage::Over) | None => {}
        }
    }

    fn exit(&mut self, effects: &mut Vec<Effect>) {
        self.enter(Stage::Over);
        self.answer_all(effects);
        effects.push(Effect::Exit(self.final_status()));
    }

    fn final_status(&self) -> i32 {
        let asked = self.ending.as_ref().map_or(0, |ending| ending.status);
        let deciding = self.settings.deciding().and_then(|name| self.instances.get(name));
        // That of a COMMAND that was to give way is not that of the one that was asked for.
        let gave_way = |instance: &&Instance| self.settings.command.is_some() && instance.is_another();
        deciding.filter(|instance| !gave_way(instance)).and_then(Instance::status).unwrap_or(asked)
    }

    /// What the stage that it stands in asks for, said once more.
    pub(super) fn resume_ending(&self, effects: &mut Vec<Effect>) {
        match self.ending.as_ref().map(|ending| ending.stage) {
            Some(Stage::Swept { .. }) => effects.push(Effect::Sweep(Signal::TERM)),
            Some(Stage::SweptHard { .. }) => effects.push(Effect::Sweep(Signal::KILL)),
            Some(Stage::Over) => effects.push(Effect::Exit(self.final_status())),
            Some(Stage::Instances) | None => {}
        }
    }

    pub(super) fn ending_deadline(&self) -> Option<Mono> {
        let ending = self.ending.as_ref()?;
        match ending.stage {
            Stage::Instances => ending.cap,
            Stage::Swept { until } => Some(ending.cap.map_or(until, |cap| cap.min(until))),
            Stage::SweptHard { until } => Some(until),
            Stage::Over => None,
        }
    }

    pub(super) fn tick_ending(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if self.command_until.is_some_and(|until| until <= now.mono) {
            self.command_until = None;
            self.end_command(now, effects);
        }
        if self.ending_deadline().is_none_or(|at| at > now.mono) {
            return;
        }
        match self.ending.as_ref().map(|ending| ending.stage) {
            Some(Stage::Instances | Stage::Swept { .. }) => self.force(now, effects),
            Some(Stage::SweptHard { .. }) => self.exit(effects),
            Some(Stage::Over) | None => {}
        }
    }

    /// COMMAND, if it is another one than that of the uphold before, which may run: it was asked for.
    pub(super) fn other_command(&self, plan: &Plan) -> Option<Name> {
        let name = self.settings.command.as_ref()?;
        let (instance, new) = (self.instances.get(name)?, plan.units().get(name)?);
        // One that gives way already does not do it again.
        let old = instance.pending.as_ref().unwrap_or(&instance.unit);
        (old.command != new.loaded.unit.command).then(|| name.clone())
    }

    /// The COMMAND of before gives way to the one that was asked for. What came for it is not for this one.
    pub(super) fn replace_command(&mut self, now: Time, effects: &mut Vec<Effect>, name: &Name) {
        self.forwards.clear();
        self.command_until = None;
        self.step(now, effects, name, |instance, step| {
            let message = "COMMAND is another one than that of the uphold before, which is stopped first";
            step.normal(&instance.name, "Replaced", message);
            instance.restart(step);
        });
        self.activate(now, effects, std::slice::from_ref(name));
    }

    /// uphold got a signal that is COMMAND's.
    pub(super) fn forward(&mut self, now: Time, effects: &mut Vec<Effect>, signal: Signal) {
        let Some(name) = self.settings.command.clone() else { return };
        let Some(instance) = self.instances.get(&name) else { return };
        let ends = signal == Signal::TERM || signal == Signal::INT;
        if instance.gives_way() && self.ending.is_none() {
            // It is for the one that was asked for, and has not begun.
            if ends {
                self.begin_ending(now, effects, 128 + signal.number());
            } else if self.forwards.len() < FORWARDS {
                self.forwards.push(signal);
            }
        } else if let Some((life, _)) = instance.main() {
            let run = life.run;
            self.pass_on(now, effects, &name, run, signal);
        } else if instance.life().is_some_and(|life| life.born.is_none()) {
            if self.forwards.len() < FORWARDS {
                self.forwards.push(signal);
            }
        } else if ends && self.ending.is_some() {
            self.force(now, effects);
        } else if ends {
            self.begin_ending(now, effects, 128 + signal.number());
        }
    }

    /// COMMAND runs: it gets what came for it while it was being spawned.
    pub(super) fn forward_waiting(&mut self, now: Time, effects: &mut Vec<Effect>, name: &Name) {
        if self.settings.command.as_ref() != Some(name) {
            return;
        }
        let Some(run) = self.instances.get(name).and_then(|instance| Some(instance.main()?.0.run)) else {
            return;
        };
        for signal in std::mem::take(&mut self.forwards) {
            self.pass_on(now, effects, name, run, signal);
        }
    }

    /// A signal goes to COMMAND, whose time runs from its first SIGTERM.
    fn pass_on(&mut self, now: Time, effects: &mut Vec<Effect>, name: &Name, run: Run, signal: Signal) {
        effects.push(Effect::Signal { instance: name.clone(), run, signal, to: Scope::Main, cont: false });
        if signal == Signal::TERM && self.command_until.is_none() {
            self.command_until = self.settings.command_timeout.map(|limit| now.mono + limit);
        }
    }

    /// COMMAND was told to end, and its time is over.
    fn end_command(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let Some(name) = self.settings.command.clone() else { return };
        if self.instances.get(&name).is_some_and(|instance| instance.main().is_some()) {
            self.begin_ending(now, effects, 128 + Signal::KILL.number());
            self.step(now, effects, &name, |instance, step| instance.force(step));
        }
    }
}

impl Settings {
    /// The instance whose status is the answer, however the end came.
    fn deciding(&self) -> Option<&Name> {
        self.command.as_ref().or(self.main.as_ref())
    }
}
