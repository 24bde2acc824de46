//! Tasks beside the deciding loop.
//!
//! To the runtime all that are begun here are of one type: what it has to run one is in the binary once.

use std::pin::Pin;

use tokio::task::{AbortHandle, Id};

/// A task that ends with what it is for: it is aborted when this is dropped.
#[derive(Debug)]
pub struct Task(AbortHandle);

impl Task {
    /// Begins one, within a tokio runtime.
    pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Task {
        Task(begin(Box::pin(future)))
    }

    /// No other task that has not ended has this one.
    pub fn id(&self) -> Id {
        self.0.id()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Begins a task that goes on to its own end, within a tokio runtime.
pub fn detached(future: impl Future<Output = ()> + Send + 'static) {
    begin(Box::pin(future));
}

fn begin(future: Pin<Box<dyn Future<Output = ()> + Send>>) -> AbortHandle {
    tokio::spawn(future).abort_handle()
}
