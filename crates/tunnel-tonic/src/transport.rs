//! The cause of a broken transport, from the errors of h2, hyper, the socket, or the tunnel that carried
//! this one.

use std::error::Error;
use std::io;

use tonic::Status;
use tunnel_core::{EndReason, Report, StreamError, TransportCause, TransportError};

/// After this number of sent bytes a reset looks like a proxy's limit on request bodies: nginx's
/// default, the lowest of common proxies.
const BODY_LIMIT: u64 = 1 << 20;

/// The debug data of a GOAWAY for too many pings, as h2 prints it.
const TOO_MANY_PINGS: &str = "too_many_pings";

/// Tonic's text for every transport error.
const NOTHING: &str = "transport error";

/// The sources of an error, outermost first.
pub(crate) fn sources<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(error.source(), |error| (**error).source())
}

/// Returns why the transport broke, from its status and the number of bytes sent on it.
pub(crate) fn transport_error(status: &Status, sent: u64) -> TransportError {
    if let Some(reason) = sources(status).find_map(ended) {
        return match reason.transport_error() {
            // The transport of the tunnel that carried this one.
            Some(error) => error.clone(),
            None => {
                let detail = Report(reason).to_string();
                TransportError::from(TransportCause::OuterTunnel).with_detail(&detail)
            }
        };
    }
    let cause = sources(status).find_map(|error| cause(error, sent));
    let cause = cause.unwrap_or(TransportCause::Other);
    TransportError::from(cause).with_detail(&detail(status))
}

/// Why an outer tunnel ended, if the error is from one.
fn ended<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a EndReason> {
    error
        .downcast_ref::<EndReason>()
        .or_else(|| error.downcast_ref::<StreamError>()?.tunnel_ended.as_deref())
}

/// The cause, if the error knows it.
fn cause(error: &(dyn Error + 'static), sent: u64) -> Option<TransportCause> {
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        return error
            .is_timeout()
            .then_some(TransportCause::KeepaliveTimedOut);
    }
    if let Some(error) = error.downcast_ref::<h2::Error>() {
        return http2_cause(error, sent);
    }
    error.is::<io::Error>().then_some(TransportCause::Io)
}

fn http2_cause(error: &h2::Error, sent: u64) -> Option<TransportCause> {
    let reason = error.reason();
    if error.is_io() {
        Some(TransportCause::Io)
    } else if error.is_go_away() && reason == Some(h2::Reason::ENHANCE_YOUR_CALM) {
        match error.to_string().contains(TOO_MANY_PINGS) {
            true => Some(TransportCause::TooManyPings),
            false => Some(TransportCause::EnhanceYourCalm),
        }
    } else if error.is_go_away() && error.is_remote() {
        Some(TransportCause::GoAway)
    } else if error.is_reset() {
        // nginx does this when a body is too large and the response has begun: it resets the stream
        // with the first reason, or writes an answer inside the response, which is the second.
        let limits = [h2::Reason::INTERNAL_ERROR, h2::Reason::PROTOCOL_ERROR];
        match reason.is_some_and(|r| limits.contains(&r)) && sent >= BODY_LIMIT {
            true => Some(TransportCause::BodyLimit),
            false => Some(TransportCause::Reset),
        }
    } else {
        None
    }
}

/// The first source of a status with a text of its own.
pub(crate) fn behind(status: &Status) -> Option<&(dyn Error + 'static)> {
    sources(status).find(|error| error.to_string() != NOTHING)
}

/// The texts of a status and its sources, without empty phrases.
pub(crate) fn detail(status: &Status) -> String {
    match (behind(status), status.code()) {
        (Some(error), _) => Report(error).to_string(),
        // The code of a broken connection.
        (None, tonic::Code::Unknown) => status.message().to_owned(),
        (None, code) => format!("{code:?}: {}", status.message()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tunnel_core::ConnectionError;

    fn behind(error: impl Error + Send + Sync + 'static) -> Status {
        let mut status = Status::unknown(NOTHING);
        status.set_source(Arc::new(error));
        status
    }

    fn reset(reason: h2::Reason) -> Status {
        behind(h2::Error::from(reason))
    }

    #[test]
    fn an_error_of_the_socket_is_its_cause_and_its_text_the_detail() {
        let broken = io::Error::new(io::ErrorKind::BrokenPipe, "gone\x1b[31m");
        let error = transport_error(&behind(broken), 0);
        assert_eq!(error.cause(), TransportCause::Io);
        let detail = error.source().expect("a detail").to_string();
        assert_eq!(detail, r"gone\u{1b}[31m");
    }

    #[test]
    fn an_unknown_error_keeps_its_text() {
        let error = transport_error(&Status::unavailable("why not"), 0);
        assert_eq!(error.cause(), TransportCause::Other);
        let report = Report(&error).to_string();
        assert_eq!(report, "the transport failed: Unavailable: why not");
        let silent = transport_error(&reset(h2::Reason::INTERNAL_ERROR), 0);
        assert_eq!(silent.cause(), TransportCause::Other);
    }

    #[test]
    fn the_end_of_a_nested_tunnel_has_the_same_cause_at_any_depth() {
        let io = TransportError::from(TransportCause::Io).with_detail("broken pipe");
        let mut reason = EndReason::Error(ConnectionError::TransportLost(io.clone()));
        for _ in 0..3 {
            let error = transport_error(&behind(reason), 0);
            assert_eq!(error, io);
            reason = EndReason::Error(ConnectionError::TransportLost(error));
        }
        let closed = transport_error(&behind(EndReason::PeerClosed), 0);
        assert_eq!(closed.cause(), TransportCause::OuterTunnel);
        let again = EndReason::Error(ConnectionError::TransportLost(closed.clone()));
        assert_eq!(transport_error(&behind(again), 0), closed);
    }
}
