//! From the files to a plan: the first load, `daemon-reload`, `update` and `check` read them alike.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::accounts;
use crate::control::Permissions;
use crate::engine::Saved;
use crate::plan::Plan;
use crate::unit::trust::Trust;
use crate::unit::{self, Config, Dir, Kind, Loaded, Name, Problem, Set, Severity, Sources, Unit};

/// What a load depends on besides the files themselves.
#[derive(Debug, Clone)]
pub struct Files {
    /// The daemon config.
    pub config: PathBuf,
    /// It was named, so it must exist.
    pub config_named: bool,
    /// PID 1 of a machine has to start: what is wrong with the daemon config is said, and it is left out.
    pub must_start: bool,
    /// Where units are looked for.
    pub dirs: Vec<Dir>,
    /// `--main`.
    pub main: Option<Name>,
    /// Who may have written them.
    pub trust: Trust,
    /// uphold's own environment.
    pub environment: BTreeMap<String, String>,
    /// COMMAND of `init`, which stands in no file.
    pub command: Option<Unit>,
}

/// A load that went well.
#[derive(Debug, Clone)]
pub struct Loading {
    /// What it found.
    pub set: Arc<Set>,
    /// The same, ordered.
    pub plan: Arc<Plan>,
    /// What it was read by.
    pub sources: Arc<Sources>,
    /// Who may use the control API by it.
    pub permissions: Permissions,
    /// What it found wrong and could go on with.
    pub warnings: Vec<Problem>,
}

impl Files {
    /// Reads the daemon config; without one, every key has its default. With it comes what is wrong and can be
    /// gone on with: one that was left out, too.
    pub fn read_config(&self) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
        let config = if self.config_named && !self.config.exists() {
            let message = "cannot read the daemon config: there is no such file; correct --config".to_owned();
            Err(vec![plain_problem(self.config.clone(), message)])
        } else {
            unit::config(&self.config, &self.trust)
        };
        match config {
            Ok(mut config) => {
                let warnings = std::mem::take(&mut config.warnings);
                Ok((config, warnings))
            }
            Err(problems) if self.must_start => Ok((Config::default(), problems)),
            Err(problems) => Err(problems),
        }
    }

    /// The daemon config for a load, what is wrong with it, and whether it could not be read: then all is said
    /// of the units that can be said without it.
    fn config_of_load(&self) -> (Config, Vec<Problem>, bool) {
        match self.read_config() {
            Ok((config, warnings)) => (config, warnings, false),
            Err(problems) => (Config::default(), problems, true),
        }
    }

    /// Reads everything. `lenient`: units with an error, and those that cannot do without them, are left
    /// out and their problems come as warnings.
    pub fn load(&self, lenient: bool) -> Result<Loading, Vec<Problem>> {
        self.order(self.find(), lenient, None)
    }

    /// Reads everything, and leaves it as it is.
    fn find(&self) -> Found {
        let (config, mut problems, partial) = self.config_of_load();
        let config_is_bad = problems.iter().any(is_error);
        let main = self.main.clone().or_else(|| config.main.clone());
        let sources = Sources {
            dirs: self.dirs.clone(),
            config,
            main,
            trust: self.trust.clone(),
            environment: self.environment.clone(),
            partial,
        };
        let (set, more) = unit::load(&sources);
        problems.extend(more);
        Found { set, problems, sources, config_is_bad }
    }

    /// For a start that finds what an uphold before ran: whatever the files say, none of it is abandoned, and
    /// what is bad is not taken for what is gone. One bad file, and all stays as it was, as after a
    /// `daemon-reload` that is refused for it; `lenient`: what cannot be loaded does. Then it comes with the
    /// reason.
    pub fn load_after(
        &self,
        state: &Saved<'_>,
        lenient: bool,
    ) -> Result<(Loading, Option<String>), Vec<Problem>> {
        let found = self.find();
        // Where the config is bad, a unit that can be read may lack what its defaults give.
        let ordered = if lenient && !found.config_is_bad {
            self.order(self.with_bad_ones(found.clone(), state), true, Some(state))
        } else {
            self.order(found.clone(), false, None)
        };
        let (loading, going_on) = match ordered {
            Ok(loading) if !loading.set.units.values().any(|loaded| loaded.is_remembered()) => {
                return Ok((loading, None));
            }
            Ok(loading) => {
                (loading, "going on with those that ran before and cannot be loaded, as they were")
            }
            Err(problems) => {
                let going_on = "going on with the units that ran before, as they were";
                (self.remember(found, problems, state)?, going_on)
            }
        };
        let reason = format!("the files have errors: {going_on}: {}", brief(&loading.warnings));
        Ok((loading, Some(reason)))
    }

    /// All as it was before, for these errors, with what of the files is so still.
    fn remember(
        &self,
        found: Found,
        errors: Vec<Problem>,
        state: &Saved<'_>,
    ) -> Result<Loading, Vec<Problem>> {
        let mut set = Set::default();
        for (unit, masked) in state.units().filter(|(unit, _)| !self.is_command(&unit.name)) {
            let there = found.set.units.get(&unit.name).filter(|there| there.says(unit, masked));
            let loaded = there.cloned().unwrap_or_else(|| self.remembered(unit, masked));
            set.units.insert(unit.name.clone(), loaded);
        }
        let sources = Sources { partial: false, ..found.sources };
        let before = Found { set, problems: Vec::new(), sources, config_is_bad: false };
        let Ok(mut loading) = self.order(before, true, None) else { return Err(errors) };
        let more = std::mem::replace(&mut loading.warnings, errors);
        add_new(&mut loading.warnings, more);
        Ok(loading)
    }

    /// Adds the units of before whose files are bad, or may be where a directory could not be read.
    fn with_bad_ones(&self, mut found: Found, state: &Saved<'_>) -> Found {
        let of_a_directory = |problem: &Problem| {
            let is_one = || self.dirs.iter().any(|dir| dir.path == problem.file);
            is_error(problem) && problem.unit.is_none() && is_one()
        };
        let hidden = found.problems.iter().any(of_a_directory);
        for (unit, masked) in state.units().filter(|(unit, _)| !self.is_command(&unit.name)) {
            let name = &unit.name;
            if !found.set.units.contains_key(name) && (hidden || found.set.broken.contains(name)) {
                found.set.units.insert(name.clone(), self.remembered(unit, masked));
            }
        }
        found
    }

    fn remembered(&self, unit: &Arc<Unit>, masked: bool) -> Arc<Loaded> {
        Arc::new(Loaded::remembered(unit.clone(), masked, unit::files_of(&unit.name, &self.dirs)))
    }

    /// It is COMMAND's, which stands in no file.
    fn is_command(&self, name: &Name) -> bool {
        self.command.as_ref().is_some_and(|command| command.name == *name)
    }

    /// Reads these unit files, for `check`, and of the directories only what they lead to. What is said is
    /// about them, and about what keeps them from being loaded.
    pub fn load_these(&self, files: &[PathBuf]) -> Result<Loading, Vec<Problem>> {
        let (config, of_config, partial) = self.config_of_load();
        let sources = Sources {
            dirs: self.dirs.clone(),
            config,
            main: None,
            trust: self.trust.clone(),
            environment: self.environment.clone(),
            partial,
        };
        let (set, problems) = unit::check_files(&sources, files);
        let theirs = |problem: &Problem| match &problem.unit {
            Some(name) => files.iter().any(|file| unit::named_by(file).as_ref() == Some(name)),
            None => true,
        };
        let about = |mut problems: Vec<Problem>| {
            problems.retain(|problem| problem.severity == Severity::Error || theirs(problem));
            problems
        };
        let found = Found { set, problems, sources, config_is_bad: partial };
        match self.order(found, false, None) {
            Ok(loading) => Ok(Loading { warnings: about(loading.warnings), ..loading }),
            Err(problems) if partial => Err(of_config.into_iter().chain(about(problems)).collect()),
            Err(problems) => Err(about(problems)),
        }
    }

    /// What keeps this name from being that of the main unit.
    fn main_problem(&self, set: &Set, config: &Config, main: &Name) -> Option<Problem> {
        let (severity, why, help) = match set.units.get(main) {
            None if set.broken.contains(main) => return None,
            None => {
                let near = set.nearest(main).map(|near| format!("did you mean `{near}`?"));
                (Severity::Error, "no unit has that name", near)
            }
            Some(loaded) if loaded.masked => {
                (Severity::Warning, "it is masked: it is not started and never ends", None)
            }
            Some(loaded) if loaded.unit.kind == Kind::Group => {
                let help = "name the unit whose end is meant".to_owned();
                (Severity::Error, "it is a group, which has no process that ends", Some(help))
            }
            Some(_) => return None,
        };
        Some(if self.main.is_some() {
            let message = format!("cannot run with --main {main}: {why}");
            Problem { severity, help, ..plain_problem(PathBuf::new(), message) }
        } else {
            config.problem(severity, "main", None, format!("`{main}` cannot be the main unit: {why}"), help)
        })
    }

    /// `state`: what of it has no place any more goes back to what it was in that. The error is then also that
    /// it has none there either.
    fn order(&self, found: Found, lenient: bool, state: Option<&Saved<'_>>) -> Result<Loading, Vec<Problem>> {
        let Found { mut set, mut problems, sources, .. } = found;
        if sources.partial {
            say_all(&set, &mut problems);
            return Err(problems);
        }
        if let Some(command) = &self.command {
            if let Some(other) = set.units.get(&command.name) {
                let file = other.files.first().cloned().unwrap_or_default();
                let message = "cannot have this unit beside COMMAND, which has its name; rename the file";
                problems.push(plain_problem(file, message.to_owned()));
            }
            add_command(&mut set, command.clone());
        }
        let main = sources.main.as_ref();
        problems.extend(main.and_then(|main| self.main_problem(&set, &sources.config, main)));
        let permissions = accounts::permissions(&sources.config, &mut problems);
        problems.extend(accounts::missing(&set));
        let plan = loop {
            match Plan::new(&set) {
                Ok((plan, more)) => {
                    problems.extend(more);
                    if !lenient && problems.iter().any(is_error) {
                        say_all(&set, &mut problems);
                        return Err(problems);
                    }
                    break plan;
                }
                Err(more) if !lenient => {
                    problems.extend(more);
                    say_all(&set, &mut problems);
                    return Err(problems);
                }
                Err(more) => {
                    let mut names = BTreeSet::new();
                    names.extend(
                        more.iter().filter(|problem| is_error(problem)).filter_map(|p| p.unit.clone()),
                    );
                    let stuck = names.is_empty()
                        || !names.into_iter().all(|name| self.put_right(&mut set, name, state));
                    problems.extend(more);
                    if stuck {
                        return Err(problems);
                    }
                }
            }
        };
        Ok(Loading {
            set: Arc::new(set),
            plan: Arc::new(plan),
            sources: Arc::new(sources),
            permissions,
            warnings: problems,
        })
    }

    /// A unit that has no place among the others is again what it was in the state, or is left out if it was
    /// not there. False: it is that already.
    fn put_right(&self, set: &mut Set, name: Name, state: Option<&Saved<'_>>) -> bool {
        let before = state.and_then(|state| state.unit(&name)).filter(|_| !self.is_command(&name));
        match (before, set.units.get_mut(&name)) {
            (Some(_), Some(loaded)) if loaded.is_remembered() => return false,
            (Some((unit, masked)), Some(loaded)) => *loaded = self.remembered(unit, masked),
            (None, Some(_)) => {
                set.units.remove(&name);
                set.broken.push(name);
            }
            (_, None) => return false,
        }
        true
    }
}

/// What was read, before it is ordered.
#[derive(Debug, Clone)]
struct Found {
    set: Set,
    problems: Vec<Problem>,
    sources: Sources,
    config_is_bad: bool,
}

fn is_error(problem: &Problem) -> bool {
    problem.severity == Severity::Error
}

fn add_new(problems: &mut Vec<Problem>, more: Vec<Problem>) {
    for problem in more {
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
}

/// The first error and what would do, in a line.
fn brief(problems: &[Problem]) -> String {
    let mut errors = problems.iter().filter(|problem| is_error(problem));
    let first = errors.next().map(ToString::to_string).unwrap_or_default();
    let first = first.lines().next().unwrap_or_default().trim_start_matches("error: ");
    match errors.count() {
        0 => format!("{first}; correct it, then `uphold ctl daemon-reload`"),
        more => format!("{first}, and {more} more; correct them, then `uphold ctl daemon-reload`"),
    }
}

/// Adds what is wrong between units, those among them that are wrong themselves.
fn say_all(set: &Set, problems: &mut Vec<Problem>) {
    let all = set.with_wrong();
    let (Ok((_, more)) | Err(more)) = Plan::new(&all);
    add_new(problems, more);
    add_new(problems, accounts::missing(&all));
}

/// COMMAND waits until every unit beside it is up or has failed, and so stops before them.
fn add_command(set: &mut Set, mut command: Unit) {
    command.wants = set
        .units
        .iter()
        .filter(|(_, loaded)| loaded.unit.autostart && !loaded.masked)
        .map(|(name, _)| name.clone())
        .collect();
    set.units.insert(command.name.clone(), Arc::new(Loaded::synthetic(command)));
}

/// A problem of a whole file; the empty path is for what no file says.
pub fn plain_problem(file: PathBuf, message: String) -> Problem {
    Problem {
        severity: Severity::Error,
        file,
        at: None,
        line: None,
        width: 1,
        message,
        help: None,
        unit: None,
    }
}

/// All of them, each over its lines.
pub fn render(problems: &[Problem]) -> String {
    let texts: Vec<String> =
        problems.iter().map(|problem| problem.to_string().trim_end().to_owned()).collect();
    texts.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{self, Engine, Input};
    use crate::host;

    fn files(dir: &std::path::Path) -> Files {
        let read_only = host::read_only_mount;
        Files {
            config: dir.join("config"),
            config_named: false,
            must_start: true,
            dirs: vec![Dir { path: dir.to_owned(), named: true }],
            main: None,
            trust: Trust { uid: host::uid(), owners: Vec::new(), lenient: true, read_only },
            environment: BTreeMap::new(),
            command: None,
        }
    }

    #[test]
    fn a_machine_that_goes_on_with_a_bad_config_leaves_units_what_its_defaults_gave_them() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).unwrap();
        let files = files(dir.path());
        write("config", "[defaults]\nuser = \"nobody\"\n");
        write("web.toml", "command = [\"web\"]\n");
        let mut engine = Engine::new(engine::Settings::default());
        let (plan, update, ticket) = (files.load(true).unwrap().plan, false, None);
        engine.handle(host::now(), Input::Load { plan, update, ticket }, &mut Vec::new());
        write("config", "[defaults]\nuser = 3x\n");
        let user = |loading: &Loading| loading.set.units.values().next().unwrap().unit.user.clone();
        assert_eq!(user(&files.load(true).unwrap()), None);
        let (loading, reason) = files.load_after(&engine.state(), true).unwrap();
        assert_eq!(user(&loading).as_deref(), Some("nobody"));
        let reason = reason.unwrap();
        assert!(reason.contains("config:2:") && reason.contains("daemon-reload"), "{reason}");
    }
}
