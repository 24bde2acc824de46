//! Scripts in which uphold is killed, and one that has its state goes on.

use super::*;

impl Script {
    fn taken(&self) -> Vec<(String, u64, SoFar)> {
        let taken = self.engine.taken().into_iter();
        taken.map(|taken| (taken.instance.to_string(), taken.run.0, taken.so_far)).collect()
    }
}

fn requiring(text: &str, others: &[&str]) -> Unit {
    unit(text, |unit| unit.requires = others.iter().map(|other| name(other)).collect())
}

fn stubborn() -> Vec<Unit> {
    vec![unit("web", |unit| unit.stop.timeout = ms(2000))]
}

#[test]
fn what_runs_is_taken_over_and_nothing_is_done_to_it() {
    let units = || vec![plain("db"), requiring("web", &["db"])];
    let mut script = Script::new(units());
    script.spawned("db").spawned("web").did(&["spawn db", "spawn web"]);
    let before = (script.view("db"), script.view("web"));
    script.killed(false, units()).did(&[]);
    assert_eq!((script.view("db"), script.view("web")), before);
    assert_eq!(script.taken(), [("db".to_owned(), 1, SoFar::Born), ("web".to_owned(), 2, SoFar::Born)]);
    assert!(script.events("db").contains(&"Adopted Took over process db x1".to_owned()));
    // Run numbers go on, too.
    script.dies("db", 1).until(100).did(&["spawn db"]);
    assert_eq!(script.run("db"), Run(3));
}

#[test]
fn a_start_that_was_ordered_is_left_to_the_host() {
    let mut script = Script::new(vec![plain("web")]);
    script.did(&["spawn web"]).killed(false, vec![plain("web")]).did(&[]);
    assert_eq!(script.taken(), [("web".to_owned(), 1, SoFar::Ordered)]);
    script.spawned("web");
    assert_eq!(script.state("web"), "running");
}

#[test]
fn a_start_that_was_to_be_stopped_before_it_was_heard_of_is_not_left_to_the_host() {
    let units = || vec![plain("web")];
    let mut script = Script::new(units());
    script.did(&["spawn web"]).command(Verb::Stop, &["web"]).killed(false, units()).did(&[]);
    assert_eq!(script.taken(), [("web".to_owned(), 1, SoFar::Revoked)]);
    script.spawn_failed("web", true).until(600_000).did(&[]);
    assert_eq!(script.why("web"), "StoppedByOperator: stopped by the operator");
    // A restart is a stop and a start.
    script.command(Verb::Start, &["web"]).command(Verb::Restart, &["web"]).killed(false, units());
    assert_eq!(script.taken(), [("web".to_owned(), 2, SoFar::Revoked)]);
    script.spawn_failed("web", true).did(&["spawn web", "spawn web"]).spawned("web");
    assert_eq!((script.state("web"), script.run("web")), ("running", Run(3)));
}

#[test]
fn a_shutdown_that_goes_on_goes_on_in_its_order() {
    let units = || vec![plain("db"), requiring("web", &["db"])];
    let mut script = Script::new(units());
    script.spawned("db").spawned("web").input(Input::Shutdown).did(&["spawn db", "spawn web", "SIGTERM web"]);
    script.killed(true, units()).did(&["SIGTERM web"]);
    script.dies("web", 0).did(&["SIGTERM db"]).dies("db", 0).did(&["exit 0"]);
}

#[test]
fn that_the_machine_is_to_start_again_is_known_to_who_goes_on_with_the_shutdown_alone() {
    for (same, reboots) in [(true, true), (false, false)] {
        let mut script = Script::new(vec![plain("web")]);
        script.spawned("web").input(Input::Reboot).did(&["spawn web", "SIGTERM web"]);
        script.killed(same, vec![plain("web")]).did(&["SIGTERM web"]).dies("web", 0);
        assert_eq!(script.engine.reboots(), reboots);
        script.did(&[if same { "exit 0" } else { "spawn web" }]);
    }
}

#[test]
fn a_shutdown_that_goes_on_keeps_its_order_whatever_the_files_say_by_now() {
    let mut script = Script::new(vec![plain("db"), requiring("web", &["db"])]);
    script.spawned("db").spawned("web").input(Input::Shutdown).did(&["spawn db", "spawn web", "SIGTERM web"]);
    // The second no longer names the first, and then the first is gone.
    script.killed(true, vec![plain("db"), plain("web")]).did(&["SIGTERM web"]);
    script.killed(true, vec![plain("web")]).did(&["SIGTERM web"]);
    script.dies("web", 0).did(&["SIGTERM db"]).dies("db", 0).did(&["exit 0"]);
}

#[test]
fn a_shutdown_is_forgotten_by_an_uphold_that_was_started_anew() {
    let units = || vec![plain("db"), requiring("web", &["db"]), plain("idle"), plain("other")];
    let mut script = Script::new(units());
    script.spawned("db").spawned("web").spawned("idle").spawned("other").command(Verb::Stop, &["other"]);
    script.input(Input::Shutdown).dies("idle", 0).done.clear();
    assert_eq!((script.state("web"), script.state("idle")), ("stopping", "inactive"));
    // The signals of stops that had begun are not taken back; what they stop starts again.
    script.killed(false, units()).did(&["spawn idle", "SIGTERM other", "SIGTERM web"]);
    assert!(!script.engine.shutting_down());
    script.dies("web", 0).dies("db", 0).did(&["SIGTERM db", "spawn db"]).spawned("db").did(&["spawn web"]);
    // What the operator had stopped before stays stopped, and says why.
    script.dies("other", 0).did(&[]);
    assert_eq!(script.why("other"), "StoppedByOperator: stopped by the operator");
}

#[test]
fn what_had_ended_by_itself_when_a_shutdown_began_that_is_forgotten_goes_on_by_its_policy() {
    let once = |unit: &mut Unit| (unit.kind, unit.restart.policy) = (Kind::Oneshot, Policy::Never);
    let units = || vec![unit("job", once), plain("web")];
    let mut script = Script::new(units());
    script.spawned("job").spawned("web").exited("job", Exit::Code(0)).exited("web", Exit::Code(1));
    script.input(Input::Shutdown).done.clear();
    script.killed(false, units()).emptied("job").emptied("web");
    assert_eq!((script.state("job"), script.state("web")), ("completed", "backoff"));
}

#[test]
fn what_an_operator_stops_in_a_shutdown_stays_stopped_if_that_is_forgotten() {
    let mut script = Script::new(vec![plain("web"), plain("db")]);
    script.spawned("web").spawned("db").input(Input::Shutdown).dies("web", 0).command(Verb::Stop, &["web"]);
    script.killed(false, vec![plain("web"), plain("db")]).dies("db", 0).done.clear();
    assert_eq!(script.why("web"), "StoppedByOperator: stopped by the operator");
}

#[test]
fn whose_end_was_to_be_the_end_of_uphold_runs_again_if_that_is_forgotten() {
    let once = |unit: &mut Unit| (unit.restart.policy, unit.on_end) = (Policy::Never, OnEnd::Shutdown);
    let units = || vec![unit("main", once), plain("web")];
    let mut script = Script::new(units());
    script.spawned("main").spawned("web").dies("main", 3).did(&["spawn main", "spawn web", "SIGTERM web"]);
    assert_eq!(script.state("main"), "failed");
    // The same uphold goes on to its end, and has that status.
    let state = saved(&script.engine);
    script.killed(true, units()).dies("web", 0).did(&["SIGTERM web", "exit 3"]);
    // Nobody would end one that was started anew, or do what it was started for.
    script.engine = Engine::restored(Settings::default(), state, script.time(), false);
    script.killed(false, units()).did(&["spawn main", "SIGTERM web"]);
    script.dies("web", 0).did(&["spawn web"]);
}

#[test]
fn nothing_is_started_by_the_word_of_a_group_whose_new_requirement_is_down() {
    let group = |requires: &[&str]| {
        let requires = requires.iter().map(|other| name(other)).collect();
        unit("z", |unit| (unit.kind, unit.requires, unit.command) = (Kind::Group, requires, Vec::new()))
    };
    let manual = unit("down", |unit| unit.autostart = false);
    let mut script = Script::new(vec![group(&[]), requiring("a", &["z", "down"]), manual.clone()]);
    script.command(Verb::Stop, &["down"]).spawned("down").dies("down", 0).done.clear();
    assert_eq!((script.state("z"), script.state("a")), ("running", "waiting"));
    script
        .killed(false, vec![group(&["down"]), requiring("a", &["z"]), manual])
        .did(&["applied a", "applied z"]);
    assert_eq!((script.state("z"), script.state("a")), ("waiting", "waiting"));
}

#[test]
fn each_phase_of_a_stop_goes_on_where_it_was() {
    let web = || vec![requiring("app", &["web"]), unit("web", |unit| unit.stop.timeout = ms(2000))];
    let running = || {
        let mut script = Script::new(web());
        script.spawned("web").spawned("app").done.clear();
        script
    };
    let stopping = || {
        let mut script = Script::new(stubborn());
        script.spawned("web").command(Verb::Stop, &["web"]).done.clear();
        script
    };
    // Holding: the one that requires it goes first.
    let mut script = running();
    script.command(Verb::Stop, &["web"]).did(&["SIGTERM app"]).killed(false, web()).did(&["SIGTERM app"]);
    script.dies("app", 0).did(&["SIGTERM web"]);
    // Unborn: the signal follows the news of its start.
    let mut script = Script::new(stubborn());
    script.command(Verb::Stop, &["web"]).did(&["spawn web"]).killed(false, stubborn()).did(&[]);
    script.spawned("web").did(&["SIGTERM web"]).until(2000).did(&["kill web"]);
    // Told: its time goes on.
    let mut script = stopping();
    script.until(1500).killed(false, stubborn()).did(&["SIGTERM web"]);
    script.until(1999).did(&[]).until(2000).did(&["kill web"]);
    // Looking: the host says once more what is left.
    let mut script = stopping();
    script.until(1500).exited("web", Exit::Code(0)).killed(false, stubborn()).did(&[]);
    assert_eq!(script.taken(), [("web".to_owned(), 1, SoFar::Ended)]);
    script.left("web", &[7]).did(&["terminate web"]);
    // Rest: what is left was told, perhaps.
    script.killed(false, stubborn()).did(&["terminate web"]);
    script.until(1999).left("web", &[7]).did(&[]).until(2000).did(&["kill web"]);
    // Killed, surveyed, and the report.
    script.until(5000).killed(false, stubborn()).did(&["kill web"]);
    script.until(11_999).did(&[]).until(12_000).did(&["survey web"]);
    script.killed(false, stubborn()).did(&["survey web"]).left("web", &[7]).did(&[]);
    let why = script.why("web");
    assert!(why.starts_with("Unkillable"), "{why}");
    script.killed(false, stubborn()).did(&[]).until(100_000).did(&[]);
    assert_eq!(script.why("web"), why);
    script.emptied("web").did(&[]);
    assert_eq!(script.why("web"), "StoppedByOperator: stopped by the operator");
}

#[test]
fn a_restart_is_still_due_when_it_was_and_counts_once() {
    let web = || vec![unit("web", |unit| unit.restart.delay = ms(5000))];
    let mut script = Script::new(web());
    script.spawned("web").dies("web", 1).until(3000).done.clear();
    let before = script.view("web");
    script.killed(false, web()).did(&[]);
    assert_eq!(script.view("web"), before);
    script.until(4999).did(&[]).until(5000).did(&["spawn web"]).killed(false, web());
    assert_eq!(script.view("web").restarts, 1);
    // The next is twice as far away: the delay went on growing.
    script.spawned("web").dies("web", 1).until(14_999).did(&[]).until(15_000).did(&["spawn web"]);
    assert_eq!(script.view("web").restarts, 2);
}

#[test]
fn a_restart_that_was_due_while_there_was_no_uphold_comes_at_once() {
    let mut script = Script::new(vec![plain("web")]);
    script.spawned("web").dies("web", 1).now = 60_000;
    script.done.clear();
    script.killed(false, vec![plain("web")]).did(&[]).until(60_000).did(&["spawn web"]);
}

#[test]
fn the_run_of_restarts_goes_on_to_its_limit() {
    let web = || vec![unit("web", |unit| unit.restart.limit = 2)];
    let mut script = Script::new(web());
    for now in [0, 1000] {
        script.spawned("web").dies("web", 1).until(now + 1000).killed(false, web());
    }
    script.spawned("web").dies("web", 1);
    assert_eq!(script.state("web"), "failed");
    script.killed(false, web()).until(100_000);
    assert_eq!((script.state("web"), script.view("web").restarts), ("failed", 2));
}

#[test]
fn a_oneshot_whose_end_nobody_saw_is_failed_and_not_run_again() {
    for policy in [Policy::Never, Policy::OnFailure] {
        let job = || {
            let job = |unit: &mut Unit| (unit.kind, unit.restart.policy) = (Kind::Oneshot, policy);
            vec![unit("job", job), requiring("web", &["job"])]
        };
        let mut script = Script::new(job());
        script.spawned("job").did(&["spawn job"]).killed(false, job());
        script.exited("job", Exit::Unknown).emptied("job").until(100_000).did(&[]);
        assert_eq!((script.state("job"), script.state("web")), ("failed", "waiting"));
        assert_eq!(script.view("job").last_exit.unwrap().reason, ExitReason::Unknown);
        // Its end is known for good, and an operator may run it again.
        script.killed(false, job()).did(&[]).command(Verb::Start, &["job"]).did(&["spawn job"]);
    }
}

#[test]
fn a_oneshot_that_has_completed_is_not_run_again() {
    let once = |unit: &mut Unit| (unit.kind, unit.restart.policy) = (Kind::Oneshot, Policy::Never);
    let job = || vec![unit("job", once), requiring("web", &["job"])];
    let mut script = Script::new(job());
    script.spawned("job").dies("job", 0).spawned("web").done.clear();
    script.killed(false, job()).did(&[]);
    assert_eq!((script.state("job"), script.view("job").up), ("completed", true));
}

#[test]
fn who_asked_before_gets_no_answer_and_what_was_asked_is_done() {
    let mut script = Script::new(vec![plain("web"), plain("db")]);
    script.spawned("web").spawned("db").command(Verb::Stop, &["web"]).command(Verb::Restart, &["db"]);
    script.done.clear();
    script.killed(false, vec![plain("web"), plain("db")]).did(&["SIGTERM db", "SIGTERM web"]);
    script.dies("web", 0).dies("db", 0).did(&["spawn db"]).until(100_000).did(&[]);
    assert_eq!((script.view("web").wanted, script.view("db").wanted), (Wanted::Down, Wanted::Up));
}

#[test]
fn a_command_that_was_told_keeps_its_time_and_what_came_before_its_start() {
    let settings = || Settings {
        command: Some(name("cmd")),
        command_timeout: Some(ms(3000)),
        sweep: true,
        ..Settings::default()
    };
    let cmd = || {
        let never = |unit: &mut Unit| {
            unit.restart.policy = Policy::Never;
            unit.on_end = OnEnd::Shutdown;
        };
        vec![unit("cmd", never)]
    };
    let mut script = Script::with(settings(), cmd());
    script.input(Input::Forward(Signal::HUP)).did(&["spawn cmd"]).killed_with(settings(), false, cmd());
    script.spawned("cmd").did(&["SIGHUP cmd plain"]);
    script.input(Input::Forward(Signal::TERM)).did(&["SIGTERM cmd plain"]).until(2000);
    script.killed_with(settings(), false, cmd()).until(2999).did(&[]).until(3000).did(&["kill cmd"]);
}

#[test]
fn a_sweep_and_the_exit_are_said_again() {
    let settings = || Settings { sweep: true, ..Settings::default() };
    let mut script = Script::with(settings(), vec![plain("web")]);
    script.spawned("web").input(Input::Shutdown).dies("web", 0).did(&[
        "spawn web",
        "SIGTERM web",
        "sweep SIGTERM",
    ]);
    script.until(20_000).killed_with(settings(), true, vec![plain("web")]).did(&["sweep SIGTERM"]);
    script.until(29_999).did(&[]).until(30_000).did(&["sweep SIGKILL"]);
    script.killed_with(settings(), true, vec![plain("web")]).did(&["sweep SIGKILL"]);
    script.input(Input::Childless).did(&["exit 0"]);
    script.killed_with(settings(), true, vec![plain("web")]).did(&["exit 0"]);
}

#[test]
fn proxies_are_told_anew_and_since_when_it_has_been_so() {
    let mut script = Script::new(vec![plain("web")]);
    script.until(1000).spawned("web").until(5000);
    let state = saved(&script.engine);
    script.engine = Engine::restored(Settings::default(), state, script.time(), false);
    let mut effects = Vec::new();
    let load = Input::Load { plan: plan(vec![plain("web")]), update: false, ticket: None };
    script.engine.handle(script.time(), load, &mut effects);
    let told = effects.into_iter().find_map(|effect| match effect {
        Effect::Endpoints { endpoints, .. } => endpoints,
        _ => None,
    });
    let told = told.unwrap();
    assert_eq!((told.ready, told.since), (true, Wall::from_nanos(1_000_000_000)));
}

#[test]
fn another_command_than_that_of_before_takes_its_place() {
    let settings = || Settings { command: Some(name("cmd")), ..Settings::default() };
    let command = |program: &str| {
        unit("cmd", |unit| {
            (unit.restart.policy, unit.on_end) = (Policy::Never, OnEnd::Shutdown);
            (unit.command, unit.stop.timeout) = (vec![program.to_owned()], ms(2000));
        })
    };
    let started = || {
        let mut script = Script::with(settings(), vec![command("/bin/old")]);
        script.spawned("cmd").did(&["spawn cmd"]);
        script
    };
    let other = || vec![command("/bin/new")];
    // The same one goes on.
    let mut script = started();
    script.killed_with(settings(), false, vec![command("/bin/old")]).did(&[]).dies("cmd", 3).did(&["exit 3"]);
    // Another one waits for its end, which is nobody's status.
    let mut script = started();
    script.killed_with(settings(), false, other()).did(&["SIGTERM cmd", "SIGTERM cmd"]);
    script.dies("cmd", 3).did(&["spawn cmd"]);
    assert_eq!(script.engine.unit(&name("cmd")).unwrap().command, ["/bin/new"]);
    script.spawned("cmd").dies("cmd", 7).did(&["exit 7"]);
    // It has the time of its [stop], and a SIGTERM of that time is for uphold.
    let mut script = started();
    script.killed_with(settings(), false, other()).done.clear();
    script.input(Input::Forward(Signal::TERM)).until(1999).did(&[]).until(2000).did(&["kill cmd"]);
    script.dies("cmd", 0).did(&["exit 143"]);
    // Other signals are for the one that was asked for.
    let mut script = started();
    script
        .killed_with(settings(), false, other())
        .input(Input::Forward(Signal::HUP))
        .dies("cmd", 0)
        .done
        .clear();
    // Which come to it though files are read, or uphold goes on as another image, meanwhile.
    script.spawned("cmd").did(&["SIGHUP cmd plain"]);
    let mut script = started();
    script.killed_with(settings(), false, other()).input(Input::Forward(Signal::HUP));
    script.load(other(), false).killed_with(settings(), true, other()).dies("cmd", 0).done.clear();
    script.spawned("cmd").did(&["SIGHUP cmd plain"]);
    // One that an operator had stopped is no reason to wait.
    let mut script = started();
    script.command(Verb::Stop, &["cmd"]).dies("cmd", 0).done.clear();
    script.killed_with(settings(), false, other()).did(&["applied cmd", "spawn cmd"]);
}
