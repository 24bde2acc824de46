//! Signals to uphold itself. Every thread blocks them, and the deciding one reads them from a signalfd(2): none is
//! taken and then lost with its image. Those that nobody has read wait over an exec for the next one.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use tokio::io::unix::AsyncFd;

use super::reexec::FAULTS;
use super::sys;
use crate::unit::Signal;

/// How long to wait after an error of a descriptor that has none.
const PAUSE: Duration = Duration::from_secs(1);

/// All signals that can be taken, but for those that report a fault.
#[derive(Debug)]
pub struct Signals(OwnedFd);

/// The same, in a runtime.
#[derive(Debug)]
pub struct Heard(AsyncFd<File>);

impl Signals {
    /// Blocks them for this thread and for those that it starts from here on. Call it before there is another:
    /// what one thread does not block, ends or stops uphold.
    pub fn take() -> io::Result<Signals> {
        // Ignored, it would have the kernel reap. Whoever started uphold may have left it so.
        sys::restore(Signal::CHLD);
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigfillset initialises the set that it is given.
        let _ = unsafe { libc::sigfillset(set.as_mut_ptr()) };
        for signal in FAULTS.into_iter().chain([libc::SIGTTIN, libc::SIGTTOU]) {
            // SAFETY: the set was initialised just now.
            let _ = unsafe { libc::sigdelset(set.as_mut_ptr(), signal) };
        }
        // SAFETY: the set is initialised; a null old one is allowed.
        let _ = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut()) };
        // SAFETY: the set is initialised; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(Errno::last().into());
        }
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Signals(sys::above_stdio(fd)?))
    }

    /// Registers it with the runtime.
    pub fn listen(self) -> io::Result<Heard> {
        Ok(Heard(sys::readable(File::from(self.0))?))
    }
}

impl Heard {
    /// Waits for the next one. Cancel-safe.
    pub async fn next(&self) -> Signal {
        loop {
            let Ok(mut ready) = self.0.readable().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            match ready.try_io(|fd| read(fd.get_ref())) {
                Ok(Ok(Some(signal))) => return signal,
                Ok(Ok(None)) | Err(_) => {}
                Ok(Err(_)) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

/// `None`: it is uphold's own, as the SIGPIPE of a write to a pipe that nobody reads.
fn read(mut fd: &File) -> io::Result<Option<Signal>> {
    // ssi_signo is the first of the numbers of a signalfd_siginfo, ssi_pid the fourth.
    let mut info = [0; size_of::<libc::signalfd_siginfo>()];
    if fd.read(&mut info)? != info.len() {
        return Err(ErrorKind::InvalidData.into());
    }
    let (numbers, _) = info.as_chunks();
    let number = |at: usize| numbers.get(at).map_or(0, |number| u32::from_ne_bytes(*number));
    let own = number(3) == std::process::id();
    Ok(i32::try_from(number(0)).ok().and_then(Signal::from_number).filter(|_| !own))
}
