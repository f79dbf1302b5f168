//! The end of a tunnel that serves calls: by any tonic service, unmodified.
//!
//! A call costs one box for its future, one for its request body, and the copies of the opening
//! request's extensions; its path is the method as it came, without a copy.

mod body;
mod serve;

use std::fmt;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use http::uri::PathAndQuery;
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;
use tunnel_core::{Code, Metadata, Status as WireStatus};

use crate::shared::Shared;
use crate::state::Opened;
use body::RequestBody;
pub(crate) use serve::ServeCall;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes the future of a call from its request and the extensions that its request is to get.
/// Runs no code of a user: that is the future's, which a call's task polls.
type CallFn = dyn Fn(http::Request<Body>, Arc<http::Extensions>) -> BoxFuture<'static, http::Response<Body>>
    + Send
    + Sync;

/// Who serves the calls of tunnels: any tonic `Routes` or generated server, with any
/// tower layers around. Cheap to clone.
#[derive(Clone)]
pub struct CallService {
    call: Arc<CallFn>,
    inline: bool,
}

impl CallService {
    /// Serves calls by a service. One that is not ready is waited for, by each call on its own
    /// clone; an error of the service ends the call with the status tonic would give it.
    pub fn new<S, B>(service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError> + Send,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let service = Arc::new(service);
        Self {
            call: Arc::new(move |mut request, extensions| {
                let service = service.clone();
                // One box for all that a call needs, whatever the service is made of.
                async move {
                    let mut service = S::clone(&service);
                    *request.extensions_mut() = http::Extensions::clone(&extensions);
                    let ready = std::future::poll_fn(|cx| service.poll_ready(cx));
                    let response = match ready.await {
                        Ok(()) => service.call(request).await,
                        Err(error) => Err(error),
                    };
                    match response {
                        Ok(response) => response.map(Body::new),
                        Err(error) => Status::from_error(error.into()).into_http(),
                    }
                }
                .boxed()
            }),
            inline: false,
        }
    }

    /// Whether the tunnel's own task polls each call once before it gets a task of its own.
    /// Default: false.
    ///
    /// A handler that answers at that first poll costs no task and no switch to one. Done only while
    /// no more than 128 calls are open on the tunnel: beyond, tasks are faster. The risk: a
    /// handler that computes for long, or blocks, holds up all calls of its tunnel meanwhile, so
    /// this is for services whose handlers are known to be quick up to their first `await`.
    pub fn poll_inline(mut self, inline: bool) -> Self {
        self.inline = inline;
        self
    }
}

impl fmt::Debug for CallService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallService").finish_non_exhaustive()
    }
}

/// Serves the calls of one tunnel.
pub(crate) struct Server {
    service: CallService,
    /// What the opening request knew; each call gets a copy.
    extensions: Arc<http::Extensions>,
    /// What the headers of a call say without metadata. A copy costs half of making them.
    headers: HeaderMap,
}

impl Server {
    pub(crate) fn new(service: CallService, extensions: http::Extensions) -> Self {
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        Self {
            service,
            extensions: Arc::new(extensions),
            headers,
        }
    }

    /// Whether calls may be polled by whoever has them served.
    pub(crate) fn is_inline(&self) -> bool {
        self.service.inline
    }

    /// What serves a call, to be polled; `None` if there is no such method.
    pub(crate) fn begin(&self, shared: &Arc<Shared>, opened: Opened) -> Option<ServeCall> {
        let Opened {
            id,
            method,
            headers,
            has_deadline,
        } = opened;
        let body = RequestBody::new(shared.clone(), id);
        let path = match path(method) {
            Ok(path) => path,
            Err(_) => {
                let _slot = shared.with(|state| {
                    // A fixed text: the peer may not read its refusals.
                    let message = "the call's method is not a path";
                    state
                        .conn
                        .reset(id, WireStatus::new(Code::Unimplemented, message));
                    state.release(id)
                });
                return None;
            }
        };
        let request = self.request(path, &headers, body);
        // The service may do anything when it is cloned or called, and what is in the extensions
        // when it is cloned: that runs, and panics, when the future is polled.
        let handler = (self.service.call)(request, self.extensions.clone());
        Some(ServeCall::new(shared.clone(), id, handler, has_deadline))
    }

    /// The call as tonic knows requests.
    fn request(
        &self,
        path: PathAndQuery,
        metadata: &Metadata,
        body: RequestBody,
    ) -> http::Request<Body> {
        let mut request = http::Request::new(Body::new(body));
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = http::Version::HTTP_2;
        *request.uri_mut() = http::Uri::from(path);
        if metadata.is_empty() {
            *request.headers_mut() = self.headers.clone();
        } else {
            let headers = request.headers_mut();
            crate::headers::from_wire(metadata, headers, self.headers.len());
            let ours = self.headers.iter();
            headers.extend(ours.map(|(name, value)| (name.clone(), value.clone())));
        }
        request
    }
}

/// The path of a method; the method itself, if it is none.
fn path(method: String) -> Result<PathAndQuery, String> {
    // What certainly is a path becomes one without a copy.
    let plain = |b: u8| b.is_ascii_alphanumeric() | matches!(b, b'-'..=b'/' | b'_');
    let is_path = method.starts_with('/') && method.len() < 1 << 15;
    if is_path && method.bytes().fold(true, |all, b| all & plain(b)) {
        return PathAndQuery::try_from(method).map_err(|_| String::new());
    }
    PathAndQuery::try_from(method.as_str()).map_err(|_| method)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_the_path_it_says_or_none() {
        let long = |n| format!("/{}", "m".repeat(n));
        let methods = [
            "/a.B/C_d-9",
            "/",
            "/a?q=1",
            "/a b",
            "/ü",
            "/a#b",
            "*",
            "a/b",
            "",
            &long(1 << 15),
            &long(1 << 16),
        ];
        for method in methods {
            let expected = PathAndQuery::try_from(method).map_err(|_| method.to_owned());
            assert_eq!(path(method.to_owned()), expected, "{method:.10}");
        }
    }
}
