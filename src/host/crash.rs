//! A crash of uphold itself: what happened is written to a mapped page, and uphold executes itself. The new
//! image says it and goes on. PID 1 never just exits.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{self, c_int, c_void};

use super::inherited::Inherited;
use super::mapped::{Mapped, Place};
use super::reexec::{FAULTS, begins, execute_self, execute_self_alone, say_at_once};
use crate::unit::Signal;

/// The file of the page in the private directory.
pub const CRASHES: &str = "crash";
/// So many crashes
pub const TOO_MANY: usize = 3;
/// within so long are too many: uphold then does less.
const SOON: Duration = Duration::from_secs(60);
/// So much is kept of what there is to say.
const TEXT: usize = 6 << 10;
/// Inputs that are remembered for having crashed uphold.
const INPUTS: usize = 8;
/// So long a panic waits until stderr has taken what is said of it.
const HEARD: Duration = Duration::from_millis(100);
/// What is said of a fault is shorter.
const FAULT: usize = 112;
/// A stack for handlers: that of the thread may be what is wrong.
const STACK: usize = 64 << 10;

unsafe extern "C" {
    /// Where this binary begins in memory: the linker says so.
    static __ehdr_start: u8;
    /// And where it ends.
    static _end: u8;
}

/// This image has come after so many crashes that the next one is not to come at once.
pub(super) static TOO_OFTEN: AtomicBool = AtomicBool::new(false);

/// What stands in the page.
#[repr(C)]
struct Page {
    /// When uphold crashed, on CLOCK_MONOTONIC; the oldest is overwritten.
    times: [AtomicU64; TOO_MANY],
    count: AtomicUsize,
    /// What is being taken at the moment.
    input: AtomicU64,
    /// What was being taken at a crash, and how often.
    inputs: [AtomicU64; INPUTS],
    often: [AtomicU64; INPUTS],
    /// Bytes of `text` that nobody has said yet.
    length: AtomicUsize,
    text: [AtomicU8; TEXT],
}

static PAGE: OnceLock<&'static Page> = OnceLock::new();
/// Where it lies.
static PLACE: OnceLock<Place> = OnceLock::new();
/// What lies there since somebody has removed the first one.
static RENEWED: Mutex<Option<File>> = Mutex::new(None);
/// Signals that somebody sent, and that are no fault, go there.
static SENT: AtomicI32 = AtomicI32::new(-1);

/// The thread that takes inputs.
static TAKER: AtomicI32 = AtomicI32::new(0);

/// The thread that is in the handler of faults.
static FAULTING: AtomicI32 = AtomicI32::new(0);

/// What the images before this one have left to say.
#[derive(Debug, Default)]
pub struct Crashes {
    /// The last crash, if it was not said yet.
    pub unsaid: Option<String>,
    /// Three of them within a minute.
    pub too_many: bool,
}

/// Opens the page, in the private directory or in memory: from here on every panic of a thread that uphold cannot
/// do without, and every fault, ends in an exec of uphold by itself. `fresh`: crashes of another process count no
/// more.
pub fn catch_crashes(inherited: &Inherited, private: Option<&Path>, fresh: bool) -> io::Result<Crashes> {
    // It serves the images of one process: what is in memory is as good.
    let (mapped, _) = inherited.lasting(private, CRASHES, |file| {
        if fresh {
            file.set_len(0)?;
        }
        Mapped::new(file, size_of::<Page>())
    })?;
    let place = mapped.place();
    // SAFETY: all fields of a page are atomics of plain numbers.
    let page = unsafe { mapped.forever::<Page>(0, 1) };
    let Some(page) = page.first() else { return Err(io::ErrorKind::InvalidData.into()) };
    let page = *PAGE.get_or_init(|| page);
    PLACE.get_or_init(|| place);
    let length = page.length.load(SeqCst).min(TEXT);
    let bytes: Vec<u8> = page.text.iter().take(length).map(|byte| byte.load(SeqCst)).collect();
    let unsaid = (length > 0).then(|| String::from_utf8_lossy(&bytes).into_owned());
    let now = super::monotonic().0;
    let recent = |time: &AtomicU64| {
        let time = time.load(SeqCst);
        time != 0 && now.saturating_sub(time) < u64::try_from(SOON.as_nanos()).unwrap_or(u64::MAX)
    };
    let too_many = page.times.iter().all(recent);
    TOO_OFTEN.store(too_many, SeqCst);
    Ok(Crashes { unsaid, too_many })
}

/// What the images before had left to say was said.
pub fn crash_was_said() {
    if let Some(page) = PAGE.get() {
        page.length.store(0, SeqCst);
    }
}

fn open(private: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(private.join(CRASHES))
}

/// Somebody has removed the page's file: a new one takes its place, and says the same.
pub fn renew_crashes(private: &Path) -> io::Result<()> {
    let (Some(page), Some(place)) = (PAGE.get(), PLACE.get()) else { return Ok(()) };
    let file = open(private)?;
    drop(Mapped::of(&file, size_of::<Page>())?);
    let said: Vec<u64> = page.numbers().map(|number| number.load(SeqCst)).collect();
    let count = page.count.load(SeqCst);
    // SAFETY: the mapping of the page is there for good, and its fields are atomics, shared.
    unsafe { place.put(&file) }?;
    for (number, said) in page.numbers().zip(said) {
        number.store(said, SeqCst);
    }
    page.count.store(count, SeqCst);
    // Should it be removed once more, an image that follows finds it here.
    *RENEWED.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    Ok(())
}

/// What this thread takes from here on, by a number that a same one has again; 0: nothing.
pub fn taking(input: u64) {
    if let Some(page) = PAGE.get() {
        TAKER.store(own_tid(), SeqCst);
        page.input.store(input, SeqCst);
    }
}

/// Another binary is about to be executed: what has crashed this one may not crash that.
pub fn forgive() {
    for often in PAGE.get().into_iter().flat_map(|page| &page.often) {
        often.store(0, SeqCst);
    }
}

/// This has crashed uphold twice.
pub fn is_poison(input: u64) -> bool {
    PAGE.get().is_some_and(|page| {
        page.inputs
            .iter()
            .zip(&page.often)
            .any(|(known, often)| known.load(SeqCst) == input && often.load(SeqCst) >= 2)
    })
}

/// Handles panics, and the signals that report a fault: an image that goes on tries again from here on, and one
/// that has called [`catch_crashes`] goes on. Those that somebody has sent are none: their numbers come out of the
/// descriptor, a byte each.
pub fn handle_faults() -> io::Result<File> {
    std::panic::set_hook(Box::new(panicked));
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    super::sys::set_nonblocking(&write)?;
    SENT.store(write.as_raw_fd(), SeqCst);
    // It stays open for as long as uphold runs.
    std::mem::forget(write);
    install_handlers()?;
    Ok(read.into())
}

/// Reports a fault of the process that gets it, unless somebody has sent it.
pub fn reports_fault(signal: Signal) -> bool {
    FAULTS.contains(&signal.number())
}

fn panicked(info: &std::panic::PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("unnamed").to_owned();
    let backtrace = std::backtrace::Backtrace::force_capture();
    let text = format!("thread {name}: {info}\n{backtrace}");
    let said = format!("uphold: panic in {text}\n");
    // Those catch what happens in them, and answer.
    if name.starts_with("spawn") || name == "log-reader" {
        return say(said);
    }
    let page = PAGE.get();
    if let Some(page) = page {
        page.note(text.bytes());
    }
    say(said);
    if page.is_some() || begins() {
        execute_self();
    }
}

/// Says it on stderr, and waits for that no longer than [`HEARD`]: who reads it may have stopped, and the thread
/// of uphold's log is then in the middle of a line, with the lock of stderr. So a thread does it, and where there
/// can be none, nobody does: the next image says what stands in the page.
fn say(text: String) {
    let (done, said) = std::sync::mpsc::sync_channel(1);
    let speaker = std::thread::Builder::new().name("last-words".to_owned()).spawn(move || {
        // Where stderr is gone, there is nobody to tell.
        let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
        let _ = done.send(());
    });
    if speaker.is_ok() {
        let _ = said.recv_timeout(HEARD);
    }
}

/// Of the calling thread; async-signal-safe.
fn own_tid() -> i32 {
    nix::unistd::gettid().as_raw()
}

impl Page {
    /// All that is remembered of crashes that were said.
    fn numbers(&self) -> impl Iterator<Item = &AtomicU64> {
        self.times.iter().chain([&self.input]).chain(&self.inputs).chain(&self.often)
    }

    /// Nothing is allocated here.
    fn note(&self, text: impl Iterator<Item = u8>) {
        let mut length = 0;
        for (place, byte) in self.text.iter().zip(text) {
            place.store(byte, SeqCst);
            length += 1;
        }
        self.length.store(length, SeqCst);
        let turn = self.count.fetch_add(1, SeqCst);
        if let Some(time) = self.times.get(turn % TOO_MANY) {
            time.store(super::monotonic().0.max(1), SeqCst);
        }
        let input = self.input.swap(0, SeqCst);
        // Another thread's crash is not the fault of what is being taken meanwhile.
        if input == 0 || TAKER.load(SeqCst) != own_tid() {
            return;
        }
        let known = self.inputs.iter().position(|known| known.load(SeqCst) == input);
        let place = known.unwrap_or(turn % INPUTS);
        if let (Some(key), Some(often)) = (self.inputs.get(place), self.often.get(place)) {
            if known.is_none() {
                key.store(input, SeqCst);
                often.store(0, SeqCst);
            }
            often.fetch_add(1, SeqCst);
        }
    }
}

/// Which signal it was, in which thread, and where: by an offset into this binary, which has a line for it if it has
/// symbols.
fn describe<'t>(
    text: &'t mut [u8; FAULT],
    signal: &[u8],
    address: Option<usize>,
    at: Option<usize>,
) -> &'t [u8] {
    let mut thread = [0_u8; 16];
    // SAFETY: the kernel writes 16 bytes at most.
    let _ = unsafe { libc::prctl(libc::PR_GET_NAME, thread.as_mut_ptr()) };
    let thread = thread.split(|byte| *byte == 0).next().unwrap_or_default();
    let (begin, end) = ((&raw const __ehdr_start).addr(), (&raw const _end).addr());
    let (place, at): (&[u8], _) = match at {
        Some(at) if at >= begin && at < end => (b" at uphold+0x", Some(at - begin)),
        at => (b" at 0x", at),
    };
    let [number, offset] = [address, at].map(|number| hexadecimal(number.unwrap_or_default()));
    let address: [&[u8]; 2] = if address.is_some() { [b" at address 0x", &number] } else { [b"", b""] };
    let place: [&[u8]; 2] = if at.is_some() { [place, &offset] } else { [b"", b""] };
    let parts = [[signal, b""], address, [b" in thread ", thread], place];
    let bytes = parts.iter().flatten().copied().flatten();
    let length = text.iter_mut().zip(bytes).map(|(place, byte)| *place = *byte).count();
    text.get(..length).unwrap_or_default()
}

/// The address of the instruction at which a signal has come; `None`: nobody can tell on such a machine.
fn instruction(context: *const c_void) -> Option<usize> {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a valid context.
    let _context = unsafe { &*context.cast::<libc::ucontext_t>() };
    #[cfg(target_arch = "x86_64")]
    let at = _context.uc_mcontext.gregs.get(libc::REG_RIP as usize).map(|at| at.cast_unsigned() as usize);
    #[cfg(target_arch = "aarch64")]
    let at = Some(_context.uc_mcontext.pc as usize);
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let at = None;
    at
}

fn hexadecimal(number: usize) -> [u8; 16] {
    std::array::from_fn(|at| {
        let nibble = number >> ((15 - at) * 4) & 0xf;
        b"0123456789abcdef".get(nibble).copied().unwrap_or(b'?')
    })
}

/// The handler of faults. Only what signal-safety(7) allows.
extern "C" fn fault(number: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a valid siginfo.
    let info = unsafe { &*info };
    // SAFETY: all of its bytes are set; without a sender this is no pid, and is not used as one.
    let sender = unsafe { info.si_pid() };
    // SAFETY: takes nothing.
    let own = unsafe { libc::getpid() };
    if info.si_code <= 0 && sender != own {
        let byte = number.to_le_bytes();
        // What was interrupted may be about to look at it.
        let errno = Errno::last_raw();
        // SAFETY: the buffer is one byte that lives through the call; -1 is an error.
        let _ = unsafe { libc::write(SENT.load(SeqCst), byte.as_ptr().cast(), 1) };
        Errno::set_raw(errno);
        return;
    }
    // SAFETY: as above; where the bytes mean something else they are not shown.
    let address = unsafe { info.si_addr() }.addr();
    // Only what the kernel says of these has one (sigaction(2)).
    let has_address =
        info.si_code > 0 && matches!(number, libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE);
    let name: &[u8] = match number {
        libc::SIGSEGV => b"SIGSEGV",
        libc::SIGBUS => b"SIGBUS",
        libc::SIGABRT => b"SIGABRT",
        libc::SIGILL => b"SIGILL",
        libc::SIGFPE => b"SIGFPE",
        libc::SIGTRAP => b"SIGTRAP",
        _ => b"SIGSYS",
    };
    let page = PAGE.get();
    if page.is_some() || begins() {
        // A thread may have little room for handlers: what faults once more in here leaves all out but the exec.
        if FAULTING.swap(own_tid(), SeqCst) == own_tid() {
            execute_self_alone();
        } else {
            let mut text = [0; FAULT];
            let text = describe(&mut text, name, has_address.then_some(address), instruction(context));
            if begins() {
                // The next attempt may not get to say it.
                say_at_once(&[text]);
            }
            if let Some(page) = page {
                page.note(text.iter().copied());
            }
            execute_self();
        }
    }
    // Without an exec the default is what is left.
    // SAFETY: SIG_DFL runs no code.
    let _ = unsafe { libc::signal(number, libc::SIG_DFL) };
    // SAFETY: takes an integer.
    let _ = unsafe { libc::raise(number) };
}

fn install_handlers() -> io::Result<()> {
    let stack = Box::leak(vec![0_u8; STACK].into_boxed_slice());
    let alternate = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK };
    // SAFETY: the stack lives for ever and is used by nothing else; a null old one is allowed.
    if unsafe { libc::sigaltstack(&raw const alternate, std::ptr::null_mut()) } != 0 {
        return Err(Errno::last().into());
    }
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = fault;
    // SAFETY: all zeroes is a valid sigaction.
    let action = unsafe { action.assume_init_mut() };
    action.sa_sigaction = handler as usize;
    // What faults in the handler is handled, too: that is how `FAULTING` is heard of.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART | libc::SA_NODEFER;
    for signal in FAULTS {
        // SAFETY: the handler does only what a signal handler may, on a stack that is large enough.
        if unsafe { libc::sigaction(signal, action, std::ptr::null_mut()) } != 0 {
            return Err(Errno::last().into());
        }
    }
    Ok(())
}

/// What a test wants to happen to uphold at a point (`failpoint`).
pub fn act(action: &str) {
    let signal = match action {
        "kill" => Signal::KILL.number(),
        "segv" => {
            // SAFETY: it is not safe, and meant to be so: this is a fault that a test asked for.
            let _ = unsafe { std::ptr::read_volatile(std::ptr::without_provenance::<u8>(8)) };
            return;
        }
        "abort" => std::process::abort(),
        _ => return,
    };
    let own = std::process::id().cast_signed();
    // SAFETY: takes integers; it is for this very process.
    let _ = unsafe { libc::kill(own, signal) };
    loop {
        std::thread::park();
    }
}
