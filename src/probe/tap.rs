//! What stands between hyper and a connection, for three things that hyper does not do: to begin reading
//! only once the request is on its way, to remember how the answer began, and to take a TLS peer that
//! hangs up without a goodbye for one that hung up.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::dial::Duplex;

/// How many bytes of an answer are remembered.
const REMEMBERED: usize = 64;

/// The first bytes of an answer.
#[derive(Clone, Default)]
pub(super) struct Beginning(Arc<Mutex<Vec<u8>>>);

impl Beginning {
    /// The bytes so far, at most 64.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember(&self, news: &[u8]) {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = REMEMBERED.saturating_sub(bytes.len());
        bytes.extend_from_slice(&news[..news.len().min(room)]);
    }
}

/// A connection that is listened in on.
pub(super) struct Tap {
    inner: Box<dyn Duplex>,
    beginning: Beginning,
    wrote: bool,
    reader: Option<Waker>,
}

impl Tap {
    /// Over this connection.
    pub(super) fn new(inner: Box<dyn Duplex>) -> Tap {
        Tap { inner, beginning: Beginning::default(), wrote: false, reader: None }
    }

    /// Where the first bytes of the answer will be found.
    pub(super) fn beginning(&self) -> Beginning {
        self.beginning.clone()
    }
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.wrote {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let before = buf.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                self.beginning.remember(&buf.filled()[before..]);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            other => other,
        }
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write(cx, bytes);
        // After an error, too: what the peer said last tells more than that it is gone.
        if wrote.is_ready() && !self.wrote {
            self.wrote = true;
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
        }
        wrote
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
