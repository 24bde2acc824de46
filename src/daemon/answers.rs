//! Requests of the control API, and their answers: what has to be read or waited for is done beside the
//! loop and comes back as [`Inward`].

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::Daemon;
use super::files::{self, Loading};
use super::settings;
use crate::api::{Health, Problem, UnitConfig, Unwell, Version};
use crate::control::{Call, Reply, Request};
use crate::engine::{
    Answer, Changes, Done, DoneResult, Facts, Input, LastExit, Outcome, Run, Ticket, View, Wall, Wanted,
};
use crate::failpoint;
use crate::host;
use crate::logs::{Position, Query};
use crate::task;
use crate::unit::{self, Name, ProbeKind, Set, Severity};

/// How long a view waits for the disk and for the log thread before it goes without them.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a task beside the loop has to say.
pub(super) enum Inward {
    /// An attempt of a tcp or http probe ended.
    Probed {
        /// Whose.
        instance: Name,
        /// Which start.
        run: Run,
        /// Which probe.
        kind: ProbeKind,
        /// How it went.
        outcome: Outcome,
    },
    /// Who waited for the engine's answer is gone.
    Gone(Ticket),
    /// The service manager was told to keep nothing of this run.
    Forgotten(Run),
    /// Files were looked at.
    Looked {
        /// What had been loaded then.
        of: Arc<Set>,
        /// Whether they differ from it, where that could be told.
        found: Vec<(Name, bool)>,
    },
    /// What a view needs is there.
    Show {
        /// One instance, or all.
        one: Option<Name>,
        /// The last lines of the one.
        output: Vec<String>,
        /// Where to.
        reply: oneshot::Sender<Reply>,
    },
    /// The new binary is going to be executed.
    Leaving,
    /// It may be executed now.
    Execute(PathBuf),
    /// It is not, for this reason.
    NotExecuted(String),
    /// The files were read.
    Loaded {
        /// `update`.
        update: bool,
        /// Only say what would be.
        dry_run: bool,
        /// What they say.
        result: Result<Loading, Vec<unit::Problem>>,
        /// Where to; `None`: SIGHUP.
        reply: Option<oneshot::Sender<Reply>>,
    },
}

impl Inward {
    /// For what has to be told apart by a text.
    pub(super) fn name(&self) -> String {
        match self {
            Inward::Probed { instance, run, kind, .. } => format!("{kind:?} probe of {instance}, run {run}"),
            Inward::Show { one, .. } => format!("a view of {one:?}"),
            Inward::Gone(_) => "a client that is gone".to_owned(),
            Inward::Forgotten(run) => format!("what the service manager was told of run {run}"),
            Inward::Looked { .. } => "a look at the files".to_owned(),
            Inward::Execute(path) => format!("the exec of {}", path.display()),
            Inward::Leaving => "an exec that is to come".to_owned(),
            Inward::NotExecuted(_) => "an exec that did not come about".to_owned(),
            Inward::Loaded { .. } => "files that were read".to_owned(),
        }
    }
}

/// Who waits for an answer of the engine.
pub(super) enum Waiter {
    /// For a command.
    Done(oneshot::Sender<Reply>),
    /// For a load.
    Loaded {
        /// Where to; `None`: SIGHUP.
        reply: Option<oneshot::Sender<Reply>>,
        /// [`Changes::settings`]
        settings: Vec<String>,
        /// [`Changes::warnings`]
        warnings: Vec<String>,
    },
}

pub(super) fn problem(kind: &str, title: &str, status: u16, detail: String) -> Problem {
    Problem { kind: kind.to_owned(), title: title.to_owned(), status, detail }
}

fn no_such_unit(name: &Name) -> Reply {
    let detail = format!("no unit is named `{name}`; `uphold ctl status` lists those that are");
    Reply::Problem(problem("no-such-unit", "No such unit", 404, detail))
}

fn no_position(name: &Name, text: &str) -> Reply {
    let detail = format!(
        "cannot go on in the log of {name}: `{text}` is no position; give back the `position` of a line as it \
         came"
    );
    Reply::Problem(problem("bad-request", "No position", 400, detail))
}

/// The asker may be gone; what was asked for is done all the same.
pub(super) fn send(reply: oneshot::Sender<Reply>, answer: Reply) {
    drop(reply.send(answer));
}

impl Daemon {
    pub(super) fn request(&mut self, request: Request) {
        let Request { call, peer, reply } = request;
        let own = matches!(&call, Call::Events { unit: Some(name), .. } if *name == Name::uphold());
        let unknown = |name: &&Name| self.engine.unit(name).is_none();
        if let Some(name) = named(&call).filter(unknown).filter(|_| !own) {
            return send(reply, no_such_unit(name));
        }
        match call {
            Call::List => self.gather(None, reply),
            Call::Get(name) => self.gather(Some(name), reply),
            Call::Config(name) => send(reply, self.config(&name)),
            Call::Command { unit, verb, wait, timeout } => {
                tracing::debug!(uid = peer.uid, pid = peer.pid, unit = unit.as_str(), "{verb:?}");
                let ticket = self.ticket(Waiter::Done(reply));
                self.handle(Input::Command { verb, instances: vec![unit], timeout, wait, ticket });
                self.mind(ticket);
            }
            Call::Logs { unit, lines, since, follow, previous, positions, after } => {
                let after = match after.map(|text| Position::parse(&text).ok_or(text)).transpose() {
                    Ok(after) => after,
                    Err(text) => return send(reply, no_position(&unit, &text)),
                };
                let query = Query {
                    instance: unit,
                    logs: unit::Logs::default(),
                    lines,
                    since,
                    until: None,
                    follow: follow && !previous,
                    positions: positions || after.is_some(),
                    after,
                };
                send(reply, self.read_logs(query, previous));
            }
            Call::Events { unit, since, follow } => {
                let coming = follow.then(|| self.events.subscribe());
                send(reply, Reply::Events(self.engine.events(unit.as_ref(), since), coming));
            }
            Call::Load { update, dry_run } => self.load(update, dry_run, Some(reply)),
            Call::Shutdown => {
                send(reply, Reply::Accepted);
                self.shut_down(&format!("asked for by uid {}", peer.uid), Input::Shutdown);
            }
            Call::Upgrade => self.upgrade(Some(reply)),
            Call::Version => send(
                reply,
                Reply::Version(Version {
                    image: self.image,
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    pid: std::process::id(),
                    life: self.life.clone(),
                }),
            ),
            Call::Health { ready, units } => send(reply, self.health(ready, &units)),
        }
    }

    fn ticket(&mut self, waiter: Waiter) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.waiters.insert(ticket, waiter);
        ticket
    }

    /// Where there was no answer at once: once the asker is gone, neither daemon nor engine keeps anything for
    /// it; [`Inward::Gone`] says so.
    fn mind(&mut self, ticket: Ticket) {
        let Some(Waiter::Done(waiter)) = self.waiters.get_mut(&ticket) else { return };
        let (passed_on, answer) = oneshot::channel();
        let mut reply = std::mem::replace(waiter, passed_on);
        let inward = self.inward.clone();
        task::detached(async move {
            tokio::select! {
                () = reply.closed() => drop(inward.send(Inward::Gone(ticket))),
                // An error is no answer: it is said by dropping the reply.
                answer = answer => drop(answer.map(|answer| send(reply, answer))),
            }
        });
    }

    /// Asks disk and log thread for what a view needs; [`Inward::Show`] follows.
    fn gather(&mut self, one: Option<Name>, reply: oneshot::Sender<Reply>) {
        let inward = self.inward.clone();
        let output = one.as_ref().map(|name| self.last_lines(name));
        let names: Vec<Name> = one.clone().map_or_else(|| self.engine.instances(), |name| vec![name]);
        let (look, begun) = self.looks.want(names);
        self.look(begun);
        task::detached(async move {
            // Without an answer in time, what is known from before is shown.
            drop(tokio::time::timeout(PATIENCE, look.ended()).await);
            let output = match output {
                Some(output) => output.await,
                None => Vec::new(),
            };
            drop(inward.send(Inward::Show { one, output, reply }));
        });
    }

    /// The last lines of the instance's last run: what is kept of them where log thread and disk do not answer in time.
    fn last_lines(&self, instance: &Name) -> impl Future<Output = Vec<String>> + use<> {
        let (logs, instance) = (self.logs.clone(), instance.clone());
        // What has not run has said nothing, whatever stands in the file.
        let begun = self.begun(&instance);
        let keys = self.engine.unit(&instance).map(|unit| unit.logs.clone());
        async move {
            let tail = async {
                match (begun, keys) {
                    (Some(begun), Some(keys)) => logs.recall(of_run(&instance, keys, begun)).await,
                    (None, _) | (_, None) => logs.tail(&instance).await,
                }
            };
            match tokio::time::timeout(PATIENCE, tail).await {
                Ok(lines) => lines,
                Err(_) => logs.kept(&instance),
            }
        }
    }

    /// When the current or last run began.
    fn begun(&self, instance: &Name) -> Option<Wall> {
        let view = self.engine.view(host::now(), instance, Facts::default())?;
        view.started_at.or_else(|| view.exits.iter().rev().find_map(|exit| exit.started_at))
    }

    /// Begins a look at the files of these units, if it is time for one; [`Inward::Looked`] follows.
    fn look(&self, names: Option<BTreeSet<Name>>) {
        let Some(names) = names else { return };
        let (disk, inward) = (self.disk.clone(), self.inward.clone());
        let (set, sources) = (self.loading.set.clone(), self.loading.sources.clone());
        let of = set.clone();
        task::detached(async move {
            let looked = move || -> Vec<(Name, bool)> {
                let changed = |name: Name| match set.changed_on_disk(&name, &sources) {
                    Ok(changed) => Some((name, changed)),
                    Err(unseen) => {
                        tracing::debug!("cannot tell whether the files of {name} have changed: {unseen}");
                        None
                    }
                };
                names.into_iter().filter_map(changed).collect()
            };
            let found = disk.run(looked).await.unwrap_or_default();
            drop(inward.send(Inward::Looked { of, found }));
        });
    }

    pub(super) fn inward(&mut self, inward: Inward) {
        match inward {
            Inward::Probed { instance, run, kind, outcome } => self.probed(instance, run, kind, outcome),
            Inward::Gone(ticket) => {
                tracing::debug!("a client is gone before its answer came; what it asked for goes on");
                self.waiters.remove(&ticket);
                self.handle(Input::Gone { ticket });
            }
            Inward::Forgotten(run) => {
                if self.manager.forgotten(run) {
                    self.host.release(run);
                }
            }
            Inward::Looked { of, found } => {
                // What was loaded meanwhile says more.
                let current = Arc::ptr_eq(&of, &self.loading.set);
                let begun = self.looks.ended(if current { found } else { Vec::new() });
                self.look(begun);
            }
            Inward::Show { one: None, output: _, reply } => {
                let names = self.engine.instances();
                let views = names.iter().filter_map(|name| self.view(name, None)).collect();
                send(reply, Reply::List(views));
            }
            Inward::Show { one: Some(name), output, reply } => match self.view(&name, Some(output)) {
                Some(view) => send(reply, Reply::Unit(Box::new(view))),
                None => send(reply, no_such_unit(&name)),
            },
            Inward::Execute(path) => self.execute(&path),
            Inward::Leaving => self.leaving(),
            Inward::NotExecuted(why) => self.not_executed(&why),
            Inward::Loaded { update, dry_run, result, reply } => self.loaded(update, dry_run, result, reply),
        }
    }

    fn view(&self, name: &Name, output: Option<Vec<String>>) -> Option<View> {
        let in_list = output.is_none();
        let usage = self.host.usage(name, !in_list);
        let facts = Facts {
            changed_on_disk: self.looks.changed(name),
            memory_bytes: usage.memory_bytes,
            cpu_seconds: usage.cpu_seconds,
            tasks: usage.tasks,
            last_line: self.logs.last_line(name),
            output: output.unwrap_or_default(),
        };
        let mut view = self.engine.view(host::now(), name, facts)?;
        if in_list {
            view.command.clear();
        } else {
            view.stops = self.engine.dependents(std::slice::from_ref(name));
        }
        Some(view)
    }

    fn config(&self, name: &Name) -> Reply {
        match self.engine.plan().units().get(name) {
            Some(planned) => Reply::Config(UnitConfig {
                name: name.clone(),
                files: planned.loaded.files.iter().map(|file| file.display().to_string()).collect(),
                text: planned.loaded.cat(),
            }),
            None => {
                let detail = format!("the file of `{name}` is gone; what runs was started from it before");
                Reply::Problem(problem("no-such-unit", "No such unit", 404, detail))
            }
        }
    }

    /// `query` as it was asked for: what the unit has to say is added.
    fn read_logs(&self, mut query: Query, previous: bool) -> Reply {
        let instance = &query.instance;
        let Some(unit) = self.engine.unit(instance) else { return no_such_unit(instance) };
        query.logs = unit.logs.clone();
        if previous {
            let Some((from, to)) = self.previous(instance) else {
                let detail = format!("`{instance}` has no run before the current one");
                return Reply::Problem(problem("no-previous-run", "No previous run", 404, detail));
            };
            query.since = Some(query.since.map_or(from, |since| since.max(from)));
            query.until = to;
        }
        let mut read = self.logs.read(query);
        let (out, lines) = mpsc::channel(64);
        task::detached(async move {
            loop {
                let line = tokio::select! {
                    line = read.recv() => line,
                    // The client is gone, though nothing more may ever be written.
                    () = out.closed() => return,
                };
                let Some(line) = line else { return };
                let Ok(text) = serde_json::to_string(&line) else { continue };
                if out.send(text).await.is_err() {
                    return;
                }
            }
        });
        Reply::Logs(lines)
    }

    /// When the run before the current or last one began, and when the next one did.
    fn previous(&self, instance: &Name) -> Option<(Wall, Option<Wall>)> {
        let view = self.engine.view(host::now(), instance, Facts::default())?;
        let mut ran = view.exits.iter().rev().filter(|exit| exit.started_at.is_some());
        let next: Option<Wall> = match view.started_at {
            Some(current) => Some(current),
            None => ran.next().and_then(|last: &LastExit| last.started_at),
        };
        let previous = ran.next()?;
        Some((previous.started_at?, next))
    }

    fn health(&self, ready: bool, units: &[Name]) -> Reply {
        if let Some(missing) = units.iter().find(|name| self.engine.unit(name).is_none()) {
            return no_such_unit(missing);
        }
        let names = if units.is_empty() { self.engine.instances() } else { units.to_vec() };
        let unwell: Vec<Unwell> = names
            .iter()
            .filter(|_| ready || !units.is_empty())
            .filter_map(|name| self.engine.view(host::now(), name, Facts::default()))
            .filter(|view| !units.is_empty() || view.wanted == Wanted::Up)
            .filter(|view| {
                let completed = view.state == crate::engine::StateName::Completed;
                !(view.up || completed) || (ready && view.ready == Some(false) && !completed)
            })
            .map(|view| Unwell {
                message: view.message.unwrap_or_else(|| view.state.as_str().to_owned()),
                name: view.name,
                state: view.state,
            })
            .collect();
        let healthy = unwell.is_empty() && !(ready && self.engine.shutting_down());
        Reply::Health(Health { healthy, units: unwell })
    }

    /// Reads the files beside the loop; [`Inward::Loaded`] follows.
    pub(super) fn load(&self, update: bool, dry_run: bool, reply: Option<oneshot::Sender<Reply>>) {
        let (disk, files, inward) = (self.disk.clone(), self.files.clone(), self.inward.clone());
        task::detached(async move {
            let Some(result) = disk.run(move || files.load(false)).await else { return };
            drop(inward.send(Inward::Loaded { update, dry_run, result, reply }));
        });
    }

    fn loaded(
        &mut self,
        update: bool,
        dry_run: bool,
        result: Result<Loading, Vec<unit::Problem>>,
        reply: Option<oneshot::Sender<Reply>>,
    ) {
        let loading = match result {
            Ok(loading) => loading,
            Err(problems) => {
                let detail = files::render(&problems);
                tracing::error!("nothing was reloaded: the files have errors\n{detail}");
                if let Some(reply) = reply {
                    let title = "Nothing was changed: the files have errors";
                    send(reply, Reply::Problem(problem("invalid-units", title, 422, detail)));
                }
                return;
            }
        };
        let warnings: Vec<String> = loading
            .warnings
            .iter()
            .filter(|problem| problem.severity == Severity::Warning)
            .map(|problem| problem.to_string())
            .collect();
        let settings = settings::changed(&self.files, &self.loading, &loading);
        if dry_run {
            let changes = self.engine.preview(&loading.plan, update);
            if let Some(reply) = reply {
                send(reply, Reply::Changes(Changes { dry_run: true, settings, warnings, ..changes }));
            }
            return;
        }
        if self.engine.shutting_down() {
            if let Some(reply) = reply {
                let detail = "nothing is loaded any more: uphold is shutting down".to_owned();
                send(reply, Reply::Problem(problem("shutting-down", "Shutting down", 503, detail)));
            }
            return;
        }
        failpoint::reach("reloading");
        let ticket = self.ticket(Waiter::Loaded { reply, settings, warnings });
        let plan = loading.plan.clone();
        self.configure(&loading);
        self.loading = loading;
        self.looks.loaded();
        self.handle(Input::Load { plan, update, ticket: Some(ticket) });
    }

    /// The engine has an answer.
    pub(super) fn answer(&mut self, ticket: Ticket, answer: Answer) {
        match (self.waiters.remove(&ticket), answer) {
            (Some(Waiter::Done(reply)), Answer::Done(mut done)) => match done.pop() {
                Some(done) => self.answer_done(reply, done),
                None => drop(reply),
            },
            (Some(Waiter::Loaded { reply, settings, warnings }), Answer::Loaded(changes)) => {
                let keys = settings.join(", ");
                let also = if keys.is_empty() { keys } else { format!("; of uphold.toml: {keys}") };
                tracing::info!("the files were read again{also}");
                match reply {
                    Some(reply) => send(reply, Reply::Changes(Changes { settings, warnings, ..*changes })),
                    // Who sent SIGHUP reads the log.
                    None => warnings.iter().for_each(|warning| tracing::warn!("{warning}")),
                }
            }
            // Each ticket was given out with the waiter for its kind of answer.
            (Some(Waiter::Done(_) | Waiter::Loaded { .. }) | None, Answer::Done(_) | Answer::Loaded(_)) => {}
        }
    }

    fn answer_done(&self, reply: oneshot::Sender<Reply>, mut done: Done) {
        if done.result == DoneResult::Ok {
            return send(reply, Reply::Done(done));
        }
        let output = self.last_lines(&done.name);
        task::detached(async move {
            done.output = output.await;
            send(reply, Reply::Done(done));
        });
    }
}

/// What a run that began then has written.
fn of_run(instance: &Name, logs: unit::Logs, begun: Wall) -> Query {
    Query {
        instance: instance.clone(),
        logs,
        lines: None,
        since: Some(begun),
        until: None,
        follow: false,
        positions: false,
        after: None,
    }
}

/// The unit that a call is about.
fn named(call: &Call) -> Option<&Name> {
    match call {
        Call::Get(name)
        | Call::Config(name)
        | Call::Command { unit: name, .. }
        | Call::Logs { unit: name, .. }
        | Call::Events { unit: Some(name), .. } => Some(name),
        Call::List
        | Call::Events { unit: None, .. }
        | Call::Load { .. }
        | Call::Shutdown
        | Call::Upgrade
        | Call::Version
        | Call::Health { .. } => None,
    }
}
