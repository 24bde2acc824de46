//! The checked [`Unit`]: what a unit file means once its text was found to be right.
//!
//! Every type here can hold only what is valid, so nobody after the parser checks anything again.
//! Defaults stand in the `Default` implementations below, and nowhere else.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::name::Name;
use super::signal::Signal;

/// One unit: a command to run, and how to keep it. Keys and defaults are those of the unit file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// The file's name without `.toml`.
    pub name: Name,
    /// `description`: free text for people.
    pub description: String,
    /// `command`: argv. Empty only where `kind` is [`Kind::Group`].
    pub command: Vec<String>,
    /// `type`.
    pub kind: Kind,
    /// `autostart`: wanted up when it is loaded.
    pub autostart: bool,
    /// `working_dir`; `None` where the file says nothing: `/`, or uphold's own in a container's `init`.
    pub working_dir: Option<PathBuf>,
    /// `user`: a name or a number, resolved at each start. `None`: uphold's own.
    pub user: Option<String>,
    /// `group`: a name or a number. `None`: the user's primary group.
    pub group: Option<String>,
    /// `umask`, 0 to 0o777.
    pub umask: u32,
    /// `directories`, made before each start.
    pub directories: Vec<Directory>,
    /// `environment`.
    pub environment: BTreeMap<String, String>,
    /// `environment_files`, read at each start, later wins.
    pub environment_files: Vec<EnvironmentFile>,
    /// `inherit_environment`.
    pub inherit_environment: Inherit,
    /// `requires`: started too, waited for, and without them this waits.
    pub requires: Vec<Name>,
    /// `wants`: started too, waited for until up or first failed.
    pub wants: Vec<Name>,
    /// `after`: the same wait, only for what is being started anyway.
    pub after: Vec<Name>,
    /// `up_after`: a simple unit without probes is up when it has lived this long.
    pub up_after: Duration,
    /// `start_timeout`: who waits for *up* is told at its end. `None`: no limit.
    pub start_timeout: Option<Duration>,
    /// `on_end`.
    pub on_end: OnEnd,
    /// `ports`: names that probes may use. Probes below hold the number already.
    pub ports: BTreeMap<String, u16>,
    /// `[restart]`.
    pub restart: Restart,
    /// `[stop]`.
    pub stop: Stop,
    /// `[liveness]`.
    pub liveness: Option<Arc<Probe>>,
    /// `[readiness]`.
    pub readiness: Option<Arc<Probe>>,
    /// `[startup]`.
    pub startup: Option<Arc<Probe>>,
    /// `[logs]`.
    pub logs: Logs,
    /// `[limits]`: setrlimit by resource.
    pub limits: BTreeMap<Resource, Limit>,
}

impl Unit {
    /// A unit of this name in which every key has its default. The command is empty.
    pub fn new(name: Name) -> Unit {
        Unit {
            name,
            description: String::new(),
            command: Vec::new(),
            kind: Kind::Simple,
            autostart: true,
            working_dir: None,
            user: None,
            group: None,
            umask: 0o022,
            directories: Vec::new(),
            environment: BTreeMap::new(),
            environment_files: Vec::new(),
            inherit_environment: Inherit::All,
            requires: Vec::new(),
            wants: Vec::new(),
            after: Vec::new(),
            up_after: Duration::ZERO,
            start_timeout: Some(Duration::from_secs(90)),
            on_end: OnEnd::None,
            ports: BTreeMap::new(),
            restart: Restart::default(),
            stop: Stop::default(),
            liveness: None,
            readiness: None,
            startup: None,
            logs: Logs::default(),
            limits: BTreeMap::new(),
        }
    }

    /// The probe of that kind, if the unit has one.
    pub fn probe(&self, kind: ProbeKind) -> Option<&Arc<Probe>> {
        match kind {
            ProbeKind::Liveness => self.liveness.as_ref(),
            ProbeKind::Readiness => self.readiness.as_ref(),
            ProbeKind::Startup => self.startup.as_ref(),
        }
    }
}

/// `type`: what a unit's process means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A service in the foreground.
    Simple,
    /// Runs to completion; up once it completed with success.
    Oneshot,
    /// No process: up when its `requires` are.
    Group,
}

/// `inherit_environment`: what passes from uphold's own environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inherit {
    /// `true`
    All,
    /// `false`
    Nothing,
    /// A list of names.
    Names(Vec<String>),
}

/// One of `directories`: made before a start, owned by the unit's user and group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Absolute.
    pub path: PathBuf,
    /// Permission bits, 0o755 by default.
    pub mode: u32,
}

/// One of `environment_files`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentFile {
    /// Absolute.
    pub path: PathBuf,
    /// It had a leading `-`: it may be missing.
    pub optional: bool,
}

/// `on_end`: what follows when the unit ends for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnEnd {
    /// Nothing.
    None,
    /// Stop everything and exit with its status.
    Shutdown,
}

/// `[restart]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restart {
    /// `policy`.
    pub policy: Policy,
    /// `delay`: before the first restart.
    pub delay: Duration,
    /// `factor`: each further delay is this many times the one before, 1.0 or more.
    pub factor: f64,
    /// `max_delay`: no delay is longer (before jitter).
    pub max_delay: Duration,
    /// `jitter`: ± share of the delay, 0.0 to 1.0.
    pub jitter: f64,
    /// `reset_after`: up this long, and delay and run of restarts start afresh.
    pub reset_after: Duration,
    /// `limit`: restarts in a run before `failed`; 0: never give up.
    pub limit: u32,
    /// `success_exit_codes`.
    pub success: Vec<ExitMatch>,
    /// `except_codes`: an exit with one of these is not tried again.
    pub except: Vec<ExitMatch>,
}

impl Default for Restart {
    fn default() -> Restart {
        Restart {
            policy: Policy::Always,
            delay: Duration::from_millis(100),
            factor: 2.0,
            max_delay: Duration::from_secs(30),
            jitter: 0.1,
            reset_after: Duration::from_secs(60),
            limit: 0,
            success: vec![ExitMatch::Code(0)],
            except: Vec::new(),
        }
    }
}

/// `restart.policy`. The default is `always` for a service, `never` for a oneshot and for a unit whose end
/// is the end of uphold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// After every exit.
    Always,
    /// After an exit that was no success.
    OnFailure,
    /// Not at all.
    Never,
}

/// One entry of `success_exit_codes` or `except_codes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitMatch {
    /// An exit code, 0 to 255.
    Code(u8),
    /// Death by this signal.
    Signal(Signal),
}

/// `[stop]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// `signal`: sent first, and followed by SIGCONT.
    pub signal: Signal,
    /// `scope`: who gets it.
    pub scope: Scope,
    /// `timeout`: at its end SIGKILL to everything that is left of the instance.
    pub timeout: Duration,
    /// `leave`: only the main process is stopped; what outlives it stays.
    pub leave: bool,
}

impl Default for Stop {
    fn default() -> Stop {
        Stop { signal: Signal::TERM, scope: Scope::Main, timeout: Duration::from_secs(30), leave: false }
    }
}

/// `stop.scope`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// The main process.
    Main,
    /// Its whole process group.
    Group,
}

/// Which of a unit's three probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ProbeKind {
    /// Fails: the instance is killed and restarted.
    Liveness,
    /// Fails: the instance is not ready.
    Readiness,
    /// Until it succeeds the others do not run; fails: killed and restarted.
    Startup,
}

/// One probe, with a kubelet's meaning of each number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What is tried.
    pub check: Check,
    /// `initial_delay`, counted from the start of the process.
    pub initial_delay: Duration,
    /// `period`, start to start, 10 ms or more.
    pub period: Duration,
    /// `timeout` of one whole attempt, 10 ms or more.
    pub timeout: Duration,
    /// `success_threshold`, 1 or more.
    pub success_threshold: u32,
    /// `failure_threshold`, 1 or more.
    pub failure_threshold: u32,
    /// `stop_timeout` for a kill by this probe; `None`: the unit's.
    pub stop_timeout: Option<Duration>,
}

impl Probe {
    /// A probe with this check in which every number has its default.
    pub fn new(check: Check) -> Probe {
        Probe {
            check,
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            success_threshold: 1,
            failure_threshold: 3,
            stop_timeout: None,
        }
    }
}

/// What a probe tries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Check {
    /// `exec`
    Exec {
        /// argv, not empty; no shell.
        command: Vec<String>,
    },
    /// `tcp`: success when connect(2) succeeds.
    Tcp(Endpoint),
    /// `http`: a GET whose final status decides.
    Http(Http),
}

/// The host of an endpoint that names none. A number, so that no resolver is needed (PROBES.md, M1).
pub const DEFAULT_HOST: &str = "127.0.0.1";

/// Where a tcp or http probe connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Endpoint {
    /// TCP.
    Port {
        /// `host` without brackets, if the file names one; else [`DEFAULT_HOST`], which `describe` does not show.
        host: Option<String>,
        /// 1 to 65535, names already resolved.
        port: u16,
        /// The name that stood for the port, for `describe`.
        port_name: Option<String>,
    },
    /// A stream socket at this absolute path, at most 107 bytes.
    Unix(PathBuf),
}

/// An http or https probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Http {
    /// Where to connect.
    pub endpoint: Endpoint,
    /// `path` as written, `/` by default; may have a query.
    pub path: String,
    /// `scheme` is https.
    pub tls: bool,
    /// `headers` in file order; a name may repeat, an empty value removes a default header.
    pub headers: Vec<(String, String)>,
}

/// `[logs]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logs {
    /// `stdout`; `None`: the default, `file`, or `inherit` where there is nowhere to write files.
    pub stdout: Option<Output>,
    /// `stderr`; `None`: together with stdout.
    pub stderr: Option<Output>,
    /// `timestamps`: a stamp before each line in files.
    pub timestamps: bool,
    /// `prefix`: the instance's name before each line that goes to uphold's own output.
    pub prefix: bool,
    /// `max_line`, bytes, 1 to [`Logs::LONGEST_LINE`]; longer lines are split and marked.
    pub max_line: u64,
    /// `max_size`, bytes; 0: never rotate.
    pub max_size: u64,
    /// `keep`: how many rotated files stay.
    pub keep: u32,
}

impl Logs {
    /// The highest `max_line`, in bytes: so much of an unfinished line may be held in memory.
    pub const LONGEST_LINE: u64 = 16 << 20;
}

impl Default for Logs {
    fn default() -> Logs {
        Logs {
            stdout: None,
            stderr: None,
            timestamps: true,
            prefix: true,
            max_line: 64 << 10,
            max_size: 10 << 20,
            keep: 5,
        }
    }
}

/// Where a stream goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// `file`: UNIT/stdout.log or UNIT/stderr.log in the log directory.
    File,
    /// This absolute path.
    Path(PathBuf),
    /// `inherit`: uphold's own stream.
    Inherit,
    /// `null`: /dev/null.
    Null,
}

/// A resource of setrlimit(2), by its lower-case name without `RLIMIT_`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of setrlimit(2)")]
pub enum Resource {
    As,
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

impl Resource {
    /// Every resource, in the order of their names.
    pub const ALL: [Resource; 16] = [
        Resource::As,
        Resource::Core,
        Resource::Cpu,
        Resource::Data,
        Resource::Fsize,
        Resource::Locks,
        Resource::Memlock,
        Resource::Msgqueue,
        Resource::Nice,
        Resource::Nofile,
        Resource::Nproc,
        Resource::Rss,
        Resource::Rtprio,
        Resource::Rttime,
        Resource::Sigpending,
        Resource::Stack,
    ];

    /// The key in `[limits]`.
    pub fn name(self) -> &'static str {
        match self {
            Resource::As => "as",
            Resource::Core => "core",
            Resource::Cpu => "cpu",
            Resource::Data => "data",
            Resource::Fsize => "fsize",
            Resource::Locks => "locks",
            Resource::Memlock => "memlock",
            Resource::Msgqueue => "msgqueue",
            Resource::Nice => "nice",
            Resource::Nofile => "nofile",
            Resource::Nproc => "nproc",
            Resource::Rss => "rss",
            Resource::Rtprio => "rtprio",
            Resource::Rttime => "rttime",
            Resource::Sigpending => "sigpending",
            Resource::Stack => "stack",
        }
    }
}

/// A soft and a hard limit; `None`: unlimited. Soft is never above hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// What the process gets.
    pub soft: Option<u64>,
    /// Up to where it may raise that itself.
    pub hard: Option<u64>,
}
