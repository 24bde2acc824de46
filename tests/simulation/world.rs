//! One seeded world: its units, its clocks, its operators, and the loop that carries inputs and effects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use uphold::engine::{Effect, Engine, Goal, Input, Mono, Settings, Ticket, Time, Verb, Wall};
use uphold::plan::Plan;
use uphold::unit::{Kind, Loaded, Name, OnEnd, Policy, Set, Signal, Unit};

use super::Dice;
use super::death::{Blow, Journal};
use super::host::{Host, News};
use super::rules::Rules;
use super::units::{roll_keys, shape};

/// No world makes more steps.
const STEPS: u64 = 400_000;

/// A thing that happens at a time.
#[derive(Debug, Clone)]
pub enum Happening {
    /// At the host.
    Host(News),
    /// Somebody asks for something.
    Operator,
    /// Who asked for something does not wait for the answer.
    Gone(Ticket),
    /// The files change and are read again.
    Reload,
    /// The wall clock steps.
    WallSteps,
    /// A tick that nobody needs.
    SpuriousTick,
    /// uphold gets a signal for COMMAND.
    Forward,
    /// uphold is to end.
    Shutdown,
    /// uphold is killed, and started again.
    Killed,
    /// No child is left.
    Childless,
    /// From now on nothing goes wrong any more.
    Calm,
    /// All that was to come has come.
    End,
}

/// What is still to happen, in order.
#[derive(Default)]
pub struct Agenda {
    items: BTreeMap<(u64, u64), Happening>,
    number: u64,
}

impl Agenda {
    /// Adds one.
    pub fn add(&mut self, at: u64, happening: Happening) {
        self.number += 1;
        self.items.insert((at, self.number), happening);
    }

    fn first(&self) -> Option<u64> {
        self.items.keys().next().map(|(at, _)| *at)
    }

    /// There is no uphold before `back`: what only it does is gone, what happens to it is put off, and what
    /// happens to processes until then is this.
    pub fn pause(&mut self, back: u64) -> Vec<News> {
        let mut unseen = Vec::new();
        for ((at, number), happening) in std::mem::take(&mut self.items) {
            match happening {
                Happening::Host(news) if !news.is_physical() => {}
                Happening::Childless => {}
                Happening::Host(news) if at <= back => unseen.push(news),
                happening => {
                    self.items.insert((at.max(back), number), happening);
                }
            }
        }
        unseen
    }
}

/// A world.
pub struct World {
    pub(super) dice: Dice,
    pub(super) engine: Engine,
    pub(super) host: Host,
    pub(super) rules: Rules,
    pub(super) agenda: Agenda,
    /// CLOCK_MONOTONIC, nanoseconds.
    pub(super) now: u64,
    /// What the wall clock is ahead by.
    pub(super) ahead: i128,
    /// How late a timer may be.
    pub(super) lateness: Duration,
    pub(super) units: BTreeMap<Name, Unit>,
    pub(super) masked: BTreeSet<Name>,
    pub(super) command: Option<Name>,
    /// All names that there may be, each after those that it may wait for.
    pub(super) names: Vec<Name>,
    pub(super) tickets: u64,
    pub(super) calm_at: u64,
    pub(super) calm: bool,
    pub(super) over: bool,
    pub(super) told: bool,
    /// What happens now is only that time passes and probes go on.
    pub(super) quiet: bool,
    pub(super) story: Vec<String>,
    /// `None`: it is never killed.
    pub(super) journal: Option<Journal>,
    /// What is about to strike it.
    pub(super) blow: Option<Blow>,
    /// How often it was killed.
    pub(super) deaths: u64,
    /// What an engine is told once.
    pub(super) settings: Settings,
}

/// So many.
pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl World {
    /// The world of this seed.
    pub fn new(seed: u64, told: bool) -> World {
        let mut dice = Dice::new(seed);
        let count = 2 + dice.below(11);
        let mut labels: Vec<u64> = (0..count + 3).collect();
        for at in (1..labels.len()).rev() {
            labels.swap(at, dice.below(at as u64 + 1) as usize);
        }
        let names: Vec<Name> =
            labels.iter().map(|label| Name::new(&format!("u{label:02}")).unwrap()).collect();
        let lateness = *dice.pick(&[Duration::ZERO, Duration::ZERO, Duration::from_millis(20), secs(3)]);
        let longest = *dice.pick(&[30, 60, 600]);
        let calm_at = 1_000_000_000 * (20 + dice.below(longest));
        let mut world = World {
            engine: Engine::new(Settings::default()),
            host: Host::default(),
            rules: Rules::default(),
            agenda: Agenda::default(),
            now: 0,
            ahead: 1_767_000_000_000_000_000,
            lateness,
            units: BTreeMap::new(),
            masked: BTreeSet::new(),
            command: None,
            names,
            tickets: 0,
            calm_at,
            calm: false,
            over: false,
            told,
            quiet: false,
            story: Vec::new(),
            journal: None,
            blow: None,
            deaths: 0,
            settings: Settings::default(),
            dice,
        };
        for at in 0..usize::try_from(count).unwrap() {
            world.make_unit(at);
        }
        world.settle_in(seed);
        world
    }

    fn settle_in(&mut self, seed: u64) {
        let last = self.units.keys().next_back().cloned().unwrap();
        let mut settings = Settings { seed, sweep: self.dice.percent(50), ..Settings::default() };
        if self.dice.percent(20) {
            settings.shutdown_timeout = Some(self.dice.wait(secs(60)));
        }
        if self.dice.percent(15) {
            let unit = self.units.get_mut(&last).unwrap();
            unit.restart.policy = Policy::Never;
            unit.on_end = OnEnd::Shutdown;
            unit.kind = Kind::Simple;
            // It may have been a group, and COMMAND is known by its words.
            unit.command = vec!["/bin/true".to_owned()];
            unit.autostart = true;
            settings.command = Some(last.clone());
            settings.command_timeout = self.dice.percent(50).then(|| self.dice.wait(secs(40)));
            self.command = Some(last.clone());
        } else if self.dice.percent(15) {
            settings.main = Some(last);
        }
        self.rules.begin(&settings, self.lateness);
        self.settings = settings.clone();
        self.engine = Engine::new(settings);
        let at = |world: &mut World, within: u64, happening| {
            let at = world.dice.below(within);
            world.agenda.add(at, happening);
        };
        at(self, self.calm_at, Happening::Operator);
        if self.dice.percent(70) {
            at(self, self.calm_at, Happening::Reload);
        }
        at(self, self.calm_at, Happening::WallSteps);
        at(self, self.calm_at, Happening::SpuriousTick);
        if self.command.is_some() {
            at(self, self.calm_at, Happening::Forward);
        }
        if self.dice.percent(40) {
            at(self, self.calm_at, Happening::Shutdown);
        }
        if self.dice.percent(50) {
            self.journal = Some(Journal::default());
            at(self, self.calm_at, Happening::Killed);
        }
        self.agenda.add(self.calm_at, Happening::Calm);
        self.agenda.add(self.calm_at + 900_000_000_000, Happening::End);
    }

    fn make_unit(&mut self, at: usize) {
        let dice = &mut self.dice;
        let mut unit = Unit::new(self.names[at].clone());
        unit.command = vec!["/bin/true".to_owned()];
        unit.kind =
            *dice.pick(&[Kind::Simple, Kind::Simple, Kind::Simple, Kind::Simple, Kind::Oneshot, Kind::Group]);
        unit.autostart = dice.percent(75);
        for before in &self.names[..at] {
            if self.units.contains_key(before) && dice.percent(60 / (at as u64 + 1) + 10) {
                match dice.below(4) {
                    0 | 1 => unit.requires.push(before.clone()),
                    2 => unit.wants.push(before.clone()),
                    _ => unit.after.push(before.clone()),
                }
            }
        }
        roll_keys(dice, &mut unit);
        if unit.kind == Kind::Group {
            unit.command.clear();
        }
        if self.command.as_ref() == Some(&unit.name) {
            unit.kind = Kind::Simple;
            unit.command = vec!["/bin/true".to_owned()];
            unit.autostart = true;
            unit.restart.policy = Policy::Never;
            unit.on_end = OnEnd::Shutdown;
        }
        self.units.insert(unit.name.clone(), unit);
    }

    pub(super) fn plan(&self) -> Result<Arc<Plan>, String> {
        let mut set = Set::default();
        for (name, unit) in &self.units {
            let masked = self.masked.contains(name);
            // Of a masked one nothing is read.
            let unit = if masked { Unit::new(name.clone()) } else { unit.clone() };
            let mut loaded = Loaded::synthetic(unit);
            loaded.masked = masked;
            set.units.insert(name.clone(), Arc::new(loaded));
        }
        Plan::new(&set).map(|(plan, _)| Arc::new(plan)).map_err(|problems| format!("no plan: {problems:?}"))
    }

    /// What happened, if it is to be told.
    pub fn story(&self) -> &[String] {
        &self.story
    }

    /// From the first load to the end.
    pub fn live(&mut self) -> Result<(), String> {
        let plan = self.plan()?;
        self.input(Input::Load { plan, update: false, ticket: None })?;
        for _ in 0..STEPS {
            let due = self.engine.next_deadline().map(|due| due.0.max(self.now));
            let next = self.agenda.first().unwrap_or(u64::MAX);
            match due {
                Some(due) if due < next || (due == next && self.dice.percent(50)) => {
                    let late = if self.dice.percent(20) { self.lateness } else { Duration::ZERO };
                    self.now = due;
                    self.now = self.within(late);
                    self.rules.ticked(self.now)?;
                    self.input(Input::Tick)?;
                }
                Some(_) | None => {
                    let Some((at, happening)) = self.agenda.items.pop_first() else {
                        return Err("lost".into());
                    };
                    self.now = self.now.max(at.0);
                    if let Happening::End = happening {
                        return self.rules.at_the_end(&self.engine, &self.host, self.time());
                    }
                    self.happen(happening)?;
                }
            }
            if self.over {
                return self.rules.after_exit();
            }
        }
        Err(format!("no end after {STEPS} steps, at {:?}", Duration::from_nanos(self.now)))
    }

    pub(super) fn time(&self) -> Time {
        Time { mono: Mono(self.now), wall: Wall::from_nanos(self.ahead + i128::from(self.now)) }
    }

    pub(super) fn tell(&mut self, line: impl FnOnce() -> String) {
        // Long and well is no story.
        let dull = self.calm && self.quiet;
        if self.told && !dull {
            self.story.push(format!("{:>14.6} {}", self.now as f64 / 1e9, line()));
        }
    }

    pub(super) fn input(&mut self, input: Input) -> Result<(), String> {
        if self.blow.is_some_and(|blow| blow.loses(&input)) {
            self.tell(|| match &input {
                Input::Load { .. } => "> lost: load".to_owned(),
                input => format!("> lost: {input:?}"),
            });
            return self.killed();
        }
        match &input {
            Input::Load { update, .. } => {
                let units: Vec<String> = self.units.values().map(shape).collect();
                let masked = self.masked.clone();
                self.tell(|| {
                    format!("> load, update {update}, masked {masked:?}:\n    {}", units.join("\n    "))
                });
            }
            input => {
                self.quiet = matches!(input, Input::Tick | Input::Probed { .. });
                self.tell(|| format!("> {input:?}"));
            }
        }
        let time = self.time();
        self.rules.before(time, &input, &self.engine);
        let mut effects = Vec::new();
        self.engine.handle(time, input.clone(), &mut effects);
        let deaths = self.deaths;
        self.conclude(effects)?;
        if self.deaths != deaths {
            return Ok(());
        }
        self.rules.after(self.time(), &input, &self.engine, &self.host)
    }

    /// Records what has changed and carries out the effects.
    pub(super) fn conclude(&mut self, effects: Vec<Effect>) -> Result<(), String> {
        if let Some(journal) = &mut self.journal {
            journal.record(&mut self.engine)?;
        }
        // The end comes once a life, and is seldom hit by chance.
        let ends = effects.iter().any(|effect| matches!(effect, Effect::Sweep(_) | Effect::Exit(_)));
        if ends && self.journal.is_some() && self.dice.percent(30) {
            self.blow = Some(Blow::Recorded { any: true });
        }
        let cut = self.blow.filter(|blow| blow.cuts(&effects));
        let cut = cut.map(|_| usize::try_from(self.dice.below(effects.len() as u64 + 1)).unwrap());
        let (done, undone) = effects.split_at(cut.unwrap_or(effects.len()));
        for effect in done {
            self.carry_out(effect)?;
        }
        if cut.is_none() || self.over {
            return Ok(());
        }
        for effect in undone {
            self.tell(|| format!("    < not done: {effect:.60?}"));
            self.rules.undone(effect);
        }
        self.killed()
    }

    fn carry_out(&mut self, effect: &Effect) -> Result<(), String> {
        let time = self.time();
        self.quiet &= matches!(effect, Effect::Probe { .. });
        match effect {
            Effect::Spawn { instance, run, .. } => self.tell(|| format!("    < spawn {instance} {run}")),
            Effect::Probe { instance, run, kind, .. } => {
                self.tell(|| format!("    < probe {instance} {run} {kind:?}"));
            }
            Effect::Event(event) => {
                self.tell(|| format!("    < event {} {}: {}", event.unit, event.reason, event.message));
            }
            Effect::Applied { instance, .. } => self.tell(|| format!("    < applied {instance}")),
            effect => self.tell(|| format!("    < {effect:?}")),
        }
        self.rules.effect(time, effect, &self.engine, &self.host)?;
        self.host.obey(effect, self.now, self.calm, &mut self.dice, &mut self.agenda)?;
        match effect {
            Effect::Exit(_) => self.over = true,
            Effect::Sweep(signal) if *signal == Signal::KILL || self.dice.percent(50) => {
                let at = self.within(secs(15));
                self.agenda.add(at, Happening::Childless);
            }
            _ => {}
        }
        Ok(())
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::Host(news) => {
                let deaths = self.deaths;
                for input in self.host.happens(news, self.now, self.calm, &mut self.dice, &mut self.agenda) {
                    self.input(input)?;
                    if self.deaths != deaths {
                        break;
                    }
                }
                Ok(())
            }
            Happening::Operator => {
                self.again(40, Happening::Operator);
                self.operate()
            }
            Happening::Gone(ticket) => self.input(Input::Gone { ticket }),
            Happening::Reload => {
                self.again(300, Happening::Reload);
                self.reload()
            }
            Happening::WallSteps => {
                self.ahead += i128::from(self.dice.below(20_000_000_000_000)) - 10_000_000_000_000;
                self.again(300, Happening::WallSteps);
                Ok(())
            }
            Happening::SpuriousTick => {
                self.again(100, Happening::SpuriousTick);
                self.input(Input::Tick)
            }
            Happening::Forward => {
                self.again(200, Happening::Forward);
                let signal = *self.dice.pick(&[Signal::HUP, Signal::HUP, Signal::TERM, Signal::INT]);
                self.input(Input::Forward(signal))
            }
            Happening::Shutdown => {
                if self.dice.percent(30) {
                    let at = self.within(secs(60));
                    self.agenda.add(at, Happening::Shutdown);
                }
                self.input(Input::Shutdown)
            }
            Happening::Killed if self.calm => Ok(()),
            Happening::Killed => {
                self.again(60, Happening::Killed);
                self.strike()
            }
            // A child that has come about since the sweep, or has ended and is still being looked after.
            Happening::Childless if self.host.has_begun() => {
                self.again(1, Happening::Childless);
                Ok(())
            }
            Happening::Childless => self.input(Input::Childless),
            Happening::Calm => {
                self.calm = true;
                // From here on it lives.
                (self.blow, self.journal) = (None, None);
                self.tell(|| "calm".to_owned());
                self.host.calm(self.now, &mut self.agenda);
                Ok(())
            }
            Happening::End => Ok(()),
        }
    }

    /// Some time from now.
    pub(super) fn within(&mut self, length: Duration) -> u64 {
        self.now + u64::try_from(self.dice.wait(length).as_nanos()).unwrap()
    }

    fn again(&mut self, seconds: u64, happening: Happening) {
        let at = self.within(secs(seconds));
        if at < self.calm_at {
            self.agenda.add(at, happening);
        }
    }

    fn operate(&mut self) -> Result<(), String> {
        let known = self.engine.instances();
        if known.is_empty() {
            return Ok(());
        }
        let dice = &mut self.dice;
        let goal = *dice.pick(&[Goal::Up, Goal::Ready, Goal::Stopped, Goal::Failed]);
        let verb = match dice.below(12) {
            0..4 => Verb::Start,
            4..6 => Verb::Stop,
            6..8 => Verb::Restart,
            8 => Verb::Reset,
            9 => Verb::Signal(*dice.pick(&[Signal::HUP, Signal::USR1, Signal::TERM, Signal::KILL])),
            _ => Verb::Wait(goal),
        };
        let mut instances: Vec<Name> = (0..dice.below(3) + 1).map(|_| dice.pick(&known).clone()).collect();
        instances.sort();
        instances.dedup();
        let timeout = dice.percent(40).then(|| dice.wait(secs(60)));
        let wait = dice.percent(80);
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        if self.dice.percent(20) {
            let at = self.within(secs(20));
            self.agenda.add(at, Happening::Gone(ticket));
        }
        self.input(Input::Command { verb, instances, timeout, wait, ticket })
    }

    fn reload(&mut self) -> Result<(), String> {
        for _ in 0..self.dice.below(4) {
            let at = self.dice.below(self.names.len() as u64) as usize;
            let name = self.names[at].clone();
            match self.dice.below(7) {
                0 if self.command.as_ref() != Some(&name) => {
                    self.units.remove(&name);
                    self.masked.remove(&name);
                }
                1 if self.command.as_ref() != Some(&name) && self.units.contains_key(&name) => {
                    if !self.masked.remove(&name) {
                        self.masked.insert(name);
                    }
                }
                2 => self.make_unit(at),
                // What runs comes to require something, which may be down.
                3 if at > 0 && self.units.contains_key(&name) => {
                    let other = self.dice.pick(&self.names[..at]).clone();
                    if let Some(unit) =
                        self.units.get_mut(&name).filter(|unit| !unit.requires.contains(&other))
                    {
                        unit.requires.push(other);
                    }
                }
                4 => {
                    if let Some(unit) = self.units.get_mut(&name) {
                        unit.umask ^= 0o077;
                    }
                }
                _ => {
                    if let Some(unit) =
                        self.units.get_mut(&name).filter(|_| self.command.as_ref() != Some(&name))
                    {
                        roll_keys(&mut self.dice, unit);
                    }
                }
            }
        }
        let known: BTreeSet<Name> = self.units.keys().cloned().collect();
        for unit in self.units.values_mut() {
            unit.requires.retain(|name| known.contains(name));
        }
        let (plan, update) = (self.plan()?, self.dice.percent(50));
        self.tickets += 1;
        self.input(Input::Load { plan, update, ticket: Some(Ticket(self.tickets)) })
    }
}
