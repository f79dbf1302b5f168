//! What a caller tries through a tunnel.

mod caller;
mod cancellation;
mod concurrency;
mod echo;
mod expect;
mod failures;
mod kinds;
mod metadata;
mod sizes;

use std::time::Duration;

use anyhow::{Result, anyhow};
use futures::future::BoxFuture;
use interop_peer::call;
use tunnel_client::TunnelChannel;

use caller::Caller;

/// One thing to try.
pub(crate) struct Case {
    name: &'static str,
    run: for<'a> fn(&'a Caller) -> BoxFuture<'a, Result<()>>,
}

macro_rules! cases {
    ($($name:literal: $function:path,)*) => {
        &[$(Case { name: $name, run: |caller| Box::pin($function(caller)) }),*]
    };
}

/// Every case, in the order in which they run.
pub(crate) const ALL: &[Case] = cases! {
    "unary": kinds::unary,
    "unary-empty-message": kinds::unary_empty_message,
    "unary-large": sizes::unary_large,
    "server-stream": kinds::server_stream,
    "server-stream-large": sizes::server_stream_large,
    "client-stream": kinds::client_stream,
    "client-stream-large": sizes::client_stream_large,
    "bidi-ping-pong": kinds::bidi_ping_pong,
    "bidi-half-close": kinds::bidi_half_close,
    "empty-stream": kinds::empty_stream,
    "stream-empty-messages": kinds::stream_empty_messages,
    "headers-and-trailers": metadata::headers_and_trailers,
    "metadata-text": metadata::metadata_text,
    "metadata-bin": metadata::metadata_bin,
    "metadata-bin-response": metadata::metadata_bin_response,
    "metadata-bin-ascii": metadata::metadata_bin_ascii,
    "failure-code": failures::failure_code,
    "failure-details": failures::failure_details,
    "failure-after-headers": failures::failure_after_headers,
    "failure-after-messages": failures::failure_after_messages,
    "failure-during-upload": failures::failure_during_upload,
    "unimplemented-method": failures::unimplemented_method,
    "unimplemented-service": failures::unimplemented_service,
    "unicode-status-message": failures::unicode_status_message,
    "concurrent-calls": concurrency::concurrent_calls,
    "slow-reader": concurrency::slow_reader,
    "many-calls-in-a-row": concurrency::many_calls_in_a_row,
    "cancel-unary": cancellation::cancel_unary,
    "cancel-server-stream": cancellation::cancel_server_stream,
    "cancel-bidi": cancellation::cancel_bidi,
    "deadline": cancellation::deadline,
    "deadline-travels": cancellation::deadline_travels,
    "echo": echo::echo,
    "echo-error": echo::echo_error,
};

impl call::Case for Case {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn run(&self, tunnel: &TunnelChannel, limit: Duration) -> Result<()> {
        let caller = Caller::new(self.name, tunnel.clone());
        match tokio::time::timeout(limit, (self.run)(&caller)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(anyhow!("timed out after {limit:?}: {}", caller.doing())),
        }
    }
}
