//! The outer call that carries a tunnel: its paths, headers and refusals.

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tunnel_core::{
    COMPRESSED_MESSAGES_HEADER, Config, DRAIN_HEADER, ECHO_HEADER, HEARTBEAT_HEADER,
    MAX_STREAMS_HEADER, MESSAGE_CREDIT_HEADER, NEGOTIATE_HEADER, NEGOTIATE_VALUE, NOTICES_HEADER,
    OPAQUE_TEXT_HEADER, Offer, READY_HEADER,
};

use crate::compression::codec;
use crate::headers::{ACCEPT_ENCODING, ENCODING};
use crate::{AffinityKey, TunnelError};

/// The name of the service that tunnels are opened at.
pub const SERVICE_NAME: &str = "grpctunnel.v1.TunnelService";

/// The metadata key with which a refusal says when to try again, in milliseconds.
pub const RETRY_PUSHBACK: &str = "grpc-retry-pushback-ms";

/// The path that opens a forward tunnel.
pub const OPEN_TUNNEL_PATH: &str = "/grpctunnel.v1.TunnelService/OpenTunnel";

/// The path that opens a reverse tunnel.
pub const OPEN_REVERSE_TUNNEL_PATH: &str = "/grpctunnel.v1.TunnelService/OpenReverseTunnel";

/// The response header in which the accepting end says which key it gave the tunnel, percent-encoded.
const KEY_HEADER: HeaderName = HeaderName::from_static("grpctunnel-key");

/// The response headers in which the accepting end says its own name, percent-encoded, and how many such ends there are.
const INSTANCE_HEADER: HeaderName = HeaderName::from_static("grpctunnel-instance");
const INSTANCES_HEADER: HeaderName = HeaderName::from_static("grpctunnel-instances");

/// The response header in which the accepting end says over how many milliseconds the ends that lose their tunnels
/// to it together should spread their return. A [`Notice`](tunnel_core::Notice) renews it.
const RETURN_HEADER: HeaderName = HeaderName::from_static("tunnel-return-ms");

/// The longest key that is told to the other end, encoded. More would not fit the headers of a response.
const LONGEST_KEY: usize = 4096;

/// What is encoded in keys.
const IN_KEYS: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b'/');

/// Puts the key of a tunnel into the headers of the response that accepts it, unless it is very long.
pub fn put_key(key: &AffinityKey, headers: &mut HeaderMap) {
    put_text(KEY_HEADER, key.as_str(), headers);
}

fn put_text(name: HeaderName, text: &str, headers: &mut HeaderMap) {
    let encoded = utf8_percent_encode(text, IN_KEYS).to_string();
    if encoded.len() > LONGEST_KEY {
        return;
    }
    // Cannot fail: the text is ASCII.
    if let Ok(value) = HeaderValue::try_from(encoded) {
        headers.insert(name, value);
    }
}

/// The key of a tunnel, from the headers of the response that accepted it.
pub fn key_of(headers: &HeaderMap) -> Option<AffinityKey> {
    text_of(KEY_HEADER, headers).map(|key| AffinityKey::from(&*key))
}

fn text_of(name: HeaderName, headers: &HeaderMap) -> Option<Arc<str>> {
    let encoded = headers.get(name)?.as_bytes();
    let text = percent_decode(encoded).decode_utf8().ok()?;
    Some((&*text).into())
}

/// Puts the name of the end that accepts a tunnel, and the number of such ends, into the headers of the response.
pub fn put_instance(name: &str, instances: usize, headers: &mut HeaderMap) {
    put_text(INSTANCE_HEADER, name, headers);
    headers.insert(INSTANCES_HEADER, instances.into());
}

/// The name of the end that accepted a tunnel, and the number of such ends, from the headers of its response.
pub fn instance_of(headers: &HeaderMap) -> Option<(Arc<str>, usize)> {
    let name = text_of(INSTANCE_HEADER, headers)?;
    let instances = headers.get(INSTANCES_HEADER)?.to_str().ok()?.parse().ok()?;
    Some((name, instances))
}

/// Puts the spread of the return into the headers of the response that accepts a tunnel.
pub fn put_return_spread(spread: Duration, headers: &mut HeaderMap) {
    let millis = u64::try_from(spread.as_millis()).unwrap_or(u64::MAX);
    headers.insert(RETURN_HEADER, millis.into());
}

/// The spread of the return, from the headers of the response that accepted a tunnel.
pub fn return_spread_of(headers: &HeaderMap) -> Option<Duration> {
    let millis = headers.get(RETURN_HEADER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(millis))
}

/// Puts this end's offer and the content type into the headers of the outer call.
pub fn put_offer(config: &Config, headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let ours = Offer::of(config);
    let mut put = |name: &'static str, value| {
        headers.insert(HeaderName::from_static(name), value);
    };
    for (name, offered) in [
        (NEGOTIATE_HEADER, ours.negotiate),
        (DRAIN_HEADER, ours.drain),
        (NOTICES_HEADER, ours.notices),
        (ECHO_HEADER, ours.echo),
        (MESSAGE_CREDIT_HEADER, ours.message_credit),
        (OPAQUE_TEXT_HEADER, ours.opaque_text),
        (COMPRESSED_MESSAGES_HEADER, ours.compressed_messages),
    ] {
        if offered {
            put(name, HeaderValue::from_static(NEGOTIATE_VALUE));
        }
    }
    if let Some(interval) = ours.heartbeat {
        let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        put(HEARTBEAT_HEADER, millis.into());
    }
    if let Some(max) = ours.max_streams {
        put(MAX_STREAMS_HEADER, max.into());
    }
}

/// Offers that the caller announces when it routes calls. Only for reverse tunnels: the device asks for it, and
/// a gateway agrees if [`Offer::ready`] is set.
pub fn put_ready(headers: &mut HeaderMap) {
    let on = HeaderValue::from_static(NEGOTIATE_VALUE);
    headers.insert(HeaderName::from_static(READY_HEADER), on);
}

/// Returns what both ends offer, from the peer's headers of the outer call.
pub fn common_offer(config: &Config, peer: &HeaderMap) -> Offer {
    let has = |name: &str| peer.get(name).is_some_and(|v| v == NEGOTIATE_VALUE);
    let mut offer = Offer::none();
    offer.opaque_text = has(OPAQUE_TEXT_HEADER);
    offer.compressed_messages = has(COMPRESSED_MESSAGES_HEADER);
    if !Offer::of(config).negotiate {
        return offer;
    }
    let number = |name: &str| peer.get(name)?.to_str().ok()?.parse::<u32>().ok();
    offer.negotiate = has(NEGOTIATE_HEADER);
    offer.drain = has(DRAIN_HEADER);
    offer.notices = has(NOTICES_HEADER);
    offer.echo = has(ECHO_HEADER);
    offer.message_credit = has(MESSAGE_CREDIT_HEADER);
    offer.ready = offer.negotiate && has(READY_HEADER);
    offer.heartbeat = number(HEARTBEAT_HEADER)
        .filter(|&millis| millis > 0)
        .map(|millis| Duration::from_millis(millis.into()));
    offer.max_streams = number(MAX_STREAMS_HEADER).and_then(|max| usize::try_from(max).ok());
    offer
}

/// Puts into the headers of the outer call which encoding this end sends its frames with, and which it
/// accepts: those whose features are enabled.
pub fn put_encodings(send: Option<CompressionEncoding>, headers: &mut HeaderMap) {
    headers.remove(ENCODING);
    headers.remove(ACCEPT_ENCODING);
    if let Some(send) = send
        && let Ok(name) = send.to_string().try_into()
    {
        headers.insert(ENCODING, name);
    }
    if !codec::SUPPORTED.is_empty()
        && let Ok(accepted) = codec::accepted().try_into()
    {
        headers.insert(ACCEPT_ENCODING, accepted);
    }
}

/// Returns the encoding of the peer's frames, from its headers of the outer call.
///
/// # Errors
///
/// UNIMPLEMENTED, as from tonic, if this end does not accept it.
pub fn peer_encoding(peer: &HeaderMap) -> Result<Option<CompressionEncoding>, Status> {
    let Some(name) = peer.get(ENCODING).filter(|name| *name != "identity") else {
        return Ok(None);
    };
    let name = name.to_str().unwrap_or("?");
    if let Some(encoding) = codec::named(name) {
        return Ok(Some(encoding));
    }
    let mut status = Status::unimplemented(format!(
        "the tunnel is compressed with `{name}`, which this end does not accept: enable the feature \
         of that name, or do not set `send_compressed` at the other end"
    ));
    if let Ok(accepted) = codec::accepted().parse() {
        status.metadata_mut().insert(ACCEPT_ENCODING, accepted);
    }
    Err(status)
}

/// The encoding, if the peer accepts it, from its headers of the outer call.
pub fn accepted_encoding(
    encoding: Option<CompressionEncoding>,
    peer: &HeaderMap,
) -> Option<CompressionEncoding> {
    let encoding = encoding?;
    let name = encoding.to_string();
    let lists = peer.get_all(ACCEPT_ENCODING).iter();
    let mut names = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','));
    names
        .any(|accepted| accepted.trim() == name)
        .then_some(encoding)
}

/// Checks an encoding for `send_compressed`.
///
/// # Panics
///
/// If its feature is not enabled in this crate, although it is in tonic.
pub fn check_encoding(encoding: CompressionEncoding) {
    let known = codec::SUPPORTED.contains(&encoding);
    assert!(
        known,
        "send_compressed needs the feature `{encoding}` of the tunnel's crate"
    );
}

/// Whether the content type is that of gRPC, and not of gRPC-Web.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    matches!(rest, Some([] | [b'+' | b';', ..]))
}

/// Checks that an outer response opens a tunnel.
///
/// # Errors
///
/// [`TunnelError::Refused`] if it is only a gRPC status; the status is never OK, and keeps
/// [`RETRY_PUSHBACK`] in its metadata. [`TunnelError::NotGrpc`] if it is not from a gRPC server.
pub fn check_response(head: &http::response::Parts) -> Result<(), TunnelError> {
    if let Some(mut status) = crate::status::from_headers(&head.headers) {
        if status.code == tunnel_core::Code::Ok {
            status.code = tunnel_core::Code::Unknown;
            status.message = "the far end answered without opening a tunnel".to_owned();
        }
        let mut status = crate::status::from_close(tunnel_core::CloseStream {
            trailers: tunnel_core::Metadata::new(),
            status,
        });
        if let Some(pushback) = head.headers.get(RETRY_PUSHBACK)
            && let Ok(pushback) = pushback.as_bytes().try_into()
        {
            status.metadata_mut().insert(RETRY_PUSHBACK, pushback);
        }
        return Err(TunnelError::Refused(status));
    }
    let other_kind = head.headers.contains_key(CONTENT_TYPE) && !is_grpc(&head.headers);
    if head.status != http::StatusCode::OK || other_kind {
        return Err(TunnelError::NotGrpc(head.status));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tunnel_core::Revisions;

    #[test]
    fn an_offer_is_understood_as_it_was_made() {
        let config = Config::default();
        let mut headers = HeaderMap::new();
        assert_eq!(common_offer(&config, &headers), Offer::none());
        put_offer(&config, &mut headers);
        assert_eq!(
            common_offer(&config, &headers),
            Offer::of(&Config::default())
        );
    }

    #[test]
    fn a_key_of_any_text_is_told() {
        let mut headers = HeaderMap::new();
        assert_eq!(key_of(&headers), None);
        for text in ["device-17", "", "ü/ %41,\n\0"] {
            let key = AffinityKey::from(text);
            put_key(&key, &mut headers);
            assert_eq!(key_of(&headers), Some(key));
        }
    }

    #[test]
    fn an_end_names_itself_or_not() {
        let mut headers = HeaderMap::new();
        assert_eq!(instance_of(&headers), None);
        put_instance("Z\u{fc}rich 1", 3, &mut headers);
        assert_eq!(instance_of(&headers), Some(("Z\u{fc}rich 1".into(), 3)));
        for wrong in ["", "-1", "many", "99999999999999999999999"] {
            headers.insert(INSTANCES_HEADER, HeaderValue::from_static(wrong));
            assert_eq!(instance_of(&headers), None, "{wrong}");
        }
    }

    #[test]
    fn a_spread_is_told_in_milliseconds() {
        let mut headers = HeaderMap::new();
        assert_eq!(return_spread_of(&headers), None);
        put_return_spread(Duration::from_secs(20), &mut headers);
        assert_eq!(headers["tunnel-return-ms"], "20000");
        assert_eq!(return_spread_of(&headers), Some(Duration::from_secs(20)));
        headers.insert("tunnel-return-ms", HeaderValue::from_static("soon"));
        assert_eq!(return_spread_of(&headers), None);
    }

    #[test]
    fn a_response_that_is_not_of_a_grpc_server_is_a_refusal() {
        let refused = |status: u16, content_type: Option<&str>| {
            let mut response = http::Response::builder().status(status);
            if let Some(content_type) = content_type {
                response = response.header(CONTENT_TYPE, content_type);
            }
            let (head, ()) = response.body(()).expect("legal").into_parts();
            check_response(&head).err().map(|error| error.to_string())
        };
        assert_eq!(refused(200, Some("application/grpc")), None);
        assert_eq!(refused(200, Some("application/grpc+proto")), None);
        assert_eq!(refused(200, None), None);
        for (status, kind) in [
            (200, Some("text/html")),
            (404, Some("text/html")),
            (503, None),
        ] {
            let error = refused(status, kind).expect("a refusal");
            assert!(error.contains(&format!("HTTP status {status}")), "{error}");
        }
        assert_eq!(refused(200, Some("application/grpc;charset=x")), None);
        assert!(refused(200, Some("application/grpc-web+proto")).is_some());
    }

    #[test]
    fn a_response_that_is_only_ok_is_a_refusal_with_another_code() {
        let response = http::Response::builder().header("grpc-status", "0");
        let (head, ()) = response.body(()).expect("legal").into_parts();
        let Err(TunnelError::Refused(status)) = check_response(&head) else {
            panic!("no tunnel");
        };
        assert_eq!(status.code(), tonic::Code::Unknown);
    }

    #[test]
    fn an_end_that_speaks_revision_zero_alone_negotiates_nothing() {
        let zero = Config::builder()
            .revisions(Revisions::OnlyZero)
            .build()
            .expect("valid");
        let mut nothing = Offer::none();
        nothing.opaque_text = true;
        nothing.compressed_messages = true;
        let mut headers = HeaderMap::new();
        put_offer(&zero, &mut headers);
        assert_eq!(common_offer(&Config::default(), &headers), nothing);
        put_offer(&Config::default(), &mut headers);
        assert_eq!(common_offer(&zero, &headers), nothing);
    }
}
