//! Measures tunnels of both directions beside plain tonic, side by side in one run.
//!
//! Client and server are two processes over loopback. Every variant of a workload is measured
//! in each round, one after another, and ratios are formed within the round, so that a noisy
//! machine disturbs both sides of a ratio alike. What is printed are medians.

mod proto;
mod report;
mod server;
mod workload;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use tonic::transport::{Channel, Endpoint, Server};
use tunnel_client::{ForwardTunnel, TunnelChannel, endpoint_for_tunnels};
use tunnel_server::{ReverseChannel, TunnelServiceHandler, server_for_tunnels};

use report::Report;
use workload::{WORKLOADS, Workload};

/// Measures tunnels of both directions beside plain tonic, side by side in one run: about three
/// minutes.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// How many rounds; a round measures every variant of every workload once.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// How long each measurement takes, in milliseconds.
    #[arg(long, default_value_t = 700, value_parser = clap::value_parser!(u64).range(1..))]
    millis: u64,

    /// Three short rounds, for a first look.
    #[arg(long)]
    quick: bool,

    /// Only workloads whose name contains this.
    #[arg(long)]
    only: Option<String>,

    /// Be the server: dials this port to serve through a reverse tunnel, prints the ports where it
    /// serves otherwise, and serves until its input ends.
    #[arg(long, hide = true)]
    serve: Option<u16>,
}

/// The server process; killed when dropped.
struct Served {
    child: Child,
    plain_port: u16,
    tunnel_port: u16,
}

impl Served {
    /// Starts it; it dials `gateway`.
    fn start(gateway: u16) -> Result<Self> {
        let exe = std::env::current_exe().context("cannot find this program's own file")?;
        let mut child = Command::new(exe)
            .args(["--serve", &gateway.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the server process")?;
        let stdout = child.stdout.take().context("the server has no output")?;
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .context("cannot read the server's ports")?;
        let (plain, tunnel) = line
            .trim()
            .split_once(' ')
            .context("the server printed no ports")?;
        Ok(Self {
            child,
            plain_port: plain.parse()?,
            tunnel_port: tunnel.parse()?,
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It ends by itself when its input does; this is for when it does not.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is compared, in this order.
const VARIANTS: [&str; 3] = ["plain tonic", "forward tunnel", "reverse tunnel"];

/// The same as channels.
struct Variants {
    plain: Channel,
    forward: TunnelChannel,
    reverse: ReverseChannel,
}

impl Variants {
    async fn connect(server: &Served, gateway: &TunnelServiceHandler) -> Result<Self> {
        let endpoint = |port| Endpoint::from_shared(format!("http://127.0.0.1:{port}"));
        let plain = endpoint(server.plain_port)?
            .connect()
            .await
            .context("cannot connect to the server")?;
        let carrier = endpoint_for_tunnels(endpoint(server.tunnel_port)?)
            .connect()
            .await
            .context("cannot connect to the server")?;
        let forward = ForwardTunnel::new(carrier)
            .open()
            .await
            .context("cannot open a tunnel")?;
        let reverse = gateway.as_channel();
        reverse
            .wait_for_ready(Duration::from_secs(30))
            .await
            .context("the server has opened no reverse tunnel")?;
        Ok(Self {
            plain,
            forward,
            reverse,
        })
    }

    /// Measures each once.
    async fn run(&self, workload: &Workload, time: Duration) -> Result<[f64; VARIANTS.len()]> {
        Ok([
            workload.run(self.plain.clone(), time).await?,
            workload.run(self.forward.clone(), time).await?,
            workload.run(self.reverse.clone(), time).await?,
        ])
    }
}

/// Accepts reverse tunnels, at a port.
async fn accept() -> Result<(TunnelServiceHandler, u16)> {
    let gateway = TunnelServiceHandler::builder().build();
    let (incoming, port) = server::listen().await?;
    let server = server_for_tunnels(Server::builder()).add_service(gateway.service());
    tokio::spawn(server.serve_with_incoming(incoming));
    Ok((gateway, port))
}

async fn run(args: &Args) -> Result<()> {
    let (gateway, port) = accept().await?;
    let server = Served::start(port)?;
    let variants = Variants::connect(&server, &gateway).await?;
    let (rounds, time) = match args.quick {
        true => (3, Duration::from_millis(300)),
        false => (args.rounds as usize, Duration::from_millis(args.millis)),
    };
    let chosen: Vec<&Workload> = WORKLOADS
        .iter()
        .filter(|w| args.only.as_ref().is_none_or(|only| w.name.contains(only)))
        .collect();
    let names: Vec<_> = WORKLOADS.iter().map(|w| w.name).collect();
    anyhow::ensure!(
        !chosen.is_empty(),
        "no workload has such a name; there are: {}",
        names.join(", ")
    );
    let mut report = Report::new(&chosen);
    let steps = (rounds + 1) * chosen.len();
    for round in 0..=rounds {
        for (i, workload) in chosen.iter().enumerate() {
            progress(round * chosen.len() + i, steps, workload.name)?;
            let rates = variants.run(workload, time).await?;
            // The first round warms up.
            if round > 0 {
                report.add(i, rates);
            }
        }
    }
    progress(steps, steps, "done")?;
    eprintln!();
    print!("{report}");
    Ok(())
}

/// One line on the terminal that moves on.
fn progress(done: usize, of: usize, what: &str) -> Result<()> {
    const WIDTH: usize = 30;
    let full = WIDTH * done / of.max(1);
    eprint!(
        "\r[{}{}] {done}/{of} {what:<28}",
        "#".repeat(full),
        " ".repeat(WIDTH - full)
    );
    std::io::stderr().flush()?;
    Ok(())
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start a runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        match args.serve {
            Some(gateway) => server::serve(gateway).await,
            None => run(&args).await,
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
