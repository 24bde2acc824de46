//! The service manager above uphold, told by sd_notify(3), if there is one. A manager that does not read its
//! socket blocks who writes to it: so a thread does that.
//!
//! It also keeps descriptors of runs for the next uphold, if it does that (systemd: `FileDescriptorStoreMax=`).

use std::collections::{HashSet, VecDeque};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::mpsc::UnboundedSender;

use super::answers::Inward;
use crate::engine::Run;
use crate::host::{Deposit, stored_names};

/// How many runs may wait to be given to a manager that does not read: those of a burst of starts, and more.
/// Each holds at most three descriptors.
const WAITING: usize = 1024;

/// What there is to say.
#[derive(Debug)]
enum Word {
    Ready,
    Stopping,
    Alive,
    Keep(Run, Vec<Deposit>),
    Forget(Run),
}

/// What waits to be said, in order. What is of no use any more is taken out again, so that there is never more
/// of it than there are runs.
#[derive(Debug, Default)]
struct Desk {
    words: Mutex<VecDeque<Word>>,
    more: Condvar,
}

impl Desk {
    /// No code that holds it can panic half-way.
    fn lock(&self) -> MutexGuard<'_, VecDeque<Word>> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, word: Word) {
        self.lock().push_back(word);
        self.more.notify_one();
    }

    /// Waits for the next word.
    fn next(&self) -> Word {
        let mut words = self.lock();
        loop {
            match words.pop_front() {
                Some(word) => return word,
                None => words = self.more.wait(words).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// A way to the manager that never blocks.
#[derive(Debug, Default)]
pub struct Manager {
    /// `None`: there is no manager.
    desk: Option<Arc<Desk>>,
    /// Of which it keeps something, as far as it does that, or is about to be asked to.
    kept: HashSet<Run>,
    /// Of which it has kept something since an uphold before.
    before: HashSet<Run>,
    /// Over, and it is about to be told: until then this has to be known to the next image.
    telling: HashSet<Run>,
    /// It does not read, and that was said.
    said: bool,
}

/// Whether there is a manager.
pub fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

impl Manager {
    /// Starts the thread, where there is a manager. [`Inward::Forgotten`] follows on what it was told to forget.
    pub(super) fn start(inward: UnboundedSender<Inward>) -> std::io::Result<Manager> {
        let mut manager = Manager::default();
        if is_there() {
            let desk = Arc::<Desk>::default();
            let words = desk.clone();
            let speaking = move || speak(&words, &inward);
            std::thread::Builder::new().name("uphold-manager".to_owned()).spawn(speaking)?;
            manager.desk = Some(desk);
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

    /// The deciding thread is alive. While it does not read, it draws its own conclusion from the silence.
    pub fn alive(&mut self) {
        let Some(desk) = &self.desk else { return };
        if !desk.lock().iter().any(|word| matches!(word, Word::Alive)) {
            desk.put(Word::Alive);
        }
    }

    /// These `runs` are taken over, and of `stored` it has kept something: what is over is taken from it. In a
    /// new image of the `same` process nobody knows what has come to it of all that the one before has said: it
    /// is all taken from it, and what is kept on is given again. `over`: it may not have been told of these.
    pub fn go_on(&mut self, same: bool, stored: HashSet<Run>, runs: &HashSet<Run>, over: HashSet<Run>) {
        if self.desk.is_none() {
            return;
        }
        if same {
            runs.iter().for_each(|run| self.say(Word::Forget(*run)));
            over.iter().for_each(|run| self.say(Word::Forget(*run)));
            self.telling = over;
        } else {
            stored.difference(runs).for_each(|run| self.say(Word::Forget(*run)));
            self.kept = stored.intersection(runs).copied().collect();
            self.before = self.kept.clone();
        }
    }

    /// Gives it these of a run to keep, once it reads.
    pub fn keep(&mut self, run: Run, deposits: Vec<Deposit>) {
        let Some(desk) = self.desk.as_ref().filter(|_| !deposits.is_empty()) else { return };
        let waiting = desk.lock().iter().filter(|word| matches!(word, Word::Keep(..))).count();
        if waiting < WAITING {
            desk.put(Word::Keep(run, deposits));
            self.kept.insert(run);
        } else if !self.said {
            tracing::warn!(
                "cannot give the output of {waiting} runs to the service manager, which does not read: of what is \
                 started from here on, it keeps nothing; what such a run has written is lost if it ends while no \
                 uphold runs"
            );
        }
        self.said = waiting >= WAITING;
    }

    /// This run is over: it is to keep nothing of it. `true`: it will be told so, and [`Inward::Forgotten`] says
    /// when it was; until then whoever comes after this image has to know of the run.
    pub fn forget(&mut self, run: Run) -> bool {
        let Some(desk) = self.desk.as_ref().filter(|_| self.kept.remove(&run)) else { return false };
        let mut words = desk.lock();
        let before = words.len();
        words.retain(|word| !matches!(word, Word::Keep(waiting, _) if *waiting == run));
        // What it was never given, it need not forget.
        let told = self.before.remove(&run) || words.len() == before;
        drop(words);
        if told {
            desk.put(Word::Forget(run));
            self.telling.insert(run);
        }
        told
    }

    /// It was told to forget this run. `true`: nobody has to know of it any more.
    pub fn forgotten(&mut self, run: Run) -> bool {
        self.telling.remove(&run)
    }

    /// Over, and it was not told yet.
    pub fn untold(&self) -> &HashSet<Run> {
        &self.telling
    }

    fn say(&mut self, word: Word) {
        if let Some(desk) = &self.desk {
            desk.put(word);
        }
    }
}

/// The thread. A manager that cannot be reached is no reason to stop; it is said once.
fn speak(desk: &Desk, inward: &UnboundedSender<Inward>) {
    let mut failing = false;
    loop {
        let word = desk.next();
        let over = if let Word::Forget(run) = &word { Some(*run) } else { None };
        let said = tell(word);
        if let (Err(error), false) = (&said, failing) {
            tracing::warn!("cannot notify the service manager: {error}");
        }
        failing = said.is_err();
        if over.is_some_and(|run| inward.send(Inward::Forgotten(run)).is_err()) {
            return;
        }
    }
}

fn tell(word: Word) -> std::io::Result<()> {
    match word {
        Word::Ready => sd_notify::notify(&[NotifyState::Ready]),
        Word::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
        Word::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
        Word::Keep(_, deposits) => deposits.iter().try_for_each(|deposit| {
            // The manager would let go of it at a hang-up, and that is when it is needed.
            let no_poll = NotifyState::Custom("FDPOLL=0");
            let state = [NotifyState::FdStore, NotifyState::FdName(&deposit.name), no_poll];
            sd_notify::notify_with_fds(&state, &[deposit.fd.as_fd()])
        }),
        Word::Forget(run) => stored_names(run)
            .iter()
            .try_for_each(|name| sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)])),
    }
}

/// How often it wants to hear [`alive`]: half of WATCHDOG_USEC, as sd_watchdog_enabled(3) advises.
pub fn interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager() -> Manager {
        Manager { desk: Some(Arc::default()), ..Manager::default() }
    }

    fn some() -> Vec<Deposit> {
        let fd = std::fs::File::open("/dev/null").unwrap().into();
        vec![Deposit { name: "x".to_owned(), fd }]
    }

    /// What the thread would say.
    fn said(manager: &Manager) -> Vec<String> {
        let words = std::mem::take(&mut *manager.desk.as_ref().unwrap().lock());
        let said = |word| match word {
            Word::Keep(run, _) => format!("keep {run}"),
            Word::Forget(run) => format!("forget {run}"),
            other => format!("{other:?}"),
        };
        words.into_iter().map(said).collect()
    }

    fn runs(numbers: &[u64]) -> HashSet<Run> {
        numbers.iter().copied().map(Run).collect()
    }

    #[test]
    fn what_is_over_before_it_was_given_is_neither_given_nor_taken_back() {
        let mut manager = manager();
        manager.keep(Run(1), some());
        manager.keep(Run(2), some());
        assert!(!manager.forget(Run(1)));
        assert_eq!(said(&manager), ["keep 2"]);
        assert!(manager.forget(Run(2)) && manager.untold().contains(&Run(2)));
        assert!(!manager.forget(Run(2)) && !manager.forget(Run(3)));
        assert_eq!(said(&manager), ["forget 2"]);
        assert!(manager.forgotten(Run(2)) && !manager.forgotten(Run(2)));
    }

    #[test]
    fn what_it_has_kept_since_an_uphold_before_is_taken_back_though_more_of_it_waits() {
        let mut manager = manager();
        manager.go_on(false, runs(&[1, 9]), &runs(&[1, 2]), HashSet::new());
        manager.keep(Run(1), some());
        assert!(manager.forget(Run(1)));
        assert_eq!(said(&manager), ["forget 9", "forget 1"]);
    }

    #[test]
    fn a_new_image_takes_back_all_that_may_have_been_given_and_gives_it_again() {
        let mut manager = manager();
        manager.go_on(true, HashSet::new(), &runs(&[1]), runs(&[7]));
        manager.keep(Run(1), some());
        assert_eq!(said(&manager), ["forget 1", "forget 7", "keep 1"]);
        // What lives is known all the same.
        assert!(!manager.forgotten(Run(1)) && manager.forgotten(Run(7)));
    }

    #[test]
    fn one_that_does_not_read_makes_nothing_grow() {
        let mut manager = manager();
        for run in 1..=5000 {
            manager.keep(Run(run), Vec::new());
            manager.alive();
        }
        assert_eq!(said(&manager), ["Alive"]);
        for run in 1..=WAITING as u64 + 9 {
            manager.keep(Run(run), some());
        }
        assert!(manager.said && said(&manager).len() == WAITING);
    }
}
