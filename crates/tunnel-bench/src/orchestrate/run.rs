//! Runs the rounds: every variant of every workload, one after another.
//!
//! Consecutive workloads with the same setup are a stage and share pairs, which end with the stage.
//! In each round a stage runs all variants of a workload before the next workload, so that the
//! variants are measured close together in time.

use std::collections::{HashMap, HashSet};

use super::collect::{Collector, Sample};
use super::pair::{Failure, Pair, Programs, Setup};
use super::progress::Progress;
use super::workload::{Step, Workload};
use crate::results::Row;
use crate::variant::Variant;

/// The workloads, variants, rounds and programs of a run.
pub(super) struct Plan {
    pub(super) workloads: Vec<Workload>,
    pub(super) variants: Vec<Variant>,
    /// The number of rounds that count.
    pub(super) rounds: usize,
    pub(super) programs: Programs,
}

impl Plan {
    /// Groups of consecutive workloads with the same setup.
    fn stages(&self) -> impl Iterator<Item = &[Workload]> {
        self.workloads.chunk_by(|a, b| a.setup == b.setup)
    }

    fn who<'a>(&'a self, workload: &Workload) -> impl Iterator<Item = &'a Variant> {
        let who = workload.who;
        self.variants.iter().filter(move |variant| who(variant))
    }

    /// The rounds of a stage. The first is the warm-up, `None`; stages that start new processes for
    /// each measurement have none.
    fn rounds(&self, setup: &Setup) -> impl Iterator<Item = Option<usize>> + use<> {
        let warm_up = (!setup.fresh).then_some(None);
        warm_up.into_iter().chain((0..self.rounds).map(Some))
    }

    fn measurements(&self) -> usize {
        let of = |w: &Workload| self.rounds(&w.setup).count() * self.who(w).count();
        self.workloads.iter().map(of).sum()
    }

    /// Runs all measurements.
    pub(super) async fn run(&self) -> Vec<Row> {
        let mut runner = Runner {
            plan: self,
            pairs: HashMap::new(),
            given_up: HashSet::new(),
            collector: Collector::new(&self.workloads, &self.variants, self.rounds),
            progress: Progress::new(self.measurements()),
        };
        for stage in self.stages() {
            runner.stage(stage).await;
        }
        drop(runner.progress);
        runner.collector.finish()
    }
}

struct Runner<'a> {
    plan: &'a Plan,
    /// The pairs of the current stage, by variant name.
    pairs: HashMap<&'static str, Pair>,
    /// The row and variant names of jobs that hung or pairs that did not start. They are not tried
    /// again, because each attempt would cost the full time limit.
    given_up: HashSet<(String, &'static str)>,
    collector: Collector,
    progress: Progress,
}

impl Runner<'_> {
    async fn stage(&mut self, stage: &[Workload]) {
        for round in self.plan.rounds(&stage[0].setup) {
            let name = match round {
                None => "warm-up".to_owned(),
                Some(n) => format!("round {} of {}", n + 1, self.plan.rounds),
            };
            self.progress.part(&format!("{}, {name}", stage[0].group));
            for workload in stage {
                for variant in self.plan.who(workload) {
                    let what = workload.rows().next().map_or("", |row| &row.name);
                    self.progress
                        .at(format!("{name}: {what}, {}", variant.name));
                    self.measure(round, workload, variant).await;
                    self.progress.done(1);
                }
            }
        }
        self.pairs.clear();
    }

    /// Runs a workload once with one variant.
    async fn measure(&mut self, round: Option<usize>, workload: &Workload, variant: &Variant) {
        let steps = self.still_tried(workload, variant);
        if !steps.iter().any(|step| !step.rows.is_empty()) {
            return;
        }
        let mut pair = match self.pair(workload, variant).await {
            Ok(pair) => pair,
            Err(error) => return self.fail(steps, variant, &Failure::NotStarted(error)),
        };
        let mut sound = true;
        for (n, step) in steps.iter().enumerate() {
            match self.step(&mut pair, round, step, variant).await {
                Ok(without_failures) => sound &= without_failures,
                Err(failure) => {
                    drop(pair);
                    return self.fail(&steps[n..], variant, &failure);
                }
            }
        }
        // A pair with failures is not reused: it could make the next workload fail too.
        match workload.setup.fresh || !sound {
            true => drop(pair),
            false => {
                self.pairs.insert(variant.name, pair);
            }
        }
    }

    /// The steps before the first one that was given up.
    fn still_tried<'w>(&self, workload: &'w Workload, variant: &Variant) -> &'w [Step] {
        let given_up = |step: &Step| {
            let mut rows = step.rows.iter();
            rows.any(|row| self.given_up.contains(&(row.name.clone(), variant.name)))
        };
        match workload.steps.iter().position(given_up) {
            None => &workload.steps,
            // Leave out the steps that only prepare the given-up step too.
            Some(end) => {
                let before = &workload.steps[..end];
                let last = before.iter().rposition(|step| !step.rows.is_empty());
                &before[..last.map_or(0, |last| last + 1)]
            }
        }
    }

    async fn pair(&mut self, workload: &Workload, variant: &Variant) -> anyhow::Result<Pair> {
        match self.pairs.remove(variant.name) {
            Some(pair) => Ok(pair),
            None => Pair::start(&self.plan.programs, variant, &workload.setup).await,
        }
    }

    /// Runs one job. Returns whether no call failed.
    async fn step(
        &mut self,
        pair: &mut Pair,
        round: Option<usize>,
        step: &Step,
        variant: &Variant,
    ) -> Result<bool, Failure> {
        let (cpu, resident) = (pair.cpu(), pair.resident());
        let measured = pair.job(&step.job, step.limit).await?;
        let grown = pair.resident().zip(resident);
        let sample = Sample {
            job: &step.job,
            measured,
            cpu: pair
                .cpu()
                .zip(cpu)
                .map(|(now, then)| now.saturating_sub(then)),
            grown: grown.map(|(now, then)| now as f64 - then as f64),
        };
        if let Some(round) = round {
            for row in &step.rows {
                self.collector.add(round, row, variant, &sample);
            }
        }
        let failures = &sample.measured.failures;
        if failures.is_empty() {
            return Ok(true);
        }
        let what: Vec<_> = failures
            .iter()
            .map(|(what, n)| format!("{n} × {what}"))
            .collect();
        let what = what.join(", ");
        for row in &step.rows {
            self.progress
                .note(&format!("{} in \"{}\": {what}", variant.name, row.name));
            self.collector.note_failures(row, variant, what.clone());
        }
        Ok(false)
    }

    /// Records why these steps have no result. Steps that could hang again are given up.
    fn fail(&mut self, steps: &[Step], variant: &Variant, failure: &Failure) {
        for row in steps.iter().flat_map(|step| &step.rows) {
            self.collector.fail(row, variant, failure.note());
            if matches!(failure, Failure::Hangs | Failure::NotStarted(_)) {
                self.given_up.insert((row.name.clone(), variant.name));
            }
        }
        let name = variant.name;
        let job = &steps[0].job;
        self.progress.note(&match failure {
            Failure::Hangs => format!("{name} hangs: {job:?}"),
            Failure::Failed(error) => format!("{name} fails: {job:?}: {error:#}"),
            Failure::NotStarted(error) => format!("{name} does not start: {error:#}"),
        });
    }
}
