//! The engine: the only decisions. Pure: no clock, no syscall, no I/O.

mod input;
mod time;
pub mod view;

use std::sync::Arc;
use std::time::Duration;

use crate::plan::Plan;
use crate::unit::Name;

pub use input::*;
pub use time::{Mono, Time, Wall};
pub use view::{Changes, Done, DoneResult, Event, EventKind, ExitReason, LastExit, StateName, View, Wanted};

/// What an engine is told once.
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
}

impl Engine {
    /// An engine that supervises nothing yet.
    pub fn new(settings: Settings) -> Engine {
        Engine { settings }
    }

    /// Takes one input and appends what is to be done.
    pub fn handle(&mut self, _now: Time, _input: Input, _effects: &mut Vec<Effect>) {
        let _ = &self.settings;
        todo!()
    }

    /// When [`Input::Tick`] is due at the latest; `None`: never.
    pub fn next_deadline(&self) -> Option<Mono> {
        todo!()
    }

    /// The names of all instances, in order.
    pub fn instances(&self) -> Vec<Name> {
        todo!()
    }

    /// The plan in effect.
    pub fn plan(&self) -> &Arc<Plan> {
        todo!()
    }

    /// One instance as the API shows it.
    pub fn view(&self, _now: Time, _instance: &Name, _facts: Facts) -> Option<View> {
        todo!()
    }

    /// The run of this instance that the host has or had last.
    pub fn run(&self, _instance: &Name) -> Option<Run> {
        todo!()
    }

    /// Events with a `seq` above `since`, of one unit or of all, oldest first.
    pub fn events(&self, _unit: Option<&Name>, _since: u64) -> Vec<Event> {
        todo!()
    }

    /// What a `Load` of this plan would change.
    pub fn preview(&self, _plan: &Plan, _update: bool) -> Changes {
        todo!()
    }

    /// What else a stop or restart of these stops: those that require them, directly or not, and run.
    pub fn dependents(&self, _instances: &[Name]) -> Vec<Name> {
        todo!()
    }
}
