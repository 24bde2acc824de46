//! The probe workers of one run: when an attempt is due, what its outcome counts for, and what follows.
//! The rules are a kubelet's (PROBES sections 1 to 5) with the deviations of section 14.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::input::Outcome;
use super::time::{Mono, Time, Wall};
use crate::unit::{Probe, ProbeKind, Unit};

/// What a probe says of its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Published {
    Success,
    Failure,
    Unknown,
}

impl Published {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Published::Success => "success",
            Published::Failure => "failure",
            Published::Unknown => "unknown",
        }
    }

    fn initial(kind: ProbeKind) -> Published {
        match kind {
            ProbeKind::Liveness => Published::Success,
            ProbeKind::Readiness => Published::Failure,
            ProbeKind::Startup => Published::Unknown,
        }
    }
}

/// One worker: a probe of one kind on one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Worker {
    pub(super) probe: Arc<Probe>,
    kind: ProbeKind,
    /// The first tick that no attempt was made for: start + `initial_delay`, then every `period`. One that
    /// passes while an attempt runs stands here until that ends, however many more pass: that is the one
    /// missed tick which a kubelet's ticker keeps.
    next: Mono,
    pub(super) in_flight: bool,
    /// Reached a threshold that ends it for this run; what it counted is over too (PROBES section 3).
    held: bool,
    pub(super) published: Published,
    /// What the last counted attempts were, and how many in a row.
    pub(super) passing: bool,
    pub(super) consecutive: u32,
    /// The text of the last attempt that did not plainly succeed.
    pub(super) message: String,
    pub(super) last_run: Option<Wall>,
}

impl Worker {
    fn new(kind: ProbeKind, probe: &Arc<Probe>, started: Mono) -> Worker {
        Worker {
            probe: probe.clone(),
            kind,
            next: started + probe.initial_delay,
            in_flight: false,
            held: false,
            published: Published::initial(kind),
            passing: false,
            consecutive: 0,
            message: String::new(),
            last_run: None,
        }
    }

    /// uphold was started again: an attempt that was in flight came to nothing.
    fn resume(&mut self, now: Mono, late: f64) {
        self.in_flight = false;
        if self.next <= now {
            self.next = now + self.probe.period.mul_f64(late);
        }
    }

    /// All ticks up to `now`, or only those before it, are done with.
    fn skip(&mut self, now: Mono, and_now: bool) {
        if self.next < now || (and_now && self.next == now) {
            let period = u64::try_from(self.probe.period.as_nanos()).unwrap_or(u64::MAX).max(1);
            let behind = now.0 - self.next.0;
            let ticks = if and_now { behind / period + 1 } else { behind.div_ceil(period) };
            self.next = Mono(self.next.0.saturating_add(ticks.saturating_mul(period)));
        }
    }

    /// Counts an outcome; true when it moved what is published to or beyond a threshold.
    fn count(&mut self, now: Time, outcome: &Outcome) -> bool {
        self.in_flight = false;
        self.last_run = Some(now.wall);
        let passed = match outcome {
            Outcome::Success => true,
            Outcome::Warning(_) => true,
            Outcome::Failure(_) => false,
            Outcome::Error(text) => {
                self.message.clone_from(text);
                return false;
            }
        };
        self.message = match outcome {
            Outcome::Success => String::new(),
            Outcome::Warning(text) | Outcome::Failure(text) | Outcome::Error(text) => text.clone(),
        };
        self.consecutive = if self.passing == passed { self.consecutive.saturating_add(1) } else { 1 };
        self.passing = passed;
        let threshold = if passed { self.probe.success_threshold } else { self.probe.failure_threshold };
        if self.consecutive < threshold {
            return false;
        }
        self.published = if passed { Published::Success } else { Published::Failure };
        match (self.kind, passed) {
            (ProbeKind::Liveness, false) | (ProbeKind::Startup, true | false) => {
                self.held = true;
                self.consecutive = 0;
            }
            (ProbeKind::Liveness, true) | (ProbeKind::Readiness, true | false) => {}
        }
        true
    }
}

/// What an outcome leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing, but what is published may be new.
    Nothing,
    /// Kill the process: this probe has failed for good.
    Kill,
}

/// The workers of one run. Exists once its process does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Workers {
    started: Mono,
    /// Startup has succeeded, or there is none: the gate for the others.
    pub(super) open: bool,
    startup: Option<Worker>,
    liveness: Option<Worker>,
    readiness: Option<Worker>,
}

impl Workers {
    pub(super) fn new(unit: &Unit, started: Mono) -> Workers {
        let worker = |kind| unit.probe(kind).map(|probe| Worker::new(kind, probe, started));
        Workers {
            started,
            open: unit.startup.is_none(),
            startup: worker(ProbeKind::Startup),
            liveness: worker(ProbeKind::Liveness),
            readiness: worker(ProbeKind::Readiness),
        }
    }

    /// uphold was started again. What is overdue is tried after this share of its period.
    pub(super) fn resume(&mut self, now: Mono, late: f64) {
        for kind in KINDS {
            if let Some(worker) = self.slot(kind) {
                worker.resume(now, late);
            }
        }
    }

    pub(super) fn get(&self, kind: ProbeKind) -> Option<&Worker> {
        match kind {
            ProbeKind::Startup => self.startup.as_ref(),
            ProbeKind::Liveness => self.liveness.as_ref(),
            ProbeKind::Readiness => self.readiness.as_ref(),
        }
    }

    fn slot(&mut self, kind: ProbeKind) -> &mut Option<Worker> {
        match kind {
            ProbeKind::Startup => &mut self.startup,
            ProbeKind::Liveness => &mut self.liveness,
            ProbeKind::Readiness => &mut self.readiness,
        }
    }

    /// The worker may run: before startup's success only startup does, after it all but startup.
    fn runs(&self, kind: ProbeKind) -> bool {
        match kind {
            ProbeKind::Startup => !self.open,
            ProbeKind::Liveness | ProbeKind::Readiness => self.open,
        }
    }

    /// Ready, where there is a readiness probe to say so.
    pub(super) fn ready(&self) -> Option<bool> {
        self.readiness.as_ref().map(|worker| self.open && worker.published == Published::Success)
    }

    /// When the next attempt is due. None is due while one is in flight: the tick that it misses is made
    /// good when it ends.
    pub(super) fn deadline(&self) -> Option<Mono> {
        let due = |worker: &Worker| {
            (self.runs(worker.kind) && !worker.in_flight && !worker.held).then_some(worker.next)
        };
        KINDS.into_iter().filter_map(|kind| self.get(kind).and_then(due)).min()
    }

    /// The attempts that are due; each is in flight from now on.
    pub(super) fn due(&mut self, now: Mono) -> Vec<(ProbeKind, Arc<Probe>)> {
        let mut due = Vec::new();
        for kind in KINDS {
            if !self.runs(kind) {
                continue;
            }
            let Some(worker) = self.slot(kind) else { continue };
            if worker.in_flight || worker.held || worker.next > now {
                continue;
            }
            worker.in_flight = true;
            worker.skip(now, true);
            due.push((kind, worker.probe.clone()));
        }
        due
    }

    /// An attempt ended. `None`: nobody asked for it (any more).
    pub(super) fn probed(&mut self, now: Time, kind: ProbeKind, outcome: &Outcome) -> Option<Verdict> {
        let worker = self.slot(kind).as_mut().filter(|worker| worker.in_flight)?;
        let reached = worker.count(now, outcome);
        match (kind, worker.published) {
            (ProbeKind::Liveness | ProbeKind::Startup, Published::Failure) if reached => Some(Verdict::Kill),
            (ProbeKind::Startup, Published::Success) if reached => {
                self.pass_gate(now.mono);
                Some(Verdict::Nothing)
            }
            (
                ProbeKind::Startup | ProbeKind::Liveness | ProbeKind::Readiness,
                Published::Success | Published::Failure | Published::Unknown,
            ) => Some(Verdict::Nothing),
        }
    }

    /// Startup has succeeded. Liveness goes on with its next tick; readiness is tried at once, and its ticks
    /// start afresh from there (PROBES section 2), but neither before its own delay.
    fn pass_gate(&mut self, now: Mono) {
        self.open = true;
        if let Some(liveness) = &mut self.liveness {
            liveness.skip(now, false);
        }
        if let Some(readiness) = &mut self.readiness {
            readiness.next = readiness.next.max(now);
        }
    }

    /// The process is being stopped: liveness and startup end without a word, readiness goes on. The
    /// attempts in flight are given up; these are their kinds.
    pub(super) fn quiet(&mut self) -> Vec<ProbeKind> {
        let cancelled = self.cancel(&KINDS);
        self.startup = None;
        self.liveness = None;
        self.open = true;
        cancelled
    }

    /// The process is gone. The attempts in flight are given up; these are their kinds.
    pub(super) fn end(&mut self) -> Vec<ProbeKind> {
        let cancelled = self.cancel(&KINDS);
        (self.startup, self.liveness, self.readiness) = (None, None, None);
        cancelled
    }

    /// The unit's probes were changed under a living process. What was published stays until the new probe
    /// says otherwise; a startup probe that comes after the start is for the next process.
    pub(super) fn update(&mut self, unit: &Unit, now: Mono) -> Vec<ProbeKind> {
        let mut cancelled = Vec::new();
        for kind in KINDS {
            let wanted = unit.probe(kind).filter(|_| kind != ProbeKind::Startup || !self.open);
            if self.get(kind).map(|worker| &worker.probe) == wanted {
                continue;
            }
            cancelled.extend(self.cancel(&[kind]));
            let started = self.started;
            let old = self.slot(kind).take();
            *self.slot(kind) = wanted.map(|probe| {
                let mut worker = Worker::new(kind, probe, started);
                worker.skip(now, false);
                if let Some(old) = old {
                    worker.published = old.published;
                }
                worker
            });
        }
        if self.startup.is_none() && !self.open {
            self.pass_gate(now);
        }
        cancelled
    }

    fn cancel(&mut self, kinds: &[ProbeKind]) -> Vec<ProbeKind> {
        let mut cancelled = Vec::new();
        for kind in kinds {
            if let Some(worker) = self.slot(*kind)
                && worker.in_flight
            {
                worker.in_flight = false;
                cancelled.push(*kind);
            }
        }
        cancelled
    }
}

const KINDS: [ProbeKind; 3] = [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness];
