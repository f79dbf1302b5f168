//! Follows the directory.

use std::sync::Arc;

use futures::StreamExt;

use crate::cache::Effect;
use crate::directory::Update;
use crate::shared::Shared;
use crate::{exclusive, publish};

pub(crate) async fn run(shared: Arc<Shared>) {
    let mut updates = shared.directory.watch(shared.paths.prefix().to_owned());
    while let Some(update) = updates.next().await {
        if let Update::Lost(error) = &update {
            tracing::warn!(%error, "the directory does not answer: going on with what is known");
        }
        let effects = shared.cache().apply(update);
        for effect in effects {
            carry_out(&shared, effect);
        }
    }
}

fn carry_out(shared: &Arc<Shared>, effect: Effect) {
    match effect {
        Effect::Routes(key) => {
            republish_if_lost(shared, &key);
            if shared.cache().records(&key).is_empty() {
                shared.lost(&key);
            }
            shared.wake(&key);
        }
        Effect::Gateway(incarnation) => {
            let state = shared.cache().gateway(&incarnation).cloned();
            if let Some(state) = state.filter(|state| &*state.name != shared.name()) {
                let (hopping, of) = (Arc::downgrade(shared), incarnation.clone());
                shared.hops.keep_up(&incarnation, &state, move |is_up| {
                    if let Some(shared) = hopping.upgrade() {
                        shared.hop_changed(&of, is_up);
                    }
                });
            }
        }
        Effect::Lapsed(incarnation) => {
            // Its routes stay while the way to it is up.
            if shared.hop_state(&incarnation) == crate::cache::HopState::Down {
                shared.hop_changed(&incarnation, false);
            }
        }
        Effect::Denied(key) => shared.enforce_denial(&key),
        Effect::Allowed(key) => shared.allowed(&key),
        Effect::Owner(key) => exclusive::owner_changed(shared, &key),
        Effect::Answers => {
            tracing::info!("the directory answers");
            shared.touch_all();
            shared.wake_all();
            let shared = shared.clone();
            tokio::spawn(async move { publish::write_again(&shared).await });
        }
    }
}

/// Writes the record of a key again that somebody has deleted although the device is here.
fn republish_if_lost(shared: &Shared, key: &str) {
    let has_record = {
        let cache = shared.cache();
        let mut records = cache.records(key).iter();
        records.any(|route| &*route.gateway == shared.name())
    };
    if !has_record && !shared.own_tunnels(key).is_empty() {
        shared.touch(key);
    }
}
