//! What probes and events know outlives uphold.

use super::*;

const FAILED: &str = "connection refused";

fn failure() -> Outcome {
    Outcome::Failure(FAILED.to_owned())
}

#[test]
fn a_probe_goes_on_counting_and_keeps_its_ticks() {
    let web = || vec![unit("web", |unit| unit.liveness = probe(1000, 3))];
    let mut script = Script::new(web());
    script.spawned("web").probed("web", ProbeKind::Liveness, failure());
    script.until(1000).probed("web", ProbeKind::Liveness, failure()).until(1200).done.clear();
    let before = script.view("web").probes;
    assert_eq!(before.liveness.as_ref().map(|probe| probe.consecutive), Some(2));
    script.killed(false, web()).did(&[]);
    assert_eq!(script.view("web").probes, before);
    script.until(1999).did(&[]).until(2000).did(&["probe web Liveness"]);
    script.probed("web", ProbeKind::Liveness, failure()).did(&["SIGTERM web"]);
    // What has it killed is known to the next uphold, too.
    script.killed(false, web()).did(&["SIGTERM web"]).dies("web", 0);
    assert_eq!(script.view("web").last_exit.unwrap().reason, ExitReason::LivenessFailed);
}

#[test]
fn an_attempt_in_flight_is_made_again_with_the_next_tick_and_its_outcome_is_nobodys() {
    let web = || vec![unit("web", |unit| unit.readiness = probe(1000, 3))];
    let mut script = Script::new(web());
    script.spawned("web").did(&["spawn web", "probe web Readiness"]).until(300).killed(false, web());
    script.probed("web", ProbeKind::Readiness, Outcome::Success);
    assert_eq!(script.state("web"), "starting");
    script.until(999).did(&[]).until(1000).did(&["probe web Readiness"]);
    script.probed("web", ProbeKind::Readiness, Outcome::Success);
    assert_eq!((script.state("web"), script.view("web").ready), ("running", Some(true)));
}

#[test]
fn an_attempt_that_is_overdue_is_made_at_once() {
    let web = || vec![unit("web", |unit| unit.liveness = probe(1000, 3))];
    let mut script = Script::new(web());
    script.spawned("web").probed("web", ProbeKind::Liveness, Outcome::Success).now = 7300;
    script.done.clear();
    script.killed(false, web()).did(&[]).until(7300).did(&["probe web Liveness"]);
}

#[test]
fn a_startup_probe_that_has_succeeded_is_not_repeated() {
    let web = || {
        let all = |unit: &mut Unit| {
            (unit.startup, unit.liveness, unit.readiness) = (probe(500, 3), probe(1000, 3), probe(1000, 3));
        };
        vec![unit("web", all)]
    };
    let mut script = Script::new(web());
    script.spawned("web").probed("web", ProbeKind::Startup, failure()).done.clear();
    // Until it has, nothing else is tried, and its failures count on.
    script.killed(false, web()).until(500).did(&["probe web Startup"]);
    assert_eq!(script.view("web").probes.startup.unwrap().consecutive, 1);
    script.probed("web", ProbeKind::Startup, Outcome::Success).did(&["probe web Readiness"]);
    script.probed("web", ProbeKind::Readiness, Outcome::Success);
    let ready = script.view("web");
    script.killed(false, web());
    assert_eq!(script.view("web"), ready);
    script.until(1000).did(&["probe web Liveness"]).until(1500).did(&["probe web Readiness"]);
}

/// Each of these units is probed with a period of 10 s and was overdue when uphold came back: when is it tried?
fn tries_after_a_minute(count: usize) -> Vec<u64> {
    let units = || -> Vec<Unit> {
        (0..count).map(|at| unit(&format!("web{at}"), |unit| unit.liveness = probe(10_000, 3))).collect()
    };
    let mut script = Script::new(units());
    for at in 0..count {
        let name = format!("web{at}");
        script.spawned(&name).probed(&name, ProbeKind::Liveness, Outcome::Success);
    }
    script.now = 60_000;
    script.killed(false, units()).done.clear();
    let mut tries = Vec::new();
    while script.engine.next_deadline().is_some_and(|due| due.0 <= 70_000 * 1_000_000) {
        script.until(script.engine.next_deadline().unwrap().0.div_ceil(1_000_000));
        let probes = script.done.drain(..).filter(|done| done.starts_with("probe"));
        tries.extend(probes.map(|_| script.now));
    }
    tries
}

#[test]
fn what_is_overdue_is_tried_at_once_unless_that_is_much() {
    assert_eq!(tries_after_a_minute(20), [60_000; 20]);
    let many = tries_after_a_minute(40);
    assert_eq!(many.len(), 40);
    let at_once = many.iter().filter(|at| **at < 61_000).count();
    assert!(at_once < 12, "{many:?}");
    assert!(many.iter().any(|at| *at > 67_000), "{many:?}");
}

#[test]
fn events_are_counted_on() {
    let mut script = Script::new(vec![plain("web")]);
    let notice = |script: &mut Script, text: &str| {
        let (instance, reason) = (name("web"), "LogWriteFailed");
        script.input(Input::Notice { instance, reason, warning: true, message: text.to_owned() });
    };
    let told = |script: &Script| -> Vec<String> {
        let all = script.events("web").into_iter();
        all.filter(|event| event.starts_with("LogWriteFailed")).collect()
    };
    for at in 1..=11 {
        notice(&mut script, &format!("text {at}"));
    }
    let before = script.engine.events(None, 0);
    script.engine = Engine::restored(Settings::default(), saved(&script.engine), script.time(), false);
    assert_eq!(script.engine.events(None, 0), before);
    script.killed(false, vec![plain("web")]);
    let last = |script: &Script| told(script).last().cloned().unwrap();
    notice(&mut script, "text 9");
    assert_eq!(last(&script), "LogWriteFailed text 9 x2");
    notice(&mut script, "text 12");
    assert_eq!(last(&script), "LogWriteFailed (combined from similar events): text 12 x3");
    assert_eq!(told(&script).len(), 10);
    let seqs: Vec<u64> = script.engine.events(None, 0).iter().map(|event| event.seq).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b) && seqs[0] < before.last().unwrap().seq);
}

#[test]
fn of_many_texts_the_newest_stand_for_themselves_after_a_take_over() {
    let mut script = Script::new(vec![plain("web")]);
    let notice = |script: &mut Script, text: &str| {
        let (instance, reason) = (name("web"), "LogWriteFailed");
        script.input(Input::Notice { instance, reason, warning: true, message: text.to_owned() });
    };
    for at in 1..=9 {
        notice(&mut script, &format!("old {at}"));
    }
    // A long silence: nine more stand for themselves.
    script.now = 700_000;
    for at in 1..=9 {
        notice(&mut script, &format!("new {at}"));
    }
    script.killed(false, vec![plain("web")]);
    notice(&mut script, "new 5");
    assert_eq!(script.events("web").last().unwrap(), "LogWriteFailed new 5 x2");
}
