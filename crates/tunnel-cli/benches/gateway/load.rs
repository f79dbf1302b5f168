//! Callers, one call after another each.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::devices;

/// Whom to call.
#[derive(Clone)]
pub(crate) struct Target {
    channel: Channel,
    keys: Vec<MetadataValue<Ascii>>,
}

impl Target {
    /// One server, which is a device if there is a key.
    pub(crate) fn to(channel: Channel, key: Option<&'static str>) -> Self {
        Self {
            channel,
            keys: key.map(MetadataValue::from_static).into_iter().collect(),
        }
    }

    /// All devices, at random.
    pub(crate) fn spread(channel: Channel, devices: usize) -> Self {
        let keys = (0..devices).filter_map(|number| devices::key(number).parse().ok());
        Self {
            channel,
            keys: keys.collect(),
        }
    }
}

/// What callers have seen; times in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) rate: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Calls for a time. A call that fails ends the measurement.
pub(crate) async fn run(target: &Target, callers: usize, time: Duration) -> Result<Load> {
    let began = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..callers {
        let target = target.clone();
        running.spawn(async move {
            let mut client = HealthClient::new(target.channel);
            let mut latencies = Vec::new();
            while began.elapsed() < time {
                let mut request = Request::new(HealthCheckRequest::default());
                if !target.keys.is_empty() {
                    let key = target.keys[fastrand::usize(..target.keys.len())].clone();
                    request.metadata_mut().insert("tunnel-key", key);
                }
                let called = Instant::now();
                client.check(request).await?;
                latencies.push(called.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(caller) = running.join_next().await {
        latencies.extend(caller??);
    }
    let elapsed = began.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let quantile = |q: f64| {
        let rank = (latencies.len() as f64 * q) as usize;
        latencies
            .get(rank.min(latencies.len().saturating_sub(1)))
            .map_or(f64::NAN, Duration::as_secs_f64)
    };
    Ok(Load {
        rate: latencies.len() as f64 / elapsed,
        p50: quantile(0.5),
        p99: quantile(0.99),
    })
}
