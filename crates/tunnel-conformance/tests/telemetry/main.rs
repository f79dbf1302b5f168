//! What operators see of tunnels: log lines, spans and metrics.
//!
//! Each test runs both ends on its own thread, with its own subscriber and recorder, which it installs before
//! it opens a tunnel.

mod logs;
mod metrics;
mod record;
mod spans;

use tunnel_client::{ForwardTunnel, TunnelChannel};
use tunnel_conformance::client::unlimited;
use tunnel_conformance::service::scripted;
use tunnel_conformance::{Client, Probe, TestChannel};
use tunnel_server::{AffinityKey, TunnelServiceHandler, TunnelServiceHandlerBuilder};

/// Both ends of a forward tunnel, without a socket.
pub(crate) struct Ends {
    pub(crate) handler: TunnelServiceHandler,
    pub(crate) tunnel: TunnelChannel,
    pub(crate) client: Client,
    pub(crate) probe: Probe,
}

/// A handler of scripted calls whose tunnels have the key "k".
pub(crate) fn builder(probe: &Probe) -> TunnelServiceHandlerBuilder {
    TunnelServiceHandler::builder()
        .add_service(scripted(probe))
        .affinity_key(|_| Some(AffinityKey::from("k")))
}

impl Ends {
    pub(crate) async fn open() -> Self {
        let probe = Probe::default();
        let handler = builder(&probe).build();
        Self::over(handler, probe).await
    }

    pub(crate) async fn over(handler: TunnelServiceHandler, probe: Probe) -> Self {
        let tunnel = ForwardTunnel::new(handler.service()).open().await;
        let tunnel = tunnel.expect("accepted");
        Self {
            client: unlimited(TestChannel::new(tunnel.clone())),
            handler,
            tunnel,
            probe,
        }
    }
}
