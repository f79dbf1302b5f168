//! Slow handlers, and callers that time out.
//!
//! Plain tonic is the oracle only where every handler has begun before its caller gives up. HTTP/2
//! ends a connection if calls are reset before the server has processed them. On a slow machine any
//! short wait causes such resets. The outer HTTP/2 connection sees no resets of tunnelled calls, so
//! a tunnel must survive this load too.

use std::time::Duration;

use tokio::time::timeout;
use tonic::Status;
use tunnel_conformance::payload::request;
use tunnel_conformance::proto::Script;
use tunnel_conformance::{Client, Kind, client};

use crate::support::{Bystander, Fate, Path, Rig, Tally, guarded, load};

/// More than every budget of cancelled calls that the library has had.
const CALLS: usize = 6_000;

/// The number of callers, and how long each one waits for an answer.
const BROWNOUTS: [(usize, Duration); 3] = [
    (100, Duration::from_millis(10)),
    (300, Duration::from_millis(20)),
    (1_000, Duration::from_millis(50)),
];

fn slow() -> Script {
    Script::named("slow").pend()
}

async fn unary(client: &Client, script: &Script, timeout: Option<Duration>) -> Result<(), Status> {
    let mut call = script.request(request(1, 20));
    if let Some(timeout) = timeout {
        call.set_timeout(timeout);
    }
    client.clone().unary(call).await.map(drop)
}

fn fate(result: Result<(), Status>) -> Fate {
    match result {
        Ok(()) => Fate::Answered,
        Err(status) => Fate::Failed(status),
    }
}

/// Puts a load on each path beside a call that stays active. Panics unless `count` counts every
/// call of the load.
async fn beside_a_bystander<F>(
    paths: &[Path],
    callers: usize,
    count: impl Fn(&Tally) -> usize,
    call: impl Fn(Client, usize) -> F + Clone + Send + 'static,
) where
    F: Future<Output = Fate> + Send + 'static,
{
    for &path in paths {
        let rig = Rig::start(path).await;
        let bystander = Bystander::start(&rig.client).await;
        let (client, call) = (rig.client.clone(), call.clone());
        let calls = move |number| call(client.clone(), number);
        let tally = load(path, callers, CALLS, calls).await;
        assert!(tally.failed.is_empty(), "{path:?}: {tally:?}");
        bystander.assert_undisturbed().await;
        rig.assert_lives().await;
        rig.handlers_gone("slow").await;
        assert_eq!(count(&tally), CALLS, "{path:?}: {tally:?}");
    }
}

/// Each caller gives up when the response headers arrive.
#[tokio::test(flavor = "multi_thread")]
async fn callers_that_drop_their_responses_on_a_slow_handler_end_only_their_own_calls() {
    guarded(async {
        for (callers, _) in BROWNOUTS {
            let call = |client: Client, _| async move {
                let script = Script::named("slow").send_headers().pend();
                let request = script.request(tokio_stream::once(request(1, 20)));
                match client::open(&client, Kind::ServerStream, request).await {
                    Ok(_) => Fate::Dropped,
                    Err(status) => Fate::Failed(status),
                }
            };
            beside_a_bystander(&Path::ALL, callers, |tally| tally.dropped, call).await;
        }
    })
    .await;
}

/// Each caller gives up after a fixed time.
#[tokio::test(flavor = "multi_thread")]
async fn callers_that_drop_their_futures_on_a_slow_handler_end_only_their_own_calls() {
    guarded(async {
        for (callers, patience) in BROWNOUTS {
            let call = move |client: Client, _| async move {
                match timeout(patience, unary(&client, &slow(), None)).await {
                    Ok(result) => fate(result),
                    Err(_) => Fate::Dropped,
                }
            };
            beside_a_bystander(&Path::TUNNELS, callers, |tally| tally.dropped, call).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_on_a_slow_handler_end_only_their_own_calls() {
    guarded(async {
        for (callers, deadline) in BROWNOUTS {
            let call = move |client: Client, _| async move {
                fate(unary(&client, &slow(), Some(deadline)).await)
            };
            beside_a_bystander(&Path::TUNNELS, callers, |tally| tally.late, call).await;
        }
    })
    .await;
}

/// Each caller makes a second attempt when the first one does not answer soon. The losing attempt
/// is dropped.
#[tokio::test(flavor = "multi_thread")]
async fn hedged_calls_are_answered_and_their_losers_harm_no_other_call() {
    let call = |client: Client, _| async move {
        let (slow, quick) = (slow(), Script::named("quick").echo_all());
        let second = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            unary(&client, &quick, None).await
        };
        tokio::select! {
            first = unary(&client, &slow, None) => fate(first),
            second = second => fate(second),
        }
    };
    let answered = |tally: &Tally| tally.answered;
    guarded(beside_a_bystander(&Path::TUNNELS, 100, answered, call)).await;
}

/// Calls are dropped before their request is sent, while their handler runs, or between response
/// messages.
#[tokio::test(flavor = "multi_thread")]
async fn calls_dropped_at_any_moment_end_only_themselves() {
    let call = |client: Client, number: usize| async move {
        let kind = Kind::ALL[number % 4];
        let script = match number % 3 {
            0 => Script::named("slow").send_headers().pend(),
            1 => Script::named("slow").receive_all().pend(),
            _ => Script::named("slow").send(1, 100, 1).pend(),
        };
        let script = if kind.downloads() { script } else { slow() };
        let request = script.request(tokio_stream::once(request(1, 20)));
        let call = async {
            let mut call = client::open(&client, kind, request).await?;
            while call.next().await?.is_some() {}
            Ok::<_, Status>(())
        };
        let patience = Duration::from_micros(number as u64 % 13 * 250);
        match timeout(patience, call).await {
            Ok(result) => fate(result),
            Err(_) => Fate::Dropped,
        }
    };
    let dropped = |tally: &Tally| tally.dropped;
    guarded(beside_a_bystander(&Path::TUNNELS, 100, dropped, call)).await;
}

/// Calls keep starting and expiring while no response is delivered.
#[tokio::test(flavor = "multi_thread")]
async fn a_response_direction_that_stalls_ends_only_the_calls_whose_deadlines_pass() {
    guarded(async {
        let deadline = Duration::from_millis(50);
        for path in Path::TUNNELS {
            let rig = Rig::start(path).await;
            let client = rig.client.clone();
            rig.link.freeze_way(path.response_way());
            let tally = load(path, 1_000, CALLS, move |_| {
                let client = client.clone();
                async move { fate(unary(&client, &slow(), Some(deadline)).await) }
            })
            .await;
            assert_eq!(tally.late, CALLS, "{path:?}: {tally:?}");
            rig.link.thaw();
            rig.assert_lives().await;
            rig.handlers_gone("slow").await;
        }
    })
    .await;
}
