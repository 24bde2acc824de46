//! The service manager above uphold, told by sd_notify(3), if there is one. A manager that does not read its
//! socket blocks who writes to it: so a thread does that.
//!
//! It also keeps descriptors of runs for the next uphold, if it does that (systemd: `FileDescriptorStoreMax=`).

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::engine::Run;
use crate::host::{Deposit, stored_names};

/// How many words may wait for the manager: those of a burst of starts. Each holds at most three descriptors.
const WAITING: usize = 256;

/// What there is to say.
#[derive(Debug)]
enum Word {
    Ready,
    Stopping,
    Alive,
    Keep(Vec<Deposit>),
    Forget(Vec<Run>),
}

/// A way to the manager that never blocks.
#[derive(Debug)]
pub struct Manager {
    /// `None`: there is no manager.
    words: Option<SyncSender<Word>>,
    /// Of which it keeps something, as far as it does that.
    kept: HashSet<Run>,
    /// Of which it is to keep nothing more, and was not told so yet.
    gone: Vec<Run>,
}

/// Whether there is a manager.
pub fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

impl Manager {
    /// Starts the thread, where there is a manager.
    pub fn start() -> std::io::Result<Manager> {
        let mut manager = Manager { words: None, kept: HashSet::new(), gone: Vec::new() };
        if is_there() {
            let (words, queue) = sync_channel(WAITING);
            std::thread::Builder::new().name("uphold-manager".to_owned()).spawn(move || speak(&queue))?;
            manager.words = Some(words);
        }
        Ok(manager)
    }

    /// Supervision has begun.
    pub fn ready(&mut self) {
        self.say(Word::Ready);
    }

    /// A shutdown has begun.
    pub fn stopping(&mut self) {
        self.say(Word::Stopping);
    }

    /// The deciding thread is alive.
    pub fn alive(&mut self) {
        self.say(Word::Alive);
    }

    /// These `runs` are taken over, and of `stored` it has kept something: what is over is taken from it. In a
    /// new image of the `same` process nobody knows what has come to it of all that the one before has said: it
    /// is all taken from it, and what is kept on is given again.
    pub fn go_on(&mut self, same: bool, stored: HashSet<Run>, runs: &HashSet<Run>) {
        if same {
            self.kept.extend(runs);
            self.forget(runs.iter().copied());
        } else {
            let over: Vec<Run> = stored.difference(runs).copied().collect();
            self.kept.extend(stored);
            self.forget(over);
        }
    }

    /// Gives it these of a run to keep. One that does not read keeps nothing.
    pub fn keep(&mut self, run: Run, deposits: Vec<Deposit>) {
        if !deposits.is_empty() && self.say(Word::Keep(deposits)) {
            self.kept.insert(run);
        }
    }

    /// These runs are over: it is to keep nothing of them. It is told later where it does not read now.
    pub fn forget(&mut self, runs: impl IntoIterator<Item = Run>) {
        self.gone.extend(runs.into_iter().filter(|run| self.kept.remove(run)));
        self.say_gone();
    }

    /// `false`: there is none, or it has stopped reading, and draws its own conclusion from the silence.
    fn say(&mut self, word: Word) -> bool {
        self.say_gone() && self.words.as_ref().is_some_and(|words| words.try_send(word).is_ok())
    }

    /// What is over goes before what is new, which may be of the same names. `false`: the queue is full.
    fn say_gone(&mut self) -> bool {
        let Some(words) = self.words.as_ref().filter(|_| !self.gone.is_empty()) else { return true };
        match words.try_send(Word::Forget(std::mem::take(&mut self.gone))) {
            Err(TrySendError::Full(Word::Forget(gone))) => {
                self.gone = gone;
                false
            }
            Ok(()) | Err(_) => true,
        }
    }
}

/// The thread. A manager that cannot be reached is no reason to stop; it is said once.
fn speak(queue: &Receiver<Word>) {
    let mut failing = false;
    while let Ok(word) = queue.recv() {
        let said = tell(word);
        if let (Err(error), false) = (&said, failing) {
            tracing::warn!("cannot notify the service manager: {error}");
        }
        failing = said.is_err();
    }
}

fn tell(word: Word) -> std::io::Result<()> {
    match word {
        Word::Ready => sd_notify::notify(&[NotifyState::Ready]),
        Word::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
        Word::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
        Word::Keep(deposits) => deposits.iter().try_for_each(|deposit| {
            // The manager would let go of it at a hang-up, and that is when it is needed.
            let no_poll = NotifyState::Custom("FDPOLL=0");
            let state = [NotifyState::FdStore, NotifyState::FdName(&deposit.name), no_poll];
            sd_notify::notify_with_fds(&state, &[deposit.fd.as_fd()])
        }),
        Word::Forget(runs) => runs.into_iter().flat_map(stored_names).try_for_each(|name| {
            sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(&name)])
        }),
    }
}

/// How often it wants to hear [`alive`]: half of WATCHDOG_USEC, as sd_watchdog_enabled(3) advises.
pub fn interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}
