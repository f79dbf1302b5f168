//! A service between the two ends of a tunnel that records their frames.
//!
//! It is a proxy of the outer call: it forwards all bytes unchanged and copies them. The recording
//! has the frames of both ends in the order in which they pass the proxy.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::Channel;
use tower::{Service, ServiceExt};
use tunnel_core::Side;
use tunnel_core::frame::framing::Deframer;
use tunnel_tonic::outer::{OPEN_REVERSE_TUNNEL_PATH, SERVICE_NAME};

use crate::golden::Recorded;

/// The largest frame, which is larger than any frame of a tunnel.
const MAX_FRAME: usize = 64 << 20;

/// Forwards tunnels to a channel and records their frames.
#[derive(Clone, Debug)]
pub struct Tap {
    channel: Channel,
    recorded: Arc<Mutex<Vec<Recorded>>>,
}

impl Tap {
    /// A tap in front of this channel.
    pub fn new(channel: Channel) -> Self {
        Self {
            channel,
            recorded: Arc::default(),
        }
    }

    /// The frames recorded so far.
    pub fn recorded(&self) -> Vec<Recorded> {
        let recorded = self.recorded.lock();
        recorded.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn listen(&self, body: Body, from: Side) -> Body {
        Body::new(Tapped {
            body,
            from,
            deframer: Deframer::new(MAX_FRAME),
            recorded: self.recorded.clone(),
        })
    }
}

impl NamedService for Tap {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for Tap {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // The dialling side is the caller in a forward tunnel and the handler in a reverse tunnel.
        let dialled = match request.uri().path() {
            OPEN_REVERSE_TUNNEL_PATH => Side::Handler,
            _ => Side::Caller,
        };
        let tap = self.clone();
        Box::pin(async move {
            let request = request.map(|body| tap.listen(body, dialled));
            let response = tap.channel.clone().oneshot(request).await;
            Ok(match response {
                Ok(response) => response.map(|body| tap.listen(body, dialled.peer())),
                Err(error) => Status::unavailable(error.to_string()).into_http(),
            })
        })
    }
}

/// A body whose bytes are copied.
struct Tapped {
    body: Body,
    from: Side,
    deframer: Deframer,
    recorded: Arc<Mutex<Vec<Recorded>>>,
}

impl http_body::Body for Tapped {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let next = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &next
            && let Some(data) = frame.data_ref()
        {
            this.deframer.push(data.clone());
            let mut recorded = this.recorded.lock().unwrap_or_else(PoisonError::into_inner);
            let from = this.from;
            while let Ok(Some(bytes)) = this.deframer.next() {
                recorded.push(Recorded { from, bytes });
            }
        }
        next
    }
}
