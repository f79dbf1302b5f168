//! The client process: connects, then runs one job after another.

use anyhow::{Context, Result};
use tokio::sync::mpsc;

use super::channel::{Channel, Clients};
use super::flood::Flood;
use super::held::Held;
use super::{
    Options, brownout, calls, connect, input, open_loop, say, steady, streams, telemetry, work,
};
use crate::carrier;
use crate::job::{Greeting, Job, Measured, Reply};
use crate::variant::Way;

type Lines = mpsc::UnboundedReceiver<String>;

/// Runs jobs until standard input ends.
pub(crate) async fn run(options: Options, port: Option<u16>) -> Result<()> {
    let jobs = input();
    let flood_port = port;
    work::start_other_tasks(options.busy_percent);
    telemetry::start(options.variant)?;
    let port = || port.context("the client needs a port to connect to");
    match options.variant {
        Way::Plain | Way::Tuned => {
            let endpoint = connect::endpoint(port()?, options.variant == Way::Tuned)?;
            work(connect::plain(endpoint, &options).await?, flood_port, jobs).await
        }
        Way::Yamux => work(vec![carrier::yamux::connect(port()?).await?], None, jobs).await,
        Way::Http2 => work(vec![carrier::http2::connect(port()?).await?], None, jobs).await,
        Way::Forward { .. } | Way::Observed(_) => {
            work(connect::forward(port()?, &options).await?, flood_port, jobs).await
        }
        Way::Reverse { .. } => work(vec![connect::reverse(&options).await?], None, jobs).await,
    }
}

/// Runs the jobs on `channels`. `port` is the target of floods.
async fn work<C: Channel>(channels: Vec<C>, port: Option<u16>, mut jobs: Lines) -> Result<()> {
    let mut worker = Worker {
        port,
        flood: Flood::default(),
        clients: Clients::new(channels),
        held: Held::default(),
    };
    say(&Greeting::Ready(true))?;
    while let Some(line) = jobs.recv().await {
        let done = match serde_json::from_str(&line) {
            Ok(job) => worker.run(job).await,
            Err(error) => Err(error).context("cannot parse the job"),
        };
        say(&match done {
            Ok(measured) => Reply::Ok(measured),
            Err(error) => Reply::Error(format!("{error:#}")),
        })?;
    }
    Ok(())
}

struct Worker<C> {
    port: Option<u16>,
    flood: Flood,
    clients: Clients<C>,
    held: Held,
}

impl<C: Channel> Worker<C> {
    async fn run(&mut self, job: Job) -> Result<Measured> {
        let clients = &self.clients;
        match job {
            Job::Unary(load) => calls::unary(clients, load).await,
            Job::Download(load) => streams::download(clients, load).await,
            Job::Upload(load) => streams::upload(clients, load).await,
            Job::PingPong(load) => streams::ping_pong(clients, load).await,
            Job::HoldIdle { streams } => self.held.idle(clients, streams).await,
            Job::HoldUnread { streams, size } => self.held.unread(clients, streams, size).await,
            Job::Flood { connections } => {
                let port = self.port.context("there is no port to flood")?;
                self.flood.start(port, connections).await
            }
            Job::Release {} => {
                self.flood = Flood::default();
                self.held.release(clients).await
            }
            Job::BesideStream {
                callers,
                size,
                millis,
            } => calls::beside_stream(clients, callers, size, millis).await,
            Job::Steady(steady) => steady::run(clients, steady).await,
            Job::OpenLoop(job) => open_loop::run(clients, job).await,
            Job::Brownout(job) => brownout::run(clients, job).await,
        }
    }
}
