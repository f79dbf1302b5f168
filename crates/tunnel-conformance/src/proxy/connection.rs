//! One connection, from its arrival to its end.
//!
//! Invariant: whatever ends it, both of its sockets hear of the same end, and it is open no longer
//! once they have.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::books::Way;
use super::direction::{Direction, Step};
use super::shared::{End, Shared};

/// A connection as it was accepted.
pub(super) struct Arrival {
    /// The client's.
    pub(super) near: TcpStream,
    /// Where new connections went when it came.
    pub(super) target: Option<SocketAddr>,
    /// The orders given after it came.
    pub(super) orders: watch::Receiver<Option<End>>,
}

/// Carries a connection until it ends.
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

/// Connects to the target, if there is one and it listens.
async fn reach(target: Option<SocketAddr>, shared: &Shared) -> Option<TcpStream> {
    let far = TcpStream::connect(target?).await.ok()?;
    // The kernel connects whether it is frozen or not.
    shared.gate.thawed(None).await;
    Some(far)
}

/// Waits for an order to end.
async fn order(orders: &mut watch::Receiver<Option<End>>) -> End {
    let changed = orders.changed().await;
    changed.expect("the sender is shared with the task of this connection");
    let order = *orders.borrow_and_update();
    order.expect("an order is never taken back")
}

/// Carries what both sides say until that is over.
async fn carry(near: &mut TcpStream, far: &mut TcpStream, shared: &Shared) -> End {
    for socket in [&*near, &*far] {
        // A proxy that waits for more to send would add a delay of its own. Where this fails, the
        // connection is lost already, which reading it tells.
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

/// Ends a connection on these sockets. `open` is dropped once they have been told.
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
                // It fails if its own end is gone, who then need not be told.
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

/// Closes sockets with a reset, whatever state they are in.
fn reset(sockets: Vec<TcpStream>) {
    for socket in sockets {
        // It fails on a socket that has nobody to tell any more.
        let _ = socket.set_zero_linger();
    }
}

/// Reads what an end still says, for nobody, until it closes. Closing a socket that has unread
/// bytes, or gets some later, would reset the connection that was ended in order.
async fn drain(socket: &mut TcpStream) {
    let mut nowhere = vec![0; 16 << 10];
    while matches!(socket.read(&mut nowhere).await, Ok(1..)) {}
}
