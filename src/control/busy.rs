//! Which connections uphold owes something short: who is asking, and who has asked for what is answered at
//! once. Known so that uphold is not replaced under them.

use tokio::sync::watch;

/// Counts them. Clones count the same.
#[derive(Debug, Clone)]
pub(super) struct Busy(watch::Sender<()>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct One {
    _counted: watch::Receiver<()>,
}

impl Default for Busy {
    fn default() -> Busy {
        Busy(watch::Sender::new(()))
    }
}

impl Busy {
    /// One more.
    pub(super) fn one(&self) -> One {
        One { _counted: self.0.subscribe() }
    }

    /// Waits until there is none.
    pub(super) async fn over(&self) {
        self.0.closed().await;
    }
}
