//! Mistakes of other implementations of the protocol, and how an end answers them. Each was seen
//! on the wire; see `docs/PROTOCOL.md`. Other files test the rest: an empty method, data cut short,
//! windows out of bounds, a half-close without a message (`at_handler`, `at_caller`), late frames
//! (`late`), settings of revision zero alone (`calls/negotiation`), limits that others lack
//! (`limits`).

use std::time::Duration;

use tunnel_core::frame::NewStream;
use tunnel_core::{Code, Config, Event, FrameKind, NOT_PROCESSED_KEY, Read, Revision, Side};

use crate::support::build::{self, WINDOW, new_stream};
use crate::support::lone::Lone;
use crate::support::offer;
use crate::support::reader::read_all;
use crate::{Tunnel, caller, handler};

#[test]
fn draining_keeps_the_calls_in_flight_and_ignores_the_frames_of_those_it_refuses() {
    let mut tunnel = handler();
    tunnel.lone.conn.drain(tunnel.lone.now, None);
    tunnel.lone.sent();
    tunnel.lone.feed(build::open(2));
    let sent = tunnel.lone.sent();
    let [frame] = &sent[..] else {
        panic!("{sent:?}")
    };
    let FrameKind::Close(close) = &frame.kind else {
        panic!("{frame:?}")
    };
    assert_eq!(close.status.code, Code::Unavailable);
    assert_eq!(close.trailers.get(NOT_PROCESSED_KEY), Some("1"));
    tunnel.assert_ignored(build::message(2, "x"));
    tunnel.assert_ignored(build::half_close(2));
    tunnel.lone.feed(build::message(1, "x"));
    assert_eq!(read_all(&mut tunnel.lone.conn, tunnel.bystander).0, [b"x"]);
}

#[test]
fn a_cancelled_or_expired_call_hands_its_handler_no_phantom_message() {
    let mut tunnel = handler();
    let id = tunnel.lone.accept(2);
    tunnel.lone.feed(build::begin(2, 5, ""));
    assert_eq!(tunnel.lone.conn.recv_stream(id).read(), Read::Pending);
    tunnel.lone.feed(build::cancel(2));
    assert_eq!(tunnel.lone.conn.recv_stream(id).read(), Read::Gone);
    let headers = build::timeout("1S");
    let id = tunnel.lone.accept_frame(build::open_with(
        3,
        NewStream {
            headers,
            ..new_stream()
        },
    ));
    tunnel.lone.feed(build::begin(3, 5, ""));
    tunnel.lone.pass(Duration::from_secs(1));
    assert_eq!(tunnel.lone.conn.recv_stream(id).read(), Read::Gone);
    tunnel.assert_goes_on();
}

#[test]
fn an_expired_call_says_deadline_exceeded_and_a_cancelled_one_cancelled() {
    let mut tunnel = handler();
    let headers = build::timeout("1S");
    tunnel.lone.accept_frame(build::open_with(
        2,
        NewStream {
            headers,
            ..new_stream()
        },
    ));
    tunnel.lone.accept(3);
    tunnel.lone.pass(Duration::from_secs(1));
    tunnel.lone.feed(build::cancel(3));
    let codes: Vec<_> = tunnel
        .lone
        .sent()
        .into_iter()
        .map(|f| match f.kind {
            FrameKind::Close(close) => (f.stream_id.value(), close.status.code),
            kind => panic!("{kind:?}"),
        })
        .collect();
    assert_eq!(codes, [(2, Code::DeadlineExceeded), (3, Code::Cancelled)]);
}

#[test]
fn an_empty_list_of_revisions_means_revision_zero() {
    let mut lone = Lone::unopened(Side::Caller, Config::default());
    lone.conn.start(lone.now, offer());
    lone.feed(build::settings(&[], 0));
    assert_eq!(lone.events(), [Event::Ready]);
    assert_eq!(lone.conn.revision(), Revision::Zero);
    let id = lone.open();
    lone.conn
        .send_stream(id)
        .message(vec![0; 100_000].into())
        .unwrap();
    assert_eq!(lone.sent().len(), 7, "no window holds it back");
}

#[test]
fn a_protocol_fault_of_one_stream_is_cancelled_so_that_its_handler_stops() {
    let mut tunnel = caller();
    let id = tunnel.lone.open();
    tunnel.lone.feed(build::more(id.value(), "x"));
    assert_eq!(tunnel.lone.sent(), [build::cancel(id.value())]);
}

#[test]
fn keys_that_differ_by_case_are_handed_on_as_they_were_sent() {
    let mut tunnel = handler();
    let sent = [("X-Mixed", "1"), ("x-mixed", "2"), ("X-Mixed", "3")];
    let headers = build::metadata(&sent);
    tunnel.lone.feed(build::open_with(
        2,
        NewStream {
            headers,
            ..new_stream()
        },
    ));
    let events = tunnel.lone.events();
    let [Event::Opened { headers, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(headers.iter().collect::<Vec<_>>(), sent);
}

#[test]
fn larger_windows_and_larger_updates_are_used() {
    let mut tunnel = handler();
    let new = NewStream {
        initial_window: 1 << 20,
        ..new_stream()
    };
    let id = tunnel.lone.accept_frame(build::open_with(2, new));
    tunnel
        .lone
        .conn
        .send_stream(id)
        .message(vec![0; 4 << 20].into())
        .unwrap();
    let sent = |t: &mut Tunnel| {
        t.lone
            .sent()
            .iter()
            .map(crate::support::payload_len)
            .sum::<usize>()
    };
    assert_eq!(sent(&mut tunnel), 1 << 20);
    tunnel.lone.feed(build::update(2, 2 << 20));
    assert_eq!(sent(&mut tunnel), 2 << 20);
}

#[test]
fn a_caller_that_sends_65536_bytes_whatever_it_was_told_is_fine_by_default() {
    let mut tunnel = handler();
    assert!(tunnel.lone.conn.config().initial_window() >= WINDOW);
    let new = NewStream {
        initial_window: 10,
        ..new_stream()
    };
    let id = tunnel.lone.accept_frame(build::open_with(2, new));
    tunnel
        .lone
        .feed(build::message(2, vec![0; WINDOW as usize]));
    assert_eq!(read_all(&mut tunnel.lone.conn, id).0.len(), 1);
    tunnel.assert_goes_on();
}

#[test]
fn two_tunnels_on_one_host_do_not_share_their_streams() {
    let (mut one, mut other) = (handler(), handler());
    let id = one.lone.accept(2);
    one.lone.feed(build::message(2, "mine"));
    assert_eq!(other.lone.conn.recv_stream(id).read(), Read::Gone);
    assert_eq!(read_all(&mut one.lone.conn, id).0, [b"mine"]);
    other.assert_goes_on();
}
