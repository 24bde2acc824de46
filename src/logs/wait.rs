//! The log thread: waits on the pipes of all services at once, and gives each its turn at the pump.
//!
//! Everything here may block on a disk; nothing else waits for it but who asks. When nothing is written the
//! thread sleeps in epoll_wait(2) without a time-out.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::rc::Rc;

use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{self, LocalSet};

use super::console::Order;
use super::pump::{Pump, Turn};
use super::{Begins, Region, Source};
use crate::unit::{self, Name};

/// Waits for a console at the end; by then a full pipe has passed however small its lines.
const ROUNDS: usize = 1024;

/// What the thread is asked.
pub(super) enum Command {
    Open(Source),
    Configure(Name, unit::Logs),
    /// Put back what was removed of this, or whatever was.
    PutBack(Option<Box<dyn Region>>, Option<BTreeSet<OsString>>),
    /// Read what this instance has written up to now, then answer.
    Drain(Name, oneshot::Sender<()>),
    /// Have the consoles write what they were given, then answer.
    Settle(oneshot::Sender<()>),
    /// Read what all have written up to now, then answer and end.
    Finish(oneshot::Sender<()>),
}

/// Runs until it is told to finish, or nobody can tell it anything any more.
pub(super) async fn run(pump: Pump, mut commands: mpsc::UnboundedReceiver<Command>) {
    let pump = Rc::new(RefCell::new(pump));
    pump.borrow_mut().recover();
    let body = async {
        loop {
            match commands.recv().await {
                Some(Command::Open(source)) => open(&pump, source),
                Some(Command::Configure(instance, logs)) => pump.borrow_mut().configure(&instance, &logs),
                Some(Command::PutBack(region, gone)) => pump.borrow_mut().put_back(region, gone.as_ref()),
                Some(Command::Drain(instance, done)) => {
                    // A queue that is full is not waited for: whoever asks must not hang on it.
                    let _ = pump.borrow_mut().drain(Some(&instance));
                    // Who asked may have gone.
                    let _ = done.send(());
                    pump.borrow().shared.has_answered();
                }
                Some(Command::Settle(done)) => {
                    // Who asks for anything else must not hang on a console either.
                    let pump = pump.clone();
                    task::spawn_local(async move {
                        flush(&pump).await;
                        let _ = done.send(());
                    });
                }
                Some(Command::Finish(done)) => break Some(done),
                None => break None,
            }
        }
    };
    let local = LocalSet::new();
    let done = local.run_until(body).await;
    drain_all(&pump).await;
    pump.borrow_mut().finish();
    flush(&pump).await;
    if let Some(done) = done {
        let _ = done.send(());
    }
}

fn open(pump: &Rc<RefCell<Pump>>, source: Source) {
    let resumed = source.begins != Begins::Anew;
    if let Some((id, pipe)) = pump.borrow_mut().open(source) {
        task::spawn_local(follow(pump.clone(), id, pipe, resumed));
    }
}

/// Waits on one stream to its end.
async fn follow(pump: Rc<RefCell<Pump>>, id: u64, pipe: Rc<AsyncFd<File>>, mut resumed: bool) {
    // epoll does not tell the end of a FIFO that had no writer when it was opened.
    while resumed {
        let turn = pump.borrow_mut().turn(id);
        match turn {
            Turn::Held(queue) => drop(queue.reserve().await),
            Turn::Read => task::yield_now().await,
            Turn::Dry => resumed = false,
            Turn::Gone => return,
        }
    }
    loop {
        let mut guard = match pipe.readable().await {
            Ok(guard) => guard,
            Err(error) => return pump.borrow_mut().unreadable(id, &error),
        };
        let turn = pump.borrow_mut().turn(id);
        match turn {
            Turn::Read => task::yield_now().await,
            Turn::Dry => guard.clear_ready(),
            // A console whose thread is gone takes everything: the next turn sees that.
            Turn::Held(queue) => drop(queue.reserve().await),
            Turn::Gone => return,
        }
    }
}

/// Reads everything that was written, and waits for a slow console, as long as the caller lets us.
async fn drain_all(pump: &RefCell<Pump>) {
    for _ in 0..ROUNDS {
        let held = pump.borrow_mut().drain(None);
        match held {
            Some(queue) => drop(queue.reserve().await),
            None => return,
        }
    }
}

async fn flush(pump: &RefCell<Pump>) {
    let queues: Vec<_> = pump.borrow().queues();
    for queue in queues {
        let (done, flushed) = oneshot::channel();
        if queue.send(Order::Flush(done)).await.is_ok() {
            // An error is the end of its thread: there is nothing more to wait for.
            drop(flushed.await);
        }
    }
}
