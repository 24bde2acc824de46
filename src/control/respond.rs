//! From a [`Reply`] to an HTTP response.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::sync::mpsc;

use super::permissions::{Access, hide_configuration};
use super::routes::Refusal;
use super::{Call, Reply, follow};
use crate::api::{Problem, Units};
use crate::wire;

/// Of every body but a problem, also where it is one value a line.
const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";

/// Lines that are ready together go out together, up to about this many bytes.
const CHUNK: usize = 16 << 10;

/// The body of a response.
#[derive(Debug)]
pub(super) struct Body {
    content: Content,
    /// Until hyper has all of it.
    pub(super) one: Option<wire::Answer>,
}

/// What a response carries.
#[derive(Debug)]
enum Content {
    /// All of it; `None` once it was sent.
    Whole(Option<Bytes>),
    /// JSON lines as they come, until the sender ends.
    Lines(mpsc::Receiver<String>),
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.content {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Lines(lines) => {
                let mut chunk = String::new();
                while chunk.len() < CHUNK {
                    match lines.poll_recv(context) {
                        Poll::Ready(Some(line)) => {
                            chunk.push_str(&line);
                            chunk.push('\n');
                        }
                        Poll::Ready(None) if chunk.is_empty() => return Poll::Ready(None),
                        Poll::Pending if chunk.is_empty() => return Poll::Pending,
                        Poll::Ready(None) | Poll::Pending => break,
                    }
                }
                Poll::Ready(Some(Ok(Frame::data(chunk.into()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Content::Lines(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(
                bytes.as_ref().map_or(0, |bytes| bytes.len().try_into().unwrap_or(u64::MAX)),
            ),
            Content::Lines(_) => SizeHint::default(),
        }
    }
}

/// A problem of a kind that this module knows.
pub(super) fn problem(kind: &str, status: u16, detail: impl Into<String>) -> Problem {
    let title = match kind {
        "bad-request" => "The request is not one that can be answered",
        "no-such-route" => "There is nothing at this path",
        "method-not-allowed" => "This path takes another method",
        "not-permitted" => "The peer may not do this",
        "not-supported" => "This is not supported yet",
        "too-large" => "The body is too large",
        "too-slow" => "The body did not come in time",
        "too-many-connections" => "There are too many connections",
        "shutting-down" => "The daemon is ending",
        _ => "The daemon failed to answer",
    };
    Problem { kind: kind.to_owned(), title: title.to_owned(), status, detail: detail.into() }
}

/// A refusal as a response. `close`: the request's body was not read, so nothing more can come after it.
pub(super) fn refusal(refusal: &Refusal, close: bool) -> Response<Body> {
    let Refusal { problem, allow } = refusal;
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, PROBLEM, problem);
    if let Some(allow) = allow {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    }
    if close {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// What the daemon answered to `call`, as this peer may see it.
pub(super) fn reply(reply: Reply, call: Call, access: Access, daemon: follow::Daemon) -> Response<Body> {
    let reader = access < Access::Everything;
    match reply {
        Reply::List(mut units) => {
            if reader {
                units.iter_mut().for_each(hide_configuration);
            }
            json(StatusCode::OK, JSON, &Units { units })
        }
        Reply::Unit(mut unit) => {
            if reader {
                hide_configuration(&mut unit);
            }
            json(StatusCode::OK, JSON, &unit)
        }
        Reply::Config(config) => json(StatusCode::OK, JSON, &config),
        Reply::Done(done) => json(StatusCode::OK, JSON, &done),
        Reply::Logs(lines) => response(StatusCode::OK, JSON, Content::Lines(lines)),
        Reply::Events(events, None) => {
            let lines: String = events.iter().filter_map(follow::line).map(|line| line + "\n").collect();
            response(StatusCode::OK, JSON, Content::Whole(Some(lines.into())))
        }
        Reply::Events(events, Some(coming)) => {
            let lines = follow::events(daemon, call, events, coming);
            response(StatusCode::OK, JSON, Content::Lines(lines))
        }
        Reply::Changes(changes) => json(StatusCode::OK, JSON, &changes),
        Reply::Accepted => json(StatusCode::ACCEPTED, JSON, &serde_json::json!({})),
        Reply::Version(version) => json(StatusCode::OK, JSON, &version),
        Reply::Health(health) => {
            let status = if health.healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            json(status, JSON, &health)
        }
        Reply::Problem(problem) => refusal(&problem.into(), false),
    }
}

fn json(status: StatusCode, kind: &'static str, value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(mut text) => {
            text.push(b'\n');
            response(status, kind, Content::Whole(Some(text.into())))
        }
        Err(error) => {
            tracing::error!(%error, "cannot render an answer of the control API");
            response(StatusCode::INTERNAL_SERVER_ERROR, kind, Content::Whole(None))
        }
    }
}

fn response(status: StatusCode, kind: &'static str, content: Content) -> Response<Body> {
    let mut response = Response::new(Body { content, one: None });
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
