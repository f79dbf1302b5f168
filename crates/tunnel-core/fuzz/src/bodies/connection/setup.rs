//! Which end it is, what was negotiated, and limits within reach of a few frames.

use std::time::Duration;

use tunnel_core::{Config, Offer, Revisions, Side};

use super::super::Input;
use super::PAYLOAD;

const STALL: Duration = Duration::from_millis(20);

#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) side: Side,
    pub(crate) offer: Offer,
    pub(crate) window: u32,
    pub(crate) max_window: u32,
    pub(crate) streams: usize,
    /// What may lie unread.
    pub(crate) cap: usize,
    pub(crate) overcommit: bool,
    pub(crate) chunk: usize,
    pub(crate) send_buffer: usize,
    pub(crate) metadata: usize,
    pub(crate) message: usize,
    pub(crate) limit: usize,
    pub(crate) mark: usize,
    revisions: Revisions,
}

impl Setup {
    /// One byte of choices (side, negotiation, drain, overcommit), then one for each number.
    pub(crate) fn read(input: &mut Input<'_>) -> Self {
        let choice = input.u8();
        let window = input.pick(&[65_536, 1, 10, 300]);
        let max_window = window * input.pick(&[4, 1, 2, 16]);
        let streams = input.pick(&[30, 1, 4, 200]);
        let mark = input.pick(&[500, 1, 20_000]);
        let spare = input.pick(&[0, 5, 400, 100_000]);
        let overcommit = choice & 8 != 0;
        let mut offer = Offer::none();
        offer.negotiate = choice & 2 == 0;
        offer.drain = choice & 4 == 0;
        offer.message_credit = choice & 16 != 0;
        offer.max_streams = (choice & 32 == 0).then_some(streams);
        Self {
            side: match choice & 1 {
                0 => Side::Caller,
                _ => Side::Handler,
            },
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
            chunk: input.pick(&[16_384, 1, 7, 1000]),
            send_buffer: input.pick(&[1000, 1, 100_000]),
            metadata: input.pick(&[300, 0, 33, 10_000]),
            message: input.pick(&[2000, 0, 100_000, u32::MAX as usize]),
            limit: input.pick(&[1000, 1, 5]),
            mark,
            revisions: input.pick(&[
                Revisions::ZeroAndOne,
                Revisions::OnlyZero,
                Revisions::OnlyOne,
            ]),
        }
    }

    /// What may be granted and held beyond what was promised.
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
        Config::builder()
            .revisions(self.revisions)
            .initial_window(self.window)
            .max_window(self.max_window)
            .max_concurrent_streams(self.streams)
            .max_buffered_bytes(self.cap)
            .overcommit(self.overcommit)
            .chunk_size(self.chunk)
            .send_buffer(self.send_buffer)
            .max_metadata_size(self.metadata)
            .max_message_size(self.message)
            .max_unread_empty_messages(self.limit)
            .max_pending_refusals(self.limit)
            .max_stray_frames(self.limit)
            .max_empty_frames(self.limit)
            .refusal_stall_timeout(STALL)
            .unread_high_mark(self.mark)
            .unread_low_mark(self.mark / 5)
            .unread_high_messages(self.limit)
            .unread_stall_timeout(STALL)
            .build()
            .expect("its parts agree")
    }

    /// What the formula in the documentation of the configuration adds up to beside payloads,
    /// which the run has a limit for.
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
