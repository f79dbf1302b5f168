//! One end, and a peer that says anything.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;
use tunnel_core::frame::NewStream;
use tunnel_core::{Code, Config, Event, Frame, FrameKind, Metadata, Read, Side, Status, StreamId};

use crate::support::build;
use crate::support::lone::Lone;
use crate::support::offer;
use crate::support::{Written, payload_len};

/// What happens next at the end under test.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Frame(Frame),
    Open,
    Send { call: usize, len: usize },
    Finish { call: usize },
    Read { call: usize, times: usize },
    Give { call: usize },
    Transmit { budget: usize },
    Pass { millis: u64 },
    Drain { deadline: Option<u64> },
}

/// Limits within reach of a few frames.
#[derive(Clone, Debug)]
pub(crate) struct Tight {
    negotiate: bool,
    overcommit: bool,
    window: u32,
    streams: usize,
    spare: usize,
    limit: usize,
}

pub(crate) fn side() -> impl Strategy<Value = Side> {
    select(vec![Side::Caller, Side::Handler])
}

pub(crate) fn tight() -> impl Strategy<Value = Tight> {
    (
        any::<bool>(),
        any::<bool>(),
        select(vec![1u32, 10, 300]),
        select(vec![1usize, 4, 30]),
        select(vec![0usize, 5, 400]),
        select(vec![1usize, 5, 1000]),
    )
        .prop_map(
            |(negotiate, overcommit, window, streams, spare, limit)| Tight {
                negotiate,
                overcommit,
                window,
                streams,
                spare,
                limit,
            },
        )
}

const HIGH_MARK: usize = 500;
const MAX_METADATA: usize = 300;

impl Tight {
    fn config(&self) -> Config {
        let promised = self.streams * self.window as usize + HIGH_MARK;
        let cap = if self.overcommit {
            self.spare + 1
        } else {
            promised + self.spare
        };
        Config::builder()
            .initial_window(self.window)
            .max_window(self.window * 4)
            .max_concurrent_streams(self.streams)
            .max_buffered_bytes(cap)
            .overcommit(self.overcommit)
            .unread_high_mark(HIGH_MARK)
            .unread_low_mark(HIGH_MARK / 5)
            .unread_high_messages(self.limit)
            .unread_stall_timeout(Duration::from_millis(20))
            .max_metadata_size(MAX_METADATA)
            .max_message_size(2000)
            .max_unread_empty_messages(self.limit)
            .max_pending_refusals(self.limit)
            .max_stray_frames(self.limit)
            .max_empty_frames(self.limit)
            .refusal_stall_timeout(Duration::from_millis(20))
            .build()
            .expect("its parts agree")
    }
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => frame().prop_map(Step::Frame),
        8 => Just(Step::Open),
        4 => (call(), 0..600usize).prop_map(|(call, len)| Step::Send { call, len }),
        2 => call().prop_map(|call| Step::Finish { call }),
        10 => (call(), 1..5usize).prop_map(|(call, times)| Step::Read { call, times }),
        2 => call().prop_map(|call| Step::Give { call }),
        8 => select(vec![1usize, 100, 100_000]).prop_map(|budget| Step::Transmit { budget }),
        2 => (0..30u64).prop_map(|millis| Step::Pass { millis }),
        1 => proptest::option::of(0..30u64).prop_map(|deadline| Step::Drain { deadline }),
    ]
}

fn call() -> impl Strategy<Value = usize> {
    0..100usize
}

/// Mostly frames that are nearly right: those get furthest.
fn frame() -> impl Strategy<Value = Frame> {
    let id = prop_oneof![
        30 => 1..8i64,
        3 => select(vec![-1i64, 0]),
        1 => select(vec![-2i64, 9, 1000, i64::MAX, i64::MIN]),
    ];
    let kind = prop_oneof![
        6 => (select(vec!["/a/b", "c/d", ""]), timeout(), window(), select(vec![0, 1, 1, 1, 2]))
            .prop_map(|(method, headers, initial_window, revision)| {
                FrameKind::NewStream(NewStream {
                    method: method.into(),
                    headers,
                    initial_window,
                    revision,
                })
            }),
        8 => (0..400usize, 0..3usize).prop_map(|(len, part)| FrameKind::Message {
            size: (len * (1 + part * 2)) as u32,
            data: vec![7; len].into(),
        }),
        1 => any::<u32>().prop_map(|size| FrameKind::Message { size, data: vec![7; 5].into() }),
        2 => Just(FrameKind::Message { size: 0, data: Default::default() }),
        6 => (0..400usize).prop_map(|len| FrameKind::MoreData(vec![7; len].into())),
        2 => Just(FrameKind::HalfClose),
        2 => Just(FrameKind::Cancel),
        4 => window().prop_map(FrameKind::WindowUpdate),
        2 => (0..2usize).prop_map(|big| FrameKind::Headers(metadata(big))),
        3 => (0..2usize, 0..17).prop_map(|(big, code)| {
            build::close_with(0, metadata(big), Status::new(Code::from_wire(code), "")).kind
        }),
        1 => (-1..8i64).prop_map(|last| build::going_away(last).kind),
        1 => Just(build::settings(&[0, 1], 5).kind),
        1 => Just(FrameKind::Unknown),
    ];
    (id, kind).prop_map(|(id, kind)| Frame {
        stream_id: StreamId::new(id),
        kind,
    })
}

fn window() -> impl Strategy<Value = u32> {
    prop_oneof![3 => 0..1000u32, 1 => select(vec![u32::MAX >> 1, u32::MAX])]
}

fn timeout() -> impl Strategy<Value = Metadata> {
    prop_oneof![
        4 => Just(Metadata::new()),
        1 => select(vec!["0S", "1n", "15m", "1H"]).prop_map(build::timeout),
    ]
}

fn metadata(big: usize) -> Metadata {
    build::metadata_of_size(MAX_METADATA - 10 + big * 11)
}

/// Frames of a kind that `side` may receive at all; others only end the tunnel at once, which
/// is no way to get far.
fn acceptable(side: Side, frame: &Frame) -> bool {
    let from_caller = matches!(
        frame.kind,
        FrameKind::NewStream(_) | FrameKind::HalfClose | FrameKind::Cancel
    );
    let from_handler = matches!(
        frame.kind,
        FrameKind::Headers(_) | FrameKind::Close(_) | FrameKind::Settings(_)
    );
    match side {
        Side::Caller => !from_caller,
        Side::Handler => !from_handler,
    }
}

struct Run<'a> {
    lone: Lone,
    tight: &'a Tight,
    ids: Vec<StreamId>,
    /// The largest frame seen, for what may come beyond a mark.
    largest: usize,
    received: usize,
    next: i64,
}

pub(crate) fn run(side: Side, tight: &Tight, steps: &[Step]) {
    let mut offer = offer();
    offer.negotiate = tight.negotiate;
    let mut run = Run {
        lone: Lone::with_offer(side, tight.config(), offer),
        tight,
        ids: Vec::new(),
        largest: 0,
        received: 0,
        next: 1,
    };
    for step in steps {
        run.apply(step);
        run.check();
    }
    run.end();
}

impl Run<'_> {
    fn apply(&mut self, step: &Step) {
        match step {
            Step::Frame(frame) => self.feed(frame.clone()),
            Step::Open => self.open(),
            Step::Send { call, len } => {
                self.with(*call, |lone, id| {
                    let _ = lone.conn.send_stream(id).message(vec![1; *len].into());
                });
            }
            Step::Finish { call } => self.with(*call, |lone, id| {
                let _ = match lone.conn.side() {
                    Side::Caller => lone.conn.send_stream(id).finish(),
                    Side::Handler => lone.conn.send_stream(id).close(Metadata::new(), Status::OK),
                };
            }),
            Step::Read { call, times } => self.with(*call, |lone, id| {
                for _ in 0..*times {
                    let _ = lone.conn.recv_stream(id).read();
                }
            }),
            Step::Give { call } => self.with(*call, |lone, id| match lone.conn.side() {
                Side::Caller => lone.conn.cancel(id),
                Side::Handler => lone.conn.reset(id, Status::OK),
            }),
            Step::Transmit { budget } => {
                let now = self.lone.now;
                self.lone
                    .conn
                    .transmit(now, *budget, &mut Written::default());
            }
            Step::Pass { millis } => self.lone.pass(Duration::from_millis(*millis)),
            Step::Drain { deadline } => {
                let now = self.lone.now;
                let deadline = deadline.map(|millis| now + Duration::from_millis(millis));
                self.lone.conn.drain(now, deadline);
            }
        }
        for event in self.lone.events() {
            if let Event::Opened { id, .. } = event {
                self.ids.push(id);
            }
        }
    }

    fn with(&mut self, call: usize, op: impl FnOnce(&mut Lone, StreamId)) {
        let count = self.ids.len().max(1);
        if let Some(&id) = self.ids.get(call % count) {
            op(&mut self.lone, id);
        }
    }

    fn feed(&mut self, mut frame: Frame) {
        if !acceptable(self.lone.conn.side(), &frame) {
            return;
        }
        // A new stream mostly has the next id, or it would be the last frame.
        if let FrameKind::NewStream(new) = &mut frame.kind {
            if frame.stream_id.value() > 1 {
                frame.stream_id = StreamId::new(self.next);
                self.next += 1;
            }
            if !self.tight.negotiate {
                new.revision = 0;
            }
        }
        // So that not every call ends at once for a window exceeded.
        if let FrameKind::Message { data, .. } | FrameKind::MoreData(data) = &mut frame.kind {
            data.truncate(data.len().min(self.tight.window as usize));
        }
        self.largest = self.largest.max(payload_len(&frame));
        self.received += payload_len(&frame);
        let ended = self.lone.conn.end_reason().is_some();
        let result = self.lone.try_feed(frame);
        assert!(!ended || result.is_ok(), "after the end all is ignored");
        if result.is_err() {
            assert!(self.lone.conn.end_reason().is_some());
        }
    }

    fn open(&mut self) {
        match self.lone.conn.side() {
            Side::Caller => {
                if let Ok(id) = self.lone.conn.open(self.lone.now, "/a/b", Metadata::new()) {
                    self.ids.push(id);
                }
            }
            Side::Handler => {
                let revision = i32::from(self.tight.negotiate);
                let new = NewStream {
                    revision,
                    ..build::new_stream()
                };
                self.feed(build::open_with(2, new));
            }
        }
    }

    /// What is true at all times.
    fn check(&self) {
        let stats = self.lone.conn.stats();
        let t = self.tight;
        assert!(stats.streams <= t.streams, "{stats:?}");
        assert!(stats.deadlines <= stats.streams);
        let promised = t.streams * t.window as usize;
        // The test goes on although reading has paused, so revision zero has only this bound.
        assert!(stats.unread_bytes <= self.received);
        if t.overcommit {
            assert!(stats.unread_bytes <= t.spare + 1, "{stats:?}");
            assert!(stats.spare_used <= t.spare + 1, "{stats:?}");
        } else {
            assert!(stats.spare_used <= t.spare, "{stats:?}");
            if t.negotiate && self.lone.conn.side() == Side::Caller {
                assert!(stats.unread_bytes <= promised + t.spare, "{stats:?}");
            }
        }
        if stats.streams == 0 {
            let held = [
                stats.unread_bytes,
                stats.spare_used,
                stats.queued_bytes,
                stats.deadlines,
            ];
            assert_eq!(held, [0; 4], "{stats:?}");
        }
        if self.lone.conn.end_reason().is_some() {
            assert_eq!(self.lone.conn.poll_timeout(), None);
            assert!(!self.lone.conn.wants_transmit() && self.lone.conn.wants_input());
        }
    }

    /// The tunnel ends, and the application reads what is left.
    fn end(&mut self) {
        self.lone.conn.close();
        for &id in &self.ids {
            while let Read::Data(_) = self.lone.conn.recv_stream(id).read() {}
        }
        self.lone.events();
        self.check();
        assert_eq!(self.lone.conn.stats().streams, 0);
        assert_eq!(self.lone.conn.stats().pending_refusals, 0);
    }
}
