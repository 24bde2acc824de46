//! Runs: a main process and all that belongs to it, from its exec to the end of its last process.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use nix::errno::Errno;

use super::adopt::Other;
use super::cgroup::Leaf;
use super::kin::Kin;
use super::launch::{Launched, Started, marker};
use super::slots::Slot;
use super::watch::Watch;
use super::{Host, Key, News, Order, Role, Wake, kin, launch, sys};
use crate::engine::{Exit, Run, SpawnFailure};
use crate::failpoint;
use crate::task::Task;
use crate::unit::{Name, Scope, Signal};

/// SIGKILL is sent to what has appeared since the last round, at most so often: a fork bomb must not hold
/// the deciding thread for ever. The engine's survey tells what is left.
const ROUNDS: usize = 100;

/// So many pidfds are held at a time.
const AT_ONCE: usize = 64;

/// When something is to be looked at that nothing tells of.
const AGAIN: Duration = Duration::from_secs(1);

/// One run that is not empty.
#[derive(Debug)]
pub(super) struct Living {
    pub pid: i32,
    pub main: Main,
    /// Not reaped.
    pub main_alive: bool,
    /// `stop.leave`.
    pub leave: bool,
    pub found_by: FoundBy,
    /// `Left` was said.
    pub said_left: bool,
    /// A change of its cgroup wakes the host up.
    pub watched: Option<Watch>,
    /// Where that does not: waits for the end of one of those that are left.
    pub watch: Option<Task>,
}

/// What the main process is to uphold.
#[derive(Debug)]
pub(super) enum Main {
    /// Reaped by this thread alone, so its pid is its own until then.
    Child,
    /// A child of an uphold that is dead. Somebody else reaps it: it is known by this.
    Other(Other),
}

/// How a run's processes are known.
#[derive(Debug)]
pub(super) enum FoundBy {
    /// All of a cgroup.
    Cgroup(Leaf),
    /// Session, descent and marker.
    Kin(Kin),
}

impl Living {
    /// An error says nothing of what there is.
    fn pids(&mut self) -> io::Result<Vec<i32>> {
        match &mut self.found_by {
            FoundBy::Cgroup(leaf) => Ok(leaf.pids()),
            FoundBy::Kin(kin) => kin.find(self.main_alive),
        }
    }

    /// A signal to the main process, or to its group, while it lives.
    fn strike_main(&self, signal: Signal, to: Scope) {
        match (&self.main, to) {
            (Main::Child, Scope::Main) => drop(sys::kill(self.pid, signal)),
            (Main::Child, Scope::Group) => drop(sys::kill(-self.pid, signal)),
            (Main::Other(other), Scope::Main) => other.strike(signal),
            // Its group has its number for as long as it lives. uphold is in it if that process has started it.
            (Main::Other(other), Scope::Group) if other.is_proven() && other.lives() => {
                if nix::unistd::getpgrp().as_raw() == self.pid {
                    kin::strike_group_of_uphold(self.pid, signal);
                } else {
                    let _ = sys::kill(-self.pid, signal);
                }
            }
            (Main::Other(_), Scope::Group) => {}
        }
    }

    /// To processes that were found.
    fn strike(&self, pids: &[i32], signals: &[Signal]) {
        match &self.found_by {
            FoundBy::Cgroup(leaf) => {
                for some in pids.chunks(AT_ONCE) {
                    strike_in(leaf, some, signals);
                }
            }
            FoundBy::Kin(kin) => {
                for pid in pids {
                    signals.iter().for_each(|signal| kin.strike(*pid, *signal));
                }
            }
        }
    }

    /// SIGKILL until nothing new is found.
    fn kill_all(&mut self) {
        if let FoundBy::Cgroup(leaf) = &self.found_by
            && leaf.kill().is_ok()
        {
            return;
        }
        self.strike_all(&[Signal::KILL]);
    }

    /// These signals to all there is, and again to what has appeared meanwhile.
    fn strike_all(&mut self, signals: &[Signal]) {
        let mut struck = HashSet::new();
        for _ in 0..ROUNDS {
            let pids = self.pids().unwrap_or_default();
            let fresh: Vec<i32> = pids.into_iter().filter(|pid| struck.insert(*pid)).collect();
            if fresh.is_empty() {
                return;
            }
            self.strike(&fresh, signals);
        }
    }
}

/// Signals to those of these processes that are in the cgroup: what has a pidfd keeps its pid while that is looked at.
fn strike_in(leaf: &Leaf, pids: &[i32], signals: &[Signal]) {
    let held: Vec<_> = pids.iter().map(|pid| (*pid, sys::pidfd_open(*pid))).collect();
    let there = leaf.pids();
    for (pid, pidfd) in held.iter().filter(|(pid, _)| there.contains(pid)) {
        for signal in signals {
            match pidfd {
                Ok(pidfd) => drop(sys::pidfd_kill(pidfd, *signal)),
                Err(Errno::ESRCH) => {}
                // Too many open files, or a kernel before 5.3.
                Err(_) => drop(sys::kill(*pid, *signal)),
            }
        }
    }
}

impl Host {
    /// A launch was heard of. The exit of a child that ended before this is heard of after it.
    pub(super) fn launched(&mut self, launched: Launched) {
        if let Some(child) = &launched.cloned {
            self.cloning.end(child);
        }
        match launched.job {
            launch::Job::Main(order, _) => {
                for message in launched.warnings {
                    self.say(News::Notice {
                        instance: Some(order.instance.clone()),
                        reason: "SetUp",
                        message,
                    });
                }
                self.main_launched(order, launched.outcome);
            }
            launch::Job::Probe(job) => {
                let started = launched.outcome.map(|started| {
                    (started.pid, started.output.into_iter().next().map(|captured| captured.pipe))
                });
                self.probe_launched(job.id, started);
            }
        }
        self.reap();
    }

    fn main_launched(&mut self, order: Order, outcome: Result<Started, SpawnFailure>) {
        let (instance, run) = (order.instance.clone(), order.run);
        let started = match outcome {
            Ok(started) => started,
            Err(failure) => return self.say(News::SpawnFailed { instance, run, failure }),
        };
        let pid = started.pid;
        let watched = started.leaf.as_ref().and_then(|leaf| self.watch_leaf(leaf));
        let found_by = match started.leaf {
            Some(leaf) => FoundBy::Cgroup(leaf),
            None => {
                let marker = (!order.foreground).then(|| marker(&order, &self.settings.token));
                let mut kin = Kin::new(pid, !order.foreground, started.uid, marker.as_deref());
                self.keep_kin(&mut kin, &launch::stem(&instance, run), false);
                FoundBy::Kin(kin)
            }
        };
        let leave = order.unit.stop.leave;
        let main = Main::Child;
        let living =
            Living { pid, main, main_alive: true, leave, found_by, said_left: false, watched, watch: None };
        self.children.insert(pid, Role::Main((instance.clone(), run)));
        self.runs.insert((instance.clone(), run), living);
        // Before it may be reaped.
        let deposits = self.deposits(run, || sys::pidfd_open(pid).ok(), &started.output);
        self.say(News::Spawned { instance, run, pid: pid.cast_unsigned(), output: started.output, deposits });
    }

    /// Keeps what is known of a run for the next uphold. Without a private directory it is known to this image alone.
    pub(super) fn keep_kin(&self, kin: &mut Kin, stem: &str, goes_on: bool) {
        if let Some(dir) = &self.settings.private {
            kin.keep_in(dir.join(format!("{stem}.kin")), goes_on);
        }
    }

    /// A main process has ended.
    pub(super) fn main_exited(&mut self, key: Key, exit: Exit) {
        let Some(living) = self.runs.get_mut(&key) else { return };
        living.main_alive = false;
        let exit = with_oom(exit, &living.found_by);
        let leave = living.leave;
        let (instance, run) = key.clone();
        self.say(News::Exited { instance, run, exit });
        if leave {
            self.emptied(&key);
        } else {
            self.settle(&key);
        }
    }

    /// Looks what is left of a run whose main process is gone, and says so.
    pub(super) fn settle(&mut self, key: &Key) {
        let Some(living) = self.runs.get_mut(key).filter(|living| !living.main_alive) else { return };
        let populated = match &living.found_by {
            // What can be removed was empty: to ask first would take longer.
            FoundBy::Cgroup(leaf) if leaf.vanish() => Ok(Some(false)),
            FoundBy::Cgroup(leaf) => leaf.populated().map(Some),
            FoundBy::Kin(_) => Ok(None),
        };
        // Without one of these two, nothing would tell of the end.
        let watched = living.watched.is_some() && populated.is_ok();
        let pids = match populated {
            Ok(Some(false)) => return self.emptied(key),
            Ok(Some(true) | None) | Err(_) => living.pids(),
        };
        match &pids {
            Ok(pids) if pids.is_empty() && matches!(populated, Ok(None)) => return self.emptied(key),
            Ok(pids) if !pids.is_empty() && !living.said_left => {
                living.said_left = true;
                let news = left(key, pids);
                self.say(news);
            }
            Ok(_) | Err(_) => {}
        }
        if !watched {
            self.watch_one(key, pids.ok().and_then(|pids| pids.first().copied()));
        }
    }

    /// Looks again when this process has ended; when none can be waited for, in a while.
    fn watch_one(&mut self, key: &Key, pid: Option<i32>) {
        let (wakes, again) = (self.wakes.clone(), key.clone());
        let Some(living) = self.runs.get_mut(key) else { return };
        let watch = match pid.map(sys::pidfd_open) {
            Some(Ok(pidfd)) => Ok(sys::readable(pidfd)),
            // It has ended since.
            Some(Err(Errno::ESRCH)) => Err(Duration::ZERO),
            // Too many open files, or a kernel before 5.3.
            Some(Err(_)) | None => Err(AGAIN),
        };
        living.watch = Some(Task::spawn(async move {
            match watch {
                Ok(Ok(pidfd)) => drop(pidfd.readable().await),
                Ok(Err(_)) => tokio::time::sleep(AGAIN).await,
                Err(pause) => tokio::time::sleep(pause).await,
            }
            let _ = wakes.send(Wake::Settle(again));
        }));
    }

    pub(super) fn emptied(&mut self, key: &Key) {
        let Some(living) = self.runs.remove(key) else { return };
        match living.found_by {
            FoundBy::Cgroup(leaf) => {
                self.garbage.push((leaf, living.watched));
                self.collect_garbage();
            }
            FoundBy::Kin(kin) => kin.forget(),
        }
        let (instance, run) = key.clone();
        self.say(News::Emptied { instance, run });
    }

    /// Looks again at runs whose main process is gone; all that have no cgroup with `kin`, else those that
    /// have.
    pub(super) fn settle_all(&mut self, kin: bool) {
        let keys: Vec<Key> = self
            .runs
            .iter()
            .filter(|(_, living)| !living.main_alive && matches!(living.found_by, FoundBy::Kin(_)) == kin)
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.settle(&key);
        }
    }

    /// The cgroup is of no use any more: it is removed once it is empty.
    pub(super) fn discard(&mut self, leaf: Leaf) {
        let watch = self.watch_leaf(&leaf);
        self.garbage.push((leaf, watch));
    }

    /// Removes the cgroups of runs that are over, as far as they are empty.
    pub(super) fn collect_garbage(&mut self) {
        self.garbage.retain(|(leaf, _)| !leaf.remove());
    }

    /// A signal to the main process or its group. Nothing if it has ended. `cont`: that of a stop, which is
    /// followed by SIGCONT.
    pub fn signal(&mut self, instance: &Name, run: Run, signal: Signal, to: Scope, cont: bool) {
        let Some(living) = self.runs.get_mut(&(instance.clone(), run)).filter(|living| living.main_alive)
        else {
            return;
        };
        if let FoundBy::Kin(kin) = &mut living.found_by {
            // Descent is lost when the main process ends.
            let _ = kin.find(true).is_ok();
        }
        let slot = self.slots.get(run).filter(|_| cont);
        // That of a stop is sent once, whoever asks again.
        if slot.is_some_and(Slot::is_told) {
            return;
        }
        failpoint::reach("telling");
        living.strike_main(signal, to);
        if cont {
            living.strike_main(Signal::CONT, to);
        }
        failpoint::reach("told");
        // After it: where uphold is killed in between, it is sent a second time, which is kinder than never.
        if let Some(slot) = slot {
            slot.tell();
        }
    }

    /// SIGTERM and SIGCONT to all that is left of a run.
    pub fn terminate(&mut self, instance: &Name, run: Run) {
        let Some(living) = self.runs.get_mut(&(instance.clone(), run)) else { return };
        living.strike_all(&[Signal::TERM, Signal::CONT]);
    }

    /// SIGKILL to all of a run, or only to its main process.
    pub fn kill(&mut self, instance: &Name, run: Run, main_only: bool) {
        let Some(living) = self.runs.get_mut(&(instance.clone(), run)) else { return };
        if !main_only {
            living.kill_all();
        }
        if living.main_alive {
            living.strike_main(Signal::KILL, Scope::Main);
        }
    }

    /// Says `Left` for a run of which something lives, its main process included.
    pub fn survey(&mut self, instance: &Name, run: Run) {
        self.reap();
        let key = (instance.clone(), run);
        self.settle(&key);
        let Some(living) = self.runs.get_mut(&key) else { return };
        let mut pids = living.pids().unwrap_or_default();
        if living.main_alive && !pids.contains(&living.pid) {
            pids.push(living.pid);
        }
        if !pids.is_empty() {
            self.say(left(&key, &pids));
        }
    }
}

fn left((instance, run): &Key, pids: &[i32]) -> News {
    let pids = pids.iter().map(|pid| pid.cast_unsigned()).collect();
    News::Left { instance: instance.clone(), run: *run, pids }
}

/// A SIGKILL in a cgroup in which the out-of-memory killer struck was its.
fn with_oom(exit: Exit, found_by: &FoundBy) -> Exit {
    match (exit, found_by) {
        (Exit::Signal { signal: Signal::KILL, .. }, FoundBy::Cgroup(leaf)) => {
            let oom = leaf.keyed("memory.events", "oom_kill").is_some_and(|count| count > 0);
            Exit::Signal { signal: Signal::KILL, oom }
        }
        (exit, _) => exit,
    }
}

#[cfg(test)]
mod tests {
    use super::super::cgroup::Base;
    use super::*;

    #[test]
    fn who_has_left_the_cgroup_since_it_was_looked_at_gets_no_signal() {
        let _alone = crate::alone::alone();
        let Ok(base) = Base::new("left-since") else { return };
        let (leaf, _into) = base.leaf("web.1").unwrap();
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = child.id().cast_signed();
        strike_in(&leaf, &[pid], &[Signal::TERM]);
        std::fs::write(base.path().join("web.1/cgroup.procs"), pid.to_string()).unwrap();
        strike_in(&leaf, &[pid], &[Signal::KILL]);
        let after = child.wait().unwrap();
        assert!(leaf.remove());
        base.remove();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&after), Some(9));
    }
}
