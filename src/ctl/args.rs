//! The command line of the client.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};

use crate::unit::Signal;

/// What stands behind `uphold ctl` on the command line.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The daemon's socket [default: UPHOLD_SOCKET, then your own daemon's, then /run/uphold/control.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    /// How to print
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table, value_name = "FORM")]
    pub(super) output: Output,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// `--output`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people
    Table,
    /// What the API said
    Json,
}

/// Which command.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show a table of units
    #[command(visible_aliases = ["get", "ps"])]
    Status {
        /// Go on and print what changes
        #[arg(short, long)]
        watch: bool,
        /// Names or globs; all if none is given
        #[arg(value_name = "UNIT")]
        units: Vec<String>,
    },
    /// Show everything about units
    Describe {
        /// Names or globs
        #[arg(value_name = "UNIT", required = true)]
        units: Vec<String>,
    },
    /// Show the merged unit files
    Cat {
        /// Names or globs
        #[arg(value_name = "UNIT", required = true)]
        units: Vec<String>,
    },
    /// Start units and wait until they are up
    Start(On),
    /// Stop units and wait until nothing of them is left
    Stop(On),
    /// Stop and start units
    Restart(On),
    /// Have units read their configuration again
    Reload(On),
    /// Forget failures and backoff
    Reset(On),
    /// Send a signal to main processes
    Signal {
        /// A name or number
        #[arg(value_name = "SIGNAL", value_parser = signal)]
        signal: Signal,
        /// Names or globs
        #[arg(value_name = "UNIT", required = true)]
        units: Vec<String>,
    },
    /// Wait for units
    Wait {
        /// Names or globs
        #[arg(value_name = "UNIT", required = true)]
        units: Vec<String>,
        /// What for
        #[arg(long = "for", value_enum, default_value_t = Goal::Up, value_name = "GOAL")]
        goal: Goal,
        /// How long at most, as 30s or 1m30s [default: no limit]
        #[arg(long, value_name = "D", value_parser = crate::unit::quantity::duration_or_seconds)]
        timeout: Option<Duration>,
    },
    /// Show what units wrote
    Logs(LogWish),
    /// Show what happened
    Events {
        /// Names or globs; all if none is given
        #[arg(value_name = "UNIT")]
        units: Vec<String>,
        /// Go on with what comes, until uphold shuts down (0), or is gone for ten seconds (5)
        #[arg(short, long)]
        follow: bool,
    },
    /// Read the unit files again; no running process is touched
    DaemonReload {
        /// Only say what would be
        #[arg(long)]
        dry_run: bool,
    },
    /// Read the unit files again, restart what changed and stop what is gone
    Update {
        /// Only say what would be
        #[arg(long)]
        dry_run: bool,
    },
    /// Stop everything and end the daemon
    Shutdown,
    /// Replace the daemon by the binary that is installed now
    Upgrade,
    /// Show the versions of client and daemon
    Version,
    /// Say whether all that should be up is up and ready
    Health {
        /// Names or globs; all if none is given
        #[arg(value_name = "UNIT")]
        units: Vec<String>,
    },
}

/// On what a command acts.
#[derive(Debug, clap::Args)]
pub(super) struct On {
    /// Names or globs
    #[arg(value_name = "UNIT", required = true)]
    pub(super) units: Vec<String>,
    /// Do not wait for the outcome
    #[arg(long)]
    pub(super) no_wait: bool,
    /// How long to wait at most, as 30s or 1m30s
    #[arg(long, value_name = "D", value_parser = crate::unit::quantity::duration_or_seconds)]
    pub(super) timeout: Option<Duration>,
}

/// Which lines `logs` shows.
#[derive(Debug, clap::Args)]
pub(super) struct LogWish {
    /// Names or globs
    #[arg(value_name = "UNIT", required = true)]
    pub(super) units: Vec<String>,
    /// Go on with what comes, until uphold shuts down (0), or is gone for ten seconds (5)
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Only so many last lines
    #[arg(short = 'n', long = "tail", alias = "lines", value_name = "LINES")]
    pub(super) tail: Option<usize>,
    /// Only what is not older than this, as 10m
    #[arg(long, value_name = "D", value_parser = crate::unit::quantity::duration_or_seconds)]
    pub(super) since: Option<Duration>,
    /// Of the run before the current one
    #[arg(short, long)]
    pub(super) previous: bool,
}

/// `--for`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Goal {
    /// Up, as dependents mean it
    Up,
    /// Ready
    Ready,
    /// Nothing of it runs
    Stopped,
    /// Failed for good
    Failed,
}

impl Goal {
    /// The word of the API.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Goal::Up => "up",
            Goal::Ready => "ready",
            Goal::Stopped => "stopped",
            Goal::Failed => "failed",
        }
    }
}

fn signal(text: &str) -> Result<Signal, String> {
    Signal::parse(text).ok_or_else(|| "no such signal; use a name as SIGHUP or HUP, or a number".to_owned())
}
