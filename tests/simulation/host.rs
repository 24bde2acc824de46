//! A host that obeys, with processes that do not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use uphold::engine::{Effect, Exit, Input, Outcome, Run, SpawnFailure};
use uphold::unit::{Kind, Name, ProbeKind, Signal, Unit};

use super::Dice;
use super::world::{Agenda, Happening};

/// Something that comes about at the host by itself.
#[derive(Debug, Clone)]
pub enum News {
    /// The spawn comes to its end.
    Spawn(Name, Run),
    /// Taken over: it was to be stopped before it had begun.
    NotBegun(Name, Run),
    /// The main process ends: of its own accord, or by a signal.
    Dies(Name, Run, Exit, bool),
    /// The host has looked for what the main process left.
    Looked(Name, Run),
    /// What it left ends.
    LeftDies(Name, Run),
    /// The answer to a survey.
    Surveyed(Name, Run),
    /// An attempt of a probe, by its number.
    Probed(Name, Run, ProbeKind, u64),
    /// Taken over: the start of this one had not been heard of.
    Found(Name, Run),
    /// Taken over: it ended while nobody looked.
    FoundDead(Name, Run, Exit),
}

impl News {
    /// Whether it comes about without uphold.
    pub fn is_physical(&self) -> bool {
        match self {
            News::Dies(..) | News::LeftDies(..) => true,
            News::Spawn(..)
            | News::NotBegun(..)
            | News::Looked(..)
            | News::Surveyed(..)
            | News::Probed(..)
            | News::Found(..)
            | News::FoundDead(..) => false,
        }
    }
}

/// One run.
#[derive(Debug)]
pub struct Process {
    /// Which.
    pub run: Run,
    /// As what.
    pub unit: Arc<Unit>,
    /// Its exec succeeded.
    pub(super) begun: bool,
    /// Its exec succeeded, and that was said.
    pub born: bool,
    /// Its main process lives.
    pub alive: bool,
    /// So many others that it made live.
    pub left: u32,
    /// Its end was said.
    pub exited: bool,
    /// How long after a polite signal it goes; `None`: it does not.
    polite: Option<Duration>,
    /// How long after SIGKILL; `None`: for ever.
    mortal: Option<Duration>,
    /// A signal that ends what obeys was sent.
    told: bool,
    /// The signal of a stop was sent.
    stopped: bool,
    /// How its main process ended.
    pub(super) exit: Option<Exit>,
    /// So many attempts of probes in a hundred fail.
    sick: u64,
    /// The attempts in flight.
    pub(super) probes: BTreeMap<ProbeKind, u64>,
}

/// All runs that are not over.
#[derive(Default)]
pub struct Host {
    pub(super) processes: BTreeMap<Name, Process>,
    /// The last of each instance that are over: who has heard of it may forget it.
    pub(super) over: BTreeMap<Name, Process>,
    attempts: u64,
}

fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap()
}

fn killed() -> Exit {
    Exit::Signal { signal: Signal::KILL, oom: false }
}

impl Host {
    /// The run that is not over.
    pub fn process(&self, name: &Name) -> Option<&Process> {
        self.processes.get(name)
    }

    /// A process that was started is not over.
    pub fn has_begun(&self) -> bool {
        self.processes.values().any(|process| process.begun)
    }

    pub(super) fn of(&mut self, name: &Name, run: Run) -> Option<&mut Process> {
        self.processes.get_mut(name).filter(|process| process.run == run)
    }

    /// Does what an effect says.
    pub fn obey(
        &mut self,
        effect: &Effect,
        now: u64,
        calm: bool,
        dice: &mut Dice,
        agenda: &mut Agenda,
    ) -> Result<(), String> {
        let mut soon = |within: Duration, dice: &mut Dice, news: News| {
            agenda.add(now + nanos(dice.wait(within)), Happening::Host(news));
        };
        match effect {
            Effect::Spawn { instance, run, unit } => {
                if let Some(old) = self.processes.get(instance) {
                    return Err(format!("{instance} is started while its run {} is not over", old.run));
                }
                self.processes.insert(instance.clone(), Process::roll(*run, unit, calm, dice));
                let slow = if dice.percent(3) { 40_000 } else { 50 };
                soon(Duration::from_millis(slow), dice, News::Spawn(instance.clone(), *run));
            }
            Effect::Signal { instance, run, signal, cont, .. } => {
                let Some(process) = self.of(instance, *run) else { return Ok(()) };
                if !process.born || process.exited {
                    return Err(format!("{instance} gets {} and has no main process", signal.name()));
                }
                if *cont && std::mem::replace(&mut process.stopped, true) {
                    return Ok(());
                }
                let lethal = *signal == Signal::KILL;
                let goes = if lethal { process.mortal } else { process.polite };
                let ends = lethal || *signal == Signal::TERM || *signal == Signal::INT;
                process.told |= ends;
                if let Some(within) = goes.filter(|_| ends) {
                    let exit = Exit::Signal { signal: *signal, oom: false };
                    soon(within, dice, News::Dies(instance.clone(), *run, exit, false));
                }
            }
            Effect::Terminate { instance, run } => {
                let Some(process) = self.of(instance, *run) else { return Ok(()) };
                if let Some(within) = process.polite {
                    soon(within, dice, News::LeftDies(instance.clone(), *run));
                }
            }
            Effect::Kill { instance, run, main_only } => {
                let Some(process) = self.of(instance, *run) else { return Ok(()) };
                process.told |= process.begun;
                if let Some(within) = process.mortal.filter(|_| process.begun) {
                    soon(within, dice, News::Dies(instance.clone(), *run, killed(), false));
                    if !main_only {
                        soon(within, dice, News::LeftDies(instance.clone(), *run));
                    }
                }
            }
            Effect::Survey { instance, run } => {
                soon(Duration::from_millis(1500), dice, News::Surveyed(instance.clone(), *run));
            }
            Effect::Probe { instance, run, kind, probe, .. } => {
                self.attempts += 1;
                let number = self.attempts;
                let Some(process) = self.of(instance, *run).filter(|process| process.born && !process.exited)
                else {
                    return Err(format!("{instance} is probed and has no main process"));
                };
                if process.probes.insert(*kind, number).is_some() {
                    return Err(format!("a second {kind:?} attempt on {instance} beside the first"));
                }
                soon(probe.timeout, dice, News::Probed(instance.clone(), *run, *kind, number));
            }
            Effect::CancelProbe { instance, run, kind } => {
                let Some(process) = self.of(instance, *run) else { return Ok(()) };
                if process.probes.remove(kind).is_none() {
                    return Err(format!("a {kind:?} attempt on {instance} is cancelled, and there is none"));
                }
            }
            Effect::Applied { .. }
            | Effect::Forget { .. }
            | Effect::Endpoints { .. }
            | Effect::Event(_)
            | Effect::Answer { .. }
            | Effect::Sweep(_)
            | Effect::Exit(_) => {}
        }
        Ok(())
    }

    /// What is to be said of news, in order.
    pub fn happens(
        &mut self,
        news: News,
        now: u64,
        calm: bool,
        dice: &mut Dice,
        agenda: &mut Agenda,
    ) -> Vec<Input> {
        match news {
            News::Spawn(instance, run) => self.spawns(instance, run, now, calm, dice, agenda),
            News::NotBegun(instance, run) => self.not_begun(instance, run, true),
            News::Dies(instance, run, exit, by_itself) => {
                let Some(process) = self.of(&instance, run).filter(|process| process.alive) else {
                    return Vec::new();
                };
                if by_itself && calm && process.unit.kind == Kind::Simple {
                    return Vec::new();
                }
                if !process.born {
                    // It was found, and that is said first.
                    agenda.add(now, Happening::Host(News::Dies(instance, run, exit, by_itself)));
                    return Vec::new();
                }
                process.alive = false;
                process.exit = Some(exit);
                self.exits(instance, run, exit, now, dice, agenda)
            }
            News::Found(instance, run) => {
                let Some(process) = self.of(&instance, run) else { return Vec::new() };
                process.born = true;
                vec![Input::Spawned { instance, run, pid: u32::try_from(run.0).unwrap() }]
            }
            News::FoundDead(instance, run, exit) => self.exits(instance, run, exit, now, dice, agenda),
            News::Looked(instance, run) => {
                let Some(process) = self.of(&instance, run) else { return Vec::new() };
                // With `stop.leave` only an uphold that takes over looks: it is over with its main process.
                if process.left == 0 || process.unit.stop.leave {
                    self.bury(&instance);
                    return vec![Input::Emptied { instance, run }];
                }
                vec![Input::Left { instance, run, pids: (1000..1000 + process.left).collect() }]
            }
            News::LeftDies(instance, run) => {
                let Some(process) = self.of(&instance, run).filter(|process| process.left > 0) else {
                    return Vec::new();
                };
                process.left = 0;
                if process.exited {
                    self.bury(&instance);
                    return vec![Input::Emptied { instance, run }];
                }
                Vec::new()
            }
            News::Surveyed(instance, run) => {
                let Some(process) = self.of(&instance, run).filter(|process| process.born) else {
                    return Vec::new();
                };
                let pids: Vec<u32> = (1000 - u32::from(process.alive)..1000 + process.left).collect();
                if pids.is_empty() { Vec::new() } else { vec![Input::Left { instance, run, pids }] }
            }
            News::Probed(instance, run, kind, number) => {
                let Some(process) = self.of(&instance, run) else { return Vec::new() };
                if process.probes.get(&kind) != Some(&number) {
                    return Vec::new();
                }
                process.probes.remove(&kind);
                let outcome = match dice.below(100) {
                    roll if roll < process.sick => Outcome::Failure(format!("refused {}", roll % 20)),
                    roll if roll % 20 == 0 && !calm => Outcome::Warning("redirected".to_owned()),
                    roll if roll % 20 == 1 && !calm => Outcome::Error("too many files".to_owned()),
                    _ => Outcome::Success,
                };
                vec![Input::Probed { instance, run, kind, outcome }]
            }
        }
    }

    fn spawns(
        &mut self,
        instance: Name,
        run: Run,
        now: u64,
        calm: bool,
        dice: &mut Dice,
        agenda: &mut Agenda,
    ) -> Vec<Input> {
        if !calm && dice.percent(8) {
            let passing = dice.percent(60);
            return self.not_begun(instance, run, passing);
        }
        self.begin(&instance, run, now, calm, dice, agenda);
        let Some(process) = self.of(&instance, run) else { return Vec::new() };
        process.born = true;
        vec![Input::Spawned { instance, run, pid: u32::try_from(run.0).unwrap() }]
    }

    fn not_begun(&mut self, instance: Name, run: Run, passing: bool) -> Vec<Input> {
        if self.of(&instance, run).is_none() {
            return Vec::new();
        }
        self.processes.remove(&instance);
        let (stage, message) = ("the exec".to_owned(), "no such file".to_owned());
        let failure = SpawnFailure { stage, message, passing, code: 126 };
        vec![Input::SpawnFailed { instance, run, failure }]
    }

    /// The exec succeeds, and nobody knows yet.
    pub(super) fn begin(
        &mut self,
        instance: &Name,
        run: Run,
        now: u64,
        calm: bool,
        dice: &mut Dice,
        agenda: &mut Agenda,
    ) {
        let Some(process) = self.of(instance, run) else { return };
        process.begun = true;
        process.alive = true;
        let lives = if process.unit.kind == Kind::Oneshot { 20 } else { *dice.pick(&[1, 30, 300, 3000]) };
        if process.unit.kind == Kind::Oneshot || !calm {
            let exit = if calm { Exit::Code(0) } else { roll_exit(dice) };
            let at = now + nanos(dice.wait(Duration::from_secs(lives)));
            agenda.add(at, Happening::Host(News::Dies(instance.clone(), run, exit, true)));
        }
    }

    /// What is said of the end of a main process.
    fn exits(
        &mut self,
        instance: Name,
        run: Run,
        exit: Exit,
        now: u64,
        dice: &mut Dice,
        agenda: &mut Agenda,
    ) -> Vec<Input> {
        let Some(process) = self.of(&instance, run) else { return Vec::new() };
        process.exited = true;
        let exited = Input::Exited { instance: instance.clone(), run, exit };
        if process.unit.stop.leave {
            self.bury(&instance);
            return vec![exited, Input::Emptied { instance, run }];
        }
        let at = now + nanos(dice.wait(Duration::from_millis(100)));
        agenda.add(at, Happening::Host(News::Looked(instance, run)));
        vec![exited]
    }

    fn bury(&mut self, instance: &Name) {
        if let Some(process) = self.processes.remove(instance) {
            self.over.insert(instance.clone(), process);
        }
    }

    /// From now on everything obeys.
    pub fn calm(&mut self, now: u64, agenda: &mut Agenda) {
        let soon = Duration::from_millis(10);
        for (name, process) in &mut self.processes {
            process.polite = Some(soon);
            process.mortal = Some(soon);
            process.sick = 0;
            if process.told {
                let at = now + 1_000_000;
                agenda.add(at, Happening::Host(News::Dies(name.clone(), process.run, killed(), false)));
                agenda.add(at, Happening::Host(News::LeftDies(name.clone(), process.run)));
            }
        }
    }
}

impl Process {
    pub(super) fn roll(run: Run, unit: &Arc<Unit>, calm: bool, dice: &mut Dice) -> Process {
        let wild = !calm;
        let seconds = *dice.pick(&[0, 0, 1, 10]);
        Process {
            run,
            unit: unit.clone(),
            begun: false,
            born: false,
            alive: false,
            left: if wild && dice.percent(20) { 1 + u32::try_from(dice.below(3)).unwrap() } else { 0 },
            exited: false,
            polite: (!wild || dice.percent(80)).then(|| Duration::from_millis(10 + 1000 * seconds)),
            mortal: (!wild || dice.percent(97)).then(|| Duration::from_millis(10)),
            told: false,
            stopped: false,
            exit: None,
            sick: if wild { *dice.pick(&[0, 0, 10, 60, 100]) } else { 0 },
            probes: BTreeMap::new(),
        }
    }
}

fn roll_exit(dice: &mut Dice) -> Exit {
    match dice.below(8) {
        0..3 => Exit::Code(0),
        3..5 => Exit::Code(1),
        5 => Exit::Code(3),
        6 => Exit::Signal { signal: Signal::KILL, oom: dice.percent(50) },
        _ => Exit::Unknown,
    }
}
