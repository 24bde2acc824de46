//! HTTP/1.1 over the Unix socket: one connection a request.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::failure::Failure;
use super::patience::Patience;
use crate::api::Problem;
use crate::task;
use crate::wire;

/// How often, and how far apart, a connect is tried again that found the daemon's queue full (EAGAIN).
const TRIES: u32 = 250;
const BETWEEN: Duration = Duration::from_millis(20);

/// Asks the daemon.
#[derive(Debug, Clone)]
pub(super) struct Client {
    path: PathBuf,
    /// A daemon has let it, or a clone of it, in: one that is not there now is minded.
    met: Arc<AtomicBool>,
}

/// An answer, whole.
#[derive(Debug)]
pub(super) struct Answer {
    status: u16,
    problem: bool,
    /// The body as it came.
    pub(super) text: String,
}

impl Client {
    /// A client of the daemon behind this socket.
    pub(super) fn new(path: PathBuf) -> Client {
        Client { path, met: Arc::default() }
    }

    /// `GET`, and the body read as what it should be, beside its text.
    pub(super) async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<(T, String), Failure> {
        self.repeat(Method::GET, target).await?.read()
    }

    /// The same without patience.
    pub(super) async fn get_now<T: DeserializeOwned>(&self, target: &str) -> Result<(T, String), Failure> {
        self.once(&Method::GET, target, "").await?.read()
    }

    /// `POST`, likewise; asked again only where the daemon cannot have taken it.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        target: &str,
        body: &str,
    ) -> Result<(T, String), Failure> {
        self.ask(Method::POST, target, body).await?.read()
    }

    /// One request that changes nothing, and its whole answer, whatever its status. Asked again as long as
    /// the daemon is replaced meanwhile.
    pub(super) async fn repeat(&self, method: Method, target: &str) -> Result<Answer, Failure> {
        let mut patience = Patience::new();
        loop {
            match self.once(&method, target, "").await {
                Ok(answer) => return Ok(answer),
                Err(failure) => self.mind(&mut patience, failure).await?,
            }
        }
    }

    /// One request that may change something, and its whole answer, whatever its status. Asked again only
    /// where the daemon cannot have taken it: else [`Failure::Broken`].
    pub(super) async fn ask(&self, method: Method, target: &str, body: &str) -> Result<Answer, Failure> {
        let mut patience = Patience::new();
        loop {
            match self.once(&method, target, body).await {
                Err(failure @ Failure::Broken { sent: true, .. }) => return Err(failure),
                Err(failure) => self.mind(&mut patience, failure).await?,
                Ok(answer) => return Ok(answer),
            }
        }
    }

    /// A `GET` whose answer goes on: newline-delimited JSON.
    pub(super) async fn follow(&self, target: &str) -> Result<Lines, Failure> {
        let mut patience = Patience::new();
        let response = loop {
            match self.send(&Method::GET, target, "").await {
                Ok(response) => break response,
                Err(failure) => self.mind(&mut patience, failure).await?,
            }
        };
        if response.status().is_success() {
            return Ok(Lines { body: response.into_body(), buffer: BytesMut::new(), searched: 0 });
        }
        Err(self.whole(response).await?.refusal())
    }

    /// Waits a moment where asking again may help. A daemon that never was there is not waited for.
    pub(super) async fn mind(&self, patience: &mut Patience, failure: Failure) -> Result<(), Failure> {
        if !self.met.load(Ordering::Relaxed) {
            return Err(failure);
        }
        patience.again(failure).await
    }

    /// One request and its whole answer, asked once.
    pub(super) async fn once(&self, method: &Method, target: &str, body: &str) -> Result<Answer, Failure> {
        let response = self.send(method, target, body).await?;
        self.whole(response).await
    }

    async fn whole(&self, response: Response<Incoming>) -> Result<Answer, Failure> {
        let status = response.status().as_u16();
        let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let problem = kind.is_some_and(|kind| kind.starts_with("application/problem+json"));
        let body = response.into_body().collect().await.map_err(|error| cut(&error, true))?.to_bytes();
        Ok(Answer { status, problem, text: String::from_utf8_lossy(&body).into_owned() })
    }

    async fn send(&self, method: &Method, target: &str, body: &str) -> Result<Response<Incoming>, Failure> {
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(wire::stream(stream))
            .await
            .map_err(|error| cut(&error, false))?;
        // Ends with its error or with the answer's body; `sender` sees the error too.
        task::detached(async move { drop(connection.await) });
        let request = Request::builder()
            .method(method.clone())
            .uri(target)
            .header(HOST, "localhost")
            // A uid has so many connections: this one is free again with its answer.
            .header(CONNECTION, "close")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .map_err(|error| Failure::Failed(format!("cannot ask for {target}: {error}")))?;
        sender.try_send_request(request).await.map_err(|mut error| {
            let sent = error.take_message().is_none();
            cut(error.error(), sent)
        })
    }

    async fn connect(&self) -> Result<UnixStream, Failure> {
        let mut tries = 0;
        let error = loop {
            match UnixStream::connect(&self.path).await {
                Ok(stream) => {
                    self.met.store(true, Ordering::Relaxed);
                    return Ok(stream);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock && tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(BETWEEN).await;
                }
                Err(error) => break error,
            }
        };
        let why = match error.kind() {
            ErrorKind::PermissionDenied => {
                let path = self.path.display();
                let text = format!("cannot connect to uphold at {path}: {error}; ask as root or its user");
                return Err(Failure::NotPermitted(text));
            }
            ErrorKind::NotFound => "there is no socket".to_owned(),
            ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
            _ => error.to_string(),
        };
        let gone = error.kind() == ErrorKind::NotFound;
        Err(Failure::NoDaemon { path: self.path.clone(), why, gone })
    }
}

fn cut(error: &hyper::Error, sent: bool) -> Failure {
    let why = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    Failure::Broken { why, sent }
}

impl Answer {
    /// The body as what it should be. A body may be one also under an error's status (`GET /readyz`).
    pub(super) fn read<T: DeserializeOwned>(self) -> Result<(T, String), Failure> {
        if self.problem {
            return Err(self.refusal());
        }
        match serde_json::from_slice(self.text.as_bytes()) {
            Ok(value) => Ok((value, self.text)),
            Err(_) if !(200..300).contains(&self.status) => Err(self.refusal()),
            Err(error) => {
                let text = format!(
                    "cannot read the daemon's answer: {error}; are client and daemon of one version? \
                     (`uphold ctl version`)"
                );
                Err(Failure::Failed(text))
            }
        }
    }

    /// Nothing but success is asked for.
    pub(super) fn accepted(self) -> Result<(), Failure> {
        if (200..300).contains(&self.status) { Ok(()) } else { Err(self.refusal()) }
    }

    fn refusal(self) -> Failure {
        Failure::refused(serde_json::from_slice(self.text.as_bytes()).unwrap_or_else(|_| Problem {
            kind: String::new(),
            title: String::new(),
            status: self.status,
            detail: format!("cannot do it: the daemon answered with HTTP status {}", self.status),
        }))
    }
}

/// Lines as they come.
#[derive(Debug)]
pub(super) struct Lines {
    body: Incoming,
    buffer: BytesMut,
    /// So many bytes of the buffer are known to hold no line end.
    searched: usize,
}

impl Lines {
    /// The next line without its end; `None` when the daemon has ended the stream.
    pub(super) async fn next(&mut self) -> Result<Option<String>, Failure> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
                let line = self.buffer.split_to(self.searched + at);
                self.buffer.advance(1);
                self.searched = 0;
                return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
            }
            self.searched = self.buffer.len();
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(cut(&error, true)),
                None if self.buffer.is_empty() => return Ok(None),
                None => {
                    self.searched = 0;
                    let rest = self.buffer.split();
                    return Ok(Some(String::from_utf8_lossy(&rest).into_owned()));
                }
            }
        }
    }
}
