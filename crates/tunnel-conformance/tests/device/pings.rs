//! A hand-written gRPC server that counts pings and ends a connection after too many. No library
//! supports such a limit.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tonic::transport::Endpoint;

/// How a connection answers pings.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// Answers every ping.
    Always,
    /// Ends the connection at this ping.
    TooManyAfter {
        pings: usize,
        /// Whether the GOAWAY reports the stream as accepted. If it does, the stream does not see
        /// the reason.
        accepted: bool,
    },
}

/// The server. It answers each call with response headers only.
pub(crate) struct PingCounter {
    address: std::net::SocketAddr,
    /// The number of pings on each connection, in the order of the connections.
    pings: watch::Receiver<Vec<usize>>,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
    accepting: AbortHandle,
}

impl PingCounter {
    pub(crate) async fn start(answers: impl Fn(usize) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (count, pings) = watch::channel(Vec::new());
        let count = Arc::new(count);
        let connections = Arc::<Mutex<Vec<_>>>::default();
        let listed = connections.clone();
        let accepting = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let number = count.borrow().len();
                count.send_modify(|pings| pings.push(0));
                let (count, answer) = (count.clone(), answers(number));
                let task = tasks.spawn(async move {
                    let pinged = || count.send_modify(|pings| pings[number] += 1);
                    // Both results mean that the connection has ended.
                    let _ = connection(socket, answer, pinged).await;
                });
                let mut listed = listed.lock().unwrap_or_else(PoisonError::into_inner);
                listed.push(task);
            }
        });
        Self {
            address,
            pings,
            connections,
            accepting: accepting.abort_handle(),
        }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address));
        endpoint.expect("a valid address")
    }

    /// Waits until this many connections were accepted.
    pub(crate) async fn accepted(&mut self, count: usize) {
        let accepted = self.pings.wait_for(|pings| pings.len() >= count).await;
        accepted.expect("the server lives");
    }

    /// Waits until a connection has received this many pings.
    pub(crate) async fn pinged(&mut self, connection: usize, count: usize) {
        let often = |pings: &Vec<usize>| pings.get(connection).is_some_and(|&n| n >= count);
        let pinged = self.pings.wait_for(often).await;
        pinged.expect("the server lives");
    }

    /// The number of connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.pings.borrow().len()
    }

    /// The number of pings on a connection so far.
    pub(crate) fn pings(&self, connection: usize) -> usize {
        self.pings.borrow()[connection]
    }

    /// Ends a connection without a GOAWAY.
    pub(crate) fn hang_up(&self, connection: usize) {
        let connections = self.connections.lock();
        connections.unwrap_or_else(PoisonError::into_inner)[connection].abort();
    }
}

impl Drop for PingCounter {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// HTTP/2 frame types and flags.
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// ENHANCE_YOUR_CALM.
const CALM: u32 = 11;

/// `:status: 200`, and `content-type: application/grpc`.
const RESPONSE: &[u8] = b"\x88\x0f\x10\x10application/grpc";

async fn connection(
    mut socket: TcpStream,
    answer: Answer,
    pinged: impl Fn(),
) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut preface = [0; PREFACE.len()];
    socket.read_exact(&mut preface).await?;
    assert_eq!(preface, PREFACE);
    send(&mut socket, SETTINGS, 0, 0, &[]).await?;
    let (mut last_stream, mut pings) = (0, 0);
    loop {
        let mut head = [0; 9];
        socket.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        socket.read_exact(&mut payload).await?;
        match kind {
            HEADERS => {
                last_stream = u32::from_be_bytes(stream);
                send(&mut socket, HEADERS, END_HEADERS, last_stream, RESPONSE).await?;
            }
            SETTINGS if flags & ACK == 0 => send(&mut socket, SETTINGS, ACK, 0, &[]).await?,
            PING if flags & ACK == 0 => {
                pings += 1;
                pinged();
                if let Answer::TooManyAfter { pings: n, accepted } = answer
                    && pings >= n
                {
                    let last = if accepted { last_stream } else { 0 };
                    return go_away(socket, last).await;
                }
                send(&mut socket, PING, ACK, 0, &payload).await?;
            }
            _ => {}
        }
    }
}

/// Sends the GOAWAY and ends the connection.
async fn go_away(mut socket: TcpStream, last_stream: u32) -> std::io::Result<()> {
    let mut payload = Vec::new();
    payload.extend(last_stream.to_be_bytes());
    payload.extend(CALM.to_be_bytes());
    payload.extend(b"too_many_pings");
    send(&mut socket, GOAWAY, 0, 0, &payload).await?;
    socket.shutdown().await?;
    // Reads the remaining data. Otherwise the socket would end with a reset.
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).await?;
    Ok(())
}

async fn send(
    socket: &mut TcpStream,
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &[u8],
) -> std::io::Result<()> {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    let mut frame = Vec::from(length);
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    socket.write_all(&frame).await
}
