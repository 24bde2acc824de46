//! What of the log pump outlives uphold, in the private directory or in memory.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::host::{self, Inherited, Mapped};
use crate::logs::{Gate, Lasting, Memory, NAMELESS, REGION, Region};

impl Region for Mapped {
    fn bytes(&mut self) -> &mut [u8] {
        Mapped::bytes(self)
    }

    fn waiting(&self, pipe: BorrowedFd<'_>) -> io::Result<usize> {
        host::waiting(pipe)
    }
}

impl Gate for host::Gate {
    fn enter(&self) {
        host::Gate::enter(self);
    }

    fn leave(&self) {
        host::Gate::leave(self);
    }
}

/// The notes of the log pump; `None`, and said, where they cannot be kept.
pub(super) fn of(inherited: &Inherited, private: Option<&Path>) -> Option<Lasting> {
    match inherited.notes(private, REGION) {
        Ok((region, lack)) => {
            if let Some(error) = lack {
                say("map", &error, "killed");
            }
            let memory = Memory { handed_on: inherited.memories(NAMELESS), make };
            Some(Lasting {
                dir: private.map(Path::to_owned),
                region: Box::new(region),
                memory: Some(memory),
                gate: Some(&host::GATE),
            })
        }
        Err(error) => {
            say("keep", &error, "killed or upgraded");
            None
        }
    }
}

fn say(what: &str, error: &io::Error, fate: &str) {
    tracing::warn!(
        "cannot {what} the notes of the log thread: {error}; should uphold be {fate}, the lines that it has read \
         and not yet written are lost"
    );
}

fn make(name: &str) -> io::Result<File> {
    let file = host::memory(name)?;
    host::count(&file)?;
    Ok(file)
}
