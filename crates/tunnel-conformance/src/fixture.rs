//! A service under test behind a path, and a client in front of it.

use std::fmt;

use tonic::service::Routes;

use crate::proto::test_service_client::TestServiceClient;
use crate::service::scripted;
use crate::{Client, Host, Offer, Path, Probe, TestChannel};

/// A started server with a client: the start of every case.
pub struct Fixture {
    /// Observes the handlers.
    pub probe: Probe,
    /// A channel over the path.
    pub channel: TestChannel,
    /// A client on that channel.
    pub client: Client,
    host: Box<dyn Host>,
}

impl Fixture {
    /// Starts a server with the scripted service, and connects one channel to it.
    pub async fn start(path: &dyn Path) -> Self {
        Self::start_with(path, |probe| Offer::new(Routes::new(scripted(probe)))).await
    }

    /// Starts a server with another offer, and connects one channel to it.
    pub async fn start_with(path: &dyn Path, offer: impl FnOnce(&Probe) -> Offer) -> Self {
        let probe = Probe::default();
        let host = path.host(offer(&probe)).await;
        let channel = host.connect().await;
        let client = TestServiceClient::new(channel.clone());
        Self {
            probe,
            channel,
            client,
            host,
        }
    }

    /// A client on another channel to the same server.
    pub async fn another_client(&self) -> Client {
        TestServiceClient::new(self.host.connect().await)
    }

    /// Kills the server, as a crash does.
    pub fn kill_far_end(&self) {
        self.host.kill();
    }
}

impl fmt::Debug for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixture")
            .field("probe", &self.probe)
            .finish_non_exhaustive()
    }
}
