//! Limits that only one end knows.

use futures::future::join_all;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::transport::Server;
use tunnel_client::{Config, ReverseTunnelServer, endpoint_for_tunnels};
use tunnel_conformance::payload::request;
use tunnel_conformance::proto::Script;
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::service::scripted;
use tunnel_conformance::{Probe, TcpServer};
use tunnel_server::{
    AffinityKey, Opening, ReverseChannel, TunnelServiceHandler, server_for_tunnels,
};

use crate::support::{eventually, guarded};

/// The metadata key that names a device.
const KEY: &str = "device";

/// A gateway and the tunnels of one device, which serves a limited number of calls at once.
struct Fleet {
    handler: TunnelServiceHandler,
    probe: Probe,
    _gateway: TcpServer,
}

impl Fleet {
    async fn start(tunnels: usize, limit: usize) -> Self {
        let handler = TunnelServiceHandler::builder()
            .affinity_key(|opening: &Opening| opening.metadata_str(KEY).map(AffinityKey::from))
            .build();
        let routes = Routes::new(handler.service());
        let gateway = TcpServer::start(server_for_tunnels(Server::builder()), routes).await;
        let probe = Probe::default();
        let config = Config::builder().max_concurrent_streams(limit).build();
        let mut metadata = MetadataMap::new();
        metadata.insert(KEY, "one".parse().expect("a legal value"));
        let device = ReverseTunnelServer::builder(endpoint_for_tunnels(gateway.endpoint()))
            .metadata(metadata)
            .tunnels_per_gateway(tunnels)
            .config(config.expect("valid"))
            .add_service(scripted(&probe))
            .build();
        tokio::spawn(device.run());
        let channel = handler.as_channel();
        eventually(|| channel.tunnels().len() == tunnels).await;
        Self {
            handler,
            probe,
            _gateway: gateway,
        }
    }

    /// Makes this many calls at once and holds their handlers until `full` of them run. Panics
    /// unless every call is answered.
    async fn assert_all_answered(&self, channel: ReverseChannel, calls: usize, full: u64) {
        let script = Script::named("gated").wait("gate").echo_all();
        let calls = (0..calls).map(|_| {
            let mut client = TestServiceClient::new(channel.clone());
            let script = script.clone();
            async move { client.unary(script.request(request(1, 20))).await.map(drop) }
        });
        let open = async {
            self.probe
                .until("gated", |gated| gated.started >= full)
                .await;
            self.probe.open("gate");
        };
        let (results, ()) = tokio::join!(join_all(calls), open);
        for result in results {
            result.unwrap_or_else(|status| panic!("{status:?}"));
        }
        assert_eq!(self.handler.kept_calls(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifteen_hundred_calls_at_once_by_key_are_all_answered() {
    guarded(async {
        let fleet = Fleet::start(1, 1024).await;
        let channel = fleet.handler.key_as_channel("one");
        fleet.assert_all_answered(channel, 1_500, 1_024).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_with_a_lower_limit_than_its_gateway_answers_all_calls() {
    guarded(async {
        for tunnels in [1, 2] {
            let fleet = Fleet::start(tunnels, 10).await;
            for channel in [
                fleet.handler.key_as_channel("one"),
                fleet.handler.as_channel(),
            ] {
                fleet.assert_all_answered(channel, 200, 10).await;
            }
        }
    })
    .await;
}
