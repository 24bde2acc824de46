//! The engine: the only decisions. Pure: no clock, no syscall, no I/O.
//!
//! [`Engine::handle`] takes one input, lets the one instance that it is about move (`life`, `stop`), then
//! settles: everything that depends on what moved is looked at until nothing moves any more (`order`), who
//! waits for an outcome is answered (`requests`), and a shutdown goes on (`ending`).

#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod backoff;
mod ending;
mod endpoints;
mod events;
mod input;
mod instance;
mod life;
mod order;
mod probes;
mod random;
mod reload;
mod requests;
mod saved;
mod show;
mod stop;
mod time;
pub mod view;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::plan::Plan;
use crate::unit::{Name, Signal, Unit};

use ending::Ending;
use events::Events;
use instance::{Instance, Step};
use random::Random;
use requests::Request;

pub use endpoints::{Address, Endpoints};
pub use input::*;
pub use saved::{Saved, SoFar, Taken};
pub use time::{Mono, Time, Wall};
pub use view::{Changes, Done, DoneResult, Event, EventKind, ExitReason, LastExit, StateName, View, Wanted};

/// What an engine is told once; [`Input::Configure`] changes two of them later.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Seeds the jitter.
    pub seed: u64,
    /// `--main`: its status is always the answer.
    pub main: Option<Name>,
    /// `init -- COMMAND`: the instance that is COMMAND; signals are forwarded to it.
    pub command: Option<Name>,
    /// How long COMMAND may live on after a SIGTERM (`--stop-timeout`). `None`: as long as it likes.
    pub command_timeout: Option<Duration>,
    /// Caps a whole shutdown. `None`: no cap.
    pub shutdown_timeout: Option<Duration>,
    /// `init`: at the end every descendant is swept.
    pub sweep: bool,
    /// Something of runs up to this one may be left, though no state tells of them: others get higher numbers.
    pub runs: u64,
}

/// What a view needs from outside of the engine.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// [`View::changed_on_disk`]
    pub changed_on_disk: bool,
    /// [`View::memory_bytes`]
    pub memory_bytes: Option<u64>,
    /// [`View::cpu_seconds`]
    pub cpu_seconds: Option<f64>,
    /// [`View::tasks`]
    pub tasks: Option<u64>,
    /// The last line of stderr (or of the output where it is one), for `message`.
    pub last_line: Option<String>,
    /// [`View::output`]
    pub output: Vec<String>,
}

/// The state of everything that uphold supervises.
pub struct Engine {
    settings: Settings,
    plan: Arc<Plan>,
    instances: BTreeMap<Name, Instance>,
    events: Events,
    random: Random,
    /// The last run number given out.
    runs: u64,
    /// Who waits for an outcome.
    requests: BTreeMap<Ticket, Request>,
    /// A shutdown, once it has begun.
    ending: Option<Ending>,
    /// Signals for a COMMAND that is being spawned.
    forwards: Vec<Signal>,
    /// When COMMAND's time is over.
    command_until: Option<Mono>,
    /// To be looked at before the input is done with, by rank: what is waited for before who waits.
    dirty: BTreeSet<(u32, Name)>,
    /// Was looked at, and whoever waits for it has not been told.
    touched: BTreeSet<Name>,
    /// Each instance's deadline.
    deadlines: BTreeSet<(Mono, Name)>,
    /// Whose deadlines lead to nothing any more.
    passed_by: BTreeSet<Name>,
    /// Stops that wait for others to stop first.
    holding: BTreeSet<Name>,
    /// Was looked at, and [`Engine::changes`] was not asked since.
    unsaved: BTreeSet<Name>,
    /// Likewise, and is gone.
    gone: Vec<Name>,
    /// The rest of the state, as it was last asked for.
    saved: saved::Core,
}

impl Engine {
    /// An engine that supervises nothing yet.
    pub fn new(settings: Settings) -> Engine {
        Engine {
            random: Random::new(settings.seed),
            runs: settings.runs,
            settings,
            plan: Arc::default(),
            instances: BTreeMap::new(),
            events: Events::default(),
            requests: BTreeMap::new(),
            ending: None,
            forwards: Vec::new(),
            command_until: None,
            dirty: BTreeSet::new(),
            touched: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            passed_by: BTreeSet::new(),
            holding: BTreeSet::new(),
            unsaved: BTreeSet::new(),
            gone: Vec::new(),
            saved: saved::Core::default(),
        }
    }

    /// Takes one input and appends what is to be done.
    pub fn handle(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Tick => self.tick(now, effects),
            Input::Spawned { instance, run, pid } => {
                self.step(now, effects, &instance, |instance, step| instance.spawned(step, run, pid));
                self.forward_waiting(now, effects, &instance);
            }
            Input::SpawnFailed { instance, run, failure } => {
                self.step(now, effects, &instance, |instance, step| {
                    instance.spawn_failed(step, run, failure)
                });
            }
            Input::Exited { instance, run, exit } => {
                self.step(now, effects, &instance, |instance, step| instance.exited(step, run, exit));
            }
            Input::Left { instance, run, pids } => {
                self.step(now, effects, &instance, |instance, step| instance.left(step, run, pids));
            }
            Input::Emptied { instance, run } => {
                self.step(now, effects, &instance, |instance, step| instance.emptied(step, run));
            }
            Input::Probed { instance, run, kind, outcome } => {
                self.step(now, effects, &instance, |instance, step| {
                    instance.probed(step, run, kind, &outcome)
                });
            }
            Input::Notice { instance, reason, warning, message } => {
                // It moves nobody: what is wrong with a unit can be said also where looking at it is what is wrong.
                if self.instances.contains_key(&instance) {
                    let kind = if warning { EventKind::Warning } else { EventKind::Normal };
                    let event = self.events.record(now, &instance, kind, reason, &message);
                    effects.push(Effect::Event(event));
                }
            }
            Input::Own { reason, warning, message } => {
                let kind = if warning { EventKind::Warning } else { EventKind::Normal };
                let event = self.events.record(now, &Name::uphold(), kind, reason, &message);
                effects.push(Effect::Event(event));
            }
            Input::Load { plan, update, ticket } => self.load(now, effects, plan, update, ticket),
            Input::Configure { main, shutdown_timeout } => self.configure(main, shutdown_timeout),
            Input::Command { verb, instances, timeout, wait, ticket } => {
                self.command(now, effects, verb, instances, timeout, wait, ticket);
            }
            Input::Gone { ticket } => drop(self.requests.remove(&ticket)),
            Input::Shutdown => self.shut_down(now, effects, false),
            Input::Reboot => self.shut_down(now, effects, true),
            Input::Forward(signal) => self.forward(now, effects, signal),
            Input::Childless => self.childless(effects),
        }
        self.settle(now, effects);
    }

    fn tick(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if let Some(name) = self.due(now.mono).cloned() {
            self.step(now, effects, &name, |instance, step| instance.advance(step));
        }
        self.tick_ending(now, effects);
    }

    /// Lets one instance move. All that happens to an instance goes through here, so that it is looked at
    /// again afterwards.
    fn step(
        &mut self,
        now: Time,
        effects: &mut Vec<Effect>,
        name: &Name,
        act: impl FnOnce(&mut Instance, &mut Step),
    ) {
        let Some(instance) = self.instances.get_mut(name) else { return };
        let mut step = Step {
            now,
            settings: &self.settings,
            effects,
            events: &mut self.events,
            random: &mut self.random,
            runs: &mut self.runs,
        };
        act(instance, &mut step);
        self.mark(name);
    }

    /// The instance that a [`Input::Tick`] is for now, if it is for one. Each is for one alone: a bug in what
    /// it does must not hold up all others.
    pub fn due(&self, now: Mono) -> Option<&Name> {
        self.deadlines.first().filter(|(at, _)| *at <= now).map(|(_, name)| name)
    }

    /// Lets the deadline of the instance that is due pass, because what it leads to cannot be done.
    pub fn pass_by(&mut self, now: Mono) {
        if self.due(now).is_some()
            && let Some((_, name)) = self.deadlines.pop_first()
        {
            self.passed_by.insert(name);
        }
    }

    /// When [`Input::Tick`] is due at the latest; `None`: never.
    pub fn next_deadline(&self) -> Option<Mono> {
        let instances = self.deadlines.first().map(|(at, _)| *at);
        let requests = self.requests.values().filter_map(|request| self.request_deadline(request)).min();
        [instances, requests, self.ending_deadline(), self.command_until].into_iter().flatten().min()
    }

    /// The names of all instances, in order.
    pub fn instances(&self) -> Vec<Name> {
        self.instances.keys().cloned().collect()
    }

    /// The plan in effect.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// A shutdown has begun: nothing is started or loaded any more.
    pub fn shutting_down(&self) -> bool {
        self.ending.is_some()
    }

    /// The machine starts again after the shutdown.
    pub fn reboots(&self) -> bool {
        self.ending.as_ref().is_some_and(Ending::reboots)
    }

    /// The run of this instance that the host has or had last.
    pub fn run(&self, instance: &Name) -> Option<Run> {
        self.instances.get(instance)?.last_run
    }

    /// The unit in effect for this instance: as its process was started, with the live keys of what was
    /// loaded last.
    pub fn unit(&self, instance: &Name) -> Option<&Arc<Unit>> {
        self.instances.get(instance).map(|instance| &instance.unit)
    }

    /// Events with a `seq` above `since`, of one unit or of all, oldest first.
    pub fn events(&self, unit: Option<&Name>, since: u64) -> Vec<Event> {
        self.events.list(unit, since)
    }
}

#[cfg(test)]
mod tests;
