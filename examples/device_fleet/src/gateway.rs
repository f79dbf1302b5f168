//! The gateway: accepts the devices' tunnels, on its own machine.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use example_support::address::Address;
use example_support::listen::Listener;
use example_support::machine::Machine;
use futures::StreamExt;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tracing::error;
use tunnel_server::{AffinityKey, Opening, TunnelServiceHandler, server_for_tunnels};

use crate::device::{DEVICE_ID, TUNNELS};

/// How long the devices may take to connect.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the port of the last gateway may take to become free.
const PORT_PATIENCE: Duration = Duration::from_secs(10);

/// The time that calls in flight have when a gateway shuts down.
const GRACE: Duration = Duration::from_secs(30);

/// A gateway that runs.
#[derive(Debug)]
pub(crate) struct Gateway {
    machine: Machine,
    address: Address,
    desk: Desk,
    stop_listening: oneshot::Sender<()>,
}

/// The part of a gateway that callers use.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    /// Has the channels to the devices.
    pub(crate) handler: TunnelServiceHandler,
    /// Cancelled when the gateway has gone and all that it had sent has arrived.
    pub(crate) gone: CancellationToken,
}

impl Gateway {
    /// Starts a gateway; port 0 means any free port.
    pub(crate) async fn start(address: &Address) -> Result<Self> {
        let machine = Machine::start("gateway")?;
        let wanted = address.clone();
        let listener = machine.run(async move { listen(&wanted).await });
        let listener = listener.await.context("the gateway did not start")??;
        let address = address.with_port(listener.port());

        let handler = TunnelServiceHandler::builder()
            .affinity_key(key_of)
            .max_tunnels_per_key(2 * TUNNELS)
            .build();
        let (stop_listening, stop) = oneshot::channel();
        let server = server_for_tunnels(Server::builder()).add_service(handler.service());
        // `handler.serve` would drain when the listener closes. Here the next gateway must listen on
        // the same port first.
        machine.run(async move {
            let stopped = async {
                // Fails only when the gateway is dropped, which ends this task anyway.
                let _ = stop.await;
            };
            let serving = server.serve_with_incoming_shutdown(listener.incoming(), stopped);
            if let Err(error) = serving.await {
                error!("the gateway failed: {error}");
            }
        });
        Ok(Self {
            machine,
            address,
            desk: Desk {
                handler,
                gone: CancellationToken::new(),
            },
            stop_listening,
        })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn desk(&self) -> &Desk {
        &self.desk
    }

    /// Cuts the power.
    pub(crate) async fn kill(self) -> Result<()> {
        self.machine.cut().await?;
        self.desk.gone.cancel();
        Ok(())
    }

    /// Hands over to another gateway, which is started on the same port before this
    /// one drains. `next` returns when the other takes calls.
    pub(crate) async fn give_way<T>(self, next: impl Future<Output = Result<T>>) -> Result<T> {
        // Open tunnels stay open.
        let _ = self.stop_listening.send(());
        let next = next.await?;
        self.desk.handler.drain(GRACE).await;
        self.machine.cut().await?;
        self.desk.gone.cancel();
        Ok(next)
    }

    /// Waits until all tunnels of these devices take calls. Reports the number of ready
    /// devices repeatedly.
    pub(crate) async fn wait_for(&self, keys: &[String], tell: impl Fn(usize)) -> Result<()> {
        let complete = |key: &&String| {
            let channel = self.desk.handler.key_as_channel(key.as_str());
            channel.tunnels().len() == TUNNELS
        };
        let mut events = self.desk.handler.events();
        let all = async {
            loop {
                let there = keys.iter().filter(complete).count();
                tell(there);
                if there == keys.len() {
                    return;
                }
                events.next().await;
            }
        };
        if timeout(PATIENCE, all).await.is_err() {
            let there = keys.iter().filter(complete).count();
            bail!("only {there} of {} devices have come", keys.len());
        }
        Ok(())
    }
}

/// The key of a device. A real gateway must verify it, by a certificate or a token.
fn key_of(opening: &Opening) -> Option<AffinityKey> {
    opening.metadata_str(DEVICE_ID).map(AffinityKey::from)
}

/// Listens as soon as the last gateway has released the port. A client that dials
/// meanwhile may get the same port as its own for a moment.
async fn listen(address: &Address) -> Result<Listener> {
    let start = Instant::now();
    loop {
        match Listener::bind(address).await {
            Err(_) if address.port() != 0 && start.elapsed() < PORT_PATIENCE => {
                sleep(Duration::from_millis(10)).await;
            }
            result => return result,
        }
    }
}
