//! Windows, and the events for readers and writers.

use std::time::Duration;

use tunnel_core::{Config, Event, Metadata, Offer, Read, Side, Status};

use crate::support::build::WINDOW;
use crate::support::pair::Pair;
use crate::support::reader::{Reader, bytes, read_all};
use crate::support::{count, letters, payload_len, updates};

fn window(size: u32) -> Config {
    Config::builder()
        .initial_window(size)
        .max_window(size)
        .build()
        .expect("it is valid")
}

#[test]
fn a_sender_uses_its_window_to_the_byte_and_no_more() {
    for size in [1, 2, 100, 16_383, 16_384, 16_385, WINDOW] {
        let mut p = Pair::new(window(size));
        let id = p.call();
        p.caller
            .conn
            .send_stream(id)
            .message(bytes(200_000))
            .unwrap();
        p.handler
            .conn
            .send_stream(id)
            .message(bytes(200_000))
            .unwrap();
        p.pump();
        for side in [Side::Caller, Side::Handler] {
            let sent: usize = p.end(side).take_log().iter().map(payload_len).sum();
            assert_eq!(sent, size as usize, "{side:?}");
        }
        assert!(
            !p.caller.conn.wants_transmit(),
            "data without credit does not count"
        );
    }
}

#[test]
fn each_direction_has_the_window_of_its_receiver() {
    let mut p = Pair::with(window(1000), window(70));
    let id = p.call();
    p.caller.conn.send_stream(id).message(bytes(5000)).unwrap();
    p.handler.conn.send_stream(id).message(bytes(5000)).unwrap();
    p.pump();
    assert_eq!(p.handler.conn.stats().unread_bytes, 70);
    assert_eq!(p.caller.conn.stats().unread_bytes, 1000);
}

#[test]
fn each_stream_has_its_own_window() {
    let mut p = Pair::new(window(100));
    let stuck = p.call();
    p.caller
        .conn
        .send_stream(stuck)
        .message(bytes(500))
        .unwrap();
    p.pump();
    for _ in 0..100 {
        let id = p.call();
        p.caller.conn.send_stream(id).message(bytes(100)).unwrap();
        p.pump();
        let (messages, _) = read_all(&mut p.handler.conn, id);
        assert_eq!(messages.len(), 1);
    }
}

#[test]
fn credit_returns_by_quarters_as_the_application_reads() {
    let mut p = Pair::new(window(WINDOW));
    let id = p.call();
    for _ in 0..64 {
        p.caller.conn.send_stream(id).message(bytes(1024)).unwrap();
    }
    p.pump();
    assert_eq!(p.handler.conn.stats().unread_bytes, WINDOW as usize);
    p.handler.take_log();
    for read in 1..=64 {
        assert!(matches!(
            p.handler.conn.recv_stream(id).read(),
            Read::Data(_)
        ));
        p.pump();
        let expected = vec![WINDOW / 4; read / 16];
        assert_eq!(updates(&p.handler.log), expected, "after {read} KiB");
    }
}

#[test]
fn credit_returns_at_once_where_the_sender_could_stall_inside_a_message() {
    let mut p = Pair::new(window(WINDOW));
    let id = p.call();
    p.caller.conn.send_stream(id).message(bytes(10)).unwrap();
    p.caller.conn.send_stream(id).begin_message(WINDOW).unwrap();
    p.caller
        .conn
        .send_stream(id)
        .write(bytes(WINDOW as usize))
        .unwrap();
    p.pump();
    assert_eq!(updates(&p.handler.log), []);
    assert!(matches!(p.handler.conn.recv_stream(id).read(), Read::Data(c) if c.data.len() == 10));
    p.pump();
    assert_eq!(
        updates(&p.handler.log),
        [10],
        "ten bytes are what is missing"
    );
    let mut reader = Reader::new(id);
    assert_eq!(reader.read_all(&mut p.handler.conn), Read::Pending);
    assert_eq!(reader.messages.len(), 1);
}

#[test]
fn credit_does_not_return_as_data_arrives() {
    let mut p = Pair::new(window(WINDOW));
    let id = p.call();
    p.caller
        .conn
        .send_stream(id)
        .message(bytes(200_000))
        .unwrap();
    p.pump();
    p.pass(std::time::Duration::from_secs(1000));
    p.pump();
    assert_eq!(letters(&p.handler.log), "");
    assert_eq!(p.handler.conn.stats().unread_bytes, WINDOW as usize);
}

#[test]
fn no_credit_returns_on_a_direction_that_has_ended() {
    let mut p = Pair::new(window(WINDOW));
    let id = p.call();
    p.caller
        .conn
        .send_stream(id)
        .message(bytes(WINDOW as usize))
        .unwrap();
    p.caller.conn.send_stream(id).finish().unwrap();
    p.pump();
    let _ = read_all(&mut p.handler.conn, id);
    p.pump();
    assert_eq!(updates(&p.handler.log), []);
}

#[test]
fn empty_messages_and_ends_need_no_credit() {
    let mut p = Pair::new(window(10));
    let id = p.call();
    p.caller.conn.send_stream(id).message(bytes(10)).unwrap();
    p.caller.conn.send_stream(id).message(bytes(0)).unwrap();
    p.caller.conn.send_stream(id).finish().unwrap();
    p.pump();
    let (messages, end) = read_all(&mut p.handler.conn, id);
    assert_eq!((messages.len(), end), (2, Read::HalfClosed));
}

#[test]
fn in_revision_zero_there_are_neither_settings_nor_updates_nor_windows() {
    let mut p = Pair::unopened(window(100), window(100));
    p.start(Offer::none(), Offer::none());
    p.pump();
    let id = p.open();
    p.caller
        .conn
        .send_stream(id)
        .message(bytes(50_000))
        .unwrap();
    p.caller.conn.send_stream(id).finish().unwrap();
    p.pump();
    let (messages, end) = read_all(&mut p.handler.conn, id);
    assert_eq!((messages.len(), end), (1, Read::HalfClosed));
    let mut send = p.handler.conn.send_stream(id);
    send.message(bytes(50_000)).unwrap();
    send.close(Metadata::new(), Status::OK).unwrap();
    p.pump();
    let (messages, _) = read_all(&mut p.caller.conn, id);
    assert_eq!(messages.len(), 1);
    assert_eq!(letters(&p.caller.log), "NMdddE");
    assert_eq!(letters(&p.handler.log), "HMdddC");
}

#[test]
fn a_reader_is_told_once_until_it_has_found_nothing() {
    let mut p = Pair::new(Config::default());
    let id = p.call();
    let readable = Event::Readable(id);
    let told = |p: &mut Pair| {
        p.caller.conn.send_stream(id).message("x".into()).unwrap();
        p.pump();
        count(&p.handler.events(), &readable)
    };
    assert_eq!(told(&mut p), 1);
    assert_eq!(told(&mut p), 0, "it has not read yet");
    assert!(matches!(
        p.handler.conn.recv_stream(id).read(),
        Read::Data(_)
    ));
    assert_eq!(told(&mut p), 0, "it has not read all");
    assert_eq!(read_all(&mut p.handler.conn, id).1, Read::Pending);
    assert_eq!(told(&mut p), 1, "it waits");

    assert_eq!(read_all(&mut p.handler.conn, id).1, Read::Pending);
    p.caller.conn.send_stream(id).finish().unwrap();
    p.pump();
    assert_eq!(p.handler.events(), [readable], "the end is an event too");
}

#[test]
fn a_writer_is_told_when_half_of_its_buffer_is_free() {
    let config = Config::builder().send_buffer(40_000).build().unwrap();
    let mut p = Pair::new(config);
    let id = p.call();
    assert_eq!(p.caller.conn.send_stream(id).is_writable(), Ok(true));
    p.caller
        .conn
        .send_stream(id)
        .message(bytes(39_000))
        .unwrap();
    assert_eq!(
        p.caller.conn.send_stream(id).is_writable(),
        Ok(true),
        "less than the mark"
    );
    p.caller
        .conn
        .send_stream(id)
        .message(bytes(10_000))
        .unwrap();
    assert_eq!(p.caller.conn.send_stream(id).is_writable(), Ok(false));
    assert_eq!(p.caller.events(), []);

    assert_eq!(p.write(Side::Caller, 1), 1);
    assert_eq!(p.caller.events(), [], "33 of 40 KB are queued");
    assert_eq!(p.caller.conn.send_stream(id).is_writable(), Ok(true));
    assert_eq!(p.write(Side::Caller, 1), 1);
    assert_eq!(p.caller.events(), [], "`Ok(true)` has withdrawn the event");
    p.caller
        .conn
        .send_stream(id)
        .message(bytes(40_000))
        .unwrap();
    assert_eq!(p.caller.conn.send_stream(id).is_writable(), Ok(false));
    assert_eq!(p.caller.conn.send_stream(id).is_writable(), Ok(false));
    p.pump();
    read_all_pending(&mut p, id);
    p.pump();
    assert_eq!(p.caller.events(), [Event::Writable(id)], "once");
}

fn read_all_pending(p: &mut Pair, id: tunnel_core::StreamId) {
    while matches!(p.handler.conn.recv_stream(id).read(), Read::Data(_)) {}
}

#[test]
fn a_full_buffer_holds_a_writer_back_until_credit_comes() {
    let mut p = Pair::new(window(1000));
    let id = p.call();
    p.caller.conn.send_stream(id).message(bytes(1000)).unwrap();
    p.caller
        .conn
        .send_stream(id)
        .message(bytes(200_000))
        .unwrap();
    p.pump();
    assert_eq!(p.caller.conn.send_stream(id).is_writable(), Ok(false));
    p.caller.conn.send_stream(id).message(bytes(0)).unwrap();
    assert!(
        !p.caller.conn.wants_transmit(),
        "without credit nothing can leave"
    );
    let queued = p.caller.conn.stats().queued_bytes;
    assert!((200_000..201_000).contains(&queued), "{queued}");
    let mut reader = Reader::new(id);
    p.read_until(Side::Handler, &mut reader, 3);
    assert_eq!(count(&p.caller.events(), &Event::Writable(id)), 1);
    assert_eq!(p.caller.conn.stats().queued_bytes, 0);
}

#[test]
fn the_time_without_credit_is_counted_from_the_operation_that_needed_it() {
    let mut p = Pair::new(window(1000));
    let second = Duration::from_secs(1);
    let id = p.call();
    let send = |p: &mut Pair, n| p.caller.conn.send_stream(id).message(bytes(n)).unwrap();
    send(&mut p, 1000);
    p.pump();
    assert_eq!(p.caller.conn.stats().stalls, 0, "all of it was sent");
    p.pass(second);
    p.now += second;
    send(&mut p, 500);
    assert!(p.caller.conn.wants_time());
    let now = p.now;
    p.caller.conn.set_time(now);
    p.pass(second * 3);
    let stats = p.caller.conn.stats();
    assert_eq!((stats.stalls, stats.stalled_streams), (1, 1));
    assert_eq!(stats.stalled, second * 3);
    let _ = read_all(&mut p.handler.conn, id);
    p.pump();
    p.pass(second);
    let stats = p.caller.conn.stats();
    assert_eq!((stats.stalls, stats.stalled_streams), (1, 0));
    assert_eq!(stats.stalled, second * 3);
    assert_eq!(stats.messages_sent, 2);
    assert_eq!(p.handler.conn.stats().messages_received, 2);
}
