//! The handler: the end of a tunnel that serves calls, by any tonic service.

mod body;
mod serve;

use std::fmt;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use http::uri::PathAndQuery;
use tonic::body::Body;
use tower_service::Service;
use tracing::Span;
use tunnel_core::{Code, Metadata, Status as WireStatus};

use crate::shared::Shared;
use crate::state::Opened;
use crate::telemetry::{CallTelemetry, catch_panic};
use body::RequestBody;
pub(crate) use serve::{ServeCall, poll_once};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes the future of a call from its request and the extensions for it. It runs no user code; that
/// happens when the call's task polls the future.
type CallFn = dyn Fn(http::Request<Body>, Arc<http::Extensions>) -> BoxFuture<'static, http::Response<Body>>
    + Send
    + Sync;

/// The service that serves the calls of tunnels: tonic's `Routes` or a generated server, with any tower
/// layers. Cheap to clone.
#[derive(Clone)]
pub struct CallService {
    call: Arc<CallFn>,
    settings: CallSettings,
}

/// Called with the span and the metadata of a call.
type ExtractTrace = dyn Fn(&Span, &HeaderMap) + Send + Sync;

/// How the calls of tunnels are served.
#[derive(Clone, Default)]
pub struct CallSettings {
    inline: bool,
    extract: Option<Arc<ExtractTrace>>,
}

impl CallService {
    /// Serves calls by a service. Each call has its own clone and waits until that is ready. An error of
    /// the service ends the call with the status that tonic would give it; one without a status ends it with
    /// DEADLINE_EXCEEDED if it is a timeout of tower or tokio, with RESOURCE_EXHAUSTED if tower shed the call, or
    /// else with UNKNOWN.
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
                // One box for the whole call.
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
                        Err(error) => crate::status::from_service_error(error.into()).into_http(),
                    }
                }
                .boxed()
            }),
            settings: CallSettings::default(),
        }
    }

    /// Sets how the calls are served.
    pub fn settings(mut self, settings: CallSettings) -> Self {
        self.settings = settings;
        self
    }
}

impl CallSettings {
    /// Whether the tunnel's task polls each call once before the call gets its own task. Default:
    /// false.
    ///
    /// A handler that answers at this first poll needs no task. Only done while at most 128 calls are
    /// open on the tunnel; with more, tasks are faster. Risk: a handler that computes for long or
    /// blocks delays all calls of its tunnel. So this is for services whose handlers are known to be
    /// quick up to their first `await`.
    pub fn poll_inline(&mut self, inline: bool) {
        self.inline = inline;
    }

    /// Sets a function that is called with the span of each call and the call's metadata, before the span is
    /// entered: to set its parent from a trace context. The spans then have the level `info`. It must not
    /// block. A panic is caught and logged.
    pub fn extract_trace(&mut self, extract: impl Fn(&Span, &HeaderMap) + Send + Sync + 'static) {
        self.extract = Some(Arc::new(extract));
    }
}

impl fmt::Debug for CallSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallSettings")
            .field("inline", &self.inline)
            .finish_non_exhaustive()
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
    /// The extensions of the opening request; each call gets a copy.
    extensions: Arc<http::Extensions>,
    /// The headers of a call without metadata. Copying them is cheaper than making them.
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

    /// Whether the tunnel's task polls calls.
    pub(crate) fn is_inline(&self) -> bool {
        self.service.settings.inline
    }

    /// The future that serves a call; `None` if the method is not a path.
    pub(crate) fn begin(&self, shared: &Arc<Shared>, opened: Opened) -> Option<ServeCall> {
        let Opened {
            id,
            method,
            headers,
            has_deadline,
        } = opened;
        let extract = self.service.settings.extract.as_ref();
        let telemetry = CallTelemetry::of_handler(&shared.telemetry, &method, extract.is_some());
        let body = RequestBody::new(shared.clone(), id);
        let path = match path(method) {
            Ok(path) => path,
            Err(_) => {
                let mut telemetry = telemetry;
                telemetry.finish(&shared.telemetry, Code::Unimplemented);
                let _slot = shared.with(|state| {
                    // A fixed text, because the peer may not read its refusals.
                    let message = "the call's method is not a path";
                    state
                        .conn
                        .reset(id, WireStatus::new(Code::Unimplemented, message));
                    state.release(id)
                });
                return None;
            }
        };
        let request = self.request(path, &headers, shared.carries_compressed(), body);
        if let Some(extract) = extract
            && !telemetry.span().is_disabled()
        {
            catch_panic("extract_trace", || {
                extract(telemetry.span(), request.headers());
            });
        }
        // Cloning and calling the service, and cloning the extensions, runs user code: that happens
        // when the future is polled.
        let handler = (self.service.call)(request, self.extensions.clone());
        Some(ServeCall::new(
            shared.clone(),
            id,
            handler,
            has_deadline,
            telemetry,
        ))
    }

    /// The call as an HTTP request.
    fn request(
        &self,
        path: PathAndQuery,
        metadata: &Metadata,
        encodings: bool,
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
            crate::headers::from_wire(metadata, headers, self.headers.len(), encodings);
            let ours = self.headers.iter();
            headers.extend(ours.map(|(name, value)| (name.clone(), value.clone())));
        }
        request
    }
}

/// The path of a method, or the method itself if it is not a path.
fn path(method: String) -> Result<PathAndQuery, String> {
    // A plain path needs no copy.
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
    fn a_method_is_parsed_as_a_path_or_refused() {
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
