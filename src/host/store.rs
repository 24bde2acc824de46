//! What a service manager keeps for the next uphold (sd_notify(3), `FDSTORE=1`): the reading ends of a run's
//! output, so that nothing in them is gone with their last writer, and a pidfd of its main process, which
//! tells how that ended whoever has reaped it.
//!
//! They are called `RUN.out`, `RUN.err` and `RUN.pid`. Short, because all names come back in one variable of
//! the environment, LISTEN_FDNAMES, and an exec with one of more than 128 KiB fails.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;

use super::{Captured, Host, Pipes, Stream, reexec};
use crate::engine::Run;
use crate::unit::Name;

/// A descriptor of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// The reading end of its output, stderr with it unless that is apart.
    Out,
    /// The reading end of its stderr.
    Err,
    /// A pidfd of its main process.
    Pid,
}

impl Part {
    const ALL: [Part; 3] = [Part::Out, Part::Err, Part::Pid];

    fn suffix(self) -> &'static str {
        match self {
            Part::Out => "out",
            Part::Err => "err",
            Part::Pid => "pid",
        }
    }

    pub(super) fn of(stream: Stream) -> Part {
        match stream {
            Stream::Stdout => Part::Out,
            Stream::Stderr => Part::Err,
        }
    }
}

pub(super) fn name(run: Run, part: Part) -> String {
    format!("{run}.{}", part.suffix())
}

/// Whose a name is; `None`: none of uphold's.
pub(super) fn parse(text: &str) -> Option<(Run, Part)> {
    let (run, suffix) = text.split_once('.')?;
    let part = Part::ALL.into_iter().find(|part| part.suffix() == suffix)?;
    let run = Run(run.parse().ok()?);
    (name(run, part) == text).then_some((run, part))
}

/// The names of all that a manager may keep of a run.
pub fn stored_names(run: Run) -> [String; 3] {
    Part::ALL.map(|part| name(run, part))
}

/// A descriptor on its way to the manager's store.
#[derive(Debug)]
pub struct Deposit {
    /// At most 24 bytes, and no `:` in it.
    pub name: String,
    /// For the manager: a second one of what uphold has itself.
    pub fd: OwnedFd,
}

/// What was held open since an uphold before: by the manager, which has these still and only lends them, or by
/// the image before.
#[derive(Debug, Default)]
pub struct Stored {
    kept: HashMap<(Run, Part), OwnedFd>,
    /// Whose those of the image before are.
    pipes: Vec<(Name, Run, Stream)>,
}

impl Stored {
    pub(super) fn put(&mut self, (run, part): (Run, Part), fd: OwnedFd) {
        self.kept.insert((run, part), fd);
    }

    pub(super) fn put_pipe(&mut self, instance: Name, run: Run, stream: Stream, pipe: OwnedFd) {
        // One that was on its way to the manager is there twice.
        if self.kept.insert((run, Part::of(stream)), pipe).is_none() {
            self.pipes.push((instance, run, stream));
        }
    }

    /// Whose those of the image before are.
    pub(super) fn pipes(&mut self) -> Vec<(Name, Run, Stream)> {
        std::mem::take(&mut self.pipes)
    }

    /// An image that follows has the pidfds, too.
    pub fn note(&self, pipes: &Pipes) {
        for ((run, _), pidfd) in self.kept.iter().filter(|((_, part), _)| *part == Part::Pid) {
            // Without the note it may not know how one has ended that was no child.
            let _ = pipes.note(pidfd, &name(*run, Part::Pid));
        }
    }

    pub(super) fn take(&mut self, run: Run, part: Part) -> Option<OwnedFd> {
        self.kept.remove(&(run, part))
    }

    /// What there is of a run, for who takes it over later.
    pub(super) fn take_run(&mut self, run: Run) -> Stored {
        let parts = Part::ALL.into_iter();
        let kept = parts.filter_map(|part| Some(((run, part), self.take(run, part)?))).collect();
        Stored { kept, pipes: Vec::new() }
    }

    /// Whose they are.
    pub fn runs(&self) -> HashSet<Run> {
        self.kept.keys().map(|(run, _)| *run).collect()
    }
}

impl Host {
    /// What of a run goes to the manager's store: of its output what was not there before, and this pidfd. An image
    /// after the first gives all again: what the one before gave has been taken from it.
    /// What cannot be had for want of descriptors is not kept.
    pub(super) fn deposits(
        &self,
        run: Run,
        pidfd: impl FnOnce() -> Option<OwnedFd>,
        output: &[Captured],
    ) -> Vec<Deposit> {
        if !self.settings.deposits {
            return Vec::new();
        }
        let is_new = |captured: &&Captured| !captured.kept || reexec::goes_on();
        let streams = output.iter().filter(is_new).filter_map(|captured| {
            let fd = captured.pipe.try_clone().ok()?;
            Some(Deposit { name: name(run, Part::of(captured.stream)), fd })
        });
        let process = pidfd().map(|fd| Deposit { name: name(run, Part::Pid), fd });
        streams.chain(process).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_of_ones_own_is_known_again() {
        for part in Part::ALL {
            for run in [Run(1), Run(u64::MAX)] {
                assert_eq!(parse(&name(run, part)), Some((run, part)));
                assert!(name(run, part).len() <= 24);
            }
        }
        for foreign in
            ["", "web.socket", "1", "1.", ".out", "1.in", "01.out", "+1.out", "1.out.out", "-1.pid"]
        {
            assert_eq!(parse(foreign), None, "{foreign}");
        }
        assert_eq!(stored_names(Run(3)), ["3.out", "3.err", "3.pid"]);
    }
}
