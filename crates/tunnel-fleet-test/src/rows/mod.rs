//! The rows of the table: a fault each, and what it may cost.

mod devices;
mod directory;
mod exclusive;
mod gateways;
mod mixed;
mod restarts;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use futures::future::LocalBoxFuture;

use crate::history::{Allowed, Call, Fault, Judgement, judge};
use crate::program::append;
use crate::progress::Progress;
use crate::world::World;

/// The file with remarkable calls.
const CALLS_FILE: &str = "calls.txt";

/// The calls before a fault and after it.
const CALLS: usize = 500;

/// One row of the table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: for<'a> fn(&'a mut Stage<'_>) -> LocalBoxFuture<'a, Result<Outcome>>,
}

/// What a row is run with.
pub(crate) struct Stage<'a> {
    pub(crate) world: &'a mut World,
    pub(crate) progress: &'a Progress,
}

/// What has come of a row.
pub(crate) enum Outcome {
    /// The calls were judged.
    Judged {
        judgement: Judgement,
        /// What else is worth knowing.
        words: String,
    },
    /// The row could not be run.
    Skipped(String),
}

impl Stage<'_> {
    /// For how long a fault lasts that should last this long.
    fn seconds(&self, wanted: u64) -> Duration {
        let most = self.world.settings.seconds.unwrap_or(wanted);
        Duration::from_secs(wanted.min(most))
    }

    /// Judges the calls of the fleet, and how often they were served.
    async fn judge(
        &mut self,
        calls: &[Call],
        faults: &[Fault],
        median: Option<Duration>,
    ) -> Result<Judgement> {
        write(&self.world.directory().join(CALLS_FILE), calls, faults);
        let mut judgement = judge(calls, faults, median);
        judgement.problems.extend(self.world.book(calls).await?);
        Ok(judgement)
    }
}

/// Adds the remarkable calls of a row to a file.
fn write(file: &Path, calls: &[Call], faults: &[Fault]) {
    for fault in faults {
        append(file, &format!("{fault:?}"));
    }
    let mut calls: Vec<_> = calls.iter().filter(|call| call.is_remarkable()).collect();
    calls.sort_by_key(|call| call.begun);
    for call in calls {
        append(file, &format!("{call:?}"));
    }
}

/// A fault that may cost no call.
fn harmless(at: Duration) -> Fault {
    Fault {
        at,
        until: at,
        gateway: None,
        allowed: Allowed::Nothing,
    }
}

fn judged(judgement: Judgement, words: impl Into<String>) -> Result<Outcome> {
    let words = words.into();
    Ok(Outcome::Judged { judgement, words })
}

macro_rules! rows {
    ($($name:literal $function:path: $about:literal;)*) => {
        &[$(Row {
            name: $name,
            about: $about,
            run: |stage| Box::pin($function(stage)),
        },)*]
    };
}

/// All rows, in the order in which they are run.
pub(crate) const ROWS: &[Row] = rows! {
    "restart-gateways" restarts::gateways: "rolling restart of all gateways behind HAProxy";
    "restart-etcd" restarts::etcd: "rolling restart of etcd";
    "kill-gateway" gateways::kill: "a gateway is killed";
    "freeze-gateway" gateways::freeze: "a gateway stands still and goes on";
    "cut-peers" gateways::cut_peers: "a gateway is cut off from the others, but not from etcd";
    "lose-hops" gateways::lose_hops: "the connections between gateways break";
    "cut-etcd" gateways::cut_etcd: "a gateway is cut off from etcd, but not from the others";
    "etcd-down" directory::down: "all of etcd is down";
    "etcd-leader" directory::leader: "the leader of etcd is killed";
    "etcd-minority" directory::minority: "one node of etcd is left";
    "move-device" devices::moves: "devices move between gateways";
    "two-devices" devices::two: "two devices have one key";
    "exclusive-keys" exclusive::takeover: "devices take exclusive keys from others";
    "mixed-versions" mixed::versions: "half of the gateways and agents are of another version (--old)";
    "never-twice" devices::never_twice: "no call of the whole run was served twice";
};
