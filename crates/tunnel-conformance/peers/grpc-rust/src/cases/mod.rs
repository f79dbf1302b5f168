//! What a caller tries through a tunnel.

mod battery;
mod ends;
mod kinds;
mod metadata;
mod statuses;

use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use futures::FutureExt;
use futures::future::BoxFuture;
use interop_peer::call;
use tonic::Status;
use tunnel_client::TunnelChannel;

use crate::proto::official::test_service_client::TestServiceClient;

/// One thing to try.
pub(crate) struct Case {
    name: &'static str,
    run: fn(TunnelChannel) -> BoxFuture<'static, Result<()>>,
}

/// Cases by name and function; what else the function takes stands behind it.
macro_rules! cases {
    ($($name:literal: $run:path $(, $argument:expr)*;)*) => {
        &[$(Case {
            name: $name,
            run: |tunnel| $run(tunnel $(, $argument)*).boxed(),
        }),*]
    };
}

use battery::{Kind, Outcome};

/// Every case, in the order in which they run.
pub(crate) const ALL: &[Case] = cases! {
    "empty_unary": kinds::empty_unary;
    "large_unary": kinds::large_unary;
    "client_streaming": kinds::client_streaming;
    "server_streaming": kinds::server_streaming;
    "ping_pong": kinds::ping_pong;
    "empty_stream": kinds::empty_stream;
    "custom_metadata": metadata::custom_metadata;
    "status_code_and_message": statuses::status_code_and_message;
    "special_status_message": statuses::special_status_message;
    "unimplemented_method": statuses::unimplemented_method;
    "unimplemented_service": statuses::unimplemented_service;
    "cancel_after_begin": ends::cancel_after_begin;
    "cancel_after_first_response": ends::cancel_after_first_response;
    "timeout_on_sleeping_server": ends::timeout_on_sleeping_server;
    "soak": ends::soak;
    "battery/unary/success": battery::run, Kind::Unary, Outcome::Success;
    "battery/unary/failure": battery::run, Kind::Unary, Outcome::Failure;
    "battery/unary/timeout": battery::run, Kind::Unary, Outcome::Timeout;
    "battery/unary/canceled": battery::run, Kind::Unary, Outcome::Canceled;
    "battery/client-stream/success": battery::run, Kind::ClientStream, Outcome::Success;
    "battery/client-stream/failure": battery::run, Kind::ClientStream, Outcome::Failure;
    "battery/client-stream/timeout": battery::run, Kind::ClientStream, Outcome::Timeout;
    "battery/client-stream/canceled": battery::run, Kind::ClientStream, Outcome::Canceled;
    "battery/server-stream/success": battery::run, Kind::ServerStream, Outcome::Success;
    "battery/server-stream/failure": battery::run, Kind::ServerStream, Outcome::Failure;
    "battery/server-stream/timeout": battery::run, Kind::ServerStream, Outcome::Timeout;
    "battery/server-stream/canceled": battery::run, Kind::ServerStream, Outcome::Canceled;
    "battery/half-duplex_bidi-stream/success": battery::run, Kind::HalfDuplex, Outcome::Success;
    "battery/half-duplex_bidi-stream/failure": battery::run, Kind::HalfDuplex, Outcome::Failure;
    "battery/half-duplex_bidi-stream/timeout": battery::run, Kind::HalfDuplex, Outcome::Timeout;
    "battery/half-duplex_bidi-stream/canceled": battery::run, Kind::HalfDuplex, Outcome::Canceled;
    "battery/full-duplex_bidi-stream/success": battery::run, Kind::FullDuplex, Outcome::Success;
    "battery/full-duplex_bidi-stream/failure": battery::run, Kind::FullDuplex, Outcome::Failure;
    "battery/full-duplex_bidi-stream/timeout": battery::run, Kind::FullDuplex, Outcome::Timeout;
    "battery/full-duplex_bidi-stream/canceled": battery::run, Kind::FullDuplex, Outcome::Canceled;
};

/// The cases of the channel battery.
pub(crate) fn battery() -> Vec<&'static Case> {
    let battery = |case: &&Case| case.name.starts_with("battery/");
    ALL.iter().filter(battery).collect()
}

impl call::Case for Case {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn run(&self, tunnel: &TunnelChannel, limit: Duration) -> Result<()> {
        tokio::time::timeout(limit, (self.run)(tunnel.clone()))
            .await
            .map_err(|_| anyhow!("timed out after {limit:?}"))?
    }
}

type Client = TestServiceClient<TunnelChannel>;

fn client(tunnel: TunnelChannel) -> Client {
    TestServiceClient::new(tunnel)
}

/// A status on one line; its own text also lists its metadata.
fn described(status: &Status) -> Error {
    anyhow!("{:?}: {}", status.code(), status.message())
}

/// What a call that has to succeed came to.
trait Succeeds<T> {
    fn succeeds(self, what: &'static str) -> Result<T>;
}

impl<T> Succeeds<T> for Result<T, Status> {
    fn succeeds(self, what: &'static str) -> Result<T> {
        self.map_err(|status| described(&status)).context(what)
    }
}

/// Waits until no call is in flight: until the far end, too, is told that one was
/// cancelled. Only the limit of the case ends a wait in vain.
async fn none_in_flight(tunnel: &TunnelChannel) {
    while tunnel.stats().streams > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
