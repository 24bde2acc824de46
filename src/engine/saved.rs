//! The engine's state as a value that outlives uphold (DESIGN section 3, "Resumable"): what has changed since
//! it was last asked for, all of it, and an engine made from it.
//!
//! What is not in it is what a new uphold cannot have: who waits for an answer, and attempts of probes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ending::Ending;
use super::events::Events;
use super::input::{Effect, Run};
use super::instance::{Idle, Instance, Next, Phase, State, Waiting, Why};
use super::random::Random;
use super::time::{Mono, Time};
use super::view::{Event, Wanted};
use super::{Engine, Settings};
use crate::unit::{Name, OnEnd, Signal, Unit};

/// From this many lives on, probes that are overdue are spread over their periods (PROBES D11).
const MANY: usize = 20;

/// The state, or what of it has changed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
// What is no state would be an empty one.
#[serde(deny_unknown_fields)]
pub struct Saved<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    core: Option<Core>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    instances: BTreeMap<Name, Cow<'a, Instance>>,
    /// Instances that are no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gone: Vec<Name>,
    /// By `seq`; a later one replaces the one that it counted on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    events: Vec<Event>,
}

/// What belongs to no instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Core {
    runs: u64,
    random: Option<Random>,
    seq: u64,
    ending: Option<Ending>,
    forwards: Vec<Signal>,
    command_until: Option<Mono>,
}

/// A run of which something may live, for a new host to take over.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Whose.
    pub instance: Name,
    /// Which start.
    pub run: Run,
    /// As what.
    pub unit: Arc<Unit>,
    /// What was heard of it.
    pub so_far: SoFar,
}

/// How far the engine knows a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoFar {
    /// It was ordered: `Spawned` or `SpawnFailed` is still to come.
    Ordered,
    /// The same, and to be stopped since: what has not begun is not to begin any more, which is `SpawnFailed`.
    Revoked,
    /// Its exec had succeeded.
    Born,
    /// Its main process had ended.
    Ended,
}

impl Saved<'_> {
    /// Takes what has changed later into account.
    pub fn merge(&mut self, later: Saved<'static>) {
        self.core = later.core.or(self.core.take());
        for name in later.gone {
            self.instances.remove(&name);
            self.events.retain(|event| event.unit != name);
        }
        self.instances.extend(later.instances);
        self.events.extend(later.events);
    }

    /// Nothing was ever supervised.
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    /// How many units it tells of.
    pub fn len(&self) -> usize {
        self.instances.len()
    }

    /// The units of the plan that was followed, as they were last read, and whether each was masked.
    pub fn units(&self) -> impl Iterator<Item = (&Arc<Unit>, bool)> {
        self.instances.values().filter_map(|instance| instance.in_plan())
    }

    /// The same of one.
    pub fn unit(&self, name: &Name) -> Option<(&Arc<Unit>, bool)> {
        self.instances.get(name)?.in_plan()
    }
}

impl Engine {
    /// What has changed since this was last asked; `None`: nothing. It has to be on record before the effects
    /// of the same input are carried out.
    pub fn changes(&mut self) -> Option<Saved<'_>> {
        let (names, gone) = (std::mem::take(&mut self.unsaved), std::mem::take(&mut self.gone));
        let (events, core) = (self.events.take_fresh(), self.core());
        if names.is_empty() && gone.is_empty() && events.is_empty() && core == self.saved {
            return None;
        }
        self.saved = core.clone();
        let mut instances = BTreeMap::new();
        for name in names {
            if let Some(instance) = self.instances.get(&name) {
                instances.insert(name, Cow::Borrowed(instance));
            }
        }
        Some(Saved { core: Some(core), instances, gone, events })
    }

    /// All of the state.
    pub fn state(&self) -> Saved<'_> {
        let mut instances = BTreeMap::new();
        for (name, instance) in &self.instances {
            instances.insert(name.clone(), Cow::Borrowed(instance));
        }
        Saved { core: Some(self.core()), instances, gone: Vec::new(), events: self.events.list(None, 0) }
    }

    fn core(&self) -> Core {
        Core {
            runs: self.runs,
            random: Some(self.random.clone()),
            seq: self.events.seq,
            ending: self.ending.clone(),
            forwards: self.forwards.clone(),
            command_until: self.command_until,
        }
    }

    /// An engine that goes on from this state. A [`Load`](super::Input::Load) of what the files say by now has
    /// to come first, then [`resume`](Engine::resume).
    ///
    /// `same`: the same process goes on (an upgrade, a crash), and a shutdown with it. Else somebody has
    /// started uphold anew, and wants it to run.
    pub fn restored(settings: Settings, saved: Saved<'static>, now: Time, same: bool) -> Engine {
        let mut engine = Engine::new(settings);
        let core = saved.core.unwrap_or_default();
        engine.runs = engine.runs.max(core.runs);
        engine.random = core.random.unwrap_or(engine.random);
        engine.forwards = core.forwards;
        engine.command_until = core.command_until;
        let forgotten = core.ending.is_some() && !same;
        engine.ending = core.ending.filter(|_| same);
        engine.events = Events::restored(now, core.seq, saved.events);
        let many = saved.instances.len() > MANY;
        for (name, instance) in saved.instances {
            let mut instance = instance.into_owned();
            if forgotten {
                instance.shut_down_no_more(now);
            }
            let late = if many { engine.random.share() } else { 0.0 };
            instance.resume_probes(now.mono, late);
            engine.instances.insert(name.clone(), instance);
            engine.mark(&name);
        }
        engine
    }

    /// Every run of which something may live.
    pub fn taken(&self) -> Vec<Taken> {
        self.instances.values().filter_map(Instance::taken).collect()
    }

    /// Says once more what the states ask of the host that may have been recorded and not done. Doing it twice
    /// does no harm: the host sends the signal of a stop once a run.
    pub fn resume(&mut self, now: Time, effects: &mut Vec<Effect>) {
        for name in self.instances() {
            self.step(now, effects, &name, |instance, step| {
                if instance.main().is_some() {
                    let message = format!("Took over process {}", instance.name);
                    step.normal(&instance.name, "Adopted", &message);
                }
                let effect = instance.open_effect();
                step.effects.extend(effect);
            });
        }
        self.resume_ending(effects);
        self.settle(now, effects);
    }
}

impl Instance {
    /// What was last read of it, and whether it was masked; `None`: its file was gone.
    pub(super) fn in_plan(&self) -> Option<(&Arc<Unit>, bool)> {
        (!self.removed).then(|| (self.pending.as_ref().unwrap_or(&self.unit), self.masked))
    }

    fn taken(&self) -> Option<Taken> {
        let life = self.life()?;
        let stopping = match &self.state {
            State::Stopping(stopping) => Some(stopping),
            State::Inactive(_)
            | State::Waiting(_)
            | State::Starting(_)
            | State::Running(_)
            | State::Assembled
            | State::Backoff(_)
            | State::Failed(_)
            | State::Completed => None,
        };
        let so_far = match (&life.born, stopping) {
            (_, Some(stopping)) if stopping.ended.is_some() => SoFar::Ended,
            (Some(_), Some(_) | None) => SoFar::Born,
            (None, Some(_)) => SoFar::Revoked,
            (None, None) => SoFar::Ordered,
        };
        Some(Taken { instance: self.name.clone(), run: life.run, unit: self.unit.clone(), so_far })
    }

    /// What the phase of a stop has asked for.
    fn open_effect(&self) -> Option<Effect> {
        let State::Stopping(stopping) = &self.state else { return None };
        let (instance, run) = (self.name.clone(), stopping.life.run);
        match &stopping.phase {
            Phase::Told { .. } => Some(Effect::Signal {
                instance,
                run,
                signal: self.unit.stop.signal,
                to: self.unit.stop.scope,
                cont: true,
            }),
            Phase::Rest { .. } => Some(Effect::Terminate { instance, run }),
            Phase::Killed { .. } => Some(Effect::Kill { instance, run, main_only: self.unit.stop.leave }),
            Phase::Surveyed { .. } => Some(Effect::Survey { instance, run }),
            Phase::Holding | Phase::Unborn { .. } | Phase::Looking { .. } | Phase::Unkillable { .. } => None,
        }
    }

    /// It was stopped, or is, for the end of an uphold that did not come to its end.
    fn shut_down_no_more(&mut self, now: Time) {
        if self.wanted == Wanted::Down {
            return;
        }
        match &mut self.state {
            State::Inactive(Idle::ShuttingDown) => self.enter(now, State::Waiting(Waiting::default())),
            State::Stopping(stopping) if stopping.next == Next::Inactive(Idle::ShuttingDown) => {
                // What had ended by itself is not what the shutdown has stopped.
                stopping.next = if stopping.why == Why::Asked { Next::Again } else { Next::Policy };
            }
            // Its end was to be that of uphold, which is wanted again, and was started for it.
            State::Failed(_) | State::Completed if self.unit.on_end == OnEnd::Shutdown => {
                self.backoff.reset();
                self.tried = false;
                self.enter(now, State::Waiting(Waiting::default()));
            }
            State::Inactive(_)
            | State::Waiting(_)
            | State::Starting(_)
            | State::Running(_)
            | State::Assembled
            | State::Stopping(_)
            | State::Backoff(_)
            | State::Failed(_)
            | State::Completed => {}
        }
    }

    fn resume_probes(&mut self, now: Mono, late: f64) {
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
        if let Some(born) = &mut life.born {
            born.workers.resume(now, late);
        }
    }
}
