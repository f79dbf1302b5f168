//! Messages without payload, and links with much data in flight.

use std::time::Duration;

use futures::stream;
use tunnel_conformance::Kind;
use tunnel_conformance::client::{call, open};
use tunnel_conformance::proto::{Request, Script};

use crate::support::{Path, Rig, guarded};

/// The messages arrive in bursts. Each burst is larger than what a handler reads at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_empty_messages_reach_a_handler_that_reads() {
    guarded(async {
        const MESSAGES: usize = 100_000;
        for path in Path::ALL {
            let rig = Rig::start(path).await;
            rig.link.set_delay(Duration::from_millis(20));
            let script = Script::named("upload").receive_all().summarize();
            let messages = stream::iter(vec![Request::default(); MESSAGES]);
            let upload = call(&rig.client, Kind::ClientStream, script.request(messages));
            let bursts = async {
                let way = path.request_way();
                for burst in 1..=5 {
                    rig.link.freeze_way(way);
                    let kilobytes = 20_000 * burst;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    rig.link.thaw();
                    rig.link
                        .wait_traffic(way, |traffic| traffic.delivered >= kilobytes)
                        .await;
                }
            };
            let (outcome, ()) = tokio::join!(upload, bursts);
            let received = outcome.expect_success()[0].received;
            let received = received.expect("the handler says what it has received");
            assert_eq!(received.messages, MESSAGES as u64, "{path:?}");
            rig.assert_lives().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_of_a_million_empty_messages_that_is_dropped_ends_only_itself() {
    guarded(async {
        for path in Path::ALL {
            let rig = Rig::start(path).await;
            for round in 0..3 {
                let name = format!("download {round}");
                let script = Script::named(&name).send(1_000_000, 0, 1);
                let request = script.request(stream::iter([Request::default()]));
                let mut download = open(&rig.client, Kind::ServerStream, request).await;
                let download = download.as_mut().expect("it begins");
                download.expect_next().await;
                // The handler keeps sending until the cancel arrives.
                rig.link.set_delay(Duration::from_millis(500));
                for _ in 0..50_000 {
                    download.expect_next().await;
                }
            }
            rig.link.set_delay(Duration::ZERO);
            rig.assert_lives().await;
        }
    })
    .await;
}
