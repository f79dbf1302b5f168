//! The suite over client, gateway, agent and server.

use futures::future::{BoxFuture, FutureExt as _};
use tonic::transport::Server;
use tunnel_conformance::{Host, Offer, Path, TcpServer, TestChannel};
use tunnel_process::Process;

use crate::programs::Gateway;

/// Plain tonic to a gateway, and plain tonic from an agent to its server.
#[derive(Clone, Copy, Debug)]
struct ProgramPath;

struct ProgramHost {
    gateway: Gateway,
    _agent: Process,
    _server: TcpServer,
}

impl Path for ProgramPath {
    fn host(&self, offer: Offer) -> BoxFuture<'_, Box<dyn Host>> {
        async {
            let server = TcpServer::start(Server::builder(), offer.routes).await;
            let gateway = Gateway::start(&[]).await;
            let agent = gateway.agent("device", &server.address().to_string()).await;
            Box::new(ProgramHost {
                gateway,
                _agent: agent,
                _server: server,
            }) as Box<dyn Host>
        }
        .boxed()
    }
}

impl Host for ProgramHost {
    fn connect(&self) -> BoxFuture<'_, TestChannel> {
        async { TestChannel::new(self.gateway.channel_of("device")) }.boxed()
    }
}

tunnel_conformance::suite! {
    mod through_the_program = ProgramPath;
    lacks {
        deadlines: "n/a: the deadline of plain tonic at the client stops at the headers and ends as CANCELLED",
        panics: "n/a: hyper resets the stream of a handler that panics: CANCELLED",
        loss: "n/a: a server behind an agent is not the far end that could die alone",
        isolation: "n/a: all streams share HTTP/2's connection window, and unread ones use it up",
        cut_uploads: "n/a: tonic reads a reset request stream as a clean end, here at the server",
        detached: "n/a: tonic reads a reset request stream as a clean end, here at the server",
        responses_alone: "n/a: the stream of the client stays open for the requests",
    }
}
