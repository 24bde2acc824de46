//! What holds whatever happens. Each rule says in a sentence how it was broken.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use uphold::engine::{
    Answer, DoneResult, Effect, Endpoints, Engine, Event, EventKind, Facts, Goal, Input, LastExit, Run,
    Settings, StateName, Ticket, Time, Verb, View, Wanted,
};
use uphold::plan::Plan;
use uphold::unit::{Kind, Name, OnEnd, ProbeKind, Signal};

use super::host::Host;

/// What the engine itself adds to a stop: SIGKILL's time and the survey's, and a second for the simulation.
pub(super) const KILL: u64 = 12_000_000_000;
/// The longest time that a random unit's stop may take.
const LONGEST_STOP: Duration = Duration::from_secs(20);
/// So many ticks may fall on one moment.
const TICKS: u32 = 64;
/// How often everything is looked at.
const SWEEP: u64 = 40;

/// A request that was not answered yet.
pub(super) struct Open {
    verb: Option<Verb>,
    wait: bool,
    until: Option<u64>,
}

/// Failures of one probe of a run, in a row.
#[derive(Default)]
struct Row {
    run: Run,
    count: u32,
    threshold: u32,
}

/// How a stop of a run has to go on.
pub(super) struct Bound {
    run: Run,
    pub(super) until: u64,
    killed: bool,
}

/// All rules and what they remember.
#[derive(Default)]
pub struct Rules {
    slack: u64,
    last_run: u64,
    last_seq: u64,
    /// How many runs of each instance were ordered.
    ordered: BTreeMap<Name, u64>,
    /// What was decided before the death of an uphold is said once more.
    pub(super) resuming: bool,
    pub(super) open: BTreeMap<Ticket, Open>,
    answered: BTreeSet<Ticket>,
    rows: BTreeMap<(Name, ProbeKind), Row>,
    pub(super) bounds: BTreeMap<Name, Bound>,
    /// Who was seen in which state.
    seen: BTreeMap<Name, StateName>,
    /// What was shown of ended runs of the instance that the input at hand is about, and its main process.
    before: (Vec<LastExit>, Option<u32>),
    /// What was not up at the last load and was not seen up since: what runs may be spared of it.
    absent: BTreeSet<Name>,
    /// What a reload at hand must not touch.
    untouched: BTreeSet<Name>,
    /// What proxies were told.
    pub(super) offered: BTreeMap<Name, Endpoints>,
    /// What they were told by the uphold before.
    pub(super) inherited: BTreeMap<Name, Endpoints>,
    ticks: (u64, u32),
    steps: u64,
    /// A shutdown may have begun.
    pub(super) shutdown: bool,
    /// Order does not count any more.
    pub(super) forced: bool,
    cap: Option<Duration>,
    pub(super) command: Option<Name>,
    command_bound: bool,
    loads: u32,
    exits: u32,
}

fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap()
}

pub(super) fn view(engine: &Engine, now: Time, name: &Name) -> Option<View> {
    engine.view(now, name, Facts::default())
}

/// What runs, and requires nothing that is being stopped.
fn untouched(now: Time, plan: &Plan, engine: &Engine) -> BTreeSet<Name> {
    let state = |name: &Name| view(engine, now, name).map(|view| view.state);
    let is_safe = |name: &Name| {
        let (mut ahead, mut seen) = (vec![name], BTreeSet::new());
        while let Some(via) = ahead.pop() {
            if state(via) == Some(StateName::Stopping) {
                return false;
            }
            let requires = plan.units().get(via).map(|planned| &planned.requires);
            ahead.extend(requires.into_iter().flatten().filter(|required| seen.insert(*required)));
        }
        true
    };
    let runs = |name: &Name| matches!(state(name), Some(StateName::Starting | StateName::Running));
    engine.instances().into_iter().filter(|name| runs(name) && is_safe(name)).collect()
}

/// Which instance the host tells of.
fn about(input: &Input) -> Option<&Name> {
    match input {
        Input::Spawned { instance, .. }
        | Input::SpawnFailed { instance, .. }
        | Input::Exited { instance, .. }
        | Input::Left { instance, .. }
        | Input::Emptied { instance, .. }
        | Input::Probed { instance, .. } => Some(instance),
        _ => None,
    }
}

macro_rules! hold {
    ($holds:expr, $($broken:tt)*) => {
        if !$holds {
            return Err(format!($($broken)*));
        }
    };
}
pub(super) use hold;

impl Rules {
    /// A world begins.
    pub fn begin(&mut self, settings: &Settings, lateness: Duration) {
        self.slack = nanos(lateness) * 20 + 1;
        self.cap = settings.shutdown_timeout;
        self.command.clone_from(&settings.command);
        self.command_bound = settings.command_timeout.is_some();
    }

    /// A deadline came.
    pub fn ticked(&mut self, now: u64) -> Result<(), String> {
        self.ticks = if self.ticks.0 == now { (now, self.ticks.1 + 1) } else { (now, 1) };
        hold!(self.ticks.1 <= TICKS, "the deadline does not move on: {} ticks at once", self.ticks.1);
        Ok(())
    }

    /// An input is about to be taken.
    pub fn before(&mut self, now: Time, input: &Input, engine: &Engine) {
        self.untouched.clear();
        let before = about(input).and_then(|name| view(engine, now, name));
        self.before = before.map(|view| (view.exits, view.pid)).unwrap_or_default();
        match input {
            Input::Command { verb, timeout, wait, ticket, .. } => {
                let until = timeout.map(|timeout| now.mono.0 + nanos(timeout) + self.slack);
                self.open.insert(*ticket, Open { verb: Some(*verb), wait: *wait, until });
            }
            Input::Load { ticket, plan, update } => {
                self.loads += 1;
                let names = engine.instances().into_iter();
                self.absent.extend(names.filter(|name| view(engine, now, name).is_some_and(|view| !view.up)));
                if !update && !engine.shutting_down() {
                    self.untouched = untouched(now, plan, engine);
                }
                if let Some(ticket) = ticket {
                    self.open.insert(*ticket, Open { verb: None, wait: true, until: Some(now.mono.0) });
                }
            }
            Input::Gone { ticket } => {
                self.open.remove(ticket);
            }
            Input::Shutdown | Input::Reboot => {
                self.forced |= engine.shutting_down();
                self.shutdown = true;
            }
            Input::Forward(signal) => {
                self.forced |= engine.shutting_down();
                self.shutdown |= *signal == Signal::TERM || *signal == Signal::INT;
            }
            Input::Probed { instance, run, kind, outcome } => {
                self.probed(engine, instance, *run, *kind, outcome)
            }
            Input::Tick
            | Input::Spawned { .. }
            | Input::SpawnFailed { .. }
            | Input::Exited { .. }
            | Input::Left { .. }
            | Input::Emptied { .. }
            | Input::Notice { .. }
            | Input::Own { .. }
            | Input::Configure { .. }
            | Input::Childless => {}
        }
        let ends = |name: &Name| engine.unit(name).is_some_and(|unit| unit.on_end == OnEnd::Shutdown);
        match input {
            Input::Emptied { instance, .. } | Input::SpawnFailed { instance, .. } if ends(instance) => {
                self.shutdown = true;
            }
            _ => {}
        }
    }

    fn probed(
        &mut self,
        engine: &Engine,
        name: &Name,
        run: Run,
        kind: ProbeKind,
        outcome: &uphold::engine::Outcome,
    ) {
        use uphold::engine::Outcome;
        let threshold =
            engine.unit(name).and_then(|unit| unit.probe(kind)).map_or(1, |probe| probe.failure_threshold);
        let row = self.rows.entry((name.clone(), kind)).or_default();
        if row.run != run {
            *row = Row { run, ..Row::default() };
        }
        row.threshold = threshold;
        match outcome {
            Outcome::Failure(_) => row.count += 1,
            Outcome::Success | Outcome::Warning(_) => row.count = 0,
            Outcome::Error(_) => {}
        }
    }

    /// An effect is about to be carried out.
    pub fn effect(&mut self, now: Time, effect: &Effect, engine: &Engine, host: &Host) -> Result<(), String> {
        match effect {
            Effect::Spawn { instance, run, unit } => {
                hold!(run.0 > self.last_run, "{instance} is started as run {run}, a number of before");
                self.last_run = run.0;
                *self.ordered.entry(instance.clone()).or_default() += 1;
                hold!(engine.run(instance) == Some(*run), "run {run} of {instance} is not on record");
                hold!(!engine.shutting_down(), "{instance} is started in a shutdown");
                hold!(unit.kind != Kind::Group, "{instance} is a group, and started");
                let planned = engine.plan().units().get(instance);
                hold!(
                    planned.is_none_or(|planned| !planned.loaded.masked),
                    "{instance} is masked, and started"
                );
                for required in planned.map(|planned| &planned.requires).into_iter().flatten() {
                    let up = view(engine, now, required).is_some_and(|view| view.up);
                    hold!(up, "{instance} is started and {required} that it requires is not up");
                }
                self.bounds.remove(instance);
            }
            Effect::Signal { instance, run, cont: true, .. } => {
                hold!(!self.untouched.contains(instance), "a reload stops {instance}, which runs");
                if !self.resuming {
                    self.in_order(now, engine, host, instance)?;
                }
                let unit = engine.unit(instance).ok_or("a signal for nobody")?;
                let probes = [ProbeKind::Liveness, ProbeKind::Startup];
                let by_probe = probes.iter().filter_map(|kind| unit.probe(*kind)?.stop_timeout).max();
                // What is said once more was decided by the unit of that time.
                let earlier = if self.resuming { LONGEST_STOP } else { Duration::ZERO };
                let limit = unit.stop.timeout.max(by_probe.unwrap_or_default()).max(earlier);
                if self.command.as_ref() != Some(instance) {
                    let until = now.mono.0 + nanos(limit) + self.slack;
                    self.bounds.insert(instance.clone(), Bound { run: *run, until, killed: false });
                }
            }
            Effect::Kill { instance, run, .. } => {
                let until = now.mono.0 + KILL + self.slack;
                self.bounds.insert(instance.clone(), Bound { run: *run, until, killed: true });
            }
            Effect::Event(event) => {
                hold!(event.seq > self.last_seq, "event {} comes after {}", event.seq, self.last_seq);
                self.last_seq = event.seq;
                self.killing(event)?;
            }
            Effect::Endpoints { instance, endpoints } => {
                if endpoints.as_ref().is_some_and(|offer| offer.ready) {
                    self.absent.remove(instance);
                }
                let before = match endpoints {
                    Some(new) => self.offered.insert(instance.clone(), (**new).clone()),
                    None => self.offered.remove(instance),
                };
                let inherited = self.inherited.remove(instance);
                // What the one before has told may be taken back.
                let anew =
                    before.as_ref() != endpoints.as_deref() || endpoints.is_none() && inherited.is_some();
                hold!(anew, "the endpoints of {instance} are told again");
                if let (Some(old), Some(new)) = (inherited, endpoints) {
                    let facts = |offer: &Endpoints| (offer.ready, offer.serving, offer.terminating);
                    // What is on record is exact to the millisecond.
                    let kept = old.since.to_string() == new.since.to_string();
                    hold!(kept || facts(&old) != facts(new), "{instance} was {old:?} and is {new:?}");
                }
            }
            Effect::Forget { instance } => {
                self.offered.remove(instance);
                self.inherited.remove(instance);
                self.ordered.remove(instance);
            }
            Effect::Answer { ticket, answer } => self.answered(now, *ticket, answer, engine, host)?,
            Effect::Exit(_) => {
                self.exits += 1;
                hold!(self.exits == 1, "uphold exits twice");
                hold!(self.shutdown, "uphold exits unasked");
                for name in engine.instances() {
                    let reason = view(engine, now, &name).and_then(|view| view.reason);
                    let left = host.process(&name).is_some() && reason.as_deref() != Some("Unkillable");
                    hold!(!left, "uphold exits and {name} runs on: {reason:?}");
                }
            }
            Effect::Sweep(_) => hold!(engine.shutting_down(), "a sweep without a shutdown"),
            Effect::Signal { cont: false, .. }
            | Effect::Terminate { .. }
            | Effect::Survey { .. }
            | Effect::Probe { .. }
            | Effect::CancelProbe { .. }
            | Effect::Applied { .. } => {}
        }
        Ok(())
    }

    /// No probe kills below its threshold.
    fn killing(&self, event: &Event) -> Result<(), String> {
        if event.kind != EventKind::Normal || event.reason != "Killing" {
            return Ok(());
        }
        for (kind, word) in [(ProbeKind::Liveness, "liveness"), (ProbeKind::Startup, "startup")] {
            if event.message.contains(&format!("failed {word} probe")) {
                let row = self.rows.get(&(event.unit.clone(), kind));
                let enough = row.is_some_and(|row| row.count >= row.threshold);
                hold!(enough, "{} is killed below the {word} probe's threshold", event.unit);
            }
        }
        Ok(())
    }

    /// An effect was on record and was not carried out.
    pub fn undone(&mut self, effect: &Effect) {
        match effect {
            Effect::Spawn { instance, .. } => *self.ordered.entry(instance.clone()).or_default() += 1,
            Effect::Forget { instance } => {
                self.offered.remove(instance);
                self.ordered.remove(instance);
            }
            Effect::Signal { .. }
            | Effect::Terminate { .. }
            | Effect::Kill { .. }
            | Effect::Survey { .. }
            | Effect::Probe { .. }
            | Effect::CancelProbe { .. }
            | Effect::Applied { .. }
            | Effect::Endpoints { .. }
            | Effect::Event(_)
            | Effect::Answer { .. }
            | Effect::Sweep(_)
            | Effect::Exit(_) => {}
        }
    }

    /// Nobody is told to stop before those that need it have stopped.
    fn in_order(&self, now: Time, engine: &Engine, host: &Host, name: &Name) -> Result<(), String> {
        let reason = view(engine, now, name).and_then(|view| view.reason).unwrap_or_default();
        if self.forced || reason == "LivenessFailed" || reason == "StartupFailed" {
            return Ok(());
        }
        let units = engine.plan().units();
        let (mut ahead, mut seen) = (vec![name], BTreeSet::from([name]));
        while let Some(via) = ahead.pop() {
            for dependent in units.get(via).map(|planned| &planned.dependents).into_iter().flatten() {
                let requires = units.get(dependent).is_some_and(|planned| planned.requires.contains(via))
                    && !self.absent.contains(via);
                // An operator's stop may have been let go before the shutdown began, when who only wants it did
                // not count, and have waited since for no more than the exec.
                let ending = engine.shutting_down() && reason != "StoppedByOperator";
                if !(requires || ending) || !seen.insert(dependent) {
                    continue;
                }
                let lives = host.process(dependent).is_some_and(|process| process.alive);
                let stuck = view(engine, now, dependent)
                    .is_some_and(|view| view.reason.as_deref() == Some("Unkillable"));
                hold!(!lives || stuck, "{name} is told to stop while {dependent} that needs it runs");
                // A oneshot that has completed stays up, and so does what requires it.
                let done =
                    view(engine, now, dependent).is_some_and(|view| view.state == StateName::Completed);
                if engine.shutting_down() || !done {
                    ahead.push(dependent);
                }
            }
        }
        Ok(())
    }

    fn answered(
        &mut self,
        now: Time,
        ticket: Ticket,
        answer: &Answer,
        engine: &Engine,
        host: &Host,
    ) -> Result<(), String> {
        let open = self.open.remove(&ticket).ok_or(format!("{ticket:?} is answered and is not open"))?;
        hold!(self.answered.insert(ticket), "{ticket:?} is answered twice");
        let Answer::Done(done) = answer else {
            hold!(open.verb.is_none(), "{ticket:?} was no load");
            return Ok(());
        };
        let several = done.len() > 1;
        for done in done {
            hold!(!done.message.is_empty(), "{ticket:?} has no message for {}", done.name);
            // One of several may have come about, and gone again, before the last did.
            if done.result != DoneResult::Ok || !open.wait || several {
                continue;
            }
            let up = view(engine, now, &done.name).is_some_and(|view| view.up);
            let runs = host.process(&done.name).is_some();
            match open.verb {
                Some(Verb::Start | Verb::Restart | Verb::Wait(Goal::Up | Goal::Ready)) => {
                    hold!(up, "{ticket:?} says that {} is up: {}", done.name, done.message);
                }
                Some(Verb::Stop | Verb::Wait(Goal::Stopped)) => {
                    // The host said so with the input that is being taken.
                    hold!(!runs, "{ticket:?} says that {} has stopped: {}", done.name, done.message);
                }
                Some(Verb::Reset | Verb::Signal(_) | Verb::Wait(Goal::Failed)) | None => {}
            }
        }
        Ok(())
    }

    /// An input was taken and its effects were carried out.
    pub fn after(&mut self, now: Time, input: &Input, engine: &Engine, host: &Host) -> Result<(), String> {
        self.steps += 1;
        if let Some(view) = about(input).and_then(|name| view(engine, now, name)) {
            self.sees(now, &view, engine, host)?;
            self.shows_each_end_once(now, input, &view, engine)?;
        }
        let wide = matches!(input, Input::Load { .. } | Input::Command { .. } | Input::Shutdown);
        if self.exits == 0 && (wide || self.steps.is_multiple_of(SWEEP)) {
            self.sweep(now, engine, host)?;
        }
        Ok(())
    }

    /// The end of a main process is shown with the input that tells of it, and nothing else adds one.
    fn shows_each_end_once(
        &self,
        now: Time,
        input: &Input,
        view: &View,
        engine: &Engine,
    ) -> Result<(), String> {
        let (mut expected, pid) = self.before.clone();
        let name = &view.name;
        match input {
            Input::SpawnFailed { .. } => return Ok(()),
            Input::Exited { run, .. } if pid.is_some() && engine.run(name) == Some(*run) => {
                let last = view.last_exit.clone().filter(|last| last.finished_at == now.wall);
                expected.push(last.ok_or(format!("{name} has ended, and does not show it"))?);
                expected.drain(..expected.len().saturating_sub(10));
            }
            _ => {}
        }
        hold!(view.exits == expected, "{name} shows other ends than it had: {:?}", view.exits);
        Ok(())
    }

    fn sweep(&mut self, now: Time, engine: &Engine, host: &Host) -> Result<(), String> {
        for name in engine.instances() {
            let view = view(engine, now, &name).ok_or("an instance without a view")?;
            self.sees(now, &view, engine, host)?;
            let events = engine.events(Some(&name), 0).len();
            hold!(events <= 100, "{name} has {events} events");
            hold!(view.exits.len() <= 10, "{name} shows {} exits", view.exits.len());
        }
        for name in engine.plan().units().keys() {
            // After a death in a shutdown the files are read, and nothing of them is applied.
            hold!(
                engine.shutting_down() || engine.unit(name).is_some(),
                "{name} is in the plan and is nowhere"
            );
        }
        for (ticket, open) in &self.open {
            let late = open.until.is_some_and(|until| now.mono.0 > until);
            hold!(!late, "{ticket:?} is not answered in its time");
        }
        for (name, bound) in &self.bounds {
            let process = host.process(name).filter(|process| process.run == bound.run && process.born);
            if process.is_none() || now.mono.0 <= bound.until {
                continue;
            }
            let stuck =
                view(engine, now, name).is_some_and(|view| view.reason.as_deref() == Some("Unkillable"));
            hold!(bound.killed && stuck, "the stop of {name} does not end in its time");
        }
        Ok(())
    }

    fn sees(&mut self, now: Time, view: &View, engine: &Engine, host: &Host) -> Result<(), String> {
        let name = &view.name;
        if view.up {
            self.absent.remove(name);
        }
        let alive = host.process(name).filter(|process| process.born && !process.exited);
        hold!(view.pid.is_some() == alive.is_some(), "{name} shows pid {:?}, and {alive:?} lives", view.pid);
        let well = view.up && view.ready != Some(false);
        hold!(well == view.reason.is_none(), "{name} is up {} and its reason is {:?}", view.up, view.reason);
        hold!(
            view.reason.is_none() || view.message.as_ref().is_some_and(|m| !m.is_empty()),
            "{name} has a reason and no message"
        );
        let service = view.kind == "simple";
        hold!(view.ready.is_some() == service, "{name} is {} and ready is {:?}", view.kind, view.ready);
        hold!(view.up || view.ready != Some(true), "{name} is ready and not up");
        let ordered = self.ordered.get(name).copied().unwrap_or_default();
        hold!(view.restarts <= ordered, "{name} was started {ordered} times and restarted {}", view.restarts);
        let ends = engine.shutting_down() || view.reason.as_deref() != Some("ShuttingDown");
        hold!(ends, "{name} is down for a shutdown that there is none of");
        let offered = self.offered.get(name);
        let started = service && engine.run(name).is_some();
        hold!(offered.is_some() == started, "{name} has run {:?} and offers {offered:?}", engine.run(name));
        let stops = view.state == StateName::Stopping;
        let told = |offer: &Endpoints| {
            (view.ready == Some(true), stops, &view.reason) == (offer.ready, offer.terminating, &offer.reason)
                && offer.serving == (offer.ready || (offer.serving && stops && view.pid.is_some()))
        };
        hold!(offered.is_none_or(told), "{name} is {view:?} and offers {offered:?}");
        let before = self.seen.insert(name.clone(), view.state);
        if view.state == StateName::Backoff && before != Some(StateName::Backoff) {
            let rules = &engine.unit(name).ok_or("no unit")?.restart;
            let most = rules.max_delay.mul_f64(1.0 + rules.jitter) + Duration::from_micros(1);
            let next = view.next_start_at.ok_or(format!("{name} is in backoff for ever"))?;
            hold!(
                next.since(now.wall) <= most,
                "{name} waits {:?}, more than {most:?}",
                next.since(now.wall)
            );
        }
        Ok(())
    }

    /// uphold has exited.
    pub fn after_exit(&self) -> Result<(), String> {
        hold!(self.open.is_empty(), "uphold exits and owes answers to {:?}", self.open.keys());
        Ok(())
    }

    /// The world has been calm for long.
    pub fn at_the_end(&mut self, engine: &Engine, host: &Host, now: Time) -> Result<(), String> {
        self.sweep(now, engine, host)?;
        let lives = self.command.as_ref().is_some_and(|name| host.process(name).is_some());
        hold!(!engine.shutting_down() || (lives && !self.command_bound), "the shutdown does not end");
        let mut quiet = self.open.is_empty();
        for name in engine.instances() {
            let view = view(engine, now, &name).ok_or("no view")?;
            quiet &= view.pid.is_none() || view.kind == "oneshot" || !probed(engine, &name);
            if engine.shutting_down() || view.wanted == Wanted::Down {
                hold!(lives || view.pid.is_none(), "{name} is not wanted and runs on");
                continue;
            }
            self.is_where_it_should_be(now, engine, &view)?;
        }
        for (ticket, open) in &self.open {
            let patient =
                matches!(open.verb, Some(Verb::Wait(Goal::Stopped | Goal::Failed | Goal::Ready | Goal::Up)));
            hold!(patient, "{ticket:?} ({:?}) is never answered", open.verb);
        }
        hold!(
            !quiet || engine.next_deadline().is_none(),
            "it is idle, and wakes up at {:?}",
            engine.next_deadline()
        );
        Ok(())
    }

    fn is_where_it_should_be(&self, now: Time, engine: &Engine, on: &View) -> Result<(), String> {
        let name = &on.name;
        let held = engine.plan().units().get(name).is_some_and(|planned| {
            planned.waits_for().any(|needed| view(engine, now, needed).is_none_or(|needed| !needed.up))
        });
        let fine = match on.state {
            StateName::Running => on.ready != Some(false),
            StateName::Failed | StateName::Completed => true,
            StateName::Waiting => held,
            // A oneshot is on its way; so is one that crashes for ever by its own policy.
            StateName::Starting | StateName::Backoff | StateName::Stopping => on.kind == "oneshot",
            StateName::Inactive => false,
        };
        hold!(
            fine,
            "{name} is wanted, and is {} long after: {:?} {:?}",
            on.state.as_str(),
            on.reason,
            on.message
        );
        Ok(())
    }
}

fn probed(engine: &Engine, name: &Name) -> bool {
    engine
        .unit(name)
        .is_some_and(|unit| unit.liveness.is_some() || unit.readiness.is_some() || unit.startup.is_some())
}
