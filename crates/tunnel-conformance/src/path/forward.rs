//! Forward tunnels over tonic on TCP.

use futures::future::{BoxFuture, FutureExt};
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic::transport::Server;
use tunnel_client::{Config, ForwardChannel, ForwardTunnel, Revisions, endpoint_for_tunnels};
use tunnel_server::{TunnelServiceHandler, server_for_tunnels};

use super::settings::config;
use super::{Host, Offer, Path, TcpServer, TestChannel};

/// Each channel is a forward tunnel on its own connection. The server supports both revisions, and
/// the caller chooses one.
#[derive(Clone, Copy, Debug)]
pub struct ForwardPath {
    revisions: Revisions,
    inline: bool,
    kept_up: bool,
    compressed: bool,
}

impl ForwardPath {
    /// Tunnels with revision one, which has flow control.
    pub const REVISION_ONE: Self = Self {
        revisions: Revisions::OnlyOne,
        inline: false,
        kept_up: false,
        compressed: false,
    };

    /// Tunnels with revision one that poll each handler inline first.
    pub const INLINE: Self = Self {
        inline: true,
        ..Self::REVISION_ONE
    };

    /// Channels that open a new tunnel when theirs is lost.
    pub const KEPT_UP: Self = Self {
        kept_up: true,
        ..Self::REVISION_ONE
    };

    /// Tunnels whose outer stream is compressed: by zstd towards the server, and by gzip from it.
    pub const COMPRESSED: Self = Self {
        compressed: true,
        ..Self::REVISION_ONE
    };

    /// Tunnels with revision zero, which has no flow control.
    pub const REVISION_ZERO: Self = Self {
        revisions: Revisions::OnlyZero,
        inline: false,
        kept_up: false,
        compressed: false,
    };
}

#[derive(Debug)]
struct ForwardHost {
    server: TcpServer,
    client: Config,
    kept_up: bool,
    compressed: bool,
}

impl Path for ForwardPath {
    fn host(&self, offer: Offer) -> BoxFuture<'_, Box<dyn Host>> {
        async move {
            let client = config(&offer, self.revisions);
            let mut handler = TunnelServiceHandler::builder()
                .config(config(&offer, Revisions::ZeroAndOne))
                .poll_handlers_inline(self.inline)
                .add_routes(offer.routes);
            if self.compressed {
                handler = handler.send_compressed(CompressionEncoding::Gzip);
            }
            let handler = handler.build();
            let routes = Routes::new(handler.service());
            let server = TcpServer::start(server_for_tunnels(Server::builder()), routes).await;
            Box::new(ForwardHost {
                server,
                client,
                kept_up: self.kept_up,
                compressed: self.compressed,
            }) as Box<dyn Host>
        }
        .boxed()
    }
}

impl Host for ForwardHost {
    fn connect(&self) -> BoxFuture<'_, TestChannel> {
        async {
            if self.kept_up {
                let kept_up = ForwardChannel::builder(self.server.endpoint());
                let kept_up = kept_up.config(self.client.clone()).connect().await;
                return TestChannel::new(kept_up.expect("the far end accepts a tunnel"));
            }
            let endpoint = endpoint_for_tunnels(self.server.endpoint());
            let channel = endpoint
                .connect()
                .await
                .expect("the far end accepts a connection");
            let mut opening = ForwardTunnel::new(channel).config(self.client.clone());
            if self.compressed {
                opening = opening.send_compressed(CompressionEncoding::Zstd);
            }
            let tunnel = opening.open().await;
            TestChannel::new(tunnel.expect("the far end accepts a tunnel"))
        }
        .boxed()
    }

    fn kill(&self) {
        self.server.kill();
    }
}
