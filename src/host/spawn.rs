//! The child between clone and exec.
//!
//! It runs in the memory of uphold on a stack of its own while the calling thread sleeps (vfork), so it
//! makes raw system calls only: no allocation, no lock, no function of the C library that keeps state.
//! `setresuid` and its like are raw too: the C library's would change every thread of uphold.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::libc::{self, c_char, c_int, c_long, c_ulong, c_void, pid_t};

use nix::sys::stat::Mode;

use super::slots::{Slot, paired};
use super::sys::{above_stdio, check};

/// What was being set up when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// clone itself: there was no child.
    Clone,
    /// setsid or setpgid.
    Session,
    /// prlimit of the limit with this index.
    Limit(usize),
    /// Writing its oom_score_adj.
    Memory,
    /// dup3 of stdin, stdout or stderr.
    Stdio,
    /// setgroups, setresgid or setresuid.
    User,
    /// chdir.
    Directory,
    /// execve.
    Exec,
}

impl Stage {
    /// As a number that fits an atomic; 0 is for no failure.
    fn number(self) -> usize {
        match self {
            Stage::Clone => 1,
            Stage::Session => 2,
            Stage::Stdio => 3,
            Stage::User => 4,
            Stage::Directory => 5,
            Stage::Exec => 6,
            Stage::Memory => 7,
            Stage::Limit(index) => 8 + index,
        }
    }

    fn from_number(number: usize) -> Option<Stage> {
        Some(match number {
            0 => return None,
            1 => Stage::Clone,
            2 => Stage::Session,
            3 => Stage::Stdio,
            4 => Stage::User,
            5 => Stage::Directory,
            6 => Stage::Exec,
            7 => Stage::Memory,
            limit => Stage::Limit(limit - 8),
        })
    }
}

/// Whom the child becomes, where it has to become somebody.
#[derive(Debug, Clone, Default)]
pub(super) struct Become {
    /// setgroups with these.
    pub groups: Option<Vec<u32>>,
    /// setresgid.
    pub gid: Option<u32>,
    /// setresuid.
    pub uid: Option<u32>,
}

/// Everything that the child does, resolved.
#[derive(Debug)]
pub(super) struct Image {
    /// Paths to try in turn; not empty.
    pub candidates: Vec<CString>,
    /// argv.
    pub argv: Vec<CString>,
    /// environ.
    pub envp: Vec<CString>,
    /// chdir to it; `None`: stay.
    pub dir: Option<CString>,
    /// Identity.
    pub identity: Become,
    /// umask; `None`: uphold's own.
    pub umask: Option<u32>,
    /// prlimit: resource, soft, hard.
    pub limits: Vec<(c_int, u64, u64)>,
    /// oom_score_adj; `None`: uphold's own.
    pub oom_score_adj: Option<CString>,
    /// To become 0, 1 and 2, all of them above 2; `None`: uphold's own are kept.
    pub stdio: Option<[RawFd; 3]>,
    /// `true`: setsid. `false`: a process group of its own, in the foreground of the terminal on stdin.
    pub session: bool,
    /// Signals that uphold ignores: their default is restored.
    pub ignored: Arc<[c_int]>,
}

/// The cgroup that a child is born into: its directory, for CLONE_INTO_CGROUP.
#[derive(Debug)]
pub(super) struct Into(pub OwnedFd);

impl Into {
    /// Its cgroup.procs, for the child itself to write to where CLONE_INTO_CGROUP does not work.
    fn procs(&self) -> Result<OwnedFd, Errno> {
        let procs = openat(&self.0, "cgroup.procs", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        above_stdio(procs).map_err(|error| error.raw_os_error().map_or(Errno::EBADF, Errno::from_raw))
    }
}

/// A child that executes its command.
#[derive(Debug)]
pub(super) struct Born {
    /// Its pid. It is not reaped.
    pub pid: pid_t,
    /// It is not in the cgroup that was meant for it.
    pub outside: Option<Errno>,
}

/// A stack for children, with a guard page below it.
pub(super) struct Stack {
    base: *mut c_void,
}

const GUARD: usize = 64 << 10;
const STACK: usize = 128 << 10;

impl Stack {
    /// Maps one.
    pub(super) fn new() -> Result<Stack, Errno> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe { libc::mmap(ptr::null_mut(), GUARD + STACK, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let stack = Stack { base };
        // SAFETY: the range is the lower end of our own mapping, and nothing uses it yet.
        check(c_long::from(unsafe { libc::mprotect(base, GUARD, libc::PROT_NONE) }))?;
        Ok(stack)
    }

    fn top(&self) -> *mut c_void {
        self.base.wrapping_byte_add(GUARD + STACK)
    }

    fn usable(&self) -> *mut c_void {
        self.base.wrapping_byte_add(GUARD)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and a child that used it has left it: the parent slept until then.
        let _ = unsafe { libc::munmap(self.base, GUARD + STACK) };
    }
}

/// What parent and child both see. The pointers are to vectors of the parent, which sleeps.
struct Shared<'a> {
    image: &'a Image,
    candidates: &'a [*const c_char],
    argv: *const *const c_char,
    envp: *const *const c_char,
    /// To be written to by the child; -1: it is there already, or there is none.
    procs: RawFd,
    /// The kernel has not reset the handlers.
    reset_all: bool,
    /// Where the child says when it started.
    early: Option<&'static AtomicU64>,
    stage: AtomicUsize,
    errno: AtomicI32,
    outside: AtomicI32,
}

/// Starts a child. When this returns `Ok`, its exec has succeeded (or it was killed before it could say
/// otherwise). A child that failed is reaped here. The calling thread must have all signals blocked.
///
/// Its pid stands in `slot` before it runs, whatever becomes of uphold: the kernel writes it there in the call, as
/// soon as there is a child. `pid` has it before the child's first instruction. When it started stands there before
/// its exec, if there is a /proc that says so.
pub(super) fn start(
    stack: &Stack,
    image: &Image,
    cgroup: Option<&Into>,
    pid: &AtomicI32,
    slot: Option<&'static Slot>,
) -> Result<Born, (Stage, Errno)> {
    start_with(stack, image, cgroup, Pids { pid, slot }, true)
}

/// Where a child's pid goes.
#[derive(Clone, Copy)]
struct Pids<'a> {
    /// In the memory of uphold.
    pid: &'a AtomicI32,
    /// In memory that outlives it.
    slot: Option<&'static Slot>,
}

impl Pids<'_> {
    fn flags(self) -> c_int {
        if self.slot.is_some() {
            libc::CLONE_PARENT_SETTID | libc::CLONE_CHILD_SETTID
        } else {
            libc::CLONE_PARENT_SETTID
        }
    }

    /// CLONE_PARENT_SETTID: the kernel writes there before it lets the child run. What CLONE_CHILD_SETTID names is
    /// written by the child once it has its turn, and an image that takes over may look before that.
    fn parent(self) -> *mut pid_t {
        self.slot.map_or(self.pid, |slot| &slot.pid).as_ptr()
    }

    /// CLONE_CHILD_SETTID.
    fn child(self) -> *mut pid_t {
        if self.slot.is_some() { self.pid.as_ptr() } else { ptr::null_mut() }
    }
}

fn start_with(
    stack: &Stack,
    image: &Image,
    cgroup: Option<&Into>,
    child: Pids<'_>,
    newer: bool,
) -> Result<Born, (Stage, Errno)> {
    let candidates: Vec<*const c_char> = image.candidates.iter().map(|path| path.as_ptr()).collect();
    let argv = pointers(&image.argv);
    let envp = pointers(&image.envp);
    let mut shared = Shared {
        image,
        candidates: &candidates,
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        procs: -1,
        reset_all: false,
        early: child.slot.map(|slot| &slot.early),
        stage: AtomicUsize::new(0),
        errno: AtomicI32::new(0),
        outside: AtomicI32::new(0),
    };
    let tried = if newer { clone3(stack, &shared, cgroup, child) } else { Err(Errno::ENOSYS) };
    let born = match tried {
        Err(errno) if !matches!(errno, Errno::EAGAIN | Errno::ENOMEM) => {
            // Old kernels, seccomp filters and valgrind have no clone3, some sandboxes no
            // CLONE_INTO_CGROUP: the older call then, and the child moves itself.
            let procs = cgroup.map(Into::procs).transpose();
            shared.procs = procs.as_ref().ok().and_then(Option::as_ref).map_or(-1, AsRawFd::as_raw_fd);
            if let Err(errno) = &procs {
                shared.outside.store(*errno as i32, Ordering::SeqCst);
            }
            shared.reset_all = true;
            clone(stack, &shared, child)
        }
        answer => answer,
    };
    let pid = born.map_err(|errno| (Stage::Clone, errno))?;
    let Some(stage) = Stage::from_number(shared.stage.load(Ordering::SeqCst)) else {
        let outside = shared.outside.load(Ordering::SeqCst);
        return Ok(Born { pid, outside: (outside != 0).then(|| Errno::from_raw(outside)) });
    };
    // It is about to end or has ended: this waits for a moment only.
    let _ = super::sys::wait(super::sys::Child::Pid(pid), false, true);
    Err((stage, Errno::from_raw(shared.errno.load(Ordering::SeqCst))))
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

#[cfg(target_arch = "x86_64")]
fn clone3(stack: &Stack, shared: &Shared<'_>, cgroup: Option<&Into>, pids: Pids<'_>) -> Result<pid_t, Errno> {
    let vfork = libc::CLONE_VM | libc::CLONE_VFORK | pids.flags();
    let vfork = u64::from(vfork.cast_unsigned());
    let into = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
    let args = libc::clone_args {
        flags: vfork | CLONE_CLEAR_SIGHAND | into,
        pidfd: 0,
        child_tid: pids.child().expose_provenance() as u64,
        parent_tid: pids.parent().expose_provenance() as u64,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        stack: stack.usable().addr() as u64,
        stack_size: STACK as u64,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup.map_or(0, |cgroup| u64::try_from(cgroup.0.as_raw_fd()).unwrap_or(0)),
    };
    let mut answer = libc::SYS_clone3;
    let (entry, shared) = (child as *const (), ptr::from_ref(shared));
    // SAFETY: `args`, `shared` and the places of `pids` live through the call, because CLONE_VFORK lets this thread go on only
    // once the child has executed or exited. The child starts at the top of a stack that nobody else uses,
    // 16-aligned as the call wants it; it never returns from `child`. Every register that the kernel or
    // the parent's side changes is named.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inout("rax") answer,
            in("rdi") ptr::from_ref(&args),
            in("rsi") size_of::<libc::clone_args>(),
            in("r12") entry,
            in("r13") shared,
            out("rcx") _,
            out("r11") _,
        );
    }
    if answer < 0 {
        return Err(Errno::from_raw(c_int::try_from(-answer).unwrap_or(libc::EINVAL)));
    }
    pid_t::try_from(answer).map_err(|_| Errno::EINVAL)
}

#[cfg(not(target_arch = "x86_64"))]
fn clone3(
    _stack: &Stack,
    _shared: &Shared<'_>,
    _cgroup: Option<&Into>,
    _pids: Pids<'_>,
) -> Result<pid_t, Errno> {
    Err(Errno::ENOSYS)
}

/// The C library's clone: the fallback everywhere.
fn clone(stack: &Stack, shared: &Shared<'_>, pids: Pids<'_>) -> Result<pid_t, Errno> {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | pids.flags() | libc::SIGCHLD;
    let (parent, tls, child) = (pids.parent(), ptr::null_mut::<c_void>(), pids.child());
    let argument = ptr::from_ref(shared).cast_mut().cast::<c_void>();
    // SAFETY: the stack is the child's alone, and `shared` outlives it because of CLONE_VFORK. The kernel
    // writes one pid_t to each place of `pids`, which live through the call; it looks at none that the flags
    // do not name.
    let answer = unsafe { libc::clone(child_of_clone, stack.top(), flags, argument, parent, tls, child) };
    check(c_long::from(answer)).map(|_| answer)
}

extern "C" fn child_of_clone(shared: *mut c_void) -> c_int {
    child(shared.cast_const().cast())
}

/// The child's whole life before its exec.
extern "C" fn child(shared: *const Shared<'static>) -> ! {
    // SAFETY: the parent made it, keeps it and sleeps.
    let shared = unsafe { &*shared };
    let Err((stage, errno)) = set_up(shared);
    shared.errno.store(errno as i32, Ordering::SeqCst);
    shared.stage.store(stage.number(), Ordering::SeqCst);
    loop {
        // SAFETY: exit_group ends the process, which shares memory but no threads with uphold.
        let _ = unsafe { libc::syscall(libc::SYS_exit_group, 126) };
    }
}

fn set_up(shared: &Shared<'_>) -> Result<Infallible, (Stage, Errno)> {
    let image = shared.image;
    reset_signals(shared);
    if let Some(early) = shared.early {
        early.store(raw::own_start(), Ordering::SeqCst);
    }
    if image.session {
        raw::setsid().map_err(|errno| (Stage::Session, errno))?;
    } else {
        raw::own_group().map_err(|errno| (Stage::Session, errno))?;
        // All signals are blocked, so this does not stop us; without a terminal there is nothing to do.
        let _ = raw::take_terminal();
    }
    if shared.procs >= 0
        && let Err(errno) = raw::write_zero(shared.procs)
    {
        shared.outside.store(errno as i32, Ordering::SeqCst);
    }
    for (index, (resource, soft, hard)) in image.limits.iter().enumerate() {
        raw::set_limit(*resource, *soft, *hard).map_err(|errno| (Stage::Limit(index), errno))?;
    }
    if let Some(score) = &image.oom_score_adj {
        raw::write_file(c"/proc/self/oom_score_adj", score).map_err(|errno| (Stage::Memory, errno))?;
    }
    if let Some(stdio) = &image.stdio {
        for (target, source) in (0..).zip(stdio) {
            raw::dup3(*source, target).map_err(|errno| (Stage::Stdio, errno))?;
        }
    }
    become_user(&image.identity).map_err(|errno| (Stage::User, errno))?;
    if let Some(dir) = &image.dir {
        raw::chdir(dir).map_err(|errno| (Stage::Directory, errno))?;
    }
    if let Some(umask) = image.umask {
        raw::umask(umask);
    }
    raw::close_from(3);
    raw::unblock_signals();
    Err((Stage::Exec, execute(shared)))
}

fn reset_signals(shared: &Shared<'_>) {
    if shared.reset_all {
        for signal in 1..=64 {
            raw::default_action(signal);
        }
    } else {
        // CLONE_CLEAR_SIGHAND keeps what is ignored ignored.
        for signal in shared.image.ignored.iter() {
            raw::default_action(*signal);
        }
    }
}

fn become_user(identity: &Become) -> Result<(), Errno> {
    if let Some(groups) = &identity.groups {
        raw::setgroups(groups)?;
    }
    if let Some(gid) = identity.gid {
        raw::setresgid(gid)?;
    }
    if let Some(uid) = identity.uid {
        raw::setresuid(uid)?;
    }
    Ok(())
}

/// Field 22 in the text of a /proc/PID/stat: it may be cut off after that. 0: it is not there.
fn start_in(stat: &[u8]) -> u64 {
    let rest = stat.rsplit(|byte| *byte == b')').next().unwrap_or_default();
    // The name was the second field, and a blank follows it.
    let start = rest.split(|byte| *byte == b' ').nth(20).unwrap_or_default();
    start.iter().fold(0, |start: u64, digit| start.wrapping_mul(10).wrapping_add(u64::from(digit & 15)))
}

/// Tries the candidates as execvp does: one that may not be executed does not hide a later one that may.
fn execute(shared: &Shared<'_>) -> Errno {
    let mut worst = Errno::ENOENT;
    for path in shared.candidates {
        // SAFETY: path, argv and envp are null-terminated and live in the sleeping parent.
        let _ = unsafe { libc::syscall(libc::SYS_execve, *path, shared.argv, shared.envp) };
        match Errno::last() {
            Errno::EACCES => worst = Errno::EACCES,
            Errno::ENOENT | Errno::ENOTDIR => {}
            errno => return errno,
        }
    }
    worst
}

/// One raw system call each.
mod raw {
    use super::*;

    pub(super) fn setsid() -> Result<(), Errno> {
        // SAFETY: takes nothing.
        check(unsafe { libc::syscall(libc::SYS_setsid) }).map(drop)
    }

    pub(super) fn own_group() -> Result<(), Errno> {
        // SAFETY: takes two integers.
        check(unsafe { libc::syscall(libc::SYS_setpgid, 0, 0) }).map(drop)
    }

    pub(super) fn take_terminal() -> Result<(), Errno> {
        // SAFETY: takes nothing.
        let pid = check(unsafe { libc::syscall(libc::SYS_getpid) })?;
        let pid = pid_t::try_from(pid).map_err(|_| Errno::EINVAL)?;
        // SAFETY: TIOCSPGRP reads one pid_t, which lives through the call.
        check(unsafe { libc::syscall(libc::SYS_ioctl, 0, libc::TIOCSPGRP, &raw const pid) }).map(drop)
    }

    pub(super) fn write_zero(fd: RawFd) -> Result<(), Errno> {
        // SAFETY: the buffer is one byte that lives for ever.
        check(unsafe { libc::syscall(libc::SYS_write, fd, c"0".as_ptr(), 1) }).map(drop)
    }

    /// Of a file of /proc: nothing there blocks.
    pub(super) fn write_file(path: &CStr, text: &CStr) -> Result<(), Errno> {
        let flags = libc::O_WRONLY | libc::O_CLOEXEC;
        // SAFETY: the path is null-terminated.
        let fd = check(unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags) })?;
        let length = text.to_bytes().len();
        // SAFETY: the text is as long as is said.
        let written = check(unsafe { libc::syscall(libc::SYS_write, fd, text.as_ptr(), length) });
        // SAFETY: it was opened above; the child's table of descriptors is its own.
        let _ = unsafe { libc::syscall(libc::SYS_close, fd) };
        written.map(drop)
    }

    /// This process and its start, as a slot has them; 0: there is no /proc, or nothing can be opened.
    pub(super) fn own_start() -> u64 {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        let (at, path) = (libc::AT_FDCWD, c"/proc/self/stat".as_ptr());
        // SAFETY: the path is null-terminated.
        let Ok(fd) = check(unsafe { libc::syscall(libc::SYS_openat, at, path, flags) }) else { return 0 };
        let mut stat = [0_u8; 512];
        // SAFETY: the buffer is as long as is said.
        let length = check(unsafe { libc::syscall(libc::SYS_read, fd, stat.as_mut_ptr(), stat.len()) });
        // SAFETY: it was opened above; the child's table of descriptors is its own.
        let _ = unsafe { libc::syscall(libc::SYS_close, fd) };
        // SAFETY: takes nothing.
        let pid = check(unsafe { libc::syscall(libc::SYS_getpid) });
        let length = length.ok().and_then(|length| usize::try_from(length).ok());
        let start = length.and_then(|length| stat.get(..length)).map_or(0, start_in);
        match pid.map(pid_t::try_from) {
            Ok(Ok(pid)) if start != 0 => paired(pid, start),
            _ => 0,
        }
    }

    pub(super) fn set_limit(resource: c_int, soft: u64, hard: u64) -> Result<(), Errno> {
        let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
        let old = ptr::null_mut::<libc::rlimit64>();
        // SAFETY: the new limit lives through the call, and a null old one is allowed.
        check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, old) }).map(drop)
    }

    pub(super) fn dup3(from: RawFd, to: RawFd) -> Result<(), Errno> {
        // SAFETY: takes integers; the child's table of descriptors is its own.
        check(unsafe { libc::syscall(libc::SYS_dup3, from, to, 0) }).map(drop)
    }

    pub(super) fn setgroups(groups: &[u32]) -> Result<(), Errno> {
        // SAFETY: the slice is as long as is said.
        check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
    }

    pub(super) fn setresgid(gid: u32) -> Result<(), Errno> {
        // SAFETY: takes integers.
        check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
    }

    pub(super) fn setresuid(uid: u32) -> Result<(), Errno> {
        // SAFETY: takes integers.
        check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
    }

    pub(super) fn chdir(dir: &CStr) -> Result<(), Errno> {
        // SAFETY: the path is null-terminated.
        check(unsafe { libc::syscall(libc::SYS_chdir, dir.as_ptr()) }).map(drop)
    }

    pub(super) fn umask(mask: u32) {
        // SAFETY: takes an integer; without CLONE_FS the umask is the child's own.
        let _ = unsafe { libc::syscall(libc::SYS_umask, mask) };
    }

    pub(super) fn close_from(first: c_int) {
        // SAFETY: takes integers; the child's table of descriptors is its own.
        if unsafe { libc::syscall(libc::SYS_close_range, first, c_int::MAX, 0) } == 0 {
            return;
        }
        // Before Linux 5.9. uphold's own are close-on-exec; this is for what it has inherited.
        for fd in first..1024 {
            // SAFETY: as above.
            let _ = unsafe { libc::syscall(libc::SYS_close, fd) };
        }
    }

    pub(super) fn unblock_signals() {
        let (empty, old) = (0_u64, ptr::null_mut::<u64>());
        let how = libc::SIG_SETMASK;
        // SAFETY: the kernel's signal set is 8 bytes, and a null old set is allowed.
        let _ =
            unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const empty, old, size_of::<u64>()) };
    }

    pub(super) fn default_action(signal: c_int) {
        // The kernel's sigaction is handler, flags, restorer and an 8-byte mask; all zero is SIG_DFL.
        let (action, old) = ([0 as c_ulong; 4], ptr::null_mut::<c_ulong>());
        // SAFETY: the structure is as large as the kernel's; for SIGKILL and SIGSTOP it fails, harmlessly.
        let _ =
            unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), old, size_of::<u64>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::cgroup::Base;
    use super::super::kin::started;
    use super::super::sys::{Child, block_all_signals, wait};
    use super::super::{Inherited, Slots};
    use super::*;
    use crate::engine::{Exit, Run};

    #[test]
    fn a_start_is_found_whatever_the_process_calls_itself() {
        let stat = b"7 (a) S 1 (b) Z 3 4 5 0 -1 0 0 0 0 0 1 2 0 0 20 0 1 0 4711 0 0";
        assert_eq!(start_in(stat), 4711);
        assert_eq!(start_in(b"7 (a) S 1"), 0);
        assert_eq!(start_in(b""), 0);
    }

    #[test]
    fn the_older_clone_starts_a_child_that_enters_its_cgroup_itself() {
        let _alone = crate::alone::alone();
        block_all_signals();
        let image = Image {
            candidates: vec![c"/nonexistent".into(), c"/bin/sh".into()],
            argv: vec![
                c"sh".into(),
                c"-c".into(),
                c"grep -q /older$ /proc/self/cgroup; exit $((5 + $?))".into(),
            ],
            envp: vec![c"PATH=/bin:/usr/bin".into()],
            dir: None,
            identity: Become::default(),
            umask: None,
            limits: Vec::new(),
            oom_score_adj: None,
            stdio: None,
            session: true,
            ignored: Arc::default(),
        };
        let stack = Stack::new().unwrap();
        let base = Base::new("older-clone").ok();
        let made = base.as_ref().map(|base| base.leaf("older").unwrap());
        let pid = AtomicI32::new(0);
        let dir = tempfile::tempdir().unwrap();
        let mut slots = Slots::open(&Inherited::default(), Some(dir.path()), 7).unwrap().0;
        let slot = slots.take(Run(1)).unwrap().unwrap();
        let pids = Pids { pid: &pid, slot: Some(slot) };
        let born = start_with(&stack, &image, made.as_ref().map(|(_, into)| into), pids, false).unwrap();
        assert_eq!((pid.load(Ordering::SeqCst), slot.record().pid), (born.pid, born.pid));
        // Nobody but the child has looked; it is a zombie at most.
        assert_eq!((slot.record().start, slot.started(born.pid)), (0, started(born.pid)));
        assert_ne!(slot.started(born.pid), 0);
        assert_eq!(slot.started(born.pid + 1), 0);
        let (_, exit) = wait(Child::Pid(born.pid), false, true).unwrap().unwrap();
        assert_eq!(exit, Exit::Code(if base.is_some() { 5 } else { 6 }));
        let gone = Image { candidates: vec![c"/nonexistent".into()], ..image };
        let pids = Pids { pid: &pid, slot: None };
        assert_eq!(start_with(&stack, &gone, None, pids, false).unwrap_err(), (Stage::Exec, Errno::ENOENT));
        made.inspect(|(leaf, _)| assert!(leaf.remove()));
        base.inspect(Base::remove);
    }
}
