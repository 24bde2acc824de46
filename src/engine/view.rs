//! What is shown of the engine: the JSON of the control API, shared by daemon and client.
//!
//! A fact that is absent is `null`, never missing. Field names are part of the API.

use serde::{Deserialize, Serialize};

use super::time::Wall;
use crate::unit::Name;

/// One instance as `GET /v1/units/NAME` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// The instance's name.
    pub name: Name,
    /// The name of its unit.
    pub unit: Name,
    /// Which instance of the unit, where it has several.
    pub instance: Option<String>,
    /// `description` of the unit.
    pub description: String,
    /// `type` of the unit: `simple`, `oneshot` or `group`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it stands.
    pub state: StateName,
    /// What the operator or autostart wants.
    pub wanted: Wanted,
    /// What the readiness probe says; without one, yes once up; null for oneshot and group.
    pub ready: Option<bool>,
    /// Whether it is up as dependents mean it.
    pub up: bool,
    /// The main process.
    pub pid: Option<u32>,
    /// The entry into the state.
    pub since: Wall,
    /// The start of the main process that runs.
    pub started_at: Option<Wall>,
    /// How long that runs.
    pub uptime_seconds: Option<f64>,
    /// Automatic restarts.
    pub restarts: u64,
    /// When the restart that is due comes.
    pub next_start_at: Option<Wall>,
    /// Why it is not up, in a word; null when it is.
    pub reason: Option<String>,
    /// The same in a sentence.
    pub message: Option<String>,
    /// The end of the last main process that ended, at once, also while what it left is being cleaned up.
    pub last_exit: Option<LastExit>,
    /// The last ten, oldest first.
    pub exits: Vec<LastExit>,
    /// The three probes.
    pub probes: Probes,
    /// The files of the unit differ from what was loaded.
    pub changed_on_disk: bool,
    /// A key was changed that only a new process can see.
    pub restart_needed: bool,
    /// Its file is gone from the plan; it runs on until it is stopped.
    pub removed: bool,
    /// Of the cgroup; without one null in lists and the main process's elsewhere.
    pub memory_bytes: Option<u64>,
    /// Likewise.
    pub cpu_seconds: Option<f64>,
    /// Likewise.
    pub tasks: Option<u64>,
    /// Where the unit's text stands.
    pub unit_file: Option<String>,
    /// argv, for `describe`; empty for a reader who may not see configuration, and in lists.
    pub command: Vec<String>,
    /// The last lines that it wrote; empty in lists.
    pub output: Vec<String>,
    /// What a stop of it would stop first: those that require it and run; empty in lists.
    pub stops: Vec<Name>,
    /// `start_timeout`: how long a start waits where nobody says; null: no limit.
    pub start_timeout_seconds: Option<f64>,
    /// `stop.timeout`
    pub stop_timeout_seconds: f64,
}

/// `state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateName {
    /// Not running, and not wanted or not to be started.
    Inactive,
    /// For a dependency.
    Waiting,
    /// Spawned or being spawned, not yet up.
    Starting,
    /// Up at least once.
    Running,
    /// Being stopped, or what outlived its main process is.
    Stopping,
    /// A restart is due at a known time.
    Backoff,
    /// Will not be restarted.
    Failed,
    /// Ended with success and is not to be restarted.
    Completed,
}

impl StateName {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            StateName::Inactive => "inactive",
            StateName::Waiting => "waiting",
            StateName::Starting => "starting",
            StateName::Running => "running",
            StateName::Stopping => "stopping",
            StateName::Backoff => "backoff",
            StateName::Failed => "failed",
            StateName::Completed => "completed",
        }
    }
}

/// `wanted`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// It should run.
    Up,
    /// It should not.
    Down,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastExit {
    /// The exit code; null after a signal.
    pub code: Option<i32>,
    /// The signal's name.
    pub signal: Option<String>,
    /// In a word.
    pub reason: ExitReason,
    /// When the run's main process started; null if it never did.
    pub started_at: Option<Wall>,
    /// When it ended.
    pub finished_at: Wall,
}

/// `last_exit.reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitReason {
    /// With success.
    Completed,
    /// With another code.
    Error,
    /// By a signal that uphold did not send.
    Killed,
    /// By a kill of the liveness probe.
    LivenessFailed,
    /// By a kill of the startup probe.
    StartupFailed,
    /// By the kernel's out-of-memory killer.
    OOMKilled,
    /// By a stop that was asked for.
    Stopped,
    /// It never started.
    SpawnFailed,
    /// Nobody saw it.
    Unknown,
}

impl ExitReason {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            ExitReason::Completed => "Completed",
            ExitReason::Error => "Error",
            ExitReason::Killed => "Killed",
            ExitReason::LivenessFailed => "LivenessFailed",
            ExitReason::StartupFailed => "StartupFailed",
            ExitReason::OOMKilled => "OOMKilled",
            ExitReason::Stopped => "Stopped",
            ExitReason::SpawnFailed => "SpawnFailed",
            ExitReason::Unknown => "Unknown",
        }
    }
}

/// The probes of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Probes {
    /// `[liveness]`
    pub liveness: Option<ProbeView>,
    /// `[readiness]`
    pub readiness: Option<ProbeView>,
    /// `[startup]`
    pub startup: Option<ProbeView>,
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeView {
    /// As `describe` prints it.
    pub spec: String,
    /// What is published: `success`, `failure` or `unknown`.
    pub result: String,
    /// Equal outcomes in a row.
    pub consecutive: u32,
    /// The text of the last attempt that did not plainly succeed; empty after a success.
    pub message: String,
    /// When an attempt last ended.
    pub last_run_at: Option<Wall>,
}

/// A dated fact about a unit, aggregated as Kubernetes events are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Grows with each change of any event; a counted-on event gets a new one.
    pub seq: u64,
    /// The instance.
    pub unit: Name,
    /// Normal or Warning.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// In a word.
    pub reason: String,
    /// In a sentence.
    pub message: String,
    /// How often.
    pub count: u64,
    /// First seen.
    pub first_at: Wall,
    /// Last seen.
    pub last_at: Wall,
}

/// `type` of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// As it should be.
    Normal,
    /// Somebody may want to look.
    Warning,
}

impl EventKind {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Normal => "Normal",
            EventKind::Warning => "Warning",
        }
    }
}

/// What came of a command for one instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// The instance.
    pub name: Name,
    /// How it ended.
    pub result: DoneResult,
    /// In a sentence, as `started, pid 4711` or `exit 1 after 0.3s`; never empty.
    pub message: String,
    /// The state it stands in.
    pub state: StateName,
    /// The main process.
    pub pid: Option<u32>,
    /// What else the command stops, and starts again where it can: those that require it.
    pub also: Vec<Name>,
    /// The last lines of output, where it failed.
    pub output: Vec<String>,
}

/// How a command ended for one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DoneResult {
    /// As asked, or it was so already.
    Ok,
    /// It cannot come any more.
    Failed,
    /// It had not come in time.
    Timeout,
}

/// What a `daemon-reload` or `update` changed, or would change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Changes {
    /// Nothing was done.
    pub dry_run: bool,
    /// Units that are new.
    pub added: Vec<Name>,
    /// Units whose changed keys are all in effect now.
    pub applied: Vec<Name>,
    /// Units with a changed key that only a new process can see.
    pub restart_needed: Vec<Name>,
    /// Units whose file is gone.
    pub removed: Vec<Name>,
    /// Instances that are started.
    pub started: Vec<Name>,
    /// Instances that are restarted (`update`).
    pub restarted: Vec<Name>,
    /// Instances that are stopped (`update`).
    pub stopped: Vec<Name>,
    /// Instances that are stopped first because they require one of the two, and start again once that is up.
    #[serde(default)]
    pub dependents: Vec<Name>,
    /// Keys of the daemon config about uphold itself, as `log.level`: what they say now is in effect.
    pub settings: Vec<String>,
    /// What `check` would warn about.
    pub warnings: Vec<String>,
}
