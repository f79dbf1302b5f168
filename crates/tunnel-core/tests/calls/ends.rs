//! Calls and tunnels that do not end with a normal close.

use tunnel_core::{
    Code, Config, ConnectionError, EndReason, Event, Initiator, Metadata, OpenError, Read, Side,
    Status, StreamId, WriteError,
};

use crate::support::offer;
use crate::support::pair::Pair;
use crate::support::reader::{bytes, read_all};
use crate::support::{letters, opened};

fn pair() -> Pair {
    Pair::new(Config::default())
}

fn failed(p: &mut Pair, id: StreamId) -> tunnel_core::StreamError {
    match p.caller.conn.recv_stream(id).read() {
        Read::Failed(error) => error,
        read => panic!("{read:?}"),
    }
}

#[test]
fn a_cancel_reaches_the_handler_and_frees_both_ends() {
    let mut p = pair();
    let id = p.call();
    p.caller
        .conn
        .send_stream(id)
        .message(bytes(200_000))
        .unwrap();
    p.pump();
    p.handler.events();
    p.caller.conn.cancel(id);
    assert_eq!(p.caller.conn.recv_stream(id).read(), Read::Gone);
    assert_eq!(
        p.caller.conn.send_stream(id).message("x".into()),
        Err(WriteError::Gone)
    );
    p.pump();
    let events = p.handler.events();
    let [
        Event::Cancelled {
            id: cancelled,
            error,
            ..
        },
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((*cancelled, error.code), (id, Code::Cancelled));
    assert_eq!(error.initiator, Initiator::Remote);
    assert_eq!(p.handler.conn.recv_stream(id).read(), Read::Gone);
    p.assert_idle();
}

#[test]
fn a_call_cancelled_before_it_was_sent_is_never_sent() {
    let mut p = pair();
    let id = p.open();
    p.caller.conn.send_stream(id).message("x".into()).unwrap();
    p.caller.conn.cancel(id);
    assert!(!p.caller.conn.wants_transmit(), "nothing of it is left");
    p.pump();
    assert_eq!(letters(&p.caller.log), "");
    assert_eq!(p.handler.events(), []);
    p.assert_idle();
}

#[test]
fn a_cancel_is_sent_once_and_not_for_a_call_that_has_ended() {
    let mut p = pair();
    let id = p.call();
    p.caller.conn.cancel(id);
    p.caller.conn.cancel(id);
    p.pump();
    p.caller.conn.cancel(id);
    p.pump();
    assert_eq!(letters(&p.caller.log), "X");

    let id = p.call();
    p.handler
        .conn
        .send_stream(id)
        .close(Metadata::new(), Status::OK)
        .unwrap();
    p.pump();
    p.caller.conn.cancel(id);
    p.pump();
    assert_eq!(letters(&p.caller.log), "");
    p.assert_idle();
}

#[test]
fn a_cancel_and_a_close_that_cross_harm_nobody() {
    let mut p = pair();
    let other = p.call();
    let id = p.call();
    p.handler.conn.send_stream(id).message("x".into()).unwrap();
    p.handler
        .conn
        .send_stream(id)
        .close(Metadata::new(), Status::OK)
        .unwrap();
    p.write(Side::Handler, usize::MAX);
    p.caller.conn.cancel(id);
    p.pump();
    assert_eq!(p.handler.conn.active_streams(), 1);
    p.caller
        .conn
        .send_stream(other)
        .message("y".into())
        .unwrap();
    p.pump();
    assert_eq!(read_all(&mut p.handler.conn, other).0.len(), 1);
}

#[test]
fn a_reset_ends_the_call_at_once_and_leaves_the_others_alone() {
    let mut p = pair();
    let other = p.call();
    let id = p.call();
    p.handler
        .conn
        .send_stream(id)
        .message(bytes(200_000))
        .unwrap();
    p.write(Side::Handler, 30_000);
    let status = Status::new(Code::DataLoss, "it panicked");
    p.handler.conn.reset(id, status.clone());
    assert_eq!(
        p.handler.conn.send_stream(id).message("x".into()),
        Err(WriteError::Gone)
    );
    assert_eq!(p.handler.conn.recv_stream(id).read(), Read::Gone);
    p.handler.conn.reset(id, Status::OK);
    p.pump();
    let mut last = p.caller.conn.recv_stream(id).read();
    while let Read::Data(_) = last {
        last = p.caller.conn.recv_stream(id).read();
    }
    assert!(matches!(last, Read::Closed(close) if close.status == status));
    p.handler
        .conn
        .send_stream(other)
        .message("y".into())
        .unwrap();
    p.pump();
    assert_eq!(read_all(&mut p.caller.conn, other).0.len(), 1);
}

#[test]
fn an_early_close_during_a_large_upload_stops_the_upload() {
    let mut p = pair();
    let id = p.call();
    p.caller
        .conn
        .send_stream(id)
        .message(bytes(300_000))
        .unwrap();
    assert_eq!(p.caller.conn.send_stream(id).is_writable(), Ok(false));
    p.pump();
    let status = Status::new(Code::FailedPrecondition, "enough");
    p.handler
        .conn
        .send_stream(id)
        .close(Metadata::new(), status.clone())
        .unwrap();
    p.pump();
    assert_eq!(p.caller.conn.stats().queued_bytes, 0);
    assert!(p.caller.events().contains(&Event::Writable(id)));
    assert!(matches!(p.caller.conn.recv_stream(id).read(), Read::Closed(c) if c.status == status));
    p.pump();
    p.assert_idle();
}

#[test]
fn a_status_or_trailers_over_the_limit_are_cut_and_the_code_arrives() {
    let config = Config::builder().max_metadata_size(100).build().unwrap();
    let mut p = Pair::new(config);
    let id = p.call();
    let long = "ü".repeat(80);
    let trailers = crate::support::build::metadata_of_size(101);
    let status = Status::new(Code::Aborted, long.clone());
    p.handler
        .conn
        .send_stream(id)
        .close(trailers, status)
        .unwrap();
    p.pump();
    let Read::Closed(close) = p.caller.conn.recv_stream(id).read() else {
        panic!("it was closed")
    };
    assert_eq!(close.status.code, Code::Aborted);
    assert_eq!(close.status.message, "ü".repeat(50));
    assert!(close.trailers.is_empty());

    let id = p.call();
    p.handler.conn.reset(id, Status::new(Code::Aborted, long));
    p.pump();
    assert!(
        matches!(p.caller.conn.recv_stream(id).read(), Read::Closed(c) if c.status.message.len() == 100)
    );
}

/// A tunnel with three calls: one that the handler knows, one that was sent and has not arrived,
/// and one that was not sent.
fn in_flight() -> (Pair, [StreamId; 3]) {
    let mut p = pair();
    let known = p.call();
    let said = p.handler.conn.send_stream(known).message("x".into());
    said.expect("it is open");
    p.pump();
    let written = p.open();
    p.write(Side::Caller, usize::MAX);
    let unwritten = p.open();
    p.caller.events();
    (p, [known, written, unwritten])
}

#[test]
fn a_lost_tunnel_fails_every_call_in_flight_and_says_which_never_left() {
    let (mut p, ids) = in_flight();
    let cause = tunnel_core::TransportCause::Io;
    let error = tunnel_core::TransportError::from(cause).with_detail("reset by peer");
    let lost = ConnectionError::TransportLost(error);
    p.caller.conn.handle_lost(lost.clone());
    let events = p.caller.events();
    assert_eq!(
        events.last(),
        Some(&Event::Ended(EndReason::Error(lost.clone())))
    );
    for (id, not_processed) in ids.into_iter().zip([false, false, true]) {
        assert!(
            events.contains(&Event::Readable(id)) || id == ids[0],
            "told before: {id}"
        );
        assert!(events.contains(&Event::Writable(id)), "{id}");
        let error = failed(&mut p, id);
        assert_eq!(
            (error.code, error.not_processed),
            (Code::Unavailable, not_processed)
        );
        assert!(error.message.contains("reset by peer"), "{error}");
        let fate = match not_processed {
            true => "the call was not sent",
            false => "the call was sent and may have been processed",
        };
        assert!(error.message.ends_with(fate), "{error}");
        assert_eq!(error.initiator, Initiator::Remote);
        assert_eq!(p.caller.conn.recv_stream(id).read(), Read::Gone);
    }
    assert_eq!(
        p.caller.conn.open(p.now, "/a/b", Metadata::new()),
        Err(OpenError::Ended(EndReason::Error(lost)))
    );
    assert_eq!(p.write(Side::Caller, usize::MAX), 0);
    assert_eq!(p.caller.conn.stats().streams, 0);
}

#[test]
fn a_tunnel_ended_by_its_peer_is_unavailable_to_its_calls_and_never_a_clean_end() {
    let (mut p, ids) = in_flight();
    p.caller.conn.handle_end();
    assert_eq!(
        p.caller.events().last(),
        Some(&Event::Ended(EndReason::PeerClosed))
    );
    for id in ids {
        assert_eq!(failed(&mut p, id).code, Code::Unavailable);
    }

    p.handler.conn.handle_end();
    let events = p.handler.events();
    let [
        ..,
        Event::Cancelled { id, error, .. },
        Event::Ended(EndReason::PeerClosed),
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((*id, error.code), (ids[0], Code::Unavailable));
    assert_eq!(p.handler.conn.stats().streams, 0);
}

#[test]
fn what_was_closed_before_the_tunnel_ended_stays_readable() {
    let mut p = pair();
    let id = p.call();
    p.handler.conn.send_stream(id).message("x".into()).unwrap();
    p.handler
        .conn
        .send_stream(id)
        .close(Metadata::new(), Status::OK)
        .unwrap();
    p.pump();
    p.caller.conn.handle_end();
    let (messages, end) = read_all(&mut p.caller.conn, id);
    assert_eq!(messages, [b"x"]);
    assert!(matches!(end, Read::Closed(_)));
    assert_eq!(p.caller.conn.stats().streams, 0);
}

#[test]
fn closing_a_tunnel_ends_its_calls_at_once() {
    let (mut p, ids) = in_flight();
    p.caller.conn.close();
    assert_eq!(p.caller.conn.end_reason(), Some(&EndReason::Closed));
    for id in ids {
        let error = failed(&mut p, id);
        assert_eq!(
            (error.code, error.initiator),
            (Code::Unavailable, Initiator::User)
        );
    }
    p.handler.conn.close();
    assert!(
        p.handler
            .events()
            .contains(&Event::Ended(EndReason::Closed))
    );
    assert_eq!(p.handler.conn.stats().streams, 0);
}

#[test]
fn the_first_reason_for_an_end_stands_and_what_comes_after_is_ignored() {
    let (mut p, _) = in_flight();
    p.caller.conn.close();
    p.caller.conn.handle_end();
    p.caller.conn.handle_lost(ConnectionError::SettingsTimeout);
    assert_eq!(p.caller.conn.end_reason(), Some(&EndReason::Closed));
    p.flush(Side::Handler);
    p.pass(std::time::Duration::from_secs(1000));
    p.caller.conn.drain(p.now, Some(p.now));
    p.caller.conn.start(p.now, offer());
    let long = Status::new(Code::Aborted, "x".repeat(1 << 20));
    p.caller.conn.close_with(long);
    let events = p.caller.events();
    assert_eq!(events.last(), Some(&Event::Ended(EndReason::Closed)));
    let ends = events.iter().filter(|e| matches!(e, Event::Ended(_)));
    assert_eq!(ends.count(), 1);
    assert_eq!(p.caller.conn.poll_timeout(), None);
    assert!(p.caller.conn.wants_input());
}

#[test]
fn at_its_own_limit_of_streams_a_caller_fails_at_once() {
    let config = Config::builder().max_concurrent_streams(3).build().unwrap();
    let mut p = Pair::with(config, Config::default());
    let ids: Vec<_> = (0..3).map(|_| p.open()).collect();
    let over = |p: &mut Pair| p.caller.conn.open(p.now, "/a/b", Metadata::new());
    assert_eq!(over(&mut p), Err(OpenError::StreamLimit(3)));
    assert_eq!(OpenError::StreamLimit(3).code(), Code::ResourceExhausted);
    p.pump();
    assert_eq!(opened(&p.handler.events()), ids);
    p.caller.conn.cancel(ids[1]);
    assert!(over(&mut p).is_ok());
    assert_eq!(over(&mut p), Err(OpenError::StreamLimit(3)));
}

#[test]
fn a_tunnel_closed_with_a_reason_tells_it_to_its_calls() {
    let (mut p, ids) = in_flight();
    let reason = Status::new(Code::PermissionDenied, "the key was revoked");
    p.caller.conn.close_with(reason.clone());
    let end = EndReason::ClosedWith(reason);
    assert_eq!(end.initiator(), Initiator::User);
    assert_eq!(p.caller.conn.end_reason(), Some(&end));
    let error = failed(&mut p, ids[1]);
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains("the key was revoked"), "{error}");
}

#[test]
fn a_tunnel_closed_with_ok_is_simply_closed() {
    let (mut p, _) = in_flight();
    p.caller.conn.close_with(Status::OK);
    assert_eq!(p.caller.conn.end_reason(), Some(&EndReason::Closed));
}
