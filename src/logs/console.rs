//! `inherit`: lines to uphold's own stdout or stderr.
//!
//! Who reads them is not ours, and may stop: each of the two has a thread of its own, started with the first
//! line, and a short queue. While the queue is full the services that write there wait, as they would if the
//! stream were theirs; the log files of others go on. Nothing that happens to the stream ends uphold: what it
//! refuses is counted and said. What is in the queue when uphold is killed is lost; the end of an image waits for it
//! (`Gate`).

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use memchr::memrchr;
use tokio::sync::{mpsc, oneshot};

use super::journal::Gate;
use super::loss::{Loss, Notices};
use crate::unit::Name;

/// Batches in the queue.
const QUEUE: usize = 16;
/// A stream that would block (somebody made it non-blocking) is asked again after this.
const PAUSE: Duration = Duration::from_millis(10);
/// For at most so long, without a byte taken.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the thread is given.
pub(super) enum Order {
    Write {
        owner: Name,
        batch: Vec<u8>,
        /// Bytes before each line that are not the service's.
        lead: usize,
    },
    Flush(oneshot::Sender<()>),
}

/// One of uphold's own streams.
pub(super) struct Console {
    /// Until the thread takes it.
    fd: Option<OwnedFd>,
    place: &'static str,
    notices: Notices,
    queue: Option<mpsc::Sender<Order>>,
    gate: Option<&'static dyn Gate>,
}

impl Console {
    pub(super) fn new(
        fd: OwnedFd,
        place: &'static str,
        notices: Notices,
        gate: Option<&'static dyn Gate>,
    ) -> Console {
        Console { fd: Some(fd), place, notices, queue: None, gate }
    }

    /// A batch is about to be queued.
    pub(super) fn enter(&self) {
        if let Some(gate) = self.gate {
            gate.enter();
        }
    }

    /// Queues it. `false`: it is lost.
    pub(super) fn send(&mut self, order: Order) -> bool {
        let sent = self.queue().is_some_and(|queue| queue.try_send(order).is_ok());
        if let Some(gate) = self.gate.filter(|_| !sent) {
            gate.leave();
        }
        sent
    }

    /// The queue; `None` where no thread could be started.
    pub(super) fn queue(&mut self) -> Option<&mpsc::Sender<Order>> {
        if let Some(fd) = self.fd.take() {
            let (queue, orders) = mpsc::channel(QUEUE);
            let stream = Stream::new(File::from(fd), self.place, self.notices.clone(), self.gate);
            match thread::Builder::new().name("log-inherit".to_owned()).spawn(move || stream.run(orders)) {
                Ok(_) => self.queue = Some(queue),
                Err(error) => tracing::error!("cannot start the thread that writes {}: {error}", self.place),
            }
        }
        self.queue.as_ref()
    }

    /// The queue of a thread that runs.
    pub(super) fn started(&self) -> Option<&mpsc::Sender<Order>> {
        self.queue.as_ref()
    }
}

struct Stream {
    file: File,
    place: &'static str,
    notices: Notices,
    loss: Option<Loss>,
    /// The last write ended within a line.
    torn: bool,
    gate: Option<&'static dyn Gate>,
}

impl Stream {
    fn new(file: File, place: &'static str, notices: Notices, gate: Option<&'static dyn Gate>) -> Stream {
        Stream { file, place, notices, loss: None, torn: false, gate }
    }

    fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        while let Some(order) = orders.blocking_recv() {
            match order {
                Order::Write { owner, batch, lead } => {
                    self.write(&owner, &batch, lead, Instant::now());
                    if let Some(gate) = self.gate {
                        gate.leave();
                    }
                }
                // Who asked may have stopped waiting.
                Order::Flush(done) => drop(done.send(())),
            }
        }
        if let Some(loss) = self.loss {
            loss.final_word(self.place, &self.notices);
        }
    }

    fn write(&mut self, owner: &Name, batch: &[u8], lead: usize, now: Instant) {
        if let Some(loss) = self.loss.as_mut().filter(|loss| loss.rests(now)) {
            loss.count(batch, lead);
            return;
        }
        let said = self.loss.as_ref().and_then(|loss| loss.line(b"")).unwrap_or_default();
        let outcome = self.put(&said).map_err(|(_, error)| (0, error)).and_then(|()| {
            if let Some(loss) = &mut self.loss {
                loss.said();
            }
            self.put(batch)
        });
        match outcome {
            Ok(()) => {
                if let Some(loss) = self.loss.take() {
                    loss.recovered(self.place, &self.notices);
                }
            }
            Err((whole, error)) => {
                let loss = self.loss.get_or_insert_with(|| Loss::new(now));
                loss.count(&batch[whole..], lead);
                loss.failed(Instant::now(), &error, self.place, owner, &self.notices);
            }
        }
    }

    /// An error says how many bytes of whole lines were written before it.
    fn put(&mut self, lines: &[u8]) -> Result<(), (usize, io::Error)> {
        if self.torn && !lines.is_empty() {
            self.file.write_all(b"\n").map_err(|error| (0, error))?;
            self.torn = false;
        }
        let mut written = 0;
        let mut progress = Instant::now();
        while written < lines.len() {
            let error = match self.file.write(&lines[written..]) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(count) => {
                    written += count;
                    progress = Instant::now();
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && progress.elapsed() < PATIENCE => {
                    thread::sleep(PAUSE);
                    continue;
                }
                Err(error) => error,
            };
            let whole = memrchr(b'\n', &lines[..written]).map_or(0, |at| at + 1);
            self.torn = whole < written;
            return Err((whole, error));
        }
        Ok(())
    }
}
