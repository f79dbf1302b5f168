//! Calls at gateways, and how many of them there were.

use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use example_support::test::EchoRequest;
use example_support::test::echo_service_client::EchoServiceClient;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::Status;
use tunnel_fleet::{Fleet, FleetChannel};
use tunnel_server::WhenNoTunnel;

use crate::gateway::Gateway;

/// The callers at each gateway.
pub(crate) const CALLERS: usize = 4;

/// How long calls may take to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// What has become of calls.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) made: usize,
    /// Those that went by another gateway.
    pub(crate) moved: u64,
    pub(crate) failed: usize,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.made += other.made;
        self.moved += other.moved;
        self.failed += other.failed;
    }
}

/// Callers at some gateways, which call all devices in turn.
pub(crate) struct Calls {
    ended: Arc<watch::Sender<usize>>,
    failed: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    callers: Vec<JoinHandle<()>>,
    /// The hops before.
    hops: u64,
}

impl Calls {
    pub(crate) fn begin(gateways: &[Gateway], keys: &[String]) -> Self {
        let mut calls = Self {
            ended: Arc::new(watch::Sender::new(0)),
            failed: Arc::default(),
            stop: Arc::default(),
            callers: Vec::new(),
            hops: hops(gateways),
        };
        for gateway in gateways {
            for _ in 0..CALLERS {
                let caller = calls.caller(gateway.fleet().clone(), keys.to_vec());
                calls
                    .callers
                    .extend(gateway.handle().map(|at| at.spawn(caller)));
            }
        }
        calls
    }

    fn caller(&self, fleet: Fleet, keys: Vec<String>) -> impl Future<Output = ()> + use<> {
        let (ended, failed) = (self.ended.clone(), self.failed.clone());
        let stop = self.stop.clone();
        async move {
            for key in keys.into_iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                if let Err(status) = call(fleet.channel(key.as_str()), &key).await {
                    println!("a call to {key} failed: {}", status.message());
                    failed.fetch_add(1, Ordering::Relaxed);
                }
                ended.send_modify(|ended| *ended += 1);
            }
        }
    }

    /// Waits for more calls.
    pub(crate) async fn more(&self, calls: usize) -> Result<()> {
        let mut ended = self.ended.subscribe();
        let goal = *ended.borrow() + calls;
        match timeout(PATIENCE, ended.wait_for(|ended| *ended >= goal)).await {
            Ok(_) => Ok(()),
            Err(_) => bail!("not {calls} calls in {PATIENCE:?}"),
        }
    }

    /// Waits for the calls in flight, and counts.
    pub(crate) async fn end(self, gateways: &[Gateway]) -> Counts {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers {
            // An error means that its gateway was killed.
            let _ = caller.await;
        }
        let made = *self.ended.borrow();
        Counts {
            made,
            moved: hops(gateways) - self.hops,
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
}

/// The calls that these gateways have sent to others.
fn hops(gateways: &[Gateway]) -> u64 {
    gateways
        .iter()
        .map(|gateway| gateway.fleet().stats().hops)
        .sum()
}

/// Any generated client takes the channel to a device.
async fn call(channel: FleetChannel, key: &str) -> Result<(), Status> {
    let request = EchoRequest {
        message: "Hello".into(),
    };
    let answer = EchoServiceClient::new(channel).echo(request).await?;
    match answer.into_inner().message == format!("{key}: Hello") {
        true => Ok(()),
        false => Err(Status::internal("another device has answered")),
    }
}

/// Calls a device as soon as the gateway knows a way to it.
pub(crate) async fn reach(fleet: &Fleet, key: &str) -> Result<(), Status> {
    let channel = fleet.channel(key).when_no_tunnel(WhenNoTunnel::Wait);
    let called = timeout(PATIENCE, call(channel, key)).await;
    called.unwrap_or_else(|_| Err(Status::deadline_exceeded("it does not come")))
}
