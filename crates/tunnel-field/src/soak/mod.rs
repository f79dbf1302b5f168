//! `soak`: makes calls of all kinds while links and processes fail.
//!
//! Every call has a number, which its handler records. The run fails for
//!
//! - a *lost* call, which failed outside a fault or was answered incorrectly at any time;
//! - a *doubled* call, which reached a handler more than once;
//! - a *hanging* call, which did not end within [`calls::HANGS`] after its deadline;
//! - a *leak*: at the end there are more tasks, descriptors or memory than before the first fault,
//!   beyond the tolerance of [`sample::Sample::leak_since`].

mod books;
mod calls;
mod faults;
mod report;
mod sample;
mod world;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args as Clap;
use tokio::time::{sleep, timeout};

use self::books::Books;
use self::calls::Callers;
use self::sample::{Sample, Samples};
use self::world::World;
use crate::progress::Progress;

/// The time limit for recovery after a fault, and for reaching a steady state at the end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The time before the first fault, in which buffers and tables grow to their normal size.
const WARM_UP: Duration = Duration::from_secs(10);

/// The time between faults.
const QUIET: Duration = Duration::from_secs(5);

/// The options of `soak`.
#[derive(Clap)]
pub(crate) struct Args {
    /// Minutes with faults. A short time without faults is added before and after.
    #[arg(long, value_name = "N", default_value = "1")]
    minutes: f64,

    /// The number of devices.
    #[arg(long, value_name = "N", default_value = "6")]
    devices: usize,

    /// The seed for the random choice of faults and their times.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// The results of a run.
pub(crate) struct Verdict {
    pub(crate) calls: books::Totals,
    pub(crate) faults: Vec<(f64, String)>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) calm: (Sample, Sample),
    /// The reasons why the run fails; empty if it succeeds.
    pub(crate) wrong: Vec<String>,
}

pub(crate) async fn run(args: &Args) -> Result<ExitCode> {
    ensure!(args.minutes > 0.0, "it takes some time");
    ensure!(args.devices > 0, "it takes some devices");
    let verdict = soak(args).await?;
    let file = report::write(args, &verdict)?;
    println!("{}", report::summary(&verdict));
    println!("report: {}", file.display());
    Ok(match verdict.wrong.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

async fn soak(args: &Args) -> Result<Verdict> {
    let progress = Progress::default();
    let line = progress.line("soak");
    line.at("starts");
    let books = Arc::new(Books::new());
    let mut world = World::start(args.devices, &books).await?;
    up(&world).await?;
    let samples = Samples::start(&world);

    // Let buffers and tables grow to their normal size before the first sample.
    let callers = Callers::start(&world, &books);
    watched(WARM_UP, &line, &books, "warms up").await;
    callers.stop().await;
    let before = calm(&world, None).await;

    let mut random = fastrand::Rng::with_seed(args.seed);
    let callers = Callers::start(&world, &books);
    let start = Instant::now();
    let length = Duration::from_secs_f64(args.minutes * 60.0);
    let mut faults = Vec::new();
    while start.elapsed() < length {
        let fault = faults::Fault::any(&mut random, &world);
        faults.push((samples.elapsed(), fault.to_string()));
        progress.say(&format!("{:6.1} s  {fault}", start.elapsed().as_secs_f64()));
        books.fault_begins();
        let happening = fault.happen(&mut world);
        let words = fault.to_string();
        tokio::select! {
            happened = happening => happened?,
            () = watched(PATIENCE, &line, &books, &words) => bail!("not over in time: {words}"),
        }
        up(&world)
            .await
            .with_context(|| format!("after: {fault}"))?;
        books.fault_ends();
        watched(QUIET / 2, &line, &books, "all is well").await;
        let slow = calls::brownout(&world, &books, random.usize(0..args.devices), QUIET / 2);
        tokio::join!(slow, watched(QUIET / 2, &line, &books, "a brownout"));
    }
    callers.stop().await;
    line.at("calms down");
    let after = calm(&world, Some(&before)).await;
    line.end();
    let calls = books.totals();
    let mut wrong = calls.wrong();
    wrong.extend(after.leak_since(&before));
    Ok(Verdict {
        calls,
        faults,
        samples: samples.stop(),
        calm: (before, after),
        wrong,
    })
}

/// Waits until every tunnel is up.
async fn up(world: &World) -> Result<()> {
    let up = timeout(PATIENCE, world.up()).await;
    up.with_context(|| format!("not all tunnels are up after {} s", PATIENCE.as_secs()))
}

/// Waits for a time and shows the progress of calls.
async fn watched(time: Duration, line: &crate::progress::Line, books: &Books, what: &str) {
    let start = Instant::now();
    while start.elapsed() < time {
        line.at(format!("{what}; {}", books.totals().line()));
        sleep(Duration::from_millis(200)).await;
    }
}

/// Waits until tasks and descriptors are steady and, if there is an `earlier` sample, nothing has
/// leaked since. Returns the last sample, after [`PATIENCE`] at the latest.
async fn calm(world: &World, earlier: Option<&Sample>) -> Sample {
    let start = Instant::now();
    let mut last = Sample::now(world, 0.0);
    let mut steady = 0;
    loop {
        sleep(Duration::from_millis(500)).await;
        let now = Sample::now(world, 0.0);
        steady = if now.tasks == last.tasks && now.descriptors == last.descriptors {
            steady + 1
        } else {
            0
        };
        let as_before = earlier.is_none_or(|earlier| now.leak_since(earlier).is_empty());
        if (steady >= 4 && as_before) || start.elapsed() > PATIENCE {
            return now;
        }
        last = now;
    }
}
