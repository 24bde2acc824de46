//! A daemon from its parts to its end.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};

use super::files::{Files, Loading};
use super::ground::Ground;
use super::inheritance::Inheritance;
use super::journal::{self, Journal};
use super::listener::{SOCKET, let_in, listen};
use super::places::Places;
use super::settings::Settings;
use super::start::{End, LAST_LINES, Options, Refusal, refuse};
use super::voice::Voice;
use super::{Board, Daemon, Disk, Ears, Looks, Manager, lasting, manager};
use crate::control;
use crate::engine::{self, Engine, Input, Saved};
use crate::failpoint;
use crate::host::{self, Host};
use crate::logs::{self, Logs};
use crate::plan::Plan;
use crate::probe::Prober;
use crate::task::Task;
use crate::unit::{Output, Signal};

/// How long a client may take at the end to read what is left of its answer.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// How long the files of endpoints may take at the end, to be removed.
const LAST_ENDPOINTS: Duration = Duration::from_secs(2);
/// How long the start of a probe may take at the end, to be undone.
const LAST_PROBES: Duration = Duration::from_secs(2);

/// Makes a daemon, and lets it live to its end.
pub(super) async fn live(
    options: &Options,
    loaded: (Files, Loading, Voice),
    places: &Places,
    before: &mut Inheritance,
    heard: (host::Signals, mpsc::UnboundedReceiver<Signal>),
) -> Result<End, Refusal> {
    let resumes = before.state.is_some();
    let (mut daemon, mut ears) = assemble(options, loaded, places, before, heard)?;
    failpoint::reach("assembled");
    daemon.begin(before, resumes);
    let status = daemon.supervise(&mut ears).await;
    let reboot = daemon.engine.reboots();
    end(daemon, ears, places, before).await;
    // A status beyond a byte would be cut to its low bits, which might be 0.
    Ok(End { status: u8::try_from(status).unwrap_or(1), reboot })
}

/// All of its parts. What may fail comes first: what is taken of the image before would not be there for the next
/// attempt.
fn assemble(
    options: &Options,
    (files, loading, voice): (Files, Loading, Voice),
    places: &Places,
    before: &mut Inheritance,
    (signals, faults): (host::Signals, mpsc::UnboundedReceiver<Signal>),
) -> Result<(Daemon, Ears), Refusal> {
    let fail = |what: &str, error: io::Error| refuse(format!("uphold: cannot start {what}: {error}"));
    let init = options.init.as_ref();
    let container = init.is_some() && host::in_container();
    if let Err(error) = host::become_subreaper() {
        tracing::warn!("cannot become a subreaper: {error}; orphans of services go to PID 1");
    }
    before.nofile = before.nofile.or_else(host::raise_nofile);
    before.oom_score_adj = before.oom_score_adj.or_else(host::survive_out_of_memory);
    let taken_over = before.state.as_ref().map_or(0, Saved::len);
    host::expect_units(taken_over.max(loading.set.units.len()));
    let (news_in, news) = mpsc::unbounded_channel();
    let pipes = host::Pipes::open(&before.descriptors).map(Arc::new);
    let pipes = pipes.inspect_err(|error| {
        tracing::warn!(
            "cannot keep which pipe is whose: {error}; output that comes out of no FIFO ends with uphold"
        );
    });
    let pipes = pipes.ok();
    pipes.iter().for_each(|pipes| before.stored.note(pipes));
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
        runs: places.private.as_deref().map_or(0, host::highest_run),
    };
    let state = before.state.take();
    let resumes = state.is_some();
    let engine = match state {
        Some(state) => Engine::restored(settings, state, host::now(), before.same),
        None => Engine::new(settings),
    };
    let private = places.private.as_deref();
    let slots = slots(before, private, resumes).map_err(|error| fail("its record of processes", error))?;
    let host = Host::new(host_settings, slots, before.cgroups.as_deref(), news_in);
    let place = before.world.clone().map(|world| (private, before.head(world, host.cgroups())));
    let journal = Journal::begin(place, &engine);
    let mut known = BTreeSet::new();
    known.extend(engine.instances());
    let (permissions, permitted) = watch::channel(loading.permissions.clone());
    let server = Arc::new(control::Server::new(permitted, requests_in, host::mark_read, host::mark_unread));
    let disk = Disk::start().map_err(|error| fail("the thread for files", error))?;
    let board = Board::start(places.runtime.as_deref(), known)
        .map_err(|error| fail("the thread for endpoints", error))?;
    let manager =
        Manager::start(inward.clone()).map_err(|error| fail("the thread for the service manager", error))?;
    let signals = signals.listen().map_err(|error| fail("its ear for signals", error))?;
    let accepting = match socket(places).filter(|_| !before.crashes.too_many) {
        Some(path) => let_clients_in(&path, before, &server)?,
        None => None,
    };
    let (gone_in, gone) = mpsc::unbounded_channel();
    let dirs = (places.runtime.as_deref(), places.private.as_deref());
    let ground = Ground::watch(dirs, before.lock.take(), accepting, gone_in);
    let daemon = Daemon {
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
        server,
        watchdog: manager::interval(),
        image: before.image,
        life: before.life(),
        plain: before.crashes.too_many,
        upgrading: None,
        poison: HashSet::new(),
        exit: None,
    };
    let ears = Ears { news, notices, requests, signals, faults, gone, inward: inward_out };
    Ok((daemon, ears))
}

/// Which process is whose: in its file, or in memory where that cannot be mapped. The error is for who takes over:
/// without them, all that lives would count as gone.
fn slots(before: &Inheritance, private: Option<&Path>, resumes: bool) -> io::Result<host::Slots> {
    let token = u64::from_str_radix(&before.token, 16).unwrap_or_default();
    match host::Slots::open(&before.descriptors, private, token) {
        Ok((slots, None)) => Ok(slots),
        Ok((slots, Some(error))) => {
            tracing::warn!(
                "cannot map {}: {error}; which process is whose is kept in memory: services are not taken over \
                 should uphold be killed",
                private.unwrap_or(Path::new("")).join("runs").display()
            );
            Ok(slots)
        }
        Err(error) if resumes => Err(error),
        Err(error) => {
            let what = "it would find no service";
            tracing::error!("cannot keep what the next uphold has to know: {error}; {what}");
            Ok(host::Slots::none())
        }
    }
}

/// Where clients ask; `None`: nowhere.
fn socket(places: &Places) -> Option<PathBuf> {
    places.runtime.as_deref().map(|dir| dir.join(SOCKET))
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

impl Daemon {
    /// Takes over what there is, then has the units do what they are to do. `resumes`: there was a state.
    fn begin(&mut self, before: &mut Inheritance, resumes: bool) {
        host::begun();
        if !self.is_whole() {
            // Somebody has removed something before that was watched.
            self.ground.lost(vec![OsString::new()]);
        }
        self.take_over(before);
        before.close_descriptors();
        let plan: Arc<Plan> = self.loading.plan.clone();
        self.load_first(plan, resumes);
        self.say_how_it_came(before);
        self.manager.ready();
    }

    /// What the files said when uphold began. `resumes`: then what was recorded and may not have been done is done.
    /// Both touch every unit, and are put on record as one.
    fn load_first(&mut self, plan: Arc<Plan>, resumes: bool) {
        let mut effects = Vec::new();
        let input = Input::Load { plan, update: false, ticket: None };
        failpoint::reach(input.name());
        self.engine.handle(host::now(), input, &mut effects);
        if resumes {
            self.engine.resume(host::now(), &mut effects);
        }
        self.conclude(effects);
    }
}

/// Puts away what it has, last what keeps another uphold out.
async fn end(mut daemon: Daemon, ears: Ears, places: &Places, before: &mut Inheritance) {
    if tokio::time::timeout(LAST_PROBES, daemon.host.finish()).await.is_err() {
        tracing::warn!("cannot end a probe that is being started: its directory or command does not answer");
    }
    // Another uphold may have the directory by now.
    if daemon.ground.is_own() {
        daemon.board.finish(LAST_ENDPOINTS);
    }
    daemon.logs.finish(LAST_LINES).await;
    let (accepting, server) = (daemon.ground.accepting.take(), daemon.server.clone());
    before.lock = daemon.ground.lock.take();
    // With them ends what is followed and what is waited for.
    drop((daemon, ears));
    if let Some(accepting) = accepting {
        drop(accepting);
        server.finish(LAST_ANSWERS).await;
    }
    let lock = before.lock.as_ref().zip(places.runtime.as_deref());
    if lock.is_none_or(|(lock, runtime)| lock.is_in(runtime)) {
        socket(places).into_iter().for_each(|path| drop(std::fs::remove_file(path)));
        places.private.iter().for_each(|private| journal::remove(private));
    }
}

fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
