//! `soak`: calls of all kinds for as long as you like, while links and processes fail.
//!
//! Every call has a number, which its handler enters in the books. The run fails
//!
//! - for a *lost* call: one that was made while nothing was wrong and was not answered, or one
//!   that was answered wrongly at any time;
//! - for a *doubled* call: one that reached a handler more than once;
//! - for a *hanging* call: one that outlived its deadline by [`calls::HANGS`];
//! - for a *leak*: when all is over and calm again, tasks, descriptors and memory are as they were
//!   before the first fault, within [`sample::Sample::leak_since`].

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

/// How long everything may take to be up again after a fault, and to calm down at the end.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long calls go on before the first fault, for everything to grow to what it needs.
const WARM_UP: Duration = Duration::from_secs(10);

/// How long calls go on between faults.
const QUIET: Duration = Duration::from_secs(5);

/// What to do.
#[derive(Clap)]
pub(crate) struct Args {
    /// For how long faults go on, beside a short time of calm before and after.
    #[arg(long, value_name = "N", default_value = "1")]
    minutes: f64,

    /// How many devices there are.
    #[arg(long, value_name = "N", default_value = "6")]
    devices: usize,

    /// Decides which faults there are, and when.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// What came of the run.
pub(crate) struct Verdict {
    pub(crate) calls: books::Totals,
    pub(crate) faults: Vec<(f64, String)>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) calm: (Sample, Sample),
    /// What is wrong; nothing if the run is good.
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

    // Everything grows to what it needs before anything is compared.
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
            () = watched(PATIENCE, &line, &books, &words) => bail!("still going on: {words}"),
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
    up.with_context(|| format!("not everything is up within {} s", PATIENCE.as_secs()))
}

/// Lets time pass, and shows what happens in it.
async fn watched(time: Duration, line: &crate::progress::Line, books: &Books, what: &str) {
    let start = Instant::now();
    while start.elapsed() < time {
        line.at(format!("{what}; {}", books.totals().line()));
        sleep(Duration::from_millis(200)).await;
    }
}

/// Waits until nothing goes on any more, or, beside an earlier calm, until it is as calm as then;
/// what is left is what it finds after its patience.
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
