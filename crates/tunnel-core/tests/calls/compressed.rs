//! Compressed messages: their flag is carried where both ends accept it.

use bytes::{Bytes, BytesMut};
use tunnel_core::{Code, Config, Offer, Read, Side, StreamId, WriteError};

use crate::support::pair::Pair;
use crate::support::{offer, pattern};

/// Messages as a gRPC body has them.
fn body(messages: &[(u8, usize)]) -> Vec<u8> {
    let mut body = Vec::new();
    for &(flag, size) in messages {
        body.push(flag);
        body.extend((size as u32).to_be_bytes());
        body.extend(pattern(size));
    }
    body
}

fn without() -> Offer {
    let mut offer = offer();
    offer.compressed_messages = false;
    offer
}

/// Reads what there is of a body.
fn read_body(p: &mut Pair, at: Side, id: StreamId) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let mut buf = BytesMut::new();
        let read = p.end(at).conn.recv_stream(id).body(1000, &mut buf);
        out.extend(&buf);
        out.extend(read.slice.iter().flatten());
        if let Some(then) = read.then {
            assert_eq!(then, Read::Pending);
            return out;
        }
    }
}

#[test]
fn a_body_with_compressed_messages_arrives_as_it_was_sent_however_it_is_cut() {
    let messages = [
        (0, 3),
        (1, 0),
        (1, 5),
        (0, 0),
        (1, 100_000),
        (0, 20_000),
        (1, 600),
        (1, 600),
        (0, 9),
    ];
    let body = body(&messages);
    for cut in [4, 6, 1000, body.len()] {
        let mut p = Pair::new(Config::default());
        let id = p.call();
        p.handler.conn.send_stream(id).body(Bytes::new()).unwrap();
        for from in [Side::Caller, Side::Handler] {
            let mut read = Vec::new();
            for piece in body.chunks(cut) {
                let piece = Bytes::copy_from_slice(piece);
                p.end(from).conn.send_stream(id).body(piece).unwrap();
                if cut > 100 {
                    p.pump();
                    read.extend(read_body(&mut p, from.peer(), id));
                }
            }
            while read.len() < body.len() {
                p.pump();
                read.extend(read_body(&mut p, from.peer(), id));
            }
            assert!(read == body, "{from:?}, cut {cut}");
        }
    }
}

#[test]
fn each_piece_says_whether_its_message_is_compressed() {
    let mut p = Pair::new(Config::default());
    let id = p.call();
    let body = body(&[(0, 10), (1, 20_000), (0, 10)]);
    p.caller.conn.send_stream(id).body(body.into()).unwrap();
    p.pump();
    let mut pieces = Vec::new();
    while let Read::Data(chunk) = p.handler.conn.recv_stream(id).read() {
        pieces.push((chunk.begins, chunk.compressed));
    }
    let expected = [(Some(10), false), (Some(20_000), true), (None, true)];
    assert_eq!(pieces[..3], expected);
    assert_eq!(pieces.last(), Some(&(Some(10), false)));
}

#[test]
fn a_compressed_message_is_not_sent_to_a_peer_that_does_not_accept_it() {
    for (callers, handlers) in [(without(), offer()), (offer(), without())] {
        let mut p = Pair::with_offers(Config::default(), Config::default(), callers, handlers);
        let id = p.call();
        let body = body(&[(0, 3), (1, 3)]);
        // An end knows only what its peer offers.
        let (from, to) = match callers.compressed_messages {
            true => (Side::Caller, Side::Handler),
            false => (Side::Handler, Side::Caller),
        };
        let send = p.end(from).conn.send_stream(id).body(body.into());
        assert_eq!(send, Err(WriteError::Compressed));
        p.pump();
        let Read::Data(before) = p.end(to).conn.recv_stream(id).message() else {
            panic!("the message before it was sent")
        };
        assert_eq!(before, pattern(3));
        assert_eq!(p.end(to).conn.recv_stream(id).message(), Read::Pending);
    }
}

#[test]
fn an_unknown_flag_is_not_sent() {
    let mut p = Pair::new(Config::default());
    let id = p.call();
    let send = p.caller.conn.send_stream(id).body(body(&[(2, 3)]).into());
    assert_eq!(send, Err(WriteError::Flags(2)));
}

#[test]
fn a_reader_of_whole_messages_fails_the_call_at_a_compressed_one() {
    for from in [Side::Caller, Side::Handler] {
        let mut p = Pair::new(Config::default());
        let id = p.call();
        let body = body(&[(0, 3), (1, 3), (0, 3)]);
        p.end(from).conn.send_stream(id).body(body.into()).unwrap();
        p.pump();
        let end = &mut p.end(from.peer()).conn;
        assert_eq!(end.recv_stream(id).message(), Read::Data(pattern(3).into()));
        let Read::Failed(error) = end.recv_stream(id).message() else {
            panic!("it is compressed")
        };
        assert_eq!(error.code, Code::Unimplemented);
        assert_eq!(end.recv_stream(id).message(), Read::Gone);
        p.pump();
        if from == Side::Caller {
            let Read::Closed(close) = p.caller.conn.recv_stream(id).message() else {
                panic!("the caller is told")
            };
            assert_eq!(close.status, error.to_status());
        }
        p.handler.events();
        p.handler.conn.handler_done(id);
        p.assert_idle();
    }
}
