//! `uphold check`.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use super::files::{self, Files};
use super::places;
use super::start::{complain, environment, no_units};
use crate::host;
use crate::unit::trust::Trust;
use crate::unit::{self, Severity};

/// `uphold check`: everything that is wrong with files.
pub fn check(dirs: &[PathBuf], unit_files: &[PathBuf]) -> ExitCode {
    let uid = host::uid();
    let trust = Trust { uid, owners: Vec::new(), lenient: false, read_only: host::read_only_mount };
    let files = Files {
        config: places::default_config(uid),
        config_named: false,
        must_start: false,
        dirs: places::unit_dirs(uid, dirs),
        main: None,
        trust,
        environment: environment(),
        command: None,
    };
    let result = if unit_files.is_empty() { files.load(false) } else { files.load_these(unit_files) };
    let (units, problems) = match result {
        Ok(loading) if unit_files.is_empty() => (Some(loading.set.units.len()), loading.warnings),
        Ok(loading) => {
            let mut names = BTreeSet::new();
            names.extend(unit_files.iter().filter_map(|file| unit::named_by(file)));
            (Some(names.len()), loading.warnings)
        }
        Err(problems) => (None, problems),
    };
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    let warnings = problems.len() - errors;
    if !problems.is_empty() {
        complain(&files::render(&problems));
    }
    if units == Some(0) && unit_files.is_empty() {
        complain(&no_units(&files));
    }
    let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    let mut said = vec![plural(errors, "error"), plural(warnings, "warning")];
    if let Some(units) = units {
        said.insert(0, plural(units, "unit"));
    }
    drop(writeln!(io::stdout(), "{}", said.join(", ")));
    if errors == 0 && units.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
