//! Support for the tests of the gateway.

pub(crate) mod by_hand;
pub(crate) mod device;
pub(crate) mod moving;

use tonic::Code;
use tonic::service::Routes;
use tonic::transport::{Channel, Server};
use tunnel_conformance::client::run;
use tunnel_conformance::payload::{assert_pattern, request};
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::proto::{Request, Script};
pub(crate) use tunnel_conformance::testing::{NEVER, eventually, guarded};
use tunnel_conformance::{Client, Kind, Outcome, Probe, TcpServer, TestChannel};
use tunnel_server::{
    AcceptedTunnel, AffinityKey, Opening, ReverseChannel, ServedBy, TunnelServiceHandler,
    TunnelServiceHandlerBuilder, server_for_tunnels,
};

use device::{Device, Dial};

/// The metadata key with a device's name.
pub(crate) const DEVICE: &str = "device";

/// A gateway on a runtime of its own. The key of a tunnel is the name of its device.
pub(crate) struct Gateway {
    pub(crate) handler: TunnelServiceHandler,
    pub(crate) server: TcpServer,
}

/// The key that a device gives itself.
pub(crate) fn by_name(opening: &Opening) -> Option<AffinityKey> {
    opening.metadata_str(DEVICE).map(AffinityKey::from)
}

/// A handler with these settings, which finds devices by name.
pub(crate) fn handler(
    settings: impl FnOnce(TunnelServiceHandlerBuilder) -> TunnelServiceHandlerBuilder,
) -> TunnelServiceHandler {
    settings(TunnelServiceHandler::builder().affinity_key(by_name)).build()
}

impl Gateway {
    pub(crate) async fn start() -> Self {
        Self::start_with(|builder| builder).await
    }

    /// Starts a gateway with further settings.
    pub(crate) async fn start_with(
        settings: impl FnOnce(TunnelServiceHandlerBuilder) -> TunnelServiceHandlerBuilder,
    ) -> Self {
        Self::serve(handler(settings)).await
    }

    /// Starts a gateway with an existing handler.
    pub(crate) async fn serve(handler: TunnelServiceHandler) -> Self {
        let routes = Routes::new(handler.service());
        let server = TcpServer::start(server_for_tunnels(Server::builder()), routes).await;
        Self { handler, server }
    }

    /// A new connection to it.
    pub(crate) async fn connect(&self) -> Channel {
        self.server.channel().await
    }

    /// A device with this name on a connection of its own. Returns when it can be called.
    pub(crate) async fn device(&self, name: &str) -> Device {
        let dial = Dial::new(&Probe::default()).named(name);
        let device = dial.dial(self.connect().await).await;
        let device = device.expect("the gateway accepts a device");
        ready(&self.handler, &device).await;
        device
    }
}

/// A device with this name, without a network. Returns when it can be called.
pub(crate) async fn local_device(handler: &TunnelServiceHandler, name: &str) -> Device {
    let dial = Dial::new(&Probe::default()).named(name);
    let device = dial.dial(handler.service()).await;
    let device = device.expect("the gateway accepts a device");
    ready(handler, &device).await;
    device
}

/// Waits until a device can be called, and returns its tunnel.
pub(crate) async fn ready(handler: &TunnelServiceHandler, device: &Device) -> AcceptedTunnel {
    let find = || {
        let mut tunnels = handler.as_channel().tunnels().into_iter();
        tunnels.find(|tunnel| device.is(tunnel.info()))
    };
    eventually(|| find().is_some()).await;
    find().expect("the tunnel stays open")
}

/// Waits until exactly this many reverse tunnels can be called.
pub(crate) async fn callable(handler: &TunnelServiceHandler, count: usize) {
    eventually(|| handler.all_reverse_tunnels().len() == count).await;
}

/// Waits until no tunnel is listed any more.
pub(crate) async fn no_tunnels(handler: &TunnelServiceHandler) {
    eventually(|| handler.tunnels().is_empty()).await;
}

/// A client whose calls go to reverse tunnels.
pub(crate) fn client(channel: &ReverseChannel) -> Client {
    TestServiceClient::new(TestChannel::new(channel.clone()))
}

/// One request, for calls of any kind.
pub(crate) fn one_request() -> Vec<Request> {
    vec![request(1, 10)]
}

/// One request as a stream.
pub(crate) fn one() -> futures::stream::Iter<std::vec::IntoIter<Request>> {
    futures::stream::iter(one_request())
}

/// A unary call with this name that ends when its request does.
pub(crate) async fn a_call(channel: &ReverseChannel, name: &str) -> Outcome {
    let script = Script::named(name).receive_all().send(1, 10, 1);
    run(&client(channel), Kind::Unary, &script, one_request()).await
}

/// Checks that a call succeeds.
pub(crate) async fn assert_usable(channel: &ReverseChannel) {
    let script = Script::named("still usable?").echo_all();
    let sent = vec![request(7, 1000)];
    let outcome = run(&client(channel), Kind::Unary, &script, sent).await;
    assert_pattern(&outcome.expect_success()[0].payload, 7, 1000);
}

/// Checks that a call fails because there is no tunnel; returns its message.
pub(crate) async fn assert_no_tunnel(channel: &ReverseChannel) -> String {
    let outcome = a_call(channel, "nobody is there").await;
    outcome
        .expect_failure(Code::Unavailable)
        .message()
        .to_owned()
}

/// The device that served a call, from its response.
pub(crate) async fn served(channel: &ReverseChannel, name: &str) -> ServedBy {
    let script = Script::named(name).receive_all().send(1, 10, 1);
    let mut client = TestServiceClient::new(channel.clone());
    let response = client.unary(script.request(request(1, 10))).await;
    let response = response.expect("the call succeeds");
    let served = response.extensions().get::<ServedBy>();
    served.expect("a response names its tunnel").clone()
}
