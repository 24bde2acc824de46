//! Tells when a cgroup empties: inotify on each leaf's `cgroup.events`, so that nothing has to be asked
//! again and again.

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use super::cgroup::Leaf;
use super::{Host, Wake, sys};
use crate::task::Task;

/// One inotify for all leaves.
#[derive(Debug)]
pub(super) struct Watcher {
    inotify: Arc<Inotify>,
    _task: Task,
}

/// A watch on one leaf, for as long as it is held. The kernel keeps one on a cgroup that was removed: without
/// this, each restart would take another of the few that a user may have.
#[derive(Debug)]
pub(super) struct Watch {
    inotify: Arc<Inotify>,
    descriptor: WatchDescriptor,
}

impl Drop for Watch {
    fn drop(&mut self) {
        // An error says that newer kernels have taken it with the cgroup.
        let _ = self.inotify.rm_watch(self.descriptor);
    }
}

impl Watcher {
    fn new(wakes: UnboundedSender<Wake>) -> std::io::Result<Watcher> {
        let inotify = Arc::new(Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?);
        let events = sys::readable(Readable(inotify.clone()))?;
        let task = Task::spawn(async move {
            while let Ok(mut ready) = events.readable().await {
                // Which one does not matter: those without a main process are looked at, and they are few.
                match events.get_ref().0.read_events() {
                    Ok(_) if wakes.send(Wake::Cgroups).is_err() => return,
                    Ok(_) => {}
                    Err(_) => ready.clear_ready(),
                }
            }
        });
        Ok(Watcher { inotify, _task: task })
    }
}

/// A shared inotify as the runtime wants it.
pub(super) struct Readable(pub(super) Arc<Inotify>);

impl AsFd for Readable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Readable {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Host {
    /// A change of this leaf wakes the host up while the watch is held; `None`: it does not, for want of
    /// watches.
    pub(super) fn watch_leaf(&mut self, leaf: &Leaf) -> Option<Watch> {
        if self.watcher.is_none() {
            self.watcher = Watcher::new(self.wakes.clone()).ok();
        }
        let inotify = self.watcher.as_ref()?.inotify.clone();
        let descriptor = inotify.add_watch(&leaf.events(), AddWatchFlags::IN_MODIFY).ok()?;
        Some(Watch { inotify, descriptor })
    }
}
