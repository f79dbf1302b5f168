//! Operations and configurations, drawn at random.

use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use tunnel_core::{Config, Revisions, Side};

/// What happens next. Calls are chosen by a number, among all there have been.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Open {
        timeout: Option<&'static str>,
    },
    Send {
        side: Side,
        call: usize,
        size: Size,
    },
    Begin {
        side: Side,
        call: usize,
        size: Size,
    },
    Write {
        side: Side,
        call: usize,
        len: usize,
    },
    Finish {
        call: usize,
    },
    Headers {
        call: usize,
    },
    Close {
        call: usize,
    },
    Cancel {
        call: usize,
    },
    Reset {
        call: usize,
    },
    Read {
        side: Side,
        call: usize,
        times: usize,
    },
    AskWritable {
        side: Side,
        call: usize,
    },
    Transmit {
        side: Side,
        budget: usize,
    },
    Carry {
        from: Side,
        count: usize,
    },
    Pump,
    Pass {
        millis: u64,
    },
    Drain {
        side: Side,
        deadline: Option<u64>,
    },
}

/// The size of a message, in windows and bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    windows: usize,
    more: usize,
    less: usize,
}

impl Size {
    /// What it is where the window is `window`: small enough that thousands of cases are quick.
    pub(crate) fn bytes(self, window: usize) -> usize {
        (self.windows * window.min(700) + self.more).saturating_sub(self.less)
    }

    pub(crate) fn may_be_zero(self) -> bool {
        self.windows == 0 && self.more <= self.less
    }
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => timeout().prop_map(|timeout| Op::Open { timeout }),
        12 => (side(), call(), size()).prop_map(|(side, call, size)| Op::Send { side, call, size }),
        4 => (side(), call(), size()).prop_map(|(side, call, size)| Op::Begin { side, call, size }),
        8 => (side(), call(), 0..200usize).prop_map(|(side, call, len)| Op::Write { side, call, len }),
        4 => call().prop_map(|call| Op::Finish { call }),
        2 => call().prop_map(|call| Op::Headers { call }),
        3 => call().prop_map(|call| Op::Close { call }),
        2 => call().prop_map(|call| Op::Cancel { call }),
        1 => call().prop_map(|call| Op::Reset { call }),
        12 => (side(), call(), 1..6usize).prop_map(|(side, call, times)| Op::Read { side, call, times }),
        3 => (side(), call()).prop_map(|(side, call)| Op::AskWritable { side, call }),
        12 => (side(), select(vec![0, 1, 50, 500, 100_000])).prop_map(|(side, budget)| Op::Transmit { side, budget }),
        12 => (side(), select(vec![1, 3, 10, 1000])).prop_map(|(from, count)| Op::Carry { from, count }),
        3 => Just(Op::Pump),
        3 => select(vec![0, 1, 4, 10, 2000]).prop_map(|millis| Op::Pass { millis }),
        1 => (side(), option::of(0..20u64)).prop_map(|(side, deadline)| Op::Drain { side, deadline }),
    ]
}

fn side() -> impl Strategy<Value = Side> {
    select(vec![Side::Caller, Side::Handler])
}

fn call() -> impl Strategy<Value = usize> {
    0..100usize
}

fn timeout() -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![
        4 => Just(None),
        1 => select(vec!["1n", "2m", "9m", "1S", "1H"]).prop_map(Some),
    ]
}

fn size() -> impl Strategy<Value = Size> {
    prop_oneof![
        1 => Just((0, 0, 0)),
        3 => (0..3usize, 0..30usize, Just(0)),
        2 => (1..2usize, 0..2usize, 0..2usize),
        1 => (3..9usize, 0..5usize, Just(0)),
    ]
    .prop_map(|(windows, more, less)| Size {
        windows,
        more,
        less,
    })
}

/// What the two ends are like.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) zero: bool,
    pub(crate) negotiate: bool,
    pub(crate) drain_offered: bool,
    pub(crate) message_credit: bool,
    /// How many streams the handler says it serves.
    pub(crate) announced: Option<usize>,
    /// Whether limits may be in the way of honest calls.
    pub(crate) tight: bool,
    pub(crate) window: u32,
    growth: u32,
    chunk: usize,
    send_buffer: usize,
    streams: usize,
    high_mark: usize,
    high_messages: usize,
    spare: usize,
    max_message: usize,
    max_empty: usize,
}

pub(crate) fn setup() -> impl Strategy<Value = Setup> {
    let kind = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let offers = (any::<bool>(), option::of(select(vec![1usize, 2, 50])));
    let flow = (
        select(vec![1u32, 2, 7, 100, 1024, 65_536]),
        select(vec![1u32, 2, 10]),
        select(vec![1usize, 5, 100, 16_384]),
        select(vec![1usize, 100, 5000]),
        select(vec![1usize, 2, 50]),
    );
    let zero = (select(vec![1usize, 50, 1000]), select(vec![1usize, 2, 10]));
    let tight = (
        select(vec![0usize, 10, 500]),
        select(vec![0usize, 10, 1000]),
        select(vec![1usize, 3]),
    );
    (kind, offers, flow, zero, tight).prop_map(|(kind, offers, flow, zero, limits)| Setup {
        zero: kind.0,
        negotiate: !kind.0 || kind.1,
        drain_offered: kind.2,
        message_credit: offers.0,
        announced: offers.1,
        tight: kind.3,
        window: flow.0,
        growth: flow.1,
        chunk: flow.2,
        send_buffer: flow.3,
        streams: flow.4,
        high_mark: zero.0,
        high_messages: zero.1,
        spare: limits.0,
        max_message: limits.1,
        max_empty: limits.2,
    })
}

impl Setup {
    /// What may be held beyond the promises, in bytes.
    pub(crate) fn spare(&self) -> usize {
        if self.tight { self.spare } else { 1 << 20 }
    }

    /// What may lie unread without counting as spare, with so many streams and frames of at
    /// most so many bytes.
    pub(crate) fn unread_allowed(&self, streams: usize) -> usize {
        if self.zero {
            self.high_mark + self.chunk
        } else {
            streams * self.window as usize
        }
    }

    /// What each message costs of its window beside its payload.
    pub(crate) fn message_cost(&self) -> u64 {
        let counted = self.message_credit && self.negotiate && self.window >= 1024;
        if counted { 5 } else { 0 }
    }

    /// How far a window may grow.
    pub(crate) fn max_window(&self) -> u32 {
        self.window * self.growth
    }

    /// The configuration of both ends. A peer of ours never sends what says nothing, and no
    /// stray frames but those that cannot be helped: empty messages, for they have no window.
    pub(crate) fn config(&self, empty_messages: usize) -> Config {
        let revisions = if self.zero {
            Revisions::OnlyZero
        } else {
            Revisions::ZeroAndOne
        };
        let promised_zero = self.high_mark;
        let promised = self.streams * self.window as usize + promised_zero;
        let mut builder = Config::builder()
            .revisions(revisions)
            .initial_window(self.window)
            .max_window(self.max_window())
            .chunk_size(self.chunk)
            .send_buffer(self.send_buffer)
            .max_concurrent_streams(self.streams)
            .unread_high_mark(self.high_mark)
            .unread_low_mark(self.high_mark / 2)
            .unread_high_messages(self.high_messages)
            .max_buffered_bytes(promised + self.spare())
            .max_stray_frames(empty_messages)
            .max_empty_frames(0);
        if self.tight {
            builder = builder
                .max_message_size(self.max_message)
                .max_unread_empty_messages(self.max_empty);
        }
        builder.build().expect("its parts agree")
    }
}
