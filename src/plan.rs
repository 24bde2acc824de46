//! The plan: units in an order, and what differs between two texts of one.
//!
//! Pure. A [`Plan`] that exists has no cycle, and every name that a unit requires is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::unit::{Loaded, Logs, Name, Problem, Set, Severity, Stop, Unit};

/// Units with their dependencies resolved.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    units: BTreeMap<Name, Planned>,
}

/// One unit of a plan.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The unit and where it came from.
    pub loaded: Arc<Loaded>,
    /// `requires`, all of them in the plan.
    pub requires: Vec<Name>,
    /// `wants`, those in the plan.
    pub wants: Vec<Name>,
    /// `after`, those in the plan.
    pub after: Vec<Name>,
    /// Those that name this one in `requires`, `wants` or `after`: told when it changes, stopped before it.
    pub dependents: Vec<Name>,
    /// Higher than that of everything that this waits for: looked at in its order, no unit is judged by what
    /// one below it was a moment ago.
    pub rank: u32,
}

impl Planned {
    /// Everything that this waits for, whatever the kind of the wait. May name one twice.
    pub fn waits_for(&self) -> impl Iterator<Item = &Name> {
        self.requires.iter().chain(&self.wants).chain(&self.after)
    }
}

/// What differs between two texts of one unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Nothing that means anything.
    Same,
    /// Only keys that take effect without a new process.
    Live,
    /// A key that only a new process can see.
    Restart,
}

impl Plan {
    /// Orders the units of a set. Errors: a required name that no unit has, and a cycle (named whole).
    /// Warnings come beside a good plan: a name in `wants` or `after` that no unit has, and a unit that
    /// requires a masked one.
    pub fn new(set: &Set) -> Result<(Plan, Vec<Problem>), Vec<Problem>> {
        let mut problems = Vec::new();
        let mut plan = Plan::default();
        for (name, loaded) in &set.units {
            let unit = &loaded.unit;
            for missing in unit.requires.iter().filter(|name| !set.units.contains_key(*name)) {
                problems.push(missing_requirement(set, loaded, missing));
            }
            for required in &unit.requires {
                if set.units.get(required).is_some_and(|required| required.masked) {
                    let message =
                        format!("`{name}` requires `{required}`, which is masked: it waits for ever");
                    problems.push(loaded.problem(
                        Severity::Warning,
                        "requires",
                        Some(required.as_str()),
                        message,
                        None,
                    ));
                }
            }
            for (key, names) in [("wants", &unit.wants), ("after", &unit.after)] {
                for missing in names.iter().filter(|name| !set.units.contains_key(*name)) {
                    let message = format!("`{missing}` in `{key}` is ignored: no unit has that name");
                    problems.push(loaded.problem(
                        Severity::Warning,
                        key,
                        Some(missing.as_str()),
                        message,
                        None,
                    ));
                }
            }
            let known = |names: &[Name]| -> Vec<Name> {
                names.iter().filter(|name| set.units.contains_key(*name)).cloned().collect()
            };
            let planned = Planned {
                loaded: loaded.clone(),
                requires: known(&unit.requires),
                wants: known(&unit.wants),
                after: known(&unit.after),
                dependents: Vec::new(),
                rank: 0,
            };
            plan.units.insert(name.clone(), planned);
        }
        for cycle in plan.cycles() {
            problems.push(plan.cycle_problem(&cycle));
        }
        if problems.iter().any(|problem| problem.severity == Severity::Error) {
            return Err(problems);
        }
        plan.link_back();
        plan.rank();
        Ok((plan, problems))
    }

    /// The units by name.
    pub fn units(&self) -> &BTreeMap<Name, Planned> {
        &self.units
    }

    fn link_back(&mut self) {
        let mut dependents: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
        for (name, planned) in &self.units {
            for dependency in planned.waits_for() {
                dependents.entry(dependency.clone()).or_default().insert(name.clone());
            }
        }
        for (name, names) in dependents {
            if let Some(planned) = self.units.get_mut(&name) {
                planned.dependents = names.into_iter().collect();
            }
        }
    }

    /// Gives each unit its rank, from those that wait for nothing upwards.
    fn rank(&mut self) {
        let mut open: BTreeMap<Name, usize> = BTreeMap::new();
        for (name, planned) in &self.units {
            let mut others = BTreeSet::new();
            let waits = planned.waits_for().filter(|name| others.insert(*name)).count();
            open.insert(name.clone(), waits);
        }
        let mut row: Vec<Name> =
            open.iter().filter(|(_, waits)| **waits == 0).map(|(name, _)| name.clone()).collect();
        for rank in 0.. {
            let mut next = Vec::new();
            for name in &row {
                let Some(planned) = self.units.get_mut(name) else { continue };
                planned.rank = rank;
                for dependent in &planned.dependents {
                    if let Some(waits) = open.get_mut(dependent) {
                        *waits = waits.saturating_sub(1);
                        if *waits == 0 {
                            next.push(dependent.clone());
                        }
                    }
                }
            }
            if next.is_empty() {
                return;
            }
            row = next;
        }
    }

    /// Each cycle that a walk over all waits meets, as the names on it in order. A unit that is on several
    /// is named with one of them.
    fn cycles(&self) -> Vec<Vec<Name>> {
        let mut done: BTreeSet<&Name> = BTreeSet::new();
        let mut cycles = Vec::new();
        for start in self.units.keys() {
            // The path from `start`, each with what of its waits was not looked at yet. On the heap: a
            // chain of ten thousand units must not overflow a stack.
            let mut path: Vec<(&Name, Vec<&Name>)> = Vec::new();
            let mut on_path: BTreeSet<&Name> = BTreeSet::new();
            let mut enter = Some(start);
            loop {
                if let Some(name) = enter.take()
                    && !done.contains(name)
                {
                    let waits =
                        self.units.get(name).map(|unit| unit.waits_for().collect()).unwrap_or_default();
                    on_path.insert(name);
                    path.push((name, waits));
                }
                let Some((name, waits)) = path.last_mut() else { break };
                match waits.pop() {
                    Some(next) if on_path.contains(next) => {
                        let from = path.iter().position(|(name, _)| *name == next).unwrap_or(0);
                        cycles.push(path.iter().skip(from).map(|(name, _)| (*name).clone()).collect());
                    }
                    Some(next) => enter = Some(next),
                    None => {
                        on_path.remove(*name);
                        done.insert(name);
                        path.pop();
                    }
                }
            }
        }
        cycles
    }

    fn cycle_problem(&self, cycle: &[Name]) -> Problem {
        let links: Vec<String> = cycle
            .iter()
            .zip(cycle.iter().cycle().skip(1))
            .map(|(from, to)| format!("`{from}` {} `{to}`", self.link(from, to)))
            .collect();
        let (message, help) = match links.as_slice() {
            [link] => (format!("a unit waits for itself: {link}"), "take it out"),
            links => (
                format!("units wait for one another: {}", links.join(", ")),
                "take one of these out of its file",
            ),
        };
        let help = Some(help.to_owned());
        let (first, second) = (cycle.first(), cycle.get(1).or(cycle.first()));
        match (first.and_then(|name| self.units.get(name)), first.zip(second)) {
            (Some(planned), Some((from, to))) => planned.loaded.problem(
                Severity::Error,
                self.link_key(from, to),
                Some(to.as_str()),
                message,
                help,
            ),
            (None, _) | (_, None) => Problem {
                severity: Severity::Error,
                file: Default::default(),
                at: None,
                line: None,
                width: 1,
                message,
                help,
                unit: first.cloned(),
            },
        }
    }

    fn link_key(&self, from: &Name, to: &Name) -> &'static str {
        match self.units.get(from) {
            Some(planned) if planned.requires.contains(to) => "requires",
            Some(planned) if planned.wants.contains(to) => "wants",
            Some(_) | None => "after",
        }
    }

    fn link(&self, from: &Name, to: &Name) -> &'static str {
        match self.link_key(from, to) {
            "after" => "is after",
            key => key,
        }
    }
}

fn missing_requirement(set: &Set, loaded: &Loaded, missing: &Name) -> Problem {
    let name = &loaded.unit.name;
    if set.broken.contains(missing) {
        let message = format!("`{name}` requires `{missing}`, which does not load");
        return loaded.problem(Severity::Error, "requires", Some(missing.as_str()), message, None);
    }
    let help = match set.nearest(missing) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("add a file {missing}.toml, or use `wants`, which ignores what is not there"),
    };
    let message = format!("`{name}` requires `{missing}`, and no unit has that name");
    loaded.problem(Severity::Error, "requires", Some(missing.as_str()), message, Some(help))
}

/// Compares two texts of a unit, key by key.
pub fn compare(old: &Unit, new: &Unit) -> Change {
    if old == new {
        Change::Same
    } else if live(old, new) == *new {
        Change::Live
    } else {
        Change::Restart
    }
}

/// What is in effect for a process that was started as `running` once the files say `new`: each key is
/// either its own, seen only by a new process, or that of `new`, in effect at once. Every key stands here.
pub fn live(running: &Unit, new: &Unit) -> Unit {
    Unit {
        name: new.name.clone(),
        description: new.description.clone(),
        command: running.command.clone(),
        kind: running.kind,
        autostart: new.autostart,
        working_dir: running.working_dir.clone(),
        user: running.user.clone(),
        group: running.group.clone(),
        umask: running.umask,
        directories: running.directories.clone(),
        environment: running.environment.clone(),
        environment_files: running.environment_files.clone(),
        inherit_environment: running.inherit_environment.clone(),
        requires: new.requires.clone(),
        wants: new.wants.clone(),
        after: new.after.clone(),
        up_after: new.up_after,
        start_timeout: new.start_timeout,
        on_end: new.on_end,
        ports: new.ports.clone(),
        restart: new.restart.clone(),
        // What outlives the main process is told from what must not as it is started.
        stop: Stop { leave: running.stop.leave, ..new.stop.clone() },
        liveness: new.liveness.clone(),
        readiness: new.readiness.clone(),
        startup: new.startup.clone(),
        logs: Logs {
            stdout: running.logs.stdout.clone(),
            stderr: running.logs.stderr.clone(),
            timestamps: new.logs.timestamps,
            prefix: new.logs.prefix,
            max_line: new.logs.max_line,
            max_size: new.logs.max_size,
            keep: new.logs.keep,
        },
        limits: running.limits.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::unit::Policy;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn names(texts: &[&str]) -> Vec<Name> {
        texts.iter().map(|text| name(text)).collect()
    }

    /// A name, and its requires, wants and after.
    type Row<'a> = (&'a str, &'a [&'a str], &'a [&'a str], &'a [&'a str]);

    fn set(units: &[Row]) -> Set {
        let mut set = Set::default();
        for (this, requires, wants, after) in units {
            let mut unit = Unit::new(name(this));
            unit.requires = names(requires);
            unit.wants = names(wants);
            unit.after = names(after);
            set.units.insert(name(this), Arc::new(Loaded::synthetic(unit)));
        }
        set
    }

    #[test]
    fn a_cycle_is_named_whole_whatever_its_links() {
        let set = set(&[
            ("a", &["b"], &[], &[]),
            ("b", &[], &["c"], &[]),
            ("c", &[], &[], &["a"]),
            ("d", &["a"], &[], &[]),
        ]);
        let problems = Plan::new(&set).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(
            problems[0].message,
            "units wait for one another: `a` requires `b`, `b` wants `c`, `c` is after `a`"
        );
    }

    #[test]
    fn a_unit_that_waits_for_itself_is_a_cycle() {
        let problems = Plan::new(&set(&[("a", &[], &[], &["a"])])).unwrap_err();
        assert_eq!(problems[0].message, "a unit waits for itself: `a` is after `a`");
    }

    #[test]
    fn a_diamond_is_no_cycle_and_links_back() {
        let set = set(&[
            ("a", &["b", "c"], &[], &[]),
            ("b", &["d"], &[], &[]),
            ("c", &[], &["d"], &["d"]),
            ("d", &[], &[], &[]),
        ]);
        let (plan, warnings) = Plan::new(&set).unwrap();
        assert!(warnings.is_empty());
        assert_eq!(plan.units()[&name("d")].dependents, names(&["b", "c"]));
        let ranks: Vec<u32> = plan.units().values().map(|planned| planned.rank).collect();
        assert_eq!(ranks, [2, 1, 1, 0]);
    }

    #[test]
    fn a_chain_of_twenty_thousand_units_is_walked() {
        let mut set = Set::default();
        for i in 0..20_000 {
            let mut unit = Unit::new(name(&format!("u{i:05}")));
            if i > 0 {
                unit.after = vec![name(&format!("u{:05}", i - 1))];
            }
            set.units.insert(unit.name.clone(), Arc::new(Loaded::synthetic(unit)));
        }
        assert!(Plan::new(&set).is_ok());
    }

    #[test]
    fn a_required_name_that_no_unit_has_is_an_error_and_a_wanted_one_a_warning() {
        let problems = Plan::new(&set(&[("web", &["bd"], &[], &[]), ("db", &[], &[], &[])])).unwrap_err();
        assert_eq!(problems[0].message, "`web` requires `bd`, and no unit has that name");
        let (_, warnings) = Plan::new(&set(&[("web", &[], &["bd"], &["dc"])])).unwrap();
        assert_eq!(warnings.len(), 2);
        assert!(warnings.iter().all(|warning| warning.severity == Severity::Warning));
    }

    #[test]
    fn a_key_of_the_process_needs_a_restart_and_one_of_the_supervisor_does_not() {
        let old = Unit::new(name("web"));
        let mut live = old.clone();
        live.restart.policy = Policy::Never;
        live.logs.keep = 9;
        assert_eq!(compare(&old, &live), Change::Live);
        let mut restart = live.clone();
        restart.umask = 0o077;
        assert_eq!(compare(&old, &restart), Change::Restart);
        assert_eq!(super::live(&old, &restart).umask, 0o022);
        restart.stop.leave = true;
        restart.stop.timeout = Duration::from_secs(1);
        let stop = super::live(&old, &restart).stop;
        assert_eq!((stop.leave, stop.timeout), (false, Duration::from_secs(1)));
        assert_eq!(super::live(&old, &restart).logs.keep, 9);
        assert_eq!(compare(&old, &old.clone()), Change::Same);
    }
}
