//! A few calls: one after another, a failing one, some at the same time.

use anyhow::Result;
use example_support::caller::Caller;
use futures::future::try_join_all;
use tonic::Code;
use tracing::info;
use tunnel_client::TunnelChannel;

/// How many calls are made one after another.
const IN_A_ROW: usize = 3;

/// How many are then made at the same time.
const AT_ONCE: usize = 5;

pub(crate) async fn run(caller: &Caller<TunnelChannel>) -> Result<()> {
    for n in 1..=IN_A_ROW {
        let message = format!("Hello from client #{n}");
        info!("Sending: {message}");
        let answer = caller.echo(&message).await?;
        info!("Received: {answer}");
    }

    info!("--- A call that fails, as it should ---");
    let status = caller.expect_error(Code::NotFound, "no such thing").await?;
    info!("Expected error: {:?}: {}", status.code(), status.message());

    info!("--- {AT_ONCE} concurrent calls ---");
    let calls = (1..=AT_ONCE).map(|n| async move {
        let answer = caller.echo(&format!("Concurrent call #{n}")).await?;
        info!("Received: {answer}");
        anyhow::Ok(())
    });
    try_join_all(calls).await?;
    Ok(())
}
