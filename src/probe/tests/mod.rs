//! Probes against servers of this process, on the loopback.

mod http;
mod redirect;
mod tcp;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Prober;
use super::dial::Duplex;
use crate::engine::Outcome;
use crate::unit::{Check, Endpoint, Http, Probe};

/// What a server does once it answered.
#[derive(Clone, Copy)]
enum Then {
    Close,
    Hang,
    Reset,
}

/// A server's answer to a request.
type Answer = (Vec<u8>, Then);

/// An answer, then the connection is closed.
fn close(bytes: impl Into<Vec<u8>>) -> Answer {
    (bytes.into(), Then::Close)
}

/// A server on a port of its own. It answers each request by a function of its text.
struct Server {
    port: u16,
    requests: UnboundedReceiver<String>,
}

impl Server {
    async fn new(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (log, requests) = unbounded_channel();
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, log) = (Arc::clone(&answer), log.clone());
                tokio::spawn(async move {
                    let (mut stream, then) = converse(stream, &*answer, &log).await;
                    finish(&mut stream, then).await;
                });
            }
        });
        Server { port, requests }
    }

    /// A server that says the same to everyone.
    async fn saying(bytes: impl Into<Vec<u8>>) -> Server {
        Server::ending(bytes, Then::Close).await
    }

    /// A server that says the same to everyone and then does this.
    async fn ending(bytes: impl Into<Vec<u8>>, then: Then) -> Server {
        let bytes = bytes.into();
        Server::new(move |_| (bytes.clone(), then)).await
    }

    fn endpoint(&self) -> Endpoint {
        port(self.port)
    }

    fn check(&self) -> Http {
        http(self.endpoint())
    }

    async fn request(&mut self) -> String {
        self.requests.recv().await.unwrap()
    }
}

/// Reads one request and answers it.
async fn converse<S: Duplex>(
    mut stream: S,
    answer: impl Fn(&str) -> Answer,
    log: &UnboundedSender<String>,
) -> (S, Then) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return (stream, Then::Close),
        }
    }
    let request = String::from_utf8(request).unwrap();
    let (bytes, then) = answer(&request);
    let _ = log.send(request);
    let _ = stream.write_all(&bytes).await;
    let _ = stream.flush().await;
    (stream, then)
}

async fn finish(stream: &mut TcpStream, then: Then) {
    match then {
        Then::Close => drop(stream.shutdown().await),
        Then::Reset => stream.set_zero_linger().unwrap(),
        Then::Hang => drop(stream.read_u8().await),
    }
}

fn port(port: u16) -> Endpoint {
    Endpoint::Port { host: None, port, port_name: None }
}

fn at(host: &str, port: u16) -> Endpoint {
    Endpoint::Port { host: Some(host.to_owned()), port, port_name: None }
}

fn http(endpoint: Endpoint) -> Http {
    Http { endpoint, path: "/".to_owned(), tls: false, headers: Vec::new() }
}

/// A port that nobody listens on.
async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// One attempt that has ample time.
async fn attempt(check: impl Into<Check>) -> Outcome {
    attempt_within(Duration::from_secs(20), check).await
}

/// One attempt that is to run into its time-out.
async fn attempt_briefly(check: impl Into<Check>) -> Outcome {
    attempt_within(Duration::from_millis(150), check).await
}

async fn attempt_within(timeout: Duration, check: impl Into<Check>) -> Outcome {
    let mut probe = Probe::new(check.into());
    probe.timeout = timeout;
    let bound = Duration::from_secs(30);
    tokio::time::timeout(bound, Prober::default().attempt(&probe)).await.expect("an attempt ends")
}

impl From<Http> for Check {
    fn from(http: Http) -> Check {
        Check::Http(http)
    }
}

impl From<Endpoint> for Check {
    fn from(endpoint: Endpoint) -> Check {
        Check::Tcp(endpoint)
    }
}

fn failure(text: impl Into<String>) -> Outcome {
    Outcome::Failure(text.into())
}

/// The failure of a request for `/` at this port.
fn get_failure(port: u16, why: &str) -> Outcome {
    failure(format!("Get \"http://127.0.0.1:{port}/\": {why}"))
}

#[test]
fn an_attempt_may_move_between_threads() {
    fn is_send<T: Send>(_: T) {}
    let prober = Prober::default();
    let probe = Probe::new(Check::Tcp(port(1)));
    is_send(prober.attempt(&probe));
}

#[tokio::test]
async fn an_exec_probe_is_not_tried_here() {
    let check = Check::Exec { command: vec!["true".to_owned()] };
    assert!(matches!(attempt(check).await, Outcome::Error(_)));
}

#[tokio::test]
async fn an_attempt_that_is_dropped_leaves_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let check = http(port(listener.local_addr().unwrap().port()));
    let attempt = tokio::spawn(async move { attempt(check).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.read_u8().await.unwrap();
    attempt.abort();
    assert!(attempt.await.unwrap_err().is_cancelled());
    // The rest of the request, and then the end: there is nobody at the other side.
    let mut bytes = Vec::new();
    let rest = stream.read_to_end(&mut bytes);
    let _ = tokio::time::timeout(Duration::from_secs(10), rest).await.expect("the connection ends");
}

/// A server at a path.
fn unix_server(path: &std::path::Path, answer: impl Fn(&str) -> Answer + Send + Sync + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    let (log, _) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(converse(stream, &answer, &log).await);
        }
    });
}
