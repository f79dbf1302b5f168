//! Deadlines, all in virtual time.

use std::time::Duration;

use tunnel_core::{
    Code, Config, Event, Initiator, Metadata, OpenError, Read, Side, Status, WriteError,
};

use crate::support::build::{metadata, timeout};
use crate::support::pair::Pair;
use crate::support::reader::bytes;
use crate::support::{letters, opened};

const SECOND: Duration = Duration::from_secs(1);

fn pair() -> Pair {
    Pair::new(Config::default())
}

#[test]
fn a_deadline_travels_and_is_enforced_on_both_sides() {
    let mut p = pair();
    let start = p.now;
    let id = p.open_with(timeout("5S"));
    p.pump();
    let events = p.handler.events();
    let [
        Event::Opened {
            deadline, headers, ..
        },
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(*deadline, Some(start + 5 * SECOND));
    assert_eq!(headers.get("grpc-timeout"), Some("5S"));
    assert_eq!(p.caller.conn.poll_timeout(), Some(start + 5 * SECOND));
    assert_eq!(p.handler.conn.poll_timeout(), Some(start + 5 * SECOND));

    p.pass(5 * SECOND - Duration::from_nanos(1));
    assert_eq!(p.caller.events(), []);
    assert_eq!(p.handler.events(), []);
    p.pass(Duration::from_nanos(1));
    assert_eq!(
        p.caller.events(),
        [Event::Writable(id), Event::Readable(id)]
    );
    let Read::Failed(error) = p.caller.conn.recv_stream(id).read() else {
        panic!("it expired")
    };
    assert_eq!(
        (error.code, error.initiator),
        (Code::DeadlineExceeded, Initiator::User)
    );
    let events = p.handler.events();
    let [Event::Cancelled { error, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(
        (error.code, error.initiator),
        (Code::DeadlineExceeded, Initiator::Remote)
    );
    p.pump();
    assert_eq!(letters(&p.caller.log), "NX");
    assert_eq!(letters(&p.handler.log), "C");
    p.assert_idle();
}

#[test]
fn a_caller_whose_handler_ignores_deadlines_is_on_time_all_the_same() {
    let mut p = pair();
    let id = p.open_with(timeout("100m"));
    p.pump();
    p.now += Duration::from_millis(100);
    p.caller.conn.handle_timeout(p.now);
    assert!(
        matches!(p.caller.conn.recv_stream(id).read(), Read::Failed(e) if e.code == Code::DeadlineExceeded)
    );
}

#[test]
fn a_handler_whose_caller_forgets_its_deadline_says_so() {
    let mut p = pair();
    let id = p.open_with(timeout("100m"));
    p.pump();
    p.handler.conn.send_stream(id).message("x".into()).unwrap();
    p.pump();
    p.now += Duration::from_millis(100);
    p.handler.conn.handle_timeout(p.now);
    assert_eq!(
        p.handler.conn.send_stream(id).message("x".into()),
        Err(WriteError::Gone)
    );
    assert_eq!(p.write(Side::Handler, usize::MAX), 1);
    p.now -= Duration::from_millis(100);
    p.carry(Side::Handler, usize::MAX);
    assert!(matches!(
        p.caller.conn.recv_stream(id).read(),
        Read::Data(_)
    ));
    let Read::Closed(close) = p.caller.conn.recv_stream(id).read() else {
        panic!("the handler ended it")
    };
    assert_eq!(close.status.code, Code::DeadlineExceeded);
    assert_eq!(p.caller.conn.poll_timeout(), None);
}

#[test]
fn a_deadline_that_passes_before_the_call_was_sent_keeps_it_from_being_sent() {
    let mut p = pair();
    let id = p.open_with(timeout("1S"));
    p.caller.conn.send_stream(id).message(bytes(100)).unwrap();
    p.now += SECOND;
    assert_eq!(p.write(Side::Caller, usize::MAX), 0, "timers go first");
    let Read::Failed(error) = p.caller.conn.recv_stream(id).read() else {
        panic!("it expired")
    };
    assert_eq!(
        (error.code, error.not_processed),
        (Code::DeadlineExceeded, true)
    );
    p.assert_idle();
}

#[test]
fn timers_that_are_due_go_before_the_frame_at_hand() {
    let mut p = pair();
    let id = p.open_with(timeout("1S"));
    p.pump();
    p.handler
        .conn
        .send_stream(id)
        .close(Metadata::new(), Status::OK)
        .unwrap();
    p.write(Side::Handler, usize::MAX);
    p.now += SECOND;
    p.carry(Side::Handler, usize::MAX);
    assert!(
        matches!(p.caller.conn.recv_stream(id).read(), Read::Failed(e) if e.code == Code::DeadlineExceeded)
    );
}

#[test]
fn an_end_that_came_in_time_stands_however_late_it_is_read() {
    let mut p = pair();
    let id = p.open_with(timeout("1S"));
    p.pump();
    p.handler.conn.send_stream(id).message("x".into()).unwrap();
    p.handler
        .conn
        .send_stream(id)
        .close(Metadata::new(), Status::OK)
        .unwrap();
    p.pump();
    p.pass(10 * SECOND);
    assert!(matches!(
        p.caller.conn.recv_stream(id).read(),
        Read::Data(_)
    ));
    assert!(
        matches!(p.caller.conn.recv_stream(id).read(), Read::Closed(c) if c.status == Status::OK)
    );
    p.pump();
    assert_eq!(letters(&p.caller.log), "N");
    p.assert_idle();
}

#[test]
fn a_deadline_of_zero_is_no_call_at_all() {
    let mut p = pair();
    for value in ["0S", "0n", "-1S"] {
        assert_eq!(
            p.caller.conn.open(p.now, "/a/b", timeout(value)),
            Err(OpenError::DeadlineExceeded)
        );
    }
    assert_eq!(OpenError::DeadlineExceeded.code(), Code::DeadlineExceeded);
    p.assert_idle();
}

#[test]
fn a_deadline_that_nobody_can_read_is_none() {
    let mut p = pair();
    for value in ["soon", "", "1", "123456789S"] {
        p.open_with(timeout(value));
    }
    p.open_with(metadata(&[("grpc-timeout-of-mine", "1S")]));
    p.pump();
    assert_eq!(opened(&p.handler.events()).len(), 5);
    assert_eq!(p.caller.conn.poll_timeout(), None);
    assert_eq!(p.handler.conn.poll_timeout(), None);
}

#[test]
fn the_longest_deadline_is_taken_or_left_without_harm() {
    let mut p = pair();
    p.open_with(timeout("99999999H"));
    p.pump();
    assert_eq!(opened(&p.handler.events()).len(), 1);
    p.pass(SECOND);
    assert_eq!(p.handler.conn.active_streams(), 1);
}

#[test]
fn many_deadlines_expire_each_in_its_turn() {
    let mut p = pair();
    let ids: Vec<_> = (1..=50)
        .rev()
        .map(|n| p.open_with(timeout(&format!("{n}S"))))
        .collect();
    p.pump();
    p.caller.events();
    for left in (0..50).rev() {
        let at = p.caller.conn.poll_timeout().expect("one is left");
        p.pass(at - p.now);
        p.pump();
        let id = ids[left];
        assert!(matches!(
            p.caller.conn.recv_stream(id).read(),
            Read::Failed(_)
        ));
        assert_eq!(p.caller.conn.stats().deadlines, left);
        assert_eq!(p.handler.conn.stats().deadlines, left);
    }
    p.assert_idle();
}

#[test]
fn time_that_goes_backwards_changes_nothing() {
    let mut p = pair();
    p.pass(10 * SECOND);
    let now = p.now;
    p.now -= 5 * SECOND;
    p.open_with(timeout("1S"));
    assert_eq!(p.caller.conn.poll_timeout(), Some(now + SECOND));
}
