//! A connection that can be closed from outside.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// The length of the preface of an HTTP/2 connection. No call can be in flight before it.
const PREFACE: usize = 24;

/// When connections are closed.
#[derive(Clone, Default)]
pub(super) struct Closing {
    /// All of them.
    pub(super) all: CancellationToken,
    /// Those that have not sent a whole preface.
    pub(super) silent: CancellationToken,
}

type Cancelled = Pin<Box<WaitForCancellationFutureOwned>>;

/// A connection that can be closed: its reads and writes fail from then on, so the HTTP/2 layer drops
/// it.
pub(super) struct Closable<IO> {
    io: IO,
    token: CancellationToken,
    closed: Cancelled,
    /// Until the peer has sent the preface.
    silent: Option<Cancelled>,
    received: usize,
}

impl<IO> Closable<IO> {
    pub(super) fn new(io: IO, closing: &Closing) -> Self {
        // A child token for each connection, so that connections do not share a lock.
        let token = closing.all.child_token();
        Self {
            io,
            closed: Box::pin(token.clone().cancelled_owned()),
            token,
            silent: Some(Box::pin(closing.silent.clone().cancelled_owned())),
            received: 0,
        }
    }

    fn check(&self) -> io::Result<()> {
        match self.token.is_cancelled() {
            true => Err(closed()),
            false => Ok(()),
        }
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the server has stopped")
}

impl<IO: AsyncRead + Unpin> AsyncRead for Closable<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // The HTTP/2 layer always reads, so its task is woken here when the token is cancelled.
        let silent = this.silent.as_mut();
        let closes = this.closed.as_mut().poll(cx).is_ready()
            || silent.is_some_and(|silent| silent.as_mut().poll(cx).is_ready());
        if closes {
            return Poll::Ready(Err(closed()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        if this.silent.is_some() {
            this.received += buf.filled().len() - before;
            if this.received >= PREFACE {
                this.silent = None;
            }
        }
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Closable<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check()?;
        Pin::new(&mut this.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check()?;
        Pin::new(&mut this.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check()?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check()?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl<IO: Connected> Connected for Closable<IO> {
    type ConnectInfo = IO::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}
