//! Children of the image before this one that were between clone and exec when it went. They live on in its
//! memory, and nobody sleeps until their exec any more; so it is waited for here.
//!
//! One that ended before it had executed anything was no start: it is made again, as where there was none, and
//! whatever keeps it from being executed is heard of then.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use super::adopt::is_child;
use super::slots::Record;
use super::{Host, Order, Stored, Wake, kin, sys};
use crate::engine::{SoFar, Taken};
use crate::task;

/// How soon is looked again, at first,
const SOON: Duration = Duration::from_millis(2);
/// and where it takes long: nothing tells of an exec.
const LATE: Duration = Duration::from_millis(250);

/// A child that has not executed its command yet.
#[derive(Debug)]
pub(super) struct Egg {
    order: Order,
    so_far: SoFar,
    /// What was open of it.
    stored: Stored,
    /// In [`Cloning`](super::launch::Cloning) until it is heard of: till then it is not reaped.
    child: Arc<AtomicI32>,
}

/// A process that is a child of this one.
enum Chick {
    /// It was forked, and has executed nothing yet.
    Unborn,
    /// It ended like that.
    StillBorn,
    /// It executes something, or did, or nobody can tell.
    Hatched,
}

impl Chick {
    fn of(pid: i32) -> Chick {
        match kin::proc(pid) {
            Ok(Some(found)) if !found.unborn => Chick::Hatched,
            Ok(Some(found)) if found.zombie => Chick::StillBorn,
            // What cannot be looked at for want of something passing is looked at again.
            Ok(Some(_)) | Err(_) => Chick::Unborn,
            Ok(None) => Chick::Hatched,
        }
    }
}

impl Host {
    /// Whether an ordered run has begun with this process of which nobody has seen the exec: then the order comes
    /// back. Else it is seen to here.
    pub(super) fn brood(
        &mut self,
        order: Order,
        so_far: SoFar,
        record: &Record,
        stored: &mut Stored,
    ) -> Option<Order> {
        let pid = record.pid;
        if !is_child(record) {
            // No child of this process: what was that of another uphold is no such thing any more (`lock`).
            return Some(order);
        }
        match Chick::of(pid) {
            Chick::Hatched => return Some(order),
            Chick::Unborn => {
                let stored = stored.take_run(order.run);
                self.wait_for_exec(order, so_far, pid, stored);
            }
            Chick::StillBorn => {
                let _ = sys::wait(sys::Child::Pid(pid), false, false);
                self.begin(order, so_far);
            }
        }
        None
    }

    fn wait_for_exec(&self, order: Order, so_far: SoFar, pid: i32, stored: Stored) {
        let child = self.cloning.begin();
        child.store(pid, Ordering::SeqCst);
        let wakes = self.wakes.clone();
        task::detached(async move {
            let mut pause = SOON;
            // It is not reaped, so its pid is its own.
            while matches!(Chick::of(pid), Chick::Unborn) {
                tokio::time::sleep(pause).await;
                pause = LATE.min(pause * 2);
            }
            // Nobody listens only when the host is gone.
            let _ = wakes.send(Wake::Hatched(Egg { order, so_far, stored, child }));
        });
    }

    /// It can be taken over now.
    pub(super) fn hatched(&mut self, egg: Egg) {
        let Egg { order, so_far, mut stored, child } = egg;
        self.cloning.end(&child);
        let Order { instance, run, unit, foreground } = order;
        let taken = Taken { instance, run, unit, so_far };
        self.adopt(taken, foreground, &mut stored);
        self.reap();
    }
}
