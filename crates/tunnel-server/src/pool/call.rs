//! One call over a pool: it finds a tunnel, and another one if that did not take it.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tunnel_tonic::{
    CallHead, ResponseBody, ResponseFuture, TunnelChannel, TunnelId, TunnelInfo, is_movable,
};

use super::ReverseChannel;
use super::replay::{Replay, TakenBack};

/// How often a call moves at most, beside from tunnels that are full. Each move has found a tunnel
/// that has just ceased to take calls; so many of them are no accident any more.
const MAX_MOVES: usize = 32;

/// Which tunnel served a call: in the extensions of its response.
///
/// ```
/// # use tunnel_server::ServedBy;
/// # fn look(response: tonic::Response<()>) {
/// if let Some(served) = response.extensions().get::<ServedBy>() {
///     println!("by tunnel {} after {} moves", served.tunnel().id(), served.moves());
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ServedBy {
    tunnel: TunnelInfo,
    moves: usize,
}

impl ServedBy {
    /// The tunnel.
    pub fn tunnel(&self) -> &TunnelInfo {
        &self.tunnel
    }

    /// How many tunnels had not taken the call before.
    pub fn moves(&self) -> usize {
        self.moves
    }
}

/// What is kept for a call until its response begins.
pub(super) struct Call {
    channel: ReverseChannel,
    head: CallHead,
    replay: Replay,
    deadline: Option<Instant>,
    waits: bool,
    /// The tunnels that have not taken the call.
    tried: HashSet<TunnelId>,
    /// How many of them were not just full.
    refused: usize,
    /// Why a tunnel has not, if it was full.
    full: Option<Status>,
    /// Why the last one has not that was not.
    failed: Option<Status>,
}

fn now() -> Instant {
    // By the clock that the tunnels' timers go by.
    tokio::time::Instant::now().into_std()
}

impl Call {
    pub(super) fn new(
        channel: ReverseChannel,
        request: http::Request<Body>,
        waits: bool,
        keep: usize,
    ) -> Self {
        let (head, body) = CallHead::split(request);
        Self {
            channel,
            head,
            replay: Replay::new(body, keep),
            deadline: None,
            waits,
            tried: HashSet::new(),
            refused: 0,
            full: None,
            failed: None,
        }
    }

    /// The call's time runs from when it was first polled.
    fn begin(&mut self) {
        let timeout = self.head.timeout();
        self.deadline = timeout.and_then(|timeout| now().checked_add(timeout));
    }

    /// Begins the call on a tunnel, with what is left of its time.
    fn start_on(&mut self, tunnel: &TunnelChannel) -> Result<Stage, Status> {
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() {
                return Err(Status::deadline_exceeded(
                    "the call's deadline passed before a tunnel took it",
                ));
            }
            self.head.set_timeout(left);
        }
        let response = tunnel.begin(self.head.clone(), self.replay.body());
        Ok(Stage::Given(tunnel.info().clone(), response))
    }

    /// A tunnel has not taken the call, or has failed it. Says whether to try another one.
    fn on_failure(&mut self, tunnel: TunnelId, status: Status) -> Result<(), Status> {
        if !is_movable(&status) || self.refused >= MAX_MOVES {
            return Err(status);
        }
        match self.replay.take_back() {
            TakenBack::Whole => {}
            TakenBack::Lost => return Err(too_large(status)),
            TakenBack::Failed => return Err(status),
        }
        tracing::debug!(%tunnel, %status, "a call moves to another tunnel");
        self.tried.insert(tunnel);
        if status.code() == tonic::Code::ResourceExhausted {
            self.full = Some(status);
        } else {
            self.refused += 1;
            self.failed = Some(status);
        }
        Ok(())
    }

    /// No tunnel is left to try. How the call fails, unless it waits.
    fn without_tunnel(&mut self) -> Result<(), Status> {
        match (self.full.take(), self.failed.take()) {
            (Some(full), _) => Err(self.channel.all_full(full)),
            (None, _) if self.waits && !self.channel.is_draining() => Ok(()),
            (None, failed) => Err(self.channel.no_tunnel(failed)),
        }
    }

    /// Waits until a tunnel joins, or the call's time is up.
    fn wait(&self, joined: watch::Receiver<()>) -> Stage {
        let late = self.channel.no_tunnel_in_time();
        Stage::Waiting(Box::pin(joins(joined, self.deadline, late)))
    }
}

/// The same failure with a word that explains it. Whoever asks whether the call may be made again
/// finds the old one behind it.
pub(super) fn explained(message: String, status: Status) -> Status {
    let mut explained = Status::new(status.code(), message);
    explained.set_source(Arc::new(status));
    explained
}

/// The failure of a call that could have moved but for its request.
fn too_large(status: Status) -> Status {
    let message = format!(
        "{}; the call could not move to another tunnel, for more of its request was read than is kept",
        status.message()
    );
    explained(message, status)
}

async fn joins(
    mut joined: watch::Receiver<()>,
    deadline: Option<Instant>,
    late: Status,
) -> Result<(), Status> {
    let joins = async {
        // Fails only if the pool has gone, which the call keeps.
        let _ = joined.changed().await;
    };
    match deadline {
        Some(at) => tokio::time::timeout_at(at.into(), joins)
            .await
            .map_err(|_| late),
        None => {
            joins.await;
            Ok(())
        }
    }
}

/// The response of a call through a [`ReverseChannel`]: a future of its headers and body.
///
/// The call begins when this is first polled. Dropping it cancels the call.
pub struct ReverseResponseFuture {
    /// `None` when it has resolved.
    call: Option<Box<Call>>,
    stage: Stage,
}

enum Stage {
    New,
    Pick,
    /// Waits for a tunnel.
    Waiting(BoxFuture<'static, Result<(), Status>>),
    /// Has been given to a tunnel.
    Given(TunnelInfo, ResponseFuture),
}

impl ReverseResponseFuture {
    pub(super) fn new(call: Call) -> Self {
        Self {
            call: Some(Box::new(call)),
            stage: Stage::New,
        }
    }
}

/// Picks a tunnel, or finds out how to go on without.
fn pick(call: &mut Call) -> Result<Stage, Status> {
    if let Some(tunnel) = call.channel.pick(&call.tried) {
        return call.start_on(&tunnel);
    }
    let joined = call.channel.subscribe();
    call.without_tunnel()?;
    // One that joined before the subscription is not told of.
    match call.channel.pick(&call.tried) {
        Some(tunnel) => call.start_on(&tunnel),
        None => Ok(call.wait(joined)),
    }
}

impl Future for ReverseResponseFuture {
    type Output = Result<http::Response<ResponseBody>, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Some(call) = &mut this.call else {
            return Poll::Ready(Err(Status::internal(
                "the response future was polled after it had resolved",
            )));
        };
        let result = loop {
            match &mut this.stage {
                Stage::New => {
                    call.begin();
                    this.stage = Stage::Pick;
                }
                Stage::Pick => match pick(call) {
                    Ok(stage) => this.stage = stage,
                    Err(status) => break Err(status),
                },
                Stage::Waiting(joins) => match ready!(joins.as_mut().poll(cx)) {
                    Ok(()) => this.stage = Stage::Pick,
                    Err(status) => break Err(status),
                },
                Stage::Given(tunnel, response) => {
                    match ready!(Pin::new(response).poll(cx)) {
                        Ok(mut response) => {
                            let (tunnel, moves) = (tunnel.clone(), call.tried.len());
                            response.extensions_mut().insert(ServedBy { tunnel, moves });
                            break Ok(response);
                        }
                        Err(status) => match call.on_failure(tunnel.id(), status) {
                            Ok(()) => this.stage = Stage::Pick,
                            Err(status) => break Err(status),
                        },
                    };
                }
            }
        };
        call.replay.commit();
        this.call = None;
        this.stage = Stage::Pick;
        Poll::Ready(result)
    }
}

impl fmt::Debug for ReverseResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match &self.stage {
            _ if self.call.is_none() => "done",
            Stage::New => "new",
            Stage::Pick | Stage::Waiting(_) => "waiting for a tunnel",
            Stage::Given(..) => "given to a tunnel",
        };
        f.debug_struct("ReverseResponseFuture")
            .field("stage", &stage)
            .finish()
    }
}
