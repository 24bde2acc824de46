//! From arguments to a running loop, and from its end to an exit status.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::{broadcast, mpsc};

use super::files::{self, Files, Loading};
use super::places::{self, Places};
use super::voice::Voice;
use super::{Daemon, Disk, Ears, Manager, lasting, manager, signals};
use crate::control::{self, Peer, Permissions};
use crate::engine::{Engine, Input, Settings};
use crate::host::{self, Host};
use crate::logs::{self, Logs};
use crate::plan::Plan;
use crate::probe::Prober;
use crate::unit::trust::Trust;
use crate::unit::{Config, Inherit, Name, OnEnd, Output, Policy, Problem, Severity, Signal, Unit};

/// sysexits.h's EX_CONFIG: units that do not load.
const EX_CONFIG: u8 = 78;
/// How long the log thread may take at the end: a stalled disk must not keep uphold.
const LAST_LINES: Duration = Duration::from_secs(5);
/// How long the start of a probe may take at the end, to be undone.
const LAST_PROBES: Duration = Duration::from_secs(2);

/// unix(7): `sun_path` has 108 bytes, one of which ends it.
const LONGEST_SOCKET: usize = 107;

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
struct Refusal {
    text: String,
    status: u8,
}

fn refuse(text: impl Into<String>) -> Refusal {
    Refusal { text: text.into(), status: 1 }
}

fn refuse_units(problems: &[Problem]) -> Refusal {
    let what = "uphold: nothing is started: the files have errors";
    Refusal { text: format!("{}\n{what}", files::render(problems)), status: EX_CONFIG }
}

/// `uphold run` and `uphold init`.
pub fn run(options: Options) -> ExitCode {
    let boot = options.init.is_some() && host::is_pid1() && !host::in_container();
    for complaint in if boot { host::mount_api_file_systems() } else { Vec::new() } {
        complain(&format!("uphold: {complaint}"));
    }
    let end = match start(&options, boot) {
        Ok(end) => end,
        Err(refusal) => {
            complain(&refusal.text);
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
struct End {
    status: u8,
    /// Ctrl-Alt-Del: the machine starts again.
    reboot: bool,
}

fn complain(text: &str) {
    // Where stderr is gone there is nobody to tell.
    drop(writeln!(io::stderr(), "{text}"));
}

fn start(options: &Options, boot: bool) -> Result<End, Refusal> {
    // Signals first: from here on none of them ends uphold. What is taken is no longer ignored.
    host::ignore_terminal_stops();
    let signals = signals::start()
        .map_err(|error| refuse(format!("uphold: cannot start the thread for signals: {error}")))?;
    host::unblock_signals();
    let container = options.init.is_some() && host::in_container();
    let files = Files {
        config: options.config.clone().unwrap_or_else(|| places::default_config(host::uid())),
        config_named: options.config.is_some(),
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
    let config = files.read_config().map_err(|problems| refuse_units(&problems))?;
    // PID 1 of a machine must not end because of a file.
    let loading = files.load(options.lenient || boot).map_err(|problems| refuse_units(&problems))?;
    let places = Places::find(host::uid(), options.runtime_dir.as_deref(), options.log_dir.as_deref())
        .map_err(|error| refuse(format!("uphold: {error}")))?;
    let lock = match &places.runtime {
        Some(dir) => Some(host::lock_runtime_dir(dir).map_err(|error| refuse(format!("uphold: {error}")))?),
        None => None,
    };
    let voice = Voice::start(config.log_level.as_deref(), config.log_format)
        .map_err(|error| refuse(format!("uphold: cannot start the thread of its log: {error}")))?;
    for lack in &places.lacks {
        tracing::warn!("{lack}");
    }
    for problem in &loading.warnings {
        tracing::warn!("{problem}");
    }
    if loading.set.units.is_empty() {
        tracing::warn!("{}", no_units(&files));
    }
    if options.init.is_some() && !host::is_pid1() {
        tracing::warn!("not PID 1: only what descends from uphold is reaped, as a subreaper");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| refuse(format!("uphold: cannot start its loop: {error}")))?;
    let end = runtime.block_on(live(options, files, loading, config, places, signals));
    voice.flush(LAST_LINES);
    runtime.shutdown_background();
    drop(lock);
    end
}

/// Where units were looked for in vain, and what would do.
fn no_units(files: &Files) -> String {
    if files.dirs.is_empty() {
        return "there are no units: neither HOME nor XDG_CONFIG_HOME is set; name their directory with --units"
            .to_owned();
    }
    let looked: Vec<String> = files.dirs.iter().map(|dir| dir.path.display().to_string()).collect();
    format!("there are no units in {}; name another directory with --units", looked.join(" or "))
}

/// uphold's own environment. What is no UTF-8 cannot stand in a unit file either.
fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
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
    unit.description = format!("COMMAND of init: {}", command.join(" "));
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

fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

async fn live(
    options: &Options,
    files: Files,
    loading: Loading,
    config: Config,
    places: Places,
    signals: mpsc::UnboundedReceiver<Signal>,
) -> Result<End, Refusal> {
    let fail = |what: &str, error: io::Error| refuse(format!("uphold: cannot start {what}: {error}"));
    let init = options.init.as_ref();
    let container = init.is_some() && host::in_container();
    if let Err(error) = host::become_subreaper() {
        tracing::warn!("cannot become a subreaper: {error}; orphans of services go to PID 1");
    }
    let (news_in, news) = mpsc::unbounded_channel();
    let host_settings = host::Settings {
        private: places.private.clone(),
        token: format!("{:016x}", random()),
        nofile: host::raise_nofile(),
        default_dir: if container {
            std::env::current_dir().unwrap_or_else(|_| "/".into())
        } else {
            "/".into()
        },
        trust: files.trust.clone(),
    };
    let (notices_in, notices) = mpsc::unbounded_channel();
    let log_settings = logs::Settings {
        dir: places.logs.clone(),
        default: if container { Output::Inherit } else { Output::File },
    };
    let lasting = places.private.as_deref().and_then(lasting::of);
    let logs =
        Logs::start(log_settings, lasting, notices_in).map_err(|error| fail("the log thread", error))?;
    let (requests_in, requests) = mpsc::channel(64);
    let (inward, inward_out) = mpsc::unbounded_channel();
    let command = files.command.as_ref().map(|unit| unit.name.clone());
    let engine = Engine::new(Settings {
        seed: random(),
        main: loading.sources.main.clone(),
        command: command.clone(),
        command_timeout: init.and_then(|init| init.stop_timeout),
        shutdown_timeout: config.shutdown_timeout,
        sweep: init.is_some(),
    });
    let socket = places.runtime.as_deref().map(|dir| dir.join("control.sock"));
    if let Some(path) = &socket {
        let permissions = permissions(&config);
        listen(path, control::Server::new(permissions, requests_in))
            .map_err(|error| fail(&format!("the control API at {}", path.display()), error))?;
    }
    let mut daemon = Daemon {
        engine,
        host: Host::new(host_settings, news_in),
        logs: Arc::new(logs),
        prober: Arc::new(Prober::default()),
        disk: Disk::start().map_err(|error| fail("the thread for files", error))?,
        files: Arc::new(files),
        loading,
        command,
        events: broadcast::channel(1024).0,
        waiters: HashMap::new(),
        tickets: 0,
        attempts: HashMap::new(),
        inward,
        manager: Manager::start().map_err(|error| fail("the thread for the service manager", error))?,
        watchdog: manager::interval(),
        reboot: false,
        exit: None,
    };
    let mut ears = Ears { news, notices, requests, signals, inward: inward_out };
    let plan: Arc<Plan> = daemon.loading.plan.clone();
    daemon.handle(Input::Load { plan, update: false, ticket: None });
    daemon.manager.ready();
    let status = daemon.supervise(&mut ears).await;
    if tokio::time::timeout(LAST_PROBES, daemon.host.finish()).await.is_err() {
        tracing::warn!("cannot end a probe that is being started: its directory or command does not answer");
    }
    daemon.logs.finish(LAST_LINES).await;
    if let Some(path) = socket {
        drop(std::fs::remove_file(path));
    }
    // A status beyond a byte would be cut to its low bits, which might be 0.
    Ok(End { status: u8::try_from(status).unwrap_or(1), reboot: daemon.reboot })
}

fn permissions(config: &Config) -> Permissions {
    let resolve = |names: &[String]| {
        names
            .iter()
            .filter_map(|name| {
                let found = host::group_id(name);
                if found.is_none() {
                    tracing::warn!(
                        "cannot admit group `{name}` to the control API: /etc/group has no such group"
                    );
                }
                found
            })
            .collect()
    };
    Permissions { uid: host::uid(), admin: resolve(&config.admin_groups), read: resolve(&config.read_groups) }
}

/// Accepts connections in a task of its own. The lock is held, so whatever lies at the path is stale.
fn listen(path: &Path, server: control::Server) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let length = path.as_os_str().len();
    if length > LONGEST_SOCKET {
        let what = format!("its path has {length} bytes, and that of a socket may have {LONGEST_SOCKET}");
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{what}; name a shorter directory with --runtime-dir"),
        ));
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    tokio::spawn(async move {
        let mut failing = false;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    failing = false;
                    match host::peer(&stream) {
                        Ok((pid, uid, gids)) => server.serve(stream, Peer { pid, uid, gids }),
                        Err(error) => tracing::debug!("cannot tell who a client is: {error}"),
                    }
                }
                Err(error) => {
                    if !failing {
                        tracing::warn!("cannot accept a client: {error}; trying again every second");
                    }
                    failing = true;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    });
    Ok(())
}

/// `uphold check`: everything that is wrong with files.
pub fn check(dirs: &[PathBuf], unit_files: &[PathBuf]) -> ExitCode {
    let uid = host::uid();
    let trust = Trust { uid, owners: Vec::new(), lenient: false, read_only: host::read_only_mount };
    let files = Files {
        config: places::default_config(uid),
        config_named: false,
        dirs: places::unit_dirs(uid, dirs),
        main: None,
        trust,
        environment: environment(),
        command: None,
    };
    let result = if unit_files.is_empty() { files.load(false) } else { files.load_these(unit_files) };
    let (units, problems) = match result {
        Ok(loading) => (Some(loading.set.units.len()), loading.warnings),
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
