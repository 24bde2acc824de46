//! What has crashed uphold twice: known again by a number, dropped, and said to be.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{AFTER_A_PANIC, Daemon, Wake};
use crate::host;
use crate::unit::Signal;

impl Daemon {
    /// What has crashed uphold twice is not tried a third time.
    pub(super) async fn drop_poison(&mut self, wake: &Wake) {
        let now = host::now().mono;
        let due = match wake {
            Wake::Deadline => self.engine.due(now).map(|name| format!(" of {name}")),
            _ => None,
        };
        if self.poison.insert(self.key(wake)) {
            let due = due.clone().unwrap_or_default();
            let message = format!("dropped what has crashed uphold twice: {}{due}", wake.name());
            self.own_event("InputDropped", true, message);
        }
        if due.is_some() {
            self.engine.pass_by(now);
        }
        // What is due stays so, and would come before whatever is asked for.
        match wake {
            Wake::Incomplete => self.ground.put_off(),
            Wake::Unrecorded => self.journal.put_off(),
            _ => {}
        }
        // It may come again at once, for ever.
        tokio::time::sleep(AFTER_A_PANIC).await;
    }

    /// The same for what is the same, in every image of this binary. 0, which is never dropped: reaping, without
    /// which no end of a process would be heard of.
    pub(super) fn key(&self, wake: &Wake) -> u64 {
        let mut hasher = DefaultHasher::new();
        match wake {
            Wake::Signal(Signal::CHLD) => return 0,
            Wake::News(news) => news.subject().hash(&mut hasher),
            Wake::Notice(notice) => (&notice.instance, notice.reason).hash(&mut hasher),
            Wake::Request(request) => format!("{:?}", request.call).hash(&mut hasher),
            Wake::Signal(signal) => signal.hash(&mut hasher),
            Wake::Inward(inward) => inward.name().hash(&mut hasher),
            Wake::Host => 1.hash(&mut hasher),
            Wake::Deadline => (2, self.engine.due(host::now().mono)).hash(&mut hasher),
            Wake::Watchdog => 3.hash(&mut hasher),
            Wake::Unrecorded => 4.hash(&mut hasher),
            Wake::Gone(_) => 5.hash(&mut hasher),
            Wake::Incomplete => 6.hash(&mut hasher),
        }
        hasher.finish() | 1
    }
}

impl Wake {
    fn name(&self) -> String {
        match self {
            Wake::News(news) => format!("{news:?}"),
            Wake::Notice(notice) => format!("{notice:?}"),
            Wake::Request(request) => format!("{:?}", request.call),
            Wake::Signal(signal) => signal.name(),
            Wake::Inward(inward) => inward.name(),
            Wake::Host => "something at the host".to_owned(),
            Wake::Deadline => "a deadline".to_owned(),
            Wake::Watchdog => "the watchdog".to_owned(),
            Wake::Unrecorded => "a state that could not be written".to_owned(),
            Wake::Gone(_) => "what was removed of the runtime directory".to_owned(),
            Wake::Incomplete => "a look at the runtime directory".to_owned(),
        }
    }
}
