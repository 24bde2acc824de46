//! uphold executes itself: the new image has the pid, the children, and every open descriptor of the old one,
//! and takes over as after a kill. Everything that the way there needs is made ahead, so that it can be gone
//! from a signal handler: no allocation, no lock.

use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{IntoRawFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{self, c_char, c_int};

use super::crash::TOO_OFTEN;
use super::gate::GATE;
use crate::file_id::FileId;

/// Signals that report a fault. Blocked, the next fault would end PID 1 instead of being handled.
pub(super) const FAULTS: [c_int; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGABRT, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS];

/// As uphold was started.
struct Ready {
    /// Its binary, which may be deleted by now.
    image: RawFd,
    /// By what path it was started: what stands there is the next one.
    path: PathBuf,
    argv: Pointers,
    envp: Pointers,
    /// Descriptors that were open when this image began.
    given: Vec<RawFd>,
    /// What is said before an image that cannot begin tries again.
    again: String,
}

/// Strings as execve wants them.
struct Pointers {
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers are to the strings beside them, which nobody changes.
unsafe impl Send for Pointers {}
// SAFETY: as above.
unsafe impl Sync for Pointers {}

impl Pointers {
    fn new(strings: impl Iterator<Item = OsString>) -> Pointers {
        let strings: Vec<CString> =
            strings.filter_map(|string| CString::new(string.into_vec()).ok()).collect();
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect();
        Pointers { _strings: strings, pointers }
    }
}

/// More descriptors than an uphold has, as a rule: it takes a few milliseconds to go through them blindly.
const MANY: RawFd = 1 << 16;

/// How long an exec waits for lines that are not written yet: who reads them may have stopped.
const LAST_LINES: Duration = Duration::from_millis(100);
/// How often it looks whether they are.
const LOOK: Duration = Duration::from_micros(200);

/// How many lines of uphold's own log are said and not written yet. The thread that writes them ends with the
/// image.
pub static UNWRITTEN: AtomicUsize = AtomicUsize::new(0);

/// How long an image that cannot begin, or has crashed too often, waits before it tries again.
const AGAIN: Duration = Duration::from_secs(1);

static READY: OnceLock<Ready> = OnceLock::new();
/// [`begins`]
static BEGINS: AtomicBool = AtomicBool::new(false);
/// [`also_hand_on`]
static HANDED_ON: AtomicI32 = AtomicI32::new(-1);

/// In the environment of an image that goes on where another one was in the same process: the path by which the
/// first one was started. Not for children.
pub(super) const GOES_ON: &str = "UPHOLD_GOES_ON";

/// There was an image before this one in the same process.
pub fn goes_on() -> bool {
    std::env::var_os(GOES_ON).is_some()
}

/// Makes what an exec of uphold by itself needs. Call it early: arguments and environment are as they are now.
/// `given`: the descriptors that were open when this image began.
pub fn prepare_reexec(given: Vec<RawFd>) -> io::Result<()> {
    // To execute it is all that has to be allowed.
    let image = File::options().read(true).custom_flags(libc::O_PATH).open("/proc/self/exe")?;
    let image = super::sys::above_stdio(image.into())?.into_raw_fd();
    let path = path()?;
    let environment = std::env::vars_os().filter(|(name, _)| name != GOES_ON);
    let environment = environment.chain([(GOES_ON.into(), path.clone().into())]).map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    });
    let (argv, envp) = (Pointers::new(std::env::args_os()), Pointers::new(environment));
    READY.get_or_init(|| Ready { image, path, argv, envp, given, again: again() });
    BEGINS.store(goes_on(), SeqCst);
    // An exec by a descriptor would name the process after that.
    let _ = nix::sys::prctl::set_name(c"uphold");
    Ok(())
}

fn again() -> String {
    // Nothing in its pid namespace ends PID 1.
    let end = match std::process::id() {
        1 => String::new(),
        pid => format!("; only `kill -9 {pid}` ends it, and leaves them to the next uphold"),
    };
    format!("trying again in a second, for its services run{end}")
}

/// This image goes on from another one and has taken over nothing yet: should it fail, the next attempt needs what
/// this one was given, and no more.
pub(super) fn begins() -> bool {
    BEGINS.load(SeqCst)
}

/// It takes over from here on.
pub fn begun() {
    BEGINS.store(false, SeqCst);
}

/// What an image before has handed on; else a path that led to this binary when it was executed; else where the
/// binary itself stands, or stood. Where a symbolic link was switched meanwhile, only the first is of use.
fn path() -> io::Result<PathBuf> {
    if let Some(path) = std::env::var_os(GOES_ON).map(PathBuf::from).filter(|path| path.is_absolute()) {
        return Ok(path);
    }
    let this = FileId::behind(Path::new("/proc/self/exe"));
    for given in [executed(), std::env::args_os().next()].into_iter().flatten() {
        // An error says that it is empty, or that there is no working directory.
        let Ok(path) = std::path::absolute(given) else { continue };
        // A descriptor, by which it was executed too, is another file in the next image.
        let lasts = !path.starts_with("/dev") && !path.starts_with("/proc");
        if lasts && this.is_some() && FileId::behind(&path) == this {
            return Ok(path);
        }
    }
    let path = std::fs::read_link("/proc/self/exe")?;
    // The kernel's word for a file that was replaced.
    Ok(match path.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(path) => PathBuf::from(OsString::from_vec(path.to_vec())),
        None => path,
    })
}

/// The path that execve(2) was given.
fn executed() -> Option<OsString> {
    // SAFETY: takes an integer.
    let text = unsafe { libc::getauxval(libc::AT_EXECFN) };
    let text = std::ptr::with_exposed_provenance::<c_char>(usize::try_from(text).ok()?);
    if text.is_null() {
        return None;
    }
    // SAFETY: the kernel has put a string there that ends with a NUL, and stays for as long as the process.
    let text = unsafe { CStr::from_ptr(text) };
    Some(OsString::from_vec(text.to_bytes().to_vec()))
}

/// The path by which uphold was started, and what an upgrade executes: it may lead to another binary by now.
pub fn own_path() -> Option<&'static Path> {
    READY.get().map(|ready| ready.path.as_path())
}

/// Descriptors above 2 that are open. Asked first of all, these are what was inherited.
pub fn open_descriptors() -> Vec<RawFd> {
    let mut found = Vec::new();
    each_descriptor(|fd| found.push(fd));
    // That of the directory, which is closed by now.
    found.retain(|fd| super::sys::is_open(*fd));
    found
}

/// Executes the binary at this path with the arguments and the environment of this one. Returns only if it
/// cannot; then all is as before.
pub fn execute(path: &Path) -> io::Error {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return io::ErrorKind::InvalidInput.into();
    };
    go(libc::AT_FDCWD, &path, 0, |_| true).into()
}

/// The next attempt of an image that cannot begin gets this descriptor, too: one at most.
pub(super) fn also_hand_on(descriptor: RawFd) {
    HANDED_ON.store(descriptor, SeqCst);
}

/// Executes the same binary again, deleted or not. May be called by a signal handler. If it cannot, says so, and
/// returns only where that ends no image that goes on and could not begin: services run, and it may be PID 1.
pub fn execute_self() {
    let Some(ready) = READY.get() else { return };
    loop {
        ready.wait();
        let errno = go(ready.image, c"", libc::AT_EMPTY_PATH, |fd| ready.hands_on(fd));
        say_at_once(&[b"cannot execute itself: ", errno.desc().as_bytes()]);
        if !begins() {
            return;
        }
    }
}

/// The same, where there is hardly any stack left to look which descriptors are open.
pub(super) fn execute_self_alone() {
    let Some(ready) = READY.get() else { return };
    let _ = block_all_but_faults();
    ready.wait();
    (3..MANY).for_each(|fd| set_close_on_exec(fd, !ready.hands_on(fd)));
    let _ = exec(ready, ready.image, c"", libc::AT_EMPTY_PATH);
}

impl Ready {
    /// The same may happen to the next attempt at once, for ever.
    fn wait(&self) {
        if begins() {
            say_at_once(&[self.again.as_bytes()]);
        }
        if begins() || TOO_OFTEN.load(SeqCst) {
            std::thread::sleep(AGAIN);
        }
    }

    /// The next image gets this descriptor. What one that cannot begin has opened itself would be more with each
    /// attempt.
    fn hands_on(&self, fd: RawFd) -> bool {
        !begins() || fd == HANDED_ON.load(SeqCst) || self.given.contains(&fd)
    }
}

/// Says it on stderr, a line, unless its reader would be waited for. A signal handler may.
pub(super) fn say_at_once(texts: &[&[u8]]) {
    for text in [&b"uphold: "[..]].iter().chain(texts).chain(&[&b"\n"[..]]) {
        let mut stderr = libc::pollfd { fd: 2, events: libc::POLLOUT, revents: 0 };
        // SAFETY: it is one, and lives through the call.
        let _ = unsafe { libc::poll(&raw mut stderr, 1, 0) };
        if stderr.revents == libc::POLLOUT {
            // SAFETY: the text lives through the call; -1 is an error.
            let _ = unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
        }
    }
}

/// `passes_over`: which descriptors do.
fn go(dir: RawFd, path: &CStr, flags: c_int, passes_over: impl Fn(RawFd) -> bool) -> Errno {
    let Some(ready) = READY.get() else { return Errno::ENOSYS };
    // What comes on the way is heard by the new image: handlers do not outlive an exec, a mask does.
    let before = block_all_but_faults();
    let _ = are_written(&UNWRITTEN, LAST_LINES);
    GATE.close();
    each_descriptor(|fd| set_close_on_exec(fd, !passes_over(fd)));
    let errno = exec(ready, dir, path, flags);
    each_descriptor(|fd| set_close_on_exec(fd, true));
    GATE.open();
    // SAFETY: the set is the one that the kernel gave; a null old set is allowed.
    let _ = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    errno
}

/// Waits until the lines are written, at most that long. A signal handler may.
fn are_written(lines: &AtomicUsize, limit: Duration) -> bool {
    let until = super::monotonic() + limit;
    while lines.load(SeqCst) > 0 {
        if super::monotonic() >= until {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}

fn exec(ready: &Ready, dir: RawFd, path: &CStr, flags: c_int) -> Errno {
    // SAFETY: path and both arrays are null-terminated and live as long as uphold.
    let _ = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            dir,
            path.as_ptr(),
            ready.argv.pointers.as_ptr(),
            ready.envp.pointers.as_ptr(),
            flags,
        )
    };
    Errno::last()
}

/// Blocks every signal for the calling thread but those that report a fault; gives the mask of before.
pub(super) fn block_all_but_faults() -> MaybeUninit<libc::sigset_t> {
    let (mut set, mut before) = (MaybeUninit::uninit(), MaybeUninit::zeroed());
    // SAFETY: sigfillset initialises the set that it is given.
    let _ = unsafe { libc::sigfillset(set.as_mut_ptr()) };
    for signal in FAULTS {
        // SAFETY: the set was initialised just now.
        let _ = unsafe { libc::sigdelset(set.as_mut_ptr(), signal) };
    }
    // SAFETY: one set was initialised, the other is written.
    let _ = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), before.as_mut_ptr()) };
    before
}

fn set_close_on_exec(fd: RawFd, on: bool) {
    let flags = if on { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: takes integers; a bad descriptor is an error.
    let _ = unsafe { libc::fcntl(fd, libc::F_SETFD, flags) };
}

/// Every descriptor above 2, with nothing but system calls. Without /proc: as many as most programs have.
fn each_descriptor(mut act: impl FnMut(RawFd)) {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the path is null-terminated.
    let dir = unsafe { libc::open(c"/proc/self/fd".as_ptr(), flags) };
    if dir < 0 {
        return (3..1024).for_each(act);
    }
    let mut buffer = Directory([0; 512]);
    loop {
        let (start, length) = (buffer.0.as_mut_ptr(), buffer.0.len());
        // SAFETY: the kernel writes at most so many bytes to the buffer.
        let count = unsafe { libc::syscall(libc::SYS_getdents64, dir, start, length) };
        let Ok(count @ 1..) = usize::try_from(count) else { break };
        let mut rest = buffer.0.get(..count).unwrap_or_default();
        // An entry: inode and offset (8 bytes each), its length (2), a type (1), a name that ends with a NUL.
        while let Some(length) = rest.get(16..18).and_then(|bytes| bytes.try_into().ok()) {
            let length = usize::from(u16::from_ne_bytes(length));
            let name = rest.get(19..length).unwrap_or_default();
            if let Some(fd) = number(name).filter(|fd| *fd > 2 && *fd != dir) {
                act(fd);
            }
            rest = rest.get(length.max(1)..).unwrap_or_default();
        }
    }
    // SAFETY: it was opened above, and nobody else knows it.
    let _ = unsafe { libc::close(dir) };
}

/// Small: the stack for handlers that the standard library gives to a thread has 8 KiB, of which the kernel may
/// take a half.
#[repr(align(8))]
struct Directory([u8; 512]);

fn number(name: &[u8]) -> Option<RawFd> {
    let mut value: RawFd = 0;
    let digits = name.iter().take_while(|byte| byte.is_ascii_digit());
    for digit in digits.clone() {
        value = value.checked_mul(10)?.checked_add(RawFd::from(*digit - b'0'))?;
    }
    digits.count().gt(&0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exec_waits_for_the_lines_that_are_said_and_for_a_stopped_reader_not_for_ever() {
        let lines = AtomicUsize::new(1);
        assert!(!are_written(&lines, Duration::from_millis(5)));
        std::thread::scope(|scope| {
            scope.spawn(|| lines.store(0, SeqCst));
            assert!(are_written(&lines, Duration::from_secs(60)));
        });
    }
}
