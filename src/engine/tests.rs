//! Scripts: what is done for what is said, in the order of time.

mod recorded;
mod restored;
mod restored_probes;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::plan::Plan;
use crate::unit::{
    Check, Endpoint, ExitMatch, Kind, Loaded, Name, OnEnd, Policy, Probe, ProbeKind, Set, Signal, Unit,
};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn at(millis: u64) -> Wall {
    Wall::from_nanos(i128::from(millis) * 1_000_000)
}

fn unit(text: &str, with: impl FnOnce(&mut Unit)) -> Unit {
    let mut unit = Unit::new(name(text));
    unit.command = vec!["/bin/true".to_owned()];
    unit.restart.jitter = 0.0;
    with(&mut unit);
    unit
}

fn plain(text: &str) -> Unit {
    unit(text, |_| {})
}

fn probe(period: u64, failures: u32) -> Option<Arc<Probe>> {
    let endpoint = Endpoint::Port { host: None, port: 80, port_name: None };
    let mut probe = Probe::new(Check::Tcp(endpoint));
    probe.period = ms(period);
    probe.failure_threshold = failures;
    Some(Arc::new(probe))
}

fn plan(units: Vec<Unit>) -> Arc<Plan> {
    plan_with_masked(units, &[])
}

fn plan_with_masked(units: Vec<Unit>, masked: &[&str]) -> Arc<Plan> {
    let mut set = Set::default();
    for unit in units {
        let mut loaded = Loaded::synthetic(unit);
        loaded.masked = masked.contains(&loaded.unit.name.as_str());
        set.units.insert(loaded.unit.name.clone(), Arc::new(loaded));
    }
    Arc::new(Plan::new(&set).unwrap().0)
}

/// An engine, a clock in milliseconds, and what was done since it was last looked at.
struct Script {
    engine: Engine,
    now: u64,
    done: Vec<String>,
    tickets: u64,
}

impl Script {
    fn new(units: Vec<Unit>) -> Script {
        Script::with(Settings::default(), units)
    }

    fn with(settings: Settings, units: Vec<Unit>) -> Script {
        let mut script = Script { engine: Engine::new(settings), now: 0, done: Vec::new(), tickets: 0 };
        script.input(Input::Load { plan: plan(units), update: false, ticket: None });
        script
    }

    fn time(&self) -> Time {
        let nanos = self.now * 1_000_000;
        Time { mono: Mono(nanos), wall: Wall::from_nanos(nanos.into()) }
    }

    fn input(&mut self, input: Input) -> &mut Script {
        let mut effects = Vec::new();
        self.engine.handle(self.time(), input, &mut effects);
        self.done.extend(effects.iter().filter_map(told));
        self
    }

    /// Everything that is due up to then, each at its time.
    fn until(&mut self, millis: u64) -> &mut Script {
        for _ in 0..100_000 {
            match self.engine.next_deadline() {
                Some(due) if due.0 <= millis * 1_000_000 => {
                    self.now = self.now.max(due.0.div_ceil(1_000_000));
                    self.input(Input::Tick);
                }
                Some(_) | None => {
                    self.now = millis;
                    return self;
                }
            }
        }
        panic!("deadlines come and come at {} ms", self.now);
    }

    fn run(&self, unit: &str) -> Run {
        self.engine.run(&name(unit)).unwrap()
    }

    fn spawned(&mut self, unit: &str) -> &mut Script {
        let run = self.run(unit);
        self.input(Input::Spawned { instance: name(unit), run, pid: 100 })
    }

    fn spawn_failed(&mut self, unit: &str, passing: bool) -> &mut Script {
        let (stage, message) = ("setting the user".to_owned(), "no user named `x`".to_owned());
        let failure = SpawnFailure { stage, message, passing, code: 126 };
        let run = self.run(unit);
        self.input(Input::SpawnFailed { instance: name(unit), run, failure })
    }

    fn exited(&mut self, unit: &str, exit: Exit) -> &mut Script {
        let run = self.run(unit);
        self.input(Input::Exited { instance: name(unit), run, exit })
    }

    fn emptied(&mut self, unit: &str) -> &mut Script {
        let run = self.run(unit);
        self.input(Input::Emptied { instance: name(unit), run })
    }

    fn left(&mut self, unit: &str, pids: &[u32]) -> &mut Script {
        let run = self.run(unit);
        self.input(Input::Left { instance: name(unit), run, pids: pids.to_vec() })
    }

    fn dies(&mut self, unit: &str, code: i32) -> &mut Script {
        self.exited(unit, Exit::Code(code)).emptied(unit)
    }

    fn probed(&mut self, unit: &str, kind: ProbeKind, outcome: Outcome) -> &mut Script {
        let run = self.run(unit);
        self.input(Input::Probed { instance: name(unit), run, kind, outcome })
    }

    fn command(&mut self, verb: Verb, units: &[&str]) -> &mut Script {
        self.tickets += 1;
        let instances = units.iter().map(|unit| name(unit)).collect();
        let ticket = Ticket(self.tickets);
        self.input(Input::Command { verb, instances, timeout: None, wait: true, ticket })
    }

    fn load(&mut self, units: Vec<Unit>, update: bool) -> &mut Script {
        self.tickets += 1;
        self.input(Input::Load { plan: plan(units), update, ticket: Some(Ticket(self.tickets)) })
    }

    fn view(&self, unit: &str) -> View {
        self.engine.view(self.time(), &name(unit), Facts::default()).unwrap()
    }

    fn state(&self, unit: &str) -> &'static str {
        self.view(unit).state.as_str()
    }

    fn why(&self, unit: &str) -> String {
        let view = self.view(unit);
        format!("{}: {}", view.reason.unwrap_or_default(), view.message.unwrap_or_default())
    }

    /// What was done since the last look, events and endpoints apart.
    #[track_caller]
    fn did(&mut self, expected: &[&str]) -> &mut Script {
        let told = |text: &String| !text.starts_with("event ") && !text.starts_with("endpoints ");
        let done: Vec<String> = std::mem::take(&mut self.done).into_iter().filter(told).collect();
        assert_eq!(done, expected, "at {} ms", self.now);
        self
    }

    /// What was told of endpoints since the last look, and nothing else.
    #[track_caller]
    fn offered(&mut self, expected: &[&str]) -> &mut Script {
        let done = std::mem::take(&mut self.done);
        let offered: Vec<&str> = done.iter().filter_map(|text| text.strip_prefix("endpoints ")).collect();
        assert_eq!(offered, expected, "at {} ms", self.now);
        self
    }

    fn events(&self, unit: &str) -> Vec<String> {
        let events = self.engine.events(Some(&name(unit)), 0);
        events.iter().map(|event| format!("{} {} x{}", event.reason, event.message, event.count)).collect()
    }
}

/// What is left of an engine that was killed, as JSON.
fn saved(engine: &Engine) -> Saved<'static> {
    serde_json::from_str(&serde_json::to_string(&engine.state()).unwrap()).unwrap()
}

impl Script {
    /// uphold is killed, and one that is started later has taken over. `same`: it became that by an exec.
    fn killed(&mut self, same: bool, units: Vec<Unit>) -> &mut Script {
        self.killed_with(Settings::default(), same, units)
    }

    fn killed_with(&mut self, settings: Settings, same: bool, units: Vec<Unit>) -> &mut Script {
        self.engine = Engine::restored(settings, saved(&self.engine), self.time(), same);
        self.input(Input::Load { plan: plan(units), update: false, ticket: None });
        let mut effects = Vec::new();
        self.engine.resume(self.time(), &mut effects);
        self.done.extend(effects.iter().filter_map(told));
        self
    }
}

fn told(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::Spawn { instance, .. } => format!("spawn {instance}"),
        Effect::Signal { instance, signal, cont, .. } => {
            format!("{} {instance}{}", signal.name(), if *cont { "" } else { " plain" })
        }
        Effect::Terminate { instance, .. } => format!("terminate {instance}"),
        Effect::Kill { instance, main_only, .. } => {
            format!("kill {instance}{}", if *main_only { " main" } else { "" })
        }
        Effect::Survey { instance, .. } => format!("survey {instance}"),
        Effect::Probe { instance, kind, .. } => format!("probe {instance} {kind:?}"),
        Effect::CancelProbe { instance, kind, .. } => format!("cancel {instance} {kind:?}"),
        Effect::Applied { instance, .. } => format!("applied {instance}"),
        Effect::Forget { instance } => format!("forget {instance}"),
        Effect::Endpoints { instance, endpoints: Some(now) } => {
            let words = [(now.ready, "ready"), (now.serving, "serving"), (now.terminating, "terminating")];
            let words: Vec<&str> = words.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
            format!("endpoints {instance}: {} {}", words.join("+"), now.reason.as_deref().unwrap_or("-"))
        }
        Effect::Endpoints { instance, endpoints: None } => format!("endpoints {instance}: none"),
        Effect::Event(event) => format!("event {} {}", event.unit, event.reason),
        Effect::Answer { ticket, answer: Answer::Done(done) } => {
            let done: Vec<String> = done
                .iter()
                .map(|done| format!("{} {:?}: {}", done.name, done.result, done.message))
                .collect();
            format!("answer {}: {}", ticket.0, done.join("; "))
        }
        Effect::Answer { ticket, answer: Answer::Loaded(_) } => format!("answer {}: loaded", ticket.0),
        Effect::Sweep(signal) => format!("sweep {}", signal.name()),
        Effect::Exit(status) => format!("exit {status}"),
    })
}

#[test]
fn a_service_that_crashes_comes_back_with_a_longer_delay_each_time() {
    let mut script = Script::new(vec![plain("web")]);
    script.did(&["spawn web"]).spawned("web");
    for (round, delay) in [100, 200, 400, 800].into_iter().enumerate() {
        script.dies("web", 1);
        assert_eq!(script.state("web"), "backoff");
        let before = script.now + delay - 1;
        script.until(before).did(&[]).until(before + 1).did(&["spawn web"]).spawned("web");
        assert_eq!(script.view("web").restarts, round as u64 + 1);
    }
    let last = script.view("web").last_exit.unwrap();
    assert_eq!((last.code, last.reason), (Some(1), ExitReason::Error));
}

#[test]
fn up_for_long_enough_the_delay_starts_afresh() {
    let mut script = Script::new(vec![plain("web")]);
    script.spawned("web").dies("web", 1).until(100).spawned("web").dies("web", 1).until(300).spawned("web");
    script.until(60_300).dies("web", 1).did(&["spawn web", "spawn web", "spawn web"]);
    script.until(60_399).did(&[]).until(60_400).did(&["spawn web"]);
}

#[test]
fn without_a_delay_the_next_start_is_part_of_the_same_step() {
    let mut script = Script::new(vec![unit("web", |unit| unit.restart.delay = ms(0))]);
    script.spawned("web").did(&["spawn web"]).dies("web", 0).did(&["spawn web"]);
}

#[test]
fn a_limit_ends_the_run_of_restarts_and_an_operator_starts_it_afresh() {
    let mut script = Script::new(vec![unit("web", |unit| unit.restart.limit = 2)]);
    script.spawned("web").dies("web", 7).until(100).spawned("web").dies("web", 7).until(300).spawned("web");
    script.dies("web", 7);
    assert_eq!(
        script.why("web"),
        "RestartLimit: exit 7 after 0ms, and restart.limit allows no more than 2 restarts in a run"
    );
    script.did(&["spawn web"; 3]).command(Verb::Start, &["web"]).did(&["spawn web"]);
    script.spawned("web").dies("web", 7);
    assert_eq!(script.state("web"), "backoff");
}

#[test]
fn exit_codes_decide_as_the_unit_says() {
    let cases: [(Policy, i32, &str); 7] = [
        (Policy::Always, 0, "backoff"),
        (Policy::OnFailure, 0, "completed"),
        (Policy::OnFailure, 3, "completed"),
        (Policy::OnFailure, 1, "backoff"),
        (Policy::Never, 0, "completed"),
        (Policy::Never, 1, "failed"),
        (Policy::Always, 9, "failed"),
    ];
    for (policy, code, state) in cases {
        let mut script = Script::new(vec![unit("web", |unit| {
            unit.restart.policy = policy;
            unit.restart.success = vec![ExitMatch::Code(0), ExitMatch::Code(3)];
            unit.restart.except = vec![ExitMatch::Code(9)];
        })]);
        script.spawned("web").dies("web", code);
        assert_eq!(script.state("web"), state, "{policy:?} after exit {code}");
    }
}

#[test]
fn a_passing_failure_to_start_is_tried_again_and_counts_as_no_crash() {
    let mut script = Script::new(vec![unit("job", |unit| unit.restart.policy = Policy::Never)]);
    script.spawn_failed("job", true).until(100).did(&["spawn job", "spawn job"]);
    assert_eq!(script.view("job").restarts, 0);
    script.spawn_failed("job", false);
    assert_eq!(
        script.why("job"),
        "SpawnFailed: cannot start job: setting the user failed: no user named `x`"
    );
    assert_eq!(script.state("job"), "failed");
}

#[test]
fn a_stop_goes_from_signal_to_sigkill_to_the_report_of_what_cannot_be_killed() {
    let mut script = Script::new(vec![unit("web", |unit| unit.stop.timeout = ms(500))]);
    script.spawned("web").command(Verb::Stop, &["web"]).did(&["spawn web", "SIGTERM web"]);
    script.until(500).did(&["kill web"]).until(10_500).did(&["survey web"]);
    script.left("web", &[100, 101]);
    script.did(&["answer 1: web Failed: 2 processes of web live on, 10s after SIGKILL: pid 100, 101"]);
    assert_eq!(script.view("web").reason.as_deref(), Some("Unkillable"));
    script.exited("web", Exit::Signal { signal: Signal::KILL, oom: false }).emptied("web");
    assert_eq!(script.state("web"), "inactive");
    assert_eq!(script.view("web").last_exit.unwrap().reason, ExitReason::Stopped);
}

#[test]
fn what_outlives_the_main_process_gets_sigterm_and_the_rest_of_the_time() {
    let mut script = Script::new(vec![unit("web", |unit| unit.stop.timeout = ms(500))]);
    script.spawned("web").command(Verb::Stop, &["web"]).until(200);
    script.exited("web", Exit::Code(0)).left("web", &[7]).did(&["spawn web", "SIGTERM web", "terminate web"]);
    script
        .until(499)
        .did(&[])
        .until(500)
        .did(&["kill web"])
        .emptied("web")
        .did(&["answer 1: web Ok: stopped"]);
}

#[test]
fn an_exit_is_shown_when_it_happens_and_once_whatever_the_main_process_left_behind() {
    let mut script = Script::new(vec![plain("web"), plain("told")]);
    let exits = |script: &Script, unit: &str| {
        let view = script.view(unit);
        assert_eq!(view.last_exit.as_ref(), view.exits.last());
        view.exits.iter().map(|exit| (exit.code, exit.reason)).collect::<Vec<_>>()
    };
    script.spawned("web").spawned("told").until(200).exited("web", Exit::Code(3)).left("web", &[7]);
    assert_eq!((script.state("web"), script.view("web").pid), ("stopping", None));
    let crash = (Some(3), ExitReason::Error);
    assert_eq!(exits(&script, "web"), [crash]);
    script.until(400).emptied("web");
    assert_eq!((script.state("web"), exits(&script, "web")), ("starting", vec![crash]));
    let last = script.view("web").last_exit.unwrap();
    assert_eq!((last.started_at, last.finished_at), (Some(Wall::from_nanos(0)), at(200)));

    script.spawn_failed("web", false);
    assert_eq!(exits(&script, "web"), [crash, (Some(126), ExitReason::SpawnFailed)]);

    script.command(Verb::Stop, &["told"]).exited("told", Exit::Code(0));
    assert_eq!(exits(&script, "told"), [(Some(0), ExitReason::Stopped)]);
    script.emptied("told");
    assert_eq!(exits(&script, "told"), [(Some(0), ExitReason::Stopped)]);
}

#[test]
fn what_a_crash_leaves_behind_is_cleaned_up_before_the_next_start() {
    let mut script = Script::new(vec![plain("web")]);
    script.spawned("web").until(20).exited("web", Exit::Code(0)).left("web", &[7, 8, 9]);
    script.did(&["spawn web", "terminate web"]);
    assert_eq!(script.why("web"), "Ended: exited 0 after 20ms and left 3 processes: does it daemonise?");
    script.until(29_000).did(&[]).emptied("web").did(&["spawn web"]);
}

#[test]
fn a_stop_before_the_host_has_answered_follows_when_it_does() {
    let mut script = Script::new(vec![plain("web")]);
    script.command(Verb::Stop, &["web"]).did(&["spawn web"]).spawned("web").did(&["SIGTERM web"]);
    script.dies("web", 143).did(&["answer 1: web Ok: stopped"]);
    let mut script = Script::new(vec![plain("web")]);
    script.command(Verb::Stop, &["web"]).spawn_failed("web", false);
    script.did(&["spawn web", "answer 1: web Ok: stopped"]);
    assert_eq!(script.state("web"), "inactive");
}

#[test]
fn a_stop_in_backoff_ends_it_and_a_start_in_backoff_does_not_wait() {
    let mut script = Script::new(vec![plain("web")]);
    script.spawned("web").dies("web", 1).command(Verb::Start, &["web"]).did(&["spawn web", "spawn web"]);
    script.spawned("web").dies("web", 1);
    script.did(&["answer 1: web Failed: exit 1 after 0ms"]);
    script.command(Verb::Stop, &["web"]).did(&["answer 2: web Ok: stopped"]).until(100_000).did(&[]);
}

#[test]
fn the_latest_request_wins() {
    let mut script = Script::new(vec![plain("web")]);
    script.spawned("web").command(Verb::Stop, &["web"]).command(Verb::Start, &["web"]);
    script.did(&[
        "spawn web",
        "SIGTERM web",
        "answer 1: web Failed: overtaken: a later request starts it again",
    ]);
    script.dies("web", 0).did(&["spawn web"]).command(Verb::Stop, &["web"]);
    script.did(&["answer 2: web Failed: is being spawned, and stopped then"]);
    script.spawned("web").did(&["SIGTERM web"]).dies("web", 0).did(&["answer 3: web Ok: stopped"]);
}

#[test]
fn a_start_without_probes_is_watched_for_one_second() {
    let mut script = Script::new(vec![unit("web", |unit| unit.autostart = false)]);
    script.command(Verb::Start, &["web"]).spawned("web").until(999).did(&["spawn web"]);
    script.until(1000).did(&["answer 1: web Ok: started, pid 100"]);
    script.command(Verb::Restart, &["web"]).did(&["SIGTERM web"]).dies("web", 0).did(&["spawn web"]);
    script.spawned("web").until(1300).dies("web", 1).did(&["answer 2: web Failed: exit 1 after 0.3s"]);
}

#[test]
fn a_start_that_came_up_in_time_is_watched_beyond_its_time() {
    let web = unit("web", |unit| (unit.autostart, unit.start_timeout) = (false, Some(ms(500))));
    let mut script = Script::new(vec![web]);
    script.command(Verb::Start, &["web"]).spawned("web").until(999).did(&["spawn web"]);
    script.until(1000).did(&["answer 1: web Ok: started, pid 100"]);
    script.command(Verb::Restart, &["web"]).dies("web", 0).did(&["SIGTERM web", "spawn web"]);
    script.spawned("web").until(1900).dies("web", 1).did(&["answer 2: web Failed: exit 1 after 0.9s"]);
    script.until(2000).spawned("web").done.clear();
    let (verb, instances, ticket) = (Verb::Restart, vec![name("web")], Ticket(9));
    script.input(Input::Command { verb, instances, timeout: Some(ms(300)), wait: true, ticket });
    script.dies("web", 0).spawned("web").until(2299).did(&["SIGTERM web", "spawn web"]);
    script.until(2300).did(&["answer 9: web Ok: started, pid 100"]);
}

#[test]
fn a_wait_ends_as_soon_as_its_goal_cannot_come() {
    let group = unit("group", |unit| unit.kind = Kind::Group);
    let mut script = Script::new(vec![unit("web", |unit| unit.restart.limit = 1), group, plain("z")]);
    script.spawned("web").command(Verb::Wait(Goal::Failed), &["z"]);
    script.did(&[
        "spawn web",
        "spawn z",
        "answer 1: z Failed: never failed: it is restarted whenever it fails, without a limit",
    ]);
    script.tickets = 0;
    script.command(Verb::Wait(Goal::Failed), &["group"]);
    script.did(&["answer 1: group Failed: never failed: a group has no process; wait for stopped instead"]);
    script.command(Verb::Stop, &["web"]).did(&["SIGTERM web"]);
    script.command(Verb::Wait(Goal::Up), &["web"]).command(Verb::Wait(Goal::Failed), &["web"]);
    script.did(&["answer 3: web Failed: was sent SIGTERM", "answer 4: web Failed: was sent SIGTERM"]);
    script.command(Verb::Wait(Goal::Stopped), &["web"]).did(&[]);
    script.until(30_000).did(&["kill web"]).until(40_000).did(&["survey web"]).left("web", &[7]);
    let stuck = "web Failed: 1 process of web live on, 10s after SIGKILL: pid 7";
    script.did(&[&format!("answer 2: {stuck}"), &format!("answer 5: {stuck}")]);
}

#[test]
fn who_is_gone_is_answered_no_more_and_what_it_asked_for_goes_on() {
    let mut script = Script::new(vec![plain("web")]);
    script
        .spawned("web")
        .command(Verb::Wait(Goal::Failed), &["web"])
        .command(Verb::Wait(Goal::Stopped), &["web"]);
    script.command(Verb::Stop, &["web"]).done.clear();
    for ticket in [2, 3] {
        script.input(Input::Gone { ticket: Ticket(ticket) });
    }
    assert!(script.engine.requests.is_empty());
    script.dies("web", 0).did(&[]).input(Input::Gone { ticket: Ticket(2) });
    assert_eq!(
        (script.state("web"), script.why("web").as_str()),
        ("inactive", "StoppedByOperator: stopped by the operator")
    );
}

#[test]
fn a_restart_names_only_those_that_it_stops() {
    let mut script = Script::new(vec![plain("db"), unit("web", |unit| unit.requires = vec![name("db")])]);
    script.spawned("db").spawned("web");
    let also = |script: &mut Script| {
        let (verb, instances, timeout) = (Verb::Restart, vec![name("db")], None);
        let (mut effects, ticket, wait) = (Vec::new(), Ticket(99), false);
        let input = Input::Command { verb, instances, timeout, wait, ticket };
        script.engine.handle(script.time(), input, &mut effects);
        let also = effects.iter().find_map(|effect| match effect {
            Effect::Answer { answer: Answer::Done(done), .. } => Some(done[0].also.clone()),
            _ => None,
        });
        also.unwrap()
    };
    script.dies("db", 1);
    assert_eq!((script.state("db"), also(&mut script)), ("backoff", vec![]));
    script.spawned("db");
    assert_eq!((script.state("web"), script.state("db")), ("running", "running"));
    assert_eq!(also(&mut script), [name("web")]);
}

#[test]
fn dependents_wait_until_what_they_require_is_ready_and_say_for_what() {
    let mut script = Script::new(vec![
        unit("db", |unit| unit.readiness = probe(1000, 3)),
        unit("web", |unit| unit.requires = vec![name("db")]),
    ]);
    script.did(&["spawn db"]).spawned("db").did(&["probe db Readiness"]);
    let text = "HTTP probe failed with statuscode: 503".to_owned();
    script.probed("db", ProbeKind::Readiness, Outcome::Failure(text));
    assert_eq!(
        script.why("web"),
        "DependencyNotUp: waits for db: not ready (HTTP probe failed with statuscode: 503)"
    );
    script.until(1000).probed("db", ProbeKind::Readiness, Outcome::Success);
    script.did(&["probe db Readiness", "spawn web"]);
}

#[test]
fn a_crash_of_what_it_requires_does_not_touch_a_unit_but_its_stop_does() {
    let mut script = Script::new(vec![plain("db"), unit("web", |unit| unit.requires = vec![name("db")])]);
    script.spawned("db").spawned("web").did(&["spawn db", "spawn web"]);
    script.dies("db", 1).until(100).did(&["spawn db"]).spawned("db");
    assert_eq!(script.engine.dependents(&[name("db")]), [name("web")]);
    script.command(Verb::Stop, &["db"]).did(&["SIGTERM web"]).dies("web", 0).did(&["SIGTERM db"]);
    script.dies("db", 0).did(&["answer 1: db Ok: stopped"]);
    assert_eq!(script.why("web"), "DependencyFailed: waits for db: stopped by the operator");
    script.command(Verb::Start, &["db"]).did(&["spawn db"]).spawned("db").did(&["spawn web"]);
}

#[test]
fn what_cannot_be_killed_and_lost_what_it_requires_holds_nobody_up() {
    let requires = |text: &str, other: &str| unit(text, |unit| unit.requires = vec![name(other)]);
    let mut script = Script::new(vec![plain("db"), requires("app", "db"), requires("web", "app")]);
    script.spawned("db").spawned("app").spawned("web");
    // It crashes, and what it leaves survives SIGKILL; its dependent runs on.
    script.exited("app", Exit::Code(1)).left("app", &[7]).until(60_000);
    script.left("app", &[7]);
    assert_eq!(script.view("app").reason.as_deref(), Some("Unkillable"));
    assert_eq!(script.state("web"), "running");
    let began = ["spawn db", "spawn app", "spawn web", "terminate app", "kill app", "survey app"];
    script.did(&began);
    // What it requires is stopped: first goes who requires it, then that.
    script.command(Verb::Stop, &["db"]).did(&["SIGTERM web"]);
    script.dies("web", 0).did(&["SIGTERM db"]);
}

#[test]
fn a_restart_of_what_it_requires_stops_a_unit_before_and_starts_it_after() {
    let mut script = Script::new(vec![plain("db"), unit("web", |unit| unit.requires = vec![name("db")])]);
    script.spawned("db").spawned("web").command(Verb::Restart, &["db"]).did(&[
        "spawn db",
        "spawn web",
        "SIGTERM web",
    ]);
    script
        .dies("web", 0)
        .did(&["SIGTERM db"])
        .dies("db", 0)
        .did(&["spawn db"])
        .spawned("db")
        .did(&["spawn web"]);
    assert_eq!(script.view("web").restarts + script.view("db").restarts, 0);
}

#[test]
fn what_a_failed_unit_takes_with_it_waits_and_what_only_wants_it_goes_on() {
    let mut script = Script::new(vec![
        unit("db", |unit| unit.restart.policy = Policy::Never),
        unit("web", |unit| unit.requires = vec![name("db")]),
        unit("log", |unit| unit.wants = vec![name("db")]),
    ]);
    script.spawn_failed("db", false).did(&["spawn db", "spawn log"]);
    assert_eq!(script.state("web"), "waiting");
    assert_eq!(
        script.why("web"),
        "DependencyFailed: waits for db: failed: cannot start db: setting the user failed: no user named `x`"
    );
    script.command(Verb::Wait(Goal::Up), &["web"]);
    assert!(
        script.done.last().unwrap().starts_with("answer 1: web Failed: waits for db"),
        "{:?}",
        script.done
    );
}

#[test]
fn after_waits_only_for_what_is_being_started_anyway() {
    let mut script = Script::new(vec![
        unit("idle", |unit| unit.autostart = false),
        unit("busy", |unit| unit.kind = Kind::Oneshot),
        unit("web", |unit| unit.after = vec![name("idle"), name("busy")]),
    ]);
    script.did(&["spawn busy"]).spawned("busy").did(&[]).dies("busy", 0).did(&["spawn web"]);
}

#[test]
fn a_oneshot_stays_up_and_only_an_operator_runs_it_again() {
    let mut script = Script::new(vec![
        unit("init", |unit| {
            unit.kind = Kind::Oneshot;
            unit.restart.policy = Policy::Never;
        }),
        unit("web", |unit| unit.requires = vec![name("init")]),
    ]);
    script.spawned("init").dies("init", 0).spawned("web").did(&["spawn init", "spawn web"]);
    script.command(Verb::Restart, &["web"]).dies("web", 0).did(&["SIGTERM web", "spawn web"]);
    script.command(Verb::Start, &["init"]).did(&["spawn init"]);
    assert_eq!(script.state("web"), "starting");
}

#[test]
fn a_group_is_up_when_all_that_it_requires_is() {
    let mut script = Script::new(vec![
        plain("a"),
        plain("b"),
        unit("all", |unit| {
            unit.kind = Kind::Group;
            unit.requires = vec![name("a"), name("b")];
        }),
    ]);
    script.spawned("a");
    assert_eq!(script.state("all"), "waiting");
    script.spawned("b");
    assert_eq!((script.state("all"), script.view("all").ready), ("running", None));
}

#[test]
fn a_shutdown_is_the_reverse_of_the_start_even_across_a_group() {
    let mut script = Script::new(vec![
        plain("db"),
        unit("mid", |unit| {
            unit.kind = Kind::Group;
            unit.requires = vec![name("db")];
        }),
        unit("web", |unit| unit.after = vec![name("mid")]),
    ]);
    script.spawned("db").spawned("web").did(&["spawn db", "spawn web"]).input(Input::Shutdown);
    script.did(&["SIGTERM web"]).dies("web", 0).did(&["SIGTERM db"]).dies("db", 0).did(&["exit 0"]);
}

#[test]
fn a_second_shutdown_kills_at_once_and_so_does_the_cap() {
    let settings = || Settings { shutdown_timeout: Some(ms(5000)), sweep: true, ..Settings::default() };
    let units = || vec![plain("db"), unit("web", |unit| unit.requires = vec![name("db")])];
    let mut script = Script::with(settings(), units());
    script.spawned("db").spawned("web").input(Input::Shutdown).input(Input::Shutdown);
    script.did(&["spawn db", "spawn web", "SIGTERM web", "kill db", "kill web"]);
    script.dies("web", 0).dies("db", 0).did(&["sweep SIGKILL"]).input(Input::Childless).did(&["exit 0"]);
    let mut script = Script::with(settings(), units());
    script.spawned("db").spawned("web").input(Input::Shutdown).until(5000);
    script.did(&["spawn db", "spawn web", "SIGTERM web", "kill db", "kill web"]);
}

#[test]
fn a_new_cap_and_main_unit_count_until_the_end_has_begun() {
    let units = || vec![plain("db"), unit("web", |unit| unit.requires = vec![name("db")])];
    let configured =
        |main: &str, cap| Input::Configure { main: Some(name(main)), shutdown_timeout: Some(ms(cap)) };
    let mut script = Script::new(units());
    script.spawned("db").spawned("web").input(configured("web", 5000)).input(Input::Shutdown);
    script.input(configured("db", 9000)).until(5000);
    script.did(&["spawn db", "spawn web", "SIGTERM web", "kill db", "kill web"]);
    script.dies("web", 3).dies("db", 4).did(&["exit 3"]);
}

#[test]
fn a_sweep_ends_even_if_a_child_does_not() {
    let mut script = Script::with(Settings { sweep: true, ..Settings::default() }, vec![]);
    script.input(Input::Shutdown).did(&["sweep SIGTERM"]).until(30_000).did(&["sweep SIGKILL"]);
    script.until(40_000).did(&["exit 0"]);
}

#[test]
fn the_end_of_a_unit_with_on_end_is_the_end_of_uphold_with_its_status() {
    let ends = |unit: &mut Unit| {
        unit.restart.policy = Policy::Never;
        unit.on_end = OnEnd::Shutdown;
    };
    let mut script = Script::new(vec![unit("job", ends), plain("web")]);
    script.spawned("job").spawned("web").exited("job", Exit::Signal { signal: Signal::KILL, oom: false });
    script.emptied("job").did(&["spawn job", "spawn web", "SIGTERM web"]).dies("web", 0).did(&["exit 137"]);
    let mut script = Script::new(vec![unit("job", ends)]);
    script.spawned("job").command(Verb::Stop, &["job"]).dies("job", 0);
    script.did(&["spawn job", "SIGTERM job", "answer 1: job Ok: stopped"]);
}

#[test]
fn a_command_gets_every_signal_and_its_status_is_the_answer() {
    let settings = Settings { command: Some(name("cmd")), sweep: true, ..Settings::default() };
    let command = || {
        unit("cmd", |unit| {
            unit.restart.policy = Policy::Never;
            unit.on_end = OnEnd::Shutdown;
        })
    };
    let mut script = Script::with(settings.clone(), vec![command()]);
    script.input(Input::Forward(Signal::HUP)).did(&["spawn cmd"]).spawned("cmd").did(&["SIGHUP cmd plain"]);
    script.input(Input::Forward(Signal::TERM)).did(&["SIGTERM cmd plain"]).until(3_600_000).did(&[]);
    script.dies("cmd", 42).did(&["sweep SIGTERM"]).input(Input::Childless).did(&["exit 42"]);
    let limited = Settings { command_timeout: Some(ms(700)), ..settings.clone() };
    let mut script = Script::with(limited, vec![command()]);
    script.spawned("cmd").input(Input::Forward(Signal::TERM)).until(700);
    script.did(&["spawn cmd", "SIGTERM cmd plain", "kill cmd"]);
    // The same where SIGTERM comes before the host has said that COMMAND runs.
    let limited = Settings { command_timeout: Some(ms(700)), ..settings.clone() };
    let mut script = Script::with(limited, vec![command()]);
    script.input(Input::Forward(Signal::TERM)).spawned("cmd").until(700);
    script.did(&["spawn cmd", "SIGTERM cmd plain", "kill cmd"]);
    let mut script = Script::with(
        settings,
        vec![unit("job", |unit| unit.kind = Kind::Oneshot), {
            let mut command = command();
            command.wants = vec![name("job")];
            command
        }],
    );
    script.spawned("job").input(Input::Forward(Signal::TERM)).dies("job", 143).input(Input::Childless);
    script.did(&["spawn job", "SIGTERM job", "sweep SIGTERM", "exit 143"]);
}

#[test]
fn a_liveness_probe_kills_at_its_third_failure_and_says_so() {
    let mut script = Script::new(vec![unit("web", |unit| unit.liveness = probe(3000, 3))]);
    script.spawned("web");
    for at in [0, 3000, 6000] {
        script.until(at).probed("web", ProbeKind::Liveness, Outcome::Failure("statuscode: 403".to_owned()));
    }
    script.did(&[
        "spawn web",
        "probe web Liveness",
        "probe web Liveness",
        "probe web Liveness",
        "SIGTERM web",
    ]);
    script.exited("web", Exit::Code(0)).emptied("web");
    assert_eq!(script.view("web").last_exit.unwrap().reason, ExitReason::LivenessFailed);
    script.until(6100).spawned("web");
    assert_eq!(
        script.events("web"),
        [
            "Unhealthy Liveness probe failed: statuscode: 403 x3",
            "Killing Process web failed liveness probe, will be restarted x1",
            "BackOff Back-off restarting failed process web x1",
            "Started Started process web x2"
        ]
    );
    assert_eq!(script.view("web").restarts, 1);
}

#[test]
fn a_kill_by_a_probe_does_not_promise_a_restart_that_the_limit_forbids() {
    let mut script = Script::new(vec![unit("web", |unit| {
        unit.liveness = probe(1000, 1);
        unit.restart.limit = 1;
    })]);
    for at in [0, 100] {
        script.until(at).spawned("web");
        script.probed("web", ProbeKind::Liveness, Outcome::Failure("403".to_owned())).dies("web", 0);
    }
    assert_eq!(script.state("web"), "failed");
    let events = script.events("web");
    assert!(events.contains(&"Killing Process web failed liveness probe, will be restarted x1".to_owned()));
    assert!(events.contains(&"Killing Process web failed liveness probe x1".to_owned()), "{events:?}");
}

#[test]
fn a_slow_attempt_is_followed_at_once_by_the_one_it_made_late_and_then_by_the_old_phase() {
    let mut script = Script::new(vec![unit("web", |unit| unit.liveness = probe(1000, 3))]);
    script.spawned("web").until(2500).did(&["spawn web", "probe web Liveness"]);
    script.probed("web", ProbeKind::Liveness, Outcome::Success).did(&["probe web Liveness"]);
    script.until(2600).probed("web", ProbeKind::Liveness, Outcome::Success).until(2999).did(&[]);
    script.until(3000).did(&["probe web Liveness"]);
}

#[test]
fn before_startup_succeeds_nothing_else_is_tried_and_then_readiness_at_once() {
    let mut script = Script::new(vec![unit("web", |unit| {
        unit.startup = probe(1000, 5);
        unit.liveness = probe(1000, 3);
        unit.readiness = probe(30_000, 3);
    })]);
    script.spawned("web").did(&["spawn web", "probe web Startup"]).until(1500);
    script.probed("web", ProbeKind::Startup, Outcome::Success).did(&["probe web Readiness"]);
    script.probed("web", ProbeKind::Readiness, Outcome::Success);
    assert_eq!((script.state("web"), script.view("web").ready), ("running", Some(true)));
    script
        .until(2000)
        .did(&["probe web Liveness"])
        .until(31_499)
        .did(&[])
        .until(31_500)
        .did(&["probe web Readiness"]);
}

#[test]
fn a_probe_that_goes_on_hold_counts_from_nothing_again() {
    let mut script = Script::new(vec![unit("web", |unit| {
        let mut startup = probe(1000, 5).unwrap();
        Arc::make_mut(&mut startup).success_threshold = 2;
        unit.startup = Some(startup);
    })]);
    let shown = |script: &Script| {
        let startup = script.view("web").probes.startup.unwrap();
        (startup.result, startup.consecutive)
    };
    script.spawned("web").probed("web", ProbeKind::Startup, Outcome::Success);
    assert_eq!(shown(&script), ("unknown".to_owned(), 1));
    script.until(1000).probed("web", ProbeKind::Startup, Outcome::Success);
    assert_eq!(shown(&script), ("success".to_owned(), 0));
}

#[test]
fn readiness_comes_and_goes_without_a_restart() {
    let mut script = Script::new(vec![unit("web", |unit| unit.readiness = probe(1000, 1))]);
    script.spawned("web").probed("web", ProbeKind::Readiness, Outcome::Success).until(1000);
    script.probed("web", ProbeKind::Readiness, Outcome::Failure("refused".to_owned()));
    assert_eq!((script.state("web"), script.view("web").ready), ("running", Some(false)));
    assert_eq!(script.why("web"), "NotReady: not ready (refused)");
    script.until(2000).probed("web", ProbeKind::Readiness, Outcome::Success);
    assert_eq!((script.view("web").ready, script.view("web").restarts), (Some(true), 0));
}

#[test]
fn a_stop_ends_liveness_in_silence_and_cancels_what_is_in_flight() {
    let mut script = Script::new(vec![unit("web", |unit| {
        unit.liveness = probe(1000, 1);
        unit.readiness = probe(1000, 1);
    })]);
    script.spawned("web").did(&["spawn web", "probe web Liveness", "probe web Readiness"]);
    script.probed("web", ProbeKind::Readiness, Outcome::Success).command(Verb::Stop, &["web"]);
    script.did(&["cancel web Liveness", "SIGTERM web"]);
    assert_eq!(script.view("web").ready, Some(false));
    script.probed("web", ProbeKind::Liveness, Outcome::Failure("late".to_owned())).until(1000);
    script.did(&["probe web Readiness"]).exited("web", Exit::Code(0)).did(&["cancel web Readiness"]);
}

#[test]
fn news_of_a_past_run_is_dropped() {
    let mut script = Script::new(vec![plain("web")]);
    let old = script.run("web");
    script.spawned("web").dies("web", 1).until(100).spawned("web").did(&["spawn web", "spawn web"]);
    script.input(Input::Exited { instance: name("web"), run: old, exit: Exit::Code(3) });
    script.input(Input::Emptied { instance: name("web"), run: old }).did(&[]);
    assert_eq!(script.state("web"), "running");
}

#[test]
fn a_start_timeout_is_said_and_who_only_wants_it_goes_on() {
    let mut script = Script::new(vec![
        unit("db", |unit| unit.readiness = probe(10_000, 3)),
        unit("log", |unit| unit.wants = vec![name("db")]),
        unit("web", |unit| unit.requires = vec![name("db")]),
    ]);
    script.spawned("db").until(89_999).done.clear();
    script.until(90_000).did(&["spawn log"]);
    assert_eq!(script.why("db"), "StartTimeout: not up after 90s: not ready (its probe has not run yet)");
    assert_eq!(script.state("web"), "waiting");
}

#[test]
fn a_reload_applies_live_keys_and_touches_no_process() {
    let mut script = Script::new(vec![plain("web"), plain("old"), plain("same")]);
    script.spawned("web").spawned("old").spawned("same").done.clear();
    let new = || {
        let web = unit("web", |unit| {
            unit.stop.timeout = ms(1);
            unit.umask = 0o077;
        });
        vec![web, plain("new"), plain("same")]
    };
    let changes = script.engine.preview(&plan(new()), false);
    assert_eq!((changes.restart_needed, changes.added), (vec![name("web")], vec![name("new")]));
    script.load(new(), false).did(&["applied web", "answer 1: loaded", "spawn new"]);
    assert!(script.view("web").restart_needed && script.view("old").removed);
    script.load(new(), false).did(&["answer 2: loaded"]);
    script.dies("web", 1).until(100).did(&["spawn web"]);
    assert!(!script.view("web").restart_needed);
    script.command(Verb::Stop, &["old"]).dies("old", 0).did(&[
        "SIGTERM old",
        "forget old",
        "answer 3: old Ok: stopped, and gone: its file is",
    ]);
}

#[test]
fn an_update_restarts_what_changed_and_stops_what_is_gone() {
    let mut script = Script::new(vec![plain("web"), plain("old"), plain("same")]);
    script.spawned("web").spawned("old").spawned("same").done.clear();
    script.load(vec![unit("web", |unit| unit.umask = 0), plain("same")], true);
    script.did(&["answer 1: loaded", "SIGTERM old", "SIGTERM web"]);
    script.dies("old", 0).did(&["forget old"]).dies("web", 0).did(&["spawn web"]);
    assert!(!script.view("web").restart_needed);
}

#[test]
fn a_reload_touches_no_process_though_what_it_requires_by_now_is_down() {
    let off = || unit("db", |unit| unit.autostart = false);
    let web = || unit("web", |unit| unit.requires = vec![name("db")]);
    let app = || unit("app", |unit| unit.requires = vec![name("web")]);
    let mut script = Script::new(vec![off(), plain("web"), app()]);
    script.spawned("web").spawned("app").done.clear();
    script.load(vec![off(), web(), app()], false).did(&["applied web", "answer 1: loaded"]);
    assert_eq!(script.why("db"), "NotAutostarted: autostart is false and nobody has started it");
    // What was down is nobody's reason to stop, and its own stop and start touch nobody.
    script.command(Verb::Stop, &["db"]).did(&["answer 2: db Ok: was not running"]);
    assert_eq!(script.engine.dependents(&[name("db")]), []);
    // Once it was up it counts as if it always had.
    script.command(Verb::Start, &["db"]).spawned("db").until(2000).done.clear();
    script.command(Verb::Stop, &["db"]).did(&["SIGTERM app"]).dies("app", 0).did(&["SIGTERM web"]);
}

#[test]
fn what_a_reload_made_it_require_and_fails_is_no_reason_to_stop_either() {
    let job = || unit("job", |unit| (unit.kind, unit.restart.policy) = (Kind::Oneshot, Policy::Never));
    let web = || unit("web", |unit| unit.requires = vec![name("job")]);
    let mut script = Script::new(vec![plain("web")]);
    script.spawned("web").done.clear();
    script.load(vec![job(), web()], false).did(&["applied web", "answer 1: loaded", "spawn job"]);
    // Nor is a second reload while that is on its way.
    script.spawned("job").load(vec![job(), web()], false).done.clear();
    script.dies("job", 1).did(&[]);
    assert_eq!((script.state("job"), script.state("web")), ("failed", "running"));
}

#[test]
fn who_requires_what_is_in_backoff_is_not_stopped_by_what_a_reload_made_that_require() {
    let off = || unit("db", |unit| unit.autostart = false);
    let app = || unit("app", |unit| unit.requires = vec![name("web")]);
    let mut script = Script::new(vec![off(), plain("web"), app()]);
    script.spawned("web").spawned("app").dies("web", 1).done.clear();
    assert_eq!(script.state("web"), "backoff");
    let web = unit("web", |unit| unit.requires = vec![name("db")]);
    script.load(vec![off(), web, app()], false).until(60_000).did(&["applied web", "answer 1: loaded"]);
    assert_eq!((script.state("web"), script.state("app")), ("waiting", "running"));
    script.command(Verb::Start, &["db"]).spawned("db").did(&["spawn db", "spawn web"]);
}

#[test]
fn what_is_being_stopped_when_a_reload_makes_it_required_takes_nobody_along() {
    let web = unit("web", |unit| unit.requires = vec![name("db")]);
    let mut script = Script::new(vec![plain("db"), plain("web")]);
    script.spawned("db").spawned("web").command(Verb::Stop, &["db"]).done.clear();
    script.load(vec![plain("db"), web], false).dies("db", 0).until(60_000);
    assert_eq!((script.state("db"), script.state("web")), ("inactive", "running"));
}

#[test]
fn a_group_that_a_reload_takes_down_takes_no_process_with_it() {
    let group = |requires: &[&str]| {
        let requires = requires.iter().map(|other| name(other)).collect();
        unit("all", |unit| (unit.kind, unit.requires, unit.command) = (Kind::Group, requires, Vec::new()))
    };
    let off = || unit("db", |unit| unit.autostart = false);
    let web = || unit("web", |unit| unit.requires = vec![name("all")]);
    let mut script = Script::new(vec![off(), group(&[]), web()]);
    script.spawned("web").done.clear();
    script.load(vec![off(), group(&["db"]), web()], false).did(&["applied all", "answer 1: loaded"]);
    assert_eq!((script.state("all"), script.state("web")), ("waiting", "running"));
}

#[test]
fn what_a_reload_made_it_require_is_waited_for_by_its_next_start() {
    let off = || unit("db", |unit| unit.autostart = false);
    let mut script = Script::new(vec![off(), plain("web")]);
    script.spawned("web").load(vec![off(), unit("web", |unit| unit.requires = vec![name("db")])], false);
    script.done.clear();
    script.dies("web", 1).until(60_000).did(&[]);
    assert_eq!(script.state("web"), "waiting");
    script.command(Verb::Start, &["db"]).spawned("db").did(&["spawn db", "spawn web"]);
}

#[test]
fn an_update_starts_what_came_to_autostart_with_a_reload_before_it() {
    let mut script = Script::new(vec![unit("web", |unit| unit.autostart = false)]);
    script.load(vec![plain("web")], false).did(&["applied web", "answer 1: loaded"]);
    assert_eq!(script.why("web"), "NotAutostarted: autostart came with a reload; nobody has started it");
    script.load(vec![plain("web")], true).did(&["answer 2: loaded", "spawn web"]);
}

#[test]
fn an_update_names_what_stops_because_it_requires_what_is_restarted() {
    let web = || unit("web", |unit| unit.requires = vec![name("db")]);
    let mut script = Script::new(vec![plain("db"), web(), plain("other")]);
    script.spawned("db").spawned("web").spawned("other").done.clear();
    let new = || vec![unit("db", |unit| unit.umask = 0), web(), plain("other")];
    let changes = script.engine.preview(&plan(new()), true);
    assert_eq!((changes.restarted, changes.dependents), (vec![name("db")], vec![name("web")]));
    let changes = script.engine.preview(&plan(new()), false);
    assert_eq!(changes.dependents, []);
    script.load(new(), true).did(&["answer 1: loaded", "SIGTERM web"]);
    script.dies("web", 0).did(&["SIGTERM db"]).dies("db", 0).did(&["spawn db"]);
    script.spawned("db").did(&["spawn web"]);
}

#[test]
fn a_probe_that_changes_goes_on_from_what_was_published() {
    let mut script = Script::new(vec![unit("web", |unit| unit.readiness = probe(1000, 1))]);
    script.spawned("web").probed("web", ProbeKind::Readiness, Outcome::Success).until(500).done.clear();
    script.load(vec![unit("web", |unit| unit.readiness = probe(400, 1))], false);
    script.did(&["applied web", "answer 1: loaded"]).until(800).did(&["probe web Readiness"]);
    assert_eq!(script.view("web").ready, Some(true));
}

#[test]
fn a_masked_unit_is_not_started_and_says_why() {
    let mut script = Script::new(vec![]);
    let plan = plan_with_masked(vec![plain("web")], &["web"]);
    script.input(Input::Load { plan, update: false, ticket: None }).command(Verb::Start, &["web"]);
    script.did(&["answer 1: web Failed: masked: a symlink to /dev/null stands in place of its file"]);
    assert_eq!(script.view("web").reason.as_deref(), Some("Masked"));
}

#[test]
fn a_unit_that_is_masked_while_it_runs_goes_on_and_does_not_come_back() {
    let masked = || plan_with_masked(vec![plain("web"), plain("db")], &["web", "db"]);
    let mut script = Script::new(vec![plain("web"), plain("db")]);
    script.spawned("web").spawned("db").dies("db", 1).did(&["spawn db", "spawn web"]);
    script.input(Input::Load { plan: masked(), update: false, ticket: None }).did(&[]);
    assert_eq!((script.state("web"), script.state("db")), ("running", "inactive"));
    script.dies("web", 1).until(60_000).did(&[]);
    assert_eq!(script.view("web").reason.as_deref(), Some("Masked"));
    script.load(vec![plain("web"), plain("db")], false);
    script.did(&["answer 1: loaded", "spawn db", "spawn web"]);
    script.spawned("web").spawned("db").input(Input::Load { plan: masked(), update: true, ticket: None });
    script.did(&["SIGTERM db", "SIGTERM web"]).dies("web", 0).dies("db", 0).did(&[]);
}

#[test]
fn a_start_of_what_has_crashed_does_not_touch_those_that_require_it() {
    let mut script = Script::new(vec![plain("db"), unit("web", |unit| unit.requires = vec![name("db")])]);
    script.spawned("db").spawned("web").exited("db", Exit::Code(1)).left("db", &[7]);
    script.command(Verb::Start, &["db"]).did(&["spawn db", "spawn web", "terminate db"]);
    script.emptied("db").did(&["spawn db"]).spawned("db");
    assert_eq!(script.state("web"), "running");
}

#[test]
fn nothing_is_started_by_the_word_of_a_group_that_is_about_to_fall() {
    let mut script = Script::new(vec![
        plain("z"),
        unit("mid", |unit| {
            unit.kind = Kind::Group;
            unit.requires = vec![name("z")];
        }),
        unit("app", |unit| {
            unit.requires = vec![name("mid")];
            unit.restart.policy = Policy::Never;
        }),
    ]);
    script.spawned("z").spawned("app").dies("app", 1).did(&["spawn z", "spawn app"]);
    script.command(Verb::Restart, &["app", "z"]).did(&["SIGTERM z"]);
    assert_eq!(script.state("app"), "waiting");
}

#[test]
fn what_waits_after_a_crash_and_cannot_come_back_takes_its_dependents_with_it() {
    let mut script = Script::new(vec![
        unit("disk", |unit| unit.readiness = probe(1000, 1)),
        unit("db", |unit| unit.requires = vec![name("disk")]),
        unit("web", |unit| unit.requires = vec![name("db")]),
    ]);
    script.spawned("disk").probed("disk", ProbeKind::Readiness, Outcome::Success);
    script.spawned("db").spawned("web").dies("disk", 1).dies("db", 1).until(100);
    script.did(&["spawn disk", "probe disk Readiness", "spawn db", "spawn web", "spawn disk"]);
    assert_eq!((script.state("db"), script.state("web")), ("waiting", "running"));
    script.command(Verb::Stop, &["disk"]).did(&["SIGTERM web"]);
}

#[test]
fn a_stop_waits_for_who_is_about_to_leave_because_of_one_between() {
    let mut script = Script::new(vec![
        plain("disk"),
        unit("db", |unit| unit.requires = vec![name("disk")]),
        unit("web", |unit| unit.requires = vec![name("db")]),
    ]);
    script.spawned("disk").spawned("db").spawned("web").dies("db", 1).done.clear();
    script.command(Verb::Restart, &["disk", "db"]).did(&["SIGTERM web"]);
    script.dies("web", 0).did(&["SIGTERM disk"]);
}

#[test]
fn endpoints_are_told_from_the_first_start_on_and_at_each_change_only() {
    let web = || {
        unit("web", |unit| {
            unit.autostart = false;
            unit.readiness = probe(1000, 1);
            unit.ports = [("http".to_owned(), 8080)].into();
        })
    };
    let mut script = Script::new(vec![web()]);
    script
        .offered(&[])
        .command(Verb::Start, &["web"])
        .offered(&["web:  Starting"])
        .spawned("web")
        .offered(&[]);
    script.probed("web", ProbeKind::Readiness, Outcome::Success).offered(&["web: ready+serving -"]);
    script.until(1000).probed("web", ProbeKind::Readiness, Outcome::Success).offered(&[]);
    let failure = || Outcome::Failure("refused".to_owned());
    script.until(2000).probed("web", ProbeKind::Readiness, failure()).offered(&["web:  NotReady"]);
    script.until(3000).probed("web", ProbeKind::Readiness, failure()).offered(&[]);
    script.until(4000).probed("web", ProbeKind::Readiness, Outcome::Success);
    // Readiness goes on while it is being stopped, and it is not ready whatever that says.
    script.offered(&["web: ready+serving -"]).command(Verb::Stop, &["web"]);
    script.offered(&["web: serving+terminating StoppedByOperator"]).until(5000);
    script.probed("web", ProbeKind::Readiness, failure()).offered(&["web: terminating StoppedByOperator"]);
    script.until(6000).probed("web", ProbeKind::Readiness, Outcome::Success);
    script.offered(&["web: serving+terminating StoppedByOperator"]);
    script.exited("web", Exit::Code(0)).offered(&["web: terminating StoppedByOperator"]);
    script.emptied("web").offered(&["web:  StoppedByOperator"]);
    script.load(vec![], false).did(&["answer 3: loaded", "forget web"]);
}

#[test]
fn endpoints_name_what_readiness_checks_and_without_it_the_ports() {
    let told = |unit: Unit| {
        let mut engine = Engine::new(Settings::default());
        let mut effects = Vec::new();
        let now = Time { mono: Mono(0), wall: Wall::from_nanos(0) };
        let load = Input::Load { plan: plan(vec![unit]), update: false, ticket: None };
        engine.handle(now, load, &mut effects);
        let endpoints = effects.into_iter().find_map(|effect| match effect {
            Effect::Endpoints { endpoints, .. } => endpoints,
            _ => None,
        });
        endpoints.map(|endpoints| serde_json::to_value(endpoints.addresses).unwrap().to_string())
    };
    let ports = || [("admin".to_owned(), 9090), ("http".to_owned(), 8080)].into();
    let with = |check: Check| Some(Arc::new(Probe::new(check)));
    let here = Endpoint::Port { host: None, port: 80, port_name: None };
    let there = Endpoint::Port { host: Some("::1".to_owned()), port: 80, port_name: None };
    let local = r#"[{"host":"127.0.0.1","port":9090},{"host":"127.0.0.1","port":8080}]"#;
    let exec = Check::Exec { command: vec!["true".to_owned()] };
    for (readiness, expected) in [
        (with(Check::Tcp(here)), r#"[{"host":"127.0.0.1","port":80}]"#),
        (with(Check::Tcp(there)), r#"[{"host":"::1","port":80}]"#),
        (with(Check::Tcp(Endpoint::Unix("/run/app.sock".into()))), r#"[{"unix":"/run/app.sock"}]"#),
        (with(exec), local),
        (None, local),
    ] {
        let web = unit("web", |unit| (unit.ports, unit.readiness) = (ports(), readiness));
        assert_eq!(told(web).as_deref(), Some(expected));
    }
    assert_eq!(told(plain("web")).as_deref(), Some("[]"));
    assert_eq!(told(unit("job", |unit| unit.kind = Kind::Oneshot)), None);
}

#[test]
fn endpoints_are_told_anew_when_what_readiness_checks_is() {
    let web = |port| {
        unit("web", |unit| {
            let endpoint = Endpoint::Port { host: None, port, port_name: None };
            unit.readiness = Some(Arc::new(Probe::new(Check::Tcp(endpoint))));
        })
    };
    let mut script = Script::new(vec![web(80)]);
    script.spawned("web").probed("web", ProbeKind::Readiness, Outcome::Success);
    script.offered(&["web:  Starting", "web: ready+serving -"]).until(500);
    script
        .load(vec![web(80)], false)
        .offered(&[])
        .load(vec![web(81)], false)
        .offered(&["web: ready+serving -"]);
    script
        .load(vec![unit("web", |unit| unit.kind = Kind::Oneshot)], true)
        .offered(&["web: serving+terminating Restarting"]);
    script.dies("web", 0).offered(&["web: terminating Restarting", "web: none"]);
}
