//! Every limit: fine at its number, and at one more the stream ends or the tunnel does.

use std::time::Duration;

use tunnel_core::frame::NewStream;
use tunnel_core::{
    Code, Config, ConfigBuilder, ConnectionError, Event, FrameKind, Limit, Metadata, OpenError,
    Read, Status, StreamFault, WriteError,
};

use crate::support::build::{self, new_stream};
use crate::{Tunnel, assert_refused};

fn handler(change: impl Fn(ConfigBuilder) -> ConfigBuilder) -> Tunnel {
    Tunnel::handler(change(Config::builder()).build().expect("it is valid"))
}

fn caller(change: impl Fn(ConfigBuilder) -> ConfigBuilder) -> Tunnel {
    Tunnel::caller(change(Config::builder()).build().expect("it is valid"))
}

fn limit(limit: Limit) -> ConnectionError {
    let error = ConnectionError::Limit(limit);
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert_eq!(error.initiator(), tunnel_core::Initiator::Library);
    error
}

#[test]
fn one_stream_more_than_the_limit_is_refused() {
    // One is left for whoever comes after.
    let mut tunnel = handler(|b| b.max_concurrent_streams(4));
    let first = tunnel.lone.accept(2);
    tunnel.lone.accept(3);
    tunnel.lone.accept(4);
    tunnel.lone.feed(build::open(5));
    assert_eq!(tunnel.lone.events(), []);
    let sent = tunnel.lone.sent();
    let [frame] = &sent[..] else {
        panic!("{sent:?}")
    };
    let FrameKind::Close(close) = &frame.kind else {
        panic!("{frame:?}")
    };
    assert_eq!(
        (frame.stream_id, close.status.code),
        (5, Code::ResourceExhausted)
    );
    assert_eq!(close.status.message, Limit::ConcurrentStreams.to_string());
    assert_eq!(tunnel.lone.conn.active_streams(), 4);
    tunnel.lone.conn.reset(first, Status::OK);
    tunnel.assert_goes_on();
}

#[test]
fn a_message_of_the_limit_is_taken_and_one_byte_more_ends_the_stream() {
    let small = |b: ConfigBuilder| b.max_message_size(1000);
    let fault = |size| StreamFault::MessageTooLarge { size, limit: 1000 };
    for mut tunnel in [handler(small), caller(small)] {
        let id = match tunnel.lone.conn.side() {
            tunnel_core::Side::Handler => tunnel.accept(),
            tunnel_core::Side::Caller => tunnel.lone.open(),
        };
        tunnel.lone.feed(build::message(id.value(), vec![0; 1000]));
        let frame = build::begin(id.value(), 1001, "");
        let error = tunnel.assert_fault(id, frame, &fault(1001));
        assert_eq!(error.code, Code::OutOfRange);
        assert_eq!(error.initiator, tunnel_core::Initiator::Library);
    }
    let mut tunnel = handler(small);
    let id = tunnel.accept();
    tunnel.assert_fault(
        id,
        build::begin(id.value(), u32::MAX, "x"),
        &fault(u32::MAX),
    );
}

#[test]
fn a_message_limit_of_zero_leaves_empty_messages() {
    let mut tunnel = handler(|b| b.max_message_size(0));
    let id = tunnel.accept();
    tunnel.lone.feed(build::message(id.value(), ""));
    assert_eq!(crate::read_all(&mut tunnel.lone.conn, id).0.len(), 1);
}

#[test]
fn a_call_with_metadata_of_the_limit_is_taken_and_one_byte_more_is_refused() {
    let mut tunnel = handler(|b| b.max_metadata_size(100));
    let new = |size: usize| {
        let new = new_stream();
        let headers = build::metadata_of_size(size - new.method.len());
        NewStream { headers, ..new }
    };
    tunnel.lone.accept_frame(build::open_with(2, new(100)));
    assert_refused(
        &mut tunnel,
        build::open_with(3, new(101)),
        Code::ResourceExhausted,
    );
}

#[test]
fn a_method_name_counts_as_metadata() {
    let mut tunnel = handler(|b| b.max_metadata_size(100));
    let new = |len| NewStream {
        method: "m".repeat(len),
        ..new_stream()
    };
    tunnel.lone.accept_frame(build::open_with(2, new(100)));
    assert_refused(
        &mut tunnel,
        build::open_with(3, new(101)),
        Code::ResourceExhausted,
    );
}

#[test]
fn headers_of_the_limit_are_taken_and_one_byte_more_end_the_stream() {
    let mut tunnel = caller(|b| b.max_metadata_size(100));
    let id = tunnel.lone.open();
    tunnel
        .lone
        .feed(build::headers(id.value(), build::metadata_of_size(100)));
    let id = tunnel.lone.open();
    let frame = build::headers(id.value(), build::metadata_of_size(101));
    tunnel.assert_fault(id, frame, &StreamFault::Limit(Limit::MetadataSize));
}

#[test]
fn trailers_or_a_status_over_the_limit_fail_the_call() {
    let close = |id, trailers, message| {
        let trailers = build::metadata_of_size(trailers);
        build::close_with(id, trailers, Status::new(Code::Ok, "m".repeat(message)))
    };
    let mut tunnel = caller(|b| b.max_metadata_size(100));
    let id = tunnel.lone.open();
    tunnel.lone.feed(close(id.value(), 100, 100));
    assert!(matches!(tunnel.lone.conn.recv(id).read(), Read::Closed(_)));
    for (trailers, message) in [(101, 0), (100, 101)] {
        let id = tunnel.lone.open();
        tunnel.lone.feed(close(id.value(), trailers, message));
        let error = tunnel.failed(id);
        assert_eq!(error.code, Code::ResourceExhausted);
        assert_eq!(error.message, Limit::MetadataSize.to_string());
        assert_eq!(tunnel.lone.sent(), [], "its handler has ended it");
        tunnel.assert_goes_on();
    }
}

#[test]
fn metadata_over_the_limit_is_not_sent_either() {
    let mut tunnel = caller(|b| b.max_metadata_size(100));
    let over = build::metadata_of_size(100 - "/a".len() + 1);
    let now = tunnel.lone.now;
    assert_eq!(
        tunnel.lone.conn.open(now, "/a", over),
        Err(OpenError::MetadataSize {
            size: 101,
            limit: 100
        })
    );
    let fits = build::metadata_of_size(100 - "/a".len());
    tunnel.lone.conn.open(now, "/a", fits).expect("it fits");

    let mut tunnel = handler(|b| b.max_metadata_size(100));
    let id = tunnel.accept();
    let mut send = tunnel.lone.conn.send(id);
    assert_eq!(
        send.headers(build::metadata_of_size(101)),
        Err(WriteError::MetadataSize {
            size: 101,
            limit: 100
        })
    );
    send.headers(build::metadata_of_size(100)).expect("it fits");
}

#[test]
fn empty_messages_of_the_limit_may_lie_unread_and_one_more_ends_the_stream() {
    for zero in [false, true] {
        let mut tunnel = handler(|b| b.max_unread_empty_messages(50));
        let frame = if zero {
            build::open_zero(2)
        } else {
            build::open(2)
        };
        let id = tunnel.lone.accept_frame(frame);
        for _ in 0..50 {
            tunnel.lone.feed(build::message(2, ""));
        }
        // A message that is not empty does not count.
        tunnel.lone.feed(build::message(2, "x"));
        for _ in 0..3 {
            assert!(matches!(tunnel.lone.conn.recv(id).read(), Read::Data(_)));
            tunnel.lone.feed(build::message(2, ""));
        }
        let fault = StreamFault::Limit(Limit::UnreadEmptyMessages);
        tunnel.assert_fault(id, build::message(2, ""), &fault);
    }
}

/// Opens a call and ends it before anybody could answer.
fn open_and_cancel(tunnel: &mut Tunnel, id: i64) -> Result<(), ConnectionError> {
    tunnel.lone.feed(build::open(id));
    let result = tunnel.lone.try_feed(build::cancel(id));
    tunnel.lone.sent();
    result
}

#[test]
fn calls_opened_and_cancelled_up_to_the_burst_are_fine_and_one_more_ends_the_tunnel() {
    let mut tunnel = handler(|b| b.max_cancel_burst(20).max_cancels_per_second(10));
    for id in 2..22 {
        open_and_cancel(&mut tunnel, id).expect("within the burst");
    }
    tunnel.assert_goes_on();
    tunnel.lone.feed(build::open(2000));
    let error = tunnel.lone.feed_fatal(build::cancel(2000));
    assert_eq!(error, limit(Limit::RapidCancel));
}

#[test]
fn cancels_are_made_up_for_by_time() {
    let mut tunnel = handler(|b| b.max_cancel_burst(2).max_cancels_per_second(10));
    for id in 2..500 {
        open_and_cancel(&mut tunnel, id).expect("ten a second are fine");
        tunnel.lone.pass(Duration::from_millis(100));
    }
    for id in 500..502 {
        open_and_cancel(&mut tunnel, id).expect("the burst");
    }
    assert_eq!(
        open_and_cancel(&mut tunnel, 502),
        Err(limit(Limit::RapidCancel))
    );
}

#[test]
fn cancels_of_calls_that_were_answered_do_not_count() {
    let mut tunnel = handler(|b| b.max_cancel_burst(1).max_cancels_per_second(0));
    for id in 2..100 {
        let stream = tunnel.lone.accept(id);
        tunnel
            .lone
            .conn
            .send(stream)
            .headers(Metadata::new())
            .unwrap();
        tunnel.lone.sent();
        tunnel.lone.feed(build::cancel(id));
        tunnel.lone.sent();
        tunnel.lone.events();
    }
    tunnel.assert_goes_on();
}

#[test]
fn calls_ended_by_a_fault_of_their_caller_count_like_cancels() {
    let mut tunnel = handler(|b| b.max_cancel_burst(20).max_cancels_per_second(10));
    for id in 2..22 {
        tunnel.lone.accept(id);
        tunnel.lone.feed(build::more(id, "x"));
        tunnel.lone.sent();
        tunnel.lone.events();
    }
    tunnel.assert_goes_on();
    tunnel.lone.accept(2000);
    let error = tunnel.lone.feed_fatal(build::more(2000, "x"));
    assert_eq!(error, limit(Limit::RapidCancel));
}

#[test]
fn frames_that_say_nothing_up_to_the_limit_are_ignored_and_one_more_ends_the_tunnel() {
    for (open, nothing) in [
        (build::open(2), build::unknown(2)),
        (build::open(2), build::update(2, 0)),
        (build::open(2), build::more(2, "")),
        (build::open_zero(2), build::update(2, 5)),
    ] {
        let mut tunnel = handler(|b| b.max_empty_frames(7));
        tunnel.lone.accept_frame(open);
        tunnel.lone.feed(build::begin(2, 9, "x"));
        tunnel.lone.events();
        for _ in 0..7 {
            tunnel.assert_ignored(nothing.clone());
        }
        assert_eq!(tunnel.lone.feed_fatal(nothing), limit(Limit::EmptyFrames));
    }
}

#[test]
fn frames_that_say_something_make_up_for_those_that_do_not() {
    let mut tunnel = handler(|b| b.max_empty_frames(1));
    tunnel.lone.accept(2);
    tunnel.lone.feed(build::begin(2, 1000, ""));
    for _ in 0..900 {
        tunnel.lone.feed(build::unknown(2));
        tunnel.lone.feed(build::more(2, "x"));
    }
    tunnel.assert_goes_on();
}

#[test]
fn refusals_up_to_the_limit_wait_for_a_peer_that_does_not_read_and_one_more_ends_the_tunnel() {
    let mut tunnel = handler(|b| b.max_pending_refusals(10));
    let nameless = || NewStream {
        method: String::new(),
        ..new_stream()
    };
    for id in 2..12 {
        tunnel.lone.feed(build::open_with(id, nameless()));
    }
    assert_eq!(tunnel.lone.conn.stats().pending_refusals, 10);
    assert_eq!(tunnel.lone.sent().len(), 10);
    tunnel.assert_goes_on();
    for id in 2002..2012 {
        tunnel.lone.feed(build::open_with(id, nameless()));
    }
    let error = tunnel.lone.feed_fatal(build::open_with(2012, nameless()));
    assert_eq!(error, limit(Limit::PendingRefusals));
    assert_eq!(tunnel.lone.conn.stats().pending_refusals, 0);
}

#[test]
fn answers_to_cancels_never_fill_the_refusals() {
    let mut tunnel = handler(|b| b.max_pending_refusals(10));
    for id in 2..500 {
        tunnel.lone.feed(build::open(id));
        tunnel.lone.feed(build::cancel(id));
    }
    assert_eq!(tunnel.lone.conn.stats().pending_refusals, 5);
    tunnel.assert_goes_on();
}

#[test]
fn deadlines_that_expire_unread_are_limited_like_all_refusals() {
    let mut tunnel = handler(|b| b.max_pending_refusals(10));
    for id in 2..13 {
        let headers = build::timeout("1S");
        tunnel.lone.feed(build::open_with(
            id,
            NewStream {
                headers,
                ..new_stream()
            },
        ));
    }
    tunnel.lone.events();
    tunnel.lone.pass(Duration::from_secs(1));
    let events = tunnel.lone.events();
    let reason = limit(Limit::PendingRefusals).into();
    assert_eq!(events.last(), Some(&Event::Ended(reason)));
    assert_eq!(tunnel.lone.conn.stats().streams, 0);
    assert_eq!(tunnel.lone.conn.poll_timeout(), None);
}

#[test]
fn resets_are_limited_like_all_refusals() {
    let mut tunnel = handler(|b| b.max_pending_refusals(10));
    let ids: Vec<_> = (2..13).map(|id| tunnel.lone.accept(id)).collect();
    for &id in &ids[..10] {
        tunnel.lone.conn.reset(id, Status::OK);
    }
    assert_eq!(tunnel.lone.conn.end_reason(), None);
    tunnel.lone.conn.reset(ids[10], Status::OK);
    let reason = limit(Limit::PendingRefusals).into();
    assert_eq!(tunnel.lone.conn.end_reason(), Some(&reason));
}
