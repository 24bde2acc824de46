//! What operators ask for, and when it has come about or cannot any more.

use std::time::Duration;

use super::Engine;
use super::input::{Answer, Effect, Exit, Goal, Run, Ticket, Verb};
use super::instance::{Ended, How, Idle, Instance, Life, Next, Phase, State, Why};
use super::time::{Mono, Time};
use super::view::{Done, DoneResult, ExitReason, Wanted};
use super::words;
use crate::unit::{Kind, Name, Policy, Scope};

/// How long a simple unit without probes is watched after its start.
const WATCH: Duration = Duration::from_secs(1);

/// A command whose answer is due.
#[derive(Debug)]
pub(super) struct Request {
    items: Vec<Item>,
    /// When it is answered at the latest.
    until: Option<Mono>,
    /// The asker said so: what has come up by then is watched no longer.
    firm: bool,
}

/// One instance of a command.
#[derive(Debug)]
struct Item {
    name: Name,
    hope: Hope,
    also: Vec<Name>,
    done: Option<Done>,
}

/// What an item waits for.
#[derive(Debug, Clone)]
enum Hope {
    /// Nothing: it was over at once.
    Said(DoneResult, String),
    /// The answer does not wait: what has begun by the end of this input.
    Begun,
    /// Up, by a run that is newer than this one.
    Up(Option<Run>),
    /// Nothing of it left.
    Down,
    /// `ctl wait`.
    Goal(Goal),
}

/// What has come of it, once something has.
type Outcome = Option<(DoneResult, String)>;

fn ok(message: impl Into<String>) -> Outcome {
    Some((DoneResult::Ok, message.into()))
}

fn failed(message: impl Into<String>) -> Outcome {
    Some((DoneResult::Failed, message.into()))
}

impl Engine {
    /// An operator's command.
    #[allow(clippy::too_many_arguments, reason = "the fields of one input")]
    pub(super) fn command(
        &mut self,
        now: Time,
        effects: &mut Vec<Effect>,
        verb: Verb,
        names: Vec<Name>,
        timeout: Option<Duration>,
        wait: bool,
        ticket: Ticket,
    ) {
        let also = match verb {
            Verb::Stop => self.dependents(&names),
            Verb::Restart => self.dependents(&self.those_a_restart_stops(&names)),
            Verb::Start | Verb::Reset | Verb::Signal(_) | Verb::Wait(_) => Vec::new(),
        };
        let limit = self.default_limit(verb, &names);
        let mut items: Vec<Item> = names
            .iter()
            .map(|name| {
                let hope = self.ask(effects, verb, name);
                let hope = match hope {
                    Hope::Said(..) => hope,
                    Hope::Begun | Hope::Up(_) | Hope::Down | Hope::Goal(_) if wait => hope,
                    Hope::Begun | Hope::Up(_) | Hope::Down | Hope::Goal(_) => Hope::Begun,
                };
                Item { name: name.clone(), hope, also: also.clone(), done: None }
            })
            .collect();
        for item in &mut items {
            if let Hope::Said(result, message) = &item.hope {
                item.done = self.done(&item.name, *result, message.clone(), item.also.clone());
            }
        }
        let open: Vec<Name> =
            items.iter().filter(|item| item.done.is_none()).map(|item| item.name.clone()).collect();
        self.act(now, effects, verb, &open);
        self.touched.extend(names);
        let until = timeout.or(limit).map(|limit| now.mono + limit);
        let firm = timeout.is_some();
        self.requests.insert(ticket, Request { items, until, firm });
    }

    /// What is in backoff, has completed, or is on its way back by itself is started again without a stop
    /// for those that require it.
    fn those_a_restart_stops(&self, names: &[Name]) -> Vec<Name> {
        let stops = |name: &&Name| match self.instances.get(*name).map(|instance| &instance.state) {
            Some(State::Starting(_) | State::Running(_) | State::Assembled) => true,
            Some(State::Stopping(stopping)) => stopping.why == Why::Asked,
            Some(
                State::Inactive(_)
                | State::Waiting(_)
                | State::Backoff(_)
                | State::Failed(_)
                | State::Completed,
            )
            | None => false,
        };
        names.iter().filter(stops).cloned().collect()
    }

    /// How long the answer may take where nobody said: `start_timeout`, and the stop before a restart.
    fn default_limit(&self, verb: Verb, names: &[Name]) -> Option<Duration> {
        let units = || names.iter().filter_map(|name| self.unit(name));
        match verb {
            Verb::Start => units().map(|unit| unit.start_timeout).max().flatten(),
            Verb::Restart => {
                let start = units().map(|unit| unit.start_timeout).max().flatten()?;
                Some(start + units().map(|unit| unit.stop.timeout).max().unwrap_or_default())
            }
            Verb::Stop | Verb::Reset | Verb::Signal(_) | Verb::Wait(_) => None,
        }
    }

    /// What to wait for, or what is over at once.
    fn ask(&self, effects: &mut Vec<Effect>, verb: Verb, name: &Name) -> Hope {
        let Some(instance) = self.instances.get(name) else {
            return Hope::Said(DoneResult::Failed, "there is no such unit".to_owned());
        };
        let refused = |why: &str| Hope::Said(DoneResult::Failed, why.to_owned());
        let starts = matches!(verb, Verb::Start | Verb::Restart | Verb::Reset);
        if starts && self.ending.is_some() {
            return refused("not started: uphold is shutting down");
        }
        if starts && instance.masked {
            return refused(words::idle(Idle::Masked).1);
        }
        match verb {
            Verb::Start => match (&instance.state, instance.wanted) {
                (State::Running(life), Wanted::Up) => {
                    let pid = life.born.as_ref().map(|born| born.pid).unwrap_or_default();
                    Hope::Said(DoneResult::Ok, format!("already running, pid {pid}"))
                }
                (State::Assembled, Wanted::Up) => Hope::Said(DoneResult::Ok, "already up".to_owned()),
                // This very start is what is waited for.
                (State::Starting(life), _) => Hope::Up(Some(Run(life.run.0.saturating_sub(1)))),
                (
                    State::Inactive(_)
                    | State::Waiting(_)
                    | State::Running(_)
                    | State::Assembled
                    | State::Stopping(_)
                    | State::Backoff(_)
                    | State::Failed(_)
                    | State::Completed,
                    Wanted::Up | Wanted::Down,
                ) => Hope::Up(instance.last_run),
            },
            Verb::Restart => Hope::Up(instance.last_run),
            Verb::Stop => match &instance.state {
                // It is wanted, and comes back if the shutdown is forgotten.
                State::Inactive(Idle::ShuttingDown) => Hope::Down,
                State::Inactive(_) => Hope::Said(DoneResult::Ok, "was not running".to_owned()),
                State::Waiting(_)
                | State::Starting(_)
                | State::Running(_)
                | State::Assembled
                | State::Stopping(_)
                | State::Backoff(_)
                | State::Failed(_)
                | State::Completed => Hope::Down,
            },
            Verb::Reset => Hope::Begun,
            Verb::Wait(goal) => Hope::Goal(goal),
            Verb::Signal(signal) => match instance.main() {
                Some((life, born)) => {
                    let (instance, run, to) = (name.clone(), life.run, Scope::Main);
                    effects.push(Effect::Signal { instance, run, signal, to, cont: false });
                    Hope::Said(DoneResult::Ok, format!("sent {} to pid {}", signal.name(), born.pid))
                }
                None => refused("not running: there is no process to send a signal to"),
            },
        }
    }

    fn act(&mut self, now: Time, effects: &mut Vec<Effect>, verb: Verb, names: &[Name]) {
        match verb {
            Verb::Start => self.activate(now, effects, names),
            Verb::Restart => {
                for name in names {
                    self.step(now, effects, name, |instance, step| instance.restart(step));
                }
                self.activate(now, effects, names);
            }
            Verb::Stop => {
                for name in names {
                    self.step(now, effects, name, |instance, step| {
                        instance.wanted = Wanted::Down;
                        instance.ask_stop(step, Next::Inactive(Idle::StoppedByOperator));
                    });
                }
            }
            Verb::Reset => {
                for name in names {
                    self.step(now, effects, name, |instance, step| instance.reset(step));
                }
            }
            Verb::Signal(_) | Verb::Wait(_) => {}
        }
    }

    /// What an answer says whose time was over first: what did not come, and what is instead.
    fn too_late(&self, now: Time, item: &Item) -> String {
        let now_it_is = self.why_not(now, &item.name);
        let goal = match &item.hope {
            Hope::Said(..) | Hope::Begun => return now_it_is,
            Hope::Up(_) | Hope::Goal(Goal::Up) => "up",
            Hope::Down | Hope::Goal(Goal::Stopped) => "stopped",
            Hope::Goal(Goal::Ready) => "ready",
            Hope::Goal(Goal::Failed) => "failed",
        };
        // That of a late start says it itself.
        if now_it_is.starts_with("not ") {
            return now_it_is;
        }
        format!("not {goal} in time: {now_it_is}")
    }

    /// Answers whom the instances that were touched, or the time, give an outcome.
    pub(super) fn check_requests(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let touched = std::mem::take(&mut self.touched);
        let concerns = |request: &Request| {
            self.request_deadline(request).is_some_and(|at| at <= now.mono)
                || request.items.iter().any(|item| item.done.is_none() && touched.contains(&item.name))
                || request.items.iter().all(|item| item.done.is_some())
        };
        let tickets: Vec<Ticket> = self
            .requests
            .iter()
            .filter(|(_, request)| concerns(request))
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in tickets {
            let Some(mut request) = self.requests.remove(&ticket) else { continue };
            let late = request.until.is_some_and(|until| until <= now.mono);
            let firm = request.firm;
            for item in request.items.iter_mut().filter(|item| item.done.is_none()) {
                let outcome = self
                    .outcome(now, item)
                    .or_else(|| late.then(|| self.at_the_end(now, item, firm)).flatten());
                if let Some((result, message)) = outcome {
                    item.done = self.done(&item.name, result, message, item.also.clone());
                }
            }
            self.answer_or_keep(effects, ticket, request);
        }
    }

    /// What is said of an item at the end of its time: nothing yet where it came up and is being watched.
    fn at_the_end(&self, now: Time, item: &Item, firm: bool) -> Outcome {
        match (self.watched_until(item), self.instances.get(&item.name).and_then(Instance::main)) {
            (Some(_), Some((_, born))) if firm => ok(format!("started, pid {}", born.pid)),
            (Some(_), Some(_)) => None,
            (Some(_) | None, _) => Some((DoneResult::Timeout, self.too_late(now, item))),
        }
    }

    fn answer_or_keep(&mut self, effects: &mut Vec<Effect>, ticket: Ticket, mut request: Request) {
        if request.items.iter().any(|item| item.done.is_none()) {
            self.requests.insert(ticket, request);
            return;
        }
        let done = request.items.iter_mut().filter_map(|item| item.done.take()).collect();
        effects.push(Effect::Answer { ticket, answer: Answer::Done(done) });
    }

    /// uphold ends: whoever still waits is told.
    pub(super) fn answer_all(&mut self, effects: &mut Vec<Effect>) {
        for (ticket, mut request) in std::mem::take(&mut self.requests) {
            for item in request.items.iter_mut().filter(|item| item.done.is_none()) {
                let message = "uphold has shut down".to_owned();
                item.done = self.done(&item.name, DoneResult::Failed, message, item.also.clone());
            }
            self.answer_or_keep(effects, ticket, request);
        }
    }

    fn done(&self, name: &Name, result: DoneResult, message: String, also: Vec<Name>) -> Option<Done> {
        let instance = self.instances.get(name);
        let state = instance.map_or(super::StateName::Inactive, Instance::state_name);
        let pid = instance.and_then(Instance::main).map(|(_, born)| born.pid);
        Some(Done { name: name.clone(), result, message, state, pid, also, output: Vec::new() })
    }

    /// When time alone may answer.
    pub(super) fn request_deadline(&self, request: &Request) -> Option<Mono> {
        let watches: Vec<Option<Mono>> = request
            .items
            .iter()
            .filter(|item| item.done.is_none())
            .map(|item| self.watched_until(item))
            .collect();
        // The time of what has come up in it is no limit any more: only the watch is left.
        let until = request.until.filter(|_| request.firm || watches.iter().any(Option::is_none));
        watches.into_iter().flatten().chain(until).min()
    }

    /// It came up, and is watched one second more, whatever the time for coming up was.
    fn watched_until(&self, item: &Item) -> Option<Mono> {
        match (&item.hope, self.instances.get(&item.name).map(|found| &found.state)) {
            (Hope::Up(after), Some(State::Running(life))) if is_newer(life.run, *after) => {
                life.up.map(|up| up + WATCH)
            }
            (Hope::Said(..) | Hope::Begun | Hope::Up(_) | Hope::Down | Hope::Goal(_), _) => None,
        }
    }

    fn outcome(&self, now: Time, item: &Item) -> Outcome {
        let Some(instance) = self.instances.get(&item.name) else {
            return match item.hope {
                Hope::Down | Hope::Goal(Goal::Stopped) => ok("stopped, and gone: its file is"),
                Hope::Said(..) | Hope::Begun | Hope::Up(_) | Hope::Goal(_) => failed("gone: its file is"),
            };
        };
        match &item.hope {
            Hope::Said(result, message) => Some((*result, message.clone())),
            Hope::Begun => ok(self.why_not(now, &item.name)),
            Hope::Up(after) => self.came_up(now, instance, *after),
            Hope::Down => self.came_down(now, instance),
            Hope::Goal(goal) => self.came(now, instance, *goal),
        }
    }

    fn came_up(&self, now: Time, instance: &Instance, after: Option<Run>) -> Outcome {
        let why = || self.why_not(now, &instance.name);
        // A stop says nothing of the start: where it stands by now does.
        let own_end = |ended: &&Ended| is_newer(ended.run, after) && ended.reason != ExitReason::Stopped;
        if let Some(ended) = instance.ended.as_ref().filter(own_end) {
            match (instance.unit.kind, &ended.how) {
                (Kind::Oneshot, How::Exit(_)) if matches!(instance.state, State::Completed) => {
                    return ok(format!("completed: {}", words::ended(&instance.name, ended)));
                }
                (_, How::NotStarted(failure)) if failure.passing => {}
                (Kind::Simple | Kind::Oneshot | Kind::Group, How::Exit(_) | How::NotStarted(_)) => {
                    return failed(words::ended(&instance.name, ended));
                }
            }
        }
        match &instance.state {
            State::Running(life) if is_newer(life.run, after) => up(now, instance, life),
            State::Assembled => ok("up: all that it requires is"),
            State::Stopping(stopping) if is_newer(stopping.life.run, after) => {
                match (&stopping.phase, &stopping.ended) {
                    (Phase::Looking { .. }, _) => None,
                    (_, Some(ended)) if ended.reason != ExitReason::Stopped => {
                        failed(words::ended(&instance.name, ended))
                    }
                    (_, Some(_) | None) if stopping.next != Next::Again => failed(why()),
                    (_, Some(_) | None) => None,
                }
            }
            State::Stopping(stopping) => match (&stopping.phase, stopping.next) {
                (Phase::Unkillable { .. }, _) | (_, Next::Inactive(_)) => failed(why()),
                (_, Next::Again | Next::Policy) => None,
            },
            State::Waiting(waiting) if waiting.blocked => failed(why()),
            State::Inactive(_) | State::Failed(_) => failed(why()),
            State::Completed
            | State::Waiting(_)
            | State::Starting(_)
            | State::Running(_)
            | State::Backoff(_) => None,
        }
    }

    fn came_down(&self, now: Time, instance: &Instance) -> Outcome {
        match &instance.state {
            State::Inactive(_) => ok("stopped"),
            State::Stopping(stopping) if matches!(stopping.phase, Phase::Unkillable { .. }) => {
                failed(self.why_not(now, &instance.name))
            }
            State::Stopping(_)
            | State::Waiting(_)
            | State::Starting(_)
            | State::Running(_)
            | State::Assembled
            | State::Backoff(_)
            | State::Failed(_)
            | State::Completed => match instance.wanted {
                Wanted::Up if self.ending.is_none() => failed("overtaken: a later request starts it again"),
                Wanted::Up | Wanted::Down => None,
            },
        }
    }

    fn came(&self, now: Time, instance: &Instance, goal: Goal) -> Outcome {
        let why = || self.why_not(now, &instance.name);
        let (blocked, stuck) = match &instance.state {
            State::Inactive(_) | State::Failed(_) => (true, false),
            State::Completed => (!instance.is_up(), false),
            State::Waiting(waiting) => (waiting.blocked, false),
            State::Stopping(stopping) => {
                let stuck = matches!(stopping.phase, Phase::Unkillable { .. });
                (stuck || matches!(stopping.next, Next::Inactive(_)), stuck)
            }
            State::Starting(_) | State::Running(_) | State::Assembled | State::Backoff(_) => (false, false),
        };
        match goal {
            Goal::Up if instance.is_up() => ok("up"),
            Goal::Ready if instance.ready() == Some(true) => ok("ready"),
            Goal::Ready if instance.unit.kind != Kind::Simple => {
                failed("never ready: it is no service; wait for up instead")
            }
            Goal::Up | Goal::Ready if blocked => failed(why()),
            Goal::Up | Goal::Ready => None,
            Goal::Failed if instance.unit.kind == Kind::Group => {
                failed("never failed: a group has no process; wait for stopped instead")
            }
            Goal::Failed if !matches!(instance.state, State::Failed(_)) && !instance.can_fail() => {
                failed("never failed: it is restarted whenever it fails, without a limit")
            }
            Goal::Stopped if stuck => failed(why()),
            Goal::Failed if matches!(instance.state, State::Stopping(_)) && blocked => failed(why()),
            Goal::Stopped | Goal::Failed => match &instance.state {
                State::Failed(_) => ok(why()),
                State::Inactive(_) | State::Completed if goal == Goal::Stopped => ok("stopped"),
                State::Inactive(_) | State::Completed => failed(why()),
                State::Waiting(_)
                | State::Starting(_)
                | State::Running(_)
                | State::Assembled
                | State::Stopping(_)
                | State::Backoff(_) => None,
            },
        }
    }
}

/// Up at last; without probes it is watched for a while.
fn up(now: Time, instance: &Instance, life: &Life) -> Outcome {
    let born = life.born.as_ref()?;
    if !instance.probes_decide() && life.up.is_some_and(|up| now.mono < up + WATCH) {
        return None;
    }
    ok(format!("started, pid {}", born.pid))
}

fn is_newer(run: Run, after: Option<Run>) -> bool {
    after.is_none_or(|after| run > after)
}

impl Instance {
    /// Its restart policy knows an end that is `failed`.
    fn can_fail(&self) -> bool {
        let rules = &self.unit.restart;
        rules.policy == Policy::Never || rules.limit > 0 || !rules.except.is_empty()
    }
}

impl Ended {
    /// It came to its end by an exit with success.
    pub(super) fn succeeded(&self) -> bool {
        matches!(self.how, How::Exit(Exit::Code(_) | Exit::Signal { .. }))
            && self.reason == ExitReason::Completed
    }
}
