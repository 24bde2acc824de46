//! Tells when somebody removes what uphold needs of its runtime directory: inotify on that directory and the
//! private one below it, so that nothing has to be looked at again and again. Directories above it are watched
//! for being moved, which takes it away too.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use nix::libc;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::sync::mpsc::UnboundedSender;

use super::sys;
use super::watch::Readable;
use crate::task::Task;

/// What takes a directory away itself, or what was to be told of it.
const ITSELF: AddWatchFlags = AddWatchFlags::IN_DELETE_SELF
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_UNMOUNT)
    .union(AddWatchFlags::IN_Q_OVERFLOW);

/// What is watched for already at this directory stays so; nix has no name for it.
const ADD: AddWatchFlags = AddWatchFlags::from_bits_retain(libc::IN_MASK_ADD);

/// Watches for as long as it is held.
#[derive(Debug)]
pub struct Guard {
    inotify: Arc<Inotify>,
    watched: Vec<WatchDescriptor>,
    _task: Task,
}

impl Guard {
    /// Watches nothing yet. `gone` gets the names of what was removed, without their directories; an empty one
    /// stands for anything. What uphold removes itself is among them. Within a tokio runtime; errors are those
    /// of inotify_init1(2).
    pub fn new(gone: UnboundedSender<Vec<OsString>>) -> std::io::Result<Guard> {
        let inotify = Arc::new(Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?);
        let events = sys::readable(Readable(inotify.clone()))?;
        let task = Task::spawn(async move {
            while let Ok(mut ready) = events.readable().await {
                match events.get_ref().0.read_events() {
                    Ok(read) => {
                        let names: Vec<OsString> = read.into_iter().filter_map(name).collect();
                        if !names.is_empty() && gone.send(names).is_err() {
                            return;
                        }
                    }
                    Err(_) => ready.clear_ready(),
                }
            }
        });
        Ok(Guard { inotify, watched: Vec::new(), _task: task })
    }

    /// Watches the directories that are there now by these names, whose paths are without symbolic links, and no
    /// others. Errors are those of inotify_add_watch(2); a directory above them that may not be read is not
    /// watched.
    pub fn watch<'p>(&mut self, dirs: impl IntoIterator<Item = &'p Path>) -> std::io::Result<()> {
        let flags = AddWatchFlags::IN_ONLYDIR | ITSELF;
        let names = AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM;
        let mut watched = Vec::new();
        for dir in dirs {
            watched.push(self.inotify.add_watch(dir, flags | names)?);
            for above in dir.ancestors().skip(1) {
                // One of these may be among the directories themselves: it stays watched as that.
                watched.extend(self.inotify.add_watch(above, flags | ADD));
            }
        }
        for old in std::mem::replace(&mut self.watched, watched) {
            if !self.watched.contains(&old) {
                // An error says that it went with its directory.
                let _ = self.inotify.rm_watch(old);
            }
        }
        Ok(())
    }
}

/// Of what is gone; `None`: nothing that anybody needs.
fn name(event: InotifyEvent) -> Option<OsString> {
    if event.mask.intersects(ITSELF) {
        return Some(OsString::new());
    }
    // Drafts, which become something by another name.
    event.name.filter(|name| !name.as_bytes().ends_with(b".new") && !name.as_bytes().starts_with(b"."))
}
