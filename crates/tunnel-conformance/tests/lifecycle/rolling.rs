//! Two gateways that are restarted one after the other during calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::RwLock;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tunnel_client::LinksHandle;
use tunnel_conformance::client::run;
use tunnel_conformance::payload::{assert_pattern, request};
use tunnel_conformance::proto::Script;
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::{Kind, Probe, TestChannel};

use crate::support::{Gateway, KEY, device, eventually, guarded};

const DEVICES: usize = 10;
const CALLERS: usize = 8;
const ROUNDS: usize = 3;

fn name(device: usize) -> String {
    format!("device-{device}")
}

/// Sends calls to the gateway that is in service, as a load balancer does.
struct Balancer {
    gateways: [Channel; 2],
    in_service: RwLock<usize>,
    calls: [AtomicUsize; 2],
    made: AtomicUsize,
}

impl Balancer {
    /// Makes one call to a device through whichever gateway is in service. It must succeed.
    async fn call(&self, device: usize, script: &Script) {
        let gateway = {
            let in_service = self.in_service.read().await;
            self.calls[*in_service].fetch_add(1, Ordering::SeqCst);
            *in_service
        };
        let named = tower::util::MapRequest::new(
            self.gateways[gateway].clone(),
            move |mut request: http::Request<tonic::body::Body>| {
                let name = name(device).parse().expect("a legal value");
                request.headers_mut().insert(KEY, name);
                request
            },
        );
        let client = TestServiceClient::new(TestChannel::new(named));
        let seed = device as u64;
        let outcome = run(&client, Kind::Unary, script, vec![request(seed, 100)]).await;
        assert_pattern(&outcome.expect_success()[0].payload, seed, 100);
        self.calls[gateway].fetch_sub(1, Ordering::SeqCst);
        self.made.fetch_add(1, Ordering::SeqCst);
    }

    /// Puts this gateway in service and takes the other one out of service.
    async fn move_to(&self, gateway: usize) {
        *self.in_service.write().await = gateway;
    }
}

/// Waits until every device is connected to every gateway.
async fn all_connected(devices: &[LinksHandle]) {
    for device in devices {
        device.all_connected().await.expect("it runs");
    }
}

/// Restarts a gateway while calls through it are in flight and calls through the other gateway
/// continue.
async fn restart(
    gateway: Gateway,
    number: usize,
    round: usize,
    balancer: &Arc<Balancer>,
    probe: &Probe,
) -> Gateway {
    // These calls are in flight when the gateway stops.
    let caught = format!("caught {number} {round}");
    let script = Script::named(&caught).wait(&caught).echo_all();
    let mut in_flight = JoinSet::new();
    balancer.move_to(number).await;
    for device in 0..DEVICES {
        let (balancer, script) = (balancer.clone(), script.clone());
        in_flight.spawn(async move { balancer.call(device, &script).await });
    }
    probe
        .until(&caught, |record| record.started == DEVICES as u64)
        .await;
    balancer.move_to(1 - number).await;
    // Wait for the other calls that chose this gateway before it went out of service.
    eventually(|| balancer.calls[number].load(Ordering::SeqCst) == DEVICES).await;

    gateway.begin_stop();
    // The gateway takes no calls any more, and the devices have its drain notices.
    gateway.has(0).await;
    let before = balancer.made.load(Ordering::SeqCst);
    eventually(|| balancer.made.load(Ordering::SeqCst) > before + 10 * CALLERS).await;
    assert_eq!(
        gateway.handler.tunnels().len(),
        DEVICES,
        "calls are in flight"
    );
    probe.open(&caught);
    while let Some(call) = in_flight.join_next().await {
        call.expect("the call succeeds");
    }
    let address = gateway.stopped().await;
    let gateway = Gateway::start_at(address, |server| server).await;
    gateway.has(DEVICES).await;
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_two_gateways_fails_no_call() {
    guarded(async {
        let probe = Probe::default();
        let [mut one, mut other] = [Gateway::start().await, Gateway::start().await];
        let mut handles = Vec::new();
        let mut devices = JoinSet::new();
        for number in 0..DEVICES {
            let server = device(&name(number), one.endpoint(), &probe);
            let server = server.gateway(other.endpoint()).build();
            handles.push(server.handle());
            devices.spawn(server.run());
        }
        one.has(DEVICES).await;
        other.has(DEVICES).await;

        let channels = [one.endpoint(), other.endpoint()].map(|endpoint| endpoint.connect_lazy());
        let balancer = Arc::new(Balancer {
            gateways: channels,
            in_service: RwLock::new(0),
            calls: Default::default(),
            made: AtomicUsize::new(0),
        });
        let done = Arc::new(AtomicBool::new(false));
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let (balancer, done) = (balancer.clone(), done.clone());
            callers.spawn(async move {
                let script = Script::named("all the while").echo_all();
                for call in caller.. {
                    if done.load(Ordering::SeqCst) {
                        break;
                    }
                    balancer.call(call % DEVICES, &script).await;
                }
            });
        }
        for round in 0..ROUNDS {
            one = restart(one, 0, round, &balancer, &probe).await;
            all_connected(&handles).await;
            other = restart(other, 1, round, &balancer, &probe).await;
            all_connected(&handles).await;
        }
        done.store(true, Ordering::SeqCst);
        while let Some(caller) = callers.join_next().await {
            caller.expect("no call failed");
        }
        println!(
            "{} calls, none failed",
            balancer.made.load(Ordering::SeqCst)
        );
        for handle in handles {
            handle.drain(Duration::ZERO).await;
        }
        devices.join_all().await;
        one.has(0).await;
    })
    .await;
}
