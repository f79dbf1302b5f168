//! What the paths through tunnels have in common.

use std::time::Duration;

use tunnel_client::{Config, Revisions};

use super::Offer;

/// The settings of one end of a tunnel that is to carry an offer.
pub(super) fn config(offer: &Offer, revisions: Revisions) -> Config {
    // Without windows, what nobody reads holds up everything behind it, a cancel included,
    // until this has passed. A case would wait for the default half a minute.
    let mut builder = Config::builder()
        .revisions(revisions)
        .unread_stall_timeout(Duration::from_secs(1));
    if let Some(limit) = offer.max_message_size {
        builder = builder.max_message_size(limit);
    }
    builder.build().expect("the path's settings agree")
}
