//! Arguments to a mode. Nothing is decided here but what was asked for.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::unit::{Name, quantity};
use crate::{ctl, daemon, host};

#[derive(Debug, Parser)]
#[command(name = "uphold", version, about, disable_help_subcommand = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Supervise units in the foreground of a service manager or a terminal
    Run(RunArgs),
    /// Be PID 1 of a container or host; with COMMAND also what tini is
    Init(InitArgs),
    /// Say everything that is wrong with unit files: 0 fine, 1 problems, 2 usage
    Check(CheckArgs),
    /// Talk to a running uphold
    Ctl(ctl::Args),
    /// Say whether this binary could go on from a state: what an upgrade asks before it
    #[command(hide = true)]
    TryState {
        /// The private directory, or the file
        place: PathBuf,
    },
    /// Print a completion script
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Clone, Default, Args)]
struct RunArgs {
    /// The daemon config, instead of uphold.toml in /etc/uphold or ~/.config/uphold
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A directory of units, instead of the search path; may be repeated, later wins by name
    #[arg(long, value_name = "DIR")]
    units: Vec<PathBuf>,
    /// Where socket and FIFOs go
    #[arg(long, value_name = "DIR")]
    runtime_dir: Option<PathBuf>,
    /// Where logs go
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,
    /// When this unit ends for good, stop everything and exit with its status
    #[arg(long, value_name = "UNIT", value_parser = Name::new)]
    main: Option<Name>,
    /// Start the units that are right though others are wrong
    #[arg(long)]
    lenient: bool,
}

#[derive(Debug, Clone, Default, Args)]
struct InitArgs {
    #[command(flatten)]
    run: RunArgs,
    /// How long COMMAND, and what outlives it, may take after a SIGTERM [default: none, and 30s]
    #[arg(long, value_name = "D", value_parser = quantity::duration_or_seconds)]
    stop_timeout: Option<Duration>,
    /// Run beside the units; its exit status is the answer
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// A directory of units, instead of the search path; may be repeated
    #[arg(long, value_name = "DIR")]
    units: Vec<PathBuf>,
    /// Unit files to check, each with its drop-ins; what they require may be in the directories or beside them
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// The whole program.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let called = arguments.first().and_then(|name| Path::new(name).file_name()?.to_str()).unwrap_or_default();
    let words = match called {
        "upholdctl" => with_mode("ctl", &arguments),
        // An uphold that is upgraded tries the new one by the path by which it was started itself.
        "init" if arguments.get(1).is_some_and(|word| word == "try-state") => arguments,
        "init" => with_mode("init", &arguments),
        _ if arguments.len() <= 1 && host::is_pid1() => with_mode("init", &arguments),
        _ => arguments,
    };
    let cli = Cli::try_parse_from(words).unwrap_or_else(|error| {
        if !host::is_pid1() || host::in_container() {
            error.exit();
        }
        // A kernel hands on what it does not know of its own command line, as "splash"; it panics when PID 1 ends.
        drop(error.print());
        Cli { mode: Mode::Init(InitArgs::default()) }
    });
    match cli.mode {
        Mode::Run(run) => daemon::run(options(run, None)),
        Mode::Init(init) => daemon::run(options(
            init.run,
            Some(daemon::Init { command: init.command, stop_timeout: init.stop_timeout }),
        )),
        Mode::Check(check) => daemon::check(&check.units, &check.files),
        Mode::Ctl(arguments) => ctl::run(arguments, host::terminal_columns()),
        Mode::TryState { place } => daemon::try_state(&place),
        Mode::Completions { shell } => completions(shell),
    }
}

fn with_mode(mode: &str, arguments: &[OsString]) -> Vec<OsString> {
    let rest = arguments.iter().skip(1).cloned();
    ["uphold".into(), mode.into()].into_iter().chain(rest).collect()
}

fn options(run: RunArgs, init: Option<daemon::Init>) -> daemon::Options {
    daemon::Options {
        config: run.config,
        units: run.units,
        runtime_dir: run.runtime_dir,
        log_dir: run.log_dir,
        main: run.main,
        lenient: run.lenient,
        init,
    }
}

fn completions(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "uphold", &mut script);
    match std::io::stdout().write_all(&script) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_of_init_keeps_its_own_flags() {
        let words = ["uphold", "init", "--stop-timeout", "2s", "--", "sh", "-c", "--units"];
        let Mode::Init(init) = Cli::parse_from(words).mode else { panic!("not init") };
        assert_eq!(init.command, ["sh", "-c", "--units"]);
        assert_eq!(init.stop_timeout, Some(Duration::from_secs(2)));
    }
}
