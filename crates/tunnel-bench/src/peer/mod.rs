//! The two processes of a pair: a server, and a client that runs jobs.
//!
//! Invariant: each process ends when its standard input ends, even in the middle of a job. So no
//! process outlives the orchestrator.

mod brownout;
mod calls;
mod channel;
mod client;
mod connect;
mod flood;
mod held;
mod open_loop;
mod server;
mod service;
mod steady;
mod streams;
mod telemetry;
mod timing;
mod work;

use std::io::{BufRead, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

pub(crate) use client::run as client;
pub(crate) use server::run as server;
use service::Service;

/// The options of both roles.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Options {
    /// The transport of calls.
    #[arg(long, value_parser = crate::variant::Way::parse)]
    pub(crate) variant: crate::variant::Way,

    /// The stream limit of a tunnel. Default: the library's.
    #[arg(long)]
    pub(crate) max_streams: Option<usize>,

    /// The number of tunnels or connections.
    #[arg(long, default_value_t = 1)]
    pub(crate) tunnels: usize,

    /// The share of a core that other tasks use in each process, in percent.
    #[arg(long, default_value_t = 0)]
    pub(crate) busy_percent: u32,

    /// How long the handler of a unary call computes, in microseconds.
    #[arg(long, default_value_t = 0)]
    pub(crate) compute_micros: u64,

    /// How long the handler of a unary call then waits, in milliseconds.
    #[arg(long, default_value_t = 0)]
    pub(crate) wait_millis: u64,
}

impl Options {
    fn service(&self) -> Service {
        Service {
            computes: Duration::from_micros(self.compute_micros),
            waits: Duration::from_millis(self.wait_millis),
        }
    }

    fn config(&self) -> Result<tunnel_client::Config> {
        let mut config = tunnel_client::Config::builder();
        if let Some(max) = self.max_streams {
            // The initial windows of all streams together exceed the tunnel's buffer limit, so
            // overcommit is needed. The limit itself still holds.
            config = config.max_concurrent_streams(max).overcommit(true);
        }
        config.build().context("invalid settings of a tunnel")
    }
}

/// The lines of standard input. When it ends, the reading thread ends the process, even if the
/// runtime is blocked.
fn input() -> mpsc::UnboundedReceiver<String> {
    let (sender, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
        std::process::exit(0);
    });
    lines
}

/// Prints one line of JSON.
fn say(what: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_string(what)?;
    line.push('\n');
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush().context("cannot write to standard output")
}

/// Listens on a free port of 127.0.0.1.
async fn listen() -> Result<(TcpListener, u16)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))
        .await
        .context("cannot listen on the loopback")?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}
