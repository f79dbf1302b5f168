//! Heartbeats: an end that is silent for too long is lost, an end that sends is not.

use std::time::Duration;

use tunnel_core::{Config, ConnectionError, EndReason, FrameKind, Limit, Offer, Side, Status};

use crate::support::lone::Lone;
use crate::support::pair::Pair;
use crate::support::{build, offer};

const INTERVAL: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_millis(12_500);
const MOMENT: Duration = Duration::from_millis(1);

fn beats() -> Offer {
    let mut offer = offer();
    offer.heartbeat = Some(INTERVAL);
    offer
}

fn pair() -> Pair {
    Pair::with_offers(Config::default(), Config::default(), beats(), beats())
}

/// The number of heartbeats. Panics on any other frame.
fn count(frames: &[tunnel_core::Frame]) -> usize {
    for frame in frames {
        let heartbeat = build::update(-1, 0);
        assert_eq!(*frame, heartbeat, "only heartbeats");
    }
    frames.len()
}

#[test]
fn an_idle_tunnel_says_so_in_both_directions_and_lives() {
    let mut p = pair();
    for _ in 0..1000 {
        p.pass(INTERVAL);
        p.pump();
        assert_eq!(count(&p.caller.take_log()), 1);
        assert_eq!(count(&p.handler.take_log()), 1);
    }
    assert_eq!(p.caller.conn.end_reason(), None);
    assert_eq!(p.handler.conn.end_reason(), None);
}

#[test]
fn what_is_sent_takes_the_place_of_heartbeats() {
    let mut p = pair();
    let id = p.call();
    for _ in 0..40 {
        p.pass(INTERVAL / 4);
        p.caller.conn.send_stream(id).message("x".into()).unwrap();
        p.pump();
        let beats = p.caller.take_log();
        assert!(!beats.contains(&build::update(-1, 0)));
    }
    assert!(count(&p.handler.take_log()) >= 9, "which sends nothing");
}

#[test]
fn one_way_silence_ends_the_tunnel_however_much_is_sent() {
    for side in [Side::Caller, Side::Handler] {
        let mut p = pair();
        let steps = SILENCE.as_millis() / 10;
        for step in 0..steps {
            assert_eq!(p.end(side).conn.end_reason(), None, "step {step}");
            p.pass(Duration::from_millis(10));
            // Its frames arrive, the peer's do not.
            p.flush(side);
            p.write(side.peer(), usize::MAX);
            p.end(side.peer()).pipe.clear();
        }
        let reason = EndReason::Error(ConnectionError::PeerSilent(SILENCE));
        assert_eq!(p.end(side).conn.end_reason(), Some(&reason));
        assert_eq!(p.end(side.peer()).conn.end_reason(), None);
    }
}

#[test]
fn any_byte_is_life() {
    let mut lone = Lone::with_offer(Side::Caller, Config::default(), beats());
    for _ in 0..100 {
        lone.pass(SILENCE - MOMENT);
        let now = lone.now;
        lone.conn.handle_activity(now);
        lone.sent();
    }
    assert_eq!(lone.conn.end_reason(), None);
}

#[test]
fn an_end_that_was_absent_does_not_take_that_for_the_peers_absence() {
    let mut lone = Lone::with_offer(Side::Handler, Config::default(), beats());
    // Suspended for an hour: its timers are late.
    lone.pass(Duration::from_secs(3600));
    assert_eq!(lone.conn.end_reason(), None);
    // Whether or not the peer is back.
    let mut waited = Duration::ZERO;
    while lone.conn.end_reason().is_none() {
        assert!(waited < 2 * SILENCE);
        lone.sent();
        lone.pass(Duration::from_millis(50));
        waited += Duration::from_millis(50);
    }
    assert!(waited > INTERVAL, "{waited:?}");
}

#[test]
fn frames_that_waited_are_read_before_silence_is_judged() {
    let mut lone = Lone::with_offer(Side::Handler, Config::default(), beats());
    lone.now += SILENCE;
    // Neither sending nor reading ends the tunnel.
    lone.sent();
    lone.feed(build::update(-1, 0));
    let now = lone.now;
    lone.conn.handle_timeout(now);
    assert_eq!(lone.conn.end_reason(), None);
}

#[test]
fn an_end_that_does_not_read_judges_nobody() {
    let mut p = Pair::with_offers(Config::default(), Config::default(), beats(), beats());
    let config = Config::builder().max_pending_refusals(1);
    let config = config.refusal_stall_timeout(Duration::from_secs(3600));
    p.handler = Pair::with_offers(
        Config::default(),
        config.build().expect("it is valid"),
        beats(),
        beats(),
    )
    .handler;
    p.handler
        .conn
        .handle_frame(p.now, build::open(1))
        .expect("a call");
    let id = crate::support::opened(&p.handler.events())[0];
    p.handler.conn.reset(id, Status::OK);
    assert!(!p.handler.conn.wants_input());
    for _ in 0..100 {
        p.now += MOMENT * 1000;
        p.handler.conn.handle_timeout(p.now);
    }
    assert_eq!(p.handler.conn.end_reason(), None);
}

#[test]
fn peers_without_heartbeats_are_sent_them_for_the_proxies_and_may_be_silent() {
    let config = Config::default;
    let mut caller = Lone::unopened(Side::Caller, config());
    caller.conn.start(caller.now, offer());
    caller.feed(build::settings(&[0, 1], build::WINDOW));
    let mut handler = Lone::unopened(Side::Handler, config());
    handler.conn.start(handler.now, offer());
    handler.sent();
    for _ in 0..10 {
        caller.pass(INTERVAL);
        handler.pass(INTERVAL);
        assert_eq!(count(&caller.sent()), 1);
        assert_eq!(handler.sent(), [], "a Go caller would fail on it now");
    }
    handler.feed(build::open(1));
    handler.pass(INTERVAL);
    assert_eq!(count(&handler.sent()), 1);
    for _ in 0..100 {
        caller.pass(SILENCE);
        handler.pass(SILENCE);
    }
    assert_eq!(caller.conn.end_reason(), None);
    assert_eq!(handler.conn.end_reason(), None);
}

#[test]
fn without_heartbeats_of_its_own_an_end_sends_none_and_judges_nobody() {
    let config = Config::builder().heartbeat(None).build();
    let mut lone = Lone::with_offer(Side::Caller, config.expect("it is valid"), beats());
    assert_eq!(lone.conn.poll_timeout(), None);
    lone.pass(100 * SILENCE);
    assert_eq!(lone.sent(), []);
    assert_eq!(lone.conn.end_reason(), None);
}

#[test]
fn a_call_without_any_answer_shows_since_when() {
    let mut p = pair();
    assert_eq!(p.caller.conn.unanswered_since(), None);
    p.pass(MOMENT);
    let sent = p.now;
    let id = p.open();
    p.flush(Side::Caller);
    p.pass(MOMENT);
    p.open();
    p.flush(Side::Caller);
    assert_eq!(p.caller.conn.unanswered_since(), Some(sent), "the first");
    let now = p.now;
    p.caller.conn.handle_activity(now);
    assert_eq!(p.caller.conn.unanswered_since(), None, "a frame arrived");
    let given_up = p.open();
    p.flush(Side::Caller);
    p.caller.conn.cancel(given_up);
    assert!(p.caller.conn.unanswered_since().is_some(), "nothing came");
    p.handler.conn.reset(id, Status::OK);
    p.pump();
    assert_eq!(p.caller.conn.unanswered_since(), None);
    let answered = p.caller.conn.recv_stream(id).read();
    assert!(matches!(answered, tunnel_core::Read::Closed(_)));
    let beats = p.handler.take_log();
    assert!(beats.iter().any(|f| matches!(f.kind, FrameKind::Close(_))));
}

#[test]
fn heartbeats_measure_the_round_trip_also_while_calls_send() {
    let mut probes = beats();
    probes.echo = true;
    let mut p = Pair::with_offers(Config::default(), Config::default(), probes, probes);
    let id = p.call();
    assert_eq!(p.caller.conn.stats().round_trip, None);
    for round in 1..=3 {
        p.caller.conn.send_stream(id).message("x".into()).unwrap();
        p.pass(INTERVAL - 30 * MOMENT);
        p.flush(Side::Caller);
        p.pass(30 * MOMENT);
        p.write(Side::Caller, usize::MAX);
        p.pass(30 * MOMENT);
        p.carry(Side::Caller, usize::MAX);
        p.flush(Side::Handler);
        p.caller.events();
        let stats = p.caller.conn.stats();
        assert_eq!(stats.round_trip, Some(30 * MOMENT));
        assert_eq!(stats.round_trips, round);
        p.pump();
        p.now -= 30 * MOMENT;
    }
}

#[test]
fn an_echo_that_was_not_asked_for_is_a_stray_frame() {
    for (probes, frame) in [(false, 1), (false, 2), (true, 2)] {
        let config = Config::builder().max_stray_frames(1).build();
        let mut offer = beats();
        offer.echo = probes;
        let mut lone = Lone::with_offer(Side::Handler, config.expect("it is valid"), offer);
        let now = lone.now;
        lone.conn
            .handle_frame(now, build::update(-1, frame))
            .expect("the first");
        let error = lone.conn.handle_frame(now, build::update(-1, frame));
        assert_eq!(error, Err(ConnectionError::Limit(Limit::StrayFrames)));
        assert_eq!(lone.conn.stats().limit_reached(Limit::StrayFrames), 1);
    }
}
