//! Faults that end the tunnel: frames after which the peer cannot be understood.

use tunnel_core::frame::codec::DecodeError;
use tunnel_core::frame::framing::FrameError;
use tunnel_core::{
    Code, Config, ConnectionError, EndReason, Initiator, Read, Revisions, Side, StreamId,
};

use crate::support::build::{self, WINDOW};
use crate::support::lone::Lone;
use crate::support::offer;
use crate::{Tunnel, caller, handler};

/// Checks that a frame ends the tunnel with this error.
#[track_caller]
fn assert_fatal(mut tunnel: Tunnel, frame: tunnel_core::Frame, error: &ConnectionError) {
    assert_eq!(tunnel.lone.feed_fatal(frame), *error);
    assert_eq!(
        tunnel.lone.conn.end_reason(),
        Some(&EndReason::Error(error.clone()))
    );
    assert_eq!(
        (error.code(), error.initiator()),
        (Code::Internal, Initiator::Remote)
    );
    assert!(error.to_string().starts_with("protocol error: "), "{error}");
    // Later frames are ignored.
    tunnel
        .lone
        .try_feed(build::message(1, "x"))
        .expect("it is ignored");
    if tunnel.lone.conn.side() == Side::Caller {
        let error = tunnel.failed(tunnel.bystander);
        assert_eq!(error.code, Code::Unavailable);
    }
    assert_eq!(tunnel.lone.conn.stats().streams, 0);
}

#[test]
fn a_frame_for_a_stream_that_was_never_opened_ends_the_tunnel() {
    for frame in [
        build::message(2, "x"),
        build::more(2, "x"),
        build::half_close(2),
        build::cancel(2),
        build::update(2, 1),
        build::unknown(2),
        build::message(i64::MAX, "x"),
    ] {
        let id = frame.stream_id;
        let highest = Some(StreamId::new(1));
        let error = ConnectionError::UnknownStream { id, highest };
        assert_fatal(handler(), frame, &error);
    }
    for frame in [
        build::headers(2, build::metadata(&[])),
        build::message(2, "x"),
        build::close(2, Code::Ok),
        build::update(2, 1),
    ] {
        let (id, highest) = (StreamId::new(2), Some(StreamId::new(1)));
        let error = ConnectionError::UnknownStream { id, highest };
        assert_fatal(caller(), frame, &error);
    }
}

#[test]
fn a_frame_for_a_stream_that_was_opened_but_not_sent_ends_the_tunnel() {
    let mut tunnel = caller();
    let id = tunnel.lone.open_unsent(build::metadata(&[]));
    let highest = Some(StreamId::new(1));
    let error = ConnectionError::UnknownStream { id, highest };
    assert_eq!(
        tunnel.lone.feed_fatal(build::message(id.value(), "x")),
        error
    );
}

#[test]
fn a_frame_before_the_first_stream_names_no_highest() {
    let mut lone = Lone::handler(Config::default());
    let error = ConnectionError::UnknownStream {
        id: StreamId::new(0),
        highest: None,
    };
    assert_eq!(lone.feed_fatal(build::message(0, "x")), error);
}

#[test]
fn a_stream_whose_id_does_not_increase_ends_the_tunnel() {
    for id in [0, 1] {
        let error = ConnectionError::IdNotIncreasing {
            id: StreamId::new(id),
            highest: StreamId::new(1),
        };
        assert_fatal(handler(), build::open(id), &error);
    }
}

#[test]
fn the_highest_id_of_all_is_taken_once() {
    let mut tunnel = handler();
    let id = tunnel.lone.accept(i64::MAX);
    tunnel.lone.feed(build::message(i64::MAX, "x"));
    assert!(matches!(
        tunnel.lone.conn.recv_stream(id).read(),
        Read::Data(_)
    ));
    let error = ConnectionError::IdNotIncreasing {
        id: StreamId::new(i64::MAX),
        highest: StreamId::new(i64::MAX),
    };
    assert_fatal(tunnel, build::open(i64::MAX), &error);
}

#[test]
fn a_stream_with_a_negative_id_ends_the_tunnel() {
    for id in [-1, -2, i64::MIN] {
        assert_fatal(
            handler(),
            build::open(id),
            &ConnectionError::NegativeId {
                id: StreamId::new(id),
            },
        );
    }
}

#[test]
fn a_first_frame_that_is_not_settings_ends_the_tunnel() {
    for frame in [
        build::message(1, "x"),
        build::close(-1, Code::Ok),
        build::headers(0, build::metadata(&[])),
        build::update(5, 1),
        build::unknown(-1),
    ] {
        let mut lone = Lone::unopened(Side::Caller, Config::default());
        lone.conn.start(lone.now, offer());
        let id = frame.stream_id;
        assert_eq!(
            lone.feed_fatal(frame),
            ConnectionError::SettingsMissing { id }
        );
    }
}

#[test]
fn a_frame_before_the_tunnel_is_open_ends_it() {
    for side in [Side::Caller, Side::Handler] {
        let mut lone = Lone::unopened(side, Config::default());
        let error = lone.feed_fatal(build::message(3, "x"));
        assert_eq!(
            error,
            ConnectionError::SettingsMissing {
                id: StreamId::new(3)
            }
        );
    }
}

#[test]
fn settings_on_the_stream_of_a_call_end_the_tunnel() {
    for id in [0, 1, 2, -2] {
        let error = ConnectionError::UnexpectedSettings {
            id: StreamId::new(id),
        };
        assert_fatal(caller(), build::settings_on(id, &[0, 1], WINDOW), &error);
        let mut lone = Lone::unopened(Side::Caller, Config::default());
        lone.conn.start(lone.now, offer());
        assert_eq!(
            lone.feed_fatal(build::settings_on(id, &[0, 1], WINDOW)),
            error
        );
    }
}

#[test]
fn settings_for_the_second_time_are_ignored() {
    let mut tunnel = caller();
    tunnel.assert_ignored(build::settings(&[7], 1));
    tunnel.assert_goes_on();
}

#[test]
fn a_frame_of_a_kind_that_only_this_side_sends_ends_the_tunnel() {
    for id in [-1, 1, 2] {
        for frame in [
            build::settings_on(id, &[1], 1),
            build::headers(id, build::metadata(&[])),
            build::close(id, Code::Ok),
        ] {
            let error = ConnectionError::WrongDirection {
                id: StreamId::new(id),
                side: Side::Handler,
            };
            assert_fatal(handler(), frame, &error);
        }
        for frame in [build::open(id), build::half_close(id), build::cancel(id)] {
            let error = ConnectionError::WrongDirection {
                id: StreamId::new(id),
                side: Side::Caller,
            };
            assert_fatal(caller(), frame, &error);
        }
    }
}

#[test]
fn settings_without_a_common_revision_end_the_tunnel() {
    for (ours, theirs) in [
        (Revisions::ZeroAndOne, &[2, 7][..]),
        (Revisions::OnlyOne, &[0]),
        (Revisions::OnlyOne, &[]),
        (Revisions::OnlyZero, &[1]),
        (Revisions::ZeroAndOne, &[-1]),
    ] {
        let config = Config::builder().revisions(ours).build().unwrap();
        let mut lone = Lone::unopened(Side::Caller, config);
        lone.conn.start(lone.now, offer());
        let error = lone.feed_fatal(build::settings(theirs, WINDOW));
        // An empty list means revision zero.
        let theirs = if theirs.is_empty() {
            vec![0]
        } else {
            theirs.to_vec()
        };
        assert_eq!(error, ConnectionError::NoCommonRevision { theirs });
        assert_eq!(error.code(), Code::FailedPrecondition);
    }
}

#[test]
fn revisions_that_nobody_knows_beside_one_that_we_know_do_no_harm() {
    let mut lone = Lone::unopened(Side::Caller, Config::default());
    lone.conn.start(lone.now, offer());
    lone.feed(build::settings(&[99, -5, 1, 1, 0], WINDOW));
    assert_eq!(lone.conn.revision(), tunnel_core::Revision::One);
}

#[test]
fn a_window_of_settings_that_is_too_large_is_used_as_far_as_it_goes() {
    let mut lone = Lone::unopened(Side::Caller, Config::default());
    lone.conn.start(lone.now, offer());
    lone.feed(build::settings(&[1], u32::MAX));
    let id = lone.open();
    lone.conn.send_stream(id).message("x".into()).unwrap();
    assert_eq!(lone.sent().len(), 1);
    lone.feed(build::update(id.value(), 1));
    assert_eq!(lone.conn.active_streams(), 1, "it is full again, not over");
}

#[test]
fn what_cannot_be_decoded_and_what_is_lost_end_the_tunnel_with_their_own_codes() {
    for (error, code) in [
        (
            ConnectionError::Undecodable(FrameError::Decode(DecodeError::Truncated)),
            Code::Internal,
        ),
        (
            ConnectionError::TransportLost(tunnel_core::TransportCause::Reset.into()),
            Code::Unavailable,
        ),
    ] {
        let mut tunnel = caller();
        tunnel.lone.conn.handle_lost(error.clone());
        assert_eq!(error.code(), code);
        assert_eq!(error.initiator(), Initiator::Remote);
        let failed = tunnel.failed(tunnel.bystander);
        assert_eq!(failed.code, Code::Unavailable);
        assert!(failed.message.contains(&error.to_string()), "{failed}");
    }
}
