//! Where calls wait for a place among those in flight, if that was chosen.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::future::{BoxFuture, Either, FutureExt as _, select};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tunnel_core::{EndReason, OpenError};

use super::{CallHead, Handle};
use crate::shared::{Shared, now};
use crate::status::from_open_error;

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
        head: &CallHead,
    ) -> Result<Option<OwnedSemaphorePermit>, Self> {
        let Some(places) = handle.places.clone() else {
            return Ok(None);
        };
        if let Ok(place) = places.clone().try_acquire_owned() {
            return Ok(Some(place));
        }
        let deadline = head
            .timeout()
            .and_then(|timeout| now().checked_add(timeout));
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
    pub(super) fn shorten_timeout(&self, head: &mut CallHead) {
        if let Some(deadline) = self.deadline {
            head.set_timeout(deadline.saturating_duration_since(now()));
        }
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
