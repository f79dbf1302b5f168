//! The end of a tunnel that serves calls: by any tonic service, unmodified.

mod body;
mod serve;

use std::fmt;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::{CONTENT_TYPE, HeaderValue, TE};
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;
use tunnel_core::{Code, Status as WireStatus};

use crate::shared::{Opened, Shared};
use body::RequestBody;
use serve::ServeCall;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

type CallFn = dyn Fn(http::Request<Body>) -> BoxFuture<'static, http::Response<Body>> + Send + Sync;

/// Who serves the calls of tunnels: any tonic `Routes` or generated server, with any
/// tower layers around. Cheap to clone.
#[derive(Clone)]
pub struct CallService {
    call: Arc<CallFn>,
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
        Self {
            call: Arc::new(move |request| {
                let mut service = service.clone();
                async move {
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
        }
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
}

impl Server {
    pub(crate) fn new(service: CallService, extensions: http::Extensions) -> Self {
        Self {
            service,
            extensions: Arc::new(extensions),
        }
    }

    /// Serves a call in a task of its own.
    pub(crate) fn spawn(&self, shared: &Arc<Shared>, opened: Opened) {
        let body = RequestBody::new(shared.clone(), opened.id);
        let id = opened.id;
        let Some(mut request) = request(&opened, body) else {
            let _slot = shared.with(|state| {
                let status = WireStatus::new(
                    Code::Unimplemented,
                    format!("no such method: {:?}", opened.method),
                );
                state.conn.reset(id, status);
                state.release(id)
            });
            return;
        };
        // The service may do anything when it is called, and what is in the extensions when it
        // is cloned: that runs, and panics, in the task.
        let (service, extensions) = (self.service.clone(), self.extensions.clone());
        let handler = async move {
            *request.extensions_mut() = (*extensions).clone();
            (service.call)(request).await
        };
        tokio::spawn(ServeCall::new(shared.clone(), id, handler.boxed()));
    }
}

/// The call as tonic knows requests; `None` if its method is no path.
fn request(opened: &Opened, body: RequestBody) -> Option<http::Request<Body>> {
    let path = http::uri::PathAndQuery::try_from(opened.method.as_str()).ok()?;
    let mut request = http::Request::new(Body::new(body));
    *request.method_mut() = http::Method::POST;
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = http::Uri::from(path);
    let headers = request.headers_mut();
    crate::headers::from_wire(&opened.headers, headers);
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Some(request)
}
