//! The service manager above uphold, told by sd_notify(3), if there is one. A manager that does not read its
//! socket blocks who writes to it: so a thread does that.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use sd_notify::NotifyState;

/// How many words may wait for the manager. More than these it has no use for.
const WAITING: usize = 8;

/// What there is to say.
#[derive(Debug, Clone, Copy)]
enum Word {
    Ready,
    Stopping,
    Alive,
}

/// A way to the manager that never blocks.
#[derive(Debug)]
pub struct Manager(Option<SyncSender<Word>>);

impl Manager {
    /// Starts the thread, where there is a manager.
    pub fn start() -> std::io::Result<Manager> {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Ok(Manager(None));
        }
        let (words, queue) = sync_channel(WAITING);
        std::thread::Builder::new().name("uphold-manager".to_owned()).spawn(move || speak(&queue))?;
        Ok(Manager(Some(words)))
    }

    /// Supervision has begun.
    pub fn ready(&self) {
        self.say(Word::Ready);
    }

    /// A shutdown has begun.
    pub fn stopping(&self) {
        self.say(Word::Stopping);
    }

    /// The deciding thread is alive.
    pub fn alive(&self) {
        self.say(Word::Alive);
    }

    fn say(&self, word: Word) {
        if let Some(words) = &self.0 {
            // Full: the manager has stopped reading, and draws its own conclusion from the silence.
            let _ = words.try_send(word);
        }
    }
}

/// The thread. A manager that cannot be reached is no reason to stop; it is said once.
fn speak(queue: &Receiver<Word>) {
    let mut failing = false;
    while let Ok(word) = queue.recv() {
        let state = match word {
            Word::Ready => NotifyState::Ready,
            Word::Stopping => NotifyState::Stopping,
            Word::Alive => NotifyState::Watchdog,
        };
        let said = sd_notify::notify(&[state]);
        if let (Err(error), false) = (&said, failing) {
            tracing::warn!("cannot notify the service manager: {error}");
        }
        failing = said.is_err();
    }
}

/// How often it wants to hear [`alive`]: half of WATCHDOG_USEC, as sd_watchdog_enabled(3) advises.
pub fn interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}
