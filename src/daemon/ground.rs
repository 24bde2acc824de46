//! The runtime directory while uphold runs: somebody may remove it, or files in it. A client would not find
//! uphold any more, and whoever came after a kill would find nothing, and start second copies of all that runs.
//! So what is needed is put back, in full, and that is said.
//!
//! Nothing is looked at without a sign. Signs come from inotify, many at a time while a tree is removed: what
//! is gone is put back a moment later, when that is most likely over.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::Id;
use tokio::time::Instant;

use super::listener::{self, listen};
use super::places::{PlaceError, make_private, make_runtime, note_logs};
use super::{Daemon, lasting};
use crate::control;
use crate::failpoint;
use crate::file_id::FileId;
use crate::host::{self, Guard, Lock, lock_again};
use crate::task::Task;

/// From the first sign on.
const SOON: Duration = Duration::from_millis(100);
/// After something could not be put back.
const AGAIN: Duration = Duration::from_secs(1);

/// What uphold has in its runtime directory, and what it knows of that being gone.
pub(super) struct Ground {
    /// `None`: there is none.
    runtime: Option<PathBuf>,
    private: Option<PathBuf>,
    pub(super) lock: Option<Lock>,
    guard: Option<Guard>,
    /// Who accepts at the control socket; `None`: nobody is to.
    pub(super) accepting: Option<Task>,
    socket: Option<FileId>,
    /// The notes of the log pump, and the page for crashes.
    notes: Option<FileId>,
    page: Option<FileId>,
    /// What was removed since the last look.
    gone: BTreeSet<OsString>,
    due: Option<Instant>,
    /// What could not be put back at the last look.
    lack: Lack,
}

/// What of the runtime directory is gone and could not be put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lack {
    Nothing,
    /// This uphold does without it.
    Own,
    /// The next one would not find what runs.
    Next,
}

impl Ground {
    /// Begins to watch. `gone` gets what is to be given to [`Ground::lost`].
    pub(super) fn watch(
        (runtime, private): (Option<&Path>, Option<&Path>),
        lock: Option<Lock>,
        accepting: Option<Task>,
        gone: UnboundedSender<Vec<OsString>>,
    ) -> Ground {
        let mut ground = Ground {
            runtime: runtime.map(Path::to_owned),
            private: private.map(Path::to_owned),
            lock,
            guard: None,
            accepting,
            socket: None,
            notes: None,
            page: None,
            gone: BTreeSet::new(),
            due: None,
            lack: Lack::Nothing,
        };
        if let Some(runtime) = runtime {
            let dirs = [Some(runtime), private].into_iter().flatten();
            let watched = Guard::new(gone).and_then(|guard| ground.guard.insert(guard).watch(dirs));
            match watched {
                Ok(()) => {}
                // It is looked right after this, and watched then.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    ground.guard = None;
                    tracing::warn!(
                        "cannot watch {}: {error}; nobody notices if it is removed while uphold runs",
                        runtime.display()
                    );
                }
            }
            // Whatever is removed already counts as gone.
            let id = |path: &Path| Some(FileId::at(path).unwrap_or(FileId::NONE));
            let socket = runtime.join(listener::SOCKET);
            let is_socket = socket.symlink_metadata().is_ok_and(|found| found.file_type().is_socket());
            ground.socket = if is_socket { id(&socket) } else { Some(FileId::NONE) };
            if let Some(private) = private {
                ground.notes = id(&private.join(lasting::NOTES));
                ground.page = id(&private.join(host::CRASHES));
            }
        }
        ground
    }

    /// These were removed.
    pub(super) fn lost(&mut self, names: Vec<OsString>) {
        self.gone.extend(names);
        self.due.get_or_insert_with(|| Instant::now() + SOON);
    }

    /// When it is to be looked what is gone.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Which listener clients come in by.
    pub(super) fn listener(&self) -> Option<Id> {
        self.accepting.as_ref().map(Task::id)
    }

    /// What lies in the runtime directory is this uphold's, and not another one's that has come since somebody removed it.
    pub(super) fn is_own(&self) -> bool {
        let lock = self.lock.as_ref().zip(self.runtime.as_deref());
        lock.is_none_or(|(lock, runtime)| lock.is_in(runtime))
    }

    /// The look that is due is for later.
    pub(super) fn put_off(&mut self) {
        self.due = Some(Instant::now() + AGAIN);
    }

    /// An error says that the next uphold would not find what is started now.
    pub(super) fn holds(&self) -> io::Result<()> {
        if self.lack == Lack::Next {
            Err(io::Error::other("the runtime directory is not whole"))
        } else {
            Ok(())
        }
    }
}

/// Nothing lies there, or another one's.
fn is_gone(path: &Path, ours: Option<FileId>) -> bool {
    ours.is_some_and(|ours| !ours.is_at(path))
}

/// To name another directory would be the wrong way out: what runs would not be found there.
fn cannot_make(error: PlaceError) -> String {
    match error {
        PlaceError::Io { path, error, .. } => {
            format!("cannot make the directory {}: {error}", path.display())
        }
        PlaceError::Foreign { path, owner } => format!("{} is uid {owner}'s by now", path.display()),
    }
}

/// Files of single runs and their streams, which go with them.
fn is_of_run(name: &OsString) -> bool {
    [".out", ".err", ".part", ".kin"].iter().any(|end| name.as_bytes().ends_with(end.as_bytes()))
}

impl Daemon {
    /// What the next image goes by is where it looks: nobody has removed it, or that was seen and mended.
    pub(super) fn is_whole(&self) -> bool {
        let kept = |private: &PathBuf| self.host.is_kept_in_memory() || self.host.is_kept_in(private);
        self.ground.is_own()
            && !self.lacks_socket()
            && self.journal.is_whole()
            && self.ground.private.as_ref().is_none_or(kept)
    }

    /// The control socket is gone, and could not be put back: no image can begin without it.
    pub(super) fn lacks_socket(&self) -> bool {
        let runtime = self.ground.runtime.as_ref().filter(|_| self.ground.accepting.is_some());
        runtime.is_some_and(|runtime| is_gone(&runtime.join(listener::SOCKET), self.ground.socket))
    }

    /// Looks what is gone of the runtime directory, and puts it back.
    pub(super) fn put_back(&mut self) {
        self.ground.due = None;
        let Some(runtime) = self.ground.runtime.clone() else { return };
        let names = std::mem::take(&mut self.ground.gone);
        failpoint::reach("putting-back");
        if !names.is_empty() && names.iter().all(is_of_run) {
            self.host.put_back();
            return self.logs.put_back(None, Some(names));
        }
        let mut back = Vec::new();
        let (lack, why) = match self.put_all_back(&runtime, &mut back) {
            Ok(wrong) if wrong.is_empty() => (Lack::Nothing, String::new()),
            Ok(wrong) => (Lack::Own, wrong.join("; ")),
            Err(error) => (Lack::Next, error),
        };
        let before = std::mem::replace(&mut self.ground.lack, lack);
        if lack > Lack::Nothing {
            self.ground.gone.extend(names.into_iter().chain([OsString::new()]));
            self.ground.due = Some(Instant::now() + AGAIN);
        }
        let (what, runtime) = (back.join(", "), runtime.display());
        let then = match lack {
            Lack::Next => {
                "nothing is started until then, and should uphold be killed, the next one finds no service and \
                 starts all of them a second time"
            }
            Lack::Own | Lack::Nothing => "the next uphold takes over what runs as before",
        };
        if lack == before && (lack > Lack::Nothing || back.is_empty()) {
            return;
        }
        if lack == Lack::Nothing && before > lack {
            return self.own_event("RuntimeDirRestored", false, format!("{runtime} is whole again: {then}"));
        }
        let message = if lack == Lack::Nothing {
            format!(
                "somebody has removed {what} from {runtime} while uphold runs; it was put back, and {then}"
            )
        } else {
            format!(
                "somebody has removed files from {runtime} while uphold runs, and they cannot be put back: {why}; \
                 trying again every second; {then}"
            )
        };
        self.own_event("RuntimeDirLost", true, message);
    }

    /// The lock first: who has it says what lies here. The state last: it counts once all it speaks of is there.
    /// Gives what this uphold does without, and why; the error is of what the next one needs.
    fn put_all_back(&mut self, runtime: &Path, back: &mut Vec<&'static str>) -> Result<Vec<String>, String> {
        let ground = &mut self.ground;
        if !runtime.is_dir() {
            back.push("the directory itself");
        }
        make_runtime(runtime, host::uid()).map_err(cannot_make)?;
        let private = ground.private.clone();
        if private.is_some() {
            make_private(runtime).map_err(cannot_make)?;
        }
        // What the next uphold needs comes before what this one does without.
        let mut wrong = Vec::new();
        if let Some(guard) = &mut ground.guard {
            let dirs = [Some(runtime), private.as_deref()].into_iter().flatten();
            if let Err(error) = guard.watch(dirs) {
                wrong.push(format!("watching it: {error}"));
            }
        }
        if ground.lock.as_ref().is_some_and(|lock| !lock.is_in(runtime)) {
            let lock = lock_again(runtime).map_err(|error| error.to_string())?;
            if let Some(private) = &private {
                self.journal.left_by_another(private)?;
            }
            self.ground.lock = Some(lock);
            back.push("lock");
        }
        if let Some(private) = private {
            self.put_private_back(&private, back, &mut wrong)?;
        }
        wrong.extend(self.put_socket_back(runtime, back).err());
        let there = self.board.is_at(&runtime.join("endpoints"));
        // Without the lock none was written.
        if !there || back.contains(&"lock") {
            self.board.put_back(self.engine.endpoints());
        }
        if !there {
            back.push("endpoints");
        }
        Ok(wrong)
    }

    /// `wrong` gets what this uphold does without, and why.
    fn put_private_back(
        &mut self,
        private: &Path,
        back: &mut Vec<&'static str>,
        wrong: &mut Vec<String>,
    ) -> Result<(), String> {
        let before = back.len();
        if self.host.is_kept_in_memory() {
            // Where nothing can be mapped, neither notes nor page are there.
            (self.ground.notes, self.ground.page) = (None, None);
        } else if !self.host.is_kept_in(private) {
            self.host.keep_anew(private).map_err(|error| format!("private/runs: {error}"))?;
            back.push("private/runs");
        }
        let page = private.join(host::CRASHES);
        if is_gone(&page, self.ground.page) {
            match host::renew_crashes(private) {
                Ok(()) => {
                    self.ground.page = FileId::at(&page);
                    back.push("private/crash");
                }
                Err(error) => wrong.push(format!("private/crash: {error}")),
            }
        }
        let notes = private.join(lasting::NOTES);
        let mut region = None;
        if is_gone(&notes, self.ground.notes) {
            match lasting::anew(private) {
                Ok(made) => {
                    region = Some(made);
                    self.ground.notes = FileId::at(&notes);
                    back.push("private/pump");
                }
                Err(error) => wrong.push(format!("private/pump: {error}")),
            }
        }
        note_logs(private, self.logs.has_dir());
        self.logs.put_back(region, None);
        self.host.put_back();
        if back.len() > before || !self.journal.is_whole() {
            self.journal.renew(&self.engine).map_err(|error| format!("private/state: {error}"))?;
            back.push("private/state");
        }
        Ok(())
    }

    /// Who is connected stays so.
    fn put_socket_back(&mut self, runtime: &Path, back: &mut Vec<&'static str>) -> Result<(), String> {
        let path = runtime.join(listener::SOCKET);
        if self.ground.accepting.is_none() || !is_gone(&path, self.ground.socket) {
            return Ok(());
        }
        let server: Arc<control::Server> = self.server.clone();
        let accepting = listen(&path, None, server).map_err(|error| format!("control.sock: {error}"))?;
        self.ground.accepting = Some(accepting);
        self.ground.socket = FileId::at(&path);
        back.push("control.sock");
        Ok(())
    }
}
