//! The gateway: accepts the tunnels of the devices, on a machine of its own.

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

/// How long the devices may take to come (back).
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the port of the last gateway may take to become free.
const PORT_PATIENCE: Duration = Duration::from_secs(10);

/// How long calls in flight may take when a gateway is to end in order.
const GRACE: Duration = Duration::from_secs(30);

/// A gateway that runs.
#[derive(Debug)]
pub(crate) struct Gateway {
    machine: Machine,
    address: Address,
    desk: Desk,
    stop_listening: oneshot::Sender<()>,
}

/// A gateway as those know it who make calls there.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    /// Where there are channels to the devices.
    pub(crate) handler: TunnelServiceHandler,
    /// Cancelled when the gateway has gone, with everything that it had sent.
    pub(crate) gone: CancellationToken,
}

impl Gateway {
    /// Starts a gateway; port 0 is any that is free.
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
        // Not by `handler.serve`, whose drain begins when the listener closes: here the next gateway
        // has to listen on the same port first.
        machine.run(async move {
            let stopped = async {
                // Fails only when the gateway is dropped, which ends this anyway.
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

    /// Gives way to another gateway, which is started on the same port before this
    /// one ends in order: `next` returns when that takes calls.
    pub(crate) async fn give_way<T>(self, next: impl Future<Output = Result<T>>) -> Result<T> {
        // The tunnels that are open live on.
        let _ = self.stop_listening.send(());
        let next = next.await?;
        self.desk.handler.drain(GRACE).await;
        self.machine.cut().await?;
        self.desk.gone.cancel();
        Ok(next)
    }

    /// Waits until all tunnels of these devices take calls, and tells, again and again,
    /// of how many devices that is true.
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

/// The name by which a device is called. One that could choose it freely would have
/// to prove it: by a certificate, or a token that is checked.
fn key_of(opening: &Opening) -> Option<AffinityKey> {
    opening.metadata_str(DEVICE_ID).map(AffinityKey::from)
}

/// Listens as soon as the last gateway has let go of the port. Clients that dial in
/// the meantime may be given that very port, too, for a moment.
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
