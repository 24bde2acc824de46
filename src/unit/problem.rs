//! What is wrong with a file, and how it is shown.

use std::fmt;
use std::path::PathBuf;

use super::Name;
use super::tree::At;

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
    /// In which file; empty where no file says it.
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

impl Problem {
    /// An error at a place.
    pub(super) fn at(at: &At, unit: Option<&Name>, message: String, help: Option<String>) -> Problem {
        Problem {
            severity: Severity::Error,
            file: at.source.path.clone(),
            at: Some(at.line_column()),
            line: Some(at.line().to_owned()),
            width: at.width(),
            message,
            help,
            unit: unit.cloned(),
        }
    }

    /// An error of a file as a whole.
    pub(super) fn file(file: PathBuf, unit: Option<&Name>, message: String, help: Option<String>) -> Problem {
        let severity = Severity::Error;
        Problem { severity, file, at: None, line: None, width: 1, message, help, unit: unit.cloned() }
    }

    /// The same as a warning.
    pub(super) fn warning(self) -> Problem {
        Problem { severity: Severity::Warning, ..self }
    }
}

/// How many characters of a line are shown, and how many of them before the caret.
const SHOWN: usize = 120;
const BEFORE: usize = 60;

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: ")?;
        if !self.file.as_os_str().is_empty() {
            write!(f, "{}", printable(&self.file.to_string_lossy()))?;
            if let Some((line, column)) = self.at {
                write!(f, ":{line}:{column}")?;
            }
            write!(f, ": ")?;
        }
        write!(f, "{}", printable(&self.message))?;
        if let (Some((number, column)), Some(line)) = (self.at, &self.line) {
            let skipped = if line.chars().count() > SHOWN { column.saturating_sub(1 + BEFORE) } else { 0 };
            let shown: String = printable(line).chars().skip(skipped).take(SHOWN).collect();
            let number = number.to_string();
            let gutter = " ".repeat(number.len());
            let indent = " ".repeat(column.saturating_sub(1 + skipped));
            let width = self
                .width
                .clamp(1, (shown.chars().count() + skipped).saturating_sub(column.saturating_sub(1)).max(1));
            write!(f, "\n  {number} | {}", shown.trim_end())?;
            write!(f, "\n  {gutter} | {indent}{}", "^".repeat(width))?;
        }
        match &self.help {
            Some(help) => write!(f, "\n  help: {}", printable(help)),
            None => Ok(()),
        }
    }
}

/// The text with one visible character for each control character: a file must not speak to a terminal, and
/// a tab must not move the caret.
fn printable(text: &str) -> String {
    let show = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(show).collect()
}
