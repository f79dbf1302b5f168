//! Revision zero has no windows: reading the tunnel pauses and resumes.

use std::time::Duration;

use tunnel_core::{Code, Config, ConfigBuilder, Metadata, Offer, Read, Side, Status, StreamId};

use crate::support::build::timeout;
use crate::support::pair::Pair;
use crate::support::reader::{Reader, bytes, read_all};

const STALL: Duration = Duration::from_secs(30);

fn pair(change: impl Fn(ConfigBuilder) -> ConfigBuilder) -> Pair {
    let builder = Config::builder()
        .unread_high_mark(1000)
        .unread_low_mark(200)
        .unread_high_messages(100)
        .unread_stall_timeout(STALL);
    let config = change(builder).build().expect("it is valid");
    let silent = Offer::none();
    Pair::with_offers(config.clone(), config, silent, silent)
}

/// A tunnel whose handler has unread bytes up to the high mark on one stream.
fn full() -> (Pair, StreamId) {
    let mut p = pair(|b| b);
    let id = p.call();
    let sent = p.caller.conn.send_stream(id).message(bytes(1000));
    sent.expect("it is open");
    p.pump();
    assert!(!p.handler.conn.wants_input());
    (p, id)
}

#[test]
fn reading_pauses_at_the_high_mark_and_goes_on_at_the_low_one() {
    let mut p = pair(|b| b);
    let id = p.call();
    p.caller.conn.send_stream(id).message(bytes(999)).unwrap();
    p.pump();
    assert!(p.handler.conn.wants_input());
    for _ in 0..1000 {
        p.caller.conn.send_stream(id).message(bytes(1)).unwrap();
    }
    p.pump();
    assert!(!p.handler.conn.wants_input());
    assert_eq!(p.handler.conn.stats().unread_bytes, 1000);
    assert_eq!(p.handler.conn.poll_timeout(), Some(p.now + STALL));

    let Read::Data(chunk) = p.handler.conn.recv_stream(id).read() else {
        panic!("there is something")
    };
    assert_eq!(chunk.data.len(), 999);
    assert!(p.handler.conn.wants_input());
    assert_eq!(p.handler.conn.poll_timeout(), None);
    let mut reader = Reader::new(id);
    for _ in 0..20 {
        p.pump();
        let _ = reader.read_all(&mut p.handler.conn);
    }
    assert_eq!(reader.messages.len(), 1000);
}

#[test]
fn between_the_marks_reading_stays_as_it_is() {
    let mut p = pair(|b| b);
    let id = p.call();
    for len in [300, 300, 200, 200] {
        p.caller.conn.send_stream(id).message(bytes(len)).unwrap();
    }
    p.pump();
    let read = |p: &mut Pair| {
        assert!(matches!(p.handler.conn.recv_stream(id).read(), Read::Data(c) if c.ends));
        (
            p.handler.conn.stats().unread_bytes,
            p.handler.conn.wants_input(),
        )
    };
    assert_eq!(read(&mut p), (700, false));
    assert_eq!(read(&mut p), (400, false));
    assert_eq!(read(&mut p), (200, true));
}

#[test]
fn many_unread_messages_pause_reading_too() {
    let mut p = pair(|b| b);
    let id = p.call();
    for _ in 0..100 {
        p.caller.conn.send_stream(id).message(bytes(0)).unwrap();
    }
    p.write(Side::Caller, usize::MAX);
    p.carry(Side::Caller, 99);
    assert!(p.handler.conn.wants_input());
    p.carry(Side::Caller, 1);
    assert!(!p.handler.conn.wants_input());
    for left in (0..100).rev() {
        assert!(matches!(
            p.handler.conn.recv_stream(id).read(),
            Read::Data(_)
        ));
        assert_eq!(p.handler.conn.wants_input(), left <= 50, "{left}");
    }
}

#[test]
fn messages_of_which_all_that_came_was_read_do_not_pause_reading() {
    let mut p = pair(|b| b.unread_high_messages(2));
    let streams: Vec<_> = (0..5).map(|_| p.call()).collect();
    for &id in &streams {
        p.caller.conn.send_stream(id).begin_message(10).unwrap();
        p.caller.conn.send_stream(id).write(bytes(4)).unwrap();
    }
    p.pump();
    for &id in &streams {
        assert!(matches!(
            p.handler.conn.recv_stream(id).read(),
            Read::Data(_)
        ));
        p.pump();
    }
    assert!(
        p.handler.conn.wants_input(),
        "only more input can make them whole"
    );
    for &id in &streams {
        p.caller.conn.send_stream(id).write(bytes(6)).unwrap();
        p.pump();
        while matches!(p.handler.conn.recv_stream(id).read(), Read::Data(_)) {}
    }
    p.pump();
    assert_eq!(p.handler.conn.stats().unread_bytes, 0);
}

#[test]
fn a_pause_does_not_stop_what_is_sent() {
    let (mut p, id) = full();
    p.handler.conn.send_stream(id).message(bytes(100)).unwrap();
    p.pump();
    assert!(!p.handler.conn.wants_input());
    assert_eq!(read_all(&mut p.caller.conn, id).0.len(), 1);
}

#[test]
fn reading_goes_on_when_the_full_stream_is_closed_by_its_handler() {
    let (mut p, id) = full();
    p.handler
        .conn
        .send_stream(id)
        .close(Metadata::new(), Status::OK)
        .unwrap();
    p.write(Side::Handler, usize::MAX);
    assert!(p.handler.conn.wants_input());
    assert_eq!(p.handler.conn.poll_timeout(), None);
}

#[test]
fn reading_goes_on_when_the_full_stream_is_reset() {
    let (mut p, id) = full();
    p.handler.conn.reset(id, Status::OK);
    assert!(p.handler.conn.wants_input());
    assert_eq!(p.handler.conn.poll_timeout(), None);
}

#[test]
fn reading_goes_on_when_the_deadline_of_the_full_stream_passes() {
    let mut p = pair(|b| b);
    let id = p.open_with(timeout("1S"));
    p.caller.conn.send_stream(id).message(bytes(1000)).unwrap();
    p.pump();
    assert!(!p.handler.conn.wants_input());
    p.now += Duration::from_secs(1);
    p.handler.conn.handle_timeout(p.now);
    assert!(p.handler.conn.wants_input());
    assert_eq!(p.handler.conn.poll_timeout(), None);
}

#[test]
fn reading_goes_on_when_the_caller_gives_up_the_full_stream() {
    let mut p = pair(|b| b);
    let id = p.call();
    p.handler.conn.send_stream(id).message(bytes(1000)).unwrap();
    p.pump();
    assert!(!p.caller.conn.wants_input());
    p.caller.conn.cancel(id);
    assert!(p.caller.conn.wants_input());
    assert_eq!(p.caller.conn.poll_timeout(), None);
}

#[test]
fn a_stall_ends_as_many_of_the_fullest_streams_as_it_takes_and_the_others_go_on() {
    let mut p = pair(|b| b);
    let streams: Vec<_> = [300, 500, 250, 100].map(|len| (p.call(), len)).into();
    for &(id, len) in &streams {
        p.caller.conn.send_stream(id).message(bytes(len)).unwrap();
    }
    let waiting = p.open();
    p.caller
        .conn
        .send_stream(waiting)
        .message(bytes(7))
        .unwrap();
    p.write(Side::Caller, usize::MAX);
    // The new call is sent first. Move it behind the data that pauses reading.
    let new = p.caller.pipe.iter().position(|f| f.stream_id == waiting);
    let new = p
        .caller
        .pipe
        .remove(new.expect("it was written"))
        .expect("it is there");
    let at = p.caller.pipe.iter().position(|f| f.stream_id == waiting);
    p.caller.pipe.insert(at.expect("its message"), new);
    p.pump();
    assert!(!p.handler.conn.wants_input());
    p.handler.events();

    p.pass(STALL - Duration::from_nanos(1));
    assert!(!p.handler.conn.wants_input());
    p.pass(Duration::from_nanos(1));
    let ended: Vec<_> = (p.handler.events().into_iter())
        .map(|event| match event {
            tunnel_core::Event::Cancelled { id, error, .. } => {
                assert_eq!(error.code, Code::ResourceExhausted);
                id
            }
            event => panic!("{event:?}"),
        })
        .collect();
    // The fullest first. The rest is below the low mark.
    assert_eq!(ended, [1, 0, 2].map(|at| streams[at].0));
    assert!(p.handler.conn.wants_input());
    assert_eq!(p.handler.conn.poll_timeout(), None);
    p.pump();
    assert_eq!(read_all(&mut p.handler.conn, streams[3].0).0.len(), 1);
    assert_eq!(read_all(&mut p.handler.conn, waiting).0.len(), 1);
}

#[test]
fn a_stall_by_an_answer_that_is_closed_already_is_resolved_as_well() {
    let mut p = pair(|b| b);
    let [full, other] = [p.call(), p.call()];
    p.handler
        .conn
        .send_stream(full)
        .message(bytes(1000))
        .unwrap();
    p.handler
        .conn
        .send_stream(full)
        .close(Metadata::new(), Status::OK)
        .unwrap();
    p.flush(Side::Handler);
    // The close comes although reading has paused: the transport had read it with the data.
    let close = p.handler.pipe.pop_front().expect("the close");
    p.caller
        .conn
        .handle_frame(p.now, close)
        .expect("it is right");
    assert!(!p.caller.conn.wants_input());
    p.caller.events();
    p.pass(STALL);
    assert!(p.caller.conn.wants_input());
    assert_eq!(p.caller.conn.poll_timeout(), None);
    let Read::Failed(error) = p.caller.conn.recv_stream(full).read() else {
        panic!("its data was given up")
    };
    assert_eq!(error.code, Code::ResourceExhausted);
    p.handler.conn.send_stream(other).message(bytes(5)).unwrap();
    p.pump();
    assert_eq!(read_all(&mut p.caller.conn, other).0.len(), 1);
}

#[test]
fn a_tunnel_that_ends_while_it_pauses_leaves_no_timer() {
    let mut p = pair(|b| b);
    let id = p.call();
    p.handler.conn.send_stream(id).message(bytes(1000)).unwrap();
    p.handler
        .conn
        .send_stream(id)
        .close(Metadata::new(), Status::OK)
        .unwrap();
    p.write(Side::Handler, usize::MAX);
    for frame in std::mem::take(&mut p.handler.pipe) {
        p.caller
            .conn
            .handle_frame(p.now, frame)
            .expect("it is right");
    }
    let wrong = crate::support::build::settings_on(1, &[0], 0);
    p.caller
        .conn
        .handle_frame(p.now, wrong)
        .expect_err("settings on a stream");
    assert!(p.caller.conn.wants_input());
    assert_eq!(p.caller.conn.poll_timeout(), None);
    assert_eq!(
        read_all(&mut p.caller.conn, id).0.len(),
        1,
        "what was closed stays"
    );
}

#[test]
fn large_messages_are_held_in_spare_memory_and_do_not_pause_reading() {
    let mut p = pair(|b| b.initial_window(100).max_window(100));
    let id = p.call();
    p.caller
        .conn
        .send_stream(id)
        .begin_message(100_000)
        .unwrap();
    let mut reader = Reader::new(id);
    for _ in 0..10 {
        p.caller.conn.send_stream(id).write(bytes(900)).unwrap();
        p.pump();
        assert_eq!(reader.read_all(&mut p.handler.conn), Read::Pending);
    }
    assert!(p.handler.conn.wants_input());
    assert_eq!(p.handler.conn.stats().spare_used, 9000);
    p.caller
        .conn
        .send_stream(id)
        .write(bytes(100_000 - 9000))
        .unwrap();
    p.read_until(Side::Handler, &mut reader, 1);
    assert_eq!(p.handler.conn.stats().spare_used, 0);
}
