//! The death of uphold: what was recorded is all that the next one knows, and the processes live on.

use std::sync::Arc;
use std::time::Duration;

use uphold::engine::{Effect, Engine, Input, Saved};
use uphold::plan::Plan;
use uphold::unit::{Loaded, Set};

use super::world::World;

/// The journal is begun anew after so many lines.
const LINES: usize = 300;

/// Where it strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// Between two inputs.
    Between,
    /// Before anything is on record of an input, whichever comes next, or the next that is no routine.
    Unrecorded { any: bool },
    /// After the record, before some or all of the effects; likewise.
    Recorded { any: bool },
}

impl Blow {
    /// This input is lost.
    pub fn loses(self, input: &Input) -> bool {
        match self {
            Blow::Unrecorded { any } => any || !matches!(input, Input::Tick | Input::Probed { .. }),
            Blow::Between | Blow::Recorded { .. } => false,
        }
    }

    /// Of these effects only the first are carried out.
    pub fn cuts(self, effects: &[Effect]) -> bool {
        let routine = |effect: &Effect| matches!(effect, Effect::Probe { .. } | Effect::Event(_));
        match self {
            Blow::Recorded { any } => any || !effects.iter().all(routine),
            Blow::Between | Blow::Unrecorded { .. } => false,
        }
    }
}

/// What is on record, in JSON.
#[derive(Default)]
pub struct Journal {
    lines: Vec<String>,
}

impl Journal {
    fn begin(&mut self, engine: &Engine) -> Result<(), String> {
        let all = serde_json::to_string(&engine.state()).map_err(|error| error.to_string())?;
        self.lines = vec![all];
        Ok(())
    }

    /// Adds what has changed.
    pub fn record(&mut self, engine: &mut Engine) -> Result<(), String> {
        let Some(changes) = engine.changes() else { return Ok(()) };
        if self.lines.len() >= LINES {
            drop(changes);
            return self.begin(engine);
        }
        self.lines.push(serde_json::to_string(&changes).map_err(|error| error.to_string())?);
        Ok(())
    }

    fn read(&self) -> Result<Saved<'static>, String> {
        let mut state = Saved::default();
        for line in &self.lines {
            let change = serde_json::from_str::<Saved<'static>>(line).map_err(|error| error.to_string())?;
            state.merge(change);
        }
        Ok(state)
    }
}

/// The plan of before, as an uphold follows it whose files are bad.
fn remembered(saved: &Saved<'_>) -> Result<Arc<Plan>, String> {
    let mut set = Set::default();
    for (unit, masked) in saved.units() {
        let loaded = Loaded::remembered(unit.clone(), masked, Vec::new());
        set.units.insert(unit.name.clone(), Arc::new(loaded));
    }
    let plan = Plan::new(&set).map(|(plan, _)| Arc::new(plan));
    plan.map_err(|problems| format!("what is remembered is no plan: {problems:?}"))
}

impl World {
    fn roll_blow(&mut self) -> Blow {
        let any = self.dice.percent(20);
        *self.dice.pick(&[Blow::Between, Blow::Unrecorded { any }, Blow::Recorded { any }])
    }

    /// uphold is to die, now or soon.
    pub(super) fn strike(&mut self) -> Result<(), String> {
        let blow = self.roll_blow();
        self.blow = Some(blow);
        if blow == Blow::Between { self.killed() } else { Ok(()) }
    }

    /// uphold is killed, and started again.
    pub(super) fn killed(&mut self) -> Result<(), String> {
        let same = self.dice.percent(50);
        self.blow = None;
        self.rules.resuming(false);
        self.deaths += 1;
        let deaths = self.deaths;
        self.host.orphaned(self.now, &mut self.dice, &mut self.agenda);
        let down = if self.dice.percent(40) { Duration::from_secs(60) } else { Duration::from_nanos(1) };
        let back = self.within(down).min(self.calm_at.max(self.now));
        for news in self.agenda.pause(back) {
            self.host.unseen(news);
        }
        self.now = back;

        // Files that are bad by then change nothing: all goes on as it was.
        let bad = self.dice.percent(30);
        self.tell(|| format!("killed, and back; the same: {same}; bad files: {bad}"));
        let whole = self.dice.percent(20);
        let Some(journal) = &mut self.journal else { return Err("a death that was not to be".to_owned()) };
        if whole {
            journal.begin(&self.engine)?;
        }
        let saved = journal.read()?;
        let remembered = if bad { Some(remembered(&saved)?) } else { None };
        let time = self.time();
        let new = Engine::restored(self.settings.clone(), saved, time, same);
        let mut old = std::mem::replace(&mut self.engine, new);
        self.rules.restored(time, &old, &self.engine, same)?;
        let taken = self.engine.taken();
        self.host.adopt(&taken, same, self.now, &mut self.dice, &mut self.agenda)?;
        if let Some(journal) = &mut self.journal {
            journal.begin(&self.engine)?;
        }

        if self.dice.percent(15) {
            self.blow = Some(self.roll_blow());
        }
        let plan = match remembered {
            Some(plan) => plan,
            None => self.plan()?,
        };
        // The one before lives on for comparison. What is remembered is what it follows, if it has read anything.
        let followed = old.plan().clone();
        let its_own = if bad && !followed.units().is_empty() { followed } else { plan.clone() };
        old.handle(time, Input::Load { plan: its_own, update: false, ticket: None }, &mut Vec::new());
        let load = Input::Load { plan, update: false, ticket: None };
        self.input(load)?;
        if self.deaths != deaths {
            return Ok(());
        }
        if self.blow == Some(Blow::Between) {
            return self.killed();
        }
        let mut effects = Vec::new();
        self.engine.resume(time, &mut effects);
        self.rules.resuming(true);
        self.conclude(effects)?;
        self.rules.resuming(false);
        if self.deaths != deaths {
            return Ok(());
        }
        self.rules.resumed(time, &old, &self.engine, same)
    }
}
