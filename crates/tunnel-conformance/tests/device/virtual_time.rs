//! Backoff of a device in virtual time. The gateway runs in the same runtime without a socket.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tonic::Status;
use tonic::service::Routes;
use tunnel_client::{Gateway, LinkState, ReverseTunnelServer, ReverseTunnelServerBuilder};
use tunnel_server::{AcceptedTunnel, TunnelServiceHandler, TunnelServiceHandlerBuilder};

use crate::support::Running;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Fails a test that exceeds a limit of virtual time. A test that hangs reaches it at once.
pub(crate) async fn guarded(test: impl Future<Output = ()>) {
    let year = Duration::from_secs(365 * 24 * 3600);
    let in_time = tokio::time::timeout(year, test).await;
    in_time.expect("the test hangs");
}

/// A gateway that records each opening request and each opened tunnel.
pub(crate) struct Local {
    pub(crate) handler: TunnelServiceHandler,
    asked: mpsc::UnboundedReceiver<Instant>,
    opened: mpsc::UnboundedReceiver<AcceptedTunnel>,
}

impl Local {
    pub(crate) fn new(answer: impl Fn() -> Result<(), Status> + Send + Sync + 'static) -> Self {
        Self::with(|builder| builder, answer)
    }

    /// The same with custom settings.
    pub(crate) fn with(
        settings: impl FnOnce(TunnelServiceHandlerBuilder) -> TunnelServiceHandlerBuilder,
        answer: impl Fn() -> Result<(), Status> + Send + Sync + 'static,
    ) -> Self {
        let (ask, asked) = mpsc::unbounded_channel();
        let (open, opened) = mpsc::unbounded_channel();
        let handler = TunnelServiceHandler::builder()
            .admit(move |_| {
                let _ = ask.send(Instant::now());
                std::future::ready(answer())
            })
            .on_open(move |tunnel| {
                let _ = open.send(tunnel.clone());
            });
        let handler = settings(handler).build();
        Self {
            handler,
            asked,
            opened,
        }
    }

    pub(crate) fn gateway(&self) -> Gateway {
        Gateway::over(Routes::new(self.handler.service()))
    }

    /// A device with the default settings.
    pub(crate) fn device(&self) -> ReverseTunnelServerBuilder {
        ReverseTunnelServer::builder(self.gateway())
    }

    pub(crate) async fn asked(&mut self) -> Instant {
        self.asked.recv().await.expect("the gateway lives")
    }

    pub(crate) async fn opened(&mut self) -> AcceptedTunnel {
        self.opened.recv().await.expect("the gateway lives")
    }

    /// The waits of the device between its attempts.
    async fn waits(&mut self, count: usize) -> Vec<Duration> {
        let mut last = self.asked().await;
        let mut waits = Vec::new();
        for _ in 0..count {
            let next = self.asked().await;
            waits.push(next - last);
            last = next;
        }
        waits
    }

    /// Kicks each tunnel after it was open for `open`. Returns how long each reconnection took.
    pub(crate) async fn waits_after_tunnels(
        &mut self,
        open: Duration,
        count: usize,
    ) -> Vec<Duration> {
        let mut waits = Vec::new();
        self.asked().await;
        for _ in 0..count {
            let tunnel = self.opened().await;
            sleep(open).await;
            tunnel.close_with(Status::aborted("kicked"));
            let kicked = Instant::now();
            waits.push(self.asked().await - kicked);
        }
        waits
    }
}

/// The backoff policy reads the wall clock, so waits differ slightly from virtual time.
pub(crate) const ROUNDING: Duration = Duration::from_millis(50);

#[tokio::test(start_paused = true)]
async fn waits_after_failures_double_with_full_jitter_up_to_thirty_seconds() {
    guarded(async {
        let mut gateway = Local::new(|| Err(Status::unavailable("later")));
        let _device = Running::start(gateway.device().build());
        let waits = gateway.waits(300).await;
        for (failure, wait) in waits.iter().enumerate() {
            let step = SECOND.mul_f64(0.5 * 2f64.powi(failure.min(10) as i32));
            assert!(
                *wait <= step.min(30 * SECOND) + ROUNDING,
                "{failure}: {wait:?}"
            );
        }
        // The probability of a false failure is about 10^-13.
        let late = &waits[10..];
        assert!(late.iter().any(|wait| *wait < 3 * SECOND));
        assert!(late.iter().any(|wait| *wait > 27 * SECOND));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn waits_after_lasting_refusals_are_one_to_two_minutes_from_the_first_on() {
    guarded(async {
        let mut gateway = Local::new(|| Err(Status::unauthenticated("who?")));
        let _device = Running::start(gateway.device().build());
        for wait in gateway.waits(50).await {
            assert!(wait + ROUNDING >= 60 * SECOND, "{wait:?}");
            assert!(wait <= 120 * SECOND + ROUNDING, "{wait:?}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_was_open_for_ten_seconds_resets_the_backoff() {
    guarded(async {
        let mut gateway = Local::new(|| Ok(()));
        let _device = Running::start(gateway.device().build());
        for wait in gateway.waits_after_tunnels(11 * SECOND, 100).await {
            assert!(wait <= SECOND / 2 + ROUNDING, "{wait:?}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_ends_sooner_counts_as_a_failure() {
    guarded(async {
        let mut gateway = Local::new(|| Ok(()));
        let _device = Running::start(gateway.device().build());
        let waits = gateway.waits_after_tunnels(9 * SECOND, 100).await;
        assert!(waits.iter().any(|wait| *wait > 15 * SECOND));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_only_gateway_is_dialled_in_the_same_moment_in_which_it_drains() {
    guarded(async {
        let mut gateway = Local::new(|| Ok(()));
        let _device = Running::start(gateway.device().build());
        gateway.asked().await;
        for _ in 0..20 {
            let tunnel = gateway.opened().await;
            sleep(11 * SECOND).await;
            let told = Instant::now();
            tunnel.drain(Duration::MAX).await;
            assert_eq!(gateway.asked().await, told);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn another_gateway_is_dialled_in_the_same_moment_and_the_primary_soon() {
    guarded(async {
        let mut home = Local::new(|| Ok(()));
        let mut other = Local::new(|| Ok(()));
        let builder = home.device().gateway(other.gateway());
        let _device = Running::start(builder.build());
        other.asked().await;
        home.asked().await;
        for _ in 0..20 {
            let tunnel = home.opened().await;
            sleep(11 * SECOND).await;
            let told = Instant::now();
            tunnel.drain(Duration::MAX).await;
            assert_eq!(other.asked().await, told);
            assert!(home.asked().await - told <= SECOND / 2 + ROUNDING);
        }
    })
    .await;
}

/// The end of the wait, which a user interface can show.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_wait_is_known_beforehand() {
    guarded(async {
        let mut gateway = Local::new(|| Err(Status::unauthenticated("who?")));
        let device = Running::start(gateway.device().build());
        gateway.asked().await;
        for _ in 0..10 {
            let status = device
                .until(0, |status| {
                    matches!(status.state(), LinkState::BackingOff { .. })
                })
                .await;
            let LinkState::BackingOff { until, refused, .. } = status.state() else {
                unreachable!("{status:?}");
            };
            assert!(*refused);
            let asked = gateway.asked().await;
            // The timer's resolution is one millisecond.
            assert!(asked.into_std() >= *until);
            assert!(asked.into_std() <= *until + Duration::from_millis(2));
            device
                .until(0, |status| !matches!(status.state(), LinkState::Connecting))
                .await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_removed_gateway_is_given_up_after_the_time_of_an_attempt_if_no_other_accepts() {
    guarded(async {
        let mut home = Local::new(|| Ok(()));
        let silent = || {
            Gateway::connect_with(
                "silent",
                std::future::pending::<Result<tonic::transport::Channel, Status>>,
            )
        };
        let builder = ReverseTunnelServer::builder(home.gateway().name("home")).gateway(silent());
        let device = Running::start(builder.build());
        let tunnel = home.opened().await;
        sleep(100 * SECOND).await;
        let removed = Instant::now();
        device.handle.remove_gateway("home");
        tunnel.closed().await;
        assert_eq!(removed.elapsed().as_secs(), 20);
        device.until(0, |status| status.gateway() == "silent").await;
        assert_eq!(device.handle.links().len(), 1);

        // Without any other gateway there is nothing to wait for.
        device.handle.remove_gateway("silent");
        device
            .handle
            .add_gateway(home.gateway().name("home"))
            .expect("it runs");
        let tunnel = home.opened().await;
        let removed = Instant::now();
        device.handle.remove_gateway("home");
        tunnel.closed().await;
        assert!(removed.elapsed() < SECOND);
    })
    .await;
}

/// A hang in any step, here in connecting, fails the attempt at its timeout.
#[tokio::test(start_paused = true)]
async fn an_attempt_is_given_up_after_twenty_seconds() {
    guarded(async {
        let attempts = Arc::new(Mutex::new(Vec::new()));
        let noted = attempts.clone();
        let silent = Gateway::connect_with("silent", move || {
            let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
            noted.push(Instant::now());
            std::future::pending::<Result<tonic::transport::Channel, Status>>()
        });
        let device = ReverseTunnelServer::builder(silent).build();
        let device = Running::start(device);
        let begun = Instant::now();
        device
            .state(0, |state| matches!(state, LinkState::BackingOff { .. }))
            .await;
        assert_eq!(begun.elapsed().as_secs(), 20);
        device.until(0, |status| status.attempts() == 3).await;
        assert_eq!(attempts.lock().expect("no panic").len(), 3);
    })
    .await;
}
