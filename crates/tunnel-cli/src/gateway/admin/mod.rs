//! The service `tunnel.admin.v1.Admin`: what operators see and do.

mod drain;
mod fleet;
mod list;
mod tap;
#[cfg(test)]
mod tests;
mod view;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch::Receiver;
use tonic::{Request, Response, Status};
use tunnel_fleet::{DenyReport, Fleet, record};
use tunnel_server::{Report, TunnelServiceHandler};

pub(crate) use self::drain::{Drain, Phase};
pub(crate) use self::fleet::{FleetAdmin, from_peer};
use self::list::Filter;
use super::deny::{Denial, DenyList};
use super::presence::Presence;
use super::tap::Taps;
use super::totals::Totals;
use crate::admin::api;
use crate::admin::api::admin_server::Admin;
use crate::age;
use crate::identity::Identity;

/// How long calls in flight may go on in a drain, if the request does not say.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// What the service needs.
pub(crate) struct AdminParts {
    pub(crate) handler: TunnelServiceHandler,
    pub(crate) fleet: Fleet,
    /// The zone of the gateway. Empty: none.
    pub(crate) zone: String,
    /// With `opened` and `closed` as hooks of the handler, and `follow` running.
    pub(crate) presence: Arc<Presence>,
    /// Checked when tunnels are admitted.
    pub(crate) deny: Arc<DenyList>,
    pub(crate) taps: Arc<Taps>,
    /// Whether the gateway takes tunnels and calls.
    pub(crate) ready: Receiver<bool>,
    /// With `run` running.
    pub(crate) drain: Drain,
    pub(crate) started_at: SystemTime,
    /// In bytes. Zero: no limit.
    pub(crate) memory_budget: usize,
}

/// The service of this gateway alone; [`FleetAdmin`] asks those of all gateways. An interceptor must refuse those who are no operators, and put the [`Identity`] of the others into the
/// extensions.
pub(crate) struct AdminService {
    parts: AdminParts,
}

impl fmt::Debug for AdminService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminService").finish_non_exhaustive()
    }
}

impl AdminService {
    /// A service over these parts.
    pub(crate) fn new(parts: AdminParts) -> Self {
        Self { parts }
    }

    /// Ends the tunnels of a key.
    fn end(&self, key: &str, status: Status) -> u64 {
        self.parts.handler.close_key_with(key, status) as u64
    }

    /// Changes the deny list, which may write a file.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&DenyList) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let deny = self.parts.deny.clone();
        let changed = tokio::task::spawn_blocking(move || change(&deny)).await;
        changed.map_err(|error| Status::internal(error.to_string()))
    }

    /// Tells the fleet of a denial. Returns who has not confirmed it.
    async fn deny_in_fleet(&self, denial: &Denial) -> Vec<String> {
        let fleet = &self.parts.fleet;
        if fleet.is_alone() {
            return Vec::new();
        }
        let record = record::Denial {
            until: denial.until.map(record::millis),
            reason: denial.reason.clone(),
            by: denial.by.clone(),
        };
        names(fleet.deny(&denial.key, record).await)
    }

    /// How far the drain is.
    pub(crate) fn phase(&self) -> Phase {
        *self.parts.drain.phase().borrow()
    }

    /// The name of this gateway in its fleet. Empty if it is alone.
    fn name(&self) -> String {
        match self.parts.fleet.is_alone() {
            true => String::new(),
            false => self.parts.fleet.name().to_owned(),
        }
    }

    /// The row of this gateway among those of its fleet; `None` if it is alone.
    fn row(&self, totals: &Totals) -> Option<api::GatewayStats> {
        let fleet = &self.parts.fleet;
        (!fleet.is_alone()).then(|| api::GatewayStats {
            name: fleet.name().to_owned(),
            zone: self.parts.zone.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            draining: self.phase() != Phase::Serving,
            reachable: true,
            tunnels_open: totals.tunnels_open,
            calls_in_flight: totals.calls_in_flight,
            ready: *self.parts.ready.borrow(),
        })
    }

    fn drain_response(&self) -> api::DrainResponse {
        let phase = self.phase();
        let totals = self.parts.presence.totals();
        api::DrainResponse {
            draining: phase != Phase::Serving,
            drained: phase == Phase::Drained,
            tunnels_open: totals.tunnels_open,
            calls_in_flight: totals.calls_in_flight,
            in_fleet: !self.parts.fleet.is_alone(),
            only_here: match self.parts.fleet.is_alone() {
                true => Vec::new(),
                false => self.parts.fleet.only_here(),
            },
        }
    }
}

/// The name of the operator.
fn operator<T>(request: &Request<T>) -> String {
    match (
        request.extensions().get::<Identity>(),
        request.remote_addr(),
    ) {
        (Some(identity), _) => identity.name.to_string(),
        (None, Some(address)) => address.ip().to_string(),
        (None, None) => "unknown".to_owned(),
    }
}

/// Who has not confirmed a change: gateways, and the directory.
fn names(report: DenyReport) -> Vec<String> {
    let mut names = report.unconfirmed;
    if let Err(error) = report.written {
        names.push(error.to_string());
    }
    names
}

fn some_key(key: String) -> Result<String, Status> {
    match key.is_empty() {
        true => Err(Status::invalid_argument("no key")),
        false => Ok(key),
    }
}

/// A duration of a request.
fn duration(
    name: &str,
    duration: Option<prost_types::Duration>,
) -> Result<Option<Duration>, Status> {
    let duration = duration.map(Duration::try_from).transpose();
    duration.map_err(|error| Status::invalid_argument(format!("{name}: {error}")))
}

/// The status for a change of the deny list that is not in its file.
fn unsaved(done: &str, error: &anyhow::Error) -> Status {
    let error = Report(error.as_ref());
    Status::internal(format!(
        "the key is {done}, but only until the gateway stops: {error}"
    ))
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn list(
        &self,
        request: Request<api::ListRequest>,
    ) -> Result<Response<api::ListResponse>, Status> {
        let AdminParts { presence, deny, .. } = &self.parts;
        list::page(presence, deny, request.get_ref()).map(Response::new)
    }

    type WatchStream = watch::Events;

    async fn watch(
        &self,
        request: Request<api::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let AdminParts {
            presence,
            deny,
            drain,
            ..
        } = &self.parts;
        let filter = Filter::new(&request.get_ref().filter)?;
        let events = watch::events(presence, deny, drain, filter);
        Ok(Response::new(Box::pin(events)))
    }

    type TapStream = tap::Events;

    async fn tap(
        &self,
        request: Request<api::TapRequest>,
    ) -> Result<Response<Self::TapStream>, Status> {
        let by = operator(&request);
        let api::TapRequest { filter, body_bytes } = request.into_inner();
        tracing::info!(by, filter, body_bytes, "tap");
        let AdminParts { taps, drain, .. } = &self.parts;
        let filter = Filter::new(&filter)?;
        let body = usize::try_from(body_bytes).unwrap_or(usize::MAX);
        Ok(Response::new(tap::events(taps, drain, filter, body)))
    }

    async fn kick(
        &self,
        request: Request<api::KickRequest>,
    ) -> Result<Response<api::KickResponse>, Status> {
        let by = operator(&request);
        let api::KickRequest { key, reason } = request.into_inner();
        let key = some_key(key)?;
        // A code after which agents come back soon.
        let status = Status::unavailable(match reason.is_empty() {
            true => "kicked".to_owned(),
            false => format!("kicked: {reason}"),
        });
        let tunnels = self.end(&key, status);
        tracing::info!(key, by, reason, tunnels, "kicked");
        Ok(Response::new(api::KickResponse {
            tunnels,
            ..api::KickResponse::default()
        }))
    }

    async fn deny(
        &self,
        request: Request<api::DenyRequest>,
    ) -> Result<Response<api::DenyResponse>, Status> {
        let by = operator(&request);
        let api::DenyRequest {
            key,
            reason,
            duration: time,
        } = request.into_inner();
        let now = SystemTime::now();
        let until = duration("duration", time)?.map(|time| {
            let until = now.checked_add(time);
            until.ok_or_else(|| Status::invalid_argument("duration: too long"))
        });
        let denial = Denial {
            key: some_key(key)?,
            reason,
            until: until.transpose()?,
            by,
            since: Some(now),
        };
        let listed = denial.clone();
        let saved = self.change(move |deny| deny.deny(listed)).await?;
        self.parts.presence.denied(&denial);
        // After the list, so that no tunnel is admitted in between.
        let tunnels = self.end(&denial.key, denial.status());
        let Denial {
            key, reason, by, ..
        } = &denial;
        tracing::info!(key, by, reason, tunnels, "denied");
        saved.map_err(|error| unsaved("denied", &error))?;
        let report = self.deny_in_fleet(&denial).await;
        Ok(Response::new(api::DenyResponse {
            denial: Some(denial.into()),
            tunnels,
            unconfirmed: report,
            gateway: self.name(),
        }))
    }

    async fn allow(
        &self,
        request: Request<api::AllowRequest>,
    ) -> Result<Response<api::AllowResponse>, Status> {
        let by = operator(&request);
        let key = some_key(request.into_inner().key)?;
        let name = key.clone();
        let allowed = self.change(move |deny| deny.allow(&name)).await?;
        let was_denied = *allowed.as_ref().unwrap_or(&true);
        if was_denied {
            self.parts.presence.allowed(&key);
            tracing::info!(key, by, "allowed");
        }
        allowed.map_err(|error| unsaved("allowed", &error))?;
        let unconfirmed = match self.parts.fleet.is_alone() {
            true => Vec::new(),
            false => names(self.parts.fleet.allow(&key).await),
        };
        Ok(Response::new(api::AllowResponse {
            was_denied,
            unconfirmed,
        }))
    }

    async fn list_denied(
        &self,
        _: Request<api::ListDeniedRequest>,
    ) -> Result<Response<api::ListDeniedResponse>, Status> {
        let denials = self.parts.deny.list().into_iter().map(Into::into);
        Ok(Response::new(api::ListDeniedResponse {
            denials: denials.collect(),
            ..api::ListDeniedResponse::default()
        }))
    }

    async fn drain(
        &self,
        request: Request<api::DrainRequest>,
    ) -> Result<Response<api::DrainResponse>, Status> {
        let api::DrainRequest { timeout, check } = *request.get_ref();
        if !check {
            let timeout = duration("timeout", timeout)?.unwrap_or(DRAIN_TIMEOUT);
            tracing::info!(by = operator(&request), ?timeout, "drain asked for");
            self.parts.drain.begin(timeout);
            self.parts.drain.drained().await;
        }
        Ok(Response::new(self.drain_response()))
    }

    async fn stats(
        &self,
        _: Request<api::StatsRequest>,
    ) -> Result<Response<api::StatsResponse>, Status> {
        let totals = self.parts.presence.totals();
        let row = self.row(&totals);
        Ok(Response::new(api::StatsResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: Some(self.parts.started_at.into()),
            uptime: Some(view::duration(age::since(self.parts.started_at))),
            ready: *self.parts.ready.borrow(),
            tunnels_open: totals.tunnels_open,
            devices_connected: totals.devices_connected,
            devices_denied: self.parts.deny.count() as u64,
            calls_in_flight: totals.calls_in_flight,
            tunnels_total: totals.tunnels,
            calls_total: totals.calls,
            bytes_sent: totals.bytes_sent,
            bytes_received: totals.bytes_received,
            messages_sent: totals.messages_sent,
            messages_received: totals.messages_received,
            memory_used: totals.memory_used,
            memory_budget: self.parts.memory_budget as u64,
            gateway: self.name(),
            gateways: row.into_iter().collect(),
            unreachable: Vec::new(),
        }))
    }
}
