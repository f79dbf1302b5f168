//! Calling through tunnels, in both directions.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use futures::FutureExt as _;
use tokio::sync::{mpsc, oneshot};
use tonic::transport::Channel;
use tunnel_client::{ForwardTunnel, TunnelChannel};
use tunnel_server::TunnelServiceHandler;

use crate::Suite;
use crate::options::{End, Opening, Trial};
use crate::serve::{endpoint, listen};

/// How long a tunnel may take to come about.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long connections may take to close when all is done.
const CLOSING: Duration = Duration::from_secs(1);

/// One thing to try. It fails with a sentence that says what was expected and
/// what came.
pub trait Case: Sync + 'static {
    /// What it is called on the command line.
    fn name(&self) -> &'static str;

    /// Tries the case through a tunnel, for no longer than it may take.
    fn run(&self, tunnel: &TunnelChannel, limit: Duration) -> impl Future<Output = Result<()>>;
}

/// Provides tunnels that nobody has used.
enum Source {
    /// Forward tunnels, each opened as this one would be.
    Dial(Box<ForwardTunnel<Channel>>),
    /// Reverse tunnels, as they come.
    Accept(mpsc::UnboundedReceiver<TunnelChannel>),
}

/// Opens forward tunnels and runs cases through them.
pub async fn forward<S: Suite>(
    end: &End,
    opening: &Opening<S>,
    trial: &Trial,
    cases: &[&S::Case],
) -> Result<()> {
    let tunnel = ForwardTunnel::new(endpoint(&end.address)?.connect_lazy())
        .metadata(opening.metadata()?)
        .config(end.config()?)
        .open_timeout(PATIENCE);
    run(cases, trial, Source::Dial(Box::new(tunnel))).await
}

/// Accepts reverse tunnels and runs cases through them.
pub async fn reverse<C: Case>(end: &End, trial: &Trial, cases: &[&C]) -> Result<()> {
    let (sender, opened) = mpsc::unbounded_channel();
    let handler = TunnelServiceHandler::builder()
        .config(end.config()?)
        .on_open(move |tunnel| {
            if let Some(channel) = tunnel.channel() {
                // Fails when all cases have run.
                let _ = sender.send(channel);
            }
        })
        .build();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = listen(&end.address, &handler, stopped.map(drop)).await?;
    let mut serving = pin!(serving);
    let outcome = tokio::select! {
        served = &mut serving => served.and_then(|()| Err(anyhow!("the server has stopped"))),
        outcome = run(cases, trial, Source::Accept(opened)) => outcome,
    };
    // The end of the last tunnel is on its way, and would be lost with the process.
    drop(stop);
    let _ = tokio::time::timeout(CLOSING, serving).await;
    outcome
}

impl Source {
    async fn next(&mut self) -> Result<TunnelChannel> {
        match self {
            Self::Dial(tunnel) => tunnel.clone().open().await.context("no tunnel"),
            Self::Accept(opened) => tokio::time::timeout(PATIENCE, accept(opened))
                .await
                .map_err(|_| anyhow!("no reverse tunnel within {PATIENCE:?}"))?,
        }
    }
}

async fn accept(opened: &mut mpsc::UnboundedReceiver<TunnelChannel>) -> Result<TunnelChannel> {
    loop {
        let tunnel = opened.recv().await.context("the server has stopped")?;
        if tunnel.is_ready() {
            return Ok(tunnel);
        }
    }
}

/// Runs cases, prints what came of them, and fails with what to print last.
async fn run<C: Case>(cases: &[&C], trial: &Trial, mut source: Source) -> Result<()> {
    let mut failed = Vec::new();
    let mut tunnel = None;
    for case in cases {
        let outcome = try_case(*case, trial.timeout, &mut tunnel, &mut source).await;
        if !trial.one_tunnel {
            close(&mut tunnel).await;
        }
        if cases.len() > 1 {
            println!("CASE {} {}", case.name(), verdict(&outcome));
        }
        failed.extend(outcome.err().map(|error| (case.name(), error)));
    }
    close(&mut tunnel).await;
    summary(cases.len(), failed)?;
    println!("PASS");
    Ok(())
}

/// Tries a case through the tunnel there is, or through a new one.
async fn try_case(
    case: &impl Case,
    limit: Duration,
    tunnel: &mut Option<TunnelChannel>,
    source: &mut Source,
) -> Result<()> {
    let tunnel = match tunnel {
        Some(tunnel) => tunnel,
        none => none.insert(source.next().await?),
    };
    case.run(tunnel, limit).await
}

/// What to say of all cases together: of a single one, what it failed with.
fn summary(cases: usize, failed: Vec<(&str, Error)>) -> Result<()> {
    let count = failed.len();
    let (names, mut errors): (Vec<_>, Vec<_>) = failed.into_iter().unzip();
    match errors.pop() {
        None => Ok(()),
        Some(error) if cases == 1 => Err(error),
        Some(_) => Err(anyhow!("{count} of {cases} cases: {}", names.join(", "))),
    }
}

async fn close(tunnel: &mut Option<TunnelChannel>) {
    if let Some(tunnel) = tunnel.take() {
        tunnel.close().await;
    }
}

fn verdict(outcome: &Result<()>) -> String {
    match outcome {
        Ok(()) => "PASS".to_owned(),
        Err(error) => format!("FAIL {}", one_line(error)),
    }
}

/// An error and its causes, in one line.
pub(crate) fn one_line(error: &Error) -> String {
    let text = format!("{error:#}");
    let lines = text.split(['\n', '\r']).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}
