//! Replays recordings of other implementations. This library takes the place of each end of a
//! recorded tunnel in turn, and receives the frames of the other end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use tunnel_conformance::golden::{Recorded, read};
use tunnel_core::{
    CloseStream, Config, Connection, Event, Frame, FrameKind, FrameRef, FrameSink, Offer, Read,
    Side, StreamId,
};

use crate::wire::folder;

/// A sink that drops frames.
struct Nowhere;

impl FrameSink for Nowhere {
    fn frame(&mut self, _: FrameRef<'_>) -> usize {
        1
    }
}

/// All recordings of a peer, by name.
fn recordings(of: &str) -> BTreeMap<String, Vec<Recorded>> {
    let entries = std::fs::read_dir(folder(of)).expect("there are recordings");
    let recordings = entries.map(|entry| {
        let path = entry.expect("readable").path();
        let text = std::fs::read_to_string(&path).expect("readable");
        let frames = read(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = path.file_stem().expect("a file").to_string_lossy();
        (name.into_owned(), frames)
    });
    recordings.collect()
}

/// An end of this library that receives a recording.
struct Replay {
    conn: Connection,
    now: Instant,
    /// What each stream has received: whole messages, bytes, and how it ended.
    heard: BTreeMap<StreamId, Heard>,
    ids: BTreeSet<StreamId>,
}

#[derive(Debug, Default, PartialEq)]
struct Heard {
    messages: usize,
    bytes: usize,
    half_closed: bool,
    cancelled: bool,
    closed: Option<CloseStream>,
}

impl Replay {
    fn new(side: Side, frames: &[Recorded]) -> Self {
        let settings = |frame: &Recorded| {
            matches!(
                frame.decode().expect("a frame").kind,
                FrameKind::Settings(_)
            )
        };
        let mut offer = Offer::none();
        offer.negotiate = frames.iter().any(settings);
        let now = Instant::now();
        let mut conn = Connection::new(side, Config::default());
        conn.start(now, offer);
        Self {
            conn,
            now,
            heard: BTreeMap::new(),
            ids: BTreeSet::new(),
        }
    }

    fn hear(&mut self, frame: Frame) {
        let heard = self.conn.handle_frame(self.now, frame);
        heard.expect("no recorded frame ends the tunnel");
        while let Some(event) = self.conn.poll_event() {
            match event {
                Event::Opened { id, .. } => {
                    self.ids.insert(id);
                    self.heard.insert(id, Heard::default());
                }
                Event::Cancelled { id, .. } => {
                    self.heard.entry(id).or_default().cancelled = true;
                }
                Event::Ended(reason) => panic!("{reason}"),
                _ => {}
            }
        }
        for id in self.ids.clone() {
            self.read(id);
        }
        self.conn.transmit(self.now, usize::MAX, &mut Nowhere);
    }

    fn read(&mut self, id: StreamId) {
        let heard = self.heard.entry(id).or_default();
        loop {
            match self.conn.recv_stream(id).read() {
                Read::Data(chunk) => {
                    heard.bytes += chunk.data.len();
                    heard.messages += usize::from(chunk.ends);
                }
                Read::HalfClosed => {
                    heard.half_closed = true;
                    return;
                }
                Read::Closed(close) => {
                    heard.closed = Some(close);
                    return;
                }
                Read::Failed(error) => panic!("{id}: {error}"),
                _ => return,
            }
        }
    }

    /// Repeats the operations of the recorded caller that the handler depends on.
    fn act(&mut self, frame: &Frame) {
        match &frame.kind {
            FrameKind::NewStream(new) => loop {
                let id = self.conn.open(self.now, &new.method, new.headers.clone());
                let id = id.expect("the tunnel is open");
                if id == frame.stream_id {
                    self.ids.insert(id);
                    break;
                }
                assert!(id < frame.stream_id, "ids are from 1 on");
            },
            FrameKind::HalfClose => {
                // The call may be over already.
                let _ = self.conn.send_stream(frame.stream_id).finish();
            }
            FrameKind::Cancel if self.ids.remove(&frame.stream_id) => {
                self.conn.cancel(frame.stream_id);
            }
            _ => {}
        }
        self.conn.transmit(self.now, usize::MAX, &mut Nowhere);
    }
}

/// What one side of a recording sent on each stream, counted from the frames.
fn said(frames: &[Recorded], from: Side) -> BTreeMap<StreamId, Heard> {
    let mut said: BTreeMap<StreamId, Heard> = BTreeMap::new();
    for frame in frames.iter().filter(|frame| frame.from == from) {
        let frame = frame.decode().expect("a frame");
        if frame.stream_id == StreamId::CONTROL {
            continue;
        }
        let stream = said.entry(frame.stream_id).or_default();
        match frame.kind {
            FrameKind::Message { data, .. } => {
                stream.messages += 1;
                stream.bytes += data.len();
            }
            FrameKind::MoreData(data) => stream.bytes += data.len(),
            FrameKind::HalfClose => stream.half_closed = true,
            FrameKind::Cancel => stream.cancelled = true,
            FrameKind::Close(close) => stream.closed = Some(close),
            _ => {}
        }
    }
    said
}

fn as_handler(name: &str, frames: &[Recorded]) {
    let mut replay = Replay::new(Side::Handler, frames);
    for frame in frames.iter().filter(|frame| frame.from == Side::Caller) {
        replay.hear(frame.decode().expect("a frame"));
    }
    let said = said(frames, Side::Caller);
    assert!(!said.is_empty(), "{name}");
    assert_eq!(replay.heard, said, "{name}, received by the handler");
}

fn as_caller(name: &str, frames: &[Recorded]) {
    let mut replay = Replay::new(Side::Caller, frames);
    for recorded in frames {
        let frame = recorded.decode().expect("a frame");
        match recorded.from {
            Side::Caller => replay.act(&frame),
            Side::Handler => replay.hear(frame),
        }
    }
    for (id, said) in said(frames, Side::Handler) {
        // Frames for a cancelled call are ignored.
        if replay.ids.contains(&id) {
            let heard = &replay.heard[&id];
            assert_eq!(heard, &said, "{name}, stream {id}, received by the caller");
        }
    }
}

fn replay(of: &str) {
    let recordings = recordings(of);
    assert!(recordings.len() >= 10, "{:?}", recordings.keys());
    for (name, frames) in recordings {
        as_handler(&name, &frames);
        as_caller(&name, &frames);
    }
}

#[test]
fn both_ends_replay_recordings_of_the_go_library() {
    replay("go");
}

#[test]
fn both_ends_replay_recordings_of_the_python_package() {
    replay("python");
}

#[test]
fn both_ends_replay_recordings_of_this_library() {
    for (name, frames) in recordings("ours") {
        // Only an end that offered drain notices gets one.
        if !name.starts_with("drain") && name != "deadline" {
            as_handler(&name, &frames);
            as_caller(&name, &frames);
        }
    }
}
