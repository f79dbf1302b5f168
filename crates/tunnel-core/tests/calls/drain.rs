//! Tunnels that are drained.

use std::time::Duration;

use tunnel_core::{
    Code, Config, EndReason, Event, Frame, FrameKind, Initiator, Metadata, NOT_PROCESSED_KEY,
    Offer, OpenError, Read, Side, Status, StreamId,
};

use crate::support::offer;
use crate::support::pair::Pair;
use crate::support::reader::{Reader, bytes, read_all};
use crate::support::{letters, opened};

const SECOND: Duration = Duration::from_secs(1);
const DRAINED: Event = Event::Ended(EndReason::Drained);

fn pair() -> Pair {
    Pair::new(Config::default())
}

/// A tunnel whose caller does not understand drain notices.
fn pair_without_the_word() -> Pair {
    let mut callers = offer();
    callers.drain = false;
    Pair::with_offers(Config::default(), Config::default(), callers, offer())
}

/// The handler answers a call, and the caller reads the answer.
#[track_caller]
fn finish(p: &mut Pair, id: StreamId) {
    let mut send = p.handler.conn.send_stream(id);
    send.message("x".into()).expect("it is open");
    send.close(Metadata::new(), Status::OK).expect("it is open");
    p.pump();
    let (messages, end) = read_all(&mut p.caller.conn, id);
    assert_eq!(messages.len(), 1);
    assert!(matches!(end, Read::Closed(_)), "{end:?}");
}

#[test]
fn a_handler_drains_and_both_ends_are_over_when_the_last_call_is() {
    let mut p = pair();
    let [a, b] = [p.call(), p.call()];
    p.handler.conn.drain(p.now, None);
    p.pump();
    assert_eq!(letters(&p.handler.log), "C");
    assert_eq!(p.handler.log[0].stream_id, StreamId::CONTROL);
    assert_eq!(
        p.caller.events(),
        [Event::GoingAway {
            last: Some(StreamId::new(2))
        }]
    );
    assert!(p.caller.conn.is_draining() && p.handler.conn.is_draining());
    let refused = p.caller.conn.open(p.now, "/a/b", Metadata::new());
    assert_eq!(refused, Err(OpenError::Draining));

    finish(&mut p, a);
    assert_eq!(p.handler.conn.end_reason(), None);
    finish(&mut p, b);
    assert_eq!(p.handler.events(), [DRAINED]);
    assert_eq!(p.caller.conn.end_reason(), Some(&EndReason::PeerDrained));
    p.assert_idle();
}

#[test]
fn a_tunnel_without_calls_drains_at_once_and_says_so_first() {
    let mut p = pair();
    p.handler.conn.drain(p.now, None);
    assert_eq!(p.handler.conn.end_reason(), None, "the notice is not sent");
    p.write(Side::Handler, usize::MAX);
    assert_eq!(p.handler.conn.end_reason(), Some(&EndReason::Drained));
    assert_eq!(p.caller.conn.end_reason(), None);
    p.carry(Side::Handler, 1);
    assert_eq!(p.caller.conn.end_reason(), Some(&EndReason::PeerDrained));
    let ended = Event::Ended(EndReason::PeerDrained);
    assert_eq!(p.caller.events(), [Event::GoingAway { last: None }, ended]);
}

#[test]
fn a_callers_drain_waits_for_its_calls_and_ends_when_its_last_frame_is_sent() {
    let mut p = pair();
    let id = p.call();
    p.caller.conn.drain(p.now, None);
    let refused = p.caller.conn.open(p.now, "/a/b", Metadata::new());
    assert_eq!(refused, Err(OpenError::Draining));
    p.caller
        .conn
        .send_stream(id)
        .message(bytes(100_000))
        .unwrap();
    p.caller.conn.send_stream(id).finish().unwrap();
    let mut reader = Reader::new(id);
    p.read_until(Side::Handler, &mut reader, 1);
    finish(&mut p, id);
    assert_eq!(p.caller.conn.end_reason(), Some(&EndReason::Drained));
    assert_eq!(
        p.handler.conn.end_reason(),
        None,
        "its transport will report the end"
    );

    let mut p = pair();
    p.caller.conn.drain(p.now, None);
    assert_eq!(p.caller.conn.end_reason(), None, "the notice is not sent");
    p.pump();
    assert_eq!(p.caller.events(), [DRAINED]);
    p.handler.conn.handle_end();
    assert_eq!(p.handler.conn.end_reason(), Some(&EndReason::PeerDrained));
}

#[test]
fn a_handler_is_told_that_its_caller_drains_and_goes_on_until_the_caller_ends() {
    let mut p = pair();
    let (first, late) = (p.call(), p.open());
    p.caller.conn.drain(p.now, None);
    p.pump();
    let events = p.handler.events();
    assert!(
        events.contains(&Event::GoingAway {
            last: Some(StreamId::new(1))
        }),
        "{events:?}"
    );
    assert!(p.handler.conn.is_draining());
    // Calls that were opened before it are served.
    finish(&mut p, first);
    finish(&mut p, late);
    assert_eq!(p.caller.conn.end_reason(), Some(&EndReason::Drained));
    assert_eq!(
        p.handler.conn.end_reason(),
        None,
        "its transport will report the end"
    );
    p.handler.conn.handle_end();
    assert_eq!(p.handler.conn.end_reason(), Some(&EndReason::PeerDrained));
}

#[test]
fn a_caller_that_ends_its_drain_with_calls_left_has_closed_the_tunnel() {
    let mut p = pair();
    p.call();
    p.caller.conn.drain(p.now, None);
    p.pump();
    p.handler.conn.handle_end();
    assert_eq!(p.handler.conn.end_reason(), Some(&EndReason::PeerClosed));
}

#[test]
fn a_callers_notice_is_sent_only_to_a_peer_that_understands_it() {
    for knows in [true, false] {
        let mut handlers = Offer::none();
        handlers.negotiate = true;
        handlers.drain = knows;
        let config = Config::default;
        let mut p = Pair::with_offers(config(), config(), offer(), handlers);
        let id = p.call();
        p.pump();
        p.caller.take_log();
        p.caller.conn.drain(p.now, None);
        p.pump();
        let word = Frame {
            stream_id: StreamId::new(-1),
            kind: FrameKind::HalfClose,
        };
        assert_eq!(p.caller.take_log().contains(&word), knows);
        finish(&mut p, id);
    }
}

#[test]
fn a_call_that_comes_while_its_handler_drains_is_refused_as_not_processed() {
    for mut p in [pair(), pair_without_the_word()] {
        let old = p.call();
        p.handler.conn.drain(p.now, None);
        let new = p.open();
        p.caller
            .conn
            .send_stream(new)
            .message(bytes(70_000))
            .unwrap();
        p.caller.conn.send_stream(new).finish().unwrap();
        p.flush(Side::Caller);
        assert_eq!(opened(&p.handler.events()), []);
        p.write(Side::Handler, usize::MAX);
        let close = p.handler.log.iter().find_map(|f| match &f.kind {
            FrameKind::Close(close) if f.stream_id == new => Some(close),
            _ => None,
        });
        let close = close.expect("it is refused");
        assert_eq!(close.status.code, Code::Unavailable);
        assert_eq!(close.trailers.get(NOT_PROCESSED_KEY), Some("1"));
        p.pump();
        finish(&mut p, old);
        p.pass(SECOND);
        assert_eq!(p.handler.conn.end_reason(), Some(&EndReason::Drained));
    }
}

/// A call may be under way at any time if the peer does not know about the drain.
#[test]
fn a_drained_tunnel_whose_caller_was_not_told_refuses_calls_for_a_moment_longer() {
    let mut p = pair_without_the_word();
    let id = p.call();
    p.handler.conn.drain(p.now, None);
    finish(&mut p, id);
    p.pass(SECOND / 2);
    let late = p.open();
    p.pump();
    let (_, end) = read_all(&mut p.caller.conn, late);
    let Read::Closed(close) = end else {
        panic!("it is refused, not cut: {end:?}");
    };
    assert_eq!(close.status.code, Code::Unavailable);
    assert_eq!(p.handler.conn.end_reason(), None);
    p.pass(SECOND / 2);
    assert_eq!(p.handler.events().last(), Some(&DRAINED));

    let at_once = Config::builder().drain_grace(Duration::ZERO).build();
    let mut callers = offer();
    callers.drain = false;
    let at_once = at_once.expect("valid");
    let mut p = Pair::with_offers(Config::default(), at_once, callers, offer());
    p.handler.conn.drain(p.now, None);
    assert_eq!(p.handler.conn.end_reason(), Some(&EndReason::Drained));
}

#[test]
fn a_caller_that_asks_for_another_tunnel_calls_through_this_one_until_it_drains_it() {
    let mut p = pair();
    assert!(p.caller.conn.retire(p.now), "the handler understands");
    p.pump();
    assert_eq!(p.handler.events(), [Event::GoingAway { last: None }]);
    assert_eq!(letters(&p.caller.take_log()), "E");
    let id = p.call();
    finish(&mut p, id);
    assert_eq!(p.caller.conn.end_reason(), None);
    p.caller.take_log();
    p.caller.conn.drain(p.now, None);
    p.pump();
    assert_eq!(letters(&p.caller.log), "", "the notice is sent once");
    assert_eq!(p.caller.conn.end_reason(), Some(&EndReason::Drained));
    let mut deaf = offer();
    deaf.drain = false;
    let mut p = Pair::with_offers(Config::default(), Config::default(), offer(), deaf);
    assert!(!p.caller.conn.retire(p.now), "it cannot be requested");
}

#[test]
fn a_caller_told_of_a_drain_gives_up_the_calls_beyond_the_last_one_taken() {
    let mut p = pair();
    let taken = p.call();
    p.handler.conn.drain(p.now, None);
    let written = p.open();
    p.write(Side::Caller, usize::MAX);
    let unwritten = p.open();
    p.flush(Side::Handler);
    p.pump();
    for id in [written, unwritten] {
        let Read::Failed(error) = p.caller.conn.recv_stream(id).read() else {
            panic!("{id} is given up")
        };
        assert_eq!((error.code, error.not_processed), (Code::Unavailable, true));
        assert_eq!(error.initiator, Initiator::Remote);
    }
    assert_eq!(
        letters(&p.caller.log),
        "N",
        "neither opened nor cancelled later"
    );
    finish(&mut p, taken);
    assert_eq!(p.caller.conn.end_reason(), Some(&EndReason::PeerDrained));
}

#[test]
fn a_handlers_notice_is_sent_only_to_a_peer_that_understands_it() {
    let mut p = pair_without_the_word();
    let id = p.call();
    p.handler.conn.drain(p.now, None);
    p.pump();
    assert_eq!(letters(&p.handler.log), "");
    assert!(!p.caller.conn.is_draining());
    finish(&mut p, id);
    p.pass(SECOND);
    assert_eq!(p.handler.conn.end_reason(), Some(&EndReason::Drained));
    assert_eq!(p.caller.conn.end_reason(), None);
}

#[test]
fn a_drain_asked_for_before_the_tunnel_is_open_takes_place_when_it_is() {
    for (side, said) in [(Side::Caller, "E"), (Side::Handler, "SC")] {
        let mut p = Pair::unopened(Config::default(), Config::default());
        let now = p.now;
        p.end(side).conn.drain(now, None);
        assert_eq!(p.end(side).conn.end_reason(), None);
        p.start(offer(), offer());
        p.pump();
        let end = p.end(side);
        assert_eq!(end.conn.end_reason(), Some(&EndReason::Drained), "{side:?}");
        assert_eq!(end.events(), [Event::Ready, DRAINED]);
        assert_eq!(letters(&end.log), said);
    }
}

#[test]
fn a_drain_asked_for_before_a_tunnel_without_negotiation_ends_it_as_it_opens() {
    for side in [Side::Caller, Side::Handler] {
        let mut p = Pair::unopened(Config::default(), Config::default());
        let now = p.now;
        p.end(side).conn.drain(now, None);
        p.start(Offer::none(), Offer::none());
        // A handler's drain waits for the calls that may be under way.
        p.pass(SECOND);
        assert_eq!(p.end(side).events(), [Event::Ready, DRAINED]);
    }
}

#[test]
fn a_drains_deadline_cuts_the_calls_in_flight() {
    let mut p = pair();
    let id = p.call();
    p.handler.conn.drain(p.now, Some(p.now + 5 * SECOND));
    p.pump();
    p.pass(4 * SECOND);
    assert_eq!(p.handler.conn.active_streams(), 1);
    p.pass(SECOND);
    let events = p.handler.events();
    let [Event::Cancelled { error, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(
        (error.code, error.initiator),
        (Code::Unavailable, Initiator::User)
    );
    p.pump();
    assert_eq!(p.handler.events(), [DRAINED]);
    let Read::Closed(close) = p.caller.conn.recv_stream(id).read() else {
        panic!("the caller was told")
    };
    assert_eq!(close.status.code, Code::Unavailable);
    assert_eq!(p.caller.conn.end_reason(), Some(&EndReason::PeerDrained));
    p.assert_idle();
}

#[test]
fn a_callers_drain_ends_by_its_deadline_whether_its_calls_are_read_or_not() {
    let mut p = pair();
    let id = p.call();
    p.caller.conn.drain(p.now, Some(p.now + SECOND));
    p.pass(SECOND);
    p.pump();
    assert_eq!(letters(&p.caller.log), "EX", "the handler is told");
    assert_eq!(p.caller.conn.end_reason(), Some(&EndReason::Drained));
    assert_eq!(p.caller.conn.poll_timeout(), None);
    let Read::Failed(error) = p.caller.conn.recv_stream(id).read() else {
        panic!("it was cut")
    };
    assert_eq!(
        (error.code, error.initiator),
        (Code::Unavailable, Initiator::User)
    );
    p.assert_idle();
}

#[test]
fn a_drain_ends_soon_after_its_deadline_even_if_nothing_can_be_sent() {
    for side in [Side::Caller, Side::Handler] {
        let mut p = pair();
        p.call();
        let now = p.now;
        p.end(side).conn.drain(now, Some(now + SECOND));
        p.pass(SECOND);
        assert_eq!(
            p.end(side).conn.end_reason(),
            None,
            "it has a notice to send"
        );
        let at = p
            .end(side)
            .conn
            .poll_timeout()
            .expect("it does not wait for ever");
        p.pass(at - p.now);
        assert_eq!(
            p.end(side).conn.end_reason(),
            Some(&EndReason::Drained),
            "{side:?}"
        );
    }
}

#[test]
fn a_second_drain_can_only_bring_the_deadline_forward() {
    let mut p = pair();
    p.call();
    let start = p.now;
    p.handler.conn.drain(start, Some(start + 5 * SECOND));
    p.handler.conn.drain(start, Some(start + 9 * SECOND));
    p.handler.conn.drain(start, None);
    assert_eq!(p.handler.conn.poll_timeout(), Some(start + 5 * SECOND));
    p.handler.conn.drain(start, Some(start + 2 * SECOND));
    assert_eq!(p.handler.conn.poll_timeout(), Some(start + 2 * SECOND));
    p.pump();
    assert_eq!(letters(&p.handler.log), "C", "it is sent once");
}

#[test]
fn a_drained_handler_ends_only_after_its_last_close_is_written() {
    let mut p = pair();
    let id = p.call();
    p.handler.conn.drain(p.now, None);
    p.pump();
    p.handler
        .conn
        .send_stream(id)
        .message(bytes(20_000))
        .unwrap();
    p.handler
        .conn
        .send_stream(id)
        .close(Metadata::new(), Status::OK)
        .unwrap();
    p.handler.take_log();
    while p.handler.conn.end_reason().is_none() {
        assert!(p.write(Side::Handler, 1) > 0);
    }
    assert_eq!(letters(&p.handler.log), "HMdC");
}
