//! The handler: answers every message of a call with an echo.

use bytes::Bytes;
use tunnel_core::{Code, EndReason, Status};

use crate::{CallError, IncomingCall, Tunnel};

/// The only method. A call may have any number of messages.
pub(crate) const METHOD: &str = "/example.Echo/Echo";

/// The prefix of an answer.
pub(crate) const PREFIX: &[u8] = b"Echo: ";

/// Serves calls until the tunnel ends.
pub(crate) async fn serve(tunnel: Tunnel) -> EndReason {
    while let Some(call) = tunnel.accept().await {
        // A failure ends this call only, and its caller gets the status.
        tokio::spawn(serve_call(call));
    }
    tunnel.closed().await
}

async fn serve_call(incoming: IncomingCall) -> Result<(), CallError> {
    let IncomingCall { method, call, .. } = incoming;
    let (mut tx, mut rx) = (call.tx, call.rx);
    if method != METHOD {
        let message = format!("there is no {method} here");
        return tx.close(Status::new(Code::Unimplemented, message));
    }
    while let Some(message) = rx.receive().await? {
        tx.send(answer_to(&message)).await?;
    }
    tx.close(Status::OK)
}

/// The answer to a message.
pub(crate) fn answer_to(message: &[u8]) -> Bytes {
    [PREFIX, message].concat().into()
}
