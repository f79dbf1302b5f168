//! CPU work of handlers and other tasks during measurements.

use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval_at};

/// How long another task computes without a pause.
const PIECE: Duration = Duration::from_micros(300);

/// The interval between two pieces of a task. With [`PIECE`] a task uses a tenth of a core.
const PERIOD: Duration = Duration::from_millis(3);

/// Computes for a time, without yielding to other tasks.
pub(super) fn compute(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

/// Starts tasks that together use this share of a core, rounded down to tenths.
pub(super) fn start_other_tasks(percent: u32) {
    let tasks = percent / 10;
    for n in 0..tasks {
        let first = tokio::time::Instant::now() + PERIOD * n / tasks;
        let mut pieces = interval_at(first, PERIOD);
        pieces.set_missed_tick_behavior(MissedTickBehavior::Skip);
        tokio::spawn(async move {
            loop {
                pieces.tick().await;
                compute(PIECE);
            }
        });
    }
}
