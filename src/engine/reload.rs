//! New files: the first plan, `daemon-reload` and `update`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Engine;
use super::input::{Answer, Effect, Ticket};
use super::instance::{Idle, Instance, Next, State, Step};
use super::order::is_at_rest;
use super::time::Time;
use super::view::{Changes, Wanted};
use crate::plan::{self, Change, Plan, Planned};
use crate::unit::{Kind, Loaded, Name, Set, Unit};

impl Engine {
    /// What a `Load` of this plan would change.
    pub fn preview(&self, plan: &Plan, update: bool) -> Changes {
        let mut changes = self.differences(plan, update);
        self.add_dependents(plan, &mut changes);
        changes
    }

    /// Names what goes along with what is restarted or stopped.
    fn add_dependents(&self, plan: &Plan, changes: &mut Changes) {
        let stopping: Vec<Name> = changes.restarted.iter().chain(&changes.stopped).cloned().collect();
        changes.dependents = self.dependents_by(plan, &stopping);
    }

    fn differences(&self, plan: &Plan, update: bool) -> Changes {
        let mut changes = Changes::default();
        for (name, planned) in plan.units() {
            match self.instances.get(name) {
                Some(instance) => instance.preview(planned, update, &mut changes),
                None => {
                    changes.added.push(name.clone());
                    if planned.loaded.unit.autostart && !planned.loaded.masked {
                        changes.started.push(name.clone());
                    }
                }
            }
        }
        for (name, instance) in self.instances.iter().filter(|(name, _)| !plan.units().contains_key(*name)) {
            changes.removed.push(name.clone());
            if update && instance.occupies() {
                changes.stopped.push(name.clone());
            }
        }
        changes
    }

    pub(super) fn load(
        &mut self,
        now: Time,
        effects: &mut Vec<Effect>,
        plan: Arc<Plan>,
        update: bool,
        ticket: Option<Ticket>,
    ) {
        let mut changes =
            if self.ending.is_some() { Changes::default() } else { self.differences(&plan, update) };
        self.add_dependents(&plan, &mut changes);
        if self.ending.is_none() {
            let other = self.other_command(&plan);
            self.apply(now, effects, plan, &changes);
            if let Some(name) = other {
                self.replace_command(now, effects, &name);
            }
        } else if self.plan.units().is_empty() {
            // Started again in the middle of a shutdown: that goes on in its order.
            self.follow_plan(self.plan_of_before(plan));
        }
        if let Some(ticket) = ticket {
            effects.push(Effect::Answer { ticket, answer: Answer::Loaded(Box::new(changes)) });
        }
    }

    /// The plan that was followed when this state was saved, with what of the files is still as it was.
    fn plan_of_before(&self, files: Arc<Plan>) -> Arc<Plan> {
        let mut set = Set::default();
        for (name, instance) in &self.instances {
            let Some((unit, masked)) = instance.in_plan() else { continue };
            let there = files.units().get(name).map(|planned| &planned.loaded);
            let loaded = match there.filter(|there| there.says(unit, masked)) {
                Some(same) => same.clone(),
                None => {
                    let files = there.map(|there| there.files.clone()).unwrap_or_default();
                    Arc::new(Loaded::remembered(unit.clone(), masked, files))
                }
            };
            set.units.insert(name.clone(), loaded);
        }
        // It was a good plan.
        Plan::new(&set).map_or(files, |(plan, _)| Arc::new(plan))
    }

    fn follow_plan(&mut self, plan: Arc<Plan>) {
        self.plan = plan;
        // What is to be looked at stands there by its rank in the plan before.
        for (_, name) in std::mem::take(&mut self.dirty) {
            self.mark(&name);
        }
    }

    fn apply(&mut self, now: Time, effects: &mut Vec<Effect>, plan: Arc<Plan>, changes: &Changes) {
        self.follow_plan(plan.clone());
        let mut added = BTreeMap::new();
        for (name, planned) in plan.units() {
            let loaded = &planned.loaded;
            match self.instances.get(name) {
                Some(instance) => drop(added.insert(name.clone(), instance.requires_newly(planned))),
                None => {
                    let new = Instance::new(now, loaded.unit.clone(), loaded.masked);
                    self.instances.insert(name.clone(), new);
                }
            }
            self.step(now, effects, name, |instance, step| {
                instance.removed = false;
                instance.masked = loaded.masked;
                instance.read_again(step, &loaded.unit);
            });
        }
        self.spare(&changes.stopped, &added);
        for name in &changes.removed {
            // A masked unit is named there too, and stays in the plan.
            let gone = !plan.units().contains_key(name);
            self.step(now, effects, name, |instance, step| {
                instance.removed = gone;
                if let State::Waiting(_) = instance.state
                    && gone
                {
                    instance.ask_stop(step, Next::Inactive(Idle::Removed));
                }
            });
        }
        for name in &changes.stopped {
            self.step(now, effects, name, |instance, step| {
                let idle = if instance.masked { Idle::Masked } else { Idle::Removed };
                instance.wanted = Wanted::Down;
                instance.ask_stop(step, Next::Inactive(idle));
            });
        }
        for name in &changes.restarted {
            self.step(now, effects, name, |instance, step| instance.restart(step));
        }
        self.activate(now, effects, &changes.started);
        self.activate(now, effects, &changes.restarted);
    }

    /// New files touch no process: what is not up when they are read is waited for by the next start alone of
    /// what requires it by now, until it was up. `stopped`: what goes with the reading itself. `added`: what each
    /// requires since.
    fn spare(&mut self, stopped: &[Name], added: &BTreeMap<Name, BTreeSet<Name>>) {
        let absent: BTreeSet<Name> =
            self.instances.keys().filter(|name| !self.is_there(name)).cloned().collect();
        let mut down: BTreeSet<Name> = self
            .instances
            .values()
            .filter(|instance| {
                let face = instance.face();
                let masked = instance.masked && !face.occupied && !stopped.contains(&instance.name);
                masked || (face.gone && !(face.stopping && face.occupied))
            })
            .map(|instance| instance.name.clone())
            .collect();
        let mut live: Vec<&Planned> = self.plan.units().values().collect();
        // A group among what is required goes down first.
        live.sort_by_key(|planned| planned.rank);
        for planned in live {
            let name = &planned.loaded.unit.name;
            let Some(instance) = self.instances.get_mut(name).filter(|instance| !is_at_rest(&instance.state))
            else {
                continue;
            };
            let mut required = planned.requires.iter();
            match instance.unit.kind {
                // It has no process, and is no more than what it requires.
                Kind::Group if required.any(|required| down.contains(required)) => {
                    down.insert(name.clone());
                }
                Kind::Group => {}
                Kind::Simple | Kind::Oneshot => {
                    let is_new = |required: &Name| added.get(name).is_some_and(|new| new.contains(required));
                    let spared = |required: &&Name| {
                        down.contains(*required) || is_new(required) && absent.contains(*required)
                    };
                    instance.spared.extend(required.filter(spared).cloned());
                }
            }
        }
    }
}

impl Instance {
    /// Something of it would have to stop.
    fn occupies(&self) -> bool {
        match &self.state {
            State::Starting(_)
            | State::Running(_)
            | State::Assembled
            | State::Stopping(_)
            | State::Backoff(_)
            | State::Waiting(_) => true,
            State::Inactive(_) | State::Failed(_) | State::Completed => false,
        }
    }

    /// It has a process, or stands for some: what was changed may have to wait for the next.
    pub(super) fn is_set(&self) -> bool {
        self.life().is_some() || matches!(self.state, State::Assembled)
    }

    fn preview(&self, planned: &Planned, update: bool, changes: &mut Changes) {
        let name = || self.name.clone();
        let new = &planned.loaded.unit;
        let change = plan::compare(self.pending.as_ref().unwrap_or(&self.unit), new);
        let needs_restart = self.is_set() && plan::compare(&self.unit, new) == Change::Restart;
        if planned.loaded.masked {
            if !self.masked {
                changes.removed.push(name());
            }
            if update && self.occupies() {
                changes.stopped.push(name());
            }
            return;
        }
        if self.masked && !planned.loaded.masked {
            changes.added.push(name());
            if new.autostart && matches!(self.state, State::Inactive(_)) {
                changes.started.push(name());
            }
            return;
        }
        if needs_restart && update && self.wanted == Wanted::Up {
            changes.restarted.push(name());
        } else if needs_restart {
            changes.restart_needed.push(name());
        } else if change != Change::Same {
            changes.applied.push(name());
        }
        if update {
            let changed = change != Change::Same;
            match (&self.state, self.wanted) {
                (State::Failed(_) | State::Backoff(_), Wanted::Up) if changed => changes.started.push(name()),
                (State::Inactive(Idle::NotAutostarted), Wanted::Down) if new.autostart => {
                    changes.started.push(name());
                }
                (
                    State::Failed(_)
                    | State::Backoff(_)
                    | State::Inactive(_)
                    | State::Waiting(_)
                    | State::Starting(_)
                    | State::Running(_)
                    | State::Assembled
                    | State::Stopping(_)
                    | State::Completed,
                    Wanted::Up | Wanted::Down,
                ) => {}
            }
        }
    }

    /// What a plan has it require that it did not so far.
    fn requires_newly(&self, planned: &Planned) -> BTreeSet<Name> {
        let known = &self.pending.as_ref().unwrap_or(&self.unit).requires;
        planned.requires.iter().filter(|required| !known.contains(required)).cloned().collect()
    }

    /// Its text was read again.
    fn read_again(&mut self, step: &mut Step, new: &Arc<Unit>) {
        if self.masked != matches!(self.state, State::Inactive(Idle::Masked))
            && let State::Inactive(idle) = &mut self.state
        {
            *idle = if self.masked { Idle::Masked } else { Idle::NotAutostarted };
        }
        if self.masked {
            return;
        }
        let in_effect = if self.is_set() { plan::live(&self.unit, new) } else { (**new).clone() };
        self.pending = (in_effect != **new).then(|| new.clone());
        if in_effect == *self.unit {
            return;
        }
        self.unit = if self.pending.is_none() { new.clone() } else { Arc::new(in_effect) };
        let (name, unit) = (self.name.clone(), self.unit.clone());
        self.update_probes(step);
        step.effect(Effect::Applied { instance: name, unit });
        self.advance(step);
    }

    fn update_probes(&mut self, step: &mut Step) {
        let unit = self.unit.clone();
        let life = match &mut self.state {
            State::Starting(life) | State::Running(life) => life,
            State::Inactive(_)
            | State::Waiting(_)
            | State::Assembled
            | State::Stopping(_)
            | State::Backoff(_)
            | State::Failed(_)
            | State::Completed => return,
        };
        let Some(born) = &mut life.born else { return };
        let cancelled = born.workers.update(&unit, step.now.mono);
        let ready = born.workers.open && born.workers.ready() != Some(false);
        life.cancel(&self.name, step, cancelled);
        if ready && self.probes_decide() {
            self.rise(step);
        }
    }
}

impl Changes {
    /// Nothing is different.
    pub fn is_empty(&self) -> bool {
        let lists: [&Vec<Name>; 8] = [
            &self.added,
            &self.applied,
            &self.restart_needed,
            &self.removed,
            &self.started,
            &self.restarted,
            &self.stopped,
            &self.dependents,
        ];
        lists.iter().all(|list| list.is_empty()) && self.settings.is_empty()
    }
}
