//! Which requests browsers may make: those of the page itself.
//!
//! Any page in a browser can send requests to loopback, and can have a name that resolves to it. Without admin tokens
//! only these checks stand between such a page and the gateway.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// The headers of all responses of the page.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// What a browser says about the page that makes a request.
const SITE: &str = "sec-fetch-site";

/// How requests are checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Whether the page needs no login.
    pub(super) open: bool,
    /// Where the listener is bound.
    pub(super) address: SocketAddr,
}

impl Rules {
    /// Why a request is refused, if it is.
    fn refusal(&self, request: &Request) -> Option<&'static str> {
        let Some(authority) = authority(request) else {
            return Some("the request names no host");
        };
        if self.open && !self.is_here(&authority) {
            return Some(
                "the host is not this machine: use its address, or protect the page with --admin-tokens",
            );
        }
        let is_safe = matches!(*request.method(), Method::GET | Method::HEAD);
        match comes_from_page(request.headers(), &authority, is_safe) {
            true => None,
            false => Some("the request comes from another page"),
        }
    }

    /// Whether an authority means this machine. Other names may resolve to it only for an attack (DNS rebinding). The
    /// port may be another: that of a forwarding.
    fn is_here(&self, authority: &Authority) -> bool {
        let host = authority.host().trim_matches(['[', ']']);
        match host.parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback() || ip == self.address.ip(),
            Err(_) => {
                let host = host.to_ascii_lowercase();
                host == "localhost" || host.ends_with(".localhost")
            }
        }
    }
}

/// The host that a request names: in HTTP/2 by its target.
fn authority(request: &Request) -> Option<Authority> {
    let of_target = request.uri().authority().cloned();
    of_target.or_else(|| {
        let host = request.headers().get(header::HOST)?;
        Authority::try_from(host.as_bytes()).ok()
    })
}

/// Whether a request comes from the page or from a program, but not from another page.
fn comes_from_page(headers: &HeaderMap, authority: &Authority, is_safe: bool) -> bool {
    let site = headers.get(SITE).map(HeaderValue::as_bytes);
    if !is_safe && site.is_some_and(|site| site != b"same-origin") {
        return false;
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    // The login form has no origin because of the referrer policy, but the browser says that it is of this site.
    if origin == "null" {
        return site == Some(b"same-origin");
    }
    let origin = origin.to_str().ok().and_then(|o| o.split_once("://"));
    origin.is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(authority.as_str()))
}

/// Refuses what another page asks for, and protects the responses.
pub(super) async fn protect(State(rules): State<Rules>, request: Request, next: Next) -> Response {
    let mut response = match rules.refusal(&request) {
        Some(refusal) => (StatusCode::FORBIDDEN, refusal).into_response(),
        None => next.run(request).await,
    };
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Keeps browsers from the gRPC API: without tokens any page could call it over HTTP/1, which gRPC does not use.
pub(super) async fn only_grpc(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let is_of_browser = headers.contains_key(header::ORIGIN) || headers.contains_key(SITE);
    match is_of_browser || request.version() != Version::HTTP_2 {
        true => (
            StatusCode::FORBIDDEN,
            "the admin API takes gRPC over HTTP/2, from programs alone",
        )
            .into_response(),
        false => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn refused(open: bool, method: Method, headers: &[(&str, &str)]) -> bool {
        let mut request = axum::http::Request::builder().method(method).uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let address = "192.0.2.7:7002".parse().expect("an address");
        let request = request.body(Body::empty()).expect("legal");
        Rules { open, address }.refusal(&request).is_some()
    }

    #[test]
    fn an_open_page_answers_to_names_of_this_machine_alone() {
        for host in [
            "127.0.0.1:7002",
            "localhost:9000",
            "x.LOCALHOST",
            "[::1]:7002",
            "192.0.2.7",
        ] {
            assert!(!refused(true, Method::GET, &[("host", host)]), "{host}");
        }
        for host in ["evil.example:7002", "localhost.evil.example", "192.0.2.8"] {
            assert!(refused(true, Method::GET, &[("host", host)]), "{host}");
            assert!(!refused(false, Method::GET, &[("host", host)]), "{host}");
        }
        assert!(refused(true, Method::GET, &[]));
    }

    #[test]
    fn only_the_page_itself_may_change_something() {
        let host = ("host", "localhost:7002");
        let post = |headers: &[(&str, &str)]| refused(false, Method::POST, headers);
        assert!(!post(&[host]));
        assert!(!post(&[host, ("origin", "http://localhost:7002")]));
        assert!(!post(&[host, ("origin", "null"), (SITE, "same-origin")]));
        assert!(post(&[host, ("origin", "null")]));
        assert!(post(&[host, ("origin", "http://localhost:7003")]));
        assert!(post(&[host, ("origin", "https://evil.example")]));
        assert!(post(&[host, (SITE, "same-site")]));
        assert!(post(&[host, (SITE, "cross-site")]));
    }
}
