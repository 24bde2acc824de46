//! System calls that nix has not or cannot express (real-time signals, pidfds), each with a safe face.

use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc::{self, c_int, c_long, pid_t};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::engine::Exit;
use crate::unit::Signal;

/// For open(2), which then waits for nobody at the other end of a FIFO.
pub const NONBLOCK: c_int = libc::O_NONBLOCK;

/// Opens what is to be read, and waits for nobody: what is neither a file nor a directory is ENXIO, whatever it is.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() || kind.is_dir() { Ok(file) } else { Err(Errno::ENXIO.into()) }
}

/// Reads a file to its end, and waits for nobody: what is neither a file nor a directory is ENXIO.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_file(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads one of the kernel's files, which have no size and are made anew for each that opens them: most of them in
/// one piece.
pub(super) fn read_short(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(1024);
    File::open(path)?.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Turns the answer of a system call into a result.
pub(super) fn check(answer: c_long) -> Result<c_long, Errno> {
    if answer == -1 { Err(Errno::last()) } else { Ok(answer) }
}

/// kill(2): a positive pid for a process, a negative one for its group, -1 for all.
pub(super) fn kill(pid: pid_t, signal: Signal) -> Result<(), Errno> {
    // SAFETY: kill touches no memory of this process; any number is allowed.
    let answer = unsafe { libc::kill(pid, signal.number()) };
    check(c_long::from(answer)).map(drop)
}

/// pidfd_open(2), close-on-exec by itself.
pub(super) fn pidfd_open(pid: pid_t) -> Result<OwnedFd, Errno> {
    // SAFETY: pidfd_open takes two integers and no memory.
    let answer = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(check(answer)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// pidfd_send_signal(2).
pub(super) fn pidfd_kill(pidfd: &OwnedFd, signal: Signal) -> Result<(), Errno> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed and means that of kill(2).
    let answer =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal.number(), info, 0) };
    check(answer).map(drop)
}

/// The process has not ended.
pub(super) fn pidfd_lives(pidfd: &OwnedFd) -> bool {
    let mut poll = [nix::poll::PollFd::new(pidfd.as_fd(), nix::poll::PollFlags::POLLIN)];
    matches!(nix::poll::poll(&mut poll, nix::poll::PollTimeout::ZERO), Ok(0))
}

/// The process that a pidfd is of, by its pid here: -1 once it was reaped. `None`: it is no pidfd, or there
/// is no /proc.
pub(super) fn pidfd_pid(pidfd: &OwnedFd) -> Option<pid_t> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

/// ioctl_tty(2) TIOCGWINSZ: the columns of the terminal that standard output is.
pub(super) fn columns() -> Option<usize> {
    let mut size = MaybeUninit::<libc::winsize>::zeroed();
    // SAFETY: TIOCGWINSZ writes at most one winsize, and there is room for one; a bad descriptor is an error.
    let answer = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, size.as_mut_ptr()) };
    check(c_long::from(answer)).ok()?;
    // SAFETY: it was zeroed, and all of its fields are integers.
    let size = unsafe { size.assume_init() };
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// netdevice(7) SIOCSIFFLAGS with IFF_UP on the loopback interface; the kernel gives it its addresses.
pub(super) fn raise_loopback() -> io::Result<()> {
    // Not as text, which would take the C library's resolver into the binary.
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(c"lo".to_bytes()) {
        *to = from.cast_signed();
    }
    let up = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(0);
    let wanted = libc::ifreq { ifr_name: name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: up } };
    // SAFETY: SIOCSIFFLAGS reads one ifreq, whose name ends with a NUL, and it lives through the call.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const wanted) };
    Ok(check(c_long::from(answer)).map(drop)?)
}

/// Which child to wait for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Child {
    /// Whichever ended first.
    Any,
    /// This one.
    Pid(pid_t),
}

/// waitid(2) for a child that has ended: its pid and how it ended, or `None` if none has yet. With `keep` it
/// stays a zombie, so its pid stays its own. `ECHILD`: there is no such child.
pub(super) fn wait(child: Child, keep: bool, block: bool) -> Result<Option<(pid_t, Exit)>, Errno> {
    let (kind, id) = match child {
        Child::Any => (libc::P_ALL, 0),
        Child::Pid(pid) => (libc::P_PID, pid.cast_unsigned()),
    };
    let mut flags = libc::WEXITED;
    if keep {
        flags |= libc::WNOWAIT;
    }
    if !block {
        flags |= libc::WNOHANG;
    }
    loop {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: the pointer is to a siginfo_t of ours that lives through the call.
        let answer = unsafe { libc::waitid(kind, id, info.as_mut_ptr(), flags) };
        match check(c_long::from(answer)) {
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
            Ok(_) => {}
        }
        // SAFETY: all zeroes is a valid siginfo_t, and the kernel writes nothing invalid over it.
        let info = unsafe { info.assume_init() };
        // SAFETY: waitid fills in the fields of SIGCHLD, or leaves the zeroes.
        let pid = unsafe { info.si_pid() };
        // SAFETY: as above.
        let status = unsafe { info.si_status() };
        return Ok((pid != 0).then(|| (pid, exit(info.si_code, status))));
    }
}

/// ioctl PIDFD_GET_INFO (Linux 6.15): how a process ended that somebody else has reaped. `None`: nobody has
/// yet, or the kernel does not say.
pub(super) fn pidfd_exit(pidfd: &OwnedFd) -> Option<Exit> {
    /// `struct pidfd_info` as its first version has it: the mask first, the exit code last.
    const WORDS: usize = 8;
    const EXIT: u64 = 1 << 3;
    /// _IOWR(0xff, 11, 64 bytes)
    const PIDFD_GET_INFO: libc::c_ulong = 0xC040_FF0B;
    let mut info = [0_u64; WORDS];
    info[0] = EXIT;
    // SAFETY: the kernel reads and writes 64 bytes, as the number of the request says, and there are so many.
    let answer = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO as _, info.as_mut_ptr()) };
    check(c_long::from(answer)).ok()?;
    if info[0] & EXIT == 0 {
        return None;
    }
    let status = i32::from_ne_bytes(info[WORDS - 1].to_ne_bytes()[4..].try_into().ok()?);
    let signal = libc::WTERMSIG(status);
    if libc::WIFEXITED(status) {
        return Some(Exit::Code(libc::WEXITSTATUS(status)));
    }
    Signal::from_number(signal).map(|signal| Exit::Signal { signal, oom: false })
}

fn exit(code: c_int, status: c_int) -> Exit {
    if code == libc::CLD_EXITED {
        return Exit::Code(status);
    }
    Signal::from_number(status).map_or(Exit::Unknown, |signal| Exit::Signal { signal, oom: false })
}

/// The supplementary groups of a Unix socket's peer (SO_PEERGROUPS).
pub(super) fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups: Vec<u32> = vec![0; 64];
    loop {
        let mut length = libc::socklen_t::try_from(groups.len() * size_of::<u32>()).unwrap_or(0);
        // SAFETY: the buffer is `length` bytes of plain integers, and both pointers live through the call.
        let answer = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = usize::try_from(length).unwrap_or(0) / size_of::<u32>();
        match check(c_long::from(answer)) {
            Ok(_) => {
                groups.truncate(count);
                return Ok(groups);
            }
            // The kernel has said how many there are.
            Err(Errno::ERANGE) if count > groups.len() => groups.resize(count, 0),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Ignores a signal in this process.
pub(super) fn ignore(signal: Signal) {
    // SAFETY: SIG_IGN runs no code of ours, and no other part of uphold handles these signals.
    let _ = unsafe { libc::signal(signal.number(), libc::SIG_IGN) };
}

/// Blocks every signal for the calling thread.
pub(super) fn block_all_signals() {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises the set that it is given.
    let _ = unsafe { libc::sigfillset(set.as_mut_ptr()) };
    // SAFETY: the set was initialised just now; a null old set is allowed.
    let _ = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut()) };
}

/// What a signal does by default is what it does to this process.
pub(super) fn restore(signal: Signal) {
    // SAFETY: SIG_DFL runs no code of ours.
    let _ = unsafe { libc::signal(signal.number(), libc::SIG_DFL) };
}

/// The signals that this process ignores at the moment.
pub(super) fn ignored_signals() -> Vec<c_int> {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        // No /proc: those that uphold may have set itself.
        return vec![libc::SIGPIPE, libc::SIGHUP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    };
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    (1..=64).filter(|number| mask >> (number - 1) & 1 == 1).collect()
}

/// The descriptor is open.
pub(super) fn is_open(fd: RawFd) -> bool {
    // SAFETY: takes integers; a bad descriptor is an error.
    check(c_long::from(unsafe { libc::fcntl(fd, libc::F_GETFD) })).is_ok()
}

/// Takes a descriptor that was open before uphold began; `None`: it is not open.
pub(super) fn inherited(fd: RawFd) -> Option<OwnedFd> {
    if fd <= 2 || !is_open(fd) {
        return None;
    }
    // SAFETY: the image before has handed it over by this number, and nobody in this one knows it.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: takes integers.
    let _ = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    Some(owned)
}

/// Has the kernel make the table of descriptors large enough for this number, if the limit allows it.
pub(super) fn grow_table(last: RawFd) {
    // SAFETY: takes integers; nobody else knows the descriptor that it makes.
    let fd = unsafe { libc::fcntl(libc::STDERR_FILENO, libc::F_DUPFD_CLOEXEC, last) };
    if fd > 0 {
        // SAFETY: as above: it is this function's.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
}

/// O_NONBLOCK.
pub(super) fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Moves a descriptor out of the way of 0, 1 and 2.
pub(super) fn above_stdio(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    // try_clone is F_DUPFD_CLOEXEC from 3 on.
    File::from(fd).try_clone().map(OwnedFd::from)
}

/// Registers a descriptor with the runtime, to be told when it can be read.
pub(super) fn readable<T: AsFd + AsRawFd>(owner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: what has `AsFd` keeps its descriptor open while it lives, and none of the types that
    // this is used with (OwnedFd, File, Arc<File>, the inotify) gives out another one later.
    let registered = unsafe { AsyncFd::register_with_interest(owner, Interest::READABLE) };
    registered.map_err(|error| error.into_parts().1)
}
