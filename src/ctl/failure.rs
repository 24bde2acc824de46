//! How a command ends: its exit code, and what is said when it cannot be done.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{socket, words};
use crate::api::Problem;

/// The exit codes of `ctl` in the order of DESIGN section 6: of several outcomes, the first here is the
/// status. (Usage, 2, comes before them all and is clap's.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Code {
    /// 5
    NoDaemon,
    /// 6
    NotPermitted,
    /// 4
    NoSuchUnit,
    /// 124
    TimedOut,
    /// 1
    Failed,
    /// 3
    NotUp,
    /// 0
    Fine,
}

impl Code {
    /// The number.
    pub(super) fn number(self) -> u8 {
        match self {
            Code::NoDaemon => 5,
            Code::NotPermitted => 6,
            Code::NoSuchUnit => 4,
            Code::TimedOut => 124,
            Code::Failed => 1,
            Code::NotUp => 3,
            Code::Fine => 0,
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> ExitCode {
        ExitCode::from(code.number())
    }
}

/// Why a command, or its share of one unit, could not be done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Nobody answers.
    #[error("cannot reach uphold at {}: {why}", .path.display())]
    NoDaemon {
        /// Where it was looked for.
        path: PathBuf,
        /// What connect(2) said.
        why: String,
        /// There is not even a socket.
        gone: bool,
    },
    /// The connection ended before the answer did.
    #[error("cannot go on: uphold ended, or closed the connection: {why}")]
    Broken {
        /// What became of it.
        why: String,
        /// The daemon may have taken the request.
        sent: bool,
    },
    /// By the socket's mode, or by the daemon.
    #[error("{0}")]
    NotPermitted(String),
    /// No unit has that name.
    #[error("{0}")]
    NoSuchUnit(String),
    /// It had not come in time.
    #[error("{0}")]
    TimedOut(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
    /// Nobody reads what is printed any more: no failure, but the end.
    #[error("nobody reads the output")]
    Gone,
}

impl Failure {
    /// The exit code that it makes.
    pub(super) fn code(&self) -> Code {
        match self {
            Failure::NoDaemon { .. } => Code::NoDaemon,
            Failure::NotPermitted(_) => Code::NotPermitted,
            Failure::NoSuchUnit(_) => Code::NoSuchUnit,
            Failure::TimedOut(_) => Code::TimedOut,
            Failure::Broken { .. } | Failure::Failed(_) => Code::Failed,
            Failure::Gone => Code::Fine,
        }
    }

    /// What to say, if anything. A problem may have many lines, and keeps them.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Failure::Gone => None,
            // Looked up now: only what is said need know who is there.
            Failure::NoDaemon { path, .. } => {
                Some(words::clean_lines(&format!("{self}; {}", socket::advice(path))))
            }
            Failure::Broken { .. }
            | Failure::NotPermitted(_)
            | Failure::NoSuchUnit(_)
            | Failure::TimedOut(_)
            | Failure::Failed(_) => Some(words::clean_lines(&self.to_string())),
        }
    }

    /// What the daemon refused.
    pub(super) fn refused(problem: Problem) -> Failure {
        let text = if problem.detail.is_empty() { problem.title } else { problem.detail };
        match (problem.status, problem.kind.as_str()) {
            // Many lines of problems: what came of them stands last, as `run` has it.
            (_, "invalid-units") => {
                Failure::Failed(format!("{text}\nnothing was changed: the files have errors"))
            }
            (403, _) => Failure::NotPermitted(text),
            (_, "no-such-unit") => Failure::NoSuchUnit(text),
            (504, _) => Failure::TimedOut(text),
            (_, _) => Failure::Failed(text),
        }
    }
}
