//! One call over a pool: it picks a tunnel, and another one if that did not process it.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tunnel_core::{OpenError, StreamError};

use super::replay::{Replay, TakenBack};
use super::with_deadline;
use crate::telemetry;
use crate::{
    CallHead, NotProcessed, ResponseBody, ResponseFuture, TunnelChannel, TunnelId, TunnelInfo,
    is_safe_to_retry,
};

/// The most retries of a call, not counting those after full tunnels. A retry happens when a tunnel has
/// just stopped taking calls, so more retries than this show a fault.
const MAX_RETRIES: usize = 32;

/// The longest first wait before a full peer is tried again. It doubles each time, up to a second.
const FULL_PAUSE: Duration = Duration::from_millis(4);

/// Names the tunnel that served a call. It is in the extensions of the response.
///
/// ```
/// # use tunnel_tonic::pool::ServedBy;
/// # fn look(response: tonic::Response<()>) {
/// if let Some(served) = response.extensions().get::<ServedBy>() {
///     println!("by tunnel {} after {} retries", served.tunnel().id(), served.retries());
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ServedBy {
    tunnel: TunnelInfo,
    retries: usize,
}

impl ServedBy {
    /// The tunnel.
    pub fn tunnel(&self) -> &TunnelInfo {
        &self.tunnel
    }

    /// The number of retries: how many tunnels were tried before and did not process the call.
    pub fn retries(&self) -> usize {
        self.retries
    }
}

/// Overrides, for one call, whether it waits for a tunnel when there is none. Put it into the
/// request's extensions.
///
/// ```
/// # use tunnel_tonic::pool::WaitForReady;
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(WaitForReady(true));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitForReady(pub bool);

/// A source of tunnels for calls, and the errors of calls without a tunnel.
pub trait Tunnels {
    /// A tunnel for a call that has tried some already.
    fn pick(&self, tried: &HashSet<TunnelId>) -> Option<TunnelChannel>;

    /// Changes the head of a call before it is sent through a tunnel.
    fn prepare(&self, _tunnel: &TunnelChannel, _head: &mut CallHead) {}

    /// Hears of a tunnel that did not take a call, and why.
    fn not_taken(&self, _tunnel: TunnelId, _status: &Status) {}

    /// Changes when a call that waits for a tunnel should look again.
    fn subscribe(&self) -> watch::Receiver<()>;

    /// The number of attempts to open a tunnel so far, if this end opens tunnels.
    fn mark(&self) -> u64 {
        0
    }

    /// Whether an attempt to open a tunnel that began after the mark has failed, or no attempt will be
    /// made.
    fn has_failed_since(&self, _mark: u64) -> bool {
        true
    }

    /// A runtime for the timers of calls that wait on a thread that has none.
    fn runtime(&self) -> Option<&Handle>;

    /// Whether there will be no more tunnels.
    fn is_closing(&self) -> bool;

    /// The failure of a call that finds no tunnel, or no other than the one that `failed` it.
    fn no_tunnel(&self, failed: Option<Status>) -> Status;

    /// The failure of a call that finds no tunnel before its deadline.
    fn no_tunnel_in_time(&self) -> Status;

    /// The failure of a call that no tunnel has room for.
    fn all_full(&self, full: Status) -> Status;
}

/// The behaviour of a call without a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenNoTunnel {
    /// It fails at once.
    #[default]
    Fail,
    /// It waits until there is a tunnel, or until an attempt to open one that began after the call has
    /// failed; then it fails. At the end that accepts tunnels, the same as [`Fail`](Self::Fail).
    WaitForAttempt,
    /// It waits until there is a tunnel or its deadline has passed. Without a deadline it may wait for
    /// ever.
    Wait,
}

/// How a call picks its tunnel, and when it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallOptions {
    /// What the call does without a tunnel. [`WaitForReady`] in its request overrides it.
    pub when_no_tunnel: WhenNoTunnel,
    /// Whether the call waits while all tunnels are full.
    pub queue_calls: bool,
    /// How much of the request is kept for a retry on another tunnel, in bytes.
    pub retry_buffer_limit: usize,
}

/// A call waits while all tunnels are full, fails without a tunnel, and keeps 256 KiB for a retry, as
/// grpc-go does.
impl Default for CallOptions {
    fn default() -> Self {
        Self {
            when_no_tunnel: WhenNoTunnel::Fail,
            queue_calls: true,
            retry_buffer_limit: 256 << 10,
        }
    }
}

/// The state of a call until its response begins.
struct Call<T> {
    tunnels: T,
    head: CallHead,
    replay: Replay,
    deadline: Option<Instant>,
    when_no_tunnel: WhenNoTunnel,
    queue: bool,
    /// The [mark](Tunnels::mark) when the call began.
    mark: u64,
    /// The tunnels that did not take the call.
    tried: HashSet<TunnelId>,
    /// The number of those that were not full.
    refused: usize,
    /// The tunnels that were full. They may take the call later.
    full: HashSet<TunnelId>,
    /// Whether a far end was full by a limit of its own. Calls cannot queue for that at this end.
    far_end_is_full: bool,
    /// The number of pauses because of that.
    pauses: u32,
    /// The status of a full tunnel.
    full_status: Option<Status>,
    /// The status of the last tunnel that did not take the call and was not full.
    failed: Option<Status>,
}

fn now() -> Instant {
    // The clock of the tunnels' timers.
    tokio::time::Instant::now().into_std()
}

impl<T: Tunnels> Call<T> {
    fn new(tunnels: T, request: http::Request<Body>, options: CallOptions) -> Self {
        let when_no_tunnel = match request.extensions().get() {
            Some(&WaitForReady(true)) => WhenNoTunnel::Wait,
            Some(&WaitForReady(false)) => WhenNoTunnel::Fail,
            None => options.when_no_tunnel,
        };
        let (head, body) = CallHead::split(request);
        Self {
            tunnels,
            head,
            replay: Replay::new(body, options.retry_buffer_limit),
            deadline: None,
            when_no_tunnel,
            queue: options.queue_calls,
            mark: 0,
            tried: HashSet::new(),
            refused: 0,
            full: HashSet::new(),
            far_end_is_full: false,
            pauses: 0,
            full_status: None,
            failed: None,
        }
    }

    /// Starts the call's timeout, at its first poll.
    fn begin(&mut self) {
        let timeout = self.head.timeout();
        self.deadline = timeout.and_then(|timeout| now().checked_add(timeout));
        self.mark = self.tunnels.mark();
    }

    /// Begins the call on a tunnel, with the rest of its timeout.
    fn start_on(&mut self, tunnel: &TunnelChannel, queue: bool) -> Result<Stage, Status> {
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() {
                telemetry::not_sent("deadline");
                return Err(Status::deadline_exceeded(
                    "the call's deadline passed before a tunnel accepted it",
                ));
            }
            self.head.set_timeout(left);
        }
        let tunnel = tunnel.clone().queue_calls(queue);
        let mut head = self.head.clone();
        self.tunnels.prepare(&tunnel, &mut head);
        let response = tunnel.begin(head, self.replay.body());
        Ok(Stage::Given(tunnel.info().clone(), response))
    }

    /// Notes that a tunnel did not take the call. An error if the call must not be retried.
    fn on_failure(&mut self, tunnel: TunnelId, status: Status) -> Result<(), Status> {
        if !is_safe_to_retry(&status) || self.refused >= MAX_RETRIES {
            return Err(status);
        }
        match self.replay.take_back() {
            TakenBack::Whole => {}
            TakenBack::Lost => return Err(too_large(status)),
            TakenBack::Failed => return Err(status),
        }
        tracing::debug!(
            %tunnel,
            rpc.grpc.status_code = status.code() as i32,
            detail = status.message(),
            "retrying a call on another tunnel"
        );
        self.tunnels.not_taken(tunnel, &status);
        self.tried.insert(tunnel);
        if status.code() == tonic::Code::ResourceExhausted {
            self.full.insert(tunnel);
            self.far_end_is_full |= is_of_far_end(&status);
            self.full_status = Some(status);
        } else {
            self.refused += 1;
            self.failed = Some(status);
        }
        Ok(())
    }

    /// One of the tunnels that were full, if the call queues.
    fn pick_full(&mut self) -> Option<TunnelChannel> {
        if !self.queue || self.full.is_empty() {
            return None;
        }
        let tunnel = self.tunnels.pick(&(&self.tried - &self.full))?;
        self.full.remove(&tunnel.id());
        self.full_status = None;
        Some(tunnel)
    }

    /// Waits before a far end that is full is tried again, longer each time. The wait ends earlier if a
    /// tunnel joins or the call's deadline passes.
    fn pause(&mut self) -> Stage {
        let longest = FULL_PAUSE * (1 << self.pauses.min(8));
        self.pauses += 1;
        let pause = longest.mul_f64(0.5 + fastrand::f64() / 2.0);
        let end = [now().checked_add(pause), self.deadline];
        let end = end.into_iter().flatten().min();
        let joined = self.tunnels.subscribe();
        let runtime = self.tunnels.runtime().cloned();
        Stage::Waiting(Box::pin(async move {
            // The call tries again, for either end of the wait.
            let _ = joins(joined, end, runtime, Status::unavailable("")).await;
            Ok(())
        }))
    }

    fn waits(&self) -> bool {
        let waits = match self.when_no_tunnel {
            WhenNoTunnel::Fail => false,
            WhenNoTunnel::WaitForAttempt => !self.tunnels.has_failed_since(self.mark),
            WhenNoTunnel::Wait => true,
        };
        waits && !self.tunnels.is_closing()
    }

    /// The failure of a call that has no tunnel left to try, and does not wait.
    fn without_tunnel(&mut self) -> Status {
        match self.full_status.take() {
            Some(full) => {
                telemetry::not_sent("full");
                self.tunnels.all_full(full)
            }
            None => {
                telemetry::not_sent("no_tunnel");
                self.tunnels.no_tunnel(self.failed.take())
            }
        }
    }

    /// Waits until a tunnel joins, or the call's deadline passes.
    fn wait(&self, joined: watch::Receiver<()>) -> Stage {
        let late = self.tunnels.no_tunnel_in_time();
        let runtime = self.tunnels.runtime().cloned();
        Stage::Waiting(Box::pin(joins(joined, self.deadline, runtime, late)))
    }
}

/// The failure of a call that was not sent, as its source says.
pub fn not_sent(code: tonic::Code, message: String) -> Status {
    let mut status = Status::new(code, message);
    status.set_source(Arc::new(OpenError::NotReady));
    status
}

/// The failure with another message. The old status is its source, where [`is_safe_to_retry`] finds
/// whether the call was processed.
pub fn explained(message: String, status: Status) -> Status {
    let mut explained = Status::new(status.code(), message);
    explained.set_source(Arc::new(status));
    explained
}

/// Whether a tunnel was full by a limit of its far end.
fn is_of_far_end(status: &Status) -> bool {
    let source = std::error::Error::source(status);
    source.is_some_and(|source| source.is::<StreamError>() || source.is::<NotProcessed>())
}

/// The failure of a call that could be retried if its request had been kept.
fn too_large(status: Status) -> Status {
    let message = format!(
        "{}; the call could not be retried on another tunnel: more of its request was read than is kept",
        status.message()
    );
    explained(message, status)
}

async fn joins(
    mut joined: watch::Receiver<()>,
    deadline: Option<Instant>,
    runtime: Option<Handle>,
    late: Status,
) -> Result<(), Status> {
    let joins = async {
        // Fails only if the pool has gone, which the call keeps.
        let _ = joined.changed().await;
    };
    match deadline {
        Some(at) => with_deadline(at, runtime.as_ref(), joins).await.ok_or(late),
        None => {
            joins.await;
            Ok(())
        }
    }
}

/// The response of a call over a pool of tunnels: a future of its headers and body.
///
/// The call begins when this is first polled. Dropping it cancels the call.
pub struct PooledCall<T> {
    /// `None` when it has resolved.
    call: Option<Box<Call<T>>>,
    stage: Stage,
}

enum Stage {
    New,
    Pick,
    /// Waits for a tunnel.
    Waiting(BoxFuture<'static, Result<(), Status>>),
    /// A tunnel has the call.
    Given(TunnelInfo, ResponseFuture),
}

impl<T: Tunnels> PooledCall<T> {
    /// A call that has not begun.
    pub fn new(tunnels: T, request: http::Request<Body>, options: CallOptions) -> Self {
        Self {
            call: Some(Box::new(Call::new(tunnels, request, options))),
            stage: Stage::New,
        }
    }
}

/// Picks a tunnel, or decides what to do without one.
fn pick<T: Tunnels>(call: &mut Call<T>) -> Result<Stage, Status> {
    // A call tries all tunnels before it queues for one.
    if let Some(tunnel) = call.tunnels.pick(&call.tried) {
        return call.start_on(&tunnel, false);
    }
    if call.queue && std::mem::take(&mut call.far_end_is_full) {
        return Ok(call.pause());
    }
    if let Some(tunnel) = call.pick_full() {
        return call.start_on(&tunnel, true);
    }
    let joined = call.tunnels.subscribe();
    let waits = call.full_status.is_none() && call.waits();
    // A tunnel may have joined before the subscription, and what the call would have waited for may have brought one.
    match call.tunnels.pick(&call.tried) {
        Some(tunnel) => call.start_on(&tunnel, false),
        None if waits => Ok(call.wait(joined)),
        None => Err(call.without_tunnel()),
    }
}

impl<T: Tunnels> Future for PooledCall<T> {
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
                    Err(status) => {
                        telemetry::not_sent("deadline");
                        break Err(status);
                    }
                },
                Stage::Given(tunnel, response) => {
                    match ready!(Pin::new(response).poll(cx)) {
                        Ok(mut response) => {
                            let (tunnel, retries) = (tunnel.clone(), call.tried.len());
                            let served = ServedBy { tunnel, retries };
                            response.extensions_mut().insert(served);
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

impl<T> fmt::Debug for PooledCall<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match &self.stage {
            _ if self.call.is_none() => "done",
            Stage::New => "new",
            Stage::Pick | Stage::Waiting(_) => "waiting for a tunnel",
            Stage::Given(..) => "given to a tunnel",
        };
        f.debug_struct("PooledCall").field("stage", &stage).finish()
    }
}
