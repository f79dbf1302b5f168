//! Calls of the four kinds, their headers and their trailers.

use bytes::Bytes;
use tunnel_core::{Code, Config, Event, FrameKind, Metadata, OpenError, Read, Status, WriteError};

use crate::support::build::metadata;
use crate::support::pair::Pair;
use crate::support::reader::read_all;
use crate::support::{letters, opened};

fn pair() -> Pair {
    Pair::new(Config::default())
}

#[test]
fn a_unary_call_is_three_frames_each_way() {
    let mut p = pair();
    let id = p.open_with(metadata(&[("tenant", "blue")]));
    p.caller
        .conn
        .send_stream(id)
        .message("ping".into())
        .unwrap();
    p.caller.conn.send_stream(id).finish().unwrap();
    p.pump();

    let events = p.handler.events();
    let [
        Event::Opened {
            id: at_handler,
            method,
            headers,
            deadline: None,
            ..
        },
        Event::Readable(_),
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((*at_handler, method.as_str()), (id, "/test.Echo/Say"));
    assert_eq!(headers.get("tenant"), Some("blue"));
    let (messages, end) = read_all(&mut p.handler.conn, id);
    assert_eq!(
        (&messages[..], end),
        (&[b"ping".to_vec()][..], Read::HalfClosed)
    );

    let mut send = p.handler.conn.send_stream(id);
    send.headers(metadata(&[("served-by", "a")])).unwrap();
    send.message("pong".into()).unwrap();
    let status = Status::new(Code::NotFound, "almost");
    send.close(metadata(&[("cost", "3")]), status.clone())
        .unwrap();
    p.pump();

    assert_eq!(p.caller.events(), [Event::Readable(id)]);
    let headers = p
        .caller
        .conn
        .recv_stream(id)
        .take_headers()
        .expect("they came");
    assert_eq!(headers.get("served-by"), Some("a"));
    assert_eq!(p.caller.conn.recv_stream(id).take_headers(), None);
    let (messages, end) = read_all(&mut p.caller.conn, id);
    assert_eq!(messages, [b"pong"]);
    let Read::Closed(close) = end else {
        panic!("{end:?}")
    };
    assert_eq!(close.status, status);
    assert_eq!(close.trailers.get("cost"), Some("3"));

    assert_eq!(letters(&p.caller.log), "NME");
    assert_eq!(letters(&p.handler.log), "HMC");
    assert_eq!(p.caller.conn.recv_stream(id).read(), Read::Gone);
    assert_eq!(p.handler.conn.recv_stream(id).read(), Read::Gone);
    p.assert_idle();
}

#[test]
fn a_client_streams_messages_that_arrive_in_order() {
    let mut p = pair();
    let id = p.open();
    for n in 0..100u8 {
        p.caller
            .conn
            .send_stream(id)
            .message(vec![n; usize::from(n)].into())
            .unwrap();
    }
    p.caller.conn.send_stream(id).finish().unwrap();
    p.pump();
    let (messages, end) = read_all(&mut p.handler.conn, id);
    let expected: Vec<_> = (0..100u8).map(|n| vec![n; usize::from(n)]).collect();
    assert_eq!(messages, expected);
    assert_eq!(end, Read::HalfClosed);
    assert_eq!(
        p.handler.conn.recv_stream(id).read(),
        Read::HalfClosed,
        "it stays so"
    );
}

#[test]
fn a_server_streams_messages_that_arrive_in_order_and_before_the_status() {
    let mut p = pair();
    let id = p.call();
    for n in 0..100u8 {
        p.handler
            .conn
            .send_stream(id)
            .message(vec![n; 1 + usize::from(n)].into())
            .unwrap();
    }
    p.handler
        .conn
        .send_stream(id)
        .close(Metadata::new(), Status::OK)
        .unwrap();
    p.pump();
    let (messages, end) = read_all(&mut p.caller.conn, id);
    assert_eq!(messages.len(), 100);
    assert!(
        messages
            .iter()
            .zip(0..)
            .all(|(m, n)| *m == vec![n; 1 + usize::from(n)])
    );
    assert!(matches!(end, Read::Closed(_)));
    p.assert_idle();
}

#[test]
fn the_handler_may_go_on_after_the_caller_has_finished_but_not_the_other_way() {
    let mut p = pair();
    let id = p.call();
    p.caller.conn.send_stream(id).finish().unwrap();
    p.pump();
    assert_eq!(p.handler.conn.recv_stream(id).read(), Read::HalfClosed);
    p.handler
        .conn
        .send_stream(id)
        .message("late".into())
        .unwrap();
    p.pump();
    let (messages, end) = read_all(&mut p.caller.conn, id);
    assert_eq!((messages, end), (vec![b"late".to_vec()], Read::Pending));

    let id = p.call();
    p.caller.events();
    p.handler
        .conn
        .send_stream(id)
        .close(Metadata::new(), Status::OK)
        .unwrap();
    p.pump();
    assert_eq!(
        p.caller.events(),
        [Event::Readable(id), Event::Writable(id)],
        "a writer learns that nobody wants its messages"
    );
    assert_eq!(
        p.caller.conn.send_stream(id).message("x".into()),
        Err(WriteError::Gone)
    );
    assert_eq!(
        p.caller.conn.send_stream(id).is_writable(),
        Err(WriteError::Gone)
    );
    assert!(matches!(
        p.caller.conn.recv_stream(id).read(),
        Read::Closed(_)
    ));
}

#[test]
fn empty_messages_are_messages_and_are_not_the_same_as_none() {
    let mut p = pair();
    let id = p.call();
    for _ in 0..3 {
        p.caller.conn.send_stream(id).message(Bytes::new()).unwrap();
    }
    p.caller.conn.send_stream(id).begin_message(0).unwrap();
    p.caller.conn.send_stream(id).message("x".into()).unwrap();
    p.caller.conn.send_stream(id).finish().unwrap();
    p.pump();
    assert_eq!(letters(&p.caller.log), "MMMMME");
    let (messages, _) = read_all(&mut p.handler.conn, id);
    assert_eq!(messages, [&b""[..], b"", b"", b"", b"x"]);

    let id = p.call();
    p.caller.conn.send_stream(id).finish().unwrap();
    p.pump();
    assert_eq!(letters(&p.caller.log), "E");
    let (messages, end) = read_all(&mut p.handler.conn, id);
    assert_eq!((messages.len(), end), (0, Read::HalfClosed));
}

#[test]
fn headers_not_given_are_empty_and_go_before_the_first_message() {
    let mut p = pair();
    let id = p.call();
    p.handler.conn.send_stream(id).message("x".into()).unwrap();
    p.pump();
    assert_eq!(letters(&p.handler.log), "HM");
    let headers = p.caller.conn.recv_stream(id).take_headers();
    assert_eq!(headers, Some(Metadata::new()));
    assert_eq!(
        p.handler.conn.send_stream(id).headers(Metadata::new()),
        Err(WriteError::HeadersSent)
    );
}

#[test]
fn headers_go_at_once_and_once() {
    let mut p = pair();
    let id = p.call();
    p.handler
        .conn
        .send_stream(id)
        .headers(metadata(&[("a", "1")]))
        .unwrap();
    assert_eq!(
        p.handler.conn.send_stream(id).headers(Metadata::new()),
        Err(WriteError::HeadersSent)
    );
    p.pump();
    assert_eq!(letters(&p.handler.log), "H");
    assert_eq!(p.caller.events(), [Event::Readable(id)]);
    assert_eq!(p.caller.conn.recv_stream(id).read(), Read::Pending);
    let headers = p
        .caller
        .conn
        .recv_stream(id)
        .take_headers()
        .expect("they came");
    assert_eq!(headers.get("a"), Some("1"));
}

#[test]
fn a_call_ended_without_messages_or_headers_is_a_close_alone() {
    let mut p = pair();
    let id = p.call();
    let status = Status::new(Code::PermissionDenied, "no");
    p.handler
        .conn
        .send_stream(id)
        .close(metadata(&[("why", "so")]), status.clone())
        .unwrap();
    assert_eq!(
        p.handler.conn.send_stream(id).headers(Metadata::new()),
        Err(WriteError::Finished)
    );
    p.pump();
    assert_eq!(letters(&p.handler.log), "C");
    assert_eq!(p.caller.conn.recv_stream(id).take_headers(), None);
    let Read::Closed(close) = p.caller.conn.recv_stream(id).read() else {
        panic!("it was closed")
    };
    assert_eq!(
        (close.status, close.trailers.get("why")),
        (status, Some("so"))
    );
    p.assert_idle();
}

#[test]
fn headers_given_go_before_a_close_without_messages() {
    let mut p = pair();
    let id = p.call();
    p.handler
        .conn
        .send_stream(id)
        .headers(Metadata::new())
        .unwrap();
    p.handler
        .conn
        .send_stream(id)
        .close(Metadata::new(), Status::OK)
        .unwrap();
    p.pump();
    assert_eq!(letters(&p.handler.log), "HC");
}

#[test]
fn ids_start_at_one_and_increase_by_one_whatever_becomes_of_a_call() {
    let mut p = pair();
    let first = p.open();
    let second = p.open();
    p.caller.conn.cancel(second);
    let third = p.open();
    p.pump();
    assert_eq!([first, second, third].map(|id| id.value()), [1, 2, 3]);
    assert_eq!(opened(&p.handler.events()), [first, third]);
}

#[test]
fn a_method_gets_its_leading_slash() {
    let mut p = pair();
    for method in ["/a.B/C", "a.B/C"] {
        p.caller.conn.open(p.now, method, Metadata::new()).unwrap();
    }
    p.pump();
    for frame in &p.caller.log {
        let FrameKind::NewStream(new) = &frame.kind else {
            panic!("{frame:?}")
        };
        assert_eq!(new.method, "/a.B/C");
    }
    for method in ["", "/"] {
        assert_eq!(
            p.caller.conn.open(p.now, method, Metadata::new()),
            Err(OpenError::EmptyMethod)
        );
    }
}

#[test]
fn a_message_must_be_written_whole_and_not_more() {
    let mut p = pair();
    let id = p.call();
    let mut send = p.caller.conn.send_stream(id);
    send.begin_message(5).unwrap();
    send.write("abc".into()).unwrap();
    assert_eq!(send.begin_message(1), Err(WriteError::MessageIncomplete(2)));
    assert_eq!(
        send.message("x".into()),
        Err(WriteError::MessageIncomplete(2))
    );
    assert_eq!(send.finish(), Err(WriteError::MessageIncomplete(2)));
    assert_eq!(send.write("defg".into()), Err(WriteError::ExcessData));
    send.write("de".into()).unwrap();
    assert_eq!(send.write("f".into()), Err(WriteError::ExcessData));
    send.write(Bytes::new()).unwrap();
    send.finish().unwrap();
    assert_eq!(send.finish(), Err(WriteError::Finished));
    assert_eq!(send.message("x".into()), Err(WriteError::Finished));
    p.pump();
    let (messages, end) = read_all(&mut p.handler.conn, id);
    assert_eq!((messages, end), (vec![b"abcde".to_vec()], Read::HalfClosed));

    let mut send = p.handler.conn.send_stream(id);
    send.begin_message(2).unwrap();
    assert_eq!(
        send.close(Metadata::new(), Status::OK),
        Err(WriteError::MessageIncomplete(2))
    );
    send.write("ok".into()).unwrap();
    send.close(Metadata::new(), Status::OK).unwrap();
    assert_eq!(
        send.close(Metadata::new(), Status::OK),
        Err(WriteError::Finished)
    );
}

#[test]
fn each_side_can_only_say_what_is_its_to_say() {
    let mut p = pair();
    let id = p.call();
    let mut send = p.caller.conn.send_stream(id);
    assert_eq!(send.headers(Metadata::new()), Err(WriteError::WrongSide));
    assert_eq!(
        send.close(Metadata::new(), Status::OK),
        Err(WriteError::WrongSide)
    );
    assert_eq!(
        p.handler.conn.send_stream(id).finish(),
        Err(WriteError::WrongSide)
    );
    assert_eq!(
        p.handler.conn.open(p.now, "/a/b", Metadata::new()),
        Err(OpenError::NotCaller)
    );
    p.pump();
    assert_eq!(letters(p.caller.log.iter().chain(&p.handler.log)), "");
}
