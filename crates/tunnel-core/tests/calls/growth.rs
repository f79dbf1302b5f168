//! The growth of windows, and its limits.

use std::time::Duration;

use tunnel_core::{Config, ConfigBuilder, Event, Read, Side};

use crate::support::build::WINDOW;
use crate::support::pair::Pair;
use crate::support::reader::{Reader, bytes, read_all};
use crate::support::updates;

/// How long frames stay in a pipe.
const LONG_WAY: Duration = Duration::from_millis(50);

/// How an application reads.
#[derive(Clone, Copy, Debug)]
enum Habit {
    /// Each piece as soon as it arrives, with credit returned in between.
    AtOnce,
    /// All that has arrived at once.
    Together,
    /// Nothing.
    Never,
}

/// A long upload over a pipe that delays frames by half a round trip. Returns the bytes that arrive
/// in the last round trip.
fn upload(p: &mut Pair, reader: &mut Reader, habit: Habit, round_trips: usize) -> usize {
    upload_over(p, reader, habit, round_trips, 60_000, LONG_WAY)
}

/// The same with messages of another size or another delay.
fn upload_over(
    p: &mut Pair,
    reader: &mut Reader,
    habit: Habit,
    round_trips: usize,
    message: usize,
    way: Duration,
) -> usize {
    let id = reader.id;
    let mut last = 0;
    for _ in 0..round_trips {
        p.now += way;
        while p.caller.conn.send_stream(id).is_writable() == Ok(true) {
            let sent = p.caller.conn.send_stream(id).message(bytes(message));
            sent.expect("it is writable");
        }
        // Frames in flight arrive. Frames written meanwhile stay in flight.
        let (up, down) = (p.caller.pipe.len(), p.handler.pipe.len());
        let before = p.handler.conn.stats().bytes_received;
        p.carry(Side::Handler, down);
        for _ in 0..up {
            p.carry(Side::Caller, 1);
            if matches!(habit, Habit::AtOnce) {
                let _ = reader.read_all(&mut p.handler.conn);
                p.write(Side::Handler, usize::MAX);
            }
        }
        // As a runtime reads: after an event.
        let told = p.handler.events().contains(&Event::Readable(id));
        if matches!(habit, Habit::Together) && told {
            let _ = reader.read_all(&mut p.handler.conn);
        }
        p.write(Side::Handler, usize::MAX);
        p.write(Side::Caller, usize::MAX);
        last = (p.handler.conn.stats().bytes_received - before) as usize;
    }
    last
}

fn config(change: impl Fn(ConfigBuilder) -> ConfigBuilder) -> Config {
    let builder = Config::builder()
        .send_buffer(4 << 20)
        .initial_window(WINDOW)
        .max_window(1 << 20);
    change(builder).build().expect("it is valid")
}

#[test]
fn a_window_grows_to_its_cap_when_the_reader_keeps_up_and_the_link_is_long() {
    for habit in [Habit::AtOnce, Habit::Together] {
        let mut p = Pair::new(config(|b| b));
        let id = p.call();
        let mut reader = Reader::new(id);
        upload(&mut p, &mut reader, habit, 40);
        let grown = p.handler.conn.stats().spare_used;
        assert_eq!(grown, (1 << 20) - WINDOW as usize, "{habit:?}");
        // Two steps are a round trip. With credit returned by halves, half of it may stay unused.
        let in_a_trip: usize = (0..2).map(|_| upload(&mut p, &mut reader, habit, 1)).sum();
        assert!(in_a_trip >= 1 << 19, "{habit:?}: {in_a_trip}");
        p.caller.conn.cancel(id);
        p.pump();
        p.assert_idle();
    }
}

#[test]
fn a_window_grows_by_messages_of_one_frame_as_well() {
    let mut p = Pair::new(config(|b| b));
    let mut reader = Reader::new(p.call());
    upload_over(&mut p, &mut reader, Habit::Together, 40, 16_384, LONG_WAY);
    let grown = p.handler.conn.stats().spare_used;
    assert_eq!(grown, (1 << 20) - WINDOW as usize);
}

#[test]
fn a_window_grows_no_further_than_its_round_trip_can_use() {
    const MIB: usize = 1 << 20;
    // The delay in microseconds: a window is what arrives in a round trip at 1 GB/s.
    for (way, window) in [
        (0, MIB / 2),
        (100, MIB / 2),
        (1000, 2000 << 10),
        (3000, 4 * MIB),
    ] {
        let mut p = Pair::new(config(|b| {
            b.max_window(4 << 20)
                .max_buffered_bytes(256 * MIB)
                .send_buffer(8 * MIB)
        }));
        let ids = [p.call(), p.call()];
        let mut reader = Reader::new(ids[0]);
        let way = Duration::from_micros(way);
        upload_over(&mut p, &mut reader, Habit::Together, 16, 60_000, way);
        let grown = p.handler.conn.stats().spare_used;
        assert_eq!(grown, window - WINDOW as usize, "{way:?}");
        // The next stream of the tunnel uses the round-trip time from its beginning.
        let mut reader = Reader::new(ids[1]);
        upload_over(&mut p, &mut reader, Habit::Together, 16, 60_000, way);
        assert_eq!(p.handler.conn.stats().spare_used, 2 * grown, "{way:?}");
    }
}

#[test]
fn a_window_grows_as_soon_as_its_reader_has_read_all_that_was_granted() {
    let mut p = Pair::new(config(|b| b));
    let id = p.call();
    for _ in 0..4 {
        let sent = p
            .caller
            .conn
            .send_stream(id)
            .message(bytes(WINDOW as usize / 4));
        sent.expect("it is open");
    }
    p.flush(Side::Caller);
    assert!(matches!(
        p.handler.conn.recv_stream(id).read(),
        Read::Data(_)
    ));
    p.write(Side::Handler, usize::MAX);
    let (_, end) = read_all(&mut p.handler.conn, id);
    assert_eq!(end, Read::Pending);
    assert_eq!(
        p.handler.conn.stats().spare_used,
        3 * WINDOW as usize,
        "it is four times as large"
    );
    p.handler.take_log();
    p.write(Side::Handler, usize::MAX);
    // Three quarters that were read, and the growth.
    assert_eq!(updates(&p.handler.log), [WINDOW / 4 * 3 + 3 * WINDOW]);
}

#[test]
fn a_window_never_grows_for_a_stream_that_nobody_reads() {
    let mut p = Pair::new(config(|b| b));
    let mut reader = Reader::new(p.call());
    upload(&mut p, &mut reader, Habit::Never, 40);
    let stats = p.handler.conn.stats();
    assert_eq!((stats.spare_used, stats.unread_bytes), (0, WINDOW as usize));
}

#[test]
fn a_window_never_grows_for_a_reader_that_always_finds_more_than_it_reads() {
    let mut p = Pair::new(config(|b| b));
    let id = p.call();
    for _ in 0..200 {
        while p.caller.conn.send_stream(id).is_writable() == Ok(true) {
            p.caller.conn.send_stream(id).message(bytes(1000)).unwrap();
        }
        p.pump();
        assert!(matches!(
            p.handler.conn.recv_stream(id).read(),
            Read::Data(_)
        ));
    }
    assert_eq!(p.handler.conn.stats().spare_used, 0);
}

#[test]
fn a_window_never_grows_while_small_messages_do_not_fill_it() {
    let mut p = Pair::new(config(|b| b));
    let id = p.call();
    let mut reader = Reader::new(id);
    for _ in 0..2000 {
        p.caller.conn.send_stream(id).message(bytes(1000)).unwrap();
        p.pump();
        let _ = reader.read_all(&mut p.handler.conn);
    }
    assert_eq!(p.handler.conn.stats().spare_used, 0);
}

#[test]
fn the_initial_window_as_cap_turns_growth_off() {
    let mut p = Pair::new(config(|b| b.max_window(WINDOW)));
    let mut reader = Reader::new(p.call());
    upload(&mut p, &mut reader, Habit::AtOnce, 40);
    assert_eq!(p.handler.conn.stats().spare_used, 0);
}

/// Ten streams, spare memory of `spare` bytes, and windows that grow to `max_window`.
fn spare(spare: usize, max_window: u32) -> Config {
    let promised = 10 * WINDOW as usize + (1 << 20);
    config(|b| {
        b.max_concurrent_streams(10)
            .max_window(max_window)
            .unread_high_mark(1 << 20)
            .unread_low_mark(0)
            .max_buffered_bytes(promised + spare)
    })
}

#[test]
fn all_windows_together_leave_half_of_the_spare_memory_to_large_messages() {
    let mut p = Pair::new(spare(800_000, 1 << 20));
    let mut readers: Vec<_> = (0..5).map(|_| Reader::new(p.call())).collect();
    for _ in 0..10 {
        for reader in &mut readers {
            upload(&mut p, reader, Habit::AtOnce, 3);
        }
    }
    assert_eq!(p.handler.conn.stats().spare_used, 400_000);

    // A quarter of it fills the window and what is left.
    let id = p.call();
    p.caller
        .conn
        .send_stream(id)
        .message(bytes(4 * 400_000))
        .unwrap();
    let mut reader = Reader::new(id);
    p.read_until(Side::Handler, &mut reader, 1);
    for reader in readers.iter().chain([&reader]) {
        p.caller.conn.cancel(reader.id);
    }
    p.pump();
    p.assert_idle();
}

#[test]
fn a_message_whose_quarter_fits_the_window_needs_no_spare_memory() {
    let mut p = Pair::new(spare(0, 1 << 20));
    let id = p.call();
    let size = 4 * WINDOW as usize;
    p.caller
        .conn
        .send_stream(id)
        .begin_message(size as u32)
        .unwrap();
    let mut reader = Reader::new(id);
    for _ in 0..16 {
        p.caller
            .conn
            .send_stream(id)
            .write(bytes(size / 16))
            .unwrap();
        p.pump();
        assert_eq!(reader.read_all(&mut p.handler.conn), Read::Pending);
        p.pump();
        assert_eq!(reader.read_all(&mut p.handler.conn), Read::Pending);
    }
    assert_eq!(reader.messages.len(), 1);
    assert_eq!(p.handler.conn.stats().spare_used, 0);
}

#[test]
fn a_large_message_waits_as_long_as_there_is_memory_and_is_then_handed_on_early() {
    // A quarter is a window, the spare memory, and zero or one byte more.
    for (over, early) in [(0, false), (1, true)] {
        let mut p = Pair::new(spare(1000, WINDOW));
        let id = p.call();
        let quarter = WINDOW as usize + 1000 + over;
        p.caller
            .conn
            .send_stream(id)
            .message(bytes(4 * quarter))
            .unwrap();
        let waited = loop {
            p.pump();
            match p.handler.conn.recv_stream(id).read() {
                Read::Pending => assert!(p.handler.conn.wants_transmit(), "it goes on"),
                Read::Data(chunk) => {
                    assert_eq!(chunk.begins, Some(4 * quarter as u32));
                    break p.handler.conn.stats().unread_bytes + chunk.data.len();
                }
                read => panic!("{read:?}"),
            }
        };
        assert_eq!(waited, quarter - usize::from(early));
    }
}

#[test]
fn more_large_messages_than_there_is_memory_for_arrive_side_by_side() {
    let mut p = Pair::new(spare(1000, WINDOW));
    let size = 64 * WINDOW as usize;
    let mut readers: Vec<_> = (0..8)
        .map(|_| {
            let id = p.call();
            p.caller.conn.send_stream(id).message(bytes(size)).unwrap();
            Reader::new(id)
        })
        .collect();
    for reader in &mut readers {
        p.read_until(Side::Handler, reader, 1);
        assert_eq!(reader.messages[0].len(), size);
    }
    assert_eq!(p.handler.conn.stats().spare_used, 0);
}
