//! Messages that are sent in pieces.

use bytes::Bytes;
use tunnel_core::{Config, Event, FrameKind, Read, Side};

use crate::support::build::WINDOW;
use crate::support::pair::Pair;
use crate::support::reader::{Reader, bytes};
use crate::support::{letters, pattern, payload_len};

const CHUNK: usize = 16_384;

#[test]
fn every_size_is_cut_at_16384_bytes_and_arrives_whole() {
    let sizes = [
        0,
        1,
        16_383,
        16_384,
        16_385,
        32_768,
        65_535,
        65_536,
        65_537,
        98_304,
        98_305,
        131_073,
        1 << 20,
        4 << 20,
    ];
    for size in sizes {
        let mut p = Pair::new(Config::default());
        let id = p.call();
        p.caller.conn.send_stream(id).message(bytes(size)).unwrap();
        let mut reader = Reader::new(id);
        p.read_until(Side::Handler, &mut reader, 1);
        assert_eq!(reader.messages.len(), 1, "{size}");
        assert!(reader.messages[0] == pattern(size), "{size}");

        let frames = p.caller.take_log();
        let declared = FrameKind::Message {
            size: size as u32,
            data: bytes(size.min(CHUNK)),
            compressed: false,
        };
        assert_eq!(frames[0].kind, declared);
        assert!(frames.iter().all(|f| payload_len(f) <= CHUNK));
        assert!(
            frames[1..]
                .iter()
                .all(|f| matches!(f.kind, FrameKind::MoreData(_)))
        );
        if size <= Config::default().initial_window() as usize {
            assert_eq!(frames.len(), size.div_ceil(CHUNK).max(1), "{size}");
        }
    }
}

#[test]
fn the_size_of_chunks_can_be_set() {
    let mut p = Pair::new(Config::builder().chunk_size(10).build().unwrap());
    let id = p.call();
    for size in [9, 10, 11] {
        p.caller.conn.send_stream(id).message(bytes(size)).unwrap();
    }
    p.pump();
    let lengths: Vec<_> = p.caller.log.iter().map(payload_len).collect();
    assert_eq!(lengths, [9, 10, 10, 1]);
    assert_eq!(letters(&p.caller.log), "MMMd");
}

#[test]
fn a_message_written_in_pieces_says_its_size_with_the_first() {
    let mut p = Pair::new(Config::default());
    let id = p.call();
    p.caller.conn.send_stream(id).begin_message(6).unwrap();
    p.pump();
    assert_eq!(letters(&p.caller.log), "", "nothing to send yet");
    for piece in ["a", "bc", "def"] {
        p.caller.conn.send_stream(id).write(piece.into()).unwrap();
        p.pump();
    }
    assert_eq!(letters(&p.caller.log), "Mdd");
    let FrameKind::Message { size, data, .. } = &p.caller.log[0].kind else {
        panic!("a message begins")
    };
    assert_eq!((*size, &data[..]), (6, &b"a"[..]));
    let mut reader = Reader::new(id);
    assert_eq!(reader.read_all(&mut p.handler.conn), Read::Pending);
    assert_eq!(reader.messages, [b"abcdef"]);
}

#[test]
fn pieces_are_handed_on_as_they_arrive_when_the_message_fits_the_window() {
    let config = Config::builder().initial_window(WINDOW).build().unwrap();
    let mut p = Pair::new(config);
    let id = p.call();
    p.caller.conn.send_stream(id).begin_message(WINDOW).unwrap();
    p.caller.conn.send_stream(id).write(bytes(1)).unwrap();
    p.pump();
    let Read::Data(chunk) = p.handler.conn.recv_stream(id).read() else {
        panic!("the first byte is there")
    };
    assert_eq!(
        (chunk.begins, chunk.data.len(), chunk.ends),
        (Some(WINDOW), 1, false)
    );
    assert_eq!(p.handler.conn.recv_stream(id).read(), Read::Pending);
    p.caller
        .conn
        .send_stream(id)
        .write(bytes(WINDOW as usize - 1))
        .unwrap();
    p.pump();
    let mut last = None;
    let mut got = 1;
    while let Read::Data(chunk) = p.handler.conn.recv_stream(id).read() {
        assert_eq!(chunk.begins, None);
        got += chunk.data.len();
        last = Some(chunk.ends);
    }
    assert_eq!((got, last), (WINDOW as usize, Some(true)));
}

#[test]
fn a_message_larger_than_the_window_is_held_until_a_quarter_has_arrived() {
    let config = Config::builder()
        .initial_window(100)
        .max_window(100)
        .build()
        .unwrap();
    let mut p = Pair::new(config);
    let id = p.call();
    let size = 1000;
    p.caller.conn.send_stream(id).message(bytes(size)).unwrap();
    let mut arrived = 0;
    for _ in 0..10 {
        p.write(Side::Caller, usize::MAX);
        arrived += p.caller.take_log().iter().map(payload_len).sum::<usize>();
        p.carry(Side::Caller, usize::MAX);
        match p.handler.conn.recv_stream(id).read() {
            Read::Pending => {
                let stats = p.handler.conn.stats();
                assert_eq!((stats.unread_bytes, stats.spare_used), (arrived, arrived));
            }
            Read::Data(chunk) => {
                assert_eq!((chunk.begins, chunk.data.len()), (Some(size as u32), 300));
                break;
            }
            other => panic!("{other:?}"),
        }
        p.flush(Side::Handler);
    }
    assert_eq!(
        arrived, 300,
        "three windows are the first to make a quarter"
    );
    let stats = p.handler.conn.stats();
    assert_eq!((stats.unread_bytes, stats.spare_used), (0, 0));
}

#[test]
fn pieces_of_all_sizes_that_lie_unread_keep_their_order() {
    let mut p = Pair::new(Config::default());
    let id = p.call();
    // Pieces smaller than SMALL_FRAME are copied together.
    let small = tunnel_core::frame::framing::SMALL_FRAME;
    let lengths = [3, 2000, 1, 1, small - 1, small, small + 1, 10, 5000, 7];
    let whole = pattern(lengths.iter().sum());
    p.caller
        .conn
        .send_stream(id)
        .begin_message(whole.len() as u32)
        .unwrap();
    let mut rest = Bytes::from(whole.clone());
    for len in lengths {
        p.caller
            .conn
            .send_stream(id)
            .write(rest.split_to(len))
            .unwrap();
    }
    for len in lengths {
        p.caller.conn.send_stream(id).message(bytes(len)).unwrap();
    }
    p.pump();
    let mut reader = Reader::new(id);
    assert_eq!(reader.read_all(&mut p.handler.conn), Read::Pending);
    assert!(reader.messages[0] == whole);
    assert!(reader.messages[1..].iter().eq(&lengths.map(pattern)));
}

#[test]
fn small_messages_behind_each_other_arrive_one_by_one() {
    let mut p = Pair::new(Config::default());
    let id = p.call();
    for n in 0..1000u32 {
        let data = Bytes::copy_from_slice(&n.to_be_bytes());
        p.caller.conn.send_stream(id).message(data).unwrap();
    }
    p.pump();
    assert_eq!(p.handler.events(), [Event::Readable(id)]);
    let mut reader = Reader::new(id);
    assert_eq!(reader.read_all(&mut p.handler.conn), Read::Pending);
    assert!(
        reader
            .messages
            .iter()
            .zip(0u32..)
            .all(|(m, n)| *m == n.to_be_bytes())
    );
    assert_eq!(reader.messages.len(), 1000);
}

#[test]
fn whole_messages_are_read_as_they_were_sent_however_large() {
    let sizes = [0, 1, 16_384, 16_385, 98_305, 5, 4 << 20, 0, 3];
    let mut p = Pair::new(Config::default());
    let id = p.call();
    for size in sizes {
        p.caller.conn.send_stream(id).message(bytes(size)).unwrap();
    }
    p.caller.conn.send_stream(id).finish().unwrap();
    let mut messages = Vec::new();
    let end = loop {
        match p.handler.conn.recv_stream(id).message() {
            Read::Data(message) => messages.push(message),
            Read::Pending if messages.len() < sizes.len() => p.pump(),
            end => break end,
        }
    };
    assert!(messages == sizes.map(bytes));
    assert_eq!(end, Read::HalfClosed);
}
