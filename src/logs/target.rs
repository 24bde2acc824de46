//! Where a stream goes: `[logs]`, the settings of uphold, and the instance, made into one answer.

use std::path::PathBuf;

use super::Settings;
use crate::unit::{self, Name, Output};

/// Where a stream goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A file, rotated.
    File(PathBuf),
    /// uphold's own stdout (0) or stderr (1).
    Console(usize),
    /// Nowhere.
    Null,
}

impl Target {
    /// Of stdout, or of a stderr that is a stream of its own.
    pub(super) fn of(settings: &Settings, instance: &Name, logs: &unit::Logs, stderr: bool) -> Target {
        let apart = logs.stderr.as_ref().filter(|_| stderr);
        let (output, own) = match apart {
            Some(output) => (output, true),
            None => (logs.stdout.as_ref().unwrap_or(&settings.default), false),
        };
        match (output, &settings.dir) {
            (Output::File, Some(dir)) => {
                Target::File(dir.join(instance.as_str()).join(if own { "stderr.log" } else { "stdout.log" }))
            }
            (Output::Path(path), _) => Target::File(path.clone()),
            (Output::File, None) | (Output::Inherit, _) => Target::Console(usize::from(own)),
            (Output::Null, _) => Target::Null,
        }
    }
}
