//! Frames for streams that have ended. As many are ignored as can have been in flight, and some
//! more, whatever the application has read.

use std::time::Duration;

use tunnel_core::{
    Code, Config, ConnectionError, Event, Frame, Limit, Metadata, Offer, Read, Side, Status,
    StreamId,
};

use crate::support::build;
use crate::support::lone::Lone;
use crate::{Tunnel, handler, own_window};

/// Only frames that can have been in flight are ignored.
fn strict() -> Config {
    Config::builder()
        .max_stray_frames(0)
        .build()
        .expect("it is valid")
}

/// A window of messages, and other frames that may be in flight from a handler to its caller.
fn from_handler(id: StreamId, answered: bool) -> Vec<Frame> {
    let id = id.value();
    let mut frames: Vec<_> = (0..4)
        .map(|_| build::message(id, vec![0; own_window() / 4]))
        .collect();
    if !answered {
        frames.insert(0, build::headers(id, Metadata::new()));
    }
    frames.push(build::close(id, Code::Ok));
    frames
}

/// The same from a caller to its handler.
fn from_caller(id: i64) -> Vec<Frame> {
    let mut frames: Vec<_> = (0..4)
        .map(|_| build::message(id, vec![0; own_window() / 4]))
        .collect();
    frames.extend([
        build::message(id, ""),
        build::half_close(id),
        build::cancel(id),
    ]);
    frames
}

#[test]
fn frames_of_all_kinds_for_a_stream_that_has_ended_are_ignored() {
    let mut tunnel = handler();
    let id = tunnel.accept();
    tunnel
        .lone
        .conn
        .send_stream(id)
        .close(Metadata::new(), Status::OK)
        .unwrap();
    tunnel.lone.sent();
    let id = id.value();
    for frame in [
        build::message(id, "x"),
        build::message(id, ""),
        build::begin(id, 1, "too much"),
        build::more(id, "x"),
        build::half_close(id),
        build::half_close(id),
        build::cancel(id),
        build::update(id, 0),
        build::update(id, u32::MAX),
        build::unknown(id),
    ] {
        tunnel.assert_ignored(frame);
    }
    tunnel.assert_goes_on();
}

#[test]
fn what_was_under_way_to_a_call_closed_early_is_ignored() {
    let mut tunnel = Tunnel::handler(strict());
    for id in 2..100 {
        let stream = tunnel.lone.accept(id);
        tunnel
            .lone
            .conn
            .send_stream(stream)
            .close(Metadata::new(), Status::OK)
            .unwrap();
        tunnel.lone.sent();
        for frame in from_caller(id) {
            tunnel.assert_ignored(frame);
        }
    }
    tunnel.assert_goes_on();
}

#[test]
fn what_was_under_way_to_a_call_that_was_reset_or_failed_is_ignored() {
    let mut tunnel = Tunnel::handler(strict());
    let id = tunnel.lone.accept(2);
    tunnel.lone.conn.reset(id, Status::OK);
    let id = tunnel.lone.accept(3);
    tunnel.lone.feed(build::more(3, "x"));
    assert_eq!(tunnel.cancelled(id).code, Code::InvalidArgument);
    tunnel.lone.sent();
    for frame in [from_caller(2), from_caller(3)].concat() {
        tunnel.assert_ignored(frame);
    }
    tunnel.assert_goes_on();
}

#[test]
fn what_was_under_way_to_a_call_that_was_refused_is_ignored() {
    let mut tunnel = Tunnel::handler(strict());
    for id in 2..50 {
        let method = String::new();
        tunnel.lone.feed(build::open_with(
            id,
            tunnel_core::frame::NewStream {
                method,
                ..build::new_stream()
            },
        ));
        assert_eq!(tunnel.lone.sent().len(), 1);
        for frame in from_caller(id) {
            tunnel.assert_ignored(frame);
        }
    }
    tunnel.assert_goes_on();
}

/// A strict caller with an answered and an unanswered call.
fn strict_caller() -> (Tunnel, [StreamId; 2]) {
    let mut tunnel = Tunnel::caller(strict());
    let ids = [tunnel.lone.open(), tunnel.lone.open()];
    tunnel
        .lone
        .feed(build::headers(ids[0].value(), Metadata::new()));
    (tunnel, ids)
}

#[track_caller]
fn assert_late_answers_are_ignored(tunnel: &mut Tunnel, ids: [StreamId; 2]) {
    tunnel.lone.sent();
    for (id, answered) in ids.into_iter().zip([true, false]) {
        for frame in from_handler(id, answered) {
            tunnel.lone.feed(frame);
        }
    }
    assert_eq!(tunnel.lone.conn.stats().unread_bytes, 0);
}

#[test]
fn what_was_under_way_to_a_cancelled_call_is_ignored() {
    let (mut tunnel, ids) = strict_caller();
    for id in ids {
        tunnel.lone.conn.cancel(id);
    }
    assert_late_answers_are_ignored(&mut tunnel, ids);
    tunnel.assert_goes_on();
}

#[test]
fn what_was_under_way_to_an_expired_call_is_ignored_before_and_after_it_is_read() {
    for read_first in [false, true] {
        let mut tunnel = Tunnel::caller(strict());
        let ids = [(); 2].map(|()| tunnel.lone.open_unsent(build::timeout("1S")));
        tunnel.lone.sent();
        tunnel
            .lone
            .feed(build::headers(ids[0].value(), Metadata::new()));
        tunnel.lone.pass(Duration::from_secs(1));
        let read = |tunnel: &mut Tunnel| {
            for id in ids {
                assert_eq!(tunnel.failed(id).code, Code::DeadlineExceeded);
            }
        };
        if read_first {
            read(&mut tunnel);
        }
        assert_late_answers_are_ignored(&mut tunnel, ids);
        if !read_first {
            read(&mut tunnel);
        }
        tunnel.assert_goes_on();
    }
}

#[test]
fn what_was_under_way_to_a_call_given_up_for_a_drain_is_ignored() {
    let (mut tunnel, ids) = strict_caller();
    tunnel.lone.feed(build::going_away(1));
    assert_late_answers_are_ignored(&mut tunnel, ids);
    for id in ids {
        assert_eq!(tunnel.failed(id).code, Code::Unavailable);
    }
    assert_eq!(tunnel.lone.conn.active_streams(), 1);
}

#[test]
fn messages_after_a_handlers_own_close_are_ignored_before_and_after_it_is_read() {
    for read_first in [false, true] {
        let mut tunnel = Tunnel::caller(strict());
        let id = tunnel.lone.open();
        tunnel.lone.feed(build::message(id.value(), "x"));
        tunnel.lone.feed(build::close(id.value(), Code::Ok));
        let read = |tunnel: &mut Tunnel| {
            let (messages, end) = crate::read_all(&mut tunnel.lone.conn, id);
            assert_eq!(messages, [b"x"]);
            assert!(matches!(end, Read::Closed(_)));
        };
        if read_first {
            read(&mut tunnel);
        }
        for _ in 0..3 {
            tunnel
                .lone
                .feed(build::message(id.value(), vec![0; 16_384]));
        }
        tunnel.lone.feed(build::close(id.value(), Code::Aborted));
        if !read_first {
            read(&mut tunnel);
        }
        tunnel.assert_goes_on();
    }
}

#[test]
fn late_data_in_revision_zero_is_ignored() {
    let mut lone = Lone::with_offer(Side::Handler, strict(), Offer::none());
    let id = lone.accept_frame(build::open_zero(1));
    lone.conn.reset(id, Status::OK);
    for _ in 0..1000 {
        lone.feed(build::message(1, vec![0; 16_384]));
    }
    assert_eq!(lone.conn.stats().unread_bytes, 0);
}

/// A call with messages of one byte, each of which a careless peer answers with a window update at
/// any time.
fn sent_many(count: usize) -> (Tunnel, StreamId) {
    let mut tunnel = Tunnel::caller(strict());
    let id = tunnel.lone.open();
    for _ in 0..count {
        let sent = tunnel.lone.conn.send_stream(id).message("x".into());
        sent.expect("it is open");
    }
    tunnel
        .lone
        .conn
        .send_stream(id)
        .finish()
        .expect("it is open");
    assert_eq!(tunnel.lone.sent().len(), count + 1);
    (tunnel, id)
}

#[test]
fn window_updates_after_half_close_are_ignored_one_for_each_piece_of_data() {
    let (mut tunnel, id) = sent_many(100);
    for _ in 0..100 {
        tunnel.assert_ignored(build::update(id.value(), 1));
    }
    tunnel.lone.feed(build::close(id.value(), Code::Ok));
    assert!(matches!(
        tunnel.lone.conn.recv_stream(id).read(),
        Read::Closed(_)
    ));
    tunnel.assert_goes_on();
}

#[test]
fn window_updates_after_the_end_are_ignored_one_for_each_piece_of_data() {
    for read_first in [false, true] {
        let (mut tunnel, id) = sent_many(100);
        tunnel.lone.feed(build::close(id.value(), Code::Ok));
        if read_first {
            let _ = tunnel.lone.conn.recv_stream(id).read();
        }
        tunnel.lone.events();
        for _ in 0..100 {
            tunnel.assert_ignored(build::update(id.value(), 1));
        }
        tunnel.assert_goes_on();
    }
}

#[test]
fn updates_without_end_after_half_close_are_too_many_stray_frames() {
    let (mut tunnel, id) = sent_many(5);
    for _ in 0..5 {
        tunnel.assert_ignored(build::update(id.value(), 1));
    }
    let error = tunnel.lone.feed_fatal(build::update(id.value(), 1));
    assert_eq!(error, ConnectionError::Limit(Limit::StrayFrames));
}

#[test]
fn stray_frames_up_to_the_limit_are_ignored_and_one_more_ends_the_tunnel() {
    let config = Config::builder().max_stray_frames(10).build().unwrap();
    let mut tunnel = Tunnel::handler(config);
    // The opening of the bystander was a useful frame, which makes up for one.
    for _ in 0..11 {
        tunnel.assert_ignored(build::message(0, vec![0; 16_384]));
    }
    let error = tunnel.lone.feed_fatal(build::message(0, ""));
    assert_eq!(error, ConnectionError::Limit(Limit::StrayFrames));
    assert_eq!(error.code(), Code::ResourceExhausted);
}

#[test]
fn frames_that_say_something_make_up_for_stray_ones() {
    let config = Config::builder().max_stray_frames(1).build().unwrap();
    let mut tunnel = Tunnel::handler(config);
    for _ in 0..1000 {
        tunnel.assert_ignored(build::half_close(0));
        tunnel.lone.feed(build::message(1, "x"));
        while let Read::Data(_) = tunnel.lone.conn.recv_stream(tunnel.bystander).read() {}
        tunnel.lone.sent();
        tunnel.lone.events();
    }
    tunnel.assert_goes_on();
}

#[test]
fn a_stream_that_is_over_is_not_told_to_its_reader_again() {
    let mut tunnel = Tunnel::caller(strict());
    let id = tunnel.lone.open();
    tunnel.lone.feed(build::close(id.value(), Code::Ok));
    assert!(tunnel.lone.events().contains(&Event::Readable(id)));
    tunnel.assert_ignored(build::message(id.value(), "x"));
    assert!(matches!(
        tunnel.lone.conn.recv_stream(id).read(),
        Read::Closed(_)
    ));
    tunnel.assert_ignored(build::message(id.value(), "x"));
}
