//! A service that passes any gRPC call on to the reverse tunnels of a key.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::request::Parts;
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;
use tunnel_tonic::outer::is_grpc;
use tunnel_tonic::{AffinityKey, ForwardTo};

use crate::{ReverseChannel, TunnelServiceHandler};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type FindKey = dyn Fn(&Parts) -> Result<AffinityKey, Status> + Send + Sync;
type ChannelOf<C> = dyn Fn(AffinityKey) -> C + Send + Sync;
type Configure<C> = dyn Fn(C) -> C + Send + Sync;

/// Where a [`KeyProxy`] finds the key of a call. Cheap to clone.
#[derive(Clone)]
pub struct KeyFrom(Arc<FindKey>);

impl KeyFrom {
    /// The key is the value of a metadata key, which the device also sees. A call without it ends with
    /// INVALID_ARGUMENT.
    ///
    /// # Panics
    ///
    /// If `name` is not a legal name of a header.
    pub fn metadata(name: &str) -> Self {
        let name: http::HeaderName = name.parse().expect("a legal name of a header");
        Self::head(move |head| {
            let value = head
                .headers
                .get(&name)
                .and_then(|value| value.to_str().ok());
            value
                .filter(|key| !key.is_empty())
                .map(AffinityKey::from)
                .ok_or_else(|| {
                    let message = format!(
                        "no key for the call: send it in the metadata {:?}",
                        name.as_str()
                    );
                    Status::invalid_argument(message)
                })
        })
    }

    /// The key is the authority without its port and a suffix: `device-17` of `device-17.devices.example:443` with
    /// the suffix `devices.example`. Keys that differ only in case are different, suffixes are not. A call to
    /// another authority ends with INVALID_ARGUMENT.
    ///
    /// A tonic client gives the authority by `Endpoint::origin`.
    pub fn authority(suffix: &str) -> Self {
        let suffix = format!(".{}", suffix.trim_start_matches('.'));
        Self::head(move |head| {
            let host = head.uri.host().unwrap_or_default();
            let key = host
                .len()
                .checked_sub(suffix.len())
                .and_then(|at| host.split_at_checked(at));
            let key =
                key.filter(|(key, rest)| !key.is_empty() && rest.eq_ignore_ascii_case(&suffix));
            key.map(|(key, _)| AffinityKey::from(key)).ok_or_else(|| {
                let message =
                    format!("no key for the call: its authority must be KEY{suffix}, not {host:?}");
                Status::invalid_argument(message)
            })
        })
    }

    /// The key is found by a function in the head of the request: its path, its metadata, its extensions with what
    /// layers have put there. An error is the status of the call.
    pub fn head(
        find: impl Fn(&Parts) -> Result<AffinityKey, Status> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(find))
    }
}

impl fmt::Debug for KeyFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFrom").finish_non_exhaustive()
    }
}

/// A service that passes any gRPC call on to the reverse tunnels of a key; from
/// [`TunnelServiceHandler::proxy`]. Cheap to clone.
///
/// Clients call it as they would call the device, with generated code, and the gateway needs none. Metadata,
/// messages of all kinds of calls, trailers and deadlines pass, and a call that its client cancels is cancelled at
/// the device. Metadata of the transport is not carried, as by any proxy. Unknown keys and lost tunnels end a call as
/// [`ReverseChannel`] says. A request that is not a POST of gRPC is answered with 415.
///
/// **Who can reach this service can call all devices.** Put what decides about callers around it, for example an
/// [`InterceptorLayer`](tonic::service::InterceptorLayer) of the server.
///
/// It is the fallback of a server's routes, beside the tunnel service itself:
///
/// ```
/// use tonic::service::Routes;
/// use tonic::transport::Server;
/// use tunnel_server::{AffinityKey, KeyFrom, Opening, TunnelServiceHandler};
///
/// let handler = TunnelServiceHandler::builder()
///     .affinity_key(|opening: &Opening| opening.metadata_str("device-id").map(AffinityKey::from))
///     .build();
/// let own = Routes::new(handler.service()); // and others
/// let proxy = handler.proxy(KeyFrom::metadata("device-id"));
/// let routes: Routes = own.into_axum_router().fallback_service(proxy).into();
/// let server = Server::builder().add_routes(routes);
/// # let _ = server;
/// ```
///
/// A device may serve the calls itself, or forward them to a server of its own
/// (`ReverseTunnelServerBuilder::forward_to` in `tunnel-client`).
pub struct KeyProxy<C = ReverseChannel> {
    channel: Arc<ChannelOf<C>>,
    key: KeyFrom,
    configure: Option<Arc<Configure<C>>>,
}

impl<C> Clone for KeyProxy<C> {
    fn clone(&self) -> Self {
        Self {
            channel: self.channel.clone(),
            key: self.key.clone(),
            configure: self.configure.clone(),
        }
    }
}

impl TunnelServiceHandler {
    /// A service that passes any gRPC call on to the reverse tunnels of a key.
    pub fn proxy(&self, key: KeyFrom) -> KeyProxy {
        let handler = self.clone();
        KeyProxy::over(key, move |key| handler.key_as_channel(key))
    }
}

impl<C> KeyProxy<C> {
    /// A proxy over other channels than those of a handler, for example those of a fleet of gateways.
    pub fn over(key: KeyFrom, channel: impl Fn(AffinityKey) -> C + Send + Sync + 'static) -> Self {
        Self {
            channel: Arc::new(channel),
            key,
            configure: None,
        }
    }

    /// Settings of the channel of each call, for example to wait for a device that is not there. Default: those of
    /// [`key_as_channel`](TunnelServiceHandler::key_as_channel).
    ///
    /// ```
    /// use tunnel_server::{KeyFrom, TunnelServiceHandler, WhenNoTunnel};
    /// let handler = TunnelServiceHandler::builder().build();
    /// let proxy = handler
    ///     .proxy(KeyFrom::authority("devices.example"))
    ///     .configure(|channel| channel.when_no_tunnel(WhenNoTunnel::Wait));
    /// # let _ = proxy;
    /// ```
    #[must_use = "the setting is for the service returned"]
    pub fn configure(mut self, configure: impl Fn(C) -> C + Send + Sync + 'static) -> Self {
        self.configure = Some(Arc::new(configure));
        self
    }
}

impl<B, C, A> Service<http::Request<B>> for KeyProxy<C>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    C: Service<http::Request<Body>, Response = http::Response<A>> + Clone + Send + 'static,
    C::Error: Into<BoxError> + Send,
    C::Future: Send,
    A: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    A::Error: Into<BoxError>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (head, body) = request.into_parts();
        // The device sees gRPC, whatever came here.
        if head.method != http::Method::POST || !is_grpc(&head.headers) {
            let mut response = http::Response::new(Body::empty());
            *response.status_mut() = http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Box::pin(std::future::ready(Ok(response)));
        }
        let key = match (self.key.0)(&head) {
            Ok(key) => key,
            Err(status) => return Box::pin(std::future::ready(Ok(status.into_http()))),
        };
        let channel = (self.channel)(key);
        let channel = match &self.configure {
            Some(configure) => configure(channel),
            None => channel,
        };
        ForwardTo::new(channel).call(http::Request::from_parts(head, body))
    }
}

impl<C> fmt::Debug for KeyProxy<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyProxy").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(from: &KeyFrom, uri: &str, metadata: Option<&str>) -> Result<String, String> {
        let mut request = http::Request::post(uri);
        if let Some(value) = metadata {
            request = request.header("device-id", value);
        }
        let (head, ()) = request.body(()).expect("legal").into_parts();
        match (from.0)(&head) {
            Ok(key) => Ok(key.as_str().to_owned()),
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::InvalidArgument);
                Err(status.message().to_owned())
            }
        }
    }

    #[test]
    fn a_key_in_the_metadata_is_found_or_asked_for_by_name() {
        let from = KeyFrom::metadata("Device-ID");
        assert_eq!(key(&from, "/a/b", Some("17")).as_deref(), Ok("17"));
        for nothing in [None, Some(""), Some("\u{fc}")] {
            let message = key(&from, "/a/b", nothing).expect_err("no key");
            assert!(message.contains(r#""device-id""#), "{message}");
        }
    }

    #[test]
    fn a_key_in_the_authority_is_what_stands_before_the_suffix() {
        for from in ["devices.example", ".devices.example"].map(KeyFrom::authority) {
            let key = |authority: &str| key(&from, &format!("http://{authority}/a/b"), None);
            assert_eq!(key("Seven.devices.example").as_deref(), Ok("Seven"));
            assert_eq!(key("a.b.DEVICES.example:443").as_deref(), Ok("a.b"));
            for other in [
                "devices.example",
                ".devices.example",
                "xdevices.example",
                "7.example",
                "[::1]:1",
            ] {
                let message = key(other).expect_err("no key");
                assert!(message.contains("KEY.devices.example"), "{message}");
            }
        }
        assert!(key(&KeyFrom::authority("devices.example"), "/a/b", None).is_err());
    }
}
