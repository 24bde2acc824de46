//! The daemon: the loop that carries inputs to the engine and its effects to the adapters.
//!
//! One thread runs it. It decides nothing; what could block has a thread of its own: spawning (`host`), log
//! files (`logs`), unit files (`disk`), files for proxies (`endpoints`) and uphold's own log (`voice`).

mod accounts;
mod answers;
mod check;
mod disk;
mod endpoints;
mod files;
mod ground;
mod inheritance;
mod journal;
mod lasting;
mod line;
mod listener;
mod live;
mod looks;
mod manager;
mod places;
mod poison;
mod settings;
mod signals;
mod start;
mod upgrade;
mod versions;
mod voice;

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;

use crate::control;
use crate::engine::{Effect, Engine, Event, EventKind, Input, Outcome, Run, SoFar, Ticket};
use crate::failpoint;
use crate::host::{self, ExecOrder, Host, News, Order};
use crate::logs::{self, Begins, Logs};
use crate::probe::{self, Prober};
use crate::task::Task;
use crate::unit::{Check, Name, ProbeKind, Signal};

use answers::{Inward, Waiter};
use disk::Disk;
use endpoints::Board;
use files::{Files, Loading};
use ground::Ground;
use inheritance::{BESIDE, Inheritance};
use journal::{Journal, News as Recording};
use looks::Looks;
use manager::Manager;
use settings::Settings;
use upgrade::Upgrade;

pub use check::check;
pub use start::{Init, Options, run};
pub use upgrade::try_state;

/// How long the loop rests after a panic, so that one that repeats is not all it does.
const AFTER_A_PANIC: Duration = Duration::from_millis(200);

/// Everything that the loop holds.
struct Daemon {
    engine: Engine,
    ground: Ground,
    journal: Journal,
    /// The last change is in it.
    recorded: bool,
    /// Runs that are over, which is not on record yet.
    over: Vec<Run>,
    host: Host,
    logs: Arc<Logs>,
    prober: Arc<Prober>,
    disk: Disk,
    looks: Looks,
    /// For proxies in front of services.
    board: Board,
    files: Arc<Files>,
    loading: Loading,
    settings: Settings,
    /// COMMAND of `init`.
    command: Option<Name>,
    /// For followers of events.
    events: broadcast::Sender<Event>,
    /// Who waits for an answer of the engine.
    waiters: HashMap<Ticket, Waiter>,
    tickets: u64,
    /// Attempts of tcp and http probes in flight.
    attempts: HashMap<(Name, Run, ProbeKind), Task>,
    /// What tasks beside the loop have to say.
    inward: mpsc::UnboundedSender<Inward>,
    manager: Manager,
    server: Arc<control::Server>,
    watchdog: Option<Duration>,
    /// Which image of this process it is.
    image: u32,
    /// [`crate::api::Version::life`]
    life: String,
    /// It has crashed too often: no probes.
    plain: bool,
    upgrading: Option<Upgrade>,
    /// What was dropped, and said to be.
    poison: HashSet<u64>,
    exit: Option<i32>,
}

/// Where the loop hears from everybody.
struct Ears {
    news: mpsc::UnboundedReceiver<News>,
    notices: mpsc::UnboundedReceiver<logs::Notice>,
    requests: mpsc::Receiver<control::Request>,
    signals: host::Heard,
    /// Those that report a fault, sent by somebody.
    faults: mpsc::UnboundedReceiver<Signal>,
    /// What was removed of the runtime directory.
    gone: mpsc::UnboundedReceiver<Vec<OsString>>,
    inward: mpsc::UnboundedReceiver<Inward>,
}

/// What woke the loop.
enum Wake {
    News(News),
    Notice(logs::Notice),
    Request(control::Request),
    Signal(Signal),
    Inward(Inward),
    /// The host has done something of its own.
    Host,
    Deadline,
    Watchdog,
    /// The state could not be written, and is to be.
    Unrecorded,
    /// These were removed of the runtime directory.
    Gone(Vec<OsString>),
    /// It is to be looked what is gone of it.
    Incomplete,
}

/// The state tells of runs, and nothing of their processes.
const RUNS_LOST: &str = "private/runs in the runtime directory is gone or of no use: what lives of the runs that \
    the state tells of cannot be proven by its start, and is ended and started anew";

impl Daemon {
    /// Runs until the engine says that all is done.
    async fn supervise(&mut self, ears: &mut Ears) -> i32 {
        let mut fed = Instant::now();
        loop {
            if let Some(status) = self.exit {
                return status;
            }
            let wake = self.wake(ears, fed).await;
            if matches!(wake, Wake::Watchdog) {
                fed = Instant::now();
            }
            let key = self.key(&wake);
            // It says of any child that it has ended: without it none would be reaped any more.
            let needed = matches!(wake, Wake::Signal(Signal::CHLD));
            if !needed && host::is_poison(key) {
                self.drop_poison(wake).await;
                continue;
            }
            // A panic ends in an exec of uphold by itself, if that can be. PID 1 must not end because of a bug in
            // one decision in any case: it is said, and uphold goes on.
            host::taking(key);
            let took = catch_unwind(AssertUnwindSafe(|| self.take(wake)));
            host::taking(0);
            if took.is_err() {
                tracing::error!("a bug: uphold panicked and goes on; please report what stands on stderr");
                // The same may happen again at once, for ever.
                tokio::time::sleep(AFTER_A_PANIC).await;
            }
        }
    }

    fn take(&mut self, wake: Wake) {
        match wake {
            Wake::News(news) => self.news(news),
            Wake::Notice(notice) => self.handle(Input::Notice {
                instance: notice.instance,
                reason: notice.reason,
                warning: notice.warning,
                message: notice.message,
            }),
            Wake::Request(request) => self.request(request),
            Wake::Signal(signal) => self.signal(signal),
            Wake::Inward(inward) => self.inward(inward),
            Wake::Host => {}
            Wake::Deadline => self.handle(Input::Tick),
            Wake::Watchdog => self.manager.alive(),
            Wake::Unrecorded => self.conclude(Vec::new()),
            Wake::Gone(names) => match self.logs.not_own(names) {
                names if names.is_empty() => {}
                names => self.ground.lost(names),
            },
            Wake::Incomplete => self.put_back(),
        }
    }

    async fn wake(&mut self, ears: &mut Ears, fed: Instant) -> Wake {
        let deadline = self.engine.next_deadline().map(|at| Instant::now() + (at - host::now().mono));
        let watchdog = self.watchdog.map(|every| fed + every);
        tokio::select! {
            // What happened before what is due: an exit that is known is not killed for being late.
            biased;
            signal = ears.signals.next() => Wake::Signal(signal),
            Some(signal) = ears.faults.recv() => Wake::Signal(signal),
            Some(news) = ears.news.recv() => Wake::News(news),
            () = self.host.next() => Wake::Host,
            Some(inward) = ears.inward.recv() => Wake::Inward(inward),
            () = at(deadline) => Wake::Deadline,
            () = at(watchdog) => Wake::Watchdog,
            () = at(self.ground.due()) => Wake::Incomplete,
            () = at(self.journal.due()) => Wake::Unrecorded,
            Some(names) = ears.gone.recv() => Wake::Gone(names),
            Some(notice) = ears.notices.recv() => Wake::Notice(notice),
            Some(request) = ears.requests.recv() => Wake::Request(request),
        }
    }

    fn handle(&mut self, input: Input) {
        let mut effects = Vec::new();
        failpoint::reach(input.name());
        self.engine.handle(host::now(), input, &mut effects);
        self.conclude(effects);
    }

    /// Puts the engine's state on record, then does what it asks for. What cannot be recorded is not begun;
    /// but what runs is stopped and answered for all the same.
    fn conclude(&mut self, effects: Vec<Effect>) {
        failpoint::reach("decided");
        let recorded = self.journal.record(&mut self.engine).and_then(|()| self.ground.holds());
        failpoint::reach("recorded");
        self.recorded = recorded.is_ok();
        if !self.recorded && !self.journal.is_whole() {
            // It is written again once it is put back, also where nobody watches.
            self.ground.lost(vec![OsString::new()]);
        }
        if self.recorded {
            for run in std::mem::take(&mut self.over) {
                self.release(run);
            }
        }
        for effect in effects {
            match (effect, &recorded) {
                (Effect::Spawn { instance, run, unit }, Err(error)) => {
                    self.host.refuse(Order { instance, run, unit, foreground: false }, error);
                }
                (effect, Ok(()) | Err(_)) => self.carry_out(effect),
            }
        }
        self.say_whether_recorded();
    }

    fn say_whether_recorded(&mut self) {
        let Some(Recording { place, why }) = self.journal.news() else { return };
        let place = place.display();
        match why {
            Some(why) => {
                let message = format!(
                    "cannot record the state ({place}): {why}; no unit is started until it can be recorded, for nobody \
                     would find it again if uphold were killed; trying again every second"
                );
                self.own_event("StateNotRecorded", true, message);
            }
            None => self.own_event("StateRecorded", false, format!("the state is recorded again ({place})")),
        }
    }

    /// A run is over. What is kept of it goes once that is on record: till then it is what tells that the run
    /// was begun.
    fn release(&mut self, run: Run) {
        if self.recorded {
            // A manager that was not told yet may be told by the next image.
            if !self.manager.forget(run) {
                self.host.release(run);
            }
        } else {
            self.over.push(run);
        }
    }

    /// Takes over what an uphold before has left, once the engine has its state.
    fn take_over(&mut self, before: &mut Inheritance) {
        let taken = self.engine.taken();
        let runs: HashSet<Run> = taken.iter().map(|taken| taken.run).collect();
        let known = self.host.known();
        let over: HashSet<Run> = known.difference(&runs).copied().collect();
        if taken.iter().any(|taken| taken.so_far == SoFar::Born && !known.contains(&taken.run)) {
            before.complaints.push(("RunsLost", RUNS_LOST.to_owned()));
        }
        if let Some(pids) = self.host.living(&over) {
            let text = format!(
                "the state does not tell of processes of an uphold before that live ({pids}), and may be cut short: \
                 {BESIDE}"
            );
            before.complaints.push(("StateLost", text));
        }
        self.manager.go_on(before.same, before.stored.runs(), &runs, over);
        for taken in taken {
            let foreground = self.command.as_ref() == Some(&taken.instance);
            failpoint::reach("adopting");
            self.host.adopt(taken, foreground, &mut before.stored);
        }
        self.host.adopted(&runs, self.manager.untold(), &mut before.stored);
        failpoint::reach("adopted");
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Spawn { instance, run, unit } => {
                let foreground = self.command.as_ref() == Some(&instance);
                self.host.spawn(Order { instance, run, unit, foreground });
            }
            Effect::Signal { instance, run, signal, to, cont } => {
                self.host.signal(&instance, run, signal, to, cont);
            }
            Effect::Terminate { instance, run } => self.host.terminate(&instance, run),
            Effect::Kill { instance, run, main_only } => self.host.kill(&instance, run, main_only),
            Effect::Survey { instance, run } => self.host.survey(&instance, run),
            Effect::Probe { .. } if self.plain => {}
            Effect::Probe { instance, run, kind, probe, unit } => match &probe.check {
                Check::Exec { command } => {
                    let (command, timeout) = (command.clone(), probe.timeout);
                    self.host.exec(ExecOrder { instance, run, kind, unit, command, timeout });
                }
                Check::Tcp(_) | Check::Http(_) => self.attempt(instance, run, kind, probe),
            },
            Effect::CancelProbe { instance, run, kind } => {
                self.host.cancel_exec(&instance, kind);
                self.attempts.remove(&(instance, run, kind));
            }
            Effect::Applied { instance, unit } => self.logs.configure(&instance, &unit.logs),
            Effect::Forget { instance } => {
                self.host.forget(&instance);
                self.logs.forget(&instance);
                self.board.put(instance, None);
            }
            // What lies there by now may be another uphold's.
            Effect::Endpoints { .. } if !self.ground.is_own() => {}
            Effect::Endpoints { instance, endpoints } => self.board.put(instance, endpoints),
            Effect::Event(event) => self.event(event),
            Effect::Answer { ticket, answer } => self.answer(ticket, answer),
            Effect::Sweep(signal) => self.host.sweep(signal),
            Effect::Exit(status) => self.exit = Some(status),
        }
    }

    fn attempt(&mut self, instance: Name, run: Run, kind: ProbeKind, probe: Arc<crate::unit::Probe>) {
        let (prober, inward) = (self.prober.clone(), self.inward.clone());
        let key = (instance.clone(), run, kind);
        let attempt = Task::spawn(async move {
            let outcome = prober.attempt(&probe).await;
            drop(inward.send(Inward::Probed { instance, run, kind, outcome }));
        });
        // One of before, if there is one, ends.
        self.attempts.insert(key, attempt);
    }

    fn probed(&mut self, instance: Name, run: Run, kind: ProbeKind, outcome: Outcome) {
        self.attempts.remove(&(instance.clone(), run, kind));
        self.handle(Input::Probed { instance, run, kind, outcome });
    }

    fn event(&mut self, event: Event) {
        let (unit, reason, message) = (event.unit.as_str(), event.reason.as_str(), event.message.as_str());
        match event.kind {
            EventKind::Normal => tracing::info!(unit, reason, "{message}"),
            EventKind::Warning => tracing::warn!(unit, reason, "{message}"),
        }
        // Nobody follows: then nobody needs it.
        drop(self.events.send(event));
    }

    fn news(&mut self, news: News) {
        match news {
            News::Spawned { instance, run, pid, output, deposits } => {
                self.manager.keep(run, deposits);
                // First the start, then its lines: none is older than the run that wrote it.
                self.handle(Input::Spawned { instance: instance.clone(), run, pid });
                self.read_output(&instance, run, output, Begins::Anew);
            }
            News::Resumed { instance, run, output, deposits } => {
                self.manager.keep(run, deposits);
                self.read_output(&instance, run, output, Begins::AfterAGap);
            }
            News::SpawnFailed { instance, run, failure } => {
                self.handle(Input::SpawnFailed { instance, run, failure });
                self.release(run);
            }
            News::Exited { instance, run, exit } => self.handle(Input::Exited { instance, run, exit }),
            News::Left { instance, run, pids } => self.handle(Input::Left { instance, run, pids }),
            News::Emptied { instance, run } => {
                self.handle(Input::Emptied { instance, run });
                failpoint::reach("releasing");
                self.release(run);
            }
            News::Probed { instance, end, output, .. } if self.is_trial(&instance) => {
                self.tried(end, &output)
            }
            News::Probed { instance, run, kind, end, output } => {
                let probe = self.engine.unit(&instance).and_then(|unit| unit.probe(kind).cloned());
                let Some(probe) = probe else { return };
                let Check::Exec { command } = &probe.check else { return };
                let outcome = probe::exec_outcome(command, probe.timeout, end, &output);
                self.probed(instance, run, kind, outcome);
            }
            News::Childless => self.handle(Input::Childless),
            News::Notice { instance: Some(instance), reason, message } => {
                self.handle(Input::Notice { instance, reason, warning: true, message });
            }
            News::Notice { instance: None, reason, message } => tracing::warn!(reason, "{message}"),
        }
    }

    fn read_output(&self, instance: &Name, run: Run, output: Vec<host::Captured>, begins: Begins) {
        let unit = self.engine.unit(instance);
        for captured in output {
            self.logs.open(logs::Source {
                instance: instance.clone(),
                run,
                stderr: captured.stream == host::Stream::Stderr,
                pipe: captured.pipe,
                path: captured.path,
                logs: unit.map(|unit| unit.logs.clone()).unwrap_or_default(),
                begins: if captured.kept { Begins::Seamlessly } else { begins },
                room: captured.room,
            });
        }
    }

    fn signal(&mut self, signal: Signal) {
        if signal == Signal::CHLD {
            self.host.reap();
        } else if self.command.is_some() {
            self.handle(Input::Forward(signal));
        } else if signal == Signal::TERM {
            self.shut_down(&signal.name(), Input::Shutdown);
        } else if signal == Signal::INT {
            // For PID 1 of a machine that is Ctrl-Alt-Del.
            self.shut_down(&signal.name(), Input::Reboot);
        } else if signal == Signal::HUP {
            self.load(false, false, None);
        } else if signal == Signal::USR2 {
            self.upgrade(None);
        } else if host::reports_fault(signal) {
            tracing::warn!("{signal} was sent to uphold by somebody, and is ignored");
        } else {
            tracing::debug!("{signal} has no meaning for uphold and is ignored");
        }
    }

    fn shut_down(&mut self, asked_by: &str, how: Input) {
        if !self.engine.shutting_down() {
            tracing::info!("shutting down: {asked_by}");
            self.manager.stopping();
        } else {
            tracing::warn!("shutting down at once: {asked_by} again");
        }
        self.handle(how);
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
