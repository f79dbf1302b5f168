//! Calls that have to move from their tunnel.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tunnel_conformance::client::run;
use tunnel_conformance::payload::{request, requests};
use tunnel_conformance::proto::{self, Script};
use tunnel_conformance::{Client, Kind, Outcome};
use tunnel_server::{ReverseChannel, TunnelServiceHandler};

use super::by_hand::peer::RawHandler;
use super::by_hand::{self, going_away, refuse};
use super::{NEVER, handler};

/// A gateway whose only device is controlled by the test.
pub(crate) async fn first_by_hand() -> (TunnelServiceHandler, ReverseChannel, RawHandler) {
    let handler = handler(|builder| builder);
    let device = by_hand::device(handler.service(), "device-7").await;
    let channel = handler.key_as_channel("device-7");
    channel.wait_for_ready(NEVER).await.expect("it is ready");
    (handler, channel, device)
}

/// Why a tunnel gives up a call that it has not processed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum How {
    /// The device refuses the call as not processed.
    Refused,
    /// The device sends a drain notice.
    Draining,
    /// The gateway drains the tunnel, and the drain's deadline passes before the call is sent.
    Cut,
    /// The tunnel ends before the call is sent.
    Lost,
    /// The tunnel is kicked before the call is sent.
    Kicked,
}

impl How {
    pub(crate) const ALL: [Self; 5] = [
        Self::Refused,
        Self::Draining,
        Self::Cut,
        Self::Lost,
        Self::Kicked,
    ];

    /// Waits for the call at the device, and makes the tunnel give it up.
    pub(crate) async fn happens(
        self,
        handler: &TunnelServiceHandler,
        mut device: RawHandler,
    ) -> RawHandler {
        let tunnel = || handler.tunnels_of_key("device-7").remove(0);
        match self {
            Self::Refused => {
                let call = device.expect_call().await;
                refuse(&device, call);
            }
            Self::Draining => {
                let call = device.expect_call().await;
                going_away(&device, call - 1);
            }
            // The device does not read the gateway's frames.
            Self::Cut => {
                tunnel().drain(Duration::ZERO).await;
            }
            Self::Lost => device.stop_listening(),
            Self::Kicked => tunnel().close_with(tonic::Status::aborted("kicked")),
        }
        device
    }
}

/// The requests of a whole call of a kind.
pub(crate) fn whole_request(kind: Kind) -> Vec<proto::Request> {
    requests(3, kind.requests(4), 9_000)
}

/// A call of a kind with its whole request at once, whose handler returns what it received.
pub(crate) fn whole_call(client: Client, kind: Kind) -> impl Future<Output = Outcome> {
    let script = Script::named(format!("{kind:?}")).receive_all().summarize();
    async move { run(&client, kind, &script, whole_request(kind)).await }
}

/// The response of a handler that received these.
pub(crate) fn summary(
    requests: impl IntoIterator<Item = proto::Request>,
) -> Option<proto::Received> {
    let mut received = proto::Received::empty();
    requests
        .into_iter()
        .for_each(|request| received.add(&request));
    Some(received)
}

/// Requests that the test sends one by one.
pub(crate) struct Requests(mpsc::UnboundedSender<proto::Request>);

impl Requests {
    pub(crate) fn new() -> (Self, UnboundedReceiverStream<proto::Request>) {
        let (send, requests) = mpsc::unbounded_channel();
        (Self(send), UnboundedReceiverStream::new(requests))
    }

    pub(crate) fn send(&self, seed: u64, size: usize) {
        self.0.send(request(seed, size)).expect("the call goes on");
    }
}

/// Receives messages of a call until this many have begun.
pub(crate) async fn hear_messages(device: &mut RawHandler, count: usize) {
    use tunnel_proto::grpctunnel::v1::client_to_server::Frame;
    let mut heard = 0;
    while heard < count {
        if let Some(Frame::RequestMessage(_)) = device.expect_frame().await.frame {
            heard += 1;
        }
    }
}
