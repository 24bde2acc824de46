//! What of the log pump outlives uphold, in the private directory.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::host::{self, Mapped};
use crate::logs::{Lasting, REGION, Region};

/// What the file is called.
pub(super) const NOTES: &str = "pump";

impl Region for Mapped {
    fn bytes(&mut self) -> &mut [u8] {
        Mapped::bytes(self)
    }

    fn waiting(&self, pipe: BorrowedFd<'_>) -> io::Result<usize> {
        host::waiting(pipe)
    }
}

/// Another region for those notes, after somebody has removed the file.
pub(super) fn anew(private: &Path) -> io::Result<Box<dyn Region>> {
    Ok(Box::new(Mapped::open(&private.join(NOTES), REGION)?))
}

/// The notes of the log pump in `private`; `None`, and said, where they cannot be kept.
pub(super) fn of(private: &Path) -> Option<Lasting> {
    let path = private.join(NOTES);
    match Mapped::open(&path, REGION) {
        Ok(region) => Some(Lasting { dir: private.to_owned(), region: Box::new(region) }),
        Err(error) => {
            tracing::warn!(
                "cannot map {}: {error}; should uphold be killed, the lines that it has read and not yet \
                 written are lost",
                path.display()
            );
            None
        }
    }
}
