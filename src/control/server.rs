//! Connections: each is a task that reads requests, has them answered, and ends by itself.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request as HttpRequest, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use super::follow::Daemon;
use super::limits::{Admission, Places};
use super::permissions::{Access, not_permitted, overflow_uid};
use super::respond::{self, Body, problem};
use super::routes::{Refusal, Route};
use super::{Peer, Permissions, Request};
use crate::api::Problem;

/// How long a client may take to send a request's head, then its body, and how long a connection may idle.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The same for a connection that is only to be told that there is no place for it.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest body of a request.
const BODY_LIMIT: usize = 64 << 10;
/// The longest head of a request.
const HEAD_LIMIT: usize = 16 << 10;

/// Serves connections.
#[derive(Debug)]
pub struct Server {
    permissions: watch::Receiver<Permissions>,
    requests: mpsc::Sender<Request>,
    places: Arc<Places>,
    pub(super) overflow_uid: u32,
    pub(super) timeout: Duration,
}

impl Server {
    /// A server that sends its requests there. The permissions may change: the next request is judged by
    /// those of then, and what is being followed goes on.
    pub fn new(permissions: watch::Receiver<Permissions>, requests: mpsc::Sender<Request>) -> Server {
        Server {
            permissions,
            requests,
            places: Arc::default(),
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
        });
        tokio::spawn(async move {
            session.run(stream).await;
            drop(place);
        });
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
}

impl Session {
    async fn run(self: Arc<Session>, stream: UnixStream) {
        let service = service_fn(|request| {
            let session = self.clone();
            async move { Ok::<_, Infallible>(session.answer(request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.timeout)
            .max_buf_size(HEAD_LIMIT)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = connection.await {
            let Peer { pid, uid, .. } = self.daemon.peer;
            tracing::debug!(uid, pid, %error, "a control connection ended early");
        }
    }

    async fn answer(&self, request: HttpRequest<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        if let Some(problem) = &self.refused {
            return respond::refusal(&problem.clone().into(), true);
        }
        let access = self.permissions.borrow().access(&self.daemon.peer, self.overflow_uid);
        let act = format!("answer {} {}", head.method, head.uri.path());
        let permit = |needs| self.permit(access, needs, &act);
        let found = permit(Access::Read)
            .map_err(Refusal::from)
            .and_then(|()| Route::find(&head.method, head.uri.path(), head.uri.query(), permit));
        let route = match found {
            Ok(route) => route,
            Err(refusal) => return respond::refusal(&refusal, !body.is_end_stream()),
        };
        let body = match self.read(body).await {
            Ok(body) => body,
            Err(problem) => return respond::refusal(&problem.into(), true),
        };
        match route.call(&body) {
            Ok(call) => {
                let reply = self.daemon.ask(call.clone()).await;
                respond::reply(reply, call, access, self.daemon.clone())
            }
            Err(problem) => respond::refusal(&problem.into(), false),
        }
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
