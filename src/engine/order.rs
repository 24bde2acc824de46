//! What instances mean to one another: who waits for whom, who goes before whom (DESIGN section 5,
//! "Dependencies").

use std::collections::BTreeSet;

use super::Engine;
use super::input::Effect;
use super::instance::{Face, Idle, Instance, Next, Phase, State, Step, Waiting};
use super::time::Time;
use super::view::Wanted;
use crate::plan::{Plan, Planned};
use crate::unit::{Kind, Name};

/// What others make of an instance.
#[derive(Debug, PartialEq, Eq)]
enum Move {
    /// It stays as it is.
    Stay,
    /// Nothing is in its way.
    Start,
    /// Something is.
    Wait(Waiting),
    /// It must not be started.
    Mask,
    /// What it requires is gone: it stops, and waits.
    Leave,
}

impl Engine {
    /// Looks at everything that was touched, and at everything that this touches, until nothing moves.
    ///
    /// It comes to an end whatever the units are. What is looked at here moves in three ways. It starts or
    /// leaves by the faces of what it waits for alone, and those waits are free of cycles (the plan's
    /// promise): so going up from what waits for nothing, each makes at most one such move for each change
    /// of a face below it, and two for the same faces never, since a start asks that all it requires is up,
    /// and a leave that one is gone, which no face is at once. It is released by those above it, once a stop
    /// at most, and a release changes no face that a start or a leave looks at. All else that moves an
    /// instance needs the host, the clock or an operator, that is another input; and a shutdown begins, goes
    /// on to its next stage and ends once each.
    pub(super) fn settle(&mut self, now: Time, effects: &mut Vec<Effect>) {
        loop {
            while let Some((_, name)) = self.dirty.pop_first() {
                self.settle_one(now, effects, &name);
                self.touched.insert(name);
            }
            if self.release_held(now, effects) {
                continue;
            }
            self.check_requests(now, effects);
            self.advance_ending(now, effects);
            if self.dirty.is_empty() {
                return;
            }
        }
    }

    /// Lets stops go on that nobody holds any more; true if there was one. Not before all others have moved:
    /// who is about to leave holds too.
    fn release_held(&mut self, now: Time, effects: &mut Vec<Effect>) -> bool {
        let free: Vec<Name> = self.holding.iter().filter(|name| !self.is_held(name)).cloned().collect();
        for name in &free {
            self.step(now, effects, name, |instance, step| instance.release(step));
        }
        !free.is_empty()
    }

    /// It has to be looked at before this input is done with.
    pub(super) fn mark(&mut self, name: &Name) {
        self.dirty.insert((self.rank(name), name.clone()));
    }

    fn rank(&self, name: &Name) -> u32 {
        self.planned(name).map_or(0, |planned| planned.rank)
    }

    fn settle_one(&mut self, now: Time, effects: &mut Vec<Effect>, name: &Name) {
        self.bind(name);
        loop {
            let moved = self.look(name);
            let stays = matches!(&moved, Move::Stay | Move::Wait(_));
            self.step(now, effects, name, |instance, step| instance.go(step, moved));
            if stays {
                break;
            }
        }
        // The steps above marked it, and it has just been looked at.
        self.dirty.remove(&(self.rank(name), name.clone()));
        let Some(instance) = self.instances.get_mut(name) else { return };
        self.unsaved.insert(name.clone());
        let (before, face) = (instance.shown, instance.face());
        instance.shown = face;
        let ended = std::mem::take(&mut instance.final_end);
        let forgotten = instance.removed && is_at_rest(&instance.state);
        let (status, on_end) = (instance.status(), instance.unit.on_end);
        self.index(name);
        self.offer(now, effects, name);
        if before != face {
            let dependents = self.plan.units().get(name).map(|planned| planned.dependents.clone());
            for dependent in dependents.unwrap_or_default() {
                self.mark(&dependent);
            }
        }
        if ended {
            self.ended_for_good(now, effects, on_end, status);
        }
        if forgotten {
            self.forget(name, effects);
        }
    }

    /// Puts the instance's deadline and hold into the engine's indexes: the only place that does.
    fn index(&mut self, name: &Name) {
        let Some(instance) = self.instances.get_mut(name) else { return };
        let deadline = instance.deadline();
        if deadline != instance.indexed {
            if let Some(old) = instance.indexed {
                self.deadlines.remove(&(old, name.clone()));
            }
            if let Some(new) = deadline {
                self.deadlines.insert((new, name.clone()));
            }
            instance.indexed = deadline;
        }
        if is_holding(&instance.state) {
            self.holding.insert(name.clone());
        } else {
            self.holding.remove(name);
        }
    }

    fn forget(&mut self, name: &Name, effects: &mut Vec<Effect>) {
        self.instances.remove(name);
        self.holding.remove(name);
        self.deadlines.retain(|(_, other)| other != name);
        self.passed_by.remove(name);
        self.unsaved.remove(name);
        self.gone.push(name.clone());
        self.events.forget(name);
        effects.push(Effect::Forget { instance: name.clone() });
    }

    fn look(&self, name: &Name) -> Move {
        let Some(instance) = self.instances.get(name) else { return Move::Stay };
        match &instance.state {
            State::Waiting(_) | State::Backoff(_) if instance.masked => Move::Mask,
            State::Waiting(_) if self.ending.is_some() => Move::Stay,
            State::Waiting(waiting) => match self.obstacle(name) {
                None => Move::Start,
                Some((on, blocked)) => {
                    // It may have crashed and have been about to come back.
                    let stopped = waiting.stopped || self.is_forsaken(name);
                    Move::Wait(Waiting { on: Some(on), blocked, stopped })
                }
            },
            State::Starting(_) | State::Running(_) | State::Assembled | State::Backoff(_) => {
                if self.is_forsaken(name) { Move::Leave } else { Move::Stay }
            }
            // It does not come back by itself then, however long what is left of it lives.
            State::Stopping(stopping)
                if stopping.is_unkillable() && !stopping.is_gone() && self.is_forsaken(name) =>
            {
                Move::Leave
            }
            State::Inactive(_) | State::Stopping(_) | State::Failed(_) | State::Completed => Move::Stay,
        }
    }

    /// Something that it requires is gone.
    fn is_forsaken(&self, name: &Name) -> bool {
        let requires = self.planned(name).map(|planned| planned.requires.as_slice()).unwrap_or_default();
        requires.iter().any(|required| self.shown(required).gone && self.is_bound(name, required))
    }

    /// What it has goes when this goes, which it requires.
    fn is_bound(&self, name: &Name, required: &Name) -> bool {
        self.instances.get(name).is_none_or(|instance| !instance.spared.contains(required))
    }

    /// It is up, and not about to go.
    pub(super) fn is_there(&self, name: &Name) -> bool {
        let face = self.shown(name);
        face.up && !face.stopping
    }

    /// Drops what it was spared of and is there by now, and all of it once it has come to rest.
    fn bind(&mut self, name: &Name) {
        let Some(instance) = self.instances.get(name).filter(|instance| !instance.spared.is_empty()) else {
            return;
        };
        let still = |required: &&Name| !is_at_rest(&instance.state) && !self.is_there(required);
        let spared: BTreeSet<Name> = instance.spared.iter().filter(still).cloned().collect();
        if let Some(instance) = self.instances.get_mut(name) {
            instance.spared = spared;
        }
    }

    /// What the files say of it, unless they are gone.
    fn planned(&self, name: &Name) -> Option<&Planned> {
        self.plan.units().get(name)
    }

    fn shown(&self, name: &Name) -> Face {
        self.instances.get(name).map(Instance::face).unwrap_or_default()
    }

    /// The first dependency that a start has to wait for, and whether that cannot come by itself.
    fn obstacle(&self, name: &Name) -> Option<(Name, bool)> {
        let planned = self.planned(name)?;
        let required = |name: &&Name| !self.shown(name).up;
        let wanted = |name: &&Name| {
            let face = self.shown(name);
            !face.up && !face.settled
        };
        let starting = |name: &&Name| {
            self.instances.get(*name).is_some_and(|instance| instance.wanted == Wanted::Up) && wanted(name)
        };
        // What cannot come is the better answer to "why is it not up".
        let blocked = planned.requires.iter().find(|name| required(name) && self.shown(name).blocked);
        let first = blocked
            .or_else(|| planned.requires.iter().find(required))
            .or_else(|| planned.wants.iter().find(wanted))
            .or_else(|| planned.after.iter().find(starting))?;
        Some((first.clone(), blocked.is_some()))
    }

    /// Whether something has to stop before this one may be told to. It is looked for through what has
    /// nothing to stop, as a group or a oneshot: the order of a stop is the reverse of that of the start.
    fn is_held(&self, name: &Name) -> bool {
        let mut seen = BTreeSet::new();
        seen.insert(name);
        let mut ahead = vec![name];
        while let Some(via) = ahead.pop() {
            let gone = self.shown(via).gone;
            for dependent in self.planned(via).map(|planned| &planned.dependents).into_iter().flatten() {
                let face = self.shown(dependent);
                let requires = || {
                    self.planned(dependent).is_some_and(|planned| planned.requires.contains(via))
                        && self.is_bound(dependent, via)
                };
                if face.occupied && (face.stopping || (gone && requires())) {
                    return true;
                }
                if !face.occupied && seen.insert(dependent) {
                    ahead.push(dependent);
                }
            }
        }
        false
    }

    /// Wants these up, and with them all that they require or want, and theirs.
    ///
    /// `asked`: an operator names them; else autostart does. A dependency that has completed is not run
    /// again, and one in backoff is not hurried.
    pub(super) fn activate(&mut self, now: Time, effects: &mut Vec<Effect>, names: &[Name]) {
        let mut seen = BTreeSet::new();
        seen.extend(names.iter().cloned());
        let mut ahead: Vec<(Name, bool)> = names.iter().map(|name| (name.clone(), true)).collect();
        while let Some((name, named)) = ahead.pop() {
            if let Some(planned) = self.planned(&name) {
                for dependency in planned.requires.iter().chain(&planned.wants) {
                    if seen.insert(dependency.clone()) {
                        ahead.push((dependency.clone(), false));
                    }
                }
            }
            self.step(now, effects, &name, |instance, step| instance.want_up(step, named));
        }
    }

    /// What else a stop or restart of these stops: those that require them, directly or not, and run.
    pub fn dependents(&self, instances: &[Name]) -> Vec<Name> {
        self.dependents_by(&self.plan, instances)
    }

    /// The same by a plan that may not be in effect yet.
    pub(super) fn dependents_by(&self, plan: &Plan, instances: &[Name]) -> Vec<Name> {
        let mut found = BTreeSet::new();
        let mut ahead = instances.to_vec();
        while let Some(via) = ahead.pop() {
            for dependent in plan.units().get(&via).map(|planned| &planned.dependents).into_iter().flatten() {
                let planned = plan.units().get(dependent);
                let requires = planned.is_some_and(|planned| planned.requires.contains(&via))
                    && self.is_bound(dependent, &via);
                let runs = self.instances.get(dependent).is_some_and(|instance| instance.is_live());
                if requires && runs && found.insert(dependent.clone()) {
                    ahead.push(dependent.clone());
                }
            }
        }
        found.into_iter().filter(|name| !instances.contains(name)).collect()
    }
}

pub(super) fn is_at_rest(state: &State) -> bool {
    match state {
        State::Inactive(_) | State::Failed(_) | State::Completed => true,
        State::Waiting(_)
        | State::Starting(_)
        | State::Running(_)
        | State::Assembled
        | State::Stopping(_)
        | State::Backoff(_) => false,
    }
}

fn is_holding(state: &State) -> bool {
    matches!(state, State::Stopping(stopping) if stopping.phase == Phase::Holding)
}

impl Instance {
    /// It runs, or is about to again by itself.
    pub(super) fn is_live(&self) -> bool {
        match &self.state {
            State::Starting(_) | State::Running(_) | State::Assembled | State::Backoff(_) => true,
            State::Inactive(_)
            | State::Waiting(_)
            | State::Stopping(_)
            | State::Failed(_)
            | State::Completed => false,
        }
    }

    fn go(&mut self, step: &mut Step, moved: Move) {
        match moved {
            Move::Stay => {}
            Move::Start => self.start(step),
            Move::Wait(waiting) => self.state = State::Waiting(waiting),
            Move::Mask => {
                self.wanted = Wanted::Down;
                self.enter(step.now, State::Inactive(Idle::Masked));
            }
            Move::Leave => self.ask_stop(step, Next::Again),
        }
    }

    /// It is wanted up: `named` by an operator or autostart, else because something named depends on it.
    fn want_up(&mut self, step: &mut Step, named: bool) {
        if self.masked {
            return;
        }
        self.wanted = Wanted::Up;
        match &mut self.state {
            State::Inactive(_) | State::Failed(_) => self.begin(step),
            State::Completed if named || self.unit.kind != Kind::Oneshot => self.begin(step),
            State::Backoff(_) if named => self.begin(step),
            State::Stopping(stopping) => {
                if named || matches!(stopping.next, Next::Inactive(_)) {
                    self.backoff.reset();
                    self.tried = false;
                    stopping.next = Next::Again;
                }
            }
            State::Completed
            | State::Backoff(_)
            | State::Waiting(_)
            | State::Starting(_)
            | State::Running(_)
            | State::Assembled => {}
        }
    }

    fn begin(&mut self, step: &mut Step) {
        self.backoff.reset();
        self.tried = false;
        self.enter(step.now, State::Waiting(Waiting::default()));
    }

    /// An operator's restart: what runs is stopped first.
    pub(super) fn restart(&mut self, step: &mut Step) {
        self.backoff.reset();
        self.tried = false;
        match &self.state {
            State::Starting(_) | State::Running(_) | State::Assembled | State::Stopping(_) => {
                self.ask_stop(step, Next::Again);
            }
            State::Inactive(_)
            | State::Waiting(_)
            | State::Backoff(_)
            | State::Failed(_)
            | State::Completed => {}
        }
    }

    /// An operator's reset: backoff, the run of restarts and `failed` are forgotten.
    pub(super) fn reset(&mut self, step: &mut Step) {
        self.backoff.reset();
        match &self.state {
            State::Backoff(_) => self.enter(step.now, State::Waiting(Waiting::default())),
            State::Failed(_) => {
                self.wanted = Wanted::Down;
                self.enter(step.now, State::Inactive(Idle::Reset));
            }
            State::Inactive(_)
            | State::Waiting(_)
            | State::Starting(_)
            | State::Running(_)
            | State::Assembled
            | State::Stopping(_)
            | State::Completed => {}
        }
    }
}
