//! Asking the daemon, and following its events without loss.

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::respond::problem;
use super::{Call, Peer, Reply, Request};
use crate::engine::Event;
use crate::task;

/// Lines that wait for a client that reads slowly; what comes beyond waits in the broadcast, and what that
/// loses is asked for again.
const WAITING: usize = 64;

/// The daemon, asked in the name of one peer.
#[derive(Debug, Clone)]
pub(super) struct Daemon {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) peer: Peer,
}

/// What was asked, and its answer to come. Who drops it wants no answer any more.
#[derive(Debug)]
pub(super) struct Asked(oneshot::Receiver<Reply>);

impl Daemon {
    /// Asks, once the daemon has room for one more request.
    pub(super) async fn ask(&self, call: Call) -> Asked {
        let (reply, answer) = oneshot::channel();
        // Where the daemon takes no more, the end of `reply` says so.
        drop(self.requests.send(Request { call, peer: self.peer.clone(), reply }).await);
        Asked(answer)
    }

    /// Waits for the answer, as long as it takes.
    pub(super) async fn answer(&self, asked: Asked) -> Reply {
        match asked.0.await {
            Ok(reply) => reply,
            Err(_) if self.requests.is_closed() => shutting_down(),
            Err(_) => Reply::Problem(problem(
                "internal",
                500,
                "cannot answer: uphold dropped the request, and its own log may say why; one that has crashed it \
                 twice is let in again by `uphold ctl upgrade`",
            )),
        }
    }
}

fn shutting_down() -> Reply {
    let detail = "cannot answer: the daemon is ending and takes no more requests";
    Reply::Problem(problem("shutting-down", 503, detail))
}

/// One event as its line, without the line end.
pub(super) fn line(event: &Event) -> Option<String> {
    serde_json::to_string(event).ok()
}

/// The events of before as lines, then those that come, until the daemon or the client ends it. `call` is
/// what was asked for.
pub(super) fn events(
    daemon: Daemon,
    call: Call,
    before: Vec<Event>,
    coming: broadcast::Receiver<Event>,
) -> mpsc::Receiver<String> {
    let (lines, body) = mpsc::channel(WAITING);
    task::detached(async move {
        tokio::select! {
            () = lines.closed() => {}
            () = pump(&daemon, call, before, coming, &lines) => {}
        }
    });
    body
}

async fn pump(
    daemon: &Daemon,
    call: Call,
    before: Vec<Event>,
    mut coming: broadcast::Receiver<Event>,
    lines: &mpsc::Sender<String>,
) {
    let (unit, mut last) = match call {
        Call::Events { unit, since, .. } => (unit, since),
        _ => (None, 0),
    };
    let mut batch = before;
    loop {
        for event in batch {
            // An event that came between the list and the subscription is in both.
            if event.seq <= last {
                continue;
            }
            last = event.seq;
            if unit.as_ref().is_some_and(|unit| *unit != event.unit) {
                continue;
            }
            if let Some(line) = line(&event)
                && lines.send(line).await.is_err()
            {
                return;
            }
        }
        batch = match coming.recv().await {
            Ok(event) => vec![event],
            Err(RecvError::Closed) => return,
            Err(RecvError::Lagged(_)) => {
                let again = Call::Events { unit: unit.clone(), since: last, follow: true };
                let asked = daemon.ask(again).await;
                let Reply::Events(missed, Some(fresh)) = daemon.answer(asked).await else { return };
                coming = fresh;
                missed
            }
        };
    }
}
