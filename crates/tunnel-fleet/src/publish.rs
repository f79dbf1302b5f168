//! Writes into the directory which keys are here.
//!
//! Hooks put keys into a set, and what is true *now* is written, so a write that was lost is mended by the next one. One
//! transaction is under way at a time. Each has the condition that this incarnation lives: a process that was
//! suspended and no longer lives for the others writes nothing.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use crate::directory::{Committed, Condition, MAX_WRITES, Transaction, Write};
use crate::record::{DeviceRecord, encode, millis};
use crate::shared::{Membership, Shared};

/// How long keys are collected.
const COLLECT: Duration = Duration::from_millis(20);

/// The pause after a failed write. It doubles up to ten times as much.
const PAUSE: Duration = Duration::from_millis(200);

pub(crate) async fn run(shared: Arc<Shared>) {
    let mut membership = shared.membership.subscribe();
    let mut failures = 0u32;
    loop {
        shared.is_dirty.notified().await;
        tokio::time::sleep(COLLECT).await;
        loop {
            // Without a membership there is nothing to write with.
            let Ok(own) = membership
                .wait_for(Option::is_some)
                .await
                .map(|own| own.clone())
            else {
                return;
            };
            let Some(own) = own else { continue };
            let keys = take(&shared);
            if keys.is_empty() {
                break;
            }
            match flush(&shared, &own, &keys).await {
                Ok(()) => failures = 0,
                Err(()) => {
                    put_back(&shared, keys);
                    failures += 1;
                    shared.counters.publish_failures.add();
                    let pause = PAUSE * (1 << failures.min(4)).min(10);
                    tokio::time::sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
                }
            }
        }
    }
}

fn take(shared: &Shared) -> Vec<String> {
    let mut dirty = shared.dirty.lock().unwrap_or_else(PoisonError::into_inner);
    let keys: Vec<String> = dirty.iter().take(MAX_WRITES).cloned().collect();
    for key in &keys {
        dirty.remove(key);
    }
    keys
}

fn put_back(shared: &Shared, keys: Vec<String>) {
    let mut dirty = shared.dirty.lock().unwrap_or_else(PoisonError::into_inner);
    dirty.extend(keys);
}

async fn flush(shared: &Shared, own: &Membership, keys: &[String]) -> Result<(), ()> {
    let writes = keys.iter().map(|key| write(shared, own, key)).collect();
    let transaction = Transaction {
        conditions: vec![Condition::Exists(
            shared.paths.gateway(shared.name(), &own.incarnation),
        )],
        writes,
    };
    match shared.directory.commit(transaction).await {
        Ok(Committed::Done { .. }) => {
            shared.counters.published.add();
            Ok(())
        }
        Ok(Committed::Refused { .. }) => {
            tracing::warn!("this gateway no longer lives for the others: nothing was published");
            Err(())
        }
        Err(error) => {
            tracing::debug!(%error, "the directory was not told of {} keys", keys.len());
            Err(())
        }
    }
}

/// What is true of a key now.
fn write(shared: &Shared, own: &Membership, key: &str) -> Write {
    let path = shared.paths.device(key, shared.name());
    let tunnels = shared.own_tunnels(key);
    let Some(oldest) = tunnels.first() else {
        return Write::Delete(path);
    };
    let record = DeviceRecord {
        incarnation: own.incarnation.to_string(),
        tunnels: tunnels.len(),
        opened_at: millis(oldest.opened_at()),
        ..DeviceRecord::default()
    };
    Write::Put {
        key: path,
        value: encode(&record),
        lease: None,
    }
}

/// Writes the denials that the directory did not take when an operator asked for them.
pub(crate) async fn write_again(shared: &Shared) {
    let writes: Vec<_> = shared.unwritten().drain().collect();
    for (key, write) in writes {
        let transaction = Transaction {
            conditions: Vec::new(),
            writes: vec![write.clone()],
        };
        if shared.directory.commit(transaction).await.is_err() {
            // Unless an operator has asked for something else meanwhile.
            shared.unwritten().entry(key).or_insert(write);
        }
    }
}

/// Removes what gateways have left behind that live no more: after a random time, so that not all gateways do it.
pub(crate) async fn sweep(shared: Arc<Shared>) {
    loop {
        let (least, most) = shared.settings.sweep_after;
        tokio::time::sleep(least + most.saturating_sub(least).mul_f64(fastrand::f64())).await;
        // A gateway that was cut off from the directory has joined again: its earlier hops are not needed.
        let superseded = shared.cache().forget_superseded();
        for incarnation in superseded {
            shared.hops.give_up(&incarnation);
        }
        write_again(&shared).await;
        let lapsed: HashSet<_> = {
            let cache = shared.cache();
            match cache.is_stale() {
                true => HashSet::new(),
                false => cache.lapsed(),
            }
        };
        for incarnation in lapsed {
            // Cut off from the directory alone: it serves its devices, and joins again.
            if shared.hop_state(&incarnation) != crate::cache::HopState::Down {
                continue;
            }
            let left = shared.cache().left_behind(&incarnation);
            for some in left.chunks(MAX_WRITES - 1) {
                let gateway = &some[0].1;
                let absent = shared.paths.gateway(gateway, &incarnation);
                let unchanged = some
                    .iter()
                    .map(|(key, gateway, revision)| Condition::Unchanged {
                        key: shared.paths.device(key, gateway),
                        revision: *revision,
                    });
                let delete = |(key, gateway, _): &(String, Arc<str>, u64)| {
                    Write::Delete(shared.paths.device(key, gateway))
                };
                let transaction = Transaction {
                    conditions: unchanged.chain([Condition::Absent(absent)]).collect(),
                    writes: some.iter().map(delete).collect(),
                };
                match shared.directory.commit(transaction).await {
                    Ok(Committed::Done { .. }) => shared.counters.swept.add(),
                    // Another gateway was first, or the device is somewhere again.
                    Ok(Committed::Refused { .. }) => {}
                    Err(error) => tracing::debug!(%error, "not swept"),
                }
            }
        }
    }
}

/// Now, for records.
pub(crate) fn now() -> u64 {
    millis(SystemTime::now())
}
