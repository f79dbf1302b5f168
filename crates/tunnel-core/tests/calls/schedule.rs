//! The order and the amount in which frames are sent.

use std::collections::HashMap;

use tunnel_core::{Config, FrameKind, Metadata, Side, Status, StreamId};

use crate::support::pair::Pair;
use crate::support::reader::{bytes, read_all};
use crate::support::{FRAME_COST, letters, payload_len};

/// Windows that never hold a sender back.
fn wide() -> Config {
    Config::builder()
        .initial_window(8 << 20)
        .max_window(8 << 20)
        .max_concurrent_streams(100)
        .max_buffered_bytes(1 << 30)
        .build()
        .expect("it is valid")
}

/// The stream ids of the frames that `side` has written.
fn ids(p: &mut Pair, side: Side) -> Vec<i64> {
    let log = p.end(side).take_log();
    log.iter().map(|f| f.stream_id.value()).collect()
}

#[test]
fn a_unary_call_leaves_in_one_batch() {
    let mut p = Pair::new(Config::default());
    let id = p.open();
    p.caller.conn.send_stream(id).message("x".into()).unwrap();
    p.caller.conn.send_stream(id).finish().unwrap();
    assert_eq!(p.write(Side::Caller, 64 << 10), 3);
    p.carry(Side::Caller, 3);
    p.handler.conn.send_stream(id).message("y".into()).unwrap();
    p.handler
        .conn
        .send_stream(id)
        .close(Metadata::new(), Status::OK)
        .unwrap();
    assert_eq!(p.write(Side::Handler, 64 << 10), 3);
}

#[test]
fn a_large_transfer_does_not_starve_a_tiny_call() {
    let mut p = Pair::new(wide());
    let large = p.call();
    for _ in 0..8 {
        p.caller
            .conn
            .send_stream(large)
            .message(bytes(1 << 20))
            .unwrap();
    }
    p.write(Side::Caller, 200_000);
    p.caller.take_log();

    let tiny = p.open();
    p.caller
        .conn
        .send_stream(tiny)
        .message("ping".into())
        .unwrap();
    p.caller.conn.send_stream(tiny).finish().unwrap();
    p.write(Side::Caller, 64 << 10);
    let before = ids(&mut p, Side::Caller);
    let position = |p: &[i64]| p.iter().rposition(|&id| id == tiny.value());
    assert_eq!(before.iter().filter(|&&id| id == tiny.value()).count(), 3);
    assert!(
        position(&before) <= Some(4),
        "one chunk of the other is before it at most: {before:?}"
    );
}

#[test]
fn streams_with_data_take_turns_a_chunk_each() {
    let mut p = Pair::new(wide());
    let streams: Vec<_> = (0..3).map(|_| p.call()).collect();
    for (&id, chunks) in streams.iter().zip([4, 2, 6]) {
        p.caller
            .conn
            .send_stream(id)
            .message(bytes(chunks * 16_384))
            .unwrap();
    }
    p.write(Side::Caller, usize::MAX);
    let order = ids(&mut p, Side::Caller);
    assert_eq!(order, [1, 2, 3, 1, 2, 3, 1, 3, 1, 3, 3, 3]);
}

#[test]
fn turns_stay_fair_over_many_small_batches() {
    let mut p = Pair::new(wide());
    let streams: Vec<_> = (0..5).map(|_| p.call()).collect();
    for &id in &streams {
        p.caller
            .conn
            .send_stream(id)
            .message(bytes(1 << 20))
            .unwrap();
    }
    let mut sent: HashMap<i64, i32> = HashMap::new();
    for _ in 0..150 {
        p.write(Side::Caller, 20_000);
        for id in ids(&mut p, Side::Caller) {
            *sent.entry(id).or_default() += 1;
        }
        let (least, most) = (sent.values().min(), sent.values().max());
        assert!(
            sent.len() < 5 || most <= least.map(|n| n + 1).as_ref(),
            "{sent:?}"
        );
    }
}

#[test]
fn new_calls_leave_in_the_order_of_their_ids_and_before_data() {
    let mut p = Pair::new(wide());
    let busy = p.call();
    p.caller
        .conn
        .send_stream(busy)
        .message(bytes(100_000))
        .unwrap();
    let opened: Vec<_> = (0..3).map(|_| p.open()).collect();
    for &id in opened.iter().rev() {
        p.caller.conn.send_stream(id).message("x".into()).unwrap();
        p.caller.conn.send_stream(id).finish().unwrap();
    }
    p.write(Side::Caller, usize::MAX);
    assert_eq!(letters(&p.caller.log[..3]), "NNN");
    let order: Vec<_> = p.caller.log[..3].iter().map(|f| f.stream_id).collect();
    assert_eq!(order, opened);
}

#[test]
fn headers_window_updates_and_ends_go_before_the_data_of_other_streams() {
    let mut p = Pair::new(wide());
    let busy = p.call();
    let [read, headed, closed] = [p.call(), p.call(), p.call()];
    p.caller
        .conn
        .send_stream(read)
        .message(bytes(3 << 20))
        .unwrap();
    p.pump();
    p.handler
        .conn
        .send_stream(busy)
        .message(bytes(1 << 20))
        .unwrap();
    p.write(Side::Handler, 100_000);
    p.handler.take_log();

    while let tunnel_core::Read::Data(_) = p.handler.conn.recv_stream(read).read() {}
    p.handler
        .conn
        .send_stream(headed)
        .headers(Metadata::new())
        .unwrap();
    p.handler
        .conn
        .send_stream(closed)
        .close(Metadata::new(), Status::OK)
        .unwrap();
    p.write(Side::Handler, 1000);
    assert_eq!(letters(&p.handler.log), "uHCd");
}

#[test]
fn the_end_of_a_stream_follows_right_behind_its_last_byte() {
    let mut p = Pair::new(wide());
    let [first, second] = [p.call(), p.call()];
    for id in [first, second] {
        p.caller
            .conn
            .send_stream(id)
            .message(bytes(20_000))
            .unwrap();
        p.caller.conn.send_stream(id).finish().unwrap();
    }
    p.write(Side::Caller, usize::MAX);
    assert_eq!(letters(&p.caller.log), "MMdEdE");
}

#[test]
fn a_budget_is_exceeded_by_one_frame_at_most() {
    let mut p = Pair::new(wide());
    let id = p.call();
    p.caller
        .conn
        .send_stream(id)
        .message(bytes(200_000))
        .unwrap();
    for (budget, frames) in [
        (0, 0),
        (1, 1),
        (16_384 + FRAME_COST, 1),
        (16_384 + FRAME_COST + 1, 2),
        (3 * (16_384 + FRAME_COST), 3),
    ] {
        assert_eq!(p.write(Side::Caller, budget), frames, "{budget}");
    }
    assert!(p.caller.conn.wants_transmit());
}

#[test]
fn a_budget_of_one_byte_lets_every_kind_of_frame_leave_in_its_order() {
    let config = Config::default();
    // More than a quarter of the window, so that credit returns.
    let message = bytes(config.initial_window() as usize / 3);
    let mut p = Pair::new(config);
    let refused = p.call();
    let id = p.call();
    p.caller.conn.send_stream(id).message(message).unwrap();
    p.pump();
    while let tunnel_core::Read::Data(_) = p.handler.conn.recv_stream(id).read() {}
    p.handler.conn.reset(refused, Status::OK);
    p.handler.conn.drain(p.now, None);
    p.handler.conn.send_stream(id).message("x".into()).unwrap();
    p.handler
        .conn
        .send_stream(id)
        .close(Metadata::new(), Status::OK)
        .unwrap();
    while p.handler.conn.wants_transmit() {
        assert_eq!(p.write(Side::Handler, 1), 1);
    }
    // The drain notice, the refusal; headers, window update; data, close.
    assert_eq!(letters(&p.handler.log), "CCHuMC");
    assert_eq!(p.handler.log[0].stream_id, StreamId::CONTROL);
    assert_eq!(p.handler.log[1].stream_id, refused);
}

#[test]
fn transmit_counts_what_the_sink_says_it_took() {
    let mut p = Pair::new(wide());
    let id = p.call();
    p.caller
        .conn
        .send_stream(id)
        .message(bytes(40_000))
        .unwrap();
    let mut sink = crate::support::Written::default();
    let written = p.caller.conn.transmit(p.now, 20_000, &mut sink);
    let payload: usize = sink.0.iter().map(payload_len).sum();
    assert_eq!(written, payload + sink.0.len() * FRAME_COST);
    assert_eq!(p.caller.conn.stats().bytes_sent, payload as u64);
}

#[test]
fn a_cancel_overtakes_the_data_of_its_stream_and_of_others() {
    let mut p = Pair::new(wide());
    let [other, id] = [p.call(), p.call()];
    for id in [other, id] {
        p.caller
            .conn
            .send_stream(id)
            .message(bytes(100_000))
            .unwrap();
    }
    p.write(Side::Caller, 20_000);
    p.caller.take_log();
    p.caller.conn.cancel(id);
    p.write(Side::Caller, 1000);
    assert_eq!(letters(&p.caller.log), "Xd");
    assert_eq!(p.caller.log[0].stream_id, id);
    p.write(Side::Caller, usize::MAX);
    assert!(p.caller.log[1..].iter().all(|f| f.stream_id == other));
}

#[test]
fn a_reset_overtakes_the_data_of_its_stream() {
    let mut p = Pair::new(wide());
    let id = p.call();
    p.handler
        .conn
        .send_stream(id)
        .message(bytes(100_000))
        .unwrap();
    p.write(Side::Handler, 1000);
    p.handler
        .conn
        .reset(id, Status::new(tunnel_core::Code::Aborted, "stop"));
    p.pump();
    assert_eq!(letters(&p.handler.log), "HMC");
    let FrameKind::Close(close) = &p.handler.log[2].kind else {
        panic!("it ends with a close")
    };
    assert_eq!(close.status.message, "stop");
}

#[test]
fn streams_that_are_ended_while_they_queue_leave_the_queues_right() {
    let mut p = Pair::new(wide());
    let streams: Vec<_> = (0..60).map(|_| p.call()).collect();
    for &id in &streams {
        p.caller
            .conn
            .send_stream(id)
            .message(bytes(20_000))
            .unwrap();
        p.caller.conn.send_stream(id).finish().unwrap();
    }
    p.write(Side::Caller, 5 * 16_394);
    for &id in streams.iter().skip(2).step_by(2) {
        p.caller.conn.cancel(id);
    }
    p.pump();
    for &id in streams[..2]
        .iter()
        .chain(streams[2..].iter().skip(1).step_by(2))
    {
        let (messages, end) = read_all(&mut p.handler.conn, id);
        assert_eq!(messages.len(), 1);
        assert_eq!(end, tunnel_core::Read::HalfClosed);
        p.handler
            .conn
            .send_stream(id)
            .close(Metadata::new(), Status::OK)
            .unwrap();
    }
    p.pump();
    for &id in &streams {
        let _ = p.caller.conn.recv_stream(id).read();
    }
    p.assert_idle();
}
