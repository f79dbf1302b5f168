//! The negotiation of a tunnel.

use std::time::Duration;

use tunnel_core::{
    Code, Config, ConnectionError, EndReason, Event, FrameKind, Metadata, Offer, OpenError,
    Revision, Revisions, Side, StreamId,
};

use crate::support::letters;
use crate::support::offer;
use crate::support::pair::Pair;

fn speaking(revisions: Revisions) -> Config {
    Config::builder()
        .revisions(revisions)
        .build()
        .expect("it is valid")
}

#[test]
fn settings_come_first_and_a_caller_waits_for_them() {
    let window = |size| Config::builder().initial_window(size).build().unwrap();
    let (ours, config) = (window(60_000), window(70_000));
    let mut p = Pair::with(ours.clone(), config);
    assert_eq!(p.caller.conn.revision(), Revision::One);
    let mut p2 = Pair::unopened(ours, p.handler.conn.config().clone());
    std::mem::swap(&mut p, &mut p2);
    let open = |p: &mut Pair| p.caller.conn.open(p.now, "/a/b", Metadata::new());
    assert_eq!(open(&mut p), Err(OpenError::NotReady));
    p.start(offer(), offer());
    assert_eq!(open(&mut p), Err(OpenError::NotReady));
    assert_eq!(p.write(Side::Caller, usize::MAX), 0);
    assert_eq!(
        p.handler.events(),
        [Event::Ready],
        "a handler needs no answer"
    );

    assert_eq!(p.write(Side::Handler, usize::MAX), 1);
    let FrameKind::Settings(settings) = &p.handler.log[0].kind else {
        panic!("{:?}", p.handler.log)
    };
    assert_eq!(p.handler.log[0].stream_id, StreamId::CONTROL);
    assert_eq!(
        (&settings.revisions[..], settings.initial_window),
        (&[0, 1][..], 70_000)
    );
    p.carry(Side::Handler, 1);
    assert_eq!(p.caller.events(), [Event::Ready]);
    assert!(p.caller.conn.is_ready());
    open(&mut p).expect("it is ready");
    p.write(Side::Caller, usize::MAX);
    let FrameKind::NewStream(new) = &p.caller.log[0].kind else {
        panic!("{:?}", p.caller.log)
    };
    assert_eq!((new.revision, new.initial_window), (1, 60_000));
}

#[test]
fn the_highest_revision_that_both_speak_is_chosen() {
    use Revisions::{OnlyOne, OnlyZero, ZeroAndOne};
    for (caller, handler, revision) in [
        (ZeroAndOne, ZeroAndOne, Revision::One),
        (ZeroAndOne, OnlyOne, Revision::One),
        (OnlyOne, ZeroAndOne, Revision::One),
        (ZeroAndOne, OnlyZero, Revision::Zero),
        (OnlyZero, ZeroAndOne, Revision::Zero),
        (OnlyZero, OnlyZero, Revision::Zero),
    ] {
        let mut p = Pair::with(speaking(caller), speaking(handler));
        assert_eq!(p.caller.conn.revision(), revision, "{caller:?} {handler:?}");
        p.open();
        p.pump();
        let FrameKind::NewStream(new) = &p.caller.log[0].kind else {
            panic!("{:?}", p.caller.log)
        };
        assert_eq!(new.revision, revision.to_wire());
        assert_eq!(p.handler.conn.active_streams(), 1, "the handler takes it");
    }
}

#[test]
fn two_ends_without_a_common_revision_do_not_get_together() {
    let mut p = Pair::unopened(speaking(Revisions::OnlyOne), speaking(Revisions::OnlyZero));
    p.start(offer(), offer());
    p.write(Side::Handler, usize::MAX);
    let frame = p.handler.pipe.pop_front().expect("settings");
    let error = p
        .caller
        .conn
        .handle_frame(p.now, frame)
        .expect_err("no revision");
    assert_eq!(error, ConnectionError::NoCommonRevision { theirs: vec![0] });
    assert_eq!(error.code(), Code::FailedPrecondition);

    // A peer that does not negotiate speaks revision zero.
    for side in [Side::Caller, Side::Handler] {
        let mut p = Pair::unopened(speaking(Revisions::OnlyOne), speaking(Revisions::OnlyOne));
        p.start(Offer::none(), Offer::none());
        assert!(matches!(
            p.end(side).conn.end_reason(),
            Some(EndReason::Error(ConnectionError::NoCommonRevision { .. }))
        ));
    }
}

/// A frame on stream -1 that carries nothing: a heartbeat.
fn is_heartbeat(frame: &tunnel_core::Frame) -> bool {
    frame.stream_id == StreamId::CONTROL && matches!(frame.kind, FrameKind::WindowUpdate(0))
}

#[test]
fn a_handler_that_asks_hears_when_its_caller_routes_calls() {
    let mut asks = offer();
    asks.ready = true;
    let mut p = Pair::unopened(Config::default(), Config::default());
    p.start(asks, asks);
    p.caller.conn.announce_ready();
    p.flush(Side::Handler);
    assert_eq!(p.caller.events(), [Event::Ready]);
    // Ready, but not announced: not even a heartbeat is sent.
    let interval = Config::default().heartbeat().expect("on");
    p.pass(interval * 2);
    p.flush(Side::Caller);
    assert_eq!(
        (p.caller.take_log(), p.handler.events()),
        (vec![], vec![Event::Ready])
    );

    p.caller.conn.announce_ready();
    p.caller.conn.announce_ready();
    p.flush(Side::Caller);
    assert_eq!(p.handler.events(), [Event::PeerReady]);
    let log = p.caller.take_log();
    assert!(matches!(&log[..], [one] if is_heartbeat(one)), "{log:?}");
    // Only the first frame is reported.
    p.call();
}

#[test]
fn a_caller_announces_nothing_to_a_handler_that_does_not_ask() {
    let mut p = Pair::new(Config::default());
    p.caller.conn.announce_ready();
    assert!(!p.caller.conn.wants_transmit());
    let mut asks = Offer::none();
    asks.ready = true;
    let mut p = Pair::with_offers(Config::default(), Config::default(), asks, asks);
    p.caller.conn.announce_ready();
    assert!(!p.caller.conn.wants_transmit(), "revision zero");
}

#[test]
fn a_caller_gives_up_waiting_for_settings() {
    let config = || crate::support::quiet(Config::default(), offer());
    let mut p = Pair::unopened(config(), config());
    p.start(offer(), offer());
    let timeout = p.caller.conn.config().settings_timeout();
    assert_eq!(p.caller.conn.poll_timeout(), Some(p.now + timeout));
    p.pass(timeout - Duration::from_nanos(1));
    assert_eq!(p.caller.conn.end_reason(), None);
    p.pass(Duration::from_nanos(1));
    let error = ConnectionError::SettingsTimeout;
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert_eq!(p.caller.events(), [Event::Ended(error.into())]);
    assert_eq!(p.caller.conn.poll_timeout(), None);
}

#[test]
fn a_peer_that_does_not_negotiate_is_ready_at_once() {
    let mut p = Pair::unopened(Config::default(), Config::default());
    p.start(Offer::none(), Offer::none());
    assert_eq!(p.caller.events(), [Event::Ready]);
    assert_eq!(p.handler.events(), [Event::Ready]);
    assert_eq!(p.caller.conn.revision(), Revision::Zero);
    assert_eq!(p.handler.conn.revision(), Revision::Zero);
    p.pump();
    assert_eq!(letters(&p.handler.log), "");
    assert_eq!(p.caller.conn.poll_timeout(), None);
}

#[test]
fn drain_notices_need_negotiation() {
    // A peer that does not negotiate cannot understand it, whatever its other header says.
    let mut odd = Offer::none();
    odd.drain = true;
    let mut p = Pair::unopened(Config::default(), Config::default());
    p.start(odd, odd);
    p.open();
    p.pump();
    p.handler.conn.drain(p.now, None);
    p.pump();
    assert_eq!(letters(&p.handler.log), "");
}
