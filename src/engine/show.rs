//! The engine as people see it: views, and the answer to "why is it not up".

use super::instance::{How, Idle, Instance, Life, Next, Phase, State, Stopping, Why};
use super::probes::{Published, Worker};
use super::time::Time;
use super::view::{ExitReason, ProbeView, Probes, StateName, View};
use super::{Engine, Facts, words};
use crate::unit::{Kind, Name, ProbeKind};

impl Engine {
    /// One instance as the API shows it.
    pub fn view(&self, now: Time, instance: &Name, facts: Facts) -> Option<View> {
        let instance = self.instances.get(instance)?;
        let unit = &instance.unit;
        let main = instance.main();
        let (reason, message) = self.why(now, instance, facts.last_line.as_deref());
        let probe = |kind| self.probe_view(instance, kind);
        let files = self.plan.units().get(&instance.name).map(|planned| planned.loaded.files.as_slice());
        Some(View {
            name: instance.name.clone(),
            unit: unit.name.clone(),
            instance: None,
            description: unit.description.clone(),
            kind: match unit.kind {
                Kind::Simple => "simple",
                Kind::Oneshot => "oneshot",
                Kind::Group => "group",
            }
            .to_owned(),
            state: instance.state_name(),
            wanted: instance.wanted,
            ready: instance.ready(),
            up: instance.is_up(),
            pid: main.map(|(_, born)| born.pid),
            since: instance.since.wall,
            started_at: main.map(|(_, born)| born.at.wall),
            uptime_seconds: main.map(|(life, _)| life.age(now.mono).as_secs_f64()),
            restarts: instance.restarts,
            next_start_at: match &instance.state {
                State::Backoff(pause) if !self.passed_by.contains(&instance.name) => {
                    Some(now.wall.after(pause.until - now.mono))
                }
                State::Backoff(_)
                | State::Inactive(_)
                | State::Waiting(_)
                | State::Starting(_)
                | State::Running(_)
                | State::Assembled
                | State::Stopping(_)
                | State::Failed(_)
                | State::Completed => None,
            },
            reason,
            message,
            last_exit: instance.exits.back().cloned(),
            exits: instance.exits.iter().cloned().collect(),
            probes: Probes {
                liveness: probe(ProbeKind::Liveness),
                readiness: probe(ProbeKind::Readiness),
                startup: probe(ProbeKind::Startup),
            },
            changed_on_disk: facts.changed_on_disk,
            restart_needed: instance.pending.is_some(),
            removed: instance.removed,
            memory_bytes: facts.memory_bytes,
            cpu_seconds: facts.cpu_seconds,
            tasks: facts.tasks,
            unit_file: files.and_then(|files| files.first()).map(|file| file.display().to_string()),
            command: unit.command.clone(),
            output: facts.output,
            stops: Vec::new(),
            start_timeout_seconds: unit.start_timeout.map(|limit| limit.as_secs_f64()),
            stop_timeout_seconds: unit.stop.timeout.as_secs_f64(),
        })
    }

    fn probe_view(&self, instance: &Instance, kind: ProbeKind) -> Option<ProbeView> {
        let probe = instance.unit.probe(kind)?;
        let born = instance.main().map(|(_, born)| born);
        let worker = born.and_then(|born| born.workers.get(kind));
        let result = match (worker, born) {
            (Some(worker), _) => worker.published,
            // It said so, or the process is on its way out: both end a worker in silence.
            (None, Some(_)) => Published::Success,
            (None, None) => Published::Failure,
        };
        Some(ProbeView {
            spec: probe.spec(),
            result: result.as_str().to_owned(),
            consecutive: worker.map(|worker| worker.consecutive).unwrap_or_default(),
            message: worker.map(|worker| worker.message.clone()).unwrap_or_default(),
            last_run_at: worker.and_then(|worker| worker.last_run),
        })
    }

    /// Why it is not as it should be, in a sentence; where it is, what it is.
    pub(super) fn why_not(&self, now: Time, name: &Name) -> String {
        let Some(instance) = self.instances.get(name) else { return "gone: its file is".to_owned() };
        let (_, message) = self.why(now, instance, None);
        message.unwrap_or_else(|| instance.state_name().as_str().to_owned())
    }

    /// `reason` and `message`.
    fn why(
        &self,
        now: Time,
        instance: &Instance,
        last_line: Option<&str>,
    ) -> (Option<String>, Option<String>) {
        let reason = instance.reason();
        let message = reason.and_then(|_| self.message(now, instance, last_line));
        if self.passed_by.contains(&instance.name) {
            let off = "its probes, restarts after backoff and timeouts are off until `uphold ctl upgrade`: uphold has \
                       crashed twice on a timer of it";
            let message = message.map_or_else(|| off.to_owned(), |message| format!("{off}; {message}"));
            return (reason.map(str::to_owned), Some(message));
        }
        (reason.map(str::to_owned), message)
    }

    fn message(&self, now: Time, instance: &Instance, last_line: Option<&str>) -> Option<String> {
        Some(match &instance.state {
            State::Inactive(idle) => {
                let (_, message) = match idle {
                    Idle::NotAutostarted if instance.unit.autostart => {
                        return Some("autostart came with a reload; nobody has started it".to_owned());
                    }
                    idle => words::idle(*idle),
                };
                let failed =
                    instance.ended.as_ref().filter(|ended| *idle == Idle::Reset && !ended.succeeded());
                match failed {
                    Some(ended) => format!("{message}: {}", words::ended(&instance.name, ended)),
                    None => message.to_owned(),
                }
            }
            State::Waiting(waiting) => {
                let on = waiting.on.as_ref().and_then(|name| self.instances.get(name));
                match on {
                    Some(on) => format!("waits for {}: {}", on.name, self.briefly(now, on)),
                    None => "about to start".to_owned(),
                }
            }
            State::Starting(life) => {
                let text = starting(instance, life);
                if life.late {
                    let limit = words::length(instance.unit.start_timeout.unwrap_or_default());
                    format!("not up after {limit}: {text}")
                } else {
                    text
                }
            }
            State::Running(life) => unready(life),
            State::Assembled => return None,
            State::Stopping(stopping) => stopping_words(instance, stopping),
            State::Backoff(pause) => {
                let ended = instance.ended.as_ref()?;
                let next = words::length(pause.until - now.mono);
                let how = words::ended(&instance.name, ended);
                let text = if self.passed_by.contains(&instance.name) {
                    how
                } else if pause.counts {
                    let nth = words::ordinal(instance.restarts.saturating_add(1));
                    format!("{how}, {nth} restart, next in {next}")
                } else {
                    format!("{how}, tried again in {next}")
                };
                with_line(text, instance, last_line)
            }
            State::Failed(reason) => with_line(words::final_end(instance, *reason), instance, last_line),
            State::Completed => match &instance.ended {
                Some(ended) => words::ended(&instance.name, ended),
                None => "completed".to_owned(),
            },
        })
    }

    /// What a dependent waits for.
    fn briefly(&self, now: Time, on: &Instance) -> String {
        match &on.state {
            State::Starting(life) => starting(on, life),
            State::Failed(reason) => format!("failed: {}", words::final_end(on, *reason)),
            State::Completed => "it has completed".to_owned(),
            State::Running(_) | State::Assembled => "up".to_owned(),
            State::Waiting(waiting) => match &waiting.on {
                Some(name) => format!("it waits for {name}"),
                None => "about to start".to_owned(),
            },
            State::Inactive(_) | State::Stopping(_) | State::Backoff(_) => {
                self.why(now, on, None).1.unwrap_or_default()
            }
        }
    }
}

fn with_line(text: String, instance: &Instance, last_line: Option<&str>) -> String {
    let ran = matches!(instance.ended.as_ref().map(|ended| &ended.how), Some(How::Exit(_)));
    match last_line.filter(|line| ran && !line.is_empty()) {
        Some(line) => format!("{text}: {line}"),
        None => text,
    }
}

fn starting(instance: &Instance, life: &Life) -> String {
    let Some(born) = &life.born else { return "being spawned".to_owned() };
    let failing = |kind| born.workers.get(kind).map(attempts);
    match instance.unit.kind {
        Kind::Oneshot => "still running".to_owned(),
        Kind::Simple | Kind::Group => match failing(ProbeKind::Startup).filter(|_| !born.workers.open) {
            Some(text) => format!("not started{text}"),
            None => match failing(ProbeKind::Readiness) {
                Some(text) => format!("not ready{text}"),
                None => format!("up once it has run for {}", words::length(instance.unit.up_after)),
            },
        },
    }
}

fn unready(life: &Life) -> String {
    let worker = life.born.as_ref().and_then(|born| born.workers.get(ProbeKind::Readiness));
    format!("not ready{}", worker.map(attempts).unwrap_or_default())
}

/// ` (HTTP probe failed with statuscode: 503)`
fn attempts(worker: &Worker) -> String {
    match (&worker.last_run, worker.message.as_str()) {
        (None, _) => " (its probe has not run yet)".to_owned(),
        (Some(_), "") if worker.passing => {
            format!(" ({} of {} successes)", worker.consecutive, worker.probe.success_threshold)
        }
        // `grep -q` and the like say nothing.
        (Some(_), "") => format!(" ({}, no output)", words::failures(worker.consecutive)),
        (Some(_), text) => format!(" ({text})"),
    }
}

fn stopping_words(instance: &Instance, stopping: &Stopping) -> String {
    match (&stopping.phase, &stopping.ended) {
        (Phase::Unkillable { pids }, _) => words::unkillable(&instance.name, pids),
        (Phase::Holding, _) => "waits for those that require it to stop first".to_owned(),
        (_, Some(ended)) => words::ended(&instance.name, ended),
        (Phase::Killed { .. } | Phase::Surveyed { .. }, None) => "was sent SIGKILL".to_owned(),
        (Phase::Unborn { .. }, None) => "is being spawned, and stopped then".to_owned(),
        (Phase::Told { .. } | Phase::Looking { .. } | Phase::Rest { .. }, None) => {
            format!("was sent {}", instance.unit.stop.signal.name())
        }
    }
}

impl Stopping {
    fn reason(&self) -> &'static str {
        match (&self.phase, self.next, self.why) {
            (Phase::Unkillable { .. }, _, _) => "Unkillable",
            (_, Next::Inactive(idle), _) => words::idle(idle).0,
            (_, Next::Again, _) => "Restarting",
            (_, Next::Policy, Why::Probe(ProbeKind::Startup)) => "StartupFailed",
            (_, Next::Policy, Why::Probe(ProbeKind::Liveness | ProbeKind::Readiness)) => "LivenessFailed",
            (_, Next::Policy, Why::Itself | Why::Asked) => "Ended",
        }
    }
}

impl Instance {
    /// Why it is not as it should be, in a word; nothing where it is.
    pub(super) fn reason(&self) -> Option<&'static str> {
        match &self.state {
            State::Inactive(idle) => Some(words::idle(*idle).0),
            State::Waiting(waiting) if waiting.blocked => Some("DependencyFailed"),
            State::Waiting(_) => Some("DependencyNotUp"),
            State::Starting(life) if life.late => Some("StartTimeout"),
            State::Starting(_) => Some("Starting"),
            State::Running(_) => (self.ready() == Some(false)).then_some("NotReady"),
            State::Assembled => None,
            State::Stopping(stopping) => Some(stopping.reason()),
            State::Backoff(_) => self.ended.as_ref().map(|ended| match ended.reason {
                ExitReason::SpawnFailed => "SpawnFailed",
                ExitReason::LivenessFailed => "LivenessFailed",
                ExitReason::StartupFailed => "StartupFailed",
                ExitReason::Completed
                | ExitReason::Error
                | ExitReason::Killed
                | ExitReason::OOMKilled
                | ExitReason::Stopped
                | ExitReason::Unknown => "CrashLoopBackOff",
            }),
            State::Failed(reason) => Some(reason.as_str()),
            State::Completed => (!self.is_up()).then_some("Completed"),
        }
    }

    pub(super) fn state_name(&self) -> StateName {
        match &self.state {
            State::Inactive(_) => StateName::Inactive,
            State::Waiting(_) => StateName::Waiting,
            State::Starting(_) => StateName::Starting,
            State::Running(_) | State::Assembled => StateName::Running,
            State::Stopping(_) => StateName::Stopping,
            State::Backoff(_) => StateName::Backoff,
            State::Failed(_) => StateName::Failed,
            State::Completed => StateName::Completed,
        }
    }
}
