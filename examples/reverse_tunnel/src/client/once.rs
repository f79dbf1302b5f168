//! One tunnel, until it ends.

use std::future::{Future, poll_fn};
use std::pin::pin;

use anyhow::{Error, Result, anyhow, bail};
use example_support::address::Address;
use example_support::exit::root_cause;
use tracing::info;
use tunnel_client::{EndReason, Report, ReverseTunnelServer, TunnelError};

use crate::teller::Teller;

/// Opens a tunnel and serves its calls. A clean end by either side is no error.
pub(crate) async fn run(
    device: &ReverseTunnelServer,
    address: &Address,
    teller: &Teller,
) -> Result<()> {
    teller.opening(1);
    let reason = serve(device, teller).await;
    let reason = reason.map_err(|error| explain(&error, address))?;
    if let EndReason::Error(error) = reason {
        bail!("the tunnel has ended: {}", Report(&error));
    }
    info!("Tunnel ended: {}", Report(&reason));
    Ok(())
}

/// Serves, and logs when the tunnel is open.
async fn serve(device: &ReverseTunnelServer, teller: &Teller) -> Result<EndReason, TunnelError> {
    let handle = device.handle();
    let mut serving = pin!(device.serve());
    poll_fn(|cx| {
        let ended = serving.as_mut().poll(cx);
        // The tunnel is listed as soon as it is accepted.
        if let Some(tunnel) = handle.tunnels().first() {
            teller.established(tunnel.id());
        }
        ended
    })
    .await
}

fn explain(error: &TunnelError, address: &Address) -> Error {
    match error {
        TunnelError::Channel(status) => {
            anyhow!("cannot connect to {address}: {}", root_cause(status))
        }
        error => anyhow!("cannot open a tunnel to {address}: {}", Report(error)),
    }
}
