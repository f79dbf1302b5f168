//! Metadata from a hook that runs before each attempt.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tunnel_client::{Backoff, DownReason, LinkState, TunnelError};
use tunnel_server::Opening;

use crate::support::{NEVER, Running, TestGateway, assert_usable, device, guarded, no_waits};

fn token(number: u64) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    metadata.insert("token", number.to_string().parse().expect("legal"));
    metadata
}

/// A gateway that accepts only this token.
async fn gateway_for(wanted: &'static str) -> TestGateway {
    TestGateway::start_with(|builder| {
        builder.admit(move |opening: Opening| async move {
            match opening.metadata_str("token") {
                Some(token) if token == wanted => Ok(()),
                _ => Err(Status::unauthenticated("expired")),
            }
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_asked_for_before_each_attempt_with_what_went_wrong() {
    guarded(async {
        let gateway = gateway_for("3").await;
        let attempts = Arc::new(Mutex::new(Vec::new()));
        let noted = attempts.clone();
        let (builder, _) = device(gateway.endpoint());
        let device = builder.credentials(move |attempt| {
            noted.lock().expect("no panic").push(attempt.clone());
            async move { Ok(token(attempt.number())) }
        });
        let device = Running::start(device.build());
        assert_eq!(device.handle.connected().await, Ok(()));
        gateway.has(1).await;
        assert_usable(&gateway.client()).await;

        let attempts = attempts.lock().expect("no panic");
        let numbers: Vec<_> = attempts.iter().map(|attempt| attempt.number()).collect();
        assert_eq!(numbers, [1, 2, 3]);
        assert!(attempts[0].last_down_reason().is_none());
        for attempt in &attempts[1..] {
            assert_eq!(
                attempt.gateway(),
                gateway.endpoint().uri().to_string().trim_end_matches('/')
            );
            let Some(DownReason::NotOpened(TunnelError::Refused(status))) =
                attempt.last_down_reason()
            else {
                panic!("it was refused: {attempt:?}");
            };
            assert_eq!(status.code(), Code::Unauthenticated);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_credentials_hook_fails_the_attempt_and_not_the_device() {
    guarded(async {
        let gateway = gateway_for("5").await;
        let asked = Arc::new(AtomicU64::new(0));
        let (builder, _) = device(gateway.endpoint());
        let device = builder
            .open_timeout(Duration::from_secs(1))
            .credentials(move |_| {
                let asked = asked.clone();
                async move {
                    match asked.fetch_add(1, Ordering::Relaxed) + 1 {
                        1 => Err(Status::unavailable("no network")),
                        2 => panic!("injected panic"),
                        3 => std::future::pending().await,
                        4 => Err(Status::permission_denied("revoked")),
                        number => Ok(token(number)),
                    }
                }
            });
        let device = Running::start(device.build());
        assert_eq!(device.handle.connected().await, Ok(()));
        gateway.has(1).await;
        assert_usable(&gateway.client()).await;
        let link = device.handle.links().remove(0);
        assert_eq!(link.attempts(), 5);
        let Some(error @ DownReason::NotOpened(TunnelError::Credentials(status))) =
            link.last_down_reason()
        else {
            panic!("the hook failed: {link:?}");
        };
        assert_eq!(status.message(), "revoked");
        assert!(error.is_refusal());
    })
    .await;
}

/// The gateway was never contacted, so the hook's delay does not count against it.
#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_hangs_is_bounded_and_reported_as_the_hook() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let (builder, _) = device(gateway.endpoint());
        let builder = builder
            .open_timeout(Duration::from_millis(10))
            .credentials(|_| std::future::pending());
        let error = builder.clone().serve().await;
        let Err(TunnelError::Credentials(status)) = error else {
            panic!("the hook hangs: {error:?}");
        };
        assert_eq!(status.code(), Code::DeadlineExceeded);

        let device = builder.backoff(no_waits().initial(NEVER).cap(NEVER));
        let device = Running::start(device.build());
        device
            .state(0, |state| {
                matches!(state, LinkState::BackingOff { refused: false, .. })
            })
            .await;
        assert!(gateway.handler.tunnels().is_empty());
    })
    .await;
}

/// A failing hook causes the same backoff as a failing gateway.
#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_refuses_is_retried_at_the_slow_cap() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let (builder, _) = device(gateway.endpoint());
        let device = builder
            .backoff(Backoff::default().refused_cap(NEVER))
            .credentials(|_| async { Err(Status::unauthenticated("no refresh token")) });
        let device = Running::start(device.build());
        let refused =
            |state: &LinkState| matches!(state, LinkState::BackingOff { refused: true, .. });
        device.state(0, refused).await;
    })
    .await;
}
