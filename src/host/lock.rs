//! The lock of a runtime directory: one uphold at a time, and none before the children of the last one are
//! what they were to become.
//!
//! It is a flock(2) on the file `lock`, close-on-exec. So a child between clone and exec holds it too: who has
//! got the lock knows that every child that an uphold before has made is recorded, and is uphold no more.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::libc;

use super::slots::{self, Record};
use super::{Inherited, kin, sys};
use crate::unit::Signal;

/// How long the children of a dead uphold may take to go once they got SIGKILL.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(5);

/// The runtime directory is this uphold's for as long as it is held.
#[derive(Debug)]
pub struct Lock(Flock<File>);

impl Lock {
    /// It is the lock of this directory: nobody has removed its file.
    pub fn is_in(&self, dir: &Path) -> bool {
        let id = |found: io::Result<fs::Metadata>| found.ok().map(|found| (found.dev(), found.ino()));
        let ours = id(self.0.metadata());
        ours.is_some() && ours == id(fs::symlink_metadata(dir.join("lock")))
    }
}

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
    let mut file = open(&path).map_err(io)?;
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
    sign(&mut locked);
    Ok(Lock(locked))
}

/// The runtime directory of the image before this one in the same process, which has left its lock open: where it
/// is, or was before somebody removed it. `None`: there was none.
pub fn runtime_dir_before(inherited: &Inherited) -> Option<PathBuf> {
    let ours = |own: &Path| File::open(own).is_ok_and(|mut file| Holder::read(&mut file).is_self());
    let (_, path) = inherited.named("lock").rfind(|(own, _)| ours(own))?;
    path.parent().map(Path::to_owned)
}

/// Takes the lock of a directory that has lost that of this uphold, which lives. Waits for nobody.
pub fn lock_again(dir: &Path) -> Result<Lock, LockError> {
    let path = dir.join("lock");
    let io = |error| LockError::Io { path: path.clone(), error };
    match Flock::lock(open(&path).map_err(io)?, FlockArg::LockExclusiveNonblock) {
        Ok(mut locked) => {
            sign(&mut locked);
            Ok(Lock(locked))
        }
        Err((mut held, nix::errno::Errno::EWOULDBLOCK)) => {
            Err(LockError::Held { dir: dir.to_owned(), pid: Holder::read(&mut held).pid })
        }
        Err((_, errno)) => Err(io(errno.into())),
    }
}

/// Who may open it may lock it: 0600, or any user could keep uphold from coming back.
fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Says in the file who has it. It is held, whether the disk has room to say by whom or not.
fn sign(locked: &mut Flock<File>) {
    let (pid, start, (device, inode)) = (std::process::id(), super::own_start(), image("self"));
    let text = format!("{pid} {start} {device} {inode}\n");
    let written = locked.rewind().and_then(|()| locked.write_all(text.as_bytes()));
    let _ = written.and_then(|()| locked.set_len(text.len() as u64));
}

/// Waits for the end of the uphold that has left a state in this directory, which is about to be if the lock was
/// its own. One that goes on has lost its lock file, and is not to be taken over while it lives.
pub fn wait_for_end(dir: &Path, pid: u32, start: u64) -> Result<(), LockError> {
    let before = Holder { pid: Some(pid), start, image: (0, 0) };
    let until = Instant::now() + PATIENCE;
    while before.lives() {
        if Instant::now() >= until {
            return Err(LockError::Held { dir: dir.to_owned(), pid: Some(pid) });
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
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

    /// Ends a recorded child that still executes what this uphold did, and of which nobody has seen the exec: a
    /// service may be an uphold, too. The pidfd comes first, so that it is held while it is looked at. Whether it
    /// was one.
    fn end_unborn(&self, record: &Record) -> bool {
        if record.start != 0 || record.pid == std::process::id().cast_signed() {
            return false;
        }
        let Ok(pidfd) = sys::pidfd_open(record.pid) else { return false };
        let unborn = self.image != (0, 0) && image(&record.pid.to_string()) == self.image;
        unborn && sys::pidfd_kill(&pidfd, Signal::KILL).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Run;

    #[test]
    fn only_who_has_not_executed_its_command_is_ended() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = child.id().cast_signed();
        // A service that is what uphold is, too: one whose exec was seen, and one of which nobody knows.
        while !fs::read_link(format!("/proc/{pid}/exe"))
            .is_ok_and(|exe| exe != std::env::current_exe().unwrap())
        {
            std::thread::yield_now();
        }
        let holder = Holder { pid: Some(1), start: 0, image: image(&pid.to_string()) };
        let record = |start| Record { run: Run(1), pid, start, uid: 0, exit: None };
        holder.end_unborn(&record(kin::started(pid)));
        assert!(sys::pidfd_lives(&sys::pidfd_open(pid).unwrap()));
        holder.end_unborn(&record(0));
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_lock_is_for_its_owner_alone_and_says_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        fs::write(&path, "an older one that had more to say than there is to be said now, or ever was\n")
            .unwrap();
        let lock = lock_runtime_dir(dir.path(), &mut Inherited::default()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(&format!("{} ", std::process::id())) && text.lines().count() == 1, "{text}");
        drop(lock);
    }
}
