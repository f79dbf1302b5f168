//! Faults of a caller on one stream, at the handler.

use tunnel_core::frame::NewStream;
use tunnel_core::{Code, Config, Event, Offer, Read, Revisions, Side, Status, StreamFault};

use crate::support::build::{self, WINDOW, new_stream};
use crate::support::lone::Lone;
use crate::support::opened;
use crate::support::reader::read_all;
use crate::{Tunnel, assert_refused, handler, offer_without_compression, own_window};

fn refused(new: NewStream, fault: &StreamFault) {
    let code = fault.code(Side::Handler);
    assert_refused(&mut handler(), build::open_with(2, new), code);
}

#[test]
fn a_call_without_a_method_is_refused() {
    assert_eq!(
        StreamFault::EmptyMethod.code(Side::Handler),
        Code::InvalidArgument
    );
    for method in ["", "/"] {
        let method = method.into();
        refused(
            NewStream {
                method,
                ..new_stream()
            },
            &StreamFault::EmptyMethod,
        );
    }
}

#[test]
fn a_compressed_message_ends_the_stream_of_a_peer_that_did_not_offer_them() {
    let mut tunnel = Tunnel::of(Side::Handler, offer_without_compression());
    let id = tunnel.accept();
    let frame = build::compressed(id.value(), "x");
    tunnel.assert_fault(id, frame, &StreamFault::CompressedMessage);
}

#[test]
fn a_method_without_a_slash_gets_one_and_more_slashes_stay() {
    let mut tunnel = handler();
    for (id, method, expected) in [(2, "a", "/a"), (3, "//", "//"), (4, "a/b/c", "/a/b/c")] {
        let method = method.into();
        tunnel.lone.feed(build::open_with(
            id,
            NewStream {
                method,
                ..new_stream()
            },
        ));
        let events = tunnel.lone.events();
        assert!(matches!(&events[..], [Event::Opened { method, .. }] if method == expected));
    }
}

#[test]
fn a_call_in_a_revision_that_was_not_offered_is_refused() {
    for revision in [2, -1, i32::MAX] {
        let new = NewStream {
            revision,
            ..new_stream()
        };
        refused(new, &StreamFault::RevisionNotOffered(revision));
    }
    for (ours, revision) in [(Revisions::OnlyZero, 1), (Revisions::OnlyOne, 0)] {
        let config = Config::builder().revisions(ours).build().unwrap();
        let mut lone = Lone::handler(config);
        lone.feed(build::open_with(
            1,
            NewStream {
                revision,
                ..new_stream()
            },
        ));
        assert_eq!((lone.events(), lone.conn.active_streams()), (vec![], 0));
        assert_eq!(lone.sent().len(), 1);
        let revision = 1 - revision;
        lone.accept_frame(build::open_with(
            2,
            NewStream {
                revision,
                ..new_stream()
            },
        ));
    }
}

#[test]
fn revision_one_is_refused_where_it_was_not_negotiated() {
    let mut lone = Lone::with_offer(Side::Handler, Config::default(), Offer::none());
    lone.feed(build::open(1));
    assert_eq!(lone.events(), []);
    assert_eq!(lone.sent().len(), 1);
    lone.accept_frame(build::open_zero(2));
}

#[test]
fn each_stream_has_the_revision_it_came_with() {
    let mut tunnel = handler();
    let id = tunnel.lone.accept_frame(build::open_zero(2));
    let large = vec![0; own_window() + 1];
    tunnel.lone.feed(build::message(2, large));
    assert!(matches!(
        tunnel.lone.conn.recv_stream(id).read(),
        Read::Data(_)
    ));
    tunnel.assert_goes_on();
}

#[test]
fn a_first_window_over_2_to_the_31_is_refused_and_one_less_is_taken() {
    let initial_window = tunnel_core::config::MAX_WINDOW;
    let new = |initial_window| NewStream {
        initial_window,
        ..new_stream()
    };
    refused(new(initial_window + 1), &StreamFault::WindowOverflow);
    refused(new(u32::MAX), &StreamFault::WindowOverflow);
    handler()
        .lone
        .accept_frame(build::open_with(2, new(initial_window)));
}

#[test]
fn window_updates_beyond_2_to_the_31_end_the_stream() {
    for (first, credit) in [
        (1, u32::MAX),
        (u32::MAX >> 1, 1),
        (WINDOW, u32::MAX - WINDOW + 1),
    ] {
        let mut tunnel = handler();
        let new = NewStream {
            initial_window: first,
            ..new_stream()
        };
        let id = tunnel.lone.accept_frame(build::open_with(2, new));
        let error = tunnel.assert_fault(id, build::update(2, credit), &StreamFault::WindowOverflow);
        assert_eq!(error.code, Code::InvalidArgument);
    }
}

#[test]
fn window_updates_up_to_2_to_the_31_are_taken() {
    let mut tunnel = handler();
    let id = tunnel.accept();
    tunnel
        .lone
        .feed(build::update(id.value(), (u32::MAX >> 1) - WINDOW));
    assert_eq!(tunnel.lone.conn.active_streams(), 2);
    tunnel.assert_fault(
        id,
        build::update(id.value(), 1),
        &StreamFault::WindowOverflow,
    );
}

#[test]
fn a_handler_waits_for_no_window_to_send_an_empty_message() {
    let mut tunnel = handler();
    let new = NewStream {
        initial_window: 0,
        ..new_stream()
    };
    let id = tunnel.lone.accept_frame(build::open_with(2, new));
    tunnel.lone.conn.send_stream(id).message("".into()).unwrap();
    tunnel
        .lone
        .conn
        .send_stream(id)
        .message("x".into())
        .unwrap();
    assert_eq!(crate::support::letters(&tunnel.lone.sent()), "HM");
    tunnel.lone.feed(build::update(2, 1));
    assert_eq!(crate::support::letters(&tunnel.lone.sent()), "M");
}

#[test]
fn data_beyond_the_window_ends_the_stream() {
    for empty_first in [false, true] {
        let mut tunnel = handler();
        let id = tunnel.accept();
        if empty_first {
            tunnel.lone.feed(build::message(id.value(), ""));
        }
        tunnel
            .lone
            .feed(build::message(id.value(), vec![0; own_window()]));
        assert_eq!(
            tunnel.lone.conn.active_streams(),
            2,
            "to the byte it is fine"
        );
        let one_more = build::message(id.value(), "x");
        let error = tunnel.assert_fault(id, one_more, &StreamFault::WindowExceeded);
        assert_eq!(error.code, Code::ResourceExhausted);
        assert_eq!(error.message, "flow control window exceeded");
    }
}

#[test]
fn data_beyond_the_window_inside_a_message_ends_the_stream() {
    let mut tunnel = handler();
    let id = tunnel.accept();
    let size = own_window() as u32 + 1;
    tunnel
        .lone
        .feed(build::begin(id.value(), size, vec![0; own_window()]));
    tunnel.assert_fault(
        id,
        build::more(id.value(), "x"),
        &StreamFault::WindowExceeded,
    );
}

#[test]
fn a_message_inside_another_ends_the_stream() {
    for second in [
        build::message(2, ""),
        build::message(2, "y"),
        build::begin(2, 9, ""),
    ] {
        let mut tunnel = handler();
        let id = tunnel.lone.accept(2);
        tunnel.lone.feed(build::begin(2, 3, "x"));
        tunnel.assert_fault(id, second, &StreamFault::MessageInsideMessage(2));
    }
}

#[test]
fn data_without_a_message_or_beyond_its_size_ends_the_stream() {
    for (before, frame) in [
        (vec![], build::more(2, "x")),
        (vec![build::message(2, "x")], build::more(2, "x")),
        (vec![build::message(2, "")], build::more(2, "x")),
        (vec![build::begin(2, 3, "xx")], build::more(2, "yy")),
        (vec![], build::begin(2, 1, "xx")),
        (vec![], build::begin(2, 0, "x")),
    ] {
        let mut tunnel = handler();
        let id = tunnel.lone.accept(2);
        for frame in before {
            tunnel.lone.feed(frame);
        }
        tunnel.assert_fault(id, frame, &StreamFault::ExcessData);
    }
}

#[test]
fn a_half_close_inside_a_message_ends_the_stream_and_the_message_is_never_whole() {
    let mut tunnel = handler();
    let id = tunnel.accept();
    tunnel.lone.feed(build::begin(id.value(), 10, "0123456"));
    let Read::Data(chunk) = tunnel.lone.conn.recv_stream(id).read() else {
        panic!("seven bytes are there")
    };
    assert!(!chunk.ends);
    let fault = StreamFault::TruncatedMessage(3);
    let error = tunnel.assert_fault(id, build::half_close(id.value()), &fault);
    assert_eq!(error.code, Code::InvalidArgument);
}

#[test]
fn a_message_of_which_nothing_came_is_cut_short_as_well() {
    let mut tunnel = handler();
    let id = tunnel.accept();
    tunnel.lone.feed(build::begin(id.value(), 10, ""));
    assert_eq!(
        tunnel.lone.conn.recv_stream(id).read(),
        Read::Pending,
        "no phantom message"
    );
    let fault = StreamFault::TruncatedMessage(10);
    tunnel.assert_fault(id, build::half_close(id.value()), &fault);
}

#[test]
fn data_after_half_close_ends_the_stream() {
    for frame in [
        build::message(2, "x"),
        build::message(2, ""),
        build::more(2, "x"),
    ] {
        let mut tunnel = handler();
        let id = tunnel.lone.accept(2);
        tunnel.lone.feed(build::half_close(2));
        tunnel.assert_fault(id, frame, &StreamFault::DataAfterHalfClose);
    }
}

#[test]
fn a_second_half_close_says_nothing() {
    let mut tunnel = handler();
    let id = tunnel.lone.accept(2);
    tunnel.lone.feed(build::half_close(2));
    tunnel.lone.events();
    tunnel.assert_ignored(build::half_close(2));
    assert_eq!(tunnel.lone.conn.recv_stream(id).read(), Read::HalfClosed);
    tunnel.assert_goes_on();
}

#[test]
fn a_half_close_without_a_message_is_an_end_without_a_message() {
    let mut tunnel = handler();
    let id = tunnel.lone.accept(2);
    tunnel.lone.feed(build::half_close(2));
    assert_eq!(
        read_all(&mut tunnel.lone.conn, id),
        (vec![], Read::HalfClosed)
    );
}

#[test]
fn empty_pieces_and_empty_updates_and_unknown_kinds_say_nothing() {
    let mut tunnel = handler();
    let id = tunnel.accept();
    tunnel.lone.feed(build::begin(id.value(), 2, "x"));
    tunnel.lone.events();
    for frame in [
        build::more(2000, ""),
        build::update(2000, 0),
        build::unknown(2000),
    ] {
        tunnel.assert_ignored(tunnel_core::Frame {
            stream_id: id,
            ..frame
        });
    }
    tunnel.lone.feed(build::more(id.value(), "y"));
    assert_eq!(read_all(&mut tunnel.lone.conn, id).0, [b"xy"]);
}

#[test]
fn window_updates_in_revision_zero_say_nothing() {
    let mut tunnel = handler();
    tunnel.lone.accept_frame(build::open_zero(2));
    tunnel.assert_ignored(build::update(2, u32::MAX));
    tunnel.assert_ignored(build::update(2, u32::MAX));
    tunnel.assert_goes_on();
}

#[test]
fn a_cancel_before_during_and_after_anything_ends_one_stream() {
    for before in [
        vec![],
        vec![build::message(2, "x")],
        vec![build::begin(2, 9, "x")],
        vec![build::half_close(2)],
    ] {
        let mut tunnel = handler();
        let id = tunnel.lone.accept(2);
        for frame in before {
            tunnel.lone.feed(frame);
        }
        tunnel.lone.feed(build::cancel(2));
        assert_eq!(tunnel.cancelled(id).code, Code::Cancelled);
        let sent = tunnel.lone.sent();
        assert!(
            matches!(&sent[..], [f] if *f == build::close_with(2, build::metadata(&[]),
                Status::new(Code::Cancelled, "the caller cancelled the call"))),
            "{sent:?}"
        );
        tunnel.assert_ignored(build::cancel(2));
        tunnel.assert_goes_on();
    }
}

#[test]
fn an_expired_deadline_is_refused_before_anybody_hears_of_the_call() {
    for value in ["0S", "0n", "-1S", "-99999999H"] {
        let headers = build::timeout(value);
        let frame = build::open_with(
            2,
            NewStream {
                headers,
                ..new_stream()
            },
        );
        assert_refused(&mut handler(), frame, Code::DeadlineExceeded);
    }
}

#[test]
fn ids_may_have_gaps_and_begin_at_zero() {
    let mut lone = Lone::handler(Config::default());
    for id in [0, 1, 7, 1 << 40] {
        lone.accept(id);
    }
    let mut tunnel = Tunnel {
        bystander: lone.accept((1 << 40) + 1),
        lone,
    };
    for id in [2, 6, 8] {
        tunnel.assert_ignored(build::message(id, "x"));
    }
    let gone = 1 << 39;
    tunnel.assert_ignored(build::cancel(gone));
    assert_eq!(tunnel.lone.conn.active_streams(), 5);
    assert_eq!(opened(&tunnel.lone.events()), []);
}

#[test]
fn chunks_larger_than_ours_are_taken() {
    let mut tunnel = handler();
    let id = tunnel.accept();
    tunnel
        .lone
        .feed(build::begin(id.value(), 40_000, vec![1; 20_000]));
    tunnel.lone.feed(build::more(id.value(), vec![2; 20_000]));
    assert_eq!(read_all(&mut tunnel.lone.conn, id).0[0].len(), 40_000);
}
