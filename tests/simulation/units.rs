//! Random units.

use std::sync::Arc;
use std::time::Duration;

use uphold::unit::{Check, Endpoint, ExitMatch, Kind, OnEnd, Policy, Probe, Unit};

use super::Dice;
use super::world::secs;

/// The keys that do not say what a unit is.
pub fn roll_keys(dice: &mut Dice, unit: &mut Unit) {
    let restart = &mut unit.restart;
    restart.policy = *dice.pick(&[Policy::Always, Policy::Always, Policy::OnFailure, Policy::Never]);
    if unit.kind == Kind::Oneshot && restart.policy == Policy::Always {
        restart.policy = Policy::OnFailure;
    }
    restart.delay = *dice.pick(&[Duration::ZERO, Duration::from_millis(100), secs(1), secs(20)]);
    restart.factor = *dice.pick(&[1.0, 2.0, 10.0]);
    restart.max_delay = *dice.pick(&[secs(1), secs(10), secs(30)]);
    restart.jitter = *dice.pick(&[0.0, 0.1, 1.0]);
    restart.reset_after = *dice.pick(&[Duration::ZERO, secs(1), secs(60)]);
    restart.limit = *dice.pick(&[0, 0, 0, 1, 3]);
    restart.except = dice.percent(10).then_some(ExitMatch::Code(3)).into_iter().collect();
    unit.up_after = *dice.pick(&[Duration::ZERO, Duration::ZERO, secs(1), secs(5)]);
    unit.start_timeout = *dice.pick(&[None, Some(secs(1)), Some(secs(90))]);
    unit.stop.timeout = *dice.pick(&[Duration::ZERO, Duration::from_millis(300), secs(2), secs(20)]);
    unit.stop.leave = dice.percent(8);
    unit.on_end = OnEnd::None;
    if dice.percent(3) && (restart.policy != Policy::Always || restart.limit > 0) {
        unit.on_end = OnEnd::Shutdown;
    }
    let services = unit.kind == Kind::Simple;
    for slot in [&mut unit.liveness, &mut unit.readiness, &mut unit.startup] {
        *slot = (services && dice.percent(25)).then(|| Arc::new(roll_probe(dice)));
    }
}

pub fn roll_probe(dice: &mut Dice) -> Probe {
    let mut probe = Probe::new(Check::Tcp(Endpoint::Port { host: None, port: 80, port_name: None }));
    probe.initial_delay = *dice.pick(&[Duration::ZERO, Duration::ZERO, secs(3)]);
    probe.period = *dice.pick(&[Duration::from_millis(500), secs(1), secs(3), secs(10)]);
    probe.timeout = *dice.pick(&[Duration::from_millis(10), secs(1), secs(4)]);
    probe.success_threshold = *dice.pick(&[1, 1, 3]);
    probe.failure_threshold = *dice.pick(&[1, 3, 5]);
    probe.stop_timeout = dice.percent(30).then(|| dice.wait(secs(5)));
    probe
}

/// A unit in a line.
pub fn shape(unit: &Unit) -> String {
    let (restart, stop) = (&unit.restart, &unit.stop);
    format!(
        "{} {:?}: requires {:?} wants {:?} after {:?}; {:?} limit {} on_end {:?}; stop {:?} leave {}",
        unit.name,
        unit.kind,
        unit.requires,
        unit.wants,
        unit.after,
        restart.policy,
        restart.limit,
        unit.on_end,
        stop.timeout,
        stop.leave
    )
}
