//! Taking over what an uphold before has started, after it was killed or has become this one by an exec.
//!
//! A process is ours if it is our child of the recorded pid, or if its start is the recorded one; where uphold
//! was killed before it could record that, if it is in the run's cgroup or carries its UPHOLD_RUN. Nothing
//! else ever gets a signal.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use super::cgroup::Leaf;
use super::exec::PROBES;
use super::kin::{self, Kin};
use super::launch::{marker, stem};
use super::runs::{FoundBy, Living, Main};
use super::slots::Record;
use super::store::{Part, Stored};
use super::{Captured, Host, Key, News, Order, Role, Stream, Wake, fifo, sys};
use crate::engine::{Exit, Run, SoFar, Taken};
use crate::unit::Signal;

/// How long the reaper of a process that is no child of uphold may take before its status counts as unseen.
const REAPED: Duration = Duration::from_millis(100);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(2);

/// What became of a main process.
enum Found {
    /// It lives, or is a zombie that this uphold reaps.
    Child,
    /// It lives, and somebody else reaps it.
    Other(OwnedFd),
    /// The same, and the service manager has kept this since it was started.
    Kept(OwnedFd),
    /// It is gone.
    Ended(Exit),
}

impl Host {
    /// Takes over a run. For one that was ordered and not begun, `Spawned` or `SpawnFailed` follows as after
    /// [`spawn`](Host::spawn); for every other `Resumed`, and what there is to say of it since. `stored`: what
    /// a service manager has kept, of which this run's is taken.
    pub fn adopt(&mut self, taken: Taken, foreground: bool, stored: &mut Stored) {
        let Taken { instance, run, unit, so_far } = taken;
        let order = Order { instance, run, unit, foreground };
        let record = self.slots.get(run).map(|slot| slot.record());
        let begun = record.filter(|record| record.pid != 0);
        if so_far == SoFar::Ordered && begun.is_none() {
            // The kernel writes the pid before the child's first instruction: there was no child.
            self.slots.release(run);
            return self.spawn(order);
        }
        let key: Key = (order.instance.clone(), run);
        let stem = stem(&order.instance, run);
        let leaf = self.base.as_ref().and_then(|base| base.existing_leaf(&stem));
        let pid = begun.map_or(0, |record| record.pid);
        let pidfd = stored.take(run, Part::Pid);
        let found = match (begun, so_far) {
            (_, SoFar::Ended) | (None, _) => Found::Ended(Exit::Unknown),
            (Some(record), SoFar::Ordered | SoFar::Born) => self.find(&order, &record, leaf.as_ref(), pidfd),
        };
        let output = self.reopen(&order, &stem, stored);
        let process = || match &found {
            Found::Child => sys::pidfd_open(pid).ok(),
            Found::Other(pidfd) => pidfd.try_clone().ok(),
            Found::Kept(_) | Found::Ended(_) => None,
        };
        let deposits = self.deposits(run, process, &output);
        self.say(News::Resumed { instance: order.instance.clone(), run, output, deposits });
        if so_far == SoFar::Ordered {
            let (instance, pid) = (order.instance.clone(), pid.cast_unsigned());
            let (output, deposits) = (Vec::new(), Vec::new());
            self.say(News::Spawned { instance, run, pid, output, deposits });
        }
        let watched = leaf.as_ref().and_then(|leaf| self.watch_leaf(leaf));
        let found_by = match (leaf, begun) {
            (Some(leaf), _) => FoundBy::Cgroup(leaf),
            (None, Some(record)) => {
                let marker = (!foreground).then(|| marker(&order, &self.settings.token));
                let kin = Kin::since(pid, record.start, !foreground, record.uid, marker.as_deref());
                FoundBy::Kin(kin)
            }
            // Nothing is known of it: nothing is left of it.
            (None, None) => {
                self.say_over(key, so_far);
                return;
            }
        };
        let (main, main_alive, ended) = match found {
            Found::Child => (Main::Child, true, None),
            Found::Other(pidfd) | Found::Kept(pidfd) => {
                let watch = self.watch_end(&key, &pidfd);
                (Main::Other(pidfd), true, watch)
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
            (Some(exit), SoFar::Ordered | SoFar::Born) => self.main_exited(key, exit),
            (None, SoFar::Ordered | SoFar::Born) => {}
        }
    }

    /// After all runs were taken over, which are these: probes of before are ended, what else was recorded is
    /// forgotten, and what has ended meanwhile is heard of.
    pub fn adopted(&mut self, wanted: &HashSet<Run>) {
        for run in self.slots.runs() {
            let Some(record) = self.slots.get(run).map(|slot| slot.record()) else { continue };
            if run.0 & PROBES != 0 {
                // Its attempt is nobody's any more. It leads a session, so a group.
                end_stray(&record);
                self.slots.release(run);
            } else if !wanted.contains(&run) {
                self.slots.release(run);
            }
        }
        self.reap();
    }

    fn say_over(&mut self, (instance, run): Key, so_far: SoFar) {
        match so_far {
            SoFar::Ordered | SoFar::Born => {
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
        let same = |start: u64| {
            if record.start != 0 {
                return record.start == start;
            }
            leaf.is_some_and(|leaf| leaf.pids().contains(&record.pid))
                || is_marked(record.pid, &marker(order, &self.settings.token))
        };
        if sys::wait(sys::Child::Pid(record.pid), true, false).is_ok() {
            return Found::Child;
        }
        match kept.map(|pidfd| (sys::pidfd_pid(&pidfd), pidfd)) {
            Some((Some(pid), pidfd)) if pid == record.pid => return Found::Kept(pidfd),
            // It was reaped.
            Some((Some(-1), pidfd)) => {
                return Found::Ended(sys::pidfd_exit(&pidfd).unwrap_or(Exit::Unknown));
            }
            Some((Some(_) | None, _)) | None => {}
        }
        // The pidfd first: what it is compared with afterwards is the process that it holds.
        match sys::pidfd_open(record.pid) {
            Ok(pidfd) if same(kin::started(record.pid)) => Found::Other(pidfd),
            Ok(_) | Err(_) => Found::Ended(Exit::Unknown),
        }
    }

    /// Waits for the end of a process that is no child. An exit: that cannot be waited for.
    fn watch_end(&self, key: &Key, pidfd: &OwnedFd) -> Option<Exit> {
        let again = pidfd.try_clone().and_then(sys::readable);
        let (wakes, key) = (self.wakes.clone(), key.clone());
        let Ok(ended) = again else { return Some(Exit::Unknown) };
        tokio::spawn(async move {
            drop(ended.readable().await);
            let mut exit = sys::pidfd_exit(ended.get_ref());
            let mut waited = Duration::ZERO;
            while exit.is_none() && waited < REAPED {
                tokio::time::sleep(LOOK).await;
                waited += LOOK;
                exit = sys::pidfd_exit(ended.get_ref());
            }
            // Nobody listens only when the host is gone.
            let _ = wakes.send(Wake::Ended(key, exit.unwrap_or(Exit::Unknown)));
        });
        None
    }

    /// The streams of a run, read on from where the uphold before was.
    fn reopen(&self, order: &Order, stem: &str, stored: &mut Stored) -> Vec<Captured> {
        let Some(dir) = self.settings.private.as_deref().filter(|_| !order.foreground) else {
            return Vec::new();
        };
        let open = |stream| match fifo::existing(dir, stem, stream, stored.take(order.run, Part::of(stream)))
        {
            Ok(captured) => captured,
            Err(error) => {
                self.say(News::Notice {
                    instance: Some(order.instance.clone()),
                    reason: "LogReadFailed",
                    message: format!("cannot read its output on: {error}"),
                });
                None
            }
        };
        [Stream::Stdout, Stream::Stderr].into_iter().filter_map(open).collect()
    }
}

/// Ends a probe's command that nobody waits for any more.
fn end_stray(record: &Record) {
    if record.pid == 0 || record.start == 0 || record.exit.is_some() {
        return;
    }
    if let Ok(pidfd) = sys::pidfd_open(record.pid)
        && kin::started(record.pid) == record.start
        && sys::pidfd_lives(&pidfd)
    {
        let _ = sys::kill(-record.pid, Signal::KILL);
    }
}

/// The process has this UPHOLD_RUN in its environment.
fn is_marked(pid: i32, marker: &str) -> bool {
    let wanted = format!("UPHOLD_RUN={marker}");
    std::fs::read(Path::new("/proc").join(pid.to_string()).join("environ"))
        .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes()))
}
