//! The outer call: what a tunnel looks like to the connection that carries it.

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tunnel_core::{Config, DRAIN_HEADER, NEGOTIATE_HEADER, NEGOTIATE_VALUE, Offer, Revisions};

/// The name of the service that tunnels are opened at.
pub const SERVICE_NAME: &str = "grpctunnel.v1.TunnelService";

/// The path that opens a forward tunnel.
pub const OPEN_TUNNEL_PATH: &str = "/grpctunnel.v1.TunnelService/OpenTunnel";

/// The path that opens a reverse tunnel.
pub const OPEN_REVERSE_TUNNEL_PATH: &str = "/grpctunnel.v1.TunnelService/OpenReverseTunnel";

/// What this end offers. One that speaks revision zero alone has nothing to negotiate.
fn offers(config: &Config) -> bool {
    config.revisions() != Revisions::OnlyZero
}

/// Puts this end's offer and the content type into the headers of the outer call.
pub fn put_offer(config: &Config, headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if offers(config) {
        let on = HeaderValue::from_static(NEGOTIATE_VALUE);
        headers.insert(HeaderName::from_static(NEGOTIATE_HEADER), on.clone());
        headers.insert(HeaderName::from_static(DRAIN_HEADER), on);
    }
}

/// What both ends offer, from the peer's headers of the outer call.
pub fn common_offer(config: &Config, peer: &HeaderMap) -> Offer {
    let has = |name: &str| offers(config) && peer.get(name).is_some_and(|v| v == NEGOTIATE_VALUE);
    Offer {
        negotiate: has(NEGOTIATE_HEADER),
        drain: has(DRAIN_HEADER),
    }
}

/// The status of an outer response that opens no tunnel: one that is nothing but a status, or
/// none of a gRPC server.
pub fn refusal(head: &http::response::Parts) -> Option<tonic::Status> {
    let wire = match crate::status::from_headers(&head.headers) {
        Some(status) => status,
        None if head.status != http::StatusCode::OK => crate::status::from_http_status(head.status),
        None => {
            let kind = head.headers.get(CONTENT_TYPE)?;
            if kind.as_bytes().starts_with(b"application/grpc") {
                return None;
            }
            let message = format!("not a gRPC response: its content type is {kind:?}");
            tunnel_core::Status::new(tunnel_core::Code::Unknown, message)
        }
    };
    Some(crate::status::from_close(tunnel_core::CloseStream {
        trailers: tunnel_core::Metadata::new(),
        status: wire,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_understood_as_it_was_made() {
        let config = Config::default();
        let mut headers = HeaderMap::new();
        assert_eq!(common_offer(&config, &headers), Offer::default());
        put_offer(&config, &mut headers);
        assert_eq!(common_offer(&config, &headers), Offer::ours());
    }

    #[test]
    fn a_response_that_is_not_of_a_grpc_server_is_a_refusal() {
        let refused = |status: u16, content_type: Option<&str>| {
            let mut response = http::Response::builder().status(status);
            if let Some(content_type) = content_type {
                response = response.header(CONTENT_TYPE, content_type);
            }
            let (head, ()) = response.body(()).expect("legal").into_parts();
            refusal(&head).map(|status| status.code())
        };
        assert_eq!(refused(200, Some("application/grpc")), None);
        assert_eq!(refused(200, Some("application/grpc+proto")), None);
        assert_eq!(refused(200, None), None);
        let html = Some("text/html");
        assert_eq!(refused(200, html), Some(tonic::Code::Unknown));
        assert_eq!(refused(404, html), Some(tonic::Code::Unimplemented));
        assert_eq!(refused(503, None), Some(tonic::Code::Unavailable));
    }

    #[test]
    fn an_end_that_speaks_revision_zero_alone_offers_nothing() {
        let zero = Config::builder()
            .revisions(Revisions::OnlyZero)
            .build()
            .expect("valid");
        let mut headers = HeaderMap::new();
        put_offer(&zero, &mut headers);
        assert_eq!(common_offer(&Config::default(), &headers), Offer::default());
        put_offer(&Config::default(), &mut headers);
        assert_eq!(common_offer(&zero, &headers), Offer::default());
    }
}
