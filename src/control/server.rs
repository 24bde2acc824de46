//! Connections: each is a task that reads requests, has them answered, and ends by itself.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::CONNECTION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request as HttpRequest, Response};
use hyper_util::rt::TokioTimer;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};

use super::busy::Busy;
use super::follow::{Asked, Daemon};
use super::limits::{Admission, Places};
use super::permissions::{Access, not_permitted, overflow_uid};
use super::respond::{self, Body, problem};
use super::routes::{Refusal, Route};
use super::{Call, Peer, Permissions, Request, busy};
use crate::api::Problem;
use crate::task;
use crate::wire::{self, Course, Wire};

/// How long a client may take to send a request's head, then its body, and how long a connection may idle.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The same for a connection that is only to be told that there is no place for it.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest body of a request.
const BODY_LIMIT: usize = 64 << 10;
/// The longest head of a request.
const HEAD_LIMIT: usize = 16 << 10;

/// Whether something of a connection can be read; `WouldBlock`: not yet.
pub type Reads = fn(&UnixStream) -> io::Result<()>;
/// All that was read of a connection is answered.
pub type Rests = fn(&UnixStream);

/// Serves connections.
#[derive(Debug)]
pub struct Server {
    permissions: watch::Receiver<Permissions>,
    requests: mpsc::Sender<Request>,
    places: Arc<Places>,
    /// True at the end; each connection listens to it, and so counts as one.
    ending: watch::Sender<bool>,
    /// True while nobody new is to be let in.
    held: watch::Sender<bool>,
    busy: Busy,
    reads: Reads,
    rests: Rests,
    pub(super) overflow_uid: u32,
    pub(super) timeout: Duration,
}

impl Server {
    /// A server that sends its requests there. The permissions may change: the next request is judged by
    /// those of then, and what is being followed goes on. `reads` tells when something of a connection may be
    /// read: until then, and again once `rests` was told, another image could go on with it.
    pub fn new(
        permissions: watch::Receiver<Permissions>,
        requests: mpsc::Sender<Request>,
        reads: Reads,
        rests: Rests,
    ) -> Server {
        Server {
            permissions,
            requests,
            places: Arc::default(),
            ending: watch::Sender::new(false),
            held: watch::Sender::new(false),
            busy: Busy::default(),
            reads,
            rests,
            overflow_uid: overflow_uid(),
            timeout: TIMEOUT,
        }
    }

    /// Serves one connection in a task of its own (`tokio::task::spawn_local` is not needed: everything is
    /// Send). Returns at once; over the limit of the peer's uid it is answered with 503 and closed.
    pub fn serve(&self, stream: UnixStream, peer: Peer) {
        let (access, own) = {
            let permissions = self.permissions.borrow();
            (permissions.access(&peer, self.overflow_uid), permissions.uid)
        };
        let (place, refused) = match self.places.admit(&peer, access, own) {
            Admission::Place(place) => (place, None),
            Admission::Refused(place, problem) => (place, Some(problem)),
            Admission::Full(problem) => {
                tracing::warn!(uid = peer.uid, "dropped a connection: {}", problem.detail);
                return;
            }
        };
        let timeout = if refused.is_some() { self.timeout.min(REFUSAL_TIMEOUT) } else { self.timeout };
        let session = Arc::new(Session {
            daemon: Daemon { requests: self.requests.clone(), peer },
            permissions: self.permissions.clone(),
            overflow_uid: self.overflow_uid,
            timeout,
            refused,
            busy: self.busy.clone(),
            reads: self.reads,
            rests: self.rests,
            held: self.held(),
            owed: Mutex::new(None),
            course: Arc::default(),
        });
        let ending = self.ending.subscribe();
        task::detached(async move {
            session.run(stream, ending).await;
            drop(place);
        });
    }

    /// Whether nobody is to be let in now, for who accepts connections: those that come meanwhile wait in the
    /// listener's queue.
    pub fn held(&self) -> watch::Receiver<bool> {
        self.held.subscribe()
    }

    /// Before uphold is replaced: from here on nobody is let in, and nobody heard who has not begun to ask.
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Then: waits until who has asked has the answer that is due, but at most for so long. What is followed or
    /// waited for is not minded: it would keep uphold.
    pub async fn answered(&self, limit: Duration) {
        if tokio::time::timeout(limit, self.busy.over()).await.is_err() {
            tracing::debug!("a request of the control API is not answered before uphold is replaced");
        }
    }

    /// It was not replaced: clients are let in and heard again.
    pub fn resume(&self) {
        self.held.send_replace(false);
    }

    /// At the end, once the daemon answers no more: lets what is being answered or followed come to its own
    /// end, so that a client can tell that from a connection that broke. At most for so long: a client that
    /// does not read must not keep uphold.
    pub async fn finish(&self, limit: Duration) {
        self.ending.send_replace(true);
        if tokio::time::timeout(limit, self.ending.closed()).await.is_err() {
            tracing::debug!("a client of the control API does not read its answer to the end");
        }
    }
}

/// One connection.
#[derive(Debug)]
struct Session {
    daemon: Daemon,
    permissions: watch::Receiver<Permissions>,
    overflow_uid: u32,
    timeout: Duration,
    /// There is no place for it.
    refused: Option<Problem>,
    busy: Busy,
    reads: Reads,
    rests: Rests,
    held: watch::Receiver<bool>,
    /// From the first byte of a request until its answer is sent, or is known to take long.
    owed: Mutex<Option<busy::One>>,
    course: Arc<Course>,
}

impl Session {
    async fn run(self: Arc<Session>, stream: UnixStream, mut ending: watch::Receiver<bool>) {
        let mut wire = Wire::new(stream, self.course.clone());
        loop {
            if wire.is_unread() {
                let came = tokio::select! {
                    came = tokio::time::timeout(self.timeout, self.first(wire.stream())) => matches!(came, Ok(Ok(()))),
                    () = async { drop(ending.wait_for(|ending| *ending).await) } => false,
                };
                if !came {
                    return;
                }
            }
            match self.one(wire, &mut ending).await {
                Some(left) => wire = left,
                None => return,
            }
        }
    }

    /// Serves one request, or several that came together; gives the connection where it outlives them.
    async fn one(self: &Arc<Session>, wire: Wire, ending: &mut watch::Receiver<bool>) -> Option<Wire> {
        self.course.begin();
        let service = service_fn(|request| {
            let session = self.clone();
            // In a task of its own: a client that goes away cancels nothing that it has asked for, not even
            // before the daemon has heard of it. What is waited for goes with the connection.
            let (tell, asked) = oneshot::channel();
            let asking = self.clone().ask(request);
            task::detached(async move { drop(tell.send(asking.await)) });
            self.owed().get_or_insert_with(|| self.busy.one());
            let one = self.course.asked();
            async move { Ok::<_, Infallible>(session.answer(asked, one).await) }
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.timeout)
            .max_buf_size(HEAD_LIMIT)
            .serve_connection(wire, service);
        let ended = tokio::select! {
            ended = poll_fn(|context| match pin::Pin::new(&mut connection).poll(context) {
                Poll::Ready(ended) => Poll::Ready(Some(ended)),
                Poll::Pending if self.course.sent() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }) => ended,
            // The server is dropped only with the daemon: an error is the end, too.
            () = async { drop(ending.wait_for(|ending| *ending).await) } => {
                pin::Pin::new(&mut connection).graceful_shutdown();
                Some((&mut connection).await)
            }
        };
        let Some(ended) = ended else {
            let http1::Parts { io: mut wire, read_buf, .. } = connection.into_parts();
            wire.put_back(&read_buf);
            if wire.is_unread() {
                (self.rests)(wire.stream());
                self.owed().take();
            }
            return Some(wire);
        };
        if let Err(error) = ended {
            let Peer { pid, uid, .. } = self.daemon.peer;
            tracing::debug!(uid, pid, %error, "a control connection ended early");
        }
        None
    }

    /// Waits until something comes, and counts as busy from then on.
    async fn first(&self, stream: &UnixStream) -> io::Result<()> {
        let mut held = self.held.clone();
        loop {
            drop(held.wait_for(|held| !*held).await);
            let heard = stream.async_io(Interest::READABLE, || {
                // Between here and the look at who is busy nothing else runs on this thread.
                let free = !*self.held.borrow();
                if free {
                    (self.reads)(stream)?;
                    *self.owed() = Some(self.busy.one());
                }
                Ok(free)
            });
            if heard.await? {
                return Ok(());
            }
        }
    }

    fn owed(&self) -> MutexGuard<'_, Option<busy::One>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(
        &self,
        asked: oneshot::Receiver<Result<(Call, Access, Asked), Response<Body>>>,
        one: wire::Answer,
    ) -> Response<Body> {
        let mut response = match asked.await {
            Ok(Ok((call, access, asked))) => {
                if call.is_long() {
                    self.owed().take();
                }
                respond::reply(self.daemon.answer(asked).await, call, access, self.daemon.clone())
            }
            Ok(Err(refusal)) => refusal,
            Err(error) => {
                tracing::error!(%error, "a bug: cannot take a request of the control API");
                let detail = "cannot answer: uphold itself has failed; its log says where";
                respond::refusal(&problem("internal", 500, detail).into(), true)
            }
        };
        if response.headers().contains_key(CONNECTION) {
            self.course.last();
        }
        response.body_mut().one = Some(one);
        response
    }

    /// Makes the request a call and asks the daemon, or says why not.
    async fn ask(
        self: Arc<Session>,
        request: HttpRequest<Incoming>,
    ) -> Result<(Call, Access, Asked), Response<Body>> {
        let (head, body) = request.into_parts();
        if let Some(problem) = &self.refused {
            return Err(respond::refusal(&problem.clone().into(), true));
        }
        let access = self.permissions.borrow().access(&self.daemon.peer, self.overflow_uid);
        let act = format!("answer {} {}", head.method, head.uri.path());
        let permit = |needs| self.permit(access, needs, &act);
        let found = permit(Access::Read)
            .map_err(Refusal::from)
            .and_then(|()| Route::find(&head.method, head.uri.path(), head.uri.query(), permit));
        let route = match found {
            Ok(route) => route,
            Err(refusal) => return Err(respond::refusal(&refusal, !body.is_end_stream())),
        };
        let body = match self.read(body).await {
            Ok(body) => body,
            Err(problem) => return Err(respond::refusal(&problem.into(), true)),
        };
        let call = route.call(&body).map_err(|problem| respond::refusal(&problem.into(), false))?;
        let asked = self.daemon.ask(call.clone()).await;
        Ok((call, access, asked))
    }

    fn permit(&self, access: Access, needs: Access, act: &str) -> Result<(), Problem> {
        if access >= needs {
            return Ok(());
        }
        Err(not_permitted(act, &self.daemon.peer, access, self.overflow_uid))
    }

    /// The whole body of a request, if it is not too long and comes in time.
    async fn read(&self, body: Incoming) -> Result<Bytes, Problem> {
        let too_large = || {
            let detail = format!("cannot read the request: its body is longer than {BODY_LIMIT} bytes");
            problem("too-large", 413, detail)
        };
        if body.size_hint().lower() > BODY_LIMIT as u64 {
            return Err(too_large());
        }
        match tokio::time::timeout(self.timeout, Limited::new(body, BODY_LIMIT).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(error)) => Err(problem(
                "bad-request",
                400,
                format!("cannot read the request: its body broke off: {error}"),
            )),
            Err(_) => {
                let detail =
                    format!("cannot read the request: its body did not come within {:?}", self.timeout);
                Err(problem("too-slow", 408, detail))
            }
        }
    }
}
