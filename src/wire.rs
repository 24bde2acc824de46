//! A connection as hyper has it, for one request at a time: between two of them nothing is read, so that another
//! image could go on with it. Also what every client goes over: one type, and so hyper's is in the binary once.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

/// What a client goes over.
pub trait Stream: Read + Write + Send + Unpin {}

impl<T: Read + Write + Send + Unpin> Stream for T {}

/// This, for a client.
pub fn stream(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Box<dyn Stream> {
    Box::new(TokioIo::new(stream))
}

/// How far a connection has come with its request.
#[derive(Debug, Default)]
pub struct Course {
    /// There was one, and the connection outlives it.
    asked: AtomicBool,
    /// Its answers: hyper has not taken all of these.
    answers: Arc<()>,
    /// What hyper has taken waits for a client that does not read.
    stuck: AtomicBool,
}

/// An answer that hyper has not taken to its end, until it is dropped.
#[derive(Debug)]
pub struct Answer {
    _counted: Arc<()>,
}

impl Course {
    /// Nothing was asked yet.
    pub fn begin(&self) {
        self.asked.store(false, Ordering::Relaxed);
        self.stuck.store(false, Ordering::Relaxed);
    }

    /// A request has come.
    pub fn asked(&self) -> Answer {
        self.asked.store(true, Ordering::Relaxed);
        Answer { _counted: self.answers.clone() }
    }

    /// The connection ends with this answer.
    pub fn last(&self) {
        self.asked.store(false, Ordering::Relaxed);
    }

    /// hyper has all of the answer.
    fn answered(&self) -> bool {
        self.asked.load(Ordering::Relaxed) && Arc::strong_count(&self.answers) == 1
    }

    /// So has the client, or the kernel for it.
    pub fn sent(&self) -> bool {
        self.answered() && !self.stuck.load(Ordering::Relaxed)
    }
}

/// One connection.
#[derive(Debug)]
pub struct Wire {
    stream: TokioIo<UnixStream>,
    /// What came together with the request before.
    read: Bytes,
    course: Arc<Course>,
}

impl Wire {
    /// Before a first request.
    pub fn new(stream: UnixStream, course: Arc<Course>) -> Wire {
        Wire { stream: TokioIo::new(stream), read: Bytes::new(), course }
    }

    /// What it goes over.
    pub fn stream(&self) -> &UnixStream {
        self.stream.inner()
    }

    /// Nothing of a next request is read.
    pub fn is_unread(&self) -> bool {
        self.read.is_empty()
    }

    /// This was read of it, before what is still here.
    pub fn put_back(&mut self, read: &[u8]) {
        self.read = [read, &self.read].concat().into();
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.course.stuck.store(written.is_pending(), Ordering::Relaxed);
        written
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // Once it is sent, hyper is asked no more; until then, that wakes.
        if self.course.answered() {
            return Poll::Pending;
        }
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, into);
        }
        let length = into.remaining().min(self.read.len());
        into.put_slice(&self.read.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.wrote(written)
    }
}
