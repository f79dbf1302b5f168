//! The two processes of a pair: a server, and a client that does jobs.
//!
//! Invariant: either ends when its standard input does, whatever it is busy with, so that none
//! outlives the orchestrator.

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

/// What both roles are told when they start.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Options {
    /// How calls travel.
    #[arg(long, value_parser = crate::variant::Way::parse)]
    pub(crate) variant: crate::variant::Way,

    /// How many streams a tunnel may have open, where its own default is not enough.
    #[arg(long)]
    pub(crate) max_streams: Option<usize>,

    /// How many tunnels or connections there are.
    #[arg(long, default_value_t = 1)]
    pub(crate) tunnels: usize,

    /// What share of a core other tasks use at each end, in percent.
    #[arg(long, default_value_t = 0)]
    pub(crate) busy_percent: u32,

    /// For how long the handler of a unary call computes, in microseconds.
    #[arg(long, default_value_t = 0)]
    pub(crate) compute_micros: u64,

    /// How long it then waits, in milliseconds.
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
            // So many streams can be promised their windows only together with more memory than a
            // tunnel may use; what it uses stays within the same bound.
            config = config.max_concurrent_streams(max).overcommit(true);
        }
        config.build().context("impossible settings of a tunnel")
    }
}

/// Lines from standard input. When it ends the process does, from a thread of its own: also when
/// the runtime has got stuck.
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
    out.flush().context("nobody listens")
}

/// Listens on a free port of the loopback.
async fn listen() -> Result<(TcpListener, u16)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))
        .await
        .context("cannot listen on the loopback")?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}
