//! The memory that a peer can take: never more than the limits, and nothing by a declared size.

use tunnel_core::{Code, Config, ConfigBuilder, Event, Initiator, Limit, Offer, Read, Side};

use crate::support::build::{self, WINDOW};
use crate::support::lone::Lone;
use crate::{Tunnel, handler, own_window};

/// A tunnel of twenty streams and memory for two windows, which ends the fullest stream.
fn overcommitted() -> Config {
    let change = |b: ConfigBuilder| {
        b.max_concurrent_streams(20)
            .initial_window(WINDOW)
            .unread_high_mark(1000)
            .unread_low_mark(0)
            .max_buffered_bytes(2 * WINDOW as usize)
            .overcommit(true)
    };
    change(Config::builder())
        .build()
        .expect("overcommit is chosen")
}

#[test]
fn a_declared_size_alone_costs_nothing() {
    let config = Config::builder()
        .max_message_size(u32::MAX as usize)
        .build()
        .unwrap();
    let mut tunnel = Tunnel::handler(config);
    for id in 2..1000 {
        let stream = tunnel.lone.accept(id);
        tunnel.lone.feed(build::begin(id, u32::MAX, "x"));
        assert_eq!(
            tunnel.lone.conn.recv_stream(stream).read(),
            Read::Pending,
            "no prefix is handed on"
        );
    }
    let stats = tunnel.lone.conn.stats();
    assert_eq!((stats.unread_bytes, stats.spare_used), (998, 998));
    tunnel.assert_goes_on();
}

#[test]
fn every_stream_may_fill_its_window_at_once() {
    let mut tunnel = handler();
    for id in 2..1024 {
        tunnel.lone.accept(id);
        for _ in 0..4 {
            tunnel
                .lone
                .feed(build::message(id, vec![0; own_window() / 4]));
        }
    }
    let stats = tunnel.lone.conn.stats();
    assert_eq!(stats.unread_bytes, 1022 * own_window());
    assert_eq!(stats.streams, 1023);
    tunnel.assert_goes_on();
}

#[test]
fn overcommitted_memory_ends_the_fullest_stream_and_no_other() {
    let mut tunnel = Tunnel::handler(overcommitted());
    let ids: Vec<_> = (2..6).map(|id| tunnel.lone.accept(id)).collect();
    for (&id, size) in ids.iter().zip([40_000, 60_000, 31_071]) {
        tunnel.lone.feed(build::message(id.value(), vec![0; size]));
    }
    tunnel.lone.events();
    tunnel.lone.feed(build::message(ids[3].value(), "x"));
    assert_eq!(
        tunnel.lone.conn.active_streams(),
        5,
        "to the byte it is fine"
    );
    tunnel.lone.feed(build::message(ids[0].value(), "x"));
    let error = tunnel.cancelled(ids[1]);
    assert_eq!(
        (error.code, error.initiator),
        (Code::ResourceExhausted, Initiator::Library)
    );
    assert_eq!(error.message, Limit::BufferedBytes.to_string());
    assert_eq!(tunnel.lone.conn.stats().unread_bytes, 71_073);
    tunnel.assert_goes_on();
}

#[test]
fn overcommitted_memory_that_is_free_takes_large_messages() {
    let mut tunnel = Tunnel::handler(overcommitted());
    let id = tunnel.lone.accept(2);
    let size = 7 * WINDOW;
    tunnel
        .lone
        .feed(build::begin(2, size, vec![0; WINDOW as usize]));
    assert_eq!(
        tunnel.lone.conn.recv_stream(id).read(),
        Read::Pending,
        "it is held back"
    );
    assert_eq!(tunnel.lone.sent(), [build::update(2, WINDOW)]);
    tunnel.lone.feed(build::more(2, vec![0; WINDOW as usize]));
    assert!(matches!(
        tunnel.lone.conn.recv_stream(id).read(),
        Read::Data(_)
    ));
    tunnel.assert_goes_on();
}

#[test]
fn overcommitted_memory_takes_from_answers_that_are_closed_as_well() {
    let mut tunnel = Tunnel::caller(overcommitted());
    let ids = [(); 3].map(|()| tunnel.lone.open());
    for (id, size) in ids.into_iter().zip([50_000, 60_000, 30_000]) {
        tunnel.lone.feed(build::message(id.value(), vec![0; size]));
        tunnel.lone.feed(build::close(id.value(), Code::Ok));
    }
    assert_eq!(tunnel.lone.conn.stats().unread_bytes, 80_000);
    let error = tunnel.failed(ids[1]);
    assert_eq!(
        (error.code, error.initiator),
        (Code::ResourceExhausted, Initiator::Library)
    );
    for id in [ids[0], ids[2]] {
        let (messages, end) = crate::read_all(&mut tunnel.lone.conn, id);
        assert_eq!(messages.len(), 1);
        assert!(matches!(end, Read::Closed(_)));
    }
    assert_eq!(tunnel.lone.sent(), [], "there is nothing to cancel");
    tunnel.assert_goes_on();
}

#[test]
fn a_reader_that_waits_for_a_message_that_is_evicted_is_told() {
    let mut tunnel = Tunnel::caller(overcommitted());
    let id = tunnel.lone.open();
    tunnel
        .lone
        .feed(build::begin(id.value(), 4 << 20, vec![0; 60_000]));
    assert_eq!(
        tunnel.lone.conn.recv_stream(id).read(),
        Read::Pending,
        "it is held back"
    );
    tunnel.lone.events();
    for _ in 0..2 {
        let other = tunnel.lone.open();
        tunnel
            .lone
            .feed(build::message(other.value(), vec![0; 50_000]));
    }
    assert!(tunnel.lone.events().contains(&Event::Readable(id)));
    assert_eq!(tunnel.failed(id).code, Code::ResourceExhausted);
    tunnel.assert_goes_on();
}

#[test]
fn frames_that_come_although_reading_paused_are_taken_and_the_stall_ends_their_stream() {
    let config = Config::builder()
        .unread_high_mark(1000)
        .unread_low_mark(0)
        .build()
        .unwrap();
    let mut lone = Lone::with_offer(Side::Handler, config, Offer::none());
    let id = lone.accept_frame(build::open_zero(1));
    for _ in 0..100 {
        lone.feed(build::message(1, vec![0; 500]));
    }
    assert!(!lone.conn.wants_input());
    assert_eq!(lone.conn.stats().unread_bytes, 50_000);
    let at = lone.conn.poll_timeout().expect("it does not wait for ever");
    lone.pass(at - lone.now);
    assert!(lone.conn.wants_input());
    assert_eq!(lone.conn.recv_stream(id).read(), Read::Gone);
    assert_eq!(lone.conn.stats().unread_bytes, 0);
}

#[test]
fn many_tiny_messages_and_pieces_cost_no_more_than_their_window() {
    let mut tunnel = handler();
    let id = tunnel.accept();
    for n in 0..own_window() / 2 {
        let frame = match n % 3 {
            0 => build::message(id.value(), "x"),
            1 => build::begin(id.value(), 2, "x"),
            _ => build::more(id.value(), "x"),
        };
        tunnel.lone.feed(frame);
    }
    let (messages, _) = {
        let mut reader = crate::support::reader::Reader::new(id);
        let end = reader.read_all(&mut tunnel.lone.conn);
        (reader.messages, end)
    };
    assert!(messages.iter().all(|m| m.len() <= 2));
    tunnel.assert_goes_on();
}
