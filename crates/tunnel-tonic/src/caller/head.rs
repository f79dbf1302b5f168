//! The head of a call: its path and metadata.

use std::time::Duration;

use http::uri::PathAndQuery;
use tonic::body::Body;
use tunnel_core::{Metadata, format_grpc_timeout, parse_grpc_timeout};

/// A request without its body: the path and the metadata, as frames carry them. A pool uses it to
/// retry a call.
#[derive(Clone, Debug)]
pub struct CallHead {
    /// The path, as in the request: no copy is made.
    pub(super) path: Option<PathAndQuery>,
    pub(super) headers: Metadata,
}

impl CallHead {
    /// Splits a request. Its extensions are dropped; they are not sent.
    pub fn split(request: http::Request<Body>) -> (Self, Body) {
        let (parts, body) = request.into_parts();
        let head = Self {
            path: parts.uri.into_parts().path_and_query,
            headers: crate::headers::to_wire(&parts.headers),
        };
        (head, body)
    }

    /// The timeout of the call, if it has one.
    pub fn timeout(&self) -> Option<Duration> {
        self.headers.get(TIMEOUT).and_then(parse_grpc_timeout)
    }

    /// Adds metadata.
    pub fn push(&mut self, key: &str, value: &str) {
        self.headers.push(key, value);
    }

    /// Replaces the timeout of a call that has one, after a part of it has passed.
    pub fn set_timeout(&mut self, left: Duration) {
        let left = format_grpc_timeout(left);
        let set = self.headers.iter().map(|(key, value)| match key {
            TIMEOUT => (key, left.as_str()),
            _ => (key, value),
        });
        self.headers = set.collect();
    }
}

const TIMEOUT: &str = "grpc-timeout";
