//! Whatever happens: what was recorded of it, change by change, is the state.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

const NAMES: [&str; 6] = ["db", "web", "job", "all", "cron", "idle"];

/// The units; `edit` changes what files may change.
fn units(edit: u8) -> Vec<Unit> {
    let named = |names: &[&str]| names.iter().map(|text| name(text)).collect();
    let mut units = vec![
        unit("db", |unit| {
            (unit.readiness, unit.startup) = (probe(1000, 2), probe(500, 3));
            unit.restart.limit = 3;
            unit.restart.jitter = 0.3;
        }),
        unit("web", |unit| {
            unit.requires = named(&["db"]);
            unit.liveness = probe(700, 2);
            unit.stop.timeout = ms(1500);
        }),
        unit("job", |unit| {
            (unit.kind, unit.restart.policy) = (Kind::Oneshot, Policy::OnFailure);
            unit.restart.delay = ms(3000);
        }),
        unit("all", |unit| {
            (unit.kind, unit.command, unit.requires) = (Kind::Group, Vec::new(), named(&["db"]));
            unit.wants = named(&["job"]);
        }),
        unit("cron", |unit| {
            (unit.after, unit.stop.leave, unit.up_after) = (named(&["all"]), true, ms(2000));
        }),
        unit("idle", |unit| unit.autostart = false),
    ];
    units.retain(|unit| edit & 1 == 0 || unit.name != name("web"));
    units.retain(|unit| edit & 2 == 0 || unit.name != name("cron"));
    for unit in &mut units {
        if edit & 4 != 0 {
            unit.umask = 0o077;
        }
        if edit & 8 != 0 {
            unit.restart.max_delay = ms(4000);
            unit.liveness = unit.liveness.as_ref().and_then(|_| probe(900, 2));
        }
    }
    units
}

/// One input, from what a generator has thrown; `None`: there is nobody to whom it could happen.
fn input(engine: &Engine, kind: u8, which: usize, more: u8) -> Option<Input> {
    let instance = name(NAMES[which]);
    let run = engine.run(&instance);
    let exit = match more % 4 {
        0 | 1 => Exit::Code(i32::from(more % 2)),
        2 => Exit::Signal { signal: Signal::KILL, oom: more & 16 != 0 },
        _ => Exit::Unknown,
    };
    Some(match kind {
        0..5 => Input::Spawned { instance, run: run?, pid: 7 },
        5 => {
            let (stage, message) = ("the exec".to_owned(), "no such file".to_owned());
            let failure = SpawnFailure { stage, message, passing: more & 1 == 0, code: 126 };
            Input::SpawnFailed { instance, run: run?, failure }
        }
        6 | 7 => Input::Exited { instance, run: run?, exit },
        8 => Input::Left { instance, run: run?, pids: vec![8, 9] },
        9..12 => Input::Emptied { instance, run: run? },
        12..17 => {
            let kinds = [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness];
            let outcome = match more >> 2 {
                0..40 => Outcome::Success,
                40..60 => Outcome::Failure(format!("refused {more}")),
                _ => Outcome::Warning(format!("redirected {more}")),
            };
            Input::Probed { instance, run: run?, kind: kinds[usize::from(more) % 3], outcome }
        }
        17..20 => {
            let verbs = [
                Verb::Start,
                Verb::Stop,
                Verb::Restart,
                Verb::Reset,
                Verb::Signal(Signal::HUP),
                Verb::Wait(Goal::Up),
            ];
            engine.unit(&instance)?;
            let (verb, ticket) = (verbs[usize::from(more) % 6], Ticket(u64::from(more)));
            Input::Command { verb, instances: vec![instance], timeout: None, wait: true, ticket }
        }
        20 => {
            let masked = if more & 64 == 0 { Vec::new() } else { vec!["job"] };
            let plan = plan_with_masked(units(more), &masked);
            Input::Load { plan, update: more & 32 != 0, ticket: None }
        }
        21 => {
            let message = format!("text {}", more % 16);
            Input::Notice { instance, reason: "LogWriteFailed", warning: true, message }
        }
        22 if more < 60 => Input::Shutdown,
        22 if more < 120 => Input::Forward(Signal::TERM),
        22 if more < 180 => Input::Childless,
        _ => Input::Tick,
    })
}

/// The state as JSON, without the attempts in flight: those are nobody's after a death.
fn json(engine: &Engine) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                if fields.remove("in_flight").is_some() {
                    fields.remove("next");
                }
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut value = serde_json::to_value(engine.state()).unwrap();
    strip(&mut value);
    value
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_changes_of_all_inputs_are_the_state(
        command in any::<bool>(),
        inputs in prop::collection::vec((0_u8..26, 0_usize..6, any::<u8>(), 0_u64..2000), 1..150),
    ) {
        let settings = || Settings {
            command: command.then(|| name("cron")),
            command_timeout: Some(ms(5000)),
            sweep: true,
            ..Settings::default()
        };
        let mut script = Script::with(settings(), units(0));
        let mut recorded = Saved::default();
        let last = inputs.len() - 1;
        for (at, (kind, which, more, wait)) in inputs.into_iter().enumerate() {
            script.now += wait;
            if let Some(input) = input(&script.engine, kind, which, more) {
                script.input(input);
            }
            let line = script.engine.changes().map(|changes| serde_json::to_string(&changes).unwrap());
            if let Some(line) = line {
                recorded.merge(serde_json::from_str(&line).unwrap());
            }
            prop_assert!(script.engine.changes().is_none(), "what was recorded has changed again");
            if at.is_multiple_of(30) || at == last {
                let new = Engine::restored(settings(), recorded.clone(), script.time(), true);
                prop_assert_eq!(json(&new), json(&script.engine));
            }
        }
    }

    #[test]
    fn an_engine_that_goes_on_from_the_state_does_as_the_one_before_would_have(
        before in prop::collection::vec((0_u8..26, 0_usize..6, any::<u8>(), 0_u64..2000), 0..80),
        after in prop::collection::vec((0_u8..26, 0_usize..6, any::<u8>(), 0_u64..2000), 1..40),
    ) {
        // An attempt in flight is lost, and makes a difference that is meant to be.
        let units = |edit| -> Vec<Unit> {
            let mut units = units(edit);
            for unit in &mut units {
                (unit.startup, unit.liveness, unit.readiness) = (None, None, None);
            }
            units
        };
        let next = |engine: &Engine, (kind, which, more, _): (u8, usize, u8, u64)| {
            let input = input(engine, kind, which, more)?;
            let Input::Load { update, .. } = input else { return Some(input) };
            Some(Input::Load { plan: plan(units(more)), update, ticket: None })
        };
        let mut old = Script::with(Settings::default(), units(0));
        let mut last = units(0);
        for thrown in before {
            old.now += thrown.3;
            let Some(input) = next(&old.engine, thrown) else { continue };
            if matches!(input, Input::Load { .. }) && !old.engine.shutting_down() {
                last = units(thrown.2);
            }
            old.input(input);
        }
        let engine = Engine::restored(Settings::default(), saved(&old.engine), old.time(), true);
        let mut new = Script { engine, now: old.now, done: Vec::new(), tickets: 0 };
        for script in [&mut old, &mut new] {
            script.input(Input::Load { plan: plan(last.clone()), update: false, ticket: None });
            script.done.clear();
        }
        prop_assert_eq!(json(&new.engine), json(&old.engine));
        for thrown in after {
            let input = next(&old.engine, thrown);
            for script in [&mut old, &mut new] {
                script.now += thrown.3;
                script.input(input.clone().unwrap_or(Input::Tick));
                script.done.retain(|done| !done.starts_with("answer"));
            }
            prop_assert_eq!(std::mem::take(&mut new.done), std::mem::take(&mut old.done));
            prop_assert_eq!(json(&new.engine), json(&old.engine));
        }
    }
}
