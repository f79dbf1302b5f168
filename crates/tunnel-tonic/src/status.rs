//! Conversions of gRPC status between tonic, HTTP headers and a tunnel's frames.

use base64::Engine as _;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, percent_encode};
use prost::Message as _;
use std::borrow::Cow;
use std::sync::Arc;
use tonic::metadata::MetadataMap;
use tunnel_core::{
    CloseStream, Code, Initiator, Metadata, NOT_PROCESSED_KEY, OpenError, Report,
    Status as WireStatus, StatusDetail, StreamError,
};
use tunnel_proto::google::rpc;

use crate::headers::BASE64;

const GRPC_STATUS: &str = "grpc-status";
const GRPC_MESSAGE: &str = "grpc-message";
const GRPC_DETAILS: &str = "grpc-status-details-bin";

// Made at compile time, so that they need no check at run time.
static STATUS_NAME: HeaderName = HeaderName::from_static(GRPC_STATUS);
static MESSAGE_NAME: HeaderName = HeaderName::from_static(GRPC_MESSAGE);
static DETAILS_NAME: HeaderName = HeaderName::from_static(GRPC_DETAILS);

/// The characters of a message that gRPC escapes, as tonic does it.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'`')
    .add(b'?')
    .add(b'{')
    .add(b'}');

/// The codes of gRPC as header values.
const CODES: [&str; 17] = [
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
];

/// Wraps status details that are not a `google.rpc.Status`, so that they are carried too. Only this
/// library knows the name.
const OPAQUE_DETAILS: &str = "grpctunnel/opaque-details";

pub(crate) fn code_from_wire(code: Code) -> tonic::Code {
    tonic::Code::from_i32(code.to_wire())
}

pub(crate) fn code_to_wire(code: tonic::Code) -> Code {
    Code::from_wire(code as i32)
}

/// The status of a call that failed at this end.
pub(crate) fn from_stream_error(error: StreamError) -> tonic::Status {
    let mut status = tonic::Status::new(code_from_wire(error.code), error.message.to_string());
    status.set_source(Arc::new(error));
    status
}

/// The status of a call that could not be opened.
pub(crate) fn from_open_error(error: OpenError) -> tonic::Status {
    let mut status = tonic::Status::new(code_from_wire(error.code()), Report(&error).to_string());
    status.set_source(Arc::new(error));
    status
}

/// The status of a call that was refused as not processed, if the close has the mark.
pub(crate) fn not_processed(close: &CloseStream) -> Option<tonic::Status> {
    let reason = close.trailers.get(NOT_PROCESSED_KEY)?;
    let (code, message) = (close.status.code, close.status.message.clone());
    let mut error = StreamError::new(code, message, Initiator::Remote);
    error.not_processed = true;
    let mut status = tonic::Status::new(code_from_wire(error.code), error.message.to_string());
    status.set_source(Arc::new(NotProcessed {
        reason: reason.to_owned().into(),
        error: Some(error),
    }));
    Some(status)
}

/// Says that a call was refused before anything of it was processed, and why. The caller may make it again elsewhere.
///
/// A handler puts it into the extensions of a response that is only a status, UNAVAILABLE or RESOURCE_EXHAUSTED, as
/// `Status::into_http` makes it. It counts only there: metadata that a handler sets by itself never says this. The
/// caller's channel then retries the call on another tunnel, and [`NotProcessed::of`] finds the reason in the status.
#[derive(Clone, Debug)]
pub struct NotProcessed {
    reason: Cow<'static, str>,
    error: Option<StreamError>,
}

impl NotProcessed {
    /// With a reason, which both ends agree on: a word of ASCII.
    pub fn new(reason: &'static str) -> Self {
        Self {
            reason: reason.into(),
            error: None,
        }
    }

    /// The reason.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What the far end said of a call that failed with this status.
    pub fn of(status: &tonic::Status) -> Option<&Self> {
        let first = std::error::Error::source(status);
        let mut sources = std::iter::successors(first, |error| error.source());
        sources.find_map(|error| error.downcast_ref())
    }

    /// Adds the mark to the trailers of a refusal.
    pub(crate) fn mark(&self, trailers: &mut Metadata) {
        trailers.push(NOT_PROCESSED_KEY, &self.reason);
    }
}

impl std::fmt::Display for NotProcessed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not processed: {}", self.reason)
    }
}

impl std::error::Error for NotProcessed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.as_ref().map(|error| error as _)
    }
}

/// Whether a call that failed with this status was certainly not processed, so that it is safe to make
/// it again through another tunnel.
///
/// It is `true` if the tunnel was not ready, full or draining, or if it ended before the call was
/// sent. It is `false` if the call was sent before the tunnel ended, since it may have been
/// processed.
pub fn is_safe_to_retry(status: &tonic::Status) -> bool {
    let first = std::error::Error::source(status);
    std::iter::successors(first, |error| error.source())
        .find_map(says_movable)
        .unwrap_or(false)
}

/// Whether a source of a status shows that the call was not processed.
fn says_movable(error: &(dyn std::error::Error + 'static)) -> Option<bool> {
    if let Some(error) = error.downcast_ref::<StreamError>() {
        let moves = matches!(error.code, Code::Unavailable | Code::ResourceExhausted);
        return Some(error.not_processed && moves);
    }
    let error = error.downcast_ref::<OpenError>()?;
    Some(matches!(
        error,
        OpenError::NotReady
            | OpenError::Draining
            | OpenError::StreamLimit(_)
            | OpenError::IdsExhausted
            | OpenError::Ended(_)
    ))
}

/// The status of an error of a service or its layers. Where tonic knows no status, timeouts and shed calls
/// have the codes that gRPC has for them.
pub(crate) fn from_service_error(error: Box<dyn std::error::Error + Send + Sync>) -> tonic::Status {
    let error = match tonic::Status::try_from_error(error) {
        Ok(status) => return status,
        Err(error) => error,
    };
    let first: &(dyn std::error::Error + 'static) = &*error;
    let code = std::iter::successors(Some(first), |error| error.source()).find_map(code_of);
    let mut status = tonic::Status::new(code.unwrap_or(tonic::Code::Unknown), error.to_string());
    status.set_source(Arc::from(error));
    status
}

/// The code of an error of a tower layer or of tokio, if it is one.
fn code_of(error: &(dyn std::error::Error + 'static)) -> Option<tonic::Code> {
    if error.is::<tower::timeout::error::Elapsed>() || error.is::<tokio::time::error::Elapsed>() {
        return Some(tonic::Code::DeadlineExceeded);
    }
    let shed = error.is::<tower::load_shed::error::Overloaded>();
    shed.then_some(tonic::Code::ResourceExhausted)
}

/// The message of tonic's CANCELLED for a call whose deadline has passed.
const TONIC_TIMEOUT: &str = "Timeout expired";

/// Turns tonic's CANCELLED for a passed deadline into DEADLINE_EXCEEDED, for a call with a deadline
/// that its handler forwards by plain tonic.
pub(crate) fn own_deadline(status: &mut WireStatus) {
    if status.code == Code::Cancelled && status.message == TONIC_TIMEOUT {
        status.code = Code::DeadlineExceeded;
    }
}

/// The status and trailers of a finished call as tonic's status.
pub(crate) fn from_close(close: CloseStream) -> tonic::Status {
    let mut trailers = HeaderMap::new();
    crate::headers::from_wire(&close.trailers, &mut trailers, 0, false);
    let code = code_from_wire(close.status.code);
    let details = details_from_wire(&close.status);
    tonic::Status::with_details_and_metadata(
        code,
        close.status.message,
        details,
        MetadataMap::from_headers(trailers),
    )
}

/// The HTTP trailers of a finished call, as tonic would write them, with room for `more` entries.
/// `encodings` as in [`from_wire`](crate::headers::from_wire).
pub(crate) fn close_to_trailers(close: CloseStream, more: usize, encodings: bool) -> HeaderMap {
    let details = details_from_wire(&close.status);
    let has_message = !close.status.message.is_empty();
    let entries = 1 + usize::from(has_message) + usize::from(!details.is_empty());
    let mut trailers = HeaderMap::new();
    crate::headers::from_wire(&close.trailers, &mut trailers, entries + more, encodings);
    let code = code_from_wire(close.status.code);
    let code = CODES.get(code as usize).copied().unwrap_or("2");
    trailers.insert(&STATUS_NAME, HeaderValue::from_static(code));
    if has_message && let Some(message) = escape(close.status.message) {
        trailers.insert(&MESSAGE_NAME, message);
    }
    if !details.is_empty()
        && let Ok(details) = HeaderValue::try_from(BASE64.encode(details))
    {
        trailers.insert(&DETAILS_NAME, details);
    }
    trailers
}

/// A message as a header value. Never `None`, because an escaped message is legal.
fn escape(message: String) -> Option<HeaderValue> {
    let escaped = match Cow::from(percent_encode(message.as_bytes(), ESCAPED)) {
        Cow::Owned(escaped) => escaped,
        Cow::Borrowed(_) => message,
    };
    HeaderValue::from_maybe_shared(Bytes::from(escaped)).ok()
}

/// The HTTP trailers of a status. A status that tonic cannot write becomes one that it can.
pub(crate) fn to_trailers(status: &tonic::Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        trailers.clear();
        let plain = tonic::Status::new(status.code(), "");
        // Without message, details and metadata nothing can fail.
        let _ = plain.add_header(&mut trailers);
    }
    trailers
}

fn details_from_wire(status: &WireStatus) -> Bytes {
    match &status.details[..] {
        [] => Bytes::new(),
        [one] if one.type_url == OPAQUE_DETAILS => one.value.clone(),
        details => {
            let any = |d: &StatusDetail| prost_any(d);
            rpc::Status {
                code: status.code.to_wire(),
                message: status.message.clone(),
                details: details.iter().map(any).collect(),
            }
            .encode_to_vec()
            .into()
        }
    }
}

fn prost_any(detail: &StatusDetail) -> prost_types::Any {
    prost_types::Any {
        type_url: detail.type_url.clone(),
        value: detail.value.to_vec(),
    }
}

/// By convention details are an encoded `google.rpc.Status`; tonic allows any bytes.
fn details_to_wire(bytes: Vec<u8>) -> Vec<StatusDetail> {
    if bytes.is_empty() {
        return Vec::new();
    }
    match rpc::Status::decode(&bytes[..]) {
        Ok(status) if !status.details.is_empty() => status
            .details
            .into_iter()
            .map(|any| StatusDetail {
                type_url: any.type_url,
                value: any.value.into(),
            })
            .collect(),
        _ => vec![StatusDetail {
            type_url: OPAQUE_DETAILS.into(),
            value: bytes.into(),
        }],
    }
}

/// Converts a tonic status to that of a frame, and its metadata.
pub(crate) fn to_wire_status(status: &tonic::Status) -> (Metadata, WireStatus) {
    let trailers = crate::headers::to_wire(status.metadata().as_ref());
    (trailers, to_wire(status))
}

/// Converts a tonic status to that of a frame, without the metadata.
pub(crate) fn to_wire(status: &tonic::Status) -> WireStatus {
    WireStatus {
        code: code_to_wire(status.code()),
        message: status.message().to_owned(),
        details: details_to_wire(status.details().to_vec()),
    }
}

/// Converts a status of the wire to tonic's, with its details.
pub fn tonic_status(status: &WireStatus) -> tonic::Status {
    tonic::Status::with_details(
        code_from_wire(status.code),
        status.message.clone(),
        details_from_wire(status),
    )
}

/// The status in trailers, or in the headers of a response without a body. Unlike tonic's own
/// function it never panics.
pub(crate) fn from_headers(headers: &HeaderMap) -> Option<WireStatus> {
    let code = headers.get(&STATUS_NAME)?;
    let (message, details) = (headers.get(&MESSAGE_NAME), headers.get(&DETAILS_NAME));
    Some(read(code, message, details))
}

/// The metadata in a header map, and the [status](from_headers), if it has one.
pub(crate) fn split_headers(headers: &HeaderMap) -> (Metadata, Option<WireStatus>) {
    let [mut code, mut message, mut details] = [None; 3];
    let md = crate::headers::to_wire_and(headers, |key, value| {
        // The first value counts.
        match key {
            GRPC_STATUS => _ = code.get_or_insert(value),
            GRPC_MESSAGE => _ = message.get_or_insert(value),
            GRPC_DETAILS => _ = details.get_or_insert(value),
            _ => {}
        }
    });
    (md, code.map(|code| read(code, message, details)))
}

fn read(
    code: &HeaderValue,
    message: Option<&HeaderValue>,
    details: Option<&HeaderValue>,
) -> WireStatus {
    let code = code.to_str().ok().and_then(|c| c.parse().ok());
    let message = message.map_or_else(String::new, |m| {
        percent_decode(m.as_bytes())
            .decode_utf8_lossy()
            .into_owned()
    });
    let details = details
        .and_then(|d| BASE64.decode(d.as_bytes()).ok())
        .unwrap_or_default();
    WireStatus {
        code: code.map_or(Code::Unknown, Code::from_wire),
        message,
        details: details_to_wire(details),
    }
}

/// The status of a response that ended without one, by its HTTP status (gRPC's own table).
pub(crate) fn from_http_status(status: http::StatusCode) -> WireStatus {
    let code = match status.as_u16() {
        200 => {
            return WireStatus::new(Code::Unknown, "the response ended without a status");
        }
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    };
    WireStatus::new(code, format!("the response had HTTP status {status}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::{Code as TonicCode, Status};

    fn round_trip(status: Status) -> Status {
        let (trailers, wire) = to_wire_status(&status);
        from_close(CloseStream {
            trailers,
            status: wire,
        })
    }

    #[test]
    fn codes_messages_and_metadata_survive() {
        for code in 0..=16 {
            let mut status = Status::new(TonicCode::from_i32(code), "gründlich\n100%");
            status
                .metadata_mut()
                .insert("k", "v".parse().expect("legal"));
            let back = round_trip(status);
            assert_eq!(back.code() as i32, code);
            assert_eq!(back.message(), "gründlich\n100%");
            assert_eq!(back.metadata().get("k").expect("there"), "v");
        }
    }

    #[test]
    fn details_survive_whether_or_not_they_follow_the_convention() {
        let conventional = rpc::Status {
            code: 5,
            message: "m".into(),
            details: vec![prost_types::Any {
                type_url: "type.googleapis.com/x".into(),
                value: vec![1, 2, 255],
            }],
        }
        .encode_to_vec();
        for details in [conventional, vec![0xff, 0x00, 0x80], b"text".to_vec()] {
            let status =
                Status::with_details(TonicCode::NotFound, "m", Bytes::from(details.clone()));
            assert_eq!(round_trip(status).details(), details);
        }
    }

    #[test]
    fn trailers_are_those_that_tonic_would_write() {
        let messages = [
            "",
            "plain",
            "a b",
            "100%\n",
            "gründlich",
            "\0\x7f\"#<>`?{}~",
            "%41",
        ];
        let opaque = StatusDetail {
            type_url: OPAQUE_DETAILS.into(),
            value: Bytes::from_static(&[0xff, 0x00, 0x80]),
        };
        let any = StatusDetail {
            type_url: "type.googleapis.com/x".into(),
            value: Bytes::from_static(b"value"),
        };
        let details = [
            vec![],
            vec![opaque],
            vec![any.clone()],
            vec![any.clone(), any],
        ];
        let metadata: Metadata = [
            ("k", "1"),
            ("K", "2"),
            ("x-bin", "\u{ff}"),
            (GRPC_STATUS, "16"),
            (GRPC_DETAILS, "!"),
            ("te", "x"),
        ]
        .into_iter()
        .collect();
        for code in -1..=18 {
            for (message, details) in messages
                .iter()
                .flat_map(|m| details.iter().map(move |d| (m, d)))
            {
                for trailers in [Metadata::new(), metadata.clone()] {
                    let mut status = WireStatus::new(Code::from_wire(code), *message);
                    status.details = details.clone();
                    let close = CloseStream { trailers, status };
                    let theirs = to_trailers(&from_close(close.clone()));
                    assert_eq!(close_to_trailers(close, 0, false), theirs);
                }
            }
        }
    }

    #[test]
    fn headers_are_read_in_one_walk_as_they_are_by_their_keys() {
        let mut headers = HeaderMap::new();
        headers.insert("k", HeaderValue::from_static("v"));
        assert_eq!(split_headers(&headers).1, None);
        headers.insert(GRPC_MESSAGE, HeaderValue::from_static("no%20status"));
        assert_eq!(split_headers(&headers).1, None);
        for code in ["9", "0", "x", "-1"] {
            headers.append(GRPC_STATUS, HeaderValue::from_static(code));
            headers.append(GRPC_MESSAGE, HeaderValue::from_static("second"));
            headers.append(GRPC_DETAILS, HeaderValue::from_static("/wCA"));
            let (md, status) = split_headers(&headers);
            assert_eq!(status, from_headers(&headers));
            assert_eq!(status.expect("there").code, Code::FailedPrecondition);
            assert_eq!(md, crate::headers::to_wire(&headers));
            assert_eq!(md.len(), 1);
        }
    }

    #[test]
    fn a_status_in_headers_that_would_make_tonic_panic_is_read() {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_STATUS, "3".parse().expect("legal"));
        headers.insert(GRPC_DETAILS, "!not base64!".parse().expect("legal"));
        headers.insert(GRPC_MESSAGE, "%FF%41".parse().expect("legal"));
        let status = from_headers(&headers).expect("there");
        assert_eq!(status.code, Code::InvalidArgument);
        assert!(status.details.is_empty());
        assert!(status.message.ends_with('A'));
    }

    #[test]
    fn responses_without_a_status_get_the_code_of_their_http_status() {
        assert_eq!(from_headers(&HeaderMap::new()), None);
        let code = |n| from_http_status(http::StatusCode::from_u16(n).expect("valid")).code;
        assert_eq!(code(200), Code::Unknown);
        assert_eq!(code(404), Code::Unimplemented);
        assert_eq!(code(503), Code::Unavailable);
        assert_eq!(code(418), Code::Unknown);
    }
}
