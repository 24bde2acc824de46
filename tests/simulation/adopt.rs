//! The processes of an uphold that is no more, and a host that takes them over.

use uphold::engine::{Exit, Run, SoFar, Taken};
use uphold::unit::Name;

use super::Dice;
use super::host::{Host, News, Process};
use super::world::{Agenda, Happening};

impl Host {
    /// uphold is no more: what was being spawned may have begun, or never will.
    pub fn orphaned(&mut self, now: u64, dice: &mut Dice, agenda: &mut Agenda) {
        let pending = self.processes.values().filter(|process| !process.begun);
        let pending: Vec<(Name, Run)> =
            pending.map(|process| (process.unit.name.clone(), process.run)).collect();
        for (name, run) in pending {
            if dice.percent(40) {
                self.begin(&name, run, now, false, dice, agenda);
            }
        }
    }

    /// Something happens while there is no uphold.
    pub fn unseen(&mut self, news: News) {
        match news {
            News::Dies(instance, run, exit, _) => {
                if let Some(process) = self.of(&instance, run).filter(|process| process.alive) {
                    process.alive = false;
                    process.exit = Some(exit);
                }
            }
            News::LeftDies(instance, run) => {
                if let Some(process) = self.of(&instance, run) {
                    process.left = 0;
                }
            }
            News::Spawn(..)
            | News::NotBegun(..)
            | News::Looked(..)
            | News::Surveyed(..)
            | News::Probed(..)
            | News::Found(..)
            | News::FoundDead(..) => {}
        }
    }

    /// Takes over what an uphold before has started, as `host::adopt` does. `same`: by an exec, so that every
    /// status is still to be had.
    pub fn adopt(
        &mut self,
        taken: &[Taken],
        same: bool,
        now: u64,
        dice: &mut Dice,
        agenda: &mut Agenda,
    ) -> Result<(), String> {
        for Taken { instance, run, unit, so_far } in taken {
            let (name, run) = (instance.clone(), *run);
            let kept = self.processes.remove(&name);
            let kept = kept.or_else(|| self.over.remove(&name).filter(|process| process.run == run));
            if let Some(other) = kept.as_ref().filter(|process| process.run != run) {
                return Err(format!(
                    "{name} is taken over as run {run}, and its run {} is not over",
                    other.run
                ));
            }
            let mut process = match (kept, so_far) {
                (Some(process), _) => process,
                (None, SoFar::Ordered | SoFar::Revoked) => Process::roll(run, unit, false, dice),
                (None, SoFar::Born | SoFar::Ended) => return Err(format!("run {run} of {name} never was")),
            };
            process.probes.clear();
            process.born = matches!(so_far, SoFar::Born | SoFar::Ended);
            process.exited = *so_far == SoFar::Ended;
            let exit = process.exit.filter(|_| same || dice.percent(50)).unwrap_or(Exit::Unknown);
            let (begun, alive) = (process.begun, process.alive);
            self.processes.insert(name.clone(), process);
            let mut say = |news| agenda.add(now, Happening::Host(news));
            if !begun {
                say(if *so_far == SoFar::Revoked {
                    News::NotBegun(name, run)
                } else {
                    News::Spawn(name, run)
                });
                continue;
            }
            match so_far {
                SoFar::Ordered | SoFar::Revoked => say(News::Found(name.clone(), run)),
                SoFar::Born => {}
                SoFar::Ended => say(News::Looked(name.clone(), run)),
            }
            if !alive && *so_far != SoFar::Ended {
                say(News::FoundDead(name, run, exit));
            }
        }
        let known = |name: &Name| taken.iter().any(|taken| taken.instance == *name);
        match self.processes.keys().find(|name| !known(name)) {
            Some(name) => Err(format!("{name} runs, and nobody takes it over")),
            None => Ok(()),
        }
    }
}
