//! Devices whose frames the test sends itself.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use tonic::Code;
use tonic::body::Body;
use tower::{BoxError, Service};
use tunnel_core::{DRAIN_HEADER, NEGOTIATE_VALUE, NOT_PROCESSED_KEY};
use tunnel_proto::google::rpc;
use tunnel_proto::grpctunnel::v1::server_to_client::Frame;
use tunnel_proto::grpctunnel::v1::{CloseStream, Metadata};
use tunnel_tonic::outer::OPEN_REVERSE_TUNNEL_PATH;

use super::DEVICE;
use peer::{RawHandler, md};

// The peers of the binding's tests. Those tests use more of this file.
#[allow(dead_code)]
#[path = "../../binding/support/body.rs"]
pub(crate) mod body;
#[allow(dead_code)]
#[path = "../../binding/support/peer.rs"]
pub(crate) mod peer;

/// A device that has dialled and sent nothing yet. It understands drain notices.
pub(crate) async fn knock<S, B>(channel: S, name: &str) -> RawHandler
where
    S: Service<http::Request<Body>, Response = http::Response<B>>,
    S::Error: std::fmt::Debug,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    dial(channel, name, true).await
}

/// A device without drain notices that has dialled and sent its settings.
pub(crate) async fn device_without_drain<S, B>(channel: S, name: &str) -> RawHandler
where
    S: Service<http::Request<Body>, Response = http::Response<B>>,
    S::Error: std::fmt::Debug,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let device = dial(channel, name, false).await;
    device.settings(&[0, 1]);
    device
}

async fn dial<S, B>(channel: S, name: &str, drain: bool) -> RawHandler
where
    S: Service<http::Request<Body>, Response = http::Response<B>>,
    S::Error: std::fmt::Debug,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut headers = HeaderMap::new();
    let mut put = |key, value: &str| {
        let value = HeaderValue::from_str(value).expect("legal");
        headers.insert(HeaderName::from_static(key), value);
    };
    put(DEVICE, name);
    if drain {
        put(DRAIN_HEADER, NEGOTIATE_VALUE);
    }
    RawHandler::dial(channel, OPEN_REVERSE_TUNNEL_PATH, headers, true).await
}

/// A device that has dialled and sent its settings.
pub(crate) async fn device<S, B>(channel: S, name: &str) -> RawHandler
where
    S: Service<http::Request<Body>, Response = http::Response<B>>,
    S::Error: std::fmt::Debug,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let device = knock(channel, name).await;
    device.settings(&[0, 1]);
    device
}

/// The close of a draining handler for a call that it has not processed.
pub(crate) fn refuse(device: &RawHandler, call: i64) {
    device.close(call, Code::Unavailable, md(&[(NOT_PROCESSED_KEY, "1")]));
}

/// The Go library's close of a call that comes after its GracefulStop.
pub(crate) fn refuse_stopping(device: &RawHandler, call: i64) {
    let status = rpc::Status {
        code: Code::Unavailable as i32,
        message: "server is shutting down".to_owned(),
        ..Default::default()
    };
    let close = CloseStream {
        response_trailers: None,
        status: Some(status),
    };
    device.frame(call, Frame::CloseStream(close));
}

/// A drain notice: calls after `last` are not served.
pub(crate) fn going_away(device: &RawHandler, last: i64) {
    let last = last.to_string();
    device.close(-1, Code::Ok, md(&[("grpctunnel-last-stream", &last)]));
}

/// Answers a call with an empty message.
pub(crate) fn answer(device: &RawHandler, call: i64) {
    device.response_headers(call, Metadata::default());
    device.response_message(call, 0, &[]);
    device.close(call, Code::Ok, Metadata::default());
}
