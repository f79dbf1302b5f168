//! Where calls wait for a place among those in flight, if that was chosen.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, Either, FutureExt as _, select};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tunnel_core::{EndReason, Metadata, OpenError, parse_grpc_timeout};

use super::Handle;
use crate::shared::{Shared, now};
use crate::status::from_open_error;

const TIMEOUT: &str = "grpc-timeout";

/// One call's wait. It ends with a place, with the call's deadline, or with the tunnel; dropping
/// it leaves nothing behind.
pub(super) struct Queue {
    place: BoxFuture<'static, Result<OwnedSemaphorePermit, Status>>,
    /// When the call expires, if it carries a deadline.
    deadline: Option<Instant>,
}

impl Queue {
    /// Takes a place at once, if there is one or none is needed.
    pub(super) fn enter(
        handle: &Handle,
        headers: &Metadata,
    ) -> Result<Option<OwnedSemaphorePermit>, Self> {
        let Some(places) = handle.places.clone() else {
            return Ok(None);
        };
        if let Ok(place) = places.clone().try_acquire_owned() {
            return Ok(Some(place));
        }
        let timeout = headers.get(TIMEOUT).and_then(parse_grpc_timeout);
        let deadline = timeout.and_then(|timeout| now().checked_add(timeout));
        let place = place_by(deadline, places, handle.shared.clone());
        Err(Self {
            place: place.boxed(),
            deadline,
        })
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<OwnedSemaphorePermit, Status>> {
        self.place.as_mut().poll(cx)
    }

    /// Takes the time of the wait off the timeout that travels with the call.
    pub(super) fn shorten_timeout(&self, headers: &mut Metadata) {
        let Some(deadline) = self.deadline else {
            return;
        };
        let left = timeout_text(deadline.saturating_duration_since(now()));
        let shortened = headers.iter().map(|(key, value)| match key {
            TIMEOUT => (key, left.as_str()),
            _ => (key, value),
        });
        *headers = shortened.collect();
    }
}

async fn place_by(
    deadline: Option<Instant>,
    places: Arc<Semaphore>,
    shared: Arc<Shared>,
) -> Result<OwnedSemaphorePermit, Status> {
    let place = place(places, &shared);
    let place = match deadline {
        Some(at) => tokio::time::timeout_at(at.into(), place)
            .await
            .unwrap_or(Err(OpenError::DeadlineExceeded)),
        None => place.await,
    };
    place.map_err(from_open_error)
}

/// A place, unless the tunnel ends: calls that are over may keep theirs until they are dropped.
async fn place(places: Arc<Semaphore>, shared: &Shared) -> Result<OwnedSemaphorePermit, OpenError> {
    let free = pin!(places.acquire_owned());
    let ended = pin!(shared.wait_life(|life| life.end_reason().is_some()));
    match select(free, ended).await {
        Either::Left((Ok(place), _)) => Ok(place),
        Either::Left((Err(_), _)) => Err(OpenError::Ended(EndReason::Closed)),
        Either::Right((life, _)) => Err(OpenError::Ended(
            life.end_reason().cloned().unwrap_or(EndReason::Closed),
        )),
    }
}

/// A duration as `grpc-timeout` says it: at most eight digits and a unit.
fn timeout_text(left: Duration) -> String {
    const LIMIT: u128 = 100_000_000;
    match left {
        _ if left.as_micros() < LIMIT => format!("{}u", left.as_micros()),
        _ if left.as_millis() < LIMIT => format!("{}m", left.as_millis()),
        _ => format!("{}S", left.as_secs().min(LIMIT as u64 - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_written_so_that_it_reads_the_same() {
        for left in [
            Duration::ZERO,
            Duration::from_micros(99_999_999),
            Duration::from_millis(100_000),
            Duration::from_millis(99_999_999),
            Duration::from_secs(100_000),
            Duration::from_secs(99_999_999),
        ] {
            assert_eq!(parse_grpc_timeout(&timeout_text(left)), Some(left));
        }
        let years = timeout_text(Duration::from_secs(u64::MAX));
        assert_eq!(years, "99999999S");
    }
}
