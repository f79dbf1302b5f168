//! A connection that can be closed from outside.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// The length of the preface of an HTTP/2 connection. No call can be in flight before it.
const PREFACE: usize = 24;

/// How long a connection stays open for reading after the last byte was sent.
const LINGER: Duration = Duration::from_secs(1);

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
    /// Once the last byte was sent.
    linger: Option<Pin<Box<Sleep>>>,
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
            linger: None,
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

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Closable<IO> {
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

    /// Ends the sending half, and reads until the peer has ended its own, for at most [`LINGER`].
    ///
    /// If a socket is closed with unread bytes, or receives bytes later, the kernel resets the
    /// connection. The peer's next write fails then, and its HTTP/2 layer gives up without reading the
    /// last answers, which have arrived.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check()?;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
        }
        let linger = this.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if linger.as_mut().poll(cx).is_ready() || this.closed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut unread = [0; 1024];
        loop {
            let mut buf = ReadBuf::new(&mut unread);
            let read = ready!(Pin::new(&mut this.io).poll_read(cx, &mut buf));
            if read.is_err() || buf.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<IO: Connected> Connected for Closable<IO> {
    type ConnectInfo = IO::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::poll;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::{Closable, Closing};

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_sent_everything_is_read_until_its_peer_closes_it() {
        let (io, mut peer) = duplex(64);
        let mut connection = Closable::new(io, &Closing::default());
        let sent = connection.write_all(b"the last answer").await;
        sent.expect("it fits");
        let mut end = pin!(connection.shutdown());
        let frames = [0; 1000];
        tokio::select! {
            biased;
            _ = &mut end => panic!("the peer still writes"),
            written = peer.write_all(&frames) => written.expect("it is read"),
        }
        let mut received = String::new();
        let read = peer.read_to_string(&mut received).await;
        read.expect("nothing is lost");
        assert_eq!(received, "the last answer");
        assert!(poll!(&mut end).is_pending());
        drop(peer);
        end.await.expect("both have closed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_close_its_connection_is_left() {
        let (io, _peer) = duplex(64);
        let closing = Closing::default();
        let mut connection = Closable::new(io, &closing);
        connection.shutdown().await.expect("after a while");

        let (io, _peer) = duplex(64);
        let mut connection = Closable::new(io, &closing);
        let mut end = pin!(connection.shutdown());
        assert!(poll!(&mut end).is_pending());
        closing.all.cancel();
        assert!(poll!(&mut end).is_ready());
    }
}
