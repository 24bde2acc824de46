//! One request and its answer over one connection, by hyper's HTTP/1.1 client, told in Go's words.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection};
use hyper::header::{HeaderMap, LOCATION, TRANSFER_ENCODING};
use hyper::{Request, Response, Version};

use super::Fault;
use super::dial::Duplex;
use super::tap::{Beginning, Tap};
use super::text::errno;
use crate::wire;

/// The most bytes that the head of an answer may have.
const MAX_HEAD: usize = 512 * 1024;

/// The most headers that an answer may have.
const MAX_HEADERS: usize = 1024;

/// The most bytes of a body that are read, as with a kubelet.
const MAX_BODY: usize = 10 * 1024;

/// An answer whose head was read, and the connection that its body comes by.
pub(super) struct Exchange {
    wire: Wire,
    beginning: Beginning,
    response: Response<Incoming>,
}

impl Exchange {
    /// Sends the request and reads the answer's head. 1xx answers other than 101 are passed over.
    pub(super) async fn open(
        stream: Box<dyn Duplex>,
        request: Request<Full<Bytes>>,
    ) -> Result<Exchange, Fault> {
        let tap = Tap::new(stream);
        let beginning = tap.beginning();
        let fault = |error: hyper::Error| fault(&error, &beginning);
        let (mut sender, connection) = Builder::new()
            .allow_obsolete_multiline_headers_in_responses(true)
            .title_case_headers(true)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD)
            .handshake(wire::stream(tap))
            .await
            .map_err(fault)?;
        let mut wire = Wire(Some(Box::pin(connection)));
        let response = wire.carry(sender.send_request(request)).await.map_err(fault)?;
        check_encoding(response.version(), response.headers())?;
        Ok(Exchange { wire, beginning, response })
    }

    /// The status code.
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// Where the answer sends to, if it names a place.
    pub(super) fn location(&self) -> Option<String> {
        let value = self.response.headers().get(LOCATION)?.as_bytes();
        (!value.is_empty()).then(|| String::from_utf8_lossy(value).into_owned())
    }

    /// The body, up to its end or to 10 KiB.
    pub(super) async fn body(mut self) -> Result<Vec<u8>, Fault> {
        let mut body = Vec::new();
        let incoming = self.response.body_mut();
        while body.len() < MAX_BODY {
            let Some(frame) = self.wire.carry(incoming.frame()).await else { break };
            let frame = frame.map_err(|error| fault(&error, &self.beginning))?;
            if let Some(data) = frame.data_ref() {
                body.extend_from_slice(&data[..data.len().min(MAX_BODY - body.len())]);
            }
        }
        Ok(body)
    }
}

/// The connection as hyper works it: it moves only while something is carried over it, so that nothing of
/// an attempt outlives the attempt.
struct Wire(Option<Pin<Box<Tapped>>>);

/// hyper's side of a connection.
type Tapped = Connection<Box<dyn wire::Stream>, Full<Bytes>>;

impl Wire {
    /// Waits for this while working the connection.
    async fn carry<F: Future>(&mut self, wanted: F) -> F::Output {
        let mut wanted = pin!(wanted);
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(output) = wanted.as_mut().poll(cx) {
                    return Poll::Ready(output);
                }
                let Some(connection) = &mut self.0 else { return Poll::Pending };
                match connection.as_mut().poll(cx) {
                    // How it ended is told by what was wanted, which is looked at once more.
                    Poll::Ready(_) => self.0 = None,
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }
}

/// hyper reads what is not chunked to the end of the connection; a coding that is not known is a failure.
fn check_encoding(version: Version, headers: &HeaderMap) -> Result<(), Fault> {
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(encoding) = encodings.next() else { return Ok(()) };
    if version != Version::HTTP_11 {
        return Ok(());
    }
    if encodings.next().is_some() {
        return Err(Fault::Service("too many transfer encodings".to_owned()));
    }
    if encoding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let shown = String::from_utf8_lossy(encoding.as_bytes());
    Err(Fault::Service(format!("unsupported transfer encoding: \"{shown}\"")))
}

/// Why hyper gave up, as Go would word it.
fn fault(error: &hyper::Error, beginning: &Beginning) -> Fault {
    if let Some(io) = io_cause(error) {
        return Fault::from_io(io, io_words(io));
    }
    let begun = beginning.bytes();
    Fault::Service(if error.is_incomplete_message() {
        if begun.is_empty() { "EOF".to_owned() } else { "unexpected EOF".to_owned() }
    } else if error.is_parse_too_large() {
        format!("net/http: server response headers exceeded {MAX_HEAD} bytes; aborted")
    } else if !begun.is_empty() && !begun.starts_with(b"HTTP/") {
        format!("malformed HTTP response \"{}\"", first_line(&begun))
    } else if error.is_parse() {
        format!("malformed HTTP response: {error}")
    } else {
        error.to_string()
    })
}

/// The error of the system, or of a body's framing, that lies under an error of hyper.
fn io_cause(error: &hyper::Error) -> Option<&io::Error> {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref() {
            return Some(io);
        }
        cause = inner.source();
    }
    None
}

/// An error of reading or writing, in words.
fn io_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "unexpected EOF".to_owned(),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData if error.raw_os_error().is_none() => {
            format!("malformed chunked encoding: {}", errno(error))
        }
        io::ErrorKind::BrokenPipe => format!("write: {}", errno(error)),
        _ => format!("read: {}", errno(error)),
    }
}

/// What an answer began with, up to its first line end.
fn first_line(begun: &[u8]) -> String {
    let line = begun.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    String::from_utf8_lossy(line).into_owned()
}
