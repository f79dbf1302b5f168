//! Every limit: accepted at the limit, and one more ends the stream or the tunnel.

use std::time::Duration;

use tunnel_core::frame::NewStream;
use tunnel_core::frame::codec::{MAX_ENTRIES, decode};
use tunnel_core::{
    Code, Config, ConfigBuilder, ConnectionError, EndReason, Event, FrameKind, Limit, OpenError,
    Read, Side, Status, StreamFault, WriteError,
};

use crate::support::build::{self, new_stream};
use crate::support::lone::Lone;
use crate::support::offer;
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
    // One place is left for a later call.
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
        (frame.stream_id.value(), close.status.code),
        (5, Code::ResourceExhausted)
    );
    assert_eq!(close.status.message, Limit::ConcurrentStreams.to_string());
    assert_eq!(close.trailers.get("grpctunnel-not-processed"), Some("1"));
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

/// A frame decoded from a peer's bytes, which marks lists that are too long.
#[test]
fn a_list_too_long_to_be_kept_is_refused_whatever_the_size_limit() {
    let mut tunnel = handler(|b| b.max_metadata_size(1 << 30).max_frame_size(3 << 30));
    let headers = b"\x0a\x00".repeat(2 * MAX_ENTRIES + 1);
    let fields = |bytes: &[u8]| {
        let mut field = vec![0x12];
        prost::encode_length_delimiter(bytes.len(), &mut field).expect("a vector grows");
        [&field, bytes].concat()
    };
    let new = [b"\x0a\x02/m", &fields(&headers)[..]].concat();
    let bytes = [b"\x08\x02", &fields(&new)[..]].concat();
    let frame = decode(Side::Caller, bytes.into()).expect("a frame");
    assert_refused(&mut tunnel, frame, Code::ResourceExhausted);
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
    assert!(matches!(
        tunnel.lone.conn.recv_stream(id).read(),
        Read::Closed(_)
    ));
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
    let mut send = tunnel.lone.conn.send_stream(id);
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
            assert!(matches!(
                tunnel.lone.conn.recv_stream(id).read(),
                Read::Data(_)
            ));
            tunnel.lone.feed(build::message(2, ""));
        }
        let fault = StreamFault::Limit(Limit::UnreadEmptyMessages);
        tunnel.assert_fault(id, build::message(2, ""), &fault);
    }
}

#[test]
fn no_number_of_calls_opened_and_cancelled_ends_a_tunnel() {
    let mut tunnel = handler(|b| b.max_concurrent_streams(4));
    for id in 2..50_000 {
        let id = tunnel.lone.accept(id);
        tunnel.lone.feed(build::cancel(id.value()));
        tunnel.cancelled(id);
        tunnel.lone.conn.handler_done(id);
    }
    tunnel.assert_goes_on();
}

#[test]
fn a_call_waits_until_the_handler_of_a_cancelled_one_is_gone() {
    let mut tunnel = handler(|b| b.max_concurrent_streams(3));
    let running = [2, 3].map(|id| {
        let id = tunnel.lone.accept(id);
        tunnel.lone.feed(build::cancel(id.value()));
        tunnel.cancelled(id);
        id
    });
    assert_eq!(tunnel.lone.conn.stats().cancelled_handlers, 2);
    tunnel.lone.feed(build::open(4));
    tunnel.lone.feed(build::message(4, "early"));
    tunnel.lone.feed(build::open(5));
    assert_eq!(tunnel.lone.events(), [], "there is no place");
    assert_eq!(tunnel.lone.conn.stats().waiting_calls, 2);

    tunnel.lone.conn.handler_done(running[0]);
    let events = tunnel.lone.events();
    let [Event::Opened { id, .. }, Event::Readable(readable)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((id.value(), readable), (4, id), "in order, its data behind");
    let (messages, _) = crate::read_all(&mut tunnel.lone.conn, *id);
    assert_eq!(messages, [b"early"]);

    // The end of a call frees a place too.
    tunnel.lone.conn.reset(*id, Status::OK);
    assert_eq!(crate::support::opened(&tunnel.lone.events()).len(), 1);
    // Only the first `handler_done` of a cancelled call counts.
    for id in [running[0], running[1], running[1]] {
        tunnel.lone.conn.handler_done(id);
    }
    assert_eq!(tunnel.lone.conn.stats().cancelled_handlers, 0);
    tunnel.assert_goes_on();
}

#[test]
fn a_call_that_ends_while_it_waits_is_never_seen() {
    let mut tunnel = handler(|b| b.max_concurrent_streams(3));
    for id in [2, 3] {
        let id = tunnel.lone.accept(id);
        tunnel.lone.feed(build::cancel(id.value()));
        tunnel.cancelled(id);
    }
    tunnel.lone.sent();
    let new = NewStream {
        headers: build::timeout("1S"),
        ..new_stream()
    };
    tunnel.lone.feed(build::open_with(4, new));
    tunnel.lone.feed(build::open(5));
    tunnel.lone.feed(build::cancel(5));
    tunnel.lone.pass(Duration::from_secs(1));
    assert_eq!(tunnel.lone.events(), []);
    let sent = tunnel.lone.sent();
    let expired = sent.iter().find(|frame| frame.stream_id.value() == 4);
    let Some(FrameKind::Close(close)) = expired.map(|frame| &frame.kind) else {
        panic!("{sent:?}")
    };
    assert_eq!(close.status.code, Code::DeadlineExceeded);
    assert_eq!(tunnel.lone.conn.stats().waiting_calls, 0);
    assert_eq!(tunnel.lone.conn.active_streams(), 1);
    // Neither is a call that waits when the tunnel ends.
    tunnel.lone.feed(build::open(6));
    tunnel.lone.conn.close();
    let events = tunnel.lone.events();
    assert_eq!(crate::support::opened(&events), []);
    let cancelled = events
        .iter()
        .filter(|e| matches!(e, Event::Cancelled { .. }));
    assert_eq!(cancelled.count(), 1, "the bystander");
    assert_eq!(tunnel.lone.conn.active_streams(), 0);
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

/// A call that is refused.
fn nameless(id: i64) -> tunnel_core::Frame {
    let new = NewStream {
        method: String::new(),
        ..new_stream()
    };
    build::open_with(id, new)
}

#[test]
fn a_peer_that_does_not_read_its_refusals_is_not_read_until_it_does() {
    let mut tunnel = handler(|b| b.max_pending_refusals(10));
    for id in 2..12 {
        assert!(tunnel.lone.conn.wants_input());
        tunnel.lone.feed(nameless(id));
    }
    assert!(!tunnel.lone.conn.wants_input());
    // Frames in flight are still accepted.
    tunnel.lone.feed(nameless(12));
    let mut written = crate::support::Written::default();
    let now = tunnel.lone.now;
    while !tunnel.lone.conn.wants_input() {
        tunnel.lone.conn.transmit(now, 1, &mut written);
    }
    assert_eq!(written.0.len(), 6, "five are left");
    tunnel.lone.pass(Duration::from_secs(3600));
    tunnel.assert_goes_on();
}

#[test]
fn a_peer_that_leaves_its_refusals_unread_for_too_long_loses_its_tunnel() {
    let timeout = Duration::from_secs(9);
    let mut tunnel = handler(|b| b.max_pending_refusals(10).refusal_stall_timeout(timeout));
    for id in 2..12 {
        tunnel.lone.feed(nameless(id));
    }
    tunnel.lone.pass(timeout - Duration::from_millis(1));
    assert_eq!(tunnel.lone.conn.end_reason(), None);
    tunnel.lone.pass(Duration::from_millis(1));
    let reason = limit(Limit::PendingRefusals).into();
    assert_eq!(tunnel.lone.conn.end_reason(), Some(&reason));
    assert_eq!(tunnel.lone.conn.stats().pending_refusals, 0);
    assert_eq!(tunnel.lone.conn.poll_timeout(), None);
}

#[test]
fn long_statuses_of_an_application_count_as_several_refusals() {
    let mut tunnel = handler(|b| b.max_pending_refusals(10));
    let id = tunnel.lone.accept(2);
    let long = Status::new(Code::Aborted, "m".repeat(2000));
    tunnel.lone.conn.reset(id, long);
    assert!(!tunnel.lone.conn.wants_input());
    tunnel.lone.sent();
    tunnel.assert_goes_on();
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

/// Lets the deadlines of 100 calls expire at a handler at once; returns how many closes were sent.
fn expire_at_once(offer: tunnel_core::Offer) -> usize {
    let config = Config::builder().max_pending_refusals(10).build();
    let mut lone = Lone::with_offer(Side::Handler, config.expect("it is valid"), offer);
    for id in 2..102 {
        let headers = build::timeout("1S");
        lone.accept_frame(build::open_with(
            id,
            NewStream {
                headers,
                ..new_stream()
            },
        ));
    }
    lone.pass(Duration::from_secs(1));
    assert_eq!(lone.events().len(), 100, "all are cancelled");
    assert_eq!(lone.conn.end_reason(), None);
    lone.sent().len()
}

#[test]
fn deadlines_that_expire_at_both_ends_are_told_only_where_there_is_room() {
    assert_eq!(expire_at_once(offer()), 5);
    let mut other = offer();
    other.drain = false;
    assert_eq!(expire_at_once(other), 100, "it waits for an answer");
}

#[test]
fn a_drain_that_cuts_more_calls_than_may_be_refused_tells_them_all_and_ends_as_drained() {
    let mut tunnel = handler(|b| b.max_pending_refusals(10));
    for id in 2..500 {
        tunnel.lone.accept(id);
    }
    let now = tunnel.lone.now;
    tunnel.lone.conn.drain(now, Some(now));
    tunnel.lone.pass(Duration::ZERO);
    assert_eq!(tunnel.lone.sent().len(), 1 + 499, "and the drain notice");
    assert_eq!(tunnel.lone.conn.end_reason(), Some(&EndReason::Drained));
}

#[test]
fn resets_by_the_application_are_all_told() {
    let mut tunnel = handler(|b| b.max_pending_refusals(10));
    let ids: Vec<_> = (2..30).map(|id| tunnel.lone.accept(id)).collect();
    for &id in &ids {
        tunnel.lone.conn.reset(id, Status::OK);
    }
    assert!(!tunnel.lone.conn.wants_input());
    assert_eq!(tunnel.lone.sent().len(), ids.len());
    tunnel.assert_goes_on();
}
