//! What an uphold that takes over has in common with the one before.

use uphold::engine::{Engine, StateName, Time};

use super::rules::{KILL, Rules, hold, view};

impl Rules {
    /// uphold was killed, and nobody looked until now. The next one has the state, and has not begun.
    pub fn restored(&mut self, now: Time, old: &Engine, new: &Engine, same: bool) -> Result<(), String> {
        self.open.clear();
        // Proxies are told everything anew.
        self.inherited.extend(std::mem::take(&mut self.offered));
        for bound in self.bounds.values_mut() {
            bound.until = bound.until.max(now.mono.0) + KILL;
        }
        let forgotten = old.shutting_down() && !same;
        if forgotten {
            self.forced = false;
            // COMMAND's time goes on, and ends uphold.
            self.shutdown = self.command.is_some();
        }
        hold!(same || !new.shutting_down(), "a shutdown goes on in an uphold that was started anew");
        hold!(!same || new.shutting_down() == old.shutting_down(), "a shutdown is forgotten");
        let told = |engine: &Engine| -> Vec<String> {
            engine.events(None, 0).iter().map(|event| serde_json::to_string(event).unwrap()).collect()
        };
        let (before, after) = (told(old), told(new));
        let differ = before.iter().zip(&after).find(|(before, after)| before != after);
        hold!(
            differ.is_none() && before.len() == after.len(),
            "{} events became {}: {differ:?}",
            before.len(),
            after.len()
        );
        self.same_views(now, old, new, forgotten)
    }

    /// The next one has looked at the files and has resumed; the one before lives on for comparison, and has
    /// looked at them too.
    pub fn resumed(&mut self, now: Time, old: &Engine, new: &Engine, same: bool) -> Result<(), String> {
        // Whoever was not told by now has no service any more.
        self.inherited.clear();
        if old.shutting_down() && !same {
            return Ok(());
        }
        self.same_views(now, old, new, false)
    }

    /// From here to there what was decided before is said once more.
    pub fn resuming(&mut self, resuming: bool) {
        self.resuming = resuming;
    }

    /// What is shown of each instance is what was shown. `forgotten`: but for the shutdown that is not wanted
    /// any more.
    fn same_views(&self, now: Time, old: &Engine, new: &Engine, forgotten: bool) -> Result<(), String> {
        hold!(old.instances() == new.instances(), "{:?} became {:?}", old.instances(), new.instances());
        for name in old.instances() {
            let shown = |engine: &Engine| {
                let mut view = view(engine, now, &name).ok_or("no view")?;
                view.unit_file = None;
                if forgotten {
                    (view.state, view.up, view.since) = (StateName::Inactive, false, now.wall);
                    (view.reason, view.message) = (None, None);
                }
                serde_json::to_value(view).map_err(|error| error.to_string())
            };
            let (before, after) = (shown(old)?, shown(new)?);
            for (key, before) in before.as_object().into_iter().flatten() {
                let after = &after[key];
                hold!(before == after, "{key} of {name} was {before} and is {after}");
            }
        }
        Ok(())
    }
}
