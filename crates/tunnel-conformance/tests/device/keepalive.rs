//! Gateways that freeze, and gateways that limit pings.

use std::time::Duration;

use tunnel_client::{
    DownReason, ForwardTunnel, Gateway, Keepalive, ReverseTunnelServer, TransportCause,
    endpoint_for_tunnels_with, too_many_pings,
};
use tunnel_conformance::FaultProxy;

use crate::pings::{Answer, PingCounter};
use crate::support::{NEVER, Running, TestGateway, assert_usable, device, guarded};

/// Short intervals for a test, with a timeout long enough for a busy machine.
fn fast() -> Keepalive {
    Keepalive::every(Duration::from_millis(20), NEVER)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_freezes_is_noticed_and_found_again_when_it_thaws() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let link = FaultProxy::to(gateway.server.address()).await;
        let keepalive = Keepalive::new(Duration::from_millis(300));
        let (builder, _) = device(Gateway::from(link.endpoint()).keepalive(keepalive));
        let device = Running::start(builder.build());
        let tunnel = gateway.has(1).await.remove(0);
        link.freeze();
        let lost = device
            .until(0, |status| {
                !status.is_connected()
                    && matches!(status.last_down_reason(), Some(DownReason::Ended(_)))
            })
            .await;
        let Some(DownReason::Ended(reason)) = lost.last_down_reason() else {
            panic!("a tunnel has ended: {lost:?}");
        };
        // hyper reports only that the connection broke.
        let cause = reason.transport_error().map(|error| error.cause());
        assert_eq!(cause, Some(TransportCause::Io), "{reason:?}");
        link.thaw();
        gateway.has_another_than(&tunnel).await;
        assert_usable(&gateway.client()).await;
    })
    .await;
}

/// Pings do not affect a working tunnel.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_answers_pings_keeps_its_tunnel() {
    guarded(async {
        let mut server = PingCounter::start(|_| Answer::Always).await;
        let gateway = Gateway::from(server.endpoint()).keepalive(fast());
        let device = Running::start(device(gateway).0.build());
        server.pinged(0, 20).await;
        assert_eq!(device.handle.links()[0].attempts(), 1);
        assert!(device.handle.links()[0].is_connected());
    })
    .await;
}

/// A device whose gateway limits pings. A second device, whose gateway does not limit them,
/// measures time.
struct Pair {
    strict: PingCounter,
    lenient: PingCounter,
    device: Running,
    _measure: Running,
}

impl Pair {
    async fn start(strict: Answer) -> Self {
        let strict = PingCounter::start(move |_| strict).await;
        let lenient = PingCounter::start(|_| Answer::Always).await;
        let start = |server: &PingCounter| {
            let gateway = Gateway::from(server.endpoint()).keepalive(fast());
            Running::start(device(gateway).0.build())
        };
        let (device, _measure) = (start(&strict), start(&lenient));
        Self {
            strict,
            lenient,
            device,
            _measure,
        }
    }

    /// Waits until a connection to the strict gateway is not pinged while the other connection is
    /// pinged many times. Returns its number.
    async fn settled(&mut self) -> usize {
        loop {
            let (before, pings) = (self.strict.connections(), self.lenient.pings(0));
            self.lenient.pinged(0, pings + 20).await;
            let newest = self.strict.connections() - 1;
            if newest + 1 == before && self.strict.pings(newest) == 0 {
                return newest;
            }
        }
    }
}

/// The slowdown may take several connections. After it the interval stays.
async fn slows_down(strict: Answer) {
    let mut pair = Pair::start(strict).await;
    pair.lenient.pinged(0, 1).await;
    let settled = pair.settled().await;
    assert!(settled > 0);
    assert!(pair.device.handle.links()[0].is_connected());
    pair.strict.hang_up(settled);
    pair.strict.accepted(settled + 2).await;
    assert_eq!(pair.settled().await, settled + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_pings_slows_later_pings_down_permanently() {
    guarded(slows_down(Answer::TooManyAfter {
        pings: 1,
        accepted: false,
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_pings_is_inferred_when_its_notice_is_lost() {
    guarded(slows_down(Answer::TooManyAfter {
        pings: 4,
        accepted: true,
    }))
    .await;
}

/// The reason may be lost while the tunnel opens, so the test repeats the attempt.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_reason_of_a_tunnel_tells_that_there_were_too_many_pings() {
    guarded(async {
        let too_many = Answer::TooManyAfter {
            pings: 2,
            accepted: false,
        };
        let server = PingCounter::start(move |_| too_many).await;
        loop {
            let gateway = Gateway::from(server.endpoint()).keepalive(fast());
            let reason = ReverseTunnelServer::builder(gateway).serve().await;
            if reason.is_ok_and(|reason| too_many_pings(&reason)) {
                break;
            }
        }
        let endpoint = endpoint_for_tunnels_with(server.endpoint(), fast());
        let channel = endpoint.connect_lazy();
        loop {
            if let Ok(tunnel) = ForwardTunnel::new(channel.clone()).open().await
                && too_many_pings(&tunnel.ended().await)
            {
                break;
            }
        }
    })
    .await;
}
