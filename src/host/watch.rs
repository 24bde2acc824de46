//! Tells when a cgroup empties: inotify on each leaf's `cgroup.events`, so that nothing has to be asked
//! again and again.

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use super::cgroup::Leaf;
use super::{Host, Task, Wake, sys};

/// One inotify for all leaves.
#[derive(Debug)]
pub(super) struct Watcher {
    inotify: Arc<Inotify>,
    _task: Task,
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
struct Readable(Arc<Inotify>);

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
    /// From now on a change of this leaf wakes the host up; `false`: it does not, for want of watches.
    pub(super) fn watch_leaf(&mut self, leaf: &Leaf) -> bool {
        if self.watcher.is_none() {
            self.watcher = Watcher::new(self.wakes.clone()).ok();
        }
        let added = self
            .watcher
            .as_ref()
            .map(|watcher| watcher.inotify.add_watch(&leaf.events(), AddWatchFlags::IN_MODIFY));
        matches!(added, Some(Ok(_)))
    }
}
