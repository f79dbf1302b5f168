//! One end or two, what was negotiated, and limits that a few frames reach.

use std::time::Duration;

use tunnel_core::{Config, Offer, Revisions, Side};

use super::super::Input;
use super::PAYLOAD;

const STALL: Duration = Duration::from_millis(20);

#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) side: Side,
    /// Whether two ends are joined. Both have this setup.
    pub(crate) pair: bool,
    /// Two ends: whether a limit may end honest calls.
    pub(crate) tight: bool,
    pub(crate) offer: Offer,
    pub(crate) window: u32,
    pub(crate) max_window: u32,
    pub(crate) streams: usize,
    /// `max_buffered_bytes`.
    pub(crate) cap: usize,
    pub(crate) overcommit: bool,
    pub(crate) chunk: usize,
    pub(crate) send_buffer: usize,
    pub(crate) metadata: usize,
    pub(crate) message: usize,
    pub(crate) limit: usize,
    pub(crate) mark: usize,
    /// The payload of a run in each direction, in bytes.
    pub(crate) payload: usize,
    revisions: Revisions,
}

impl Setup {
    /// One byte of choices (side, negotiation, drain, overcommit, message credit, the announced
    /// streams, two ends, tight limits), then one for each number and one for compressed messages.
    /// With two ends, a last one for the streams that are announced.
    pub(crate) fn read(input: &mut Input<'_>) -> Self {
        let choice = input.u8();
        let pair = choice & 64 != 0;
        let tight = choice & 128 != 0;
        let window = input.pick(&[65_536, 1, 10, 300, 2, 7, 100, 1024]);
        let max_window = window * input.pick(&[4, 1, 2, 16]);
        let streams = input.pick(&[30, 1, 4, 200, 2]);
        let mark = input.pick(&[500, 1, 20_000, 50]);
        let spare = match input.pick(&[0, 5, 400, 100_000]) {
            _ if pair && !tight => 1 << 20,
            spare => spare,
        };
        let overcommit = choice & 8 != 0 && !pair;
        let mut offer = Offer::none();
        offer.negotiate = choice & 2 == 0;
        offer.drain = choice & 4 == 0;
        offer.message_credit = choice & 16 != 0;
        offer.max_streams = (choice & 32 == 0).then_some(streams);
        let mut setup = Self {
            side: match choice & 1 {
                0 => Side::Caller,
                _ => Side::Handler,
            },
            pair,
            tight,
            offer,
            window,
            max_window,
            streams,
            cap: if overcommit {
                spare + 1
            } else {
                streams * window as usize + mark + spare
            },
            overcommit,
            chunk: input.pick(&[16_384, 1, 7, 1000, 100]),
            send_buffer: input.pick(&[1000, 1, 100_000, 100]),
            metadata: input.pick(&[300, 0, 33, 10_000]),
            message: input.pick(&[2000, 0, 100_000, u32::MAX as usize, 10]),
            limit: input.pick(&[1000, 1, 5, 2]),
            mark,
            payload: PAYLOAD,
            revisions: input.pick(&[
                Revisions::ZeroAndOne,
                Revisions::OnlyZero,
                Revisions::OnlyOne,
            ]),
        };
        setup.offer.compressed_messages = input.pick(&[true, false]);
        if pair {
            // Small windows carry little, or a run takes long.
            setup.payload = PAYLOAD.min(window as usize * 2000);
            setup.offer.negotiate |= setup.revisions == Revisions::OnlyOne;
            let announced = input.pick(&[0, 1, 2, 50]);
            setup.offer.max_streams = setup.offer.max_streams.map(|streams| match announced {
                0 => streams,
                other => other,
            });
        }
        setup
    }

    /// Two ends: whether streams have no windows.
    pub(crate) fn is_zero(&self) -> bool {
        self.revisions == Revisions::OnlyZero || !self.offer.negotiate
    }

    /// What each message costs of its window beside its payload, where both ends count messages.
    pub(crate) fn message_cost(&self) -> usize {
        let counted = self.revisions != Revisions::OnlyZero && self.window >= 1024;
        if self.offer.message_credit && counted {
            5
        } else {
            0
        }
    }

    /// What may be granted and held beyond the promised windows, in bytes.
    pub(crate) fn spare(&self) -> usize {
        let windows = self.streams * self.window as usize;
        match (self.overcommit, self.revisions) {
            (true, _) => self.cap,
            // Without revision zero nothing is promised by its mark.
            (false, Revisions::OnlyOne) => self.cap - windows,
            (false, _) => self.cap - windows - self.mark,
        }
    }

    pub(crate) fn config(&self) -> Config {
        let builder = Config::builder()
            .revisions(self.revisions)
            .initial_window(self.window)
            .max_window(self.max_window)
            .max_concurrent_streams(self.streams)
            .max_buffered_bytes(self.cap)
            .overcommit(self.overcommit)
            .chunk_size(self.chunk)
            .send_buffer(self.send_buffer)
            .max_metadata_size(self.metadata)
            .unread_high_mark(self.mark)
            .unread_low_mark(self.mark / 5)
            .unread_high_messages(self.limit);
        let builder = match (self.pair, self.tight) {
            (false, _) => builder
                .max_message_size(self.message)
                .max_unread_empty_messages(self.limit)
                .max_pending_refusals(self.limit)
                .max_stray_frames(self.limit)
                .max_empty_frames(self.limit)
                .refusal_stall_timeout(STALL)
                .unread_stall_timeout(STALL),
            // An end of this library sends neither frames that say nothing nor stray ones.
            (true, tight) => {
                let builder = builder
                    .heartbeat(None)
                    .max_stray_frames(0)
                    .max_empty_frames(0);
                match tight {
                    true => builder
                        .max_message_size(self.message)
                        .max_unread_empty_messages(self.limit),
                    false => builder,
                }
            }
        };
        builder.build().expect("its parts agree")
    }

    /// What the formula in the documentation of the configuration adds up to, without the payloads:
    /// the run limits those itself.
    pub(crate) fn memory(&self) -> usize {
        let unread = self.cap.min(PAYLOAD);
        let alive = 5 * unread;
        // Only a stream that has received so much has a block of its own.
        let room = self.streams.min(PAYLOAD / 4096) * (16 << 10);
        let boundaries = 2 * (unread + self.streams * self.limit);
        let metadata = 3 * self.streams * self.metadata;
        alive + room + boundaries + metadata + 128 * self.limit + 700 * self.streams
    }
}
