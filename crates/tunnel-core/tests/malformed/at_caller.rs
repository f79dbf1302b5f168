//! Faults of a handler on one stream, at the caller.

use tunnel_core::{Code, Initiator, Metadata, Read, Side, StreamFault, StreamId};

use crate::support::build::{self, WINDOW};
use crate::support::offer;
use crate::{Tunnel, caller, offer_without_compression, own_window};

/// A tunnel with a call that the handler has answered.
fn call(before: &[tunnel_core::Frame]) -> (Tunnel, StreamId) {
    let mut tunnel = caller();
    let id = tunnel.lone.open();
    assert_eq!(id.value(), 2);
    for frame in before {
        tunnel.lone.feed(frame.clone());
    }
    (tunnel, id)
}

#[test]
fn data_beyond_the_window_ends_the_stream() {
    let (mut tunnel, id) = call(&[build::message(2, vec![0; own_window()])]);
    let error = tunnel.assert_fault(id, build::message(2, "x"), &StreamFault::WindowExceeded);
    assert_eq!(error.code, Code::ResourceExhausted);
}

#[test]
fn a_message_inside_another_ends_the_stream() {
    let (mut tunnel, id) = call(&[build::begin(2, 3, "x")]);
    let fault = StreamFault::MessageInsideMessage(2);
    let error = tunnel.assert_fault(id, build::message(2, "y"), &fault);
    assert_eq!(
        (error.code, error.initiator),
        (Code::Internal, Initiator::Remote)
    );
}

#[test]
fn data_without_a_message_or_beyond_its_size_ends_the_stream() {
    let (mut tunnel, id) = call(&[]);
    tunnel.assert_fault(id, build::more(2, "x"), &StreamFault::ExcessData);
    let (mut tunnel, id) = call(&[]);
    tunnel.assert_fault(id, build::begin(2, 1, "xx"), &StreamFault::ExcessData);
    let (mut tunnel, id) = call(&[build::message(2, "x")]);
    tunnel.assert_fault(id, build::more(2, "x"), &StreamFault::ExcessData);
}

#[test]
fn a_compressed_message_ends_the_stream_of_a_peer_that_did_not_offer_them() {
    let mut tunnel = Tunnel::of(Side::Caller, offer_without_compression());
    let id = tunnel.lone.open();
    let frame = build::compressed(id.value(), "x");
    tunnel.assert_fault(id, frame, &StreamFault::CompressedMessage);
}

#[test]
fn what_came_whole_before_a_fault_is_read_before_it() {
    let (mut tunnel, id) = call(&[build::message(2, "first"), build::message(2, "second")]);
    tunnel.lone.feed(build::more(2, "x"));
    for expected in ["first", "second"] {
        let Read::Data(chunk) = tunnel.lone.conn.recv_stream(id).read() else {
            panic!("{expected} is there")
        };
        assert_eq!((&chunk.data[..], chunk.ends), (expected.as_bytes(), true));
    }
    assert_eq!(
        tunnel.failed(id).message,
        StreamFault::ExcessData.to_string()
    );
    assert_eq!(tunnel.lone.conn.stats().unread_bytes, 0);
}

#[test]
fn headers_for_the_second_time_end_the_stream() {
    let md = || build::metadata(&[("a", "1")]);
    for first in [
        build::headers(2, md()),
        build::message(2, "x"),
        build::message(2, ""),
    ] {
        let (mut tunnel, id) = call(&[first]);
        let error = tunnel.assert_fault(id, build::headers(2, md()), &StreamFault::HeadersTwice);
        assert_eq!(error.code, Code::Internal);
    }
}

#[test]
fn messages_without_headers_have_empty_ones() {
    let (mut tunnel, id) = call(&[build::message(2, "x")]);
    let headers = tunnel.lone.conn.recv_stream(id).take_headers();
    assert_eq!(headers, Some(Metadata::new()));
}

#[test]
fn a_close_with_ok_inside_a_message_fails_the_call() {
    for first in [build::begin(2, 10, "0123456"), build::begin(2, 3, "")] {
        let (mut tunnel, id) = call(&[build::message(2, "whole"), first]);
        tunnel.lone.feed(build::close(2, Code::Ok));
        let Read::Data(chunk) = tunnel.lone.conn.recv_stream(id).read() else {
            panic!("the first message is there")
        };
        assert!(chunk.ends);
        let error = tunnel.failed(id);
        assert_eq!(
            (error.code, error.initiator),
            (Code::Internal, Initiator::Remote)
        );
        assert_eq!(error.message, StreamFault::TruncatedMessage(3).to_string());
        assert_eq!(
            tunnel.lone.sent(),
            [],
            "the handler has ended it: there is nothing to cancel"
        );
        tunnel.assert_goes_on();
    }
}

#[test]
fn a_close_with_an_error_inside_a_message_is_that_error() {
    let (mut tunnel, id) = call(&[build::begin(2, 10, "0123456")]);
    tunnel.lone.feed(build::close(2, Code::Aborted));
    let Read::Data(chunk) = tunnel.lone.conn.recv_stream(id).read() else {
        panic!("seven bytes are there")
    };
    assert!(!chunk.ends);
    let Read::Closed(close) = tunnel.lone.conn.recv_stream(id).read() else {
        panic!("it was closed")
    };
    assert_eq!(close.status.code, Code::Aborted);
    assert_eq!(tunnel.lone.conn.stats().unread_bytes, 0);
    tunnel.assert_goes_on();
}

#[test]
fn a_close_with_an_error_inside_a_large_message_leaves_nothing_of_it() {
    let (mut tunnel, id) = call(&[build::begin(2, 1 << 20, vec![0; 1000])]);
    assert_eq!(tunnel.lone.conn.recv_stream(id).read(), Read::Pending);
    assert_eq!(tunnel.lone.conn.stats().spare_used, 1000);
    tunnel.lone.feed(build::close(2, Code::Aborted));
    assert!(matches!(
        tunnel.lone.conn.recv_stream(id).read(),
        Read::Closed(_)
    ));
    let stats = tunnel.lone.conn.stats();
    assert_eq!((stats.unread_bytes, stats.spare_used), (0, 0));
}

#[test]
fn window_updates_beyond_2_to_the_31_end_the_stream() {
    let (mut tunnel, id) = call(&[build::update(2, (u32::MAX >> 1) - WINDOW)]);
    let error = tunnel.assert_fault(id, build::update(2, 1), &StreamFault::WindowOverflow);
    assert_eq!(error.code, Code::Internal);
}

#[test]
fn a_close_alone_is_an_answer() {
    let (mut tunnel, id) = call(&[build::close(2, Code::Unimplemented)]);
    assert_eq!(tunnel.lone.conn.recv_stream(id).take_headers(), None);
    let Read::Closed(close) = tunnel.lone.conn.recv_stream(id).read() else {
        panic!("it was closed")
    };
    assert_eq!(close.status.code, Code::Unimplemented);
    tunnel.assert_goes_on();
}

#[test]
fn frames_that_say_nothing_say_nothing_here_either() {
    let (mut tunnel, id) = call(&[build::begin(2, 2, "x")]);
    tunnel.lone.events();
    for frame in [build::more(2, ""), build::update(2, 0), build::unknown(2)] {
        tunnel.assert_ignored(frame);
    }
    tunnel.lone.feed(build::more(2, "y"));
    assert_eq!(crate::read_all(&mut tunnel.lone.conn, id).0, [b"xy"]);
}

#[test]
fn the_word_of_a_drain_from_a_peer_that_did_not_offer_it_is_ignored() {
    let mut offer = offer();
    offer.drain = false;
    let mut lone = crate::Lone::with_offer(
        tunnel_core::Side::Caller,
        tunnel_core::Config::default(),
        offer,
    );
    let mut tunnel = Tunnel {
        bystander: lone.open(),
        lone,
    };
    tunnel.assert_ignored(build::going_away(0));
    tunnel.assert_goes_on();
}

#[test]
fn words_on_stream_minus_one_that_are_none_of_a_drain_are_ignored() {
    let mut tunnel = caller();
    for last in ["", "x", "9223372036854775808", "1.5"] {
        let trailers = build::metadata(&[("grpctunnel-last-stream", last)]);
        let status = tunnel_core::Status::OK;
        tunnel.assert_ignored(build::close_with(-1, trailers, status));
    }
    tunnel.assert_ignored(build::close(-1, Code::Ok));
    tunnel.assert_ignored(build::headers(-1, Metadata::new()));
    tunnel.assert_ignored(build::message(-1, "x"));
    tunnel.assert_ignored(build::update(-1, 5));
    tunnel.assert_ignored(build::unknown(-1));
    tunnel.assert_goes_on();
}

#[test]
fn a_second_word_of_a_drain_changes_nothing() {
    let mut tunnel = caller();
    let second = tunnel.lone.open();
    tunnel.lone.feed(build::going_away(1));
    assert_eq!(tunnel.failed(second).code, Code::Unavailable);
    tunnel.lone.events();
    tunnel.assert_ignored(build::going_away(-100));
    tunnel.lone.feed(build::message(1, "x"));
    assert!(matches!(
        tunnel.lone.conn.recv_stream(tunnel.bystander).read(),
        Read::Data(_)
    ));
}

#[test]
fn a_word_of_a_drain_with_an_absurd_id_ends_no_more_than_the_streams_beyond_it() {
    for (last, left) in [(i64::MIN, 0), (-1, 0), (i64::MAX, 1)] {
        let mut tunnel = caller();
        tunnel.lone.feed(build::going_away(last));
        let _ = tunnel.lone.conn.recv_stream(tunnel.bystander).read();
        assert_eq!(tunnel.lone.conn.active_streams(), left, "{last}");
    }
}
