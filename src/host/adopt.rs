//! Taking over what an uphold before has started, after it was killed or has become this one by an exec.
//!
//! A process is ours if it is our child of the recorded pid, or if its start is the recorded one, by uphold or by
//! itself before its exec; where neither could be, if it is in the run's cgroup or carries its UPHOLD_RUN. Nothing
//! else ever gets a signal. What may be ours, and cannot be told, keeps its instance from a second main process.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::cgroup::{Base, Leaf};
use super::exec::PROBES;
use super::fifo::Existing;
use super::identity::Identity;
use super::kin::{self, Kin};
use super::launch::{marker, probe_marker, stem};
use super::left::named;
use super::patience::patiently;
use super::prepare::Failed;
use super::runs::{FoundBy, Living, Main};
use super::slots::{Record, Slot};
use super::store::{self, Part, Stored};
use super::{Captured, Host, Key, News, Order, Role, Stream, Wake, fifo, reexec, sys};
use nix::errno::Errno;

use crate::engine::{Exit, Run, SoFar, Taken};
use crate::task;
use crate::unit::Signal;

/// How long the reaper of a process that is no child of uphold may take before its status counts as unseen.
const REAPED: Duration = Duration::from_millis(100);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(2);
/// How often is looked whether a process lives that nothing tells of.
const AGAIN: Duration = Duration::from_secs(1);

/// The pid of a main process of which nothing is known: no kernel gives it to anyone, nor to a group.
const NOBODY: i32 = i32::MAX;

/// What became of a main process.
enum Found {
    /// It lives, or is a zombie that this uphold reaps.
    Child,
    /// It lives, and somebody else reaps it.
    Other(Other),
    /// The same, and the service manager has kept its pidfd since it was started.
    Kept(Other),
    /// It is gone.
    Ended(Exit),
}

/// A process that is no child of uphold, and is not taken for another one of its pid.
#[derive(Debug)]
pub(super) struct Other {
    pid: i32,
    /// Field 22 of /proc/PID/stat.
    start: u64,
    /// `None`: a kernel before 5.3, or too many open files. It is then looked at now and then.
    pidfd: Option<OwnedFd>,
    /// It is what it is taken for. Else nobody can tell, and it gets no signal.
    proven: bool,
}

/// Whether a process is the one that was looked for.
enum Proof {
    /// It is.
    Same,
    /// It has its pid, and is another one.
    Stranger,
    /// Nothing tells.
    None,
}

impl Other {
    /// The pidfd comes first: what is compared afterwards is the process that it holds. `None`: it is gone, or
    /// never was what is looked for. `is_it` gets its start, if that can be looked at: what cannot is not gone.
    fn find(record: &Record, is_it: &dyn Fn(Option<u64>) -> Proof) -> Option<Other> {
        let pid = record.pid;
        let pidfd = match sys::pidfd_open(pid) {
            Ok(pidfd) => Some(pidfd),
            Err(Errno::ESRCH) => return None,
            Err(_) => None,
        };
        let start = match patiently(|| kin::proc(pid)) {
            Ok(Some(found)) => Some(found.start),
            // It is hidden (hidepid of proc(5)), or has ended since.
            Ok(None) if pidfd.as_ref().is_some_and(sys::pidfd_lives) => None,
            Ok(None) => return None,
            Err(_) => None,
        };
        let proven = match is_it(start) {
            Proof::Same => true,
            Proof::Stranger => return None,
            Proof::None => false,
        };
        Some(Other { pid, start: start.unwrap_or(record.start), pidfd, proven })
    }

    pub(super) fn is_proven(&self) -> bool {
        self.proven
    }

    pub(super) fn lives(&self) -> bool {
        match &self.pidfd {
            Some(pidfd) => sys::pidfd_lives(pidfd),
            None => kin::proc(self.pid)
                .map_or(true, |found| found.is_some_and(|found| found.start == self.start && !found.zombie)),
        }
    }

    pub(super) fn strike(&self, signal: Signal) {
        match &self.pidfd {
            _ if !self.proven => {}
            Some(pidfd) => drop(sys::pidfd_kill(pidfd, signal)),
            None if self.lives() => drop(sys::kill(self.pid, signal)),
            None => {}
        }
    }

    /// Waits for its end: how it was, if the kernel tells.
    async fn ended(self) -> Exit {
        let waited = self.pidfd.as_ref().and_then(|pidfd| pidfd.try_clone().ok());
        if let Some(Ok(ended)) = waited.map(sys::readable) {
            drop(ended.readable().await);
        }
        while self.lives() {
            tokio::time::sleep(AGAIN).await;
        }
        // How a stranger has ended says nothing.
        let Some(pidfd) = self.pidfd.as_ref().filter(|_| self.proven) else { return Exit::Unknown };
        let mut left = REAPED;
        loop {
            match sys::pidfd_exit(pidfd) {
                Some(exit) => return exit,
                None if left.is_zero() => return Exit::Unknown,
                None => tokio::time::sleep(LOOK).await,
            }
            left = left.saturating_sub(LOOK);
        }
    }
}

impl Host {
    /// Takes over a run. For one that was ordered and not begun, `Spawned` or `SpawnFailed` follows as after
    /// [`spawn`](Host::spawn), and `SpawnFailed` if it was to be stopped since; for every other `Resumed`, and what
    /// there is to say of it since. `stored`: what a service manager has kept, of which this run's is taken.
    pub fn adopt(&mut self, taken: Taken, foreground: bool, stored: &mut Stored) {
        let Taken { instance, run, unit, so_far } = taken;
        let order = Order { instance, run, unit, foreground };
        let slot = self.slots.get(run);
        let begun = slot.map(|slot| looked_at(slot, slot.record())).filter(|record| record.pid != 0);
        let unseen = slot.is_some_and(|slot| slot.record().start == 0);
        let ordered = matches!(so_far, SoFar::Ordered | SoFar::Revoked);
        if ordered && begun.is_none() {
            // The kernel writes the pid before the child may run: there was no child.
            return self.begin(order, so_far);
        }
        let order = match begun.filter(|_| ordered && unseen) {
            Some(record) => match self.brood(order, so_far, &record, stored) {
                Some(order) => order,
                None => return,
            },
            None => order,
        };
        let key: Key = (order.instance.clone(), run);
        let stem = stem(&order.instance, run);
        let leaf = self.leaf_of_before(&order, &stem);
        let pid = begun.map_or(NOBODY, |record| record.pid);
        let pidfd = stored.take(run, Part::Pid);
        let found = match (begun, so_far) {
            (_, SoFar::Ended) | (None, _) => Found::Ended(Exit::Unknown),
            (Some(record), SoFar::Ordered | SoFar::Revoked | SoFar::Born) => {
                self.find(&order, &record, leaf.as_ref(), pidfd)
            }
        };
        let start = match &found {
            Found::Child => kin::started(pid),
            Found::Other(other) if other.proven => other.start,
            Found::Other(_) | Found::Kept(_) | Found::Ended(_) => 0,
        };
        let begun = match slot.filter(|_| unseen) {
            // It is proven to be the run's by now, and the next uphold is to know it at once.
            Some(slot) if start != 0 => {
                slot.born(pid, start, kin::owner(pid));
                Some(slot.record())
            }
            Some(_) | None => begun,
        };
        let lives = matches!(found, Found::Child | Found::Other(_) | Found::Kept(_)).then_some(pid);
        match (slot, &found) {
            (Some(slot), Found::Child | Found::Kept(_)) => slot.see(),
            (Some(slot), Found::Other(other)) if other.proven => slot.see(),
            // Should this image crash before that is recorded, the next one knows it, too.
            (Some(slot), Found::Ended(exit)) if *exit != Exit::Unknown => slot.ended(*exit),
            (Some(_) | None, _) => {}
        }
        let output = self.reopen(&order, &stem, stored, lives);
        let process = || match &found {
            Found::Child => sys::pidfd_open(pid).ok(),
            // What a manager keeps is taken for proven.
            Found::Other(other) if other.proven => other.pidfd.as_ref().and_then(|fd| fd.try_clone().ok()),
            // The image before had it, and what that gave to a manager was taken from it.
            Found::Kept(other) if reexec::goes_on() => {
                other.pidfd.as_ref().and_then(|fd| fd.try_clone().ok())
            }
            Found::Other(_) | Found::Kept(_) | Found::Ended(_) => None,
        };
        let deposits = self.deposits(run, process, &output);
        let fifos = output.iter().filter_map(|captured| captured.path.clone()).collect();
        self.say(News::Resumed { instance: order.instance.clone(), run, output, deposits });
        if ordered {
            let (instance, pid) = (order.instance.clone(), pid.cast_unsigned());
            let (output, deposits) = (Vec::new(), Vec::new());
            self.say(News::Spawned { instance, run, pid, output, deposits });
        }
        let watched = leaf.as_ref().and_then(|leaf| self.watch_leaf(leaf));
        let marker = (!foreground).then(|| marker(&order, &self.settings.token));
        let unproven = matches!(&found, Found::Other(other) if !other.proven);
        if unproven {
            self.say_unproven(&order, pid);
        }
        let uid = || Identity::of(&order.unit).map_or(0, |identity| identity.uid);
        let mut found_by = match (leaf, begun.filter(|_| !unproven), marker) {
            (Some(leaf), _, _) => FoundBy::Cgroup(leaf),
            (None, Some(record), marker) => {
                // Who it ran as is not on record where uphold did not live to look.
                let uid = if record.uid == 0 { uid() } else { record.uid };
                let kin = Kin::since(pid, record.start, !foreground, uid, marker.as_deref());
                let ended = matches!(&found, Found::Ended(_));
                let unseen = ended && !slot.is_some_and(Slot::is_seen);
                FoundBy::Kin(if unseen { kin.unseen(fifos) } else { kin })
            }
            // Which process it was is lost, or may be a stranger by now. What carries its marker is left of it, and
            // ended before another run.
            (None, None, Some(marker)) => FoundBy::Kin(Kin::since(NOBODY, 0, false, uid(), Some(&marker))),
            (None, None, None) if unproven => FoundBy::Kin(Kin::since(NOBODY, 0, false, 0, None)),
            // Nothing is known of it: nothing is left of it.
            (None, None, None) => {
                self.say_over(key, so_far);
                return;
            }
        };
        if let FoundBy::Kin(kin) = &mut found_by {
            self.keep_kin(kin, &stem, true);
        }
        let (main, main_alive, ended) = match found {
            Found::Child => (Main::Child, true, None),
            Found::Other(other) | Found::Kept(other) => {
                self.watch_end(&key, &other);
                self.note_process(run, &other);
                (Main::Other(other), true, None)
            }
            Found::Ended(exit) => (Main::Child, so_far != SoFar::Ended, Some(exit)),
        };
        if matches!((&main, ended), (Main::Child, None)) {
            self.children.insert(pid, Role::Main(key.clone()));
        }
        let living = Living {
            pid,
            main,
            main_alive,
            leave: order.unit.stop.leave,
            found_by,
            said_left: false,
            watched,
            watch: None,
        };
        self.runs.insert(key.clone(), living);
        match (ended, so_far) {
            (_, SoFar::Ended) if order.unit.stop.leave => self.emptied(&key),
            (_, SoFar::Ended) => self.settle(&key),
            (Some(exit), SoFar::Ordered | SoFar::Revoked | SoFar::Born) => self.main_exited(key, exit),
            (None, SoFar::Ordered | SoFar::Revoked | SoFar::Born) => {}
        }
    }

    /// An ordered run has not begun. It does now, unless it is to be stopped.
    pub(super) fn begin(&mut self, order: Order, so_far: SoFar) {
        self.slots.release(order.run);
        if so_far != SoFar::Revoked {
            return self.spawn(order);
        }
        // What there was of it for a child.
        let stem = stem(&order.instance, order.run);
        if let Some(leaf) = self.base.as_ref().and_then(|base| base.existing_leaf(&stem)) {
            leaf.remove();
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            if let Some(dir) = &self.settings.private {
                let _ = std::fs::remove_file(dir.join(fifo::name(&stem, stream)));
            }
        }
        let mut failure =
            Failed::plain("waiting for its turn", "it was to be stopped before it had begun".to_owned());
        failure.passing = true;
        self.say(News::SpawnFailed { instance: order.instance, run: order.run, failure });
    }

    /// The runs of main processes that something is kept of.
    pub fn known(&self) -> HashSet<Run> {
        self.slots.runs().into_iter().filter(|run| run.0 & PROBES == 0).collect()
    }

    /// Main processes of these runs that live, for all that is proven by their starts, in words; `None`: there are none.
    pub fn living(&self, runs: &HashSet<Run>) -> Option<String> {
        let mut pids = Vec::new();
        for slot in runs.iter().filter_map(|run| self.slots.get(*run)) {
            let record = looked_at(slot, slot.record());
            let lives = |found: kin::Proc| found.start == record.start && !found.zombie;
            if record.pid > 0 && kin::proc(record.pid).ok().flatten().is_some_and(lives) {
                pids.push(record.pid);
            }
        }
        named(Ok(pids))
    }

    /// After all runs were taken over, which are these: probes of before are ended, what else was recorded is
    /// forgotten, but for what is `needed` still, and what has ended meanwhile is heard of.
    pub fn adopted(&mut self, wanted: &HashSet<Run>, needed: &HashSet<Run>, stored: &mut Stored) {
        for run in self.slots.runs() {
            let Some(record) = self.slots.get(run).map(|slot| looked_at(slot, slot.record())) else {
                continue;
            };
            if run.0 & PROBES != 0 {
                // Its attempt is nobody's any more. It leads a session, so a group.
                end_stray(&record, &self.settings.token);
                self.slots.release(run);
            } else if !wanted.contains(&run) && !needed.contains(&run) {
                self.slots.release(run);
            }
        }
        self.resume_leftovers(wanted, stored);
        self.discard_leaves(wanted);
        self.reap();
    }

    /// Cgroups of runs that were over, of which something lived or nobody knew.
    fn discard_leaves(&mut self, wanted: &HashSet<Run>) {
        for (stem, leaf) in self.base.as_ref().map(Base::leaves).unwrap_or_default() {
            if !is_of(&stem, wanted) {
                self.discard(leaf);
            }
        }
        self.collect_garbage();
    }

    /// Output of runs that were over, but not read to its end.
    fn resume_leftovers(&self, wanted: &HashSet<Run>, stored: &mut Stored) {
        let dir = self.settings.private.as_deref();
        let files = dir.and_then(|dir| std::fs::read_dir(dir).ok()).into_iter().flatten().flatten();
        let mut all = stored.pipes();
        all.retain(|(_, run, _)| !wanted.contains(run));
        let passed = all.len();
        for entry in files {
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            if let Some(found) = fifo::named(name) {
                if !wanted.contains(&found.1) && !all.iter().take(passed).any(|one| *one == found) {
                    all.push(found);
                }
            } else if name.strip_suffix(".kin").is_some_and(|stem| !is_of(stem, wanted)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        for (instance, run, stream) in all {
            let mut kept = stored.take(run, Part::of(stream));
            let there = patiently(|| fifo::existing(dir, &stem(&instance, run), stream, &mut kept, None));
            if let Ok(Existing::There(captured) | Existing::Lost(captured)) = there {
                let (output, deposits) = (vec![captured], Vec::new());
                self.say(News::Resumed { instance, run, output, deposits });
            }
        }
    }

    /// The cgroup of the run, unless uphold is in it itself.
    fn leaf_of_before(&mut self, order: &Order, stem: &str) -> Option<Leaf> {
        let leaf = self.base.as_ref()?.existing_leaf(stem)?;
        if !leaf.holds_uphold() {
            return Some(leaf);
        }
        let message = "uphold was started by one of its processes and is in its cgroup: its processes are known by \
             session, descent and UPHOLD_RUN until it is started anew; what leaves all of these cannot be found";
        let instance = Some(order.instance.clone());
        self.say(News::Notice { instance, reason: "OwnCgroup", message: message.to_owned() });
        self.discard(leaf);
        None
    }

    fn say_unproven(&self, order: &Order, pid: i32) {
        let message = format!(
            "process {pid} has the pid of its main process, and uphold may not look whether it is that: it gets no \
             signal, and nothing is started beside it until it has ended; if it is another one, `kill` it or let it \
             end, and give uphold CAP_SYS_PTRACE or a cgroup that it may write to"
        );
        let instance = Some(order.instance.clone());
        self.say(News::Notice { instance, reason: "Unproven", message });
    }

    fn say_over(&mut self, (instance, run): Key, so_far: SoFar) {
        match so_far {
            SoFar::Ordered | SoFar::Revoked | SoFar::Born => {
                self.say(News::Exited { instance: instance.clone(), run, exit: Exit::Unknown });
            }
            SoFar::Ended => {}
        }
        self.say(News::Emptied { instance, run });
    }

    /// `kept`: a pidfd that was opened when it was started.
    fn find(&self, order: &Order, record: &Record, leaf: Option<&Leaf>, kept: Option<OwnedFd>) -> Found {
        if let Some(exit) = record.exit {
            return Found::Ended(exit);
        }
        if is_child(record) {
            return Found::Child;
        }
        let reaped = match kept.map(|pidfd| (sys::pidfd_pid(&pidfd), pidfd)) {
            Some((Some(pid), pidfd)) if pid == record.pid => {
                return Found::Kept(Other { pid, start: record.start, pidfd: Some(pidfd), proven: true });
            }
            // What it was of was reaped.
            Some((Some(-1), pidfd)) => Some(sys::pidfd_exit(&pidfd).unwrap_or(Exit::Unknown)),
            Some((Some(_) | None, _)) | None => None,
        };
        let is_it = |start: Option<u64>| match (record.start, start) {
            // Nobody could look before uphold was killed, or it cannot now.
            (0, _) | (_, None) if leaf.is_some_and(|leaf| leaf.pids().contains(&record.pid)) => Proof::Same,
            (0, _) | (_, None) => {
                has(record.pid, &format!("UPHOLD_RUN={}", marker(order, &self.settings.token)))
            }
            (known, Some(start)) => same(known == start),
        };
        match (Other::find(record, &is_it), reaped) {
            // Whatever was kept, it lives.
            (Some(other), _) if other.proven => Found::Other(other),
            (Some(other), None) => Found::Other(other),
            (Some(_) | None, reaped) => Found::Ended(reaped.unwrap_or(Exit::Unknown)),
        }
    }

    /// Hears of the end of a process that is no child.
    fn watch_end(&self, key: &Key, other: &Other) {
        let pidfd = other.pidfd.as_ref().and_then(|pidfd| pidfd.try_clone().ok());
        let other = Other { pid: other.pid, start: other.start, pidfd, proven: other.proven };
        let (wakes, key) = (self.wakes.clone(), key.clone());
        task::detached(async move {
            let exit = other.ended().await;
            // Nobody listens only when the host is gone.
            let _ = wakes.send(Wake::Ended(key, exit));
        });
    }

    /// The next image has its pidfd, too: whoever reaps it meanwhile, that tells how it ended.
    fn note_process(&self, run: Run, other: &Other) {
        let pidfd = other.pidfd.as_ref().filter(|_| other.proven);
        if let (Some(pipes), Some(pidfd)) = (&self.settings.pipes, pidfd) {
            // Without the note it is opened anew by its pid, while it lives.
            let _ = pipes.note(pidfd, &store::name(run, Part::Pid));
        }
    }

    /// The streams of a run, read on from where the uphold before was. `lives`: its main process, if it does.
    fn reopen(&self, order: &Order, stem: &str, stored: &mut Stored, lives: Option<i32>) -> Vec<Captured> {
        if order.foreground {
            return Vec::new();
        }
        let dir = self.settings.private.as_deref();
        let complain = |message: String| {
            let instance = Some(order.instance.clone());
            self.say(News::Notice { instance, reason: "LogReadFailed", message });
        };
        let mut open = |stream| {
            let mut kept = stored.take(order.run, Part::of(stream));
            patiently(|| fifo::existing(dir, stem, stream, &mut kept, lives))
        };
        let open = |stream| match open(stream) {
            Ok(Existing::There(captured)) => Some(captured),
            Ok(Existing::Lost(captured)) => {
                if lives.is_some() {
                    complain(
                        "its FIFO was removed while uphold ran, and its main process has it on neither stdout \
                         nor stderr: what it writes until it is restarted is lost, and nobody can count it"
                            .to_owned(),
                    );
                }
                Some(captured)
            }
            Ok(Existing::Nothing) => None,
            Err(error) => {
                complain(format!("cannot read its output on: {error}"));
                None
            }
        };
        [Stream::Stdout, Stream::Stderr].into_iter().filter_map(open).collect()
    }
}

/// What has this stem is of one of these runs.
fn is_of(stem: &str, runs: &HashSet<Run>) -> bool {
    let run = stem.rsplit_once('.').and_then(|(_, run)| run.parse().ok()).map(Run);
    run.is_some_and(|run| runs.contains(&run))
}

/// With the start that is known of it, by whomever it was stored.
fn looked_at(slot: &Slot, record: Record) -> Record {
    Record { start: slot.started(record.pid), ..record }
}

/// It is a child of this process and not reaped. Another child may have its pid by now: one that this uphold has made
/// since it began.
pub(super) fn is_child(record: &Record) -> bool {
    sys::wait(sys::Child::Pid(record.pid), true, false).is_ok()
        && (record.start == 0 || [0, record.start].contains(&kin::started(record.pid)))
}

fn same(is_it: bool) -> Proof {
    if is_it { Proof::Same } else { Proof::Stranger }
}

/// Ends a probe's command that nobody waits for any more.
fn end_stray(record: &Record, token: &str) {
    if record.pid == 0 || record.exit.is_some() {
        return;
    }
    // The image before was gone before it could look: a child's pid is its own till it is reaped.
    if record.start == 0 && is_child(record) {
        let _ = sys::kill(record.pid, Signal::KILL);
        let _ = sys::kill(-record.pid, Signal::KILL);
        return;
    }
    let is_it = |start: Option<u64>| match record.start {
        0 => has(record.pid, &format!("UPHOLD_PROBE={}", probe_marker(record.run, token))),
        known => same(start == Some(known)),
    };
    // It leads its group, which has its number for as long as it lives.
    if let Some(other) = Other::find(record, &is_it).filter(|other| other.proven && other.lives()) {
        let _ = sys::kill(-record.pid, Signal::KILL);
        // It may not lead it yet.
        other.strike(Signal::KILL);
    }
}

/// The process has this in its environment, or another one. What has none may have dropped it.
fn has(pid: i32, entry: &str) -> Proof {
    match kin::read(pid, "environ") {
        Ok(environ) if !environ.is_empty() => {
            same(environ.split(|byte| *byte == 0).any(|found| found == entry.as_bytes()))
        }
        Ok(_) | Err(_) => Proof::None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::Bench;
    use super::*;
    use crate::unit::{Name, Unit};

    #[tokio::test]
    async fn what_lives_and_is_proven_lives_whatever_was_kept_of_it() {
        let bench = Bench::without_cgroups();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let gone = sys::pidfd_open(child.id().cast_signed()).unwrap();
        child.wait().unwrap();
        let instance = Name::new("web").unwrap();
        let unit = Arc::new(Unit::new(instance.clone()));
        let order = Order { instance, run: Run(1), unit, foreground: false };
        let pid = nix::unistd::getppid().as_raw();
        let record = |start| Record { run: Run(1), pid, start, uid: 0, exit: None };
        let find = |start| {
            let kept = Some(gone.try_clone().unwrap());
            bench.host.find(&order, &record(start), None, kept)
        };
        let start = kin::started(pid);
        assert!(matches!(find(start), Found::Other(other) if other.proven));
        assert!(matches!(find(start + 1), Found::Ended(_)));
        assert!(matches!(find(0), Found::Ended(_)));
    }
}
