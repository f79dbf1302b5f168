//! The settings of the paths through tunnels.

use std::time::Duration;

use tunnel_client::{Config, Revisions};

use super::Offer;

/// The settings of one end of a tunnel for an offer.
pub fn config(offer: &Offer, revisions: Revisions) -> Config {
    // With revision zero an unread stream blocks all later frames, even its cancel, until this
    // timeout. The default is half a minute, which is too long for a case.
    let mut builder = Config::builder()
        .revisions(revisions)
        .unread_stall_timeout(Duration::from_secs(1));
    if let Some(limit) = offer.max_message_size {
        builder = builder.max_message_size(limit);
    }
    builder.build().expect("the path's settings agree")
}
