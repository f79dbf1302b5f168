//! The admin API for operators: of this gateway, and of its fleet.

mod merge;
mod peers;
mod streams;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt as _, join};
use tonic::{Request, Response, Status, Streaming};
use tunnel_fleet::Fleet;
use tunnel_server::TunnelChannel;

pub(crate) use self::peers::from_peer;
use self::peers::{Client, ask, client};
use super::drain::Phase;
use super::{AdminService, list, operator, tap, watch};
use crate::admin::api;
use crate::admin::api::admin_server::Admin;

/// How many pages of the gateways are looked at for one page with a state. Devices that are in this state at one gateway
/// may be in another one in the fleet.
const MAX_PAGES: usize = 20;

/// The service for operators. It asks the own service of this gateway and those of the others. A gateway that is alone
/// asks its own alone.
pub(crate) struct FleetAdmin {
    local: Arc<AdminService>,
}

impl fmt::Debug for FleetAdmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetAdmin").finish_non_exhaustive()
    }
}

impl FleetAdmin {
    /// A service over that of this gateway.
    pub(crate) fn new(local: Arc<AdminService>) -> Self {
        Self { local }
    }

    /// How far the drain of this gateway is.
    pub(crate) fn phase(&self) -> Phase {
        self.local.phase()
    }

    /// Whether there may be other gateways.
    pub(crate) fn is_in_fleet(&self) -> bool {
        !self.fleet().is_alone()
    }

    fn fleet(&self) -> &Fleet {
        &self.local.parts.fleet
    }

    /// One page of all gateways, and whether there are more.
    async fn page(
        &self,
        by: &str,
        request: &api::ListRequest,
        unreachable: &mut BTreeSet<String>,
    ) -> Result<(Vec<api::Device>, bool), Status> {
        let size = list::size(request)?;
        let own = self.local.list(Request::new(request.clone()));
        let others = ask(self.fleet(), by, |mut peer| {
            let request = request.clone();
            async move { peer.list(request).await }
        });
        let (own, mut others) = join(own, others).await;
        unreachable.append(&mut others.unreachable);
        let mut pages = others.answers;
        pages.push((self.fleet().name().into(), own?.into_inner()));
        Ok(merge::page(pages, size))
    }

    /// The devices of a page that are in the state that is asked for, with what all gateways know of them.
    async fn in_state(
        &self,
        by: &str,
        devices: Vec<api::Device>,
        state: i32,
        unreachable: &mut BTreeSet<String>,
    ) -> Result<Vec<api::Device>, Status> {
        if devices.is_empty() {
            return Ok(devices);
        }
        let request = api::ListRequest {
            page_size: i32::try_from(devices.len()).unwrap_or(i32::MAX),
            keys: devices.into_iter().map(|device| device.key).collect(),
            ..api::ListRequest::default()
        };
        let (mut devices, _) = self.page(by, &request, unreachable).await?;
        devices.retain(|device| device.state == state);
        Ok(devices)
    }

    async fn list_all(
        &self,
        by: &str,
        mut request: api::ListRequest,
    ) -> Result<api::ListResponse, Status> {
        let size = list::size(&request)?;
        let any = request.state == i32::from(api::State::Unspecified);
        let mut found = Vec::new();
        let mut unreachable = BTreeSet::new();
        for _ in 0..MAX_PAGES {
            let (devices, more) = self.page(by, &request, &mut unreachable).await?;
            let last = devices.last().map(|device| device.key.clone());
            let devices = match any {
                true => devices,
                false => {
                    let state = request.state;
                    self.in_state(by, devices, state, &mut unreachable).await?
                }
            };
            found.extend(devices);
            request.page_token = match last {
                Some(last) if more => list::token(&request, &last),
                _ => String::new(),
            };
            if found.len() >= size || request.page_token.is_empty() {
                break;
            }
        }
        if found.len() > size {
            found.truncate(size);
            let last = found.last().map_or("", |device| &device.key);
            request.page_token = list::token(&request, last);
        }
        Ok(api::ListResponse {
            devices: found,
            next_page_token: request.page_token,
            unreachable: unreachable.into_iter().collect(),
        })
    }

    /// Rows for the gateways that have not answered, as the directory has them.
    fn silent(&self, names: &BTreeSet<String>) -> Vec<api::GatewayStats> {
        let known = self.fleet().gateways();
        let row = |name: &String| {
            let gateway = known.iter().find(|gateway| *gateway.name == **name);
            let record = gateway.map(|gateway| gateway.record.clone());
            let record = record.unwrap_or_default();
            api::GatewayStats {
                name: name.clone(),
                zone: record.zone.unwrap_or_default(),
                version: record.version,
                draining: record.draining,
                ..api::GatewayStats::default()
            }
        };
        names.iter().map(row).collect()
    }

    /// What opens a stream of another gateway.
    fn opener<E: 'static, R, F>(
        &self,
        by: String,
        request: R,
        call: fn(Client, R) -> F,
    ) -> streams::Open<E>
    where
        R: Clone + Send + 'static,
        F: Future<Output = Result<Response<Streaming<E>>, Status>> + Send + 'static,
    {
        let fleet = self.fleet().clone();
        Box::new(
            move |tunnel: TunnelChannel| -> BoxFuture<'static, Result<Streaming<E>, Status>> {
                let opening = call(client(&fleet, tunnel, &by), request.clone());
                opening
                    .map(|opened| opened.map(Response::into_inner))
                    .boxed()
            },
        )
    }
}

#[tonic::async_trait]
impl Admin for FleetAdmin {
    async fn list(
        &self,
        request: Request<api::ListRequest>,
    ) -> Result<Response<api::ListResponse>, Status> {
        if self.fleet().is_alone() {
            return self.local.list(request).await;
        }
        let by = operator(&request);
        let listed = self.list_all(&by, request.into_inner()).await?;
        Ok(Response::new(listed))
    }

    type WatchStream = watch::Events;

    async fn watch(
        &self,
        request: Request<api::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (by, message) = (operator(&request), request.get_ref().clone());
        let own = self.local.watch(request).await?;
        if self.fleet().is_alone() {
            return Ok(own);
        }
        let open = self.opener(by, message, |mut peer, request| async move {
            peer.watch(request).await
        });
        let events = streams::merged(self.fleet(), own.into_inner(), open);
        Ok(Response::new(Box::pin(events)))
    }

    type TapStream = tap::Events;

    async fn tap(
        &self,
        request: Request<api::TapRequest>,
    ) -> Result<Response<Self::TapStream>, Status> {
        let (by, message) = (operator(&request), request.get_ref().clone());
        let own = self.local.tap(request).await?;
        if self.fleet().is_alone() {
            return Ok(own);
        }
        let open = self.opener(by, message, |mut peer, request| async move {
            peer.tap(request).await
        });
        let events = streams::merged(self.fleet(), own.into_inner(), open);
        Ok(Response::new(Box::pin(events)))
    }

    async fn kick(
        &self,
        request: Request<api::KickRequest>,
    ) -> Result<Response<api::KickResponse>, Status> {
        if self.fleet().is_alone() {
            return self.local.kick(request).await;
        }
        let (by, message) = (operator(&request), request.get_ref().clone());
        // Of this gateway alone first: a request without a key is illegal.
        let own = self.local.kick(request).await?.into_inner();
        let others = ask(self.fleet(), &by, |mut peer| {
            let message = message.clone();
            async move { peer.kick(message).await }
        });
        let others = others.await;
        let ended = others.answers.iter().map(|(_, kicked)| kicked.tunnels);
        Ok(Response::new(api::KickResponse {
            tunnels: own.tunnels + ended.sum::<u64>(),
            unreachable: others.unreachable.into_iter().collect(),
        }))
    }

    async fn deny(
        &self,
        request: Request<api::DenyRequest>,
    ) -> Result<Response<api::DenyResponse>, Status> {
        self.local.deny(request).await
    }

    async fn allow(
        &self,
        request: Request<api::AllowRequest>,
    ) -> Result<Response<api::AllowResponse>, Status> {
        self.local.allow(request).await
    }

    async fn list_denied(
        &self,
        request: Request<api::ListDeniedRequest>,
    ) -> Result<Response<api::ListDeniedResponse>, Status> {
        if self.fleet().is_alone() {
            return self.local.list_denied(request).await;
        }
        let by = operator(&request);
        let own = self.local.list_denied(request);
        let others = ask(self.fleet(), &by, |mut peer| async move {
            peer.list_denied(api::ListDeniedRequest {}).await
        });
        let (own, others) = join(own, others).await;
        let answers = others.answers.into_iter().map(|(_, answer)| answer);
        let all = std::iter::once(own?.into_inner()).chain(answers);
        Ok(Response::new(api::ListDeniedResponse {
            denials: merge::denials(all.flat_map(|answer| answer.denials)),
            unreachable: others.unreachable.into_iter().collect(),
        }))
    }

    async fn drain(
        &self,
        request: Request<api::DrainRequest>,
    ) -> Result<Response<api::DrainResponse>, Status> {
        self.local.drain(request).await
    }

    async fn stats(
        &self,
        request: Request<api::StatsRequest>,
    ) -> Result<Response<api::StatsResponse>, Status> {
        if self.fleet().is_alone() {
            return self.local.stats(request).await;
        }
        let by = operator(&request);
        let own = self.local.stats(request);
        let others = ask(self.fleet(), &by, |mut peer| async move {
            peer.stats(api::StatsRequest {}).await
        });
        let (own, others) = join(own, others).await;
        let answers = others.answers.into_iter().map(|(_, answer)| answer);
        let stats = merge::stats(
            own?.into_inner(),
            answers.collect(),
            self.silent(&others.unreachable),
            self.fleet().stats().keys as u64,
        );
        Ok(Response::new(api::StatsResponse {
            unreachable: others.unreachable.into_iter().collect(),
            ..stats
        }))
    }
}
