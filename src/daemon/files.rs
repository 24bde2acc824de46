//! From the files to a plan: the first load, `daemon-reload`, `update` and `check` read them alike.

use std::collections::BTreeMap;
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
        let (config, mut problems, partial) = self.config_of_load();
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
        if partial {
            say_all(&set, &mut problems);
            return Err(problems);
        }
        self.order(set, problems, sources, lenient)
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
        let (set, mut problems) = unit::check_files(&sources, files);
        let theirs = |problem: &Problem| match &problem.unit {
            Some(name) => files.iter().any(|file| unit::named_by(file).as_ref() == Some(name)),
            None => true,
        };
        let about = |mut problems: Vec<Problem>| {
            problems.retain(|problem| problem.severity == Severity::Error || theirs(problem));
            problems
        };
        if partial {
            say_all(&set, &mut problems);
            return Err(of_config.into_iter().chain(about(problems)).collect());
        }
        match self.order(set, problems, sources, false) {
            Ok(loading) => Ok(Loading { warnings: about(loading.warnings), ..loading }),
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

    /// The units that an uphold before ran, for a start that must not abandon them whatever the files say.
    pub fn remember(&self, state: &Saved<'_>) -> Result<Loading, Vec<Problem>> {
        let sources = Sources {
            dirs: self.dirs.clone(),
            config: Config::default(),
            main: self.main.clone(),
            trust: self.trust.clone(),
            environment: self.environment.clone(),
            partial: false,
        };
        let mut set = Set::default();
        let is_command = |unit: &Unit| self.command.as_ref().is_some_and(|command| command.name == unit.name);
        for (unit, masked) in state.units().filter(|(unit, _)| !is_command(unit)) {
            set.units.insert(unit.name.clone(), Arc::new(Loaded::remembered(unit.clone(), masked)));
        }
        self.order(set, Vec::new(), sources, true)
    }

    fn order(
        &self,
        mut set: Set,
        mut problems: Vec<Problem>,
        sources: Sources,
        lenient: bool,
    ) -> Result<Loading, Vec<Problem>> {
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
        let fatal = |problem: &Problem| problem.severity == Severity::Error;
        let plan = loop {
            match Plan::new(&set) {
                Ok((plan, more)) => {
                    problems.extend(more);
                    if !lenient && problems.iter().any(fatal) {
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
                    let before = set.units.len();
                    for name in more.iter().filter(|problem| fatal(problem)).filter_map(|p| p.unit.as_ref()) {
                        set.units.remove(name);
                        set.broken.push(name.clone());
                    }
                    problems.extend(more);
                    if set.units.len() == before {
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
}

/// Adds what is wrong between units, those among them that are wrong themselves.
fn say_all(set: &Set, problems: &mut Vec<Problem>) {
    let all = set.with_wrong();
    let (Ok((_, more)) | Err(more)) = Plan::new(&all);
    for problem in more.into_iter().chain(accounts::missing(&all)) {
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
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
