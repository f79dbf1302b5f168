//! The process with devices. It obeys lines on standard input, and answers each with `done` or `failed`.
//!
//! ```text
//! start KEY SESSION GATEWAY…   opens a tunnel to each gateway, and waits for all
//! begin KEY SESSION GATEWAY…   the same without waiting
//! once KEY SESSION GATEWAY     opens a tunnel that is not opened again after its end, and waits for it
//! stop KEY SESSION             drains its tunnels
//! settle                       waits until all devices have all their tunnels
//! crowd FIRST COUNT TUNNELS GATEWAY…   begins devices, each with tunnels to any gateways
//! count                        prints the open tunnels of the crowd and its attempts: a line `count OPEN ATTEMPTS`
//! report                       prints the calls served since the last time: lines `served ID…`
//! ```

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use example_support::test::echo_service_server::EchoServiceServer;
use tokio::io::{AsyncBufReadExt, BufReader};
use tonic::metadata::MetadataMap;
use tonic::transport::Endpoint;
use tunnel_client::{Backoff, LinksHandle, ReverseTunnelServer};

use crate::crowd::Crowd;
use crate::service::{Log, Service};

/// How long calls in flight may go on in the tunnels of a device that is stopped.
const DRAIN: Duration = Duration::from_secs(10);

/// The ids in one line of a report.
const IDS: usize = 500;

#[derive(Default)]
struct Devices {
    log: Log,
    running: HashMap<(String, String), LinksHandle>,
    crowd: Crowd,
}

/// Runs devices until standard input ends.
pub(crate) async fn run() -> Result<()> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut devices = Devices::default();
    while let Some(line) = lines.next_line().await? {
        match devices.obey(&line).await {
            Ok(()) => println!("done"),
            Err(error) => println!("failed {error:#}"),
        }
    }
    Ok(())
}

impl Devices {
    async fn obey(&mut self, line: &str) -> Result<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["start", key, session, ref gateways @ ..] => {
                let device = self.begin(key, session, gateways)?;
                device.all_connected().await?;
            }
            ["begin", key, session, ref gateways @ ..] => {
                self.begin(key, session, gateways)?;
            }
            ["once", key, session, gateway] => {
                let device = self.device(key, session, &[gateway])?;
                let mut open = device.handle().open_tunnels();
                tokio::spawn(async move {
                    // The reason why it has ended is of no interest.
                    let _ = device.serve().await;
                });
                open.wait_for(|open| *open > 0).await?;
            }
            ["stop", key, session] => {
                let device = self.running.remove(&(key.into(), session.into()));
                device.context("no such device")?.drain(DRAIN).await;
            }
            ["settle"] => {
                for device in self.running.values() {
                    device.all_connected().await?;
                }
            }
            ["crowd", first, count, tunnels, ref gateways @ ..] => {
                let first: usize = first.parse()?;
                for device in first..first + count.parse::<usize>()? {
                    self.crowd.begin(device, tunnels.parse()?, gateways)?;
                }
            }
            ["count"] => {
                let (open, attempts) = self.crowd.count();
                println!("count {open} {attempts}");
            }
            ["report"] => {
                for ids in self.log.take().chunks(IDS) {
                    let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
                    println!("served {}", ids.join(" "));
                }
            }
            _ => bail!("unknown: {line}"),
        }
        Ok(())
    }

    fn begin(&mut self, key: &str, session: &str, gateways: &[&str]) -> Result<LinksHandle> {
        let device = self.device(key, session, gateways)?;
        let handle = device.handle();
        tokio::spawn(device.run());
        let id = (key.to_owned(), session.to_owned());
        self.running.insert(id, handle.clone());
        Ok(handle)
    }

    fn device(&self, key: &str, session: &str, gateways: &[&str]) -> Result<ReverseTunnelServer> {
        let mut endpoints = gateways
            .iter()
            .map(|gateway| Endpoint::from_shared(format!("http://{gateway}")));
        let mut metadata = MetadataMap::new();
        metadata.insert("tunnel-key", key.parse()?);
        metadata.insert("tunnel-session", session.parse()?);
        let service = Service {
            key: key.to_owned(),
            session: session.to_owned(),
            log: self.log.clone(),
        };
        let mut builder = ReverseTunnelServer::builder(endpoints.next().context("no gateway")??)
            .metadata(metadata)
            // Gateways are away for seconds here, and the table is not to wait for devices.
            .backoff(
                Backoff::default()
                    .initial(Duration::from_millis(200))
                    .cap(Duration::from_secs(1))
                    .refused_cap(Duration::from_secs(2)),
            )
            .add_service(EchoServiceServer::new(service));
        for endpoint in endpoints {
            builder = builder.gateway(endpoint?);
        }
        Ok(builder.build())
    }
}
