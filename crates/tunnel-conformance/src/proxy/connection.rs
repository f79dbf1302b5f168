//! A connection from its arrival to its end.
//!
//! Invariant: both sockets of a connection receive the same kind of end, and then the connection
//! does not count as open any more.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::books::Way;
use super::direction::{Direction, Step};
use super::shared::{End, Shared};

/// An accepted connection.
pub(super) struct Arrival {
    /// The client's socket.
    pub(super) near: TcpStream,
    /// The target at the time of accepting.
    pub(super) target: Option<SocketAddr>,
    /// The orders given after the connection was accepted.
    pub(super) orders: watch::Receiver<Option<End>>,
}

/// Forwards a connection until it ends.
pub(super) async fn serve(arrival: Arrival, shared: Arc<Shared>) {
    let Arrival {
        mut near,
        target,
        mut orders,
    } = arrival;
    let far = tokio::select! {
        far = reach(target, &shared) => far,
        end = order(&mut orders) => return finish(end, vec![near], orders, ()).await,
    };
    let Some(mut far) = far else {
        return finish(End::Reset, vec![near], orders, ()).await;
    };
    let open = shared.books.opened();
    let end = tokio::select! {
        end = carry(&mut near, &mut far, &shared) => end,
        end = order(&mut orders) => end,
    };
    finish(end, vec![near, far], orders, open).await;
}

/// Connects to the target. `None` if there is no target or it does not listen.
async fn reach(target: Option<SocketAddr>, shared: &Shared) -> Option<TcpStream> {
    let far = TcpStream::connect(target?).await.ok()?;
    // The kernel connects even while the proxy is frozen.
    shared.gate.thawed(None).await;
    Some(far)
}

/// Waits for an order to end the connection.
async fn order(orders: &mut watch::Receiver<Option<End>>) -> End {
    let changed = orders.changed().await;
    changed.expect("the sender is shared with the task of this connection");
    let order = *orders.borrow_and_update();
    order.expect("an order is never taken back")
}

/// Forwards bytes in both directions until the connection ends.
async fn carry(near: &mut TcpStream, far: &mut TcpStream, shared: &Shared) -> End {
    for socket in [&*near, &*far] {
        // Nagle's algorithm would add a delay. If this fails the connection is lost already, and
        // reading from it fails too.
        let _ = socket.set_nodelay(true);
    }
    let (from_near, to_near) = near.split();
    let (from_far, to_far) = far.split();
    let mut there = Direction::new(shared, Way::ToTarget, from_near, to_far);
    let mut back = Direction::new(shared, Way::FromTarget, from_far, to_near);
    while !(there.is_over() && back.is_over()) {
        let (step, opposite) = tokio::select! {
            step = there.step() => (step, &mut back),
            step = back.step() => (step, &mut there),
        };
        match step {
            Step::Moved => {}
            Step::SinkLost => opposite.source_lost(),
            Step::Reset => return End::Reset,
        }
    }
    End::Closed
}

/// Ends a connection on these sockets. `open` is dropped after both have received the end.
async fn finish<Open>(
    end: End,
    mut sockets: Vec<TcpStream>,
    mut orders: watch::Receiver<Option<End>>,
    open: Open,
) {
    match end {
        End::Closed => drop(sockets),
        End::Reset => reset(sockets),
        End::Cut => {
            for socket in &mut sockets {
                // This fails if the peer of the socket is gone, which is fine.
                let _ = socket.shutdown().await;
            }
            drop(open);
            tokio::select! {
                _ = join_all(sockets.iter_mut().map(drain)) => {}
                _ = orders.wait_for(|order| *order == Some(End::Reset)) => reset(sockets),
            }
        }
    }
}

/// Closes sockets with a reset, in any state.
fn reset(sockets: Vec<TcpStream>) {
    for socket in sockets {
        // This fails on a socket without a peer, which is fine.
        let _ = socket.set_zero_linger();
    }
}

/// Reads and discards bytes until the peer closes. Closing a socket that has unread bytes, or gets
/// some later, would reset a connection that was ended cleanly.
async fn drain(socket: &mut TcpStream) {
    let mut nowhere = vec![0; 16 << 10];
    while matches!(socket.read(&mut nowhere).await, Ok(1..)) {}
}
