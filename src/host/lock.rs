//! The lock of a runtime directory: one uphold at a time, and none before the children of the last one are
//! what they were to become.
//!
//! It is a flock(2) on the file `lock`, close-on-exec. So a child between clone and exec holds it too: who has
//! got the lock knows that every child that an uphold before has made is recorded, and is uphold no more.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use super::slots::{self, Record};
use super::{Inherited, kin, sys};
use crate::unit::Signal;

/// How long the children of a dead uphold may take to go once they got SIGKILL.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(5);

/// The runtime directory is this uphold's for as long as it is held.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "held, not read")] Flock<File>);

/// Why a runtime directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A living uphold has it.
    #[error("cannot use {}: uphold with pid {} holds it; stop that one, or name another --runtime-dir",
        dir.display(), pid.map_or("unknown".to_owned(), |pid| pid.to_string()))]
    Held {
        /// The runtime directory.
        dir: PathBuf,
        /// As it wrote it into the file, in its own pid namespace.
        pid: Option<u32>,
    },
    /// The file cannot be made.
    #[error("cannot lock {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Who wrote the lock file.
#[derive(Debug, Default)]
struct Holder {
    pid: Option<u32>,
    start: u64,
    /// Device and inode of its executable.
    image: (u64, u64),
}

/// Takes the lock of a runtime directory, which then says who has it. The kernel lets go of it when uphold
/// ends, however that is. Where a dead uphold has left children that have not executed their command yet,
/// these are ended first.
/// The image before this one in the same process has left its lock open: then that goes on.
pub fn lock_runtime_dir(dir: &Path, inherited: &mut Inherited) -> Result<Lock, LockError> {
    let path = dir.join("lock");
    let io = |error| LockError::Io { path: path.clone(), error };
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
    let until = Instant::now() + PATIENCE;
    let private = dir.join("private");
    let mut unborn = Vec::new();
    let mut locked = loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => break locked,
            Err((back, nix::errno::Errno::EWOULDBLOCK)) => file = back,
            Err((_, errno)) => return Err(io(errno.into())),
        }
        let holder = Holder::read(&mut file);
        if holder.is_self()
            && let Some(ours) = inherited.take_file(&path)
        {
            file = ours.into();
            continue;
        }
        if holder.lives() || Instant::now() >= until {
            return Err(LockError::Held { dir: dir.to_owned(), pid: holder.pid });
        }
        unborn.extend(slots::peek(&private).into_iter().filter(|record| holder.end_unborn(record)));
        std::thread::sleep(LOOK);
    };
    // They never executed their commands: there was no start, and nothing has crashed. Where that cannot be
    // written, they count as having ended unseen.
    let _ = slots::unbear(&private, &unborn);
    locked.set_len(0).map_err(io)?;
    locked.rewind().map_err(io)?;
    let (pid, start, (device, inode)) = (std::process::id(), super::own_start(), image("self"));
    writeln!(locked, "{pid} {start} {device} {inode}").map_err(io)?;
    Ok(Lock(locked))
}

/// Device and inode of what a process executes.
fn image(pid: &str) -> (u64, u64) {
    fs::metadata(format!("/proc/{pid}/exe")).map_or((0, 0), |found| (found.dev(), found.ino()))
}

impl Holder {
    fn read(file: &mut File) -> Holder {
        let mut text = String::new();
        let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
        let mut words = text.split_ascii_whitespace();
        let pid = words.next().and_then(|word| word.parse().ok());
        let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        Holder { pid, start: number(), image: (number(), number()) }
    }

    fn is_self(&self) -> bool {
        self.pid == Some(std::process::id()) && self.start == super::own_start()
    }

    /// The uphold that wrote this lives. One that has not written yet is as good as alive.
    fn lives(&self) -> bool {
        let Some(pid) = self.pid else { return true };
        let found = kin::proc(pid.cast_signed()).ok().flatten();
        found.is_some_and(|found| !found.zombie && (self.start == 0 || found.start == self.start))
    }

    /// Ends a recorded child that still executes what this uphold did. The pidfd comes first, so that it is
    /// held while it is looked at. Whether it was one.
    fn end_unborn(&self, record: &Record) -> bool {
        let Ok(pidfd) = sys::pidfd_open(record.pid) else { return false };
        let unborn = self.image != (0, 0) && image(&record.pid.to_string()) == self.image;
        unborn && sys::pidfd_kill(&pidfd, Signal::KILL).is_ok()
    }
}
