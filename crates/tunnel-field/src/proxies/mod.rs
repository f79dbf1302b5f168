//! `proxies`: the rows that need HAProxy and nginx. All rows run at the same time, because they
//! mostly wait.

mod rows;
mod servers;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args as Clap;
use comfy_table::Table;
use futures::future::join_all;

use self::rows::{ROWS, Row};
use self::servers::Kind;
use crate::progress::Progress;

/// The time limit for a row. A row that takes longer hangs.
const GUARD: Duration = Duration::from_secs(300);

/// The options of `proxies`.
#[derive(Clap)]
pub(crate) struct Args {
    /// Run only the rows that take at most a minute.
    #[arg(long)]
    quick: bool,

    /// Run only the rows whose name contains this text.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

pub(crate) async fn run(args: &Args) -> Result<ExitCode> {
    let missing: Vec<_> = [Kind::Haproxy, Kind::Nginx]
        .into_iter()
        .filter(|kind| kind.find().is_none())
        .map(Kind::name)
        .collect();
    if !missing.is_empty() {
        bail!(
            "{} missing; on Debian: apt-get install haproxy nginx",
            missing.join(" and ")
        );
    }
    let chosen: Vec<_> = ROWS.iter().filter(|row| args.takes(row)).collect();
    if chosen.is_empty() {
        bail!("no row has such a name");
    }
    let progress = Progress::default();
    let outcomes = join_all(chosen.iter().map(|row| one(row, &progress))).await;
    let failed = outcomes
        .iter()
        .filter(|outcome| outcome.result.is_err())
        .count();
    println!("{}", table(&outcomes));
    println!("{} rows, {failed} failed", outcomes.len());
    Ok(match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

impl Args {
    fn takes(&self, row: &Row) -> bool {
        let named = self
            .only
            .as_ref()
            .is_none_or(|text| row.title().contains(text.as_str()));
        named && (row.quick || !self.quick)
    }
}

struct Outcome {
    title: String,
    seconds: f64,
    result: Result<String>,
}

async fn one(row: &Row, progress: &Progress) -> Outcome {
    let title = row.title();
    let line = progress.line(&title);
    line.at("begins");
    let start = Instant::now();
    let run = tokio::time::timeout(GUARD, (row.run)(row.proxy, line.clone()));
    let result = run
        .await
        .unwrap_or_else(|_| bail!("not finished after {} s", GUARD.as_secs()));
    line.end();
    let outcome = Outcome {
        title,
        seconds: start.elapsed().as_secs_f64(),
        result,
    };
    let (mark, words) = outcome.words();
    progress.say(&format!("{mark} {}: {words}", outcome.title));
    outcome
}

impl Outcome {
    fn words(&self) -> (char, String) {
        match &self.result {
            Ok(words) => ('✓', words.clone()),
            Err(error) => ('✗', format!("{error:#}")),
        }
    }
}

fn table(outcomes: &[Outcome]) -> Table {
    let mut table = Table::new();
    table.set_header(["", "row", "seconds", "what came of it"]);
    for outcome in outcomes {
        let (mark, words) = outcome.words();
        let seconds = format!("{:.1}", outcome.seconds);
        table.add_row([mark.to_string(), outcome.title.clone(), seconds, words]);
    }
    table
}
