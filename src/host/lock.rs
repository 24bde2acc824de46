//! The lock of a runtime directory: one uphold at a time, and none before the children of the last one are
//! what they were to become.
//!
//! It is a flock(2) on the file `lock`, close-on-exec. So a child between clone and exec holds it too: who has
//! got the lock knows that every child that an uphold before has made is recorded, and is uphold no more.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::libc;

use super::slots::{self, Record};
use super::{Inherited, kin, reexec, sys};
use crate::file_id::FileId;
use crate::unit::Signal;

/// How long the children of a dead uphold may take to go once they got SIGKILL.
const PATIENCE: Duration = Duration::from_secs(5);
/// After so long one that is there still, and could only be in another pid namespace, is not about to end.
const SETTLED: Duration = Duration::from_millis(500);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(5);

/// The runtime directory is this uphold's for as long as it is held.
#[derive(Debug)]
pub struct Lock(Flock<File>);

impl Lock {
    /// Stays held, through the exec of an image that could not begin: nobody is to come between.
    pub fn hand_on(self) {
        std::mem::forget(self);
    }

    /// It is the lock of this directory: nobody has removed its file.
    pub fn is_in(&self, dir: &Path) -> bool {
        FileId::of(&self.0).is_some_and(|ours| ours.is_at(&dir.join("lock")))
    }
}

/// Why a runtime directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A living uphold has it.
    #[error(
        "cannot use {}: uphold with pid {} holds it{}; `uphold ctl upgrade` replaces it in place, stopping it stops its \
         services, or name another --runtime-dir", dir.display(),
        pid.map_or("unknown".to_owned(), |pid| pid.to_string()),
        if *elsewhere { ", in another pid namespace" } else { "" }
    )]
    Held {
        /// The runtime directory.
        dir: PathBuf,
        /// As it is seen from here.
        pid: Option<u32>,
        /// It is in another pid namespace.
        elsewhere: bool,
    },
    /// A dead uphold had it, and what it was about to start has it still.
    #[error(
        "cannot use {}: the uphold that had it is gone, and what it was starting hangs before its command is \
         executed, and not even SIGKILL ends it (pid {}): see whether the file systems that it needs answer, or \
         name another --runtime-dir", dir.display(), pids.iter().map(i32::to_string).collect::<Vec<_>>().join(", ")
    )]
    Unborn {
        /// The runtime directory.
        dir: PathBuf,
        /// The processes, at least one.
        pids: Vec<i32>,
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
}

/// Takes the lock of a runtime directory, which then says who has it. The kernel lets go of it when uphold
/// ends, however that is. Where a dead uphold has left children that have not executed their command yet,
/// these are ended first.
/// The image before this one in the same process has left its lock open: then that goes on.
pub fn lock_runtime_dir(dir: &Path, inherited: &mut Inherited) -> Result<Lock, LockError> {
    let path = dir.join("lock");
    let io = |error| LockError::Io { path: path.clone(), error };
    let mut file = open(&path).map_err(io)?;
    let begun = Instant::now();
    let mut looked = false;
    let private = dir.join("private");
    let mut unborn = Vec::new();
    let mut locked = loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => {
                // Should this image not begin, it is not to be had by another before the next attempt.
                reexec::also_hand_on(locked.as_raw_fd());
                break locked;
            }
            Err((back, nix::errno::Errno::EWOULDBLOCK)) => file = back,
            Err((_, errno)) => return Err(io(errno.into())),
        }
        let holder = Holder::read(&mut file);
        // The disk may have had no room for who has it.
        if (holder.is_self() || reexec::goes_on())
            && let Some(ours) = inherited.take_file(&path)
        {
            file = ours.into();
            continue;
        }
        if holder.lives() {
            return Err(held(dir, holder.pid));
        }
        if begun.elapsed() >= SETTLED && !std::mem::replace(&mut looked, true) {
            // That the pid in the file is nobody's here says nothing of another pid namespace.
            let living = keepers(&file).into_iter().find(|(_, unborn)| !unborn);
            if let Some((pid, _)) = living {
                return Err(held_by(dir, pid));
            }
        }
        if begun.elapsed() >= PATIENCE {
            return Err(kept_out(dir, &file));
        }
        unborn.extend(slots::peek(&private).into_iter().filter(|record| end_unborn(record, &file)));
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
    let ours = |own: &Path| sys::open_file(own).is_ok_and(|mut file| Holder::read(&mut file).is_self());
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
        Err((mut held, nix::errno::Errno::EWOULDBLOCK)) => Err(self::held(dir, Holder::read(&mut held).pid)),
        Err((_, errno)) => Err(io(errno.into())),
    }
}

/// Who may open it may lock it: 0600, or any user could keep uphold from coming back.
fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file; remove it"));
    }
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Says in the file who has it. It is held, whether the disk has room to say by whom or not.
fn sign(locked: &mut Flock<File>) {
    let text = format!("{} {}\n", std::process::id(), super::own_start());
    let written = locked.rewind().and_then(|()| locked.write_all(text.as_bytes()));
    let _ = written.and_then(|()| locked.set_len(text.len() as u64));
}

/// Waits for the end of the uphold that has left a state in this directory, which is about to be if the lock was
/// its own. One that goes on has lost its lock file, and is not to be taken over while it lives.
pub fn wait_for_end(dir: &Path, pid: u32, start: u64) -> Result<(), LockError> {
    let before = Holder { pid: Some(pid), start };
    let until = Instant::now() + PATIENCE;
    while before.lives() {
        if Instant::now() >= until {
            return Err(held(dir, Some(pid)));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// A living uphold has it, as the file says.
fn held(dir: &Path, pid: Option<u32>) -> LockError {
    LockError::Held { dir: dir.to_owned(), pid, elsewhere: false }
}

/// A living uphold has it, as /proc says.
fn held_by(dir: &Path, pid: i32) -> LockError {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let (own, theirs) = (namespace("self"), namespace(&pid.to_string()));
    let elsewhere = own.is_some() && theirs.is_some() && own != theirs;
    LockError::Held { dir: dir.to_owned(), pid: u32::try_from(pid).ok(), elsewhere }
}

/// Who keeps a lock, though who wrote the file is gone.
fn kept_out(dir: &Path, lock: &File) -> LockError {
    let keepers = keepers(lock);
    // A child that has executed nothing is of an uphold that lives, if there is one.
    match keepers.iter().find(|(_, unborn)| !unborn) {
        Some((pid, _)) => held_by(dir, *pid),
        None if keepers.is_empty() => held(dir, None),
        None => {
            LockError::Unborn { dir: dir.to_owned(), pids: keepers.into_iter().map(|(pid, _)| pid).collect() }
        }
    }
}

/// Those that have this lock, and whether they have executed nothing yet. Who has executed something, and has it, is a
/// living uphold: it is close-on-exec.
fn keepers(lock: &File) -> Vec<(i32, bool)> {
    let own = std::process::id().cast_signed();
    let procs =
        kin::snapshot().unwrap_or_default().into_iter().filter(|proc| proc.pid != own && !proc.zombie);
    let keeps = |proc: &kin::Proc| {
        if proc.unborn { has_open(proc.pid, lock) } else { has_locked(proc.pid, lock) }
    };
    procs.filter(keeps).map(|proc| (proc.pid, proc.unborn)).collect()
}

/// The process has this lock file open. What else it has open is not looked at: that may lie where nobody answers.
fn has_open(pid: i32, lock: &File) -> bool {
    descriptors(pid, lock).next().is_some()
}

/// It has it locked, too: others open it only to see who has it (proc_pid_fdinfo(5)).
fn has_locked(pid: i32, lock: &File) -> bool {
    let locked = |descriptor: OsString| {
        let path = Path::new("/proc").join(pid.to_string()).join("fdinfo").join(descriptor);
        fs::read_to_string(path).is_ok_and(|text| text.contains("FLOCK"))
    };
    descriptors(pid, lock).any(locked)
}

/// The descriptors, by number, that a process has of this file.
fn descriptors(pid: i32, lock: &File) -> impl Iterator<Item = OsString> {
    let wanted = FileId::of(lock);
    let entries = kin::place(pid, "fd").and_then(fs::read_dir).into_iter().flatten().flatten();
    let named = entries.filter(|entry| {
        let link = fs::read_link(entry.path()).unwrap_or_default();
        link.file_name().is_some_and(|name| name == "lock" || name == "lock (deleted)")
    });
    let same = named.filter(move |entry| wanted.is_some() && FileId::behind(&entry.path()) == wanted);
    same.map(|entry| entry.file_name())
}

/// Ends a recorded child that has executed nothing and has this lock from the uphold that made it; whether it was
/// one. Which image it is of does not matter: the uphold may have been upgraded since. The pidfd comes first, so
/// that it is held while it is looked at.
fn end_unborn(record: &Record, lock: &File) -> bool {
    if record.start != 0 || record.pid == std::process::id().cast_signed() {
        return false;
    }
    let Ok(pidfd) = sys::pidfd_open(record.pid) else { return false };
    let unborn = kin::proc(record.pid).ok().flatten().is_some_and(|proc| proc.unborn && !proc.zombie);
    unborn && has_open(record.pid, lock) && sys::pidfd_kill(&pidfd, Signal::KILL).is_ok()
}

impl Holder {
    fn read(file: &mut File) -> Holder {
        let mut text = String::new();
        let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
        let mut words = text.split_ascii_whitespace();
        let pid = words.next().and_then(|word| word.parse().ok());
        let start = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        Holder { pid, start }
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Run;

    #[test]
    fn only_who_has_executed_nothing_and_has_the_lock_is_ended() {
        let _alone = crate::alone::alone();
        let dir = tempfile::tempdir().unwrap();
        let record = |pid, start| Record { run: Run(1), pid, start, uid: 0, exit: None };
        let stranger = unborn();
        let lock = open(&dir.path().join("lock")).unwrap();
        let child = unborn();
        // What it has open as its stdout is for this: it has executed something.
        let mut command = std::process::Command::new("sleep");
        let mut sleep = command.arg("600").stdout(lock.try_clone().unwrap()).spawn().unwrap();
        let service = sleep.id().cast_signed();
        let ended = [(stranger, 0), (service, 0), (child, 7), (child, 0)]
            .map(|(pid, start)| end_unborn(&record(pid, start), &lock));
        let open = [stranger, service].map(|pid| has_open(pid, &lock));
        for pid in [stranger, child] {
            let _ = sys::kill(pid, Signal::KILL);
            sys::wait(sys::Child::Pid(pid), false, true).unwrap();
        }
        sleep.kill().unwrap();
        sleep.wait().unwrap();
        assert_eq!(ended, [false, false, false, true]);
        assert_eq!(open, [false, true]);
    }

    #[test]
    fn who_keeps_a_lock_that_a_dead_uphold_has_left_is_named() {
        let _alone = crate::alone::alone();
        let dir = tempfile::tempdir().unwrap();
        let nobody = open(&dir.path().join("lock")).unwrap();
        let said = |lock: &File| kept_out(dir.path(), lock).to_string();
        assert!(said(&nobody).contains("uphold with pid unknown holds it"), "{}", said(&nobody));
        // Who only looks at it does not keep it.
        let mut looks = std::process::Command::new("sleep")
            .arg("600")
            .stdout(nobody.try_clone().unwrap())
            .spawn()
            .unwrap();
        let by_nobody = said(&nobody);
        looks.kill().unwrap();
        looks.wait().unwrap();
        assert!(by_nobody.contains("uphold with pid unknown holds it; "), "{by_nobody}");
        let child = unborn();
        let text = said(&nobody);
        let _ = sys::kill(child, Signal::KILL);
        sys::wait(sys::Child::Pid(child), false, true).unwrap();
        assert!(text.contains(&format!("not even SIGKILL ends it (pid {child}): see whether")), "{text}");
    }

    #[test]
    fn who_has_executed_something_and_has_the_lock_is_a_living_uphold_wherever_its_pid_is_from() {
        let _alone = crate::alone::alone();
        let dir = tempfile::tempdir().unwrap();
        let mut lock = lock_runtime_dir(dir.path(), &mut Inherited::default()).unwrap();
        lock.0.rewind().unwrap();
        // As from another pid namespace: nobody here has that pid.
        lock.0.write_all(b"4194305 1\n").unwrap();
        let mut uphold = std::process::Command::new("sleep")
            .arg("600")
            .stdout(lock.0.try_clone().unwrap())
            .spawn()
            .unwrap();
        let descriptor = lock.0.as_raw_fd();
        std::mem::forget(lock);
        nix::unistd::close(descriptor).unwrap();
        let begun = Instant::now();
        let refused = lock_runtime_dir(dir.path(), &mut Inherited::default());
        let waited = begun.elapsed();
        uphold.kill().unwrap();
        uphold.wait().unwrap();
        let text = refused.unwrap_err().to_string();
        assert!(text.contains(&format!("uphold with pid {} holds it; ", uphold.id())), "{text}");
        assert!(waited < PATIENCE, "{waited:?}");
    }

    /// A child that executes nothing and has open what this process has.
    fn unborn() -> i32 {
        // SAFETY: the child does nothing but to wait for signals, which signal-safety(7) allows.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Parent { child } => child.as_raw(),
            nix::unistd::ForkResult::Child => loop {
                // SAFETY: takes nothing.
                let _ = unsafe { libc::pause() };
            },
        }
    }

    #[test]
    fn a_child_that_hangs_before_its_exec_keeps_nobody_out_whatever_image_it_is_of() {
        let _alone = crate::alone::alone();
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("private")).unwrap();
        let inherited = Inherited::default();
        let (mut slots, _) = slots::Slots::open(&inherited, Some(&dir.path().join("private")), 7).unwrap();
        let slot = slots.take(Run(1)).unwrap().unwrap();
        let mut lock = lock_runtime_dir(dir.path(), &mut Inherited::default()).unwrap();
        // Of one that is gone, and that was of another image when it wrote this than when it made the child.
        let text = format!("{} 1\n", std::process::id());
        lock.0.rewind().unwrap();
        lock.0.set_len(0).unwrap();
        lock.0.write_all(text.as_bytes()).unwrap();
        let child = unborn();
        slot.pid.store(child, std::sync::atomic::Ordering::SeqCst);
        // A kill closes it, and unlocks nothing that somebody else has open.
        let descriptor = lock.0.as_raw_fd();
        std::mem::forget(lock);
        nix::unistd::close(descriptor).unwrap();
        let locked = lock_runtime_dir(dir.path(), &mut Inherited::default());
        let _ = sys::kill(child, Signal::KILL);
        sys::wait(sys::Child::Pid(child), false, true).unwrap();
        assert!(locked.is_ok(), "{locked:?}");
        assert_eq!(slot.record().pid, 0);
    }

    #[test]
    fn a_lock_is_for_its_owner_alone_and_says_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        fs::write(&path, "an older one that had more to say than there is to be said now, or ever was\n")
            .unwrap();
        let lock = lock_runtime_dir(dir.path(), &mut Inherited::default()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(&format!("{} ", std::process::id())) && text.lines().count() == 1, "{text}");
        drop(lock);
    }
}
