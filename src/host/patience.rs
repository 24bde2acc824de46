//! Waiting for what is lacking at the moment, before anything is supervised.

use std::io;
use std::time::Duration;

use nix::errno::Errno;

use super::prepare::passing;

/// So often
const ATTEMPTS: u32 = 20;
/// and so long apart is it tried.
const PAUSE: Duration = Duration::from_millis(50);

/// Tries again for a second while there are no descriptors or no memory: whoever takes over must not take what
/// it cannot look at for gone. Blocks, and is for the start of uphold only.
pub fn patiently<T>(mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut attempts = 1;
    loop {
        match act() {
            Err(error)
                if attempts < ATTEMPTS && error.raw_os_error().map(Errno::from_raw).is_some_and(passing) =>
            {
                attempts += 1;
                std::thread::sleep(PAUSE);
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_tried_again_and_what_stays_is_not() {
        let mut left = 3;
        let outcome = patiently(|| {
            left -= 1;
            if left > 0 { Err(Errno::EMFILE.into()) } else { Ok(left) }
        });
        assert_eq!(outcome.unwrap(), 0);
        let mut tries = 0;
        let outcome: io::Result<()> = patiently(|| {
            tries += 1;
            Err(Errno::ENOENT.into())
        });
        assert_eq!((outcome.unwrap_err().kind(), tries), (io::ErrorKind::NotFound, 1));
    }
}
