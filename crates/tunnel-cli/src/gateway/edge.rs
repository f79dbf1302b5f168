//! The service for clients: finds the key of a call, asks who is calling and whether they may, and passes the call on.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderValue};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tower_service::Service;
use tunnel_fleet::{Fleet, FleetChannel};
use tunnel_server::{AffinityKey, KeyFrom, KeyProxy};

use super::audit::AuditLog;
use super::deny::DenyList;
use super::history::History;
use super::key::KeyRule;
use super::limits::Limits;
use super::presence::Presence;
use super::record::{Record, RequestBody, ResponseBody, Revoked};
use super::tap::Taps;
use crate::access::AccessFile;
use crate::identity::authenticator::Authenticator;
use crate::identity::{Identity, Proof};

/// The beginning of the names of metadata that only the gateway sets: what a client sends under them is removed.
const OWN_METADATA: &str = "tunnel-";

/// The metadata with which a device is told who calls it.
const CALLER: &str = "tunnel-caller";

/// The paths of openings of tunnels. An agent that dials here names its own key in the metadata. (To tunnel through a
/// device, a client names it by the authority.)
const TUNNELS: &str = "/grpctunnel.v1.TunnelService/";

/// What somebody is told who must prove who they are.
pub(super) const WHO: &str = "who are you? present a certificate or a bearer token";

/// What tokio's timers can tell apart.
const TIMER_STEP: Duration = Duration::from_millis(1);

/// Who may call what.
pub(crate) struct Gate {
    pub(crate) clients: Arc<Authenticator>,
    /// Whether clients must prove who they are.
    pub(crate) prove: bool,
    pub(crate) access: Arc<AccessFile>,
    /// Whether what was allowed may be revoked later.
    pub(crate) may_change: bool,
    /// Changes after files were read again.
    pub(crate) reloaded: watch::Receiver<u64>,
}

impl Gate {
    /// Who makes a request; `None` for somebody who proves nothing.
    fn identify(&self, head: &Parts) -> Result<Option<Identity>, Status> {
        let certificates = certificates(&head.extensions);
        let certificates = certificates.as_ref().map(|c| c.as_slice());
        self.clients.identify(&head.headers, certificates)
    }

    /// Whether somebody may call a method of a key.
    pub(crate) fn check(
        &self,
        who: Option<&Identity>,
        key: &str,
        method: &str,
    ) -> Result<(), Status> {
        if let Some(who) = who {
            self.clients.check(who)?;
        }
        // Without a file the proof alone counts.
        let proved = who.is_some() || !self.prove || self.access.is_some();
        if proved && self.access.allows(who, key, method) {
            return Ok(());
        }
        if who.is_none() && self.prove {
            return Err(Status::unauthenticated(WHO));
        }
        let name = who.map_or("anonymous", |who| &who.name);
        let message = format!("{name:?} may not call {method} of {key:?}");
        Err(Status::permission_denied(message))
    }

    /// Resolves when somebody may not call a method of a key any more; the status says why.
    pub(crate) fn revoked(
        self: &Arc<Self>,
        who: Option<Identity>,
        key: Arc<str>,
        method: String,
    ) -> Revoked {
        let gate = self.clone();
        let mut reloaded = gate.reloaded.clone();
        let expires = who.as_ref().and_then(|who| expires(&who.proof));
        Box::pin(async move {
            let mut expired = std::pin::pin!(async {
                match expires {
                    Some(after) => tokio::time::sleep(after).await,
                    None => std::future::pending().await,
                }
            });
            loop {
                let gone = tokio::select! {
                    changed = reloaded.changed() => changed.is_err(),
                    () = &mut expired => return Status::unauthenticated("the credentials of the client have expired"),
                };
                if gone {
                    return std::future::pending().await;
                }
                if let Err(status) = gate.check(who.as_ref(), &key, &method) {
                    return status;
                }
            }
        })
    }
}

/// The verified certificates of the peer.
pub(crate) fn certificates(extensions: &Extensions) -> Option<Arc<Vec<CertificateDer<'static>>>> {
    extensions
        .get::<TlsConnectInfo<TcpConnectInfo>>()?
        .peer_certs()
}

/// What the service needs.
pub(crate) struct Services {
    pub(crate) fleet: Fleet,
    pub(crate) rule: KeyRule,
    pub(crate) gate: Arc<Gate>,
    pub(crate) deny: Arc<DenyList>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) history: Arc<History>,
    pub(crate) audit: Option<Arc<AuditLog>>,
    pub(crate) taps: Arc<Taps>,
}

/// The service for clients. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Edge {
    services: Arc<Services>,
    proxy: KeyProxy<FleetChannel>,
    /// Answers calls without a key.
    own: Routes,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge").finish_non_exhaustive()
    }
}

impl Edge {
    /// A service that answers calls without a key by `own`.
    pub(crate) fn new(services: Services, own: Routes) -> Self {
        let key = |head: &Parts| {
            let key = head.extensions.get::<AffinityKey>().cloned();
            key.ok_or_else(|| Status::internal("the call has no key"))
        };
        Self {
            proxy: services.fleet.proxy(KeyFrom::head(key)),
            services: Arc::new(services),
            own,
        }
    }

    async fn serve(mut self, request: http::Request<Body>) -> http::Response<Body> {
        let audit = self.services.audit.as_deref();
        if let Err(status) = audit.map_or(Ok(()), AuditLog::check) {
            return status.into_http();
        }
        let (mut head, body) = request.into_parts();
        let mut record = Record::new(
            self.services.audit.clone(),
            self.services.taps.clone(),
            head.uri.path(),
        );
        record.peer = peer(&head.extensions);
        let (who, key) = match self.admit(&head, &mut record) {
            Ok(admitted) => admitted,
            Err(status) => return refused(record, status),
        };
        if let Some(who) = &who {
            head.extensions.insert(who.clone());
        }
        let Some(key) = key else {
            return self
                .answer(http::Request::from_parts(head, body), record)
                .await;
        };
        let call = match self.services.limits.begin(&key) {
            Ok(call) => Arc::new(call),
            Err(status) => return refused(record, status),
        };
        record.history = Some(self.services.history.clone());
        record.begins();
        let gate = &self.services.gate;
        let revoked = || match gate.may_change {
            true => gate.revoked(who.clone(), key.clone(), record.method.clone()),
            false => Box::pin(std::future::pending()),
        };
        let (mut revoked, upload_revoked) = (revoked(), revoked());
        sign(&mut head.headers, who.as_ref());
        head.extensions.insert(AffinityKey::from(&*key));
        let expired = expired(&head.headers);
        let tells_its_end = head.version == http::Version::HTTP_2;
        let body = RequestBody::wrap(body, tells_its_end, &record, &call, upload_revoked);
        let answered = self.proxy.call(http::Request::from_parts(head, body));
        tokio::select! {
            biased;
            response = answered => {
                let response = response.unwrap_or_else(|never| match never {});
                if !response.status().is_success() {
                    record.ended(tonic::Code::Unknown, "the request is not one of gRPC");
                }
                ResponseBody::wrap(response, record, call, revoked)
            }
            status = &mut revoked => refused(record, status),
            status = expired => refused(record, status),
        }
    }

    /// Who is calling, and which key; `None` for the gateway itself.
    fn admit(
        &self,
        head: &Parts,
        record: &mut Record,
    ) -> Result<(Option<Identity>, Option<Arc<str>>), Status> {
        let Services {
            fleet,
            rule,
            gate,
            deny,
            presence,
            ..
        } = &*self.services;
        let key: Option<Arc<str>> = rule.find(head)?.map(Arc::from);
        if head.uri.path().starts_with(TUNNELS) && rule.is_metadata(head) {
            return Err(Status::unimplemented(
                "this address is for clients: agents dial the one of agents-listen",
            ));
        }
        record.key = key.clone();
        let who = gate.identify(head)?;
        record.who = who.as_ref().map(|who| who.name.clone());
        let Some(key) = key else {
            return Ok((who, None));
        };
        gate.check(who.as_ref(), &key, head.uri.path())?;
        deny.check(&key)?;
        if !fleet.may_have(&key) {
            return Err(Status::unavailable(presence.away_message(&key)));
        }
        Ok((who, Some(key)))
    }

    /// Answers for the gateway itself.
    async fn answer(
        &mut self,
        request: http::Request<Body>,
        mut record: Record,
    ) -> http::Response<Body> {
        let path = request.uri().path();
        if path.starts_with("/tunnel.admin.v1.") {
            return refused(
                record,
                Status::unimplemented(
                    "this address is for clients: the admin API is at admin-listen",
                ),
            );
        }
        if !path.starts_with("/grpc.health.v1.Health/") && !path.starts_with("/grpc.reflection.") {
            return refused(record, self.services.rule.missing());
        }
        let response = self
            .own
            .call(request)
            .await
            .unwrap_or_else(|never| match never {});
        match Status::from_header_map(response.headers()) {
            Some(status) => record.ended(status.code(), status.message()),
            None => record.ended(tonic::Code::Ok, ""),
        }
        response
    }
}

/// How long a proof is still good for.
fn expires(proof: &Proof) -> Option<Duration> {
    match proof {
        Proof::Certificate { expires, .. } | Proof::Jwt { expires } => Some(
            expires
                .duration_since(SystemTime::now())
                .unwrap_or_default(),
        ),
        Proof::Token { .. } | Proof::Claimed => None,
    }
}

/// Resolves when a call has reached its deadline.
///
/// tonic's server does the same, but with the wrong status: CANCELLED. So this is earlier by as much as a timer can tell
/// apart.
fn expired(headers: &HeaderMap) -> impl Future<Output = Status> + use<> {
    let timeout = headers
        .get("grpc-timeout")
        .and_then(|timeout| parse_timeout(timeout.to_str().ok()?));
    async move {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout.saturating_sub(TIMER_STEP * 2)).await,
            None => std::future::pending().await,
        }
        Status::deadline_exceeded("the deadline of the call has passed at the gateway")
    }
}

/// The duration in `grpc-timeout`: at most eight digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count = digits.parse::<u32>().ok().filter(|_| digits.len() <= 8)?;
    let unit = match unit {
        "H" => Duration::from_secs(3600),
        "M" => Duration::from_secs(60),
        "S" => Duration::from_secs(1),
        "m" => Duration::from_millis(1),
        "u" => Duration::from_micros(1),
        "n" => Duration::from_nanos(1),
        _ => return None,
    };
    unit.checked_mul(count)
}

/// The address of the peer.
fn peer(extensions: &Extensions) -> Option<String> {
    let plain = extensions.get::<TcpConnectInfo>();
    let tls = extensions
        .get::<TlsConnectInfo<TcpConnectInfo>>()
        .map(TlsConnectInfo::get_ref);
    let address = plain.or(tls)?.remote_addr()?;
    Some(address.to_string())
}

/// Removes what is for the gateway alone, and says who is calling.
fn sign(headers: &mut HeaderMap, who: Option<&Identity>) {
    let own: Vec<_> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(OWN_METADATA))
        .cloned()
        .collect();
    for name in own {
        headers.remove(name);
    }
    let Some(who) = who else {
        return;
    };
    // The device must not be able to act as its caller.
    if matches!(who.proof, Proof::Token { .. } | Proof::Jwt { .. }) {
        headers.remove(http::header::AUTHORIZATION);
    }
    if let Ok(name) = HeaderValue::from_str(&who.name) {
        headers.insert(CALLER, name);
    }
}

fn refused(mut record: Record, status: Status) -> http::Response<Body> {
    record.ended(status.code(), status.message());
    status.into_http()
}

impl<B> Service<http::Request<B>> for Edge
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let edge = self.clone();
        let request = request.map(Body::new);
        Box::pin(async move { Ok(edge.serve(request).await) })
    }
}
