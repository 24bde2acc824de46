//! From the files to a plan: the first load, `daemon-reload`, `update` and `check` read them alike.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::plan::Plan;
use crate::unit::trust::Trust;
use crate::unit::{self, Config, Dir, Loaded, Name, Problem, Set, Severity, Sources, Unit};

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
    /// What it found wrong and could go on with.
    pub warnings: Vec<Problem>,
}

impl Files {
    /// Reads the daemon config; without one, every key has its default. With it comes what is wrong with one
    /// that was left out.
    pub fn read_config(&self) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
        let config = if self.config_named && !self.config.exists() {
            let message = "cannot read the daemon config: there is no such file; correct --config".to_owned();
            Err(vec![plain_problem(self.config.clone(), message)])
        } else {
            unit::config(&self.config, &self.trust)
        };
        match config {
            Ok(config) => Ok((config, Vec::new())),
            Err(problems) if self.must_start => Ok((Config::default(), problems)),
            Err(problems) => Err(problems),
        }
    }

    /// Reads everything. `lenient`: units with an error, and those that cannot do without them, are left
    /// out and their problems come as warnings.
    pub fn load(&self, lenient: bool) -> Result<Loading, Vec<Problem>> {
        let (config, mut problems) = self.read_config()?;
        let main = self.main.clone().or_else(|| config.main.clone());
        let sources = Sources {
            dirs: self.dirs.clone(),
            config,
            main: main.clone(),
            trust: self.trust.clone(),
            environment: self.environment.clone(),
        };
        let (set, more) = unit::load(&sources);
        problems.extend(more);
        self.order(set, problems, sources, main, lenient)
    }

    /// Reads these unit files and no directories, for `check`. What they require must be among them.
    pub fn load_these(&self, files: &[PathBuf]) -> Result<Loading, Vec<Problem>> {
        let sources = Sources {
            dirs: Vec::new(),
            config: self.read_config()?.0,
            main: None,
            trust: self.trust.clone(),
            environment: self.environment.clone(),
        };
        let (set, problems) = unit::check_files(&sources, files);
        self.order(set, problems, sources, None, false)
    }

    fn order(
        &self,
        mut set: Set,
        mut problems: Vec<Problem>,
        sources: Sources,
        main: Option<Name>,
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
        if let Some(main) = main.filter(|main| !set.units.contains_key(main) && !set.broken.contains(main)) {
            let file = sources.dirs.last().map(|dir| dir.path.clone()).unwrap_or_default();
            problems.push(plain_problem(
                file,
                format!("cannot run the main unit: no unit is named `{main}`; correct --main or `main`"),
            ));
        }
        let fatal = |problem: &Problem| problem.severity == Severity::Error;
        let plan = loop {
            match Plan::new(&set) {
                Ok((plan, more)) => {
                    problems.extend(more);
                    if !lenient && problems.iter().any(fatal) {
                        return Err(problems);
                    }
                    break plan;
                }
                Err(more) => {
                    let before = set.units.len();
                    for name in more.iter().filter(|problem| fatal(problem)).filter_map(|p| p.unit.as_ref()) {
                        set.units.remove(name);
                        set.broken.push(name.clone());
                    }
                    problems.extend(more);
                    if !lenient || set.units.len() == before {
                        return Err(problems);
                    }
                }
            }
        };
        Ok(Loading {
            set: Arc::new(set),
            plan: Arc::new(plan),
            sources: Arc::new(sources),
            warnings: problems,
        })
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

/// A problem of a whole file.
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
