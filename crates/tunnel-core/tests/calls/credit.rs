//! Message credit and other extensions of this library.

use std::time::Duration;

use bytes::BytesMut;
use tunnel_core::{Config, FrameKind, Offer, OpenError, Read, Side};

use crate::support::lone::Lone;
use crate::support::pair::Pair;
use crate::support::reader::{Reader, bytes};
use crate::support::{build, offer};

fn counted() -> Offer {
    let mut offer = offer();
    offer.message_credit = true;
    offer
}

fn pair() -> Pair {
    Pair::with_offers(Config::default(), Config::default(), counted(), counted())
}

#[test]
fn empty_messages_that_nobody_reads_are_held_back_by_the_window() {
    let mut p = pair();
    let id = p.call();
    let window = p.handler.conn.config().initial_window() as usize;
    for _ in 0..window {
        p.caller.conn.send_stream(id).message("".into()).unwrap();
    }
    p.pump();
    let sent = p.caller.take_log().len();
    assert_eq!(sent, window / 5, "five bytes each");
    // Reading them returns the credit, with either way to read.
    let mut reader = Reader::new(id);
    p.read_until(Side::Handler, &mut reader, window / 2);
    let mut body = BytesMut::new();
    while body.len() < 5 * (window - reader.messages.len()) {
        let read = p.handler.conn.recv_stream(id).body(1 << 20, &mut body);
        if read.then == Some(Read::Pending) {
            p.pump();
        }
    }
    assert!(p.handler.conn.stats().unread_bytes == 0);
}

#[test]
fn a_message_begins_only_where_its_count_and_a_byte_of_it_fit() {
    let mut p = pair();
    let id = p.call();
    let window = p.handler.conn.config().initial_window() as usize;
    // Leaves exactly five bytes of the window.
    p.caller
        .conn
        .send_stream(id)
        .message(bytes(window - 10))
        .unwrap();
    p.caller.conn.send_stream(id).message(bytes(1)).unwrap();
    p.pump();
    let frames = p.caller.take_log();
    let begun = frames
        .iter()
        .filter(|f| matches!(f.kind, FrameKind::Message { .. }));
    assert_eq!(begun.count(), 1);
    let mut reader = Reader::new(id);
    p.read_until(Side::Handler, &mut reader, 2);
    assert_eq!(reader.messages[1], [0]);
}

#[test]
fn messages_beyond_the_window_by_their_count_alone_end_the_stream() {
    let config = Config::default();
    let window = config.initial_window() as usize;
    let mut lone = Lone::with_offer(Side::Handler, config, counted());
    lone.accept(1);
    for _ in 0..window / 5 {
        lone.feed(build::message(1, ""));
    }
    assert_eq!(lone.conn.active_streams(), 1);
    lone.feed(build::message(1, ""));
    assert_eq!(lone.conn.active_streams(), 0);
}

#[test]
fn a_million_empty_messages_for_a_call_that_has_ended_are_ignored() {
    // If messages cost window, no more than a window can come. Otherwise a long link may be full.
    for (offer, messages) in [(counted(), 19_000), (offer(), 1_000_000)] {
        let mut lone = Lone::with_offer(Side::Handler, Config::default(), offer);
        let id = lone.accept(1);
        lone.conn.reset(id, tunnel_core::Status::OK);
        for _ in 0..messages {
            lone.feed(build::message(1, ""));
        }
        assert_eq!(lone.conn.end_reason(), None);
    }
}

#[test]
fn small_windows_are_not_spent_on_counting() {
    let small = || {
        let config = Config::builder().initial_window(1000);
        config.build().expect("it is valid")
    };
    assert!(!Offer::of(&small()).message_credit);
    let mut p = Pair::with_offers(small(), small(), counted(), counted());
    let id = p.call();
    for _ in 0..1000 {
        p.caller.conn.send_stream(id).message(bytes(1)).unwrap();
    }
    p.pump();
    assert_eq!(p.caller.take_log().len(), 1000);
}

#[test]
fn a_caller_opens_no_more_calls_than_its_handler_says_it_serves() {
    let mut few = offer();
    few.max_streams = Some(3);
    let mut p = Pair::with_offers(Config::default(), Config::default(), offer(), few);
    let ids = [p.call(), p.call(), p.call()];
    assert_eq!(p.caller.conn.room(), 0);
    let one_more = p.caller.conn.open(p.now, "/a/b", Default::default());
    assert_eq!(one_more, Err(OpenError::StreamLimit(3)));
    p.caller.conn.cancel(ids[0]);
    assert_eq!(p.caller.conn.room(), 1);
}

/// A peer of an earlier version ends tunnels when cancels come too fast.
#[test]
fn cancels_to_a_peer_that_does_not_say_what_it_serves_are_paced_and_hold_back_new_calls() {
    let mut old = offer();
    old.max_streams = None;
    let config = Config::builder().max_concurrent_streams(1000);
    let mut lone = Lone::with_offer(Side::Caller, config.build().expect("it is valid"), old);
    let mut cancels = 0;
    let mut full = false;
    for _ in 0..5 {
        while lone.conn.room() > 0 {
            let id = lone.open();
            lone.conn.cancel(id);
            let sent = lone.sent();
            cancels += sent.iter().filter(|f| f.kind == FrameKind::Cancel).count();
        }
        full = true;
        lone.pass(Duration::from_millis(100));
    }
    assert!(full, "the first burst is over");
    assert!((2048..4096).contains(&cancels), "{cancels}");
    for _ in 0..100 {
        lone.pass(Duration::from_secs(1));
        lone.sent();
    }
    assert_eq!(lone.conn.room(), 1000);
    assert_eq!(lone.conn.poll_timeout(), None);
}
