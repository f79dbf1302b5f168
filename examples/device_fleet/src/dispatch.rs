//! Calls to devices, through the gateway in service.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Body as HttpBody, Bytes, StdError};
use tonic::{Code, Request, Response, Status};
use tunnel_server::{ReverseChannel, ServedBy, TunnelChannel, is_safe_to_retry};

use crate::gateway::Desk;
use crate::report::{Fate, Outcome};
use crate::test::device_service_client::DeviceServiceClient;
use crate::test::{WorkRequest, WorkResponse};

/// The deadline of a call, which includes waiting for devices and gateways.
const DEADLINE: Duration = Duration::from_secs(60);

/// The target of a call.
#[derive(Clone, Debug)]
pub(crate) enum To {
    /// The device with this key.
    Key(String),
    /// The next device in turn.
    Next,
    /// The device behind this tunnel.
    Tunnel(TunnelChannel),
}

impl To {
    /// Whether another tunnel can take the call.
    fn may_move(&self) -> bool {
        !matches!(self, Self::Tunnel(_))
    }
}

/// Makes calls. Clones share one sequence of numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dispatcher {
    /// The gateway in service, if there is one.
    desk: watch::Sender<Option<Desk>>,
    last_number: Arc<AtomicU64>,
}

impl Dispatcher {
    /// Sets the gateway for calls. Without one, calls wait.
    pub(crate) fn put_in_service(&self, desk: Option<Desk>) {
        self.desk.send_replace(desk);
    }

    /// A unique number for a call.
    pub(crate) fn next_number(&self) -> u64 {
        self.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Makes a call, at a later gateway if the first does not take it.
    pub(crate) async fn call(&self, number: u64, to: &To, work: Duration) -> Outcome {
        let call = Call {
            number,
            to,
            work,
            deadline: Instant::now() + DEADLINE,
        };
        let mut moves = 0;
        let calling = async {
            loop {
                let desk = self.desk_in_service().await;
                match call.attempt(&desk).await {
                    Attempt::Done(fate, more) => {
                        moves += more;
                        break fate;
                    }
                    Attempt::NeverSent => moves += 1,
                }
                // Checked even if all else fails at once.
                tokio::task::yield_now().await;
            }
        };
        let too_late = || Fate::Failed("nobody has taken the call in time".to_owned());
        let fate = timeout_at(call.deadline, calling).await;
        let fate = fate.unwrap_or_else(|_| too_late());
        Outcome { fate, moves }
    }

    async fn desk_in_service(&self) -> Desk {
        let mut desks = self.desk.subscribe();
        let desk = desks.wait_for(Option::is_some).await;
        match desk.ok().and_then(|desk| desk.clone()) {
            Some(desk) => desk,
            // Not reached: `self` holds the sender.
            None => std::future::pending().await,
        }
    }
}

/// The result of a call at one gateway.
enum Attempt {
    /// The call has ended, after this many moves from one tunnel to another.
    Done(Fate, usize),
    /// The call reached no device, so it is safe to retry at another gateway.
    NeverSent,
}

struct Call<'a> {
    number: u64,
    to: &'a To,
    work: Duration,
    deadline: Instant,
}

impl Call<'_> {
    async fn attempt(&self, desk: &Desk) -> Attempt {
        tokio::select! {
            // Calls that were sent have ended when the gateway counts as gone. A call
            // that is left has waited for a tunnel the whole time.
            biased;
            answer = self.ask(desk) => self.judge(answer),
            () = desk.gone.cancelled() => Attempt::NeverSent,
        }
    }

    async fn ask(&self, desk: &Desk) -> Result<Response<WorkResponse>, Status> {
        // A device may be away until the deadline.
        let patient = |channel: ReverseChannel| channel.wait_for_ready_calls(true);
        match self.to {
            To::Key(key) => {
                let channel = desk.handler.key_as_channel(key.as_str());
                work(patient(channel), self.request()).await
            }
            To::Next => work(patient(desk.handler.as_channel()), self.request()).await,
            To::Tunnel(tunnel) => work(tunnel.clone(), self.request()).await,
        }
    }

    fn request(&self) -> Request<WorkRequest> {
        let milliseconds = self.work.as_millis().try_into();
        let mut request = Request::new(WorkRequest {
            number: self.number,
            milliseconds: milliseconds.unwrap_or(u32::MAX),
        });
        request.set_timeout(self.deadline.saturating_duration_since(Instant::now()));
        request
    }

    fn judge(&self, answer: Result<Response<WorkResponse>, Status>) -> Attempt {
        let response = match answer {
            Ok(response) => response,
            Err(status) if was_lost(&status) => {
                return Attempt::Done(Fate::Lost(in_words(&status)), 0);
            }
            Err(status) if was_not_sent(&status) && self.to.may_move() => {
                return Attempt::NeverSent;
            }
            Err(status) => return Attempt::Done(Fate::Failed(in_words(&status)), 0),
        };
        let served = response.extensions().get::<ServedBy>();
        let moves = served.map_or(0, ServedBy::moves);
        let wanted = match (self.to, served) {
            (To::Key(key), _) => Some(key.clone()),
            (To::Tunnel(tunnel), _) => tunnel.info().key().map(ToString::to_string),
            (To::Next, Some(served)) => served.tunnel().key().map(ToString::to_string),
            (To::Next, None) => None,
        };
        Attempt::Done(self.check(response.get_ref(), wanted), moves)
    }

    /// Checks that the answer comes from the device that was called.
    fn check(&self, answer: &WorkResponse, wanted: Option<String>) -> Fate {
        let WorkResponse { number, device } = answer;
        if *number != self.number {
            return Fate::Failed("the answer belonged to another call".to_owned());
        }
        match wanted {
            Some(wanted) if wanted == *device => Fate::Answered(wanted),
            Some(wanted) => Fate::Failed(format!("{device} answered for {wanted}")),
            None => Fate::Failed(format!("{device} answered through a tunnel without a key")),
        }
    }
}

async fn work<T>(
    channel: T,
    request: Request<WorkRequest>,
) -> Result<Response<WorkResponse>, Status>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    DeviceServiceClient::new(channel).work(request).await
}

/// Whether the tunnel was lost after the call was sent.
fn was_lost(status: &Status) -> bool {
    status.code() == Code::Unavailable && status.message().contains("may have been processed")
}

/// Whether no tunnel has taken a call. The devices themselves never return UNAVAILABLE.
fn was_not_sent(status: &Status) -> bool {
    is_safe_to_retry(status) || (status.code() == Code::Unavailable && !was_lost(status))
}

/// A status on one line, without its metadata.
fn in_words(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
