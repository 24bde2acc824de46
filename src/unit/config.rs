//! `uphold.toml`, the daemon's own configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::field::{Context, Field, Fields};
use super::tree::{At, Entry, Table};
use super::trust::Trust;
use super::{Name, Problem, Severity, diagnose, files, parse, schema, tree};

/// `uphold.toml`, checked.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `[control] admin_groups`: names or numbers.
    pub admin_groups: Vec<String>,
    /// `[control] read_groups`
    pub read_groups: Vec<String>,
    /// `[log] level`: error, warn, info, debug or trace.
    pub log_level: Option<String>,
    /// `[log] format`
    pub log_format: LogFormat,
    /// `shutdown_timeout`; `None`: no cap.
    pub shutdown_timeout: Option<Duration>,
    /// `main`
    pub main: Option<Name>,
    /// What is wrong with it and does not keep it from being used.
    pub warnings: Vec<Problem>,
    /// The whole file, with the place of each key.
    table: Option<Arc<Table>>,
}

/// `[log] format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

impl Config {
    /// The keys about uphold itself whose values are others in `new`, as `log.level`.
    pub fn changed(&self, new: &Config) -> Vec<&'static str> {
        let Config {
            admin_groups,
            read_groups,
            log_level,
            log_format,
            shutdown_timeout,
            main,
            warnings: _,
            table: _,
        } = self;
        let keys = [
            ("control.admin_groups", *admin_groups != new.admin_groups),
            ("control.read_groups", *read_groups != new.read_groups),
            ("log.level", *log_level != new.log_level),
            ("log.format", *log_format != new.log_format),
            ("shutdown_timeout", *shutdown_timeout != new.shutdown_timeout),
            ("main", *main != new.main),
        ];
        keys.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
    }

    /// What is merged under every unit.
    pub(super) fn defaults(&self) -> Option<&Table> {
        self.table.as_ref()?.get("defaults")?.table()
    }

    /// A problem with the value at this path (`control.admin_groups`), or with one item of its list, at its
    /// place; without a place where no file says it.
    pub fn problem(
        &self,
        severity: Severity,
        key: &str,
        item: Option<&str>,
        message: String,
        help: Option<String>,
    ) -> Problem {
        let found = self.table.as_ref().and_then(|table| table.find(key));
        let problem = match found {
            Some(entry) => Problem::at(entry.item(|text| Some(text) == item), None, message, help),
            None => Problem::file(PathBuf::new(), None, message, help),
        };
        Problem { severity, ..problem }
    }
}

/// Reads the daemon config. A file that is not there is an empty one: whoever named it must look; and so is
/// the device /dev/null.
pub fn config(path: &Path, trust: &Trust) -> Result<Config, Vec<Problem>> {
    let missing =
        std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    if missing || files::is_null_device(path) {
        return Ok(Config::default());
    }
    let mut problems = Vec::new();
    let config = read(path, trust, &mut problems);
    let broken = problems.iter().any(|problem| problem.severity == Severity::Error);
    match config.filter(|_| !broken) {
        Some(config) => Ok(Config { warnings: problems, ..config }),
        None => Err(problems),
    }
}

fn read(path: &Path, trust: &Trust, problems: &mut Vec<Problem>) -> Option<Config> {
    let source = files::read(path, 0, trust, None, problems)?;
    let table = tree::parse(&source, None, problems)?;
    diagnose::keys(&table, schema::CONFIG, None, problems);
    // The readers want a unit to speak of; the problems do not.
    let name = Name::new("defaults").ok()?;
    let environment = BTreeMap::new();
    let mut cx = Context { name: &name, environment: &environment, partial: true, problems: Vec::new() };
    let mut config = values(&mut cx, &Fields { table: Some(&table), path: String::new() });
    if let Some(defaults) = table.get("defaults").and_then(Entry::table) {
        let top = At { source, span: 0..1 };
        parse::unit(&mut cx, defaults, &top, false);
    }
    config.table = Some(Arc::new(table));
    problems.extend(cx.problems.into_iter().map(|problem| Problem { unit: None, ..problem }));
    Some(config)
}

fn values(cx: &mut Context<'_>, fields: &Fields<'_>) -> Config {
    let mut config = Config::default();
    let control = fields.table("control");
    config.admin_groups = groups(cx, control.get("admin_groups"));
    config.read_groups = groups(cx, control.get("read_groups"));
    let log = fields.table("log");
    let levels = ["error", "warn", "info", "debug", "trace"].map(|level| (level, level));
    config.log_level = log.get("level").and_then(|field| field.word(cx, &levels)).map(str::to_owned);
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    config.log_format = log.get("format").and_then(|field| field.word(cx, &formats)).unwrap_or_default();
    let timeout = fields.get("shutdown_timeout").and_then(|field| field.duration(cx));
    config.shutdown_timeout = timeout.filter(|timeout| !timeout.is_zero());
    config.main = fields.get("main").and_then(|field| main(&field, cx));
    config
}

fn groups(cx: &mut Context<'_>, field: Option<Field<'_>>) -> Vec<String> {
    field
        .and_then(|field| field.list(cx, "a list of groups", |cx, item| item.account(cx)))
        .unwrap_or_default()
}

fn main(field: &Field<'_>, cx: &mut Context<'_>) -> Option<Name> {
    let text = field.string(cx, "the name of a unit")?;
    Name::new(&text).map_err(|bad| field.error(cx, bad.to_string(), None)).ok()
}
