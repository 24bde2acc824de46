//! The sentences of events, messages and answers: each said in one place.

use std::time::Duration;

use super::input::{Exit, Outcome};
use super::instance::{Ended, Final, How, Idle, Instance};
use super::view::ExitReason;
use crate::unit::{Name, Policy, ProbeKind, Unit};

/// `exit 1`, `killed by SIGSEGV`.
pub(super) fn exit(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit {code}"),
        Exit::Signal { signal, oom: false } => format!("killed by {}", signal.name()),
        Exit::Signal { signal, oom: true } => format!("killed by {}, out of memory", signal.name()),
        Exit::Unknown => "ended, and nobody saw how".to_owned(),
    }
}

impl Exit {
    /// The same.
    pub fn words(self) -> String {
        exit(self)
    }
}

/// How a run ended, in a sentence: `exit 1 after 0.3s`.
pub(super) fn ended(name: &Name, ended: &Ended) -> String {
    let how = match &ended.how {
        How::NotStarted(failure) => {
            return format!("cannot start {name}: {} failed: {}", failure.stage, failure.message);
        }
        How::Exit(how) => *how,
    };
    let after = length(ended.lived);
    // `grep -q` and the like say nothing.
    let said = match ended.said.as_deref() {
        None | Some("") => " (no output)".to_owned(),
        Some(said) => format!(": {said}"),
    };
    match (ended.reason, how) {
        (ExitReason::LivenessFailed, _) => format!("killed after {after}: liveness probe failed{said}"),
        (ExitReason::StartupFailed, _) => format!("killed after {after}: startup probe failed{said}"),
        (_, Exit::Code(code)) if ended.left > 0 => {
            let left = processes(ended.left);
            format!("exited {code} after {after} and left {left}: does it daemonise?")
        }
        (_, how) => format!("{} after {after}", exit(how)),
    }
}

/// Why it is not restarted, with how it ended.
pub(super) fn final_end(instance: &Instance, reason: Final) -> String {
    let ended = instance.ended.as_ref().map(|last| ended(&instance.name, last)).unwrap_or_default();
    match reason {
        Final::RestartLimit => {
            format!(
                "{ended}, and restart.limit allows no more than {}",
                restarts(instance.unit.restart.limit)
            )
        }
        Final::ExceptCode => format!("{ended}, which restart.except_codes says not to try again"),
        Final::Policy(_) => ended,
    }
}

fn restarts(n: u32) -> String {
    if n == 1 { "1 restart in a run".to_owned() } else { format!("{n} restarts in a run") }
}

/// `1 failure`, `5 failures`.
pub(super) fn failures(n: u32) -> String {
    if n == 1 { "1 failure".to_owned() } else { format!("{n} failures") }
}

fn processes(n: usize) -> String {
    if n == 1 { "1 process".to_owned() } else { format!("{n} processes") }
}

/// The event that an attempt of a probe makes, if any: reason and text (PROBES section 12).
pub(super) fn attempt(kind: ProbeKind, outcome: &Outcome) -> Option<(&'static str, String)> {
    let probe = match kind {
        ProbeKind::Liveness => "Liveness probe",
        ProbeKind::Readiness => "Readiness probe",
        ProbeKind::Startup => "Startup probe",
    };
    match outcome {
        Outcome::Success => None,
        Outcome::Warning(text) => Some(("ProbeWarning", format!("{probe} warning: {text}"))),
        Outcome::Failure(text) => Some(("Unhealthy", format!("{probe} failed: {text}"))),
        Outcome::Error(text) => Some(("Unhealthy", format!("{probe} errored: {text}"))),
    }
}

/// The event of a kill by a probe; `spent`: `restart.limit` allows no more restarts.
pub(super) fn killed_by_probe(name: &Name, unit: &Unit, kind: ProbeKind, spent: bool) -> String {
    let probe = match kind {
        ProbeKind::Liveness => "liveness",
        ProbeKind::Readiness => "readiness",
        ProbeKind::Startup => "startup",
    };
    let then = match unit.restart.policy {
        Policy::Always | Policy::OnFailure if !spent => ", will be restarted",
        Policy::Always | Policy::OnFailure | Policy::Never => "",
    };
    format!("Process {name} failed {probe} probe{then}")
}

/// What SIGKILL could not end.
pub(super) fn unkillable(name: &Name, pids: &[u32]) -> String {
    if pids.is_empty() {
        return format!("Process {name} does not end, 10s after SIGKILL");
    }
    let list: Vec<String> = pids.iter().map(u32::to_string).collect();
    format!("{} of {name} live on, 10s after SIGKILL: pid {}", processes(pids.len()), list.join(", "))
}

/// Why it is inactive: the API's word, and a sentence.
pub(super) fn idle(idle: Idle) -> (&'static str, &'static str) {
    match idle {
        Idle::NotAutostarted => ("NotAutostarted", "autostart is false and nobody has started it"),
        Idle::StoppedByOperator => ("StoppedByOperator", "stopped by the operator"),
        Idle::Reset => ("StoppedByOperator", "had failed, and was reset by the operator"),
        Idle::Masked => ("Masked", "masked: a symlink to /dev/null stands in place of its file"),
        Idle::ShuttingDown => ("ShuttingDown", "stopped: uphold is shutting down"),
        Idle::Removed => ("Removed", "stopped: its file is gone"),
    }
}

/// A length of time as people write it: `20ms`, `0.3s`, `42s`, `9m59s`, `7h59m`, `7d23h`.
pub(super) fn length(length: Duration) -> String {
    let (seconds, millis) = (length.as_secs(), length.as_millis());
    let two = |big: u64, unit: &str, small: u64, name: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{name}") }
    };
    match seconds {
        0 if millis < 100 => format!("{millis}ms"),
        0..10 if millis.is_multiple_of(1000) => format!("{seconds}s"),
        0..10 => format!("{seconds}.{}s", millis % 1000 / 100),
        10..120 => format!("{seconds}s"),
        120..10_800 => two(seconds / 60, "m", seconds % 60, "s"),
        10_800..172_800 => two(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// `1st`, `2nd`, `3rd`, `11th`.
pub(super) fn ordinal(n: u64) -> String {
    let suffix = match (n % 10, n % 100) {
        (1, tens) if tens != 11 => "st",
        (2, tens) if tens != 12 => "nd",
        (3, tens) if tens != 13 => "rd",
        (_, _) => "th",
    };
    format!("{n}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::input::Run;
    use crate::engine::time::{Mono, Time, Wall};

    #[test]
    fn lengths_are_as_people_write_them() {
        let written = |millis| length(Duration::from_millis(millis));
        let expected =
            ["0ms", "20ms", "0.3s", "1s", "9.9s", "42s", "119s", "2m", "9m59s", "3h", "7h59m", "2d"];
        let lengths =
            [0, 20, 300, 1000, 9999, 42_100, 119_000, 120_000, 599_000, 10_800_000, 28_740_000, 172_800_000];
        assert_eq!(lengths.map(written), expected);
    }

    #[test]
    fn a_probe_that_says_nothing_leaves_no_gap_in_the_sentence() {
        let killed = |said: Option<&str>| {
            ended(
                &Name::new("web").unwrap(),
                &Ended {
                    run: Run(1),
                    how: How::Exit(Exit::Code(0)),
                    reason: ExitReason::LivenessFailed,
                    at: Time { mono: Mono(0), wall: Wall::from_nanos(0) },
                    lived: Duration::from_millis(600),
                    left: 0,
                    said: said.map(str::to_owned),
                },
            )
        };
        assert_eq!(killed(Some("EOF")), "killed after 0.6s: liveness probe failed: EOF");
        for nothing in [None, Some("")] {
            assert_eq!(killed(nothing), "killed after 0.6s: liveness probe failed (no output)");
        }
    }

    #[test]
    fn ordinals_know_eleven_to_thirteen() {
        assert_eq!(
            [1, 2, 3, 4, 11, 12, 13, 21, 112].map(ordinal).join(" "),
            "1st 2nd 3rd 4th 11th 12th 13th 21st 112th"
        );
    }
}
