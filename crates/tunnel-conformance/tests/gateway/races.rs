//! Hundreds of calls while their tunnels come and go: no call is lost or handled twice.

use futures::future::join_all;
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tunnel_conformance::client::run;
use tunnel_conformance::payload::requests;
use tunnel_conformance::proto::Script;
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::{Kind, Outcome, Probe, TestChannel};
use tunnel_core::EndReason;
use tunnel_server::{AcceptedTunnel, Balance, ReverseChannel, TunnelServiceHandler, WhenNoTunnel};

use crate::support::device::{Device, Dial};
use crate::support::{Gateway, NEVER, client, eventually, guarded, no_tunnels, one_request, ready};

/// The number of calling tasks, and the calls of each.
const CALLERS: usize = 8;
const CALLS: usize = 60;

/// The number of tunnels, and how often each is replaced.
const PLACES: usize = 3;
const ROUNDS: usize = 12;

/// The name under which a call is counted.
fn name(caller: usize, call: usize) -> String {
    format!("caller {caller}, call {call}")
}

/// Calls of all kinds, one after the other, each of which is counted under a name of its own.
async fn caller(channel: ReverseChannel, caller: usize) -> Vec<(String, Outcome)> {
    let client = client(&channel);
    let mut outcomes = Vec::new();
    for (call, kind) in (0..CALLS).zip(Kind::ALL.into_iter().cycle()) {
        let name = name(caller, call);
        let script = Script::named(&name).receive_all().send(1, 100, 1);
        let sent = requests(1, kind.requests(4), 3_000);
        outcomes.push((name, run(&client, kind, &script, sent).await));
    }
    outcomes
}

/// Runs many callers: some pick tunnels in turn, some pick the tunnel with the fewest calls.
fn callers(handler: &TunnelServiceHandler) -> JoinSet<Vec<(String, Outcome)>> {
    let channel = handler
        .key_as_channel("device-7")
        .when_no_tunnel(WhenNoTunnel::Wait);
    let mut callers = JoinSet::new();
    for n in 0..CALLERS {
        let channel = match n % 2 {
            0 => channel.clone(),
            _ => channel.clone().balance(Balance::FewestCalls),
        };
        callers.spawn(caller(channel, n));
    }
    callers
}

/// A device that is about to be replaced, and its tunnel at the gateway.
struct Leaving {
    device: Device,
    tunnel: AcceptedTunnel,
}

/// Replaces the device of one place repeatedly. The next device connects before the last one leaves.
async fn replace<L, F>(gateway: &Gateway, probe: &Probe, dial: impl Fn(&Probe) -> Dial, leave: L)
where
    L: Fn(Leaving) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let channel = gateway.connect().await;
    let next = async || {
        let dial = dial(probe).named("device-7");
        let device = dial.dial(channel.clone()).await.expect("accepted");
        let tunnel = ready(&gateway.handler, &device).await;
        Leaving { device, tunnel }
    };
    let mut place = next().await;
    let mut leaving = JoinSet::new();
    for _ in 0..ROUNDS {
        // The device leaves in the middle of a call, if any call is left.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        let last = std::mem::replace(&mut place, next().await);
        leaving.spawn(leave(last));
    }
    leaving.join_all().await;
}

/// All results of the callers.
async fn outcomes(callers: JoinSet<Vec<(String, Outcome)>>) -> Vec<(String, Outcome)> {
    callers.join_all().await.into_iter().flatten().collect()
}

/// Every call has succeeded, and was handled once.
async fn assert_each_once(probe: &Probe, outcomes: &[(String, Outcome)]) {
    assert_eq!(outcomes.len(), CALLERS * CALLS);
    for (name, outcome) in outcomes {
        if let Err(status) = &outcome.end {
            panic!("{name}: {status:?}");
        }
        let record = probe.record(name);
        assert_eq!((record.started, record.dropped), (1, 0), "{name}");
    }
}

/// Runs callers while devices are replaced; `leave` ends each device.
async fn storm<L, F>(dial: impl Fn(&Probe) -> Dial + Copy, leave: L)
where
    L: Fn(Leaving) -> F + Copy,
    F: Future<Output = ()> + Send + 'static,
{
    let gateway = Gateway::start().await;
    let probe = Probe::default();
    let callers = callers(&gateway.handler);
    let places = (0..PLACES).map(|_| replace(&gateway, &probe, dial, leave));
    join_all(places).await;
    let outcomes = outcomes(callers).await;
    assert_each_once(&probe, &outcomes).await;
    eventually(|| gateway.handler.kept_calls() == 0).await;
    gateway.handler.drain(NEVER).await;
    assert_eq!(gateway.handler.kept_keys(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_lost_or_doubled_when_devices_drain() {
    guarded(storm(Dial::new, |last: Leaving| async move {
        last.device.tunnel.drain(None);
        assert_eq!(last.device.closed().await, EndReason::Drained);
        last.tunnel.closed().await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_lost_or_doubled_when_the_gateway_drains_its_devices() {
    guarded(storm(Dial::new, |last: Leaving| async move {
        assert_eq!(last.tunnel.drain(NEVER).await, EndReason::Drained);
        last.device.closed().await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_lost_or_doubled_when_both_ends_drain_at_once() {
    guarded(storm(Dial::new, |last: Leaving| async move {
        let device = tokio::spawn(async move {
            last.device.tunnel.drain(None);
            last.device.closed().await
        });
        last.tunnel.drain(NEVER).await;
        device.await.expect("no panic");
    }))
    .await;
}

/// A device without drain notices refuses new calls and marks them as not processed. Each device
/// has a call in flight: without one the tunnel would end at once and lose calls in flight.
#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_lost_or_doubled_when_devices_drain_without_notice() {
    let deaf = |probe: &Probe| Dial::new(probe).deaf();
    guarded(storm(deaf, |last: Leaving| async move {
        let client = last.tunnel.channel().expect("a reverse tunnel");
        let client = TestServiceClient::new(TestChannel::new(client));
        let gate = format!("last call of {}", last.tunnel.id());
        let script = Script::named(&gate).receive_all().wait(&gate);
        let script = script.send(1, 1, 1);
        let last_call =
            tokio::spawn(async move { run(&client, Kind::Unary, &script, one_request()).await });
        last.device.probe.started(&gate).await;
        last.device.tunnel.drain(None);
        // Calls come and are refused, until the gateway sends no more.
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
        let drained = tokio::spawn({
            let tunnel = last.tunnel.clone();
            async move { tunnel.drain(NEVER).await }
        });
        eventually(|| !last.tunnel.is_ready() && last.tunnel.stats().streams == 1).await;
        last.device.probe.open(&gate);
        last_call.await.expect("no panic").expect_success();
        drained.await.expect("no panic");
        last.device.closed().await;
    }))
    .await;
}

/// Some calls fail, because they may have been processed.
#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_doubled_when_tunnels_are_cut() {
    guarded(async {
        let gateway = Gateway::start().await;
        let probe = Probe::default();
        let callers = callers(&gateway.handler);
        let places = (0..PLACES).map(|place| {
            let cut = move |last: Leaving| async move {
                match place {
                    0 => last.tunnel.close_with(Status::aborted("kicked")),
                    1 => last.device.hang_up(),
                    _ => last.device.tunnel.drain(Some(std::time::Instant::now())),
                }
                last.device.closed().await;
            };
            replace(&gateway, &probe, Dial::new, cut)
        });
        join_all(places).await;
        for (name, outcome) in outcomes(callers).await {
            let record = probe.record(&name);
            assert!(record.started <= 1, "{name}: {record:?}");
            if outcome.end.is_ok() {
                assert_eq!(record.started, 1, "{name}");
            } else {
                outcome.expect_failure(Code::Unavailable);
            }
        }
        eventually(|| gateway.handler.kept_calls() == 0).await;
        gateway.handler.drain(NEVER).await;
        no_tunnels(&gateway.handler).await;
    })
    .await;
}
