//! Why a tunnel could not be opened.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};
use tunnel_core::{EndReason, Printable, Report, TransportError};

use crate::transport::{behind, transport_error};

/// Why a tunnel could not be opened. The text says what failed; [`Report`] also shows the
/// [sources](std::error::Error::source), in one line.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TunnelError {
    /// The channel failed: the address does not answer, or does not speak HTTP/2.
    Channel(Status),
    /// The response is not from a gRPC server, but from another server or a proxy: its HTTP status.
    NotGrpc(http::StatusCode),
    /// The far end refused the tunnel with a gRPC status.
    Refused(Status),
    /// The far end did not answer in time.
    Timeout(Duration),
    /// The credentials hook failed.
    Credentials(Status),
    /// The tunnel ended before it was ready.
    Ended(EndReason),
}

impl TunnelError {
    /// The name of the variant in labels.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Channel(_) => "unreachable",
            Self::NotGrpc(_) => "not_grpc",
            Self::Refused(_) => "refused",
            Self::Timeout(_) => "timeout",
            Self::Credentials(_) => "credentials",
            Self::Ended(_) => "ended",
        }
    }

    /// The error of the transport, if the tunnel was lost with it.
    pub fn transport_error(&self) -> Option<TransportError> {
        match self {
            Self::Channel(status) => Some(transport_error(status, 0)),
            Self::Ended(reason) => reason.transport_error().cloned(),
            _ => None,
        }
    }
}

impl fmt::Display for TunnelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel(status) if behind(status).is_some() => {
                f.write_str("the channel for the tunnel failed")
            }
            Self::Channel(status) => {
                let message = Printable(status.message());
                write!(f, "the channel for the tunnel failed: {message}")
            }
            Self::NotGrpc(status) => {
                write!(
                    f,
                    "the response is not from a gRPC server: HTTP status {status}"
                )
            }
            Self::Refused(status) => {
                let (code, message) = (status.code(), Printable(status.message()));
                write!(f, "the far end refused the tunnel ({code:?}): {message}")
            }
            Self::Timeout(timeout) => {
                write!(f, "the far end did not open the tunnel within {timeout:?}")
            }
            Self::Credentials(status) => {
                let (code, message) = (status.code(), Printable(status.message()));
                write!(f, "no credentials for the tunnel ({code:?}): {message}")
            }
            Self::Ended(_) => f.write_str("the tunnel ended before it was ready"),
        }
    }
}

impl Error for TunnelError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // Not the status itself, whose text shows its source as programs see it.
            Self::Channel(status) => behind(status),
            Self::Ended(reason) => Some(reason),
            _ => None,
        }
    }
}

/// The status that a call would have failed with. It is never OK.
impl From<TunnelError> for Status {
    fn from(error: TunnelError) -> Self {
        let report = Report(&error).to_string();
        let mut status = match &error {
            TunnelError::Refused(status) | TunnelError::Credentials(status) => {
                if status.code() != Code::Ok {
                    return status.clone();
                }
                Status::unknown(report)
            }
            // As gRPC has it for a call with such a response.
            TunnelError::NotGrpc(status) => {
                let code = crate::status::from_http_status(*status).code;
                Status::new(crate::status::code_from_wire(code), report)
            }
            TunnelError::Timeout(_) => Status::deadline_exceeded(report),
            TunnelError::Channel(_) | TunnelError::Ended(_) => Status::unavailable(report),
        };
        status.set_source(std::sync::Arc::new(error));
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_with_ok_becomes_unknown() {
        for error in [
            TunnelError::Refused(Status::ok("fine")),
            TunnelError::Credentials(Status::ok("fine")),
        ] {
            assert_eq!(Status::from(error).code(), Code::Unknown);
        }
    }

    #[test]
    fn each_error_is_one_sentence_without_control_characters_of_a_peer() {
        let refused = TunnelError::Refused(Status::permission_denied("no\x1b[2J\n"));
        let text = refused.to_string();
        assert_eq!(
            text,
            r"the far end refused the tunnel (PermissionDenied): no\u{1b}[2J\n"
        );
        let mut status = Status::unknown("transport error");
        let source = std::io::Error::other("connection refused");
        status.set_source(std::sync::Arc::new(source));
        let channel = TunnelError::Channel(status);
        assert_eq!(channel.to_string(), "the channel for the tunnel failed");
        let all = "the channel for the tunnel failed: connection refused";
        assert_eq!(Report(&channel).to_string(), all);
        let status = Status::from(channel);
        assert_eq!(status.message(), all);
    }
}
