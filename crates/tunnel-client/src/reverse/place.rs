//! A gateway, and what a server has learned about it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tunnel_core::{ConnectionError, EndReason};
use tunnel_tonic::TunnelError;

use crate::keepalive::{says_too_many_pings, too_many_pings};
use crate::{Gateway, Keepalive};

/// How many ends in a row that look like too many pings are taken for just that. One may be
/// chance.
const SUSPICIONS: u32 = 2;

/// A gateway of a server. What is learned stays for as long as the server lives.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) name: Arc<str>,
    pub(crate) gateway: Gateway,
    memory: Mutex<Memory>,
}

/// Whether a gateway is likely to accept a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// As far as is known.
    #[default]
    Good,
    /// It said that it drains, or the last attempt failed.
    Away,
}

#[derive(Debug, Default)]
struct Memory {
    standing: Standing,
    slow: bool,
    suspicions: u32,
}

impl Place {
    pub(crate) fn new(gateway: Gateway, place: usize) -> Self {
        Self {
            name: gateway.name_in_place(place),
            gateway,
            memory: Mutex::default(),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn standing(&self) -> Standing {
        self.memory().standing
    }

    pub(crate) fn set_standing(&self, standing: Standing) {
        self.memory().standing = standing;
    }

    /// Whether the gateway does not want to be pinged often.
    pub(crate) fn is_slow(&self) -> bool {
        self.memory().slow
    }

    /// A tunnel to the gateway has ended, after the gateway was silent for so long; `slow` is
    /// how the tunnel was dialled.
    pub(crate) fn learn(&self, slow: bool, reason: &EndReason, silence: Duration) {
        let keepalive = self.gateway.own_keepalive();
        // One that was dialled slowly says nothing of faster ones, nor one that is not ours.
        let Some(keepalive) = keepalive.filter(|_| !slow) else {
            return;
        };
        let news = self.memory().slows_down(keepalive, reason, silence);
        self.warn(news);
    }

    /// The gateway's connection was not good for a tunnel.
    pub(crate) fn learn_from_failure(&self, error: &TunnelError) {
        if let Some(keepalive) = self.gateway.own_keepalive()
            && says_too_many_pings(&error.to_string())
        {
            let news = self.memory().slow_down(keepalive);
            self.warn(news);
        }
    }

    fn warn(&self, news: bool) {
        if news {
            tracing::warn!(
                gateway = %self.name,
                "the gateway does not allow so many keepalive pings: they are slowed down, and a \
                 gateway that vanishes is noticed later"
            );
        }
    }
}

impl Memory {
    /// Notes how a tunnel ended; `true` if keepalive slows down from now on.
    fn slows_down(&mut self, keepalive: Keepalive, reason: &EndReason, silence: Duration) -> bool {
        let suspicious = is_broken(reason) && keepalive.is_suspicious(silence);
        self.suspicions = if suspicious { self.suspicions + 1 } else { 0 };
        let slows = too_many_pings(reason) || self.suspicions >= SUSPICIONS;
        slows && self.slow_down(keepalive)
    }

    /// Keepalive slows down from now on; `true` if that is news.
    fn slow_down(&mut self, keepalive: Keepalive) -> bool {
        let known = std::mem::replace(&mut self.slow, true);
        !known && keepalive.slowed() != keepalive
    }
}

/// Whether the connection was broken, by something else than our own keepalive.
fn is_broken(reason: &EndReason) -> bool {
    const OUR_KEEPALIVE: &str = "timed out";
    matches!(
        reason,
        EndReason::Error(ConnectionError::TransportLost(why)) if !why.contains(OUR_KEEPALIVE)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(why: &str) -> EndReason {
        EndReason::Error(ConnectionError::TransportLost(why.to_owned()))
    }

    fn ends(ends: &[(EndReason, u64)]) -> Vec<bool> {
        let mut memory = Memory::default();
        let slows = ends.iter().map(|(reason, silence)| {
            let silence = Duration::from_secs(*silence);
            memory.slows_down(Keepalive::default(), reason, silence)
        });
        slows.collect()
    }

    #[test]
    fn the_word_too_many_pings_slows_down_at_once_and_is_news_once() {
        let word = lost("... (b\"too_many_pings\")");
        let news = ends(&[(word.clone(), 1), (word, 1), (lost("broken pipe"), 1)]);
        assert_eq!(news, [true, false, false]);
    }

    #[test]
    fn two_suspicious_ends_in_a_row_slow_down() {
        let end = || (lost("broken pipe"), 41);
        assert_eq!(ends(&[end(), end(), end()]), [false, true, false]);
    }

    #[test]
    fn anything_else_between_them_clears_the_suspicion() {
        let end = || (lost("broken pipe"), 41);
        for other in [
            (lost("broken pipe"), 5),
            (lost("broken pipe"), 300),
            (lost("keep-alive timed out"), 41),
            (EndReason::PeerClosed, 41),
            (EndReason::PeerDrained, 41),
        ] {
            assert_eq!(ends(&[end(), other, end()]), [false; 3]);
        }
    }
}
