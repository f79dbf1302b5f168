//! The list of workloads.
//!
//! Invariant: a name and metric of a row belong to one step of one workload.

mod growth;
mod load;
mod parts;

use std::time::Duration;

use super::pair::Setup;
use super::workload::{RowOf, Step, Workload};
use crate::job::{Job, Kind, Load, OpenLoop, Steady};
use crate::results::Metric;
use growth::{growth, open, over_reverse_tunnels, over_tunnels};
use load::{brownouts, open_loops};
pub(super) use parts::Scale;
use parts::{
    BESIDE, CALLS, KIB, LARGE_CALLS, LARGE_MESSAGES, LATENCIES, MIB, RATE, SHORT_SLACK, SLACK,
    SMALL_MESSAGES, SPARE, STEADY, TURNS, and_observed, calls, everyone, hold, shared, single,
    timed,
};

/// All workloads. Workloads that can share pairs are adjacent.
pub(super) fn all(scale: Scale) -> Vec<Workload> {
    let mut all = Vec::new();
    all.extend(unary(scale));
    all.extend(streams(scale));
    all.push(beside_stream(scale));
    all.push(unread(scale));
    all.push(flooded(scale));
    all.extend(open_loops(scale));
    all.extend(brownouts(scale));
    all.extend(slow_link(scale));
    all.extend([10_000, 100_000].map(|n| open(scale, n)));
    all.push(growth(scale));
    for tunnels in [1, 10, 100, 1000] {
        all.push(over_tunnels(scale, tunnels));
    }
    all.push(over_reverse_tunnels(scale));
    all.retain(|w| {
        w.setup
            .max_streams
            .is_none_or(|n| n <= scale.streams + SPARE)
    });
    all
}

/// A constructor of a [`Job`] from a load.
type Lasting = fn(Load) -> Job;

fn unary(scale: Scale) -> Vec<Workload> {
    let small = [1, 16, 64, 256, 1024].map(|at_once| {
        let name = format!("unary 16 B x {at_once}");
        let mut calls = single("unary", calls(name, CALLS, scale, at_once));
        calls.who = and_observed;
        calls
    });
    let size = 64 * KIB;
    let job = Job::Unary(Load {
        size,
        at_once: 16,
        millis: scale.millis,
    });
    let name = "unary 64 KiB x 16".to_owned();
    let large = timed(name, LARGE_CALLS, size, scale.millis, job);
    small.into_iter().chain([single("unary", large)]).collect()
}

fn streams(scale: Scale) -> Vec<Workload> {
    let mut all = Vec::new();
    let kinds: [(&str, Lasting); 2] = [("download", Job::Download), ("upload", Job::Upload)];
    for (kind, job) in kinds {
        for (size, unit, metrics) in [
            (KIB, "1 KiB", SMALL_MESSAGES),
            (MIB, "1 MiB", LARGE_MESSAGES),
        ] {
            for at_once in [1, 8] {
                all.push(stream(
                    scale,
                    format!("{kind} {unit} x {at_once}"),
                    metrics,
                    job,
                    size,
                    at_once,
                ));
            }
        }
    }
    for at_once in [1, 64] {
        let name = format!("ping-pong 16 B x {at_once}");
        all.push(stream(scale, name, TURNS, Job::PingPong, 16, at_once));
    }
    all
}

fn stream(
    scale: Scale,
    name: String,
    metrics: &'static [Metric],
    job: Lasting,
    size: u32,
    at_once: usize,
) -> Workload {
    let millis = scale.millis;
    let load = Load {
        size,
        at_once,
        millis,
    };
    single("streams", timed(name, metrics, size, millis, job(load)))
}

fn beside_stream(scale: Scale) -> Workload {
    let job = Job::BesideStream {
        callers: 4,
        size: 16,
        millis: scale.millis,
    };
    let name = "4 callers beside a 1 MiB stream".to_owned();
    let mut step = timed(name, LATENCIES, 16, scale.millis, job);
    // Callers are fast beside a stalled stream, so the rate of the stream is a row too.
    step.rows.push(RowOf {
        name: "the 1 MiB stream beside 4 callers".to_owned(),
        metrics: BESIDE,
        size: 0,
    });
    single("isolation", step)
}

fn unread(scale: Scale) -> Workload {
    let measure = |streams: usize| {
        let name = format!("unary 16 B x 16 beside {streams} unread streams");
        let mut step = calls(name, RATE, scale, 16);
        step.limit = Duration::from_millis(scale.millis) + SHORT_SLACK;
        step
    };
    let hold = |streams: usize| Step {
        job: Job::HoldUnread {
            streams,
            size: 64 * KIB,
        },
        limit: SHORT_SLACK,
        rows: Vec::new(),
    };
    Workload {
        group: "isolation",
        setup: shared(),
        steps: vec![
            measure(0),
            hold(4),
            measure(4),
            hold(60),
            measure(64),
            Step {
                job: Job::Release {},
                limit: SLACK,
                rows: Vec::new(),
            },
        ],
        who: everyone,
    }
}

/// Calls on one connection beside hostile connections.
fn flooded(scale: Scale) -> Workload {
    let measure = |connections: usize| {
        let millis = scale.long_millis;
        let load = OpenLoop {
            size: 16,
            per_second: 200,
            millis,
        };
        let name = format!("open loop 200/s of 16 B beside {connections} hostile connections");
        timed(name, LATENCIES, 16, millis, Job::OpenLoop(load))
    };
    Workload {
        group: "isolation",
        setup: Setup {
            fresh: true,
            ..shared()
        },
        steps: vec![
            measure(0),
            hold(Job::Flood { connections: 2 }),
            measure(2),
            hold(Job::Release {}),
        ],
        who: |variant| variant.name == "forward tunnel",
    }
}

fn slow_link(scale: Scale) -> Vec<Workload> {
    let each = [
        ("download 1 MiB x 1", Kind::Download, MIB, 1),
        ("upload 1 MiB x 1", Kind::Upload, MIB, 1),
        ("unary 64 KiB x 16", Kind::Unary, 64 * KIB, 16),
    ];
    let each = each.map(|(name, kind, size, at_once)| {
        let millis = scale.long_millis;
        let job = Job::Steady(Steady {
            kind,
            size,
            at_once,
            millis,
            bucket_millis: 100,
        });
        let name = format!("50 ms each way: {name}");
        Workload {
            group: "slow link",
            setup: Setup {
                each_way: Some(Duration::from_millis(50)),
                ..shared()
            },
            steps: vec![timed(name, STEADY, size, millis, job)],
            who: everyone,
        }
    });
    each.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALE: Scale = Scale {
        millis: 300,
        streams: 100_000,
        long_millis: 2000,
    };

    fn names(workload: &Workload) -> Vec<&str> {
        workload.rows().map(|row| row.name.as_str()).collect()
    }

    /// Reduces a workload to the rows whose name contains `part`.
    fn only(workload: Workload, part: &str) -> Option<Workload> {
        workload.only(|row| row.name.contains(part))
    }

    #[test]
    fn no_two_rows_have_one_name() {
        for streams in [10_000, 100_000] {
            let all = all(Scale { streams, ..SCALE });
            let mut names: Vec<_> = all.iter().flat_map(names).collect();
            names.sort_unstable();
            let count = names.len();
            names.dedup();
            assert_eq!(names.len(), count);
        }
    }

    #[test]
    fn every_target_names_an_existing_workload() {
        let all = all(SCALE);
        let names: Vec<_> = all.iter().flat_map(names).collect();
        for workload in crate::targets::measured_here() {
            assert!(names.contains(&workload), "{workload}");
        }
    }

    #[test]
    fn no_workload_opens_more_streams_than_the_limit() {
        let few = Scale {
            streams: 10_000,
            ..SCALE
        };
        for step in all(few).iter().flat_map(|w| &w.steps) {
            let Job::HoldIdle { streams } = step.job else {
                continue;
            };
            assert!(streams <= 10_000);
        }
    }

    #[test]
    fn a_chosen_row_keeps_only_the_steps_that_prepare_it() {
        let workload = only(unread(SCALE), "beside 64 unread").unwrap();
        assert_eq!(
            names(&workload),
            ["unary 16 B x 16 beside 64 unread streams"]
        );
        let held = workload.steps.iter().map(|step| match step.job {
            Job::HoldUnread { streams, .. } => streams,
            _ => 0,
        });
        // Four streams, 60 more, the calls, and the release.
        assert_eq!(held.collect::<Vec<_>>(), [4, 60, 0, 0]);
    }

    #[test]
    fn processes_whose_memory_is_measured_have_always_served_calls_before() {
        let workload = only(open(SCALE, 100_000), "open 100000").unwrap();
        assert_eq!(names(&workload), ["open 100000 idle streams"]);
        assert!(matches!(workload.steps[0].job, Job::Unary(_)));
        assert_eq!(workload.steps.len(), 2);
    }

    #[test]
    fn steps_that_prepare_only_later_rows_are_left_out() {
        let workload = only(growth(SCALE), "beside 10 idle").unwrap();
        assert_eq!(workload.steps.len(), 3, "{:?}", workload.steps);
        assert!(only(unread(SCALE), "no such row").is_none());
    }

    #[test]
    fn calls_beside_the_most_streams_are_measured_before_them_too() {
        let workload = open(SCALE, 100_000);
        let expected = [
            "unary 16 B x 64 beside 0 idle streams",
            "open 100000 idle streams",
            "unary 16 B x 64 beside 100000 idle streams",
        ];
        assert_eq!(names(&workload), expected);
        assert_eq!(names(&open(SCALE, 10_000)), ["open 10000 idle streams"]);
    }
}
