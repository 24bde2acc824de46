//! From directories of files to a [`Set`] of units.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Name, Unit, trust::Trust};

/// A directory of unit files.
#[derive(Debug, Clone)]
pub struct Dir {
    /// Where.
    pub path: PathBuf,
    /// It was named with `--units`: its owner is trusted, and it must exist.
    pub named: bool,
}

/// Everything that decides what a load finds.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Later wins, whole-file by name.
    pub dirs: Vec<Dir>,
    /// The daemon config's `[defaults]`, merged under every unit.
    pub config: Config,
    /// `--main`: that unit is read as if it said `on_end = "shutdown"`.
    pub main: Option<Name>,
    /// Who may have written the files.
    pub trust: Trust,
    /// uphold's own environment, for `{env:NAME}`.
    pub environment: BTreeMap<String, String>,
}

/// What a load found.
#[derive(Debug, Clone, Default)]
pub struct Set {
    /// The units that are right, masked ones among them.
    pub units: BTreeMap<Name, Arc<Loaded>>,
    /// Names of units whose files are wrong.
    pub broken: Vec<Name>,
}

/// One unit with where its values came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What it says.
    pub unit: Arc<Unit>,
    /// A symlink to /dev/null stands in its place: it exists and cannot be started.
    pub masked: bool,
    /// The file, then its drop-ins in order.
    pub files: Vec<PathBuf>,
    // merged keys with provenance, fingerprint of the files: private
}

impl Loaded {
    /// A unit that stands in no file, as `init -- COMMAND` makes one.
    pub fn synthetic(unit: Unit) -> Loaded {
        Loaded { unit: Arc::new(unit), masked: false, files: Vec::new() }
    }

    /// The merged unit as TOML, each line with the file and line that its value came from.
    pub fn cat(&self) -> String {
        todo!()
    }

    /// A problem with the key at this path (`requires`), or with one item of its list, at the place where
    /// that was written (drop-ins included); without a place, of the unit's file.
    pub fn problem(
        &self,
        severity: Severity,
        _key: &str,
        _item: Option<&str>,
        message: String,
        help: Option<String>,
    ) -> Problem {
        let file = self.files.first().cloned().unwrap_or_default();
        let unit = Some(self.unit.name.clone());
        Problem { severity, file, at: None, line: None, width: 1, message, help, unit }
    }

    /// Where the key at this path (`restart.delay`) was written, as `web.toml:7:1`.
    pub fn place(&self, _key: &str) -> Option<String> {
        todo!()
    }
}

impl Set {
    /// Whether the files of this unit differ by now from what was loaded (contents, drop-ins added or gone).
    /// Reads the disk: not for the deciding thread.
    pub fn changed_on_disk(&self, _name: &Name, _sources: &Sources) -> bool {
        todo!()
    }
}

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is loaded with it.
    Error,
    /// Said by `check` and at a load.
    Warning,
}

/// Something wrong with a file. Displayed over several lines, with the line it is about and a caret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad.
    pub severity: Severity,
    /// In which file.
    pub file: PathBuf,
    /// 1-based line and column (in characters), where there is one.
    pub at: Option<(usize, usize)>,
    /// The text of that line.
    pub line: Option<String>,
    /// How many characters the caret marks, 1 or more.
    pub width: usize,
    /// What is wrong, lower case.
    pub message: String,
    /// What would do.
    pub help: Option<String>,
    /// The unit it keeps from being loaded.
    pub unit: Option<Name>,
}

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
    // `[defaults]`, with provenance: private
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

/// Reads the daemon config.
pub fn config(_path: &Path, _trust: &Trust) -> Result<Config, Vec<Problem>> {
    todo!()
}

/// Reads all unit files and drop-ins. The problems are all problems of all files; a unit with an error is
/// not in the set.
pub fn load(_sources: &Sources) -> (Set, Vec<Problem>) {
    todo!()
}
