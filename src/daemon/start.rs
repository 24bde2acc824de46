//! From arguments to a running loop, and from its end to an exit status.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};

use super::files::{self, Files, Loading};
use super::ground::Ground;
use super::inheritance::Inheritance;
use super::journal::{self, Journal};
use super::listener::{SOCKET, let_in, listen};
use super::places::{self, Places};
use super::settings::Settings;
use super::voice::Voice;
use super::{Board, Daemon, Disk, Ears, Looks, Manager, lasting, manager, signals};
use crate::control;
use crate::engine::{self, Engine, Input};
use crate::failpoint;
use crate::host::{self, Host, Inherited};
use crate::logs::{self, Logs};
use crate::plan::Plan;
use crate::probe::Prober;
use crate::task::Task;
use crate::unit::trust::Trust;
use crate::unit::{Inherit, Name, OnEnd, Output, Policy, Problem, Signal, Unit};

/// How long an image that cannot begin waits before it tries again.
const AGAIN: Duration = Duration::from_secs(1);
/// sysexits.h's EX_CONFIG: units that do not load.
const EX_CONFIG: u8 = 78;
/// How long the log thread may take at the end: a stalled disk must not keep uphold.
const LAST_LINES: Duration = Duration::from_secs(5);
/// How long a client may take at the end to read what is left of its answer.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// How long the files of endpoints may take at the end, to be removed.
const LAST_ENDPOINTS: Duration = Duration::from_secs(2);
/// How long the start of a probe may take at the end, to be undone.
const LAST_PROBES: Duration = Duration::from_secs(2);

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
    if boot {
        let mounts = host::mount_api_file_systems();
        let complaints = mounts.into_iter().chain(host::raise_loopback()).chain(host::hear_ctrl_alt_del());
        complaints.for_each(|complaint| complain(&format!("uphold: {complaint}")));
    }
    let descriptors = Inherited::collect();
    let given = descriptors.numbers();
    let end = match start(&options, boot, descriptors) {
        Ok(end) => end,
        Err(refusal) => {
            complain(&refusal.text);
            if host::goes_on() {
                begin_again(&given);
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

/// An image that cannot begin and goes on from another one must not end: services run, and it may be PID 1.
fn begin_again(given: &[RawFd]) {
    complain("uphold: trying again in a second, for its services run");
    std::thread::sleep(AGAIN);
    let error = host::execute_again(given);
    complain(&format!("uphold: cannot execute itself again: {error}"));
}

/// How a daemon ended.
struct End {
    status: u8,
    /// Ctrl-Alt-Del: the machine starts again.
    reboot: bool,
}

pub(super) fn complain(text: &str) {
    // Where stderr is gone there is nobody to tell.
    drop(writeln!(io::stderr(), "{text}"));
}

fn start(options: &Options, boot: bool, descriptors: Inherited) -> Result<End, Refusal> {
    failpoint::arm(host::act);
    if let Err(error) = host::prepare_reexec() {
        complain(&format!(
            "uphold: cannot find its own binary: {error}; it survives no crash and no upgrade"
        ));
    }
    // Signals first: from here on none of them ends uphold. What is taken is no longer ignored.
    host::ignore_terminal_stops();
    let signals =
        host::Signals::take().map_err(|error| refuse(format!("uphold: cannot take signals: {error}")))?;
    let faults = host::handle_faults()
        .and_then(signals::hear_sent_faults)
        .map_err(|error| refuse(format!("uphold: cannot start the thread for signals: {error}")))?;
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
    let end = begin(options, boot, files, places, &mut before, (signals, faults));
    if end.is_err() && host::goes_on() {
        before.hand_on();
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
    for complaint in complaint.iter().chain(&before.complaint) {
        tracing::warn!("{complaint}");
    }
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
    let end = runtime.block_on(live(options, files, loading, own_log, places, before, ears));
    voice.flush(LAST_LINES);
    runtime.shutdown_background();
    end
}

/// What the files say, or what ran before if they say nothing that is right, and then why. A first start with
/// a bad file starts nothing; one that takes over goes on with the units that run.
fn read_files(
    files: &Files,
    lenient: bool,
    before: &Inheritance,
) -> Result<(Loading, Option<String>), Refusal> {
    let problems = match files.load(lenient) {
        Ok(loading) => return Ok((loading, None)),
        Err(problems) => problems,
    };
    let Some(state) = before.state.as_ref().filter(|state| !state.is_empty()) else {
        return Err(refuse_units(&problems));
    };
    let what = "the files have errors: going on with the units that ran before, as they were";
    let complaint = format!("{}\n{what}", files::render(&problems));
    let loading = files.remember(state.units()).map_err(|_| refuse_units(&problems))?;
    Ok((loading, Some(complaint)))
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

fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

async fn live(
    options: &Options,
    files: Files,
    loading: Loading,
    voice: Voice,
    places: Places,
    before: &mut Inheritance,
    (signals, faults): (host::Signals, mpsc::UnboundedReceiver<Signal>),
) -> Result<End, Refusal> {
    let fail = |what: &str, error: io::Error| refuse(format!("uphold: cannot start {what}: {error}"));
    let init = options.init.as_ref();
    let container = init.is_some() && host::in_container();
    if let Err(error) = host::become_subreaper() {
        tracing::warn!("cannot become a subreaper: {error}; orphans of services go to PID 1");
    }
    before.nofile = before.nofile.or_else(host::raise_nofile);
    before.oom_score_adj = before.oom_score_adj.or_else(host::survive_out_of_memory);
    let (news_in, news) = mpsc::unbounded_channel();
    let pipes = host::Pipes::open(&before.descriptors).map(Arc::new);
    let pipes = pipes.inspect_err(|error| {
        tracing::warn!(
            "cannot keep which pipe is whose: {error}; output that comes out of no FIFO ends with uphold"
        );
    });
    let pipes = pipes.ok();
    let host_settings = host::Settings {
        private: places.private.clone(),
        pipes,
        token: before.token.clone(),
        nofile: before.nofile,
        oom_score_adj: before.oom_score_adj,
        default_dir: if container {
            std::env::current_dir().unwrap_or_else(|_| "/".into())
        } else {
            "/".into()
        },
        deposits: places.private.is_some() && manager::is_there(),
        trust: files.trust.clone(),
    };
    let (notices_in, notices) = mpsc::unbounded_channel();
    let log_settings = logs::Settings {
        dir: places.logs.clone(),
        default: if container { Output::Inherit } else { Output::File },
    };
    let lasting = lasting::of(&before.descriptors, places.private.as_deref());
    let logs =
        Logs::start(log_settings, lasting, notices_in).map_err(|error| fail("the log thread", error))?;
    let (requests_in, requests) = mpsc::channel(64);
    let (inward, inward_out) = mpsc::unbounded_channel();
    let command = files.command.as_ref().map(|unit| unit.name.clone());
    let settings = engine::Settings {
        seed: random(),
        main: loading.sources.main.clone(),
        command: command.clone(),
        command_timeout: init.and_then(|init| init.stop_timeout),
        shutdown_timeout: loading.sources.config.shutdown_timeout,
        sweep: init.is_some(),
    };
    let state = before.state.take();
    let resumes = state.is_some();
    let engine = match state {
        Some(state) => Engine::restored(settings, state, host::now(), before.same),
        None => Engine::new(settings),
    };
    let token = u64::from_str_radix(&before.token, 16).unwrap_or_default();
    let private = places.private.as_deref();
    let slots = match host::Slots::open(&before.descriptors, private, token) {
        Ok((slots, None)) => slots,
        Ok((slots, Some(error))) => {
            tracing::warn!(
                "cannot map {}: {error}; which process is whose is kept in memory: services are not taken over \
                 should uphold be killed",
                private.unwrap_or(Path::new("")).join("runs").display()
            );
            slots
        }
        // Without them, all that lives would count as gone.
        Err(error) if resumes && !host::is_pid1() => return Err(fail("its record of processes", error)),
        Err(error) => {
            let what = "it would find no service";
            tracing::error!("cannot keep what the next uphold has to know: {error}; {what}");
            host::Slots::none()
        }
    };
    let host = Host::new(host_settings, slots, before.cgroups.as_deref(), news_in);
    let place = before.world.clone().map(|world| (private, before.head(world, host.cgroups())));
    let journal = Journal::begin(place, &engine);
    let mut known = BTreeSet::new();
    known.extend(engine.instances());
    let socket = places.runtime.as_deref().map(|dir| dir.join(SOCKET));
    let (permissions, permitted) = watch::channel(loading.permissions.clone());
    let server = Arc::new(control::Server::new(permitted, requests_in, host::mark_read));
    let disk = Disk::start().map_err(|error| fail("the thread for files", error))?;
    let board = Board::start(places.runtime.as_deref(), known)
        .map_err(|error| fail("the thread for endpoints", error))?;
    let manager =
        Manager::start(inward.clone()).map_err(|error| fail("the thread for the service manager", error))?;
    let signals = signals.listen().map_err(|error| fail("its ear for signals", error))?;
    // From here on nothing fails but this: what of the image before is taken would not be there for the next attempt.
    let accepting = match socket.as_deref().filter(|_| !before.crashes.too_many) {
        Some(path) => let_clients_in(path, before, &server)?,
        None => None,
    };
    let (gone_in, gone) = mpsc::unbounded_channel();
    let dirs = (places.runtime.as_deref(), places.private.as_deref());
    let ground = Ground::watch(dirs, before.lock.take(), accepting, gone_in);
    let mut daemon = Daemon {
        engine,
        ground,
        journal,
        recorded: true,
        over: Vec::new(),
        host,
        logs: Arc::new(logs),
        prober: Arc::new(Prober::default()),
        disk,
        looks: Looks::default(),
        board,
        files: Arc::new(files),
        loading,
        settings: Settings { voice, permissions },
        command,
        events: broadcast::channel(1024).0,
        waiters: HashMap::new(),
        tickets: 0,
        attempts: HashMap::new(),
        manager,
        inward,
        server: server.clone(),
        watchdog: manager::interval(),
        image: before.image,
        life: before.life(),
        plain: before.crashes.too_many,
        upgrading: None,
        poison: HashSet::new(),
        reboot: false,
        exit: None,
    };
    let mut ears = Ears { news, notices, requests, signals, faults, gone, inward: inward_out };
    let plan: Arc<Plan> = daemon.loading.plan.clone();
    if !daemon.is_whole() {
        // Somebody has removed something before that was watched.
        daemon.ground.lost(vec![OsString::new()]);
    }
    daemon.take_over(before);
    before.close_descriptors();
    daemon.handle(Input::Load { plan, update: false, ticket: None });
    if resumes {
        daemon.resume();
    }
    daemon.say_how_it_came(before);
    daemon.manager.ready();
    let status = daemon.supervise(&mut ears).await;
    if tokio::time::timeout(LAST_PROBES, daemon.host.finish()).await.is_err() {
        tracing::warn!("cannot end a probe that is being started: its directory or command does not answer");
    }
    // Another uphold may have the directory by now.
    if daemon.ground.is_own() {
        daemon.board.finish(LAST_ENDPOINTS);
    }
    daemon.logs.finish(LAST_LINES).await;
    let reboot = daemon.reboot;
    let accepting = daemon.ground.accepting.take();
    // Held until nothing of this uphold is left.
    before.lock = daemon.ground.lock.take();
    // With them ends what is followed and what is waited for.
    drop((daemon, ears));
    if let Some(accepting) = accepting {
        drop(accepting);
        server.finish(LAST_ANSWERS).await;
    }
    let lock = before.lock.as_ref().zip(places.runtime.as_deref());
    if lock.is_none_or(|(lock, runtime)| lock.is_in(runtime)) {
        socket.into_iter().for_each(|path| drop(std::fs::remove_file(path)));
        places.private.iter().for_each(|private| journal::remove(private));
    }
    // A status beyond a byte would be cut to its low bits, which might be 0.
    Ok(End { status: u8::try_from(status).unwrap_or(1), reboot })
}

/// Listens at this path, or goes on with who listens and waits there. `None`: it cannot be, and that was said.
fn let_clients_in(
    path: &Path,
    before: &mut Inheritance,
    server: &Arc<control::Server>,
) -> Result<Option<Task>, Refusal> {
    // One whose path is gone is reached by nobody.
    let goes_on = before.same && path.exists();
    let waiting = if goes_on { before.descriptors.take_listener(path) } else { None };
    if waiting.is_some() {
        for client in before.descriptors.take_clients(path) {
            let client = tokio::net::UnixStream::from_std(client);
            drop(client.map(|client| let_in(client, server)));
        }
    }
    match listen(path, waiting, server.clone()) {
        Ok(accepting) => Ok(Some(accepting)),
        Err(error) if host::is_refused(&error) => {
            let path = path.display();
            tracing::warn!(
                "cannot make {path}: {error}; name a directory on another file system with --runtime-dir: there is \
                 no control socket until then"
            );
            Ok(None)
        }
        Err(error) => {
            let path = path.display();
            Err(refuse(format!("uphold: cannot start the control API at {path}: {error}")))
        }
    }
}
