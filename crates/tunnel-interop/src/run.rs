//! Runs the cases of a pair on a few threads.

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::runtime::{Builder, Runtime};
use tunnel_conformance::CASES;

use crate::bridge::Bridges;
use crate::examples;
use crate::grpc;
use crate::matrix::Pair;
use crate::outcome::Verdict;
use crate::path::PeerPath;
use crate::programs::Programs;

/// The timeout of a case.
const CASE_TIMEOUT: Duration = Duration::from_secs(15);

/// The number of cases that run at the same time.
const WORKERS: usize = 4;

/// Runs cases of a pair, and calls `ended` after each with the number of cases that have ended.
pub(crate) fn run(
    pair: Pair,
    cases: &[String],
    programs: &Arc<Programs>,
    ended: impl Fn(usize) + Sync,
) -> BTreeMap<String, (Verdict, f64)> {
    let queue = Mutex::new(cases.iter());
    let verdicts = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for number in 0..WORKERS.min(cases.len()) {
            let (queue, verdicts, ended) = (&queue, &verdicts, &ended);
            let worker = Worker::new(pair, programs, number);
            let thread = thread::Builder::new().name(worker.name.clone());
            let work = move || {
                // The lock must not be held while a case runs.
                while let Some(case) = { lock(queue).next() } {
                    let start = Instant::now();
                    let verdict = worker.run(case);
                    let seconds = start.elapsed().as_secs_f64();
                    let mut verdicts = lock(verdicts);
                    verdicts.insert(case.clone(), (verdict, seconds));
                    ended(verdicts.len());
                }
            };
            thread.spawn_scoped(scope, work).expect("a thread starts");
        }
    });
    verdicts
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
}

/// Runs one case at a time, with bridges of its own.
struct Worker {
    /// The name of its threads, by which panics are told apart.
    name: String,
    pair: Pair,
    programs: Arc<Programs>,
    bridges: Arc<Bridges>,
}

impl Worker {
    fn new(pair: Pair, programs: &Arc<Programs>, number: usize) -> Self {
        let log = programs.log(&format!("{}.{number}", pair.file_stem()));
        // Logs are appended to; an old one would mislead.
        let _ = std::fs::remove_file(&log);
        Self {
            name: format!("case-{number}"),
            pair,
            programs: Arc::clone(programs),
            bridges: Arc::new(Bridges::new(Arc::clone(programs), log)),
        }
    }

    fn run(&self, case: &str) -> Verdict {
        lock(&PANICS).remove(&self.name);
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(&self.name)
            .enable_all()
            .build();
        let ran = runtime.map_err(Into::into).and_then(|runtime| {
            let ran = panic::catch_unwind(AssertUnwindSafe(|| self.run_on(&runtime, case)));
            runtime.shutdown_background();
            ran.unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked without a message")))
        });
        // The first panic explains those that follow from it.
        let sentence = match (lock(&PANICS).remove(&self.name), ran) {
            (Some(panic), Err(_)) => panic,
            (_, Ok(())) => return Verdict::Pass,
            (None, Err(error)) => format!("{error:#}"),
        };
        self.bridges.restart();
        Verdict::Fail(one_line(&sentence))
    }

    fn run_on(&self, runtime: &Runtime, case: &str) -> Result<()> {
        let path = PeerPath {
            pair: self.pair,
            bridges: Arc::clone(&self.bridges),
        };
        if self.pair.has_examples() {
            return runtime.block_on(examples::run(case, &self.pair, &self.programs));
        }
        if grpc::is_case(case) {
            return runtime.block_on(grpc::run(case, &path, &self.programs));
        }
        let case = CASES.iter().find(|known| known.name == case);
        let case = case.expect("the names come from this list");
        let run = async { tokio::time::timeout(CASE_TIMEOUT, case.run(&path)).await };
        let ran = runtime.block_on(run);
        ran.map_err(|_| anyhow::anyhow!("timed out after {} s", CASE_TIMEOUT.as_secs()))
    }
}

/// The first panic of each worker's current case, by the name of its threads.
static PANICS: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

/// Records the panics of cases in place of printing them. Panics of other threads belong to the
/// scripted handlers of some cases.
pub(crate) fn record_panics() {
    panic::set_hook(Box::new(|info| {
        let name = thread::current().name().unwrap_or_default().to_owned();
        let payload = info.payload();
        let message = payload.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| payload.downcast_ref::<&str>().copied());
        let message = message.unwrap_or("a panic without a message");
        let mut panics = lock(&PANICS);
        panics.entry(name).or_insert_with(|| message.to_owned());
    }));
}

fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
