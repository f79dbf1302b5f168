//! The far end of a hop: calls that another gateway has sent here, for devices that are here.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::TryFutureExt as _;
use futures::future::{BoxFuture, Either, MapErr};
use http::HeaderMap;
use tonic::body::Body;
use tonic::{Code, Status};
use tower_layer::Layer;
use tower_service::Service;
use tunnel_tonic::{NotProcessed, is_safe_to_retry};

use crate::record::decode_key;
use crate::shared::Shared;

/// The metadata key with the key of the device, in base32.
pub(crate) const KEY: &str = "tunnel-hop-key";

/// Why a call is refused: the device is not here.
pub(crate) const ABSENT: &str = "absent";

/// Its tunnels are full.
const FULL: &str = "full";

/// The gateway is about to stop.
const DRAINING: &str = "draining";

/// Passes calls of other gateways on to devices that are here, and never to a third gateway.
#[derive(Clone)]
pub(crate) struct HopService {
    pub(crate) shared: Arc<Shared>,
}

impl Service<http::Request<Body>> for HopService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let Some(key) = take_key(request.headers_mut()) else {
            let status = Status::invalid_argument("a call over a hop names no key");
            return Box::pin(std::future::ready(Ok(status.into_http())));
        };
        let Some(handler) = self.shared.handler() else {
            return Box::pin(std::future::ready(Ok(refuse(
                Status::unavailable("the gateway is starting"),
                ABSENT,
            ))));
        };
        self.shared.counters.hops_served.add();
        // The other gateway waits, or tries elsewhere.
        let mut device = handler.key_as_channel(key).queue_calls(false);
        let response = device.call(request);
        let draining = self.shared.is_draining();
        Box::pin(async move {
            Ok(match response.await {
                Ok(response) => response.map(Body::new),
                Err(status) if is_safe_to_retry(&status) => {
                    let reason = match status.code() {
                        Code::ResourceExhausted => FULL,
                        _ if draining => DRAINING,
                        _ => ABSENT,
                    };
                    refuse(status, reason)
                }
                Err(status) => status.into_http(),
            })
        })
    }
}

/// Keeps calls for devices away from the services for other gateways, whatever method they name; in the handler that
/// [`Fleet::hop_handler`](crate::Fleet::hop_handler) makes.
#[derive(Clone)]
pub struct DevicesFirst {
    devices: HopService,
}

impl DevicesFirst {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            devices: HopService { shared },
        }
    }
}

impl fmt::Debug for DevicesFirst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevicesFirst").finish_non_exhaustive()
    }
}

impl<S> Layer<S> for DevicesFirst {
    type Service = OrDevice<S>;

    fn layer(&self, inner: S) -> OrDevice<S> {
        OrDevice {
            inner,
            devices: self.devices.clone(),
        }
    }
}

/// Services for other gateways, which calls for devices do not reach. From [`DevicesFirst`].
#[derive(Clone)]
pub struct OrDevice<S> {
    inner: S,
    devices: HopService,
}

impl<S> fmt::Debug for OrDevice<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrDevice").finish_non_exhaustive()
    }
}

/// Turns the error that never is into another one.
type Never<E> = fn(Infallible) -> E;

impl<S> Service<http::Request<Body>> for OrDevice<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Either<
        MapErr<BoxFuture<'static, Result<http::Response<Body>, Infallible>>, Never<S::Error>>,
        S::Future,
    >;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match request.headers().contains_key(KEY) {
            true => {
                let never: Never<S::Error> = |never| match never {};
                Either::Left(self.devices.call(request).map_err(never))
            }
            false => Either::Right(self.inner.call(request)),
        }
    }
}

/// Takes the key out of the metadata of a call. The last value counts, which is that of the gateway.
fn take_key(headers: &mut HeaderMap) -> Option<String> {
    let value = headers.get_all(KEY).iter().next_back();
    let key = value.and_then(|value| decode_key(value.to_str().ok()?));
    headers.remove(KEY);
    key
}

fn refuse(status: Status, reason: &'static str) -> http::Response<Body> {
    let mut response = status.into_http();
    response.extensions_mut().insert(NotProcessed::new(reason));
    response
}
