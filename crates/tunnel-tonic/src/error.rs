//! Why a tunnel could not be opened.

use std::time::Duration;

use tonic::Status;
use tunnel_core::EndReason;

/// Why a tunnel could not be opened. The text names the cause down to its root, so there is no
/// [`source`](std::error::Error::source) to print beside it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// The channel to open it over is not usable: nobody answers at its address, or what answers
    /// does not speak HTTP/2.
    #[error("the channel for the tunnel failed: {}", root_message(.0))]
    Channel(Status),
    /// What answered is no gRPC server, or a proxy on the way to one: the HTTP status of a response
    /// without a gRPC status.
    #[error("the answer is not one of a gRPC server: HTTP status {0}")]
    NotGrpc(http::StatusCode),
    /// The far end refused it, with a gRPC status.
    #[error("the far end refused the tunnel ({:?}): {}", .0.code(), .0.message())]
    Refused(Status),
    /// The far end did not answer in time.
    #[error("the far end did not open the tunnel within {0:?}")]
    Timeout(Duration),
    /// The credentials to open it with could not be had.
    #[error("no credentials for the tunnel ({:?}): {}", .0.code(), .0.message())]
    Credentials(Status),
    /// It ended before it was ready.
    #[error("the tunnel ended before it was ready: {0}")]
    Ended(EndReason),
}

/// The message of a status with those of the errors behind it: transports say what happened
/// only there.
pub(crate) fn root_message(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let more = error.to_string();
        // tonic's word for anything that a transport says.
        const NOTHING: &str = "transport error";
        if text.is_empty() || text == NOTHING {
            text = more;
        } else if more != NOTHING && !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

impl From<TunnelError> for Status {
    fn from(error: TunnelError) -> Self {
        match &error {
            TunnelError::Refused(status) | TunnelError::Credentials(status) => status.clone(),
            // As gRPC has it for a call with such a response.
            TunnelError::NotGrpc(status) => {
                let code = crate::status::from_http_status(*status).code;
                Status::new(crate::status::code_from_wire(code), error.to_string())
            }
            TunnelError::Timeout(_) => Status::deadline_exceeded(error.to_string()),
            TunnelError::Channel(_) | TunnelError::Ended(_) => {
                Status::unavailable(error.to_string())
            }
        }
    }
}
