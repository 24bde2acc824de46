//! From arguments to a running loop, and from its end to an exit status.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::sync::mpsc;

use super::files::{self, Files, Loading};
use super::inheritance::Inheritance;
use super::live::live;
use super::places::{self, Places};
use super::signals;
use super::voice::Voice;
use crate::failpoint;
use crate::host::{self, Inherited};
use crate::unit::trust::Trust;
use crate::unit::{Inherit, Name, OnEnd, Output, Policy, Problem, Signal, Unit};

/// sysexits.h's EX_CONFIG: units that do not load.
const EX_CONFIG: u8 = 78;
/// How long the log thread may take at the end: a stalled disk must not keep uphold.
pub(super) const LAST_LINES: Duration = Duration::from_secs(5);

/// What was asked for on the command line.
#[derive(Debug, Clone)]
pub struct Options {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--units`
    pub units: Vec<PathBuf>,
    /// `--runtime-dir`
    pub runtime_dir: Option<PathBuf>,
    /// `--log-dir`
    pub log_dir: Option<PathBuf>,
    /// `--main`
    pub main: Option<Name>,
    /// `--lenient`
    pub lenient: bool,
    /// `uphold init`, else `uphold run`
    pub init: Option<Init>,
}

/// What `init` has beyond `run`.
#[derive(Debug, Clone)]
pub struct Init {
    /// COMMAND; may be empty.
    pub command: Vec<OsString>,
    /// `--stop-timeout`
    pub stop_timeout: Option<Duration>,
}

/// Why a daemon could not start, for people, and its exit status.
pub(super) struct Refusal {
    text: String,
    status: u8,
}

pub(super) fn refuse(text: impl Into<String>) -> Refusal {
    Refusal { text: text.into(), status: 1 }
}

fn refuse_units(problems: &[Problem]) -> Refusal {
    let what = "uphold: nothing is started: the files have errors";
    Refusal { text: format!("{}\n{what}", files::render(problems)), status: EX_CONFIG }
}

/// `uphold run` and `uphold init`.
pub fn run(options: Options) -> ExitCode {
    let boot = options.init.is_some() && host::is_pid1() && !host::in_container();
    if boot {
        let mounts = host::mount_api_file_systems();
        let complaints = mounts.into_iter().chain(host::raise_loopback()).chain(host::hear_ctrl_alt_del());
        complaints.for_each(|complaint| complain(&format!("uphold: {complaint}")));
    }
    let descriptors = Inherited::collect();
    let end = match start(&options, boot, descriptors) {
        Ok(end) => end,
        Err(refusal) => {
            complain(&refusal.text);
            if host::goes_on() {
                host::execute_self();
            }
            End { status: refusal.status, reboot: false }
        }
    };
    if boot {
        let error = if end.reboot { host::reboot() } else { host::power_off() };
        complain(&format!("uphold: cannot end the machine: {error}"));
    }
    ExitCode::from(end.status)
}

/// How a daemon ended.
pub(super) struct End {
    pub(super) status: u8,
    /// Ctrl-Alt-Del: the machine starts again.
    pub(super) reboot: bool,
}

pub(super) fn complain(text: &str) {
    // Where stderr is gone there is nobody to tell.
    drop(writeln!(io::stderr(), "{text}"));
}

fn start(options: &Options, boot: bool, descriptors: Inherited) -> Result<End, Refusal> {
    failpoint::arm(host::act);
    if let Err(error) = host::prepare_reexec(descriptors.numbers()) {
        complain(&format!(
            "uphold: cannot find its own binary: {error}; it survives no crash and no upgrade"
        ));
    }
    // Signals first: from here on none of them ends uphold. What is taken is no longer ignored.
    host::ignore_terminal_stops();
    let ears = host::Signals::take()
        .and_then(|signals| Ok((signals, signals::hear_sent_faults(host::handle_faults()?)?)))
        .map_err(|error| refuse(format!("uphold: cannot take signals: {error}")))?;
    let container = options.init.is_some() && host::in_container();
    let files = Files {
        config: options.config.clone().unwrap_or_else(|| places::default_config(host::uid())),
        config_named: options.config.is_some(),
        must_start: boot,
        dirs: places::unit_dirs(host::uid(), &options.units),
        main: options.main.clone(),
        trust: Trust {
            uid: host::uid(),
            owners: Vec::new(),
            lenient: container,
            read_only: host::read_only_mount,
        },
        environment: environment(),
        command: options.init.as_ref().map(command_unit).transpose()?.flatten(),
    };
    let (runtime_dir, log_dir) = (options.runtime_dir.as_deref(), options.log_dir.as_deref());
    let places = Places::find(host::uid(), runtime_dir, log_dir, &descriptors)
        .map_err(|error| refuse(format!("uphold: {error}")))?;
    let mut before =
        Inheritance::find(&places, descriptors).map_err(|error| refuse(format!("uphold: {error}")))?;
    places.note_logs();
    let end = begin(options, boot, files, places, &mut before, ears);
    if end.is_err() {
        before.complaints.drain(..).for_each(|(_, complaint)| complain(&format!("uphold: {complaint}")));
        if host::goes_on() {
            before.hand_on();
        }
    }
    end
}

/// From here on `before` has all that an image before has left open.
fn begin(
    options: &Options,
    boot: bool,
    files: Files,
    places: Places,
    before: &mut Inheritance,
    ears: (host::Signals, mpsc::UnboundedReceiver<Signal>),
) -> Result<End, Refusal> {
    let (loading, complaint) = read_files(&files, options.lenient || boot, before)?;
    let config = &loading.sources.config;
    let voice = Voice::start(config.log_level.as_deref(), config.log_format)
        .map_err(|error| refuse(format!("uphold: cannot start the thread of its log: {error}")))?;
    for lack in &places.lacks {
        tracing::warn!("{lack}");
    }
    for problem in &loading.warnings {
        tracing::warn!("{problem}");
    }
    before.complaints.extend(complaint.map(|complaint| ("FilesHaveErrors", complaint)));
    match (loading.set.units.is_empty(), loading.set.broken.is_empty()) {
        (true, true) => tracing::warn!("{}", no_units(&files)),
        (true, false) => tracing::warn!("no unit is left: none that there is can be loaded"),
        (false, _) => {}
    }
    if options.init.is_some() && !host::is_pid1() {
        tracing::warn!("not PID 1: only what descends from uphold is reaped, as a subreaper");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| refuse(format!("uphold: cannot start its loop: {error}")))?;
    let own_log = voice.clone();
    let end = runtime.block_on(live(options, (files, loading, own_log), &places, before, ears));
    voice.flush(LAST_LINES);
    runtime.shutdown_background();
    end
}

/// What the files say, or what ran before where they say nothing that is right, and then why. A first start with
/// a bad file starts nothing; one that takes over goes on with the units that run, and an image that goes on with
/// none also if there are none.
fn read_files(
    files: &Files,
    lenient: bool,
    before: &Inheritance,
) -> Result<(Loading, Option<String>), Refusal> {
    let state = before.state.as_ref().filter(|state| before.same || !state.is_empty());
    let read = match state {
        Some(state) => files.load_after(state, lenient),
        None => files.load(lenient).map(|loading| (loading, None)),
    };
    read.map_err(|problems| refuse_units(&problems))
}

/// Where units were looked for in vain, and what would do.
pub(super) fn no_units(files: &Files) -> String {
    if files.dirs.is_empty() {
        return "there are no units: neither HOME nor XDG_CONFIG_HOME is set; name their directory with --units"
            .to_owned();
    }
    let looked: Vec<String> = files.dirs.iter().map(|dir| dir.path.display().to_string()).collect();
    format!("there are no units in {}; name another directory with --units", looked.join(" or "))
}

/// uphold's own environment. What is no UTF-8 cannot stand in a unit file either.
pub(super) fn environment() -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    for (name, value) in std::env::vars_os() {
        if let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) {
            environment.insert(name, value);
        }
    }
    environment
}

/// COMMAND as a unit: it ends uphold, it is not restarted, and nothing about it is changed.
fn command_unit(init: &Init) -> Result<Option<Unit>, Refusal> {
    if init.command.is_empty() {
        return Ok(None);
    }
    let words = init.command.iter().map(|word| word.clone().into_string());
    let command = words
        .collect::<Result<Vec<String>, OsString>>()
        .map_err(|word| refuse(format!("uphold: cannot run COMMAND: {} is no UTF-8", word.display())))?;
    let name = Name::new("command").map_err(|error| refuse(error.to_string()))?;
    let mut unit = Unit::new(name);
    unit.description = "COMMAND of init".to_owned();
    unit.command = command;
    unit.inherit_environment = Inherit::All;
    unit.umask = umask().unwrap_or(unit.umask);
    unit.start_timeout = None;
    unit.on_end = OnEnd::Shutdown;
    unit.restart.policy = Policy::Never;
    unit.logs.stdout = Some(Output::Inherit);
    Ok(Some(unit))
}

fn umask() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(line.trim(), 8).ok()
}
